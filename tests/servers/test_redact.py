"""What `rdbkit redact` writes loads in real servers, which then answer with as many keys of the same types and sizes."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from fixtures.server import running
from fixtures.server import truth as answers
from rdbkit.operations.redact import redact

from ..rdb import FIXTURES, truth

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
#: Dumps by the server that loads them: its own, and older ones.
LOADS = {
    "redis-6.0": ("redis-2.4.18", "redis-2.8.24", "redis-4.0.14", "redis-6.0.16"),
    "redis-7.0": ("redis-2.4.18", "redis-3.2.13", "redis-6.2.16", "redis-7.0.15"),
    "redis-8.0": ("redis-5.0.14", "redis-7.2.6", "redis-7.4.1", "redis-8.0.6"),
    "redict-7.3": ("redis-6.0.16", "redict-7.3.6"),
    "valkey-8.1": ("redis-2.6.17", "redis-7.0.15", "valkey-7.2.7", "valkey-8.1.1"),
    "valkey-9.1": ("redis-2.4.18", "redis-6.0.16", "valkey-8.0.1", "valkey-9.1.2"),
}
PAIRS = [
    (line, f"{kind}/{name}")
    for line, names in LOADS.items()
    for name in names
    for kind in ("random", "rich")
    if (FIXTURES / kind / f"{name}.rdb").exists()
]


def size(value: Any) -> Any:
    """What stays of a server's answer."""
    if isinstance(value, dict) and "entries" in value:
        groups = [(g["last_id"], len(g["consumers"]), sorted((p[0], p[2]) for p in g["pel"])) for g in value["groups"]]
        return [(e[0], len(e[1])) for e in value["entries"]], value["last_id"], value["length"], sorted(groups)
    if isinstance(value, dict):
        return sorted((len(f), len(v)) for f, v in value["pairs"]), sorted(value["field_expire_ms"].values())
    return len(value) if isinstance(value, str | list) else value


@pytest.mark.parametrize(("line", "name"), PAIRS, ids=[f"{line}-{name}" for line, name in PAIRS])
def test_a_server_has_as_much_as_of_the_source(line: str, name: str, tmp_path: Path) -> None:
    path = FIXTURES / f"{name}.rdb"
    binary = next((SERVERS / line).glob("*-server"))
    with running(binary, path) as (client, _):
        wanted = [dict(row) for row in answers(client)]
        encodings = Counter(_encodings(client, wanted))
    report = redact(path, tmp_path / "redacted.rdb", secret=b"not to be told", keep_modules=True)
    with running(binary, tmp_path / "redacted.rdb") as (client, _):
        found = [dict(row) for row in answers(client)]
        assert Counter(_encodings(client, found)) == encodings
    assert report.written == report.keys
    assert len(found) == len(wanted)
    if truth(path) is not None:
        assert len(found) <= len(truth(path) or ())

    def facts(row: dict[str, Any]) -> tuple[Any, ...]:
        return row["db"], len(row["key"]), row["type"], repr(size(row["value"])), isinstance(row["expire_ms"], list | int)

    assert sorted(map(facts, found)) == sorted(map(facts, wanted))


def _encodings(client: Any, rows: list[dict[str, Any]]) -> list[tuple[int, str, str]]:
    """What a server says of how each key is stored."""
    found = []
    for row in rows:
        client.call("SELECT", row["db"])
        found.append((row["db"], row["type"], client.text("OBJECT", "ENCODING", row["key"].encode("latin-1"))))
    return found

"""What `rdbkit.convert` writes for a target is loaded by real servers of it, which answer the source's data but for the ledger."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from fixtures.server import Client, running
from fixtures.server import truth as answers

from ..rdb import each_dump, truth
from .test_commands import plain, same_expiry

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
#: Targets whose files a server has to load.
TARGETS = {
    "redis-6.0": [
        "redis-2.6", "redis-2.8", "redis-3.2", "redis-4.0", "redis-5.0", "redis-6.0", "redis-6.2", "azure-premium", "rdb-2",
        "rdb-9",
    ],
    "redis-7.0": ["redis-7.0", "rdb-10"],
    "redis-8.0": ["redis-7.2", "redis-7.4", "redis-8.0", "redis-8.4", "azure-enterprise", "azure-managed", "rdb-11", "rdb-12"],
    "valkey-8.1": ["valkey-7.2", "valkey-8.1"],
    "valkey-9.1": ["valkey-9.0", "valkey-9.1", "rdb-80"],
    "redict-7.3": ["redict-7.3"],
}  # fmt: skip
PAIRS = [(line, target) for line, targets in TARGETS.items() for target in targets]
#: Losses that take the whole key.
WHOLE_KEY = {"database", "module", "stream", "array", "cron", "gcra", "json"}
#: Losses that leave no trace in what the servers answer here.
UNSEEN = {"dedup", "key-metadata", "module-aux", "function", "expiry", "field-expiry", "nacked", "member-expiry"}


def check(line: str, path: Path) -> None:
    """redis-check-rdb of the line says that the file is in order."""
    tool = SERVERS / line / "redis-check-rdb"
    if tool.exists():
        said = subprocess.run([tool, path], capture_output=True, text=True, check=False)
        assert "RDB looks OK" in said.stdout, said.stdout


def wanted(path: Path, report: rdbkit.Conversion) -> list[dict[str, Any]]:
    """The source's truth but for exactly what the ledger lists, and for what has expired meanwhile."""
    now = time.time_ns() // 1_000_000
    with rdbkit.open(path) as snapshot:
        expired = {(r.db, r.key) for r in snapshot if r.expire_ms is not None and r.expire_ms <= now}
    lost: dict[str, set[tuple[int | None, bytes | None]]] = {}
    for loss in report.ledger.losses:
        lost.setdefault(loss.kind, set()).add((loss.db, loss.key))
    assert set(lost) <= WHOLE_KEY | UNSEEN
    gone = set().union(*(lost.get(kind, set()) for kind in WHOLE_KEY))
    found = []
    for row in truth(path) or []:
        key = row["db"], row["key"].encode("latin-1")
        if key in expired or key in gone:
            continue
        if key in lost.get("field-expiry", ()):
            row["value"] = row["value"]["pairs"]
        if key in lost.get("nacked", ()):
            for group in row["value"]["groups"]:
                group["pel"] = [entry for entry in group["pel"] if entry[1]]
        if key in lost.get("expiry", ()):
            row["expire_ms"] = None
        found.append(row)
    return found


def has(client: Client, rows: list[dict[str, Any]], precise: bool = True) -> None:
    found = [dict(row) for row in answers(client)]
    assert [(row["db"], row["key"]) for row in found] == [(row["db"], row["key"]) for row in rows]
    for one, other in zip(found, rows, strict=True):
        assert plain(one) == plain(other)
        if precise or other["expire_ms"] is None:
            assert same_expiry(one["expire_ms"], other["expire_ms"]), (one, other)
        else:  # whole seconds
            assert same_expiry(
                one["expire_ms"], ["about", other["expire_ms"][1] if isinstance(other["expire_ms"], list) else other["expire_ms"]]
            )


@pytest.mark.parametrize(("line", "target"), PAIRS)
@pytest.mark.parametrize("path", each_dump(answered=True))
def test_a_server_of_the_target_has_the_data(path: Path, line: str, target: str, tmp_path: Path) -> None:
    made = tmp_path / "made.rdb"
    policies = rdbkit.Policies(loss="drop", module="drop" if target.startswith("rdb-") and line != "redis-8.0" else None)
    report = rdbkit.convert(path, made, target=target, policies=policies)
    rows = wanted(path, report)
    check(line, made)
    with running(SERVERS / line / "redis-server", made) as (client, _):
        has(client, rows, precise=target != "rdb-2")
        if line != "redis-6.0":
            with rdbkit.open(path) as snapshot:
                names = {library.name.encode() for library in snapshot.functions}
            listed = {library[1] for library in client.items("FUNCTION", "LIST") if isinstance(library, list)}
            assert listed == names

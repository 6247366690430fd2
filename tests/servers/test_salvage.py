"""What is saved of a damaged dump loads in the real servers that load the dump without its damage."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from fixtures.server import running
from fixtures.server import truth as answers
from rdbkit.operations.salvage import salvage

from ..operations.test_salvage import KINDS, damage
from ..rdb import FIXTURES

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
DUMPS = {
    "redis-6.0": ["rich/redis-6.0.16", "random/redis-6.0.16", "random/redis-2.6.17", "random/redis-5.0.14"],
    "redis-7.0": ["rich/redis-7.0.15", "random/redis-7.0.15", "random/redis-4.0.14"],
    "redis-8.0": ["rich/redis-8.0.6", "random/redis-8.0.6", "rich/redis-7.4.1", "random/redis-7.2.6"],
    "redict-7.3": ["rich/redict-7.3.6", "random/redict-7.3.6"],
    "valkey-8.1": ["rich/valkey-8.1.1", "random/valkey-8.1.1"],
    "valkey-9.1": ["rich/valkey-9.1.2", "random/valkey-9.1.2", "random/redis-7.0.15", "random/redis-2.8.24"],
}
CASES = [(line, dump, kind) for line, dumps in DUMPS.items() for dump in dumps for kind in KINDS]


def loaded(line: str, path: Path) -> list[dict[str, Any]]:
    """What a server of the line answers of every key; raises where it does not load the file."""
    binary = next((SERVERS / line).glob("*-server"))
    conf = [] if line == "redis-6.0" else ["sanitize-dump-payload yes"]  # look into values
    with running(binary, path, conf) as (client, _):
        rows = [dict(row) for row in answers(client)]
        assert len(rows) == sum(size(client, db) for db in range(16))
        return rows


def size(client: Any, db: int) -> int:
    client.call("SELECT", db)
    found: int = client.integer("DBSIZE")
    return found


@pytest.mark.parametrize(("line", "dump", "kind"), CASES, ids=[f"{line}-{dump}-{kind}" for line, dump, kind in CASES])
def test_what_is_saved_loads(line: str, dump: str, kind: str, tmp_path: Path) -> None:
    whole = (FIXTURES / f"{dump}.rdb").read_bytes()
    rng = random.Random(f"{line} {dump} {kind}")
    path, out = tmp_path / "damaged.rdb", tmp_path / "out.rdb"
    for number in range(2):
        path.write_bytes(damage(whole, kind, rng.randrange(9, len(whole)), rng.choice([1, 3, 50, 1000]), rng).data)
        report = salvage(path, out, samples=1000, force=True)
        rows = loaded(line, out)
        now = time.time_ns() // 1_000_000
        with rdbkit.open(out) as snapshot:
            kept = {
                (r.db, r.key): "vectorset" if r.type == "module" else r.type
                for r in snapshot
                if r.expire_ms is None or r.expire_ms > now
            }
        assert report.kept >= len(kept)
        assert {(row["db"], row["key"].encode("latin-1")): row["type"] for row in rows} == kept, number

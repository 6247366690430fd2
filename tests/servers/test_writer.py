"""What `rdbkit.create` writes is loaded by real servers, which answer the same data."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from fixtures.server import running
from fixtures.server import truth as answers

from ..rdb import each_dump, truth
from .test_commands import plain, same_expiry

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
VERSIONS = {
    "redis-6.0": ("redis", 9),
    "redis-7.0": ("redis", 10),
    "redis-8.0": ("redis", 12),
    "valkey-8.1": ("redis", 11),
    "valkey-9.1": ("valkey", 80),
    "redict-7.3": ("redis", 11),
}


@pytest.mark.parametrize("line", VERSIONS)
@pytest.mark.parametrize("path", each_dump(answered=True))
def test_a_server_answers_what_was_put(path: Path, line: str, tmp_path: Path) -> None:
    flavour, version = VERSIONS[line]
    made = tmp_path / "made.rdb"
    gone: set[tuple[int, bytes]] = set()
    with rdbkit.open(path) as snapshot, rdbkit.create(made, version=version, flavour=flavour) as writer:
        for record in snapshot:
            here = (record.db, record.key)
            if record.expire_ms is not None and record.expire_ms <= time.time_ns() // 1_000_000:
                gone.add(here)
            elif record.type == "module" and line != "redis-8.0":
                gone.add(here)  # a server without the module would stop
            else:
                try:
                    writer.put(record.key, record.value, db=record.db, expire_ms=record.expire_ms)
                except rdbkit.LossError:
                    gone.add(here)
    check = SERVERS / line / "redis-check-rdb"
    if check.exists():
        said = subprocess.run([check, made], capture_output=True, text=True, check=False)
        assert "RDB looks OK" in said.stdout, said.stdout
    wanted: list[dict[str, Any]] = [r for r in truth(path) or [] if (r["db"], r["key"].encode("latin-1")) not in gone]
    with running(SERVERS / line / "redis-server", made) as (client, _):
        found = [dict(row) for row in answers(client)]
    assert [(row["db"], row["key"]) for row in found] == [(row["db"], row["key"]) for row in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert plain(one) == plain(other)
        assert same_expiry(one["expire_ms"], other["expire_ms"]), (one, other)

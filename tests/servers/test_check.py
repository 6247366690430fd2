"""What `check` calls as it is, a real server loads; what it does not, the server refuses."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import rdbkit
from fixtures.server import Refused, running
from rdbkit.operations.check import AS_IT_IS, check
from rdbkit.targets.target import find_target

from ..rdb import each_dump

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
LINES = ["redis-6.0", "redis-7.0", "redis-8.0", "valkey-8.1", "valkey-9.1", "redict-7.3"]


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("path", each_dump())
def test_a_server_agrees(path: Path, line: str) -> None:
    with rdbkit.open(path) as snapshot:
        report = check(snapshot, find_target(line))
    expired = sum(f.keys for f in report.findings if f.code == "RDB303")
    try:
        with running(SERVERS / line / "redis-server", path) as (client, _):
            keys = sum(map(int, re.findall(r":keys=(\d+)", client.text("INFO", "keyspace"))))
    except Refused:
        assert report.verdict != AS_IT_IS, report
    else:
        assert report.verdict == AS_IT_IS, report
        assert keys == report.keys - expired

"""What `info` says of a server is what that server does."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import rdbkit
from fixtures.server import Refused, running
from rdbkit.operations.info import info

from ..rdb import each_dump

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
# server unpacked by fixtures/servers.sh -> the target that stands for its line
TARGETS = {
    "redis-6.0": "redis-5.0",
    "redis-7.0": "redis-7.0",
    "redis-8.0": "redis-8.0",
    "valkey-8.1": "valkey-7.2",
    "valkey-9.1": "valkey-9.0",
    "redict-7.3": "redict-7.3",
}


@pytest.mark.parametrize("server", TARGETS)
@pytest.mark.parametrize("path", each_dump())
def test_a_server_loads_what_info_says_that_it_loads(path: Path, server: str) -> None:
    with rdbkit.open(path) as snapshot:
        report = info(snapshot)
    (said,) = (row for row in report.loads_as_is if row.target == TARGETS[server])
    try:
        with running(SERVERS / server / "redis-server", path) as (client, _):
            keys = sum(map(int, re.findall(r":keys=(\d+)", client.text("INFO", "keyspace"))))
    except Refused:
        assert said.loads == "no", "refused"
    else:
        assert said.loads == "yes", said.why
        assert keys == report.keys - report.expired

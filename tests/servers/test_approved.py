"""Real servers load what check --deep approves, and what convert --deep writes, of the files in fixtures/faults."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import rdbkit
from fixtures.server import Refused, running
from rdbkit.operations.check import AS_IT_IS, check
from rdbkit.targets.target import find_target

from ..rdb import FIXTURES

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
NAMES = ("redis-6.0", "redis-7.0", "redis-8.0", "valkey-8.1", "valkey-9.1", "redict-7.3")
FAULTS = sorted(FIXTURES.glob("faults/*.rdb"))


def loads(server: str, path: Path) -> bool:
    try:
        with running(SERVERS / server / "redis-server", path):
            return True
    except Refused:
        return False


@pytest.mark.parametrize("server", NAMES)
@pytest.mark.parametrize("path", FAULTS, ids=lambda path: path.stem)
def test_what_is_approved_and_what_is_written_loads(path: Path, server: str, tmp_path: Path) -> None:
    target = find_target(server)
    with rdbkit.open(path) as snapshot:
        report = check(snapshot, target, deep=True)
    if report.verdict == AS_IT_IS:
        assert loads(server, path)
    written = tmp_path / "written.rdb"
    edits = rdbkit.Edits(on_duplicate="last")
    rdbkit.convert(path, written, target=target, deep=True, on_error="skip", edits=edits)
    assert loads(server, written)


def test_servers_refuse_some_of_them() -> None:
    """Otherwise the test above would hold nothing against anything."""
    assert not loads("redis-7.0", FIXTURES / "faults" / "key-twice.rdb")
    assert not loads("valkey-9.1", FIXTURES / "faults" / "stream-length.rdb")
    assert loads("redis-8.0", FIXTURES / "faults" / "stream-length.rdb")

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

from ..rdb import each_dump, key, length, rdb, string

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


@pytest.mark.parametrize("path", each_dump())
def test_the_engine_loads_what_is_approved_for_a_service_by_what_is_known_of_it(path: Path, tmp_path: Path) -> None:
    """Redis 8.0 loads all that Redis 7.4 does."""
    managed = find_target("azure-managed")
    for target in (managed.with_engine("8.0").with_modules([]), managed.with_undocumented().with_modules([])):
        report = check(path, target, deep=True)
        goes_in = path
        if report.verdict != AS_IT_IS:
            goes_in = tmp_path / f"{target.release_line}.rdb"
            edits = rdbkit.Edits(collapse_dbs=True, on_conflict="rename", on_duplicate="last")
            policies = rdbkit.Policies(loss="drop")
            rdbkit.convert(path, goes_in, target=target, policies=policies, edits=edits, deep=True, on_error="skip")
            with rdbkit.open(goes_in) as snapshot:
                assert snapshot.header.version <= 12
            assert check(goes_in, target, deep=True).verdict == AS_IT_IS
        with running(SERVERS / "redis-8.0" / "redis-server", goes_in):
            pass


def test_the_engine_has_the_expiries_of_fields_that_are_kept(tmp_path: Path) -> None:
    at = 4_102_444_800_000
    value = at.to_bytes(8, "little") + length(2) + length(1) + string(b"f") + string(b"v") + length(0) + string(b"g") + string(b"w")
    (tmp_path / "in.rdb").write_bytes(rdb(b"\xfe\0", key(b"h", 24, value), magic=b"REDIS0012"))
    managed = find_target("azure-managed")
    for number, target in enumerate((managed.with_engine("8.0"), managed.with_undocumented())):
        made = tmp_path / f"{number}.rdb"
        report = rdbkit.convert(tmp_path / "in.rdb", made, target=target)
        assert (report.ledger.counts, report.identical) == ({}, True)
        with running(SERVERS / "redis-8.0" / "redis-server", made) as (client, _):
            assert client.items("HPEXPIRETIME", "h", "FIELDS", 2, "f", "g") == [at, -1]

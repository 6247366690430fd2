"""`rdbkit.convert` and the command: losses, databases, edits, and what must not change."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rdbkit
from rdbkit.format import constants as c
from rdbkit.targets.target import find_target

from .. import command_line
from ..encoders import ENCODERS, Encoder, comparable
from ..processes import GUARD, heeding_signals, until
from ..rdb import FIXTURES, REPRESENTATIVE_TARGETS, dumps_at_once, each_dump, each_target, key, length, rarely, rdb, string

NOW = 1_800_000_000_000
FAR = 4_102_444_800_000
RICH = FIXTURES / "rich"
BLOCKS = [None, 64]
LINES = ["redis-3.2", "redis-6.0", "redis-7.0", "redis-7.2", "redis-7.4", "redis-8.8", "valkey-8.1", "valkey-9.1", "redict-7.3"]


def convert(src: bytes | Path, target: str = "redis-6.0", **options: Any) -> tuple[bytes, rdbkit.Conversion]:
    """The file and the report."""
    out = io.BytesIO()
    report = rdbkit.convert(io.BytesIO(src) if isinstance(src, bytes) else src, out, target=target, now_ms=NOW, **options)
    return out.getvalue(), report


def records(data: bytes) -> list[rdbkit.Record]:
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        return list(snapshot)


def values(data: bytes) -> list[tuple[Any, ...]]:
    return [(r.db, r.key, r.expire_ms, r.value, getattr(r.value, "field_expire_ms", None)) for r in records(data)]


def refused(src: bytes | Path, target: str = "redis-6.0", **options: Any) -> rdbkit.Conversion:
    """The report of a conversion that is not done."""
    out = io.BytesIO()
    with pytest.raises(rdbkit.LossError, match="nothing was written") as error:
        rdbkit.convert(io.BytesIO(src) if isinstance(src, bytes) else src, out, target=target, now_ms=NOW, **options)
    assert isinstance(error.value.report, rdbkit.Conversion)
    with pytest.raises(rdbkit.RdbError):  # what there is has no end mark
        records(out.getvalue())
    return error.value.report


def drop() -> rdbkit.Policies:
    return rdbkit.Policies(loss="drop")


# -- what need not change


@pytest.mark.parametrize("block_size", BLOCKS)
@pytest.mark.parametrize("path", each_dump())
def test_a_file_for_its_own_version_is_the_same(path: Path, block_size: int | None) -> None:
    with rdbkit.open(path) as snapshot:
        flavour, version = snapshot.header
        foreign = any(t in snapshot.types and snapshot.types[t] in c.FOREIGN for t in {r.rdb_type for r in snapshot})
    data, report = convert(path, "keydb-6.3" if foreign or "keydb" in path.stem else f"rdb-{version}", block_size=block_size)
    assert data == path.read_bytes()
    assert report.identical
    assert report.header == (flavour, version)


def test_a_file_without_a_checksum_keeps_none() -> None:
    plain = rdb(key(b"k", 0, string(b"v")), crc=False)
    assert convert(plain)[0] == plain
    longer, report = convert(plain, "rdb-11")
    assert not report.identical
    with rdbkit.open(io.BytesIO(longer)) as snapshot:
        list(snapshot)
    assert snapshot.checksum is not None
    assert snapshot.checksum.state == "ok"


def test_an_old_file_stays_as_it_is_for_a_new_server_and_gets_a_version_that_is_asked_for() -> None:
    path = RICH / "redis-2.8.24.rdb"
    assert convert(path, "redis-8.8")[0] == path.read_bytes()
    data, report = convert(path, "rdb-12")
    assert data[:9] == b"REDIS0012"
    assert data[9:-8] == path.read_bytes()[9:-8]
    assert str(report.header) == "REDIS0012"


def test_what_is_damaged_but_not_decoded_is_passed_on_and_what_is_decoded_is_refused() -> None:
    broken = key(b"broken", 16, string(b"\x09\0\0\0\x01\0\x81x\xff"))
    file = rdb(key(b"a", 0, string(b"1")), broken, key(b"b", 0, string(b"2")), magic=b"REDIS0010")
    assert convert(file, "redis-7.0")[0] == file
    with pytest.raises(rdbkit.CorruptError) as error:
        convert(file)
    assert error.value.key == b"broken"
    data, report = convert(file, on_error="skip")
    assert [r.key for r in records(data)] == [b"a", b"b"]
    assert [e.key for e in report.skipped] == [b"broken"]
    assert (report.written, report.left_out, report.keys) == (2, 1, 3)


# -- every dump to every target


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("path", each_dump("rich"))
def test_blocks_and_processes_do_not_matter(path: Path, line: str) -> None:
    whole, report = convert(path, line, policies=drop())
    pieces, other = convert(path, line, policies=drop(), block_size=64)
    assert values(pieces) == values(whole)
    assert (other.written, other.left_out) == (report.written, report.left_out)
    assert other.ledger.losses == report.ledger.losses
    assert other.ledger.notes == report.ledger.notes


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", ["redis-8.8-dev-keymeta", "valkey-9.1.2-lru", *rarely("redis-7.4.1", "redis-6.0.20-mod")])
@pytest.mark.parametrize("line", ["redis-4.0", "valkey-9.1", *rarely("redis-6.0", "redis-7.2")])
def test_processes_write_the_same_bytes(name: str, line: str) -> None:
    path = RICH / f"{name}.rdb"
    for block_size in (400, None):
        one = convert(path, line, policies=drop(), block_size=block_size)
        two = convert(path, line, policies=drop(), block_size=block_size, jobs=2)
        assert two[0] == one[0]
        assert two[1].ledger.losses == one[1].ledger.losses
        assert (two[1].written, two[1].left_out, two[1].identical) == (one[1].written, one[1].left_out, one[1].identical)


@pytest.mark.parametrize("dumps", dumps_at_once())
@pytest.mark.parametrize("name", each_target())
def test_a_target_gets_only_types_that_it_knows(name: str, dumps: list[Path]) -> None:
    target = find_target(name)
    for path in dumps:
        data, report = convert(path, name, policies=drop())
        known = target.types_in(report.header)
        found = records(data)
        for record in found:
            assert record.rdb_type in known
            assert record.db == 0 or not target.single_db
        assert len({(r.db, r.key) for r in found}) == len(found)


# -- losses

EXPIRING = key(
    b"h", 24, FAR.to_bytes(8, "little") + b"\x03" + b"\1" + string(b"soon") + string(b"1") + b"\0" + string(b"never") + string(b"2")
    + length(1001) + string(b"later") + string(b"3"),
)  # fmt: skip
PAST = key(
    b"h",
    24,
    (NOW - 5).to_bytes(8, "little") + b"\x02" + b"\1" + string(b"past") + string(b"1") + b"\0" + string(b"kept") + string(b"2"),
)
REDIS12 = b"REDIS0012"


def test_fields_that_expire_are_kept_left_out_or_stand_for_the_key() -> None:
    file = rdb(EXPIRING, magic=REDIS12)
    report = refused(file)
    assert report.ledger.forbidden == {"field-expiry": 2}
    assert [(loss.kind, loss.db, loss.key, loss.count) for loss in report.ledger.losses] == [("field-expiry", 0, b"h", 2)]
    whole = {b"soon": b"1", b"never": b"2", b"later": b"3"}
    found: dict[str, Any] = {}
    for choice in ("drop-ttl", "drop-field", "key-min", "key-max"):
        for block_size in (None, 16):
            data, report = convert(file, policies=rdbkit.Policies(field_ttl=choice), block_size=block_size)
            (record,) = records(data)
            assert report.ledger.counts == {"field-expiry": 2}
            assert found.setdefault(choice, (record.value, record.expire_ms)) == (record.value, record.expire_ms)
    assert found == {
        "drop-ttl": (whole, None),
        "drop-field": ({b"never": b"2"}, None),
        "key-min": (whole, FAR),
        "key-max": (whole, None),  # one of them never expires
    }


def test_a_key_expires_with_the_last_of_its_fields_where_all_expire_and_no_later_than_before() -> None:
    fields = b"\x02" + b"\1" + string(b"a") + string(b"1") + length(1001) + string(b"b") + string(b"2")
    for own, wanted in ((None, FAR + 1000), (FAR + 500, FAR + 500), (FAR + 2000, FAR + 1000)):
        file = rdb(key(b"h", 24, FAR.to_bytes(8, "little") + fields, own), magic=REDIS12)
        (record,) = records(convert(file, policies=rdbkit.Policies(field_ttl="key-max"))[0])
        assert record.expire_ms == wanted


def test_fields_that_have_expired_do_not_come_to_life_again() -> None:
    for block_size in (None, 16):
        data, report = convert(rdb(PAST, magic=REDIS12), block_size=block_size)
        assert [r.value for r in records(data)] == [{b"kept": b"2"}]
        assert report.ledger.notes == {"expired-field": 1}
        assert not report.ledger.counts


def test_a_hash_of_which_nothing_is_left_is_left_out() -> None:
    gone = key(b"h", 24, (NOW - 5).to_bytes(8, "little") + b"\x01" + b"\1" + string(b"past") + string(b"1"))
    for block_size in (None, 16):
        data, report = convert(rdb(gone, key(b"k", 0, string(b"v")), magic=REDIS12), block_size=block_size)
        assert [r.key for r in records(data)] == [b"k"]
        assert (report.written, report.left_out) == (1, 1)


def test_field_expiries_go_from_redis_to_valkey_and_back() -> None:
    for name, target in (("redis-8.0.6", "valkey-9.1"), ("valkey-9.1.2", "redis-7.4"), ("redis-7.4-rc1", "valkey-9.0")):
        for block_size in BLOCKS:
            path = RICH / f"{name}.rdb"
            data, report = convert(path, target, policies=rdbkit.Policies(module="drop"), block_size=block_size)
            assert set(report.ledger.counts) <= {"module"}
            assert [v for v in values(data) if v[4]] == [v for v in values(path.read_bytes()) if v[4]] != []


def test_all_losses_are_found_before_it_gives_up() -> None:
    report = refused(RICH / "redis-8.8-dev-keymeta.rdb")
    assert {"function", "field-expiry", "array", "module", "nacked", "dedup", "key-metadata"} <= set(report.ledger.forbidden)
    assert report.keys > 30


def test_functions_come_with_the_report() -> None:
    path = RICH / "redis-7.0.15.rdb"
    _, report = convert(path, policies=rdbkit.Policies(function="extract"))
    with rdbkit.open(path) as snapshot:
        assert report.functions == [f.source for f in snapshot.functions] != []


def test_functions_of_a_release_candidate_are_written_as_released_servers_have_them() -> None:
    data, report = convert(RICH / "redis-7.0-rc1.rdb", "redis-7.2")
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        (library,) = snapshot.functions
    assert not library.pre_release
    assert library.source.lower().startswith(b"#!lua name=")
    assert not report.ledger.counts


JSON = b'{"a":[1,2]}'


def module_id(name: str, version: int) -> bytes:
    number = 0
    for letter in name:
        number = number << 6 | "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".index(letter)
    return b"\x81" + (number << 10 | version).to_bytes(8, "big")


def module_value(name: str, version: int, frames: bytes) -> bytes:
    return module_id(name, version) + frames + b"\0"


@pytest.mark.parametrize("block_size", [None, 16])
def test_documents_become_strings_and_other_modules_do_not(block_size: int | None) -> None:
    document = JSON + b" " * 100
    file = rdb(
        key(b"new", 7, module_value("ReJSON-RL", 3, b"\5" + string(document)), FAR),
        key(b"old", 7, module_value("ReJSON-RL", 2, b"\5" + string(JSON) + b"\2\0")),
        key(b"bloom", 7, module_value("MBbloom--", 4, b"\2\5")),
    )
    assert refused(file, block_size=block_size).ledger.forbidden == {"module": 3}
    text = rdbkit.Policies(module="json-as-string")
    assert refused(file, policies=text, block_size=block_size).ledger.forbidden == {"module": 1}
    data, report = convert(file, policies=rdbkit.Policies(loss="drop", module="json-as-string"), block_size=block_size)
    assert [(r.key, r.expire_ms, r.value) for r in records(data)] == [(b"new", FAR, document), (b"old", None, JSON)]
    assert report.ledger.counts == {"module": 3}
    assert convert(file, policies=rdbkit.Policies(module="keep"), block_size=block_size)[0] == file
    assert convert(file, "azure-managed", block_size=block_size)[0] == file  # which can have these modules


@pytest.mark.parametrize("block_size", [None, 16])
def test_module_data_goes_with_its_module(block_size: int | None) -> None:
    data = b"\xf7" + module_id("ReJSON-RL", 3) + b"\2\1" + b"\5" + string(b"x" * 100) + b"\0"
    file = rdb(data, key(b"k", 0, string(b"v")), data)
    assert refused(file, block_size=block_size).ledger.forbidden == {"module-aux": 2}
    assert records(convert(file, policies=drop(), block_size=block_size)[0])[0].value == b"v"
    with rdbkit.open(io.BytesIO(convert(file, policies=drop(), block_size=block_size)[0])) as snapshot:
        assert not [e for e in snapshot.events() if isinstance(e, rdbkit.ModuleAux)]
    assert convert(file, "azure-managed", block_size=block_size)[0] == file


@pytest.mark.parametrize("block_size", BLOCKS)
def test_entries_of_no_consumer_are_dropped_or_assigned(block_size: int | None) -> None:
    path = RICH / "redis-8.8-dev.rdb"
    with rdbkit.open(path) as snapshot:
        source = {r.key: r.value for r in snapshot if r.type == "stream"}
    (name,) = [k for k, v in source.items() if any(g.nacked for g in v.groups)]
    group = next(g for g in source[name].groups if g.nacked)
    for owner in (b"somebody new", group.consumers[0].name):
        for line in ("redis-7.2", "redis-6.0"):
            policies = rdbkit.Policies(loss="drop", pending_unowned="assign", owner=owner)
            data, _ = convert(path, line, policies=policies, block_size=block_size)
            made = next(r.value for r in records(data) if r.key == name)
            found = next(g for g in made.groups if g.name == group.name)
            assert {p.id: p.consumer for p in found.pending} == {p.id: p.consumer or owner for p in group.pending}
            assert [(p.id, p.delivery_ms, p.delivery_count) for p in found.pending] == [
                (p.id, p.delivery_ms, p.delivery_count) for p in group.pending
            ]
    data, report = convert(path, "redis-7.2", policies=drop(), block_size=block_size)
    made = next(r.value for r in records(data) if r.key == name)
    found = next(g for g in made.groups if g.name == group.name)
    assert [p.id for p in found.pending] == [p.id for p in group.pending if p.consumer is not None]
    assert report.ledger.counts["nacked"] == len(group.nacked)


def test_counters_of_streams_are_notes_unless_they_are_wanted() -> None:
    path = RICH / "redis-7.2.6.rdb"
    _, report = convert(path, policies=rdbkit.Policies(function="drop"))
    assert set(report.ledger.notes) == {"stream-counters"}
    assert set(report.ledger.counts) == {"function"}
    report = refused(path, policies=rdbkit.Policies(function="drop", stream_extras="fail"))
    assert set(report.ledger.forbidden) == {"stream-counters"}


@pytest.mark.parametrize("block_size", BLOCKS)
def test_arrays_become_hashes(block_size: int | None) -> None:
    path = RICH / "redis-8.8-dev.rdb"
    policies = rdbkit.Policies(loss="drop", array="hash")
    data, report = convert(path, "redis-7.2", policies=policies, block_size=block_size)
    made = {r.key: r for r in records(data)}
    arrays = [r for r in records(path.read_bytes()) if r.type == "array"]
    assert arrays
    for record in arrays:
        assert made[record.key].type == "hash"
        expected = {b"%d" % i: v if isinstance(v, bytes) else str(v).encode() for i, v in record.value.items()}
        assert {i: v.replace(b".0", b"") for i, v in made[record.key].value.items()} == {
            i: v.replace(b".0", b"") for i, v in expected.items()
        }
    assert report.ledger.counts["array"] == len(arrays)


def test_a_key_larger_than_the_target_takes_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    import dataclasses

    target = dataclasses.replace(find_target("azure-managed"), max_key_bytes=1000)
    file = rdb(
        key(b"small", 0, string(b"v")), key(b"big", 0, string(b"x" * 5000)), key(b"list", 1, length(50) + string(b"y" * 60) * 50)
    )
    out = io.BytesIO()
    with pytest.raises(rdbkit.LossError) as error:
        rdbkit.convert(io.BytesIO(file), out, target=target, block_size=256)
    assert error.value.report.ledger.forbidden == {"oversize": 2}
    out = io.BytesIO()
    report = rdbkit.convert(io.BytesIO(file), out, target=target, policies=rdbkit.Policies(oversize="drop"), block_size=256)
    assert [r.key for r in records(out.getvalue())] == [b"small"]
    assert [loss.key for loss in report.ledger.losses] == [b"big", b"list"]


def test_what_stands_behind_the_snapshot_is_not_forgotten() -> None:
    file = rdb(key(b"k", 0, string(b"v"))) + b"*1\r\n$4\r\nPING\r\n"
    assert refused(file).ledger.forbidden == {"commands": 1}
    data, _ = convert(file, policies=drop())
    assert data == file[:-14]
    padded = rdb(key(b"k", 0, string(b"v"))) + b"\0" * 99
    assert convert(padded)[0] == padded[:-99]


def test_expiries_of_members_are_losses_for_all_but_keydb() -> None:
    path = RICH / "keydb-6.3.4-ext.rdb"
    for block_size in BLOCKS:
        report = refused(path, block_size=block_size)
        with rdbkit.open(path) as snapshot:
            members = {r.key: len(r.member_expire_ms) for r in snapshot if r.member_expire_ms and r.type != "cron"}
        lost = [loss.key for loss in report.ledger.losses if loss.kind == "member-expiry"]
        assert {k: lost.count(k) for k in lost} == members != {}
        data, _ = convert(path, policies=drop(), block_size=block_size)
        with rdbkit.open(io.BytesIO(data)) as snapshot:
            assert not [r.key for r in snapshot if r.member_expire_ms]


# -- databases

TWO = rdb(
    b"\xfe\0\xfb\3\1", key(b"a", 0, string(b"0a")), key(b"b", 0, string(b"0b"), FAR), key(b"c", 0, string(b"0c")),
    b"\xfe\3\xfb\2\0", key(b"b", 0, string(b"3b")), key(b"d", 0, string(b"3d")),
    b"\xfe\5\xfb\1\0", key(b"b", 0, string(b"5b")),
)  # fmt: skip


@pytest.fixture
def two(tmp_path: Path) -> Path:
    path = tmp_path / "two.rdb"
    path.write_bytes(TWO)
    return path


def contents(data: bytes) -> list[tuple[int, bytes, bytes]]:
    return [(r.db, r.key, r.value) for r in records(data)]


def counts(data: bytes) -> list[tuple[int, int]]:
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        return [(e.keys, e.expires) for e in snapshot.events() if isinstance(e, rdbkit.ResizeDb)]


@pytest.mark.parametrize("block_size", [None, 16])
def test_keys_move_to_other_databases(two: Path, block_size: int | None) -> None:
    data, report = convert(two, edits=rdbkit.Edits(map_db={3: 7, 5: 0}, on_conflict="first"), block_size=block_size)
    assert contents(data) == [(0, b"a", b"0a"), (0, b"b", b"0b"), (0, b"c", b"0c"), (7, b"b", b"3b"), (7, b"d", b"3d")]
    assert [(loss.kind, loss.db, loss.key) for loss in report.ledger.losses] == [("conflict", 5, b"b")]
    assert counts(data) == [(3, 1), (2, 0)]


def test_conflicts_are_all_listed_and_nothing_is_written(two: Path) -> None:
    report = refused(two, edits=rdbkit.Edits(collapse_dbs=True))
    assert [(loss.db, loss.key) for loss in report.ledger.losses] == [(3, b"b"), (5, b"b")]
    assert report.ledger.forbidden == {"conflict": 2}


def test_of_keys_with_one_name_one_is_kept_or_the_later_ones_get_another(two: Path) -> None:
    def collapsed(**options: Any) -> list[tuple[int, bytes, bytes]]:
        data, _ = convert(two, edits=rdbkit.Edits(collapse_dbs=True, **options))
        assert counts(data) == [(len(records(data)), sum(r.expire_ms is not None for r in records(data)))]
        return contents(data)

    assert collapsed(on_conflict="first") == [(0, b"a", b"0a"), (0, b"b", b"0b"), (0, b"c", b"0c"), (0, b"d", b"3d")]
    assert collapsed(on_conflict="last") == [(0, b"a", b"0a"), (0, b"c", b"0c"), (0, b"d", b"3d"), (0, b"b", b"5b")]
    assert collapsed(on_conflict="rename", rename_pattern="{key}@{db}") == [
        (0, b"a", b"0a"), (0, b"b", b"0b"), (0, b"c", b"0c"), (0, b"b@3", b"3b"), (0, b"d", b"3d"), (0, b"b@5", b"5b"),
    ]  # fmt: skip


def test_a_new_name_that_another_key_has_is_a_conflict_again(two: Path) -> None:
    report = refused(two, edits=rdbkit.Edits(collapse_dbs=True, on_conflict="rename", rename_pattern="{key}x"))
    assert report.ledger.forbidden == {"conflict": 1}
    assert [(loss.db, loss.key, "is called" in loss.what) for loss in report.ledger.losses] == [(3, b"b", True), (5, b"b", False)]


def test_a_target_with_one_database_refuses_others_unless_told(two: Path) -> None:
    report = refused(two, "azure-managed")
    assert report.ledger.forbidden == {"database": 3}
    data, _ = convert(two, "azure-managed", selection=rdbkit.Selection(dbs=0))
    assert [db for db, _, _ in contents(data)] == [0, 0, 0]
    assert b"\xfe\3" not in data
    assert contents(convert(two, "azure-managed", policies=drop())[0]) == contents(data)


def test_what_is_read_twice_has_to_be_a_file() -> None:
    for edits in (
        rdbkit.Edits(rename_prefix=((b"a", b"b"),)),
        rdbkit.Edits(collapse_dbs=True, on_conflict="first"),
        rdbkit.Edits(collapse_dbs=True, drop_expired=True),
    ):
        with pytest.raises(ValueError, match="read twice"):
            convert(TWO, edits=edits)
    with pytest.raises(ValueError, match="read twice"):
        convert(TWO, edits=rdbkit.Edits(collapse_dbs=True), selection=rdbkit.Selection(prefixes=[b"a"]))


@pytest.mark.parametrize("block_size", [None, 16])
def test_of_a_pipe_it_is_found_whether_names_meet(two: Path, block_size: int | None) -> None:
    refused_report = refused(TWO, edits=rdbkit.Edits(collapse_dbs=True), block_size=block_size)
    assert refused_report.ledger.forbidden == {"conflict": 2}
    assert re.fullmatch(r"keys at byte \d+ and at byte \d+ would have the same name", refused_report.ledger.losses[0].what)
    edits = rdbkit.Edits(map_db={3: 7, 5: 8})
    assert convert(TWO, edits=edits, block_size=block_size)[0] == convert(two, edits=edits, block_size=block_size)[0]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=2)), unique=True, max_size=60),
    st.sampled_from(["first", "last", "rename"]),
    st.sampled_from([16, 200, 1 << 20]),
)
@settings(max_examples=50)
def test_any_databases_collapse_without_a_name_that_is_there_twice(
    tmp_path_factory: pytest.TempPathFactory, keys: list[tuple[int, bytes]], on_conflict: str, block_size: int
) -> None:
    path = tmp_path_factory.mktemp("c") / "x.rdb"
    keys.sort()
    with rdbkit.create(path, version=9) as writer:
        for db, name in keys:
            writer.put(name, b"%d" % db, db=db)
    edits = rdbkit.Edits(collapse_dbs=True, on_conflict=on_conflict, rename_pattern="{db}/{key}")
    data, report = convert(path, edits=edits, block_size=block_size)
    found = {r.key: r.value for r in records(data)}
    assert len(found) == len(records(data)) == report.written
    groups: dict[bytes, list[int]] = {}
    for db, name in keys:
        groups.setdefault(name, []).append(db)
    wanted = {}
    for name, dbs in groups.items():
        wanted[name] = b"%d" % (dbs[-1] if on_conflict == "last" else dbs[0])
        if on_conflict == "rename":
            wanted |= {b"%d/%b" % (db, name): b"%d" % db for db in dbs[1:]}
    assert found == wanted


# -- selection and edits


@pytest.mark.parametrize("block_size", [None, 32])
@pytest.mark.parametrize("line", ["redis-6.0", "redis-7.0"])
def test_selected_keys_are_those_that_the_selection_names(line: str, block_size: int | None) -> None:
    path = RICH / "redis-7.0.15.rdb"
    for selection in (
        rdbkit.Selection(types=["hash", "stream"]), rdbkit.Selection(keys=b"l*"), rdbkit.Selection(dbs=3),
        rdbkit.Selection(size=(0, 60)), rdbkit.Selection(size=(1000, None)), rdbkit.Selection(expiry="no-ttl", now_ms=NOW),
    ):  # fmt: skip
        with rdbkit.open(path) as snapshot:
            wanted = [(r.db, r.key, r.type) for r in snapshot if selection(r)]
        data, report = convert(path, line, selection=selection, policies=rdbkit.Policies(function="drop"), block_size=block_size)
        assert [(r.db, r.key, r.type) for r in records(data)] == wanted
        assert report.written == len(wanted)
        assert report.keys == 27
        per_db = {db: sum(w[0] == db for w in wanted) for db, _, _ in wanted}
        assert [n for n, _ in counts(data)] == list(per_db.values())


@pytest.mark.parametrize("block_size", [None, 16])
def test_expiries_are_edited(block_size: int | None) -> None:
    file = rdb(key(b"past", 0, string(b"v"), NOW - 1), key(b"far", 0, string(b"v"), FAR), key(b"never", 0, string(b"v")))

    def expiries(**options: Any) -> dict[bytes, int | None]:
        data, _ = convert(file, edits=rdbkit.Edits(**options), block_size=block_size)
        return {r.key: r.expire_ms for r in records(data)}

    assert expiries() == {b"past": NOW - 1, b"far": FAR, b"never": None}
    assert expiries(drop_expired=True) == {b"far": FAR, b"never": None}
    assert expiries(set_ttl_ms=1000) == dict.fromkeys((b"past", b"far", b"never"), NOW + 1000)
    assert expiries(set_ttl_ms=-1) == dict.fromkeys((b"past", b"far", b"never"))
    assert expiries(shift_ttl_ms=-7) == {b"past": NOW - 8, b"far": FAR - 7, b"never": None}


def test_prefixes_are_renamed_and_conflicts_found(two: Path) -> None:
    data, _ = convert(two, edits=rdbkit.Edits(rename_prefix=((b"b", b"new:b"), (b"", b"all:"))))
    assert {k for _, k, _ in contents(data)} == {b"all:a", b"new:b", b"all:c", b"all:d"}
    report = refused(two, edits=rdbkit.Edits(rename_prefix=((b"b", b"a"),)))
    assert [(loss.db, loss.key) for loss in report.ledger.losses] == [(0, b"b")]


@pytest.mark.parametrize("block_size", [None, 64])
def test_a_script_sees_and_changes_keys(block_size: int | None) -> None:
    def script(r: rdbkit.ScriptRecord) -> rdbkit.ScriptRecord | None:
        if r.type == "stream":
            return None
        if r.key == b"str":
            r.value = r.value.upper()
            r.db = 2
        if r.type == "list":
            r.value.append(b"more")  # in place
        if r.type == "set":
            r.value  # noqa: B018 (to have looked changes nothing)
            r.key = b"set:" + r.key
            r.expire_ms = FAR
        return r

    path = RICH / "redis-7.0.15.rdb"
    before = {(r.db, r.key): r for r in records(path.read_bytes())}
    data, report = convert(path, "redis-7.0", edits=rdbkit.Edits(script=script), block_size=block_size)
    after = {(r.db, r.key): r for r in records(data)}
    assert after.pop((2, b"str")).value == before.pop((0, b"str")).value.upper()
    for (db, name), record in before.items():
        if record.type == "stream":
            continue
        if record.type == "set":
            made = after.pop((db, b"set:" + name))
            assert (made.value, made.expire_ms, made.rdb_type) == (record.value, FAR, record.rdb_type)
            continue
        made = after.pop((db, name))
        assert made.value == ([*record.value, b"more"] if record.type == "list" else record.value)
    assert not after
    assert report.left_out == sum(r.type == "stream" for r in before.values())


def test_a_script_that_changes_nothing_gets_values_larger_than_a_block_as_they_are() -> None:
    """They are looked into first, as others are: of a stream, an older version has to know what stands at its end."""
    path = FIXTURES / "rich" / "valkey-8.0.1.rdb"
    for target in ("redis-6.0", "redis-7.2"):
        plain, _ = convert(path, target, policies=rdbkit.Policies(loss="drop"))
        made, _ = convert(
            path, target, policies=rdbkit.Policies(loss="drop"), edits=rdbkit.Edits(script=lambda r: r), block_size=16
        )
        assert sorted_keys(made) == sorted_keys(plain)


def sorted_keys(data: bytes) -> list[tuple[int, bytes, Any]]:
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        return sorted(((record.db, record.key, record.value) for record in snapshot), key=lambda row: row[:2])


def test_what_a_script_may_not_do_is_an_error() -> None:
    def elsewhere(r: rdbkit.ScriptRecord) -> rdbkit.ScriptRecord:
        r.db = 1
        return r

    with pytest.raises(rdbkit.LossError, match="database 1"):
        convert(TWO, "azure-managed", selection=rdbkit.Selection(dbs=0), edits=rdbkit.Edits(script=elsewhere))
    with pytest.raises(ValueError, match="jobs"):
        convert(TWO, edits=rdbkit.Edits(script=elsewhere), jobs=2)


# -- the encodings


def test_strings_that_are_re_encoded_can_be_compressed() -> None:
    text = b"abcdefgh" * 40
    with_list = RICH / "redis-7.0.15.rdb"
    plain, _ = convert(with_list, policies=rdbkit.Policies(function="drop"))
    small, _ = convert(with_list, policies=rdbkit.Policies(function="drop"), compress=True)
    assert len(small) < len(plain)
    assert values(small) == values(plain)
    out = io.BytesIO()
    with rdbkit.create(out, version=9, compress=True) as writer:
        writer.put(text, {b"f": text, text: b"v"})
        writer.put(b"s", text)
        writer.put(b"z", {text: 1.0})
    assert len(out.getvalue()) < 500
    assert [r.value for r in records(out.getvalue())] == [{b"f": text, text: b"v"}, text, {text: 1.0}]


#: Losses by which a value of a kind may differ, or be gone.
MAY_LOSE = {
    "hash": {"field-expiry"}, "set": {"member-expiry"}, "stream": {"stream", "dedup", "nacked"}, "array": {"array"},
    "module": {"module"}, "gcra": {"gcra"}, "cron": {"cron"}, "json": {"json"},
}  # fmt: skip


@pytest.mark.one_in(4)
@pytest.mark.parametrize("encoder", ENCODERS, ids=repr)
@given(data=st.data())
@settings(max_examples=20)
def test_any_value_is_the_same_in_the_encodings_of_any_target(encoder: Encoder, data: st.DataObject) -> None:
    value = data.draw(encoder.values)
    rng = Random(data.draw(st.integers(0, 1 << 32)))
    target = data.draw(st.sampled_from(sorted(REPRESENTATIVE_TARGETS)))
    crc = None if encoder.magic < b"REDIS0005" else True
    file = rdb(
        encoder.preamble(value, rng), key(b"the key", encoder.type_code, encoder.encode(value, rng)), magic=encoder.magic, crc=crc
    )
    (source,) = records(file)
    options: dict[str, Any] = {"compress": data.draw(st.booleans()), "block_size": data.draw(st.sampled_from([64, 1 << 20]))}
    made, report = convert(file, target, policies=drop(), **options)
    assert set(report.ledger.counts) <= MAY_LOSE.get(source.type, set())
    if not records(made):
        assert report.ledger.counts or report.ledger.notes == {"expired-field": len(source.value)}
        return
    (record,) = records(made)
    assert (record.key, record.type) == (source.key, source.type)
    was, now = source.value, record.value
    if source.type == "stream":
        for one in (was, now):  # what older versions do not support
            one.first_id = one.max_deleted_id = one.entries_added = one.dedup = None
            one.groups = [
                g._replace(entries_read=None, nacked=[], pending=[p for p in g.pending if p.consumer is not None],
                           consumers=[c._replace(active_ms=None) for c in g.consumers])
                for g in one.groups
            ]  # fmt: skip
    elif report.ledger.counts:
        was.field_expire_ms = was.member_expire_ms = {}
    if "expired-field" in report.ledger.notes:
        past = [f for f, ms in records(file)[0].value.field_expire_ms.items() if ms <= NOW]
        for field in past:
            was.pop(field)
            was.field_expire_ms.pop(field, None)
    assert comparable(now) == comparable(was)


# -- the command


def run(*args: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    return command_line.run_text("convert", *args, **more)


def lines(path: Path) -> Iterator[dict[str, Any]]:
    return (json.loads(line) for line in path.read_text().splitlines())


def test_the_command_writes_a_file_and_says_what_it_did(tmp_path: Path) -> None:
    made = tmp_path / "made.rdb"
    result = run(RICH / "redis-7.2.6.rdb", made, "--target", "azure-premium", "--on-function", "drop")
    assert result.returncode == 0, result.stderr  # what is lost is allowed
    assert "REDIS0011 -> REDIS0009 for Azure Cache for Redis Premium" in result.stdout
    assert "27 keys written" in result.stdout
    assert "lost: function" in result.stderr
    assert made.read_bytes()[:9] == b"REDIS0009"
    assert os.listdir(tmp_path) == ["made.rdb"]


def test_what_forbids_it_is_listed_with_what_to_do_and_goes_to_the_ledger(tmp_path: Path) -> None:
    made, ledger = tmp_path / "made.rdb", tmp_path / "ledger.jsonl"
    result = run(RICH / "redis-8.8-dev.rdb", made, "--target", "azure-premium", "--ledger", ledger, "--json")
    assert result.returncode == 1
    assert os.listdir(tmp_path) == ["ledger.jsonl"]
    assert "--on-field-ttl" in result.stderr
    assert "nothing was written" in result.stderr
    report = json.loads(result.stdout)
    assert report["destination"] is None
    entered: dict[str, int] = {}
    for loss in lines(ledger):
        assert set(loss) == {"db", "key", "kind", "what", "count", "note"}
        if not loss["note"]:
            entered[loss["kind"]] = entered.get(loss["kind"], 0) + loss["count"]
    assert entered == report["lost"] == report["forbidden"] != {}


def test_functions_are_extracted(tmp_path: Path) -> None:
    made, code = tmp_path / "made.rdb", tmp_path / "functions.lua"
    result = run(RICH / "redis-7.0.15.rdb", made, "--target", "redis-6.2", "--on-function", f"extract={code}")
    assert result.returncode == 0, result.stderr
    assert code.read_text().startswith("#!lua name=l\n")


def test_a_pipe_takes_and_gives(tmp_path: Path) -> None:
    source = (RICH / "redis-7.0.15.rdb").read_bytes()
    args = [sys.executable, "-m", "rdbkit", "convert", "-", "-", "--target", "redis-6.0", "--on-function", "drop"]
    result = subprocess.run(args, input=source, capture_output=True)
    assert result.returncode == 0, result.stderr
    assert values(result.stdout) == values(convert(source, policies=rdbkit.Policies(function="drop"))[0])
    assert b"27 keys written" in result.stderr


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--target", "redis-6"], "redis-6.0"),
        (["--target", "azure"], "azure-"),
        (["--target", "rdb-99"], "no target"),
        (["--target", "redis-6.0", "--map-db", "3"], "3=0"),
        (["--target", "redis-6.0", "--map-db", "3=0,3=1"], "twice"),
        (["--target", "redis-6.0", "--map-db", "3=0", "--collapse-dbs"], "exclude"),
        (["--target", "redis-6.0", "--on-conflict", "rename"], "rename=..."),
        (["--target", "redis-6.0", "--on-conflict", "rename=x"], "{key}"),
        (["--target", "redis-6.0", "--on-pending-unowned", "assign="], "assign=..."),
        (["--target", "redis-6.0", "--set-ttl", "soon"], "duration"),
        (["--target", "redis-6.0", "--set-ttl", "1h", "--shift-ttl", "1h"], "exclude"),
        (["--target", "redis-6.0", "--rename-prefix", "=x"], "pair of prefixes"),
        (["--target", "redis-6.0", "--on-function", "extract"], "extract=..."),
        ([], "--target"),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_is_right(args: list[str], said: str, tmp_path: Path) -> None:
    result = run(RICH / "redis-6.0.16.rdb", tmp_path / "made.rdb", *args)
    assert result.returncode == 2
    assert said in result.stderr.replace("\n", " ")
    assert not os.listdir(tmp_path)


def test_a_file_is_not_overwritten_nor_written_to_itself(tmp_path: Path) -> None:
    source = tmp_path / "source.rdb"
    source.write_bytes((RICH / "redis-6.0.16.rdb").read_bytes())
    link = tmp_path / "link.rdb"
    link.symlink_to(source)
    for destination in (source, link):
        result = run(source, destination, "--target", "redis-6.0", "--force")
        assert result.returncode == 2
        assert "are the same file" in result.stderr
    with pytest.raises(ValueError, match="the destination is the source"):
        rdbkit.convert(source, link, target="redis-6.0", force=True)
    made = tmp_path / "made.rdb"
    made.write_text("precious")
    assert run(source, made, "--target", "redis-6.0").returncode == 2
    assert made.read_text() == "precious"
    assert run(source, made, "--target", "redis-6.0", "--force").returncode == 0
    assert made.read_bytes() == source.read_bytes()


def test_a_damaged_source_leaves_no_file(tmp_path: Path) -> None:
    whole = (RICH / "redis-7.0.15.rdb").read_bytes()
    source = tmp_path / "source.rdb"
    for data in (b"", b"no rdb at all", whole[:5000], whole[:-9], whole[:200] + b"\xf0\xf0" + whole[202:], whole[:-1] + b"\0"):
        source.write_bytes(data)
        result = run(source, tmp_path / "made.rdb", "--target", "redis-6.0", "--on-function", "drop")
        assert result.returncode == 3
        assert result.stderr.count("\n") == 1
        assert "Traceback" not in result.stderr
        assert os.listdir(tmp_path) == ["source.rdb"]


def test_a_script_file(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("def record(r):\n    r.key = b'x:' + r.key\n    return r if r.type == 'string' else None\n")
    made = tmp_path / "made.rdb"
    result = run(RICH / "redis-6.0.16.rdb", made, "--target", "redis-6.0", "--script", script)
    assert result.returncode == 0, result.stderr
    assert {r.type for r in records(made.read_bytes())} == {"string"}
    assert all(r.key.startswith(b"x:") for r in records(made.read_bytes()))
    for text, said in (
        ("def record(r):\n    return r.nothing\n", "script.py:2: AttributeError"),
        ("def record(r):\n    return 7\n", "returns r or None, not int"),
        ("x = 1\n", "has no function record(r)"),
        ("import\n", "SyntaxError"),
    ):
        script.write_text(text)
        result = run(RICH / "redis-6.0.16.rdb", made, "--target", "redis-6.0", "--script", script, "--force")
        assert result.returncode in (1, 2)
        assert said in result.stderr
        assert "Traceback" not in result.stderr


def test_databases_that_move_make_another_file(two: Path) -> None:
    data, report = convert(two, edits=rdbkit.Edits(map_db={3: 4}))
    assert data != TWO
    assert not report.identical
    empty = rdb(b"\xfe\0\xfb\0\0\xfe\3\xfb\1\0", key(b"k", 0, string(b"v")), crc=False)
    data, report = convert(empty)
    assert len(data) < len(empty)
    assert not report.identical
    assert data[-8:] != bytes(8)


def test_to_keep_modules_does_not_allow_to_lose_them() -> None:
    file = rdb(key(b"m", 7, module_value("MBbloom--", 4, b"\2\5")))
    keep = rdbkit.Policies(module="keep")
    assert refused(file, "redis-3.2", policies=keep).ledger.forbidden == {"module": 1}
    assert [r.raw for r in records(convert(file, "redis-4.0", policies=keep)[0])] == [r.raw for r in records(file)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("r.key = 'text'", "key is bytes"),
        ("r.expire_ms = 'soon'", "expire_ms is Unix milliseconds"),
        ("r.expire_ms = -5", "expire_ms is Unix milliseconds"),
        ("r.expire_ms = 1.5", "expire_ms is Unix milliseconds"),
        ("r.db = -1", "db is the number"),
        ("r.value = 3.5", "value cannot be written"),
        ("r.value = []", "value is empty"),
        ("r.value = {b'a': None}", "value cannot be written"),
    ],
)
def test_what_a_script_gets_wrong_is_one_line(tmp_path: Path, change: str, said: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(f"def record(r):\n    {change}\n    return r\n")
    result = run(RICH / "redis-6.0.16.rdb", tmp_path / "made.rdb", "--target", "redis-6.0", "--script", script)
    assert result.returncode == 1
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert os.listdir(tmp_path) == ["script.py"]


def test_a_script_that_gives_two_keys_one_name_writes_nothing() -> None:
    def same(r: rdbkit.ScriptRecord) -> rdbkit.ScriptRecord:
        r.key = b"same"
        return r

    report = refused(TWO, edits=rdbkit.Edits(script=same))
    assert report.ledger.forbidden == {"conflict": 3}


def test_a_script_is_bound_by_the_policies() -> None:
    def touch(r: rdbkit.ScriptRecord) -> rdbkit.ScriptRecord:
        if r.type == "hash":
            r.value[b"new"] = b"1"
        return r

    file = rdb(EXPIRING, magic=REDIS12)
    edits = rdbkit.Edits(script=touch)
    assert refused(file, edits=edits).ledger.forbidden == {"field-expiry": 2}
    data, report = convert(file, edits=edits, policies=rdbkit.Policies(field_ttl="key-min"))
    (record,) = records(data)
    assert record.expire_ms == FAR
    assert record.value == {b"soon": b"1", b"never": b"2", b"later": b"3", b"new": b"1"}
    assert report.ledger.counts == {"field-expiry": 2}
    data, _ = convert(file, "redis-7.4", edits=edits)
    assert records(data)[0].value.field_expire_ms == {b"soon": FAR, b"later": FAR + 1000}


# -- what a hostile second look found


def test_files_that_are_written_are_all_different(tmp_path: Path) -> None:
    source, made, other = tmp_path / "s.rdb", tmp_path / "m.rdb", tmp_path / "o"
    whole = (RICH / "redis-7.0.15.rdb").read_bytes()
    source.write_bytes(whole)
    for args in (
        ["--ledger", source], ["--ledger", made], ["--on-function", f"extract={source}"], ["--on-function", f"extract={made}"],
        ["--ledger", other, "--on-function", f"extract={other}"], ["--ledger", "-"],
    ):  # fmt: skip
        result = run(source, made, "--target", "redis-6.0", "--force", *args)
        assert result.returncode == 2, args
        assert source.read_bytes() == whole
        assert os.listdir(tmp_path) == ["s.rdb"]


def test_no_file_of_libraries_is_left_where_nothing_is_written(tmp_path: Path) -> None:
    source, code = tmp_path / "s.rdb", tmp_path / "code.lua"
    source.write_bytes(rdb(EXPIRING, magic=REDIS12))
    args = ["--target", "redis-6.0", "--on-function", f"extract={code}"]
    assert run(source, tmp_path / "m.rdb", *args).returncode == 1
    assert os.listdir(tmp_path) == ["s.rdb"]
    assert run(source, tmp_path / "m.rdb", *args, "--on-loss", "drop").returncode == 0
    assert sorted(os.listdir(tmp_path)) == ["code.lua", "m.rdb", "s.rdb"]


@pytest.mark.parametrize("block_size", [None, 16])
def test_field_expiries_that_redis_cannot_hold_are_losses(block_size: int | None) -> None:
    fields = string(b"a") + string(b"1") + (1 << 48).to_bytes(8, "little") + string(b"b") + string(b"2") + FAR.to_bytes(8, "little")
    file = rdb(b"\xfe\0", key(b"h", 22, b"\2" + fields), magic=b"VALKEY080")
    assert refused(file, "redis-8.0", block_size=block_size).ledger.forbidden == {"field-expiry": 1}
    data, report = convert(file, "redis-8.0", policies=drop(), block_size=block_size)
    (record,) = records(data)
    assert (record.value, record.value.field_expire_ms) == ({b"a": b"1", b"b": b"2"}, {b"b": FAR})
    assert report.ledger.counts == {"field-expiry": 1}


def test_expiries_that_rdb_2_cannot_hold() -> None:
    policies = rdbkit.Policies(loss="drop", field_ttl="key-min")
    data, report = convert(rdb(EXPIRING, magic=REDIS12), "redis-2.4", policies=policies)
    assert records(data)[0].expire_ms is None
    assert report.ledger.counts == {"field-expiry": 2, "expiry": 1}
    data, _ = convert(rdb(key(b"k", 0, string(b"v"), -(1 << 50))), "rdb-2")
    assert records(data)[0].expire_ms == -(1 << 31) * 1000


def test_databases_swap_where_the_first_is_not_named(tmp_path: Path) -> None:
    path = tmp_path / "x.rdb"
    path.write_bytes(rdb(key(b"a", 0, string(b"0")), b"\xfe\1", key(b"a", 0, string(b"1"))))
    for block_size in (None, 16):
        data, _ = convert(path, edits=rdbkit.Edits(map_db={0: 1, 1: 0}), block_size=block_size)
        assert contents(data) == [(1, b"a", b"0"), (0, b"a", b"1")]


@pytest.mark.parametrize("block_size", [None, 8])
def test_collections_without_elements_do_not_reach_servers_that_trip_over_them(block_size: int | None) -> None:
    empty = b"\x07\0\0\0\0\0\xff"
    file = rdb(
        key(b"l", 18, b"\1\2" + string(empty)), key(b"h", 16, string(empty)), key(b"z", 17, string(empty)),
        key(b"s", 20, string(empty)), key(b"k", 0, string(b"v")), magic=b"REDIS0011",
    )  # fmt: skip
    data, report = convert(file, block_size=block_size)
    assert contents(data) == [(0, b"k", b"v")]
    assert report.ledger.notes == {"empty": 4}
    assert (report.written, report.left_out) == (1, 4)


def test_a_wrong_checksum_is_passed_over_where_names_are_compared(two: Path) -> None:
    two.write_bytes(TWO[:-1] + bytes([TWO[-1] ^ 1]))
    edits = rdbkit.Edits(collapse_dbs=True, on_conflict="first")
    with pytest.raises(rdbkit.ChecksumError):
        convert(two, edits=edits)
    data, report = convert(two, edits=edits, on_error="skip")
    assert report.checksum is not None
    assert len(records(data)) == 4


def test_module_data_does_not_go_into_versions_without_it() -> None:
    path = RICH / "redis-6.0.20-mod.rdb"
    keep = rdbkit.Policies(module="keep")
    assert "module-aux" in refused(path, "redis-4.0", policies=keep).ledger.forbidden


def test_module_data_larger_than_a_block_is_dropped_whole() -> None:
    """And nothing else with it: what the block has that came before is of other records."""
    data = b"\xf7" + module_id("ReJSON-RL", 3) + b"\2\2" + b"\5" + string(b"x" * (3 << 20)) + b"\0"
    keys = [key(b"k%d" % i, 0, string(b"v")) for i in range(8)]
    for tail in (b"", key(b"after", 0, string(b"v"))):
        file = rdb(b"\xfe\x00", b"\xfb\x08\x00", *keys, data, tail)
        written, report = convert(file, policies=drop())
        assert report.ledger.counts == {"module-aux": 1}
        assert [r.key for r in records(written)] == [b"k%d" % i for i in range(8)] + [b"after"] * bool(tail)
        assert len(written) < 200
        out = io.BytesIO()
        assert rdbkit.redact(io.BytesIO(file), out, secret=b"s").dropped == {"module-aux": 1}
        assert len(records(out.getvalue())) == 8 + bool(tail)


def test_functions_among_the_attributes_of_a_key_are_not_overlooked() -> None:
    library = b"\xf5" + string(b"#!lua name=l\nx")
    file = rdb(b"\xfc" + FAR.to_bytes(8, "little") + library + b"\0" + string(b"k") + string(b"v"), magic=b"REDIS0010")
    assert refused(file).ledger.forbidden == {"function": 1}
    data, report = convert(file, policies=rdbkit.Policies(function="extract"))
    assert report.functions == [b"#!lua name=l\nx"]
    assert b"\xf5" not in data[:30]
    assert [(r.key, r.expire_ms) for r in records(data)] == [(b"k", FAR)]


def test_a_damaged_value_that_a_script_moved_takes_no_other_key_along() -> None:
    def script(r: rdbkit.ScriptRecord) -> rdbkit.ScriptRecord:
        if r.key == b"big":
            r.db = 5
        if r.key == b"z":
            r.expire_ms = FAR
        return r

    big = key(b"big", 16, string(b"\x60\0\0\0\x01\0" + b"\x81x\xff" * 30))
    file = rdb(key(b"a", 0, string(b"1")), big, key(b"z", 0, string(b"2")), magic=b"REDIS0010")
    for block_size in (None, 32):
        data, report = convert(file, edits=rdbkit.Edits(script=script), on_error="skip", block_size=block_size)
        assert [(r.db, r.key) for r in records(data)] == [(0, b"a"), (0, b"z")]
        assert [e.key for e in report.skipped] == [b"big"]


@pytest.mark.parametrize("jobs", [1, 2])
def test_what_stands_between_a_database_and_its_first_key_stays_there(jobs: int) -> None:
    slots = b"\xfa" + string(b"slot-info") + string(b"1,2,0")
    for first in (key(b"big", 0, string(b"x" * 50) * 1), key(b"k", 0, string(b"v"))):
        file = rdb(b"\xfa" + string(b"redis-ver") + string(b"7.2"), b"\xfe\0\xfb\2\0", slots, first, key(b"o", 0, string(b"v")))
        data, report = convert(file, block_size=24, jobs=jobs)
        assert data == file
        assert report.identical


def test_a_packed_or_framed_source_is_not_the_same_file() -> None:
    import gzip

    plain = rdb(key(b"k", 0, string(b"v")))
    for source in (gzip.compress(plain), b"$EOF:" + b"m" * 40 + b"\r\n" + plain + b"m" * 40, plain + b"\0" * 9):
        data, report = convert(source)
        assert data == plain
        assert not report.identical


def test_times_and_numbers_out_of_range_are_refused() -> None:
    for edits in ({"map_db": {0: 1 << 31}}, {"map_db": {0: -1}}, {"shift_ttl_ms": 1 << 62}, {"set_ttl_ms": 1 << 62}):
        with pytest.raises(ValueError, match=r"databases are numbered|ten thousand years"):
            rdbkit.Edits(**edits)
    late = rdb(key(b"k", 0, string(b"v"), (1 << 63) - 10))
    (record,) = records(convert(late, edits=rdbkit.Edits(shift_ttl_ms=1000))[0])
    assert record.expire_ms == (1 << 63) - 1
    with pytest.raises(ValueError, match="on_error"):
        convert(late, on_error="jump")


@pytest.fixture
def long_conversion(tmp_path: Path) -> list[str]:
    """A command that takes a while in two processes."""
    source = tmp_path / "source.rdb"
    with rdbkit.create(source, version=11) as writer:
        for i in range(60_000):
            writer.put(b"key:%d" % i, [b"element %d" % j for j in range(20)])
    # --force: where the machine was faster than the first signal, the file is there
    more = ["--target", "rdb-7", "--compress", "--jobs", "2", "--force"]
    return [sys.executable, "-m", "rdbkit", "convert", str(source), str(tmp_path / "made.rdb"), *more]


@pytest.mark.one_in(3)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_all_processes(long_conversion: list[str], tmp_path: Path, number: signal.Signals) -> None:
    made = tmp_path / "made.rdb"
    for wait in (0.0, 0.2):
        made.unlink(missing_ok=True)
        process = subprocess.Popen(heeding_signals(long_conversion), start_new_session=True, stderr=subprocess.PIPE)
        while process.poll() is None and set(os.listdir(tmp_path)) <= {"source.rdb", "made.rdb"}:
            time.sleep(0.01)  # until it writes; while Python itself starts, a signal ends it with Python's own words
        time.sleep(wait)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        _, said = process.communicate(timeout=GUARD)
        # or its work was done, and Python itself was ending, which gives signals back before it is gone
        # or it came while Python raised it again for itself: a shell shows 128 + number for both
        assert process.returncode in (128 + number, -number) or (process.returncode == 0 and made.exists())
        assert b"Traceback" not in said
        wait_for_the_end_of_all(process.pid)
    assert set(os.listdir(tmp_path)) <= {"source.rdb", "made.rdb"}


def test_processes_end_with_the_one_that_has_started_them(long_conversion: list[str], tmp_path: Path) -> None:
    process = subprocess.Popen(long_conversion, start_new_session=True, stderr=subprocess.DEVNULL)
    until(lambda: len(os.listdir(tmp_path)) > 1, process)
    process.kill()
    process.wait()
    wait_for_the_end_of_all(process.pid)


POOL = """
import io, multiprocessing, os, signal, sys, time
import rdbkit
from rdbkit.parallel.pool import in_order

def sleep():
    time.sleep(600)

def measure():
    return lambda block: (len(block.data), [])

if __name__ == "__main__":
    with open(sys.argv[1], "rb") as file:
        snapshot = rdbkit.open(io.BytesIO(file.read()), block_size=1 << 12)
    own = multiprocessing.get_context("spawn").Process(target=sleep)
    own.start()
    found = in_order(snapshot, 2, measure, ())
    next(found)
    for worker in multiprocessing.active_children():
        if worker is not own:
            os.kill(worker.pid, signal.SIGKILL)
            worker.join()
            break
    try:
        if sys.argv[2] == "close":
            time.sleep(1)  # until the pool has seen it
            found.close()
        else:
            list(found)
    except rdbkit.RdbError as e:
        print(type(e).__name__, e.message[:26])
    print("own process lives:", own.is_alive())
    own.kill()
"""


@pytest.mark.parametrize("how", ["close", "read"])
def test_a_process_that_was_killed_ends_the_work(tmp_path: Path, how: str) -> None:
    source = tmp_path / "source.rdb"
    source.write_bytes(rdb(*(key(b"k%d" % i, 0, string(b"v" * 100)) for i in range(20_000))))
    program = tmp_path / "program.py"
    program.write_text(POOL)
    done = subprocess.run([sys.executable, program, source, how], capture_output=True, text=True, timeout=600)
    told = "RdbError one of the processes ended\n" if how == "read" else ""
    assert (done.stdout, done.returncode) == (f"{told}own process lives: True\n", 0), done.stderr


def wait_for_the_end_of_all(group: int) -> None:
    deadline = time.monotonic() + GUARD
    while any_lives(group):
        if time.monotonic() > deadline:
            os.killpg(group, signal.SIGKILL)
            raise AssertionError("processes are left")
        time.sleep(0.05)


def any_lives(group: int) -> bool:
    """Whether a process of this group has not ended, where the system tells it."""
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, number = stat.read_text().rpartition(")")[2].split()[:3]
            if int(number) == group and state != "Z":
                return True
    return False

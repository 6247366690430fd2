"""What is approved, and what is written, loads: small files of each kind of fault, and what check, convert and readers say.

The files are in fixtures/faults, whose README says what real servers answered; `tests/servers/test_approved.py` asks them again.
"""

from __future__ import annotations

import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import rdbkit
from rdbkit.cli import cli
from rdbkit.operations.check import check
from rdbkit.operations.export import export_jsonl
from rdbkit.operations.verify import verify
from rdbkit.targets.target import find_target, tolerated

from ..encoders import listpack_of
from ..format.test_decode import F64, GOOD_NODE, ID, counted, entry, lp, stream_node, zl
from ..rdb import FIXTURES, key, length, rdb, string

FAULTS = FIXTURES / "faults"
NEWER = ("redis-7.0", "azure-managed", "redis-8.0", "valkey-9.1")
ALL = ("azure-premium", *NEWER)
Source = bytes | Path
Content = dict[tuple[int, bytes], Any]


def opened(data: Source) -> Any:
    return io.BytesIO(data) if isinstance(data, bytes) else data


def verdict(data: Source, target: str, **options: Any) -> tuple[str, dict[str, tuple[str, list[bytes]]]]:
    """The verdict, and by code of each finding its severity and sample keys."""
    with rdbkit.open(opened(data)) as snapshot:
        report = check(snapshot, find_target(target), **options)
    return report.verdict, {f.code: (f.severity, [s.key for s in f.samples]) for f in report.findings}


def converted(data: Source, target: str, sound: bool = True, **options: Any) -> tuple[rdbkit.Conversion, Content]:
    out = io.BytesIO()
    report = rdbkit.convert(opened(data), out, target=target, **options)
    with rdbkit.open(io.BytesIO(out.getvalue())) as snapshot:
        content = {(r.db, r.key): r.value for r in snapshot}
    assert verify(io.BytesIO(out.getvalue()), deep=True).sound is sound
    return report, content


# A key twice


@pytest.mark.parametrize("target", ALL)
def test_a_key_that_comes_twice_is_a_blocker(target: str) -> None:
    source = FAULTS / "key-twice.rdb"
    found, findings = verdict(source, target)
    assert found == "lossy"
    assert findings["RDB408"] == ("blocker", [b"comment-0-1"])
    with pytest.raises(rdbkit.LossError) as caught:
        converted(source, target)
    assert caught.value.report.ledger.forbidden == {"duplicate": 1}
    # of a pipe, which cannot be read again, the places are told
    found, findings = verdict(source.read_bytes(), target)
    assert found == "lossy"
    assert findings["RDB408"][0] == "blocker"
    with pytest.raises(rdbkit.LossError) as caught:
        converted(source.read_bytes(), target)
    assert "at byte 32 and at byte 52" in caught.value.report.ledger.losses[0].what


@pytest.mark.parametrize(("which", "kept"), [("first", 0), ("last", 1)])
@pytest.mark.parametrize("block_size", [16, 1 << 20])
def test_one_of_two_keys_is_kept_where_that_is_asked_for(tmp_path: Path, which: str, kept: int, block_size: int) -> None:
    values = [b"first", b"last, and longer than a small block is"]
    source = tmp_path / "a.rdb"
    keys = [key(b"k", 0, string(values[0])), key(b"other", 0, string(b"x")), key(b"k", 0, string(values[1]))]
    source.write_bytes(rdb(b"\xfe\0", *keys))
    report, content = converted(source, "redis-7.2", edits=rdbkit.Edits(on_duplicate=which), block_size=block_size)
    assert content == {(0, b"k"): values[kept], (0, b"other"): b"x"}
    assert report.ledger.counts == {"duplicate": 1}
    assert report.left_out == 1


@pytest.mark.parametrize(("which", "kept"), [("first", b"v"), ("last", b"w")])
def test_one_of_two_fields_is_kept_of_a_key_that_is_edited_besides(tmp_path: Path, which: str, kept: bytes) -> None:
    pack = b"\x13\0\0\0\4\0" + b"\x81f\2\x81v\2" + b"\x81f\2\x81w\2" + b"\xff"
    source = tmp_path / "a.rdb"
    source.write_bytes(rdb(b"\xfe\0", key(b"k", 16, string(pack)), magic=b"REDIS0010"))
    for edits in ({}, {"rename_prefix": ((b"k", b"n"),)}, {"set_ttl_ms": 1000}):
        report, content = converted(source, "redis-6.2", edits=rdbkit.Edits(on_duplicate=which, **edits))
        assert list(content.values()) == [{b"f": kept}]
        assert report.ledger.counts == {"duplicate": 1}


def test_keys_that_a_selection_or_an_edit_leaves_out_do_not_come_twice(tmp_path: Path) -> None:
    source = tmp_path / "a.rdb"
    keys = [key(b"k", 0, string(b"1"), expire_ms=1000), key(b"k", 0, string(b"2")), key(b"j", 0, string(b"3"))]
    source.write_bytes(rdb(b"\xfe\0", *keys))
    assert converted(source, "redis-7.2", edits=rdbkit.Edits(drop_expired=True))[1] == {(0, b"k"): b"2", (0, b"j"): b"3"}
    assert converted(source, "redis-7.2", selection=rdbkit.Selection(keys=[b"j"]))[1] == {(0, b"j"): b"3"}
    with pytest.raises(rdbkit.LossError):
        converted(source, "redis-7.2")


@pytest.mark.parametrize("target", ["redis-7.2", "redis-5.0"])
def test_one_name_in_two_databases_is_no_duplicate(target: str) -> None:
    data = rdb(b"\xfe\0", key(b"k", 0, string(b"1")), b"\xfe\1", key(b"k", 0, string(b"2")))
    assert verdict(data, target)[0] == "as-it-is"
    assert converted(data, target)[1] == {(0, b"k"): b"1", (1, b"k"): b"2"}


def test_every_kind_of_record_counts(tmp_path: Path) -> None:
    """Copied, re-encoded, compressed, longer than a block, behind an expiry: each way through a conversion meets names."""
    listpack = string(lp(b"f", b"v"))
    forms = [(0, string(b"x")), (16, listpack), (4, counted(string(b"f") + string(b"v"))), (0, string(b"y" * 5000))]
    for type_code, value in forms:
        for other, more in forms:
            source = tmp_path / "a.rdb"
            source.write_bytes(
                rdb(b"\xfe\0", key(b"k", type_code, value), key(b"k", other, more, expire_ms=1 << 42), magic=b"REDIS0010")
            )
            for target in ("redis-7.0", "redis-5.0"):
                with pytest.raises(rdbkit.LossError):
                    converted(source, target, block_size=1000)


def test_several_processes_find_keys_that_come_twice(tmp_path: Path) -> None:
    source = tmp_path / "a.rdb"
    many = [key(b"%d" % n, 0, string(b"v" * 50)) for n in range(200)]
    source.write_bytes(rdb(b"\xfe\0", *many, key(b"large", 0, string(b"v" * 5000)), magic=b"REDIS0011"))
    assert len(converted(source, "redis-7.2", jobs=2, block_size=1000)[1]) == 201
    source.write_bytes(rdb(b"\xfe\0", *many, key(b"7", 0, string(b"again")), magic=b"REDIS0011"))
    with pytest.raises(rdbkit.LossError) as caught:
        converted(source, "redis-7.2", jobs=2, block_size=1000)
    assert caught.value.report.ledger.losses[0].key == b"7"


def test_moves_and_keys_that_come_twice_are_told_apart(tmp_path: Path) -> None:
    source = tmp_path / "a.rdb"
    one, two, three = (key(b"k", 0, string(b"%d" % n)) for n in (1, 2, 3))
    source.write_bytes(rdb(b"\xfe\0", one, two, b"\xfe\1", three))
    edits = rdbkit.Edits(collapse_dbs=True, on_conflict="rename", on_duplicate="last")
    assert converted(source, "redis-7.2", edits=edits)[1] == {(0, b"k"): b"2", (0, b"k:db1"): b"3"}


def test_the_command_says_what_helps(tmp_path: Path) -> None:
    out = tmp_path / "o.rdb"
    arguments = ["convert", str(FAULTS / "key-twice.rdb"), str(out), "--target", "azure-premium"]
    result = CliRunner().invoke(cli, arguments)
    assert "--on-duplicate first or last" in result.stderr
    assert not out.exists()
    CliRunner().invoke(cli, [*arguments, "--on-duplicate", "last"])
    assert verify(out, deep=True).sound


# Elements twice


SCORED = [string(b"m") + F64(1), string(b"n") + F64(2), string(b"m") + F64(3)]
TWICE = [
    pytest.param(4, length(3) + b"".join(map(string, (b"f", b"1", b"g", b"2", b"f", b"3"))), "hash", id="hash"),
    pytest.param(16, string(lp(b"f", b"1", b"g", b"2", b"f", b"3")), "hash", id="hash listpack"),
    pytest.param(13, string(zl(b"f", b"1", b"g", b"2", b"f", b"3")), "hash", id="hash ziplist"),
    pytest.param(9, string(b"\x03\x01f\x01\x001\x01g\x01\x002\x01f\x01\x003\xff"), "hash", id="hash zipmap"),
    pytest.param(2, counted(string(b"m"), string(b"n"), string(b"m")), "set", id="set"),
    pytest.param(2, counted(string(b"12"), string(b"n"), b"\xc0\x0c"), "numbers", id="set of number and text"),
    pytest.param(20, string(lp(b"m", b"n", b"m")), "set", id="set listpack"),
    pytest.param(5, counted(*SCORED), "zset", id="zset"),
    pytest.param(17, string(lp(b"m", 1, b"n", 2, b"m", 3)), "zset", id="zset listpack"),
    pytest.param(12, string(zl(b"m", b"1", b"n", b"2", b"m", b"3")), "zset", id="zset ziplist"),
]
KEPT: dict[tuple[str, str], Any] = {
    ("hash", "first"): {b"f": b"1", b"g": b"2"},
    ("hash", "last"): {b"f": b"3", b"g": b"2"},
    ("zset", "first"): {b"m": 1.0, b"n": 2.0},
    ("zset", "last"): {b"m": 3.0, b"n": 2.0},
    ("set", "first"): {b"m", b"n"},
    ("set", "last"): {b"m", b"n"},
    ("numbers", "first"): {b"12", b"n"},
    ("numbers", "last"): {b"12", b"n"},
}


@pytest.mark.parametrize("target", ["redis-4.0", "redis-7.2", "azure-managed", "valkey-9.1"])
@pytest.mark.parametrize(("type_code", "value", "shape"), TWICE)
def test_an_element_that_comes_twice(tmp_path: Path, type_code: int, value: bytes, shape: str, target: str) -> None:
    source = tmp_path / "a.rdb"
    source.write_bytes(rdb(b"\xfe\0", key(b"k", type_code, value), key(b"j", 0, string(b"x")), magic=b"REDIS0011"))
    found, findings = verdict(source, target, deep=True)
    assert found == "lossy"
    assert findings["RDB407"] == ("blocker", [b"k"])
    with pytest.raises(rdbkit.CorruptError, match="twice") as caught:
        converted(source, target, deep=True)
    assert (caught.value.key, caught.value.rule) == (b"k", "element-twice")
    report, content = converted(source, target, deep=True, on_error="skip")
    assert content == {(0, b"j"): b"x"}
    assert [e.key for e in report.skipped] == [b"k"]
    for which in ("first", "last"):
        report, content = converted(source, target, deep=True, edits=rdbkit.Edits(on_duplicate=which))
        assert content[0, b"k"] == KEPT[shape, which]
        assert report.ledger.counts == {"duplicate": 1}


@pytest.mark.parametrize(("type_code", "value", "shape"), TWICE)
def test_what_is_re_encoded_is_looked_at_without_being_asked(type_code: int, value: bytes, shape: str) -> None:
    """Types that RDB 2 does not have are re-encoded."""
    if type_code in (2, 4, 9, 12):  # which it has
        return
    data = rdb(key(b"k", type_code, value), magic=b"REDIS0011")
    assert verdict(data, "redis-2.4")[1]["RDB407"] == ("blocker", [b"k"])
    with pytest.raises(rdbkit.CorruptError, match="twice"):
        converted(data, "redis-2.4")


def test_a_hash_that_redis_6_would_load_is_no_exception() -> None:
    """It loads a small ziplist with a field twice, and ends when the hash grows out of it."""
    source = FAULTS / "hash-ziplist-field-twice.rdb"
    for target in ALL:
        found, findings = verdict(source, target, deep=True)
        assert (found, findings["RDB407"]) == ("lossy", ("blocker", [b"m:17"]))


def test_the_hash_of_many_fields() -> None:
    source = FAULTS / "hash-field-twice.rdb"
    for target in ALL:
        found, findings = verdict(source, target, deep=True)
        assert (found, findings["RDB407"]) == ("lossy", ("blocker", [b"h"]))
        _, content = converted(source, target, deep=True, edits=rdbkit.Edits(on_duplicate="last"))
        assert len(content[0, b"h"]) == 600


# Other damage inside of values


@pytest.mark.parametrize(
    ("name", "targets", "key_name", "rule"),
    [
        ("zset-nan-listpack", ALL, b"badz", "score"),
        ("stream-pending-not-in-group", ALL, b"s", "pending-unknown"),
        ("stream-pending-no-owner", ALL, b"s", "pending-unowned"),
    ],
)
def test_a_damaged_value_is_a_blocker(name: str, targets: tuple[str, ...], key_name: bytes, rule: str) -> None:
    source = FAULTS / f"{name}.rdb"
    for target in targets:
        found, findings = verdict(source, target, deep=True)
        assert (found, findings["RDB407"]) == ("lossy", ("blocker", [key_name]))
        with pytest.raises(rdbkit.CorruptError) as caught:
            converted(source, target, deep=True)
        assert (caught.value.key, caught.value.rule) == (key_name, rule)
        report, content = converted(source, target, deep=True, on_error="skip")
        assert key_name not in {name for _, name in content}
        assert [e.key for e in report.skipped] == [key_name]


def test_values_are_opened_where_the_checksum_is_off() -> None:
    source = FAULTS / "hash-ziplist-size-nocrc.rdb"
    for target in ALL:
        found, findings = verdict(source, target)
        assert found == "lossy"
        assert "RDB407" in findings
        with pytest.raises(rdbkit.CorruptError):
            converted(source, target)


def test_values_are_opened_where_the_checksum_is_wrong(tmp_path: Path) -> None:
    data = bytearray(rdb(key(b"k", 16, string(lp(b"f", b"v", b"f", b"w"))), magic=b"REDIS0010"))
    source = tmp_path / "a.rdb"
    source.write_bytes(data)
    with rdbkit.open(source) as snapshot:
        report = check(snapshot, find_target("redis-7.2"))
        assert (report.verdict, report.deep) == ("as-it-is", False)
    data[-1] ^= 1
    source.write_bytes(data)
    with rdbkit.open(source) as snapshot:
        report = check(snapshot, find_target("redis-7.2"))
    assert (report.verdict, report.deep) == ("cannot", True)
    assert {"RDB402", "RDB407"} <= {f.code for f in report.findings}


def test_a_type_that_the_version_cannot_have() -> None:
    source = FAULTS / "type-newer-than-version.rdb"
    for target in ALL:
        found, findings = verdict(source, target)
        assert (found, findings["RDB407"]) == ("lossy", ("blocker", [b"k"]))
        with pytest.raises(rdbkit.CorruptError, match="type 22"):
            converted(source, target)


def test_dragonfly_writes_listpacks_under_version_9() -> None:
    data = rdb(key(b"k", 16, string(lp(b"f", b"v"))), magic=b"REDIS0009")
    assert verdict(data, "azure-premium")[0] == "lossless"
    assert converted(data, "azure-premium")[1] == {(0, b"k"): {b"f": b"v"}}


def test_a_sorted_set_in_the_wrong_order_is_put_in_order() -> None:
    data = rdb(key(b"k", 17, string(lp(b"b", 2, b"a", 1))), magic=b"REDIS0010")
    found, findings = verdict(data, "redis-7.2", deep=True)
    assert (found, findings["RDB909"]) == ("lossless", ("note", [b"k"]))
    report, content = converted(data, "redis-7.2", deep=True)
    assert content == {(0, b"k"): {b"a": 1.0, b"b": 2.0}}
    assert report.ledger.counts == {}


@pytest.mark.parametrize("block_size", [16, 200, 1 << 20])
def test_damage_in_a_value_larger_than_a_block(tmp_path: Path, block_size: int) -> None:
    fields = [string(b"field:%d" % n) + string(b"v") for n in range(50)]
    source = tmp_path / "a.rdb"
    twice = key(b"k", 4, counted(*fields, fields[7]))
    source.write_bytes(rdb(key(b"a", 0, string(b"1")), twice, key(b"z", 0, string(b"2"))))
    with pytest.raises(rdbkit.CorruptError):
        converted(source, "redis-7.2", deep=True, block_size=block_size)
    report, content = converted(source, "redis-7.2", deep=True, on_error="skip", block_size=block_size)
    assert content == {(0, b"a"): b"1", (0, b"z"): b"2"}
    assert report.left_out == 1


# Streams


def stream(length_: int = 1, added: int = 1, groups: bytes = b"\0", nodes: tuple[bytes, ...] = (GOOD_NODE,)) -> bytes:
    return counted(*nodes) + b"".join(map(length, (length_, 5, 1, 5, 1, 0, 0, added))) + groups


READER = counted(string(b"g") + length(5) + length(1) + length(9) + b"\0\0")
DEAD = stream_node(0, 1, 1, b"f", 0, 3, 0, 0, b"v", 4, at=(1, 1))
CORRECTED = [
    pytest.param(stream(5), id="length"),
    pytest.param(stream(1, 0), id="fewer added than there are"),
    pytest.param(stream(1, 1 << 63), id="more added than can be"),
    pytest.param(stream(1, 3, READER), id="a group has read more than were added"),
    pytest.param(stream(nodes=(DEAD, GOOD_NODE)), id="a node without live entries"),
]


@pytest.mark.parametrize("block_size", [16, 1 << 20])
@pytest.mark.parametrize("target", ["redis-5.0", "redis-7.0", "redis-7.2", "redis-8.8", "valkey-9.1"])
@pytest.mark.parametrize("value", CORRECTED)
def test_what_a_stream_says_of_itself_is_corrected(tmp_path: Path, value: bytes, target: str, block_size: int) -> None:
    source = tmp_path / "a.rdb"
    source.write_bytes(rdb(b"\xfe\0", key(b"s", 21, value), key(b"after", 0, string(b"1")), magic=b"REDIS0011"))
    keeps_node = "stream-node-live" in tolerated(find_target(target)) and value == CORRECTED[-1].values[0]
    report, content = converted(source, target, not keeps_node, deep=True, block_size=block_size)
    assert [e.fields for e in content[0, b"s"].entries] == [[(b"f", b"v")]]
    assert content[0, b"s"].length == 1
    assert content[0, b"after"] == b"1"
    assert report.ledger.counts == {}
    assert report.ledger.notes["corrected"] == 1
    found, findings = verdict(source, target, deep=True)
    assert found == "lossless"
    assert findings["RDB909"] == ("note", [b"s"])


def test_a_length_that_is_wrong_is_read_with_a_warning() -> None:
    source = FAULTS / "stream-length.rdb"
    with rdbkit.open(source) as snapshot:
        content = {r.key: r.value for r in snapshot}
        assert [e.message for e in snapshot.warnings] == ["the stream says that it has 5 entries, but it has 3"]
        assert snapshot.warnings[0].key == b"trim"
    assert [str(e.id) for e in content[b"trim"].entries] == ["1-0", "2-0", "3-0"]
    assert content[b"after"] == b"1"
    out = io.BytesIO()
    with rdbkit.open(source) as snapshot:
        assert export_jsonl(snapshot, out).written == 2
        assert len(snapshot.warnings) == 1
    lines = {line["key"]: line["value"] for line in map(json.loads, out.getvalue().splitlines())}
    assert len(lines["trim"]["entries"]) == 3
    assert lines["after"] == "1"
    # Redis 5.0 to 8.0 load it; Valkey 9.1 does not, and gets the right length
    assert verdict(source, "redis-8.0")[0] == "as-it-is"
    for target in ("valkey-9.1", "redis-8.8"):
        assert verdict(source, target)[0] == "lossless"
        assert converted(source, target)[1][0, b"trim"].length == 3


def test_warnings_are_lines_on_standard_error() -> None:
    for arguments in (["export"], ["get"]):
        name = str(FAULTS / "stream-length.rdb")
        result = CliRunner().invoke(cli, [*arguments, name, *(["trim"] if arguments == ["get"] else [])])
        assert "rdbkit: warning: " in result.stderr
        assert "says that it has 5 entries, but it has 3" in result.stderr
        assert '"1-0"' in result.stdout


def test_a_pending_entry_without_a_consumer_is_read() -> None:
    with rdbkit.open(FAULTS / "stream-pending-no-owner.rdb") as snapshot:
        value = next(r.value for r in snapshot if r.key == b"s")
        assert [e.rule for e in snapshot.warnings] == ["pending-unowned"]
    assert value.entries
    assert [(str(p.id), p.consumer) for p in value.groups[0].pending if p.consumer is None] == [("2-0", None)]


def test_a_node_whose_entries_are_all_deleted() -> None:
    source = FAULTS / "stream-zerolive-redis-8.0.rdb"
    assert [v.rule.name for v in verify(source, deep=True).violations] == ["stream-node-live"]
    assert verdict(source, "redis-8.0")[0] == "as-it-is"
    assert verdict(source, "redis-8.8")[0] == "lossless"
    with rdbkit.open(source) as snapshot:
        before = {(r.db, r.key): getattr(r.value, "entries", r.value) for r in snapshot}
    _, content = converted(source, "redis-8.8")
    assert {name: getattr(value, "entries", value) for name, value in content.items()} == before


@pytest.mark.parametrize("block_size", [16, 1 << 20])
def test_a_stream_that_was_corrected_keeps_what_its_level_has(block_size: int) -> None:
    """Of the newest form, too, whose pending entries are held where it becomes an older one."""
    nacked = counted(string(b"g") + length(5) + length(1) + length(1) + counted(ID + bytes(8) + b"\1") + b"\0" + counted(ID))
    value = stream(7, 9, nacked) + b"".join(map(length, (100, 100, 0, 0, 0)))
    data = rdb(key(b"s", 27, value), magic=b"REDIS0014")
    report, content = converted(data, "redis-8.8", block_size=block_size)
    assert content[0, b"s"].groups[0].nacked == [content[0, b"s"].groups[0].pending[0].id]
    assert (content[0, b"s"].length, content[0, b"s"].entries_added) == (1, 9)
    assert report.ledger.counts == {}


# Collections without elements


EMPTY = [
    (1, b"\0"), (2, b"\0"), (4, b"\0"), (5, b"\0"), (3, b"\0"), (14, b"\0"), (14, counted(string(zl()))),
    (10, string(zl())), (12, string(zl())), (13, string(zl())), (16, string(lp())), (17, string(lp())), (20, string(lp())),
    (18, counted(b"\2" + string(lp()))), (9, string(b"\0\xff")), (11, string(struct.pack("<II", 2, 0))),
]  # fmt: skip


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(("type_code", "value"), EMPTY)
def test_a_key_without_elements_is_left_out_for_servers_that_would_keep_it(type_code: int, value: bytes, deep: bool) -> None:
    data = rdb(key(b"k", type_code, value), key(b"j", 0, string(b"x")), magic=b"REDIS0011")
    for target in ("azure-premium", "redis-2.6"):
        report, content = converted(data, target, deep=deep)
        assert content == {(0, b"j"): b"x"}
        assert (report.ledger.counts, report.ledger.notes["empty"], report.left_out) == ({}, 1, 1)
        assert verdict(data, target, deep=deep)[0] == "lossless"


def test_all_kinds_alike() -> None:
    source = FAULTS / "empty-collections-v10.rdb"
    report, content = converted(source, "azure-premium")
    assert content == {(0, b"after"): b"1"}
    assert report.ledger.notes["empty"] == 5
    # Redis 7.0 and later skip them
    assert verdict(source, "redis-7.2")[0] == "as-it-is"
    # but for these two
    for type_code, value in EMPTY[-2:]:
        data = rdb(key(b"k", type_code, value), key(b"j", 0, string(b"x")))
        assert verdict(data, "redis-7.2")[0] == "lossless"
        assert converted(data, "redis-7.2")[1] == {(0, b"j"): b"x"}


# Databases, functions


def test_a_database_that_a_server_has_only_if_it_is_configured_so() -> None:
    data = rdb(b"\xfe\x10", key(b"k", 0, string(b"x")))
    found, findings = verdict(data, "redis-7.2")
    assert (found, findings["RDB301"]) == ("lossless", ("blocker", [b"k"]))
    assert verdict(data, "redis-7.2", databases=17)[0] == "as-it-is"
    without_keys = rdb(key(b"k", 0, string(b"x")), b"\xfe\x10")
    found, findings = verdict(without_keys, "redis-7.2")
    assert (found, findings["RDB305"][0]) == ("lossless", "blocker")
    assert verdict(rdb(b"\xfe\x0f", key(b"k", 0, string(b"x"))), "redis-7.2")[0] == "as-it-is"


GOOD_CODE = b"#!lua name=l\nredis.register_function('f', function() end)"


@pytest.mark.parametrize(
    "codes",
    [
        [b"#!js name=l\nredis.register_function('f', 1)"],
        [b"#!lua name=l\nreturn 1"],
        [b"redis.register_function('f', 1)"],
        [b""],
        [GOOD_CODE, GOOD_CODE],
    ],
)
def test_a_function_library_that_no_server_loads(codes: list[bytes]) -> None:
    data = rdb(*(b"\xf5" + string(code) for code in codes), key(b"k", 0, string(b"x")), magic=b"REDIS0011")
    found, findings = verdict(data, "redis-7.2")
    assert (found, findings["RDB202"][0]) == ("lossy", "loss")
    with pytest.raises(rdbkit.LossError):
        converted(data, "redis-7.2")
    report, _ = converted(data, "redis-7.2", policies=rdbkit.Policies(function="drop"))
    assert report.ledger.counts == {"function": 1}
    assert verdict(rdb(b"\xf5" + string(GOOD_CODE), magic=b"REDIS0011"), "redis-7.2")[0] == "as-it-is"


# What the verdict says of what was not looked at


def test_the_verdict_says_whether_values_were_opened(tmp_path: Path) -> None:
    name = str(FIXTURES / "rich" / "redis-7.0.15.rdb")
    runner = CliRunner()
    shown = runner.invoke(cli, ["check", name, "--target", "redis-7.0"]).stdout
    assert shown.splitlines()[0].endswith("as it is; not looked at: the inside of values that are copied, which --deep opens")
    assert "all opened" in runner.invoke(cli, ["check", name, "--target", "redis-7.0", "--deep"]).stdout
    found = json.loads(runner.invoke(cli, ["check", name, "--target", "redis-7.0", "--json"]).stdout)
    assert found["files"][0]["deep"] is False


def as_text(text: bytes) -> bytes:
    """An entry of a listpack that is text, also where servers would write a number."""
    return bytes([0x80 | len(text)]) + text + bytes([len(text) + 1])


NUMBERS = [0, 7, -1, 127, -4096, 1 << 31, 10**18 - 1, 10**18, -(10**18), (1 << 63) - 1, -(1 << 63), -(1 << 62)]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_number_and_its_text_are_one_name(number: int) -> None:
    """However a listpack has them; texts that servers do not take for numbers are others."""
    text = b"%d" % number
    for other, comes_twice in ((text, True), (b"+" + text, False), (b"00" + text[-1:], False), (text + b" ", False)):
        packed = listpack_of([entry(number), as_text(other)])
        data = rdb(key(b"k", 20, string(packed)), magic=b"REDIS0011")
        for target in ("redis-7.2", "redis-5.0"):
            if comes_twice:
                with pytest.raises(rdbkit.CorruptError, match="twice"):
                    converted(data, target, deep=True)
            else:
                assert converted(data, target, deep=True)[1][0, b"k"] == {text, other}

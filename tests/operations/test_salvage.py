"""`rdbkit salvage`: what is sound of a damaged file is kept as it was, and what comes out is sound."""

from __future__ import annotations

import gzip
import io
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rdbkit
import rdbkit.operations.salvage as operation
from bench.hostile import RUNS, damaged, whole
from rdbkit.operations.diff import diff
from rdbkit.operations.salvage import Lost, Salvage, salvage
from rdbkit.operations.verify import verify
from rdbkit.storage.spliced_file import SplicedFile

from .. import command_line
from ..encoders import signed
from ..format.test_decode import SOUND, Damage, counted, lp
from ..rdb import DUMPS, FIXTURES, aux, each_dump, key, length, rarely, rdb, string
from .test_verify import CASES, ENDLESS, MORE_SOUND, WHOLE, framed, library

RICH = FIXTURES / "rich" / "redis-7.0.15.rdb"
GOOD = [key(b"good:%02d" % i, 0, string(b"value %d" % i)) for i in range(20)]
FAR = 4_102_444_800_000

Found = dict[tuple[int, bytes], tuple[Any, ...]]


def content(data: bytes) -> Found:
    """What the file has of each key, as it stands there, and where; of a name that is there twice, the first."""
    found: Found = {}
    with rdbkit.open(io.BytesIO(data), verify_checksum=False) as snapshot:
        for r in snapshot:
            found.setdefault(
                (r.db, r.key), (r.rdb_type, r.expire_ms, r.raw, r.member_expire_ms, r.offset, (r.size or 0) + r.offset)
            )
    return found


def saved(path: Path, data: bytes, **options: Any) -> tuple[Salvage, bytes, list[Lost]]:
    """The report, the new file, which is sound, and everything that is lost."""
    path.write_bytes(data)
    out, lost = io.BytesIO(), list[Lost]()
    arguments: dict[str, Any] = {"samples": 1 << 30, "loss_callback": lost.append} | options
    report = salvage(path, out, **arguments)
    result = out.getvalue()
    proof = verify(io.BytesIO(result), deep=True)
    assert proof.sound, proof.violations
    assert proof.keys == report.kept
    assert proof.header == report.header
    assert sum(report.lost.values()) == len(lost)
    assert report.lost_bytes == sum(each.size for each in lost)
    assert report.whole == (not lost and not report.cut and report.checksum != "mismatch")
    json.dumps(report.to_dict())
    return report, result, lost


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "damaged.rdb"


# Without damage


@pytest.mark.parametrize("dump", each_dump())
def test_nothing_is_lost_of_a_sound_file(dump: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.rdb"
    report = salvage(dump, out)
    assert report.whole
    assert (report.lost, report.samples, report.doubtful, report.lost_bytes) == ({}, [], [], 0)
    assert diff(str(dump), str(out), now_ms=0).same
    assert content(out.read_bytes()).keys() == content(dump.read_bytes()).keys()
    assert verify(out, deep=True).sound
    with rdbkit.open(dump) as one, rdbkit.open(out) as other:
        assert one.header == other.header
        assert one.aux == other.aux
        assert [f.source for f in one.functions] == [f.source for f in other.functions]
        members = {(r.db, r.key): r.member_expire_ms for r in one}
        assert members == {(r.db, r.key): r.member_expire_ms for r in other}


@pytest.mark.parametrize("block_size", [None, 16])
@pytest.mark.parametrize("sound", [*SOUND, *MORE_SOUND], ids=lambda d: d.rule)
def test_a_sound_value_is_kept(sound: Damage, block_size: int | None, path: Path) -> None:
    data = rdb(sound.preamble, b"\xfe\x03", *GOOD[:2], key(b"k", sound.type_code, sound.value), GOOD[2], magic=sound.magic)
    report, result, lost = saved(path, data, block_size=block_size)
    assert (report.whole, report.kept, lost) == (True, 4, [])
    assert content(result)[3, b"k"][2] == sound.value


# Damaged values


@pytest.mark.parametrize("block_size", [None, *rarely(16)])
@pytest.mark.parametrize("around", [2, *rarely(1, 10)])
@pytest.mark.parametrize(("rule", "damage"), CASES, ids=[d.rule for _, d in CASES])
def test_a_damaged_key_goes_and_the_others_stay(rule: str, damage: Damage, around: int, block_size: int | None, path: Path) -> None:
    before, after = GOOD[:around], GOOD[10 : 10 + around]
    record = key(b"k", damage.type_code, damage.value)
    head = [damage.preamble, b"\xfe\x03", *before]
    report, result, lost = saved(path, rdb(*head, record, *after, magic=damage.magic), block_size=block_size)
    assert content(result).keys() == content(rdb(*head, *after, magic=damage.magic)).keys()
    assert all(row[2].startswith(b"\x07value") or row[2].startswith(b"\x08value") for row in content(result).values())
    begin = len(rdb(*head, magic=damage.magic)) - 9
    (only,) = lost
    assert (only.rule, only.offset, only.size, only.db, only.key) == (rule, begin, len(record), 3, b"k")
    assert only.what == ("gap" if damage.rule in ENDLESS else "key")
    neighbours = [(3, b"good:%02d" % (around - 1), begin - len(before[-1])), (3, b"good:10", begin + len(record))]
    assert report.doubtful == (neighbours if damage.rule in ENDLESS else [])
    assert not report.whole


def test_many_damaged_keys(path: Path) -> None:
    parts, names = [], []
    for number, (_, damage) in enumerate(CASES):
        if damage.magic == b"REDIS0014" and damage.rule not in ENDLESS:
            parts.append(key(b"%d" % number, damage.type_code, damage.value, FAR))
            names.append(b"%d" % number)
            parts.append(key(b"good:%d" % number, 0, string(b"v"), FAR))
    for block_size in (None, 64):
        report, result, lost = saved(path, rdb(*parts, magic=b"REDIS0014"), block_size=block_size)
        assert [each.key for each in lost] == names
        assert [name for _, name in content(result)] == [b"good:" + name for name in names]
        assert report.lost == {"key": len(names)}
    assert len(salvage(path, io.BytesIO(), samples=2).samples) == 2


def test_of_keys_that_are_there_twice_the_first_stays(path: Path) -> None:
    long = key(b"long", 1, counted(*[string(b"x" * 60)] * 9))
    parts = [key(b"k", 0, string(b"1")), long, key(b"k", 0, string(b"2")), b"\xfe\x01", key(b"k", 0, string(b"3"))]
    data = rdb(*parts, b"\xfe\x00", long, key(b"k", 0, string(b"4")), key(b"d", 16, string(lp(b"f"))), magic=b"REDIS0011")
    for block_size in (None, 64):
        report, result, lost = saved(path, data, block_size=block_size)
        assert {name: row[2] for name, row in content(result).items() if name[1] == b"k"} == {
            (0, b"k"): b"\x011", (1, b"k"): b"\x013",
        }  # fmt: skip
        assert sorted((each.rule, each.key) for each in lost) == [
            ("key-twice", b"k"), ("key-twice", b"k"), ("key-twice", b"long"), ("pairs", b"d"),
        ]  # fmt: skip
        repeated = [each for each in lost if each.rule == "key-twice"]
        assert [data[each.offset :][: each.size] for each in repeated] == [parts[2], long, key(b"k", 0, string(b"4"))]
        assert repeated[0].message == "the key is there before, at byte 9"
        assert report.kept == 3


def test_functions(path: Path) -> None:
    good, bad, same = library(b"#!lua name=a\n1"), library(b"name=b\n2"), library(b"#!lua name=a\n3")
    for parts in ([good, bad, same, *GOOD], [good, *GOOD, bad, same]):
        report, result, lost = saved(path, rdb(aux(b"a", b"b"), *parts, magic=b"REDIS0010"))
        assert report.lost == {"library": 2}
        assert [(each.rule, each.db, each.key) for each in lost] == [("function-head", None, None), ("function-twice", None, None)]
        with rdbkit.open(io.BytesIO(result)) as snapshot:
            events = [e.source for e in snapshot.events() if isinstance(e, rdbkit.FunctionLibrary)]
        assert events == [b"#!lua name=a\n1"]
        assert report.kept == len(GOOD)


def test_what_keydb_says_behind_a_key_goes_with_it(path: Path) -> None:
    def expires(member: bytes) -> bytes:
        return aux(b"keydb-subexpire-key", member) + aux(b"keydb-subexpire-when", b"%d" % FAR)

    bad = key(b"bad", 2, counted(string(b"m"), string(b"m")))
    good = [key(b"s%d" % i, 2, counted(string(b"m"), string(b"n"))) for i in range(2)]
    report, result, _ = saved(path, rdb(good[0], expires(b"n"), bad, expires(b"m"), expires(b"x"), good[1], expires(b"n")))
    assert report.lost == {"key": 1}
    assert {name[1]: row[3] for name, row in content(result).items()} == {b"s0": {b"n": FAR}, b"s1": {b"n": FAR}}
    assert b"\x01x" not in result


# Damaged framing


class Case(NamedTuple):
    kind: str
    data: bytes
    begin: int  # of what is damaged, and its end, in the file as it was
    end: int
    shift: int  # how far what follows has moved


def damage(data: bytes, kind: str, at: int, size: int, rng: random.Random) -> Case:
    size = min(size, len(data) - at)
    end = at + size
    if kind == "flip":
        return Case(kind, data[:at] + bytes([data[at] ^ rng.randrange(1, 256)]) + data[at + 1 :], at, at + 1, 0)
    if kind == "zeros":
        return Case(kind, data[:at] + bytes(size) + data[end:], at, end, 0)
    if kind == "noise":
        return Case(kind, data[:at] + rng.randbytes(size) + data[end:], at, end, 0)
    if kind == "cut":
        return Case(kind, data[:at], at, len(data), 0)
    if kind == "dropped":
        return Case(kind, data[:at] + data[end:], at, end, -size)
    return Case(kind, data[:at] + rng.randbytes(size) + data[at:], at, at, size)


KINDS = ["flip", "zeros", "noise", "cut", "dropped", "inserted"]
SIZES = [1, 1, 2, 5, 30, 300, 3000]


def small_values(version: int, count: int = 400) -> bytes:
    """Many small keys of all types."""
    rng = random.Random(version)
    out = io.BytesIO()
    with rdbkit.create(out, version=version) as writer:
        for i in range(count):
            n = rng.randrange(1, 20)
            values: list[Any] = [
                rng.randbytes(n), b"%d" % rng.randrange(10**6), {b"field %d" % j: b"%d" % rng.randrange(1000) for j in range(n)},
                [b"item %d" % rng.randrange(1000) for _ in range(n)],
                {b"player %d" % j: float(rng.randrange(99)) for j in range(n)},
            ]  # fmt: skip
            value = values[i % 5]
            if version >= 12 and i % 10 == 2:
                value = rdbkit.Hash()
                value.update(values[2])
                value.field_expire_ms = {field: FAR + rng.randrange(1000) for field in list(value)[::2]}
            name = b"%b:%d" % (rng.choice((b"user", b"session", b"cart")), i)
            writer.put(name, value, expire_ms=rng.choice((None, FAR + i)))
    return out.getvalue()


def outside(old: tuple[Any, ...], case: Case) -> bool:
    """A record of which nothing is damaged."""
    begin, end = old[-2:]
    return not (begin < case.end and end > case.begin) and not begin < case.begin == case.end < end


def cases(files: list[bytes], each: int, seed: int) -> Iterator[tuple[bytes, Case]]:
    for number, data in enumerate(files):
        rng = random.Random(seed + number)
        for _ in range(each):
            yield data, damage(data, rng.choice(KINDS), rng.randrange(9, len(data)), rng.choice(SIZES), rng)


def share_of(damaged: Iterator[tuple[bytes, Case]], path: Path) -> float:
    """How much is kept, on the average of files, of what is not damaged itself; asserts what holds of each."""
    shares = []
    for data, case in damaged:
        report, result, lost = saved(path, case.data)
        old, new = content(data), content(result)
        doubtful = {(db, name) for db, name, _ in report.doubtful}
        gone = [(each.offset, each.offset + each.size) for each in lost]
        for name, row in old.items():
            begin, end = row[-2:]
            if end <= case.begin and not any(begin < stop and start < end for start, stop in gone):
                assert name in new, (case[2:], name)
                if name not in doubtful:
                    assert new[name][:4] == row[:4]
        whole = [name for name, row in old.items() if outside(row, case)]
        if whole:
            same = [name for name in whole if name in new and new[name][:4] == old[name][:4]]
            shares.append(len(same) / len(whole))
        if not report.lost and not report.cut:
            assert report.checksum != "ok" or case.data == data
    return sum(shares) / len(shares)


@pytest.mark.parametrize("version", [*rarely(4, 9), 11, *rarely(12)])
def test_small_values_beside_damage_are_kept(version: int, path: Path) -> None:
    assert share_of(cases([small_values(version)], 60, version), path) > 0.96


@pytest.mark.parametrize("each", [1, *rarely(3)])
@pytest.mark.parametrize("kind", ["rich", "random"])
def test_values_of_dumps_beside_damage_are_kept(kind: str, each: int, path: Path) -> None:
    dumps = [dump.read_bytes() for dump in DUMPS if dump.parent.name == kind]
    assert share_of(cases(dumps, each, 7), path) > (0.8 if kind == "rich" else 0.9)


def test_a_file_cut_anywhere(path: Path) -> None:
    for size in range(9, len(WHOLE)):
        report, result, _ = saved(path, WHOLE[:size])
        old, new = content(WHOLE), content(result)
        for name, row in old.items():
            assert (name in new) == (row[-1] <= size), (size, name)
            assert name not in new or new[name][:4] == row[:4]
        assert report.cut
        assert not report.whole


def test_a_length_that_is_too_large_gives_back_what_it_swallows(path: Path) -> None:
    for size in (33, 100, 500, 3000):
        records = [key(b"k:%03d" % i, 0, string(b"value of %d" % i)) for i in range(200)]
        good = rdb(*records)
        at = 9 + sum(map(len, records[:50]))
        long = b"\x00" + string(b"k:050") + length(size)
        report, result, _ = saved(path, good[:at] + long + good[at + len(long) :])
        new = content(result)
        assert {(0, b"k:%03d" % i) for i in range(200)} - set(new) == {(0, b"k:050")}
        assert report.lost.keys() == {"gap"}
        assert report.doubtful[0][1] == b"k:049"


def test_fields_of_a_damaged_hash_do_not_become_keys(path: Path) -> None:
    fields = b"".join((length(0 if i % 3 else 5 + i) + string(b"field:%d" % i) + string(b"value:%d" % i)) for i in range(400))
    record = key(b"hash", 24, signed(FAR, 8) + length(400) + fields)
    begin = 9 + sum(map(len, GOOD[:10]))
    strings = [key(b"string:%d" % i, 0, string(b"value")) for i in range(1000)]
    other = key(b"list", 1, counted(string(b"a"), string(b"b")))
    # strings behind it look like more of its fields: as many go as it may have, and those that are read as such
    for parts, least in (([other, *strings], 1000), (strings, 1000 - 2 * 408 - 8)):
        good = rdb(*GOOD[:10], record, *parts, magic=b"REDIS0012")
        rng = random.Random(5)
        for _ in range(40):
            at = rng.randrange(begin, begin + len(record))
            kind = rng.choice(["flip", "dropped", "zeros", "noise"])
            case = damage(good, kind, at, min(rng.choice([1, 2, 8]), begin + len(record) - at), rng)
            _, result, _ = saved(path, case.data)
            names = [name for _, name in content(result)]
            assert not [name for name in names if name.startswith(b"field")], (kind, at)
            assert sum(name.startswith(b"string") for name in names) >= least, (kind, at)
            assert set(names) >= {b"good:%02d" % i for i in range(9)}


def test_an_end_mark_in_the_midst_is_none(path: Path) -> None:
    data = rdb(*GOOD[:10], b"\xff" + bytes(30), *GOOD[10:])
    report, _, lost = saved(path, data)
    assert report.kept == 20
    assert report.lost == {"gap": 1}
    assert lost[0].offset == 9 + sum(map(len, GOOD[:10]))
    assert report.doubtful == [(0, b"good:09", 9 + sum(map(len, GOOD[:9]))), (0, b"good:10", lost[0].offset + lost[0].size)]
    # what follows the true end is not searched
    report, _, lost = saved(path, rdb(*GOOD[:10]) + b"".join(GOOD[10:]))
    assert (report.kept, report.lost) == (10, {"behind": 1})


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("crc", [True, False])
@pytest.mark.parametrize(
    ("more", "words"),
    [(rdb(*GOOD), "another snapshot"), (b"*1\r\n$4\r\nPING\r\n", "commands"), (b"VALKEY080", "another snapshot")],
    ids=["snapshot", "commands", "head"],
)
def test_what_stands_behind_the_end_is_left_out(more: bytes, words: str, crc: bool, packed: bool, path: Path) -> None:
    whole = rdb(*GOOD, crc=crc)
    for behind in (more, more + bytes(10)):
        data = whole + behind
        report, result, lost = saved(path, gzip.compress(data) if packed else data)
        assert (report.kept, report.lost, report.whole) == (20, {"behind": 1}, False)
        assert (lost[0].offset, lost[0].size, lost[0].rule, lost[0].key) == (len(whole), len(behind), "behind", None)
        assert lost[0].message.startswith(words)
        assert len(result) == len(whole)
    # with damage in front of it
    data = whole.replace(b"value 7", b"\xc8alue 7" if not crc else b"VALUE 7")
    report, _, lost = saved(path, data + more)
    assert report.lost["behind"] == 1
    assert lost[-1].offset == len(whole)


def test_what_stands_behind_a_capture_is_left_out(path: Path) -> None:
    report, _, _ = saved(path, framed(WHOLE) + b"*1\r\n$4\r\nPING\r\n")
    assert report.whole
    report, _, lost = saved(path, framed(WHOLE) + b"*1\r\n$8\r\nFLUSHALL\r\n")
    assert (report.kept, report.lost, lost[0].offset) == (4, {"behind": 1}, len(framed(WHOLE)))
    report, _, _ = saved(path, framed(WHOLE) + bytes(100))
    assert report.whole


def test_a_key_without_a_name_stops_no_search(path: Path) -> None:
    nameless = key(b"", 0, string(b"value of a key without a name"))
    data = rdb(*GOOD[:10], b"\xc8" * 9, GOOD[10], nameless, *GOOD[11:14])
    report, _, _ = saved(path, data)
    assert report.kept == 15


def test_the_database_behind_a_gap(path: Path) -> None:
    second = b"\xfe\x07\xfb\x0a\x00"
    for gap in (b"\xc8" * 30 + second, b"\xc8" * 30 + second + key(b"k", 18, counted(b"\3\1v"))):
        report, result, _ = saved(path, rdb(b"\xfe\x02\xfb\x0a\x00", *GOOD[:10], gap, *GOOD[10:], magic=b"REDIS0010"))
        assert {db for db, name in content(result) if name >= b"good:10"} == {7}
        assert [found[:2] for found in report.doubtful] == [(2, b"good:09"), (7, b"good:10")]
        assert {db for db, name in content(result) if name < b"good:10"} == {2}
        with rdbkit.open(io.BytesIO(result)) as snapshot:
            assert {e.keys for e in snapshot.events() if isinstance(e, rdbkit.ResizeDb)} == {10}
    # where nothing tells, it is the one before
    _, result, _ = saved(path, rdb(b"\xfe\x02", *GOOD[:10], b"\xc8" * 30, *GOOD[10:], magic=b"REDIS0010"))
    assert {db for db, _ in content(result)} == {2}


def test_templates_behind_a_gap(path: Path) -> None:
    """Of RDB 15: what hashes refer to precedes all gaps."""
    template = b"\xf2\x07" + counted(string(b"a"), string(b"b"))
    hashes = [key(b"h%02d" % i, 32, length(7) + string(b"%d" % i) + string(b"x")) for i in range(20)]
    data = rdb(template, *hashes[:10], b"\xc8" * 20, *hashes[10:], magic=b"REDIS0015")
    report, result, _ = saved(path, data)
    assert report.kept == 20
    assert report.lost == {"gap": 1}
    with rdbkit.open(io.BytesIO(result)) as snapshot:
        assert [r.value for r in snapshot] == [{b"a": b"%d" % i, b"b": b"x"} for i in range(20)]


def test_damage_in_front_of_the_keys(path: Path) -> None:
    good = rdb(aux(b"redis-ver", b"7.0.0"), aux(b"redis-bits", b"64"), library(b"#!lua name=a\n1"), *GOOD, magic=b"REDIS0010")
    for at in range(9, good.index(GOOD[0]), 3):
        case = damage(good, "zeros", at, 3, random.Random(1))
        _, result, _ = saved(path, case.data)
        names = {name for _, name in content(result)}
        assert names >= {b"good:%02d" % i for i in range(1, 20)}


# Files of other shapes


def test_a_capture(path: Path) -> None:
    damaged = WHOLE.replace(lp(b"f", b"v"), lp(b"f", b"v")[:-1] + b"\0")
    report, result, lost = saved(path, framed(damaged))
    assert (report.kept, report.lost) == (3, {"key": 1})
    assert lost[0].offset == 47 + content(WHOLE)[0, b"hash"][-2]
    assert result.startswith(b"REDIS0010")
    for size in (len(framed(WHOLE)) - 1, len(framed(WHOLE)) - 45, len(framed(WHOLE)) - 50):
        report, result, _ = saved(path, framed(WHOLE)[:size])
        assert report.kept >= 3
    report, result, _ = saved(path, framed(WHOLE))
    assert report.whole
    assert report.kept == 4
    report, result, _ = saved(path, framed(WHOLE.replace(b"\x06before", b"\x96before")))
    assert (report.kept, report.lost) == (3, {"gap": 1})


@pytest.mark.parametrize("zeros", [1, 500, 100_000])
def test_files_that_are_padded_with_zeros(zeros: int, path: Path) -> None:
    report, _, _ = saved(path, WHOLE + bytes(zeros))
    assert (report.whole, report.kept) == (True, 4)
    record = key(b"k", 18, counted(b"\x03" + string(b"v")))
    for count in (2, 10):
        report, result, lost = saved(path, rdb(*GOOD[:10], record, *GOOD[10 : 10 + count], magic=b"REDIS0011") + bytes(zeros))
        assert report.kept == 10 + count
        assert (len(lost), lost[0].size, report.cut) == (1, len(record), False)
    # a download that went on with zeros
    cut = rdb(*GOOD)[:200]
    report, result, _ = saved(path, cut + bytes(zeros))
    names = set(content(result)) - {(db, name) for db, name, _ in report.doubtful}
    assert {(0, b"good:%02d" % i) for i in range(10)} <= names <= {(0, b"good:%02d" % i) for i in range(12)}
    assert not report.whole


@pytest.mark.parametrize("version", [2, 3, 4])
def test_old_files_without_checksum(version: int, path: Path) -> None:
    magic = b"REDIS%04d" % version
    report, result, _ = saved(path, rdb(*GOOD, magic=magic, crc=None))
    assert (report.whole, report.kept, report.checksum) == (True, 20, "absent")
    assert result == rdb(*GOOD, magic=magic, crc=None) or result.startswith(magic)
    for count in (2, 10):
        damaged = [*GOOD[:10], b"\xc8" * 5, *GOOD[10 : 10 + count]]
        report, result, _ = saved(path, rdb(*damaged, magic=magic, crc=None))
        assert (report.kept, report.lost, report.cut) == (10 + count, {"gap": 1}, False)
    report, result, _ = saved(path, rdb(*GOOD, magic=magic, crc=None)[:-1])
    assert (report.kept, report.cut) == (20, True)


def test_what_is_checked_by_the_checksum_alone(path: Path) -> None:
    damaged = rdb(*GOOD).replace(b"value 7", b"VALUE 7")
    report, result, lost = saved(path, damaged)
    assert (report.kept, lost, report.checksum, report.whole) == (20, [], "mismatch", False)
    assert result[-8:] != bytes(8)
    report, result, lost = saved(path, damaged[:-8] + bytes(8))
    assert (report.checksum, report.whole) == ("disabled", True)


def test_gzip(path: Path) -> None:
    record = key(b"k", 18, counted(b"\x03" + string(b"v")))
    data = rdb(*GOOD[:10], record, *GOOD[10:], magic=b"REDIS0011")
    report, _, lost = saved(path, gzip.compress(data))
    assert report.kept == 20
    assert (lost[0].offset, lost[0].size) == (9 + sum(map(len, GOOD[:10])), len(record))
    report, _, _ = saved(path, gzip.compress(RICH.read_bytes()))
    assert report.whole
    values = random.Random(3)
    packed = gzip.compress(rdb(*(key(b"k%d" % i, 0, string(values.randbytes(1000))) for i in range(100))), 1)
    report, _, _ = saved(path, packed[: len(packed) // 2])
    assert report.cut
    assert 30 < report.kept < 60
    assert report.file == str(path)


def test_errors_name_the_compressed_file(path: Path, tmp_path: Path) -> None:
    packed = gzip.compress(RICH.read_bytes())
    damaged = packed[:15] + b"\xff" * 30 + packed[45:]
    for data, words in (
        (damaged, "the gzip data is damaged"), (packed[:12], "the gzip data ends too early"),
        (gzip.compress(b"hello, world"), "no RDB file"), (gzip.compress(b""), "the file is empty"),
    ):  # fmt: skip
        path.write_bytes(data)
        made = run(path, tmp_path / "out.rdb")
        assert made.returncode == 3
        assert made.stderr.decode().startswith(f"rdbkit: {path}: {words}")
    # of a file without a checksum that of gzip tells that something is changed
    packed = gzip.compress(rdb(*GOOD, crc=False) + bytes(10))
    report, _, _ = saved(path, packed[:-8] + b"\1\2\3\4" + packed[-4:])
    assert (report.kept, report.checksum, report.lost) == (20, "mismatch", {})


def test_large_values(path: Path) -> None:
    """Records larger than a block, damaged and not."""
    rng = random.Random(8)
    large = [key(b"large:%d" % i, 1, length(300) + b"".join(string(rng.randbytes(40)) for _ in range(300))) for i in range(6)]
    twice = key(b"twice", 2, length(400) + b"".join(string(b"member %d" % (i % 399)) for i in range(400)))
    data = rdb(*large[:3], twice, *GOOD, large[3], b"\xc8" * 100, *large[4:], *GOOD[:3])
    found = []
    for block_size in (None, 64, 5000):
        report, result, lost = saved(path, data, block_size=block_size)
        assert sorted((each.what, each.rule, each.key) for each in lost if each.rule != "unknown-type") == [
            ("key", "element-twice", b"twice"),
            *(("key", "key-twice", b"good:%02d" % i) for i in range(3)),
        ]
        assert report.kept == 26
        found.append(content(result).keys())
    assert found[0] == found[1] == found[2]


@settings(max_examples=80)
@given(st.binary(max_size=300), st.sampled_from([b"REDIS0003", b"REDIS0009", b"REDIS0012", b"REDIS0015", b"VALKEY080"]))
def test_any_bytes_behind_a_header(tmp_path_factory: pytest.TempPathFactory, body: bytes, magic: bytes) -> None:
    saved(tmp_path_factory.mktemp("any") / "dump.rdb", magic + body)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.sampled_from(KINDS), st.floats(0, 1, exclude_max=True), st.sampled_from(SIZES)), max_size=5),
       st.sampled_from([p for p in DUMPS if p.parent.name == "rich"]))  # fmt: skip
def test_damage_in_many_places(tmp_path_factory: pytest.TempPathFactory, places: list[tuple[str, float, int]], dump: Path) -> None:
    data = dump.read_bytes()
    rng = random.Random(1)
    for kind, where, size in places:
        if len(data) > 9:
            data = damage(data, kind, max(9, int(where * len(data))), size, rng).data
    saved(tmp_path_factory.mktemp("many") / "dump.rdb", data)


def test_arguments_that_cannot_be(path: Path, tmp_path: Path) -> None:
    path.write_bytes(WHOLE)
    with pytest.raises(ValueError, match="the destination is the source"):
        salvage(path, path, force=True)
    out = tmp_path / "out.rdb"
    out.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        salvage(path, out)
    assert out.read_bytes() == b"mine"
    path.write_bytes(b"RADIS0009" + WHOLE[9:])
    with pytest.raises(rdbkit.CorruptError):
        salvage(path, out, force=True)
    assert out.read_bytes() == b"mine"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["damaged.rdb", "out.rdb"]
    with pytest.raises(FileNotFoundError):
        salvage(tmp_path / "missing.rdb", tmp_path / "new.rdb")


# The command


def run(*args: str | Path) -> subprocess.CompletedProcess[bytes]:
    return command_line.run("salvage", *args)


DAMAGED_FILE = rdb(
    *GOOD[:10], key(b"odd\x1b", 16, string(lp(b"f"))), *GOOD[10:15], b"\xc8" * 7, *GOOD[15:], magic=b"REDIS0011"
)  # fmt: skip


def test_the_command(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.rdb"
    made = run(RICH, out)
    assert (made.returncode, made.stderr) == (0, b"")
    assert made.stdout.decode().startswith(f"{RICH}: 27 keys kept, nothing left out\n")
    assert diff(str(RICH), str(out), now_ms=0).same

    path.write_bytes(DAMAGED_FILE)
    again = run(path, out)
    assert again.returncode == 2
    assert b"exists; --force replaces it" in again.stderr
    made = run(path, out, "--force")
    said = made.stdout.decode()
    assert (made.returncode, made.stderr) == (0, b"")
    assert said.startswith(f"{path}: 20 keys kept, 1 damaged key and 1 gap left out\n")
    assert "Kept, but beside a gap" in said
    assert "\x1b" not in said
    assert verify(out, deep=True).sound
    assert run(path, path, "--force").returncode == 2
    link = tmp_path / "link.rdb"
    link.symlink_to(path)
    assert run(path, link, "--force").returncode == 2
    assert path.read_bytes() == DAMAGED_FILE


def test_losses_and_json(path: Path, tmp_path: Path) -> None:
    path.write_bytes(DAMAGED_FILE)
    out, losses = tmp_path / "out.rdb", tmp_path / "losses.jsonl"
    made = run(path, out, "--losses", losses, "--json", "--samples", "1")
    assert (made.returncode, made.stderr) == (0, b"")
    said = json.loads(made.stdout)
    rows = [json.loads(line) for line in losses.read_text().splitlines()]
    begin = 9 + sum(map(len, GOOD[:10]))
    odd = len(key(b"odd\x1b", 16, string(lp(b"f"))))
    assert rows[0] == {
        "what": "key", "rule": "pairs", "message": "1 strings, where each field or member has one beside it", "db": 0,
        "key": "odd\x1b", "offset": begin, "size": odd,
    }  # fmt: skip
    gap = begin + odd + sum(map(len, GOOD[10:15]))
    assert [(row["what"], row["rule"], row["offset"], row["size"]) for row in rows[1:]] == [("gap", "unknown-type", gap, 7)]
    assert said["samples"] == rows[:1]
    assert {name: said[name] for name in ("header", "kept", "lost", "lost_bytes", "checksum", "cut", "whole")} == {
        "header": "REDIS0011", "kept": 20, "lost": {"key": 1, "gap": 1}, "lost_bytes": odd + 7, "checksum": "unknown", "cut": False,
        "whole": False,
    }  # fmt: skip
    assert said["doubtful"] == [{"db": 0, "key": "good:14", "offset": gap - len(GOOD[14])}]
    for wrong in (out, path):
        assert run(path, out, "--force", "--losses", wrong).returncode == 2
    (tmp_path / "link").symlink_to(tmp_path / "other.rdb")
    for wrong in (losses, tmp_path / "link"):
        assert run(path, tmp_path / "other.rdb", "--losses", wrong).returncode == 2
    assert not (tmp_path / "other.rdb").exists()
    made = run(path, tmp_path / "other.rdb", "--losses", losses, "--force")
    assert f"all losses in  {losses}" in made.stdout.decode()


def test_standard_output(path: Path) -> None:
    path.write_bytes(DAMAGED_FILE)
    made = run(path, "-")
    assert made.returncode == 0
    assert made.stderr == b"rdbkit: 20 keys kept, 1 damaged key and 1 gap left out\n"
    assert verify(io.BytesIO(made.stdout), deep=True).sound
    made = run(path, "-", "--json")
    assert (made.returncode, made.stdout) == (2, b"")
    path.write_bytes(WHOLE)
    made = run(path, "-")
    assert (made.returncode, made.stderr) == (0, b"")


def test_a_file_of_which_only_the_checksum_differs(path: Path, tmp_path: Path) -> None:
    path.write_bytes(rdb(*GOOD).replace(b"value 7", b"VALUE 7"))
    made = run(path, tmp_path / "out.rdb")
    assert made.returncode == 0
    assert "20 keys kept; the checksum differs, so something is changed, but nothing shows what\n" in made.stdout.decode()


def test_nothing_stays_of_a_salvage_that_fails(path: Path, tmp_path: Path) -> None:
    out, losses = tmp_path / "out.rdb", tmp_path / "losses.jsonl"
    for data in (b"", b"hello, world", WHOLE[:7], rdb(magic=b"REDIS0099")):
        path.write_bytes(data)
        made = run(path, out, "--losses", losses)
        assert (made.returncode, made.stdout) == (3, b""), data
        assert made.stderr.count(b"\n") == 1
        assert [p.name for p in tmp_path.iterdir()] == ["damaged.rdb"]
    path.write_bytes(DAMAGED_FILE)
    made = run(path, tmp_path / "no" / "out.rdb", "--losses", losses)
    assert made.returncode == 3
    assert made.stderr.count(b"\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["damaged.rdb"]
    assert run(tmp_path, out).returncode == 3
    made = run(tmp_path / "missing.rdb", out)
    assert made.returncode == 3
    assert made.stderr.decode() == f"rdbkit: {tmp_path / 'missing.rdb'}: No such file or directory\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no /dev/full")
def test_a_full_disk(path: Path, tmp_path: Path) -> None:
    path.write_bytes(DAMAGED_FILE)
    made = run(path, "/dev/full", "--force")
    assert made.returncode == 3
    assert made.stderr == b"rdbkit: /dev/full: No space left on device\n"
    made = run(path, tmp_path / "out.rdb", "--losses", "/dev/full", "--force")
    assert made.returncode == 3
    assert made.stderr == b"rdbkit: /dev/full: No space left on device\n"
    with open("/dev/full", "wb") as full:
        made = subprocess.run([sys.executable, "-m", "rdbkit", "salvage", path, "-"], stdout=full, stderr=subprocess.PIPE)
    assert made.returncode == 3
    assert made.stderr == b"rdbkit: standard output: No space left on device\n"


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="has no /dev/zero")
def test_what_is_no_file_cannot_be_read_several_times(path: Path) -> None:
    for name, shown in ((b"/dev/zero", b"/dev/zero"), (b"-", b"standard input")):
        made = run(name.decode(), path)
        assert made.returncode == 2
        assert b"Error: " + shown + b": it is read several times, and has to be a file\n" in made.stderr


def test_what_is_behind_is_shown(path: Path, tmp_path: Path) -> None:
    path.write_bytes(rdb(*GOOD, key(b"", 0, string(b"v"))) + rdb(*GOOD))
    made = run(path, tmp_path / "out.rdb")
    assert made.returncode == 0
    said = made.stdout.decode()
    assert said.splitlines()[0] == f"{path}: 21 keys kept, what follows the end left out"
    assert "another snapshot behind the end of the snapshot, not searched" in said
    told = json.loads(run(path, tmp_path / "out.rdb", "--force", "--json").stdout)
    assert (told["whole"], told["lost"], told["lost_bytes"]) == (False, {"behind": 1}, len(rdb(*GOOD)))
    # a name without a letter is seen all the same
    path.write_bytes(rdb(*GOOD, key(b"", 16, string(lp(b"f", b"v")[:-1] + b"\0")), *GOOD, magic=b"REDIS0010"))
    assert "  key   ''  " in run(path, tmp_path / "out.rdb", "--force").stdout.decode()


def test_gzip_with_another_checksum_or_with_something_behind(path: Path, tmp_path: Path) -> None:
    data = rdb(*GOOD, crc=False)
    packed = gzip.compress(data)
    path.write_bytes(packed[:-8] + bytes(4) + packed[-4:])
    made = run(path, tmp_path / "a.rdb", "--json")
    report = json.loads(made.stdout)
    assert (made.returncode, report["kept"], report["lost"], report["cut"], report["checksum"]) == (0, 20, {}, False, "mismatch")
    path.write_bytes(packed + b"garbage")
    report = json.loads(run(path, tmp_path / "b.rdb", "--json").stdout)
    assert report["kept"] == 20
    assert report["checksum"] != "mismatch"


def test_a_type_that_the_version_does_not_have_is_no_record(path: Path) -> None:
    """Its bytes are something else, and what it has swallowed is given back."""
    data = (FIXTURES / "faults" / "type-newer-than-version.rdb").read_bytes()
    for block_size in (None, 16):
        path.write_bytes(data)
        out = io.BytesIO()
        report = salvage(path, out, block_size=block_size)
        assert verify(io.BytesIO(out.getvalue()), deep=True).sound
        assert (report.kept, report.announced, report.lost) == (40, 41, {"gap": 1})
        assert (report.samples[0].rule, report.samples[0].offset, report.samples[0].size) == ("type-version", 331, 5)
        assert (0, b"post0") in content(out.getvalue())


def test_functions_among_the_attributes_of_a_key(path: Path) -> None:
    for source, left in ((b"#!lua name=l\n1", 1), (b"no head", 0)):
        record = b"\xf9\x05" + library(source) * 2 + key(b"k", 0, string(b"v"))
        report, result, _ = saved(path, rdb(*GOOD, record, magic=b"REDIS0011"))
        assert report.lost == {"library": 2 - left}
        assert result.count(source) == left
        assert {(0, b"k"), (0, b"good:00")} < set(content(result))


# What it costs


def cost_of(path: Path, data: bytes) -> tuple[int, int, int]:
    """Places that were looked at, what that took, and bytes that were read."""
    path.write_bytes(data)
    read = 0

    class Counted(SplicedFile):
        def read(self, n: int) -> bytes:
            nonlocal read
            piece = super().read(n)
            read += len(piece)
            return piece

    with patch.object(operation, "SplicedFile", Counted):
        plain = operation._Plain(str(path), str(path), len(data), None, None)
        job = operation._Job(str(path), plain, 20, None, None, None, None)
        try:
            job.survey()
        finally:
            job.close()
    return (0, 0, read) if job.search is None else (int(job.search.looks), int(job.search.work), read)


@pytest.mark.one_in(5)
@pytest.mark.parametrize("size", [10_000, *rarely(40_000)])
@pytest.mark.parametrize("run", RUNS)
def test_what_a_search_takes_grows_with_the_file_alone(run: str, size: int, path: Path) -> None:
    magic, make = RUNS[run]
    for place in (whole, damaged):
        data = place(magic, make(size))
        looks, work, read = cost_of(path, data)
        assert looks < 3 * len(data)
        assert work < 250 * len(data)
        assert read < 200 * len(data)


@pytest.mark.parametrize("run", ["databases selected", "expiries of KeyDB's members", "sizes of databases"])
def test_events_behind_damage_are_read_a_few_times(run: str, path: Path) -> None:
    magic, make = RUNS[run]
    data = damaged(magic, make(100_000))
    _, work, _ = cost_of(path, data)
    assert work < 20 * len(data)
    report, result, _ = saved(path, data)
    assert report.kept == 18
    assert {(0, b"behind %d" % i) for i in range(9)} < set(content(result))


def test_names_of_templates_that_a_row_brings_are_forgotten(path: Path) -> None:
    """A template that is none must not stand in for one of the file's."""
    template = b"\xf2\x07" + counted(string(b"a"), string(b"b"))
    false = b"\xf2\x07" + counted(string(b"x"), string(b"y"))
    hashes = [key(b"h%02d" % i, 32, length(7) + string(b"%d" % i) + string(b"x")) for i in range(20)]
    data = rdb(template, *hashes[:10], b"\xc8" * 20, false, b"\xc8" * 20, *hashes[10:], magic=b"REDIS0015")
    report, result, _ = saved(path, data)
    assert report.kept == 20
    with rdbkit.open(io.BytesIO(result)) as snapshot:
        assert [r.value for r in snapshot] == [{b"a": b"%d" % i, b"b": b"x"} for i in range(20)]


def test_hashes_whose_template_is_damaged_go_with_it(path: Path) -> None:
    wrong = b"\xf2\x07" + counted(string(b"b"), string(b"a"))
    hashes = [key(b"h%02d" % i, 32, length(7) + string(b"%d" % i) + string(b"x")) for i in range(3)]
    report, result, lost = saved(path, rdb(*GOOD, wrong, *hashes, *GOOD[:0], key(b"end", 0, string(b"1")), magic=b"REDIS0015"))
    assert report.kept == 21
    assert sorted(each.what for each in lost) == ["key", "key", "key", "library"]
    assert (0, b"end") in content(result)

"""`rdbkit verify`: what is sound is found sound, and each kind of damage is found by its rule."""

from __future__ import annotations

import gzip
import io
import json
import random
import re
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rdbkit
from rdbkit.format.decode import FileTypes
from rdbkit.operations.verify import Verification, rules, verify
from rdbkit.passes.value_checker import ValueChecker
from rdbkit.policy.losses import loss_kinds

from .. import command_line
from ..encoders import ziplist_of
from ..format.test_decode import AFTER, DAMAGED, F64, GOOD_NODE, ONE_ENTRY, SOUND, Damage, counted, lp, stream_node, stream_of, zl
from ..rdb import DUMPS, FIXTURES, Dribble, aux, each_dump, key, length, rarely, rdb, string

BEFORE = key(b"before", 0, string(b"1"))
ROOM = Path(rdbkit.__file__).parent
BLOCKS = [None, 64, 1000]

#: What is to be found in each entry of `DAMAGED`, by rule.
RULES = {
    "listpack-size": [
        "listpack of six bytes", "listpack of no bytes", "listpack says it is longer", "listpack says it is shorter",
        "bytes behind a listpack", "packed node of no bytes", "packed node is no listpack", "node of no bytes",
        "node is no listpack",
    ],
    "listpack-end": ["listpack without end mark", "listpack ends with another byte"],
    # an end mark before the last byte stands where an entry begins
    "listpack-entry": ["listpack ends early", "listpack entry 0xf5", "listpack entry 0xf9", "listpack entry 0xfe"],
    "listpack-overrun": [
        "listpack entry beyond the end", "listpack entry far beyond the end", "listpack number beyond the end",
        "listpack entry ends where the listpack does",
    ],
    "listpack-backlen": [
        "backlen too small", "backlen too large", "backlen zero", "backlen wider than needed", "long backlen wrong",
        "long backlen wider than needed", "long backlen with a missing bit", "backlen of 16383 in two bytes",
    ],
    "listpack-count": ["listpack counts too few", "listpack counts too many", "listpack of fields counts wrong"],
    "pairs": [
        "odd listpack of a hash", "odd listpack of a zset", "odd ziplist of a hash", "odd ziplist of a zset",
        "zipmap field without value", "triples with one too many", "triples with two too many",
    ],
    "element-twice": [
        "field twice", "field twice, as number and text", "member twice in a set", "member twice in a set, as number and text",
        "member twice in a zset", "field twice in a ziplist", "member twice in a ziplist", "field twice in a zipmap",
        "member twice", "member twice, as number and text", "field twice in a table", "member of a zset twice",
        "member of an old zset twice",
        "field twice, 7.4 RC", "field twice with expiry", "field of a triple twice", "field of a triple twice, 7.4 RC",
        "array index twice", "field twice, Valkey", "field twice, Dragonfly", "member twice, Dragonfly",
    ],
    "score": [
        "score is no number", "score is empty", "score with a tail", "score is not a number", "score with a separator",
        "score of a ziplist is no number", "score of a ziplist is not a number", "score NaN", "old score NaN",
        "old score NaN as text", "old score is no number", "old score of no bytes",
    ],
    "ziplist-size": ["ziplist of ten bytes", "ziplist says it is longer", "ziplist says it is shorter", "node is no ziplist"],
    "ziplist-end": ["ziplist ends with another byte"],
    "ziplist-tail": ["ziplist's tail beyond its end", "ziplist's tail is not the last entry", "ziplist's tail in its head"],
    # an end mark before the last byte stands where an entry says what is before it
    "ziplist-prevlen": ["ziplist ends early", "first prevlen not zero", "prevlen wrong", "long prevlen wrong", "prevlen 255"],
    # in the last, the end mark stands where an entry says how it is encoded
    "ziplist-entry": [
        "ziplist entry 0xc1", "ziplist entry 0xd7", "ziplist entry 0xe2", "ziplist entry 0xef", "ziplist entry 0xff",
        "ziplist entry 0x81", "ziplist ends in a head",
    ],
    "ziplist-overrun": ["ziplist entry beyond the end", "ziplist entry far beyond the end", "ziplist number beyond the end"],
    "ziplist-count": ["ziplist counts too few", "ziplist counts too many"],
    "intset-size": ["intset of seven bytes", "intset says it has more", "intset says it has fewer"],
    "intset-width": ["intset of width 1", "intset of width 3", "intset of width 16", "intset of width 0"],
    "intset-order": ["intset descends", "intset repeats", "intset ascends as unsigned only"],
    "empty": ["intset of no numbers", "array of none"],
    "zipmap-end": ["zipmap of no bytes", "zipmap of one byte", "zipmap without end mark", "zipmap ends early"],
    "zipmap-overrun": [
        "zipmap field beyond the end", "zipmap value beyond the end", "zipmap value far beyond the end",
        "zipmap's free bytes beyond the end",
    ],
    "zipmap-count": ["zipmap counts too many", "zipmap counts too few"],
    "quicklist-container": ["container 3", "container 0"],
    "string-lzf": [
        "LZF gives less", "LZF gives more", "LZF points before its beginning", "LZF ends in an instruction",
        "LZF element gives less", "LZF of a listpack gives less",
    ],
    "field-expiry": [
        "least expiry over 2^48", "expiry over 2^48 - 1", "expiry is no number", "expiry below zero",
        "listpack expiry over 2^48 - 1", "expiry below -1", "expiry is no number, Dragonfly",
    ],
    "field-expiry-order": ["expiries descend", "expiry behind none"],
    "array-tag": ["array with flag 2", "array with tag 4"],
    "array-index": ["array index 2^64 - 1"],
    "array-short": ["short string of eight bytes"],
    "module-opcode": ["module opcode 6"],
    "stream-node-key": ["node key of 15 bytes", "node key of 17 bytes"],
    "stream-node-order": ["node key twice"],
    # what is no number where one has to be leaves open what was to be read
    "stream-node": [
        "empty node", "master entry cut", "master entry counts in text", "master entry counts below zero",
        "master entry with fewer names than it says", "master entry with a huge number of names", "master entry without its zero",
        "entry counts in text", "entry flags in text", "entry flags in text that is no canonical number", "entry id in text",
    ],
    "stream-node-count": [
        "node counts more entries than it has", "node counts fewer entries than it has",
        "node counts a deleted entry that it does not have", "node counts a live entry as deleted",
    ],
    "stream-entry": [
        "entry counts too many elements", "entry counts too few elements", "entry cut", "entry with a huge number of fields",
        "entry with fewer than no fields",
    ],
    "stream-length": ["length is not that of the nodes"],
    "stream-no-node": ["length without nodes"],
    "group-twice": ["group twice"],
    "consumer-twice": ["consumer twice"],
    "pending-twice": ["pending id twice"],
    "pending-unknown": ["consumer owns what is not pending"],
    "pending-two-owners": ["two consumers own one entry", "one consumer owns an entry twice"],
    "pending-unowned": ["nobody owns a pending entry", "nobody owns a pending entry, 8.8"],
    "nacked": ["given back, but not pending", "given back twice", "given back, but owned"],
    "dedup-range": [
        "dedup of no seconds", "dedup of more than a day", "dedup of no entries", "dedup of too many entries",
    ],
    "producer-twice": ["producer twice"],
    "template": [
        "template that the file does not have", "template in a listpack that the file does not have",
        "template in a listpack is no number", "template in an empty listpack", "fewer values than the template has fields",
        "more values than the template has fields", "fewer values than fields", "more values than fields", "no fields",
        "no fields in a listpack", "fields do not ascend", "fields ascend by bytes, but not by length", "field names twice",
    ],
    "framing": ["fields in format 2"],
}  # fmt: skip
#: Of these the end is not known: what follows them is not looked at.
ENDLESS = {
    "container 3", "container 0", "array with flag 2", "array with tag 4", "module opcode 6",
    "template that the file does not have", "fields in format 2",
}  # fmt: skip

PLAIN = [(1, b"list"), (2, b"set"), (3, b"old zset"), (4, b"hash"), (5, b"zset"), (14, b"ziplists"), (18, b"quicklist")]
#: Values that break a rule in a way that `DAMAGED` has not.
MORE = [
    ("score-order", Damage("scores descend", 17, string(lp(b"a", 2, b"b", 1)))),
    ("score-order", Damage("scores descend in text", 17, string(lp(b"a", b"1.5", b"b", b"1.25")))),
    ("score-order", Damage("infinity in front", 17, string(lp(b"a", b"inf", b"b", 1)))),
    ("score-order", Damage("equal scores, members descend", 17, string(lp(b"b", 1, b"a", 1)))),
    ("score-order", Damage("zeros of both signs, members descend", 17, string(lp(b"b", 0, b"a", b"-0")))),
    ("score-order", Damage("equal scores, numbers not in order of their text", 17, string(lp(9, 1, 10, 1)))),
    ("score-order", Damage("scores descend at the end", 17, string(lp(b"a", 1, b"b", 2, b"c", 3, b"d", 2)))),
    ("score-order", Damage("scores of a ziplist descend", 12, string(zl(b"a", b"2", b"b", b"1")))),
    ("score-order", Damage("equal scores of a ziplist, members descend", 12, string(zl(b"b", b"1", b"a", b"1")))),
    *(("empty", Damage(f"empty {name.decode()}", kind, b"\0")) for kind, name in PLAIN),
    *(("empty", Damage(f"empty listpack of type {kind}", kind, string(lp()))) for kind in (16, 17, 20, 23)),
    *(("empty", Damage(f"empty ziplist of type {kind}", kind, string(zl()))) for kind in (10, 12, 13)),
    ("empty", Damage("empty zipmap", 9, string(b"\0\xff"))),
    ("empty", Damage("quicklist of empty listpacks", 18, counted(b"\2" + string(lp()), b"\2" + string(lp())))),
    ("empty", Damage("quicklist of empty ziplists", 14, counted(string(zl()), string(zl())))),
    ("empty", Damage("empty hash, 7.4 RC", 22, b"\0")),
    ("empty", Damage("empty hash with expiries", 24, bytes(8) + b"\0")),
    ("empty", Damage("empty triples", 25, bytes(8) + string(lp()))),
    ("empty", Damage("empty hash, Valkey", 22, b"\0", b"VALKEY080")),
    ("empty", Damage("empty hash, Dragonfly", 31, b"\0", b"REDIS0009")),
    ("empty", Damage("empty set, Dragonfly", 32, b"\0", b"REDIS0009")),
    ("quicklist-empty", Damage("plain node of no bytes", 18, counted(b"\1\0"))),
    ("stream-node-order", Damage("nodes descend", 21, stream_of(GOOD_NODE, stream_node(*ONE_ENTRY, at=(4, 1)), live=2))),
    ("stream-order", Damage("entries descend", 21, stream_of(
        stream_node(2, 0, 1, b"f", 0, 2, 1, 0, b"v", 4, 2, 0, 0, b"v", 4), live=2, last=(6, 1)
    ))),
    ("stream-order", Damage("entry twice", 21, stream_of(
        stream_node(2, 0, 1, b"f", 0, 2, 0, 0, b"v", 4, 2, 0, 0, b"v", 4), live=2
    ))),
    ("stream-order", Damage("entries descend from node to node", 21, stream_of(
        stream_node(1, 0, 1, b"f", 0, 2, 9, 0, b"v", 4), stream_node(*ONE_ENTRY, at=(6, 1)), live=2, last=(99, 1)
    ))),
    ("stream-node-live", Damage("node with a deleted entry alone", 21, stream_of(
        stream_node(0, 1, 1, b"f", 0, 3, 0, 0, b"v", 4), live=0
    ))),
    ("stream-added", Damage("fewer entries added than there are", 21, counted(GOOD_NODE) + bytes([1, 5, 1, 5, 1, 0, 0, 0, 0]))),
    ("stream-added", Damage("2^63 entries added", 21, counted(GOOD_NODE) + bytes([1, 5, 1, 5, 1, 0, 0]) + length(1 << 63) + b"\0")),
    ("group-read", Damage("group that has read more than there was", 21, stream_of(GOOD_NODE, groups=counted(
        string(b"g") + bytes([5, 1, 2, 0, 0])
    )))),
    ("zipmap-length", Damage("zipmap with a short length in five bytes", 9, string(b"\x01\xfe\x01\0\0\0f\x01\0v\xff"))),
    ("stream-last-id", Damage("last id before the last entry", 21, stream_of(GOOD_NODE, last=(5, 0)))),
    ("string-lzf", Damage("compressed score of a zset", 5, counted(b"\xc3" + length(4) + length(9) + b"\x08abc" + F64(1)))),
    ("string-lzf", Damage("long LZF ends in an instruction", 0, (
        b"\xc3" + length(202) + length(999) + (b"\x1f" + b"x" * 32) * 6 + b"\x08abc"
    ))),
    ("listpack-overrun", Damage("node of a stream overruns", 21, stream_of(
        string(struct.pack(">QQ", 5, 1)) + string(b"\x0a\0\0\0\1\0\xf4\1\1\xff")
    ))),
]  # fmt: skip
#: Values that look like such damage, and are none.
MORE_SOUND = [
    Damage("scores in order", 17, string(lp(b"x", b"-inf", b"m", b"-1.5", b"a", 0, b"b", b"-0", b"c", 1, b"d", b"1.0"))),
    Damage("numbers in order of their text", 17, string(lp(10, 1, 9, 1))),
    Damage("skip list from the highest down", 5, counted(string(b"b") + F64(2), string(b"a") + F64(1))),
    Damage(
        "old skip list from the highest down", 3, counted(string(b"b") + b"\xfe", string(b"a") + b"\x011", string(b"c") + b"\xff")
    ),
    Damage("empty string", 0, string(b"")),
    Damage("stream without entries", 21, stream_of(live=0)),
    Damage("empty node beside one that is not", 18, counted(b"\2" + string(lp()), b"\2" + string(lp(b"a")))),
    Damage("list with an element twice", 1, counted(string(b"a"), string(b"a"))),
    Damage("hash with a value twice", 4, length(2) + string(b"f") + string(b"v") + string(b"g") + string(b"v")),
    Damage("long prevlen where a short one would do", 10, string(ziplist_of([b"\x00\x01a", b"\xfe\x03\x00\x00\x00\x01b"]))),
]
CASES = [(rule, next(d for d in DAMAGED if d.rule == name)) for rule, names in RULES.items() for name in names] + MORE


def file_of(damage: Damage, *more: bytes) -> bytes:
    return rdb(damage.preamble, b"\xfe\x03", BEFORE, key(b"k", damage.type_code, damage.value), AFTER, *more, magic=damage.magic)


def found(report: Verification) -> list[tuple[Any, ...]]:
    """Every place that is named, by rule."""
    return [(v.rule.name, f.db, f.key, f.offset, f.size) for v in report.violations for f in v.samples]


def look(data: bytes, **options: Any) -> Verification:
    return verify(io.BytesIO(data), **({"deep": True} | options))


def broken(data: bytes, **options: Any) -> list[str]:
    return [violation.rule.name for violation in look(data, **options).violations]


# Files without damage


@pytest.mark.parametrize("block_size", BLOCKS)
@pytest.mark.parametrize("path", each_dump())
def test_what_servers_wrote_is_sound(path: Path, block_size: int | None) -> None:
    report = verify(path, deep=True, block_size=block_size)
    assert found(report) == []
    assert report.sound
    assert report.whole
    assert report.checksum in ("ok", "absent", "disabled")
    with rdbkit.open(path) as snapshot:
        assert report.keys == sum(1 for _ in snapshot)
        assert report.header == str(snapshot.header)
        assert report.size == snapshot.rdb_size
    shallow = verify(path, block_size=block_size)
    assert (shallow.sound, shallow.keys, shallow.deep) == (True, report.keys, False)


@pytest.mark.parametrize("block_size", [None, 16, 64])
@pytest.mark.parametrize("sound", [*SOUND, *MORE_SOUND], ids=lambda d: d.rule)
def test_what_breaks_no_rule_is_not_reported(sound: Damage, block_size: int | None) -> None:
    report = look(file_of(sound), block_size=block_size)
    assert found(report) == []
    assert (report.keys, report.whole, report.checksum) == (3, True, "ok")


# Damage


def test_the_table_has_all_damage_there_is() -> None:
    names = [name for names in RULES.values() for name in names]
    assert sorted(names) == sorted(damage.rule for damage in DAMAGED)
    assert {d.rule for d in DAMAGED} >= ENDLESS
    names = [damage.rule for _, damage in CASES]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("block_size", [None, 16, *rarely(64, 1000)])
@pytest.mark.parametrize(("rule", "damage"), CASES, ids=[d.rule for _, d in CASES])
def test_damage_is_found_by_its_rule(rule: str, damage: Damage, block_size: int | None) -> None:
    record = key(b"k", damage.type_code, damage.value)
    begin = len(rdb(damage.preamble, b"\xfe\x03", BEFORE, magic=damage.magic)) - 9
    report = look(file_of(damage), block_size=block_size)
    if damage.rule in ENDLESS:
        ((name, db, key_name, offset, size),) = found(report)
        assert (name, db, key_name, size) == (rule, 3, b"k", None)
        assert begin <= offset < begin + len(record)
        assert (report.keys, report.whole, report.checksum) == (1, False, "unknown")
        return
    assert found(report) == [(rule, 3, b"k", begin, len(record))]
    assert (report.keys, report.whole, report.checksum) == (3, True, "ok")
    assert report.violations[0].count == 1
    assert "\n" not in report.violations[0].samples[0].message


@pytest.mark.parametrize("damage", [d for _, d in CASES if d.rule not in ENDLESS], ids=lambda d: d.rule)
def test_values_are_not_looked_into_unless_asked(damage: Damage) -> None:
    assert look(file_of(damage), deep=False).sound


def test_every_damaged_key_is_counted_and_the_first_are_named() -> None:
    names = [b"k%d" % i for i in range(50)]
    data = rdb(*(key(name, 16, string(lp(b"f"))) + key(b"good" + name, 0, string(b"v")) for name in names), magic=b"REDIS0011")
    report = look(data)
    assert [(v.rule.name, v.count) for v in report.violations] == [("pairs", 50)]
    assert [f.key for f in report.violations[0].samples] == names[:3]
    assert [f.key for f in look(data, samples=100).violations[0].samples] == names
    assert look(data, samples=0).violations[0].samples == []
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        places = {record.key: (record.offset, record.size) for record in snapshot}
    for _, _, name, offset, size in found(look(data, samples=100)):
        assert places[name] == (offset, size)


def test_violations_stand_in_the_order_of_their_codes() -> None:
    parts = [
        key(b"%d" % i, d.type_code, d.value) for i, (_, d) in enumerate(CASES) if d.magic == b"REDIS0014" and d.rule not in ENDLESS
    ]
    report = look(rdb(*parts, magic=b"REDIS0014")[:-1] + b"x")
    codes = [violation.rule.code for violation in report.violations]
    assert codes == sorted(codes)
    assert sum(v.count for v in report.violations) == len(parts) + 1
    assert codes[0] == "RDB501"


# Names and functions


def test_keys_that_are_there_twice(tmp_path: Path) -> None:
    one, other = key(b"k", 0, string(b"1")), key(b"k", 1, counted(string(b"2")))
    long = key(b"n" * 100, 0, string(b"v" * 200))
    path = tmp_path / "dump.rdb"
    data = rdb(one, BEFORE, long, other, b"\xfe\x01", one, long, b"\xfe\x00", one, long)
    path.write_bytes(data)
    at = [i for i in range(len(data)) if data.startswith((one, other), i)]
    wanted = [("key-twice", 0, b"k", at[1], len(other)), ("key-twice", 0, b"k", at[3], len(one))]
    wanted.append(("key-twice", 0, b"n" * 100, at[3] + len(one), len(long)))
    for block_size in (None, 64):
        report = verify(path, deep=True, block_size=block_size)
        assert found(report) == wanted
        assert report.violations[0].samples[0].message == f"the key is there before, at byte {at[0]}"
        assert verify(path, block_size=block_size).sound
        with path.open("rb") as file:  # which is not read again
            assert found(verify(file, deep=True, block_size=block_size)) == [("key-twice", None, None, None, None)]
    path.write_bytes(rdb(one, long, b"\xfe\x01", one, long, b"\xfe\x02", other))
    assert verify(path, deep=True).sound
    assert look(path.read_bytes()).sound


def test_names_that_cannot_be_read(tmp_path: Path) -> None:
    """They are damage of their own, and no obstacle to the look for names that are there twice."""
    damaged = b"\0\xc3" + length(4) + length(9) + b"\x08abc" + string(b"v")
    good = b"\0\xc3" + length(4) + length(3) + b"\x02abc" + string(b"v")
    path = tmp_path / "dump.rdb"
    path.write_bytes(rdb(BEFORE, damaged, good, key(b"abc", 0, string(b"v"))))
    begin = 9 + len(BEFORE)
    wanted = [
        ("key-twice", 0, b"abc", begin + len(damaged) + len(good), 6 + 1),
        ("string-lzf", None, None, begin, len(damaged)),
    ]
    assert found(verify(path, deep=True)) == wanted
    assert found(verify(path, deep=True, block_size=64)) == wanted
    assert found(look(rdb(BEFORE, good))) == []


def library(source: bytes) -> bytes:
    return b"\xf5" + string(source)


HEADS = [
    b"", b"redis.call('x')\n", b"#!lua\ncode", b"lua name=x\ncode", b"#!lua name=x", b"#! lua name=x\ncode", b"#!name=x\ncode",
    b"#!lua name=\ncode", b"#!lua name=a-b\ncode", b"#!lua name=a name=b\ncode", b"#!lua name=a other=b\ncode",
    "#!lua name=ü\ncode".encode(),
]  # fmt: skip


@pytest.mark.parametrize("source", HEADS)
def test_functions_without_their_head(source: bytes) -> None:
    damaged = library(source)
    for parts, offset in (([aux(b"a", b"b"), damaged, AFTER], 14), ([AFTER, damaged], 9 + len(AFTER))):
        report = look(rdb(*parts, magic=b"REDIS0010"))
        assert found(report) == [("function-head", None, None, offset, len(damaged))]
        assert report.keys == 1


@pytest.mark.parametrize(
    "source",
    [b"#!lua name=x\n", b"#!lua name=My_lib9\r\ncode", b"#!lua  \tNAME=x \ncode", b'#!lua name="x"\ncode', b"#!js name=_\ncode"],
)
def test_functions_with_their_head(source: bytes) -> None:
    assert found(look(rdb(library(source), AFTER, library(b"#!lua name=other\n"), magic=b"REDIS0010"))) == []


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize("block_size", [None, 64])
def test_a_stretch_of_zeros_is_found_where_it_begins(deep: bool, block_size: int | None) -> None:
    records = [key(b"k%d" % i, 0, string(b"v" * 100)) for i in range(100)]
    data = bytearray(rdb(*records))
    at = data.index(records[50])
    data[at : at + 300] = bytes(300)  # a hundred keys with an empty name, which lead into a record
    report = look(bytes(data), deep=deep, block_size=block_size)
    (twice,) = [v for v in report.violations if v.rule.name == "key-twice"]
    assert twice.samples[0].offset == at + 3
    assert twice.samples[0].message.startswith("99 keys with an empty name")
    assert len(report.violations) == 2
    assert look(rdb(key(b"", 0, string(b"1")), b"\xfe\1", key(b"", 0, string(b"2"))), deep=deep).sound


@pytest.mark.parametrize("name", [b"", b"a b", b"x\nredis.call('FLUSHALL')", "\u00fc".encode(), b"\xff"])
def test_functions_of_a_release_candidate_have_a_name_that_can_be(name: bytes) -> None:
    early = b"\xf6" + string(name) + string(b"lua") + b"\0" + string(b"code")
    good = b"\xf6" + string(b"name_1") + string(b"LUA") + b"\0" + string(b"code")
    assert found(look(rdb(good, early, AFTER, magic=b"REDIS0010"))) == [("function-head", None, None, 9 + len(good), len(early))]


def test_a_type_that_the_version_does_not_have() -> None:
    data = (FIXTURES / "faults" / "type-newer-than-version.rdb").read_bytes()
    for deep in (False, True):
        for block_size in (None, 16):
            report = look(data, deep=deep, block_size=block_size)
            assert found(report) == [("type-version", 0, b"k", 331, 20)]
            assert report.violations[0].rule.code == "RDB500"
            assert report.whole
    newer = key(b"k", 16, string(lp(b"f", b"v")))
    assert found(look(rdb(newer, magic=b"REDIS0008"))) == [("type-version", 0, b"k", 9, len(newer))]
    assert look(rdb(newer, magic=b"REDIS0009")).sound  # as Dragonfly writes it


def test_functions_that_are_there_twice() -> None:
    one, same = library(b"#!lua name=lib\n1"), library(b"#!lua NAME=lib\n22")
    early = b"\xf6" + string(b"lib") + string(b"lua") + b"\0" + string(b"code")
    wanted = ("function-twice", None, None)
    assert found(look(rdb(one, same, AFTER, magic=b"REDIS0010"))) == [(*wanted, 9 + len(one), len(same))]
    assert found(look(rdb(one, AFTER, same, magic=b"REDIS0010"))) == [(*wanted, 9 + len(one) + len(AFTER), len(same))]
    assert found(look(rdb(AFTER, early, same, magic=b"REDIS0010"))) == [(*wanted, 9 + len(AFTER) + len(early), len(same))]
    capture = framed(rdb(one, same, AFTER, magic=b"REDIS0010"))
    assert found(look(capture)) == [(*wanted, 47 + 9 + len(one), len(same))]
    assert look(rdb(one, same, magic=b"REDIS0010"), deep=False).sound


def test_templates_of_hashes_whose_names_do_not_ascend() -> None:
    template = b"\xf2\x07" + counted(string(b"b"), string(b"a"))
    assert found(look(rdb(template, AFTER, magic=b"REDIS0015"))) == [("template", None, None, 9, len(template))]


# The frame of the file


def framed(data: bytes) -> bytes:
    """As a diskless capture has it."""
    return b"$EOF:" + b"m" * 40 + b"\r\n" + data + b"m" * 40


WHOLE = rdb(
    aux(b"redis-ver", b"7.0.0"), b"\xfe\x00\xfb\x03\x01", BEFORE, key(b"list", 1, counted(*[string(b"element")] * 5)),
    key(b"hash", 16, string(lp(b"f", b"v")), 1 << 42), AFTER, magic=b"REDIS0010",
)  # fmt: skip


@pytest.mark.parametrize("deep", [True, False])
def test_a_file_that_ends_anywhere(deep: bool) -> None:
    for size in range(9, len(WHOLE)):
        for block_size in (None, 16):
            report = look(WHOLE[:size], deep=deep, block_size=block_size)
            assert [v.rule.name for v in report.violations] == ["truncated"], size
            assert not report.whole
            assert report.checksum == "unknown"
            with rdbkit.open(io.BytesIO(WHOLE)) as snapshot:
                assert report.keys == sum(r.offset + (r.size or 0) <= size for r in snapshot)
            assert report.size <= size
            assert report.size >= size - 40, "as far as the last record"
    assert look(WHOLE).sound
    for size in range(9):
        with pytest.raises(rdbkit.TruncatedError):
            look(WHOLE[:size])


def test_a_capture() -> None:
    whole = framed(WHOLE)
    assert look(whole).sound
    assert look(whole + bytes(30)).sound
    for size in range(56, len(whole)):
        assert broken(whole[:size])[-1:] in (["truncated"], ["framing"]), size
    assert broken(whole[:-1] + b"x") == ["framing"]


@pytest.mark.parametrize(
    ("magic", "parts", "rule"),
    [
        (b"REDIS0009", b"\0\x01k\x82abc", "framing"),  # no length begins so
        (b"REDIS0009", b"\0\x01k\xc4abc", "framing"),  # no string either
        (b"REDIS0009", b"\xfe\x80\xff\xff\xff\xff", "framing"),  # a database that cannot be
        (b"REDIS0009", b"\x01\x01l\x80\0\xff\xff\xff\x01a", "framing"),  # more elements than bytes
        (b"REDIS0009", b"\xf7\x81" + b"m" * 8 + b"\x02\x07\0", "framing"),  # a module's data neither before nor behind the keys
        (b"REDIS0009", b"\x1d\x01k\x01v", "unknown-type"),
        (b"REDIS0009", b"\xc8", "unknown-type"),
        (b"VALKEY080", b"\x10\x01k\x01v", ""),
        (b"VALKEY080", b"\x18\x01k\x01v", "unknown-type"),  # of Redis
    ],
)
def test_a_frame_that_breaks(magic: bytes, parts: bytes, rule: str) -> None:
    for block_size in (None, 16):
        report = look(rdb(BEFORE, parts, AFTER, magic=magic), deep=False, block_size=block_size)
        if not rule:
            assert report.sound
            continue
        assert [v.rule.name for v in report.violations] == [rule]
        assert (report.keys, report.whole) == (1, False)
        (fault,) = report.violations[0].samples
        assert fault.offset is not None
        assert fault.offset >= 9 + len(BEFORE)


def test_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "dump.rdb"
    path.write_bytes(WHOLE[:-1] + bytes([WHOLE[-1] ^ 1]))
    for deep in (True, False):
        report = verify(path, deep=deep)
        assert found(report) == [("checksum", None, None, len(WHOLE) - 8, None)]
        assert (report.checksum, report.whole, report.keys, report.size) == ("mismatch", True, 4, len(WHOLE))
    changed = WHOLE.replace(b"after", b"aftex")
    assert broken(changed) == ["checksum"]
    disabled = look(changed[:-8] + bytes(8))
    assert (disabled.sound, disabled.checksum) == (True, "disabled")
    assert look(rdb(AFTER, magic=b"REDIS0004", crc=None)).checksum == "absent"


@pytest.mark.parametrize("behind", [b"x", b"\0\0x", bytes(5000) + b"x", b"REDIS0009", WHOLE])
def test_what_stands_behind(behind: bytes) -> None:
    report = look(WHOLE + behind)
    assert found(report) == [("behind", None, None, len(WHOLE), None)]
    assert (report.checksum, report.whole, report.keys) == ("ok", True, 4)
    snapshot = report.violations[0].samples[0].message.startswith("another snapshot")
    assert snapshot == behind.startswith(b"REDIS0")


@pytest.mark.parametrize("behind", [b"", bytes(1), bytes(5000), b"*1\r\n$4\r\nPING\r\n"])
def test_what_tools_put_behind(behind: bytes) -> None:
    assert look(WHOLE + behind).sound


def test_what_is_too_large_to_be_looked_at() -> None:
    name = key(b"n" * 300, 0, string(b"v"))
    small = rdbkit.Limits(item_bytes=100)
    assert found(look(rdb(BEFORE, name, AFTER), limits=small)) == [("limit", None, None, 9 + len(BEFORE), len(name))]
    assert look(rdb(BEFORE, name, AFTER), limits=small, deep=False).sound
    assert broken(rdb(BEFORE, name, AFTER), limits=small, block_size=64) == ["limit"]
    packed = string(lp(b"f", b"v" * 300))
    assert look(rdb(key(b"k", 16, packed), magic=b"REDIS0010"), limits=rdbkit.Limits(string_bytes=100)).sound
    compressed = b"\xc3" + length(4) + length(500) + b"\0a\xe0\xff"
    report = look(rdb(key(b"k", 1, counted(compressed)), AFTER), limits=rdbkit.Limits(string_bytes=100))
    assert [(v.rule.name, v.samples[0].key) for v in report.violations] == [("limit", b"k")]


def test_a_value_that_goes_on_behind_its_parts() -> None:
    """No bytes of a file are known to do this; what looks for it stays, in case that the two walks over a value disagree."""
    checker = ValueChecker(FileTypes("redis", 11, 1 << 20, "test"), frozenset())
    value = counted(string(b"a")) + b"x"
    checker.check(2, value, 0, 3)
    with pytest.raises(rdbkit.CorruptError) as caught:
        checker.check(2, value, 0, 4)
    checker.close()
    assert caught.value.rule == "value-end"


# The rules


def test_every_rule_has_a_case() -> None:
    """Those that no case of `CASES` breaks have a test of their own above."""
    by_test = {
        "checksum", "truncated", "framing", "unknown-type", "behind", "limit", "key-twice", "function-head", "function-twice",
        "type-version", "value-end",
    }  # fmt: skip
    produced = {rule for rule, _ in CASES} - {"framing"}
    assert not produced & by_test
    assert produced | by_test == set(rules())


def test_rules_that_the_code_names_are_there() -> None:
    named = set()
    for path in [path for room in ("format", "passes", "operations") for path in (ROOM / room).glob("*.py")]:
        text = path.read_text()
        for rule in re.findall(r'rule=f?"([^"]+)"|doubt\(.*, "([^"]+)"\)|^[A-Z]+: Final = "([a-z]+-[a-z]+|empty)"', text, re.M):
            rule = "".join(rule)
            if "{what}" in rule:
                named |= {rule.format(what=what) for what in ("listpack", "ziplist")}
            else:
                named.add(rule)
    # these are told by the class of the error
    assert named | {"checksum", "truncated", "framing", "unknown-type", "limit"} == set(rules())


def test_rules_are_told_apart() -> None:
    table = rules()
    codes = [rule.code for rule in table.values()]
    assert len(set(codes)) == len(codes)
    assert codes == sorted(codes)
    assert all(re.fullmatch(r"RDB5\d\d", code) for code in codes)
    for name, rule in table.items():
        assert rule.name == name
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)
        assert rule.text
        assert not rule.text.endswith(".")
        assert rule.source
    assert not set(codes) & {kind.code for kind in loss_kinds().values()}


# Large values


@pytest.mark.parametrize("block_size", [None, 1 << 16])
def test_elements_of_a_set_larger_than_what_is_held(block_size: int | None) -> None:
    members = [string(b"member:%d" % i) for i in range(200_000)]
    sound = rdb(key(b"s", 2, length(len(members)) + b"".join(members)), AFTER)
    assert found(look(sound, block_size=block_size)) == []
    members[190_000] = members[100]
    value = length(len(members)) + b"".join(members)
    report = look(rdb(key(b"s", 2, value), AFTER), block_size=block_size)
    assert found(report) == [("element-twice", 0, b"s", 9, len(value) + 3)]
    assert report.violations[0].samples[0].message == "1 or more of its elements come twice"


def test_few_elements_of_many_bytes() -> None:
    rng = random.Random(1)
    fields = [rng.randbytes(1 << 20) for _ in range(10)]
    for repeated in (False, True):
        if repeated:
            fields[9] = fields[0]
        value = length(10) + b"".join(string(field) + string(b"v") for field in fields)
        assert broken(rdb(key(b"h", 4, value), AFTER), block_size=1 << 18) == (["element-twice"] if repeated else [])


def test_a_small_value_behind_a_large_one() -> None:
    """What is remembered of one value is forgotten at the next."""
    members = b"".join(string(b"m%d" % i) for i in range(140_000))
    small = key(b"t", 2, counted(string(b"m1"), string(b"m2")))
    twice = key(b"u", 2, counted(string(b"m1"), string(b"m1")))
    report = look(rdb(key(b"s", 2, length(140_000) + members), small, twice, small.replace(b"\x01t", b"\x01v")))
    assert [f.key for f in report.violations[0].samples] == [b"u"]
    assert report.violations[0].count == 1


def test_records_larger_than_a_block() -> None:
    rng = random.Random(2)
    parts: list[bytes] = []
    for number, (_, damage) in enumerate(CASES):
        if damage.magic == b"REDIS0014" and damage.rule not in ENDLESS:
            parts.append(key(b"%d" % number, damage.type_code, damage.value))
            parts.append(key(b"good %d" % number, 1, length(30) + string(rng.randbytes(9)) * 30))
    rng.shuffle(parts)
    data = rdb(*parts, magic=b"REDIS0014")
    whole = look(data, samples=1000)
    assert sum(v.count for v in whole.violations) == len(parts) // 2
    for block_size in (16, 64, 300):
        pieces = look(data, samples=1000, block_size=block_size)
        assert found(pieces) == found(whole)
        assert (pieces.keys, pieces.size, pieces.whole) == (len(parts), len(data), True)


@pytest.mark.parametrize("step", [1, 7, 1000])
def test_a_source_that_gives_few_bytes_at_a_time(step: int) -> None:
    data = rdb(BEFORE, key(b"k", 16, string(lp(b"f"))), AFTER, magic=b"REDIS0011")
    source: Any = Dribble(data, step)
    report = verify(source, deep=True)
    assert found(report) == found(look(data))
    assert report.keys == 3


# Any bytes


FLIPS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=4)
SMALL = [path for path in DUMPS if path.parent.name == "rich"]


@settings(max_examples=150)
@given(st.sampled_from(SMALL), FLIPS, st.sampled_from([None, 64, 4096]))
def test_changed_bytes_raise_nothing_else(path: Path, flips: list[tuple[float, int]], block_size: int | None) -> None:
    data = bytearray(path.read_bytes())
    for where, bits in flips:
        data[int(where * len(data))] ^= bits
    try:
        report = look(bytes(data), block_size=block_size)
    except rdbkit.RdbError:
        assert bytes(data[:9]) != path.read_bytes()[:9], "only the header can make a file no snapshot"
        return
    if bytes(data) != path.read_bytes() and report.checksum in ("ok", "mismatch"):
        assert not report.sound
    json.dumps(report.to_dict())


@settings(max_examples=100)
@given(st.binary(max_size=300), st.sampled_from([b"REDIS0003", b"REDIS0009", b"REDIS0011", b"REDIS0015", b"VALKEY080"]))
def test_any_bytes_behind_a_header(body: bytes, magic: bytes) -> None:
    report = look(magic + body)
    other = look(magic + body, block_size=16)
    assert [v.rule.name for v in report.violations] == [v.rule.name for v in other.violations] or not report.whole
    assert report.whole == other.whole


# The command


def run(*args: str | Path, data: bytes = b"") -> subprocess.CompletedProcess[str]:
    return command_line.run_text("verify", *args, data=data)


RICH = FIXTURES / "rich" / "redis-7.0.15.rdb"


def test_the_command(tmp_path: Path) -> None:
    made = run(RICH)
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.startswith(f"{RICH} is sound\n  format     REDIS0010\n  looked at  framing and checksum; --deep looks")
    assert "  keys       27\n" in made.stdout
    made = run(RICH, "--deep")
    assert (made.returncode, made.stderr) == (0, "")
    assert "framing, checksum, and every value" in made.stdout

    path = tmp_path / "damaged.rdb"
    path.write_bytes(rdb(BEFORE, key(b"\x1b[31mk\n", 16, string(lp(b"f"))), AFTER, magic=b"REDIS0011"))
    made = run(path, "--deep")
    assert (made.returncode, made.stderr) == (1, "")
    assert made.stdout.startswith(f"{path}: 1 rule of the format broken\n")
    assert "  RDB515  pairs       1  each field has its value, and each member its score\n" in made.stdout
    assert "\x1b" not in made.stdout
    offset = 9 + len(BEFORE)
    assert f"(db 0) at byte {offset}: 1 strings, where each field or member has one beside it\n" in made.stdout
    assert run(path).returncode == 0
    assert "at byte" not in run(path, "--deep", "--samples", "0").stdout


def test_several_files_as_json(tmp_path: Path) -> None:
    path = tmp_path / "damaged\udcff.rdb"
    path.write_bytes(rdb(BEFORE, key(b"\xff", 16, string(lp(b"f"))), AFTER, magic=b"REDIS0011"))
    made = run(RICH, path, "--deep", "--json")
    assert (made.returncode, made.stderr) == (1, "")
    sound, damaged = json.loads(made.stdout)["files"]
    assert sound == {
        "file": str(RICH), "header": "REDIS0010", "deep": True, "keys": 27, "size": RICH.stat().st_size, "whole": True,
        "checksum": "ok", "sound": True, "findings": [], "notes": [],
    }  # fmt: skip
    assert damaged["file"].endswith("damaged\\xff.rdb")
    assert not damaged["sound"]
    rule = rules()["pairs"]
    assert damaged["findings"] == [
        {
            "code": "RDB515", "rule": "pairs", "text": rule.text, "source": rule.source, "count": 1,
            "samples": [{"message": "1 strings, where each field or member has one beside it", "db": 0, "key": {"base64": "/w=="},
                         "offset": 9 + len(BEFORE), "size": len(key(b"k", 16, string(lp(b"f"))))}],
        }
    ]  # fmt: skip


def test_inputs_that_are_no_files(tmp_path: Path) -> None:
    whole = RICH.read_bytes()
    made = run("-", "--deep", data=whole)
    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.startswith("<stdin> is sound\n")
    made = run("-", data=whole[:-20])
    assert made.returncode == 1
    assert "up to byte" in made.stdout
    assert "truncated" in made.stdout
    twice = rdb(BEFORE, BEFORE)
    made = run("-", "--deep", data=twice)
    assert made.returncode == 1
    assert "a file, which can be read again, tells for certain" in made.stdout


def test_gzip(tmp_path: Path) -> None:
    path = tmp_path / "dump.rdb.gz"
    path.write_bytes(gzip.compress(RICH.read_bytes()))
    assert run(path, "--deep").returncode == 0
    twice = tmp_path / "twice.rdb.gz"
    twice.write_bytes(gzip.compress(rdb(BEFORE, AFTER, BEFORE)))
    assert found(verify(twice, deep=True)) == [("key-twice", 0, b"before", 9 + len(BEFORE) + len(AFTER), len(BEFORE))]
    values = random.Random(3)
    large = gzip.compress(rdb(*(key(b"k%d" % i, 0, string(values.randbytes(100_000))) for i in range(60))), 1)
    path.write_bytes(large[: len(large) // 2])
    report = verify(path, deep=True)
    assert [v.rule.name for v in report.violations] == ["truncated"]
    assert 10 < report.keys < 40
    assert run(path).returncode == 1


def test_gzip_that_is_cut_or_damaged(tmp_path: Path) -> None:
    packed = gzip.compress(RICH.read_bytes())
    cut, damaged = tmp_path / "cut.rdb.gz", tmp_path / "damaged.rdb.gz"
    cut.write_bytes(packed[: len(packed) // 2])
    damaged.write_bytes(packed[:-6] + bytes([packed[-6] ^ 1]) + packed[-5:])
    for path, rule, words in ((cut, "truncated", "the gzip data ends too early"), (damaged, "framing", "the gzip data is damaged")):
        made = run(path, "--json")
        assert made.returncode == 1, made.stderr
        (report,) = json.loads(made.stdout)["files"]
        (finding,) = report["findings"]
        assert finding["rule"] == rule
        assert words in finding["samples"][0]["message"]
        assert report["keys"] > 0


def test_inputs_that_are_no_snapshots(tmp_path: Path) -> None:
    empty, other, newer = tmp_path / "empty.rdb", tmp_path / "other.rdb", tmp_path / "newer.rdb"
    empty.write_bytes(b"")
    other.write_bytes(b"hello, world\n")
    newer.write_bytes(rdb(magic=b"REDIS0099"))
    cut = tmp_path / "cut.rdb.gz"
    cut.write_bytes(gzip.compress(RICH.read_bytes())[:15])
    for path in (empty, other, newer, cut, tmp_path, tmp_path / "missing.rdb"):
        made = run(path, "--deep", "--json")
        assert (made.returncode, made.stdout) == (3, ""), path
        assert made.stderr.count("\n") == 1
        assert made.stderr.startswith("rdbkit: ")
    assert run(newer, "--relaxed").returncode == 0
    assert run().returncode == 2


def test_a_name_without_a_letter_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "damaged.rdb"
    path.write_bytes(rdb(key(b"", 16, string(lp(b"f", b"v")[:-1] + b"\0")), magic=b"REDIS0010"))
    assert "  key     '' (db 0) at byte 9: " in run(path, "--deep").stdout

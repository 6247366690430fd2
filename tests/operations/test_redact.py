"""`rdbkit redact`: the structure stays to the last form of a number, names and values do not."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import subprocess
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rdbkit
from rdbkit.format.encode import integer_form
from rdbkit.format.listpack import encode_listpack
from rdbkit.format.lzf import lzf_compress, lzf_decompress
from rdbkit.operations.redact import redact
from rdbkit.passes.scramble import Scrambler, behind_leads, hashed, literals

from .. import command_line
from ..encoders import ENCODERS, NOT_NUMBERS, NUMBERS, Encoder, intset, listpack, ziplist, ziplist_body
from ..rdb import FIXTURES, aux, each_dump, key, length, one_in, rarely, rdb, string
from .test_convert_hostile import damaged

SECRET = b"not to be told"
#: Kinds whose keys are left out.
LEFT_OUT = ("cron", "json")


def done(data: bytes | Path, **options: Any) -> tuple[bytes, rdbkit.Redaction]:
    out = io.BytesIO()
    source = io.BytesIO(data) if isinstance(data, bytes) else data
    report = redact(source, out, secret=options.pop("secret", SECRET), **options)
    return out.getvalue(), report


def records(data: bytes | Path) -> list[rdbkit.Record]:
    with rdbkit.open(io.BytesIO(data) if isinstance(data, bytes) else data) as snapshot:
        return list(snapshot)


CLASSES = [
    b"0123456789", b"abcdefghijklmnopqrstuvwxyz", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ", bytes(range(0x80, 0xC0)), bytes(range(0xC2, 0xE0)),
    bytes(b for b in range(0xE1, 0xF0) if b != 0xED), b"\xf1\xf2\xf3", bytes([0xC0, 0xC1, *range(0xF5, 256)]),
    bytes(b for b in [*range(32), 127] if b not in b"\t\n\r"),
]  # fmt: skip


def _frame() -> bytes:
    """Each byte as the first of its class."""
    frame = bytearray(range(256))
    for members in CLASSES:
        for byte in members:
            frame[byte] = members[0]
    return bytes(frame)


FRAME = _frame()


def pattern(data: bytes) -> bytes:
    """The class of each byte; those that stay are their own."""
    return data.translate(FRAME)


def lp_form(n: int) -> int:
    return encode_listpack([n])[6]


def zl_form(n: int) -> int:
    first = ziplist_body(b"%d" % n, Random(0))[0]
    return 0xF1 if 0xF1 <= first <= 0xFD else first


def forms(data: bytes) -> Any:
    """What servers make of a string: the RDB's form, a listpack's, a ziplist's, an intset's; its sign, digits and bytes."""
    found = encode_listpack([data])[6]
    if 0x80 <= found < 0xC0 or 0xE0 <= found <= 0xF0:
        return "text"
    n = int(data)
    lp = "u7" if found < 0x80 else "i13" if found < 0xE0 else found
    short = integer_form(data)
    # of a ziplist: immediate, 8, 16, 24, 32 or 64 bits
    zl = 0 if 0 <= n <= 12 else next(bits for bits in (8, 16, 24, 32, 64) if -(1 << bits - 1) <= n < 1 << bits - 1)
    return n < 0, None if short is None else short[0], lp, zl


# -- the scrambler

EDGES = [0, 9, 10, 12, 13, 99, 100, 127, 128, 999, 1000, 4095, 4096, 9999, 10000, 32767, 32768, 99999, 8388607, 8388608]
EDGES += [2147483647, 2147483648, 10**18 - 1, 10**18, (1 << 63) - 1]
INTEGERS = st.one_of(
    st.sampled_from([sign * n + d for n in EDGES for sign in (1, -1) for d in (-1, 0, 1) if -(1 << 63) <= sign * n + d < 1 << 63]),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.integers(-20000, 20000),
)
DIGITS = st.from_regex(rb"\A-?[0-9]{1,21}\Z")
TEXTS = st.one_of(
    st.binary(max_size=12),
    st.text(max_size=40).map(str.encode),
    st.sampled_from(NUMBERS + NOT_NUMBERS),
    DIGITS,
    st.binary(min_size=100, max_size=400),
)
SCRAMBLER = Scrambler(SECRET)


def is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@settings(max_examples=600)
@given(TEXTS)
def test_form_stays(data: bytes) -> None:
    for new in (SCRAMBLER.text(data), SCRAMBLER.name(data)):
        assert len(new) == len(data)
        assert pattern(new) == pattern(data)
        assert forms(new) == forms(data)
        assert not is_utf8(data) or is_utf8(new)
        assert (new[:1] == b"0") == (data[:1] == b"0") or len(data) == 1 or not data.isdigit() or len(data) > 19
    assert SCRAMBLER.text(data) == Scrambler(SECRET).text(data)


@settings(max_examples=300)
@given(INTEGERS)
def test_a_number_is_what_its_text_is(n: int) -> None:
    new = SCRAMBLER.integer(n)
    assert SCRAMBLER.text(b"%d" % n) == b"%d" % new
    assert forms(b"%d" % n) == forms(b"%d" % new)
    assert (lp_form(n) & 0xE0 if 0xC0 <= lp_form(n) < 0xE0 else 0) == (lp_form(new) & 0xE0 if 0xC0 <= lp_form(new) < 0xE0 else 0)
    assert zl_form(n) == zl_form(new)


@pytest.mark.parametrize("low", [-40000, -1500, -200, 0, 4000, 9990, 32700, 99990])
def test_numbers_do_not_meet(low: int) -> None:
    numbers = range(low, low + 1200)
    found = {SCRAMBLER.integer(n) for n in numbers}
    assert len(found) == len(numbers)


def test_all_numbers_of_a_range_become_that_range() -> None:
    for low, stop in ((0, 10), (10, 13), (13, 100), (128, 1000), (-128, -99), (-4096, -999), (10000, 32768), (-9999, -4096)):
        assert {SCRAMBLER.integer(n) for n in range(low, stop)} == set(range(low, stop))
    # one that is too large for a table
    assert {SCRAMBLER.integer(n) for n in range(32768, 100000)} == set(range(32768, 100000))


@pytest.mark.parametrize("shape", [b"%c", b"%c-", b"0%c%c", b"-0%c", b" %c%c", b"%c.%c", b"\xe0%c%c"])
@pytest.mark.parametrize("what", ["text", "name"])
def test_all_strings_of_a_shape_become_all_of_that_shape(shape: bytes, what: str) -> None:
    places = shape.count(b"%c")
    for members in (CLASSES[0], CLASSES[1], CLASSES[3])[: 1 if b"0" in shape else 3]:
        strings = {shape % row for row in ([(a,) for a in members] if places == 1 else [(a, b) for a in members for b in members])}
        assert {getattr(SCRAMBLER, what)(s) for s in strings} == strings


@settings(max_examples=200)
@given(st.lists(TEXTS, min_size=2, max_size=60, unique=True))
def test_strings_do_not_meet(strings: list[bytes]) -> None:
    assert len(set(map(SCRAMBLER.text, strings))) == len(strings)
    assert len(set(map(SCRAMBLER.name, strings))) == len(strings)


def back(data: bytes, by: bytes) -> bytes:
    """Bytes moved back in their classes."""
    found = bytearray()
    for byte, k in zip(data, by, strict=False):
        members = next(members for members in CLASSES if byte in members)
        found.append(members[(members.index(byte) - k) % len(members)])
    return bytes(found)


@settings(max_examples=200)
@given(
    st.lists(st.sampled_from(b"".join(CLASSES[:4])), min_size=2, max_size=20).map(bytes), st.sampled_from([b"", b":", b" " * 70])
)
def test_what_becomes_of_a_string_can_be_undone(data: bytes, rest: bytes) -> None:
    new = SCRAMBLER.mix(data, data + rest)
    half = len(data) // 2
    left, right = new[:half], new[half:]
    state = SCRAMBLER.state(pattern(data + rest))
    for number in (3, 1):
        right = back(right, hashed(state, left, number, len(data) > 16))
        left = back(left, hashed(state, right, number - 1, len(data) > 16))
    assert left + right == data


@settings(max_examples=400)
@given(TEXTS)
def test_the_quick_way_gives_the_same(data: bytes) -> None:
    assert SCRAMBLER.quick(data) == SCRAMBLER.piece(data, 0)


def test_both_forms_give_the_same() -> None:
    scrambler = Scrambler(b"a secret")
    strings = [
        b"item:020657",
        b"20657-0123456789abcdef",
        b"Grep -\0\x01 6789 bc",
        b"seventeen letters",
        b"123456",
        b"-98765432101234",
    ]
    strings += ["Stra\u00dfe \u5b57".encode(), b"x" * 65, b"007", b"y", b"a" * 40]
    assert (
        sha256(b"".join(map(scrambler.text, strings))).hexdigest()
        == "4231ec9bc486c2b2c9dab309dce6dbe75e1cd38875cf56d63223c30c9206202e"
    )


def test_names_that_look_like_numbers_do_not_meet() -> None:
    names = [b"%d" % n for n in range(-130, 130)] + [b"-0", b"00", b"-00", b"-01", b"01", b"--1", b"1-", b"-1-", b"+1"]
    found = list(map(SCRAMBLER.name, names))
    assert len(set(found)) == len(names)
    assert [forms(n) for n in found] == [forms(n) for n in names]


def test_equal_parts_of_names_stay_equal() -> None:
    name = SCRAMBLER.name
    assert name(b"user:1:cart").split(b":")[::2] == name(b"user:2:cart").split(b":")[::2]
    assert name(b"{user/1}.a").partition(b"}")[0] == name(b"{user/1}.bc").partition(b"}")[0]
    assert name(b"a:b") == name(b"a") + b":" + name(b"b")
    assert SCRAMBLER.text(b"ab cd") != SCRAMBLER.text(b"ab") + b" " + SCRAMBLER.text(b"cd")  # values are scrambled whole


def test_long_strings_go_in_pieces() -> None:
    rng = Random(1)
    data = ("käse 字 😀 " * 20_000).encode() + rng.randbytes(70_000)
    new = SCRAMBLER.text(data)
    assert pattern(new[:300]) == pattern(data[:300])
    assert len(new) == len(data)
    assert is_utf8(new[:-70_000]) == is_utf8(data[:-70_000])
    other = bytearray(data)
    other[100_000] = b"b"[0] if other[100_000] == b"a"[0] else b"a"[0]
    assert SCRAMBLER.text(bytes(other))[: 1 << 16] == new[: 1 << 16]


def test_other_secrets_give_others() -> None:
    for data in (b"hello", b"123456", b"user:1000", b"x" * 500):
        assert len({Scrambler(secret).text(data) for secret in (b"a", b"b", b"a" * 100, b"a" * 101)}) == 4
    with pytest.raises(ValueError, match="is none"):
        Scrambler(b"")


@settings(max_examples=200)
@given(st.lists(st.sampled_from([b"abc", b"\xe0\xa4\xa4", b"user:", b"\xf0\x9f\x98\x80", b"1234", b"\xed\x9f\xbf"]), max_size=60))
def test_inside_of_lzf(parts: list[bytes]) -> None:
    data = b"".join(parts)
    packed = lzf_compress(data)
    if not packed:
        return
    new = SCRAMBLER.lzf(packed, data, 0)
    assert len(new) == len(packed)
    places = set(literals(packed))
    assert all(a == b for at, (a, b) in enumerate(zip(packed, new, strict=True)) if at not in places)
    whole = lzf_decompress(new, len(data))
    assert pattern(whole) == pattern(data)
    assert is_utf8(whole)
    assert len(behind_leads(packed, data)) == len(places)
    assert SCRAMBLER.lzf(packed, data, len(places) + 1) == b""


# -- values

#: Versions without a checksum.
OLD = {b"REDIS0001": None, b"REDIS0002": None, b"REDIS0003": None, b"REDIS0004": None}
#: What an LZF string becomes has another form of its own: it is scrambled inside, or whole.
SHORT = 20


def leaves(value: Any) -> Iterator[bytes]:
    """All strings of a value, in their order."""
    if isinstance(value, bytes):
        yield value
    elif isinstance(value, rdbkit.Array):
        yield from (element for element in value.values() if isinstance(element, bytes))
    elif isinstance(value, dict):
        for name, content in value.items():
            yield name
            yield from leaves(content)
    elif isinstance(value, list | tuple):
        for element in value:
            yield from leaves(element)
    elif isinstance(value, rdbkit.Stream):
        yield from leaves([entry.fields for entry in value.entries])
        for group in value.groups:
            yield group.name
            yield from leaves([consumer.name for consumer in group.consumers])
        yield from leaves(value.dedup.producers if value.dedup else [])


def shape(value: Any) -> Any:
    """What stays of a value."""
    if isinstance(value, rdbkit.Stream):
        return (
            [(e.id, len(e.fields)) for e in value.entries], value.length, value.last_id, value.first_id, value.max_deleted_id,
            value.entries_added,
            [
                (g.last_id, g.entries_read, g.nacked, [(c.seen_ms, c.active_ms) for c in g.consumers],
                 [(p.id, p.consumer is None, p.delivery_ms, p.delivery_count) for p in g.pending])
                for g in value.groups
            ],
            value.dedup and (value.dedup.duration_s, value.dedup.max_entries, value.dedup.added, value.dedup.duplicates,
                             [[i for _, i in ids] for _, ids in value.dedup.producers]),
        )  # fmt: skip
    if isinstance(value, rdbkit.Array):
        return value.insert_index, [(i, v if isinstance(v, float) else type(v)) for i, v in value.items()]
    if isinstance(value, rdbkit.Hash):
        return len(value), sorted(value.field_expire_ms.values())
    if isinstance(value, rdbkit.Set):
        return len(value), sorted(value.member_expire_ms.values())
    if isinstance(value, dict):
        return sorted(map(repr, value.values())) if value and isinstance(next(iter(value.values())), float) else len(value)
    return len(value) if isinstance(value, list | bytes) else value


def assert_scrambled(old: rdbkit.Record, new: rdbkit.Record) -> None:
    before, after = old.value, new.value
    assert shape(after) == shape(before)
    if isinstance(before, set):
        ones, others = sorted(before, key=len), sorted(after, key=len)
        assert sorted(SCRAMBLER.text(m) for m in ones if len(m) <= SHORT) == sorted(m for m in others if len(m) <= SHORT)
        assert sorted(map(pattern, ones)) == sorted(map(pattern, others))
        return
    if old.type == "zset":
        assert {SCRAMBLER.text(m): repr(s) for m, s in before.items() if len(m) <= SHORT} == {
            m: repr(s) for m, s in after.items() if len(m) <= SHORT
        }
        assert sorted(map(pattern, before)) == sorted(map(pattern, after))
        if old.rdb_type in (12, 17):
            assert list(after.items()) == sorted(after.items(), key=lambda item: (item[1], item[0]))
        return
    for one, other in zip(leaves(before), leaves(after), strict=True):
        assert pattern(other) == pattern(one)
        if len(one) <= SHORT:
            assert other == SCRAMBLER.text(one)
    if isinstance(before, rdbkit.Array):
        assert [SCRAMBLER.integer(n) for n in before.values() if isinstance(n, int)] == [
            n for n in after.values() if isinstance(n, int)
        ]


@pytest.mark.one_in(4)
@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: e.name)
@settings(max_examples=10)
@given(data=st.data(), seed=st.integers(0, 1 << 32), block_size=st.sampled_from([16, 64, 300, 4000]))
def test_every_type(encoder: Encoder, data: st.DataObject, seed: int, block_size: int) -> None:
    rng = Random(seed)
    value = data.draw(encoder.values)
    name = b"user:1000" if seed & 1 else b"%d" % seed
    record = key(name, encoder.type_code, encoder.encode(value, rng), None if seed & 2 else 1 << 50)
    file = rdb(
        encoder.preamble(value, rng),
        b"\xfe\0",
        record,
        key(b"next", 0, string(b"one")),
        magic=encoder.magic,
        crc=OLD.get(encoder.magic, True),
    )
    whole, report = done(file, keep_modules=True)
    assert done(file, keep_modules=True, block_size=block_size)[0] == whole
    old, new = records(file), records(whole)
    assert report.keys == len(old) == 2
    if report.dropped:
        assert set(report.dropped) <= {"cron", "json", "template-hash", "hash-template"}
        assert report.written == 1
        assert [r.key for r in new] == [SCRAMBLER.name(b"next")]
        return
    assert [r.key for r in new] == [SCRAMBLER.name(r.key) for r in old]
    for one, other in zip(old, new, strict=True):
        assert (one.rdb_type, one.db, one.expire_ms) == (other.rdb_type, other.db, other.expire_ms)
        if one.type == "module":
            assert one.raw == other.raw
        else:
            assert_scrambled(one, other)


@pytest.mark.one_in(5)
@pytest.mark.parametrize("n", [1, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, *rarely(300_000)])
@pytest.mark.parametrize("kind", [0, 1, 4, 5, 18])
def test_long_strings_in_blocks_of_any_size(kind: int, n: int) -> None:
    rng = Random(n)
    one = "".join(rng.choice(["a", "Z", "7", "é", "字", "😀", " "]) for _ in range(n)).encode()
    value = {
        0: string(one), 1: length(2) + string(one) + string(b"x"), 4: length(2) + string(b"f") + 2 * string(one) + b"\xc0\5",
        5: length(1) + string(one) + bytes(8), 18: b"\2\1" + string(one) + b"\2" + string(listpack([b"a", one], rng)),
    }[kind]  # fmt: skip
    file = rdb(b"\xfe\0", key(b"k", kind, value), magic=b"REDIS0010")
    whole, _ = done(file)
    assert len(whole) == len(file)
    for block_size in (16, 5000, 1 << 17):
        assert done(file, block_size=block_size)[0] == whole
    (old,), (new,) = records(file), records(whole)
    assert shape(new.value) == shape(old.value)
    assert all(is_utf8(text) for text in leaves(new.value))


def test_packed_sorted_sets_are_in_order_again() -> None:
    members = [b"%s%d" % (prefix, n) for prefix in (b"m", b"", b"x" * 300) for n in range(60)]
    rng = Random(5)
    for kind, pack in ((12, ziplist), (17, listpack)):
        items: list[Any] = []
        for score in (b"-1", b"0", b"2.5"):
            for member in sorted(m for i, m in enumerate(members) if i % 3 == (0, 1, 2)[[b"-1", b"0", b"2.5"].index(score)]):
                items += [member, score]
        file = rdb(b"\xfe\0", key(b"z", kind, string(pack(items, rng))), magic=b"REDIS0010")
        (record,) = records(done(file)[0])
        found = list(record.value.items())
        assert found == sorted(found, key=lambda item: (item[1], item[0]))
        assert len(found) == len(members)


def test_what_stood_in_unused_bytes_of_a_zipmap_is_gone() -> None:
    blob = b"\1" + b"\1f" + b"\2\6" + b"ab" + b"SECRET" + b"\xff"
    file = rdb(b"\xfe\0", key(b"h", 9, string(blob)))
    new, _ = done(file)
    assert len(new) == len(file)
    assert b"SECRET" not in new
    assert records(new)[0].value == {SCRAMBLER.text(b"f"): SCRAMBLER.text(b"ab")}


def test_a_wide_intset_stays_wide() -> None:
    for width in (2, 4, 8):
        blob = width.to_bytes(4, "little") + b"\3\0\0\0" + b"".join(n.to_bytes(width, "little", signed=True) for n in (-5, 3, 200))
        (record,) = records(done(rdb(b"\xfe\0", key(b"s", 11, string(blob))))[0])
        assert record.value == {b"%d" % SCRAMBLER.integer(n) for n in (-5, 3, 200)}
        assert len(record.raw) == len(string(blob))
    assert intset([1], Random(0))


def test_the_form_of_names_stays() -> None:
    forms_of_names = [b"\xc0\x05", b"\xc1\x10\x27", b"\xc2\x00\x00\x01\x00", b"\xc1\x05\x00", b"\x0512345", b"\x40\x01a"]
    file = rdb(b"\xfe\0", *(b"\0" + form + string(b"v") for form in forms_of_names))
    new, _ = done(file)
    assert len(new) == len(file)
    assert [r.key for r in records(new)] == [SCRAMBLER.name(r.key) for r in records(file)]
    packed = lzf_compress(b"user:" * 40)
    long = b"\xc3" + length(len(packed)) + length(200) + packed
    name = records(done(rdb(b"\xfe\0", b"\0" + long + string(b"v")))[0])[0].key
    assert name == SCRAMBLER.name(b"user:" * 40)


# -- files


@pytest.mark.one_in(4)
@pytest.mark.parametrize("path", each_dump())
def test_a_dump_keeps_its_structure_and_loses_its_content(path: Path) -> None:
    new, report = done(path, keep_modules=True)
    assert done(path, keep_modules=True)[0] == new
    assert done(path, keep_modules=True, block_size=64)[0] == new
    assert done(path, keep_modules=True, secret=b"another")[0] != new
    with rdbkit.open(path) as one, rdbkit.open(io.BytesIO(new)) as other:
        assert one.header == other.header == report.source
        assert other.functions == []
        assert {k: v for k, v in one.aux.items() if k in ("redis-ver", "valkey-ver", "redis-bits", "ctime", "used-mem")} == {
            k: v for k, v in other.aux.items() if k not in ("aof-base", "aof-preamble", "slot-info")
        }
    old = [r for r in records(path) if r.type not in LEFT_OUT]
    found = records(new)
    assert report.written == len(found)
    assert report.keys == len(records(path))
    words: set[bytes] = set()
    for before, after in zip(old, found, strict=True):
        assert (before.db, before.rdb_type, before.expire_ms, before.idle_s, before.freq) == (
            after.db, after.rdb_type, after.expire_ms, after.idle_s, after.freq
        )  # fmt: skip
        assert len(before.key) == len(after.key)
        if before.type == "module":
            continue
        # what was LZF and is packed or has members may be so no more; everything else is as long as before
        if b"\xc3" not in before.raw:
            assert len(after.raw) == len(before.raw)
        assert_scrambled(before, after)
        words.update(w for text in [before.key, *leaves(before.value)] for w in re.findall(rb"[A-Za-z0-9]{6,}", text[:2000]))
    text = b"\n".join(t for r in found if r.type != "module" for t in [r.key, *leaves(r.value)])
    there = [w for w in words if w in text and len(set(w)) > 3 and not w.isdigit()]
    assert not there, there[:10]


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    parts = [
        aux(b"redis-ver", b"7.0.0"), aux(b"repl-id", b"secret-id"), aux(b"lua", b"return 'secret'"),
        b"\xf5" + string(b"#!lua name=x"),
        b"\xf7\x81" + (5 << 10).to_bytes(8, "big") + b"\2\2\0", b"\xfe\0", b"\xfb\3\1", key(b"a", 0, string(b"v"), 1 << 50),
        aux(b"keydb-subexpire-key", b"secret"), aux(b"keydb-subexpire-when", b"5"), key(b"m", 7, b"\x81" + bytes(8) + b"\0"),
        key(b"cron", 64, string(b"secret") + bytes(16) + b"\0\0"), key(b"json", 30, string(b"{}")), b"\xfe\2",
        key(b"b", 0, b"\xc0\5"),
    ]  # fmt: skip
    new, report = done(rdb(*parts))
    assert report.dropped == {
        "aux": 1, "cron": 1, "function": 1, "json": 1, "member-expiry": 1, "module": 1, "module-aux": 1, "script": 1
    }  # fmt: skip
    assert (report.keys, report.written, report.left_out, report.is_complete) == (5, 2, 0, False)
    assert b"secret" not in new
    with rdbkit.open(io.BytesIO(new)) as snapshot:
        assert snapshot.aux == {"redis-ver": "7.0.0"}
        events = [e for e in snapshot.events() if isinstance(e, rdbkit.ResizeDb)]
    assert [(e.keys, e.expires) for e in events] == [(1, 1)]
    only, report = done(rdb(aux(b"repl-id", b"x"), key(b"a", 0, string(b"v"))))
    assert report.dropped == {"aux": 1}
    assert report.is_complete
    with_commands = tmp_path / "appended.aof"
    with_commands.write_bytes(rdb(key(b"a", 0, string(b"v"))) + b"*1\r\n$4\r\nPING\r\n")
    assert done(with_commands)[1].dropped == {"commands": 1}
    assert only


def test_metadata_of_keys_is_left_out() -> None:
    path = FIXTURES / "rich" / "redis-8.8-dev-keymeta.rdb"
    for block_size in (1 << 20, 64):
        new, report = done(path, block_size=block_size)
        assert report.dropped["key-metadata"] == 1
        with rdbkit.open(io.BytesIO(new)) as snapshot:
            assert not any(isinstance(event, rdbkit.KeyMetadata) for event in snapshot.events())


def test_attributes_stay_as_they_stand() -> None:
    attributes = [
        b"\xfd" + (1 << 30).to_bytes(4, "little"), b"\xfc" + (1 << 50).to_bytes(8, "little"), b"\xf8\x40\x07", b"\xf9\x05",
        b"\xdc\0\0\0\0", b"\xfc" + (1 << 50).to_bytes(8, "little") + b"\xf8\x05", b"\xdc\2\0\0\0\1\2\3\4",
    ]  # fmt: skip
    file = rdb(b"\xfe\0", *(a + key(b"key", 1, length(20) + string(b"element") * 20) for a in attributes))
    new, _ = done(file)
    assert len(new) == len(file)
    assert all(a in new for a in attributes)
    assert done(file, block_size=16)[0] == new


def test_prefixes_can_be_kept() -> None:
    names = [b"user:1000:cart", b"user:abc", b"abc", b"a::b:", b"12:-128", b"-5"]
    file = rdb(b"\xfe\0", *(key(n, 0, string(b"v")) for n in names))
    found = [r.key for r in records(done(file, keep_prefixes=True)[0])]
    assert [n.rpartition(b":")[:2] for n in found] == [n.rpartition(b":")[:2] for n in names]
    assert found[0] == b"user:1000:" + SCRAMBLER.name(b"cart")
    assert found[2] == SCRAMBLER.name(b"abc")
    for separator in (b"-", b"::", b"/"):
        found = [r.key for r in records(done(file, keep_prefixes=True, separator=separator)[0])]
        assert len(set(found)) == len(names)
    for separator in (b"", b"x", b":1", b"\xff"):
        with pytest.raises(ValueError, match="punctuation"):
            done(file, keep_prefixes=True, separator=separator)


@pytest.mark.parametrize("block_size", [1 << 20, 64])
def test_a_selection(block_size: int) -> None:
    path = FIXTURES / "rich" / "redis-7.0.15.rdb"
    for selection in (rdbkit.Selection(types="hash"), rdbkit.Selection(size=(0, 100)), rdbkit.Selection(prefixes=b"s_", dbs=0)):
        new, report = done(path, selection=selection, block_size=block_size)
        with rdbkit.open(path) as snapshot:
            wanted = [r.key for r in filter(selection, snapshot)]
        assert [r.key for r in records(new)] == list(map(SCRAMBLER.name, wanted))
        assert report.left_out == 27 - len(wanted)


def test_a_file_of_a_version_that_nobody_knows(tmp_path: Path) -> None:
    file = rdb(b"\xfe\0", key(b"a", 0, string(b"v")), magic=b"REDIS0016")
    with pytest.raises(rdbkit.UnsupportedVersionError):
        done(file)
    new, _ = done(file, relaxed=True)
    assert new.startswith(b"REDIS0016")


# -- what goes wrong


@pytest.mark.parametrize("part", one_in(4, range(4)))
@pytest.mark.parametrize("source", ["redis-2.4.18", "redis-3.2.13", "redis-7.2.6", "redis-8.8-dev-keymeta", "valkey-9.1.2-cluster"])
def test_damage_gives_an_error_of_the_library_or_a_sound_file(source: str, part: int) -> None:
    whole = (FIXTURES / "rich" / f"{source}.rdb").read_bytes()
    rng = Random(f"{source} {part}")
    sources: list[str | None] = []
    for _ in range(30):
        data = damaged(whole, rng)
        block_size = rng.choice([64, 1 << 20])
        try:
            new, report = done(data, verify_checksum=False, block_size=block_size)
        except rdbkit.RdbError as e:
            sources.append(e.source)
            continue
        assert len(records(new)) == report.written
    assert len(sources) > 5
    assert None not in sources


def test_damage_is_told_with_its_place(tmp_path: Path) -> None:
    blob = listpack([b"a", b"b"], Random(0))
    data = rdb(b"\xfe\0", key(b"fine", 0, string(b"v")), key(b"bad", 16, string(blob[:-2] + b"\0\xff")), magic=b"REDIS0010")
    out = tmp_path / "out.rdb"
    for block_size in (1 << 20, 16):
        with pytest.raises(rdbkit.CorruptError) as caught:
            redact(io.BytesIO(data), out, secret=SECRET, block_size=block_size)
        assert (caught.value.key, caught.value.db, caught.value.offset) == (b"bad", 0, 19)
        assert caught.value.reading == "a hash listpack"
        assert list(tmp_path.iterdir()) == []


def test_destinations(tmp_path: Path) -> None:
    path = tmp_path / "dump.rdb"
    path.write_bytes(rdb(key(b"a", 0, string(b"v"))))
    with pytest.raises(ValueError, match="is the source"):
        redact(path, path, secret=SECRET, force=True)
    (tmp_path / "there.rdb").write_text("mine")
    with pytest.raises(FileExistsError):
        redact(path, tmp_path / "there.rdb", secret=SECRET)
    assert (tmp_path / "there.rdb").read_text() == "mine"
    redact(path, tmp_path / "there.rdb", secret=SECRET, force=True)
    redact(path, tmp_path / "small.rdb.gz", secret=SECRET)
    assert gzip.decompress((tmp_path / "small.rdb.gz").read_bytes()) == (tmp_path / "there.rdb").read_bytes()


# -- the command


def run(*args: str | Path, env: dict[str, str] | None = None, **more: Any) -> subprocess.CompletedProcess[bytes]:
    variables = {k: v for k, v in os.environ.items() if k != "RDBKIT_SECRET"} | (env or {})
    return command_line.run("redact", *args, environment=variables, **more)


def test_the_command(tmp_path: Path) -> None:
    path = FIXTURES / "rich" / "redis-7.0.15.rdb"
    secret = tmp_path / "secret"
    secret.write_bytes(SECRET + b"\n")
    made = run(path, tmp_path / "a.rdb", "--secret-file", secret)
    assert made.returncode == 0  # without the function library
    assert made.stderr == b"rdbkit: left out: 1 function library\n"
    assert b"27" in made.stdout
    assert SECRET not in made.stdout
    made = run(path, tmp_path / "b.rdb", env={"RDBKIT_SECRET": SECRET.decode()})
    assert (tmp_path / "a.rdb").read_bytes() == (tmp_path / "b.rdb").read_bytes() == done(path)[0]
    made = run(path, "-", "--random", "--type", "hash", env={"RDBKIT_SECRET": SECRET.decode()})
    assert b"the secret was random" in made.stderr
    assert b"4 keys written" in made.stderr
    assert {r.type for r in records(made.stdout)} == {"hash"}
    made = run("-", tmp_path / "c.rdb", "--keep-prefixes", "--separator", "_", data=path.read_bytes())
    assert made.returncode == 0
    assert {r.key.partition(b"_")[0] for r in records(tmp_path / "c.rdb")} >= {b"s", b"l", b"h"}


def test_the_report_as_json(tmp_path: Path) -> None:
    path, out = FIXTURES / "rich" / "redis-7.0.15.rdb", tmp_path / "a.rdb"
    made = run(path, out, "--json", "--type", "hash", env={"RDBKIT_SECRET": SECRET.decode()})
    assert made.returncode == 0
    assert json.loads(made.stdout) == {
        "destination": {"file": str(out), "header": "REDIS0010", "bytes": out.stat().st_size},
        "keys": 27,
        "written": 4,
        "left_out": 23,
        "dropped": {"function": 1},
        "complete": False,
    }
    assert run(path, "-", "--json").returncode == 2


def test_the_command_where_all_is_there(tmp_path: Path) -> None:
    path = FIXTURES / "random" / "redis-6.0.16.rdb"
    made = run(path, tmp_path / "a.rdb", "--random")
    assert made.returncode == 0
    assert b"not selected" not in made.stdout


def test_wrong_usage(tmp_path: Path) -> None:
    path = tmp_path / "dump.rdb"
    path.write_bytes(rdb(key(b"a", 0, string(b"v"))))
    empty = tmp_path / "empty"
    empty.write_bytes(b"\n")
    out = tmp_path / "out.rdb"
    for args, words in (
        ([path, path], b"are the same file"),
        ([path, empty], b"exists; --force replaces it"),
        ([path, out, "--random", "--secret-file", path], b"exclude each other"),
        ([path, out, "--secret-file", empty], b"is empty"),
        ([path, out, "--keep-prefixes", "--separator", "a"], b"punctuation"),
    ):
        made = run(*args)
        assert made.returncode == 2, made
        assert words in made.stderr
    made = run(path, out, env={"RDBKIT_SECRET": ""})
    assert made.returncode == 2
    assert b"RDBKIT_SECRET is empty" in made.stderr
    assert not out.exists()
    assert run(path, tmp_path / "other.rdb", "--random", env={"RDBKIT_SECRET": ""}).returncode == 0
    made = run(tmp_path / "none.rdb", out)
    assert (made.returncode, made.stderr) == (3, f"rdbkit: {tmp_path / 'none.rdb'}: No such file or directory\n".encode())
    made = run(path, "-", "--random")
    assert made.stderr.startswith(b"standard output: REDIS0009 with names and values scrambled\n")
    path.write_bytes(path.read_bytes()[:-3])
    made = run(path, out)
    assert made.returncode == 3
    assert not out.exists()

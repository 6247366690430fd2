"""Decoded values: those of the reference encoders, those that servers answered, and the rules that damaged ones break."""

from __future__ import annotations

import io
import itertools
import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rdbkit
from rdbkit.format.constants import value_types
from rdbkit.values import Array, Hash, ModuleValue, Stream, StreamId

from ..encoders import (
    ARRAYS,
    ENCODERS,
    EXPIRING_MEMBERS,
    Encoder,
    backlen,
    comparable,
    frames,
    intset,
    joined,
    listpack_entry,
    listpack_of,
    lzf,
    signed,
    text,
    ziplist_body,
    ziplist_of,
)
from ..rdb import DUMPS, Dribble, each_dump, key, length, rdb, string, truth

WHOLE = 1 << 24  # a block that any record of these tests fits in
AFTER = key(b"after", 0, string(b"v"))
BLOCKS = st.sampled_from([16, 17, 33, 64, 100, 500, 1000, 4096])


def first(data: bytes, block_size: int, step: int | None = None) -> Iterator[rdbkit.Record]:
    """The record "k", and a check that the one behind it is found."""
    source: Any = io.BytesIO(data) if step is None else Dribble(data, step)
    with rdbkit.open(source, block_size=block_size) as snapshot:
        records = iter(snapshot)
        record = next(records)
        assert record.key == b"k"
        yield record
        assert [(r.key, r.value) for r in records] == [(b"after", b"v")]


def elements(record: rdbkit.Record) -> list[Any]:
    found = list(record.elements())
    assert all(found), "an empty batch"
    return list(itertools.chain.from_iterable(found))


def assert_reads(encoder: Encoder, value: Any, data: bytes, block_size: int) -> None:
    wanted = comparable(value)
    wanted_elements = wanted
    if encoder.values is ARRAYS:
        wanted_elements = wanted[1]
    elif encoder.values is EXPIRING_MEMBERS:
        wanted_elements = set(value)
    for record in first(data, WHOLE):
        assert comparable(record.value) == wanted
        assert joined(record.type, elements(record)) == wanted_elements
        assert comparable(record.value) == wanted, "a record of one block can be read again"
    for record in first(data, block_size):
        assert comparable(record.value) == wanted
    for record in first(data, block_size, step=7):
        assert joined(record.type, elements(record)) == wanted_elements


def file_of(encoder: Encoder, value: Any, rng: Random) -> bytes:
    preamble = encoder.preamble(value, rng)
    record = key(b"k", encoder.type_code, encoder.encode(value, rng))
    crc = True if encoder.magic[-4:] > b"0004" else None
    return rdb(preamble, b"\xfe\0", record, AFTER, magic=encoder.magic, crc=crc)


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: e.name)
@settings(max_examples=25)
@given(data=st.data(), seed=st.integers(0, 1 << 32), block_size=BLOCKS)
def test_a_value_decodes_to_itself(encoder: Encoder, data: st.DataObject, seed: int, block_size: int) -> None:
    value = data.draw(encoder.values)
    assert_reads(encoder, value, file_of(encoder, value, Random(seed)), block_size)


def test_the_table_has_every_type_that_is_read() -> None:
    covered = {(e.magic, e.type_code) for e in ENCODERS}
    for flavour, version, magic in (("valkey", 80, "VALKEY"), *(("redis", v, "REDIS") for v in range(1, 16))):
        for type_code in value_types(flavour, version):
            # a type that several versions write stands in the table once, but for ids that mean something else elsewhere
            wanted = value_types(flavour, version)[type_code]
            assert any(k == type_code and value_types(*flavour_of(m))[k] == wanted for m, k in covered), (
                f"{magic} {version} type {type_code}"
            )


def flavour_of(magic: bytes) -> tuple[str, int]:
    return ("valkey", int(magic[6:])) if magic.startswith(b"VALKEY") else ("redis", int(magic[5:]))


# Sizes at which an encoding changes its form: 6, 12 and 14 bits of length, the widths of a listpack's backlen (entries of
# 127, 128, 16382 to 16384 and 2097150 to 2097152 bytes under a head of 2 or 5 bytes) and of a ziplist's prevlen.
SIZES = [0, 1, 62, 63, 64, 65, 125, 126, 127, 251, 252, 253, 254, 255, 4090, 4091, 4092, 4095, 4096, 16376, 16377, 16378, 16379]
SIZES += [16383, 16384, 65535, 65536, 2097145, 2097146, 2097147, 2097148]
LISTS_OF_STRINGS = [e for e in ENCODERS if e.type_code in (0, 1, 10, 14, 18)]


@pytest.mark.one_in(4)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("encoder", LISTS_OF_STRINGS, ids=lambda e: e.name)
def test_strings_of_any_size(encoder: Encoder, size: int) -> None:
    one = Random(size).randbytes(size)
    value = one if encoder.type_code == 0 else [b"first", one, b"7", one, b"last"]
    assert_reads(encoder, value, file_of(encoder, value, Random(size)), 4096)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("count", [65534, 65535, 65536, 70000])
@pytest.mark.parametrize("type_code", [10, 20], ids=["ziplist", "listpack"])
def test_packed_collections_of_more_elements_than_their_header_can_count(type_code: int, count: int) -> None:
    rng = Random(count)
    items = [b"%d" % n for n in range(count)]
    if type_code == 20:
        packed = listpack_of([listpack_entry(item, rng) for item in items])
    else:
        bodies = [ziplist_body(item, rng) for item in items]
        packed = ziplist_of([bytes([len(b) + 1 if b else 0]) + body for b, body in zip([b"", *bodies], bodies, strict=False)])
    for block_size in (WHOLE, 1000):
        for record in first(rdb(b"\xfe\0", key(b"k", type_code, string(packed)), AFTER, magic=b"REDIS0011"), block_size):
            assert record.value == (items if type_code == 10 else set(items))


@pytest.mark.parametrize(("type_code", "empty"), [(1, []), (2, set()), (4, {}), (5, {})])
def test_an_empty_collection_of_an_old_server_is_empty(type_code: int, empty: Any) -> None:
    for record in first(rdb(b"\xfe\0", key(b"k", type_code, b"\0"), AFTER), 16):
        assert record.value == empty
        assert list(record.elements()) == []


def test_batches_of_a_large_value_are_no_larger_than_a_block() -> None:
    value = length(1000) + b"".join(string(b"%d" % n) for n in range(1000))
    for record in first(rdb(b"\xfe\0", key(b"k", 1, value), AFTER), 64):
        assert max(len(batch) for batch in record.elements()) <= 64


def test_a_large_value_can_be_read_once_and_before_the_next() -> None:
    data = rdb(b"\xfe\0", key(b"k", 1, length(100) + string(b"element") * 100), AFTER)
    for record in first(data, 16):
        assert len(record.value) == 100
        with pytest.raises(ValueError, match=r".+"):
            _ = record.value
    with rdbkit.open(io.BytesIO(data), block_size=16) as snapshot:
        late, _ = list(snapshot)
        with pytest.raises(ValueError, match="before the next"):
            list(late.elements())


def test_elements_may_be_left_half_way() -> None:
    data = rdb(b"\xfe\0", key(b"k", 1, length(500) + string(b"element") * 500), AFTER)
    for block_size in (16, 64, WHOLE):
        for record in first(data, block_size):
            assert next(iter(record.elements()))[0] == b"element"


FLIPS = st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=3)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: e.name)
@settings(max_examples=25)
@given(data=st.data(), seed=st.integers(0, 1 << 32), block_size=BLOCKS, flips=FLIPS)
def test_changed_bytes_give_an_error_or_the_same_in_blocks_of_any_size(
    encoder: Encoder, data: st.DataObject, seed: int, block_size: int, flips: list[tuple[float, int]]
) -> None:
    """Whatever is wrong, it is an error of the library's own, and no size of blocks hides it."""
    value = data.draw(encoder.values)
    rng = Random(seed)
    preamble, encoded = encoder.preamble(value, rng), bytearray(encoder.encode(value, rng))
    for where, bits in flips:
        encoded[int(where * len(encoded))] ^= bits
    changed = rdb(preamble, b"\xfe\0", key(b"k", encoder.type_code, bytes(encoded)), AFTER, magic=encoder.magic, crc=False)
    assert outcome(changed, block_size, elements=False) == outcome(changed, WHOLE, elements=False)
    assert outcome(changed, block_size, elements=True) == outcome(changed, WHOLE, elements=True)


def outcome(data: bytes, block_size: int, *, elements: bool) -> Any:
    """What is read of the first record, None for an error."""
    try:
        with rdbkit.open(io.BytesIO(data), block_size=block_size) as snapshot:
            record = next(iter(snapshot))
            if not elements:
                return comparable(record.value)
            return repr([item for batch in record.elements() for item in batch])
    except rdbkit.RdbError:
        return None


# What servers answered


def text_of(data: bytes | StreamId) -> str:
    return data.decode("latin-1") if isinstance(data, bytes) else str(data)


def as_answered(value: Any) -> Any:
    """The value as a line of truth has it; see fixtures/README.md."""
    if isinstance(value, bytes):
        return text_of(value)
    if isinstance(value, list):
        return [text_of(item) for item in value]
    if isinstance(value, set):
        return sorted(text_of(item) for item in value)
    if isinstance(value, Hash):
        pairs = sorted([text_of(f), text_of(v)] for f, v in value.items())
        times = {text_of(f): ms for f, ms in value.field_expire_ms.items()}
        return {"pairs": pairs, "field_expire_ms": times} if times else pairs
    if isinstance(value, Stream):
        groups = [
            {
                "name": text_of(g.name),
                "last_id": str(g.last_id),
                "consumers": sorted(text_of(c.name) for c in g.consumers),
                "pel": [[str(p.id), text_of(p.consumer or b""), p.delivery_count] for p in g.pending],
            }
            for g in value.groups
        ]
        return {
            "entries": [[str(e.id), [text_of(part) for pair in e.fields for part in pair]] for e in value.entries],
            "last_id": str(value.last_id),
            "length": value.length,
            "groups": sorted(groups, key=lambda g: str(g["name"])),
        }
    if isinstance(value, (ModuleValue, Array)):
        return None  # what no command of the server's lists
    assert isinstance(value, dict)
    return sorted([text_of(member), repr(score)] for member, score in value.items())


@pytest.mark.parametrize("block_size", [64, WHOLE])
@pytest.mark.parametrize("path", each_dump(answered=True))
def test_values_are_those_the_server_answered(path: Path, block_size: int) -> None:
    rows = {(row["db"], row["key"].encode("latin-1")): row for row in truth(path) or []}
    seen = 0
    with rdbkit.open(path, block_size=block_size) as snapshot:
        for record in snapshot:
            # 2.4 wrapped expiries past 2038, so that the server asked had dropped their keys
            if path.name == "redis-2.4.18.rdb" and (record.db, record.key) not in rows:
                continue
            assert as_answered(record.value) == rows[record.db, record.key]["value"], record
            seen += 1
    assert seen == len(rows)


@pytest.mark.parametrize("path", each_dump())
def test_elements_of_a_dump_join_to_its_values(path: Path) -> None:
    with rdbkit.open(path) as snapshot:
        values = [(r.key, comparable(r.value)) for r in snapshot]
    for block_size in (WHOLE, 100):
        with rdbkit.open(path, block_size=block_size) as snapshot:
            for record, (name, value) in zip(snapshot, values, strict=True):
                assert record.key == name
                assert joined(record.type, elements(record)) == (value[1] if record.type == "array" else value), record


def test_what_no_server_command_lists_is_there() -> None:
    rich = DUMPS[0].parent.parent / "rich"
    with rdbkit.open(rich / "redis-8.8-dev.rdb") as snapshot:
        found = {r.key: r.value for r in snapshot}
    assert found[b"vs"].module == "vectorset"
    assert found[b"ar"]
    assert found[b"st_idmp"].dedup is not None
    assert any(ids for _, ids in found[b"st_idmp"].dedup.producers)
    given_back = [i for group in found[b"st"].groups for i in group.nacked]
    assert given_back == [p.id for group in found[b"st"].groups for p in group.pending if p.consumer is None]


# Damage


class Damage(NamedTuple):
    """A value that breaks one rule of its encoding."""

    rule: str
    type_code: int
    value: bytes
    magic: bytes = b"REDIS0014"
    preamble: bytes = b""


F64 = struct.Struct("<d").pack
NAN = F64(float("nan"))


def entry(item: bytes | int) -> bytes:
    """The form that a server would write for it, without chance."""
    if isinstance(item, int):
        body = bytes([item]) if 0 <= item < 128 else b"\xf4" + signed(item, 8)
    else:
        body = bytes([0x80 | len(item)]) + item if len(item) < 64 else b"\xf0" + len(item).to_bytes(4, "little") + item
    return body + backlen(len(body))


def lp(*items: bytes | int, **header: Any) -> bytes:
    return listpack_of([entry(item) for item in items], **header)


def zl(*items: bytes, **header: Any) -> bytes:
    return ziplist_of(zl_entries(*items), **header)


def zl_entries(*items: bytes) -> list[bytes]:
    entries: list[bytes] = []
    for item in items:
        entries.append(bytes([len(entries[-1]) if entries else 0, len(item)]) + item)
    return entries


def counted(*parts: bytes) -> bytes:
    return length(len(parts)) + b"".join(parts)


LONG = b"x" * 200  # an entry whose backlen has two bytes
TWO = entry(b"f") + entry(b"v")

PACKED = [
    # listpacks
    ("listpack of six bytes", 16, b"\x06\0\0\0\0\0"),
    ("listpack of no bytes", 16, b""),
    ("listpack says it is longer", 16, lp(b"f", b"v", size=20)),
    ("listpack says it is shorter", 16, lp(b"f", b"v", size=10)),
    ("bytes behind a listpack", 16, lp(b"f", b"v") + b"\xff"),
    ("listpack without end mark", 16, lp(b"f", b"v", end=b"")),
    ("listpack ends with another byte", 16, lp(b"f", b"v", end=b"\0")),
    ("listpack ends early", 16, lp(b"f", b"v", end=b"\xff\xff")),
    *(
        (f"listpack entry 0x{code:02x}", 16, listpack_of([entry(b"f"), bytes([code, 0, 0, 0, 0, 0, 0, 0, 0]) + b"\x09"]))
        for code in (0xF5, 0xF9, 0xFE)
    ),
    ("listpack entry beyond the end", 16, listpack_of([entry(b"f"), b"\x85v\x02"])),
    ("listpack entry far beyond the end", 16, listpack_of([entry(b"f"), b"\xf0\xff\xff\xff\x7fv\x06"])),
    ("listpack number beyond the end", 16, listpack_of([entry(b"f"), b"\xf4\1\1"])),
    ("listpack entry ends where the listpack does", 16, listpack_of([entry(b"f"), b"\x81v"])),
    ("backlen too small", 16, listpack_of([entry(b"f"), b"\x81v\x01"])),
    ("backlen too large", 16, listpack_of([entry(b"f"), b"\x81v\x03"])),
    ("backlen zero", 16, listpack_of([entry(b"f"), b"\x81v\x00"])),
    ("backlen wider than needed", 16, listpack_of([entry(b"f"), b"\x81v\x00\x82"])),
    ("long backlen wrong", 16, listpack_of([entry(b"f"), b"\xe0\xc8" + LONG + b"\x01\xcb"])),
    ("long backlen wider than needed", 16, listpack_of([entry(b"f"), b"\xe0\xc8" + LONG + b"\x00\x81\xca"])),
    ("long backlen with a missing bit", 16, listpack_of([entry(b"f"), b"\xe0\xc8" + LONG + b"\x01\x4a"])),
    (
        "backlen of 16383 in two bytes",
        16,
        listpack_of([entry(b"f"), b"\xf0" + (16378).to_bytes(4, "little") + b"x" * 16378 + b"\x7f\xff"]),
    ),
    ("listpack counts too few", 16, lp(b"f", b"v", count=1)),
    ("listpack counts too many", 16, lp(b"f", b"v", count=4)),
    ("odd listpack of a hash", 16, lp(b"f", b"v", b"g")),
    ("odd listpack of a zset", 17, lp(b"m", 1, b"n")),
    ("field twice", 16, lp(b"f", b"1", b"f", b"2")),
    ("field twice, as number and text", 16, lp(5, b"1", b"5", b"2")),
    ("member twice in a set", 20, lp(b"a", b"b", b"a")),
    ("member twice in a set, as number and text", 20, lp(b"5", 5)),
    ("member twice in a zset", 17, lp(b"m", 1, b"m", 2)),
    ("score is no number", 17, lp(b"m", b"abc")),
    ("score is empty", 17, lp(b"m", b"")),
    ("score with a tail", 17, lp(b"m", b"1.5x")),
    ("score is not a number", 17, lp(b"m", b"nan")),
    ("score with a separator", 17, lp(b"m", b"1_5")),
    # ziplists
    ("ziplist of ten bytes", 10, zl(end=b"")),
    ("ziplist says it is longer", 10, zl(b"a", b"b", size=40)),
    ("ziplist says it is shorter", 10, zl(b"a", b"b", size=12)),
    ("ziplist ends with another byte", 10, zl(b"a", b"b", end=b"\0")),
    ("ziplist ends early", 10, zl(b"a", b"b", end=b"\xff\xff")),
    ("ziplist's tail beyond its end", 10, zl(b"a", b"b", tail=100)),
    ("ziplist's tail is not the last entry", 10, zl(b"a", b"b", tail=10)),
    ("ziplist's tail in its head", 10, zl(b"a", b"b", tail=0)),
    ("first prevlen not zero", 10, ziplist_of([b"\x01\x01a"])),
    ("prevlen wrong", 10, ziplist_of([b"\x00\x01a", b"\x04\x01b"])),
    ("long prevlen wrong", 10, ziplist_of([b"\x00\x01a", b"\xfe\x04\x00\x00\x00\x01b"])),
    ("prevlen 255", 10, ziplist_of([b"\x00\x01a", b"\xff\x01b"])),
    *(
        (f"ziplist entry 0x{code:02x}", 10, ziplist_of([b"\x00" + bytes([code]) + b"abcdefgh"]))
        for code in (0xC1, 0xD7, 0xE2, 0xEF, 0xFF)
    ),
    ("ziplist entry 0x81", 10, ziplist_of([b"\x00\x81\x00\x00\x00\x01a"])),
    ("ziplist entry beyond the end", 10, ziplist_of([b"\x00\x09a"])),
    ("ziplist entry far beyond the end", 10, ziplist_of([b"\x00\x80\x7f\xff\xff\xffa"])),
    ("ziplist number beyond the end", 10, ziplist_of([b"\x00\xe0a"])),
    ("ziplist ends in a head", 10, ziplist_of([b"\x00\x01a", b"\x03"])),
    ("ziplist counts too few", 10, zl(b"a", b"b", count=1)),
    ("ziplist counts too many", 10, zl(b"a", b"b", count=3)),
    ("odd ziplist of a hash", 13, zl(b"f", b"v", b"g")),
    ("odd ziplist of a zset", 12, zl(b"m", b"1", b"n")),
    ("field twice in a ziplist", 13, zl(b"f", b"1", b"f", b"2")),
    ("member twice in a ziplist", 12, zl(b"m", b"1", b"m", b"2")),
    ("score of a ziplist is no number", 12, zl(b"m", b"x1")),
    ("score of a ziplist is not a number", 12, zl(b"m", b"NaN")),
    # intsets
    ("intset of seven bytes", 11, b"\x02\0\0\0\0\0\0"),
    *((f"intset of width {w}", 11, struct.pack("<II", w, 2) + bytes(w - 1) + b"\1" + bytes(w - 1) + b"\2") for w in (1, 3, 16)),
    ("intset of width 0", 11, struct.pack("<II", 0, 2)),
    ("intset says it has more", 11, struct.pack("<IIhh", 2, 3, 1, 2)),
    ("intset says it has fewer", 11, struct.pack("<IIhh", 2, 1, 1, 2)),
    ("intset of no numbers", 11, struct.pack("<II", 2, 0)),
    ("intset descends", 11, struct.pack("<IIhh", 2, 2, 2, 1)),
    ("intset repeats", 11, struct.pack("<IIhh", 2, 2, 2, 2)),
    ("intset ascends as unsigned only", 11, struct.pack("<IIqq", 8, 2, 1, -1)),
    # zipmaps
    ("zipmap of no bytes", 9, b""),
    ("zipmap of one byte", 9, b"\xff"),
    ("zipmap without end mark", 9, b"\x01\x01f\x01\x00v"),
    ("zipmap ends early", 9, b"\x01\x01f\x01\x00v\xff\xff"),
    ("zipmap field beyond the end", 9, b"\x01\x09f\x01\x00v\xff"),
    ("zipmap value beyond the end", 9, b"\x01\x01f\x09\x00v\xff"),
    ("zipmap value far beyond the end", 9, b"\x01\x01f\xfe\xff\xff\xff\x7f\x00v\xff"),
    ("zipmap's free bytes beyond the end", 9, b"\x01\x01f\x01\x09v\xff"),
    ("zipmap field without value", 9, b"\x01\x01f\xff"),
    ("zipmap counts too many", 9, b"\x02\x01f\x01\x00v\xff"),
    ("zipmap counts too few", 9, b"\x00\x01f\x01\x00v\xff"),
    ("field twice in a zipmap", 9, b"\x02\x01f\x01\x00v\x01f\x01\x00w\xff"),
]
TABLES = [
    ("member twice", 2, counted(string(b"a"), string(b"a"))),
    ("member twice, as number and text", 2, counted(string(b"5"), b"\xc0\x05")),
    ("field twice in a table", 4, length(2) + (string(b"f") + string(b"v")) * 2),
    ("member of a zset twice", 5, counted(string(b"m") + F64(1), string(b"m") + F64(2))),
    ("member of an old zset twice", 3, counted(string(b"m") + b"\x011", string(b"m") + b"\x012")),
    ("score NaN", 5, counted(string(b"m") + NAN)),
    ("old score NaN", 3, counted(string(b"m") + b"\xfd")),
    ("old score NaN as text", 3, counted(string(b"m") + b"\x03nan")),
    ("old score is no number", 3, counted(string(b"m") + b"\x03abc")),
    ("old score of no bytes", 3, counted(string(b"m") + b"\x00")),
    ("container 3", 18, counted(b"\x03" + string(b"a"))),
    ("container 0", 18, counted(b"\x00" + string(b"a"))),
    ("packed node of no bytes", 18, counted(b"\x02" + string(b""))),
    ("packed node is no listpack", 18, counted(b"\x02" + string(b"abcdefghi"))),
    ("node is no ziplist", 14, counted(string(zl(b"a")), string(b"abcdefghijklm"))),
    ("LZF gives less", 0, b"\xc3" + length(6) + length(9) + b"\x04abcde"),
    ("LZF gives more", 0, b"\xc3" + length(6) + length(3) + b"\x04abcde"),
    ("LZF points before its beginning", 0, b"\xc3" + length(4) + length(5) + b"\x00a\x20\x05"),
    ("LZF ends in an instruction", 0, b"\xc3" + length(4) + length(9) + b"\x08abc"),
    ("LZF element gives less", 1, counted(string(b"a"), b"\xc3" + length(6) + length(9) + b"\x04abcde")),
    ("LZF of a listpack gives less", 16, b"\xc3" + length(len(lzf(lp(b"f", b"v")))) + length(99) + lzf(lp(b"f", b"v"))),
    # field expiry
    ("field twice, 7.4 RC", 22, length(2) + (length(5) + string(b"f") + string(b"v")) * 2),
    ("field twice with expiry", 24, signed(9, 8) + length(2) + (length(1) + string(b"f") + string(b"v")) * 2),
    ("least expiry over 2^48", 24, signed((1 << 48) + 1, 8) + counted(length(1) + string(b"f") + string(b"v"))),
    ("expiry over 2^48 - 1", 24, signed(1 << 48, 8) + counted(length(2) + string(b"f") + string(b"v"))),
    ("triples with one too many", 25, signed(0, 8) + string(lp(b"f", b"v", 0, b"g"))),
    ("triples with two too many", 25, signed(0, 8) + string(lp(b"f", b"v", 0, b"g", b"w"))),
    ("expiry is no number", 25, signed(0, 8) + string(lp(b"f", b"v", b"soon"))),
    ("expiry below zero", 25, signed(0, 8) + string(lp(b"f", b"v", -1))),
    ("listpack expiry over 2^48 - 1", 25, signed(0, 8) + string(lp(b"f", b"v", 1 << 48))),
    ("expiries descend", 25, signed(0, 8) + string(lp(b"f", b"v", 2000, b"g", b"w", 1000))),
    ("expiry behind none", 25, signed(0, 8) + string(lp(b"f", b"v", 0, b"g", b"w", 1000))),
    ("field of a triple twice", 25, signed(0, 8) + string(lp(b"f", b"v", 1000, b"f", b"w", 2000))),
    ("field of a triple twice, 7.4 RC", 23, string(lp(b"f", b"v", 1000, b"f", b"w", 2000))),
    # arrays
    ("array of none", 28, length(0) + b"\0"),
    ("array with flag 2", 28, length(1) + b"\2" + b"\0\0" + string(b"v")),
    ("array with tag 4", 28, length(1) + b"\0" + b"\0\4" + string(b"v")),
    ("array index 2^64 - 1", 28, length(1) + b"\0" + b"\x81" + b"\xff" * 8 + b"\0" + string(b"v")),
    ("array index twice", 28, length(2) + b"\0" + (b"\5\0" + string(b"v")) * 2),
    ("short string of eight bytes", 28, length(1) + b"\0" + b"\0\3" + string(b"12345678")),
    ("module opcode 6", 7, b"\x81" + bytes(8) + b"\x06\0"),
]

ONE_ENTRY = (1, 0, 1, b"f", 0, 2, 0, 0, b"v", 4)  # master entry; flags, deltas, value, count


def stream_node(*items: bytes | int, at: tuple[int, int] = (5, 1), **header: Any) -> bytes:
    return string(struct.pack(">QQ", *at)) + string(lp(*items, **header))


def tail(live: int = 1, groups: bytes = b"\0", last: tuple[int, int] = (5, 1)) -> bytes:
    """Of a v3 stream: what follows its nodes."""
    return b"".join(length(n) for n in (live, *last, 5, 1, 0, 0, live)) + groups


def stream_of(*found: bytes, live: int = 1, groups: bytes = b"\0", last: tuple[int, int] = (5, 1)) -> bytes:
    return counted(*found) + tail(live, groups, last)


GOOD_NODE = stream_node(*ONE_ENTRY)
ID, OTHER_ID = struct.pack(">QQ", 5, 1), struct.pack(">QQ", 6, 1)


def group(name: bytes = b"g", pel: tuple[bytes, ...] = (ID,), consumers: tuple[bytes, ...] = (), nacked: bytes = b"") -> bytes:
    pending = counted(*(an_id + signed(9, 8) + length(1) for an_id in pel))
    return string(name) + length(5) + length(1) + length(1) + pending + counted(*consumers) + nacked


def consumer(name: bytes, *owned: bytes) -> bytes:
    return string(name) + signed(9, 8) * 2 + counted(*owned)


def v3(*groups: bytes) -> bytes:
    return stream_of(GOOD_NODE, groups=counted(*groups))


def v4(*dedup: int | bytes) -> bytes:
    return stream_of(GOOD_NODE) + b"".join(length(part) if isinstance(part, int) else part for part in dedup)


def v5(*groups: bytes) -> bytes:
    return v3(*groups) + b"".join(length(n) for n in (100, 100, 0, 0, 0))


STREAMS = [
    ("node key of 15 bytes", 21, stream_of(string(ID[:15]) + string(lp(*ONE_ENTRY)))),
    ("node key of 17 bytes", 21, stream_of(string(ID + b"x") + string(lp(*ONE_ENTRY)))),
    ("node key twice", 21, stream_of(GOOD_NODE, GOOD_NODE, live=2)),
    ("node of no bytes", 21, stream_of(string(ID) + string(b""))),
    ("empty node", 21, stream_of(stream_node())),
    ("node is no listpack", 21, stream_of(string(ID) + string(b"abcdefghijkl"))),
    ("master entry cut", 21, stream_of(stream_node(1, 0))),
    ("master entry counts in text", 21, stream_of(stream_node(b"one", *ONE_ENTRY[1:]))),
    ("master entry counts below zero", 21, stream_of(stream_node(-1, *ONE_ENTRY[1:]))),
    ("master entry with fewer names than it says", 21, stream_of(stream_node(1, 0, 5, b"f", 0))),
    ("master entry with a huge number of names", 21, stream_of(stream_node(1, 0, 1 << 62, b"f", 0, 2, 0, 0, b"v", 4))),
    ("master entry without its zero", 21, stream_of(stream_node(1, 0, 1, b"f", 7, 2, 0, 0, b"v", 4))),
    ("node counts more entries than it has", 21, stream_of(stream_node(2, *ONE_ENTRY[1:]), live=2)),
    ("node counts fewer entries than it has", 21, stream_of(stream_node(*ONE_ENTRY, 2, 0, 1, b"v", 4))),
    ("node counts a deleted entry that it does not have", 21, stream_of(stream_node(1, 1, *ONE_ENTRY[2:]))),
    ("node counts a live entry as deleted", 21, stream_of(stream_node(0, 1, *ONE_ENTRY[2:]), live=0)),
    ("entry counts too many elements", 21, stream_of(stream_node(*ONE_ENTRY[:-1], 5))),
    ("entry counts too few elements", 21, stream_of(stream_node(*ONE_ENTRY[:-1], 3))),
    ("entry counts in text", 21, stream_of(stream_node(*ONE_ENTRY[:-1], b"four"))),
    ("entry cut", 21, stream_of(stream_node(*ONE_ENTRY[:-2]))),
    ("entry with a huge number of fields", 21, stream_of(stream_node(1, 0, 1, b"f", 0, 0, 0, 0, 1 << 62, b"f", b"v", 6))),
    ("entry with fewer than no fields", 21, stream_of(stream_node(1, 0, 1, b"f", 0, 0, 0, 0, -1, 2))),
    ("entry flags in text", 21, stream_of(stream_node(1, 0, 1, b"f", 0, b"two", 0, 0, b"v", 4))),
    ("entry flags in text that is no canonical number", 21, stream_of(stream_node(1, 0, 1, b"f", 0, b"+2", 0, 0, b"v", 4))),
    ("entry id in text", 21, stream_of(stream_node(1, 0, 1, b"f", 0, 2, b"x", 0, b"v", 4))),
    ("length is not that of the nodes", 21, stream_of(GOOD_NODE, live=2)),
    ("length without nodes", 21, stream_of(live=2)),
    ("group twice", 21, v3(group(pel=()), group(pel=()))),
    ("consumer twice", 21, v3(group(pel=(), consumers=(consumer(b"c"), consumer(b"c"))))),
    ("pending id twice", 21, v3(group(pel=(ID, ID), consumers=(consumer(b"c", ID),)))),
    ("consumer owns what is not pending", 21, v3(group(consumers=(consumer(b"c", ID, OTHER_ID),)))),
    ("two consumers own one entry", 21, v3(group(consumers=(consumer(b"c", ID), consumer(b"d", ID))))),
    ("one consumer owns an entry twice", 21, v3(group(consumers=(consumer(b"c", ID, ID),)))),
    ("nobody owns a pending entry", 21, v3(group(consumers=(consumer(b"c"),)))),
    ("nobody owns a pending entry, 8.8", 27, v5(group(consumers=(consumer(b"c"),), nacked=length(0)))),
    ("given back, but not pending", 27, v5(group(pel=(), nacked=length(1) + ID))),
    ("given back twice", 27, v5(group(nacked=length(2) + ID * 2))),
    ("given back, but owned", 27, v5(group(consumers=(consumer(b"c", ID),), nacked=length(1) + ID))),
    ("dedup of no seconds", 26, v4(0, 100, 0, 0, 0)),
    ("dedup of more than a day", 26, v4(86401, 100, 0, 0, 0)),
    ("dedup of no entries", 26, v4(100, 0, 0, 0, 0)),
    ("dedup of too many entries", 26, v4(100, 10001, 0, 0, 0)),
    ("producer twice", 26, v4(100, 100, 2, string(b"p"), 0, string(b"p"), 0, 0, 0)),
]
NAMES = b"\xf2" + length(7) + counted(string(b"a"), string(b"b"))
TEMPLATES = [
    ("template that the file does not have", 32, length(8) + string(b"1") * 2),
    ("template in a listpack that the file does not have", 30, string(lp(8, b"1", b"2"))),
    ("template in a listpack is no number", 30, string(lp(b"x", b"1", b"2"))),
    ("template in an empty listpack", 30, string(lp())),
    ("fewer values than the template has fields", 30, string(lp(7, b"1"))),
    ("more values than the template has fields", 30, string(lp(7, b"1", b"2", b"3"))),
    ("fewer values than fields", 29, b"\0" + string(lp(b"a", b"b")) + string(lp(0, b"1"))),
    ("more values than fields", 29, b"\0" + string(lp(b"a")) + string(lp(0, b"1", b"2"))),
    ("no fields", 31, b"\1\0"),
    ("no fields in a listpack", 31, b"\0" + string(lp())),
    ("fields do not ascend", 31, b"\1" + counted(string(b"b"), string(b"a")) + string(b"1") * 2),
    ("fields ascend by bytes, but not by length", 31, b"\1" + counted(string(b"aa"), string(b"b")) + string(b"1") * 2),
    ("field names twice", 31, b"\1" + counted(string(b"a"), string(b"a")) + string(b"1") * 2),
    ("listpack of fields counts wrong", 31, b"\0" + string(lp(b"a", b"b", count=1)) + string(b"1")),
    ("fields in format 2", 31, b"\2" + counted(string(b"a")) + string(b"1")),
]
DAMAGED = [
    *(Damage(rule, type_code, string(packed)) for rule, type_code, packed in PACKED),
    *(Damage(rule, type_code, value) for rule, type_code, value in TABLES + STREAMS),
    *(Damage(rule, type_code, value, b"REDIS0015", NAMES) for rule, type_code, value in TEMPLATES),
    Damage("expiry below -1", 22, counted(string(b"f") + string(b"v") + signed(-2, 8)), b"VALKEY080"),
    Damage("field twice, Valkey", 22, length(2) + (string(b"f") + string(b"v") + signed(-1, 8)) * 2, b"VALKEY080"),
    Damage("expiry is no number, Dragonfly", 31, counted(string(b"f") + string(b"v") + string(b"soon")), b"REDIS0009"),
    Damage("field twice, Dragonfly", 31, length(2) + (string(b"f") + string(b"v") + string(b"-1")) * 2, b"REDIS0009"),
    Damage("member twice, Dragonfly", 32, length(2) + (string(b"m") + string(b"-1")) * 2, b"REDIS0009"),
]
#: What elements in bounded memory cannot tell: whether one of a collection has been there before.
ONLY_AS_A_WHOLE = {d.rule for d in DAMAGED if re.match("(field|member|array index).* twice", d.rule)} - {"field names twice"}
#: What is read with a warning, and named by `rdbkit.verify`.
PASSED_OVER = {d.rule for d in DAMAGED if d.rule.startswith(("length is not that", "length without nodes", "nobody owns"))}
#: Values of the same builders that break no rule.
SOUND = [
    Damage("hash", 16, string(lp(b"f", b"v", b"g", -5))),
    Damage("long value", 16, string(listpack_of([entry(b"f"), b"\xe0\xc8" + LONG + b"\x01\xca"]))),
    Damage("backlen of 16382", 16, string(lp(b"f", b"x" * 16377))),
    Damage("backlen of 16383", 16, string(lp(b"f", b"x" * 16378))),
    Damage("zset", 17, string(lp(b"m", 1, b"n", b"inf"))),
    Damage("ziplist", 10, string(zl(b"a", b"b"))),
    Damage("intset", 11, string(struct.pack("<IIhh", 2, 2, -1, 2))),
    Damage("zipmap", 9, string(b"\x01\x01f\x01\x00v\xff")),
    Damage("expiries", 24, signed(1 << 47, 8) + counted(length(2) + string(b"f") + string(b"v"))),
    Damage("triples", 25, signed(0, 8) + string(lp(b"f", b"v", 1000, b"g", b"w", 1000, b"h", b"x", 0))),
    Damage("array", 28, length(2) + b"\0" + b"\4\3" + string(b"1234567") + b"\5\0" + string(b"v")),
    Damage("stream", 21, v3(group(consumers=(consumer(b"c", ID),)))),
    Damage("two nodes", 21, stream_of(GOOD_NODE, stream_node(*ONE_ENTRY, at=(6, 1)), live=2, last=(6, 1))),
    Damage("deleted entry", 21, stream_of(stream_node(1, 1, *ONE_ENTRY[2:], 3, 1, 0, b"w", 4))),
    Damage("dedup", 26, v4(86400, 10000, 1, string(b"p"), 1, string(b"i"), 5, 1, 0, 0)),
    Damage("given back", 27, v5(group(nacked=length(1) + ID))),
    Damage("template", 32, length(7) + string(b"1") * 2, b"REDIS0015", NAMES),
    Damage("template in a listpack", 30, string(lp(7, b"1", b"2")), b"REDIS0015", NAMES),
    Damage("fields", 31, b"\1" + counted(string(b"b"), string(b"aa")) + string(b"1") * 2, b"REDIS0015", NAMES),
]
READINGS = ["value", "elements"]


def place(damage: Damage) -> range:
    """Where the record stands in the file."""
    begin = len(rdb(damage.preamble, b"\xfe\x03", magic=damage.magic)) - 9
    return range(begin, begin + len(key(b"k", damage.type_code, damage.value)) + 1)


def read_all(damage: Damage, block_size: int, reading: str) -> None:
    data = rdb(damage.preamble, b"\xfe\x03", key(b"k", damage.type_code, damage.value), AFTER, magic=damage.magic)
    with rdbkit.open(io.BytesIO(data), block_size=block_size) as snapshot:
        for record in snapshot:
            _ = record.value if reading == "value" else list(record.elements())


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("block_size", [16, WHOLE])
@pytest.mark.parametrize("damage", [d for d in DAMAGED if d.rule not in PASSED_OVER], ids=lambda d: d.rule)
def test_a_broken_rule_is_an_error_that_says_where(damage: Damage, block_size: int, reading: str) -> None:
    if reading == "elements" and damage.rule in ONLY_AS_A_WHOLE:
        read_all(damage, block_size, reading)
        return
    with pytest.raises(rdbkit.CorruptError) as caught:
        read_all(damage, block_size, reading)
    assert caught.value.offset in place(damage)
    assert (caught.value.db, caught.value.key) == (3, b"k")
    assert caught.value.reading
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("block_size", [16, WHOLE])
@pytest.mark.parametrize("sound", SOUND, ids=lambda d: d.rule)
def test_the_same_without_the_damage_is_read(sound: Damage, block_size: int, reading: str) -> None:
    read_all(sound, block_size, reading)


#: What servers up to Redis 8.0 load, and no entry is in doubt: read, with a warning that names the rule.
HARMLESS = [
    ("stream-length", 21, stream_of(GOOD_NODE, live=2)),
    ("stream-no-node", 21, stream_of(live=2)),
    ("stream-last-id", 21, stream_of(GOOD_NODE, last=(0, 1))),
    ("stream-order", 21, stream_of(stream_node(2, 0, *ONE_ENTRY[2:], 2, 0, 0, b"w", 4), live=2)),
    ("pending-unowned", 21, v3(group(consumers=(consumer(b"c"),)))),
    ("pending-unowned", 27, v5(group(consumers=(consumer(b"c"),), nacked=length(0)))),
]


@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.parametrize("block_size", [16, WHOLE])
@pytest.mark.parametrize(("rule", "type_code", "value"), HARMLESS)
def test_a_harmless_fault_is_a_warning(rule: str, type_code: int, value: bytes, block_size: int, reading: str) -> None:
    data = rdb(b"", b"\xfe\x03", key(b"k", type_code, value), AFTER)
    with rdbkit.open(io.BytesIO(data), block_size=block_size) as snapshot:
        for record in snapshot:
            _ = record.value if reading == "value" else list(record.elements())
    assert [(e.rule, e.db, e.key) for e in snapshot.warnings] == [(rule, 3, b"k")]


def test_each_rule_has_its_own_case() -> None:
    rules = [d.rule for d in DAMAGED]
    assert len(set(rules)) == len(rules)


def test_the_encoders_write_what_the_format_says() -> None:
    assert intset({1, -(1 << 40)}, Random(1)) == struct.pack("<IIqq", 8, 2, -(1 << 40), 1)
    assert backlen(127) == b"\x7f"
    assert backlen(128) == b"\x01\x80"
    assert backlen(16383) == b"\x00\xff\xff"
    assert lzf(b"ab" * 6) == b"\x01ab\xe0\x01\x01"
    assert text(b"12", Random(1)) in {b"\x0212", b"\xc0\x0c", b"\xc1\x0c\0", b"\xc2\x0c\0\0\0", b"\x40\x0212", b"\xc3\3\2\x0112"}
    assert frames([(1, 5), (5, b"x")]) == b"\1\5\5\1x\0"


@pytest.mark.parametrize("block_size", [64, 5000, 1 << 20])
@pytest.mark.parametrize("odd", [None, 0, 255, 256, 300, 999])
def test_many_elements_of_one_length_but_for_one(odd: int | None, block_size: int) -> None:
    """Such are taken many at a time where the form is interpreted."""
    members = [b"longer than all others" if i == odd else b"id:%06d" % i for i in range(1000)]
    scores = [float(i) for i in range(1000)]
    data = rdb(
        key(b"s", 2, length(1000) + b"".join(map(string, members))),
        key(b"z", 5, length(1000) + b"".join(string(m) + struct.pack("<d", x) for m, x in zip(members, scores, strict=True))),
    )
    with rdbkit.open(io.BytesIO(data), block_size=block_size) as snapshot:
        values = [record.value for record in snapshot]
    assert values == [set(members), dict(zip(members, scores, strict=True))]


def test_no_number_among_many_scores_is_found() -> None:
    pairs = b"".join(string(b"id:%06d" % i) + struct.pack("<d", math.nan if i == 200 else i) for i in range(600))
    with rdbkit.open(io.BytesIO(rdb(key(b"z", 5, length(600) + pairs)))) as snapshot:
        (record,) = snapshot
        with pytest.raises(rdbkit.CorruptError, match="not a number"):
            record.value  # noqa: B018

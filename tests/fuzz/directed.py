"""Small files that each break one rule at one place, and their sound twins.

`cases()` gives them: for each value type the damage that can stand inside of it, and what can be wrong around values.
A key stands before the damaged one and one behind it, so that a loader that goes astray is seen to. Everything here is written from
the format's description alone, with the encoders of `tests.encoders`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any, NamedTuple

from rdbkit.values import StreamId
from tests.encoders import (
    backlen,
    listpack_entry,
    listpack_of,
    lzf,
    raw_id,
    signed,
    text_double,
    ziplist_body,
    ziplist_of,
)
from tests.rdb import aux, key, length, rdb, string

U64 = (1 << 64) - 1
LATER = 4_102_444_800_000  # ms: a time at which no test runs any more


class Case(NamedTuple):
    """A file and what is wrong with it.

    Attributes:
        name: tells it from all others.
        magic: its first bytes, such as b"REDIS0009".
        type, encoding: of the damaged value, such as "hash" and "listpack"; "file" where it is no value.
        damage: what is wrong, in words; it begins with "sound" where nothing is, and with "beyond" where only a server can tell:
            what code in Lua does, and how many databases it is configured for.
        data: the file.
    """

    name: str
    magic: bytes
    type: str
    encoding: str
    damage: str
    data: bytes


class Shortest(Random):
    """Chance that always takes the form that servers write."""

    def choice(self, seq: Any) -> Any:
        return min(seq, key=len) if isinstance(seq[0], bytes) else seq[0]

    def random(self) -> float:
        return 0.5


PLAIN = Shortest()


# Parts


def strings(items: Sequence[bytes]) -> bytes:
    return b"".join(map(string, items))


def counted(items: Sequence[bytes]) -> bytes:
    return length(len(items)) + strings(items)


def entry(item: bytes | int) -> bytes:
    """An entry of a listpack."""
    return listpack_entry(item, PLAIN)


def wide(item: int, code: int, width: int) -> bytes:
    """A number in more bytes than it needs."""
    body = bytes([code]) + signed(item, width)
    return body + backlen(len(body))


def lp(items: Sequence[bytes | int], **header: Any) -> bytes:
    return listpack_of([entry(i) for i in items], **header)


def zl_entries(items: Sequence[bytes]) -> list[bytes]:
    entries: list[bytes] = []
    for item in items:
        size = len(entries[-1]) if entries else 0
        front = bytes([size]) if size < 254 else b"\xfe" + size.to_bytes(4, "little")
        entries.append(front + ziplist_body(item, PLAIN))
    return entries


def zl(items: Sequence[bytes], **header: Any) -> bytes:
    return ziplist_of(zl_entries(items), **header)


def listpack_damage(items: Sequence[bytes | int]) -> Iterator[tuple[str, bytes]]:
    """A listpack of `items`, damaged in each way that a listpack can be, whatever is in it."""
    good = [entry(i) for i in items]
    whole = listpack_of(good)
    n = len(good)
    yield "listpack header: size one more", listpack_of(good, size=len(whole) + 1)
    yield "listpack header: size one less", listpack_of(good, size=len(whole) - 1)
    yield "listpack header: size 0", listpack_of(good, size=0)
    yield "listpack header: size 2^32-1", listpack_of(good, size=0xFFFFFFFF)
    yield "listpack header: count one more", listpack_of(good, count=n + 1)
    yield "listpack header: count one less", listpack_of(good, count=n - 1)
    yield "listpack header: count 0", listpack_of(good, count=0)
    yield "listpack header: count 65534", listpack_of(good, count=65534)
    yield "sound: listpack header: count 65535, unknown", listpack_of(good, count=65535)
    yield "listpack: last byte 0", listpack_of(good, end=b"\0")
    yield "listpack: last byte missing", listpack_of(good, end=b"")
    yield "listpack: bytes behind its end mark", listpack_of([*good, b"\xff"], count=n)
    yield "listpack: end mark in the middle", listpack_of([*good[:1], b"\xff", *good[1:]], count=n)
    yield "listpack: end mark as entry in the middle", listpack_of([*good[:1], b"\xff\x01", *good[1:]], count=n)
    yield "listpack entry: encoding 0xf5", listpack_of([*good[:-1], b"\xf5\x01"], count=n)
    yield "listpack entry: runs over the end", listpack_of([*good[:-1], b"\xbf" + b"abc" + b"\x04"], count=n)
    yield "listpack entry: 4 GB string", listpack_of([*good[:-1], b"\xf0\xff\xff\xff\xff" + b"abc" + b"\x08"], count=n)
    yield "listpack entry: size behind it too small", listpack_of([*good[:-1], b"\x83abc\x03"], count=n)
    yield "listpack entry: size behind it too large", listpack_of([*good[:-1], b"\x83abc\x05"], count=n)
    yield "listpack entry: size behind it 0", listpack_of([*good[:-1], b"\x83abc\x00"], count=n)
    yield "listpack entry: size behind the first too large", listpack_of([good[0][:-1] + b"\x7f", *good[1:]], count=n)
    yield "listpack entry: size behind it in two bytes", listpack_of([*good[:-1], b"\x83abc\x00\x84"], count=n)
    if isinstance(items[0], int):
        yield "sound: listpack entry: small number in 8 bytes", listpack_of([wide(items[0], 0xF4, 8), *good[1:]], count=n)
    else:
        long = b"\xf0" + len(items[0]).to_bytes(4, "little") + items[0]
        yield "sound: listpack entry: short string with a long length", listpack_of([long + backlen(len(long)), *good[1:]], count=n)
    yield "listpack: 3 bytes", b"\x03\0\0"
    yield "listpack: 6 bytes", b"\x06\0\0\0\0\0"
    yield "listpack: no bytes", b""


def ziplist_damage(items: Sequence[bytes]) -> Iterator[tuple[str, bytes]]:
    """A ziplist of `items`, damaged in each way that a ziplist can be."""
    good = zl_entries(items)
    whole = ziplist_of(good)
    n = len(good)
    last = 10 + sum(map(len, good[:-1]))
    front = bytes([len(good[-2])])
    yield "ziplist header: size one more", ziplist_of(good, size=len(whole) + 1)
    yield "ziplist header: size one less", ziplist_of(good, size=len(whole) - 1)
    yield "ziplist header: size 0", ziplist_of(good, size=0)
    yield "ziplist header: size 2^32-1", ziplist_of(good, size=0xFFFFFFFF)
    yield "ziplist header: count one more", ziplist_of(good, count=n + 1)
    yield "ziplist header: count one less", ziplist_of(good, count=n - 1)
    yield "ziplist header: count 0", ziplist_of(good, count=0)
    yield "ziplist header: count 65534", ziplist_of(good, count=65534)
    yield "sound: ziplist header: count 65535, unknown", ziplist_of(good, count=65535)
    yield "ziplist header: tail at the first entry", ziplist_of(good, tail=10)
    yield "ziplist header: tail one more", ziplist_of(good, tail=last + 1)
    yield "ziplist header: tail behind the end", ziplist_of(good, tail=len(whole) + 5)
    yield "ziplist header: tail at the end mark", ziplist_of(good, tail=len(whole) - 1)
    yield "ziplist: last byte 0", ziplist_of(good, end=b"\0")
    yield "ziplist: last byte missing", ziplist_of(good, end=b"")
    yield "ziplist: bytes behind its end mark", ziplist_of([*good, b"\xff"], count=n, tail=last)
    yield "ziplist: end mark in the middle", ziplist_of([*good[:1], b"\xff", *good[1:]], count=n, tail=last + 1)
    yield "ziplist entry: encoding 0xc1", ziplist_of([*good[:-1], front + b"\xc1\x01\x01"], count=n, tail=last)
    yield "ziplist entry: encoding 0xff", ziplist_of([*good[:-1], front + b"\xff"], count=n, tail=last)
    yield "ziplist entry: runs over the end", ziplist_of([*good[:-1], front + b"\x3fabc"], count=n, tail=last)
    yield "ziplist entry: 4 GB string", ziplist_of([*good[:-1], front + b"\x80\xff\xff\xff\xffabc"], count=n, tail=last)
    yield "ziplist entry: previous size one more", ziplist_of([*good[:-1], bytes([front[0] + 1]) + good[-1][1:]], count=n)
    yield "ziplist entry: previous size 0", ziplist_of([*good[:-1], b"\0" + good[-1][1:]], count=n)
    yield "ziplist entry: previous size of the first not 0", ziplist_of([b"\5" + good[0][1:], *good[1:]], count=n)
    long = b"\xfe" + len(good[-2]).to_bytes(4, "little") + good[-1][1:]
    yield "sound: ziplist entry: small previous size in 5 bytes", ziplist_of([*good[:-1], long], count=n, tail=last)
    yield "ziplist: 3 bytes", b"\x03\0\0"
    yield "ziplist: 10 bytes", struct.pack("<IIH", 10, 10, 0)
    yield "ziplist: no bytes", b""


# Values: each gives (damage, bytes of the value)

Values = Iterator[tuple[str, bytes]]


def string_damage() -> Values:
    long = b"abcdefgh" * 40
    packed = lzf(long)
    yield "sound: LZF", b"\xc3" + length(len(packed)) + length(len(long)) + packed
    yield "LZF: one byte more announced", b"\xc3" + length(len(packed)) + length(len(long) + 1) + packed
    yield "LZF: one byte less announced", b"\xc3" + length(len(packed)) + length(len(long) - 1) + packed
    yield "LZF: reference before the beginning", b"\xc3" + length(len(packed)) + length(len(long)) + b"\x00a\x20\x50" + packed[4:]
    yield "LZF: announces 0 bytes", b"\xc3" + length(len(packed)) + length(0) + packed
    yield "LZF: 0 bytes, announces 5", b"\xc3" + length(0) + length(5)
    yield "LZF: cut within a literal", b"\xc3" + length(2) + length(5) + b"\x04a"
    yield "string form 0xc4", b"\xc4"
    yield "sound: number in a longer form", b"\xc2\x05\0\0\0"
    yield "sound: length in 5 bytes", b"\x80\0\0\0\x03abc"


def list_damage() -> Values:
    yield "sound", counted([b"a", b"b", b"a"])
    yield "no elements", length(0)


def set_damage() -> Values:
    many = [b"m%d" % i for i in range(600)]
    numbers = [b"%d" % i for i in range(600)]
    yield "sound", counted([b"a", b"b", b"c"])
    yield "no elements", length(0)
    yield "member twice", counted([b"a", b"b", b"a"])
    yield "member twice, numbers", counted([b"1", b"2", b"1"])
    yield "member twice, as text and number", length(2) + string(b"7") + b"\xc0\x07"
    yield "member twice, number among texts", counted([b"1", b"a", b"1"])
    yield "member twice, of 200", counted([*many[:200], many[3]])
    yield "member twice, of 600", counted([*many, many[3]])
    yield "member twice, of 600 numbers", counted([*numbers, numbers[3]])
    yield "member twice, of 200 numbers", counted([*numbers[:200], numbers[3]])
    yield "member twice, long", counted([b"x" * 100, b"y", b"x" * 100])
    yield "member twice, next to itself", counted([b"a", b"a"])
    yield "sound: member without bytes", counted([b"", b"a"])
    yield "member twice, without bytes", counted([b"", b"a", b""])


def zset_text_damage() -> Values:
    def pairs(*items: tuple[bytes, bytes]) -> bytes:
        return length(len(items)) + b"".join(string(m) + s for m, s in items)

    one, two = text_double(1.0), text_double(2.0)
    yield "sound", pairs((b"a", one), (b"b", two))
    yield "no elements", pairs()
    yield "member twice", pairs((b"a", one), (b"a", two))
    yield "member twice, same score", pairs((b"a", one), (b"a", one))
    yield "member twice, of 200", pairs(*((b"m%d" % i, text_double(i)) for i in range(200)), (b"m3", one))
    yield "score NaN", pairs((b"a", b"\xfd"), (b"b", two))
    yield "score NaN, as text", pairs((b"a", b"\x03nan"), (b"b", two))
    yield "score NaN, of 200", pairs(*((b"m%d" % i, text_double(i)) for i in range(200)), (b"n", b"\xfd"))
    yield "score that is no number", pairs((b"a", b"\x03abc"), (b"b", two))
    yield "score with text behind the number", pairs((b"a", b"\x031.x"), (b"b", two))
    yield "score without text", pairs((b"a", b"\x00"), (b"b", two))
    yield "score in hexadecimal", pairs((b"a", b"\x040x10"), (b"b", two))
    yield "score with a blank in front", pairs((b"a", b"\x02 1"), (b"b", two))
    yield "score out of range", pairs((b"a", b"\x051e999"), (b"b", two))
    yield "sound: scores infinite", pairs((b"a", b"\xff"), (b"b", b"\xfe"))
    yield "sound: score infinite, as text", pairs((b"a", b"\x03inf"), (b"b", two))


def zset_damage() -> Values:
    def pairs(*items: tuple[bytes, float]) -> bytes:
        return length(len(items)) + b"".join(string(m) + struct.pack("<d", s) for m, s in items)

    nan = math.nan
    minus_nan = struct.unpack("<d", b"\0\0\0\0\0\0\xf8\xff")[0]
    many = [(b"m%d" % i, float(i)) for i in range(200)]
    yield "sound", pairs((b"a", 1), (b"b", 2))
    yield "no elements", pairs()
    yield "member twice", pairs((b"a", 1), (b"a", 2))
    yield "member twice, same score", pairs((b"a", 1), (b"a", 1))
    yield "member twice, of 200", pairs(*many, (b"m3", 7))
    yield "member twice, as text and number", length(2) + string(b"7") + struct.pack("<d", 1) + b"\xc0\x07" + struct.pack("<d", 2)
    yield "score NaN", pairs((b"a", nan), (b"b", 2))
    yield "score NaN, negative", pairs((b"a", minus_nan), (b"b", 2))
    yield "score NaN, of 200", pairs(*many, (b"n", nan))
    yield "sound: scores infinite", pairs((b"a", math.inf), (b"b", -math.inf))
    yield "sound: scores in no order", pairs((b"a", 9), (b"b", -2), (b"c", 0), (b"d", -0.0))


def hash_damage() -> Values:
    def pairs(*items: bytes) -> bytes:
        return length(len(items) // 2) + strings(items)

    many = [part for i in range(600) for part in (b"f%d" % i, b"v")]
    yield "sound", pairs(b"a", b"1", b"b", b"2")
    yield "no elements", pairs()
    yield "field twice", pairs(b"a", b"1", b"a", b"2")
    yield "field twice, same value", pairs(b"a", b"1", b"b", b"2", b"a", b"1")
    yield "field twice, numbers", pairs(b"5", b"1", b"b", b"2", b"5", b"1")
    yield "field twice, of 200", pairs(*many[:400], b"f3", b"w")
    yield "field twice, of 600", pairs(*many, b"f3", b"w")
    yield "field twice, long value before it", pairs(b"a", b"x" * 100, b"a", b"2")
    yield "field twice, long value behind it", pairs(b"a", b"2", b"a", b"x" * 100)
    yield "field twice, without bytes", pairs(b"", b"1", b"", b"2")
    yield "field twice, as text and number", length(2) + string(b"7") + string(b"a") + b"\xc0\x07" + string(b"b")


def zipmap_of(pairs: Sequence[tuple[bytes, bytes]], count: int | None = None, free: int = 0, end: bytes = b"\xff") -> bytes:
    out = bytes([min(len(pairs), 254) if count is None else count])
    for field, value in pairs:
        out += bytes([len(field)]) + field + bytes([len(value), free]) + value + b"\0" * free
    return out + end


def zipmap_damage() -> Values:
    good = [(b"a", b"1"), (b"b", b"2"), (b"c", b"3")]
    many = [(b"f%d" % i, b"v") for i in range(260)]
    for damage, blob in (
        ("sound", zipmap_of(good)),
        ("sound: free bytes behind values", zipmap_of(good, free=3)),
        ("sound: count 254, unknown", zipmap_of(good, 254)),
        ("sound: 260 fields, count 254", zipmap_of(many)),
        ("count 255", zipmap_of(good, 255)),
        ("260 fields, count 255", zipmap_of(many, 255)),
        ("count 253", zipmap_of(good, 253)),
        ("count one more", zipmap_of(good, 4)),
        ("count one less", zipmap_of(good, 2)),
        ("count 0", zipmap_of(good, 0)),
        ("no elements", b"\0\xff"),
        ("no elements, count 254", b"\xfe\xff"),
        ("no elements, count 255", b"\xff\xff"),
        ("1 byte", b"\xff"),
        ("no bytes", b""),
        ("field twice", zipmap_of([*good, (b"a", b"9")])),
        ("field twice, of 260", zipmap_of([*many, (b"f7", b"9")])),
        ("last byte 0", zipmap_of(good, end=b"\0")),
        ("last byte missing", zipmap_of(good, end=b"")),
        ("bytes behind its end mark", zipmap_of(good, end=b"\xff\xff")),
        ("end mark in the middle", zipmap_of(good[:1]) + zipmap_of(good[1:])[1:]),
        ("field without a value", b"\x02\x01a\x01\x001\x01b\xff"),
        ("field runs over the end", b"\x01\x50a\x01\x001\xff"),
        ("value runs over the end", b"\x01\x01a\x50\x001\xff"),
        ("value of 4 GB", b"\x01\x01a\xfe\xff\xff\xff\xff\x001\xff"),
        ("field of 4 GB", b"\x01\xfe\xff\xff\xff\xffa\x01\x001\xff"),
        ("free bytes run over the end", b"\x01\x01a\x01\x501\xff"),
        ("short lengths in 5 bytes", b"\x01\xfe\x01\0\0\0a\xfe\x01\0\0\0\x001\xff"),
    ):
        yield damage, string(blob)


def list_ziplist_damage() -> Values:
    items = [b"one", b"22", b"three", b"abc"]
    yield "sound", string(zl(items))
    yield "no elements", string(zl([]))
    for damage, blob in ziplist_damage(items):
        yield damage, string(blob)


def intset_of(numbers: Sequence[int], width: int = 2, *, count: int | None = None, header: int | None = None) -> bytes:
    count = len(numbers) if count is None else count
    return struct.pack("<II", width if header is None else header, count) + b"".join(signed(n, width) for n in numbers)


def intset_damage() -> Values:
    for damage, blob in (
        ("sound", intset_of([1, 2, 3])),
        ("sound: 8 bytes a number", intset_of([1, 2, 3], 8)),
        ("sound: 600 numbers", intset_of(range(600))),
        ("no elements", intset_of([])),
        ("count one more", intset_of([1, 2, 3], count=4)),
        ("count one less", intset_of([1, 2, 3], count=2)),
        ("count 0", intset_of([1, 2, 3], count=0)),
        ("count 2^32-1", intset_of([1, 2, 3], count=0xFFFFFFFF)),
        ("width 1", intset_of([1, 2, 3, 4], header=1)),
        ("width 0", intset_of([1, 2, 3], header=0)),
        ("width 4, numbers of 2", intset_of([1, 2, 3, 4], header=4)),
        ("width 2, numbers of 4", intset_of([1, 2, 3], 4, header=2)),
        ("width 3", struct.pack("<II", 3, 2) + b"\1\0\0\2\0\0"),
        ("width 16", struct.pack("<II", 16, 1) + bytes(16)),
        ("numbers descend", intset_of([3, 2, 1])),
        ("two numbers swapped", intset_of([1, 3, 2, 4])),
        ("number twice", intset_of([1, 2, 2, 3])),
        ("number twice, not side by side", intset_of([1, 2, 1, 3])),
        ("number twice, of 600", intset_of([*range(300), *range(299, 600)])),
        ("a byte behind it", intset_of([1, 2, 3]) + b"\0"),
        ("7 bytes", b"\2\0\0\0\1\0\0"),
        ("no bytes", b""),
    ):
        yield damage, string(blob)


def packed_zset_damage(pack: Any) -> Values:
    """What ziplists and listpacks of scores have in common; `pack` makes one of texts."""
    yield "sound", pack([b"a", b"1", b"b", b"2", b"c", b"2.5"])
    yield "no elements", pack([])
    yield "member twice", pack([b"a", b"1", b"a", b"2"])
    yield "member twice, same score", pack([b"a", b"1", b"a", b"1"])
    yield "member twice, not side by side", pack([b"a", b"1", b"b", b"2", b"a", b"3"])
    yield "member twice, of 200", pack([part for i in [*range(200), 3] for part in (b"m%d" % i, b"1")])
    yield "member without a score", pack([b"a", b"1", b"b"])
    yield "one member without a score", pack([b"a"])
    yield "score NaN", pack([b"a", b"1", b"b", b"nan"])
    yield "score NaN, first", pack([b"a", b"nan", b"b", b"1"])
    yield "score NaN, negative", pack([b"a", b"1", b"b", b"-nan"])
    yield "score NaN with digits", pack([b"a", b"1", b"b", b"nan(5)"])
    yield "score NaN, of 200", pack([part for i in range(200) for part in (b"m%d" % i, b"1" if i < 199 else b"nan")])
    yield "score that is no number", pack([b"a", b"1", b"b", b"abc"])
    yield "score with text behind the number", pack([b"a", b"1", b"b", b"2x"])
    yield "score without text", pack([b"a", b"", b"b", b"2"])
    yield "score in hexadecimal", pack([b"a", b"1", b"b", b"0x10"])
    yield "score with a blank in front", pack([b"a", b"1", b"b", b" 2"])
    yield "score of 300 digits", pack([b"a", b"1", b"b", b"2" * 300])
    yield "score of 127 digits", pack([b"a", b"1", b"b", b"2" * 127])
    yield "score of 128 digits", pack([b"a", b"1", b"b", b"2" * 128])
    yield "score out of range", pack([b"a", b"1", b"b", b"1e999"])
    yield "sound: scores infinite", pack([b"a", b"-inf", b"b", b"inf"])
    yield "scores not in order", pack([b"a", b"2", b"b", b"1"])
    yield "scores not in order, of 200", pack([part for i in range(200) for part in (b"m%d" % i, b"%d" % (999 - i))])
    yield "members not in order, same score", pack([b"b", b"1", b"a", b"1"])
    yield "sound: member without bytes", pack([b"", b"1", b"b", b"2"])
    yield "sound: member of 100 bytes", pack([b"x" * 100, b"1", b"b", b"2"])


def packed_hash_damage(pack: Any) -> Values:
    yield "sound", pack([b"a", b"1", b"b", b"2"])
    yield "no elements", pack([])
    yield "field twice", pack([b"a", b"1", b"a", b"2"])
    yield "field twice, not side by side", pack([b"a", b"1", b"b", b"2", b"a", b"1"])
    yield "field twice, numbers", pack([b"5", b"1", b"b", b"2", b"5", b"1"])
    yield "field twice, without bytes", pack([b"", b"1", b"", b"2"])
    yield "field twice, of 200", pack([part for i in [*range(200), 3] for part in (b"m%d" % i, b"v")])
    yield "field twice, of 600", pack([part for i in [*range(600), 3] for part in (b"m%d" % i, b"v")])
    yield "field twice, long", pack([b"x" * 100, b"1", b"b", b"2", b"x" * 100, b"1"])
    yield "field without a value", pack([b"a", b"1", b"b"])
    yield "one field without a value", pack([b"a"])
    yield "sound: 600 fields", pack([part for i in range(600) for part in (b"m%d" % i, b"v")])


def zset_ziplist_damage() -> Values:
    yield from packed_zset_damage(lambda items: string(zl(items)))
    for damage, blob in ziplist_damage([b"a", b"1", b"abc", b"2"]):
        yield damage, string(blob)


def hash_ziplist_damage() -> Values:
    yield from packed_hash_damage(lambda items: string(zl(items)))
    for damage, blob in ziplist_damage([b"a", b"one", b"b", b"abc"]):
        yield damage, string(blob)


def zset_listpack_damage() -> Values:
    yield from packed_zset_damage(lambda items: string(lp(items)))
    for damage, blob in listpack_damage([b"aa", 1, b"abc", 2]):
        yield damage, string(blob)
    twice = listpack_of([entry(7), entry(1), listpack_string(b"7"), entry(2)])
    yield "member twice, as text and number", string(twice)


def hash_listpack_damage() -> Values:
    yield from packed_hash_damage(lambda items: string(lp(items)))
    for damage, blob in listpack_damage([b"aa", b"one", b"b", b"abc"]):
        yield damage, string(blob)
    twice = listpack_of([entry(7), entry(1), listpack_string(b"7"), entry(2)])
    yield "field twice, as text and number", string(twice)


def set_listpack_damage() -> Values:
    yield "sound", string(lp([b"a", b"b", 3]))
    yield "no elements", string(lp([]))
    yield "member twice", string(lp([b"a", b"b", b"a"]))
    yield "member twice, numbers", string(lp([1, 2, 1]))
    yield "member twice, of 200", string(lp([b"m%d" % i for i in [*range(200), 3]]))
    yield "sound: 200 members", string(lp([b"m%d" % i for i in range(200)]))
    yield "member twice, as text and number", string(listpack_of([entry(7), listpack_string(b"7")]))
    yield "sound: numbers alone", string(lp([1, 2, 3]))
    for damage, blob in listpack_damage([b"aa", b"one", 5, b"abc"]):
        yield damage, string(blob)


def listpack_string(data: bytes) -> bytes:
    """An entry that is text though it could be a number."""
    body = bytes([0x80 | len(data)]) + data
    return body + backlen(len(body))


def quicklist_damage() -> Values:
    good, other = zl([b"one", b"22", b"abc"]), zl([b"x", b"y"])
    yield "sound", counted([good, other])
    yield "no nodes", length(0)
    yield "node without elements", counted([good, zl([])])
    yield "node without elements, first", counted([zl([]), good])
    yield "no elements, one node", counted([zl([])])
    yield "no elements, two nodes", counted([zl([]), zl([])])
    for damage, blob in ziplist_damage([b"one", b"22", b"abc", b"x"]):
        yield damage, counted([good, blob])
    yield "more nodes than stated", length(1) + strings([good, other])


def quicklist2_damage() -> Values:
    def nodes(*items: tuple[int, bytes]) -> bytes:
        return length(len(items)) + b"".join(length(container) + string(blob) for container, blob in items)

    good = lp([b"one", 22, b"abc"])
    yield "sound", nodes((2, good), (1, b"plain"))
    yield "no nodes", nodes()
    yield "node without elements", nodes((2, good), (2, lp([])))
    yield "node without elements, first", nodes((2, lp([])), (2, good))
    yield "no elements, one node", nodes((2, lp([])))
    yield "no elements, two nodes", nodes((2, lp([])), (2, lp([])))
    yield "plain node without bytes", nodes((2, good), (1, b""))
    yield "plain node without bytes, alone", nodes((1, b""))
    yield "container 0", nodes((2, good), (0, good))
    yield "container 3", nodes((2, good), (3, good))
    yield "container 2^32-1", nodes((2, good), (0xFFFFFFFF, good))
    yield "sound: plain node of a few bytes", nodes((1, b"x"))
    yield "sound: node called plain that is a listpack", nodes((1, good))
    yield "node called a listpack that is text", nodes((2, b"just some text, no listpack"))
    for damage, blob in listpack_damage([b"one", 22, b"abc", b"x"]):
        yield damage, nodes((2, good), (2, blob))


# Hashes with expiring fields


def hash_valkey_damage() -> Values:
    def fields(*items: tuple[bytes, bytes, int]) -> bytes:
        return length(len(items)) + b"".join(string(f) + string(v) + signed(t, 8) for f, v, t in items)

    yield "sound", fields((b"a", b"1", LATER), (b"b", b"2", -1))
    yield "no elements", fields()
    yield "field twice", fields((b"a", b"1", LATER), (b"a", b"2", LATER))
    yield "field twice, one expires", fields((b"a", b"1", LATER), (b"a", b"2", -1))
    yield "field twice, none expires", fields((b"a", b"1", -1), (b"a", b"2", -1))
    yield "field twice, of 600", fields(*((b"f%d" % i, b"v", LATER) for i in [*range(600), 3]))
    yield "field expires at -2", fields((b"a", b"1", -2), (b"b", b"2", LATER))
    yield "sound: no field expires", fields((b"a", b"1", -1), (b"b", b"2", -1))
    yield "expired field: at 0", fields((b"a", b"1", 0), (b"b", b"2", LATER))
    yield "expired field: at 1", fields((b"a", b"1", 1), (b"b", b"2", LATER))
    yield "expired field: all", fields((b"a", b"1", 1), (b"b", b"2", 1))
    for bits in (46, 47, 48, 56, 62):
        yield f"field expires at 2^{bits}", fields((b"a", b"1", 1 << bits), (b"b", b"2", LATER))
    yield "field expires at 2^63-1", fields((b"a", b"1", (1 << 63) - 1), (b"b", b"2", LATER))
    yield "field expires at -2^63", fields((b"a", b"1", -(1 << 63)), (b"b", b"2", LATER))


def hash_rc_damage() -> Values:
    def fields(*items: tuple[bytes, bytes, int]) -> bytes:
        return length(len(items)) + b"".join(length(t) + string(f) + string(v) for f, v, t in items)

    yield "sound", fields((b"a", b"1", LATER), (b"b", b"2", 0))
    yield "no elements", fields()
    yield "field twice", fields((b"a", b"1", LATER), (b"a", b"2", LATER))
    yield "field expires at 2^48", fields((b"a", b"1", 1 << 48))


def hash_expiring_damage() -> Values:
    def fields(least: int, *items: tuple[bytes, bytes, int]) -> bytes:
        return signed(least, 8) + length(len(items)) + b"".join(length(t) + string(f) + string(v) for f, v, t in items)

    top = (1 << 48) - 1
    yield "sound", fields(LATER, (b"a", b"1", 1), (b"b", b"2", 0), (b"c", b"3", 500))
    yield "no elements", fields(LATER)
    yield "no elements, earliest 0", fields(0)
    yield "field twice", fields(LATER, (b"a", b"1", 1), (b"a", b"2", 1))
    yield "field twice, one expires", fields(LATER, (b"a", b"1", 1), (b"a", b"2", 0))
    yield "field twice, none expires", fields(LATER, (b"a", b"1", 0), (b"a", b"2", 0))
    yield "field twice, of 600", fields(LATER, *((b"f%d" % i, b"v", 1) for i in [*range(600), 3]))
    yield "sound: 600 fields", fields(LATER, *((b"f%d" % i, b"v", 1 + i) for i in range(600)))
    yield "no field expires, earliest later", fields(LATER, (b"a", b"1", 0), (b"b", b"2", 0))
    yield "sound: no field expires, earliest 0", fields(0, (b"a", b"1", 0), (b"b", b"2", 0))
    yield "earliest 0, fields expire by distance", fields(0, (b"a", b"1", LATER), (b"b", b"2", LATER))
    yield "earliest is earlier than any field", fields(LATER, (b"a", b"1", 1000), (b"b", b"2", 0))
    yield "earliest is negative", fields(-5, (b"a", b"1", LATER), (b"b", b"2", 0))
    yield "earliest is in the past", fields(1000, (b"a", b"1", 1), (b"b", b"2", 0))
    yield "earliest 2^46", fields(1 << 46, (b"a", b"1", 1), (b"b", b"2", 0))
    yield "earliest 2^48-1", fields(top, (b"a", b"1", 1), (b"b", b"2", 0))
    yield "earliest 2^48", fields(top + 1, (b"a", b"1", 1), (b"b", b"2", 0))
    yield "earliest 2^48+1", fields(top + 2, (b"a", b"1", 1), (b"b", b"2", 0))
    yield "earliest 2^62", fields(1 << 62, (b"a", b"1", 1), (b"b", b"2", 0))
    yield "field expires at 2^48-1", fields(LATER, (b"a", b"1", top - LATER + 1), (b"b", b"2", 0))
    yield "field expires at 2^48", fields(LATER, (b"a", b"1", top - LATER + 2), (b"b", b"2", 0))
    yield "field expires at 2^47", fields(LATER, (b"a", b"1", (1 << 47) - LATER), (b"b", b"2", 0))
    yield "field expires 2^63 later", fields(LATER, (b"a", b"1", 1 << 63), (b"b", b"2", 0))
    yield "field expires 2^64-1 later", fields(LATER, (b"a", b"1", U64), (b"b", b"2", 0))


def hash_expiring_listpack_damage() -> Values:
    def packed(least: int, *items: bytes | int, **header: Any) -> bytes:
        return signed(least, 8) + string(lp(items, **header))

    top = (1 << 48) - 1
    yield "sound", packed(LATER, b"a", b"1", LATER, b"c", b"3", LATER + 500, b"b", b"2", 0)
    yield "no elements", packed(LATER)
    yield "field twice", packed(LATER, b"a", b"1", LATER, b"a", b"2", LATER)
    yield "field twice, none expires", packed(0, b"a", b"1", 0, b"a", b"2", 0)
    yield "field twice, of 200", packed(LATER, *(part for i in [*range(200), 3] for part in (b"m%d" % i, b"v", LATER)))
    yield "sound: 200 fields", packed(LATER, *(part for i in range(200) for part in (b"m%d" % i, b"v", LATER + i)))
    yield "field without an expiry", packed(LATER, b"a", b"1", LATER, b"b", b"2")
    yield "field without a value", packed(LATER, b"a", b"1", LATER, b"b")
    yield "expiry that is text", packed(LATER, b"a", b"1", b"soon", b"b", b"2", 0)
    yield "expiry that is negative", packed(LATER, b"a", b"1", -5, b"b", b"2", 0)
    yield "expiry 2^46", packed(LATER, b"a", b"1", 1 << 46, b"b", b"2", 0)
    yield "expiry 2^47", packed(LATER, b"a", b"1", 1 << 47, b"b", b"2", 0)
    yield "expiry 2^48-1", packed(LATER, b"a", b"1", top, b"b", b"2", 0)
    yield "expiry 2^48", packed(LATER, b"a", b"1", top + 1, b"b", b"2", 0)
    yield "expiry 2^62", packed(LATER, b"a", b"1", 1 << 62, b"b", b"2", 0)
    yield "expiries not in order", packed(LATER, b"a", b"1", LATER + 9, b"b", b"2", LATER)
    yield "expiring field behind one that never does", packed(LATER, b"b", b"2", 0, b"a", b"1", LATER)
    yield "expired field", packed(1000, b"a", b"1", 1000, b"b", b"2", 0)
    yield "expired field: all", packed(1000, b"a", b"1", 1000, b"b", b"2", 1001)
    yield "earliest 0 though a field expires", packed(0, b"a", b"1", LATER, b"b", b"2", 0)
    yield "earliest is earlier than any field", packed(1000, b"a", b"1", LATER, b"b", b"2", 0)
    yield "earliest is later than a field", packed(LATER + 5, b"a", b"1", LATER, b"b", b"2", 0)
    yield "earliest though no field expires", packed(LATER, b"a", b"1", 0, b"b", b"2", 0)
    yield "earliest 2^48", packed(top + 1, b"a", b"1", LATER, b"b", b"2", 0)
    yield "earliest 2^62", packed(1 << 62, b"a", b"1", LATER, b"b", b"2", 0)
    yield "earliest is negative", packed(-5, b"a", b"1", LATER, b"b", b"2", 0)
    for damage, blob in listpack_damage([b"aa", b"one", LATER, b"b", b"abc", 0]):
        yield damage, signed(LATER, 8) + string(blob)


# Streams


Row = list[bytes | int]


def row(ms: int, seq: int, *values: bytes, flags: int = 2, back: int | None = None, fields: Sequence[bytes] = ()) -> Row:
    """An entry of a node: with the node's fields, or its own where `flags` has no 2."""
    if flags & 2:
        items: Row = [flags, ms, seq, *values]
        count = len(values) + 3
    else:
        items = [flags, ms, seq, len(fields), *(part for pair in zip(fields, values, strict=True) for part in pair)]
        count = 2 * len(fields) + 4
    return [*items, count if back is None else back]


def node_items(rows: Sequence[Row], **other: Any) -> Row:
    """What a node's listpack has; the keywords say something else than the truth at its head."""
    deleted = sum(int(r[0]) & 1 for r in rows)
    fields = other.get("fields", [b"f"])
    head = [other.get("live", len(rows) - deleted), other.get("deleted", deleted), other.get("names", len(fields)), *fields]
    return [*head, other.get("zero", 0), *(part for r in rows for part in r)]


def node(base: StreamId, *rows: Row, **other: Any) -> tuple[bytes, bytes]:
    return raw_id(base), lp(node_items(rows, **other))


Consumer = tuple[bytes, Sequence[StreamId]]
LAST = StreamId(9, 0)


def group_of(
    name: bytes,
    pending: Sequence[StreamId] = (),
    consumers: Sequence[Consumer] = (),
    *,
    last: StreamId = LAST,
    read: int = 3,
    delivered: int = 1_700_000_000_000,
    seen: int = 1_700_000_000_000,
    active: int = 1_700_000_000_000,
    times: int = 1,
) -> dict[str, Any]:
    return {**locals()}


def stream_of(version: int, nodes: Sequence[tuple[bytes, bytes]], live: int, **other: Any) -> bytes:
    """A stream of version 1 to 3; `live` is how many entries it has, the keywords say something else than the truth."""
    out = length(len(nodes)) + b"".join(string(k) + string(blob) for k, blob in nodes)
    out += length(other.get("length", live))
    last: StreamId = other.get("last", LAST)
    out += length(last.ms) + length(last.seq)
    if version >= 2:
        first = other.get("first", StreamId(1, 0) if live else StreamId(0, 0))
        deleted = other.get("max_deleted", StreamId(0, 0))
        out += b"".join(length(n) for n in (*first, *deleted, other.get("added", live)))
    groups = other.get("groups", ())
    out += length(len(groups))
    for g in groups:
        out += string(g["name"]) + length(g["last"].ms) + length(g["last"].seq)
        if version >= 2:
            out += length(g["read"] & U64)
        out += length(len(g["pending"]))
        for an_id in g["pending"]:
            out += raw_id(an_id) + signed(g["delivered"], 8) + length(g["times"])
        out += length(len(g["consumers"]))
        for name, owned in g["consumers"]:
            out += string(name) + signed(g["seen"], 8)
            if version >= 3:
                out += signed(g["active"], 8)
            out += length(len(owned)) + b"".join(map(raw_id, owned))
    return out


def stream_damage(version: int) -> Values:
    i = StreamId
    a = node(i(1, 0), row(0, 0, b"v"), row(1, 0, b"w"), row(2, 0, b"x"))
    b = node(i(5, 0), row(0, 0, b"v"), row(1, 0, b"w"))

    def s(nodes: Sequence[tuple[bytes, bytes]], live: int, **other: Any) -> bytes:
        return stream_of(version, nodes, live, **other)

    yield "sound", s([a, b], 5)
    yield "sound: no entries", s([], 0, last=i(0, 0))
    yield "sound: no entries, last id", s([], 0)
    yield "sound: own fields", s([node(i(1, 0), row(0, 0, b"v"), row(1, 0, b"w", b"x", flags=0, fields=[b"g", b"h"]))], 2)
    yield "sound: deleted entry", s([node(i(1, 0), row(0, 0, b"v"), row(1, 0, b"w", flags=3), row(2, 0, b"x"))], 2)

    # keys of nodes
    yield "node key of 15 bytes", s([(a[0][:15], a[1]), b], 5)
    yield "node key of 17 bytes", s([(a[0] + b"\0", a[1]), b], 5)
    yield "node key of no bytes", s([(b"", a[1]), b], 5)
    yield "node twice", s([a, a], 6)
    yield "nodes in descending order", s([b, a], 5)
    yield "nodes overlap", s([node(i(1, 0), row(0, 0, b"v"), row(7, 0, b"w")), b], 4)
    yield "node's first entry not at its key", s([(raw_id(i(0, 5)), a[1]), b], 5)

    # heads of nodes
    for name, other in (
        ("live one more", {"live": 4}),
        ("live one less", {"live": 2}),
        ("live 0", {"live": 0}),
        ("live negative", {"live": -1}),
        ("live 2^40", {"live": 1 << 40}),
        ("live that is text", {"live": b"many"}),
        ("deleted one more", {"deleted": 1}),
        ("deleted negative", {"deleted": -1}),
        ("one of the live counted as deleted", {"live": 2, "deleted": 1}),
        ("all of the live counted as deleted", {"live": 0, "deleted": 3}),
        ("one field more", {"names": 2}),
        ("one field less", {"names": 0}),
        ("fields negative", {"names": -1}),
        ("fields 2^40", {"names": 1 << 40}),
        ("no zero behind the fields", {"zero": 1}),
        ("text in place of the zero", {"zero": b"x"}),
    ):
        yield f"node head: {name}", s([node(i(1, 0), row(0, 0, b"v"), row(1, 0, b"w"), row(2, 0, b"x"), **other), b], 5)
    gone = [row(0, 0, b"v", flags=3), row(1, 0, b"w", flags=3)]
    yield "node without live entries", s([node(i(1, 0), *gone), b], 2, first=i(5, 0), max_deleted=i(2, 0), added=4)
    yield "node without live entries, last", s([b, node(i(7, 0), *gone)], 2, first=i(5, 0), max_deleted=i(8, 0), added=4)
    yield "node without live entries, alone", s([node(i(1, 0), *gone)], 0, max_deleted=i(2, 0), added=2)
    yield "node without any entry", s([node(i(1, 0)), b], 2, first=i(5, 0))
    yield "node without any entry, alone", s([node(i(1, 0))], 0)
    yield "node whose listpack is empty", s([(a[0], lp([])), b], 2, first=i(5, 0))
    yield "node whose listpack is empty, alone", s([(a[0], lp([]))], 0)
    yield "deleted counted as live", s([node(i(1, 0), row(0, 0, b"v"), row(1, 0, b"w", flags=3), live=2, deleted=0)], 2)
    yield "node: nothing but counts", s([(a[0], lp([3, 0])), b], 5)
    yield "node: nothing but one number", s([(a[0], lp([3])), b], 5)
    yield "node: head without entries", s([(a[0], lp([3, 0, 1, b"f", 0])), b], 5)

    # entries
    yield "entry: its number of parts one more", s([node(i(1, 0), row(0, 0, b"v", back=5), row(1, 0, b"w"))], 2)
    yield "entry: its number of parts one less", s([node(i(1, 0), row(0, 0, b"v", back=3), row(1, 0, b"w"))], 2)
    yield "entry: its number of parts 0", s([node(i(1, 0), row(0, 0, b"v", back=0), row(1, 0, b"w"))], 2)
    yield "entry: its number of parts is text", s([(raw_id(i(1, 0)), lp([1, 0, 1, b"f", 0, 2, 0, 0, b"v", b"four"]))], 1)
    yield "last entry: its number of parts one more", s([node(i(1, 0), row(0, 0, b"v"), row(1, 0, b"w", back=5))], 2)
    yield "entry: flags 4", s([node(i(1, 0), row(0, 0, b"v"), row(1, 0, b"w", flags=6))], 2)
    yield "entry: flags negative", s([(raw_id(i(1, 0)), lp([1, 0, 1, b"f", 0, -2, 0, 0, b"v", 4]))], 1)
    yield "entry: flags are text", s([(raw_id(i(1, 0)), lp([1, 0, 1, b"f", 0, b"two", 0, 0, b"v", 4]))], 1)
    yield "entry: id is text", s([(raw_id(i(1, 0)), lp([1, 0, 1, b"f", 0, 2, b"ms", 0, b"v", 4]))], 1)
    yield "entry: value missing", s([(raw_id(i(1, 0)), lp([1, 0, 1, b"f", 0, 2, 0, 0, 4]))], 1)
    yield "entry: own fields, one more", s([(raw_id(i(1, 0)), lp([1, 0, 1, b"f", 0, 0, 0, 0, 2, b"g", b"v", 6]))], 1)
    yield "entry: own fields negative", s([(raw_id(i(1, 0)), lp([1, 0, 1, b"f", 0, 0, 0, 0, -1, b"g", b"v", 6]))], 1)
    yield "entry: own fields 2^40", s([(raw_id(i(1, 0)), lp([1, 0, 1, b"f", 0, 0, 0, 0, 1 << 40, b"g", b"v", 6]))], 1)
    yield "entry: own fields 0", s([(raw_id(i(1, 0)), lp([1, 0, 1, b"f", 0, 0, 0, 0, 0, 4]))], 1)
    yield "entry twice", s([node(i(1, 0), row(0, 0, b"v"), row(0, 0, b"w"))], 2)
    yield "entries descend", s([node(i(1, 0), row(3, 0, b"v"), row(1, 0, b"w"))], 2)
    yield "entry before its node", s([node(i(1, 0), row(-1, 5, b"v"), row(1, 0, b"w"))], 2)
    yield "parts behind the last entry", s([(a[0], lp([*node_items([row(0, 0, b"v")]), 5])), b], 3)
    yield "an entry behind the last", s([(a[0], lp([*node_items([row(0, 0, b"v")]), *row(1, 0, b"w")])), b], 3)

    # the stream's own numbers
    yield "length one more", s([a, b], 5, length=6)
    yield "length one less", s([a, b], 5, length=4)
    yield "length 0", s([a, b], 5, length=0)
    yield "length 2^40", s([a, b], 5, length=1 << 40)
    yield "length 2^64-1", s([a, b], 5, length=U64)
    yield "length 3 without a node", s([], 0, length=3)
    yield "last id before the last entry", s([a, b], 5, last=i(2, 0))
    yield "last id 0-0", s([a, b], 5, last=i(0, 0))
    yield "sound: last id the greatest", s([a, b], 5, last=i(U64, U64))
    if version >= 2:
        yield "first id behind the first entry", s([a, b], 5, first=i(2, 0))
        yield "first id before the first entry", s([a, b], 5, first=i(0, 1))
        yield "first id 0-0", s([a, b], 5, first=i(0, 0))
        yield "first id of a stream without entries", s([], 0, first=i(1, 0))
        yield "first id behind the last id", s([a, b], 5, first=i(99, 0))
        yield "max deleted id behind the last id", s([a, b], 5, max_deleted=i(99, 0))
        yield "sound: max deleted id within", s([a, b], 5, max_deleted=i(4, 0), added=6)
        yield "max deleted id of an entry that is there", s([a, b], 5, max_deleted=i(5, 0), added=6)
        yield "fewer added than there are", s([a, b], 5, added=2)
        yield "none added", s([a, b], 5, added=0)
        yield "added 2^63", s([a, b], 5, added=1 << 63)
        yield "added 2^64-1", s([a, b], 5, added=U64)

    # groups
    def g(*groups: dict[str, Any], **other: Any) -> bytes:
        return s([a, b], 5, groups=groups, **other)

    one, two = i(1, 0), i(2, 0)
    yield "sound: group", g(group_of(b"g", [one, two], [(b"c", [one]), (b"d", [two])]))
    yield "sound: two groups", g(group_of(b"g", [one], [(b"c", [one])]), group_of(b"h", [one], [(b"c", [one])]))
    yield "sound: group with nothing", g(group_of(b"g"))
    yield "sound: group of a stream without entries", s([], 0, groups=[group_of(b"g", [one], [(b"c", [one])], read=0)])
    yield "sound: group without a name", g(group_of(b"", [one], [(b"", [one])]))
    yield "group twice", g(group_of(b"g"), group_of(b"g"))
    yield "group twice, with pending", g(group_of(b"g", [one], [(b"c", [one])]), group_of(b"g", [two], [(b"c", [two])]))
    yield "consumer twice", g(group_of(b"g", [], [(b"c", []), (b"c", [])]))
    yield "consumer twice, with pending", g(group_of(b"g", [one, two], [(b"c", [one]), (b"c", [two])]))
    yield "pending twice in the group", g(group_of(b"g", [one, one], [(b"c", [one])]))
    yield "pending twice with a consumer", g(group_of(b"g", [one], [(b"c", [one, one])]))
    yield "pending with a consumer, not in the group", g(group_of(b"g", [one], [(b"c", [one, two])]))
    yield "pending with a consumer, group has none", g(group_of(b"g", [], [(b"c", [one])]))
    yield "pending with two consumers", g(group_of(b"g", [one], [(b"c", [one]), (b"d", [one])]))
    yield "pending with no consumer", g(group_of(b"g", [one, two], [(b"c", [one])]))
    yield "pending with no consumer, group has none", g(group_of(b"g", [one]))
    yield "pending in descending order", g(group_of(b"g", [two, one], [(b"c", [two, one])]))
    yield "pending of an entry that is not there", g(group_of(b"g", [i(4, 4)], [(b"c", [i(4, 4)])]))
    yield "pending behind the group's last id", g(group_of(b"g", [two], [(b"c", [two])], last=one))
    yield "pending behind the stream's last id", g(group_of(b"g", [i(50, 0)], [(b"c", [i(50, 0)])]))
    yield "group's last id behind the stream's", g(group_of(b"g", last=i(99, 0)))
    yield "group's last id 0-0", g(group_of(b"g", [one], [(b"c", [one])], last=i(0, 0)))
    yield "delivered at a negative time", g(group_of(b"g", [one], [(b"c", [one])], delivered=-5))
    yield "delivered at 2^62", g(group_of(b"g", [one], [(b"c", [one])], delivered=1 << 62))
    yield "delivered 0 times", g(group_of(b"g", [one], [(b"c", [one])], times=0))
    yield "delivered 2^63 times", g(group_of(b"g", [one], [(b"c", [one])], times=1 << 63))
    yield "seen at a negative time", g(group_of(b"g", [one], [(b"c", [one])], seen=-5))
    yield "seen at 2^62", g(group_of(b"g", [one], [(b"c", [one])], seen=1 << 62))
    if version >= 2:
        yield "group has read more than was added", g(group_of(b"g", read=99))
        yield "sound: group has read an unknown number", g(group_of(b"g", read=-1))
        yield "group has read -5", g(group_of(b"g", read=-5))
        yield "group has read 2^63-1", g(group_of(b"g", read=(1 << 63) - 1))
    if version >= 3:
        yield "sound: never active", g(group_of(b"g", [one], [(b"c", [one])], active=-1))
        yield "active at -5", g(group_of(b"g", [one], [(b"c", [one])], active=-5))

    head = [3, 0, 1, b"f", 0, *row(0, 0, b"v"), *row(1, 0, b"w"), *row(2, 0, b"x")]
    for damage, blob in listpack_damage(head):
        yield f"node: {damage}", s([(a[0], blob), b], 5)


# Files


def module_damage() -> Values:
    name = 0
    for letter in "nomodule1":
        name = name << 6 | "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".index(letter)
    ident = b"\x81" + (name << 10 | 1).to_bytes(8, "big")
    yield "value of a module that is not loaded", ident + length(2) + length(5) + length(0)
    yield "module opcode 6", ident + length(6) + length(5) + length(0)


#: Kind, type, encoding, the values, and the versions that have it.
TABLE: list[tuple[int, str, str, Any, str]] = [
    (0, "string", "raw", string_damage, "redis 1"),
    (1, "list", "linkedlist", list_damage, "redis 1"),
    (2, "set", "hashtable", set_damage, "redis 1"),
    (3, "zset", "text scores", zset_text_damage, "redis 1"),
    (4, "hash", "hashtable", hash_damage, "redis 1"),
    (5, "zset", "skiplist", zset_damage, "redis 8"),
    (7, "module", "module", module_damage, "redis 8"),
    (9, "hash", "zipmap", zipmap_damage, "redis 2"),
    (10, "list", "ziplist", list_ziplist_damage, "redis 2"),
    (11, "set", "intset", intset_damage, "redis 2"),
    (12, "zset", "ziplist", zset_ziplist_damage, "redis 2"),
    (13, "hash", "ziplist", hash_ziplist_damage, "redis 4"),
    (14, "list", "quicklist of ziplists", quicklist_damage, "redis 7"),
    (15, "stream", "stream", lambda: stream_damage(1), "redis 9"),
    (16, "hash", "listpack", hash_listpack_damage, "redis 10"),
    (17, "zset", "listpack", zset_listpack_damage, "redis 10"),
    (18, "list", "quicklist", quicklist2_damage, "redis 10"),
    (19, "stream", "stream v2", lambda: stream_damage(2), "redis 10"),
    (20, "set", "listpack", set_listpack_damage, "redis 11"),
    (21, "stream", "stream v3", lambda: stream_damage(3), "redis 11"),
    (22, "hash", "hashtable with expiry (Valkey)", hash_valkey_damage, "valkey"),
    (22, "hash", "hashtable with expiry (7.4 RC)", hash_rc_damage, "redis 12"),
    (24, "hash", "hashtable with expiry", hash_expiring_damage, "redis 12"),
    (25, "hash", "listpack with expiry", hash_expiring_listpack_damage, "redis 12"),
]

#: Versions of the files that are made: one for each line of servers.
VERSIONS = (6, 9, 10, 11, 12)


def magics(since: str) -> list[bytes]:
    """The first bytes of files that can have a type."""
    if since == "valkey":
        return [b"VALKEY080"]
    first = int(since.split()[1])
    found = [b"REDIS%04d" % version for version in VERSIONS if version >= first]
    return [*found, b"VALKEY080"] if first <= 11 else found


def around(magic: bytes, damaged: bytes, **ending: Any) -> bytes:
    """A file with a key before and one behind what is damaged."""
    before, behind = key(b"before", 0, string(b"1")), key(b"zz", 0, string(b"2"))
    return rdb(b"\xfe\0", before, damaged, behind, magic=magic, **ending)


def value_cases(every_version: bool) -> Iterator[Case]:
    for type_code, type_name, encoding, values, since in TABLE:
        for magic in magics(since) if every_version else magics(since)[:1]:
            for damage, value in values():
                name = f"{magic.decode()}-{type_code}-{damage}"
                data = around(magic, key(b"damaged", type_code, value))
                yield Case(name, magic, type_name, encoding, damage, data)


LIBRARY = b"#!lua name=%b\nredis.register_function('%b', function(keys, args) return 1 end)"


def function(source: bytes) -> bytes:
    return b"\xf5" + string(source)


def file_damage(magic: bytes) -> Iterator[tuple[str, bytes]]:
    """What can be wrong with a file whose values are all sound."""
    plain = key(b"k", 0, string(b"v"))
    other = key(b"k", 0, string(b"w"))
    yield "sound", around(magic, plain)
    yield "sound: checksum off", around(magic, plain, crc=False)
    whole = bytearray(around(magic, plain))
    whole[-1] ^= 1
    yield "checksum wrong", bytes(whole)
    yield "key twice", around(magic, plain + other)
    yield "key twice, the same", around(magic, plain + plain)
    yield "key twice, another type", around(magic, plain + key(b"k", 1, counted([b"a"])))
    yield "key twice, first an empty list", around(magic, key(b"k", 1, length(0)) + plain)
    yield "key twice, then an empty list", around(magic, plain + key(b"k", 1, length(0)))
    yield "key twice, as text and number", around(magic, key(b"7", 0, string(b"v")) + b"\0\xc0\x07" + string(b"w"))
    yield "key twice, without a name", around(magic, key(b"", 0, string(b"v")) + key(b"", 0, string(b"w")))
    yield "key twice, with SELECTDB between", around(magic, plain + b"\xfe\0" + other)
    yield "sound: same name in two databases", around(magic, plain + b"\xfe\1" + other)
    yield "sound: databases in descending order", around(magic, b"\xfe\3" + plain + b"\xfe\1" + other + b"\xfe\0")
    yield "sound: database 15", around(magic, b"\xfe\x0f" + plain + b"\xfe\0")
    yield "beyond: database 16", around(magic, b"\xfe\x10" + plain + b"\xfe\0")
    yield "beyond: database 16 without a key", around(magic, plain + b"\xfe\x10\xfe\0")
    yield "database 2^31", around(magic, b"\xfe" + length(1 << 31) + plain + b"\xfe\0")
    yield "sound: key without a name", around(magic, key(b"", 0, string(b"v")))
    yield "sound: no keys at all", rdb(magic=magic)
    if magic.startswith(b"VALKEY") or int(magic[5:]) >= 3:
        for expiry in (LATER, 1, 0, -1, -(1 << 63), (1 << 63) - 1, 1 << 48):
            words = "sound" if expiry == LATER else "odd"
            yield f"{words}: key expires at {expiry}", around(magic, key(b"k", 0, string(b"v"), expiry))
        yield "expired key twice", around(magic, key(b"k", 0, string(b"v"), 1) * 2)
        yield "key twice, one expired", around(magic, key(b"k", 0, string(b"v"), 1) + plain)
        yield "key twice, expired behind", around(magic, plain + key(b"k", 0, string(b"v"), 1))
        yield "expired key with a field twice", around(magic, key(b"k", 4, length(2) + strings([b"a", b"1", b"a", b"2"]), 1))
        yield "expired key with no elements", around(magic, key(b"k", 4, length(0), 1))
        yield "expiry without a key", around(magic, plain + b"\xfc" + signed(LATER, 8) + b"\xfe\0")
        yield "two expiries", around(magic, b"\xfc" + signed(LATER, 8) + b"\xfc" + signed(LATER + 5, 8) + plain)
    yield "expiry in seconds", around(magic, b"\xfd" + signed(2_000_000_000, 4) + plain)
    yield "expiry in seconds, negative", around(magic, b"\xfd" + signed(-5, 4) + plain)
    yield "RESIZEDB too small", around(magic, b"\xfb" + length(1) + length(0) + plain)
    yield "RESIZEDB too large", around(magic, b"\xfb" + length(1000) + length(900) + plain)
    yield "RESIZEDB with more expiries than keys", around(magic, b"\xfb" + length(1) + length(9) + plain)
    yield "idle time", around(magic, b"\xf8" + length(5) + plain)
    yield "access frequency", around(magic, b"\xf9\x05" + plain)
    yield "idle time and access frequency", around(magic, b"\xf8" + length(5) + b"\xf9\x05" + plain)
    yield "AUX field between keys", around(magic, aux(b"some", b"thing") + plain)
    yield "AUX field, redis-bits 32", around(magic, aux(b"redis-bits", b"32") + plain)
    yield "AUX field, repl-stream-db 99", around(magic, aux(b"repl-stream-db", b"99") + plain)
    yield "AUX field, repl-offset text", around(magic, aux(b"repl-offset", b"far") + plain)
    yield "AUX field, repl-id short", around(magic, aux(b"repl-id", b"abc") + plain)
    yield "AUX field, lua script", around(magic, aux(b"lua", b"return 1") + plain)
    yield "beyond: AUX field, lua script that does not compile", around(magic, aux(b"lua", b"return (") + plain)
    yield "AUX field, aof-base text", around(magic, aux(b"aof-base", b"x") + plain)
    yield "AUX field, used-mem text", around(magic, aux(b"used-mem", b"x") + plain)
    yield "AUX field, ctime text", around(magic, aux(b"ctime", b"x") + plain)
    yield "slot information", around(magic, b"\xf4" + length(5) + length(1) + length(0) + plain)
    yield "slot information, slot 20000", around(magic, b"\xf4" + length(20000) + length(1) + length(0) + plain)
    lua = LIBRARY % (b"lib", b"f")
    yield "function", rdb(function(lua), b"\xfe\0", plain, magic=magic)
    yield "function behind keys", around(magic, plain + function(lua))
    yield "function library twice", rdb(function(lua) * 2, b"\xfe\0", plain, magic=magic)
    yield "function library twice, other functions", rdb(function(lua), function(LIBRARY % (b"lib", b"g")), magic=magic)
    yield "beyond: function twice, in two libraries", rdb(function(lua), function(LIBRARY % (b"other", b"f")), magic=magic)
    yield "function library twice, capital letters", rdb(function(lua), function(LIBRARY % (b"LIB", b"g")), magic=magic)
    yield "function library without a first line", rdb(function(lua.split(b"\n")[1]), magic=magic)
    yield "function library without a name", rdb(function(lua.replace(b" name=lib", b"")), magic=magic)
    yield "function library with an odd name", rdb(function(lua.replace(b"=lib", b"=li-b")), magic=magic)
    yield "function library with an empty name", rdb(function(lua.replace(b"=lib", b"=")), magic=magic)
    yield "function library with quotes", rdb(function(lua.replace(b"=lib", b'="lib"')), magic=magic)
    yield "function library with two names", rdb(function(lua.replace(b"=lib", b"=lib name=lib2")), magic=magic)
    yield "function library with an unknown option", rdb(function(lua.replace(b"=lib", b"=lib colour=red")), magic=magic)
    yield (
        "function library with blanks",
        rdb(function(lua.replace(b" name", b"   name").replace(b"lib\n", b"lib  \n")), magic=magic),
    )
    yield "function library, NAME in capital letters", rdb(function(lua.replace(b"name=", b"NAME=")), magic=magic)
    yield "function library, LUA in capital letters", rdb(function(lua.replace(b"!lua", b"!LUA")), magic=magic)
    yield "beyond: function library of an engine that is not there", rdb(function(lua.replace(b"!lua", b"!js")), magic=magic)
    yield "beyond: function library that does not compile", rdb(function(lua + b" ("), magic=magic)
    yield "beyond: function library without a function", rdb(function(b"#!lua name=lib\nlocal x = 1"), magic=magic)
    yield "beyond: function library with an empty body", rdb(function(b"#!lua name=lib\n"), magic=magic)
    yield "function library without a line end", rdb(function(b"#!lua name=lib"), magic=magic)
    yield "beyond: function library that fails when loaded", rdb(function(b"#!lua name=lib\nerror('x')"), magic=magic)
    yield "function library with CR LF", rdb(function(lua.replace(b"\n", b"\r\n")), magic=magic)
    yield "function library of no bytes", rdb(function(b""), magic=magic)
    pre = b"\xf6" + string(b"lib") + string(b"LUA") + length(0) + string(b"redis.register_function('f', function() return 1 end)")
    yield "function library of a release candidate", rdb(pre, magic=magic)
    yield "hash templates", rdb(b"\xf2" + length(1) + counted([b"a", b"b"]), b"\xfe\0", plain, magic=magic)
    yield "key metadata", around(magic, b"\xf3" + length(0) + plain)
    until = b"\xfc" + LATER.to_bytes(8, "little")
    yield "hints of Redis Enterprise", around(magic, b"k\x05" + b"y" + length(1 << 32) + until + plain)
    yield "hints of Redis Enterprise behind an expiry", around(magic, until + b"y\x05k" + length((1 << 64) - 1) + plain)
    yield "hint of Redis Enterprise cut off", around(magic, plain)[:-9] + b"k\x80\0"
    yield "hint of Redis Enterprise that is no number", around(magic, b"k\xc3" + plain)
    yield "hints of Redis Enterprise without end", around(magic, b"k\0" * 300)


def type_cases(magic: bytes) -> Iterator[tuple[str, str, str, bytes]]:
    """A sound value of every type, whatever the version: newer than the file among them."""
    for type_code, type_name, encoding, values, _ in TABLE:
        damage, value = next(iter(values()))
        if type_code != 7:
            assert damage.startswith("sound"), (type_code, damage)
            yield type_name, encoding, f"type {type_code} in {magic.decode()}", around(magic, key(b"k", type_code, value))
    for type_code in (6, 8, 23, *range(26, 36), 64, 101, 107, 121, 200):
        yield "file", "file", f"type {type_code} in {magic.decode()}", around(magic, key(b"k", type_code, string(b"value")))


def file_cases() -> Iterator[Case]:
    for magic in [*(b"REDIS%04d" % version for version in VERSIONS), b"VALKEY080"]:
        for damage, data in file_damage(magic):
            yield Case(f"{magic.decode()}-file-{damage}", magic, "file", "file", damage, data)
        for type_name, encoding, damage, data in type_cases(magic):
            yield Case(f"{magic.decode()}-{damage}-{encoding}", magic, type_name, encoding, damage, data)
    plain = key(b"k", 0, string(b"v"))
    odd = [b"REDIS%04d" % n for n in (0, 1, 2, 3, 4, 5, 7, 8, 13, 14, 15, 16, 80)]
    for magic in [*odd, b"VALKEY011", b"VALKEY081", b"VALKEY079", b"REDIS  11", b"REDIS-001", b"REDIS00x9"]:
        yield Case(f"{magic.decode()}-header", magic, "file", "file", f"header {magic.decode()}", around(magic, plain))


def cases(every_version: bool = False) -> list[Case]:
    """All of them.

    Args:
        every_version: damaged values in files of each version that can have them, not only of the first. Servers look at the
            version of a file before they look at anything else, and hardly ever again.
    """
    found = [*value_cases(every_version), *file_cases()]
    names = [case.name for case in found]
    assert len(set(names)) == len(names), [name for name in names if names.count(name) > 1][:3]
    return found

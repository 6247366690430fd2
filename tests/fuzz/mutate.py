"""Snapshots damaged inside of their values, by chance that a seed decides.

A file is cut into its records, a value into the parts of its layout, a packed string into its entries; then something is flipped,
swapped, repeated, taken out, or counted wrong, at one level or another, and all is put together again around it, with a checksum
that fits. So what is damaged is what no checksum and no framing shows. The parts are cut by code of this module alone.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from random import Random
from typing import Final, NamedTuple, TypeAlias

from rdbkit.format import constants
from tests.encoders import backlen, listpack_entry, listpack_of, lzf, prevlen, ziplist_body, ziplist_of
from tests.rdb import CRC, DUMPS, length, string

U64: Final = (1 << 64) - 1
LATER: Final = 4_102_444_800_000
NUMBERS: Final = (0, 1, 2, 63, 64, 255, 16383, 16384, 65535, (1 << 31) - 1, 1 << 32, 1 << 46, 1 << 48, (1 << 63) - 1, 1 << 63, U64)
WORDS: Final = tuple(
    n.to_bytes(8, "little", signed=True)
    for n in (0, -1, 1, -2, LATER, 1 << 46, (1 << 48) - 1, 1 << 48, (1 << 48) + 1, 1 << 62, (1 << 63) - 1, -(1 << 63))
) + tuple(struct.pack("<d", x) for x in (float("nan"), -float("nan"), float("inf"), -float("inf"), -0.0, 1e300))
TEXTS: Final = (b"nan", b"-nan", b"inf", b"-inf", b"", b"1", b"-5", b"x", b"1e999", b"1.5", b"9223372036854775808", b"0x10")


class Broken(Exception):
    """This value has nothing that could be changed in the way that was asked for."""


# A value's parts


@dataclass
class Leaf:
    """A part that has no parts, by its sign in the layout."""

    sign: str
    data: bytes

    def __bytes__(self) -> bytes:
        return self.data


@dataclass
class Loop:
    """Rounds of parts, and their number where it is not what is there."""

    rounds: list[list[Node]]
    stated: int | None = None
    behind_count: bytes = b""  # of an array: where the next insertion goes

    def __bytes__(self) -> bytes:
        count = len(self.rounds) if self.stated is None else self.stated
        return length(count & U64) + self.behind_count + b"".join(bytes(node) for part in self.rounds for node in part)


Node: TypeAlias = "Leaf | Loop"


def read_length(data: bytes, at: int) -> tuple[int, int]:
    """A length, and where it ends."""
    first = data[at]
    if first < 0x40:
        return first, at + 1
    if first < 0x80:
        return (first & 63) << 8 | data[at + 1], at + 2
    width = {0x80: 4, 0x81: 8}[first]
    return int.from_bytes(data[at + 1 : at + 1 + width], "big"), at + 1 + width


def string_end(data: bytes, at: int) -> int:
    first = data[at]
    if first >= 0xC0:
        if first < 0xC3:
            return at + 1 + (1 << (first & 3))
        packed, at = read_length(data, at + 1)
        return read_length(data, at)[1] + packed
    size, at = read_length(data, at)
    return at + size


def content(data: bytes) -> bytes:
    """What a string of any form says."""
    if data[0] < 0xC0:
        size, at = read_length(data, 0)
        return data[at : at + size]
    if data[0] < 0xC3:
        return b"%d" % int.from_bytes(data[1:], "little", signed=True)
    _, at = read_length(data, 1)
    _, at = read_length(data, at)
    return unpacked(data[at:])


def unpacked(data: bytes) -> bytes:
    """What LZF says."""
    out = bytearray()
    at = 0
    while at < len(data):
        control = data[at]
        at += 1
        if control < 32:
            out += data[at : at + control + 1]
            at += control + 1
            continue
        size = control >> 5
        if size == 7:
            size += data[at]
            at += 1
        start = len(out) - ((control & 31) << 8 | data[at]) - 1
        at += 1
        for i in range(size + 2):
            out.append(out[start + i])
    return bytes(out)


_FIXED: Final = {"d": 8, "i": 16, "w": 4}


def module_end(data: bytes, at: int) -> int:
    """Where framed values of a module end."""
    while True:
        opcode, at = read_length(data, at)
        if opcode == 0:
            return at
        if opcode <= 2:
            at = read_length(data, at)[1]
        elif opcode <= 4:
            at += 4 * (opcode - 2)
        else:
            at = string_end(data, at)


def parts(layout: str, data: bytes, at: int = 0) -> tuple[list[Node], int]:
    """A value's parts by the grammar of its layout (`rdbkit.format.skip`), and where they end.

    Raises: Broken for layouts whose counts stand elsewhere.
    """
    found: list[Node] = []
    i = 0
    while i < len(layout):
        sign = layout[i]
        if sign in "*#":
            begin = layout.index("(", i) + 1
            close, depth = begin, 1
            while depth:
                depth += {"(": 1, ")": -1}.get(layout[close], 0)
                close += 1
            count, at = read_length(data, at)
            loop = Loop([])
            if sign == "#":  # what an array has behind its count
                end = read_length(data, at + 1)[1] if data[at] else at + 1
                loop.behind_count, at = data[at:end], end
            for _ in range(count):
                inner, at = parts(layout[begin : close - 1], data, at)
                loop.rounds.append(inner)
            found.append(loop)
            i = close
            continue
        if sign == "s":
            end = string_end(data, at)
        elif sign in "lc":
            end = read_length(data, at)[1]
        elif sign == "t":
            end = at + 1 + (data[at] if data[at] < 253 else 0)
        elif sign in _FIXED:
            end = at + _FIXED[sign]
        elif sign == "u":
            end = at + 9 if data[at] in (1, 2) else string_end(data, at + 1)
        elif sign == "m":
            end = module_end(data, at)
        else:
            raise Broken
        found.append(Leaf(sign, data[at:end]))
        at = end
        i += 1
    return found, at


def leaves(nodes: Sequence[Node]) -> Iterator[Leaf]:
    for node in nodes:
        if isinstance(node, Leaf):
            yield node
        else:
            for part in node.rounds:
                yield from leaves(part)


def loops(nodes: Sequence[Node]) -> Iterator[Loop]:
    for node in nodes:
        if isinstance(node, Loop):
            yield node
            for part in node.rounds:
                yield from loops(part)


# Packed strings as lists of entries


def listpack_entries(data: bytes) -> list[bytes]:
    """The entries of a sound listpack, each with its size behind it."""
    found = []
    at = 6
    while data[at] != 0xFF:
        first = data[at]
        if first < 0x80:
            size = 1
        elif first < 0xC0:
            size = 1 + (first & 63)
        elif first < 0xE0:
            size = 2
        elif first < 0xF0:
            size = 2 + ((first & 15) << 8 | data[at + 1])
        elif first == 0xF0:
            size = 5 + int.from_bytes(data[at + 1 : at + 5], "little")
        else:
            size = {0xF1: 3, 0xF2: 4, 0xF3: 5, 0xF4: 9}[first]
        size += len(backlen(size))
        found.append(data[at : at + size])
        at += size
    return found


def ziplist_bodies(data: bytes) -> list[bytes]:
    """The entries of a sound ziplist, without the size of the one before."""
    found = []
    at = 10
    while data[at] != 0xFF:
        at += 5 if data[at] == 254 else 1
        first = data[at]
        if first < 0x40:
            size = 1 + first
        elif first < 0x80:
            size = 2 + ((first & 63) << 8 | data[at + 1])
        elif first < 0xC0:
            size = 5 + int.from_bytes(data[at + 1 : at + 5], "big")
        else:
            size = {0xC0: 3, 0xD0: 5, 0xE0: 9, 0xF0: 4, 0xFE: 2}.get(first, 1)
        found.append(data[at : at + size])
        at += size
    return found


def ziplist_entries(bodies: Sequence[bytes], rng: Random) -> list[bytes]:
    entries: list[bytes] = []
    for body in bodies:
        entries.append(prevlen(len(entries[-1]) if entries else 0, rng) + body)
    return entries


def zipmap_entries(data: bytes) -> list[bytes]:
    """The fields of a sound zipmap with their values."""
    found = []
    at = 1
    while data[at] != 0xFF:
        begin = at
        for free in (0, 1):
            size = data[at]
            at += 1
            if size == 254:
                size = int.from_bytes(data[at : at + 4], "little")
                at += 4
            at += size + free + (data[at] if free else 0)
        found.append(data[begin:at])
    return found


# Changes


def shuffled(entries: list[bytes], rng: Random) -> tuple[list[bytes], str]:
    """Entries in another order, or one of them more or less."""
    if not entries:
        raise Broken
    here, there = rng.randrange(len(entries)), rng.randrange(len(entries))
    out = list(entries)
    match rng.randrange(7):
        case 0:
            out[here], out[there] = out[there], out[here]
            return out, "two entries swapped"
        case 1:
            out.insert(there, out[here])
            return out, "an entry repeated"
        case 2:
            out[there] = out[here]
            return out, "an entry in place of another"
        case 3:
            del out[here]
            return out, "an entry taken out"
        case 4:
            even = here // 2 * 2
            out[there // 2 * 2 : there // 2 * 2] = out[even : even + 2]
            return out, "a pair repeated"
        case 5:
            return [], "all entries taken out"
        case _:
            out[there // 2 * 2] = out[here // 2 * 2]
            return out, "the first of a pair in place of another"


def wrong(n: int, rng: Random, limit: int = U64) -> int:
    """Another number, near it or at an edge."""
    return rng.choice([n + 1, n - 1, n + 1, n - 1, 0, n ^ 1 << rng.randrange(8), *NUMBERS]) & limit


def flipped(data: bytes, rng: Random) -> bytes:
    if not data:
        raise Broken
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def new_item(rng: Random) -> bytes | int:
    return rng.choice(NUMBERS[:14]) * rng.choice([1, -1]) if rng.random() < 0.6 else rng.choice(TEXTS)


def change_listpack(data: bytes, rng: Random) -> tuple[bytes, str]:
    entries = listpack_entries(data)
    n = len(entries)
    match rng.randrange(9):
        case 0 | 1:
            out, how = shuffled(entries, rng)
            return listpack_of(out), f"listpack: {how}"
        case 2:
            count = wrong(n, rng, 0xFFFF)
            return listpack_of(entries, count=count), f"listpack: count {count} for {n}"
        case 3:
            size = wrong(len(data), rng, 0xFFFFFFFF)
            return listpack_of(entries, size=size), f"listpack: size {size} for {len(data)}"
        case 4:
            return flipped(data, rng), "listpack: bits flipped"
        case 5:
            return data[:6] + flipped(data[6:], rng), "listpack: bits of its entries flipped"
        case 6 if entries:
            at = rng.randrange(n)
            entries[at] = flipped(entries[at][:1], rng) + entries[at][1:]
            return listpack_of(entries, count=n), "listpack: first byte of an entry changed"
        case 7 if entries:
            at = rng.randrange(n)
            entries[at] = entries[at][:-1] + flipped(entries[at][-1:], rng)
            return listpack_of(entries, count=n), "listpack: size behind an entry changed"
        case 8 if entries:
            item = new_item(rng)
            entries[rng.randrange(n)] = listpack_entry(item, rng)
            return listpack_of(entries, count=n), f"listpack: an entry becomes {item!r}"
    raise Broken


def change_ziplist(data: bytes, rng: Random) -> tuple[bytes, str]:
    bodies = ziplist_bodies(data)
    entries = ziplist_entries(bodies, rng)
    n = len(entries)
    match rng.randrange(9):
        case 0 | 1:
            out, how = shuffled(bodies, rng)
            return ziplist_of(ziplist_entries(out, rng)), f"ziplist: {how}"
        case 2:
            count = wrong(n, rng, 0xFFFF)
            return ziplist_of(entries, count=count), f"ziplist: count {count} for {n}"
        case 3:
            return ziplist_of(entries, size=wrong(len(data), rng, 0xFFFFFFFF)), "ziplist: another size"
        case 4:
            tail = int.from_bytes(data[4:8], "little")
            return ziplist_of(entries, tail=wrong(tail, rng, 0xFFFFFFFF)), "ziplist: another place of the last entry"
        case 5:
            return flipped(data, rng), "ziplist: bits flipped"
        case 6:
            return data[:10] + flipped(data[10:], rng), "ziplist: bits of its entries flipped"
        case 7 if entries:
            at = rng.randrange(n)
            entries[at] = flipped(entries[at][:1], rng) + entries[at][1:]
            return ziplist_of(entries, count=n), "ziplist: size in front of an entry changed"
        case 8 if entries:
            item = new_item(rng)
            bodies[rng.randrange(n)] = ziplist_body(b"%d" % item if isinstance(item, int) else item, rng)
            return ziplist_of(ziplist_entries(bodies, rng)), f"ziplist: an entry becomes {item!r}"
    raise Broken


def change_intset(data: bytes, rng: Random) -> tuple[bytes, str]:
    width, count = struct.unpack_from("<II", data)
    numbers = [data[at : at + width] for at in range(8, len(data), width)]
    match rng.randrange(4):
        case 0:
            out, how = shuffled(numbers, rng)
            return struct.pack("<II", width, len(out)) + b"".join(out), f"intset: {how}"
        case 1:
            other = wrong(count, rng, 0xFFFFFFFF)
            return struct.pack("<II", width, other) + data[8:], f"intset: count {other} for {count}"
        case 2:
            other = rng.choice([0, 1, 2, 3, 4, 8, 16, 0x202])
            return struct.pack("<II", other, count) + data[8:], f"intset: width {other} for {width}"
        case _:
            return flipped(data, rng), "intset: bits flipped"


def change_zipmap(data: bytes, rng: Random) -> tuple[bytes, str]:
    entries = zipmap_entries(data)
    match rng.randrange(5):
        case 0 | 1:
            out, how = shuffled(entries, rng)
            return bytes([min(len(out), 254)]) + b"".join(out) + b"\xff", f"zipmap: {how}"
        case 2:
            count = rng.choice([253, 254, 255, wrong(len(entries), rng, 255)])
            return bytes([count]) + data[1:], f"zipmap: count {count} for {len(entries)}"
        case 3:
            return data[:-1] + rng.choice([b"", b"\0", b"\xff\xff"]), "zipmap: another end"
        case _:
            return flipped(data, rng), "zipmap: bits flipped"


def change_stream_node(data: bytes, rng: Random) -> tuple[bytes, str]:
    """The listpack of a stream's node: its counts, flags and ids, or what any listpack has."""
    if rng.random() < 0.4:
        return change_listpack(data, rng)
    entries = listpack_entries(data)
    where = rng.choice(["live", "deleted", "fields", "flags", "part"])
    at = {"live": 0, "deleted": 1, "fields": 2}.get(where)
    if at is None:
        at = rng.randrange(3, len(entries))
        if where == "flags":  # an entry begins where a small number follows the count that ends the one before
            at = rng.choice([i for i, e in enumerate(entries) if i > 3 and e[0] in (0, 2, 3)] or [at])
    n = entries[at][0] if entries[at][0] < 0x80 else 1
    item = rng.choice([n + 1, n - 1, n ^ 1, n ^ 2, 0, -1, new_item(rng)])
    entries[at] = listpack_entry(item, rng)
    if where == "live" and rng.random() < 0.5 and isinstance(item, int):  # one more here, one less there
        entries[1] = listpack_entry(n - item, rng)
        where = "live and deleted"
    return listpack_of(entries), f"stream node: {where} becomes {item!r}"


Change: TypeAlias = Callable[[bytes, Random], tuple[bytes, str]]
_ZIPLISTS: Final = (10, 12, 13, 14)
_LISTPACKS: Final = (16, 17, 18, 20, 23, 25)
_STREAMS: Final = (15, 19, 21, 26, 27)


def packing(type_code: int) -> Change | None:
    """How strings of a value of this type are packed."""
    if type_code in _ZIPLISTS:
        return change_ziplist
    if type_code in _LISTPACKS:
        return change_listpack
    if type_code in _STREAMS:
        return change_stream_node
    return {9: change_zipmap, 11: change_intset}.get(type_code)


def written(data: bytes, rng: Random) -> bytes:
    """A string, compressed at times."""
    return (
        b"\xc3" + length(len(packed := lzf(data))) + length(len(data)) + packed
        if 0 < len(data) < 1 << 16 and rng.random() < 0.2
        else string(data)
    )


def change_string(leaf: Leaf, others: Sequence[Leaf], rng: Random) -> str:
    data = leaf.data
    match rng.randrange(7):
        case 0 | 1:
            leaf.data = rng.choice(others).data
            return "a string in place of another"
        case 2:
            leaf.data = written(flipped(content(data), rng), rng)
            return "a string: bits flipped"
        case 3:
            leaf.data = string(rng.choice(TEXTS))
            return "a string: another one"
        case 4 if data[0] == 0xC3:
            packed, at = read_length(data, 1)
            size, end = read_length(data, at)
            leaf.data = b"\xc3" + length(packed) + length(wrong(size, rng, 0xFFFFF)) + data[end:]
            return "LZF: another size announced"
        case 5 if data[0] == 0xC3:
            leaf.data = data[:4] + flipped(data[4:], rng)
            return "LZF: bits flipped"
        case 6:
            leaf.data = b"\xc0" + bytes([rng.randrange(256)])
            return "a string becomes a number"
    raise Broken


def change_leaf(type_code: int, nodes: Sequence[Node], rng: Random) -> str:
    found = list(leaves(nodes))
    if not found:
        raise Broken
    signs = sorted({leaf.sign for leaf in found})
    sign = rng.choices(signs, [2 if sign == "s" else 1 for sign in signs])[0]
    same = [leaf for leaf in found if leaf.sign == sign]
    leaf = rng.choice(same)
    if sign == "s":
        change = packing(type_code)
        packed = [leaf for leaf in same if len(content(leaf.data)) >= 10] if type_code not in _STREAMS else node_strings(nodes)
        if type_code in (9, 10, 11, 12, 13, 16, 17, 20, 23, 25):
            packed = same
        if change is not None and packed and rng.random() < 0.85:
            leaf = rng.choice(packed)
            data, how = change(content(leaf.data), rng)
            leaf.data = written(data, rng)
            return how
        return change_string(leaf, same, rng)
    if rng.random() < 0.4 and len(same) > 1:
        leaf.data = rng.choice(same).data
        return f"{_SIGNS[sign]} in place of another"
    if sign == "l":
        n, _ = read_length(leaf.data, 0)
        leaf.data = length(wrong(n, rng))
        return f"number {n} becomes {read_length(leaf.data, 0)[0]}"
    if sign == "c":
        leaf.data = length(rng.choice([0, 1, 2, 3, 1 << 20]))
        return "a quicklist container changed"
    if sign == "t":
        text = rng.choice(TEXTS)
        leaf.data = rng.choice([b"\xfd", b"\xfe", b"\xff", bytes([len(text)]) + text])
        return "a score as text changed"
    if sign == "i":
        high, low = struct.unpack(">QQ", leaf.data)
        leaf.data = struct.pack(">QQ", wrong(high, rng), low) if rng.random() < 0.5 else struct.pack(">QQ", high, wrong(low, rng))
        return "an id changed"
    leaf.data = rng.choice(WORDS) if sign == "d" and rng.random() < 0.7 else flipped(leaf.data, rng)
    return f"{_SIGNS[sign]} changed"


_SIGNS: Final = {
    "l": "a number",
    "c": "a container",
    "t": "a score as text",
    "i": "an id",
    "d": "8 bytes",
    "w": "4 bytes",
    "u": "an element",
    "m": "a module's data",
}


def node_strings(nodes: Sequence[Node]) -> list[Leaf]:
    """The listpacks of a stream's nodes."""
    first = nodes[0]
    assert isinstance(first, Loop)
    return [part for nodes in first.rounds if isinstance(part := nodes[1], Leaf)]


def change_loop(nodes: Sequence[Node], rng: Random) -> str:
    found = [loop for loop in loops(nodes) if loop.rounds or rng.random() < 0.1]
    if not found:
        raise Broken
    loop = rng.choice(found)
    rounds = loop.rounds
    n = len(rounds)
    here, there = rng.randrange(max(n, 1)), rng.randrange(max(n, 1))
    match rng.randrange(6):
        case 0 if n > 1:
            rounds[here], rounds[there] = rounds[there], rounds[here]
            return "two elements swapped"
        case 1 if n:
            rounds.insert(there, rounds[here])
            return "an element repeated"
        case 2 if n:
            rounds[there] = rounds[here]
            return "an element in place of another"
        case 3 if n:
            del rounds[here]
            return "an element taken out"
        case 4:
            rounds.clear()
            return "all elements taken out"
        case 5:
            loop.stated = wrong(n, rng)
            return f"count {loop.stated} for {n}"
    raise Broken


# Files


#: Of a record: database, what precedes its type, type, key and value.
Parts: TypeAlias = tuple[int, bytes, int, bytes, bytes]


@dataclass
class Source:
    """A sound file, cut into what stands before its keys and its records."""

    path: Path
    magic: bytes
    prelude: bytes
    records: list[Parts] = field(default_factory=list)
    layouts: dict[int, constants.ValueType] = field(default_factory=dict)


#: What stands before the keys, by its opcode: as the layout of a value.
_PRELUDE: Final = {0xF5: "s", 0xF2: "l*(s)", 0xF7: "lllm"}


@cache
def source(path: Path) -> Source:
    """A fixture in parts; without its AUX fields."""
    data = path.read_bytes()
    magic = data[:9]
    flavour, version = ("valkey", int(magic[6:])) if magic.startswith(b"VALKEY") else ("redis", int(magic[5:]))
    types = constants.value_types(flavour, version)
    found = Source(path, magic, b"", [], types)
    at, db, front = 9, 0, 9
    while data[at] != 0xFF:
        first = data[at]
        if first == 0xFE:
            db, at = read_length(data, at + 1)
            front = at
        elif first == 0xFB or first == 0xF4:
            at += 1
            for _ in range(2 if first == 0xFB else 3):
                at = read_length(data, at)[1]
            front = at
        elif first == 0xFA:
            at = string_end(data, string_end(data, at + 1))
            front = at
        elif first in _PRELUDE:
            begin = at
            _, at = parts(_PRELUDE[first], data, at + 1)
            found.prelude += data[begin:at]
            front = at
        elif first == 0xF6:
            begin = at
            at = string_end(data, string_end(data, at + 1))
            at = string_end(data, at + 1) if data[at] == 0 else string_end(data, string_end(data, at + 1))
            found.prelude += data[begin:at]
            front = at
        elif first == 0xF3:  # metadata of the key that follows
            at = parts("*(wm)", data, at + 1)[1]
        elif first >= 0xF8:
            at += {0xFC: 9, 0xFD: 5, 0xF9: 2}.get(first, 0) or read_length(data, at + 1)[1] - at
        else:
            value_at = string_end(data, at + 1)
            try:
                _, end = parts(types[first].layout, data, value_at)
            except (KeyError, Broken):  # modules and the like, whose end this module cannot tell: what follows them stays away
                break
            found.records.append((db, data[front:at], first, data[at + 1 : value_at], data[value_at:end]))
            at = front = end
    return found


def assembled(magic: bytes, prelude: bytes, records: Sequence[Parts], checksum: bool = True) -> bytes:
    """A file of these records."""
    out = [magic, prelude]
    db = -1
    for record in records:
        if record[0] != db:
            db = record[0]
            out.append(b"\xfe" + length(db))
        out += (record[1], bytes([record[2]]), record[3], record[4])
    body = b"".join(out) + b"\xff"
    old = magic.startswith(b"REDIS") and int(magic[5:]) < 5
    return body if old else body + (CRC.calc(body) if checksum else 0).to_bytes(8, "little")


class Mutant(NamedTuple):
    """A damaged file.

    Attributes:
        name: which one it is: the fixture and the number.
        magic: its first bytes.
        type, encoding: of the value that was changed.
        damage: what was changed.
        data: the file.
    """

    name: str
    magic: bytes
    type: str
    encoding: str
    damage: str
    data: bytes


def sources() -> list[Path]:
    """The fixtures that have records that this module can cut."""
    return [path for path in DUMPS if source(path).records]


#: How often a type is changed, beside 3 for others.
_WEIGHTS: Final = {0: 1, **dict.fromkeys(_STREAMS, 8)}


def mutant(path: Path, number: int) -> Mutant:
    """The damaged file of this number that is made of a fixture; always the same one."""
    rng = Random(f"{path.parent.name}/{path.name} {number}")
    name = f"{path.parent.name}/{path.name[:-4]}-{number}"
    while True:
        try:
            return _mutant(path, name, rng)
        except (Broken, LookupError, ValueError, struct.error):  # but for the first: a change before has damaged what is to be cut
            pass


def _mutant(path: Path, name: str, rng: Random) -> Mutant:
    origin = source(path)
    records = list(origin.records)
    if rng.random() < 0.9:  # most of the time a file of a few keys
        records = rng.sample(records, min(6, len(records)))
    # kinds of values are met by what there is to damage in them, however many there are of each
    type_codes = sorted({record[2] for record in records})
    type_code = rng.choices(type_codes, [_WEIGHTS.get(type_code, 3) for type_code in type_codes])[0]
    at = rng.choice([i for i, record in enumerate(records) if record[2] == type_code])
    db, front, type_code, key, value = records[at]
    value_type = origin.layouts[type_code]
    prelude = origin.prelude
    chance = rng.random()
    if chance < 0.03:
        other = rng.choice(records)
        records.insert(rng.randrange(len(records) + 1), (other[0], front, type_code, other[3], value))
        damage = "key of another"
    elif chance < 0.05:
        type_code = rng.choice([k for k in range(34) if k != type_code])
        records[at] = (db, front, type_code, key, value)
        damage = f"type {value_type.id} becomes {type_code}"
    elif chance < 0.07:
        front = rng.choice(
            [b"\xfc" + rng.choice(WORDS), b"\xfd" + rng.choice(WORDS)[:4], b"\xf8" + length(wrong(5, rng)), b"\xf9\x05"]
        )
        records[at] = (db, front, type_code, key, value)
        damage = "other attributes"
    elif chance < 0.08 and prelude:
        prelude = prelude * 2  # not its code, of which only a server can tell whether it runs
        damage = "function libraries twice"
    else:
        nodes, end = parts(value_type.layout, value)
        assert end == len(value)
        changes = []
        for _ in range(rng.choice([1, 1, 1, 2])):
            if rng.random() < 0.3:
                changes.append(change_loop(nodes, rng))
            else:
                changes.append(change_leaf(type_code, nodes, rng))
        damage = "; ".join(changes)
        changed = b"".join(map(bytes, nodes))
        if changed == value:
            raise Broken
        records[at] = (db, front, type_code, key, changed)
    data = assembled(origin.magic, prelude, records, rng.random() < 0.8)
    return Mutant(name, origin.magic, value_type.type, value_type.encoding, damage, data)


def mutants(count: int) -> Iterator[Mutant]:
    """As many damaged files, of each fixture as many."""
    paths = sources()
    for i in range(count):
        yield mutant(paths[i % len(paths)], i // len(paths))

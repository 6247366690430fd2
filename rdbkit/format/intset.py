"""Intsets: small sets of integers as one string. Source: src/intset.c of Redis."""

from __future__ import annotations

import struct
from operator import lt
from typing import TYPE_CHECKING, Final

from rdbkit.errors import CorruptError
from rdbkit.format.compiled import COMPILED
from rdbkit.format.packed import STRETCH, Cursor, PackedReader
from rdbkit.format.primitives import read_int16, read_int32, read_int64, read_uint32
from rdbkit.format.sink import Items, Sink

if TYPE_CHECKING:
    from mypy_extensions import i64

HEADER: Final = 8
_FORMATS: Final = {2: "h", 4: "i", 8: "q"}


class IntsetReader(PackedReader):
    """The reader of intsets, for `readers.py`."""

    def __init__(self) -> None:
        super().__init__("intset", HEADER, 0)

    def begin(self, buf: bytes, pos: i64, end: i64) -> i64:
        begin_intset(buf, pos, end)
        return pos + HEADER

    def step(self, cursor: Cursor, until: i64, sink: Sink) -> None:
        width: i64 = cursor.buf[cursor.pos]
        cursor.before = intset_numbers(cursor.buf, cursor.at, until, width, cursor.count > 0, cursor.before, sink)
        cursor.count += (until - cursor.at) // width
        cursor.at = until

    def header_count(self, buf: bytes, pos: i64, size: i64) -> i64:
        if size < HEADER:
            raise CorruptError(f"an intset of {size} bytes, where at least 8 are needed")
        n: i64 = read_uint32(buf, pos + 4)
        width: i64 = read_uint32(buf, pos)
        if n * width != size - HEADER:
            raise CorruptError(f"an intset of {size} bytes says that it has {n} numbers of {width} bytes")
        return n

    def read(self, buf: bytes, pos: i64, end: i64, sink: Sink) -> i64:
        return read_intset(buf, pos, end, sink)


def read_intset(buf: bytes, pos: i64, end: i64, sink: Sink) -> i64:
    """Tell `sink` of each member of the intset in `buf[pos:end]`; return how many there are.

    Raises: CorruptError, also where the members do not ascend.
    """
    width: i64 = begin_intset(buf, pos, end)
    at: i64 = pos + HEADER
    before: i64 = 0
    until: i64
    while at < end:
        until = min(at + STRETCH, end)
        before = intset_numbers(buf, at, until, width, at > pos + HEADER, before, sink)
        at = until
    count: i64 = (end - pos - HEADER) // width
    return count


def begin_intset(buf: bytes, pos: i64, end: i64) -> i64:
    """Bytes of a number of the intset in `buf[pos:end]`.

    Raises: CorruptError.
    """
    if end - pos < HEADER:
        raise CorruptError(f"an intset of {end - pos} bytes, where at least 8 are needed", rule="intset-size")
    width: i64 = read_uint32(buf, pos)
    count: i64 = read_uint32(buf, pos + 4)
    if width != 2 and width != 4 and width != 8:
        raise CorruptError(f"an intset has numbers of {width} bytes, where 2, 4 or 8 is allowed", rule="intset-width")
    if count == 0:
        raise CorruptError("an intset has no numbers", rule="empty")
    if count * width != end - pos - HEADER:
        raise CorruptError(
            f"an intset says that it has {count} numbers of {width} bytes, but {end - pos - HEADER} bytes follow",
            rule="intset-size",
        )
    return width


def intset_numbers(buf: bytes, at: i64, until: i64, width: i64, follows: bool, before: i64, sink: Sink) -> i64:
    """Tell `sink` of the numbers in `buf[at:until]`, which follow `before` where it `follows` anything; returns the last.

    Raises: CorruptError where they do not ascend.
    """
    if not COMPILED and type(sink) is Items:
        numbers = struct.unpack(f"<{(until - at) // width}{_FORMATS[width]}", buf[at:until])
        if (not follows or numbers[0] > before) and all(map(lt, numbers, numbers[1:])):
            sink.items += map(b"%d".__mod__, numbers)
            last: int = numbers[-1]
            return last
    n: i64
    while at < until:
        if width == 2:
            n = read_int16(buf, at)
        elif width == 4:
            n = read_int32(buf, at)
        else:
            n = read_int64(buf, at)
        if n <= before and follows:
            raise CorruptError(f"an intset has {n} behind {before}, where its numbers must ascend", rule="intset-order")
        before = n
        follows = True
        sink.integer(n)
        at += width
    return before

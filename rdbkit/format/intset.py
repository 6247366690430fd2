"""Intsets: small sets of integers as one string. Source: src/intset.c of Redis."""

from __future__ import annotations

import struct
from operator import lt
from typing import TYPE_CHECKING, Final

from rdbkit.errors import CorruptError
from rdbkit.format.form import COMPILED
from rdbkit.format.primitives import read_int16, read_int32, read_int64, read_uint32
from rdbkit.format.sink import Items, Sink

if TYPE_CHECKING:
    from mypy_extensions import i64

_HEADER: Final = 8
_FORMATS: Final = {2: "h", 4: "i", 8: "q"}


def walk_intset(buf: bytes, pos: i64, end: i64, sink: Sink) -> i64:
    """Tell `sink` of each member of the intset in `buf[pos:end]`; return how many there are.

    Raises: CorruptError, also where the members do not ascend.
    """
    if end - pos < _HEADER:
        raise CorruptError(f"an intset of {end - pos} bytes, where at least 8 are needed", rule="intset-size")
    width: i64 = read_uint32(buf, pos)
    count: i64 = read_uint32(buf, pos + 4)
    if width != 2 and width != 4 and width != 8:
        raise CorruptError(f"an intset has numbers of {width} bytes, where 2, 4 or 8 is allowed", rule="intset-width")
    if count == 0:
        raise CorruptError("an intset has no numbers", rule="empty")
    if count * width != end - pos - _HEADER:
        raise CorruptError(
            f"an intset says that it has {count} numbers of {width} bytes, but {end - pos - _HEADER} bytes follow",
            rule="intset-size",
        )
    if not COMPILED and type(sink) is Items:
        numbers = struct.unpack(f"<{count}{_FORMATS[width]}", buf[pos + _HEADER : end])
        if all(map(lt, numbers, numbers[1:])):
            sink.items += map(b"%d".__mod__, numbers)
            return count
    at: i64 = pos + _HEADER
    before: i64 = 0
    n: i64
    while at < end:
        if width == 2:
            n = read_int16(buf, at)
        elif width == 4:
            n = read_int32(buf, at)
        else:
            n = read_int64(buf, at)
        if n <= before and at > pos + _HEADER:
            raise CorruptError(f"an intset has {n} behind {before}, where its numbers must ascend", rule="intset-order")
        before = n
        sink.integer(n)
        at += width
    return count

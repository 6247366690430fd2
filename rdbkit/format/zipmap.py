"""Zipmaps: small hashes of Redis 2.4 and earlier as one string. Source: src/zipmap.c of Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rdbkit.errors import CorruptError
from rdbkit.format.packed import UNKNOWN, Cursor, PackedReader
from rdbkit.format.primitives import read_uint32
from rdbkit.format.sink import Sink

if TYPE_CHECKING:
    from mypy_extensions import i64

_END: Final = 0xFF
_BIG: Final = 0xFE  # a length of four bytes follows; as the count: too many for a byte


class ZipmapReader(PackedReader):
    """The reader of zipmaps, for `readers.py`."""

    def __init__(self) -> None:
        super().__init__("zipmap", 1, 1)

    def begin(self, buf: bytes, pos: i64, end: i64) -> i64:
        return begin_zipmap(buf, pos, end)

    def step(self, cursor: Cursor, until: i64, sink: Sink) -> None:
        cursor.at, cursor.count = zipmap_strings(cursor.buf, cursor.at, until, cursor.end - 1, cursor.count, sink)

    def finish(self, cursor: Cursor) -> None:
        end_zipmap(cursor.buf, cursor.pos, cursor.count)

    def header_count(self, buf: bytes, pos: i64, size: i64) -> i64:
        if size < 2:
            raise CorruptError(f"a zipmap of {size} bytes, where the empty one has 2")
        n: i64 = buf[pos]
        if n >= _BIG:
            return UNKNOWN
        if n * 3 + 2 > size:
            raise CorruptError(f"a zipmap of {size} bytes says that it has {n} fields")
        return 2 * n

    def read(self, buf: bytes, pos: i64, end: i64, sink: Sink) -> i64:
        return read_zipmap(buf, pos, end, sink)


def read_zipmap(buf: bytes, pos: i64, end: i64, sink: Sink) -> i64:
    """Tell `sink` of each field and value of the zipmap in `buf[pos:end]`; return how many strings there are.

    Raises: CorruptError, maybe after some strings were reported; IndexError where a string goes beyond `buf`.
    """
    at: i64 = begin_zipmap(buf, pos, end)
    count: i64 = 0
    at, count = zipmap_strings(buf, at, end - 1, end - 1, count, sink)
    end_zipmap(buf, pos, count)
    return count


def begin_zipmap(buf: bytes, pos: i64, end: i64) -> i64:
    """Where the first string of the zipmap in `buf[pos:end]` begins.

    Raises: CorruptError.
    """
    last: i64 = end - 1
    if last <= pos or buf[last] != _END:
        raise CorruptError("a zipmap does not end with 0xff", rule="zipmap-end")
    return pos + 1


def end_zipmap(buf: bytes, pos: i64, count: i64) -> None:
    """Raise CorruptError where the zipmap at `pos` does not have `count` strings."""
    if count & 1:
        raise CorruptError("a zipmap has a field without a value", rule="pairs")
    if buf[pos] != _BIG and buf[pos] * 2 != count:  # servers exempt this byte alone
        raise CorruptError(f"a zipmap says that it has {buf[pos]} fields, but it has {count // 2}", rule="zipmap-count")


def zipmap_strings(buf: bytes, at: i64, until: i64, last: i64, count: i64, sink: Sink) -> tuple[i64, i64]:
    """Tell `sink` of the strings that begin from `at` on and before `until`, of a zipmap whose end mark is at `last`.

    Args:
        count: strings in front of `at`.

    Returns where the next begins, and `count` with these.

    Raises: as `read_zipmap`.
    """
    n: i64
    unused: i64
    while at < until:
        n = buf[at]
        at += 1
        if n == _END:
            raise CorruptError("a zipmap ends before its last byte", rule="zipmap-end")
        if n == _BIG:
            n = read_uint32(buf, at)
            at += 4
            if n < _BIG:
                raise CorruptError(f"a length of {n} in a zipmap takes 5 bytes, where 1 is enough", rule="zipmap-length")
        unused = 0
        if count & 1:  # behind a value's length stands how many bytes are unused behind the value
            unused = buf[at]
            at += 1
        if at + n + unused > last:
            raise CorruptError(f"a string of a zipmap goes {at + n + unused - last} bytes beyond its end", rule="zipmap-overrun")
        sink.string(buf, at, at + n)
        at += n + unused
        count += 1
    return at, count

"""Ziplists: small collections of Redis 6.2 and earlier as one string.

Source: src/ziplist.c of Redis. Every rule that the newest loaders check is checked.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rdbkit.errors import CorruptError
from rdbkit.format.packed import Cursor, PackedReader, announced_entries
from rdbkit.format.primitives import check_packed, read_int16, read_int32, read_int64, read_uint32
from rdbkit.format.sink import Sink

if TYPE_CHECKING:
    from mypy_extensions import i64

HEADER: Final = 10
_END: Final = 0xFF
_BIG_PREVIOUS: Final = 0xFE
#: Bytes of an integer behind the byte that says so; those from 0xf1 to 0xfd are their number themselves.
_WIDTHS: Final = {0xFE: 1, 0xC0: 2, 0xF0: 3, 0xD0: 4, 0xE0: 8}
_MANY: Final = 65535  # stands for a count that does not fit


class ZiplistReader(PackedReader):
    """The reader of ziplists, for `readers.py`."""

    def __init__(self) -> None:
        super().__init__("ziplist", HEADER, 1)

    def begin(self, buf: bytes, pos: i64, end: i64) -> i64:
        return begin_ziplist(buf, pos, end)

    def step(self, cursor: Cursor, until: i64, sink: Sink) -> None:
        n: i64
        cursor.at, cursor.begin, n = ziplist_entries(cursor.buf, cursor.at, until, cursor.end - 1, cursor.before, sink)
        cursor.before = cursor.at - cursor.begin
        cursor.count += n

    def finish(self, cursor: Cursor) -> None:
        end_ziplist(cursor.buf, cursor.pos, cursor.begin, cursor.count)

    def header_count(self, buf: bytes, pos: i64, size: i64) -> i64:
        return announced_entries("ziplist", buf, pos, size, 8)

    def read(self, buf: bytes, pos: i64, end: i64, sink: Sink) -> i64:
        return read_ziplist(buf, pos, end, sink)


def read_ziplist(buf: bytes, pos: i64, end: i64, sink: Sink) -> i64:
    """Tell `sink` of each entry of the ziplist in `buf[pos:end]`; return how many there are.

    Raises: CorruptError, maybe after some entries were reported; IndexError where an entry goes beyond `buf`.
    """
    at: i64 = begin_ziplist(buf, pos, end)
    begin: i64 = at
    count: i64 = 0
    if at < end - 1:
        at, begin, count = ziplist_entries(buf, at, end - 1, end - 1, 0, sink)
    end_ziplist(buf, pos, begin, count)
    return count


def begin_ziplist(buf: bytes, pos: i64, end: i64) -> i64:
    """Where the first entry of the ziplist in `buf[pos:end]` begins.

    Raises: CorruptError.
    """
    check_packed("ziplist", buf, pos, end - pos, HEADER + 1)
    if buf[end - 1] != _END:
        raise CorruptError("a ziplist does not end with 0xff", rule="ziplist-end")
    return pos + HEADER


def end_ziplist(buf: bytes, pos: i64, begin: i64, count: i64) -> None:
    """Raise CorruptError where the ziplist at `pos`, whose last entry begins at `begin`, says otherwise, or has not `count`."""
    tail: i64 = read_uint32(buf, pos + 4)
    if tail != begin - pos:
        raise CorruptError(f"a ziplist says that its last entry is at {tail}, but it is at {begin - pos}", rule="ziplist-tail")
    announced: i64 = buf[pos + 8] | buf[pos + 9] << 8
    if announced != _MANY and announced != count:
        raise CorruptError(f"a ziplist says that it has {announced} entries, but it has {count}", rule="ziplist-count")


def ziplist_entries(buf: bytes, at: i64, until: i64, last: i64, before: i64, sink: Sink) -> tuple[i64, i64, i64]:
    """Tell `sink` of the entries that begin from `at` on and before `until`, of a ziplist whose end mark is at `last`.

    Args:
        before: bytes of the entry in front of `at`, 0 for none.

    Returns where the next begins, where the last of these begins, and how many there were.

    Raises: as `read_ziplist`.
    """
    begin: i64 = at
    count: i64 = 0
    size: i64
    n: i64
    while at < until:
        begin = at
        n = buf[at]
        at += 1
        if n == _BIG_PREVIOUS:
            n = read_uint32(buf, at)
            at += 4
        if n != before:
            raise CorruptError(
                f"an entry of a ziplist says that {n} bytes stand before it, but there are {before}", rule="ziplist-prevlen"
            )
        first: i64 = buf[at]
        if first < 0x40:
            at += 1
            size = first
            sink.string(buf, at, at + size)
        elif first < 0x80:
            size = (first & 0x3F) << 8 | buf[at + 1]
            at += 2
            sink.string(buf, at, at + size)
        elif first == 0x80:
            size = read_uint32_be(buf, at + 1)
            at += 5
            sink.string(buf, at, at + size)
        else:
            at += 1
            size = _size_of_number(first)
            sink.integer(_number(buf, at, first))
        at += size
        if at > last:
            raise CorruptError(f"an entry of a ziplist goes {at - last} bytes beyond its end", rule="ziplist-overrun")
        before = at - begin
        count += 1
    return at, begin, count


def read_uint32_be(buf: bytes, pos: i64) -> i64:
    """The one number of a ziplist whose highest byte comes first."""
    n: i64 = buf[pos] << 24 | buf[pos + 1] << 16 | buf[pos + 2] << 8 | buf[pos + 3]
    return n


def _size_of_number(first: i64) -> i64:
    if first == 0xFE:
        return 1
    if first == 0xC0:
        return 2
    if first == 0xF0:
        return 3
    if first == 0xD0:
        return 4
    if first == 0xE0:
        return 8
    if 0xF1 <= first <= 0xFD:
        return 0
    raise CorruptError(f"byte 0x{first:02x} does not begin an entry of a ziplist", rule="ziplist-entry")


def _number(buf: bytes, at: i64, first: i64) -> i64:
    n: i64
    if first == 0xFE:
        n = buf[at]
        return n if n < 0x80 else n - 0x100
    if first == 0xC0:
        return read_int16(buf, at)
    if first == 0xF0:
        n = buf[at] | buf[at + 1] << 8 | buf[at + 2] << 16
        return n if n < 0x800000 else n - 0x1000000
    if first == 0xD0:
        return read_int32(buf, at)
    if first == 0xE0:
        return read_int64(buf, at)
    return first - 0xF1


def ziplist_size(buf: bytes, at: i64) -> i64:
    """Bytes of a ziplist's entry from its form on."""
    first: i64 = buf[at]
    if first < 0x40:
        return first + 1
    if first < 0x80:
        return ((first & 0x3F) << 8 | buf[at + 1]) + 2
    if first == 0x80:
        return (buf[at + 1] << 24 | buf[at + 2] << 16 | buf[at + 3] << 8 | buf[at + 4]) + 5
    return _WIDTHS.get(int(first), 0) + 1


def ziplist_text(buf: bytes, at: i64) -> bytes:
    """The content of an entry whose form stands at `at`, integers as their text."""
    first: i64 = buf[at]
    size: i64 = ziplist_size(buf, at)
    if first < 0xC0:
        return buf[at + (1 if first < 0x40 else 2 if first < 0x80 else 5) : at + size]
    if size == 1:
        return b"%d" % (first - 0xF1)
    return b"%d" % int.from_bytes(buf[at + 1 : at + size], "little", signed=True)

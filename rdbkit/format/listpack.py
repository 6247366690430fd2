"""Listpacks: small collections of Redis 7 and later as one string, and the nodes of streams.

Source: src/listpack.c of Redis. Every rule that the newest loaders check is checked.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from rdbkit.errors import CorruptError
from rdbkit.format.compiled import COMPILED
from rdbkit.format.packed import STRETCH, Cursor, PackedReader, announced_entries
from rdbkit.format.primitives import check_packed, read_int16, read_int32, read_int64, read_integer, read_uint32
from rdbkit.format.sink import Items, Sink

if TYPE_CHECKING:
    from mypy_extensions import i64

HEADER: Final = 6
_END: Final = 0xFF
_WIDTHS: Final = {0xF1: 2, 0xF2: 3, 0xF3: 4, 0xF4: 8}  # bytes of an integer behind the first one
_NUMBER_SIZES: Final = (3, 4, 5, 9)  # of entries that begin with 0xf1 to 0xf4
_MANY: Final = 65535  # stands for a count that does not fit
#: The length byte of a plain string, by the first byte of its entry; the plain form of an integer from 0 to 127.
_LENGTHS: Final = [bytes([first & 0x3F]) for first in range(256)]
_NO_NUMBER: Final = 1 << 62
_DOUBLE: Final = struct.Struct("<d").pack
_SHORT: Final = struct.Struct("<Bh").pack
_INT: Final = struct.Struct("<Bi").pack
_SMALL_NUMBERS: Final = [bytes([0xC0, n]) for n in range(128)]


class ListpackReader(PackedReader):
    """The reader of listpacks, for `readers.py`."""

    def __init__(self) -> None:
        super().__init__("listpack", HEADER, 1)

    def begin(self, buf: bytes, pos: i64, end: i64) -> i64:
        return begin_listpack(buf, pos, end)

    def step(self, cursor: Cursor, until: i64, sink: Sink) -> None:
        n: i64
        cursor.at, n = listpack_entries(cursor.buf, cursor.at, until, cursor.end - 1, sink)
        cursor.count += n

    def finish(self, cursor: Cursor) -> None:
        end_listpack(cursor.buf, cursor.pos, cursor.end, cursor.at, cursor.count)

    def header_count(self, buf: bytes, pos: i64, size: i64) -> i64:
        return announced_entries("listpack", buf, pos, size, 4)

    def read(self, buf: bytes, pos: i64, end: i64, sink: Sink) -> i64:
        return read_listpack(buf, pos, end, sink)


def read_listpack(buf: bytes, pos: i64, end: i64, sink: Sink) -> i64:
    """Tell `sink` of each entry of the listpack in `buf[pos:end]`; return how many there are.

    Raises: CorruptError, maybe after some entries were reported; IndexError where an entry goes beyond `buf`.
    """
    at: i64 = begin_listpack(buf, pos, end)
    last: i64 = end - 1
    count: i64 = 0
    n: i64
    while at < last:
        at, n = listpack_entries(buf, at, last if COMPILED else min(at + STRETCH, last), last, sink)
        count += n
    end_listpack(buf, pos, end, at, count)
    return count


def begin_listpack(buf: bytes, pos: i64, end: i64) -> i64:
    """Where the first entry of the listpack in `buf[pos:end]` begins.

    Raises: CorruptError.
    """
    check_packed("listpack", buf, pos, end - pos, HEADER + 1)
    if buf[end - 1] != _END:
        raise CorruptError("a listpack does not end with 0xff", rule="listpack-end")
    return pos + HEADER


def end_listpack(buf: bytes, pos: i64, end: i64, at: i64, count: i64) -> None:
    """Raise CorruptError where the entries of the listpack in `buf[pos:end]`, so many, do not end at `at`."""
    if at != end - 1:
        raise CorruptError("an entry of a listpack goes beyond its end", rule="listpack-overrun")
    announced: i64 = buf[pos + 4] | buf[pos + 5] << 8
    if announced != _MANY and announced != count:
        raise CorruptError(f"a listpack says that it has {announced} entries, but it has {count}", rule="listpack-count")


def listpack_entries(buf: bytes, at: i64, until: i64, last: i64, sink: Sink) -> tuple[i64, i64]:
    """Tell `sink` of the entries that begin from `at` on and before `until`, of a listpack whose end mark is at `last`.

    Returns where the next begins, and how many there were.

    Raises: as `read_listpack`.
    """
    count: i64 = 0
    size: i64
    n: i64
    if not COMPILED:
        if type(sink) is Items:
            at, count = collect(buf, at, until, last, sink.items)
        else:
            at, count = sink.run(buf, at, until, last)
    while at < until:
        first: i64 = buf[at]
        if first < 0x80:
            size = 1
            sink.integer(first)
        elif first < 0xC0:
            size = (first & 0x3F) + 1
            sink.string(buf, at + 1, at + size)
        elif first < 0xE0:
            size = 2
            n = (first & 0x1F) << 8 | buf[at + 1]
            sink.integer(n if n < 4096 else n - 8192)
        else:
            size = _read_wide(buf, at, first, sink)
        if at + size >= last:
            raise CorruptError(f"an entry of a listpack goes {at + size - last + 1} bytes beyond its end", rule="listpack-overrun")
        if size < 128:
            if buf[at + size] != size:
                raise CorruptError(
                    f"a listpack's entry of {size} bytes is followed by the size {buf[at + size]}", rule="listpack-backlen"
                )
            at += size + 1
        else:
            at = _skip_backlen(buf, at, size)
        count += 1
    return at, count


def collect(buf: bytes, at: int, until: int, last: int, items: list[Any]) -> tuple[int, int]:
    """The entries of up to 126 bytes that begin before `until`, in the interpreter without a call for each.

    Returns where it left off, and how many.
    """
    append = items.append
    before = len(items)
    while at < until:
        first = buf[at]
        if 0x80 <= first < 0xC0:
            stop = at + first - 0x7F
            if buf[stop] != first - 0x7F:
                break
            append(buf[at + 1 : stop])
            at = stop + 1  # beyond the end of a damaged one, which the caller sees
            continue
        if first < 0x80:
            size = 1
            value = b"%d" % first
        elif first < 0xE0:
            size = 2
            n = (first & 0x1F) << 8 | buf[at + 1]
            value = b"%d" % (n if n < 4096 else n - 8192)
        elif first < 0xF0:
            size = ((first & 0x0F) << 8 | buf[at + 1]) + 2
            value = buf[at + 2 : at + size]
        elif 0xF1 <= first <= 0xF4:
            size = _NUMBER_SIZES[first - 0xF1]
            value = b"%d" % int.from_bytes(buf[at + 1 : at + size], "little", signed=True)
        else:
            break
        if size > 126 or at + size >= last or buf[at + size] != size:
            break  # what is rare, or wrong
        append(value)
        at += size + 1
    return at, len(items) - before


def collect_plain(buf: bytes, at: int, until: int, last: int, parts: list[bytes]) -> tuple[int, int]:
    """The entries of up to 126 bytes as plain strings of an RDB, as `collect`: of each its length, or nothing, and the rest."""
    append = parts.append
    lengths, numbers = _LENGTHS, _SMALL_NUMBERS
    count = 0
    while at < until:
        first = buf[at]
        if 0x80 <= first < 0xC0:
            stop = at + first - 0x7F
            if buf[stop] != first - 0x7F:
                break
            append(lengths[first])
            append(buf[at + 1 : stop])
            at = stop + 1  # beyond the end of a damaged one, which the caller sees
        elif first < 0x80:
            if buf[at + 1] != 1:
                break
            append(b"")
            append(numbers[first])
            at += 2
        elif first & 0xF0 == 0xE0:
            size = ((first & 0x0F) << 8 | buf[at + 1]) + 2
            if size > 126 or at + size >= last or buf[at + size] != size:
                break
            append(b"\x40%c" % (size - 2))
            append(buf[at + 2 : at + size])
            at += size + 1
        else:
            size, n = _number_at(buf, at, first)
            if at + size >= last or buf[at + size] != size:
                break  # what is rare, or wrong
            append(b"")
            append(_plain_number(n))
            at += size + 1
        count += 1
    return at, count


def any_twice(heads: list[bytes], bodies: list[bytes]) -> bool:
    """Whether two of the strings that `collect_plain` or `collect_scored` gave are the same."""
    if len({*zip(heads, bodies, strict=True)}) < len(bodies):
        return True
    if all(heads):
        return False
    names = map(plain_text, heads, bodies)  # a number and its text are the same name
    return len({*names}) < len(bodies)


def plain_text(head: bytes, body: bytes) -> bytes:
    """The content of a string that `collect_plain` or `collect_scored` gave."""
    if head:
        return body
    return b"%d" % read_integer(body, 0) if body[0] >= 0xC0 else body[1:]


def collect_scored(buf: bytes, at: int, until: int, last: int, parts: list[bytes]) -> tuple[int, int]:
    """Members as plain strings and scores as doubles, as `collect_plain`; always whole pairs."""
    append = parts.append
    lengths, numbers, pack = _LENGTHS, _SMALL_NUMBERS, _DOUBLE
    count = 0
    pair = at
    while at < until:
        pair = at
        first = buf[at]
        if 0x80 <= first < 0xC0:
            stop = at + first - 0x7F
            head, member = lengths[first], buf[at + 1 : stop]
        elif first == 0xF2:  # as ids are
            stop = at + 4
            n = buf[at + 1] | buf[at + 2] << 8 | buf[at + 3] << 16
            head, member = b"", _plain_number(n if n < 0x800000 else n - 0x1000000)
        elif first < 0x80:
            stop = at + 1
            head, member = b"", numbers[first]
        else:
            size, n = _number_at(buf, at, first)
            if size == _NO_NUMBER:
                break
            stop = at + size
            head, member = b"", _plain_number(n)
        if stop >= last or buf[stop] != stop - at:
            break
        at = stop + 1
        first = buf[at]
        if 0x80 <= first < 0xC0:
            stop = at + first - 0x7F
            text = buf[at + 1 : stop]
            try:
                score = float(text)
            except ValueError:
                break
            if score != score or b"_" in text or text != text.strip():
                break
        elif first < 0x80:
            stop = at + 1
            score = float(first)
        else:
            size, n = _number_at(buf, at, first)
            stop = at + size
            score = float(n)
        if stop >= last or buf[stop] != stop - at:
            break
        at = stop + 1
        append(head)
        append(member)
        append(pack(score))
        count += 2
    else:
        return at, count
    return pair, count


def _number_at(buf: bytes, at: int, first: int) -> tuple[int, int]:
    """`(size, value)` of an integer entry of more than seven bits; a size beyond any end where there is none."""
    if first < 0xE0:
        n = (first & 0x1F) << 8 | buf[at + 1]
        return 2, n if n < 4096 else n - 8192
    if 0xF1 <= first <= 0xF4:
        size = _NUMBER_SIZES[first - 0xF1]
        return size, int.from_bytes(buf[at + 1 : at + size], "little", signed=True)
    return _NO_NUMBER, 0


def _plain_number(n: int) -> bytes:
    """An integer as a string of an RDB."""
    if -0x8000 <= n < 0x8000:
        return b"\xc0%c" % (n & 0xFF) if -128 <= n < 128 else _SHORT(0xC1, n)
    if -0x80000000 <= n < 0x80000000:
        return _INT(0xC2, n)
    text = b"%d" % n
    return b"%c%b" % (len(text), text)


def _read_wide(buf: bytes, at: i64, first: i64, sink: Sink) -> i64:
    """The entries that are rare; returns the size without the length behind it."""
    n: i64
    if first < 0xF0:
        n = ((first & 0x0F) << 8 | buf[at + 1]) + 2
        sink.string(buf, at + 2, at + n)
        return n
    if first == 0xF0:
        n = read_uint32(buf, at + 1) + 5
        sink.string(buf, at + 5, at + n)
        return n
    if first == 0xF1:
        sink.integer(read_int16(buf, at + 1))
        return 3
    if first == 0xF2:
        n = buf[at + 1] | buf[at + 2] << 8 | buf[at + 3] << 16
        sink.integer(n if n < 0x800000 else n - 0x1000000)
        return 4
    if first == 0xF3:
        sink.integer(read_int32(buf, at + 1))
        return 5
    if first == 0xF4:
        sink.integer(read_int64(buf, at + 1))
        return 9
    raise CorruptError(f"byte 0x{first:02x} does not begin an entry of a listpack", rule="listpack-entry")


def _skip_backlen(buf: bytes, at: i64, size: i64) -> i64:
    """The end of an entry of `size` bytes, behind the length that follows it: groups of 7 bits, the highest first.

    The widths' limits are one less than seven bits a byte would allow, as lpEncodeBacklen has them.
    """
    width: i64 = 2
    if size > 16382:
        width = 3 if size <= 2097150 else 4 if size <= 268435454 else 5
    n: i64 = 0
    stop: i64 = at + size + width
    here: i64 = at + size
    good: bool = buf[here] < 0x80
    while here < stop:
        byte: i64 = buf[here]
        if here > at + size and byte < 0x80:
            good = False
        n = n << 7 | (byte & 0x7F)
        here += 1
    if not good or n != size:
        raise CorruptError(f"a listpack's entry of {size} bytes is not followed by its size", rule="listpack-backlen")
    return stop


def listpack_size(buf: bytes, at: i64) -> i64:
    """Bytes of a listpack's entry without the length behind it."""
    first: i64 = buf[at]
    if first < 0x80:
        return 1
    if first < 0xC0:
        return (first & 0x3F) + 1
    if first < 0xE0:
        return 2
    if first < 0xF0:
        return ((first & 0x0F) << 8 | buf[at + 1]) + 2
    if first == 0xF0:
        return read_uint32(buf, at + 1) + 5
    return _WIDTHS[int(first)] + 1


def listpack_end(buf: bytes, at: i64) -> i64:
    """Where the next entry begins."""
    size: i64 = listpack_size(buf, at)
    if size < 128:
        return at + size + 1
    return at + size + (2 if size <= 16382 else 3 if size <= 2097150 else 4 if size <= 268435454 else 5)


def skip_entries(buf: bytes, at: i64, count: i64) -> i64:
    """The end of so many entries of a listpack."""
    while count > 0:
        at = listpack_end(buf, at)
        count -= 1
    return at


def listpack_number(buf: bytes, at: i64) -> i64:
    """The integer of an entry that is one."""
    first: i64 = buf[at]
    if first < 0x80:
        return first
    n: i64
    if first < 0xE0:
        n = (first & 0x1F) << 8 | buf[at + 1]
        return n if n < 4096 else n - 8192
    if first == 0xF1:
        return read_int16(buf, at + 1)
    if first == 0xF3:
        return read_int32(buf, at + 1)
    if first == 0xF4:
        return read_int64(buf, at + 1)
    n = buf[at + 1] | buf[at + 2] << 8 | buf[at + 3] << 16
    return n if n < 0x800000 else n - 0x1000000


def listpack_text(buf: bytes, at: i64) -> bytes:
    """The content of an entry, integers as their text."""
    first: i64 = buf[at]
    if first < 0x80 or 0xC0 <= first < 0xE0 or first > 0xF0:
        return b"%d" % listpack_number(buf, at)
    head: i64 = 1 if first < 0xC0 else 2 if first < 0xF0 else 5
    return buf[at + head : at + listpack_size(buf, at)]


def encode_listpack(entries: list[bytes | int]) -> bytes:
    """A listpack of these entries; text that is a 64-bit integer becomes one, as in servers.

    >>> encode_listpack([b"ab", 1])
    b'\\r\\x00\\x00\\x00\\x02\\x00\\x82ab\\x03\\x01\\x01\\xff'
    """
    parts: list[bytes] = []
    size = HEADER + 1
    for entry in entries:
        n = entry if isinstance(entry, int) else _integer(entry)
        if n is not None:
            form = _encode_number(n)
        else:
            assert isinstance(entry, bytes)
            form = _encode_text(entry)
        behind = _encode_backlen(len(form))
        parts.append(form)
        parts.append(behind)
        size += len(form) + len(behind)
    head = size.to_bytes(4, "little") + min(len(entries), _MANY).to_bytes(2, "little")
    return head + b"".join(parts) + b"\xff"


def _integer(text: bytes) -> int | None:
    """The integer whose text this is just as servers would write it. Source: lpStringToInt64."""
    if len(text) > 20 or not text:
        return None
    digits = text[1:] if text[0] == 0x2D else text
    if not digits.isdigit() or (digits[0] == 0x30 and len(text) > 1):
        return None
    n = int(text)
    return n if -(1 << 63) <= n < 1 << 63 else None


def _encode_number(n: int) -> bytes:
    if 0 <= n < 128:
        return bytes([n])
    if -4096 <= n < 4096:
        return bytes([0xC0 | n >> 8 & 0x1F, n & 0xFF])
    for first, width in ((0xF1, 2), (0xF2, 3), (0xF3, 4), (0xF4, 8)):
        if -(1 << 8 * width - 1) <= n < 1 << 8 * width - 1:
            return bytes([first]) + n.to_bytes(width, "little", signed=True)
    raise ValueError(f"{n} does not fit into 64 bits")


def _encode_text(text: bytes) -> bytes:
    size = len(text)
    if size < 64:
        return bytes([0x80 | size]) + text
    if size < 4096:
        return bytes([0xE0 | size >> 8, size & 0xFF]) + text
    return b"\xf0" + size.to_bytes(4, "little") + text


def _encode_backlen(size: int) -> bytes:
    width = 1 if size < 128 else 2 if size <= 16382 else 3 if size <= 2097150 else 4 if size <= 268435454 else 5
    groups = [size >> 7 * i & 0x7F for i in reversed(range(width))]
    return bytes([groups[0], *[0x80 | group for group in groups[1:]]])

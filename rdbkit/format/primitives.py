"""Lengths, strings and the few fixed-width numbers of the format, as functions over `(buf, pos)`.

Running off the end of `buf` raises IndexError, or gives an end beyond `len(buf)`: the caller then needs more bytes. What can
never become valid raises `CorruptError` with `offset` relative to `buf`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rdbkit.errors import CorruptError, LimitError
from rdbkit.format.budget import HOW_TO_RAISE
from rdbkit.format.lzf import lzf_decompress

if TYPE_CHECKING:
    from mypy_extensions import i64

#: Lengths from 2**48 on are refused: no server holds such a value, and sums of smaller ones never overflow 64 bits.
MAX_LENGTH: Final = 1 << 48


def read_length(buf: bytes, pos: i64) -> tuple[i64, i64]:
    """`(value, end)` of a plain length or count at `pos`.

    Source: rdbLoadLenByRef in Redis' src/rdb.c.

    Raises: CorruptError for a special-string marker, an unknown form or a length that cannot be; IndexError at the end.
    """
    first: i64 = buf[pos]
    n: i64
    if first < 0x40:
        return first, pos + 1
    if first < 0x80:
        return (first & 0x3F) << 8 | buf[pos + 1], pos + 2
    if first == 0x80:
        n = buf[pos + 1] << 24 | buf[pos + 2] << 16 | buf[pos + 3] << 8 | buf[pos + 4]
        return n, pos + 5
    if first == 0x81:
        n = buf[pos + 8]
        if buf[pos + 1] != 0 or buf[pos + 2] != 0:
            value = int.from_bytes(buf[pos + 1 : pos + 9], "big")
            raise CorruptError(f"a length of {value} cannot be", offset=pos)
        n |= buf[pos + 3] << 40 | buf[pos + 4] << 32 | buf[pos + 5] << 24 | buf[pos + 6] << 16 | buf[pos + 7] << 8
        return n, pos + 9
    raise CorruptError(f"byte 0x{first:02x} does not begin a length", offset=pos)


def skip_length(buf: bytes, pos: i64) -> i64:
    """The end of a length whose value may be anything up to 2**64-1 (a number stored as a length)."""
    first: i64 = buf[pos]
    if first < 0x40:
        return pos + 1
    if first < 0x80:
        return pos + 2
    if first == 0x80:
        return pos + 5
    if first == 0x81:
        return pos + 9
    raise CorruptError(f"byte 0x{first:02x} does not begin a length", offset=pos)


def read_uint64(buf: bytes, pos: i64) -> tuple[int, i64]:
    """`(value, end)` of a length that may use all 64 bits, such as a module id."""
    if buf[pos] == 0x81:
        end: i64 = pos + 9
        buf[end - 1]
        return int.from_bytes(buf[pos + 1 : end], "big"), end
    n, end = read_length(buf, pos)
    return n, end


def skip_string(buf: bytes, pos: i64) -> i64:
    """The end of the string at `pos` in any of its forms; may lie beyond `len(buf)`.

    Source: rdbGenericLoadStringObject in Redis' src/rdb.c.
    """
    first: i64 = buf[pos]
    if first < 0x40:
        return pos + 1 + first
    if first < 0x80:
        return pos + 2 + ((first & 0x3F) << 8 | buf[pos + 1])
    if first >= 0xC0:
        if first == 0xC0:
            return pos + 2
        if first == 0xC1:
            return pos + 3
        if first == 0xC2:
            return pos + 5
        if first == 0xC3:
            packed, pos = read_length(buf, pos + 1)
            _, pos = read_length(buf, pos)
            return pos + packed
        raise CorruptError(f"byte 0x{first:02x} does not begin a string", offset=pos)
    n, pos = read_length(buf, pos)
    return pos + n


def read_string(buf: bytes, pos: i64, limit: i64) -> tuple[bytes, i64]:
    """`(content, end)` of the string at `pos`, integers as their decimal text, LZF unpacked.

    Args:
        limit: most bytes that the content may have.

    Raises: LimitError above `limit`; CorruptError; IndexError where `buf` ends first.
    """
    first: i64 = buf[pos]
    n: i64
    end: i64
    if first < 0xC0:
        n, start = read_length(buf, pos)
        if n > limit:
            raise LimitError(f"a string of {n} bytes, where at most {limit} are allowed; {HOW_TO_RAISE}", offset=pos)
        end = start + n
        if n:
            buf[end - 1]
        return buf[start:end], end
    if first == 0xC3:
        packed, start = read_length(buf, pos + 1)
        n, start = read_length(buf, start)
        if n > limit or packed > limit:
            raise LimitError(f"a string of {max(n, packed)} bytes, where at most {limit} are allowed; {HOW_TO_RAISE}", offset=pos)
        if n > packed * 132:
            raise CorruptError(f"{packed} bytes of LZF cannot hold {n} bytes", offset=pos, rule="string-lzf")
        end = start + packed
        if packed:
            buf[end - 1]
        try:
            return lzf_decompress(buf[start:end], n), end
        except CorruptError as e:
            raise CorruptError(e.message, offset=pos, rule="string-lzf") from None
    end = skip_string(buf, pos)
    buf[end - 1]
    return str(read_integer(buf, pos)).encode(), end


def read_integer(buf: bytes, pos: i64) -> i64:
    """The integer that stands in place of a string at `pos`, which begins with 0xC0, 0xC1 or 0xC2."""
    first: i64 = buf[pos]
    if first == 0xC0:
        n: i64 = buf[pos + 1]
        return n if n < 0x80 else n - 0x100
    return read_int16(buf, pos + 1) if first == 0xC1 else read_int32(buf, pos + 1)


def read_int64(buf: bytes, pos: i64) -> i64:
    """The signed 64-bit little-endian number at `pos`."""
    high: i64 = buf[pos + 7]
    if high >= 0x80:
        high -= 0x100
    n: i64 = buf[pos] | buf[pos + 1] << 8 | buf[pos + 2] << 16 | buf[pos + 3] << 24
    n |= buf[pos + 4] << 32 | buf[pos + 5] << 40 | buf[pos + 6] << 48
    return n | high << 56


def read_int16(buf: bytes, pos: i64) -> i64:
    """The signed 16-bit little-endian number at `pos`."""
    n: i64 = buf[pos] | buf[pos + 1] << 8
    return n if n < 0x8000 else n - 0x10000


def read_int32(buf: bytes, pos: i64) -> i64:
    """The signed 32-bit little-endian number at `pos`."""
    n: i64 = read_uint32(buf, pos)
    return n if n < 0x80000000 else n - 0x100000000


def read_uint32(buf: bytes, pos: i64) -> i64:
    """The unsigned 32-bit little-endian number at `pos`."""
    n: i64 = buf[pos] | buf[pos + 1] << 8 | buf[pos + 2] << 16 | buf[pos + 3] << 24
    return n


def check_packed(what: str, buf: bytes, pos: i64, size: i64, least: i64) -> None:
    """Raise CorruptError unless the listpack or ziplist of `size` bytes at `pos` can be one, and says that it has so many."""
    if size < least:
        raise CorruptError(f"a {what} of {size} bytes, where the empty one has {least}", rule=f"{what}-size")
    if read_uint32(buf, pos) != size:
        said: i64 = read_uint32(buf, pos)
        raise CorruptError(f"a {what} says that it has {said} bytes, but it has {size}", rule=f"{what}-size")

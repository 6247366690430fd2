"""LZF, the compression of single strings inside an RDB.

A stream is a row of instructions. A control byte below 32 says that as many bytes plus one stand there as they are; any
other copies a run from what has been written: length in the upper three bits (7: one more byte), distance in the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from librt.strings import BytesWriter, read_i64_le, write_i64_le

from rdbkit.errors import CorruptError
from rdbkit.format.compiled import COMPILED

if TYPE_CHECKING:
    from mypy_extensions import i64


def _from_extra(name: str) -> Callable[[bytes, int], bytes | None] | None:
    """A C function of python-lzf (extra `lzf`), where that is installed."""
    try:
        import lzf
    except ImportError:
        return None
    function: Callable[[bytes, int], bytes | None] = getattr(lzf, name)
    return function


_NATIVE: Final = _from_extra("decompress")
_NATIVE_PACK: Final = _from_extra("compress")

#: The farthest that a copy reaches back; the shortest that is worth one, and the longest there is.
_FARTHEST: Final = 1 << 13
_SHORTEST: Final = 3
_LONGEST: Final = 264
#: A literal holds so many bytes.
_LITERAL: Final = 32
#: What packing must save at least. Source: rdbSaveLzfStringObject in Redis' src/rdb.c.
_SAVED: Final = 4
_MOST_SLOTS: Final = 1 << 14
_WIDEST_STEP: Final = 16


def lzf_decompress(data: bytes, size: i64) -> bytes:
    """Unpack `data`, which must give exactly `size` bytes.

    Raises: CorruptError where it gives more or fewer, or points before its own beginning.

    >>> lzf_decompress(b"\\x01ab\\xe0\\x01\\x01", 12)
    b'abababababab'
    """
    if _NATIVE is not None and size > 0:
        try:
            whole = _NATIVE(data, size)
        except Exception:  # whatever it dislikes, the loop below says what is wrong
            whole = None
        if whole is not None and len(whole) == size:
            return whole
    return _unpack_bytewise(data, size) if COMPILED else _unpack_slices(data, size)


def damaged_lzf(size: int) -> CorruptError:
    """One error for all that can be wrong, since the two forms meet it in another order."""
    return CorruptError(f"LZF data does not unpack to the {size} bytes that it announces", rule="string-lzf")


#: What a control byte says of a copy: its distance but for the low byte, and its length.
_DISTANCES: Final = [((control & 31) << 8) + 1 for control in range(256)]
_LENGTHS: Final = [(control >> 5) + 2 for control in range(256)]


def _unpack_bytewise(data: bytes, size: i64) -> bytes:
    """The compiled form's: five times faster byte by byte than with slices."""
    out = BytesWriter()
    pos: i64 = 0
    end: i64 = len(data)
    stop: i64
    at: i64
    while pos < end:
        control: i64 = data[pos]
        pos += 1
        if control < 32:
            stop = pos + control + 1
            if stop > end:
                raise damaged_lzf(size)
            while stop - pos >= 8:
                write_i64_le(out, read_i64_le(data, pos))
                pos += 8
            while pos < stop:
                out.append(data[pos])
                pos += 1
        else:
            length: i64 = control >> 5
            if pos + (1 if length < 7 else 2) > end:
                raise damaged_lzf(size)
            if length == 7:
                length += data[pos]
                pos += 1
            at = len(out) - ((control & 31) << 8 | data[pos]) - 1
            pos += 1
            if at < 0:
                raise damaged_lzf(size)
            stop = at + length + 2
            while at < stop:
                out.append(out[at])
                at += 1
        if len(out) > size:
            raise damaged_lzf(size)
    if len(out) != size:
        raise damaged_lzf(size)
    return out.getvalue()


def _unpack_slices(data: bytes, size: int) -> bytes:
    """The interpreted form's: few steps an instruction instead of a step a byte."""
    out = bytearray()
    pos = 0
    end = len(data)
    distances, lengths = _DISTANCES, _LENGTHS
    try:
        while pos < end:
            control = data[pos]
            if control < 32:
                pos += 1
                stop = pos + control + 1
                out += data[pos:stop]
                pos = stop
                if stop >= end:
                    break
                control = data[stop]
                if control < 32:
                    continue
            written = len(out)
            if control < 224:
                start = written - distances[control] - data[pos + 1]
                stop = start + lengths[control]
                pos += 2
            else:
                start = written - distances[control] - data[pos + 2]
                stop = start + data[pos + 1] + 9
                pos += 3
                if written > size:  # only these make much of little
                    break
            if start < 0:
                raise damaged_lzf(size)
            if stop <= written:
                out += out[start:stop]
            else:  # the copy reads what it has written itself
                out += (out[start:] * ((stop - start) // (written - start) + 1))[: stop - start]
    except IndexError:
        raise damaged_lzf(size) from None
    if pos > end or len(out) != size:
        raise damaged_lzf(size)
    return bytes(out)


def lzf_compress(data: bytes) -> bytes:
    """Pack `data` so that any LZF decoder unpacks it; b"" where that would not save at least 4 bytes.

    The bytes differ with what packs: python-lzf where it is installed, else the code below.

    >>> len(lzf_compress(b"ab" * 1000)) < 40, lzf_compress(b"no two are the same")
    (True, b'')
    """
    most = len(data) - _SAVED
    if most < 1:
        return b""
    if _NATIVE_PACK is not None:
        try:
            packed = _NATIVE_PACK(data, most)
        except Exception:  # such as for more bytes than a C int counts
            return _pack(data, most)
        # the function takes its limit for one byte less than it is
        return packed if packed is not None and len(packed) <= most else b""
    return _pack(data, most)


def _pack(data: bytes, most: i64) -> bytes:
    """The instructions that `data` unpacks from, b"" for more than `most` bytes of them.

    Every position's three bytes are looked up in a table of where such were last seen. Where none match for long, as in what is
    compressed already, positions are passed over, more and more of them.
    """
    out = BytesWriter()
    size: i64 = len(data)
    slots: i64 = 256
    while slots < size and slots < _MOST_SLOTS:
        slots <<= 1
    mask: i64 = slots - 1
    table: list[int] = [-1] * int(slots)
    begin: i64 = 0  # of what is not yet written
    pos: i64 = 0
    last: i64 = size - 2
    slot: i64
    at: i64
    length: i64
    room: i64
    while pos < last:
        slot = (data[pos] * 2533 + data[pos + 1] * 79 + data[pos + 2]) & mask
        at = table[slot]
        table[slot] = int(pos)
        length = 0
        if at >= 0 and pos - at <= _FARTHEST:
            room = min(size - pos, _LONGEST)
            while length < room and data[at + length] == data[pos + length]:
                length += 1
        if length < _SHORTEST:
            pos += min(1 + (pos - begin >> 7), _WIDEST_STEP)
            continue
        _write_literals(out, data, begin, pos)
        _write_copy(out, pos - at - 1, length - 2)
        if len(out) > most:
            return b""
        pos += length
        begin = pos
        if pos < last:  # what follows next time may begin a byte earlier
            table[(data[pos - 1] * 2533 + data[pos] * 79 + data[pos + 1]) & mask] = int(pos - 1)
    _write_literals(out, data, begin, size)
    return out.getvalue() if len(out) <= most else b""


def _write_literals(out: BytesWriter, data: bytes, start: i64, end: i64) -> None:
    while start < end:
        stop: i64 = min(start + _LITERAL, end)
        out.append(stop - start - 1)
        out.write(data[start:stop])
        start = stop


def _write_copy(out: BytesWriter, distance: i64, length: i64) -> None:
    """A copy whose distance and length are given as the format has them: less 1, and less 2."""
    if length < 7:
        out.append(length << 5 | distance >> 8)
    else:
        out.append(0xE0 | distance >> 8)
        out.append(length - 7)
    out.append(distance & 0xFF)

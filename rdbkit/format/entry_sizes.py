"""Bytes that strings and numbers take as entries of listpacks and ziplists, without making any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mypy_extensions import i64

#: Bytes of a listpack and of a ziplist beside its entries.
LISTPACK_ENDS: Final = 7
ZIPLIST_ENDS: Final = 11
_SAMPLE: Final = 512  # bytes of a ziplist that are looked at


def entry_of(n: i64, ziplist: bool) -> i64:
    """Bytes of a text of `n` bytes as an entry of a listpack, or of a ziplist behind a short entry.

    Source: lpEncodeString and lpEncodeBacklen in src/listpack.c, zipStoreEntryEncoding in src/ziplist.c.
    """
    if n < 64:
        return n + 2
    if ziplist:
        return n + 3 if n < 16384 else n + 6
    if n < 4096:
        return n + 3 if n < 126 else n + 4
    return n + 7 if n < 16378 else n + 8 if n < (1 << 21) - 6 else n + 9


def entry_of_number(value: i64, ziplist: bool) -> i64:
    """The same of a number. Source: lpEncodeIntegerGetType in src/listpack.c, zipTryEncoding in src/ziplist.c."""
    if ziplist:
        if 0 <= value <= 12:
            return 2
        for bits, size in ((7, 3), (15, 4), (23, 5), (31, 6)):
            if -(1 << bits) <= value < 1 << bits:
                return size
        return 10
    if 0 <= value < 128:
        return 2
    for bits, size in ((12, 3), (15, 4), (23, 5), (31, 6)):
        if -(1 << bits) <= value < 1 << bits:
            return size
    return 10


def as_listpack(buf: bytes, pos: i64, n: i64) -> i64:
    """Bytes of the listpack that a ziplist of `n` bytes at `pos` becomes: of its first 512 bytes, and as much for the others.

    Source: the head of src/ziplist.c. Raises: IndexError where `buf` does not have that much of it.
    """
    known: i64 = min(n, _SAMPLE)
    buf[pos + known - 1]
    sample = buf[pos : pos + known]
    taken: i64 = 0
    at: i64 = 10
    to: i64 = at
    size: i64
    try:
        while sample[at] != 0xFF or at != n - 1:
            at += 1 if sample[at] < 254 else 5
            first: i64 = sample[at]
            if first < 0xC0:
                if first < 0x40:
                    size = first
                    at += 1 + size
                elif first < 0x80:
                    size = (first & 0x3F) << 8 | sample[at + 1]
                    at += 2 + size
                else:
                    size = sample[at + 1] << 24 | sample[at + 2] << 16 | sample[at + 3] << 8 | sample[at + 4]
                    at += 5 + size
                if at > n:
                    break
                size = entry_of(size, False)
            elif 0xF0 < first < 0xFE:
                size = 2
                at += 1
            else:
                size = 2 if first == 0xC0 else 3 if first == 0xF0 else 4 if first == 0xD0 else 1 if first == 0xFE else 8
                sample[at + size]
                number = int.from_bytes(sample[at + 1 : at + 1 + size], "little", signed=True)
                at += 1 + size
                size = entry_of_number(number, False)
            taken += size
            to = at
    except IndexError:
        pass
    n = max(0, n - ZIPLIST_ENDS)
    return LISTPACK_ENDS + (n * taken // (to - 10) if to > 10 else n)

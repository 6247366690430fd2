"""Cluster slots of keys."""

from __future__ import annotations

from binascii import crc_hqx
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mypy_extensions import i64

#: Slots of a cluster, numbered from 0.
SLOTS: Final = 16384
_BRACE: Final = 0x7B
_CLOSING: Final = 0x7D


def key_slot(key: bytes) -> int:
    """The cluster slot of a key, 0 to 16383: what `CLUSTER KEYSLOT` answers.

    Where the key has a hash tag, that is at least one byte between its first `{` and the next `}`, only the tag counts, so that
    keys of one tag share a slot.

    Source: keyHashSlot in Redis' src/cluster.c; CRC-16/XMODEM is what binascii calls crc_hqx.

    >>> key_slot(b"foo"), key_slot(b"{foo}.bar"), key_slot(b"{}foo")
    (12182, 12182, 9500)
    """
    start: i64 = key.find(b"{") + 1
    if start > 0:
        end: i64 = key.find(b"}", start)
        if end > start:
            return crc_hqx(key[start:end], 0) % SLOTS
    return crc_hqx(key, 0) % SLOTS


def slot_of(buf: bytes, at: i64, stop: i64) -> i64:
    """`key_slot` of `buf[at:stop]`, for the compiled form: two nanoseconds a byte, and no object."""
    crc: i64 = 0
    x: i64
    for i in range(at, stop):
        x = crc >> 8 ^ buf[i]
        x ^= x >> 4
        crc = (crc << 8 ^ x << 12 ^ x << 5 ^ x) & 0xFFFF
    return crc & 0x3FFF


def tag_slot_of(buf: bytes, at: i64, stop: i64) -> i64:
    """`slot_of` for a name that may have a hash tag, of which it counts alone."""
    crc: i64 = 0
    x: i64
    for i in range(at, stop):
        x = buf[i]
        if x == _BRACE:
            return _slot_with_brace(buf, at, i, stop)
        x ^= crc >> 8
        x ^= x >> 4
        crc = (crc << 8 ^ x << 12 ^ x << 5 ^ x) & 0xFFFF
    return crc & 0x3FFF


def _slot_with_brace(buf: bytes, at: i64, brace: i64, stop: i64) -> i64:
    """What stands between the first opening brace and the next closing one counts, unless it is empty."""
    end: i64 = brace + 1
    while end < stop and buf[end] != _CLOSING:
        end += 1
    if end < stop and end > brace + 1:
        return slot_of(buf, brace + 1, end)
    return slot_of(buf, at, stop)

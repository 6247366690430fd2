"""Cluster slots of keys."""

from __future__ import annotations

from binascii import crc_hqx
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mypy_extensions import i64

#: Slots of a cluster, numbered from 0.
SLOTS: Final = 16384


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

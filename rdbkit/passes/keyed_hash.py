"""A keyed hash of a few words in plain arithmetic, since calling one of C takes longer than the hash; compiled.

It is SipHash-1-3 over words of 64 bits. What is hashed says first how long it is, so that nothing has to follow it. Words are
64 bits: with a sign where arithmetic is so, as compiled, and without in Python's integers. Their bytes are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rdbkit.format.compiled import COMPILED

if TYPE_CHECKING:
    from mypy_extensions import i64

_ALL: Final = (1 << 64) - 1
#: The bits of a result that are the same number in both forms.
LOW: Final = (1 << 56) - 1
_TURNS: Final = (1, 0, 0, 0)  # one takes in a word, and three end the hash
_STATES: Final = 1 << 12  # that are remembered where there is no compiled form


class KeyedHash:
    """The hash under one key.

    Args:
        key: 16 bytes.
    """

    def __init__(self, key: bytes) -> None:
        k0 = int.from_bytes(key[:8], "little", signed=COMPILED)
        k1 = int.from_bytes(key[8:], "little", signed=COMPILED)
        self.v0: i64 = k0 ^ 0x736F6D6570736575
        self.v1: i64 = k1 ^ 0x646F72616E646F6D
        self.v2: i64 = k0 ^ 0x6C7967656E657261
        self.v3: i64 = k1 ^ 0x7465646279746573
        self.states: dict[tuple[int, bytes], tuple[i64, i64, i64, i64]] = {}

    def after(self, kind: i64, data: bytes) -> tuple[i64, i64, i64, i64]:
        """The state after a number, from which the count of bytes follows, and the bytes."""
        at: i64 = 0
        place: i64 = 0
        size: i64 = len(data)
        if not COMPILED:
            found = self.states.get((kind, data))
            if found is None:
                found = absorbed((self.v0, self.v1, self.v2, self.v3), kind & _ALL)
                for at in range(0, size, 8):
                    found = absorbed(found, int.from_bytes(data[at : at + 8], "little"))
                if len(self.states) >= _STATES:
                    self.states.clear()
                self.states[kind, data] = found
            return found
        state = absorbed((self.v0, self.v1, self.v2, self.v3), kind)
        while at < size:
            word: i64 = 0
            place = 0
            while place < 64 and at < size:
                byte: i64 = data[at]
                word |= byte << place
                place += 8
                at += 1
            state = absorbed(state, word)
        return state


def absorbed(state: tuple[i64, i64, i64, i64], word: i64) -> tuple[i64, i64, i64, i64]:
    """The state after one more word."""
    v0, v1, v2, v3 = state
    v3 ^= word
    if not COMPILED:
        v0 = v0 + v1 & _ALL
        v1 = ((v1 << 13 | v1 >> 51) & _ALL) ^ v0
        v2 = v2 + v3 & _ALL
        v3 = ((v3 << 16 | v3 >> 48) & _ALL) ^ v2
        v0 = (v0 << 32 & _ALL | v0 >> 32) + v3 & _ALL
        v3 = ((v3 << 21 | v3 >> 43) & _ALL) ^ v0
        v2 = v2 + v1 & _ALL
        v1 = ((v1 << 17 | v1 >> 47) & _ALL) ^ v2
        return v0 ^ word, v1, v2 << 32 & _ALL | v2 >> 32, v3
    v0 += v1
    v1 = (v1 << 13 | (v1 >> 51 & 0x1FFF)) ^ v0
    v0 = v0 << 32 | (v0 >> 32 & 0xFFFFFFFF)
    v2 += v3
    v3 = (v3 << 16 | (v3 >> 48 & 0xFFFF)) ^ v2
    v0 += v3
    v3 = (v3 << 21 | (v3 >> 43 & 0x1FFFFF)) ^ v0
    v2 += v1
    v1 = (v1 << 17 | (v1 >> 47 & 0x1FFFF)) ^ v2
    v2 = v2 << 32 | (v2 >> 32 & 0xFFFFFFFF)
    return v0 ^ word, v1, v2, v3


def hash_words(state: tuple[i64, i64, i64, i64], word: i64, number: i64) -> i64:
    """What a state and one more word are hashed to; another `number` makes it another hash."""
    v0, v1, v2, v3 = state
    v1 ^= number
    left: i64 = 4
    if not COMPILED:
        v3 ^= word
        for turn in _TURNS:
            v0 = v0 + v1 & _ALL
            v1 = ((v1 << 13 | v1 >> 51) & _ALL) ^ v0
            v2 = v2 + v3 & _ALL
            v3 = ((v3 << 16 | v3 >> 48) & _ALL) ^ v2
            v0 = (v0 << 32 & _ALL | v0 >> 32) + v3 & _ALL
            v3 = ((v3 << 21 | v3 >> 43) & _ALL) ^ v0
            v2 = v2 + v1 & _ALL
            v1 = ((v1 << 17 | v1 >> 47) & _ALL) ^ v2
            v2 = v2 << 32 & _ALL | v2 >> 32
            if turn:
                v0 ^= word
                v2 ^= 0xFF
        return v0 ^ v1 ^ v2 ^ v3
    v3 ^= word
    while left > 0:
        v0 += v1
        v1 = (v1 << 13 | (v1 >> 51 & 0x1FFF)) ^ v0
        v0 = v0 << 32 | (v0 >> 32 & 0xFFFFFFFF)
        v2 += v3
        v3 = (v3 << 16 | (v3 >> 48 & 0xFFFF)) ^ v2
        v0 += v3
        v3 = (v3 << 21 | (v3 >> 43 & 0x1FFFFF)) ^ v0
        v2 += v1
        v1 = (v1 << 17 | (v1 >> 47 & 0x1FFFF)) ^ v2
        v2 = v2 << 32 | (v2 >> 32 & 0xFFFFFFFF)
        if left == 4:
            v0 ^= word
            v2 ^= 0xFF
        left -= 1
    return v0 ^ v1 ^ v2 ^ v3

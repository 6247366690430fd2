"""The keyed hash is SipHash-1-3, whichever form is at work."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rdbkit.format.compiled import COMPILED
from rdbkit.passes.keyed_hash import KeyedHash, hash_words

ALL = (1 << 64) - 1
KEY = bytes(range(16))
WORDS = st.integers(0, ALL)


def siphash(key: bytes, words: list[int], tweak: int) -> int:
    """SipHash-1-3 of whole words, after its specification; `tweak` goes into the state in front of the last one."""
    k0, k1 = int.from_bytes(key[:8], "little"), int.from_bytes(key[8:], "little")
    v = [k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D, k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573]

    def left(x: int, bits: int) -> int:
        return (x << bits | x >> 64 - bits) & ALL

    def turn() -> None:
        for a, b, c, d, first, second in ((0, 1, 2, 3, 13, 16), (2, 1, 0, 3, 17, 21)):
            v[a] = (v[a] + v[b]) & ALL
            v[c] = (v[c] + v[d]) & ALL
            v[b] = left(v[b], first) ^ v[a]
            v[d] = left(v[d], second) ^ v[c]
            v[a] = left(v[a], 32)

    for at, word in enumerate(words):
        if at == len(words) - 1:
            v[1] ^= tweak
        v[3] ^= word
        turn()
        v[0] ^= word
    v[2] ^= 0xFF
    for _ in range(3):
        turn()
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def signed(n: int) -> int:
    return n - (1 << 64) if COMPILED and n >> 63 else n


def test_the_reference_is_siphash() -> None:
    # SipHash-1-3 of eight bytes 0 to 7 under the key 0 to 15: its one word, and the word with the length
    assert siphash(KEY, [int.from_bytes(range(8), "little"), 8 << 56], 0) == 0x369095118D299A8E


@given(st.binary(min_size=16, max_size=16), st.integers(0, 1 << 40), st.binary(max_size=40), WORDS, st.integers(0, 255))
def test_it_is_siphash(key: bytes, kind: int, data: bytes, word: int, number: int) -> None:
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(0, len(data), 8)]
    found = hash_words(KeyedHash(key).after(kind, data), signed(word), number)
    assert int(found) & ALL == siphash(key, [kind, *words, word], number)

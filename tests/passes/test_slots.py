"""Which slots keys are in, what of that chance explains, and names that CRC16 does not spread."""

from __future__ import annotations

import random
from binascii import crc_hqx
from collections.abc import Callable, Iterable

import pytest

from rdbkit.passes.slots import KeySlots, free_stretches

from ..rdb import rarely, string

SLOTS = 16384
#: Names that count up, as `%d`, and the lengths of what follows with which CRC16 spreads them least.
COUNTED: dict[str, Callable[[int], bytes]] = {
    "decimal": lambda i: b"%d" % i,
    "padded": lambda i: b"%09d" % i,
    "letters": lambda i: bytes([97 + i // 676 % 26, 97 + i // 26 % 26, 97 + i % 26]) + (b"%d" % (i // 17576)) * (i >= 17576),
    "hexadecimal": lambda i: b"%04x" % (i * 16),
    "every eighth": lambda i: b"%d" % (i * 8 + 3),
    "two numbers": lambda i: b"%d:%d" % (i % 37, i // 37),
}


def bits(slots: Iterable[int]) -> int:
    return sum(1 << slot for slot in set(slots))


def drawn(n: int, *ranges: range, seed: int = 1) -> int:
    """`n` keys of random slots in these ranges."""
    among = [slot for each in ranges for slot in each]
    return bits(random.Random(seed).choices(among, k=n))


def test_a_shard_that_is_missing_is_found_to_the_slot() -> None:
    assert free_stretches(bits([*range(5461), *range(10923, SLOTS)])) == [(5461, 10922)]
    assert free_stretches(bits(range(5461))) == [(5461, 16383)]
    assert free_stretches(bits(range(100, 200))) == [(0, 99), (200, 16383)]
    assert free_stretches(bits(range(SLOTS))) == []
    assert free_stretches(0) == []


def test_a_shard_of_a_large_cluster_is_found_too() -> None:
    assert free_stretches(bits(range(SLOTS)) & ~bits(range(8000, 8100))) == [(8000, 8099)]
    ((first, last),) = free_stretches(drawn(60_000, range(8000), range(8100, SLOTS)))
    assert 7990 < first <= 8000 < 8099 <= last < 8110


def test_a_slot_in_which_keys_just_are_not_is_no_shard() -> None:
    for seed in range(5):
        for n in (1, 10, 50, 300, 1000, 5000, 16384, 40_000, 200_000):
            assert free_stretches(drawn(n, range(SLOTS), seed=seed)) == [], n
    assert free_stretches(bits(range(SLOTS)) & ~bits(range(8000, 8010))) == []


def test_few_keys_say_nothing() -> None:
    for n in (1, 5, 50, 500, 3000):
        assert free_stretches(drawn(n, range(5461))) == []
    assert free_stretches(drawn(13_000, range(5461)))[0][1] == SLOTS - 1


@pytest.mark.parametrize("suffix", [0, 3, 31, 54, *rarely(15, 26, 33, 102, 130, 139, 142, 143)])
@pytest.mark.parametrize("name", COUNTED)
def test_names_that_count_up_are_not_taken_for_a_shard(name: str, suffix: int) -> None:
    """CRC16 is linear: of such names thousands can leave whole quarters of the slots without a key."""
    for n in (20, 200, 1000, 4000, 9000, 20_000, 40_000):
        names = [COUNTED[name](i) + b"q" * suffix for i in range(n)]
        for begin in (b"", b"user:"):
            assert free_stretches(bits(crc_hqx(begin + each, 0) % SLOTS for each in names)) == [], n


def taken(names: Iterable[bytes]) -> KeySlots:
    found = KeySlots()
    for name in names:
        record = string(name)
        found.key_at(b"\0" + record + b"\1x", 1, 1 + len(record), 1 << 20)
    return found


def test_names_as_a_server_sees_them() -> None:
    assert taken([b"foo"]).occupied() == 1 << 12182 == taken([b"{foo}.bar", b"a{foo}"]).occupied()
    assert taken([b"{}foo"]).occupied() == 1 << 9500
    assert taken([b"123"]).occupied() == 1 << 5970
    long = b"x" * 20_000
    assert taken([long]).occupied() == 1 << crc_hqx(long, 0) % SLOTS
    number = KeySlots()  # a key that the file has as a number
    number.key_at(b"\0\xc0\x7b\1x", 1, 3, 1 << 20)
    assert number.occupied() == 1 << 5970


def test_keys_are_looked_at_until_they_are_in_all_slots() -> None:
    found = taken(b"key:%d" % i for i in range(20_000))
    assert not found.looks
    assert found.keys == 16_384
    assert not taken(b"{tag%d}:%d" % (i % 7, i) for i in range(20_000)).looks
    assert taken(b"key:%d" % i for i in range(16_383)).looks


def test_all_keys_of_a_shard_are_looked_at() -> None:
    for part in (range(5461), range(12_000), range(16_000)):
        names = [name for i in range(80_000) if crc_hqx(name := b"key:%d" % i, 0) % SLOTS in part]
        found = taken(names)
        assert found.looks
        assert found.keys == len(names)
        ((first, last),) = free_stretches(found.occupied())
        assert last == SLOTS - 1
        assert part.stop - 10 < first <= part.stop


def test_what_the_file_says_of_a_slot_is_taken_for_its_keys() -> None:
    found = KeySlots()
    found.slot(7, 2)
    for name in (b"foo", b"foo", b"bar"):
        found.key(name)
    assert found.named
    assert found.occupied() == 1 << 7 | 1 << 5061
    assert found.keys == 1
    for number, keys in ((16384, 1), (1 << 64, 1), (9, 0), (9, 1 << 64)):
        found.slot(number, keys)  # which no server writes
    assert found.occupied() == 1 << 7 | 1 << 5061
    assert found.announced == 0

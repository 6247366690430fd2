"""Which shards of a cluster the snapshots cover, by the hash slots of their keys; which are missing, which come twice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Final, TypeAlias

from rdbkit.format.slots import SLOTS
from rdbkit.passes.slots import free_stretches

Ranges: TypeAlias = list[tuple[int, int]]

#: Ranges that are named in a line.
_MOST_RANGES: Final = 5


def ranges_of(occupied: int) -> Ranges | None:
    """The ranges of slots of a file that has keys of these alone, as a shard has; None for all, and for too few keys to tell.

    Args:
        occupied: the slots that have keys, each a bit.
    """
    free = free_stretches(occupied)
    return _between(free) if free else None


def missing_of(files: Sequence[int]) -> Ranges:
    """The ranges of slots that no file has a key of; none where a file is no shard, since nobody knows what belongs to that."""
    if not all(map(free_stretches, files)):
        return []
    together = 0
    for occupied in files:
        together |= occupied
    return free_stretches(together)


def shared_by(files: Sequence[tuple[str, int]]) -> list[tuple[str, str, Ranges]]:
    """Pairs of shards that have keys of the same slots, and these slots. A file that has keys of all slots is no shard."""
    shards = [(name, occupied) for name, occupied in files if free_stretches(occupied)]
    found = []
    for (name, occupied), (other_name, other) in combinations(shards, 2):
        if occupied & other:
            found.append((name, other_name, _common(occupied, other)))
    return found


def are_disjoint(files: Iterable[int]) -> bool:
    """Whether no key can be in two files: each is a shard, with keys of slots that no other file has keys of.

    Args:
        files: the slots that have keys, of each.
    """
    seen = 0
    for occupied in files:
        # of other files not all slots have been looked at
        if not free_stretches(occupied) or seen & occupied:
            return False
        seen |= occupied
    return True


def in_words(ranges: Ranges) -> str:
    """Ranges of slots as people write them.

    >>> in_words([(0, 5460), (16383, 16383)])
    '0-5460, 16383'
    """
    words = [str(first) if first == last else f"{first}-{last}" for first, last in ranges[:_MOST_RANGES]]
    return ", ".join(words) + (", ..." if len(ranges) > _MOST_RANGES else "")


def _between(free: Ranges) -> Ranges:
    """What is left of all slots."""
    found, first = [], 0
    for begin, end in [*free, (SLOTS, SLOTS)]:
        if begin > first:
            found.append((first, begin - 1))
        first = end + 1
    return found


def _common(occupied: int, other: int) -> Ranges:
    """The slots that both have keys of, in ranges that go over slots that neither has keys of."""
    found: Ranges = []
    first = last = -1
    for slot in range(SLOTS):
        here, there = occupied >> slot & 1, other >> slot & 1
        if here and there:
            first = slot if first < 0 else first
            last = slot
        elif (here or there) and first >= 0:
            found.append((first, last))
            first = -1
    if first >= 0:
        found.append((first, last))
    return found

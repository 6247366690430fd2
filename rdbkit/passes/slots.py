"""Which hash slots of a cluster the keys of a file are in; compiled, since it runs once a record.

Most files are of servers that are no cluster, and their keys are in all slots, which a few thousand keys show. So keys are looked
at until they are spread over all slots, which those of a cluster's shard never are.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rdbkit.format.primitives import read_string
from rdbkit.format.slots import SLOTS, key_slot, tag_slot_of

if TYPE_CHECKING:
    from mypy_extensions import i64

#: Keys after which it is asked for the first time whether they are spread over all slots.
_FIRST_LOOK: Final = 1 << 14
#: How likely a stretch without keys may be by chance for it to be taken for a shard that is missing.
_BY_CHANCE: Final = 1e-9
#: The share of all other slots that have keys then. Names that count up are no random numbers to CRC16: 40,000 of them can leave
#: a tenth of the slots free that lie side by side, but they leave many others free, too. (The most that any of 16 kinds of
#: names reached with a stretch free was 0.68, for up to 200,000 names and with 200 lengths of what follows the counter. Binary
#: numbers reach 0.92, with one key a slot: whoever asks has to look at that, too.)
_FILLED: Final = 0.85
#: A cluster has at most 1,000 nodes.
_SHARD: Final = re.compile("0{16,}")
_MOST_KEYS: Final = 1 << 62


class KeySlots:
    """Takes keys, and the slots that the file itself names.

    Attributes:
        looks: whether the next key has to be looked at.
        named: whether the file names slots, as a node of a cluster writes them.
        announced: keys to come of the slot that the file has named last.
    """

    def __init__(self) -> None:
        self.looks: bool = True
        self.named: bool = False
        self.announced: i64 = 0
        self.has_keys: list[bool] = [False] * SLOTS
        self.keys: i64 = 0
        self.next_look: i64 = _FIRST_LOOK

    def slot(self, number: int, keys: int) -> None:
        """The file names a slot, of which `keys` keys follow."""
        self.named = True
        if number < SLOTS and 0 < keys < _MOST_KEYS:
            self.has_keys[number] = True
            self.announced = keys

    def key_at(self, buf: bytes, key_at: i64, value_at: i64, limit: i64) -> bool:
        """A key that stands in a block, with its length in front; its name has at most `limit` bytes.

        Returns: whether the next key is wanted.
        """
        if self.announced > 0:
            self.announced -= 1
        elif self.looks and buf[key_at] < 0x40:
            self.has_keys[tag_slot_of(buf, key_at + 1, value_at)] = True
            self.count()
        else:
            self.key(read_string(buf, key_at, limit)[0])
        return self.looks or self.announced > 0

    def key(self, name: bytes) -> None:
        """A key by its name."""
        if self.announced > 0:
            self.announced -= 1
        elif self.looks:
            self.has_keys[key_slot(name)] = True
            self.count()

    def count(self) -> None:
        """One key more has been looked at: look whether that is enough."""
        self.keys += 1
        if self.keys == self.next_look:
            self.next_look *= 2
            self.looks = bool(_unlikely(self.occupied()))

    def occupied(self) -> int:
        """The slots that have keys, each a bit."""
        digits = ["1" if has_keys else "0" for has_keys in self.has_keys]
        digits.reverse()
        return int("".join(digits), 2)


def free_stretches(occupied: int) -> list[tuple[int, int]]:
    """Stretches of slots without keys that no chance explains: whole shards. Each is its first and its last slot.

    Of few keys nothing is said: nearly all other slots have to have some.

    Args:
        occupied: the slots that have keys, each a bit.
    """
    found = _unlikely(occupied)
    others = SLOTS - sum(last - first + 1 for first, last in found)
    return found if others * _FILLED <= occupied.bit_count() else []


def _unlikely(occupied: int) -> list[tuple[int, int]]:
    """Stretches without keys that are longer than those among as many slots drawn by lot."""
    n = occupied.bit_count()
    found: list[tuple[int, int]] = []
    among = SLOTS  # slots that could have been drawn
    for first, last in sorted(_free(occupied), key=lambda stretch: stretch[0] - stretch[1]):
        length = last - first + 1
        if n == 0 or among * (1 - length / among) ** n >= _BY_CHANCE:
            break
        found.append((first, last))
        among -= length
    return sorted(found)


def _free(occupied: int) -> list[tuple[int, int]]:
    """Stretches of slots without keys that are long enough to be a shard."""
    digits = f"{occupied:0{SLOTS}b}"[::-1]
    return [(found.start(), found.end() - 1) for found in _SHARD.finditer(digits)]

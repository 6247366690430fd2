"""Marks: which keys were written on one side and are still to be brought to the other.

A mark has no value: the key is read after its mark was taken out, and written as it is then. So it does not matter which command
has changed it, nor how often, and a thousand writes of a key that waits are one mark.
"""

from __future__ import annotations

import os
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from time import monotonic
from typing import Final, TypeAlias

from rdbkit.dual.journal import Journal

__all__ = ["Mark", "Marks"]

#: A database, and a key of it.
Mark: TypeAlias = tuple[int, bytes]

#: All there are, for a process that is forked off: it has none of its parent's marks, which the parent brings over itself.
_all: Final[weakref.WeakSet[Marks]] = weakref.WeakSet()


class Marks:
    """Keys that wait to be brought to the other side. Any thread may add; one takes.

    There is no lock: a signal's handler or a finalizer that writes into the cache may come in the middle of any of this, in the
    same thread. Each step is one operation of a dict, which Python does as a whole.

    Args:
        most: so many keys may wait; what is beyond is counted, and needs `sync`.
        journal: a path: marks are in files beside it, too, and those that a process left which was killed are marks here. Marks
            that go another way have another journal.

    Attributes:
        journal: what writes them down; None for nothing.
        dropped: keys that were not marked since too many were waiting.
        begun: called with the first key that is marked while `is_awaited`.
        is_awaited: whether somebody waits for a mark. Who does so sets it, and then looks once more whether there is one.

    Example:
        marks.add(0, b"session:17")
        for db, keys in marks.take():
            ...
            marks.done(db, keys)

    Raises: OSError where a journal cannot be made; ValueError.
    """

    def __init__(self, most: int = 1_000_000, journal: str | os.PathLike[str] | None = None) -> None:
        if most < 1:
            raise ValueError(f"at least one mark must be kept, not {most}")
        self._most = most
        self.begun: Callable[[], object] | None = None
        self._forget()
        self.journal = None if journal is None else Journal(journal)
        if self.journal is not None:
            for db, key in self.journal.take_over():
                self.add(db, key)
        _all.add(self)

    def _forget(self) -> None:
        self.dropped = 0
        self.is_awaited = True
        # each with the time of the oldest write that it stands for; the oldest come first
        self._waiting: dict[Mark, float] = {}
        self._order: deque[Mark] = deque()  # of what waits, from the first on; what came since is behind it
        self._again: dict[Mark, float] = {}  # taken before, and to be taken first
        self._taken: dict[Mark, float] = {}

    # -- any thread

    def add(self, db: int, key: bytes) -> None:
        """Mark a key that was written. Never blocks, and never raises."""
        waiting = self._waiting
        mark = (db, key)
        if mark in waiting:
            return  # it is read after its mark is taken, and has not been taken yet
        if len(waiting) >= self._most:
            self.dropped += 1
            return
        waiting[mark] = monotonic()
        if self.journal is not None:
            self.journal.note(db, key)
        if self.is_awaited:
            self._begin()

    def add_many(self, db: int, keys: Iterable[bytes]) -> None:
        """Mark keys of a database."""
        waiting = self._waiting
        for key in keys:
            if (db, key) not in waiting:
                self.add(db, key)

    def _begin(self) -> None:
        if self.begun is None:
            return
        self.is_awaited = False
        try:
            self.begun()
        except Exception:  # whoever writes into the cache is not to learn of it
            self.is_awaited = True

    def __len__(self) -> int:
        """How many keys wait or are on their way."""
        return len(self._taken) + len(self._again) + len(self._waiting)

    @property
    def is_short(self) -> bool:
        """Whether keys were written that nothing here stands for."""
        return bool(self.dropped or (self.journal is not None and self.journal.damaged))

    def __contains__(self, mark: Mark) -> bool:
        """Whether a key waits to be taken."""
        return mark in self._waiting or mark in self._again

    def is_pending(self, db: int, key: bytes) -> bool:
        """Whether what was written last of a key is not on the other side yet: it waits, or is on its way."""
        mark = (db, key)
        # Where it goes to is looked at after where it comes from: it may wait again after it was taken.
        return mark in self._waiting or mark in self._again or mark in self._taken or mark in self._again

    def oldest(self) -> float | None:
        """When the first write was that is not on the other side yet, by `time.monotonic`; None where there is none."""
        times = []
        while True:
            # what another thread takes meanwhile is among those taken, which are looked at later
            with suppress(KeyError, IndexError, StopIteration, RuntimeError):
                if self._waiting:
                    times.append(self._waiting[self._order[0]] if self._order else next(iter(self._waiting.values())))
                break
        for some in (self._again, self._taken, self._again):  # those taken may be given back between two looks
            times += list(some.values())
        return min(times, default=None)

    # -- the thread that takes

    def take(self, most: int = 256) -> list[tuple[int, list[bytes]]]:
        """Take the marks that have waited longest out, by database; each is given back by `done` or `again`."""
        found: dict[int, dict[bytes, None]] = {}
        left = most
        while left and self._again:
            mark = next(iter(self._again))
            self._move(self._again, mark, found)
            left -= 1
        while left and self._waiting:
            if not self._order:
                self._order.extend(list(self._waiting))
            self._move(self._waiting, self._order.popleft(), found)
            left -= 1
        return [(db, list(keys)) for db, keys in found.items()]

    def _move(self, marks: dict[Mark, float], mark: Mark, found: dict[int, dict[bytes, None]]) -> None:
        since = marks[mark]
        # in both for a moment, so that it counts all the time
        self._taken[mark] = min(since, self._taken.get(mark, since))
        del marks[mark]
        found.setdefault(mark[0], {})[mark[1]] = None

    def done(self, db: int, keys: Iterable[bytes]) -> None:
        """These keys, which were taken, are on the other side."""
        for key in keys:
            self._taken.pop((db, key), None)

    def again(self, db: int, keys: Iterable[bytes]) -> None:
        """These keys, which were taken, are to be taken again, before the others."""
        for key in keys:
            mark = (db, key)
            self._again[mark] = self._taken.get(mark, monotonic())
            self._taken.pop(mark, None)

    def tidy(self) -> None:
        """Have the journal on the disk and as short as may be; to be called now and then."""
        if self.journal is not None and self.journal.tidy(len(self)):
            self.journal.begin_anew(self._every)

    def close(self) -> None:
        """Nothing will be marked any more. What still waits is left in the journal for the next process."""
        if self.journal is not None:
            self.journal.close(len(self))

    def _every(self) -> Iterator[Mark]:
        for some in (self._waiting, self._again, self._taken):
            yield from list(some)


def _forget_all() -> None:
    for marks in _all:
        marks._forget()
        if marks.journal is not None:
            marks.journal.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_all)

"""Keys that would come to have the same name, found before anything is written.

The source is read for that, and the names that its keys will have go to a `NameLog`: memory is bounded but for what becomes of the
conflicts, where that is asked for, and the disk has 24 bytes for each key.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Final, cast

from rdbkit.errors import ChecksumError
from rdbkit.passes.hashes import PARTITIONS, HashPartitions, NameLog, name_hash
from rdbkit.passes.names import LoggedNames, Names, ToldNames
from rdbkit.policy.rules import Rules
from rdbkit.snapshot.reader import Snapshot

#: Of the places of keys in a `NameLog` that are renamed: so those that keep their names come first.
_RENAMED: Final = 1 << 62


@dataclass
class Clashes:
    """Keys whose name another key in front of them has, too, when all have moved.

    Attributes:
        keys: how many.
        samples: database, name and offset of the first of them.
        pattern: of those that were tried, the first by which each of them gets a name that no other key has; None for none.
    """

    keys: int = 0
    samples: list[tuple[int, bytes, int]] = field(default_factory=list)
    pattern: str | None = None


def find_clashes(reopen: Callable[[], Snapshot], rules: Rules, patterns: Sequence[str], samples: int) -> Clashes:
    """Count the keys that `find_decisions` would rename, in bounded memory.

    Args:
        reopen: opens the source again; it is read once, and where names clash once more for each pattern that is tried.
        rules: with the edits that move keys.
        patterns: for new names, the best first.
        samples: how many keys to name.

    Raises: RdbError where the source is damaged; OSError.
    """
    found = Clashes()
    with closing(_losers(reopen, rules)) as losers:
        found.keys = losers.count
        for pattern in patterns if losers.count else ():
            met: list[tuple[int, bytes, int]] = []

            def keep(db: int, key: bytes, offset: int, new: bytes, met: list[tuple[int, bytes, int]] = met) -> None:
                if len(met) < samples:
                    met.append((db, key, offset))

            edits = replace(rules.edits, on_conflict="rename", rename_pattern=pattern)
            with closing(_unnamed(reopen, replace(rules, edits=edits), losers, keep)) as unnamed:
                is_enough = next(unnamed, None) is None
            found.samples = met
            if is_enough:
                found.pattern = pattern
                break
    return found


def find_decisions(reopen: Callable[[], Snapshot], rules: Rules) -> dict[int, bytes | None]:
    """What becomes of keys whose name another one has, too, by the offset of their records: None leaves one out.

    Args:
        reopen: opens the source again; it is read once, and once more where keys are to be renamed.

    Raises: RdbError where the source is damaged; OSError.
    """
    with closing(_losers(reopen, rules)) as losers:
        if rules.edits.on_conflict != "rename" or not losers.count:
            return dict.fromkeys(losers)
        decisions: dict[int, bytes | None] = {}

        def keep(db: int, key: bytes, offset: int, new: bytes) -> None:
            decisions[offset] = new

        decisions |= dict.fromkeys(_unnamed(reopen, rules, losers, keep))
        return decisions


def find_repeated(
    reopen: Callable[[], Snapshot], rules: Rules, hashes: set[int], found: Callable[[int, bytes, int, int], object]
) -> None:
    """Tell `found` of each record whose key has come before: database, key, offset of the first record, and its own.

    Args:
        reopen: opens the source again.
        hashes: of databases and keys of the source, by `name_hash`: only these can come twice.

    Raises: RdbError where the source is damaged; OSError.
    """
    first: dict[tuple[int, bytes], int] = {}

    def met(db: int, name: bytes, offset: int, source_db: int, key: bytes) -> None:
        if name_hash(source_db, key) in hashes:
            before = first.setdefault((source_db, key), offset)
            if before != offset:
                found(source_db, key, before, offset)

    _tell(reopen, rules, met)


def find_duplicates(reopen: Callable[[], Snapshot], rules: Rules) -> frozenset[int]:
    """The offsets of the records that are to be left out since another record of the same key is kept, as the edits say.

    Args:
        reopen: opens the source again; it is read once. Memory is bounded but for what is found.

    Raises: RdbError where the source is damaged; OSError.
    """
    keeps_last = rules.edits.on_duplicate == "last"
    left_out: set[int] = set()
    with closing(NameLog()) as log:
        _log_names(reopen, rules, log, future=False)
        for places in log.repeated():
            left_out.update(places[:-1] if keeps_last else places[1:])
    return frozenset(left_out)


class _Places:
    """Offsets of records, given back in their order; on disk where they are many.

    Args:
        end: no offset is larger.
    """

    def __init__(self, end: int) -> None:
        self.count = 0
        self._partitions = HashPartitions()
        self._width = end // PARTITIONS + 1

    def add(self, offset: int) -> None:
        self._partitions.outs[offset // self._width].write(offset.to_bytes(8, sys.byteorder))
        self._partitions.grown(8)
        self.count += 1

    def __iter__(self) -> Iterator[int]:
        for number in range(PARTITIONS):
            yield from sorted(array("q", self._partitions.partition(number)))

    def close(self) -> None:
        self._partitions.close()


def _tell(reopen: Callable[[], Snapshot], rules: Rules, found: Callable[[int, bytes, int, int, bytes], None]) -> None:
    """Tell `found` of the database and name that every key will have, its offset, and what they are now."""
    with reopen() as snapshot:
        _scan(snapshot, rules, ToldNames(snapshot.types, snapshot.limits.item_bytes, rules, found))


def _log_names(reopen: Callable[[], Snapshot], rules: Rules, log: NameLog, *, future: bool) -> int:
    """Log the names of all keys; the offset of the last one."""
    with reopen() as snapshot:
        names = LoggedNames(snapshot.types, snapshot.limits.item_bytes, rules, log, future)
        _scan(snapshot, rules, names)
        return names.last


def _scan(snapshot: Snapshot, rules: Rules, names: Names) -> None:
    try:
        for _ in snapshot.scan(names):
            pass
    except ChecksumError:
        if not rules.skip:  # else it is reported when the file is read for good
            raise


def _losers(reopen: Callable[[], Snapshot], rules: Rules) -> _Places:
    """The records that do not get the name that another one has, too."""
    with closing(NameLog()) as log:
        losers = _Places(_log_names(reopen, rules, log, future=True))
        for places in log.repeated():
            for place in places[:-1] if rules.edits.on_conflict == "last" else places[1:]:
                losers.add(place)
    return losers


def _unnamed(
    reopen: Callable[[], Snapshot], rules: Rules, losers: _Places, renamed: Callable[[int, bytes, int, bytes], None]
) -> Generator[int, None, None]:
    """Tell `renamed` of each loser: its database, name, offset and new name; yield those whose new name another key has, too."""
    pattern = cast("bytes", rules.edits.rename_pattern)
    waiting = iter(losers)
    loser = next(waiting, -1)
    with closing(NameLog()) as log:

        def rename(db: int, name: bytes, offset: int, source_db: int, key: bytes) -> None:
            nonlocal loser
            if offset != loser:
                log.add(db, name, offset)
                return
            loser = next(waiting, -1)
            new = pattern.replace(b"{db}", b"%d" % source_db).replace(b"{key}", name)
            log.add(db, new, _RENAMED | offset)
            renamed(source_db, key, offset, new)

        _tell(reopen, rules, rename)
        for places in log.repeated():
            yield from (place - _RENAMED for place in places[1:] if place >= _RENAMED)

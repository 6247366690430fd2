"""Keys that are there more than once, in one file or in several, and how keys spread over hash slots.

Names and their places go to a `NameLog`, in which each partition is looked at on its own: memory is bounded but for what is there
twice. All partitions are in one temporary file, since a process may not be let open many; it has 24 bytes a key.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from rdbkit.errors import LossError
from rdbkit.format.slots import SLOTS
from rdbkit.model import FunctionLibrary
from rdbkit.passes.hashes import NameLog
from rdbkit.passes.names import LoggedKeys, NamesAt, file_and_offset
from rdbkit.snapshot.reader import open_snapshot
from rdbkit.storage.source import Rereading
from rdbkit.text import count, json_bytes

#: Takes database, name, offset and expiry (-1 for none) of a key.
Met: TypeAlias = Callable[[int, bytes, int, int], None]


@dataclass(frozen=True)
class Duplicate:
    """A key that is there more than once: `places` are files and the offsets of its records."""

    db: int
    key: bytes
    places: list[tuple[str, int]]


class DuplicateError(LossError):
    """Keys, or function libraries, are there more than once, and no policy says which one counts.

    Attributes:
        samples: the first of the keys, with their files and offsets.
        is_converted: it is what the files become that has them.
    """

    samples: list[Duplicate]
    is_converted: bool = False


def duplicate_error(keys: int, samples: list[Duplicate], *, converted: bool = False) -> DuplicateError:
    """The error for so many keys that are there more than once.

    Args:
        samples: one of them at least.
        converted: they are those of what the files become, in which offsets mean nothing.
    """
    first = samples[0]
    if converted:
        places = " and ".join(f"what {name} becomes" for name, _ in first.places[:2])
    else:
        places = " and ".join(f"{name} at byte {offset}" for name, offset in first.places[:2])
    more = f", and {keys - 1:,} more" if keys > 1 else ""
    error = DuplicateError(f"a key is there more than once, in {places}{more}", db=first.db, key=first.key)
    error.samples = samples
    error.is_converted = converted
    return error


@dataclass(frozen=True)
class SharedLibrary:
    """A function library that several files have.

    Attributes:
        files: the first that has it, and those that have it too; where codes differ, those that have another.
        is_same: its code is the same in all of them.
    """

    name: str
    files: list[str]
    is_same: bool

    @property
    def summary(self) -> str:
        """What is to be known before files that have the same library go into a cache together."""
        return (
            f"function library {self.name!r} is the same in {count(len(self.files), 'file')}; no source says whether the service "
            "takes it more than once. rdbkit merge makes one file that has it once"
        )


def library_error(shared: SharedLibrary) -> DuplicateError:
    """The error for a function library that differs between files."""
    first, other = shared.files[:2]
    error = DuplicateError(f"different function libraries are called {shared.name!r}, in {first} and {other}")
    error.samples = []
    return error


def find_shared_libraries(
    files: Sequence[str], *, relaxed: bool = False, rereading: Rereading | None = None
) -> list[SharedLibrary]:
    """Function libraries that several of these files have.

    Args:
        files: paths; of each, what precedes its keys is read.
        relaxed: as for `rdbkit.open`.
        rereading: of files that have been read before.

    Raises: ChangedError where a file is another by now; RdbError where one is damaged; OSError.
    """
    met: dict[str, list[tuple[str, bytes]]] = {}
    for name in files:
        with open_snapshot(name, relaxed=relaxed, verify_checksum=False, rereading=rereading) as snapshot:
            for event, _ in snapshot.prelude():
                if isinstance(event, FunctionLibrary):
                    met.setdefault(event.name, []).append((name, event.code))
    found = []
    for library, places in met.items():
        (first, code), *rest = places
        others = [name for name, other in rest if other != code]
        if rest:
            found.append(SharedLibrary(library, [first, *(others or (name for name, _ in rest))], not others))
    return found


@dataclass
class Duplicates:
    """What `find_duplicates` found.

    Attributes:
        keys: how many names are there more than once.
        samples: the first of them, in the order of the files.
        slots: how many hash slots have keys; `fullest` is one with the most, and how many.
    """

    keys: int = 0
    samples: list[Duplicate] = field(default_factory=list)
    slots: int = 0
    fullest: tuple[int, int] = (0, 0)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "keys": self.keys,
            "samples": [
                {"db": d.db, "key": json_bytes(d.key), "places": [list(place) for place in d.places]} for d in self.samples
            ],
            "slots": self.slots,
            "fullest": list(self.fullest),
        }


def find_duplicates(
    files: Sequence[str],
    *,
    relaxed: bool = False,
    verify_checksum: bool = True,
    samples: int = 3,
    rereading: Rereading | None = None,
    scan: Callable[[str, Met], None] | None = None,
) -> Duplicates:
    """Keys that are there more than once in these files, and how many keys each hash slot has.

    Args:
        files: paths, each of which is read twice.
        relaxed, verify_checksum: as for `rdbkit.open`.
        samples: how many keys to name.
        rereading: of files that have been read before; what was in them is asked for once more.
        scan: tells of the keys of a file, where they are not those that stand in it; how it reads them is its own matter.

    Raises: ChangedError where a file is another at a later reading; RdbError where one is damaged; OSError.

    >>> find_duplicates(["fixtures/rich/redis-7.0.15.rdb"] * 2).keys
    27
    """
    found = Duplicates()
    again = rereading or Rereading()
    slots = [0] * SLOTS
    with closing(NameLog()) as log:
        for number, name in enumerate(files):
            if scan is None:
                log_keys(name, relaxed, log, number, again, verify_checksum, slots)
            else:
                scan(name, _logs(log, number, slots))

        def count() -> Iterator[list[int]]:
            for places in log.repeated():
                found.keys += 1
                yield places

        first = heapq.nsmallest(max(samples, 1), count())[:samples]
    found.slots = sum(n > 0 for n in slots)
    most = max(slots)
    found.fullest = (slots.index(most), most)
    found.samples = name_places(files, first, relaxed=relaxed, rereading=again, scan=scan)
    return found


def _logs(log: NameLog, number: int, slots: list[int]) -> Met:
    """What a scan of a file of this number tells."""
    keys = LoggedKeys(0, log, number, slots)

    def met(db: int, key: bytes, offset: int, expire_ms: int) -> None:
        keys.db = db
        keys.add(key, offset, expire_ms)

    return met


def log_keys(
    name: str,
    relaxed: bool,
    log: NameLog,
    number: int,
    rereading: Rereading,
    verify_checksum: bool = True,
    slots: list[int] | None = None,
) -> None:
    """Log every key of a file, by what the file's number makes of its offset (`file_and_offset`), and count hash slots.

    Raises: ChangedError where it is another file by now; RdbError where it is damaged; OSError.
    """
    with open_snapshot(name, relaxed=relaxed, verify_checksum=verify_checksum, rereading=rereading) as snapshot:
        for _ in snapshot.scan(LoggedKeys(snapshot.limits.item_bytes, log, number, slots)):
            pass


def name_places(
    files: Sequence[str],
    groups: Sequence[Sequence[int]],
    *,
    relaxed: bool,
    rereading: Rereading,
    scan: Callable[[str, Met], None] | None = None,
) -> list[Duplicate]:
    """Which keys have these places, as `log_keys` numbers them; each file is read up to the last of these that it has.

    Args:
        files: those that were logged, by their numbers.
        groups: the places of each key.
        relaxed, rereading, scan: as of `find_duplicates`.
    """
    names: dict[tuple[int, int], tuple[int, bytes]] = {}
    firsts = [file_and_offset(places[0]) for places in groups]
    for number in sorted({number for number, _ in firsts}):
        offsets = {offset for file, offset in firsts if file == number}
        if scan is None:
            with open_snapshot(files[number], relaxed=relaxed, verify_checksum=False, rereading=rereading) as snapshot:
                visitor = NamesAt(snapshot.limits.item_bytes, offsets)
                for _ in snapshot.scan(visitor):
                    if len(visitor.names) == len(offsets):
                        break
            met = visitor.names
        else:
            met = {}

            def name_it(db: int, key: bytes, offset: int, expire_ms: int, met: dict[int, tuple[int, bytes]] = met) -> None:
                met[offset] = (db, key)

            scan(files[number], name_it)
        names |= {(number, offset): met[offset] for offset in offsets}
    return [
        Duplicate(*names[first], [(files[number], offset) for number, offset in map(file_and_offset, places)])
        for first, places in zip(firsts, groups, strict=True)
    ]

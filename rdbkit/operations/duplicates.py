"""Keys that are there more than once, in one file or in several, and how keys spread over hash slots.

Names go as hashes of 128 bits to 128 partitions by their first byte, and each of these is sorted on its own: memory is bounded but
for what is there twice. All partitions are in one temporary file, since a process may not be let open many; it has 28 bytes a key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Final, TypeAlias

from rdbkit.errors import LossError
from rdbkit.format.slots import SLOTS, key_slot
from rdbkit.model import FunctionLibrary
from rdbkit.passes.hashes import PARTITIONS, HashPartitions
from rdbkit.passes.names import Keys
from rdbkit.snapshot.reader import open_snapshot
from rdbkit.storage.source import Rereading
from rdbkit.text import count, json_bytes

_BYTES_A_PARTITION: Final = 256 // PARTITIONS  # values of a first byte
_DIGEST: Final = 16
#: Takes database, name, offset and expiry (-1 for none) of a key.
Met: TypeAlias = Callable[[int, bytes, int, int], None]


class NameLog:
    """Remembers names and where each was met, on disk; tells which were met more than once."""

    def __init__(self) -> None:
        self._partitions = HashPartitions()

    def add(self, db: int, name: bytes, place: bytes) -> None:
        """A name of a database; `place` has the same number of bytes each time, and sorts in the order of the places."""
        entry = digest(db, name)
        self._partitions.outs[entry[0] // _BYTES_A_PARTITION].write(entry + place)
        self._partitions.grown(_DIGEST + len(place))

    def repeated(self, size: int) -> Iterator[list[bytes]]:
        """The places of each name that was met more than once, in their order; `size` is that of a place."""
        step = _DIGEST + size
        for number in range(PARTITIONS):
            data = self._partitions.partition(number)
            entries = sorted(data[at : at + step] for at in range(0, len(data), step))
            at = 0
            while at < len(entries):
                end = at + 1
                while end < len(entries) and entries[end][:_DIGEST] == entries[at][:_DIGEST]:
                    end += 1
                if end - at > 1:
                    yield [entry[_DIGEST:] for entry in entries[at:end]]
                at = end

    def on_disk(self) -> int:
        """Bytes of the file."""
        return self._partitions.on_disk()

    def close(self) -> None:
        """Give the file back."""
        self._partitions.close()


def digest(db: int, name: bytes) -> bytes:
    """128 bits of a name in a database, by which it is known."""
    return blake2b(name, digest_size=_DIGEST, salt=db.to_bytes(8, "little")).digest()


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
        samples: the first of them.
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

    def scan_file(name: str, met: Met) -> None:
        scan_keys(name, relaxed, met, again, verify_checksum)

    scan = scan or scan_file
    slots = [0] * SLOTS
    log = NameLog()

    def enter(number: int) -> Met:
        def met(db: int, key: bytes, offset: int, expire_ms: int) -> None:
            slots[key_slot(key)] += 1
            log.add(db, key, number.to_bytes(4, "big") + offset.to_bytes(8, "big"))

        return met

    try:
        for number, name in enumerate(files):
            scan(name, enter(number))
        wanted: list[list[tuple[int, int]]] = []
        for places in log.repeated(12):
            found.keys += 1
            if len(wanted) < samples:
                wanted.append([(int.from_bytes(p[:4], "big"), int.from_bytes(p[4:], "big")) for p in places])
    finally:
        log.close()
    found.slots = sum(n > 0 for n in slots)
    most = max(slots)
    found.fullest = (slots.index(most), most)
    names: dict[tuple[int, int], tuple[int, bytes]] = {}
    for number in sorted({places[0][0] for places in wanted}):
        firsts = {places[0][1] for places in wanted if places[0][0] == number}

        def name_it(db: int, key: bytes, offset: int, expire_ms: int, number: int = number, firsts: set[int] = firsts) -> None:
            if offset in firsts:
                names[number, offset] = (db, key)

        scan(files[number], name_it)
    found.samples = [Duplicate(*names[places[0]], [(files[n], offset) for n, offset in places]) for places in wanted]
    return found


def scan_keys(name: str, relaxed: bool, met: Met, rereading: Rereading, verify_checksum: bool = True) -> None:
    """Call `met` with database, name, offset and expiry (-1 for none) of every key of a file."""
    with open_snapshot(name, relaxed=relaxed, verify_checksum=verify_checksum, rereading=rereading) as snapshot:
        for _ in snapshot.scan(Keys(snapshot.limits.item_bytes, met)):
            pass

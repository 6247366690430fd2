"""Numbers of every key in bounded memory, and whether any name was met twice; compiled, since it runs once a record."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Final

from librt.strings import BytesWriter, write_i64_le

from rdbkit.format.budget import NAME, Budget

if TYPE_CHECKING:
    from mypy_extensions import i64

PARTITIONS: Final = 128
_HELD: Final = 32 << 20  # bytes in memory
_ENTRY: Final = 24
_NAME: Final = 16  # of these, what a name is known by


def name_hash(db: i64, name: bytes) -> i64:
    """64 bits of a name in a database.

    The interpreter's hash is keyed afresh in each process, so that nobody can make names that collide.
    """
    number: i64 = hash(name)
    return number ^ (db * 0x9E3779B97F4A7C1 & 0x7FFFFFFFFFFFFFF)


class HashPartitions:
    """128 partitions of numbers, which go to a temporary file when they grow.

    Attributes:
        outs: where to write what belongs to each partition; `grown` is to be told.
    """

    def __init__(self) -> None:
        self.outs: list[BytesWriter] = [BytesWriter() for _ in range(PARTITIONS)]
        self.held: i64 = 0
        self.spilled: list[tuple[int, int, int]] = []  # partition, place in the file, bytes
        self.file: IO[bytes] | None = None

    def grown(self, size: i64) -> None:
        """So many bytes have been written."""
        self.held += size
        if self.held >= _HELD:
            self.spill()

    def spill(self) -> None:
        """Make room in memory."""
        if self.file is None:
            self.file = TemporaryFile()  # noqa: SIM115 (closed by close)
        for number in range(PARTITIONS):
            data = self.outs[number].getvalue()
            if data:
                self.spilled.append((number, self.file.seek(0, 2), len(data)))
                self.file.write(data)
                self.outs[number].truncate(0)
        self.held = 0

    def partition(self, number: int) -> bytes:
        """What was written to one partition, in its order."""
        parts = []
        for partition, at, size in self.spilled:
            if partition == number and self.file is not None:
                self.file.seek(at)
                parts.append(self.file.read(size))
        parts.append(self.outs[number].getvalue())
        return b"".join(parts)

    def on_disk(self) -> int:
        """Bytes that the file has."""
        return sum(size for _, _, size in self.spilled)

    def close(self) -> None:
        """Remove the file."""
        if self.file is not None:
            self.file.close()
            self.file = None


class PlacedNames:
    """Takes names and where each was met, for sources that cannot be read a second time; tells which came more than once.

    A name is known by two hashes, which are keyed afresh in each process. The disk has 24 bytes a name where there are many.
    """

    def __init__(self) -> None:
        self.partitions: HashPartitions = HashPartitions()

    def add(self, db: i64, name: bytes, place: i64) -> None:
        """A name of a database, and the offset of its record."""
        number: i64 = name_hash(db, name)
        out = self.partitions.outs[number & (PARTITIONS - 1)]
        write_i64_le(out, number)
        write_i64_le(out, name_hash(db, b"\1" + name))
        write_i64_le(out, place)
        self.partitions.grown(_ENTRY)

    def repeated(self) -> Iterator[list[int]]:
        """The offsets of each name that came more than once, in their order."""
        for number in range(PARTITIONS):
            data = self.partitions.partition(number)
            entries = [data[at : at + _ENTRY] for at in range(0, len(data), _ENTRY)]
            known: dict[bytes, list[int]] = {}
            names: set[bytes] = set()
            for entry in entries:
                if entry[:_NAME] in names:
                    known[entry[:_NAME]] = []
                names.add(entry[:_NAME])
            for entry in entries if known else []:
                if entry[:_NAME] in known:
                    known[entry[:_NAME]].append(int.from_bytes(entry[_NAME:], "little"))
            yield from known.values()

    def close(self) -> None:
        """Remove the temporary file."""
        self.partitions.close()


class NameHashes:
    """Takes names, at a few nanoseconds each; tells whether one of them may have come twice, which is to be looked into by names.

    The disk has 8 bytes a name where there are many.
    """

    def __init__(self) -> None:
        self.partitions: HashPartitions = HashPartitions()

    def add(self, db: i64, name: bytes) -> None:
        """A name of a database."""
        number: i64 = name_hash(db, name)
        write_i64_le(self.partitions.outs[number & (PARTITIONS - 1)], number)
        self.partitions.grown(8)

    def any_twice(self) -> bool:
        """Whether a hash is there more than once."""
        for number in range(PARTITIONS):
            numbers = array("q", self.partitions.partition(number))
            if len(set(numbers)) < len(numbers):
                return True
        return False

    def twice(self, budget: Budget | None = None) -> set[int]:
        """The hashes that are there more than once.

        Raises: LimitError where they are more than `budget` has room for.
        """
        found: set[int] = set()
        for number in range(PARTITIONS):
            numbers = array("q", self.partitions.partition(number))
            seen: set[int] = set()
            if len(set(numbers)) < len(numbers):
                for hashed in numbers:
                    if hashed in seen:
                        found.add(hashed)
                        if budget is not None:
                            budget.check("names that are there twice", len(found) * NAME)
                    seen.add(hashed)
        return found

    def close(self) -> None:
        """Remove the temporary file."""
        self.partitions.close()

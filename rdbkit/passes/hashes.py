"""Numbers of every key in bounded memory, and whether any name was met twice; compiled, since it runs once a record."""

from __future__ import annotations

import os
import sys
from array import array
from collections.abc import Iterator
from hashlib import blake2b
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Final

from librt.strings import BytesWriter, read_i64_le, write_i64_le

from rdbkit.format.budget import NAME, Budget

if TYPE_CHECKING:
    from mypy_extensions import i64

PARTITIONS: Final = 128
_HELD: Final = 32 << 20  # bytes in memory
_ENTRY: Final = 24
_NAME: Final = 16  # of these, what a name is known by
TRUSTS_HASH: Final = sys.hash_info.algorithm.startswith("siphash") and sys.hash_info.width == 64


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


class NameLog:
    """Takes names and where each was met; tells which came more than once.

    A name is known by 128 bits: two of the interpreter's hashes, of the name behind secrets that are drawn for each log. So nobody
    can make two names that collide, and that two ever do by chance is out of the question. The disk has 24 bytes a name where
    there are many, and 32 where places have ranks.

    Args:
        ranked: of the places of one name, those of higher rank come first.

    Attributes:
        trusts_hash: the interpreter's hash is SipHash with 64 bits; where it is another, BLAKE2 takes its place.
    """

    def __init__(self, ranked: bool = False) -> None:
        self.partitions: HashPartitions = HashPartitions()
        self.ranked: bool = ranked
        self.trusts_hash: bool = TRUSTS_HASH
        self.secret: bytes = os.urandom(16)
        self.other_secret: bytes = os.urandom(16)

    def add(self, db: i64, name: bytes, place: i64, rank: i64 = 0) -> None:
        """A name of a database, and where it was met."""
        number: i64
        other: i64
        if self.trusts_hash:
            number = name_hash(db, self.secret + name)
            other = name_hash(db, self.other_secret + name)
        else:
            digest = blake2b(name, digest_size=_NAME, key=self.secret, salt=b"%d" % int(db)).digest()
            number = read_i64_le(digest, 0)
            other = read_i64_le(digest, 8)
        out = self.partitions.outs[number & (PARTITIONS - 1)]
        write_i64_le(out, number)
        write_i64_le(out, other)
        write_i64_le(out, place)
        if self.ranked:
            write_i64_le(out, rank)
            self.partitions.grown(_ENTRY + 8)
        else:
            self.partitions.grown(_ENTRY)

    def repeated(self) -> Iterator[list[int]]:
        """The places of each name that came more than once, by rank and in their order; names come in any order."""
        for number in range(PARTITIONS):
            yield from self.repeated_in(self.partitions.partition(number))

    def repeated_in(self, data: bytes) -> list[list[int]]:
        """Those of one partition."""
        step: i64 = _ENTRY + 8 if self.ranked else _ENTRY
        if len(set(array("q", data)[:: step // 8])) == len(data) // step:
            return []
        seen: set[bytes] = set()
        known: dict[bytes, list[int]] = {}
        at: i64
        for at in range(0, len(data), step):
            name = data[at : at + _NAME]
            if name in seen:
                known[name] = []
            seen.add(name)
        ranks: dict[int, int] = {}
        for at in range(0, len(data), step):
            places = known.get(data[at : at + _NAME])
            if places is not None:
                place: i64 = read_i64_le(data, at + _NAME)
                places.append(place)
                if self.ranked:
                    ranks[place] = -read_i64_le(data, at + _ENTRY)
        for places in known.values():
            places.sort()
            if self.ranked:
                places.sort(key=ranks.__getitem__)
        return list(known.values())

    def on_disk(self) -> int:
        """Bytes that the file has."""
        return self.partitions.on_disk()

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

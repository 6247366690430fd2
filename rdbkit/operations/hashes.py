"""Whether any name was met twice, at a few nanoseconds a name; compiled, since it runs once a record.

Names are kept as hashes of 64 bits, by their lowest bits in so many piles, which go to a temporary file when they grow: memory is
bounded, and the disk has 8 bytes a name. A hash that is there twice is a suspicion, to be looked into by names.
"""

from __future__ import annotations

from array import array
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Final

from librt.strings import BytesWriter, write_i64_le

if TYPE_CHECKING:
    from mypy_extensions import i64

_PILES: Final = 128
_HELD: Final = 32 << 20  # bytes in memory


class NameHashes:
    """Takes names; tells whether one of them may have come twice."""

    def __init__(self) -> None:
        self.piles: list[BytesWriter] = [BytesWriter() for _ in range(_PILES)]
        self.count: i64 = 0
        self.held: i64 = 0
        self.spilled: list[tuple[int, int, int]] = []  # pile, where it stands in the file, bytes
        self.file: IO[bytes] | None = None

    def add(self, db: i64, name: bytes) -> None:
        """A name of a database."""
        # the interpreter's hash is keyed anew in each process, so that nobody can make names that collide
        number: i64 = hash(name)
        number ^= db * 0x9E3779B97F4A7C1 & 0x7FFFFFFFFFFFFFF
        write_i64_le(self.piles[number & (_PILES - 1)], number)
        self.count += 1
        self.held += 8
        if self.held >= _HELD:
            self.spill()

    def spill(self) -> None:
        """Make room in memory."""
        if self.file is None:
            self.file = TemporaryFile()  # noqa: SIM115 (closed by close)
        for number in range(_PILES):
            data = self.piles[number].getvalue()
            if data:
                self.spilled.append((number, self.file.seek(0, 2), len(data)))
                self.file.write(data)
                self.piles[number].truncate(0)
        self.held = 0

    def any_twice(self) -> bool:
        """Whether a hash is there more than once."""
        for number in range(_PILES):
            parts = [self.piles[number].getvalue()]
            for pile, at, size in self.spilled:
                if pile == number and self.file is not None:
                    self.file.seek(at)
                    parts.append(self.file.read(size))
            numbers = array("q", b"".join(parts))
            if len(set(numbers)) < len(numbers):
                return True
        return False

    def close(self) -> None:
        """Remove the file."""
        if self.file is not None:
            self.file.close()
            self.file = None

"""A short form of every key and its value, by which two snapshots are compared; compiled, since it runs once a record and element.

Names and values are hashed by the interpreter's hash, which is keyed anew in each process: nobody can make two that collide. Of
sets, hashes and sorted sets whose elements stand in the file one by one, the order does not matter.
"""

from __future__ import annotations

from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Final

from librt.strings import BytesWriter, write_i64_le

from rdbkit.errors import CorruptError
from rdbkit.format.constants import ValueType
from rdbkit.format.primitives import read_length, read_string, skip_string
from rdbkit.format.scan import KINDS, STRING_INT, Visitor

if TYPE_CHECKING:
    from mypy_extensions import i64

PILES: Final = 128
#: Bytes of an entry: hash of the name, hash of the value, expiry (-1 for none), offset; each a signed number of 64 bits.
ENTRY: Final = 32
_HELD: Final = 32 << 20
_MASK: Final = (1 << 62) - 1  # sums stay within 64 bits, interpreted as well

# How a value is hashed, by its type.
_WHOLE: Final = 0
_MEMBERS: Final = 1
_PAIRS: Final = 2
_SCORED: Final = 3
_UNORDERED: Final = {"*(s)": _MEMBERS, "*(ss)": _PAIRS, "*(sd)": _SCORED}


class Elements:
    """The sum of the hashes of a collection's elements, whichever order they stand in; `feed` takes it in pieces.

    Attributes:
        sum: of what has been read, as 62 bits.
        done: the last element has been read.
    """

    def __init__(self) -> None:
        self.way: i64 = 0
        self.left: i64 = -1
        self.sum: i64 = 0
        self.done: bool = False

    def begin(self, way: i64) -> None:
        """Make ready for a value."""
        self.way = way
        self.left = -1
        self.sum = 0
        self.done = False

    def feed(self, buf: bytes, pos: i64) -> i64:
        """Read the elements that lie whole in `buf`; returns where the first one begins that does not."""
        end: i64
        size: i64 = len(buf)
        way: i64 = self.way
        total: i64 = self.sum
        try:
            if self.left < 0:
                self.left, pos = read_length(buf, pos)
                total += self.left
            left: i64 = self.left
            while left > 0:
                end = buf[pos]
                if end < 0x40:
                    end += pos + 1
                else:
                    end = skip_string(buf, pos)
                if way == _PAIRS:
                    end = skip_string(buf, end)
                elif way == _SCORED:
                    end += 8
                if end > size:
                    break
                number: i64 = hash(buf[pos:end])
                total = (total + (number & _MASK)) & _MASK
                pos = end
                left -= 1
                self.left = left
        except IndexError:
            pass
        self.sum = total
        self.done = self.left == 0
        return pos


class Fingerprints(Visitor):
    """Takes an entry of every key to one of 128 piles, by the lowest bits of its name's hash; what is much goes to a file.

    Args:
        types: of the snapshot.
        limit: most bytes of a key's name.

    Attributes:
        count: keys so far.
        large_hash: to be set to the hash of the value that `large` will tell of next.
    """

    def __init__(self, types: dict[int, ValueType], limit: int) -> None:
        super().__init__()
        self.limit: i64 = limit
        self.count: i64 = 0
        self.large_hash: i64 = 0
        self.elements: Elements = Elements()
        ways = bytearray(KINDS)
        kinds = [0] * KINDS  # what a type is called goes into the hash: numbers mean something with their version alone
        for kind, value_type in types.items():
            if value_type.type in ("set", "hash", "zset") and value_type.encoding != "cron":
                ways[kind] = _UNORDERED.get(value_type.layout, _WHOLE)
            kinds[kind] = hash((value_type.type, value_type.encoding, value_type.layout)) & 0xFFFFFFFFFFFF
        for kind in (STRING_INT, STRING_INT + 1):
            kinds[kind] = kinds[0]
        self.ways: bytes = bytes(ways)
        self.kinds: list[int] = kinds
        self.piles: list[BytesWriter] = [BytesWriter() for _ in range(PILES)]
        self.held: i64 = 0
        self.spilled: list[tuple[int, int, int]] = []  # pile, place in the file, bytes
        self.file: IO[bytes] | None = None

    def record(self, kind: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        buf = self.buf
        if buf[key_at] < 0x40:
            name = buf[key_at + 1 : value_at]
        else:
            name, _ = read_string(buf, key_at, self.limit)
        value: i64
        way: i64 = self.ways[kind]
        if way == _WHOLE:
            value = hash(buf[value_at:end])
        else:
            elements = self.elements
            elements.begin(way)
            if elements.feed(buf, value_at) != end or not elements.done:
                raise CorruptError("its parts do not end where the value ends", offset=int(value_at))
            value = elements.sum
        self.add(name, value ^ self.kinds[kind], expire_ms, self.base + start)

    def large(self, kind: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        self.add(key, self.large_hash ^ self.kinds[kind], expire_ms, offset)

    def add(self, name: bytes, value: i64, expire_ms: i64, offset: i64) -> None:
        number: i64 = hash(name)
        number ^= self.db * 0x9E3779B97F4A7C1 & 0x7FFFFFFFFFFFFFF
        out = self.piles[number & (PILES - 1)]
        write_i64_le(out, number)
        write_i64_le(out, value)
        write_i64_le(out, expire_ms)
        write_i64_le(out, offset)
        self.count += 1
        self.held += ENTRY
        if self.held >= _HELD:
            self.spill()

    def spill(self) -> None:
        """Make room in memory."""
        if self.file is None:
            self.file = TemporaryFile()  # noqa: SIM115 (closed by close)
        for number in range(PILES):
            data = self.piles[number].getvalue()
            if data:
                self.spilled.append((number, self.file.seek(0, 2), len(data)))
                self.file.write(data)
                self.piles[number].truncate(0)
        self.held = 0

    def pile(self, number: int) -> bytes:
        """The entries of one pile, in the order of the file."""
        parts = []
        for pile, at, size in self.spilled:
            if pile == number and self.file is not None:
                self.file.seek(at)
                parts.append(self.file.read(size))
        parts.append(self.piles[number].getvalue())
        return b"".join(parts)

    def is_unordered(self, kind: i64) -> bool:
        """Whether a large value of this kind is to be fed to `elements`."""
        return self.ways[kind] != _WHOLE

    def begin_large(self, kind: i64) -> None:
        """Make ready for a large value whose elements are summed."""
        self.elements.begin(self.ways[kind])

    def close(self) -> None:
        """Remove the file."""
        if self.file is not None:
            self.file.close()
            self.file = None

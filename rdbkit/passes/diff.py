"""A short form of every key and its value, by which two snapshots are compared; compiled, since it runs once a record and element.

Names and values are hashed by the interpreter's hash, which is keyed afresh in each process: nobody can make two that collide. Of
sets, hashes and sorted sets whose elements stand in the file one by one, the order does not matter.
"""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from librt.strings import write_i64_le

from rdbkit.errors import CorruptError
from rdbkit.format.budget import OBJECT
from rdbkit.format.constants import ValueType
from rdbkit.format.primitives import read_length, read_string, read_uint64, skip_length, skip_string
from rdbkit.format.scan import STRING_INT, TYPE_CODES, Visitor
from rdbkit.model import Event, FunctionLibrary, ModuleAux
from rdbkit.passes.hashes import PARTITIONS, HashPartitions, name_hash
from rdbkit.products import holds_nothing

if TYPE_CHECKING:
    from mypy_extensions import i64

#: Bytes of an entry: hash of the name, hash of the value, expiry (-1 for none), offset; each a signed number of 64 bits.
ENTRY: Final = 32
#: Of these, what says that two keys are the same, and what says that they have the same name.
ALIKE: Final = 24
NAMED_ALIKE: Final = 8
_MASK: Final = (1 << 62) - 1  # sums stay within 64 bits, interpreted as well

# How a value is hashed, by its type.
_WHOLE: Final = 0
_MEMBERS: Final = 1
_PAIRS: Final = 2
_SCORED: Final = 3
_PLAIN: Final = [_WHOLE, _MEMBERS, _PAIRS, _WHOLE]  # by their arity


def _method_of(t: ValueType) -> int:
    """How values of this type are hashed: element by element where their order says nothing, and is easily known."""
    if t.type not in ("set", "hash", "zset"):
        return _WHOLE
    if t.shape in ("strings", "expiry-text"):
        return _PLAIN[t.arity]
    return _SCORED if t.shape == "scored" else _WHOLE


def digest_of(chunks: Iterable[bytes]) -> bytes:
    """A digest of bytes that come in pieces."""
    whole = blake2b(digest_size=16)
    for chunk in chunks:
        whole.update(chunk)
    return whole.digest()


def without_equals(first: bytes, second: bytes, compared: i64) -> tuple[int, bytes, bytes]:
    """How many entries two partitions have in common, and the other entries of each.

    Args:
        first, second: entries of `ENTRY` bytes.
        compared: bytes of each that have to be the same.
    """
    mine = {first[at : at + compared] for at in range(0, len(first), ENTRY)}
    others = {second[at : at + compared] for at in range(0, len(second), ENTRY)}
    if len(mine) * ENTRY < len(first) or len(others) * ENTRY < len(second):
        return 0, first, second  # no server loads such a file: some key is there twice
    if mine == others:
        return len(mine), b"", b""
    mine &= others
    rests = [
        b"".join([data[at : at + ENTRY] for at in range(0, len(data), ENTRY) if data[at : at + compared] not in mine])
        for data in (first, second)
    ]
    return len(mine), rests[0], rests[1]


class Elements:
    """The sum of the hashes of a collection's elements, whichever order they stand in; `feed` takes it in pieces.

    Attributes:
        sum: of what has been read, as 62 bits.
        done: the last element has been read.
        need, paused: as of `Decoder`.
    """

    def __init__(self) -> None:
        self.method: i64 = 0
        self.left: i64 = -1
        self.sum: i64 = 0
        self.done: bool = False
        self.need: i64 = 0
        self.paused: bool = False

    def begin(self, method: i64) -> None:
        """Make ready for a value."""
        self.method = method
        self.left = -1
        self.sum = 0
        self.done = False

    def feed(self, buf: bytes, pos: i64, sink: object) -> i64:
        """Read the elements that lie whole in `buf`; returns where the first one begins that does not."""
        end: i64
        size: i64 = len(buf)
        method: i64 = self.method
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
                if method == _PAIRS:
                    end = skip_string(buf, end)
                elif method == _SCORED:
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
    """Takes an entry of every key to one of the partitions, by the lowest bits of its name's hash.

    Args:
        types: of the snapshot.
        limit: most bytes of a key's name.

    Attributes:
        count: keys so far.
        large_hash: to be set to the hash of the value that `large` will receive next.
        functions: function libraries, wherever they stand.
        module_data: data of modules outside of keys that has something in it: by type, and whether it stands before (1) or after
            the keys (2), the version of its encoding and a digest of each piece.
        large_digest: to be set to the digest of the piece of such data that is larger than a block and comes next.
    """

    def __init__(self, types: dict[int, ValueType], limit: int) -> None:
        super().__init__()
        self.limit: i64 = limit
        self.count: i64 = 0
        self.large_hash: i64 = 0
        self.functions: list[FunctionLibrary] = []
        self.wants_module_data = True
        self.module_data: dict[tuple[str, int], list[tuple[int, bytes]]] = {}
        self.large_digest: bytes = b""
        self.elements: Elements = Elements()
        methods = bytearray(TYPE_CODES)
        type_hashes = [0] * TYPE_CODES  # what a type is called goes into the hash: numbers mean something with their version alone
        for type_code, value_type in types.items():
            methods[type_code] = _method_of(value_type)
            type_hashes[type_code] = hash((value_type.type, value_type.encoding, value_type.layout)) & 0xFFFFFFFFFFFF
        for type_code in (STRING_INT, STRING_INT + 1):
            type_hashes[type_code] = type_hashes[0]
        self.methods: bytes = bytes(methods)
        self.type_hashes: list[int] = type_hashes
        self.partitions: HashPartitions = HashPartitions()

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        buf = self.buf
        if buf[key_at] < 0x40:
            name = buf[key_at + 1 : value_at]
        else:
            name, _ = read_string(buf, key_at, self.limit)
        value: i64
        method: i64 = self.methods[type_code]
        if method == _WHOLE:
            value = hash(buf[value_at:end])
        else:
            elements = self.elements
            elements.begin(method)
            if elements.feed(buf, value_at, None) != end or not elements.done:
                raise CorruptError("its parts do not end where the value ends", offset=int(value_at))
            value = elements.sum
        self.add(name, value ^ self.type_hashes[type_code], expire_ms, self.base + start)

    def large(self, type_code: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        self.add(key, self.large_hash ^ self.type_hashes[type_code], expire_ms, offset)

    def event(self, event: Event) -> None:
        if isinstance(event, FunctionLibrary):
            self.functions.append(event)
        elif isinstance(event, ModuleAux) and not holds_nothing(event.module, event.size):
            digest = self.large_digest
            if self.event_at >= 0:
                buf = self.buf
                _, pos = read_uint64(buf, self.event_at + 1)  # what comes first says which module's it is, and when it comes
                pos = skip_length(buf, skip_length(buf, pos))
                digest = digest_of([buf[pos : self.event_end]])
            self.budget.spend("data of modules", len(digest) + 2 * OBJECT)
            self.module_data.setdefault((event.module, event.when), []).append((event.version, digest))

    def add(self, name: bytes, value: i64, expire_ms: i64, offset: i64) -> None:
        number: i64 = name_hash(self.db, name)
        out = self.partitions.outs[number & (PARTITIONS - 1)]
        write_i64_le(out, number)
        write_i64_le(out, value)
        write_i64_le(out, expire_ms)
        write_i64_le(out, offset)
        self.count += 1
        self.partitions.grown(ENTRY)

    def is_unordered(self, type_code: i64) -> bool:
        """Whether a large value of this type is to be fed to `elements`."""
        return self.methods[type_code] != _WHOLE

    def begin_large(self, type_code: i64) -> None:
        """Make ready for a large value whose elements are summed."""
        self.elements.begin(self.methods[type_code])

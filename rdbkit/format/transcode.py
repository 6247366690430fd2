"""Encoded values to the plain encodings that every server loads, without an object for any element on the way.

Types 1, 2, 4 and 5 (3 before RDB 8) hold any collection; servers pack them again by their own limits. Hashes whose fields expire
become type 24 of Redis or 22 of Valkey where the target knows one of these.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from librt.strings import BytesWriter, write_f64_le, write_i64_le

from rdbkit.errors import CorruptError
from rdbkit.format.compiled import COMPILED
from rdbkit.format.decode import NODES, PACKED, Decoder, FileTypes, score_in, too_large
from rdbkit.format.encode import write_length, write_score, write_string
from rdbkit.format.listpack import any_twice, collect_plain, collect_scored, plain_text, read_listpack
from rdbkit.format.packed import STRETCH
from rdbkit.format.primitives import read_string
from rdbkit.format.sink import Items, Names, Sink

if TYPE_CHECKING:
    from mypy_extensions import i64

# What a value becomes: the type byte of each.
LIST: Final = 1
SET: Final = 2
ZSET_TEXT: Final = 3
HASH: Final = 4
ZSET: Final = 5
HASH_VALKEY: Final = 22
HASH_EXPIRING: Final = 24

#: Redis keeps a field's expiry in 48 bits.
LATEST: Final = (1 << 48) - 1
#: What becomes of fields that expire where the target does not support their expiry.
KEEP_FIELDS: Final = 0
DROP_FIELDS: Final = 1

_BYTES: Final = bytes(range(256))
_SHORT: Final = 24  # up to here, bytes are copied one by one
_COMPRESSIBLE: Final = 20  # as in servers: longer strings are worth trying
_LISTPACK_HEADER: Final = 6
_HEADER: Final = struct.Struct("<IH").unpack_from
_COUNT_AT: Final = 4
_MANY: Final = 65535
PACKED_NODE: Final = 2  # container of a quicklist's node that is a listpack
_TWICE: Final = "element-twice"


def write_text(out: BytesWriter, buf: bytes, start: i64, end: i64) -> None:
    """A string with the content `buf[start:end]`, as it stands."""
    size: i64 = end - start
    if size < 0x40:
        out.append(_BYTES[size])
        if COMPILED and size <= _SHORT:
            while start < end:
                out.append(buf[start])
                start += 1
            return
    else:
        write_length(out, size)
    out.write(buf[start:end])


def write_number(out: BytesWriter, n: i64) -> None:
    """A string that is the text of `n`, as an integer where it has 32 bits."""
    if -0x80 <= n < 0x80:
        out.append(0xC0)
        out.append(_BYTES[n & 0xFF])
    elif -0x8000 <= n < 0x8000:
        out.append(0xC1)
        out.append(_BYTES[n & 0xFF])
        out.append(_BYTES[n >> 8 & 0xFF])
    elif -0x80000000 <= n < 0x80000000:
        out.append(0xC2)
        out.append(_BYTES[n & 0xFF])
        out.append(_BYTES[n >> 8 & 0xFF])
        out.append(_BYTES[n >> 16 & 0xFF])
        out.append(_BYTES[n >> 24 & 0xFF])
    else:
        text = b"%d" % n
        out.append(_BYTES[len(text)])
        out.write(text)


class PlainSink(Sink):
    """Writes each element as a string.

    Attributes:
        count: elements so far, fields and values of a hash each.
        expiring: elements that expire.
        compress: try LZF on long strings.
        names: sees to it that no element comes twice, since most servers refuse a table with one that does.
        named: which elements have names that differ: 0 none, 1 all, 2 every second.
    """

    def __init__(self, out: BytesWriter, compress: bool, names: Names) -> None:
        self.out: BytesWriter = out
        self.compress: bool = compress
        self.names: Names = names
        self.named: i64 = 0
        self.count: i64 = 0
        self.expiring: i64 = 0

    def string(self, buf: bytes, start: i64, end: i64) -> None:
        if self.named == 1 or (self.named == 2 and self.count & 1 == 0):
            self.names.add(buf[start:end])
        self.count += 1
        if self.compress and end - start > _COMPRESSIBLE:
            write_string(self.out, buf[start:end], True)
        else:
            write_text(self.out, buf, start, end)

    def integer(self, n: i64) -> None:
        if self.named == 1 or (self.named == 2 and self.count & 1 == 0):
            self.names.add_number(n)
        self.count += 1
        write_number(self.out, n)

    def attribute(self, n: i64) -> None:
        if n > 0:
            self.expiring += 1

    def run(self, buf: bytes, at: int, until: int, last: int) -> tuple[int, int]:
        if self.compress:
            return at, 0
        parts: list[bytes] = []
        begin = self.count
        at, count = collect_plain(buf, at, until, last, parts)
        if self.named:
            step = 2 * self.named
            first = step - 2 if begin & 1 else 0
            for head, body in zip(parts[first::step], parts[first + 1 :: step], strict=True):
                self.names.add(plain_text(head, body))
        self.out.write(b"".join(parts))
        self.count += count
        return at, count


class ScoredSink(PlainSink):
    """Writes members as strings and scores as doubles, or as text before RDB 8."""

    def __init__(self, out: BytesWriter, compress: bool, names: Names, text: bool) -> None:
        super().__init__(out, compress, names)
        self.text: bool = text

    def string(self, buf: bytes, start: i64, end: i64) -> None:
        if self.count & 1:
            self.double(score_in(buf, start, end))
        else:
            super().string(buf, start, end)

    def integer(self, n: i64) -> None:
        if self.count & 1:
            self.double(float(n))
        else:
            super().integer(n)

    def run(self, buf: bytes, at: int, until: int, last: int) -> tuple[int, int]:
        if self.compress or self.text or self.count & 1:  # or a score comes next
            return at, 0
        parts: list[bytes] = []
        at, count = collect_scored(buf, at, until, last, parts)
        for head, body in zip(parts[::3], parts[1::3], strict=True):
            self.names.add(plain_text(head, body))
        self.out.write(b"".join(parts))
        self.count += count
        return at, count

    def double(self, x: float) -> None:
        self.count += 1
        if x != x:
            raise CorruptError("a score is not a number", rule="score")
        if self.text:
            write_score(self.out, x)
        else:
            write_f64_le(self.out, x)


class FieldSink(PlainSink):
    """Writes the fields of a hash whose fields can expire, in a form that the target supports.

    Attributes:
        type_code: HASH_EXPIRING, HASH_VALKEY, or HASH for a target without such expiries.
        form: the same, but HASH where no field of this hash expires.
        base: of HASH_EXPIRING, what expiries are counted from.
        policy: of HASH, KEEP_FIELDS or DROP_FIELDS; fields that are past are left out by both.
        now_ms: what is past.
        expiring, past: fields that expire, and those of them that have.
        beyond: fields that expire later than HASH_EXPIRING can represent, and never do now.
        earliest, latest: of the expiries that are not past.
    """

    def __init__(self, out: BytesWriter, compress: bool, names: Names, type_code: i64, policy: i64, now_ms: i64) -> None:
        super().__init__(out, compress, names)
        self.type_code: i64 = type_code
        self.policy: i64 = policy
        self.now_ms: i64 = now_ms
        self.form: i64 = type_code
        self.base: i64 = 1
        self.past: i64 = 0
        self.beyond: i64 = 0
        self.earliest: i64 = 0
        self.latest: i64 = 0
        self.held: list[bytes] = []

    def string(self, buf: bytes, start: i64, end: i64) -> None:
        self.held.append(buf[start:end])

    def integer(self, n: i64) -> None:
        self.held.append(b"%d" % n)

    def run(self, buf: bytes, at: int, until: int, last: int) -> tuple[int, int]:
        return at, 0

    def begin(self) -> None:
        """Make ready for the next hash."""
        self.form = self.type_code
        self.base = 1
        self.expiring = 0
        self.past = 0
        self.beyond = 0
        self.earliest = 0
        self.latest = 0
        self.held = []

    def attribute(self, n: i64) -> None:
        name, value = self.held
        self.held = []
        self.add(name, value, n)

    def add(self, name: bytes, value: bytes, n: i64) -> None:
        """A field that expires at `n`, 0 for never."""
        self.names.add(name)
        if n > 0:
            if self.type_code == HASH_EXPIRING and n > LATEST:
                self.beyond += 1
                n = 0
            else:
                self.expiring += 1
        if n > 0:
            if self.type_code == HASH:
                if n <= self.now_ms:
                    self.past += 1
                    return
                if self.policy == DROP_FIELDS:
                    return
            if self.earliest == 0 or n < self.earliest:
                self.earliest = n
            if n > self.latest:
                self.latest = n
        out = self.out
        if self.form == HASH_EXPIRING:
            write_length(out, n - self.base + 1 if n > 0 else 0)
        write_string(out, name, self.compress)
        write_string(out, value, self.compress)
        if self.form == HASH_VALKEY:
            write_i64_le(out, n if n > 0 else -1)
        self.count += 2


class Transcoder:
    """Writes one collection after the other in another encoding.

    Args:
        file_types: of the file that they are from.
        hash_code: what becomes of a hash whose fields can expire: HASH_EXPIRING, HASH_VALKEY or HASH.
        field_policy, now_ms: see `FieldSink`.
        text_scores: the target is older than RDB 8.
        compress: try LZF on long strings.
        names: reports elements that come twice.

    Attributes:
        decoder: of the value.
        fields: what was met in a hash whose fields can expire.
        is_empty: the last value that was written has no elements.
    """

    def __init__(
        self,
        file_types: FileTypes,
        hash_code: int,
        field_policy: int,
        now_ms: int,
        text_scores: bool,
        compress: bool,
        names: Names,
    ) -> None:
        self.file_types: FileTypes = file_types
        self.names: Names = names
        self.decoder: Decoder = Decoder(file_types)
        self.decoder.most = file_types.packed_limit
        self.body: BytesWriter = BytesWriter()
        self.plain: PlainSink = PlainSink(self.body, compress, names)
        self.scored: ScoredSink = ScoredSink(self.body, compress, names, text_scores)
        self.fields: FieldSink = FieldSink(self.body, compress, names, hash_code, field_policy, now_ms)
        self.sink: PlainSink = self.plain
        self.compress: bool = compress
        self.is_empty: bool = False
        self.members: i64 = 1  # calls of the sink that make an element of what is written
        self.becomes: list[int] = [0] * 256
        self.listpacks: list[int] = [0] * 256  # how values are read that are listpacks, or have them as nodes; 0 for others
        for t in file_types.types.values():
            if t.packed == "listpack":
                self.listpacks[t.id] = file_types.shapes[t.id]
            if t.type == "zset":
                self.becomes[t.id] = ZSET_TEXT if text_scores else ZSET
            else:
                self.becomes[t.id] = {"list": LIST, "set": SET, "hash": HASH, "array": HASH}.get(t.type, 0)

    def begin(self, type_code: i64, out: BytesWriter) -> None:
        """Make ready for a value of this type, whose elements go to `out`."""
        self.decoder.begin(type_code)
        becomes = self.becomes[type_code]
        if self.decoder.arity == 3:
            self.sink = self.fields
            self.fields.begin()
        elif becomes in (ZSET, ZSET_TEXT):
            self.sink = self.scored
        else:
            self.sink = self.plain
        self.members = 1 if becomes <= SET else 2
        self.sink.count = 0
        self.sink.expiring = 0
        self.sink.out = out
        self.sink.named = 0 if becomes <= LIST else self.members
        self.names.begin()

    def write(self, type_code: i64, buf: bytes, pos: i64, end: i64, out: BytesWriter) -> None:
        """Write the value `buf[pos:end]`, whose fields cannot expire, from its count on.

        Raises: CorruptError where it is damaged, and maybe half of it is written.
        """
        if not COMPILED and self.quick(type_code, buf, pos, end, out):
            return
        self.begin(type_code, out)
        self.is_empty = False
        decoder = self.decoder
        shape = self.listpacks[type_code]
        if shape == PACKED:
            self.end_at(self.listpack(buf, pos, out), end)
        elif shape == NODES and buf[pos] == 1 and buf[pos + 1] == PACKED_NODE:
            self.end_at(self.listpack(buf, pos + 2, out), end)
        else:
            body = self.body
            body.truncate(0)
            self.sink.out = body
            self.end_at(decoder.feed(buf, pos, self.sink), end)
            self.is_empty = self.sink.count == 0
            write_length(out, self.sink.count // self.members)
            out.write(body.getvalue())
        self.names.finish()

    def write_once(self, type_code: i64, buf: bytes, pos: i64, end: i64, out: BytesWriter, last: bool) -> i64:
        """As `write`, for a value with elements that come twice: the first of them is written, or the `last`.

        Returns how many were left out.
        """
        found = Items()
        self.begin(type_code, out)
        self.end_at(self.decoder.feed(buf, pos, found), end)
        arity = self.decoder.arity
        items: list[Any] = found.items
        kept = _places(items, arity, last)
        sink = self.sink
        write_length(out, len(kept))
        for at in kept:
            for item in items[at : at + arity]:
                if isinstance(item, bytes):
                    sink.string(item, 0, len(item))
                elif isinstance(item, float):
                    sink.double(item)
                else:
                    sink.attribute(item)
        self.is_empty = not kept
        return len(items) // arity - len(kept)

    def quick(self, type_code: int, buf: bytes, pos: int, end: int, out: BytesWriter) -> bool:
        """An ordinary collection in one listpack, for the interpreter, in few calls; False, with nothing written, for any other."""
        shape = self.listpacks[type_code]
        if shape == NODES and buf[pos] == 1 and buf[pos + 1] == PACKED_NODE:
            pos += 2
        elif shape != PACKED:
            return False
        becomes = self.becomes[type_code]
        if self.compress or becomes == ZSET_TEXT or self.file_types.arities[type_code] == 3:
            return False
        first = buf[pos]
        if first < 0x40:
            start = pos + 1
            stop = start + first
        elif first < 0x80:
            start = pos + 2
            stop = start + ((first & 0x3F) << 8 | buf[pos + 1])
        elif first == 0xC3:
            data, stop = read_string(buf, pos, self.file_types.limit)
            if stop != end:
                return False
            buf, start, stop, end = data, 0, len(data), len(data)
        else:
            return False
        if stop != end or not _LISTPACK_HEADER < end - start <= STRETCH or buf[end - 1] != 0xFF:
            return False
        size, announced = _HEADER(buf, start)
        members = 1 if becomes <= SET else 2
        if size != end - start or announced % members or announced == _MANY or announced == 0:
            return False
        parts: list[bytes] = []
        collect = collect_scored if becomes == ZSET else collect_plain
        at, count = collect(buf, start + _LISTPACK_HEADER, end - 1, end - 1, parts)
        if at != end - 1 or count != announced:
            return False
        step = 3 if becomes == ZSET else 2 * members
        if becomes > LIST and any_twice(parts[::step], parts[1::step]):
            raise CorruptError("an element comes twice", rule=_TWICE)
        write_length(out, announced // members)
        out.write(b"".join(parts))
        self.is_empty = False
        self.sink = self.plain
        self.plain.expiring = 0
        return True

    def listpack(self, buf: bytes, pos: i64, out: BytesWriter) -> i64:
        """The listpack in the string at `pos`, whose header tells how many elements there are; returns the string's end."""
        data, start, end, stop = self.decoder.unpacked(buf, pos)
        if end - start <= _LISTPACK_HEADER:
            raise CorruptError(f"a listpack of {end - start} bytes")
        announced: i64 = data[start + _COUNT_AT] | data[start + _COUNT_AT + 1] << 8
        sink = self.sink
        try:
            if announced == _MANY:
                body = self.body
                body.truncate(0)
                sink.out = body
                announced = read_listpack(data, start, end, sink)
                write_length(out, announced // self.members)
                out.write(body.getvalue())
            else:
                write_length(out, announced // self.members)
                read_listpack(data, start, end, sink)
        except IndexError:
            raise CorruptError("an element goes beyond the end of what holds it") from None
        if self.members == 2 and announced & 1:
            raise CorruptError(f"{announced} strings, where each field or member has one beside it")
        self.is_empty = announced == 0
        self.decoder.done = True
        return stop

    def read_fields(self, type_code: i64, buf: bytes, pos: i64, end: i64, once: bool, last: bool) -> i64:
        """Read the hash `buf[pos:end]`, whose fields can expire; `body` is then what follows its count.

        Args:
            once: of fields that come twice take the first, or the `last`.

        Returns: how many fields were left out by that.

        Raises: CorruptError where it is damaged.
        """
        fields = self.fields
        self.begin(type_code, self.body)
        self.body.truncate(0)
        if fields.form == HASH and not once:
            self.end_at(self.decoder.feed(buf, pos, fields), end)
            self.names.finish()
            return 0
        # what form it takes, and what expiries are counted from, has to be known first
        found = Items()
        self.end_at(self.decoder.feed(buf, pos, found), end)
        items: list[Any] = found.items
        left_out: i64 = 0
        if once:
            kept = _places(items, 3, last)
            left_out = len(items) // 3 - len(kept)
            items = [item for at in kept for item in items[at : at + 3]]
        times: list[int] = [ms for ms in items[2::3] if 0 < ms <= LATEST or (ms > 0 and fields.type_code == HASH_VALKEY)]
        if times:
            fields.base = min(times)
        else:
            fields.form = HASH
        for i in range(0, len(items), 3):
            fields.add(items[i], items[i + 1], items[i + 2])
        self.names.finish()
        return left_out

    def end_at(self, pos: i64, end: i64) -> None:
        if self.decoder.paused:
            raise too_large(self.decoder.spent, self.file_types.packed_limit)
        if not self.decoder.done or pos != end:
            raise CorruptError("its parts do not end where the value ends")


def _places(items: list[Any], arity: int, last: bool) -> list[int]:
    """Where each element begins in a flat list of elements of `arity` parts; of those with one name, the first or the last."""
    places: dict[object, int] = {}
    for at in range(0, len(items), arity):
        if last or items[at] not in places:
            places[items[at]] = at
    return sorted(places.values())

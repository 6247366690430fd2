"""Encoded values to elements, in pieces of any size; see `rdbkit.values` for what comes out.

`Decoder` goes on wherever the bytes that it has end, as `ValueSkipper` does, so that its memory depends on single elements and not
on values. It reports what it finds to a `Sink`.
"""

from __future__ import annotations

import struct
from functools import cache
from operator import ne
from typing import TYPE_CHECKING, Any, Final

from librt.strings import read_f64_le

from rdbkit.errors import CorruptError, LimitError
from rdbkit.format import constants as c
from rdbkit.format.budget import HELD, HOW_TO_RAISE, NAME, Budget
from rdbkit.format.compiled import COMPILED
from rdbkit.format.modules import read_module
from rdbkit.format.packed import STRETCH, Cursor, PackedReader
from rdbkit.format.primitives import read_int64, read_integer, read_length, read_string, read_uint64, skip_string
from rdbkit.format.readers import LISTPACK, READERS, reader_number
from rdbkit.format.sink import Items, Sink
from rdbkit.format.skip import BATCH, SAME, skip_container
from rdbkit.format.streams import HARMLESS, StreamDecoder, level_of
from rdbkit.values import Array, CronJob, Hash, Set, Stream, StreamDedup, StreamEntry, StreamGroup, StreamTail

if TYPE_CHECKING:
    from mypy_extensions import i64

# How a type's value is read, by its shape; see `constants.SHAPES`.
STRING: Final = 1
STRINGS: Final = 2
SCORED: Final = 3
TEXT_SCORED: Final = 4
NODES: Final = 5
PACKED_NODES: Final = 6
PACKED: Final = 7
EXPIRY_FIRST: Final = 8
EXPIRY_LAST: Final = 9
EXPIRY_TEXT: Final = 10
# From here on, the whole of the value is read in one go, or what precedes its elements is not only their count.
TRIPLES: Final = 11  # packed, with an expiry for each
STREAM: Final = 12
ARRAY: Final = 13
MODULE: Final = 14
CRON: Final = 15
NUMBER: Final = 16
NAMED_LISTPACK: Final = 17
NAMED: Final = 18
TEMPLATE_LISTPACK: Final = 19
TEMPLATE: Final = 20

_SHAPES: Final = {
    "string": STRING,
    "strings": STRINGS,
    "scored": SCORED,
    "text-scored": TEXT_SCORED,
    "nodes": NODES,
    "packed-nodes": PACKED_NODES,
    "packed": PACKED,
    "expiry-first": EXPIRY_FIRST,
    "expiry-last": EXPIRY_LAST,
    "expiry-text": EXPIRY_TEXT,
    "stream": STREAM,
    "array": ARRAY,
    "module": MODULE,
    "cron": CRON,
    "number": NUMBER,
    "named-listpack": NAMED_LISTPACK,
    "named": NAMED,
    "template-listpack": TEMPLATE_LISTPACK,
    "template": TEMPLATE,
}
c.check_rows("shape", _SHAPES, "no decoder for shape")
#: More bytes than there are: the value is wanted whole.
_WHOLE: Final = 1 << 62
_NOT_A_NUMBER: Final = float("nan")
_MOST_WARNINGS: Final = 1000
#: Redis keeps a field's expiry in 48 bits.
_LATEST: Final = (1 << 48) - 1


def shape_of(t: c.ValueType) -> int:
    """How a value of this type is read: one of the constants above."""
    return TRIPLES if t.shape == "packed" and t.arity == 3 else _SHAPES[t.shape]


@cache
def _batch_of(size: int, scored: bool) -> struct.Struct:
    """256 strings of one length, with a score behind each or not."""
    return struct.Struct("<" + (f"x{size}s" + ("d" if scored else "")) * BATCH)


class FileTypes:
    """How the values of one file are read; shared by its decoders.

    Attributes:
        flavour, version: of the file.
        source: name of the file, for errors.
        types: what each type byte means; `shapes`, `arities`, `heads`, `readers` of what is packed and `levels` of streams say how
            its values are read.
        templates: field names of hashes, by the number of their template; filled while the file is scanned.
        limit: most bytes that one string may unpack to.
        warnings: the first faults that were passed over, with their places; `warned` is how many there were in all.
        budget: what is held of the file.
        packed_limit: most bytes that a packed collection may have, which is held whole.
    """

    def __init__(self, flavour: str, version: int, limit: int, source: str, budget: Budget | None = None) -> None:
        self.warnings: list[CorruptError] = []
        self.warned: int = 0
        self.flavour: str = flavour
        self.version: int = version
        self.source: str = source
        self.budget: Budget = Budget() if budget is None else budget
        self.limit: i64 = limit
        self.packed_limit: i64 = self.budget.limit // 2
        self.templates: dict[int, tuple[bytes, ...]] = {}
        self.shapes: list[int] = [0] * 256
        self.levels: list[int] = [0] * 256
        self.arities: list[int] = [1] * 256
        self.heads: list[int] = [0] * 256
        self.readers: list[PackedReader] = [READERS[0]] * 256
        self.types: dict[int, c.ValueType] = c.value_types(flavour, version)
        for t in self.types.values():
            self.shapes[t.id] = shape_of(t)
            self.arities[t.id] = t.arity
            self.heads[t.id] = t.head
            self.readers[t.id] = READERS[reader_number(t)]
            self.levels[t.id] = level_of(t.id)

    def warn(self, doubts: list[CorruptError], type_code: i64, db: int, key: bytes, offset: int) -> None:
        """Remember faults of a value that were passed over."""
        for e in doubts:
            e.source, e.offset, e.db, e.key = self.source, offset, db, key
            e.reading = f"a {self.types[0 if type_code >= 256 else type_code].name}"
            self.warned += 1
            if len(self.warnings) < _MOST_WARNINGS:
                self.warnings.append(e)


class Decoder:
    """Decodes one value after the other.

    Args:
        lenient: rules that a value may break: those whose breach loses nothing, unless it is said otherwise.
        builds: make the entries of streams; otherwise they are only checked.

    Attributes:
        doubts: where the value at hand breaks them, as errors without a place.
        done: the value is complete.
        need: how many bytes from where `feed` ended are wanted before it can go on, 0 if that is not known.
        arity: how many calls of the sink make an element: 1, 2 (hashes, sorted sets), or 3 where fields can expire.
        insert_index: of the array that was read last.
        most: bytes of compressed and packed content after which `feed` leaves off, so that what a sink collects is bounded; for a
            sink that collects nothing, more than there are.
        paused: `feed` has left off for that reason, and continues with the same input.
        spent: bytes of such content in the last `feed`.
    """

    def __init__(self, file_types: FileTypes, lenient: frozenset[str] = HARMLESS, builds: bool = True) -> None:
        self.builds: bool = builds
        self.file_types: FileTypes = file_types
        self.lenient: frozenset[str] = lenient
        self.doubts: list[CorruptError] = []
        self.done: bool = False
        self.need: i64 = 0
        self.arity: int = 1
        self.insert_index: int | None = None
        self.shape: i64 = 0
        self.type_code: i64 = 0
        self.left: i64 = -1
        self.base: i64 = 1  # that an expiry of 1 stands for
        self.names: tuple[bytes, ...] = ()
        self.at: i64 = 0  # of the next in names
        self.stream: StreamDecoder | None = None
        self.most: i64 = _WHOLE
        self.paused: bool = False
        self.spent: i64 = 0
        # a large packed collection that is being read
        self.reader: PackedReader = READERS[0]
        self.cursor: Cursor | None = None

    def begin(self, type_code: i64) -> None:
        """Make ready for a value of this type (as `Visitor.record` tells it)."""
        if type_code >= 256:
            type_code = 0
        self.type_code = type_code
        self.shape = self.file_types.shapes[type_code]
        self.done = False
        self.need = 0
        self.left = -1
        self.arity = self.file_types.arities[type_code]
        self.paused = False
        self.cursor = None
        if self.doubts:
            self.doubts = []
        if self.shape == STREAM:
            self.stream = StreamDecoder(
                self.file_types.levels[type_code], self.file_types.packed_limit, self.file_types.budget, self.lenient, self.doubts
            )
            self.stream.builds = self.builds
            self.stream.most = self.most
        elif self.shape == MODULE or self.shape == CRON:
            self.need = _WHOLE

    def feed(self, buf: bytes, pos: i64, sink: Sink) -> i64:
        """Tell `sink` of all elements that are complete in `buf` from `pos` on; return where the first incomplete one begins.

        Raises: RdbError without a place.
        """
        shape = self.shape
        if shape == STREAM:
            stream = self.stream
            assert stream is not None
            pos = stream.feed(buf, pos, sink)
            self.done = stream.done
            self.need = stream.need
            self.paused = stream.paused
            self.spent = stream.spent
            return pos
        self.need = 0
        self.spent = 0
        self.paused = False
        if self.cursor is not None and not self.packed_goes_on(sink):
            return pos
        left: i64 = self.left
        end: i64 = len(buf)
        first: i64
        stop: i64
        try:
            if left < 0:
                if shape == STRING:
                    pos = self.element(buf, pos, sink)
                    self.done = True
                    return pos
                if shape == PACKED:
                    pos = self.packed(buf, pos, sink)
                    if self.paused:
                        self.left = 0
                    else:
                        self.done = True
                    return pos
                if shape >= TRIPLES:
                    pos = self.rare(buf, pos, sink)
                    if self.done:
                        return pos
                    left = self.left
                else:
                    pos = self.head(buf, pos)
                    left = self.left
            if shape == STRINGS:
                if not COMPILED and isinstance(sink, Items):
                    pos, left = self.collect(buf, pos, left, False, sink)
                    if self.spent > self.most:
                        return self.pause(pos, left)
                while left > 0:
                    first = buf[pos]
                    stop = pos + 1 + first
                    if first < 0x40 and stop <= end:
                        sink.string(buf, pos + 1, stop)
                        pos = stop
                        left -= 1
                        continue
                    pos = self.element(buf, pos, sink)
                    left -= 1
                    if self.spent > self.most:
                        return self.pause(pos, left)
            elif shape == SCORED:
                if not COMPILED and isinstance(sink, Items):
                    pos, left = self.collect(buf, pos, left, True, sink)
                while left > 0:
                    if self.spent > self.most:
                        return self.pause(pos, left)
                    first = buf[pos]
                    stop = pos + 1 + first if first < 0x40 else skip_string(buf, pos)
                    if stop + 8 > end:
                        self.lack(stop + 8 - pos)
                    if first < 0x40:
                        sink.string(buf, pos + 1, stop)
                    else:
                        self.element(buf, pos, sink)
                    score = read_f64_le(buf, stop)
                    if score != score:
                        raise CorruptError("a score is not a number", rule="score")
                    sink.double(score)
                    pos = stop + 8
                    left -= 1
            elif shape == NODES:
                while left > 0:
                    stop = skip_container(buf, pos)
                    if buf[stop - 1] != 1:
                        pos = self.packed(buf, stop, sink)
                    elif buf[stop] == 0:
                        raise CorruptError("a node of a quicklist has a plain element of 0 bytes", rule="quicklist-empty")
                    else:
                        pos = self.element(buf, stop, sink)
                    left -= 1
                    if self.spent > self.most:
                        return self.pause(pos, left)
            elif shape == PACKED_NODES:
                while left > 0:
                    pos = self.packed(buf, pos, sink)
                    left -= 1
                    if self.spent > self.most:
                        return self.pause(pos, left)
            else:
                while left > 0:
                    pos = self.rare_element(buf, pos, sink)
                    left -= 1
                    if self.spent > self.most:
                        return self.pause(pos, left)
            self.done = True
        except IndexError:
            self.left = left
        return pos

    def pause(self, pos: i64, left: i64) -> i64:
        """Leave off in front of the element at `pos`."""
        self.left = left
        self.paused = True
        return pos

    def collect(self, buf: bytes, pos: int, left: int, scored: bool, sink: Items) -> tuple[int, int]:
        """Up to `left` short strings, with a score behind each or not, in the interpreter without a call for each.

        Returns where it left off, and how many are still left.
        """
        items = sink.items
        append = items.append
        behind = 8 if scored else 0
        end = len(buf) - behind
        try_at = left
        while left > 0 and pos < end:
            first = buf[pos]
            stop = pos + 1 + first
            if BATCH <= left <= try_at and first < 0x40:
                # elements of one length, as ids are, are taken together; where they are not, it is tried again 256 later
                try_at = left - BATCH
                stride = first + 1 + behind
                beyond = pos + BATCH * stride
                if beyond <= len(buf) and buf[pos:beyond:stride] == SAME[first]:
                    found = _batch_of(first, scored).unpack_from(buf, pos)
                    if scored and any(map(ne, found[1::2], found[1::2])):
                        raise CorruptError("a score is not a number", rule="score")
                    items += found
                    pos = beyond
                    left -= BATCH
                    continue
            if first >= 0x40:
                if scored:
                    break
                try:
                    stop = self.element(buf, pos, sink)
                except IndexError:
                    break
                if self.spent > self.most:
                    return stop, left - 1
            elif stop > end:
                break
            else:
                append(buf[pos + 1 : stop])
                if scored:
                    score = read_f64_le(buf, stop)
                    if score != score:
                        raise CorruptError("a score is not a number", rule="score")
                    append(score)
            pos = stop + behind
            left -= 1
        return pos, left

    def lack(self, need: i64) -> None:
        """Leave off until `need` bytes from the element's begin on are there."""
        self.need = need
        raise IndexError

    def head(self, buf: bytes, pos: i64) -> i64:
        """The count, and the base of expiries where there is one before it; sets `left`."""
        self.base = 1
        head: i64 = self.file_types.heads[self.type_code]
        if head > 0:
            buf[pos + head]
            self.base = read_int64(buf, pos)
            if self.base < 0 or self.base > _LATEST:
                raise CorruptError(f"a first expiry of {self.base} ms cannot be", rule="field-expiry")
            pos += head
        n, pos = read_length(buf, pos)
        if self.shape == STRINGS and self.arity == 2:
            n *= 2
        self.left = n
        return pos

    def element(self, buf: bytes, pos: i64, sink: Sink) -> i64:
        """One string in any of its forms."""
        first: i64 = buf[pos]
        start: i64
        stop: i64
        if first < 0xC0:
            n, start = read_length(buf, pos)
            stop = start + n
            if stop > len(buf):
                self.lack(stop - pos)
            sink.string(buf, start, stop)
            return stop
        stop = skip_string(buf, pos)
        if stop > len(buf):
            self.lack(stop - pos)
        if first == 0xC3:
            data, _ = read_string(buf, pos, self.file_types.limit)
            self.spent += len(data)
            sink.string(data, 0, len(data))
        else:
            sink.integer(read_integer(buf, pos))
        return stop

    def unpacked(self, buf: bytes, pos: i64) -> tuple[bytes, i64, i64, i64]:
        """`(data, start, end, stop)`: the content of the string at `pos` is `data[start:end]`, and it ends in `buf` at `stop`.

        Raises: LimitError where it is larger than what may be held whole.
        """
        stop: i64 = skip_string(buf, pos)
        start: i64
        n: i64
        if buf[pos] < 0xC0:
            n, start = read_length(buf, pos)
            if n > self.file_types.packed_limit:
                raise too_large(n, self.file_types.packed_limit)
            if stop > len(buf):
                self.lack(stop - pos)
            return buf, start, stop, stop
        if buf[pos] == 0xC3:
            n, start = read_length(buf, pos + 1)
            n = max(n, read_length(buf, start)[0])
            if n > self.file_types.packed_limit:
                raise too_large(n, self.file_types.packed_limit)
        if stop > len(buf):
            self.lack(stop - pos)
        data, _ = read_string(buf, pos, self.file_types.limit)
        return data, 0, len(data), stop

    def entries(self, reader: PackedReader, buf: bytes, pos: i64) -> tuple[list[object], i64]:
        """`(entries, stop)` of the packed collection that the string at `pos` holds.

        Raises: LimitError where its entries take more than what may be held.
        """
        items = Items()
        data, start, end, stop = self.unpacked(buf, pos)
        count: i64
        try:
            if end - start > STRETCH:
                count = reader.read(data, start, end, Sink())
                self.file_types.budget.check("entries of a packed collection", end - start + count * NAME)
            reader.read(data, start, end, items)
        except IndexError:
            raise overrun(reader.name) from None
        self.spent += end - start
        return items.items, stop

    def packed(self, buf: bytes, pos: i64, sink: Sink) -> i64:
        """One string that holds elements; `paused` where it is not at its end."""
        reader = self.file_types.readers[self.type_code]
        buf, start, end, stop = self.unpacked(buf, pos)
        count: i64
        if end - start > STRETCH and self.most < _WHOLE:
            self.reader = reader
            self.cursor = Cursor(buf, start, end, reader.begin(buf, start, end))
            self.packed_goes_on(sink)
            return stop
        self.spent += end - start
        try:
            count = reader.read(buf, start, end, sink)
        except IndexError:
            raise overrun(reader.name) from None
        self.check_pairs(count)
        return stop

    def packed_goes_on(self, sink: Sink) -> bool:
        """More of a large packed collection; False, and `paused`, where that is not all of it."""
        reader = self.reader
        cursor = self.cursor
        assert cursor is not None
        last: i64 = cursor.end - reader.end_mark
        until: i64
        try:
            while cursor.at < last:
                if self.spent > self.most:
                    self.paused = True
                    return False
                until = min(cursor.at + STRETCH, last)
                self.spent += until - cursor.at
                reader.step(cursor, until, sink)
            reader.finish(cursor)
        except IndexError:
            raise overrun(reader.name) from None
        self.check_pairs(cursor.count)
        self.cursor = None
        return True

    def check_pairs(self, count: i64) -> None:
        if self.arity == 2 and count & 1:
            raise CorruptError(f"{count} strings, where each field or member has one beside it", rule="pairs")

    def rare(self, buf: bytes, pos: i64, sink: Sink) -> i64:
        """Values that few files have: all of one, or its head, which sets `left`."""
        shape = self.shape
        n: i64
        if shape == TRIPLES:
            pos = self.triples(buf, pos, sink)
        elif shape == ARRAY:
            n, pos = read_length(buf, pos)
            if n == 0:
                raise CorruptError("an array has no elements", rule="empty")
            flag, pos = read_length(buf, pos)
            self.insert_index = None
            if flag:
                self.insert_index, pos = read_uint64(buf, pos)
            self.left = n
            return pos
        elif shape == MODULE:
            value, pos = read_module(buf, pos)
            sink.part(value)
        elif shape == CRON:
            pos = self.cron(buf, pos, sink)
        elif shape == NUMBER:
            number, pos = read_uint64(buf, pos)
            sink.part(number)
        elif shape == NAMED_LISTPACK:
            pos = self.field_names(buf, pos)
            pos = self.named_listpack(buf, pos, sink, False)
        elif shape == TEMPLATE_LISTPACK:
            pos = self.named_listpack(buf, pos, sink, True)
        else:
            if shape == NAMED:
                pos = self.field_names(buf, pos)
            else:
                n, pos = read_length(buf, pos)
                self.names = self.template(n)
            self.left = len(self.names)
            self.at = 0
            return pos
        self.done = True
        return pos

    def rare_element(self, buf: bytes, pos: i64, sink: Sink) -> i64:
        """One element of a value whose elements are neither strings nor scored."""
        shape = self.shape
        expiry: i64
        stop: i64
        if shape == TEXT_SCORED:
            stop = skip_string(buf, pos)
            size: i64 = buf[stop]
            if size < 253 and stop + 1 + size > len(buf):
                self.lack(stop + 1 + size - pos)
            if size == 253:
                raise CorruptError("a score is not a number", rule="score")
            self.element(buf, pos, sink)
            if size > 253:
                sink.double(float("inf") if size == 254 else float("-inf"))
                return stop + 1
            sink.string(buf, stop + 1, stop + 1 + size)
            return stop + 1 + size
        if shape == EXPIRY_FIRST:
            number, pos = read_uint64(buf, pos)
            if number > _LATEST:
                raise CorruptError(f"a field's expiry of {number} ms cannot be", rule="field-expiry")
            expiry = number
            if expiry > 0:
                expiry += self.base - 1
                if expiry > _LATEST:
                    raise CorruptError(f"a field's expiry of {expiry} ms cannot be", rule="field-expiry")
            return self.pair(buf, pos, 0, expiry, sink)
        if shape == EXPIRY_LAST:
            return self.pair(buf, pos, 8, 0, sink)
        if shape == EXPIRY_TEXT:
            return self.text_expiry(buf, pos, sink)
        if shape == ARRAY:
            return self.array_element(buf, pos, sink)
        # values of a hash by template
        stop = skip_string(buf, pos)
        if stop > len(buf):
            self.lack(stop - pos)
        name = self.names[self.at]
        self.at += 1
        sink.string(name, 0, len(name))
        return self.element(buf, pos, sink)

    def pair(self, buf: bytes, pos: i64, behind: i64, expiry: i64, sink: Sink) -> i64:
        """A field, its value and its expiry, which follows them where `behind` is 8."""
        value_at: i64 = skip_string(buf, pos)
        stop: i64 = skip_string(buf, value_at)
        if stop + behind > len(buf):
            self.lack(stop + behind - pos)
        self.element(buf, pos, sink)
        self.element(buf, value_at, sink)
        if behind:
            expiry = read_int64(buf, stop)
            if expiry < -1:
                raise CorruptError(f"a field's expiry of {expiry} ms cannot be", rule="field-expiry")
            if expiry < 0:
                expiry = 0
        sink.attribute(expiry)
        return stop + behind

    def text_expiry(self, buf: bytes, pos: i64, sink: Sink) -> i64:
        """A field and value, or a member, and its expiry in seconds as text, -1 for none."""
        stop: i64 = skip_string(buf, pos)
        value_at: i64 = stop
        if self.arity == 3:
            stop = skip_string(buf, stop)
        if skip_string(buf, stop) > len(buf):
            self.lack(skip_string(buf, stop) - pos)
        text, end = read_string(buf, stop, 64)
        try:
            seconds = int(text)
        except ValueError:
            raise CorruptError(f"an expiry of {text!r} is no number", rule="field-expiry") from None
        if seconds > _LATEST:
            raise CorruptError(f"an expiry of {seconds} s cannot be", rule="field-expiry")
        self.element(buf, pos, sink)
        if self.arity == 3:
            self.element(buf, value_at, sink)
        sink.attribute(seconds * 1000 if seconds >= 0 else 0)
        return end

    def triples(self, buf: bytes, pos: i64, sink: Sink) -> i64:
        """A listpack of fields, values and expiries, the fields that do not expire last."""
        head: i64 = self.file_types.heads[self.type_code]
        if head > 0:
            buf[pos + head]
            pos += head  # the first expiry, which is a hint
        found, pos = self.entries(self.file_types.readers[self.type_code], buf, pos)
        if len(found) % 3:
            raise CorruptError(f"{len(found)} entries, where each field has a value and an expiry", rule="pairs")
        before: i64 = 0
        expiry: i64
        for i in range(0, len(found), 3):
            name, value, text = found[i], found[i + 1], found[i + 2]
            assert isinstance(name, bytes)
            assert isinstance(value, bytes)
            assert isinstance(text, bytes)
            number = int(text) if text.isdigit() and len(text) < 16 else -1
            if number < 0 or number > _LATEST:
                raise CorruptError(f"a field's expiry of {text[:32]!r} cannot be", rule="field-expiry")
            expiry = number
            if expiry > 0 and (expiry < before or (before == 0 and i > 0)):
                raise CorruptError("the fields do not stand in the order of their expiries", rule="field-expiry-order")
            before = expiry
            sink.string(name, 0, len(name))
            sink.string(value, 0, len(value))
            sink.attribute(expiry)
        return pos

    def array_element(self, buf: bytes, pos: i64, sink: Sink) -> i64:
        begin: i64 = pos
        index, pos = read_uint64(buf, pos)
        if index == (1 << 64) - 1:
            raise CorruptError("an array has an element at 2^64-1, where none can be", rule="array-index")
        tag, pos = read_length(buf, pos)
        value: Any
        if tag == 0 or tag == 3:
            stop: i64 = skip_string(buf, pos)
            if stop > len(buf):
                self.lack(stop - begin)
            value, _ = read_string(buf, pos, self.file_types.limit)
            pos = stop
            if tag == 3 and len(value) > 7:
                raise CorruptError(
                    f"a short string of an array has {len(value)} bytes, where at most 7 are allowed", rule="array-short"
                )
        elif tag == 1 or tag == 2:
            buf[pos + 7]
            value = int.from_bytes(buf[pos : pos + 8], "little", signed=True) if tag == 1 else read_f64_le(buf, pos)
            pos += 8
        else:
            raise CorruptError(f"an array element has tag {tag}, where 0 to 3 is allowed", rule="array-tag")
        sink.part((index, value))
        return pos

    def cron(self, buf: bytes, pos: i64, sink: Sink) -> i64:
        limit = self.file_types.limit
        script, pos = read_string(buf, pos, limit)
        buf[pos + 15]
        start: int = read_int64(buf, pos)
        interval: int = read_int64(buf, pos + 8)
        lists: list[list[bytes]] = []
        pos += 16
        for _ in range(2):
            n, pos = read_length(buf, pos)
            found: list[bytes] = []
            while n > 0:
                text, pos = read_string(buf, pos, limit)
                found.append(text)
                n -= 1
            lists.append(found)
        sink.part(CronJob(script, start, interval, lists[0], lists[1]))
        return pos

    def template(self, number: int) -> tuple[bytes, ...]:
        names = self.file_types.templates.get(number)
        if names is None:
            raise CorruptError(f"refers to hash template {number}, which the file does not have", rule="template")
        return names

    def field_names(self, buf: bytes, pos: i64) -> i64:
        """Names of a hash's fields that stand before its values; sets `names`."""
        form, pos = read_length(buf, pos)
        found: list[object]
        if form == 0:
            found, pos = self.entries(READERS[LISTPACK], buf, pos)
        else:
            items = Items()
            n, pos = read_length(buf, pos)
            while n > 0:
                pos = self.element(buf, pos, items)
                n -= 1
            found = items.items
        self.names = tuple([x for x in found if isinstance(x, bytes)])
        check_field_names(self.names)
        return pos

    def named_listpack(self, buf: bytes, pos: i64, sink: Sink, by_number: bool) -> i64:
        """A listpack of a template's number and the values of a hash."""
        found, pos = self.entries(READERS[LISTPACK], buf, pos)
        first = found[0] if found else b""
        assert isinstance(first, bytes)
        names = self.names
        if by_number:
            if not first.isdigit() or len(first) > 15:
                raise CorruptError("a hash does not begin with the number of its template", rule="template")
            names = self.template(int(first))
        if len(names) != len(found) - 1:
            raise CorruptError(f"{len(found) - 1} values for {len(names)} field names", rule="template")
        for i in range(len(names)):
            name, value = names[i], found[i + 1]
            assert isinstance(value, bytes)
            sink.string(name, 0, len(name))
            sink.string(value, 0, len(value))
        return pos


def overrun(what: str) -> CorruptError:
    """The error for an element that would reach beyond the packed collection that holds it, and the bytes at hand."""
    return CorruptError("an element goes beyond the end of what holds it", rule=f"{what}-overrun")


def too_large(size: int, limit: int) -> LimitError:
    """The error for a packed collection of `size` bytes, or a small value that unpacks to so many."""
    return LimitError(f"a packed collection of {size} bytes, where at most {limit} can be held whole; {HOW_TO_RAISE}", rule=HELD)


def check_field_names(names: tuple[bytes, ...]) -> None:
    """Raise CorruptError where names that hashes share are not as Redis 8.10 keeps them: shorter ones first, then by bytes."""
    if not names:
        raise CorruptError("a hash without field names", rule="template")
    for i in range(1, len(names)):
        if (len(names[i - 1]), names[i - 1]) >= (len(names[i]), names[i]):
            raise CorruptError(
                f"field name {names[i][:64]!r} follows {names[i - 1][:64]!r}, where names must ascend", rule="template"
            )


def score_of(stored: object) -> float:
    """A score that a file keeps as a double or as text, read as servers do.

    Raises: CorruptError where it is no number.

    >>> score_of(b"1e3"), score_of(0.5)
    (1000.0, 0.5)
    """
    if isinstance(stored, float):
        return stored
    assert isinstance(stored, bytes)
    try:
        score = float(stored)
    except ValueError:
        score = _NOT_A_NUMBER
    if score != score or b"_" in stored or stored != stored.strip():  # which only Python takes
        raise CorruptError(f"a score of {stored[:64]!r} is no number", rule="score")
    return score


#: Powers of ten that a double holds exactly, and how many digits a number may have to be exact, too.
_POWERS: Final = [float(10**n) for n in range(16)]
_EXACT_DIGITS: Final = 15


def score_in(buf: bytes, start: i64, end: i64) -> float:
    """The score whose text is `buf[start:end]`, as `score_of`.

    A short decimal is an integer over a power of ten, both of which a double holds exactly: the quotient is the nearest double.
    """
    if COMPILED and end - start <= _EXACT_DIGITS + 1:
        at: i64 = start
        digits: i64 = 0
        places: i64 = -1  # behind the point; none yet
        n: i64 = 0
        while at < end:
            byte: i64 = buf[at]
            if 0x30 <= byte <= 0x39:
                n = n * 10 + (byte - 0x30)
                digits += 1
                if places >= 0:
                    places += 1
            elif byte == 0x2E and places < 0 and digits > 0:
                places = 0
            else:
                break
            at += 1
        if at == end and 0 < digits <= _EXACT_DIGITS and places != 0:
            return float(n) if places < 0 else float(n) / _POWERS[places]
    return score_of(buf[start:end])


def elements_of(type_name: str, arity: int, items: list[Any]) -> list[Any]:
    """A batch of elements, as `rdbkit.values` lists them, of what a sink collected for a value of type `type_name`."""
    if type_name == "zset":
        return list(zip(items[::2], map(score_of, items[1::2]), strict=True))
    if arity == 3:
        return [(items[i], items[i + 1], items[i + 2] or None) for i in range(0, len(items), 3)]
    if type_name == "hash":
        return [(items[i], items[i + 1], None) for i in range(0, len(items), 2)]
    if type_name == "set" and arity == 2:
        return items[::2]
    return items


def value_of(type_name: str, arity: int, items: list[Any], insert_index: int | None) -> Any:
    """The whole value of what a sink collected.

    Raises: CorruptError where a field or member is there twice.
    """
    if type_name == "list":
        return items
    if type_name == "hash":
        found = Hash()
        found.update(zip(items[::arity], items[1::arity], strict=True))
        if len(found) * arity != len(items):
            raise CorruptError("a field is there twice", rule="element-twice")
        if arity == 3:
            found.field_expire_ms = {f: ms for f, ms in zip(items[::3], items[2::3], strict=True) if ms}
        return found
    if type_name == "set":
        members = Set(items[::arity])
        if len(members) * arity != len(items):
            raise CorruptError("a member is there twice", rule="element-twice")
        if arity == 2:
            members.member_expire_ms = {m: ms for m, ms in zip(items[::2], items[1::2], strict=True) if ms}
        return members
    if type_name == "zset":
        scores = dict(zip(items[::2], map(score_of, items[1::2]), strict=True))
        if len(scores) * 2 != len(items):
            raise CorruptError("a member is there twice", rule="element-twice")
        return scores
    if type_name == "stream":
        return _stream(items)
    if type_name == "array":
        array = Array()
        array.update(items)
        if len(array) != len(items):
            raise CorruptError("an index is there twice", rule="element-twice")
        array.insert_index = insert_index
        return array
    return items[0]


def _stream(items: list[Any]) -> Stream:
    stream = Stream()
    for item in items:
        if isinstance(item, StreamEntry):
            stream.entries.append(item)
        elif isinstance(item, StreamTail):
            stream.length, stream.last_id, stream.first_id = item.length, item.last_id, item.first_id
            stream.max_deleted_id, stream.entries_added = item.max_deleted_id, item.entries_added
        elif isinstance(item, StreamGroup):
            stream.groups.append(item)
        else:
            assert isinstance(item, StreamDedup)
            stream.dedup = item
    return stream

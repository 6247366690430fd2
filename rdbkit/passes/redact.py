"""Records with names and values scrambled; compiled, since it runs once an element.

Every string becomes one of the same form, so that a value is rewritten part by part: counts, scores, expiries and all that is no
content are copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from librt.strings import BytesWriter

from rdbkit.errors import CorruptError, RdbError
from rdbkit.format import constants as c
from rdbkit.format.budget import Budget
from rdbkit.format.decode import ARRAY, MODULE, STREAM, STRING, Decoder, FileTypes
from rdbkit.format.encode import integer_form, write_length
from rdbkit.format.filter import Filter
from rdbkit.format.primitives import read_int64, read_length, read_string, skip_length, skip_string
from rdbkit.format.scan import NO_EXPIRY, STRING_INT, LastRecord, Visitor, attributes_end
from rdbkit.format.sink import Sink
from rdbkit.format.skip import skip_container
from rdbkit.format.streams import StreamDecoder
from rdbkit.model import (
    Aux,
    EnterpriseHint,
    Event,
    FunctionLibrary,
    HashTemplate,
    KeyMetadata,
    ModuleAux,
    ResizeDb,
    SelectDb,
    SlotImport,
    SlotInfo,
)
from rdbkit.passes.convert import Segment, write_expiry
from rdbkit.passes.scramble import PIECE, Scrambler
from rdbkit.passes.scramble_packed import Packer, scrambler_of, write_number

if TYPE_CHECKING:
    from mypy_extensions import i64

# Parts of an element, in the order in which they stand.
_MEMBER: Final = 1  # a string that no other one of the value is the same as
_TEXT: Final = 2
_NUMBER: Final = 3  # a number stored as a length
_BYTES: Final = 4  # eight bytes
_SCORE: Final = 5  # a double as text
_NODE: Final = 6  # of a quicklist: its container, and a listpack or a plain element
_SECONDS: Final = 7  # an expiry as text
_TAGGED: Final = 8  # an element of an array
_PACKED: Final = 9  # all of a packed collection

#: The parts of an element, by the shape of its value; none where a value has none that are known to be scrambled one by one.
_PARTS: Final = {
    "string": bytes([_TEXT]),
    "strings": bytes([_MEMBER, _TEXT]),
    "scored": bytes([_MEMBER, _BYTES]),
    "text-scored": bytes([_MEMBER, _SCORE]),
    "nodes": bytes([_NODE]),
    "packed-nodes": bytes([_PACKED]),
    "packed": bytes([_PACKED]),
    "expiry-first": bytes([_NUMBER, _MEMBER, _TEXT]),
    "expiry-last": bytes([_MEMBER, _TEXT, _BYTES]),
    "expiry-text": bytes([_MEMBER, _TEXT, _SECONDS]),
    "stream": b"",
    "array": bytes([_TAGGED]),
    "module": b"",
    "cron": b"",
    "number": bytes([_NUMBER]),
    "named-listpack": b"",
    "named": b"",
    "template-listpack": b"",
    "template": b"",
}
c.check_rows("shape", _PARTS, "it cannot be redacted: nothing says the parts of shape")
#: Without a count in front.
_SINGLE: Final = ("string", "number", "packed")
_TEMPLATES: Final = ("named-listpack", "named", "template-listpack", "template")
#: AUX fields that say nothing of keys and users.
HARMLESS: Final = frozenset(
    {b"redis-ver", b"valkey-ver", b"redis-bits", b"ctime", b"used-mem", b"aof-base", b"aof-preamble", b"slot-info"}
)
_MILLISECONDS_SINCE: Final = 3
_HINTS_SINCE: Final = 9


def _parts_of(t: c.ValueType) -> bytes:
    """The parts of an element of this type, in the order in which they stand."""
    parts = _PARTS[t.shape]
    if t.shape == "strings" and t.arity == 1:
        return bytes([_MEMBER if t.type == "set" else _TEXT])
    if t.shape == "expiry-text" and t.arity == 2:
        return bytes([_MEMBER, _SECONDS])
    return parts


class _Streams(StreamDecoder):
    """Checks a stream as it is decoded, and writes each of its parts with its strings scrambled."""

    def __init__(self, level: int, limit: i64, budget: Budget, packer: Packer) -> None:
        super().__init__(level, limit, budget)
        self.packer: Packer = packer
        self.out: BytesWriter = BytesWriter()
        self.name_end: i64 = -1  # of the string with which the part at hand begins
        self.is_node: bool = False

    def step(self, buf: bytes, pos: i64, sink: Sink) -> i64:
        self.name_end = -1
        self.is_node = False
        stop: i64 = super().step(buf, pos, sink)
        if self.is_node:
            self.packer.node(buf, pos, self.out)
            return stop
        if self.name_end >= 0:
            self.packer.string(buf, pos, self.out, True)
            pos = self.name_end
        self.out.write(buf[pos:stop])
        return stop

    def node(self, buf: bytes, pos: i64, sink: Sink) -> i64:
        self.is_node = True
        return super().node(buf, pos, sink)

    def text(self, buf: bytes, pos: i64) -> tuple[bytes, i64]:
        found, stop = super().text(buf, pos)
        self.name_end = stop
        return found, stop


class Values:
    """Scrambles one value after the other, in pieces of any size; goes on where its input ends, as `Decoder` does.

    Attributes:
        done: the value is complete.
        need: how many bytes from where `feed` ended are wanted before it can go on, 0 if that is not known.
    """

    def __init__(self, file_types: FileTypes, scrambler: Scrambler) -> None:
        self.file_types: FileTypes = file_types
        self.packer: Packer = Packer(scrambler, file_types.limit)
        self.scrambler: Scrambler = scrambler
        self.decoder: Decoder = Decoder(file_types)  # says what is wrong
        self.nothing: Sink = Sink()
        self.stream: _Streams | None = None
        self.done: bool = False
        self.need: i64 = 0
        self.paused: bool = False  # never, which decoders that hold what they read may be
        self.all_parts: list[bytes] = [b""] * 256
        self.scramblers: list[int] = [0] * 256
        self.singles: list[bool] = [False] * 256
        for t in file_types.types.values():
            self.all_parts[t.id] = _parts_of(t)
            self.scramblers[t.id] = scrambler_of(t)
            self.singles[t.id] = t.shape in _SINGLE
        self.shape: i64 = 0
        self.packing: i64 = 0  # how what is packed is scrambled
        self.heading: i64 = 0  # bytes in front of its count or string
        self.zset: bool = False
        self.parts: bytes = b""
        self.part: i64 = 0
        self.left: i64 = -1  # elements; -1 before their count
        self.inside: i64 = 0  # bytes left of a long string
        self.before: i64 = 0  # the byte in front of them
        # how far the two have come beyond what `feed` said
        self.ahead: i64 = 0
        self.checked: i64 = 0

    def begin(self, type_code: i64) -> None:
        """Make ready for a value of this type."""
        if type_code >= STRING_INT:
            type_code = 0
        self.shape = self.file_types.shapes[type_code]
        self.zset = self.file_types.types[type_code].type == "zset"
        self.done = False
        self.need = 0
        self.part = 0
        self.left = 1 if self.singles[type_code] else -1
        self.inside = 0
        self.ahead = 0
        self.checked = 0
        if self.shape == STREAM:
            level = self.file_types.levels[type_code]
            self.stream = _Streams(level, self.file_types.packed_limit, self.file_types.budget, self.packer)
            return
        self.parts = self.all_parts[type_code]
        self.packing = self.scramblers[type_code]
        self.heading = self.file_types.heads[type_code]
        self.decoder.begin(type_code)

    def whole(self, type_code: i64, buf: bytes, pos: i64, end: i64, out: BytesWriter) -> None:
        """Write the value `buf[pos:end]`.

        Raises: RdbError without a place where it is damaged, and maybe half of it is written.
        """
        self.begin(type_code)
        stop: i64 = self.feed(buf, pos, out)
        if not self.done or stop != end:
            raise CorruptError("its parts do not end where the value ends", rule="value-end")

    def feed(self, buf: bytes, pos: i64, out: BytesWriter) -> i64:
        """Write what is complete in `buf` from `pos` on; return where the first incomplete part begins.

        Raises: RdbError without a place.
        """
        stream = self.stream
        if self.shape == STREAM:
            assert stream is not None
            stream.out = out
            pos = stream.feed(buf, pos, self.nothing)
            self.done = stream.done
            self.need = stream.need
            return pos
        at: i64 = pos + self.ahead
        seen: i64 = pos + self.checked
        decoder = self.decoder
        is_string = self.shape == STRING  # nothing to be checked but its LZF, and too large to be kept whole
        self.need = 0
        if not is_string and not decoder.done:
            seen = decoder.feed(buf, seen, self.nothing)
        at = self.write(buf, at, out)
        stop: i64 = at if is_string or at < seen else seen
        self.ahead = at - stop
        self.checked = 0 if is_string else seen - stop
        if not is_string and decoder.need > 0:
            self.need = decoder.need + self.checked
        elif self.need > 0:
            self.need += self.ahead
        self.done = self.left == 0 and self.inside == 0 and (is_string or decoder.done)
        return stop

    def write(self, buf: bytes, pos: i64, out: BytesWriter) -> i64:
        """`feed`, for what has been checked."""
        try:
            if self.left < 0:
                pos = self.head(buf, pos, out)
            count: i64 = len(self.parts)
            while True:
                if self.inside > 0:
                    pos = self.piece(buf, pos, out)
                    continue
                if self.left == 0:
                    return pos
                pos = self.one(buf, pos, self.parts[self.part], out)
                self.part += 1
                if self.part == count:
                    self.part = 0
                    self.left -= 1
        except IndexError:
            return pos

    def lack(self, need: i64) -> None:
        """Leave off until `need` bytes from the part's begin on are there."""
        self.need = need
        raise IndexError

    def head(self, buf: bytes, pos: i64, out: BytesWriter) -> i64:
        """What precedes the elements."""
        begin: i64 = pos
        n: i64
        if self.heading > 0:
            buf[pos + self.heading]
            pos += self.heading
        n, pos = read_length(buf, pos)
        if self.shape == ARRAY:
            has_index, pos = read_length(buf, pos)
            if has_index:
                pos = skip_length(buf, pos)
                buf[pos - 1]
        out.write(buf[begin:pos])
        self.left = n
        return pos

    def piece(self, buf: bytes, pos: i64, out: BytesWriter) -> i64:
        """The next piece of a long string."""
        size: i64 = min(self.inside, PIECE)
        if pos + size > len(buf):
            self.lack(size)
        data = buf[pos : pos + size]
        out.write(self.scrambler.piece(data, self.before))
        self.before = data[size - 1]
        self.inside -= size
        return pos + size

    def ready(self, buf: bytes, pos: i64, begin: i64) -> i64:
        """The end of the string at `pos`, of a part that begins at `begin`; of a long string, where its content begins."""
        stop: i64
        if buf[pos] < 0xC0:
            n, stop = read_length(buf, pos)
            if n > PIECE:
                return stop
            stop += n
        else:
            stop = skip_string(buf, pos)
        if stop > len(buf):
            self.lack(stop - begin)
        return stop

    def text(self, buf: bytes, pos: i64, out: BytesWriter, unique: bool) -> i64:
        """The string at `pos`, or only the head of a long one."""
        if buf[pos] < 0xC0:
            n, start = read_length(buf, pos)
            if n > PIECE:
                out.write(buf[pos:start])
                self.inside = n
                self.before = 0
                return start
        return self.packer.string(buf, pos, out, unique)

    def one(self, buf: bytes, pos: i64, part: i64, out: BytesWriter) -> i64:
        """One part of an element; raises IndexError, with nothing written, where `buf` does not hold it."""
        begin: i64 = pos
        if part in (_MEMBER, _TEXT):
            self.ready(buf, pos, begin)
            return self.text(buf, pos, out, part == _MEMBER)
        if part == _BYTES:
            pos += 8
        elif part == _NUMBER:
            pos = skip_length(buf, pos)
        elif part == _SCORE:
            pos += 1 + (buf[pos] if buf[pos] < 253 else 0)
        elif part == _SECONDS:
            pos = skip_string(buf, pos)
        else:
            return self.rare(buf, pos, part, out)
        if pos > len(buf):
            self.lack(pos - begin)
        out.write(buf[begin:pos])
        return pos

    def rare(self, buf: bytes, pos: i64, part: i64, out: BytesWriter) -> i64:
        begin: i64 = pos
        if part == _NODE:
            pos = skip_container(buf, pos)
            if buf[pos - 1] != 1:
                return self.blob(buf, pos, begin, out)
            self.ready(buf, pos, begin)
            out.write(buf[begin:pos])
            return self.text(buf, pos, out, False)
        if part == _TAGGED:
            pos = skip_length(buf, pos)
            tag, pos = read_length(buf, pos)
            if tag == 1 or tag == 2:
                buf[pos + 7]
                out.write(buf[begin:pos])
                if tag == 1:
                    write_number(out, self.scrambler.integer(read_int64(buf, pos)), 8)
                else:
                    out.write(buf[pos : pos + 8])
                return pos + 8
            self.ready(buf, pos, begin)
            out.write(buf[begin:pos])
            return self.text(buf, pos, out, False)
        return self.blob(buf, pos + self.heading, begin, out)

    def blob(self, buf: bytes, pos: i64, begin: i64, out: BytesWriter) -> i64:
        stop: i64 = skip_string(buf, pos)
        if stop > len(buf):
            self.lack(stop - begin)
        out.write(buf[begin:pos])
        return self.packer.blob(self.packing, self.zset, buf, pos, out)


class AmongAttributes(LastRecord):
    """Keeps what is said of the record to come besides its attributes, for who reads the large ones himself."""

    def __init__(self) -> None:
        super().__init__()
        self.events: list[Event] = []

    def event(self, event: Event) -> None:
        if self.event_at < 0 and not isinstance(event, ModuleAux):
            self.events.append(event)

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        self.start = self.base + start
        self.end = self.base + end
        self.db_there = self.db
        self.events.clear()


class Redactor(Visitor):
    """Writes the blocks of a snapshot with names and values scrambled.

    Args:
        file_types: of the snapshot.
        limit: most bytes of a key's name.
        version: of the file's header, or the newest for a flavour that has no older ones.
        separator: names keep all up to the last one of these; b"" for nothing.
        keep_modules: values of modules are copied.
        wanted: which keys; None for all.

    Attributes:
        left_out: records that the selection left out.
        dropped: what is not written although it was wanted, by its kind; `dropped_keys` of it are keys.
    """

    def __init__(
        self,
        file_types: FileTypes,
        limit: int,
        version: int,
        scrambler: Scrambler,
        separator: bytes,
        keep_modules: bool,
        wanted: Filter | None,
    ) -> None:
        super().__init__()
        self.file_types: FileTypes = file_types
        self.limit: i64 = limit
        self.version: i64 = version
        self.scrambler: Scrambler = scrambler
        self.separator: bytes = separator
        self.values: Values = Values(file_types, scrambler)
        self.keep_modules: bool = keep_modules
        self.filter: Filter | None = wanted
        self.out: BytesWriter = BytesWriter()
        self.segments: list[Segment] = []
        self.out_db: int = 0
        self.keys: i64 = 0
        self.expires: i64 = 0
        self.declared_counts: tuple[int, int] | None = None
        self.has_selectdb: bool = False
        self.left_out: i64 = 0
        self.dropped: dict[str, int] = {}
        self.dropped_keys: i64 = 0
        self.needs_inspection: bool = False  # something stands among the attributes of the record to come
        self.metadata: bool = False
        self.last_written: bool = False
        self.dropped_as: list[str] = [""] * 256  # what a type that is left out is called
        for t in file_types.types.values():
            self.dropped_as[t.id] = self.called(t)
        self.database()

    def begin(self, offset: int, db: int) -> None:
        """A piece of the file comes, `offset` bytes from its begin, and nothing was seen of what precedes it."""
        self.base = offset
        self.db = db
        self.out_db = db
        self.out.truncate(0)
        self.declared_counts = None
        self.has_selectdb = False
        self.keys = 0
        self.expires = 0
        self.left_out = 0
        self.dropped = {}
        self.dropped_keys = 0
        self.end_record(False)
        self.database()

    def called(self, t: c.ValueType) -> str:
        if t.shape == "module":
            return "" if self.keep_modules else "module"
        if t.type in ("cron", "json"):
            return t.type
        return "template-hash" if t.shape in _TEMPLATES else ""

    def drop(self, kind: str) -> None:
        """Count something that is left out."""
        self.dropped[kind] = self.dropped.get(kind, 0) + 1

    # -- the frame of blocks

    def leave(self, pos: i64) -> None:
        if self.keys > 0 or not self.has_selectdb:  # what precedes a database's first key waits for it
            self.end_segment()

    def end_segment(self) -> None:
        if len(self.out) > 0:
            self.segments.append(
                Segment(
                    self.out_db, self.out.getvalue(), int(self.keys), int(self.expires), self.declared_counts, self.has_selectdb
                )
            )
            self.out.truncate(0)
        self.keys = 0
        self.expires = 0

    def take(self) -> list[Segment]:
        """What there is to be written since the last call."""
        segments = self.segments
        self.segments = []
        return segments

    # -- what stands around records

    def database(self) -> None:
        if self.filter is not None:
            self.filter.database(int(self.db))

    def event(self, event: Event) -> None:
        among = self.event_at < 0
        if among:
            self.needs_inspection = True
        if isinstance(event, KeyMetadata):
            self.metadata = True
        elif isinstance(event, SelectDb):
            self.end_segment()
            self.out_db = event.db
            self.declared_counts = None
            self.has_selectdb = True
        elif isinstance(event, ResizeDb):
            self.end_segment()
            self.declared_counts = (event.keys, event.expires)
        elif isinstance(event, Aux):
            self.aux(event, among)
        elif isinstance(event, SlotInfo) and not among:
            self.out.write(self.buf[self.event_at : self.event_end])
        else:
            self.drop(_EVENTS[type(event)])

    def aux(self, event: Aux, among: bool) -> None:
        if event.key in HARMLESS and not among:
            self.out.write(self.buf[self.event_at : self.event_end])
        elif event.key.startswith(c.MEMBER_EXPIRY):
            if self.last_written and event.key.endswith(b"-when"):
                self.drop("member-expiry")
        else:
            self.drop("script" if event.key == c.SCRIPT else "aux")

    # -- records

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        buf = self.buf
        if self.filter is not None and not self.filter.wants(buf, key_at, type_code, end - start, expire_ms):
            self.leave_out()
            return
        number: i64 = 0 if type_code >= STRING_INT else type_code
        if self.drops(number):
            return
        if int(self.db) != self.out_db:
            self.end_segment()
            self.out_db = int(self.db)
            self.declared_counts = None
        out = self.out
        try:
            self.attributes(buf, start, key_at - 1, expire_ms)
            out.append(int(number))
            self.name(buf, key_at, value_at)
            if self.file_types.shapes[number] == MODULE:
                out.write(buf[value_at:end])
            else:
                self.values.whole(type_code, buf, value_at, end, out)
        except RdbError as e:
            raise self.add_location(e, number, self.base + start, self.name_of(buf, key_at)) from None
        except IndexError:  # which a scan would take for the block's end
            early = CorruptError("its parts do not end where the value ends", rule="value-end")
            raise self.add_location(early, number, self.base + start, self.name_of(buf, key_at)) from None
        self.keys += 1
        if expire_ms != NO_EXPIRY:
            self.expires += 1
        self.end_record(True)

    def leave_out(self) -> None:
        """The selection does not want the record at hand."""
        self.left_out += 1
        self.end_record(False)

    def drops(self, type_code: i64) -> bool:
        """Whether records of this type are left out; counts this one."""
        name = self.dropped_as[type_code]
        if not name:
            return False
        self.drop(name)
        self.dropped_keys += 1
        self.end_record(False)
        return True

    def name_of(self, buf: bytes, key_at: i64) -> bytes:
        key, _ = read_string(buf, key_at, self.limit)
        return key

    def end_record(self, written: bool) -> None:
        """Nothing of what was special to the last record is so of the next."""
        if self.metadata and written:
            self.drop("key-metadata")
        self.metadata = False
        self.needs_inspection = False
        self.last_written = written

    def add_location(self, e: RdbError, type_code: i64, offset: i64, key: bytes) -> RdbError:
        """Give an error its place."""
        if e.source is None:
            e.source = self.file_types.source
            e.offset, e.db, e.key = int(offset), int(self.db), key
            e.reading = f"a {self.file_types.types[type_code].name}"
        return e

    def attributes(self, buf: bytes, start: i64, end: i64, expire_ms: i64) -> None:
        """What precedes a record's type, in `buf[start:end]`."""
        out = self.out
        if not self.needs_inspection:
            if end > start:
                out.write(buf[start:end])
            return
        if expire_ms != NO_EXPIRY:
            write_expiry(out, expire_ms, self.version < _MILLISECONDS_SINCE)
        if self.version < _HINTS_SINCE:
            return
        if self.idle_s >= 0:
            out.append(c.IDLE)
            write_length(out, self.idle_s)
        if self.freq >= 0:
            out.append(c.FREQ)
            out.append(int(self.freq))

    def name(self, buf: bytes, key_at: i64, value_at: i64) -> None:
        """The key's name, in the form that it has."""
        out = self.out
        name, _ = read_string(buf, key_at, self.limit)
        new = self.new_name(name)
        first: i64 = buf[key_at]
        if first < 0xC0:
            _, start = read_length(buf, key_at)
            out.write(buf[key_at:start])
            out.write(new)
        elif first == 0xC3:
            self.values.packer.pack(new, out)
        else:
            form = integer_form(new)
            if form is None:  # it keeps a sign as its prefix
                write_length(out, len(new))
                out.write(new)
            elif len(form) > value_at - key_at:
                out.write(form)
            else:
                out.append(buf[key_at])
                write_number(out, int(new), value_at - key_at - 1)

    def new_name(self, name: bytes) -> bytes:
        """What a key is called now."""
        kept = 0
        if self.separator:
            at = name.rfind(self.separator)
            kept = 0 if at < 0 else at + len(self.separator)
        return name[:kept] + self.scrambler.name(name[kept:])

    # -- records larger than a block

    def large_head(self, type_code: i64, key: bytes, head: bytes, expire_ms: i64) -> bytes:
        """What precedes a large value, and what waited for it; `head` is what stood there."""
        out = self.out
        if int(self.db) != self.out_db:
            self.end_segment()
            self.out_db = int(self.db)
            self.declared_counts = None
        type_at: i64 = 0
        if not self.needs_inspection:
            type_at = attributes_end(head)
        self.attributes(head, 0, type_at, expire_ms)
        out.append(int(type_code))
        if self.needs_inspection:
            new = self.new_name(key)
            write_length(out, len(new))
            out.write(new)
        else:
            self.name(head, type_at + 1, len(head))
        found = out.getvalue()
        out.truncate(0)
        return found


_EVENTS: Final[dict[type, str]] = {
    FunctionLibrary: "function",
    ModuleAux: "module-aux",
    HashTemplate: "hash-template",
    SlotImport: "slot-import",
    SlotInfo: "slot-info",
    EnterpriseHint: "enterprise-hint",
}

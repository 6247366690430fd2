"""Finding records in a block of bytes, and reporting each to a `Visitor`. Nothing is decoded here.

The one loop that every verb runs for every key, and therefore long and plain: what it does once a record is paid a billion
times on a large file. What is rare stands in methods of its own.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from rdbkit.errors import CorruptError, LimitError, RdbError, TruncatedError, UnsupportedTypeError
from rdbkit.format import constants as c
from rdbkit.format.budget import DATABASE, NAME, OBJECT, Budget
from rdbkit.format.compiled import COMPILED
from rdbkit.format.primitives import read_int64, read_length, read_string, read_uint64, skip_length, skip_string
from rdbkit.format.skip import ValueSkipper, compile_layout, skip_short
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
    function_library,
    module_name,
)

if TYPE_CHECKING:
    from mypy_extensions import i64

#: How a string stands in the file, given to `Visitor.record` as `type_code` in place of type 0.
STRING_INT: Final = 256
STRING_LZF: Final = 257
TYPE_CODES: Final = 258  # how many there are, with these two

#: Interpreted, this reads a number six times faster than shifts; compiled, slower.
_INT64: Final = struct.Struct("<q").unpack_from

NO_EXPIRY: Final = -1
_RANGE: Final = 140  # bytes that a pair of slots takes
_AS_TEXT: Final = 6  # an AUX field is kept as it stands, as bytes and as text, whose letters have up to four bytes
_NOT_COMPLETE: Final = -1
_FINISHED: Final = -2
_OPCODES: Final = 65  # type bytes from here on are opcodes
_EXPIRETIME_MS: Final = 252
#: What KeyDB writes between the expiry and the type of each key; it stays there.
_OF_RECORD: Final = b"mvcc-tstamp"


class Visitor:
    """Callbacks of a scan. Positions are relative to `buf`; `base` is the offset of its first byte in the input.

    Attributes:
        db: database of the records that follow.
        idle_s, freq: of the record being reported; -1 for none.
        event_at, event_end: where the event being reported stands in `buf`; both -1 for what belongs to a record and stands
            among its attributes, and for module data larger than a block.
        strays: of the record being reported, what stood among its attributes without being one, and is reported before it:
            offsets in the input of the begin and end of each.
        wants_module_data: module data outside of keys that is larger than a block is to be read as a record is.
        budget: what is held of the file, where what this holds is to be counted.
    """

    def __init__(self) -> None:
        self.buf: bytes = b""
        self.base: i64 = 0
        self.db: i64 = 0
        self.idle_s: i64 = -1
        self.freq: i64 = -1
        self.event_at: i64 = -1
        self.event_end: i64 = -1
        self.strays: list[tuple[int, int]] = []
        self.wants_module_data: bool = False
        self.budget: Budget = Budget()

    def stray_bytes(self) -> int:
        """Bytes among those of the record being reported that are not its own: so much further it reaches in the input."""
        size = 0
        for begin, end in self.strays:
            size += end - begin
        return size

    def enter(self, pos: i64) -> None:
        """A scan of `buf` begins at `pos`, or goes on there."""

    def leave(self, pos: i64) -> None:
        """The scan has reported all before `pos`; the end mark of the RDB does not count as reported."""

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        """A record that lies in `buf[start:end]`: expiry and the like, type byte, key at `key_at`, value at `value_at`."""

    def large(self, type_code: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        """A record larger than a block has been read: `size` bytes from `offset` on; `head` begins its value."""

    def strayed(self) -> None:
        """The last record, which `record` reported, had `strays`."""

    def event(self, event: Event) -> None:
        """Anything that is not a record."""

    def database(self) -> None:
        """`db` has changed."""


class LastRecord(Visitor):
    """Keeps where a block's last record begins and ends, as offsets in the input (-1: has not met one), and the database there.

    Args:
        hashes: takes database and name of every key, None where nobody wants them.
        limit: most bytes of a key's name.
    """

    def __init__(self, hashes: Any = None, limit: int = 0) -> None:
        super().__init__()
        self.hashes: Any = hashes
        self.limit: i64 = limit
        self.start: i64 = -1
        self.end: i64 = -1
        self.db_there: i64 = 0

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        self.start = self.base + start
        self.end = self.base + end
        self.db_there = self.db
        if self.hashes is not None:
            self.hashes.add(int(self.db), read_string(self.buf, key_at, self.limit)[0])

    def large(self, type_code: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        if self.hashes is not None:
            self.hashes.add(int(self.db), key)


class Prelude(Visitor):
    """Keeps what stands before the keys, and its bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[Event, bytes]] = []

    def event(self, event: Event) -> None:
        self.found.append((event, self.buf[self.event_at : self.event_end]))


class HintFinder(Visitor):
    """Sees whether there are hints of Redis Enterprise."""

    def __init__(self) -> None:
        super().__init__()
        self.found: bool = False

    def event(self, event: Event) -> None:
        if isinstance(event, EnterpriseHint):
            self.found = True


class Scanner:
    """Scans the blocks of one file one after the other.

    A server takes an opcode between the attributes of a key (expiry, idle time and the like) and its type, a new database among
    them, as if it preceded the attributes. So that is how it is reported to visitors: first each such event, as a block of
    its own, then the record, in a block that has nothing else.

    Args:
        flavour, version: from the file's header; they decide what numbers mean.
        limit: most bytes that a key, an AUX field or a function may have.
        budget: of the file; what it says besides its keys is counted in it.

    Attributes:
        head: of the record that `open_large` found, the bytes in front of its value.
        reordered: whether anything stood among attributes, or attributes in front of no record.
    """

    def __init__(self, flavour: str, version: int, limit: int, budget: Budget | None = None) -> None:
        self.flavour: str = flavour
        self.version: i64 = version
        self.limit: i64 = limit
        self.budget: Budget = Budget() if budget is None else budget
        self.skipper: ValueSkipper = ValueSkipper()
        self.programs: list[bytes] = [b""] * 256
        single = bytearray(256)
        for t in c.value_types(flavour, version).values():
            self.programs[t.id] = compile_layout(t.layout)
            single[t.id] = t.layout == "s"
        self.single: bytes = bytes(single)
        self.module_layout: bytes = compile_layout("m")
        self.metadata_layout: bytes = compile_layout("*(wm)")
        self.templates: dict[int, tuple[bytes, ...]] = {}
        self.finished: bool = False
        self.start: i64 = 0
        self.pending: bool = False
        self.expire_ms: i64 = NO_EXPIRY
        self.held: list[Event] = []
        self.strays: list[tuple[Event, int, int]] = []  # and where they begin and end
        self.reordered: bool = False
        self.head: bytes = b""
        self.type_code: i64 = 0
        self.key: bytes = b""
        self.db: int = 0
        self.in_prelude: bool = False
        self.waiting: i64 = 0  # bytes that `held` and `strays` take
        self.databases: set[int] = set()
        self.counted: i64 = 0  # in the budget

    def restart(self) -> None:
        """Forget the file's end and what an item that was left half read said: another part of it comes."""
        self.finished = False
        self.pending = False
        self.held = []
        self.strays = []
        self.waiting = 0
        self.databases.clear()
        self.budget.give_back(self.counted)
        self.counted = 0

    def scan(self, buf: bytes, pos: i64, room: i64, visitor: Visitor) -> i64:
        """Tell `visitor` of all that lies complete in `buf` from `pos` on; return where the first incomplete item begins.

        `finished` is set once the end of the RDB has been read.

        Args:
            room: where the input ends, relative to `buf`, or a huge number where that is not known.

        Raises: RdbError with `offset` relative to `buf`.
        """
        visitor.buf = buf
        visitor.budget = self.budget
        visitor.enter(pos)
        pos = self.scan_block(buf, pos, room, visitor)
        visitor.leave(pos - 1 if self.finished else pos)
        return pos

    def scan_block(self, buf: bytes, pos: i64, room: i64, visitor: Visitor) -> i64:
        """`scan` without its frame."""
        self.in_prelude = False
        end: i64 = len(buf)
        start: i64 = pos
        self.start = pos
        type_code: i64
        first: i64
        expire_ms: i64
        single = self.single
        skipper = self.skipper
        try:
            while True:
                start = pos
                type_code = buf[pos]
                pos += 1
                expire_ms = NO_EXPIRY
                if type_code >= _OPCODES:
                    if type_code == _EXPIRETIME_MS and buf[pos + 8] < _OPCODES:
                        expire_ms = read_int64(buf, pos) if COMPILED else _INT64(buf, pos)[0]
                        type_code = buf[pos + 8]
                        pos += 9
                    else:
                        pos = self.opcodes(buf, start, room, visitor)
                        if pos < 0:
                            return self.start
                        start = self.start
                        expire_ms = self.expire_ms
                        type_code = buf[pos]
                        pos += 1
                key_at: i64 = pos
                first = buf[pos]
                if first < 0x40:
                    pos += first + 1
                elif self.programs[type_code]:
                    pos = skip_string(buf, pos)
                else:
                    raise self.unknown(type_code, key_at - 1)
                value_at: i64 = pos
                if type_code == 0 or single[type_code]:
                    first = buf[pos]
                    if first < 0x40:
                        pos += first + 1
                    elif first < 0x80:
                        pos += 2 + ((first & 0x3F) << 8 | buf[pos + 1])
                    elif type_code == 0 and 0xC0 <= first < 0xC3:
                        pos += 2 if first == 0xC0 else 3 if first == 0xC1 else 5
                        type_code = STRING_INT
                    else:
                        pos = skip_string(buf, pos)
                        if type_code == 0 and first == 0xC3:
                            type_code = STRING_LZF
                    if pos > end:
                        if pos > room:
                            raise TruncatedError(f"the file ends at least {pos - room} bytes too early", offset=value_at)
                        return start
                else:
                    program = self.programs[type_code]
                    if not program:
                        raise self.unknown(type_code, key_at - 1)
                    pos = skip_short(buf, value_at, program)
                    if pos < 0 or pos > end:
                        skipper.begin(program)
                        pos = skipper.advance(buf, value_at, room)
                        if not skipper.done:
                            if skipper.skip > room - end:
                                raise TruncatedError(
                                    f"the file ends at least {skipper.skip - (room - end)} bytes too early", offset=value_at
                                )
                            return start
                if self.pending:
                    if self.strays:
                        self.apart(buf, type_code, start, key_at, value_at, pos, expire_ms, visitor)
                    else:
                        self.release(visitor)
                        visitor.record(type_code, start, key_at, value_at, pos, expire_ms)
                    visitor.idle_s = -1
                    visitor.freq = -1
                else:
                    visitor.record(type_code, start, key_at, value_at, pos, expire_ms)
        except IndexError:
            self.start = start
            return start
        except RdbError:
            if self.start < start:  # else opcodes() knows better where the item begins
                self.start = start
            raise

    def unknown(self, type_code: i64, pos: i64) -> UnsupportedTypeError:
        """The error for a byte that is neither an opcode nor a type of this file's version."""
        number = int(type_code)
        name, remedy = c.NAMED_OPCODES.get(number, (c.NAMED_TYPES.get(number, ""), ""))
        if name:
            e = UnsupportedTypeError(f"{name} cannot be read", offset=pos)
            e.what = name
        else:
            what = "opcode" if type_code >= 128 or number in c.OPCODE_NAMES else "value type"
            e = UnsupportedTypeError(f"{what} {type_code} is unknown in {self.flavour} RDB {self.version}", offset=pos)
            e.what = f"{what} {type_code}"
        if remedy:
            e.remedy = remedy
        return e

    def apart(
        self, buf: bytes, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64, visitor: Visitor
    ) -> None:
        """Report a record, and before it what stands among its attributes without being one."""
        base: i64 = visitor.base
        visitor.leave(start)
        head = self.attributes(buf, start, key_at - 1)
        self.report_strays(buf, visitor)
        by: i64 = len(head) - (key_at - 1)
        visitor.buf = head + buf[key_at - 1 : end]
        visitor.base = base + start
        visitor.enter(0)
        try:
            self.release(visitor)
            visitor.record(type_code, 0, key_at + by, value_at + by, end + by, expire_ms)
            visitor.strayed()
            visitor.leave(end + by)
        except RdbError as e:
            if e.source is None and e.offset is not None:
                e.offset += int(start)
            raise
        finally:
            visitor.strays = []
            visitor.buf = buf
            visitor.base = base
        visitor.enter(end)

    def attributes(self, buf: bytes, start: i64, end: i64) -> bytes:
        """What `buf[start:end]` has besides `strays`."""
        parts = []
        for _, begin, stop in self.strays:
            parts.append(buf[start:begin])
            start = stop
        parts.append(buf[start:end])
        return b"".join(parts)

    def report_strays(self, buf: bytes, visitor: Visitor) -> None:
        """Report what stands among attributes without being one, each as a block of its own; `buf` and `base` change."""
        base: i64 = visitor.base
        visitor.strays = [(int(base + begin), int(base + end)) for _, begin, end in self.strays]
        for event, begin, end in self.strays:
            visitor.buf = buf[begin:end]
            visitor.base = base + begin
            visitor.event_at = 0
            visitor.event_end = end - begin
            if isinstance(event, SelectDb):
                visitor.db = event.db
                visitor.database()
            visitor.enter(0)
            visitor.event(event)
            visitor.leave(end - begin)
        self.strays = []
        self.reordered = True

    def release(self, visitor: Visitor) -> None:
        """Report what belongs to the record that now is complete, and stands among its attributes."""
        self.pending = False
        visitor.event_at = -1
        visitor.event_end = -1
        for event in self.held:
            visitor.event(event)
        self.held = []
        self.waiting = 0

    def prelude(self, buf: bytes, pos: i64, room: i64, visitor: Visitor) -> i64:
        """Report what precedes the first database: AUX, functions, module data. Returns as `scan` does."""
        visitor.buf = buf
        self.in_prelude = True
        while True:
            self.start = pos
            if pos >= len(buf) or buf[pos] not in (c.AUX, c.FUNCTION2, c.FUNCTION_PRE_GA, c.MODULE_AUX):
                return pos
            self.held = []
            self.strays = []
            self.waiting = 0
            self.pending = False
            try:
                end = self.opcode(buf, pos, room, visitor)
            except IndexError:
                return pos
            if end < 0:
                return pos
            pos = end

    def opcodes(self, buf: bytes, pos: i64, room: i64, visitor: Visitor) -> i64:
        """Read opcodes from `pos` on up to a value's type byte.

        Returns its position, or a negative number: incomplete, or the file's end. `start` moves behind everything that is no
        attribute of the record to come.
        """
        self.start = pos
        self.pending = False
        self.held = []
        self.strays = []
        self.waiting = 0
        self.expire_ms = NO_EXPIRY
        visitor.idle_s = -1
        visitor.freq = -1
        try:
            while buf[pos] >= _OPCODES:
                pos = self.opcode(buf, pos, room, visitor)
                if pos < 0:
                    return pos
                if not self.pending:
                    self.start = pos
        except IndexError:
            return _NOT_COMPLETE
        return pos

    def report_event(self, visitor: Visitor, event: Event, begin: i64, end: i64) -> None:
        if not self.pending:
            visitor.event_at = begin
            visitor.event_end = end
            visitor.event(event)
        elif isinstance(event, Aux) and event.key == _OF_RECORD:
            self.wait(event, begin, end)
            self.held.append(event)
        else:
            self.wait(event, begin, end)
            self.strays.append((event, int(begin), int(end)))

    def wait(self, event: Event, begin: i64, end: i64) -> None:
        """Count an event that is held until the record is complete among whose attributes it stands.

        Raises: LimitError.
        """
        self.waiting += end - begin + OBJECT
        if isinstance(event, Aux):
            self.waiting += len(event.key) + len(event.value)
        try:
            self.budget.check("attributes of a key", self.waiting)
        except LimitError as e:
            e.offset = int(begin)
            raise

    def opcode(self, buf: bytes, pos: i64, room: i64, visitor: Visitor) -> i64:
        """Read one opcode; return its end, or a negative number as `opcodes` does."""
        begin: i64 = pos
        op: i64 = buf[pos]
        pos += 1
        n: i64
        m: i64
        if op == c.EXPIRETIME_MS:
            self.expire_ms = read_int64(buf, pos)
            self.pending = True
            return pos + 8
        if op == c.EXPIRETIME:
            buf[pos + 3]
            self.expire_ms = int.from_bytes(buf[pos : pos + 4], "little", signed=True) * 1000
            self.pending = True
            return pos + 4
        if op == c.IDLE:
            visitor.idle_s, pos = read_length(buf, pos)
            self.pending = True
            return pos
        if op == c.FREQ:
            visitor.freq = buf[pos]
            self.pending = True
            return pos + 1
        if op == c.SELECTDB:
            n, pos = read_length(buf, pos)
            if n > 0x7FFFFFFF:
                raise CorruptError(f"database {n} cannot be", offset=begin)
            if n not in self.databases:
                self.spend(begin, "databases", DATABASE)
                self.databases.add(n)
            self.db = n
            if not self.pending:
                visitor.db = n
                visitor.database()
            self.report_event(visitor, SelectDb(n), begin, pos)
            return pos
        if op == c.RESIZEDB:
            n, pos = read_length(buf, pos)
            m, pos = read_length(buf, pos)
            self.report_event(visitor, ResizeDb(n, m), begin, pos)
            return pos
        if op == c.AUX:
            name, pos = read_string(buf, pos, self.limit)
            value, pos = read_string(buf, pos, self.limit)
            if self.in_prelude:
                self.spend(begin, "AUX fields", pos - begin + _AS_TEXT * (len(name) + len(value)))
            self.report_event(visitor, Aux(name, value), begin, pos)
            return pos
        if op == c.EOF:
            self.finished = True
            if self.pending:  # of no record
                base: i64 = visitor.base
                visitor.leave(self.start)
                self.release(visitor)
                self.report_strays(buf, visitor)
                visitor.strays = []
                visitor.buf = buf
                visitor.base = base
                visitor.enter(begin)
            self.start = pos
            return _FINISHED
        if op == c.SLOT_INFO:
            slot, pos = read_length(buf, pos)
            n, pos = read_length(buf, pos)
            m, pos = read_length(buf, pos)
            self.report_event(visitor, SlotInfo(slot, n, m), begin, pos)
            return pos
        if op == c.FUNCTION2:
            source, pos = read_string(buf, pos, self.limit)
            self.spend(begin, "function libraries", pos - begin + len(source))
            self.report_event(visitor, function_library(source), begin, pos)
            return pos
        if op == c.FUNCTION_PRE_GA:
            name, pos = read_string(buf, pos, self.limit)
            engine, pos = read_string(buf, pos, self.limit)
            n, pos = read_length(buf, pos)
            if n:
                _, pos = read_string(buf, pos, self.limit)
            source, pos = read_string(buf, pos, self.limit)
            self.spend(begin, "function libraries", pos - begin + len(source) + _AS_TEXT * (len(name) + len(engine)))
            text = name.decode("utf-8", "surrogateescape")
            self.report_event(visitor, FunctionLibrary(text, engine.decode("utf-8", "surrogateescape"), source, True), begin, pos)
            return pos
        if op == c.MODULE_AUX:
            module, when, pos = self.module_aux_head(buf, pos)
            self.skipper.begin(self.module_layout)
            pos = self.skipper.advance(buf, pos, room)
            if not self.skipper.done:
                return _NOT_COMPLETE
            self.spend(begin, "data of modules", pos - begin if self.in_prelude else 0)
            self.report_event(visitor, ModuleAux(module_name(module), module & 1023, when, int(pos - begin)), begin, pos)
            return pos
        if op == c.KEY_META and self.flavour == c.REDIS and (self.version >= 13):
            self.skipper.begin(self.metadata_layout)
            pos = self.skipper.advance(buf, pos, room)
            if not self.skipper.done:
                return _NOT_COMPLETE
            self.pending = True
            metadata = KeyMetadata(buf[begin + 1 : pos])
            self.wait(metadata, begin, pos)
            self.held.append(metadata)
            return pos
        if op == c.SLOT_IMPORT and self.flavour == c.VALKEY:
            return self.slot_import(buf, pos, room, visitor)
        if op == c.HASH_TEMPLATE and self.flavour == c.REDIS and self.version >= 15:
            return self.hash_template(buf, pos, room, visitor)
        if op == c.DRAGONFLY_MASK and self.flavour == c.REDIS and self.version <= 9:
            n = buf[pos]
            self.pending = True
            buf[pos + 3]
            return pos + 8 if n & 2 else pos + 4
        if (op == c.RAM_LRU or op == c.SLOT_NUMBER) and self.flavour == c.REDIS:
            number, pos = read_uint64(buf, pos)
            self.report_event(visitor, EnterpriseHint(int(op), number), begin, pos)
            return pos
        raise self.unknown(op, begin)

    def spend(self, begin: i64, what: str, size: i64) -> None:
        """Count what is kept until the file's end, by this scan or by its visitor.

        Raises: LimitError.
        """
        try:
            self.budget.spend(what, size + 2 * OBJECT)
        except LimitError as e:
            e.offset = int(begin)
            raise
        self.counted += size + 2 * OBJECT

    def module_aux_head(self, buf: bytes, pos: i64) -> tuple[int, int, i64]:
        """`(module id, when, end)` of module data, which says 1 or 2 for before or after the keys."""
        start: i64 = pos
        module, pos = read_uint64(buf, pos)
        opcode, pos = read_length(buf, pos)
        when, pos = read_length(buf, pos)
        if opcode != 2 or when < 1 or when > 2:
            raise CorruptError("module data does not say whether it stands before or after the keys", offset=start)
        return module, when, pos

    def slot_import(self, buf: bytes, pos: i64, room: i64, visitor: Visitor) -> i64:
        """Valkey's note of a slot import that was going on."""
        begin: i64 = pos - 1
        job, pos = read_string(buf, pos, self.limit)
        n, pos = read_length(buf, pos)
        if n > room - pos:
            raise CorruptError(f"announces {n} slot ranges, but {room - pos} bytes are left", offset=pos)
        self.budget.check("slot ranges", n * _RANGE)
        ranges: list[tuple[int, int]] = []
        while n > 0:
            first, pos = read_length(buf, pos)
            last, pos = read_length(buf, pos)
            if first > last or last > 16383:
                raise CorruptError(f"slot range {first}-{last} cannot be", offset=pos)
            ranges.append((first, last))
            n -= 1
        self.report_event(visitor, SlotImport(job, tuple(ranges)), begin, pos)
        return pos

    def hash_template(self, buf: bytes, pos: i64, room: i64, visitor: Visitor) -> i64:
        """Field names that hashes of RDB 15 refer to by number (read as public documents describe them)."""
        begin: i64 = pos - 1
        number, pos = read_length(buf, pos)
        n, pos = read_length(buf, pos)
        if n > room - pos or n == 0:
            raise CorruptError(f"announces {n} field names, but {room - pos} bytes are left", offset=begin + 1)
        fields: list[bytes] = []
        total: i64 = 0
        while n > 0:
            name, pos = read_string(buf, pos, self.limit)
            total += len(name) + NAME
            self.budget.check("hash templates", total)
            fields.append(name)
            n -= 1
        self.spend(begin, "hash templates", total)
        self.skipper.templates[number] = len(fields)
        self.templates[number] = tuple(fields)
        self.report_event(visitor, HashTemplate(number, tuple(fields)), begin, pos)
        return pos

    def open_large(self, buf: bytes, pos: i64, room: i64, visitor: Visitor) -> i64:
        """Read the head of an item that does not fit into a block, and make the skipper ready for the rest.

        Returns where the rest begins; -1 where `buf` does not hold the head. Sets `type_code` (MODULE_AUX for module data), `head`,
        `key` and `expire_ms`; of what stands among the record's attributes, `report_strays` and `release` report.
        """
        begin: i64 = pos
        try:
            if buf[pos] == c.MODULE_AUX:
                module, when, pos = self.module_aux_head(buf, pos + 1)
                self.type_code = c.MODULE_AUX
                self.held = [ModuleAux(module_name(module), module & 1023, when, 0)]
                self.skipper.begin(self.module_layout)
                self.head = buf[begin:pos]
                return pos
            pos = self.opcodes(buf, pos, room, visitor)
            if pos < 0 or self.start != begin:
                return _NOT_COMPLETE
            type_code: i64 = buf[pos]
            if not self.programs[type_code]:
                raise self.unknown(type_code, pos)
            type_at: i64 = pos
            self.key, pos = read_string(buf, pos + 1, self.limit)
            first: i64 = buf[pos]
            self.head = self.attributes(buf, begin, type_at) + buf[type_at:pos]
        except IndexError:
            return _NOT_COMPLETE
        if type_code == 0 and first >= 0xC0:
            type_code = STRING_LZF if first == 0xC3 else STRING_INT
            self.skipper.begin(self.programs[0])
        else:
            self.skipper.begin(self.programs[type_code])
        self.type_code = type_code
        return pos

    def context(self, buf: bytes) -> tuple[int, bytes | None]:
        """`(type byte or opcode, key or None)` of the item at `start`, for the words of an error."""
        scratch = Visitor()
        scratch.buf = buf
        pos = self.start
        try:
            if pos < len(buf) and buf[pos] < _OPCODES:
                pass
            elif pos < len(buf) and buf[pos] in (252, 253, 248, 249, 243, 220):
                begin = pos
                pos = self.opcodes(buf, pos, len(buf), scratch)
                self.start = begin
                if pos < 0:
                    return buf[begin], None
            else:
                return (buf[pos] if pos < len(buf) else -1), None
            type_code = buf[pos]
            try:
                key, _ = read_string(buf, pos + 1, self.limit)
            except IndexError:
                return type_code, None
            return type_code, key
        except Exception:
            return -1, None


def attributes_end(head: bytes) -> i64:
    """Where the type is in a record's beginning, after expiry, idle time and the like.

    Raises: CorruptError; IndexError where `head` ends too early.
    """
    at: i64 = 0
    while True:
        opcode: i64 = head[at]
        if opcode == c.EXPIRETIME_MS:
            at += 9
        elif opcode == c.EXPIRETIME:
            at += 5
        elif opcode == c.IDLE or opcode == c.RAM_LRU or opcode == c.SLOT_NUMBER:
            at = skip_length(head, at + 1)
        elif opcode == c.FREQ:
            at += 2
        elif opcode == c.DRAGONFLY_MASK:
            at += 9 if head[at + 1] & 2 else 5
        else:
            return at

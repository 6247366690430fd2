"""Copies each record of a snapshot to its part; compiled, since it runs once a record.

Records that follow each other and go to the same part are copied as one slice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from librt.strings import BytesWriter

from rdbkit.format import constants as c
from rdbkit.format.compiled import COMPILED
from rdbkit.format.constants import MEMBER_EXPIRY, ValueType
from rdbkit.format.primitives import read_string
from rdbkit.format.scan import NO_EXPIRY, STRING_INT, TYPE_CODES, Visitor
from rdbkit.format.slots import key_slot, slot_of, tag_slot_of
from rdbkit.model import Aux, EnterpriseHint, Event, HashTemplate, ResizeDb, SelectDb, SlotImport, SlotInfo
from rdbkit.passes.hashes import NameHashes

if TYPE_CHECKING:
    from mypy_extensions import i64

# By what a record's part is chosen.
BYTES: Final = 0  # parts of equal bytes
SLOT: Final = 1
DATABASE: Final = 2
TYPE: Final = 3
PREFIX: Final = 4
TAG: Final = 5
KEY: Final = 6

_BRACE: Final = b"{"
_SLOT_INFO: Final = b"slot-info"
_SELECTION: Final = 17  # bytes in front of the keys of a database: its number, and room for its counts
_MOST_IN_FRONT: Final = 1 << 20  # of fields in front of a key; more of them are none of its own
_REMEMBERED: Final = 16 << 20
_SMALL: Final = 1 << 12  # bytes of a block that are not worth a look at all of them


class PartBuffer:
    """What a part is to get next: records of one database.

    Attributes:
        keys, expires: records that have not been handed on, and how many of them expire.
        bytes: of all records so far, and what has to precede those of each database.
        db: of the last of them.
    """

    def __init__(self) -> None:
        self.out: BytesWriter = BytesWriter()
        self.keys: i64 = 0
        self.expires: i64 = 0
        self.bytes: i64 = 0
        self.db: i64 = -1


class Splitter(Visitor):
    """Sorts records into parts.

    Args:
        split_by: by what the part is chosen.
        parts: how many there are, where that is known; 0 where they are made as they are met.
        types: of the snapshot.
        limit: most bytes of a key's name.
        of_slot: for SLOT, the part of each slot.
        separators: for PREFIX, each of which ends the first part of a key's name.
        stretch: for BYTES, how many bytes go to a part before another one may be the smallest.
        capacity: for BYTES, how many bytes of records a part has room for; 0 for any number.
        everywhere: what stands between or behind the keys and belongs to none of them goes to all parts, not to the first alone.
        made: called with the label of a part that is met first; adds its buffer, and returns its number.
        leave_database: called before `db` changes; what the buffers have belongs to the database before.

    Attributes:
        buffers: of each part.
        notes: how often something was met that is left out, by its name.
        hashes: of the names of all keys.
    """

    def __init__(
        self,
        split_by: int,
        parts: int,
        types: dict[int, ValueType],
        limit: int,
        of_slot: list[int],
        separators: bytes,
        stretch: int,
        capacity: int,
        everywhere: bool,
        made: Any,
        leave_database: Any,
    ) -> None:
        super().__init__()
        self.wants_module_data = True
        self.split_by: i64 = split_by
        self.limit: i64 = limit
        self.buffers: list[PartBuffer] = [PartBuffer() for _ in range(parts)]
        self.of_slot: list[int] = of_slot
        self.separators: bytes = separators
        self.stretch: i64 = stretch
        self.capacity: i64 = capacity
        self.everywhere: bool = everywhere
        self.made: Any = made
        self.templates: list[bytes] = []  # of hashes (RDB 15), as the file has them
        self.leave_database: Any = leave_database
        self.names: list[str] = ["string" if type_code >= STRING_INT else "" for type_code in range(TYPE_CODES)]
        for type_code, value_type in types.items():
            self.names[type_code] = value_type.type
        self.known: dict[bytes, int] = {}
        self.part_of_type: list[int] = [-1] * TYPE_CODES
        self.of_db: dict[int, int] = {}
        self.first_parts: int = 0  # of BYTES: those that there were from the beginning; keys with tags are divided among these
        self.current: i64 = 0  # the part of the run at hand
        self.run_start: i64 = 0
        self.run_end: i64 = 0
        self.run_keys: i64 = 0
        self.run_expires: i64 = 0
        self.filling: i64 = 0  # of BYTES: the part that gets untagged keys now, until it has so many bytes
        self.fill_until: i64 = stretch
        self.tags: bool = False  # the block may have names with tags
        self.block: bytes = b""  # the last of which that is known, and whether it has
        self.block_tags: bool = False
        self.notes: dict[str, int] = {}
        self.front: bytes = b""  # fields that precede the record to come, and go with it
        self.seen: set[bytes] = set()  # what belongs to no key and has been handed on
        self.passed: list[bytes] = []  # of what goes everywhere, for parts that are made later
        self.seen_bytes: i64 = 0
        self.hashes: NameHashes = NameHashes()

    # -- the frame of blocks

    def enter(self, pos: i64) -> None:
        self.run_start = pos
        self.run_end = pos
        if len(self.buf) < _SMALL:
            self.tags = True
            return
        if self.buf is not self.block:
            self.block = self.buf
            self.block_tags = self.buf.find(_BRACE, pos) >= 0
        self.tags = self.block_tags

    def leave(self, pos: i64) -> None:
        self.end_run()

    def end_run(self) -> None:
        """Hand the run at hand to its part."""
        if self.run_end > self.run_start:
            buffer = self.buffers[self.current]
            buffer.out.write(self.buf[self.run_start : self.run_end])
            buffer.keys += self.run_keys
            buffer.expires += self.run_expires
        self.run_start = self.run_end
        self.run_keys = 0
        self.run_expires = 0

    # -- records

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        part: i64
        size: i64 = end - start + len(self.front)
        buf = self.buf
        if buf[key_at] < 0x40:
            key = buf[key_at + 1 : value_at]
        else:
            key, _ = read_string(buf, key_at, self.limit)
        self.hashes.add(self.db, key)
        if self.split_by == BYTES and not self.tags:
            part = -1
        elif COMPILED and self.split_by == SLOT and buf[key_at] < 0x40:
            slot: i64 = tag_slot_of(buf, key_at + 1, value_at) if self.tags else slot_of(buf, key_at + 1, value_at)
            part = self.of_slot[slot]
        else:
            part = self.part_of(type_code, key)
        if part < 0:
            if self.capacity > 0:
                self.make_room(size)
            part = self.filling
        if len(self.front) > 0:
            self.end_run()
            self.buffers[part].out.write(self.take_front())
        if part != self.current or start != self.run_end:
            self.end_run()
            self.current = part
            self.run_start = start
        self.run_end = end
        self.run_keys += 1
        if expire_ms != NO_EXPIRY:
            self.run_expires += 1
        buffer = self.buffers[part]
        buffer.bytes += size
        if buffer.db != self.db:
            buffer.db = self.db
            buffer.bytes += _SELECTION
        if part == self.filling and buffer.bytes >= self.fill_until and self.split_by == BYTES:
            self.fill_smallest()

    def part_of(self, type_code: i64, key: bytes) -> i64:
        """The part that a key belongs to; -1 where any will do."""
        split_by: i64 = self.split_by
        if split_by == SLOT:
            return self.of_slot[key_slot(key)]
        if split_by == BYTES:
            if not has_tag(key):
                return -1
            return key_slot(key) % self.first_parts
        if split_by == DATABASE:
            return self.part_of_database()
        if split_by == TYPE:
            part = self.part_of_type[type_code]
            if part < 0:
                part = self.part_named(self.names[type_code].encode())
                self.part_of_type[type_code] = part
            return part
        if split_by == KEY:
            return self.made(key)  # type: ignore[no-any-return]
        name = first_part(key, self.separators) if split_by == PREFIX else tag_of(key)
        return self.part_named(name)

    def part_named(self, name: bytes) -> i64:
        found = self.known.get(name)
        if found is None:
            number: int = self.made(name)
            self.known[name] = number
            return number
        return found

    def part_of_database(self) -> i64:
        number = int(self.db)
        found = self.of_db.get(number)
        if found is None:
            found = self.part_named(b"%d" % number)
            self.of_db[number] = found
        return found

    def grow(self, part: int, size: int) -> None:
        """A record that did not fit into a block has gone to a part."""
        buffer = self.buffers[part]
        buffer.bytes += size
        if buffer.db != self.db:
            buffer.db = self.db
            buffer.bytes += _SELECTION
        if self.split_by == BYTES and part == self.filling and buffer.bytes >= self.fill_until:
            self.fill_smallest()

    def make_room(self, size: i64) -> None:
        """Where the part that is being filled has no room, fill another one from now on, a new one if need be."""
        if self.has_room(size):
            return
        self.fill_smallest()
        if not self.has_room(size) and self.buffers[self.filling].bytes > 0:
            self.filling = self.made(b"")
            self.fill_until = self.stretch

    def has_room(self, size: i64) -> bool:
        return self.buffers[self.filling].bytes + size + _SELECTION <= self.capacity

    def fill_smallest(self) -> None:
        """The part with the fewest bytes gets the next stretch."""
        smallest: i64 = 0
        least: i64 = self.buffers[0].bytes
        for number in range(1, len(self.buffers)):
            if self.buffers[number].bytes < least:
                least = self.buffers[number].bytes
                smallest = number
        self.filling = smallest
        self.fill_until = least + self.stretch

    # -- what stands around records

    def event(self, event: Event) -> None:
        start: i64 = self.event_at
        end: i64 = self.event_end
        if start < 0:  # of a record, and copied with it
            return
        if isinstance(event, SelectDb):
            self.leave_front()
            self.end_run()
            self.leave_database()
            return
        raw = self.buf[start:end]
        if isinstance(event, HashTemplate):
            self.templates.append(raw)
            if self.capacity > 0:
                self.capacity = max(self.capacity - len(raw), 1)
            self.end_run()
            for buffer in self.buffers:
                buffer.out.write(raw)
            return
        if isinstance(event, ResizeDb):
            return
        if isinstance(event, Aux):
            self.field(event, raw)
        elif isinstance(event, SlotInfo):
            self.note("slot-info")  # a hint, and of the whole file
        elif isinstance(event, SlotImport):
            self.note("slot-import")
        elif isinstance(event, EnterpriseHint):
            self.note("enterprise-hint")
        else:
            self.pass_on(raw)

    def field(self, field: Aux, raw: bytes) -> None:
        """An AUX field among the records."""
        if field.key == _SLOT_INFO:
            self.note("slot-info")
        elif field.key.startswith(MEMBER_EXPIRY) and self.buffers:
            self.end_run()
            buffer = self.buffers[self.current]  # KeyDB says behind a key what it has to say of its members
            buffer.out.write(raw)
            buffer.bytes += len(raw)
        elif field.key != c.SCRIPT:
            self.front += raw  # as KeyDB says in front of a key when it was written
            if len(self.front) > _MOST_IN_FRONT:
                self.leave_front()
        else:
            self.pass_on(raw)

    def note(self, kind: str) -> None:
        self.notes[kind] = self.notes.get(kind, 0) + 1

    def take_front(self) -> bytes:
        """The fields in front of a record, which go with it."""
        front = self.front
        self.front = b""
        return front

    def leave_front(self) -> None:
        """No record follows the fields that might have been one's own."""
        if len(self.front) > 0:
            self.pass_on(self.take_front())

    def pass_on(self, raw: bytes) -> None:
        """Something that belongs to no key: the same bytes once, as far as what there was can be remembered."""
        if raw in self.seen:
            return
        if self.seen_bytes < _REMEMBERED:
            self.seen.add(raw)
            self.seen_bytes += len(raw) + 100
        self.end_run()
        if not self.buffers:
            self.part_named(b"")
        if self.everywhere:
            self.passed.append(raw)
        for buffer in self.buffers:
            buffer.out.write(raw)
            buffer.bytes += len(raw)
            if not self.everywhere:
                break


def has_tag(key: bytes) -> bool:
    """Whether a part of the name is a hash tag."""
    start: i64 = key.find(_BRACE)
    if start < 0:
        return False
    end: i64 = key.find(b"}", start)
    return end > start + 1


def tag_of(key: bytes) -> bytes:
    """The hash tag with its braces; empty where there is none.

    >>> tag_of(b"a{b}c"), tag_of(b"{}a"), tag_of(b"a")
    (b'{b}', b'', b'')
    """
    if not has_tag(key):
        return b""
    start: i64 = key.find(_BRACE)
    end: i64 = key.find(b"}", start)
    return key[start : end + 1]


def first_part(key: bytes, separators: bytes) -> bytes:
    """A key's name up to the first separator, which belongs to it; empty where there is none.

    >>> first_part(b"user:1:cart", b":"), first_part(b"solo", b":")
    (b'user:', b'')
    """
    for at in range(len(key)):
        if key[at] in separators:
            return key[: at + 1]
    return b""

"""Finding the records behind bytes that cannot be told apart; compiled, since it looks at every byte there.

A record is believed where a row of records begins with it, each of which keeps every rule of the format and has another name than
the ones before, or where the row leads to the end of the file. Nothing less will do: among a gigabyte of random bytes there are
millions that look like the beginning of a record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rdbkit.errors import CorruptError
from rdbkit.format import constants as c
from rdbkit.format.decode import Coding
from rdbkit.format.primitives import read_string
from rdbkit.format.scan import Visitor
from rdbkit.format.slots import SLOTS
from rdbkit.model import Aux, Event, ResizeDb, SelectDb, SlotInfo
from rdbkit.operations.verifier import Verifier

if TYPE_CHECKING:
    from mypy_extensions import i64

#: So many records make a row, with whatever stands between them.
ROW: Final = 8
_MEMBER_EXPIRY: Final = b"keydb-subexpire"
_DATABASES: Final = 1 << 14

# What a byte can begin.
_TYPE: Final = 1
_OPCODE: Final = 2
_END: Final = 3  # of a file; nothing begins with it that could be looked for


class Enough(Exception):
    """The row is as long as it has to be."""


def beginnings(coding: Coding) -> bytes:
    """For each byte, what it can begin in files of this coding: 0 for nothing."""
    table = bytearray(256)
    for kind in coding.types:
        table[kind] = _TYPE
    for opcode in c.OPCODE_NAMES:
        table[opcode] = _OPCODE
    table[c.EOF] = _END
    return bytes(table)


def next_beginning(buf: bytes, pos: i64, table: bytes) -> i64:
    """The first position from `pos` on at which a record, or what stands between records, may begin; -1 where there is none.

    Most positions are ruled out here, by a look at a few bytes; what cannot be seen since `buf` ends is not ruled out.
    """
    end: i64 = len(buf)
    what: i64
    kind: i64
    first: i64
    stop: i64
    while pos < end:
        kind = buf[pos]
        what = table[kind]
        if what == 0 or what == _END:
            pos += 1
            continue
        if pos + 1 >= end:
            return pos
        first = buf[pos + 1]
        if what == _OPCODE:
            if kind == c.EXPIRETIME_MS:
                # no time that is counted in milliseconds has more than 48 bits
                if pos + 9 >= end or (buf[pos + 7] == 0 and buf[pos + 8] == 0 and table[buf[pos + 9]] != 0):
                    return pos
            elif kind == c.SELECTDB:
                if first < 0x80 and (pos + 2 >= end or first >= 0x40 or table[buf[pos + 2]] != 0):
                    return pos
            else:
                return pos
            pos += 1
            continue
        # a type, and a name behind it
        stop = -1
        if 0 < first < 0x40:
            stop = pos + 2 + first
        elif 0x40 <= first < 0x80:
            stop = pos + 3 + ((first & 0x3F) << 8 | buf[pos + 2]) if pos + 2 < end else end
        elif 0xC0 <= first < 0xC3:
            stop = pos + (3 if first == 0xC0 else 4 if first == 0xC1 else 6)
        elif first == 0xC3:
            stop = end
        if stop >= end:
            return pos
        if stop > 0:
            first = buf[stop]
            if kind != 0:
                if first != 0:
                    return pos
            elif first < 0x40 or first == 0xC0 or first == 0xC1 or first == 0xC2:
                stop += 1 + (first if first < 0x40 else 1 if first == 0xC0 else 2 if first == 0xC1 else 4)
                if stop >= end or table[buf[stop]] != 0:
                    return pos
            elif first <= 0x81 or first == 0xC3:
                return pos
        pos += 1
    return -1


class Row(Visitor):
    """Counts the records that keep the rules, up to `ROW`; then raises Enough.

    Attributes:
        plain: of a row of enough records, whether the first is a string and nothing else, as a field without an expiry looks in
            a hash that has some: its expiry 0 is the type byte of a string, its name and value are those of one.
        ends: where each ends.

    Args:
        coding: of the snapshot.
        limit: most bytes of a key's name.
    """

    def __init__(self, coding: Coding, limit: int) -> None:
        super().__init__()
        self.limit: i64 = limit
        self.verifier: Verifier = Verifier(coding, limit, True, None)
        self.count: i64 = 0
        self.plain: bool = False
        self.ends: list[int] = []
        self.names: set[bytes] = set()

    def begin(self) -> None:
        """Make ready for another row."""
        self.count = 0
        self.plain = False
        self.ends = []
        self.names.clear()
        self.db = 0

    def record(self, kind: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        name, _ = read_string(self.buf, key_at, self.limit)
        # zeros, and any other byte that repeats, make rows of such names
        if name in self.names or (not name and (self.count == 0 or end <= value_at + 1)):
            raise CorruptError("a name that is no good sign")
        self.names.add(name)
        verifier = self.verifier
        if verifier.checker.opens[kind]:
            verifier.checker.check(kind, self.buf, value_at, end)
        if self.count == 0:
            self.plain = self.buf[start] == 0
        self.ends.append(int(self.base + end + self.stray_bytes()))
        self.count += 1
        if self.count >= ROW:
            raise Enough

    def event(self, event: Event) -> None:
        if isinstance(event, SelectDb) and event.db >= _DATABASES:
            raise CorruptError("a database that no server has")
        if isinstance(event, SlotInfo) and event.slot >= SLOTS:
            raise CorruptError("a slot that no server has")


class Surveyor(Verifier):
    """Verifies records, and remembers where the last ones stood.

    Attributes:
        sound_to: where the last thing ends that could be told apart, as an offset in the input.
        bad: the last record broke a rule.
        plain: how many records are a string and nothing else, as `Row.plain`.
        announced: how many keys the file says that its databases have, as far as it could be read; -1 for nothing.
    """

    def __init__(self, coding: Coding, limit: int, tell: Any) -> None:
        super().__init__(coding, limit, True, tell)
        self.sound_to: i64 = 0
        self.announced: i64 = -1
        self.bad: bool = False
        self.plain: i64 = 0
        self.blank: bool = False  # the last record is three zeros: a string of no bytes under a name of no bytes
        self.spans: list[tuple[int, int]] = []
        self.kinds: list[int] = []  # their types

    def last(self) -> list[tuple[int, int]]:
        """Where the last records stand, fewer than make a row: offsets of their begin and end in the input."""
        return self.spans[-(ROW - 1) :]

    def record(self, kind: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        self.bad = False
        blank = kind == 0 and end == start + 3 and self.buf[key_at] == 0
        if blank and self.blank:
            self.kinds.pop()
            self.sound_to = self.spans.pop()[0]  # there can be one, but two are a stretch of zeros
            raise CorruptError("a stretch of zeros")
        self.blank = blank
        if self.buf[start] == 0:
            self.plain += 1
        super().record(kind, start, key_at, value_at, end, expire_ms)
        self.passed(kind, self.base + start, self.base + end + self.stray_bytes())

    def large(self, kind: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        self.bad = False
        super().large(kind, offset, key, size, expire_ms, head)
        self.passed(kind, offset, offset + size)

    def passed(self, kind: i64, start: i64, end: i64) -> None:
        self.sound_to = end
        self.spans.append((int(start), int(end)))
        self.kinds.append(int(kind))
        if len(self.spans) > 1024:
            self.spans = self.last()
            self.kinds = self.kinds[-len(self.spans) :]

    def event(self, event: Event) -> None:
        super().event(event)
        if self.event_at < 0:  # of a record
            return
        if not self.strays:  # else it stands inside of one
            self.sound_to = self.base + self.event_end
        if isinstance(event, ResizeDb):
            self.announced = max(self.announced, 0) + event.keys
        if self.bad and isinstance(event, Aux) and event.key.startswith(_MEMBER_EXPIRY):
            # KeyDB says behind a key when its members expire: of one that goes, it must not be said of the one before
            self.tell(None, None, int(self.base + self.event_at), int(self.event_end - self.event_at))

"""Finding the records behind bytes that cannot be parsed; compiled, since it looks at every byte there.

A record is believed where a row of records begins with it, each of which keeps every rule of the format and has another name than
the ones before, or where the row leads to the end of the file. Nothing less will do: among a gigabyte of random bytes there are
millions that look like the beginning of a record.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rdbkit.errors import CorruptError, RdbError, TruncatedError
from rdbkit.format import constants as c
from rdbkit.format.decode import FileTypes
from rdbkit.format.primitives import read_string
from rdbkit.format.scan import TYPE_CODES, Scanner, Visitor
from rdbkit.format.slots import SLOTS
from rdbkit.model import Aux, Event, HashTemplate, ResizeDb, SelectDb, SlotInfo
from rdbkit.passes.verify import Verifier

if TYPE_CHECKING:
    from mypy_extensions import i64

#: So many records make a row, with whatever stands between them.
ROW: Final = 8
#: What rows may take: for each byte of the file, and for each byte that is searched. A byte that is decoded is the unit.
_FUND: Final = 64
_INCOME: Final = 32
#: What an event, a record or an element takes besides its bytes; and how many bytes are copied for one unit, as a power of two.
_EVENT: Final = 8
_ELEMENT: Final = 2
_COPY: Final = 6
_STEPWISE: Final = bytes((c.EXPIRETIME_MS, c.EXPIRETIME, c.IDLE, c.FREQ, c.DRAGONFLY_MASK, c.KEY_META, c.HASH_TEMPLATE))
#: In so many bytes a row is looked for whatever it takes.
_LITTLE: Final = 64
#: Places at most of which it is kept that rows fail there.
_MOST_DEAD: Final = 1 << 18
#: A row of records is looked at in so many bytes, and in more where they do not hold it.
_ROW_BYTES: Final = 1 << 12
_MOST_ROW_BYTES: Final = 1 << 26
_PIECE: Final = 4 << 20
_DATABASES: Final = 1 << 14

# What a byte can begin.
_TYPE: Final = 1
_OPCODE: Final = 2
_END: Final = 3  # of a file; nothing begins with it that could be looked for
_HINT: Final = 4  # of Redis Enterprise: a letter, with which nothing begins that is worth looking for at each letter of a text


class Enough(Exception):
    """The row is as long as it has to be."""


def beginnings(file_types: FileTypes) -> bytes:
    """For each byte, what it can begin in files of these types: 0 for nothing."""
    table = bytearray(256)
    newer = c.newer_types(file_types.flavour, file_types.version)
    for type_code in file_types.types:
        if type_code not in newer:
            table[type_code] = _TYPE
    for opcode in c.OPCODE_NAMES:
        table[opcode] = _OPCODE
    table[c.EOF] = _END
    table[c.RAM_LRU] = table[c.SLOT_NUMBER] = _HINT if file_types.flavour == c.REDIS else 0
    return bytes(table)


def next_beginning(buf: bytes, pos: i64, table: bytes) -> i64:
    """The first position from `pos` on at which a record, or what stands between records, may begin; -1 where there is none.

    Most positions are ruled out here, by a look at a few bytes; what cannot be seen since `buf` ends is not ruled out.
    """
    end: i64 = len(buf)
    what: i64
    type_code: i64
    first: i64
    stop: i64
    while pos < end:
        type_code = buf[pos]
        what = table[type_code]
        if what == 0 or what >= _END:
            pos += 1
            continue
        if pos + 1 >= end:
            return pos
        first = buf[pos + 1]
        if what == _OPCODE:
            if type_code == c.EXPIRETIME_MS:
                # no time that is counted in milliseconds has more than 48 bits
                if pos + 9 >= end or (buf[pos + 7] == 0 and buf[pos + 8] == 0 and table[buf[pos + 9]] != 0):
                    return pos
            elif type_code == c.SELECTDB:
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
            if type_code != 0:
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

    What is known of a place that fails is kept in `dead`, so that rows which come to it by other ways end there: a stretch of a
    thousand events would otherwise be read from each of them on.

    Attributes:
        plain: of a row of enough records, whether the first is a string and nothing else, as a field without an expiry looks in
            a hash that has some: its expiry 0 is the type byte of a string, its name and value are those of one.
        ends: where each ends, as an offset in the file.
        places: where each record and event begins, as an offset in the file, and how many records there are in front of it.
        reached: how far the file has been looked at.
        cost: what it has taken so far, besides its places.
        dead: for an offset in the file, with how many records in front of it a row fails that comes there; with fewer, too.
        touched: numbers of the hash templates that the row brings.

    Args:
        file_types: of the search.
        limit: most bytes of a key's name.
    """

    def __init__(self, file_types: FileTypes, limit: int) -> None:
        super().__init__()
        self.limit: i64 = limit
        self.verifier: Verifier = Verifier(file_types, limit, True, None)
        packed = bytearray(TYPE_CODES)
        for t in file_types.types.values():
            packed[t.id] = t.layout == "s"
        self.packed: bytes = bytes(packed)
        self.count: i64 = 0
        self.plain: bool = False
        self.ends: list[int] = []
        self.places: list[tuple[int, int]] = []
        self.reached: i64 = 0
        self.cost: i64 = 0
        self.names: dict[bytes, int] = {}
        self.dead: dict[int, int] = {}
        self.touched: list[int] = []

    def begin(self, base: i64, pos: i64) -> None:
        """Make ready for another row, which begins at `buf[pos]` of a block at `base` in the file."""
        self.base = base
        self.reached = base + pos
        self.cost = 0
        self.count = 0
        self.plain = False
        self.ends = []
        self.places = []
        self.names = {}
        self.touched = []
        self.db = 0

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        self.reached = self.base + end + self.stray_bytes()
        place: i64 = len(self.places)
        self.places.append((int(self.base + start), int(self.count)))
        self.cost += key_at - start + ((value_at - key_at) >> _COPY)
        if self.verifier.newer[type_code]:
            self.fail(place, ROW - 1)
        name, _ = read_string(self.buf, key_at, self.limit)
        if not name and end <= value_at + 1:
            self.fail(place, ROW - 1)
        if not name and self.count == 0:
            self.fail(place, 0)
        # zeros, and any other byte that repeats, make rows of such names
        if name in self.names:
            self.fail(self.names[name], ROW - 1)
        self.names[name] = int(place)
        verifier = self.verifier
        checker = verifier.checker
        if checker.opens[type_code]:
            checker.elements.count = 0
            self.cost += end - value_at
            try:
                checker.check(type_code, self.buf, value_at, end)
            except RdbError as e:
                self.cost += checker.elements.count * _ELEMENT
                if self.packed[type_code] and self.buf[value_at] < 0xC0:  # it has been read as far as its elements go
                    self.cost -= end - value_at - ((end - value_at) >> _COPY)
                if e.rule == "template":  # another row may bring it
                    raise
                self.fail(place, ROW - 1)
            self.cost += checker.elements.count * _ELEMENT
        if self.count == 0:
            self.plain = self.buf[start] == 0
        self.ends.append(int(self.reached))
        self.count += 1
        if self.count >= ROW:
            raise Enough
        self.look_ahead()

    def event(self, event: Event) -> None:
        if isinstance(event, HashTemplate):
            self.touched.append(int(event.number))
        if self.event_at < 0:  # of a record
            return
        self.reached = self.base + self.event_end
        self.cost += (self.event_end - self.event_at) >> _COPY
        self.places.append((int(self.base + self.event_at), int(self.count)))
        if isinstance(event, SelectDb | SlotInfo):
            self.judge(event)
        self.look_ahead()

    def judge(self, event: SelectDb | SlotInfo) -> None:
        """Fail at a database or slot that no server has."""
        if event.db >= _DATABASES if isinstance(event, SelectDb) else event.slot >= SLOTS:
            self.fail(len(self.places) - 1, ROW - 1)

    def look_ahead(self) -> None:
        """Fail where it is known that what follows does."""
        most: i64 = self.dead.get(int(self.reached), -1)
        if self.count <= most:
            self.fail(len(self.places) - 1, most)

    def fail(self, last: i64, most: i64) -> None:
        """Fail here, as every row does that comes here with `most` records or fewer, by way of the place numbered `last`.

        Raises: CorruptError.
        """
        self.mark(last, most)
        raise CorruptError("no row")

    def mark(self, last: i64, most: i64) -> None:
        """Keep what is known of the places up to that numbered `last`, where rows fail here with `most` records or fewer."""
        if self.touched:
            return  # without its templates it might fail elsewhere
        dead = self.dead
        left: i64
        for number in range(last, -1, -1):
            at, count = self.places[number]
            left = most - (self.count - count)
            if left < 0:
                return
            if dead.get(at, -1) < left:
                dead[at] = int(left)


class Templates:
    """Field names that hashes have in common (RDB 15), from all parts of a file that have been read.

    Attributes:
        fields, counts: names, and how many, by the number of the template; what a scanner fills and a decoder uses.
        news: numbers of those that have been met or forgotten since somebody asked.
        places: where each stands in the file.
    """

    def __init__(self) -> None:
        self.fields: dict[int, tuple[bytes, ...]] = {}
        self.counts: dict[int, int] = {}
        self.news: list[int] = []
        self.places: list[tuple[int, int]] = []

    def met(self, number: int, offset: int) -> None:
        """A scanner has entered a template."""
        self.news.append(number)
        self.places.append((offset, number))

    def forget(self, begin: int, end: int) -> None:
        """What stands there is left out."""
        for offset, number in self.places[::-1]:
            if offset < begin:
                return
            if offset < end:
                self.fields.pop(number, None)
                self.counts.pop(number, None)
                self.news.append(number)


class Search:
    """Looks for rows in a file: what it costs grows with the file and with nothing else.

    Looking at a place may take as many bytes as there are behind it, and nearly every byte of a hostile file is such a place. So
    the bytes that are looked at are counted. A file has `_FUND` times its size of them, and every byte that a search comes further
    brings some more. Where they are used up, a row is looked for in `_LITTLE` bytes only.

    Attributes:
        table: what each byte can begin.
        row: the last that was looked at.
        looks, work: how many places were looked at, and how many bytes (a decoded element counts as some).
        buf, base: a stretch of the file, and where it begins.

    Args:
        file: with `seek` and `read`.
        size: of the file.
        header: flavour and version of the snapshot.
        limits: most bytes of a name, and of a compressed string.
        is_end: called with an offset; tells whether an end mark can be there.
    """

    def __init__(self, file: Any, size: int, header: tuple[str, int], limits: tuple[int, int], is_end: Any) -> None:
        self.file: Any = file
        self.size: i64 = size
        self.is_end: Any = is_end
        self.file_types: FileTypes = FileTypes(header[0], header[1], limits[1], "")
        self.table: bytes = beginnings(self.file_types)
        self.row: Row = Row(self.file_types, limits[0])
        self.scanner: Scanner = Scanner(header[0], header[1], limits[0])
        self.scanner.templates = self.file_types.templates
        self.known: dict[int, tuple[bytes, ...]] = {}
        self.looks: i64 = 0
        self.work: i64 = 0
        self.fund: i64 = _FUND * self.size + _ROW_BYTES
        self.buf: bytes = b""
        self.base: i64 = 0
        self.step: i64 = _ROW_BYTES

    def learn(self, templates: Templates) -> None:
        """Know the templates of hashes that have been met in the file."""
        self.known = templates.fields
        self.restore(templates.news)
        templates.news = []

    def restore(self, numbers: list[int]) -> None:
        """Undo what a row has said of templates."""
        for number in numbers:
            fields = self.known.get(number)
            if fields is None:
                self.scanner.templates.pop(number, None)
                self.scanner.skipper.templates.pop(number, None)
            else:
                self.scanner.templates[number] = fields
                self.scanner.skipper.templates[number] = len(fields)

    def come(self, size: i64) -> None:
        """The search has come so many bytes further."""
        self.fund += size * _INCOME
        if len(self.row.dead) > _MOST_DEAD:
            dead = {at: most for at, most in self.row.dead.items() if at >= self.base}
            self.row.dead = dead if len(dead) <= _MOST_DEAD // 2 else {}

    def candidate(self, at: i64, stop: i64) -> i64:
        """The first place from `at` on and before `stop` where a row may begin; -1 where there is none."""
        pos: i64
        limit: i64
        stop = min(stop, self.size)
        while at < stop:
            self.show(at)
            # of what is near the end of a stretch, more is to be seen
            limit = len(self.buf)
            if self.base + limit < self.size:
                limit -= _ROW_BYTES
            pos = next_beginning(self.buf, at - self.base, self.table)
            if pos < 0:
                pos = limit
            at = self.base + min(pos, limit)
            if pos < limit:
                return at if at < stop else -1
        return -1

    def show(self, at: i64) -> None:
        """Have a stretch of the file that begins at `at` or before it, and ends well behind it."""
        end: i64 = self.base + len(self.buf)
        if self.base <= at and (at < end - _ROW_BYTES or (at < end and end >= self.size)):
            return
        near: bool = self.base <= at and at - self.base <= 2 * len(self.buf)
        self.step = min(self.step * 2, _PIECE) if near else 4 * _ROW_BYTES
        self.read(at, self.step)

    def read(self, at: i64, size: i64) -> None:
        self.file.seek(int(at))
        self.base = at
        self.buf = self.file.read(int(size))
        if len(self.buf) == 0:
            raise TruncatedError("the file has become shorter", offset=int(at))

    def is_row(self, at: i64) -> bool:
        """Whether a row of records begins at `at`, or records that lead to the end of the file."""
        most: i64 = self.row.dead.get(int(at), -1)
        if most >= 0:
            return False
        self.looks += 1
        self.show(at)
        while True:
            if self.fund <= 0:
                fund: i64 = self.fund
                pos: i64 = at - self.base
                little: bool = self.look(self.buf[pos : pos + _LITTLE], at, 0) > 0
                self.fund = fund
                return little
            found: i64 = self.look(self.buf, self.base, at - self.base)
            if found >= 0:
                return found > 0
            size: i64 = self.base + len(self.buf) - at
            if at + size >= self.size or size >= _MOST_ROW_BYTES or self.fund <= 0:
                return False
            size = max(size * 4, 1 << 16)
            self.fund -= size >> 4
            self.read(at, size)

    def look(self, buf: bytes, base: i64, pos: i64) -> i64:
        """1 where a row begins at `buf[pos]`, 0 where none does, -1 where more bytes would tell."""
        row = self.row
        scanner = self.scanner
        scanner.restart()
        scanner.skipper.skip = 0
        row.begin(base, pos)
        scanner.skipper.steps = 0
        found: i64 = -1
        cost: i64 = 0
        try:
            scanner.scan(buf, pos, self.size - base, row)
            if scanner.finished:
                found = self.at_end(base)
            else:
                cost = self.vain(buf, len(buf))
        except Enough:
            found = 1
        except RdbError as e:
            found = 0
            if base + scanner.start >= row.reached:  # else the row itself has found that it fails
                cost = self.vain(buf, len(buf) if e.offset is None else min(int(e.offset), len(buf)))
                if e.rule != "template":
                    row.places.append((int(base + scanner.start), int(row.count)))
                    row.mark(len(row.places) - 1, ROW - 1)
        for event, _, _ in scanner.strays:
            if isinstance(event, HashTemplate):
                row.touched.append(int(event.number))
        if row.touched:
            self.restore(row.touched)
        cost += row.cost + len(row.places) * _EVENT + scanner.skipper.steps * _ELEMENT
        self.work += cost
        self.fund -= cost
        return found

    def vain(self, buf: bytes, end: i64) -> i64:
        """What it took to look at an item up to `buf[end]`, which is no part of the row."""
        start: i64 = self.scanner.start
        if start >= end:
            return 0
        # in a run of attributes, or of names of a template, every byte may be looked at; of the rest no more is done than a copy
        return end - start if buf[start] in _STEPWISE else (end - start) >> _COPY

    def at_end(self, base: i64) -> i64:
        """A row has come to an end mark: 1 or 0, as `look`."""
        row = self.row
        at: i64 = self.scanner.start - 1
        if not self.is_end(int(base + at)):
            row.places.append((int(base + at), int(row.count)))
            row.mark(len(row.places) - 1, ROW - 1)
            return 0
        if row.count > 0:
            return 1
        row.mark(len(row.places) - 1, 0)
        return 0


class Surveyor(Verifier):
    """Verifies records, and remembers where the last ones stood.

    Attributes:
        sound_to: where the last thing ends that could be parsed, as an offset in the input.
        bad: the last record broke a rule.
        plain: how many records are a string and nothing else, as `Row.plain`.
        announced: how many keys the file says that its databases have, as far as it could be read; -1 for nothing.
    """

    def __init__(self, file_types: FileTypes, limit: int, report_error: Any) -> None:
        super().__init__(file_types, limit, True, report_error)
        self.sound_to: i64 = 0
        self.announced: i64 = -1
        self.bad: bool = False
        self.templates: Templates = Templates()
        self.shift: i64 = 0  # from an offset in the input to one in the file
        self.plain: i64 = 0
        self.blank: bool = False  # the last record is three zeros: a string of no bytes under a name of no bytes
        self.spans: list[tuple[int, int]] = []
        self.type_codes: list[int] = []  # their types
        self.events: list[int] = []  # where the last events behind the last record begin

    def last(self) -> list[tuple[int, int]]:
        """Where the last records stand, fewer than make a row: offsets of their begin and end in the input."""
        return self.spans[-(ROW - 1) :]

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        self.bad = False
        if self.newer[type_code]:  # its bytes are something else
            name, _ = read_string(self.buf, key_at, self.limit)
            self.judge_type(type_code, name)
        blank = type_code == 0 and end == start + 3 and self.buf[key_at] == 0
        if blank and self.blank:
            self.type_codes.pop()
            self.sound_to = self.spans.pop()[0]  # there can be one, but two are a stretch of zeros
            raise CorruptError("a stretch of zeros")
        self.blank = blank
        if self.buf[start] == 0:
            self.plain += 1
        super().record(type_code, start, key_at, value_at, end, expire_ms)
        self.passed(type_code, self.base + start, self.base + end + self.stray_bytes())

    def large(self, type_code: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        self.judge_type(type_code, key)
        self.bad = False
        super().large(type_code, offset, key, size, expire_ms, head)
        self.passed(type_code, offset, offset + size)

    def passed(self, type_code: i64, start: i64, end: i64) -> None:
        self.sound_to = end
        self.events.clear()
        self.spans.append((int(start), int(end)))
        self.type_codes.append(int(type_code))
        if len(self.spans) > 1024:
            self.spans = self.last()
            self.type_codes = self.type_codes[-len(self.spans) :]

    def event(self, event: Event) -> None:
        bad: bool = self.bad
        self.bad = False
        super().event(event)
        if isinstance(event, HashTemplate):
            self.templates.met(int(event.number), int(self.shift + self.base + self.event_at))
            if self.bad:  # hashes that refer to it can be passed, but not read
                self.templates.fields.pop(int(event.number), None)
        self.bad = self.bad or bad
        if self.event_at < 0:  # of a record
            return
        if not self.strays:  # else it stands inside of one
            self.events.append(int(self.base + self.event_at))
            if len(self.events) > 1024:
                del self.events[:-ROW]
            self.sound_to = self.base + self.event_end
        if isinstance(event, ResizeDb):
            self.announced = max(self.announced, 0) + event.keys
        if self.bad and isinstance(event, Aux) and event.key.startswith(c.MEMBER_EXPIRY):
            # KeyDB says behind a key when its members expire: of one that goes, it must not be said of the one before
            self.report_error(None, None, int(self.base + self.event_at), int(self.event_end - self.event_at))

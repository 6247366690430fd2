"""Pages of names, and the questions about them; compiled, since they are asked for every key.

A page is what SCAN answers: names as bulk strings, `$3 CR LF foo CR LF`, one behind the other. They stay bytes in the buffer that
they came in, and no object is made of a key.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from librt.strings import BytesWriter

from rdbkit.errors import CorruptError
from rdbkit.format.filter import Filter
from rdbkit.format.replies import Incoming, line_end, read_number, refusal
from rdbkit.format.slots import tag_slot_of
from rdbkit.resp import bulk, command

if TYPE_CHECKING:
    from mypy_extensions import i64

_MULTI: Final = command(b"MULTI")
_EXEC: Final = command(b"EXEC")
_TIME: Final = command(b"TIME")
_DUMP: Final = b"*2\r\n" + bulk(b"DUMP")
_PEXPIRETIME: Final = b"*2\r\n" + bulk(b"PEXPIRETIME")
_PTTL: Final = b"*2\r\n" + bulk(b"PTTL")
_MEMORY_USAGE: Final = b"*3\r\n" + bulk(b"MEMORY") + bulk(b"USAGE")
_NO_REPLY: Final = "not a Redis server: invalid reply"


class Page:
    """Names as bulk strings, and how many.

    Attributes:
        names: the bytes.
        count: how many names.
    """

    def __init__(self, names: bytes, count: int) -> None:
        self.names: bytes = names
        self.count: int = count

    def keys(self) -> list[bytes]:
        """The names as objects, for what is rare."""
        found = []
        names = self.names
        pos: i64 = 0
        end: i64 = len(names)
        while pos < end:
            at = line_end(names, pos)
            size = read_number(names, pos + 1, at - 2)
            found.append(names[at : at + size])
            pos = at + size + 2
        return found

    def wanted_by(self, conditions: Filter) -> Page:
        """Those names that meet the conditions about names."""
        names = self.names
        out = BytesWriter()
        count = 0
        pos: i64 = 0
        while pos < len(names):
            at = line_end(names, pos)
            stop = at + read_number(names, pos + 1, at - 2)
            if conditions.wants_name(names, at, stop):
                out.write(names[pos : stop + 2])
                count += 1
            pos = stop + 2
        return Page(out.getvalue(), count)

    def in_slots(self, wanted: bytes) -> Page:
        """Those names whose hash slot's byte in `wanted`, which has one for each slot, is not 0."""
        names = self.names
        out = BytesWriter()
        count = 0
        pos: i64 = 0
        while pos < len(names):
            at = line_end(names, pos)
            stop = at + read_number(names, pos + 1, at - 2)
            if wanted[tag_slot_of(names, at, stop)]:
                out.write(names[pos : stop + 2])
                count += 1
            pos = stop + 2
        return Page(out.getvalue(), count)

    def chosen(self, wanted: bytes) -> Page:
        """Those names whose byte in `wanted`, which has one for each, is not 0."""
        names = self.names
        out = BytesWriter()
        count = 0
        pos: i64 = 0
        for flag in wanted:
            at = line_end(names, pos)
            end = at + read_number(names, pos + 1, at - 2) + 2
            if flag:
                out.write(names[pos:end])
                count += 1
            pos = end
        return Page(out.getvalue(), count)


def page_of(names: Iterable[bytes]) -> Page:
    """A page of these names.

    >>> page_of([b"a", b"bc"]).names, page_of([b"a", b"bc"]).keys()
    (b'$1\\r\\na\\r\\n$2\\r\\nbc\\r\\n', [b'a', b'bc'])
    """
    parts = [bulk(name) for name in names]
    return Page(b"".join(parts), len(parts))


class Layout:
    """How keys are asked for.

    Args:
        group: keys in one MULTI; 0 for none: then the expiry is asked for before the value and behind it.
        absolute: by PEXPIRETIME; otherwise by PTTL and, in the MULTI, TIME.
    """

    def __init__(self, group: int, absolute: bool) -> None:
        self.group: int = group
        self.absolute: bool = absolute


def questions(page: Page, layout: Layout) -> bytes:
    """The commands that ask for values and expiries of a page.

    In a MULTI all expiries are asked for before all values: a time to live counts from the TIME in front, and values may take long.
    """
    out = BytesWriter()
    names = page.names
    expiry = _PEXPIRETIME if layout.absolute else _PTTL
    group: i64 = layout.group
    pos: i64 = 0
    end: i64 = len(names)
    while pos < end:
        if group == 0:
            at = line_end(names, pos)
            stop = at + read_number(names, pos + 1, at - 2) + 2
            name = names[pos:stop]
            out.write(expiry)
            out.write(name)
            out.write(_DUMP)
            out.write(name)
            out.write(expiry)
            out.write(name)
            pos = stop
            continue
        out.write(_MULTI)
        if not layout.absolute:
            out.write(_TIME)
        begin: i64 = pos
        pos = _ask_each(out, expiry, names, begin, group)
        _ask_each(out, _DUMP, names, begin, group)
        out.write(_EXEC)
    return out.getvalue()


def _ask_each(out: BytesWriter, question: bytes, names: bytes, pos: i64, most: i64) -> i64:
    """A question about each of so many names from here on; returns where the next one stands."""
    end: i64 = len(names)
    left: i64 = most
    while pos < end and left > 0:
        at = line_end(names, pos)
        stop = at + read_number(names, pos + 1, at - 2) + 2
        out.write(question)
        out.write(names[pos:stop])
        pos = stop
        left -= 1
    return pos


def size_questions(page: Page) -> bytes:
    """The commands that ask how much memory each key of a page takes."""
    out = BytesWriter()
    names = page.names
    pos: i64 = 0
    end: i64 = len(names)
    while pos < end:
        at = line_end(names, pos)
        stop = at + read_number(names, pos + 1, at - 2) + 2
        out.write(_MEMORY_USAGE)
        out.write(names[pos:stop])
        pos = stop
    return out.getvalue()


class ScanReply(Incoming):
    """The reply to SCAN.

    Attributes:
        cursor: to go on with; b"0" at the end. Kept as it came: some have more than 64 bits.
        page: the names.
        failure: the error reply instead of a page; None where there is none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cursor: bytes = b""
        self.page: Page = Page(b"", 0)
        self.failure: Any = None

    def read(self) -> i64:
        buf = self.buf
        at: i64 = line_end(buf, 0)
        if at < 0:
            return 0
        if buf[0] == 0x2D:
            self.failure = refusal(buf[1 : at - 2])
            self.done = True
            return at
        if buf[0] != 0x2A or read_number(buf, 1, at - 2) != 2:
            raise CorruptError(_NO_REPLY)
        cursor_end = self.reply_end(at)
        if cursor_end < 0:
            return 0
        cursor_at: i64 = line_end(buf, at)
        head_end: i64 = line_end(buf, cursor_end)
        if head_end < 0:
            return 0
        if buf[cursor_end] != 0x2A:
            raise CorruptError(_NO_REPLY)
        count: i64 = read_number(buf, cursor_end + 1, head_end - 2)
        pos = head_end
        n: i64 = 0
        while n < count:
            pos = self.reply_end(pos)
            if pos < 0:
                return 0
            n += 1
        self.cursor = buf[cursor_at : cursor_end - 2]
        self.page = Page(buf[head_end:pos], int(count))
        self.done = True
        return pos


class SizeReplies(Incoming):
    """The replies to `size_questions`.

    Attributes:
        large: one byte a key: 1 where it takes more than `limit`, 0 where it does not or nothing is known.
        any_large: whether there is one.
        refused: the first error reply; None where there is none.
    """

    def __init__(self, count: int, limit: int) -> None:
        super().__init__()
        self.left: i64 = count
        self.limit: i64 = limit
        self.small: BytesWriter = BytesWriter()
        self.any_large: bool = False
        self.refused: Any = None
        self.done = count == 0

    def read(self) -> i64:
        buf = self.buf
        pos: i64 = 0
        while self.left > 0:
            end: i64 = line_end(buf, pos)
            if end < 0:
                return pos
            is_large = False
            if buf[pos] == 0x3A:
                is_large = read_number(buf, pos + 1, end - 2) > self.limit
            elif buf[pos] == 0x2D:
                if self.refused is None:
                    self.refused = refusal(buf[pos + 1 : end - 2])
            elif buf[pos] != 0x24 and buf[pos] != 0x5F:
                raise CorruptError(_NO_REPLY)
            if is_large:
                self.any_large = True
            self.small.append(0 if is_large else 1)
            self.left -= 1
            pos = end
        self.done = True
        return pos

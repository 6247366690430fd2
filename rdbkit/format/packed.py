"""What a packed encoding is to the rest: a `PackedReader`, which reads collections that are one string.

Each encoding has its reader in a module of its own; `readers.py` lists them. A row of `constants.py` names the one that its values
are read by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rdbkit.errors import CorruptError
from rdbkit.format.primitives import check_packed
from rdbkit.format.sink import Sink

if TYPE_CHECKING:
    from mypy_extensions import i64

#: Of large packed collections, so many bytes are looked at in one go, so that what is made of them is bounded.
STRETCH: Final = 1 << 16
#: Stands for a number of elements or entries that only reading them would tell.
UNKNOWN: Final = -1
_MANY: Final = 65535  # stands for a count that does not fit


class Cursor:
    """How far a packed collection has been read.

    Attributes:
        buf, pos, end: the collection is `buf[pos:end]`.
        at: where the entry begins that is next.
        count: entries so far.
        before: of the entry in front of `at`, what its reader has to know.
        begin: where that entry begins.
    """

    def __init__(self, buf: bytes, pos: i64, end: i64, at: i64) -> None:
        self.buf: bytes = buf
        self.pos: i64 = pos
        self.end: i64 = end
        self.at: i64 = at
        self.count: i64 = 0
        self.before: i64 = 0
        self.begin: i64 = at


class PackedReader:
    """Reads the collections of one packed encoding; has no state of its own.

    What a collection breaks of the encoding's rules is a CorruptError, whose `rule` `operations/soundness.toml` explains. Where an
    entry goes beyond `buf`, IndexError will do, and becomes that of the rule "NAME-overrun".

    Args:
        name: of the encoding, as rows of `constants.py` and errors have it.
        header: bytes in front of the first entry.
        end_mark: bytes behind the last one.
    """

    def __init__(self, name: str, header: int, end_mark: int) -> None:
        self.name: str = name
        self.header: int = header
        self.end_mark: i64 = end_mark

    def begin(self, buf: bytes, pos: i64, end: i64) -> i64:
        """Check the header of the collection `buf[pos:end]`; return where its first entry begins."""
        raise NotImplementedError

    def step(self, cursor: Cursor, until: i64, sink: Sink) -> None:
        """Report to `sink` the entries that begin before `until`, and move the cursor behind them."""
        raise NotImplementedError

    def finish(self, cursor: Cursor) -> None:
        """Check what can be checked now that the cursor is behind the last entry."""

    def header_count(self, buf: bytes, pos: i64, size: i64) -> i64:
        """How many entries the header at `pos` gives a collection of `size` bytes; `UNKNOWN` where their number does not fit there.

        Raises: CorruptError where the collection is too small for it. Only the header is there to be read.
        """
        raise NotImplementedError

    def read(self, buf: bytes, pos: i64, end: i64, sink: Sink) -> i64:
        """Report each entry of the collection `buf[pos:end]` to `sink`; return how many there are.

        Raises: CorruptError, maybe after some entries were reported.
        """
        cursor = Cursor(buf, pos, end, self.begin(buf, pos, end))
        last: i64 = end - self.end_mark
        while cursor.at < last:
            self.step(cursor, min(cursor.at + STRETCH, last), sink)
        self.finish(cursor)
        return cursor.count


def announced_entries(what: str, buf: bytes, pos: i64, size: i64, count_at: i64) -> i64:
    """`header_count` of listpacks and ziplists, which have their count in two bytes at `count_at`."""
    check_packed(what, buf, pos, size, count_at + 3)
    n: i64 = buf[pos + count_at] | buf[pos + count_at + 1] << 8
    if n == _MANY:
        return UNKNOWN
    if n * 2 + count_at + 3 > size:
        raise CorruptError(f"a {what} of {size} bytes says that it has {n} entries")
    return n

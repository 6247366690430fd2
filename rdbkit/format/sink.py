"""The interface through which a decoder reports elements: one call for each, so that nobody pays for unwanted objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mypy_extensions import i64


class Sink:
    """Takes the elements of one value in file order.

    Fields and values of hashes, members and scores of sorted sets come one after the other. A score that the file keeps as
    text comes as `string` or `integer`, just as it stands there.
    """

    def string(self, buf: bytes, start: i64, end: i64) -> None:
        """An element with the content `buf[start:end]`."""

    def integer(self, n: i64) -> None:
        """An element whose content is the decimal text of `n`."""

    def double(self, x: float) -> None:
        """A score, or a floating-point element of an array."""

    def attribute(self, n: i64) -> None:
        """No element but what goes with one: a field's expiry in Unix milliseconds (0 for none), an array's index."""

    def part(self, part: object) -> None:
        """A part of a stream, a module's value and the like: an object of `rdbkit.values`."""

    def begin_node(self) -> bool:
        """A node of a stream comes. False where its entries are wanted as parts.

        Otherwise each comes as `begin_entry`, names and values of its fields as elements, and `end_entry`, if the node is as
        servers write it.
        """
        return False

    def void_node(self) -> None:
        """What has come of the node is void: all of it comes again, as parts."""

    def begin_entry(self, ms: i64, seq: i64) -> None:
        """An entry with this id, whose fields and values follow one after the other as elements."""

    def end_entry(self) -> None:
        """The entry has come whole."""

    def run(self, buf: bytes, at: int, until: int, last: int) -> tuple[int, int]:
        """Take all entries of the listpack `buf[at:last]` that begin before `until` at once.

        Only the interpreter asks for it, where a call for each is dear. Returns where it left off, and how many there were; the
        others come one by one.
        """
        return at, 0


class Names:
    """Takes the names that no two elements of a value may share."""

    def begin(self) -> None:
        """Make ready for another value."""

    def add(self, name: bytes) -> None:
        """The name of an element. Raises CorruptError where it is known to come twice."""

    def add_number(self, number: i64) -> None:
        """The same of a name that is the text of a number."""

    def finish(self) -> None:
        """The value has ended. Raises CorruptError where a name came twice."""

    def close(self) -> None:
        """Remove temporary files."""


class Items(Sink):
    """Collects what comes in one flat list: bytes, and int for `attribute`, float for `double`."""

    def __init__(self) -> None:
        self.items: list[object] = []

    def string(self, buf: bytes, start: i64, end: i64) -> None:
        self.items.append(buf[start:end])

    def integer(self, n: i64) -> None:
        self.items.append(str(n).encode())

    def double(self, x: float) -> None:
        self.items.append(x)

    def attribute(self, n: i64) -> None:
        self.items.append(int(n))

    def part(self, part: object) -> None:
        self.items.append(part)

    def take(self, arity: int = 1) -> list[object]:
        """What has come since the last call; what is left over after whole elements of `arity` stays behind."""
        items = self.items
        rest = len(items) % arity
        self.items = items[len(items) - rest :] if rest else []
        return items[: len(items) - rest] if rest else items


class NumberedItems(Items):
    """The same, but for elements that the file has as numbers, which are ints here."""

    def integer(self, n: i64) -> None:
        self.items.append(int(n))

"""The patterns that the names of keys follow, found while scanning: `user:{id}:cart` for user:17:cart and its like.

A name is folded (what may be a number or an id becomes `{id}`), cut at separators, and counted in a tree; compiled, since it runs
once a record. Memory is bounded: a place with too many different names below it keeps the largest, and counts the others as `*`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from mypy_extensions import i64

ID: Final = b"{id}"
OTHERS: Final = b"*"

#: Different names below one place before it is closed, and how many it keeps then.
CHILDREN: Final = 1000
KEPT: Final = 100
#: Places of a tree before all of it is closed.
NODES: Final = 20_000
#: Names that are remembered with their place, so that most are folded once.
REMEMBERED: Final = 1 << 16
#: Bytes of a name that count.
LONGEST: Final = 256

# Ids: hexadecimal numbers of 8 digits and more, UUIDs too, that stand alone; and decimal numbers anywhere.
_IDS: Final = re.compile(rb"(?<![0-9A-Za-z])[0-9A-Fa-f]{8,}(?:-[0-9A-Fa-f]{4,})*(?![0-9A-Za-z])|[0-9]+")
_DIGITS: Final = bytes(0x30 if 0x30 <= c <= 0x39 else c for c in range(256))
_HEX: Final = bytes(0x30 if c in b"0123456789abcdefABCDEF" else c for c in range(256))
_LONG: Final = re.compile(rb"(?<![0-9A-Za-z])[0-9A-Fa-f]{8,}(?:-[0-9A-Fa-f]{4,})*(?![0-9A-Za-z])")


def fold(name: bytes) -> bytes:
    """A name with its ids replaced.

    >>> fold(b"user:17:cart"), fold(b"session:9f86d081884c7d65"), fold(b"page2")
    (b'user:{id}:cart', b'session:{id}', b'page{id}')
    >>> fold(b"job:0b0d3f5c-8a55-4b6e-9b5c-6e2f6b1c2a33:log")
    b'job:{id}:log'
    """
    return _IDS.sub(ID, name)


class Sums(NamedTuple):
    """Keys and their bytes in memory, and those of them that expire."""

    keys: int
    bytes: int
    expiring: int
    expiring_bytes: int


class Node:
    """A place in the tree: what the names have up to here, and what was counted for those that end or are cut here.

    Attributes:
        name: the folded part that leads here.
        keys, bytes: of the names that end here, or are told apart no further.
        expiring, expiring_bytes: those of them that expire.
        closed: further names below are counted as `*`.
    """

    def __init__(self, name: bytes, parent: Node | None, separated: bool) -> None:
        self.name: bytes = name
        self.parent: Node | None = parent
        self.separated: bool = separated
        self.children: dict[bytes, Node] = {}
        self.keys: i64 = 0
        self.bytes: i64 = 0
        self.expiring: i64 = 0
        self.expiring_bytes: i64 = 0
        self.closed: bool = False

    def total(self) -> Sums:
        """Of this place and all below."""
        sums = Sums(int(self.keys), int(self.bytes), int(self.expiring), int(self.expiring_bytes))
        for child in self.children.values():
            more = child.total()
            sums = Sums(*(a + b for a, b in zip(sums, more, strict=True)))
        return sums

    def absorb(self, other: Node) -> None:
        """Count what another place and all below it have here."""
        sums = other.total()
        self.keys += sums.keys
        self.bytes += sums.bytes
        self.expiring += sums.expiring
        self.expiring_bytes += sums.expiring_bytes

    def keep_largest(self) -> int:
        """Close this place: the largest names below stay, the others become `*`. Returns how many places were given up."""
        self.closed = True
        others = self.children.pop(OTHERS, None)
        by_size = sorted(self.children.values(), key=lambda node: (-node.total().bytes, node.name))
        if others is None:
            others = Node(OTHERS, self, False)
        given_up = 0
        self.children = {node.name: node for node in by_size[:KEPT]}
        for node in by_size[KEPT:]:
            given_up += node.count()
            others.absorb(node)
        self.children[OTHERS] = others
        return given_up

    def count(self) -> int:
        """Places here and below."""
        return 1 + sum(child.count() for child in self.children.values())


class _Look:
    """What a name that has only long ids is compared with, digits as 0: the same before the first id and behind the last."""

    def __init__(self, begin: int, end: int, head: bytes, tail: bytes, node: Node) -> None:
        self.begin: i64 = begin
        self.end: i64 = end
        self.head: bytes = head
        self.tail: bytes = tail
        self.node: Node = node


class Patterns:
    """The tree of patterns.

    Args:
        separators: bytes of which each ends a part of a name.
        depth: parts of a name that are told apart; the rest of it is not looked at.

    Attributes:
        closed: there were too many names to tell all apart.
    """

    def __init__(self, separators: bytes, depth: int) -> None:
        self.separators: bytes = separators
        self.depth: i64 = depth
        self.root: Node = Node(b"", None, False)
        self.nodes: i64 = 1
        self.full: bool = False
        self.closed: bool = False
        self.cut = re.compile(b"([" + re.escape(separators) + b"])") if separators else None
        self.known: dict[bytes, Node] = {}
        self.looks: dict[bytes, _Look] = {}

    def find(self, name: bytes) -> Node:
        """The place where a name is counted."""
        digits = name.translate(_DIGITS)
        node = self.known.get(digits)
        if node is not None:
            return node
        look = self.looks.get(name.translate(_HEX))
        if look is not None and digits[: look.begin] == look.head and digits[look.end :] == look.tail:
            return look.node
        return self.find_new(name, digits)

    def find_new(self, name: bytes, digits: bytes) -> Node:
        """`find` for a name of which nothing is known."""
        node = self.place(fold(name[:LONGEST]))
        if len(name) > LONGEST:
            return node
        ids = [match.span() for match in _LONG.finditer(name)]
        # names that differ in digits alone fold alike; those that differ in hexadecimal digits do where the rest is the same
        if len(ids) == 1 and not name[ids[0][0] : ids[0][1]].isdigit():
            begin, end = ids[0]
            if len(self.looks) >= REMEMBERED:
                self.looks.clear()
            self.looks[name.translate(_HEX)] = _Look(begin, end, digits[:begin], digits[end:], node)
        elif all(name[begin:end].isdigit() for begin, end in ids):
            if len(self.known) >= REMEMBERED:
                self.known.clear()
            self.known[digits] = node
        return node

    def place(self, pattern: bytes) -> Node:
        """The place of a folded name; made where there is none yet."""
        node = self.root
        parts = [pattern] if self.cut is None else self.cut.split(pattern)
        left: i64 = self.depth
        for at in range(0, len(parts), 2):
            last = at + 1 >= len(parts)
            part = parts[at] if last else parts[at] + parts[at + 1]
            if part == b"" and last and at > 0:
                return node
            if left <= 0:
                break
            left -= 1
            child = node.children.get(part)
            if child is None:
                if node.closed or self.full:
                    return self.others(node)
                child = Node(part, node, not last)
                node.children[part] = child
                self.nodes += 1
                if len(node.children) > CHILDREN:
                    self.closed = True
                    self.nodes -= node.keep_largest()
                    self.forget()
                    return self.place(pattern)
                if self.nodes > NODES:
                    self.full = True
                    self.closed = True
            node = child
        return node

    def others(self, node: Node) -> Node:
        """The place below `node` of all that is not told apart."""
        found = node.children.get(OTHERS)
        if found is None:
            found = Node(OTHERS, node, False)
            node.children[OTHERS] = found
        return found

    def forget(self) -> None:
        """Places have been given up, so what is known of names may be of those."""
        self.known.clear()
        self.looks.clear()

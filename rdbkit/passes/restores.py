"""RESTORE commands: which node each goes to, and how records become them; compiled, since it runs once a key."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import anycrc
from librt.strings import BytesWriter

from rdbkit.format.primitives import read_string
from rdbkit.format.replies import line_end, read_number
from rdbkit.format.scan import NO_EXPIRY, STRING_INT, Visitor
from rdbkit.format.slots import SLOTS, tag_slot_of
from rdbkit.resp import bulk

if TYPE_CHECKING:
    from mypy_extensions import i64

#: What stands before the name, and behind the payload: without REPLACE, and with it.
HEADS: Final = (b"*5\r\n" + bulk(b"RESTORE"), b"*6\r\n" + bulk(b"RESTORE"))
TAILS: Final = (bulk(b"ABSTTL"), bulk(b"ABSTTL") + bulk(b"REPLACE"))
_CRC64: Final = anycrc.Model("CRC64-REDIS")


class Outbox:
    """Commands for one node.

    Attributes:
        out: their bytes.
        count: how many they are.
    """

    def __init__(self) -> None:
        self.out: BytesWriter = BytesWriter()
        self.count: i64 = 0

    def take(self) -> tuple[bytes, int]:
        """The commands so far and their number; the next ones come into an empty box."""
        data, count = self.out.getvalue(), int(self.count)
        self.out.truncate(0)
        self.count = 0
        return data, count


class Router:
    """Which node of the target a key goes to."""

    def __init__(self) -> None:
        self.boxes: list[Outbox] = []
        self.is_cluster: bool = False
        self.by_slot: list[Outbox] = []

    def assign(self, boxes: list[Outbox], owners: list[int]) -> None:
        """From now on keys go there.

        Args:
            boxes: one for each node.
            owners: for a cluster, the number of the box of each slot; empty where there is one node.
        """
        self.boxes = boxes
        self.is_cluster = len(owners) == SLOTS
        self.by_slot = [boxes[owner] for owner in owners]

    def box_of(self, buf: bytes, at: i64, end: i64) -> Outbox:
        """Where the commands about the key `buf[at:end]` go."""
        if not self.is_cluster:
            return self.boxes[0]
        return self.by_slot[tag_slot_of(buf, at, end)]


class Restorer(Visitor):
    """Makes RESTORE commands of records that the target loads.

    Args:
        version: RDB version that the target knows.
        limit: most bytes of a key's name.
        replace: whether keys that the target has are replaced.
    """

    def __init__(self, version: int, limit: int, router: Router, replace: bool) -> None:
        super().__init__()
        self.version: bytes = version.to_bytes(2, "little")
        self.limit: i64 = limit
        self.router: Router = router
        self.head: bytes = HEADS[1 if replace else 0]
        self.tail: bytes = TAILS[1 if replace else 0]
        self.types: list[bytes] = [bytes([n]) for n in range(256)]

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        buf = self.buf
        first: i64 = buf[key_at]
        name = buf[key_at + 1 : value_at] if first < 0x40 else read_string(buf, key_at, self.limit)[0]
        box = self.router.boxes[0]
        if self.router.is_cluster:
            box = self.router.box_of(name, 0, len(name))
        content = self.types[0 if type_code >= STRING_INT else type_code] + buf[value_at:end] + self.version
        crc: int = _CRC64.calc(content)
        out = box.out
        out.write(self.head)
        out.write(bulk(name))
        if expire_ms == NO_EXPIRY:
            out.write(b"$1\r\n0\r\n")
        else:
            out.write(bulk(b"%d" % max(int(expire_ms), 1)))
        out.write(b"$%d\r\n" % (len(content) + 8))
        out.write(content)
        out.write(crc.to_bytes(8, "little"))
        out.write(b"\r\n")
        out.write(self.tail)
        box.count += 1


class Boundaries(Visitor):
    """Where each record of a block begins and ends."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[int, int]] = []

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        self.found.append((int(start), int(end)))


def commands_in(data: bytes) -> int:
    r"""How many commands there are.

    >>> from rdbkit.resp import command
    >>> commands_in(command(b"SET", b"k", b"*1\r\n$4\r\nPING\r\n") + command(b"PING"))
    2
    """
    found: i64 = 0
    pos: i64 = 0
    end: i64 = len(data)
    while pos < end:
        at: i64 = line_end(data, pos)
        arguments: i64 = read_number(data, pos + 1, at - 2)
        pos = at
        for _ in range(arguments):
            at = line_end(data, pos)
            pos = at + read_number(data, pos + 1, at - 2) + 2
        found += 1
    return int(found)


class Sent:
    """Commands that were sent to a node, each with its key as first argument behind the command's name."""

    def __init__(self, data: bytes, count: int) -> None:
        self.data: bytes = data
        self.count: int = count
        self.number: i64 = 0  # of the command at `at`
        self.at: i64 = 0

    def command(self, number: int) -> tuple[bytes, bytes]:
        """The key and the bytes of a command; those of a later one with each call."""
        data = self.data
        pos: i64 = self.at
        at: i64 = 0
        key = b""
        start: i64 = pos
        while True:
            start = pos
            end: i64 = line_end(data, pos)
            arguments: i64 = read_number(data, pos + 1, end - 2)
            pos = end
            for i in range(arguments):
                at = line_end(data, pos)
                stop: i64 = at + read_number(data, pos + 1, at - 2)
                if i == 1 and self.number == number:
                    key = data[at:stop]
                pos = stop + 2
            if self.number == number:
                self.at = start
                return key, data[start:pos]
            self.number += 1
            self.at = pos


def keys_of(data: bytes, count: int, types: bytes) -> list[bytes]:
    """The keys of RESTORE commands whose values have one of these types.

    Args:
        data, count: the commands, and how many.
        types: one byte a type code, not 0 for those that are wanted.
    """
    found: list[bytes] = []
    pos: i64 = 0
    for _ in range(count):
        end: i64 = line_end(data, pos)
        arguments: i64 = read_number(data, pos + 1, end - 2)
        pos = end
        at: i64 = 0
        key_at: i64 = 0
        key_end: i64 = 0
        for i in range(arguments):
            at = line_end(data, pos)
            stop: i64 = at + read_number(data, pos + 1, at - 2)
            if i == 1:
                key_at, key_end = at, stop
            elif i == 3 and types[data[at]]:
                found.append(data[key_at:key_end])
            pos = stop + 2
    return found

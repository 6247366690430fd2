"""Names of changed keys, out of what a server sends of itself; compiled, since it runs once a change.

Two kinds of messages have them: those by which a server tells its clients what they may no longer keep (CLIENT TRACKING, whose
names have no database), and keyspace notifications, one for each event.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rdbkit.errors import CorruptError
from rdbkit.format.replies import NOTHING, Push, Refusal, Replies, read_number

if TYPE_CHECKING:
    from mypy_extensions import i64

#: The database of names that were told without one.
ANY_DB: Final = -1
#: What a name takes in a dictionary besides its bytes.
_NAME: Final = 150
_INVALIDATE: Final = b">2\r\n$10\r\ninvalidate\r\n*"
_NO_MESSAGE: Final = "what a server sends of its changes is no message"
#: The patterns of keyspace notifications: the key is the message, or the end of the channel.
EVENTS: Final = b"__keyevent@*__:*"
KEYS: Final = b"__keyspace@*__:*"
#: Up to the database's number, both channels are as long.
_BEFORE_DB: Final = 11


class WaitingNames:
    """Names that were told to have changed, each once, with the time when it was first told. Its users share a lock.

    Attributes:
        everything: whether keys may have changed that are not here: all of them, or more than there is room for.
        events: how many names were told, again and again the same among them.
    """

    def __init__(self, most_bytes: int) -> None:
        self.names: dict[int, dict[bytes, float]] = {}
        self.most_bytes: i64 = most_bytes
        self.held: i64 = 0
        self.everything: bool = False
        self.events: i64 = 0

    def of(self, db: int) -> dict[bytes, float]:
        """Those of a database."""
        found = self.names.get(db)
        if found is None:
            found = self.names[db] = {}
        return found

    def add(self, db: int, name: bytes, now: float) -> None:
        """A name has changed."""
        names = self.of(db)
        if name not in names:
            names[name] = now
            self.grown(len(name) + _NAME)

    def grown(self, size: i64) -> None:
        """So many bytes more are held; where they are too many, they are let go, and everything counts as changed."""
        self.held += size
        if self.held > self.most_bytes:
            self.everything = True
            self.names = {}
            self.held = 0

    def take(self) -> dict[int, dict[bytes, float]]:
        """All names, by their database; they are no longer here."""
        names = self.names
        self.names = {}
        self.held = 0
        return names

    def oldest(self) -> float:
        """The time when the name was told that has waited longest; 0 where none waits."""
        oldest = 0.0
        for names in self.names.values():
            for at in names.values():
                if oldest == 0.0 or at < oldest:
                    oldest = at
                break  # they stand in the order in which they were told
        return oldest

    def __len__(self) -> int:
        return sum([len(names) for names in self.names.values()])


class ChangeReader:
    """Reads what comes over one connection into names that wait, cut anywhere.

    Args:
        waiting: where names go.
        pattern: the one that was subscribed to; empty for CLIENT TRACKING.

    Attributes:
        pongs: how many replies to PING have come.
        refusal: an error that the server sent.
    """

    def __init__(self, waiting: WaitingNames, pattern: bytes = b"") -> None:
        self.waiting = waiting
        self.pongs: i64 = 0
        self.refusal: Refusal | None = None
        self.buf: bytes = b""
        self.left: i64 = 0  # names of the message that is being read
        self.replies: Replies = Replies()
        self.apart: bool = False  # a reply of another kind is half read
        self.by_key: bool = pattern == KEYS
        tail = b"4\r\n$8\r\npmessage\r\n$%d\r\n%b\r\n$" % (len(pattern), pattern)
        self.heads: list[bytes] = [b">" + tail, b"*" + tail] if pattern else [_INVALIDATE]
        self.tracking: bool = not pattern

    def feed(self, data: bytes, now: float) -> None:
        """More bytes have come; `now` is the time of what they tell.

        Raises: CorruptError where this is nothing that a server sends.
        """
        if self.apart:
            self.replies.feed(data)
            rest = self.other()
            if rest is None:
                return
            data = rest
        buf = self.buf + data if self.buf else data
        pos: i64 = 0
        while pos < len(buf):
            before = pos
            if self.left > 0:
                pos = self.read_names(buf, pos, now)
                if self.left > 0:
                    break
                continue
            head = self.head(buf, pos)
            if head > 0:
                pos = self.begin(buf, pos, head) if self.tracking else self.notification(buf, pos, head, now)
                if pos == before:
                    break
            elif head < 0:
                break
            else:
                self.replies.feed(buf[pos:])
                rest = self.other()
                buf = b"" if rest is None else rest
                pos = 0
        self.buf = buf[pos:]

    def head(self, buf: bytes, pos: i64) -> i64:
        """The length of the words that a message begins with: 0 where this is another, -1 where more has to come."""
        first: i64 = buf[pos]
        if first != 0x3E and first != 0x2A:
            return 0
        for head in self.heads:
            size: i64 = len(head)
            piece = buf[pos : pos + size]
            if piece == head:
                return size
            if len(piece) < size and head.startswith(piece):
                return -1
        return 0

    def other(self) -> bytes | None:
        """Take a message of another kind; returns what has come behind it, None where it is not whole."""
        reply = self.replies.take()
        self.apart = reply is NOTHING
        if self.apart:
            return None
        if isinstance(reply, Push):
            if reply.kind == b"invalidate" and reply.content and reply.content[0] is None:
                self.waiting.everything = True
        elif isinstance(reply, Refusal):
            self.refusal = reply
        elif reply == b"PONG" or (isinstance(reply, list) and reply and reply[0] == b"pong"):
            self.pongs += 1
        return self.replies.rest()

    def begin(self, buf: bytes, pos: i64, head: i64) -> i64:
        """How many names a message has; returns where they begin, `pos` where that has not come."""
        end: i64 = buf.find(b"\r\n", pos + head)
        if end < 0:
            return pos
        self.left = read_number(buf, pos + head, end)
        return end + 2

    def read_names(self, buf: bytes, pos: i64, now: float) -> i64:
        """Names of a message; returns the place behind the last one that is whole."""
        waiting = self.waiting
        names = waiting.of(ANY_DB)
        left = self.left
        end: i64 = len(buf)
        grown: i64 = 0
        while left > 0:
            at = pos
            if at + 4 > end:
                break
            if buf[at] != 0x24:  # $
                raise CorruptError(_NO_MESSAGE)
            at += 1
            size: i64 = 0
            while at < end:
                digit: i64 = buf[at] - 0x30
                if digit < 0 or digit > 9:
                    break
                size = size * 10 + digit
                at += 1
            at += 2
            stop = at + size
            if stop + 2 > end:
                break
            name = buf[at:stop]
            if name not in names:
                names[name] = now
                grown += size + _NAME
            pos = stop + 2
            left -= 1
        waiting.events += self.left - left
        self.left = left
        waiting.grown(grown)
        return pos

    def notification(self, buf: bytes, pos: i64, head: i64, now: float) -> i64:
        """One event; returns the place behind it, `pos` where it is not whole."""
        line: i64 = buf.find(b"\r\n", pos + head)
        if line < 0:
            return pos
        channel = line + 2
        channel_end = channel + read_number(buf, pos + head, line)
        line = buf.find(b"\r\n", channel_end + 3) if channel_end + 3 < len(buf) else -1
        if line < 0:
            return pos
        text = line + 2
        text_end = text + read_number(buf, channel_end + 3, line)
        if text_end + 2 > len(buf):
            return pos
        at = channel + _BEFORE_DB
        db_end: i64 = buf.find(b"__:", at)
        if db_end < 0 or db_end > channel_end:
            raise CorruptError(_NO_MESSAGE)
        db = read_number(buf, at, db_end)
        name = buf[db_end + 3 : channel_end] if self.by_key else buf[text:text_end]
        self.waiting.add(int(db), name, now)
        self.waiting.events += 1
        return text_end + 2

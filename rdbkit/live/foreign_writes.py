"""What others write on a target while we write there, told by the target itself.

Each connection that we write over is told of what others write (`CLIENT TRACKING ... BCAST NOLOOP`), by way of a second connection.
Where there are several that we write over, what every one of them is told of was written by others.
"""

from __future__ import annotations

from typing import Final

from rdbkit.format.replies import Refusal
from rdbkit.live.changes import Bell, Feed, Unable, confirm
from rdbkit.live.connection import Address, Connection, Lost
from rdbkit.live.server import Server
from rdbkit.resp import command

__all__ = ["ForeignWrites"]

_MOST_BYTES: Final = 32 << 20


class ForeignWrites:
    """The names that others write on a target.

    Args:
        server: the target.

    Attributes:
        why_not: why the target does not tell; None as long as it does.
        gaps: how often a connection broke, so that writes of others may not have been seen.
    """

    def __init__(self, server: Server) -> None:
        self.server = server
        self.why_not: str | None = None
        self.gaps = 0
        self._feeds: dict[Connection, Feed] = {}

    def opened(self, connection: Connection) -> None:
        """A connection was opened that we write over: from now on what others write is told. Raises: Lost."""
        if self.why_not is not None:
            return
        before = self._feeds.pop(connection, None)
        if before is not None:
            before.close()
            self.gaps += 1
        ids: list[bytes] = []

        def begin(other: Connection) -> bytes:
            # redis-py's clients have RESP2; messages that another connection's tracking is the reason of come in RESP3
            (number,) = other.ask(command(b"CLIENT", b"ID"))
            if isinstance(number, Refusal):
                raise Unable(str(number))
            ids.append(b"%d" % number)
            return command(b"HELLO", b"3")

        address = connection.address
        feed = Feed(
            f"{address[0]}:{address[1]}", lambda: self.server.dial(address), begin, b"", _MOST_BYTES, Bell(), again=False
        )  # fmt: skip
        feed.start()
        try:
            feed.await_begin()
            (reply,) = connection.ask(command(b"CLIENT", b"TRACKING", b"ON", b"REDIRECT", ids[0], b"BCAST", b"NOLOOP"))
            if isinstance(reply, Refusal):
                raise Unable(str(reply))
        except (Unable, Lost) as e:
            feed.close()
            if isinstance(e, Lost):
                raise
            self.why_not = str(e)
            self.close()
            return
        feed.is_due = False
        self._feeds[connection] = feed

    def take(self) -> set[bytes]:
        """The names that others have written, up to the time of this call, since it was last asked.

        A name may also be one whose key has expired, or was evicted.
        """
        told: dict[Address, set[bytes]] = {}
        confirm(feed for connection, feed in self._feeds.items() if connection.is_open)
        for connection, feed in self._feeds.items():
            names = {name for some in feed.take().values() for name in some}
            if feed.error is not None:
                connection.close()  # what writes next opens it again, and has it told anew
            if not connection.is_open:
                continue
            if feed.is_due:  # the target was flushed, or there were too many names
                feed.is_due = False
                self.gaps += 1
            known = told.get(connection.address)
            told[connection.address] = names if known is None else known & names
        return set().union(*told.values())

    def close(self) -> None:
        """Close the connections that tell."""
        for feed in self._feeds.values():
            feed.close()
        self._feeds = {}

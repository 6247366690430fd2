"""A server's data as it sends it to a replica: a snapshot of one moment, byte by byte as the server writes it."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, Protocol

from rdbkit.errors import TargetError
from rdbkit.format.replies import Refusal
from rdbkit.live.connection import Lost
from rdbkit.resp import command
from rdbkit.snapshot.capture import Frame, frame_of

__all__ = ["Link", "Replica", "ReplicationRefused"]

#: What is said before data is asked for. Who does not know a word of it refuses that word, and is asked all the same.
_ABOUT_US: Final = (
    command(b"REPLCONF", b"capa", b"eof"),  # sent without a file on the server's disk first, where its configuration has that
    # Valkey sends what an old one reads to who does not say how new he is; and nothing, where that lacks a type. Any is new enough.
    command(b"REPLCONF", b"version", b"255.255.255"),
    command(b"REPLCONF", b"rdb-only", b"1"),  # nothing is kept for us that comes behind the snapshot
)
_MOST: Final = 1 << 18
_LONGEST_LINE: Final = 1 << 12
_MOST_SHOWN: Final = 200
_UNKNOWN: Final = re.compile("unknown command|unknown subcommand|disallowed|not supported|not allowed|unsupported", re.IGNORECASE)


class Link(Protocol):
    """What is needed of a `Connection`."""

    def ask(self, *commands: bytes) -> list[object]:
        """The replies to commands. Raises: Lost."""
        ...

    def send(self, data: bytes) -> None:
        """Send all of it. Raises: Lost."""
        ...

    def receive(self, most: int) -> bytes:
        """What has come, at least one byte. Raises: Lost."""
        ...

    def close(self) -> None:
        """End the connection."""
        ...


class ReplicationRefused(TargetError):
    """This login may not replicate, or nobody may: to list the keys may be allowed all the same."""


class Replica:
    """The snapshot that a server sends a replica, as something to `read` from. It ends where the snapshot does.

    The bytes are the server's own, without what stands around them on the wire. That they are whole is told by their checksum, as
    with any snapshot.

    Args:
        link: a connection that is open, and that ends with this.
        name: of the server, for messages.
        waiting: called each time that the server says that it has not finished preparing.

    Attributes:
        name: as it was given.
        size: bytes of the snapshot; None where the server does not say that before.
        received: bytes of it so far.

    Raises: TargetError where the server sends no snapshot, or ends in the middle; ReplicationRefused where it would not send one.
    """

    def __init__(self, link: Link, name: str, waiting: Callable[[], object] | None = None) -> None:
        self.name = name
        self.received = 0
        self._link = link
        self._ends_behind = False  # nothing can come behind the mark
        self._came = b""  # and was not looked at
        self._data = b""  # to be read
        self._ended = False
        try:
            frame = self._ask(waiting or (lambda: None))
        except BaseException:
            link.close()
            raise
        self._mark = frame.mark
        self.size = None if frame.mark else frame.announced
        self._hold = b""  # what may begin the mark

    # -- asking

    def _ask(self, waiting: Callable[[], object]) -> Frame:
        """Ask for a snapshot, and read to where it begins."""
        try:
            *_, rdb_only = self._link.ask(*_ABOUT_US)
            self._ends_behind = not isinstance(rdb_only, Refusal)
            self._link.send(command(b"PSYNC", b"?", b"-1"))
            try:
                return self._read_front(waiting)
            except _NoCommand:
                self._link.send(command(b"SYNC"))  # of before Redis 2.8
                return self._read_front(waiting)
        except _NoCommand as e:
            raise self._refused(e.refusal) from None
        except Lost as e:
            raise TargetError(f"{e} before a snapshot was sent; the server's log says why", source=self.name) from None

    def _read_front(self, waiting: Callable[[], object]) -> Frame:
        while True:
            line = self._line()
            if not line:
                waiting()
            elif line.startswith(b"-"):
                refusal = _refusal(line)
                if _UNKNOWN.search(refusal.text) is not None:
                    raise _NoCommand(refusal)
                raise self._refused(refusal)
            elif (frame := frame_of(line)) is not None:
                return frame
            elif not line.startswith(b"+FULLRESYNC"):
                raise TargetError(f"the server answers a replica with {line[:_MOST_SHOWN]!r}, and no snapshot", source=self.name)

    def _line(self) -> bytes:
        """The next line of what comes, without its end. Raises: Lost."""
        while b"\n" not in self._came:
            if len(self._came) > _LONGEST_LINE:
                raise TargetError("not a Redis server: invalid reply", source=self.name)
            self._came += self._link.receive(_LONGEST_LINE)
        line, _, self._came = self._came.partition(b"\n")
        return line.removesuffix(b"\r")

    def _refused(self, refusal: Refusal) -> TargetError:
        said = str(refusal).rstrip(".")[:_MOST_SHOWN]
        if _UNKNOWN.search(refusal.text) is not None:
            return ReplicationRefused(f"the service does not allow replication ({said})", source=self.name)
        if refusal.code in ("NOPERM", "NOAUTH"):
            return ReplicationRefused(f"this login may not replicate: allow it +psync and +replconf ({said})", source=self.name)
        words = {
            "LOADING": "the server is still loading its data: run this again later",
            "NOMASTERLINK": "this replica has no link to its primary, and sends no snapshot: name the primary instead",
            "MASTERDOWN": "this replica has no link to its primary, and sends no snapshot: name the primary instead",
            "MISCONF": "the server cannot save its data: see its log",
            "BUSY": "the server is busy with a script: run this again later",
        }.get(refusal.code, "the server sends no snapshot")
        return TargetError(f"{words} ({said})", source=self.name)

    # -- reading

    def read(self, n: int, /) -> bytes:
        """Up to `n` bytes of the snapshot, b"" at its end. Raises: TargetError where the server ends in the middle."""
        while not self._data and not self._ended:
            self._data = self._more()
        piece, self._data = self._data[:n], self._data[n:]
        return piece

    def _more(self) -> bytes:
        try:
            return self._up_to_mark() if self._mark else self._up_to_size()
        except Lost as e:
            self.close()
            raise TargetError(
                f"{e} in the middle of the snapshot, behind {self.received:,} bytes; the server's log says why, as a limit for "
                "replicas (client-output-buffer-limit)",
                source=self.name,
            ) from None

    def _up_to_size(self) -> bytes:
        assert self.size is not None
        left = self.size - self.received
        if not left:
            self._end()
            return b""
        piece = self._receive(left)[:left]
        self.received += len(piece)
        return piece

    def _up_to_mark(self) -> bytes:
        data = self._hold + self._receive(_MOST)
        size = len(self._mark)
        # where nothing can come behind it, to look at the end is enough, as replicas do, and costs nothing
        end = data.find(self._mark, max(len(data) - size, 0) if self._ends_behind else 0)
        if end >= 0:
            self._end()
        else:
            end = max(len(data) - size, 0)
            self._hold = data[end:]
        self.received += end
        return data[:end]

    def _receive(self, most: int) -> bytes:
        if self._came:
            came, self._came = self._came, b""
            return came
        return self._link.receive(min(most, _MOST))

    def _end(self) -> None:
        self._ended = True
        self.close()

    def close(self) -> None:
        """End the connection."""
        self._link.close()

    def __enter__(self) -> Replica:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _NoCommand(Exception):
    """The server does not have the command, or says so."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


def _refusal(line: bytes) -> Refusal:
    """An error reply."""
    text = line[1:].decode("utf-8", "replace")
    word, _, rest = text.partition(" ")
    return Refusal(word, rest) if word.isupper() and word.isalpha() else Refusal("ERR", text)

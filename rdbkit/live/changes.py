"""Which keys of a server change: told by the server itself, or looked for again and again.

Three sources, the best first. With `CLIENT TRACKING ON BCAST` a server tells the names of all keys that change, by whatever means,
to a client that could have cached them; it needs no configuration. Keyspace notifications have to be switched on at the server.
Where neither is to be had, passes over all keys find what is different.

Each node has a connection of its own, read by a thread of its own as fast as it comes: what a server has told and nobody has read
takes up the server's memory.
"""

from __future__ import annotations

import os
import re
import selectors
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal, TypeAlias

from rdbkit.errors import CorruptError, TargetError
from rdbkit.format.replies import Refusal
from rdbkit.live.connection import Address, Connection, Lost, Refused
from rdbkit.live.server import PATIENT_WAITS, Server
from rdbkit.passes.changed_names import EVENTS, KEYS, ChangeReader, WaitingNames
from rdbkit.resp import command

__all__ = ["Bell", "Changes", "Feed", "Kind", "Names", "Unable"]

Kind: TypeAlias = Literal["tracking", "notifications", "passes"]
#: Names by database, `ANY_DB` for those that were told without one, with the time (`time.monotonic`) when each was first told.
Names: TypeAlias = dict[int, dict[bytes, float]]

TRACKING: Final = command(b"HELLO", b"3") + command(b"CLIENT", b"TRACKING", b"ON", b"BCAST")
_PING: Final = command(b"PING")
#: A connection over which nothing comes is closed by whatever lies between; and a new token is looked for.
_ALIVE_S: Final = 60.0
#: How long an answer to PING is waited for.
_LATE_S: Final = 60.0
_PATIENCE_S: Final = 300.0
#: Events without which some changes are not told, by the letters of notify-keyspace-events.
_NEEDED: Final = "g$lshzxet"
_FLUSHES: Final = re.compile(rb"(?m)^cmdstat_(?:flushall|flushdb|swapdb):calls=(\d+)")
_SWAPS: Final = re.compile(rb"(?m)^cmdstat_swapdb:calls=(\d+)")


class Unable(Exception):
    """A server does not tell its changes in this way; the text says why. It never leaves `live`."""


class Bell:
    """Wakes whoever waits for something to do."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def ring(self) -> None:
        """There is something to do."""
        self._event.set()

    def wait(self, seconds: float) -> None:
        """Wait until it rings, or so long."""
        self._event.wait(seconds)
        self._event.clear()


class Feed(threading.Thread):
    """What one node tells, read by a thread of its own over a connection of its own.

    Args:
        name: of the node, for errors.
        dial: opens a connection.
        begin: the commands that make the node tell, in bytes; may ask the connection before. Raises: Unable.
        pattern: as `ChangeReader` takes it.
        most_bytes: what names may take that nobody has taken yet.
        bell: rings when something was told.
        again: open a connection that broke again.

    Attributes:
        is_due: what happened before is not known: of every connection once it tells, and where names were too many.
        error: what ended it.
    """

    def __init__(
        self,
        name: str,
        dial: Callable[[], Connection],
        begin: Callable[[Connection], bytes],
        pattern: bytes,
        most_bytes: int,
        bell: Bell,
        *,
        again: bool = True,
    ) -> None:
        super().__init__(name=f"changes of {name}", daemon=True)
        self.node = name
        self.is_due = False
        self.error: Exception | None = None
        self._dial = dial
        self._begin = begin
        self._pattern = pattern
        self._again = again
        self._bell = bell
        self._waiting = WaitingNames(most_bytes)
        self._state = threading.Condition()
        self._generation = 0  # of the connection
        self._tells = False
        self._asked = self._sent = self._answered = 0  # PINGs
        self._ends = False
        self._wake_out, self._wake_in = os.pipe()

    # -- what others call

    def await_begin(self) -> None:
        """Wait until the node tells. Raises: what ended it: Unable, TargetError."""
        with self._state:
            self._state.wait_for(lambda: self._tells or self.error is not None)
        self.check()

    def check(self) -> None:
        """Raise what has ended it."""
        if self.error is not None:
            raise self.error

    def take(self) -> Names:
        """What was told since it was last taken."""
        with self._state:
            if self._waiting.everything:
                self._waiting.everything = False
                self.is_due = True
            return self._waiting.take()

    @property
    def events(self) -> int:
        """How many names were told, again and again the same among them."""
        return int(self._waiting.events)

    def count(self) -> int:
        """How many names wait."""
        with self._state:
            return len(self._waiting)

    def oldest(self) -> float:
        """When the name was told that has waited longest (`time.monotonic`); 0 where none waits."""
        with self._state:
            return self._waiting.oldest()

    def ping(self) -> tuple[int, int]:
        """Ask for a sign; returns what `await_pong` takes."""
        with self._state:
            self._asked += 1
            sign = self._generation, self._asked
        self._wake()
        return sign

    def await_pong(self, sign: tuple[int, int]) -> bool:
        """Whether all that the node told before the sign has come; not where the connection broke."""
        generation, number = sign
        with self._state:
            self._state.wait_for(
                lambda: self._answered >= number or self._generation != generation or not self._tells or self.error is not None
            )
            return self._answered >= number and self._generation == generation and self._tells

    def close(self) -> None:
        """End it."""
        self._ends = True
        self._wake()
        if self.ident is not None and self is not threading.current_thread():
            self.join()
        os.close(self._wake_in)
        os.close(self._wake_out)

    # -- its thread

    def run(self) -> None:
        """Read until it is closed."""
        waits = iter(PATIENT_WAITS)
        begun = time.monotonic()
        while not self._ends:
            try:
                self._serve()
            except Lost as e:
                if self._has_told():
                    waits, begun = iter(PATIENT_WAITS), time.monotonic()
                if not self._again:
                    return self._end(Unable(str(e)))
                if time.monotonic() - begun > _PATIENCE_S:
                    return self._end(TargetError(f"connection lost: {e}", source=self.node))
                self._sleep(next(waits, PATIENT_WAITS[-1]))
            except (CorruptError, Refused) as e:
                return self._end(TargetError(str(e), source=self.node))
            except (Unable, TargetError) as e:
                return self._end(e)
        return None

    def _serve(self) -> None:
        """Open a connection, and read it until it breaks. Raises: Lost, Unable, TargetError, CorruptError."""
        connection = self._dial()
        try:
            reader = ChangeReader(self._waiting, self._pattern)
            connection.send(self._begin(connection) + _PING)
            while not reader.pongs:
                self._feed(reader, connection.receive())
                if reader.refusal is not None:
                    raise Unable(str(reader.refusal))
            with self._state:
                self._generation += 1
                self._sent = self._answered = self._asked
                self._tells = self.is_due = True
                self._state.notify_all()
            self._bell.ring()
            self._read(connection, reader)
        finally:
            connection.close()

    def _read(self, connection: Connection, reader: ChangeReader) -> None:
        sent_at = time.monotonic()
        answered = self._answered
        pongs = reader.pongs
        while not self._ends:
            due = self._asked - self._sent
            now = time.monotonic()
            if not due and now - sent_at > _ALIVE_S:
                with self._state:
                    self._asked += 1
                due = 1
            if due:
                self._sent += due
                connection.send(connection.new_login() + _PING * due)
                sent_at = now
            if not connection.ready(0.0) and not self._await(connection):
                if self._answered < self._sent and time.monotonic() - sent_at > _LATE_S:
                    raise Lost(f"no reply from {self.node} in {_LATE_S:g} s", "late")
                continue
            self._feed(reader, connection.receive())
            if reader.refusal is not None:
                raise Lost(f"{self.node}: {reader.refusal}", "closed")
            if reader.pongs > pongs:
                with self._state:
                    self._answered = answered + int(reader.pongs - pongs)
                    self._state.notify_all()
            self._bell.ring()

    def _feed(self, reader: ChangeReader, data: bytes) -> None:
        with self._state:
            reader.feed(data, time.monotonic())

    def _await(self, connection: Connection) -> bool:
        """Wait until something comes, or is to be done; whether something came."""
        with selectors.DefaultSelector() as selector:
            selector.register(connection.fileno(), selectors.EVENT_READ)
            selector.register(self._wake_out, selectors.EVENT_READ)
            found = [key.fd for key, _ in selector.select(_ALIVE_S / 4)]
        if self._wake_out in found:
            os.read(self._wake_out, 1 << 10)
        return any(fd != self._wake_out for fd in found)

    def _has_told(self) -> bool:
        with self._state:
            told, self._tells = self._tells, False
            self._state.notify_all()
        self._bell.ring()
        return told

    def _end(self, error: Exception) -> None:
        with self._state:
            self.error = error
            self._tells = False
            self._state.notify_all()
        self._bell.ring()

    def _wake(self) -> None:
        os.write(self._wake_in, b"\0")

    def _sleep(self, seconds: float) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(self._wake_out, selectors.EVENT_READ)
            deadline = time.monotonic() + seconds
            while not self._ends and (left := deadline - time.monotonic()) > 0 and selector.select(left):
                os.read(self._wake_out, 1 << 10)


class Changes:
    """The changes of all nodes of a source.

    Args:
        server: the source.
        kind: how they are learned of; None takes the best that the server allows.
        most_bytes: what names may take that nobody has taken yet; with more, everything counts as changed.
        bell: rings when something was told.

    Attributes:
        kind: how they are learned of, once `begin` was called.
        why: for each way that the server does not allow, its words.
    """

    def __init__(self, server: Server, kind: Kind | None, most_bytes: int, bell: Bell) -> None:
        self.server = server
        self.kind: Kind = kind or "tracking"
        self.why: dict[str, str] = {}
        self._wanted = kind
        self._most_bytes = most_bytes
        self._bell = bell
        self._feeds: dict[Address, Feed] = {}
        self._pattern = b""
        self._marked = WaitingNames(most_bytes)
        self._due: set[Address] = set()
        self._counters: list[int] | None = None

    def begin(self) -> None:
        """Have all nodes tell, from now on; when this returns, they do.

        Raises: TargetError where they do not in the way that was asked for, or a node cannot be reached.
        """
        ways: list[Kind] = [self._wanted] if self._wanted is not None else ["tracking", "notifications", "passes"]
        for kind in ways:
            self.kind = kind
            try:
                self._pattern = self._find_pattern() if kind == "notifications" else b""
                if kind == "passes":
                    self._due = set(self.server.masters())
                else:
                    for address in self.server.masters():
                        self._open(address).start()
                    for feed in self._feeds.values():
                        feed.await_begin()
            except Unable as e:
                self.why[kind] = str(e)
                self.close()
                if self._wanted is not None:
                    raise TargetError(f"cannot follow its changes by {kind}: {e}", source=str(self.server.url)) from None
            except BaseException:
                self.close()
                raise
            else:
                break
        self._counters = self._count_flushes()

    def take(self) -> Names:
        """What has changed since it was last taken. Raises: TargetError where a node cannot be reached any more."""
        found = self._marked.take()
        for feed in self._feeds.values():
            feed.check()
            for db, names in feed.take().items():
                known = found.get(db)
                if known is None:
                    found[db] = names
                else:
                    for name, at in names.items():
                        known[name] = min(at, known.get(name, at))
        return found

    def mark(self, db: int, name: bytes) -> None:
        """Count a key of a database as changed."""
        self._marked.add(db, name, time.monotonic())

    def count(self) -> int:
        """How many names wait."""
        return len(self._marked) + sum(feed.count() for feed in self._feeds.values())

    def oldest(self) -> float:
        """When the name was told that has waited longest (`time.monotonic`); 0 where none waits."""
        found = [self._marked.oldest(), *(feed.oldest() for feed in self._feeds.values())]
        return min((at for at in found if at), default=0.0)

    @property
    def events(self) -> int:
        """How many names were told so far, again and again the same among them."""
        return sum(feed.events for feed in self._feeds.values())

    def due(self) -> set[Address]:
        """The nodes of which changes were missed, all of whose keys are to be compared; they are told once."""
        found, self._due = self._due, set()
        for address, feed in self._feeds.items():
            if feed.is_due:
                feed.is_due = False
                found.add(address)
        return found

    @property
    def is_due(self) -> bool:
        """Whether `due` would name a node."""
        return bool(self._due) or any(feed.is_due for feed in self._feeds.values())

    def confirm(self) -> bool:
        """Whether all that changed before this was called has been told; not where a connection broke.

        Two PINGs go out, one behind the answer to the other: where a write and a PING meet in one turn of the server's loop, what
        is told of the write comes behind the answer to the PING.
        """
        return confirm(self._feeds.values())

    def look(self) -> None:
        """Ask for what is not told: new nodes of a cluster, and commands that change databases as a whole.

        Raises: TargetError where the server cannot be reached.
        """
        try:
            self.server.read_slots()
        except Lost:
            return  # the next look tells
        masters = self.server.masters()
        if self.kind == "passes":
            return
        for address in set(self._feeds) - set(masters):
            self._feeds.pop(address).close()
        for address in masters:
            if address not in self._feeds:
                self._open(address).start()
        counters = self._count_flushes()
        if counters is not None and self._counters is not None and counters != self._counters:
            self._due.update(masters)
        self._counters = counters

    def all_due(self) -> None:
        """Have all keys of all nodes compared."""
        self._due.update(self.server.masters())

    def close(self) -> None:
        """Close the connections."""
        for feed in self._feeds.values():
            feed.close()
        self._feeds = {}

    def _open(self, address: Address) -> Feed:
        def begin(_: Connection) -> bytes:
            return command(b"PSUBSCRIBE", self._pattern) if self._pattern else TRACKING

        feed = Feed(
            f"{address[0]}:{address[1]}",
            lambda: self.server.dial(address),
            begin,
            self._pattern,
            self._most_bytes // max(1, len(self.server.masters())),
            self._bell,
        )
        self._feeds[address] = feed
        return feed

    def _find_pattern(self) -> bytes:
        """Which notifications to subscribe to. Raises: Unable where not all changes are told."""
        patterns: list[bytes] = []
        for (reply,) in self.server.ask_each_node(0, [command(b"CONFIG", b"GET", b"notify-keyspace-events")]):
            if isinstance(reply, Refusal):
                if self._wanted is None:
                    raise Unable(f"it does not say whether it has keyspace notifications: {reply}")
                return EVENTS
            patterns.append(pattern_for(reply))
        return KEYS if KEYS in patterns else EVENTS

    def _count_flushes(self) -> list[int] | None:
        """Of each node, how often commands came that change a database as a whole and are not told; None where that is hidden."""
        pattern = _FLUSHES if self.kind == "notifications" else _SWAPS
        found = []
        for (reply,) in self.server.ask_each_node(0, [command(b"INFO", b"commandstats")]):
            if not isinstance(reply, bytes):
                return None
            found.append(sum(int(number) for number in pattern.findall(reply)))
        return found


def confirm(feeds: Iterable[Feed]) -> bool:
    """Whether all that was told by these before the call has come."""
    some = list(feeds)
    for _ in range(2):
        signs = [(feed, feed.ping()) for feed in some]
        came = [feed.await_pong(sign) for feed, sign in signs]
        if not all(came):
            return False
    return True


def pattern_for(reply: Any) -> bytes:
    """The pattern to subscribe to where a server answers this to `CONFIG GET notify-keyspace-events`.

    Raises: Unable where it does not tell all changes.

    >>> pattern_for([b"notify-keyspace-events", b"AKE"]), pattern_for([b"notify-keyspace-events", b"KA"])
    (b'__keyevent@*__:*', b'__keyspace@*__:*')
    """
    flags = reply[1].decode() if isinstance(reply, list) and len(reply) == 2 and isinstance(reply[1], bytes) else ""
    missing = "" if "A" in flags else "".join(letter for letter in _NEEDED if letter not in flags)
    if missing or not set(flags) & set("KE"):
        raise Unable(f"its keyspace notifications do not tell all changes: set notify-keyspace-events to AKE (it is {flags!r})")
    return EVENTS if "E" in flags else KEYS

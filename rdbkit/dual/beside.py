"""What is asked of servers beside the commands of an application, so that none of these waits for it.

A thread compares a share of the reads, tells the other side of scripts, functions and messages, and asks for the keys of commands
that nobody knows. It has connections of its own; where a side is down, what waits for it is dropped and counted.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final, NamedTuple

from rdbkit.dual.comparing import differs
from rdbkit.dual.marks import Marks
from rdbkit.dual.metrics import Metrics
from rdbkit.dual.openers import ServerOpener
from rdbkit.dual.states import Side
from rdbkit.errors import RdbError, TargetError
from rdbkit.format.replies import Refusal
from rdbkit.live.databases import databases_of
from rdbkit.live.server import Server
from rdbkit.resp import command
from rdbkit.targets.keyspecs import TABLE

__all__ = ["Beside"]

#: So many things to do may wait.
_MOST: Final = 10_000
#: How long after a difference it is looked for again, and how often where the value changes meanwhile.
_AGAIN_S: Final = 1.0
_TIMES: Final = 5
#: How long the end of the process waits for what is to be done.
_END_S: Final = 2.0
#: How long a side that cannot be reached is left alone.
_DOWN_S: Final = 5.0
_OTHER: Final[dict[Side, Side]] = {"old": "new", "new": "old"}

_all: Final[weakref.WeakSet[Beside]] = weakref.WeakSet()


class Beside:
    """Does what nobody waits for, in one thread, which is started with the first thing to do.

    Args:
        db: the database of the application's connections.
        opens: open the two sides.
        metrics: where everything is counted.
        publish_both: messages go to the other side, too.
        mirror_flush: FLUSHDB and FLUSHALL do, too.
    """

    def __init__(
        self, db: int, opens: Mapping[Side, ServerOpener], metrics: Metrics, publish_both: bool = False, mirror_flush: bool = False
    ) -> None:
        self._db = db
        self._opens = opens
        self._metrics = metrics
        self._publish_both = publish_both
        self._mirror_flush = mirror_flush
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        """As in a process in which nothing has happened yet."""
        self._waiting: deque[_Job] = deque()
        self._later: deque[tuple[float, _Job]] = deque()  # when each is due, in this order
        self._down_until: dict[Side, float] = {}
        self._is_working = False
        self._bell = threading.Event()
        self._lock = threading.RLock()
        self._thread: threading.Thread | None = None
        self._servers: dict[Side, Server] = {}

    # -- any thread

    def wrote(self, used: Side, marks: Marks, kind: str, args: Sequence[bytes]) -> None:
        """A command was answered by the side that is used, whose keys cannot be marked at once. Never raises, and never blocks.

        Args:
            used: that side.
            marks: take the keys, once they are known.
            kind: "definition", "publish", "flush" or "unknown"; see `rdbkit.targets.keyspecs.Written`.
            args: the command.
        """
        other = _OTHER[used]
        if kind == "definition":
            self._put(_Job(lambda: self._tell(other, args), "definition"))
        elif kind == "publish":
            if self._publish_both:
                self._put(_Job(lambda: self._tell(other, args), None))
        elif kind == "unknown":
            self._put(_Job(lambda: self._find_keys(used, marks, args), "unknown-command"))
        elif self._mirror_flush and args and args[0].upper() in (b"FLUSHALL", b"FLUSHDB"):
            self._put(_Job(lambda: self._flush(used, marks, args), "flush"))
        else:
            self._metrics.count("needs_sync", 1, "flush")

    def compare(self, used: Side, marks: Marks | None, args: Sequence[bytes], keys: Sequence[bytes]) -> None:
        """See whether both sides answer the same to a read. Never raises, and never blocks."""
        self._put(_Job(lambda: self._compare(used, marks, args, keys, _NOTHING, _TIMES), None))

    def wait(self, wait_s: float) -> bool:
        """Wait until there is nothing to do, up to so many seconds; whether it is so."""
        end = time.monotonic() + wait_s
        while self._waiting or self._is_working:
            if time.monotonic() >= end:
                return False
            time.sleep(0.002)
        return True

    def _put(self, job: _Job) -> None:
        if len(self._waiting) >= _MOST:
            self._drop(job)
            return
        self._waiting.append(job)
        self._bell.set()
        if self._thread is None:
            with self._lock, suppress(RuntimeError):  # no thread begins while the interpreter ends
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="rdbkit dual beside", daemon=True)
                    thread.start()
                    self._thread = thread
                    atexit.register(self.wait, _END_S)

    def _drop(self, job: _Job) -> None:
        """Do without it."""
        if job.why is not None:
            self._metrics.count("needs_sync", 1, job.why)

    # -- the thread

    def _run(self) -> None:
        while True:
            due = self._later[0][0] - time.monotonic() if self._later else None
            if due is not None and due <= 0:
                job = self._later.popleft()[1]
            elif self._waiting:
                self._is_working = True
                job = self._waiting.popleft()
            else:
                self._bell.wait(due)
                self._bell.clear()
                continue
            try:
                job.work()
            except Exception as e:  # whatever it is: those that come behind are to be done
                self._drop(job)
                self._metrics.sample("outage", self._db, b"", str(e) if isinstance(e, RdbError) else repr(e))
            self._is_working = False

    def _ask(self, side: Side, key: bytes, args: Sequence[bytes]) -> Any:
        """The reply of a side, of a cluster that of the node that has a key. Raises: TargetError."""
        return self._of(side, lambda server: server.ask(self._db, [(key, [command(*args)])])[0][0])

    def _of(self, side: Side, ask: Callable[[Server], Any]) -> Any:
        """What a server says. Raises: TargetError, at once where it could not be reached a moment ago."""
        if time.monotonic() < self._down_until.get(side, 0.0):
            raise TargetError(f"the {side} side could not be reached a moment ago")
        try:
            server = self._servers.get(side)
            if server is None:
                server = self._servers[side] = self._opens[side]()
            return ask(server)
        except TargetError:
            self._down_until[side] = time.monotonic() + _DOWN_S
            self._metrics.count("outages")
            lost = self._servers.pop(side, None)
            if lost is not None:
                lost.close()
            raise

    def _tell(self, side: Side, args: Sequence[bytes]) -> None:
        """Send a command that all nodes are to know. Raises: TargetError where one refuses it."""
        if args[0].upper().endswith(b"PUBLISH"):
            replies = [self._ask(side, args[1], args)]
        else:
            replies = [reply for (reply,) in self._of(side, lambda server: server.ask_each_node(self._db, [command(*args)]))]
        for reply in replies:
            if isinstance(reply, Refusal):
                raise TargetError(f"the {side} side refuses {args[0].decode('utf-8', 'replace')}: {reply}")

    def _find_keys(self, used: Side, marks: Marks, args: Sequence[bytes]) -> None:
        """Mark the keys of a command that the table lacks: the server, which has answered it, knows them. Raises: TargetError."""
        name = args[0]
        info = self._ask(used, b"", [b"COMMAND", b"INFO", name])
        if isinstance(info, list) and info and info[0] is not None:
            TABLE.learn(name, info[0])
        written = TABLE.written(args)
        if written.kind in ("read", "other"):
            return
        keys: Any = written.keys
        if not keys:
            keys = self._ask(used, b"", [b"COMMAND", b"GETKEYS", *args])
        if not isinstance(keys, list | tuple):
            self._metrics.count("unknown", 1, name.decode("utf-8", "replace"))
            self._metrics.count("needs_sync", 1, "unknown-command")
            return
        marks.add_many(self._db, keys)
        for db, key in written.elsewhere:
            marks.add(db, key)

    def _flush(self, used: Side, marks: Marks, args: Sequence[bytes]) -> None:
        """Empty the other side, too. Raises: TargetError where it refuses that.

        What has come into the side that is used since may have been brought over already, and would be gone then: it is marked.
        """
        self._tell(_OTHER[used], args)
        databases = [self._db] if args[0].upper() == b"FLUSHDB" else self._of(used, databases_of)
        for db in databases:
            self._of(used, partial(_mark_all, marks, db))

    def _compare(
        self, used: Side, marks: Marks | None, args: Sequence[bytes], keys: Sequence[bytes], before: Any, times: int
    ) -> None:
        """Compare the replies of both sides; one that differs again later, while nothing has changed, is told."""
        one, other = self._ask(used, keys[0], args), self._ask(_OTHER[used], keys[0], args)
        if before is _NOTHING:
            self._metrics.count("compared")
        what = differs(args, one, other)
        if what is None:
            return
        is_waiting = marks is not None and any(marks.is_pending(self._db, key) for key in keys)
        if before is _NOTHING or is_waiting or differs(args, before, one) is not None:
            if times > 1:
                job = _Job(lambda: self._compare(used, marks, args, keys, one, times - 1), None)
                self._later.append((time.monotonic() + _AGAIN_S, job))
            return
        name = args[0].decode("utf-8", "replace").upper()
        self._metrics.count("differs", 1, name, what)
        self._metrics.sample("differs", self._db, keys[0], f"{name}: {what}")


def _mark_all(marks: Marks, db: int, server: Server) -> None:
    for names in server.scan(db):
        marks.add_many(db, names)


class _Job(NamedTuple):
    """Something to do, and what of it needs a sync where it is not done; None where nothing does."""

    work: Callable[[], object]
    why: str | None


#: No reply was seen before.
_NOTHING: Final = object()


def _begin_all() -> None:
    for beside in list(_all):
        beside._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_all)

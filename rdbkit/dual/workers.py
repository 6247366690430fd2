"""The proxy in several processes: each has connections of its own, and their parent the marks, the engine and the switch.

The processes are forked before there is any thread, and each has a socket to its parent. What a process has marked comes before its
answer that no request is under way, so that the parent has all marks then. A process ends when its parent has gone: it cannot know
which side it would have to use.
"""

from __future__ import annotations

import asyncio
import marshal
import os
import signal
import socket
import struct
import sys
import traceback
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from rdbkit.dual.cutover import NotSwitched, Worker
from rdbkit.dual.marks import Marks
from rdbkit.dual.metrics import Metrics
from rdbkit.dual.states import Side, State
from rdbkit.errors import RdbError, TargetError

__all__ = ["Counting", "Marking", "Process", "ToParent", "WholeWorker", "fork", "obey"]

_LENGTH: Final = struct.Struct("<I")
#: Seconds for which marks are gathered before they are sent.
_GATHER_S: Final = 0.002
#: Bytes that wait for the parent, above which marks are dropped.
_MOST_WAITING: Final = 64 << 20
#: Samples of keys that wait to be sent.
_MOST_SAMPLES: Final = 100
#: Seconds for which an answer is waited for, beyond what it may take.
_GRACE_S: Final = 5.0


class Marking(Protocol):
    """What a connection marks keys with: `Marks`, or what sends them to the parent."""

    def add(self, db: int, key: bytes) -> None:
        """Mark a key that was written."""

    def add_many(self, db: int, keys: Iterable[bytes]) -> None:
        """Mark keys of a database."""


class Counting(Protocol):
    """What a connection counts with: `Metrics`, or what sends it to the parent."""

    def count(self, name: str, number: int = 1, *labels: str) -> None:
        """Count so many more."""

    def sample(self, what: str, db: int, key: bytes, detail: str) -> None:
        """Remember a key of which something is to be told."""


class WholeWorker(Worker, Protocol):
    """A worker, and what else is asked of it."""

    async def turn(self, state: State) -> None:
        """What is written is marked, or not, as the state wants it."""

    async def report(self) -> Mapping[str, int]:
        """How many connections there are, and what else can be counted."""

    async def close(self) -> None:
        """Take no more clients, and close all connections; what they may have written is marked."""


class ToParent:
    """Marks and counts of a process, on their way to its parent. In the event loop of the process.

    Args:
        send: sends a message.
        waiting: how many bytes wait to be sent.
    """

    def __init__(self, send: Callable[[Any], None], waiting: Callable[[], int]) -> None:
        self._send = send
        self._waiting = waiting
        self._marks: dict[tuple[int, bytes], None] = {}
        self._counts: dict[tuple[str, tuple[str, ...]], int] = {}
        self._samples: deque[tuple[str, int, bytes, str]] = deque(maxlen=_MOST_SAMPLES)
        self._dropped = 0
        self._timer: asyncio.TimerHandle | None = None

    def add(self, db: int, key: bytes) -> None:
        """As Marks.add."""
        self._marks[db, key] = None
        self._begin()

    def add_many(self, db: int, keys: Iterable[bytes]) -> None:
        """As Marks.add_many."""
        for key in keys:
            self._marks[db, key] = None
        self._begin()

    def count(self, name: str, number: int = 1, *labels: str) -> None:
        """As Metrics.count."""
        self._counts[name, labels] = self._counts.get((name, labels), 0) + number
        self._begin()

    def sample(self, what: str, db: int, key: bytes, detail: str) -> None:
        """As Metrics.sample."""
        self._samples.append((what, db, key, detail))
        self._begin()

    def _begin(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_GATHER_S, self.flush)

    def flush(self) -> None:
        """Send what there is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting() > _MOST_WAITING:
            self._dropped += len(self._marks)
            self._marks.clear()
        if self._marks or self._counts or self._samples or self._dropped:
            self._send(("written", list(self._marks), list(self._counts.items()), list(self._samples), self._dropped))
            self._marks.clear()
            self._counts.clear()
            self._samples.clear()
            self._dropped = 0


def fork(number: int, run: Callable[[socket.socket], None]) -> list[tuple[int, socket.socket]]:
    """Fork processes; there must be no thread.

    Args:
        number: of processes.
        run: what each of them does, with its socket to the parent.

    Returns: of each its id, and the parent's end of the socket.
    """
    processes: list[tuple[int, socket.socket]] = []
    for _ in range(number):
        ours, theirs = socket.socketpair()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid:
            theirs.close()
            processes.append((pid, ours))
            continue
        code = 1
        try:
            ours.close()
            for _, sock in processes:
                sock.close()
            for each in (signal.SIGINT, signal.SIGTERM):  # a terminal and systemd send them to all: the parent says when
                signal.signal(each, signal.SIG_IGN)
            run(theirs)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return processes


class _Channel:
    """Messages over a socket, each of plain values."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @staticmethod
    async def over(sock: socket.socket) -> _Channel:
        return _Channel(*await asyncio.open_connection(sock=sock))

    def send(self, message: Any) -> None:
        data = marshal.dumps(message)
        self._writer.write(_LENGTH.pack(len(data)) + data)

    def waiting(self) -> int:
        return self._writer.transport.get_write_buffer_size()

    async def receive(self) -> Any:
        """The next message; None at the end."""
        try:
            (size,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
            return marshal.loads(await self._reader.readexactly(size))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def end(self) -> None:
        """Wait until the other side has read all and closed it: one that is closed with unread bytes loses what it has sent."""
        while await self.receive() is not None:
            pass
        self.close()

    def close(self) -> None:
        self._writer.close()


class Process:
    """A process of the proxy, as its parent sees it.

    Args:
        pid: its number.
        sock: to it.
        marks: takes what it marks.
        metrics: takes what it counts.
        ended: called once it has gone.
    """

    def __init__(self, pid: int, sock: socket.socket, marks: Marks, metrics: Metrics, ended: Callable[[Process], None]) -> None:
        self.pid = pid
        self._sock = sock
        self._marks = marks
        self._metrics = metrics
        self._ended = ended
        self._channel: _Channel | None = None
        self._asked: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._reading: asyncio.Task[None] | None = None
        self._failure = "a process of the proxy has ended"

    async def start(self) -> None:
        """Listen to it."""
        self._channel = await _Channel.over(self._sock)
        self._reading = asyncio.ensure_future(self._read(self._channel))

    async def ready(self) -> None:
        """Wait until it serves. Raises: NotSwitched with its words where it cannot."""
        await self._ask("report", None)

    async def open(self, side: Side) -> None:
        """As Worker."""
        await self._ask("open", None, side)

    async def pause(self, limit_s: float) -> dict[str, int]:
        """As Worker."""
        closed: dict[str, int] = await self._ask("pause", limit_s + _GRACE_S, limit_s)
        return closed

    async def prepare(self, side: Side) -> None:
        """As Worker."""
        await self._ask("prepare", None, side)

    async def commit(self, side: Side) -> int:
        """As Worker: where it has gone, none of its connections went on anywhere."""
        try:
            moved: int = await self._ask("commit", None, side)
        except RdbError:
            return 0
        return moved

    async def undo(self) -> None:
        """As Worker."""
        with suppress(RdbError):
            await self._ask("undo", None)

    async def turn(self, state: State) -> None:
        """As WholeWorker."""
        await self._ask("turn", None, str(state))

    async def report(self) -> Mapping[str, int]:
        """As WholeWorker."""
        found: dict[str, int] = await self._ask("report", _GRACE_S)
        return found

    async def close(self) -> None:
        """Have it end, and wait until it has."""
        with suppress(RdbError):
            await self._ask("close", None)
            if self._channel is not None:
                self._channel.close()
        if self._reading is not None:
            await self._reading

    async def _ask(self, do: str, wait_s: float | None, *arguments: Any) -> Any:
        """What it answers. Raises: NotSwitched, TargetError as it says; NotSwitched where it has gone or is late."""
        if self._channel is None:
            raise NotSwitched(self._failure)
        self._number += 1
        number = self._number
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        self._channel.send((number, do, arguments))
        try:
            async with asyncio.timeout(wait_s):
                return await answer
        except TimeoutError:
            raise NotSwitched(f"a process of the proxy does not answer within {wait_s:g} s") from None
        finally:
            self._asked.pop(number, None)

    async def _read(self, channel: _Channel) -> None:
        while (message := await channel.receive()) is not None:
            if message[0] == "written":
                _, marks, counts, samples, dropped = message
                for db, key in marks:
                    self._marks.add(db, key)
                for (name, labels), number in counts:
                    self._metrics.count(name, number, *labels)
                for sample in samples:
                    self._metrics.sample(*sample)
                self._marks.dropped += dropped
                continue
            _, number, error, answer = message
            if number == 0:
                self._failure = error
                break
            asked = self._asked.get(number)
            if asked is None or asked.done():
                continue
            if error is None:
                asked.set_result(answer)
            else:
                asked.set_exception(NotSwitched(error))
        self._channel = None
        channel.close()
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(NotSwitched(self._failure))
        self._ended(self)


async def obey(sock: socket.socket, make: Callable[[ToParent], Awaitable[WholeWorker]]) -> None:
    """Do what the parent says, until it has gone or says that this is the end.

    Args:
        sock: to the parent.
        make: begins to serve, with what marks and counts; what is told then what the parent says.
    """
    channel = await _Channel.over(sock)
    to_parent = ToParent(channel.send, channel.waiting)
    try:
        worker = await make(to_parent)
    except (OSError, RdbError) as e:
        channel.send(("answer", 0, str(e), None))
        await channel.end()
        return
    does: dict[str, Callable[..., Awaitable[Any]]] = {
        "open": worker.open, "pause": worker.pause, "prepare": worker.prepare, "commit": worker.commit, "undo": worker.undo,
        "report": worker.report,
    }  # fmt: skip
    running: set[asyncio.Task[None]] = set()

    async def do(number: int, what: str, arguments: Sequence[Any]) -> None:
        error = answer = None
        try:
            answer = await (worker.turn(State(arguments[0])) if what == "turn" else does[what](*arguments))
        except (OSError, RdbError) as e:
            error = str(e) or type(e).__name__
        to_parent.flush()  # what was marked comes before the answer
        channel.send(("answer", number, error, answer))

    while (message := await channel.receive()) is not None:
        number, what, arguments = message
        if what == "close":
            await worker.close()
            to_parent.flush()
            channel.send(("answer", number, None, None))
            await channel.end()
            break
        if what == "undo":
            for task in list(running):
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        task = asyncio.ensure_future(do(number, what, arguments))
        running.add(task)
        task.add_done_callback(running.discard)
    channel.close()
    if message is None:
        raise TargetError("the parent of this process has ended")

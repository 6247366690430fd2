"""Work done by several processes.

The file is cut in front of records, which is cheap. Each process is told where its pieces begin and end, reads them itself, and
writes what it made of them itself, where it is told. So the bytes of neither go from process to process: only their places do.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import cycle
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar

from rdbkit.errors import RdbError
from rdbkit.format.record import LargeRecord
from rdbkit.format.scan import LastRecord
from rdbkit.snapshot.reader import Block, Snapshot, Span
from rdbkit.storage.output import OutputHandle, write_at
from rdbkit.storage.source import read_at

Result = TypeVar("Result")

#: What a process does with a piece: what the parent gets to know of it, and what is for the output.
Work: TypeAlias = Callable[[Block], tuple[Result, Sequence[bytes]]]

#: Pieces that a process has at the same time: the one at hand, and the next.
_AHEAD: Final = 2
_LEFT_OUT: Final = -1
_DEAD: Final = "one of the processes ended before its work was done, as where memory is short; ask for fewer"


class Answer(Generic[Result]):
    """What a process made of a piece of the file.

    Attributes:
        result: what it says.
        sizes: of what it has for the output, in bytes.
        places: where in the output each of these goes, to be filled in before the next step; what has none is forgotten.
    """

    def __init__(self, result: Result, sizes: Sequence[int]) -> None:
        self.result = result
        self.sizes = sizes
        self.places = [_LEFT_OUT] * len(sizes)


class _Handle:
    """The handle of an open file, which another process gets as well when this is sent to it as it is started."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __getstate__(self) -> Any:
        from multiprocessing.reduction import DupFd

        return DupFd(self.number)

    def __setstate__(self, state: Any) -> None:
        self.number = state.detach()


class _Files(NamedTuple):
    """The source, None where its bytes are sent; and the output, None where what is for it is sent."""

    source: _Handle | None
    output: _Handle | None
    output_name: str


class _Process:
    """Another process, as this one sees it."""

    def __init__(self, make: Callable[..., Work[Any]], settings: tuple[Any, ...], files: _Files) -> None:
        self._connection, other = multiprocessing.Pipe()
        process = SpawnContext().Process(target=_serve, args=(other, make, settings, files), daemon=True)
        process.start()
        other.close()
        self._process = process

    def tell(self, message: Any) -> None:
        """Send it; raises: EOFError, OSError where the process has gone."""
        self._connection.send(message)

    def hear(self) -> Any:
        """What it answers. Raises: EOFError, OSError where the process has gone; _Failed."""
        answer = self._connection.recv()
        if isinstance(answer, _Failed):
            raise answer
        return answer

    def end(self) -> None:
        """Have it end, as all is done."""
        self.tell(None)
        self.hear()
        self._process.join()
        self._connection.close()

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.join()
        self._connection.close()


class _Failed(Exception):
    """A process has failed, and why."""

    def __init__(self, why: BaseException) -> None:
        super().__init__(why)
        self.why = why


def _serve(connection: Connection, make: Callable[..., Work[Any]], settings: tuple[Any, ...], files: _Files) -> None:
    """What another process does: work on pieces, and put in their places what it made of them, in the order in which it is told."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent has given up
        try:
            work = make(*settings)
            made: deque[Sequence[bytes]] = deque()
            while (message := connection.recv()) is not None:
                if isinstance(message, Block | Span):
                    result, pieces = work(_read(message, files.source))
                    made.append(pieces)
                    connection.send((result, [len(piece) for piece in pieces]))
                else:
                    _put(made.popleft(), message, files)
            connection.send(None)
        except BaseException as e:
            connection.send(_Failed(e))


def _end_with_parent() -> None:
    """A process whose parent was killed has nobody to work for."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _read(piece: Block | Span, source: _Handle | None) -> Block:
    if isinstance(piece, Block):
        return piece
    assert source is not None
    return Block(read_at(source.number, piece.offset, piece.size), piece.offset, piece.db)


def _put(pieces: Sequence[bytes], places: Sequence[int], files: _Files) -> None:
    for piece, place in zip(pieces, places, strict=True):
        if place == _LEFT_OUT:
            continue
        assert files.output is not None
        write_at(OutputHandle(files.output.number, files.output_name), piece, place)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes that are started inside never see an interrupt, SIGHUP or SIGTERM; this one sees them afterwards.

    These often go to all processes, as those of a terminal. The others end when this one no longer waits for them.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_tracker() -> None:
    """Start the process that the first other process would start, which lets interrupts through again behind it."""
    if os.name == "posix":
        with _interrupts_held():
            resource_tracker.ensure_running()


def in_order(
    snapshot: Snapshot,
    jobs: int,
    make: Callable[..., Work[Result]],
    settings: tuple[Any, ...],
    visitor: LastRecord | None = None,
    output: OutputHandle | None = None,
) -> Iterator[Answer[Result] | LargeRecord]:
    """What several processes make of the pieces of a snapshot, in file order.

    Records larger than a block come as they are, to be read before the next step.

    Args:
        make: a function of a module, called with `settings` in each process; returns what is called with each piece. Of what that
            returns, the first goes to this process; the other is written to the output.
        visitor: is told of everything here. Names are hashed by one, since other processes hash in ways of their own.
        output: handle of the output, into which the others write; None where it cannot be written to in any order.

    Raises: RdbError; OSError of the output.

    Memory: two pieces and what became of them for each process.
    """
    handle = snapshot.handle
    files = _Files(
        None if handle is None else _Handle(handle),
        None if output is None else _Handle(output.number),
        "" if output is None else output.name,
    )
    processes: list[_Process] = []
    done = False
    try:
        _start_tracker()
        with _interrupts_held():
            for _ in range(jobs):
                processes.append(_Process(make, settings, files))
        damage = None
        try:
            yield from _answers(snapshot, processes, visitor)
        except RdbError as e:
            damage = e
        for process in processes:  # what is sound before the damage is written, too
            process.end()
        done = True
        if damage is not None:
            raise damage
    except _Failed as e:
        raise e.why from None
    except (EOFError, ConnectionError):
        raise RdbError(_DEAD, source=snapshot.name) from None
    finally:
        if not done:
            for process in processes:
                process.kill()
    snapshot.check_unchanged()


def _answers(snapshot: Snapshot, processes: list[_Process], visitor: LastRecord | None) -> Iterator[Answer[Any] | LargeRecord]:
    """Hand out the pieces in turn, a few ahead, and give out what came of them."""
    waiting: deque[_Process] = deque()

    def answered() -> Iterator[Answer[Any]]:
        process = waiting.popleft()
        answer = Answer(*process.hear())
        yield answer
        process.tell(answer.places)

    turns = cycle(processes)
    try:
        for item in snapshot.blocks(visitor):
            if isinstance(item, Block | Span):
                process = next(turns)
                process.tell(item)
                waiting.append(process)
                if len(waiting) >= _AHEAD * len(processes):
                    yield from answered()
                continue
            while waiting:
                yield from answered()
            yield item
        while waiting:
            yield from answered()
    except RdbError:
        while waiting:  # what is sound before the damage
            yield from answered()
        raise

"""Work done by several processes.

The file is cut in front of records, which is cheap; each piece goes to another process, and what became of them is given out in
the order of the pieces.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, TypeVar

from rdbkit.errors import RdbError
from rdbkit.format.record import LargeRecord
from rdbkit.passes.hashes import NameHashes
from rdbkit.snapshot.reader import Block, Snapshot

Result = TypeVar("Result")


class _Process(SpawnProcess):
    """A process that does not hear SIGTERM, by which the pool ends the others where one of them was killed."""

    def terminate(self) -> None:
        self.kill()


class _Context(SpawnContext):
    """Processes that are spawned, not forked, which a program with threads must not use."""

    Process = _Process


class _Worker:
    """What a process does with each piece, made once."""

    work: Callable[[Block], Any]


def _start(make: Callable[..., Callable[[Block], Any]], settings: tuple[Any, ...]) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _Worker.work = make(*settings)


def _end_with_parent() -> None:
    """A process whose parent was killed would wait for ever for the next piece."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(block: Block) -> Any:
    return _Worker.work(block)


@contextmanager
def _interrupts_held() -> Iterator[None]:
    """Processes that are started inside never see an interrupt, SIGHUP or SIGTERM; this one sees them afterwards.

    These often go to all processes, as those of a terminal. The others end when this one no longer waits for them; interrupted in
    the middle of an answer, or before they have begun, they would leave it waiting for ever.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def in_order(
    snapshot: Snapshot,
    jobs: int,
    make: Callable[..., Callable[[Block], Result]],
    settings: tuple[Any, ...],
    hashes: NameHashes | None = None,
) -> Iterator[Result | LargeRecord]:
    """What several processes make of the pieces of a snapshot, in file order.

    Records larger than a block come as they are, to be read before the next step.

    Args:
        make: a function of a module, called with `settings` in each process; returns what is called with each piece.
        hashes: takes the name of every key, here, since other processes hash in ways of their own.

    Memory: some blocks and what became of them for each process.
    """
    waiting: deque[Future[Result]] = deque()
    with _interrupts_held():  # of what is told to the process that this starts to clear up behind the others
        pool = ProcessPoolExecutor(jobs, _Context(), _start, (make, settings))
    try:
        for item in snapshot.blocks(hashes):
            if isinstance(item, Block):
                with _interrupts_held():  # the first starts the processes
                    waiting.append(pool.submit(_work, item))
                if len(waiting) > 2 * jobs:
                    yield waiting.popleft().result()
                continue
            while waiting:
                yield waiting.popleft().result()
            yield item
        while waiting:
            yield waiting.popleft().result()
    except RdbError:
        while waiting:  # what is sound before the damage
            yield waiting.popleft().result()
        raise
    except BrokenProcessPool:
        raise RdbError(
            "one of the processes ended before its work was done, as where memory is short; ask for fewer", source=snapshot.name
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)

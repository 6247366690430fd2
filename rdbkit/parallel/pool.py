"""Work done by several processes.

The file is cut in front of records, which is cheap; each piece is decoded in another process, and what became of them is given
out in the order of the pieces.
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
from typing import Any, NamedTuple, TypeVar

from rdbkit.errors import CorruptError, RdbError
from rdbkit.format.budget import Budget
from rdbkit.format.decode import FileTypes
from rdbkit.format.record import LargeRecord
from rdbkit.format.scan import Scanner
from rdbkit.passes.hashes import NameHashes
from rdbkit.passes.jsonl import JsonLines
from rdbkit.selection import Selection
from rdbkit.snapshot.reader import Block, Limits, Snapshot

Result = TypeVar("Result")


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
    # not by fork, which a program with threads must not use
    context = multiprocessing.get_context("spawn")
    with _interrupts_held():  # of what is told to the process that this starts to clear up behind the others
        pool = ProcessPoolExecutor(jobs, context, _start, (make, settings))
    workers: list[Any] = []
    with pool:
        try:
            for item in snapshot.blocks(hashes):
                if isinstance(item, Block):
                    with _interrupts_held():  # the first starts the processes
                        waiting.append(pool.submit(_work, item))
                    workers = list(pool._processes.values()) or workers
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
            if pool._broken:  # one was killed; the pool would end the others by a signal that they do not hear
                for process in workers:
                    process.kill()
            for future in waiting:
                future.cancel()


class Part(NamedTuple):
    """What became of a piece as JSON lines: its lines, and what JsonLines says of them.

    `early`: expiries of members of the record before the piece, which is larger than a block; see `JsonLines`.
    """

    text: bytes
    early: tuple[list[bytes], list[int]]
    written: int
    skipped: list[RdbError]
    warnings: list[CorruptError]
    error: RdbError | None


def json_parts(snapshot: Snapshot, jobs: int, selection: Selection | None, skip: bool) -> Iterator[Part | LargeRecord]:
    """The parts of a snapshot as JSON lines; see `in_order`."""
    return in_order(snapshot, jobs, _json_lines, (*snapshot.header, snapshot.limits, snapshot.name, selection, skip))


def _json_lines(
    flavour: str, version: int, limits: Limits, source: str, selection: Selection | None, skip: bool
) -> Callable[[Block], Part]:
    file_types = FileTypes(flavour, version, limits.string_bytes, source, Budget(limits.held_bytes))
    wanted = selection.filter_for(file_types.types, limits.item_bytes) if selection else None

    def render(block: Block) -> Part:
        file_types.budget = Budget(limits.held_bytes)
        lines = JsonLines(file_types, limits.item_bytes, wanted, skip)
        lines.base = block.offset
        lines.db = block.db
        lines.database()
        error = None
        try:
            Scanner(flavour, version, limits.item_bytes, file_types.budget).scan(block.data, 0, len(block.data), lines)
        except RdbError as e:
            error = e
        early = (lines.early_members, lines.early_times) if lines.begun else (lines.members, lines.times)
        lines.end_line()
        warnings, file_types.warnings = file_types.warnings, []
        return Part(lines.take(), early, int(lines.written), lines.skipped, warnings, error)

    return render

"""JSON lines made by several processes.

The file is cut in front of records, which is cheap; each piece is decoded in another process, and the texts are written in the
order of the pieces.
"""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from typing import NamedTuple

from rdbkit.errors import RdbError
from rdbkit.format.decode import Coding
from rdbkit.format.scan import Scanner
from rdbkit.operations.jsonl import JsonLines
from rdbkit.record import Record
from rdbkit.selection import Selection
from rdbkit.snapshot.reader import Block, Limits, Snapshot


class Part(NamedTuple):
    """What became of a piece: its lines, and what JsonLines says of them.

    `early`: expiries of members of the record before the piece, which is larger than a block; see `JsonLines`.
    """

    text: bytes
    early: tuple[list[bytes], list[int]]
    written: int
    skipped: list[RdbError]
    error: RdbError | None


class _Worker:
    """What a process needs for each piece, made once."""

    current: _Worker

    def __init__(self, flavour: str, version: int, limits: Limits, source: str, selection: Selection | None, skip: bool) -> None:
        self.header = (flavour, version)
        self.limits = limits
        self.coding = Coding(flavour, version, limits.string_bytes, source)
        self.selection = selection
        self.skip = skip

    def render(self, block: Block) -> Part:
        lines = JsonLines(self.coding, self.limits.item_bytes, self.selection, self.skip)
        lines.base = block.offset
        lines.db = block.db
        lines.database()
        error = None
        try:
            Scanner(*self.header, self.limits.item_bytes).scan(block.data, 0, len(block.data), lines)
        except RdbError as e:
            error = e
        early = (lines.early_members, lines.early_times) if lines.begun else (lines.members, lines.times)
        lines.end_line()
        return Part(lines.take(), early, int(lines.written), lines.skipped, error)


def _start(*settings: object) -> None:
    _Worker.current = _Worker(*settings)  # type: ignore[arg-type]


def _render(block: Block) -> Part:
    return _Worker.current.render(block)


def parts(snapshot: Snapshot, jobs: int, selection: Selection | None, skip: bool) -> Iterator[Part | Record]:
    """The parts of a snapshot in file order, and each record larger than a block, to be read before the next step.

    Memory: some blocks and their texts for each process.
    """
    settings = (*snapshot.header, snapshot.limits, snapshot.name, selection, skip)
    waiting: deque[Future[Part]] = deque()
    # not by fork, which a program with threads must not use
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, context, _start, settings) as pool:
        try:
            for item in snapshot.blocks():
                if isinstance(item, Block):
                    waiting.append(pool.submit(_render, item))
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
        finally:
            for future in waiting:
                future.cancel()

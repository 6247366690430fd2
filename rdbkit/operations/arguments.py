"""What the verbs take: a snapshot, open or by its path."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias, TypeVar

from rdbkit.snapshot.reader import Snapshot, open_snapshot
from rdbkit.storage.source import Input

Row = TypeVar("Row")
#: A path, "-" for standard input, an object with `read(n)`, or a snapshot that is open and has not been read.
Source: TypeAlias = Input | Snapshot


@contextmanager
def opened(source: Source, *, damaged: bool = False) -> Iterator[Snapshot]:
    """The snapshot of a source; one that is opened here is closed at the end.

    Args:
        damaged: as of `rdbkit.open`.

    Raises: TypeError for what is no source; and as `rdbkit.open`.
    """
    if isinstance(source, Snapshot):
        yield source
        return
    with _open(source, damaged) as snapshot:
        yield snapshot


def rows_of(source: Source, read: Callable[[Snapshot], Iterator[Row]]) -> Iterator[Row]:
    """The rows that `read` makes of a source, which stays open until the last one is taken.

    Raises: at once, what `opened` does.
    """
    return read(source) if isinstance(source, Snapshot) else _rows(_open(source), read)


def _rows(snapshot: Snapshot, read: Callable[[Snapshot], Iterator[Row]]) -> Iterator[Row]:
    with snapshot:
        yield from read(snapshot)


def _open(source: Input, damaged: bool = False) -> Snapshot:
    if not isinstance(source, str | os.PathLike) and not hasattr(source, "read"):
        raise TypeError(f"a snapshot is a path, a file of bytes or an open Snapshot, not {type(source).__name__}")
    return open_snapshot(source, damaged=damaged)

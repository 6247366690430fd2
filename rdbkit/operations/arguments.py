"""What the verbs take: a snapshot, open or by its path."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

from rdbkit.snapshot.reader import Snapshot, open_snapshot
from rdbkit.storage.source import Input
from rdbkit.text import as_bytes

Row = TypeVar("Row")
#: A path, "-" for standard input, an object with `read(n)`, or a snapshot that is open and has not been read.
Source: TypeAlias = Input | Snapshot
#: Of one file that is read more than once, or of several.
Path: TypeAlias = str | os.PathLike[str]


@contextmanager
def opened(source: Source, **settings: Any) -> Iterator[Snapshot]:
    """The snapshot of a source; one that is opened here is closed at the end.

    Args:
        settings: of `rdbkit.open`; None stands for the default of each. A snapshot that is open has its own.

    Raises: TypeError for what is no source; and as `rdbkit.open`.
    """
    if isinstance(source, Snapshot):
        yield source
        return
    with _open(source, **settings) as snapshot:
        yield snapshot


def file_of(source: Source) -> Input | None:
    """What a source is a snapshot of: the path of one that is open, where it has one."""
    return source.path if isinstance(source, Snapshot) else source


def rows_of(source: Source, read: Callable[[Snapshot], Iterator[Row]]) -> Iterator[Row]:
    """The rows that `read` makes of a source, which stays open until the last one is taken.

    Raises: at once, what `opened` does.
    """
    return read(source) if isinstance(source, Snapshot) else _rows(_open(source), read)


def _rows(snapshot: Snapshot, read: Callable[[Snapshot], Iterator[Row]]) -> Iterator[Row]:
    with snapshot:
        yield from read(snapshot)


def _open(source: Input, **settings: Any) -> Snapshot:
    if not isinstance(source, str | os.PathLike) and not hasattr(source, "read"):
        raise TypeError(f"a snapshot is a path, a file of bytes or an open Snapshot, not {type(source).__name__}")
    return open_snapshot(source, **{name: value for name, value in settings.items() if value is not None})


def separators_of(separators: str | bytes) -> bytes:
    """Bytes of which each ends a part of a key's name.

    Raises: ValueError for a str that has other characters than ASCII, of which one would be several bytes; TypeError for what is
        neither str nor bytes.

    >>> separators_of(":/")
    b':/'
    """
    if isinstance(separators, str) and not separators.isascii():
        raise ValueError("separators are ASCII: each of them is one byte")
    return as_bytes(separators, "separators")


def paths_of(files: Path | Iterable[Path]) -> list[str]:
    """The paths of one file or of several.

    Raises: TypeError for what is no path.

    >>> from pathlib import Path
    >>> paths_of("a.rdb"), paths_of([Path("a.rdb"), "b.rdb"])
    (['a.rdb'], ['a.rdb', 'b.rdb'])
    """
    if isinstance(files, str | bytes | os.PathLike | Snapshot):  # of which the last has items, too, but they are no paths
        return [path_of(files)]
    if not hasattr(files, "__iter__"):
        raise TypeError(f"files are paths, str or PathLike, or one of them, not {type(files).__name__}")
    return [path_of(each) for each in files]


def path_of(file: Path) -> str:
    """The path of a file that has to be one, since it is read more than once.

    Raises: TypeError for what is no path.
    """
    if not isinstance(file, str | os.PathLike):
        raise TypeError(f"a file that is read more than once is a path, str or PathLike, not {type(file).__name__}")
    return os.fspath(file)

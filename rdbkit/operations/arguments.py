"""What the verbs take: a snapshot, open or by its path."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, TypeVar

from rdbkit.snapshot.reader import Snapshot, open_snapshot
from rdbkit.storage.location import Identity
from rdbkit.storage.remote import name_of
from rdbkit.storage.source import Input, changed
from rdbkit.text import as_bytes

Row = TypeVar("Row")
#: A path or URL, "-" for standard input, an object with `read(n)`, or a snapshot that is open and has not been read.
Source: TypeAlias = Input | Snapshot
#: Of one file that is read more than once, or of several: its path or URL, or a snapshot that was opened so and not read yet.
File: TypeAlias = str | os.PathLike[str] | Snapshot


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


def paths_of(files: File | Iterable[File]) -> list[str]:
    """The paths of one file or of several.

    Raises: as `path_of`.

    >>> from pathlib import Path
    >>> paths_of("a.rdb"), paths_of([Path("a.rdb"), "b.rdb"])
    (['a.rdb'], ['a.rdb', 'b.rdb'])
    """
    if isinstance(files, str | bytes | os.PathLike | Snapshot):  # of which the last has items, too, but they are no files
        return [path_of(files)]
    if not hasattr(files, "__iter__"):
        raise TypeError(f"files are paths, str or PathLike, or one of them, not {type(files).__name__}")
    return [path_of(each) for each in files]


def path_of(file: File) -> str:
    """The path or URL of a file that has to be one, since it is read more than once; the URL without its query.

    A snapshot that is open stands for its file, which is read from its beginning, with the settings of the verb.

    Raises: TypeError for what is neither; ValueError for a snapshot that has been read, or that is of no file with a path;
        ChangedError where that path has another file by now; OSError.
    """
    if isinstance(file, Snapshot):
        return _path_of_snapshot(file)
    if not isinstance(file, str | os.PathLike):
        raise TypeError(
            f"a file that is read more than once is a path, str or PathLike, or an open Snapshot, not {type(file).__name__}"
        )
    return name_of(file)


def _path_of_snapshot(snapshot: Snapshot) -> str:
    if snapshot.path is None or not snapshot.can_reopen:
        raise ValueError(f"{snapshot.name}: it is read more than once, and has to be opened by the path of a file")
    if snapshot.has_begun:
        raise ValueError("a snapshot can be read once; open it again")
    if Identity.of(snapshot.path) != snapshot.identity:
        raise changed(snapshot.path)
    return snapshot.path

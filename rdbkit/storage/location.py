"""What is known of an input or output without opening it: whether it is there, how large it is, which file it is.

Nobody outside of this folder asks the operating system for these.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeGuard

from rdbkit.storage.stand_in import content_of
from rdbkit.text import valid_text

_Path = str | os.PathLike[str]

_ENDS = 16  # bytes of the header and of the checksum


def exists(path: _Path) -> bool:
    """Whether there is anything, also by way of links."""
    return os.path.exists(path)


def is_taken(path: _Path) -> bool:
    """Whether a name is not free: a link to what is not there takes it as well."""
    return os.path.lexists(path)


def is_file(path: _Path) -> bool:
    """Whether there is a regular file, also by way of links."""
    return os.path.isfile(content_of(path))


def is_folder(path: _Path) -> bool:
    """Whether there is a folder, also by way of links."""
    return os.path.isdir(content_of(path))


def is_link(path: _Path) -> bool:
    """Whether the name is that of a symbolic link."""
    return os.path.islink(path)


def is_rereadable(src: object) -> TypeGuard[_Path]:
    """Whether an input can be read again from its beginning: a path of a regular file, rather than standard input or a pipe."""
    return isinstance(src, str | os.PathLike) and src != "-" and is_file(src)


def file_size(src: object) -> int | None:
    """Bytes that an input has; None for what has no size before it is read, or is not there."""
    return os.path.getsize(content_of(src)) if is_rereadable(src) else None


def folder_size(path: _Path) -> int | None:
    """Bytes of the files in a folder; None where one has got another name meanwhile. Raises: OSError where there is no folder."""
    with os.scandir(path) as entries:
        try:
            return sum(entry.stat(follow_symlinks=False).st_size for entry in entries if entry.is_file(follow_symlinks=False))
        except FileNotFoundError:
            return None


def total_size(sources: Iterable[object]) -> int:
    """Bytes that inputs have in all, without those whose size is not known."""
    return sum(file_size(src) or 0 for src in sources)


def real_path(path: _Path) -> str:
    """The path without links in it; of a name that is free as well."""
    return os.path.realpath(os.fspath(path))


def file_id(path: _Path) -> tuple[int, int]:
    """What is the same for all names of a file. Raises: OSError where there is none."""
    found = os.stat(content_of(path))
    return found.st_dev, found.st_ino


def revision(path: _Path) -> tuple[int, int]:
    """Size in bytes and time of the last change in nanoseconds, by which a file is known to be as it was. Raises: OSError."""
    found = os.stat(content_of(path))
    return found.st_size, found.st_mtime_ns


def fingerprint(path: _Path) -> list[Any]:
    """What tells a file from another in a state, as JSON types: its name, `revision`, and first and last bytes. Raises: OSError."""
    size, mtime_ns = revision(path)
    with open(content_of(path), "rb") as file:
        head = file.read(_ENDS)
        file.seek(max(0, size - _ENDS))
        return [valid_text(os.path.basename(path)), size, mtime_ns, head.hex(), file.read(_ENDS).hex()]


def is_same_file(one: object, other: object) -> bool:
    """Whether both are paths of one file that there is, also by way of links."""
    return is_rereadable(one) and is_rereadable(other) and os.path.samefile(content_of(one), content_of(other))


def check_distinct(names: Sequence[str]) -> None:
    """Raise ValueError where two of these paths are one file; OSError where there is no file."""
    seen: dict[tuple[int, int], str] = {}
    for name in names:
        if name == "-":
            continue
        identity = file_id(name)
        if identity in seen:
            raise ValueError(f"{name} and {seen[identity]} are the same file")
        seen[identity] = name


@dataclass(frozen=True)
class Identity:
    """What tells a regular file from any other, and from itself after a change."""

    device: int
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, file: object) -> Self | None:
        """That of a path, or of an object whose `fileno()` says which file it is; None for what is not a regular file.

        Raises: OSError where a path cannot be asked.
        """
        if isinstance(file, str | os.PathLike):
            found = os.stat(content_of(file))
        else:
            try:
                found = os.fstat(file.fileno())  # type: ignore[attr-defined]
            except (AttributeError, OSError, ValueError):  # without one, closed, or never a file
                return None
        if not stat.S_ISREG(found.st_mode):
            return None
        return cls(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)

    def is_changed_in(self, later: Identity | None) -> bool:
        """Whether this file was written to, rather than another given its name."""
        return later is not None and (later.device, later.inode) == (self.device, self.inode) and later != self

"""What is known of an input or output without opening it: whether it is there, how large it is, which file it is.

Nobody outside of this folder asks the operating system for these, or the store of a URL. A URL is a file that is there, as long as
nobody has opened it: whoever does is told what it is.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Self, TypeGuard, cast

from rdbkit.errors import RdbError
from rdbkit.storage.remote import RemoteReader, base_name, is_remote, name_of, version_of
from rdbkit.storage.stand_in import content_of
from rdbkit.text import valid_text

_Path = str | os.PathLike[str]

_ENDS = 16  # bytes of the header and of the checksum


def exists(path: _Path) -> bool:
    """Whether there is anything, also by way of links."""
    return is_remote(path) or os.path.exists(path)


def is_taken(path: _Path) -> bool:
    """Whether a name is not free: a link to what is not there takes it as well."""
    return os.path.lexists(path)


def is_file(path: _Path) -> bool:
    """Whether there is a regular file, also by way of links."""
    content = content_of(path)
    return is_remote(content) or os.path.isfile(content)


def is_local(path: object) -> TypeGuard[_Path]:
    """Whether an input is a regular file on this machine, or a copy of it is."""
    return is_rereadable(path) and not is_remote(content_of(path))


def is_folder(path: _Path) -> bool:
    """Whether there is a folder, also by way of links."""
    return os.path.isdir(content_of(path))


def is_link(path: _Path) -> bool:
    """Whether the name is that of a symbolic link."""
    return os.path.islink(path)


def is_rereadable(src: object) -> TypeGuard[_Path]:
    """Whether an input can be read again from its beginning: a file, by its path or URL, rather than standard input or a pipe."""
    return isinstance(src, str | os.PathLike) and src != "-" and is_file(src)


def file_size(src: object) -> int | None:
    """Bytes that an input has; None for what has no size before it is read, is not there, or cannot be asked."""
    if not is_rereadable(src):
        return None
    content = content_of(src)
    if not is_remote(content):
        return os.path.getsize(content)
    try:
        return version_of(content).size
    except RdbError:  # whoever opens it will say so
        return None


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
    """The path from the root on, without links in it; of a name that is free as well. A URL is as it is, without its query."""
    return name_of(path) if is_remote(path) else os.path.realpath(os.fspath(path))


def absolute_path(path: _Path) -> str:
    """The path from the root on, with its links. A URL is as it is, without its query."""
    return name_of(path) if is_remote(path) else os.path.abspath(os.fspath(path))


def file_id(path: _Path) -> object:
    """What is the same for all names of a file. Raises: OSError where there is none."""
    content = content_of(path)
    if is_remote(content):
        return content
    found = os.stat(content)
    return found.st_dev, found.st_ino


def revision(path: _Path) -> tuple[int, int | str]:
    """Size in bytes, and what changes with the content, by which a file is known to be as it was.

    The latter is the time of the last change in nanoseconds, and of a URL the ETag.

    Raises: OSError; RdbError where a URL cannot be asked.
    """
    found = Identity.of(path)
    if found is None:
        raise OSError(errno.EINVAL, "it is not a file", os.fspath(path))
    return found.size, found.version


def fingerprint(path: _Path) -> list[Any]:
    """What tells a file from another in a state, as JSON types: its name, `revision`, and first and last bytes.

    Raises: OSError; RdbError where a URL cannot be asked.
    """
    size, version = revision(path)
    with open_file(path) as file:
        head = file.read(_ENDS)
        file.seek(max(0, size - _ENDS))
        return [valid_text(base_name(os.fspath(path))), size, version, head.hex(), file.read(_ENDS).hex()]


def open_file(path: _Path) -> BinaryIO:
    """A file to be read from any place, on this machine or not; where it is compressed, as it is.

    Raises: OSError; RdbError where a URL cannot be opened.
    """
    content = content_of(path)
    if is_remote(content):
        return cast(BinaryIO, RemoteReader(content))
    return cast(BinaryIO, open(content, "rb", buffering=0))


def is_same_file(one: object, other: object) -> bool:
    """Whether both are paths of one file that there is, also by way of links."""
    return is_rereadable(one) and is_rereadable(other) and file_id(one) == file_id(other)


def check_distinct(names: Sequence[str]) -> None:
    """Raise ValueError where two of these paths are one file; OSError where there is no file."""
    seen: dict[object, str] = {}
    for name in names:
        if name == "-":
            continue
        identity = file_id(name)
        if identity in seen:
            raise ValueError(f"{name} and {seen[identity]} are the same file")
        seen[identity] = name


@dataclass(frozen=True)
class Identity:
    """What tells a file from any other, and from itself after a change.

    Attributes:
        file: its device and inode, or its URL.
        version: the time of its last change in nanoseconds, or its ETag.
    """

    file: tuple[int, int] | str
    size: int
    version: int | str

    @classmethod
    def of(cls, file: object) -> Self | None:
        """That of a path or URL, or of an object whose `fileno()` says which file it is; None for what is not a regular file.

        Raises: OSError where a path cannot be asked; RdbError where a URL cannot.
        """
        if isinstance(file, RemoteReader):
            return cls(*file.version)
        if isinstance(file, str | os.PathLike):
            content = content_of(file)
            if is_remote(content):
                return cls(*version_of(content))
            found = os.stat(content)
        else:
            try:
                found = os.fstat(file.fileno())  # type: ignore[attr-defined]
            except (AttributeError, OSError, ValueError):  # without one, closed, or never a file
                return None
        if not stat.S_ISREG(found.st_mode):
            return None
        return cls((found.st_dev, found.st_ino), found.st_size, found.st_mtime_ns)

    def is_changed_in(self, later: Identity | None) -> bool:
        """Whether this file was written to, rather than another given its name."""
        return later is not None and later.file == self.file and later != self

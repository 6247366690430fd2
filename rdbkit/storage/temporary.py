"""Temporary files that are known for what they are: who may read them, and whether their process still runs."""

from __future__ import annotations

import os
import re
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import BinaryIO, Final

from rdbkit.storage.location import open_file
from rdbkit.storage.source import FileSource, open_source
from rdbkit.storage.stand_in import content_of

if sys.platform != "win32":
    import fcntl

__all__ = ["PRIVATE", "Permissions", "Temporary"]

#: Stands for what nobody else may read: what comes from a remote place.
PRIVATE: Final = object()
_EVERYBODY: Final = 0o666
_OWNER: Final = 0o600
_OWNER_ENTERS: Final = 0o700
_PIECE: Final = 1 << 20
_GROUP: Final = 0o060
_OTHERS: Final = 0o006
#: An access control list: the bits of the group then say what any of its entries may, not what the group may.
_ACL: Final = "system.posix_acl_access"
_NAME: Final = re.compile(r"\.rdbkit-([0-9a-f]{16})(-[0-9]+)?\.tmp")
#: Folders that this process has looked through.
_cleared: set[str] = set()


class Permissions:
    """Who may read what is made of some sources: nobody who may not read all of them.

    Args:
        sources: paths, "-" for standard input, or what was read. What is not a regular file, as a pipe, counts as private. None
            where nothing was read: then the umask alone decides.
    """

    def __init__(self, sources: Iterable[object] | None) -> None:
        self._found = [] if sources is None else [_readers(source) for source in sources]

    def also(self, path: str) -> Permissions:
        """The same, without who may not read the file at `path`."""
        both = Permissions([path])
        both._found += self._found
        return both

    def mode(self, group: int) -> int:
        """Of a file of this group. Its owner may read and write it."""
        mode = _EVERYBODY
        for found, of_group in self._found:
            if of_group != group:  # what that group may, this one may only if all may
                found &= ~_GROUP | (found & _OTHERS) << 3
            mode &= found
        return mode | _OWNER

    def folder_mode(self, group: int) -> int:
        """Of a folder of this group: who may read what is in it may enter it."""
        mode = self.mode(group)
        return mode | (mode & 0o444) >> 2


def _readers(source: object) -> tuple[int, int]:
    """Mode and group of a source; the group is -1 where the bits of the group say nothing of one."""
    if source == "-":
        source = sys.stdin
    try:
        where = content_of(source) if isinstance(source, str | os.PathLike) else source.fileno()  # type: ignore[attr-defined]
        found = os.stat(where)
    except (AttributeError, OSError, ValueError):
        return _OWNER, -1
    if not stat.S_ISREG(found.st_mode):
        return _OWNER, -1
    with suppress(AttributeError, OSError):  # not every system has such lists
        if _ACL in os.listxattr(where):
            return found.st_mode, -1
    return found.st_mode, found.st_gid


def group_of_new(folder: str) -> int:
    """The group that a new file in this folder gets."""
    found = os.stat(folder or os.curdir)
    if sys.platform == "darwin" or found.st_mode & stat.S_ISGID:
        return found.st_gid
    return os.getegid() if sys.platform != "win32" else -1


def make_folders(path: str, permissions: Permissions) -> list[str]:
    """Make a folder and those on the way to it; returns those that were made, the innermost first."""
    missing: list[str] = []
    path = os.path.abspath(path)
    while not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    made: list[str] = []
    try:
        for folder in reversed(missing):
            with suppress(FileExistsError):  # made by somebody else meanwhile
                os.mkdir(folder, permissions.folder_mode(group_of_new(os.path.dirname(folder))))
                made.insert(0, folder)
    except BaseException:
        for folder in made:
            with suppress(OSError):
                os.rmdir(folder)
        raise
    return made


class Temporary:
    """A temporary file, which is locked until `close`, also where it gets another name.

    So a run that finds one without a lock knows that its process was killed, and removes it.

    Attributes:
        path: of the file.
        handle: of the open file, to write to.
    """

    def __init__(self, folder: str, permissions: Permissions) -> None:
        remove_left_over(folder)
        group = group_of_new(folder)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        while True:
            self._id = os.urandom(8).hex()
            self.path = os.path.join(folder, f".rdbkit-{self._id}.tmp")
            # The mode is there from the first byte on. By os.open, so that the umask counts.
            self.handle = os.open(self.path, flags, permissions.mode(group))
            try:
                found = os.fstat(self.handle)
                if found.st_gid != group and sys.platform != "win32":  # as some file systems choose
                    os.fchmod(self.handle, stat.S_IMODE(found.st_mode) & permissions.mode(found.st_gid))
                if _lock(self.handle, self.path):
                    return
            except BaseException:
                os.close(self.handle)
                with suppress(OSError):
                    os.unlink(self.path)
                raise
            os.close(self.handle)  # another run took it for one that was left, before it was locked

    def beside(self, number: int) -> str:
        """The path of a further temporary file, for which this one's lock stands."""
        return f"{self.path.removesuffix('.tmp')}-{number}.tmp"

    def close(self) -> None:
        """Give up the lock; call it when the file has its last name, or none."""
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1


def _lock(handle: int, path: str) -> bool:
    """Lock a file of one's own; False where it has lost its name meanwhile."""
    if sys.platform == "win32":  # where nobody removes what is open
        return True
    with suppress(OSError):  # where the file system has no locks, nobody else gets one either
        fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        return os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(handle))
    except FileNotFoundError:
        return False


def remove_left_over(folder: str) -> None:
    """Remove the temporary files of runs that were killed; once in a process for each folder. What cannot be removed stays."""
    folder = os.path.abspath(folder)
    if sys.platform == "win32" or folder in _cleared:
        return
    _cleared.add(folder)
    with suppress(OSError):
        names = os.listdir(folder)
        for name in names:
            found = _NAME.fullmatch(name)
            if found is not None:
                with suppress(OSError):
                    _remove(folder, found[1], [each for each in names if each.startswith(f".rdbkit-{found[1]}-")])


def _remove(folder: str, number: str, others: Sequence[str]) -> None:
    """Remove a temporary file and those beside it, if it can be locked, or is not there any more."""
    path = os.path.join(folder, f".rdbkit-{number}.tmp")
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        handle = -1
    try:
        if handle >= 0:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                return
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.samestat(os.stat(path, follow_symlinks=False), found):
                return
        for name in others:
            if _NAME.fullmatch(name):
                _remove_one(os.path.join(folder, name))
        if handle >= 0:
            os.unlink(path)
    finally:
        if handle >= 0:
            os.close(handle)


def _remove_one(path: str) -> None:
    """Remove a temporary file, or a temporary folder of one's own with what is in it."""
    with suppress(FileNotFoundError):
        found = os.stat(path, follow_symlinks=False)
        if not stat.S_ISDIR(found.st_mode):
            os.unlink(path)
        elif found.st_uid == os.geteuid():
            shutil.rmtree(path)


def give_name(temporary: str, final: str, permissions: Permissions) -> None:
    """Rename a temporary file over whatever has that name; who might not read that may not read this.

    Args:
        permissions: as it was made with.

    Raises: OSError.
    """
    if os.path.exists(final):
        found = os.stat(temporary)
        os.chmod(temporary, found.st_mode & permissions.also(final).mode(found.st_gid))
    os.replace(temporary, final)


@contextmanager
def temporary_file(folder: str, permissions: Permissions) -> Iterator[tuple[str, BinaryIO]]:
    """A temporary file to write to, with its path, by which it can be read; it is gone at the end."""
    temporary = Temporary(folder, permissions)
    try:
        with open(os.dup(temporary.handle), "wb") as file:
            yield temporary.path, file
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary.path)
        temporary.close()


@contextmanager
def temporary_folder(folder: str) -> Iterator[str]:
    """A temporary folder in another one, which only its owner may enter; it is gone at the end, with what is in it."""
    temporary = Temporary(folder, Permissions([PRIVATE]))
    path = temporary.beside(1)
    try:
        os.mkdir(path, _OWNER_ENTERS)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        with suppress(FileNotFoundError):
            os.unlink(temporary.path)
        temporary.close()


def copy_of(source: str, copy: str) -> int:
    """Copy a file into a new one that only its owner may read; gzip is unpacked. Returns its bytes.

    Where the file system can, both share what they have on the disk.

    Raises: RdbError where the gzip data is damaged; OSError.
    """
    from_ = open_source(source)
    try:
        handle = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), _OWNER)
        with open(handle, "wb") as to:
            if isinstance(from_, FileSource):
                _copy_range(from_.file.fileno(), to.fileno(), from_.total)
                from_.file.seek(to.seek(0, os.SEEK_END))
            while piece := from_.read(_PIECE):
                to.write(piece)
            return to.tell()
    finally:
        from_.close()


def download(source: str, copy: str, progress: Callable[[int], object] | None = None) -> None:
    """Copy a file as it is, compressed or not, into a new one that only its owner may read.

    Args:
        source: a path or URL.
        progress: called with the bytes that have been copied.

    Raises: RdbError where a URL cannot be read; OSError.
    """
    handle = os.open(copy, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), _OWNER)
    with open(handle, "wb") as to, open_file(source) as from_:
        while piece := from_.read(_PIECE):
            to.write(piece)
            if progress is not None:
                progress(to.tell())


def _copy_range(source: int, to: int, size: int) -> None:
    """Copy inside of the system, as far as it can."""
    with suppress(AttributeError, OSError):  # not every system, and not between every two file systems
        while size > 0 and (done := os.copy_file_range(source, to, size)):
            size -= done

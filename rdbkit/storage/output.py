"""Files that appear under their name only when they are whole."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from gzip import GzipFile
from io import BufferedIOBase, BufferedWriter, BytesIO, FileIO
from typing import Any, BinaryIO, NamedTuple, cast

from rdbkit.storage.temporary import Permissions, Temporary

_BUFFER = 1 << 18
_GZIP_LEVEL = 6
_STDOUT = "standard output"


@contextmanager
def open_output(target: str | os.PathLike[str], force: bool = False, sources: Sequence[object] | None = None) -> Iterator[BinaryIO]:
    """Something to write bytes to, which becomes the file `target` when the `with` block ends well.

    Until then the bytes are in a hidden temporary file beside it; where the block, or the disk, fails, nothing stays. A name
    that ends in `.gz` is written as gzip. A link is followed. What is neither a file nor a link to one (a named pipe,
    `/dev/null`) is written to directly.

    Args:
        target: a path, or "-" for standard output, which stays open.
        force: replace a file that exists.
        sources: what the content comes from: paths, "-", or what was read. From the first byte on, the file is readable for nobody
            who may not read all of them, nor the file that it replaces; for its owner alone where one is not a file.

    Raises: FileExistsError where the file exists and `force` is not given; other OSError of the system, of a full disk as well with
        the name.

    >>> import tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder, "keys.txt")
    ...     with open_output(path) as out:
    ...         _ = out.write(b"whole")
    ...         path.exists()
    ...     path.read_text()
    False
    'whole'
    """
    if target == "-":
        if sys.stdout is None:
            raise OSError(errno.EBADF, "standard output is closed")
        stream = _StandardOutput(sys.stdout.buffer)
        yield cast(BinaryIO, stream)
        stream.flush()
        return
    name = os.fspath(target)
    final = os.path.realpath(name)
    mode = _mode(name)
    if mode is not None and stat.S_ISDIR(mode):
        raise IsADirectoryError(21, "Is a directory", name)
    if mode is not None and not stat.S_ISREG(mode):
        with _opened(os.open(name, os.O_WRONLY), name) as file, _packed(file, name) as out:
            yield out
        return
    if mode is not None and not force:
        raise _exists(name)
    permissions = Permissions(sources)
    if mode is not None:
        permissions = permissions.also(final)
    with _named(name):
        temporary = Temporary(os.path.dirname(final), permissions)
    try:
        with _opened(os.dup(temporary.handle), name) as file:
            if mode is not None:  # whatever the umask is
                group = os.fstat(temporary.handle).st_gid
                os.chmod(temporary.path, mode & 0o700 | permissions.mode(group) & 0o077)
            with _packed(file, name) as out:
                yield out
            file.flush()
            with _named(name):
                os.fsync(temporary.handle)
        if force:
            os.replace(temporary.path, final)
        else:
            _rename_to_new(temporary.path, final, name)
    except BaseException:
        if os.path.lexists(temporary.path):
            os.unlink(temporary.path)
        raise
    finally:
        temporary.close()
    _sync_folder(os.path.dirname(final))


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Give an error the name of the file: when it writes, the system gives none, and that of a temporary file when it opens one."""
    try:
        yield
    except OSError as e:
        e.filename = name
        raise


class _NamedFile(FileIO):
    """A file whose errors say which one it is."""

    def __init__(self, handle: int, shown: str) -> None:
        super().__init__(handle, "wb")
        self.shown = shown

    def write(self, data: Any) -> int:
        with _named(self.shown):
            return super().write(data)


def _opened(handle: int, name: str) -> BufferedWriter:
    return BufferedWriter(_NamedFile(handle, name), _BUFFER)


class OutputHandle(NamedTuple):
    """The handle of a file that `open_output` has open, and the name that its errors have."""

    number: int
    name: str


def handle_of(out: BinaryIO) -> OutputHandle | None:
    """For `write_at`; None for what cannot be written to in any order."""
    raw = getattr(out, "raw", None)
    if not isinstance(raw, _NamedFile) or not hasattr(os, "pwrite") or not raw.seekable():
        return None
    return OutputHandle(raw.fileno(), raw.shown)


def write_at(handle: OutputHandle, data: bytes, offset: int) -> None:
    """Write to an open file, wherever others write to it. Raises: OSError."""
    left = memoryview(data)
    with _named(handle.name):
        while left:
            done = os.pwrite(handle.number, left, offset)
            left, offset = left[done:], offset + done


def leave_room(out: BinaryIO, size: int) -> int:
    """Go on behind so many bytes, which others write; returns where they begin."""
    begin = out.tell()
    out.seek(begin + size)
    return begin


class Nowhere(BytesIO):
    """Takes bytes and keeps none, for a conversion that only looks. A `Writer` may go back in it."""

    def write(self, data: Any) -> int:
        """Forget the data."""
        return len(data)


class _StandardOutput(BufferedIOBase):
    """Standard output, whose errors say so. It stays open."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        with _named(_STDOUT):
            return self._file.write(data)

    def writelines(self, lines: Iterable[Any]) -> None:
        with _named(_STDOUT):
            self._file.writelines(lines)

    def flush(self) -> None:
        with _named(_STDOUT):
            self._file.flush()


def _mode(path: str) -> int | None:
    """Kind and permissions; None where there is nothing."""
    try:
        return os.stat(path).st_mode
    except FileNotFoundError:
        return None


def _exists(name: str) -> FileExistsError:
    return FileExistsError(17, "File exists", name)


@contextmanager
def _packed(file: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """The file, through gzip where the name says so. Name and time are left out: equal content gives equal files."""
    if not name.endswith(".gz"):
        yield file
        return
    packer = GzipFile(filename="", mode="wb", compresslevel=_GZIP_LEVEL, fileobj=file, mtime=0)
    try:
        yield cast(BinaryIO, packer)
    except BaseException:
        # Left without its end mark, which would make half a file look whole.
        packer.fileobj = None  # type: ignore[assignment]
        raise
    packer.close()


def _rename_to_new(temporary: str, final: str, name: str) -> None:
    """Rename, unless somebody has made a file of that name meanwhile."""
    try:
        os.link(temporary, final)
    except FileExistsError:
        raise _exists(name) from None
    except OSError:  # a file system without hard links
        if os.path.lexists(final):
            raise _exists(name) from None
        os.rename(temporary, final)
    else:
        os.unlink(temporary)


def _sync_folder(folder: str) -> None:
    """Make the new name durable, where a folder can be opened for that."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

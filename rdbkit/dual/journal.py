"""The journal: marks in a file, so that a process that is killed leaves word of what it had not brought over yet.

Each process has files of its own, beside each other, and locks them while it lives. Who comes later reads those that nobody has
locked. What was written in vain does no harm: a key that is brought over once more is the same as before.
"""

from __future__ import annotations

import glob
import os
import secrets
import struct
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import islice
from time import monotonic
from typing import Final
from zlib import crc32

if sys.platform != "win32":
    import fcntl

__all__ = ["Journal"]

#: Of what follows: its CRC-32; then the length of the key, its database, and the key.
_CHECK: Final = struct.Struct("<I")
_HEAD: Final = struct.Struct("<II")
_FLAGS: Final = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0)
_OWNER: Final = 0o600
_SYNC_S: Final = 1.0
#: A file is begun anew when it has become so much larger than what waits, or when nothing waits and it has so many bytes.
_MOST_BYTES: Final = 16 << 20
_EMPTY_BYTES: Final = 64 << 10
_AT_A_TIME: Final = 1000


class Journal:
    """Two files, of which one is written to; when it has become large, what still waits is written into the other.

    Args:
        path: of the journal; the files' names begin so.

    Attributes:
        errors: how often something could not be written.
        damaged: files of earlier processes that could not be read to their end.

    Raises: OSError where the files cannot be made; ValueError where the system has no locks for files.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        if sys.platform == "win32":
            raise ValueError("a journal takes locks of files that Windows does not have")
        self._path = os.path.abspath(os.fspath(path))
        self.errors = 0
        self.damaged = 0
        self._open()

    def _open(self) -> None:
        # both are open for as long as this object lives: a thread may be about to write into either
        self._files: list[int] = []
        while not self._files:
            self._base = f"{self._path}.{secrets.token_hex(6)}"
            first = os.open(f"{self._base}.0", _FLAGS, _OWNER)
            if _lock(first) and _has_name(f"{self._base}.0"):
                self._files = [first, os.open(f"{self._base}.1", _FLAGS, _OWNER)]
            else:
                os.close(first)  # another process took it for one that was left, before it was locked
        self._at = 0
        self._begun_at_size = 0
        self._is_dirty = False
        self._synced_at = monotonic()

    def forked(self) -> None:
        """In a forked process: the files are the parent's, this one gets others."""
        for each in self._files:
            with suppress(OSError):
                os.close(each)
        self.errors = self.damaged = 0
        try:
            self._open()
        except OSError:
            self._files = []

    # -- any thread

    def note(self, db: int, key: bytes) -> None:
        """Write a mark down. Never raises."""
        self._write(_record(db, key))

    def _write(self, text: bytes) -> None:
        """Append whole records, by one call, so that those of several threads do not mix."""
        try:
            if os.write(self._files[self._at], text) != len(text):
                self.errors += 1
        except (OSError, IndexError):
            self.errors += 1
        self._is_dirty = True

    # -- the thread that takes

    def tidy(self, waiting: int) -> bool:
        """Have what was written on the disk, once a second; whether the file is to be begun anew, where so many keys wait."""
        now = monotonic()
        if not self._is_dirty or now - self._synced_at < _SYNC_S or not self._files:
            return False
        self._synced_at = now
        self._is_dirty = False
        size = self._sync()
        return size - self._begun_at_size > (_MOST_BYTES if waiting else _EMPTY_BYTES)

    def _sync(self) -> int:
        """Have what was written on the disk; returns how large the file is."""
        try:
            os.fsync(self._files[self._at])
            return os.lseek(self._files[self._at], 0, os.SEEK_END)
        except (OSError, IndexError):
            self.errors += 1
            return 0

    def begin_anew(self, marks: Callable[[], Iterable[tuple[int, bytes]]]) -> None:
        """Go on in the other file, which then has the marks alone that this gives: all that wait.

        They are asked for when the other file is written to. Who marks a key has it wait before it is written down: so one that is
        written into the old file after all is among them.
        """
        if not self._files:
            return
        old, new = self._at, 1 - self._at
        try:
            os.ftruncate(self._files[new], 0)
            self._at = new
            every = iter(marks())
            while some := list(islice(every, _AT_A_TIME)):
                self._write(b"".join(_record(*mark) for mark in some))
            os.fsync(self._files[new])
            self._begun_at_size = os.lseek(self._files[new], 0, os.SEEK_END)
            os.ftruncate(self._files[old], 0)
        except OSError:
            self.errors += 1

    def take_over(self) -> Iterator[tuple[int, bytes]]:
        """The marks of processes that are no longer there, whose files are removed once all of these were taken."""
        for first in glob.glob(f"{glob.escape(self._path)}.*.0"):
            base = first.removesuffix(".0")
            if base == self._base:
                continue
            try:
                file = os.open(first, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
            except OSError:
                continue  # another process has just removed it
            try:
                if not _lock(file):
                    continue
                for number in (0, 1):
                    with suppress(FileNotFoundError):
                        yield from self._marks_of(f"{base}.{number}")
                self._sync()
                for number in (1, 0):
                    with suppress(OSError):
                        os.unlink(f"{base}.{number}")
            finally:
                os.close(file)

    def _marks_of(self, path: str) -> Iterator[tuple[int, bytes]]:
        with open(path, "rb") as file:
            while check := file.read(_CHECK.size):
                head = file.read(_HEAD.size)
                length, db = _HEAD.unpack(head) if len(head) == _HEAD.size else (0, 0)
                key = file.read(length)
                if len(check) < _CHECK.size or len(head) < _HEAD.size or _CHECK.unpack(check)[0] != crc32(head + key):
                    self.damaged += 1
                    return
                yield db, key

    def close(self, waiting: int) -> None:
        """Remove the files, where nothing waits any more; otherwise they are for the next process."""
        if waiting:
            self._sync()
            return
        for number in (0, 1):
            with suppress(OSError):
                os.unlink(f"{self._base}.{number}")

    def __del__(self) -> None:
        for file in getattr(self, "_files", ()):
            os.close(file)


def _record(db: int, key: bytes) -> bytes:
    text = _HEAD.pack(len(key), db) + key
    return _CHECK.pack(crc32(text)) + text


def _has_name(path: str) -> bool:
    """Whether a file of ours is still there under its name."""
    try:
        os.utime(path)
    except FileNotFoundError:
        return False
    return True


def _lock(file: int) -> bool:
    """Lock an open file, if nobody has."""
    if sys.platform != "win32":
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
    return True

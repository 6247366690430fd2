"""Keeping a file to one process, for as long as that lives."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

if sys.platform != "win32":
    import fcntl

__all__ = ["locked"]


@contextmanager
def locked(path: str) -> Iterator[None]:
    """Keep other processes that ask the same from a file; one that is killed keeps nobody.

    The lock is that of PATH.lock, since what is written whole or not at all is another file each time. It is removed at the end.
    On Windows there is none.

    Raises: BlockingIOError where another process has it; OSError where it cannot be made.
    """
    if sys.platform == "win32":
        yield
        return
    name = f"{path}.lock"
    while True:
        handle = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.stat(name), os.fstat(handle)):
                break
        except FileNotFoundError:  # whoever had it has just removed it
            pass
        except OSError:
            os.close(handle)
            raise
        os.close(handle)
    try:
        yield
    finally:
        with suppress(OSError):
            os.unlink(name)
        os.close(handle)

"""Bytes from one thread to another, a few pieces at a time."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

__all__ = ["Pipe", "PipeBroken"]

_MOST_PIECES: Final = 16


class PipeBroken(Exception):
    """The other end of a pipe has gone."""


class Pipe:
    """What one thread writes, and another one reads as from a file.

    Args:
        write_callback: called with each piece that is written.
    """

    def __init__(self, write_callback: Callable[[bytes], object] | None = None) -> None:
        self._write_callback = write_callback
        self._pieces: queue.Queue[bytes | BaseException | None] = queue.Queue(_MOST_PIECES)
        self._rest: memoryview = memoryview(b"")
        self.is_broken = False
        self._has_ended = False

    def fill(self, work: Callable[[], object]) -> threading.Thread:
        """Start a thread that calls `work`, which writes; where it ends or fails, the pipe does so, too."""

        def run() -> None:
            try:
                work()
            except BaseException as e:
                self.end(e)
            else:
                self.end(None)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        return thread

    def write(self, data: bytes) -> int:
        """Raises: PipeBroken where nobody reads any more."""
        if self._write_callback is not None:
            self._write_callback(data)
        self._put(bytes(data))
        return len(data)

    def check(self, done: int) -> None:
        """For the progress of a writer that may have nothing to write for long: raises PipeBroken where nobody reads any more."""
        if self.is_broken:
            raise PipeBroken

    def end(self, error: BaseException | None) -> None:
        """Nothing more will come, or only this error."""
        if not isinstance(error, PipeBroken):
            with suppress(PipeBroken):
                self._put(error)

    def _put(self, piece: bytes | BaseException | None) -> None:
        while not self.is_broken:
            try:
                self._pieces.put(piece, timeout=0.1)
                return
            except queue.Full:
                continue
        raise PipeBroken

    def read(self, n: int) -> bytes:
        """Up to `n` bytes, b"" at the end; raises what the writer raised, and PipeBroken where it has gone."""
        while not self._rest and not self._has_ended:
            piece = self._pieces.get()
            if self.is_broken:
                raise PipeBroken
            if isinstance(piece, BaseException):
                raise piece
            if piece is None:
                self._has_ended = True
            else:
                self._rest = memoryview(piece)
        data, self._rest = self._rest[:n], self._rest[n:]
        return bytes(data)

    def break_off(self) -> None:
        """Let both ends end."""
        self.is_broken = True
        with suppress(queue.Full):  # then there is something to be read, and nobody waits for it
            self._pieces.put_nowait(None)

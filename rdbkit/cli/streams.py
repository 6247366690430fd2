"""Standard input, output and error as they may be: closed, or with a reader that has gone."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TextIO

__all__ = ["sending_data", "standard_streams"]

_STDOUT: Final = 1
_STDERR: Final = 2


class _Raw(io.FileIO):
    """Where a report goes that its reader may leave: what it says is then dropped, and the exit code is still the report's.

    Attributes:
        carries_data: whoever reads has had enough, and that ends the work.
        closed_before: it was closed when the process began, so that data cannot go there at all.
    """

    carries_data = False
    closed_before = False

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            if self.carries_data:
                raise
        except OSError:
            if self.fileno() != _STDERR:
                raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.fileno())
        os.close(nowhere)
        return len(memoryview(data).cast("B"))


class _NoInput(io.TextIOBase):
    """Standard input that is closed: nobody answers. There are no bytes either, hence no `buffer`."""

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]
        return ""


def _writer(number: int, stream: TextIO | None) -> TextIO:
    """The stream with `_Raw` below it."""
    raw = _Raw(number, "wb", closefd=False)
    raw.closed_before = stream is None
    if not isinstance(stream, io.TextIOWrapper):
        return io.TextIOWrapper(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace")
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=stream.encoding, errors=stream.errors, line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )  # fmt: skip


@contextmanager
def standard_streams() -> Iterator[None]:
    """Let the standard streams be there, whatever they are; what a program has put in their place stays."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:  # or the first file that is opened would get the number, and what belongs to the stream
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    before = sys.stdin, sys.stdout, sys.stderr
    if sys.stdin is None:
        sys.stdin = _NoInput()
    if sys.stdout is sys.__stdout__:
        sys.stdout = _writer(_STDOUT, sys.__stdout__)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _writer(_STDERR, sys.__stderr__)
    try:
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            if stream not in before:
                with suppress(OSError):  # what could be done about it has been
                    stream.flush()
        sys.stdin, sys.stdout, sys.stderr = before


@contextmanager
def sending_data() -> Iterator[None]:
    """Inside, standard output carries data: it ends with its reader.

    Raises: OSError where it is closed.
    """
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    if not isinstance(raw, _Raw):
        yield
        return
    if raw.closed_before:
        raise OSError(errno.EBADF, "standard output is closed")
    raw.carries_data = True
    try:
        yield
    finally:
        raw.carries_data = False

"""Standard input, output and error as they may be: closed, left by their reader, or a terminal, which obeys what it is shown."""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, TextIO

__all__ = ["sending_data", "standard_streams"]

_STDOUT: Final = 1
_STDERR: Final = 2
#: What a terminal obeys, or by which it changes the order of what it shows, as UTF-8: DEL, C1 controls (U+0080-9F), and
#: bidirectional controls (U+061C, U+200E-F, U+202A-E, U+2066-9).
_OBEYED: Final = rb"\x7f|\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xaa-\xae]|\xe2\x81[\xa6-\xa9]"
_CONTROLS: Final = re.compile(_OBEYED)
#: The same and C0 controls but for tab and line feed.
_ALL_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0b-\x1f]|" + _OBEYED)
#: What may be the beginning of one.
_CUT: Final = re.compile(rb"(?:\xc2|\xd8|\xe2[\x80\x81]?)\Z")


def _escaped(found: re.Match[bytes]) -> bytes:
    """As JSON has it, which means the same there, and can be seen anywhere else."""
    return b"\\u%04x" % ord(found[0].decode())


class _Raw(io.FileIO):
    """Where a report goes that its reader may leave: what it says is then dropped, and the exit code is still the report's.

    A terminal is shown control characters as escapes. Files and pipes get bytes as they are.

    Attributes:
        controls: what is not for a terminal; colours of a report are.
        carries_data: whoever reads has had enough, and that ends the work.
        closed_before: it was closed when the process began, so that data cannot go there at all.
    """

    carries_data = False
    closed_before = False
    controls: re.Pattern[bytes] | None = None
    _held = b""  # of a character that is not complete yet

    def write(self, data: Any) -> int:
        if self.controls is None:
            return self._send(data)
        size = memoryview(data).nbytes
        shown = self.controls.sub(_escaped, self._held + bytes(data))
        cut = _CUT.search(shown)
        self._held = b"" if cut is None else cut[0]
        view = memoryview(shown)[: len(shown) - len(self._held)]
        while view:
            view = view[self._send(view) :]
        return size

    def finish(self) -> None:
        """Send what is not a character."""
        if self._held:
            self._send(self._held)
            self._held = b""

    def _send(self, data: Any) -> int:
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
        return memoryview(data).nbytes


class _NoInput(io.TextIOBase):
    """Standard input that is closed: nobody answers. There are no bytes either, hence no `buffer`."""

    def readline(self, size: int | None = -1, /) -> str:  # type: ignore[override]
        return ""


def _writer(number: int, stream: TextIO | None) -> TextIO:
    """The stream with `_Raw` below it."""
    raw = _Raw(number, "wb", closefd=False)
    raw.closed_before = stream is None
    if raw.isatty():
        raw.controls = _CONTROLS
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
                    _raw_of(stream).finish()
        sys.stdin, sys.stdout, sys.stderr = before


def _raw_of(stream: Any) -> Any:
    return getattr(getattr(stream, "buffer", None), "raw", None)


@contextmanager
def sending_data(styled: bool = False) -> Iterator[None]:
    """Inside, standard output carries data: it ends with its reader.

    Args:
        styled: it has escape sequences of our own, and its names are escaped already.

    Raises: OSError where it is closed.
    """
    raw = _raw_of(sys.stdout)
    if not isinstance(raw, _Raw):
        yield
        return
    if raw.closed_before:
        raise OSError(errno.EBADF, "standard output is closed")
    sys.stdout.flush()
    raw.carries_data = True
    before = raw.controls
    if before is not None and not styled:
        raw.controls = _ALL_CONTROLS
    try:
        yield
        sys.stdout.flush()
    finally:
        raw.carries_data = False
        raw.controls = before

"""Stretches of a file as one input."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from rdbkit.storage.location import Identity, open_file
from rdbkit.storage.source import changed


class SplicedFile:
    """Reads stretches of a file one after the other, between bytes of one's own.

    Args:
        path: of the file.
        spans: begin and end of each stretch, in bytes; or bytes of one's own.
        head, tail: what stands before the first and behind the last.
        identity: of the file when it was first read.

    Raises: OSError; ChangedError, now or at the end, where the file is not what it was.

    >>> with SplicedFile("fixtures/rich/redis-7.0.15.rdb", [(0, 5), (7, 9)], tail=b"!") as pieces:
    ...     pieces.read(99)
    b'REDIS10!'
    """

    def __init__(
        self,
        path: str,
        spans: Sequence[tuple[int, int] | bytes],
        head: bytes = b"",
        tail: bytes = b"",
        identity: Identity | None = None,
    ) -> None:
        self.name = path
        self._identity = identity
        self._file = open_file(path)
        parts = [head, *spans, tail]
        self._parts = [part for part in parts if (part if isinstance(part, bytes) else part[1] > part[0])]
        self._begins: list[int] = []  # of each, in what is read
        at = 0
        for part in self._parts:
            self._begins.append(at)
            at += len(part) if isinstance(part, bytes) else part[1] - part[0]
        self._at = 0
        self._place = 0  # in the part at hand
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        if self._identity is not None and Identity.of(self._file) != self._identity:
            raise changed(self.name)

    def read(self, n: int) -> bytes:
        """Up to `n` bytes, b"" at the end."""
        out = []
        while n > 0 and self._at < len(self._parts):
            part = self._parts[self._at]
            if isinstance(part, bytes):
                piece = part[self._place : self._place + n]
                size = len(part)
            else:
                begin, end = part
                self._file.seek(begin + self._place)
                piece = self._file.read(min(n, end - begin - self._place))
                size = end - begin if piece else self._place  # a file that has become shorter
            out.append(piece)
            n -= len(piece)
            self._place += len(piece)
            if self._place >= size:
                self._at += 1
                self._place = 0
        if self._at == len(self._parts):
            self._check()
        return b"".join(out)

    def origin(self, offset: int) -> int:
        """Where in the file the byte at `offset` of what is read stands; of one's own bytes, where the next stretch begins."""
        at = bisect_right(self._begins, offset) - 1
        for number in range(max(at, 0), len(self._parts)):
            part = self._parts[number]
            if not isinstance(part, bytes):
                return part[0] + offset - self._begins[at] if number == at else part[0]
        return self._file.seek(0, os.SEEK_END)

    def fileno(self) -> int:
        """Of the open file. Raises: AttributeError where it is not on this machine."""
        return self._file.fileno()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

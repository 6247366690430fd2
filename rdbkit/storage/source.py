"""Where bytes come from: a path, standard input, a pipe, gzip, or anything with `read(n)`.

A source hands out a buffer that begins with what is still needed of the last one and continues with new bytes.
"""

from __future__ import annotations

import errno
import os
import sys
import zlib
from typing import BinaryIO, Protocol, cast

from rdbkit.errors import ChangedError, CorruptError, RdbError, TruncatedError
from rdbkit.storage.location import Identity, exists, is_file

#: Where an input of unknown size ends.
UNKNOWN = 1 << 62


class Reader(Protocol):
    """Anything that bytes can be read from; short reads are allowed, b"" is the end."""

    def read(self, n: int, /) -> bytes:
        """Up to `n` bytes."""
        ...


Input = str | os.PathLike[str] | Reader


class Rereading:
    """Files that one operation reads more than once: each time it must be the same file, and unchanged.

    A result made of two files under one name would be wrong, and nothing would tell. So each reading is compared with the first
    when it begins and when it ends.
    """

    def __init__(self) -> None:
        self._known: dict[str, Identity | None] = {}

    def watch(self, source: Source) -> None:
        """Hold a source to what its file was when it was first read. Raises: ChangedError."""
        source.expected = self.remember(source.name, source.identity())
        source.check()

    def remember(self, name: str, identity: Identity | None) -> Identity | None:
        """Note what a file was when it was first read, where that is not known; returns what is known."""
        return self._known.setdefault(name, identity)

    def check(self, path: str | os.PathLike[str]) -> None:
        """Compare what has this path now with what it was, or note it. Raises: ChangedError; OSError."""
        name = os.fspath(path)
        now = Identity.of(name)
        if self._known.setdefault(name, now) != now:
            raise changed(name)


def changed(name: str) -> ChangedError:
    """The error for a file that was changed or replaced while it was read."""
    return ChangedError("the file was changed or replaced while it was read; run this again", source=name)


class Source:
    """Bytes of a `read(n)`.

    Attributes:
        name: for messages.
        size: bytes of the underlying file, None where unknown; for progress.
        total: bytes that it will hand out, `UNKNOWN` where unknown.
        compression: "gzip" or None.
        expected: what the file has to be, where it is read more than once.
    """

    compression: str | None = None

    def __init__(self, reader: Reader, name: str, size: int | None = None, head: bytes = b"", owned: bool = False) -> None:
        self.reader = reader
        self.owned = owned
        self.name = name
        self.size = size
        self.total = UNKNOWN
        self.consumed = 0
        self.expected: Identity | None = None
        self._head = head

    def read(self, n: int) -> bytes:
        """Up to `n` bytes, b"" at the end."""
        if self._head:
            piece, self._head = self._head[:n], self._head[n:]
            return piece
        piece = bytes(self.reader.read(n))  # costs nothing where it is bytes already, as it should be
        self.consumed += len(piece)
        return piece

    def refill(self, buf: bytes, pos: int, n: int) -> bytes:
        """What is left of `buf` from `pos` on, and `n` bytes more; fewer only at the end, or where what follows is damaged.

        The error is then raised by the next call, when all that came before it has been looked at.
        """
        pieces = [buf[pos:]] if pos < len(buf) else []
        wanted = n
        while n > 0:
            try:
                piece = self.read(n)
            except RdbError:
                if n == wanted:
                    raise
                break
            if not piece:
                break
            pieces.append(piece)
            n -= len(piece)
        return b"".join(pieces)

    def identity(self) -> Identity | None:
        """Of the file that is read, None where it is not a regular file."""
        return Identity.of(self.reader)

    def check(self) -> None:
        """Raise ChangedError where the file is not what is expected, if something is."""
        if self.expected is not None and self.identity() != self.expected:
            raise changed(self.name)

    def close(self) -> None:
        """Close what `open_source` opened; what a caller handed in stays open."""
        if self.owned:
            cast(BinaryIO, self.reader).close()


class FileSource(Source):
    """A regular file: what is still needed is read again rather than copied."""

    def __init__(self, file: BinaryIO, name: str, size: int) -> None:
        super().__init__(file, name, size, owned=True)
        self.file = file
        self.total = size

    def refill(self, buf: bytes, pos: int, n: int) -> bytes:
        """See `Source.refill`."""
        left = len(buf) - pos
        if 0 < left < n:
            self.file.seek(-left, os.SEEK_CUR)
            self.consumed -= left
            return super().refill(b"", 0, left + n)
        return super().refill(buf, pos, n)


class GzipSource(Source):
    """Gzip of one or several members, unpacked in pieces of bounded size."""

    compression = "gzip"

    def __init__(self, inner: Source) -> None:
        super().__init__(inner, inner.name, inner.size)
        self.inner = inner
        self._unpacker = zlib.decompressobj(31)
        self._input = b""
        self._started = False

    def read(self, n: int) -> bytes:
        """Up to `n` unpacked bytes."""
        while True:
            if self._unpacker.eof:
                while self._input[:1] == b"\0":  # zero padding after the last member
                    self._input = self._input.lstrip(b"\0") or self.inner.read(65536)
                if not self._input:
                    self._input = self.inner.read(65536)
                if not self._input:
                    return b""
                self._unpacker = zlib.decompressobj(31)
            elif not self._input:
                self._input = self.inner.read(262144)
                if not self._input:
                    raise TruncatedError("the gzip data ends too early")
            piece = self._unpack(n)
            self.consumed = self.inner.consumed
            if piece:
                return piece

    def _unpack(self, n: int) -> bytes:
        """What the input, or a part of it, unpacks to: `n` bytes at most, maybe none."""
        size = len(self._input)
        while True:
            before = self._unpacker.copy()
            try:
                piece = self._unpacker.decompress(self._input[:size], n)
            except zlib.error as e:
                # What was unpacked before the damage is lost with the error; less of the input may end before the damage.
                self._unpacker = before
                size //= 2
                if not size:
                    raise CorruptError(f"the gzip data is damaged: {str(e).split(': ')[-1]}") from None
                continue
            left = self._unpacker.unused_data if self._unpacker.eof else self._unpacker.unconsumed_tail
            self._input = left + self._input[size:]
            return piece

    def identity(self) -> Identity | None:
        """That of the packed input."""
        return self.inner.identity()

    def close(self) -> None:
        """Close the packed input."""
        self.inner.close()


def open_source(src: Input) -> Source:
    """The source for a path, "-" (standard input) or an object with `read(n)`; gzip is recognised by its first bytes.

    Raises: OSError where the path cannot be opened.
    """
    source: Source
    if isinstance(src, str | os.PathLike):
        if src == "-":
            # Unbuffered: a buffer that waits to be full does not hear an interrupt that came a moment before.
            stdin = standard_input()
            source = Source(cast(Reader, getattr(stdin, "raw", stdin)), "<stdin>")
        else:
            path = os.fspath(src)
            file = cast(BinaryIO, open(path, "rb", buffering=0))  # noqa: SIM115 (the source closes it)
            source = _of_file(file, path)
    else:
        source = Source(src, str(getattr(src, "name", f"<{type(src).__name__}>")))
    head = b""
    while len(head) < 2:
        piece = source.read(2 - len(head))
        if not piece:
            break
        head += piece
    if isinstance(source, FileSource):
        source.file.seek(0)
        source.consumed = 0
    else:
        source._head = head
    return GzipSource(source) if head == b"\x1f\x8b" else source


def standard_input() -> BinaryIO:
    """The bytes of standard input. Raises: OSError where it is closed."""
    found = getattr(sys.stdin, "buffer", None)
    if found is None:
        raise OSError(errno.EBADF, "standard input is closed")
    return cast(BinaryIO, found)


def _of_file(file: BinaryIO, path: str) -> Source:
    try:
        if file.seekable():
            size = os.fstat(file.fileno()).st_size
            if size or not exists(path) or is_file(path):
                return FileSource(file, path, size)
    except OSError:
        pass
    return Source(file, path, owned=True)

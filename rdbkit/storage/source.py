"""Where bytes come from: a path, standard input, a pipe, or anything with `read(n)`, compressed or not.

A source hands out a buffer that begins with what is still needed of the last one and continues with new bytes.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import BinaryIO, Protocol, cast

from rdbkit.errors import ChangedError, LimitError, RdbError, TruncatedError
from rdbkit.storage.compression import HEAD_BYTES, Compression, compression_of
from rdbkit.storage.location import Identity, exists, is_file
from rdbkit.storage.remote import RemoteReader, is_remote, name_of
from rdbkit.storage.stand_in import content_of

#: Where an input of unknown size ends.
UNKNOWN = 1 << 62
#: Bytes that are looked at, or unpacked, at a time.
_PIECE = 1 << 16
#: Bytes that are kept of what is behind compressed data.
_HEAD = 1 << 12
#: How many times over an input may be compressed.
_DEEPEST = 3


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
        name = name_of(path)
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
        compression: "gzip", "zstd", "xz", "bzip2" or None; "gzip in zstd" where a file was compressed twice.
        expected: what the file has to be, where it is read more than once.
    """

    compression: str | None = None

    def __init__(self, reader: Reader, name: str, size: int | None = None, owned: bool = False) -> None:
        self.reader = reader
        self.owned = owned
        self.name = name
        self.size = size
        self.total = UNKNOWN
        self.consumed = 0
        self.expected: Identity | None = None
        # What has been looked at and is still to be handed out: zeros, what follows them, and then an error, again and again.
        self._zeros = 0
        self._head = b""
        self._error: RdbError | None = None

    @property
    def ignored(self) -> int:
        """Bytes behind the compressed data that are none of it; known at the end."""
        return 0

    @property
    def behind(self) -> bytes:
        """The first of those bytes."""
        return b""

    def read(self, n: int) -> bytes:
        """Up to `n` bytes, b"" at the end."""
        if self._zeros:
            n = min(n, self._zeros)
            self._zeros -= n
            return bytes(n)
        if self._head:
            piece, self._head = self._head[:n], self._head[n:]
            return piece
        if self._error is not None:
            raise self._error
        return self._more(n)

    def _more(self, n: int) -> bytes:
        """Up to `n` bytes that nobody has looked at."""
        piece = bytes(self.reader.read(n))  # costs nothing where it is bytes already, as it should be
        self.consumed += len(piece)
        return piece

    def _look(self, n: int) -> bool:
        """Add up to `n` bytes to what has been looked at; False where nothing more can be read."""
        try:
            piece = b"" if self._error is not None else self._more(n)
        except RdbError as e:
            self._error = e
            return False
        self._head += piece
        return bool(piece)

    def peek(self, n: int) -> bytes:
        """The first `n` bytes, fewer at the end, before anything has been read; they are still to be read."""
        while len(self._head) < n and self._look(n - len(self._head)):
            pass
        return self._head[:n]

    def zeros_ahead(self) -> int | None:
        """How many bytes follow, where they are all zeros; None otherwise. They are still to be read."""
        while True:
            rest = self._head.lstrip(b"\0")
            self._zeros += len(self._head) - len(rest)
            self._head = rest
            if rest:
                return None
            if not self._look(_PIECE):
                return self._zeros if self._error is None else None

    def refill(self, buf: bytes, pos: int, n: int) -> bytes:
        """What is left of `buf` from `pos` on, and `n` bytes more; fewer only at the end, or where what follows is damaged.

        The error is then raised by the next call, when all that came before it has been looked at.
        """
        pieces = [buf[pos:]] if pos < len(buf) else []
        wanted = n
        while n > 0:
            try:
                piece = self.read(n)
            except RdbError as e:
                self._error = e
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


def read_at(handle: int, offset: int, size: int) -> bytes:
    """Bytes of an open file, wherever others read it. Raises: ChangedError where it is shorter by now; OSError."""
    pieces = []
    while size > 0:
        piece = os.pread(handle, size, offset)
        if not piece:
            raise changed("")
        pieces.append(piece)
        offset += len(piece)
        size -= len(piece)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class FileSource(Source):
    """A regular file: what is still needed, or has been looked at, is read again rather than copied."""

    def __init__(self, file: BinaryIO, name: str, size: int) -> None:
        super().__init__(file, name, size, owned=True)
        self.file = file
        self.total = size
        self._other = -1  # where a byte stands that is no zero, the last that is known

    def refill(self, buf: bytes, pos: int, n: int) -> bytes:
        """See `Source.refill`."""
        left = len(buf) - pos
        if 0 < left < n:
            self.file.seek(-left, os.SEEK_CUR)
            self.consumed -= left
            return super().refill(b"", 0, left + n)
        return super().refill(buf, pos, n)

    def peek(self, n: int) -> bytes:
        """See `Source.peek`."""
        here = self.file.tell()
        piece = self.file.read(n)
        self.file.seek(here)
        return piece

    def zeros_ahead(self) -> int | None:
        """See `Source.zeros_ahead`."""
        here = at = self.file.tell()
        if here <= self._other:
            return None
        while (piece := self.file.read(_PIECE)) and not (rest := piece.lstrip(b"\0")):
            at += len(piece)
        self.file.seek(here)
        if piece:
            self._other = at + len(piece) - len(rest)
            return None
        return at - here


class CompressedSource(Source):
    """What another source has, unpacked in pieces of bounded size: one or several members, with zeros between and behind them."""

    def __init__(self, inner: Source, form: Compression) -> None:
        super().__init__(inner, inner.name, inner.size)
        self.compression = form.name if inner.compression is None else f"{form.name} in {inner.compression}"
        self.inner = inner
        self._form = form
        self._member = form.begin()
        self._input = b""  # read, and not yet given to the member
        self._ignored = 0
        self._behind = b""

    @property
    def ignored(self) -> int:
        """See `Source.ignored`."""
        return self._ignored + self.inner.ignored

    @property
    def behind(self) -> bytes:
        """See `Source.behind`."""
        return self._behind or self.inner.behind

    def _more(self, n: int) -> bytes:
        n = min(n, _PIECE)
        while True:
            if self._member.eof and not self._next_member():
                return b""
            piece = b""
            if needs_input := self._member.needs_input:
                piece, self._input = self._input or self._read_inner(), b""
            try:
                unpacked = self._member.decompress(piece, n)
            except self._form.error() as e:
                raise self._form.explain(e) from None
            if self._member.eof:
                self._input = self._member.unused_data
            if unpacked:
                return unpacked
            if needs_input and not piece:
                raise TruncatedError(f"the {self._form.name} data ends too early")

    def _next_member(self) -> bool:
        """Begin another member; False where none follows."""
        zeros = 0
        while not (rest := self._input.lstrip(b"\0")):
            zeros += len(self._input)
            self._input = self._read_inner()
            if not self._input:
                return False
        zeros += len(self._input) - len(rest)
        while len(rest) < HEAD_BYTES and (piece := self._read_inner()):
            rest += piece
        self._input = b""
        if self._form.starts(rest):
            self._input = rest
            self._member = self._form.begin()
            return True
        # As the tools that unpack do: what is no data of this kind is not looked at.
        self._ignored = zeros + len(rest)
        self._behind = rest
        while piece := self._read_inner():
            self._ignored += len(piece)
            self._behind = (self._behind + piece)[:_HEAD]
        return False

    def _read_inner(self) -> bytes:
        piece = self.inner.read(_PIECE)
        self.consumed = self.inner.consumed
        return piece

    def identity(self) -> Identity | None:
        """That of the packed input."""
        return self.inner.identity()

    def close(self) -> None:
        """Close the packed input."""
        self.inner.close()


def open_source(src: Input) -> Source:
    """The source for a path or URL, "-" (standard input) or an object with `read(n)`.

    What is compressed is known by its first bytes, and unpacked, also where that was done up to three times.

    Raises: OSError where the path cannot be opened, RdbError where the URL cannot, or where it cannot be unpacked here.
    """
    source = _plain_source(src)
    try:
        for _ in range(_DEEPEST):
            form = compression_of(source.peek(HEAD_BYTES))
            if form is None:
                return source
            source = CompressedSource(source, form)
        if compression_of(source.peek(HEAD_BYTES)) is not None:
            raise LimitError(f"it is compressed more than {_DEEPEST} times over: unpack it first")
    except RdbError as e:
        e.source = source.name
        source.close()
        raise
    except BaseException:
        source.close()
        raise
    return source


def _plain_source(src: Input) -> Source:
    if not isinstance(src, str | os.PathLike):
        name = str(getattr(src, "name", f"<{type(src).__name__}>"))
        return Source(src, name.partition("?")[0] if is_remote(name) else name)
    if src == "-":
        # Unbuffered: a buffer that waits to be full does not hear an interrupt that came a moment before.
        stdin = standard_input()
        return Source(cast(Reader, getattr(stdin, "raw", stdin)), "<stdin>")
    path = name_of(src)
    content = content_of(path)
    if is_remote(content):
        remote = RemoteReader(content)
        source = Source(remote, path, remote.size, owned=True)
        source.total = remote.size
        return source
    return _of_file(cast(BinaryIO, open(content, "rb", buffering=0)), path)


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

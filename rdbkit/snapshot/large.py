"""Records larger than a block: their values come in pieces, once, and how large they are is known at the end.

Each operation gives what the pieces go to. What may yet have to be left out, or needs in front what is known behind it, waits in a
`Spool`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import IO, Any, Protocol

from rdbkit.errors import RdbError
from rdbkit.format.counts import PieceCounter, count_rule
from rdbkit.format.record import Record, feed_pieces

__all__ = ["Spool", "count_elements", "feed", "has_wanted_size", "located"]

#: What of a value is held in memory before it goes to a temporary file.
HELD_BYTES = 8 << 20
_PIECE = 1 << 20


class Spool:
    """Takes bytes, which can be read when all of them are there; in bounded memory. A context manager.

    Attributes:
        size: bytes that have been written.

    >>> with Spool([b"a value", b" in pieces"]) as spool:
    ...     print(spool.size, b"".join(spool.pieces()))
    17 b'a value in pieces'
    """

    def __init__(self, pieces: Iterable[bytes] = ()) -> None:
        self.size = 0
        self._file: IO[bytes] = tempfile.SpooledTemporaryFile(HELD_BYTES)  # noqa: SIM115 (closed by `close`)
        try:
            for piece in pieces:
                self.write(piece)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()

    def write(self, data: bytes) -> None:
        """Append bytes; not after any have been read."""
        self._file.write(data)
        self.size += len(data)

    def pieces(self, size: int = _PIECE) -> Iterator[bytes]:
        """All of it from the beginning, `size` bytes at a time."""
        self._file.seek(0)
        while data := self._file.read(size):
            yield data

    def lines(self) -> Iterator[bytes]:
        """All of it from the beginning, by line, each with its end."""
        self._file.seek(0)
        yield from self._file

    def close(self) -> None:
        """Drop it."""
        self._file.close()


class _SizeCondition(Protocol):
    def wants_size(self, size: int) -> bool: ...


def has_wanted_size(record: Record, selection: _SizeCondition | None) -> bool:
    """Whether a `Selection` wants a record of this size; asked when its value has been read, since it is not known before."""
    return selection is None or selection.wants_size(record.size or 0)


@contextmanager
def located(record: Record) -> Iterator[None]:
    """Give errors that decoding the record raises within their place, unless they have one."""
    try:
        yield
    except RdbError as e:
        raise record.add_location(e) from None


def feed(record: Record, decoder: Any, sink: object = None) -> Iterator[None]:
    """Feed a record's value to a `Decoder`, or to what is fed as one, and yield after each piece.

    Raises: RdbError with its place, where the file is damaged, or the value does not end where its parts do.
    """
    with located(record):
        yield from feed_pieces(decoder, sink, record.chunks())


def count_elements(record: Record, also: Callable[[bytes], object] | None = None) -> int:
    """The elements of a record's value, -1 where it has none.

    Args:
        also: called with each piece of the value.

    Raises: RdbError with its place.
    """
    counter = PieceCounter(count_rule(record.value_type))
    with located(record):
        for piece in record.chunks():
            if also is not None:
                also(piece)
            counter.feed(piece)
        return counter.finish()

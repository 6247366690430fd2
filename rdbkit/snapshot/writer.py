"""Writing a snapshot: header, what stands before the keys, keys, end mark and checksum."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from io import BufferedWriter, BytesIO
from types import TracebackType
from typing import Any, BinaryIO, Final, NamedTuple, Self

import anycrc
from librt.strings import BytesWriter

from rdbkit.errors import LossError
from rdbkit.format import constants as c
from rdbkit.format.encode import encode_value, write_length, write_string
from rdbkit.format.record import Record
from rdbkit.model import Header
from rdbkit.storage.output import OutputHandle, handle_of, leave_room, open_output
from rdbkit.text import as_bytes

_CRC64: Final = anycrc.Model("CRC64-REDIS")
_FLUSH: Final = 1 << 20
#: Pieces from this size on are not copied into the buffer.
_LARGE: Final = 1 << 16
#: Counts of a database that are not known before its end.
UNKNOWN: Final = (-1, -1)
_MOST: Final = (1 << 32) - 1
#: Beginnings of databases whose counts are corrected, more than there are databases; a file may go back and forth between them.
_MOST_PATCHES: Final = 1 << 16


class _Stretch(NamedTuple):
    """A stretch of what has been written: its checksum alone, and its length."""

    crc: int
    size: int


class _Patch(NamedTuple):
    """Counts of a database that may prove different at its end: `content` stands at `offset`, as a stretch of its own."""

    offset: int
    stretch: int
    content: bytes
    counts: tuple[int, int]


class Writer:
    """A snapshot being written; made by `rdbkit.create`. A context manager: the file is whole when its block ends well.

    >>> import io, rdbkit
    >>> out = io.BytesIO()
    >>> with rdbkit.create(out, version=9) as writer:
    ...     writer.put(b"greeting", b"hello", expire_ms=4102444800000)
    ...     writer.put(b"scores", {b"ann": 1.5}, db=3)
    >>> with rdbkit.open(io.BytesIO(out.getvalue())) as snapshot:
    ...     [(record.db, record.key, record.value) for record in snapshot]
    [(0, b'greeting', b'hello'), (3, b'scores', {b'ann': 1.5})]

    Attributes:
        header: flavour and RDB version of the file.
        written: keys so far.
        checksum: whether the file gets one; otherwise it says that it has none, as with `rdbchecksum no`.
        crc64: the checksum in hexadecimal, when the file is whole; empty where its version has none.
        recounts: the counts of databases that `copy` is given may be wrong, and are to be corrected; left out where they cannot.
    """

    def __init__(self, out: AbstractContextManager[BinaryIO], header: Header, own: bool, compress: bool) -> None:
        self.header = header
        self.written = 0
        self.checksum = True
        self.crc64 = ""
        self.recounts = False
        self._compress = compress
        self._types = c.value_types(*header)
        self._context = out
        self._out: BinaryIO | None = None
        self._buffer = BytesWriter()
        self._stretches: list[_Stretch] = []
        self._size = 0
        self._own = own
        self._patchable = False
        self._broken = False
        self._db: int | None = None
        self._counts = [0, 0]  # keys and expiring keys of the current database
        self._patching = False  # the last patch is the current database's
        self._patches: list[_Patch] = []

    def __enter__(self) -> Self:
        self._out = self._context.__enter__()
        # What is compressed or goes through a pipe cannot be written to again, nor what others opened, maybe for appending.
        plain = self._own and isinstance(self._out, BufferedWriter) and self._out.seekable()
        self._patchable = plain or isinstance(self._out, BytesIO) or getattr(self._out, "can_seek", False)
        self._start = self._out.tell() if self._patchable else 0
        self._buffer.write(str(self.header).encode())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if kind is None:
            try:
                self._finish()
            except BaseException as e:
                if not self._context.__exit__(type(e), e, e.__traceback__):
                    raise
                return
        self._context.__exit__(kind, error, trace)
        self._out = None

    @property
    def size(self) -> int:
        """Bytes of the file that it will be if nothing follows."""
        has_checksum = self.header.flavour == c.VALKEY or self.header.version >= 5
        return self._size + len(self._buffer) + 1 + (8 if has_checksum else 0)

    @property
    def can_correct(self) -> bool:
        """Whether the output can be written to again, so that counts can be put in when they are known."""
        return self._patchable

    # -- what stands before the keys

    def aux(self, key: str | bytes, value: str | bytes | int) -> None:
        """A field about the file or its writer, such as `ctime`; left out before RDB 7, which has none."""
        if self.header.version >= 7:
            self._buffer.append(c.AUX)
            for text in (key, value):
                write_string(self._buffer, text if isinstance(text, bytes) else str(text).encode("utf-8", "surrogateescape"))

    def function(self, source: bytes) -> None:
        """A function library.

        Raises: LossError before RDB 10, which has none.
        """
        if self.header.version < 10:
            raise LossError(f"{self.header} has no functions")
        self._buffer.append(c.FUNCTION2)
        write_length(self._buffer, len(source))
        self._buffer.write(source)

    # -- keys

    def put(
        self,
        key: str | bytes,
        value: Any,
        *,
        db: int = 0,
        expire_ms: int | None = None,
        idle_s: int | None = None,
        freq: int | None = None,
    ) -> None:
        """Write a key and its value.

        Args:
            key: its name, a str as UTF-8; that no database has one twice is the caller's to see to.
            value: as `Record.value` gives it: bytes, list, set, dict, or one of rdbkit's types.
            db: database number.
            expire_ms: absolute expiry in Unix milliseconds; before RDB 3 the file has whole seconds, rounded down.
            idle_s, freq: eviction hints, left out before RDB 9.

        Raises: LossError where the version cannot hold it, and nothing of it is written; TypeError or ValueError for what is
            no value; OSError of the output.
        """
        name = as_bytes(key, "key")
        body = BytesWriter()
        type_code = encode_value(body, value, *self.header, self._compress)
        out = self._begin(db, expire_ms, idle_s, freq)
        out.append(type_code)
        write_string(out, name)
        out.write(body.getvalue())
        self._end()

    def write(self, record: Record) -> None:
        """Copy a record as it stands in its file.

        Raises: LossError where the version does not know its encoding, and nothing of it is written; what reading raises.
        """
        t = record.value_type
        own = self._types.get(t.id)
        if own is not t or t.since > self.header.version:
            raise LossError(f"{self.header} does not know the encoding of a {t.name}", db=record.db, key=record.key)
        key = record.key
        out = self._begin(record.db, record.expire_ms, record.idle_s, record.freq)
        self._broken = True  # until all of it is there
        out.append(t.id)
        write_string(out, key)
        for chunk in record.chunks():
            out.write(chunk)
            if len(out) > _FLUSH:
                self._flush()
        self._broken = False
        self._end()

    def copy(
        self, data: bytes, db: int, keys: int, expires: int, counts: tuple[int, int] | None = None, selects: bool = True
    ) -> None:
        """Records as they stand, and what stands between them; without any, what belongs to no database.

        Args:
            data: their bytes; that this version has all that is in them is the caller's to see to.
            db: their database.
            keys, expires: how many there are, and how many of them expire.
            counts: what the file is to say of the database's keys and expiries where they are the first of it; None for
                nothing, UNKNOWN for what proves true.
            selects: name the database even where it is the first, and 0, which goes without saying.
        """
        if keys:
            if self._db is None and db == 0 and not selects:
                self._db = 0
            if db != self._db:
                self._select(db, counts)
            self._counts[0] += keys
            self._counts[1] += expires
            self.written += keys
        self.append(data)

    def append(self, data: bytes) -> None:
        """More of what `copy` began."""
        if len(data) >= _LARGE:
            self._flush()
            self._emit(data)
        else:
            self._buffer.write(data)
            if len(self._buffer) > _FLUSH:
                self._flush()

    @property
    def handle(self) -> OutputHandle | None:
        """Of the file, where others can write into it what `leave_room` was called for."""
        return handle_of(self._out) if self._own and self._out is not None else None

    def leave_room(self, size: int, crc: int) -> int:
        """More of what `copy` began, which others write into the file.

        Args:
            size: how many bytes they are.
            crc: their CRC-64.

        Returns: where in the file they go.
        """
        assert self._out is not None
        self._flush()
        self._stretches.append(_Stretch(crc, size))
        self._size += size
        return leave_room(self._out, size)

    def flush(self) -> None:
        """Hand over what is buffered, so that a writer which waits takes no memory."""
        self._flush()

    def _begin(self, db: int, expire_ms: int | None, idle_s: int | None, freq: int | None) -> BytesWriter:
        """What precedes a record's type."""
        if self._broken:
            raise ValueError("a record was left half written, so that nothing can follow it")
        out = self._buffer
        version = self.header.version
        if version < 3 and expire_ms is not None and not -(1 << 31) <= expire_ms // 1000 < 1 << 31:
            raise LossError(f"{self.header} has no expiry after 2038")
        if db != self._db:
            self._select(db, UNKNOWN)
        self._counts[0] += 1
        if expire_ms is not None:
            self._counts[1] += 1
            if version >= 3:
                out.append(c.EXPIRETIME_MS)
                out.write(expire_ms.to_bytes(8, "little", signed=True))
            else:
                out.append(c.EXPIRETIME)
                out.write((expire_ms // 1000).to_bytes(4, "little", signed=True))
        if version >= 9:
            if idle_s is not None:
                out.append(c.IDLE)
                write_length(out, idle_s)
            if freq is not None:
                out.append(c.FREQ)
                out.append(freq)
        return out

    def _end(self) -> None:
        self.written += 1
        if len(self._buffer) > _FLUSH:
            self._flush()

    def _select(self, db: int, counts: tuple[int, int] | None) -> None:
        """Begin a database; how many keys it has can be corrected at its end, where the output can be written to again."""
        self._end_database()
        self._db = db
        self._counts = [0, 0]
        self._buffer.append(c.SELECTDB)
        write_length(self._buffer, db)
        if self.header.version < 7 or counts is None:
            return
        can_change = self._patchable and (self.recounts or counts == UNKNOWN) and len(self._patches) < _MOST_PATCHES
        if not can_change and (self.recounts or counts == UNKNOWN):
            return  # it is but a hint, and better none than a wrong one
        form = BytesWriter()
        for n in counts:
            if n < 0:
                form.write(_wide_length(0, 5))  # any number can be put in
            else:
                write_length(form, n)
        content = form.getvalue()
        self._buffer.append(c.RESIZEDB)
        if can_change:
            self._flush()
            self._patches.append(_Patch(self._size, len(self._stretches), content, counts))
            self._patching = True
            self._emit(content, whole=True)
        else:
            self._buffer.write(content)

    def _end_database(self) -> None:
        """Correct the counts of the current database where they prove different."""
        if not self._patching:
            return
        self._patching = False
        patch = self._patches[-1]
        if tuple(self._counts) != patch.counts:
            content = b""
            at = 0
            for n in self._counts:
                width = _width(patch.content[at])
                content += _wide_length(min(n, _MOST), width)
                at += width
            if len(content) == len(patch.content):
                self._patches[-1] = patch._replace(content=content)

    # -- the file

    def _flush(self) -> None:
        """Hand over what is buffered."""
        data = self._buffer.getvalue()
        self._buffer.truncate(0)
        if data:
            self._emit(data)

    def _emit(self, data: bytes, whole: bool = False) -> None:
        """Write; a `whole` stretch stays one of its own, since its content may change."""
        assert self._out is not None
        self._out.write(data)
        self._size += len(data)
        before = self._stretches[-1] if self._stretches else None
        frozen = bool(self._patches) and self._patches[-1].stretch == len(self._stretches) - 1
        if before is None or whole or frozen:
            self._stretches.append(_Stretch(_CRC64.calc(data), len(data)))
        else:
            self._stretches[-1] = _Stretch(_CRC64.calc(data, before.crc), before.size + len(data))

    def _finish(self) -> None:
        assert self._out is not None
        if self._broken:
            raise ValueError("a record was left half written, so that the file cannot be ended")
        self._end_database()
        self._buffer.append(c.EOF)
        self._flush()
        patches = [patch for patch in self._patches if self.recounts or patch.counts == UNKNOWN]
        for patch in patches:
            self._stretches[patch.stretch] = _Stretch(_CRC64.calc(patch.content), len(patch.content))
            self._out.seek(self._start + patch.offset)
            self._out.write(patch.content)
        if patches:
            self._out.seek(self._start + self._size)
        if self.header.flavour == c.VALKEY or self.header.version >= 5:
            crc = 0
            for stretch in self._stretches if self.checksum else ():
                crc = _CRC64.combine(crc, stretch.crc, stretch.size)
            self._out.write(crc.to_bytes(8, "little"))
            self.crc64 = f"{crc:016x}"


def _width(first: int) -> int:
    """Bytes of a length that begins with `first`."""
    return 1 if first < 0x40 else 2 if first < 0x80 else 5 if first == 0x80 else 9


def _wide_length(n: int, width: int) -> bytes:
    """A length in the form of so many bytes, or the shortest that holds it where that one is too short."""
    if width == 1 and n < 0x40:
        return bytes([n])
    if width == 2 and n < 0x4000:
        return bytes([0x40 | n >> 8, n & 0xFF])
    return b"\x80" + n.to_bytes(4, "big") if width == 5 else b"\x81" + n.to_bytes(8, "big")


def create(
    dst: str | os.PathLike[str] | BinaryIO,
    *,
    version: int,
    flavour: str = c.REDIS,
    force: bool = False,
    compress: bool = False,
    sources: Sequence[object] | None = None,
) -> Writer:
    """Write a snapshot.

    Args:
        dst: a path (`.gz` compresses), "-" for standard output, or an object with `write(bytes)`. A file appears under its name
            only when it is whole.
        version: RDB version of the file, 1 to 15 for "redis" and 80 for "valkey".
        flavour: "redis" or "valkey".
        force: replace a file that exists.
        sources: what the keys come from: paths, "-", or what was read. The file is then readable for nobody who may not read all of
            them.
        compress: try LZF on strings of more than 20 bytes, as servers do; it takes time.

    Raises: ValueError for a version that there is not; FileExistsError and other OSError when the block is entered.

    >>> import rdbkit, tempfile, os
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with rdbkit.create(os.path.join(folder, "small.rdb"), version=9) as writer:
    ...         writer.put(b"key", [b"a", b"b"])
    ...     os.listdir(folder)
    ['small.rdb']
    """
    known = range(1, c.NEWEST_REDIS + 1) if flavour == c.REDIS else c.VALKEY_VERSIONS if flavour == c.VALKEY else ()
    if version not in known:
        raise ValueError(f"there is no {flavour} RDB version {version}")
    is_path = isinstance(dst, (str, os.PathLike))
    opened: AbstractContextManager[BinaryIO] = (
        open_output(dst, force, sources) if isinstance(dst, (str, os.PathLike)) else nullcontext(dst)
    )
    return Writer(opened, Header(flavour, version), is_path and dst != "-", compress)

"""A snapshot: header, what stands before the keys, records, checksum, and what follows.

Blocks go to the `Scanner`; the scanner's `ValueSkipper` reads through a record that does not fit into one, in bounded memory.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from types import TracebackType
from typing import NamedTuple, Self

import anycrc

from rdbkit.errors import ChecksumError, CorruptError, LimitError, RdbError, TruncatedError, UnsupportedVersionError
from rdbkit.format import constants as c
from rdbkit.format.budget import HELD, HELD_BYTES, HOW_TO_RAISE, Budget
from rdbkit.format.decode import FileTypes
from rdbkit.format.filter import Filter, Sieve
from rdbkit.format.record import Collector, LargeRecord, Record
from rdbkit.format.scan import NO_EXPIRY, HintFinder, LastRecord, Prelude, Scanner, Visitor
from rdbkit.model import AofBase, Aux, Checksum, Event, FunctionLibrary, Header, KeyMetadata, ModuleAux, Trailer
from rdbkit.snapshot.capture import MARK_BYTES, Frame, Window, begins_snapshot, read_frame, read_trailer, skip_mark, without_mark
from rdbkit.snapshot.other_formats import HEAD_BYTES, describe, describe_damage
from rdbkit.storage.location import Identity, is_file, is_folder, is_local
from rdbkit.storage.manifest import find_manifest, newer_beside
from rdbkit.storage.remote import is_remote
from rdbkit.storage.source import UNKNOWN, FileSource, Input, Rereading, Source, changed, open_source, read_at

BLOCK_SIZE = 1 << 20
_BLOCKS_A_PIECE = 4  # that goes to another process: what is told of each costs time, and what is made of it memory
_HEAD = 16  # bytes of a large value that a visitor is shown: a module's id, or the first field expiry
_TAIL = 4096  # bytes in which an input's checksum is looked for: the last pages of a page blob can be padding
_FIRST_KEYS = 1 << 16  # bytes in which a file shows who wrote it
_FEW_ZEROS = 16  # fewer than these at the end of an input that is cut may be the end of what it is cut behind
_CRC64 = anycrc.Model("CRC64-REDIS")


#: No limit is higher.
_MOST = 1 << 56


class Limits(NamedTuple):
    """How large things may be that have to be held in memory whole.

    `item_bytes`: a key's name, an AUX field, a function library, the metadata of a key. `string_bytes`: what one compressed
    string of a value may unpack to when it is decoded. `held_bytes`: all together that has to be held until the end of the file,
    with what objects take besides their content: AUX fields, function libraries, hash templates, counts of each database, and
    of the value being read what cannot be passed on, such as the pending entries of a group. Values as such have no limit,
    since they are read in pieces.

    >>> import rdbkit
    >>> with rdbkit.open("fixtures/rich/redis-7.0.15.rdb", limits=rdbkit.Limits(item_bytes=1 << 20)) as snapshot:
    ...     print(max(len(record.key) for record in snapshot))
    8
    """

    item_bytes: int = 16 << 20
    string_bytes: int = 1 << 30
    held_bytes: int = HELD_BYTES

    @classmethod
    def of_memory(cls, size: int) -> Limits:
        """Limits that let `size` bytes be held of a file, and single items be larger where that is more than usual.

        >>> Limits.of_memory(1 << 30).item_bytes
        268435456
        """
        usual = cls()
        size = min(size, _MOST)
        return cls(max(usual.item_bytes, size // 4), max(usual.string_bytes, size), size)


_USUAL = Limits()
_IN_FORCE: ContextVar[Limits] = ContextVar("limits", default=_USUAL)


def usual_limits() -> Limits:
    """The limits of a snapshot that is opened without any."""
    return _IN_FORCE.get()


@contextmanager
def limits_in_force(limits: Limits) -> Iterator[None]:
    """Inside, these are the limits of every snapshot that is opened without any."""
    token = _IN_FORCE.set(limits)
    try:
        yield
    finally:
        _IN_FORCE.reset(token)


class Block(NamedTuple):
    """Whole records as they stand in the file, `offset` bytes from its beginning, the first of them in database `db`."""

    data: bytes
    offset: int
    db: int


class Span(NamedTuple):
    """Where a `Block` of `size` bytes stands, so that who works on it can read it; see `Snapshot.handle`."""

    size: int
    offset: int
    db: int


class _Pieces:
    """What has been scanned of a file, and not yet been handed out as a `Block`."""

    def __init__(self, handle: int | None) -> None:
        self.begin = self.end = 0
        self.db = 0
        self._handle = handle
        self._data: list[bytes] = []  # where it cannot be read again

    def add(self, begin: int, end: int, db: int, buf: bytes, at: int) -> None:
        """The scan has come from `begin`, in database `db`, to `end`; it began at `buf[at]`."""
        if self.begin == self.end:
            self.begin, self.db = begin, db
        self.end = end
        if self._handle is None:
            self._data.append(buf[at : at + end - begin])

    def cut(self, end: int, db: int) -> Block | Span | None:
        """What there is in front of the record at `end`, in database `db`; that record is the first of the next piece."""
        begin, first_db = self.begin, self.db
        size = end - begin
        self.begin, self.db = end, db
        if self._handle is not None:
            return Span(size, begin, first_db) if size else None
        data = b"".join(self._data)
        self._data = [data[size:]]
        return Block(data[:size], begin, first_db) if size else None

    def rest(self, strays: bytes, db: int) -> Block | Span | None:
        """All that there is, and these bytes behind it, which stand elsewhere; it goes on in database `db`."""
        piece = self.cut(self.end, db)
        if not strays:
            return piece
        if isinstance(piece, Span):
            assert self._handle is not None
            piece = Block(read_at(self._handle, piece.offset, piece.size), piece.offset, piece.db)
        return Block(strays, 0, 0) if piece is None else piece._replace(data=piece.data + strays)


class Snapshot:
    """A snapshot being read; made by `rdbkit.open`. A context manager, and an iterable of `Record` that runs once.

    >>> import rdbkit
    >>> with rdbkit.open("fixtures/rich/valkey-9.1.2.rdb") as snapshot:
    ...     hashes = [record.key for record in snapshot if record.type == "hash"]
    >>> print(snapshot.header, len(hashes), snapshot.checksum.state)
    VALKEY080 4 ok

    Attributes:
        header: flavour and RDB version.
        aux: fields about the file and its writer that stand before the keys, as text, e.g. `aux["redis-ver"]`. Bytes that
            are not UTF-8 are kept as surrogate escapes; of a name that repeats, the last.
        functions: function libraries that stand before the keys.
        checksum: state of the CRC-64; None until the end has been read.
        trailer: what follows the RDB in the input; None until the end has been read.
        frame: what precedes the snapshot, with its length or mark, where it is a capture of what a replica is sent.
        begin: where its header stands in the (decompressed) input: bytes of what precedes it.
        needs_relaxed: its version is newer than this release knows, so that it was opened with `relaxed`.
    """

    def __init__(
        self,
        source: Source,
        *,
        relaxed: bool,
        verify_checksum: bool,
        limits: Limits,
        block_size: int = BLOCK_SIZE,
        damaged: bool = False,
    ) -> None:
        self._source = source
        self._open_again: Callable[[bool | None], Snapshot] | None = None  # by `open_snapshot`
        self._path: str | None = None
        self.limits = limits
        self._block_size = max(block_size, 16)
        self._verify = verify_checksum
        self._buf = b""
        self._pos = 0
        self._base = 0  # offset of _buf[0]
        self._start = b""  # from the header on, as much as there was at first
        self._zeros = b""  # what stood behind _buf, where nothing else follows up to the end
        self._zeros_at = UNKNOWN  # where they begin in the input
        self._zeros_to_end = 0  # how many they are, also where they are more than a block
        self._crc = 0
        self._crc_at = 0  # offset up to which _crc covers
        self.frame = Frame()
        self._rdb_end = 0
        self._large: LargeRecord | None = None
        self._handed_out = False
        self._started = False
        self._ended = False  # and the file was then what is expected
        self._span = (0, 0)  # where in _buf the last scan began, and in which database
        #: What told the file from any other when it was opened; None for what is not a regular file.
        self.identity: Identity | None = source.expected or source.identity()
        self._of_enterprise: bool | None = None
        self.begin = 0
        self.checksum: Checksum | None = None
        self.trailer: Trailer | None = None
        self.aux: dict[str, str] = {}
        self.functions: list[FunctionLibrary] = []
        self._prelude: list[tuple[Event, bytes]] = []  # and the bytes of each
        #: Attributes, type and key of the record larger than a block that is being read, as they stand in the file.
        self.large_head = b""
        self._large_strays = b""  # what stood among them without being one
        self.large_metadata: list[KeyMetadata] = []
        #: Module data outside of keys that is larger than a block and being read; its size is not known yet.
        self.module_data: ModuleAux | None = None
        #: Of what is held of the file.
        self.budget = Budget(limits.held_bytes)
        try:
            self.header = self._read_header(relaxed)
            self.file_types = FileTypes(*self.header, limits.string_bytes, self.name, self.budget)
            self.types = self.file_types.types
            self._scanner = Scanner(*self.header, limits.item_bytes, self.budget)
            self._scanner.templates = self.file_types.templates
            self._read_prelude(damaged)
        except RdbError as e:
            raise self._add_location(e) from None

    # -- what users call

    @property
    def name(self) -> str:
        """The input's name, for messages."""
        return self._source.name

    @property
    def path(self) -> str | None:
        """Where the input is, for commands: a path, or a URL without its query; None for standard input and what else has none."""
        return self._path

    @property
    def aof_base(self) -> AofBase | None:
        """Where it is the base of an append-only folder: which files beside it have newer data. None where it is not."""
        if self.aux.get("aof-base") != "1":
            return None
        newer = newer_beside(os.fspath(self._path)) if self._path is not None and is_local(self._path) else None
        return AofBase(newer or (), newer is not None)

    @property
    def is_of_redis_enterprise(self) -> bool:
        """Whether Redis Enterprise wrote it, which keeps hints beside keys: as far as the first keys tell, before any is read."""
        if self._of_enterprise is None and not self._started:
            finder = HintFinder()
            data = self._buf[self._pos : self._pos + _FIRST_KEYS]
            with suppress(RdbError):  # what is wrong with it is reported when it is read
                Scanner(*self.header, self.limits.item_bytes, Budget(self.limits.held_bytes)).scan(data, 0, UNKNOWN, finder)
            self._of_enterprise = finder.found
        return bool(self._of_enterprise)

    @property
    def has_begun(self) -> bool:
        """Whether reading of the keys has begun, which can be done once."""
        return self._started

    @property
    def can_reopen(self) -> bool:
        """Whether it can be read once more: it is a file, opened by its path."""
        return self._open_again is not None

    def reopen(self, *, verify_checksum: bool | None = None) -> Snapshot:
        """The same file from its beginning, as it was opened, where `can_reopen`.

        Args:
            verify_checksum: False where that has been done; None as it was opened.

        Raises: as `open_snapshot`; ChangedError where the file is another now, or is changed while it is read.
        """
        if self._open_again is None:
            raise ValueError(f"{self.name} cannot be read twice")
        return self._open_again(verify_checksum)

    @property
    def warnings(self) -> list[CorruptError]:
        """The first 1,000 faults of values that were read all the same.

        Nothing is lost by them, and servers load them, too: a stream's length that is not its number of entries, for one.
        Errors with their places, which were not raised.
        """
        return list(self.file_types.warnings)

    @property
    def size(self) -> int | None:
        """Bytes of the underlying file (compressed where it is), None where unknown."""
        return self._source.size

    @property
    def position(self) -> int:
        """Bytes of the underlying file read so far."""
        return self._source.consumed

    @property
    def framing(self) -> str | None:
        """What precedes the snapshot where it is a capture of what a replica is sent.

        "bulk" (its length) or "eof-mark" (a mark that follows it, too); otherwise None.
        """
        return self.frame.kind

    @property
    def compression(self) -> str | None:
        """What the file is compressed with: "gzip", "zstd", "xz", "bzip2" or None; "gzip in zstd" where that was done twice."""
        return self._source.compression

    @property
    def ignored(self) -> int:
        """Bytes behind the compressed data that are none of it, which tools that unpack ignore, too; known at the end."""
        return self._source.ignored

    @property
    def reordered(self) -> bool:
        """Whether something was reported in another order than the file has it: see `Scanner`."""
        return self._scanner.reordered

    @property
    def rdb_size(self) -> int:
        """Bytes of the RDB itself read so far, framing and what follows excluded; all of it after the end."""
        return (self._rdb_end or self._base + self._pos) - self.begin

    def __iter__(self) -> Iterator[Record]:
        """Every key in file order. The next one is found when it is asked for, so stopping early costs nothing.

        Raises: RdbError; at the end ChecksumError where the CRC-64 differs.
        """
        for batch in self._collect(Collector(self.file_types, False)):
            for found in batch:
                assert isinstance(found, Record)
                yield found

    def events(self) -> Iterator[Event | Record]:
        """Records, and everything else that the file says, in file order.

        >>> import rdbkit
        >>> with rdbkit.open("fixtures/rich/redis-6.0.20-mod.rdb") as snapshot:
        ...     [event for event in snapshot.events() if isinstance(event, rdbkit.ModuleAux)]
        [ModuleAux('test__rdb', 1, 1, 19), ModuleAux('test__rdb', 1, 2, 19)]
        """
        for batch in self._collect(Collector(self.file_types, True)):
            yield from batch

    def sift(self, wanted: Filter | None, *, events: bool = False) -> Iterator[list[Event | Record]]:
        """The records that a filter wants, some or none at a time; of all others no object is made.

        A record larger than a block comes where all but its size is wanted, which is not known before it has been read.

        Args:
            wanted: made for this snapshot; None for all records.
            events: give what the file says besides, too, except of the keys that are left out.

        Raises: as iterating does.
        """
        return self._collect(Collector(self.file_types, events) if wanted is None else Sieve(self.file_types, events, wanted))

    def _collect(self, collector: Collector) -> Iterator[list[Event | Record]]:
        """What a collector finds, block by block."""
        try:
            for large in self.scan(collector):
                is_wanted = large is not None and collector.takes_large(large)
                # of the last record of a block more may follow: only KeyDB does that, and writes RDB 9
                yield collector.take(keep_last=large is None and self.header == ("redis", 9))
                if large is not None and is_wanted:
                    collector.last = large  # what the file says behind a value is said of this one
                    yield [large]
        except RdbError:
            yield collector.take()  # what is sound before the damage
            raise
        yield collector.take()

    def scan(self, visitor: Visitor) -> Iterator[LargeRecord | None]:
        """Tell `visitor` of everything, the fastest way through a file.

        Yields None after each block, and each record larger than one, which is to be read before the next step, or passed.
        """
        if self._started:
            raise ValueError("a snapshot can be read once; open it again")
        self._started = True
        scanner = self._scanner
        self.report_prelude(visitor)
        try:
            while True:
                visitor.base = self._base
                self._span = (self._pos, visitor.db)
                self._pos = scanner.scan(self._buf, self._pos, self._room, visitor)
                yield None
                if scanner.finished:
                    break
                left = len(self._buf) - self._pos
                if left >= self._block_size:
                    record = self._open_large(visitor)
                    if record is not None:
                        if not record.is_module_data or visitor.wants_module_data:
                            yield record
                        for _ in self._stream(record):
                            pass
                        self._close_large(record, visitor)
                        continue
                    if left > 2 * self.limits.item_bytes + 64:
                        raise LimitError(
                            f"a key's name, AUX field or function of more than {self.limits.item_bytes} bytes; {HOW_TO_RAISE}",
                            offset=self._pos,
                        )
                more = self._refill(max(self._block_size, left))
                scanner.start = 0  # the item that is not complete now begins the buffer
                if not more and not self._give_zero_back():
                    raise TruncatedError("the file ends too early", offset=len(self._buf) + self._zeros_to_end)
            self._read_end()
            self._source.check()
            self._ended = True
        except RdbError as e:
            self._ended = True
            self._source.check()  # damage in what is now another file is not the file's
            raise self._add_location(e) from None

    def fits_checksum(self) -> bool | None:
        """Whether the input is as it was written, although it could not be read to its end: it is read on, and not looked at.

        Returns: None where that cannot be told, since it has no checksum, or goes on behind it with what is no padding.
        """
        if not self._verify or (self.header.flavour == c.REDIS and self.header.version < 5):
            return None
        self._release_zeros()
        announced = self.frame.announced
        end = self.begin + announced if announced >= 0 else UNKNOWN
        more = True
        while more:
            self._pos = max(self._pos, min(len(self._buf), end - self._base) - _TAIL)
            try:
                more = self._refill(self._block_size) and self._base + len(self._buf) < end
            except RdbError:
                return False
        tail = without_mark(self._buf[: end - self._base], self.frame)
        if tail is None:
            return None
        first = max(len(tail.rstrip(b"\0")), 8)
        for end in range(first, min(first + 8, len(tail)) + 1):  # its last bytes can be zeros, as padding is
            stored = int.from_bytes(tail[end - 8 : end], "little")
            if stored and _CRC64.calc(tail[: end - 8], self._crc) == stored:
                return True
        is_disabled = tail.rstrip(b"\0").endswith(b"\xff") and tail.endswith(bytes(8))
        goes_on = "1" in (self.aux.get("aof-base"), self.aux.get("aof-preamble"))
        return None if is_disabled or goes_on else False

    def share_templates(self, fields: dict[int, tuple[bytes, ...]], counts: dict[int, int]) -> None:
        """Use and fill these field names of hashes (RDB 15), and their counts: this is a part of a file that is read in parts."""
        self.file_types.templates = self._scanner.templates = fields
        self._scanner.skipper.templates = counts

    def prelude(self) -> list[tuple[Event, bytes]]:
        """What stands before the keys, and the bytes of each."""
        return list(self._prelude)

    def keep_prelude(self, wanted: Callable[[Event, bytes], bool]) -> None:
        """Tell no visitor of what stands before the keys and is not wanted."""
        self._prelude = [(event, raw) for event, raw in self._prelude if wanted(event, raw)]

    def report_prelude(self, visitor: Visitor) -> None:
        """Tell `visitor` of what stands before the keys."""
        visitor.base = self._base
        visitor.budget = self.budget
        for event, raw in self._prelude:
            visitor.buf, visitor.event_at, visitor.event_end = raw, 0, len(raw)
            visitor.enter(0)
            visitor.event(event)
            visitor.leave(len(raw))

    @property
    def handle(self) -> int | None:
        """Of the file, for `read_at`; None for a source whose bytes others cannot read, or are not the snapshot's."""
        source = self._source
        return source.file.fileno() if isinstance(source, FileSource) and hasattr(os, "pread") else None

    def check_unchanged(self) -> None:
        """Raise ChangedError where the file has changed since it was opened, for who reads it by its handle."""
        if self._source.identity() != self.identity:
            raise changed(self.name)

    def blocks(self, visitor: LastRecord | None = None) -> Iterator[Block | Span | LargeRecord]:
        """The file in pieces for work in several processes, and each record, or module data, larger than a block.

        A piece begins with a record, and ends where nothing more is said of its last; only the first piece, and one behind a
        large record, may begin with something else.

        Args:
            visitor: is told of everything, in this process.
        """
        if visitor is None:
            visitor = LastRecord()
        visitor.wants_module_data = True
        pieces = _Pieces(self.handle)
        least = _BLOCKS_A_PIECE * self._block_size
        try:
            for large in self.scan(visitor):
                if large is not None:
                    if (piece := pieces.rest(self._large_strays, visitor.db)) is not None:
                        yield piece
                    yield large
                    continue
                begin, db = self._span
                pieces.add(self._base + begin, self._base + self._pos, db, self._buf, begin)
                if visitor.start >= 0:
                    if visitor.start - pieces.begin >= least and (piece := pieces.cut(visitor.start, visitor.db_there)) is not None:
                        yield piece
                    visitor.start = -1
        except RdbError:
            begin, db = self._span
            if visitor.end > max(pieces.end, self._base + begin):  # some records of the block are sound
                pieces.add(self._base + begin, visitor.end, db, self._buf, begin)
            if (piece := pieces.rest(b"", visitor.db)) is not None:
                yield piece
            raise
        if (piece := pieces.rest(b"", visitor.db)) is not None:
            yield piece

    def close(self) -> None:
        """Close the file where a path was given; an object that was handed in stays open."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if not self._ended and (kind is None or issubclass(kind, RdbError)):
                self._source.check()
        finally:
            self.close()

    # -- blocks

    def _refill(self, size: int) -> bool:
        """Drop what has been consumed, read on; False at the input's end."""
        self._checksum_to(self._pos)
        self._base += self._pos
        left = len(self._buf) - self._pos
        if self._zeros:
            self._buf = self._buf[self._pos :]
        else:
            self._buf = self._source.refill(self._buf, self._pos, size)
            if self._zeros_at == UNKNOWN and self._buf.endswith(b"\0"):
                self._hold_zeros_back()
        self._pos = 0
        if self.limits.held_bytes == HELD_BYTES:
            self.budget.grow(self._source.consumed)
        return len(self._buf) > left

    def _hold_zeros_back(self) -> None:
        """Take zeros off the buffer that go on to the end of the input.

        In a sound file they stand behind the end mark, which is no zero, so that records cannot have any of them: they would be
        keys without a name, as many as there is room for on a full disk.
        """
        ahead = self._source.zeros_ahead()
        if ahead is None:
            return
        kept = self._buf.rstrip(b"\0")
        self._zeros = self._buf[len(kept) :]
        self._zeros_to_end = len(self._zeros) + ahead
        self._zeros_at = self._base + len(kept)
        if self._zeros_to_end < _FEW_ZEROS:
            self._zeros = self._source.refill(self._zeros, 0, ahead)
        self._buf = kept

    def _give_zero_back(self) -> bool:
        """Let what begins before the zeros have one more of them, where there are few; False where it cannot have one.

        Those can be its end: the input is cut behind a score of 0, say. But it is no key whose name would be none.
        """
        if not self._zeros or self._zeros_to_end >= _FEW_ZEROS:
            return False
        if self._large is None:  # a large record has begun before them, however much of it has been handed out
            if self._base + self._pos >= self._zeros_at:
                return False
            type_code, key = self._scanner.context(self._buf)
            if type_code in self.types and not key:
                return False
        self._zeros = self._zeros[1:]
        self._zeros_to_end -= 1
        self._buf += b"\0"
        return True

    def _release_zeros(self) -> None:
        """What is read from here on are no records."""
        self._buf += self._zeros
        self._zeros = b""
        self._zeros_to_end = 0
        self._zeros_at = -1

    def _checksum_to(self, pos: int) -> None:
        """Bring the CRC-64 up to `_buf[pos]`."""
        begin = self._crc_at - self._base
        if self._verify and pos > begin:
            piece = self._buf if begin == 0 and pos == len(self._buf) else memoryview(self._buf)[begin:pos]
            self._crc = _CRC64.calc(piece, self._crc)
        self._crc_at = self._base + pos

    @property
    def _room(self) -> int:
        if self._zeros_to_end >= _FEW_ZEROS:
            return len(self._buf)
        total = self._source.total
        return UNKNOWN if total == UNKNOWN else max(total - self._base, len(self._buf))

    def _need(self, n: int) -> bytes:
        """The next `n` bytes, fewer only at the input's end."""
        while len(self._buf) - self._pos < n and self._refill(max(n, self._block_size)):
            pass
        return self._buf[self._pos : self._pos + n]

    def _skip(self, n: int) -> int:
        """Skip `n` bytes; returns how many of them were there."""
        left = n
        while left > (there := len(self._buf) - self._pos):
            left -= there
            self._pos = len(self._buf)
            if not self._refill(self._block_size):
                return n - left
        self._pos += left
        return n

    @contextmanager
    def _window(self) -> Iterator[Window]:
        """The input from here on; errors that count from where it has come to are put right."""
        try:
            yield Window(self._need, self._skip)
        except RdbError as e:
            if e.offset is not None:
                e.offset += self._pos
            raise

    # -- the parts of a file

    def _read_header(self, relaxed: bool) -> Header:
        with self._window() as window:
            self.frame = read_frame(window)
        self.begin = self._crc_at = self._base + self._pos
        self._crc = 0
        head = self._need(9)
        if not head:
            raise TruncatedError("the file is empty")
        magic, digits = (head[:6], head[6:9]) if head.startswith(b"VALKEY") else (head[:5], head[5:9])
        if magic not in (b"REDIS", b"VALKEY"):
            raise self._other_format(head)
        if len(head) < 9:
            raise TruncatedError("the file ends inside its header", offset=self._pos + len(head))
        if not digits.isdigit() or int(digits) < 1:
            raise CorruptError(f"no RDB file: {digits!r} is no version number", offset=self._pos + len(magic))
        header = Header(magic.decode().lower(), int(digits))
        known = header.version <= c.NEWEST_REDIS if header.flavour == c.REDIS else header.version in c.VALKEY_VERSIONS
        self.needs_relaxed = not known
        if not known and not relaxed:
            newest = f"REDIS0001 to REDIS{c.NEWEST_REDIS:04d} and VALKEY{c.VALKEY_VERSIONS[-1]:03d}"
            raise UnsupportedVersionError(
                f"RDB version {head.decode()} is not known, only {newest}; --relaxed tries it all the same"
            )
        self._start = self._buf[self._pos : self._pos + HEAD_BYTES]
        self._pos += 9
        return header

    def _other_format(self, head: bytes) -> RdbError:
        """What is wrong with a file that begins so, and with neither REDIS nor VALKEY."""
        if len(head) < 9 and (b"REDIS".startswith(head[:5]) or b"VALKEY".startswith(head[:6])):
            return TruncatedError("the file ends inside its header", offset=self._pos + len(head))
        what = self._of_unpacked(describe(self._need(HEAD_BYTES)[:HEAD_BYTES]))
        return CorruptError(what or f"no RDB file: it begins with {head[:9]!r}, not with REDIS or VALKEY and a version")

    def _read_prelude(self, damaged: bool) -> None:
        self._prelude = self._scan_prelude(damaged)
        for event, _ in self._prelude:
            if isinstance(event, Aux):
                name, value = (text.decode("utf-8", "surrogateescape") for text in (event.key, event.value))
                self.aux[name] = value
            elif isinstance(event, FunctionLibrary):
                self.functions.append(event)

    def _scan_prelude(self, damaged: bool) -> list[tuple[Event, bytes]]:
        """Read on to the first record, or to a damaged part if that is allowed."""
        collector = Prelude()
        while True:
            collector.base = self._base
            try:
                self._pos = self._scanner.prelude(self._buf, self._pos, self._room, collector)
            except RdbError:
                if not damaged:
                    raise
                self._pos = self._scanner.start
                break
            begin = self._buf[self._pos : self._pos + 1]
            if begin and begin[0] not in (c.AUX, c.FUNCTION2, c.FUNCTION_PRE_GA, c.MODULE_AUX):
                break
            left = len(self._buf) - self._pos
            if begin and begin[0] == c.MODULE_AUX and left >= self._block_size:
                break
            if left > 2 * self.limits.item_bytes + 64:
                if damaged:
                    break
                raise LimitError(
                    f"an AUX field or function of more than {self.limits.item_bytes} bytes; {HOW_TO_RAISE}", offset=self._pos
                )
            if not self._refill(max(self._block_size, left)):
                break
        return collector.found

    # -- records larger than a block

    def _open_large(self, visitor: Visitor) -> LargeRecord | None:
        """The large record or module data that begins at the buffer's position; None where its head is not complete."""
        scanner = self._scanner
        visitor.base = self._base
        offset = self._base + self._pos
        value_at = scanner.open_large(self._buf, self._pos, self._room, visitor)
        if value_at < 0:
            return None
        type_code = scanner.type_code
        self._large_strays = b"".join([self._buf[begin:end] for _, begin, end in scanner.strays])
        if type_code == c.MODULE_AUX:
            record = LargeRecord(0, offset, None, None, None, self.file_types, type_code, b"", self._chunks)
            self.module_data = next(event for event in scanner.held if isinstance(event, ModuleAux))
            self.large_metadata = []
        else:
            if scanner.strays:
                scanner.report_strays(self._buf, visitor)
                visitor.buf, visitor.base = self._buf, self._base
            expire = None if scanner.expire_ms == NO_EXPIRY else scanner.expire_ms
            idle = None if visitor.idle_s < 0 else visitor.idle_s
            freq = None if visitor.freq < 0 else visitor.freq
            record = LargeRecord(visitor.db, offset, expire, idle, freq, self.file_types, type_code, scanner.key, self._chunks)
            self.large_metadata = [event for event in scanner.held if isinstance(event, KeyMetadata)]
            scanner.release(visitor)
        self.large_head = scanner.head
        self._pos = value_at
        self._large = record
        self._handed_out = False
        return record

    def _still_there(self, record: LargeRecord) -> None:
        """Asked after each piece, since the consumer may have gone on to the next record in between."""
        if self._large is not record:
            raise ValueError("this record has been passed; a value larger than a block can be read only before the next one")

    def _chunks(self, record: LargeRecord) -> Iterator[bytes]:
        """What `Record.chunks` gives for a large record."""
        self._still_there(record)
        if self._handed_out:
            raise ValueError("a value larger than a block can be read only once")
        self._handed_out = True
        yield from self._stream(record)

    def _stream(self, record: LargeRecord) -> Iterator[bytes]:
        """The rest of the large record's value; sets its size at the end."""
        skipper = self._scanner.skipper
        while True:
            begin = self._pos
            try:
                self._pos = skipper.advance(self._buf, begin, self._room)
                if skipper.skip > self._room - len(self._buf):
                    raise TruncatedError("the file ends too early", offset=begin)
            except RdbError as e:
                raise self._add_location(e, record) from None
            if self._pos > begin:
                piece = self._buf[begin : self._pos]
                if len(record.head) < _HEAD:
                    record.head += piece[:_HEAD]
                yield piece
                self._still_there(record)
            if skipper.done:
                break
            left = len(self._buf) - self._pos
            if left > 2 * self.limits.item_bytes + 64:
                raise self._add_location(
                    LimitError(f"names of fields that are too large; {HOW_TO_RAISE}", offset=self._pos), record
                )
            if not self._refill(max(self._block_size, left)) and not self._give_zero_back():
                raise self._add_location(TruncatedError("the file ends too early", offset=len(self._buf)), record)
        if record.size is None:
            record.size = self._base + self._pos - record.offset

    def _close_large(self, record: LargeRecord, visitor: Visitor) -> None:
        self._large = None
        visitor.base = self._base
        size = record.size or 0
        if record.is_module_data:
            visitor.event_at = visitor.event_end = -1  # nothing of it is in the buffer that the visitor has
            for event in self._scanner.held:
                if isinstance(event, ModuleAux):
                    event.size = size
                visitor.event(event)
            self._scanner.held = []
            return
        expire = NO_EXPIRY if record.expire_ms is None else record.expire_ms
        visitor.large(record.type_code, record.offset, record.key, size, expire, record.head)
        visitor.strays = []
        visitor.idle_s = -1
        visitor.freq = -1

    # -- the end

    def _read_end(self) -> None:
        self._pos = self._scanner.start
        self._release_zeros()
        self._checksum_to(self._pos)
        computed = self._crc
        if self.header.flavour == c.REDIS and self.header.version < 5:
            self.checksum = Checksum("absent")
        else:
            stored = self._need(8)
            if len(stored) < 8:
                raise TruncatedError("the file ends inside its checksum", offset=len(self._buf))
            number = int.from_bytes(stored, "little")
            if number == 0:
                self.checksum = Checksum("disabled", 0, computed if self._verify else None)
            elif not self._verify:
                self.checksum = Checksum("unchecked", number)
            elif number != computed:
                self.checksum = Checksum("mismatch", number, computed)
                at = self._base + self._pos
                self._pos += 8
                self._rdb_end = self._base + self._pos
                with suppress(RdbError):
                    self.trailer = self._read_trailer()
                raise ChecksumError(
                    f"the checksum differs: the file says {number:016x}, its content gives {computed:016x}",
                    offset=at - self._base,
                )
            else:
                self.checksum = Checksum("ok", number, computed)
            self._pos += 8
        self._verify = False
        self._rdb_end = self._base + self._pos
        self.trailer = self._read_trailer()

    def _read_trailer(self) -> Trailer:
        self._compare_sizes()
        with self._window() as window:
            has_mark = skip_mark(window, self.frame)
            begin = self._base + self._pos
            kind, is_whole = read_trailer(window, has_mark or self.framing is not None)
        if is_whole and begins_snapshot(self._source.behind):
            return Trailer("snapshot", self._source.ignored)
        if has_mark and kind in ("none", "padding"):
            return Trailer("mark", MARK_BYTES)
        end = self._base + self._pos if is_whole else self._source.total
        return Trailer(kind, None if end == UNKNOWN else end - begin)

    def _compare_sizes(self) -> None:
        """Hold what a capture says in front of its snapshot against the size that it has."""
        announced, size = self.frame.announced, self.rdb_size
        if announced < 0 or announced == size:
            return
        if self._skip(announced - size) < announced - size:
            raise TruncatedError("the file ends too early", offset=self._pos)
        raise CorruptError(
            f"the replication capture announces a snapshot of {announced:,} bytes, and it has {size:,}",
            offset=self._rdb_end - self._base,
        )

    # -- errors

    def _add_location(self, e: RdbError, record: LargeRecord | None = None) -> RdbError:
        """Give an error from a block its place in the file, and the key it happened in."""
        if e.source is not None:
            return e
        is_of_data = self._start and not self._rdb_end and e.rule != HELD
        if is_of_data and (damage := describe_damage(self._start, self._buf[max(self.begin - self._base, 0) :])):
            e = CorruptError(self._of_unpacked(damage), offset=e.offset)
        if isinstance(e, TruncatedError) and self._zeros_to_end >= _FEW_ZEROS:
            size = f"{self._zeros_to_end:,} bytes"
            e = TruncatedError(f"zeros to the end of the file ({size}), as a full disk leaves them", offset=len(self._buf))
        e.source = self.name
        if e.offset is not None:
            e.offset += self._base
        if isinstance(e, TruncatedError):
            e.message += self._missing()
        if record is not None:
            if not record.is_module_data:
                e.db, e.key, e.reading = record.db, record.key, f"a {record.value_type.name}"
            else:
                e.reading = "module data"
        elif e.reading is None and hasattr(self, "_scanner") and not self._scanner.finished:
            type_code, key = self._scanner.context(self._buf)
            if type_code in self.types:
                e.reading = f"a {self.types[type_code].name}"
                if key is None:
                    e.reading += " and its key"
                else:
                    e.key = key
                    e.db = self._scanner.db
            elif type_code in c.OPCODE_NAMES:
                e.reading = c.OPCODE_NAMES[type_code]
        return e

    def _of_unpacked(self, advice: str) -> str:
        """What an error says of this input, where it names what to do with FILE."""
        return advice + ", where FILE is unpacked first" if self.compression and " FILE" in advice else advice

    def _missing(self) -> str:
        """How much of a capture is missing that ends too early, where it says how much there should be."""
        announced, total = self.frame.announced, self._source.total
        missing = announced + self.begin - (self._base + len(self._buf) + self._zeros_to_end if total == UNKNOWN else total)
        if announced < 0 or missing <= 0:
            return ""
        return f": {missing:,} of the {announced:,} bytes that the capture announces are missing"


def open_snapshot(
    src: Input,
    *,
    relaxed: bool = False,
    verify_checksum: bool = True,
    limits: Limits | None = None,
    block_size: int = BLOCK_SIZE,
    damaged: bool = False,
    rereading: Rereading | None = None,
) -> Snapshot:
    """Open a snapshot for reading.

    Args:
        src: a path, the URL of a blob (`https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB`, with a SAS or without), "-" for
            standard input, or any object with `read(n) -> bytes` (short reads allowed). Compression, zero padding, following AOF
            commands, and captures of what a replica is sent (SYNC, PSYNC) are recognised.
        relaxed: try an RDB version that is newer than this release knows.
        verify_checksum: compare the CRC-64 at the end.
        limits: how large keys and the like may be, and how much is held of the file.
        block_size: bytes to read at a time; memory is a few times this.
        damaged: raise nothing for damage in front of the keys; reading the keys will.
        rereading: raise ChangedError where the file is not what it was when it was first opened with this one.

    Raises: RdbError where the beginning is no RDB, or the URL cannot be opened; OSError where the path cannot; ValueError for a URL
        that names no blob.

    >>> import rdbkit
    >>> with rdbkit.open("fixtures/rich/redis-7.0.15.rdb") as snapshot:
    ...     print(snapshot.header, snapshot.aux["redis-ver"], sum(1 for record in snapshot))
    REDIS0010 7.0.15 27
    """
    if isinstance(src, str | os.PathLike) and src != "-" and is_folder(src):
        if find_manifest(os.fspath(src)) is not None:
            what = "no RDB file: this is an append-only folder, of which rdbkit fold makes a snapshot"
            raise CorruptError(what, source=os.fspath(src))
        raise IsADirectoryError(21, "Is a directory", os.fspath(src))
    source = open_source(src)
    try:
        if rereading is not None:
            rereading.watch(source)
        snapshot = Snapshot(
            source, relaxed=relaxed, verify_checksum=verify_checksum, limits=limits or usual_limits(), block_size=block_size,
            damaged=damaged,
        )  # fmt: skip
    except BaseException:
        source.close()
        raise
    is_path = isinstance(src, str | os.PathLike)
    # open files have the names of their paths
    if src != "-" and (is_path or (not is_remote(snapshot.name) and is_file(snapshot.name))):
        snapshot._path = snapshot.name
    if snapshot._path is not None and is_path and is_file(snapshot.name):
        again = rereading or Rereading()
        again.remember(snapshot.name, snapshot.identity)
        snapshot._open_again = lambda verify: open_snapshot(
            src, relaxed=relaxed, verify_checksum=verify_checksum if verify is None else verify, limits=limits,
            block_size=block_size, damaged=damaged, rereading=again,
        )  # fmt: skip
    return snapshot

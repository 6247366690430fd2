"""One key of a snapshot, and the visitor that makes such records. Compiled, since both exist once a record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rdbkit.errors import CorruptError, LimitError, RdbError
from rdbkit.format.budget import HOW_TO_RAISE, NAME, OBJECT
from rdbkit.format.constants import MEMBER_EXPIRY, MEMBER_EXPIRY_KEY, MEMBER_EXPIRY_WHEN, MODULE_AUX, MODULE_DATA, ValueType
from rdbkit.format.decode import Decoder, FileTypes, elements_of, value_of
from rdbkit.format.primitives import read_length, read_string
from rdbkit.format.scan import NO_EXPIRY, STRING_INT, STRING_LZF, Visitor
from rdbkit.format.sink import Items
from rdbkit.model import Aux, Event

if TYPE_CHECKING:
    from mypy_extensions import i64


#: Bytes that the LZF of a name may unpack to; the default of `Limits`.
_NAME_LIMIT = 16 << 20
#: Bytes of a large value to decode at a time: of a compressed stream, one such piece can become a hundred thousand entries.
_PIECE = 1 << 17
#: Bytes of compressed and packed content to decode at a time, of which each may become an object of sixty.
_BATCH = 1 << 16


class Record:
    """One key: what the file says of it, and its value as the file's bytes.

    Attributes:
        db: database number.
        expire_ms: absolute expiry in Unix milliseconds, None for none.
        idle_s: seconds since the last access, where the file says so.
        freq: LFU counter (0-255), where the file says so.
        offset: where the record begins in the (decompressed) input, in bytes.
        size: bytes that the record takes in the file, attributes and key included; None for a record larger than a block
            until it has been read or passed.
        member_expire_ms: absolute expiry of each member or field that has one of its own, where the file says so behind the
            value (KeyDB); otherwise None. Of a record larger than a block it is known when the next one has been asked for.

        file_types: what its types are in its file.
        value_type: of the value.
        type_code: the type byte; of a string that is stored as an integer or compressed, `scan.STRING_INT` or `scan.STRING_LZF`.

    A record is cheap: key and value are taken from the block that it was found in when they are asked for, and keep that block
    (about 1 MiB) in memory as long as the record lives.

    >>> import rdbkit
    >>> with rdbkit.open("fixtures/rich/redis-7.0.15.rdb") as snapshot:
    ...     record = next(r for r in snapshot if r.key == b"s_i16")
    ...     print(record.type, record.encoding, record.size)
    set intset 22
    """

    __slots__ = (
        "_block", "_end", "_key", "_key_at", "_value_at", "db", "expire_ms", "file_types", "freq", "idle_s", "member_expire_ms",
        "offset", "size", "type_code", "value_type",
    )  # fmt: skip

    def __init__(
        self,
        db: int,
        offset: int,
        size: int | None,
        expire_ms: int | None,
        idle_s: int | None,
        freq: int | None,
        file_types: FileTypes,
        type_code: int,
        block: bytes,
        key_at: int,
        value_at: int,
        end: int,
        key: bytes | None,
    ) -> None:
        self.db: int = db
        self.offset: int = offset
        self.size: int | None = size
        self.expire_ms: int | None = expire_ms
        self.idle_s: int | None = idle_s
        self.freq: int | None = freq
        self.member_expire_ms: dict[bytes, int] | None = None
        self.file_types: FileTypes = file_types
        self.value_type: ValueType = file_types.types.get(0 if type_code >= STRING_INT else type_code, MODULE_DATA)
        self.type_code: int = type_code
        self._block: bytes = block
        self._key_at: int = key_at
        self._value_at: int = value_at
        self._end: int = end
        self._key: bytes | None = key

    @property
    def key(self) -> bytes:
        """The key's name.

        Raises: CorruptError where its LZF is damaged.
        """
        if self._key is None:
            try:
                self._key, _ = read_string(self._block, self._key_at, max(_NAME_LIMIT, self._value_at - self._key_at))
            except RdbError as e:
                e.source, e.offset, e.db, e.reading = self.file_types.source, self.offset, self.db, "a key's name"
                raise
        return self._key

    def rename(self, key: bytes) -> None:
        """Let it go by this name from now on; what is read of it stays as it is."""
        self._key = key

    @property
    def type(self) -> str:
        """string, list, set, zset, hash, stream, module, array, ..."""
        return self.value_type.type

    @property
    def rdb_type(self) -> int:
        """The type byte of the file, which means something only with the file's flavour and version."""
        return self.value_type.id

    @property
    def encoding(self) -> str:
        """The stored form: as OBJECT ENCODING names it, and int, raw or lzf for strings."""
        if self.type_code == STRING_INT:
            return "int"
        return "lzf" if self.type_code == STRING_LZF else self.value_type.encoding

    def chunks(self) -> Iterator[bytes]:
        """The encoded value, piece by piece: in bounded memory for a value of any size.

        A record larger than a block can be read only until the next one is asked for, and only once.

        Raises: RdbError where the file is damaged; ValueError where the record has been passed.
        """
        yield self.raw

    @property
    def raw(self) -> bytes:
        """The encoded value as one piece, which takes as much memory as it is long."""
        return self._block[self._value_at : self._end]

    @property
    def bytes_in_file(self) -> bytes:
        """All of the record as it stands in the file, attributes, type and key included.

        Raises: ValueError for a record larger than a block.
        """
        # a record among whose attributes something else stood has a block of its own, which is shorter than it was in the file
        return self._block[max(self._end - (self.size or 0), 0) : self._end]

    @property
    def is_module_data(self) -> bool:
        """Whether this is no key, but data of a module outside of keys, larger than a block."""
        return self.type_code == MODULE_AUX

    @property
    def value(self) -> Any:
        """The value as a natural Python object: bytes, list, dict, ...; `rdbkit.values` has the table.

        All of it is in memory, up to `Limits.string_bytes`; `elements` reads a value of any size.

        Raises: RdbError where the value is damaged; ValueError where a record larger than a block has been passed.

        >>> import rdbkit
        >>> with rdbkit.open("fixtures/rich/redis-7.0.15.rdb") as snapshot:
        ...     value = {record.key: record.value for record in snapshot}
        >>> value[b"h_lp"], value[b"l_tiny"]
        ({b'f': b'v', b'n': b'123'}, [b'a', b'1', b'-7000'])
        """
        whole: list[Any] = []
        decoder = Decoder(self.file_types)
        size: i64 = 0
        for items in self.decode(decoder):
            whole += items
            size += decoder.spent + len(items) * NAME
            if size > self.file_types.limit:
                limit = self.file_types.limit
                raise self.add_location(
                    LimitError(f"a value of more than {limit} bytes in memory; {HOW_TO_RAISE}; elements() reads it in batches")
                )
        try:
            return value_of(self.type, decoder.arity, whole, decoder.insert_index)
        except RdbError as e:
            raise self.add_location(e) from None

    def elements(self) -> Iterator[list[Any]]:
        """The value's elements in batches, in memory bounded by a block and the largest element.

        `rdbkit.values` says what an element is. A record larger than a block can be read only until the next one is asked
        for, and only once.

        Raises: as `value`.

        >>> import rdbkit
        >>> with rdbkit.open("fixtures/rich/redis-7.0.15.rdb") as snapshot:
        ...     print(sum(len(batch) for record in snapshot for batch in record.elements() if record.type == "hash"))
        9
        """
        decoder = Decoder(self.file_types)
        for items in self.decode(decoder):
            try:
                batch = elements_of(self.type, decoder.arity, items)
            except RdbError as e:
                raise self.add_location(e) from None
            if batch:
                yield batch

    def content(self, chunks: Iterator[bytes] | None = None) -> Iterator[bytes]:
        """The content of a string in pieces, as `chunks` gives the encoded value: one of any size, unless it is compressed.

        Raises: as `value`.

        >>> import rdbkit
        >>> with rdbkit.open("fixtures/rich/redis-7.0.15.rdb") as snapshot:
        ...     next(b"".join(record.content()) for record in snapshot if record.key == b"str")
        b'hello'
        """
        for batch in self.decode(Decoder(self.file_types), chunks):
            for text in batch:
                assert isinstance(text, bytes)
                yield text

    def decode(self, decoder: Decoder, chunks: Iterator[bytes] | None = None, sink: Items | None = None) -> Iterator[list[Any]]:
        """What a decoder finds: elements in flat batches, each in `decoder.arity` parts.

        Args:
            chunks: where the value of a record larger than a block is being read already, all of it as `chunks` gives it.
            sink: what collects them, which is empty.

        Raises: as `value`.
        """
        if sink is None:
            sink = Items()
        decoder.most = _BATCH
        decoder.begin(self.type_code)
        pos: i64
        try:
            pos = decoder.feed(self._block, self._value_at, sink)
            while decoder.paused:
                yield sink.take(decoder.arity)
                pos = decoder.feed(self._block, pos, sink)
            if not decoder.done or pos != self._end:
                raise CorruptError("its parts do not end where the value ends", rule="value-end")
            self._warn(decoder)
            yield sink.take()
        except RdbError as e:
            raise self.add_location(e) from None

    def _warn(self, decoder: Decoder) -> None:
        if decoder.doubts:
            self.file_types.warn(decoder.doubts, self.type_code, self.db, self.key, self.offset)

    def add_location(self, e: RdbError) -> RdbError:
        """Give an error from decoding its place, unless it has one; returns it."""
        if e.source is None:
            e.source = self.file_types.source
            e.offset, e.db, e.key, e.reading = self.offset, self.db, self.key, f"a {self.value_type.name}"
        return e

    def __repr__(self) -> str:
        return f"<Record db={self.db} key={self.key!r} {self.type} ({self.encoding}) {self.size} bytes at {self.offset}>"


class LargeRecord(Record):
    """A record larger than a block, whose value is read piece by piece, once, before the next record is asked for.

    Args:
        pieces: called with the record for the pieces of its value.

    Attributes:
        head: the first bytes of the value, as many as a visitor is shown, when they have been read.
    """

    __slots__ = ("_pieces", "head")

    def __init__(
        self,
        db: int,
        offset: int,
        expire_ms: int | None,
        idle_s: int | None,
        freq: int | None,
        file_types: FileTypes,
        type_code: int,
        key: bytes,
        pieces: Any,
    ) -> None:
        super().__init__(db, offset, None, expire_ms, idle_s, freq, file_types, type_code, b"", 0, 0, 0, key)
        self.head: bytes = b""
        self._pieces: Any = pieces

    def chunks(self) -> Iterator[bytes]:
        yield from self._pieces(self)

    @property
    def raw(self) -> bytes:
        return b"".join(self.chunks())

    @property
    def bytes_in_file(self) -> bytes:
        raise ValueError("of a record larger than a block, the value alone can be read")

    def in_memory(self, raw: bytes) -> Record:
        """The same key, with its value, which `raw` is, in memory."""
        return Record(
            self.db, self.offset, self.size, self.expire_ms, self.idle_s, self.freq, self.file_types, self.type_code,
            raw, 0, 0, len(raw), self.key,
        )  # fmt: skip

    def content(self, chunks: Iterator[bytes] | None = None) -> Iterator[bytes]:
        if self.type_code >= STRING_INT:
            yield from Record.content(self, chunks)
            return
        begun = b""
        start: i64 = 0
        for chunk in self.chunks() if chunks is None else chunks:
            if start == 0:
                begun += chunk
                if len(begun) < 9:
                    continue
                _, start = read_length(begun, 0)
                chunk = begun[start:]
            yield chunk
        if start == 0:  # all of it in fewer bytes than the longest length takes
            _, start = read_length(begun, 0)
            yield begun[start:]

    def decode(self, decoder: Decoder, chunks: Iterator[bytes] | None = None, sink: Items | None = None) -> Iterator[list[Any]]:
        if sink is None:
            sink = Items()
        decoder.most = _BATCH
        decoder.begin(self.type_code)
        try:
            for _ in feed_pieces(decoder, sink, self.chunks() if chunks is None else chunks):
                if len(sink.items) >= decoder.arity:
                    yield sink.take(decoder.arity)
            self._warn(decoder)
            yield sink.take()
        except RdbError as e:
            raise self.add_location(e) from None


class Feeder:
    """Feeds a value piece by piece to a `Decoder`, or to what goes on where its input ends as it does."""

    def __init__(self, decoder: Any, sink: object) -> None:
        self.decoder: Any = decoder
        self.sink: object = sink
        self.parts: list[bytes] = []
        self.have: i64 = 0

    def push(self, piece: bytes) -> bool:
        """The next piece of the value; False where more are wanted before anything can be done.

        Raises: what `decoder.feed` raises.
        """
        self.parts.append(piece)
        self.have += len(piece)
        need: i64 = self.decoder.need
        if self.have < need:
            return False
        data = b"".join(self.parts)
        pos: i64 = self.decoder.feed(data, 0, self.sink)
        self.parts = [data[pos:]]
        self.have -= pos
        return True

    def end(self) -> None:
        """The value has ended.

        Raises: CorruptError where it has not; what `decoder.feed` raises.
        """
        data = b"".join(self.parts)
        pos: i64 = self.decoder.feed(data, 0, self.sink) if not self.decoder.done else 0
        while self.decoder.paused:
            pos = self.decoder.feed(data, pos, self.sink)
        if not self.decoder.done or pos != len(data):
            raise CorruptError("its parts do not end where the value ends", rule="value-end")


def feed_pieces(decoder: Any, sink: object, chunks: Iterator[bytes]) -> Iterator[None]:
    """Feed a `Decoder`, or what goes on where its input ends as it does, and yield after each piece.

    Raises: CorruptError where the value does not end with the last chunk; what `decoder.feed` raises.
    """
    feeder = Feeder(decoder, sink)
    for chunk in chunks:
        for begin in range(0, len(chunk), _PIECE):
            if feeder.push(chunk[begin : begin + _PIECE]):
                yield
            while decoder.paused:
                feeder.push(b"")
                yield
    feeder.end()


class Collector(Visitor):
    """Collects the records (and events, where wanted) of a block."""

    def __init__(self, file_types: FileTypes, events: bool) -> None:
        super().__init__()
        self.file_types: FileTypes = file_types
        self.wants_events: bool = events
        self.found: list[Record | Event] = []
        self.last: Record | None = None
        self.member: bytes = b""
        self.members_of: Record | None = None
        self.members_bytes: i64 = 0  # that the expiries of its members take

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        self.found.append(
            Record(
                self.db,
                self.base + start,
                end - start,
                None if expire_ms == NO_EXPIRY else expire_ms,
                None if self.idle_s < 0 else self.idle_s,
                None if self.freq < 0 else self.freq,
                self.file_types,
                type_code,
                self.buf,
                key_at,
                value_at,
                end,
                None,
            )
        )

    def strayed(self) -> None:
        last = self.found[-1]
        if isinstance(last, Record) and last.size is not None:
            last.size += self.stray_bytes()

    def event(self, event: Event) -> None:
        if isinstance(event, Aux) and event.key.startswith(MEMBER_EXPIRY):
            self.member_expiry(event)
        if self.wants_events:
            self.found.append(event)

    def member_expiry(self, event: Aux) -> None:
        """KeyDB says the expiries of members behind the key's value, as pairs of AUX fields."""
        last = self.last
        for item in reversed(self.found):
            if isinstance(item, Record):
                last = item
                break
        if last is None:
            return
        if last is not self.members_of:
            self.budget.give_back(self.members_bytes)
            self.members_of = last
            self.members_bytes = 0
        if event.key == MEMBER_EXPIRY_KEY:
            self.member = event.value
        elif event.key == MEMBER_EXPIRY_WHEN and event.value.isdigit():
            if last.member_expire_ms is None:
                last.member_expire_ms = {}
            size: i64 = len(self.member) + OBJECT
            self.budget.spend("expiries of members", size)
            self.members_bytes += size
            last.member_expire_ms[self.member] = int(event.value)

    def takes_large(self, record: LargeRecord) -> bool:
        """Whether a record larger than a block is to be read."""
        return True

    def take(self, keep_last: bool = False) -> list[Record | Event]:
        """What was found; the last record, and what follows it, stays behind where more may be said of it."""
        found = self.found
        self.found = []
        if keep_last and found:
            at = len(found) - 1
            while at > 0 and not isinstance(found[at], Record):
                at -= 1
            self.found = found[at:]
            found = found[:at]
        elif found and isinstance(found[-1], Record):
            self.last = found[-1]
        return found

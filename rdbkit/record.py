"""One key of a snapshot, and the visitor that makes such records. Compiled, since both exist once a record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rdbkit.errors import RdbError
from rdbkit.format.constants import ValueType
from rdbkit.format.primitives import read_string
from rdbkit.format.scan import NO_EXPIRY, STRING_INT, STRING_LZF, Visitor
from rdbkit.model import Event

if TYPE_CHECKING:
    from mypy_extensions import i64


#: Bytes that the LZF of a name may unpack to; the default of `Limits`.
_NAME_LIMIT = 16 << 20


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

    A record is cheap: key and value are taken from the block that it was found in when they are asked for, and keep that block
    (about 1 MiB) in memory as long as the record lives.

    >>> import rdbkit
    >>> with rdbkit.open("fixtures/rich/redis-7.0.15.rdb") as snapshot:
    ...     record = next(r for r in snapshot if r.key == b"s_i16")
    ...     print(record.type, record.encoding, record.size)
    set intset 22
    """

    __slots__ = (
        "_block", "_end", "_key", "_key_at", "_kind", "_stream", "_type", "_value_at",
        "db", "expire_ms", "freq", "idle_s", "offset", "size",
    )  # fmt: skip

    def __init__(
        self,
        db: int,
        offset: int,
        size: int | None,
        expire_ms: int | None,
        idle_s: int | None,
        freq: int | None,
        value_type: ValueType,
        kind: int,
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
        self._type: ValueType = value_type
        self._kind: int = kind
        self._block: bytes = block
        self._key_at: int = key_at
        self._value_at: int = value_at
        self._end: int = end
        self._key: bytes | None = key
        self._stream: Any = None

    @property
    def key(self) -> bytes:
        """The key's name.

        Raises: CorruptError where its LZF is damaged.
        """
        if self._key is None:
            try:
                self._key, _ = read_string(self._block, self._key_at, max(_NAME_LIMIT, self._value_at - self._key_at))
            except RdbError as e:
                e.offset, e.db, e.reading = self.offset, self.db, "a key's name"
                raise
        return self._key

    @property
    def type(self) -> str:
        """string, list, set, zset, hash, stream, module, array, ..."""
        return self._type.type

    @property
    def rdb_type(self) -> int:
        """The type byte of the file, which means something only with the file's flavour and version."""
        return self._type.id

    @property
    def encoding(self) -> str:
        """The stored form: as OBJECT ENCODING names it, and int, raw or lzf for strings."""
        if self._kind == STRING_INT:
            return "int"
        return "lzf" if self._kind == STRING_LZF else self._type.encoding

    def chunks(self) -> Iterator[bytes]:
        """The encoded value, piece by piece: in bounded memory for a value of any size.

        A record larger than a block can be read only until the next one is asked for, and only once.

        Raises: RdbError where the file is damaged; ValueError where the record has been passed.
        """
        if self._stream is None:
            yield self._block[self._value_at : self._end]
        else:
            yield from self._stream(self)

    @property
    def raw(self) -> bytes:
        """The encoded value as one piece, which takes as much memory as it is long."""
        if self._stream is None:
            return self._block[self._value_at : self._end]
        return b"".join(self.chunks())

    def __repr__(self) -> str:
        return f"<Record db={self.db} key={self.key!r} {self.type} ({self.encoding}) {self.size} bytes at {self.offset}>"


class Collector(Visitor):
    """Collects the records (and events, where wanted) of a block."""

    def __init__(self, types: dict[int, ValueType], events: bool) -> None:
        super().__init__()
        self.types: dict[int, ValueType] = types
        self.wants_events: bool = events
        self.found: list[Record | Event] = []

    def record(self, kind: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        self.found.append(
            Record(
                self.db,
                self.base + start,
                end - start,
                None if expire_ms == NO_EXPIRY else expire_ms,
                None if self.idle_s < 0 else self.idle_s,
                None if self.freq < 0 else self.freq,
                self.types[0 if kind >= STRING_INT else kind],
                kind,
                self.buf,
                key_at,
                value_at,
                end,
                None,
            )
        )

    def event(self, event: Event) -> None:
        if self.wants_events:
            self.found.append(event)

    def take(self) -> list[Record | Event]:
        found, self.found = self.found, []
        return found

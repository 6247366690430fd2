"""The names of keys, as they are and as they will be: those that meet are to be found. Compiled, since it runs once a record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rdbkit.format import constants as c
from rdbkit.format.compiled import COMPILED
from rdbkit.format.filter import Filter, renamed
from rdbkit.format.primitives import read_string
from rdbkit.format.scan import NO_EXPIRY, Visitor
from rdbkit.format.slots import key_slot, tag_slot_of
from rdbkit.passes.hashes import NameLog
from rdbkit.policy.rules import Rules

if TYPE_CHECKING:
    from mypy_extensions import i64


#: A place in one of several files is one number: the file's, and behind it the record's offset in it.
_OFFSET_BITS: Final = 48
MOST_FILES: Final = 1 << 63 - _OFFSET_BITS
_NEVER: Final = (1 << 63) - 1


def file_and_offset(place: int) -> tuple[int, int]:
    """What `LoggedKeys` says of a place."""
    return place >> _OFFSET_BITS, place & (1 << _OFFSET_BITS) - 1


class Names(Visitor):
    """What the visitors share that look at the keys that a conversion keeps, so far as that is known without their values."""

    def __init__(self, types: dict[int, c.ValueType], limit: int, rules: Rules) -> None:
        super().__init__()
        self.limit: i64 = limit
        self.edits: Any = rules.edits
        self.renames: tuple[tuple[bytes, bytes], ...] = rules.edits.renames
        self.drops_expired: bool = rules.edits.drop_expired
        self.now_ms: i64 = rules.now_ms
        self.duplicates: frozenset[int] = rules.duplicates
        self.filter: Filter | None = None if rules.selection is None else rules.selection.filter_for(types, limit)
        self.to_db: i64 = 0  # where the keys of this database go
        self.database()

    def database(self) -> None:
        self.to_db = self.edits.db_of(int(self.db))
        if self.filter is not None:
            self.filter.database(int(self.db))

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        key, _ = read_string(self.buf, key_at, self.limit)
        self.large(type_code, self.base + start, key, end - start, expire_ms, b"")

    def large(self, type_code: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        if self.duplicates and int(offset) in self.duplicates:
            return
        if self.filter is not None and not self.filter.wants_large(key, type_code, size, expire_ms):
            return
        if self.drops_expired and expire_ms != NO_EXPIRY and expire_ms <= self.now_ms:
            return
        self.met(key, offset)

    def met(self, key: bytes, offset: i64) -> None:
        """A key that is kept, and where its record begins."""


class ToldNames(Names):
    """Tells `found` of the database and name that every key will have, where its record stands, and what they are now."""

    def __init__(self, types: dict[int, c.ValueType], limit: int, rules: Rules, found: Any) -> None:
        super().__init__(types, limit, rules)
        self.found: Any = found

    def met(self, key: bytes, offset: i64) -> None:
        self.found(int(self.to_db), renamed(self.renames, key), int(offset), int(self.db), key)


class LoggedNames(Names):
    """Logs the names that keys have, or where `future` those that they will have, with where their records begin.

    Attributes:
        last: where the last of them begins.
    """

    def __init__(self, types: dict[int, c.ValueType], limit: int, rules: Rules, log: NameLog, future: bool) -> None:
        super().__init__(types, limit, rules)
        self.log: NameLog = log
        self.future: bool = future
        self.last: i64 = 0

    def met(self, key: bytes, offset: i64) -> None:
        self.last = offset
        if self.future:
            self.log.add(self.to_db, renamed(self.renames, key), offset)
        else:
            self.log.add(self.db, key, offset)


class Keys(Visitor):
    """Tells `found` of the database, name, offset and expiry of every key."""

    def __init__(self, limit: int, found: Any) -> None:
        super().__init__()
        self.limit: i64 = limit
        self.found: Any = found

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        key, _ = read_string(self.buf, key_at, self.limit)
        self.found(int(self.db), key, int(self.base + start), int(expire_ms))

    def large(self, type_code: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        self.found(int(self.db), key, int(offset), int(expire_ms))


class LoggedKeys(Visitor):
    """Logs every key of one of several files, in order of their expiry where the log has ranks.

    Args:
        limit: most bytes of a key's name.
        log: of all files.
        number: of the file.
        slots: counts the keys of each hash slot; None where nobody wants that.

    Raises: ValueError where there are too many files.
    """

    def __init__(self, limit: int, log: NameLog, number: int, slots: list[int] | None = None) -> None:
        super().__init__()
        if number >= MOST_FILES:
            raise ValueError(f"at most {MOST_FILES:,} files are compared by the names of their keys")
        self.limit: i64 = limit
        self.log: NameLog = log
        self.number: i64 = number
        self.slots: list[int] | None = slots

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        if self.buf[key_at] < 0x40:
            self.add(self.buf[key_at + 1 : value_at], self.base + start, expire_ms)
        else:
            self.add(read_string(self.buf, key_at, self.limit)[0], self.base + start, expire_ms)

    def large(self, type_code: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        self.add(key, offset, expire_ms)

    def add(self, key: bytes, offset: i64, expire_ms: i64) -> None:
        """A key, where its record begins, and its expiry."""
        until: i64 = _NEVER
        if expire_ms != NO_EXPIRY:
            until = expire_ms if expire_ms > 0 else 0
        self.log.add(self.db, key, self.number << _OFFSET_BITS | offset, until)
        if self.slots is not None:
            slot: i64 = tag_slot_of(key, 0, len(key)) if COMPILED else key_slot(key)
            self.slots[slot] += 1


class NamesAt(Visitor):
    """Keeps database and name of the records that begin at these offsets.

    Attributes:
        names: by offset, those that have been met.
    """

    def __init__(self, limit: int, offsets: set[int]) -> None:
        super().__init__()
        self.limit: i64 = limit
        self.offsets: set[int] = offsets
        self.names: dict[int, tuple[int, bytes]] = {}

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        if int(self.base + start) in self.offsets:
            self.large(type_code, self.base + start, read_string(self.buf, key_at, self.limit)[0], end - start, expire_ms, b"")

    def large(self, type_code: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        if int(offset) in self.offsets:
            self.names[int(offset)] = (int(self.db), key)

"""The names of keys, as they are and as they will be: those that meet are to be found. Compiled, since it runs once a record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rdbkit.format import constants as c
from rdbkit.format.filter import Filter
from rdbkit.format.primitives import read_string
from rdbkit.format.scan import NO_EXPIRY, Visitor
from rdbkit.policy.rules import Rules

if TYPE_CHECKING:
    from mypy_extensions import i64


class Names(Visitor):
    """Tells `found` of the database and name that every key will have, where its record stands, and what they are now."""

    def __init__(self, types: dict[int, c.ValueType], limit: int, rules: Rules, found: Any) -> None:
        super().__init__()
        self.limit: i64 = limit
        self.rules: Any = rules
        self.filter: Filter | None = None if rules.selection is None else rules.selection.filter_for(types, limit)
        self.found: Any = found
        self.database()

    def database(self) -> None:
        if self.filter is not None:
            self.filter.database(int(self.db))

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        key, _ = read_string(self.buf, key_at, self.limit)
        self.large(type_code, self.base + start, key, end - start, expire_ms, b"")

    def large(self, type_code: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        rules, edits = self.rules, self.rules.edits
        if int(offset) in rules.duplicates:
            return
        if self.filter is not None and not self.filter.wants_large(key, type_code, size, expire_ms):
            return
        if edits.drop_expired and expire_ms != NO_EXPIRY and expire_ms <= rules.now_ms:
            return
        db = int(self.db)
        self.found(edits.db_of(db), edits.key_of(key), int(offset), db, key)


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

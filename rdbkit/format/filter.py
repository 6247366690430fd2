"""Which records are wanted: the one test of a key for every verb; compiled, since it runs once a record.

What a block says of a record is tested where it stands. Only a glob, a regular expression, a slot or a sample needs the key as
an object. `rdbkit.selection`, which stands above, reads what a user says into clauses.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rdbkit.format.constants import MEMBER_EXPIRY, REDIS, VALKEY, ValueType, value_types
from rdbkit.format.decode import FileTypes
from rdbkit.format.primitives import read_string
from rdbkit.format.record import Collector, LargeRecord, Record
from rdbkit.format.scan import NO_EXPIRY, STRING_INT, TYPE_CODES
from rdbkit.format.slots import key_slot
from rdbkit.model import Aux, Event, KeyMetadata

if TYPE_CHECKING:
    from mypy_extensions import i64

#: What `Record.type` may say, in any flavour and version.
TYPES: Final = sorted(
    {
        t.type
        for flavour, version in ((REDIS, 9), (REDIS, 14), (REDIS, 15), (VALKEY, 80))
        for t in value_types(flavour, version).values()
    }
)
#: What stands for them where there is no snapshot whose type codes would, and for any other name.
_CODES: Final = {name: code for code, name in enumerate(TYPES)}
_NO_CODE: Final = len(TYPES)
#: To be given for the size of a record larger than a block, which is not known before it has been read.
UNKNOWN_SIZE: Final = -1
#: Larger than any record.
_ENDLESS: Final = 1 << 62
_FIRST: Final = -(1 << 63)
_LAST: Final = (1 << 63) - 1
#: Names of this length and more are not told apart by it.
_LONG: Final = 255


class Clause(NamedTuple):
    """Conditions all of which must hold.

    Attributes:
        given: what the user said, by the names of the arguments of `rdbkit.Selection`.
        types: names of types; None for any.
        dbs: ranges of databases; none for any.
        size: bytes in the file, from and to; None for an open end.
        first_ms, last_ms: window of the expiry, both included, as Unix milliseconds.
        never_expiring: keys without expiry are wanted too.
        names: what the key is: one of these; none for any.
        beginnings: what the key begins with: one of each group.
        not_beginnings: what it does not begin with.
        globs, not_globs: what matches the whole key, and what does not.
        regexes: of which one matches anywhere in the key; none for no condition.
        slots: cluster slots; None for any.
        sample: n keys of m.
    """

    given: dict[str, Any]
    types: frozenset[str] | None = None
    dbs: tuple[range, ...] = ()
    size: tuple[int | None, int | None] = (None, None)
    first_ms: int = _FIRST
    last_ms: int = _LAST
    never_expiring: bool = True
    names: tuple[bytes, ...] = ()
    beginnings: tuple[tuple[bytes, ...], ...] = ()
    not_beginnings: tuple[bytes, ...] = ()
    globs: re.Pattern[bytes] | None = None
    not_globs: re.Pattern[bytes] | None = None
    regexes: tuple[re.Pattern[bytes], ...] = ()
    slots: frozenset[int] | None = None
    sample: tuple[int, int] | None = None


class Filter:
    """Tests records of one snapshot.

    Args:
        clauses: at least one; all must hold.
        types: of the snapshot; None for records of any, for `wants_record` and `wants_key`.
        limit: most bytes of a key's name.
    """

    def __init__(self, clauses: Sequence[Clause], types: dict[int, ValueType] | None = None, limit: int = 0) -> None:
        clause = clauses[0]
        #: the other clauses
        self.also: Filter | None = Filter(clauses[1:], types, limit) if len(clauses) > 1 else None
        self.limit: i64 = limit
        self.wanted_types: bytes = wanted_types(clause.types, types)
        self.dbs: tuple[range, ...] = clause.dbs
        self.db_wanted: bool = True
        low, high = clause.size
        self.low: i64 = 0 if low is None else min(low, _ENDLESS)
        self.high: i64 = _ENDLESS if high is None else min(max(high, UNKNOWN_SIZE), _ENDLESS)
        self.first_ms: i64 = min(max(clause.first_ms, _FIRST), _LAST)
        self.last_ms: i64 = min(max(clause.last_ms, _FIRST), _LAST)
        self.never_expiring: bool = clause.never_expiring
        self.names: frozenset[bytes] = frozenset(clause.names)
        # by its length and last byte nearly every other name is told from these, without becoming an object
        self.has_names: bool = bool(clause.names)
        self.name_sizes: bytes = flags({min(len(name), _LONG) for name in clause.names})
        self.name_ends: bytes = flags({name[-1] for name in clause.names if name})
        self.beginnings: list[list[bytes]] = [list(group) for group in clause.beginnings]
        self.not_beginnings: list[bytes] = list(clause.not_beginnings)
        self.globs: Any = clause.globs
        self.not_globs: Any = clause.not_globs
        self.regexes: list[Any] = list(clause.regexes)
        self.slots: frozenset[int] | None = clause.slots
        self.sample: tuple[int, int] | None = clause.sample
        self.hash: Any = None
        if clause.sample is not None:
            from hashlib import blake2b  # late: it takes as long to load as everything else here, and few runs take samples

            self.hash = blake2b
        self.needs_object: bool = bool(
            clause.globs or clause.not_globs or clause.regexes or clause.slots is not None or clause.sample is not None
        )
        self.tests_names: bool = bool(self.needs_object or self.has_names or self.beginnings or self.not_beginnings)
        if self.also is not None and self.also.tests_names:
            self.tests_names = True

    def database(self, db: int) -> None:
        """The records that follow are in this database."""
        self.db_wanted = self.wants_database(db)

    def wants_database(self, db: int) -> bool:
        """Whether records of this database may be wanted."""
        if self.dbs and not any(db in numbers for numbers in self.dbs):
            return False
        return self.also is None or self.also.wants_database(db)

    def wants(self, buf: bytes, key_at: i64, type_code: i64, size: i64, expire_ms: i64) -> bool:
        """Whether a record is wanted whose key stands in `buf` at `key_at`, as `Visitor.record` receives it.

        Raises: CorruptError where the key has to be unpacked and cannot be.
        """
        if not self.wants_attributes(type_code, size, expire_ms):
            return False
        if not self.tests_names:
            return True
        if buf[key_at] < 0x40:
            return self.wants_name(buf, key_at + 1, key_at + 1 + buf[key_at])
        name, _ = read_string(buf, key_at, self.limit)
        return self.wants_name(name, 0, len(name))

    def wants_large(self, key: bytes, type_code: i64, size: i64, expire_ms: i64) -> bool:
        """Whether a record is wanted whose key is at hand, as `Visitor.large` receives it.

        A size of `UNKNOWN_SIZE` is left to `wants_size`.
        """
        return self.wants_attributes(type_code, size, expire_ms) and (not self.tests_names or self.wants_name(key, 0, len(key)))

    def wants_key(self, db: int, key: bytes, type_name: str, size: int | None, expire_ms: int | None) -> bool:
        """`rdbkit.Selection.wants`."""
        type_code: i64 = _CODES.get(type_name, _NO_CODE)
        in_file: i64 = UNKNOWN_SIZE if size is None else size
        expiry: i64 = NO_EXPIRY if expire_ms is None else expire_ms
        return self.wants_database(db) and self.wants_large(key, type_code, in_file, expiry)

    def wants_record(self, record: Record) -> bool:
        """Whether a record is wanted; where its size is not known yet, but for that."""
        type_code: i64 = _CODES.get(record.type, _NO_CODE)
        size: i64 = UNKNOWN_SIZE if record.size is None else record.size
        expire_ms: i64 = NO_EXPIRY if record.expire_ms is None else record.expire_ms
        if not self.wants_attributes(type_code, size, expire_ms) or not self.wants_database(record.db):
            return False
        if not self.tests_names:
            return True
        key = record.key  # last, since to take it from the block costs more than the other tests do
        return self.wants_name(key, 0, len(key))

    def wants_size(self, size: i64) -> bool:
        """Whether a record of so many bytes is wanted, all else aside."""
        if size < self.low or size > self.high:
            return False
        return self.also is None or self.also.wants_size(size)

    def wants_attributes(self, type_code: i64, size: i64, expire_ms: i64) -> bool:
        """Whether a record is wanted, its name aside."""
        if not self.wanted_types[type_code] or not self.db_wanted or size > self.high or 0 <= size < self.low:
            return False
        if expire_ms == NO_EXPIRY:
            if not self.never_expiring:
                return False
        elif expire_ms < self.first_ms or expire_ms > self.last_ms:
            return False
        return self.also is None or self.also.wants_attributes(type_code, size, expire_ms)

    def wants_name(self, buf: bytes, start: i64, end: i64) -> bool:
        """Whether the key `buf[start:end]` is wanted. The cheapest comes first: what a regular expression costs is not known."""
        if self.has_names and not self.is_named(buf, start, end):
            return False
        for group in self.beginnings:
            if not begins(buf, start, end, group):
                return False
        if self.not_beginnings and begins(buf, start, end, self.not_beginnings):
            return False
        if self.needs_object and not self.wants_object(buf[start:end]):
            return False
        return self.also is None or self.also.wants_name(buf, start, end)

    def is_named(self, buf: bytes, start: i64, end: i64) -> bool:
        """Whether the key `buf[start:end]` is one of the names."""
        size: i64 = end - start
        if not self.name_sizes[size if size < _LONG else _LONG] or (size > 0 and not self.name_ends[buf[end - 1]]):
            return False
        return buf[start:end] in self.names

    def wants_object(self, key: bytes) -> bool:
        """Whether a key is wanted, its beginning aside."""
        if self.globs is not None and self.globs.fullmatch(key) is None:
            return False
        if self.not_globs is not None and self.not_globs.fullmatch(key) is not None:
            return False
        if self.slots is not None and key_slot(key) not in self.slots:
            return False
        if self.sample is not None:
            n, m = self.sample
            # not a CRC: names that count up fall into its remainders by a pattern
            if int.from_bytes(self.hash(key, digest_size=8).digest(), "big") % m >= n:
                return False
        return not self.regexes or any(regex.search(key) is not None for regex in self.regexes)


class Sieve(Collector):
    """Collects the records of a block that a filter wants, of which alone objects are made.

    Of an event that belongs to a key nothing is collected where the key is left out.

    Args:
        file_types, events: as for `Collector`.
        wanted: made for this snapshot.
    """

    def __init__(self, file_types: FileTypes, events: bool, wanted: Filter) -> None:
        super().__init__(file_types, events)
        self.filter: Filter = wanted
        self.dropped: bool = False  # the last record
        wanted.database(0)

    def database(self) -> None:
        self.filter.database(int(self.db))

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        if self.buf[key_at] < 0x40 and not self.strays:
            if self.filter.wants(self.buf, key_at, type_code, end - start, expire_ms):
                Collector.record(self, type_code, start, key_at, value_at, end, expire_ms)
                self.dropped = False
            else:
                self.drop()
            return
        Collector.record(self, type_code, start, key_at, value_at, end, expire_ms)
        if not self.strays:  # with which its size is not known before `strayed`
            self.test_last(type_code, expire_ms)

    def strayed(self) -> None:
        super().strayed()
        record = self.found[-1]
        if isinstance(record, Record):
            self.test_last(record.type_code, NO_EXPIRY if record.expire_ms is None else record.expire_ms)

    def test_last(self, type_code: i64, expire_ms: i64) -> None:
        """Leave the record out again that was collected last, unless it is wanted.

        Raises: CorruptError where its name is damaged.
        """
        record = self.found.pop()
        assert isinstance(record, Record)
        size: i64 = UNKNOWN_SIZE if record.size is None else record.size
        wanted = self.filter
        if wanted.wants_attributes(type_code, size, expire_ms):
            name = record.key if wanted.tests_names else b""
            if not wanted.tests_names or wanted.wants_name(name, 0, len(name)):
                self.found.append(record)
                self.dropped = False
                return
        self.drop()

    def takes_large(self, record: LargeRecord) -> bool:
        """Whether a record larger than a block is wanted, its size aside; asked before its value is read."""
        expire_ms: i64 = NO_EXPIRY if record.expire_ms is None else record.expire_ms
        if self.filter.wants_large(record.key, record.type_code, UNKNOWN_SIZE, expire_ms):
            self.dropped = False
            return True
        self.drop()
        return False

    def event(self, event: Event) -> None:
        if not self.dropped or not isinstance(event, Aux) or not event.key.startswith(MEMBER_EXPIRY):
            super().event(event)

    def drop(self) -> None:
        """Leave a record out, and what was said in front of it."""
        self.dropped = True
        if self.wants_events:
            while self.found and isinstance(self.found[-1], KeyMetadata):
                self.found.pop()

    def take(self, keep_last: bool = False) -> list[Record | Event]:
        return super().take(keep_last and not self.dropped)  # nothing more is said of it


def flags(numbers: set[int]) -> bytes:
    """For each number below 256, 1 where it is one of these, else 0."""
    return bytes([number in numbers for number in range(256)])


def wanted_types(wanted: frozenset[str] | None, types: dict[int, ValueType] | None) -> bytes:
    """For each type code, 1 where its type is among the wanted ones (None: any), else 0; `types` as for `Filter`."""
    if wanted is None:
        return bytes([1]) * TYPE_CODES
    names = dict(enumerate(TYPES)) if types is None else {code: t.type for code, t in types.items()}
    return bytes([names.get(0 if type_code >= STRING_INT else type_code, "") in wanted for type_code in range(TYPE_CODES)])


def begins(buf: bytes, start: i64, end: i64, beginnings: list[bytes]) -> bool:
    """Whether `buf[start:end]` begins with one of these."""
    for beginning in beginnings:
        size: i64 = len(beginning)
        if size == 0 or (end - start >= size and buf[start] == beginning[0] and buf[start : start + size] == beginning):
            return True
    return False


def renamed(prefixes: tuple[tuple[bytes, bytes], ...], key: bytes) -> bytes:
    """What a key is called where names that begin so begin otherwise: the first pair that fits counts.

    >>> renamed(((b"user:", b"u:"), (b"u", b"v")), b"user:17")
    b'u:17'
    """
    for old, new in prefixes:
        if key.startswith(old):
            return new + key[len(old) :]
    return key

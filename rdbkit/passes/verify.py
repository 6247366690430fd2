"""Whether records keep the rules of the format; compiled, since it runs once a record and element.

What is inside of values is for a `ValueChecker`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from rdbkit.errors import CorruptError, RdbError
from rdbkit.format import constants as c
from rdbkit.format.budget import OBJECT
from rdbkit.format.decode import FileTypes, check_field_names
from rdbkit.format.primitives import read_string
from rdbkit.format.record import Record, feed_pieces
from rdbkit.format.scan import TYPE_CODES, LastRecord, Visitor
from rdbkit.model import Event, FunctionLibrary, HashTemplate
from rdbkit.passes.hashes import NameHashes, name_hash
from rdbkit.passes.value_checker import ValueChecker

if TYPE_CHECKING:
    from mypy_extensions import i64

#: The first line of a function library, without the quotes that servers take too.
_LIBRARY_HEAD: Final = re.compile(rb"#!\S+\s+name=(\w+)\s*\n", re.IGNORECASE)


class Verifier(LastRecord):
    """Looks at every record of a snapshot.

    With several processes one is told `inside=False`: it scans, and knows the names. The others are told `outside=False`, and look
    into the values that it passes.

    Args:
        file_types: of the snapshot.
        limit: most bytes of a key's name.
        deep: look inside of values; otherwise records are but counted.
        report_error: called with each error that a record gives, its database, the offset of the record and its bytes. The key is
            in the error.
        outside: look at what shows without a look into values, and between keys.
        inside: with `deep`, look into values, and at what is wrong with a name; of records larger than a block always.

    Attributes:
        records: so far.
        names: hashes of the names of keys.
        libraries: names of the function libraries.
        nameless: keys with an empty name behind another of their database, as a stretch of zeros has them by the thousand.
        nameless_at: where the first of them begins, in bytes from the beginning.
    """

    def __init__(
        self, file_types: FileTypes, limit: int, deep: bool, report_error: Any, outside: bool = True, inside: bool = True
    ) -> None:
        super().__init__(None, limit)
        self.file_types: FileTypes = file_types
        self.deep: bool = deep
        self.outside: bool = outside
        self.inside: bool = inside
        self.report_error: Any = report_error
        self.records: i64 = 0
        self.names: NameHashes = NameHashes()
        self.libraries: set[bytes] = set()
        self.checker: ValueChecker = ValueChecker(file_types, frozenset())
        self.nameless: i64 = 0
        self.nameless_at: i64 = 0
        self.nameless_db: i64 = -1  # the last that has a key with an empty name
        self.large_error: Any = None  # of the record larger than a block that is being passed
        newer = bytearray(TYPE_CODES)
        for number in c.newer_types(file_types.flavour, file_types.version):
            newer[number] = 1
        self.newer: bytes = bytes(newer)

    def judge_type(self, type_code: i64, key: bytes | None) -> None:
        """Raise CorruptError where the file's version does not have the type of a record."""
        if self.newer[type_code]:
            t = self.file_types.types[int(type_code)]
            has = f"{self.file_types.flavour} RDB {self.file_types.version}"
            message = f"type {t.id}, a {t.name}, is of RDB {t.since}, and the file of {has}"
            raise CorruptError(message, rule="type-version", key=key)

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        if self.outside:
            self.start = self.base + start
            self.end = self.base + end
            self.db_there = self.db
            self.records += 1
            if self.buf[key_at] == 0:
                self.met_nameless(start)
            if self.newer[type_code]:
                self.met_newer(type_code, start, key_at, end)
            if not self.deep:
                return
        key: bytes | None = None
        try:
            if self.buf[key_at] < 0x40:
                name = self.buf[key_at + 1 : value_at]
            else:
                name, _ = read_string(self.buf, key_at, self.limit)
            key = name
            if self.outside:
                self.names.add(self.db, name)
            if self.inside and self.checker.opens[type_code]:
                self.checker.check(type_code, self.buf, value_at, end)
        except RdbError as e:
            if self.inside:
                e.key = key
                self.report_error(e, int(self.db), int(self.base + start), int(end - start) + self.stray_bytes())

    def met_newer(self, type_code: i64, start: i64, key_at: i64, end: i64) -> None:
        """A key of a type that the file's version does not have."""
        try:
            name, _ = read_string(self.buf, key_at, self.limit)
            self.judge_type(type_code, name)
        except RdbError as e:
            self.report_error(e, int(self.db), int(self.base + start), int(end - start) + self.stray_bytes())

    def met_nameless(self, start: i64) -> None:
        """A key with an empty name."""
        if self.db != self.nameless_db:
            self.nameless_db = self.db
            return
        if self.nameless == 0:
            self.nameless_at = self.base + start
        self.nameless += 1

    def judge_large(self, record: Record) -> None:
        """Look at a record larger than a block, before the scan goes on.

        Raises: RdbError with a source where the framing breaks.
        """
        type_code: i64 = record.type_code
        if not self.deep:
            return
        self.names.add(record.db, record.key)
        if not self.checker.opens[type_code]:
            return
        try:
            self.checker.begin(type_code)
            for _ in feed_pieces(self.checker, None, record.chunks()):
                pass
            self.checker.finish()
        except RdbError as e:
            if e.source is not None:
                raise
            e.key = record.key
            self.large_error = e

    def large(self, type_code: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        self.records += 1
        try:
            self.judge_type(type_code, key)
        except RdbError as e:
            self.report_error(e, int(self.db), int(offset), int(size))
        if self.large_error is not None:
            self.report_error(self.large_error, int(self.db), int(offset), int(size))
            self.large_error = None

    def event(self, event: Event) -> None:
        if not self.deep or not self.outside:
            return
        try:
            judge_event(event, self.libraries)
        except RdbError as e:
            self.report_error(e, None, int(self.base + self.event_at), int(self.event_end - self.event_at))

    def close(self) -> None:
        """Remove the temporary files."""
        self.checker.close()
        self.names.partitions.close()


class Repeats(Visitor):
    """Finds records whose name has come before, among those whose name has one of these hashes.

    Args:
        limit: most bytes of a key's name.
        hashes: of names, as `NameHashes.twice` gives them.
        report_error: called with database, name, offset of the first record, offset of this one and its bytes.
    """

    def __init__(self, limit: int, hashes: set[int], report_error: Any) -> None:
        super().__init__()
        self.limit: i64 = limit
        self.hashes: set[int] = hashes
        self.report_error: Any = report_error
        self.first: dict[tuple[int, bytes], int] = {}

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        if self.buf[key_at] < 0x40:
            name = self.buf[key_at + 1 : value_at]
        else:
            try:
                name, _ = read_string(self.buf, key_at, self.limit)
            except RdbError:  # a damaged name, which is none that could come twice
                return
        self.met(name, self.base + start, end - start + self.stray_bytes())

    def large(self, type_code: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        self.met(key, offset, size)

    def met(self, name: bytes, offset: i64, size: i64) -> None:
        if int(name_hash(self.db, name)) not in self.hashes:
            return
        known = (int(self.db), name)
        first = self.first.get(known)
        if first is None:
            self.budget.spend("names that are there twice", len(name) + 2 * OBJECT)
            self.first[known] = int(offset)
        else:
            self.report_error(known[0], name, first, int(offset), int(size))


def judge_event(event: Event, libraries: set[bytes]) -> None:
    """Raise CorruptError where what stands between keys breaks a rule; `libraries` takes the names of those of functions."""
    if isinstance(event, HashTemplate):
        check_field_names(event.fields)
    elif isinstance(event, FunctionLibrary):
        name = event.name.encode("utf-8", "surrogateescape")
        if event.pre_release:
            if not event.can_have_head:
                raise CorruptError(f"a function library has the name {name[:64]!r}", rule="function-head")
        else:
            first = event.source[: event.source.find(b"\n") + 1]
            head = _LIBRARY_HEAD.fullmatch(first.replace(b'"', b"").replace(b"'", b""))
            if head is None:
                raise CorruptError(f"a function library begins with {event.source[:64]!r}", rule="function-head")
            name = head[1]
        if name in libraries:
            raise CorruptError(f"library {name[:64]!r} is there before", rule="function-twice")
        libraries.add(name)

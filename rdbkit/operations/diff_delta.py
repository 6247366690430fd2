"""What turns the data of one snapshot into that of another: as commands for a server that has the first, or as a snapshot.

`diff` finds what differs and keeps a few numbers of each key; here the keys are read again and written.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, BinaryIO, Final, Literal, NamedTuple

from librt.strings import BytesWriter

from rdbkit.format import constants as c
from rdbkit.format.encode import write_length, write_string
from rdbkit.format.record import Collector, Record
from rdbkit.format.scan import Scanner
from rdbkit.model import Aux, Event, FunctionLibrary, HashTemplate, Header, KeyMetadata
from rdbkit.operations.commands import COMMAND_BYTES, RespWriter
from rdbkit.policy.ledger import Loss
from rdbkit.resp import command, number, pieces
from rdbkit.snapshot.reader import Snapshot
from rdbkit.snapshot.writer import UNKNOWN as UNKNOWN_COUNTS
from rdbkit.snapshot.writer import Writer, create
from rdbkit.storage.location import Identity, is_same_file, open_file
from rdbkit.storage.output import open_output
from rdbkit.storage.source import UNKNOWN, changed
from rdbkit.targets.target import Target
from rdbkit.text import valid_text

__all__ = ["Delta", "FunctionDifference"]

# What is to be done for a key that the second file has.
NEW: Final = 0
REPLACE: Final = 1  # delete, then write the whole value
ELEMENTS: Final = 2  # write the elements that differ
EXPIRY: Final = 3

#: Types whose elements are set and removed one by one, whatever their order.
BY_ELEMENT: Final = ("hash", "set", "zset")
#: A record with more bytes than this is written whole, since all elements of the first file's are in memory together.
MOST_BYTES: Final = 4 << 20
#: A key that expires within a day may be gone when the commands are loaded: it is written whole, not changed.
SOON_MS: Final = 86_400_000

_BATCH: Final = 512  # elements or keys in a command
_ENDINGS: Final = (".resp", ".rdb")
_KEYDB: Final = Header(c.REDIS, 9)
_WITH_TEMPLATES: Final = 15


@dataclass(frozen=True)
class FunctionDifference:
    """A function library that differs.

    Attributes:
        what: "missing" (the second file does not have it), "extra" (the first does not) or "changed".
        name: of the library; bytes that are not UTF-8 as surrogate escapes.
    """

    what: str
    name: str


@dataclass
class Delta:
    """What `diff` wrote of the differences.

    Attributes:
        file: its name.
        format: "resp" for commands, "rdb" for a snapshot.
        written: keys of the second file that were written, whole or in part.
        deleted: keys that the second file does not have; commands delete them, and a snapshot cannot say so.
        functions: libraries that were written or, by commands, deleted.
        losses: what the target has no command for; the first thousand.
        loss_counts: how many there are of each kind.
    """

    file: str
    format: Literal["resp", "rdb"]
    written: int = 0
    deleted: int = 0
    functions: int = 0
    losses: list[Loss] = field(default_factory=list)
    loss_counts: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; keys that are not UTF-8 as `{"base64": ...}`."""
        return {
            "file": valid_text(self.file),
            "format": self.format,
            "written": self.written,
            "deleted": self.deleted,
            "functions": self.functions,
            "losses": [loss.to_dict() for loss in self.losses],
            "loss_counts": self.loss_counts,
        }


class Change(NamedTuple):
    """What is to be done for a key of the second file.

    Attributes:
        how: NEW, REPLACE, ELEMENTS or EXPIRY.
        offset: of its record in the second file, in bytes.
        size: for ELEMENTS, bytes of that record.
        before, before_size: the same of its record in the first file.
    """

    how: int
    offset: int
    size: int = 0
    before: int = 0
    before_size: int = 0


class Changes:
    """The keys that differ, as numbers alone.

    Attributes:
        deleted: offsets in the first file of keys that only it has.
    """

    def __init__(self) -> None:
        self.deleted: array[int] = array("q")
        self._hows = bytearray()
        self._offsets: array[int] = array("q")
        self._sizes: array[int] = array("I")
        self._befores: array[int] = array("q")
        self._before_sizes: array[int] = array("I")

    def __len__(self) -> int:
        """Keys that the second file has."""
        return len(self._offsets)

    def add(self, change: Change) -> None:
        """A key that the second file has."""
        self._hows.append(change.how)
        self._offsets.append(change.offset)
        self._sizes.append(change.size)
        self._befores.append(change.before)
        self._before_sizes.append(change.before_size)

    def by_element(self) -> bool:
        """Whether any value is to be changed element by element."""
        return ELEMENTS in self._hows

    def __iter__(self) -> Iterator[Change]:
        """Those keys, in the order of the second file."""
        for i in sorted(range(len(self)), key=self._offsets.__getitem__):
            yield Change(self._hows[i], self._offsets[i], self._sizes[i], self._befores[i], self._before_sizes[i])


def delta_format(name: str) -> Literal["resp", "rdb"]:
    """What a file of this name is to have.

    Raises: ValueError where its ending does not say so.

    >>> delta_format("changes.resp.gz"), delta_format("changes.rdb")
    ('resp', 'rdb')
    """
    plain = name.removesuffix(".gz")
    if not plain.endswith(_ENDINGS):
        raise ValueError(f"the name of a delta ends in .resp or .rdb (and .gz): {name}")
    return "resp" if plain.endswith(".resp") else "rdb"


def records_at(snapshot: Snapshot, offsets: array[int]) -> Iterator[Record]:
    """The records that begin at these offsets, which are sorted; read in file order up to the last of them."""
    if not offsets:
        return
    at = 0
    for record in snapshot:
        if record.offset == offsets[at]:
            yield record
            at += 1
            if at == len(offsets):
                return


@contextmanager
def delta_writer(
    name: str,
    files: tuple[str, str],
    reopen: Callable[[str], Snapshot],
    *,
    target: Target | str | None,
    on_loss: str,
    force: bool,
    now_ms: int,
    compares_expiry: bool,
) -> Iterator[DeltaWriter]:
    """Open the file that a delta goes to; it appears under its name when the `with` block ends well.

    Args:
        name: of the file.
        files: paths of both snapshots.
        reopen: opens one of them.
        target, on_loss: as for `RespWriter`.
        force: replace a file that exists.
        now_ms: what counts as expired, in Unix milliseconds.
        compares_expiry: whether expiries are among what may differ.

    Raises: ValueError for another ending of the name, for options that are not for it, for no target of this name, and where it is
        one of the snapshots; FileExistsError and other OSError.
    """
    form = delta_format(name)
    if form == "rdb" and (target is not None or on_loss != "fail"):
        raise ValueError("target and on_loss are for commands, in a file whose name ends in .resp")
    if any(is_same_file(name, each) for each in files):
        raise ValueError(f"{name} is one of the files to be read")
    report = Delta(name, form)
    if form == "resp":
        commands = RespWriter(target, on_loss, now_ms=now_ms)
        report.losses, report.loss_counts = commands.losses, commands.loss_counts
        with open_output(name, force, files) as out:
            yield _Commands(report, files, reopen, out, commands, now_ms, compares_expiry)
        return
    with reopen(files[1]) as snapshot:
        header = snapshot.header
    with create(name, version=header.version, flavour=header.flavour, force=force, sources=files) as writer:
        yield _Copies(report, files, reopen, writer)


class DeltaWriter:
    """Reads what differs again, and has it written in the form of the file.

    Attributes:
        report: what was written.
    """

    def __init__(self, report: Delta, files: tuple[str, str], reopen: Callable[[str], Snapshot]) -> None:
        self.report = report
        self.files = files
        self.reopen = reopen
        self.wanted: set[str] = set()  # libraries that are to come

    def write(self, changes: Changes, functions: Sequence[FunctionDifference]) -> None:
        """Write all of it.

        Raises: LossError; RdbError where a file is damaged; OSError.
        """
        report = self.report
        self.wanted = {each.name for each in functions if each.what != "missing"}
        with self.reopen(self.files[1]) as second:
            self.prelude(second, functions)
            report.deleted = len(changes.deleted)
            self.delete(array("q", sorted(changes.deleted)))
            report.written = len(changes)
            self._keys(second, iter(changes))

    def _keys(self, second: Snapshot, changes: Iterator[Change]) -> None:
        change = next(changes, None)
        wanted = False  # the last record, and with it what the file says behind it
        metadata: KeyMetadata | None = None  # of the next record
        for item in second.events():
            if isinstance(item, Record):
                if change is None:
                    if not self.wanted:
                        return
                    continue
                wanted = item.offset == change.offset
                if wanted:
                    self.key(second, item, metadata, change)
                    change = next(changes, None)
                metadata = None
            elif isinstance(item, KeyMetadata):
                metadata = item
            elif isinstance(item, FunctionLibrary):
                # Servers write them in front of the keys, but one can stand anywhere.
                if item.name in self.wanted:
                    self.wanted.remove(item.name)
                    self.library(item)
            elif isinstance(item, HashTemplate) or (isinstance(item, Aux) and wanted and item.key.startswith(c.MEMBER_EXPIRY)):
                self.beside(item)

    def prelude(self, second: Snapshot, functions: Sequence[FunctionDifference]) -> None:
        """What comes first."""
        raise NotImplementedError

    def library(self, library: FunctionLibrary) -> None:
        """A library of the second file."""
        raise NotImplementedError

    def delete(self, offsets: array[int]) -> None:
        """Keys that the second file does not have, by their sorted offsets in the first."""
        raise NotImplementedError

    def key(self, second: Snapshot, record: Record, metadata: KeyMetadata | None, change: Change) -> None:
        """A record of the second file, and what is to be done for it."""
        raise NotImplementedError

    def beside(self, event: Event) -> None:
        """A hash template, or what KeyDB says behind a record that was written."""
        raise NotImplementedError


class _Copies(DeltaWriter):
    """A snapshot: records as they stand in the second file."""

    def __init__(self, report: Delta, files: tuple[str, str], reopen: Callable[[str], Snapshot], writer: Writer) -> None:
        super().__init__(report, files, reopen)
        self.writer = writer
        self.libraries: dict[str, bytes] = {}  # as they precede the keys

    def prelude(self, second: Snapshot, functions: Sequence[FunctionDifference]) -> None:
        for event, raw in second.prelude():
            if isinstance(event, Aux):
                self.writer.copy(raw, 0, 0, 0)
            elif isinstance(event, FunctionLibrary):
                self.libraries[event.name] = raw

    def library(self, library: FunctionLibrary) -> None:
        raw = self.libraries.get(library.name)
        if raw is None:
            self.writer.function(library.code)
        else:
            self.writer.copy(raw, 0, 0, 0)
        self.report.functions += 1

    def delete(self, offsets: array[int]) -> None:
        pass

    def key(self, second: Snapshot, record: Record, metadata: KeyMetadata | None, change: Change) -> None:
        expires = int(record.expire_ms is not None)
        if record.size is not None:
            self.writer.copy(record.bytes_in_file, record.db, 1, expires, UNKNOWN_COUNTS)
            return
        self.writer.copy(second.large_head, record.db, 1, expires, UNKNOWN_COUNTS)
        for chunk in record.chunks():
            self.writer.append(chunk)

    def beside(self, event: Event) -> None:
        if isinstance(event, Aux):
            self.writer.aux(event.key, event.value)
        elif isinstance(event, HashTemplate):
            out = BytesWriter()
            out.append(c.HASH_TEMPLATE)
            write_length(out, event.number)
            write_length(out, len(event.fields))
            for name in event.fields:
                write_string(out, name)
            self.writer.copy(out.getvalue(), 0, 0, 0)


class _Places:
    """Records of a plain file, each read at its place."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._name = snapshot.name
        self._identity = snapshot.identity
        self._file = open_file(snapshot.name)
        try:
            self.check()
        except BaseException:
            self.close()
            raise
        self._coding = snapshot.file_types
        self._scanner = Scanner(*snapshot.header, snapshot.limits.item_bytes, snapshot.budget)

    def record(self, offset: int, size: int) -> Record:
        """The record of `size` bytes that begins there; its database is not known."""
        self._file.seek(offset)
        data = b""
        while len(data) < size and (piece := self._file.read(size - len(data))):
            data += piece
        collector = Collector(self._coding, False)
        self._scanner.scan(data, 0, UNKNOWN, collector)
        (record,) = collector.take()
        assert isinstance(record, Record)
        return record

    def check(self) -> None:
        """Raise ChangedError where the file is not the one that was compared."""
        if Identity.of(self._file) != self._identity:
            raise changed(self._name)

    def close(self) -> None:
        self._file.close()


class _Commands(DeltaWriter):
    """Commands for a server that has the first file.

    Args:
        now_ms, compares_expiry: as for `delta_writer`.
    """

    def __init__(
        self,
        report: Delta,
        files: tuple[str, str],
        reopen: Callable[[str], Snapshot],
        out: BinaryIO,
        commands: RespWriter,
        now_ms: int,
        compares_expiry: bool,
    ) -> None:
        super().__init__(report, files, reopen)
        self.out = out
        self.commands = commands
        self.features = commands.features
        self.now_ms = now_ms
        self.compares_expiry = compares_expiry
        self.whole = False  # the last record was written so
        self.places: list[_Places | None] = [None, None]

    def write(self, changes: Changes, functions: Sequence[FunctionDifference]) -> None:
        try:
            if changes.by_element():
                for number in (0, 1):
                    self.places[number] = self._open_places(number)
            super().write(changes, functions)
            for places in self.places:
                if places is not None:
                    places.check()
        finally:
            for places in self.places:
                if places is not None:
                    places.close()

    def _open_places(self, number: int) -> _Places | None:
        with self.reopen(self.files[number]) as snapshot:
            # A hash that takes the names of its fields from a template can be read only behind that.
            if snapshot.compression is not None or snapshot.header.version == _WITH_TEMPLATES:
                return None
            return _Places(snapshot)

    def prelude(self, second: Snapshot, functions: Sequence[FunctionDifference]) -> None:
        if "functions" in self.features:
            # Those that changed go first, too: a function may have moved from one to another, and no two may have it.
            for each in functions:
                if each.what != "extra":
                    self.out.write(command(b"FUNCTION", b"DELETE", each.name.encode("utf-8", "surrogateescape")))
            self.report.functions = len(functions)

    def library(self, library: FunctionLibrary) -> None:
        self.out.writelines(self.commands.commands(library))

    def delete(self, offsets: array[int]) -> None:
        if not offsets:
            return
        keys: list[bytes] = []
        size = db = 0
        with self.reopen(self.files[0]) as first:
            for record in records_at(first, offsets):
                if self.commands.lacks_database(record):
                    continue
                if keys and (record.db != db or len(keys) == _BATCH or size > COMMAND_BYTES):
                    self._unlink(db, keys)
                    keys, size = [], 0
                db = record.db
                keys.append(record.key)
                size += len(record.key)
        if keys:
            self._unlink(db, keys)

    def _unlink(self, db: int, keys: list[bytes]) -> None:
        self.out.write(self.commands.select(db))
        self.out.writelines(pieces([b"UNLINK" if "unlink" in self.features else b"DEL", *keys]))

    def key(self, second: Snapshot, record: Record, metadata: KeyMetadata | None, change: Change) -> None:
        self.whole = False
        if self.commands.lacks_database(record):
            return
        if change.how == EXPIRY:
            self.out.write(self.commands.select(record.db))
            self.out.write(_expiry(record))
            return
        if change.how == ELEMENTS:
            found = self._elements(record, second, change)
            if found is not None:
                self.out.write(self.commands.select(record.db))
                self.out.writelines(found)
                return
        self.whole = True
        if change.how != NEW and record.type != "string":  # SET puts its value in the place of any other
            self._unlink(record.db, [record.key])
        if metadata is not None:
            self.out.writelines(self.commands.commands(metadata))
        self.out.writelines(self.commands.commands(record))

    def beside(self, event: Event) -> None:
        if self.whole and isinstance(event, Aux):
            self.out.writelines(self.commands.commands(event))

    # -- one element after the other

    def _elements(self, record: Record, second: Snapshot, change: Change) -> Iterator[bytes] | None:
        """The commands that change the value of the first file into that of `record`; None where it is to be written whole."""
        first = self.places[0]
        whole = self._read_again(second, change) if record.size is None else record
        if first is None or whole is None or record.member_expire_ms or record.value_type in c.FOREIGN:
            return None
        before = first.record(change.before, change.before_size)
        difference = self._difference(before, whole)
        if difference is None:
            return None
        changed, gone = difference
        expires = _field_expiries(changed) if record.type == "hash" else {}
        if expires and "field-expiry" not in self.features:
            return None  # a loss, which is reported where the value is written whole
        return self._commands(record, before, changed, expires, gone)

    def _read_again(self, second: Snapshot, change: Change) -> Record | None:
        """A record of the second file that does not fit into a block, read whole; None where that cannot be."""
        again = self.places[1]
        # Of a large record of KeyDB it is known only behind it whether its members expire.
        return again.record(change.offset, change.size) if again is not None and second.header != _KEYDB else None

    def _difference(self, before: Record, after: Record) -> tuple[list[tuple[bytes, Any]], list[bytes]] | None:
        """The elements to set, with what belongs to each, and those to remove; None where they are more than half of them."""
        left = dict(self._members(before))
        most = len(left)
        there = 0
        changed: list[tuple[bytes, Any]] = []
        for name, state in self._members(after):
            there += 1
            if name not in left:
                if not self._has_expired(state):
                    changed.append((name, state))
            elif not self._same(left.pop(name), state):
                changed.append((name, state))
        gone = [name for name, state in left.items() if not self._has_expired(state)]
        return None if 2 * (len(changed) + len(gone)) > max(most, there) else (changed, gone)

    def _members(self, record: Record) -> Iterator[tuple[bytes, Any]]:
        """Each element with what belongs to it: nothing, its score, or value and expiry of a field."""
        for element in chain.from_iterable(record.elements()):
            if isinstance(element, bytes):
                yield element, None
            elif len(element) == 2:
                yield element
            elif not self.compares_expiry or not self._has_expired(element[1:]):
                yield element[0], element[1:]

    def _has_expired(self, state: Any) -> bool:
        return isinstance(state, tuple) and state[1] is not None and bool(state[1] <= self.now_ms)

    def _same(self, one: Any, other: Any) -> bool:
        if not self.compares_expiry and isinstance(one, tuple):
            return bool(one[0] == other[0])
        return bool(one == other)

    def _commands(
        self, record: Record, before: Record, changed: list[tuple[bytes, Any]], expires: dict[int, list[bytes]], gone: list[bytes]
    ) -> Iterator[bytes]:
        key = record.key
        put, take, arguments = self._setting(record, changed)
        # What is new goes first, so that the key never is without elements, which would delete it, and its expiry with it.
        for part in _batches(arguments):
            yield from pieces([put, key, *part])
        for expire_ms, names in expires.items():
            for part in _batches([[name] for name in names]):
                yield from pieces([b"HPEXPIREAT", key, b"%d" % expire_ms, b"FIELDS", b"%d" % len(part), *part])
        for part in _batches([[name] for name in gone]):
            yield from pieces([take, key, *part])
        if self.compares_expiry and (record.expire_ms is not None or before.expire_ms is not None):
            # Also where it is the same: a key that has gone by the time of loading is created again above.
            yield _expiry(record)

    def _setting(self, record: Record, changed: list[tuple[bytes, Any]]) -> tuple[bytes, bytes, list[list[bytes]]]:
        """The command that sets elements, the one that removes them, and the arguments of the first for each element."""
        if record.type == "set":
            return b"SADD", b"SREM", [[name] for name, _ in changed]
        if record.type == "zset":
            return b"ZADD", b"ZREM", [[number(score), name] for name, score in changed]
        put = b"HSET" if "several-fields" in self.features else b"HMSET"
        return put, b"HDEL", [[name, value] for name, (value, _) in changed]  # takes their expiries off, too


def _field_expiries(changed: list[tuple[bytes, Any]]) -> dict[int, list[bytes]]:
    """The fields that expire, by the time when they do."""
    expires: dict[int, list[bytes]] = {}
    for name, (_, expire_ms) in changed:
        if expire_ms is not None:
            expires.setdefault(expire_ms, []).append(name)
    return expires


def _expiry(record: Record) -> bytes:
    if record.expire_ms is None:
        return command(b"PERSIST", record.key)
    return command(b"PEXPIREAT", record.key, b"%d" % record.expire_ms)


def _batches(elements: list[list[bytes]]) -> Iterator[list[bytes]]:
    """The arguments of one command after the other."""
    part: list[bytes] = []
    count = size = 0
    for arguments in elements:
        more = sum(map(len, arguments))
        if part and (count == _BATCH or size + more > COMMAND_BYTES):
            yield part
            part, count, size = [], 0, 0
        part += arguments
        count += 1
        size += more
    if part:
        yield part

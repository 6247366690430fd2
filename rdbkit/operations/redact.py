"""`rdbkit redact`: a snapshot with the same structure, in which names and values are scrambled."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple

from librt.strings import BytesWriter

from rdbkit.errors import RdbError
from rdbkit.format import constants as c
from rdbkit.format.budget import Budget
from rdbkit.format.decode import FileTypes
from rdbkit.format.record import LargeRecord, Record
from rdbkit.format.scan import NO_EXPIRY, Scanner
from rdbkit.model import Header
from rdbkit.operations.arguments import Source, file_of, opened
from rdbkit.passes.convert import Segment
from rdbkit.passes.redact import AmongAttributes, Redactor, Values
from rdbkit.passes.scramble import PUNCTUATION, Scrambler
from rdbkit.selection import Selection
from rdbkit.snapshot.large import Spool, feed, has_wanted_size
from rdbkit.snapshot.reader import Block, Limits, Snapshot
from rdbkit.snapshot.writer import Writer, create
from rdbkit.storage.location import is_same_file
from rdbkit.text import as_bytes

if TYPE_CHECKING:
    from rdbkit.parallel.pool import Answer, Work
    from rdbkit.parallel.segments import Segments

__all__ = ["Redaction", "redact"]

#: What follows the snapshot in the input and is no part of it, by the trailer's kind.
_DROPPED_AS: Final = {"aof": "commands", "replication": "commands", "snapshot": "behind", "unknown": "trailer"}
#: Of no use to who reproduces something, so that they are no finding.
_NO_DATA: Final = frozenset({"aux", "trailer", "enterprise-hint"})


@dataclass
class Redaction:
    """What `redact` did.

    Attributes:
        source: header of the source, which the file that was written has, too.
        keys: read.
        written: keys written.
        left_out: keys that the selection left out.
        dropped: what else is not in the file that was written: how many of each kind.
    """

    source: Header
    keys: int = 0
    written: int = 0
    left_out: int = 0
    dropped: dict[str, int] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        """Whether all that was wanted is there, but for AUX fields, hints, and bytes behind the snapshot that are none of it."""
        return not self.dropped.keys() - _NO_DATA


def redact(
    src: Source,
    dst: str | os.PathLike[str] | BinaryIO,
    *,
    secret: str | bytes,
    keep_prefixes: bool = False,
    separator: str | bytes = b":",
    keep_modules: bool = False,
    selection: Selection | None = None,
    force: bool = False,
    relaxed: bool = False,
    verify_checksum: bool = True,
    limits: Limits | None = None,
    block_size: int | None = None,
    jobs: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Redaction:
    """Write a snapshot with the same structure, sizes, types and encodings, in which names and values are scrambled.

    What can be seen all the same: lengths, punctuation, which strings are equal, scores, times, ids of stream entries.

    Args:
        src, relaxed, verify_checksum, limits: as for `rdbkit.open`; or a snapshot that is open, which was opened with its own.
        dst, force: as for `rdbkit.create`. The file appears when it is whole.
        secret: decides what everything becomes; the same one gives the same names and values in every file. Who has it can try
            what a name was made of.
        keep_prefixes: keep names up to and with the last separator.
        separator: one or more characters of ASCII punctuation.
        keep_modules: copy values of modules as they are, which are left out otherwise.
        selection: which keys; None for all.
        block_size: bytes to read at a time; memory is a few times this.
        jobs: processes that scramble; the file does not depend on it. They are spawned, so that a script that asks for them needs
            the guard `if __name__ == "__main__":`.
        progress: called with bytes of the source read so far.

    Raises: RdbError where the source is damaged; ValueError for no secret, another separator, or a destination that is the source;
        TypeError for what is no source; OSError.

    >>> import io, rdbkit
    >>> out = io.BytesIO()
    >>> report = redact("fixtures/rich/redis-7.0.15.rdb", out, secret=b"not to be told", keep_modules=True)
    >>> print(report.source, report.written, report.dropped)
    REDIS0010 27 {'function': 1}
    >>> with rdbkit.open(io.BytesIO(out.getvalue())) as snapshot:
    ...     print(sum(1 for record in snapshot if record.type == "stream"))
    2
    """
    cut_at = as_bytes(separator, "separator")
    if not cut_at or cut_at.strip(PUNCTUATION):
        raise ValueError(f"a separator is made of punctuation, not {separator!r}")
    if is_same_file(file_of(src), dst):
        raise ValueError("the destination is the source")
    terms = _Terms(as_bytes(secret, "secret"), cut_at if keep_prefixes else b"", keep_modules, selection or None)
    settings = {"relaxed": relaxed, "verify_checksum": verify_checksum, "limits": limits, "block_size": block_size}
    with opened(src, **settings) as snapshot:
        header = snapshot.header
        newest = c.NEWEST_REDIS if header.flavour == c.REDIS else c.VALKEY_VERSIONS[-1]
        writer = create(dst, version=min(header.version, newest), flavour=header.flavour, force=force, sources=[file_of(src)])
        writer.header = header  # which may be newer than what can be created, where it is read all the same
        writer.recounts = True
        job = _Job(snapshot, writer, terms)
        with writer:
            job.run(jobs, progress)
    return job.report


class _Terms(NamedTuple):
    """What a redaction is told, which all processes know."""

    secret: bytes
    separator: bytes
    keep_modules: bool
    selection: Selection | None

    def redactor(self, file_types: FileTypes, limit: int) -> Redactor:
        """What scrambles blocks; `limit` is the most bytes of a key's name."""
        version = file_types.version if file_types.flavour == c.REDIS else c.NEWEST_REDIS
        wanted = self.selection.filter_for(file_types.types, limit) if self.selection else None
        return Redactor(file_types, limit, version, Scrambler(self.secret), self.separator, self.keep_modules, wanted)


class _Job:
    """One redaction: what the redactor makes of blocks goes to the writer, and records larger than a block are taken care of."""

    def __init__(self, snapshot: Snapshot, writer: Writer, terms: _Terms) -> None:
        self.snapshot = snapshot
        self.writer = writer
        self.terms = terms
        self.selection = terms.selection
        self.redactor = terms.redactor(snapshot.file_types, snapshot.limits.item_bytes)
        self.values = Values(snapshot.file_types, self.redactor.scrambler)
        self.report = Redaction(snapshot.header)
        # of the database at hand, where other processes scramble
        self.declared: tuple[int, tuple[int, int] | None] = (0, None)
        self.has_selectdb = False
        self.waiting = b""  # what stands between its number and its first key
        self.waiting_db = 0

    def run(self, jobs: int, progress: Callable[[int], object] | None) -> None:
        redactor, report, snapshot = self.redactor, self.report, self.snapshot
        for item in self.items(jobs):
            self.write()
            if isinstance(item, Record):
                self.large(item)
            elif item is not None:
                self.add(item)
            if progress is not None:
                progress(snapshot.position)
        redactor.end_segment()
        self.write()
        self.write_waiting(None)
        behind = _DROPPED_AS.get(snapshot.trailer.kind) if snapshot.trailer is not None else None
        if behind is not None:
            redactor.drop(behind)
        report.written = self.writer.written
        report.left_out = int(redactor.left_out)
        report.dropped = dict(sorted(redactor.dropped.items()))
        report.keys = report.written + report.left_out + int(redactor.dropped_keys)

    def write(self) -> None:
        for segment in self.redactor.take():
            self.write_one(segment)

    def write_one(self, segment: Segment) -> None:
        if segment.keys:
            self.write_waiting(segment.db)
            data = self.waiting + segment.data
            self.waiting = b""
            self.writer.copy(data, segment.db, segment.keys, segment.expires, segment.declared_counts, segment.has_selectdb)
        elif self.has_selectdb:
            self.write_waiting(segment.db)
            self.waiting += segment.data
            self.waiting_db = segment.db
        else:
            self.writer.copy(segment.data, 0, 0, 0)

    def write_waiting(self, db: int | None) -> None:
        """Write what waits for the first key of a database, unless it is this one."""
        if self.waiting and db != self.waiting_db:
            self.writer.copy(self.waiting, 0, 0, 0)
            self.waiting = b""

    # -- several processes

    def items(self, jobs: int) -> Iterator[Answer[_Part] | LargeRecord | None]:
        """What the source is read as: None for a block that the redactor has seen; else what is still to be done here."""
        snapshot, redactor = self.snapshot, self.redactor
        # Templates of RDB 15 precede the keys that use them, and what KeyDB says behind them: those take one process.
        if jobs == 1 or snapshot.header.version == 15 or snapshot.header == ("redis", 9):
            yield from snapshot.scan(redactor)
            return
        from rdbkit.parallel.pool import in_order  # what it takes to start processes is not needed for most runs

        snapshot.report_prelude(redactor)
        yield None
        output = self.writer.handle
        among = AmongAttributes()
        settings = (*snapshot.header, snapshot.limits, snapshot.name, self.terms, output is not None)
        for item in in_order(snapshot, jobs, _worker, settings, among, output):
            if not isinstance(item, LargeRecord):
                yield item
            elif item.is_module_data:
                redactor.drop("module-aux")
            else:
                db, counts = self.declared
                redactor.db = item.db
                redactor.database()
                redactor.out_db, redactor.declared_counts, redactor.has_selectdb = db, counts, self.has_selectdb
                redactor.idle_s = -1 if item.idle_s is None else item.idle_s
                redactor.freq = -1 if item.freq is None else item.freq
                redactor.event_at = -1
                for event in among.events:
                    redactor.event(event)
                among.events.clear()
                yield item
                self.declared = (redactor.out_db, redactor.declared_counts)

    def add(self, answer: Answer[_Part]) -> None:
        """What another process made of a piece of the file."""
        part, redactor = answer.result, self.redactor
        checksums = iter(enumerate(part.written.checksums))
        for segment in part.written.segments:
            if not segment.has_selectdb:
                db, counts = self.declared
                if segment.declared_counts is None and segment.db == db:
                    segment = segment._replace(declared_counts=counts)
                segment = segment._replace(has_selectdb=self.has_selectdb)
            else:
                self.has_selectdb = True
            self.write_one(segment)
            if segment.keys and (found := next(checksums, None)) is not None:
                at, checksum = found
                answer.places[at] = self.writer.leave_room(answer.sizes[at], checksum)
        if part.has_selectdb or part.declared_counts is not None:
            self.declared = (part.db, part.declared_counts)
        self.has_selectdb = self.has_selectdb or part.has_selectdb
        redactor.left_out += part.left_out
        redactor.dropped_keys += part.dropped_keys
        for kind, n in part.dropped.items():
            redactor.dropped[kind] = redactor.dropped.get(kind, 0) + n
        if part.error is not None:
            raise part.error

    # -- records larger than a block

    def large(self, record: Record) -> None:
        """A record that is at hand in pieces."""
        redactor, selection = self.redactor, self.selection
        expire_ms = NO_EXPIRY if record.expire_ms is None else record.expire_ms
        if selection is not None and not selection.wants(record.db, record.key, record.type, None, record.expire_ms):
            redactor.leave_out()
            return
        if redactor.drops(record.rdb_type):
            return
        head = redactor.large_head(record.rdb_type, record.key, self.snapshot.large_head, expire_ms)
        self.write()
        if selection is None or not selection.needs_size:
            self.put(head, self.pieces(record), expire_ms)
            return
        with Spool(self.pieces(record)) as spool:
            if has_wanted_size(record, selection):
                self.put(head, spool.pieces(), expire_ms)
            else:
                redactor.leave_out()

    def put(self, head: bytes, pieces: Iterator[bytes], expire_ms: int) -> None:
        redactor = self.redactor
        expires = 0 if expire_ms == NO_EXPIRY else 1
        self.write_waiting(redactor.out_db)
        head, self.waiting = self.waiting + head, b""
        self.writer.copy(head, redactor.out_db, 1, expires, redactor.declared_counts, redactor.has_selectdb)
        for piece in pieces:
            self.writer.append(piece)
        redactor.end_record(True)

    def pieces(self, record: Record) -> Iterator[bytes]:
        """The value, scrambled."""
        if record.type == "module":
            yield from record.chunks()
            return
        values, out = self.values, BytesWriter()
        values.begin(record.type_code)
        for _ in feed(record, values, out):
            yield out.getvalue()
            out.truncate(0)
        yield out.getvalue()


class _Part(NamedTuple):
    """What became of a piece of the file in another process."""

    written: Segments
    db: int
    declared_counts: tuple[int, int] | None
    has_selectdb: bool
    left_out: int
    dropped_keys: int
    dropped: dict[str, int]
    error: RdbError | None


def _worker(flavour: str, version: int, limits: Limits, source: str, terms: _Terms, writes: bool) -> Work[_Part]:
    """What a process does with each piece; `writes`: it puts what has keys into the output itself."""
    from rdbkit.parallel.segments import set_apart

    file_types = FileTypes(flavour, version, limits.string_bytes, source, Budget(limits.held_bytes))
    redactor = terms.redactor(file_types, limits.item_bytes)

    def scramble(block: Block) -> tuple[_Part, list[bytes]]:
        file_types.budget = Budget(limits.held_bytes)
        redactor.begin(block.offset, block.db)
        error = None
        try:
            Scanner(flavour, version, limits.item_bytes, file_types.budget).scan(block.data, 0, len(block.data), redactor)
        except RdbError as e:
            error = e
        redactor.end_segment()
        written, data = set_apart(redactor.take(), writes)
        part = _Part(
            written, redactor.out_db, redactor.declared_counts, redactor.has_selectdb, int(redactor.left_out),
            int(redactor.dropped_keys), redactor.dropped, error,
        )  # fmt: skip
        return part, data

    return scramble

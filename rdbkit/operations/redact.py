"""`rdbkit redact`: a snapshot with the same structure, in which names and values are scrambled."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import BinaryIO, Final

from librt.strings import BytesWriter

from rdbkit.format import constants as c
from rdbkit.format.record import Record
from rdbkit.format.scan import NO_EXPIRY
from rdbkit.model import Header
from rdbkit.operations.arguments import Source, file_of, opened
from rdbkit.passes.redact import Redactor, Values
from rdbkit.passes.scramble import PUNCTUATION, Scrambler
from rdbkit.selection import Selection
from rdbkit.snapshot.large import Spool, feed, has_wanted_size
from rdbkit.snapshot.reader import Limits, Snapshot
from rdbkit.snapshot.writer import Writer, create
from rdbkit.storage.location import is_same_file
from rdbkit.text import as_bytes

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
    scrambler = Scrambler(as_bytes(secret, "secret"))
    selection = selection if selection else None
    settings = {"relaxed": relaxed, "verify_checksum": verify_checksum, "limits": limits, "block_size": block_size}
    with opened(src, **settings) as snapshot:
        header = snapshot.header
        newest = c.NEWEST_REDIS if header.flavour == c.REDIS else c.VALKEY_VERSIONS[-1]
        writer = create(dst, version=min(header.version, newest), flavour=header.flavour, force=force, sources=[file_of(src)])
        writer.header = header  # which may be newer than what can be created, where it is read all the same
        writer.recounts = True
        kept = cut_at if keep_prefixes else b""
        version = header.version if header.flavour == c.REDIS else c.NEWEST_REDIS
        limit = snapshot.limits.item_bytes
        wanted = selection.filter_for(snapshot.types, limit) if selection else None
        redactor = Redactor(snapshot.file_types, limit, version, scrambler, kept, keep_modules, wanted)
        job = _Job(snapshot, writer, redactor, Values(snapshot.file_types, scrambler), selection)
        with writer:
            job.run(progress)
    return job.report


class _Job:
    """One redaction: what the redactor makes of blocks goes to the writer, and records larger than a block are taken care of."""

    def __init__(self, snapshot: Snapshot, writer: Writer, redactor: Redactor, values: Values, selection: Selection | None) -> None:
        self.snapshot = snapshot
        self.writer = writer
        self.redactor = redactor
        self.values = values
        self.selection = selection
        self.report = Redaction(snapshot.header)

    def run(self, progress: Callable[[int], object] | None) -> None:
        redactor, report, snapshot = self.redactor, self.report, self.snapshot
        for item in snapshot.scan(redactor):
            self.write()
            if isinstance(item, Record):
                self.large(item)
            if progress is not None:
                progress(snapshot.position)
        redactor.end_segment()
        self.write()
        behind = _DROPPED_AS.get(snapshot.trailer.kind) if snapshot.trailer is not None else None
        if behind is not None:
            redactor.drop(behind)
        report.written = self.writer.written
        report.left_out = int(redactor.left_out)
        report.dropped = dict(sorted(redactor.dropped.items()))
        report.keys = report.written + report.left_out + int(redactor.dropped_keys)

    def write(self) -> None:
        for segment in self.redactor.take():
            if segment.keys:
                self.writer.copy(
                    segment.data, segment.db, segment.keys, segment.expires, segment.declared_counts, segment.has_selectdb
                )
            else:
                self.writer.copy(segment.data, 0, 0, 0)

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

"""`rdbkit convert`: a snapshot as a target takes it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NamedTuple, Protocol

from librt.strings import BytesWriter

from rdbkit.errors import ChecksumError, LossError, RdbError
from rdbkit.format import constants as c
from rdbkit.format.budget import Budget
from rdbkit.format.decode import FileTypes
from rdbkit.format.encode import write_string
from rdbkit.format.record import LargeRecord, Record
from rdbkit.format.scan import NO_EXPIRY, STRING_INT, LastRecord, Scanner
from rdbkit.model import Header
from rdbkit.operations.arguments import Source, file_of, opened
from rdbkit.passes.convert import Rewriter, Segment
from rdbkit.passes.hashes import NameHashes, NameLog
from rdbkit.passes.value import AS_IT_IS, COPY, JSON, LEFT_OUT, MODULE, OPEN, STREAM, ValueConverter
from rdbkit.policy.ledger import Ledger, Loss
from rdbkit.policy.rules import DROP, FAIL, Edits, Policies, Rules
from rdbkit.selection import Selection
from rdbkit.snapshot.large import Spool, has_wanted_size
from rdbkit.snapshot.reader import Block, Limits, Snapshot
from rdbkit.snapshot.writer import UNKNOWN, Writer, create
from rdbkit.storage.location import is_rereadable, is_same_file, open_file
from rdbkit.storage.source import Rereading
from rdbkit.targets.target import Target, as_target, tolerated
from rdbkit.text import count

if TYPE_CHECKING:
    from rdbkit.parallel.pool import Answer, Work
    from rdbkit.parallel.segments import Segments

_COPY_BYTES: Final = 1 << 20
#: RDB 7 and earlier have lengths of 32 bits.
_LONGEST_BEFORE_8: Final = (1 << 32) - 1
_CHECKSUM_SINCE: Final = 5
#: What is lost of what follows a snapshot, by `rdbkit.Trailer.kind`.
_LOST_BEHIND: Final = {
    "aof": "commands behind the snapshot, which change it",
    "replication": "commands of a replication behind the snapshot, which change it",
    "snapshot": "another snapshot behind this one, which no server reads: merge makes one of several",
}
#: And what changes nothing.
_NOTED_BEHIND: Final = {
    "mark": "the end mark of a replication, as redis-cli --rdb - leaves it",
    "pings": "pings of a replication behind the snapshot, which change no key",
    "unknown": "bytes behind the snapshot that are none of it",
}
_CHECKSUM_BYTES: Final = 8


@dataclass
class Conversion:
    """What a conversion did.

    Attributes:
        source, header: of the source and of what was written.
        target: for humans.
        keys: read.
        written: keys written.
        left_out: keys that the selection, an edit or a policy left out.
        ledger: every loss.
        skipped: what was wrong with the values left out because they are damaged.
        checksum: the error of the source's checksum, where damage is passed over.
        functions: sources of the function libraries that the target does not have, and, with the policy "extract", of all.
        scripts: Lua scripts that the target does not load, and, with the policy "extract", all.
        identical: the file is the same as the source, byte for byte.
    """

    source: Header
    header: Header
    target: str
    ledger: Ledger
    keys: int = 0
    written: int = 0
    left_out: int = 0
    skipped: list[RdbError] = field(default_factory=list)
    checksum: ChecksumError | None = None
    functions: list[bytes] = field(default_factory=list)
    scripts: list[bytes] = field(default_factory=list)
    identical: bool = False


def convert(
    src: Source,
    dst: str | os.PathLike[str] | BinaryIO,
    *,
    target: str | Target,
    policies: Policies | None = None,
    edits: Edits | None = None,
    selection: Selection | None = None,
    compress: bool = False,
    jobs: int = 1,
    on_error: str = "stop",
    deep: bool = False,
    force: bool = False,
    relaxed: bool = False,
    verify_checksum: bool = True,
    limits: Limits | None = None,
    block_size: int | None = None,
    now_ms: int | None = None,
    loss_callback: Callable[[Loss], object] | None = None,
    progress: Callable[[int], object] | None = None,
) -> Conversion:
    """Write a snapshot as a target takes it.

    Keys whose encoding the target knows are copied as they stand, the others written in one that it does know. The file gets the
    version of the source where the target loads that, and then is the same byte for byte if nothing else has to change.

    Args:
        src, relaxed, verify_checksum, limits: as for `rdbkit.open`; or a snapshot that is open, which was opened with its own.
        dst, force: as for `rdbkit.create`. The file appears when it is whole; to an object or standard output, what was written
            before a loss that is not allowed has no end mark, so that no server loads it.
        target: a release line ("redis-6.2"), a service ("azure-premium") or a version of the format ("rdb-9").
        policies: what to do with data that the target does not support; by default, nothing is written if there is any.
        edits: databases, names and expiries to be changed. Where keys could come to have the same name, the source is read twice,
            and has to have been given as a path; where `is_read_twice` says no, it is read once, and names that meet are not told
            one by one.
        selection: which keys; None for all. Function libraries are no keys, and taken along.
        compress: try LZF on strings that are re-encoded.
        jobs: processes that re-encode values; the file does not depend on it. They are spawned, so that a script that asks for
            them needs the guard `if __name__ == "__main__":`.
        on_error: "stop", or "skip" to leave out values that are damaged, or that the target would refuse, where the file's framing
            is intact.
        deep: look into every value, also into those that are copied unchanged. Otherwise only those are opened that are re-encoded,
            and all of a file without a checksum that is not a pipe.
        now_ms: what counts as expired, in Unix milliseconds; by default the clock.
        loss_callback: called with each loss as it is found.
        progress: called with bytes of the source read so far.

    Raises: LossError, with the conversion as its `report`, after all losses have been found; ChangedError where the source is read
        twice, and is another the second time; RdbError where it is damaged; ValueError for a target that there is not, or options
        that exclude each other; TypeError for what is no source or no target; OSError.

    >>> import io, rdbkit
    >>> out = io.BytesIO()
    >>> policies = rdbkit.Policies(function="drop")
    >>> report = rdbkit.convert("fixtures/rich/redis-7.0.15.rdb", out, target="azure-premium", policies=policies)
    >>> print(report.header, report.written, report.ledger.counts)
    REDIS0009 27 {'function': 1}
    """
    file = file_of(src)
    if is_same_file(file, dst):
        raise ValueError("the destination is the source")
    found = as_target(target)
    policies, edits = policies or Policies(), edits or Edits()
    _check_options(on_error, edits, jobs)

    settings: dict[str, Any] = {
        "relaxed": relaxed, "verify_checksum": verify_checksum, "limits": limits, "block_size": block_size,
        "rereading": Rereading() if edits.moves_keys else None,
    }  # fmt: skip
    with opened(src, **settings) as snapshot:
        rules = rules_of(
            snapshot, file, found, policies=policies, edits=edits, selection=selection, compress=compress, on_error=on_error,
            deep=deep, now_ms=now_ms,
        )  # fmt: skip
        header = rules.header
        again = snapshot.reopen if snapshot.can_reopen else None
        writer = create(dst, version=header.version, flavour=header.flavour, force=force, sources=[file])
        job = Job(snapshot, writer, rules, Ledger(loss_callback), progress)
        if edits.on_duplicate == FAIL and edits.script is None:
            job.look_for_duplicates(again)
        with closing(job), writer:
            job.run(jobs)
    return job.report


def rules_of(
    snapshot: Snapshot,
    file: object,
    target: Target,
    *,
    policies: Policies,
    edits: Edits,
    selection: Selection | None,
    compress: bool,
    on_error: str,
    deep: bool = False,
    now_ms: int | None = None,
) -> Rules:
    """What becomes of the records of a snapshot, for a `Job`. The source is read before where keys could have the same name.

    Args:
        file: what it is a snapshot of.
        others: as of `convert`.

    Raises: ValueError where the source cannot be read twice; RdbError where it is damaged.
    """
    own = own_export(snapshot, target) if not selection and edits == Edits() else None
    target = own or target
    header = target.header_for(snapshot.header)
    rules = Rules(
        target=target,
        source=snapshot.header,
        header=header,
        known=target.types_in(header),
        policies=policies,
        edits=edits,
        selection=selection or None,
        now_ms=time.time_ns() // 1_000_000 if now_ms is None else now_ms,
        compress=compress,
        skip=on_error == "skip",
        deep=deep or lacks_checksum(snapshot, file),
        tolerated=tolerated(target),
        keeps_hints=own is not None,
    )
    return _with_names_decided(rules, snapshot.reopen if snapshot.can_reopen else None)


def _check_options(on_error: str, edits: Edits, jobs: int) -> None:
    """Raise for an option that there is not, and for options that exclude each other."""
    if on_error not in ("stop", "skip"):
        raise ValueError(f"on_error is 'stop' or 'skip', not {on_error!r}")
    if edits.script is not None and jobs > 1:
        raise ValueError("a script is asked in one process: jobs must be 1")


def _with_names_decided(rules: Rules, reopen: Callable[[], Snapshot] | None) -> Rules:
    """The rules, and what becomes of keys that have, or would come to have, the same name, for which the source is read before.

    Args:
        reopen: opens the source again; None where it can be read only once.
    """
    edits = rules.edits
    drops_duplicates = edits.on_duplicate != FAIL
    if reopen is None:
        if drops_duplicates or is_read_twice(edits, rules.selection):
            raise ValueError("to find keys that have the same name, the source is read twice: it has to be a file")
        return rules
    if not drops_duplicates and not edits.moves_keys:
        return rules
    from rdbkit.operations.conflicts import find_decisions, find_duplicates  # few conversions need it

    if drops_duplicates:
        rules = replace(rules, duplicates=find_duplicates(reopen, rules))
    if edits.moves_keys:
        rules = replace(rules, decisions=find_decisions(reopen, rules))
    return rules


def own_export(snapshot: Snapshot, target: Target) -> Target | None:
    """The target as it reads this snapshot, where that is an export of its own, which goes in as it is; otherwise None.

    Args:
        snapshot: of which no keys have been read.
    """
    if not target.redis_enterprise or not snapshot.is_of_redis_enterprise:
        return None
    return target.reading_export(snapshot.header, snapshot.aux.get("redis-ver", ""))


def is_read_twice(edits: Edits, selection: Selection | None) -> bool:
    """Whether keys can only be moved so in a source that can be read twice.

    Of one that cannot, it can be found whether any names meet in a database, if all keys go there: not which they are.
    """
    return edits.moves_keys and bool(edits.rename_prefix or edits.on_conflict != FAIL or edits.drop_expired or selection)


def lacks_checksum(snapshot: Snapshot, src: object) -> bool:
    """Whether a file is known to have no checksum before it is read: then nothing but a look into its values shows damage."""
    if snapshot.header.flavour == c.REDIS and snapshot.header.version < _CHECKSUM_SINCE:
        return True
    if snapshot.compression is not None or not is_rereadable(src):
        return False
    with open_file(src) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(size - _CHECKSUM_BYTES, 0))
        return not any(file.read(_CHECKSUM_BYTES))


class Destination(Protocol):
    """What a `Job` needs of a `Writer`."""

    recounts: bool
    checksum: bool

    @property
    def size(self) -> int:
        """Bytes written so far."""
        ...

    @property
    def can_correct(self) -> bool:
        """Whether counts may be put right when they are known."""
        ...

    def copy(
        self, data: bytes, db: int, keys: int, expires: int, counts: tuple[int, int] | None = None, selects: bool = True
    ) -> None:
        """See `Writer.copy`."""
        ...

    def append(self, data: bytes) -> None:
        """See `Writer.append`."""
        ...


class Job:
    """One conversion: what the rewriter makes of blocks goes to the writer, and records larger than a block are taken care of."""

    def __init__(
        self, snapshot: Snapshot, writer: Destination, rules: Rules, ledger: Ledger, progress: Callable[[int], object] | None
    ) -> None:
        self.snapshot = snapshot
        self.writer = writer
        self.rules = rules
        self.ledger = ledger
        self.progress = progress
        self.rewriter = self.make_rewriter()
        self.rewriter.hand_over = self._hand_over
        self.report = Conversion(snapshot.header, rules.header, rules.target.title, ledger)
        self.changed = rules.header != snapshot.header
        self.written = 0
        # of databases, where other processes met them
        self.declared_counts: dict[int, tuple[int, int] | None] = {}
        self.has_selectdb = False
        self.waiting = b""
        self.waiting_db = 0
        self.reopen: Callable[[], Snapshot] | None = None
        self.hashes: NameHashes | None = None
        self.placed: NameLog | None = None
        writer.recounts = rules.may_drop
        if rules.edits.script is not None:
            self.rewriter.names = NameLog()

    def make_rewriter(self) -> Rewriter:
        """The visitor of the blocks; `check` has one that only counts."""
        converter = ValueConverter(self.snapshot.file_types, self.rules)
        return Rewriter(converter, self.snapshot.limits.item_bytes, self.rules, self.ledger)

    def _hand_over(self) -> None:
        self._write(self.rewriter.take())

    def look_for_duplicates(self, reopen: Callable[[], Snapshot] | None) -> None:
        """Find keys that come twice in one database.

        Args:
            reopen: opens the source again, to tell for certain; None where it cannot be read again, which costs more memory.
        """
        self.reopen = reopen
        if reopen is not None:
            self.hashes = NameHashes()
        else:
            self.placed = NameLog()

    def make_spool(self) -> Spool:
        """Where a value waits until it is known what precedes it."""
        return Spool()

    def close(self) -> None:
        """Drop the temporary files."""
        rewriter = self.rewriter
        rewriter.converter.close()
        if rewriter.names is not None:
            rewriter.names.close()
        if self.hashes is not None:
            self.hashes.partitions.close()
        if self.placed is not None:
            self.placed.close()

    def run(self, jobs: int) -> None:
        """Do it; raises as `convert`."""
        try:
            for item in self._items(jobs):
                self._write(self.rewriter.take())
                self._take_met()
                if isinstance(item, LargeRecord):
                    self._large(item)
                    self._take_met()
                elif item is not None:
                    self._add(item)
                if self.progress is not None:
                    self.progress(self.snapshot.position)
        except ChecksumError as e:
            if not self.rules.skip:
                raise
            self.report.checksum = e
        self._fill_report()
        self._look_behind()
        self._look_for_one_name()
        self._look_for_duplicates()
        self._raise_forbidden()
        self._write_waiting(None)
        self._keep_what_is_the_same()

    def _items(self, jobs: int) -> Iterator[Answer[Part] | LargeRecord | None]:
        """What the source is read as: None for a block that the rewriter has seen; else what is still to be done here."""
        snapshot, rewriter = self.snapshot, self.rewriter
        # Templates of RDB 15 precede the keys that use them, and what KeyDB says behind them: those take one process.
        # Of a source that cannot be read again, names and their places are kept by one process.
        if jobs > 1 and snapshot.header.version != 15 and snapshot.header != ("redis", 9) and self.placed is None:
            return self._parts(jobs)
        if self.reopen is not None:
            rewriter.hashes = self.hashes
        rewriter.placed = self.placed
        return snapshot.scan(rewriter)

    def _take_met(self) -> None:
        """Add what was met in this process up to here, in the order of the file."""
        report, rewriter = self.report, self.rewriter
        if rewriter.skipped or rewriter.functions or rewriter.scripts:
            report.skipped += rewriter.skipped
            report.functions += rewriter.functions
            report.scripts += rewriter.scripts
            rewriter.skipped, rewriter.functions, rewriter.scripts = [], [], []

    def _fill_report(self) -> None:
        """Add what was met in this process, when all is read."""
        report, rewriter = self.report, self.rewriter
        rewriter.finish()
        report.left_out += int(rewriter.left_out)
        self._take_met()
        report.written = self.written
        report.keys = report.written + report.left_out

    def _raise_forbidden(self) -> None:
        """Raise the error of all losses that are not allowed."""
        forbidden = self.ledger.forbidden
        if forbidden:
            counts = ", ".join(f"{kind} {n}" for kind, n in forbidden.items())
            error = LossError(f"{self.report.target} does not support all of it, and nothing was written: {counts}")
            error.source, error.report = self.snapshot.name, self.report
            raise error

    def _keep_what_is_the_same(self) -> None:
        """A file of which nothing has changed keeps its counts and its missing checksum, and is reported as identical."""
        report, snapshot, writer = self.report, self.snapshot, self.writer
        if self.changed or self.rewriter.changed or snapshot.reordered or report.skipped or writer.size != snapshot.rdb_size:
            return
        if writer.can_correct:
            writer.recounts = False
        is_plain = snapshot.compression is None and snapshot.framing is None and snapshot.trailer == ("none", 0)
        state = "" if snapshot.checksum is None else snapshot.checksum.state
        report.identical = not writer.recounts and is_plain and state != "unchecked"
        if state == "disabled":
            writer.checksum = False

    def _look_behind(self) -> None:
        """What stands behind the snapshot is not taken along: commands there are changes that were made after it."""
        snapshot, trailer = self.snapshot, self.snapshot.trailer
        if trailer is None:
            return
        if trailer.kind in _LOST_BEHIND:
            what = _LOST_BEHIND[trailer.kind]
            if trailer.kind == "replication" and trailer.size is not None:
                what += f": {count(trailer.size, 'byte')}"
            loss = Loss("behind" if trailer.kind == "snapshot" else "commands", what, 1, None, None)
            self.rewriter.enter_loss(loss, self.rules.policies.chosen("loss") == FAIL)
        elif trailer.kind in _NOTED_BEHIND and (trailer.kind != "mark" or snapshot.framing is None):
            self.rewriter.note("trailer", _NOTED_BEHIND[trailer.kind])

    def _look_for_one_name(self) -> None:
        """Keys to which a script gave the name of another."""
        log = self.rewriter.names
        if log is None:
            return
        for places in sorted(log.repeated()):
            for at in places[1:]:
                loss = Loss("conflict", f"the key at byte {at} has the name of another behind the script", 1, None, None)
                self.rewriter.enter_loss(loss, True)

    def _look_for_duplicates(self) -> None:
        """Keys that come twice, which no server loads."""
        rewriter = self.rewriter
        rewriter.size = 0

        def met(db: int, key: bytes, first: int, offset: int) -> None:
            rewriter.offset = offset
            rewriter.enter_loss(Loss("duplicate", f"the key comes twice: at byte {first} and at byte {offset}", 1, db, key), True)

        if self.reopen is not None and self.hashes is not None:
            twice = self.hashes.twice()
            if twice:
                from rdbkit.operations.conflicts import find_repeated  # few files need it

                find_repeated(self.reopen, self.rules, twice, met)
        elif self.placed is not None:
            for places in sorted(self.placed.repeated()):
                rewriter.offset = places[1]
                moved = self.rules.edits.moves_keys
                end = "would have the same name" if moved else "are the same"
                what = f"keys at byte {places[0]} and at byte {places[1]} {end}"
                rewriter.enter_loss(Loss("conflict" if moved else "duplicate", what, len(places) - 1, None, None), True)

    def _write(self, segments: list[Segment]) -> None:
        for segment in segments:
            self._write_one(segment)

    def _write_one(self, segment: Segment) -> bool:
        """Returns: whether it was written; nothing is once the conversion is known to fail."""
        self.written += segment.keys
        if self.ledger.forbidden:
            return False
        selected = segment.has_selectdb or self.has_selectdb
        if segment.keys:
            self._write_waiting(segment.db)
            counts = self._counts(segment.db, segment.declared_counts)
            data = self.waiting + segment.data
            self.waiting = b""
            self.writer.copy(data, segment.db, segment.keys, segment.expires, counts, selected)
        elif not selected:
            self.writer.copy(segment.data, 0, 0, 0)
        else:
            # what stands between a database's number and its first key stays there
            self._write_waiting(segment.db)
            self.waiting += segment.data
            self.waiting_db = segment.db
            if len(self.waiting) > _COPY_BYTES:
                self._write_waiting(None)
        return True

    def _write_waiting(self, db: int | None) -> None:
        """Write what waits for the first key of a database, unless it is this one."""
        if self.waiting and db != self.waiting_db and not self.ledger.forbidden:
            self.writer.copy(self.waiting, 0, 0, 0)
            self.waiting = b""

    def _counts(self, db: int, declared_counts: tuple[int, int] | None) -> tuple[int, int] | None:
        """What the file is to say of a database's keys, by what the source says."""
        declared_counts = declared_counts or self.declared_counts.get(db)
        return UNKNOWN if declared_counts is not None and self.rules.edits.moves_keys else declared_counts

    # -- several processes

    def _parts(self, jobs: int) -> Iterator[Answer[Part] | LargeRecord | None]:
        from rdbkit.parallel.pool import in_order  # what it takes to start processes is not needed for most runs

        snapshot, rewriter = self.snapshot, self.rewriter
        snapshot.report_prelude(rewriter)
        yield None
        names = LastRecord(self.hashes, snapshot.limits.item_bytes)
        output = self.writer.handle if isinstance(self.writer, Writer) else None
        settings = (*snapshot.header, snapshot.limits, snapshot.name, self.rules, output is not None)
        for item in in_order(snapshot, jobs, _worker, settings, names, output):
            if isinstance(item, LargeRecord):
                rewriter.db = item.db
                rewriter.out_db = self.rules.edits.db_of(item.db)
                rewriter.declared_counts = self.declared_counts.get(rewriter.out_db)
                rewriter.database()
                rewriter.idle_s = -1 if item.idle_s is None else item.idle_s
                rewriter.freq = -1 if item.freq is None else item.freq
            yield item

    def _add(self, answer: Answer[Part]) -> None:
        """What another process made of a piece of the file."""
        part = answer.result
        for loss, forbidden in part.losses:
            self.ledger.add(loss, forbidden)
        checksums = iter(enumerate(part.written.checksums))
        for segment in part.written.segments:
            at, checksum = next(checksums, (-1, 0)) if segment.keys else (-1, 0)
            if self._write_one(segment) and at >= 0:
                assert isinstance(self.writer, Writer)
                answer.places[at] = self.writer.leave_room(answer.sizes[at], checksum)
        self.declared_counts[part.db] = part.declared_counts or self.declared_counts.get(part.db)
        self.has_selectdb = self.has_selectdb or part.has_selectdb
        report = self.report
        report.left_out += part.left_out
        report.skipped += map(self.snapshot.budget.keep, part.skipped)
        for source in part.functions:
            self.snapshot.budget.spend("function libraries", len(source))
        report.functions += part.functions
        for body in part.scripts:
            self.snapshot.budget.spend("Lua scripts", len(body))
        report.scripts += part.scripts
        self.changed = self.changed or part.changed
        if part.error is not None:
            raise part.error

    # -- records larger than a block

    def _large(self, record: LargeRecord) -> None:
        rewriter, snapshot = self.rewriter, self.snapshot
        rewriter.key, rewriter.offset, rewriter.size = record.key, record.offset, 0
        if record.is_module_data:
            self._large_module_data(record)
            return
        rewriter.last_key, rewriter.last_at, rewriter.last_kept = record.key, -1, True
        rewriter.metadata = snapshot.large_metadata
        try:
            expire_ms = NO_EXPIRY if record.expire_ms is None else record.expire_ms
            kept = rewriter.decide(record.type_code, -1, expire_ms) and self._large_value(record)
            rewriter.enter_value_losses()
            if kept:
                rewriter.hash_name(record.key, record.offset)
        except RdbError as e:
            of_framing = e.source is not None
            rewriter.enter_value_losses()
            rewriter.add_location(e, record.type_code)
            rewriter.out.truncate(0)
            rewriter.go_home()
            if not self.rules.skip or of_framing or isinstance(e, LossError):
                raise
            rewriter.leave_damaged(e)
            kept = False
        rewriter.end_record()
        if not kept:
            rewriter.changed = True
            rewriter.left_out += 1
            rewriter.last_kept = False

    def _large_module_data(self, record: Record) -> None:
        data = self.snapshot.module_data
        assert data is not None
        if self.rewriter.loses_module_data(data):
            self.rewriter.changed = True
            return
        self._put([self.snapshot.large_head], record.chunks(), keys=0)

    def _put(self, heads: list[bytes], chunks: Iterator[bytes], keys: int = 1) -> None:
        """Write a record that is at hand in pieces."""
        rewriter = self.rewriter
        self.written += keys
        if self.ledger.forbidden:
            for _ in chunks:
                pass
            return
        if keys:
            self._write_waiting(rewriter.out_db)
            heads = [self.waiting, *heads]
            self.waiting = b""
        else:
            self._write_waiting(None)
        counts = self._counts(rewriter.out_db, rewriter.declared_counts)
        expires = keys if rewriter.expire_ms != NO_EXPIRY else 0
        self.writer.copy(b"".join(heads), rewriter.out_db, keys, expires, counts, rewriter.has_selectdb or self.has_selectdb)
        for chunk in chunks:
            self.writer.append(chunk)

    def _large_value(self, record: LargeRecord) -> bool:
        rewriter, converter, type_code = self.rewriter, self.rewriter.converter, record.type_code
        action, chunks = converter.open_pieces(type_code, record.chunks())
        if rewriter.edits.script is not None:
            return self._scripted(record, action, b"".join(chunks))
        if action in (COPY, JSON, MODULE):
            becomes, chunks = converter.copy_pieces(type_code, action, chunks)
            rewriter.enter_value_losses()
            if becomes == LEFT_OUT:
                return False
            if becomes != AS_IT_IS:
                rewriter.head_changed, type_code = True, becomes
            return self._copy(record, type_code, chunks)
        rewriter.changed = rewriter.changed or action != STREAM
        with self.make_spool() as spool:
            becomes = converter.write_pieces(type_code, action, chunks, rewriter.expire_ms, spool.write)
            rewriter.take_expiry()
            rewriter.enter_value_losses()
            if action == STREAM:
                rewriter.changed = rewriter.changed or converter.streams.corrected or type_code != becomes
            if becomes == LEFT_OUT or not self._has_wanted_size(record) or not self._has_right_size(record, self._limit(type_code)):
                return False
            self._put([self._head(becomes), converter.front], spool.pieces())
        return True

    def _key(self) -> bytes:
        form = BytesWriter()
        write_string(form, self.rewriter.key if self.rewriter.new_key is None else self.rewriter.new_key)
        return form.getvalue()

    def _head(self, type_code: int) -> bytes:
        rewriter = self.rewriter
        rewriter.head(type_code, self._key())
        head = rewriter.out.getvalue()
        rewriter.out.truncate(0)
        return head

    def _copy(self, record: Record, type_code: int, chunks: Iterator[bytes]) -> bool:
        rewriter = self.rewriter
        if rewriter.head_changed:
            rewriter.changed = True
            head = self._head(0 if type_code >= STRING_INT else type_code)
        else:
            head = self.snapshot.large_head
        limit = self._limit(type_code)
        drops = limit is not None and self.rules.policies.chosen("oversize") == DROP
        needs_size = self.rules.selection is not None and self.rules.selection.needs_size
        opens = bool(rewriter.converter.looks[record.type_code] & OPEN)
        if not drops and not needs_size and not (opens and self.rules.skip):
            self._put([head], chunks)
            rewriter.enter_value_losses()
            self._has_right_size(record, limit)  # what is wrong with it is entered, and nothing will be written
            return True
        with self.make_spool() as spool:
            for chunk in chunks:
                spool.write(chunk)
            rewriter.enter_value_losses()
            if not self._has_wanted_size(record) or not self._has_right_size(record, limit):
                return False
            self._put([head], spool.pieces())
        return True

    def _limit(self, type_code: int) -> int | None:
        """The most bytes that a key may take."""
        limit = self.rules.target.max_key_bytes
        if self.rewriter.version < 8 and type_code in (0, STRING_INT, STRING_INT + 1):
            limit = min(limit or _LONGEST_BEFORE_8, _LONGEST_BEFORE_8)
        return limit

    def _has_right_size(self, record: Record, limit: int | None) -> bool:
        """Asked when the record has been read, since its size is not known before."""
        if limit is None or (record.size or 0) <= limit:
            return True
        self.rewriter.lose("oversize", f"a key of {record.size} bytes, where the target takes {limit}", 1, "oversize")
        return False

    def _has_wanted_size(self, record: Record) -> bool:
        return has_wanted_size(record, self.rules.selection)

    def _scripted(self, record: LargeRecord, action: int, raw: bytes) -> bool:
        """A script gets the value whole, in memory, when it has been looked into."""
        rewriter = self.rewriter
        rewriter.enter_value_losses()
        if not self._has_wanted_size(record) or not self._has_right_size(record, self._limit(record.type_code)):
            return False
        if not rewriter.scripted(record.in_memory(raw)):
            return False
        rewriter.name_it()
        rewriter.changed = True
        becomes = rewriter.convert(record.type_code, action, raw, 0, len(raw))
        kept = rewriter.write(record.type_code, becomes, self._key(), raw, 0, len(raw))
        if kept:
            rewriter.count()
        rewriter.end_segment()
        rewriter.go_home()
        self._write(rewriter.take())
        return kept


class Part(NamedTuple):
    """What became of a piece of the file in another process."""

    written: Segments
    db: int
    declared_counts: tuple[int, int] | None
    has_selectdb: bool
    losses: list[tuple[Loss, bool]]
    left_out: int
    skipped: list[RdbError]
    functions: list[bytes]
    scripts: list[bytes]
    changed: bool
    error: RdbError | None


class _Entries(Ledger):
    """A ledger that is only sent on."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[Loss, bool]] = []

    def add(self, loss: Loss, forbidden: bool = False) -> None:
        self.entries.append((loss, forbidden))


def _worker(flavour: str, version: int, limits: Limits, source: str, rules: Rules, writes: bool) -> Work[Part]:
    """What a process does with each piece; `writes`: it puts what has keys into the output itself."""
    from rdbkit.parallel.segments import set_apart

    file_types = FileTypes(flavour, version, limits.string_bytes, source, Budget(limits.held_bytes))

    def rewrite(block: Block) -> tuple[Part, list[bytes]]:
        file_types.budget = Budget(limits.held_bytes)
        ledger: Any = _Entries()
        rewriter = Rewriter(ValueConverter(file_types, rules), limits.item_bytes, rules, ledger)
        rewriter.base = block.offset
        rewriter.db = block.db
        rewriter.out_db = rules.edits.db_of(block.db)
        rewriter.database()
        error = None
        try:
            Scanner(flavour, version, limits.item_bytes, file_types.budget).scan(block.data, 0, len(block.data), rewriter)
        except RdbError as e:
            error = e
        rewriter.finish()
        written, pieces = set_apart(rewriter.take(), writes)
        part = Part(
            written, rewriter.out_db, rewriter.declared_counts, rewriter.has_selectdb, ledger.entries,
            int(rewriter.left_out), rewriter.skipped, rewriter.functions, rewriter.scripts, rewriter.changed,
            error,
        )  # fmt: skip
        return part, pieces

    return rewrite

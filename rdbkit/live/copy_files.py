"""Snapshots on their way to a running server: what `convert` makes of a file goes into the server as RESTORE commands.

A file is read twice: first to find all that the target does not support, so that nothing is written where something would be lost
that nobody has allowed; then it is written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from typing import Any, Final

from rdbkit.errors import RdbError
from rdbkit.format import constants as c
from rdbkit.format.budget import Budget
from rdbkit.format.decode import FileTypes
from rdbkit.format.payload import payload_pieces
from rdbkit.format.record import Collector, LargeRecord, Record
from rdbkit.format.replies import Refusal
from rdbkit.format.scan import NO_EXPIRY, STRING_INT, Scanner
from rdbkit.live.compare import Comparer
from rdbkit.live.connection import Lost
from rdbkit.live.copy_state import CopyState
from rdbkit.live.pace import Pace
from rdbkit.live.parts import Interrupted, PartNames, PartWriter
from rdbkit.live.refusals import Existing
from rdbkit.live.restoring import Refused, Restoring
from rdbkit.live.server import WAITS, Server
from rdbkit.live.transfer import Counts, Told
from rdbkit.model import Aux, ModuleAux
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.operations.convert import Conversion, Job, rules_of
from rdbkit.passes.restores import Restorer
from rdbkit.policy.ledger import Ledger, Loss
from rdbkit.policy.rules import FAIL, Rules
from rdbkit.products import described
from rdbkit.resp import bulk, command
from rdbkit.snapshot.large import Spool
from rdbkit.snapshot.reader import Snapshot, open_snapshot
from rdbkit.storage.location import fingerprint
from rdbkit.storage.source import Rereading
from rdbkit.targets.target import Target

__all__ = ["Checked", "check_files", "copy_files"]

#: Bytes of commands that wait before they are sent.
_FLUSH: Final = 4 << 20
#: No server takes a larger argument, unless it is told to (proto-max-bulk-len).
_LARGEST: Final = 512 << 20
_FOOTER: Final = 10
_TOLERANCE_MS: Final = 1000
#: RDB versions from here on can have metadata of modules with keys.
_METADATA_SINCE: Final = 13
#: Types whose values commands can write.
_TYPES: Final = ("string", "list", "set", "zset", "hash", "stream")


class Checked:
    """What the first reading of files has found.

    Attributes:
        libraries: sources of function libraries by name, for the target.
        scripts: Lua scripts that the target keeps.
        reports: of each file.
    """

    def __init__(self) -> None:
        self.libraries: dict[str, bytes] = {}
        self.scripts: list[bytes] = []
        self.reports: list[Conversion] = []


def check_files(
    files: Sequence[str],
    target: Target,
    conversion: ConversionOptions,
    ledger: Ledger,
    progress: Callable[[int], object] | None = None,
) -> Checked:
    """Read files, and find all that would be lost.

    Args:
        ledger: takes the losses.
        progress: called with the bytes of all files read so far.

    Raises: LossError where something would be lost that is not allowed; RdbError where a file is damaged; OSError.
    """
    found = Checked()
    read = 0
    for file in files:
        with _opened(file, conversion) as snapshot:
            rules = _rules(snapshot, file, target, conversion)
            sink = _Sink(snapshot, rules, ledger, found.scripts)
            position = read
            job = _FileJob(snapshot, sink, rules, ledger, lambda at: progress and progress(position + at))  # noqa: B023 (used here)
            if conversion.edits.on_duplicate == FAIL and conversion.edits.script is None:
                job.look_for_duplicates(snapshot.reopen)
            with closing(job):
                job.run(_jobs(snapshot, conversion))
            found.reports.append(job.report)
            if rules.target.rdb >= 10:
                for library in snapshot.functions:
                    found.libraries.setdefault(library.name, library.code)
            read += snapshot.position
    return found


def copy_files(
    files: Sequence[str],
    server: Server,
    target: Target,
    conversion: ConversionOptions,
    *,
    replace: bool,
    told: Told,
    state: CopyState,
    pace: Pace,
    counts: Counts,
    names: PartNames | None = None,
    progress: Callable[[int], object] | None = None,
) -> None:
    """Write files into a server that `check_files` has found to be whole.

    Args:
        replace: keys that the server has are replaced.
        told: is told of keys that were not simply written.
        state: how far an earlier run is, and this one.
        pace: how fast.
        counts: of the keys, which grow.
        names: of temporary keys, for values above `pace.big`; None to write them by RESTORE, too.
        progress: called with the bytes of all files read so far.

    Raises: TargetError where the server cannot be reached, or has no memory left, for long; RdbError, OSError.
    """
    restoring = Restoring(server)
    read = 0
    try:
        for file in files:
            lane = state.lane(file, 0, str(fingerprint(file)))
            with _opened(file, conversion, again=True) as snapshot:
                rules = _rules(snapshot, file, target, conversion)
                sink = _Writer(snapshot, rules, restoring, replace, told, counts, pace, names)
                sink.skip_to = -1 if not lane.done else 1 << 62
                if not lane.done and lane.cursor != "0":
                    sink.skip_to = int(lane.cursor)
                position = read

                def mark(at: int, sink: _Writer = sink, lane: Any = lane, position: int = position) -> None:
                    sink.mark()
                    lane.cursor, lane.keys = str(max(sink.answered, sink.skip_to)), counts.read
                    state.set_fact("counts", vars(counts))
                    state.keep(lane)
                    if progress is not None:
                        progress(position + at)

                with closing(_FileJob(snapshot, sink, rules, Ledger(), mark)) as job:
                    job.run(_jobs(snapshot, conversion))
                    counts.left_out += 0 if lane.done else job.report.left_out
                sink.settle()
                sink.close()
                read += snapshot.position
            lane.done = True
            state.set_fact("counts", vars(counts))
            state.keep(lane)
    finally:
        restoring.close()


def _opened(file: str, conversion: ConversionOptions, again: bool = False) -> Snapshot:
    options: dict[str, Any] = {"relaxed": conversion.relaxed, "verify_checksum": conversion.verify_checksum and not again}
    return open_snapshot(file, rereading=Rereading(), **options)


def _rules(snapshot: Snapshot, file: str, target: Target, conversion: ConversionOptions) -> Rules:
    return rules_of(
        snapshot, file, target, policies=conversion.policies, edits=conversion.edits, selection=conversion.selection,
        compress=conversion.compress, on_error=conversion.on_error, now_ms=conversion.now_ms,
    )  # fmt: skip


def _jobs(snapshot: Snapshot, conversion: ConversionOptions) -> int:
    """How many processes convert: one where keys can have metadata, which the others would take along."""
    return 1 if snapshot.header.version >= _METADATA_SINCE else conversion.jobs


class _FileJob(Job):
    """A conversion whose large records go to a sink by themselves."""

    def __init__(self, snapshot: Snapshot, sink: _Sink, rules: Rules, ledger: Ledger, progress: Callable[[int], object]) -> None:
        super().__init__(snapshot, sink, rules, ledger, progress)
        # what a payload of RESTORE has no place for is a loss, also where the target loads it from a file
        self.rewriter.has_metadata = False
        self.rewriter.is_keydb = False
        self.sink = sink
        self.type_code = 0

    def _head(self, type_code: int) -> bytes:
        self.type_code = type_code
        return super()._head(type_code)

    def _copy(self, record: Record, type_code: int, chunks: Iterator[bytes]) -> bool:
        self.type_code = 0 if type_code >= STRING_INT else type_code
        return super()._copy(record, type_code, chunks)

    def _put(self, heads: list[bytes], chunks: Iterator[bytes], keys: int = 1) -> None:
        self.written += keys
        rewriter = self.rewriter
        if not keys:
            assert self.snapshot.module_data is not None
            self.sink.loses_module_data(self.snapshot.module_data)
        if not keys or self.ledger.forbidden:
            for _ in chunks:
                pass
            return
        key = rewriter.key if rewriter.new_key is None else rewriter.new_key
        expire_ms = None if rewriter.expire_ms == NO_EXPIRY else int(rewriter.expire_ms)

        def value() -> Iterator[bytes]:
            yield from heads[1:]
            yield from chunks

        self.sink.large(rewriter.out_db, key, expire_ms, self.type_code, value())


class _Sink:
    """Takes what a conversion writes, and looks at what stands between keys; the destination of a `Job`.

    Args:
        scripts: takes Lua scripts that the target keeps.
    """

    recounts = False
    checksum = True
    size = 0
    can_correct = False

    def __init__(self, snapshot: Snapshot, rules: Rules, ledger: Ledger, scripts: list[bytes]) -> None:
        self.snapshot = snapshot
        self.rules = rules
        self.ledger = ledger
        self.scripts = scripts
        self.limits = snapshot.limits
        self.budget = Budget(self.limits.held_bytes)
        self.file_types = FileTypes(*rules.header, self.limits.string_bytes, snapshot.name, self.budget)

    def copy(
        self, data: bytes, db: int, keys: int, expires: int, counts: tuple[int, int] | None = None, selects: bool = True
    ) -> None:
        """Records as the target has them, or what stands between them."""
        if not keys:
            self.look_between(data)

    def append(self, data: bytes) -> None:
        """See `Destination`; large records come by `large`."""
        raise AssertionError

    def large(self, db: int, key: bytes, expire_ms: int | None, type_code: int, chunks: Iterator[bytes]) -> None:
        """A record larger than a block."""
        for _ in chunks:
            pass

    def look_between(self, data: bytes) -> None:
        """What belongs to no key."""
        collector = Collector(self.file_types, True)
        Scanner(*self.rules.header, self.limits.item_bytes, self.budget).scan(data, 0, len(data), collector)
        for event in collector.take():
            if isinstance(event, ModuleAux):
                self.loses_module_data(event)
            elif isinstance(event, Aux) and event.key == c.SCRIPT:
                self.scripts.append(event.value)

    def loses_module_data(self, data: ModuleAux) -> None:
        """No command takes what a module keeps outside of keys."""
        self.ledger.add(Loss("module-aux", f"data of {described(data.module)} outside of keys", 1, None, None), False)


class _Writer(_Sink):
    """Writes records into a server.

    Attributes:
        skip_to: bytes of the RDB up to which all is there already; -1 for nothing.
        answered: up to where the server has answered for all.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        rules: Rules,
        restoring: Restoring,
        replace: bool,
        told: Told,
        counts: Counts,
        pace: Pace,
        names: PartNames | None,
    ) -> None:
        super().__init__(snapshot, rules, Ledger(), [])
        self.restoring = restoring
        self.replace = replace
        self.told = told
        self.counts = counts
        self.pace = pace
        self.parts = None if names is None else PartWriter(restoring.server, rules, Ledger(), names)
        self.existing = Existing(restoring.server)
        self.comparer = Comparer(restoring.server, _TOLERANCE_MS)
        self.restorers: dict[int, Restorer] = {}
        self.skip_to = -1
        self.answered = 0
        self.sent = 0
        self.is_past = False
        self.refused: list[Refused] = []

    @property
    def skips(self) -> bool:
        """Whether what comes is there already."""
        return not self.is_past and self.skip_to > 0

    def copy(
        self, data: bytes, db: int, keys: int, expires: int, counts: tuple[int, int] | None = None, selects: bool = True
    ) -> None:
        if not keys or self.skips:
            return
        restorer = self.restorers.get(db)
        if restorer is None:
            router = self.restoring.router(db)
            restorer = Restorer(self.rules.header.version, self.limits.item_bytes, router, self.replace)
            self.restorers[db] = restorer
        self.pace.keys.take(keys)
        self.pace.value_bytes.take(len(data))
        Scanner(*self.rules.header, self.limits.item_bytes, self.budget).scan(data, 0, len(data), restorer)
        self.counts.read += keys
        self.counts.value_bytes += len(data)
        if self.restoring.waiting_bytes > _FLUSH:
            self.collect()
            self.restoring.flush()

    def mark(self) -> None:
        """A block has ended: what was sent before it is answered for, and what it has is sent."""
        at = self.snapshot.rdb_size
        if self.skips:
            self.is_past = at >= self.skip_to
            self.answered = self.sent = at
            return
        self.collect()
        self.note()
        self.answered = self.sent
        self.restoring.flush()
        self.sent = at

    def settle(self) -> None:
        """Wait for all answers."""
        self.restoring.flush()
        self.collect()
        self.note()
        self.answered = self.sent

    def close(self) -> None:
        """Close the connections of its own."""
        if self.parts is not None:
            self.parts.close()

    def collect(self) -> None:
        done = self.restoring.done
        self.refused += self.restoring.collect()
        self.counts.written += self.restoring.done - done

    def note(self) -> None:
        """Note the keys that the server did not take."""
        refused, self.refused = self.refused, []
        busy = []
        for each in refused:
            if each.why.code == "BUSYKEY":
                busy.append(each)
            else:
                self.refuse(each.db, each.key, str(each.why))
        for each, difference in zip(busy, self.existing.differences(busy), strict=True):
            self.note_existing(each, difference)

    def refuse(self, db: int, key: bytes, why: str) -> None:
        self.counts.refused += 1
        self.told(db, key, "refused", why)

    def note_existing(self, each: Refused, difference: str) -> None:
        if difference:
            self.counts.existing += 1
            self.told(each.db, each.key, "exists", difference)
        elif each.is_repeated:
            self.counts.written += 1
        else:
            self.counts.equal += 1
            self.told(each.db, each.key, "equal", "")

    def large(self, db: int, key: bytes, expire_ms: int | None, type_code: int, chunks: Iterator[bytes]) -> None:
        if self.skips:
            for _ in chunks:
                pass
            return
        self.settle()
        with Spool(chunks) as spool:
            self.pace.keys.take(1)
            self.pace.value_bytes.take(spool.size)
            self.counts.read += 1
            self.counts.value_bytes += spool.size
            size = 1 + spool.size + _FOOTER

            def record() -> LargeRecord:
                return LargeRecord(db, 0, expire_ms, None, None, self.file_types, type_code, key, lambda record: spool.pieces())

            if self.parts is not None and 0 < self.pace.big < spool.size and self.in_parts(self.parts, record):
                return
            if size > _LARGEST:
                self.refuse(db, key, f"a value of {size} bytes, and no server takes more than {_LARGEST} by RESTORE")
                return

            def pieces() -> Iterator[bytes]:
                words = [b"RESTORE", key, b"%d" % max(expire_ms, 1) if expire_ms is not None else b"0"]
                options = [b"ABSTTL", *([b"REPLACE"] if self.replace else [])]
                yield b"*%d\r\n%b$%d\r\n" % (4 + len(options), b"".join(map(bulk, words)), size)
                yield from payload_pieces(type_code, spool.pieces(), self.rules.header.version)
                yield b"\r\n" + b"".join(map(bulk, options))

            refused = self.restoring.send_large(db, key, pieces)
            if refused is None:
                self.counts.written += 1
            elif refused.why.code != "BUSYKEY":
                self.refuse(db, key, str(refused.why))
            else:
                self.note_existing(refused, self._difference(db, record()))

    def in_parts(self, parts: PartWriter, record: Callable[[], LargeRecord]) -> bool:
        """Write a value by commands under another name, and name it when it is whole; False where its type has no commands."""
        db, key = record().db, record().key
        if record().type not in _TYPES:
            return False
        waits = iter(WAITS)
        while True:
            ((there,),) = [(0,)] if self.replace else self.restoring.server.ask(db, [(key, [command(b"EXISTS", key)])])
            try:
                outcome = "exists" if there == 1 else parts.write(record(), lambda: None, over=self.replace)
                break
            except Interrupted as e:
                wait = next(waits, None)
                if wait is None:
                    self.refuse(db, key, str(e))
                    return True
                time.sleep(wait)
                with suppress(Lost):
                    self.restoring.server.read_slots()
        if outcome in ("exists", "unknown"):
            self.note_existing(Refused(db, key, b"", Refusal("BUSYKEY", ""), outcome == "unknown"), self._difference(db, record()))
        elif outcome == "written":
            self.counts.written += 1
        elif outcome == "gone":
            self.counts.gone += 1
        else:
            self.refuse(db, key, parts.trouble)
        return True

    def _difference(self, db: int, record: Record) -> str:
        try:
            (outcome,) = self.comparer.compare(db, [record])
        except RdbError as e:
            return str(e)
        return "" if outcome.what == "equal" else "the target has another value there"


def load_scripts(server: Server, scripts: Sequence[bytes]) -> None:
    """Load Lua scripts that a snapshot has, on each node."""
    for script in scripts:
        server.ask_each_node(0, [command(b"SCRIPT", b"LOAD", script)])

"""`rdbkit merge`: several snapshots in one valid file, with every key once."""

from __future__ import annotations

import heapq
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from typing import IO, BinaryIO, Final, Literal

from rdbkit.errors import LossError
from rdbkit.format import constants as c
from rdbkit.format.budget import OBJECT, Budget
from rdbkit.model import Aux, Event, FunctionLibrary, Header, ModuleAux, aux_number
from rdbkit.operations.arguments import File, paths_of
from rdbkit.operations.convert import Job
from rdbkit.operations.duplicates import (
    Duplicate,
    SharedLibrary,
    duplicate_error,
    find_duplicates,
    library_error,
    log_keys,
    name_places,
)
from rdbkit.passes.convert import script_loss
from rdbkit.passes.hashes import NameHashes, NameLog
from rdbkit.passes.names import file_and_offset
from rdbkit.policy.ledger import Ledger, Loss
from rdbkit.policy.rules import FAIL, Edits, Policies, Rules
from rdbkit.snapshot.reader import Snapshot, open_snapshot, usual_limits
from rdbkit.snapshot.writer import UNKNOWN, Writer, create
from rdbkit.storage.location import check_distinct, is_rereadable, is_same_file
from rdbkit.storage.source import Rereading
from rdbkit.targets.target import Target, find_target, target_of

__all__ = ["Merge", "OnDuplicate", "merge"]

OnDuplicate = Literal["fail", "first", "last", "latest-expiry", "keep-all-error-list"]
ON_DUPLICATE: Final[tuple[OnDuplicate, ...]] = ("fail", "first", "last", "latest-expiry", "keep-all-error-list")
OnFunction = Literal["fail", "first", "last"]

#: Numbers of hash templates (RDB 15) are of one file: they cannot stand beside those of another.
_NEWEST: Final = 14
#: Of the fields of one source, which make no sense of several.
_OF_ONE: Final = (b"repl-stream-db", b"repl-id", b"repl-offset")
_PIECE: Final = 1 << 20


@dataclass(frozen=True)
class FunctionConflict:
    """Function libraries with one `name` and different code: of which file one is `kept`, and which others had one, too."""

    name: str
    kept: str
    left_out: list[str]


@dataclass
class Merge:
    """What `merge` did.

    Attributes:
        sources: the files, with how many keys each has.
        header: of the file that was written.
        written: its keys, by database.
        left_out: keys that were left out since another one has their name, or since the target does not support them.
        duplicates: how many names were there more than once, and the first of them in `samples`.
        function_conflicts: names of function libraries that were there with different code.
        functions, scripts: as of `Conversion`.
        ledger: what the target does not support.
        disk_bytes: of temporary files, which are gone.
    """

    sources: list[tuple[str, int]]
    header: Header
    target: str
    ledger: Ledger
    written: dict[int, int] = field(default_factory=dict)
    left_out: int = 0
    duplicates: int = 0
    samples: list[Duplicate] = field(default_factory=list)
    function_conflicts: list[FunctionConflict] = field(default_factory=list)
    functions: list[bytes] = field(default_factory=list)
    scripts: list[bytes] = field(default_factory=list)
    disk_bytes: int = 0

    @property
    def keys(self) -> int:
        """Of the file that was written."""
        return sum(self.written.values())


class _Ledger(Ledger):
    """A ledger of what the target does not support; keys that another one takes the place of are counted apart."""

    def __init__(self, loss_callback: Callable[[Loss], object] | None) -> None:
        super().__init__(loss_callback)
        self._on_loss = loss_callback

    def add(self, loss: Loss, forbidden: bool = False) -> None:
        if loss.kind != "conflict":
            super().add(loss, forbidden)
        elif self._on_loss is not None:
            self._on_loss(replace(loss, kind="duplicate", what="another key of this name is kept"))


def merge(
    files: File | Iterable[File],
    dst: str | os.PathLike[str] | BinaryIO,
    *,
    target: str | Target | None = None,
    on_duplicate: OnDuplicate = "fail",
    on_function: OnFunction = "fail",
    policies: Policies | None = None,
    force: bool = False,
    relaxed: bool = False,
    verify_checksum: bool = True,
    now_ms: int | None = None,
    samples: int = 10,
    loss_callback: Callable[[Loss], object] | None = None,
    progress: Callable[[int], object] | None = None,
) -> Merge:
    """Write the keys of several snapshots to one.

    Databases stand one after the other. AUX fields are those of the first source, and what others have besides; `used-mem` is the
    sum, `ctime` the latest. A Lua script, which is such a field too, or a function library that several have is taken once.

    Args:
        files: paths of the sources, or snapshots that were just opened by theirs; files, since what stands before their keys is
            read first, and all once more where keys are there twice.
        dst, force: as for `rdbkit.create`.
        target: for whom the file is; by default it has the highest version of its sources, up to 14.
        on_duplicate: of keys with one name in one database: "fail", or keep the "first" or the "last" in the order of the files, or
            the one that expires last ("latest-expiry"); "keep-all-error-list" writes all of them, which no server loads.
        on_function: the same of libraries with one name and different code.
        policies: what to do with data that the target does not support; by default, nothing is written if there is any.
        relaxed, verify_checksum: as for `rdbkit.open`.
        now_ms: what counts as expired, in Unix milliseconds; by default the clock.
        samples: how many keys to name that are there more than once.
        loss_callback: called with each loss as it is found.
        progress: called with the bytes of the sources read so far.

    Raises: ValueError for sources that are no files, one file or of several flavours, and for no target of this name;
        DuplicateError; LossError, where the target does not support something; ChangedError where a source is another at a later
        reading; RdbError where a source is damaged; OSError.

    >>> import io
    >>> report = merge(["fixtures/random/redis-6.0.16.rdb", "fixtures/rich/redis-5.0.14-lru.rdb"], io.BytesIO())
    >>> print(report.header, report.keys)
    REDIS0009 66
    """
    files = paths_of(files)
    _check_files(files, dst)
    with ExitStack() as stack:
        sources = _Sources(files, relaxed, samples)
        headers, preludes = sources.read_preludes()
        chosen = _Preludes(files, preludes, on_function)
        found = _target(target, headers)
        header = found.header_for(max(headers, key=lambda h: h.version))
        ledger = _Ledger(loss_callback)
        report = Merge([], header, found.title, ledger, function_conflicts=chosen.conflicts)
        if loss_callback is not None:
            chosen.report_losses(loss_callback)
        writer = stack.enter_context(create(dst, version=header.version, flavour=header.flavour, force=force, sources=files))
        for key, value in _fields(preludes):
            if key != c.SCRIPT or _keeps_script(value, found, policies or Policies(), report):
                writer.aux(key, value)
        decisions = sources.decisions(on_duplicate, report)
        hashes = NameHashes() if on_duplicate in ("fail", "keep-all-error-list") else None
        if hashes is not None:
            stack.callback(hashes.partitions.close)
        grouped = stack.enter_context(_Grouped(writer))
        now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        read = 0
        failed: LossError | None = None
        for number, name in enumerate(files):
            with sources.open(name, verify_checksum) as snapshot:
                snapshot.keep_prelude(chosen.wants(number))
                rules = Rules(
                    target=found,
                    source=snapshot.header,
                    header=header,
                    known=found.types_in(header),
                    policies=policies or Policies(),
                    # which of several keys stays has been decided
                    edits=Edits(on_conflict="first"),
                    selection=None,
                    now_ms=now,
                    compress=False,
                    skip=False,
                    decisions=decisions.get(number, {}),
                )
                job = Job(snapshot, grouped, rules, ledger, _after(read, progress))
                job.rewriter.hashes = hashes
                failed = _run(job) or failed
                report.sources.append((name, job.report.keys))
                report.left_out += job.report.left_out
                report.functions += job.report.functions
                report.scripts += job.report.scripts
                read += snapshot.position
        if failed is not None:
            raise failed
        if hashes is not None and hashes.any_twice():
            sources.look_closer(report)
            if report.duplicates and on_duplicate == "fail":
                error = duplicate_error(report.duplicates, report.samples)
                error.samples = report.samples[:samples]
                raise error
        grouped.finish()
        report.samples = report.samples[:samples]
        report.written = grouped.written
        report.disk_bytes += grouped.on_disk() + (0 if hashes is None else hashes.partitions.on_disk())
    return report


def _check_files(files: Sequence[str], dst: str | os.PathLike[str] | BinaryIO) -> None:
    """Raise ValueError for sources that cannot be read several times, or are the destination, or are the same."""
    if not files:
        raise ValueError("there is nothing to merge")
    check_distinct(files)
    for name in files:
        if not is_rereadable(name):
            what = "standard input" if name == "-" else name
            raise ValueError(f"{what}: it is read several times, and has to be a file")
    if isinstance(dst, str | os.PathLike) and any(is_same_file(dst, name) for name in files):
        raise ValueError(f"{os.fspath(dst)} is one of the files to be read")


def _run(job: Job) -> LossError | None:
    """Read one source; the error is given back, since the others are read all the same: all losses are to be known."""
    try:
        job.run(1)
    except LossError as e:
        if e.report is None:
            raise
        return e
    return None


def _after(read: int, progress: Callable[[int], object] | None) -> Callable[[int], object] | None:
    """Progress of a file before which so many bytes have been read."""
    return None if progress is None else lambda done: progress(read + done)


def _target(target: str | Target | None, headers: Sequence[Header]) -> Target:
    if isinstance(target, Target):
        return target
    if target is not None:
        return find_target(target)
    if len({h.flavour for h in headers}) > 1:
        raise ValueError("sources of Redis and of Valkey: say for which target the file is")
    newest = max(h.version for h in headers)
    flavour = headers[0].flavour
    return target_of(Header(flavour, newest if flavour == c.VALKEY else min(newest, _NEWEST)))


def _fields(preludes: Sequence[Sequence[tuple[Event, bytes]]]) -> list[tuple[bytes, bytes]]:
    """The AUX fields of all sources together."""
    fields: dict[bytes, bytes] = {}
    scripts: dict[bytes, None] = {}  # in their order
    for event in (event for prelude in preludes for event, _ in prelude):
        if not isinstance(event, Aux) or event.key in _OF_ONE:
            continue
        if event.key == c.SCRIPT:
            scripts[event.value] = None
            continue
        before = fields.get(event.key)
        fields[event.key] = event.value if before is None else _joined(event.key, before, event.value)
    return [*fields.items(), *((c.SCRIPT, body) for body in scripts)]


def _keeps_script(body: bytes, target: Target, policies: Policies, report: Merge) -> bool:
    """Whether a Lua script stays, for the target loads it; what is to be reported of it is entered."""
    policy = policies.chosen("lua_script")
    loss, is_asked_for = script_loss(body, policy, target.keeps_scripts)
    if loss is not None:
        report.ledger.add(loss, policy == FAIL)
    if is_asked_for:
        report.scripts.append(body)
    return target.keeps_scripts


def _joined(key: bytes, before: bytes, value: bytes) -> bytes:
    """A field that two sources have: the sum of their memory, the later time, and of anything else the first."""
    first, second = aux_number(before), aux_number(value)
    if first is None or second is None:
        return before
    if key == b"used-mem":
        return b"%d" % (first + second)
    return value if key == b"ctime" and second > first else before


class _Sources:
    """The files, which are read several times.

    Args:
        files: their paths.
        relaxed: as for `rdbkit.open`.
        samples: how many keys to name that are there more than once.
    """

    def __init__(self, files: Sequence[str], relaxed: bool, samples: int) -> None:
        self.files = files
        self.relaxed = relaxed
        self.samples = samples
        self.rereading = Rereading()

    def open(self, name: str, verify_checksum: bool) -> Snapshot:
        """One of them."""
        return open_snapshot(name, relaxed=self.relaxed, verify_checksum=verify_checksum, rereading=self.rereading)

    def read_preludes(self) -> tuple[list[Header], list[list[tuple[Event, bytes]]]]:
        """The header of each, and what precedes its keys."""
        headers, preludes = [], []
        for name in self.files:
            with self.open(name, False) as snapshot:
                headers.append(snapshot.header)
                preludes.append(snapshot.prelude())
        return headers, preludes

    # -- keys that are there more than once

    def decisions(self, on_duplicate: OnDuplicate, report: Merge) -> dict[int, dict[int, bytes | None]]:
        """By file, the offsets of the records that are left out."""
        if on_duplicate in ("fail", "keep-all-error-list"):
            return {}
        decisions: dict[int, dict[int, bytes | None]] = {}
        with closing(NameLog(ranked=on_duplicate == "latest-expiry")) as log:
            for number, name in enumerate(self.files):
                log_keys(name, self.relaxed, log, number, self.rereading)
            report.disk_bytes += log.on_disk()

            def decide() -> Iterator[list[int]]:
                for places in log.repeated():
                    report.duplicates += 1
                    for place in places[:-1] if on_duplicate == "last" else places[1:]:
                        number, offset = file_and_offset(place)
                        decisions.setdefault(number, {})[offset] = None
                    yield sorted(places)

            first = heapq.nsmallest(max(self.samples, 1), decide())
        report.samples = name_places(self.files, first, relaxed=self.relaxed, rereading=self.rereading)
        return decisions

    def look_closer(self, report: Merge) -> None:
        """Count the names that are there more than once, and find the first of them: one at least, for an error to name."""
        found = find_duplicates(self.files, relaxed=self.relaxed, samples=max(self.samples, 1), rereading=self.rereading)
        report.duplicates = found.keys
        report.samples = found.samples


class _Preludes:
    """Which of what stands before the keys of all sources is taken: module data once, and of libraries with one name one.

    Attributes:
        conflicts: libraries that differ.

    Raises: DuplicateError where libraries differ and no policy says which one counts.
    """

    def __init__(self, files: Sequence[str], preludes: Sequence[Sequence[tuple[Event, bytes]]], on_function: OnFunction) -> None:
        self.conflicts: list[FunctionConflict] = []
        self.data: dict[bytes, int] = {}
        self.libraries: dict[str, tuple[int, bytes]] = {}  # the source that each is taken of, and its code
        met: dict[str, list[tuple[int, bytes]]] = {}
        for number, prelude in enumerate(preludes):
            for event, raw in prelude:
                if isinstance(event, ModuleAux):
                    self.data.setdefault(raw, number)
                elif isinstance(event, FunctionLibrary):
                    met.setdefault(event.name, []).append((number, event.code))
        for name, found in met.items():
            self.libraries[name] = kept = found[-1 if on_function == "last" else 0]
            others = [files[number] for number, code in found if code != kept[1]]
            if others and on_function == "fail":
                raise library_error(SharedLibrary(name, [files[kept[0]], *others], is_same=False))
            if others:
                self.conflicts.append(FunctionConflict(name, files[kept[0]], others))

    def report_losses(self, loss_callback: Callable[[Loss], object]) -> None:
        """Report the libraries that are left out since another one has their name."""
        for each in self.conflicts:
            what = f"function library {each.name!r}: that of {each.kept} is kept"
            loss_callback(Loss("duplicate", what, len(each.left_out), None, None))

    def wants(self, number: int) -> Callable[[Event, bytes], bool]:
        """What is taken of the source of this number; AUX fields are written apart from it."""

        def wanted(event: Event, raw: bytes) -> bool:
            if isinstance(event, FunctionLibrary):
                return self.libraries[event.name] == (number, event.code)
            return isinstance(event, ModuleAux) and self.data[raw] == number

        return wanted


# -- one database after the other


@dataclass
class _Stretch:
    """Records of one database that wait in the file."""

    at: int
    size: int
    keys: int
    expires: int


class _Grouped:
    """What a `Job` takes for a `Writer`: the records of the first database go on to it, those of others wait for their turn.

    Attributes:
        written: keys by database.
    """

    def __init__(self, writer: Writer) -> None:
        self.budget = Budget(usual_limits().held_bytes)
        self.header = writer.header
        self.written: dict[int, int] = {}
        self.recounts = False
        self.checksum = True
        self.can_correct = False
        self.size = -1  # never that of a source
        self._writer = writer
        self._first: int | None = None
        self._waiting: dict[int, list[_Stretch]] = {}
        self._file: IO[bytes] | None = None
        self._spools = False  # what `append` adds to

    def __enter__(self) -> _Grouped:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file is not None:
            self._file.close()

    def copy(
        self, data: bytes, db: int, keys: int, expires: int, counts: tuple[int, int] | None = None, selects: bool = True
    ) -> None:
        """As `Writer.copy`."""
        if keys:
            self.written[db] = self.written.get(db, 0) + keys
            if self._first is None:
                self._first = db
        self._spools = bool(keys) and db != self._first
        if not self._spools:
            self._writer.copy(data, db, keys, expires, UNKNOWN, True)
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed at the end)
        stretches = self._waiting.setdefault(db, [])
        at = self._file.tell()
        last = stretches[-1] if stretches else None
        if last is not None and last.at + last.size == at:
            last.size += len(data)
            last.keys += keys
            last.expires += expires
        else:
            self.budget.spend("turns between databases", 2 * OBJECT)
            stretches.append(_Stretch(at, len(data), keys, expires))
        self._db = db
        self._file.write(data)

    def append(self, data: bytes) -> None:
        """As `Writer.append`."""
        if not self._spools:
            self._writer.append(data)
            return
        assert self._file is not None
        self._waiting[self._db][-1].size += len(data)
        self._file.write(data)

    def on_disk(self) -> int:
        """Bytes of what waits."""
        return sum(stretch.size for stretches in self._waiting.values() for stretch in stretches)

    def finish(self) -> None:
        """Write what waits."""
        for db in sorted(self._waiting):
            assert self._file is not None
            for stretch in self._waiting[db]:
                self._file.seek(stretch.at)
                left = stretch.size
                self._writer.copy(b"", db, stretch.keys, stretch.expires, UNKNOWN, True)
                while left:
                    data = self._file.read(min(left, _PIECE))
                    self._writer.append(data)
                    left -= len(data)

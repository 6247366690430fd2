"""`rdbkit verify`: everything about a snapshot that can be proven from the file alone."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from rdbkit.errors import NOT_READ, ChecksumError, CorruptError, LimitError, RdbError, TruncatedError, UnsupportedTypeError
from rdbkit.format.budget import OBJECT, Budget
from rdbkit.format.decode import FileTypes
from rdbkit.format.record import LargeRecord
from rdbkit.format.scan import Scanner
from rdbkit.model import TRAILERS, TRAILING_DATA, Trailer
from rdbkit.operations.arguments import Source, opened
from rdbkit.passes.verify import Repeats, Verifier, judge_event
from rdbkit.snapshot.reader import Block, Limits, Snapshot
from rdbkit.storage.source import Rereading
from rdbkit.text import count, json_bytes, valid_text

if TYPE_CHECKING:
    from rdbkit.parallel.pool import Answer, Work

__all__ = ["Fault", "Rule", "Verification", "Violation", "rules", "verify"]

_HEADER_BYTES: Final = 9
#: What may follow a sound snapshot and is worth a word, by `Trailer.kind`.
_NOTED_TRAILERS: Final = ("aof", "mark", "pings", "replication")


@dataclass(frozen=True)
class Rule:
    """A rule of the format.

    Attributes:
        name, code: such as "listpack-count" and "RDB526"; both are stable.
        text: the rule, in words.
        source: where a server keeps or checks it.
    """

    name: str
    code: str
    text: str
    source: str


@dataclass(frozen=True)
class Fault:
    """A place where a rule is broken.

    Attributes:
        message: what is wrong there.
        db, key: where it is a key that is damaged, and its name can be read.
        offset: where the record or the damage begins in the (decompressed) file, in bytes.
        size: bytes of the record, None where it is not a record, or its end is not known.
    """

    message: str
    db: int | None
    key: bytes | None
    offset: int | None
    size: int | None


@dataclass
class Violation:
    """A rule that is broken: in how many places, and the first of them."""

    rule: Rule
    count: int = 0
    samples: list[Fault] = field(default_factory=list)


@dataclass
class Verification:
    """What `verify` says of a file.

    Attributes:
        file, header: its name, and flavour and version as in its first bytes.
        deep: whether values were looked into.
        keys: that were looked at.
        size: bytes of the snapshot up to which it could be read.
        whole: it could be read to its end.
        checksum: "ok", "disabled" or "absent" (there is none to compare), "mismatch"; "unknown" where the end was not reached.
        violations: in the order of their codes.
        notes: what is odd about the file and breaks no rule.
    """

    file: str
    header: str
    deep: bool
    keys: int = 0
    size: int = 0
    whole: bool = False
    checksum: str = "unknown"
    violations: list[Violation] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether no rule is broken."""
        return not self.violations

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; keys that are not UTF-8 as `{"base64": ...}`."""
        result = asdict(self)
        result["file"] = valid_text(self.file)
        result["sound"] = self.sound
        findings = []
        for violation in result.pop("violations"):
            for sample in violation["samples"]:
                sample["key"] = None if sample["key"] is None else json_bytes(sample["key"])
            rule = violation["rule"]
            findings.append(
                {"code": rule["code"], "rule": rule["name"], "text": rule["text"], "source": rule["source"],
                 "count": violation["count"], "samples": violation["samples"]}
            )  # fmt: skip
        result["findings"] = findings
        return result


@cache
def rules() -> dict[str, Rule]:
    """Every rule, by the name that an error of the library has as its `rule`.

    >>> rules()["listpack-count"].code
    'RDB526'
    """
    import tomllib

    with open(os.path.join(os.path.dirname(__file__), "soundness.toml"), "rb") as file:
        return {name: Rule(name, **rule) for name, rule in tomllib.load(file).items()}


def rule_of(e: RdbError) -> str:
    """The name of the rule that an error is about."""
    if e.rule is not None and not isinstance(e, LimitError):
        return e.rule
    if isinstance(e, ChecksumError):
        return "checksum"
    if isinstance(e, TruncatedError):
        return "truncated"
    if isinstance(e, UnsupportedTypeError):
        return "unknown-type"
    return "limit" if isinstance(e, LimitError) else "framing"


def verify(
    src: Source,
    *,
    deep: bool = False,
    samples: int = 3,
    relaxed: bool = False,
    limits: Limits | None = None,
    block_size: int | None = None,
    jobs: int = 1,
    progress: Callable[[int], object] | None = None,
) -> Verification:
    """Prove what can be proven of a snapshot without a server.

    That is that its framing leads from the first byte to the last, that its checksum fits and that nothing strange
    follows it; and with `deep`, that every name, value and function library keeps the rules that the strictest servers check when
    they load, and some that none checks although its answers depend on them. What modules keep in their values is their own.

    Args:
        src, relaxed, limits, block_size: as for `rdbkit.open`; or a snapshot that is open, which was opened with its own.
        deep: look into values. Names that are there twice can be found for certain only where `src` has been given as a path, since
            the file is then read a second time.
        samples: how many places to name for each rule.
        jobs: with `deep`, processes that look into values; what is found does not depend on it. They are spawned, so that a script
            that asks for them needs the guard `if __name__ == "__main__":`.
        progress: called with bytes of the file read so far.

    Raises: RdbError where the file is no snapshot, or of a version that is not known; ChangedError where it is read twice, and is
        another the second time; TypeError for what is no source; OSError.

    >>> report = verify("fixtures/rich/redis-7.0.15.rdb", deep=True)
    >>> report.sound, report.keys, report.checksum
    (True, 27, 'ok')
    """
    return _Job(src, deep, samples, relaxed, limits, block_size, jobs, progress).run()


class _Job:
    def __init__(
        self,
        src: Source,
        deep: bool,
        samples: int,
        relaxed: bool,
        limits: Limits | None,
        block_size: int | None,
        jobs: int,
        progress: Callable[[int], object] | None,
    ) -> None:
        self.src = src
        self.jobs = jobs
        self.deep = deep
        self.settings: dict[str, Any] = {"relaxed": relaxed, "limits": limits, "block_size": block_size, "damaged": True}
        if deep:
            self.settings["rereading"] = Rereading()
        self.progress = progress
        self.found = _Found(samples)

    def run(self) -> Verification:
        with opened(self.src, **self.settings) as snapshot:
            report = Verification(snapshot.name, str(snapshot.header), self.deep)
            if snapshot.aof_base is not None and snapshot.aof_base.summary:
                report.notes.append(snapshot.aof_base.summary)
            self.found.budget = snapshot.budget
            # what is said of the templates of RDB 15 would have to go to all processes
            shares = self.deep and self.jobs > 1 and snapshot.header.version != 15
            verifier = Verifier(snapshot.file_types, snapshot.limits.item_bytes, self.deep, self.found.add, inside=not shares)
            try:
                if self.deep:
                    check_functions(snapshot, verifier.libraries, self.found.add)
                self.scan(snapshot, verifier, report, shares)
                if self.deep and report.whole:
                    self.look_for_names(verifier, snapshot)
                elif verifier.nameless:
                    message = f"{count(int(verifier.nameless), 'key')} with an empty name behind another, as a stretch of zeros is"
                    self.found.add(CorruptError(message, rule="key-twice"), None, int(verifier.nameless_at), None)
            finally:
                verifier.close()
            report.keys = int(verifier.records)
            if report.whole or report.size == 0:
                report.size = snapshot.rdb_size
        report.violations = sorted(self.found.violations.values(), key=lambda violation: violation.rule.code)
        return report

    def scan(self, snapshot: Snapshot, verifier: Verifier, report: Verification, shares: bool) -> None:
        try:
            for item in self.looked_into(snapshot, verifier) if shares else snapshot.scan(verifier):
                if isinstance(item, LargeRecord):
                    if not item.is_module_data:
                        verifier.judge_large(item)
                elif item is not None:
                    self.found.absorb(item.result)
                if self.progress is not None:
                    self.progress(snapshot.position)
            report.whole = True
        except NOT_READ:
            raise
        except RdbError as e:
            self.found.add(e, e.db, e.offset, None)
            report.whole = isinstance(e, ChecksumError)
            report.size = max((e.offset or 0) - snapshot.begin, 0)
        if snapshot.checksum is not None:
            report.checksum = snapshot.checksum.state
        if snapshot.ignored:
            ignored = f"{count(snapshot.ignored, 'byte')} behind the {snapshot.compression} data, which are ignored"
            report.notes.append(ignored)
        trailer = snapshot.trailer
        if trailer is None:
            return
        report.notes += _notes_of_trailer(trailer, snapshot.framing)
        if trailer.kind in ("unknown", "snapshot"):
            error = CorruptError(f"{TRAILING_DATA[trailer.kind]} behind the end of the snapshot", rule="behind")
            self.found.add(error, None, snapshot.begin + snapshot.rdb_size, None)

    def looked_into(self, snapshot: Snapshot, verifier: Verifier) -> Iterator[Answer[dict[str, Violation]] | LargeRecord]:
        """The parts of a snapshot, whose values other processes have looked into."""
        from rdbkit.parallel.pool import in_order  # what it takes to start processes is not needed for most runs

        settings = (*snapshot.header, snapshot.limits, snapshot.name, self.found.samples)
        return in_order(snapshot, self.jobs, _worker, settings, verifier)

    def look_for_names(self, verifier: Verifier, read: Snapshot) -> None:
        """Whether two keys of a database have the same name."""
        hashes = verifier.names.twice(self.found.budget)
        if not hashes:
            return
        if not read.can_reopen:
            message = f"{len(hashes)} names, it seems, are there twice; a file, which can be read again, tells for certain"
            self.found.add(CorruptError(message, rule="key-twice"), None, None, None)
            return

        def met(db: int, name: bytes, first: int, offset: int, size: int) -> None:
            self.found.add(CorruptError(f"the key is there before, at byte {first}", rule="key-twice", key=name), db, offset, size)

        with read.reopen(verify_checksum=False) as snapshot:
            for _ in snapshot.scan(Repeats(snapshot.limits.item_bytes, hashes, met)):
                pass


class _Found:
    """The rules that are broken, by name."""

    def __init__(self, samples: int) -> None:
        self.samples = samples
        self.budget = Budget()
        self.violations: dict[str, Violation] = {}

    def add(self, e: RdbError, db: int | None, offset: int | None, size: int | None) -> None:
        """Enter a place where a rule is broken."""
        violation = self._of(rules()[rule_of(e)])
        violation.count += 1
        if len(violation.samples) < self.samples:
            self._name(violation, Fault(e.message, db if e.key is not None else None, e.key, offset, size))

    def absorb(self, violations: dict[str, Violation]) -> None:
        """Enter what another process has found in the part of the file that comes next."""
        for each in violations.values():
            violation = self._of(each.rule)
            violation.count += each.count
            for fault in each.samples[: self.samples - len(violation.samples)]:
                self._name(violation, fault)

    def _of(self, rule: Rule) -> Violation:
        return self.violations.setdefault(rule.name, Violation(rule))

    def _name(self, violation: Violation, fault: Fault) -> None:
        self.budget.spend("names of keys to be reported", len(fault.key or b"") + len(fault.message) + OBJECT)
        violation.samples.append(fault)


def _worker(flavour: str, version: int, limits: Limits, source: str, samples: int) -> Work[dict[str, Violation]]:
    """What a process does with each piece."""
    file_types = FileTypes(flavour, version, limits.string_bytes, source, Budget(limits.held_bytes))

    def look(block: Block) -> tuple[dict[str, Violation], list[bytes]]:
        file_types.budget = Budget(limits.held_bytes)
        found = _Found(samples)
        verifier = Verifier(file_types, limits.item_bytes, True, found.add, outside=False)
        verifier.base = block.offset
        verifier.db = block.db
        try:
            Scanner(flavour, version, limits.item_bytes, file_types.budget).scan(block.data, 0, len(block.data), verifier)
        finally:
            verifier.close()
        return found.violations, []

    return look


def _notes_of_trailer(trailer: Trailer, framing: str | None) -> list[str]:
    """What surrounds a snapshot and breaks no rule."""
    notes = [] if framing is None else ["the snapshot of a replication capture"]
    if trailer.kind in _NOTED_TRAILERS and (trailer.kind != "mark" or framing is None):
        size = "" if trailer.size is None else f": {count(trailer.size, 'byte')}"
        notes.append(f"followed by {TRAILERS[trailer.kind]}{size}")
    return notes


def check_functions(snapshot: Snapshot, libraries: set[bytes], report_error: Callable[[RdbError, None, int, int], object]) -> None:
    """Report what is wrong with the function libraries that precede the keys; `libraries` takes their names."""
    offset = snapshot.begin + _HEADER_BYTES
    for event, raw in snapshot.prelude():
        try:
            judge_event(event, libraries)
        except CorruptError as e:
            report_error(e, None, offset, len(raw))
        offset += len(raw)
    snapshot.keep_prelude(lambda event, raw: False)  # it has been looked at

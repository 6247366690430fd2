"""`rdbkit check`: whether a target takes a snapshot, and what would be lost.

The question is put to the code that converts (`Job` with a `DryRun`): what that would change, the target does not take as it is.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any, Final, NamedTuple

from rdbkit.errors import NOT_READ, ChecksumError, LossError, RdbError, UnsupportedTypeError
from rdbkit.format.budget import HELD
from rdbkit.format.constants import REDIS, ValueType
from rdbkit.format.scan import STRING_INT
from rdbkit.model import Header, aux_number
from rdbkit.operations.arguments import Source, opened
from rdbkit.operations.convert import Job, lacks_checksum, own_export
from rdbkit.operations.shards import in_words, missing_of, ranges_of, shared_by
from rdbkit.operations.verify import rules as rules_of_values
from rdbkit.passes.check import MOST_DATABASES, CountingConverter, DryRun, Tally
from rdbkit.passes.slots import free_stretches
from rdbkit.passes.value_checker import TWICE
from rdbkit.policy.ledger import Ledger
from rdbkit.policy.losses import LossKind, how_to_keep, loss_kinds
from rdbkit.policy.rules import Edits, Policies, Rules
from rdbkit.products import described, joined, module_product, module_type, types_of
from rdbkit.snapshot.large import Spool
from rdbkit.snapshot.reader import Snapshot
from rdbkit.snapshot.writer import Writer, create
from rdbkit.storage.compression import without_suffix
from rdbkit.storage.output import Nowhere
from rdbkit.storage.remote import base_name, is_server_url
from rdbkit.targets.releases import release_line, release_title
from rdbkit.targets.target import Fact, Sku, Target, as_sku, as_target, tolerated
from rdbkit.text import count, json_bytes, path_word, shell_word, valid_text

BLOCKER: Final = "blocker"
LOSS: Final = "loss"
WARNING: Final = "warning"
NOTE: Final = "note"
SEVERITIES: Final = (BLOCKER, LOSS, WARNING, NOTE)

#: Verdicts, from best to worst.
AS_IT_IS: Final = "as-it-is"
LOSSLESS: Final = "lossless"
LOSSY: Final = "lossy"
CANNOT: Final = "cannot"
#: Of a file that is one shard of a cluster; and of files among which some are missing.
ONE_SHARD: Final = "RDB309"
_MISSING: Final = "RDB308"
#: Of used memory that fits, the share from which on it is tight.
_TIGHT: Final = 0.9
_GB: Final = 1 << 30
#: Options stand one behind the other in what helps.
_OPTION: Final = re.compile(" (?=--)")
#: The type of values of modules, which servers have since RDB 8.
_MODULE: Final = 7
#: Types with several encodings, of which one can be written in another.
_REENCODED: Final = ("list", "set", "zset", "hash", "stream")
_AS_STRINGS: Final = "--on-module json-as-string"
#: Options that change more than the form of a file.
_EDITING: Final = ("--map-db", "--collapse-dbs", "--on-duplicate")
_LOST_BY_EDITS: Final = (
    "what else is lost where keys are moved or left out (an export that is changed has to be written as the files of others are), "
    "since the input cannot be read twice"
)
#: Databases that are moved one by one.
_MOST_PAIRS: Final = 16
#: New names for keys whose name another key has.
_PATTERNS: Final = ("{key}:db{db}", "db{db}:{key}", "{key}:from-db{db}", "from-db{db}:{key}")
#: Bytes of a file's name that leave room for the target's name beside it: most file systems end at 255.
_LONGEST_STEM: Final = 160


@dataclass(frozen=True)
class Sample:
    """One of the keys that a finding is about, and the byte of the (decompressed) file where its record begins."""

    db: int
    key: bytes
    offset: int


@dataclass(frozen=True)
class Finding:
    """Something that matters for the import.

    Attributes:
        code: stable, such as "RDB201".
        severity: "blocker" (the target refuses the file as it is), "loss" (data would be lost), "warning" or "note".
        title: what it is, in words.
        count: how many of it (fields, pending entries, ...); `keys` in how many keys, which take `bytes` in the file.
        samples: the first of the keys.
        why: why it matters.
        source: where that is known from.
        fix: the option of rdbkit that deals with it, or what else to do; empty for nothing.
    """

    code: str
    severity: str
    title: str
    count: int = 1
    keys: int = 0
    bytes: int = 0
    samples: list[Sample] = field(default_factory=list)
    why: str = ""
    source: str = ""
    fix: str = ""


@dataclass
class Check:
    """What `check` says of one file and one target.

    Attributes:
        verdict: "as-it-is" (imports as it is), "lossless" (after `rdbkit convert`, with all its data), "lossy" (after it, with the
            losses among the findings) or "cannot".
        options: for `rdbkit convert`, besides the target; those that allow losses come last.
        path: of the file, for `command`; None for standard input and what else has none.
        not_looked_at: what could make the verdict another one and was not looked at, in words.
        deep: all values were opened. Otherwise damage inside of those that need not be re-encoded was not looked for.
        slots: the first and last of each range of hash slots that its keys are in, where these are some alone, as a cluster's shard
            has them. None for all, and where the keys are too few to tell.
        occupied: the hash slots that have keys, each a bit; 0 where that was not looked at.
    """

    file: str
    target: str
    title: str
    header: str
    keys: int
    bytes: int
    verdict: str
    options: list[str]
    findings: list[Finding]
    path: str | None = None
    not_looked_at: list[str] = field(default_factory=list)
    deep: bool = False
    slots: list[tuple[int, int]] | None = None
    occupied: int = field(default=0, repr=False)  # which has too many digits

    @property
    def summary(self) -> str:
        """The answer in one line."""
        open_questions = "".join(f"; not looked at: {what}" for what in self.not_looked_at)
        return self._answer + open_questions

    @property
    def _answer(self) -> str:
        if self.verdict == AS_IT_IS:
            return f"{self.title} imports it as it is"
        if self.verdict == CANNOT:
            return f"{self.title} cannot import it"
        if self.verdict == LOSSLESS:
            return f"{self.title} imports it after conversion, without loss"
        return f"{self.title} imports it after conversion, with losses"

    @property
    def converted(self) -> str:
        """A name for the file that `command` writes."""
        if self.path is None:
            return "out.rdb"
        stem = without_suffix(base_name(self.path)).removesuffix(".rdb")
        while len(os.fsencode(stem)) > _LONGEST_STEM:
            stem = stem[:-1]
        return f"{stem}-{os.path.basename(self.target)}.rdb"

    @property
    def command(self) -> str:
        """What to run before the import, where the verdict is "lossless" or "lossy"."""
        return self.command_to(self.converted)

    def command_to(self, made: str) -> str:
        """`command` for a file of another name than `converted`."""
        source = "-" if self.path is None else path_word(self.path)
        verb = "snapshot" if is_server_url(self.path) else "convert"
        words = ["rdbkit", verb, source, path_word(made), "--target", shell_word(self.target), *self.options]
        return " ".join(words)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; keys that are not UTF-8 as `{"base64": ...}`."""
        result = asdict(self)
        del result["path"], result["occupied"]
        for found in result["findings"]:
            for sample in found["samples"]:
                sample["key"] = json_bytes(sample["key"])
        return result


_FORMAT: Final = "src/rdb.c of the release line"


class _NoSpool(Spool):
    """Takes bytes and keeps none."""

    def write(self, data: bytes) -> None:
        self.size += len(data)


class _Examination(Job):
    """A conversion whose output goes nowhere."""

    def __init__(
        self, snapshot: Snapshot, writer: Writer, rules: Rules, samples: int, progress: Callable[[int], object] | None
    ) -> None:
        self.samples = samples
        super().__init__(snapshot, writer, rules, Ledger(), progress)

    def make_rewriter(self) -> DryRun:
        converter = CountingConverter(self.snapshot.file_types, self.rules)
        return DryRun(converter, self.snapshot.limits.item_bytes, self.rules, self.ledger, self.samples)

    def make_spool(self) -> Spool:
        return _NoSpool()


def check(
    snapshot: Source,
    target: Target | str,
    *,
    sku: Sku | str | None = None,
    clustered: bool = False,
    databases: int | None = None,
    deep: bool = False,
    samples: int = 3,
    now_ms: int | None = None,
    allow_base: bool | None = None,
    progress: Callable[[int], object] | None = None,
) -> Check:
    """Tell whether a target takes a snapshot.

    A damaged file is a finding, not an error. Only values that `convert` re-encodes are opened, unless `deep` is given, the
    checksum is missing or wrong (nothing else would show damage then), or the source cannot be read again if it proves so.

    Args:
        snapshot: a path, a file of bytes, or a snapshot that was just opened.
        target: of `rdbkit.find_target`, or its name; `Target.with_engine` for a version that is known to run there.
        sku: the size of the service that it goes to, of `Target.skus`, or its name, such as "P2".
        clustered: it goes to a cluster, which has database 0 alone.
        databases: how many the target is configured for.
        deep: open every value: the only way to be certain that the target loads them all.
        samples: how many keys to name for each finding.
        now_ms: what counts as expired, in Unix milliseconds; by default the clock.
        allow_base: the base of an append-only folder is enough, although newer data stands beside it: then that is a warning. None:
            newer data is a loss. False: it is also one where nobody can know whether there is any, as of a blob.
        progress: called with bytes of the file read so far.

    Raises: OSError where the path cannot be opened; ValueError for no target or size of this name; TypeError for what is no source,
        target or size; RdbError where the beginning is no snapshot's.

    >>> report = check("fixtures/rich/redis-7.0.15.rdb", "azure-premium")
    >>> report.verdict, [finding.code for finding in report.findings]
    ('lossy', ['RDB101', 'RDB104', 'RDB202', 'RDB901'])
    """
    target = as_target(target)
    size = as_sku(sku, target)
    with opened(snapshot, damaged=True) as source:
        there = configured(target, size, clustered, databases)
        own = own_export(source, there)
        if own is None:
            return _check(source, there, False, size, deep, samples, now_ms, allow_base, progress)
        report = _check(source, own, True, size, deep, samples, now_ms, allow_base, progress)
        if not any(option.startswith(_EDITING) for option in report.options):
            return report
        if not source.can_reopen:
            report.not_looked_at.append(_LOST_BY_EDITS)
            return report
        with source.reopen() as source:  # what is edited is no export of its own any more
            return _check(source, there, False, size, deep, samples, now_ms, allow_base, progress)


def _check(
    snapshot: Snapshot,
    target: Target,
    is_own: bool,
    sku: Sku | None,
    deep: bool,
    samples: int,
    now_ms: int | None,
    allow_base: bool | None,
    progress: Callable[[int], object] | None,
) -> Check:
    rules = replace(_rules(snapshot, target, deep, now_ms), keeps_hints=is_own)
    job, damage = _examined(snapshot, rules, samples, progress)
    if isinstance(damage, ChecksumError) and not rules.deep:
        rules = replace(rules, deep=True)
        with snapshot.reopen() as snapshot:
            job, damage = _examined(snapshot, rules, samples, progress)
    dry_run = job.rewriter
    assert isinstance(dry_run, DryRun)
    found: list[Finding] = []
    found += _of_format(snapshot, target, dry_run)
    found += _of_content(snapshot, target, dry_run)
    found += _of_values(dry_run)
    found += _of_databases_without_keys(dry_run, target)
    moves, edits = _moves(dry_run, target)
    not_looked_at: list[str] = []
    if moves:
        found.append(_of_databases(dry_run, target, moves))
    if edits is not None and edits.collapse_dbs and damage is None:
        clashes = _of_names(snapshot, replace(rules, edits=edits), samples)
        if clashes is None:
            not_looked_at.append("whether keys of several databases have the same name, since the input cannot be read twice")
        else:
            found += clashes
    found += _of_file(snapshot, target, damage)
    found += _of_base(snapshot, allow_base)
    found += _of_room(snapshot, target, sku)
    occupied = _occupied(dry_run, damage)
    slots = ranges_of(occupied)
    if slots is not None:
        found.append(_of_shard(slots))
    found.sort(key=lambda f: (SEVERITIES.index(f.severity), f.code))
    verdict = _verdict(found, job)
    if not rules.deep and verdict != CANNOT:
        not_looked_at.append("the inside of values that are copied, which --deep opens")
    return Check(
        snapshot.name, target.name, target.title, str(snapshot.header), int(dry_run.records), int(dry_run.bytes), verdict,
        [] if verdict in (AS_IT_IS, CANNOT) else _options(snapshot, target, dry_run, found), found, _path(snapshot, found),
        not_looked_at, rules.deep, slots, occupied,
    )  # fmt: skip


def check_shards(reports: Iterable[Check]) -> list[Finding]:
    """Tell which shards of a cluster are missing among files that go into one target together, and which are there twice.

    A cluster is saved as a file a node, and each node has keys of its own hash slots. So where one was forgotten, a range of slots
    has no key. That is said only where each file is seen to be a shard, and chance cannot be the reason: of files with few keys
    and of servers that are no cluster there is nothing to say.

    Args:
        reports: of `check`, one for each file.

    Returns: findings: "RDB308" (a warning: slots without a key in any file) and "RDB310" (a note: slots with keys in several).

    >>> reports = [check(path, "azure-managed") for path in ("fixtures/rich/redis-7.0.15.rdb", "fixtures/rich/redis-6.2.16.rdb")]
    >>> check_shards(reports)
    []
    """
    return of_shards([(report.file, report.occupied) for report in reports if report.keys])


def expired_in(report: Check) -> int:
    """How many keys of a file have expired; those of a damaged one up to the damage."""
    return sum(found.keys for found in report.findings if found.code == _EXPIRED)


def that_expired(expired: int, keys: int) -> list[str]:
    """What is to be known of files that go into a cache, where so many of their keys have expired: a line, or none."""
    if not expired:
        return []
    verb = "has" if expired == 1 else "have"
    end = ": the import empties the cache" if expired == keys else ""
    return [f"{expired:,} of {count(keys, 'key')} {verb} expired, and a server drops such keys while it loads{end}"]


def of_shards(files: list[tuple[str, int]]) -> list[Finding]:
    """`check_shards` of files that have keys, by their names and the slots of these, each a bit."""
    found = []
    missing = missing_of([occupied for _, occupied in files])
    if missing and len(files) == 1:
        found.append(replace(_of_shard(ranges_of(files[0][1]) or []), code=_MISSING, severity=WARNING))
    elif missing:
        n = sum(last - first + 1 for first, last in missing)
        title = f"no key of slots {in_words(missing)} in any file: whole shards may be missing"
        found.append(Finding(_MISSING, WARNING, title, n, why=_ONE_FILE_A_NODE, source=_SLOTS, fix="name the files of all shards"))
    shared = shared_by(files)
    if shared:
        pairs = "; ".join(
            f"slots {in_words(ranges)} in both {valid_text(name)} and {valid_text(other)}"
            for name, other, ranges in shared[:_MOST_SHARED]
        )
        more = f"; and {len(shared) - _MOST_SHARED:,} more pairs" if len(shared) > _MOST_SHARED else ""
        n = sum(last - first + 1 for _, _, ranges in shared for first, last in ranges)
        why = "a shard was saved twice, as by its replica, or at another time, while slots went from one node to another"
        found.append(Finding("RDB310", NOTE, pairs + more, n, why=why, source=_SLOTS, fix="rdbkit check --duplicates"))
    return found


_MOST_SHARED: Final = 3
_EXPIRED: Final = "RDB303"
_SLOTS: Final = "keyHashSlot of src/cluster.c"
#: Keys for each slot that has some, where chance has reached nearly all slots of a shard (`free_stretches` has how many that are).
_KEYS_A_SLOT: Final = 2.2
_ONE_FILE_A_NODE: Final = "a cluster is saved as one file a node: the keys of a node whose file is not there would be lost"


def _occupied(dry_run: DryRun, damage: RdbError | None) -> int:
    """The hash slots that have keys, each a bit; 0 where they say nothing of a cluster."""
    if damage is not None and not isinstance(damage, ChecksumError):
        return 0  # what follows was not read
    slots = dry_run.slots
    # a cluster has database 0 alone, but for some of Valkey 9 and later, whose files name the slots
    if not slots.named and any(dry_run.databases_met):
        return 0
    occupied = slots.occupied()
    # of keys that reach one slot after the other, a few thousand leave whole halves free: binary numbers that count up do
    is_orderly = not slots.named and int(dry_run.records) < _KEYS_A_SLOT * occupied.bit_count()
    return 0 if is_orderly and free_stretches(occupied) else occupied


def _of_shard(ranges: list[tuple[int, int]]) -> Finding:
    """A file that is one shard of a cluster."""
    title = f"keys of slots {in_words(ranges)} alone: this is one shard of a cluster; migrate all of them together"
    n = sum(last - first + 1 for first, last in ranges)
    return Finding(ONE_SHARD, NOTE, title, n, why=_ONE_FILE_A_NODE, source=_SLOTS)


def _rules(snapshot: Snapshot, target: Target, deep: bool, now_ms: int | None) -> Rules:
    """Those of the conversion that is looked at: the one that keeps most."""
    header = target.header_for(snapshot.header)
    known = target.types_in(header)
    return Rules(
        target=target,
        source=snapshot.header,
        header=header,
        known=known,
        # of what can be kept in another form, that form is looked at, since the command that is printed keeps it
        policies=Policies(array="hash", module=None if target.exact and _MODULE in known else "json-as-string"),
        edits=Edits(),
        selection=None,
        now_ms=time.time_ns() // 1_000_000 if now_ms is None else now_ms,
        compress=False,
        skip=True,
        deep=deep or not snapshot.can_reopen or lacks_checksum(snapshot, snapshot.path),
        tolerated=tolerated(target),
    )


def _examined(
    snapshot: Snapshot, rules: Rules, samples: int, progress: Callable[[int], object] | None
) -> tuple[_Examination, RdbError | None]:
    """The conversion that only looks, and the damage that it met."""
    writer = create(Nowhere(), version=rules.header.version, flavour=rules.header.flavour)
    job = _Examination(snapshot, writer, rules, samples, progress)
    job.look_for_duplicates(snapshot.reopen if snapshot.can_reopen else None)
    with closing(job), writer:
        try:
            job.run(1)
        except LossError as e:
            if e.report is None:
                raise
        except NOT_READ:
            raise
        except RdbError as e:
            if e.rule == HELD:  # which says nothing of the file
                raise
            return job, e
    return job, job.report.checksum


def configured(target: Target, sku: Sku | None, clustered: bool, databases: int | None) -> Target:
    """The target as it stands there."""
    if sku is not None and sku.databases is not None:
        target = replace(target, databases=sku.databases)
    default = target.facts.get("default_databases")
    if databases is not None:
        target = replace(target, databases=databases)
    elif target.databases is None and default is not None:
        target = replace(target, databases=default.value)  # unless its configuration says more
    if clustered and target.clustered_databases is not None:
        target = replace(target, databases=target.clustered_databases, single_db=target.clustered_databases == 1)
    return target


def _samples(tally: Tally) -> list[Sample]:
    return [Sample(*sample) for sample in tally.samples]


def _of_format(snapshot: Snapshot, target: Target, dry_run: DryRun) -> list[Finding]:
    """Version, flavour and encodings."""
    header, wanted = snapshot.header, dry_run.rules.header
    found = _of_version(header, wanted, target, dry_run) if header != wanted else []
    found += _of_documents(wanted, target)
    return [*found, *_of_encodings(dry_run, _is_undocumented(header, target), target), *_of_hints(dry_run, target)]


def _of_version(header: Header, wanted: Header, target: Target, dry_run: DryRun) -> list[Finding]:
    """Why the file has to get another version."""
    fact = target.facts.get("rdb")
    source = _said(fact) if fact is not None else target.source
    refuses = f"{target.title} refuses the file at its first bytes"
    if header.flavour != wanted.flavour:
        code, title, why = "RDB102", f"{header} is {header.flavour.capitalize()}'s own version", refuses
    elif header.version in target.undocumented:
        if "field-expiry" in dry_run.tallies:
            return []  # the loss says what to do, and which other choice there is
        return [_undocumented(header, target, "rdbkit convert; or --undocumented, which takes it as it is")]
    elif target.exact:
        code, title, why = "RDB101", f"RDB {header.version}, not {wanted.version}", "another version was asked for"
    else:
        title = f"RDB {header.version} is newer than RDB {target.rdb}, the newest that it loads"
        code, why = "RDB101", refuses
    return [Finding(code, BLOCKER, title, why=why, source=source, fix="rdbkit convert")]


def _of_documents(header: Header, target: Target) -> list[Finding]:
    """That no document promises that a service loads a file with this header, although its engine does."""
    told = beyond_documents(target)
    if told:
        is_newer = header.flavour != REDIS or header.version > max(target.documented.values())
        why = "what the engine loads is taken for what the service loads; nobody promises that"
        return [Finding("RDB106", WARNING if is_newer else NOTE, told, why=why, source=_said(target.facts["rdb"]))]
    promised = target.promised
    if not target.takes_undocumented or promised is None or header.flavour != REDIS or header.version <= promised:
        return []
    return [_undocumented(header, target, "")]


def _undocumented(header: Header, target: Target, fix: str) -> Finding:
    """A version that the engine knows and the documents do not promise."""
    fact = target.facts.get("undocumented") or target.facts["rdb"]
    title = f"RDB {header.version}, where the documents promise RDB {target.promised or target.rdb} and below"
    why = f"the engine is known to load RDB {header.version}; what the documents do not promise can be refused any day"
    return Finding("RDB103", WARNING, title, why=why, source=_said(fact), fix=fix)


def beyond_documents(target: Target) -> str:
    """That a service's documents say nothing of the engine that runs there, and what is taken instead; empty where they do."""
    if not target.is_beyond_documents:
        return ""
    engine, known = release_title(release_line(target.engine or "")), release_title(target.release_line)
    loads = ", ".join([f"RDB {target.rdb}", *(f"VALKEY{version:03d}" for version in target.valkey)])
    it = "which itself" if target.knows_engine else f"which rdbkit does not know; {known}, the newest before it,"
    service = target.facts["title"].value
    return f"{service} documents no RDB version for {engine}, {it} loads {loads}"


def _is_undocumented(header: Header, target: Target) -> bool:
    """Whether a service does not promise a version that its engine knows."""
    return header.version in target.undocumented and header.flavour == target.header_for(header).flavour


def _of_encodings(dry_run: DryRun, undocumented: bool, target: Target) -> list[Finding]:
    """One finding for all encodings that the target does not know; what cannot be re-encoded is reported as a loss."""
    unknown = _unknown_encodings(dry_run, undocumented)
    if not unknown:
        return []
    tallies = [tally for _, tally in unknown]
    names = ", ".join(f"{value_type.name} {int(tally.keys):,}" for value_type, tally in unknown)
    keys = sum(int(tally.keys) for tally in tallies)
    # the engine of an undocumented version knows what belongs to that
    severity = WARNING if undocumented else BLOCKER
    which = f"beyond RDB {target.rdb}" if undocumented else "that it does not know"
    return [
        Finding(
            "RDB104", severity, f"{count(keys, 'key')} in encodings {which}: {names}", keys, keys,
            sum(int(tally.bytes) for tally in tallies),
            [sample for tally in tallies for sample in _samples(tally)][: int(dry_run.most)],
            "one unknown type makes a server refuse the whole file; the same data in another encoding loses nothing", _FORMAT,
            "rdbkit convert",
        )
    ]  # fmt: skip


def _of_hints(dry_run: DryRun, target: Target) -> list[Finding]:
    """Numbers that Redis Enterprise keeps beside keys."""
    kind = loss_kinds()["enterprise-hint"]
    if dry_run.rules.keeps_hints:
        n = int(dry_run.enterprise_hints)
        why = "it is an export of Redis Enterprise, which runs there: such files are ready for importing"
        return [Finding("RDB105", NOTE, kind.counted(n), n, why=why, source=_said(target.facts["takes_own_exports"]))]
    tally = dry_run.tallies.get("enterprise-hint")
    if tally is None:
        return []
    n = int(tally.count)
    if not target.redis_enterprise:
        title = f"{kind.counted(n)}, which it does not know"
        why, source = f"a server that does not know them refuses the whole file; {kind.why}", _FORMAT
        return [Finding("RDB105", BLOCKER, title, n, why=why, source=source, fix="rdbkit convert")]
    why = f"it runs Redis Enterprise, but no document says that an import takes what every version of it writes; {kind.why}"
    return [Finding("RDB105", WARNING, kind.counted(n), n, why=why, source=_source(target, kind.name), fix="rdbkit convert")]


def _unknown_encodings(dry_run: DryRun, undocumented: bool) -> list[tuple[ValueType, Tally]]:
    """The encodings that the target does not know and that can be re-encoded, with what was met of each."""
    leaves_expiring = undocumented and "field-expiry" in dry_run.tallies  # the loss speaks of those
    found = []
    for type_code, tally in enumerate(dry_run.encodings):
        if tally is None:
            continue
        value_type = dry_run.file_types.types[0 if type_code >= STRING_INT else type_code]
        if value_type.type in _REENCODED and not (leaves_expiring and dry_run.file_types.arities[type_code] == 3):
            found.append((value_type, tally))
    return found


def _of_content(snapshot: Snapshot, target: Target, dry_run: DryRun) -> list[Finding]:
    """Losses and notes of the conversion, and keys that have expired."""
    found = []
    for kind, tally in dry_run.tallies.items():
        rule = loss_kinds()[kind]
        if not rule.code:  # it has a finding of another function
            continue
        n = int(tally.count)
        title = rule.counted(n)
        why = rule.why
        if kind in ("module", "module-aux"):
            missing = [each for each in _met_of_modules(dry_run) if each.kind == kind and not each.is_there]
            title += f": {_in_words(missing)}"
            why = _why_not(why, missing, target)
        kept = how_to_keep(kind, target)
        if kept:
            why = f"{kept}; {why}"
            title += ", which --undocumented keeps"
        found.append(
            Finding(
                rule.code, rule.severity, title, n, int(tally.keys), int(tally.bytes),
                _samples(tally), why, _source(target, kind), _fix(kind, rule, dry_run),
            )
        )  # fmt: skip
    found += _of_modules(target, dry_run)
    expired = dry_run.expired
    if expired.keys:
        found.append(
            Finding(
                _EXPIRED, NOTE, f"{count(int(expired.keys), 'key')} expired already", int(expired.keys), int(expired.keys),
                int(expired.bytes), _samples(expired), "a server drops them while it loads", _FORMAT, "--drop-expired",
            )
        )  # fmt: skip
    return found


def _of_modules(target: Target, dry_run: DryRun) -> list[Finding]:
    """Modules that the target has to have been created with, and encodings of module values that are newer than any known."""
    there = [each for each in _met_of_modules(dry_run) if each.is_there]
    found = []
    offered = types_of(frozenset(target.optional_modules))
    to_choose = [each for each in there if each.name in offered]
    if to_choose:
        products = joined(each.name for each in to_choose)
        found.append(
            Finding(
                "RDB304", WARNING, f"{products} {'have' if ', ' in products else 'has'} to be chosen: {_in_words(to_choose)}",
                sum(each.n for each in to_choose),
                why="modules are chosen when the service is created, and never later; without them the import fails",
                source=_source(target, "module"), fix=f"create it with {products}",
            )
        )  # fmt: skip
    for each in there:
        known = module_type(each.name)
        if known is not None and known.newest is not None and each.version > known.newest:
            title = f"{described(each.name)} in encoding {each.version}, where {known.newest} is the newest that rdbkit knows of"
            why = "a module that is older than the one that wrote the file may refuse it, and with it the whole file"
            found.append(Finding("RDB307", WARNING, title, each.n, why=why, source=f"{known.source}, {known.date}"))
    return found


class _ModuleCount(NamedTuple):
    """How often a module type was met in one version of its encoding: in keys ("module"), or outside of keys ("module-aux")."""

    kind: str
    name: str
    version: int
    is_there: bool  # in the target
    n: int


def _met_of_modules(dry_run: DryRun) -> list[_ModuleCount]:
    counts = {"module": dry_run.counted.module_keys, "module-aux": dry_run.module_data}
    return sorted(_ModuleCount(kind, *met, n) for kind, each in counts.items() for met, n in each.items())


def _in_words(met: list[_ModuleCount]) -> str:
    return ", ".join(
        f"{described(each.name)} encoding {each.version} ({count(each.n, 'key') if each.kind == 'module' else 'outside of keys'})"
        for each in met
    )


def _why_not(why: str, missing: list[_ModuleCount], target: Target) -> str:
    """Why values of modules are lost, and when they are not."""
    known = sorted({product for each in missing if (product := module_product(each.name))})
    if target.is_service:
        offer = target.facts.get("optional_modules")
        offered = [product for product in known if offer is not None and product in (offer.value or ())]
        return f"{why}; one that is created with {', '.join(offered)} takes {'them' if offered[1:] else 'it'}" if offered else why
    if not target.takes_modules or not known:
        return why
    which = ",".join(known)
    return f"{why}; where yours has {', '.join(known)} loaded, --modules {shell_word(which)} says so, and nothing of it is lost"


def _fix(kind: str, rule: LossKind, dry_run: DryRun) -> str:
    """The options that allow a loss, in words that do not exclude those of other losses."""
    keeps_documents = dry_run.counted.documents > 0 or "json" in dry_run.tallies
    if not keeps_documents or kind not in ("module", "module-aux"):
        return rule.fix
    # documents become strings, and other data of modules is a matter of --on-loss then
    others = int(dry_run.tallies["module"].count - dry_run.counted.documents) if kind == "module" else 0
    if kind == "module-aux" or others == int(dry_run.tallies[kind].count):
        return "--on-loss drop"
    return _AS_STRINGS if others == 0 else f"{_AS_STRINGS} --on-loss drop"


def _of_values(dry_run: DryRun) -> list[Finding]:
    """Values that the target would refuse, one finding for each rule that they break."""
    found = []
    for name, (tally, message) in dry_run.damaged.items():
        rule = rules_of_values().get(name)
        found.append(
            Finding(
                "RDB407", BLOCKER, f"{count(int(tally.keys), 'damaged value')} ({rule.code if rule else 'RDB503'}): {message}",
                int(tally.count), int(tally.keys), int(tally.bytes), _samples(tally),
                "a server refuses the file, or breaks when it reads the key" + (f"; the rule: {rule.text}" if rule else ""),
                rule.source if rule else _FORMAT, "--on-duplicate last" if name == TWICE else "--on-error skip",
            )
        )  # fmt: skip
    libraries = int(dry_run.libraries)
    if libraries:
        title = f"{libraries:,} function {'library' if libraries == 1 else 'libraries'}, whose code is not compiled here"
        why = "a server that cannot compile one of them refuses the whole file"
        found.append(Finding("RDB910", NOTE, title, libraries, why=why, source=_FORMAT))
    return found


def _of_databases_without_keys(dry_run: DryRun, target: Target) -> list[Finding]:
    """A database that the file names, which has no keys, and which the target does not have: a server ends there all the same."""
    highest = int(dry_run.highest_db)
    if target.databases is None or target.single_db or highest < target.databases or dry_run.moving.keys:
        return []
    why = "a server ends where a file names a database that it does not have"
    title = f"database {highest} without keys, where {target.title} has {target.databases}"
    return [Finding("RDB305", BLOCKER, title, why=why, source=_source(target, "database"), fix="rdbkit convert")]


def _source(target: Target, kind: str) -> str:
    name = {
        "database": "single_db" if target.single_db else "databases",
        "oversize": "max_key_bytes",
        "enterprise-hint": "redis_enterprise",
    }
    name |= dict.fromkeys(("module", "module-aux"), "optional_modules")
    fact = target.facts.get(name.get(kind, ""))
    return _said(fact) if fact is not None else _FORMAT


def _said(fact: Fact) -> str:
    """Where a fact is from, and what to know about it."""
    inferred = "; inferred" if fact.inferred else ""
    note = f" ({fact.note})" if fact.note else ""
    return f"{fact.source}, {fact.date}{inferred}{note}" if fact.date else f"{fact.source}{inferred}{note}"


# -- databases


def _moves(dry_run: DryRun, target: Target) -> tuple[str, Edits | None]:
    """The option that moves all keys to databases that the target has, and what it means; nothing where they are in such."""
    if not dry_run.moving.keys:
        return "", None
    met = dry_run.databases_met
    if not target.single_db and target.databases is not None and len(met) < MOST_DATABASES:
        away = sorted(db for db in met if db >= target.databases)
        free = list(islice((db for db in range(target.databases) if db not in met), len(away)))
        if len(free) == len(away) <= _MOST_PAIRS:
            return f"--map-db {','.join(map('{}={}'.format, away, free))}", Edits(map_db=dict(zip(away, free, strict=True)))
    return "--collapse-dbs", Edits(collapse_dbs=True, on_conflict="rename")


def _of_databases(dry_run: DryRun, target: Target, fix: str) -> Finding:
    moving, rule = dry_run.moving, loss_kinds()["database"]
    n = int(moving.keys)
    return Finding(
        rule.code, rule.severity, rule.counted(n), n, n, int(moving.bytes), _samples(moving), rule.why,
        _source(target, "database"), fix,
    )  # fmt: skip


def _of_names(snapshot: Snapshot, rules: Rules, samples: int) -> list[Finding] | None:
    """Keys that would have one name in database 0; None where that cannot be found out."""
    if not snapshot.can_reopen:
        return None
    from rdbkit.operations.conflicts import find_clashes  # few files need it

    found = find_clashes(snapshot.reopen, rules, _PATTERNS, samples)
    if not found.keys:
        return []
    rule = loss_kinds()["conflict"]
    fix = rule.fix if found.pattern is None else f"--on-conflict {shell_word(f'rename={found.pattern}')}"
    title = rule.counted(found.keys)
    first = [Sample(*sample) for sample in found.samples]
    return [
        Finding(
            rule.code, rule.severity, title, found.keys, found.keys, samples=first, why=rule.why,
            source="each database has names of its own", fix=fix,
        )
    ]  # fmt: skip


def _of_file(snapshot: Snapshot, target: Target, damage: RdbError | None) -> list[Finding]:
    """Damage, checksum, and what is around the snapshot."""
    found = []
    if isinstance(damage, ChecksumError):
        found.append(
            Finding("RDB402", BLOCKER, damage.message, why="the file is not what was saved: a server stops", source=_FORMAT,
                    fix="fetch the file again")
        )  # fmt: skip
    elif damage is not None:
        found.append(_of_damage(snapshot, damage))
    checksum = snapshot.checksum.state if snapshot.checksum is not None else ""
    if checksum == "disabled":
        found.append(
            Finding("RDB403", WARNING, "no checksum (rdbchecksum no)", why="damage on the way would not be noticed", source=_FORMAT,
                    fix="CONFIG SET rdbchecksum yes, and save again")
        )  # fmt: skip
    packed = snapshot.compression
    if packed is not None and not target.takes_compressed(packed):
        why = f"that it takes {packed} is stated nowhere" if target.is_service else "a server loads no compressed file"
        found.append(Finding("RDB405", BLOCKER, f"compressed with {packed}", why=why, source=_FORMAT, fix="rdbkit convert"))
    if snapshot.ignored:
        found.append(
            Finding("RDB412", NOTE, f"{count(snapshot.ignored, 'byte')} behind the {packed} data, which are ignored",
                    why="what unpacks it ignores them", source=_FORMAT, fix="rdbkit convert")
        )  # fmt: skip
    if snapshot.framing is not None:
        found.append(
            Finding("RDB406", BLOCKER, "a replication capture, with the protocol around the snapshot",
                    why="a server loads the snapshot alone", source=_FORMAT, fix="rdbkit convert")
        )  # fmt: skip
    if snapshot.trailer is not None and snapshot.trailer.kind == "padding":
        found.append(
            Finding("RDB404", NOTE, f"{snapshot.trailer.size or 0} zero bytes behind the snapshot, as of a page blob",
                    why="loaders do not read them", source=_FORMAT)
        )  # fmt: skip
    return found


def _of_base(snapshot: Snapshot, allow: bool | None) -> list[Finding]:
    """That newer data stands beside the file, or that nobody can know whether it does."""
    base = snapshot.aof_base
    if base is None or not base.summary:
        return []
    severity = WARNING if base.newer else NOTE
    if not allow and (base.newer or allow is False):
        severity = LOSS
    fix = _BASE_FIX if base.newer else "rdbkit fold where the folder is"
    why = "what was written after the base is in the other files of the folder alone"
    return [Finding(_BASE, severity, base.summary, len(base.newer) or 1, why=why, source="src/aof.c since Redis 7.0", fix=fix)]


def _path(snapshot: Snapshot, found: list[Finding]) -> str | None:
    """The path for `Check.command`: the whole folder instead of a base that is not enough."""
    path = snapshot.path
    if path is not None and any(f.code == _BASE and f.severity == LOSS and f.fix == _BASE_FIX for f in found):
        return os.path.dirname(path) or os.path.abspath(os.curdir)
    return path


def _of_damage(snapshot: Snapshot, damage: RdbError) -> Finding:
    """What is met where a file cannot be read on: damage, or what rdbkit does not know, as far as the checksum tells them apart."""
    at = [] if damage.offset is None else [Sample(damage.db or 0, damage.key or b"", damage.offset)]
    if isinstance(damage, UnsupportedTypeError):
        intact = snapshot.fits_checksum()
        if intact is not False:
            title = f"written by a server, or with a feature, that rdbkit does not know: {damage.what}"
            told = "its checksum fits, so it is no damage" if intact else "no checksum tells whether it is damage"
            why = f"its length is not known, and so neither is what follows; {told}"
            return Finding("RDB411", BLOCKER, title, samples=at, why=why, source=_FORMAT, fix=damage.remedy)
    return Finding(
        "RDB401", BLOCKER, f"damaged: {damage.message}", samples=at, why="a server stops at the first damage", source=_FORMAT,
        fix="fetch or save the file again",
    )  # fmt: skip


def _of_room(snapshot: Snapshot, target: Target, sku: Sku | None) -> list[Finding]:
    """Memory, by what the server that wrote the file had in use."""
    used = aux_number(snapshot.aux.get("used-mem"))
    if sku is None:
        return []
    if used is None:
        why = "the file does not say how much memory its data took; a file is often half as large as its data in memory"
        return [Finding("RDB502", WARNING, f"whether it fits into {sku.name} is not known", why=why, fix="rdbkit plan")]
    usable = int(sku.usable_gb * _GB)
    said = f"{used / _GB:.2f} GB in use where it was saved, {sku.usable_gb:g} GB usable in {sku.name}"
    fact = target.facts.get("skus")
    source = _said(fact) if fact is not None else target.source
    if used > usable:
        larger = [s.name for s in target.skus if s.usable_gb * _GB >= used]
        fix = f"a larger size: {', '.join(larger[:3])}" if larger else "a larger size, or fewer keys"
        why = "what an import does with more data than there is room for is documented nowhere"
        return [Finding("RDB501", BLOCKER, f"too large: {said}", bytes=used, why=why, source=source, fix=fix)]
    if used > usable * _TIGHT:
        return [Finding("RDB503", WARNING, f"tight: {said}", bytes=used, why="little is left to grow", source=source)]
    return [Finding("RDB504", NOTE, f"fits: {said}", bytes=used, source=source)]


#: The base of an append-only folder, and what helps where the folder is there.
_BASE: Final = "RDB413"
_BASE_FIX: Final = "name the folder instead of FILE"
#: Findings that no conversion mends.
_HOPELESS: Final = ("RDB401", "RDB402", "RDB411", "RDB501")
#: Blockers that a conversion mends only with a loss.
_LOSSY: Final = ("RDB407", "RDB408")


def _verdict(found: list[Finding], job: Job) -> str:
    if any(f.code in _HOPELESS for f in found):
        return CANNOT
    if any(f.severity == LOSS or (f.severity == BLOCKER and f.code in _LOSSY) for f in found):
        return LOSSY
    blocked = any(f.severity == BLOCKER for f in found) or job.rewriter.changed or job.rules.header != job.rules.source
    return LOSSLESS if blocked else AS_IT_IS


def _options(snapshot: Snapshot, target: Target, dry_run: DryRun, found: list[Finding]) -> list[str]:
    """Those of `rdbkit convert`: what the target is, how the file is read, and what helps against each finding."""
    has_modules = bool(dry_run.counted.module_keys or dry_run.module_data)
    options = [" ".join([name, *map(shell_word, values)]) for name, *values in target.options if name != "--modules" or has_modules]
    if snapshot.needs_relaxed:
        options.append("--relaxed")
    if dry_run.rules.deep and dry_run.damaged:
        options.append("--deep")
    for finding in found:
        if finding.severity in (BLOCKER, LOSS) and finding.fix.startswith("--"):
            options += [option for option in _OPTION.split(finding.fix) if option not in options]
    return options

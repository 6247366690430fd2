"""`rdbkit copy`: the keys of a running server or of snapshots, on their way to a running server."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Final, cast

from rdbkit.errors import RdbError, TargetError
from rdbkit.live.abilities import Abilities, Ability, Row, abilities
from rdbkit.live.copy_files import check_files, copy_files, load_scripts
from rdbkit.live.copy_sample import Sample, sample
from rdbkit.live.copy_state import CopyState, Trouble
from rdbkit.live.databases import databases_of, keys_of
from rdbkit.live.first_pass import FirstPass, SharedLedger
from rdbkit.live.follow import Follow, Followed, Follower
from rdbkit.live.foreign_writes import ForeignWrites
from rdbkit.live.functions import CopiedFunctions, Libraries, copy_functions, libraries_of
from rdbkit.live.loads import loads
from rdbkit.live.mover import Mover
from rdbkit.live.pace import Pace, batch_at, check_rate
from rdbkit.live.parts import PartNames, delete_left
from rdbkit.live.processes import clock_skew, same_data
from rdbkit.live.server import Server, connected, info_number
from rdbkit.live.target_watch import TargetWatch
from rdbkit.live.transfer import Counts, Way
from rdbkit.live.verification import evicted_keys
from rdbkit.operations.arguments import File, paths_of
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.policy.ledger import Ledger, Loss
from rdbkit.policy.rules import FAIL, Edits, Policies
from rdbkit.resp import command
from rdbkit.selection import Selection
from rdbkit.storage.location import total_size
from rdbkit.storage.rate_limiter import RateLimiter
from rdbkit.storage.remote import is_server_url
from rdbkit.targets.target import Target, as_target
from rdbkit.text import count, json_bytes, valid_text

__all__ = ["BIG", "Copied", "Preparation", "Progress", "Side", "copy"]

#: Bytes above which a value is not read by one request.
BIG: Final = 32 << 20
#: Clocks that are further apart are told of, in milliseconds.
_SKEW_MS: Final = 1000
_ON_EXISTS: Final = ("fail", "skip", "replace")
_TTL: Final = ("absolute", "relative")
WRITE_BY: Final = ("auto", "restore", "commands")
#: What is told of a key, and is no trouble.
_FINE: Final = ("equal", "gone")


@dataclass(frozen=True)
class Side:
    """What is copied from or to.

    Attributes:
        server: its URL without secrets; or the names of files.
        version: what it calls itself; None where it does not tell.
        kind: "standalone" or "cluster"; "files".
        nodes: how many have keys; of files, how many they are.
        keys: that it counts in the databases that are copied; None where it does not tell.
        memory: bytes that it uses; None where it does not tell. Of files, their sizes.
        abilities: what its login may do; None for files.
        rows: the same as a table.
    """

    server: str
    version: str | None
    kind: str
    nodes: int
    keys: int | None
    memory: int | None
    abilities: Abilities | None
    rows: list[Row]


@dataclass(frozen=True)
class Preparation:
    """What is known before anything is written.

    Attributes:
        source, target: the servers.
        takes: what the target loads, for humans.
        databases: of the source.
        skew_ms: how far the target's clock is ahead of the source's.
        notes: what should be known before.
    """

    source: Side
    target: Side
    takes: Target
    databases: list[int]
    skew_ms: int
    notes: list[str]


@dataclass(frozen=True)
class Progress:
    """How far a copy is.

    Attributes:
        keys: that were read.
        total: keys that there were at first; None where that is not known.
        value_bytes: of the values read.
        share: how much of the work is done, where that is known better than by keys.
        earlier: those of the keys that earlier runs had read.
    """

    keys: int
    total: int | None
    value_bytes: int
    share: float | None = None
    earlier: int = 0


@dataclass
class Copied:
    """What a copy did.

    Attributes:
        prepared: what was known before.
        on_exists: "fail", "skip" or "replace".
        counts: what became of the keys.
        ledger: what the target does not support, and was left out.
        functions: what became of function libraries.
        samples: the first keys that are not on the target as they are on the source.
        notes: what should be known besides.
        libraries, scripts: sources of the function libraries and Lua scripts that the target does not have, and, with the policy
            "extract", of all.
        damaged: what was wrong with values of files that were left out for that.
        unread: slots of a cluster that moved each time that they were read.
        evicted: keys that the target has evicted meanwhile, since its memory is full; copied ones may be among them.
        sample: what was found of some keys, where nothing was written since only that was asked for.
        resumed: an earlier run had begun it.
        earlier: keys that earlier runs had read; `counts` has what became of them, too.
        seconds: how long this run took.
        followed: how the source was followed; None where it was not.
    """

    prepared: Preparation
    on_exists: str = FAIL
    counts: Counts = field(default_factory=Counts)
    ledger: Ledger = field(default_factory=Ledger)
    functions: CopiedFunctions = field(default_factory=CopiedFunctions)
    samples: list[Trouble] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    libraries: list[bytes] = field(default_factory=list)
    scripts: list[bytes] = field(default_factory=list)
    damaged: list[RdbError] = field(default_factory=list)
    unread: int = 0
    evicted: int = 0
    sample: Sample | None = None
    resumed: bool = False
    earlier: int = 0
    seconds: float = 0.0
    followed: Followed | None = None

    @property
    def missing(self) -> int:
        """Keys of the source that are not on the target, or with another value that nobody asked to keep."""
        counts = self.counts
        return counts.lost + counts.refused + counts.changed + counts.existing * (self.on_exists == FAIL)

    @property
    def complete(self) -> bool:
        """Whether the target has all that it should have."""
        functions = self.functions
        found = self.sample
        if found is not None:
            return not (found.lost or self.ledger.forbidden or (found.existing and self.on_exists == FAIL))
        lost = self.missing or self.evicted or self.ledger.forbidden or self.unread
        is_behind = self.followed is not None and not self.followed.drained
        return not (lost or is_behind or functions.refused or (functions.different and self.on_exists == FAIL))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; keys that are not UTF-8 as `{"base64": ...}`."""
        prepared, ledger = self.prepared, self.ledger
        return {
            "source": _side(prepared.source),
            "target": _side(prepared.target) | {"takes": prepared.takes.name},
            "complete": self.complete,
            "keys": vars(self.counts),
            "lost": ledger.counts,
            "losses": [loss.to_dict() for loss in ledger.losses],
            "evicted": self.evicted,
            "damaged": [valid_text(str(error)) for error in self.damaged],
            "notes": self.notes,
            "functions": {
                "written": self.functions.written,
                "equal": self.functions.equal,
                "different": self.functions.different,
                "refused": self.functions.refused,
            },
            "samples": [{"db": e.db, "key": json_bytes(e.key), "what": e.what, "detail": e.detail} for e in self.samples],
            "sample": None
            if self.sample is None
            else vars(self.sample) | {"names": [json_bytes(key) for _, key in self.sample.names]},
            "resumed": self.resumed,
            "earlier": self.earlier,
            "seconds": round(self.seconds, 3),
            **({} if self.followed is None else {"followed": vars(self.followed)}),
        }


def _side(side: Side) -> dict[str, Any]:
    return {"server": side.server, "version": side.version, "kind": side.kind, "nodes": side.nodes, "keys": side.keys}


def copy(
    source: str | Server | File | Iterable[File],
    target: str | Server,
    *,
    takes: Target | str | None = None,
    policies: Policies | None = None,
    edits: Edits | None = None,
    selection: Selection | None = None,
    compress: bool = False,
    jobs: int = 1,
    on_error: str | None = None,
    relaxed: bool = False,
    verify_checksum: bool = True,
    on_exists: str = FAIL,
    ttl: str = "absolute",
    functions: bool = True,
    batch: int = 1000,
    rate: float | None = None,
    cap_mbps: float | None = None,
    max_latency_ms: float | None = 2.0,
    big: int = BIG,
    write_by: str = "auto",
    state: str | None = None,
    follow: Follow | None = None,
    dry_run: bool = False,
    samples: int = 10,
    loss_callback: Callable[[Loss], object] | None = None,
    prepared: Callable[[Preparation], object] | None = None,
    progress: Callable[[Progress], object] | None = None,
) -> Copied:
    """Copy the keys of a running server or of snapshots into a running server, whatever their versions.

    The source is only read, each key with its value and expiry of one moment. A key that the target has already is left alone
    unless `on_exists` is "replace". What the target does not know is converted as `convert` does it; a key of a server that would
    lose what no policy allows is not written, and the report has it. Of files nothing is written then.

    Args:
        source: the URL of a server, `redis://USER:PASSWORD@HOST:PORT/N`, or rediss:// for TLS; or as `connect` gives it, which
            takes more. With a database in its URL, that one is copied. Or a path of a snapshot, or several, which are read twice.
        target: a server, as the source. With a database in its URL it gets the keys into that one.
        takes: what the target loads, as of `convert`; by default the target is asked.
        policies, edits, selection, compress: as of `convert`. Of a server, names that meet are not looked for: the second one is a
            key that exists.
        jobs, relaxed, verify_checksum: of files, as of `convert`.
        on_error: "skip" leaves values out that are damaged, or that the target would refuse; "stop" raises. By default the first
            for a server, and the second for files.
        on_exists: what to do with a key that the target has with another value: "fail" and "skip" leave it alone, and "replace"
            replaces it. With "fail" such keys are missing in the report.
        ttl: "absolute" keeps the time at which keys expire, "relative" the time that they have left, where clocks differ.
        functions: copy function libraries, too.
        batch: keys to ask for at a time, about.
        rate: keys a second at most.
        cap_mbps: megabits of values a second at most.
        max_latency_ms: how much longer than before the source may take to answer others, in milliseconds; fewer keys are asked for
            at a time until it does. None for whatever it takes.
        big: bytes above which a value is not read by one request; 0 to look at none.
        write_by: "restore", "commands" of each type, which take longer, or "auto": RESTORE where the login may use it.
        state: a file to keep, every two seconds, how far the copy is. Where it is there, the copy goes on from it; at the end it is
            removed. A copy that follows keeps it, since it says which keys of the target are its own.
        follow: to go on with what changes on the source, and until when. Then `max_latency_ms`, `rate` and `cap_mbps` play no part.
        dry_run: write nothing, and find out what a copy would meet, of a server by some of its keys: see `Copied.sample`.
        samples: how many of the keys to name that are not on the target as they are on the source.
        loss_callback: called with each loss as it is found, by several threads.
        prepared: called once before anything is written; what it raises ends the copy.
        progress: called now and then.

    Raises: ValueError for arguments that do not go together, and for a state of another copy; TargetError where a server cannot be
        reached, may not be read or written, or fails for long; LossError where files would lose something, with what was found as
        its `report`, before anything is written; RdbError where a file is damaged; OSError.

    Example:
        done = rdbkit.copy("redis://old:6379", "rediss://:PASSWORD@new:10000", state="copy.state")
        print(done.complete, done.counts.written, done.counts.existing)
    """
    if on_exists not in _ON_EXISTS:
        raise ValueError(f"on_exists is {', '.join(_ON_EXISTS)}, not {on_exists!r}")
    if ttl not in _TTL:
        raise ValueError(f"ttl is {' or '.join(_TTL)}, not {ttl!r}")
    if write_by not in WRITE_BY:
        raise ValueError(f"write_by is {', '.join(WRITE_BY)}, not {write_by!r}")
    check_rate(rate)
    if follow is not None and edits is not None and edits.script is not None:
        raise ValueError("a script does not go with following: what it would call a key that is gone cannot be known")
    is_server = isinstance(source, Server) or (isinstance(source, str) and is_server_url(source))
    conversion = ConversionOptions(
        policies or Policies(), edits or Edits(), selection or None, compress, jobs, on_error or ("skip" if is_server else "stop"),
        relaxed, verify_checksum, time.time_ns() // 1_000_000,
    )  # fmt: skip
    begun = time.monotonic()
    with ExitStack() as stack:
        new = stack.enter_context(connected(target))
        loaded = None if takes is None else as_target(takes)
        old: Server | list[str]
        if is_server:
            _check_edits(conversion.edits, on_exists)
            old = stack.enter_context(connected(cast("str | Server", source)))
            preparation = prepare(old, new, loaded, write_by)
        else:
            if follow is not None:
                raise ValueError("files do not change: only a server can be followed")
            old = paths_of(cast("File | Iterable[File]", source))
            if ttl != "absolute":
                raise ValueError("a file does not say when its keys were read: their expiries are absolute")
            if write_by == "commands":
                raise ValueError("files are written by RESTORE")
            preparation = prepare_files(old, new, loaded)
        terms = f"{conversion.terms} {on_exists} {ttl} {functions} {preparation.takes.name}{'' if follow is None else ' follow'}"
        conversion = replace(conversion, edits=_edits(conversion, preparation, new.url.db, ttl))
        if dry_run:
            state = None
        places = {"source": _place(old), "target": _place(new)}
        kept = stack.enter_context(CopyState(state, places, terms))
        if prepared is not None:
            prepared(preparation)
        pace = Pace(
            batch_at(rate, batch), big, RateLimiter(rate),
            RateLimiter(None if cap_mbps is None else cap_mbps * 125_000), max_latency_ms,
        )  # fmt: skip
        work = _Copy(old, new, preparation, conversion, on_exists, pace, kept, loss_callback)
        if dry_run:
            work.look(functions, samples)
        else:
            work.run(functions, progress, follow)
        done = work.report(samples)
        done.seconds = time.monotonic() - begun
        if follow is None or dry_run:
            kept.remove()
    return done


_LOOKED_AGAIN: Final = "the target restarted, failed over, was flushed or lost keys meanwhile: all keys were compared again"


class _Copy:
    def __init__(
        self,
        source: Server | list[str],
        target: Server,
        preparation: Preparation,
        conversion: ConversionOptions,
        on_exists: str,
        pace: Pace,
        state: CopyState,
        loss_callback: Callable[[Loss], object] | None,
    ) -> None:
        self.source = source
        self.target = target
        self.preparation = preparation
        self.conversion = conversion
        self.on_exists = on_exists
        self.pace = pace
        self.state = state
        self.ledger = SharedLedger(loss_callback)
        self.done = Copied(preparation, on_exists, ledger=self.ledger, resumed=state.is_resumed)
        self.evicted = evicted_keys(target)

    def run(self, functions: bool, progress: Callable[[Progress], object] | None, follow: Follow | None) -> None:
        """Copy function libraries, if they are wanted, and then the keys."""
        if isinstance(self.source, list):
            self.copy_files(self.source, functions, progress)
            return
        if functions:
            self.copy_functions(self.source)
        if follow is None:
            self.copy_keys(self.source, progress)
        else:
            self.follow(self.source, follow)

    def look(self, functions: bool, samples: int) -> None:
        """Find out what a copy would meet, without writing anything."""
        takes = self.preparation.takes
        if isinstance(self.source, list):
            found = check_files(self.source, takes, self.conversion, self.ledger)
            self.done.sample = Sample(sum(report.keys for report in found.reports))
            return
        if functions:
            self.loses_functions(libraries_of(self.source))
        self.done.sample = sample(
            self.way(self.source, reads_only=True), self.preparation.databases, self.pace.big, self.ledger, samples
        )

    def copy_files(self, files: list[str], functions: bool, progress: Callable[[Progress], object] | None) -> None:
        """Read files twice: to find what would be lost, and to write them."""
        size = self.preparation.source.memory or 1
        earlier = self.state.fact("counts")
        counts = self.done.counts = Counts(**(earlier or {}))
        self.done.earlier = counts.read

        def tell(share: float) -> None:
            if progress is not None:
                progress(Progress(counts.read, None, counts.value_bytes, share, self.done.earlier))

        found = check_files(files, self.preparation.takes, self.conversion, self.ledger, lambda at: tell(0.3 * at / size))
        self.done.libraries = [source for report in found.reports for source in report.functions]
        self.done.scripts = [body for report in found.reports for body in report.scripts]
        self.done.damaged = [error for report in found.reports for error in report.skipped]
        if functions:
            self.done.functions = copy_functions(found.libraries, self.target, replace=self.on_exists == "replace")
        load_scripts(self.target, found.scripts)
        watch = TargetWatch(self.target, self.state)

        def begin_anew() -> None:
            vars(counts).update(vars(Counts()))
            self.done.earlier = 0

        if watch.begins_anew(counts.written):
            begin_anew()
        while True:
            copy_files(
                files, self.target, self.preparation.takes, self.conversion, replace=self.on_exists == "replace", told=self.tell,
                state=self.state, pace=self.pace, counts=counts, names=self.parts if self.pace.big else None,
                progress=lambda at: tell(0.3 + 0.7 * at / size),
            )  # fmt: skip
            if not watch.has_lost():
                break
            self.state.forget_lanes()
            begin_anew()
        if watch.losses:
            self.done.notes.append(_LOOKED_AGAIN)
        delete_left(self.target, self.state)

    def copy_functions(self, source: Server) -> None:
        """Copy function libraries; those that the target has no place for are losses."""
        found = libraries_of(source)
        notes = self.done.notes
        if found.refusal is not None:
            notes.append(f"function libraries were not copied: {found.refusal}")
        if found.differing:
            names = ", ".join(found.differing)
            notes.append(f"function libraries differ between nodes of the source, and one version of each was copied: {names}")
        if not self.loses_functions(found):
            self.done.functions = copy_functions(found.sources, self.target, replace=self.on_exists == "replace")

    def loses_functions(self, found: Libraries) -> bool:
        """Whether the target has no functions, so that libraries are lost."""
        policy = self.conversion.policies.chosen("function")
        lacks = self.preparation.takes.rdb < 10
        if lacks or policy == "extract":
            self.done.libraries = list(found.sources.values())
        for name in found.sources if lacks else ():
            self.ledger.add(Loss("function", f"function library {name!r}", 1, None, None), policy == FAIL)
        return lacks

    def copy_keys(self, source: Server, progress: Callable[[Progress], object] | None) -> None:
        """Read all keys of a server, and write them."""
        way = self.way(source)
        earlier = self.state.fact("counts")
        reader = FirstPass(
            way, self.ledger, self.tell, self.state, self.pace, self.preparation.databases,
            None if earlier is None else Counts(**earlier),
        )  # fmt: skip

        def tick() -> None:
            if progress is not None:
                counts = reader.counts
                progress(Progress(counts.read, self.preparation.source.keys, counts.value_bytes, earlier=reader.earlier))

        self.done.counts = reader.run(tick)
        self.done.earlier = reader.earlier
        tick()
        delete_left(self.target, self.state)
        listed, at_first = self.done.counts.read, self.preparation.source.keys or 0
        if listed < at_first:
            self.done.notes.append(
                f"the source had {count(at_first, 'key')} at first and listed {listed:,}: the others expired, were deleted, or "
                "were lost in a restart"
            )
        if reader.losses:
            self.done.notes.append(_LOOKED_AGAIN)
        if reader.unread:
            self.done.notes.append(
                f"{count(reader.unread, 'slot')} of the source moved again and again while they were read: keys may be missing"
            )
            self.done.unread = reader.unread

    def follow(self, source: Server, follow: Follow) -> None:
        """Copy all keys of a server, and go on with those that change."""
        way = self.way(source)
        foreign = None if way.by_commands else ForeignWrites(self.target)
        mover = Mover(way, self.ledger, None if foreign is None else foreign.opened, self.pace.big)
        try:
            follower = Follower(
                source, self.target, mover, self.state, edits=self.conversion.edits, changes=follow.changes, foreign=foreign,
                on_exists=self.on_exists, settle_s=follow.settle_s, quiet_s=follow.quiet_s, told=follow.told,
            )  # fmt: skip
            if follow.begun is not None:
                follow.begun(follower)
            found = self.done.followed = follower.run(follow.until)
            self.done.counts = mover.counts
        finally:
            mover.close()
        self.done.counts.written = found.written
        self.done.counts.equal = found.equal
        delete_left(self.target, self.state)
        if found.equal:
            self.done.notes.append(
                f"the target already had {count(found.equal, 'key')} with the same value: when the source changes one of them, it "
                "is listed and not replaced, unless on-exists is replace"
            )
        for way_name, why in follower.changes.why.items():
            self.done.notes.append(f"changes were not followed by {way_name}: {why}")
        if foreign is None or foreign.why_not is not None:
            unseen = "its keys are written by commands" if foreign is None else foreign.why_not
            self.done.notes.append(f"what others wrote on the target meanwhile was not seen: {unseen}")
        elif found.gaps:
            self.done.notes.append(
                f"connections to the target were lost, or it was flushed ({count(found.gaps, 'time')}): what others wrote there "
                "meanwhile may have been overwritten"
            )

    def way(self, source: Server, reads_only: bool = False) -> Way:
        """How keys come to the target; `reads_only`: as far as can be told without writing anything."""
        preparation = self.preparation
        old, new = preparation.source.abilities, preparation.target.abilities
        assert old is not None
        assert new is not None
        return Way(
            source, self.target, preparation.takes, self.conversion, old.layout(source), self.on_exists,
            None if reads_only else self.parts, by_commands=new.write.use == "commands" and not reads_only,
            without_dump=old.value.use == "commands",
        )  # fmt: skip

    @cached_property
    def parts(self) -> PartNames | None:
        """Where values are written in parts, what these are called; those that an earlier run has left are deleted."""
        found = self.preparation.target.abilities
        if found is None or found.rename.use is None:
            return None
        delete_left(self.target, self.state)
        return PartNames(secrets.token_hex(6), self.state)

    def tell(self, db: int, key: bytes, what: str, detail: str) -> None:
        """A key that was not simply written."""
        if what not in _FINE:
            self.state.add_trouble(Trouble(db, key, what, detail))

    def report(self, samples: int) -> Copied:
        """What was done."""
        done = self.done
        # a key that SCAN told twice is one
        troubles = self.state.trouble_counts()
        done.counts.existing, done.counts.refused = troubles.get("exists", 0), troubles.get("refused", 0)
        done.counts.changed = troubles.get("changed", 0)
        done.samples = self.state.trouble(samples)
        done.notes = [*self.preparation.notes, *done.notes]
        done.evicted = max(0, evicted_keys(self.target) - self.evicted)
        return done


# -- before anything is written


def prepare(source: Server, target: Server, takes: Target | None, write_by: str) -> Preparation:
    """What is known of two servers before anything is written.

    Args:
        takes: what the target loads; None to ask it.
        write_by: as of `copy`.

    Raises: ValueError where they are the same; TargetError where a server cannot be reached, or may not be read or written.
    """
    old, new = abilities(source), abilities(target)
    if old.value.use is None:
        raise TargetError(f"cannot read its values: {old.value.why}", source=str(source.url))
    new = writing(target, new, write_by)
    _refuse_the_same(source, target)
    databases = databases_of(source)
    skew = clock_skew(source, target)
    skew_ms = 0 if skew is None else round(skew.ms)
    return Preparation(
        _about(source, old, databases, "source"),
        _about(target, new, databases_of(target), "target"),
        loads(target) if takes is None else takes,
        databases,
        skew_ms,
        list(_notes(target, old, skew_ms)),
    )


def writing(target: Server, found: Abilities, write_by: str) -> Abilities:
    """The abilities of a target, with how it is to be written to.

    Raises: TargetError where that cannot be.
    """
    if found.write.use is None or (write_by == "restore" and found.write.use != "restore"):
        raise TargetError(f"cannot write to it: {found.write.why}", source=str(target.url))
    if write_by == "commands" and found.rename.use is None:
        raise TargetError(f"cannot write to it by commands: {found.rename.why}", source=str(target.url))
    if write_by == "auto" or found.write.use == write_by:
        return found
    return replace(found, write=Ability(write_by))


def prepare_files(files: list[str], target: Server, takes: Target | None) -> Preparation:
    """What is known of files and a server before anything is written.

    Raises: as `prepare`; OSError.
    """
    found = abilities(target)
    if found.write.use != "restore":
        raise TargetError(f"cannot write to it: {found.write.why}", source=str(target.url))
    return Preparation(
        Side(", ".join(files), None, "files", len(files), None, total_size(files), None, []),
        _about(target, found, databases_of(target), "target"),
        loads(target) if takes is None else takes,
        [],
        0,
        list(_notes(target, None, 0)),
    )


def _notes(target: Server, old: Abilities | None, skew_ms: int) -> Iterator[str]:
    if abs(skew_ms) > _SKEW_MS:
        ahead = "ahead of" if skew_ms > 0 else "behind"
        yield f"the target's clock is {abs(skew_ms) / 1000:,.1f} s {ahead} the source's, and keys expire by the target's clock"
    if old is not None and old.moment.use is None:
        yield f"a key that changes while it is read may get a value and an expiry of different moments: {old.moment.why}"
    if old is not None and old.touch.use is None:
        yield "reading counts as use on the source, which matters if it evicts by LRU or LFU (CLIENT NO-TOUCH is not available)"
    replies = [reply for (reply,) in target.ask_each_node(0, [command(b"INFO", b"memory")])]
    policies = {found[1].decode() for reply in replies if isinstance(reply, bytes) and (found := _POLICY.search(reply))}
    if info_number(replies, "maxmemory") and policies - {"noeviction"}:
        yield f"the target evicts keys when its memory is full (maxmemory-policy {', '.join(sorted(policies))})"


_POLICY: Final = re.compile(rb"maxmemory_policy:([a-z-]+)")


def _about(server: Server, found: Abilities, databases: list[int], side: Any) -> Side:
    memory = info_number([reply for (reply,) in server.ask_each_node(0, [command(b"INFO", b"memory")])], "used_memory")
    return Side(
        str(server.url), server.version, server.kind, len(server.masters()), keys_of(server, databases), memory or None, found,
        found.rows(server, side),
    )  # fmt: skip


def _refuse_the_same(source: Server, target: Server) -> None:
    """Raise ValueError where two servers are one, or replicas, and so are their databases."""
    old, new = source.url.db, target.url.db
    if (old is None or new is None or old == new) and same_data(source, target):
        raise ValueError(f"source and target are the same server, or one is a replica of the other: {source.url}")


def _check_edits(edits: Edits, on_exists: str) -> None:
    """Raise ValueError for edits by which one key of the source would replace another."""
    if edits.on_conflict != FAIL or edits.on_duplicate != FAIL:
        raise ValueError("a running server lists its keys in no order: which of two comes first is not known")
    if on_exists == "replace" and edits.moves_keys:
        raise ValueError("keys that get the same name would replace each other: leave out replace, or what renames or moves keys")


def _edits(conversion: ConversionOptions, preparation: Preparation, db: int | None, ttl: str) -> Edits:
    """The edits, with the database that the target's URL names, and the time by which its clock is ahead."""
    edits = conversion.edits
    if db is not None:
        if preparation.source.kind == "files":
            raise ValueError("the target's URL names a database, and files name their own: leave it out, and map databases")
        if edits.map_db:
            raise ValueError("the target's URL names a database, and so does map_db: leave one of them out")
        homes = {edits.db_of(each) for each in preparation.databases}
        if len(homes) > 1:
            raise ValueError("the target's URL names a database, and the source has keys in several: name one in its URL, too")
        edits = replace(edits, map_db=dict.fromkeys(preparation.databases, db), collapse_dbs=False)
    if ttl == "relative" and edits.set_ttl_ms is None:
        edits = replace(edits, shift_ttl_ms=edits.shift_ttl_ms + preparation.skew_ms)
    if preparation.source.kind == "files" and conversion.keeps_expiries:
        edits = replace(edits, drop_expired=True)  # a server drops them at once, or at the next look
    return edits


def _place(server: Server | list[str]) -> str:
    """A server or files in a state, without a login."""
    if isinstance(server, list):
        return ", ".join(server)
    url = server.url
    return f"{url.host}:{url.port}{'' if url.db is None else f'/{url.db}'}"

"""A target that follows its source: what changes there is copied again, until it is told to stop.

A change is only a mark: the key is read after its mark was taken out, and written as it is then. So it does not matter which
command has changed it, nor how often; and the last change of a key is copied, because its mark comes behind it. All keys go
through one thread, so that no older value of a key is written after a newer one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, TypeAlias

from rdbkit.errors import TargetError
from rdbkit.format.replies import Refusal
from rdbkit.format.slots import key_slot
from rdbkit.live.changes import Bell, Changes, Kind
from rdbkit.live.connection import Address
from rdbkit.live.copy_state import CopyState, Trouble, stable_hash
from rdbkit.live.databases import databases_of
from rdbkit.live.foreign_writes import ForeignWrites
from rdbkit.live.processes import run_ids
from rdbkit.live.server import Server
from rdbkit.passes.changed_names import ANY_DB
from rdbkit.policy.rules import Edits
from rdbkit.resp import command

__all__ = ["Follow", "Followed", "Follower", "Moves", "Until"]

#: "stopped": until it is told; "drained": until nothing waits; or a time, in Unix seconds.
Until: TypeAlias = "Literal['stopped', 'drained'] | float"

_BATCH: Final = 1000
#: What waits may take so much memory; then everything counts as changed.
_MOST_BYTES: Final = 64 << 20
#: A copy that expires within this time is left to do so.
_LET_EXPIRE_MS: Final = 2000
#: How often nodes and flushes are looked for, in seconds.
_LOOK_S: Final = 5.0
#: Between two passes, where changes are not told.
_PASS_PAUSE_S: Final = 5.0


class Moves(Protocol):
    """Makes keys of the target what they are on the source, for one thread."""

    streams: set[tuple[int, bytes]]
    details: dict[bytes, str]

    def move(self, db: int, names: Sequence[bytes], *, replace: bool) -> dict[bytes, str]:
        """What became of each name that was not written.

        "gone" (not on the source), "equal" and "exists" (the target has it, with this value or another), "left-out" (by the
        selection, an edit or a policy), "refused", "changed" (while it was read).
        """
        ...

    def delete(self, db: int, names: Sequence[bytes]) -> list[Refusal | None]:
        """Delete on the target what these keys have become there; the error of each that is refused."""
        ...

    def as_written(self, db: int, names: Sequence[bytes]) -> set[bytes]:
        """Which of these keys the target has as they were written since `forget` was last called."""
        ...

    def forget(self) -> None:
        """What was written up to now is not asked about any more."""
        ...

    def scan(self, node: Address, db: int) -> Iterator[list[bytes]]:
        """All names of a database of a node of the source; one may come twice."""
        ...


@dataclass
class Followed:
    """How far a target has followed its source, and what was done.

    Attributes:
        changes: how changes are learned of.
        events: names that the source told, again and again the same among them.
        passes: how often all keys were compared, or copied for the first time.
        is_passing: whether that is going on.
        read: keys that were read from the source.
        written: keys that were written to the target.
        deleted: keys that were gone on the source and were deleted on the target.
        existing: keys that the target had before, and that were left alone.
        equal: those of them that had the same value.
        foreign: keys that others have written on the target since, and that were left alone from then on.
        refused: keys that the source or the target refused.
        waiting: keys that wait to be copied.
        lag_s: for how many seconds the key has waited that has waited longest.
        drained: whether the target had everything at the end.
        gaps: how often writes of others on the target may not have been seen.
    """

    changes: Kind = "tracking"
    events: int = 0
    passes: int = 0
    is_passing: bool = False
    read: int = 0
    written: int = 0
    deleted: int = 0
    existing: int = 0
    equal: int = 0
    foreign: int = 0
    refused: int = 0
    waiting: int = 0
    lag_s: float = 0.0
    drained: bool = False
    gaps: int = 0


@dataclass(frozen=True)
class Follow:
    """That a copy is to go on with what changes, and until when.

    Attributes:
        until: when to end: "stopped", once `Follower.stop` is called; "drained", once nothing has waited for a while; or a time, in
            Unix seconds.
        changes: how changes are learned of: "tracking", "notifications" or "passes"; None takes the first that the source allows.
        settle_s: a key that changes all the time is copied again after so many seconds at the soonest.
        quiet_s: with "drained": for how many seconds nothing may have waited.
        begun: called with the `Follower` before it begins.
        told: called now and then with how far it is.
    """

    until: Until = "stopped"
    changes: Kind | None = None
    settle_s: float = 0.2
    quiet_s: float = 5.0
    begun: Callable[[Follower], object] | None = None
    told: Callable[[Followed], object] | None = None


@dataclass
class _Taken:
    """Names that were taken from those that wait, in batches, and since when the oldest of them has waited."""

    batches: list[tuple[int, list[bytes]]] = field(default_factory=list)
    since: float = 0.0


class Follower:
    """Copies all keys, and then again whichever change.

    Args:
        source, target: the servers.
        mover: makes keys equal; its connections to the target tell `foreign` of theirs.
        state: whose keys are whose.
        edits: what keys are called on the target, and in which database.
        changes: how changes are learned of; None takes the best that the source allows.
        foreign: what others write on the target; None where nobody is to be heard.
        on_exists: "skip" leaves keys alone that the target had before; "replace" replaces them.
        settle_s: a key that changes all the time is copied again after so long at the soonest, in seconds.
        quiet_s: with `until="drained"`: for how long nothing may have waited, in seconds.
        told: called now and then with how far it is.

    Example:
        follower.run(until="drained")
    """

    def __init__(
        self,
        source: Server,
        target: Server,
        mover: Moves,
        state: CopyState,
        *,
        edits: Edits | None = None,
        changes: Kind | None = None,
        foreign: ForeignWrites | None = None,
        on_exists: str = "skip",
        settle_s: float = 0.2,
        quiet_s: float = 5.0,
        told: Callable[[Followed], object] | None = None,
    ) -> None:
        self.source = source
        self.target = target
        self.mover = mover
        self.state = state
        self.edits = Edits() if edits is None else edits
        if self.edits.script is not None:
            raise ValueError("a script does not go with following: what it would call a key that is gone cannot be known")
        self.bell = Bell()
        self.changes = Changes(source, changes, _MOST_BYTES, self.bell)
        self.foreign = foreign
        self.on_exists = on_exists
        self.settle_s = settle_s
        self.quiet_s = quiet_s
        self.told = told
        self.found = Followed()
        self._stops = 0
        self._taken = _Taken()
        self._taken_at = float("-inf")
        self._worked_at = self._looked_at = self._passed_at = 0.0
        self._pages: Iterator[tuple[int, list[bytes]]] | None = None
        self._databases: set[int] = set()
        self._gone: set[bytes] = set()  # of ours, since others were last asked for
        self._pass_changed = True
        self._target: set[str] = set()  # its processes
        self._gaps = 0
        self._refused: set[tuple[int, bytes]] = set()
        self._groups: dict[tuple[int, bytes], str] = {}  # of streams that have some: what is known of them

    # -- what users call

    def stop(self) -> None:
        """End once what waits is copied; called again, end at once. May be called by any thread and by a signal's handler."""
        self._stops += 1
        self.bell.ring()

    @property
    def is_stopping(self) -> bool:
        """Whether it was told to end."""
        return self._stops > 0

    def begin(self) -> None:
        """Have the source tell its changes; what changes from now on will be copied.

        Raises: TargetError where it does not in the way that was asked for.
        """
        self._databases = set(self.state.fact("databases") or ())
        self._target = run_ids(self.target)
        self.changes.begin()
        self.found.changes = self.changes.kind
        self._looked_at = time.monotonic()

    def run(self, until: Until = "stopped") -> Followed:
        """Copy all keys, then what changes.

        Args:
            until: when to end of itself.

        Returns: what was done.

        Raises: TargetError where a server cannot be reached for long, or the target has no memory left.
        """
        if self._looked_at == 0.0:
            self.begin()
        try:
            while not self._is_over(until):
                worked = self.step()
                self._tell()
                if not worked:
                    self.bell.wait(self._pause())
        finally:
            self.close()
        return self.found

    def close(self) -> None:
        """Close the connections that tell of changes; `run` does so by itself."""
        self.changes.close()
        if self.foreign is not None:
            self.foreign.close()

    # -- when

    def _is_over(self, until: Until) -> bool:
        if self._stops > 1:
            return True
        now = time.monotonic()
        if self._stops == 1 or (isinstance(until, float | int) and time.time() >= until):
            return self._finish()
        if until != "drained" or self._has_work() or now - self._worked_at < self.quiet_s:
            return False
        if self.changes.kind == "passes":
            self.found.drained = not self._pass_changed
            if self._pass_changed:
                self.changes.all_due()
            return self.found.drained
        self.found.drained = self.is_drained()
        return self.found.drained

    def is_drained(self) -> bool:
        """Whether the target has all that the source had when this was called. Raises: as `run`."""
        if self._has_work():
            return False
        self._look()
        self._copy_groups()
        return self.changes.confirm() and not self._has_work()

    def _has_work(self) -> bool:
        return bool(self._taken.batches or self._pages is not None or self.changes.is_due or self.changes.count())

    def _finish(self) -> bool:
        """Copy what waits now, and no more."""
        self._look_at_target()
        was_complete = self._pages is None and not self.changes.is_due and self.changes.kind != "passes"
        was_complete &= self.changes.confirm()
        while self._taken.batches and self._stops < 2:
            self._next_batch()
        self._look_for_groups()
        self._take()
        while self._taken.batches and self._stops < 2:
            self._next_batch()
        if self._stops < 2:
            self._copy_groups()
        self.found.drained = was_complete and not self._taken.batches
        self._tell()
        return True

    def _pause(self) -> float:
        """For how many seconds there is nothing to do, unless something is told."""
        settles = self._taken_at + self.settle_s - time.monotonic()
        if self.changes.count():
            time.sleep(max(0.0, settles))  # what is told meanwhile needs no waking
            return 0.0
        return max(0.01, min(self.settle_s, 1.0))

    def _tell(self) -> None:
        found = self.found
        oldest = self._taken.since or self.changes.oldest()
        found.waiting = self.changes.count() + sum(len(names) for _, names in self._taken.batches)
        found.lag_s = time.monotonic() - oldest if oldest and found.waiting else 0.0
        found.events = self.changes.events
        found.is_passing = self._pages is not None
        found.gaps = 0 if self.foreign is None else self.foreign.gaps
        if self.told is not None:
            self.told(found)

    # -- what

    def step(self) -> bool:
        """Copy a page of a pass, and a batch of what has changed, for who has a loop of his own; whether there was anything to do.

        Raises: as `run`.
        """
        now = time.monotonic()
        if now - self._looked_at > _LOOK_S:
            self._look()
        if self._pages is None:
            if self.changes.kind == "passes" and now - self._passed_at > _PASS_PAUSE_S:
                self.changes.all_due()
            if self.changes.is_due:
                self._pages = self._pass(self.changes.due())
        worked = self._pages is not None
        if self._pages is not None:
            page = next(self._pages, None)
            if page is None:
                self._pages = None
                self._passed_at = time.monotonic()
            else:
                self._transfer(*page, compares=True)
        if not self._taken.batches and time.monotonic() - self._taken_at >= self.settle_s:
            self._take()
        if self._taken.batches:
            self._next_batch()
            worked = True
        if worked:
            self._worked_at = time.monotonic()
        return worked

    def _take(self) -> None:
        """Take what waits, in batches."""
        since = self.changes.oldest()
        names = self.changes.take()
        self._taken_at = time.monotonic()
        if not names:
            return
        self._taken.since = since
        databases = self._known_databases()
        for db, some in names.items():
            every = list(some)
            for each in databases if db == ANY_DB else [db]:
                self._taken.batches += [(each, every[at : at + _BATCH]) for at in range(0, len(every), _BATCH)]
        self._taken.batches.reverse()

    def _next_batch(self) -> None:
        db, names = self._taken.batches[-1]
        self._transfer(db, names, compares=False)
        self._taken.batches.pop()
        if not self._taken.batches:
            self._taken.since = 0.0

    def _look(self) -> None:
        self._looked_at = time.monotonic()
        self.changes.look()
        self._look_at_target()
        self._look_for_groups()

    def _look_at_target(self) -> None:
        """Have all keys compared where the target may have lost what it took: it has restarted, failed over or was flushed."""
        gaps = 0 if self.foreign is None else self.foreign.gaps
        try:
            now = run_ids(self.target)
        except TargetError:  # it is away, and nobody knows what it will have
            now = set()
        if not now.issuperset(self._target) or gaps != self._gaps:
            self.changes.all_due()
        self._target, self._gaps = now or self._target, gaps

    def _look_for_groups(self) -> None:
        """Mark streams whose groups have changed: what consumers read and acknowledge is not told by the server."""
        for db, names in self._streams().items():
            for at in range(0, len(names), _BATCH):
                some = names[at : at + _BATCH]
                asked = [(name, [command(b"XINFO", b"GROUPS", name), command(b"XINFO", b"STREAM", name)]) for name in some]
                for name, (groups, stream) in zip(some, self.source.ask(db, asked), strict=True):
                    if isinstance(groups, Refusal):
                        if groups.code != "NOPERM":
                            self.mover.streams.discard((db, name))  # it is gone, or another type now
                        self._groups.pop((db, name), None)
                    elif not groups:
                        self._groups.pop((db, name), None)
                    elif self._groups.get((db, name)) != (now := f"{groups}{stream}"):
                        self._groups[db, name] = now
                        self.changes.mark(db, name)

    def _copy_groups(self) -> None:
        """Copy streams that have groups, as far as they differ: not all that consumers do shows in a group's numbers."""
        by_db: dict[int, list[bytes]] = {}
        for db, name in self._groups:
            by_db.setdefault(db, []).append(name)
        for db, names in by_db.items():
            for at in range(0, len(names), _BATCH):
                self._transfer(db, names[at : at + _BATCH], compares=True)

    def _streams(self) -> dict[int, list[bytes]]:
        found: dict[int, list[bytes]] = {}
        for db, name in self.mover.streams:
            found.setdefault(db, []).append(name)
        return found

    def _pass(self, nodes: set[Address]) -> Iterator[tuple[int, list[bytes]]]:
        """All keys of these nodes, and those that are no longer there."""
        self.found.is_passing = True
        self.found.passes += 1
        self._pass_changed = False
        for db in self._known_databases():
            for node in nodes:
                for names in self.mover.scan(node, db):
                    if names:
                        yield db, names
        if self.found.passes > 1 or self.state.is_resumed:
            for db in self._known_databases():
                for names in self.target.scan(self.edits.db_of(db)):
                    ours, others = self._owned(db, names)
                    missing = self._missing(db, ours + others, nodes)
                    if missing:
                        yield db, missing

    def _missing(self, db: int, names: list[bytes], nodes: set[Address]) -> list[bytes]:
        """Those names that the source does not have."""
        owners = self.source.slots()
        asked = [name for name in names if not owners or owners[key_slot(name)] in nodes or owners[key_slot(name)] is None]
        replies = self.source.ask(db, [(name, [command(b"EXISTS", name)]) for name in asked])
        return [name for name, (reply,) in zip(asked, replies, strict=True) if reply == 0]

    # -- a batch

    def _transfer(self, db: int, names: list[bytes], compares: bool) -> None:
        """Make these keys on the target what they are on the source, as far as they are ours.

        `compares`: keys of ours may well be equal, and are not to be written then.
        """
        self._notice_foreign()
        self._move(db, names, compares)
        # what is told of from now on was not written by us
        self._notice_foreign()

    def _move(self, db: int, names: list[bytes], compares: bool) -> None:
        hashes = {name: stable_hash(db, name) for name in names}
        others = self.state.foreign(hashes.values())
        ours = self.state.ours(hashes.values())
        mine = [name for name, hashed in hashes.items() if hashed in ours and hashed not in others]
        new = [name for name, hashed in hashes.items() if hashed not in ours and hashed not in others]
        self.found.read += len(mine) + len(new)
        if others:
            self._look_at_others(db, [name for name, hashed in hashes.items() if hashed in others], hashes)
        if new:
            self._transfer_new(db, new, hashes)
        if mine and compares:
            fates = self.mover.move(db, mine, replace=False)
            differ = [name for name, fate in fates.items() if fate == "exists"]
            fates = {name: fate for name, fate in fates.items() if fate != "exists"}
            written = len(mine) - len(differ) - len(fates)
            if differ:
                more = self.mover.move(db, differ, replace=True)
                written += len(differ) - len(more)
                fates |= more
        elif mine:
            fates = self.mover.move(db, mine, replace=True)
            written = len(mine) - len(fates)
        else:
            return
        self.found.written += written
        self._pass_changed |= bool(written)
        self._note_troubles(db, mine, fates)
        gone = [name for name, fate in fates.items() if fate in ("gone", "left-out")]
        if gone:
            self._remove(db, gone, hashes)

    def _transfer_new(self, db: int, names: list[bytes], hashes: dict[bytes, int]) -> None:
        """The first write of keys, which only makes what is not there."""
        # noted before they are written: a run that is killed in between leaves no key that nobody knows to be ours
        noted = self._absent(db, names) if self.state.path is not None else []
        if noted:
            self.state.add_ours(hashes[name] for name in noted)
            self.state.commit()
        fates = self.mover.move(db, names, replace=self.on_exists == "replace")
        written = [name for name in names if name not in fates]
        left = [name for name, fate in fates.items() if fate in ("exists", "equal")]
        self.state.remove_ours(hashes[name] for name in noted if name in fates)
        self.state.add_ours(hashes[name] for name in written)
        self.state.add_foreign(hashes[name] for name in left)
        for name in left:
            if fates[name] == "exists":
                self.state.add_trouble(Trouble(db, name, "exists", self.mover.details.get(name, "")))
        if self.state.path is not None and (written or left):
            self.state.commit()
        self.found.written += len(written)
        self.found.existing += len(left)
        self.found.equal += sum(fates[name] == "equal" for name in left)
        self._pass_changed |= bool(written)
        self._note_troubles(db, names, fates)

    def _look_at_others(self, db: int, names: list[bytes], hashes: dict[bytes, int]) -> None:
        """List keys that the target had with the same value when this copy came, once the source has another: they are not ours."""
        listed = self.state.troubled(db, names)
        equal = [name for name in names if name not in listed or (db, name) in self._refused]
        if not equal:
            return
        fates = self.mover.move(db, equal, replace=False)
        gone = [name for name, fate in fates.items() if fate in ("gone", "left-out")]
        differ = {name: self.mover.details.get(name, "") for name, fate in fates.items() if fate == "exists"}
        differ |= dict.fromkeys(self._staying(db, gone)[0], "the source no longer has it")
        self._note_troubles(db, equal, fates)
        for name, detail in differ.items():
            self.state.add_trouble(Trouble(db, name, "exists", detail))
        written = [name for name in equal if name not in fates]  # whoever had it has given it up
        self.state.add_ours(hashes[name] for name in written)
        self.state.remove_foreign(hashes[name] for name in written)
        self.found.written += len(written)
        self._pass_changed |= bool(written)

    def _absent(self, db: int, names: list[bytes]) -> list[bytes]:
        """Those keys that the target does not have; all of them where it does not matter."""
        if self.on_exists == "replace":
            return names
        called = [self.edits.key_of(name) for name in names]
        replies = self.target.ask(self.edits.db_of(db), [(name, [command(b"EXISTS", name)]) for name in called])
        return [name for name, (reply,) in zip(names, replies, strict=True) if reply == 0]

    def _note_troubles(self, db: int, names: list[bytes], fates: dict[bytes, str]) -> None:
        for name, fate in fates.items():
            if fate == "refused":
                self._refused.add((db, name))
                self.state.add_trouble(Trouble(db, name, "refused", self.mover.details.get(name, "")))
            elif fate == "changed":
                self.changes.mark(db, name)
        for name in names if self._refused else ():
            if (db, name) in self._refused and fates.get(name) != "refused":
                self._refused.discard((db, name))
                self.state.settle(db, name)
        self.found.refused = len(self._refused)

    def _remove(self, db: int, names: list[bytes], hashes: dict[bytes, int]) -> None:
        """Delete on the target what is gone on the source; what has expired there expires of itself."""
        present, absent = self._staying(db, names)
        for name, trouble in zip(present, self.mover.delete(db, present), strict=True):
            if trouble is not None:
                self._refused.add((db, name))
                self.found.refused = len(self._refused)
                self.state.add_trouble(Trouble(db, name, "refused", str(trouble)))
            else:
                self.found.deleted += 1
                absent.append(name)
                self._pass_changed = True
        self.state.remove_ours(hashes[name] for name in absent)
        self._gone.update(absent)

    def _staying(self, db: int, names: list[bytes]) -> tuple[list[bytes], list[bytes]]:
        """Those of these keys that stay on the target, and those that it does not have; not those that are about to expire."""
        called = [self.edits.key_of(name) for name in names]
        left = self.target.ask(self.edits.db_of(db), [(name, [command(b"PTTL", name)]) for name in called])
        times = [(name, ms) for name, (ms,) in zip(names, left, strict=True) if isinstance(ms, int)]
        staying = [name for name, ms in times if ms == -1 or ms > _LET_EXPIRE_MS]
        return staying, [name for name, ms in times if ms == -2]

    # -- others

    def _notice_foreign(self) -> None:
        """Leave alone from now on what others have written on the target."""
        if self.foreign is None:
            return
        told = self.foreign.take()
        explained, self._gone = self._gone, set()
        suspects = self._suspects(told, explained) if told else []
        self.mover.forget()
        for db, names in suspects:
            self._judge(db, [name for name in names if name not in explained])

    def _suspects(self, told: set[bytes], explained: set[bytes]) -> list[tuple[int, list[bytes]]]:
        """Keys of ours, by database, that others may have written, of the names on the target that were told of.

        They may also have gone by themselves, or have expired just before they were written again, which is told as well. Names are
        told without a database: where one of them explains it, the others' keys of that name are not touched. Those names are
        added to `explained`.
        """
        found: list[tuple[int, list[bytes]]] = []
        for db in self._databases:
            names, others = self._owned(db, told)
            explained.update(others)
            if not names:
                continue
            called = [self.edits.key_of(name) for name in names]
            replies = self.target.ask(self.edits.db_of(db), [(name, [command(b"EXISTS", name)]) for name in called])
            absent = [name for name, (reply,) in zip(names, replies, strict=True) if reply == 0]
            present = [name for name, (reply,) in zip(names, replies, strict=True) if reply != 0]
            # nobody's: whoever comes first makes it anew
            self.state.remove_ours(stable_hash(db, name) for name in absent)
            # one that has expired because it was asked for is told of once more
            self._gone.update(absent)
            explained.update(absent)
            explained.update(self.mover.as_written(db, present) if present else ())
            found.append((db, present))
        return found

    def _judge(self, db: int, names: list[bytes]) -> None:
        """Leave these keys alone from now on.

        Where the name may be that of a key in another database, or have been told since its slot has moved, a key that is still as
        the source has it was not touched.
        """
        if names and (len(self._databases) > 1 or self.target.slots()):
            same = {name for name, fate in self.mover.move(db, names, replace=False).items() if fate == "equal"}
            names = [name for name in names if name not in same]
        self.state.add_foreign(stable_hash(db, name) for name in names)
        for name in names:
            self.state.add_trouble(Trouble(db, name, "foreign", "another client wrote it on the target"))
        if names and self.state.path is not None:
            self.state.commit()  # they are told of once
        self.found.foreign += len(names)

    def _owned(self, db: int, target_names: Iterable[bytes]) -> tuple[list[bytes], list[bytes]]:
        """The keys of the source's database that are called so on the target: those that are ours, and others'."""
        candidates = {name for each in target_names for name in self._sources_of(each)}
        hashes = {stable_hash(db, name): name for name in candidates}
        others = self.state.foreign(hashes)
        ours = self.state.ours(hashes) - others
        return [hashes[hashed] for hashed in ours], [hashes[hashed] for hashed in others]

    def _sources_of(self, name: bytes) -> Iterator[bytes]:
        """What keys may be called on the source that are called so on the target."""
        if self.edits.key_of(name) == name:
            yield name
        for old, new in self.edits.rename_prefix:
            assert isinstance(old, bytes)
            assert isinstance(new, bytes)
            if name.startswith(new) and self.edits.key_of(old + name[len(new) :]) == name:
                yield old + name[len(new) :]

    # -- databases

    def _known_databases(self) -> list[int]:
        """The databases of the source that have keys, or had some since this copy began."""
        found = self._databases | set(databases_of(self.source))
        if found != self._databases:
            self._databases = found
            self.state.set_fact("databases", sorted(found))
        return sorted(found)

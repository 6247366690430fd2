"""`rdbkit dual-switch`: one step of a move between two caches, for all processes at one moment, and only when it is safe."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from rdbkit.dual.state_store import Follower, Look, ServerOpener, ServerStore, StateStore
from rdbkit.dual.states import BEGINNING, Setting, State, check_step, is_forward
from rdbkit.dual.status import DualStatus, dual_status, refuse_the_same
from rdbkit.dual.watch import LATE_S, LOOK_S
from rdbkit.errors import TargetError
from rdbkit.live.abilities import abilities
from rdbkit.live.copy import writing
from rdbkit.live.databases import databases_of, keys_of
from rdbkit.live.server import Server, connect
from rdbkit.live.verify_copy import CopyProof, verify_copy
from rdbkit.selection import Selection
from rdbkit.text import count, when

__all__ = ["DELAY_S", "DualSwitch", "dual_switch"]

#: Seconds until a step is taken: all processes have looked by then.
DELAY_S: Final = 3 * LOOK_S
#: A step that is taken so soon is waited for.
_SOON_S: Final = 1.0
#: So many clients are named.
_MOST_NAMED: Final = 5
#: Seconds between two looks at keys that differ: what is written is on its way for a moment.
WAIT_S: Final = 1.0


@dataclass
class DualSwitch:
    """What `dual_switch` found and did.

    Attributes:
        before: the setting that holds.
        wanted: the one that was asked for. Where it was set, processes have it from `effective_at_ms` on.
        done: whether it was set.
        reasons: why it is not safe, each with what to do about it. Nothing was set then.
        notes: what else should be known.
        status: which keys are where, if that was looked at.
        proof: what was found of the keys that were compared, if any were.
        followers: the clients, one or more of a process, that follow the move; None where that is not told. Once a step was set, as
            they are when it is taken.
    """

    before: Setting
    wanted: Setting
    done: bool = False
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    status: DualStatus | None = None
    proof: CopyProof | None = None
    followers: list[Follower] | None = None

    @property
    def behind(self) -> list[Follower]:
        """Those that do not know the last setting and go on as before, or that have not looked for long."""
        if self.done:
            return [each for each in self.followers or [] if each.epoch < self.wanted.epoch]
        return [each for each in self.followers or [] if each.epoch < self.before.epoch or each.idle_s > LATE_S]

    @property
    def warning(self) -> str | None:
        """What is said of those; None where there are none."""
        behind = self.behind
        if not behind:
            return None
        named = ", ".join(each.address for each in behind[:_MOST_NAMED])
        why = (
            "did not know of the step in time, and go on as before"
            if self.done
            else "do not know the state, or have not looked for long"
        )
        return f"{len(behind):,} of {count(len(self.followers or []), 'client')} that follow this move {why}: {named}"

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "before": self.before._asdict(), "wanted": self.wanted._asdict(), "done": self.done, "reasons": self.reasons,
            "notes": self.notes, "status": None if self.status is None else self.status.to_dict(),
            "proof": None if self.proof is None else self.proof.to_dict(),
            "followers": None if self.followers is None else [each._asdict() for each in self.followers],
        }  # fmt: skip


def dual_switch(
    old: str | ServerOpener,
    new: str | ServerOpener,
    state: State | str,
    *,
    percent: float = 0.0,
    name: str = "default",
    store: StateStore | None = None,
    accept_missing: float | int = 0,
    compare: int | None = 10_000,
    selection: Selection | None = None,
    db_map: Mapping[int, int] | None = None,
    delay_s: float = DELAY_S,
    wait: bool = True,
    dry_run: bool = False,
    by: str = "",
    confirm: Callable[[DualSwitch], bool] | None = None,
    progress: Callable[[int], object] | None = None,
) -> DualSwitch:
    """Go one step of a move, forward or back, when it is safe. What the application writes goes on meanwhile.

    Before keys are read from the new server, some are compared with those of the old one. Before it becomes the one that counts,
    all keys have to be there, too. To go back needs no proof, since what is written is brought to the old server as well; but it
    was not in the state DONE.

    Args:
        old, new: the URLs of the servers, or what connects to them.
        state: where to go.
        percent: for DIAL, how many of a hundred keys are read from the new server.
        name: of the move, as the application has it.
        store: where the state is kept; by default on the servers.
        accept_missing: so many keys need not be on the new server, or this share of them (below 1).
        compare: about how many keys to compare; None for all, 0 for none.
        selection: which keys belong to the move; by default all.
        db_map: the new server's database for one of the old, where that is another.
        delay_s: seconds until processes take the step: as long as the slowest of them takes for three looks at the state.
        wait: return when it is taken, and not as soon as it is set.
        dry_run: find out whether it is safe, and set nothing.
        by: who wants it, for those who look.
        confirm: is asked, when it is safe, whether to do it.
        progress: called with the number of keys that were listed or compared.

    Returns: what was found; `done` tells whether the step was set.

    Raises: ValueError for a step that cannot be; TargetError where a server cannot be reached, does not let one in, or somebody
        else has changed the state meanwhile; OSError for a file of a store.

    Example:
        dual_switch("redis://old:6379", "rediss://new:10000", "shadow", name="sessions").done
    """
    opens: list[ServerOpener] = [partial(connect, each) if isinstance(each, str) else each for each in (old, new)]
    with closing(ServerStore(name, *opens) if store is None else store) as kept:
        look = kept.look()
        before = look.settings[-1] if look.settings else BEGINNING
        left_s = (before.effective_at_ms - look.now_ms) / 1000
        if 0 < left_s <= _SOON_S:
            time.sleep(left_s)
        elif left_s > 0:
            raise ValueError(f"the step to {before} is taken in {left_s:.1f} s: the next one can be set then")
        wanted = Setting(State(state), percent, 0, before.epoch + 1, by)
        check_step(before, wanted.state, percent)
        found = DualSwitch(before, wanted, followers=kept.followers())
        _Checks(found, opens, look, accept_missing, compare, selection or Selection(), dict(db_map or {}), progress).run()
        if found.reasons or dry_run or (confirm is not None and not confirm(found)):
            return found
        at_ms = int(kept.look().now_ms + delay_s * 1000)
        found.wanted = wanted._replace(effective_at_ms=at_ms)
        kept.write(found.wanted)
        found.done = True
        if wait:
            time.sleep(delay_s)
        found.followers = kept.followers()
        return found


@dataclass
class _Checks:
    """Whether a step is safe."""

    found: DualSwitch
    opens: list[ServerOpener]
    look: Look
    accept_missing: float | int
    compare: int | None
    selection: Selection
    db_map: dict[int, int]
    progress: Callable[[int], object] | None

    def run(self) -> None:
        """Enter the reasons against it, and notes."""
        match self.found.before.state, self.found.wanted.state:
            case State.OLD, State.SHADOW:
                self.begin()
            case State.SHADOW, State.DIAL:
                self.prove("old", "new", False)
            case State.DIAL, State.DIAL if self.found.wanted.percent > self.found.before.percent:
                self.prove("old", "new", False)
            case State.DIAL, State.NEW:
                self.prove("old", "new", True)
            case State.NEW, State.DONE:
                self.found.notes.append("what is written from then on is not brought to the old server: this is the way back's end")
            case State.DONE, State.NEW:
                self.go_back()
            case State.NEW, State.DIAL if self.was_done():
                self.prove("new", "old", True)
        self.judge_followers()

    def judge_followers(self) -> None:
        """All processes have to be in the state that one leaves, but to go back."""
        found = self.found
        if found.followers == []:
            found.notes.append("no process follows this move now: compare its name with the one that the application gives")
        if found.warning is not None:
            (found.reasons if is_forward(found.before, found.wanted) else found.notes).append(found.warning)

    def was_done(self) -> bool:
        """Whether there was a time without a way back, before the state at hand."""
        settings = self.look.settings
        return len(settings) > 1 and settings[-2].state is State.DONE

    def begin(self) -> None:
        """The new server must take what is written."""
        with self.opens[0]() as old, self.opens[1]() as new:
            refuse_the_same(old, new, self.db_map)
            self.may_write(new)
            keys = keys_of(new, databases_of(new))
            if keys and self.found.before.epoch:
                self.found.notes.append(
                    "what was written while the state was old is not on the new server: run rdbkit sync OLD NEW when the step has "
                    "been taken"
                )
            elif keys:
                self.found.notes.append(
                    f"the new server has {count(keys, 'key')} already; those that differ stay so until they are written or "
                    "rdbkit sync OLD NEW repairs them"
                )

    def go_back(self) -> None:
        """The old server must take what is written again."""
        with self.opens[0]() as old:
            self.may_write(old)
        self.found.notes.append(
            "what was written while the state was done is not on the old server: run rdbkit sync NEW OLD when the step has been "
            "taken, and before you go back further"
        )

    def may_write(self, server: Server) -> None:
        """That a login may write keys as they are moved."""
        try:
            writing(server, abilities(server), "auto")
        except TargetError as e:
            self.found.reasons.append(str(e))

    def prove(self, source: str, target: str, all_must_be_there: bool) -> None:
        """The server that is to be used has to have what the other has."""
        first, second = self.opens if source == "old" else reversed(self.opens)
        db_map = self.db_map if source == "old" else {other: one for one, other in self.db_map.items()}
        with first() as one, second() as other:
            status = self.found.status = dual_status(one, other, selection=self.selection, db_map=db_map, progress=self.progress)
            if self.compare != 0:
                self.found.proof = verify_copy(
                    one, other, selection=self.selection, db_map=db_map, pick=self.compare, ignore_functions=not all_must_be_there,
                    wait_s=WAIT_S, find_extra=all_must_be_there, progress=self.progress,
                )  # fmt: skip
        self.judge_missing(status, source, target, all_must_be_there)
        if self.found.proof is not None:
            self.judge_values(self.found.proof, source, target)

    def judge_missing(self, status: DualStatus, source: str, target: str, all_must_be_there: bool) -> None:
        """Enter what is said of keys that are not there."""
        found = self.found
        names = f"{source.upper()} {target.upper()}"
        accepted = self.accept_missing * status.total if self.accept_missing < 1 else self.accept_missing
        if status.unclear or not status.complete:
            found.reasons += status.notes
        else:
            found.notes += status.notes
        if not status.missing:
            return
        if not all_must_be_there:
            found.notes.append(
                f"{count(status.missing, 'key')} not on the {target} server yet, which will be read from the {source} one"
            )
            return
        if status.missing <= accepted:
            found.notes.append(f"{count(status.missing, 'key')} not on the {target} server, which was accepted")
            return
        if status.lasting:
            found.reasons.append(
                f"not on the {target} server: {count(status.lasting, 'key')} without an expiry; copy them with rdbkit copy {names} "
                "--no-ttl --on-exists skip"
            )
        if status.expiring:
            assert status.last_ms is not None
            found.reasons.append(
                f"not on the {target} server: {count(status.expiring, 'key')} with an expiry; wait until the last of them has "
                f"expired, on {when(status.last_ms)} UTC, or copy them with rdbkit copy {names} --on-exists skip"
            )

    def judge_values(self, proof: CopyProof, source: str, target: str) -> None:
        """Enter what is said of keys that were compared."""
        different = proof.type + proof.value + proof.expire
        if different:
            self.found.reasons.append(
                f"another value or expiry on the {target} server: {different:,} of {count(proof.checked, 'key')} compared; "
                f"repair them with rdbkit sync {source.upper()} {target.upper()}"
            )
        if proof.extra:
            extra = count(proof.extra, "key") + ("" if self.compare is None else " of those chosen to be compared")
            self.found.notes.append(
                f"{extra} on the {target} server, but not on the {source} one: if deleted there, they come back with this "
                f"step; rdbkit sync {source.upper()} {target.upper()} --delete deletes them"
            )
        lacking = [each.name for each in proof.functions if each.what != "extra"]
        if lacking:
            self.found.notes.append(
                f"function libraries that the {target} server does not have as they are: {', '.join(lacking[:_MOST_NAMED])}; "
                f"rdbkit copy {source.upper()} {target.upper()} brings those that are missing"
            )
        if proof.refused:
            self.found.reasons.append(f"not compared: {count(proof.refused, 'key')}; rdbkit verify-copy tells why")

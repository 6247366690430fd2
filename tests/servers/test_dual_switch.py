"""`dual-switch` and `dual-status` with real servers: a step when it is safe, and what to do when it is not."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fixtures.server import Client
from rdbkit.dual.state_store import FileStore, FunctionStore, ServerStore, open_store
from rdbkit.dual.states import Setting, State
from rdbkit.dual.switch import DualSwitch, dual_switch
from rdbkit.dual.watch import Watch
from rdbkit.errors import TargetError
from rdbkit.live.copy import copy
from rdbkit.live.server import connect
from rdbkit.live.sync import sync
from rdbkit.selection import Selection

from ..command_line import run_text
from ..live.acl import add_user, url_of
from ..processes import until
from .test_dual_state import stop
from .test_verify_copy import two

DAY = 24 * 3_600_000


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdbkit.dual.status.AGAIN_S", 0)
    monkeypatch.setattr("rdbkit.dual.switch.WAIT_S", 0)
    monkeypatch.setattr("rdbkit.dual.state_store._PATIENCE_S", 300.0)


class Move:
    """Two servers, of whose keys 100 are on both, and what is done with them."""

    def __init__(self, first: Client, second: Client, old: str, new: str) -> None:
        self.first, self.second = first, second
        self.old, self.new = old, new
        both = [("SET", f"k{n}", n) for n in range(100)]
        first.pipeline(both)
        second.pipeline(both)

    def step(self, state: str, **options: Any) -> DualSwitch:
        return dual_switch(self.old, self.new, state, **{"delay_s": 0, **options})

    def go(self, *states: str) -> None:
        """Take steps without a look."""
        with closing(ServerStore("default", partial(connect, self.old), partial(connect, self.new))) as store:
            for state in states:
                store.write(Setting(State(state), 0, 1, len(store.look().settings) + 1, "test"))


@pytest.fixture
def move() -> Iterator[Move]:
    with two("redis-7.0") as (first, second, old, new):
        yield Move(first, second, old, new)


def test_a_move_there_and_back(move: Move) -> None:
    taken = [
        move.step(state, percent=percent) for state, percent in (("shadow", 0), ("dial", 5), ("dial", 50), ("new", 0), ("done", 0))
    ]
    assert all(each.done for each in taken), taken
    assert [each.proof is not None for each in taken] == [False, True, True, True, False]
    assert "the way back's end" in taken[-1].notes[0]
    for state in ("new", "dial", "shadow", "old"):
        found = move.step(state)
        assert found.done, found.reasons
    assert [str(each) for each in (taken[1].before, taken[1].wanted, taken[2].wanted)] == ["shadow", "dial 5 %", "dial 50 %"]
    json.dumps([each.to_dict() for each in taken])


def test_who_follows_is_seen_and_who_is_behind_is_waited_for(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    opens = partial(connect, move.old), partial(connect, move.new)
    watch = Watch(open_store(None, "default", *opens), look_s=0.01)
    stuck = ServerStore("default", *opens, follows=True)
    other = ServerStore("default:1", *opens, follows=True)
    with closing(watch), closing(stuck), closing(other):
        other.look()
        watch.start()
        found = move.step("shadow")
        assert len(found.followers or []) == 1
        until(lambda: watch.current.epoch == 1)
        stuck.look()
        assert len(move.step("dial", percent=1).followers or []) == 2
        until(lambda: watch.current.epoch == 2)
        # the one that does not look knows nothing of that step
        found = move.step("new", compare=0)
        assert not found.done
        (reason,) = found.reasons
        assert reason.startswith(
            "1 of 2 clients that follow this move do not know the state, or have not looked for long: 127.0.0.1:"
        )
        stuck.look()
        assert move.step("new", compare=0, dry_run=True).reasons == []
        monkeypatch.setattr("rdbkit.dual.switch.LATE_S", -1)
        assert "2 of 2 clients" in str(move.step("new", compare=0, dry_run=True).reasons)
        assert "2 of 2 clients" in str(move.step("shadow", dry_run=True).notes)
    monkeypatch.undo()
    until(lambda: move.step("shadow", dry_run=True).followers == [])
    assert "no process follows this move now" in move.step("shadow", dry_run=True).notes[0]
    add_user(move.first, "app", "+@all -@dangerous")
    with closing(ServerStore("default", partial(connect, url_of(move.old, "app")))) as store:
        assert store.followers() is None


def test_a_step_holds_from_its_moment_on_and_the_next_has_to_wait(move: Move) -> None:
    before = time.time() * 1000
    found = move.step("shadow", delay_s=100, wait=False, by="a@b")
    assert found.done
    assert before + 90_000 < found.wanted.effective_at_ms < time.time() * 1000 + 110_000
    assert found.wanted.by == "a@b"
    with pytest.raises(ValueError, match=r"the step to shadow is taken in \d+\.\d s: the next one can be set then"):
        move.step("dial")


def test_keys_that_are_missing_are_told_for_dial_and_refused_for_new(move: Move) -> None:
    move.go("shadow")
    move.first.pipeline([("SET", "lasting", 1), ("SET", "a", 1, "PX", DAY), ("SET", "b", 1, "PX", 2 * DAY)])
    found = move.step("dial", percent=1)
    assert found.done
    assert "3 keys not on the new server yet" in found.notes[0]
    found = move.step("new")
    assert not found.done
    lasting, expiring = found.reasons
    assert lasting == "not on the new server: 1 key without an expiry; copy them with rdbkit copy OLD NEW --no-ttl --on-exists skip"
    assert expiring.startswith("not on the new server: 2 keys with an expiry; wait until the last of them has expired, on ")
    assert not move.step("new", accept_missing=2).done
    assert not move.step("new", accept_missing=0.01).done
    assert move.step("new", accept_missing=3, dry_run=True).reasons == []
    assert move.step("new", selection=Selection(prefixes="k"), dry_run=True).reasons == []
    copy(move.old, move.new, selection=Selection(expiry="no-ttl"), on_exists="skip")
    assert len(move.step("new", dry_run=True).reasons) == 1
    found = move.step("new", accept_missing=0.05)
    assert found.done
    assert found.notes[0] == "2 keys not on the new server, which was accepted"


def test_values_that_differ_are_refused_until_they_are_repaired(move: Move) -> None:
    move.go("shadow")
    move.second.call("SET", "k7", "other")
    found = move.step("dial", percent=1)
    assert found.reasons == [
        "another value or expiry on the new server: 1 of 101 keys compared; repair them with rdbkit sync OLD NEW"
    ]
    assert move.step("dial", percent=1, compare=0, dry_run=True).reasons == []
    sync(move.old, move.new, wait_s=0)
    assert move.step("dial", percent=1, compare=None).done
    assert move.step("dial", percent=0.5).proof is None  # less is read there: no proof is needed


def test_keys_that_were_deleted_on_the_old_server_alone_are_told(move: Move) -> None:
    move.go("shadow", "dial")
    move.first.call("DEL", "k1")
    found = move.step("new", compare=None, dry_run=True)
    assert not found.reasons
    assert any("1 key on the new server, but not on the old one" in note for note in found.notes)
    sync(move.old, move.new, delete=True)
    assert not any("but not on the old" in note for note in move.step("new", compare=None).notes)


def test_functions_that_the_new_server_lacks_are_told(move: Move) -> None:
    move.go("shadow", "dial")
    library = "#!lua name={}\nredis.register_function('{}', function() return 1 end)"
    move.first.call("FUNCTION", "LOAD", library.format("ours", "f"))
    move.second.call("FUNCTION", "LOAD", library.format("theirs", "g"))
    notes = move.step("new", dry_run=True).notes
    assert any("not have as they are: ours; rdbkit copy OLD NEW" in note for note in notes), notes
    assert not any("theirs" in note for note in notes)
    copy(move.old, move.new)
    assert not any("function" in note for note in move.step("new", dry_run=True).notes)


def test_back_from_done_the_old_server_has_to_catch_up(move: Move) -> None:
    move.go("shadow", "dial", "new", "done")
    move.second.pipeline([("SET", "k1", "later"), ("SET", "more", 1)])
    found = move.step("new")
    assert found.done
    assert "run rdbkit sync NEW OLD" in found.notes[0]
    found = move.step("dial")
    assert not found.done
    assert len(found.reasons) == 2
    assert all("NEW OLD" in reason for reason in found.reasons)
    sync(move.new, move.old, wait_s=0)
    assert move.step("dial").done


def test_one_goes_back_while_the_new_server_cannot_be_reached(move: Move) -> None:
    move.go("shadow", "dial", "new")
    stop(move.second)
    assert move.step("dial").done
    assert move.step("shadow").done
    with pytest.raises(TargetError):
        move.step("dial", percent=1)
    assert move.step("old").done


def test_a_server_that_may_not_be_written_is_refused(move: Move) -> None:
    add_user(move.second, "reader", "+@read +@connection")
    found = dual_switch(move.old, url_of(move.new, "reader"), "shadow", delay_s=0, dry_run=True)
    assert "NOPERM" in found.reasons[0]
    with pytest.raises(ValueError, match="both URLs name the same server"):
        dual_switch(move.old, move.old, "shadow", delay_s=0)
    move.go("shadow", "old")
    assert "run rdbkit sync OLD NEW when the step has been taken" in move.step("shadow").notes[0]


def test_nobody_is_overtaken(move: Move) -> None:
    def meanwhile(found: DualSwitch) -> bool:
        move.go("shadow")
        return True

    with pytest.raises(TargetError, match="somebody else has changed the state meanwhile"):
        move.step("shadow", confirm=meanwhile)
    assert not move.step("dial", confirm=lambda found: False).done


def test_in_a_file_and_not_by_a_function(move: Move, tmp_path: Path) -> None:
    path = str(tmp_path / "state.json")
    assert move.step("shadow", store=FileStore(path)).done
    assert FileStore(path).look().settings[0].state is State.SHADOW
    assert move.first.integer("EXISTS", "rdbkit:dual:default") == 0
    with pytest.raises(TargetError, match="cannot be set from here"):
        move.step("shadow", store=FunctionStore(lambda: State.OLD))


# -- the commands


def said(*arguments: str) -> tuple[int, str, str]:
    done = run_text(*arguments)
    return done.returncode, done.stdout, done.stderr


def test_the_command_takes_a_step_and_says_what_it_found(move: Move) -> None:
    servers = (move.old, move.new)
    code, out, _ = said("dual-switch", "shadow", *servers, "--yes", "--in", "1ms")
    assert code == 0
    assert out.startswith("the step from old to shadow is safe\n")
    assert "\nstate: shadow, since " in out
    assert "@" in out.splitlines()[-1]
    move.first.pipeline([("SET", "a", 1), ("SET", "b", 1, "PX", DAY)])
    move.second.call("SET", "k1", "other")
    code, out, _ = said("dual-switch", "dial", *servers, "--percent", "5", "--yes", "--in", "1ms")
    assert code == 1
    assert "the step from shadow to dial 5 % is not safe yet" in out
    assert "another value: k1 (db 0)" in out
    assert "repair them with rdbkit sync OLD NEW" in out
    code, out, _ = said("dual-switch", "dial", *servers, "--dry-run", "--compare", "0", "--json")
    assert code == 0
    assert json.loads(out)["done"] is False
    code, out, err = said("dual-switch", "new", *servers, "--yes")
    assert (code, out) == (2, "")
    assert "from shadow one cannot go to new at once: the next step is old or dial" in err


def test_the_status_says_when_the_old_server_may_be_left(move: Move) -> None:
    servers = (move.old, move.new)
    move.go("shadow")
    code, out, _ = said("dual-status", *servers)
    assert code == 0
    assert "state        shadow, since 1970-01-01 00:00:00 UTC, by test" in out
    assert "also on new  100 (100.0 %)" in out
    assert out.endswith("ready: new has all keys of old\n")
    code, out, _ = said("dual-status", *servers, "--compare", "all")
    assert (code, "compared     10" in out, "differ       0\n" in out) == (0, True, True)
    move.second.call("SET", "k7", "other")
    code, out, _ = said("dual-status", *servers, "--compare", "1000")
    assert (code, "differ       1\n" in out, "rdbkit sync OLD NEW" in out) == (1, True, True)
    move.second.call("SET", "k7", "7")
    move.first.pipeline([("SET", f"t{n}", 1, "PX", DAY) for n in range(20)])
    code, out, _ = said("dual-status", *servers, "--watch", "1ms")
    assert code == 1
    assert "on old alone  20 that expire, the last on 20" in out
    assert "99 % on new    20" in out
    assert "watched       20 keys for 0 s: 0 % were written and are on new, 0 gone" in out
    assert "not yet: wait until 20" in out
    move.first.call("SET", "forever", 1)
    code, out, _ = said("dual-status", *servers, "--pick", "50%", "--prefix", "f")
    assert code in (0, 1)
    code, out, _ = said("dual-status", *servers, "--samples", "3")
    assert code == 1
    assert "1 that never expire" in out
    assert "on old alone, without an expiry\n  forever\n" in out
    assert "rdbkit copy OLD NEW --no-ttl --on-exists skip" in out
    found = json.loads(said("dual-status", *servers, "--json")[1])
    assert (found["missing"], found["ready"], found["setting"]["state"]) == (21, False, "shadow")


def test_what_does_not_go_together_is_wrong_usage(tmp_path: Path) -> None:
    one = "redis://127.0.0.1:1"
    for arguments, words in (
        (("dual-switch", "shadow"), "name both servers"),
        (("dual-switch", "shadow", one, one), "--yes says that they may"),
        (("dual-switch", "there", one, one), "is not one of"),
        (("dual-switch", "dial", one, one, "--percent", "101"), "is not in the range"),
        (("dual-switch", "new", one, one, "--accept-missing", "100%"), "neither a number of keys nor a share"),
        (("dual-switch", "new", one, one, "--compare", "some"), "neither a number of keys nor all"),
        (("dual-switch", "new", one, "--control", "x"), "--control is instead of"),
    ):
        code, out, err = said(*arguments)
        assert (code, out) == (2, "")
        assert words in err
    code, _, err = said("dual-switch", "new", "--control", str(tmp_path / "none.sock"))
    assert code == 4
    assert "no proxy listens on this control socket" in err

"""How a process learns the state: from a store that is played here, at the moment that is set, also after a fork."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeAlias

import pytest

from rdbkit.dual.state_store import FileStore, FunctionStore, Look, open_store
from rdbkit.dual.states import BEGINNING, Setting, State
from rdbkit.dual.watch import Watch
from rdbkit.errors import TargetError
from rdbkit.live.server import Server

from ..processes import GUARD, until


class Played:
    """A store whose clock is its own."""

    def __init__(self, *settings: Setting) -> None:
        self.settings = list(settings)
        self.ahead_ms = 0.0
        self.error_ms = 0.5
        self.trouble: Exception | None = None
        self.kept: Exception | None = None
        self.looks = 0
        self.forgotten = 0
        self.closed = threading.Event()

    def now_ms(self) -> float:
        return time.monotonic() * 1000 + self.ahead_ms

    def look(self) -> Look:
        self.looks += 1
        if self.trouble is not None:
            raise self.trouble
        return Look(list(self.settings), self.now_ms(), self.error_ms)

    def write(self, setting: Setting) -> None:
        self.settings.append(setting)

    def restore(self, settings: Sequence[Setting]) -> None:
        if self.kept is not None:
            raise self.kept
        self.settings = list(settings)

    def followers(self) -> None:
        return None

    def forget(self) -> None:
        self.forgotten += 1

    def close(self) -> None:
        self.closed.set()


Watching: TypeAlias = Callable[[Played], Watch]
SHADOW = Setting(State.SHADOW, 0, 1, 1, "a@b")


@pytest.fixture
def watching() -> Iterator[Watching]:
    made: list[Watch] = []

    def make(store: Played) -> Watch:
        made.append(Watch(store, look_s=0.01))
        return made[-1]

    yield make
    for watch in made:
        watch.close()


def test_the_first_question_looks_and_nothing_set_is_the_beginning(watching: Watching) -> None:
    store = Played()
    watch = watching(store)
    assert (store.looks, watch.looked_s) == (0, None)
    assert watch.current == BEGINNING
    assert store.looks
    store.write(SHADOW)
    until(lambda: watch.current == SHADOW)
    assert watch.looked_s is not None
    assert watch.trouble is None
    watch.close()
    assert store.closed.wait(GUARD)
    assert watch.current == SHADOW


def test_what_cannot_be_read_at_first_is_not_guessed(watching: Watching) -> None:
    store = Played(SHADOW)
    store.trouble = TargetError("nobody there")
    watch = watching(store)
    for _ in range(2):
        with pytest.raises(TargetError, match="nobody there"):
            _ = watch.current
    store.trouble = None
    assert watch.current == SHADOW


def test_a_step_is_taken_at_its_moment_by_the_clock_of_the_store(watching: Watching) -> None:
    store = Played(SHADOW)
    store.ahead_ms = 86_400_000.0
    watch = watching(store)
    steps: list[tuple[Setting, Setting, float]] = []
    watch.on_change(lambda before, now: steps.append((before, now, store.now_ms())))
    assert watch.current == SHADOW
    assert not steps
    step = Setting(State.DIAL, 5, int(store.now_ms()) + 300, 2)
    store.write(step)
    until(lambda: steps)  # which is told a little after it holds
    ((before, now, at),) = steps
    assert watch.current == step
    assert (before, now) == (SHADOW, step)
    assert at >= step.effective_at_ms


def test_a_step_that_somebody_fails_at_is_told_and_the_next_one_is_taken(watching: Watching) -> None:
    store = Played(SHADOW)
    watch = watching(store)
    seen: list[int] = []

    def fail(before: Setting, now: Setting) -> None:
        seen.append(now.epoch)
        raise RuntimeError("no")

    watch.on_change(fail)
    watch.start()
    for epoch in (2, 3):
        store.write(Setting(State.DIAL, epoch, int(store.now_ms()) + 1, epoch))
        until(lambda: seen[-1:] == [epoch])  # noqa: B023 (it is called here alone)
        assert watch.current.epoch == epoch


def test_at_the_end_of_the_interpreter_each_question_looks(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(thread: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr("rdbkit.dual.watch.threading.Thread.start", refuse)
    store = Played(SHADOW)
    watch = watching(store)
    assert [watch.current, watch.current, store.looks] == [SHADOW, SHADOW, 2]


def test_while_a_step_is_near_no_look_can_hold_it_up(watching: Watching) -> None:
    released = threading.Event()

    class Hanging(Played):
        def look(self) -> Look:
            if self.looks:
                released.wait(GUARD)
            return super().look()

    store = Hanging(SHADOW)
    store.write(Setting(State.DIAL, 5, int(store.now_ms()) + 200, 2))
    watch = watching(store)
    watch.start()
    until(lambda: watch.current.state is State.DIAL)
    store.trouble = TargetError("it hangs")
    released.set()
    until(lambda: watch.trouble == "it hangs")
    assert watch.current.state is State.DIAL


def test_a_step_that_is_far_away_is_looked_at_again_and_may_be_replaced(watching: Watching) -> None:
    store = Played(SHADOW)
    store.write(Setting(State.DIAL, 5, int(store.now_ms()) + 86_400_000, 2))
    watch = watching(store)
    watch.start()
    store.write(Setting(State.OLD, 0, 0, 3))
    until(lambda: watch.current.epoch == 3)


def test_a_state_that_is_lost_or_older_is_put_back(watching: Watching) -> None:
    step = Setting(State.DIAL, 5, 2, 2)
    store = Played(SHADOW, step)
    watch = watching(store)
    assert watch.current == step
    for left in ([], [SHADOW]):
        store.settings = list(left)
        until(lambda: store.settings == [SHADOW, step])
    until(lambda: watch.trouble is None)
    store.kept = TargetError("it may only be read")
    store.settings = []
    until(lambda: watch.trouble == "the state is lost, and cannot be put back: it may only be read")
    assert watch.current == step


def test_a_process_that_cannot_look_goes_on_and_says_so(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdbkit.dual.watch.LATE_S", 0.05)
    store = Played(SHADOW)
    watch = watching(store)
    assert watch.current == SHADOW
    store.trouble = OSError()
    until(lambda: watch.trouble == "OSError" and watch.is_late)  # in this order: from a look that fails on, none succeeds
    assert watch.current == SHADOW
    assert watch.report() | {"clock_error_ms": 0} == {
        "state": "shadow", "state_epoch": 1, "state_late": True, "state_trouble": "OSError", "clock_error_ms": 0,
    }  # fmt: skip
    store.trouble = None
    until(lambda: not watch.is_late)


def test_the_clock_is_that_of_the_closest_look_until_it_is_set(watching: Watching) -> None:
    store = Played(SHADOW)
    watch = watching(store)
    watch.start()
    near_ms = 60_000  # more than threads of a busy machine are held up

    def off_by(ms: float) -> bool:
        return abs(watch.now_ms() - store.now_ms() - ms) < near_ms

    assert off_by(0)
    assert watch.clock_error_ms < near_ms
    store.error_ms, store.ahead_ms = 1_000_000, 600_000.0  # a slow answer: less is known than before
    looks = store.looks
    until(lambda: store.looks > looks + 3)
    assert off_by(-600_000)
    assert watch.clock_error_ms < near_ms
    store.ahead_ms = 86_400_000.0  # it was set
    until(lambda: off_by(0))
    assert watch.clock_error_ms >= 1_000_000


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_child_process_looks_by_itself(watching: Watching) -> None:
    store = Played(SHADOW)
    watch = watching(store)
    watch.start()
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            signal.alarm(GUARD)
            step = Setting(State.OLD, 0, 2, 2)
            looks = store.looks
            store.write(step)
            if watch.current == step and store.looks > looks and store.forgotten == 1:
                os.write(write, b"good")
        finally:  # whatever happens: the tests go on in one process only
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as answer:
        assert answer.read() == b"good"
    os.waitpid(pid, 0)
    assert watch.current == SHADOW


# -- stores without a server


def no_server() -> Server:
    raise AssertionError("nobody asks a server")


def test_a_file_keeps_settings_and_refuses_a_number_that_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    store = open_store(path, "x", no_server, None)
    assert isinstance(store, FileStore)
    assert store.look().settings == []
    step = Setting(State.DIAL, 12.5, 2, 2, "c@d")
    store.write(SHADOW)
    store.write(step)
    assert store.look().settings == [SHADOW, step]
    with pytest.raises(TargetError, match=r"somebody else has changed the state meanwhile; it is dial 12\.5 % now, by c@d"):
        store.write(Setting(State.NEW, 0, 3, 2, "e@f"))
    assert FileStore(str(path)).look().settings == [SHADOW, step]
    for text in ("{}", "[", '{"format": 1, "settings": {"1": {"state": "gone"}}}', '{"format": 1, "settings": 1}'):
        path.write_text(text)
        with pytest.raises(ValueError, match="is no state of a move between two caches"):
            store.look()


def test_a_function_gives_states_by_name_or_whole_settings() -> None:
    given: list[Setting | State | str] = ["shadow"]
    store = open_store(lambda: given[0], "x", no_server, None)
    assert isinstance(store, FunctionStore)
    assert store.look().settings == store.look().settings == [Setting(State.SHADOW, 0, 0, 1)]
    given[0] = Setting(State.DIAL, 5)
    assert store.look().settings == [Setting(State.DIAL, 5, 0, 2)]
    given[0] = "gone"
    with pytest.raises(ValueError, match="gone"):
        store.look()
    with pytest.raises(TargetError, match="cannot be set from here"):
        store.write(SHADOW)
    assert open_store(State.NEW, "x", no_server, None).look().settings == [Setting(State.NEW, 0, 0, 1)]
    with pytest.raises(ValueError, match=r"write|State\.NEW"):
        open_store("new", "x", no_server, None)
    for name in ("", "x" * 201):
        with pytest.raises(ValueError, match="the name of a move"):
            open_store(None, name, no_server, None)

"""The engine without servers: what becomes of marks, whatever happens to those who bring them over."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, cast

import pytest

from rdbkit.dual.engine import Engine
from rdbkit.dual.marks import Marks
from rdbkit.dual.metrics import Metrics
from rdbkit.errors import TargetError
from rdbkit.format.replies import Refusal
from rdbkit.live.mover import Mover
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.selection import Selection

from ..processes import until


class FakeMover:
    """Says what becomes of keys, and remembers which it was told of."""

    def __init__(self) -> None:
        self.moved: list[bytes] = []
        self.deleted: list[bytes] = []
        self.fates: dict[bytes, str] = {}
        self.details: dict[bytes, str] = {}
        self.streams: set[Any] = set()
        self.troubles: list[Exception] = []
        self.passes = threading.Event()
        self.passes.set()

    def move(self, db: int, keys: Sequence[bytes], *, replace: bool) -> dict[bytes, str]:
        self.passes.wait()
        if self.troubles:
            raise self.troubles.pop()
        self.moved += keys
        return {key: self.fates.pop(key) for key in keys if key in self.fates}

    def delete(self, db: int, keys: Sequence[bytes]) -> list[Refusal | None]:
        self.deleted += keys
        return [Refusal("NOPERM", "no") if key == b"kept" else None for key in keys]

    def forget(self) -> None:
        return

    def close(self) -> None:
        return


class FakeEngine(Engine):
    """An engine that has a mover without any connections."""

    def __init__(self, marks: Marks, mover: FakeMover, **options: Any) -> None:
        def nobody() -> Any:
            raise AssertionError

        self.metrics = Metrics()
        super().__init__(nobody, nobody, marks, self.metrics, **({"recheck": 0} | options))
        self.fake = mover

    def _connected(self) -> Mover:
        return cast("Mover", self.fake)


@pytest.fixture
def marks() -> Marks:
    return Marks()


@pytest.fixture
def mover() -> FakeMover:
    return FakeMover()


def test_nobody_has_to_ask_for_what_is_marked(marks: Marks, mover: FakeMover) -> None:
    """Whoever marks a key while the engine goes to sleep wakes it."""
    engine = FakeEngine(marks, mover, gather_s=0.0)
    engine.start()
    assert engine._thread is None, "there is nothing to do yet"
    for _ in range(50):
        threads = [threading.Thread(target=_mark, args=(marks, number)) for number in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        until(lambda: not len(marks))
    engine.close()
    assert len(set(mover.moved)) == 60


def _mark(marks: Marks, number: int) -> None:
    for each in range(20):
        marks.add(0, b"%d %d" % (number, each))


def test_marks_stay_while_a_side_is_away(marks: Marks, mover: FakeMover) -> None:
    mover.troubles = [TargetError("it is away", source="redis://new", key=b"a"), RuntimeError("unforeseen")]
    engine = FakeEngine(marks, mover)
    marks.add(0, b"a")
    marks.add(1, b"b")
    engine.start()
    assert engine.drain(60)
    assert sorted(mover.moved) == [b"a", b"b"]
    assert engine.metrics.total("outages") == 2
    assert [each["detail"] for each in engine.metrics.report()["samples"]] == [
        "RuntimeError('unforeseen')",
        "redis://new: it is away",
    ]
    assert not engine.needs_sync
    engine.close()


def test_what_becomes_of_keys(marks: Marks, mover: FakeMover) -> None:
    engine = FakeEngine(marks, mover)
    mover.fates = {b"changed": "changed", b"gone": "gone", b"kept": "gone", b"refused": "refused", b"lost": "left-out"}
    mover.details[b"refused"] = "too large"
    marks.add_many(0, [b"a", *mover.fates])
    assert engine.step()
    assert mover.deleted == [b"gone", b"kept", b"lost"], "an older value would be taken for what the key is now"
    assert len(marks) == 1, "what has changed while it was read is read again"
    was_short = engine.needs_sync
    assert was_short
    assert engine.metrics.total("failed") == 3
    assert engine.metrics.total("deleted") == 1
    samples = {each["key"]: each["detail"] for each in engine.metrics.report()["samples"]}
    assert samples == {"refused": "too large", "kept": "it was not deleted: NOPERM no", "lost": "the target does not support it"}
    marks.add_many(0, [b"refused", b"kept", b"lost"])
    assert engine.step()
    assert len(marks) == 0
    is_short = engine.needs_sync
    assert not is_short, "all were taken now"
    assert mover.moved[6:] == [b"changed", b"refused", b"kept", b"lost"]
    assert not engine.step()


def test_keys_that_were_not_selected_are_not_deleted(marks: Marks, mover: FakeMover) -> None:
    engine = FakeEngine(marks, mover, conversion=ConversionOptions(selection=Selection(keys=["ours:*"])))
    mover.fates = {b"theirs": "left-out"}
    marks.add(0, b"theirs")
    engine.step()
    assert mover.deleted == []
    assert not engine.needs_sync


def test_so_many_keys_a_second_are_compared(marks: Marks, mover: FakeMover, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    engine = FakeEngine(marks, mover, recheck=10)
    monkeypatch.setattr(engine, "_compare", lambda db, keys: compared.append(len(keys)))
    compared: list[int] = []
    marks.add_many(0, [b"%d" % number for number in range(30)])
    engine.step()
    assert not engine.step(), "it is not time yet"
    now += 1.5
    engine.step()
    assert not engine.step()
    now += 1.0
    marks.add(0, b"10")  # which will be compared later, and is not twice
    engine.step()
    now += 10.0
    engine.step()
    assert compared == [10, 10, 10]
    assert not engine.step()


def test_ending_brings_over_what_is_marked_and_a_later_start_begins_again(marks: Marks, mover: FakeMover) -> None:
    engine = FakeEngine(marks, mover, gather_s=0.0)
    engine.start()
    marks.add(0, b"a")
    assert engine.close()
    assert mover.moved == [b"a"]
    marks.add(0, b"b")
    assert engine._thread is None
    engine.start()
    assert engine.drain(60)
    assert engine.close()
    assert mover.moved == [b"a", b"b"]


def test_a_thread_that_does_not_end_and_the_next_one_do_not_work_at_once(marks: Marks, mover: FakeMover) -> None:
    engine = FakeEngine(marks, mover, gather_s=0.0)
    mover.passes.clear()
    engine.start()
    marks.add(0, b"a")
    until(lambda: engine._thread is not None and not marks._waiting)
    first = engine._thread
    assert not engine.close(0.0)
    engine.start()
    marks.add(0, b"b")
    until(lambda: engine._thread is not None)
    assert engine._thread is not first
    assert not engine.drain(0.0)
    mover.passes.set()
    assert engine.drain(60)
    assert mover.moved == [b"a", b"b"]
    engine.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_forked_process_has_a_thread_of_its_own(marks: Marks, mover: FakeMover) -> None:
    engine = FakeEngine(marks, mover)
    engine.start()
    marks.add(0, b"parent")
    assert engine.drain(60)
    child = os.fork()
    if child == 0:
        mover.moved.clear()
        marks.add(0, b"child")
        os._exit(0 if engine.drain(60) and mover.moved == [b"child"] and engine.metrics.total("transfers") == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    engine.close()
    assert mover.moved == [b"parent"]


def test_the_end_of_a_process_waits_for_what_it_has_marked() -> None:
    script = """
from tests.dual.test_engine import FakeEngine, FakeMover
from rdbkit.dual.marks import Marks
class Mover(FakeMover):
    def move(self, db, keys, *, replace):
        print(len(keys), flush=True)
        return {}
marks = Marks()
FakeEngine(marks, Mover(), gather_s=0.05).start()
marks.add_many(0, [b"a", b"b", b"c"])
"""
    assert subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, check=True).stdout in (
        b"3\n",
        b"1\n2\n",
        b"2\n1\n",
    )


def test_arguments_that_mean_nothing_are_refused(marks: Marks) -> None:
    with pytest.raises(ValueError, match="0 seconds or more"):
        FakeEngine(marks, FakeMover(), gather_s=-1)
    with pytest.raises(ValueError, match="0 or more"):
        FakeEngine(marks, FakeMover(), recheck=-1)

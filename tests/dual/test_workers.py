"""A proxy in several processes: what a process is told, and what its parent learns of it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import pytest

from rdbkit.dual.cutover import Cutover, NotSwitched, Switched
from rdbkit.dual.marks import Marks
from rdbkit.dual.metrics import Metrics
from rdbkit.dual.states import Side, State
from rdbkit.dual.workers import Process, ToParent, fork, obey
from rdbkit.errors import TargetError

from ..processes import GUARD
from .test_cutover import Mirror

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")


class Worker:
    """What a process has: it marks a key before it says that nothing is under way."""

    def __init__(self, to_parent: ToParent, fails: str = "") -> None:
        self.to_parent = to_parent
        self.fails = fails
        self.done: list[str] = []

    async def open(self, side: Side) -> None:
        self.done.append(f"open {side}")

    async def pause(self, limit_s: float) -> dict[str, int]:
        self.to_parent.add(3, b"last")
        self.to_parent.add_many(0, [b"a", b"b"])
        self.to_parent.count("needs_sync", 2, "flush")
        self.to_parent.sample("flush", 3, b"", "FLUSHDB")
        self.done.append("pause")
        return {"MONITOR": 1}

    async def prepare(self, side: Side) -> None:
        if self.fails == "prepare":
            raise TargetError("WRONGPASS")
        if self.fails == "end":
            os._exit(3)
        if self.fails == "hang":
            await asyncio.sleep(1000)
        self.done.append("prepare")

    async def commit(self, side: Side) -> int:
        self.done.append("commit")
        return 7

    async def undo(self) -> None:
        self.done.append("undo")

    async def turn(self, state: State) -> None:
        self.done.append(f"turn {state}")

    async def close(self) -> None:
        self.to_parent.add(0, b"at the end")

    async def report(self) -> Mapping[str, int]:
        return {each: at for at, each in enumerate(self.done)}


def with_processes(then: Callable[[list[Process], Marks, Metrics], Awaitable[Any]], *fails: str) -> Any:
    """Run something with a process for each way to fail."""

    def child(fails: str, sock: socket.socket) -> None:
        async def made(to_parent: ToParent) -> Worker:
            return Worker(to_parent, fails)

        asyncio.run(obey(sock, made))

    processes = [process for each in fails for process in fork(1, partial(child, each))]

    async def run() -> Any:
        marks, metrics = Marks(), Metrics()
        found: list[Process] = []
        for pid, sock in processes:
            process = Process(pid, sock, marks, metrics, found.remove)
            await process.start()
            found.append(process)
        everyone = list(found)
        try:
            return await then(found, marks, metrics)
        finally:
            for process in everyone:
                await process.close()
            for pid, _ in processes:
                os.waitpid(pid, 0)

    return asyncio.run(asyncio.wait_for(run(), GUARD))


def test_marks_come_before_the_answer() -> None:
    async def then(processes: list[Process], marks: Marks, metrics: Metrics) -> None:
        assert await processes[0].pause(1.0) == {"MONITOR": 1}
        assert dict(marks.take()) == {3: [b"last"], 0: [b"a", b"b"]}
        assert metrics.total("needs_sync") == 2
        assert metrics.report()["samples"][0]["detail"] == "FLUSHDB"
        await processes[0].turn(State.SHADOW)
        assert await processes[0].report() == {"pause": 0, "turn shadow": 1}

    with_processes(then, "")


def test_all_processes_are_switched() -> None:
    async def then(processes: list[Process], marks: Marks, _: Metrics) -> Switched:
        mirror = Mirror()
        found = await Cutover(processes, mirror, 60).switch("new", lambda: None)
        assert mirror.done[-1] == "start new"
        for each in processes:
            assert list(await each.report()) == ["open new", "pause", "prepare", "commit"]
        return found

    found = with_processes(then, "", "", "")
    assert (found.connections, found.closed) == (21, {"MONITOR": 3})


@pytest.mark.parametrize(("fails", "why"), [("prepare", "WRONGPASS"), ("end", "has ended"), ("hang", "longer than 0.2 s")])
def test_one_process_that_cannot_undoes_all(fails: str, why: str) -> None:
    async def then(processes: list[Process], *_: Any) -> None:
        mirror = Mirror()
        with pytest.raises(NotSwitched, match=why):
            await Cutover(processes, mirror, 0.2 if fails == "hang" else 60).switch("new", lambda: None)
        assert mirror.done[-1] == "start old"
        for each in processes:
            done = list(await each.report())
            assert "commit" not in done
            assert done[-1] == "undo"
        assert len(processes) == (2 if fails == "end" else 3)

    with_processes(then, "", fails, "")


def test_what_is_marked_at_the_end_comes_before_it() -> None:
    async def then(processes: list[Process], marks: Marks, _: Metrics) -> None:
        (process,) = processes
        await process.ready()
        await process.close()
        assert marks.take() == [(0, [b"at the end"])]

    with_processes(then, "")


def test_a_process_that_cannot_begin_says_why() -> None:
    async def made(to_parent: ToParent) -> Worker:
        raise TargetError("nobody there")

    ((pid, sock),) = fork(1, lambda theirs: asyncio.run(obey(theirs, made)))

    async def run() -> None:
        process = Process(pid, sock, Marks(), Metrics(), lambda _: None)
        await process.start()
        with pytest.raises(NotSwitched, match="nobody there"):
            await process.ready()

    asyncio.run(asyncio.wait_for(run(), GUARD))
    os.waitpid(pid, 0)


def test_a_process_without_its_parent_ends(capfd: pytest.CaptureFixture[str]) -> None:
    async def made(to_parent: ToParent) -> Worker:
        return Worker(to_parent)

    ((pid, sock),) = fork(1, lambda theirs: asyncio.run(obey(theirs, made)))
    sock.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
    assert "the parent of this process has ended" in capfd.readouterr().err


def test_a_killed_process_is_told_of() -> None:
    async def then(processes: list[Process], *_: Any) -> None:
        killed = processes[0]
        os.kill(killed.pid, signal.SIGKILL)
        with pytest.raises(NotSwitched, match="has ended"):
            await killed.report()
        assert killed not in processes
        assert await killed.commit("new") == 0
        await killed.undo()

    with_processes(then, "")


def test_what_the_parent_cannot_take_is_dropped_and_counted() -> None:
    sent: list[Any] = []

    async def run() -> None:
        to_parent = ToParent(sent.append, lambda: 1 << 40)
        to_parent.add_many(0, [b"a", b"b"])
        to_parent.flush()
        to_parent.flush()

    asyncio.run(asyncio.wait_for(run(), GUARD))
    assert sent == [("written", [], [], [], 2)]

"""The switch of a proxy, with connections and servers that are told what to do: whole or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from rdbkit.dual.cutover import Connections, Cutover, NotSwitched, Side, Switched, Waiting
from rdbkit.errors import TargetError

from ..processes import GUARD


class Connection:
    """A connection that waits for something, or is refused by the other side, and tells what was done with it."""

    def __init__(self, *waits: Waiting, fixed: str | None = None, ident: int | None = None, fails: str = "") -> None:
        self.side = "old"
        self.done: list[str] = []
        self._waits = list(waits)
        self._fixed = fixed
        self.ident = ident
        self._fails = fails

    def pause(self) -> None:
        self.done.append("pause")

    def waiting(self) -> Waiting | None:
        if not self._waits or "close" in self.done:
            return None
        return self._waits[0]

    def answered(self) -> None:
        self._waits.clear()

    def fixed(self) -> str | None:
        return self._fixed

    def unblock(self) -> int | None:
        return self.ident

    async def open(self, side: Side) -> None:
        await asyncio.sleep(0)
        if self._fails == "open":
            raise ConnectionRefusedError("nobody there")
        self.done.append("open")

    async def prepare(self, side: Side) -> None:
        await asyncio.sleep(0)
        if self._fails == "prepare":
            raise TargetError("WRONGPASS")
        if self._fails == "late":
            await asyncio.sleep(1000)
        self.done.append("prepare")

    def commit(self) -> None:
        self.done.append("commit")

    def undo(self) -> None:
        self.done.append("undo")

    def close(self) -> None:
        self.done.append("close")


class Mirror:
    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.done: list[str] = []

    def settle(self, wait_s: float) -> bool:
        self.done.append("settle")
        return self.fails != "ahead"

    def drain(self, wait_s: float) -> bool:
        self.done.append("drain")
        return self.fails != "drain"

    def check(self, wait_s: float) -> int:
        if self.fails == "check":
            raise NotSwitched("1 of 1,000 keys differs")
        return 1000

    def stop(self, wait_s: float) -> None:
        self.done.append("stop")
        if self.fails == "stop":
            raise NotSwitched("it goes on writing")

    def start(self, primary: Side) -> None:
        self.done.append(f"start {primary}")


def switched(
    connections: Sequence[Connection],
    mirror: Mirror,
    limit_s: float = 60.0,
    remember: Callable[[], None] = lambda: None,
    unblocked: list[int] | None = None,
) -> Switched:
    ids: list[int] = [] if unblocked is None else unblocked

    async def unblock(some: Sequence[int]) -> None:
        ids.extend(some)
        for each in connections:
            if each.ident in some:
                each.answered()

    async def run() -> Switched:
        half = len(connections) // 2
        workers = [Connections(some, unblock) for some in (connections[:half], connections[half:])]
        try:
            return await Cutover(workers, mirror, limit_s).switch("new", remember)
        finally:
            assert not any(each.paused for each in workers)

    return asyncio.run(asyncio.wait_for(run(), GUARD))


def test_all_go_on_at_the_other_side() -> None:
    connections = [Connection("reply"), Connection(), Connection("transaction")]
    mirror = Mirror()
    steps: list[str] = []

    def remember() -> None:
        steps.extend(mirror.done)
        assert not any("commit" in each.done for each in connections)

    answered_later(connections[0])
    answered_later(connections[2])
    found = switched(connections, mirror, remember=remember)
    assert (found.primary, found.connections, found.closed, found.checked) == ("new", 3, {}, 1000)
    assert found.pause_ms > 0
    assert connections[1].done == ["open", "pause", "prepare", "commit"]
    # it was written down once nobody writes to the other side any more, and that begins before a client goes on
    assert steps == ["settle", "drain", "stop"]
    assert mirror.done == ["settle", "drain", "stop", "start new"]


def answered_later(connection: Connection) -> None:
    """What is under way ends when it was looked at three times."""
    looks = 0
    waiting = connection.waiting

    def look() -> Waiting | None:
        nonlocal looks
        looks += 1
        if looks > 3:
            connection.answered()
        return waiting()

    connection.waiting = look  # type: ignore[method-assign]


@pytest.mark.parametrize("fails", ["ahead", "drain", "check", "stop"])
def test_what_the_mirror_cannot_do_is_undone(fails: str) -> None:
    connections = [Connection(), Connection()]
    mirror = Mirror(fails)
    with pytest.raises(NotSwitched):
        switched(connections, mirror)
    assert all(each.done[-1] == "undo" and "commit" not in each.done for each in connections)
    assert ("pause" in connections[0].done) == (fails != "ahead")
    assert ("start old" in mirror.done) == (fails == "stop")
    assert "start new" not in mirror.done


@pytest.mark.parametrize(("fails", "why"), [("open", "nobody there"), ("prepare", "WRONGPASS"), ("late", "longer than 0.1 s")])
def test_one_connection_that_the_other_side_does_not_take_undoes_all(fails: str, why: str) -> None:
    connections = [Connection(), Connection(), Connection(fails=fails), Connection()]
    mirror = Mirror()
    with pytest.raises(NotSwitched, match=why):
        switched(connections, mirror, limit_s=0.1 if fails == "late" else 60.0)
    assert all(each.done[-1] == "undo" and "commit" not in each.done for each in connections)
    assert mirror.done == ([] if fails == "open" else ["settle", "drain", "stop", "start old"])


def test_a_state_that_cannot_be_written_down_undoes_all() -> None:
    def remember() -> None:
        raise OSError("disk full")

    connections = [Connection()]
    mirror = Mirror()
    with pytest.raises(NotSwitched, match="disk full"):
        switched(connections, mirror, remember=remember)
    assert connections[0].done[-1] == "undo"
    assert mirror.done == ["settle", "drain", "stop", "start old"]


def test_what_is_not_of_ours_is_undone_and_raised() -> None:
    def remember() -> None:
        raise RuntimeError("a defect")

    connections = [Connection()]
    with pytest.raises(RuntimeError, match="a defect"):
        switched(connections, Mirror(), remember=remember)
    assert connections[0].done[-1] == "undo"


def test_a_reply_that_does_not_come_undoes_all_and_closes_nobody() -> None:
    connections = [Connection("reply"), Connection()]
    with pytest.raises(NotSwitched, match="1 connections still wait for a reply"):
        switched(connections, Mirror(), limit_s=0.1)
    assert [each.done[-1] for each in connections] == ["undo", "undo"]
    assert not any("close" in each.done for each in connections)


def test_commands_that_wait_for_data_are_ended() -> None:
    connections = [Connection("blocked", ident=7), Connection("blocked", ident=8), Connection()]
    ids: list[int] = []
    found = switched(connections, Mirror(), unblocked=ids)
    assert ids == [7, 8]
    assert found.closed == {}
    assert all(each.done[-1] == "commit" for each in connections)


def test_what_cannot_be_moved_is_closed() -> None:
    connections = [
        Connection("transaction"), Connection("request"), Connection("blocked"), Connection(fixed="MONITOR"), Connection(),
    ]  # fmt: skip
    found = switched(connections, Mirror(), limit_s=2.0)
    assert found.closed == {"transaction": 1, "request": 1, "blocked": 1, "MONITOR": 1}
    assert ["close" in each.done for each in connections] == [True] * 4 + [False]
    assert "pause" not in connections[3].done


def test_a_process_that_ends_meanwhile_undoes_all() -> None:
    connection = Connection()

    async def unblock(ids: Sequence[int]) -> None:
        raise AssertionError

    async def run(then: Coroutine[Any, Any, None]) -> None:
        workers = [Connections([connection], unblock), Connections([], unblock)]
        mirror = Mirror()
        stop = mirror.stop

        def ends(wait_s: float) -> None:
            stop(wait_s)
            workers.pop()

        mirror.stop = ends  # type: ignore[method-assign]
        with pytest.raises(NotSwitched, match="a process has ended"):
            await Cutover(workers, mirror).switch("new", lambda: None)
        assert connection.done[-1] == "undo"
        await then

    asyncio.run(run(asyncio.sleep(0)))

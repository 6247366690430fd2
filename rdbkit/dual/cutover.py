"""The switch of a proxy: connections pause, what they wrote is brought over, they go on at the other side; or nothing happened.

Everything that can fail is done before anything is changed: the new connections are open and have been told what the old ones were,
and the state is written down. From there on nothing waits for a server. Whatever fails before that is undone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final, Literal, Protocol, TypeAlias, TypeVar

from rdbkit.errors import RdbError, TargetError

__all__ = ["Connections", "Cutover", "Mirrored", "NotSwitched", "Proxied", "Side", "Switched", "Waiting", "Worker"]

Side: TypeAlias = Literal["old", "new"]

#: Why a connection cannot be moved at this moment: a request that was passed on by half, a reply that is awaited, that of a command
#: which waits for data, a transaction (MULTI, or WATCH without EXEC).
Waiting: TypeAlias = Literal["request", "reply", "blocked", "transaction"]

#: Seconds between two looks at connections that cannot be moved yet.
_LOOK_S: Final = 0.001
#: Seconds after which commands that wait for data are ended; most others are answered by then.
_UNBLOCK_S: Final = 0.01
#: After this share of the time that a pause may take, what only its client can end is closed.
_PATIENCE: Final = 0.5
#: The share of the time of a pause in which all requests under way have to be answered.
_PAUSE: Final = 0.8
#: Connections that are opened at a time.
_OPENING: Final = 64
#: Seconds that may be taken before the pause, to bring over what is behind and to open connections.
_AHEAD_S: Final = 30.0

_STEPS: Final = ("replies", "marks", "compare", "others")

_T = TypeVar("_T")


class NotSwitched(TargetError):
    """Nothing was changed: what was done for the switch is undone. The message says why."""


@dataclass(frozen=True)
class Switched:
    """What a switch did.

    Attributes:
        primary: the side that answers now.
        pause_ms: how long clients were not served, in milliseconds.
        connections: how many went on at the other side.
        closed: connections that could not be taken along, and were closed, by why.
        checked: keys that were compared while nobody wrote.
        steps_ms: what of the pause each step took: requests under way, what was written last, comparing it, all else.
    """

    primary: Side
    pause_ms: float
    connections: int
    closed: dict[str, int] = field(default_factory=dict)
    checked: int = 0
    steps_ms: dict[str, float] = field(default_factory=dict)


class Proxied(Protocol):
    """A client's connection through the proxy, as a switch needs it. All is called in the event loop of the connection.

    Once its client or its server has gone, `waiting` is None and all else does nothing.
    """

    def pause(self) -> None:
        """Take no more of the client than it needs to come to a place where it can be moved: no half request, no transaction."""

    def waiting(self) -> Waiting | None:
        """Why it cannot be moved at this moment; None where it can. Without `pause` it may change at any time."""

    def fixed(self) -> str | None:
        """Why it can never be moved, as "MONITOR"; None where it can."""

    def unblock(self) -> int | None:
        """The CLIENT ID of a command that is "blocked"; None where it is not known.

        CLIENT UNBLOCK follows. Where the answer is that nothing came, the client is not told: the command is sent again by `commit`
        or `undo`.
        """

    async def open(self, side: Side) -> None:
        """Open a connection to this side, beside the one in use. May be left out. Raises: OSError; TargetError."""

    async def prepare(self, side: Side) -> None:
        """Bring the connection to this side, opened where there is none, to where the one in use is: login, database and so on.

        Raises: OSError; TargetError where it is refused.
        """

    def commit(self) -> None:
        """Go on with the connection that was prepared. Never raises."""

    def undo(self) -> None:
        """Go on with the connection in use; close the other one, if any. Never raises."""

    def close(self) -> None:
        """Close the connection of the client, and its own."""


class Worker(Protocol):
    """The connections of one process. What raises is undone by `undo`."""

    async def open(self, side: Side) -> None:
        """Open connections to the other side, before the pause. Raises: OSError; TargetError."""

    async def pause(self, limit_s: float) -> dict[str, int]:
        """Wait until no request is under way, and what was written is marked. Raises: NotSwitched where that takes longer.

        Returns: connections that had to be closed, by why.
        """

    async def prepare(self, side: Side) -> None:
        """All that can fail before `commit`. Raises: OSError; TargetError."""

    async def commit(self, side: Side) -> int:
        """Go on at this side. Returns: how many connections did."""

    async def undo(self) -> None:
        """Go on as before. Also after `open` alone, and twice."""


class Mirrored(Protocol):
    """What brings writes to the other side. Its methods wait, in a thread of their own."""

    def drain(self, wait_s: float) -> bool:
        """Whether all that was marked before is on the other side within this time."""

    def settle(self, wait_s: float) -> bool:
        """As `drain`, and other work is left for later."""

    def check(self, wait_s: float) -> int:
        """Compare keys that were written last. Returns: how many. Raises: NotSwitched where one differs; TargetError."""

    def stop(self, wait_s: float) -> None:
        """Nothing is written to the other side from here on. Raises: NotSwitched where that takes longer."""

    def start(self, primary: Side) -> None:
        """Bring over what is written on this side. Never raises."""


class Connections:
    """The connections of this process.

    Args:
        connections: those there are at the moment; the proxy adds and removes them.
        unblock: sends CLIENT UNBLOCK for these ids to the side in use.

    Attributes:
        paused: a connection that comes while this is true is to be paused at once.
    """

    def __init__(self, connections: Collection[Proxied], unblock: Callable[[Sequence[int]], Awaitable[None]]) -> None:
        self._connections = connections
        self._unblock = unblock
        self.paused = False

    async def open(self, side: Side) -> None:
        """As `Worker.open`."""
        gate = asyncio.Semaphore(_OPENING)

        async def opened(each: Proxied) -> None:
            async with gate:
                await each.open(side)

        await _all(opened(each) for each in list(self._connections) if each.fixed() is None)

    async def pause(self, limit_s: float) -> dict[str, int]:
        """As `Worker.pause`."""
        self.paused = True
        closed: dict[str, int] = {}
        begun = time.monotonic()
        for each in list(self._connections):
            why = each.fixed()
            if why is None:
                each.pause()
            else:
                closed[why] = closed.get(why, 0) + 1
                each.close()
        unblocking: asyncio.Task[None] | None = None
        unblock_at = begun + _UNBLOCK_S
        patience = limit_s * _PATIENCE
        try:
            while left := [each for each in list(self._connections) if each.waiting() is not None]:
                passed = time.monotonic() - begun
                if time.monotonic() > unblock_at and (unblocking is None or unblocking.done()):
                    ids = [found for each in left if each.waiting() == "blocked" and (found := each.unblock()) is not None]
                    if ids:  # again and again: a command that has not come to its server yet cannot be ended
                        unblocking = asyncio.ensure_future(self._unblock(ids))
                    unblock_at = time.monotonic() + _UNBLOCK_S
                if passed > patience:
                    for each in left:
                        if (why := each.waiting()) not in (None, "reply"):
                            closed[str(why)] = closed.get(str(why), 0) + 1
                            each.close()
                if passed > limit_s and (late := sum(each.waiting() is not None for each in left)):
                    raise NotSwitched(f"{late:,} connections still wait for a reply after {limit_s:g} s")
                await asyncio.sleep(_LOOK_S)
        finally:
            if unblocking is not None:
                unblocking.cancel()
                await asyncio.gather(unblocking, return_exceptions=True)
        return closed

    async def prepare(self, side: Side) -> None:
        """As `Worker.prepare`."""
        await _all(each.prepare(side) for each in list(self._connections))

    async def commit(self, side: Side) -> int:
        """As `Worker.commit`."""
        self.paused = False
        moved = list(self._connections)
        for each in moved:
            each.commit()
        return len(moved)

    async def undo(self) -> None:
        """As `Worker.undo`."""
        self.paused = False
        for each in list(self._connections):
            each.undo()


class Cutover:
    """Switches all workers from one side to the other, whole or not at all.

    Args:
        workers: those there are at the moment.
        mirror: what brings writes to the other side.
        limit_s: seconds that a pause may take; what takes longer is undone.
    """

    def __init__(self, workers: Collection[Worker], mirror: Mirrored, limit_s: float = 2.0) -> None:
        self._workers = workers
        self._mirror = mirror
        self._limit_s = limit_s

    async def switch(self, side: Side, remember: Callable[[], None]) -> Switched:
        """Let all connections go on at this side.

        Args:
            side: where to.
            remember: writes down that this side is in use; the switch is decided by that. It waits, in a thread of its own. Raises:
                OSError; RdbError.

        Raises: NotSwitched where anything fails; then all goes on as before.
        """
        before: Side = "old" if side == "new" else "new"
        stopped = False
        paused: float | None = None
        try:
            async with asyncio.timeout(_AHEAD_S):
                await _all(each.open(side) for each in list(self._workers))
            if not await asyncio.to_thread(self._mirror.settle, _AHEAD_S):
                raise NotSwitched(f"what was written on the {before} side is not on the {side} side after {_AHEAD_S:g} s")
            workers = list(self._workers)
            paused = time.monotonic()
            end = paused + self._limit_s
            closed = _sum(await _all(each.pause(self._limit_s * _PAUSE) for each in workers))
            times = [paused, time.monotonic()]
            # new connections are told what the old ones were while what was written last is brought over
            preparing = asyncio.ensure_future(_all(each.prepare(side) for each in workers))
            try:
                # each ends by itself, since a thread cannot be ended
                if not await asyncio.to_thread(self._mirror.drain, end - time.monotonic()):
                    raise NotSwitched(f"what was written last is not on the {side} side after {self._limit_s:g} s")
                times.append(time.monotonic())
                checked = await asyncio.to_thread(self._mirror.check, end - time.monotonic())
                times.append(time.monotonic())
                stopped = True
                await asyncio.to_thread(self._mirror.stop, end - time.monotonic())
                async with asyncio.timeout_at(asyncio.get_running_loop().time() + end - time.monotonic()):
                    await preparing
            finally:
                preparing.cancel()
                await asyncio.gather(preparing, return_exceptions=True)
            if set(map(id, self._workers)) != set(map(id, workers)):
                raise NotSwitched("a process has ended meanwhile")
            await asyncio.to_thread(remember)
        except BaseException as e:
            await self._undo(before, stopped)
            if not isinstance(e, OSError | RdbError):
                raise
            raise NotSwitched(self._why(e, paused)) from None
        # decided: from here on nothing can fail, and nothing waits for a server
        self._mirror.start(side)
        moved = await _all(each.commit(side) for each in workers)
        times.append(time.monotonic())
        steps = dict(zip(_STEPS, (round((b - a) * 1000, 1) for a, b in pairwise(times)), strict=True))
        return Switched(side, round((times[-1] - paused) * 1000, 1), sum(moved), closed, checked, steps)

    async def _undo(self, before: Side, stopped: bool) -> None:
        if stopped:
            self._mirror.start(before)
        await asyncio.gather(*(each.undo() for each in list(self._workers)), return_exceptions=True)

    def _why(self, e: OSError | RdbError, paused: float | None) -> str:
        if isinstance(e, TimeoutError) and not e.args:
            return f"it took longer than {_AHEAD_S if paused is None else self._limit_s:g} s"
        return str(e)


def _sum(counts: Iterable[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for each in counts:
        for why, number in each.items():
            total[why] = total.get(why, 0) + number
    return total


async def _all(each: Iterable[Awaitable[_T]]) -> list[_T]:
    """What all of them give. None is still under way when this ends. Raises: what the first of them raises."""
    done = await asyncio.gather(*each, return_exceptions=True)
    found: list[_T] = []
    for one in done:
        if isinstance(one, BaseException):
            raise one
        found.append(one)
    return found

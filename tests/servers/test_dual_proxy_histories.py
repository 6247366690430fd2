"""Random histories of clients of a proxy that is switched there and back: both caches are equal at the end, and would not be if
commands were sent to both.
"""

from __future__ import annotations

import asyncio
import math
import random
import sys
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fixtures.server import Client, ServerError
from rdbkit.dual.control import ask
from rdbkit.live.copy import copy

from ..live.oracle import Content, content, differences, tolerance_ms
from ..live.writers import random_commands
from ..processes import GUARD, until
from ..rdb import exhaustive, rarely
from .test_dual_cutover import Connection, Proxied, request, run
from .test_dual_service import ended, proxy
from .test_follow import url
from .test_verify_copy import two
from .test_verify_import import port_of

_CLIENTS = 3
_KEYS = 12
_DATABASES = (0, 1)
#: So many keys may seem to be missing before a switch: those that are deleted and made again all the time may be on their way.
_ON_THEIR_WAY = 12
#: Fails after it has written.
_PARTLY = "redis.call('SET', KEYS[1], 1); redis.call('RPUSH', KEYS[2], 1); redis.call('RPUSH', KEYS[1], 1)"
#: So many are answered in each state, of all clients together.
_REQUESTS = 300

PAIRS = [("redis-7.0", "redis-7.0"), ("redis-6.0", "redis-8.0"), ("redis-8.0", "redis-6.0"), ("valkey-9.1", "valkey-9.1")]
CASES = [
    pytest.param(one, other, seed, marks=() if (one, seed) == ("redis-7.0", 0) else exhaustive)
    for one, other in PAIRS
    for seed in range(3)
]


def commands_of(rng: random.Random, fields_expire: bool) -> list[tuple[Any, ...]]:
    """Some commands, as applications send them in one go; a transaction is whole, and so is a request without a reply."""

    def name(of: str) -> str:
        return f"{of}{rng.randrange(_KEYS)}"

    found: list[tuple[Any, ...]] = []
    for _ in range(rng.randint(1, 6)):
        some: list[tuple[Any, ...]] = random_commands(rng, 1, keys=_KEYS, databases=_DATABASES)
        if some[0][0] == "HEXPIRE" and not fields_expire:
            continue
        dice = rng.randrange(20)
        if dice == 0:
            some = [("EVAL", _PARTLY, 2, name("s"), name("l"))]
        elif dice == 1:
            some = [("BRPOPLPUSH", name("l"), name("l"), "0.01"), ("BLPOP", name("l"), name("x"), "0.01")]
        elif dice == 2:
            inside = random_commands(rng, 1, keys=_KEYS)
            some = [("WATCH", name("s")), ("MULTI",), ("SELECT", rng.choice(_DATABASES)), ("APPEND", name("s"), "x")]
            some += [each for each in inside if each[0] not in ("MULTI", "EXEC", "HEXPIRE")]
            some += [(rng.choice(("EXEC", "EXEC", "DISCARD")),)]
        elif dice == 3 and len(some) == 1:
            some = [("CLIENT", "REPLY", "SKIP"), *some]
        found += some
    return found


class Writers:
    """Clients that send random requests until they are to end.

    Args:
        connect: gives the connections of a client, over each of which it sends all.
        seed: of what they send.
        fields_expire: whether both servers have fields that expire.
    """

    def __init__(self, connect: Callable[[], Awaitable[list[Connection]]], seed: int, fields_expire: bool) -> None:
        self._connect = connect
        self._seed = seed
        self._fields_expire = fields_expire
        self._sent = 0
        self._is_over = False

    async def run(self, then: Callable[[], Awaitable[object]]) -> None:
        """Send while something else is done. Raises: ExceptionGroup where a connection ends, or what that raises."""
        async with asyncio.TaskGroup() as group:
            for number in range(_CLIENTS):
                group.create_task(self._write(number))
            await self.some()
            await then()
            self._is_over = True

    async def some(self) -> None:
        """Wait until so many more requests are answered."""
        wanted = self._sent + _REQUESTS
        while self._sent < wanted:
            await asyncio.sleep(0.001)

    async def _write(self, number: int) -> None:
        clients = await self._connect()
        try:
            await self._send(clients, number)
        finally:
            for client in clients:
                await client.close()

    async def _send(self, clients: list[Connection], number: int) -> None:
        rng = random.Random(self._seed * _CLIENTS + number)
        if number == 0:
            for client in clients:
                await client.call("HELLO", 3)
        while not self._is_over:
            commands = commands_of(rng, self._fields_expire)
            data = b"".join(request(*each) for each in commands)
            cut = rng.randrange(len(data) + 1)
            for client in clients:
                client.writer.write(data[:cut])
            await asyncio.sleep(0)
            for client in clients:
                client.writer.write(data[cut:])
            unanswered = 2 * sum(each[0] == "CLIENT" for each in commands)
            for client in clients:
                for _ in range(len(commands) - unanswered):
                    await client.reply()
            self._sent += len(commands)


async def there_and_back(writers: Writers, switch: Callable[[str], Awaitable[object]]) -> None:
    for to in ("new", "shadow"):
        await switch(to)
        await writers.some()


def kept(client: Client) -> Content:
    """All that a server has, once nothing is left that ends within a minute."""
    found: Content = {}

    def is_left() -> bool:
        try:
            rows = content(client)
        except (TypeError, KeyError, ServerError):  # something has expired between two questions
            return False
        ends = [row.expire_ms for row in rows.values() if row.expire_ms is not None]
        for row in rows.values():
            if row.type == "hash" and isinstance(row.value, dict):
                ends += row.value["field_expire_ms"].values()
        found.clear()
        found.update(rows)
        return min(ends, default=math.inf) > (time.time() + 60) * 1000

    until(is_left)
    assert found
    return found


def begin(client: Client, seed: int) -> None:
    """Keys that were there before anything was mirrored."""
    client.answers(random_commands(random.Random(seed), 1000, keys=_KEYS, databases=_DATABASES))
    client.call("SELECT", 0)


async def backfill(old: Client, new: Client) -> None:
    """Copy what is not there yet, a few keys at a time."""
    await asyncio.to_thread(copy, url(old), url(new), on_exists="skip", batch=3, max_latency_ms=None)


@pytest.mark.parametrize("is_filled", [False, True], ids=["empty", "backfill"])
@pytest.mark.parametrize(("one", "other", "seed"), CASES)
def test_at_the_end_both_are_equal(one: str, other: str, seed: int, is_filled: bool) -> None:
    async def then(proxy: Proxied) -> None:
        async def connect() -> list[Connection]:
            return [await proxy.client()]

        writers = Writers(connect, seed, one == other == "valkey-9.1")

        async def switched() -> None:
            if is_filled:
                await backfill(proxy.old, proxy.new)
            await there_and_back(writers, partial(proxy.switch, accept_missing=_ON_THEIR_WAY))

        if is_filled:
            begin(proxy.old, seed)
        await writers.run(switched)
        assert await asyncio.to_thread(proxy.mirror.drain, GUARD)
        await asyncio.to_thread(proxy.mirror.stop, GUARD)
        assert differences(kept(proxy.old), kept(proxy.new), tolerance_ms(one, other)) == []

    run(then, one, other)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.parametrize("seed", rarely(0, 1))
def test_several_processes(seed: int, tmp_path: Path) -> None:
    control = str(tmp_path / "s")
    with (
        two() as (old, new, one, other),
        proxy(one, other, "--control", control, "--processes", "2", "--pause-limit", "60s") as (process, port),
    ):

        async def connect() -> list[Connection]:
            return [Connection(*await asyncio.open_connection("127.0.0.1", port))]

        async def switch(to: str) -> None:
            await asyncio.to_thread(ask, control, "switch", to=to, compare=0, accept_missing=_ON_THEIR_WAY)

        writers = Writers(connect, seed, False)
        asyncio.run(writers.run(partial(there_and_back, writers, switch)))
        assert ended(process) == (0, "")
        assert differences(kept(old), kept(new)) == []


def test_what_replays_is_found_out() -> None:
    with two() as (old, new, _, _):

        async def connect() -> list[Connection]:
            return [Connection(*await asyncio.open_connection("127.0.0.1", port_of(each))) for each in (old, new)]

        begin(old, 0)
        asyncio.run(Writers(connect, 0, False).run(partial(backfill, old, new)))
        assert differences(kept(old), kept(new))

"""`rdbkit.dual.asyncio` with real servers: what is written on one side comes to the other, and commands go where they should."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis

from fixtures.server import running
from rdbkit.dual import Setting, State
from rdbkit.dual.asyncio import Redis
from rdbkit.dual.pair import Pair

from .test_verify_import import port_of

SERVERS = Path(os.environ["RDBKIT_SERVERS"])


class Sides(NamedTuple):
    old: redis.Redis
    new: redis.Redis
    urls: tuple[str, str]
    pairs: list[Pair]

    def client(self, state: Any, **kwargs: Any) -> Any:
        """A client in a state, or in the one that a function gives."""
        made = Redis.from_urls(*self.urls, state=state if callable(state) else lambda: state, look_s=0.02, **kwargs)
        self.pairs.append(made.dual)
        return made


class Switched:
    """A state that a test changes."""

    def __init__(self, state: State) -> None:
        self.setting = Setting(state)

    def __call__(self) -> Setting:
        return self.setting

    async def go(self, client: Any, state: State) -> None:
        self.setting = Setting(state)
        await until(lambda: client.dual.known_route is not None and client.dual.known_route.setting.state is state)


async def until(there: Callable[[], object]) -> None:
    while not there():
        await asyncio.sleep(0.01)


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[str, str]]:
    with (
        running(SERVERS / "redis-6.0" / "redis-server") as (first, _),
        running(SERVERS / "valkey-9.1" / "redis-server") as (second, _),
    ):
        yield f"redis://127.0.0.1:{port_of(first)}", f"redis://127.0.0.1:{port_of(second)}"


@pytest.fixture
def sides(servers: tuple[str, str]) -> Iterator[Sides]:
    with redis.Redis.from_url(servers[0]) as old, redis.Redis.from_url(servers[1]) as new:
        old.flushall()
        new.flushall()
        sides = Sides(old, new, servers, [])
        yield sides
        for pair in sides.pairs:
            pair.close(0)  # what it would compare later are keys of the next test


def test_in_shadow_the_old_side_answers_and_the_new_one_gets_the_same(sides: Sides) -> None:
    async def run() -> None:
        async with sides.client(State.SHADOW) as client:
            assert issubclass(type(client), redis.asyncio.Redis)
            sides.new.set("n", 100)  # what is wrong there is made right
            assert await client.set("k", "v", ex=100) is True
            assert sorted(await asyncio.gather(*(client.incr("n") for _ in range(20)))) == list(range(1, 21))
            assert await client.hset("h", mapping={"a": 1, "b": 2}) == 2
            assert await client.eval("return redis.call('SET', KEYS[1], ARGV[1])", 1, "by-script", 1) == b"OK"
            assert await client.register_script("return redis.call('INCR', KEYS[1])")(keys=["by-script"]) == 2
            async with client.lock("lock", timeout=100, thread_local=False):
                assert await client.drain()
                assert sides.new.get("lock") == sides.old.get("lock") is not None
            assert [key async for key in client.scan_iter("h*")] == [b"h"]
            assert await client.drain()

    asyncio.run(run())
    assert sides.new.get("k") == b"v"
    assert 0 < sides.new.ttl("k") <= 100
    assert sides.new.get("n") == b"20"
    assert sides.new.hgetall("h") == {b"a": b"1", b"b": b"2"}
    assert sides.new.get("by-script") == b"2"
    assert not sides.new.exists("lock")


@pytest.mark.parametrize(("state", "side"), [(State.OLD, "old"), (State.DONE, "new")])
def test_before_and_after_only_one_side_is_used(sides: Sides, state: State, side: str) -> None:
    async def run() -> None:
        async with sides.client(state) as client:
            await client.set("k", "v")
            assert await client.get("k") == b"v"
            assert await client.drain()

    asyncio.run(run())
    assert (sides.old.exists("k"), sides.new.exists("k")) == ((1, 0) if side == "old" else (0, 1))


def test_a_client_closes_what_it_has_made(sides: Sides) -> None:
    async def run() -> None:
        old = redis.asyncio.Redis.from_url(sides.urls[0])
        async with Redis(old=old, new=sides.urls[1], state=State.SHADOW) as client:
            sides.pairs.append(client.dual)
            await client.set("k", 1)
            new = client._clients["new"]
            await new.ping()
            kept = old.connection_pool._available_connections[0]
            closed = new.connection_pool._available_connections[0]
            assert await client.drain()
        assert kept.is_connected
        assert not closed.is_connected
        async with Redis.from_url(sides.urls[1], new=old, state=State.DONE) as client:
            assert await client.get("k") == b"1"
        assert kept.is_connected
        await old.aclose()

    asyncio.run(run())


def test_pipelines_and_transactions(sides: Sides) -> None:
    async def run() -> None:
        async with sides.client(State.SHADOW) as client:
            async with client.pipeline() as pipe:
                assert issubclass(type(pipe), redis.asyncio.client.Pipeline)
                assert await pipe.set("a", 1).incr("a").get("a").execute() == [True, 2, b"2"]
            async with client.pipeline(transaction=False) as pipe:
                pipe.set("b", 1).lpush("b", 1).set("c", 1)
                assert len(pipe) == 3
                with pytest.raises(redis.ResponseError, match=r"Command # 2 \(LPUSH b 1\)"):
                    await pipe.execute()
            script = client.register_script("return redis.call('SET', KEYS[1], ARGV[1])")
            async with client.pipeline() as pipe:
                await script(keys=["by-script"], args=[7], client=pipe)
                assert await pipe.execute() == [b"OK"]
            async with client.pipeline() as pipe:
                await pipe.watch("a")
                assert await pipe.get("a") == b"2"
                await pipe.set("at-once", 1)
                pipe.multi()
                pipe.set("a", 3)
                assert await pipe.execute() == [True]
            async with client.pipeline() as pipe:
                await pipe.watch("w")
                sides.old.set("w", 4)
                pipe.multi()
                pipe.set("w", 5)
                with pytest.raises(redis.WatchError):
                    await pipe.execute()

            async def double(pipe: Any) -> None:
                value = int(await pipe.get("d") or 1)
                pipe.multi()
                pipe.set("d", value * 2)

            assert await client.transaction(double, "d") == [True]
            assert await client.drain()

    asyncio.run(run())
    found = {key: sides.new.get(key) for key in ("a", "b", "c", "d", "at-once", "by-script")}
    assert found == {"a": b"3", "b": b"1", "c": b"1", "d": b"2", "at-once": b"1", "by-script": b"7"}


def test_a_dialled_share_is_read_from_the_new_side(sides: Sides) -> None:
    async def run() -> None:
        async with sides.client(lambda: Setting(State.DIAL, 100)) as client:
            sides.new.set("k", "new")
            sides.old.set("k", "old")
            sides.old.set("only-old", "there")
            assert await client.get("k") == b"new"
            assert await client.get("only-old") == b"there"
            assert client.dual.report()["fallbacks"] == 1
        async with sides.client(lambda: Setting(State.DIAL, 0)) as client:
            assert await client.get("k") == b"old"

    asyncio.run(run())


def test_reads_are_compared(sides: Sides) -> None:
    async def run() -> None:
        async with sides.client(State.SHADOW, compare=1.0) as client:
            for side in (sides.old, sides.new):
                side.set("k", "v")
            assert await client.get("k") == b"v"
            await until(lambda: client.dual.metrics.total("compared") == 1)
            assert client.dual.metrics.total("differs") == 0

    asyncio.run(run())


def test_a_task_that_is_cancelled_leaves_its_mark(sides: Sides) -> None:
    async def run() -> None:
        async with sides.client(State.SHADOW) as client:
            sides.new.rpush("list", "stale")
            task = asyncio.create_task(client.blpop("list", 0))
            await until(lambda: sides.old.info("clients")["blocked_clients"] == 1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: not sides.new.exists("list"))

    asyncio.run(run())


def test_a_switch_loses_no_write(sides: Sides) -> None:
    async def run() -> None:
        state = Switched(State.SHADOW)
        async with sides.client(state, switch_wait_s=60) as client:
            counted = [0] * 4
            ends = False

            def is_above(number: int) -> bool:
                return min(counted) > number

            async def count(at: int) -> None:
                while not ends:
                    await client.incr("n")
                    counted[at] += 1

            tasks = [asyncio.create_task(count(at)) for at in range(4)]
            await until(lambda: min(counted) > 20)
            for step in (State.DIAL, State.NEW, State.DIAL, State.NEW):
                await state.go(client, step)
                await until(partial(is_above, min(counted) + 20))
            ends = True
            await asyncio.gather(*tasks)
            assert not client.dual.needs_sync
            assert await client.get("n") == b"%d" % sum(counted)
            assert await client.drain()
            assert sides.old.get("n") == sides.new.get("n")

    asyncio.run(run())


def test_a_switch_ends_a_watch(sides: Sides) -> None:
    async def run() -> None:
        state = Switched(State.DIAL)
        async with sides.client(state) as client, client.pipeline() as pipe:
            await pipe.watch("k")
            await state.go(client, State.NEW)
            pipe.multi()
            pipe.set("k", 1)
            with pytest.raises(redis.WatchError, match="switched"):
                await pipe.execute()
            assert await pipe.set("k", 2).execute() == [True]
            assert sides.new.get("k") == b"2"

    asyncio.run(run())


def test_subscribers_move_with_the_switch(sides: Sides) -> None:
    async def run() -> None:
        state = Switched(State.DIAL)
        async with sides.client(state) as client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
            heard: list[Any] = []
            await pubsub.subscribe(c=heard.append)
            await pubsub.psubscribe("p*")
            assert await pubsub.get_message(timeout=0.1) is None
            await until(lambda: sides.old.publish("c", "1") == 1)
            await state.go(client, State.NEW)
            while sides.new.publish("c", "2") != 1:
                await pubsub.get_message(timeout=0.01)
            while len(heard) < 2:
                await pubsub.get_message(timeout=0.01)
            assert [each["data"] for each in heard] == [b"1", b"2"]
            await until(lambda: sides.old.publish("c", "3") == 0)
            sides.new.publish("p1", "4")
            async for message in pubsub.listen():
                assert message["data"] == b"4"
                break

    asyncio.run(run())

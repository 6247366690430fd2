"""`rdbkit.dual.RedisCluster`, for threads and for asyncio: between two clusters, and between a cluster and a single server."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis

import rdbkit.dual.asyncio
from fixtures.server import running
from rdbkit.dual import RedisCluster, Setting, State

from ..live.cluster import Cluster, cluster
from ..processes import until
from .test_verify_import import port_of

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
HAVE_TRANSACTIONS = pytest.mark.skipif(
    redis.__version__.startswith("5."), reason="clients of clusters have transactions since redis-py 6"
)
MOVES = [("cluster", "other cluster"), ("single", "cluster"), ("cluster", "single")]


class Place(NamedTuple):
    """A server or cluster, and a client of it that shares no code with those that are tested."""

    url: str
    plain: Any

    @property
    def is_cluster(self) -> bool:
        return isinstance(self.plain, redis.RedisCluster)


class Sides:
    """Two of the places."""

    def __init__(self, old: Place, new: Place) -> None:
        self.places = old, new
        self.old, self.new = old.plain, new.plain
        self.setting = Setting(State.SHADOW)
        self.duals: list[Any] = []

    def go(self, client: Any, state: State) -> None:
        self.setting = Setting(state)
        until(lambda: self.is_in(client, state))

    def is_in(self, client: Any, state: State) -> bool:
        route = client.dual.known_route
        return route is not None and route.setting.state is state

    def client(self, kind: Any = RedisCluster, module: Any = redis) -> Any:
        """A client of the two."""
        old, new = (
            place.url if place.is_cluster else module.Redis.from_url(place.url, decode_responses=True) for place in self.places
        )
        kwargs = {"new": new, "state": lambda: self.setting, "look_s": 0.02, "switch_wait_s": 60}
        client = kind(old=old, **kwargs) if not isinstance(old, str) else kind.from_url(old, decode_responses=True, **kwargs)
        self.duals.append(client.dual)
        return client

    @asynccontextmanager
    async def asyncio_client(self) -> AsyncIterator[Any]:
        """As `client`, for asyncio; what was given to it is closed by us."""
        async with self.client(rdbkit.dual.asyncio.RedisCluster, redis.asyncio) as client:
            yield client
        given = {side: client._clients[side] for side in client._given}
        assert list(given) == [side for side, place in zip(("old", "new"), self.places, strict=True) if not place.is_cluster]
        for each in given.values():
            assert await each.ping()
            await each.aclose()


@pytest.fixture(scope="module")
def places() -> Iterator[dict[str, Place]]:
    def place(made: Cluster) -> Place:
        return Place(made.url, redis.RedisCluster.from_url(made.url, decode_responses=True))

    with (
        cluster(SERVERS / "redis-7.0" / "redis-server", 3) as first,
        cluster(SERVERS / "valkey-9.1" / "redis-server", 2) as second,
        running(SERVERS / "redis-6.0" / "redis-server") as (single, _),
    ):
        url = f"redis://127.0.0.1:{port_of(single)}"
        yield {
            "cluster": place(first),
            "other cluster": place(second),
            "single": Place(url, redis.Redis.from_url(url, decode_responses=True)),
        }


@pytest.fixture(params=MOVES, ids="-to-".join)
def sides(request: pytest.FixtureRequest, places: dict[str, Place]) -> Iterator[Sides]:
    old, new = (places[name] for name in request.param)
    for each in (old, new):
        each.plain.flushall()
    made = Sides(old, new)
    yield made
    for dual in made.duals:
        dual.close()  # what it compares later would be another test's


def found(plain: Any) -> dict[str, Any]:
    """All strings that a side has."""
    return {key: plain.get(key) for key in plain.scan_iter() if plain.type(key) == "string"}


def test_commands_of_many_keys_come_to_the_other_side(sides: Sides) -> None:
    with sides.client() as client:
        assert issubclass(type(client), redis.RedisCluster)
        expected = {f"k{i}": str(i) for i in range(30)}
        for key, value in expected.items():
            assert client.set(key, value, ex=100)
        assert client.mset_nonatomic({"a": 1, "b": 2, "c": 3})
        assert client.mget_nonatomic("a", "b", "c") == ["1", "2", "3"]
        assert client.delete("a", "b") == 2
        assert client.hset("h", mapping={"f": 1}) == 1
        assert client.register_script("return redis.call('INCR', KEYS[1])")(keys=["by-script"]) == 1
        with client.lock("lock", timeout=100):
            assert client.dual.drain(5)
            assert sides.new.get("lock") == sides.old.get("lock") is not None
        assert set(client.scan_iter("k*")) == set(expected)
        assert client.dual.drain(5)
    assert found(sides.new) == found(sides.old) == expected | {"c": "3", "by-script": "1"}
    assert sides.new.hgetall("h") == {"f": "1"}
    assert 0 < sides.new.ttl("k1") <= 100


def test_pipelines(sides: Sides) -> None:
    with sides.client() as client:
        with client.pipeline() as pipe:
            assert issubclass(type(pipe), redis.cluster.ClusterPipeline)
            for i in range(20):
                pipe.set(f"k{i}", i)
            pipe.incr("k1").delete("k2")
            assert len(pipe) == 22
            replies = pipe.get("k1").execute()
            assert replies[-1] == "2"
        with client.pipeline() as pipe:
            pipe.set("s", 1).lpush("s", 1).set("t", 1)
            with pytest.raises(redis.ResponseError, match=r"Command # 2 \(LPUSH s 1\)"):
                pipe.execute()
            assert pipe.execute() == []
        assert client.dual.drain(5)
    assert found(sides.new) == found(sides.old)
    assert len(found(sides.new)) == 21


@HAVE_TRANSACTIONS
def test_transactions(sides: Sides) -> None:
    with sides.client() as client:
        with client.pipeline(transaction=True) as pipe:
            assert pipe.set("{t}1", 1).incr("{t}1").execute()[1] == 2
        with client.pipeline(transaction=True) as pipe:
            pipe.watch("{t}1")
            assert pipe.get("{t}1") == "2"
            pipe.multi()
            pipe.set("{t}2", 3)
            assert len(pipe.execute()) == 1
        with client.pipeline(transaction=True) as pipe:
            pipe.watch("{t}3")
            sides.old.set("{t}3", 1)
            pipe.multi()
            pipe.set("{t}3", 2)
            with pytest.raises(redis.WatchError):
                pipe.execute()
        assert client.dual.drain(5)
    assert found(sides.old) == {"{t}1": "2", "{t}2": "3", "{t}3": "1"}
    assert found(sides.new) == {"{t}1": "2", "{t}2": "3"}


def test_a_switch_there_and_back_loses_no_write(sides: Sides) -> None:
    with sides.client() as client:
        client.get("n0")
        done = threading.Event()
        counted = [0] * 3

        def count(at: int) -> None:
            while not done.is_set():
                client.incr(f"n{at}")
                counted[at] += 1

        threads = [threading.Thread(target=count, args=(at,)) for at in range(3)]
        for thread in threads:
            thread.start()
        for step in (State.DIAL, State.NEW, State.DIAL, State.NEW):
            sides.go(client, step)
            enough = min(counted) + 10
            until(partial(_are_above, counted, enough))
        done.set()
        for thread in threads:
            thread.join()
        assert client.dual.drain(5)
    assert found(sides.old) == found(sides.new) == {f"n{at}": str(number) for at, number in enumerate(counted)}


def _are_above(counted: list[int], number: int) -> bool:
    return min(counted) > number


def test_a_side_that_is_down_is_missed_by_nobody_who_does_not_need_it(places: dict[str, Place]) -> None:
    old = places["cluster"]
    old.plain.flushall()
    with RedisCluster.from_urls(old.url, "redis://127.0.0.1:1", state=State.SHADOW, decode_responses=True) as client:
        assert client.set("k", 1)
        assert client.get("k") == "1"
        assert not client.dual.drain(0.05)
    client.dual.close(0)


def test_asyncio(sides: Sides) -> None:
    async def run() -> None:
        async with sides.asyncio_client() as client:
            assert issubclass(type(client), redis.asyncio.RedisCluster)
            assert await asyncio.gather(*(client.set(f"k{i}", i) for i in range(20))) == [True] * 20
            assert await client.mset_nonatomic({"a": 1, "b": 2, "c": 3})
            assert await client.mget_nonatomic("a", "b", "c") == ["1", "2", "3"]
            assert await client.delete("a", "b") == 2
            assert {key async for key in client.scan_iter("k*")} == {f"k{i}" for i in range(20)}
            pipe = client.pipeline()
            assert issubclass(type(pipe), redis.asyncio.cluster.ClusterPipeline)
            pipe.set("p", 1).incr("p").mset_nonatomic({"q": 1, "r": 2}).lpush("p", 1)
            with pytest.raises(redis.ResponseError, match=r"\(LPUSH p 1\)"):
                await pipe.execute()
            assert await pipe.set("p2", 1).execute() == [True]
            assert await client.drain()
            assert found(sides.new) == found(sides.old)
            sides.setting = Setting(State.DIAL)
            while not sides.is_in(client, State.DIAL):
                await asyncio.sleep(0.01)
            numbers = [0]
            ends = False

            async def count() -> None:
                while not ends:
                    await client.incr("n")
                    numbers[0] += 1

            task = asyncio.create_task(count())
            sides.setting = Setting(State.NEW)
            while not sides.is_in(client, State.NEW):
                await asyncio.sleep(0.01)
            enough = numbers[0] + 10
            while numbers[0] < enough:
                await asyncio.sleep(0.01)
            ends = True
            await task
            assert await client.drain()
            assert sides.new.get("n") == sides.old.get("n") == str(numbers[0])

    asyncio.run(run())
    assert found(sides.new) == found(sides.old)
    assert len(found(sides.new)) == 20 + 1 + 4 + 1


@HAVE_TRANSACTIONS
def test_transactions_of_asyncio(sides: Sides) -> None:
    async def run() -> None:
        async with sides.asyncio_client() as client:
            async with client.pipeline(transaction=True) as pipe:
                await pipe.watch("{t}1")
                assert await pipe.get("{t}1") is None
                pipe.multi()
                pipe.set("{t}1", 1)
                assert await pipe.execute() == [True]
            assert await client.drain()

    asyncio.run(run())
    assert found(sides.new) == found(sides.old) == {"{t}1": "1"}


def test_subscribers_move_with_the_switch(sides: Sides) -> None:
    sides.setting = Setting(State.DIAL)
    with sides.client() as client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
        heard: set[str] = set()

        def hears(side: Any, channel: str, text: str) -> bool:
            side.publish(channel, text)  # to whoever has subscribed by now
            pubsub.get_message(timeout=0.01)
            return text in heard

        pubsub.subscribe(c=lambda message: heard.add(message["data"]))
        until(lambda: hears(sides.old, "c", "1"))
        sides.go(client, State.NEW)
        until(lambda: hears(sides.new, "c", "2"))
        pubsub.psubscribe(**{"p*": lambda message: heard.add(message["data"])})
        until(lambda: hears(sides.new, "p1", "3"))
        sides.old.publish("c", "4")
        until(lambda: hears(sides.new, "c", "5"))
        assert heard == {"1", "2", "3", "5"}
        thread = pubsub.run_in_thread(0.01, daemon=True)
        until(lambda: sides.new.publish("c", "6") is not None and "6" in heard)
        thread.stop()
        thread.join()


@pytest.mark.skipif(not hasattr(redis.asyncio.RedisCluster, "pubsub"), reason="they subscribe since redis-py 7")
def test_subscribers_of_asyncio_move_with_the_switch(sides: Sides) -> None:
    async def run() -> None:
        sides.setting = Setting(State.DIAL)
        async with (
            sides.asyncio_client() as client,
            client.pubsub(ignore_subscribe_messages=True) as pubsub,
        ):
            heard: set[str] = set()

            async def hear(side: Any, channel: str, text: str) -> None:
                while text not in heard:
                    side.publish(channel, text)
                    await pubsub.get_message(timeout=0.01)

            await pubsub.subscribe(c=lambda message: heard.add(message["data"]))
            await hear(sides.old, "c", "1")
            sides.setting = Setting(State.NEW)
            while not sides.is_in(client, State.NEW):
                await asyncio.sleep(0.01)
            await hear(sides.new, "c", "2")
            await pubsub.subscribe(d=lambda message: heard.add(message["data"]))
            await hear(sides.new, "d", "3")
            assert heard == {"1", "2", "3"}

    asyncio.run(run())

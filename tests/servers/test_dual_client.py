"""`rdbkit.dual.Redis` with real servers: what is written on one side comes to the other, and reads come from the right one."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis

from fixtures.server import running
from rdbkit.dual import Redis, Setting, State

from ..processes import until
from .test_verify_import import port_of

SERVERS = Path(os.environ["RDBKIT_SERVERS"])


class Sides(NamedTuple):
    old: redis.Redis
    new: redis.Redis
    urls: tuple[str, str]

    def client(self, state: Any, **kwargs: Any) -> Any:
        """A client in a state, or in the one that a function gives."""
        return Redis.from_urls(*self.urls, state=state if callable(state) else lambda: state, look_s=0.02, **kwargs)


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[str, str]]:
    with (
        running(SERVERS / "redis-6.0" / "redis-server") as (first, _),
        running(SERVERS / "redis-8.0" / "redis-server") as (second, _),
    ):
        yield f"redis://127.0.0.1:{port_of(first)}", f"redis://127.0.0.1:{port_of(second)}"


@pytest.fixture
def sides(servers: tuple[str, str]) -> Iterator[Sides]:
    with redis.Redis.from_url(servers[0]) as old, redis.Redis.from_url(servers[1]) as new:
        old.flushall()
        new.flushall()
        yield Sides(old, new, servers)


class Switched:
    """A state that a test changes."""

    def __init__(self, state: State) -> None:
        self.setting = Setting(state)

    def __call__(self) -> Setting:
        return self.setting

    def go(self, client: Redis, state: State, percent: float = 0.0) -> None:
        self.setting = Setting(state, percent)
        until(lambda: client.dual.setting[:2] == (state, percent))


def test_in_shadow_the_old_side_answers_and_the_new_one_gets_the_same(sides: Sides) -> None:
    with sides.client(State.SHADOW) as client:
        assert redis.Redis in type(client).__mro__
        sides.new.set("n", 100)  # what is wrong there is made right
        assert client.set("k", "v", ex=100) is True
        assert client.incr("n") == 1
        assert client.hset("h", mapping={"a": 1, "b": 2}) == 2
        assert client.rpush("l", *range(5)) == 5
        assert client.lpop("l") == b"0"
        assert client.set("gone", 1)
        assert client.delete("gone") == 1
        assert client.dual.drain(5)
    assert sides.new.get("k") == b"v"
    assert 0 < sides.new.ttl("k") <= 100
    assert sides.new.get("n") == b"1"
    assert sides.new.hgetall("h") == {b"a": b"1", b"b": b"2"}
    assert sides.new.lrange("l", 0, -1) == [b"1", b"2", b"3", b"4"]
    assert not sides.new.exists("gone")


@pytest.mark.parametrize(("state", "side"), [(State.OLD, "old"), (State.DONE, "new")])
def test_before_and_after_only_one_side_is_used(sides: Sides, state: State, side: str) -> None:
    with sides.client(state) as client:
        client.set("k", "v")
        assert client.get("k") == b"v"
        assert client.dual.drain(5)
    assert (sides.old.exists("k"), sides.new.exists("k")) == ((1, 0) if side == "old" else (0, 1))


def test_in_new_the_old_side_follows(sides: Sides) -> None:
    with sides.client(State.NEW) as client:
        client.sadd("s", "a", "b")
        assert client.dual.drain(5)
    assert sides.old.smembers("s") == {b"a", b"b"}


def test_pipelines_and_transactions(sides: Sides) -> None:
    with sides.client(State.SHADOW) as client:
        with client.pipeline() as pipe:
            assert isinstance(pipe, redis.client.Pipeline)
            pipe.set("a", 1)
            pipe.incr("a")
            pipe.get("a")
            assert pipe.execute() == [True, 2, b"2"]
        with client.pipeline(transaction=False) as pipe:
            pipe.set("b", 1)
            pipe.lpush("b", 1)
            pipe.set("c", 1)
            with pytest.raises(redis.ResponseError, match=r"Command # 2 \(LPUSH b 1\)"):
                pipe.execute()
        with client.pipeline() as pipe:
            pipe.watch("a")
            assert pipe.get("a") == b"2"
            pipe.set("at-once", 1)
            pipe.multi()
            pipe.set("a", 3)
            assert pipe.execute() == [True]
        with client.pipeline() as pipe:
            pipe.watch("w")
            sides.old.set("w", 4)
            pipe.multi()
            pipe.set("w", 5)
            with pytest.raises(redis.WatchError):
                pipe.execute()

        def double(pipe: Any) -> None:
            value = int(pipe.get("d") or 1)
            pipe.multi()
            pipe.set("d", value * 2)

        assert client.transaction(double, "d") == [True]
        assert client.dual.drain(5)
    found = {key: sides.new.get(key) for key in ("a", "b", "c", "d", "at-once", "w")}
    assert found == {"a": b"3", "b": b"1", "c": b"1", "d": b"2", "at-once": b"1", "w": None}


def test_a_dialled_share_is_read_from_the_new_side(sides: Sides) -> None:
    with sides.client(lambda: Setting(State.DIAL, 100)) as client:
        sides.new.set("k", "new")
        sides.old.set("k", "old")
        sides.old.set("only-old", "there")
        assert client.get("k") == b"new"
        assert client.get("only-old") == b"there"
        assert client.mget("k", "only-old") == [b"old", b"there"]
        assert client.dual.report()["fallbacks"] == 2
    with sides.client(lambda: Setting(State.DIAL, 0)) as client:
        assert client.get("k") == b"old"


def test_a_switch_loses_no_write(sides: Sides) -> None:
    state = Switched(State.SHADOW)
    with sides.client(state) as client:
        client.get("n")
        done = threading.Event()
        counted = [0] * 4

        def count(at: int) -> None:
            while not done.is_set():
                client.incr("n")
                counted[at] += 1

        threads = [threading.Thread(target=count, args=(at,)) for at in range(4)]
        for thread in threads:
            thread.start()
        until(lambda: min(counted) > 20)
        for step in (State.DIAL, State.NEW, State.DIAL, State.NEW):
            state.go(client, step)
            enough = min(counted) + 20
            until(lambda enough=enough: min(counted) > enough)  # type: ignore[misc]
        done.set()
        for thread in threads:
            thread.join()
        assert client.get("n") == b"%d" % sum(counted)
        assert client.dual.drain(5)
        assert sides.old.get("n") == sides.new.get("n")


def test_subscribers_move_with_the_switch(sides: Sides) -> None:
    state = Switched(State.DIAL)
    with sides.client(state) as client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe("c")
        pubsub.psubscribe("p*")
        assert pubsub.get_message(timeout=0.1) is None
        until(lambda: sides.old.publish("c", "1") == 1)
        assert next(each["data"] for each in pubsub.listen()) == b"1"
        state.go(client, State.NEW)
        assert pubsub.get_message(timeout=0.01) is None
        until(lambda: sides.new.publish("c", "2") == 1)
        assert next(each["data"] for each in pubsub.listen()) == b"2"
        assert sides.old.publish("c", "3") == 0

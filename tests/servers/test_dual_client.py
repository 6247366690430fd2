"""`rdbkit.dual.Redis` with real servers: what is written on one side comes to the other, and reads come from the right one."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis

from fixtures.server import running
from rdbkit.dual import Redis, Setting, State, beside
from rdbkit.dual.pair import Pair
from rdbkit.targets.keyspecs import TABLE

from ..processes import until
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

    def subscriber(self) -> Any:
        """A plain one, on the new side."""
        return self.new.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]


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
        sides = Sides(old, new, servers, [])
        yield sides
        for pair in sides.pairs:
            pair.close(0)  # what it would compare later are keys of the next test


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
        assert client.dual.drain(60)
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
        assert client.dual.drain(60)
    assert (sides.old.exists("k"), sides.new.exists("k")) == ((1, 0) if side == "old" else (0, 1))


def test_in_new_the_old_side_follows(sides: Sides) -> None:
    with sides.client(State.NEW) as client:
        client.sadd("s", "a", "b")
        assert client.dual.drain(60)
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
        assert client.dual.drain(60)
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
    with sides.client(state, switch_wait_s=60) as client:
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
        assert client.get("n") == b"%d" % sum(counted), client.dual.report()
        assert client.dual.drain(60)
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


def test_a_subscriber_gets_what_came_before_the_switch(sides: Sides) -> None:
    state = Switched(State.DIAL)
    with sides.client(state) as client, client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe("c")
        until(lambda: pubsub.get_message(timeout=0.01) is None and pubsub.subscribed)
        for text in ("1", "2"):
            until(lambda text=text: sides.old.publish("c", text) == 1)  # type: ignore[misc]
        state.go(client, State.NEW)
        assert [pubsub.get_message(timeout=1)["data"] for _ in range(2)] == [b"1", b"2"]
        assert pubsub.get_message(timeout=0.01) is None
        until(lambda: sides.new.publish("c", "3") == 1)
        assert next(each["data"] for each in pubsub.listen()) == b"3"


def test_scripts_and_functions(sides: Sides) -> None:
    with sides.client(State.NEW) as client:
        double = client.register_script("return redis.call('set', KEYS[1], ARGV[1] * 2)")
        double(keys=["k"], args=[21])
        with client.pipeline() as pipe:
            double(keys=["p"], args=[4], client=pipe)
            pipe.execute()
        with pytest.raises(redis.ResponseError):  # it has written before it failed
            client.eval("redis.call('set', KEYS[1], 1) return redis.call('nothing')", 1, "half")
        sha = client.script_load("return 1")
        assert client.dual.drain(60)
        assert not client.dual.needs_sync
        assert sides.old.mget("k", "p", "half") == [b"42", b"8", b"1"]
        assert sides.old.script_exists(sha, double.sha) == [True, True]
        client.function_load("#!lua name=lib\nredis.register_function('f', function() return 1 end)", replace=True)
        client.dual.drain(60)
        assert client.dual.needs_sync  # Redis 6.0 has no functions
        assert client.dual.report()["needs_sync"] == {"definition": 1}
    client.function_flush()


def test_a_lock_is_held_on_both_sides_of_a_switch(sides: Sides) -> None:
    state = Switched(State.DIAL)
    with sides.client(state) as client:
        lock = client.lock("mutex", timeout=60)
        assert lock.acquire(blocking=False)
        state.go(client, State.NEW)
        assert not client.lock("mutex").acquire(blocking=False)
        lock.extend(60)
        lock.release()
        assert client.lock("mutex", timeout=1).acquire(blocking=False)


def test_a_command_that_nobody_knows_is_asked_for(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(TABLE._named, b"RPOPLPUSH")
    monkeypatch.delitem(TABLE._named, b"rpoplpush")
    with sides.client(State.SHADOW) as client:
        client.rpush("from", 1, 2)
        assert client.rpoplpush("from", "to") == b"2"
        assert client.dual.drain(60)
        assert TABLE.written([b"RPOPLPUSH", b"from", b"to"]).keys == (b"from", b"to")
    assert (sides.new.lrange("from", 0, -1), sides.new.lrange("to", 0, -1)) == ([b"1"], [b"2"])


@pytest.mark.parametrize("buffer", [b"key", bytearray(b"key")])
def test_keys_may_be_views_of_memory_and_names_have_white_space(sides: Sides, buffer: bytes | bytearray) -> None:
    with sides.client(State.SHADOW) as client:
        client.set(memoryview(buffer), 1)
        client.pipeline().rpush(memoryview(buffer)[1:], 2).mset({memoryview(b"y"): 3}).execute()
        client.execute_command("SET\ttab", 4)
        assert client.dual.drain(60)
        assert (sides.new.get("key"), sides.new.lrange("ey", 0, -1), sides.new.get("y"), sides.new.get("tab")) == (
            b"1", [b"2"], b"3", b"4",
        )  # fmt: skip
        client.delete(memoryview(buffer), "ey", "y", "tab")
        assert client.dual.drain(60)
        assert not sides.new.keys()


def test_databases_and_transactions_by_hand_are_no_secret(sides: Sides) -> None:
    for name, commands in (
        ("select", [("SELECT", 1), ("SET", "k", 1), ("SELECT", 0)]),
        ("exec", [("MULTI",), ("INCR", "k"), ("EXEC",)]),
    ):
        with sides.client(State.SHADOW, name=name) as client, client.client() as single:
            single.execute_command("SELECT", 0)
            assert not client.dual.needs_sync
            for each in commands:
                single.execute_command(*each)
            assert client.dual.report()["needs_sync"] == {name: 1}


def test_keys_are_brought_over_that_a_command_has_written_before_it_failed(sides: Sides) -> None:
    with sides.client(State.SHADOW) as client, redis.Redis.from_url(sides.urls[1], db=1) as elsewhere:
        client.mset({"gone": 1, "kept": 1})
        assert client.dual.drain(60)
        elsewhere.set("kept", 2)
        with pytest.raises(redis.ResponseError, match="BUSYKEY"):
            client.migrate("127.0.0.1", sides.urls[1].rpartition(":")[2], ["gone", "kept"], 1, 5000)
        assert client.dual.drain(60)
        assert (sides.old.keys(), sides.new.keys()) == ([b"kept"], [b"kept"])


def test_messages_go_to_both_sides_where_that_is_wanted(sides: Sides) -> None:
    for publish, expected in (("both", 1), ("primary", 0)):
        with sides.client(State.SHADOW, publish=publish) as client, closing(sides.subscriber()) as there:
            there.subscribe("c")
            until(lambda there=there: there.get_message(timeout=0.01) is None and there.subscribed)  # type: ignore[misc]
            until(lambda: sides.new.pubsub_numsub("c")[0][1] == 1)
            assert client.publish("c", "hello") == 0
            assert client.dual.drain(60)
            messages = [message for _ in range(3) if (message := there.get_message(timeout=0.02))]
            assert [each["data"] for each in messages] == [b"hello"] * expected


def test_flushes(sides: Sides) -> None:
    with sides.client(State.SHADOW) as client:
        sides.new.set("k", 1)
        client.flushdb()
        assert client.dual.needs_sync
        assert sides.new.exists("k")
    with sides.client(State.SHADOW, mirror_flush=True) as client:
        client.set("k", 2)
        client.flushall()
        client.set("after", 1)
        assert client.dual.drain(60)
        assert sides.new.keys() == [b"after"]


def test_reads_are_compared(sides: Sides, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beside, "_AGAIN_S", 0.02)
    with sides.client(State.SHADOW, compare=1) as client:
        client.zadd("z", {"a": 0.1, "b": 3})
        client.hset("h", mapping={"a": 1, "b": 2})
        client.set("t", 1, ex=1000)
        assert client.dual.drain(60)
        sides.new.set("wrong", 1)
        sides.old.set("wrong", 2)
        sides.old.set("lacks", 2)
        client.zrange("z", 0, -1, withscores=True)
        client.hgetall("h")
        client.ttl("t")
        client.get("wrong")
        client.get("lacks")
        client.mget("wrong", "t")
        until(lambda: sum(client.dual.report()["differs"].values()) == 3)
        report = client.dual.report()
        assert report["compared"] == 6
        assert report["differs"] == {"GET,value": 1, "GET,missing": 1, "MGET,value": 1}
        assert client.dual.drain(60)


def test_a_side_that_is_down_does_no_harm(sides: Sides) -> None:
    with closing(socket.socket()) as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"redis://127.0.0.1:{nobody.getsockname()[1]}"
        for setting in (Setting(State.SHADOW), Setting(State.DIAL, 100)):
            with Redis.from_urls(sides.urls[0], url, state=lambda setting=setting: setting, compare=1) as client:
                for i in range(50):
                    client.set(f"k:{i}", i)
                    assert client.get(f"k:{i}") == b"%d" % i
                with client.client() as single:
                    assert single.get("k:1") == b"1"
                assert not client.dual.drain(0)
                client.dual.close(0)


def test_clients_are_made_in_many_ways(sides: Sides) -> None:
    old, new = sides.urls
    bound = Redis.bound(new=new, state=State.SHADOW, decode_responses=True)
    pool = redis.ConnectionPool.from_url(old, decode_responses=True)
    port = int(old.rpartition(":")[2])
    clients = [
        bound.from_url(old),
        bound(host="127.0.0.1", port=port),
        bound(host="127.0.0.1", port=port, single_connection_client=True),
        Redis(connection_pool=pool, new=redis.Redis.from_url(new, decode_responses=True), state=State.SHADOW),
        Redis.from_pool(pool, new=new, state=State.SHADOW),
        Redis.from_urls(old, new, state=State.SHADOW, decode_responses=True, encoding="latin-1"),
    ]
    for number, client in enumerate(clients):
        with client:
            assert client.set(f"é{number}", "wért") is True
            assert client.get(f"é{number}") == "wért"
            assert client.dual.drain(60)
            assert client.dual is clients[0].dual
            assert client.get_connection_kwargs()["decode_responses"] is True
            repr(client)
    assert sorted(sides.new.keys()) == sorted(sides.old.keys())
    assert len(sides.new.keys()) == 6


def test_a_client_closes_what_it_has_made(sides: Sides) -> None:
    closed: list[str] = []

    class Noticed(redis.Redis):
        def close(self) -> None:
            closed.append(f"{self.get_connection_kwargs()['port']}")
            super().close()

    old, new = (Noticed.from_url(url) for url in sides.urls)
    with Redis(old=old, new=new, state=State.SHADOW) as client:
        client.set("k", 1)
        assert client.dual.drain(60)
    assert closed == []
    with Redis(old=old, new=sides.urls[1], state=State.SHADOW) as client:
        pool = client._clients["new"].connection_pool
        client._clients["new"].ping()
    assert closed == []
    assert not pool._available_connections or pool._available_connections[0]._sock is None


def test_a_journal_is_for_the_next_process(sides: Sides, tmp_path: Path) -> None:
    journal = tmp_path / "marks"
    code = (
        "import os, sys; from rdbkit.dual import Redis, State; "
        "client = Redis.from_urls(*sys.argv[1:3], state=State.SHADOW, journal=sys.argv[3], recheck=0); "
        "client.dual.route.marks.begun = None; client.set('kept', 'v'); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, *sides.urls, str(journal)], check=True, timeout=60)
    assert not sides.new.exists("kept")
    with sides.client(State.SHADOW, journal=journal) as client:
        client.get("kept")
        assert client.dual.drain(60)
    assert sides.new.get("kept") == b"v"


def test_what_does_not_go_together_is_refused(sides: Sides) -> None:
    old, new = sides.urls
    with pytest.raises(ValueError, match="name the new server"):
        Redis()
    with pytest.raises(ValueError, match="the database is 1 on the old side and 2 on the new one"):
        Redis.from_urls(old + "/1", new + "/2")
    with pytest.raises(ValueError, match="are the same server"):
        Redis.from_urls(old, old)
    with pytest.raises(ValueError, match="by a Unix socket"):
        Redis(unix_socket_path="/nowhere", new=new)
    for wrong in ({"mirror": "replay"}, {"publish": "all"}, {"compare": 2}, {"switch_wait_s": -1}):
        with pytest.raises(ValueError, match="not"):
            Redis.from_urls(old, new, **wrong)


def test_processes_that_are_forked_off_bring_over_what_they_write(sides: Sides) -> None:
    """As gunicorn does with preload_app: a client that is used before the fork, and in each child."""
    with sides.client(State.SHADOW) as client:
        client.set("parent", 1)
        children = []
        for number in range(2):
            child = os.fork()
            if not child:
                status = 1
                try:
                    client.set(f"child:{number}", number)
                    status = 0 if client.dual.drain(10) and client.get("parent") == b"1" else 2
                finally:
                    os._exit(status)
            children.append(child)
        client.set("after", 1)
        for child in children:
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert client.dual.drain(60)
    assert sorted(sides.new.keys()) == [b"after", b"child:0", b"child:1", b"parent"]


def test_the_end_of_a_process_waits_for_what_it_has_written(sides: Sides) -> None:
    code = (
        "import sys; from rdbkit.dual import Redis, State; "
        "client = Redis.from_urls(*sys.argv[1:], state=State.SHADOW); "
        "[client.set(f'k:{i}', i) for i in range(500)]; client.script_load('return 2')"
    )
    subprocess.run([sys.executable, "-c", code, *sides.urls], check=True, timeout=60)
    assert sides.new.dbsize() == 500
    assert sides.new.script_exists(hashlib.sha1(b"return 2").hexdigest()) == [True]

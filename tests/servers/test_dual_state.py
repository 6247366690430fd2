"""The state of a move on real servers: on both, for two who switch at once, in a cluster, and with a login that may not."""

from __future__ import annotations

from contextlib import closing
from functools import partial

import pytest

from fixtures.server import Client
from rdbkit.dual.state_store import ServerStore
from rdbkit.dual.states import Setting, State
from rdbkit.dual.watch import Watch
from rdbkit.errors import TargetError
from rdbkit.live.server import connect

from ..live.acl import add_user, url_of
from ..live.cluster import cluster
from ..processes import until
from ..rdb import one_in
from .test_server import SERVERS, served
from .test_verify_copy import two

FIRST = Setting(State.SHADOW, 0, 1, 1, "a@b")
SECOND = Setting(State.DIAL, 12.5, 2, 2, "c@d")
KEY = "rdbkit:dual:app"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, its servers are asked until they answer."""
    monkeypatch.setattr("rdbkit.dual.state_store._PATIENCE_S", 300.0)


def store(old: str, new: str | None = None) -> ServerStore:
    return ServerStore("app", partial(connect, old), None if new is None else partial(connect, new))


@pytest.mark.parametrize(
    ("one", "other"), one_in(3, [("redis-6.0", "redis-8.0"), ("redis-7.0", "valkey-9.1"), ("valkey-8.1", "redict-7.3")])
)
def test_settings_are_on_both_servers_and_a_number_is_taken_once(one: str, other: str) -> None:
    with two(one, other) as (first, second, old, new), closing(store(old, new)) as mine, closing(store(old, new)) as theirs:
        assert mine.look().settings == []
        mine.write(FIRST)
        look = theirs.look()
        assert look.settings == [FIRST]
        seconds, micros = first.items("TIME")
        assert isinstance(seconds, bytes)
        assert isinstance(micros, bytes)
        assert abs(int(seconds) * 1000 + int(micros) / 1000 - look.now_ms) < 60_000
        assert 0 < look.error_ms < 60_000
        theirs.write(SECOND)
        with pytest.raises(TargetError, match=r"somebody else has changed the state meanwhile; it is dial 12\.5 % now, by c@d"):
            mine.write(Setting(State.OLD, 0, 3, 2, "a@b"))
        assert mine.look().settings == [FIRST, SECOND]
        assert dict(zip(*[iter(first.items("HGETALL", KEY))] * 2, strict=True)) == dict(
            zip(*[iter(second.items("HGETALL", KEY))] * 2, strict=True)
        )
        first.call("FLUSHALL")  # the copy is read, and written to both with the next step
        assert mine.look().settings == [FIRST, SECOND]
        third = Setting(State.NEW, 0, 3, 3, "a@b")
        mine.write(third)
        second.call("FLUSHALL")
        assert mine.look().settings == [FIRST, SECOND, third]


def test_without_the_old_server_the_copy_holds_and_only_the_last_step_can_be_taken() -> None:
    with two() as (first, second, old, new), closing(store(old, new)) as mine:
        mine.write(FIRST)
        stop(first)
        assert mine.look().settings == [FIRST]
        with pytest.raises(TargetError):
            mine.write(SECOND)
        assert second.integer("HLEN", KEY) == 1
        done = Setting(State.DONE, 0, 3, 2, "a@b")
        mine.write(done)
        assert mine.look().settings == [FIRST, done]
        second.call("FLUSHALL")  # nothing is known now: that is not the beginning
        with pytest.raises(TargetError):
            mine.look()


def test_before_the_first_step_nobody_waits_for_the_new_server() -> None:
    with two() as (_, second, old, new), closing(store(old, new)) as mine:
        stop(second)
        assert mine.look().settings == []
        assert mine.look().settings == []
        mine.write(FIRST)
        assert mine.look().settings == [FIRST]


def test_one_can_go_back_while_the_new_server_cannot_be_reached() -> None:
    with two() as (first, second, old, new), closing(store(old, new)) as mine:
        mine.write(FIRST)
        stop(second)
        mine.write(SECOND)
        assert mine.look().settings == [FIRST, SECOND]
        assert first.integer("HLEN", KEY) == 2


def stop(client: Client) -> None:
    """End a server without waiting for its answer."""
    with pytest.raises((OSError, EOFError)):
        client.call("SHUTDOWN", "NOSAVE")


def test_only_so_many_settings_are_kept() -> None:
    with served() as (client, url), closing(store(url)) as mine:
        text = '{"state": "dial", "percent": 5, "effective_at_ms": 1, "by": ""}'
        client.pipeline([("HSET", KEY, n, text) for n in range(1, 150)])
        mine.write(Setting(State.DIAL, 7, 1, 150))
        settings = mine.look().settings
        assert [each.epoch for each in settings] == list(range(51, 151))
        assert settings[-1].percent == 7


def test_what_is_no_state_or_may_not_be_read_is_told() -> None:
    with served() as (client, url), closing(store(url)) as mine:
        client.call("HSET", KEY, "1", "x")
        with pytest.raises(TargetError, match="the key rdbkit:dual:app has something else than the state of a move"):
            mine.look()
        client.call("DEL", KEY)
        client.call("SET", KEY, "1")
        with pytest.raises(TargetError, match="the key rdbkit:dual:app cannot be read: WRONGTYPE"):
            mine.look()
        client.call("DEL", KEY)
        add_user(client, "reader", "+@read +@connection")
        with closing(store(url_of(url, "reader"))) as reading:
            assert reading.look().settings == []  # without TIME, by this machine's clock
            with pytest.raises(TargetError, match="the key rdbkit:dual:app cannot be written: NOPERM"):
                reading.write(FIRST)


def test_a_watch_outlives_its_connections() -> None:
    with served() as (client, url), closing(store(url)) as mine, closing(Watch(store(url), look_s=0.01)) as watch:
        assert watch.current.state is State.OLD
        client.call("CLIENT", "KILL", "SKIPME", "yes")
        mine.write(FIRST)
        until(lambda: watch.current == FIRST)


def test_a_state_that_is_flushed_is_put_back_by_who_follows() -> None:
    with (
        two() as (first, second, old, new),
        closing(store(old, new)) as mine,
        closing(Watch(store(old, new), look_s=0.01)) as watch,
    ):
        mine.write(FIRST)
        mine.write(SECOND)
        assert watch.current == SECOND
        second.call("FLUSHALL")
        first.call("FLUSHALL")
        until(lambda: first.integer("HLEN", KEY) == second.integer("HLEN", KEY) == 2)
        assert mine.look().settings == [FIRST, SECOND]


def test_in_a_cluster_the_node_is_asked_that_has_the_key() -> None:
    with cluster(SERVERS / "redis-7.0" / "redis-server") as nodes, closing(store(nodes.url)) as mine:
        mine.write(FIRST)
        slot = nodes.slot(KEY.encode())
        owner = nodes.owner(slot)
        nodes.move_slot(slot, next(node for node in nodes.nodes if node is not owner))
        assert mine.look().settings == [FIRST]
        mine.write(SECOND)
        assert mine.look().settings == [FIRST, SECOND]

"""`dual_status` of real servers: which keys are on both, what expires by itself, what has to be copied, and when all is there."""

from __future__ import annotations

import json
import threading
import time

import pytest

from fixtures.server import Client
from rdbkit.dual import status as module
from rdbkit.dual.status import DualStatus, dual_status
from rdbkit.errors import TargetError
from rdbkit.selection import Selection

from ..live.acl import add_user, url_of
from ..live.cluster import cluster
from ..processes import until
from ..rdb import exhaustive, one_in
from .test_server import SERVERS
from .test_verify_copy import two

HOUR = 3_600_000
DAY = 24 * HOUR


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN_S", 0)


def now_ms(client: Client) -> int:
    seconds, micros = client.items("TIME")
    assert isinstance(seconds, bytes)
    assert isinstance(micros, bytes)
    return int(seconds) * 1000 + int(micros) // 1000


def fill(old: Client, new: Client) -> None:
    """1,000 keys on both, 300 of which one never expires, and 100 that expire within an hour to ten days, on the old one alone."""
    both = [("SET", f"session:{n}", n, "PX", DAY) for n in range(700)] + [("SET", f"user:{n}", n) for n in range(300)]
    old.pipeline(both)
    new.pipeline(both)
    old.pipeline([("SET", f"left:{n}", n, "PX", HOUR if n < 90 else (n - 89) * DAY) for n in range(100)])


@pytest.mark.parametrize(
    ("one", "other"), one_in(3, [("redis-6.0", "redis-8.0"), ("redis-7.0", "valkey-9.1"), ("valkey-8.1", "redis-7.0")])
)
def test_what_expires_is_there_when_the_last_has_and_what_does_not_has_to_be_copied(one: str, other: str) -> None:
    with two(one, other) as (first, second, old, new):
        begun = now_ms(first)
        fill(first, second)
        found = dual_status(old, new)
        assert (found.listed, found.checked, found.present, found.expiring, found.lasting) == (1100, 1100, 1000, 100, 0)
        assert not found.ready
        assert found.last_ms is not None
        # to the time that questions take: the clock is asked before the keys
        assert begun + 10 * DAY - HOUR < found.last_ms <= now_ms(first) + 10 * DAY
        assert found.ready_ms == found.last_ms
        assert found.reached[0.9] == found.now_ms  # 1,000 of 1,100
        assert near(found.reached[0.99], begun + HOUR, HOUR)  # then there are ten of 1,010
        assert near(found.reached[0.999], begun + 9 * DAY, 10 * DAY)  # one may be left
        first.pipeline([("SET", b"\xff", 1), ("SET", "config", 1)])
        found = dual_status(old, new, samples=5)
        assert (found.lasting, found.ready_ms, found.reached[0.999]) == (2, None, None)
        assert sorted(found.samples) == [b"config", b"\xff"]
        assert found.to_dict()["missing"] == 102
        json.dumps(found.to_dict())
        assert len(dual_status(old, new, samples=1).samples) == 1
        second.pipeline([("SET", b"\xff", 1), ("SET", "config", 1), *(("SET", f"left:{n}", 1) for n in range(100))])
        found = dual_status(old, new)
        assert found.ready
        assert found.ready_ms == found.now_ms
        assert found.reached == {0.9: found.now_ms, 0.99: found.now_ms, 0.999: found.now_ms}


def near(found: int | None, wanted: int, size: int) -> bool:
    """Times to live are kept to one percent, and never told too early."""
    assert found is not None
    return wanted <= found <= wanted + size * 0.011 + 60_000


def test_the_state_of_a_move_is_no_key_of_the_application() -> None:
    with two() as (first, _, old, new):
        first.call("HSET", "rdbkit:dual:app", "1", "x")
        found = dual_status(old, new)
        assert (found.listed, found.checked) == (0, 0)
        assert found.ready


def test_a_server_is_not_compared_with_itself_by_another_name() -> None:
    with two() as (first, _, old, new):
        other = old.replace("127.0.0.1", "localhost")
        with pytest.raises(ValueError, match="the same server"):
            dual_status(old, other)
        first.call("SET", "k", 1)
        assert dual_status(f"{old}/0", f"{other}/1").missing == 1
        assert dual_status(old, new).missing == 1


def test_keys_are_chosen_by_name_type_and_expiry_and_databases_are_mapped() -> None:
    with two() as (first, second, old, new):
        fill(first, second)
        first.pipeline([("SADD", "session:set", 1), ("SELECT", 3), ("SET", "a", 1)])
        assert counted(dual_status(old, new)) == (1000, 100, 2)
        assert counted(dual_status(old, new, selection=Selection(prefixes="session:"))) == (700, 0, 1)
        assert counted(dual_status(old, new, selection=Selection(prefixes="session:", types="string"))) == (700, 0, 0)
        assert counted(dual_status(old, new, selection=Selection(expiry="no-ttl"))) == (300, 0, 2)
        assert counted(dual_status(old, new, selection=Selection(dbs=3))) == (0, 0, 1)
        second.pipeline([("SELECT", 5), ("SET", "a", 1)])
        assert counted(dual_status(old, new, db_map={3: 5})) == (1001, 100, 1)
        assert counted(dual_status(f"{old}/3", f"{new}/5")) == (1, 0, 0)
        with pytest.raises(ValueError, match="name the same server"):
            dual_status(old, old)
        with pytest.raises(ValueError, match="known of snapshots alone"):
            dual_status(old, new, selection=Selection(size=(1, None)))


def counted(found: DualStatus) -> tuple[int, int, int]:
    return found.present, found.expiring, found.lasting


def test_some_keys_stand_for_all() -> None:
    with two() as (first, second, old, new):
        fill(first, second)
        found = dual_status(old, new, pick=400)
        assert found.picked
        assert 250 < found.checked < 550
        assert found.listed == 1100
        assert abs(found.missing / found.total - 100 / 1100) < 3 * found.error
        assert 0.01 < found.error < 0.05
        assert dual_status(old, new, pick=0.5).checked > found.checked
        second.pipeline([("SET", f"left:{n}", 1) for n in range(100)])
        found = dual_status(old, new, pick=400)
        assert found.error == 3 / found.total


def test_what_arrives_and_goes_meanwhile_is_seen_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with two() as (first, second, old, new):
        first.pipeline([("SET", f"k{n}", n, "PX", DAY) for n in range(50)])

        sleep, here = time.sleep, threading.current_thread()

        def meanwhile(seconds: float) -> None:
            if threading.current_thread() is not here:
                sleep(seconds)
            elif seconds == module.AGAIN_S:
                second.pipeline([("SET", f"k{n}", n) for n in range(10)])
                first.pipeline([("DEL", f"k{n}") for n in range(10, 15)])
            else:
                second.pipeline([("SET", f"k{n}", n) for n in range(15, 22)])
                first.pipeline([("DEL", f"k{n}") for n in range(22, 25)])

        monkeypatch.setattr(module, "AGAIN_S", 1.0)
        monkeypatch.setattr("rdbkit.dual.status.time.sleep", meanwhile)
        found = dual_status(old, new, watch_s=60)
        assert (found.present, found.gone, found.expiring) == (10, 5, 35)
        assert found.watched == module.Watched(60, 35, 7, 3)


def test_no_more_keys_are_watched_than_can_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_WATCHED", 20)
    with two() as (first, _, old, new):
        first.pipeline([("SET", f"k{n}", n, "PX", DAY) for n in range(500)])
        found = dual_status(old, new, watch_s=0.001)
        assert found.watched == module.Watched(0.001, 20, 0, 0)


def test_a_server_that_may_not_tell_is_told_of() -> None:
    with two() as (first, second, old, new):
        first.pipeline([("SET", f"k{n}", n) for n in range(10)])
        add_user(second, "blind", "+@connection")
        found = dual_status(old, url_of(new, "blind"))
        assert (found.unclear, found.ready, found.ready_ms) == (10, False, None)
        assert "about 10 keys a server gave no answer: NOPERM" in found.notes[0]
        add_user(first, "blind", "+@connection")
        with pytest.raises(TargetError, match="its keys cannot be listed"):
            dual_status(url_of(old, "blind"), new)


def test_connections_that_break_are_opened_again() -> None:
    with two() as (first, second, old, new):
        first.pipeline([("SET", f"k{n}", n) for n in range(1200)])
        second.pipeline([("SET", f"k{n}", n) for n in range(1100)])

        def cut(listed: int) -> None:
            for client in (first, second):
                client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        found = dual_status(old, new, batch=500, progress=cut)
        assert counted(found) == (1100, 0, 100)


@exhaustive
def test_a_cluster_on_either_side_whose_slots_move() -> None:
    names = [f"k{n}" for n in range(300)]
    with cluster(SERVERS / "redis-7.0" / "redis-server") as nodes, two() as (first, _, one, _):
        nodes.write([("SET", name, 1, "PX", DAY) for name in names])
        first.pipeline([("SET", name, 1) for name in names[:250]])
        with nodes.moving_slots([nodes.slot(name.encode()) for name in names[:20]]) as moved:
            found: list[DualStatus] = []

            def ask() -> None:
                found.append(dual_status(nodes.url, one))
                found.append(dual_status(one, nodes.url))

            thread = threading.Thread(target=ask)
            thread.start()
            until(lambda: moved and not thread.is_alive())
        assert found[0].present >= 250  # SCAN may tell a key twice
        assert found[0].expiring >= 50
        assert counted(found[1]) == (250, 0, 0)

"""What a proxy brings over between real servers, in one direction and then in the other."""

from __future__ import annotations

import pytest

from rdbkit.dual.cutover import NotSwitched
from rdbkit.dual.metrics import Metrics
from rdbkit.dual.mirror import Mirror
from rdbkit.dual.states import State
from rdbkit.live.server import connect

from .test_verify_copy import two


def test_both_directions_and_none() -> None:
    with two("redis-6.0", "redis-8.0") as (old, new, one, other):
        mirror = Mirror({"old": lambda: connect(one), "new": lambda: connect(other)}, Metrics())
        assert mirror.drain(0)
        assert mirror.check(0) == 0
        mirror.turn(State.SHADOW)
        old.pipeline([("SET", "a", 1), ("RPUSH", "l", 1, 2)])
        mirror.marks.add_many(0, [b"a", b"l", b"never"])
        assert mirror.drain(60)
        assert new.call("GET", "a") == b"1"
        assert mirror.check(60) == 3
        new.call("SET", "a", "another")
        with pytest.raises(NotSwitched, match="1 of the 3 keys"):
            mirror.check(60)
        assert mirror.drain(60)  # and it was written again
        assert mirror.check(60) == 3
        mirror.stop(60)
        new.call("SET", "a", 2)
        mirror.start("new")
        mirror.marks.add(0, b"a")
        assert mirror.drain(60)
        assert old.call("GET", "a") == b"2"
        mirror.turn(State.DONE)
        assert not mirror.is_on
        assert mirror.close()


def test_what_is_missing_for_good_stops_a_switch() -> None:
    with two() as (_, _, one, other):
        metrics = Metrics()
        mirror = Mirror({"old": lambda: connect(one), "new": lambda: connect(other)}, metrics)
        mirror.turn(State.SHADOW)
        metrics.count("needs_sync", 1, "flush")
        assert mirror.needs_sync
        with pytest.raises(NotSwitched, match="rdbkit sync"):
            mirror.check(60)
        mirror.synced()
        assert mirror.check(60) == 0
        metrics.count("needs_sync", 1, "flush")
        with pytest.raises(NotSwitched, match="rdbkit sync"):
            mirror.check(60)
        assert mirror.close()


def test_a_key_that_expires_in_a_moment_does_not_stop_a_switch() -> None:
    with two() as (_, new, one, other):
        mirror = Mirror({"old": lambda: connect(one), "new": lambda: connect(other)}, Metrics())
        mirror.turn(State.SHADOW)
        mirror.marks.add(0, b"a")
        assert mirror.drain(60)
        new.call("SET", "a", 1, "PX", 900)  # as where its clock is behind
        assert mirror.check(60) == 1
        assert mirror.drain(60)
        new.call("SET", "a", 1, "EX", 1000)
        with pytest.raises(NotSwitched, match="1 of the 1 keys"):
            mirror.check(60)
        assert mirror.close()

"""The engine with real servers: what was marked is the same on both sides, whatever is down meanwhile."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rdbkit.dual.engine import Engine
from rdbkit.dual.marks import Marks
from rdbkit.dual.metrics import Metrics
from rdbkit.live.server import connect

from ..live.oracle import content, differences
from ..processes import until
from .test_follow import pair, url

SERVERS = Path(os.environ["RDBKIT_SERVERS"])


@contextmanager
def engine_of(a: str, b: str, marks: Marks, **options: Any) -> Iterator[tuple[Engine, Metrics]]:
    metrics = Metrics()
    engine = Engine(lambda: connect(a), lambda: connect(b), marks, metrics, **options)
    engine.start()
    try:
        yield engine, metrics
    finally:
        engine.close(0.0)


def test_keys_of_all_types_are_brought_over_and_deleted() -> None:
    marks = Marks()
    with pair("redis-7.0", "redis-7.0") as (a, b), engine_of(url(a), url(b), marks) as (engine, metrics):
        a.call("SET", "s", "v", "EX", 1000)
        a.call("HSET", "h", "f", "v")
        a.call("SELECT", 2)
        a.call("XADD", "x", "*", "f", "v")
        b.call("SET", "gone", "v")
        marks.add_many(0, [b"s", b"h", b"gone"])
        marks.add(2, b"x")
        assert engine.drain(60)
        assert differences(content(a), content(b)) == []
        until(lambda: metrics.total("rechecked") == 4)
        assert metrics.total("transfers") == 3
        assert metrics.total("deleted") == 1
        assert metrics.total("recheck_differs") == 0
        assert not engine.needs_sync
        assert engine.is_behind_s == 0


def test_what_another_process_has_written_last_but_read_first_is_found() -> None:
    marks = Marks()
    with pair("redis-7.0", "redis-7.0") as (a, b), engine_of(url(a), url(b), marks) as (engine, metrics):
        a.call("SET", "k", "new")
        a.call("SET", "there", "v")
        marks.add_many(0, [b"k", b"there", b"gone"])
        assert engine.drain(60)
        b.call("SET", "k", "older")
        b.call("DEL", "there")
        b.call("SET", "gone", "v")
        until(lambda: metrics.total("recheck_differs") == 3 and metrics.total("rechecked") >= 6)
        assert engine.drain(60)
        assert differences(content(a), content(b)) == []

"""The engine with real servers: what was marked is the same on both sides, whatever is down meanwhile."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fixtures.server import Process, running
from fixtures.shapes import commands
from rdbkit.dual import engine as engine_module
from rdbkit.dual.engine import Engine
from rdbkit.dual.marks import Marks
from rdbkit.dual.metrics import Metrics
from rdbkit.live.server import connect
from rdbkit.live.sync import sync
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.policy.rules import Policies

from ..live.cluster import cluster
from ..live.cutting_front import CuttingFront
from ..live.oracle import FIELDS_EXPIRE, content, differences, taken_by, tolerance_ms
from ..processes import heeding_signals, until
from ..rdb import one_in
from .test_follow import pair, url
from .test_verify_import import port_of

REDIS = "redis-7.0"
ROOT = str(Path(__file__).parents[2])
SERVERS = Path(os.environ["RDBKIT_SERVERS"])


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys are compared at once rather than a second later."""
    monkeypatch.setattr(engine_module, "_RECHECK_S", 0.05)


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


def test_another_process_of_the_target_may_lack_what_the_one_before_was_given(tmp_path: Path) -> None:
    marks = Marks()
    target = Process(SERVERS / REDIS / "redis-server", tmp_path)
    place = f"redis://127.0.0.1:{target.port}"
    with running(SERVERS / REDIS / "redis-server") as (a, _), engine_of(url(a), place, marks, recheck=0) as (engine, metrics):
        a.pipeline([("SET", f"k{i}", i) for i in range(10)])
        marks.add(0, b"k1")  # while it is not there yet
        until(lambda: metrics.total("outages"))
        assert not engine.drain(0.0)
        assert engine.is_behind_s > 0
        target.begin()
        try:
            target.client().close()
            assert engine.drain(60)
            assert metrics.total("needs_sync") == 0
            target.kill()
            marks.add_many(0, [f"k{i}".encode() for i in range(2, 6)])
            target.begin()
            with closing(target.client()) as b:
                assert engine.drain(60)
                assert engine.needs_sync, "k1 is not there any more"
                assert metrics.report()["needs_sync"] == {"restart": 1}
                assert b.call("DBSIZE") == 4
                assert sync(url(a), place).clean
                assert differences(content(a), content(b)) == []
        finally:
            target.kill()


def test_sides_that_are_slow_or_broken_keep_nobody_from_marking() -> None:
    marks = Marks()
    with (
        pair(REDIS, REDIS) as (a, b),
        CuttingFront(int(port_of(a))) as one,
        CuttingFront(int(port_of(b))) as other,
        engine_of(one.url, other.url, marks, recheck=0) as (engine, metrics),
    ):
        marks.add(0, b"gone")
        assert engine.drain(60)
        one.stall()
        other.stall()
        a.pipeline([("SET", f"k{i}", i) for i in range(5000)])
        for i in range(5000):
            marks.add(0, f"k{i}".encode())
        assert len(marks) == 5000
        one.cut_all()
        one.go_on()
        other.go_on()
        until(lambda: metrics.total("transfers") > 300)
        other.cut_all()
        one.cut_all()
        assert engine.drain(60)
        assert differences(content(a), content(b)) == []
        assert not engine.needs_sync


def test_a_target_that_is_full_is_waited_for() -> None:
    marks = Marks()
    with pair(REDIS, REDIS) as (a, b), engine_of(url(a), url(b), marks) as (engine, _):
        b.call("CONFIG", "SET", "maxmemory", "1")
        a.call("SET", "k", "v")
        marks.add(0, b"k")
        until(lambda: "errorstat_OOM" in b.text("INFO", "errorstats"))
        assert len(marks) == 1
        b.call("CONFIG", "SET", "maxmemory", "0")
        assert engine.drain(60)
        assert b.call("GET", "k") == b"v"


def test_keys_that_the_target_refuses_are_told_and_need_a_sync_until_they_are_taken() -> None:
    marks = Marks()
    with pair(REDIS, REDIS) as (a, b):
        b.call("ACL", "SETUSER", "some", "on", ">secret", "~ours:*", "+@all")
        with engine_of(url(a), f"redis://some:secret@127.0.0.1:{port_of(b)}", marks, recheck=0) as (engine, metrics):
            a.pipeline([("SET", "ours:1", 1), ("SET", "theirs:1", 1)])
            marks.add_many(0, [b"ours:1", b"theirs:1"])
            assert engine.drain(60)
            assert b.call("KEYS", "*") == [b"ours:1"]
            needs_sync = engine.needs_sync
            assert needs_sync
            assert metrics.total("failed") == 1
            (sample,) = metrics.report()["samples"]
            assert (sample["what"], sample["key"]) == ("failed", "theirs:1")
            assert "NOPERM" in sample["detail"]
            b.call("ACL", "SETUSER", "some", "~*")
            marks.add(0, b"theirs:1")
            assert engine.drain(60)
            assert not engine.needs_sync
            assert b.call("GET", "theirs:1") == b"1"


def test_one_server_is_not_brought_to_itself() -> None:
    marks = Marks()
    with running(SERVERS / REDIS / "redis-server") as (a, _), engine_of(url(a), url(a), marks) as (_, metrics):
        a.call("SET", "k", "v")
        marks.add(0, b"k")
        until(lambda: metrics.total("outages"))
        assert "one server" in metrics.report()["samples"][0]["detail"]
        assert metrics.total("transfers") == 0


@pytest.mark.parametrize(
    ("source", "target"),
    one_in(4, [("redis-8.0", "redis-6.0"), ("redis-6.0", "redis-8.0"), ("valkey-9.1", "redis-6.0"), ("redis-7.0", "valkey-9.1")]),
)
def test_values_are_converted_in_either_direction(source: str, target: str) -> None:
    marks = Marks()
    conversion = ConversionOptions(policies=Policies(field_ttl="drop-ttl"), on_error="skip")
    with pair(source, target) as (a, b), engine_of(url(a), url(b), marks, conversion=conversion) as (engine, metrics):
        a.pipeline(commands(7, 150, source in FIELDS_EXPIRE, most=300))
        names = [key for _, key in content(a)]
        marks.add_many(0, names)
        assert engine.drain(60)
        given, _ = taken_by(target, content(a))
        assert differences(given, content(b), tolerance_ms(source, target)) == []
        until(lambda: metrics.total("rechecked") >= len(names))
        assert metrics.total("recheck_differs") == 0, "what a target cannot be given is no drift"


@pytest.mark.parametrize("backward", one_in(2, [False, True]))
def test_either_side_may_be_a_cluster(backward: bool) -> None:
    marks = Marks()
    binary = SERVERS / REDIS / "redis-server"
    with running(binary) as (single, _), cluster(binary) as nodes, ExitStack() as stack:
        clients = [node.client for node in nodes.masters()]
        sources, targets = (clients, [single]) if backward else ([single], clients)
        names = [f"k{number}".encode() for number in range(300)]
        for each in sources:
            each.answers([("SET", name, "v") for name in names])  # a node of a cluster refuses those of other slots
        one, other = (nodes.url, url(single)) if backward else (url(single), nodes.url)
        engine, metrics = stack.enter_context(engine_of(one, other, marks))
        marks.add_many(0, names)
        assert engine.drain(60)
        assert len(content(*targets)) == 300
        for each in sources:
            each.answers([("DEL", name) for name in names[::2]])
        marks.add_many(0, names[::2])
        assert engine.drain(60)
        assert differences(content(*sources), content(*targets)) == []
        until(lambda: metrics.total("rechecked") >= 300)
        assert metrics.total("recheck_differs") == 0
        assert not engine.needs_sync


_KILLED = """
import os, signal, sys
from fixtures.server import Client
from rdbkit.dual.engine import Engine
from rdbkit.dual.marks import Marks
from rdbkit.dual.metrics import Metrics
from rdbkit.live.server import connect
port, other, journal = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3] or None
marks = Marks(journal=journal)
engine = Engine(lambda: connect(f"redis://127.0.0.1:{port}"), lambda: connect(f"redis://127.0.0.1:{other}"), marks, Metrics())
engine.start()
client = Client(port)
for number in range(1, 1_000_000):
    client.call("INCR", f"k{number % 300}")
    marks.add(0, b"k%d" % (number % 300))
    if number == 2000:
        print("running", flush=True)
"""


@pytest.mark.parametrize("journaled", [False, True])
def test_what_a_killed_process_has_not_brought_over(journaled: bool, tmp_path: Path) -> None:
    """The journal has it, but for the one write that was answered and not marked; without one, `sync` finds it."""
    journal = tmp_path / "marks" if journaled else ""
    with pair(REDIS, REDIS) as (a, b), CuttingFront(int(port_of(b))) as front:
        command = [sys.executable, "-c", _KILLED, str(port_of(a)), str(front.port), str(journal)]
        with subprocess.Popen(heeding_signals(command), stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": ROOT}) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"running\n"
            front.stall()  # so that it has something to leave
            begun = a.integer("INCR", "written")
            until(lambda: a.integer("DBSIZE") >= 301 and a.integer("INCR", "written") > begun)
            process.kill()
        assert differences(content(a), content(b)) != []
        a.call("DEL", "written")
        if journaled:
            marks = Marks(journal=journal)
            assert len(marks)
            with engine_of(url(a), url(b), marks) as (engine, _):
                assert engine.drain(60)
                assert not engine.needs_sync
            assert len(differences(content(a), content(b))) <= 1
        done = sync(url(a), url(b))
        assert done.clean
        assert differences(content(a), content(b)) == []

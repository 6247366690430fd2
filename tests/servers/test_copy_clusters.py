"""Clusters as source, as target and as both, whose slots move and whose nodes fail over while a copy is at work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from fixtures.server import Client, running
from fixtures.shapes import commands

from ..live.cluster import Cluster, cluster
from ..live.copying import copied
from ..live.oracle import Content, content, differences, taken_by, tolerance_ms
from ..rdb import rarely
from .test_verify_import import port_of

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
KEYS = 6000
PAIRS = [
    ("redis-7.0", "redis-8.0"), *rarely(("redis-6.0", "redis-7.0"), ("redis-8.0", "redis-6.0"), ("valkey-9.1", "redis-6.0"),
     ("valkey-8.1", "valkey-9.1"), ("redis-6.0", "valkey-9.1")),
]  # fmt: skip


@contextmanager
def nodes(line: str, is_cluster: bool, replicas: int = 0) -> Iterator[tuple[str, Cluster | None, Client | None]]:
    """A server or a cluster of three masters: its URL, and whichever of the two it is."""
    with ExitStack() as stack:
        binary = SERVERS / line / "redis-server"
        if is_cluster:
            made = stack.enter_context(cluster(binary, 3, replicas))
            yield made.url, made, None
        else:
            client, _ = stack.enter_context(running(binary))
            yield f"redis://127.0.0.1:{port_of(client)}", None, client


def small(count: int = KEYS) -> list[tuple[str, str, str | int]]:
    return [("SET", f"k{i}", i) if i % 3 else ("RPUSH", f"k{i}", f"element {i}") for i in range(count)]


def content_of(made: Cluster) -> Content:
    return content(*(node.client for node in made.masters()))


@pytest.mark.parametrize("which", ["source", "target", "both"])
@pytest.mark.parametrize("lines", PAIRS, ids=lambda lines: "-".join(lines))
def test_all_keys_arrive_where_their_slots_are(lines: tuple[str, str], which: str) -> None:
    with nodes(lines[0], which != "target") as (source, a, one), nodes(lines[1], which != "source") as (target, b, other):
        made = [*commands(3, 300, most=300), *small(1000)]
        if a is not None:
            a.write(made)
            before = content_of(a)
        elif one is not None:
            one.pipeline(made)
            before = content(one)
        done = copied(source, target)
        assert not done.samples
        assert done.counts.written == done.counts.read == len(before) == 1300
        given, cut = taken_by(lines[1], before)
        assert not cut
        if b is not None:
            assert differences(given, content_of(b), tolerance_ms(*lines)) == []
            assert min(node.client.integer("DBSIZE") for node in b.masters()) > 300
        elif other is not None:
            assert differences(given, content(other), tolerance_ms(*lines)) == []


@pytest.mark.parametrize("line", ["redis-7.0", *rarely("redis-6.0", "redis-8.0", "valkey-9.1")])
def test_slots_that_move_on_the_target_get_their_keys(line: str) -> None:
    with nodes(line, False) as (source, _, client), nodes(line, True) as (target, b, _):
        assert client is not None
        assert b is not None
        client.pipeline(small())
        with b.moving_slots([b.slot(f"k{i}") for i in range(200)]) as moved:
            done = copied(source, target, batch=20)
        assert len(moved) > 3
        assert not done.samples
        assert done.counts.written == KEYS
        assert differences(content(client), content_of(b)) == []


@pytest.mark.parametrize("line", ["redis-7.0", *rarely("redis-6.0", "redis-8.0", "valkey-9.1")])
def test_a_master_of_the_target_fails_over(line: str) -> None:
    with nodes(line, False) as (source, _, client), nodes(line, True, 1) as (target, b, _):
        assert client is not None
        assert b is not None
        client.pipeline(small())
        with failing_over(b):
            done = copied(source, target, batch=20)
        assert done.complete
        assert differences(content(client), content_of(b), tolerance_ms(line)) == []


@pytest.mark.parametrize("line", ["redis-7.0", *rarely("redis-6.0", "redis-8.0", "valkey-9.1")])
def test_slots_that_move_on_the_source_lose_no_key(line: str) -> None:
    with nodes(line, True) as (source, a, _), nodes(line, False) as (target, _, client):
        assert client is not None
        assert a is not None
        a.write(small())
        with a.moving_slots([a.slot(f"k{i}") for i in range(200)]) as moved:
            done = copied(source, target, batch=20)
        assert len(moved) > 3
        assert done.complete
        assert differences(content_of(a), content(client)) == []


@pytest.mark.parametrize("line", ["redis-7.0", *rarely("redis-6.0", "redis-8.0", "valkey-9.1")])
def test_slots_move_on_both_sides(line: str) -> None:
    with nodes(line, True) as (source, a, _), nodes(line, True) as (target, b, _):
        assert a is not None
        assert b is not None
        a.write(small())
        before = content_of(a)
        some = [a.slot(f"k{i}") for i in range(200)]
        with a.moving_slots(some) as here, b.moving_slots(some, seed=2) as there:
            done = copied(source, target, batch=20)
        assert min(len(here), len(there)) > 2
        assert done.complete
        assert differences(before, content_of(a)) == []
        assert differences(before, content_of(b)) == []


@pytest.mark.parametrize("line", ["redis-7.0", *rarely("redis-6.0", "redis-8.0", "valkey-9.1")])
def test_masters_of_both_sides_fail_over(line: str) -> None:
    with nodes(line, True, 1) as (source, a, _), nodes(line, True, 1) as (target, b, _):
        assert a is not None
        assert b is not None
        a.write(small())
        before = content_of(a)
        with failing_over(a), failing_over(b):
            done = copied(source, target, batch=20)
        assert done.complete
        assert differences(before, content_of(a)) == []
        assert differences(before, content_of(b)) == []


@pytest.mark.parametrize("seed", [0, *rarely(1, 2, 3)])
def test_slots_that_come_and_go_all_the_time_are_read_whole_or_told(seed: int) -> None:
    with nodes("redis-7.0", True) as (source, a, _), nodes("redis-7.0", False) as (target, _, client):
        assert client is not None
        assert a is not None
        names = [f"{{t{t}}}{i}" for t in range(4) for i in range(150)]
        a.write([*small(2000), *(("SET", name, name) for name in names)])
        before = content_of(a)
        with a.moving_slots([a.slot(f"{{t{t}}}") for t in range(4)], seed):
            done = copied(source, target, batch=10)
        missing = before.keys() - content(client).keys()
        assert {a.slot(key) for _, key in missing} == set() or done.unread
        assert done.complete == (done.unread == 0)


@contextmanager
def failing_over(made: Cluster) -> Iterator[None]:
    """A master fails over in good order, in a thread, while the block runs; the block waits for it to be done."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(made.fail_over, made.masters()[1])
        yield
        assert done.result() in made.nodes[3:]

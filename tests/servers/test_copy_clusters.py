"""Clusters as source, as target and as both, whose slots move and whose nodes fail over while a copy is at work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from fixtures.server import Client, running
from fixtures.shapes import commands

from ..live.cluster import Cluster, cluster
from ..live.copying import copied, in_step
from ..live.oracle import Content, content, differences, taken_by, tolerance_ms
from ..rdb import rarely
from .test_verify_import import port_of

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
KEYS = 2000
PAIRS = [
    ("redis-7.0", "redis-8.0"), *rarely(("redis-6.0", "redis-7.0"), ("redis-8.0", "redis-6.0"), ("valkey-9.1", "redis-6.0"),
     ("valkey-8.1", "valkey-9.1"), ("redis-6.0", "valkey-9.1")),
]  # fmt: skip


@contextmanager
def one_server(line: str) -> Iterator[tuple[str, Client]]:
    """A server: its URL, and a client of it."""
    with running(SERVERS / line / "redis-server") as (client, _):
        yield f"redis://127.0.0.1:{port_of(client)}", client


@contextmanager
def three_masters(line: str, replicas: int = 0) -> Iterator[tuple[str, Cluster]]:
    """A cluster of three masters, and its URL."""
    with cluster(SERVERS / line / "redis-server", 3, replicas) as made:
        yield made.url, made


def nodes(line: str, is_cluster: bool) -> AbstractContextManager[tuple[str, Client | Cluster]]:
    """Whichever of the two is wanted."""
    return three_masters(line) if is_cluster else one_server(line)


def small(count: int = KEYS) -> list[tuple[str, str, str | int]]:
    return [("SET", f"k{i}", i) if i % 3 else ("RPUSH", f"k{i}", f"element {i}") for i in range(count)]


def content_of(made: Client | Cluster) -> Content:
    return content(*([node.client for node in made.masters()] if isinstance(made, Cluster) else [made]))


@pytest.mark.parametrize("which", ["source", "target", "both"])
@pytest.mark.parametrize("lines", PAIRS, ids=lambda lines: "-".join(lines))
def test_all_keys_arrive_where_their_slots_are(lines: tuple[str, str], which: str) -> None:
    with nodes(lines[0], which != "target") as (source, a), nodes(lines[1], which != "source") as (target, b):
        made = [*commands(3, 300, most=300), *small(1000)]
        if isinstance(a, Cluster):
            a.write(made)
        else:
            a.pipeline(made)
        before = content_of(a)
        done = copied(source, target)
        assert not done.samples
        assert done.counts.written == done.counts.read == len(before) == 1300
        given, cut = taken_by(lines[1], before)
        assert not cut
        assert differences(given, content_of(b), tolerance_ms(*lines)) == []
        if isinstance(b, Cluster):
            assert min(node.client.integer("DBSIZE") for node in b.masters()) > 300


@pytest.mark.parametrize("line", ["redis-7.0", *rarely("redis-6.0", "redis-8.0", "valkey-9.1")])
def test_slots_that_move_on_the_target_get_their_keys(line: str) -> None:
    with one_server(line) as (source, client), three_masters(line) as (target, b):
        client.pipeline(small())
        with b.moving_slots([b.slot(f"k{i}") for i in range(200)]) as moved, in_step(moved):
            done = copied(source, target, batch=20)
        assert len(moved) >= 4
        assert not done.samples
        assert done.counts.written == KEYS
        assert differences(content_of(client), content_of(b)) == []


@pytest.mark.parametrize("line", ["redis-7.0", *rarely("redis-6.0", "redis-8.0", "valkey-9.1")])
def test_a_master_of_the_target_fails_over(line: str) -> None:
    with one_server(line) as (source, client), three_masters(line, 1) as (target, b):
        client.pipeline(small())
        with failing_over(b):
            done = copied(source, target, batch=20)
        assert done.complete
        assert differences(content_of(client), content_of(b), tolerance_ms(line)) == []


@pytest.mark.parametrize("line", ["redis-7.0", *rarely("redis-6.0", "redis-8.0", "valkey-9.1")])
def test_slots_that_move_on_the_source_lose_no_key(line: str) -> None:
    with three_masters(line) as (source, a), one_server(line) as (target, client):
        a.write(small())
        with a.moving_slots([a.slot(f"k{i}") for i in range(200)]) as moved, in_step(moved):
            done = copied(source, target, batch=20)
        assert len(moved) >= 4
        assert done.complete
        assert differences(content_of(a), content_of(client)) == []


@pytest.mark.parametrize("line", ["redis-7.0", *rarely("redis-6.0", "redis-8.0", "valkey-9.1")])
def test_slots_move_on_both_sides(line: str) -> None:
    with three_masters(line) as (source, a), three_masters(line) as (target, b):
        a.write(small())
        before = content_of(a)
        some = [a.slot(f"k{i}") for i in range(200)]
        with a.moving_slots(some) as here, b.moving_slots(some, seed=2) as there, in_step(here, there):
            done = copied(source, target, batch=20)
        assert min(len(here), len(there)) >= 4
        assert done.complete
        assert differences(before, content_of(a)) == []
        assert differences(before, content_of(b)) == []


@pytest.mark.parametrize("line", ["redis-7.0", *rarely("redis-6.0", "redis-8.0", "valkey-9.1")])
def test_masters_of_both_sides_fail_over(line: str) -> None:
    with three_masters(line, 1) as (source, a), three_masters(line, 1) as (target, b):
        a.write(small())
        before = content_of(a)
        with failing_over(a), failing_over(b):
            done = copied(source, target, batch=20)
        assert done.complete
        assert differences(before, content_of(a)) == []
        assert differences(before, content_of(b)) == []


@pytest.mark.parametrize("seed", [0, *rarely(1, 2, 3)])
def test_slots_that_come_and_go_all_the_time_are_read_whole_or_told(seed: int) -> None:
    with three_masters("redis-7.0") as (source, a), one_server("redis-7.0") as (target, client):
        names = [f"{{t{t}}}{i}" for t in range(4) for i in range(150)]
        a.write([*small(2000), *(("SET", name, name) for name in names)])
        before = content_of(a)
        with a.moving_slots([a.slot(f"{{t{t}}}") for t in range(4)], seed):
            done = copied(source, target, batch=10)
        missing = before.keys() - content_of(client).keys()
        assert {a.slot(key) for _, key in missing} == set() or done.unread
        assert done.complete == (done.unread == 0)


@contextmanager
def failing_over(made: Cluster) -> Iterator[None]:
    """A master fails over in good order, in a thread, while the block runs; the block waits for it to be done."""
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(made.fail_over, made.masters()[1])
        yield
        assert done.result() in made.nodes[3:]

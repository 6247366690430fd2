"""`verify-copy` and `sync` where keys are spread over nodes, while slots move and a node fails."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from fixtures.server import running
from rdbkit.format.slots import SLOTS
from rdbkit.live.sync import sync
from rdbkit.live.verify_copy import verify_copy

from ..live.cluster import cluster
from .test_verify_copy import found
from .test_verify_import import port_of

SERVERS = Path(os.environ["RDBKIT_SERVERS"])


def keys(count: int) -> list[tuple[Any, ...]]:
    commands: list[tuple[Any, ...]] = []
    for i in range(count):
        commands.append(("SET", f"s{i}", "x" * (i % 50)))
        commands.append(("SADD", f"set{i}", *(f"m{i * j % 31}" for j in range(1, 9))))
    return commands


@pytest.mark.parametrize(("one", "other"), [("redis-6.0", "redis-8.0"), ("valkey-9.1", "redis-7.0")])
def test_clusters_and_servers(one: str, other: str) -> None:
    with cluster(SERVERS / one / "redis-server") as first, cluster(SERVERS / other / "redis-server") as second:
        first.write(keys(1000))
        assert verify_copy(first.url, second.url, rounds=1).missing == 2000
        done = sync(first.url, second.url, wait_s=0)
        assert done.clean, done
        assert done.repaired == {"missing": 2000}
        second.write([("SET", "s7", "y"), ("DEL", "set8"), ("SET", "new", 1)])
        proof = verify_copy(first.url, second.url, wait_s=0, find_extra=True)
        assert found(proof) == {"s7": "value", "set8": "missing", "new": "extra"}
        assert (proof.kinds, proof.keys, proof.equal) == (("cluster", "cluster"), 2000, 1998)
        with running(SERVERS / other / "redis-server") as (client, _):
            url = f"redis://127.0.0.1:{port_of(client)}"
            assert sync(first.url, url, wait_s=0).clean
            assert verify_copy(url, first.url, wait_s=0, find_extra=True).same
            assert sync(url, second.url, wait_s=0, delete=True).deleted == 1
        assert verify_copy(second.url, first.url, wait_s=0, find_extra=True).same


def test_while_slots_move_on_both_sides() -> None:
    server = SERVERS / "redis-7.0" / "redis-server"
    with cluster(server) as first, cluster(server) as second:
        first.write(keys(2000))
        with first.moving_slots(range(0, SLOTS, 7)) as moved, second.moving_slots(range(0, SLOTS, 5), seed=2):
            done = sync(first.url, second.url, wait_s=0.1)
            assert done.clean, done
            second.write([("SET", "s7", "y"), ("SET", "new", 1)])
            proof = verify_copy(first.url, second.url, wait_s=0.1, batch=50, find_extra=True)
        assert moved
        assert found(proof) == {"s7": "value", "new": "extra"}
        assert proof.complete
        assert proof.keys >= 4000


def test_while_a_master_fails() -> None:
    server = SERVERS / "redis-7.0" / "redis-server"
    with cluster(server, replicas=1) as first, running(server) as (client, _):
        first.write(keys(1500))
        url = f"redis://127.0.0.1:{port_of(client)}"
        assert sync(first.url, url, wait_s=0).clean
        seen: list[int] = []

        def fail(count: int) -> None:
            if not seen:
                first.fail_over(first.masters()[-1])
            seen.append(count)

        proof = verify_copy(first.url, url, wait_s=0.5, batch=100, find_extra=True, progress=fail)
        assert proof.same, proof
        assert proof.keys >= 3000

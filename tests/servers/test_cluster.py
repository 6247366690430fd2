"""The clusters that tests use do what they are said to do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fixtures.server import RELEASES, Client, ServerError

from ..live.cluster import Cluster, cluster
from ..processes import until

SERVERS = Path(os.environ["RDBKIT_SERVERS"])


def keys(made: Cluster) -> dict[bytes, str]:
    """The keys that the masters have, and the id of the one that has each."""
    return {name: node.name for node in made.masters() for name in node.client.items("KEYS", "*") if isinstance(name, bytes)}


@pytest.mark.parametrize("line", RELEASES)
def test_a_cluster_moves_slots_fails_over_and_goes_on_without_a_node(line: str) -> None:
    with cluster(SERVERS / line / "redis-server", 3, 1) as made:
        assert len(made.masters()) == 3
        assert all(node.port < 20_000 for node in made.nodes)
        made.write([("SET", f"k{i}", i) for i in range(300)])
        before = keys(made)
        assert len(before) == 300
        assert len(set(before.values())) == 3

        slot = made.slot("k1")
        source = made.owner(slot)
        target = next(node for node in made.masters() if node is not source)
        assert made.move_slot(slot, target) >= 1
        assert keys(made)[b"k1"] == target.name
        with pytest.raises(ServerError, match=f"MOVED {slot} 127.0.0.1:{target.port}"):
            source.client.call("GET", "k1")

        with made.moving_slots([made.slot(f"k{i}") for i in range(50)]) as moved:
            until(lambda: len(moved) > 20)
        after = keys(made)
        assert after.keys() == before.keys()
        assert after != before

        old = made.masters()[0]
        new = made.fail_over(old)
        assert new not in made.nodes[:3]
        assert keys(made).keys() == before.keys()
        until(lambda: made.replicas(new) == [old])
        until(lambda: "master_link_status:up" in old.client.text("INFO", "replication"))

        made.kill(new)
        with pytest.raises(ConnectionError):
            Client(new.port)
        assert made.fail_over(new) is old
        assert keys(made).keys() == before.keys()
        pid = new.pid
        made.restart(new)
        assert new.pid != pid
        until(lambda: made.replicas(old) == [new])


def test_a_node_that_starts_again_has_lost_its_keys() -> None:
    with cluster(SERVERS / "redis-7.0" / "redis-server", 2) as made:
        made.write([("SET", f"k{i}", i) for i in range(100)])
        node = made.masters()[0]
        own = {name for name, owner in keys(made).items() if owner == node.name}
        made.kill(node)
        made.restart(node)
        assert own
        assert len(keys(made)) == 100 - len(own)
        assert made.owner(0) is node

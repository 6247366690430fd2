"""The databases of a server are found, whatever its login may ask."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fixtures.server import Client, running
from rdbkit.live.databases import count_databases, databases_of
from rdbkit.live.server import connect

from ..live.acl import add_user, add_users, url_of
from ..live.azure_like import MANAGED, AzureLike
from ..live.cluster import cluster
from .test_verify_import import port_of

SERVERS = Path(os.environ["RDBKIT_SERVERS"])


def fill(client: Client, *databases: int) -> None:
    for db in databases:
        client.pipeline([("SELECT", db), ("SET", "a", 1)])
    client.call("SELECT", 0)


@pytest.mark.parametrize(
    ("line", "user", "found", "count"),
    [
        ("redis-8.0", "owner", [3, 200], 300), ("redis-8.0", "contributor", [3, 200], 300), ("redis-8.0", "reader", [3, 200], 300),
        ("redis-6.0", "contributor", [3, 200], 300), ("redis-6.0", "reader", [0], 1),
        ("redis-7.0", "unsized", list(range(300)), 300), ("redis-7.0", "all", [3, 200], 300),
    ],
)  # fmt: skip
def test_databases_with_gaps(line: str, user: str, found: list[int], count: int) -> None:
    with running(SERVERS / line / "redis-server", conf=["databases 300"]) as (client, _):
        url = f"redis://127.0.0.1:{port_of(client)}"
        add_users(client)
        add_user(client, "unsized", "+@all -info -dbsize -config")
        add_user(client, "all", "+@all -config")
        with connect(url_of(url, user)) as server:
            if user != "unsized":
                assert databases_of(server) == [0], "where there are no keys at all"
            fill(client, 3, 200)
            assert databases_of(server) == found
            assert count_databases(server) == count
        with connect(url_of(url, user) + "/7") as server:
            assert databases_of(server) == [7]


def test_a_service_without_select_has_one() -> None:
    with running(SERVERS / "redis-8.0" / "redis-server") as (client, _):
        fill(client, 0)
        for refused in (MANAGED, {**MANAGED, "CONFIG": "ERR unknown command", "INFO": "ERR unknown command"}):
            with AzureLike(int(port_of(client)), refused) as front, connect(front.url) as server:
                assert databases_of(server) == [0]
                assert count_databases(server) == 1


@pytest.mark.parametrize(("line", "conf"), [("redis-7.0", []), ("valkey-9.1", ["cluster-databases 4"])])
def test_the_databases_of_a_cluster_are_those_of_all_its_nodes(line: str, conf: list[str]) -> None:
    with cluster(SERVERS / line / "redis-server", conf=conf) as nodes:
        expected = [0]
        if conf:
            expected = [1, 3]
            for db, node in ((1, nodes.nodes[0]), (3, nodes.nodes[2])):
                name = next(f"k{i}" for i in range(1000) if nodes.owner(nodes.slot(f"k{i}")) is node)
                node.client.pipeline([("SELECT", db), ("SET", name, 1), ("SELECT", 0)])
        for node in nodes.nodes:
            add_user(node.client, "some", "+@all -info -config")
        for url in (nodes.url, url_of(nodes.url, "some")):
            with connect(url) as server:
                assert databases_of(server) == expected
                assert count_databases(server) == (4 if conf else 1)

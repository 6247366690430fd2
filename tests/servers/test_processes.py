"""A process is told from another, one server from two, and clocks that are apart."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.server import Client, running
from rdbkit.live.abilities import abilities
from rdbkit.live.connection import Address
from rdbkit.live.processes import Skew, clock_skew, process_of, same_data
from rdbkit.live.server import Server, connect

from ..live.acl import add_user, add_users, url_of
from ..live.azure_like import AzureLike
from ..live.cluster import cluster
from .test_verify_import import port_of

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
LINES = ("redis-6.0", "redis-7.0", "redis-8.0", "valkey-9.1")


@contextmanager
def served(line: str, path: Path | None = None) -> Iterator[tuple[Client, str]]:
    with running(SERVERS / line / "redis-server", path) as (client, _):
        add_users(client)
        yield client, f"redis://127.0.0.1:{port_of(client)}"


def process(server: Server, db: int = 0) -> str:
    connection = server.dial(db=db)
    try:
        return process_of(connection, is_cluster=bool(server.slots()))
    finally:
        connection.close()


@pytest.mark.parametrize("line", LINES)
def test_another_process_with_the_same_data_is_another(line: str, tmp_path: Path) -> None:
    seen = []
    path = None
    for _ in range(2):
        with running(SERVERS / line / "redis-server", path) as (client, folder):
            add_users(client)
            url = f"redis://127.0.0.1:{port_of(client)}"
            if path is None:
                client.pipeline([("SET", f"k{i}", i) for i in range(1000)])
                client.call("SAVE")
                path = tmp_path / "dump.rdb"
                shutil.copyfile(folder / "dump.rdb", path)
            with connect(url) as server, connect(url_of(url, "contributor")) as blind:
                known, listed = process(server), process(blind)
                assert (process(server), process(blind)) == (known, listed)
                assert known.startswith("run_id ")
                assert listed.startswith("scan ")
                assert process(server, 5) == known
                assert process(blind, 5) == "", "there are no keys that could tell"
                seen += [known, listed]
    assert len(set(seen)) == 4


def test_one_server_is_told_from_two_whatever_it_is_called() -> None:
    with served("redis-7.0") as (client, url), served("redis-7.0") as (other, elsewhere):
        for each in (client, other):
            each.pipeline([("SET", f"k{i}", i) for i in range(100)])
        named = url.replace("127.0.0.1", "localhost")
        for first, second, same in (
            (url, named, True), (url, elsewhere, False), (url_of(url, "contributor"), url_of(named, "contributor"), True),
            (url_of(url, "contributor"), url_of(elsewhere, "contributor"), False), (url_of(url, "contributor"), named, True),
        ):  # fmt: skip
            with connect(first) as one, connect(second) as two:
                assert same_data(one, two) is same, (first, second)
        # behind another address, and nobody tells
        with AzureLike(int(port_of(client)), {}) as front:
            for behind, same in ((url, True), (elsewhere, False)):
                with connect(url_of(front.url, "reader")) as one, connect(url_of(behind, "reader")) as two:
                    assert same_data(one, two) is same
            client.call("FLUSHALL")
            with connect(url_of(front.url, "reader")) as one, connect(url_of(url, "reader")) as two:
                assert not same_data(one, two), "two that are empty list the same"


def test_a_replica_has_the_data_of_its_primary() -> None:
    with served("redis-7.0") as (_, url), served("redis-7.0") as (replica, other):
        replica.call("REPLICAOF", "127.0.0.1", url.rpartition(":")[2])
        while "master_link_status:up" not in replica.text("INFO", "replication"):
            pass
        with connect(url) as one, connect(other) as two:
            assert same_data(one, two)
            replica.call("REPLICAOF", "NO", "ONE")
            assert not same_data(one, two)


def test_a_cluster_is_known_by_each_of_its_nodes() -> None:
    with cluster(SERVERS / "redis-8.0" / "redis-server") as nodes, served("redis-8.0") as (_, url):
        for node in nodes.nodes:
            add_user(node.client, "some", "+@all -info")
        with connect(nodes.nodes[0].url) as one, connect(nodes.nodes[2].url) as two, connect(url) as alone:
            assert same_data(one, two)
            assert not same_data(one, alone)
            assert process(one) != process(two)
            assert abilities(one).layout(one).group == 1
            assert abilities(alone).layout(alone).group == 64
        with connect(url_of(nodes.nodes[0].url, "some")) as one, connect(url_of(nodes.nodes[1].url, "some")) as two:
            assert same_data(one, two)
            assert process(one) == ""
            with connect(url_of(url, "reader")) as alone:
                assert not same_data(one, alone)


@pytest.mark.parametrize(
    ("line", "user", "group", "absolute"),
    [("redis-7.0", "owner", 64, True), ("redis-6.0", "owner", 64, False), ("redis-8.0", "reader", 0, True),
     ("redis-6.0", "reader", 0, False), ("redis-6.0", "timeless", 0, False), ("redis-8.0", "timeless", 64, True)],
)  # fmt: skip
def test_keys_are_asked_for_as_the_login_may(line: str, user: str, group: int, absolute: bool) -> None:
    with served(line) as (client, url):
        add_user(client, "timeless", "+@all -time")
        with connect(url_of(url, user)) as server:
            layout = abilities(server).layout(server)
            assert (layout.group, layout.absolute) == (group, absolute)


def test_clocks_that_are_apart_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with served("redis-8.0") as (_, url), served("redis-7.0") as (_, other), connect(url) as one, connect(other) as two:
        skew = clock_skew(one, two)
        assert skew is not None
        assert abs(skew.ms) <= skew.within_ms + 1
        ask = two.ask_node

        def later(address: Address, asked: bytes) -> list[bytes]:
            seconds, microseconds = ask(address, asked)
            return [b"%d" % (int(seconds) + 100), microseconds]

        monkeypatch.setattr(two, "ask_node", later)
        skew = clock_skew(one, two)
        assert isinstance(skew, Skew)
        assert abs(skew.ms - 100_000) <= skew.within_ms + 1
        with connect(url_of(url, "reader")) as timeless:
            assert clock_skew(timeless, two) is None

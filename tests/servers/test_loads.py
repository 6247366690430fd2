"""What a running server loads is known by its own words, or by what it dumps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fixtures.server import RELEASES, Client, running
from rdbkit.errors import TargetError
from rdbkit.live.abilities import abilities
from rdbkit.live.databases import databases_of
from rdbkit.live.loads import _nearest, _oldest, loads
from rdbkit.live.server import connect
from rdbkit.targets.releases import Release, release

from ..live.acl import add_users, url_of
from ..live.azure_like import ACTIVE_ACTIVE, MANAGED, PREMIUM, AzureLike
from ..live.cluster import cluster
from .test_verify_import import port_of

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
HIDDEN = {"HELLO": "ERR unknown command", "INFO": "ERR unknown command"}


@contextmanager
def served(line: str, *conf: str) -> Iterator[tuple[Client, str]]:
    with running(SERVERS / line / "redis-server", conf=conf) as (client, _):
        yield client, f"redis://127.0.0.1:{port_of(client)}"


@pytest.mark.parametrize("line", [line for line in RELEASES if (SERVERS / line).exists()])
def test_a_release_is_known_by_name_whoever_asks(line: str) -> None:
    with served(line, "databases 5") as (client, url):
        add_users(client)
        for user in ("owner", "contributor", "reader"):
            with connect(url_of(url, user)) as server:
                found = loads(server)
                assert found.name == line
                # a reader of Redis 6.0 may choose no database
                assert found.databases == (1 if user == "reader" and line == "redis-6.0" else 5)
                assert not found.redis_enterprise
                assert found.modules == (["vector sets"] if line == "redis-8.0" else [])


@pytest.mark.parametrize(("line", "rdb", "valkey"), [("redis-7.0", 10, []), ("redis-8.0", 12, []), ("valkey-9.1", 11, [80])])
def test_of_a_release_that_is_hidden_the_functions_tell_what_it_loads(line: str, rdb: int, valkey: list[int]) -> None:
    with served(line) as (client, _), AzureLike(int(port_of(client)), HIDDEN) as front, connect(front.url) as server:
        assert server.version is None
        found = loads(server)
        assert (found.rdb, found.valkey, found.exact) == (rdb, valkey, False)
        assert (found.modules, found.databases) == ((["vector sets"] if line == "redis-8.0" else []), 16)
        # where nobody tells which modules there are, the server is left to decide
        front.refused["MODULE"] = "ERR unknown command"
        assert {"RedisJSON", "RediSearch"} <= set(loads(server).modules)


def test_of_a_release_without_functions_a_small_key_tells_what_it_loads() -> None:
    with served("redis-6.0") as (client, _), AzureLike(int(port_of(client)), HIDDEN) as front, connect(front.url) as server:
        with pytest.raises(TargetError, match="does not tell its version; give it with --target NAME"):
            loads(server)
        client.call("SET", "large", "x" * 100_000)
        with pytest.raises(TargetError, match="does not tell"):
            loads(server)
        client.call("DEL", "large")
        client.call("HSET", "small", "f", "v")
        assert loads(server).rdb == 9
        front.refused["MEMORY"] = "ERR unknown command"
        with pytest.raises(TargetError, match="does not tell"):
            loads(server)
        client.pipeline([("DEL", "small"), ("SET", "small", "v")])
        assert loads(server).rdb == 9


def test_a_server_that_says_more_than_it_dumps_is_taken_by_what_it_dumps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a product that calls itself a release of Redis and is none."""
    with served("redis-7.0") as (client, _), AzureLike(int(port_of(client)), {}) as front, connect(front.url) as server:
        ask = server.ask_each_node

        def pretend(db: int, commands: list[bytes]) -> list[list[Any]]:
            if b"HELLO" in commands[0]:
                return [[[b"server", b"redis", b"version", b"8.0.0"]]]
            return [[None]] if b"INFO" in commands[0] else ask(db, commands)

        monkeypatch.setattr(server, "ask_each_node", pretend)
        assert loads(server).rdb == 10


def test_what_the_services_of_azure_load() -> None:
    with (
        served("redis-6.0", "databases 3") as (client, _),
        AzureLike(int(port_of(client)), PREMIUM) as front,
        connect(front.url) as server,
    ):
        assert (loads(server).name, loads(server).databases) == ("redis-6.0", 3)
        found = abilities(server)
        assert (found.write.use, found.changes.use, found.databases.use) == ("restore", "tracking", "info")
    with served("redis-8.0") as (client, _):
        client.call("SET", "a", 1)
        with AzureLike(int(port_of(client)), MANAGED) as front, connect(front.url) as server:
            assert (loads(server).name, loads(server).databases) == ("redis-8.0", 1)
            found = abilities(server)
            assert found.write.use == "restore"
            assert databases_of(server) == [0]
        with AzureLike(int(port_of(client)), ACTIVE_ACTIVE) as front, connect(front.url) as server:
            found = abilities(server)
            assert found.write.use == "commands"
            (writing,) = (row for row in found.rows(server, "target") if row.what == "writing")
            assert writing.why == "RESTORE: command is not allowed in an Active-Active database"
            assert writing.remedy == ""


def test_a_cluster_has_one_database() -> None:
    with cluster(SERVERS / "redis-7.0" / "redis-server") as nodes, connect(nodes.url) as server:
        assert (loads(server).name, loads(server).databases) == ("redis-7.0", 1)


def test_of_a_release_that_is_not_known_the_newest_before_it_is_taken() -> None:
    for line, name in (("redis-99.1", "redis-8.10"), ("redis-7.9", "redis-7.4"), ("valkey-9.9", "valkey-9.1")):
        found = _nearest(release(line) or Release("", (0, 0)))
        assert found is not None
        assert found.name == name
    assert _nearest(Release("other", (1, 0))) is None


@pytest.mark.parametrize(
    ("infos", "hellos", "expected"),
    [
        ([], [], None),
        ([], [("redis", "7.4.3"), ("redis", "7.2.1")], ("redis", (7, 2))),
        (["redis_version:7.2.4\r\nvalkey_version:8.1.1\r\n"], [], ("valkey", (8, 1))),
        (["redis_version:7.2.4\r\nserver_name:valkey\r\nvalkey_version:9.0.1\r\n"], [("valkey", "9.0.1")], ("valkey", (9, 0))),
        (["redis_version:7.4.0\r\ndragonfly_version:df-v1.27.1\r\n"], [("redis", "7.4.0")], ("redis", (6, 2))),
        (["redis_version:6.2.2\r\nexecutable:/usr/bin/keydb-server\r\n"], [("redis", "6.2.2")], ("keydb", (6, 2))),
        ([], [("redis", "6.3.4")], ("keydb", (6, 3))),
        ([], [("other", "x")], None),
    ],
)
def test_the_oldest_release_of_the_nodes(
    infos: list[str], hellos: list[tuple[str, str]], expected: tuple[str, tuple[int, int]] | None
) -> None:
    facts = [{"server": server.encode(), "version": version.encode()} for server, version in hellos]
    assert _oldest(infos, facts) == (None if expected is None else Release(*expected))

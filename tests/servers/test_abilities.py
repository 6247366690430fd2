"""What logins may do on real servers is found out, nothing is changed by it, and each fall-back is reached."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from fixtures.server import Client, running
from rdbkit.errors import TargetError
from rdbkit.live.abilities import Abilities, abilities
from rdbkit.live.databases import databases_of
from rdbkit.live.server import Server, connect
from rdbkit.resp import command

from ..live.acl import add_user, add_users, url_of
from ..live.cluster import cluster

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
KINDS: tuple[Literal["auto", "no"], ...] = ("auto", "no")
NAMES = ("value", "expiry", "moment", "databases", "changes", "process", "touch", "size", "functions", "write", "rename",
         "load_functions")  # fmt: skip


@contextmanager
def served(line: str, conf: list[str] | None = None) -> Iterator[tuple[Client, str]]:
    with running(SERVERS / line / "redis-server", None, conf or []) as (client, _):
        yield client, f"redis://127.0.0.1:{bytes(client.items('CONFIG', 'GET', 'port')[1]).decode()}"  # type: ignore[arg-type]


def uses(found: Abilities) -> dict[str, str | None]:
    return {name: getattr(found, name).use for name in NAMES}


OF_OWNER: dict[str, Any] = {
    "value": "dump", "expiry": "pexpiretime", "moment": "multi", "databases": "info", "changes": "tracking", "process": "run_id",
    "touch": "no-touch", "size": "memory", "functions": "dump", "write": "restore", "rename": "renamenx",
    "load_functions": "restore",
}  # fmt: skip
ON_6 = {"expiry": "multi", "touch": None, "functions": "none", "load_functions": "none"}
EXPECTED: dict[tuple[str, str], dict[str, Any]] = {
    ("redis-8.0", "owner"): OF_OWNER,
    ("redis-8.0", "contributor"): OF_OWNER | {"databases": "select", "process": "scan", "write": "commands"},
    ("redis-8.0", "reader"): OF_OWNER | {
        "moment": "twice", "databases": "select", "process": "scan", "functions": None, "write": None, "rename": None,
        "load_functions": None,
    },
    ("redis-6.0", "owner"): OF_OWNER | ON_6,
    ("redis-6.0", "contributor"): OF_OWNER | ON_6 | {
        "databases": "select", "changes": "passes", "process": "scan", "write": "commands",
    },
    ("redis-6.0", "reader"): OF_OWNER | ON_6 | {
        "expiry": "time", "moment": None, "databases": "one", "process": "scan", "write": None, "rename": None,
    },
}  # fmt: skip


@pytest.mark.parametrize("line", ["redis-6.0", "redis-8.0"])
def test_the_built_in_policies_of_azure(line: str) -> None:
    with served(line) as (client, url):
        add_users(client)
        client.pipeline([("SET", "a", 1), ("SELECT", 3), ("SET", "b", 1), ("SELECT", 0)])
        changes = client.text("INFO", "persistence").partition("rdb_changes_since_last_save:")[2].split()[0]
        for user in ("owner", "contributor", "reader"):
            with connect(url_of(url, user)) as server:
                assert server.version is not None
                assert server.version.startswith(line.replace("-", " "))
                found = abilities(server)
                assert uses(found) == EXPECTED[line, user], user
                numbers = databases_of(server)
                assert numbers == {"info": [0, 3], "select": [0, 3], "one": [0]}[found.databases.use or ""]
                rows = [*found.rows(server, "source"), *found.rows(server, "target")]
                assert len(rows) == len(NAMES)
                for row in rows:
                    assert not row.remedy or row.why
                    assert "p@ss" not in str(row)
        assert client.text("INFO", "persistence").partition("rdb_changes_since_last_save:")[2].split()[0] == changes
        assert client.integer("DBSIZE") == 1


def row(server: Server, found: Abilities, what: str) -> Any:
    return next(r for side in ("source", "target") for r in found.rows(server, side) if r.what == what)


def test_what_would_do_better_is_told_with_the_servers_words() -> None:
    with served("redis-6.0") as (client, url):
        add_users(client)
        with connect(url_of(url, "contributor")) as server:
            found = abilities(server)
            writing = row(server, found, "writing")
            assert writing.used == "commands of each type"
            assert writing.why.startswith("RESTORE: NOPERM this user has no permissions to run the 'restore' command")
            assert writing.remedy.startswith("with a user that may run RESTORE (ACL SETUSER NAME +restore), writing takes")
            assert row(server, found, "expiries").why == "PEXPIRETIME: unknown command `PEXPIRETIME`"
            assert row(server, found, "expiries").remedy == ""
            changes = row(server, found, "changes")
            assert changes.remedy.endswith("keyspace notifications do as well: set notify-keyspace-events to AKE by CONFIG SET")
            azure = Server.__new__(Server)
            azure.url = server.url.__class__("old.redis.cache.windows.net", 6380, True, None, None, None)
            assert row(azure, found, "writing").remedy.startswith("with the access policy Data Owner, writing takes")
            assert "advanced settings" in row(azure, found, "changes").remedy


@pytest.mark.parametrize(
    ("line", "rules", "expected"),
    [
        ("redis-7.0", "+@all -dump", {"value": "commands"}),
        ("redis-7.0", "+@all -dump -hscan", {"value": None}),
        ("redis-7.0", "+@all -multi", {"moment": "twice"}),
        ("redis-7.0", "+@all -pexpiretime", {"expiry": "multi"}),
        ("redis-7.0", "+@all -pexpiretime -multi", {"expiry": "time", "moment": None}),
        ("redis-7.0", "+@all -pexpiretime -time", {"expiry": "clock"}),
        ("redis-7.0", "+@all -info -select", {"databases": "one", "process": "scan"}),
        ("redis-7.0", "+@all -client", {"changes": "passes", "touch": None}),
        ("redis-7.0", "+@all -memory", {"size": None}),
        ("redis-7.0", "+@all -function", {"functions": None, "load_functions": None}),
        ("redis-7.0", "+@all -restore -xadd", {"write": None}),
        ("redis-7.0", "+@all -restore -renamenx", {"write": None, "rename": None}),
        # a user of some keys may do all with these
        ("redis-7.0", "+@all resetkeys ~app:*", {}),
    ],
)
def test_each_thing_that_is_refused_has_its_next_best(line: str, rules: str, expected: dict[str, Any]) -> None:
    with served(line) as (client, url):
        add_user(client, "some", rules)
        with connect(url_of(url, "some")) as server:
            assert uses(abilities(server)) == OF_OWNER | {"touch": None} | expected


@pytest.mark.parametrize(
    ("events", "user", "use"),
    [("AKE", "all", "notifications"), ("Eg$lshztxe", "all", "notifications"), ("AK", "all", "passes"), ("Eg", "all", "passes"),
     ("AKE", "deaf", "passes"), ("AKE", "blind", "passes")],
)  # fmt: skip
def test_notifications_are_taken_where_they_tell_all(events: str, user: str, use: str) -> None:
    with served("redis-7.0", [f'notify-keyspace-events "{events}"']) as (client, url):
        add_user(client, "all", "+@all -client")
        add_user(client, "deaf", "+@all -client -psubscribe")
        add_user(client, "blind", "+@all -client -config")
        with connect(url_of(url, user)) as server:
            found = abilities(server)
            assert found.changes.use == use
            assert (found.events is None) == (user == "blind")


def test_a_replica_takes_no_writes_and_its_primary_is_named_as_the_way(tmp_path: Path) -> None:
    with served("redis-7.0") as (client, primary), served("redis-7.0") as (replica, url):
        replica.call("REPLICAOF", "127.0.0.1", primary.rpartition(":")[2])
        while "master_link_status:up" not in replica.text("INFO", "replication"):
            pass
        with connect(url) as server:
            found = abilities(server)
            assert found.write.use is None
            assert row(server, found, "writing").remedy == "this is a replica: name its primary"
            assert found.value.use == "dump"
        assert client.integer("DBSIZE") == 0


def test_a_server_that_is_not_ready_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdbkit.live.abilities.WAITS", (0.01,))
    with served("redis-7.0") as (client, url), connect(url) as server:
        assert abilities(server).value.use == "dump"
        other = Client(int(url.rpartition(":")[2]))
        other.call("CONFIG", "SET", "busy-reply-threshold", 1)
        other._socket.sendall(b"*3\r\n$4\r\nEVAL\r\n$18\r\nwhile true do end \r\n$1\r\n0\r\n")
        while "BUSY" not in str(client.answers([("PING",)])[0]):
            pass
        with pytest.raises(TargetError, match=r"what the login may do cannot be checked: .*BUSY"):
            abilities(server)
        client.call("SCRIPT", "KILL")
        other.close()
        assert abilities(server).value.use == "dump"


def test_all_nodes_of_a_cluster_are_asked() -> None:
    with cluster(SERVERS / "redis-7.0" / "redis-server") as nodes:
        for node in nodes.nodes:
            add_user(node.client, "some", "+@all")
        with connect(url_of(nodes.url, "some")) as server:
            assert uses(abilities(server)) == OF_OWNER | {"touch": None, "databases": "one"}
            assert databases_of(server) == [0]
            last = nodes.masters()[-1]
            add_user(last.client, "some", "+@all -dump")
            found = abilities(server)
            assert found.value.use == "commands"
            assert f"127.0.0.1:{last.port}: NOPERM" in row(server, found, "values").why


@pytest.mark.parametrize("line", ["redis-8.0", "valkey-8.1", "valkey-9.1"])
def test_no_node_of_a_cluster_is_ended_by_no_touch(line: str) -> None:
    """Redis 8.0 and Valkey 8.1 crash where a connection with it names a key whose slot is on its way."""
    with cluster(SERVERS / line / "redis-server") as nodes:
        slot = nodes.slot("k")
        node = nodes.owner(slot)
        other = next(each for each in nodes.nodes if each is not node)
        nodes.write([("SET", "k", 1)])
        other.client.call("CLUSTER", "SETSLOT", slot, "IMPORTING", node.name)
        node.client.call("CLUSTER", "SETSLOT", slot, "MIGRATING", other.name)
        for kind in KINDS:
            with connect(node.url, cluster=kind) as server:
                assert "ends when a slot moves" in (server.touch or "")
                assert abilities(server).touch.use is None
                assert server.ask(0, [(b"k", [command(b"GET", b"k"), command(b"GET", b"k")])]) == [[b"1", b"1"]]
        assert node.client.call("PING") == b"PONG"

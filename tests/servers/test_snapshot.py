"""`rdbkit snapshot` of real servers, disk and diskless, alone and as a cluster: every key, and files that servers load."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import rdbkit
from fixtures.server import RELEASES, Client, running, text
from rdbkit.errors import TargetError
from rdbkit.live.server import connect
from rdbkit.live.snapshot import snapshot_server

from ..command_line import run_text
from ..live.acl import PASSWORD, add_user
from ..live.cluster import Cluster, cluster
from ..live.tls import Certificates
from ..rdb import FIXTURES

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
LINES = ["redis-6.0", "redis-7.0", "redis-8.0", "valkey-8.1", "valkey-9.1"]
FIELD_TTLS = (24, 25, 22)
Content = dict[tuple[int, bytes], tuple[Any, int | None]]


class Running(NamedTuple):
    """A server that has data of every type."""

    line: str
    client: Client
    url: str
    content: Content
    functions: list[str]


def binary(line: str) -> Path:
    return next((SERVERS / line).glob("*-server"))


def content(source: Any) -> Content:
    """Keys, as the bytes of their values: the order of sets and the like is the server's, which is the same until it ends."""
    with rdbkit.open(source) as snapshot:
        found = {(record.db, record.key): (record.raw, record.expire_ms) for record in snapshot}
    assert snapshot.checksum is not None
    assert snapshot.checksum.state == "ok"
    return found


def values(source: Any) -> Content:
    with rdbkit.open(source) as snapshot:
        return {(record.db, record.key): (record.value, record.expire_ms) for record in snapshot}


def loaded(line: str, file: Path) -> int:
    """How many keys a server has that has loaded this file."""
    with running(binary(line), file) as (client, _):
        return sum(client.integer("DBSIZE") for db in range(16) if client.call("SELECT", db))


@pytest.fixture(scope="module", params=LINES)
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    dump = FIXTURES / "rich" / f"{RELEASES[request.param]}.rdb"
    with running(binary(request.param), dump, ["repl-diskless-sync-delay 0"]) as (client, folder):
        port = int(text(client.items("CONFIG", "GET", "port")[1]))
        client.call("SAVE")
        with rdbkit.open(folder / "dump.rdb") as snapshot:
            functions = [library.name for library in snapshot.functions]
        yield Running(request.param, client, f"redis://127.0.0.1:{port}", content(folder / "dump.rdb"), functions)


@pytest.mark.parametrize("diskless", ["no", "yes"], ids=["disk", "diskless"])
def test_every_key_is_there_and_the_file_loads(server: Running, diskless: str, tmp_path: Path) -> None:
    server.client.call("CONFIG", "SET", "repl-diskless-sync", diskless)
    out = tmp_path / "out.rdb"
    done = run_text("snapshot", server.url, out)
    assert done.returncode == 0, done.stderr
    assert content(out) == server.content
    assert f"{len(server.content)} keys written" in done.stdout
    with rdbkit.open(out) as snapshot:
        assert [library.name for library in snapshot.functions] == server.functions
        types = {record.type_code for record in snapshot}
    if server.line in ("redis-8.0", "valkey-9.1"):  # of which redis-cli --rdb gets nothing where it is a Valkey
        assert types & set(FIELD_TTLS)
    assert loaded(server.line, out) == len(server.content)


@pytest.mark.parametrize("diskless", ["no", "yes"], ids=["disk", "diskless"])
def test_on_the_way_it_becomes_what_an_old_server_loads(server: Running, diskless: str, tmp_path: Path) -> None:
    server.client.call("CONFIG", "SET", "repl-diskless-sync", diskless)
    whole, wanted, got = tmp_path / "whole.rdb", tmp_path / "wanted.rdb", tmp_path / "got.rdb"
    assert run_text("snapshot", server.url, whole).returncode == 0
    options = ["--target", "redis-6.0", "--on-loss", "drop"]
    assert run_text("convert", whole, wanted, *options).returncode == 0
    done = run_text("snapshot", server.url, got, *options)
    assert done.returncode == 0, done.stderr
    assert content(got) == content(wanted)
    assert loaded("redis-6.0", got) == len(content(got))


def test_info_and_diff_read_the_server(server: Running, tmp_path: Path) -> None:
    out = tmp_path / "out.rdb"
    assert run_text("snapshot", server.url, out).returncode == 0
    done = run_text("info", server.url, "--json")
    assert json.loads(done.stdout)["keys"] == len(server.content)
    assert run_text("diff", out, server.url).returncode == 0
    assert run_text("verify-import", server.url, server.url).returncode == 0


def test_a_login_that_may_not_replicate_is_told(server: Running, tmp_path: Path) -> None:
    add_user(server.client, "someone", "+@all -psync -sync")
    try:
        url = server.url.replace("//", "//someone@")
        (tmp_path / "password").write_text(PASSWORD)
        done = run_text("snapshot", url, tmp_path / "out.rdb", "--password-file", tmp_path / "password", "--via", "replication")
        assert done.returncode == 4
        (line,) = done.stderr.splitlines()
        assert "this login may not replicate: allow it +psync and +replconf" in line
        assert not (tmp_path / "out.rdb").exists()
    finally:
        server.client.call("ACL", "DELUSER", "someone")


def test_a_replica_may_be_asked_and_says_when_it_cannot(server: Running, tmp_path: Path) -> None:
    _, port = server.url.rsplit(":", 1)
    conf = [f"replicaof 127.0.0.1 {port}", "repl-diskless-sync-delay 0"]
    with running(binary(server.line), None, conf) as (client, _):
        while "master_link_status:up" not in client.text("INFO", "replication"):
            pass
        own = int(text(client.items("CONFIG", "GET", "port")[1]))
        with connect(f"redis://127.0.0.1:{own}") as replica:
            assert snapshot_server(replica, tmp_path / "out.rdb").keys == len(server.content)
            assert values(tmp_path / "out.rdb").keys() == server.content.keys()
            client.call("REPLICAOF", "127.0.0.1", 1)
            with pytest.raises(TargetError, match="this replica has lost its master, and sends no snapshot meanwhile"):
                snapshot_server(replica, tmp_path / "no.rdb")
    assert not (tmp_path / "no.rdb").exists()


def test_a_snapshot_by_tls(tmp_path: Path) -> None:
    certificates = Certificates.make(tmp_path)
    port, conf = certificates.listen()
    dump = FIXTURES / "rich" / f"{RELEASES['redis-7.0']}.rdb"
    with running(binary("redis-7.0"), dump, [*conf, "repl-diskless-sync-delay 0"]) as (client, _):
        client.call("SET", "large", "x" * 5_000_000)
        authority = certificates.authority.cert
        for diskless in ("yes", "no"):
            client.call("CONFIG", "SET", "repl-diskless-sync", diskless)
            out = tmp_path / f"{diskless}.rdb"
            done = run_text("snapshot", f"rediss://localhost:{port}", out, "--ca-cert", authority)
            assert done.returncode == 0, done.stderr
            assert content(out)[0, b"large"][0].count(b"x") >= 1
            assert len(content(out)) == 28
        done = run_text("info", f"rediss://localhost:{port}")
        assert done.returncode == 4
        assert "its certificate is not trusted" in done.stderr


# -- clusters


@pytest.fixture(scope="module", params=["redis-7.0", "valkey-9.1"])
def nodes(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with cluster(binary(request.param)) as found:
        commands = [("SET", f"key:{i}", i) for i in range(3000)]
        found.write([*commands, *(("RPUSH", f"list:{i}", *range(40)) for i in range(100)), ("PEXPIREAT", "key:7", 4102444800000)])
        yield found


def test_a_cluster_in_one_file(nodes: Cluster, tmp_path: Path) -> None:
    out = tmp_path / "out.rdb"
    done = run_text("snapshot", nodes.url, out)
    assert done.returncode == 0, done.stderr
    found = values(out)
    assert {key: value for key, value in found.items() if key[1].startswith(b"key:")} == {
        (0, b"key:%d" % i): (b"%d" % i, 4102444800000 if i == 7 else None) for i in range(3000)
    }
    assert len(found) == 3100
    assert "3 nodes in one file" in done.stdout
    report = json.loads(run_text("snapshot", nodes.url, tmp_path / "b.rdb", "--json").stdout)
    assert sum(n for node in report["source"]["nodes"] for n in node["databases"].values()) == report["written"] == 3100
    assert len({node["node"] for node in report["source"]["nodes"]}) == 3


def test_a_cluster_in_one_file_for_another_server(nodes: Cluster, tmp_path: Path) -> None:
    out = tmp_path / "out.rdb"
    options = ["--target", "redis-6.0", "--rename-prefix", "key:=k:", "--not-key", "list:9*"]
    done = run_text("snapshot", nodes.url, out, *options)
    assert done.returncode == 0, done.stderr
    found = values(out)
    assert len(found) == 3089
    assert (0, b"k:2999") in found
    assert loaded("redis-6.0", out) == 3089


def test_a_file_for_each_node_of_a_cluster(nodes: Cluster, tmp_path: Path) -> None:
    done = run_text("snapshot", nodes.url, "--per-node", tmp_path / "nodes")
    assert done.returncode == 0, done.stderr
    files = sorted((tmp_path / "nodes").iterdir())
    assert sorted(file.name for file in files) == sorted(f"127.0.0.1-{node.port}.rdb" for node in nodes.nodes)
    found = [values(file) for file in files]
    assert sum(map(len, found)) == len({key for each in found for key in each}) == 3100
    for node in nodes.nodes:
        assert len(values(tmp_path / "nodes" / f"127.0.0.1-{node.port}.rdb")) == node.client.integer("DBSIZE")


def test_every_verb_reads_a_cluster(nodes: Cluster) -> None:
    done = run_text("info", nodes.url, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["keys"] == 3100


def test_slots_that_are_on_their_way_are_no_snapshot(nodes: Cluster, tmp_path: Path) -> None:
    slot = nodes.slot("key:1")
    source = nodes.owner(slot)
    target = next(node for node in nodes.nodes if node is not source)
    target.client.call("CLUSTER", "SETSLOT", slot, "IMPORTING", source.name)
    source.client.call("CLUSTER", "SETSLOT", slot, "MIGRATING", target.name)
    try:
        done = run_text("snapshot", nodes.url, tmp_path / "out.rdb")
        assert done.returncode == 4
        assert "1 slot moved between nodes while they were read, so that keys may be missing: run this again" in done.stderr
        assert not (tmp_path / "out.rdb").exists()
    finally:
        for node in (source, target):
            node.client.call("CLUSTER", "SETSLOT", slot, "STABLE")
    nodes.move_slot(slot, target)
    assert run_text("snapshot", nodes.url, tmp_path / "out.rdb").returncode == 0
    assert len(values(tmp_path / "out.rdb")) == 3100


def test_a_node_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with cluster(binary("redis-7.0")) as nodes, connect(nodes.url) as server:
        nodes.write([("SET", f"key:{i}", i) for i in range(100)])
        nodes.nodes[1].client.close()
        nodes.kill(nodes.nodes[1])
        monkeypatch.setattr("rdbkit.live.server.WAITS", ())
        for per_node in (False, True):
            with pytest.raises(TargetError):
                snapshot_server(server, tmp_path / "out", per_node=per_node)
            assert not list(tmp_path.iterdir())

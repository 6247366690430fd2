"""`rdbkit snapshot` of real servers, disk and diskless, alone and as a cluster: every key, and files that servers load."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest

import rdbkit
from fixtures.server import RELEASES, Client, running, text
from rdbkit.errors import TargetError
from rdbkit.live import recording
from rdbkit.live.server import connect
from rdbkit.live.snapshot import snapshot_server

from ..command_line import run_text
from ..live.acl import PASSWORD, POLICIES, add_user, add_users
from ..live.azure_like import MANAGED, PREMIUM, AzureLike
from ..live.cluster import Cluster, cluster
from ..live.cutting_front import CuttingFront
from ..live.tls import Certificates
from ..live.writers import meanwhile
from ..rdb import FIXTURES
from .test_capture import Content, content

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
LINES = ["redis-6.0", "redis-7.0", "redis-8.0", "valkey-8.1", "valkey-9.1"]
FIELD_TTLS = (24, 25, 22)


class Running(NamedTuple):
    """A server that has data of every type."""

    line: str
    client: Client
    url: str
    content: Content
    functions: list[str]


def binary(line: str) -> Path:
    return next((SERVERS / line).glob("*-server"))


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
            with pytest.raises(TargetError, match="this replica has no link to its primary, and sends no snapshot"):
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


# -- key by key


def test_key_by_key_every_key_is_there_and_the_file_loads(server: Running, tmp_path: Path) -> None:
    out = tmp_path / "out.rdb"
    done = run_text("snapshot", server.url, out, "--via", "scan")
    assert done.returncode == 0, done.stderr
    assert same(content(out), server.content)
    assert not done.stderr
    assert f"{len(server.content)} keys written" in done.stdout
    assert done.stdout.splitlines()[2].startswith("read key by key from 20")
    with rdbkit.open(out) as snapshot:
        assert [library.name for library in snapshot.functions] == server.functions
        assert snapshot.aux["rdbkit-via"] == "scan"
        assert snapshot.aux[f"{server.line.split('-')[0]}-ver"] == RELEASES[server.line].split("-")[1]
        events = [event for event in snapshot.events() if isinstance(event, rdbkit.ResizeDb)]
    with rdbkit.open(out) as snapshot:
        assert sum(event.keys for event in events) == sum(1 for _ in snapshot) == len(server.content)
    assert verify_deep(out)
    assert loaded(server.line, out) == len(server.content)
    old = tmp_path / "old.rdb"
    done = run_text("snapshot", server.url, old, "--via", "scan", "--target", "redis-6.0", "--on-loss", "drop", "--batch", "3")
    assert done.returncode == 0, done.stderr
    assert loaded("redis-6.0", old) == len(content(old))
    done = run_text("snapshot", server.url, "--per-node", tmp_path / "nodes", "--via", "scan", "--max-latency", "0")
    assert done.returncode == 0, done.stderr
    (file,) = (tmp_path / "nodes").iterdir()
    assert same(content(file), server.content)


def same(found: Content, wanted: Content) -> bool:
    """Whether keys are the same, and expiries to a few milliseconds: before Redis 7.0 servers tell only the time that is left."""
    apart = [abs((found[where][1] or 0) - (expire_ms or 0)) for where, (_, expire_ms) in wanted.items() if where in found]
    return max(apart, default=0) < 100 and {k: v for k, (v, _) in found.items()} == {k: v for k, (v, _) in wanted.items()}


@pytest.mark.parametrize("big", ["1", "300"])
def test_values_that_are_read_in_pieces_are_the_same(server: Running, big: str, tmp_path: Path) -> None:
    whole, out = tmp_path / "whole.rdb", tmp_path / "out.rdb"
    assert run_text("snapshot", server.url, whole).returncode == 0
    done = run_text("snapshot", server.url, out, "--via", "scan", "--big", big)
    assert done.returncode == 0, done.stderr
    done = run_text("diff", whole, out)
    assert done.returncode == 0, done.stdout
    assert verify_deep(out)
    assert loaded(server.line, out) == len(server.content)


def test_a_very_large_value_takes_little_memory_here(tmp_path: Path) -> None:
    with running(binary("redis-7.0")) as (client, _):
        client.call("SET", "small", "1")
        client.pipeline([("RPUSH", "large", *(b"x" * 1000 for _ in range(1000))) for _ in range(60)])
        port = int(text(client.items("CONFIG", "GET", "port")[1]))
        with connect(f"redis://127.0.0.1:{port}") as source:
            report = snapshot_server(source, tmp_path / "out.rdb", via="scan")
        assert report.missing_keys == 0
        with rdbkit.open(tmp_path / "out.rdb") as snapshot:
            assert {record.key: len(record.value) for record in snapshot} == {b"large": 60_000, b"small": 1}
        with closing(Client(port)) as other, meanwhile(lambda _: other.call("LSET", "large", 7, time.monotonic())):
            done = run_text("snapshot", f"redis://127.0.0.1:{port}", tmp_path / "out.rdb", "--via", "scan", "--force")
        assert done.returncode == 1
        assert "not in the file: db 0, key large: it changed each time it was read" in done.stderr
        assert values(tmp_path / "out.rdb") == {(0, b"small"): (b"1", None)}


def verify_deep(file: Path) -> bool:
    return run_text("verify", "--deep", file).returncode == 0


def test_where_replication_is_refused_keys_are_read_one_by_one(server: Running, tmp_path: Path) -> None:
    add_user(server.client, "someone", "+@all -psync -sync")
    try:
        url = server.url.replace("//", f"//someone:{quote(PASSWORD, safe='')}@")
        done = run_text("snapshot", url, tmp_path / "out.rdb", "--json")
        assert done.returncode == 0, done.stderr
        assert same(content(tmp_path / "out.rdb"), server.content)
        (line,) = done.stderr.splitlines()
        assert "this login may not replicate: allow it +psync and +replconf" in line
        assert line.endswith("; its keys were read one by one instead")
        said = json.loads(done.stdout)
        assert said["source"]["via"] == "scan"
        assert "may not replicate" in said["source"]["refusal"]
        first, last = said["source"]["read_ms"]
        assert first <= last
        done = run_text("info", url, "--json")
        assert (done.returncode, json.loads(done.stdout)["keys"]) == (0, len(server.content))
    finally:
        server.client.call("ACL", "DELUSER", "someone")


@pytest.mark.parametrize("line", ["redis-6.0", "redis-8.0"])
@pytest.mark.parametrize("name", sorted(POLICIES))
def test_logins_with_the_access_policies_of_azure(line: str, name: str, tmp_path: Path) -> None:
    dump = FIXTURES / "rich" / f"{RELEASES[line]}.rdb"
    with running(binary(line), dump, ["repl-diskless-sync-delay 0"]) as (client, folder):
        add_users(client)
        client.call("SAVE")
        port = int(text(client.items("CONFIG", "GET", "port")[1]))
        url = f"redis://{name}:{quote(PASSWORD, safe='')}@127.0.0.1:{port}"
        done = run_text("snapshot", url, tmp_path / "out.rdb", "--json")
        found, wanted = content(tmp_path / "out.rdb"), content(folder / "dump.rdb")
        said = json.loads(done.stdout)
        assert said["source"]["via"] == ("replication" if name == "owner" else "scan")
        if name == "reader" and line == "redis-6.0":  # which may not SELECT
            assert same(found, {where: value for where, value in wanted.items() if where[0] == 0})
            assert "only database 0 was read: the login may use neither INFO nor SELECT" in done.stderr
        else:
            assert same(found, wanted)
        if name == "reader" and line == "redis-8.0":
            assert "function libraries are not in the file (NOPERM" in done.stderr
        assert done.returncode == (1 if name == "reader" else 0), done.stderr


@pytest.mark.parametrize(
    ("line", "refused", "opaque"), [("redis-6.0", PREMIUM, False), ("redis-8.0", MANAGED, True)], ids=["premium", "managed"]
)
def test_services_that_let_nobody_replicate(line: str, refused: Mapping[str, str], opaque: bool, tmp_path: Path) -> None:
    dump = FIXTURES / "rich" / f"{RELEASES[line]}.rdb"
    with running(binary(line), dump) as (client, folder):
        client.call("SELECT", 3)
        client.call("FLUSHDB")  # a managed one has database 0 alone
        client.call("SELECT", 0)
        client.pipeline([("SET", f"many:{i}", i) for i in range(3000)])
        client.call("SAVE")
        port = int(text(client.items("CONFIG", "GET", "port")[1]))
        with AzureLike(port, refused, opaque_cursors=opaque) as front:
            done = run_text("snapshot", front.url, tmp_path / "out.rdb", "--batch", "100")
            assert done.returncode == 0, done.stderr
            assert same(content(tmp_path / "out.rdb"), content(folder / "dump.rdb"))
            assert "the service does not allow replication" in done.stderr
            done = run_text("snapshot", front.url, tmp_path / "no.rdb", "--via", "replication")
            assert done.returncode == 4
            assert len(done.stderr.splitlines()) == 1
            assert client.integer("DBSIZE") == len(content(folder / "dump.rdb"))


def test_values_are_read_by_commands_where_dump_is_refused(server: Running, tmp_path: Path) -> None:
    add_user(server.client, "someone", "+@all -psync -sync -dump")
    try:
        url = server.url.replace("//", f"//someone:{quote(PASSWORD, safe='')}@")
        whole = tmp_path / "whole.rdb"
        assert run_text("snapshot", server.url, whole).returncode == 0
        done = run_text("snapshot", url, tmp_path / "out.rdb")
        done_diff = run_text("diff", whole, tmp_path / "out.rdb")
        assert loaded(server.line, tmp_path / "out.rdb") == len(content(tmp_path / "out.rdb"))
        if server.line == "redis-8.0":  # of its vector sets
            assert (done.returncode, "could not be read" in done.stderr) == (1, True)
        else:
            assert done.returncode == 0, done.stderr
            assert done_diff.returncode == 0, done_diff.stdout
    finally:
        server.client.call("ACL", "DELUSER", "someone")


def test_connections_that_break_are_gone_on_with(tmp_path: Path) -> None:
    with running(binary("redis-7.0")) as (client, _):
        client.pipeline([("SET", f"key:{i}", i) for i in range(5000)])
        port = int(text(client.items("CONFIG", "GET", "port")[1]))
        with CuttingFront(port, cut_received=range(20_000, 300_000, 40_000), piece=1000) as front:
            done = run_text("snapshot", front.url, tmp_path / "out.rdb", "--via", "scan", "--batch", "100")
            assert done.returncode == 0, done.stderr
            assert front.cuts_left == 0
        assert values(tmp_path / "out.rdb") == {(0, b"key:%d" % i): (b"%d" % i, None) for i in range(5000)}
        with CuttingFront(port, cut_received=[40_000], piece=1000) as front:
            done = run_text("snapshot", front.url, tmp_path / "no.rdb")
            assert (done.returncode, len(done.stderr.splitlines())) == (4, 1)
            assert "in the middle of the snapshot" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out.rdb"]


def test_keys_that_the_login_may_not_read_are_told(server: Running, tmp_path: Path) -> None:
    server.client.call("ACL", "SETUSER", "some", "on", ">pw", "~s*", "+@all", "-psync", "-sync")
    try:
        url = server.url.replace("//", "//some:pw@")
        done = run_text("snapshot", url, tmp_path / "out.rdb", "--via", "scan", "--json")
        assert done.returncode == 1
        found = content(tmp_path / "out.rdb")
        assert same(found, {where: value for where, value in server.content.items() if where[1].startswith(b"s")})
        said = json.loads(done.stdout)
        assert said["missing_keys"] == len(server.content) - len(found) > 0
        assert "not in the file: db 0, key " in done.stderr
        assert f"{said['missing_keys']} keys not in the file, since they could not be read" in done.stderr
        done = run_text("info", url)
        assert done.returncode == 4
        assert "its snapshot lacks keys that the server refused" in done.stderr
    finally:
        server.client.call("ACL", "DELUSER", "some")


def test_keys_that_are_listed_twice_are_in_the_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(binary("redis-7.0")) as (client, _):
        client.pipeline([("SET", f"key:{i}", i) for i in range(2500)])
        port = int(text(client.items("CONFIG", "GET", "port")[1]))
        asked = recording._record_database

        def twice(node: Any, *more: Any) -> None:
            asked(node, *more)
            client.call("SET", "key:7", "later")
            client.call("DEL", "key:8")
            asked(node, *more)

        monkeypatch.setattr(recording, "_record_database", twice)
        with connect(f"redis://127.0.0.1:{port}") as server:
            report = snapshot_server(server, tmp_path / "out.rdb", via="scan")
        found = values(tmp_path / "out.rdb")
        assert found == {(0, b"key:%d" % i): (b"later" if i == 7 else b"%d" % i, None) for i in range(2500)}
        assert report.keys == 2500


def test_idle_times_stay_where_the_server_can_leave_them(tmp_path: Path) -> None:
    with running(binary("redis-8.0")) as (client, _):
        client.call("SET", "b", "1")
        payload = client.call("DUMP", "b")
        assert isinstance(payload, bytes)
        client.call("RESTORE", "a", 0, payload, "IDLETIME", 1000)
        port = int(text(client.items("CONFIG", "GET", "port")[1]))
        with connect(f"redis://127.0.0.1:{port}") as server:
            snapshot_server(server, tmp_path / "out.rdb", via="scan")
        assert client.integer("OBJECT", "IDLETIME", "a") >= 1000


def test_an_empty_server_is_a_file_without_keys(tmp_path: Path) -> None:
    for line in ("redis-6.0", "valkey-9.1"):
        with running(binary(line)) as (client, _):
            port = int(text(client.items("CONFIG", "GET", "port")[1]))
            for via in ("scan", "replication"):
                done = run_text("snapshot", f"redis://127.0.0.1:{port}", tmp_path / "out.rdb", "--via", via, "--force")
                assert done.returncode == 0, done.stderr
                assert content(tmp_path / "out.rdb") == {}
                assert loaded(line, tmp_path / "out.rdb") == 0


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


def test_a_cluster_key_by_key(nodes: Cluster, tmp_path: Path) -> None:
    replicated, out = tmp_path / "replicated.rdb", tmp_path / "out.rdb"
    assert run_text("snapshot", nodes.url, replicated).returncode == 0
    done = run_text("snapshot", nodes.url, out, "--via", "scan")
    assert done.returncode == 0, done.stderr
    assert values(out) == values(replicated)
    done = run_text("snapshot", nodes.url, "--per-node", tmp_path / "nodes", "--via", "scan")
    assert done.returncode == 0, done.stderr
    for node in nodes.nodes:
        assert len(values(tmp_path / "nodes" / f"127.0.0.1-{node.port}.rdb")) == node.client.integer("DBSIZE")


def test_key_by_key_nothing_is_missed_while_slots_move(tmp_path: Path) -> None:
    with cluster(binary("redis-7.0")) as nodes:
        nodes.write([("SET", f"key:{i}", i) for i in range(5000)])
        with nodes.moving_slots(pause=0.01) as moved:
            while len(moved) < 5:
                pass
            with connect(nodes.url) as server:
                report = snapshot_server(server, tmp_path / "out.rdb", via="scan", batch=200)
        assert values(tmp_path / "out.rdb") == {(0, b"key:%d" % i): (b"%d" % i, None) for i in range(5000)}
        assert report.keys == 5000


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

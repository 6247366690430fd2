"""A server or cluster that changes while it is asked: slots on their way, nodes that are not ready, tokens that end."""

from __future__ import annotations

import os
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.server import Client, running
from rdbkit.errors import TargetError
from rdbkit.format.replies import Refusal
from rdbkit.live.connection import Lost, Refused
from rdbkit.live.server import connect
from rdbkit.resp import command

from ..command_line import run_text
from ..live.acl import add_user, add_users, url_of
from ..live.azure_like import AzureLike
from ..live.cluster import cluster
from ..live.tls import Certificate, Certificates
from ..rdb import FIXTURES
from .test_verify_import import port_of, run

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
PING = command(b"PING")


@contextmanager
def served(line: str = "redis-7.0", *conf: str) -> Iterator[tuple[Client, str]]:
    with running(SERVERS / line / "redis-server", conf=conf) as (client, _):
        yield client, f"redis://127.0.0.1:{port_of(client)}"


def test_a_key_on_its_way_is_asked_for_where_it_is_while_its_node_answers_others() -> None:
    names = [b"k%d" % i for i in range(600)]
    with cluster(SERVERS / "redis-7.0" / "redis-server") as nodes:
        nodes.write([("SET", name, name) for name in names])
        for node in nodes.nodes:  # any two nodes, in either direction
            for other in nodes.nodes:
                if node is other:
                    continue
                slot = next(slot for name in names if nodes.owner(slot := nodes.slot(name)) is node)
                other.client.call("CLUSTER", "SETSLOT", slot, "IMPORTING", node.name)
                node.client.call("CLUSTER", "SETSLOT", slot, "MIGRATING", other.name)
                for name in node.client.items("CLUSTER", "GETKEYSINSLOT", slot, 100):
                    assert isinstance(name, bytes)
                    node.client.call("MIGRATE", "127.0.0.1", other.port, name, 0, 5000)
                with connect(nodes.url) as server:
                    found = server.ask(0, [(name, [command(b"GET", name), command(b"STRLEN", name)]) for name in names])
                assert found == [[name, len(name)] for name in names]
                nodes.move_slot(slot, other)  # until all nodes know


def test_slots_that_move_all_the_time_are_followed() -> None:
    names = [b"k%d" % i for i in range(300)]
    with cluster(SERVERS / "redis-8.0" / "redis-server") as nodes:
        nodes.write([("SET", name, name) for name in names])
        with connect(nodes.url) as server, nodes.moving_slots([nodes.slot(name) for name in names]) as moved:
            rounds = 0
            while rounds < 20 or len(moved) < 20:
                found = server.ask(0, [(name, [command(b"GET", name)]) for name in names])
                assert found == [[name] for name in names]
                rounds += 1


def test_a_node_that_fails_over_is_asked_by_its_new_name() -> None:
    names = [b"k%d" % i for i in range(300)]
    with cluster(SERVERS / "redis-7.0" / "redis-server", masters=3, replicas=1) as nodes:
        nodes.write([("SET", name, name) for name in names])
        asked = [(name, [command(b"GET", name)]) for name in names]
        with connect(nodes.url) as server:
            before = server.masters()
            assert len(before) == 3
            assert len(server.slots()) == 16_384
            nodes.fail_over(nodes.masters()[0])
            assert server.ask(0, asked) == [[name] for name in names]
            server.read_slots()
            assert len(set(server.masters()) - set(before)) == 1


def test_a_server_that_is_busy_is_waited_for_and_told_when_it_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdbkit.live.server.WAITS", (0.01, 0.01))
    with served("redis-7.0", "busy-reply-threshold 1") as (client, url), connect(url) as server:
        client.call("SET", "a", 1)
        with pytest.raises(TargetError, match=r"it is not ready: BUSY .*; run this again"), busy(client, url):
            server.ask(0, [(b"a", [command(b"GET", b"a")])])
        with pytest.raises(TargetError, match="it is not ready: BUSY"), busy(client, url):
            server.ask_each_node(0, [command(b"DBSIZE")])
        monkeypatch.setattr("rdbkit.live.server.WAITS", (0.05,) * 200)
        with busy(client, url):
            killer = threading.Timer(0.2, lambda: client.call("SCRIPT", "KILL"))
            killer.start()
            assert server.ask(0, [(b"a", [command(b"GET", b"a")])]) == [[b"1"]]
            killer.join()


@contextmanager
def busy(client: Client, url: str) -> Iterator[None]:
    """A script that runs until it is killed."""
    other = Client(int(url.rpartition(":")[2]))
    other._socket.sendall(command(b"EVAL", b"while true do end", b"0"))
    while "BUSY" not in str(client.answers([("PING",)])[0]):
        time.sleep(0.01)
    try:
        yield
    finally:
        client.answers([("SCRIPT", "KILL")])
        other.close()
        while "BUSY" in str(client.answers([("PING",)])[0]):
            time.sleep(0.01)


def test_a_token_is_renewed_on_open_connections_before_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with served() as (client, _), AzureLike(int(port_of(client)), {}, tokens=True) as front:
        given = [front.issue()]
        with connect(front.url, credentials=lambda: ("oid", given[-1])) as server:
            lane = server.dial()
            assert lane.ask(PING) == [b"PONG"]
            assert lane.new_login() == b""
            assert server.now_ms()
            given.append(front.issue())
            assert lane.new_login() == b"", "tokens are looked at once a minute"
            monkeypatch.setattr("rdbkit.live.login._LOOK_S", 0.0)
            lane.renew_login()
            assert server.ask_each_node(0, [PING]) == [[b"PONG"]]
            assert front.end(given[0]) == 0, "nobody is logged in by it any more"
            assert lane.ask(PING) == [b"PONG"]
            assert lane.is_open
            lane.close()
            # one whose token ends all the same is opened again with the new one
            given.append(front.issue())
            assert front.end(given[1]) >= 1
            assert server.ask_each_node(0, [PING]) == [[b"PONG"]]
            front.end(given[2])
            monkeypatch.setattr("rdbkit.live.server.WAITS", (0.01,))
            with pytest.raises(TargetError, match="does not let this user in") as e:
                server.ask_each_node(0, [PING])
            assert given[2] not in str(e.value)


def test_a_connection_of_ones_own_is_to_a_node_and_a_database() -> None:
    with served("redis-7.0", "databases 4") as (client, url), connect(url) as server:
        lane = server.dial(db=3)
        assert lane.ask(command(b"SET", b"a", b"1")) == [b"OK"]
        client.call("SELECT", 3)
        assert client.integer("DBSIZE") == 1
        with pytest.raises(Refused, match="out of range") as e:
            server.dial(db=4)
        assert e.value.refusal == Refusal("ERR", "DB index is out of range")
        lane.close()
        with pytest.raises(Lost):
            lane.ask(PING)
        with pytest.raises(Lost) as lost:
            server.dial(("127.0.0.1", 1))
        assert lost.value.why == "unreachable"


def test_a_server_with_as_many_clients_as_it_takes_is_told_to_be_full() -> None:
    with served("redis-7.0", "maxclients 2") as (_, url):
        others = [Client(int(url.rpartition(":")[2]))]
        with pytest.raises(TargetError, match=r"takes no more clients \(maxclients\)"):
            connect(url)
        for other in others:
            other.close()


@pytest.mark.parametrize(("line", "keeps"), [("redis-7.0", False), ("redis-8.0", True), ("valkey-9.1", True)])
def test_keys_that_are_read_do_not_look_used_where_the_server_can(line: str, keeps: bool) -> None:
    with served(line) as (client, url):
        add_users(client)
        client.call("SET", "a", "x" * 100)
        while client.integer("OBJECT", "IDLETIME", "a") < 2:
            time.sleep(0.05)
        for user in ("owner", "reader"):
            with connect(url_of(url, user)) as server:
                lane = server.dial()
                lane.ask(command(b"GET", b"a"))
                server.ask(0, [(b"a", [command(b"DUMP", b"a")])])
                lane.close()
            assert (client.integer("OBJECT", "IDLETIME", "a") >= 2) is keeps


def test_bytes_of_any_size_go_both_ways_over_tls(tmp_path: Path) -> None:
    certificates = Certificates.make(tmp_path)
    port, lines = certificates.listen()
    value = random.Random(1).randbytes(20 << 20)
    with (
        served("redis-7.0", *lines) as (client, _),
        connect(f"rediss://localhost:{port}", ca_cert=str(certificates.authority.cert)) as server,
    ):
        lane = server.dial()
        assert lane.ask(command(b"SET", b"a", value), command(b"GET", b"a"), PING) == [b"OK", value, b"PONG"]
        lane.send(PING * 100_000)
        received = 0
        while received < 100_000 * len(b"+PONG\r\n"):
            assert lane.ready(60)
            received += len(lane.receive())
        assert not lane.ready(0)
        client.call("CLIENT", "KILL", "TYPE", "normal")
        assert lane.ready(60)
        with pytest.raises(Lost, match="closed"):
            lane.receive()


def test_a_server_that_wants_a_certificate_of_the_client_gets_it_or_says_so(tmp_path: Path) -> None:
    certificates = Certificates.make(tmp_path)

    def together(name: str, certificate: Certificate) -> str:
        path = tmp_path / name
        path.write_bytes(certificate.cert.read_bytes() + certificate.key.read_bytes())
        return str(path)

    ca = str(certificates.authority.cert)
    client_cert, stranger = together("client", certificates.client), together("stranger", certificates.stranger)
    for versions in ("TLSv1.2", "TLSv1.3"):
        port, lines = certificates.listen(mutual=True, more=[f"tls-protocols {versions}"])
        url = f"rediss://localhost:{port}"
        with served("redis-7.0", *lines) as (client, _):
            client.call("CONFIG", "SET", "requirepass", "s3cret")
            for password in (None, "s3cret"):
                if versions == "TLSv1.3":  # before it, the server says no more than that the handshake failed
                    with pytest.raises(TargetError, match="wants a client certificate: --client-cert FILE"):
                        connect(url, ca_cert=ca, password=password)
                with pytest.raises(TargetError, match="does not trust the client certificate"):
                    connect(url, ca_cert=ca, client_cert=stranger, password=password)
            with connect(url, ca_cert=ca, client_cert=client_cert, password="s3cret") as server:
                assert server.ask_each_node(0, [PING]) == [[b"PONG"]]
            with pytest.raises(TargetError, match="no certificate with its key"):
                connect(url, ca_cert=ca, client_cert=ca)
            dump = str(FIXTURES / "rich" / "redis-7.0.15.rdb")
            done = run(
                dump, url, "--ca-cert", ca, "--client-cert", client_cert, env={**os.environ, "RDBKIT_REDIS_PASSWORD": "s3cret"}
            )
            assert done.returncode == 1
            assert "keys    " in done.stdout
            done = run(dump, f"redis://localhost:{port}", "--client-cert", client_cert)
            assert "--ca-cert, --client-cert and --no-verify-tls are for rediss://" in done.stderr


@contextmanager
def sentinel(known: dict[bytes, int], password: bytes | None = None) -> Iterator[int]:
    """What a Sentinel says of services, by the ports of their servers; its own port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ended = threading.Event()

        def serve() -> None:
            while True:
                client, _ = listener.accept()
                if ended.is_set():
                    client.close()
                    return
                threading.Thread(target=talk, args=(client,)).start()

        def talk(client: socket.socket) -> None:
            with client:
                is_in = password is None
                while asked := client.recv(1000):
                    words = asked.split(b"\r\n")[2::2]
                    if words[0] == b"AUTH":
                        is_in = words[-1] == password
                        client.sendall(b"+OK\r\n" if is_in else b"-WRONGPASS no\r\n")
                    elif not is_in:
                        client.sendall(b"-NOAUTH Authentication required.\r\n")
                    elif words[0] != b"SENTINEL":
                        client.sendall(b"-ERR unknown command\r\n")
                    elif words[2] in known:
                        port = b"%d" % known[words[2]]
                        client.sendall(b"*2\r\n$9\r\n127.0.0.1\r\n$%d\r\n%b\r\n" % (len(port), port))
                    else:
                        client.sendall(b"*-1\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            ended.set()
            socket.create_connection(listener.getsockname()).close()
            thread.join()


def test_a_sentinel_tells_where_the_server_is_and_where_it_is_after_a_failover() -> None:
    with served() as (first, one), served() as (second, two):
        known = {b"mymaster": int(one.rpartition(":")[2])}
        first.call("SET", "who", "first")
        second.call("SET", "who", "second")
        who = [(b"who", [command(b"GET", b"who")])]
        with sentinel(known) as port, connect(f"redis+sentinel://127.0.0.1:{port}/mymaster/0") as server:
            assert str(server.url) == f"redis+sentinel://127.0.0.1:{port}/mymaster/0"
            assert server.ask(0, who) == [[b"first"]]
            old = server.masters()[0]
            known[b"mymaster"] = int(two.rpartition(":")[2])
            with pytest.raises(ConnectionError):
                first.call("SHUTDOWN", "NOSAVE")
            assert server.ask(0, who) == [[b"second"]]
            assert server.ask_node(old, command(b"GET", b"who")) == b"second"
            lane = server.dial(old)
            assert lane.ask(command(b"GET", b"who")) == [b"second"]
            lane.close()
            with pytest.raises(TargetError, match="this Sentinel knows no service 'other'"):
                connect(f"redis+sentinel://127.0.0.1:{port}/other")
        with pytest.raises(TargetError, match="not a Sentinel, or it refuses to answer: unknown command"):
            connect(two.replace("redis://", "redis+sentinel://") + "/mymaster")


def test_a_sentinel_may_want_the_same_login_as_the_server() -> None:
    with served() as (client, url):
        client.call("CONFIG", "SET", "requirepass", "s3cret")
        known = {b"mymaster": int(url.rpartition(":")[2])}
        with sentinel(known, b"s3cret") as port:
            with connect(f"redis+sentinel://:s3cret@127.0.0.1:{port}/mymaster") as server:
                assert server.ask_each_node(0, [PING]) == [[b"PONG"]]
            with pytest.raises(TargetError, match="does not let this user in"):
                connect(f"redis+sentinel://:wrong@127.0.0.1:{port}/mymaster")
        with sentinel(known) as port, connect(f"redis+sentinel://:s3cret@127.0.0.1:{port}/mymaster") as server:
            assert server.ask_each_node(0, [PING]) == [[b"PONG"]]


def test_a_login_that_may_not_ask_the_time_copies_expiries_by_this_machines_clock() -> None:
    """It may use MULTI, but TIME in it would be refused with all of it."""
    with served("redis-6.0") as (client, url), served() as (target, other):
        client.pipeline([("SET", f"k{i}", "v", "PX", 10_000_000) for i in range(100)])
        add_user(client, "timeless", "+@all -time")
        done = run_text("copy", url_of(url, "timeless"), other)
        assert done.returncode == 0, done.stderr
        assert target.integer("DBSIZE") == 100
        assert 9_000_000 < target.integer("PTTL", "k7") <= 10_000_000

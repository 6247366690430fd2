"""The fronts that tests put before servers do what they are said to do."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from fixtures.server import Client, ServerError, running

from ..live.azure_like import ACTIVE_ACTIVE, MANAGED, PREMIUM, AzureLike
from ..live.cluster import cluster
from ..live.cutting_front import CuttingFront
from ..processes import until

SERVERS = Path(os.environ["RDBKIT_SERVERS"])


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Client, int]]:
    with running(SERVERS / "redis-8.0" / "redis-server") as (client, _):
        yield client, int(client.items("CONFIG", "GET", "port")[1])  # type: ignore[arg-type]


@pytest.fixture
def dial() -> Iterator[Callable[..., Client]]:
    """Makes clients that are closed behind the test."""
    with ExitStack() as stack:

        def made(port: int, timeout: float = 300) -> Client:
            client = Client(port, timeout)
            stack.callback(client.close)
            return client

        yield made


def received(connection: socket.socket) -> bytes:
    """All that comes until the connection ends."""
    found = b""
    while data := connection.recv(1000):
        found += data
    return found


def test_a_connection_is_cut_behind_the_byte_that_was_named(server: tuple[Client, int]) -> None:
    _, port = server
    for cut in range(1, 14):
        with CuttingFront(port, cut_received=[cut], piece=3) as front:
            with socket.create_connection(("127.0.0.1", front.port)) as connection:
                connection.sendall(b"PING\r\nPING\r\n")
                assert received(connection) == b"+PONG\r\n+PONG\r\n"[:cut]
            with socket.create_connection(("127.0.0.1", front.port)) as connection:
                connection.sendall(b"PING\r\n")
                assert connection.recv(1, socket.MSG_WAITALL) == b"+", "there is one cut"
            assert (front.connections, front.cuts_left) == (2, 0)


def has(client: Client, expected: bytes | None) -> bool:
    return client.call("GET", "n") == expected


def test_a_command_is_cut_too(server: tuple[Client, int]) -> None:
    client, port = server
    client.call("DEL", "n")
    with CuttingFront(port, cut_sent=[6, 17]) as front:
        for expected in (None, b"1"):  # INCR without its end was no command; the second one had its end
            with socket.create_connection(("127.0.0.1", front.port)) as connection:
                connection.sendall(b"INCR n\r\nPING")
                received(connection)
            until(partial(has, client, expected))
        assert front.sent == 17
        front.cut_after(received=2)
        with socket.create_connection(("127.0.0.1", front.port)) as connection:
            connection.sendall(b"PING\r\n")
            assert received(connection) == b"+P"


def test_a_reset_is_told(server: tuple[Client, int]) -> None:
    with (
        CuttingFront(server[1], cut_received=[0], resets=True) as front,
        socket.create_connection(("127.0.0.1", front.port)) as connection,
    ):
        connection.sendall(b"PING\r\n")
        with pytest.raises(ConnectionResetError):
            received(connection)


def test_what_stands_still_goes_on(server: tuple[Client, int], dial: Callable[..., Client]) -> None:
    with CuttingFront(server[1]) as front:
        client = dial(front.port)
        assert client.call("PING") == b"PONG"
        front.stall()
        waiting = dial(front.port, timeout=0.05)
        with pytest.raises(TimeoutError):
            waiting.call("PING")
        front.go_on()
        assert client.call("PING") == b"PONG"
        front.cut_all()
        with pytest.raises(OSError, match=r"closed|reset|pipe"):
            client.call("PING")


def test_refusals_have_the_words_of_azure(server: tuple[Client, int], dial: Callable[..., Client]) -> None:
    client, port = server
    client.call("SET", "a", 1)
    value = client.call("DUMP", "a")
    assert isinstance(value, bytes)
    for refused, words in (
        (PREMIUM, {"PSYNC ? -1": "ERR Command disallowed", "CONFIG GET x": "ERR unknown command 'CONFIG'"}),
        (MANAGED, {"SELECT 1": "ERR DB index is out of range", "client reply off": "ERR unknown subcommand 'REPLY'"}),
        (ACTIVE_ACTIVE, {"RESTORE b 0 x": "ERR command is not allowed in an Active-Active database"}),
    ):
        with AzureLike(port, refused) as front:
            asked = dial(front.ports[0])
            # replies keep their order, whoever gives them
            commands: list[list[str | bytes]] = [["PING"], *(words_of(text) for text in words), ["GET", "a"], ["SELECT", "0"]]
            pong, *refusals, one, ok = asked.answers(commands * 50)[: len(words) + 3]
            assert (pong, one, ok) == (b"PONG", b"1", b"OK")
            assert [str(each) for each in refusals] == list(words.values())
            assert front.seen["PING"] == 50
            # a refusal within MULTI undoes it
            name = next(iter(words))
            answers = asked.answers([("MULTI",), ("SET", "undone", 1), words_of(name), ("EXEC",), ("EXISTS", "undone")])
            assert str(answers[3]).startswith("EXECABORT")
            assert answers[4] == 0
            assert asked.answers([("MULTI",), ("GET", "a"), ("EXEC",)])[2] == [b"1"]


def words_of(text: str) -> list[str | bytes]:
    return [*text.split()]


def test_cursors_mean_nothing_and_lead_through_all_keys(server: tuple[Client, int], dial: Callable[..., Client]) -> None:
    client, port = server
    client.call("FLUSHALL")
    client.pipeline([("SET", f"k{i}", i) for i in range(500)])
    with AzureLike(port, opaque_cursors=True) as front:
        asked = dial(front.ports[0])
        cursor, names = b"0", set()
        while True:
            reply = asked.items("SCAN", cursor, "COUNT", 20)
            assert isinstance(reply[0], bytes)
            assert isinstance(reply[1], list)
            cursor = reply[0]
            names |= {name for name in reply[1] if isinstance(name, bytes)}
            if cursor == b"0":
                break
            assert int(cursor) >= 2**63
        assert len(names) == 500
        with pytest.raises(ServerError, match="invalid cursor"):
            asked.call("SCAN", 12)


def test_a_connection_ends_with_its_token_unless_it_has_a_new_one(server: tuple[Client, int], dial: Callable[..., Client]) -> None:
    with AzureLike(server[1], tokens=True) as front:
        first = front.issue()
        kept, closed, outside = (dial(front.ports[0]) for _ in range(3))
        with pytest.raises(ServerError, match="NOAUTH"):
            outside.call("PING")
        with pytest.raises(ServerError, match="WRONGPASS"):
            outside.call("AUTH", "oid", "no token")
        assert kept.call("AUTH", "oid", first) == b"OK"
        assert b"version" in closed.items("HELLO", 2, "AUTH", "oid", first)
        second = front.issue()
        assert kept.call("AUTH", "oid", second) == b"OK"
        assert front.end(first) == 1
        assert kept.call("PING") == b"PONG"
        with pytest.raises(ConnectionError):
            closed.call("PING")
        with pytest.raises(ServerError, match="WRONGPASS"):
            outside.call("AUTH", "oid", first)


def test_messages_between_replies_are_passed_on(server: tuple[Client, int]) -> None:
    client, port = server
    with AzureLike(port) as front, socket.create_connection(("127.0.0.1", front.ports[0])) as connection:
        connection.sendall(b"HELLO 3\r\nCLIENT TRACKING ON BCAST\r\n")
        found = b""
        while not found.endswith(b"+OK\r\n"):
            found += connection.recv(1000)
        client.call("SET", "followed", 1)
        message = b">2\r\n$10\r\ninvalidate\r\n*1\r\n$8\r\nfollowed\r\n"
        assert connection.recv(len(message), socket.MSG_WAITALL) == message


def test_nodes_of_a_cluster_name_the_fronts(dial: Callable[..., Client]) -> None:
    with cluster(SERVERS / "redis-8.0" / "redis-server") as made, AzureLike([node.port for node in made.nodes], MANAGED) as front:
        slot = made.slot("a")
        asked = [dial(port) for port in front.ports]
        rows = asked[0].items("CLUSTER", "SLOTS")
        assert {row[2][1] for row in rows} == {*front.ports}  # type: ignore[index]
        owner = front.ports[made.nodes.index(made.owner(slot))]
        other = next(client for client, port in zip(asked, front.ports, strict=True) if port != owner)
        with pytest.raises(ServerError, match=f"MOVED {slot} 127.0.0.1:{owner}"):
            other.call("GET", "a")

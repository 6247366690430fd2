"""A connection to a server that is played here: what is sent, what comes in pieces, and how it breaks."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from rdbkit.errors import TargetError
from rdbkit.format.replies import Push, Refusal
from rdbkit.live.connection import Connection, Lost, Opener, Refused
from rdbkit.live.login import Credentials, CurrentLogin
from rdbkit.live.server_url import parse_url
from rdbkit.resp import command

PING = command(b"PING")


@contextmanager
def peer(
    play: Callable[[socket.socket], object],
    credentials: Credentials | None = None,
    patience_s: float | None = 60,
    again: Callable[[socket.socket], object] | None = None,
) -> Iterator[tuple[Connection, Future[object]]]:
    """A connection to what `play` does with the first client, and `again` with the second; and what the last of them returned."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        listener.settimeout(60)  # of a client that never comes

        def serve() -> object:
            with listener.accept()[0] as client:
                found = play(client)
            if again is not None:
                with listener.accept()[0] as client:
                    found = again(client)
            return found

        address = ("127.0.0.1", listener.getsockname()[1])
        done = pool.submit(serve)
        opener = Opener(parse_url(f"redis://127.0.0.1:{address[1]}"), None, CurrentLogin(credentials, "a file"), patience_s)
        connection = Connection(address, opener)
        connection.open()
        try:
            yield connection, done
        finally:
            connection.close()


def read(client: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size and (some := client.recv(size - len(found))):
        found += some
    return found


def test_replies_come_in_any_pieces() -> None:
    def play(client: socket.socket) -> None:
        read(client, 2 * len(PING))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in b"*2\r\n$2\r\na\n\r\n:7\r\n-WRONGTYPE no\r\n":
            client.sendall(bytes([byte]))

    with peer(play) as (connection, _):
        assert connection.ask(PING, PING) == [[b"a\n", 7], Refusal("WRONGTYPE", "no")]


def test_what_comes_behind_the_last_reply_is_received() -> None:
    def play(client: socket.socket) -> None:
        read(client, len(PING))
        client.sendall(b"+PONG\r\n>2\r\n$10\r\ninvalidate\r\n")
        client.recv(1)

    with peer(play) as (connection, _):
        assert connection.ask(PING) == [b"PONG"]
        assert connection.ready(60)
        assert connection.receive() == b">2\r\n$10\r\ninvalidate\r\n"
        assert not connection.ready(0)
    assert Push(b"invalidate", []) == (b"invalidate", [])


def test_a_peer_that_must_get_rid_of_its_replies_first_takes_all_that_is_sent() -> None:
    """As a proxy does whose buffers are full on both sides."""
    size = 32 << 20

    def play(client: socket.socket) -> int:
        client.sendall(b"x" * size)
        return len(read(client, size))

    with peer(play, patience_s=30) as (connection, done):
        connection.send(memoryview(bytes(size)))
        received = 0
        while received < size:
            received += len(connection.receive())
        assert received == size
        assert done.result(60) == size


def test_a_connection_that_is_closed_is_lost() -> None:
    with peer(lambda client: None) as (connection, done):
        done.result(60)
        with pytest.raises(Lost, match=r"127\.0\.0\.1:[0-9]+ closed the connection") as e:
            connection.ask(PING)
        assert e.value.why == "closed"
        assert not connection.is_open
        for use in (connection.receive, connection.fileno, lambda: connection.send(b"x"), lambda: connection.ready(0)):
            with pytest.raises(Lost, match="is closed"):
                use()
        connection.close()


def test_an_answer_that_is_late_is_told_with_the_patience() -> None:
    with peer(lambda client: client.recv(1 << 10) and client.recv(1), patience_s=0.05) as (connection, _):
        assert not connection.ready(0)
        with pytest.raises(Lost, match=r"no reply from 127\.0\.0\.1:\d+ in 0\.05 s") as e:
            connection.ask(PING)
        assert e.value.why == "late"
        assert not connection.is_open


def test_what_is_no_server_of_redis_is_told() -> None:
    with peer(lambda client: client.sendall(b"HTTP/1.1 400 Bad Request\r\n")) as (connection, _):
        with pytest.raises(Lost, match="not a Redis server") as e:
            connection.ask(PING)
        assert e.value.why == "foreign"


def test_a_server_that_is_full_is_told() -> None:
    def play(client: socket.socket) -> None:
        client.sendall(b"-ERR max number of clients reached\r\n")
        client.recv(99)

    with peer(play) as (connection, _):
        with pytest.raises(Lost, match="max number of clients reached") as e:
            connection.ask(PING)
        assert e.value.why == "full"


def test_a_database_is_selected_once() -> None:
    select_3, select_99 = command(b"SELECT", b"3"), command(b"SELECT", b"99")
    sent = b"".join([select_3, select_99, select_99, PING, select_99, PING, PING, PING])
    no = b"-ERR DB index is out of range\r\n"

    def play(client: socket.socket) -> bytes:
        client.sendall(b"+OK\r\n" + no + (no + b"+PONG\r\n") * 2 + b"+PONG\r\n" * 2)
        return read(client, len(sent))

    with peer(play) as (connection, done):
        connection.select(0)
        connection.select(3)
        connection.select(3)
        with pytest.raises(Refused, match="out of range"):
            connection.select(99)
        for _ in range(2):  # it stays where it was
            connection.put([PING], 99)
            assert connection.take() == [Refusal("ERR", "DB index is out of range")]
        connection.put([PING], 3)
        assert connection.take() == [b"PONG"]
        assert connection.ask(PING) == [b"PONG"]
        assert done.result(60) == sent


def test_a_connection_that_is_opened_again_is_in_no_database_yet() -> None:
    select = command(b"SELECT", b"3")

    def play(client: socket.socket) -> bytes:
        client.sendall(b"+OK\r\n+PONG\r\n")
        return read(client, len(select + PING))

    with peer(play, again=play) as (connection, done):
        for number in range(2):
            if number:
                connection.close()
                connection.open()
            connection.select(3)
            assert connection.ask(PING) == [b"PONG"]
        assert done.result(60) == select + PING


def test_a_new_token_logs_in_on_the_open_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdbkit.live.login._LOOK_S", 0.0)
    tokens = iter(["t1", "t1", "t2", "t2", "t3", "t3", "t3"])
    first, second, third = (command(b"AUTH", b"oid", token) for token in (b"t1", b"t2", b"t3"))

    def play(client: socket.socket) -> list[bytes]:
        sent = [read(client, len(first))]
        client.sendall(b"+OK\r\n")
        for answer, size in ((b"+PONG\r\n", len(PING)), (b"+OK\r\n+PONG\r\n", len(second + PING)), (b"+PONG\r\n", len(PING)),
                             (b"-WRONGPASS invalid username-password pair\r\n", len(third))):  # fmt: skip
            sent.append(read(client, size))
            client.sendall(answer)
        return sent

    with peer(play, lambda: ("oid", next(tokens))) as (connection, done):
        for _ in range(3):
            assert connection.ask(PING) == [b"PONG"]
        with pytest.raises(TargetError, match="does not let this user in: WRONGPASS") as e:
            connection.renew_login()
        assert "t3" not in str(e.value)
        assert not connection.is_open
        assert done.result(60) == [first, PING, second + PING, PING, third]


def test_a_server_that_has_forgotten_who_asks_is_lost_to_be_opened_again() -> None:
    def play(client: socket.socket) -> None:
        client.recv(1000)
        client.sendall(b"+OK\r\n")
        client.recv(1000)
        client.sendall(b"-NOAUTH Authentication required.\r\n")

    with peer(play, lambda: (None, "s3cret")) as (connection, _), pytest.raises(Lost, match="NOAUTH"):
        connection.ask(PING)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("DENIED Redis is running in protected mode", "refuses connections from here: Redis is running in protected mode"),
        ("WRONGPASS invalid username-password pair", "does not let this user in: invalid username-password pair; check"),
        ("ERR unknown command", "does not let this user in: unknown command; check user and password"),
    ],
)
def test_a_login_that_is_refused_is_told_in_the_servers_words(words: str, told: str) -> None:
    def play(client: socket.socket) -> None:
        client.recv(1000)
        client.sendall(f"-{words}\r\n".encode())

    with pytest.raises(TargetError, match=told) as e, peer(play, lambda: ("me", "s3cret")):
        pass
    assert "s3cret" not in str(e.value)

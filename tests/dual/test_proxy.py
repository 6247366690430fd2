"""The proxy between clients and peers that play servers: what passes, what is held back, what is marked when one end goes."""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from types import SimpleNamespace
from typing import Any

import pytest

from rdbkit.dual.marks import Marks
from rdbkit.dual.metrics import Metrics
from rdbkit.dual.proxied import ProxiedConnection
from rdbkit.dual.proxy import Proxy, Upstream
from rdbkit.errors import TargetError
from rdbkit.format.replies import Refusal
from rdbkit.live.server_url import parse_url
from rdbkit.resp import command

from ..processes import GUARD

#: On Linux an address of this process's own: what another test tries to reach again and again is not one of these ports.
HOST = "127." + ".".join(str(random.randint(1, 254)) for _ in range(3)) if sys.platform == "linux" else "127.0.0.1"


class Peer:
    """Plays a server: takes connections, and does what a test says."""

    def __init__(self) -> None:
        self.connections: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self.asked: list[bytes] = []
        self.answers: list[Any] = []
        self.login: tuple[str | None, str] | None = None
        self.writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._came, HOST, 0)
        self.home = self._server.sockets[0].getsockname()

    async def _came(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        await self.connections.put((reader, writer))

    def close(self) -> None:
        self._server.close()
        for writer in self.writers:
            writer.transport.abort()

    def ask_node(self, _: object, request: bytes) -> Any:
        self.asked.append(request)
        return self.answers.pop(0)

    def as_server(self, kind: str = "standalone") -> Any:
        """As a `Server` that is connected."""
        opener = SimpleNamespace(tls=None, login=SimpleNamespace(current=self.login))
        return SimpleNamespace(
            kind=kind, url=parse_url(f"redis://{HOST}:{self.home[1]}"), home=self.home, opener=opener, ask_node=self.ask_node
        )


class Room:
    """A proxy in front of two peers."""

    def __init__(self, old: Peer, new: Peer, **how: Any) -> None:
        self.old, self.new = old, new
        self.marks, self.metrics = Marks(), Metrics()
        self.writers: list[asyncio.StreamWriter] = []
        self.port = 0
        self.proxy = Proxy(old.as_server(), new.as_server(), "old", self.marks, self.metrics, **how)

    async def client(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection(HOST, self.port)
        self.writers.append(writer)
        return reader, writer

    @property
    def keys(self) -> set[bytes]:
        return {key for _, keys in self.marks.take(10_000) for key in keys}

    @property
    def connection(self) -> ProxiedConnection:
        (found,) = self.proxy.connections
        return found


@asynccontextmanager
async def room(**how: Any) -> AsyncIterator[Room]:
    old, new = Peer(), Peer()
    logins = how.pop("logins", (None, None))
    old.login, new.login = logins
    await old.start()
    await new.start()
    writers: list[asyncio.StreamWriter] = []
    try:
        found = Room(old, new, **how)
        writers = found.writers
        found.port = await found.proxy.listen(HOST, 0)
        try:
            yield found
        finally:
            await found.proxy.close()
    finally:
        old.close()
        new.close()
        for writer in (*writers, *old.writers, *new.writers):
            writer.transport.abort()  # `close` would wait until somebody takes what was written
            with suppress(OSError):
                await writer.wait_closed()


def run(work: Callable[[Room], Awaitable[None]], **how: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(GUARD), room(**how) as found:
            await work(found)

    asyncio.run(main())


async def until(there: Callable[[], object]) -> None:
    while not there():
        await asyncio.sleep(0.001)


SET = command(b"SET", b"a", b"1")
GET = command(b"GET", b"a")
PING = command(b"PING")


def test_a_write_is_marked_once_its_reply_is_there() -> None:
    async def work(room: Room) -> None:
        reader, writer = await room.client()
        writer.write(SET + GET)
        peer, answer = await room.old.connections.get()
        assert await peer.readexactly(len(SET + GET)) == SET + GET
        assert len(room.marks) == 0
        answer.write(b"+OK\r\n$1\r\n1\r\n")
        assert await reader.readexactly(12) == b"+OK\r\n$1\r\n1\r\n"
        assert room.keys == {b"a"}

    run(work)


def test_a_server_that_goes_leaves_a_mark_and_takes_its_client_along() -> None:
    async def work(room: Room) -> None:
        reader, writer = await room.client()
        writer.write(SET)
        peer, answer = await room.old.connections.get()
        await peer.readexactly(len(SET))
        answer.write(b"+OK\r")
        answer.close()
        assert await reader.read() == b"+OK\r"
        assert room.keys == {b"a"}
        await until(lambda: not room.proxy.connections)

    run(work)


def test_a_client_that_goes_leaves_its_write_to_the_server() -> None:
    async def work(room: Room) -> None:
        _, writer = await room.client()
        writer.write(SET)
        writer.close()
        peer, answer = await room.old.connections.get()
        assert await peer.readexactly(len(SET)) == SET
        await until(lambda: room.connection.waiting() == "reply")
        answer.write(b"+OK\r\n")
        await until(lambda: len(room.marks))
        await until(lambda: not room.proxy.connections)
        assert await peer.read() == b""

    run(work)


def test_a_client_that_only_listens_any_more_gets_its_replies() -> None:
    async def work(room: Room) -> None:
        reader, writer = await room.client()
        writer.write(SET + GET)
        writer.write_eof()
        peer, answer = await room.old.connections.get()
        await peer.readexactly(len(SET + GET))
        await until(lambda: room.connection._is_ended)
        answer.write(b"+OK\r\n")
        assert await reader.readexactly(5) == b"+OK\r\n"
        answer.write(b"$1\r\n1\r\n")
        assert await reader.read() == b"$1\r\n1\r\n"
        assert room.keys == {b"a"}
        _, writer = await room.client()
        writer.write_eof()
        await until(lambda: not room.proxy.connections)

    run(work)


def test_a_client_that_goes_while_it_waits_for_data_gets_none() -> None:
    async def work(room: Room) -> None:
        _, writer = await room.client()
        writer.write(command(b"BLPOP", b"q", b"0"))
        peer, _ = await room.old.connections.get()
        asked = command(b"CLIENT", b"ID") + command(b"BLPOP", b"q", b"0")
        assert await peer.readexactly(len(asked)) == asked
        writer.close()
        assert await peer.read() == b""
        assert room.keys == {b"q"}

    run(work)


def test_a_client_that_is_faster_than_its_server_waits() -> None:
    async def work(room: Room) -> None:
        _, writer = await room.client()
        peer, answer = await room.old.connections.get()
        size = 16 << 20  # more than the kernel keeps for two connections
        large = command(b"SET", b"a", bytes(size))
        writer.write(large)
        await until(lambda: room.connection._stops)
        assert room.connection._server is not None
        assert room.connection._server.transport is not None
        assert room.connection._server.transport.get_write_buffer_size() < 4 << 20
        assert await peer.readexactly(len(large)) == large
        answer.write(b"+OK\r\n")
        await until(lambda: len(room.marks))

    run(work)


def test_a_server_that_is_faster_than_its_client_waits() -> None:
    async def work(room: Room) -> None:
        reader, writer = await room.client()
        writer.write(GET)
        peer, answer = await room.old.connections.get()
        await peer.readexactly(len(GET))
        size = 16 << 20  # more than the kernel keeps for two connections
        answer.write(b"$%d\r\n" % size + bytes(size) + b"\r\n")
        end = room.connection.client
        await until(lambda: end.transport is not None and end.transport.get_write_buffer_size() > 1 << 20)
        await asyncio.sleep(0)
        assert end.transport is not None
        assert end.transport.get_write_buffer_size() < 4 << 20
        assert len(await reader.readexactly(size + 2 + 11)) > size
        await until(lambda: room.connection.waiting() is None)

    run(work)


def test_a_server_that_cannot_be_reached_turns_clients_away() -> None:
    async def work(room: Room) -> None:
        room.old.close()
        reader, _ = await room.client()
        assert await reader.read() == b""
        assert room.metrics.total("outages") == 1
        assert not room.proxy.connections

    run(work)


def test_a_cluster_is_refused_with_what_to_use_instead() -> None:
    async def work(room: Room) -> None:
        with pytest.raises(TargetError, match=r"use rdbkit\.dual in the application"):
            Upstream("old", room.old.as_server("cluster"))

    run(work)


def test_the_proxys_own_login_goes_first() -> None:
    async def work(room: Room) -> None:
        reader, writer = await room.client()
        writer.write(GET)
        peer, answer = await room.old.connections.get()
        auth = command(b"AUTH", b"app", b"old password")
        assert await peer.readexactly(len(auth)) == auth
        answer.write(b"+OK\r\n")
        assert await peer.readexactly(len(GET)) == GET
        answer.write(b"$-1\r\n")
        assert await reader.readexactly(5) == b"$-1\r\n"
        # a client that logs in nevertheless is let in, as whoever can connect is
        writer.write(command(b"HELLO", b"3", b"AUTH", b"me", b"mine", b"SETNAME", b"web"))
        hello = command(b"HELLO", b"3", b"AUTH", b"app", b"old password", b"SETNAME", b"web")
        assert await peer.readexactly(len(hello)) == hello

    run(work, log_in=True, logins=(("app", "old password"), (None, "new password")))


def test_a_login_that_is_refused_turns_clients_away() -> None:
    async def work(room: Room) -> None:
        reader, _ = await room.client()
        peer, answer = await room.old.connections.get()
        await peer.readexactly(len(command(b"AUTH", b"app", b"old password")))
        answer.write(b"-WRONGPASS no\r\n")
        assert await reader.read() == b""
        (sample,) = room.metrics.report()["samples"]
        assert "does not let the proxy in: WRONGPASS no" in sample["detail"]
        assert "old password" not in str(sample)

    run(work, log_in=True, logins=(("app", "old password"), (None, "new password")))


def test_clients_are_asked_for_a_password_of_their_own() -> None:
    async def work(room: Room) -> None:
        reader, writer = await room.client()
        peer, answer = await room.old.connections.get()
        sent = [
            (command(b"AUTH", b"wrong"), command(b"AUTH", b"wrong")),
            (command(b"AUTH", b"theirs"), command(b"AUTH", b"app", b"old password")),
            (command(b"AUTH", b"default", b"theirs"), command(b"AUTH", b"app", b"old password")),
            (command(b"AUTH"), command(b"AUTH")),
            (command(b"HELLO", b"3"), command(b"HELLO", b"3")),
            (command(b"HELLO", b"3", b"AUTH", b"x"), command(b"HELLO", b"3", b"AUTH", b"x")),
        ]
        for given, passed in sent:
            writer.write(given)
            assert await peer.readexactly(len(passed)) == passed
            answer.write(b"-ERR no\r\n")
            assert await reader.readexactly(9) == b"-ERR no\r\n"

    run(work, log_in=True, client_password="theirs", logins=(("app", "old password"), (None, "new password")))
    with pytest.raises(TargetError, match="lets everybody in"):
        run(work, log_in=True, client_password="theirs", logins=(None, (None, "new password")))
    with pytest.raises(ValueError, match="only where the proxy logs in"):
        run(work, client_password="theirs")


def test_a_command_that_nobody_knows_is_asked_about_and_its_keys_are_marked() -> None:
    async def work(room: Room) -> None:
        info = [b"x.put", 3, [b"write"], 1, 1, 1]
        room.old.answers = [[info], [None]]
        _, writer = await room.client()
        peer, answer = await room.old.connections.get()
        text = command(b"x.put", b"k1", b"v") + command(b"X.PUT", b"k2", b"v") + command(b"X.LOST", b"k3")
        writer.write(text)
        await peer.readexactly(len(text))
        answer.write(b"+OK\r\n+OK\r\n+OK\r\n")
        await until(lambda: len(room.marks) == 2 and room.metrics.total("unknown") == 1)
        assert room.keys == {b"k1", b"k2"}
        assert room.old.asked == [command(b"COMMAND", b"INFO", b"X.PUT"), command(b"COMMAND", b"INFO", b"X.LOST")]
        writer.write(command(b"X.LOST", b"k3"))
        await peer.readexactly(len(command(b"X.LOST", b"k3")))
        answer.write(b"+OK\r\n")
        await until(lambda: room.metrics.total("unknown") == 2)

    run(work)


def test_scripts_and_functions_are_told_to_both() -> None:
    async def work(room: Room) -> None:
        room.new.answers = [b"sha", Refusal("ERR", "no such thing")]
        _, writer = await room.client()
        peer, answer = await room.old.connections.get()
        load, delete = command(b"SCRIPT", b"LOAD", b"return 1"), command(b"FUNCTION", b"DELETE", b"lib")
        writer.write(load + delete)
        await peer.readexactly(len(load + delete))
        answer.write(b"$3\r\nsha\r\n+OK\r\n")
        await until(lambda: room.metrics.total("needs_sync") == 1)
        assert room.new.asked == [load, delete]

    run(work)


async def switched(room: Room, prepare: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Switch to the new peer, which answers what it is told meanwhile."""
    await room.proxy.worker.open("new")
    await room.proxy.worker.pause(5.0)
    told = asyncio.ensure_future(prepare())
    await room.proxy.worker.prepare("new")
    await told
    await room.proxy.worker.commit("new")


def test_a_connection_goes_on_at_the_new_server_as_it_was() -> None:
    async def work(room: Room) -> None:
        reader, writer = await room.client()
        old, answer = await room.old.connections.get()
        begin = command(b"CLIENT", b"SETNAME", b"web") + command(b"SELECT", b"2")
        writer.write(begin)
        assert await old.readexactly(len(begin)) == begin
        answer.write(b"+OK\r\n+OK\r\n")
        assert await reader.readexactly(10) == b"+OK\r\n+OK\r\n"
        writer.write(SET[:-3])  # half a request
        new = old

        async def prepare() -> None:
            nonlocal new, answer
            new, answer = await room.new.connections.get()
            assert await new.readexactly(len(PING + begin)) == PING + begin
            writer.write(SET[-3:])  # waits until the switch is over
            answer.write(b"+PONG\r\n+OK\r\n+OK\r\n")

        await switched(room, prepare)
        assert await new.readexactly(len(SET)) == SET
        answer.write(b"+OK\r\n")
        assert await reader.readexactly(5) == b"+OK\r\n"
        assert [(db, keys) for db, keys in room.marks.take()] == [(2, [b"a"])]
        assert await old.read() == b""  # the old one was sent nothing else, and was closed
        # who comes now comes to the new one
        _, writer = await room.client()
        await room.new.connections.get()

    run(work)


def test_a_server_that_refuses_what_a_connection_needs_undoes_the_switch() -> None:
    async def work(room: Room) -> None:
        reader, writer = await room.client()
        old, answer = await room.old.connections.get()
        writer.write(command(b"SELECT", b"2"))
        await old.readexactly(len(command(b"SELECT", b"2")))
        answer.write(b"+OK\r\n")
        assert await reader.readexactly(5) == b"+OK\r\n"

        async def refuse() -> None:
            new, other = await room.new.connections.get()
            await new.readexactly(len(PING + command(b"SELECT", b"2")))
            other.write(b"+PONG\r\n-ERR DB index is out of range\r\n")

        with pytest.raises(TargetError, match="refuses what a connection needs: ERR DB index is out of range"):
            await switched(room, refuse)
        await room.proxy.worker.undo()
        writer.write(GET)
        assert await old.readexactly(len(GET)) == GET
        answer.write(b"$-1\r\n")
        assert await reader.readexactly(5) == b"$-1\r\n"

    run(work)


def test_a_client_that_keeps_values_is_told_to_forget_them() -> None:
    async def work(room: Room) -> None:
        reader, writer = await room.client()
        old, answer = await room.old.connections.get()
        text = command(b"HELLO", b"3") + command(b"CLIENT", b"TRACKING", b"on")
        writer.write(text)
        await old.readexactly(len(text))
        answer.write(b"%0\r\n+OK\r\n")
        assert await reader.readexactly(9) == b"%0\r\n+OK\r\n"

        async def prepare() -> None:
            new, other = await room.new.connections.get()
            await new.readexactly(len(PING + text))
            other.write(b"+PONG\r\n%0\r\n+OK\r\n")

        await switched(room, prepare)
        told = b">2\r\n$10\r\ninvalidate\r\n_\r\n"
        assert await reader.readexactly(len(told)) == told

    run(work)


def test_a_subscriber_hears_all_of_the_old_server_before_the_new_one() -> None:
    async def work(room: Room) -> None:
        reader, writer = await room.client()
        old, answer = await room.old.connections.get()
        subscribe = command(b"SUBSCRIBE", b"c")
        reply = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
        writer.write(subscribe)
        await old.readexactly(len(subscribe))
        answer.write(reply)
        assert await reader.readexactly(len(reply)) == reply

        def message(text: bytes) -> bytes:
            return b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\n%b\r\n" % text

        async def prepare() -> None:
            await old.readexactly(len(PING))
            answer.write(message(b"1") + b"*2\r\n$4\r\npong\r\n$0\r\n\r\n")
            new, other = await room.new.connections.get()
            await new.readexactly(len(PING + subscribe))
            other.write(b"+PONG\r\n" + reply + message(b"2"))

        await switched(room, prepare)
        both = message(b"1") + message(b"2")
        assert await reader.readexactly(len(both)) == both

    run(work)


def test_what_cannot_be_moved_says_why() -> None:
    async def work(room: Room) -> None:
        for asked, answered, why in (
            (command(b"MONITOR"), b"+OK\r\n", "MONITOR"),
            (command(b"CLIENT", b"TRACKING", b"on", b"redirect", b"5"), b"+OK\r\n", "CLIENT TRACKING with REDIRECT"),
            (b"*1\r\n+x\r\n", b"-ERR\r\n", "what is no request"),
        ):
            reader, writer = await room.client()
            peer, answer = await room.old.connections.get()
            writer.write(asked)
            await peer.readexactly(len(asked))
            answer.write(answered)
            assert await reader.readexactly(len(answered)) == answered
            assert [each.fixed() for each in room.proxy.connections] == [why]
            writer.close()
            await until(lambda: not room.proxy.connections)

    run(work)

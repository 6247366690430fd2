"""The proxy's switch between real servers: whole or not at all, and nothing that was acknowledged is lost or doubled."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis.connection  # noqa: F401 -- two threads that import it at the same time find half of it

from fixtures.server import Client
from rdbkit.dual.cutover import NotSwitched
from rdbkit.dual.metrics import Metrics
from rdbkit.dual.mirror import Mirror
from rdbkit.dual.service import Service, Settings, _Local, _opened, _setting
from rdbkit.dual.states import State
from rdbkit.live.server import connect

from ..processes import GUARD
from ..rdb import rarely
from .test_verify_copy import two


class Connection:
    """A client of the proxy."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *arguments: Any) -> None:
        self.writer.write(request(*arguments))

    async def reply(self) -> Any:
        line = await self.reader.readline()
        if not line:
            raise ConnectionError("the proxy closed the connection")
        kind, rest = line[:1], line[1:-2]
        if kind in b"*>~%":
            number = int(rest) * (2 if kind == b"%" else 1)
            return None if number < 0 else [await self.reply() for _ in range(number)]
        if kind == b"$":
            return None if rest == b"-1" else (await self.reader.readexactly(int(rest) + 2))[:-2]
        return int(rest) if kind == b":" else None if kind == b"_" else line[:-2] if kind == b"-" else rest

    async def call(self, *arguments: Any) -> Any:
        self.send(*arguments)
        return await self.reply()

    async def close(self) -> None:
        self.writer.transport.abort()  # `close` would wait until somebody takes what was written
        with suppress(ConnectionError):
            await self.writer.wait_closed()


def request(*arguments: Any) -> bytes:
    parts = [each if isinstance(each, bytes) else str(each).encode() for each in arguments]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


class Proxied:
    """A proxy between two servers, in this process."""

    def __init__(self, service: Service, proxy: Any, mirror: Mirror, port: int, old: Client, new: Client) -> None:
        self.service = service
        self.proxy = proxy
        self.mirror = mirror
        self.port = port
        self.old = old
        self.new = new
        self._clients: list[Connection] = []

    async def client(self) -> Connection:
        self._clients.append(Connection(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self._clients[-1]

    async def close(self) -> None:
        for client in self._clients:
            await client.close()

    async def switch(self, to: str, **how: Any) -> dict[str, Any]:
        return await self.service.switch({"to": to, "compare": 0, **how})

    async def in_use(self) -> bytes:
        """The port of the server that a new client reaches."""
        client = await self.client()
        found = (await client.call("CONFIG", "GET", "port"))[1]
        assert isinstance(found, bytes)
        return found


@asynccontextmanager
async def proxied(first: Client, second: Client, one: str, other: str, **options: Any) -> AsyncIterator[Proxied]:
    settings = Settings(lambda: connect(one), lambda: connect(other), port=0, **{"pause_limit_s": 60.0, **options})
    setting = _setting(settings)
    metrics = Metrics()
    mirror = Mirror(settings.sides(), metrics)
    proxy = await _opened(settings, setting, mirror.marks, metrics)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(asyncio.to_thread, mirror.close)
        stack.push_async_callback(proxy.close)
        mirror.turn(setting.state)
        port = await proxy.listen("127.0.0.1", 0)
        service = Service(settings, [_Local(proxy, mirror.marks)], mirror, metrics, setting)
        found = Proxied(service, proxy, mirror, port, first, second)
        stack.push_async_callback(found.close)
        yield found


def run(then: Callable[[Proxied], Awaitable[None]], one: str = "redis-7.0", other: str = "redis-8.0", **options: Any) -> None:
    async def all_of_it(first: Client, second: Client, source: str, target: str) -> None:
        async with asyncio.timeout(GUARD), proxied(first, second, source, target, **options) as proxy:
            await then(proxy)

    with two(one, other) as (first, second, source, target):
        asyncio.run(all_of_it(first, second, source, target))


async def until(there: Callable[[], object]) -> None:
    while not there():
        await asyncio.sleep(0.001)


PAIRS = [
    ("redis-6.0", "valkey-9.1"),
    *(pytest.param(*pair, marks=each.marks) for pair, each in zip(
        [("redis-7.0", "redis-8.0"), ("redis-8.0", "redis-6.0"), ("valkey-9.1", "redis-7.0"), ("redis-6.0", "redis-7.0")],
        rarely(1, 2, 3, 4), strict=True,
    )),
]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_nothing_acknowledged_is_lost_or_doubled(one: str, other: str) -> None:
    counts = [0] * 10

    async def writes(proxy: Proxied, number: int, stop: asyncio.Event) -> None:
        client = await proxy.client()
        assert await client.call("SELECT", number % 3) == b"OK"
        dice = random.Random(number)
        while not stop.is_set():
            some = range(counts[number], counts[number] + dice.randint(1, 4))
            data = b"".join(request("INCR", f"c{number}") + request("RPUSH", f"l{number}", n) for n in some)
            cut = dice.randrange(len(data))
            client.writer.write(data[:cut])
            await asyncio.sleep(0)
            client.writer.write(data[cut:])
            for n in some:
                assert await client.reply() == n + 1
                assert await client.reply() == n + 1
                counts[number] = n + 1

    async def then(proxy: Proxied) -> None:
        stop = asyncio.Event()
        writers = [asyncio.ensure_future(writes(proxy, number, stop)) for number in range(len(counts))]
        for to in ("new", "shadow", "new"):
            before = sum(counts)
            await until(lambda before=before: sum(counts) > before + 200)  # type: ignore[misc]
            done = await proxy.switch(to)
            assert (done["connections"], done["closed"]) == (len(counts), {})
            assert done["compared"] > 0
        before = sum(counts)
        await until(lambda: sum(counts) > before + 200)
        stop.set()
        await asyncio.gather(*writers)
        assert await asyncio.to_thread(proxy.mirror.drain, GUARD)
        for server in (proxy.new, proxy.old):  # the one in use, and what was brought to the other one
            for number, count in enumerate(counts):
                server.call("SELECT", number % 3)
                assert server.call("GET", f"c{number}") == b"%d" % count
                assert server.call("LRANGE", f"l{number}", 0, -1) == [b"%d" % n for n in range(count)]

    run(then, one, other)


def test_commands_that_wait_go_on_waiting() -> None:
    async def then(proxy: Proxied) -> None:
        waits, reads, moves, writer = [await proxy.client() for _ in range(4)]
        assert await moves.call("HELLO", 3)
        waits.send("BLPOP", "list", 0)
        reads.send("XREAD", "BLOCK", 0, "STREAMS", "stream", "$")
        moves.send("BLMOVE", "from", "to", "LEFT", "LEFT", 0)
        for to, server in (("new", proxy.old), ("shadow", proxy.new)):
            await until(lambda server=server: "blocked_clients:3" in server.text("INFO", "clients"))  # type: ignore[misc]
            assert (await proxy.switch(to))["closed"] == {}
        assert await writer.call("XADD", "stream", "7-1", "f", "v") == b"7-1"
        assert await reads.reply() == [[b"stream", [[b"7-1", [b"f", b"v"]]]]]
        assert await writer.call("RPUSH", "list", "a") == 1
        assert await waits.reply() == [b"list", b"a"]
        assert await writer.call("RPUSH", "from", "b") == 1
        assert await moves.reply() == b"b"
        assert await asyncio.to_thread(proxy.mirror.drain, GUARD)
        assert proxy.new.call("LRANGE", "to", 0, -1) == [b"b"]

    run(then)


def test_transactions_are_finished_or_closed() -> None:
    async def then(proxy: Proxied) -> None:
        finishes, watches, leaves = [await proxy.client() for _ in range(3)]
        assert await finishes.call("MULTI") == b"OK"
        assert await finishes.call("INCR", "a") == b"QUEUED"
        assert await watches.call("WATCH", "b") == b"OK"
        switching = asyncio.ensure_future(proxy.switch("new"))
        await until(lambda: proxy.proxy.is_paused)
        assert await finishes.call("EXEC") == [1]
        watches.send("MULTI")
        watches.send("INCR", "b")
        watches.send("EXEC")
        watches.send("INCR", "b")  # at the other side
        assert [await watches.reply() for _ in range(4)] == [b"OK", b"QUEUED", [1], 2]
        assert (await switching)["closed"] == {}
        assert proxy.new.call("MGET", "a", "b") == [b"1", b"2"]
        assert await leaves.call("MULTI") == b"OK"
        assert await leaves.call("INCR", "c") == b"QUEUED"
        proxy.service._cutover._limit_s = 0.4
        with suppress(NotSwitched):  # on a busy machine that may be too short for the rest
            assert (await proxy.switch("shadow"))["closed"] == {"transaction": 1}
        with pytest.raises(ConnectionError):
            await leaves.reply()
        assert proxy.old.call("EXISTS", "c") == proxy.new.call("EXISTS", "c") == 0

    run(then)


def test_subscribers_miss_no_message() -> None:
    async def publishes(proxy: Proxied, told: list[int], stop: asyncio.Event) -> None:
        client = await proxy.client()
        while not stop.is_set():
            assert await client.call("PUBLISH", "news", len(told)) == 2
            told.append(len(told))

    async def then(proxy: Proxied) -> None:
        first, second = [await proxy.client() for _ in range(2)]
        assert await first.call("SUBSCRIBE", "news") == [b"subscribe", b"news", 1]
        assert await second.call("HELLO", 3)
        assert await second.call("PSUBSCRIBE", "n*") == [b"psubscribe", b"n*", 1]
        told: list[int] = []
        stop = asyncio.Event()
        publisher = asyncio.ensure_future(publishes(proxy, told, stop))
        for to in ("new", "shadow", "new"):
            before = len(told)
            await until(lambda before=before: len(told) > before + 50)  # type: ignore[misc]
            await proxy.switch(to)
        stop.set()
        await publisher
        for n in told:
            assert await first.reply() == [b"message", b"news", b"%d" % n]
            assert await second.reply() == [b"pmessage", b"n*", b"news", b"%d" % n]
        assert await first.call("PING") == [b"pong", b""]
        assert await second.call("GET", "x") is None

    run(then)


def test_what_a_connection_is_goes_with_it() -> None:
    async def then(proxy: Proxied) -> None:
        client = await proxy.client()
        assert await client.call("SELECT", 5) == b"OK"
        assert await client.call("CLIENT", "SETNAME", "me") == b"OK"
        half = request("SET", "key", "value")
        client.writer.write(half[:17])
        await proxy.switch("new")
        client.writer.write(half[17:])
        assert await client.reply() == b"OK"
        assert await client.call("CLIENT", "GETNAME") == b"me"
        proxy.new.call("SELECT", 5)
        assert proxy.new.call("GET", "key") == b"value"
        # and what is written now comes back
        assert await asyncio.to_thread(proxy.mirror.drain, GUARD)
        proxy.old.call("SELECT", 5)
        assert proxy.old.call("GET", "key") == b"value"

    run(then)


def test_clients_that_come_while_others_wait() -> None:
    async def then(proxy: Proxied) -> None:
        holds = await proxy.client()
        assert await holds.call("MULTI") == b"OK"
        switching = asyncio.ensure_future(proxy.switch("new"))
        await until(lambda: proxy.proxy.is_paused)
        late = [await proxy.client() for _ in range(5)]
        for client in late:
            client.send("INCR", "late")
        assert await holds.call("EXEC") == []
        await switching
        assert sorted([await client.reply() for client in late]) == [1, 2, 3, 4, 5]
        assert proxy.new.call("GET", "late") == b"5"

    run(then)


@pytest.mark.parametrize("when", ["before", "meanwhile"])
def test_a_new_server_that_fails_undoes_the_switch(when: str) -> None:
    async def then(proxy: Proxied) -> None:
        client = await proxy.client()
        assert await client.call("INCR", "a") == 1
        assert await asyncio.to_thread(proxy.mirror.drain, GUARD)
        if when == "before":
            proxy.new.call("CONFIG", "SET", "requirepass", "x")  # the mirror's connection stays
        else:
            check = proxy.mirror.check

            def fails(wait_s: float) -> int:
                proxy.new.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
                proxy.new.call("CONFIG", "SET", "requirepass", "x")
                return check(wait_s)

            proxy.mirror.check = fails  # type: ignore[method-assign]
            proxy.service._cutover._limit_s = 0.5
        waiting = await proxy.client()
        waiting.send("BLPOP", "list", 0)
        with pytest.raises(NotSwitched):
            await proxy.service._cutover.switch("new", lambda: None)
        assert await client.call("INCR", "a") == 2
        assert await client.call("RPUSH", "list", 1) == 1
        assert await waiting.reply() == [b"list", b"1"]
        assert proxy.old.call("GET", "a") == b"2"
        proxy.new.call("CONFIG", "SET", "requirepass", "")
        if when == "meanwhile":
            proxy.mirror.check = check  # type: ignore[method-assign]
            proxy.service._cutover._limit_s = 60.0
        assert await asyncio.to_thread(proxy.mirror.drain, GUARD)
        await proxy.switch("new")
        assert await client.call("INCR", "a") == 3
        assert proxy.new.call("GET", "a") == b"3"

    run(then)


def test_it_is_refused_while_keys_are_missing_or_were_flushed() -> None:
    async def then(proxy: Proxied) -> None:
        proxy.old.call("SET", "before", 1)
        with pytest.raises(NotSwitched, match=r"not safe yet.*1 key without an expiry"):
            await proxy.switch("new")
        await proxy.switch("new", accept_missing=1)
        await proxy.switch("shadow")
        client = await proxy.client()
        assert await client.call("FLUSHDB") == b"OK"
        with pytest.raises(NotSwitched, match="rdbkit sync"):
            await proxy.switch("new")
        await proxy.service.synced({})
        await proxy.switch("new")
        with pytest.raises(ValueError, match="from new one cannot go to old: the next step is shadow or done"):
            await proxy.switch("old")

    run(then)


def test_the_state_outlives_the_proxy(tmp_path: Path) -> None:
    file = str(tmp_path / "state")

    async def then(one: str, other: str, first: Client, second: Client) -> None:
        async with proxied(first, second, one, other, state_file=file, state=State.OLD) as proxy:
            client = await proxy.client()
            assert await client.call("SET", "a", 1) == b"OK"
            await proxy.switch("shadow")
            assert await client.call("SET", "a", 2) == b"OK"
            assert await asyncio.to_thread(proxy.mirror.drain, GUARD)
            await proxy.switch("new")
        async with proxied(first, second, one, other, state_file=file, state=State.OLD) as proxy:
            assert (await proxy.service.status({}))["state"] == "new"
            assert await proxy.in_use() == other.rsplit(":", 1)[1].encode()
            await proxy.switch("done")
            client = await proxy.client()
            assert await client.call("SET", "a", 3) == b"OK"
            with pytest.raises(ValueError, match="not mirrored any more"):
                await proxy.switch("new")
            assert 'rdbkit_proxy_state{state="done"} 1' in await proxy.service.text()
        assert first.call("GET", "a") == b"2"

    with two() as (first, second, one, other):
        asyncio.run(then(one, other, first, second))

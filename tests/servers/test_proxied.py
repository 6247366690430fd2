"""Through the proxy a client gets what the server says, byte for byte, however its requests are cut; what it writes is marked."""

from __future__ import annotations

import asyncio
import os
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fixtures.server import Client, running
from rdbkit.dual.marks import Marks
from rdbkit.dual.metrics import Metrics
from rdbkit.dual.proxy import Proxy
from rdbkit.live.server import Server, connect
from rdbkit.resp import command

from ..live.tls import Certificates
from ..rdb import exhaustive, rarely
from .test_server import sentinel
from .test_verify_import import port_of

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
END = b"the end"


def words(*texts: str) -> bytes:
    return b"".join(command(*text.encode().split()) for text in texts)


#: What clients send: everything that changes what comes back, or which reply belongs to which request.
TALKS: dict[str, bytes] = {
    "plain": words("SET a 1", "GET a", "INCR a", "LPUSH a x", "DEL a b", "MSET c 1 d 2", "NOSUCH k", "GET")
    + command(b"SET", b"bin", bytes(range(256)) * 20),
    "inline": b'SET "a b" \'c\'\r\n\r\nGET "a b"\nPING\r\n  set   x  "\\x00\\n"\r\n' + words("GET x"),
    "transactions": words(
        "WATCH a", "MULTI", "SET a 1", "SELECT 1", "INCR n", "SELECT 0", "EXEC", "MULTI", "SET b 1", "DISCARD", "MULTI", "SET",
        "SET c 1", "EXEC", "EXEC", "SET d 1", "WATCH d", "SET d 2", "MULTI", "SET e 1", "EXEC",
    ),
    "databases": words("SELECT 3", "SET a 1", "COPY a b DB 5", "SELECT 99", "SET c 1", "MOVE c 6", "SELECT 0", "SET d 1"),
    "scripts": command(b"EVAL", b"return redis.call('set', KEYS[1], ARGV[1])", b"1", b"k", b"v")
    + command(b"EVAL", b"redis.call('set', KEYS[1], 1) return redis.call('incr', KEYS[2])", b"2", b"k2", b"k")
    + words("EVALSHA 0000000000000000000000000000000000000000 1 none"),
    "subscriptions": words("SET a 1", "SUBSCRIBE x y", "PSUBSCRIBE p*", "PING", "GET a", "UNSUBSCRIBE", "PUNSUBSCRIBE p*")
    + words("UNSUBSCRIBE", "SET b 1", "PUBLISH x hi", "SET c 1"),
    "resp3": words("HELLO 3", "SUBSCRIBE x", "PUBLISH x hi", "SET a 1", "HSET h f 1", "HGETALL h", "UNSUBSCRIBE x", "SET b 1")
    + words("CLIENT TRACKING ON", "GET a", "SET a 2", "HELLO 2", "SET c 1"),
    "replies off": words("CLIENT REPLY SKIP", "SET a 1", "SET b 1", "CLIENT REPLY OFF", "SET c 1", "DEL d", "BLPOP q 0.01", "MULTI")
    + words("SET e 1", "EXEC", "SELECT 2", "SET f 1", "CLIENT REPLY ON", "SET g 1"),
    "waits": words("RPUSH l 1 2", "BLPOP l 0", "BRPOPLPUSH l m 0", "BLPOP none 0.01", "XADD s 1-1 f v")
    + words("XREAD BLOCK 1 STREAMS s 1-1"),
    "reset": words("SET c 1", "SELECT 4", "MULTI", "SET a 1", "RESET", "SET b 1", "RESET", "DISCARD"),
    "many arguments": command(b"MSET", *(b"%d" % n for n in range(20_000))) + command(b"MGET", *(b"%d" % n for n in range(10_000))),
    "large": command(b"SET", b"large", bytes(3 << 20)) + words("STRLEN large", "GET large"),
}  # fmt: skip
#: The talks that end with the connection.
LAST_WORDS: dict[str, bytes] = {
    "quit": words("SET a 1", "QUIT"),
    "garbage": words("SET a 1") + b"*1\r\n+SET\r\n",
    "too many": words("SET a 1") + b"*99999999999\r\n",
    "open quote": words("SET a 1") + b'SET "b\r\n',
}


@pytest.fixture(scope="module", params=["redis-7.0", *rarely("redis-6.0", "redis-8.0", "valkey-9.1")])
def server(request: pytest.FixtureRequest) -> Iterator[Client]:
    with running(SERVERS / request.param / "redis-server") as (client, _):
        yield client


class Front:
    """A proxy in front of a server, with the server itself as the other side, which is never written to."""

    def __init__(self, server: Server, **how: Any) -> None:
        self.marks, self.metrics = Marks(), Metrics()
        self.proxy = Proxy(server, server, "old", self.marks, self.metrics, **how)
        self.port = 0


@asynccontextmanager
async def front(
    client: Client, server: Server | None = None, tls: ssl.SSLContext | None = None, **how: Any
) -> AsyncIterator[Front]:
    with server or connect(f"redis://127.0.0.1:{port_of(client)}") as opened:
        found = Front(opened, **how)
        found.port = await found.proxy.listen("127.0.0.1", 0, tls=tls)
        try:
            yield found
        finally:
            await found.proxy.close()


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(600):
            await work()

    asyncio.run(main())


async def talk(port: int, text: bytes, piece: int = 1 << 30, last: bool = False, **tls: Any) -> bytes:
    """What comes back; numbers that are other ones each time are left out."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 26, **tls)
    try:
        end = b"" if last else command(b"PING", END)
        for at in range(0, len(text), piece):
            writer.write(text[at : at + piece])
            if piece < len(text):
                await writer.drain()
                await asyncio.sleep(0)
        writer.write(end)
        answer = await reader.read() if last else await reader.readuntil(END + b"\r\n")
    except ConnectionResetError:
        return b"reset"
    finally:
        writer.close()
    return re.sub(rb"id\r\n:\d+", b"id", answer)


@pytest.mark.parametrize("name", TALKS)
def test_what_comes_back_is_the_servers_own_and_what_is_written_is_marked(server: Client, name: str) -> None:
    text = TALKS[name]

    async def work() -> None:
        async with front(server) as here:
            server.call("FLUSHALL")
            expected = await talk(int(port_of(server)), text)
            for piece in (1 << 30, 1 if len(text) < 1000 else 4001):
                server.call("FLUSHALL")
                assert await talk(here.port, text, piece) == expected
                marked = {(db, key) for db, keys in here.marks.take(100_000) for key in keys}
                written = set()
                for db in range(16):
                    server.call("SELECT", db)
                    written |= {(db, key) for key in server.items("KEYS", "*")}
                server.call("SELECT", 0)
                assert written
                assert written <= marked
                assert not here.metrics.report()["needs_sync"]

    run(work)


@pytest.mark.parametrize("name", LAST_WORDS)
def test_what_ends_a_connection_ends_it_here(server: Client, name: str) -> None:
    async def work() -> None:
        async with front(server) as here:
            for piece in (1 << 30, 1):
                assert await talk(here.port, LAST_WORDS[name], piece, last=True) == await talk(
                    int(port_of(server)), LAST_WORDS[name], last=True
                )
                assert (0, b"a") in here.marks
                assert server.text("GET", "a") == "1"

    run(work)


def test_monitor_shows_what_others_do(server: Client) -> None:
    async def work() -> None:
        async with front(server) as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            writer.write(words("SET a 1", "MONITOR"))
            assert await reader.readexactly(10) == b"+OK\r\n+OK\r\n"
            await talk(here.port, words("SET b 1"))
            assert b'"SET" "b" "1"' in await reader.readline()
            writer.close()
            assert {(0, b"a"), (0, b"b")} <= {(db, key) for db, keys in here.marks.take() for key in keys}

    run(work)


def test_a_client_that_has_gone_pops_nothing(server: Client) -> None:
    async def work() -> None:
        async with front(server) as here:
            server.call("DEL", "q")
            _, writer = await asyncio.open_connection("127.0.0.1", here.port)
            writer.write(words("BLPOP q 0"))
            while not any(each.waiting() == "blocked" for each in here.proxy.connections):
                await asyncio.sleep(0.001)
            writer.close()
            while here.proxy.connections or "cmd=blpop" in server.text("CLIENT", "LIST"):
                await asyncio.sleep(0.001)
            server.call("RPUSH", "q", "1")
            assert server.call("LLEN", "q") == 1

    run(work)


def test_clients_log_in_with_their_own_password_or_none(server: Client) -> None:
    async def work() -> None:
        url = f"redis://app:right@127.0.0.1:{port_of(server)}"
        async with front(server, connect(url), log_in=True) as here:
            assert b"app" in await talk(here.port, words("ACL WHOAMI", "HELLO 3 AUTH any thing", "ACL WHOAMI", "SET a 1"))
        async with front(server, connect(url), log_in=True, client_password="theirs") as here:
            found = await talk(here.port, words("GET a", "AUTH wrong", "GET a", "AUTH theirs", "SET a 1", "ACL WHOAMI"))
            assert found.startswith(b"-NOAUTH")
            refused = found.split(b"\r\n")[1].startswith(b"-WRONGPASS")
            assert refused or "8.0.6" in server.text("INFO", "server")  # which answers no refused login behind other replies
            assert (0, b"a") in here.marks
            assert b"+OK\r\n+OK\r\n$3\r\napp\r\n" in found
        async with front(server, connect(url)) as here:
            found = await talk(here.port, words("AUTH app right", "ACL WHOAMI"))
            assert found.startswith(b"+OK\r\n$3\r\napp\r\n")

    channels = [] if server.text("INFO", "server").split("redis_version:")[1].startswith("6.0") else ["&*"]
    server.call("ACL", "SETUSER", "app", "on", ">right", "~*", *channels, "+@all")
    server.call("CONFIG", "SET", "requirepass", "default's own")
    try:
        run(work)
    finally:
        server.call("CONFIG", "SET", "requirepass", "")
        server.call("ACL", "DELUSER", "app")


@pytest.mark.parametrize("shown", ["server", *rarely("other_name")])
def test_with_tls_on_both_sides(tmp_path: Path, shown: str) -> None:
    certificates = Certificates.make(tmp_path)
    port, lines = certificates.listen(getattr(certificates, shown))
    here_tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    here_tls.load_cert_chain(certificates.server.cert, certificates.server.key)
    authority = str(certificates.authority.cert)

    async def work(client: Client) -> None:
        trusted = connect(f"rediss://localhost:{port}", ca_cert=authority, verify_tls=shown != "other_name")
        if shown == "other_name":  # what was opened without looking is looked at from here on
            assert trusted.opener.tls is not None
            trusted.opener.tls.verify_mode = ssl.CERT_NONE
            trusted.opener.tls.check_hostname = True
            trusted.opener.tls.verify_mode = ssl.CERT_REQUIRED
            trusted.opener.tls.load_verify_locations(authority)
        async with front(client, trusted, here_tls) as here:
            tls: dict[str, Any] = {"ssl": ssl.create_default_context(cafile=authority), "server_hostname": "localhost"}
            if shown == "other_name":
                assert await talk(here.port, words("SET a 1"), last=True, **tls) == b""
                assert "certificate verify failed" in here.metrics.report()["samples"][0]["detail"]
            else:
                assert await talk(here.port, words("SET a 1"), **tls) == b"+OK\r\n$7\r\nthe end\r\n"

    with running(SERVERS / "redis-7.0" / "redis-server", conf=lines) as (client, _):
        run(lambda: work(client))


def test_a_sentinel_is_asked_where_the_server_is(server: Client) -> None:
    known = {b"cache": int(port_of(server))}

    async def work() -> None:
        async with front(server, found) as here:
            assert await talk(here.port, words("SET a 1")) == b"+OK\r\n$7\r\nthe end\r\n"
            del known[b"cache"]
            assert await talk(here.port, words("SET a 1"), last=True) in (b"", b"reset")

    with sentinel(known) as port, connect(f"redis+sentinel://127.0.0.1:{port}/cache") as found:
        run(work)


@exhaustive
def test_a_value_of_512_mb_takes_no_memory(server: Client) -> None:
    async def work() -> None:
        async with front(server) as here:
            size = 512 << 20
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port)
            before = _held()
            writer.write(b"*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n$%d\r\n" % size)
            piece = bytes(1 << 20)
            for _ in range(512):
                writer.write(piece)
                await writer.drain()
            writer.write(b"\r\n")
            assert await reader.readexactly(5) == b"+OK\r\n"
            assert _held() - before < 64 << 20
            assert (0, b"large") in here.marks
            writer.close()

    run(work)
    server.call("DEL", "large")


def _held() -> int:
    """The most memory of this process so far, in bytes."""
    return (
        int(next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))) << 10
    )

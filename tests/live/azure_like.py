"""A front of a real server, or of the nodes of a cluster, that behaves as Azure's services do where these differ from it.

It speaks RESP2 and RESP3 by itself, without any code of rdbkit.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeAlias

Rewrite: TypeAlias = Callable[[bytes], bytes]

DISALLOWED = "ERR Command disallowed"
UNKNOWN = "ERR unknown command '{name}'"

PREMIUM: Mapping[str, str] = {
    **dict.fromkeys(("PSYNC", "SYNC", "REPLCONF"), DISALLOWED),
    **dict.fromkeys(
        ("ACL", "BGREWRITEAOF", "BGSAVE", "CONFIG", "DEBUG", "MIGRATE", "MODULE", "REPLICAOF", "SAVE", "SHUTDOWN", "SLAVEOF"),
        UNKNOWN,
    ),
}
"""What Azure Cache for Redis refuses, and in which words."""

MANAGED: Mapping[str, str] = {
    **dict.fromkeys(
        ("ACL", "BGREWRITEAOF", "BGSAVE", "DEBUG", "MIGRATE", "MODULE", "MOVE", "PSYNC", "REPLCONF", "REPLICAOF", "SAVE",
         "SHUTDOWN", "SLAVEOF", "SWAPDB", "SYNC"), UNKNOWN
    ),
    "SELECT": "ERR DB index is out of range",
    "CLIENT REPLY": "ERR unknown subcommand 'REPLY'",
    "CLIENT PAUSE": "ERR unknown subcommand 'PAUSE'",
}  # fmt: skip
"""What Azure Managed Redis, a Redis Enterprise, refuses. SELECT of database 0 is allowed."""

ACTIVE_ACTIVE: Mapping[str, str] = {**MANAGED, "RESTORE": "ERR command is not allowed in an Active-Active database"}
"""The same of a database that is replicated between regions."""


class AzureLike:
    """A front of servers on the loopback interface; each has a port of its own.

    Attributes:
        ports: where it listens, in the order of the servers.
        seen: how often each command came, by its name in capitals.
    """

    def __init__(
        self, upstreams: int | Sequence[int], refused: Mapping[str, str] = PREMIUM, *, opaque_cursors: bool = False,
        tokens: bool = False, latency: float = 0.0,
    ) -> None:  # fmt: skip
        """Begin to listen.

        Args:
            upstreams: the servers' ports.
            refused: the words for each command, or command with subcommand, that is refused.
            opaque_cursors: the cursors of SCAN are numbers above 2^63 that mean nothing.
            tokens: nobody is let in without a token: `issue` makes one, `end` ends it.
            latency: seconds that each reply takes longer.
        """
        self.seen: dict[str, int] = {}
        self.refused = dict(refused)
        self.opaque_cursors, self.tokens, self.latency = opaque_cursors, tokens, latency
        self._upstreams = [upstreams] if isinstance(upstreams, int) else list(upstreams)
        self._valid: set[str] = set()
        self._cursors: dict[bytes, bytes] = {b"0": b"0"}
        self._connections: set[_Connection] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._servers = [self._run(asyncio.start_server(self._serve(port), "127.0.0.1", 0)) for port in self._upstreams]
        self.ports: list[int] = [server.sockets[0].getsockname()[1] for server in self._servers]
        self._fronts = dict(zip(self._upstreams, self.ports, strict=True))

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.ports[0]}"

    def issue(self) -> str:
        """A new token, with which any user gets in."""
        token = secrets.token_urlsafe(30)
        self._valid.add(token)
        return token

    def end(self, token: str) -> int:
        """End a token: no one gets in with it, and connections that were given no newer one are closed. Returns how many."""
        self._valid.discard(token)

        async def close() -> int:
            ended = [connection for connection in self._connections if connection.token == token]
            for connection in ended:
                connection.close()
            return len(ended)

        closed: int = self._run(close())
        return closed

    def close(self) -> None:
        async def stop() -> None:
            for server in self._servers:
                server.close()
            for connection in list(self._connections):
                connection.close()
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

        self._run(stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def __enter__(self) -> AzureLike:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _serve(self, upstream: int) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                connection = _Connection(self, reader, writer, *await asyncio.open_connection("127.0.0.1", upstream))
            except OSError:
                writer.close()
                return
            self._connections.add(connection)
            try:
                await connection.run()
            finally:
                self._connections.discard(connection)
                connection.close()

        return serve

    # -- what replies become

    def lets_in(self, token: str) -> bool:
        return token in self._valid

    def cursor(self, opaque: bytes) -> bytes | None:
        return self._cursors.get(opaque)

    def opaque(self, reply: bytes) -> bytes:
        """A reply to SCAN with a cursor that means nothing."""
        match = re.match(rb"\*2\r\n\$\d+\r\n(\d+)\r\n", reply)
        if match is None or match[1] == b"0":
            return reply
        cursor = b"%d" % (2**63 + secrets.randbelow(2**63))
        self._cursors[cursor] = match[1]
        return b"*2\r\n$%d\r\n%b\r\n" % (len(cursor), cursor) + reply[match.end() :]

    def fronted(self, reply: bytes) -> bytes:
        """A reply with the ports of the fronts for those of the nodes, where it is one that has ports."""
        for upstream, front in self._fronts.items():
            old, new = b"%d" % upstream, b"%d" % front
            if reply.startswith((b"-MOVED ", b"-ASK ")):
                reply = re.sub(rb":%b\r\n" % old, b":%b\r\n" % new, reply)
            else:
                reply = reply.replace(b":%b\r\n" % old, b":%b\r\n" % new)
        return reply


class _Connection:
    """A client's connection, with one of its own to the server. Replies leave in the order of their commands.

    Attributes:
        token: what it was let in with.
    """

    def __init__(
        self, front: AzureLike, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
    ) -> None:  # fmt: skip
        self.token = ""
        self._front = front
        self._reader, self._writer = reader, writer
        self._up_reader, self._up_writer = up_reader, up_writer
        #: For each command without its answer yet: the answer, or how that of the server is changed.
        self._waiting: deque[bytes | Rewrite] = deque()
        self._in_multi = self._refused_in_multi = False

    def close(self) -> None:
        self._writer.close()
        self._up_writer.close()

    async def run(self) -> None:
        tasks = [asyncio.ensure_future(self._requests()), asyncio.ensure_future(self._replies())]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _requests(self) -> None:
        while True:
            words = await _request(self._reader)
            answer = self._answer(words)
            if isinstance(answer, str):
                self._waiting.append(b"-%b\r\n" % answer.encode())
                await self._flush()
            elif isinstance(answer, bytes):
                self._waiting.append(answer)
                await self._flush()
            else:
                rewrite, words = answer
                self._waiting.append(rewrite)
                self._up_writer.write(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words))
                await self._up_writer.drain()

    async def _replies(self) -> None:
        while True:
            reply = await _frame(self._up_reader)
            if reply.startswith(b">"):
                self._writer.write(reply)
                await self._writer.drain()
                continue
            if self._front.latency:
                await asyncio.sleep(self._front.latency)
            rewrite = self._waiting.popleft()
            assert not isinstance(rewrite, bytes)
            self._writer.write(self._front.fronted(rewrite(reply)))
            await self._flush()

    async def _flush(self) -> None:
        """Send the answers that wait for no reply before them."""
        while self._waiting and isinstance(self._waiting[0], bytes):
            answer = self._waiting.popleft()
            assert isinstance(answer, bytes)
            self._writer.write(answer)
        await self._writer.drain()

    def _answer(self, words: list[bytes]) -> str | bytes | tuple[Rewrite, list[bytes]]:
        """The words of a refusal, an answer, or what the server is to be asked and how its reply is changed."""
        name = words[0].decode("latin-1").upper()
        self._front.seen[name] = self._front.seen.get(name, 0) + 1
        if self._front.tokens:
            login = self._login(name, words)
            if login is not None:
                return login
        pair = f"{name} {words[1].decode('latin-1').upper()}" if len(words) > 1 else name
        refusal = self._front.refused.get(pair) or self._front.refused.get(name)
        if refusal is not None and pair != "SELECT 0":
            self._refused_in_multi = self._in_multi
            return refusal.format(name=words[0].decode("latin-1"))
        if name == "MULTI":
            self._in_multi = True
        elif name in ("EXEC", "DISCARD"):
            was_refused, self._in_multi, self._refused_in_multi = self._refused_in_multi, False, False
            if was_refused and name == "EXEC":
                return (lambda _: b"-EXECABORT Transaction discarded because of previous errors.\r\n"), [b"DISCARD"]
        elif name == "SCAN" and self._front.opaque_cursors and len(words) > 1:
            cursor = self._front.cursor(words[1])
            if cursor is None:
                return "ERR invalid cursor"
            return self._front.opaque, [words[0], cursor, *words[2:]]
        return _unchanged, words

    def _login(self, name: str, words: list[bytes]) -> str | bytes | tuple[Rewrite, list[bytes]] | None:
        """What is said to a login, or to who has none; None to go on."""
        at = next((i for i, word in enumerate(words) if word.upper() == b"AUTH"), None) if name in ("AUTH", "HELLO") else None
        if at is None:
            return None if self.token else "NOAUTH Authentication required."
        token = words[-1 if name == "AUTH" else at + 2].decode("latin-1")
        if not self._front.lets_in(token):
            return "WRONGPASS invalid username-password pair"
        self.token = token
        return b"+OK\r\n" if name == "AUTH" else (_unchanged, words[:at] + words[at + 3 :])


def _unchanged(reply: bytes) -> bytes:
    return reply


async def _request(reader: asyncio.StreamReader) -> list[bytes]:
    line = await reader.readuntil(b"\r\n")
    if not line.startswith(b"*"):
        return line.split()
    words = []
    for _ in range(int(line[1:])):
        length = int((await reader.readuntil(b"\r\n"))[1:])
        words.append((await reader.readexactly(length + 2))[:-2])
    return words


async def _frame(reader: asyncio.StreamReader) -> bytes:
    """The bytes of one reply."""
    parts = []
    left = 1
    while left:
        line = await reader.readuntil(b"\r\n")
        parts.append(line)
        left -= 1
        kind = line[:1]
        if kind in b"$=!" and line[1:2] != b"-":
            parts.append(await reader.readexactly(int(line[1:]) + 2))
        elif kind in b"*~>" and line[1:2] != b"-":
            left += int(line[1:])
        elif kind in b"%|":
            left += 2 * int(line[1:]) + (kind == b"|")
    return b"".join(parts)

"""The proxy: clients of any language write to one cache through it, and what they write is marked for the other one.

Each client has a connection of its own to the server, so whatever works there works here. See `proxied` for what passes on it.
"""

from __future__ import annotations

import asyncio
import hmac
import ssl
import time
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

from rdbkit.dual.connection_context import Command
from rdbkit.dual.cutover import Connections, NotSwitched, Side
from rdbkit.dual.pairing import request_names
from rdbkit.dual.proxied import ProxiedConnection, exchange
from rdbkit.dual.workers import Counting, Marking
from rdbkit.errors import RdbError, TargetError
from rdbkit.format.replies import Refusal
from rdbkit.live.server import Server
from rdbkit.resp import command
from rdbkit.targets.keyspecs import TABLE

__all__ = ["Proxy", "Upstream"]

_CONNECT_S: Final = 15.0
_RENEW_S: Final = 10.0
_BACKLOG: Final = 4096
#: Requests that are kept while a server is asked what their command is.
_MOST_ASKED: Final = 10_000


class Upstream:
    """One of the two caches, as clients are connected to it.

    Args:
        side: which one.
        server: connected to.

    Raises: TargetError for a cluster.
    """

    def __init__(self, side: Side, server: Server) -> None:
        if server.kind == "cluster":
            raise TargetError(
                "it is a cluster, whose nodes clients must reach themselves: use rdbkit.dual in the application, or "
                "rdbkit copy --follow and switch its address",
                source=str(server.url),
            )
        self.side = side
        self.server = server
        self.last_login: tuple[bytes, ...] | None = None

    def __str__(self) -> str:
        return str(self.server.url)

    async def connect(self, protocol: asyncio.Protocol) -> None:
        """Open a connection. Raises: OSError; TargetError where a Sentinel does not say where the server is."""
        url = self.server.url
        host, port = self.server.home if url.service is None else await asyncio.to_thread(self.server.find_home)
        tls = self.server.opener.tls
        loop = asyncio.get_running_loop()
        # a certificate may have the name that was given, or that of the node, as behind a Sentinel
        names = [None] if tls is None else list(dict.fromkeys((url.host, host)))
        async with asyncio.timeout(_CONNECT_S):
            for name in names:
                try:
                    await loop.create_connection(lambda: protocol, host, port, ssl=tls, server_hostname=name)
                    return
                except ssl.SSLCertVerificationError:
                    if name == names[-1]:
                        raise

    async def login(self) -> tuple[bytes, ...] | None:
        """Arguments of AUTH; None where nobody has to log in. Raises: TargetError where no token can be had."""
        login = await asyncio.to_thread(lambda: self.server.opener.login.current)
        if login is None:
            return None
        user, password = login
        self.last_login = (password.encode(),) if user is None else (user.encode(), password.encode())
        return self.last_login


class Proxy:
    """Passes on what clients and a server say to each other.

    Args:
        old, new: the caches, connected to.
        primary: the side that clients are connected to.
        marks: where keys are marked that are written; None where nothing is mirrored.
        metrics: where everything is counted.
        log_in: log in to both caches with what `old` and `new` were opened with. Without it, clients' own logins are passed on.
        client_password: with `log_in`, what clients must log in with; None where they need not.

    Attributes:
        upstream: the cache that clients are connected to.
        connections: all there are now.
        worker: switches them.

    Example:
        proxy = Proxy(connect(old), connect(new), "old", marks, metrics)
        await proxy.listen("127.0.0.1", 6379)
    """

    def __init__(
        self,
        old: Server,
        new: Server,
        primary: Side,
        marks: Marking | None,
        metrics: Counting,
        *,
        log_in: bool = False,
        client_password: str | None = None,
    ) -> None:
        self.upstreams: dict[Side, Upstream] = {"old": Upstream("old", old), "new": Upstream("new", new)}
        self.upstream = self.upstreams[primary]
        if client_password is not None and not log_in:
            raise ValueError("clients log in with a password of their own only where the proxy logs in to the servers")
        for each in self.upstreams.values():
            if client_password is not None and each.server.opener.login.current is None:
                raise TargetError("it lets everybody in, so clients cannot be asked for a password", source=str(each))
        self.marks = marks
        self.metrics = metrics
        self.names = request_names()
        self.connections: set[ProxiedConnection] = set()
        self.worker = _Worker(self)
        self._log_in = log_in
        self._client_password = None if client_password is None else client_password.encode()
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._running: set[asyncio.Task[None]] = set()  # errands that a switch waits for
        self._errands = ThreadPoolExecutor(1, "rdbkit-proxy")  # whatever waits for a server
        self._asked: dict[bytes, list[tuple[int, list[bytes]]]] = {}
        self._known: set[bytes] = set()

    async def listen(self, host: str, port: int, *, tls: ssl.SSLContext | None = None, reuse_port: bool = False) -> int:
        """Take clients. Returns: the port. Raises: OSError."""
        loop = asyncio.get_running_loop()
        if self._log_in and not self._servers:
            self.spawn(self._renew_logins())
        server = await loop.create_server(
            lambda: ProxiedConnection(self).client, host, port, ssl=tls, backlog=_BACKLOG, reuse_port=reuse_port or None
        )
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Take no more clients, and close all connections; what was written is marked."""
        for server in self._servers:
            server.close()
        for connection in list(self.connections):
            connection.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self._errands.shutdown)

    def use(self, side: Side) -> None:
        """New clients are connected to this side."""
        self.upstream = self.upstreams[side]

    # -- what connections call

    @property
    def is_paused(self) -> bool:
        """Whether a switch is under way, and nothing is taken of clients."""
        return self.worker.paused

    @property
    def logs_in_first(self) -> bool:
        """Whether connections to a server are logged in before the client says anything."""
        return self._log_in and self._client_password is None

    def spawn(self, task: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run it in the background; it is ended when the proxy is closed."""
        begun = asyncio.ensure_future(task)
        self._tasks.add(begun)
        begun.add_done_callback(self._tasks.discard)
        return begun

    def _run_errand(self, task: Coroutine[Any, Any, None]) -> None:
        """Run what marks something, or tells the other side of something: a switch waits for it."""
        begun = self.spawn(task)
        self._running.add(begun)
        begun.add_done_callback(self._running.discard)

    async def errands_done(self, limit_s: float) -> None:
        """Wait for what was to be asked or told because of requests that were answered. Raises: NotSwitched where that is late."""
        if self._running:
            _, late = await asyncio.wait(list(self._running), timeout=max(limit_s, 0.0))
            if late:
                raise NotSwitched(f"what was found out of commands and scripts is not there after {limit_s:g} s")

    async def _renew_logins(self) -> None:
        """Log connections in again when there is a new token: a server closes those whose token has ended."""
        known = {upstream: await upstream.login() for upstream in self.upstreams.values()}
        late: set[ProxiedConnection] = set()
        while True:
            await asyncio.sleep(_RENEW_S)
            upstream = self.upstream
            with suppress(TargetError):  # those that the old one was given to go on until it ends
                login = await upstream.login()
                if login != known[upstream]:
                    known[upstream] = login
                    late = set(self.connections)
            login = known[upstream]
            if login is not None:
                late = {each for each in late & self.connections if each.upstream is upstream and not each.renew_login(login)}

    async def login(self, upstream: Upstream) -> tuple[bytes, ...] | None:
        """What the proxy logs in with; None where clients do so themselves. Raises: TargetError."""
        return await upstream.login() if self._log_in else None

    def other_login(self, upstream: Upstream | None, arguments: list[bytes]) -> bytes | None:
        """What is sent in place of AUTH or HELLO of a client, since each cache has a login of its own; None for as it is."""
        login = None if upstream is None else upstream.last_login
        if not self._log_in or login is None:
            return None
        at = 1
        if arguments[0].upper() == b"HELLO":
            at = next((n for n in range(2, len(arguments)) if arguments[n].upper() == b"AUTH"), len(arguments))
            login = (b"default", *login)[-2:]
            end = at + 3
            at += 1
        else:
            end = len(arguments)
        if end > len(arguments) or at == end:
            return None
        given = arguments[end - 1]
        if self._client_password is not None and not hmac.compare_digest(given, self._client_password):
            return None  # the server refuses it
        return command(*arguments[:at], *login, *arguments[end:])

    def unreachable(self, upstream: Upstream, trouble: Exception) -> None:
        """A client was turned away, since the server was."""
        self.metrics.count("outages")
        self.metrics.sample("outage", 0, b"", f"{upstream}: {trouble}")

    def ask_about(self, db: int, arguments: list[bytes]) -> None:
        """Find out what a command does that nobody knows, and mark what this request of it has written."""
        name = arguments[0].upper()
        if name in self._known:
            self.metrics.count("unknown", 1, name.decode("utf-8", "replace"))
            return
        waiting = self._asked.get(name)
        if waiting is not None:
            if len(waiting) < _MOST_ASKED:
                waiting.append((db, arguments))
            else:
                self.metrics.count("needs_sync", 1, "unknown-command")
            return
        self._asked[name] = [(db, arguments)]
        self._run_errand(self._learn(name))

    async def _learn(self, name: bytes) -> None:
        server = self.upstream.server
        try:
            reply = await self._errand(server, command(b"COMMAND", b"INFO", name))
            if isinstance(reply, list) and reply and reply[0]:
                TABLE.learn(name, reply[0])
        except RdbError as e:
            self.unreachable(self.upstream, e)
        waiting = self._asked.pop(name)
        for db, arguments in waiting:
            keys, kind, elsewhere = TABLE.written(arguments)
            if kind == "unknown":
                self._known.add(name)
                self.metrics.count("unknown", 1, name.decode("utf-8", "replace"))
            elif self.marks is not None:
                self.marks.add_many(db, keys)
                for other, key in elsewhere:
                    self.marks.add(other, key)

    def define(self, arguments: list[bytes]) -> None:
        """Tell the other side of scripts and functions that were defined, or deleted."""
        if self.marks is not None:
            other = self.upstreams["old" if self.upstream.side == "new" else "new"]
            self._run_errand(self._define(other, arguments))

    async def _define(self, upstream: Upstream, arguments: list[bytes]) -> None:
        try:
            reply = await self._errand(upstream.server, command(*arguments))
        except RdbError as e:
            reply = Refusal("ERR", str(e))
        if isinstance(reply, Refusal):
            self.metrics.count("needs_sync", 1, "definition")
            self.metrics.sample("definition", 0, b"", f"{upstream}: {reply}")

    async def _errand(self, server: Server, request: bytes) -> Any:
        """Ask a server over the proxy's own connection. Raises: TargetError."""
        return await asyncio.get_running_loop().run_in_executor(self._errands, server.ask_node, server.home, request)


class _Worker(Connections):
    """The connections of a proxy, as a switch needs them."""

    def __init__(self, proxy: Proxy) -> None:
        super().__init__(proxy.connections, self._end_waits)
        self._proxy = proxy

    async def pause(self, limit_s: float) -> dict[str, int]:
        begun = time.monotonic()
        closed = await super().pause(limit_s)
        await self._proxy.errands_done(limit_s - (time.monotonic() - begun))
        return closed

    async def commit(self, side: Side) -> int:
        self._proxy.use(side)
        return await super().commit(side)

    async def _end_waits(self, ids: Sequence[int]) -> None:
        """End commands that wait for data."""
        upstream = self._proxy.upstream
        login = await upstream.login()
        commands = [] if login is None else [Command(command(b"AUTH", *login))]
        commands += [Command(command(b"CLIENT", b"UNBLOCK", b"%d" % each), must=False) for each in ids]
        with suppress(OSError, TargetError):  # what still waits is closed
            await exchange(upstream, commands)

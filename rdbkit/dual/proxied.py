"""A client's connection through the proxy: bytes pass as they are, and another server may take over.

See `pairing` for what is found in them.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final, cast

from rdbkit.dual.connection_context import Command, ConnectionContext
from rdbkit.dual.pairing import Pairing
from rdbkit.errors import CorruptError, TargetError
from rdbkit.format.reply_ends import ReplyEnds
from rdbkit.resp import command

if TYPE_CHECKING:
    from rdbkit.dual.cutover import Side, Waiting
    from rdbkit.dual.proxy import Proxy, Upstream

__all__ = ["ProxiedConnection", "exchange"]

#: Bytes that wait to be sent, above which no more are taken, and below which they are again.
_HIGH: Final = 1 << 20
_LOW: Final = 1 << 18
#: Seconds for which replies are awaited of a client that has gone.
_LINGER_S: Final = 5.0
#: Seconds of silence after which a connection is looked after, as servers do.
_KEEPALIVE_S: Final = 300
#: What a server says to a client that keeps values when all of them may have changed.
_ALL_INVALID: Final = b">2\r\n$10\r\ninvalidate\r\n_\r\n"
_PING: Final = command(b"PING")
#: Why nothing is taken of a client.
_PAUSED: Final = 1
_FULL: Final = 2
_OPENING: Final = 4


class _End(asyncio.Protocol):
    """One end of a proxied connection: to the client, or to the server."""

    def __init__(self) -> None:
        self.made: Callable[[], None] = _nothing
        self.came: Callable[[bytes], None] = _nothing
        self.gone: Callable[[], None] = _nothing
        self.ended: Callable[[], bool | None] = _nothing
        self.full: Callable[[bool], None] = _nothing
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(_HIGH, _LOW)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if hasattr(socket, "TCP_KEEPIDLE"):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_S)
        self.made()

    def data_received(self, data: bytes) -> None:
        self.came(data)

    def eof_received(self) -> bool | None:
        return self.ended()

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.gone()

    def pause_writing(self) -> None:
        self.full(True)

    def resume_writing(self) -> None:
        self.full(False)

    def send(self, data: bytes) -> None:
        if self.transport is not None and data:
            self.transport.write(data)

    def read(self, wanted: bool) -> None:
        """Take what the other side sends, or let it wait."""
        if self.transport is not None and not self.transport.is_closing():
            if wanted:
                self.transport.resume_reading()
            else:
                self.transport.pause_reading()

    def close(self) -> None:
        if self.transport is not None:
            self.transport.close()

    def leave(self) -> None:
        """Close it; what it still says is nobody's."""
        self.came = self.gone = self.full = _nothing
        self.close()


def _nothing(*_: Any) -> None:
    """What comes is nobody's."""


async def _tell(end: _End, commands: list[Command], why: str) -> bytes:
    """Send commands. Returns: what has come behind the last reply. Raises: OSError; TargetError for a refusal."""
    done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    replies = ReplyEnds()
    replies.subscribed = True
    left = [each.must for each in commands for _ in range(each.replies)]

    def came(data: bytes) -> None:
        if done.done():
            return
        replies.feed(data)
        try:
            while left and replies.step():
                if replies.pushed and not replies.word.endswith(b"subscribe"):
                    continue
                if left.pop(0) and replies.line[:1] in (b"-", b"!"):
                    text = replies.line[1:].decode("utf-8", "replace")
                    done.set_exception(TargetError(f"{why}: {text}"))
                    return
        except CorruptError as e:
            done.set_exception(TargetError(str(e)))
            return
        if not left:
            end.read(False)
            done.set_result(data[max(0, replies.end) :])

    def gone() -> None:
        if not done.done():
            done.set_exception(ConnectionResetError("the server has closed the connection"))

    if end.transport is None:
        raise ConnectionResetError("the server has closed the connection")
    end.came, end.gone = came, gone
    end.send(b"".join(each.text for each in commands))
    if not left:
        return b""
    return await done


async def exchange(upstream: Upstream, commands: list[Command]) -> None:
    """Send commands over a connection of their own. Raises: OSError; TargetError."""
    end = _End()
    await upstream.connect(end)
    try:
        await _tell(end, commands, f"{upstream} refuses it")
    finally:
        end.leave()


class ProxiedConnection:
    """One client and its server. Made when a client comes; all of it runs in the event loop.

    Attributes:
        client: the protocol to be given to asyncio.
        upstream: that server; None while it is not open.
    """

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self.client = _End()
        self.client.made, self.client.came = self._client_made, self._requests_came
        self.client.gone, self.client.full = self._client_gone, self._client_full
        self.client.ended = self._client_ended
        self.upstream: Upstream | None = None
        self._server: _End | None = None
        self._other: tuple[Upstream, _End] | None = None  # opened beside it, for a switch
        self._spare: bytes | None = None  # what that has said after it was told all; None before
        self._stops = _OPENING  # why nothing is taken of the client
        self._is_gone = False
        self._is_ended = False  # the client says no more, and may still listen
        self._pairing = Pairing(proxy.names, self)

    @property
    def context(self) -> ConnectionContext:
        """What the server in use was told of the connection."""
        return self._pairing.context

    # -- what comes and goes

    def _client_made(self) -> None:
        self._proxy.connections.add(self)
        self.client.read(False)
        if self._proxy.is_paused:
            self.pause()
        self._proxy.spawn(self._begin())

    async def _begin(self) -> None:
        """Open the server, then listen to the client."""
        while True:
            upstream = self._proxy.upstream
            try:
                server = await self._open(upstream)
            except Exception as e:  # whatever it is, no client is to wait for a server that does not come
                self._proxy.unreachable(upstream, e)
                self.close()
                return
            if upstream is self._proxy.upstream:
                break
            server.leave()  # it was switched meanwhile
        if self._is_gone:
            server.leave()
            return
        self._use(upstream, server)
        self._go_on(_OPENING)

    async def _open(self, upstream: Upstream) -> _End:
        """A connection to a server, logged in where the proxy does that. Raises: OSError; TargetError."""
        end = _End()
        await upstream.connect(end)
        login = await self._proxy.login(upstream)
        if login is not None and self._proxy.logs_in_first:
            try:
                await _tell(end, [Command(command(b"AUTH", *login))], f"{upstream} does not let the proxy in")
            except BaseException:
                end.leave()
                raise
        return end

    def _use(self, upstream: Upstream, server: _End) -> None:
        """From now on this is the server."""
        self.upstream, self._server = upstream, server
        server.came, server.gone, server.full = self._replies_came, self._server_gone, self._server_full
        server.read(True)
        if server.transport is None:
            self._server_gone()

    def _client_ended(self) -> bool:
        """The client says no more; whether it is still owed replies, as where a script sends its requests and then listens."""
        pairing = self._pairing
        assert self.client.transport is not None
        has_tls = self.client.transport.get_extra_info("sslcontext") is not None
        if has_tls or self._server is None or pairing.untracked or pairing.waits_for_data or pairing.is_answered:
            return False
        self._is_ended = True
        asyncio.get_running_loop().call_later(_LINGER_S, self.client.close)
        return True

    def _client_gone(self) -> None:
        self._is_gone = True
        server, pairing = self._server, self._pairing
        pairing.held = b""
        if server is None or server.transport is None or pairing.untracked or pairing.waits_for_data or pairing.is_answered:
            self._end()
        else:  # the server goes on with what it was sent
            server.read(True)
            asyncio.get_running_loop().call_later(_LINGER_S, self._end)

    def _server_gone(self) -> None:
        self._server = None
        self._pairing.mark_all()
        self.client.close()
        if self._is_gone:
            self._end()

    def _end(self) -> None:
        self._pairing.mark_all()
        for end in (self._server, None if self._other is None else self._other[1]):
            if end is not None:
                end.leave()
        self._server = self._other = None
        self._proxy.connections.discard(self)

    # -- flow

    def _stop(self, why: int) -> None:
        if not self._stops:
            self.client.read(False)
        self._stops |= why

    def _go_on(self, why: int) -> None:
        if not self._stops & why:
            return
        self._stops &= ~why
        if not self._stops and self._pairing.held:
            self._requests_came(b"")
        if not self._stops:
            self.client.read(True)

    def _server_full(self, full: bool) -> None:
        if full:
            self._stop(_FULL)
        else:
            self._go_on(_FULL)

    def _client_full(self, full: bool) -> None:
        if self._server is not None and not self._is_gone:
            self._server.read(not full)

    # -- bytes

    def _requests_came(self, data: bytes) -> None:
        pairing = self._pairing
        if self._stops & (_OPENING | _PAUSED) or self._server is None:
            pairing.held += data
            return
        self._server.send(pairing.requests(data))
        if pairing.stops and pairing.is_movable:
            self._halt()

    def _replies_came(self, data: bytes) -> None:
        self.client.send(self._pairing.replies(data))
        if self._is_ended and self._pairing.is_answered:
            self.client.close()
        if self._is_gone and self._pairing.is_answered:
            self._end()

    # -- what is found in them; as `pairing.Told`

    def mark(self, db: int, keys: Iterable[bytes]) -> None:
        """These keys were written."""
        marks = self._proxy.marks
        if marks is not None:
            marks.add_many(db, keys)

    def lacks(self, why: str) -> None:
        """Something was written of which no key can be marked."""
        if self._proxy.marks is not None:
            self._proxy.metrics.count("needs_sync", 1, why)

    def ask_about(self, db: int, arguments: list[bytes]) -> None:
        """A command came that nobody knows."""
        self._proxy.ask_about(db, arguments)

    def define(self, arguments: list[bytes]) -> None:
        """Scripts or functions were defined or deleted."""
        self._proxy.define(arguments)

    def other_login(self, arguments: list[bytes]) -> bytes | None:
        """What is sent in place of AUTH or HELLO; None for as it is."""
        return self._proxy.other_login(self.upstream, arguments)

    # -- a switch

    def pause(self) -> None:
        """Take no more of the client than it needs to come to a place where it can be moved: no half request, no transaction."""
        self._pairing.stops = True
        if self._pairing.is_movable:
            self._halt()

    def _halt(self) -> None:
        self._stop(_PAUSED)
        if self._server is not None:
            self._server.send(self._pairing.hear())

    def _resume(self) -> None:
        self._pairing.stops = False
        self._go_on(_PAUSED)

    def waiting(self) -> Waiting | None:
        """Why it cannot be moved at this moment; None where it can. Without `pause` it may change at any time."""
        pairing = self._pairing
        if self._server is None:
            return None
        if not pairing.is_answered:
            return "blocked" if pairing.is_blocked else "reply"
        if pairing.is_movable or self._is_gone:
            return None
        return "transaction" if pairing.is_in_transaction else "request"

    def fixed(self) -> str | None:
        """Why it can never be moved, as "MONITOR"; None where it can."""
        return "CLIENT TRACKING with REDIRECT" if self.context.redirects else self._pairing.untracked

    def unblock(self) -> int | None:
        """The CLIENT ID of a command that is "blocked"; None where it is not known.

        CLIENT UNBLOCK follows. Where the answer is that nothing came, the client is not told: the command is sent again by `commit`
        or `undo`.
        """
        return self._pairing.unblock()

    async def open(self, side: Side) -> None:
        """Open a connection to this side, beside the one in use. Raises: OSError; TargetError."""
        if self._is_ready():
            return
        upstream = self._proxy.upstreams[side]
        end = await self._open(upstream)
        if self._is_ready():
            end.leave()
            return
        self._other = upstream, end
        self._spare = None

    def _is_ready(self) -> bool:
        """Whether nothing has to be opened for a switch."""
        return self._server is None or self._other is not None

    async def prepare(self, side: Side) -> None:
        """Bring the connection to this side, opened where there is none, to where the one in use is: login, database and so on.

        Raises: OSError; TargetError where it is refused.
        """
        await self.open(side)
        if self._other is None or self._spare is not None:
            return
        upstream, end = self._other
        login = await self._proxy.login(upstream)
        if login is not None and self._proxy.logs_in_first:
            login = ()  # it has, when it was opened
        elif login is not None and self.context.login is None:
            login = ()
        commands = self.context.commands(login)
        if not (login or self.context.login):
            # it is there; and who is let in here without a login must be let in there
            commands.insert(0, Command(_PING, must=self.upstream is None or await self.upstream.login() is None))
        if self.context.is_subscribed:
            await self._hear_all()
        spare = await _tell(end, commands, f"{upstream} refuses what a connection needs")
        self._spare = spare

    async def _hear_all(self) -> None:
        """Wait until the server in use has sent all messages that it had for the client before this."""
        heard = asyncio.get_running_loop().create_future()
        server = self._server
        request = self._pairing.ask(_PING, lambda: None if heard.done() else heard.set_result(None))
        if server is not None and request:
            server.send(request)
            await heard

    def renew_login(self, login: tuple[bytes, ...]) -> bool:
        """Log in again, where the token of this connection has a new one; whether that is done."""
        if not self._proxy.logs_in_first and self.context.login is None:
            return True  # its client has not shown yet who it is
        if self._server is None or (self.context.is_subscribed and self.context.protocol == 2):
            return False
        request = self._pairing.log_in(*login)
        self._server.send(request)
        return bool(request)

    def commit(self) -> None:
        """Go on with the connection that was prepared. Never raises."""
        if self._server is None:  # it is being opened, or has gone
            self._resume()
            return
        if self._other is None or self._spare is None:
            self._reopen()
        else:
            upstream, end = self._other
            self._server.leave()
            self._pairing.moved()
            spare, self._other, self._spare = self._spare, None, None
            if self.context.is_tracking and self.context.protocol == 3:
                self.client.send(_ALL_INVALID)
            self._pairing.hush()  # which the new server was told
            self._use(upstream, end)
            if spare:
                self._replies_came(spare)
        self._send_again()
        self._resume()

    def undo(self) -> None:
        """Go on with the connection in use; close the other one, if any. Never raises."""
        if self._other is not None:
            self._other[1].leave()
            self._other = self._spare = None
        if self._server is not None:
            self._server.send(self._pairing.hush())
        self._send_again()
        self._resume()

    def close(self) -> None:
        """Close the connection of the client, and its own."""
        self._is_gone = True
        if self.client.transport is not None:
            self.client.transport.close()
        self._end()

    def _reopen(self) -> None:
        """It came during the switch, and nothing was passed on yet."""
        if self.upstream is not self._proxy.upstream and self._server is not None:
            self._server.leave()
            self._server = None
            self._stop(_OPENING)
            self._proxy.spawn(self._begin())

    def _send_again(self) -> None:
        if self._server is not None:
            self._server.send(self._pairing.again())

"""A client's connection through the proxy: bytes pass as they are, what is written is marked, and another server may take over.

Requests and replies are only counted, but for the few that change what the connection is or what comes back on it. A write is
marked when its reply has come and is no error; where the reply never comes, too.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

from rdbkit.dual.connection_context import SUBSCRIBES, UNSUBSCRIBES, ConnectionContext
from rdbkit.errors import CorruptError, TargetError
from rdbkit.format.reply_ends import ReplyEnds
from rdbkit.format.requests import LARGEST_KEPT, LEFT_OUT, ONE_KEY, PASSED, WANTED, Requests
from rdbkit.resp import command
from rdbkit.targets.keyspecs import TABLE

if TYPE_CHECKING:
    from rdbkit.dual.cutover import Side, Waiting
    from rdbkit.dual.proxy import Proxy, Upstream

__all__ = ["ProxiedConnection", "exchange", "request_names"]

#: Bytes that wait to be sent, above which no more are taken, and below which they are again.
_HIGH: Final = 1 << 20
_LOW: Final = 1 << 18
#: Seconds for which replies are awaited of a client that has gone.
_LINGER_S: Final = 5.0
#: More replies than there will ever be.
_ALL: Final = 1 << 60
_NIL: Final = (b"*-1", b"$-1", b"_")
#: Commands that change the connection, or what comes back on it; see `_Pending`.
_TOLD: Final = (b"AUTH", b"HELLO", b"SELECT", b"RESET")
_TRANSACTIONS: Final = (b"MULTI", b"EXEC", b"DISCARD", b"WATCH", b"UNWATCH")
#: Replies follow that nobody has asked for one by one.
_STREAMS: Final = (b"MONITOR", b"SYNC", b"PSYNC")
#: These may wait, though they write nothing.
_WAIT: Final = (b"XREAD", b"WAIT", b"WAITAOF")
_SPECIAL: Final = frozenset((*_TOLD, *_TRANSACTIONS, *_STREAMS, *_WAIT, *SUBSCRIBES, *UNSUBSCRIBES, b"CLIENT", b"QUIT"))
_CLIENT_ID: Final = command(b"CLIENT", b"ID")
#: What a server says to a client that keeps values when all of them may have changed.
_ALL_INVALID: Final = b">2\r\n$10\r\ninvalidate\r\n_\r\n"
#: Why nothing is taken of a client.
_PAUSED: Final = 1
_FULL: Final = 2
_OPENING: Final = 4


def request_names() -> dict[bytes, int]:
    """What names of commands mean to `Requests`."""
    names = {name: PASSED if at == 0 else ONE_KEY if at == 1 else WANTED for name, at in TABLE.only_keys().items()}
    return {name: what for name, what in names.items() if name.upper() not in _SPECIAL}


class _Pending:
    """A request whose reply is looked at.

    Attributes:
        number: of the reply, among all of the connection.
        arguments: of the request.
        then: called with this when the reply is there.
        frames: how many replies it has more than one, as SUBSCRIBE to several channels; -1 where that is not known yet.
        blocks: whether it may wait for data.
        hidden: whether the client gets no reply, since it has not asked.
        rows: keys that it may write, each with its database; None is the one in use.
        transaction: that it ends.
        line: the first line of its reply; empty where there is none.
    """

    __slots__ = ("arguments", "blocks", "frames", "hidden", "line", "number", "rows", "then", "transaction")

    def __init__(self, number: int, arguments: list[bytes], then: Callable[[_Pending], None]) -> None:
        self.number = number
        self.arguments = arguments
        self.then = then
        self.frames = 0
        self.blocks = self.hidden = False
        self.rows: Sequence[tuple[int | None, bytes]] = ()
        self.transaction: _Transaction | None = None
        self.line = b""

    @property
    def failed(self) -> bool:
        """Whether the reply is an error."""
        return self.line[:1] in (b"-", b"!")


class _Transaction:
    """What is between MULTI and EXEC: requests whose replies say no more than that they wait."""

    __slots__ = ("begun", "rows", "told")

    def __init__(self, begun: _Pending) -> None:
        self.begun = begun
        self.rows: list[tuple[int, int | None, bytes]] = []  # number, database (None: the one in use) and key
        self.told: list[tuple[int, list[bytes]]] = []  # number and arguments of what changes the connection


class _End(asyncio.Protocol):
    """One of the two ends of a connection, as asyncio tells of it."""

    def __init__(self) -> None:
        self.made: Callable[[], None] = _nothing
        self.came: Callable[[bytes], None] = _nothing
        self.gone: Callable[[], None] = _nothing
        self.full: Callable[[bool], None] = _nothing
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(_HIGH, _LOW)
        self.made()

    def data_received(self, data: bytes) -> None:
        self.came(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.transport = None
        self.gone()

    def pause_writing(self) -> None:
        self.full(True)

    def resume_writing(self) -> None:
        self.full(False)

    def send(self, data: bytes) -> None:
        if self.transport is not None:
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


async def _tell(end: _End, commands: list[tuple[bytes, int]], why: str) -> bytes:
    """Send commands, each with the number of its replies. Returns: what has come behind the last. Raises: OSError; TargetError."""
    done: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    replies = ReplyEnds()
    replies.subscribed = True
    left = sum(number for _, number in commands)

    def came(data: bytes) -> None:
        nonlocal left
        if done.done():
            return
        replies.feed(data)
        try:
            while left and replies.step():
                if not replies.pushed or replies.word.endswith(b"subscribe"):
                    left -= 1
                if replies.failed:
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
    end.send(b"".join(text for text, _ in commands))
    if not left:
        return b""
    return await done


async def exchange(upstream: Upstream, commands: list[tuple[bytes, int]]) -> None:
    """Send commands over a connection of their own, each with the number of its replies. Raises: OSError; TargetError."""
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
        context: what the server in use was told of the connection.
        upstream: that server; None while it is not open.
    """

    def __init__(self, proxy: Proxy) -> None:
        self._proxy = proxy
        self.client = _End()
        self.client.made, self.client.came = self._client_made, self._requests_came
        self.client.gone, self.client.full = self._client_gone, self._client_full
        self.context = ConnectionContext()
        self.upstream: Upstream | None = None
        self._server: _End | None = None
        self._other: tuple[Upstream, _End] | None = None  # opened beside it, for a switch
        self._spare: bytes | None = None  # what that has said after it was told all; None before
        self._stops = _OPENING  # why nothing is taken of the client
        self._is_paused = False
        self._is_gone = False
        self._requests = Requests(proxy.names)
        self._replies = ReplyEnds()
        self._held = b""  # of the client, not passed on
        self._withheld = b""  # of the server, perhaps not for the client
        self._pending: deque[_Pending] = deque()
        self._transaction: _Transaction | None = None
        self._watches = False
        self._silent_from: int | None = None  # while there are no replies: how many requests had one before
        self._skips = False  # the next request has no reply
        self._instead: bytes | None = None  # what is sent in place of the request at hand
        self._untracked: str | None = None  # why requests and replies cannot be told apart
        self._client_id = -1  # the server's number of this connection; -1 where it was not asked for, 0 where it is not known
        self._ended: _Pending | None = None  # a command that waited for data, and is ended for a switch
        self._again: list[bytes] | None = None  # the same, once it has ended without any

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
            except (OSError, TargetError) as e:
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
                await _tell(end, [(command(b"AUTH", *login), 1)], f"{upstream} does not let the proxy in")
            except BaseException:
                end.leave()
                raise
        return end

    def _use(self, upstream: Upstream, server: _End) -> None:
        """From now on this is the server."""
        self.upstream, self._server = upstream, server
        server.came, server.gone, server.full = self._replies_came, self._server_gone, self._server_full
        self._client_id = -1
        server.read(True)
        if server.transport is None:
            self._server_gone()

    def _client_gone(self) -> None:
        self._is_gone = True
        self._held = b""
        server = self._server
        waits = bool(self._pending) and any(each.blocks for each in self._pending)
        if server is None or server.transport is None or self._untracked or waits or self._is_answered():
            self._end()
        else:  # the server goes on with what it was sent
            server.read(True)
            asyncio.get_running_loop().call_later(_LINGER_S, self._end)

    def _server_gone(self) -> None:
        self._server = None
        self._mark_all()
        self.client.close()
        if self._is_gone:
            self._end()

    def _end(self) -> None:
        self._mark_all()
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
        if not self._stops and self._held:
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

    # -- requests

    def _requests_came(self, data: bytes) -> None:
        if self._held:
            data = self._held + data
            self._held = b""
        server = self._server
        if self._stops & (_OPENING | _PAUSED) or server is None:
            self._held = data
            return
        requests = self._requests
        if requests.broken:
            server.send(data)
            return
        begun = not requests.is_between()  # a request that was passed on by half
        requests.feed(data)
        requests.each = self._is_paused or self._skips
        pieces: list[bytes] = []
        sent = 0
        whole = False
        while (arguments := requests.take()) is not None:
            whole = True
            before = self._requested(arguments)
            if before or self._instead is not None:
                begin = max(0, requests.begin)
                pieces += (data[sent:begin], before)
                sent = begin
                if self._instead is not None:
                    pieces.append(self._instead)
                    sent = requests.end
                    self._instead = None
            requests.each = self._is_paused or self._skips
            if self._is_paused and self._is_movable():
                break
        stop = len(data)
        if self._requests.broken:
            if self._untracked is None:
                self._lose_track("what is no request")
        elif requests.end > 0 or not begun:
            end = requests.end
            if end < stop and (arguments is not None or stop - end <= LARGEST_KEPT):
                self._held = data[end:]  # what is no whole request waits here, so that a switch finds whole ones
                requests.rewind()
                stop = end
        if self._silent_from is not None or self._untracked is not None:
            self._mark_unanswered()
        if requests.left_out:
            requests.left_out = 0
            self._proxy.metrics.count("needs_sync", 1, "key-too-large")
        if pieces:
            pieces.append(data[sent:stop])
            server.send(b"".join(pieces))
        elif stop:
            server.send(data if stop == len(data) else data[:stop])
        if whole and self._is_paused and self._is_movable():
            self._stop(_PAUSED)

    def _requested(self, arguments: list[bytes]) -> bytes:
        """A request is passed on, without arguments where it is only counted. Returns: what goes before."""
        if not self._skips:
            return self._look_at(arguments) if arguments else b""
        self._skips = False
        if self._silent_from is None:
            self._silent_from = self._requests.count - 1
            before = self._look_at(arguments) if arguments else b""
            self._mark_unanswered()
            self._requests.count = self._silent_from
            self._silent_from = None
            return before
        return self._look_at(arguments) if arguments else b""

    def _look_at(self, arguments: list[bytes]) -> bytes:
        """What a request does. Returns: as `_requested`."""
        name = arguments[0].upper()
        if name in _SPECIAL:
            return self._special(name, arguments)
        keys, kind, elsewhere = TABLE.written(arguments)
        if kind in ("read", "other", "publish"):
            return b""
        if kind == "unknown":
            self._proxy.ask_about(self.context.db, arguments)
            return b""
        if kind in ("flush", "definition"):
            self._await(arguments, self._defined if kind == "definition" else self._flushed)
            return b""
        if any(key is LEFT_OUT for key in keys):
            self._proxy.metrics.count("needs_sync", 1, "key-too-large")
            keys = tuple(key for key in keys if key is not LEFT_OUT)
        number = self._requests.count - 1
        if self._transaction is not None:
            self._transaction.rows += [(number, None, key) for key in keys]
            self._transaction.rows += [(number, db, key) for db, key in elsewhere]
        elif kind == "write" and not elsewhere and name != b"MIGRATE":
            self._requests.at += [number] * len(keys)
            self._requests.keys += keys
        else:
            pending = self._await(arguments, self._tried if kind == "script" or name == b"MIGRATE" else self._wrote)
            pending.rows = (*((None, key) for key in keys), *elsewhere)
            if kind == "blocking-write":
                return self._before_waiting(pending)
            if self._silent_from is not None:
                self._mark(pending.rows)
        return b""

    def _await(self, arguments: list[bytes], then: Callable[[_Pending], None]) -> _Pending:
        pending = _Pending(self._requests.count - 1, arguments, then)
        if self._untracked is not None:
            return pending
        if self._silent_from is None:
            self._pending.append(pending)
        else:
            then(pending)  # nobody tells whether it succeeds
        return pending

    def _before_waiting(self, pending: _Pending) -> bytes:
        """Ahead of a command that waits, the server is asked for its number of this connection: by that it can be ended."""
        pending.blocks = True
        if self._client_id >= 0 or self._silent_from is not None or self._untracked is not None:
            return b""
        self._client_id = 0
        asked = _Pending(pending.number, [], self._numbered)
        asked.hidden = True
        self._pending.pop()
        pending.number += 1
        self._pending += (asked, pending)
        self._requests.count += 1
        return _CLIENT_ID

    def _special(self, name: bytes, arguments: list[bytes]) -> bytes:
        """A command that changes the connection, or what comes back on it. Returns: as `_requested`."""
        transaction = self._transaction
        if name in _STREAMS:
            self._lose_track(name.decode())
        elif name == b"RESET":
            self._transaction, self._watches = None, False
            self._await(arguments, self._told)
        elif name == b"MULTI":
            if transaction is None:
                self._transaction = _Transaction(self._await(arguments, self._began))
        elif name in (b"EXEC", b"DISCARD"):
            self._watches = False
            if transaction is not None:
                self._transaction = None
                self._end_transaction(transaction, arguments)
        elif name == b"WATCH":
            self._watches = True
        elif name == b"UNWATCH":
            self._watches = False
        elif transaction is not None:
            if name in _TOLD or name == b"CLIENT":
                transaction.told.append((self._requests.count - 1, arguments))
            elif name not in _WAIT:
                self._lose_track(f"{name.decode()} inside of MULTI")
        elif name in SUBSCRIBES or name in UNSUBSCRIBES:
            self._await(arguments, self._subscribed).frames = -1
        elif name in _WAIT:
            return self._before_waiting(self._await(arguments, _nothing))
        elif name == b"CLIENT":
            self._client_told(arguments)
        else:
            self._instead = self._proxy.other_login(self.upstream, arguments)
            self._await(arguments, self._told)
        return b""

    def _client_told(self, arguments: list[bytes]) -> None:
        """CLIENT, which says among others whether replies come at all."""
        requests = self._requests
        what = arguments[2].upper() if len(arguments) == 3 and arguments[1].upper() == b"REPLY" else b""
        if what == b"ON":
            if self._silent_from is not None:
                self._mark_unanswered()
                requests.count = self._silent_from + 1
                self._silent_from = None
            self._await(arguments, self._told)
        elif what == b"OFF":
            if self._silent_from is None:
                self._silent_from = requests.count - 1
            self._await(arguments, self._told)
        elif what == b"SKIP":
            if self._silent_from is None:
                requests.count -= 1
                self._skips = True
        elif len(arguments) > 2:
            self._await(arguments, self._told)

    def _end_transaction(self, transaction: _Transaction, arguments: list[bytes]) -> None:
        """EXEC or DISCARD is passed on."""
        requests = self._requests
        begin = bisect_left(requests.at, transaction.begun.number)
        transaction.rows += [(number, None, key) for number, key in zip(requests.at[begin:], requests.keys[begin:], strict=True)]
        transaction.rows.sort(key=lambda row: row[0])
        del requests.at[begin:], requests.keys[begin:]
        pending = _Pending(requests.count - 1, arguments, self._executed)
        pending.transaction = transaction
        if self._untracked is not None:
            self._mark([(db, key) for _, db, key in transaction.rows])
        elif self._silent_from is None:
            self._pending.append(pending)
        else:
            self._executed(pending)

    def _lose_track(self, why: str) -> None:
        """From here on nobody can tell which reply belongs to which request: what is written is marked when it is sent."""
        self._untracked = why
        self._mark_all()

    # -- replies

    def _replies_came(self, data: bytes) -> None:
        if self._untracked is None:
            try:
                data = self._pair(data)
            except CorruptError:
                self._lose_track("what is no reply")
        if data:
            self.client.send(data)
        if self._is_gone and self._is_answered():
            self._end()

    def _pair(self, data: bytes) -> bytes:
        """Find out which requests are answered. Returns: what is for the client. Raises: CorruptError."""
        replies, pending = self._replies, self._pending
        replies.feed(data)
        base = len(self._withheld)
        if base:
            data = self._withheld + data
            self._withheld = b""
        pieces: list[bytes] = []
        sent = 0
        stop = len(data)
        while True:
            first = pending[0] if pending else None
            replies.pass_to(_ALL if first is None else first.number)
            if first is None or replies.count < first.number:
                break
            begin = replies.end + base if replies.end > 0 else 0
            if not replies.step():
                if first.hidden or (first is self._ended and not replies.within):
                    stop = begin
                break
            if replies.pushed and not (first.frames and replies.word.upper() == first.arguments[0].upper()):
                continue
            first.line = replies.line
            if first.frames < 0:
                first.frames = self.context.frames(first.arguments)
            if first.frames > 1 and not first.failed:
                first.frames -= 1
                replies.count = first.number
                continue
            replies.count = first.number + 1
            pending.popleft()
            self._mark_answered(first.number)
            if first is self._ended:
                self._ended = None
                if replies.line in _NIL:
                    first.hidden = True
                    self._again = first.arguments
            first.then(first)
            if first.hidden:
                end = replies.end + base
                pieces.append(data[sent:begin])
                sent = end
            if self._untracked is not None:
                break
        self._mark_answered(replies.count)
        if stop < len(data):
            self._withheld = data[stop:]
        if pieces or stop < len(data):
            pieces.append(data[sent:stop])
            return b"".join(pieces)
        return data

    def _is_answered(self) -> bool:
        asked = self._requests.count if self._silent_from is None else self._silent_from
        return self._replies.count >= asked

    # each of these is called when the reply to its request has come

    def _told(self, pending: _Pending) -> None:
        if not pending.failed:
            self.context.told(pending.arguments)
            self._replies.subscribed = self.context.is_subscribed and self.context.protocol == 2

    def _subscribed(self, pending: _Pending) -> None:
        self._told(pending)

    def _numbered(self, pending: _Pending) -> None:
        text = pending.line[1:]
        self._client_id = int(text) if pending.line[:1] == b":" and text.isdigit() else 0

    def _wrote(self, pending: _Pending) -> None:
        if not pending.failed:
            self._mark(pending.rows)

    def _tried(self, pending: _Pending) -> None:
        """It may have written before it has failed."""
        self._mark(pending.rows)

    def _flushed(self, pending: _Pending) -> None:
        if not pending.failed:
            self._proxy.metrics.count("needs_sync", 1, "flush")

    def _defined(self, pending: _Pending) -> None:
        if not pending.failed:
            self._proxy.define(pending.arguments)

    def _began(self, pending: _Pending) -> None:
        """MULTI is answered; where it failed, what follows is done one by one."""
        transaction = self._transaction
        if pending.failed and transaction is not None and transaction.begun is pending:
            self._transaction = None
            requests = self._requests
            rows = [
                *zip(requests.at, requests.keys, strict=True),
                *((number, key) for number, db, key in transaction.rows if db is None),
            ]
            rows.sort(key=lambda row: row[0])
            requests.at = [number for number, _ in rows]
            requests.keys = [key for _, key in rows]
            self._mark([(db, key) for _, db, key in transaction.rows if db is not None])

    def _executed(self, pending: _Pending) -> None:
        """EXEC or DISCARD is answered."""
        transaction = pending.transaction
        assert transaction is not None
        done = pending.arguments[0].upper() == b"EXEC" and not pending.failed and pending.line not in _NIL
        if not done and not transaction.begun.failed:
            return
        told = list(transaction.told)
        for number, db, key in transaction.rows:
            while told and told[0][0] < number:
                self.context.told(told.pop(0)[1])
            self._mark([(db, key)])
        for _, arguments in told:
            self.context.told(arguments)

    # -- marks

    def _mark(self, rows: Sequence[tuple[int | None, bytes]]) -> None:
        marks = self._proxy.marks
        if marks is not None:
            for db, key in rows:
                marks.add(self.context.db if db is None else db, key)

    def _mark_answered(self, number: int) -> None:
        """Mark what was written by requests whose replies have come, up to that number; errors have written nothing."""
        requests, failed = self._requests, self._replies.failed
        if self._transaction is not None and number > self._transaction.begun.number:
            number = self._transaction.begun.number
        at = requests.at
        if at and at[0] < number:
            n = bisect_left(at, number)
            keys = requests.keys[:n]
            if failed:
                errors = set(failed)
                keys = [key for each, key in zip(at, keys, strict=False) if each not in errors]
            marks = self._proxy.marks
            if marks is not None:
                marks.add_many(self.context.db, keys)
            del at[:n], requests.keys[:n]
        if failed and not (at and at[0] <= failed[-1]):
            failed.clear()

    def _mark_unanswered(self) -> None:
        """Mark what was written by requests that have no reply."""
        requests = self._requests
        n = 0 if self._silent_from is None else bisect_left(requests.at, self._silent_from)
        if n < len(requests.at):
            self._mark([(None, key) for key in requests.keys[n:]])
            del requests.at[n:], requests.keys[n:]

    def _mark_all(self) -> None:
        """Mark whatever may have been written: nobody tells any more."""
        rows: list[tuple[int | None, bytes]] = [(None, key) for key in self._requests.keys]
        transactions = [self._transaction]
        dbs = {self.context.db}
        for pending in self._pending:
            rows += pending.rows
            transactions.append(pending.transaction)
            if len(pending.arguments) == 2 and pending.arguments[0].upper() == b"SELECT" and pending.arguments[1].isdigit():
                dbs.add(int(pending.arguments[1]))
        for transaction in transactions:
            if transaction is not None:
                rows += [(db, key) for _, db, key in transaction.rows]
                dbs.update(int(told[1]) for _, told in transaction.told if told[0].upper() == b"SELECT" and told[1].isdigit())
        for db in dbs:
            self._mark([(db if each is None else each, key) for each, key in rows])
        self._requests.at.clear()
        self._requests.keys.clear()
        self._pending.clear()

    # -- a switch

    def pause(self) -> None:
        """Take no more of the client than it needs to come to a place where it can be moved: no half request, no transaction."""
        self._is_paused = True
        if self._is_movable():
            self._stop(_PAUSED)

    def _resume(self) -> None:
        self._is_paused = False
        self._go_on(_PAUSED)

    def _is_movable(self) -> bool:
        return self._transaction is None and not self._watches and self._requests.is_between()

    def waiting(self) -> Waiting | None:
        """Why it cannot be moved at this moment; None where it can. Without `pause` it may change at any time."""
        if self._server is None:
            return None
        if not self._requests.is_between():
            return None if self._is_gone else "request"
        if not self._is_answered():
            first = self._pending[0] if self._pending else None
            return "blocked" if first is not None and first.blocks and first.number == self._replies.count else "reply"
        if self._transaction is not None or self._watches:
            return None if self._is_gone else "transaction"
        return None

    def fixed(self) -> str | None:
        """Why it can never be moved, as "MONITOR"; None where it can."""
        return "CLIENT TRACKING with REDIRECT" if self.context.redirects else self._untracked

    def unblock(self) -> int | None:
        """The CLIENT ID of a command that is "blocked"; None where it is not known.

        CLIENT UNBLOCK follows. Where the answer is that nothing came, the client is not told: the command is sent again by `commit`
        or `undo`.
        """
        first = self._pending[0] if self._pending else None
        if first is None or not first.blocks or self._client_id <= 0 or first.number != self._requests.count - 1:
            return None
        if LEFT_OUT in first.arguments:
            return None
        self._ended = first
        return self._client_id

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
        spare = await _tell(end, commands, f"{upstream} refuses what a connection needs")
        self._spare = spare

    def commit(self) -> None:
        """Go on with the connection that was prepared. Never raises."""
        if self._server is None:
            return
        if self._other is None or self._spare is None:
            self._reopen()
        else:
            upstream, end = self._other
            self._server.leave()
            self._replies = ReplyEnds()
            self._replies.count = self._requests.count if self._silent_from is None else self._silent_from
            self._replies.subscribed = self.context.is_subscribed and self.context.protocol == 2
            spare, self._other, self._spare = self._spare, None, None
            if self.context.is_tracking and self.context.protocol == 3:
                self.client.send(_ALL_INVALID)
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
        self._ended = None
        arguments, self._again = self._again, None
        if arguments is None or self._server is None:
            return
        self._requests.count += 1
        before = self._look_at(arguments)
        self._server.send(before + command(*arguments))

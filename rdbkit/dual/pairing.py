"""Which reply belongs to which request of a connection, and what was written by those that have succeeded.

Requests and replies are only counted, but for the few that change what the connection is, or what comes back on it. A write is
marked when its reply has come and is no error; and where nobody can tell whether it has succeeded. Nothing here waits: bytes come,
and bytes go.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

from rdbkit.dual.connection_context import SUBSCRIBES, UNSUBSCRIBES, ConnectionContext
from rdbkit.errors import CorruptError
from rdbkit.format.reply_ends import ReplyEnds
from rdbkit.format.requests import LARGEST_KEPT, LEFT_OUT, ONE_KEY, PASSED, WANTED, Requests
from rdbkit.resp import command
from rdbkit.targets.keyspecs import TABLE

__all__ = ["Pairing", "Told", "request_names"]

#: More replies than there will ever be.
_ALL: Final = 1 << 60
_NIL: Final = (b"*-1", b"$-1", b"_")
#: Writes without a reply that are remembered until a later reply comes; those before them were done long ago.
_MOST_UNPROVED: Final = 10_000
#: Commands that change the connection.
_TOLD: Final = (b"AUTH", b"HELLO", b"SELECT", b"RESET")
_TRANSACTIONS: Final = (b"MULTI", b"EXEC", b"DISCARD", b"WATCH", b"UNWATCH")
#: What follows is asked for by nobody, one by one.
_STREAMS: Final = (b"MONITOR", b"SYNC", b"PSYNC")
#: These may wait, though they write nothing.
_WAIT: Final = (b"XREAD", b"WAIT", b"WAITAOF")
_SPECIAL: Final = frozenset((*_TOLD, *_TRANSACTIONS, *_STREAMS, *_WAIT, *SUBSCRIBES, *UNSUBSCRIBES, b"CLIENT"))
#: What is answered to PING but never to AUTH.
_PINGED: Final = (b"+PONG", b"-NOAUTH", b"-NOPERM", b"-MISCONF")
_CLIENT_ID: Final = command(b"CLIENT", b"ID")
_PING: Final = command(b"PING")
_REPLY_ON: Final = command(b"CLIENT", b"REPLY", b"ON")
_REPLY_OFF: Final = command(b"CLIENT", b"REPLY", b"OFF")


def request_names() -> dict[bytes, int]:
    """What names of commands mean to `Requests`."""
    names = {name: PASSED if at == 0 else ONE_KEY if at == 1 else WANTED for name, at in TABLE.only_keys().items()}
    return {name: what for name, what in names.items() if name.upper() not in _SPECIAL}


class Told(Protocol):
    """Who is told of what was found in a connection."""

    def mark(self, db: int, keys: Iterable[bytes]) -> None:
        """These keys were written."""

    def lacks(self, why: str) -> None:
        """Something was written of which no key can be marked."""

    def ask_about(self, db: int, arguments: list[bytes]) -> None:
        """A command came that nobody knows."""

    def define(self, arguments: list[bytes]) -> None:
        """Scripts or functions were defined or deleted."""

    def other_login(self, arguments: list[bytes]) -> bytes | None:
        """What is sent in place of AUTH or HELLO; None for as it is."""


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
        unanswered: it has no reply; its turn is when `number` replies have come.
        guarded: PING follows it, since Redis 8.0 does not answer every AUTH.
    """

    __slots__ = (
        "arguments",
        "blocks",
        "frames",
        "guarded",
        "hidden",
        "line",
        "number",
        "rows",
        "then",
        "transaction",
        "unanswered",
    )

    def __init__(self, number: int, arguments: list[bytes], then: Callable[[_Pending], None]) -> None:
        self.number = number
        self.arguments = arguments
        self.then = then
        self.frames = 0
        self.blocks = self.guarded = self.hidden = self.unanswered = False
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


def _pass(_: _Pending) -> None:
    """Nothing has to be done."""


def _nothing() -> None:
    """Nobody waits for it."""


class Pairing:
    """The requests and replies of one connection.

    Args:
        names: as `request_names` gives them.
        told: who is told of what was found.

    Attributes:
        context: what the server was told of the connection.
        stops: take no more requests than lead to a place where the connection can be moved; the rest is held.
        held: what was held of the client's bytes: half a request, or what came after such a place.
        untracked: why requests and replies cannot be told apart from here on; None where they can.

    Example:
        server.write(pairing.requests(data))
        client.write(pairing.replies(answer))
    """

    def __init__(self, names: dict[bytes, int], told: Told) -> None:
        self.context = ConnectionContext()
        self.stops = False
        self.held = b""
        self.untracked: str | None = None
        self._dbs: set[int] = set()  # that may be in use, once untracked
        self._to = told
        self._requests = Requests(names)
        self._replies = ReplyEnds()
        self._withheld = b""  # of the server, perhaps not for the client
        self._pending: deque[_Pending] = deque()
        self._unproved: deque[tuple[int, int, bytes]] = deque(maxlen=_MOST_UNPROVED)  # number, database and key
        self._settling: int | None = None  # the number of the request without a reply whose turn it is
        self._transaction: _Transaction | None = None
        self._watches = False
        self._silent_from: int | None = None  # while there are no replies: how many requests had one before
        self._skips = False  # the next request has no reply
        self._unheard = False  # whether requests were sent since that have none
        self._speaks = False  # whether replies come for a moment, though the client wants none
        self._instead: bytes | None = None  # what is sent in place of the request at hand
        self._behind = b""  # what is sent after it
        self._client_id = -1  # the server's number of this connection; -1 where it was not asked for, 0 where it is not known
        self._ended: _Pending | None = None  # a command that waited for data, and is ended for a switch
        self._again: list[bytes] | None = None  # the same, once it has ended without any

    # -- how it stands

    @property
    def is_answered(self) -> bool:
        """Whether all replies have come."""
        return self._replies.count >= (self._requests.count if self._silent_from is None else self._silent_from)

    @property
    def is_in_transaction(self) -> bool:
        """Whether MULTI was sent, or WATCH, and the end of the transaction was not."""
        return self._transaction is not None or self._watches

    @property
    def is_movable(self) -> bool:
        """Whether another server may be sent what follows."""
        return not self.is_in_transaction and self._requests.is_between()

    @property
    def waits_for_data(self) -> bool:
        """Whether a command was sent that may wait for data."""
        return any(each.blocks for each in self._pending)

    @property
    def is_blocked(self) -> bool:
        """Whether the command whose reply comes next may wait for data."""
        return bool(self._pending) and self._pending[0].blocks and self._pending[0].number == self._replies.count

    # -- requests

    def requests(self, data: bytes) -> bytes:
        """More of the client's bytes have come. Returns: what is for the server."""
        if self.held:
            data = self.held + data
            self.held = b""
        requests = self._requests
        if requests.broken:
            return data
        begun = not requests.is_between()
        requests.feed(data)
        requests.each = self.stops or self._skips
        pieces: list[bytes] = []
        sent = 0
        while (arguments := requests.take()) is not None:
            before = self._requested(arguments)
            if before or self._behind or self._instead is not None:
                begin = max(0, requests.begin)
                pieces += (data[sent:begin], before)
                sent = begin
                if self._instead is not None:
                    pieces.append(self._instead)
                    sent = requests.end
                    self._instead = None
                elif self._behind:
                    pieces.append(data[sent : requests.end])
                    sent = requests.end
                pieces.append(self._behind)
                self._behind = b""
            requests.each = self.stops or self._skips
            if self.stops and self.is_movable:
                break
        stop = len(data)
        if self._requests.broken:
            if self.untracked is None:
                self.lose_track("what is no request")
        elif requests.end > 0 or not begun:
            end = requests.end
            if end < stop and (arguments is not None or stop - end <= LARGEST_KEPT):
                self.held = data[end:]  # what is no whole request waits here, so that another server gets it whole
                requests.rewind()
                stop = end
        if self._silent_from is not None or self.untracked is not None:
            self._mark_unanswered()
        if requests.left_out:
            requests.left_out = 0
            self._to.lacks("key-too-large")
        if pieces:
            pieces.append(data[sent:stop])
            return b"".join(pieces)
        return data if stop == len(data) else data[:stop]

    def _requested(self, arguments: list[bytes]) -> bytes:
        """A request is passed on, without arguments where it is only counted. Returns: what goes before."""
        if not self._skips:
            return self._look_at(arguments) if arguments else b""
        self._skips = False
        if self._silent_from is not None:
            return self._look_at(arguments) if arguments else b""
        self._silent_from = self._requests.count - 1
        before = self._look_at(arguments) if arguments else b""
        self._mark_unanswered()
        self._requests.count = self._silent_from
        self._silent_from = None
        return before

    def _look_at(self, arguments: list[bytes]) -> bytes:
        """What a request does. Returns: as `_requested`."""
        name = arguments[0].upper()
        if self._silent_from is not None:
            self._mark_unanswered()
        if name in _SPECIAL:
            return self._special(name, arguments)
        keys, kind, elsewhere = TABLE.written(arguments)
        if kind in ("read", "other", "publish"):
            return b""
        if kind in ("unknown", "flush", "definition"):
            if self._transaction is not None:
                self._transaction.told.append((self._requests.count - 1, arguments))
            elif self.untracked is not None:
                self._look_back(arguments)
            else:
                self._await(arguments, self._done)
            return b""
        if any(key is LEFT_OUT for key in keys):
            self._to.lacks("key-too-large")
            keys = tuple(key for key in keys if key is not LEFT_OUT)
        number = self._requests.count - 1
        if self._transaction is not None:
            self._transaction.rows += [(number, None, key) for key in keys]
            self._transaction.rows += [(number, db, key) for db, key in elsewhere]
        elif kind == "write" and not elsewhere and name != b"MIGRATE":
            self._requests.at += [number] * len(keys)
            self._requests.keys += keys
        else:
            tried = kind == "script" or name == b"MIGRATE"
            pending = self._await(arguments[:1] if tried else arguments, self._tried if tried else self._wrote)
            pending.rows = (*((None, key) for key in keys), *elsewhere)
            if self.untracked is not None:
                self._mark(pending.rows)
            if kind == "blocking-write":
                return self._before_waiting(pending)
        return b""

    def _await(self, arguments: list[bytes], then: Callable[[_Pending], None]) -> _Pending:
        pending = _Pending(self._requests.count - 1, arguments, then)
        if self.untracked is None:
            self._add(pending)
        return pending

    def _add(self, pending: _Pending) -> None:
        if self._silent_from is not None:  # nobody tells whether it succeeds
            pending.unanswered = self._unheard = True
            pending.number = self._silent_from
        self._pending.append(pending)

    def _before_waiting(self, pending: _Pending) -> bytes:
        """Ahead of a command that waits, the server is asked for its number of this connection: by that it can be ended."""
        pending.blocks = True
        if self._client_id >= 0 or self._silent_from is not None or self.untracked is not None:
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
            self.lose_track(name.decode())
        elif name == b"RESET":
            if transaction is not None:
                self._mark([(db, key) for _, db, key in transaction.rows])
            self._transaction, self._watches = None, False
            self._await(arguments, self._told)
        elif name == b"MULTI":
            if transaction is None:
                self._transaction = _Transaction(self._await(arguments, self._began))
        elif name in (b"EXEC", b"DISCARD"):
            if transaction is not None:
                self._transaction, self._watches = None, False
                self._end_transaction(transaction, arguments)
        elif name == b"WATCH":
            self._watches = True
        elif name == b"UNWATCH":
            self._watches = False
        elif self.untracked is not None:
            if name == b"SELECT" and len(arguments) == 2 and arguments[1].isdigit():
                self._dbs.add(int(arguments[1]))  # nobody tells whether it succeeds
        elif transaction is not None:
            if name in _TOLD or name == b"CLIENT":
                transaction.told.append((self._requests.count - 1, arguments))
            elif name not in _WAIT:
                self.lose_track(f"{name.decode()} inside of MULTI")
        elif name in SUBSCRIBES or name in UNSUBSCRIBES:
            self._await(arguments, self._told).frames = -1
        elif name in _WAIT:
            return self._before_waiting(self._await(arguments, _pass))
        elif name == b"CLIENT":
            self._client_told(arguments)
        else:
            self._instead = self._to.other_login(arguments)
            pending = self._await(arguments, self._told)
            if name == b"AUTH" or len(arguments) > 2:
                self._behind = self._guard(pending)
        return b""

    def _guard(self, login: _Pending) -> bytes:
        """Redis 8.0.6 does not answer a login that it refuses while it has replies to send. Returns: what shows whether it did."""
        if self._silent_from is not None or self._replies.count >= login.number:
            return b""
        login.guarded = True
        return self._ask(_PING, _nothing)

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
        if self.untracked is not None:
            self._executed(pending)
        else:
            self._add(pending)

    def lose_track(self, why: str) -> None:
        """From here on nobody can tell which reply belongs to which request: what is written is marked when it is sent."""
        self._dbs = self.mark_all()
        self.untracked = why

    # -- replies

    def replies(self, data: bytes) -> bytes:
        """More of the server's bytes have come. Returns: what is for the client."""
        withheld = self._withheld
        if self.untracked is None:
            try:
                return self._pair(data)
            except CorruptError:
                self.lose_track("what is no reply")
        self._withheld = b""
        return withheld + data

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
            if first is not None and first.unanswered and replies.count >= first.number:
                self._settle(first)
                continue
            replies.pass_to(_ALL if first is None else first.number)
            if first is None or replies.count < first.number:
                break
            if first.unanswered:
                continue
            begin = replies.end + base if replies.end > 0 else 0
            if not replies.step():
                if first.hidden or first.guarded or (first is self._ended and not replies.within):
                    stop = begin
                break
            if replies.pushed and not (first.frames and replies.word.upper() == first.arguments[0].upper()):
                continue
            if first.guarded and replies.line.startswith(_PINGED):
                pending.popleft()
                first = pending[0]
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
            if self.untracked is not None:
                break
        self._mark_answered(replies.count)
        if self._unproved:
            self._mark_proved()
        if stop < len(data):
            self._withheld = data[stop:]
        if pieces or stop < len(data):
            pieces.append(data[sent:stop])
            return b"".join(pieces)
        return data

    # each of these is called when the reply to its request has come

    def _told(self, pending: _Pending) -> None:
        if not pending.failed:
            self.context.told(pending.arguments)
            self._heed_messages()

    def _heed_messages(self) -> None:
        self._replies.subscribed = self.context.is_subscribed and self.context.protocol == 2

    def _numbered(self, pending: _Pending) -> None:
        text = pending.line[1:]
        self._client_id = int(text) if pending.line[:1] == b":" and text.isdigit() else 0

    def _wrote(self, pending: _Pending) -> None:
        nothing_came = pending.blocks and pending.line in _NIL
        if not pending.failed and (not nothing_came or pending.arguments[0].upper() == b"XREADGROUP"):  # it has made its consumer
            self._mark(pending.rows)

    def _tried(self, pending: _Pending) -> None:
        """It may have written before it has failed."""
        self._mark(pending.rows)

    def _done(self, pending: _Pending) -> None:
        if not pending.failed:
            self._look_back(pending.arguments)

    def _look_back(self, arguments: list[bytes]) -> None:
        """What a request has done that is no write of known keys."""
        match TABLE.written(arguments).kind:
            case "unknown":
                self._to.ask_about(self.context.db, arguments)
            case "flush":
                self._to.lacks("flush")
            case "definition":
                self._to.define(arguments)
            case _:
                self.context.told(arguments)

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
                self._look_back(told.pop(0)[1])
            self._mark([(db, key)])
        for _, arguments in told:
            self._look_back(arguments)

    # -- marks

    def _mark(self, rows: Sequence[tuple[int | None, bytes]]) -> None:
        for db, key in rows:
            for each in (db,) if db is not None else self._dbs or (self.context.db,):
                self._to.mark(each, (key,))
                if self._settling is not None:
                    self._unproved.append((self._settling, each, key))

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
            self._to.mark(self.context.db, keys)
            del at[:n], requests.keys[:n]
        if failed and not (at and at[0] <= failed[-1]):
            failed.clear()

    def _mark_unanswered(self) -> None:
        """Mark what was written by requests that have no reply."""
        requests = self._requests
        n = 0 if self._silent_from is None else bisect_left(requests.at, self._silent_from)
        if n < len(requests.at) and self._transaction is None:
            rows = [(None, key) for key in requests.keys[n:]]
            del requests.at[n:], requests.keys[n:]
            if self.untracked is not None:
                self._mark(rows)
            else:
                pending = self._await([], self._tried)
                pending.rows = rows
        while self._pending and self._pending[0].unanswered and self._pending[0].number <= self._replies.count:
            self._settle(self._pending[0])

    def _settle(self, first: _Pending) -> None:
        """It is the turn of a request that has no reply."""
        self._pending.popleft()
        self._mark_answered(first.number)
        self._settling = first.number
        first.then(first)
        self._settling = None

    def _mark_proved(self) -> None:
        """Mark again what requests without a reply have written, once a later reply tells that they are done.

        When they were marked first, the server may not have had them yet.
        """
        unproved = self._unproved
        while unproved and unproved[0][0] < self._replies.count:
            _, db, key = unproved.popleft()
            self._to.mark(db, (key,))

    def mark_all(self) -> set[int]:
        """Mark whatever may have been written: nobody tells any more. Returns: the databases that may be in use."""
        rows: list[tuple[int | None, bytes]] = [(None, key) for key in self._requests.keys]
        transactions = [self._transaction]
        dbs = {self.context.db}
        for pending in self._pending:
            if pending.then == self._done:
                pending.then(pending)
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
        return dbs

    # -- what the client does not ask for

    def log_in(self, *login: bytes) -> bytes:
        """AUTH of our own, as `ask`."""
        request = self.ask(command(b"AUTH", *login), _nothing)
        return request and request + self._guard(self._pending[-1])

    def ask(self, request: bytes, then: Callable[[], None]) -> bytes:
        """A request of our own, whose reply the client does not get.

        Args:
            request: whole.
            then: called when its reply is there.

        Returns: what is for the server; nothing where this cannot be asked now: in a transaction, or where no replies come.
        """
        if self.untracked is not None or self._silent_from is not None or self._skips or not self.is_movable:
            return b""
        return self._ask(request, then)

    def _ask(self, request: bytes, then: Callable[[], None]) -> bytes:
        pending = _Pending(self._requests.count, [], lambda _: then())
        pending.hidden = True
        self._requests.count += 1
        self._pending.append(pending)
        return request

    def unblock(self) -> int | None:
        """The server's number of this connection, to end the command that waits for data; None where it cannot be ended.

        Where it ends without any, the client is not told: it is sent `again`.
        """
        first = self._pending[0] if self._pending else None
        if first is None or not first.blocks or self._client_id <= 0 or first.number != self._requests.count - 1:
            return None
        if LEFT_OUT in first.arguments:
            return None
        self._ended = first
        return self._client_id

    def hear(self) -> bytes:
        """Ahead of a switch, where `is_movable`: what has the server answer once it has done all it was sent, replies or not."""
        if self.untracked is not None or not (self._unheard or self._silent_from is not None):
            return b""
        self._unheard = False
        if self._silent_from is None:
            return self._ask(_PING, _nothing)
        self._mark_unanswered()
        self._requests.count = self._silent_from
        self._silent_from = None
        self._speaks = True
        return self._ask(_REPLY_ON, _nothing)

    def hush(self) -> bytes:
        """The switch is over, or undone: what has the server answer no more, where it did not before."""
        if not self._speaks:
            return b""
        self._speaks = False
        self._silent_from = self._requests.count
        return _REPLY_OFF

    def moved(self) -> None:
        """Another server has been told the context; all replies of the one before have come."""
        self._replies = ReplyEnds()
        self._replies.count = self._requests.count
        self._heed_messages()
        self._client_id = -1

    def again(self) -> bytes:
        """The command that waited for data and was ended, for the server."""
        self._ended = None
        arguments, self._again = self._again, None
        if arguments is None:
            return b""
        self._requests.count += 1
        return self._look_at(arguments) + command(*arguments)

"""One connection to one node: the package redis opens it (TCP, TLS, AUTH), and from then on bytes go over its socket.

It is never opened again by itself: what was asked before, the database and what was switched on are gone with it, and only who uses
it knows what to do then.
"""

from __future__ import annotations

import select
import selectors
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from rdbkit.errors import CorruptError, TargetError
from rdbkit.format.replies import NOTHING, Refusal, Replies
from rdbkit.live.login import CurrentLogin, missing_package
from rdbkit.live.server_url import ServerUrl
from rdbkit.resp import command
from rdbkit.text import first_line

__all__ = ["Address", "Connection", "Lost", "Opener", "Refused", "denied"]

Address: TypeAlias = tuple[str, int]
#: Why a connection is lost; see `Lost`.
Why: TypeAlias = Literal["unreachable", "closed", "late", "full", "foreign"]

_CONNECT_S: Final = 15.0
#: A server that does not speak TLS waits for the end of what it takes for a command, and says nothing.
_HANDSHAKE_S: Final = 10.0
#: It has been said by then, where the connection was closed for it.
_ALERT_S: Final = 1.0
#: As much as one record of TLS has at most.
_TLS_RECORD: Final = 1 << 14
#: OpenSSL's numbers for a certificate that is sound but has another name.
_OTHER_NAME: Final = (62, 64)
_FULL: Final = "max number of clients reached"
_IN: Final = selectors.EVENT_READ
_OUT: Final = selectors.EVENT_WRITE


class Lost(Exception):
    """The connection broke, is late, or cannot be opened. It never leaves `live`.

    Attributes:
        why: "unreachable" (it could not be opened), "closed" (by the other side), "late", "full" (the server has as many clients
            as it takes), or "foreign" (what answers is no server of Redis).
    """

    def __init__(self, text: str, why: Why) -> None:
        super().__init__(text)
        self.why = why


class Refused(Exception):
    """A node refuses what cannot be done without. It never leaves `live`."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


@dataclass
class Opener:
    """What connections to all nodes of a server have in common.

    Attributes:
        url: what was given: the name in errors, and its host one for certificates, as in Azure, whose nodes go by their IP.
        tls: None for connections without.
        login: who asks.
        patience_s: how long a connection waits for a reply; None for as long as it takes.
        first: commands that each connection begins with.
    """

    url: ServerUrl
    tls: ssl.SSLContext | None
    login: CurrentLogin
    patience_s: float | None = 60.0
    first: tuple[bytes, ...] = ()


class Connection:
    """A connection to a node, for one thread at a time.

    Bytes that are sent and received are the caller's affair; `ask` is for commands whose replies are wanted as objects. After an
    exception with replies still to come the connection is closed.

    Attributes:
        address: host and port.
        patience_s: how long a reply is waited for, in seconds; None for as long as it takes.

    Example:
        connection.open()
        connection.ask(command(b"PING"))  # [b"PONG"]
    """

    def __init__(self, address: Address, opener: Opener) -> None:
        self.address = address
        self.patience_s = opener.patience_s
        self._opener = opener
        self._link: Any = None
        self._socket: socket.socket | None = None
        self._login: tuple[str | None, str] | None = None
        self._db = self._db_before = 0
        self._came: list[bytes] = []
        self._replies = Replies()
        self._waiting = 0
        self._before: list[str] = []  # what goes ahead of the commands: AUTH, SELECT

    def __str__(self) -> str:
        return f"{self.address[0]}:{self.address[1]}"

    # -- open and closed

    @property
    def is_open(self) -> bool:
        """Whether it was opened, and did not break since."""
        return self._socket is not None

    def open(self) -> None:
        """Connect and log in, where that is not done.

        Raises: Lost; TargetError where the user is not let in or the certificate not trusted.
        """
        if self._socket is not None:
            return
        self._login = self._opener.login.current
        self._link, opened = _open(self.address, self._opener, self._login)
        opened.setblocking(False)
        self._socket = opened
        self._db = 0
        self._came, self._replies = [], Replies()
        if self._opener.first:
            self.ask(*self._opener.first)

    def close(self) -> None:
        """Close it where it is open."""
        self._socket = None
        if self._link is not None:
            self._link.disconnect()
            self._link = None

    def fileno(self) -> int:
        """The number of its socket, for `select`; see also `ready`. Raises: Lost where it is closed."""
        return self._opened().fileno()

    # -- bytes

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it.

        What comes meanwhile is taken in, since a server or proxy that cannot get rid of its replies takes no more commands.
        Raises: Lost.
        """
        sock = self._opened()
        view = memoryview(data).cast("B")
        while view:
            try:
                view = view[sock.send(view) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                if self._wait(_IN | _OUT) & _IN and (came := self._recv(_TLS_RECORD)):
                    self._came.append(came)
            except ssl.SSLWantReadError:
                self._wait(_IN)
            except OSError as e:
                self._recv(_TLS_RECORD)  # why it was closed, if the other side said so
                raise self._lost(e) from None

    def receive(self, most: int = 1 << 20) -> bytes:
        """What has come, at least one byte, and about as many as `most`; waits for it. Raises: Lost at the end, and when late."""
        if not self._replies.is_between():
            return self._replies.rest()  # behind the last reply that was asked for
        return self._receive(most)

    def ready(self, wait_s: float) -> bool:
        """Whether `receive` would give something at once; waits for it up to this number of seconds. Raises: Lost."""
        sock = self._opened()
        if self._came or not self._replies.is_between() or (isinstance(sock, ssl.SSLSocket) and sock.pending()):
            return True
        return bool(_select(sock, _IN, wait_s))

    def _receive(self, most: int) -> bytes:
        if self._came:
            came = b"".join(self._came)
            self._came.clear()
            return came
        while not (came := self._recv(most)):
            self._wait(_IN)
        return came

    def _recv(self, most: int) -> bytes:
        """What has come; nothing where that is nothing. Raises: Lost at the end."""
        sock = self._opened()
        try:
            came = _decrypted(sock, most) if isinstance(sock, ssl.SSLSocket) else sock.recv(most)
        except (BlockingIOError, ssl.SSLWantReadError):
            return b""
        except ssl.SSLWantWriteError:
            self._wait(_OUT)
            return b""
        except OSError as e:
            raise self._lost(e) from None
        if not came:
            raise self._lost(None)
        return came

    def _wait(self, events: int) -> int:
        """Which of these events has come. Raises: Lost where none comes."""
        found = _select(self._opened(), events, self.patience_s)
        if not found:
            self.close()
            raise Lost(f"no reply from {self} in {self.patience_s:g} s", "late")
        return found

    def _opened(self) -> socket.socket:
        if self._socket is None:
            raise Lost(f"the connection to {self} is closed", "closed")
        return self._socket

    def _lost(self, e: OSError | None) -> Lost | TargetError:
        self.close()
        if isinstance(e, ssl.SSLError) and (refused := _refused_certificate(e)) is not None:
            return TargetError(refused, source=str(self._opener.url))
        if e is None or isinstance(e, ConnectionError | ssl.SSLEOFError):
            return Lost(f"{self} closed the connection", "closed")
        return Lost(f"{self}: {first_line(e)}", "closed")

    # -- commands

    def ask(self, *commands: bytes) -> list[Any]:
        """The replies to commands that are sent at once, errors among them. Raises: Lost; TargetError as `open`."""
        self.put(commands, self._db)
        return self.take()

    def ask_packed(self, commands: bytes, count: int) -> list[Any]:
        """As `ask`, of so many commands in one piece."""
        self.put([commands], self._db)
        self._waiting = count
        return self.take()

    def put(self, commands: Sequence[bytes], db: int = 0) -> None:
        """Send commands about keys of a database, of which `take` gives the replies. Raises: as `ask`."""
        self._before = []
        before = b""
        if again := self.new_login():
            self._before.append("AUTH")
            before = again
        if db != self._db:
            self._before.append("SELECT")
            before += command(b"SELECT", b"%d" % db)
        self._db_before, self._db = self._db, db
        self._waiting = len(commands)
        try:
            self.send(b"".join([before, *commands]))
        except BaseException:
            self.close()
            raise

    def take(self) -> list[Any]:
        """The replies to what was `put`. Raises: as `ask`."""
        try:
            before = [self._read() for _ in self._before]
            replies = [self._read() for _ in range(self._waiting)]
        except BaseException:
            self.close()
            raise
        for sent, reply in zip(self._before, before, strict=True):
            if isinstance(reply, Refusal) and sent == "AUTH":
                self.close()
                raise self._opener.login.refused(str(reply), str(self._opener.url))
            if isinstance(reply, Refusal):
                self._db = self._db_before
                return [reply] * len(replies)  # they are about another database
        return replies

    def select(self, db: int) -> None:
        """Go to a database, where it is in another. Raises: Lost; Refused where it may not."""
        if db == self._db:
            return
        (reply,) = self.ask(command(b"SELECT", b"%d" % db))
        if isinstance(reply, Refusal):
            raise Refused(reply)
        self._db = db

    def new_login(self) -> bytes:
        """The command that logs in again, where the token of this connection has a new one; else nothing.

        A server closes a connection whose token has ended. `ask` sends it by itself; who sends bytes asks for it once a minute, and
        gets one reply more. Raises: TargetError where no token can be had.
        """
        login = self._opener.login.current
        if login is None or login == self._login:
            return b""
        self._login = login
        user, password = login
        return command(b"AUTH", *([] if user is None else [user.encode()]), password.encode())

    def renew_login(self) -> None:
        """Log in again, where there is a new token. Raises: Lost; TargetError where the user is not let in any more."""
        self.ask()

    def _read(self) -> Any:
        try:
            while (reply := self._replies.take()) is NOTHING:
                self._replies.feed(self._receive(1 << 20))
        except CorruptError:
            self.close()
            raise Lost(f"{self} is not a Redis server", "foreign") from None
        if isinstance(reply, Refusal):
            if reply.code == "NOAUTH":
                self.close()
                if self._login is None:
                    raise self._opener.login.refused(str(reply), str(self._opener.url))
                raise Lost(f"{self}: {reply}", "closed")  # it has forgotten who asks: to log in anew helps
            if reply.text == _FULL:
                self.close()
                raise Lost(f"{self}: {_FULL}", "full")
        return reply


def _decrypted(sock: ssl.SSLSocket, most: int) -> bytes:
    """All that TLS has by now, in whole records: a part of one that is left does not show in `select`."""
    parts = [sock.recv(_TLS_RECORD)]
    size = len(parts[0])
    while parts[-1] and size < most:
        try:
            parts.append(sock.recv(_TLS_RECORD))
        except OSError:  # no more now; what else it is shows at the next
            break
        size += len(parts[-1])
    return b"".join(parts)


def _select(sock: socket.socket, events: int, wait_s: float | None) -> int:
    """Which of these events comes within some seconds."""
    if not hasattr(select, "poll"):  # Windows
        with selectors.SelectSelector() as selector:
            selector.register(sock, events)
            return next((found for _, found in selector.select(wait_s)), 0)
    poll = select.poll()
    poll.register(sock, (select.POLLIN if events & _IN else 0) | (select.POLLOUT if events & _OUT else 0))
    for _, flags in poll.poll(None if wait_s is None else wait_s * 1000):  # one at most; an end or error counts as both
        return events & ((_IN if flags & ~select.POLLOUT else 0) | (_OUT if flags & ~select.POLLIN else 0))
    return 0


# -- opening


def _open(address: Address, opener: Opener, login: tuple[str | None, str] | None) -> tuple[Any, socket.socket]:
    """A connection of the package redis that has logged in, and its socket. Raises: as `Connection.open`."""
    try:
        from redis.exceptions import AuthenticationError, InvalidResponse, RedisError, ResponseError
        from redis.exceptions import TimeoutError as Late
    except ImportError as e:
        raise missing_package(e) from None
    where = f"{address[0]}:{address[1]}"
    link, sockets = _link(address, opener)
    link.username, link.password = login or (None, None)
    try:
        link.connect()
    except AuthenticationError as e:
        raise opener.login.refused(first_line(e), str(opener.url)) from None
    except ResponseError as e:
        text = first_line(e)
        if text.startswith("DENIED "):
            raise denied(text.removeprefix("DENIED "), str(opener.url)) from None
        raise opener.login.refused(text, str(opener.url)) from None
    except RedisError as e:
        refused = _refused_certificate(e) or (_alert(link, opener.tls) if sockets else None)
        if refused is not None:
            raise TargetError(refused, source=str(opener.url)) from None
        if isinstance(e, InvalidResponse):
            raise Lost(f"{where} is not a Redis server", "foreign") from None
        if _was_closed(e):
            raise Lost(f"{where} closed the connection", "closed") from None
        text = first_line(e)
        why: Why = "full" if _FULL in text else "late" if isinstance(e, Late) and sockets else "unreachable"
        raise Lost(text if where in text else f"{where}: {text}", why) from None
    return link, sockets[-1]


def denied(reason: str, source: str) -> TargetError:
    """The error for a server that answers nobody from this place, as in its protected mode."""
    return TargetError(f"the server refuses connections from here: {reason[:300]}", source=source)


def _link(address: Address, opener: Opener) -> tuple[Any, list[socket.socket]]:
    """A connection of the package redis, with TLS of our own: what it asks of a certificate is not the same in all its versions.

    Returns: it, and a list whose last element is its socket once it is connected.
    """
    from redis.connection import Connection as RedisConnection
    from redis.exceptions import ConnectionError as Unreachable

    where = f"{address[0]}:{address[1]}"
    sockets: list[socket.socket] = []

    class Link(RedisConnection):
        def _connect(self) -> socket.socket:
            sockets.append(self._plain() if opener.tls is None else self.secure(opener.tls))
            return sockets[-1]

        def secure(self, tls: ssl.SSLContext) -> socket.socket:
            for name in dict.fromkeys((opener.url.host, address[0])):
                sock = self._plain()
                patience = sock.gettimeout()
                sock.settimeout(_HANDSHAKE_S)
                try:
                    secure = tls.wrap_socket(sock, server_hostname=name)
                    secure.settimeout(patience)
                    return secure
                except ssl.SSLCertVerificationError as e:
                    sock.close()
                    trouble = e
                    if e.verify_code not in _OTHER_NAME:
                        break
                except OSError as e:
                    sock.close()
                    if (refused := _refused_certificate(e)) is not None:
                        raise TargetError(refused, source=where) from None
                    why = "" if isinstance(e, TimeoutError) else f" ({getattr(e, 'reason', None) or e.strerror or e})"
                    raise Unreachable(f"no TLS from {where}{why}; for a port without TLS, write redis://") from None
            raise TargetError(
                f"its certificate is not trusted: {trouble.verify_message}; --ca-cert FILE trusts other authorities", source=where
            )

        def _plain(self) -> socket.socket:
            found: socket.socket = super()._connect()  # type: ignore[no-untyped-call]
            return found

    make: Any = Link
    link = make(
        host=address[0], port=address[1], protocol=2, socket_keepalive=True, socket_connect_timeout=_CONNECT_S,
        socket_timeout=opener.patience_s,
    )  # fmt: skip
    # what it says of itself first, errors aside, would take the words of a server that lets nobody in
    for name in ("driver_info", "lib_name", "lib_version"):
        setattr(link, name, None)
    return link, sockets


def _alert(link: Any, tls: ssl.SSLContext | None) -> str | None:
    """What the server says against this client's certificate: TLS 1.3 says it late, and whoever writes first may not see it."""
    if tls is None:
        return None
    try:
        with link.secure(tls) as sock:
            sock.settimeout(_ALERT_S)
            sock.recv(1)
    except Exception as e:
        return _refused_certificate(e)
    return None


def _refused_certificate(e: BaseException | None) -> str | None:
    """What is wrong with this client's own certificate, in the eyes of the server; None where it is something else."""
    while e is not None:
        reason = str(getattr(e, "reason", None) or "")
        if "ALERT_CERTIFICATE_REQUIRED" in reason:
            return "the server wants a client certificate: --client-cert FILE"
        if "ALERT_UNKNOWN_CA" in reason or "ALERT_BAD_CERTIFICATE" in reason:
            return "the server does not trust the client certificate: check --client-cert"
        e = e.__cause__ or e.__context__
    return None


def _was_closed(e: BaseException | None) -> bool:
    """Whether a connection that was there was closed by the other side."""
    while e is not None:
        if isinstance(e, ConnectionResetError | BrokenPipeError) or "closed by server" in str(e):
            return True
        e = e.__cause__ or (None if e.__suppress_context__ else e.__context__)
    return False

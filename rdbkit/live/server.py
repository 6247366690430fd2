"""A live server or cluster, which is asked many things at once and changed by none.

Commands go out as bytes and replies come back as they are, errors among them. In a cluster each command goes to the node that has
its key. What the network breaks is tried again, since to ask twice does no harm. Secrets stay out of every message.
"""

from __future__ import annotations

import logging
import os
import re
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from rdbkit.clouds import Cloud, find_cloud
from rdbkit.errors import TargetError
from rdbkit.format.slots import SLOTS, key_slot
from rdbkit.live.server_url import ServerUrl, parse_url
from rdbkit.resp import command
from rdbkit.text import first_line

__all__ = ["Cluster", "Credentials", "Refusal", "Reply", "Server", "connect", "entra_credentials"]

Cluster: TypeAlias = Literal["auto", "yes", "no"]
#: What gives a user's name (or none) and a password each time it is called: a token has a new one now and then.
Credentials: TypeAlias = Callable[[], tuple[str | None, str]]
Address: TypeAlias = tuple[str, int]

PASSWORD_VARIABLE: Final = "RDBKIT_REDIS_PASSWORD"
_INSTALL: Final = "pip install 'rdbkit[live]'"
#: Seconds to wait before each further attempt.
WAITS: Final = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
_CONNECT_S: Final = 15.0
_REPLY_S: Final = 60.0
#: A server that does not speak TLS waits for the end of what it takes for a command, and says nothing.
_HANDSHAKE_S: Final = 10.0
#: Packages that log what is in the error as well, on many lines.
_LOUD: Final = ("azure", "msal", "redis.auth")
#: How often tokens and the server's clock are looked at.
_LOOK_S: Final = 60.0
_SCAN_COUNT: Final = b"1000"
#: OpenSSL's numbers for a certificate that is sound but has another name.
_OTHER_NAME: Final = (62, 64)
#: Codes of errors that a client library takes off, by the class it makes of them.
_CODES: Final = {
    "NoPermissionError": "NOPERM", "MovedError": "MOVED", "AskError": "ASK", "TryAgainError": "TRYAGAIN",
    "ReadOnlyError": "READONLY", "ClusterDownError": "CLUSTERDOWN", "MasterDownError": "MASTERDOWN",
    "ClusterCrossSlotError": "CROSSSLOT",
}  # fmt: skip
#: Errors of a cluster that is changing: to ask again later helps.
_PASSING: Final = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN")
#: What not every server has, with a command that shows whether this one does; an empty name makes no difference to a key.
_PROBES: Final = {
    "PEXPIRETIME": command(b"PEXPIRETIME", b""),
    "HPEXPIRETIME": command(b"HPEXPIRETIME", b"", b"FIELDS", b"1", b"f"),
    "SMISMEMBER": command(b"SMISMEMBER", b"", b"m"),
    "ZMSCORE": command(b"ZMSCORE", b"", b"m"),
}


class Refusal(NamedTuple):
    """An error reply: the word it begins with ("ERR" where it has none), and the rest."""

    code: str
    text: str

    def __str__(self) -> str:
        return self.text if self.code == "ERR" else f"{self.code} {self.text}"


Reply: TypeAlias = "bytes | int | Refusal | list[Reply] | None"


def entra_credentials(cloud: str | Cloud = "public") -> Credentials:
    """Credentials of the Entra ID identity that is at hand: of the environment, a managed identity, or the Azure CLI.

    Args:
        cloud: where the server is: "public", "usgovernment", "china", or the name that `az cloud list` has.

    Raises: TargetError where the package is missing; ValueError for an unknown cloud; the credentials raise TargetError where
        there is no identity.
    """
    found = find_cloud(cloud) if isinstance(cloud, str) else cloud
    try:
        from redis_entraid.cred_provider import create_from_default_azure_credential
    except ImportError as e:
        raise _missing(e) from None
    for name in _LOUD:  # whoever has handlers of his own gets all of it
        logging.getLogger(name).addHandler(logging.NullHandler())
    provider = create_from_default_azure_credential((found.redis_scope,), authority=found.token_authority)

    def token() -> tuple[str | None, str]:
        try:
            user, password = provider.get_credentials()
        except Exception as e:  # the identity libraries have many; all say that there is no token
            raise TargetError(
                f"no Entra ID token can be had: {first_line(e).rstrip('.')}; sign in ({found.sign_in}), or leave out --entra and "
                "give a password"
            ) from None
        return user, password

    return token


def connect(
    url: str,
    *,
    password: str | None = None,
    credentials: Credentials | None = None,
    ca_cert: str | None = None,
    verify_tls: bool = True,
    cluster: Cluster = "auto",
) -> Server:
    """Connect to a server, and find out what it is.

    Args:
        url: as `parse_url` takes it.
        password: instead of one in the URL; without both, that of the environment variable RDBKIT_REDIS_PASSWORD.
        credentials: instead of a password.
        ca_cert: a PEM file of certificate authorities to trust, instead of the system's.
        verify_tls: False trusts any certificate.
        cluster: whether its keys are spread over nodes; "auto" asks it.

    Raises: ValueError for a malformed URL; TargetError where it cannot be reached or does not let one in.
    """
    server_url = parse_url(url)
    if credentials is None:
        found = password or server_url.password or os.environ.get(PASSWORD_VARIABLE)
        if found is not None or server_url.user is not None:
            login = (server_url.user, found or "")

            def credentials() -> tuple[str | None, str]:
                return login

    context = None
    if server_url.tls:
        try:
            context = ssl.create_default_context(cafile=ca_cert)
        except ssl.SSLError as e:
            raise TargetError(f"no certificates can be read: {e.reason or e}", source=ca_cert) from None
        if not verify_tls:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
    return Server(server_url, credentials, context, cluster)


class Server:
    """A server or a cluster; made by `connect`. A context manager.

    Attributes:
        url: where it is.
        kind: "standalone" or "cluster".
        version: what it calls itself, as "redis 7.0.15"; None where it does not say.
        features: names of commands that not every server has, and this one does.
    """

    def __init__(self, url: ServerUrl, credentials: Credentials | None, context: ssl.SSLContext | None, cluster: Cluster) -> None:
        self.url = url
        self._credentials = credentials
        self._context = context
        self._login: tuple[str | None, str] | None = None if credentials is None else credentials()
        self._login_at = time.monotonic()
        self._nodes: dict[Address, _Node] = {}
        self._owners: list[Address | None] = []
        self._offset_ms = 0
        self._offset_at: float | None = None
        self._home = (url.host, url.port)
        with _translating_errors(url, self._login):
            hello = self._node(self._home).exchange(0, [command(b"HELLO")])[0]
            if isinstance(hello, Refusal) and hello.code == "DENIED":
                raise TargetError(f"the server lets nobody in from here: {hello.text[:300]}", source=str(url))
            about = _pairs(hello) if isinstance(hello, list) else {}
            self.version = _version(about) or _version_of_info(self._node(self._home).exchange(0, [command(b"INFO", b"server")])[0])
            if cluster != "no":
                self._read_slots(must=cluster == "yes" or about.get("mode") == b"cluster")
            probed = zip(_PROBES, self._node(self._home).exchange(0, list(_PROBES.values())), strict=True)
            self.features = frozenset(name for name, reply in probed if not _is_unknown(reply))
        self.kind = "cluster" if self._owners else "standalone"

    # -- what users call

    def ask(self, db: int, requests: Sequence[tuple[bytes, list[bytes]]]) -> list[list[Any]]:
        """The replies to commands about keys, each with its commands as `command` makes them.

        All are sent before any reply is read. Raises: TargetError where the server cannot be reached for some time.
        """
        replies: list[list[Any]] = [[] for _ in requests]
        left = list(range(len(requests)))
        waits = iter(WAITS)
        while True:
            left, trouble = self._round(db, requests, left, replies)
            if not left:
                return replies
            self._wait(waits, trouble)

    def ask_each_node(self, db: int, commands: list[bytes]) -> list[list[Any]]:
        """The replies of every node that has keys to the same commands. Raises: as `ask`."""
        return [self._persist(address, db, commands) for address in self._masters()]

    def scan(self, db: int) -> Iterator[list[bytes]]:
        """Names of all keys of a database; one may come twice.

        Raises: TargetError, also where SCAN is not allowed.
        """
        for address in self._masters():
            cursor = b"0"
            while True:
                reply = self._persist(address, db, [command(b"SCAN", cursor, b"COUNT", _SCAN_COUNT)])[0]
                if isinstance(reply, Refusal):
                    raise TargetError(f"its keys cannot be listed: {reply}", source=str(self.url), db=db)
                cursor, names = reply
                yield names
                if cursor == b"0":
                    break

    def now_ms(self) -> int:
        """The server's clock in Unix milliseconds; where it does not tell, this machine's."""
        now = time.monotonic()
        if self._offset_at is None or now - self._offset_at > _LOOK_S:
            self._offset_at = now
            before = time.time_ns()
            reply = self._persist(self._home if not self._owners else self._masters()[0], 0, [command(b"TIME")])[0]
            after = time.time_ns()
            if isinstance(reply, list):
                self._offset_ms = (int(reply[0]) * 1000 + int(reply[1]) // 1000) - (before + after) // 2_000_000
        return time.time_ns() // 1_000_000 + self._offset_ms

    def close(self) -> None:
        """Close all connections."""
        for node in self._nodes.values():
            node.close()

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- nodes

    def _node(self, address: Address) -> _Node:
        if address not in self._nodes:
            # A certificate is for the name that was given, as in Azure, whose nodes go by their IP; or for the node's own name.
            names = list(dict.fromkeys((self.url.host, address[0])))
            self._nodes[address] = _Node(address, names, self._context, lambda: self._login)
        return self._nodes[address]

    def _masters(self) -> list[Address]:
        return list(dict.fromkeys(owner for owner in self._owners if owner is not None)) or [self._home]

    def _owner(self, key: bytes) -> Address | None:
        return self._owners[key_slot(key)] if self._owners else self._home

    def _read_slots(self, must: bool) -> None:
        """Ask which node has which slots; `must`: it is known to be a cluster.

        Any node may be asked, since the one that was given may have left.
        """
        reply: Any = None
        trouble: Exception | None = None
        for address in dict.fromkeys([self._home, *self._masters()]):
            try:
                reply = self._node(address).exchange(0, [command(b"CLUSTER", b"SLOTS")])[0]
                break
            except _broken() as e:
                trouble = e
        else:
            assert trouble is not None
            raise trouble
        if isinstance(reply, Refusal) or not reply:
            if must and not self._owners:
                why = f": {reply}" if reply else ""
                raise TargetError(f"it does not say which node has which slots (CLUSTER SLOTS){why}", source=str(self.url))
            return
        owners: list[Address | None] = [None] * SLOTS
        for first, last, (host, port, *_), *_ in reply:
            # a node that does not know its own name leaves it out: it is the one that was asked
            name = host.decode() if host and host != b"?" else address[0]
            owners[first : last + 1] = [(name, int(port))] * (last + 1 - first)
        self._owners = owners

    # -- asking

    def _round(
        self, db: int, requests: Sequence[tuple[bytes, list[bytes]]], which: list[int], replies: list[list[Any]]
    ) -> tuple[list[int], str]:
        """Ask once; returns which requests are to be asked again, and why."""
        self._renew_login()
        again: list[int] = []
        trouble = ""
        sent = []
        for address, group in self._by_owner(requests, which, replies).items():
            try:
                with _translating_login_errors(self.url, self._login):
                    self._node(address).send(db, [text for i in group for text in requests[i][1]])
                sent.append((address, group))
            except _broken() as e:
                again += group
                trouble = _of_node(address, e)
        for address, group in sent:
            try:
                with _translating_login_errors(self.url, self._login):
                    found = iter(self._node(address).receive())
            except _broken() as e:
                again += group
                trouble = _of_node(address, e)
                continue
            for i in group:
                commands = requests[i][1]
                replies[i], passing = self._follow(db, commands, [next(found) for _ in commands])
                if passing is not None:
                    again.append(i)
                    trouble = str(passing)
        return again, trouble

    def _by_owner(
        self, requests: Sequence[tuple[bytes, list[bytes]]], which: list[int], replies: list[list[Any]]
    ) -> dict[Address, list[int]]:
        """These requests by the node that has their key; one whose key no node has gets its replies here."""
        groups: dict[Address, list[int]] = {}
        for i in which:
            key, commands = requests[i]
            owner = self._owner(key)
            if owner is None:
                replies[i] = [Refusal("CLUSTERDOWN", f"no node has slot {key_slot(key)}")] * len(commands)
            else:
                groups.setdefault(owner, []).append(i)
        return groups

    def _follow(self, db: int, commands: list[bytes], found: list[Any]) -> tuple[list[Any], Refusal | None]:
        """The replies to commands about a key, of the node that its slot is on its way to where `found` names one.

        Returns: the replies, and the error for which the commands are to be sent again later; None where they are answered.
        """
        passing = self._passing(found)
        if passing is None or passing.code != "ASK":
            return found, passing
        host, _, port = passing.text.split(" ")[-1].rpartition(":")
        try:
            # the leave to ask holds for the next command alone
            replies = self._node((host, int(port))).exchange(db, [text for each in commands for text in (command(b"ASKING"), each)])
        except _broken():
            return found, passing
        followed = replies[1::2]
        return followed, None if self._passing(followed) is None else passing

    def _passing(self, replies: list[Any]) -> Refusal | None:
        """The first error of a cluster that is changing."""
        if not self._owners:
            return None
        return next((reply for reply in replies if isinstance(reply, Refusal) and reply.code in _PASSING), None)

    def _persist(self, address: Address, db: int, commands: list[bytes]) -> list[Any]:
        """Ask one node, several times if need be."""
        waits = iter(WAITS)
        while True:
            self._renew_login()
            try:
                with _translating_login_errors(self.url, self._login):
                    return self._node(address).exchange(db, commands)
            except _broken() as e:
                self._wait(waits, _of_node(address, e))

    def _wait(self, waits: Iterator[float], trouble: str) -> None:
        """Wait before the next attempt. Raises: TargetError after the last."""
        wait = next(waits, None)
        if wait is None:
            raise TargetError(f"the connection is lost: {trouble}; run this again, with --state it goes on", source=str(self.url))
        time.sleep(wait)
        if self._owners:
            try:
                self._read_slots(must=False)
            except _broken():
                pass  # what is known of the nodes may still hold

    def _renew_login(self) -> None:
        """Log in with a new token before the old one ends."""
        if self._credentials is None or time.monotonic() - self._login_at < _LOOK_S:
            return
        self._login_at = time.monotonic()
        login = self._credentials()
        if login == self._login:
            return
        self._login = login
        self.close()  # what is opened again logs in with it


class _Node:
    """One connection; it is opened when it is needed, and again after it broke."""

    def __init__(
        self, address: Address, names: list[str], context: ssl.SSLContext | None, login: Callable[[], tuple[str | None, str] | None]
    ) -> None:
        try:
            from redis.exceptions import ResponseError

            self._connection = _link(address, names, context)
        except ImportError as e:
            raise _missing(e) from None
        self._error_reply = ResponseError
        self._login = login
        self._open = False
        self._db = 0
        self._waiting = 0
        self._selecting = False

    def exchange(self, db: int, commands: list[bytes]) -> list[Any]:
        """Send commands, and wait for the replies."""
        self.send(db, commands)
        return self.receive()

    def send(self, db: int, commands: list[bytes]) -> None:
        """Send commands about keys of a database. Raises: what `_broken` names."""
        try:
            if not self._open:
                user, password = self._login() or (None, None)
                self._connection.username, self._connection.password = user, password
                self._connection.connect()
                self._open, self._db = True, 0
            self._selecting = db != self._db
            first = [command(b"SELECT", b"%d" % db)] if self._selecting else []
            self._db = db
            self._waiting = len(commands)
            self._connection.send_packed_command([b"".join([*first, *commands])], check_health=False)
        except BaseException:
            self.close()
            raise

    def receive(self) -> list[Any]:
        """The replies to what was sent. Raises: what `_broken` names."""
        try:
            selected = self._read() if self._selecting else None
            replies = [self._read() for _ in range(self._waiting)]
        except BaseException:
            self.close()
            raise
        if isinstance(selected, Refusal):
            # the commands were about another database
            self._db = -1
            return [selected] * len(replies)
        return replies

    def close(self) -> None:
        """Close the connection where it is open."""
        self._open = False
        self._connection.disconnect()

    def _read(self) -> Any:
        try:
            return self._connection.read_response(disable_decoding=True)
        except self._error_reply as e:
            return _refusal(e)


def _link(address: Address, names: list[str], context: ssl.SSLContext | None) -> Any:
    """A connection of the package redis, with TLS of our own: what it asks of a certificate is not the same in all its versions."""
    from redis.connection import Connection
    from redis.exceptions import ConnectionError as Lost

    where = f"{address[0]}:{address[1]}"

    class Link(Connection):
        def _connect(self) -> socket.socket:
            if context is None:
                return self._plain()
            for name in names:
                sock = self._plain()
                patience = sock.gettimeout()
                sock.settimeout(_HANDSHAKE_S)
                try:
                    secure = context.wrap_socket(sock, server_hostname=name)
                    secure.settimeout(patience)
                    return secure
                except ssl.SSLCertVerificationError as e:
                    sock.close()
                    trouble = e
                    if e.verify_code not in _OTHER_NAME:
                        break
                except OSError as e:
                    sock.close()
                    why = "" if isinstance(e, TimeoutError) else f" ({getattr(e, 'reason', None) or e.strerror or e})"
                    raise Lost(f"no TLS answer from {where}{why}; if it is a plain port, write redis://") from None
            raise TargetError(
                f"its certificate is not trusted: {trouble.verify_message}; --ca-cert FILE trusts other authorities", source=where
            )

        def _plain(self) -> socket.socket:
            found: socket.socket = super()._connect()  # type: ignore[no-untyped-call]
            return found

    make: Any = Link
    link = make(host=address[0], port=address[1], protocol=2, socket_connect_timeout=_CONNECT_S, socket_timeout=_REPLY_S)
    # what it says of itself first, errors aside, would take the words of a server that lets nobody in
    for name in ("driver_info", "lib_name", "lib_version"):
        setattr(link, name, None)
    return link


# -- errors


def _broken() -> tuple[type[Exception], ...]:
    """What is raised where a connection fails."""
    from redis.exceptions import ConnectionError as Lost
    from redis.exceptions import InvalidResponse
    from redis.exceptions import TimeoutError as Late

    return Lost, Late, InvalidResponse


@contextmanager
def _translating_login_errors(url: ServerUrl, login: tuple[str | None, str] | None) -> Iterator[None]:
    """A login that is refused is not tried again. Raises: TargetError."""
    from redis.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as e:
        if login is None:
            text = f"the server wants a password: --password-file or {PASSWORD_VARIABLE}, or --entra"
        elif not login[1]:
            text = f"the server does not let this user in without a password: --password-file or {PASSWORD_VARIABLE}"
        else:
            text = f"the server does not let this user in: {first_line(e).rstrip('.')}; compare user and password"
        raise TargetError(text, source=str(url)) from None


@contextmanager
def _translating_errors(url: ServerUrl, login: tuple[str | None, str] | None) -> Iterator[None]:
    """The errors of a first connection, in words. Raises: TargetError."""
    try:
        from redis.exceptions import InvalidResponse
    except ImportError as e:
        raise _missing(e) from None
    try:
        with _translating_login_errors(url, login):
            yield
    except _broken() as e:
        if isinstance(e, InvalidResponse):
            text = "what answers is no Redis server"
        elif _was_closed(e):
            text = "the connection was closed at once"
        else:
            text = f"the server cannot be reached: {first_line(e).rstrip('.')}; compare host and port"
            raise TargetError(text, source=str(url)) from None
        text += "; compare host and port" if url.tls else "; the port may want TLS: write rediss://"
        raise TargetError(text, source=str(url)) from None


def _was_closed(e: BaseException | None) -> bool:
    """Whether a connection that was there was closed by the other side."""
    while e is not None:
        if isinstance(e, ConnectionResetError | BrokenPipeError) or "closed by server" in str(e):
            return True
        e = e.__cause__ or (None if e.__suppress_context__ else e.__context__)
    return False


def _missing(e: ImportError) -> TargetError:
    return TargetError(f"this needs the packages of live servers ({e.name} is missing): {_INSTALL}")


def _of_node(address: Address, e: BaseException) -> str:
    text = first_line(e)
    name = f"{address[0]}:{address[1]}"
    return text if name in text else f"{name}: {text}"


def _refusal(e: Exception) -> Refusal:
    text = str(e.args[0]) if e.args else ""
    code = _CODES.get(type(e).__name__)
    word, _, rest = text.partition(" ")
    if code is None:
        return (
            Refusal(word, rest)
            if word.isupper() and word.isalpha() and word != "ERR"
            else Refusal("ERR", text.removeprefix("ERR "))
        )
    return Refusal(code, rest if word == code else text)


def _is_unknown(reply: Any) -> bool:
    """Whether a command is not there for us."""
    if not isinstance(reply, Refusal):
        return False
    return "unknown command" in reply.text.lower() or (reply.code == "NOPERM" and "command" in reply.text)


# -- what a server says of itself


def _pairs(flat: list[Any]) -> dict[str, Any]:
    return {name.decode("utf-8", "replace"): value for name, value in zip(flat[::2], flat[1::2], strict=False)}


def _version(about: dict[str, Any]) -> str | None:
    server, version = about.get("server"), about.get("version")
    if not isinstance(server, bytes) or not isinstance(version, bytes):
        return None
    return f"{server.decode('utf-8', 'replace')} {version.decode('utf-8', 'replace')}"


def _version_of_info(reply: Any) -> str | None:
    found = re.search(rb"redis_version:([^\r\n]+)", reply) if isinstance(reply, bytes) else None
    return f"redis {found[1].decode('utf-8', 'replace')}" if found else None


def info_number(replies: Iterable[Any], name: str) -> int:
    """The sum of a number in the answers of nodes to INFO; 0 where they do not tell."""
    pattern = re.compile(rb"(?m)^%b:(\d+)" % name.encode())
    return sum(int(found[1]) for reply in replies if isinstance(reply, bytes) and (found := pattern.search(reply)))

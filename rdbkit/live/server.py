"""A live server or cluster, which is asked many things at once and changed by none.

Commands go out as bytes and replies come back as they are, errors among them. In a cluster each command goes to the node that has
its key. What the network breaks is tried again, since to ask twice does no harm. Secrets stay out of every message.
"""

from __future__ import annotations

import os
import re
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any, Final, Literal, TypeAlias

from rdbkit.errors import TargetError
from rdbkit.format.replies import Refusal
from rdbkit.format.slots import SLOTS, key_slot
from rdbkit.live.connection import Address, Connection, Lost, Opener, Refused, denied
from rdbkit.live.login import Credentials, CurrentLogin
from rdbkit.live.server_url import ServerUrl, parse_url
from rdbkit.resp import command

__all__ = ["Cluster", "Server", "connect", "connected"]

Cluster: TypeAlias = Literal["auto", "yes", "no"]

PASSWORD_VARIABLE: Final = "RDBKIT_REDIS_PASSWORD"
_WAYS: Final = f"--password-file or {PASSWORD_VARIABLE}, or --entra"
#: Seconds to wait before each further attempt; there is none after the last.
WAITS: Final = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
#: The same for what is waited for until a time is over: the last one again and again.
PATIENT_WAITS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
#: How often the server's clock is looked at.
_LOOK_S: Final = 60.0
_SCAN_COUNT: Final = b"1000"
#: Keys that are read do not look used then, so that the server goes on to evict those that are not. Not for a node of a cluster:
#: Redis 8.0.6 and Valkey 8.1.1 crash when such a connection names a key whose slot is on its way (lookupKey of getNodeByQuery).
_NO_TOUCH: Final = command(b"CLIENT", b"NO-TOUCH", b"ON")
#: Errors of a cluster that is changing: to ask again later helps.
_PASSING: Final = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN")
#: Errors of a node that is not ready: the same holds.
_UNREADY: Final = ("LOADING", "BUSY", "MASTERDOWN")
#: What not every server has, with a command that shows whether this one does; an empty name makes no difference to a key.
_PROBES: Final = {
    "PEXPIRETIME": command(b"PEXPIRETIME", b""),
    "HPEXPIRETIME": command(b"HPEXPIRETIME", b"", b"FIELDS", b"1", b"f"),
    "SMISMEMBER": command(b"SMISMEMBER", b"", b"m"),
    "ZMSCORE": command(b"ZMSCORE", b"", b"m"),
}


def connect(
    url: str,
    *,
    password: str | None = None,
    credentials: Credentials | None = None,
    ca_cert: str | None = None,
    client_cert: str | None = None,
    verify_tls: bool = True,
    cluster: Cluster = "auto",
    ways: str = _WAYS,
) -> Server:
    """Connect to a server, and find out what it is.

    Args:
        url: as `parse_url` takes it.
        password: instead of one in the URL; without both, that of the environment variable RDBKIT_REDIS_PASSWORD.
        credentials: instead of a password.
        ca_cert: a PEM file of certificate authorities to trust, instead of the system's.
        client_cert: a PEM file with this client's certificate and its key, for a server that wants one.
        verify_tls: False trusts any certificate.
        cluster: whether its keys are spread over nodes; "auto" asks it.
        ways: how a password can be given, for the error of a server that wants one.

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
        if client_cert is not None:
            try:
                context.load_cert_chain(client_cert, password="")  # without it OpenSSL asks for one at the terminal
            except ssl.SSLError as e:
                raise TargetError(
                    f"no certificate with its key, without a password, can be read: {e.reason or e}", source=client_cert
                ) from None
        if not verify_tls:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
    return Server(server_url, credentials, context, cluster, ways)


@contextmanager
def connected(server: str | Server) -> Iterator[Server]:
    """A server; one that is connected to here is closed at the end.

    Raises: TypeError for what is neither a URL nor a server; ValueError and TargetError as `connect`.
    """
    if isinstance(server, Server):
        yield server
    elif isinstance(server, str):
        with connect(server) as opened:
            yield opened
    else:
        raise TypeError(f"a server is a URL, as in redis://localhost:6379, or what connect gives, not {type(server).__name__}")


class Server:
    """A server or a cluster; made by `connect`. A context manager.

    Attributes:
        url: where it is.
        kind: "standalone" or "cluster".
        version: what it calls itself, as "redis 7.0.15"; None where it does not say.
        features: names of commands that not every server has, and this one does.
        touch: why keys that are read look used; None where they do not (CLIENT NO-TOUCH).
    """

    def __init__(
        self, url: ServerUrl, credentials: Credentials | None, context: ssl.SSLContext | None, cluster: Cluster, ways: str = _WAYS
    ) -> None:
        self.url = url
        self._opener = Opener(url, context, CurrentLogin(credentials, ways))
        self._lock = threading.RLock()
        self._nodes: dict[Address, Connection] = {}
        self._owners: list[Address | None] = []
        self._offset_ms = 0
        self._offset_at: float | None = None
        self._home = (url.host, url.port)
        try:
            if url.service is not None:
                self._home = self._find_home()
            hello = self._exchange(self._home, 0, [command(b"HELLO", b"2")])[0]
            if isinstance(hello, Refusal) and hello.code == "DENIED":
                raise denied(hello.text, str(url))
            about = _pairs(hello) if isinstance(hello, list) else {}
            self.version = _version(about) or _version_of_info(self._exchange(self._home, 0, [command(b"INFO", b"server")])[0])
            if cluster != "no":
                self._read_slots(must=cluster == "yes" or about.get("mode") == b"cluster")
            probed = zip(_PROBES, self._exchange(self._home, 0, list(_PROBES.values())), strict=True)
            self.features = frozenset(name for name, reply in probed if not _is_unknown(reply))
            self.touch: str | None = "a node of a cluster before Valkey 9 ends when a slot moves while it is on"
            if not self._owners and about.get("mode") == b"standalone":
                reply = self._exchange(self._home, 0, [_NO_TOUCH])[0]
                self.touch = str(reply) if isinstance(reply, Refusal) else None
            if self.touch is None:
                self._opener.first = (_NO_TOUCH,)
        except Lost as e:
            raise _unreachable(url, e) from None
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
            with self._lock:
                left, trouble = self._round(db, requests, left, replies)
            if not left:
                return replies
            self._wait(waits, trouble)

    def ask_each_node(self, db: int, commands: list[bytes]) -> list[list[Any]]:
        """The replies of every node that has keys to the same commands. Raises: as `ask`."""
        return [self._persist(address, db, commands) for address in self.masters()]

    def ask_node(self, address: Address, asked: bytes, db: int = 0) -> Any:
        """The reply of one node to a command, an error among them. Raises: as `ask`."""
        return self._persist(address, db, [asked])[0]

    def scan(self, db: int) -> Iterator[list[bytes]]:
        """Names of all keys of a database; one may come twice.

        Raises: TargetError, also where SCAN is not allowed.
        """
        for address in self.masters():
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
            reply = self._persist(self.masters()[0], 0, [command(b"TIME")])[0]
            after = time.time_ns()
            if isinstance(reply, list) and len(reply) == 2:
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

    def masters(self) -> list[Address]:
        """The nodes that have keys: those of a cluster with slots, or the one server."""
        return list(dict.fromkeys(owner for owner in self._owners if owner is not None)) or [self._home]

    def slots(self) -> list[Address | None]:
        """Which node has each slot, as it was last asked for; nothing for a server that is no cluster."""
        return self._owners

    def owner(self, key: bytes) -> Address | None:
        """The node that has a key's slot, as it was last asked for; None where none has. Of a server that is no cluster, itself."""
        return self._owners[key_slot(key)] if self._owners else self._home

    @property
    def home(self) -> Address:
        """Where the server is that the URL names: what Sentinel said last."""
        return self._home

    def find_home(self) -> Address:
        """The same, where Sentinel is asked again. Raises: TargetError."""
        if self.url.service is not None:
            try:
                self._home = self._find_home()
            except Lost as e:
                raise _unreachable(self.url, e) from None
        return self._home

    @property
    def opener(self) -> Opener:
        """What connections to it have in common, for who opens them in another way."""
        return self._opener

    def read_slots(self) -> None:
        """Ask again which node has which slots. Raises: Lost where no node answers."""
        if self._owners:
            self._read_slots(must=False)

    def dial(self, address: Address | None = None, db: int = 0) -> Connection:
        """A new connection that is open, and the caller's: to a node, or to the one that the URL names.

        Raises: Lost; Refused where it has no such database; TargetError where it does not let the user in.
        """
        connection = Connection(address or self._home, self._opener)
        try:
            connection.open()
        except Lost:
            if self.url.service is None:
                raise
            self._home = self._find_home()  # another may have taken its place
            connection = Connection(self._home, self._opener)
            connection.open()
        try:
            connection.select(db)
        except Refused:
            connection.close()
            raise
        return connection

    def _node(self, address: Address) -> Connection:
        """The connection to a node for what is asked here, opened where it is not."""
        if address not in self._nodes:
            self._nodes[address] = Connection(address, self._opener)
        self._nodes[address].open()
        return self._nodes[address]

    def _exchange(self, address: Address, db: int, commands: list[bytes]) -> list[Any]:
        node = self._node(address)
        node.put(commands, db)
        return node.take()

    def _find_home(self) -> Address:
        """Where the server is now of which a Sentinel knows. Raises: Lost; TargetError where it knows none by that name."""
        assert self.url.service is not None
        asked = command(b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self.url.service.encode())
        sentinel: Address = (self.url.host, self.url.port)
        nobody = replace(self._opener, login=CurrentLogin(None, ""), first=())
        try:
            reply = _ask_once(Connection(sentinel, nobody), asked)
        except TargetError:  # it wants a login, too
            reply = _ask_once(Connection(sentinel, replace(self._opener, first=())), asked)
        if isinstance(reply, Refusal):
            raise TargetError(f"not a Sentinel, or it refuses to answer: {reply}", source=str(self.url))
        if reply is None:
            raise TargetError(f"this Sentinel knows no service {self.url.service!r}", source=str(self.url))
        host, port = reply
        return host.decode(), int(port)

    def _read_slots(self, must: bool) -> None:
        """Ask which node has which slots; `must`: it is known to be a cluster.

        Any node may be asked, since the one that was given may have left.
        """
        reply: Any = None
        trouble: Lost | None = None
        for address in dict.fromkeys([self._home, *self.masters()]):
            try:
                with self._lock:
                    reply = self._exchange(address, 0, [command(b"CLUSTER", b"SLOTS")])[0]
                break
            except Lost as e:
                trouble = e
        else:
            assert trouble is not None
            raise trouble
        if not isinstance(reply, list) or not reply:
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
        again: list[int] = []
        trouble = ""
        sent = []
        answered = []
        try:
            for address, group in self._by_owner(requests, which, replies).items():
                try:
                    node = self._node(address)
                    node.put([text for i in group for text in requests[i][1]], db)
                    sent.append((node, group))
                except Lost as e:
                    again += group
                    trouble = f"connection lost: {e}"
            while sent:
                node, group = sent.pop(0)
                try:
                    found = iter(node.take())
                except Lost as e:
                    again += group
                    trouble = f"connection lost: {e}"
                    continue
                answered += [(i, [next(found) for _ in requests[i][1]]) for i in group]
        finally:
            for node, _ in sent:
                node.close()  # what it still has to say would be taken for the answer to what is asked next
        for i, first in answered:  # only now: to follow a key asks a node that may have had replies to give
            replies[i], passing = self._follow(db, requests[i][1], first)
            if passing is not None:
                again.append(i)
                trouble = f"it is not ready: {passing}"
        return again, trouble

    def _by_owner(
        self, requests: Sequence[tuple[bytes, list[bytes]]], which: list[int], replies: list[list[Any]]
    ) -> dict[Address, list[int]]:
        """These requests by the node that has their key; one whose key no node has gets its replies here."""
        groups: dict[Address, list[int]] = {}
        for i in which:
            key, commands = requests[i]
            owner = self.owner(key)
            if owner is None:
                replies[i] = [Refusal("CLUSTERDOWN", f"no node has slot {key_slot(key)}")] * len(commands)
            else:
                groups.setdefault(owner, []).append(i)
        return groups

    def _follow(self, db: int, commands: list[bytes], found: list[Any]) -> tuple[list[Any], Refusal | None]:
        """The replies to commands about a key, of the node that its slot has gone or is on its way to where `found` names one.

        Nodes may not be of one mind for a while about where a slot is: the one that was asked for a key knows best.

        Returns: the replies, and the error for which the commands are to be sent again later; None where they are answered.
        """
        passing = self._passing(found)
        if passing is None or passing.code not in ("ASK", "MOVED"):
            return found, passing
        host, _, port = passing.text.split(" ")[-1].rpartition(":")
        if not host or not port.isdigit():
            return found, passing
        # the leave to ask holds for the next command alone
        leave = [command(b"ASKING")] if passing.code == "ASK" else []
        try:
            replies = self._exchange((host, int(port)), db, [text for each in commands for text in (*leave, each)])
        except Lost:
            return found, passing
        followed = replies[len(leave) :: len(leave) + 1]
        return followed, None if self._passing(followed) is None else passing

    def _passing(self, replies: list[Any]) -> Refusal | None:
        """The first error of a node that is not ready, or of a cluster that is changing."""
        codes = (*_UNREADY, *_PASSING) if self._owners else _UNREADY
        return next((reply for reply in replies if isinstance(reply, Refusal) and reply.code in codes), None)

    def _persist(self, address: Address, db: int, commands: list[bytes]) -> list[Any]:
        """Ask one node, several times if need be."""
        waits = iter(WAITS)
        while True:
            try:
                with self._lock:
                    replies = self._exchange(address if self.url.service is None else self._home, db, commands)
            except Lost as e:
                self._wait(waits, f"connection lost: {e}")
                continue
            unready = next((reply for reply in replies if isinstance(reply, Refusal) and reply.code in _UNREADY), None)
            if unready is None:
                return replies
            self._wait(waits, f"it is not ready: {unready}")

    def _wait(self, waits: Iterator[float], trouble: str) -> None:
        """Wait before the next attempt. Raises: TargetError after the last."""
        wait = next(waits, None)
        if wait is None:
            raise TargetError(f"{trouble}; run this again; with --state it goes on from here", source=str(self.url))
        time.sleep(wait)
        with suppress(Lost):  # what is known of the nodes may still hold
            if self.url.service is not None:
                self._home = self._find_home()
            elif self._owners:
                self._read_slots(must=False)


def _ask_once(connection: Connection, asked: bytes) -> Any:
    """The reply to one command on a connection for it alone. Raises: as `Connection.ask`."""
    try:
        connection.open()
        return connection.ask(asked)[0]
    finally:
        connection.close()


def _unreachable(url: ServerUrl, e: Lost) -> TargetError:
    """The error for a server that cannot be had at all."""
    if e.why == "full":
        text = "the server takes no more clients (maxclients); close some, or try again later"
    elif e.why in ("closed", "foreign"):
        text = "not a Redis server" if e.why == "foreign" else "the server closed the connection at once"
        text += "; check host and port" if url.tls else "; the port may want TLS: write rediss://"
    else:
        text = f"the server cannot be reached: {str(e).rstrip('.')}; check host and port"
    return TargetError(text, source=str(url))


# -- what a server says


def _is_unknown(reply: Any) -> bool:
    """Whether a command is not there for us."""
    if not isinstance(reply, Refusal):
        return False
    return "unknown command" in reply.text.lower() or (reply.code == "NOPERM" and "command" in reply.text)


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

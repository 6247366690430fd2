"""What a server was told of a connection: who asks, which database, what is subscribed to. Another server is told the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from rdbkit.resp import command

__all__ = ["Command", "ConnectionContext"]

#: What takes up a subscription, and which kind.
SUBSCRIBES: Final = {b"SUBSCRIBE": 0, b"PSUBSCRIBE": 1, b"SSUBSCRIBE": 2}
UNSUBSCRIBES: Final = {b"UNSUBSCRIBE": 0, b"PUNSUBSCRIBE": 1, b"SUNSUBSCRIBE": 2}
#: Settings of CLIENT that stay until they are changed.
_SETTINGS: Final = (b"SETNAME", b"NO-EVICT", b"NO-TOUCH", b"TRACKING")
#: Those that older servers do not have, and that change nothing of what the client gets.
_NICETIES: Final = (b"SETINFO", b"NO-EVICT", b"NO-TOUCH")


class Command(NamedTuple):
    """What a server is told.

    Attributes:
        text: as it is sent.
        replies: how many come.
        must: whether a connection cannot do without it.
    """

    text: bytes
    replies: int = 1
    must: bool = True


class ConnectionContext:
    """Follows what a client tells a server of its connection, command by command, once each has succeeded.

    Attributes:
        db: the database.
        protocol: the version of RESP.
        login: the arguments of AUTH; None where the client has not logged in.
        subscriptions: channels, patterns and shard channels.
        silent: whether the server answers nothing (CLIENT REPLY OFF).

    >>> context = ConnectionContext()
    >>> context.told([b"SELECT", b"3"])
    >>> context.db, [each.text for each in context.commands()]
    (3, [b'*2\\r\\n$6\\r\\nSELECT\\r\\n$1\\r\\n3\\r\\n'])
    """

    def __init__(self) -> None:
        self.login: tuple[bytes, ...] | None = None
        self.silent = False
        self._reset()

    def __repr__(self) -> str:
        return f"ConnectionContext(db={self.db}, protocol={self.protocol})"  # no password

    def _reset(self) -> None:
        self.db = 0
        self.protocol = 2
        self.subscriptions: tuple[dict[bytes, None], dict[bytes, None], dict[bytes, None]] = ({}, {}, {})
        self._settings: dict[bytes, tuple[bytes, ...]] = {}

    @property
    def is_subscribed(self) -> bool:
        """Whether messages may come."""
        return any(self.subscriptions)

    @property
    def redirects(self) -> bool:
        """Whether what a server says of changed keys goes to another connection, which has another number on another server."""
        return any(each.upper() == b"REDIRECT" for each in self._settings.get(b"TRACKING", ()))

    @property
    def is_tracking(self) -> bool:
        """Whether the client keeps values, and is told when they change."""
        tracking = self._settings.get(b"TRACKING")
        return tracking is not None and tracking[0].upper() == b"ON"

    def told(self, arguments: Sequence[bytes]) -> None:
        """A command has succeeded; what is none of those that matter here changes nothing."""
        name = arguments[0].upper()
        if name == b"SELECT":
            if len(arguments) == 2 and arguments[1].isdigit():
                self.db = int(arguments[1])
        elif name == b"AUTH":
            self.login = tuple(arguments[1:])
        elif name == b"HELLO":
            self._greeted(arguments)
        elif name == b"RESET":
            self.login = None
            self.silent = False
            self._reset()
        elif name in SUBSCRIBES:
            self.subscriptions[SUBSCRIBES[name]].update(dict.fromkeys(arguments[1:]))
        elif name in UNSUBSCRIBES:
            names = self.subscriptions[UNSUBSCRIBES[name]]
            for each in arguments[1:] or list(names):
                names.pop(each, None)
        elif name == b"CLIENT" and len(arguments) > 2:
            what = arguments[1].upper()
            if what == b"REPLY":
                self.silent = arguments[2].upper() == b"OFF"
            elif what == b"SETINFO" and len(arguments) == 4:
                self._settings[b"SETINFO " + arguments[2].upper()] = tuple(arguments[2:])
            elif what in _SETTINGS:
                self._settings[what] = tuple(arguments[2:])

    def _greeted(self, arguments: Sequence[bytes]) -> None:
        if len(arguments) > 1 and arguments[1].isdigit():
            self.protocol = int(arguments[1])
        at = 2
        while at < len(arguments):
            option = arguments[at].upper()
            if option == b"AUTH":
                self.login = tuple(arguments[at + 1 : at + 3])
                at += 3
            elif option == b"SETNAME":
                self._settings[b"SETNAME"] = tuple(arguments[at + 1 : at + 2])
                at += 2
            else:
                break

    def frames(self, arguments: Sequence[bytes]) -> int:
        """How many replies a command has that takes up or ends subscriptions, if it succeeds."""
        if len(arguments) > 1:
            return len(arguments) - 1
        return max(1, len(self.subscriptions[UNSUBSCRIBES.get(arguments[0].upper(), 0)]))

    def commands(self, login: tuple[bytes, ...] | None = None) -> list[Command]:
        """What another server must be told.

        Args:
            login: arguments of AUTH that are sent instead of the client's own; empty for no AUTH at all.
        """
        login = self.login if login is None else login
        found: list[Command] = []
        if login:
            found.append(Command(command(b"AUTH", *login)))
        if self.protocol != 2:
            found.append(Command(command(b"HELLO", b"%d" % self.protocol)))
        for name, values in self._settings.items():
            what = name.partition(b" ")[0]
            found.append(Command(command(b"CLIENT", what, *values), must=what not in _NICETIES))
        if self.db:
            found.append(Command(command(b"SELECT", b"%d" % self.db)))
        for name, number in SUBSCRIBES.items():
            names = self.subscriptions[number]
            if names:
                found.append(Command(command(name, *names), len(names)))
        if self.silent:
            found.append(Command(command(b"CLIENT", b"REPLY", b"OFF"), 0))
        return found

"""Where the state of a move is kept, so that all processes see it: on the two servers, in a file, or with a function of the user's.

All settings are kept, by number: a number is taken once, so that of two who switch at the same time one is told.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol, TypeAlias
from urllib.parse import quote

from rdbkit.dual.states import Setting, State
from rdbkit.errors import TargetError
from rdbkit.format.replies import Refusal
from rdbkit.live.connection import Connection, Lost, Refused
from rdbkit.live.server import Server
from rdbkit.resp import command
from rdbkit.storage.state import StateFile

__all__ = [
    "KEY_PREFIX",
    "FileStore",
    "Follower",
    "FunctionStore",
    "Look",
    "ServerOpener",
    "ServerStore",
    "StateStore",
    "Where",
    "open_store",
]

#: What gives a new connection to a server each time it is called: `rdbkit.live.server.connect` with all its arguments bound.
ServerOpener: TypeAlias = Callable[[], Server]
#: What a user may say of where the state is kept; see `open_store`.
Where: TypeAlias = "str | os.PathLike[str] | State | Callable[[], Setting | State | str] | None"

#: The keys that states are kept in begin so.
KEY_PREFIX: Final = b"rdbkit:dual:"
#: What the names of connections of processes that follow begin with.
_SIGN: Final = "rdbkit-dual"
_PATIENCE_S: Final = 5.0
#: A server that need not be asked is left alone for so many seconds.
_REST_S: Final = 30.0
#: So many settings are kept.
_MOST: Final = 100
_FORMAT: Final = 1


class Look(NamedTuple):
    """What was found in a store.

    Attributes:
        settings: all that are kept, the oldest first; nothing where none was ever made.
        now_ms: the clock that settings take effect by, in Unix milliseconds, when `look` returned.
        error_ms: by how much `now_ms` may be wrong.
    """

    settings: list[Setting]
    now_ms: float
    error_ms: float = 0.0


class Follower(NamedTuple):
    """A process that follows a move.

    Attributes:
        address: from where it is connected.
        epoch: of the last setting that it knows; 0 where it knows of none.
        idle_s: seconds since its last look.
    """

    address: str
    epoch: int
    idle_s: int


class StateStore(Protocol):
    """Where settings are kept. For one thread at a time."""

    def look(self) -> Look:
        """What is there. Raises: TargetError or OSError where it cannot be read, ValueError where it is no state."""

    def write(self, setting: Setting) -> None:
        """Add a setting, whose number is the next. Raises: as `look`; TargetError where its number has been taken by another."""

    def restore(self, settings: Sequence[Setting]) -> None:
        """Put back settings that are known and are not there. Raises: as `write`."""

    def followers(self) -> list[Follower] | None:
        """The processes that follow; None where that is not told."""

    def forget(self) -> None:
        """Use no connection that there is, and close none: in a child process they are those of its parent."""

    def close(self) -> None:
        """Close connections."""


def open_store(where: Where, name: str, old: ServerOpener, new: ServerOpener | None) -> StateStore:
    """The store that a user means.

    Args:
        where: None for both servers, the path of a file, a function that gives the state, or a `State` that never changes.
        name: of the move, for the servers.
        old, new: what connects to them.

    Raises: ValueError for a name or path that cannot be.
    """
    if where is None:
        return ServerStore(name, old, new, follows=True)
    if isinstance(where, State):
        return FunctionStore(lambda: where)
    if callable(where):
        return FunctionStore(where)
    path = os.fspath(where)
    if path in tuple(State):
        raise ValueError(f"a state that never changes is State.{path.upper()}; a text is the path of a file")
    return FileStore(path)


class ServerStore:
    """Settings on the old server, with a copy on the new one for when the old one cannot be reached.

    They are the fields of the hash `rdbkit:dual:NAME` in database 0.

    Args:
        name: of the move.
        old, new: what connects to the servers; None for no copy.
        follows: this is a process that does what the settings say: others see which of them it knows, by its connection's name.

    Raises: ValueError for a name that is empty or too long.
    """

    def __init__(self, name: str, old: ServerOpener, new: ServerOpener | None = None, *, follows: bool = False) -> None:
        if not name or len(name) > 200:
            raise ValueError("the name of a move has 1 to 200 characters")
        self._sides = [_ServerSide(name, opener, follows) for opener in (old, new) if opener is not None]

    def look(self) -> Look:
        """What the old server has; what the new one has where that is nothing, or where the old one cannot be reached."""
        old, *others = self._sides
        try:
            found = old.look()
        except TargetError:
            for new in others:
                copied = new.look()
                if copied.settings:  # that a copy has nothing says nothing of what is copied
                    return copied
            raise
        for new in others:
            if found.settings:
                new.close()
            elif not new.is_resting:  # most likely, nothing was ever set: it is asked now and then
                with suppress(TargetError):
                    found = found._replace(settings=new.look().settings)
                new.rest()
        return found

    def restore(self, settings: Sequence[Setting]) -> None:
        """Put back settings on both servers, as far as they can be reached; the old one has to be."""
        old, *others = self._sides
        old.add(settings, old.look().settings, must=False)
        for new in others:
            with suppress(TargetError):
                new.add(settings, new.look().settings, must=False)
            new.rest()

    def followers(self) -> list[Follower] | None:
        """The processes that follow this move; None where no server tells."""
        found: list[Follower] | None = None
        for side in self._sides:
            try:
                some = side.followers()
            except TargetError:
                continue
            if some is not None:
                found = [*(found or []), *some]
        return found

    def write(self, setting: Setting) -> None:
        """Add a setting on both servers.

        The old one must have it, since processes ask it first; but for DONE, when it may be gone. The new one gets what it lacks
        with the next setting, so that one can go back while it cannot be reached.
        """
        found: list[tuple[_ServerSide, list[Setting]]] = []
        trouble = None
        for side in self._sides:
            try:
                found.append((side, side.look().settings))
            except TargetError as e:
                if side is self._sides[0] and setting.state is not State.DONE:
                    raise
                trouble = e
        known = _merged(settings for _, settings in found)
        if not found or (trouble is not None and not known and setting.state is State.DONE):
            assert trouble is not None
            raise trouble
        if setting.epoch != _next_epoch(known):
            raise _taken(setting, known)
        for at, (side, settings) in enumerate(found):
            side.add([*known, setting], settings, must=at == 0)

    def forget(self) -> None:
        """As StateStore says."""
        for side in self._sides:
            side.forget()

    def close(self) -> None:
        """As StateStore says."""
        for side in self._sides:
            side.close()


class _ServerSide:
    """Settings in a hash of one server."""

    def __init__(self, name: str, opener: ServerOpener, follows: bool) -> None:
        self._key = KEY_PREFIX + name.encode()
        self._opener = opener
        self._sign = f"{_SIGN}:{quote(name, '')}:".encode()  # what may be in the name of a connection
        self._follows = follows
        self._epoch = 0
        self._rests_until = 0.0
        self._server: Server | None = None
        self._connection: Connection | None = None

    @property
    def is_resting(self) -> bool:
        """Whether it was asked, or could not be reached, a short time ago."""
        return time.monotonic() < self._rests_until

    def rest(self) -> None:
        """Close its connection, and leave it alone for a while."""
        self.close()
        self._rests_until = time.monotonic() + _REST_S

    def look(self) -> Look:
        """All that it has. Raises: TargetError."""
        # first, since a connection that has to be opened would be taken for a slow answer
        self._ask(command(b"CLIENT", b"SETNAME", b"%b%d" % (self._sign, self._epoch)) if self._follows else command(b"PING"))
        before = time.monotonic()
        # Our connections do not make keys look used (NO-TOUCH), but this one must not be evicted.
        fields, clock, _ = self._ask(command(b"HGETALL", self._key), command(b"TIME"), command(b"TOUCH", self._key))
        took_ms = (time.monotonic() - before) * 1000
        if isinstance(fields, Refusal):
            raise TargetError(f"{self._name} cannot be read: {fields}", source=self._where)
        if not isinstance(fields, list):
            raise TargetError(f"{self._name} is not a hash", source=self._where)
        try:
            settings = sorted((_parse(*pair) for pair in zip(fields[::2], fields[1::2], strict=True)), key=lambda each: each.epoch)
        except (ValueError, TypeError, LookupError, AttributeError):
            raise TargetError(f"{self._name} has something else than the state of a move", source=self._where) from None
        if self._follows and settings and settings[-1].epoch != self._epoch:
            self._epoch = settings[-1].epoch
            self._ask(command(b"CLIENT", b"SETNAME", b"%b%d" % (self._sign, self._epoch)))
        if isinstance(clock, list) and len(clock) == 2:
            return Look(settings, int(clock[0]) * 1000 + int(clock[1]) / 1000 + took_ms / 2, took_ms / 2)
        return Look(settings, time.time_ns() / 1e6)

    def followers(self) -> list[Follower] | None:
        """The processes whose connections say that they follow; None where it does not tell. Raises: TargetError."""
        (reply,) = self._ask(command(b"CLIENT", b"LIST", b"TYPE", b"normal"))
        if not isinstance(reply, bytes):
            return None
        found = []
        for line in reply.splitlines():
            facts = dict(word.split(b"=", 1) for word in line.split(b" ") if b"=" in word)
            name = facts.get(b"name", b"")
            if name.startswith(self._sign) and (epoch := name.removeprefix(self._sign)).isdigit():
                found.append(Follower(facts.get(b"addr", b"").decode("latin-1"), int(epoch), int(facts.get(b"idle", b"0"))))
        return found

    def add(self, settings: Sequence[Setting], there: Sequence[Setting], must: bool) -> None:
        """Add settings, the last of which is new; `must`: nobody else may have taken its number. Raises: TargetError."""
        has = {each.epoch for each in there}
        for each in settings:
            if each.epoch in has:
                continue
            (reply,) = self._ask(command(b"HSETNX", self._key, *_unparse(each)))
            if isinstance(reply, Refusal):
                raise TargetError(f"{self._name} cannot be written: {reply}", source=self._where)
            if must and reply == 0 and each is settings[-1] and each not in self.look().settings:
                raise _taken(each, self.look().settings)
        old = [b"%d" % each.epoch for each in settings[:-_MOST]]
        if old:
            self._ask(command(b"HDEL", self._key, *old))

    def forget(self) -> None:
        self._server = self._connection = None

    def close(self) -> None:
        self._rests_until = 0.0
        if self._connection is not None:
            self._connection.close()
        if self._server is not None:
            self._server.close()
        self.forget()

    @property
    def _name(self) -> str:
        return f"the key {self._key.decode('utf-8', 'replace')}"

    @property
    def _where(self) -> str | None:
        return None if self._server is None else str(self._server.url)

    def _ask(self, *commands: bytes) -> list[Any]:
        """The replies, of the node that has the key. Raises: TargetError where it cannot be asked."""
        for attempt in range(3):
            try:
                if self._server is None:
                    self._server = self._opener()
                if self._connection is None:
                    self._connection = self._server.dial(self._server.owner(self._key))
                    self._connection.patience_s = _PATIENCE_S
                replies = self._connection.ask(*commands)
            except (Lost, Refused) as e:
                where = self._where
                self.close()
                if attempt == 2 or (isinstance(e, Lost) and e.why != "closed"):
                    raise TargetError(f"the connection is lost: {e}", source=where) from None
                continue
            if not any(isinstance(reply, Refusal) and reply.code == "MOVED" for reply in replies):
                return replies
            self.close()  # which node has the key is asked anew
        return replies


class FileStore:
    """Settings in a file that all processes can read, with this machine's clock.

    Raises: ValueError for a path that cannot be.
    """

    def __init__(self, path: str) -> None:
        self._file = StateFile(path, "a move between two caches", _FORMAT, ())

    def look(self) -> Look:
        """As StateStore says."""
        found = self._file.load()
        settings: list[Setting] = []
        if found is not None:
            with self._file.reading():
                settings = [_setting(int(epoch), each) for epoch, each in found["settings"].items()]
        return Look(settings, time.time_ns() / 1e6)

    def write(self, setting: Setting) -> None:
        """As StateStore says."""
        known = self.look().settings
        if setting.epoch != _next_epoch(known):
            raise _taken(setting, known)
        self.restore([*known, setting])

    def restore(self, settings: Sequence[Setting]) -> None:
        """As StateStore says."""
        self._file.save({"settings": {each.epoch: _values(each) for each in settings[-_MOST:]}})

    def followers(self) -> None:
        """Nobody knows."""

    def forget(self) -> None:
        """There is nothing to forget."""

    def close(self) -> None:
        """There is nothing to close."""


class FunctionStore:
    """Settings that a function of the user's gives, as a state, its name, or a whole setting. It holds as soon as it is seen.

    Args:
        function: is called at each look.
    """

    def __init__(self, function: Callable[[], Setting | State | str]) -> None:
        self._function = function
        self._last: Setting | None = None

    def look(self) -> Look:
        """As StateStore says. Raises: whatever the function does; ValueError where it gives no state."""
        found = self._function()
        given = found if isinstance(found, Setting) else Setting(State(found))
        epoch = 1 if self._last is None else self._last.epoch
        if self._last is not None and given[:3] != self._last[:3]:
            epoch += 1
        self._last = given._replace(epoch=epoch)
        return Look([self._last], time.time_ns() / 1e6)

    def write(self, setting: Setting) -> None:
        """Raises: TargetError always."""
        raise TargetError("the state is decided by a function of the application, and cannot be set from here")

    def restore(self, settings: Sequence[Setting]) -> None:
        """There is nothing that could be lost."""

    def followers(self) -> None:
        """Nobody knows."""

    def forget(self) -> None:
        """There is nothing to forget."""

    def close(self) -> None:
        """There is nothing to close."""


# -- settings as text


def _values(setting: Setting) -> dict[str, Any]:
    return {
        "state": str(setting.state), "percent": setting.percent, "effective_at_ms": setting.effective_at_ms, "by": setting.by,
    }  # fmt: skip


def _setting(epoch: int, values: dict[str, Any]) -> Setting:
    """Raises: ValueError, TypeError, LookupError where it is none."""
    return Setting(
        State(values["state"]), float(values["percent"]), int(values["effective_at_ms"]), epoch, str(values["by"])[:200]
    )  # fmt: skip


def _unparse(setting: Setting) -> tuple[bytes, bytes]:
    return b"%d" % setting.epoch, json.dumps(_values(setting)).encode()


def _parse(epoch: bytes, text: bytes) -> Setting:
    return _setting(int(epoch), json.loads(text))


def _next_epoch(settings: Sequence[Setting]) -> int:
    return settings[-1].epoch + 1 if settings else 1


def _merged(histories: Iterable[Sequence[Setting]]) -> list[Setting]:
    """All that any of them has, the oldest first; the first that has a number says what it is."""
    found: dict[int, Setting] = {}
    for settings in histories:
        for each in settings:
            found.setdefault(each.epoch, each)
    return [found[epoch] for epoch in sorted(found)]


def _taken(setting: Setting, known: Sequence[Setting]) -> TargetError:
    last = known[-1] if known else None
    now = f"; it is {last} now, by {last.by or 'somebody'}" if last is not None else ""
    return TargetError(f"somebody else has changed the state meanwhile{now}: look again")

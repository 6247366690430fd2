"""The two caches of an application: what all of its clients of these two share in one process.

A client of the package redis sends commands and gives replies; which side a command goes to, and what is done when it was answered,
is decided here, the same for clients of both kinds (threads and asyncio) and for clusters.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final, NamedTuple, Protocol

from rdbkit.dual.beside import Beside
from rdbkit.dual.comparing import is_chosen
from rdbkit.dual.engine import Engine
from rdbkit.dual.marks import Marks
from rdbkit.dual.metrics import Metrics
from rdbkit.dual.openers import Place, ServerOpener, opener_of, place_of, settings_of
from rdbkit.dual.state_store import Where, open_store
from rdbkit.dual.states import Setting, Side, State, mirrored, primary, reads_new
from rdbkit.dual.watch import LOOK_S, Watch
from rdbkit.targets.keyspecs import Written

__all__ = ["OTHER", "Options", "Pair", "Route", "Watching", "given_sides", "pair_of", "split_arguments"]

#: How long the end of a process waits for what it has written to be on the other side.
_END_S: Final = 5.0
#: How long a side that does not answer reads is not asked again.
_DOWN_S: Final = 1.0
#: The other one of the two.
OTHER: Final[dict[Side, Side]] = {"old": "new", "new": "old"}
#: Kinds of commands after which keys are looked at.
_MARKED: Final = frozenset(("write", "script", "blocking-write"))


class Watching(Protocol):
    """Knows which setting holds; see `rdbkit.dual.watch.Watch`."""

    @property
    def current(self) -> Setting:
        """The setting that holds now."""
        ...

    def on_change(self, callback: Callable[[Setting, Setting], object]) -> None:
        """Have a function called with the setting before and the one from now on."""

    def report(self) -> dict[str, Any]:
        """How well it is known, as plain JSON types."""
        ...


@dataclass(frozen=True)
class Options:
    """What an application decides about its two caches, the same for all of its clients.

    Attributes:
        mirror: "marks": what is written is brought to the other side by this process; "follow": it is not, since `rdbkit copy
            --follow` does that outside.
        fallback: in the state NEW, a read that finds nothing on the new side is asked of the old one, too.
        most_marks: so many keys may wait for the other side.
        recheck: so many keys a second are compared after they were written on the other side.
        compare: the share of reads, from 0 to 1, that a thread asks of both sides, to see whether the answers are the same.
        publish: "primary": messages go to the side that is used; "both": to the other one, too.
        mirror_flush: FLUSHDB and FLUSHALL empty both sides. Without it the other one needs `rdbkit sync` then.
        hide_keys: samples in metrics have no names of keys.
        switch_wait_s: for how many seconds commands wait at a switch, at most, until what was written before is on the other side.
        journal: the beginning of a path of files that keep what waits for the other side, for the next process, where this one is
            killed.
    """

    mirror: str = "marks"
    fallback: bool = False
    compare: float = 0.0
    publish: str = "primary"
    mirror_flush: bool = False
    most_marks: int = 1_000_000
    recheck: int = 2000
    hide_keys: bool = False
    switch_wait_s: float = 2.0
    journal: str | os.PathLike[str] | None = None

    def __post_init__(self) -> None:
        if self.mirror not in ("marks", "follow"):
            raise ValueError(f"mirror is marks or follow, not {self.mirror}")
        if self.publish not in ("primary", "both"):
            raise ValueError(f"publish is primary or both, not {self.publish}")
        if not 0 <= self.compare <= 1:
            raise ValueError(f"a share of reads is a number from 0 to 1, not {self.compare}")
        if not self.switch_wait_s >= 0:
            raise ValueError(f"commands wait at a switch for 0 seconds or more, not {self.switch_wait_s}")


class Route(NamedTuple):
    """Where commands go while a setting holds.

    Attributes:
        setting: it.
        primary: the side whose replies count.
        second: the side that reads may be asked of besides the primary; None for neither.
        marks: takes the keys that were written; None where nobody brings them to the other side.
        compares: whether reads are compared.
        is_plain: whether reads go to the primary, and nothing else is done with them.
        is_alone: whether that holds for all commands, since the other side is not used.
    """

    setting: Setting
    primary: Side
    second: Side | None
    marks: Marks | None
    compares: bool
    is_plain: bool
    is_alone: bool


class Pair:
    """Two caches, and how far the move between them has come.

    Args:
        db: the database that clients use if nothing else is said.
        old, new: open the two servers, for the threads that bring keys over.
        watch: tells which setting holds.
        options: what the application decides.

    Attributes:
        metrics: what was counted.
    """

    def __init__(self, db: int, old: ServerOpener, new: ServerOpener, watch: Watching, options: Options) -> None:
        self.db = db
        self.options = options
        self.metrics = Metrics(options.hide_keys)
        self._watch = watch
        self._open: dict[Side, ServerOpener] = {"old": old, "new": new}
        self._engines: dict[Side, tuple[Marks, Engine]] = {}  # by the side that they write
        self._lock = threading.RLock()
        self._beside = Beside(db, self._open, self.metrics, options.publish == "both", options.mirror_flush)
        self._flying: list[None] = []  # an element for each command that may write and has not been answered
        self._ended: weakref.WeakSet[Marks] = weakref.WeakSet()  # whose engines have ended
        self._late = 0  # commands that were answered after a switch that had waited for them
        self._down_until: dict[Side, float] = {}
        self._route: Route | None = None  # while that is not known, or changes
        watch.on_change(self._turn)
        _all.add(self)

    # -- for applications

    @property
    def setting(self) -> Setting:
        """Which setting holds now. Raises: as `rdbkit.dual.watch.Watch.start`, the first time."""
        return self.route.setting

    def drain(self, wait_s: float = _END_S) -> bool:
        """Wait until what was written before is on the other side; whether it is. False also where some of it needs `sync`."""
        drained = self._beside.wait(wait_s)  # which may mark keys
        drained &= all(engine.drain(wait_s) for _, engine in list(self._engines.values()))
        return drained and not self.needs_sync

    @property
    def needs_sync(self) -> bool:
        """Whether one side lacks something that nobody brings there any more, so that only `rdbkit sync` makes them equal."""
        return bool(self._late) or any(engine.needs_sync for _, engine in list(self._engines.values()))

    def report(self) -> dict[str, Any]:
        """What was counted, as plain JSON types; see `rdbkit.dual.metrics.Metrics.report`."""
        return self.metrics.report() | self._watch.report() | {"late": self._late}

    def close(self, wait_s: float = _END_S) -> None:
        """Bring what was written to the other side, for so many seconds at most. A client that is used later begins again."""
        with self._lock:
            engines, self._engines = self._engines, {}
            self._route = None
            for marks, engine in engines.values():
                engine.close(wait_s)
                self._ended.add(marks)

    # -- for clients: where to

    @property
    def route(self) -> Route:
        """Where commands go now. While this process goes from one side to the other, waits for it. Raises: as `setting`."""
        found = self._route
        return self.find_route() if found is None else found

    @property
    def known_route(self) -> Route | None:
        """As `route`, which waits where this is None: for a loop of asyncio, which has `find_route` wait in a thread."""
        return self._route

    def enter(self) -> Route:
        """Where a command that may write goes. A switch waits for it, until `leave`, which must follow. Raises: as `setting`."""
        flying = self._flying
        while True:
            flying.append(None)
            route = self._route
            if route is not None:
                return route
            flying.pop()
            self.find_route()

    def try_enter(self) -> Route | None:
        """As `enter`, which waits where this gives None: for a loop of asyncio, which has `find_route` wait in a thread."""
        self._flying.append(None)
        route = self._route
        if route is None:
            self._flying.pop()
        return route

    def leave(self) -> None:
        """What was entered is over, and marked."""
        self._flying.pop()

    def find_route(self) -> Route:
        """As `route`, where that is not known; may ask a server, or wait for a switch of this process."""
        with self._lock:
            if self._route is None:
                setting = self._watch.current  # which may call us with a change
                self._route = self._route_of(setting)
            return self._route

    def is_dialled(self, route: Route, keys: Sequence[bytes]) -> bool:
        """Whether a read of these keys is asked of the new side first, though the old one is the one that counts.

        So it is where all of them are in the share that is read there, and none waits to be brought over.
        """
        return all(reads_new(route.setting, key) and not self._is_waiting(route, key) for key in keys)

    def may_fall_back(self, route: Route, keys: Sequence[bytes]) -> bool:
        """Whether the old side may be asked for keys that the new one does not have: not where they were deleted just now."""
        return not any(self._is_waiting(route, key) for key in keys)

    def _is_waiting(self, route: Route, key: bytes) -> bool:
        """Whether a key that this process has written is not on the other side yet."""
        return route.marks is not None and route.marks.is_pending(self.db, key)

    def is_up(self, side: Side) -> bool:
        """Whether a side may be asked that can be done without: it is left alone for a second after it has failed."""
        return time.monotonic() >= self._down_until.get(side, 0.0)

    def failed(self, side: Side, error: Exception) -> None:
        """A side that can be done without has not answered a read."""
        self._down_until[side] = time.monotonic() + _DOWN_S
        self.metrics.count("outages")
        self.metrics.sample("outage", self.db, b"", f"{side}: {error}")

    # -- for clients: what follows

    def wrote(self, route: Route, written: Written, args: Sequence[bytes] = ()) -> None:
        """A command was answered, or nobody knows what became of it: its keys are to be looked at. Never raises, never blocks.

        Args:
            route: where it went.
            written: what it does.
            args: the command itself.
        """
        marks = route.marks
        if marks is None:
            return
        if written.kind in _MARKED:
            for key in written.keys:
                marks.add(self.db, key)
            for db, key in written.elsewhere:
                marks.add(db, key)
            self._look_whether_late(route, marks)
        elif written.kind in ("definition", "publish", "flush", "unknown"):
            self._beside.wrote(route.primary, marks, written.kind, list(args))
        elif written.kind == "other" and self._is_of_connection(args):
            self.metrics.count("needs_sync", 1, args[0].decode().lower())

    def _is_of_connection(self, args: Sequence[bytes]) -> bool:
        """Whether a command changes what others do, which marks do not know: they write another database, or are done only now."""
        name = args[0].upper() if args else b""
        return name == b"EXEC" or (name == b"SELECT" and len(args) > 1 and args[1] != b"%d" % self.db)

    def wrote_keys(self, route: Route, keys: Iterable[bytes]) -> None:
        """As `wrote`, of keys of the database in use."""
        marks = route.marks
        if marks is not None:
            for key in keys:
                marks.add(self.db, key)
            self._look_whether_late(route, marks)

    def _look_whether_late(self, route: Route, marks: Marks) -> None:
        """Count a command that was answered after a switch: nobody takes these marks any more."""
        if self._route is not route and marks in self._ended:
            self._late += 1

    def compare(self, route: Route, keys: Sequence[bytes], args: Sequence[bytes]) -> None:
        """A read was answered: in a share of cases see whether the other side answers the same. Never raises, never blocks."""
        if is_chosen(self.options.compare, keys[0]):
            self._beside.compare(route.primary, route.marks, list(args), keys)

    # -- switching

    def _route_of(self, setting: Setting) -> Route:
        second: Side | None = None
        if setting.state is State.DIAL:
            second = "new"
        elif setting.state is State.NEW and self.options.fallback:
            second = "old"
        toward = mirrored(setting.state)
        marks = None if toward is None or self.options.mirror != "marks" else self._begin(toward)
        compares = toward is not None and self.options.compare > 0
        return Route(setting, primary(setting.state), second, marks, compares, second is None and not compares, toward is None)

    def _begin(self, toward: Side) -> Marks:
        """What takes the keys to be brought to a side."""
        found = self._engines.get(toward)
        if found is None:
            journal = self.options.journal
            marks = Marks(self.options.most_marks, None if journal is None else f"{os.fspath(journal)}-to-{toward}")
            engine = Engine(self._open[OTHER[toward]], self._open[toward], marks, self.metrics, recheck=self.options.recheck)
            found = self._engines[toward] = marks, engine
        found[1].start()
        return found[0]

    def _turn(self, before: Setting, now: Setting) -> None:
        """Go from one setting to another; to another side only when what was written before is there, while commands wait."""
        with self._lock:
            self._route = None
            toward = mirrored(before.state)
            if toward is not None and toward != mirrored(now.state) and (found := self._engines.pop(toward, None)):
                self._end(*found, is_switch=primary(before.state) != primary(now.state))
            self._route = self._route_of(now)  # where this raises, the next command tries again

    def _end(self, marks: Marks, engine: Engine, is_switch: bool) -> None:
        """Bring nothing more to a side: on a switch it decides itself from now on."""
        end = time.monotonic() + (self.options.switch_wait_s if is_switch else 0.0)
        while is_switch and self._flying and time.monotonic() < end:
            time.sleep(0.001)
        drained = engine.drain(max(0.0, end - time.monotonic()))
        waiting = len(marks)
        ended = engine.close(max(0.0, end - time.monotonic()))
        if is_switch and not (drained and ended):
            self.metrics.count("needs_sync", max(waiting, 1), "switch")
        self._ended.add(marks)


# -- the pairs of this process

_OPTIONS: Final = tuple(each.name for each in fields(Options))
_OURS: Final = ("old", "new", "name", "state", "look_s", "open_old", "open_new", *_OPTIONS)
_pairs: Final[dict[tuple[Any, ...], Pair]] = {}
_pairs_lock = threading.Lock()


def split_arguments(kwargs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of a client: those that are ours, and those that the package redis knows."""
    ours = {name: value for name, value in kwargs.items() if name in _OURS}
    return ours, {name: value for name, value in kwargs.items() if name not in ours}


def given_sides(old: Any, new: Any) -> frozenset[Side]:
    """The sides whose clients were given, which are the user's to close: not by None or a URL."""
    given: dict[Side, Any] = {"old": old, "new": new}
    return frozenset(side for side, client in given.items() if client is not None and not isinstance(client, str))


def pair_of(
    old: Any,
    new: Any,
    *,
    name: str = "default",
    state: Where = None,
    look_s: float = LOOK_S,
    open_old: ServerOpener | None = None,
    open_new: ServerOpener | None = None,
    **options: Any,
) -> Pair:
    """What clients of these two servers share in this process; it is made for the first of them.

    Args:
        old, new: clients of the package redis, of any kind.
        name: of the move.
        state: where it is kept; see `open_store`.
        look_s: seconds between two looks at it.
        open_old, open_new: open the servers; needed where that cannot be told from the clients.
        options: see `Options`.

    Raises: ValueError where the two do not go together.
    """
    databases = [int(settings_of(client).get("db") or 0) for client in (old, new)]
    if databases[0] != databases[1]:
        raise ValueError(f"the database is {databases[0]} on the old side and {databases[1]} on the new one: name the same")
    chosen = Options(**options)
    places: list[Place | ServerOpener] = [opener or place_of(client) for client, opener in ((old, open_old), (new, open_new))]
    if places[0] == places[1]:
        raise ValueError("old and new are the same server")
    key = (*places, databases[0], name, state, look_s, chosen)
    with _pairs_lock:
        found = _pairs.get(key)
        if found is None:
            opens = open_old or opener_of(old), open_new or opener_of(new)
            watch = Watch(open_store(state, name, *opens), look_s)
            found = _pairs[key] = Pair(databases[0], *opens, watch, chosen)
    return found


#: All there are, for a process that is forked off.
_all: Final[weakref.WeakSet[Pair]] = weakref.WeakSet()


def _after_fork() -> None:
    global _pairs_lock
    _pairs_lock = threading.Lock()  # a thread that is not here may have had the other
    for pair in list(_all):
        pair._lock = threading.RLock()
        pair._flying = []
        pair._route = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

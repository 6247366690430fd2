"""All keys of a running server on their way to another: each node's databases are read by a thread, and go on where they were."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from hashlib import blake2b
from typing import Any, Final

from rdbkit.errors import TargetError
from rdbkit.live import copy_state
from rdbkit.live.connection import Address, Lost, Refused
from rdbkit.live.copy_state import CopyState
from rdbkit.live.lanes import Lane
from rdbkit.live.server import Server
from rdbkit.live.transfer import Counts, Told, Transfer, Way
from rdbkit.passes.pages import Page
from rdbkit.policy.ledger import Ledger, Loss
from rdbkit.resp import command
from rdbkit.storage.rate_limiter import RateLimiter

__all__ = ["FirstPass", "Pace", "SharedLedger", "copy_server", "databases_of", "processes_of", "total"]

_WAITS: Final = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
#: Databases that are tried where a server does not tell which have keys.
_MOST_DATABASES: Final = 1024
#: How often whoever waits is told how far it is, in seconds.
_TICK_S: Final = 0.2
#: How long a thread may take to end that was asked to, in seconds.
_ENDING_S: Final = 10.0
#: How often slots that have moved are read again.
_ROUNDS: Final = 10


class _Stopped(Exception):
    """The pass was asked to end."""


class SharedLedger(Ledger):
    """A ledger for several threads."""

    def __init__(self, loss_callback: Callable[[Loss], object] | None = None) -> None:
        super().__init__(loss_callback)
        self._lock = threading.Lock()

    def add(self, loss: Loss, forbidden: bool = False) -> None:
        """Enter a loss."""
        with self._lock:
            super().add(loss, forbidden)


@dataclass
class Pace:
    """How a source is read.

    Args:
        batch: keys to ask for at a time, about.
        big: bytes above which a value is not read whole; 0 to look at none.
        keys: lets so many keys a second pass.
        value_bytes: lets so many bytes of values a second pass.
    """

    batch: int = 1000
    big: int = 0
    keys: RateLimiter = field(default_factory=lambda: RateLimiter(None))
    value_bytes: RateLimiter = field(default_factory=lambda: RateLimiter(None))


def databases_of(server: Server) -> list[int]:
    """The databases of a server that have keys, or may have.

    Raises: TargetError where it cannot be reached.
    """
    if server.url.db is not None:
        return [server.url.db]
    if server.slots():
        return [0]
    reply = server.ask_each_node(0, [command(b"INFO", b"keyspace")])[0][0]
    if isinstance(reply, bytes):
        return [int(number) for number in re.findall(rb"(?m)^db(\d+):keys=", reply)]
    found = []
    for db in range(_MOST_DATABASES):
        reply = server.ask_each_node(db, [command(b"DBSIZE")])[0][0]
        if not isinstance(reply, int):
            break
        if reply:
            found.append(db)
    return found or [0]


def processes_of(server: Server, db: int = 0) -> dict[Address, str]:
    """What tells the process of each node from any other; empty where nothing does.

    A process that has no name to tell is known by the order in which it lists keys, of which each process has its own.

    Raises: TargetError where the server cannot be asked for some time.
    """
    asked = [command(b"INFO", b"server"), command(b"SCAN", b"0", b"COUNT", b"20")]
    found = {}
    for address, (info, page) in zip(server.masters(), server.ask_each_node(db, asked), strict=True):
        run_id = re.search(rb"run_id:([0-9a-f]{8,})", info) if isinstance(info, bytes) else None
        if run_id and run_id[1].strip(b"0"):
            found[address] = run_id[1].decode()
        elif isinstance(page, list) and page[1]:
            digest = blake2b(b"".join(b"%d:%b" % (len(name), name) for name in page[1]), digest_size=16)
            found[address] = f"scan:{digest.hexdigest()}"
        else:
            found[address] = ""
    return found


def copy_server(way: Way, ledger: Ledger, told: Told, *, batch: int = 1000, big: int = 0, large: Any = None) -> Counts:
    """Copy all keys of the source's databases.

    Raises: TargetError where a server cannot be reached for long, or refuses what cannot be done without.
    """
    with CopyState(None, {}) as state:
        return FirstPass(way, ledger, told, state, Pace(batch, big), databases_of(way.source), large).run()


class FirstPass:
    """Reads all keys of a source, and writes them into a target.

    Args:
        way: from where to where, and how.
        ledger: takes the losses.
        told: is told of keys that were not simply written, by several threads.
        state: how far an earlier run is, and this one.
        pace: how fast.
        databases: of the source.
        large: takes keys above `pace.big`, with their database.
        counts: of an earlier run.
        begun: is given each `Transfer` before it is used.
    """

    def __init__(
        self,
        way: Way,
        ledger: Ledger,
        told: Told,
        state: CopyState,
        pace: Pace,
        databases: Sequence[int],
        large: Callable[[int, list[bytes]], object] | None = None,
        counts: Counts | None = None,
    ) -> None:
        self.way = way
        self.ledger = ledger
        self.told = told
        self.state = state
        self.pace = pace
        self.databases = databases
        self.large = large
        self._earlier = counts or Counts()
        self._lock = threading.Lock()
        self._transfers: list[Transfer] = []
        self._answered: dict[Transfer, Counts] = {}  # what the state says of each
        self._ended: list[Counts] = []
        self._stop = threading.Event()

    @property
    def counts(self) -> Counts:
        """What became of the keys so far, earlier runs included."""
        with self._lock:
            return total([self._earlier, *self._ended, *(transfer.counts for transfer in self._transfers)])

    def run(self, tick: Callable[[], object] | None = None) -> Counts:
        """Copy them; returns the counts.

        Args:
            tick: called now and then while it goes on.

        Raises: TargetError where a server cannot be reached for long, or refuses what cannot be done without; what `tick` raises.
        """
        read: dict[Address, set[int]] = {}  # which slots each node had when it was read
        for _ in range(_ROUNDS if self.databases else 0):
            slots = {address: self._slots(address) for address in self.way.source.masters()}
            # a node that has got slots meanwhile may have keys of them behind its cursor
            nodes = [address for address in slots if address not in read or slots[address] - read[address]]
            if not nodes:
                break
            self._run_nodes(nodes, processes_of(self.way.source, self.databases[0]), slots, tick)
            read |= {address: slots[address] for address in nodes}
            with suppress(Lost):  # what is known of the nodes may still hold
                self.way.source.read_slots()
        return self.counts

    def stop(self) -> None:
        """Let the threads end after the page at hand."""
        self._stop.set()

    # -- threads

    def _run_nodes(
        self, nodes: list[Address], processes: dict[Address, str], slots: dict[Address, set[int]], tick: Callable[[], object] | None
    ) -> None:
        errors: list[BaseException] = []

        def work(address: Address) -> None:
            try:
                self._copy_node(address, processes.get(address, ""), _ranges(slots[address]))
            except _Stopped:
                pass
            except BaseException as e:
                errors.append(e)
                self.stop()

        threads = [threading.Thread(target=work, args=(address,), daemon=True) for address in nodes]
        for thread in threads:
            thread.start()
        try:
            while any(thread.is_alive() for thread in threads):
                for thread in threads:
                    thread.join(_TICK_S / len(threads))
                if tick is not None:
                    tick()
        except BaseException:
            self.stop()
            until = time.monotonic() + _ENDING_S
            for thread in threads:
                thread.join(max(0.0, until - time.monotonic()))
            raise
        if errors:
            raise errors[0]

    def _copy_node(self, address: Address, process: str, slots: str) -> None:
        transfer = Transfer(self.way, self._dial(address), self.ledger, self.told)
        with self._lock:
            self._transfers.append(transfer)
        try:
            for db in self.databases:
                place = self.state.lane(_name(address), db, process, slots)
                if not place.done:
                    self._copy_database(transfer, place)
        finally:
            with self._lock:
                self._transfers.remove(transfer)
                self._ended.append(transfer.counts)
            transfer.close()

    def _copy_database(self, transfer: Transfer, place: copy_state.Lane) -> None:
        seen = [transfer.counts.read, transfer.counts.value_bytes]

        def save(cursor: bytes) -> None:
            counts = transfer.counts
            read, size = counts.read - seen[0], counts.value_bytes - seen[1]
            seen[:] = counts.read, counts.value_bytes
            place.cursor, place.keys, place.size = cursor.decode(), place.keys + read, place.size + size
            self._note(transfer, place)
            if self._stop.is_set():
                raise _Stopped
            self.pace.value_bytes.take(size)

        def wanted(page: Page) -> Page:
            self.pace.keys.take(page.count)
            return page

        lane = Lane(
            transfer, place.db, cursor=place.cursor.encode(), batch=self.pace.batch, big=self.pace.big, large=self.large,
            save=save, wanted=wanted,
        )  # fmt: skip
        waits = iter(_WAITS)
        while True:
            before = lane.cursor
            try:
                lane.run()
                break
            except Refused as e:
                raise TargetError(f"its keys cannot be read: {e}", source=str(self.way.source.url), db=place.db) from None
            except Lost as e:
                if lane.cursor != before:
                    waits = iter(_WAITS)
                wait = next(waits, None)
                if wait is None:
                    raise TargetError(f"the connection is lost: {e}", source=str(self.way.source.url)) from None
                self._stop.wait(wait)
                self._begin_again(lane, place)
        place.done = True
        self._note(transfer, place)

    def _begin_again(self, lane: Lane, place: copy_state.Lane) -> None:
        """Where a lane goes on whose connection was lost: a process that is another one has other cursors."""
        if self._stop.is_set():
            raise _Stopped
        process = processes_of(self.way.source, place.db).get(_address(place.node), "")
        if not process or process != place.process:
            place.process, place.cursor = process, "0"
            lane.cursor = b"0"

    def _note(self, transfer: Transfer, place: copy_state.Lane) -> None:
        """All that a lane has read up to here has been answered for."""
        with self._lock:
            self._answered[transfer] = replace(transfer.counts)
            self.state.note("counts", vars(total([self._earlier, *self._answered.values()])))
        self.state.keep(place)

    # -- nodes

    def _dial(self, address: Address) -> Any:
        waits = iter(_WAITS)
        while True:
            try:
                return self.way.source.dial(address)
            except Refused as e:
                raise TargetError(f"its keys cannot be read: {e}", source=str(self.way.source.url)) from None
            except Lost as e:
                wait = next(waits, None)
                if wait is None:
                    raise TargetError(f"it cannot be reached: {e}", source=str(self.way.source.url)) from None
                if self._stop.wait(wait):
                    raise _Stopped from None

    def _slots(self, address: Address) -> set[int]:
        """The slots of a node; none for a server that is no cluster."""
        return {slot for slot, owner in enumerate(self.way.source.slots()) if owner == address}


def total(counts: Sequence[Counts]) -> Counts:
    """The sum of several counts."""
    return Counts(**{each.name: sum(getattr(count, each.name) for count in counts) for each in fields(Counts)})


def _ranges(slots: set[int]) -> str:
    """Slots as text.

    >>> _ranges({0, 1, 2, 7}), _ranges(set())
    ('0-2,7-7', '')
    """
    found: list[list[int]] = []
    for slot in sorted(slots):
        if found and found[-1][1] == slot - 1:
            found[-1][1] = slot
        else:
            found.append([slot, slot])
    return ",".join(f"{first}-{last}" for first, last in found)


def _name(address: Address) -> str:
    return f"{address[0]}:{address[1]}"


def _address(name: str) -> Address:
    host, _, port = name.rpartition(":")
    return host, int(port)

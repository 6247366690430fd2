"""All keys of a running server on their way to another: each node's databases are read by a thread, and go on where they were."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import fields, replace
from typing import Any, Final

from rdbkit.errors import TargetError
from rdbkit.format.replies import Refusal
from rdbkit.live import copy_state
from rdbkit.live.connection import Address, Connection, Lost, Refused
from rdbkit.live.copy_state import CopyState, Trouble
from rdbkit.live.coverage import Coverage, names_of_slots
from rdbkit.live.lanes import Lane
from rdbkit.live.latency import LatencyGuard, PageSize
from rdbkit.live.pace import Pace
from rdbkit.live.processes import process_of
from rdbkit.live.server import WAITS
from rdbkit.live.target_watch import TargetWatch
from rdbkit.live.transfer import Counts, Told, Transfer, Way
from rdbkit.policy.ledger import Ledger, Loss

__all__ = ["FirstPass", "SharedLedger", "total"]

#: How often whoever waits is told how far it is, in seconds.
_TICK_S: Final = 0.2
#: How long a thread may take to end that was asked to, in seconds.
_ENDING_S: Final = 10.0
#: How often the cluster is asked which slots have moved, in seconds.
_LOOK_S: Final = 10.0
#: How many slots are listed at once, at most: their node answers nobody else meanwhile.
_MOST_SLOTS: Final = 256
#: How often slots that have moved are read again, and how long is waited before that, in seconds.
_ROUNDS: Final = 50
_ROUND_S: Final = 1.0
#: How long a node of a cluster may be lost whose slots no other one takes over, in seconds.
_NODE_PATIENCE_S: Final = 120.0
#: Keys that are tried again at a time.
_AGAIN: Final = 500
#: What may become of a key, and is no trouble.
_FINE: Final = ("written", "equal", "gone")


class _Stopped(Exception):
    """The pass was asked to end."""


class _NodeLost(Exception):
    """A node cannot be reached for long."""

    def __init__(self, error: TargetError) -> None:
        super().__init__(str(error))
        self.error = error


class SharedLedger(Ledger):
    """A ledger for several threads."""

    def __init__(self, loss_callback: Callable[[Loss], object] | None = None) -> None:
        super().__init__(loss_callback)
        self._lock = threading.Lock()

    def add(self, loss: Loss, forbidden: bool = False) -> None:
        """Enter a loss."""
        with self._lock:
            super().add(loss, forbidden)


class FirstPass:
    """Reads all keys of a source, and writes them into a target.

    Args:
        way: from where to where, and how.
        ledger: takes the losses.
        told: is told of keys that were not simply written, by several threads.
        state: how far an earlier run is, and this one.
        pace: how fast.
        databases: of the source.
        counts: of an earlier run.

    Attributes:
        unread: slots of a cluster that kept moving, so that keys of theirs may be missing.
    """

    def __init__(
        self,
        way: Way,
        ledger: Ledger,
        told: Told,
        state: CopyState,
        pace: Pace,
        databases: Sequence[int],
        counts: Counts | None = None,
    ) -> None:
        self.way = way
        self.ledger = ledger
        self.told = told
        self.state = state
        self.pace = pace
        self.databases = databases
        self.unread = 0
        self._watch = TargetWatch(way.target, state)
        self._earlier = counts or Counts()
        self._coverage = Coverage(way.source)
        self._lock = threading.Lock()
        self._transfers: list[Transfer] = []
        self._answered: dict[Transfer, Counts] = {}  # what the state says of each
        self._ended: list[Counts] = []
        self._stop = threading.Event()
        self._lost: dict[Address, tuple[float, TargetError]] = {}  # since when

    @property
    def losses(self) -> int:
        """How often all was read again, since the target may have lost what it took."""
        return self._watch.losses

    @property
    def earlier(self) -> int:
        """Keys that earlier runs had read, as far as that still counts."""
        return self._earlier.read

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
        if self._watch.begins_anew(self._earlier.written):
            self._earlier = Counts()
        for number in range(_ROUNDS if self.databases else 0):
            nodes = self._coverage.missing()
            if not nodes and self._watch.has_lost():
                self._coverage = Coverage(self.way.source)
                nodes = self._coverage.missing()
            if not nodes:
                break
            if number:  # what is on its way shall arrive
                time.sleep(_ROUND_S)
            self._run_nodes(nodes, number > 0, tick)
        self.unread = (
            sum(1 if slots is None else len(slots) for slots in self._coverage.missing().values()) if self.databases else 0
        )
        self._try_again()
        return self.counts

    def stop(self) -> None:
        """Let the threads end after the page at hand."""
        self._stop.set()

    # -- threads

    def _run_nodes(self, nodes: dict[Address, frozenset[int] | None], again: bool, tick: Callable[[], object] | None) -> None:
        """Read nodes, each by a thread of its own; those that are lost and whose slots others may take over are left."""
        errors: list[BaseException] = []

        def work(address: Address, slots: frozenset[int] | None) -> None:
            try:
                self._copy_node(address, slots, again)
                self._lost.pop(address, None)
            except _Stopped:
                pass
            except _NodeLost as e:
                self._coverage.abandon(address)
                since, _ = self._lost.setdefault(address, (time.monotonic(), e.error))
                if not self.way.source.slots() or time.monotonic() - since > _NODE_PATIENCE_S:
                    errors.append(e.error)
                    self.stop()
                with suppress(Lost):
                    self.way.source.read_slots()
            except BaseException as e:
                errors.append(e)
                self.stop()

        threads = [threading.Thread(target=work, args=each, daemon=True) for each in nodes.items()]
        for thread in threads:
            thread.start()
        looked_at = time.monotonic()
        try:
            while any(thread.is_alive() for thread in threads):
                for thread in threads:
                    thread.join(_TICK_S / len(threads))
                if tick is not None:
                    tick()
                if time.monotonic() - looked_at >= _LOOK_S:
                    looked_at = time.monotonic()
                    self._coverage.look()
        except BaseException:
            self.stop()
            until = time.monotonic() + _ENDING_S
            for thread in threads:
                thread.join(max(0.0, until - time.monotonic()))
            raise
        if errors:
            raise errors[0]

    def _copy_node(self, address: Address, slots: frozenset[int] | None, again: bool) -> None:
        owned = self._coverage.begin(address, slots)
        connection = self._dial(address)
        transfer = Transfer(self.way, connection, self.ledger, self.told)
        with self._lock:
            self._transfers.append(transfer)
        try:
            for db in self.databases:
                process = self._process(connection, db)
                # what is read once more is none that a state knows
                place = (
                    copy_state.Lane(_name(address), db, process) if again else self.state.lane(_name(address), db, process, owned)
                )
                if not place.done:
                    self._copy_database(transfer, place, address, slots, None if again else self.state)
        finally:
            with self._lock:
                self._transfers.remove(transfer)
                self._ended.append(transfer.counts)
            transfer.close()
        try:
            self._coverage.end(address)
        except Lost as e:
            raise _NodeLost(self._error("connection lost", e)) from None

    def _copy_database(
        self,
        transfer: Transfer,
        place: copy_state.Lane,
        address: Address,
        slots: frozenset[int] | None,
        state: CopyState | None,
    ) -> None:
        seen = [transfer.counts.read, transfer.counts.value_bytes]

        def save(cursor: bytes) -> None:
            counts = transfer.counts
            read, size = counts.read - seen[0], counts.value_bytes - seen[1]
            seen[:] = counts.read, counts.value_bytes
            place.cursor, place.keys, place.size = cursor.decode(), place.keys + read, place.size + size
            self._note(transfer, place, state)
            self.pace.value_bytes.take(size)

        def pace(keys: int) -> None:
            if self._stop.is_set():
                raise _Stopped
            self.pace.keys.take(keys)

        with ExitStack() as stack:
            size = PageSize(self.pace.batch, self.pace.max_latency_ms or 0.0)
            if self.pace.max_latency_ms is not None:
                stack.enter_context(LatencyGuard(self._dial(address), size))
            lane = Lane(
                transfer, place.db, cursor=place.cursor.encode(), batch=lambda: size.keys, big=self.pace.big,
                save=save, slots=slots, pace=pace,
            )  # fmt: skip
            if state is None and slots is not None and self._copy_slots(lane, address, slots):
                return
            waits = iter(WAITS)
            while True:
                before = lane.cursor
                try:
                    lane.run()
                    break
                except Refused as e:
                    raise TargetError(f"its keys cannot be read: {e}", source=str(self.way.source.url), db=place.db) from None
                except Lost as e:
                    if lane.cursor != before:
                        waits = iter(WAITS)
                    self._wait(waits, e)
                    self._begin_again(lane, place)
        place.done = True
        self._note(transfer, place, state)

    def _copy_slots(self, lane: Lane, address: Address, slots: frozenset[int]) -> bool:
        """Copy the keys of slots that have moved, each by the list of its names; whether the node can be asked for that.

        A slot that its node does not have, or that is on its way, is left to another round, as all are where the node is lost.
        """
        if len(self.databases) > 1:
            return False  # a slot has keys in each of them
        connection, batch = lane.transfer.connection, self.pace.batch
        left = sorted(slots)
        at_once = 1
        with suppress(Lost):
            connection.open()
            while left:
                some, left = left[:at_once], left[at_once:]
                found = names_of_slots(connection, some)
                if isinstance(found, Refusal):
                    return False
                self._coverage.abandon(address)  # the list of all its keys, which is not made
                names = [name for each in found.values() for name in each]
                for at in range(0, len(names), batch):
                    lane.copy(names[at : at + batch])
                self._coverage.has_read(found)
                at_once = max(1, at_once // 2) if len(names) > batch else min(2 * at_once, _MOST_SLOTS)
        return True

    def _begin_again(self, lane: Lane, place: copy_state.Lane) -> None:
        """Where a lane goes on whose connection was lost: a process that is another one has other cursors."""
        try:
            process = self._process(lane.transfer.connection, place.db)
        except _NodeLost:
            return  # the lane meets it, too
        if not process or process != place.process:
            place.process, place.cursor = process, "0"
            lane.cursor = b"0"

    def _note(self, transfer: Transfer, place: copy_state.Lane, state: CopyState | None) -> None:
        """All that a lane has read up to here has been answered for."""
        if state is None:
            return
        with self._lock:
            self._answered[transfer] = replace(transfer.counts)
            state.set_fact("counts", vars(total([self._earlier, *self._answered.values()])))
        state.keep(place)

    # -- keys that were trouble

    def _try_again(self) -> None:
        """Once more, keys that changed each time that they were read, and all that were trouble to an earlier run.

        Those that the target did not take are known by their names there, by which the source cannot be asked where edits give
        others: such keys stay what the earlier run found.
        """
        all_kinds = self.state.is_resumed and not self.way.conversion.may_name
        troubles = self.state.trouble(what=None if all_kinds else "changed")
        groups: dict[tuple[Address, int], list[Trouble]] = {}
        for each in troubles:
            owner = self.way.source.owner(each.key)
            if owner is not None:
                groups.setdefault((owner, each.db), []).append(each)
        for (address, db), keys in groups.items():
            connection = self._dial(address)
            transfer = Transfer(self.way, connection, self.ledger, self.told)
            try:
                for at in range(0, len(keys), _AGAIN):
                    some = [each.key for each in keys[at : at + _AGAIN]]
                    found = transfer.move(db, some)
                    for key in some:
                        if found.get(key, "written") in _FINE:
                            self.state.settle(db, key)
            except Lost as e:
                raise self._error("connection lost", e) from None
            finally:
                transfer.close()

    # -- nodes

    def _process(self, connection: Connection, db: int) -> str:
        waits = iter(WAITS)
        while True:
            try:
                connection.open()
                connection.select(db)
                return process_of(connection, is_cluster=bool(self.way.source.slots()))
            except Refused as e:
                raise TargetError(f"its keys cannot be read: {e}", source=str(self.way.source.url), db=db) from None
            except Lost as e:
                connection.close()
                self._wait(waits, e)

    def _dial(self, address: Address) -> Connection:
        waits = iter(WAITS)
        while True:
            try:
                return self.way.source.dial(address)
            except Refused as e:
                raise TargetError(f"its keys cannot be read: {e}", source=str(self.way.source.url)) from None
            except Lost as e:
                self._wait(waits, e)

    def _wait(self, waits: Any, e: Lost) -> None:
        """Wait before a connection is tried again. Raises: _NodeLost after the last time, _Stopped."""
        wait = next(waits, None)
        if wait is None:
            raise _NodeLost(self._error("connection lost", e)) from None
        if self._stop.wait(wait):
            raise _Stopped

    def _error(self, what: str, e: Lost) -> TargetError:
        return TargetError(f"{what}: {e}; run this again; with --state it goes on from here", source=str(self.way.source.url))


def total(counts: Sequence[Counts]) -> Counts:
    """The sum of several counts."""
    return Counts(**{each.name: sum(getattr(count, each.name) for count in counts) for each in fields(Counts)})


def _name(address: Address) -> str:
    return f"{address[0]}:{address[1]}"

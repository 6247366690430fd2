"""`rdbkit copy`: the keys of a running server, on their way to another."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, Final

from rdbkit.errors import TargetError
from rdbkit.live.connection import Address, Lost, Refused
from rdbkit.live.lanes import Lane
from rdbkit.live.server import Server
from rdbkit.live.transfer import Counts, Told, Transfer, Way
from rdbkit.policy.ledger import Ledger, Loss
from rdbkit.resp import command

__all__ = ["Copied", "SharedLedger", "copy_server", "databases_of"]

_WAITS: Final = (0.1, 0.5, 1.0, 2.0, 4.0, 8.0)
#: Databases that are tried where a server does not tell which have keys.
_MOST_DATABASES: Final = 1024


@dataclass
class Copied:
    """What a copy did.

    Attributes:
        counts: what became of the keys.
        ledger: what the target does not support, and was left out.
    """

    counts: Counts = field(default_factory=Counts)
    ledger: Ledger = field(default_factory=Ledger)


class SharedLedger(Ledger):
    """A ledger for several threads."""

    def __init__(self, loss_callback: Callable[[Loss], object] | None = None) -> None:
        super().__init__(loss_callback)
        self._lock = threading.Lock()

    def add(self, loss: Loss, forbidden: bool = False) -> None:
        """Enter a loss."""
        with self._lock:
            super().add(loss, forbidden)


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


def copy_server(way: Way, ledger: Ledger, told: Told, *, batch: int = 1000, big: int = 0, large: Any = None) -> Counts:
    """Copy all keys of the source's databases, each node by a thread of its own.

    Raises: TargetError where a server cannot be reached for long, or refuses what cannot be done without.
    """
    databases = databases_of(way.source)
    nodes = way.source.masters()
    counts = [Counts() for _ in nodes]
    errors: list[BaseException] = []

    def work(number: int, address: Address) -> None:
        try:
            counts[number] = _copy_node(way, address, databases, ledger, told, batch, big, large)
        except BaseException as e:
            errors.append(e)

    threads = [threading.Thread(target=work, args=each, daemon=True) for each in enumerate(nodes)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return total(counts)


def _copy_node(
    way: Way, address: Address, databases: list[int], ledger: Ledger, told: Told, batch: int, big: int, large: Any
) -> Counts:
    transfer = Transfer(way, way.source.dial(address), ledger, told)
    try:
        for db in databases:
            lane = Lane(transfer, db, batch=batch, big=big, large=large)
            waits = iter(_WAITS)
            while True:
                try:
                    lane.run()
                    break
                except Refused as e:
                    raise TargetError(f"its keys cannot be read: {e}", source=str(way.source.url), db=db) from None
                except Lost as e:
                    wait = next(waits, None)
                    if wait is None:
                        raise TargetError(f"the connection is lost: {e}", source=str(way.source.url)) from None
                    time.sleep(wait)
    finally:
        transfer.close()
    return transfer.counts


def total(counts: list[Counts]) -> Counts:
    """The sum of several counts."""
    return Counts(**{each.name: sum(getattr(count, each.name) for count in counts) for each in fields(Counts)})

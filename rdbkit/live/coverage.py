"""Which hash slots of a cluster have been read whole, while slots move and nodes come and go.

A slot has been read once its node had it from before the node's keys were listed until after that. A key that moves meanwhile can
be missed: it was not yet where the list is at its end, and no longer where that began. So a slot that has moved, or was on its way
while its node was read, is read again from the node that has it then. One that has left and come back shows by the epoch of its
node: a node that gets a slot has a greater one than the node before. What is read again is listed slot by slot where a node allows
that: such a list is of one moment, so it does not matter what moves then.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from rdbkit.format.replies import Refusal
from rdbkit.live.connection import Address, Connection, Lost
from rdbkit.live.server import Server
from rdbkit.resp import command

__all__ = ["Coverage", "names_of_slots"]

#: What CLUSTER NODES says behind a node's own slots of one that leaves (->-) or comes (-<-).
_MOVING: Final = re.compile(rb"\[(\d+)-[<>]-")
#: Names of one slot that are asked for at once, at most.
_MOST_NAMES: Final = 50_000


class _Own(NamedTuple):
    """What a node says of itself: its epoch (empty where a service hides it), its slots, and those that leave or come."""

    epoch: bytes
    slots: frozenset[int]
    moving: frozenset[int]


class Coverage:
    """Which slots of a cluster have been read.

    Args:
        server: the cluster. For a server that is none, all is read when its node is.
    """

    def __init__(self, server: Server) -> None:
        self._server = server
        self._lock = threading.Lock()
        self._is_cluster = bool(server.slots())
        self._missing = set(range(len(server.slots())))
        self._reading: dict[Address, set[int]] = {}
        self._epochs: dict[Address, bytes] = {}
        self._has_begun = False
        self._read: set[Address] = set()

    def missing(self) -> dict[Address, frozenset[int] | None]:
        """The nodes that are still to be read, with those of their slots that matter; None for all, as long as none was read.

        A slot that no node has is nobody's: it has no keys that could be had.
        """
        with self._lock:
            if not self._is_cluster:
                return {address: None for address in self._server.masters() if address not in self._read}
            nodes: dict[Address, set[int]] = {}
            owners = self._server.slots()
            for slot in self._missing:
                owner = owners[slot]
                if owner is not None:
                    nodes.setdefault(owner, set()).add(slot)
            return {address: frozenset(slots) if self._has_begun else None for address, slots in nodes.items()}

    def unowned(self) -> int:
        """How many slots no node has."""
        owners = self._server.slots()
        return sum(1 for slot in self._missing if owners[slot] is None) if self._is_cluster else 0

    def begin(self, address: Address, slots: frozenset[int] | None) -> str:
        """The keys of a node are going to be listed; `slots` are those that matter, as `missing` has them.

        Returns: what the node has, as text: the same until a slot comes or goes.
        """
        if not self._is_cluster:
            return ""
        own = self._own(address)
        with self._lock:
            wanted = self._missing if slots is None else self._missing & slots
            self._reading[address] = {slot for slot in wanted if slot in own.slots and slot not in own.moving}
            self._epochs[address] = own.epoch
            self._has_begun = True
        return f"{own.epoch.decode()}:{_ranges(own.slots)}"

    def look(self) -> None:
        """See what has moved since; to be called now and then while nodes are read."""
        if not self._is_cluster:
            return
        try:
            self._server.read_slots()
        except Lost:
            return  # the end of each node's list looks again
        for address in list(self._reading):
            self._leave_out_moved(address)

    def end(self, address: Address) -> None:
        """All keys of a node have been listed. Raises: Lost where nobody tells which node has which slots."""
        if not self._is_cluster:
            self._read.add(address)
            return
        self._server.read_slots()
        self._leave_out_moved(address)
        with self._lock:
            self._missing -= self._reading.pop(address, set())

    def has_read(self, slots: Iterable[int]) -> None:
        """All keys of slots have been read that their node had at one moment."""
        with self._lock:
            self._missing.difference_update(slots)

    def abandon(self, address: Address) -> None:
        """The list of a node's keys has broken off, and does not go on."""
        with self._lock:
            self._reading.pop(address, None)

    def _leave_out_moved(self, address: Address) -> None:
        """Leave out the slots that a node no longer has, that are on their way, or that may have left and come back."""
        own = self._own(address)
        with self._lock:
            reading = self._reading.get(address, set())
            if own.epoch != self._epochs.get(address):
                reading.clear()
            reading &= own.slots - own.moving

    def _own(self, address: Address) -> _Own:
        own = _own_of(self._server.ask_node(address, command(b"CLUSTER", b"NODES")))
        if own is not None:
            return own
        owners = self._server.slots()
        return _Own(b"", frozenset(slot for slot, owner in enumerate(owners) if owner == address), frozenset())


def names_of_slots(connection: Connection, slots: Sequence[int]) -> dict[int, list[bytes]] | Refusal:
    """The names of all keys of slots, at one moment: of those that the node has, and that are not on their way; or why not.

    Raises: Lost.
    """
    asked = [command(b"CLUSTER", b"GETKEYSINSLOT", b"%d" % slot, b"%d" % (_MOST_NAMES + 1)) for slot in slots]
    *before, found = connection.ask(command(b"MULTI"), command(b"CLUSTER", b"NODES"), *asked, command(b"EXEC"))
    refusal = next((reply for reply in (*before, found) if isinstance(reply, Refusal)), None)
    if refusal is not None:
        return refusal
    nodes, *names = found
    own = _own_of(nodes)
    if own is None or any(not isinstance(each, list) or len(each) > _MOST_NAMES for each in names):
        return Refusal("ERR", "a slot has too many keys, or the node does not tell which it has")
    return {slot: each for slot, each in zip(slots, names, strict=True) if slot in own.slots and slot not in own.moving}


def _own_of(nodes: object) -> _Own | None:
    """What a node says of itself in CLUSTER NODES; None where it hides that."""
    for line in nodes.splitlines() if isinstance(nodes, bytes) else ():
        _id, _address, flags, _master, _ping, _pong, epoch, _link, *slots = line.split()
        if b"myself" in flags:
            moving = frozenset(int(slot) for slot in _MOVING.findall(line))
            return _Own(epoch, frozenset(_numbers(slots)), moving)
    return None


def _numbers(ranges: Iterable[bytes]) -> Iterable[int]:
    for part in ranges:
        if not part.startswith(b"["):  # one that is on its way
            first, _, last = part.partition(b"-")
            yield from range(int(first), int(last or first) + 1)


def _ranges(slots: Iterable[int]) -> str:
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

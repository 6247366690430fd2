"""Which hash slots of a cluster have been read whole, while slots move and nodes come and go.

A slot has been read once its node had it from before the node's keys were listed until after that. A key that moves meanwhile can
be missed: it was not yet where the list is at its end, and no longer where that began. So a slot that has moved, or was on its way
while its node was read, is read again from the node that has it then.
"""

from __future__ import annotations

import re
import threading
from typing import Final

from rdbkit.live.connection import Address, Lost
from rdbkit.live.server import Server
from rdbkit.resp import command

__all__ = ["Coverage"]

#: What CLUSTER NODES says behind a node's own slots of one that leaves (->-) or comes (-<-).
_MOVING: Final = re.compile(rb"\[(\d+)-[<>]-")


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
        self._read: set[Address] = set()

    def missing(self) -> dict[Address, frozenset[int] | None]:
        """The nodes that are still to be read, with those of their slots that matter; None for all that they have.

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
            whole = len(self._missing) == len(owners)
            return {address: None if whole else frozenset(slots) for address, slots in nodes.items()}

    def unowned(self) -> int:
        """How many slots no node has."""
        owners = self._server.slots()
        return sum(1 for slot in self._missing if owners[slot] is None) if self._is_cluster else 0

    def begin(self, address: Address) -> None:
        """The keys of a node are going to be listed."""
        if not self._is_cluster:
            return
        owners = self._server.slots()
        with self._lock:
            self._reading[address] = {slot for slot in self._missing if owners[slot] == address}
        self._leave_out_moving(address)

    def look(self) -> None:
        """See what has moved since; to be called now and then while nodes are read."""
        if not self._is_cluster:
            return
        try:
            self._server.read_slots()
        except Lost:
            return  # the end of each node's list looks again
        self._leave_out_moved()
        for address in list(self._reading):
            self._leave_out_moving(address)

    def end(self, address: Address) -> None:
        """All keys of a node have been listed. Raises: Lost where nobody tells which node has which slots."""
        if not self._is_cluster:
            self._read.add(address)
            return
        self._server.read_slots()
        self._leave_out_moved()
        self._leave_out_moving(address)
        with self._lock:
            self._missing -= self._reading.pop(address, set())

    def abandon(self, address: Address) -> None:
        """The list of a node's keys has broken off, and does not go on."""
        with self._lock:
            self._reading.pop(address, None)

    def _leave_out_moved(self) -> None:
        owners = self._server.slots()
        with self._lock:
            for address, slots in self._reading.items():
                slots.difference_update([slot for slot in slots if owners[slot] != address])

    def _leave_out_moving(self, address: Address) -> None:
        """Leave out the slots of a node that are on their way to or from it."""
        reply = self._server.ask_node(address, command(b"CLUSTER", b"NODES"))
        if not isinstance(reply, bytes):
            return  # a service that hides it: what moves shows by its end
        for line in reply.splitlines():
            if b"myself" in line.split(b" ", 3)[2]:
                moving = {int(slot) for slot in _MOVING.findall(line)}
                with self._lock:
                    self._reading.get(address, set()).difference_update(moving)

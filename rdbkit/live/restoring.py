"""Writing keys into a server: commands in flight to each of its nodes, their replies, and what is tried again."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from rdbkit.errors import TargetError
from rdbkit.format.replies import NOTHING, Refusal, Replies, run_of_ok
from rdbkit.format.slots import key_slot
from rdbkit.live.connection import Address, Connection, Lost
from rdbkit.live.server import PATIENT_WAITS, Server
from rdbkit.passes.restores import Outbox, Router, Sent
from rdbkit.resp import command

__all__ = ["PASSING", "Patience", "Refused", "Restoring", "is_passing"]

#: Errors of a node or cluster that is changing or busy: later it takes the command.
PASSING: Final = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "LOADING", "READONLY", "BUSY")
#: How often a large command is sent whose connection is lost.
_MOST_LOST: Final = 3
_LONGEST_REPLY: Final = 1 << 20


class Refused(NamedTuple):
    """A command that a node did not take.

    `is_repeated`: it was sent before, and what became of it then is not known.
    """

    db: int
    key: bytes
    command: bytes
    why: Refusal
    is_repeated: bool


@dataclass
class _InFlight:
    """What was sent to a node and is not answered yet."""

    sent: Sent
    answered: int = 0


class _Node:
    """A node, and a database of it: what is to be sent and what is in flight."""

    def __init__(self, address: Address, db: int, connection: Connection) -> None:
        self.address = address
        self.db = db
        self.connection = connection
        self.box = Outbox()
        self.flights: deque[_InFlight] = deque()


@dataclass(frozen=True)
class Patience:
    """How long what passes is waited for.

    Args:
        server: that is waited for.
        seconds: how long a node may be changing or not there before that is an error.
        memory_seconds: the same where it has no memory left.
    """

    server: Server
    seconds: float = 300.0
    memory_seconds: float = 60.0

    def wait_for(self, whys: Iterable[Refusal], waited_s: float) -> None:
        """Raise TargetError where one of these errors has been there for too long."""
        for why in whys:
            if why.code == "OOM" and waited_s >= self.memory_seconds:
                raise TargetError(
                    f"the target has no memory left ({why}); give it more, or free some, and run this again",
                    source=str(self.server.url),
                )
            if waited_s >= self.seconds:
                what = "connection lost" if why.code == "LOST" else "it is not ready"
                raise TargetError(f"{what}: {why.text if why.code == 'LOST' else why}", source=str(self.server.url))


class Restoring:
    """Writes into a server, for one thread.

    Args:
        server: where to.
        opened: called with each connection that was opened, before anything is written over it.

    Attributes:
        done: commands that a node answered with OK.
        kept: what was sent, with the database, for whom wants to know that; None where nobody does.
    """

    def __init__(self, server: Server, opened: Callable[[Connection], object] | None = None) -> None:
        self.server = server
        self.opened = opened
        self.kept: list[tuple[int, bytes, int]] | None = None
        self.patience = Patience(server)
        self.done = 0
        self._nodes: dict[tuple[Address, int], _Node] = {}
        self._routers: dict[int, Router] = {}

    # -- what goes where

    def router(self, db: int) -> Router:
        """Where commands for a database are put, also after slots have moved."""
        router = self._routers.get(db)
        if router is None:
            router = self._routers[db] = Router()
            self._assign(router, db)
        return router

    def _assign(self, router: Router, db: int) -> None:
        owners = self.server.slots()
        if not owners:
            router.assign([self._node(self.server.masters()[0], db).box], [])
            return
        addresses = list(dict.fromkeys(owner for owner in owners if owner is not None))
        numbers = {address: number for number, address in enumerate(addresses)}
        # a slot that no node has is asked of the first, which says so
        router.assign(
            [self._node(address, db).box for address in addresses], [0 if owner is None else numbers[owner] for owner in owners]
        )

    def _node(self, address: Address, db: int) -> _Node:
        node = self._nodes.get((address, db))
        if node is None:
            node = self._nodes[address, db] = _Node(address, db, self.server.dial(address, db))
            if self.opened is not None:
                self.opened(node.connection)
        return node

    @property
    def waiting_bytes(self) -> int:
        """Of the commands that are to be sent."""
        return sum(len(node.box.out) for node in self._nodes.values())

    # -- sending and receiving

    def flush(self) -> None:
        """Send what there is. What a broken connection did not take is sent again by `collect`."""
        for node in self._nodes.values():
            if not len(node.box.out):
                continue
            data, count = node.box.take()
            node.flights.append(_InFlight(Sent(data, count)))
            if self.kept is not None:
                self.kept.append((node.db, data, count))
            try:
                if not node.connection.is_open:
                    self._open(node)
                elif len(node.flights) == 1:
                    node.connection.renew_login()  # no reply is on its way now
                node.connection.send(data)
            except Lost:
                node.connection.close()

    def collect(self) -> list[Refused]:
        """Wait for the answers to all that was sent; returns what was not taken, for reasons that do not pass.

        Raises: TargetError where nodes cannot be reached, are changing or have no memory for too long.
        """
        refused: list[Refused] = []
        again: list[Refused] = []
        for node in list(self._nodes.values()):
            if node.flights:
                self._collect(node, refused, again)
        if again:
            refused += self._send_again(again)
        return refused

    def _collect(self, node: _Node, refused: list[Refused], again: list[Refused]) -> None:
        replies = Replies()
        rest = b""
        while node.flights:
            flight = node.flights[0]
            sent = flight.sent
            try:
                while flight.answered < sent.count:
                    if replies.is_between():
                        if not rest:
                            rest = node.connection.receive(_LONGEST_REPLY)
                        n = run_of_ok(rest, 0, sent.count - flight.answered)
                        flight.answered += n
                        self.done += n
                        rest = rest[5 * n :]
                        if not rest or flight.answered == sent.count:
                            continue
                    replies.feed(rest if rest else node.connection.receive(_LONGEST_REPLY))
                    rest = b""
                    reply = replies.take()
                    if reply is NOTHING:
                        continue
                    rest = replies.rest()
                    if isinstance(reply, Refusal):
                        key, data = sent.command(flight.answered)
                        found = Refused(node.db, key, data, reply, False)
                        (again if is_passing(reply) else refused).append(found)
                    else:
                        self.done += 1
                    flight.answered += 1
            except Lost as e:
                node.connection.close()
                for each in node.flights:
                    for number in range(each.answered, each.sent.count):
                        key, data = each.sent.command(number)
                        again.append(Refused(node.db, key, data, Refusal("LOST", str(e)), True))
                node.flights.clear()
                return
            node.flights.popleft()

    def send_large(self, db: int, key: bytes, pieces: Callable[[], Iterator[bytes]]) -> Refused | None:
        """Send one command that is not held in memory, and wait for its answer; None where it was taken.

        Args:
            pieces: gives its bytes, each time that it is called.

        Raises: TargetError as `collect`.
        """
        begun = time.monotonic()
        waits = iter(PATIENT_WAITS)
        found = Refused(db, key, b"", Refusal("ERR", ""), False)
        lost = 0
        while True:
            ask = found.why.code == "ASK"
            address = address_of(found.why) if ask else self.server.owner(key)
            try:
                if address is None:
                    why: Any = Refusal("CLUSTERDOWN", f"no node has slot {key_slot(key)}")
                else:
                    connection = self._open_node(address, db)
                    given = pieces()
                    connection.put([*([command(b"ASKING")] if ask else []), next(given)], db)
                    for piece in given:
                        connection.send(piece)
                    why = connection.take()[-1]
            except Lost as e:
                lost += 1
                why = Refusal("LOST", str(e))
            if not isinstance(why, Refusal):
                self.done += 1
                return None
            found = found._replace(why=why, is_repeated=lost > 0)
            # a server that is sent more than it takes closes the connection
            if not is_passing(why) or lost == _MOST_LOST:
                return found
            self.patience.wait_for([found.why], time.monotonic() - begun)
            if why.code != "ASK":
                time.sleep(next(waits, PATIENT_WAITS[-1]))
                self._look_for_nodes()

    def _open_node(self, address: Address, db: int) -> Connection:
        node = self._node(address, db)
        if not node.connection.is_open:
            self._open(node)
        return node.connection

    # -- again

    def _send_again(self, pile: list[Refused]) -> list[Refused]:
        """Send commands again until each is answered; returns those that were refused."""
        refused: list[Refused] = []
        begun = time.monotonic()
        waits = iter(PATIENT_WAITS)
        while pile:
            self.patience.wait_for([each.why for each in pile], time.monotonic() - begun)
            if any(each.why.code != "ASK" for each in pile):
                time.sleep(next(waits, PATIENT_WAITS[-1]))
                self._look_for_nodes()
            still: list[Refused] = []
            for each in pile:
                found = self._send_one(each)
                if found is None:
                    self.done += 1
                elif is_passing(found.why):
                    still.append(found)
                else:
                    refused.append(found)
            if len(still) < len(pile):
                begun, waits = time.monotonic(), iter(PATIENT_WAITS)
            pile = still
        return refused

    def _send_one(self, each: Refused) -> Refused | None:
        """Send a command to the node that has its key now; None where it was taken."""
        ask = each.why.code == "ASK"
        named = address_of(each.why) if each.why.code in ("ASK", "MOVED") else None
        address = named or self.server.owner(each.key)
        if address is None:
            return each._replace(why=Refusal("CLUSTERDOWN", f"no node has slot {key_slot(each.key)}"))
        try:
            node = self._node(address, each.db)
            if not node.connection.is_open:
                self._open(node)
            reply = node.connection.ask(*([command(b"ASKING")] if ask else []), each.command)[-1]
        except Lost as e:
            return each._replace(why=Refusal("LOST", str(e)), is_repeated=True)
        return each._replace(why=reply) if isinstance(reply, Refusal) else None

    def _look_for_nodes(self) -> None:
        """Ask the cluster again which node has which slots."""
        if not self.server.slots():
            return
        try:
            self.server.read_slots()
        except Lost:
            return  # what is known of the nodes may still hold
        for db, router in self._routers.items():
            self._assign(router, db)

    def _open(self, node: _Node) -> None:
        node.connection.close()
        node.connection.open()
        node.connection.select(node.db)
        if self.opened is not None:
            self.opened(node.connection)

    def close(self) -> None:
        """Close its connections."""
        for node in self._nodes.values():
            node.connection.close()


def is_passing(why: Refusal) -> bool:
    """Whether a command may be taken later that was refused so."""
    return why.code in PASSING or why.code in ("OOM", "LOST")


def address_of(why: Refusal) -> Address | None:
    """Where MOVED or ASK points to; None where that is not told."""
    host, _, port = why.text.rsplit(" ", 1)[-1].rpartition(":")
    return (host, int(port)) if host and port.isdigit() else None

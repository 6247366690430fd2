"""Which process a node is, whether two servers are one, and how far their clocks are apart."""

from __future__ import annotations

import re
import socket
import time
from contextlib import suppress
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from rdbkit.live.connection import Connection
from rdbkit.live.server import Server
from rdbkit.resp import bulk, command

__all__ = ["Skew", "clock_skew", "process_of", "run_id", "run_ids", "same_data"]

#: Names of the beginning of SCAN that tell a process from another. Each has a seed of its own, and so another order.
_NAMES: Final = 20
#: Of a cluster's node, which may list them by slot: then those of one slot alone are in an order of their own.
_NAMES_OF_NODE: Final = 100
#: So many names in one order are no chance.
_SURE: Final = 10
_INFO: Final = command(b"INFO", b"server")
_REPLICATION: Final = command(b"INFO", b"replication")
_TIME: Final = command(b"TIME")
_CLOCK_TRIES: Final = 3


class Skew(NamedTuple):
    """How far two clocks are apart.

    Attributes:
        ms: milliseconds that the second is ahead of the first; of clusters, the most of any two nodes.
        within_ms: how exactly that is known: half of what the questions took.
    """

    ms: float
    within_ms: float


def process_of(connection: Connection, *, is_cluster: bool = False) -> str:
    """What tells the process behind a connection from one that takes its place: a cursor of SCAN means nothing to another.

    It is the run_id of INFO, and of what hides its shards behind it, or does not let INFO be asked, the order in which it lists
    the first keys of the connection's database. Other keys there make it another process, which costs no more than to begin again.

    Args:
        is_cluster: whether it is a node of a cluster.

    Returns: text that is the same for the same process; empty where that cannot be told.

    Raises: Lost.
    """
    info = connection.ask(_INFO)[0]
    known = run_id(info) if isinstance(info, bytes) else None
    if known is not None and not hides_shards(info):
        return f"run_id {known}"
    names = _first_names(connection.ask(_scan(_NAMES_OF_NODE if is_cluster else _NAMES))[0])
    if not names:
        return ""
    order = f"scan {blake2b(b''.join(map(bulk, names)), digest_size=16).hexdigest()}"
    return order if known is None else f"run_id {known} {order}"


def run_id(info: bytes) -> str | None:
    """The name of a process that INFO server tells; None for none.

    >>> run_id(b"run_id:0123456789abcdef0123456789abcdef01234567")
    '0123456789abcdef0123456789abcdef01234567'
    """
    return _named(b"run_id", info)


def run_ids(server: Server) -> set[str]:
    """The run_ids of a server's nodes; none where INFO is refused, or tells of one of many processes.

    Raises: TargetError where it cannot be reached.
    """
    infos = [reply for (reply,) in server.ask_each_node(0, [_INFO]) if isinstance(reply, bytes)]
    return {known for info in infos if not hides_shards(info) and (known := run_id(info)) is not None}


def hides_shards(info: bytes) -> bool:
    """Whether INFO server is that of Redis Enterprise, one endpoint of which stands for many processes."""
    return b"rlec_version" in info


def same_data(one: Server, other: Server) -> bool:
    """Whether two servers are one, or one of them a replica of the other, so that a copy would write over what it reads.

    It is known by run_id and replication id; where INFO is refused, by addresses, and by the order in which keys are listed.

    Raises: TargetError where one cannot be reached.
    """
    ids = [_ids(server) for server in (one, other)]
    if all(ids):
        return bool(ids[0] & ids[1])
    if _addresses(one) & _addresses(other):
        return True
    if one.slots() or other.slots():
        return False
    listed = [server.ask_each_node(server.url.db or 0, [_scan(_NAMES)])[0][0] for server in (one, other)]
    first, second = (_first_names(reply) for reply in listed)
    return len(first) >= _SURE and first == second


def clock_skew(one: Server, other: Server) -> Skew | None:
    """How far the clock of another server is ahead; None where one does not tell its time.

    Raises: TargetError where one cannot be reached.
    """
    clocks = [_clocks(server) for server in (one, other)]
    if not all(clocks):
        return None
    apart = [Skew(b.ms - a.ms, a.within_ms + b.within_ms) for a in clocks[0] for b in clocks[1]]
    return max(apart, key=lambda skew: abs(skew.ms))


def _clocks(server: Server) -> list[Skew]:
    """How far the clocks of its nodes are ahead of this machine's; none where one of them does not tell."""
    best: list[Skew] = []
    for _ in range(_CLOCK_TRIES):
        found = []
        for address in server.masters():
            before = time.time_ns()
            reply = server.ask_node(address, _TIME)
            after = time.time_ns()
            if not isinstance(reply, list):
                return []
            try:
                seconds, microseconds = map(int, reply)
            except (TypeError, ValueError):
                return []
            there_ms = seconds * 1000 + microseconds / 1000
            found.append(Skew(there_ms - (before + after) / 2_000_000, (after - before) / 2_000_000))
        best = found if not best else [min(pair, key=lambda skew: skew.within_ms) for pair in zip(best, found, strict=False)]
    return best


def _scan(names: int) -> bytes:
    return command(b"SCAN", b"0", b"COUNT", b"%d" % names)


def _first_names(reply: Any) -> list[bytes]:
    return reply[1] if isinstance(reply, list) and len(reply) == 2 and isinstance(reply[1], list) else []


def _ids(server: Server) -> set[str]:
    """Names of the processes of its nodes, and of the data that they replicate; none where one does not tell."""
    found: set[str] = set()
    for info, replication in server.ask_each_node(0, [_INFO, _REPLICATION]):
        own = run_id(info) if isinstance(info, bytes) else None
        if own is None:
            return set()
        found.add(own)
        if isinstance(replication, bytes) and (data := _named(b"master_replid", replication)) is not None:
            found.add(data)
    return found


def _named(name: bytes, info: bytes) -> str | None:
    found = re.search(rb"(?m)^%b:([0-9a-f]{8,})" % name, info)
    return found[1].decode() if found and found[1].strip(b"0") else None


def _addresses(server: Server) -> set[tuple[str, int]]:
    """Where its nodes are, by number."""
    found = set()
    for host, port in server.masters():
        with suppress(OSError):
            found |= {(str(place[0]), port) for *_, place in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)}
    return found

"""How many databases a server has, which of them have keys, and how many."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from rdbkit.format.replies import Refusal
from rdbkit.live.server import Server
from rdbkit.resp import command

__all__ = ["count_databases", "databases_of", "keys_of"]

#: Databases that are tried where a server does not tell how many it has.
_MOST: Final = 1 << 14
_PING: Final = command(b"PING")


def databases_of(server: Server) -> list[int]:
    """The databases of a server that have keys, or may have, in order; where its URL names one, that alone.

    INFO tells them. Where it is refused, each is asked for its number of keys, as far as the server lets one choose a database.

    Returns: at least one.

    Raises: TargetError where the server cannot be reached.
    """
    if server.url.db is not None:
        return [server.url.db]
    replies = [reply for (reply,) in server.ask_each_node(0, [command(b"INFO", b"keyspace")])]
    infos = [reply for reply in replies if isinstance(reply, bytes)]
    if len(infos) == len(replies):
        return sorted({int(number) for info in infos for number in re.findall(rb"(?m)^db(\d+):", info)}) or [0]
    found = []
    for db in range(_MOST):
        answers = server.ask_each_node(db, [_PING, command(b"DBSIZE")])
        if all(isinstance(there, Refusal) for there, _ in answers):
            break
        if any(keys != 0 for _, keys in answers):  # or it is refused, and nobody knows
            found.append(db)
    return found or [0]


def keys_of(server: Server, databases: Iterable[int]) -> int | None:
    """How many keys a server counts in some databases (DBSIZE); None where it does not tell.

    Raises: TargetError where it cannot be reached.
    """
    found = 0
    for db in databases:
        for (reply,) in server.ask_each_node(db, [command(b"DBSIZE")]):
            if not isinstance(reply, int):
                return None
            found += reply
    return found


def count_databases(server: Server) -> int:
    """How many databases a server has: of a cluster those that all its nodes have; 1 where nobody may choose.

    Raises: TargetError where the server cannot be reached.
    """
    names = b"cluster-databases" if server.slots() else b"databases"
    told = [_number(reply) for (reply,) in server.ask_each_node(0, [command(b"CONFIG", b"GET", names)])]
    known = [number for number in told if number is not None]
    if len(known) == len(told) and _is_there(server, min(known) - 1):  # services have a setting that they do not heed
        return min(known)
    count = 1
    while count < _MOST and _is_there(server, count):
        count += 1
    return count


def _is_there(server: Server, db: int) -> bool:
    """Whether all nodes let one choose a database."""
    return not any(isinstance(there, Refusal) for (there,) in server.ask_each_node(db, [_PING]))


def _number(reply: object) -> int | None:
    """The number that CONFIG GET tells."""
    if not isinstance(reply, list) or len(reply) != 2 or not isinstance(reply[1], bytes) or not reply[1].isdigit():
        return None
    return int(reply[1])

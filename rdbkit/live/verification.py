"""What proofs about servers have in common: keys that are picked, function libraries, keys that were evicted."""

from __future__ import annotations

import math
from hashlib import blake2b
from typing import Any

from rdbkit.errors import TargetError
from rdbkit.format.replies import Refusal
from rdbkit.live.server import Server, info_number
from rdbkit.operations.diff_delta import FunctionDifference
from rdbkit.resp import command

__all__ = [
    "Picker",
    "check_pick",
    "compare_libraries",
    "evicted_keys",
    "libraries_of_nodes",
    "note_of_evictions",
]


def check_pick(pick: float | int | None) -> None:
    """Raise ValueError for a share or number of keys that cannot be."""
    if pick is not None and not 0 < pick < math.inf:
        raise ValueError("a share or number of keys is greater than 0")


class Picker:
    """Picks keys by hash of their names: with one seed the same ones in every run.

    Attributes:
        below: the share of keys that are picked; None for all.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed.to_bytes(8, "little", signed=True)
        self.below: float | None = None

    def choose(self, pick: float | int, total: int) -> None:
        """Pick a share (below 1), or about so many of `total` keys."""
        self.below = float(pick) if pick < 1 else min(1.0, pick / max(1, total))

    def __call__(self, key: bytes) -> bool:
        """Whether the key is picked."""
        return self.below is None or self.fraction(key) < self.below

    def fraction(self, key: bytes) -> float:
        """A number from 0 on, below 1, that a name always has."""
        return int.from_bytes(blake2b(key, key=self.seed, digest_size=8).digest(), "big") / (1 << 64)


def evicted_keys(server: Server) -> int:
    """How many keys a server has evicted since it started; 0 where it does not tell."""
    return info_number([reply for (reply,) in server.ask_each_node(0, [command(b"INFO", b"stats")])], "evicted_keys")


def note_of_evictions(server: Server) -> str | None:
    """What explains keys that are missing: those that the server has evicted."""
    evicted = evicted_keys(server)
    return f"the server has evicted {evicted:,} keys since it started, for want of memory" if evicted else None


def compare_libraries(ours: dict[str, set[bytes]], nodes: list[dict[str, bytes]]) -> list[FunctionDifference]:
    """The function libraries that differ, by name and source; each node of a cluster has all of them."""
    found = []
    for name in sorted(ours.keys() | {name for node in nodes for name in node}):
        if name not in ours:
            found.append(FunctionDifference("extra", name))
        elif not all(name in node for node in nodes):
            found.append(FunctionDifference("missing", name))
        elif not all(node[name] in ours[name] for node in nodes):
            found.append(FunctionDifference("changed", name))
    return found


def libraries_of_nodes(server: Server) -> list[dict[str, bytes]] | Refusal:
    """The source of each function library by its name, of every node; or why one does not tell.

    Raises: TargetError where it cannot be asked for some time.
    """
    replies = [found[0] for found in server.ask_each_node(0, [command(b"FUNCTION", b"LIST", b"WITHCODE")])]
    refusal = next((reply for reply in replies if isinstance(reply, Refusal)), None)
    if refusal is None:
        try:
            return [_libraries(reply) for reply in replies]
        except (AttributeError, KeyError, TypeError, ValueError):
            raise TargetError("its reply to FUNCTION LIST is invalid", source=str(server.url)) from None
    if "unknown command" in refusal.text.lower():
        return [{}]  # before Redis 7.0 there are no functions
    return refusal


def _libraries(reply: list[list[Any]]) -> dict[str, bytes]:
    """Names and sources of what FUNCTION LIST WITHCODE tells."""
    found = {}
    for library in reply:
        facts = dict(zip(library[::2], library[1::2], strict=True))
        found[facts[b"library_name"].decode("utf-8", "surrogateescape")] = bytes(facts[b"library_code"])
    return found

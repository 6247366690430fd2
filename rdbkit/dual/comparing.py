"""A share of an application's reads, asked of both sides: whether the one answers what the other does."""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from typing import Any, Final

from rdbkit.dual.calls import is_miss
from rdbkit.format.replies import Refusal

__all__ = ["differs", "is_chosen"]

_GROUPS: Final = 10_000
#: Commands whose replies have no order.
_UNORDERED: Final = frozenset((b"SMEMBERS", b"SINTER", b"SUNION", b"SDIFF", b"HKEYS", b"HVALS"))
#: Fields and their values.
_PAIRS: Final = frozenset((b"HGETALL",))
#: Commands whose replies are numbers of milliseconds or seconds until something expires, with what two seconds are in it.
_TIMES: Final = {
    b"TTL": 2, b"EXPIRETIME": 2, b"HTTL": 2, b"HEXPIRETIME": 2, b"PTTL": 2000, b"PEXPIRETIME": 2000, b"HPTTL": 2000,
    b"HPEXPIRETIME": 2000,
}  # fmt: skip
#: Commands whose replies are by chance, or about the server rather than about a value.
_NOT_COMPARED: Final = frozenset(
    (
        b"DUMP", b"HRANDFIELD", b"HSCAN", b"MEMORY", b"OBJECT", b"SRANDMEMBER", b"SSCAN", b"XINFO", b"ZRANDMEMBER", b"ZSCAN",
        b"VRANDMEMBER", b"TDIGEST.INFO", b"TS.INFO", b"JSON.DEBUG", b"BF.INFO", b"CF.INFO", b"CF.SCANDUMP", b"BF.SCANDUMP",
    )
)  # fmt: skip


def is_chosen(share: float, key: bytes, now_s: float | None = None) -> bool:
    """Whether reads of a key are compared in this minute: in each minute other keys are, and in the same all reads of a key.

    >>> [is_chosen(share, b"k", 0) for share in (0, 1)]
    [False, True]
    """
    minute = int((time.time() if now_s is None else now_s) // 60)
    return zlib.crc32(key, minute & 0xFFFFFFFF) % _GROUPS < share * _GROUPS


def differs(args: Sequence[bytes], one: Any, other: Any) -> str | None:
    """What is different between the replies of the side that is used and of the other one; None where they say the same.

    Args:
        args: the command.
        one, other: its replies, as bytes, numbers, lists and None. A command that one side refuses is not compared.

    Returns: "missing" (the other side has nothing), "extra" (it alone has something), "expiry" or "value".

    >>> differs([b"SMEMBERS", b"s"], [b"a", b"b"], [b"b", b"a"]), differs([b"GET", b"k"], b"v", None)
    (None, 'missing')
    """
    name = args[0].upper()
    if name in _NOT_COMPARED or isinstance(one, Refusal) or isinstance(other, Refusal) or one == other:
        return None
    nearly = _TIMES.get(name)
    if nearly is not None:
        return None if _is_near(one, other, nearly) else "missing" if other == -2 else "extra" if one == -2 else "expiry"
    if is_miss(other) and not is_miss(one):
        return "missing"
    if is_miss(one) and not is_miss(other):
        return "extra"
    return None if _normal(name, one) == _normal(name, other) else "value"


def _is_near(one: Any, other: Any, nearly: int) -> bool:
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(_is_near(a, b, nearly) for a, b in zip(one, other, strict=True))
    if not isinstance(one, int) or not isinstance(other, int):
        return bool(one == other)
    return one == other or (one >= 0 and other >= 0 and abs(one - other) <= nearly)


def _normal(name: bytes, reply: Any) -> Any:
    """A reply in the form that all servers have in common."""
    if not isinstance(reply, list):
        return _number(reply) if name.startswith(b"Z") else reply
    if name in _UNORDERED:
        return sorted(reply)
    if name in _PAIRS:
        return sorted(zip(reply[::2], reply[1::2], strict=False))
    # scores are written with more or fewer digits by servers of different age
    return [_normal(name, each) for each in reply] if name.startswith(b"Z") else reply


def _number(reply: Any) -> Any:
    try:
        return float(reply)
    except (TypeError, ValueError):
        return reply

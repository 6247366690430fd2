"""Release lines, the names by which everything here is known of an engine: "redis-7.4" for Redis 7.4.0, 7.4.1 and so on."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

#: A release of an engine: "7.4", "7.4.3", "redis-7.4", "valkey-8.0"; without a name it is one of Redis.
_ENGINE: Final = re.compile(r"(?:([a-z]+)-)?(\d+\.\d+)(?:\.\d+)*")


class Release(NamedTuple):
    """A release line, taken apart.

    Attributes:
        family: whose it is: "redis", "valkey", "redict", "keydb".
        number: two numbers, which compare as releases of one family do.
    """

    family: str
    number: tuple[int, int]


def release(engine: str) -> Release | None:
    """The release line that an engine belongs to; None where its name says nothing of the kind.

    >>> release("7.4.3"), release("azure-premium")
    (Release(family='redis', number=(7, 4)), None)
    """
    match = _ENGINE.fullmatch(engine)
    if match is None:
        return None
    major, minor = match[2].split(".")
    return Release(match[1] or "redis", (int(major), int(minor)))


def release_line(engine: str) -> str:
    """Its name, as far as the engine's name says that.

    >>> release_line("7.4.3"), release_line("valkey-8.0"), release_line("new")
    ('redis-7.4', 'valkey-8.0', 'new')
    """
    match = _ENGINE.fullmatch(engine)
    return f"{match[1] or 'redis'}-{match[2]}" if match else engine


def release_title(line: str) -> str:
    """A release line for humans.

    >>> release_title("keydb-6.3"), release_title("redis-7.4")
    ('KeyDB 6.3', 'Redis 7.4')
    """
    family, _, number = line.partition("-")
    return f"{'KeyDB' if family == 'keydb' else family.capitalize()} {number}"

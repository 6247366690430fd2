"""Which commands a release line has: data in commands.toml beside this loader."""

from __future__ import annotations

import os
import re
import tomllib
from functools import cache
from typing import Any

_NAME = re.compile(r"([a-z]+)-(\d+)\.(\d+)")


def features(line: str | None) -> frozenset[str]:
    """What the servers of a release line can be told by commands, by the names of commands.toml.

    Args:
        line: a server and its release such as "redis-6.0" or "valkey-9.0"; None for the newest Redis.

    Raises: ValueError where there is no such line, or only one whose expiries are whole seconds (Redis 2.4).

    >>> "field-expiry" in features("redis-7.2"), "field-expiry" in features("redis-7.4")
    (False, True)
    >>> features("redis-7.4") < features(None)
    True
    """
    data = _data()
    since: dict[str, dict[str, str]] = data["since"]
    if line is None:
        return frozenset(since)
    match = _NAME.fullmatch(line)
    if not match or match[1] not in data["families"]:
        raise ValueError(f"{line!r} is no release line: a server ({', '.join(data['families'])}) and its release, as in redis-7.2")
    family = match[1]
    own = int(match[2]), int(match[3])
    inherited = _release(data["families"][family]) if data["families"][family] else own
    found = frozenset(
        name
        for name, releases in since.items()
        if (family in releases and own >= _release(releases[family]))
        or ("redis" in releases and inherited >= _release(releases["redis"]))
    )
    if "expiry-in-ms" not in found:
        raise ValueError(f"{line} cannot be told when keys expire: Redis 2.6 is the oldest that can")
    return found


@cache
def _data() -> dict[str, Any]:
    with open(os.path.join(os.path.dirname(__file__), "commands.toml"), "rb") as file:
        return tomllib.load(file)


def _release(text: str) -> tuple[int, int]:
    major, minor = text.split(".")
    return int(major), int(minor)

"""Which commands a server has: data in commands.toml beside this loader."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from rdbkit.targets.releases import Release, release
from rdbkit.targets.target import Target


def features(target: Target | None) -> frozenset[str]:
    """What a server can be told by commands, by the names of commands.toml; of a service, the engine that runs there.

    Args:
        target: of `find_target`; None for the newest Redis.

    Raises: ValueError for a version of the format, for a server of a user's own whose engine is not said, and for one whose
        expiries are whole seconds (Redis 2.4).

    >>> from rdbkit.targets.target import find_target
    >>> "field-expiry" in features(find_target("redis-7.2")), "field-expiry" in features(find_target("azure-managed"))
    (False, True)
    >>> features(find_target("redis-7.4")) < features(None)
    True
    """
    data = _data()
    since: dict[str, dict[str, str]] = data["since"]
    if target is None:
        return frozenset(since)
    if target.exact:
        raise ValueError(f"{target.name} is a version of the format, which has no commands; a server has, such as redis-7.2")
    own = release(target.release_line)
    if own is None or own.family not in data["families"]:
        raise ValueError(f"which commands {target.name} has is not known: give it an engine, as in engine = '7.2'")
    heritage = data["families"][own.family]
    origin = release(heritage) if heritage else own
    found = {name for name, releases in since.items() if any(_has(releases, each) for each in (own, origin))}
    if "expiry-in-ms" not in found:
        raise ValueError(f"{target.name} cannot be told when keys expire: Redis 2.6 is the oldest that can")
    if "functions" in target.facts and target.facts["functions"].value is False:
        found.discard("functions")
    return frozenset(found)


def _has(releases: dict[str, str], line: Release | None) -> bool:
    """Whether a release line is one of those, or a later one of the same family."""
    since = release(f"{line.family}-{releases[line.family]}") if line is not None and line.family in releases else None
    return since is not None and line is not None and line >= since


@cache
def _data() -> dict[str, Any]:
    import tomllib

    with open(os.path.join(os.path.dirname(__file__), "commands.toml"), "rb") as file:
        return tomllib.load(file)

"""What each server and Azure service loads: data in TOML files beside this loader."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Final

from rdbkit.format import constants as c
from rdbkit.model import Header

#: What released servers load; others are known to forks, or to builds that nobody released.
_LOADED: Final = {"string", "list", "set", "zset", "hash", "stream", "array", "module"}
_VERSION: Final = re.compile(r"rdb-([1-9]\d*)")


@dataclass(frozen=True, slots=True)
class Target:
    """A server line or service.

    Attributes:
        name: stable identifier, e.g. "redis-7.0" or "azure-premium".
        title: name for humans.
        lines: other names of it, such as "redis-6.0" for what loads the same files as "redis-5.0".
        rdb: newest RDB version with the REDIS magic.
        valkey: RDB versions with the VALKEY magic.
        types: highest value type it knows, None for all of its RDB version.
        extra_types: value types that only this server has.
        modules: module types built in.
        optional_modules: module types that can be chosen when the service is created.
        databases: most databases, None where configurable.
        single_db: only database 0 is imported.
        pre_release_functions: loads the function libraries of 7.0 release candidates.
        undocumented: RDB versions that the engine knows and the service does not promise.
        max_key_bytes: keys larger than this make an import fail.
        exact: it is no server but a version of the format, and a file for it has just that version.
        source, date: where the facts are from.
    """

    name: str
    title: str
    rdb: int
    lines: list[str] = field(default_factory=list)
    valkey: list[int] = field(default_factory=list)
    types: int | None = None
    extra_types: list[int] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    optional_modules: list[str] = field(default_factory=list)
    databases: int | None = None
    single_db: bool = False
    pre_release_functions: bool = False
    undocumented: list[int] = field(default_factory=list)
    max_key_bytes: int | None = None
    exact: bool = False
    source: str = ""
    date: str = ""

    def header_for(self, source: Header) -> Header:
        """The header that a file with this one gets for the target: its own, where the target's documents promise to load it."""
        if self.exact:
            return Header(c.VALKEY, self.valkey[0]) if self.valkey else Header(c.REDIS, self.rdb)
        if source.version <= self.rdb if source.flavour == c.REDIS else source.version in self.valkey:
            return source
        # what Valkey has of its own, it writes under its own name only
        return Header(c.VALKEY, self.valkey[-1]) if self.valkey else Header(c.REDIS, self.rdb)

    def types_in(self, header: Header) -> dict[int, c.ValueType]:
        """The value types that it loads from a file with this header, by their numbers."""
        newest = self.rdb if header.flavour == c.REDIS else header.version
        return {
            t.id: t
            for t in c.value_types(header.flavour, newest).values()
            if t.id in self.extra_types
            or (self.exact and t.since <= newest)
            or (t.since <= newest and (self.types is None or t.id <= self.types) and t.type in _LOADED and t not in c.FOREIGN)
        }


@cache
def load_targets() -> tuple[Target, ...]:
    """All targets, servers before services, in the order of the files."""
    found = []
    for name in ("servers.toml", "azure.toml"):
        # not importlib.resources: importing that costs more than reading a snapshot of ten megabytes
        with open(os.path.join(os.path.dirname(__file__), name), "rb") as file:
            data = tomllib.load(file)
        for key, facts in data["targets"].items():
            found.append(Target(key, **facts, source=data["source"], date=str(data["date"])))
    return tuple(found)


def find_target(name: str) -> Target:
    """The target of this name: a release line ("redis-6.2"), a service ("azure-premium") or a version of the format ("rdb-9").

    Raises: ValueError, which names the nearest ones, where there is none.

    >>> find_target("redis-6.2").title, find_target("rdb-9").exact
    ('Redis 6.2', True)
    """
    for target in load_targets():
        if name == target.name or name in target.lines:
            if target.lines:  # which share a title
                return replace(target, name=name, title=f"{target.title.split()[0]} {name.split('-')[1]}")
            return target
    match = _VERSION.fullmatch(name)
    if match:
        version = int(match[1])
        if version in c.VALKEY_VERSIONS:
            return Target(name, f"VALKEY{version:03d}", 11, valkey=[version], exact=True)
        if version <= c.NEWEST_REDIS:
            return Target(name, f"RDB {version}", version, exact=True)
    from difflib import get_close_matches

    known = target_names()
    near = get_close_matches(name, known, 3, 0.5) or known
    raise ValueError(f"there is no target {name!r}; {'nearest:' if near is not known else 'known:'} {', '.join(near)}")


def target_names() -> list[str]:
    """Every name that `find_target` takes, versions of the format last."""
    names = [name for target in load_targets() for name in (target.name, *target.lines)]
    return names + [f"rdb-{version}" for version in (*range(1, c.NEWEST_REDIS + 1), *c.VALKEY_VERSIONS)]

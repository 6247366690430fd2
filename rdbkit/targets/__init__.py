"""What each server and Azure service loads: data in TOML files beside this loader."""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass, field
from functools import cache


@dataclass(frozen=True, slots=True)
class Target:
    """A server line or service.

    Attributes:
        name: stable identifier, e.g. "redis-7.0" or "azure-premium".
        title: name for humans.
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
        source, date: where the facts are from.
    """

    name: str
    title: str
    rdb: int
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
    source: str = ""
    date: str = ""


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

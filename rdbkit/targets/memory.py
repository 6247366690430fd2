"""How servers lay data out in memory: the loader of memory.toml, which has a layout for each line of servers."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final

from rdbkit.targets.target import Target

#: Bytes between jemalloc's smallest size classes: as servers build it for themselves, and as distributions package it. Of a server
#: that one does not know the larger counts: a figure for sizing must not be too low.
QUANTUM: Final = 8
QUANTUM_OF_PACKAGES: Final = 16

#: The oldest line that reads an RDB version.
_OLDEST: Final = {9: "redis-6.0", 10: "redis-7.0", 11: "redis-7.2", 12: "redis-8.0"}
_TEXTS: Final = {"title", "targets", "measured", "inferred", "like"}


@dataclass(frozen=True, slots=True)
class Layout:
    """A line of servers, as far as memory goes.

    Attributes:
        name: of the line, such as "redis-7.0".
        title: the same for humans.
        measured: the release that was measured, empty where none was.
        note: what the layout is inferred from where none was.
        sizes: bytes of structures and limits, by the names that memory.toml explains.
    """

    name: str
    title: str
    measured: str
    note: str
    sizes: dict[str, int] = field(default_factory=dict)


@cache
def _lines() -> dict[str, tuple[list[str], Layout]]:
    """Layouts with the targets that each is for."""
    import tomllib

    with open(os.path.join(os.path.dirname(__file__), "memory.toml"), "rb") as file:
        table: dict[str, Any] = tomllib.load(file)
    known = {*table["fields"], *table["limits"]}
    lines: dict[str, tuple[list[str], Layout]] = {}
    for name, line in table["lines"].items():
        before = lines[line["like"]][1].sizes if "like" in line else {}
        sizes = {**before, **{key: value for key, value in line.items() if key not in _TEXTS}}
        if sizes.keys() != known:
            raise ValueError(f"memory.toml: {name} has too much or too little: {sorted(sizes.keys() ^ known)}")
        layout = Layout(name, line["title"], line.get("measured", ""), line.get("inferred", ""), sizes)
        lines[name] = line["targets"], layout
    return lines


def layouts() -> list[Layout]:
    """All layouts, older lines first."""
    return [layout for _, layout in _lines().values()]


def layout_of(target: Target) -> Layout:
    """How a target lays data out in memory; of a service, how the engine does that runs there.

    >>> from rdbkit.targets.target import find_target
    >>> layout_of(find_target("azure-premium")).name, layout_of(find_target("valkey-9.1")).name
    ('redis-6.0', 'valkey-9.0')
    """
    for targets, layout in _lines().values():
        if target.release_line in targets:
            return layout
    # a version of the format, or a server of a user's own: what the oldest that reads such files is
    if target.valkey:
        return _lines()["valkey-9.0"][1]
    wanted = next((line for rdb, line in _OLDEST.items() if target.rdb <= rdb), "redis-8.2")
    return _lines()[wanted][1]

"""What a running server loads: its release, its modules and its databases, by its own words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

from rdbkit.errors import TargetError
from rdbkit.format import constants as c
from rdbkit.format.replies import Refusal
from rdbkit.live.server import Server
from rdbkit.products import product_names
from rdbkit.resp import command
from rdbkit.targets.releases import Release, release
from rdbkit.targets.target import Target, find_target, load_targets

__all__ = ["loads", "version_of_dump"]

#: What MODULE LIST calls a module, in lower case, and the product that it is.
_MODULES: Final = {
    "rejson": "RedisJSON", "json": "RedisJSON", "search": "RediSearch", "ft": "RediSearch", "bf": "RedisBloom",
    "timeseries": "RedisTimeSeries", "graph": "RedisGraph", "redisgears_2": "RedisGears",
}  # fmt: skip
_FOOTER: Final = 10


def loads(server: Server) -> Target:
    """What a server takes by RESTORE.

    Of a release that this rdbkit does not know, the newest before it is taken. Where the server hides its release, the RDB version
    of what it dumps says what it loads.

    Raises: TargetError where nothing tells.
    """
    line = None if server.version is None else release(server.version.replace(" ", "-"))
    found = None if line is None else _nearest(line)
    if found is None:
        version = version_of_dump(server)
        if version is None:
            raise TargetError("it does not say which version it is; --target NAME says what it loads", source=str(server.url))
        found = replace(find_target(f"rdb-{version}"), exact=False)
    return replace(found, modules=_modules(server, found), databases=_databases(server))


def version_of_dump(server: Server) -> int | None:
    """The RDB version of what a server dumps; None where it has no key, or may not be asked."""
    for db in [server.url.db or 0]:
        for (key,) in server.ask_each_node(db, [command(b"RANDOMKEY")]):
            if not isinstance(key, bytes):
                continue
            (dump,) = server.ask(db, [(key, [command(b"DUMP", key)])])[0]
            if isinstance(dump, bytes) and len(dump) > _FOOTER:
                return int.from_bytes(dump[-_FOOTER : 2 - _FOOTER], "little")
    return None


def _nearest(line: Release) -> Target | None:
    """The newest release of this family that is not newer; None where none is known."""
    known = [
        (found, name) for target in load_targets() for name in [target.name, *target.lines] if (found := release(name)) is not None
    ]
    older = [(found.number, name) for found, name in known if found.family == line.family and found.number <= line.number]
    return find_target(max(older)[1]) if older else None


def _modules(server: Server, target: Target) -> list[str]:
    """The modules that are loaded; all that are known where it does not tell, so that the server itself decides."""
    replies = [reply for (reply,) in server.ask_each_node(0, [command(b"MODULE", b"LIST")])]
    if any(isinstance(reply, Refusal) for reply in replies):
        return sorted({*target.modules, *product_names()})
    found = [_names(reply) for reply in replies]
    loaded = set.intersection(*found) if found else set()
    return [*target.modules, *sorted(loaded - set(target.modules))]


def _names(reply: list[Any]) -> set[str]:
    """What MODULE LIST names, as products where these are known."""
    names = set()
    for module in reply:
        facts = dict(zip(module[::2], module[1::2], strict=False))
        name = facts.get(b"name", b"").decode("utf-8", "replace")
        names.add(_MODULES.get(name.lower(), name))
    return names


def _databases(server: Server) -> int | None:
    """How many databases there are; None where that is not told."""
    if server.slots() and (server.version or "").split(" ")[0] != c.VALKEY:
        return 1
    names = b"cluster-databases" if server.slots() else b"databases"
    (reply,) = server.ask_each_node(0, [command(b"CONFIG", b"GET", names)])[0]
    if isinstance(reply, list) and len(reply) == 2 and reply[1].isdigit():
        return int(reply[1])
    return 1 if server.slots() else None

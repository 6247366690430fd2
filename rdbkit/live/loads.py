"""What a running server loads: its release, its modules and its databases, by its own words, and by what it dumps."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

from rdbkit.clouds import cloud_of_host
from rdbkit.errors import TargetError
from rdbkit.format import constants as c
from rdbkit.format.replies import Refusal
from rdbkit.live.databases import count_databases
from rdbkit.live.server import Server
from rdbkit.products import product_names
from rdbkit.resp import command
from rdbkit.targets.releases import Release, release, release_line
from rdbkit.targets.target import Target, find_target, load_targets

__all__ = ["loads"]

#: What MODULE LIST calls a module, in lower case, and the product that it is.
_MODULES: Final = {
    "rejson": "RedisJSON", "json": "RedisJSON", "search": "RediSearch", "ft": "RediSearch", "bf": "RedisBloom",
    "timeseries": "RedisTimeSeries", "graph": "RedisGraph", "redisgears_2": "RedisGears", "vectorset": "vector sets",
}  # fmt: skip
#: Modules whose data is in no key, as the engine of scripts that Valkey has as a module.
_WITHOUT_KEYS: Final = frozenset({"lua"})
_FOOTER: Final = 10
#: What a server writes at the end of a payload from this number on is a version of Valkey's own.
_OF_VALKEY: Final = min(c.VALKEY_VERSIONS)
#: Keys that are looked at for a small one, and how small it is.
_TRIES: Final = 8
_SMALL: Final = 1 << 16
#: KeyDB calls itself redis, and this was never a release of Redis.
_OF_KEYDB: Final = (6, 3)
_INFO: Final = command(b"INFO", b"server")
_HELLO: Final = command(b"HELLO", b"2")


def loads(server: Server) -> Target:
    """What a server takes by RESTORE.

    Of a release that this rdbkit does not know, the newest before it is taken; of a cluster whose nodes have several, the oldest.
    Where the release is hidden, or is that of another product that only speaks like it, the RDB version of what is dumped decides.

    Raises: TargetError where nothing tells.

    Example:
        with rdbkit.connect("redis://localhost") as server:
            print(loads(server).title)  # Redis 7.0
    """
    infos = [reply.decode("utf-8", "replace") for (reply,) in server.ask_each_node(0, [_INFO]) if isinstance(reply, bytes)]
    hellos = [_facts(reply) for (reply,) in server.ask_each_node(0, [_HELLO]) if isinstance(reply, list)]
    line = _oldest(infos, hellos)
    found = None if line is None else _nearest(line)
    dumped = _version_of_functions(server)
    if dumped is None and (found is None or any("dragonfly_version" in info for info in infos)):
        dumped = _version_of_a_key(server)
    if found is None:
        found = _of_version(server, dumped)
    elif dumped is not None and dumped < min(found.rdb, _OF_VALKEY):
        found = replace(found, rdb=dumped, valkey=[])
    if any("rlec_version" in info for info in infos) or _is_enterprise_of_azure(server.url.host):
        found = replace(found, redis_enterprise=True)
    return replace(found, modules=_modules(server, found, hellos), databases=count_databases(server))


def _oldest(infos: list[str], hellos: list[dict[str, Any]]) -> Release | None:
    """The oldest release of the nodes, by what HELLO and INFO say; None where they say nothing."""
    names = [f"{_text(hello.get('server'))}-{_text(hello.get('version'))}" for hello in hellos]
    for info in infos:
        # Valkey and Redict have names and versions of their own beside the one that they stand in for
        own = re.search(r"(?m)^(valkey|redict)_version:(\S+)", info) or re.search(r"(?m)^(redis)_version:(\S+)", info)
        if own is not None:
            names.append(f"{own[1]}-{own[2]}")
        if re.search(r"(?m)^dragonfly_version:", info):
            return release("redis-6.2")  # whatever it says that it is, it takes what that does
        if re.search(r"(?m)^executable:.*keydb", info):
            names = [re.sub("^redis", "keydb", name) for name in names]
    found = [each for name in names if (each := release(release_line(name.lower()))) is not None]
    if not found:
        return None
    oldest = min(found, key=lambda each: each.number)
    # one that is called redis and is not says so in one of the two
    family = next((each.family for each in found if each.family != "redis" and each.number == oldest.number), oldest.family)
    return Release("keydb" if oldest.family == "redis" and oldest.number == _OF_KEYDB else family, oldest.number)


def _nearest(line: Release) -> Target | None:
    """The newest release of this family that is not newer; None where none is known."""
    known = [
        (found, name) for target in load_targets() for name in [target.name, *target.lines] if (found := release(name)) is not None
    ]
    older = [(found.number, name) for found, name in known if found.family == line.family and found.number <= line.number]
    return find_target(max(older)[1]) if older else None


def _of_version(server: Server, dumped: int | None) -> Target:
    """What loads an RDB version, where that alone is known. Raises: TargetError where it is not, or nobody knows it."""
    newest = c.NEWEST_REDIS if dumped is not None and dumped < _OF_VALKEY else max(c.VALKEY_VERSIONS)
    if dumped is None:
        raise TargetError("it does not tell its version; give it with --target NAME", source=str(server.url))
    if dumped > newest:
        raise TargetError(
            f"it dumps RDB version {dumped}, which this release does not know; give the server's version with --target NAME",
            source=str(server.url),
        )
    return replace(find_target(f"rdb-{dumped}"), exact=False)


# -- what it dumps


def _version_of_functions(server: Server) -> int | None:
    """The lowest RDB version of the nodes, of their function libraries, also where there are none; None before Redis 7.0."""
    found = [_version(reply) for (reply,) in server.ask_each_node(0, [command(b"FUNCTION", b"DUMP")])]
    return min((each for each in found if each is not None), default=None)


def _version_of_a_key(server: Server) -> int | None:
    """The RDB version of a small value; None where there is none, or it may not be read."""
    db = server.url.db or 0
    for names in server.ask_each_node(db, [command(b"RANDOMKEY")] * _TRIES):
        for key in dict.fromkeys(name for name in names if isinstance(name, bytes)):
            kind, length, usage = server.ask(
                db, [(key, [command(b"TYPE", key), command(b"STRLEN", key), command(b"MEMORY", b"USAGE", key)])]
            )[0]
            size = usage if isinstance(usage, int) else length if kind == b"string" else None
            if isinstance(size, int) and size <= _SMALL:
                return _version(server.ask(db, [(key, [command(b"DUMP", key)])])[0][0])
    return None


def _version(payload: Any) -> int | None:
    """The RDB version in the footer of what DUMP gives."""
    if not isinstance(payload, bytes) or len(payload) < _FOOTER:
        return None
    return int.from_bytes(payload[-_FOOTER : 2 - _FOOTER], "little")


# -- what it has


def _modules(server: Server, target: Target, hellos: list[dict[str, Any]]) -> list[str]:
    """The modules that are loaded; all that are known where it does not tell, so that the server itself decides."""
    replies: list[Any] = [hello["modules"] for hello in hellos if isinstance(hello.get("modules"), list)]
    if len(replies) < len(server.masters()):
        replies = [reply for (reply,) in server.ask_each_node(0, [command(b"MODULE", b"LIST")])]
    if any(isinstance(reply, Refusal) for reply in replies):
        return sorted({*target.modules, *product_names()})
    found = [{_product(_text(_facts(module).get("name"))) for module in reply} for reply in replies]
    loaded = set.intersection(*found) if found else set()
    return [*target.modules, *sorted(loaded - set(target.modules) - _WITHOUT_KEYS)]


def _product(name: str) -> str:
    return _MODULES.get(name.lower(), name)


def _is_enterprise_of_azure(host: str) -> bool:
    """Whether a host is one of a service of Azure that runs Redis Enterprise."""
    cloud = cloud_of_host(host)
    ends = () if cloud is None else (cloud.managed, cloud.enterprise)
    return any(end and host.lower().rstrip(".").endswith(f".{end}") for end in ends)


def _facts(flat: Any) -> dict[str, Any]:
    """Pairs of names and values in one list."""
    return {_text(name): value for name, value in zip(flat[::2], flat[1::2], strict=False)}


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else ""

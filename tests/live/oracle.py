"""What servers have, as they say it themselves: the judge of copies, which shares no code with what it judges.

Rows are asked for by `fixtures.server.truth`. What a target cannot be given is known here from what its release has, not from what
rdbkit says of it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any, NamedTuple, TypeAlias

from fixtures.server import Client, ServerError, truth

FIELDS_EXPIRE = ("redis-8.0", "valkey-9.1")
"""Lines whose hashes have fields that expire."""
VECTOR_SETS = ("redis-8.0",)
"""Lines that have vector sets."""
TELLS_TIME_LEFT = ("redis-6.0",)
"""Lines that tell the time that is left and not when a key expires, by a clock that goes on while they are asked."""


class Row(NamedTuple):
    """A key as its server answers: type, value (None for one that no command tells whole), and expiry in Unix milliseconds."""

    type: str
    value: Any
    expire_ms: int | None


Content: TypeAlias = dict[tuple[int, bytes], Row]


def content(*clients: Client) -> Content:
    """All keys of a server, or of the masters of a cluster, by database and name.

    Raises: AssertionError where two masters have the same key.
    """
    found: Content = {}
    for client in clients:
        for row in truth(client):
            key = row["key"].encode("latin-1")
            assert (row["db"], key) not in found, f"two nodes have {key!r}"
            found[row["db"], key] = Row(row["type"], row["value"], _expiry(client, row["db"], key))
        _select(client, 0)
    return found


def _select(client: Client, db: int) -> None:
    with contextlib.suppress(ServerError):  # a cluster has database 0 alone
        client.call("SELECT", db)


def _expiry(client: Client, db: int, key: bytes) -> int | None:
    _select(client, db)
    try:
        at = client.integer("PEXPIRETIME", key)
    except ServerError:  # releases before 7.0 tell the time that is left
        replies: Any = client.answers([("MULTI",), ("TIME",), ("PTTL", key), ("EXEC",)])[-1]
        (seconds, micros), left = replies
        at = -1 if left < 0 else int(seconds) * 1000 + int(micros) // 1000 + left
    return None if at < 0 else at


def taken_by(line: str, rows: Content) -> tuple[Content, Content]:
    """What a server of a line can be given of a source's content, and the rows of which it cannot be given all.

    Fields that expire there keep their values here, and never expire.
    """
    given: Content = {}
    cut: Content = {}
    for name, row in rows.items():
        if row.type == "vectorset" and line not in VECTOR_SETS:
            cut[name] = row
        elif row.type == "hash" and isinstance(row.value, dict) and line not in FIELDS_EXPIRE:
            cut[name] = row
            given[name] = row._replace(value=row.value["pairs"])
        else:
            given[name] = row
    return given, cut


def tolerance_ms(*lines: str) -> int:
    """How far expiries may be apart between servers of these lines; exactly equal where all of them tell when a key expires."""
    return 1000 if any(line in TELLS_TIME_LEFT for line in lines) else 0


def differences(expected: Content, found: Content, tolerance_ms: int = 0) -> list[str]:
    """How two contents differ, in words; none where they do not."""
    said = [f"{name} is missing" for name in expected.keys() - found.keys()]
    said += [f"{name} is extra" for name in found.keys() - expected.keys()]
    for name in expected.keys() & found.keys():
        one, other = expected[name], found[name]
        if one.type != other.type or one.value != other.value:
            said.append(f"{name}: {_first_difference(one, other)}")
        elif not _is_near(one.expire_ms, other.expire_ms, tolerance_ms):
            said.append(f"{name} expires at {one.expire_ms} and {other.expire_ms}")
    return said


def _is_near(one: int | None, other: int | None, tolerance_ms: int) -> bool:
    if one is None or other is None:
        return one is other
    return abs(one - other) <= tolerance_ms


def _first_difference(one: Row, other: Row) -> str:
    if one.type != other.type:
        return f"{one.type} and {other.type}"
    if isinstance(one.value, list) and isinstance(other.value, list):
        for number, (a, b) in enumerate(zip(one.value, other.value, strict=False)):
            if a != b:
                return f"element {number} of {one.type}: {str(a)[:200]} and {str(b)[:200]}"
        return f"{len(one.value)} and {len(other.value)} elements"
    return f"{str(one.value)[:300]} and {str(other.value)[:300]}"


def payloads(client: Client, names: Iterable[tuple[int, bytes]]) -> dict[tuple[int, bytes], Any]:
    """What DUMP answers for each key: two are equal where nothing of a key was touched."""
    found = {}
    for db, key in names:
        _select(client, db)
        found[db, key] = client.call("DUMP", key)
    _select(client, 0)
    return found

"""Decoded values, as natural Python objects.

| type | `Record.value` | an item of `Record.elements()` |
|---|---|---|
| string | `bytes` | `bytes` |
| list | `list[bytes]` | `bytes` |
| set | `Set`, a `set[bytes]` | `bytes` |
| zset | `dict[bytes, float]` | `(member, score)` |
| hash | `Hash`, a `dict[bytes, bytes]` | `(field, value, expire_ms or None)` |
| stream | `Stream` | `StreamEntry`, then one `StreamTail`, then each `StreamGroup`, then `StreamDedup` where there is one |
| array | `Array`, a `dict[int, bytes, int or float]` | `(index, value)` |
| module | `ModuleValue` | `ModuleValue` |
| cron (KeyDB) | `CronJob` | `CronJob` |
| gcra | `int`, a time | `int` |
| json (Dragonfly) | `bytes` | `bytes` |
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from rdbkit.products import module_product


class Hash(dict[bytes, bytes]):
    """A hash: fields and values in file order, and beside them the fields that expire.

    Attributes:
        field_expire_ms: absolute expiry of each field that has one, in Unix milliseconds.
    """

    def __init__(self) -> None:
        super().__init__()
        self.field_expire_ms: dict[bytes, int] = {}


class Set(set[bytes]):
    """A set.

    Attributes:
        member_expire_ms: absolute expiry in Unix milliseconds of each member that has one (Dragonfly).
    """

    def __init__(self, members: Iterable[bytes] = ()) -> None:
        super().__init__(members)
        self.member_expire_ms: dict[bytes, int] = {}


class Array(dict[int, "bytes | int | float"]):
    """An array of Redis 8.8: values by index, in file order.

    Attributes:
        insert_index: where the last insertion went, None where the file does not say.
    """

    def __init__(self) -> None:
        super().__init__()
        self.insert_index: int | None = None


class StreamId(NamedTuple):
    """The id of a stream's entry.

    >>> print(StreamId(1700000000000, 1))
    1700000000000-1
    """

    ms: int
    seq: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"


class StreamEntry(NamedTuple):
    """One entry of a stream: its id, and fields with values in their order (a field may repeat)."""

    id: StreamId
    fields: list[tuple[bytes, bytes]]


class StreamTail(NamedTuple):
    """What follows a stream's entries. `first_id`, `max_deleted_id` and `entries_added` are None before Redis 7.0.

    `groups` is how many groups follow.
    """

    length: int
    last_id: StreamId
    first_id: StreamId | None
    max_deleted_id: StreamId | None
    entries_added: int | None
    groups: int


class PendingEntry(NamedTuple):
    """An entry delivered to a consumer (None: to nobody any more, Redis 8.8) and not yet acknowledged."""

    id: StreamId
    consumer: bytes | None
    delivery_ms: int
    delivery_count: int


class StreamConsumer(NamedTuple):
    """A consumer of a group; `active_ms` is None before Redis 7.2, and -1 for never."""

    name: bytes
    seen_ms: int
    active_ms: int | None


class StreamGroup(NamedTuple):
    """A consumer group with its pending entries in the order of their ids.

    `entries_read` is None before Redis 7.0 and -1 where the server does not know it; `nacked` (Redis 8.8) lists the entries
    that a consumer gave back, in the order in which they will be delivered again.
    """

    name: bytes
    last_id: StreamId
    entries_read: int | None
    pending: list[PendingEntry]
    consumers: list[StreamConsumer]
    nacked: list[StreamId]


class StreamDedup(NamedTuple):
    """What a stream of Redis 8.6 keeps to recognise entries that are sent twice.

    `producers` has the ids that each producer used, and the entry each became.
    """

    duration_s: int
    max_entries: int
    producers: list[tuple[bytes, list[tuple[bytes, StreamId]]]]
    added: int
    duplicates: int


@dataclass
class Stream:
    """A stream; see `StreamTail` for what is None when."""

    entries: list[StreamEntry] = field(default_factory=list)
    length: int = 0
    last_id: StreamId = field(default=StreamId(0, 0))
    first_id: StreamId | None = None
    max_deleted_id: StreamId | None = None
    entries_added: int | None = None
    groups: list[StreamGroup] = field(default_factory=list)
    dedup: StreamDedup | None = None


@dataclass(frozen=True)
class ModuleValue:
    """A module's value, whose meaning only the module knows.

    Attributes:
        module: the nine letters of its type, e.g. "ReJSON-RL".
        version: of its encoding.
        raw: the framed values up to and with their end mark, as they stand in the file; `rdbkit.module_values` takes them
            apart.
    """

    module: str
    version: int
    raw: bytes

    @property
    def product(self) -> str | None:
        """What the type belongs to, as "RedisJSON"; None where it is not well known."""
        return module_product(self.module)


class CronJob(NamedTuple):
    """A script that KeyDB runs at times."""

    script: bytes
    start_ms: int
    interval_ms: int
    keys: list[bytes]
    args: list[bytes]

"""What the keys of a snapshot take in memory, as rdbtools reports it: a record a key; the figures are those of `rdbkit memory`."""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Callable
from datetime import datetime
from itertools import count
from typing import Any, BinaryIO, Final, NamedTuple

from rdbkit.compat.rdbtools.base import Element, Info, Key, RdbCallback
from rdbkit.compat.rdbtools.encodehelpers import bytes_to_unicode
from rdbkit.format.constants import ValueType
from rdbkit.passes.allocation import AllocationModel
from rdbkit.passes.memory import RecordSizer
from rdbkit.targets.memory import QUANTUM_OF_PACKAGES, layout_of
from rdbkit.targets.target import find_target, target_names

#: What rdbtools takes a number for, in bytes.
_NUMBER: Final = 8
_VERSION: Final = re.compile(r"(\d+)\.(\d+)(\.\d+)?")


class MemoryRecord(NamedTuple):
    """What a key takes: `bytes` of memory, `size` elements, the longest of which has `len_largest_element` bytes.

    Of the tables of a database `type` is "dict", and all from `key` on but `bytes` is None.
    """

    database: int
    type: str
    key: str | None
    bytes: int
    encoding: str | None
    size: int | None
    len_largest_element: int | None
    expiry: datetime | None


class MemoryCallback(RdbCallback):
    """Calls `stream.next_record` with a `MemoryRecord` for each key, and for the two tables of each database.

    The figures are those of `rdbkit memory`, which are measured on servers; those of rdbtools are others.

    Args:
        stream: what has `next_record(record)`, and if it likes `end_database(db)`, `end_rdb()` and `set_metadata(name, value)`.
        architecture: 64.
        redis_version: of the server, such as "5.0", "7.2.4"; or a name of `rdbkit targets`, such as "valkey-8.1".
        string_escape: how keys become text.

    Raises: ValueError for another architecture, or a version that is not known.
    """

    def __init__(self, stream: Any, architecture: int | str, redis_version: str = "5.0", string_escape: str | None = None) -> None:
        super().__init__(string_escape)
        if str(architecture) != "64":
            raise ValueError(f"memory is known for servers of 64 bits, not of {architecture}")
        self._stream = stream
        self._model = AllocationModel(layout_of(find_target(_target_of(redis_version))).sizes, QUANTUM_OF_PACKAGES, False)
        self._dbnum = 0
        self._keys = 0
        self._expires = 0
        self._aux: dict[bytes, bytes | int] = {}
        self._info: Info = {}
        self._key_expiry: datetime | None = None
        self._current_length = 0
        self._len_largest_element = 0
        self._taken = 0  # elements of a list, which does not say beforehand how many it has
        #: Bytes of the key that is told of, which the parser knows when all of it has been read.
        self.memory = 0

    # -- between this and the parser

    def sizer(self, types: dict[int, ValueType]) -> RecordSizer:
        """What weighs the records of a snapshot of these types."""
        return RecordSizer(types, self._model)

    def takes_batches(self, method: Callable[..., Any]) -> bool:
        """Whether `take` may be called in place of this method for each element: unless a subclass has one of its own."""
        return getattr(method, "__func__", None) in (
            MemoryCallback.hset, MemoryCallback.sadd, MemoryCallback.rpush, MemoryCallback.zadd,
        )  # fmt: skip

    def take(self, items: list[Any]) -> None:
        """Elements, fields and values, or members and scores."""
        longest = max(
            [len(item) if isinstance(item, bytes) else _NUMBER if isinstance(item, int) else 0 for item in items], default=0
        )
        self._len_largest_element = max(self._len_largest_element, longest)
        self._taken += len(items)

    # -- what subclasses override

    def emit_record(
        self,
        record_type: str,
        key: Key | None,
        byte_count: int,
        encoding: str | None,
        size: int | None,
        largest_el: int | None,
        expiry: datetime | None,
    ) -> None:
        """Give a record to the stream."""
        name = None if key is None else bytes_to_unicode(key, self._escape, skip_printable=True)
        self._stream.next_record(MemoryRecord(self._dbnum, record_type, name, byte_count, encoding, size, largest_el, expiry))

    # -- what the parser calls

    def aux_field(self, key: bytes, value: bytes | int) -> None:
        if key in (b"used-mem", b"redis-ver", b"redis-bits"):
            self._aux[key] = value

    def start_database(self, db_number: int) -> None:
        self._dbnum = db_number
        self._keys = 0
        self._expires = 0

    def end_database(self, db_number: int) -> None:
        tables = int(self._model.main_tables(self._keys, 0) - self._model.keys_outside(self._keys))
        expiring = int(self._model.main_tables(self._keys, self._expires) - self._model.main_tables(self._keys, 0))
        self.emit_record("dict", None, tables, None, None, None, None)
        self.emit_record("dict", None, expiring, None, None, None, None)
        if hasattr(self._stream, "end_database"):
            self._stream.end_database(db_number)

    def end_rdb(self) -> None:
        if hasattr(self._stream, "end_rdb"):
            self._stream.end_rdb()
        if hasattr(self._stream, "set_metadata"):
            version = self._aux.get(b"redis-ver")
            self._stream.set_metadata("used_mem", self._aux.get(b"used-mem"))
            self._stream.set_metadata("redis_ver", version.decode("utf-8", "replace") if isinstance(version, bytes) else version)
            self._stream.set_metadata("redis_bits", self._aux.get(b"redis-bits"))
            self._stream.set_metadata("internal_frag", int(self._model.hidden))

    def _begin(self, length: int, expiry: datetime | None, info: Info) -> None:
        self._info = info
        self._key_expiry = expiry
        self._current_length = length
        self._taken = 0
        self._len_largest_element = 0

    def _measure(self, element: Element) -> None:
        size = len(element) if isinstance(element, bytes) else _NUMBER
        if size > self._len_largest_element:
            self._len_largest_element = size

    def _end(self, record_type: str, key: Key | None, length: int) -> None:
        if key is not None:
            self._keys += 1
            self._expires += self._key_expiry is not None
        encoding = self._info["encoding"]
        self.emit_record(record_type, key, self.memory, encoding, length, self._len_largest_element, self._key_expiry)
        self._key_expiry = None

    def set(self, key: Key, value: Element, expiry: datetime | None, info: Info) -> None:
        self._begin(0, expiry, info)
        self._measure(value)
        self._end("string", key, self._len_largest_element)

    def start_hash(self, key: Key, length: int, expiry: datetime | None, info: Info) -> None:
        self._begin(length, expiry, info)

    def hset(self, key: Key, field: Element, value: Element) -> None:
        self._measure(field)
        self._measure(value)

    def end_hash(self, key: Key) -> None:
        self._end("hash", key, self._current_length)

    def start_set(self, key: Key, cardinality: int, expiry: datetime | None, info: Info) -> None:
        self._begin(cardinality, expiry, info)

    def sadd(self, key: Key, member: Element) -> None:
        self._measure(member)

    def end_set(self, key: Key) -> None:
        self._end("set", key, self._current_length)

    def start_list(self, key: Key, expiry: datetime | None, info: Info) -> None:
        self._begin(0, expiry, info)

    def rpush(self, key: Key, value: Element) -> None:
        self._taken += 1
        self._measure(value)

    def end_list(self, key: Key, info: Info) -> None:
        self._end("list", key, self._taken)

    def start_sorted_set(self, key: Key, length: int, expiry: datetime | None, info: Info) -> None:
        self._begin(length, expiry, info)

    def zadd(self, key: Key, score: float, member: Element) -> None:
        self._measure(member)

    def end_sorted_set(self, key: Key) -> None:
        self._end("sortedset", key, self._current_length)

    def start_stream(self, key: Key, listpacks_count: int, expiry: datetime | None, info: Info) -> None:
        self._begin(0, expiry, info)

    def stream_listpack(self, key: Key, entry_id: bytes, data: bytes) -> None:
        self._measure(data)

    def end_stream(self, key: Key, items: int, last_entry_id: str, cgroups: list[dict[str, Any]]) -> None:
        self._end("stream", key, 1)

    def start_module(self, key: Key | None, module_name: str, expiry: datetime | None, info: Info) -> Any:
        self._begin(1, expiry, {**info, "encoding": module_name})
        return False

    def end_module(self, key: Key | None, buffer_size: int, buffer: bytes | None = None) -> None:
        if key is None:
            self.memory = buffer_size  # nothing else is known of it
        self._len_largest_element = buffer_size
        self._end("module", key, 1)


def _target_of(redis_version: str) -> str:
    """The target that a version of a server is, by its release line."""
    version = _VERSION.fullmatch(redis_version)
    name = redis_version if version is None else f"redis-{version[1]}.{version[2]}"
    if name not in target_names():
        raise ValueError(f"no server is known by this version: {redis_version!r}")
    return name


class PrintAllKeys:
    """Writes records as CSV, as `rdb --command memory` does.

    Args:
        out: where bytes go.
        bytes: leave out keys that take less; None for none.
        largest: only so many keys, those that take most; None for all.
    """

    def __init__(
        self,
        out: BinaryIO,
        bytes: int | str | None = None,  # noqa: A002 (as it is called there)
        largest: int | str | None = None,
    ) -> None:
        self._out = out
        self._least = 0 if bytes is None else int(bytes)
        self._most = None if largest is None else int(largest)
        self._heap: list[tuple[int, int, MemoryRecord]] = []
        self._order = count(0, -1)  # of keys that take the same, the first in the file
        self._out.write(b"database,type,key,size_in_bytes,encoding,num_elements,len_largest_element,expiry\n")

    def next_record(self, record: MemoryRecord) -> None:
        """Take a record; those of tables are left out."""
        if record.key is None or record.bytes < self._least:
            return
        if self._most is None:
            self._write(record)
            return
        item = (record.bytes, next(self._order), record)
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, item)
        elif self._heap:
            heapq.heappushpop(self._heap, item)

    def end_rdb(self) -> None:
        """Write the largest, the largest first."""
        for _, _, record in sorted(self._heap, reverse=True):
            self._write(record)
        self._heap = []

    def _write(self, record: MemoryRecord) -> None:
        line = ",".join(map(str, record[:-1])) + "," + (record.expiry.isoformat() if record.expiry is not None else "")
        try:
            text = line.encode("latin-1")
        except UnicodeEncodeError:
            text = line.encode()
        self._out.write(text + b"\n")


class PrintJustKeys:
    """Writes the key of each record on a line of its own."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out

    def next_record(self, record: MemoryRecord) -> None:
        """Take a record; those of tables are left out."""
        if record.key is not None:
            self._out.write(f"{record.key}\n".encode("latin-1", "backslashreplace"))


class StatsAggregator:
    """Sums of memory and numbers of keys by database, type and encoding, histograms, and a point for each key.

    Args:
        key_groupings: for rdbtools' sake.

    Attributes:
        aggregates: sums, by heading and subheading.
        scatters: `[bytes, elements]` of each key, by type: as much memory as there are keys.
        histograms: how often each length and, in steps of ten, each number of bytes occurs.
        metadata: what the file says of its server.
    """

    def __init__(self, key_groupings: object = None) -> None:
        self.aggregates: dict[str, dict[Any, int]] = {}
        self.scatters: dict[str, list[list[int | None]]] = {}
        self.histograms: dict[str, dict[Any, int]] = {}
        self.metadata: dict[str, Any] = {}

    def next_record(self, record: MemoryRecord) -> None:
        """Count a record."""
        for heading, subheading, metric in (
            ("database_memory", record.database, record.bytes),
            ("database_memory", "all", record.bytes),
            ("type_memory", record.type, record.bytes),
            ("encoding_memory", record.encoding, record.bytes),
            ("type_count", record.type, 1),
            ("encoding_count", record.encoding, 1),
        ):
            self.add_aggregate(heading, subheading, metric)
        self.add_histogram(f"{record.type}_length", record.size)
        self.add_histogram(f"{record.type}_memory", record.bytes // 10 * 10)
        if record.type in ("list", "hash", "set", "sortedset", "string"):
            self.add_scatter(f"{record.type}_memory_by_length", record.bytes, record.size)

    def add_aggregate(self, heading: str, subheading: Any, metric: int) -> None:
        """Add to a sum."""
        sums = self.aggregates.setdefault(heading, {})
        sums[subheading] = sums.get(subheading, 0) + metric

    def add_histogram(self, heading: str, metric: Any) -> None:
        """Count an occurrence."""
        counts = self.histograms.setdefault(heading, {})
        counts[metric] = counts.get(metric, 0) + 1

    def add_scatter(self, heading: str, x: int, y: int | None) -> None:
        """Add a point."""
        self.scatters.setdefault(heading, []).append([x, y])

    def set_metadata(self, key: str, val: Any) -> None:
        """Take what the file says of its server."""
        self.metadata[key] = val

    def get_json(self) -> str:
        """All of it as JSON."""
        return json.dumps(
            {"aggregates": self.aggregates, "scatters": self.scatters, "histograms": self.histograms, "metadata": self.metadata}
        )

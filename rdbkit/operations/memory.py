"""`rdbkit memory`: what the keys of a snapshot will take in a server's memory, by an exact model of its structures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO, Final

from rdbkit.errors import RdbError
from rdbkit.format.constants import ValueType
from rdbkit.format.record import Record
from rdbkit.format.scan import STRING_INT, STRING_LZF, Visitor
from rdbkit.model import aux_number
from rdbkit.operations.arguments import Source, opened, rows_of, separators_of
from rdbkit.passes.allocation import AllocationModel
from rdbkit.passes.memory import (
    CSV_HEAD_OF_MEMORY,
    DAY_MS,
    EDGES,
    HOUR_MS,
    NEVER,
    MemoryRow,
    MemoryRows,
    MemoryTally,
    MemoryText,
    RecordSizer,
)
from rdbkit.passes.patterns import Node, Patterns
from rdbkit.selection import Selection
from rdbkit.snapshot.large import count_elements
from rdbkit.snapshot.reader import Snapshot
from rdbkit.targets.memory import QUANTUM_OF_PACKAGES, Layout, layout_of
from rdbkit.targets.target import Target, as_target
from rdbkit.text import json_bytes, valid_text

__all__ = ["Memory", "MemoryRow", "distinct_prefixes", "memory", "memory_rows", "write_memory_text"]

Progress = Callable[[int], object]

_MODULE: Final = 7
#: Names of the columns of the histogram of expiries, in the order of `EDGES`, and behind them.
LEFT: Final = ("expired", "1h", "6h", "1d", "3d", "7d", "14d", "30d", "90d", "1y", "later", "never")
assert len(LEFT) == len(EDGES) + 2
assert EDGES[1] == HOUR_MS
assert EDGES[3] == DAY_MS


@dataclass
class MemoryOfDatabase:
    """Keys of one database, those that expire, and what all of them take in memory, in bytes."""

    db: int
    keys: int
    expiring: int
    bytes: int


@dataclass
class MemoryOfType:
    """Keys of one type and stored form, what they take in memory in bytes, and their share of all, 0 to 1."""

    type: str
    encoding: str
    keys: int
    bytes: int
    share: float


@dataclass
class HeavyKey:
    """One of the keys that take the most memory: `bytes` of it, `offset` in the file."""

    db: int
    key: bytes
    type: str
    encoding: str
    bytes: int
    elements: int | None
    expire_ms: int | None
    offset: int


@dataclass
class Prefix:
    """Keys whose names follow one pattern.

    `{id}` in it stands for a number or an id, `*` for names that are not told apart. A prefix ends with its separator, where more
    follows it; `depth` is how many parts it has. `bytes` are of memory; `expiring` keys have an expiry, and take `expiring_bytes`.
    """

    prefix: bytes
    depth: int
    keys: int
    bytes: int
    share: float
    expiring: int
    expiring_bytes: int


@dataclass
class TimeLeft:
    """Keys by the time they have left when the report is made: up to `left` ("1h", ...), with the bytes of memory they take."""

    left: str
    keys: int
    bytes: int


@dataclass
class Memory:
    """What a snapshot takes in a server's memory, in bytes.

    Attributes:
        keys_bytes: the sum of what MEMORY USAGE would answer for each key.
        dataset_bytes: what `used_memory_dataset` of INFO would be.
        overhead_bytes: tables of keys and expiries, which INFO counts as overhead.
        total_bytes: both, and what an empty server takes; without clients, replicas and fragmentation.
        estimated_keys, estimated_bytes: of modules and the like, whose memory is taken to be that in the file.
        last_expiry_ms: when the last key that expires does, in Unix milliseconds; None where none does.
        cluster: the file is of a node of a cluster.
        used_memory: what the server that wrote the file had in use, where it says so.
        module_data: module types that have data outside of keys, whose memory is not known.
        functions, scripts: function libraries and Lua scripts in the file, whose memory is not counted.
        redis_enterprise: the file has what only Redis Enterprise writes.
    """

    file: str
    target: str
    layout: str
    layout_measured: str
    layout_note: str
    quantum: int
    pages: bool
    keys: int
    expiring: int
    keys_bytes: int
    dataset_bytes: int
    overhead_bytes: int
    total_bytes: int
    estimated_keys: int
    estimated_bytes: int
    used_memory: int | None
    cluster: bool
    file_bytes: int
    now_ms: int
    last_expiry_ms: int | None
    databases: list[MemoryOfDatabase]
    types: list[MemoryOfType]
    biggest: list[HeavyKey]
    prefixes: list[Prefix]
    prefixes_closed: bool
    expiry: list[TimeLeft]
    selected: bool = False
    module_data: list[str] = field(default_factory=list)
    functions: int = 0
    scripts: int = 0
    redis_enterprise: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON types; bytes that are not UTF-8 as `{"base64": ...}`."""
        result = asdict(self)
        for row in result["biggest"]:
            row["key"] = json_bytes(row["key"])
        for row in result["prefixes"]:
            row["prefix"] = json_bytes(row["prefix"])
        result["file"] = valid_text(self.file)
        return result


def distinct_prefixes(prefixes: Sequence[Prefix]) -> list[Prefix]:
    """Without those of which all keys are in the one prefix below it.

    Args:
        prefixes: of a report, each before those below it.
    """
    pairs = zip(prefixes, [*prefixes[1:], None], strict=True)
    return [p for p, below in pairs if below is None or below.depth <= p.depth or below.keys < p.keys]


def memory(
    snapshot: Source,
    target: Target | str,
    *,
    quantum: int = QUANTUM_OF_PACKAGES,
    pages: bool = False,
    separators: str | bytes = b":",
    depth: int = 3,
    top: int = 20,
    selection: Selection | None = None,
    now_ms: int | None = None,
    progress: Progress | None = None,
) -> Memory:
    """Tell what the keys of a snapshot will take in a target's memory.

    Only lengths are looked at, nothing is decoded. Skip lists have the height that servers' dice give on average; what a server
    adds while it runs (room for strings to grow, half-filled nodes) is not in the figures, as it is not in a server that has just
    loaded the file.

    Args:
        snapshot: a path, a file of bytes, or a snapshot that was just opened.
        target: of `rdbkit.find_target`, or its name.
        quantum: of the allocator, in bytes: 16 in packages of distributions that link their own jemalloc, 8 in servers as their
            projects build them.
        pages: the allocator gives pieces of more than 32 KB in whole pages, as jemalloc 5.3.1 does; else in size classes, which are
            up to a quarter larger.
        separators: ASCII characters or bytes, each of which ends a part of a key's name.
        depth: parts of a name that the table of prefixes tells apart.
        top: how many of the biggest keys to report.
        selection: which keys to count; None for all.
        now_ms: what time left is counted from, in Unix ms; by default the clock.
        progress: called after each block with the bytes of the underlying file read so far.

    Raises: RdbError where the file is damaged; OSError where the path cannot be opened; ValueError for no target of this name;
        TypeError for what is no source or no target.

    >>> report = memory("fixtures/rich/redis-7.0.15.rdb", "redis-7.0")
    >>> report.keys, report.keys_bytes, report.biggest[0].key, report.biggest[0].bytes
    (27, 98634, b'l_big', 29944)
    """
    cut_at = separators_of(separators)
    with opened(snapshot) as source:
        return _memory(source, as_target(target), quantum, pages, cut_at, depth, top, selection, now_ms, progress)


def _memory(
    snapshot: Snapshot,
    target: Target,
    quantum: int,
    pages: bool,
    separators: bytes,
    depth: int,
    top: int,
    selection: Selection | None,
    now_ms: int | None,
    progress: Progress | None,
) -> Memory:
    now = int(time.time() * 1000) if now_ms is None else now_ms
    layout = layout_of(target)
    model = AllocationModel(layout.sizes, quantum, pages)
    sizer = RecordSizer(snapshot.types, model)
    patterns = Patterns(separators, depth)
    limit = snapshot.limits.item_bytes
    wanted = selection.filter_for(snapshot.types, limit) if selection else None
    tally = MemoryTally(sizer, patterns, now, top, limit, wanted)
    for large in snapshot.scan(tally):
        if large is not None:
            tally.large_elements = _weigh_large(large, sizer)
        if progress is not None:
            progress(snapshot.position)
    tally.sum_up()
    report = _report(snapshot, target, layout, model, tally)
    report.selected = bool(selection)
    return report


def memory_rows(
    snapshot: Source,
    target: Target | str,
    *,
    quantum: int = QUANTUM_OF_PACKAGES,
    pages: bool = False,
    selection: Selection | None = None,
    progress: Progress | None = None,
) -> Iterator[MemoryRow]:
    """One row for each key, with what it will take in a target's memory.

    The arguments, and what is raised, are those of `memory`.

    >>> row = next(memory_rows("fixtures/rich/redis-7.0.15.rdb", "redis-7.0"))
    >>> row.key, row.memory, row.size
    (b'h_lp', 80, 25)
    """
    known = as_target(target)
    return rows_of(snapshot, lambda source: _memory_rows(source, known, quantum, pages, selection, progress))


def _memory_rows(
    snapshot: Snapshot, target: Target, quantum: int, pages: bool, selection: Selection | None, progress: Progress | None
) -> Iterator[MemoryRow]:
    sizer = RecordSizer(snapshot.types, AllocationModel(layout_of(target).sizes, quantum, pages))
    limit = snapshot.limits.item_bytes
    wanted = selection.filter_for(snapshot.types, limit) if selection else None
    visitor = MemoryRows(snapshot.types, sizer, limit, wanted)
    try:
        for _ in _scan_rows(snapshot, visitor, sizer, progress):
            yield from visitor.take()
    except RdbError:
        yield from visitor.take()  # what is sound before the damage
        raise
    yield from visitor.take()


def write_memory_text(
    snapshot: Source,
    target: Target | str,
    out: BinaryIO,
    *,
    as_json: bool = False,
    quantum: int = QUANTUM_OF_PACKAGES,
    pages: bool = False,
    selection: Selection | None = None,
    progress: Progress | None = None,
) -> bool:
    """Write the rows of `memory_rows` as CSV with a line of names, or as JSON lines; whether there were any.

    Args:
        out: where UTF-8 bytes go.
        as_json: JSON lines instead of CSV.

    The others, and what is raised, are those of `memory`.
    """
    known = as_target(target)
    with opened(snapshot) as source:
        return _write_text(source, known, out, as_json, quantum, pages, selection, progress)


def _write_text(
    snapshot: Snapshot,
    target: Target,
    out: BinaryIO,
    as_json: bool,
    quantum: int,
    pages: bool,
    selection: Selection | None,
    progress: Progress | None,
) -> bool:
    sizer = RecordSizer(snapshot.types, AllocationModel(layout_of(target).sizes, quantum, pages))
    limit = snapshot.limits.item_bytes
    wanted = selection.filter_for(snapshot.types, limit) if selection else None
    visitor = MemoryText(snapshot.types, sizer, limit, wanted, as_json)
    if not as_json:
        out.write(CSV_HEAD_OF_MEMORY)
    size = 0
    try:
        for _ in _scan_rows(snapshot, visitor, sizer, progress):
            size += out.write(visitor.take())
    except RdbError:
        out.write(visitor.take())
        raise
    size += out.write(visitor.take())
    return size > 0


def _scan_rows(
    snapshot: Snapshot, visitor: MemoryRows | MemoryText, sizer: RecordSizer, progress: Progress | None
) -> Iterator[None]:
    assert isinstance(visitor, Visitor)
    for large in snapshot.scan(visitor):
        if large is not None:
            visitor.large_elements = _weigh_large(large, sizer)
        yield
        if progress is not None:
            progress(snapshot.position)


def _weigh_large(record: Record, sizer: RecordSizer) -> int:
    """Let the gauge read a record that does not fit into a block; returns how many elements it has, -1 where it has none."""
    sizer.begin_large(record.type_code)
    if not sizer.needs_pieces(record.type_code):
        return 1  # a string
    return count_elements(record, sizer.value_sizer.piece)


def _names(type_code: int, types: dict[int, ValueType]) -> tuple[str, str]:
    if type_code in (STRING_INT, STRING_LZF):
        return "string", "int" if type_code == STRING_INT else "lzf"
    return types[type_code].type, types[type_code].encoding


def _databases(tally: MemoryTally) -> list[MemoryOfDatabase]:
    """The databases that have keys, by number."""
    found = []
    for number, sums in sorted(tally.databases.items()):
        keys = sum(n for n, _ in sums.by_type.values())
        if keys:
            found.append(MemoryOfDatabase(number, keys, int(sums.expiring), sum(size for _, size in sums.by_type.values())))
    return found


def _by_type_code(tally: MemoryTally, databases: list[MemoryOfDatabase]) -> dict[int, tuple[int, int]]:
    """Keys and bytes of each value type."""
    found: dict[int, tuple[int, int]] = {}
    for database in databases:
        for type_code, (n, size) in tally.databases[database.db].by_type.items():
            before = found.get(type_code, (0, 0))
            found[type_code] = before[0] + n, before[1] + size
    return found


def _types(
    by_type_code: dict[int, tuple[int, int]], modules: dict[str, tuple[int, int]], types: dict[int, ValueType]
) -> list[MemoryOfType]:
    """Types and stored forms, the heaviest first; those of modules by their name."""
    by_type = {(name, "module"): sums for name, sums in modules.items()}
    for type_code, (n, taken) in by_type_code.items():
        if type_code != _MODULE:
            before = by_type.get(_names(type_code, types), (0, 0))
            by_type[_names(type_code, types)] = before[0] + n, before[1] + taken
    total = sum(size for _, size in by_type_code.values())
    return [
        MemoryOfType(name, encoding, n, size, size / total)
        for (name, encoding), (n, size) in sorted(by_type.items(), key=lambda item: (-item[1][1], item[0]))
    ]


def _biggest(tally: MemoryTally, types: dict[int, ValueType]) -> list[HeavyKey]:
    return [
        HeavyKey(db, key, *_names(type_code, types), size, None if n < 0 else n, None if expire == -1 else expire, -offset)
        for size, offset, db, key, type_code, expire, n in sorted(tally.biggest, reverse=True)
    ]


def _report(snapshot: Snapshot, target: Target, layout: Layout, model: AllocationModel, tally: MemoryTally) -> Memory:
    databases = _databases(tally)
    by_type_code = _by_type_code(tally, databases)
    dataset = int(model.hidden) + sum(int(model.allocated_keys(d.keys, d.expiring) - model.keys_outside(d.keys)) for d in databases)
    overhead = sum(int(model.main_tables(d.keys, d.expiring)) for d in databases)
    total = sum(d.bytes for d in databases)
    keys = sum(d.keys for d in databases)
    expiring = sum(d.expiring for d in databases)
    value_sizer = tally.sizer.value_sizer
    guessed = [counts for type_code, counts in by_type_code.items() if value_sizer.guesses(type_code)]
    left = [*tally.left, [keys - expiring, total - sum(size for _, size in tally.left)]]
    return Memory(
        file=snapshot.name,
        target=target.name,
        layout=layout.title,
        layout_measured=layout.measured,
        layout_note=layout.note,
        quantum=int(model.quantum),
        pages=bool(model.pages),
        keys=keys,
        expiring=expiring,
        keys_bytes=total,
        dataset_bytes=total + dataset,
        overhead_bytes=overhead,
        total_bytes=total + dataset + overhead + layout.sizes["base"],
        estimated_keys=sum(n for n, _ in guessed),
        estimated_bytes=sum(size for _, size in guessed),
        used_memory=aux_number(snapshot.aux.get("used-mem")),
        cluster=bool(tally.slots),
        file_bytes=snapshot.rdb_size,
        now_ms=int(tally.now_ms),
        last_expiry_ms=None if tally.last_expiry == NEVER else int(tally.last_expiry),
        databases=databases,
        types=_types(by_type_code, tally.modules, snapshot.types),
        biggest=_biggest(tally, snapshot.types),
        prefixes=list(_prefixes(tally.patterns.root, b"", 0, total)),
        prefixes_closed=tally.patterns.closed,
        expiry=[TimeLeft(name, n, size) for name, (n, size) in zip(LEFT, left, strict=True)],
        module_data=sorted(tally.module_data),
        functions=int(tally.functions),
        scripts=int(tally.scripts),
        redis_enterprise=bool(tally.enterprise_hints),
    )


def _prefixes(node: Node, before: bytes, depth: int, total: int) -> Iterator[Prefix]:
    """The places below one, the largest first, each before those below it."""
    below = [(child.total(), child) for child in node.children.values()]
    for sums, child in sorted(below, key=lambda pair: (-pair[0].bytes, pair[1].name)):
        name = before + child.name
        if sums.keys:
            yield Prefix(name, depth + 1, sums.keys, sums.bytes, sums.bytes / total, sums.expiring, sums.expiring_bytes)
            yield from _prefixes(child, name, depth + 1, total)

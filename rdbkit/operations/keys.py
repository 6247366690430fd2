"""`rdbkit keys`: one row a key, in file order or the first of an order, as objects, CSV, JSON lines or Parquet."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, NamedTuple

from rdbkit.errors import RdbError
from rdbkit.operations.arguments import Source, opened, rows_of
from rdbkit.passes.keys import CSV_HEAD, GROUP_BYTES, GROUP_ROWS, ColumnRows, KeyColumns, KeyRow, RowList, Rows, TextRows
from rdbkit.snapshot.large import count_elements
from rdbkit.snapshot.reader import Snapshot

if TYPE_CHECKING:
    from rdbkit.selection import Selection

__all__ = ["SORTS", "KeyRow", "Sort", "keys", "write_columns", "write_parquet", "write_text"]

Sort = Literal["size", "elements", "ttl"]
Progress = Callable[[int], object]

_NEVER = 1 << 63
#: What comes first under each name: the greatest of these.
SORTS: dict[str, Callable[[KeyRow], int]] = {
    "size": lambda row: row.size,
    "elements": lambda row: -1 if row.elements is None else row.elements,
    "ttl": lambda row: -_NEVER if row.expire_ms is None else -row.expire_ms,
}

_TEXT_ROWS = 1 << 12


def keys(
    snapshot: Source,
    *,
    selection: Selection | None = None,
    sort: Sort | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Iterator[KeyRow]:
    """One row for each key, without any value being decoded.

    Args:
        snapshot: a path, a file of bytes, or a snapshot that was just opened.
        selection: which keys; by default all.
        sort: "size" or "elements", the greatest first, or "ttl", the next to expire first and those that never do last; of
            equal ones the first in the file. By default file order.
        limit: at most so many rows. Without `sort`, reading stops there, and the checksum is not looked at. `sort` needs it: so
            many rows are held in memory.
        progress: called after each block with the bytes of the underlying file read so far.

    Raises: ValueError for `sort` without `limit`; RdbError where the file is damaged, behind the rows that are sound before it;
        OSError where the path cannot be opened; TypeError for what is no source.

    >>> for row in keys("fixtures/rich/redis-7.0.15.rdb", sort="elements", limit=2):
    ...     print(row.key, row.type, row.encoding, row.size, row.elements)
    b'l_big' list quicklist 13862 3000
    b's_ht' set hashtable 2898 600
    """
    if sort is not None and limit is None:
        raise ValueError("sort needs a limit: so many rows are held in memory")
    return rows_of(snapshot, lambda source: _keys(source, selection, sort, limit, progress))


def _keys(
    snapshot: Snapshot, selection: Selection | None, sort: Sort | None, limit: int | None, progress: Progress | None
) -> Iterator[KeyRow]:
    if sort is None or limit is None:
        return _rows(snapshot, selection, limit, progress)
    return iter(heapq.nlargest(limit, _rows(snapshot, selection, None, progress), key=SORTS[sort]))


def write_text(
    snapshot: Source,
    out: BinaryIO,
    *,
    as_json: bool = False,
    selection: Selection | None = None,
    sort: Sort | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> bool:
    """Write the rows of `keys` as CSV with a line of names, or as JSON lines; several times faster than by way of `keys`.

    Returns whether there were any.

    Args:
        out: where UTF-8 bytes go.
        as_json: JSON lines instead of CSV.

    The others, and what is raised, are those of `keys`.

    >>> import io, rdbkit
    >>> out = io.BytesIO()
    >>> with rdbkit.open("fixtures/rich/redis-7.0.15.rdb") as snapshot:
    ...     write_text(snapshot, out, sort="size", limit=1)
    True
    >>> print(out.getvalue().decode().strip())
    db,key,type,encoding,size,elements,expire_ms,idle_s,freq,slot,key_base64
    0,l_big,list,quicklist,13862,3000,,,,11226,
    """
    with opened(snapshot) as source:
        return _write_text(source, out, as_json, selection, sort, limit, progress)


def _write_text(
    snapshot: Snapshot,
    out: BinaryIO,
    as_json: bool,
    selection: Selection | None,
    sort: Sort | None,
    limit: int | None,
    progress: Progress | None,
) -> bool:
    name_limit = snapshot.limits.item_bytes
    wanted = selection.filter_for(snapshot.types, name_limit) if selection else None
    visitor = TextRows(snapshot.types, name_limit, wanted, limit, as_json)
    if not as_json:
        out.write(CSV_HEAD)
    size = 0
    if sort is not None:
        rows = keys(snapshot, selection=selection, sort=sort, limit=limit, progress=progress)
        while batch := list(islice(rows, _TEXT_ROWS)):
            for row in batch:
                visitor.add(row)
            size += out.write(visitor.take())
        return size > 0
    try:
        for _ in _scan(snapshot, visitor, progress):
            size += out.write(visitor.take())
    except RdbError:
        out.write(visitor.take())
        raise
    size += out.write(visitor.take())
    return size > 0


def write_columns(
    snapshot: Source,
    out: BinaryIO,
    *,
    selection: Selection | None = None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> bool:
    """Write the rows of `keys` as a Parquet file, the same that `write_parquet` makes of them, several times faster.

    Returns whether there were any.

    Args:
        out: where the file goes; it need not be seekable.

    The others, and what is raised, are those of `keys`; besides, ImportError without pyarrow (extra `parquet`).

    >>> import io
    >>> from pyarrow import parquet
    >>> out = io.BytesIO()
    >>> write_columns("fixtures/rich/redis-7.0.15.rdb", out)
    True
    >>> parquet.read_table(out, columns=["key", "size", "offset"]).to_pylist()[0]
    {'key': b'h_lp', 'size': 25, 'offset': 153}
    """
    with opened(snapshot) as source:
        return _write_columns(source, out, selection, limit, progress)


def _write_columns(
    snapshot: Snapshot, out: BinaryIO, selection: Selection | None, limit: int | None, progress: Progress | None
) -> bool:
    import pyarrow as pa

    name_limit = snapshot.limits.item_bytes
    wanted = selection.filter_for(snapshot.types, name_limit) if selection else None
    visitor = ColumnRows(snapshot.types, name_limit, wanted, limit)
    found = False
    with _parquet_writer(out, KeyRow) as writer:

        def write(groups: list[KeyColumns]) -> bool:
            for group in groups:
                writer.write_batch(_batch(group, types, encodings, writer.schema))
            return bool(groups)

        types, encodings = pa.array(visitor.types), pa.array(visitor.encodings)
        try:
            for _ in _scan(snapshot, visitor, progress):
                found |= write(visitor.take())
        except RdbError:
            write(visitor.finish())  # what is sound before the damage
            raise
        return write(visitor.finish()) or found


def write_parquet(rows: Iterable[NamedTuple], out: BinaryIO, row_type: type[NamedTuple] = KeyRow) -> bool:
    """Write rows as a Parquet file, in groups of 32,768 rows, and fewer where names are long; whether there were any.

    The columns are the fields of the rows; `key` is binary.

    Args:
        rows: what `keys` gives, or `memory_rows`.
        out: where the file goes; it need not be seekable.
        row_type: what the rows are: `KeyRow` or `MemoryRow`.

    Raises: ImportError without pyarrow (extra `parquet`); RdbError where reading the rows does.
    """
    import pyarrow as pa

    found = False
    with _parquet_writer(out, row_type) as writer:
        for group in _groups(rows):
            found = True
            columns = [pa.array(column, field.type) for column, field in zip(zip(*group, strict=True), writer.schema, strict=True)]
            writer.write_batch(pa.record_batch(columns, schema=writer.schema))
    return found


def _parquet_writer(out: BinaryIO, row_type: type[NamedTuple]) -> Any:
    """What writes Parquet files of such rows."""
    import pyarrow as pa
    from pyarrow import parquet

    fields = {
        "db": pa.field("db", pa.int32(), nullable=False),
        "key": pa.field("key", pa.binary(), nullable=False),
        "type": pa.field("type", pa.string(), nullable=False),
        "encoding": pa.field("encoding", pa.string(), nullable=False),
        "memory": pa.field("memory", pa.int64(), nullable=False),
        "size": pa.field("size", pa.int64(), nullable=False),
        "elements": pa.field("elements", pa.int64()),
        "expire_ms": pa.field("expire_ms", pa.int64()),
        "idle_s": pa.field("idle_s", pa.int64()),
        "freq": pa.field("freq", pa.int16()),
        "slot": pa.field("slot", pa.int16(), nullable=False),
        "offset": pa.field("offset", pa.int64(), nullable=False),
    }
    schema = pa.schema([fields[name] for name in row_type._fields])
    # neither a name nor an offset repeats: a dictionary of them would only be thrown away again
    repeating = [name for name in schema.names if name not in ("key", "offset")]
    return parquet.ParquetWriter(out, schema, compression="zstd", use_dictionary=repeating)


def _batch(group: KeyColumns, types: Any, encodings: Any, schema: Any) -> Any:
    """A batch of Arrow, whose columns are the bytes of the group: they are not copied."""
    import pyarrow as pa

    def column(kind: Any, numbers: bytes, present: bytes | None = None) -> Any:
        bits = None if present is None else pa.py_buffer(present)
        return pa.Array.from_buffers(kind, group.rows, [bits, pa.py_buffer(numbers)])

    codes = column(pa.int16(), group.codes)
    columns = {
        "db": column(pa.int32(), group.dbs),
        "key": pa.Array.from_buffers(
            pa.binary(), group.rows, [None, pa.py_buffer(group.key_ends), pa.py_buffer(group.keys)], null_count=0
        ),
        "type": types.take(codes),
        "encoding": encodings.take(codes),
        "size": column(pa.int64(), group.sizes),
        "elements": column(pa.int64(), *group.elements),
        "expire_ms": column(pa.int64(), *group.expire_ms),
        "idle_s": column(pa.int64(), *group.idle_s),
        "freq": column(pa.int64(), *group.freqs).cast(pa.int16()),
        "slot": column(pa.int16(), group.slots),
        "offset": column(pa.int64(), group.offsets),
    }
    return pa.record_batch([columns[name] for name in schema.names], schema=schema)


def _groups(rows: Iterable[NamedTuple]) -> Iterator[list[NamedTuple]]:
    """Rows by the group; none is empty."""
    group: list[NamedTuple] = []
    held = 0
    try:
        for row in rows:
            group.append(row)
            held += len(row[1])  # the key's name
            if len(group) == GROUP_ROWS or held > GROUP_BYTES:
                yield group
                group, held = [], 0
    except RdbError:
        if group:
            yield group  # what is sound before the damage
        raise
    if group:
        yield group


def _rows(snapshot: Snapshot, selection: Selection | None, limit: int | None, progress: Progress | None) -> Iterator[KeyRow]:
    name_limit = snapshot.limits.item_bytes
    wanted = selection.filter_for(snapshot.types, name_limit) if selection else None
    visitor = RowList(snapshot.types, name_limit, wanted, limit)
    try:
        for _ in _scan(snapshot, visitor, progress):
            yield from visitor.take()
    except RdbError:
        yield from visitor.take()  # what is sound before the damage
        raise
    yield from visitor.take()


def _scan(snapshot: Snapshot, visitor: Rows, progress: Progress | None) -> Iterator[None]:
    """Scan block by block, until as many rows have been made as are wanted."""
    for large in snapshot.scan(visitor):
        if large is not None:
            visitor.large_elements = count_elements(large)
        yield
        if progress is not None:
            progress(snapshot.position)
        if visitor.left <= 0:
            return

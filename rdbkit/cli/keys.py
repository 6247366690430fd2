"""`rdbkit keys`."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from itertools import islice
from typing import BinaryIO

import click

import rdbkit
from rdbkit.cli.files import READ_ONCE, Verb, check_parquet, format_for, output_options, writing
from rdbkit.cli.options import selection_options, warn_if_none
from rdbkit.cli.render import printable, progress, size, warn, when
from rdbkit.operations.keys import SORTS, KeyRow, Sort, write_columns, write_parquet, write_text
from rdbkit.operations.keys import keys as read_keys
from rdbkit.selection import Selection

_FORMATS = ("csv", "jsonl", "parquet", "table")
_BATCH = 256
_TABLE = "{:>9}  {:>3}  {:<6}  {:<10}  {:>9}  {:<16}  {}"
_BEFORE_KEY = 65  # characters of a table's row
_SHORTEST_KEY = 24


@click.command(cls=Verb)
@click.argument("file", metavar="FILE", type=READ_ONCE)
@click.option(
    "--format",
    "format_",
    type=click.Choice(_FORMATS),
    metavar="FORMAT",
    help="table, csv, jsonl or parquet; by default what the name after -o ends in, else table on a terminal and csv elsewhere.",
)
@output_options
@click.option(
    "--sort", type=click.Choice(list(SORTS)), help="Greatest size, most elements, or next to expire first; needs --limit."
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="The first N keys only.")
@click.option("--relaxed", is_flag=True, help="Try RDB versions that are newer than this release knows.")
@click.option("--no-checksum", is_flag=True, help="Do not verify the CRC-64 at the end.")
@selection_options
def keys(
    file: str,
    format_: str | None,
    output: str,
    force: bool,
    sort: Sort | None,
    limit: int | None,
    relaxed: bool,
    no_checksum: bool,
    selection: Selection,
) -> None:
    """One row for each key: type, bytes in the file, elements, expiry, slot.

    FILE is a path or - for standard input, compressed or not. Exit code 3 if it cannot be read or is damaged.
    """
    if sort is not None and limit is None:
        raise click.UsageError("--sort needs --limit N: so many rows are held in memory")
    chosen = format_for(output, format_, _FORMATS, "table" if sys.stdout.isatty() else "csv")
    if chosen == "parquet":
        check_parquet(output)
    on_terminal = output == "-" and sys.stdout.isatty()
    with (
        rdbkit.open(file, relaxed=relaxed, verify_checksum=not no_checksum) as snapshot,
        writing(output, [file], force, styled=chosen == "table") as out,
        nullcontext() if on_terminal else progress(file, snapshot.size) as update,
    ):
        if chosen in ("csv", "jsonl"):
            found = write_text(
                snapshot, out, as_json=chosen == "jsonl", selection=selection, sort=sort, limit=limit, progress=update
            )
        elif chosen == "parquet" and sort is None:
            found = write_columns(snapshot, out, selection=selection, limit=limit, progress=update)
        else:
            rows = read_keys(snapshot, selection=selection, sort=sort, limit=limit, progress=update)
            found = write_parquet(rows, out) if chosen == "parquet" else _write_table(rows, out, on_terminal, output)
    warn(snapshot)
    warn_if_none(selection, found)


def _write_table(rows: Iterable[KeyRow], out: BinaryIO, on_terminal: bool, output: str) -> bool:
    """Whether there were any rows."""
    encoding = sys.stdout.encoding if output == "-" else "utf-8"
    pieces = 0
    for text in _table(rows, on_terminal):
        out.write(text.encode(encoding, "backslashreplace"))
        pieces += 1
    return pieces > 1


def _table(rows: Iterable[KeyRow], on_terminal: bool) -> Iterator[str]:
    """Lines of fixed columns, some at a time, so that a table may be of any length; names are cut to a terminal's width."""
    width = max(shutil.get_terminal_size().columns - _BEFORE_KEY, _SHORTEST_KEY) if on_terminal else 0
    head = _TABLE.format("size", "db", "type", "encoding", "elements", "expires (UTC)", "key")
    yield f"{click.style(head, bold=True) if on_terminal else head}\n"
    rows = iter(rows)
    while batch := list(islice(rows, _BATCH)):
        yield "".join(_line(row, width) for row in batch)


def _line(row: KeyRow, width: int) -> str:
    elements = "" if row.elements is None else str(row.elements)
    expires = "" if row.expire_ms is None else when(row.expire_ms)
    name = printable(row.key, width)
    return _TABLE.format(size(row.size), row.db, row.type, row.encoding, elements, expires, name) + "\n"

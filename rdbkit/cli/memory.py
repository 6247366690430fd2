"""`rdbkit memory`."""

from __future__ import annotations

import json
from importlib.util import find_spec
from typing import Final

import click

import rdbkit
from rdbkit.cli.files import READ_ONCE, OutputPath, Verb, check_parquet, format_for, output_options, writing
from rdbkit.cli.options import layout_target_option, selection_options, separators_option, warn_if_none
from rdbkit.cli.render import Output, printable, progress, size, warn
from rdbkit.cli.render import output as report_output
from rdbkit.operations.memory import Memory, distinct_prefixes, memory_rows, write_memory_text
from rdbkit.operations.memory import memory as read_memory
from rdbkit.selection import Selection
from rdbkit.storage.location import exists
from rdbkit.targets.memory import QUANTUM, QUANTUM_OF_PACKAGES
from rdbkit.targets.target import Target
from rdbkit.text import count

_FORMATS: Final = ("csv", "jsonl", "parquet", "table")
_ALLOCATORS: Final = {"packaged": (QUANTUM_OF_PACKAGES, False), "own": (QUANTUM, False), "pages": (QUANTUM_OF_PACKAGES, True)}
_ROWS: Final = 30  # of a table
_SMALL: Final = 0.001  # share of memory below which a prefix is not shown


@click.command(cls=Verb)
@click.argument("file", metavar="FILE", type=READ_ONCE)
@layout_target_option
@click.option(
    "--format", "format_", type=click.Choice(_FORMATS), metavar="FORMAT",
    help="csv, jsonl or parquet: one row a key; table: the report. By default what the name after -o ends in, else csv, and the "
    "report where there is no -o.",
)  # fmt: skip
@output_options
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
@click.option("--html", metavar="FILE", type=OutputPath("html"), help="The report as a page with charts, too.")
@separators_option("Each ends a part of a key's name.")
@click.option("--depth", default=3, show_default=True, type=click.IntRange(1, 100), help="Parts of a name to tell apart.")
@click.option(
    "--top", default=10, show_default=True, type=click.IntRange(0, 100_000), metavar="N", help="Show the N heaviest keys."
)
@click.option(
    "--allocator", type=click.Choice(list(_ALLOCATORS)), default="packaged", show_default=True,
    help="The server's jemalloc: packaged by a distribution, which takes the most; own, as Redis and Valkey build it; pages,"
    " packaged and of version 5.3.1, which gives pieces of more than 32 KB in whole pages.",
)  # fmt: skip
@click.option("--relaxed", is_flag=True, help="Try RDB versions that are newer than this release knows.")
@click.option("--no-checksum", is_flag=True, help="Do not verify the CRC-64 at the end.")
@selection_options
def memory(
    file: str,
    target: Target,
    format_: str | None,
    output: str,
    force: bool,
    as_json: bool,
    html: str | None,
    separators: bytes,
    depth: int,
    top: int,
    allocator: str,
    relaxed: bool,
    no_checksum: bool,
    selection: Selection,
) -> None:
    """What the keys of a snapshot will take in the memory of TARGET.

    FILE is a path or - for standard input, compressed or not. Exit code 3 if it cannot be read or is damaged.
    """
    chosen = format_for(output, format_, _FORMATS, "table")
    if chosen == "table" and output != "-":
        raise click.UsageError("the report goes to standard output; -o is for one row a key, --html for a page")
    quantum, pages = _ALLOCATORS[allocator]
    if chosen == "parquet":
        check_parquet(output)
    if chosen != "table" and (as_json or html):
        raise click.UsageError(f"--json and --html are of the whole report, and {chosen} has one row a key")
    if html is not None:
        _check_html(html, force)
    with rdbkit.open(file, relaxed=relaxed, verify_checksum=not no_checksum) as snapshot, progress(file, snapshot.size) as update:
        if chosen == "table":
            report = read_memory(
                snapshot, target, quantum=quantum, pages=pages, separators=separators, depth=depth, top=top,
                selection=selection, progress=update,
            )  # fmt: skip
        else:
            with writing(output, [file], force) as out:
                if chosen == "parquet":
                    from rdbkit.operations.keys import write_parquet

                    rows = memory_rows(snapshot, target, quantum=quantum, pages=pages, selection=selection, progress=update)
                    found = write_parquet(rows, out, rdbkit.MemoryRow)
                else:
                    found = write_memory_text(
                        snapshot, target, out, as_json=chosen == "jsonl", quantum=quantum, pages=pages, selection=selection,
                        progress=update,
                    )  # fmt: skip
            warn(snapshot)
            warn_if_none(selection, found)
            return
    warn(snapshot)
    warn_if_none(selection, report.keys)
    if html is not None:
        from rdbkit.operations.memory_page import write_page

        with writing(html, [file], force) as out:
            write_page(report, out)
    if as_json:
        click.echo(json.dumps(report.to_dict()))
    else:
        show(report, target)


def _check_html(html: str, force: bool) -> None:
    """What can be known before the file is read."""
    if find_spec("plotly") is None:
        raise click.UsageError("--html needs plotly: pip install 'rdbkit[html]'")
    if exists(html) and not force:
        raise click.UsageError(f"{printable(html)} exists; --force replaces it")


def show(report: Memory, target: Target) -> None:
    """The report for people."""
    out = report_output()
    out.heading(f"{printable(report.file)} in the memory of {target.title}")
    out.facts(_facts(report))
    if not report.keys:
        return
    if len(report.databases) > 1:
        _show_databases(report, out)
    out.table(
        "By type and encoding in the file",
        ("type", "encoding", "keys", "memory", "share", "a key"),
        [
            (printable(t.type), t.encoding, f"{t.keys:,}", size(t.bytes), f"{t.share:.1%}", size(t.bytes // t.keys))
            for t in report.types
        ],
    )
    _show_prefixes(report, out)
    if report.biggest:
        _show_biggest(report, out)
    left = [row for row in report.expiry if row.keys]
    out.table("Time left", ("left", "keys", "memory"), [(_LEFT[row.left], f"{row.keys:,}", size(row.bytes)) for row in left])


def _show_databases(report: Memory, out: Output) -> None:
    out.table(
        "By database",
        ("db", "keys", "expiring", "memory"),
        [(str(d.db), f"{d.keys:,}", f"{d.expiring:,}", size(d.bytes)) for d in report.databases[:_ROWS]],
    )
    if len(report.databases) > _ROWS:
        out.line(f"  ... and {count(len(report.databases) - _ROWS, 'database')} more: --json has them all")


def _show_prefixes(report: Memory, out: Output) -> None:
    rows = [p for p in distinct_prefixes(report.prefixes) if p.share >= _SMALL]
    out.table(
        "By prefix",
        ("prefix", "keys", "memory", "share", "a key", "expiring"),
        [
            (
                printable(p.prefix, 40), f"{p.keys:,}", size(p.bytes), f"{p.share:.1%}", size(p.bytes // p.keys),
                f"{p.expiring / p.keys:.0%}" if p.expiring else "",
            )
            for p in rows[:_ROWS]
        ],
    )  # fmt: skip
    if len(rows) > _ROWS:
        out.line(f"  ... and {count(len(rows) - _ROWS, 'row')} more: --json has them all")


def _show_biggest(report: Memory, out: Output) -> None:
    out.table(
        "Heaviest keys",
        ("memory", "db", "type", "elements", "key"),
        [
            (
                size(k.bytes), str(k.db), f"{printable(k.type)} ({k.encoding})",
                "" if k.elements is None else f"{k.elements:,}", printable(k.key, 40),
            )
            for k in report.biggest
        ],
    )  # fmt: skip


_LEFT: Final = {
    "expired": "expired", "1h": "up to 1 hour", "6h": "6 hours", "1d": "1 day", "3d": "3 days", "7d": "7 days", "14d": "14 days",
    "30d": "30 days", "90d": "90 days", "1y": "1 year", "later": "later", "never": "no expiry",
}  # fmt: skip


def _facts(report: Memory) -> list[tuple[str, str]]:
    expiring = f", of which {report.expiring:,} expire{'s' * (report.expiring == 1)}" if report.expiring else ""
    rows = [
        ("keys", f"{report.keys:,}{expiring}" + (" (only those that the options choose)" if report.selected else "")),
        ("needed", f"{size(report.total_bytes)} in all, without clients, replicas and fragmentation"),
        ("dataset", f"{size(report.dataset_bytes)} as used_memory_dataset; {size(report.keys_bytes)} as MEMORY USAGE adds up"),
        ("tables", f"{size(report.overhead_bytes)} for keys and expiries"),
        ("file", size(report.file_bytes)),
    ]
    if report.used_memory is not None:
        rows.append(("saved with", f"{size(report.used_memory)} in use by the server that wrote it"))
    model = (
        f"{report.layout}, measured on {report.layout_measured}"
        if report.layout_measured
        else f"{report.layout}: {report.layout_note}"
    )
    rows.append(("model", model))
    if report.estimated_keys:
        keys = count(report.estimated_keys, "key")
        rows.append(("estimated", f"{keys} of modules and the like count with their bytes in the file"))
    if report.prefixes_closed:
        rows.append(("prefixes", "too many to tell all apart: what came late counts as *"))
    return rows

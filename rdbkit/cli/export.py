"""`rdbkit export`."""

from __future__ import annotations

from contextlib import nullcontext

import click

import rdbkit
from rdbkit.cli.files import output_options, writing
from rdbkit.cli.options import SelectionCommand, selection_options
from rdbkit.cli.render import printable, progress
from rdbkit.operations.export import Export, export_jsonl
from rdbkit.operations.info import count
from rdbkit.selection import Selection

_MOST_SKIPPED = 20


@click.command(cls=SelectionCommand)
@click.argument("file", metavar="FILE", type=click.Path(allow_dash=True))
@click.option(
    "--format", "format_", type=click.Choice(["jsonl", "resp"]), default="jsonl", show_default=True, help="What to write."
)
@output_options
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="At a damaged value: stop, or leave it out, say so and exit with 1.",
)
@click.option("--relaxed", is_flag=True, help="Try RDB versions that are newer than this release knows.")
@click.option("--no-checksum", is_flag=True, help="Do not verify the CRC-64 at the end.")
@selection_options
def export(
    file: str,
    format_: str,
    output: str,
    force: bool,
    on_error: str,
    relaxed: bool,
    no_checksum: bool,
    selection: Selection,
) -> int:
    """Every key and value as JSON lines, or as commands for redis-cli --pipe.

    FILE is a path or - for standard input; gzip is recognised. Exit code 1 if something was left out, 3 if the file cannot be
    read or is damaged.
    """
    with (
        rdbkit.open(file, relaxed=relaxed, verify_checksum=not no_checksum) as snapshot,
        writing(output, file, force) as out,
        progress(file, snapshot.size) if output != "-" else nullcontext() as update,
    ):
        report = export_jsonl(snapshot, out, selection=selection, on_error=on_error, progress=update)
    return _tell(report, output)


def _tell(report: Export, output: str) -> int:
    """Say on standard error what was left out."""
    for error in report.skipped[:_MOST_SKIPPED]:
        click.echo(f"rdbkit: left out: {printable(str(error))}", err=True)
    if report.skipped:
        more = len(report.skipped) - _MOST_SKIPPED
        rest = f" ({more} more than shown)" if more > 0 else ""
        click.echo(f"rdbkit: {count(len(report.skipped), 'key')} left out{rest}, {count(report.written, 'key')} written", err=True)
    if report.functions:
        names = printable(", ".join(report.functions), 200)
        click.echo(f"rdbkit: note: JSON lines have no place for the function libraries {names}", err=True)
    return 1 if report.skipped else 0

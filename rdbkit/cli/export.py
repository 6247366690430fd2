"""`rdbkit export`."""

from __future__ import annotations

from contextlib import nullcontext

import click

import rdbkit
from rdbkit.cli.files import READ_ONCE, Verb, format_for, output_options, refuse_terminal, writing
from rdbkit.cli.options import MOST_JOBS, commands_target_option, selection_options, warn_if_none
from rdbkit.cli.render import printable, progress, warn
from rdbkit.cli.status import status, strict_option
from rdbkit.operations.export import Export, export_jsonl, export_resp
from rdbkit.selection import Selection
from rdbkit.targets.target import Target
from rdbkit.text import count

_MOST_SHOWN = 20
_FORMATS = ("jsonl", "resp")


@click.command(cls=Verb)
@click.argument("file", metavar="FILE", type=READ_ONCE)
@click.option(
    "--format", "format_", type=click.Choice(_FORMATS), help="What to write; by default what the name after -o ends in, else jsonl."
)
@output_options
@commands_target_option("resp")
@click.option(
    "--on-loss",
    type=click.Choice(["fail", "drop"]),
    default="fail",
    show_default=True,
    help="With resp, data that the target does not support: fail, or leave it out and list it.",
)
@click.option(
    "--on-error",
    type=click.Choice(["stop", "skip"]),
    default="stop",
    show_default=True,
    help="At a damaged value: stop, or leave it out and list it.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1, MOST_JOBS),
    default=1,
    show_default=True,
    metavar="N",
    help="Of jsonl: decode in N processes; the output stays the same.",
)
@click.option("--relaxed", is_flag=True, help="Try RDB versions that are newer than this release knows.")
@click.option("--no-checksum", is_flag=True, help="Do not verify the CRC-64 at the end.")
@strict_option
@selection_options
def export(
    file: str,
    format_: str | None,
    output: str,
    force: bool,
    target: Target | None,
    on_loss: str,
    on_error: str,
    jobs: int,
    relaxed: bool,
    no_checksum: bool,
    strict: bool,
    selection: Selection,
) -> int:
    """Every key and value as JSON lines, or as commands for redis-cli --pipe.

    FILE is a path or - for standard input, compressed or not. Exit code 0 if all was written, without what options allow
    to be left out, 1 if something would be lost that no option allows, 3 if the file cannot be read or is damaged. With --strict, 1
    also if something was left out.
    """
    chosen = format_for(output, format_, _FORMATS, "jsonl")
    if chosen != "resp" and (target or on_loss != "fail"):
        raise click.UsageError("--target and --on-loss are for --format resp")
    if chosen == "resp" and jobs > 1:
        raise click.UsageError("--jobs is for --format jsonl")
    if chosen == "resp":
        refuse_terminal(output)
    with (
        rdbkit.open(file, relaxed=relaxed, verify_checksum=not no_checksum) as snapshot,
        writing(output, [file], force) as out,
        progress(file, snapshot.size) if output != "-" else nullcontext() as update,
    ):
        if chosen == "resp":
            report = export_resp(
                snapshot, out, target=target, on_loss=on_loss, selection=selection, on_error=on_error, progress=update
            )
        else:
            report = export_jsonl(snapshot, out, selection=selection, on_error=on_error, jobs=jobs, progress=update)
    warn(snapshot)
    _show(report)
    if not report.skipped and not report.loss_counts:
        warn_if_none(selection, report.written)
    return status(lost=report.skipped or report.checksum or report.loss_counts, strict=strict)


def _show(report: Export) -> None:
    """Say on standard error what was left out."""
    for error in report.skipped[:_MOST_SHOWN]:
        click.echo(f"rdbkit: left out: {printable(str(error))}", err=True)
    if report.skipped:
        more = len(report.skipped) - _MOST_SHOWN
        rest = f" ({more} more than shown)" if more > 0 else ""
        click.echo(f"rdbkit: {count(len(report.skipped), 'key')} left out{rest}, {count(report.written, 'key')} written", err=True)
    if report.checksum is not None:
        click.echo(f"rdbkit: {printable(str(report.checksum))}", err=True)
    if report.functions:
        names = printable(", ".join(report.functions), 200)
        click.echo(f"rdbkit: note: JSON lines do not hold the function libraries {names}", err=True)
    for loss in report.losses[:_MOST_SHOWN]:
        where = f" in db {loss.db}, key {printable(loss.key, 80)}" if loss.key is not None else ""
        click.echo(f"rdbkit: lost: {loss.kind}{where}: {printable(loss.what, 200)}", err=True)
    if report.loss_counts:
        counts = ", ".join(f"{kind} {n}" for kind, n in report.loss_counts.items())
        click.echo(f"rdbkit: lost in all: {counts}", err=True)

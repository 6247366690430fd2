"""`rdbkit build`."""

from __future__ import annotations

import click

from rdbkit.cli.files import InputPathOrUrl, Verb, refuse_terminal, snapshot_options, written
from rdbkit.cli.options import target_option
from rdbkit.cli.render import printable, progress
from rdbkit.cli.status import status, strict_option
from rdbkit.operations.build import Build
from rdbkit.operations.build import build as build_snapshot
from rdbkit.storage.location import file_size
from rdbkit.targets.target import Target
from rdbkit.text import count

_MOST_SHOWN = 20


@click.command(cls=Verb)
@click.argument("lines", metavar="FILE", type=InputPathOrUrl(allow_dash=True, readable=False))
@snapshot_options
@target_option
@click.option(
    "--on-loss",
    type=click.Choice(["fail", "drop"]),
    default="fail",
    show_default=True,
    help="What to do with data that TARGET does not support: fail, or leave it out and list it.",
)
@strict_option
def build(lines: str, out: str, target: Target, force: bool, on_loss: str, strict: bool) -> int:
    """A snapshot from JSON lines, as export writes them.

    FILE is a path or - for standard input, compressed or not. OUT is a path, which appears when it is whole, or - for standard
    output; .gz compresses. Exit code 0 if OUT was written, without what --on-loss drop allows to be lost, 1 if nothing was written
    since something would be lost, 3 if a line cannot be read. With --strict, 1 also if something is lost.
    """
    refuse_terminal(out)
    with written(out), progress(lines, file_size(lines)) as update:
        report = build_snapshot(lines, out, target=target, force=force, on_loss=on_loss, progress=update)
    _show(report, out)
    return status(lost=report.ledger.counts, strict=strict)


def _show(report: Build, out: str) -> None:
    """Say what was done, and on standard error what was left out."""
    ledger = report.ledger
    click.echo(f"{printable(out)}: {report.header} for {report.target}, {count(report.written, 'key')}", err=out == "-")
    for loss in ledger.losses[:_MOST_SHOWN]:
        where = "" if loss.key is None else f" in db {loss.db}, key {printable(loss.key, 80)}"
        times = f" ({loss.count})" if loss.count > 1 else ""
        click.echo(f"rdbkit: lost: {loss.kind}{where}: {printable(loss.what, 200)}{times}", err=True)
    if ledger.counts:
        counts = ", ".join(f"{kind} {n}" for kind, n in ledger.counts.items())
        click.echo(f"rdbkit: lost in all: {counts}", err=True)

"""`rdbkit fold`."""

from __future__ import annotations

import json

import click

from rdbkit.cli.files import AppendOnlyPath, Verb, refuse_terminal, snapshot_options, written
from rdbkit.cli.render import printable, progress, size
from rdbkit.cli.status import status, strict_option
from rdbkit.operations.fold import Fold, refusals
from rdbkit.operations.fold import fold as fold_file
from rdbkit.storage.location import file_size
from rdbkit.text import count


@click.command(cls=Verb)
@click.argument("aof", metavar="AOF", type=AppendOnlyPath(exists=True, readable=False))
@snapshot_options
@click.option(
    "--server", metavar="PATH", envvar="RDBKIT_SERVER", show_envvar=True,
    help="The server's program.  [default: redis-server or valkey-server of PATH, or of the extra 'server']",
)  # fmt: skip
@click.option("--truncate-tail", is_flag=True, help="Cut a damaged end off, in front of the first command that is not whole.")
@click.option(
    "--on-error", type=click.Choice(["stop", "skip"]), default="stop", show_default=True,
    help="At a command that the server answers with an error: stop, or leave it out and count it.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
@strict_option
def fold(
    aof: str, out: str, force: bool, server: str | None, truncate_tail: bool, on_error: str, as_json: bool, strict: bool
) -> int:
    """An append-only file as a snapshot, by a server that loads it.

    AOF is a folder such as appendonlydir, its manifest, or a single file: commands, or a snapshot with commands behind it. A
    server is started for it, in private and on copies; it has to be at least as new as the one that wrote AOF.

    Exit code 0 if OUT was written, 3 if AOF cannot be read or is damaged, 4 if there is no server that loads it. With --strict, 1
    if something was left out.
    """
    if out == "-" and as_json:
        raise click.UsageError("--json and OUT would both go to standard output")
    refuse_terminal(out)
    with written(out), progress(aof, None) as update:
        report = fold_file(aof, out, server=server, truncate_tail=truncate_tail, on_error=on_error, force=force, progress=update)
    if as_json:
        click.echo(json.dumps(report.to_dict(), ensure_ascii=False))
    else:
        _show(report, out)
    tell_left_out(report)
    return status(lost=report.cut or report.refused, strict=strict)


def _show(report: Fold, out: str) -> None:
    """What was done, on standard output unless the snapshot goes there."""
    err = out == "-"
    sizes = "" if err else f", {size(file_size(out) or 0)}"
    files = f"{count(len(report.files), 'file')}, {size(report.bytes)}"
    click.echo(f"{printable(out)}: {printable(report.file)} ({files}) folded with {report.server}", err=err)
    click.echo(f"{count(report.keys, 'key')}{sizes}", err=err)


def tell_left_out(report: Fold) -> None:
    """What is not in the snapshot, on standard error."""
    if report.is_older:
        name = printable(report.file)
        click.echo(
            f"rdbkit: warning: {name}: a server still writes to it; what it wrote after the copy was made is left out", err=True
        )
    if report.cut and report.cut_file is not None:
        name, at = printable(report.cut_file), report.cut_at or 0
        click.echo(f"rdbkit: {name}: cut at byte {at:,}; {count(report.cut, 'byte')} left out", err=True)
    if report.refused:
        click.echo(f"rdbkit: left out: {printable(refusals(report), 300)}", err=True)

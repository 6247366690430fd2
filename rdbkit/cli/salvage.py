"""`rdbkit salvage`."""

from __future__ import annotations

import json
from contextlib import ExitStack

import click

from rdbkit.cli.files import READ_TWICE, OutputPath, Verb, refuse_terminal, snapshot_options, writing, written
from rdbkit.cli.render import Output, key_name, output, printable, progress, size
from rdbkit.cli.status import status, strict_option
from rdbkit.operations.salvage import Lost, Salvage
from rdbkit.operations.salvage import salvage as save
from rdbkit.storage.location import file_size
from rdbkit.text import count


@click.command(cls=Verb)
@click.argument("file", metavar="FILE", type=READ_TWICE)
@snapshot_options
@click.option(
    "--losses", type=OutputPath("jsonl", allow_dash=True), metavar="PATH",
    help="Write everything that was left out to PATH, as JSON lines.",
)  # fmt: skip
@click.option("--samples", type=click.IntRange(0, 10_000), default=10, show_default=True, metavar="N", help="Name N losses.")
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
@strict_option
def salvage(file: str, out: str, force: bool, losses: str | None, samples: int, as_json: bool, strict: bool) -> int:
    """What is sound of a damaged snapshot, as one that loads.

    OUT has every key of FILE that breaks no rule of the format; what it does not have is listed. Exit code 0 if OUT was
    written, 3 if FILE cannot be opened or its first bytes are no snapshot's. With --strict, 1 if something seems to be lost.
    """
    if out == "-" and as_json:
        raise click.UsageError("--json and OUT would both go to standard output")
    refuse_terminal(out)
    with ExitStack() as stack:
        list_ = stack.enter_context(writing(losses, [file], force)) if losses is not None else None

        def write_lost(lost: Lost) -> None:
            if list_ is not None:
                list_.write(json.dumps(lost.to_dict(), ensure_ascii=False).encode() + b"\n")

        stack.enter_context(written(out))
        update = stack.enter_context(progress(file, file_size(file)))
        report = save(file, out, samples=samples, force=force, loss_callback=write_lost, progress=update)
    if as_json:
        click.echo(json.dumps(report.to_dict(), ensure_ascii=False))
    elif out != "-":
        _show(report, out, losses, output())
    elif not report.whole:
        click.echo(f"rdbkit: {_summary(report)}", err=True)
    return status(lost=not report.whole, strict=strict)


def _summary(report: Salvage) -> str:
    """What is missing, in one line."""
    words = {"key": "damaged key", "gap": "gap", "library": "function library"}
    parts = [count(n, words[what]) for what, n in report.lost.items() if what in words]
    if "behind" in report.lost:
        parts.append("what follows the end")
    if not parts and report.checksum == "mismatch":
        return f"{count(report.kept, 'key')} kept; the checksum differs, so something is changed, but nothing shows what"
    if not parts and not report.whole and not report.cut:
        return f"{count(report.kept, 'key')} kept, and nothing shows where others are that the file announces"
    lost = f"{' and '.join(parts)} left out" if parts else "nothing left out"
    return f"{count(report.kept, 'key')} kept, {lost}"


def _show(report: Salvage, out: str, losses: str | None, screen: Output) -> None:
    screen.heading(f"{printable(report.file)}: {_summary(report)}")
    rows = [("written to", printable(out)), ("format", report.header)]
    if report.lost:
        rows.append(("left out", f"{size(report.lost_bytes)} of the file"))
    if report.cut:
        rows.append(("end", "the file has no end mark; what it should have had behind is not known"))
    if report.announced is not None and report.announced != report.kept:
        rows.append(("announced", f"{count(report.announced, 'key')} by the file itself, as far as it can be read"))
    if report.checksum == "mismatch":
        rows.append(("checksum", "differs: bytes of a string may be changed as well, which leaves no other trace"))
    if losses is not None:
        rows.append(("all losses in", printable(losses)))
    screen.facts(rows)
    if report.samples:
        table = [
            (lost.what, "" if lost.key is None else key_name(lost.key, 40), f"{lost.offset:,}", f"{lost.size:,}",
             printable(f"{lost.rule}: {lost.message}", 120))
            for lost in report.samples
        ]  # fmt: skip
        screen.table("Left out", ("what", "key", "at byte", "bytes", "why"), table)
        more = sum(report.lost.values()) - len(report.samples)
        if more > 0:
            screen.line(f"... and {more:,} more{'' if losses else '; --losses PATH writes all'}")
    if report.doubtful:
        screen.line("\nKept, but beside a gap: its value, expiry or database may be wrong")
        screen.facts([("key", f"{key_name(key)} (db {db}, at byte {at:,})") for db, key, at in report.doubtful])

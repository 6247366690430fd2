"""`rdbkit convert`."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from typing import Any

import click

from rdbkit.cli.conversion_options import check_rereadable, conversion_options, show_damage, warn_if_none_is_chosen
from rdbkit.cli.files import READ_ONCE, Verb, refuse_terminal, snapshot_options, written
from rdbkit.cli.losses import extracted_files, ledger_file, ledger_option, report_losses
from rdbkit.cli.options import service_options
from rdbkit.cli.render import printable, progress, size
from rdbkit.cli.status import status
from rdbkit.errors import LossError
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.operations.convert import Conversion
from rdbkit.operations.convert import convert as convert_snapshot
from rdbkit.policy.script import ScriptError
from rdbkit.storage.location import file_size
from rdbkit.text import count, valid_text


@click.command(cls=Verb)
@click.argument("file", metavar="FILE", type=READ_ONCE)
@snapshot_options
@service_options
@ledger_option
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
@click.option("--deep", is_flag=True, help="Open every value, not only those that are re-encoded.")
@conversion_options
def convert(file: str, out: str, conversion: ConversionOptions, extracts: dict[str, Any], **options: Any) -> int:
    """Write a snapshot that TARGET loads.

    FILE is a path or - for standard input, compressed or not. OUT is a path, which appears when it is whole, or - for standard
    output; .gz compresses. What TARGET knows is copied as it stands.

    Lists what TARGET does not support, and writes nothing unless options say what to do with it. Exit code 0 if OUT was written
    and lost only what options allow, 1 if nothing was written because something would be lost, 3 if FILE cannot be read or is
    damaged. With --strict, 1 also for a loss that an option allows.
    """
    if out == "-" and options["as_json"]:
        raise click.UsageError("--json and OUT would both go to standard output")
    check_rereadable(conversion, [file])
    begin = time.monotonic()
    failed: LossError | None = None
    refuse_terminal(out)
    with ExitStack() as stack:
        stack.enter_context(written(out))
        loss_callback = stack.enter_context(ledger_file(options, [file]))
        write_extracted = stack.enter_context(extracted_files(extracts, [file], options["force"]))
        update = stack.enter_context(progress(file, file_size(file)))
        try:
            report = convert_snapshot(
                file, out, target=options["target"], deep=options["deep"], force=options["force"], loss_callback=loss_callback,
                progress=update, **conversion.arguments(),
            )  # fmt: skip
        except LossError as e:
            if e.report is None:
                raise
            failed, report = e, e.report
        except ScriptError as e:
            raise click.ClickException(printable(str(e))) from None
        else:
            write_extracted(report)
    if options["as_json"]:
        click.echo(json.dumps(_as_json(report, file, out, failed), ensure_ascii=False))
    elif failed is None:
        _summarise(report, file, out, time.monotonic() - begin)
    show_damage(report.skipped, report.checksum)
    report_losses(report.ledger, failed, out == "-", target=options["target"])
    warn_if_none_is_chosen(conversion, report)
    lost = report.ledger.counts or report.skipped or report.checksum
    return status(lost=lost, strict=options["strict"], found=failed)


def _summarise(report: Conversion, src: str, dst: str, seconds: float) -> None:
    """What was done, on standard output unless the file goes there."""
    err = dst == "-"

    def say(text: str) -> None:
        click.echo(text, err=err)

    if report.identical:
        what = f"{report.header} as it was: {report.target} loads it as it is"
    else:
        what = f"{report.source} -> " if report.source != report.header else ""
        what += f"{report.header} for {report.target}"
    say(f"{printable(dst)}: {what}")
    left = f", {count(report.left_out, 'key')} left out" if report.left_out else ""
    sizes = ""
    if dst != "-":
        sizes = f", {size(file_size(dst) or 0)}"
        before = file_size(src)
        if before is not None:
            sizes += f" (was {size(before)})"
    say(f"{count(report.written, 'key')} written{left}{sizes}, {seconds:.1f} s")


def _as_json(report: Conversion, src: str, dst: str, failed: LossError | None) -> dict[str, Any]:
    ledger = report.ledger
    return {
        "source": {"file": valid_text(src), "header": str(report.source)},
        "destination": None if failed else {"file": valid_text(dst), "header": str(report.header), "bytes": file_size(dst) or 0},
        "target": report.target,
        "identical": report.identical,
        "keys": report.keys,
        "written": 0 if failed else report.written,
        "left_out": report.left_out,
        "lost": ledger.counts,
        "notes": ledger.notes,
        "forbidden": ledger.forbidden,
        "losses": [loss.to_dict() for loss in ledger.losses],
        "damaged": [valid_text(str(error)) for error in report.skipped],
        "checksum": None if report.checksum is None else valid_text(str(report.checksum)),
    }

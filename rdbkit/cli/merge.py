"""`rdbkit merge`."""

from __future__ import annotations

import json
import time
from contextlib import ExitStack
from typing import Any, Final

import click

from rdbkit.cli.files import READ_TWICE, Verb, refuse_terminal, snapshot_option, written
from rdbkit.cli.losses import (
    MOST_SHOWN,
    extracted_files,
    ledger_file,
    ledger_option,
    policy_options,
    read_policies,
    report_losses,
)
from rdbkit.cli.options import optional_target_option
from rdbkit.cli.render import WORTH_SHOWING, printable, progress, size
from rdbkit.cli.status import status
from rdbkit.errors import LossError
from rdbkit.operations.duplicates import Duplicate, DuplicateError
from rdbkit.operations.merge import ON_DUPLICATE, Merge, OnDuplicate, OnFunction
from rdbkit.operations.merge import merge as merge_files
from rdbkit.storage.location import file_size, total_size
from rdbkit.targets.target import Target
from rdbkit.text import count, json_bytes, valid_text

#: What helps here where convert has an option of its own.
_REMEDIES: Final = {"database": "convert the sources first, with --map-db or --collapse-dbs; or --on-loss drop"}


@click.command(cls=Verb, options_metavar="[OPTIONS] -o OUT")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=READ_TWICE)
@snapshot_option
@optional_target_option
@click.option(
    "--on-duplicate", type=click.Choice(ON_DUPLICATE), default="fail", show_default=True,
    help="Keys with one name: list them and write nothing; keep the first, the last, or the one that expires last; or keep all, "
    "which no server loads.",
)  # fmt: skip
@click.option(
    "--on-function-conflict", type=click.Choice(["fail", "first", "last"]), default="fail", show_default=True,
    help="Function libraries with one name and different code.",
)  # fmt: skip
@policy_options
@ledger_option
@click.option("--samples", type=click.IntRange(0, 100_000), default=10, show_default=True, metavar="N", help="Name N duplicates.")
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
@click.option("--relaxed", is_flag=True, help="Try RDB versions that are newer than this release knows.")
@click.option("--no-checksum", is_flag=True, help="Do not verify the CRC-64 of FILE.")
def merge(
    files: tuple[str, ...],
    out: str,
    target: Target | None,
    on_duplicate: OnDuplicate,
    on_function_conflict: OnFunction,
    samples: int,
    **options: Any,
) -> int:
    """Several snapshots in one valid file.

    OUT gets the highest version of the FILEs, or what TARGET loads. Exit code 0 if it was written, without what options allow to be
    lost; 1 if nothing was written since keys are there more than once, or different libraries of one name, or something would be
    lost, and if OUT has all of several keys with one name; 3 if a FILE cannot be read or is damaged. With --strict, 1 also if
    something is left out or lost.
    """
    if out == "-" and options["as_json"]:
        raise click.UsageError("--json and OUT would both go to standard output")
    try:
        policies = read_policies(options)
    except ValueError as e:
        raise click.UsageError(str(e)) from None
    begin = time.monotonic()
    refuse_terminal(out)
    with ExitStack() as stack:
        stack.enter_context(written(out))
        loss_callback = stack.enter_context(ledger_file(options, files))
        write_extracted = stack.enter_context(extracted_files(options, files, options["force"]))
        update = stack.enter_context(progress("merge", total_size(files)))
        try:
            report = merge_files(
                files, out, target=target, on_duplicate=on_duplicate, on_function=on_function_conflict, policies=policies,
                force=options["force"], relaxed=options["relaxed"], verify_checksum=not options["no_checksum"], samples=samples,
                loss_callback=loss_callback, progress=update,
            )  # fmt: skip
        except DuplicateError as e:
            _show_duplicates(e.samples)
            option = "--on-function-conflict" if e.key is None else "--on-duplicate"
            so_far = "what was written has no end mark" if out == "-" else "nothing was written"
            click.echo(f"rdbkit: {printable(e.message)}; {so_far}. {option} says which one to keep.", err=True)
            return 1
        except LossError as e:
            if e.report is None:
                raise
            report_losses(e.report.ledger, e, out == "-", _REMEDIES, target=target)
            return 1
        except ValueError as e:
            raise click.UsageError(printable(str(e))) from None
        write_extracted(report)
    if options["as_json"]:
        click.echo(json.dumps(_as_json(report, out), ensure_ascii=False))
    else:
        _summarise(report, out, time.monotonic() - begin)
    report_losses(report.ledger, None, out == "-")
    _show_duplicates(report.samples)
    _show_conflicts(report)
    lost = report.ledger.counts or report.duplicates or report.function_conflicts
    loads_nowhere = report.duplicates and on_duplicate == "keep-all-error-list"
    return status(lost=lost, strict=options["strict"], found=loads_nowhere)


def _summarise(report: Merge, dst: str, seconds: float) -> None:
    err = dst == "-"
    name = "standard output" if err else printable(dst)
    click.echo(f"{name}: {report.header} of {count(len(report.sources), 'file')}", err=err)
    left = f", {count(report.left_out, 'key')} left out" if report.left_out else ""
    total = "" if err else f", {size(file_size(dst) or 0)}"
    click.echo(f"{count(report.keys, 'key')} written{left}{total}, {seconds:.1f} s", err=err)
    if report.disk_bytes >= WORTH_SHOWING:
        click.echo(f"temporary files had {size(report.disk_bytes)}, and are gone", err=err)
    if report.duplicates:
        click.echo(f"{count(report.duplicates, 'name')} there more than once", err=err)


def _show_duplicates(samples: list[Duplicate]) -> None:
    """On standard error."""
    for each in samples:
        places = ", ".join(f"{printable(name)} at byte {offset}" for name, offset in each.places)
        click.echo(f"rdbkit: more than once: db {each.db}, key {printable(each.key, 80)}: {places}", err=True)


def _show_conflicts(report: Merge) -> None:
    """On standard error."""
    for each in report.function_conflicts[:MOST_SHOWN]:
        others = ", ".join(map(printable, each.left_out))
        kept = f"that of {printable(each.kept)} is kept, that of {others} left out"
        click.echo(f"rdbkit: different function libraries are called {printable(each.name, 80)}: {kept}", err=True)
    if len(report.function_conflicts) > MOST_SHOWN:
        click.echo(f"rdbkit: {count(len(report.function_conflicts), 'name')} of different libraries in all", err=True)


def _as_json(report: Merge, dst: str) -> dict[str, Any]:
    return {
        "sources": [{"file": valid_text(name), "keys": keys} for name, keys in report.sources],
        "destination": {"file": valid_text(dst), "header": str(report.header), "bytes": file_size(dst) or 0},
        "target": report.target,
        "keys": report.keys,
        "databases": {str(db): keys for db, keys in sorted(report.written.items())},
        "left_out": report.left_out,
        "duplicates": report.duplicates,
        "function_conflicts": [
            {"name": valid_text(f.name), "kept": valid_text(f.kept), "left_out": [valid_text(name) for name in f.left_out]}
            for f in report.function_conflicts
        ],
        "disk_bytes": report.disk_bytes,
        "samples": [
            {"db": d.db, "key": json_bytes(d.key), "places": [[valid_text(name), offset] for name, offset in d.places]}
            for d in report.samples
        ],
        "lost": report.ledger.counts,
        "notes": report.ledger.notes,
        "losses": [loss.to_dict() for loss in report.ledger.losses],
    }

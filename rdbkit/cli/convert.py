"""`rdbkit convert`."""

from __future__ import annotations

import json
import os
import runpy
import time
import traceback
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

import click

from rdbkit.cli.files import EXISTING, READ_ONCE, WithArgument, refuse_terminal, snapshot_options, written
from rdbkit.cli.losses import (
    MOST_SHOWN,
    extracted_files,
    ledger_file,
    ledger_option,
    policy_options,
    read_policies,
    report_losses,
)
from rdbkit.cli.options import MOST_JOBS, SelectionCommand, database_pairs, selection_options, service_options, warn_if_none
from rdbkit.cli.render import complain, printable, progress, size
from rdbkit.cli.status import status
from rdbkit.errors import LossError, RdbError
from rdbkit.operations.convert import Conversion, is_read_twice
from rdbkit.operations.convert import convert as convert_snapshot
from rdbkit.policy.rules import Edits, Policies
from rdbkit.policy.script import ScriptRecord
from rdbkit.selection import Selection, parse_duration
from rdbkit.storage.location import file_size, is_rereadable
from rdbkit.text import count, valid_text

_NEVER: Final = "never"


def _prefixes(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[bytes, bytes], ...]:
    found = []
    for pair in values:
        old, sign, new = pair.partition("=")
        if not sign or not old:
            raise click.BadParameter(f"{pair!r} is no pair of prefixes, as in old:=new:", ctx=ctx, param=param)
        found.append((os.fsencode(old), os.fsencode(new)))
    return tuple(found)


def _duration(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    if param.name == "set_ttl" and value == _NEVER:
        return -1
    sign = -1 if value.startswith("-") else 1
    if sign < 0 and param.name == "set_ttl":
        raise click.BadParameter("a time to live is not negative", ctx=ctx, param=param)
    try:
        return sign * parse_duration(value.lstrip("+-"))
    except ValueError as e:
        raise click.BadParameter(str(e), ctx=ctx, param=param) from None


@click.command(cls=SelectionCommand)
@click.argument("file", metavar="FILE", type=READ_ONCE)
@snapshot_options
@service_options
@ledger_option
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
@policy_options
@click.option("--map-db", multiple=True, callback=database_pairs, metavar="N=M,...", help="Move the keys of database N to M.")
@click.option("--collapse-dbs", is_flag=True, help="Move all keys to database 0.")
@click.option(
    "--on-duplicate", type=click.Choice(["fail", "first", "last"]), default="fail", show_default=True,
    help="Keys that come twice in one database, and fields and members that come twice in one value: list them, or keep one.",
)  # fmt: skip
@click.option(
    "--on-conflict", type=WithArgument("fail", "first", "last", takes="rename"), metavar="fail|first|last|rename=PATTERN",
    help="Keys that would have one name: list them, keep one, or rename the later ones, as in {key}:db{db}.",
)  # fmt: skip
@click.option("--drop-expired", is_flag=True, help="Leave out keys that have expired.")
@click.option("--set-ttl", callback=_duration, metavar="TIME|never", help="Every key expires TIME from now, as 7d or 12h.")
@click.option("--shift-ttl", callback=_duration, metavar="TIME", help="Move expiries by TIME: +1h, -30m.")
@click.option(
    "--rename-prefix", multiple=True, callback=_prefixes, metavar="OLD=NEW", help="Keys that begin with OLD begin with NEW."
)
@click.option(
    "--script", type=EXISTING, metavar="FILE",
    help="Python whose record(r) returns each key, changed or not, or None to leave it out.",
)  # fmt: skip
@click.option("--compress", is_flag=True, help="Compress strings that are re-encoded (LZF): a smaller file, but slower.")
@click.option(
    "--on-error", type=click.Choice(["stop", "skip"]), default="stop", show_default=True,
    help="At a damaged value, or one that TARGET refuses: stop, or leave the key out and list it.",
)  # fmt: skip
@click.option("--deep", is_flag=True, help="Open every value, not only those that are re-encoded.")
@click.option(
    "--jobs", type=click.IntRange(1, MOST_JOBS), default=1, show_default=True, metavar="N", help="Convert values in N processes."
)
@click.option("--relaxed", is_flag=True, help="Try RDB versions that are newer than this release knows.")
@click.option("--no-checksum", is_flag=True, help="Do not verify the CRC-64 of FILE.")
@selection_options
def convert(file: str, out: str, selection: Selection, **options: Any) -> int:
    """Write a snapshot that TARGET loads.

    FILE is a path or - for standard input, compressed or not. OUT is a path, which appears when it is whole, or - for standard
    output; .gz compresses. What TARGET knows is copied as it stands.

    Lists what TARGET does not support, and writes nothing unless options say what to do with it. Exit code 0 if OUT was written
    and lost only what options allow, 1 if nothing was written because something would be lost, 3 if FILE cannot be read or is
    damaged. With --strict, 1 also for a loss that an option allows.
    """
    policies, edits = _checked(file, out, selection, options)
    begin = time.monotonic()
    failed: LossError | None = None
    refuse_terminal(out)
    with ExitStack() as stack:
        stack.enter_context(written(out))
        loss_callback = stack.enter_context(ledger_file(options, [file]))
        write_extracted = stack.enter_context(extracted_files(options, [file], options["force"]))
        update = stack.enter_context(progress(file, file_size(file)))
        try:
            report = convert_snapshot(
                file, out, target=options["target"], policies=policies, edits=edits, selection=selection,
                compress=options["compress"], jobs=options["jobs"], on_error=options["on_error"], deep=options["deep"],
                force=options["force"],
                relaxed=options["relaxed"], verify_checksum=not options["no_checksum"],
                loss_callback=loss_callback, progress=update,
            )  # fmt: skip
        except LossError as e:
            if e.report is None:
                raise
            failed, report = e, e.report
        except ValueError as e:  # what a script made of a key
            raise click.ClickException(printable(str(e))) from None
        else:
            write_extracted(report)
    if options["as_json"]:
        click.echo(json.dumps(_as_json(report, file, out, failed), ensure_ascii=False))
    elif failed is None:
        _summarise(report, file, out, time.monotonic() - begin)
    _show_damage(report)
    report_losses(report.ledger, failed, out == "-", target=options["target"])
    if not _left_out_for_other_reasons(report, edits):
        warn_if_none(selection, report.written)
    lost = report.ledger.counts or report.skipped or report.checksum
    return status(lost=lost, strict=options["strict"], found=failed)


def _checked(file: str, out: str, selection: Selection, options: dict[str, Any]) -> tuple[Policies, Edits]:
    """What becomes of losses and of keys; raises click.UsageError for options that exclude each other."""
    if out == "-" and options["as_json"]:
        raise click.UsageError("--json needs standard output, which OUT is")
    if options["script"] and options["jobs"] > 1:
        raise click.UsageError("--script runs in one process: leave out --jobs")
    try:
        policies, edits = read_policies(options), _edits(options)
    except ValueError as e:
        raise click.UsageError(str(e)) from None
    if (is_read_twice(edits, selection) or edits.on_duplicate != "fail") and not is_rereadable(file):
        raise click.UsageError("to find keys that have one name FILE is read twice: it has to be a file")
    return policies, edits


def _left_out_for_other_reasons(report: Conversion, edits: Edits) -> bool:
    """Whether keys may have been left out that the selection takes."""
    of_keys = any(loss.key is not None for loss in report.ledger.losses) or "empty" in report.ledger.notes
    return of_keys or bool(report.skipped) or edits.drop_expired or edits.script is not None


def _edits(options: dict[str, Any]) -> Edits:
    conflict = options["on_conflict"] or ("fail", "")
    more: dict[str, Any] = {"rename_pattern": conflict[1]} if conflict[0] == "rename" else {}
    return Edits(
        map_db=options["map_db"],
        collapse_dbs=options["collapse_dbs"],
        on_duplicate=options["on_duplicate"],
        on_conflict=conflict[0],
        drop_expired=options["drop_expired"],
        set_ttl_ms=options["set_ttl"],
        shift_ttl_ms=options["shift_ttl"] or 0,
        rename_prefix=options["rename_prefix"],
        script=_script(options["script"]) if options["script"] else None,
        **more,
    )


def _script(path: str) -> Callable[[ScriptRecord], ScriptRecord | None]:
    """The function `record` of a user's file; what goes wrong in it becomes one line that names file and line."""

    def complaint(e: BaseException) -> click.ClickException:
        lines = [frame.lineno for frame in traceback.extract_tb(e.__traceback__) if frame.filename == path]
        where = f"{path}:{lines[-1]}" if lines else path
        try:
            said = str(e)
        except Exception:  # an error of the script's own
            said = ""
        return click.ClickException(printable(f"{where}: {type(e).__name__}{': ' if said else ''}{said}"))

    try:
        function = runpy.run_path(path).get("record")
    except KeyboardInterrupt:
        raise
    except BaseException as e:
        raise complaint(e) from None
    if not callable(function):
        raise click.UsageError(f"{printable(path)} has no function record(r)")

    def record(script_record: ScriptRecord) -> ScriptRecord | None:
        try:
            result = function(script_record)
        except (KeyboardInterrupt, RdbError):  # of a value that is damaged; it knows its place
            raise
        except BaseException as e:
            raise complaint(e) from None
        if result is not None and not isinstance(result, ScriptRecord):
            raise click.ClickException(f"{printable(path)}: record(r) returns r or None, not {type(result).__name__}")
        return result

    return record


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


def _show_damage(report: Conversion) -> None:
    """What was left out because it is damaged, on standard error."""
    for error in report.skipped[:MOST_SHOWN]:
        click.echo(f"rdbkit: left out: {printable(str(error))}", err=True)
    if len(report.skipped) > MOST_SHOWN:
        click.echo(f"rdbkit: {count(len(report.skipped), 'damaged key')} left out in all", err=True)
    if report.checksum is not None:
        complain(report.checksum)


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

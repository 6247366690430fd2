"""`rdbkit migrate`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

import click

from rdbkit.azure.credentials import Credentials
from rdbkit.azure.file_progress import FileProgress
from rdbkit.azure.migrate import STEPS, Migration
from rdbkit.azure.pending_operation import PendingOperation
from rdbkit.azure.resources import Call, ResourceId
from rdbkit.cli.append_only import allows_base, lacks_newer_data
from rdbkit.cli.cache_options import (
    AUTH,
    cache_options,
    check_can_confirm,
    check_name,
    confirm,
    engine_options,
    going_on,
    left_warning,
    opened,
    show_cache,
    show_call,
    show_duplicates,
    show_report,
    show_warnings,
    watch,
)
from rdbkit.cli.clouds import chosen_cloud
from rdbkit.cli.conversion_options import conversion_options, show_damage
from rdbkit.cli.files import KeptPath, OutputPath, force_option
from rdbkit.cli.losses import (
    extracted_files,
    extracting_options,
    ledger_of_files,
    ledger_option,
    report_losses,
)
from rdbkit.cli.render import RUN_NEXT, Output, output, printable, progress, size, usage_errors
from rdbkit.cli.secrets import SecretsCommand
from rdbkit.cli.status import status
from rdbkit.cli.upload import interrupts_told, read_place, sending_options
from rdbkit.clouds import Cloud
from rdbkit.errors import LossError
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.operations.duplicates import DuplicateError
from rdbkit.policy.losses import loss_kinds
from rdbkit.selection import parse_bytes
from rdbkit.storage.blob_url import BlobUrl
from rdbkit.storage.location import exists, is_file, total_size
from rdbkit.storage.output import open_output
from rdbkit.storage.remote import base_name
from rdbkit.targets.target import Target
from rdbkit.text import count, shell_word


def _container(ctx: click.Context, param: click.Parameter, value: str) -> BlobUrl:
    try:
        return read_place(value)
    except ValueError as e:
        raise click.BadParameter(str(e), ctx=ctx, param=param) from None


def _bytes(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else parse_bytes(value)
    except ValueError as e:
        raise click.BadParameter(str(e), ctx=ctx, param=param) from None


@click.command(cls=SecretsCommand)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=KeptPath(exists=True))
@cache_options
@engine_options
@click.option(
    "--container",
    required=True,
    callback=_container,
    metavar="URL",
    help="Container for the blobs, or a folder in it: https://ACCOUNT.blob.core.windows.net/CONTAINER.",
)
@click.option("--split-size", callback=_bytes, metavar="SIZE", help="Split each FILE into parts of SIZE, as 2GiB.")
@click.option("--skip", multiple=True, type=click.Choice(STEPS), help="Leave out a step; may be given several times.")
@sending_options
@conversion_options
@ledger_option
@force_option
@click.option("--yes", metavar="NAME", help="Empty the cache NAME without asking for its name.")
@click.option("--report", type=OutputPath("json", gzip=False), metavar="FILE", help="Write the report to FILE, as JSON.")
def migrate(
    files: tuple[str, ...],
    target: Target,
    cache: ResourceId,
    auth: str,
    sas_hours: float,
    storage_subscription: str,
    no_storage_check: bool,
    connection_string: str | None,
    sas: str | None,
    cloud: Cloud | None,
    arm_endpoint: str | None,
    state: str | None,
    dry_run: bool,
    as_json: bool,
    container: BlobUrl,
    split_size: int | None,
    skip: tuple[str, ...],
    overwrite: bool,
    block_size: int,
    concurrency: int,
    cap_mbps: float | None,
    yes: str | None,
    report: str | None,
    conversion: ConversionOptions,
    extracts: dict[str, Any],
    strict: bool,
    ledger: str | None,
    force: bool,
) -> int:
    """Bring snapshots into a cache in Azure: check, convert, upload, import. What is in the cache is deleted.

    Every FILE is checked and converted without being written, so that all that would be lost is known beforehand; what may be is
    said by the options, which are those of rdbkit convert. Then it is sent to the container, converted on its way, and imported.
    The cache's name has to be typed before that, or given with --yes. To continue a run that was interrupted, give the same command
    again.

    Exit code 0 when the data is in the cache, without what options allow to be lost, 1 if nothing was sent since something would be
    lost, 3 if FILE is damaged, 4 if a service refuses or fails. With --strict, 1 also if something was lost.
    """
    check_name(yes, cache)
    chosen = chosen_cloud(cloud, [container.cloud])
    credentials = Credentials(connection_string=connection_string, sas=sas, cloud=chosen)
    if not dry_run and "import" not in skip:
        check_can_confirm(yes, cache)
    _check_files(files, skip, ledger, extracting_options(extracts))
    _check_report(report)
    if lacks_newer_data(files):
        click.echo("rdbkit: nothing was sent, since a FILE lacks newer data; --allow-base sends it without", err=True)
        return 1
    job: Migration | None = None
    try:
        with usage_errors(), ExitStack() as stack:
            # opened before anything is done, so that it is not found out at the end that it cannot be written
            written = None if report is None else stack.enter_context(open_output(report, force=True, sources=files))
            arm = stack.enter_context(opened(cache, chosen, arm_endpoint))
            job = Migration(
                arm, target, files, container, state or f"rdbkit-migrate-{cache.name}.json", conversion=conversion,
                part_bytes=split_size, credentials=credentials, auth=AUTH[auth],
                hours=sas_hours, storage_subscription=storage_subscription, leaves_state=not dry_run,
                allow_base=allows_base(), storage_check=not no_storage_check,
            )  # fmt: skip
            sending = {"overwrite": overwrite, "block_bytes": block_size, "concurrency": concurrency, "cap_mbps": cap_mbps}
            outputs = _Outputs(ledger, extracts, force)
            call = _run(job, skip, yes, dry_run, as_json, sending, outputs)
            if job.result is not None:
                job.finish()
            made = job.to_dict() | {"dry_run": dry_run, "skipped": list(skip), "calls": [] if call is None else [call.to_dict()]}
            if written is not None:
                written.write(json.dumps(made, indent=1, ensure_ascii=False).encode())
    except DuplicateError as e:
        show_duplicates(e, "nothing was sent", "--skip check")
        return 1
    except LossError as e:
        if e.report is None:
            raise
        assert job is not None
        for refused in job.refused or [e]:  # where the check is left out, it is found while a file is sent
            _show_refused(job, refused)
        return 1
    except OSError:
        if job is not None and job.result is not None:  # or one would think that all is to be done again
            click.echo(
                f"rdbkit: the import into {printable(job.cache.name)} has ended well, and is not to be begun again", err=True
            )
        raise
    if as_json:
        click.echo(json.dumps(made, ensure_ascii=False))
    elif not dry_run:
        _show_end(job, output())
    elif call is not None:
        show_call(call)
    lost = made["lost"] or any(file.checksum for file in job.files)
    return status(lost=lost, strict=strict)


def _check_files(files: tuple[str, ...], skip: tuple[str, ...], ledger: str | None, extracting: list[str]) -> None:
    """Raise click.UsageError where the files that are asked for could not be written."""
    if extracting and len(files) > 1:
        raise click.UsageError(f"{extracting[0]} extract=FILE is for one FILE")
    if "check" in skip and (ledger is not None or extracting):
        option = "--ledger" if ledger is not None else f"{extracting[0]} extract=FILE"
        raise click.UsageError(f"{option} is written by the check, which --skip check leaves out")


class _Outputs(NamedTuple):
    """Files that are written about what is converted, and whether they may replace others."""

    ledger: str | None
    extracts: dict[str, Any]
    force: bool


def _show_refused(job: Migration, refused: LossError) -> None:
    """What would be lost of one FILE."""
    assert refused.report is not None
    if len(job.files) > 1:
        click.echo(f"rdbkit: of {printable(str(refused.source))}:", err=True)
    show_damage(refused.report.skipped, refused.report.checksum)
    undone = "nothing was sent" if job.refused else "nothing was sent of it"
    report_losses(refused.report.ledger, refused, False, _remedies(job, refused), target=job.target, undone=undone)


def _show_losses(job: Migration) -> None:
    """What will be lost of each FILE, as options allow it, before it is."""
    for name, done in job.conversions.items():
        if len(job.files) > 1 and (done.ledger.counts or done.ledger.notes):
            click.echo(f"rdbkit: of {printable(name)}:", err=True)
        report_losses(done.ledger, None, False, lost="will be lost")


def _remedies(job: Migration, refused: LossError) -> dict[str, str]:
    """What to say of losses: of keys in other databases, the options that move those of this file."""
    for report in job.checks:
        fixes = [
            found.fix for found in report.findings if found.code in {loss_kinds()[name].code for name in ("database", "conflict")}
        ]
        if report.file == refused.source and fixes:
            return {"database": f"{' '.join(fixes)} to move them, or --map-db; --db to choose"}
    return {}


def _check_report(path: str | None) -> None:
    """Raise click.BadParameter for a file that is not to be replaced by a report."""
    if path is not None and not _is_report(path):
        raise click.BadParameter(f"{printable(path)} exists and is no report: name another file", param_hint="--report")


def _is_report(path: str) -> bool:
    """Whether a name is free for a report: there is no such file, or an earlier report, or what is no file."""
    if exists(path) and not is_file(path):
        return True
    try:
        with open(path, "rb") as file:
            found = json.load(file)
    except FileNotFoundError:
        return True
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict) and {"cache", "files", "import"} <= found.keys()


def _run(
    job: Migration,
    skip: tuple[str, ...],
    yes: str | None,
    dry_run: bool,
    as_json: bool,
    sending: dict[str, Any],
    outputs: _Outputs,
) -> Call | None:
    """All steps; returns the request that would begin the import, where this is a dry run."""
    sends, imports = "upload" not in skip, "import" not in skip
    left = job.left_import()
    if left is not None and dry_run:
        job.warnings.append(left_warning(left))
    elif left is not None and not _settle(job, left, imports):
        return None
    call = job.look(sends=sends, imports=imports)
    if "check" not in skip:
        _rehearse(job, outputs)
    if not as_json:
        _show(job, skip, output())
    _show_losses(job)
    if dry_run:
        return call
    if as_json:
        for warning in job.warnings:
            click.echo(f"Warning: {printable(warning)}", err=True)
    if sends:
        with interrupts_told(), _progress_of("upload", [file.file for file in job.files]) as update:
            job.send(progress=update, **sending)
    if imports:
        _import(job, yes)
    return None


def _rehearse(job: Migration, outputs: _Outputs) -> None:
    """Rehearse, and write what is written of it, also where something would be lost."""
    files = [file.file for file in job.files]
    anew = outputs.ledger is not None or bool(extracting_options(outputs.extracts))
    failed: LossError | None = None
    try:
        with (
            ledger_of_files(outputs.ledger, outputs.force, files) as loss_callback,
            extracted_files(outputs.extracts, files, outputs.force) as write_extracted,
            _progress_of("check", files) as update,
        ):
            try:
                job.rehearse(update, anew=anew, loss_callback=loss_callback)
            except LossError as e:
                failed = e
            else:
                if anew:
                    write_extracted(job.conversions[files[0]])
    except FileExistsError as e:
        raise click.UsageError(f"{printable(os.fsdecode(e.filename))} exists; --force replaces it") from None
    if failed is not None:
        raise failed


def _settle(job: Migration, left: PendingOperation, imports: bool) -> bool:
    """See to an import that an earlier run has left; whether there is anything to do after it."""
    with going_on("import"):
        return job.settle(left, imports=imports, message_callback=lambda text: click.echo(text, err=True), progress=watch("import"))


def _import(job: Migration, yes: str | None) -> None:
    prepared = job.prepare()
    for warning in prepared.warnings:
        if warning not in job.warnings:
            click.echo(f"Warning: {printable(warning)}", err=True)
    confirm(prepared.cache, job.arm.cache, yes)
    pending = job.begin_import(prepared)
    with going_on("import"):
        job.wait(pending, False, watch("import"))


@contextmanager
def _progress_of(what: str, files: Any) -> Iterator[Callable[[str, int], object]]:
    """Progress over all files."""
    with progress(what, total_size(files)) as update:
        done: dict[str, int] = {}

        def show_progress(name: str, n: int) -> None:
            done[name] = n
            if update is not None:
                update(sum(done.values()))

        yield show_progress


def _show(job: Migration, skip: tuple[str, ...], out: Output) -> None:
    """The plan."""
    show_cache(job.cache, job.arm.cache, out)
    show_warnings(job.warnings, out)
    out.table(
        "Plan",
        ("file", "size", "keys", "becomes", "lost"),
        [
            (
                printable(base_name(file.file)),
                size(file.size),
                f"{file.written:,}" if file.verdict else "?",
                _becomes(file),
                ", ".join(f"{kind} {n}" for kind, n in file.losses.items()) or ("nothing" if file.verdict else "?"),
            )
            for file in job.files
        ],
    )
    for file in job.files:
        _show_damage(file)
    steps = [
        f"upload to {printable(job.container.url)}" + (", which is done" if all(file.is_sent for file in job.files) else ""),
        f"delete everything in {printable(job.cache.name)}, and import",
    ]
    out.line("")
    for name, text in zip(("upload", "import"), steps, strict=True):
        out.line(f"  {text}{' (left out)' if name in skip else ''}")


def _show_damage(file: FileProgress) -> None:
    """What was left out of a file since it is damaged, or passed over, on standard error."""
    for error in file.damage:
        click.echo(f"rdbkit: left out: {printable(error)}", err=True)
    if file.losses.get("damaged", 0) > len(file.damage):
        click.echo(f"rdbkit: {count(file.losses['damaged'], 'damaged key')} left out in all", err=True)
    if file.checksum:
        click.echo(f"rdbkit: {printable(file.checksum)}", err=True)


def _becomes(file: FileProgress) -> str:
    if not file.verdict:
        return "what it takes"
    if file.header == file.sent_header:
        return f"{file.sent_header}, {'as it is' if file.identical else 'rewritten'}"
    return f"{file.header} -> {file.sent_header}"


def _show_end(job: Migration, out: Output) -> None:
    made = job.to_dict()
    if job.result is not None:
        show_report(job.result, out)
    lost = ", ".join(f"{kind} {n}" for kind, n in made["lost"].items())
    left_out = f", {made['left_out']:,} left out" if made["left_out"] else ""
    out.facts([
        ("keys", f"{made['keys']:,} in the files, {made['written']:,} sent{left_out}"),
        ("sent", size(made["bytes"])),
        ("lost", lost or "nothing"),
    ])  # fmt: skip
    out.facts(_next(job))


def _next(job: Migration) -> list[tuple[str, str]]:
    """The command that compares the cache with what was sent, whatever options have changed of it."""
    if job.result is None:
        return []
    blobs = " ".join(shell_word(blob["url"]) for blob in job.result.blobs)
    entra = " --entra" if job.target.name == "azure-managed" else ""
    return [(RUN_NEXT, f"rdbkit verify-import {blobs} rediss://{job.cache.endpoint}{entra}")]

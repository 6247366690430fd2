"""`rdbkit migrate`."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from rdbkit.azure.migrating import STEPS, Course, Migration
from rdbkit.azure.places import Credentials, Place, parse_place
from rdbkit.azure.resources import ResourceId
from rdbkit.cli.import_ import (
    AUTH,
    cache_options,
    check_name,
    confirm,
    going_on,
    opened,
    show_cache,
    show_report,
    show_warnings,
    watch,
)
from rdbkit.cli.losses import policy_options, read_policies, tell_losses
from rdbkit.cli.render import Output, output, printable, progress, size
from rdbkit.cli.upload import sending_options
from rdbkit.errors import LossError
from rdbkit.selection import parse_bytes
from rdbkit.targets import Target


def _container(ctx: click.Context, param: click.Parameter, value: str) -> Place:
    try:
        return parse_place(value)
    except ValueError as e:
        raise click.BadParameter(str(e), ctx=ctx, param=param) from None


def _bytes(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else parse_bytes(value)
    except ValueError as e:
        raise click.BadParameter(str(e), ctx=ctx, param=param) from None


@click.command()
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False))
@cache_options
@click.option(
    "--container", required=True, callback=_container, metavar="URL", help="The container, or a folder in one, for the blobs."
)
@click.option("--split-size", callback=_bytes, metavar="SIZE", help="Send each FILE in parts of SIZE, as 2GiB.")
@click.option("--skip", multiple=True, type=click.Choice(STEPS), help="Leave a step out; may be given several times.")
@sending_options
@policy_options
@click.option("--yes", metavar="NAME", help="The cache's name, where nobody is there to type it.")
@click.option("--report", type=click.Path(dir_okay=False), metavar="FILE", help="Write the report to FILE, as JSON.")
def migrate(
    files: tuple[str, ...],
    target: Target,
    cache: ResourceId,
    auth: str,
    sas_hours: float,
    storage_subscription: str,
    connection_string: str | None,
    sas: str | None,
    arm_endpoint: str,
    state: str | None,
    dry_run: bool,
    as_json: bool,
    container: Place,
    split_size: int | None,
    skip: tuple[str, ...],
    overwrite: bool,
    block_size: int,
    concurrency: int,
    cap_mbps: float | None,
    yes: str | None,
    report: str | None,
    **options: Any,
) -> int:
    """Bring snapshots into a cache in Azure: check, convert, upload, import. What is in the cache is deleted.

    Every FILE is checked and converted without being written, so that all that would be lost is known beforehand; what may be is
    said by the options, as for rdbkit convert. Then it is sent to the container, converted on its way, and imported. The cache's
    name has to be typed before that, or given with --yes. A run that was ended is gone on with by the same command.

    Exit code 0 when all data is in the cache, 1 if something was lost, as options allow, or if nothing was sent for that reason, 3
    if FILE is damaged, 4 if a service refuses or fails.
    """
    check_name(yes, cache)
    if yes is None and not dry_run and "import" not in skip and not sys.stdin.isatty():
        raise click.UsageError(f"nobody can type the cache's name here: --yes {cache.name} says that it may be emptied")
    if options["on_function"] and options["on_function"][0] == "extract":
        raise click.UsageError("to extract functions, convert with --on-function extract=FILE first; drop leaves them out")
    out = output()
    with opened(cache, arm_endpoint) as arm:
        try:
            job = Migration(
                arm, target, files, container, state or f"rdbkit-migrate-{cache.name}.json", policies=read_policies(options),
                part_bytes=split_size, credentials=Credentials(connection_string=connection_string, sas=sas), auth=AUTH[auth],
                hours=sas_hours, storage_subscription=storage_subscription,
            )  # fmt: skip
            left = None if "import" in skip else job.left_import()
            if left is not None and left.operation and not dry_run:
                click.echo("going on to wait for the import that was begun", err=True)
                with going_on("import"):
                    job.import_it(None, left, watch("import"))
            else:
                if "check" not in skip:
                    with _telling("check", files) as update:
                        job.rehearse(update)
                if not as_json:
                    _show(job, skip, out)
                if not dry_run:
                    _go(job, skip, yes, overwrite, block_size, concurrency, cap_mbps)
        except LossError as e:
            if e.report is None:
                raise
            tell_losses(e.report.ledger, e, False)
            return 1
        except ValueError as e:
            raise click.UsageError(printable(str(e))) from None
        made = job.to_dict() | {"dry_run": dry_run, "skipped": list(skip)}
        if report is not None:
            with open(report, "w", encoding="utf-8") as file:
                json.dump(made, file, indent=1, ensure_ascii=False)
        if as_json:
            click.echo(json.dumps(made, ensure_ascii=False))
        elif not dry_run:
            _show_end(job, out)
        if job.result is not None:
            job.finish()
    return 1 if made["lost"] else 0


def _go(
    job: Migration,
    skip: tuple[str, ...],
    yes: str | None,
    overwrite: bool,
    block_bytes: int,
    concurrency: int,
    cap_mbps: float | None,
) -> None:
    """The steps that change something."""
    if "upload" not in skip:
        with _telling("upload", [course.file for course in job.courses]) as update:
            job.send(
                overwrite=overwrite, block_bytes=block_bytes, concurrency=concurrency, cap_mbps=cap_mbps, progress=update
            )  # fmt: skip
    if "import" in skip:
        return
    prepared = job.prepare()
    if not prepared.importable:
        raise LossError("a blob does not go in as it is; run rdbkit import to see why, or leave out --skip")
    for warning in prepared.warnings:
        if warning not in job.warnings:
            click.echo(f"Warning: {printable(warning)}", err=True)
    confirm(prepared.cache, job.arm.cache, yes)
    with going_on("import"):
        job.import_it(prepared, None, watch("import"))


@contextmanager
def _telling(what: str, files: Any) -> Iterator[Callable[[str, int], object]]:
    """Progress over all files."""
    with progress(what, sum(map(os.path.getsize, files))) as update:
        done: dict[str, int] = {}

        def tell(name: str, n: int) -> None:
            done[name] = n
            if update is not None:
                update(sum(done.values()))

        yield tell


def _show(job: Migration, skip: tuple[str, ...], out: Output) -> None:
    """The plan."""
    show_cache(job.cache, job.arm.cache, out)
    show_warnings(job.warnings, out)
    out.table(
        "Plan",
        ("file", "size", "keys", "becomes", "lost"),
        [
            (
                printable(os.path.basename(course.file)),
                size(course.size),
                f"{course.written:,}" if course.verdict else "?",
                _becomes(course),
                ", ".join(f"{kind} {n}" for kind, n in course.losses.items()) or ("nothing" if course.verdict else "?"),
            )
            for course in job.courses
        ],
    )
    steps = [
        f"upload to {printable(job.container.url)}" + (", which is done" if all(course.is_sent for course in job.courses) else ""),
        f"delete everything in {printable(job.cache.name)}, and import",
    ]
    out.line("")
    for name, text in zip(("upload", "import"), steps, strict=True):
        out.line(f"  {text}{' (left out)' if name in skip else ''}")


def _becomes(course: Course) -> str:
    if not course.verdict:
        return "what it takes"
    return f"{course.sent_header}, as it is" if course.identical else f"{course.header} -> {course.sent_header}"


def _show_end(job: Migration, out: Output) -> None:
    made = job.to_dict()
    if job.result is not None:
        show_report(job.result, out)
    lost = ", ".join(f"{kind} {n}" for kind, n in made["lost"].items())
    out.facts([
        ("keys", f"{made['keys']:,} in the files, {made['written']:,} sent"),
        ("sent", size(made["bytes"])),
        ("lost", lost or "nothing"),
    ])  # fmt: skip

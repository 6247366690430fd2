"""`rdbkit import`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import click

from rdbkit.azure.cache_import import ImportPlan, begin_import, others_than, prepare_import, replacement_error, wait_for
from rdbkit.azure.credentials import Credentials
from rdbkit.azure.pending_operation import PendingOperation, when
from rdbkit.azure.resources import Arm, ResourceId, parse_resource_id
from rdbkit.cli.cache_options import (
    AUTH,
    cache_options,
    check_can_confirm,
    check_name,
    confirm,
    engine_options,
    going_on,
    left_before,
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
from rdbkit.cli.render import RUN_INSTEAD, Output, output, printable, progress, size, usage_errors
from rdbkit.cli.secrets import SecretsCommand
from rdbkit.cli.upload import read_place
from rdbkit.clouds import Cloud
from rdbkit.operations.check import Check
from rdbkit.operations.duplicates import DuplicateError
from rdbkit.storage.blob_url import BlobUrl
from rdbkit.targets.target import Target

#: Findings of a check that are about the file itself, whatever the target: it cannot be read to its end.
_DAMAGE: Final = ("RDB401", "RDB402", "RDB411")


@click.command("import", cls=SecretsCommand)
@click.argument("urls", metavar="BLOB_URL...", nargs=-1, required=True)
@cache_options
@engine_options
@click.option("--etag", "etags", multiple=True, metavar="ETAG", help="Of the blob as it was uploaded, one for each BLOB_URL.")
@click.option("--no-check", is_flag=True, help="Do not read the blobs: they were checked before.")
@click.option(
    "--allow-base", is_flag=True,
    help="Import a blob that is the base of an append-only folder, whose newer data is in other files.",
)  # fmt: skip
@click.option("--yes", metavar="NAME", help="Empty the cache NAME without asking for its name.")
def import_(
    urls: tuple[str, ...],
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
    etags: tuple[str, ...],
    no_check: bool,
    allow_base: bool,
    yes: str | None,
) -> int:
    """Import blobs into a cache in Azure. What is in the cache is deleted.

    BLOB_URL is https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB, with a SAS or without; without one, one is made. Before the
    import, the cache is asked what it is, each blob is read as the service will read it, and rdbkit check is run on it. The cache's
    name has to be typed then, or given with --yes. To continue a run that was interrupted, give the same command again.

    Exit code 0 when the import has ended well, 1 if the check says that a blob does not go in as it is, 3 if one is damaged or no
    snapshot, 4 if a service refuses or fails, or a blob was replaced after an earlier run had begun its import.
    """
    places = [_place(url) for url in urls]
    check_name(yes, cache)
    chosen = chosen_cloud(cloud, (place.cloud for place in places))
    path = state or f"rdbkit-import-{cache.name}.json"
    credentials = Credentials(connection_string=connection_string, sas=sas, cloud=chosen)
    with opened(cache, chosen, arm_endpoint) as arm:
        left = left_before(path, "import", cache)
        if left is not None and left.operation and not dry_run:
            return _go_on(arm, left, places, etags, credentials, as_json)
        if not dry_run:
            check_can_confirm(yes, cache)
        try:
            with usage_errors(), _reading(places) as update:
                prepared = prepare_import(
                    arm, target, places, credentials=credentials, auth=AUTH[auth], storage_subscription=storage_subscription,
                    hours=sas_hours, etags=etags, examine=not no_check, allow_base=allow_base,
                    storage_check=not no_storage_check, progress=update,
                )  # fmt: skip
        except DuplicateError as e:
            show_duplicates(e, "nothing was imported", "--no-check")
            return 1
        if left is not None:
            prepared.warnings.append(left_warning(left))
        if not as_json:
            _show(prepared, output())
        if dry_run or not prepared.importable:
            return _end_here(prepared, dry_run, as_json)
        confirm(prepared.cache, cache, yes)
        pending = begin_import(arm, prepared, path)
        return _finish(arm, pending, prepared, False, as_json)


def _place(url: str) -> BlobUrl:
    with usage_errors():
        return read_place(url)


def _go_on(
    arm: Arm,
    left: PendingOperation,
    places: list[BlobUrl],
    etags: tuple[str, ...],
    credentials: Credentials,
    as_json: bool,
) -> int:
    """Wait for the import that an earlier run has begun."""
    with usage_errors():
        left.check_is_of(places)
    click.echo(f"going on to wait for the import that was begun on {when(left.begun)}", err=True)
    return _finish(arm, left, None, True, as_json, _others(left, places, etags, credentials))


def _end_here(prepared: ImportPlan, dry_run: bool, as_json: bool) -> int:
    """Report what is not imported, since that was not asked for or cannot be; the exit code."""
    if as_json:
        click.echo(json.dumps(prepared.to_dict() | {"dry_run": dry_run, "import": None}))
    elif prepared.importable:
        show_call(prepared.call)
    return 0 if prepared.importable else 3 if _is_damaged(prepared) else 1


def _is_damaged(prepared: ImportPlan) -> bool:
    return any(finding.code in _DAMAGE for report in prepared.checks for finding in report.findings)


def _others(left: PendingOperation, places: list[BlobUrl], etags: tuple[str, ...], credentials: Credentials) -> list[str]:
    """URLs of blobs that are others by now than those of the import that was begun; said at once, since the wait may be long."""
    with usage_errors():
        found, warnings = others_than(left, places, etags, credentials)
    for warning in warnings:
        click.echo(f"Warning: {printable(warning)}", err=True)
    return found


@contextmanager
def _reading(places: list[BlobUrl]) -> Iterator[Callable[[str, int], object]]:
    """Progress over all blobs."""
    with progress("check", None) as update:
        done: dict[str, int] = {}

        def show_progress(url: str, count: int) -> None:
            done[url] = count
            if update is not None:
                update(sum(done.values()))

        yield show_progress


# -- words


def _show(prepared: ImportPlan, out: Output) -> None:
    cache = prepared.cache
    show_cache(cache, parse_resource_id(cache.id), out)
    for i, blob in enumerate(prepared.blobs):
        out.heading(f"\n{printable(blob.url)}")
        signed = blob.signed
        access = "the cache's managed identity"
        if signed is not None:
            until = f" until {when(signed.expires.timestamp())}" if signed.expires is not None else ""
            access = f"SAS ({signed.kind}){until}, tried"
        kind = blob.kind.removesuffix("Blob").lower()
        rows = [
            ("blob", f"{size(blob.bytes)}, {kind} blob, written on {blob.modified[:16].replace('T', ' ')} UTC"),
            ("access", access),
            ("check", prepared.checks[i].summary if prepared.checks else "left out"),
        ]
        if prepared.checks:
            rows += _findings(prepared.checks[i])
        out.facts(rows)
    if prepared.command:
        out.heading("\nTo convert and import instead")
        out.facts([(RUN_INSTEAD, prepared.command)])
    show_warnings(prepared.warnings, out)


def _findings(report: Check) -> list[tuple[str, str]]:
    return [(f.severity, f"{f.code} {printable(f.title)}") for f in report.findings if f.severity != "note"]


def _finish(
    arm: Arm, pending: PendingOperation, prepared: ImportPlan | None, resumed: bool, as_json: bool, others: list[str] | None = None
) -> int:
    with going_on("import"):
        report = wait_for(arm, pending, resumed=resumed, progress=watch("import"))
    if as_json:
        before = prepared.to_dict() if prepared is not None else {}
        replacements = {"replaced": others} if others is not None else {}
        click.echo(json.dumps(before | {"dry_run": False, "import": report.to_dict()} | replacements))
    else:
        show_report(report, output())
    if others:
        raise replacement_error(others)
    return 0

"""`rdbkit export-cache`."""

from __future__ import annotations

import json

import click

from rdbkit.azure.cache_export import begin_export, check_goes_to, prepare_export, wait_for_export
from rdbkit.azure.credentials import Credentials
from rdbkit.azure.pending_operation import when
from rdbkit.azure.resources import ResourceId
from rdbkit.cli.cache_options import (
    AUTH,
    cache_options,
    going_on,
    left_before,
    left_warning,
    opened,
    show_cache,
    show_call,
    show_report,
    show_warnings,
    watch,
)
from rdbkit.cli.clouds import chosen_cloud
from rdbkit.cli.render import output, printable, usage_errors
from rdbkit.cli.secrets import SecretsCommand
from rdbkit.cli.upload import read_place
from rdbkit.clouds import Cloud
from rdbkit.targets.target import Target


@click.command("export-cache", cls=SecretsCommand)
@click.argument("url", metavar="CONTAINER_URL")
@cache_options
@click.option(
    "--prefix", default="", metavar="TEXT", help="What the blobs are called, of Premium alone.  [default: the cache's name]"
)
def export_cache(
    url: str,
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
    prefix: str,
) -> int:
    """Export what a cache in Azure has into a container. The cache stays as it is.

    CONTAINER_URL is https://ACCOUNT.blob.core.windows.net/CONTAINER, with a SAS or without; without one, one is made. Premium
    writes an RDB file as a page blob, Azure Managed Redis and Enterprise a .gz file. To continue a run that was
    interrupted, give the same command again.

    Exit code 0 when the export has ended well, 4 if a service refuses or fails.
    """
    try:
        place = read_place(url)
    except ValueError as e:
        raise click.UsageError(printable(str(e))) from None
    chosen = chosen_cloud(cloud, [place.cloud])
    path = state or f"rdbkit-export-{cache.name}.json"
    credentials = Credentials(connection_string=connection_string, sas=sas, cloud=chosen)
    with opened(cache, chosen, arm_endpoint) as arm:
        left = left_before(path, "export", cache)
        before: dict[str, object] = {}
        resumed = left is not None and bool(left.operation) and not dry_run
        if left is not None and resumed:
            with usage_errors():
                check_goes_to(left, place)
            click.echo(f"going on to wait for the export that was begun on {when(left.begun)}", err=True)
            pending = left
        else:
            try:
                prepared = prepare_export(
                    arm, target, place, prefix=prefix, credentials=credentials, auth=AUTH[auth],
                    storage_subscription=storage_subscription, hours=sas_hours, storage_check=not no_storage_check,
                )  # fmt: skip
            except ValueError as e:
                raise click.UsageError(printable(str(e))) from None
            if left is not None:
                prepared.warnings.append(left_warning(left))
            if not as_json:
                out = output()
                show_cache(prepared.cache, cache, out)
                show_warnings(prepared.warnings, out)
            before = prepared.to_dict()
            if dry_run:
                if as_json:
                    click.echo(json.dumps(before | {"dry_run": True, "export": None}))
                else:
                    show_call(prepared.call)
                return 0
            pending = begin_export(arm, prepared, path)
        with going_on("export"):
            report = wait_for_export(arm, pending, place, credentials=credentials, resumed=resumed, progress=watch("export"))
    if as_json:
        click.echo(json.dumps(before | {"dry_run": False, "export": report.to_dict()}))
    else:
        show_report(report, output())
    return 0

"""`rdbkit import`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar

import click

from rdbkit.azure.importing import (
    MANAGED_IDENTITY,
    SAS,
    Import,
    Preparation,
    Waiting,
    begin_import,
    prepare_import,
    wait_for,
    when,
)
from rdbkit.azure.places import Credentials, Place, parse_place
from rdbkit.azure.resources import ENDPOINT, Arm, CacheState, Call, ResourceId, Status, parse_resource_id
from rdbkit.azure.sas import LEAST_HOURS, MOST_HOURS
from rdbkit.cli.options import target_option
from rdbkit.cli.render import Output, output, printable, progress, size
from rdbkit.cli.upload import secret_option
from rdbkit.operations.check import AS_IT_IS, CANNOT, Check
from rdbkit.targets import Target

C = TypeVar("C", bound=Callable[..., Any])

AUTH: Final = {"sas": SAS, "managed-identity": MANAGED_IDENTITY}
#: Seconds after which a wait that says nothing new says that it still waits, where no terminal shows it.
_SAY_AGAIN: Final = 60.0


def _resource(ctx: click.Context, param: click.Parameter, value: str) -> ResourceId:
    try:
        return parse_resource_id(value)
    except ValueError as e:
        raise click.BadParameter(str(e), ctx=ctx, param=param) from None


_CACHE_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    target_option,
    click.option(
        "--resource-id", "cache", required=True, callback=_resource, metavar="ID", help="The cache: /subscriptions/.../NAME."
    ),
    click.option(
        "--auth", type=click.Choice([*AUTH]), default="sas", show_default=True,
        help="How the cache gets at the storage account; its managed identity is of Premium alone.",
    ),
    click.option(
        "--sas-hours", type=click.FloatRange(LEAST_HOURS, MOST_HOURS), default=LEAST_HOURS, show_default=True, metavar="N",
        help="How long a SAS lasts that is made.",
    ),
    click.option(
        "--storage-subscription", default="", metavar="ID", help="Where the storage account is, with a managed identity."
    ),
    secret_option("--connection-string", "Of the storage account.  [default: AZURE_STORAGE_CONNECTION_STRING]"),
    secret_option("--sas", "Shared access signature.  [default: that of the URL, or AZURE_STORAGE_SAS_TOKEN]"),
    click.option("--arm-endpoint", default=ENDPOINT, show_default=True, metavar="URL", help="Of another cloud."),
    click.option(
        "--state", type=click.Path(dir_okay=False), metavar="FILE",
        help="Where it is noted what there is to wait for.  [default: rdbkit-VERB-NAME.json]",
    ),
    click.option("--dry-run", is_flag=True, help="Do everything but the change, and print the call."),
    click.option("--json", "as_json", is_flag=True, help="Report as one JSON object."),
)  # fmt: skip


def cache_options(command: C) -> C:
    """Give a click command the options that say which cache, and how it and the storage account are reached."""
    for decorate in reversed(_CACHE_OPTIONS):
        command = decorate(command)
    return command


@click.command("import")
@click.argument("urls", metavar="BLOB_URL...", nargs=-1, required=True)
@cache_options
@click.option("--etag", "etags", multiple=True, metavar="ETAG", help="Of the blob as it was uploaded, one for each BLOB_URL.")
@click.option("--no-check", is_flag=True, help="Do not read the blobs: they were checked before.")
@click.option("--yes", metavar="NAME", help="The cache's name, where nobody is there to type it.")
def import_(
    urls: tuple[str, ...],
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
    etags: tuple[str, ...],
    no_check: bool,
    yes: str | None,
) -> int:
    """Import blobs into a cache in Azure. What is in the cache is deleted.

    BLOB_URL is https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB, with a SAS or without; without one, one is made. Before the
    import, the cache is asked what it is, each blob is read as the service will read it, and rdbkit check is run on it. The cache's
    name has to be typed then, or given with --yes. A run that was ended is gone on with by the same command.

    Exit code 0 when the import has ended well, 1 if the check says that a blob does not go in as it is, 3 if one is no snapshot, 4
    if a service refuses or fails.
    """
    places = [_place(url) for url in urls]
    check_name(yes, cache)
    path = state or f"rdbkit-import-{cache.name}.json"
    with opened(cache, arm_endpoint) as arm:
        left = left_before(path, "import", cache)
        if left is not None and left.operation and not dry_run:
            if [blob["url"] for blob in left.blobs] != [place.url for place in places]:
                raise click.UsageError(
                    f"an import of other blobs was begun on {when(left.begun)}: run that command again to wait for it, or "
                    f"delete {path}"
                )
            click.echo(f"going on to wait for the import that was begun on {when(left.begun)}", err=True)
            return _finish(arm, left, None, True, as_json)
        if yes is None and not dry_run and not sys.stdin.isatty():
            raise click.UsageError(f"nobody can type the cache's name here: --yes {cache.name} says that it may be emptied")
        try:
            with _reading(places) as update:
                prepared = prepare_import(
                    arm, target, places, credentials=Credentials(connection_string=connection_string, sas=sas), auth=AUTH[auth],
                    storage_subscription=storage_subscription, hours=sas_hours, etags=etags, examine=not no_check, progress=update,
                )  # fmt: skip
        except ValueError as e:
            raise click.UsageError(printable(str(e))) from None
        if left is not None:
            prepared.warnings.append(
                f"a run of {when(left.begun)} was ended while it asked the service to begin; whether that has begun is not known"
            )
        if not as_json:
            _show(prepared, output())
        if dry_run or not prepared.importable:
            if as_json:
                click.echo(json.dumps(prepared.to_dict() | {"dry_run": dry_run, "import": None}))
            elif prepared.importable:
                show_call(prepared.call)
            return 0 if prepared.importable else 1
        confirm(prepared.cache, cache, yes)
        waiting = begin_import(arm, prepared, path)
        return _finish(arm, waiting, prepared, False, as_json)


def _place(url: str) -> Place:
    try:
        return parse_place(url)
    except ValueError as e:
        raise click.UsageError(str(e)) from None


def check_name(yes: str | None, cache: ResourceId) -> None:
    if yes is not None and yes.lower() != cache.name.lower():
        raise click.UsageError(f"{printable(yes)} is not the cache's name, which is {printable(cache.name)}: nothing was done")


@contextmanager
def opened(cache: ResourceId, endpoint: str) -> Iterator[Arm]:
    """The cache, with the errors of the options."""
    try:
        arm = Arm(cache, endpoint=endpoint)
    except ValueError as e:
        raise click.BadParameter(str(e), param_hint="--arm-endpoint") from None
    with arm:
        yield arm


def left_before(path: str, verb: str, cache: ResourceId) -> Waiting | None:
    """What an earlier run has left at `path`, of the same verb and cache."""
    try:
        left = Waiting.read(path)
    except ValueError as e:
        raise click.UsageError(printable(str(e))) from None
    if left is not None and (left.verb != verb or left.resource_id.lower() != str(cache).lower()):
        raise click.UsageError(f"{printable(path)} is of another cache or verb: name another file with --state")
    return left


@contextmanager
def _reading(places: list[Place]) -> Iterator[Callable[[str, int], object]]:
    """Progress over all blobs."""
    with progress("check", None) as update:
        done: dict[str, int] = {}

        def tell(url: str, count: int) -> None:
            done[url] = count
            if update is not None:
                update(sum(done.values()))

        yield tell


# -- words


def show_cache(cache: CacheState, where: ResourceId, out: Output) -> None:
    """What the cache is."""
    out.heading(f"{printable(cache.name)}: {cache.sku}, Redis {cache.redis_version}, {cache.state}")
    out.facts([
        ("resource group", printable(where.resource_group)),
        ("subscription", printable(where.subscription)),
        ("location", printable(cache.location)),
        ("endpoint", f"{printable(cache.endpoint)} ({cache.access})"),
        ("clustering", f"{cache.clustering}, {cache.databases} database{'s' * (cache.databases != 1)}"),
        ("modules", ", ".join(map(printable, cache.modules)) or "none"),
        ("geo-replication", ", ".join(map(printable, cache.geo_replication)) or "none"),
    ])  # fmt: skip


def _show(prepared: Preparation, out: Output) -> None:
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
    show_warnings(prepared.warnings, out)


def _findings(report: Check) -> list[tuple[str, str]]:
    rows = [(f.severity, f"{f.code} {printable(f.title)}") for f in report.findings if f.severity != "note"]
    if report.verdict not in (AS_IT_IS, CANNOT):
        rows.append(("run first", printable(report.command)))
        rows.append(("", "then rdbkit upload the file that it writes, and import that"))
    return rows


def show_warnings(warnings: list[str], out: Output) -> None:
    """What should be known."""
    if warnings:
        out.line("")
    for warning in warnings:
        out.line(f"Warning: {printable(warning)}")


def show_call(call: Call) -> None:
    """The request that was not sent; not folded at the width of a terminal, so that it can be copied."""
    shown = call.to_dict()
    click.echo(f"\nNot sent, for --dry-run:\n{shown['method']} {shown['url']}\n{json.dumps(shown['body'], indent=2)}")


def confirm(cache: CacheState, where: ResourceId, yes: str | None) -> None:
    """Ask for the cache's name; raises click.UsageError for another."""
    click.echo(
        f"\nEverything in {printable(cache.name)} will be deleted ({printable(cache.endpoint)}, resource group "
        f"{printable(where.resource_group)}), and clients cannot reach it while it imports.",
        err=True,
    )
    if yes is None:
        yes = click.prompt("Type the cache's name to go on", err=True)
    check_name(yes, where)


def watch(verb: str) -> Callable[[Status, float], object]:
    """Progress of an operation on standard error: a line that changes on a terminal, otherwise one for each news and minute."""
    is_terminal = sys.stderr.isatty()
    last: tuple[str, float | None] = ("", None)
    said = 0.0

    def tell(status: Status, seconds: float) -> None:
        nonlocal last, said
        percent = f" {status.percent:.0f} %" if status.percent is not None else ""
        minutes, rest = divmod(int(seconds), 60)
        line = f"{verb}: {printable(status.word)}{percent} after {minutes} min {rest:02} s"
        if is_terminal:
            click.echo(f"\r{line:<60}", nl=status.has_ended, err=True)
        elif last != (status.word, status.percent) or time.monotonic() - said >= _SAY_AGAIN:
            click.echo(line, err=True)
            said = time.monotonic()
        last = (status.word, status.percent)

    return tell


@contextmanager
def going_on(verb: str) -> Iterator[None]:
    """Says, where a wait is interrupted, that what it waits for is not."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"\nthe {verb} goes on without this: run the same command again to wait for it", err=True)
        raise


def _finish(arm: Arm, waiting: Waiting, prepared: Preparation | None, resumed: bool, as_json: bool) -> int:
    with going_on("import"):
        report = wait_for(arm, waiting, resumed=resumed, progress=watch("import"))
    if as_json:
        before = prepared.to_dict() if prepared is not None else {}
        click.echo(json.dumps(before | {"dry_run": False, "import": report.to_dict()}))
    else:
        show_report(report, output())
    return 0


def show_report(report: Import, out: Output) -> None:
    """What came of it."""
    done = "has imported" if report.verb == "import" else "has exported"
    minutes, seconds = divmod(int(report.seconds), 60)
    out.heading(f"{printable(report.cache)} {done} {size(report.bytes)} in {minutes} min {seconds:02} s")
    out.facts([("blob", f"{printable(blob['url'])}, {size(blob['bytes'])}") for blob in report.blobs])

"""`rdbkit import`."""

from __future__ import annotations

import functools
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, TypeVar, cast

import click

from rdbkit.azure.blob_url import BlobUrl, Credentials
from rdbkit.azure.cache_import import (
    MANAGED_IDENTITY,
    SAS,
    Import,
    ImportPlan,
    PendingOperation,
    begin_import,
    prepare_import,
    replaced,
    wait_for,
    when,
)
from rdbkit.azure.resources import ENDPOINT, Arm, CacheState, Call, ResourceId, Status, parse_resource_id
from rdbkit.azure.sas import LEAST_HOURS, MOST_HOURS
from rdbkit.cli.files import EXISTING, OutputPath
from rdbkit.cli.render import RUN_FIRST, Output, output, printable, progress, size, usage_errors
from rdbkit.cli.secrets import FiniteRange, SecretsCommand
from rdbkit.cli.upload import place_options, read_place, secret_option
from rdbkit.errors import TargetError
from rdbkit.operations.check import AS_IT_IS, CANNOT, Check
from rdbkit.targets.target import Target, find_target, load_targets

C = TypeVar("C", bound=Callable[..., Any])

AUTH: Final = {"sas": SAS, "managed-identity": MANAGED_IDENTITY}
#: Seconds after which a wait that says nothing new says that it still waits, where no terminal shows it.
_SAY_AGAIN: Final = 60.0
#: Findings of a check that are about the file itself, whatever the target.
_DAMAGE: Final = ("RDB401", "RDB402")
_NAME: Final = re.compile(r"[A-Za-z0-9-]{1,64}")


def _resource(ctx: click.Context, param: click.Parameter, value: str) -> ResourceId:
    try:
        return parse_resource_id(value)
    except ValueError as e:
        raise click.BadParameter(str(e), ctx=ctx, param=param) from None


def _service_option(command: C) -> C:
    """Give a click command `--target` of a service, and `--targets-file`; it takes them as `target: Target`."""

    @functools.wraps(command)
    def with_service(*args: Any, target: str, targets_file: str | None, **given: Any) -> Any:
        try:
            services = [each.name for each in load_targets(targets_file) if each.is_service]
        except ValueError as e:
            raise click.BadParameter(printable(str(e)), param_hint="--targets-file") from None
        if target not in services:  # which is not shown: it may be a URL with a SAS
            raise click.BadParameter(f"it is none of {', '.join(services)}", param_hint="--target")
        return command(*args, **given, target=find_target(target, targets_file))

    decorated = click.option(
        "--targets-file", type=EXISTING, metavar="FILE",
        help="TOML with other facts of the services.",
    )(with_service)  # fmt: skip
    return cast(
        C,
        click.option(
            "--target", required=True, metavar="TARGET", help="azure-premium, azure-managed or azure-enterprise: what the cache is."
        )(decorated),
    )


_CACHE_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    _service_option,
    click.option(
        "--resource-id", "cache", required=True, callback=_resource, metavar="ID", help="The cache: /subscriptions/.../NAME."
    ),
    click.option(
        "--auth", type=click.Choice([*AUTH]), default="sas", show_default=True,
        help="How the cache gets at the storage account; its managed identity is of Premium alone.",
    ),
    click.option(
        "--sas-hours", type=FiniteRange(LEAST_HOURS, MOST_HOURS), default=LEAST_HOURS, show_default=True, metavar="N",
        help="How long a SAS lasts that is made.",
    ),
    click.option(
        "--storage-subscription", default="", metavar="ID", help="Where the storage account is, with a managed identity."
    ),
    secret_option("--connection-string", "Of the storage account.  [default: AZURE_STORAGE_CONNECTION_STRING]"),
    secret_option("--sas", "Shared access signature.  [default: that of the URL, or AZURE_STORAGE_SAS_TOKEN]"),
    place_options,
    click.option("--arm-endpoint", default=ENDPOINT, show_default=True, metavar="URL", help="Of another cloud."),
    click.option(
        "--state", type=OutputPath("json", gzip=False), metavar="FILE",
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


@click.command("import", cls=SecretsCommand)
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

    Exit code 0 when the import has ended well, 1 if the check says that a blob does not go in as it is, 3 if one is damaged or no
    snapshot, 4 if a service refuses or fails, or a blob was replaced after an earlier run had begun its import.
    """
    places = [_place(url) for url in urls]
    check_name(yes, cache)
    path = state or f"rdbkit-import-{cache.name}.json"
    credentials = Credentials(connection_string=connection_string, sas=sas)
    with opened(cache, arm_endpoint) as arm:
        left = left_before(path, "import", cache)
        if left is not None and left.operation and not dry_run:
            return _go_on(arm, left, places, etags, credentials, path, as_json)
        if not dry_run:
            check_can_confirm(yes, cache)
        with usage_errors(), _reading(places) as update:
            prepared = prepare_import(
                arm, target, places, credentials=credentials, auth=AUTH[auth], storage_subscription=storage_subscription,
                hours=sas_hours, etags=etags, examine=not no_check, progress=update,
            )  # fmt: skip
        if left is not None:
            prepared.warnings.append(_left_warning(left))
        if not as_json:
            _show(prepared, output())
        if dry_run or not prepared.importable:
            return _end_here(prepared, dry_run, as_json)
        confirm(prepared.cache, cache, yes)
        waiting = begin_import(arm, prepared, path)
        return _finish(arm, waiting, prepared, False, as_json)


def _place(url: str) -> BlobUrl:
    with usage_errors():
        return read_place(url)


def _go_on(
    arm: Arm,
    left: PendingOperation,
    places: list[BlobUrl],
    etags: tuple[str, ...],
    credentials: Credentials,
    path: str,
    as_json: bool,
) -> int:
    """Wait for the import that an earlier run has begun, and left at `path`."""
    if [blob["url"] for blob in left.blobs] != [place.url for place in places]:
        raise click.UsageError(
            f"an import of other blobs was begun on {when(left.begun)}: run that command again to wait for it, or "
            f"delete {printable(path)}"
        )
    click.echo(f"going on to wait for the import that was begun on {when(left.begun)}", err=True)
    return _finish(arm, left, None, True, as_json, _others(left, places, etags, credentials))


def _left_warning(left: PendingOperation) -> str:
    """What is to be known of an import that an earlier run has left."""
    if left.operation:
        return f"an import that was begun on {when(left.begun)} is waited for first, without --dry-run"
    return f"a run of {when(left.begun)} was ended while it asked the service to begin; whether that has begun is not known"


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
    try:
        with usage_errors():
            found = replaced(left, places, etags=etags, credentials=credentials)
    except TargetError as e:  # the import is what matters
        click.echo(f"Warning: whether the blobs are still those that it is of is not known: {printable(str(e))}", err=True)
        return []
    for url in found:
        click.echo(f"Warning: {printable(url)}: that import is of the blob as it was then, not as it is asked for now", err=True)
    return found


def check_name(yes: str | None, cache: ResourceId) -> None:
    """Raise click.UsageError for another name; it is shown where it can be one, and is no URL with a SAS."""
    if yes is not None and yes.lower() != cache.name.lower():
        shown = yes if _NAME.fullmatch(yes) else "what was given"
        raise click.UsageError(f"{shown} is not the cache's name, which is {printable(cache.name)}: nothing was done")


def check_can_confirm(yes: str | None, cache: ResourceId) -> None:
    """Raise click.UsageError where `confirm` would ask for the cache's name, and nobody is there."""
    if yes is None and not sys.stdin.isatty():
        raise click.UsageError(f"nobody can type the cache's name here: --yes {cache.name} says that it may be emptied")


@contextmanager
def opened(cache: ResourceId, endpoint: str) -> Iterator[Arm]:
    """The cache, with the errors of the options."""
    try:
        arm = Arm(cache, endpoint=endpoint)
    except ValueError as e:
        raise click.BadParameter(str(e), param_hint="--arm-endpoint") from None
    with arm:
        yield arm


def left_before(path: str, verb: str, cache: ResourceId) -> PendingOperation | None:
    """What an earlier run has left at `path`, of the same verb and cache."""
    with usage_errors():
        left = PendingOperation.read(path)
    if left is not None and (left.verb != verb or left.resource_id.lower() != str(cache).lower()):
        raise click.UsageError(f"{printable(path)} is of another cache or verb: name another file with --state")
    return left


@contextmanager
def _reading(places: list[BlobUrl]) -> Iterator[Callable[[str, int], object]]:
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
    show_warnings(prepared.warnings, out)


def _findings(report: Check) -> list[tuple[str, str]]:
    rows = [(f.severity, f"{f.code} {printable(f.title)}") for f in report.findings if f.severity != "note"]
    if report.verdict not in (AS_IT_IS, CANNOT):
        rows.append((RUN_FIRST, report.command))
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


def _finish(
    arm: Arm, waiting: PendingOperation, prepared: ImportPlan | None, resumed: bool, as_json: bool, others: list[str] | None = None
) -> int:
    with going_on("import"):
        report = wait_for(arm, waiting, resumed=resumed, progress=watch("import"))
    if as_json:
        before = prepared.to_dict() if prepared is not None else {}
        replacements = {"replaced": others} if others is not None else {}
        click.echo(json.dumps(before | {"dry_run": False, "import": report.to_dict()} | replacements))
    else:
        show_report(report, output())
    if others:
        more = f" (and {len(others) - 1} more)" if len(others) > 1 else ""
        raise TargetError(
            f"the blob as it is asked for now was not imported{more}: what was, is what it was when that import was begun; run "
            "this again",
            source=others[0],
        )
    return 0


def show_report(report: Import, out: Output) -> None:
    """What came of it."""
    done = "has imported" if report.verb == "import" else "has exported"
    minutes, seconds = divmod(int(report.seconds), 60)
    out.heading(f"{printable(report.cache)} {done} {size(report.bytes)} in {minutes} min {seconds:02} s")
    out.facts([("blob", f"{printable(blob['url'])}, {size(blob['bytes'])}") for blob in report.blobs])

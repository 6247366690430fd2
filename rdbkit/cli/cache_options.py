"""What the commands about a cache share: the options that say which one and how it is reached, and what is said of it."""

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

from rdbkit.azure.cache_import import MANAGED_IDENTITY, SAS, Import
from rdbkit.azure.pending_operation import PendingOperation, when
from rdbkit.azure.resources import Arm, CacheState, Call, ResourceId, Status, parse_resource_id
from rdbkit.azure.sas import LEAST_HOURS, MOST_HOURS
from rdbkit.cli.clouds import cloud_option
from rdbkit.cli.files import EXISTING, OutputPath
from rdbkit.cli.losses import MOST_SHOWN
from rdbkit.cli.options import relied_on, undocumented_option
from rdbkit.cli.render import Output, printable, size, usage_errors
from rdbkit.cli.secrets import FiniteRange
from rdbkit.cli.upload import place_options, secret_option
from rdbkit.clouds import Cloud
from rdbkit.operations.duplicates import DuplicateError
from rdbkit.targets.target import Target, find_target, load_targets

C = TypeVar("C", bound=Callable[..., Any])
AUTH: Final = {"sas": SAS, "managed-identity": MANAGED_IDENTITY}
#: Seconds after which a wait that says nothing new says that it still waits, where no terminal shows it.
_SAY_AGAIN: Final = 60.0
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
        help="TOML file whose facts about services replace those of rdbkit.",
    )(with_service)  # fmt: skip
    return cast(
        C,
        click.option(
            "--target",
            required=True,
            metavar="TARGET",
            help="The service: azure-managed, azure-premium or azure-enterprise.",
        )(decorated),
    )


_CACHE_OPTIONS: Final[tuple[Callable[[Any], Any], ...]] = (
    _service_option,
    click.option(
        "--resource-id", "cache", required=True, callback=_resource, metavar="ID",
        help="Resource ID of the cache: /subscriptions/.../NAME.",
    ),
    click.option(
        "--auth", type=click.Choice([*AUTH]), default="sas", show_default=True,
        help="How the cache gets access to the blobs: by a SAS, or by its managed identity (Premium only).",
    ),
    click.option(
        "--sas-hours", type=FiniteRange(LEAST_HOURS, MOST_HOURS), default=LEAST_HOURS, show_default=True, metavar="N",
        help="Hours for which a new SAS is valid.",
    ),
    click.option(
        "--storage-subscription", default="", metavar="ID", help="Subscription of the storage account.  [default: the cache's]"
    ),
    click.option(
        "--no-storage-check", is_flag=True, help="Do not check the settings of the storage account: firewall, keys, region."
    ),
    secret_option("--connection-string", "Connection string of the storage account.  [default: AZURE_STORAGE_CONNECTION_STRING]"),
    secret_option("--sas", "SAS for the storage account.  [default: that of the URL, or AZURE_STORAGE_SAS_TOKEN]"),
    place_options,
    cloud_option(),
    click.option("--arm-endpoint", metavar="URL", help="Address of Azure Resource Manager.  [default: that of the cloud]"),
    click.option(
        "--state", type=OutputPath("json", gzip=False), metavar="FILE",
        help="State file, by which another run continues this one.  [default: rdbkit-VERB-NAME.json]",
    ),
    click.option("--dry-run", is_flag=True, help="Check everything, print the request that would be sent, and change nothing."),
    click.option("--json", "as_json", is_flag=True, help="Report as one JSON object."),
)  # fmt: skip


def engine_options(command: C) -> C:
    """Give a click command that has `cache_options` those that say which engine runs there, and what of it is relied on."""

    @functools.wraps(command)
    def with_engine(*args: Any, target: Target, redis_version: str | None, **given: Any) -> Any:
        found = relied_on(target)
        if redis_version is not None:
            try:
                found = found.with_engine(redis_version)
            except ValueError as e:
                raise click.BadParameter(printable(str(e)), param_hint="--redis-version") from None
        return command(*args, **given, target=found)

    decorated = click.option(
        "--redis-version", metavar="X.Y", help="Redis version of the cache, in place of the one that Azure tells.",
    )(undocumented_option(with_engine))  # fmt: skip
    return cast(C, decorated)


def cache_options(command: C) -> C:
    """Give a click command the options that say which cache, and how it and the storage account are reached."""
    for decorate in reversed(_CACHE_OPTIONS):
        command = decorate(command)
    return command


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
def opened(cache: ResourceId, cloud: Cloud, endpoint: str | None) -> Iterator[Arm]:
    """The cache, with the errors of the options."""
    try:
        arm = Arm(cache, cloud=cloud, endpoint=endpoint)
    except ValueError as e:
        raise click.BadParameter(str(e), param_hint="--arm-endpoint") from None
    with arm:
        yield arm


def left_before(path: str, verb: str, cache: ResourceId) -> PendingOperation | None:
    """What an earlier run has left at `path`, of the same verb and cache."""
    with usage_errors():
        return PendingOperation.read_of(path, verb, cache)


def left_warning(left: PendingOperation) -> str:
    """What is to be known of an operation that an earlier run has left, where this one does not wait for it."""
    if left.operation:
        return f"an {left.verb} that was begun on {when(left.begun)} is waited for first, without --dry-run"
    return left.doubt


def show_duplicates(e: DuplicateError, undone: str, leaving: str) -> None:
    """Keys, or function libraries, that several files have which go into a cache together.

    Args:
        undone: what was not done, for that.
        leaving: the option that lets them go in.
    """
    for each in e.samples[:MOST_SHOWN]:
        names = ", ".join(dict.fromkeys(printable(name) for name, _ in each.places))
        click.echo(f"rdbkit: more than once: db {each.db}, key {printable(each.key, 80)}: {names}", err=True)
    option = "--on-duplicate" if e.samples else "--on-function-conflict"
    which = "" if e.is_converted else f", and its {option} says which one to keep"
    then = ", of which --on-conflict says what becomes of such keys" if e.is_converted else ""
    click.echo(
        f"rdbkit: {printable(e.message)}; {undone}. rdbkit merge makes one file of them{which}; that file can be migrated with the "
        f"same options{then}. {leaving} leaves this to the cache",
        err=True,
    )


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

    def show_status(status: Status, seconds: float) -> None:
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

    return show_status


@contextmanager
def going_on(verb: str) -> Iterator[None]:
    """Says, where a wait is interrupted, that what it waits for is not."""
    try:
        yield
    except KeyboardInterrupt:
        click.echo(f"\nthe {verb} continues without this: run the same command again to wait for it", err=True)
        raise


def show_report(report: Import, out: Output) -> None:
    """What came of it."""
    done = "has imported" if report.verb == "import" else "has exported"
    minutes, seconds = divmod(int(report.seconds), 60)
    out.heading(f"{printable(report.cache)} {done} {size(report.bytes)} in {minutes} min {seconds:02} s")
    out.facts([("blob", f"{printable(blob['url'])}, {size(blob['bytes'])}") for blob in report.blobs])

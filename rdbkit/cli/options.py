"""The options that choose keys, the same for every verb."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any, Final, TypeVar, cast

import click

from rdbkit.cli.files import EXISTING
from rdbkit.cli.headings import SELECTS
from rdbkit.cli.remembered import remember, remembered
from rdbkit.operations.arguments import separators_of
from rdbkit.products import product_names
from rdbkit.selection import (
    Expiry,
    Selection,
    parse_dbs,
    parse_expires,
    parse_sample,
    parse_size,
    parse_slots,
    parse_ttl,
)
from rdbkit.targets.commands import features
from rdbkit.targets.target import NO_MODULES, Target, find_target

R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

_TARGET_HELP: Final = "A release line (redis-6.2, valkey-8.1), a service (azure-premium, azure-managed) or rdb-N."
#: Of processes; each takes memory for some blocks.
MOST_JOBS: Final = 256
_PAIR: Final = re.compile(r"\s*([0-9]{1,10})\s*=\s*([0-9]{1,10})\s*")
_LAST_DB: Final = (1 << 31) - 1


def separators_option(text: str) -> Callable[[F], F]:
    """Give a click command `--prefix-separator`, which it takes as `separators: bytes`."""

    def read(context: click.Context, param: click.Parameter, value: str) -> bytes:
        try:
            return separators_of(value)
        except ValueError as e:
            raise click.BadParameter(str(e)) from None

    return click.option(
        "--prefix-separator", "separators", default=":", show_default=True, metavar="CHARS", callback=read, help=text
    )


def target_option(command: F) -> F:
    """Give a click command `--target`, `--targets-file` and `--undocumented`; it takes them as `target: Target`."""
    return undocumented_option(_with_target(command, True, _TARGET_HELP))


def optional_target_option(command: F) -> F:
    """The same where none need be given; the command takes `target: Target | None`."""
    return undocumented_option(_with_target(command, False, _TARGET_HELP))


def layout_target_option(command: F) -> F:
    """The same where it only matters how the target lays data out, and not what it loads."""
    return _with_target(command, True, _TARGET_HELP)


def undocumented_option(command: F) -> F:
    """Give a click command that takes a target `--undocumented`, which says what of the target is relied on."""
    return click.option(
        "--undocumented", is_flag=True, is_eager=True, expose_value=False, callback=remember,
        help="Rely on what the engine of a service is known to load, also where its documents promise less.",
    )(command)  # fmt: skip


def relied_on(target: Target) -> Target:
    """The target, as `--undocumented` has it; for a verb that has this option."""
    return target.with_undocumented() if remembered("undocumented") else target


def commands_target_option(of: str) -> Callable[[F], F]:
    """The same where commands are written, into what `of` names; the command takes a target that has commands."""

    def decorate(command: F) -> F:
        @functools.wraps(command)
        def with_features(*args: Any, target: Target | None, **given: Any) -> Any:
            _found("--target", features, target)
            return command(*args, **given, target=target)

        takes = "a release line (redis-6.2, valkey-8.1) or a service (azure-premium)"
        return _with_target(
            cast(F, with_features), False, f"With {of}, what the commands are for: {takes}. Default: the newest Redis."
        )

    return decorate


def _with_target(command: F, required: bool, told: str) -> F:
    @functools.wraps(command)
    def with_target(*args: Any, target: str | None, targets_file: str | None, **given: Any) -> Any:
        found = None if target is None else relied_on(_found("--target", find_target, target, targets_file))
        return command(*args, **given, target=found)

    decorated = click.option(
        "--targets-file",
        type=EXISTING,
        metavar="FILE",
        help="TOML with targets of your own, or with other facts of ours.",
    )(with_target)
    return cast(F, click.option("--target", required=required, metavar="TARGET", help=told)(decorated))


def service_options(command: F) -> F:
    """As `target_option`, with `--redis-version` and `--modules` of a service."""
    return _with_service(command)


def optional_service_options(default: str) -> Callable[[F], F]:
    """The same where no target need be given; `default` says in the help what holds then. Gives `target: Target | None`."""
    return lambda command: _with_service(command, f"{_TARGET_HELP}  [default: {default}]")


def _with_service(command: F, optional: str | None = None) -> F:
    @functools.wraps(command)
    def with_service(
        *args: Any, target: Target | None, redis_version: str | None, modules: list[str] | None, **given: Any
    ) -> Any:  # fmt: skip
        if target is None and (redis_version is not None or modules is not None):
            raise click.UsageError(
                f"{'--modules' if redis_version is None else '--redis-version'} is about a target: give --target"
            )
        if target is not None and redis_version is not None:
            target = _found("--redis-version", target.with_engine, redis_version)
        if target is not None and modules is not None:
            target = _with_modules(target, modules)
        return command(*args, **given, target=target)

    decorated = click.option(
        "--modules", callback=_products, metavar=f"NAME,...|{NO_MODULES}",
        help="The modules that the service was created with, or that the server has loaded: RedisJSON, ...  [default: of a service "
        "all that it needs, of a server none]",
    )(with_service)  # fmt: skip
    decorated = click.option("--redis-version", metavar="X.Y", help="The version that runs there, where you know it.")(decorated)
    return undocumented_option(_with_target(cast(F, decorated), optional is None, optional or _TARGET_HELP))


def _with_modules(target: Target, products: list[str]) -> Target:
    """The target with these modules; raises click.BadParameter for what it cannot have."""
    offered: list[str] = []
    if target.takes_modules:
        offered = sorted(target.optional_modules) if target.is_service else product_names()
    for product in products:
        if product not in offered:
            why = f"{'which can be chosen' if target.is_service else 'known'}: {', '.join(offered)}"
            why = why if offered else f"{target.name} has none to choose"
            raise click.BadParameter(f"{product!r} is no module of {target.name}; {why}", param_hint="--modules")
    return target.with_modules(products)


def _products(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    if value is None or value == NO_MODULES:
        return None if value is None else []
    return _words([value])


def target_options(command: F) -> F:
    """As `service_options`, with `--sku` of a service, which it takes as `sku: Sku | None`."""

    @functools.wraps(command)
    def with_sku(*args: Any, target: Target, sku: str | None, **given: Any) -> Any:
        size = None if sku is None else _found("--sku", target.sku, sku)
        return command(*args, **given, target=target, sku=size)

    return service_options(cast(F, click.option("--sku", metavar="SIZE", help="The size of the service: P2, B10, ...")(with_sku)))


def _found(option: str, find: Callable[..., R], *args: Any) -> R:
    try:
        return find(*args)
    except ValueError as e:
        raise click.BadParameter(str(e), param_hint=option) from None


def selection_options(command: Callable[..., R]) -> Callable[..., R]:
    """Give a click command the options that choose keys, as one keyword argument `selection` (`rdbkit.Selection`).

    What cannot be read as a condition is a usage error that names its option.
    """

    @functools.wraps(command)
    def with_selection(*args: Any, **given: Any) -> R:
        options = {name.removeprefix(SELECTS): given.pop(name) for name in list(given) if name.startswith(SELECTS)}
        expiries: list[Expiry] = [name for name in _EXPIRIES if options.pop(name.replace("-", "_"))]
        if len(expiries) > 1:
            raise click.UsageError(f"{' and '.join(f'--{name}' for name in expiries)} exclude each other")
        selection = Selection(**options, expiry=expiries[0] if expiries else None)
        return command(*args, **given, selection=selection)

    # the last decorator's option is listed first
    result: Callable[..., R] = with_selection
    for decorate in reversed(_OPTIONS):
        result = decorate(result)
    return result


def server_selection_options(command: Callable[..., R]) -> Callable[..., R]:
    """`selection_options` for keys of servers: without `--size` in the help, which only a snapshot tells."""
    decorated = selection_options(command)
    for param in getattr(decorated, "__click_params__", ()):
        if param.name == SELECTS + "size":
            param.hidden = True
    return decorated


def warn_if_none(selection: Selection, keys: int) -> None:
    """Say on standard error that a selection takes none of the keys, which is more often a slip than what was meant.

    Args:
        keys: how many it takes.
    """
    if selection and not keys:
        click.echo("rdbkit: no key is chosen: none matches the options that choose keys", err=True)


def database_pairs(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[int, int]:
    """The callback of `--map-db N=M,...`."""
    found: dict[int, int] = {}
    for pair in ",".join(values).split(",") if values else ():
        match = _PAIR.fullmatch(pair)
        if match is None or max(int(match[1]), int(match[2])) > _LAST_DB:
            raise click.BadParameter(f"{pair[:64]!r} is no pair of databases, as in 3=0", ctx=ctx, param=param)
        old, new = int(match[1]), int(match[2])
        if old in found:
            raise click.BadParameter(f"database {old} is there twice", ctx=ctx, param=param)
        found[old] = new
    return found


def _option(name: str, argument: str, parse: Callable[[Any], Any], *, multiple: bool = True, **more: Any) -> Any:
    """An option whose text becomes the argument `argument` of Selection."""

    def callback(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
        if value is None or value == ():
            return value
        try:
            parsed = parse(value)
            Selection(**{argument: parsed})  # complains while it is known which option it is
        except ValueError as e:
            raise click.BadParameter(str(e), ctx=ctx, param=param) from None
        return parsed

    return click.option(name, SELECTS + argument, multiple=multiple, callback=callback, **more)


def _encoded(texts: Iterable[str]) -> list[bytes]:
    return [os.fsencode(text) for text in texts]


def _words(texts: Iterable[str]) -> list[str]:
    return [word.strip() for text in texts for word in text.split(",")]


def _each(parse: Callable[[str], tuple[range, ...]]) -> Callable[[Iterable[str]], list[range]]:
    return lambda texts: list(chain.from_iterable(map(parse, texts)))


_EXPIRIES: Final[tuple[Expiry, ...]] = ("expired", "not-expired", "no-ttl")
_OPTIONS: Final = (
    _option("--key", "keys", _encoded, metavar="GLOB", help="Keys that match, as KEYS does."),
    _option("--key-regex", "regexes", _encoded, metavar="REGEX", help="Keys with a match in them."),
    _option("--prefix", "prefixes", _encoded, metavar="TEXT", help="Keys that begin so."),
    _option("--not-key", "not_keys", _encoded, metavar="GLOB", help="No keys that match."),
    _option("--type", "types", _words, metavar="TYPE", help="string, list, set, zset, hash, stream, ..."),
    _option("--db", "dbs", _each(parse_dbs), metavar="N", help="Databases: 0,2-4."),
    _option("--size", "size", parse_size, multiple=False, metavar="RANGE", help="Bytes in the file: 1KB~10MB."),
    _option("--ttl", "ttl", parse_ttl, multiple=False, metavar="RANGE", help="Time left: 1h~7d."),
    _option("--expires", "expires", parse_expires, multiple=False, metavar="RANGE", help="Time of expiry: 2026-01-01..2026-02-01."),
    click.option("--expired", SELECTS + "expired", is_flag=True, help="Keys that have expired."),
    click.option("--not-expired", SELECTS + "not_expired", is_flag=True, help="Keys that have not."),
    click.option("--no-ttl", SELECTS + "no_ttl", is_flag=True, help="Keys that never expire."),
    _option("--slot", "slots", _each(parse_slots), metavar="N", help="Cluster slots: 0-5460."),
    _option("--sample", "sample", parse_sample, multiple=False, metavar="N/M", help="About N keys of M, by hash of the key."),
)

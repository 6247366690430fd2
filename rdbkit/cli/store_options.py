"""How a command reaches the stores of FILEs and OUTs that are URLs: options of every verb that takes one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import click

from rdbkit.cli.remembered import remember
from rdbkit.storage.store_settings import check_endpoint, current_settings, store_settings

__all__ = ["STORE_OPTIONS", "remember_http"]


def _set(ctx: click.Context, **changes: Any) -> None:
    """Settings for what the command names from now on, which is all of it: these options are read before its arguments."""
    ctx.with_resource(store_settings(replace(current_settings(), **changes)))


def remember_http(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    """The callback of `--allow-http`."""
    remember(ctx, param, value)
    if value:
        _set(ctx, allow_http=True)


def _set_endpoint(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is None or ctx.resilient_parsing:
        return
    try:
        check_endpoint(value, True)  # whether http:// is allowed is known when all options are
    except ValueError as e:
        raise click.BadParameter(str(e), ctx=ctx, param=param) from None
    _set(ctx, endpoint=value)


def _set_region(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is not None:
        _set(ctx, region=value)


def _set_anonymous(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value:
        _set(ctx, anonymous=True)


def _set_options(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> None:
    options = {}
    for pair in values:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise click.BadParameter("it takes KEY=VALUE", ctx=ctx, param=param)
        options[name] = value
    if options:
        _set(ctx, options=options)


STORE_OPTIONS: Final = (
    click.Option(
        ["--endpoint"], metavar="URL", is_eager=True, expose_value=False, callback=_set_endpoint,
        help="Of the service of s3://, gs:// or az:// URLs, where it is not the provider's own: MinIO, an emulator.",
    ),
    click.Option(
        ["--region"], metavar="NAME", is_eager=True, expose_value=False, callback=_set_region,
        help="Of a bucket of S3.  [default: AWS_REGION, or us-east-1]",
    ),
    click.Option(
        ["--anonymous"], is_flag=True, is_eager=True, expose_value=False, callback=_set_anonymous,
        help="Send no credentials to stores: what is read is public.",
    ),
    click.Option(
        ["--storage-option"], metavar="KEY=VALUE", multiple=True, is_eager=True, expose_value=False, callback=_set_options,
        help="An option of the store, as obstore calls it; may be repeated.",
    ),
    click.Option(
        ["--allow-http"], is_flag=True, is_eager=True, expose_value=False, callback=remember_http,
        help="Allow http:// for hosts other than this machine.",
    ),
)  # fmt: skip

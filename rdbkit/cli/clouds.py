"""`--cloud`: which cloud of Azure is meant, by what was given and by the hosts of URLs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import click

from rdbkit.clouds import Cloud, clouds, find_cloud

C = TypeVar("C", bound=Callable[..., Any])


def cloud_option(default: str = "the cloud of the URL") -> Callable[[C], C]:
    """Give a click command `--cloud`; it takes it as `cloud: Cloud | None`, for `chosen_cloud`."""
    words = ", ".join(each.word for each in clouds())
    return click.option(
        "--cloud", callback=_read, metavar="CLOUD", help=f"{words}, or its name in az cloud list.  [default: {default}]"
    )


def _read(ctx: click.Context, param: click.Parameter, value: str | None) -> Cloud | None:
    try:
        return None if value is None else find_cloud(value)
    except ValueError as e:
        raise click.BadParameter(str(e), ctx=ctx, param=param) from None


def chosen_cloud(given: Cloud | None, by_hosts: Iterable[Cloud | None]) -> Cloud:
    """The cloud that was given, or that hosts say; the public one where nothing does.

    Args:
        by_hosts: the cloud of each host; None for a host that does not say.

    Raises: click.UsageError where these differ.
    """
    named = list(dict.fromkeys(each for each in by_hosts if each is not None))
    for each in named:
        if each is not (given or named[0]):
            other = f"--cloud {given.word}" if given is not None else f"another URL ({named[0].title})"
            raise click.UsageError(f"a URL is of {each.title} ({each.name}), and {other} says otherwise")
    return given or (named[0] if named else find_cloud("public"))

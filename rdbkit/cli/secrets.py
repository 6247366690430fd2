"""Secrets on a command line: they are in no message about what is wrong with it."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import click

from rdbkit.cli.options import SelectionCommand
from rdbkit.text import scrub

__all__ = ["FiniteRange", "SecretsCommand", "without_secrets"]

_ARGUMENTS: Final = "rdbkit.arguments"
#: A URL with a host, and a port that is one: what else stands there may be a password whose host was forgotten.
_HOST: Final = re.compile(r"[-\w]+://[^:/]+(:\d*)?(/.*)?", re.DOTALL)


class SecretsCommand(SelectionCommand):
    """A command whose URLs have passwords and signatures; one that stands where another argument belongs is not shown either."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = list(args)
        with _kept_from(ctx.meta[_ARGUMENTS]):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with _kept_from(ctx.meta[_ARGUMENTS]):
            return super().invoke(ctx)


class FiniteRange(click.FloatRange):
    """A range of numbers, of which neither infinity nor what is no number is one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is no number that can be worked with.", param, ctx)
        return float(found)


@contextmanager
def _kept_from(arguments: Iterable[str]) -> Iterator[None]:
    """Takes the secrets of arguments out of the messages of click, and out of names of files that are none."""
    try:
        yield
    except click.ClickException as e:
        vars(e)["message"] = without_secrets(e.message, arguments)
        raise
    except OSError as e:
        if isinstance(e.filename, str):
            e.filename = without_secrets(e.filename, arguments)
        raise


def without_secrets(text: str, arguments: Iterable[str]) -> str:
    """The text without the logins and queries of arguments that are quoted in it.

    >>> without_secrets("there is no 'redis://app:s3cret@host'", ["redis://app:s3cret@host"])
    "there is no '...@host'"
    >>> without_secrets("no such file: https://a/c/b?sv=1&sig=abc", ["--state=https://a/c/b?sv=1&sig=abc"])
    'no such file: https://a/c/b?...'
    """
    values = {value for argument in arguments for value in (argument, *argument.partition("=")[::2])}
    for value in sorted(values, key=len, reverse=True):
        shown = _shown(value)
        if shown != value:
            text = text.replace(value, shown).replace(repr(value)[1:-1], shown)
    return scrub(text)


def _shown(value: str) -> str:
    """An argument without what may be a secret: nobody knows whether the password of a malformed URL has a question mark in it."""
    login, _, host = value.rpartition("@")
    address, mark, _ = value.partition("?")
    has_query = bool(mark) and ("://" in value or "sig=" in value)
    if ":" in login or "/" in login:
        return "..." if has_query else f"...@{host}"
    if "://" in address and not _HOST.fullmatch(address):
        return "..."
    return f"{address}?..." if has_query else value

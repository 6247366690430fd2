"""Secrets on a command line: they are in no message about what is wrong with it."""

from __future__ import annotations

import math
from typing import Any, Final

import click

from rdbkit.cli.files import Verb
from rdbkit.cli.scrubbing import secrets_kept

__all__ = ["FiniteRange", "SecretsCommand"]

_ARGUMENTS: Final = "rdbkit.arguments"


class SecretsCommand(Verb):
    """A command whose URLs have passwords and signatures; one that stands where another argument belongs is not shown either."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_ARGUMENTS] = list(args)
        with secrets_kept(ctx.meta[_ARGUMENTS]):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with secrets_kept(ctx.meta[_ARGUMENTS]):
            return super().invoke(ctx)


class FiniteRange(click.FloatRange):
    """A range of numbers, of which neither infinity nor what is no number is one."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        found = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value} is no number that can be worked with.", param, ctx)
        return float(found)

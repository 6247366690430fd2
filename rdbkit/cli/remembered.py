"""Options that a command has without an argument for them: what is given is remembered for whoever looks at it later."""

from __future__ import annotations

from typing import Any

import click


def remember(ctx: click.Context, param: click.Parameter, value: object) -> None:
    """The callback of such an option, which has `expose_value=False`."""
    ctx.meta[f"rdbkit.{param.name}"] = value


def remembered(name: str) -> Any:
    """What was given for an option, by its name as Python has it; None where the command does not have it."""
    return click.get_current_context().meta.get(f"rdbkit.{name}")

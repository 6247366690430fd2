"""What a verb that writes exits with: the one place where it is decided what becomes of losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

C = TypeVar("C", bound=Callable[..., Any])


def strict_option(command: C) -> C:
    """Give a click command `--strict`; it takes it as `strict: bool`, for `status`."""
    return click.option("--strict", is_flag=True, help="Exit with 1 if anything is lost, even if an option allows it.")(command)


def status(*, lost: object, strict: bool, found: object = False) -> int:
    """The exit code of a verb that has done its work.

    What an option allows to be lost, or the verb itself is for, is what was asked for: it is listed, counted, and no failure.

    Args:
        lost: true where something was lost that an option, or the verb, allows.
        strict: of `strict_option`.
        found: true where something is wrong that nobody has allowed.

    >>> status(lost=True, strict=False), status(lost=True, strict=True), status(lost=False, strict=False, found=True)
    (0, 1, 1)
    """
    return 1 if found or (strict and lost) else 0

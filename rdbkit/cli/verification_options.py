"""Options of the commands that compare what is on servers: which keys, how near, how fast, how many differences are named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from rdbkit.cli.options import database_pairs
from rdbkit.cli.secrets import FiniteRange
from rdbkit.cli.server_options import byte_size
from rdbkit.live.pace import LEAST_RATE
from rdbkit.selection import parse_duration

C = TypeVar("C", bound=Callable[..., Any])

_MOST_KEYS: Final = 1 << 62


def _duration(ctx: click.Context, param: click.Parameter, value: str) -> int:
    try:
        return parse_duration(value)
    except ValueError as e:
        raise click.BadParameter(str(e), ctx=ctx, param=param) from None


def _pick(ctx: click.Context, param: click.Parameter, value: str | None) -> float | int | None:
    if value is None:
        return None
    text = value.strip()
    try:
        found: float | int = float(text[:-1]) / 100 if text.endswith("%") else int(text)
    except ValueError:
        found = 0
    if not 0 < found < (1 if text.endswith("%") else _MOST_KEYS):
        raise click.BadParameter(f"{value!r} is neither a number of keys nor a share, as in 10000 or 5%", ctx=ctx, param=param)
    return found


def duration_option(name: str, default: str, text: str) -> Callable[[C], C]:
    """An option that takes a time, as 1s or 500ms, and gives milliseconds."""
    return click.option(name, default=default, show_default=True, callback=_duration, metavar="TIME", help=text)


def functions_option(text: str) -> Callable[[C], C]:
    """The option `--ignore functions`, with this help."""
    return click.option("--ignore", type=click.Choice(["functions"]), multiple=True, help=text)


#: The option of values that are compared in pieces.
big_option: Final = click.option(
    "--big", default="32MB", show_default=True, callback=byte_size, metavar="SIZE",
    help="Compare larger values in parts; 0 compares all whole, and saves SOURCE one command per key (MEMORY USAGE).",
)  # fmt: skip


def pick_options(command: C) -> C:
    """Give a click command the options that pick keys by hash, which it takes as pick and seed."""
    seed = click.option("--seed", type=click.IntRange(0, 1 << 62), default=0, metavar="N", help="Another number picks other keys.")
    return click.option(
        "--pick", callback=_pick, metavar="N|N%",
        help="Compare only about N keys, or N percent: chosen by hash of the name, the same in every run with one --seed.",
    )(seed(command))  # fmt: skip


def verification_options(of: str, extra: str, batch: int) -> Callable[[C], C]:
    """Give a click command these options: map_db, ttl_tolerance, pick, seed, find_extra, rate, batch, samples and as_json.

    Args:
        of: the server that has the keys, in the help: "server" or "target".
        extra: the help of `--find-extra`.
        batch: keys that are asked for at a time, if nothing else is said.
    """
    options = (
        click.option(
            "--map-db", multiple=True, callback=database_pairs, metavar="N=M,...",
            help=f"Look for the keys of database N in the {of}'s database M.",
        ),
        duration_option("--ttl-tolerance", "1s", "Accept expiries that differ by less than TIME."),
        pick_options,
        click.option("--find-extra", is_flag=True, help=extra),
        click.option("--rate", type=FiniteRange(LEAST_RATE), metavar="N", help="Read at most N keys a second."),
        click.option(
            "--batch", type=click.IntRange(1, 10_000), default=batch, show_default=True, metavar="N",
            help="Read N keys at a time.",
        ),
        click.option(
            "--samples", type=click.IntRange(0, 10_000), default=10, show_default=True, metavar="N",
            help="Name up to N differences.",
        ),
        click.option("--json", "as_json", is_flag=True, help="Report as one JSON object."),
    )  # fmt: skip

    def decorate(command: C) -> C:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate

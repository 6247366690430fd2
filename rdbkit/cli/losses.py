"""The options that say what becomes of data that a target does not support, and how it is told what that was."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, Final, TypeVar

import click

from rdbkit.cli.files import OutputPath, WithArgument
from rdbkit.cli.render import libraries, printable
from rdbkit.cli.status import strict_option
from rdbkit.errors import LossError
from rdbkit.policy.ledger import Ledger, Loss
from rdbkit.policy.rules import Policies
from rdbkit.storage.output import open_output

C = TypeVar("C", bound=Callable[..., Any])

MOST_SHOWN: Final = 20

#: What to say of each kind of loss that is not allowed.
_REMEDIES: Final = {
    "field-expiry": "--on-field-ttl drop-ttl, drop-field, key-min or key-max",
    "function": "--on-function drop or extract=FILE",
    "module": "--on-module drop, json-as-string, or keep where the target has the module loaded",
    "module-aux": "--on-module drop, or keep where the target has the module loaded",
    "json": "--on-module json-as-string or drop",
    "stream-counters": "--on-stream-extras drop",
    "nacked": "--on-pending-unowned drop or assign=NAME",
    "array": "--on-array hash or drop",
    "key-metadata": "--on-key-metadata drop",
    "oversize": "--on-oversize drop",
    "database": "--map-db or --collapse-dbs to move them, --db to choose",
    "duplicate": "--on-duplicate first or last",
    "conflict": "--on-conflict first, last or rename=PATTERN",
}
_ANY_LOSS: Final = "--on-loss drop"
#: Of verbs that have no ledger: where all losses are.
LEDGER_ELSEWHERE: Final = "rdbkit convert has --ledger FILE for all"
#: The same for verbs that convert on the way, and have less options than `convert`.
ON_THE_WAY: Final = {"database": "rdbkit convert has --map-db, --collapse-dbs and --db; bring the file there that it writes"}


_OPTIONS: Final = (
    click.option(
        "--on-loss",
        type=click.Choice(["fail", "drop"]),
        default="fail",
        show_default=True,
        help="Other data that the target does not support: list it and write nothing, or leave it out.",
    ),
    click.option(
        "--on-field-ttl",
        type=click.Choice(["fail", "drop-ttl", "drop-field", "key-min", "key-max"]),
        help="Fields of hashes that expire: drop-ttl keeps them for ever, drop-field leaves them out, key-min and key-max let the "
        "key expire with its first or last field.  [default: as --on-loss]",
    ),
    click.option(
        "--on-function",
        type=WithArgument("fail", "drop", takes="extract", is_output=True),
        metavar="fail|drop|extract=FILE",
        help="Function libraries that the target does not have; extract writes their sources to FILE, also those that the target "
        "gets.  [default: as --on-loss]",
    ),
    click.option(
        "--on-module",
        type=click.Choice(["fail", "drop", "json-as-string", "keep"]),
        help="Values of modules: RedisJSON documents can become strings; keep them where the target has the module.  "
        "[default: as --on-loss]",
    ),
    click.option(
        "--on-stream-extras",
        type=click.Choice(["drop", "fail"]),
        help="Counters of streams, which the target makes anew.  [default: drop]",
    ),
    click.option(
        "--on-pending-unowned",
        type=WithArgument("fail", "drop", takes="assign"),
        metavar="fail|drop|assign=NAME",
        help="Pending entries of streams that belong to no consumer; assign gives them to one.  [default: as --on-loss]",
    ),
    click.option("--on-array", type=click.Choice(["fail", "hash", "drop"]), help="Arrays: hash makes hashes of index and value."),
    click.option("--on-key-metadata", type=click.Choice(["fail", "drop"]), help="What modules attached to keys."),
    click.option("--on-oversize", type=click.Choice(["fail", "drop"]), help="Keys larger than the target takes."),
    strict_option,
)


def policy_options(command: C) -> C:
    """Give a click command the options of policies, of which `read_policies` makes `Policies`, and `--strict`."""
    for decorate in reversed(_OPTIONS):
        command = decorate(command)
    return command


def ledger_option(command: C) -> C:
    """Give a click command `--ledger`, whose file `teller` writes to."""
    return click.option(
        "--ledger", type=OutputPath("jsonl"), metavar="FILE", help="Write every loss and note to FILE, as JSON lines."
    )(command)


def read_policies(options: dict[str, Any]) -> Policies:
    """Raises: ValueError for what excludes each other."""
    function, unowned = options["on_function"], options["on_pending_unowned"]
    return Policies(
        loss=options["on_loss"],
        field_ttl=options["on_field_ttl"],
        function=function and function[0],
        module=options["on_module"],
        stream_extras=options["on_stream_extras"],
        pending_unowned=unowned and unowned[0],
        owner=os.fsencode(unowned[1]) if unowned and unowned[0] == "assign" else None,
        array=options["on_array"],
        key_metadata=options["on_key_metadata"],
        oversize=options["on_oversize"],
    )


@contextmanager
def ledger_file(options: dict[str, Any], sources: Sequence[str]) -> Iterator[Callable[[Loss], object] | None]:
    """What writes each loss to the file of `ledger_option`, which is opened now; None where none was asked for."""
    if not options["ledger"]:
        yield None
        return
    with open_output(options["ledger"], options["force"], sources) as file:
        yield teller(file)


def libraries_path(options: dict[str, Any]) -> str:
    """Where the sources of function libraries are to go, empty where they were not asked for."""
    return options["on_function"][1] if options["on_function"] else ""


def teller(ledger: BinaryIO | None) -> Callable[[Loss], object] | None:
    """Writes each loss to a file as a line of JSON, where there is one."""
    if ledger is None:
        return None
    return lambda loss: ledger.write(json.dumps(loss.to_dict(), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")


class _Unwritten(Exception):
    """Nothing was written, so that there is to be no file."""


@contextmanager
def libraries_file(path: str, sources: Sequence[str], force: bool = False) -> Iterator[Callable[[list[bytes], int], None]]:
    """What writes sources of libraries to a file, one behind the other; it appears only if this was called.

    What it takes is their code, and how many of them the snapshot that is written has as well.

    Args:
        path: of the file, which is opened now, so that what stands against it is told before any work; empty for none.
        sources: the files that the libraries come from.
        force: replace a file that exists.
    """
    if not path:
        yield lambda code, kept: None
        return
    with suppress(_Unwritten), open_output(path, force, sources) as out:
        was_called = False

        def write(code: list[bytes], kept: int) -> None:
            nonlocal was_called
            was_called = True
            if not code:
                click.echo(f"rdbkit: {printable(path)} is empty: there are no function libraries", err=True)
            elif kept:
                which = "and so has what was written" if kept == len(code) else f"of which what was written has {kept:,}"
                click.echo(f"rdbkit: {printable(path)} has {libraries(len(code))}, {which}", err=True)
            for source in code:  # each begins with its #! line
                out.write(source if source.endswith(b"\n") else source + b"\n")

        yield write
        if not was_called:
            raise _Unwritten


def tell_losses(
    ledger: Ledger,
    failed: LossError | None,
    to_stdout: bool,
    remedies: Mapping[str, str] | None = None,
    *,
    undone: str = "nothing was written",
    has_all: str = "--ledger FILE has all",
) -> None:
    """Losses and notes, on standard error.

    Args:
        remedies: by kind, what to say where other options help than those of `convert`.
        failed: raised since not all of the losses are allowed.
        to_stdout: the file went there, so that what was written of it before is not undone.
        undone: what has not been done since not all losses are allowed.
        has_all: where those are that are not told here.
    """
    lost = "would be lost" if failed else "lost"
    counts = ledger.forbidden if failed else ledger.counts
    losses = [loss for loss in ledger.losses if loss.kind in counts]
    for loss in losses[:MOST_SHOWN]:
        click.echo(f"rdbkit: {lost}: {_described(loss)}", err=True)
    more = sum(ledger.keys[kind] for kind in counts) - min(len(losses), MOST_SHOWN)
    if more > 0:
        click.echo(f"rdbkit: and {more} more; {has_all}", err=True)
    if counts:
        click.echo(f"rdbkit: {lost} in all: {_counts(counts)}", err=True)
    if ledger.notes:
        click.echo(f"rdbkit: noted, no loss of data: {_counts(ledger.notes)}", err=True)
    if failed is not None:
        written_so_far = "what was written has no end mark" if to_stdout else undone
        click.echo(f"rdbkit: {written_so_far}. To write it all the same:", err=True)
        for kind in ledger.forbidden:
            click.echo(f"  {kind}: {(_REMEDIES | dict(remedies or {})).get(kind, _ANY_LOSS)}", err=True)


def _described(loss: Loss) -> str:
    where = f" in db {loss.db}, key {printable(loss.key, 80)}" if loss.key is not None else ""
    times = f" ({loss.count})" if loss.count > 1 else ""
    return f"{loss.kind}{where}: {printable(loss.what, 200)}{times}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{kind} {n}" for kind, n in counts.items())

"""Options for data that a target does not support, and how losses are shown."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, Protocol, TypeVar

import click

from rdbkit.cli.files import OutputPath, WithArgument
from rdbkit.cli.render import libraries, printable
from rdbkit.cli.status import strict_option
from rdbkit.errors import LossError
from rdbkit.operations.commands import load_script
from rdbkit.policy.ledger import Ledger, Loss
from rdbkit.policy.losses import Policy, policies, remedy_of
from rdbkit.policy.rules import Policies
from rdbkit.storage.output import open_output
from rdbkit.targets.target import Target
from rdbkit.text import count, valid_text

C = TypeVar("C", bound=Callable[..., Any])

MOST_SHOWN: Final = 20

#: What `extract=FILE` writes, by policy, as `OutputPath` has it.
_EXTRACTED: Final = {"function": "lua", "lua_script": "resp"}


def _option(policy: Policy) -> Callable[[C], C]:
    more: dict[str, Any] = {"default": policy.default, "show_default": True} if policy.default else {}
    if not policy.argument:
        return click.option(policy.option, type=click.Choice(policy.choices), help=policy.help, **more)
    takes = policy.argument.split("=")[0]
    words = [choice for choice in policy.choices if choice != takes]
    kind = WithArgument(*words, takes=takes, output=_EXTRACTED.get(policy.name, ""))
    return click.option(policy.option, type=kind, metavar="|".join(policy.shown), help=policy.help, **more)


def policy_options(command: C) -> C:
    """Give a click command the options of policies, of which `read_policies` makes `Policies`, and `--strict`."""
    command = strict_option(command)
    for policy in reversed(policies().values()):
        command = _option(policy)(command)
    return command


def ledger_option(command: C) -> C:
    """Give a click command `--ledger`, whose file `ledger_file` writes."""
    return click.option(
        "--ledger", type=OutputPath("jsonl"), metavar="FILE", help="Write every loss and note to FILE, as JSON lines."
    )(command)


def read_policies(options: dict[str, Any]) -> Policies:
    """Raises: ValueError for what excludes each other."""
    function, script, unowned = options["on_function"], options["on_lua_script"], options["on_pending_unowned"]
    return Policies(
        loss=options["on_loss"],
        field_ttl=options["on_field_ttl"],
        function=function and function[0],
        lua_script=script and script[0],
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
    with ledger_of_files(options["ledger"], options["force"], sources) as write:
        yield None if write is None else partial(write, "")


@contextmanager
def ledger_of_files(ledger: str | None, force: bool, sources: Sequence[str]) -> Iterator[Callable[[str, Loss], object] | None]:
    """The same of several files: it takes the name of the one that a loss is of, and then the loss."""
    if not ledger:
        yield None
        return
    with open_output(ledger, force, sources) as out:

        def write(file: str, loss: Loss) -> None:
            row = loss.to_dict()
            if file:
                row = {"file": valid_text(file), **row}
            out.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")

        yield write


def extracting_options(options: dict[str, Any]) -> list[str]:
    """Which options say that something of the source is to go to a file of its own."""
    return [policies()[name].option for name in _EXTRACTED if _path_of(name, options)]


def _path_of(name: str, options: dict[str, Any]) -> str:
    """Where `extract` of a policy is to write, empty where it was not asked for."""
    given = options[f"on_{name}"]
    return given[1] if given else ""


class _Converted(Protocol):
    """What is told of a conversion."""

    functions: list[bytes]
    scripts: list[bytes]
    ledger: Any


@contextmanager
def extracted_files(options: dict[str, Any], sources: Sequence[str], force: bool = False) -> Iterator[Callable[[_Converted], None]]:
    """What writes the function libraries and scripts of a report to the files that were asked for.

    They are opened now, so that what prevents it is reported before any work, and appear only if it is called.

    Args:
        sources: the files that these come from.
        force: replace files that exist.
    """
    with (
        _extracted_file(_path_of("function", options), libraries, sources, force) as write_libraries,
        _extracted_file(_path_of("lua_script", options), lambda n: count(n, "script"), sources, force) as write_scripts,
    ):

        def write(report: _Converted) -> None:
            notes = report.ledger.notes
            # each begins with its #! line
            code = [source if source.endswith(b"\n") else source + b"\n" for source in report.functions]
            write_libraries(code, notes.get("function-kept", 0))
            write_scripts([b"".join(load_script(body)) for body in report.scripts], notes.get("script-kept", 0))

        yield write


class _Unwritten(Exception):
    """Nothing was written, so that there is to be no file."""


@contextmanager
def _extracted_file(
    path: str, counted: Callable[[int], str], sources: Sequence[str], force: bool
) -> Iterator[Callable[[list[bytes], int], None]]:
    """What writes parts to a file, one behind the other; it takes them, and how many the snapshot that is written has as well.

    Args:
        path: of the file; empty for none.
        counted: so many parts, in words.
    """
    if not path:
        yield lambda parts, kept: None
        return
    with suppress(_Unwritten), open_output(path, force, sources) as out:
        was_called = False

        def write(parts: list[bytes], kept: int) -> None:
            nonlocal was_called
            was_called = True
            if not parts:
                click.echo(f"rdbkit: {printable(path)} is empty: there are no {counted(0).removeprefix('0 ')}", err=True)
            elif kept:
                which = "and so has what was written" if kept == len(parts) else f"of which what was written has {kept:,}"
                click.echo(f"rdbkit: {printable(path)} has {counted(len(parts))}, {which}", err=True)
            out.writelines(parts)

        yield write
        if not was_called:
            raise _Unwritten


def report_losses(
    ledger: Ledger,
    failed: LossError | None,
    to_stdout: bool,
    remedies: Mapping[str, str] | None = None,
    *,
    target: Target | None = None,
    undone: str = "nothing was written",
    has_all: str = "--ledger FILE has all",
    lost: str = "lost",
) -> None:
    """Losses and notes, on standard error.

    Args:
        remedies: by kind, what to say where other options help than those of `convert`.
        target: that does not support what would be lost.
        failed: raised since not all of the losses are allowed.
        to_stdout: the file went there, so that what was written of it before is not undone.
        undone: what has not been done since not all losses are allowed.
        has_all: where those are that are not told here.
        lost: how that is said which is allowed.
    """
    lost = "would be lost" if failed else lost
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
            click.echo(f"  {kind}: {(remedies or {}).get(kind) or remedy_of(kind, target)}", err=True)


def _described(loss: Loss) -> str:
    where = f" in db {loss.db}, key {printable(loss.key, 80)}" if loss.key is not None else ""
    times = f" ({loss.count})" if loss.count > 1 else ""
    return f"{loss.kind}{where}: {printable(loss.what, 200)}{times}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{kind} {n}" for kind, n in counts.items())

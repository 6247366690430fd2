"""Words and tables for people: rich on a terminal, plain aligned text in a pipe."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final, Protocol

import click

from rdbkit.errors import ChecksumError, LossError, RdbError, TruncatedError, UnsupportedTypeError
from rdbkit.model import TRAILERS
from rdbkit.policy.script import ScriptError
from rdbkit.text import printable, size, when

if TYPE_CHECKING:
    from rdbkit.operations.diff_delta import FunctionDifference
    from rdbkit.snapshot.reader import Snapshot

__all__ = ["Output", "complain", "output", "printable", "progress", "size", "usage_errors", "warn", "when"]


#: Bytes of temporary files from which on they are worth a word.
WORTH_SHOWING: Final = 1 << 20
_MOST_FUNCTIONS: Final = 20
#: The names of rows of facts with a command of the shell, made by `shell_word`, which is not cut at the width of a terminal.
RUN_FIRST: Final = "run first"
RUN_INSTEAD: Final = "run instead"
RUN_NEXT: Final = "run next"
_MOST_WARNINGS: Final = 20
#: A number, and maybe its unit or noun.
_NUMBER: Final = re.compile(r"-?[0-9][0-9,]*(\.[0-9]+)?( ?[A-Za-z%]+)?")


class Output(Protocol):
    """Where a report goes."""

    def heading(self, text: str) -> None: ...
    def line(self, text: str) -> None: ...
    def facts(self, rows: Sequence[tuple[str, str]]) -> None: ...
    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None: ...


def _numeric(cell: str) -> bool:
    return cell == "" or _NUMBER.fullmatch(cell) is not None


class Plain:
    """Aligned text, the same wherever it is read."""

    def heading(self, text: str) -> None:
        click.echo(text)

    def line(self, text: str) -> None:
        click.echo(text)

    def facts(self, rows: Sequence[tuple[str, str]]) -> None:
        width = max((len(name) for name, _ in rows), default=0)
        for name, value in rows:
            click.echo(f"  {name:<{width}}  {value}")

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        click.echo(f"\n{title}")
        columns = list(zip(head, *rows, strict=True))
        widths = [max(len(cell) for cell in column) for column in columns]
        right = [all(_numeric(cell) for cell in column[1:]) for column in columns]
        for row in [head, *rows]:
            cells = [c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)]
            click.echo(("  " + "  ".join(cells)).rstrip())


class Rich:
    """Tables and colours of a terminal."""

    def __init__(self) -> None:
        from rich.console import Console

        self.console = Console(highlight=False)

    def heading(self, text: str) -> None:
        self.console.print(text, style="bold", markup=False)

    def line(self, text: str) -> None:
        self.console.print(text, markup=False)

    def facts(self, rows: Sequence[tuple[str, str]]) -> None:
        from rich.table import Table
        from rich.text import Text

        width = max((len(name) for name, _ in rows), default=0)
        for is_command, group in groupby(rows, lambda row: row[0] in (RUN_FIRST, RUN_INSTEAD, RUN_NEXT)):
            grid = Table.grid(padding=(0, 2, 0, 0))
            grid.add_column(style="dim", no_wrap=True)
            grid.add_column(overflow="fold")
            for name, value in group:
                name = f"  {name:<{width}}"
                if is_command:
                    self.console.print(Text.assemble((name, "dim"), "  ", value), soft_wrap=True)
                else:
                    grid.add_row(name, Text(value))
            self.console.print(grid)

    def table(self, title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        from rich.box import SIMPLE_HEAD
        from rich.padding import Padding
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        for i, name in enumerate(head):
            right = all(_numeric(row[i]) for row in rows)
            table.add_column(name, justify="right" if right else "left", no_wrap=right, overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self.console.print(f"\n{title}", style="bold", markup=False)
        self.console.print(Padding(table, (0, 0, 0, 2), expand=False))


def output() -> Output:
    """Rich where standard output is a terminal."""
    return Rich() if sys.stdout.isatty() else Plain()


def key_name(key: bytes, most: int = 60) -> str:
    """A key for a sentence: the empty one can be seen.

    >>> key_name(b"user:1"), key_name(b"")
    ('user:1', "''")
    """
    return printable(key, most) or "''"


def libraries(n: int) -> str:
    """A number of function libraries."""
    return f"{n:,} function {'library' if n == 1 else 'libraries'}"


def show_functions(out: Output, differences: Sequence[FunctionDifference], words: Mapping[str, str]) -> None:
    """Name the function libraries that differ; `words` says what each kind of difference is called."""
    if not differences:
        return
    out.line("\nfunction libraries")
    out.facts([(words[each.what], printable(each.name, 60)) for each in differences[:_MOST_FUNCTIONS]])
    if len(differences) > _MOST_FUNCTIONS:
        out.line(f"  ... and {len(differences) - _MOST_FUNCTIONS:,} more")


@contextmanager
def progress(name: str, total: int | None, keys: bool = False) -> Iterator[Any]:
    """A bar on standard error for work of over a second, where that is a terminal; yields a function of bytes (or `keys`) done."""
    if not sys.stderr.isatty():
        yield None
        return
    import time

    begin = time.monotonic()
    bar: Any = None

    def update(done: int) -> None:
        nonlocal bar
        if bar is None:
            if time.monotonic() - begin < 1:
                return
            from rich.console import Console
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                FileSizeColumn,
                MofNCompleteColumn,
                Progress,
                TimeElapsedColumn,
                TimeRemainingColumn,
                TransferSpeedColumn,
            )

            columns: tuple[Any, ...]
            if keys:
                columns = ("{task.completed:,.0f} keys",) if total is None else (MofNCompleteColumn(),)
            else:
                columns = (FileSizeColumn() if total is None else DownloadColumn(), TransferSpeedColumn())
            columns += (TimeElapsedColumn() if total is None else TimeRemainingColumn(),)
            bar = Progress("{task.description}", BarColumn(), *columns, console=Console(stderr=True), transient=True)
            bar.start()
            bar.add_task(printable(name, 30).replace("[", "\\["), total=total)
        bar.update(0, completed=done)

    try:
        yield update
    finally:
        if bar is not None:
            bar.stop()


@contextmanager
def usage_errors() -> Iterator[None]:
    """Let what the library says of its arguments, a ValueError, be a wrong usage of the command."""
    try:
        yield
    except ScriptError as e:
        raise click.ClickException(printable(str(e))) from None
    except ValueError as e:
        raise click.UsageError(printable(str(e))) from None


def complain(e: RdbError) -> None:
    """The one line on standard error that a bad input file gets."""
    click.echo(f"rdbkit: {printable(str(e))}{_remedy(e)}", err=True)


def warn(snapshot: Snapshot) -> None:
    """A line on standard error for each fault of a value that was passed over, and for what follows and was not read."""
    trailer = snapshot.trailer
    if trailer is not None and trailer.kind in ("aof", "replication", "snapshot"):
        click.echo(
            f"rdbkit: warning: {printable(snapshot.name)}: behind the snapshot, and not read: {TRAILERS[trailer.kind]}", err=True
        )
    warnings = snapshot.warnings
    for e in warnings[:_MOST_WARNINGS]:
        click.echo(f"rdbkit: warning: {printable(str(e))}", err=True)
    if len(warnings) > _MOST_WARNINGS:
        click.echo(f"rdbkit: warning: {len(warnings) - _MOST_WARNINGS:,} more such faults", err=True)


def _remedy(e: RdbError) -> str:
    """What to do about an error, where there is something."""
    match e:
        case TruncatedError():
            return "; fetch the file again, whole"
        case ChecksumError():
            return "; fetch the file again, or look at it all the same with --no-checksum"
        case LossError():
            return "; --on-loss drop leaves out what would be lost, and lists it"
        case UnsupportedTypeError():
            return f"; {e.remedy}"
        case _:
            return ""

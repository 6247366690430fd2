"""The options of verbs that write a file, and what goes wrong with them."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from typing import Any, BinaryIO, Final, TypeVar

import click

from rdbkit.cli.render import printable
from rdbkit.cli.streams import sending_data
from rdbkit.snapshot.output import open_output

C = TypeVar("C", bound=Callable[..., Any])

_STDOUT = "-"  # and standard input
#: What a disk says that has no room.
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class _ReadTwice(click.Path):
    """A file that is read several times, so that a pipe will not do. What cannot be opened is told before any work."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        name = os.fsdecode(super().convert(value, param, ctx))
        if name == _STDOUT or (os.path.exists(name) and not os.path.isfile(name) and not os.path.isdir(name)):
            shown = "standard input" if name == _STDOUT else printable(name)
            raise click.UsageError(f"{shown}: it is read several times, and has to be a file", ctx)
        with open(name, "rb"):
            return name


#: A file, or "-" for standard input. What cannot be opened is told by who opens it, as other failures of files are.
READ_ONCE: Final = click.Path(allow_dash=True, readable=False)
READ_TWICE: Final = _ReadTwice(allow_dash=True, readable=False)


def output_options(command: C) -> C:
    """Give a click command `-o/--output` and `--force`; it takes them as `output: str` ("-" for none) and `force: bool`."""
    command = click.option("--force", is_flag=True, help="Replace a file that exists.")(command)
    return click.option(
        "-o",
        "--output",
        default=_STDOUT,
        type=click.Path(dir_okay=False, allow_dash=True),
        help="Write to this file, which appears when it is whole; .gz compresses.",
    )(command)


@contextmanager
def writing(
    output: str, source: str, force: bool, sources: Sequence[str] | None = None, styled: bool = False
) -> Iterator[BinaryIO]:
    """`open_output` for a command.

    Args:
        output: of `output_options`.
        source: the file that is read, which must not be written to.
        sources: all that are read, where they are several.
        styled: what is written to a terminal has escape sequences of our own.

    Raises: click.UsageError where the file exists, or is the one being read.
    """
    with written(output, source, styled), open_output(output, force, sources or [source]) as out:
        yield out


@contextmanager
def written(output: str, source: str, styled: bool = False) -> Iterator[None]:
    """The errors of writing a file, in the words of the command line.

    Args, raises: as `writing`.
    """
    try:
        if output != _STDOUT and source != _STDOUT and os.path.exists(output) and os.path.samefile(output, source):
            raise click.UsageError(f"{printable(output)} is the file to be read")
        with sending_data(styled) if output == _STDOUT else nullcontext():
            yield
    except FileExistsError as e:
        raise click.UsageError(f"{printable(os.fsdecode(e.filename))} exists; --force replaces it") from None
    except BrokenPipeError:
        # Whoever read has had enough, which is no failure; to click, which would see it next, it is one.
        raise click.exceptions.Exit(0) from None
    except OSError as e:
        if e.filename is None and os.path.isdir(output):  # what is written into a folder does not have names of its own
            e.filename = output
        _name_temporaries(e)
        raise


@contextmanager
def temporaries() -> Iterator[None]:
    """The errors of temporary files, where nothing else is written; `written` has them, too."""
    try:
        yield
    except OSError as e:
        _name_temporaries(e)
        raise


def _name_temporaries(e: OSError) -> None:
    """Of a full disk: `open_output` names its file, so that an error without a name is of temporary ones."""
    if e.filename is None and e.errno in _FULL:
        e.filename = tempfile.gettempdir()
        e.strerror = f"{e.strerror}; the variable TMPDIR names another place for temporary files"


def format_for(output: str, default: str, formats: Sequence[str]) -> str:
    """The format that goes with where rows go: what the file's name ends in, `csv` where that is none, `default` for a stream.

    Args:
        formats: all that there are, the first of which no file's name ends in.
    """
    if output == _STDOUT:
        return default
    ending = output.removesuffix(".gz").rpartition(".")[2]
    return ending if ending in formats[1:] else "csv"


def refuse_terminal(output: str) -> None:
    """Raise click.UsageError where a snapshot or commands, which are binary, would go to a terminal."""
    if output == _STDOUT and sys.stdout.isatty():
        raise click.UsageError("it is binary, and standard output is a terminal: name a file, or send it through a pipe")


def check_parquet(output: str) -> None:
    """Raise click.UsageError where Parquet cannot be written, or not to `output`."""
    if output == _STDOUT:
        raise click.UsageError("parquet is no text: name a file with -o")
    if output.endswith(".gz"):
        raise click.UsageError("parquet is compressed in itself: leave out the .gz")
    if find_spec("pyarrow") is None:
        raise click.UsageError("parquet needs pyarrow: pip install 'rdbkit[parquet]'")

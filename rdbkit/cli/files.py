"""The files of a command line: which are read and which are written, that these are not those, and what goes wrong with them."""

from __future__ import annotations

import errno
import functools
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, BinaryIO, Final, TypeVar

import click

from rdbkit.cli.append_only import allows_base, check_readable, files_of, folded, is_append_only, warn_of_base
from rdbkit.cli.download import downloaded
from rdbkit.cli.headings import grouped
from rdbkit.cli.render import printable
from rdbkit.cli.scrubbing import secrets_kept
from rdbkit.cli.server_files import name_of_server, taken
from rdbkit.cli.streams import sending_data
from rdbkit.storage.location import exists, file_id, is_file, is_folder, real_path
from rdbkit.storage.manifest import find_manifest
from rdbkit.storage.output import open_output
from rdbkit.storage.remote import is_remote, is_server_url, name_of

C = TypeVar("C", bound=Callable[..., Any])
if TYPE_CHECKING:
    _ParamType = click.ParamType[Any]  # which older versions of click do not know to be generic
else:
    _ParamType = click.ParamType

_STDOUT = "-"  # and standard input
_URLS: Final = "rdbkit.urls"
_URLS_READ: Final = "https://, s3://, gs://, az://, abfs://, redis://, rediss://"
#: What a disk says that has no room.
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


#: What the end of a file's name says of its format.
_SUFFIXES: Final = {
    "aof": "resp", "arrow": "arrow", "avro": "avro", "bicep": "bicep", "csv": "csv", "feather": "feather", "htm": "html",
    "html": "html", "json": "json", "jsonl": "jsonl", "lua": "lua", "ndjson": "jsonl", "ods": "ods", "orc": "orc",
    "parquet": "parquet", "pdf": "pdf", "pq": "parquet", "rdb": "rdb", "resp": "resp", "sqlite": "sqlite", "tf": "terraform",
    "tsv": "tsv", "xls": "xls", "xlsx": "xlsx", "xml": "xml", "yaml": "yaml", "yml": "yaml",
}  # fmt: skip
#: Ends of names that say how a file is compressed, in ways that rdbkit has not.
_PACKED: Final = frozenset({"7z", "br", "bz2", "lz4", "rar", "tar", "tgz", "xz", "z", "zip", "zst"})


class InputPath(click.Path):
    """A file that is read."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if is_remote(value):
            self.fail("it is a URL, where a file on this machine is wanted", param, ctx)
        return super().convert(value, param, ctx)


class AppendOnlyPath(InputPath):
    """An append-only file, of which a folder has several files."""


class InputPathOrUrl(InputPath):
    """A file that is read, on this machine or by its URL; of that, the command has what is before the query."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not is_remote(value):
            if isinstance(value, str) and "://" in value and not exists(value):  # which nobody shows: it may have a signature
                self.fail(
                    "no such file, and not a URL that is read (https://, s3://, gs://, az://, abfs://, redis://, rediss://)",
                    param,
                    ctx,
                )
            return super().convert(value, param, ctx)
        try:
            return name_of(value)
        except ValueError as e:
            self.fail(str(e), param, ctx)


class SnapshotPath(InputPathOrUrl):
    """A snapshot that is read. An append-only file is folded to one for the command, and of a server one is taken."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not is_server_url(value):
            return super().convert(value, param, ctx)
        try:
            return name_of_server(value, ctx)
        except ValueError as e:
            self.fail(str(e), param, ctx)


class KeptPath(InputPathOrUrl):
    """A snapshot that a command comes back to when it is run again, so that of anything else one has to be made before."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if is_server_url(value):
            self.fail("it is a server: write its data to a file first, with rdbkit snapshot", param, ctx)
        return super().convert(value, param, ctx)


class OutputPath(click.Path):
    """A file that is written.

    Args:
        format_: what is written to it, as `_SUFFIXES` calls it; the name must not say otherwise. None where that is not known yet.
        gzip: the name may end in .gz.
        allow_dash: "-" is standard output.
    """

    def __init__(self, format_: str | None = None, *, gzip: bool = True, allow_dash: bool = False) -> None:
        super().__init__(dir_okay=False, allow_dash=allow_dash)
        self.format = format_
        self.gzip = gzip

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        _refuse_url(self, value, param, ctx)
        name = os.fsdecode(super().convert(value, param, ctx))
        if not name or (name == _STDOUT and not self.allow_dash):
            self.fail("it takes the name of a file", param, ctx)
        if self.format is not None and name != _STDOUT:
            try:
                found = named_format(name)
            except ValueError as e:
                self.fail(str(e), param, ctx)
            if found not in (None, self.format):
                self.fail(f"the name {printable(name)} says {found}, and {self.format} is written", param, ctx)
        if not self.gzip and name.endswith(".gz"):
            self.fail(f"{printable(name)} is read again as it is: leave out the .gz", param, ctx)
        return name


class OutputFolder(click.Path):
    """A folder that files are written to.

    Args:
        files: names of some of them; whoever writes the others sees to it that they are none of those that are read.
    """

    def __init__(self, *files: str) -> None:
        super().__init__(file_okay=False)
        self.files = files

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        _refuse_url(self, value, param, ctx)
        return super().convert(value, param, ctx)


def _refuse_url(path: click.Path, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> None:
    """Raise click.BadParameter for an output that is a URL."""
    if is_remote(value):
        path.fail("it is a URL, where a file on this machine is written; rdbkit upload sends one", param, ctx)


class WithArgument(_ParamType):
    """A choice of words, of which one, `takes`, has an argument behind an equals sign: a pair of the word and its argument.

    Args:
        output: what is written to the file that the argument names, as `OutputPath` has it; empty where it names none.
    """

    name = "choice"

    def __init__(self, *words: str, takes: str, output: str = "") -> None:
        self.words = words
        self.takes = takes
        self.output = output

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        if value in self.words:
            return value, ""
        word, sign, argument = str(value).partition("=")
        if word != self.takes or not sign or not argument:
            choices = ", ".join([*self.words, f"{self.takes}=..."])
            self.fail(f"{value!r} is none of {choices}", param, ctx)
        if self.output:
            argument = OutputPath(self.output).convert(argument, param, ctx)
        return word, argument


class Verb(click.Command):
    """A command none of whose outputs is a file that it reads, or another output, whatever the names are.

    No message has the query of a URL that stands where another argument belongs. Its help lists options under headings.
    """

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for heading, params in grouped(self.get_params(ctx)):
            records = [record for param in params if (record := param.get_help_record(ctx)) is not None]
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_URLS] = [each for each in args if "://" in each or "sig=" in each]
        with secrets_kept(ctx.meta[_URLS]):
            return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        with secrets_kept(ctx.meta[_URLS]):
            return self._invoke(ctx)

    def _invoke(self, ctx: click.Context) -> Any:
        inputs: list[tuple[str, str]] = []
        snapshots: list[str] = []
        outputs: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            value = ctx.params.get(param.name or "")
            if value is None:
                continue
            if isinstance(param.type, InputPath):
                files = [os.fsdecode(each) for each in (value if param.nargs != 1 else (value,))]
                if isinstance(param.type, SnapshotPath):
                    snapshots += files
                if isinstance(param.type, SnapshotPath | AppendOnlyPath):
                    files = [part for each in files for part in files_of(each)]
                elif isinstance(param.type, KeptPath):
                    _refuse_append_only(files)
                inputs += [(_shown(param), each) for each in files]
            elif isinstance(param.type, OutputPath):
                outputs.append((_shown(param), value))
            elif isinstance(param.type, OutputFolder):
                outputs += [(f"{name} in {_shown(param)}", os.path.join(value, name)) for name in param.type.files]
            elif isinstance(param.type, WithArgument) and param.type.output and value[1]:
                outputs.append((f"{_shown(param)} {value[0]}", value[1]))
        _check_outputs(inputs, outputs)
        with taken(snapshots), downloaded(snapshots), folded(snapshots):
            return super().invoke(ctx)


def _refuse_append_only(files: Sequence[str]) -> None:
    """Raise UsageError for an append-only file: a snapshot made for one run would be gone when the next one comes back to it."""
    for file in files:
        check_readable(file)
        if is_append_only(file):
            raise click.UsageError(f"{printable(file)} is an append-only file: make a snapshot of it first, with rdbkit fold")
        if not allows_base():
            warn_of_base(file)


def _shown(param: click.Parameter) -> str:
    """What a parameter is called: `FILE` or `--ledger`."""
    if isinstance(param, click.Argument):
        return (param.metavar or param.name or "").strip("[]").split()[0].removesuffix("...")
    return max(param.opts, key=len)


def _check_outputs(inputs: Sequence[tuple[str, str]], outputs: Sequence[tuple[str, str]]) -> None:
    """Raise UsageError where an output is an input or another output, also by way of links.

    Args:
        inputs, outputs: what each is called, and the name of the file.
    """
    seen: dict[object, str] = {}
    for what, file in (*inputs, *outputs):
        is_output = (what, file) in outputs
        if file == _STDOUT:
            identity: object = _STDOUT if is_output else None
            same = "both go to standard output"
        else:
            identity = _identity(file)
            same = f"are the same file, {printable(file)}"
        if identity is None:
            continue
        if is_output and identity in seen:
            raise click.UsageError(f"{what} and {seen[identity]} {same}")
        seen.setdefault(identity, what)


def _identity(file: str) -> object:
    """What is the same for all names of a file; None for what has nothing to lose, such as /dev/null."""
    if is_file(file):
        return file_id(file)  # a hard link has another path
    return None if exists(file) else real_path(file)


class _ReadTwice(SnapshotPath):
    """A file that is read several times, so that a pipe will not do. What cannot be opened is reported before any work."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        name = os.fsdecode(super().convert(value, param, ctx))
        if is_server_url(name):
            return name
        if name == _STDOUT or (exists(name) and not is_file(name) and not is_folder(name)):
            shown = "standard input" if name == _STDOUT else printable(name)
            raise click.UsageError(f"{shown}: it is read several times, and has to be a file", ctx)
        if find_manifest(name) is None and not is_remote(name):
            with open(name, "rb"):
                pass
        return name


#: A file, or "-" for standard input. What cannot be opened is reported by who opens it, as other failures of files are.
READ_ONCE: Final = SnapshotPath(allow_dash=True, readable=False)
READ_TWICE: Final = _ReadTwice(allow_dash=True, readable=False)
#: A file that is there, and no standard input.
EXISTING: Final = InputPath(exists=True, dir_okay=False)
#: A snapshot that is there, and no standard input.
EXISTING_SNAPSHOT: Final = SnapshotPath(exists=True)

_OUTPUT_HELP: Final = "Write to this file, which appears when it is whole; .gz compresses."


def force_option(command: C) -> C:
    """Give a click command `--force`."""
    return click.option("--force", is_flag=True, help="Replace a file that exists.")(command)


def output_options(command: C) -> C:
    """Give a click command `-o/--output` and `--force`; it takes them as `output: str` ("-" for none) and `force: bool`."""
    path = OutputPath(allow_dash=True)
    return click.option("-o", "--output", default=_STDOUT, type=path, metavar="OUT", help=_OUTPUT_HELP)(force_option(command))


def snapshot_option(command: C) -> C:
    """Give a click command a snapshot to write, which is named by `-o/--output` alone, as `out: str`, and `--force`."""

    def named(ctx: click.Context, param: click.Parameter, value: str | None) -> str:
        if value is None and not ctx.resilient_parsing:
            raise click.UsageError("name the file to write: -o OUT", ctx)
        return value or ""

    return click.option(
        "-o", "--output", "out", type=OutputPath("rdb", allow_dash=True), callback=named, is_eager=True, metavar="OUT",
        help="The file to write, which appears when it is whole, or - for standard output; .gz compresses.  [required]",
    )(force_option(command))  # fmt: skip


def snapshot_options(command: Callable[..., int]) -> Callable[..., int]:
    """Give a click command a snapshot to write, named by its last argument or by `-o/--output`, as `out: str`, and `--force`."""

    @functools.wraps(command)
    def with_out(*args: Any, argument: str | None, out: str | None, **given: Any) -> int:
        if argument is not None and out is not None:
            raise click.UsageError("OUT is given twice: as an argument, and with -o")
        name = argument if out is None else out
        if name is None:
            raise click.UsageError("name the file to write: OUT, or -o OUT")
        return command(*args, out=name, **given)

    path = OutputPath("rdb", allow_dash=True)
    decorated = click.option("-o", "--output", "out", type=path, metavar="OUT", help="The same as the argument OUT.")(
        force_option(with_out)
    )
    return click.argument("argument", metavar="[OUT]", required=False, type=path)(decorated)


@contextmanager
def writing(output: str, sources: Sequence[str], force: bool, styled: bool = False) -> Iterator[BinaryIO]:
    """`open_output` for a command.

    Args:
        output: of `output_options`.
        sources: all files that are read, which the file is no more readable than.
        styled: what is written to a terminal has escape sequences of our own.

    Raises: click.UsageError where the file exists.
    """
    with written(output, styled), open_output(output, force, sources) as out:
        yield out


@contextmanager
def written(output: str, styled: bool = False) -> Iterator[None]:
    """The errors of writing a file, in the words of the command line.

    Args, raises: as `writing`.
    """
    try:
        with sending_data(styled) if output == _STDOUT else nullcontext():
            yield
    except FileExistsError as e:
        raise click.UsageError(f"{printable(os.fsdecode(e.filename))} exists; --force replaces it") from None
    except BrokenPipeError:
        # Whoever read has had enough, which is no failure; to click, which would see it next, it is one.
        raise click.exceptions.Exit(0) from None
    except OSError as e:
        if e.filename is None and is_folder(output):  # what is written into a folder does not have names of its own
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


def named_format(name: str) -> str | None:
    """What the end of a file's name says of its format, apart from .gz; None where that says nothing.

    Raises: ValueError where it says that the file is compressed in a way that rdbkit has not.

    >>> named_format("keys.CSV.gz"), named_format("rows.ndjson"), named_format("keys.2026"), named_format("keys")
    ('csv', 'jsonl', None, None)
    """
    ending = os.path.splitext(os.path.basename(name).removesuffix(".gz"))[1].removeprefix(".").lower()
    if ending in _PACKED:
        raise ValueError(f"the name {printable(name)} ends in .{ending}, and .gz is all that rdbkit compresses to")
    return _SUFFIXES.get(ending)


def format_for(output: str, given: str | None, formats: Sequence[str], stream: str) -> str:
    """The format to write: what `--format` says, else the file's name, else the first one, or `stream` to standard output.

    Args:
        output: of `output_options`.
        given: of `--format`; None where it was not given.
        formats: all that there are.

    Raises: click.UsageError where the name says something else.
    """
    if output == _STDOUT:
        return given or stream
    try:
        found = named_format(output)
    except ValueError as e:
        raise click.UsageError(str(e)) from None
    if found is None or found == given:
        return given or formats[0]
    if given is not None:
        raise click.UsageError(f"the name {printable(output)} says {found}, and --format {given}")
    if found not in formats:
        raise click.UsageError(f"the name {printable(output)} says {found}, which is none of {', '.join(formats)}")
    return found


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

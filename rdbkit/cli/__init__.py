"""The command line: parses arguments, calls the library, renders what comes back.

Exit codes: 0 done, without what options allow to be lost (see `status`); 1 findings that nobody has allowed, with --strict any
loss; 2 wrong usage; 3 bad input file; 4 the remote side failed; 130 interrupted; 129 and 143 ended by SIGHUP and SIGTERM, which
leave as little behind as an interrupt does.
"""

from __future__ import annotations

import gc
import importlib
import keyword
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final, NoReturn

import click

from rdbkit.cli.streams import standard_streams
from rdbkit.errors import LossError, RdbError, TargetError

# verb -> module of this package, with _ for -, imported when the verb is called or its help is asked for
_VERBS: Final = {
    "check": "Whether a target imports snapshots, and what would be lost.",
    "info": "What is in snapshots, and who loads them as they are.",
    "memory": "What keys will take in a server's memory.",
    "plan": "The size to buy for snapshots, and every step to bring them there.",
    "targets": "What servers and services load, and who says so.",
    "convert": "Write a snapshot that an older or another server loads.",
    "fold": "An append-only file as a snapshot, by a server that loads it.",
    "split": "The keys of snapshots in several files, each of them whole.",
    "merge": "Several snapshots in one valid file.",
    "diff": "Whether two snapshots have the same data, and what turns one into the other.",
    "verify": "Whether snapshots are sound, as far as the file can tell.",
    "salvage": "What is sound of a damaged snapshot, as one that loads.",
    "redact": "The same structure with names and values scrambled, to be shown to others.",
    "upload": "Bring files into a storage account, from where Azure imports them.",
    "import": "Import blobs into a cache in Azure, which empties it first.",
    "export-cache": "Export what a cache in Azure has into a storage account.",
    "migrate": "Check, convert, upload and import snapshots, one step after the other.",
    "verify-import": "Whether a server has what was in snapshots.",
    "snapshot": "Write the data of a running server or cluster to a file.",
    "copy": "Copy keys from a running server, or from snapshots, into a running server.",
    "verify-copy": "Compare the keys, values and expiries of two running servers.",
    "sync": "Write what differs between two running servers, until nothing does.",
    "dual-status": "Which keys are on both of two caches while an application moves, and when all are.",
    "dual-switch": "One step of a move between two caches, for all processes, when it is safe.",
    "dual-proxy": "A proxy that brings what an application in any language writes to both of two caches, and switches it.",
    "build": "A snapshot from JSON lines, as export writes them.",
    "export": "Every key and value as JSON lines or as commands.",
    "get": "The value of one key.",
    "keys": "One row for each key: type, bytes in the file, elements, expiry, slot.",
}


_FOLDS_NOTHING: Final = ("migrate", "upload")
_READS_NO_FILE: Final = ("snapshot",)
_READS_NO_SNAPSHOT: Final = (
    "build",
    "copy",
    "dual-proxy",
    "dual-status",
    "dual-switch",
    "export-cache",
    "fold",
    "import",
    "sync",
    "targets",
    "verify-copy",
)
_TAKES_NO_FILE: Final = (
    "dual-proxy", "dual-status", "dual-switch", "export-cache", "import", "sync", "targets", "verify-copy",
)  # fmt: skip


def _limit_memory(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    if value is None or ctx.resilient_parsing:
        return
    from rdbkit.selection import parse_bytes
    from rdbkit.snapshot.reader import Limits, limits_in_force

    try:
        size = parse_bytes(value)
    except ValueError as e:
        raise click.BadParameter(str(e), ctx=ctx, param=param) from None
    ctx.with_resource(limits_in_force(Limits.of_memory(size)))


_MAX_MEMORY: Final = click.Option(
    ["--max-memory"],
    metavar="SIZE",
    expose_value=False,
    callback=_limit_memory,
    help="Hold at most SIZE of a FILE in memory, such as 512MB, besides blocks and single strings.  "
    "[default: 64MB; more for a large FILE]",
)


def _module(verb: str) -> str:
    name = verb.replace("-", "_")
    return f"{name}_" if keyword.iskeyword(name) else name


class _Verbs(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _VERBS:
            return None
        module = _module(cmd_name)
        command = getattr(importlib.import_module(f"rdbkit.cli.{module}"), module)
        assert isinstance(command, click.Command)
        command.short_help = _VERBS[cmd_name]
        if cmd_name not in _READS_NO_SNAPSHOT and _MAX_MEMORY not in command.params:
            from rdbkit.cli.append_only import ALLOW_BASE, SERVER
            from rdbkit.cli.download import DOWNLOAD

            command.params.append(_MAX_MEMORY)
            if cmd_name not in _READS_NO_FILE:
                command.params += [*([] if cmd_name in _FOLDS_NOTHING else [SERVER, DOWNLOAD]), ALLOW_BASE]
        if cmd_name not in _TAKES_NO_FILE:
            from rdbkit.cli.store_options import STORE_OPTIONS

            given = {param.name for param in command.params}
            command.params += [option for option in STORE_OPTIONS if option.name not in given]
        return command


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        from rdbkit.format.compiled import COMPILED

        form = "compiled" if COMPILED else "pure"
        click.echo(f"rdbkit {version('rdbkit')} ({form})")
        ctx.exit()


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--version",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_version,
    help="Show the version, and whether it is compiled or pure.",
)
def cli() -> None:
    """Look into Redis and Valkey snapshot files (RDB), take them apart, and bring them where they can go, above all into Azure."""


class Ended(KeyboardInterrupt):
    """A signal that ends the process: raised like an interrupt, so that all that is open is closed and taken away."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Inside, SIGTERM and SIGHUP are raised as `Ended`, unless whoever started this has said what becomes of them (nohup)."""
    numbers = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]  # which Windows has not
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # no other thread may set handlers of signals
    numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]

    def end(number: int, frame: FrameType | None) -> None:
        for each in numbers:  # the next one shall not end what clears up
            signal.signal(each, signal.SIG_IGN)
        raise Ended(number)

    for number in numbers:
        signal.signal(number, end)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def main(args: list[str] | None = None) -> NoReturn:
    """Run the command line; the one place where signals and broken pipes become exit codes."""
    with standard_streams(), _ended_by_signals():
        _run(args)


def _bytes_of(filename: object) -> bytes:
    return os.fsencode(filename if isinstance(filename, (str, bytes, os.PathLike)) else str(filename))


def _run(args: list[str] | None) -> NoReturn:
    # Decoding makes many short-lived objects and no cycles: looking for those at the usual rate costs some percent.
    gc.set_threshold(100_000, 50, 100)
    try:
        if any("\0" in arg for arg in args or ()):  # from a program: a shell cannot say it
            raise click.UsageError("an argument has a zero byte in it")
        code = cli.main(args=args, prog_name="rdbkit", standalone_mode=False)
        sys.stdout.flush()
    except click.ClickException as e:
        e.show()
        sys.exit(e.exit_code)
    except click.Abort as e:  # an interrupt, as click tells it
        sys.exit(128 + e.__cause__.number if isinstance(e.__cause__, Ended) else 130)
    except Ended as e:  # one that click does not see
        sys.exit(128 + e.number)
    except BrokenPipeError:
        # whoever read our output has gone: leave without a word, and without one from the interpreter's own flush
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except (RdbError, MemoryError, OSError) as e:
        sys.exit(_show_failure(e))
    sys.exit(code if isinstance(code, int) else 0)


def _show_failure(e: RdbError | MemoryError | OSError) -> int:
    """Say in a line why a command ends; its exit code."""
    from rdbkit.cli.render import complain, printable

    if isinstance(e, RdbError):
        complain(e)
        return 1 if isinstance(e, LossError) else 4 if isinstance(e, TargetError) else 3
    if isinstance(e, MemoryError):
        what = "there is not enough memory for this; a value that has to be held whole may take several times its size"
        click.echo(f"rdbkit: {what}", err=True)
        return 3
    name = f"{printable(_bytes_of(e.filename))}: " if e.filename else ""
    click.echo(f"rdbkit: {name}{printable(str(e.strerror or e))}", err=True)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 3

"""FILEs that are append-only files: each is folded to a temporary file, which the command reads under the FILE's name.

So whatever reads a snapshot takes an append-only file, too. And whoever reads the base of a folder alone is told what is missing.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import click

from rdbkit.cli.remembered import remember, remembered
from rdbkit.cli.render import printable, progress, size
from rdbkit.errors import CorruptError, RdbError
from rdbkit.storage.location import is_local, is_rereadable, revision
from rdbkit.storage.remote import is_remote
from rdbkit.storage.stand_in import standing_in
from rdbkit.text import count

_STDIN: Final = "-"
_FOLDED: Final = "folded.rdb"


SERVER: Final = click.Option(
    ["--server"], metavar="PATH", envvar="RDBKIT_SERVER", expose_value=False, callback=remember,
    help="The program that folds a FILE which is an append-only file: see rdbkit fold.",
)  # fmt: skip
ALLOW_BASE: Final = click.Option(
    ["--allow-base"], is_flag=True, expose_value=False, callback=remember,
    help="Read the snapshot alone that an append-only file begins with, without what was written after it.",
)  # fmt: skip


def allows_base() -> bool:
    """Whether `--allow-base` was given."""
    return bool(remembered("allow_base"))


@contextmanager
def folded(names: Iterable[str]) -> Iterator[None]:
    """Inside, each of these files that is an append-only file is read as a snapshot; of others that lack newer data it is said.

    Raises: RdbError, OSError as `rdbkit.fold`, for a single file; of several, whoever opens the one gets the error, since something
        may be said of the others.
    """
    each = list(dict.fromkeys(names))
    with ExitStack() as stack:
        for name in each:
            try:
                if name != _STDIN and (not allows_base() or _is_folder_or_manifest(name)):
                    stack.enter_context(_folded(name))
            except (RdbError, OSError) as e:
                if len(each) == 1:
                    raise
                stack.enter_context(standing_in(e, name))
        yield


def is_append_only(name: str) -> bool:
    """Whether it is a file that has to be folded."""
    from rdbkit.snapshot.append_only import find_append_only

    return find_append_only(name) is not None


def files_of(name: str) -> list[str]:
    """What is read of a FILE: the files of an append-only folder, or itself."""
    from rdbkit.snapshot.append_only import find_append_only

    try:
        found = find_append_only(name) if _is_folder_or_manifest(name) else None
    except (RdbError, OSError):  # who folds it will say so
        found = None
    return [name] if found is None else found.everything


def _is_folder_or_manifest(name: str) -> bool:
    from rdbkit.storage.manifest import find_manifest

    return find_manifest(name) is not None


def check_readable(name: str) -> None:
    """Raise what a store says of a URL that cannot be read, before anybody looks what is in it."""
    if is_rereadable(name) and not is_local(name):
        revision(name)


@contextmanager
def _folded(name: str) -> Iterator[None]:
    check_readable(name)
    if not is_append_only(name):
        warn_of_base(name)
        yield
        return
    if not is_local(name) and is_remote(name):
        raise CorruptError("it is an append-only file, which a server folds on this machine: add --download", source=name)
    from rdbkit.operations.fold import fold
    from rdbkit.storage.temporary import temporary_folder

    server = remembered("server")
    with temporary_folder(tempfile.gettempdir()) as folder:
        made = os.path.join(folder, _FOLDED)
        with progress(name, None) as update:
            report = fold(name, made, server=server, progress=update)
        files = f"{count(len(report.files), 'file')}, {size(report.bytes)}"
        click.echo(f"rdbkit: {printable(name)} ({files}): folded with {report.server}, {count(report.keys, 'key')}", err=True)
        with standing_in(made, name):
            yield


def warn_of_base(name: str) -> None:
    """Say on standard error what stands beside the base of an append-only folder."""
    from rdbkit.snapshot.append_only import base_of_folder

    base = base_of_folder(name)
    if base is not None and base.newer:
        click.echo(f"rdbkit: warning: {printable(name)}: {printable(base.summary, 400)}: name the folder", err=True)


def lacks_newer_data(names: Iterable[str]) -> bool:
    """Whether one of these is a base beside which newer data stands, and `--allow-base` was not given."""
    from rdbkit.snapshot.append_only import base_of_folder

    if allows_base():
        return False
    return any(base is not None and base.newer for base in map(base_of_folder, names))

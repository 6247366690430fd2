"""FILEs that are URLs: with `--download`, each is copied to a temporary file, which the command reads under the FILE's name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import click

from rdbkit.cli.remembered import remember, remembered
from rdbkit.cli.render import progress
from rdbkit.errors import RdbError
from rdbkit.storage.remote import is_remote
from rdbkit.storage.stand_in import standing_in

DOWNLOAD: Final = click.Option(
    ["--download"], is_flag=True, expose_value=False, callback=remember,
    help="Copy a FILE that is a URL to a temporary file first, and read that.",
)  # fmt: skip


@contextmanager
def downloaded(names: Iterable[str]) -> Iterator[None]:
    """Inside, each of these files that is a URL is read from a copy, where that is wanted.

    Raises: RdbError where one cannot be read; of several, whoever opens the one gets the error. OSError of temporary files.
    """
    urls = [name for name in dict.fromkeys(names) if is_remote(name)]
    with ExitStack() as stack:
        for name in urls if remembered("download") else ():
            try:
                content: str | RdbError = stack.enter_context(_copied(name))
            except RdbError as e:
                if len(urls) == 1:
                    raise
                content = e
            stack.enter_context(standing_in(content, name))
        yield


@contextmanager
def _copied(name: str) -> Iterator[str]:
    from rdbkit.cli.files import temporaries
    from rdbkit.storage.location import file_size
    from rdbkit.storage.temporary import download, temporary_folder

    with temporaries(), temporary_folder(tempfile.gettempdir()) as folder:
        copy = os.path.join(folder, "downloaded")
        with progress(f"download {name}", file_size(name)) as update:
            download(name, copy, update)
        yield copy

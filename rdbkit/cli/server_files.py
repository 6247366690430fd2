"""FILEs that are servers: of each a snapshot is taken into a temporary file, which the command reads under the server's name."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import click

from rdbkit.cli.render import printable, progress, size, when
from rdbkit.errors import RdbError, TargetError
from rdbkit.live.server_url import parse_url
from rdbkit.storage.location import file_size
from rdbkit.storage.remote import is_server_url
from rdbkit.storage.stand_in import standing_in
from rdbkit.text import count

__all__ = ["name_of_server", "taken"]

_URLS: Final = "rdbkit.servers"
_TAKEN: Final = "taken.rdb"
#: How a password can be given.
_WAYS: Final = "in the URL or in RDBKIT_REDIS_PASSWORD; rdbkit snapshot has options for other logins"


def name_of_server(url: str, ctx: click.Context | None) -> str:
    """The name of a FILE that is a server: its URL without the password, which is kept for `taken`.

    Raises: ValueError for a malformed URL, and one that names a database.
    """
    place = parse_url(url)
    if place.db is not None:
        raise ValueError("a snapshot has all databases of a server: leave out the number that follows the port; --db chooses one")
    if ctx is not None:
        ctx.meta.setdefault(_URLS, {})[place.place] = url
    return place.place


@contextmanager
def taken(names: Iterable[str]) -> Iterator[None]:
    """Inside, each of these that is the name of a server is read from a snapshot of it.

    Raises: RdbError where there is none; of several, whoever opens the one gets the error. OSError of temporary files.
    """
    servers = [name for name in dict.fromkeys(names) if is_server_url(name)]
    with ExitStack() as stack:
        for name in servers:
            try:
                content: str | RdbError = stack.enter_context(_taken(name))
            except RdbError as e:
                if len(servers) == 1:
                    raise
                content = e
            stack.enter_context(standing_in(content, name))
        yield


@contextmanager
def _taken(name: str) -> Iterator[str]:
    from rdbkit.cli.files import temporaries
    from rdbkit.cli.server_options import Login
    from rdbkit.cli.snapshot import say_of_scan
    from rdbkit.live.snapshot import snapshot_server
    from rdbkit.storage.temporary import temporary_folder

    url = click.get_current_context().meta[_URLS][name]
    with temporaries(), temporary_folder(tempfile.gettempdir()) as folder:
        file = os.path.join(folder, _TAKEN)
        with Login().connect(url, _WAYS) as server, progress("snapshot", None) as update:
            found = snapshot_server(server, file, progress=update)
        say_of_scan(found)
        of = f"{count(found.keys, 'key')}, {size(file_size(file) or 0)}"
        moments = [node.taken_s for node in found.nodes if node.taken_s is not None]
        at = f", of {when(max(moments) * 1000, seconds=True)} UTC" if moments else ""
        click.echo(f"rdbkit: {printable(name)}: a snapshot was taken ({of}{at})", err=True)
        if found.missing_keys:
            raise TargetError("its snapshot lacks keys that the server refused", source=name)
        yield file

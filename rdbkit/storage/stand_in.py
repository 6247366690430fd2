"""Files that are read in place of what was named, as a snapshot that was made of an append-only file for one command.

Whoever opens an input, or asks the system about one, asks here first. So a message has the name that the user knows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from rdbkit.storage.remote import name_of

_CONTENT: Final[dict[str, str | Exception]] = {}


@contextmanager
def standing_in(content: str | Exception, name: str) -> Iterator[None]:
    """Inside, the file at `content` is what is read of `name`; or an error is what everyone gets who asks for it."""
    name = name_of(name)
    before = _CONTENT.get(name)
    _CONTENT[name] = content
    try:
        yield
    finally:
        if before is None:
            del _CONTENT[name]
        else:
            _CONTENT[name] = before


def content_of(path: str | os.PathLike[str]) -> str:
    """The path of what is read of this one: itself, but for what another file stands in for; of a URL, its name.

    Raises: what stands in for it; ValueError for a URL that names no object.
    """
    name = name_of(path)
    content = _CONTENT.get(name, name)
    if isinstance(content, Exception):
        raise content
    return content

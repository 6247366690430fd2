"""Messages about a command line without the secrets of its arguments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Final

import click

from rdbkit.text import scrub

#: A URL with a host, and a port that is one: what else stands there may be a password whose host was forgotten.
_HOST: Final = re.compile(r"[-\w]+://[^:/]+(:\d*)?(/.*)?", re.DOTALL)


@contextmanager
def secrets_kept(arguments: Iterable[str]) -> Iterator[None]:
    """Takes the secrets of arguments out of the messages of click, and out of names of files that are none."""
    try:
        yield
    except click.ClickException as e:
        vars(e)["message"] = without_secrets(e.message, arguments)
        raise
    except OSError as e:
        if isinstance(e.filename, str):
            e.filename = without_secrets(e.filename, arguments)
        raise


def without_secrets(text: str, arguments: Iterable[str]) -> str:
    """The text without the logins and queries of arguments that are quoted in it.

    >>> without_secrets("there is no 'redis://app:s3cret@host'", ["redis://app:s3cret@host"])
    "there is no '...@host'"
    >>> without_secrets("no such file: https://a/c/b?sv=1&sig=abc", ["--state=https://a/c/b?sv=1&sig=abc"])
    'no such file: https://a/c/b?...'
    """
    values = {value for argument in arguments for value in (argument, *argument.partition("=")[::2])}
    for value in sorted(values, key=len, reverse=True):
        shown = _shown(value)
        if shown != value:
            text = text.replace(value, shown).replace(repr(value)[1:-1], shown)
    return scrub(text)


def _shown(value: str) -> str:
    """An argument without what may be a secret: nobody knows whether the password of a malformed URL has a question mark in it."""
    login, _, host = value.rpartition("@")
    address, mark, _ = value.partition("?")
    has_query = bool(mark) and ("://" in value or "sig=" in value)
    if ":" in login or "/" in login:
        return "..." if has_query else f"...@{host}"
    if "://" in address and not _HOST.fullmatch(address):
        return "..."
    return f"{address}?..." if has_query else value

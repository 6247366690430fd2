"""Calls of an application: their arguments as a server gets them, and whether a reply to a read is a miss."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from rdbkit.targets.keyspecs import TABLE

__all__ = ["MAY_BE_DONE", "Encoder", "is_miss", "plain_of"]

#: Kinds of commands that may have written something though the server's reply is an error: a script, or MIGRATE of several keys.
MAY_BE_DONE: Final = frozenset(("script", "write"))

#: What is known of commands by their names, as they are given: redis-py gives text.
_plain: Final[dict[Any, tuple[str, int]]] = {}
_MOST: Final = 10_000


class Encoder:
    """Makes bytes of the arguments of calls, as the connections of a client do.

    Args:
        client: of the package redis.
    """

    __slots__ = ("_encoding", "_errors", "_plain")

    def __init__(self, client: Any) -> None:
        encoder = client.get_encoder()
        self._encoding: str = encoder.encoding
        self._errors: str = encoder.encoding_errors
        self._plain: Callable[[Any], bytes] = encoder.encode

    def __call__(self, value: Any) -> bytes:
        """One argument. Raises: redis.exceptions.DataError for what cannot be one."""
        if type(value) is str:
            return value.encode(self._encoding, self._errors)
        return bytes(self._plain(value))

    def arguments(self, args: Sequence[Any]) -> list[bytes]:
        """All of a command, as it was given to `execute_command`: what is behind white space in the name is an argument of its own.

        Raises: redis.exceptions.DataError for what cannot be an argument.
        """
        name = args[0]
        if isinstance(name, str):
            args = (*name.encode().split(), *args[1:])  # at white space of any kind, as the package redis does
        elif b" " in name:
            args = (*bytes(name).split(), *args[1:])
        encoding, errors = self._encoding, self._errors
        return [  # of a memoryview a copy: the client may fill it with something else afterwards
            each if type(each) is bytes else each.encode(encoding, errors) if type(each) is str else bytes(self._plain(each))
            for each in args
        ]


def plain_of(name: Any) -> tuple[str, int]:
    """The kind of a command, and which argument is the one key that it writes, by its name; ("", 0) where its arguments decide.

    That is 0 for none, and -1 where all arguments are keys that it writes.

    Args:
        name: as it was given to `execute_command`.
    """
    found = _plain.get(name)
    return _find_plain(name) if found is None else found


def _find_plain(name: Any) -> tuple[str, int]:
    text = name.encode() if isinstance(name, str) else bytes(name)
    found = TABLE.plain(text.strip()) or ("", 0)
    if found[0] not in ("read", "write") or (found[1] and text.split() != [text]):
        found = ("", 0)  # where the name has two words, its arguments are counted without the second one
    if len(_plain) < _MOST:
        _plain[name] = found
    return found


def is_miss(reply: Any) -> bool:
    """Whether a reply to a read may be that of a server which does not have the key, or not all of several.

    In doubt it is one: the other server is asked then, and its reply is as good.

    >>> is_miss(None), is_miss({}), is_miss([b"a", None]), is_miss(-2), is_miss("none"), is_miss(b"value")
    (True, True, True, True, True, False)
    """
    if not reply or reply == -2 or reply in (b"none", "none"):
        return True
    return isinstance(reply, list) and None in reply

"""Calls of an application: their arguments as a server gets them, and whether a reply to a read is a miss."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias, overload

from rdbkit.targets.keyspecs import TABLE

__all__ = ["MAY_BE_DONE", "Arguments", "Encode", "is_miss", "plain_of"]

#: Makes bytes of one argument, as the client does that sends it.
Encode: TypeAlias = Callable[[Any], bytes]

#: Kinds of commands that may have written something though the server's reply is an error: a script, or MIGRATE of several keys.
MAY_BE_DONE: Final = frozenset(("script", "write"))

#: What is known of commands by their names, as they are given: redis-py gives text.
_plain: Final[dict[Any, tuple[str, int]]] = {}
_MOST: Final = 10_000


class Arguments(Sequence[bytes]):
    """The arguments of a call as bytes, each made when it is asked for: of a command with a large value only the key is wanted.

    Args:
        args: as they were given to `execute_command`. What is behind a space in the name is an argument of its own.
        encode: makes bytes of one.
    """

    __slots__ = ("_args", "_encode")

    def __init__(self, args: Sequence[Any], encode: Encode) -> None:
        name = args[0]
        if isinstance(name, str):
            words = name.encode().split()  # at white space of any kind, as the package redis does
            args = (*words, *args[1:]) if len(words) != 1 or len(words[0]) != len(name) else args
        elif b" " in name:
            args = (*bytes(name).split(), *args[1:])
        self._args = args
        self._encode = encode

    def __len__(self) -> int:
        return len(self._args)

    @overload
    def __getitem__(self, at: int) -> bytes: ...
    @overload
    def __getitem__(self, at: slice) -> Sequence[bytes]: ...
    def __getitem__(self, at: int | slice) -> bytes | Sequence[bytes]:
        found = self._args[at]
        if type(found) is bytes:
            return found
        if type(found) is str:
            return self._encode(found)
        if isinstance(at, slice):
            return [bytes(self._encode(each)) for each in found]
        return bytes(self._encode(found))  # of a memoryview, which the client may fill with something else afterwards

    def __iter__(self) -> Iterator[bytes]:
        return (bytes(self._encode(each)) for each in self._args)


def plain_of(name: Any) -> tuple[str, int]:
    """The kind of a command, and which argument is the one key that it writes, by its name; ("", 0) where its arguments decide.

    Args:
        name: as it was given to `execute_command`.
    """
    found = _plain.get(name)
    return _find_plain(name) if found is None else found


def _find_plain(name: Any) -> tuple[str, int]:
    text = name.encode() if isinstance(name, str) else bytes(name)
    found = TABLE.plain(text.strip()) or ("", 0)
    if found[0] not in ("read", "write") or (
        found[1] and text.split() != [text]
    ):  # its arguments are counted without its second word
        found = ("", 0)
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

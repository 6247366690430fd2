"""RESP, the protocol that servers speak: commands as it writes them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

# From this size on an argument is handed on as it is, not copied into a larger piece.
LARGE: Final = 1 << 16


def command(*arguments: bytes) -> bytes:
    r"""One command in one piece.

    >>> command(b"SELECT", b"0")
    b'*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n'
    """
    return b"*%d\r\n%b" % (len(arguments), b"".join(map(bulk, arguments)))


def pieces(arguments: Sequence[bytes]) -> Iterator[bytes]:
    """One command, its large arguments as pieces of their own so that they are not copied.

    >>> [len(piece) for piece in pieces([b"SET", b"k", bytes(100_000)])]
    [29, 100000, 2]
    """
    start = 0
    head = b"*%d\r\n" % len(arguments)
    if max(map(len, arguments)) >= LARGE:
        for at, argument in enumerate(arguments):
            if len(argument) >= LARGE:
                yield head + b"".join(map(bulk, arguments[start:at])) + b"$%d\r\n" % len(argument)
                yield argument
                head = b"\r\n"
                start = at + 1
    yield head + b"".join(map(bulk, arguments[start:]))


def bulk(argument: bytes) -> bytes:
    r"""One argument.

    >>> bulk(b"0")
    b'$1\r\n0\r\n'
    """
    return b"$%d\r\n%b\r\n" % (len(argument), argument)


def number(value: bytes | int | float) -> bytes:
    """A score or an array's value as an argument, in as few letters as tell it exactly.

    >>> number(3.0), number(0.1), number(float("-inf")), number(b"as it is")
    (b'3', b'0.1', b'-inf', b'as it is')
    """
    return value if isinstance(value, bytes) else repr(value).removesuffix(".0").encode()

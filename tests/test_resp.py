"""The protocol's own form."""

from __future__ import annotations

import math

from rdbkit import resp

from .operations.test_commands import parsed


def test_a_large_argument_is_handed_on_as_it_is() -> None:
    value = b"x" * 200_000
    found = list(resp.pieces([b"SET", b"k", value, b"after"]))
    assert any(piece is value for piece in found)
    assert parsed(b"".join(found)) == [[b"SET", b"k", value, b"after"]]


def test_pieces_are_the_command() -> None:
    for arguments in ([b"PING"], [b"SET", b"", b"\r\n$1"], [b"x" * resp.LARGE, b"y" * resp.LARGE], [b"x" * resp.LARGE]):
        assert b"".join(resp.pieces(arguments)) == resp.command(*arguments)
        assert parsed(resp.command(*arguments)) == [arguments]


def test_numbers_are_the_shortest_text() -> None:
    for value, text in (
        (1.0, b"1"),
        (-0.0, b"-0"),
        (0.1, b"0.1"),
        (5e-324, b"5e-324"),
        (1e300, b"1e+300"),
        (math.inf, b"inf"),
        (7, b"7"),
    ):
        assert resp.number(value) == text
        assert float(text) == value
    assert resp.number(1 << 64) == b"%d" % (1 << 64)

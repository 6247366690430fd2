"""Names of changed keys: each form of message, cut anywhere, and what else comes over the same connection."""

from __future__ import annotations

import random
from typing import Final

import pytest

from rdbkit.errors import CorruptError
from rdbkit.format.replies import Refusal
from rdbkit.passes.changed_names import ANY_DB, EVENTS, KEYS, ChangeReader, WaitingNames
from rdbkit.resp import bulk

LARGE: Final = 1 << 30
NAMES: Final = [b"a", b"", b"key:17", b"with\r\n$3\r\nends", bytes(range(256)), b"x" * 5000]


def invalidation(*names: bytes) -> bytes:
    return b">2\r\n$10\r\ninvalidate\r\n*%d\r\n%b" % (len(names), b"".join(map(bulk, names)))


def event(sign: bytes, pattern: bytes, channel: bytes, text: bytes) -> bytes:
    return sign + b"4\r\n" + bulk(b"pmessage") + bulk(pattern) + bulk(channel) + bulk(text)


def read(pieces: list[bytes], pattern: bytes = b"") -> tuple[WaitingNames, ChangeReader]:
    waiting = WaitingNames(LARGE)
    reader = ChangeReader(waiting, pattern)
    for at, piece in enumerate(pieces):
        reader.feed(piece, float(at))
    return waiting, reader


def cuts(data: bytes) -> list[list[bytes]]:
    """The same bytes in one, in two wherever they may be cut, and byte by byte."""
    some = [[data], [data[at : at + 1] for at in range(len(data))]]
    return some + [[data[:at], data[at:]] for at in range(1, len(data)) if at < 600 or at % 97 == 0]


def test_names_are_read_wherever_the_messages_are_cut() -> None:
    data = (
        b"+OK\r\n" + invalidation(*NAMES[:3]) + b"+PONG\r\n" + invalidation(*NAMES) + b">2\r\n$10\r\ninvalidate\r\n_\r\n"
        + b">2\r\n$4\r\nmore\r\n*1\r\n$1\r\nk\r\n" + b"+PONG\r\n-NOPERM no\r\n" + invalidation(b"last")
    )  # fmt: skip
    for pieces in cuts(data):
        waiting, reader = read(pieces)
        assert set(waiting.names[ANY_DB]) == {*NAMES, b"last"}
        assert (waiting.events, len(waiting), waiting.everything) == (10, 7, True)
        assert (reader.pongs, reader.refusal, reader.buf) == (2, Refusal("NOPERM", "no"), b"")


@pytest.mark.parametrize("sign", [b"*", b">"])
@pytest.mark.parametrize("pattern", [EVENTS, KEYS])
def test_notifications_tell_the_database(pattern: bytes, sign: bytes) -> None:
    said = [(0, b"a"), (15, b"__:b"), (3, b"with\r\nends"), (0, b""), (0, b"a")]
    head = pattern[:11]
    data = sign + b"3\r\n$10\r\npsubscribe\r\n" + bulk(pattern) + b":1\r\n"
    for db, name in said:
        channel, text = (name, b"set") if pattern == KEYS else (b"set", name)
        data += event(sign, pattern, head + b"%d__:" % db + channel, text)
    data += b"*2\r\n$4\r\npong\r\n$0\r\n\r\n" if sign == b"*" else b"+PONG\r\n"
    for pieces in cuts(data):
        waiting, reader = read(pieces, pattern)
        assert {db: set(names) for db, names in waiting.names.items()} == {
            0: {b"a", b""}, 15: {b"__:b"}, 3: {b"with\r\nends"},
        }  # fmt: skip
        assert (reader.pongs, waiting.events, reader.buf) == (1, 5, b"")


def test_a_name_keeps_the_time_when_it_was_first_told() -> None:
    waiting, _ = read([invalidation(b"a"), invalidation(b"b"), invalidation(b"a")])
    assert waiting.take() == {ANY_DB: {b"a": 0.0, b"b": 1.0}}
    assert (len(waiting), waiting.take()) == (0, {})


def test_where_there_are_too_many_everything_has_changed() -> None:
    waiting = WaitingNames(10_000)
    reader = ChangeReader(waiting)
    most = 0
    for at in range(1000):
        reader.feed(invalidation(b"%d" % at), 0.0)
        most = max(most, len(waiting))
    assert waiting.everything
    assert 50 < most < 100
    reader.feed(invalidation(b"a"), 0.0)
    assert b"a" in waiting.names[ANY_DB]


@pytest.mark.parametrize(
    ("data", "pattern"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", b""),
        (b">2\r\n$10\r\ninvalidate\r\n*1\r\n:12345\r\n", b""),
        (b">2\r\n$10\r\ninvalidate\r\n*x\r\n", b""),
        (event(b"*", EVENTS, b"another channel", b"k"), EVENTS),
        (event(b"*", EVENTS, b"__keyevent@x__:set", b"k"), EVENTS),
    ],
)
def test_what_is_no_message_is_said(data: bytes, pattern: bytes) -> None:
    with pytest.raises(CorruptError):
        read([data], pattern)


def test_many_names_in_random_cuts() -> None:
    rng = random.Random(1)
    names = [b"key:%d" % rng.randrange(10_000) for _ in range(20_000)]
    data = b"".join(invalidation(*names[at : at + 7]) + (b"+PONG\r\n" if at % 3 == 0 else b"") for at in range(0, 20_000, 7))
    pieces = []
    at = 0
    while at < len(data):
        size = rng.choice((1, 5, 100, 3000))
        pieces.append(data[at : at + size])
        at += size
    waiting, reader = read(pieces)
    assert set(waiting.names[ANY_DB]) == set(names)
    assert (waiting.events, reader.pongs) == (20_000, len([at for at in range(0, 20_000, 7) if at % 3 == 0]))

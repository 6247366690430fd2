"""Replies in RESP: each form, cut anywhere, and what is none."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from rdbkit.errors import CorruptError
from rdbkit.format.replies import NOTHING, Push, Refusal, Replies, refusal, run_of_ok
from rdbkit.passes.dumps import Gatherer
from rdbkit.passes.pages import Layout, page_of

DATA = (
    b"+OK\r\n*2\r\n:-1\r\n$3\r\na\r\n\r\n>2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n%1\r\n+a\r\n:1\r\n*0\r\n-ERR no\r\n"
    b"-WRONGTYPE it is\r\n|1\r\n+t\r\n:1\r\n_\r\n$-1\r\n*-1\r\n*2\r\n*2\r\n:1\r\n|1\r\n+t\r\n+u\r\n:2\r\n*1\r\n~0\r\n"
    b",1.5\r\n#t\r\n#f\r\n=5\r\ntxt:a\r\n!6\r\nERR no\r\n(12\r\n"
)
FOUND: list[Any] = [
    b"OK", [-1, b"a\r\n"], Push(b"invalidate", [[b"k"]]), [b"a", 1], [], Refusal("ERR", "no"), Refusal("WRONGTYPE", "it is"),
    None, None, None, [[1, 2], [[]]], b"1.5", 1, 0, b"a", Refusal("ERR", "no"), b"12",
]  # fmt: skip


def read(pieces: list[bytes]) -> list[Any]:
    replies, found = Replies(), []
    for piece in pieces:
        replies.feed(piece)
        while (value := replies.take()) is not NOTHING:
            found.append(value)
    assert replies.is_between()
    return found


def test_every_form_is_read_wherever_it_is_cut() -> None:
    assert read([DATA]) == FOUND
    assert read([DATA[i : i + 1] for i in range(len(DATA))]) == FOUND
    for a, b in itertools.combinations(range(0, len(DATA), 3), 2):
        assert read([DATA[:a], DATA[a:b], DATA[b:]]) == FOUND


def test_what_was_not_taken_is_given_back() -> None:
    replies = Replies()
    replies.feed(b"+OK\r\n$3\r\na")
    assert replies.take() == b"OK"
    assert replies.rest() == b"$3\r\na"
    assert replies.is_between()


def test_a_long_string_in_many_pieces_is_put_together_once() -> None:
    replies = Replies()
    replies.feed(b"$%d\r\n" % (64 << 20))
    for _ in range(1024):
        assert replies.take() is NOTHING
        replies.feed(bytes(1 << 16))
    replies.feed(b"\r\n")
    assert replies.take() == bytes(64 << 20)


@pytest.mark.parametrize("data", [b"hello\r\n", b":x\r\n", b"$x\r\n", b"$1\r\nabc\r\n", b"*1\r\n" * 100, b"+" * 70_000])
def test_what_is_no_reply_is_said_to_be_none(data: bytes) -> None:
    replies = Replies()
    replies.feed(data)
    with pytest.raises(CorruptError, match="not a Redis server"):
        list(iter(replies.take, NOTHING))


@pytest.mark.parametrize("data", [b"$9999999999\r\n", b"*2147483647\r\n$9999999999\r\n"])
def test_a_reply_that_would_fill_the_memory_is_refused_at_once(data: bytes) -> None:
    replies = Replies()
    replies.feed(data)
    with pytest.raises(CorruptError, match="at most 1073741824"):
        replies.take()
    with pytest.raises(CorruptError, match="at most 1073741824"):
        Gatherer(page_of([b"a"]), Layout(0, True), 0).feed(b":-1\r\n$9999999999\r\n")


def test_an_array_without_an_end_is_refused_in_bounded_memory() -> None:
    replies = Replies()
    replies.feed(b"*2147483647\r\n")
    piece = b"$%d\r\n%b\r\n" % (64 << 20, bytes(64 << 20))
    for _ in range(15):
        replies.feed(piece)
        assert replies.take() is NOTHING
        replies.lists[0].clear()  # the test itself needs no gigabyte
    replies.feed(piece)
    with pytest.raises(CorruptError, match="at most"):
        replies.take()


def test_errors_have_a_code() -> None:
    assert refusal(b"NOPERM this user") == ("NOPERM", "this user")
    assert refusal(b"Command disallowed") == ("ERR", "Command disallowed")
    assert str(refusal(b"MOVED 1 a:1")) == "MOVED 1 a:1"


def test_runs_of_ok() -> None:
    assert run_of_ok(b"+OK\r\n+OK\r\n-BUSYKEY\r\n", 0, 9) == 2
    assert run_of_ok(b"+OK\r\n+OK\r\n+O", 0, 9) == 2
    assert run_of_ok(b"+OK\r\n+OK\r\n", 0, 1) == 1

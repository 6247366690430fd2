"""Replies are counted wherever the bytes are cut; what nobody has asked for is not."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdbkit.errors import CorruptError
from rdbkit.format.reply_ends import ReplyEnds

ALL = 1 << 40
#: One of each kind; errors are numbers 1 and 5.
STREAM = b"".join(
    (
        b"+OK\r\n",
        b"-WRONGTYPE no\r\n",
        b":-12\r\n",
        b"$5\r\na\r\nbc\r\n",
        b"$-1\r\n",
        b"!5\r\nERR x\r\n",
        b"*3\r\n:1\r\n*2\r\n$-1\r\n-ERR inside\r\n*0\r\n",
        b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n",
        b"*-1\r\n",
        b"%2\r\n+a\r\n:1\r\n+b\r\n~1\r\n_\r\n",
        b"|1\r\n+ttl\r\n:3\r\n",
        b",1.5\r\n",
        b"(123456789012345678901234567890\r\n",
        b"#t\r\n",
        b"=7\r\ntxt:abc\r\n",
        b"*1\r\n|1\r\n+a\r\n+b\r\n:7\r\n",
        b"$0\r\n\r\n",
    )
)
COUNT = 15


def read(pieces: list[bytes]) -> ReplyEnds:
    replies = ReplyEnds()
    for piece in pieces:
        replies.feed(piece)
        replies.pass_to(ALL)
    return replies


def test_a_cut_at_every_byte_makes_no_difference() -> None:
    for at in range(len(STREAM) + 1):
        replies = read([STREAM[:at], STREAM[at:]])
        assert (replies.count, replies.failed, replies.is_between()) == (COUNT, [1, 5], True)
    assert read([STREAM[at : at + 1] for at in range(len(STREAM))]).count == COUNT


@given(st.lists(st.integers(0, len(STREAM)), max_size=12), st.integers(0, COUNT))
def test_it_stops_at_a_number(cuts: list[int], number: int) -> None:
    replies = ReplyEnds()
    ends = [0, *sorted(cuts), len(STREAM)]
    for a, b in pairwise(ends):
        replies.feed(STREAM[a:b])
        replies.pass_to(number)
        assert replies.count <= number
    assert replies.count == number
    replies.pass_to(ALL)
    assert (replies.count, replies.failed) == (COUNT, [1, 5])


def test_a_frame_says_what_it_is_and_where_it_ends() -> None:
    replies = ReplyEnds()
    replies.feed(STREAM)
    told = []
    before = 0
    while replies.step():
        assert replies.end > before
        before = replies.end
        told.append((replies.line, replies.pushed, replies.word))
    assert before == len(STREAM)
    assert told[0] == (b"+OK", False, b"")
    assert (b">2", True, b"invalidate") in told
    assert (b"|1", True, b"") in told


def test_messages_are_not_counted_once_subscribed() -> None:
    message = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n"
    for at in range(len(message)):
        replies = ReplyEnds()
        replies.feed(message[:at])
        replies.subscribed = True
        replies.pass_to(ALL)
        replies.feed(message[at:] + b"*2\r\n$4\r\npong\r\n$0\r\n\r\n")
        replies.pass_to(ALL)
        assert replies.count == 1
    replies = read([message])
    assert replies.count == 1


@pytest.mark.parametrize("data", [b"HTTP/1.1 400\r\n", b"\r\n", b"+OK\n", b"$x\r\n", b"*1\r\n" * 70, b"+" + bytes(70_000)])
def test_what_is_no_reply(data: bytes) -> None:
    with pytest.raises(CorruptError):
        read([b"+OK\r\n" + data])

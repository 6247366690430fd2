"""Requests are found wherever the bytes are cut, and what is no request is said to be none."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdbkit.format.requests import LARGEST_KEPT, LEFT_OUT, ONE_KEY, PASSED, WANTED, Requests, split_words
from rdbkit.resp import command

NAMES = {b"GET": PASSED, b"SET": ONE_KEY, b"SELECT": WANTED}
STREAM = b"".join(
    (
        command(b"GET", b"a"),
        command(b"SET", b"b", b"1\r\n$3\r\n"),
        b'SET "c d" 1\r\n\r\n',
        command(b"SELECT", b"10"),
        b"*0\r\n*-1\r\n",
        command(b"SET", b"", b"x" * 300),
        command(b"DEL", *(b"%d" % n for n in range(12))),
        command(b"SET"),
    )
)
WANTED_ONES = [[b"SET", b"c d", b"1"], [b"SELECT", b"10"], [b"DEL", *(b"%d" % n for n in range(12))]]


def read(pieces: list[bytes]) -> tuple[Requests, list[list[bytes]]]:
    requests = Requests(NAMES)
    found = []
    for piece in pieces:
        requests.feed(piece)
        while (arguments := requests.take()) is not None:
            found.append(arguments)
    return requests, found


def check(pieces: list[bytes]) -> None:
    requests, found = read(pieces)
    assert found == WANTED_ONES
    assert (requests.count, requests.at, requests.keys) == (7, [1, 4], [b"b", b""])
    assert requests.is_between()
    assert not requests.broken


def test_a_cut_at_every_byte_makes_no_difference() -> None:
    for at in range(len(STREAM) + 1):
        check([STREAM[:at], STREAM[at:]])
    check([STREAM[at : at + 1] for at in range(len(STREAM))])


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_nor_do_several_cuts(cuts: list[int]) -> None:
    ends = [0, *sorted(cuts), len(STREAM)]
    check([STREAM[a:b] for a, b in pairwise(ends)])


def test_places_are_those_in_the_last_piece() -> None:
    requests = Requests(NAMES)
    get, select = command(b"GET", b"a"), command(b"SELECT", b"1")
    requests.feed(get + select + get[:5])
    assert requests.take() == [b"SELECT", b"1"]
    assert (requests.begin, requests.end) == (len(get), len(get + select))
    assert requests.take() is None
    assert requests.end == len(get + select)
    assert not requests.is_between()
    requests.rewind()
    assert requests.is_between()
    requests.feed(get)
    assert requests.take() is None
    assert requests.count == 3


def test_each_request_is_told_of_where_that_is_wanted() -> None:
    requests = Requests(NAMES)
    requests.each = True
    requests.feed(command(b"GET", b"a") + command(b"SET", b"k", b"v") + command(b"SELECT", b"1"))
    assert [requests.take() for _ in range(4)] == [[], [], [b"SELECT", b"1"], None]


def test_large_arguments_are_not_kept() -> None:
    large = bytes(LARGEST_KEPT + 1)
    requests, found = read([command(b"DEL", b"a", large, b"b"), command(b"SET", large, b""), command(b"SET", b"k", large)])
    assert found == [[b"DEL", b"a", LEFT_OUT, b"b"]]
    assert found[0][2] is LEFT_OUT
    assert (requests.left_out, requests.keys) == (1, [b"k"])


def test_many_arguments_and_512_mb_in_pieces() -> None:
    many = [b"DEL", *(b"key:%d" % n for n in range(10_000))]
    _, found = read([command(*many)])
    assert found == [many]
    size = 512 << 20
    requests = Requests(NAMES)
    requests.feed(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % size)
    piece = bytes(1 << 20)
    for _ in range(size >> 20):
        assert requests.take() is None
        requests.feed(piece)
    assert requests.take() is None
    assert requests.count == 0
    requests.feed(b"\r\n")
    assert requests.take() is None
    assert (requests.count, requests.keys) == (1, [b"k"])


@pytest.mark.parametrize(
    "data",
    [
        b"*x\r\n", b"*1\r\n+OK\r\n", b"*1\r\n$-1\r\n", b"*1\r\n$x\r\n", b"*1\rx", b"*99999999999999999999\r\n", b"*4294967296\r\n",
        b'SET "a\r\n', b"x" * (LARGEST_KEPT + 2), b"*1\r\n$9999999999999999\r\n",
    ],
)  # fmt: skip
def test_what_is_no_request_ends_the_reading(data: bytes) -> None:
    requests, found = read([command(b"SELECT", b"1") + data, command(b"SELECT", b"2")])
    assert found == [[b"SELECT", b"1"]]
    assert requests.broken


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"  get\tkey  \r", [b"get", b"key"]),
        (b"", []),
        (rb'set "a\"b" "\xff\r"', [b"set", b'a"b', b"\xff\r"]),
        (rb"set 'it\'s' '\n'", [b"set", b"it's", rb"\n"]),
        (b'set "a"b', None),
        (b"set 'a", None),
        (b'a"b c"', [b"ab c"]),
    ],
)
def test_words_of_a_line(line: bytes, words: list[bytes] | None) -> None:
    assert split_words(line) == words

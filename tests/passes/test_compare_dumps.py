"""What two servers answer about the same keys: what is the same, in whatever encoding, and what is not."""

from __future__ import annotations

import random

import pytest

from rdbkit.errors import CorruptError, LimitError
from rdbkit.format.payload import Payload, encode_payload
from rdbkit.format.replies import Refusal
from rdbkit.passes.compare_dumps import (
    OTHER_TYPE,
    OTHER_VALUE,
    SAME,
    UNDECIDED,
    Comparison,
    PlainReplies,
    Sized,
    Unlike,
    questions,
)
from rdbkit.passes.pages import page_of
from rdbkit.resp import bulk, command

from ..rdb import length, string

REPLIES = b"$3\r\na\r\n\r\n:12\r\n$-1\r\n-NOPERM no\r\n+OK\r\n$0\r\n\r\n_\r\n"


def test_replies_may_be_cut_anywhere() -> None:
    for cut in range(len(REPLIES)):
        replies = PlainReplies(7)
        assert not replies.feed(REPLIES[:cut])
        assert replies.feed(REPLIES[cut:] + b"more")
        assert b"".join(replies.taken) == REPLIES
        assert replies.rest() == b"more"
    replies = PlainReplies(7)
    for at in range(len(REPLIES)):
        assert replies.feed(REPLIES[at : at + 1]) == (at == len(REPLIES) - 1)
    assert PlainReplies(0).done
    assert PlainReplies(1, 10).feed(b"$3\r\nabc\r\n")
    with pytest.raises(LimitError):
        PlainReplies(2, 1000).feed(b"$3\r\nabc\r\n$2000\r\nabc")
    with pytest.raises(CorruptError):
        PlainReplies(1).feed(b"HTTP/1.1 400 Bad Request\r\n")


def test_questions_about_a_page() -> None:
    names = [b"a", b"", b"x\r\ny"]
    heads = [b"*2\r\n$4\r\nDUMP\r\n", b"*2\r\n$4\r\nPTTL\r\n"]
    assert questions(page_of(names), heads) == b"".join(command(b"DUMP", name) + command(b"PTTL", name) for name in names)


def test_a_page_is_cut_by_the_memory_of_its_keys() -> None:
    names = [b"a", b"b", b"huge", b"c", b"gone", b"d", b"wide"]
    sized = Sized(page_of(names), 100, 50)
    replies = b":20\r\n:30\r\n:101\r\n:40\r\n$-1\r\n:20\r\n:100\r\n"
    for at in range(0, len(replies), 3):
        sized.feed(replies[at : at + 3])
    assert sized.done
    assert [page.keys() for page in sized.pieces] == [[b"a", b"b"], [b"c", b"gone"], [b"d"], [b"wide"]]
    assert [page.count for page in sized.pieces] == [2, 2, 1, 1]
    assert sized.large == [b"huge"]
    assert sized.refused is None
    sized = Sized(page_of([b"a", b"b"]), 100, 50)
    assert sized.feed(b"-NOPERM no\r\n-ERR other\r\n")
    assert sized.refused == Refusal("NOPERM", "no")
    assert Sized(page_of([]), 100, 50).done


def payload(type_code: int, value: bytes, version: int = 11) -> bytes:
    return encode_payload(Payload(type_code, value, version))


def answer(value: bytes | None, expire: int = -1) -> bytes:
    return (b"$-1\r\n" if value is None else bulk(value)) + b":%d\r\n" % expire


def compared(one: bytes, other: bytes, count: int = 1, bases: tuple[int, int] = (0, 0), slack: int = 0) -> list[Unlike]:
    return Comparison(1 << 20).compare(one, other, count, bases, slack, False)


def verdict(one: bytes, other: bytes) -> int:
    found = compared(answer(one), answer(other))
    assert compared(answer(one), answer(one)) == []
    assert [each.verdict for each in found] == [each.verdict for each in compared(answer(other), answer(one))]
    assert all(each.values == (one, other) for each in found)
    return found[0].verdict if found else SAME


def listpack(*elements: bytes) -> bytes:
    body = b"".join(bytes([0x80 | len(e)]) + e + bytes([len(e) + 1]) for e in elements)
    return string((len(body) + 7).to_bytes(4, "little") + len(elements).to_bytes(2, "little") + body + b"\xff")


def strings(*elements: bytes, arity: int = 1) -> bytes:
    return length(len(elements) // arity) + b"".join(map(string, elements))


def scored(*pairs: tuple[bytes, float]) -> bytes:
    import struct

    return length(len(pairs)) + b"".join(string(member) + struct.pack("<d", score) for member, score in pairs)


@pytest.mark.parametrize(
    ("one", "other", "wanted"),
    [
        (payload(0, string(b"12")), payload(0, b"\xc0\x0c"), SAME),  # an integer
        (payload(0, string(b"12"), 9), payload(0, string(b"12"), 12), SAME),  # another version
        (payload(0, string(b"12")), payload(0, string(b"13")), OTHER_VALUE),
        (payload(0, string(b"12")), payload(1, strings(b"12")), OTHER_TYPE),
        (payload(2, strings(b"a", b"b")), payload(2, strings(b"b", b"a")), SAME),
        (payload(2, strings(b"a", b"b")), payload(20, listpack(b"b", b"a")), SAME),
        (payload(2, strings(b"1", b"2")), payload(11, string(b"\2\0\0\0\2\0\0\0\1\0\2\0")), SAME),  # an intset
        (payload(2, strings(b"a", b"b")), payload(2, strings(b"a", b"c")), OTHER_VALUE),
        (payload(2, strings(b"a", b"b")), payload(2, strings(b"a")), OTHER_VALUE),
        (payload(1, strings(b"a", b"b")), payload(1, strings(b"b", b"a")), OTHER_VALUE),
        (payload(1, strings(b"a", b"b")), payload(18, length(1) + length(2) + listpack(b"a", b"b")), SAME),
        (payload(4, strings(b"f", b"v", b"g", b"w", arity=2)), payload(16, listpack(b"g", b"w", b"f", b"v")), SAME),
        (payload(4, strings(b"f", b"v", b"g", b"w", arity=2)), payload(16, listpack(b"f", b"w", b"g", b"v")), OTHER_VALUE),
        (payload(4, strings(b"f", b"v", arity=2)), payload(4, strings(b"v", b"f", arity=2)), OTHER_VALUE),
        # the same bytes, otherwise divided
        (payload(4, strings(b"ab", b"c", arity=2)), payload(4, strings(b"a", b"bc", arity=2)), OTHER_VALUE),
        (payload(1, strings(b"ab", b"c")), payload(1, strings(b"a", b"bc")), OTHER_VALUE),
        (payload(5, scored((b"a", 1.5), (b"b", 2.0))), payload(17, listpack(b"a", b"1.50", b"b", b"2")), SAME),
        (payload(5, scored((b"a", 0.0))), payload(5, scored((b"a", -0.0))), SAME),
        (payload(5, scored((b"a", 1.5))), payload(5, scored((b"a", 1.25))), OTHER_VALUE),
        (payload(5, scored((b"a", 1.5))), payload(17, listpack(b"a", b"text")), UNDECIDED),  # damaged
        (payload(2, strings(b"a", b"b")), payload(2, strings(b"b", b"a")[:-1]), UNDECIDED),
        (payload(7, b"\1\2"), payload(7, b"\1\3"), UNDECIDED),  # a module's
        # type 22 is something else in RDB 80
        (payload(22, b"\0", 12), payload(22, b"\0", 80), UNDECIDED),
        (b"short", b"shorter", UNDECIDED),
    ],
)
def test_values(one: bytes, other: bytes, wanted: int) -> None:
    assert verdict(one, other) == wanted


def test_keys_that_are_not_there_and_errors() -> None:
    value = payload(0, string(b"v"))
    one = answer(value) + answer(None, -2) + answer(None, -2) + answer(value) + b"-NOPERM no\r\n:5\r\n" + answer(value)
    other = answer(None, -2) + answer(value) + answer(None, -2) + answer(value) + answer(value) + bulk(value) + b"-ERR x\r\n"
    found = compared(one, other, 6)
    assert [each.at for each in found] == [0, 1, 2, 4, 5]
    assert [each.values for each in found] == [(value, None), (None, value), (None, None), (None, value), (value, value)]
    assert [each.refusals for each in found] == [(b"", b"")] * 3 + [(b"NOPERM no", b""), (b"", b"ERR x")]
    assert found[0].expires == (-1, -2)
    # both answer the same: nothing
    assert len(compared(answer(None, -2), answer(None, -2))) == 1
    assert len(compared(b"-NOPERM no\r\n:1\r\n", b"-NOPERM no\r\n:1\r\n")) == 1
    with pytest.raises(CorruptError):
        compared(answer(value), answer(value) + answer(value), 2)


@pytest.mark.parametrize(
    ("times", "bases", "slack", "differ"),
    [
        ((-1, -1), (0, 0), 0, False),
        ((-1, 5), (0, 0), 1000, True),
        ((5, -1), (0, 0), 1000, True),
        ((1000, 2000), (0, 0), 1000, False),
        ((2000, 1000), (0, 0), 1000, False),
        ((1000, 2001), (0, 0), 1000, True),
        ((9000, 1000), (0, 8000), 0, False),  # the second tells how long it has left
        ((1000, 9000), (8000, 0), 0, False),
        ((-1, -1), (8000, 0), 0, False),
        ((1000, 1000), (8000, 9000), 999, True),  # the same words at different times
        ((1000, 1000), (8000, 9000), 1000, False),
    ],
)
def test_expiries(times: tuple[int, int], bases: tuple[int, int], slack: int, differ: bool) -> None:
    value = payload(0, string(b"v"))
    found = compared(answer(value, times[0]), answer(value, times[1]), bases=bases, slack=slack)
    assert [each.expires_otherwise for each in found] == [True] * differ


def test_pages_of_random_keys() -> None:
    source = random.Random(7)
    one, other, wanted = [], [], []
    for at in range(2000):
        data = bytes(source.choices(b"\r\n$-1ab", k=source.randrange(40)))
        same = source.random() < 0.9
        one.append(answer(payload(0, string(data))))
        other.append(answer(payload(0, string(data if same else data + b"!"), source.choice([9, 12]))))
        if not same:
            wanted.append(at)
    comparison = Comparison(1 << 20)
    found = comparison.compare(b"".join(one), b"".join(other), 2000, (0, 0), 0, False)
    assert [each.at for each in found] == wanted
    assert comparison.same_bytes == 2000 - len(wanted)
    assert comparison.compare(b"".join(one), b"".join(one), 2000, (0, 0), 0, False) == []
    assert len(comparison.compare(b"".join(one), b"".join(one), 2000, (0, 0), 0, True)) == 2000

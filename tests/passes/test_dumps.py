"""Answers to DUMP, cut anywhere: the same commands and the same records come out, and what is no answer is said to be none."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from rdbkit.errors import ChecksumError, CorruptError
from rdbkit.format.payload import Payload, encode_payload
from rdbkit.format.replies import NOTHING, Refusal, Replies
from rdbkit.format.scan import Scanner
from rdbkit.format.slots import key_slot
from rdbkit.passes import dumps
from rdbkit.passes.dumps import Answers, Gatherer, Weaver
from rdbkit.passes.pages import Layout, Page, ScanReply, SizeReplies, page_of, questions, size_questions
from rdbkit.passes.restores import Outbox, Restorer, Router, Sent
from rdbkit.resp import bulk, command
from rdbkit.selection import Selection

NAMES = [b"a", b"", b"gone", b"\r\n$3\r\n", b"{tag}x", b"n" * 100, b"no", b"late"]
FAR = 4_102_444_800_000
VALUES = [encode_payload(Payload(0, b"\x01" + bytes([n]), 10)) for n in range(len(NAMES))]


def answer(layout: Layout) -> bytes:
    """What a server says: of each key its value, and its expiry; the third is gone, the seventh refused, the last changes."""
    parts: list[bytes] = []
    group = layout.group or 1
    for start in range(0, len(NAMES), group):
        numbers = range(start, min(start + group, len(NAMES)))
        asked = 2 * len(numbers) + (0 if layout.absolute else 1)
        if layout.group:
            parts.append(b"+OK\r\n" + b"+QUEUED\r\n" * asked + b"*%d\r\n" % asked)
            if not layout.absolute:
                parts.append(b"*2\r\n$10\r\n4102444800\r\n$6\r\n123999\r\n")
        values, expiries = [], []
        for n in numbers:
            expiry = b":-2\r\n" if n == 2 else b":%d\r\n" % (FAR + n if layout.absolute else 1000 + n) if n % 2 else b":-1\r\n"
            value = b"$-1\r\n" if n == 2 else b"-NOPERM no\r\n" if n == 6 else bulk(VALUES[n])
            values.append(value)
            expiries.append(expiry)
        if layout.group:
            parts += [*expiries, *values]
        else:
            before = b":5\r\n" if 7 in numbers else expiries[0]
            parts += [before, *values, *expiries]
    return b"".join(parts)


def router(boxes: int = 1) -> Router:
    made = Router()
    made.assign([Outbox() for _ in range(boxes)], [slot % boxes for slot in range(16384)] if boxes > 1 else [])
    return made


def fed(make: Callable[[], Answers], pieces: list[bytes]) -> Answers:
    answers = make()
    for number, piece in enumerate(pieces):
        assert answers.feed(piece) == (number == len(pieces) - 1)
    assert answers.rest() == b""
    return answers


LAYOUTS = [Layout(3, True), Layout(64, True), Layout(2, False), Layout(0, True), Layout(1, True)]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: f"{layout.group}-{layout.absolute}")
def test_commands_and_records_are_the_same_wherever_the_answers_are_cut(layout: Layout) -> None:
    data = answer(layout)
    page = page_of(NAMES)

    def commands(pieces: list[bytes]) -> tuple[bytes, bytes]:
        where = router()
        woven = fed(lambda: Weaver(page, layout, 0, where, False), pieces)
        return where.boxes[0].take()[0], woven.fates.getvalue()

    def records(pieces: list[bytes]) -> bytes:
        made = fed(lambda: Gatherer(page, layout, 10), pieces)
        assert isinstance(made, Gatherer)
        return made.out.getvalue()

    whole, fates = commands([data])
    rows = records([data])
    lives = [n for n in range(len(NAMES)) if n not in ({2, 6, 7} if layout.group == 0 else {2, 6})]
    expected = [
        [b"RESTORE", NAMES[n], b"%d" % (FAR + n if layout.absolute else FAR + 1123 + n) if n % 2 else b"0", VALUES[n], b"ABSTTL"]
        for n in lives
    ]
    assert whole == b"".join(command(*each) for each in expected)
    assert [fate == dumps.FOUND for fate in fates] == [n in lives for n in range(len(NAMES))]
    assert (fates[2], fates[6]) == (dumps.GONE, dumps.FAILED)
    assert rows.count(b"\x01") >= len(lives)
    for cut in range(1, len(data)):
        assert commands([data[:cut], data[cut:]]) == (whole, fates)
        assert records([data[:cut], data[cut:]]) == rows
    assert commands([data[n : n + 1] for n in range(len(data))]) == (whole, fates)
    rng = random.Random(1)
    for _ in range(50):
        cuts = [0, *sorted(rng.sample(range(1, len(data)), 5)), len(data)]
        pieces = [data[a:b] for a, b in itertools.pairwise(cuts)]
        assert commands(pieces) == (whole, fates)


def test_a_transaction_that_is_refused_fails_its_keys_alone() -> None:
    page = page_of([b"a", b"b", b"c"])
    data = b"+OK\r\n+QUEUED\r\n-MOVED 1 a:1\r\n+QUEUED\r\n+QUEUED\r\n-EXECABORT because\r\n"
    data += b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:-1\r\n" + bulk(VALUES[0])
    where = router()
    answers = fed(lambda: Weaver(page, Layout(2, True), 0, where, True), [data])
    assert answers.fates.getvalue() == bytes([dumps.FAILED, dumps.FAILED, dumps.FOUND])
    assert answers.failures == {0: Refusal("MOVED", "1 a:1"), 1: Refusal("MOVED", "1 a:1")}
    assert where.boxes[0].take() == (command(b"RESTORE", b"c", b"0", VALUES[0], b"ABSTTL", b"REPLACE"), 1)


@pytest.mark.parametrize(
    ("absolute", "times", "fate"),
    [
        (True, (-1, -1), dumps.FOUND),
        (True, (FAR, FAR), dumps.FOUND),
        (True, (FAR, FAR + 1), dumps.CHANGED),
        (True, (FAR, -1), dumps.CHANGED),
        (True, (-1, FAR), dumps.CHANGED),
        (True, (-2, FAR), dumps.CHANGED),  # it came meanwhile
        (False, (2000, 1990), dumps.FOUND),
        (False, (2000, 1000), dumps.FOUND),
        (False, (2000, 999), dumps.CHANGED),  # so much time has not gone by
        (False, (2000, 2001), dumps.CHANGED),
        (False, (2000, -1), dumps.CHANGED),
        (True, (FAR, -2), dumps.GONE),  # it has expired behind its value
        (False, (2000, -2), dumps.GONE),
    ],
)
def test_a_value_has_the_expiry_that_it_had_before_and_after_it_was_read(absolute: bool, times: tuple[int, int], fate: int) -> None:
    data = b":%d\r\n" % times[0] + bulk(VALUES[0]) + b":%d\r\n" % times[1]
    where = router()
    answers = fed(lambda: Weaver(page_of([b"a"]), Layout(0, absolute), 0, where, False, FAR), [data])
    assert answers.fates.getvalue() == bytes([fate])
    until = b"0" if times[1] == -1 else b"%d" % (times[1] if absolute else FAR + times[1])
    expected = command(b"RESTORE", b"a", until, VALUES[0], b"ABSTTL") if fate == dumps.FOUND else b""
    assert where.boxes[0].take()[0] == expected


def test_a_key_that_has_expired_within_a_transaction_is_gone() -> None:
    data = b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:-2\r\n" + bulk(VALUES[0])
    where = router()
    answers = fed(lambda: Weaver(page_of([b"a"]), Layout(1, True), 0, where, False), [data])
    assert answers.fates.getvalue() == bytes([dumps.GONE])
    assert where.boxes[0].take() == (b"", 0)


def test_where_the_time_is_not_told_in_a_transaction_the_one_that_is_known_counts() -> None:
    data = b"+OK\r\n" + b"+QUEUED\r\n" * 3 + b"*3\r\n-NOPERM no\r\n:1000\r\n" + bulk(VALUES[0])
    where = router()
    fed(lambda: Weaver(page_of([b"a"]), Layout(1, False), 0, where, False, FAR), [data])
    assert where.boxes[0].take()[0] == command(b"RESTORE", b"a", b"%d" % (FAR + 1000), VALUES[0], b"ABSTTL")


@pytest.mark.parametrize("group", [0, 2])
def test_an_expiry_that_may_not_be_asked_for_fails_its_key(group: int) -> None:
    no, value = b"-NOPERM no\r\n", bulk(VALUES[0])
    data = b"+OK\r\n" + b"+QUEUED\r\n" * 4 + b"*4\r\n" + no + b":-1\r\n" + value * 2
    if not group:
        data = no + value + no + b":-1\r\n" + value + b":-1\r\n"
    answers = fed(lambda: Weaver(page_of([b"a", b"b"]), Layout(group, True), 0, router(), False), [data])
    assert answers.fates.getvalue() == bytes([dumps.FAILED, dumps.FOUND])
    assert answers.failures == {0: Refusal("NOPERM", "no")}


def test_other_versions_and_odd_types_are_left_to_others() -> None:
    page = page_of([b"a", b"b"])
    data = bulk(VALUES[0]) + bulk(encode_payload(Payload(0, b"\x01a", 11)))
    data = b"+OK\r\n" + b"+QUEUED\r\n" * 4 + b"*4\r\n" + b":-1\r\n" * 2 + data
    answers = fed(lambda: Weaver(page, Layout(9, True), 0, router(), False), [data])
    assert answers.fates.getvalue() == bytes([dumps.FOUND, dumps.OTHER_VERSION])
    weaver = Weaver(page, Layout(9, True), 10, router(), False)
    weaver.odd = bytes([1]) + bytes(255)
    weaver.feed(data)
    assert weaver.fates.getvalue()[0] == dumps.OTHER_WAY


def test_a_payload_with_a_wrong_checksum_becomes_no_record() -> None:
    data = b":-1\r\n" + bulk(VALUES[0][:-1] + b"!") + b":-1\r\n"
    with pytest.raises(ChecksumError):
        Gatherer(page_of([b"a"]), Layout(0, True), 0).feed(data)
    # a server that makes no checksum says zero
    none = b":-1\r\n" + bulk(VALUES[0][:-8] + bytes(8)) + b":-1\r\n"
    assert fed(lambda: Gatherer(page_of([b"a"]), Layout(0, True), 0), [none]).fates.getvalue() == bytes([dumps.FOUND])


@pytest.mark.parametrize(
    "data", [b"hello\r\n", b"+OK\r\n+QUEUED\r\n:1\r\n", b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n:1\r\n:1\r\n", b"*1\r\n"]
)
def test_what_is_no_answer_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(CorruptError):
        Gatherer(page_of([b"a"]), Layout(1, True), 0).feed(data)


def test_keys_go_to_the_node_that_has_their_slot() -> None:
    layout, where = Layout(64, True), router(3)
    fed(lambda: Weaver(page_of(NAMES), layout, 0, where, False), [answer(layout)])
    for number, box in enumerate(where.boxes):
        data, count = box.take()
        sent = Sent(data, count)
        for each in range(count):
            key, text = sent.command(each)
            assert key_slot(key) % 3 == number
            assert text.startswith(b"*5\r\n$7\r\nRESTORE\r\n" + bulk(key))


def test_records_become_the_payloads_that_they_came_from() -> None:
    layout = Layout(64, True)
    made = fed(lambda: Gatherer(page_of(NAMES), layout, 0), [answer(layout)])
    assert isinstance(made, Gatherer)
    there = router()
    fed(lambda: Weaver(page_of(NAMES), layout, 0, there, False), [answer(layout)])
    (back,) = restored(made.out.getvalue())
    assert back.take() == there.boxes[0].take()


def restored(block: bytes, boxes: int = 1) -> list[Outbox]:
    """The commands that records of RDB 10 become, by node."""
    where = router(boxes)
    Scanner("redis", 10, 1 << 20).scan(block, 0, len(block), Restorer(10, 1 << 20, where, False))
    return where.boxes


@pytest.mark.parametrize(
    "value", [b"\xc0\x0c", b"\xc2\x00\x00\x00\x80", b"\xc3\x05\x0a\x00a\xe0\x00\x00"], ids=["int8", "int32", "lzf"]
)
def test_strings_that_are_packed_stay_so(value: bytes) -> None:
    (box,) = restored(b"\x00\x01a" + value)
    assert box.take()[0] == command(b"RESTORE", b"a", b"0", encode_payload(Payload(0, value, 10)), b"ABSTTL")


@pytest.mark.parametrize("expire_ms", [0, 1, FAR])
def test_a_record_that_expires_never_becomes_one_that_stays(expire_ms: int) -> None:
    (box,) = restored(b"\xfc" + expire_ms.to_bytes(8, "little") + b"\x00\x01a\x01v")
    until = b"%d" % max(expire_ms, 1)  # 0 is for ever
    assert box.take()[0] == command(b"RESTORE", b"a", until, encode_payload(Payload(0, b"\x01v", 10)), b"ABSTTL")


def test_records_go_to_the_node_that_has_their_slot() -> None:
    block = b"".join(b"\x00" + bytes([len(name)]) + name + b"\x01v" for name in [b"%d" % n for n in range(100)])
    counts = []
    for number, box in enumerate(restored(block, 3)):
        data, count = box.take()
        sent = Sent(data, count)
        counts.append(count)
        assert {key_slot(sent.command(each)[0]) % 3 for each in range(count)} == {number}
    assert sum(counts) == 100


def test_questions_are_what_a_server_takes() -> None:
    replies = Replies()
    replies.feed(questions(page_of([b"a", b"b", b"c"]), Layout(2, False)))
    found = []
    while (each := replies.take()) is not NOTHING:
        found.append(b" ".join(each).decode())
    assert found == ["MULTI", "TIME", "PTTL a", "PTTL b", "DUMP a", "DUMP b", "EXEC", "MULTI", "TIME", "PTTL c", "DUMP c", "EXEC"]
    replies.feed(size_questions(page_of([b"a"])))
    assert replies.take() == [b"MEMORY", b"USAGE", b"a"]
    assert questions(Page(b"", 0), Layout(2, True)) == b""


def test_a_page_is_read_wherever_it_is_cut() -> None:
    data = b"*2\r\n$20\r\n18446744073709551615\r\n*3\r\n" + page_of([b"a", b"\r\n", b"{b}c"]).names
    for cut in range(len(data)):
        reply = ScanReply()
        assert not reply.feed(data[:cut])
        assert reply.feed(data[cut:] + b"+OK\r\n")
        assert reply.rest() == b"+OK\r\n"
        assert (reply.cursor, reply.page.keys()) == (b"18446744073709551615", [b"a", b"\r\n", b"{b}c"])
    wanted = bytearray(16384)
    wanted[key_slot(b"b")] = 1
    assert reply.page.in_slots(bytes(wanted)).keys() == [b"{b}c"]
    assert reply.page.wanted_by(Selection(prefixes="{b}").filter_for({}, 0)).keys() == [b"{b}c"]
    assert reply.page.chosen(b"\1\0\1").keys() == [b"a", b"{b}c"]
    reply = ScanReply()
    assert reply.feed(b"-NOPERM no\r\n")
    assert reply.failure == Refusal("NOPERM", "no")
    with pytest.raises(CorruptError):
        ScanReply().feed(b"*2\r\n$1\r\n0\r\n:1\r\n")


def test_sizes_tell_the_large_ones() -> None:
    sizes = SizeReplies(4, 100)
    assert not sizes.feed(b":101\r\n$-1\r\n:1")
    assert sizes.feed(b"00\r\n-ERR no\r\n+OK\r\n")
    assert (sizes.small.getvalue(), sizes.any_large, sizes.refused) == (b"\0\1\1\1", True, Refusal("ERR", "no"))
    assert sizes.rest() == b"+OK\r\n"

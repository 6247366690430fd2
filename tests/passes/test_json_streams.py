"""Streams as JSON text: entries that are written out of their node's bytes, held to those that are made of objects."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from librt.strings import BytesWriter

from rdbkit.errors import RdbError
from rdbkit.format.budget import Budget
from rdbkit.format.sink import Items, Sink
from rdbkit.format.streams import StreamDecoder
from rdbkit.passes.json_streams import StreamWriter, stream_value
from rdbkit.values import StreamId

from ..encoders import U64, listpack, raw_id, stream, streams
from ..rdb import length, string

#: What numbers of a node may be replaced by: other numbers, also as text, and text that is no number.
ODD: list[bytes | int] = [
    0,
    1,
    2,
    3,
    4,
    -1,
    127,
    1 << 40,
    -(1 << 63),
    (1 << 63) - 1,
    b"3",
    b"02",
    b"-1",
    b"+3",
    b"",
    b"x",
    b"\xff",
    b"y" * 300,
]


def decoded(level: int, data: bytes, sink: Sink, most: int) -> tuple[Any, ...]:
    """What a decoder says of a stream and is afterwards, where it left off, and what is wrong with it."""
    decoder = StreamDecoder(level, 1 << 20, Budget())
    decoder.most = most
    error = None
    at: list[int] = [0]
    try:
        while not decoder.done and (len(at) == 1 or decoder.paused):
            at.append(decoder.feed(data, at[-1], sink))
    except RdbError as e:
        error = (type(e), e.message, e.rule, e.offset)
    doubts = [(e.message, e.rule) for e in decoder.doubts]
    state = (decoder.entries_seen, decoder.nodes_seen, decoder.dead, decoder.last, decoder.last_live, decoder.last_node)
    return error, doubts, decoder.done, decoder.need, at, decoder.spent, state


def assert_the_same(level: int, data: bytes, most: int = 1 << 62) -> None:
    out, items = BytesWriter(), Items()
    writer = StreamWriter(out)
    writer.begin()
    found = decoded(level, data, writer, most)
    assert found == decoded(level, data, items, most)
    if found[2]:
        writer.finish()
        assert out.getvalue() == stream_value(items.items)


@given(st.integers(1, 5).flatmap(lambda level: st.tuples(st.just(level), streams(level))), st.integers(0, 1 << 32))
@settings(max_examples=60)
def test_any_stream(drawn: tuple[int, Any], seed: int) -> None:
    level, value = drawn
    rng = Random(seed)
    data = stream(level)(value, rng)
    assert_the_same(level, data)
    assert_the_same(level, data, rng.choice([0, 1, 100, 1000]))
    for _ in range(8):
        damaged = bytearray(data)
        for _ in range(rng.choice([1, 1, 1, 3])):
            damaged[rng.randrange(len(data))] = rng.choice(
                [0, 1, 2, 0x7F, 0x80, 0xC0, 0xE0, 0xF0, 0xF1, 0xF4, 0xFF, rng.randrange(256)]
            )
        assert_the_same(level, bytes(damaged[: rng.choice([len(data), rng.randrange(len(data) + 1)])]))


def node_items(rng: Random) -> list[bytes | int]:
    """A listpack of three to eight entries, some of them deleted, some with fields of their own."""
    names = [b"f%d" % n for n in range(rng.randrange(4))]
    rows: list[bytes | int] = []
    live = deleted = 0
    for n in range(rng.randrange(3, 9)):
        gone = rng.random() < 0.2
        same = rng.random() < 0.6
        live, deleted = live + (not gone), deleted + gone
        rows += [gone | 2 * same, n // 3, n]
        some: list[bytes | int] = [b"v", n, -n, b'"\\', b"\n", b"\xc3\xa9", b"\xff", b"w" * 70, 1 << 50]
        values = [rng.choice(some) for _ in names]
        if same:
            rows += [*values, len(names) + 3]
        else:
            rows += [len(names), *(part for pair in zip(names, values, strict=True) for part in pair), 2 * len(names) + 4]
    return [live, deleted, len(names), *names, 0, *rows]


def one_node(key: StreamId, items: list[bytes | int], rng: Random) -> bytes:
    """A stream of level 1 with one node."""
    live = items[0] if items and isinstance(items[0], int) and 0 <= items[0] < 64 else 3
    return length(1) + string(raw_id(key)) + string(listpack(items, rng)) + length(live) + b"\x81" + b"\xff" * 8 + b"\0" * 2


KEYS = st.one_of(
    st.just(StreamId(5, 0)),
    st.builds(StreamId, *[st.sampled_from([0, (1 << 62) - 1, 1 << 62, (1 << 63) - 1, 1 << 63, U64 - 3, U64])] * 2),
)


@given(KEYS, st.integers(0, 1 << 32))
@settings(max_examples=300)
def test_a_node_with_an_odd_part(key: StreamId, seed: int) -> None:
    rng = Random(seed)
    items = node_items(rng)
    assert_the_same(1, one_node(key, items, rng))
    for _ in range(10):
        odd = list(items)
        at = rng.randrange(len(odd))
        match rng.randrange(4):
            case 0:
                odd[at] = rng.choice(ODD)
            case 1:
                del odd[at]
            case 2:
                odd.insert(at, rng.choice(ODD))
            case _:
                odd = odd[:at]
        assert_the_same(1, one_node(key, odd, rng))


@example(1 << 16)
@given(st.integers(0, 1 << 17))
@settings(max_examples=5)
def test_an_entry_of_any_size(size: int) -> None:
    """Large nodes are counted before anything is made of their entries."""
    rng = Random(size)
    items: list[bytes | int] = [2, 0, 1, b"f", 0, 2, 0, 0, b"v" * size, 4, 0, 0, 1, 1, b"n" * 3, b"w" * size, 6]
    assert_the_same(1, one_node(StreamId(5, 0), items, rng))


FINE: list[bytes | int] = [2, 1, 1, b"f", 0, 2, 0, 0, b"a", 4, 3, 0, 1, b"gone", 4, 0, 1, 0, 1, b"g", -7, 6]


def test_what_is_told_without_objects() -> None:
    """A node as servers write it, its deleted entry left out."""
    decoder, out = StreamDecoder(1, 1 << 20, Budget()), BytesWriter()
    assert decoder.tell(raw_id(StreamId(5, 9)), listpack(FINE, Random(1)), StreamWriter(out))
    assert out.getvalue() == b'["5-9",[["f","a"]]],["6-9",[["g","-7"]]]'
    assert (decoder.entries_seen, decoder.nodes_seen, decoder.last, decoder.last_live) == (2, 1, StreamId(6, 9), StreamId(6, 9))


@pytest.mark.parametrize(
    ("at", "part"),
    [
        (0, 3),
        (0, -2),
        (1, 0),
        (2, 2),
        (2, 1 << 40),
        (4, 1),
        (5, b"02"),
        (6, -6),
        (7, 2),
        (9, 5),
        (11, -1),
        (18, 2),
        (18, -1),
    ],
)
def test_what_is_left_to_objects(at: int, part: bytes | int) -> None:
    items = [*FINE[:at], part, *FINE[at + 1 :]]
    decoder, out = StreamDecoder(1, 1 << 20, Budget()), BytesWriter()
    assert not decoder.tell(raw_id(StreamId(5, 9)), listpack(items, Random(1)), StreamWriter(out))
    assert (decoder.entries_seen, decoder.nodes_seen, decoder.last, decoder.last_live) == (0, 0, None, None)

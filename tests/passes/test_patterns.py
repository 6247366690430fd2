"""The patterns that names of keys follow: folded right, counted once, in bounded memory."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdbkit.passes.patterns import CHILDREN, KEPT, NODES, Node, Patterns, fold


def counts(names: list[bytes], separators: bytes = b":", depth: int = 3) -> dict[bytes, int]:
    """How many names each place of the tree has of its own."""
    patterns = Patterns(separators, depth)
    for name in names:
        node = patterns.find(name)
        node.keys += 1
    found: dict[bytes, int] = {}

    def walk(node: Node, before: bytes) -> None:
        name = before + node.name
        if node.keys:
            found[name] = found.get(name, 0) + int(node.keys)
        for child in node.children.values():
            walk(child, name)

    walk(patterns.root, b"")
    return found


@pytest.mark.parametrize(
    ("name", "folded"),
    [
        (b"user:1", b"user:{id}"),
        (b"user:123456789012", b"user:{id}"),
        (b"page:1:views", b"page:{id}:views"),
        (b"session:9f86d081884c7d65", b"session:{id}"),
        (b"SESSION:9F86D081884C7D65", b"SESSION:{id}"),
        (b"job:0b0d3f5c-8a55-4b6e-9b5c-6e2f6b1c2a33", b"job:{id}"),
        (b"v2:item7", b"v{id}:item{id}"),
        (b"feed:cafe", b"feed:cafe"),  # hexadecimal digits alone make no id
        (b"t:deadbee", b"t:deadbee"),
        (b"t:deadbeef", b"t:{id}"),
        (b"t:xdeadbeef", b"t:xdeadbeef"),
        (b"2024-01-15", b"{id}-{id}-{id}"),
        (b"", b""),
        (b"\xff\x00 7", b"\xff\x00 {id}"),
    ],
)
def test_ids_are_folded(name: bytes, folded: bytes) -> None:
    assert fold(name) == folded
    assert counts([name]) == {folded: 1}


def test_depth_and_separators() -> None:
    names = [b"a:b:c:d", b"a:b:c", b"a:b", b"a", b"a:", b":a", b"::"]
    assert counts(names, depth=1) == {b"a:": 4, b"a": 1, b":": 2}
    assert counts(names, depth=2) == {b"a:b:": 2, b"a:b": 1, b"a": 1, b"a:": 1, b":a": 1, b"::": 1}
    assert counts([b"a.b-c", b"a.b"], b".-") == {b"a.b-c": 1, b"a.b": 1}
    assert counts([b"a]b^c"], b"]^") == {b"a]b^c": 1}
    assert counts([b"a:b:c"], b"") == {b"a:b:c": 1}


NAMES = st.lists(
    st.one_of(
        st.from_regex(rb"[abf]{0,3}[:.-]?[0-9af]{0,12}(:[a-z0-9]{0,4})?", fullmatch=True),
        st.binary(max_size=12),
        st.from_regex(rb"x:[0-9a-f]{8}-[0-9a-f]{4}:[0-9]{1,3}", fullmatch=True),
    ),
    max_size=60,
)


@settings(max_examples=300)
@given(NAMES)
def test_what_is_remembered_of_names_is_what_folding_says(names: list[bytes]) -> None:
    """Names are looked up by what they have in common with others before; the answer has to be that of each alone."""
    together = counts(names, depth=50)
    alone: Counter[bytes] = Counter()
    for name in names:
        alone.update(counts([name], depth=50))
    assert together == alone


def test_a_place_with_too_many_names_keeps_the_largest() -> None:
    patterns = Patterns(b":", 3)
    words = [re.sub(rb"[0-9a-f]", lambda m: bytes([m[0][0] % 20 + 0x67]), b"%d-%d" % (i, i * i)) for i in range(CHILDREN + 500)]
    for word in words:
        for name, times in ((b"z:" + word, 1), (b"z:big%c" % (0x67 + len(word) % 5), 3)):
            node = patterns.find(name)
            node.keys += times
            node.bytes += times
    assert patterns.root.total().keys == 4 * len(words)
    (place,) = patterns.root.children.values()
    assert place.closed
    assert len(place.children) == KEPT + 1
    assert place.children[b"*"].total().keys > 0
    big = [child for name, child in place.children.items() if name.startswith(b"big")]
    assert sum(child.total().keys for child in big) == 3 * len(words)


def test_the_tree_is_bounded() -> None:
    patterns = Patterns(b":", 10)
    letters = b"ghijklmnopqrstuvwxyz"
    total = 0
    for i in range(200_000):
        parts = [bytes([letters[i * k % 20], letters[i // 20 * k % 20]]) for k in (1, 3, 7)]
        node = patterns.find(b":".join(parts))
        node.keys += 1
        total += 1
    assert patterns.root.count() <= 3 * NODES
    assert patterns.root.total().keys == total

"""What a target has already is told from what it has otherwise, whatever order and encoding its values have."""

from __future__ import annotations

import pytest

from fixtures.server import RELEASES

from ..rdb import FIXTURES
from .test_transfer import FAR, copied, pair


@pytest.mark.parametrize(
    ("source", "target"), [("redis-7.0", "redis-7.0"), ("redis-6.0", "valkey-9.1"), ("redis-8.0", "redis-8.0")]
)
def test_what_was_copied_is_the_same(source: str, target: str) -> None:
    with pair(source, target, FIXTURES / "rich" / f"{RELEASES[source]}.rdb") as (a, b):
        first, _, _ = copied(a, b, target)
        assert (first.written, first.refused) == (first.read, 0)
        again, _, told = copied(a, b, target)
        assert (again.equal, again.existing) == (first.read, 0), [each for each in told if each[2] != "equal"]


def test_what_differs_is_told_and_left_alone() -> None:
    with pair("redis-7.0", "redis-6.0") as (a, b):
        for client in (a, b):
            client.call("SET", "same", "v", "PXAT" if client is a else "PX", FAR if client is a else "100000000000000")
        a.pipeline(
            [("SET", "value", "1"), ("SET", "type", "1"), ("SET", "ttl", "1"), ("SADD", "set", *range(1000)), ("SET", "new", "1")]
        )
        b.pipeline(
            [("SET", "value", "2"), ("SADD", "type", "1"), ("SET", "ttl", "1", "PX", "1000000"), ("SADD", "set", *range(999))]
        )
        b.call("PEXPIREAT", "same", FAR)
        counts, _, told = copied(a, b, "redis-6.0")
        assert (counts.written, counts.equal, counts.existing) == (1, 1, 4)
        words = {key: detail for _, key, what, detail in told if what == "exists"}
        assert words[b"value"].startswith("the target has another value there: byte 0 of")
        assert words[b"type"] == "the target has another type there"
        assert words[b"ttl"] == "the target has another expiry there"
        assert words[b"set"].startswith("the target has another value there")
        assert b.call("GET", "value") == b"2"
        counts, _, _ = copied(a, b, "redis-6.0", on_exists="replace")
        assert counts.written == 6
        assert b.call("GET", "value") == b"1"

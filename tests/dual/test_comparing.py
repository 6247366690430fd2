"""Replies of two servers that say the same, and those that do not."""

from __future__ import annotations

from typing import Any

import pytest

from rdbkit.dual.comparing import differs, is_chosen
from rdbkit.format.replies import Refusal


@pytest.mark.parametrize(
    ("command", "one", "other"),
    [
        ("GET k", b"v", b"v"),
        ("SMEMBERS k", [b"a", b"b"], [b"b", b"a"]),
        ("hgetall k", [b"a", b"1", b"b", b"2"], [b"b", b"2", b"a", b"1"]),
        ("HKEYS k", [b"a", b"b"], [b"b", b"a"]),
        ("ZRANGE k 0 -1 WITHSCORES", [b"a", b"0.10000000000000001"], [b"a", b"0.1"]),
        ("ZSCORE k a", b"3", b"3.0"),
        ("TTL k", 100, 98),
        ("PTTL k", 100_000, 98_500),
        ("HTTL k FIELDS 2 a b", [100, -1], [99, -1]),
        ("SRANDMEMBER k", b"a", b"b"),
        ("DUMP k", b"\x00\x01a\x09", b"\x00\x01a\x0b"),
        ("GET k", b"v", Refusal("NOPERM", "")),
        ("GET k", Refusal("WRONGTYPE", ""), None),
    ],
)
def test_replies_that_say_the_same(command: str, one: Any, other: Any) -> None:
    args = command.encode().split()
    assert differs(args, one, other) is None
    assert differs(args, other, one) is None


@pytest.mark.parametrize(
    ("command", "one", "other", "what"),
    [
        ("GET k", b"v", b"w", "value"),
        ("GET k", b"v", None, "missing"),
        ("GET k", None, b"v", "extra"),
        ("GET k", b"1", b"1.0", "value"),
        ("EXISTS k", 1, 0, "missing"),
        ("LRANGE k 0 -1", [b"a", b"b"], [b"b", b"a"], "value"),
        ("SMEMBERS k", [b"a"], [b"b"], "value"),
        ("HGETALL k", [b"a", b"1"], [b"a", b"2"], "value"),
        ("HGETALL k", [b"a", b"b"], [b"b", b"a"], "value"),
        ("TTL k", 100, 97, "expiry"),
        ("TTL k", 100, -1, "expiry"),
        ("TTL k", 100, -2, "missing"),
        ("TTL k", -2, 1, "extra"),
        ("PEXPIRETIME k", 100_000, 97_000, "expiry"),
        ("HTTL k FIELDS 2 a b", [100, -1], [99, 50], "expiry"),
        ("ZSCORE k a", b"3", b"3.1", "value"),
        ("ZRANGE k 0 -1", [b"a", b"nan"], [b"a", b"x"], "value"),
    ],
)
def test_replies_that_differ(command: str, one: Any, other: Any, what: str) -> None:
    assert differs(command.encode().split(), one, other) == what


def test_a_share_of_the_keys_is_chosen_anew_in_each_minute() -> None:
    keys = [b"key:%d" % i for i in range(2000)]
    chosen = [[key for key in keys if is_chosen(0.1, key, minute * 60)] for minute in range(2)]
    assert all(150 < len(each) < 250 for each in chosen)
    assert chosen[0] != chosen[1]
    assert chosen[0] == [key for key in keys if is_chosen(0.1, key, 59)]

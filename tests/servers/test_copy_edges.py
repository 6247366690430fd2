"""Values and expiries at their limits, by each of the ways in which `copy` takes them."""

from __future__ import annotations

import random
from typing import Any

import pytest

from fixtures.server import Client
from rdbkit.live.copy import copy
from rdbkit.policy.rules import Policies

from .test_large_values import FAR, comparable, servers, url

#: How values are read and written.
WAYS: dict[str, dict[str, Any]] = {"restore": {}, "commands": {"write_by": "commands"}, "parts": {"big": 1}}
PAIRS = [("redis-7.0", "redis-7.0"), ("redis-8.0", "redis-6.0"), ("valkey-9.1", "redis-8.0"), ("redis-6.0", "valkey-9.1")]
#: Redis adds to what is left of an expiry; later than this, a server of 32 bits of days is of no help.
LATEST = 9_223_372_036_000
BINARY = bytes(range(256))

EDGES: list[tuple[Any, ...]] = [
    ("SET", "empty", ""), ("SET", "", "no name"), ("SET", "{}", "braces"), ("SET", "a\r\nb", "\r\n$-1\r\n"),
    ("SET", BINARY, BINARY),
    ("SET", "number", "-9223372036854775808"), ("SET", "float", "1e400"), ("SETBIT", "bitmap", 100_000, 1),
    ("PFADD", "hll", *range(2000)), ("PFADD", "hll-sparse", "a"), ("GEOADD", "geo", 13.361389, 38.115556, "Palermo"),
    ("RPUSH", "list", "", "007", "-0", "1" * 70_000), ("SADD", "set", "", "1", "01", BINARY), ("SADD", "ints", *range(-3, 600)),
    ("ZADD", "zset", "inf", "a", "-inf", "b", "-0", "c", "0.1", "d", "1e-320", "e", "1.7976931348623157e308", "f", 3, ""),
    ("HSET", "hash", "", "", "f", "", "", "v", BINARY, BINARY),
    ("XADD", "no-entries", "MAXLEN", 0, "5-5", "f", "v"), ("XGROUP", "CREATE", "groups-only", "g", "$", "MKSTREAM"),
    ("XADD", "pending", "1-1", "f", "v"), ("XADD", "pending", "2-1", "f", "v", "f", "w"), ("XADD", "pending", "3-1", "", ""),
    ("XGROUP", "CREATE", "pending", "g", "0"), ("XREADGROUP", "GROUP", "g", "c", "STREAMS", "pending", ">"),
    ("XREADGROUP", "GROUP", "g", "idle", "STREAMS", "pending", ">"), ("XCLAIM", "pending", "g", "d", 0, "3-1"),
    ("XDEL", "pending", "1-1", "2-1"), ("XGROUP", "CREATE", "pending", "h", "18446744073709551615-18446744073709551615"),
    ("XADD", "all-deleted", "7-0", "f", "v"), ("XDEL", "all-deleted", "7-0"),
    ("SET", "far", "v"), ("PEXPIREAT", "far", LATEST), ("RPUSH", "far-list", "v"), ("PEXPIREAT", "far-list", LATEST),
    ("SET", "soon", "v"), ("PEXPIREAT", "soon", FAR),
]  # fmt: skip


def numbers(client: Client) -> dict[tuple[int, str], Any]:
    """What is in a server, with scores as numbers: no command gives a server since Redis 7 a score of -0."""
    found = comparable(client)
    found[0, "zset"][1] = {name: float(score) for name, score in found[0, "zset"][1]}
    return found


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_values_at_their_limits(source: str, target: str, way: str) -> None:
    with servers(source, target) as (a, b):
        a.pipeline(EDGES)
        done = copy(url(a), url(b), policies=Policies(loss="drop"), samples=100, **WAYS[way])
        assert done.complete, done.samples
        assert done.counts.written == done.counts.read == a.integer("DBSIZE") == b.integer("DBSIZE")
        assert numbers(b) == numbers(a)
        assert b.integer("PFCOUNT", "hll") == a.integer("PFCOUNT", "hll")
        again = copy(url(a), url(b), policies=Policies(loss="drop"), samples=100, **WAYS[way])
        assert (again.counts.written, again.counts.existing, again.counts.equal) == (0, 0, again.counts.read), again.samples


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("source", "target"), [("redis-8.0", "valkey-9.1"), ("valkey-9.1", "redis-8.0")])
def test_fields_that_expire(source: str, target: str, way: str) -> None:
    with servers(source, target) as (a, b):
        a.pipeline(
            [
                ("HSET", "h", "f", "v", "g", "w"), ("HPEXPIREAT", "h", FAR, "FIELDS", 1, "f"),
                ("HSET", "all", "f", "v"), ("HPEXPIREAT", "all", FAR, "FIELDS", 1, "f"), ("PEXPIREAT", "all", FAR - 1000),
            ]
        )  # fmt: skip
        assert copy(url(a), url(b), **WAYS[way]).counts.written == 2
        assert comparable(a) == comparable(b)


@pytest.mark.parametrize("way", WAYS)
def test_keys_that_have_expired_are_not_written(way: str) -> None:
    with servers("redis-7.0", "redis-7.0") as (a, b):
        a.pipeline([("SET", f"k{i}", "v", "PX", 1) for i in range(50)] + [("RPUSH", "stays", "v")])
        done = copy(url(a), url(b), **WAYS[way])
        assert done.complete, done.samples
        assert [name for _, name in comparable(b)] == ["stays"]


@pytest.mark.parametrize("way", WAYS)
def test_what_the_target_has_under_a_name_is_compared_by_type_value_and_expiry(way: str) -> None:
    with servers("redis-7.0", "redis-7.0") as (a, b):
        for client in (a, b):
            client.pipeline([("RPUSH", name, "1", "2") for name in ("same", "value", "type", "expiry", "longer")])
        b.pipeline([("LSET", "value", 0, "x"), ("DEL", "type"), ("SADD", "type", "1", "2"), ("PEXPIREAT", "expiry", FAR)])
        b.call("RPUSH", "longer", "3")
        before = comparable(b)
        done = copy(url(a), url(b), **WAYS[way])
        assert (done.counts.equal, done.counts.existing, done.counts.written) == (1, 4, 0)
        assert {each.key: each.what for each in done.samples} == dict.fromkeys((b"value", b"type", b"expiry", b"longer"), "exists")
        assert all(each.detail for each in done.samples)
        assert comparable(b) == before


def test_a_target_that_is_older_than_it_was_said_to_be_gets_what_commands_can_write() -> None:
    with servers("redis-7.0", "redis-6.0") as (a, b):
        a.pipeline([("SET", "s", "v"), ("RPUSH", "l", "1"), ("HSET", "h", "f", "v"), ("PEXPIREAT", "h", FAR)])
        b.call("SET", "l", "mine")
        done = copy(url(a), url(b), takes="redis-7.0")
        assert (done.counts.written, done.counts.existing, done.counts.refused) == (2, 1, 0), done.samples
        assert b.text("GET", "l") == "mine"
        assert copy(url(a), url(b), takes="redis-7.0", on_exists="replace").complete
        assert comparable(a) == comparable(b)


def test_what_is_larger_than_the_target_takes_is_refused_and_the_rest_arrives() -> None:
    with servers("redis-7.0", "redis-7.0") as (a, b):
        b.call("CONFIG", "SET", "proto-max-bulk-len", 1 << 20)
        a.pipeline([("SET", "s", random.Random(7).randbytes(3 << 20)), ("RPUSH", "l", *(["y" * 100_000] * 30)), ("SET", "ok", 1)])
        for way in WAYS.values():
            done = copy(url(a), url(b), **way)
            assert (done.counts.refused, sorted(name for _, name in comparable(b))) == (1, ["l", "ok"])
            assert [(each.key, each.what) for each in done.samples] == [(b"s", "refused")]

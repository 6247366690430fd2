"""What `verify-copy` says of keys that were changed at random, judged by what both servers answer; `sync` then mends it."""

from __future__ import annotations

import random
from typing import Any

import pytest

from fixtures.server import Client, Command
from fixtures.shapes import commands
from rdbkit.live.sync import sync
from rdbkit.live.verify_copy import verify_copy

from ..live.oracle import FIELDS_EXPIRE, Content, content, differences, tolerance_ms
from .test_verify_copy import two
from .test_verify_import import FAR

PAIRS = [("redis-6.0", "redis-8.0"), ("redis-7.0", "valkey-9.1"), ("valkey-8.1", "redis-7.0"), ("redis-8.0", "valkey-9.1")]


def changes(noise: random.Random, kind: str, key: bytes) -> list[Command]:
    """Commands of which some change nothing."""
    text = noise.choice(["x", "12", "y" * 100])
    general: list[list[Command]] = [
        [("DEL", key)], [("PEXPIREAT", key, FAR + 10**9)], [("PERSIST", key)], [("DEL", key), ("SET", key, text)],
        [("RENAME", key, key + b"2")], [("EXISTS", key)],
    ]  # fmt: skip
    own: dict[str, list[list[Command]]] = {
        "string": [[("APPEND", key, text)], [("APPEND", key, "")], [("SETRANGE", key, noise.randrange(20), text)]],
        "list": [
            [("RPUSH", key, text)], [("LPOP", key)], [("RPOPLPUSH", key, key)], [("LSET", key, 0, text)],
            [("RPUSH", key, 1), ("RPOP", key)],
        ],
        "set": [[("SADD", key, text)], [("SPOP", key)], [("SADD", key, text), ("SREM", key, text)]],
        "zset": [[("ZADD", key, noise.random(), text)], [("ZPOPMAX", key)], [("ZADD", key, 1, text), ("ZREM", key, text)]],
        "hash": [[("HSET", key, text, text)], [("HSET", key, text, 1), ("HDEL", key, text)], [("HINCRBY", key, "new", 1)]],
        "stream": [
            [("XADD", key, "*", "f", text)], [("XTRIM", key, "MAXLEN", 1)], [("XGROUP", "CREATE", key, "another", 0)],
            [("XTRIM", key, "MAXLEN", 10**9)],
        ],
    }  # fmt: skip
    return noise.choice([*general, *own.get(kind, []), *own.get(kind, [])])


def differing(one: Content, other: Content, tolerance: int) -> set[tuple[int, bytes]]:
    """The keys that are not the same on both servers, by their answers."""
    found = set()
    for name in one.keys() | other.keys():
        rows = [{name: side[name]} if name in side else {} for side in (one, other)]
        if differences(rows[0], rows[1], tolerance):
            found.add(name)
    return found


def mutate(client: Client, rows: Content, noise: random.Random) -> None:
    for (db, key), row in sorted(rows.items()):
        client.call("SELECT", db)
        client.answers(changes(noise, row.type, key))
    client.call("SELECT", 0)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_what_differs_is_what_both_servers_say(one: str, other: str, seed: int) -> None:
    noise = random.Random(seed)
    with two(one, other) as (first, second, source, target):
        expires = one in FIELDS_EXPIRE and other in FIELDS_EXPIRE
        first.pipeline(commands(seed, 150, expires, most=300))
        assert sync(source, target, wait_s=0).clean
        tolerance = tolerance_ms(one, other)
        assert differing(content(first), content(second), max(1, tolerance)) == set()
        mutate(second, content(second), noise)
        wanted = differing(content(first), content(second), 1000)
        several: tuple[dict[str, Any], ...] = ({}, {"batch": 7}, {"big": 300})
        for options in several:
            proof = verify_copy(source, target, rounds=2, wait_s=0, find_extra=True, samples=10_000, **options)
            assert {(each.dbs[1], each.key) for each in proof.samples} == wanted, options
            assert proof.different == len(wanted)
            assert proof.not_compared == 0
        done = sync(source, target, wait_s=0, delete=True, samples=10_000)
        assert done.clean, done
        assert {(each.dbs[1], each.key) for each in done.repairs} == wanted
        assert differing(content(first), content(second), max(1, tolerance)) == set()

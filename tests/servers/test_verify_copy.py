"""`verify-copy` between real servers: what is the same is called so across versions, and what differs is found and explained."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fixtures.server import RELEASES, Client, running
from rdbkit.errors import TargetError
from rdbkit.live.server import connect
from rdbkit.live.verify_copy import CopyProof, verify_copy
from rdbkit.selection import Selection

from ..command_line import run
from ..live.writers import meanwhile
from ..rdb import FIXTURES
from .test_verify_import import AFTER, BEFORE, FAR, port_of

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
PAIRS = [
    ("redis-6.0", "redis-8.0"), ("redis-8.0", "redis-6.0"), ("redis-7.0", "valkey-9.1"), ("valkey-9.1", "redis-7.0"),
    ("redis-8.0", "valkey-9.1"), ("valkey-8.1", "redis-8.0"), ("redict-7.3", "redis-6.0"), ("redis-7.0", "redis-7.0"),
]  # fmt: skip
WANTED = {
    "gone": "missing", "fifth": "missing", "other-type": "type", "sooner": "expire", "persistent": "expire", "expiring": "expire",
    "new": "extra", "newer": "extra",
    **dict.fromkeys(
        (
            "string", "longer", "shorter", "list", "list-longer", "list-shorter", "set", "set-more", "set-int", "zset", "zset-less",
            "hash", "hash-more", "hash-less", "stream", "entries", "entry", "last", "group-gone", "group-new", "consumer",
            "group-id",
        ),
        "value",
    ),
}  # fmt: skip


@contextmanager
def two(one: str = "redis-7.0", other: str | None = None, conf: tuple[str, ...] = ()) -> Iterator[tuple[Client, Client, str, str]]:
    """Two empty servers, and their URLs."""
    with (
        running(SERVERS / one / "redis-server") as (first, _),
        running(SERVERS / (other or one) / "redis-server", conf=list(conf)) as (second, _),
    ):
        yield first, second, f"redis://127.0.0.1:{port_of(first)}", f"redis://127.0.0.1:{port_of(second)}"


def compared(source: str, target: str, **options: Any) -> CopyProof:
    return verify_copy(source, target, **{"wait_s": 0, "samples": 100, **options})


def said(*arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of a command."""
    result = run(*arguments)
    return result.returncode, result.stdout.decode(), result.stderr.decode()


def found(proof: CopyProof) -> dict[str, str]:
    return {each.key.decode(): each.what for each in proof.samples}


def details(proof: CopyProof, name: str) -> list[str]:
    return next(each.details for each in proof.samples if each.key == name.encode())


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_all_kinds_of_differences_across_versions(one: str, other: str) -> None:
    with two(one, other) as (first, second, source, target):
        first.pipeline(BEFORE)
        second.pipeline(BEFORE)
        proof = compared(source, target, find_extra=True)
        assert proof.same, proof
        assert proof.rounds == 1
        assert proof.keys == proof.checked == proof.equal == 30
        second.pipeline(AFTER)
        for options in ({"rounds": 1}, {"rounds": 2}, {"batch": 3}, {"big": 0}):
            proof = compared(source, target, find_extra=True, **options)
            assert not proof.same
            assert found(proof) == WANTED
            assert proof.equal == 30 - len(WANTED) + 2
            assert proof.different == len(WANTED)
            assert proof.rounds == options.get("rounds", 3)
        assert details(proof, "string") == ["byte 6 of 11 and 11: b'world' and b'World'"]
        assert details(proof, "set") == ["member: b'm7' and none", "member: none and b'new'"]
        assert details(proof, "hash-more") == ["1 and 2 elements", "b'g': extra"]
        assert details(proof, "zset") == ["b'b': 2.5 and 2.25"]
        assert "group b'g': missing" in details(proof, "group-gone")
        assert [(row.db, row.source, row.target) for row in proof.databases] == [(0, 29, 30), (5, 1, 0)]


@pytest.mark.parametrize("kind", ["rich", "random"])
@pytest.mark.parametrize("line", RELEASES)
def test_what_was_loaded_twice_is_the_same(line: str, kind: str) -> None:
    path = FIXTURES / kind / f"{RELEASES[line]}.rdb"
    server = SERVERS / line / "redis-server"
    with running(server, path) as (first, _), running(server, path) as (second, _):
        urls = [f"redis://127.0.0.1:{port_of(client)}" for client in (first, second)]
        proof = compared(*urls, find_extra=True)
        assert proof.same, proof
        assert proof.equal + proof.not_compared == proof.checked == proof.keys > 0


@pytest.mark.parametrize(("one", "other"), [("redis-8.0", "valkey-9.1"), ("redis-8.0", "redis-8.0"), ("valkey-9.1", "redis-8.0")])
def test_expiries_of_fields_may_be_near(one: str, other: str) -> None:
    with two(one, other) as (first, second, source, target):
        for client, late in ((first, 0), (second, 800)):
            for name, more in (("near", 0), ("far", 5)):
                client.pipeline(
                    [
                        ("HSET", name, "f", "v", "g", "w"),
                        ("HPEXPIREAT", name, FAR + late * (1 + more), "FIELDS", 1, "f"),
                    ]
                )
        proof = compared(source, target)
        assert found(proof) == {"far": "value"}
        assert "expiry of b'f'" in details(proof, "far")[0]
        assert proof.equal == 1
        assert compared(source, target, ttl_tolerance_ms=0).value == 2


def test_keys_that_change_all_the_time_are_told_apart() -> None:
    with two() as (first, second, source, target):
        first.pipeline([("SET", "still", 1), ("SET", "steady", 1)])
        second.pipeline([("SET", "still", 2), ("SET", "steady", 1)])
        with closing(Client(int(source.rsplit(":", 1)[1]))) as writer:

            def write(n: int) -> None:
                writer.call("SET", "busy", n)
                writer.call("RPUSH", "growing", n)
                writer.call("SET", "renewed", 1)
                writer.call("PEXPIREAT", "renewed", FAR + 5000 * n)

            with meanwhile(write):
                proof = compared(source, target, rounds=4, wait_s=0.05)
        names = found(proof)
        assert names.pop("still") == "value"
        assert set(names.values()) == {"changing"}
        assert set(names) <= {"busy", "growing", "renewed"}
        assert proof.changing == len(names)
        assert proof.value == 1
        assert any("changed on the source" in note for note in proof.notes)


def test_what_has_expired_or_was_deleted_is_no_difference() -> None:
    with two() as (first, second, source, target):
        for client in (first, second):
            client.pipeline([("SET", f"k{i}", i) for i in range(20)])
        first.pipeline([("EXPIRE", "k0", 1000), ("EXPIRE", "k1", 100_000), ("DEL", "k2")])
        second.pipeline([("DEL", "k0", "k1", "k2")])
        # what expires within the tolerance may have expired on one of them
        proof = compared(source, target, ttl_tolerance_ms=2_000_000)
        assert found(proof) == {"k1": "missing"}
        assert proof.expired == 1
        assert proof.equal == 17


def test_a_part_of_the_keys() -> None:
    with two() as (first, second, source, target):
        first.pipeline([("SET", f"a:{i}", i) for i in range(2000)] + [("RPUSH", f"b:{i}", i) for i in range(50)])
        first.pipeline([("SELECT", 3), ("SET", "c", 1), ("SELECT", 0)])
        proof = compared(source, target, rounds=1, pick=0.1)
        assert 100 < proof.checked == proof.missing < 320
        assert proof.keys == 2051
        again = compared(source, target, rounds=1, pick=0.1)
        assert found(again)
        assert again.missing == proof.missing
        assert compared(source, target, rounds=1, pick=0.1, seed=5).missing != 0
        assert 20 < compared(source, target, rounds=1, pick=100).checked < 250
        for selection, number in (
            (Selection(prefixes="b:"), 50), (Selection(types="list"), 50), (Selection(keys="a:1?"), 10), (Selection(dbs=3), 1),
            (Selection(expiry="no-ttl", keys="a:*"), 2000),
        ):  # fmt: skip
            proof = compared(source, target, rounds=2, selection=selection)
            assert proof.checked == proof.missing == number
            second.pipeline([("RPUSH", "b:1", 1)])
            second.pipeline([("DEL", "b:1")])
        with pytest.raises(ValueError, match="cannot be chosen by size"):
            compared(source, target, selection=Selection(size=(1, None)))


def test_databases_that_are_mapped() -> None:
    with two() as (first, second, source, target):
        first.pipeline([("SET", "a", 1), ("SELECT", 3), ("SET", "b", 1)])
        second.pipeline([("SET", "b", 1), ("SELECT", 7), ("SET", "a", 1), ("SELECT", 9), ("SET", "x", 1)])
        proof = compared(source, target, db_map={0: 7, 3: 0}, find_extra=True)
        assert found(proof) == {"x": "extra"}
        assert proof.equal == 2
        assert compared(f"{source}/0", f"{target}/7", find_extra=True).same
        assert found(compared(source, f"{target}/0")) == {"a": "missing"}
        with pytest.raises(ValueError, match="leave it out"):
            compared(source, f"{target}/0", db_map={0: 7})
        with pytest.raises(ValueError, match="the same server"):
            compared(source, source)
        assert found(compared(f"{source}/0", f"{source}/3", rounds=1)) == {"a": "missing"}


def test_a_quick_look_compares_lengths() -> None:
    with two("redis-6.0", "valkey-9.1") as (first, second, source, target):
        first.pipeline(BEFORE)
        second.pipeline(BEFORE)
        assert compared(source, target, quick=True).same
        second.pipeline(AFTER)
        proof = compared(source, target, quick=True, find_extra=True)
        same_length = {
            "string",
            "list",
            "set",
            "zset",
            "hash",
            "stream",
            "entry",
            "last",
            "group-gone",
            "group-new",
            "consumer",
            "group-id",
        }
        assert found(proof) == {name: what for name, what in WANTED.items() if name not in same_length}
        assert details(proof, "longer") == ["2 and 3 bytes"]
        assert details(proof, "list-longer") == ["2 and 3 elements"]
        assert details(proof, "entries") == ["2 and 1 entries"]


def test_functions_and_evictions() -> None:
    with two(conf=("maxmemory 3mb", "maxmemory-policy allkeys-random")) as (first, second, source, target):
        library = "#!lua name=%s\nredis.register_function('%s', function() return %d end)"
        for name, mine, theirs in (("same", 1, 1), ("other", 1, 2), ("mine", 1, 0), ("theirs", 0, 1)):
            if mine:
                first.call("FUNCTION", "LOAD", library % (name, name, mine))
            if theirs:
                second.call("FUNCTION", "LOAD", library % (name, name, theirs))
        proof = compared(source, target)
        assert {each.name: each.what for each in proof.functions} == {"mine": "missing", "other": "changed", "theirs": "extra"}
        assert proof.libraries == 3
        assert not proof.same
        assert compared(source, target, ignore_functions=True).same
        value = "x" * 10_000
        for client in (first, second):
            client.pipeline([("SET", f"k{i}", value) for i in range(400)])
        proof = compared(source, target, rounds=1, ignore_functions=True)
        assert proof.missing > 0
        assert any("the target has evicted" in note for note in proof.notes)


def test_a_login_that_may_read_little() -> None:
    with two("redis-7.0") as (first, second, source, target):
        first.pipeline(BEFORE)
        second.pipeline(BEFORE)
        # no DUMP on the target, no MEMORY and no INFO on either
        for client in (first, second):
            client.call("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read", "+@connection", "-memory")
        second.call("ACL", "SETUSER", "reader", "-dump")
        urls = [url.replace("redis://", "redis://reader:pw@") for url in (source, target)]
        proof = compared(*urls)
        assert proof.same, proof
        second.pipeline(AFTER)
        assert found(compared(*urls, find_extra=True)) == WANTED
        second.call("ACL", "SETUSER", "reader", "resetkeys", "~s*")
        proof = compared(*urls, rounds=1)
        assert found(proof)["hash"] == "refused"
        assert "the target" in details(proof, "hash")[0] or "NOPERM" in details(proof, "hash")[0]
        first.call("ACL", "SETUSER", "reader", "-scan")
        with pytest.raises(TargetError, match="cannot be listed"):
            compared(*urls)


def test_many_keys_whose_sizes_vary() -> None:
    source_of = random.Random(3)
    with two("redis-6.0", "redis-8.0") as (first, second, source, target):
        commands: list[tuple[Any, ...]] = []
        for i in range(3000):
            commands.append(("SET", f"s{i}", "x" * source_of.choice([1, 40, 3000])))
            commands.append(("SADD", f"set{i}", *(source_of.randrange(1000) for _ in range(source_of.randrange(1, 60)))))
            commands.append(("ZADD", f"z{i}", source_of.random(), "m", source_of.randrange(50), "n"))
            commands.append(("HSET", f"h{i}", "f", i, "g", "x" * source_of.choice([1, 100])))
        for client in (first, second):
            client.pipeline(commands)
        changed = [f"{kind}{i}" for kind, i in (("s", 7), ("set", 8), ("z", 9), ("h", 10))]
        second.pipeline([("APPEND", "s7", "y"), ("SADD", "set8", "y"), ("ZADD", "z9", 77, "m"), ("HSET", "h10", "f", "y")])
        for options in ({}, {"batch": 77}, {"rate": 1e6}, {"big": 2000}):
            proof = compared(source, target, rounds=2, **options)
            assert sorted(found(proof)) == sorted(changed), options
            assert proof.equal + proof.not_compared == 12_000 - 4


def test_on_the_command_line() -> None:
    with two() as (first, second, source, target):
        first.pipeline([("SET", "a", 1), ("SET", "b", 1)])
        second.pipeline([("SET", "a", 1), ("SET", "b", 2)])
        code, out, _ = said("verify-copy", source, target, "--wait", "0s")
        assert code == 1
        assert out.startswith(f"{target} does not have what {source} has\n")
        assert "another value: b (db 0)\n  type     string\n  differs  byte 0 of 1 and 1: b'1' and b'2'\n" in out
        second.call("SET", "b", 1)
        code, out, _ = said("verify-copy", source, target, "--json")
        assert code == 0
        assert json.loads(out)["same"]
        code, _, errors = said("verify-copy", "dump.rdb", target)
        assert code == 2
        assert "verify-import" in errors
        assert said("verify-copy", source, source)[0] == 2
        assert said("verify-copy", source, "redis://127.0.0.1:1")[0] == 4
        with connect(source) as one, connect(target) as other:
            assert verify_copy(one, other, rounds=1).same


def large(salt: int) -> list[tuple[Any, ...]]:
    """Commands that make one large value of each type, and a hash with fields that expire."""
    noise = random.Random(1)
    members = [b"m%d" % noise.randrange(1 << 40) for _ in range(3000)]
    order = random.Random(salt)
    order.shuffle(members)
    return [
        ("SET", "big:string", b"x" * 300_000), ("RPUSH", "big:list", *(b"%d" % i for i in range(5000))),
        ("SADD", "big:set", *members), ("ZADD", "big:zset", *(part for m in members for part in (len(m) / 7, m))),
        ("HSET", "big:hash", *(part for m in members for part in (m, m * 2))),
        *(("XADD", "big:stream", f"{i + 1}-1", "f", b"v" * 50) for i in range(2000)),
        ("XGROUP", "CREATE", "big:stream", "g", "0"), ("XREADGROUP", "GROUP", "g", "c", "COUNT", 700, "STREAMS", "big:stream", ">"),
    ]  # fmt: skip


@pytest.mark.parametrize(("one", "other"), [("redis-6.0", "valkey-9.1"), ("redis-8.0", "redis-7.0")])
def test_large_values_are_compared_in_pieces(one: str, other: str) -> None:
    with two(one, other) as (first, second, source, target):
        first.pipeline(large(1))
        second.pipeline(large(2))
        first.call("SET", "small", 1)
        proof = compared(source, target, big=10_000, rounds=2)
        assert found(proof) == {"small": "missing"}
        assert proof.equal == 6
        second.pipeline(
            [
                ("SETRANGE", "big:string", 250_000, "y"), ("LSET", "big:list", 4444, "y"), ("SPOP", "big:set"),
                ("SADD", "big:set", "y"),
                ("ZADD", "big:zset", 5, "y"), ("HSET", "big:hash", "y", "y"), ("XACK", "big:stream", "g", "5-1"),
            ]
        )  # fmt: skip
        proof = compared(source, target, big=10_000, rounds=2)
        names = [f"big:{kind}" for kind in ("string", "list", "set", "zset", "hash", "stream")]
        assert found(proof) == {"small": "missing", **dict.fromkeys(names, "value")}
        assert details(proof, "big:string") == [
            "byte 250,000 of 300,000 and 300,000: b'xxxxxxxxxxxxxxxxxxxx' and b'yxxxxxxxxxxxxxxxxxxx'"
        ]
        first.call("DEL", "big:list")
        first.call("PEXPIREAT", "big:zset", FAR)
        second.call("DEL", "big:hash")
        again = compared(source, target, big=10_000, rounds=2, find_extra=True)
        assert found(again)["big:list"] == "extra"
        assert found(again)["big:hash"] == "missing"


def test_values_that_are_large_on_the_target_alone() -> None:
    with two() as (first, second, source, target):
        first.pipeline([("SET", f"k{i}", i) for i in range(50)])
        second.pipeline([("SET", f"k{i}", i) for i in range(49)])
        value = random.Random(1).randbytes(12 << 20)
        second.call("SET", "k7", value)
        for options in ({"big": 1 << 20}, {"big": 1 << 20, "batch": 3}, {"big": 0}):
            proof = compared(source, target, rounds=1, **options)
            assert found(proof) == {"k7": "value", "k49": "missing"}
            assert proof.equal == 48


def test_a_source_whose_login_may_not_dump() -> None:
    with two("redis-7.0", "redis-8.0") as (first, second, source, target):
        first.pipeline(BEFORE)
        second.pipeline(BEFORE)
        first.call("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read", "+@connection", "+time", "-dump")
        login = source.replace("redis://", "redis://reader:pw@")
        assert compared(login, target).same
        second.pipeline(AFTER)
        assert found(compared(login, target, find_extra=True)) == WANTED

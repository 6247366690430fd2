"""`sync` between real servers: what differs is written until nothing does, and only what was asked for is replaced or deleted."""

from __future__ import annotations

import json
from contextlib import closing
from typing import Any

import pytest

from fixtures.server import Client
from rdbkit.errors import TargetError
from rdbkit.live.sync import Synced, sync
from rdbkit.selection import Selection

from ..live.writers import meanwhile
from .test_verify_copy import PAIRS, WANTED, compared, large, said, two
from .test_verify_import import AFTER, BEFORE, FAR


def synced(source: str, target: str, **options: Any) -> Synced:
    return sync(source, target, **{"wait_s": 0, "samples": 100, **options})


def repairs(done: Synced) -> dict[str, str]:
    return {each.key.decode(): each.what for each in done.repairs}


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_all_that_differs_is_written(one: str, other: str) -> None:
    with two(one, other) as (first, second, source, target):
        first.pipeline(BEFORE)
        second.pipeline(BEFORE)
        second.pipeline(AFTER)
        extra = {name for name, what in WANTED.items() if what == "extra"}
        done = synced(source, target)
        assert done.clean, done
        assert repairs(done) == {name: what for name, what in WANTED.items() if name not in extra}
        assert done.proof.rounds == 2
        assert done.proof.equal == 30
        assert sum(done.repaired.values()) == len(WANTED) - 2
        assert done.deleted == 0
        proof = compared(source, target, find_extra=True)
        assert {each.key.decode() for each in proof.samples} == extra
        done = synced(source, target, delete=True)
        assert done.clean
        assert repairs(done) == dict.fromkeys(extra, "extra")
        assert (done.deleted, done.repaired) == (2, {})
        assert compared(source, target, find_extra=True).same
        done = synced(source, target, delete=True)
        assert (done.proof.rounds, done.repairs) == (1, [])


def test_into_an_empty_server_and_only_what_is_chosen() -> None:
    with two() as (first, second, source, target):
        first.pipeline([("SET", f"a:{i}", "x" * 100) for i in range(3000)] + [("SELECT", 4), ("SET", "b", 1)])
        second.pipeline([("SET", "a:1", "theirs"), ("SET", "c", 1)])
        done = synced(source, target, selection=Selection(prefixes="a:1"), samples=3)
        assert done.clean
        assert done.repaired == {"missing": 1110, "value": 1}
        assert len(done.repairs) == 3
        assert second.integer("DBSIZE") == 1112
        done = synced(source, target, db_map={4: 9})
        assert done.clean
        assert done.repaired == {"missing": 3001 - 1111}
        second.call("SELECT", 9)
        assert second.call("GET", "b") == b"1"


def test_a_source_that_is_written_to_is_reached_when_it_rests() -> None:
    with two() as (first, _, source, target):
        first.pipeline([("SET", f"k{i}", i) for i in range(500)])
        deleted = {b"k%d" % n for n in range(400, 450)}
        with closing(Client(int(source.rsplit(":", 1)[1]))) as writer:

            def write(n: int) -> None:
                writer.call("INCR", f"k{n % 20}")
                writer.call("RPUSH", f"l{n % 5}", n)
                writer.call("DEL", f"k{400 + n % 50}")

            with meanwhile(write):
                for _ in range(3):
                    writing = synced(source, target, most_rounds=3)
                    proof = writing.proof
                    assert not proof.missing + proof.type + proof.value + proof.expire + proof.refused, proof.samples
                    # what was copied and then deleted on the source is on the target alone
                    assert {each.key for each in proof.samples if each.what == "extra"} <= deleted, proof.samples
        again = synced(source, target, delete=True)
        assert again.clean, again
        assert compared(source, target, find_extra=True).same


def test_what_the_target_cannot_have_is_told() -> None:
    with two("redis-8.0", "redis-6.0") as (first, _, source, target):
        first.pipeline([("HSET", "h", "f", "v"), ("HPEXPIREAT", "h", FAR, "FIELDS", 1, "f"), ("SET", "s", 1)])
        done = synced(source, target)
        assert not done.clean
        assert done.repaired == {"missing": 1}
        assert [(each.what, each.key) for each in done.proof.samples] == [("refused", b"h")]
        assert "does not support" in done.proof.samples[0].details[0]
        assert done.ledger.counts == {"field-expiry": 1}
        assert done.proof.rounds == 2


def test_a_login_that_may_not_write() -> None:
    with two() as (first, second, source, target):
        first.pipeline([("SET", "a", 1)])
        second.call("ACL", "SETUSER", "reader", "on", ">pw", "~*", "+@read", "+@connection")
        with pytest.raises(TargetError, match="cannot write to it"):
            synced(source, target.replace("redis://", "redis://reader:pw@"))
        second.call("ACL", "SETUSER", "some", "on", ">pw", "%R~*", "~a*", "+@all")
        first.pipeline([("SET", "b", 1)])
        done = synced(source, target.replace("redis://", "redis://some:pw@"))
        assert done.repaired == {"missing": 1}
        assert [(each.what, each.key) for each in done.proof.samples] == [("refused", b"b")]
        assert "NOPERM" in done.proof.samples[0].details[0]


def test_a_login_without_restore() -> None:
    with two("redis-7.0", "redis-8.0") as (first, second, source, target):
        first.pipeline(BEFORE)
        second.pipeline(BEFORE)
        second.pipeline(AFTER)
        second.call("ACL", "SETUSER", "writer", "on", ">pw", "~*", "+@all", "-restore")
        done = synced(source, target.replace("redis://", "redis://writer:pw@"), delete=True)
        assert done.clean, done
        assert compared(source, target, find_extra=True).same


def test_on_the_command_line() -> None:
    with two() as (first, second, source, target):
        first.pipeline([("SET", "a", 1), ("SET", "b", 1)])
        second.pipeline([("SET", "b", 2), ("SET", "c", 2)])
        code, _, errors = said("sync", source, target)
        assert code == 2
        assert "--yes" in errors
        assert second.call("GET", "b") == b"2"
        code, out, _ = said("sync", source, target, "--yes", "--wait", "0s", "--find-extra")
        assert code == 1
        assert "written: another value: b (db 0)" in out
        assert "not on the source: c (db 0)" in out
        code, out, _ = said("sync", source, target, "--yes", "--wait", "0s", "--delete", "--json")
        assert code == 0
        found = json.loads(out)
        assert (found["clean"], found["deleted"], found["repaired"]) == (True, 1, {})
        assert found["repairs"][0]["key"] == "c"
        assert second.integer("DBSIZE") == 2
        assert said("sync", source, target, "--yes", "--most-rounds", "1")[0] == 2


def test_large_values() -> None:
    with two("redis-8.0", "redis-6.0") as (first, second, source, target):
        first.pipeline(large(1))
        second.pipeline([("SET", "big:list", 1)])
        done = synced(source, target, big=10_000)
        assert done.clean, done
        assert done.repaired == {"missing": 5, "type": 1}
        assert compared(source, target, find_extra=True).same
        assert compared(source, target, big=10_000, find_extra=True).same


@pytest.mark.parametrize("big", [0, 1])
def test_keys_that_are_not_chosen_are_neither_replaced_nor_deleted(big: int) -> None:
    with two() as (first, second, source, target):
        first.pipeline([("SET", "string", "new"), ("RPUSH", "list", "new"), ("SET", "missing", "v"), ("RPUSH", "expires", "new")])
        second.pipeline(
            [("SET", "string", "old"), ("RPUSH", "list", "old"), ("SET", "extra:string", 1), ("RPUSH", "extra:list", 1)]
        )
        second.pipeline([("RPUSH", "extra:list", 1), ("RPUSH", "extra:expires", 1), ("EXPIRE", "extra:expires", 1000)])
        first.call("EXPIRE", "expires", 1000)
        done = synced(source, target, delete=True, big=big, selection=Selection(types=["list"], expiry="no-ttl"))
        assert done.clean
        assert repairs(done) == {"list": "value", "extra:list": "extra"}
        assert second.call("GET", "string") == b"old"
        assert second.integer("EXISTS", "extra:string", "extra:expires") == 2
        assert second.integer("EXISTS", "missing", "extra:list", "expires") == 0


def test_keys_of_a_database_that_the_source_cannot_have_are_extra() -> None:
    with two(conf=("databases 2",)) as (first, second, target, source):
        second.call("SET", "a", 1)
        first.pipeline([("SET", "a", 1), ("SELECT", 15), ("SET", "b", 1)])
        proof = compared(source, target, find_extra=True)
        assert (proof.extra, proof.same) == (1, False)
        assert synced(source, target, delete=True).deleted == 1
        assert first.integer("DBSIZE") == 0

"""Keys that are written by commands, where RESTORE is refused: what becomes of each is the same as with RESTORE."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fixtures.server import RELEASES, Client
from rdbkit.errors import TargetError
from rdbkit.live import parts
from rdbkit.live.connection import Connection, Lost
from rdbkit.live.copy import Copied, copy
from rdbkit.live.parts import PartWriter
from rdbkit.policy.rules import Edits, Policies

from ..live.acl import add_user, add_users, url_of
from ..live.cluster import cluster
from ..rdb import FIXTURES
from .test_large_values import FAR, MAKE, SERVERS, comparable, servers, url


@contextmanager
def contributor(source: str, target: str, rich: bool = True) -> Iterator[tuple[Client, Client, str]]:
    """Two servers, and the URL of the second for a user who may not use RESTORE."""
    with servers(source, target, FIXTURES / "rich" / f"{RELEASES[source]}.rdb" if rich else None) as (a, b):
        add_users(b)
        yield a, b, url_of(url(b), "contributor")


def fill(client: Client) -> None:
    for kind, commands in MAKE.items():
        client.pipeline([(command[0], *(kind if each == "k" else each for each in command[1:])) for command in commands])
    client.call("PEXPIREAT", "hash", FAR)
    client.pipeline([("SET", "until", "v"), ("PEXPIREAT", "until", FAR), ("SADD", "few", "a", "b"), ("SET", "empty", "")])


def outcomes(done: Copied) -> dict[str, int]:
    return {name: n for name, n in vars(done.counts).items() if n and name not in ("read", "value_bytes")}


PAIRS = [
    ("redis-7.0", "redis-7.0"), ("redis-8.0", "redis-6.0"), ("valkey-9.1", "redis-6.0"), ("redis-6.0", "redis-8.0"),
    ("redis-7.0", "valkey-9.1"),
]  # fmt: skip


@pytest.mark.parametrize("big", [0, 2000])
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_login_without_restore_gets_all_keys(source: str, target: str, big: int) -> None:
    with contributor(source, target) as (a, b, restricted):
        fill(a)
        done = copy(url(a), restricted, big=big, policies=Policies(loss="drop"), functions=False)
        assert done.prepared.target.abilities is not None
        assert done.prepared.target.abilities.write.use == "commands"
        left_out = done.counts.refused + done.counts.left_out  # a value of a module, which takes RESTORE
        assert left_out == sum(name == "vs" for _, name in comparable(a))
        assert done.counts.written == done.counts.read - left_out
        found = comparable(b)
        expected = {key: row for key, row in comparable(a, with_fields=target != "redis-6.0").items() if key[1] != "vs"}
        assert found == expected
        again = copy(url(a), restricted, big=big, policies=Policies(loss="drop"), functions=False)
        assert (again.counts.written, again.counts.existing) == (0, 0), again.samples
        assert again.counts.equal == again.counts.read - left_out
        assert comparable(b) == found


@pytest.mark.parametrize("exists", ["fail", "replace"])
def test_outcomes_are_those_of_restore(exists: str) -> None:
    found = []
    for way in ("restore", "commands"):
        with servers("redis-7.0", "redis-7.0") as (a, b):
            fill(a)
            a.pipeline([("SELECT", 2), ("SET", "second", 1), ("SELECT", 0)])
            b.pipeline([("SET", "hash", "mine"), ("SADD", "few", "b", "a"), ("SET", "until", "v"), ("SET", "empty", "mine")])
            done = copy(url(a), url(b), on_exists=exists, write_by=way, edits=Edits(set_ttl_ms=None))
            told = sorted((each.key, each.what, each.detail) for each in done.samples)
            found.append((outcomes(done), told, comparable(b)))
    assert found[0] == found[1]


def test_policies_and_edits_hold() -> None:
    with contributor("redis-8.0", "redis-6.0", rich=False) as (a, b, restricted):
        a.pipeline([("HSET", "h", "f", "v", "g", "w"), ("HPEXPIREAT", "h", FAR, "FIELDS", 1, "f"), ("SET", "a:s", "v")])
        done = copy(url(a), restricted)
        assert (done.counts.written, done.counts.lost, done.ledger.forbidden) == (1, 1, {"field-expiry": 1})
        assert b.items("KEYS", "*") == [b"a:s"]
        done = copy(url(a), restricted, policies=Policies(field_ttl="key-min"), edits=Edits(rename_prefix=[("a:", "b:")]))
        assert (done.counts.written, done.counts.lost) == (2, 0)
        assert sorted(map(str, b.items("KEYS", "*"))) == ["b'a:s'", "b'b:s'", "b'h'"]
        assert b.integer("PTTL", "h") > 0


@pytest.mark.parametrize("rules", ["+@all -dump", "+@read +@connection -dump"])
@pytest.mark.parametrize(("source", "target"), PAIRS)
def test_a_login_without_dump_reads_all_keys(source: str, target: str, rules: str) -> None:
    with servers(source, target, FIXTURES / "rich" / f"{RELEASES[source]}.rdb") as (a, b):
        fill(a)
        add_user(a, "u", rules)
        done = copy(url_of(url(a), "u"), url(b), policies=Policies(loss="drop"), functions=False)
        vector_sets = sum(name == "vs" for _, name in comparable(a))
        assert outcomes(done) == {"written": done.counts.read - vector_sets, **({"refused": vector_sets} if vector_sets else {})}
        found = comparable(b)
        expected = {key: row for key, row in comparable(a, with_fields=target != "redis-6.0").items() if key[1] != "vs"}
        if "@read" in rules and source == "redis-6.0":  # where that lets nobody into another database
            expected = {key: row for key, row in expected.items() if key[0] == 0}
        assert found == expected


def test_what_cannot_be_written_is_refused_before(monkeypatch: pytest.MonkeyPatch) -> None:
    with contributor("redis-7.0", "redis-7.0", rich=False) as (a, b, restricted):
        a.call("SET", "k", 1)
        with pytest.raises(TargetError, match="cannot write to it: NOPERM"):
            copy(url(a), restricted, write_by="restore")
        with pytest.raises(ValueError, match="write_by is auto, restore, commands"):
            copy(url(a), restricted, write_by="magic")
        with pytest.raises(TargetError, match="cannot write to it"):
            copy(url(a), url_of(url(b), "reader"))


def test_a_connection_that_breaks_writes_nothing_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    with servers("redis-7.0", "redis-7.0") as (a, b):
        fill(a)
        ask = Connection.ask_packed
        broken: list[int] = []
        monkeypatch.setattr(parts.time, "sleep", lambda _: None)  # type: ignore[attr-defined]

        def breaking(self: Connection, commands: bytes, count: int) -> list[Any]:
            broken.append(count)
            replies = ask(self, commands, count)  # so the target has done it
            if len(broken) in (1, 3, 6):
                self.close()
                raise Lost("cut", "closed")
            return replies

        monkeypatch.setattr(Connection, "ask_packed", breaking)
        done = copy(url(a), url(b), write_by="commands")
        assert len(broken) > 6
        assert outcomes(done) == {"written": len(MAKE) + 3}
        assert comparable(a) == comparable(b)


def test_a_target_that_is_full_ends_it_and_keeps_no_part(monkeypatch: pytest.MonkeyPatch) -> None:
    with servers("redis-7.0", "redis-7.0") as (a, b):
        fill(a)
        now = [0.0]
        monkeypatch.setattr(parts.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))  # type: ignore[attr-defined]
        monkeypatch.setattr(parts.time, "monotonic", lambda: now[0])  # type: ignore[attr-defined]
        b.call("CONFIG", "SET", "maxmemory", 1)
        with pytest.raises(TargetError, match="no memory left"):
            copy(url(a), url(b), write_by="commands")
        assert b.items("KEYS", "*") == []
        b.call("CONFIG", "SET", "maxmemory", 0)
        assert copy(url(a), url(b), write_by="commands").complete


def test_values_that_are_evicted_while_they_are_written_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with servers("redis-7.0", "redis-7.0") as (a, b):
        a.pipeline(MAKE["list"])
        monkeypatch.setattr(parts.time, "sleep", lambda _: None)  # type: ignore[attr-defined]
        exchange = PartWriter._exchange

        def evicting(self: PartWriter, db: int, asked: Any, again: bool = True) -> Any:
            for name in b.items("KEYS", "*rdbkit:part:*"):
                b.call("DEL", name)  # type: ignore[arg-type]
            return exchange(self, db, asked, again)

        monkeypatch.setattr(PartWriter, "_exchange", evicting)
        done = copy(url(a), url(b), write_by="commands")
        assert outcomes(done) == {"refused": 1}
        assert "the parts that were written are gone" in done.samples[0].detail
        assert b.items("KEYS", "*") == []


def test_clusters() -> None:
    with cluster(SERVERS / "redis-7.0" / "redis-server") as one, cluster(SERVERS / "redis-7.0" / "redis-server") as other:
        names = [*(f"k{i}" for i in range(50)), "{tag}a", "{}b", "x{tag}"]
        one.write([(command[0], name, *command[2:]) for name in names for command in (*MAKE["set"], ("PEXPIREAT", "k", FAR))])
        done = copy(one.url, other.url, write_by="commands", big=20_000)
        assert outcomes(done) == {"written": len(names)}
        found = [comparable(node.client) for node in other.masters()]
        assert {key for each in found for _, key in each} == set(names)
        assert len({str(row) for each in found for row in each.values()}) == 1
        assert outcomes(copy(one.url, other.url, write_by="commands")) == {"equal": len(names)}

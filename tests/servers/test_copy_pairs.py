"""Every line of servers as source with every line as target: what arrives is judged by what both servers answer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.server import RELEASES, Client, Command, running
from fixtures.shapes import commands
from rdbkit.policy.rules import Policies

from ..live.copying import copied, lost
from ..live.oracle import FIELDS_EXPIRE, Content, Row, content, differences, payloads, taken_by, tolerance_ms
from ..rdb import FIXTURES
from .test_verify_import import port_of

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
LINES = ("redis-6.0", "redis-7.0", "redis-8.0", "valkey-8.1", "valkey-9.1")
FAR = 4_102_444_800_000
YEAR_2262 = 9_223_372_036_000

EDGES: list[Command] = [
    ("SET", "", "the empty name"), ("SET", "empty", ""), ("SET", "a\r\nb", "\r\n$3\r\n"), ("SET", b"\0\xff{}", b"\0"),
    ("SET", "{a}{b}", 1), ("SET", "k" * 5000, "x" * 70_000), ("SET", "int", 2**63 - 1), ("SET", "negative", -(2**63)),
    ("SET", "float", "3.0e300"), ("SETBIT", "bits", 100_000, 1), ("PFADD", "sparse", *range(50)), ("PFADD", "dense", *range(5000)),
    ("SET", "far", 1), ("PEXPIREAT", "far", YEAR_2262), ("SET", "lzf", "abcdefgh" * 1000),
    ("ZADD", "scores", "inf", "inf", "-inf", "-inf", "-0", "minus zero", "1e-320", "small", "0.1", "tenth", 2**53 + 1, "large"),
    ("GEOADD", "geo", 13.361389, 38.115556, "Palermo", 15.087269, 37.502669, "Catania"),
    ("HSET", "wide", *(part for i in range(700) for part in (f"f{i}", i))), ("HSET", "names", "", "", b"\xff", b"\0\r\n"),
    ("SADD", "mixed", *range(400), "not a number"), ("RPUSH", "large-items", "y" * 9000, "z" * 9000, -1, 2**62),
    ("XADD", "gone", "5-5", "f", "v"), ("XDEL", "gone", "5-5"), ("XGROUP", "CREATE", "gone", "g", "$"),
    ("XGROUP", "CREATE", "groups-only", "g", "$", "MKSTREAM"), ("XADD", "fields", "1-1", "a", 1, "b", 2),
    ("XADD", "fields", "1-2", "c", 3), ("XADD", "fields", "99999999999999-0", "a", "x" * 5000, "b", 2),
    ("XADD", "pending", "1-1", "a", 1), ("XADD", "pending", "2-1", "a", 1), ("XADD", "pending", "3-1", "a", 1),
    ("XGROUP", "CREATE", "pending", "g", 0), ("XREADGROUP", "GROUP", "g", "alice", "COUNT", 2, "STREAMS", "pending", ">"),
    ("XREADGROUP", "GROUP", "g", "bob", "STREAMS", "pending", ">"), ("XDEL", "pending", "2-1"), ("XACK", "pending", "g", "1-1"),
    ("SELECT", 7), ("SET", "int", "of database 7"), ("HSET", "h", "f", "v"), ("PEXPIREAT", "h", FAR + 1), ("SELECT", 0),
]  # fmt: skip


@contextmanager
def served(line: str, path: Path | None = None) -> Iterator[Client]:
    with running(SERVERS / line / "redis-server", path) as (client, _):
        yield client


@contextmanager
def filled(line: str, data: str) -> Iterator[Client]:
    """A source: a fixture that it has loaded, or what it was given by commands."""
    if data in ("rich", "random"):
        with served(line, FIXTURES / data / f"{RELEASES[line]}.rdb") as client:
            yield client
        return
    with served(line) as client:
        client.pipeline(EDGES)
        client.pipeline(commands(7, 300, line in FIELDS_EXPIRE, most=700))
        yield client


def url(client: Client) -> str:
    return f"redis://127.0.0.1:{port_of(client)}"


@pytest.mark.parametrize("data", ["rich", "random", "made"])
@pytest.mark.parametrize("target", LINES)
@pytest.mark.parametrize("source", LINES)
def test_what_arrives_is_what_both_servers_say(source: str, target: str, data: str) -> None:
    with filled(source, data) as a, served(target) as b:
        before = content(a)
        given, cut = taken_by(target, before)
        # without a policy nothing is cut: such keys are left out, and told
        done = copied(url(a), url(b))
        counts = done.counts
        assert not done.samples
        assert (counts.read, counts.written, counts.lost) == (len(before), len(before) - len(cut), len(cut))
        assert lost(done) == {*cut}
        whole = {name: row for name, row in before.items() if name not in cut}
        near = tolerance_ms(source, target)
        assert differences(whole, content(b), near) == []
        # with one they are cut, and all others are there already
        done = copied(url(a), url(b), policies=Policies(loss="drop", field_ttl="drop-ttl"))
        assert lost(done) == {*cut}
        assert not done.samples
        assert (done.counts.written, done.counts.equal) == (len(given) - len(whole), len(whole))
        assert differences(given, content(b), near) == []
        assert differences(before, content(a), tolerance_ms(source)) == [], "the source was changed"


@pytest.mark.parametrize("line", LINES)
def test_the_same_line_has_the_same_bytes(line: str) -> None:
    with filled(line, "made") as a, served(line) as b:
        copied(url(a), url(b))
        # the order in a table is each process's own, and fields that expire are put in order when they are loaded
        unordered = (b"hashtable", b"listpackex")
        names = [(db, key) for db, key in content(a) if db == 0 and a.call("OBJECT", "ENCODING", key) not in unordered]
        assert len(names) > 250
        assert payloads(a, names) == payloads(b, names)


def others(rows: Content) -> Sequence[Command]:
    """Commands that make another value, type or expiry of each key, three ways in turn."""
    made: list[Command] = []
    db = 0
    for number, (in_db, key) in enumerate(sorted(rows)):
        if in_db != db:
            db = in_db
            made.append(("SELECT", db))
        made.append([("SET", key, f"other {number}"), ("RPUSH", key, 1, 2), ("SET", key, "1", "PX", 10**9)][number % 3])
    return [*made, ("SELECT", 0)]


@pytest.mark.parametrize("target", LINES)
@pytest.mark.parametrize("source", LINES)
def test_nothing_that_was_there_is_changed_unless_it_was_asked_for(source: str, target: str) -> None:
    with filled(source, "rich") as a, served(target) as b:
        rows = content(a)
        b.pipeline(others(rows))
        before = content(b)
        dumps = payloads(b, before)
        given, cut = taken_by(target, rows)
        for on_exists in ("fail", "skip"):
            done = copied(url(a), url(b), on_exists)
            assert done.counts.written == done.counts.equal == 0
            assert done.counts.existing == len(rows) - len(cut)
            assert {(each.db, each.key) for each in done.samples} == rows.keys() - cut.keys()
            assert all(each.detail.startswith("the target has another") for each in done.samples)
            assert payloads(b, before) == dumps
            assert differences(before, content(b), tolerance_ms(target)) == []
        done = copied(url(a), url(b), "replace", policies=Policies(loss="drop", field_ttl="drop-ttl"))
        assert not done.samples
        assert done.counts.written == len(given)
        left = {name: before[name] for name in rows.keys() - given.keys()}
        assert differences({**given, **left}, content(b), tolerance_ms(source, target)) == []


def test_the_judge_sees_what_differs() -> None:
    with served("redis-8.0") as a, served("redis-8.0") as b:
        for client, changes in (
            (a, []),
            (b, [("SET", "s", 2), ("PERSIST", "t"), ("HPERSIST", "h", "FIELDS", 1, "f"), ("DEL", "d")]),
        ):
            client.pipeline([("SET", "s", 1), ("SET", "t", 1, "PXAT", FAR), ("HSET", "h", "f", 1), ("SET", "d", 1)])
            client.pipeline([("HPEXPIREAT", "h", FAR, "FIELDS", 1, "f"), *changes])
        b.call("SET", "e", 1)
        said = differences(content(a), content(b))
        assert len(said) == 5
        assert f"(0, b't') expires at {FAR} and None" in said
        assert content(a)[0, b"t"] == Row("string", "1", FAR)

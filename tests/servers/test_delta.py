"""A server that has the first snapshot, and is given the delta, has the second."""

from __future__ import annotations

import os
import random
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from fixtures.server import Client, running
from rdbkit.targets.commands import features
from rdbkit.targets.target import find_target

from ..rdb import FIXTURES

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
BASES = {"redis-6.0": "redis-6.0.16", "redis-7.0": "redis-7.0.15", "redis-8.0": "redis-8.0.6", "valkey-9.1": "valkey-9.1.2"}
LINES = list(BASES)
HOUR = 3_600_000
FAR = 4_102_444_800_000
LIBRARY = b"#!lua name=%b\nredis.register_function('%b', function() return %d end)\n"


def pipe(client: Client, line: str, commands: bytes) -> None:
    """Nothing of it may be an error."""
    port = client.items("CONFIG", "GET", "port")[1]
    assert isinstance(port, bytes)
    cli = [str(SERVERS / line / "redis-cli"), "-p", port.decode(), "--pipe"]
    said = subprocess.run(cli, input=commands, capture_output=True, check=False).stdout.decode()
    assert "errors: 0, replies: " in said, said


@contextmanager
def given(line: str, first: Path, delta: Path) -> Iterator[tuple[Client, Path]]:
    """A server with the first snapshot that has been given the delta, and what it saves then."""
    with running(SERVERS / line / "redis-server", first) as (client, folder):
        pipe(client, line, delta.read_bytes())
        client.call("SAVE")
        yield client, folder / "dump.rdb"


def check(line: str, first: Path, second: Path, folder: Path, **options: Any) -> rdbkit.Diff:
    """The delta of both makes the one of the other, and the delta of a second comparison is empty."""
    delta = folder / "delta.resp"
    found = rdbkit.diff(str(first), str(second), delta=delta, target=line, **options)
    with given(line, first, delta) as (_, saved):
        again = rdbkit.diff(str(saved), str(second), delta=folder / "again.resp", target=line, force=True)
        assert again.same, (again, [(d.what, d.key, d.details) for d in again.samples])
        assert (folder / "again.resp").read_bytes() == b""
    return found


@cache
def has(line: str) -> frozenset[str]:
    """What a server of the line can be told by commands."""
    return features(find_target(line))


def value(rng: random.Random, line: str) -> Any:
    kind = rng.choice(["string", "list", "set", "zset", "hash", "hash"])
    n = rng.choice([1, 3, 20, 700])
    names = [rng.randbytes(rng.randint(0, 12)) + b"%d" % i for i in range(n)]
    if kind == "string":
        return rng.choice([b"", b"12", rng.randbytes(30), b"long " * 20_000])
    if kind == "list":
        return names
    if kind == "set":
        return {b"%d" % i for i in range(n)} if rng.random() < 0.3 else set(names)
    if kind == "zset":
        return {name: rng.choice([float(rng.randint(-9, 9)), rng.uniform(-1, 1), float("inf"), 1e300]) for name in names}
    made = rdbkit.Hash()
    for name in names:
        made[name] = rng.randbytes(rng.randint(0, 9))
        if "field-expiry" in has(line) and rng.random() < 0.3:
            made.field_expire_ms[name] = expiry(rng)
    return made


def expiry(rng: random.Random) -> int:
    """Far away, or in an hour, but never while the test runs."""
    return FAR + rng.randint(0, 9) * 1000 if rng.random() < 0.7 else time.time_ns() // 1_000_000 + rng.randint(1, 4) * HOUR


def changed(rng: random.Random, old: Any, line: str) -> Any:
    """A value of the same type that differs in a few elements."""
    count = max(1, len(old) // 10) if hasattr(old, "__len__") else 0
    if isinstance(old, bytes):
        return old + b"!"
    if isinstance(old, list):
        return [*old, b"more"]
    if isinstance(old, set):
        return set(sorted(old)[count:]) | {rng.randbytes(8) for _ in range(count)}
    made: Any = rdbkit.Hash() if isinstance(old, rdbkit.Hash) else {}
    names = list(old)
    for name in names[count:]:
        made[name] = old[name]
    for name in rng.sample(names, count):
        made[name] = b"changed" if isinstance(old, rdbkit.Hash) else old[name] / 2 + 1
    made[b"new"] = b"value" if isinstance(old, rdbkit.Hash) else 0.5
    if isinstance(old, rdbkit.Hash):
        made.field_expire_ms = {name: ms for name, ms in old.field_expire_ms.items() if name in made and rng.random() < 0.7}
        for name in made:
            if "field-expiry" in has(line) and rng.random() < 0.05:
                made.field_expire_ms[name] = expiry(rng)
    return made


def write_pair(rng: random.Random, line: str, folder: Path) -> tuple[Path, Path]:
    """What a server of the line wrote, and much besides; and the same changed here and there."""
    first, second = folder / "a.rdb", folder / "b.rdb"
    past = time.time_ns() // 1_000_000 - HOUR
    with rdbkit.open(FIXTURES / "rich" / f"{BASES[line]}.rdb") as snapshot:
        options: dict[str, Any] = {"version": snapshot.header.version, "flavour": snapshot.header.flavour}
        with rdbkit.create(first, **options) as a, rdbkit.create(second, **options) as b:
            if "functions" in has(line):
                # g moves from one to another
                for writer, sources in (
                    (a, [(b"old", b"o", 1), (b"one", b"g", 1), (b"two", b"h", 1), (b"same", b"s", 1)]),
                    (b, [(b"two", b"g", 2), (b"one", b"h", 2), (b"same", b"s", 1), (b"new", b"o", 1)]),
                ):
                    for source in sources:
                        writer.function(LIBRARY % source)
            for record in snapshot:
                stream = record.type == "stream"  # there is but one
                if stream or rng.random() < 0.8:
                    a.write(record)
                if not stream and rng.random() < 0.5:
                    b.write(record)
                elif stream or (record.type != "module" and rng.random() < 0.8):
                    it = record.value
                    if stream:
                        last = rdbkit.StreamId(it.last_id.ms + 1, 7)
                        it.entries.append(rdbkit.StreamEntry(last, [(b"f", b"v"), (b"f", b"w")]))
                        it.last_id, it.length, it.entries_added = last, len(it.entries), (it.entries_added or it.length) + 1
                    else:
                        it = changed(rng, it, line)
                    b.put(record.key, it, db=record.db, expire_ms=expiry(rng) if rng.random() < 0.3 else record.expire_ms)
            for i in range(400):
                key, db = b"%d %b" % (i, rng.randbytes(4)), rng.choice([0, 0, 3, 9])
                old, until = value(rng, line), expiry(rng) if rng.random() < 0.4 else None
                choice = rng.random()
                if choice > 0.1:
                    a.put(key, old, db=db, expire_ms=past if choice > 0.95 else until)
                if choice < 0.2 or choice > 0.9:
                    b.put(key, value(rng, line), db=db, expire_ms=past if 0.9 < choice < 0.93 else until)
                elif choice < 0.3:
                    b.put(key, old, db=db, expire_ms=past)
                elif choice < 0.6:
                    b.put(key, old, db=db, expire_ms=rng.choice([None, until, expiry(rng)]))
                elif choice < 0.85:
                    b.put(key, changed(rng, old, line), db=db, expire_ms=rng.choice([until, until, None, expiry(rng)]))
    return first, second


@pytest.mark.parametrize("line", LINES)
@pytest.mark.parametrize("seed", range(4))
def test_random_pairs(line: str, seed: int, tmp_path: Path) -> None:
    first, second = write_pair(random.Random(seed), line, tmp_path)
    found = check(line, first, second, tmp_path)
    assert min(found.missing, found.extra, found.changed, found.expiry, found.expired, found.equal) > 0
    assert bool(found.functions) == ("functions" in has(line))
    text = (tmp_path / "delta.resp").read_bytes()
    for name in (b"UNLINK", b"PERSIST", b"PEXPIREAT", b"HSET", b"HDEL", b"SADD", b"SREM", b"ZADD", b"ZREM", b"XADD", b"RPUSH"):
        assert re.search(rb"\n%b\r\n" % name, text), name
    assert (b"HPEXPIREAT" in text) == ("field-expiry" in has(line))


def test_small_blocks_and_compressed_files(tmp_path: Path) -> None:
    first, second = write_pair(random.Random(9), "redis-7.0", tmp_path)
    check("redis-7.0", first, second, tmp_path, block_size=300)
    check("redis-7.0", second, first, tmp_path, block_size=300, force=True)
    for path in (first, second):
        subprocess.run(["gzip", "-k", path], check=True)
    packed = [str(path) + ".gz" for path in (first, second)]
    rdbkit.diff(*packed, delta=tmp_path / "packed.resp", target="redis-7.0")
    with given("redis-7.0", first, tmp_path / "packed.resp") as (_, saved):
        assert rdbkit.diff(str(saved), str(second)).same


def test_what_is_ignored_stays(tmp_path: Path) -> None:
    first, second = write_pair(random.Random(3), "redis-7.0", tmp_path)
    rdbkit.diff(str(first), str(second), delta=tmp_path / "d.resp", target="redis-7.0", ignore=["functions"])
    with given("redis-7.0", first, tmp_path / "d.resp") as (client, saved):
        assert rdbkit.diff(str(saved), str(second), ignore=["functions"]).same
        assert len(client.items("FUNCTION", "LIST")) == 4
        assert not rdbkit.diff(str(saved), str(first), only_keys=True).functions
        assert len(rdbkit.diff(str(saved), str(second)).functions) == 4


def test_expiries_that_are_ignored(tmp_path: Path) -> None:
    """A value that is changed keeps its expiry, one that is written whole takes that of the second file."""
    with rdbkit.create(tmp_path / "a.rdb", version=10) as a, rdbkit.create(tmp_path / "b.rdb", version=10) as b:
        a.put(b"set", {b"%d" % i for i in range(10)}, expire_ms=FAR)
        b.put(b"set", {b"%d" % i for i in range(11)})
        a.put(b"list", [b"x"], expire_ms=FAR)
        b.put(b"list", [b"y"])
        a.put(b"same", b"v", expire_ms=FAR)
        b.put(b"same", b"v")
    rdbkit.diff(str(tmp_path / "a.rdb"), str(tmp_path / "b.rdb"), delta=tmp_path / "d.resp", ignore=["expire"])
    with given("redis-7.0", tmp_path / "a.rdb", tmp_path / "d.resp") as (client, saved):
        assert [client.integer("PEXPIRETIME", key) for key in ("set", "list", "same")] == [FAR, -1, FAR]
        assert rdbkit.diff(str(saved), str(tmp_path / "b.rdb"), ignore=["expire"]).same


@pytest.mark.parametrize("line", ["redis-8.0", "valkey-9.1"])
def test_expiries_of_fields(line: str, tmp_path: Path) -> None:
    now = time.time_ns() // 1_000_000
    before, after = rdbkit.Hash(), rdbkit.Hash()
    for made in (before, after):
        made.update({b"f%d" % i: b"v" for i in range(20)})
    before.field_expire_ms = {b"f1": FAR, b"f2": FAR, b"f3": FAR, b"f4": FAR, b"f5": now - HOUR, b"f6": now - HOUR, b"f7": FAR}
    after.field_expire_ms = {b"f1": FAR + 1, b"f3": FAR, b"f4": FAR, b"f6": now - HOUR, b"f7": now - HOUR, b"f8": FAR}
    after[b"f4"] = b"other"
    flavour: dict[str, Any] = {"version": 12} if line == "redis-8.0" else {"version": 80, "flavour": "valkey"}
    for name, made in (("a.rdb", before), ("b.rdb", after)):
        with rdbkit.create(tmp_path / name, **flavour) as writer:
            writer.put(b"hash", made)
    delta = tmp_path / "delta.resp"
    rdbkit.diff(str(tmp_path / "a.rdb"), str(tmp_path / "b.rdb"), delta=delta, target=line)
    assert b"UNLINK" not in delta.read_bytes()
    with given(line, tmp_path / "a.rdb", delta) as (client, saved):
        assert rdbkit.diff(str(saved), str(tmp_path / "b.rdb")).same
        names = sorted(after)
        times = dict(zip(names, client.items("HPEXPIRETIME", "hash", "FIELDS", len(names), *names), strict=True))
        assert {name for name, ms in times.items() if ms == -2} == {b"f6", b"f7"}
        assert {n: ms for n, ms in times.items() if isinstance(ms, int) and ms > 0} == {
            b"f1": FAR + 1, b"f3": FAR, b"f4": FAR, b"f8": FAR,
        }  # fmt: skip

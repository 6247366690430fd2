"""`rdbkit diff`: the same data is equal in whatever order and encoding, and every difference is found."""

from __future__ import annotations

import json
import random
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rdbkit
from rdbkit.operations.diff import Diff, diff
from rdbkit.operations.fingerprints import Fingerprints

from .rdb import DUMPS, FIXTURES, key, length, rdb, string

NOW = 1_800_000_000_000
DUMP = FIXTURES / "random" / "redis-7.2.6.rdb"


def write(path: Path, *parts: bytes, magic: bytes = b"REDIS0009") -> str:
    path.write_bytes(rdb(*parts, magic=magic))
    return str(path)


def compared(one: str | Path, other: str | Path, **options: Any) -> Diff:
    return diff(str(one), str(other), **({"now_ms": NOW} | options))


@pytest.mark.parametrize("path", DUMPS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_a_conversion_without_loss_is_equal(path: Path, tmp_path: Path) -> None:
    assert compared(path, path).same
    policies = rdbkit.Policies(loss="drop")
    for target in ("rdb-9", "redis-7.2", "valkey-9.1"):
        out = tmp_path / f"{target}.rdb"
        report = rdbkit.convert(path, out, target=target, policies=policies, now_ms=NOW)
        kinds = set(report.ledger.counts) - {"function", "module-aux", "array-cursor", "key-metadata", "commands"}
        found = compared(path, out)
        if not kinds:
            assert found.same, (target, found)
            assert found.equal == found.keys[0] == found.keys[1]
        else:
            assert not found.same or kinds <= {"member-expiry"}, (target, kinds)


@pytest.mark.parametrize("block_size", [64, 1000])
def test_blocks_of_any_size_are_equal(block_size: int) -> None:
    found = compared(DUMP, DUMP, block_size=block_size)
    assert found.same
    assert found.equal == found.keys[0]


def shuffled(rng: random.Random, n: int) -> dict[str, bytes]:
    """Values with their elements in some order."""
    fields = [string(b"f%04d" % i) + string(b"v%d" % i) for i in range(n)]
    members = [string(b"member %d" % i) for i in range(n)]
    scored = [string(b"player %d" % i) + struct.pack("<d", i / 3) for i in range(n)]
    for elements in (fields, members, scored):
        rng.shuffle(elements)
    return {name: length(n) + b"".join(e) for name, e in (("hash", fields), ("set", members), ("zset", scored))}


@pytest.mark.parametrize("block_size", [300, 1 << 20])
def test_the_order_does_not_matter(tmp_path: Path, block_size: int) -> None:
    files = []
    for seed in (1, 2):
        rng = random.Random(seed)
        values = shuffled(rng, 500)
        records = [key(b"h", 4, values["hash"]), key(b"s", 2, values["set"]), key(b"z", 5, values["zset"])]
        records += [key(b"k%d" % i, 0, string(b"v%d" % i), NOW + i) for i in range(300)]
        rng.shuffle(records)
        files.append(write(tmp_path / f"{seed}.rdb", *records))
    assert Path(files[0]).read_bytes() != Path(files[1]).read_bytes()
    found = compared(*files, block_size=block_size)
    assert found.same
    assert found.equal == 303


def test_each_difference(tmp_path: Path) -> None:
    same = [key(b"same%d" % i, 0, string(b"v")) for i in range(20)]
    one = write(
        tmp_path / "a.rdb", *same, key(b"gone", 0, string(b"v")), key(b"value", 0, string(b"abc")), key(b"type", 0, string(b"v")),
        key(b"ttl", 0, string(b"v"), NOW + 5000), key(b"near", 0, string(b"v"), NOW + 5000), key(b"past", 0, string(b"v"), NOW - 1),
        key(b"list", 1, b"\x02" + string(b"x") + string(b"y")), key(b"hash", 4, b"\x01" + string(b"f") + string(b"1")),
        b"\xfe\x01", key(b"gone2", 0, string(b"v")),
    )  # fmt: skip
    other = write(
        tmp_path / "b.rdb", *same, key(b"new", 0, string(b"v")), key(b"value", 0, string(b"abd")),
        key(b"type", 1, b"\x01" + string(b"v")),
        key(b"ttl", 0, string(b"v")), key(b"near", 0, string(b"v"), NOW + 5400),
        key(b"list", 1, b"\x02" + string(b"y") + string(b"x")), key(b"hash", 4, b"\x01" + string(b"f") + string(b"2")),
        b"\xfe\x02", key(b"gone2", 0, string(b"v")),
    )  # fmt: skip
    found = compared(one, other, samples=100)
    assert (found.missing, found.extra, found.changed, found.expiry, found.expired, found.equal) == (2, 2, 4, 2, 1, 20)
    told = {(d.what, d.db, d.key): d for d in found.samples}
    assert sorted(told) == sorted([
        ("missing", 0, b"gone"), ("missing", 1, b"gone2"), ("extra", 0, b"new"), ("extra", 2, b"gone2"), ("value", 0, b"value"),
        ("type", 0, b"type"), ("value", 0, b"list"), ("value", 0, b"hash"), ("expire", 0, b"ttl"), ("expire", 0, b"near"),
    ])  # fmt: skip
    assert [d.key for d in compared(one, other, samples=2).samples] == [b"gone", b"value"]
    assert told["value", 0, b"value"].details == ["byte 2 of 3 and 3: b'c' and b'd'"]
    assert told["value", 0, b"list"].details == ["element 0: b'x' and b'y'", "element 1: b'y' and b'x'"]
    assert told["value", 0, b"hash"].details == ["b'f': b'1' and b'2'"]
    assert told["type", 0, b"type"].types == ("string", "list")
    assert told["expire", 0, b"ttl"].expire_ms == (NOW + 5000, None)
    assert told["missing", 0, b"gone"].types == ("string", None)
    for each in found.samples:
        for name, offset in zip((one, other), each.offsets, strict=True):
            if offset is not None:
                with rdbkit.open(name) as snapshot:
                    assert next(r.key for r in snapshot if r.offset == offset) == each.key
    assert compared(one, other, ttl_tolerance_ms=500).expiry == 1
    assert compared(one, other, ignore_expiry=True).expiry == 0
    keys = compared(one, other, only_keys=True)
    assert (keys.missing, keys.extra, keys.changed, keys.expiry) == (2, 2, 0, 0)
    back = compared(other, one)
    assert (back.missing, back.extra, back.changed, back.expiry, back.expired) == (2, 2, 4, 2, 1)


def test_a_key_that_is_there_twice(tmp_path: Path) -> None:
    one = write(tmp_path / "a.rdb", key(b"k", 0, string(b"v")), key(b"k", 0, string(b"v")))
    other = write(tmp_path / "b.rdb", key(b"k", 0, string(b"v")))
    assert compared(one, other).missing == 1
    assert compared(other, one).extra == 1


def test_entries_beyond_memory() -> None:
    with rdbkit.open(DUMP) as snapshot:
        prints = [Fingerprints(snapshot.types, 1 << 20) for _ in range(2)]
    for i in range(500):
        for number, each in enumerate(prints):
            each.add(b"name %d" % i, i, -1, i)
            if number and i % 100 == 50:
                each.piles.spill()
    assert [prints[0].piles.pile(n) for n in range(128)] == [prints[1].piles.pile(n) for n in range(128)]
    prints[1].piles.close()


VALUES = st.one_of(
    st.binary(max_size=30),
    st.lists(st.binary(max_size=5), min_size=1, max_size=6),
    st.sets(st.binary(max_size=5), min_size=1, max_size=6),
    st.dictionaries(st.binary(max_size=4), st.binary(max_size=4), min_size=1, max_size=5),
    st.dictionaries(st.binary(max_size=4), st.floats(allow_nan=False), min_size=1, max_size=5),
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.binary(max_size=3), VALUES, max_size=12), st.randoms(), st.sampled_from([2, 9, 11]))
def test_any_data(tmp_path_factory: pytest.TempPathFactory, data: dict[bytes, Any], rng: Any, version: int) -> None:
    folder = tmp_path_factory.mktemp("any")
    for name, number in (("a.rdb", 10), ("b.rdb", version)):
        items = list(data.items())
        rng.shuffle(items)
        with rdbkit.create(folder / name, version=number, compress=True) as writer:
            for key_name, value in items:
                if isinstance(value, dict):
                    pairs = list(value.items())
                    rng.shuffle(pairs)
                    value = dict(pairs)
                writer.put(key_name, value)
    assert compared(folder / "a.rdb", folder / "b.rdb").same
    if data:
        lost = rng.choice(list(data))
        with rdbkit.create(folder / "c.rdb", version=9) as writer:
            for key_name, value in data.items():
                if key_name != lost:
                    writer.put(key_name, value)
        found = compared(folder / "a.rdb", folder / "c.rdb")
        assert (found.missing, found.extra, found.changed) == (1, 0, 0)
        assert found.samples[0].key == lost


def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "rdbkit", "diff", *map(str, args)], capture_output=True, text=True)


def test_the_command(tmp_path: Path) -> None:
    same = run(DUMP, DUMP)
    assert same.returncode == 0, same.stderr
    assert "have the same data" in same.stdout
    other = write(tmp_path / "b.rdb", key(b"\x1b[31mk", 0, string(b"v")))
    different = run(DUMP, other)
    assert different.returncode == 1
    assert "have different data" in different.stdout
    assert "\x1b" not in different.stdout
    assert "only in the first: " in different.stdout
    told = json.loads(run(DUMP, other, "--json", "--samples", "3").stdout)
    assert told["same"] is False
    assert told["extra"] == 1
    assert len(told["samples"]) == 3
    assert run(DUMP, other, "--ttl-tolerance", "soon").returncode == 2
    assert run(DUMP, tmp_path / "none.rdb").returncode == 2
    cut = tmp_path / "cut.rdb"
    cut.write_bytes(DUMP.read_bytes()[:500])
    damaged = run(DUMP, cut)
    assert damaged.returncode == 3
    assert damaged.stderr.count("\n") == 1

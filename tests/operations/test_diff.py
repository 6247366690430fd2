"""`rdbkit diff`: the same data is equal in whatever order and encoding, and every difference is found."""

from __future__ import annotations

import gzip
import io
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
from rdbkit.operations import diff as module
from rdbkit.operations.diff import Diff, diff
from rdbkit.operations.export import export_resp
from rdbkit.passes.diff import Fingerprints, without_equals
from rdbkit.targets.target import find_target

from .. import command_line
from ..rdb import FIXTURES, aux, each_dump, key, length, rarely, rdb, string

NOW = 1_800_000_000_000
DUMP = FIXTURES / "random" / "redis-7.2.6.rdb"


Fields = dict[bytes, tuple[bytes, int | None]]
FAR = NOW + 10 * 86_400_000


def fields_of(path: Path, fields: Fields) -> str:
    """A file with one hash, of which fields have a value and an expiry."""
    value = rdbkit.Hash()
    value.update({name: content for name, (content, _) in fields.items()})
    value.field_expire_ms = {name: ms for name, (_, ms) in fields.items() if ms is not None}
    with rdbkit.create(path, version=12, force=True) as writer:
        writer.put(b"h", value)
    return str(path)


def write(path: Path, *parts: bytes, magic: bytes = b"REDIS0009") -> str:
    path.write_bytes(rdb(*parts, magic=magic))
    return str(path)


def compared(one: str | Path, other: str | Path, **options: Any) -> Diff:
    return diff(str(one), str(other), **({"now_ms": NOW} | options))


@pytest.mark.parametrize("path", each_dump())
def test_a_conversion_without_loss_is_equal(path: Path, tmp_path: Path) -> None:
    assert compared(path, path).same
    policies = rdbkit.Policies(loss="drop")
    for target in ("rdb-9", "redis-7.2", "valkey-9.1"):
        out = tmp_path / f"{target}.rdb"
        report = rdbkit.convert(path, out, target=target, policies=policies, now_ms=NOW)
        kinds = set(report.ledger.counts) - {"function", "module-aux", "array-cursor", "key-metadata", "commands"}
        found = compared(path, out, ignore=["functions"])
        assert bool(compared(path, out).functions) == ("function" in report.ledger.counts)
        if not kinds:
            assert found.differences == 0, (target, found)
            assert found.same == ("commands" not in report.ledger.counts)
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
    assert compared(one, other, ignore=["expire"]).expiry == 0
    keys = compared(one, other, only_keys=True)
    assert (keys.missing, keys.extra, keys.changed, keys.expiry) == (2, 2, 0, 0)
    back = compared(other, one)
    assert (back.missing, back.extra, back.changed, back.expiry, back.expired) == (2, 2, 4, 2, 1)


def test_keys_that_have_expired(tmp_path: Path) -> None:
    past = NOW - 5000
    one = write(
        tmp_path / "a.rdb", key(b"gone", 0, string(b"v"), past), key(b"both", 0, string(b"v"), past),
        key(b"moved", 0, string(b"v"), past), key(b"value", 0, string(b"v"), past), key(b"back", 0, string(b"v"), past),
        key(b"dies", 0, string(b"v")),
        key(b"edge", 0, string(b"v"), NOW - 100),
    )  # fmt: skip
    other = write(
        tmp_path / "b.rdb", key(b"both", 0, string(b"v"), past), key(b"moved", 0, string(b"v"), past + 1),
        key(b"value", 0, string(b"w"), past), key(b"back", 0, string(b"v")), key(b"dies", 0, string(b"v"), past),
        key(b"late", 0, string(b"v"), past), key(b"edge", 0, string(b"v"), NOW + 100),
    )  # fmt: skip
    found = compared(one, other)
    assert {(d.what, d.key) for d in found.samples} == {("extra", b"back"), ("missing", b"dies"), ("extra", b"edge")}
    assert (found.equal, found.expired) == (1, 7)
    near = compared(one, other, ttl_tolerance_ms=200)
    assert {d.key for d in near.samples} == {b"back", b"dies"}
    assert near.equal == 3
    # where expiries do not count, a key is there as long as the file has it
    ignoring = compared(one, other, ignore=["expire"])
    assert ([(d.what, d.key) for d in ignoring.samples], ignoring.expired) == ([("value", b"value")], 2)
    assert compared(one, other, only_keys=True).same


def test_fields_that_have_expired(tmp_path: Path) -> None:
    for name, fields in (("a.rdb", {b"f": None, b"old": NOW - 1}), ("b.rdb", {b"f": None, b"older": NOW - 2})):
        value = rdbkit.Hash()
        value.update(dict.fromkeys(fields, b"v"))
        value.field_expire_ms = {field: ms for field, ms in fields.items() if ms is not None}
        with rdbkit.create(tmp_path / name, version=12) as writer:
            writer.put(b"hash", value)
    assert compared(tmp_path / "a.rdb", tmp_path / "b.rdb").same
    assert compared(tmp_path / "a.rdb", tmp_path / "b.rdb", now_ms=NOW - 10).changed == 1
    # where expiries do not count, a field is there if the other file has it, too
    assert compared(tmp_path / "a.rdb", tmp_path / "b.rdb", ignore=["expire"]).same
    assert compared(tmp_path / "a.rdb", tmp_path / "b.rdb", ignore=["expire"], now_ms=NOW - 10).changed == 1


@pytest.mark.parametrize("block_size", [None, 40])
@pytest.mark.parametrize(
    ("one", "other", "different"),
    [
        ({b"a": (b"1", None), b"x": (b"1", NOW - 1)}, {b"a": (b"1", None)}, False),
        ({b"a": (b"1", None), b"x": (b"1", NOW - 1)}, {b"a": (b"1", None), b"x": (b"1", None)}, False),
        ({b"a": (b"1", None), b"x": (b"1", NOW - 1)}, {b"a": (b"1", None), b"x": (b"2", None)}, True),
        ({b"a": (b"1", None), b"x": (b"1", NOW - 1), b"y": (b"1", NOW - 1)}, {b"a": (b"1", None), b"x": (b"1", FAR)}, False),
        ({b"a": (b"1", None), b"x": (b"1", NOW - 1)}, {b"a": (b"1", None), b"y": (b"2", NOW - 1)}, False),
        ({b"a": (b"1", None), b"x": (b"1", NOW - 1)}, {b"a": (b"2", None)}, True),
        ({b"a": (b"1", None), b"x": (b"1", NOW - 1)}, {b"a": (b"1", None), b"y": (b"2", None)}, True),
    ],
    ids=str,
)  # fmt: skip
def test_expired_fields_where_expiries_do_not_count(
    one: Fields, other: Fields, different: bool, block_size: int | None, tmp_path: Path
) -> None:
    files = fields_of(tmp_path / "a.rdb", one), fields_of(tmp_path / "b.rdb", other)
    for names in (files, files[::-1]):
        found = compared(*names, ignore=["expire"], block_size=block_size)
        assert (found.changed, found.equal, found.same) == (different, not different, not different)
        assert bool(delta(tmp_path, *names, ignore=["expire"])) == different


def library(name: bytes, code: bytes) -> bytes:
    return b"\xf5" + string(b"#!lua name=" + name + b"\n" + code)


def early(name: bytes, code: bytes) -> bytes:
    """As the release candidates of 7.0 wrote it."""
    return b"\xf6" + string(name) + string(b"lua") + b"\0" + string(code)


def test_functions(tmp_path: Path) -> None:
    one = write(
        tmp_path / "a.rdb", library(b"same", b"1"), library(b"other", b"1"), library(b"gone", b"1"), early(b"early", b"1"),
        early(b"late", b"1"), key(b"k", 0, string(b"v")), magic=b"REDIS0010",
    )  # fmt: skip
    other = write(
        tmp_path / "b.rdb", library(b"new\xff", b"1"), library(b"early", b"1"), library(b"other", b"2"), library(b"same", b"1"),
        library(b"late", b"2"), key(b"k", 0, string(b"v")), magic=b"REDIS0010",
    )  # fmt: skip
    found = compared(one, other)
    assert not found.same
    assert found.equal == 1
    assert [(f.what, f.name) for f in found.functions] == [
        ("missing", "gone"), ("changed", "late"), ("extra", "new\udcff"), ("changed", "other"),
    ]  # fmt: skip
    assert compared(one, other, ignore=["functions"]).same
    assert compared(one, other, only_keys=True).same
    # merge leaves some among the keys, servers never
    among = write(
        tmp_path / "c.rdb", library(b"same", b"1"), key(b"k", 0, string(b"v")), library(b"other", b"1"), library(b"gone", b"1"),
        library(b"early", b"1"), library(b"late", b"1"), magic=b"REDIS0010",
    )  # fmt: skip
    assert compared(one, among, ignore=["expire"]).same
    without = write(tmp_path / "e.rdb", key(b"k", 0, string(b"v")), magic=b"REDIS0010")
    assert [f.what for f in compared(without, among, delta=tmp_path / "among.resp").functions] == ["extra"] * 5
    assert [c[:2] for c in commands(tmp_path / "among.resp")] == [[b"FUNCTION", b"LOAD"]] * 5
    compared(without, among, delta=tmp_path / "among.rdb")
    with rdbkit.open(tmp_path / "among.rdb") as snapshot:
        assert len(snapshot.functions) == 5

    shown = run(one, other)
    assert shown.returncode == 1
    assert "other functions  4" in shown.stdout
    assert "another source      late\n" in shown.stdout
    told = json.loads(run(one, other, "--json").stdout)
    assert told["functions"][2] == {"what": "extra", "name": "new\\xff"}
    assert told["delta"] is None
    assert run(one, other, "--ignore", "functions", "--ignore", "expire").returncode == 0

    told = json.loads(run(one, other, "--json", "--delta", tmp_path / "d.resp").stdout)["delta"]
    assert told == {
        "file": str(tmp_path / "d.resp"), "format": "resp", "written": 0, "deleted": 0, "functions": 4, "losses": [],
        "loss_counts": {},
    }  # fmt: skip
    assert commands(tmp_path / "d.resp") == [
        [b"FUNCTION", b"DELETE", b"gone"], [b"FUNCTION", b"DELETE", b"late"], [b"FUNCTION", b"DELETE", b"other"],
        [b"FUNCTION", b"LOAD", b"REPLACE", b"#!lua name=new\xff\n1"], [b"FUNCTION", b"LOAD", b"REPLACE", b"#!lua name=other\n2"],
        [b"FUNCTION", b"LOAD", b"REPLACE", b"#!lua name=late\n2"],
    ]  # fmt: skip
    compared(other, one, delta=tmp_path / "back.resp")
    assert commands(tmp_path / "back.resp")[-1] == [b"FUNCTION", b"LOAD", b"REPLACE", b"#!lua name=late\n1"]
    compared(one, other, delta=tmp_path / "none.resp", ignore=["functions"])
    assert commands(tmp_path / "none.resp") == []
    compared(one, other, delta=tmp_path / "d.rdb")
    with rdbkit.open(tmp_path / "d.rdb") as snapshot:
        assert [f.name for f in snapshot.functions] == ["new\udcff", "other", "late"]
    shown = run(one, other, "--delta", tmp_path / "d.rdb", "--force")
    assert shown.stdout.endswith(
        "d.rdb: 0 keys and 3 function libraries, but not the deletion of 1 function library, which a snapshot cannot say\n"
    )


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
                each.partitions.spill()
    assert [prints[0].partitions.partition(n) for n in range(128)] == [prints[1].partitions.partition(n) for n in range(128)]
    prints[1].partitions.close()


VALUES = st.one_of(
    st.binary(max_size=30),
    st.lists(st.binary(max_size=5), min_size=1, max_size=6),
    st.sets(st.binary(max_size=5), min_size=1, max_size=6),
    st.dictionaries(st.binary(max_size=4), st.binary(max_size=4), min_size=1, max_size=5),
    st.dictionaries(st.binary(max_size=4), st.floats(allow_nan=False), min_size=1, max_size=5),
)


@settings(max_examples=60)
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
    return command_line.run_text("diff", *args)


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
    keys = run(DUMP, other, "--only", "keys", "--json")
    assert json.loads(keys.stdout)["changed"] == 0
    for wrong in ("--only-keys", "--ignore-expiry", "--only=values", "--ignore=order"):
        assert run(DUMP, other, wrong).returncode == 2
    assert run(DUMP, tmp_path / "none.rdb").returncode == 3
    cut = tmp_path / "cut.rdb"
    cut.write_bytes(DUMP.read_bytes()[:500])
    damaged = run(DUMP, cut)
    assert damaged.returncode == 3
    assert damaged.stderr.count("\n") == 1


# -- what follows


def test_what_stands_behind_a_snapshot_is_told(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.rdb", key(b"k", 0, string(b"v")))
    whole = Path(plain).read_bytes()
    for name, more in (("snapshot", whole), ("aof", b"*1\r\n$4\r\nPING\r\n"), ("unknown", b"\0\0oops")):
        other = tmp_path / "b.rdb"
        other.write_bytes(whole + more)
        for packed in (False, True):
            if packed:
                other.write_bytes(gzip.compress(other.read_bytes()))
            found = compared(plain, other)
            assert (found.same, found.differences, found.behind) == (False, 0, (None, name))
            found = compared(other, other, only_keys=True)
            assert (found.same, found.behind) == (False, (name, name))
    (tmp_path / "zeros.rdb").write_bytes(whole + bytes(600))
    assert compared(plain, tmp_path / "zeros.rdb").same

    other.write_bytes(whole * 2)
    shown = run(plain, other)
    assert shown.returncode == 1
    assert shown.stdout.splitlines()[0].endswith("have the same data, as far as it was compared")
    assert "  behind the second  another snapshot, which no server reads: not compared\n" in shown.stdout
    shown = run(other, other)
    assert shown.returncode == 1
    assert shown.stdout.count("not compared") == 2
    told = json.loads(run(other, plain, "--json").stdout)
    assert (told["same"], told["behind"]) == (False, ["snapshot", None])


# -- details


def details(folder: Path, one: Any, other: Any, **options: Any) -> list[str]:
    """What is said of a key's two values, with blocks of two sizes; elements are read again or not."""
    files = pair(folder, one, other)
    said = [compared(*files, block_size=size, **options).samples[0].details for size in (1 << 20, 64)]
    assert said[0] == said[1]
    return said[0]


@pytest.fixture(params=[None, 0], ids=["kept", "read again"])
def nothing_kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of no value elements are kept in memory, or of these small ones all are."""
    if request.param is not None:
        monkeypatch.setattr(rdbkit.operations.diff_elements, "_KEPT_IN_ALL", request.param)


@pytest.mark.usefixtures("nothing_kept")
def test_what_differs_inside_of_values(tmp_path: Path) -> None:
    def said(one: Any, other: Any) -> list[str]:
        return details(tmp_path, one, other)

    assert said(b"abc", b"abd") == ["byte 2 of 3 and 3: b'c' and b'd'"]
    assert said(b"a" * 5000, b"a" * 4000 + b"b" * 9) == [f"byte 4000 of 5000 and 4009: {b'a' * 20!r} and {b'b' * 9!r}"]
    assert said(b"a" * 1024, b"a" * 1030) == ["byte 1024 of 1024 and 1030: b'' and b'aaaaaa'"]
    assert said([b"a", b"b", b"c"], [b"a", b"c", b"c"]) == ["element 1: b'b' and b'c'"]
    assert said([b"a", b"b"], [b"a", b"c", b"c"]) == ["2 and 3 elements", "element 1: b'b' and b'c'"]
    assert said([b"%d" % i for i in range(99)], [b"x"] * 99) == [f"element {i}: {b'%d' % i!r} and b'x'" for i in range(5)]
    assert said({b"a", b"b"}, {b"b", b"c"}) == ["only in the first: b'a'", "only in the second: b'c'"]
    assert said({b"a": 1.0, b"b": 2.5}, {b"b": 2.0, b"c": 0.0}) == ["b'a': 1.0 and None", "b'b': 2.5 and 2.0", "b'c': None and 0.0"]
    assert said({b"a": b"1", b"b": b"2"}, {b"b": b"3", b"c": b""}) == [
        "b'a': b'1' and None",
        "b'b': b'2' and b'3'",
        "b'c': None and b''",
    ]
    one, other = dict.fromkeys((b"%d" % i for i in range(3000)), b"v"), dict.fromkeys((b"%d" % i for i in range(3000)), b"w")
    assert said(one, other) == [f"{b'%d' % i!r}: b'v' and b'w'" for i in range(5)]


@pytest.mark.usefixtures("nothing_kept")
def test_what_differs_inside_of_streams(tmp_path: Path) -> None:
    def stream(fields: list[tuple[bytes, bytes]], last: int, consumer: bytes) -> rdbkit.Stream:
        entry = rdbkit.StreamId(5, 0)
        pending = [rdbkit.PendingEntry(entry, consumer, 1000 + last, 1)]
        group = rdbkit.StreamGroup(b"g", entry, 1, pending, [rdbkit.StreamConsumer(consumer, 7 + last, None)], [])
        return rdbkit.Stream([rdbkit.StreamEntry(entry, fields)], 1, rdbkit.StreamId(last, 0), groups=[group])

    first = stream([(b"f", b"v")], 5, b"c")
    assert details(tmp_path, first, stream([(b"f", b"w")], 5, b"c")) == ["entry 5-0: [(b'f', b'v')] and [(b'f', b'w')]"]
    # when a consumer was seen, and an entry delivered, is not compared
    assert details(tmp_path, first, stream([(b"f", b"v")], 6, b"c")) == ["length and last id: (1, '5-0') and (1, '6-0')"]
    (said,) = details(tmp_path, first, stream([(b"f", b"v")], 5, b"d"))
    assert said.startswith("group b'g': ")
    assert "b'c'" in said
    assert "b'd'" in said


@pytest.mark.usefixtures("nothing_kept")
def test_expiries_of_fields_that_differ(tmp_path: Path) -> None:
    until = 4_102_444_800_000
    one = fields_of(tmp_path / "a.rdb", {b"a": (b"1", until), b"b": (b"2", None), b"c": (b"3", 1000), b"d": (b"4", until)})
    other = fields_of(tmp_path / "b.rdb", {b"a": (b"1", until + 500), b"b": (b"2", until), b"d": (b"5", None), b"e": (b"6", until)})
    assert compared(one, other).samples[0].details == [
        "b'a': expires 2100-01-01 00:00:00 and 2100-01-01 00:00:00.500",
        "b'b': expires never and 2100-01-01 00:00:00",
        "b'd': b'4' and b'5', expires 2100-01-01 00:00:00 and never",
        "b'e': None and b'6', expires 2100-01-01 00:00:00",
    ]
    ignoring = compared(one, other, ignore=["expire"])
    assert ignoring.samples[0].details == ["b'd': b'4' and b'5'", "b'e': None and b'6'"]


@pytest.mark.usefixtures("nothing_kept")
def test_what_is_long_is_cut(tmp_path: Path) -> None:
    name, long = b"f" * 100_000, b"x" * 100_000
    shown = f"{b'f' * 80!r}... (100,000 bytes)"
    tens = "byte 0 of 100000 and 100000: " + f"{b'x' * 20!r} and {b'y' * 20!r}"
    assert details(tmp_path, {name: long}, {name: b"y" * 100_000}) == [f"{shown}: {tens}"]
    assert details(tmp_path, [long, b"b"], [b"y" * 100_000, b"b"]) == [f"element 0: {tens}"]
    assert details(tmp_path, {name: b"v"}, {b"g": b"v"}) == [f"{shown}: b'v' and None", "b'g': None and b'v'"]
    assert details(tmp_path, {name, b"a"}, {b"a"}) == [f"only in the first: {shown}"]
    assert details(tmp_path, [long], [long + b"y"]) == [
        f"element 0: {b'x' * 80!r}... (100,000 bytes) and {b'x' * 80!r}... (100,001 bytes)"
    ]
    assert details(tmp_path, [long], [long[:-1] + b"y"]) == ["element 0: 100,000 bytes each, of which the first 1,024 are the same"]
    told = run(*pair(tmp_path, {name: long}, {name: b"y"}), "--json").stdout
    assert len(told) < 1000


def test_expiries_are_shown_to_the_millisecond(tmp_path: Path) -> None:
    until = 4_102_444_800_000
    one = write(tmp_path / "a.rdb", key(b"", 0, string(b"v"), until), key(b"k", 0, string(b"v"), until))
    other = write(tmp_path / "b.rdb", key(b"", 0, string(b"v"), until + 1000), key(b"k", 0, string(b"v"), until + 1))
    shown = run(one, other).stdout
    assert "  expires  2100-01-01 00:00:00 and 2100-01-01 00:00:01\n" in shown
    assert "  expires  2100-01-01 00:00:00 and 2100-01-01 00:00:00.001\n" in shown
    assert "another expiry: '' (db 0)\n" in shown


MEMORY = """
import sys
from rdbkit.operations.diff import diff
found = diff(*sys.argv[1:])
print(found.changed, len(found.samples[0].details))
# VmHWM begins with this program; ru_maxrss would count the process that started it
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize("what", ["hash", *rarely("string")])
def test_memory_is_bounded(what: str, tmp_path: Path) -> None:
    files = []
    for name in (b"a", b"b"):
        if what == "hash":
            fields = [b"\x20%032d\x20%032d" % (i, i if i != 7 else len(name + b"x") * ord(name)) for i in range(400_000)]
            record = key(b"k", 4, length(len(fields)) + b"".join(fields if name == b"a" else fields[::-1]))
        else:
            record = key(b"k", 0, string(bytes(100_000_000) + name))
        files.append(write(tmp_path / f"{name.decode()}.rdb", record))
    result = subprocess.run([sys.executable, "-c", MEMORY, *files], capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    changed, shown, peak = map(int, result.stdout.split())
    assert (changed, shown) == (1, 1)
    assert peak < 130_000  # KiB


def test_what_cannot_be_read_twice(tmp_path: Path) -> None:
    for name, shown in (("/dev/stdin", "/dev/stdin"), ("-", "standard input")):
        for files in ((DUMP, name), (name, DUMP)):
            command = [sys.executable, "-m", "rdbkit", "diff", *map(str, files)]
            made = subprocess.run(command, capture_output=True, text=True, input="REDIS")
            assert made.returncode == 2
            assert f"Error: {shown}: it is read several times, and has to be a file\n" in made.stderr
    assert run(DUMP, tmp_path).returncode == 3


def test_encodings_may_be_ignored(tmp_path: Path) -> None:
    files = (
        write(tmp_path / "a.rdb", key(b"k", 2, b"\2" + string(b"2") + string(b"1"))),
        write(tmp_path / "b.rdb", key(b"k", 11, string(struct.pack("<IIhh", 2, 2, 1, 2)))),
    )
    assert compared(*files, ignore=["encoding"]).same
    assert run(*files, "--ignore", "encoding", "--ignore", "expire").returncode == 0


# -- deltas


def commands(path: Path) -> list[list[bytes]]:
    """What a file of commands has, read without rdbkit."""
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    file = io.BytesIO(data)
    found: list[list[bytes]] = []
    while line := file.readline():
        assert line[:1] == b"*"
        found.append([])
        for _ in range(int(line[1:])):
            size = int(file.readline()[1:])
            found[-1].append(file.read(size))
            assert file.read(2) == b"\r\n"
    return found


def delta(folder: Path, one: str | Path, other: str | Path, **options: Any) -> list[list[bytes]]:
    compared(one, other, delta=folder / "delta.resp", force=True, **options)
    return commands(folder / "delta.resp")


def empty(path: Path, like: Path) -> Path:
    with rdbkit.open(like) as snapshot, rdbkit.create(path, version=snapshot.header.version, flavour=snapshot.header.flavour):
        return path


@pytest.mark.parametrize("path", each_dump())
def test_the_delta_of_nothing_is_all(path: Path, tmp_path: Path) -> None:
    first = empty(tmp_path / "empty.rdb", path)
    for block_size in (None, 64):
        found = compared(first, path, delta=tmp_path / "all.rdb", force=True, block_size=block_size, now_ms=-(1 << 62))
        assert found.delta is not None
        assert found.delta.written == found.extra == found.keys[1]
        with rdbkit.open(path) as snapshot, rdbkit.open(tmp_path / "all.rdb") as copy:
            assert copy.header == snapshot.header
            assert copy.aux == snapshot.aux
            assert [f.source for f in copy.functions] == [f.source for f in snapshot.functions]
            kinds = rdbkit.Record | rdbkit.KeyMetadata | rdbkit.HashTemplate
            both = [[item for item in each.events() if isinstance(item, kinds)] for each in (snapshot, copy)]
        for one, other in zip(*both, strict=True):
            if isinstance(one, rdbkit.Record) and isinstance(other, rdbkit.Record):
                names = ("db", "key", "raw", "rdb_type", "expire_ms", "idle_s", "freq", "member_expire_ms", "size")
                assert [getattr(one, name) for name in names] == [getattr(other, name) for name in names]
            else:
                assert repr(one) == repr(other)
    found = compared(first, path, delta=tmp_path / "all.resp", on_loss="drop", now_ms=-(1 << 62))
    out = io.BytesIO()
    with rdbkit.open(path) as snapshot:
        report = export_resp(snapshot, out, on_loss="drop")
    assert (tmp_path / "all.resp").read_bytes() == out.getvalue()
    assert found.delta is not None
    assert found.delta.loss_counts == {kind: n for kind, n in report.loss_counts.items() if kind != "module-aux"}
    gone = delta(tmp_path, path, first, now_ms=-(1 << 62))
    assert {each[0] for each in gone} <= {b"SELECT", b"UNLINK", b"FUNCTION"}
    assert sum(len(each) - 1 for each in gone if each[0] == b"UNLINK") == found.keys[1]


def test_what_is_only_in_the_first_is_deleted(tmp_path: Path) -> None:
    names = [b"%d\r\n\xff" % i for i in range(1100)]
    one = write(
        tmp_path / "a.rdb", b"\xfe\x02", *(key(n, 0, string(b"v")) for n in names), b"\xfe\x05", key(b"a", 0, string(b"v")),
        key(b"b", 0, string(b"v"), NOW - 1), b"\xfe\x00", key(b"c", 0, string(b"v"), NOW + 1),
    )  # fmt: skip
    other = write(tmp_path / "b.rdb", b"\xfe\x03", key(b"new", 0, string(b"v")), key(b"late", 0, string(b"v"), NOW - 1))
    found = delta(tmp_path, one, other)
    assert found == [
        [b"SELECT", b"2"], [b"UNLINK", *names[:512]], [b"UNLINK", *names[512:1024]], [b"UNLINK", *names[1024:]], [b"SELECT", b"5"],
        [b"UNLINK", b"a"], [b"SELECT", b"0"], [b"UNLINK", b"c"], [b"SELECT", b"3"], [b"SET", b"new", b"v"],
    ]  # fmt: skip
    assert delta(tmp_path, one, other, target="redis-3.2")[1][:2] == [b"DEL", names[0]]
    report = compared(one, other, delta=tmp_path / "d.rdb").delta
    assert report is not None
    assert (report.format, report.written, report.deleted) == ("rdb", 1, 1102)
    with rdbkit.open(tmp_path / "d.rdb") as snapshot:
        assert [(r.db, r.key) for r in snapshot] == [(3, b"new")]


def test_expiries_in_a_delta(tmp_path: Path) -> None:
    def both(one: int | None, other: int | None, **options: Any) -> list[list[bytes]]:
        a = write(tmp_path / "a.rdb", b"\xfe\x01", key(b"k", 1, b"\x01" + string(b"v"), one))
        b = write(tmp_path / "b.rdb", b"\xfe\x01", key(b"k", 1, b"\x01" + string(b"v"), other))
        found = delta(tmp_path, a, b, **options)
        assert not found or found[0] == [b"SELECT", b"1"]
        return found[1:]

    far, farther = b"%d" % FAR, b"%d" % (FAR + 5)
    assert both(None, None) == []
    assert both(FAR, FAR) == []
    assert both(None, FAR) == [[b"PEXPIREAT", b"k", far]]
    assert both(FAR, None) == [[b"PERSIST", b"k"]]
    assert both(FAR, FAR + 5) == [[b"PEXPIREAT", b"k", farther]]
    assert both(FAR, FAR + 5, ttl_tolerance_ms=5) == []
    assert both(FAR, FAR + 5, ignore=["expire"]) == []
    # one that may be gone when this is loaded
    assert both(NOW + 1000, FAR) == [[b"UNLINK", b"k"], [b"RPUSH", b"k", b"v"], [b"PEXPIREAT", b"k", far]]
    assert both(NOW + 1000, None) == [[b"UNLINK", b"k"], [b"RPUSH", b"k", b"v"]]
    assert both(None, NOW + 1000) == [[b"PEXPIREAT", b"k", b"%d" % (NOW + 1000)]]
    # one that is gone in the first: a server whose clock is behind may still have it
    assert both(NOW - 1, FAR) == [[b"UNLINK", b"k"], [b"RPUSH", b"k", b"v"], [b"PEXPIREAT", b"k", far]]
    # in the second, in both
    assert both(None, NOW - 1) == [[b"UNLINK", b"k"]]
    assert both(FAR, NOW - 1) == [[b"UNLINK", b"k"]]
    assert both(NOW - 1, NOW - 2) == []


def pair(folder: Path, one: Any, other: Any, expiries: tuple[int | None, int | None] = (None, None)) -> list[str]:
    files = []
    for name, value, until in (("a.rdb", one, expiries[0]), ("b.rdb", other, expiries[1])):
        with rdbkit.create(folder / name, version=12, force=True) as writer:
            writer.put(b"k", value, expire_ms=until)
        files.append(str(folder / name))
    return files


def changed(folder: Path, *args: Any, **options: Any) -> list[list[bytes]]:
    """The commands behind SELECT."""
    found = delta(folder, *pair(folder, *args), **options)
    assert found[0] == [b"SELECT", b"0"]
    return found[1:]


def test_values_that_are_written_whole(tmp_path: Path) -> None:
    assert changed(tmp_path, b"old", b"new", (FAR, None)) == [[b"SET", b"k", b"new"]]
    assert changed(tmp_path, b"old", b"new", (None, FAR)) == [[b"SET", b"k", b"new"], [b"PEXPIREAT", b"k", b"%d" % FAR]]
    assert changed(tmp_path, [b"a"] * 9, [b"a"] * 8) == [[b"UNLINK", b"k"], [b"RPUSH", b"k", *[b"a"] * 8]]
    assert changed(tmp_path, [b"a"], {b"a"}, (FAR, FAR)) == [
        [b"UNLINK", b"k"], [b"SADD", b"k", b"a"], [b"PEXPIREAT", b"k", b"%d" % FAR],
    ]  # fmt: skip
    assert changed(tmp_path, [b"a"], b"a", target="redis-3.2") == [[b"SET", b"k", b"a"]]
    assert changed(tmp_path, b"a", [b"a"], target="redis-3.2") == [[b"DEL", b"k"], [b"RPUSH", b"k", b"a"]]
    streams = [rdbkit.Stream(length=1, last_id=rdbkit.StreamId(n, 0)) for n in (1, 2)]
    for n, stream in enumerate(streams):
        stream.entries = [rdbkit.StreamEntry(rdbkit.StreamId(n + 1, 0), [(b"f", b"v")])]
    assert [each[:2] for each in changed(tmp_path, *streams)] == [[b"UNLINK", b"k"], [b"XADD", b"k"], [b"XSETID", b"k"]]


def test_elements(tmp_path: Path) -> None:
    numbers = [b"%d" % i for i in range(10)]
    add, remove = changed(tmp_path, set(numbers), {*numbers[2:], b"x"})
    assert add == [b"SADD", b"k", b"x"]
    assert (remove[:2], sorted(remove[2:])) == ([b"SREM", b"k"], numbers[:2])
    scores = dict.fromkeys(numbers, 1.0)
    other = {name: score for name, score in scores.items() if name != b"0"} | {b"1": 2.5, b"x": float("-inf")}
    assert changed(tmp_path, scores, other) == [[b"ZADD", b"k", b"2.5", b"1", b"-inf", b"x"], [b"ZREM", b"k", b"0"]]
    fields = dict.fromkeys(numbers, b"v")
    more = {name: value for name, value in fields.items() if name != b"0"} | {b"1": b"w", b"x": b""}
    assert changed(tmp_path, fields, more) == [[b"HSET", b"k", b"1", b"w", b"x", b""], [b"HDEL", b"k", b"0"]]
    assert changed(tmp_path, fields, more, target="redis-3.2")[0][0] == b"HMSET"
    # and the key's expiry
    add = [b"SADD", b"k", b"x"]
    for one, two in ((FAR, None), (None, FAR), (FAR, FAR), (FAR, FAR + 1)):
        last = [b"PERSIST", b"k"] if two is None else [b"PEXPIREAT", b"k", b"%d" % two]
        assert changed(tmp_path, set(numbers), {*numbers, b"x"}, (one, two)) == [add, last]
        assert changed(tmp_path, set(numbers), {*numbers, b"x"}, (one, two), ignore=["expire"]) == [add]
    # one that may be gone when this is loaded is created again
    assert changed(tmp_path, set(numbers), {*numbers, b"x"}, (NOW + 9, NOW + 9))[0] == [b"UNLINK", b"k"]
    # half of the elements, and more
    assert [c[0] for c in changed(tmp_path, set(numbers), {*numbers[:5]})] == [b"SREM"]
    assert [c[0] for c in changed(tmp_path, set(numbers), {*numbers[:4]})] == [b"UNLINK", b"SADD"]
    assert [c[0] for c in changed(tmp_path, set(numbers[:2]), {b"0", b"x"})] == [b"UNLINK", b"SADD"]


def test_many_elements_are_several_commands(tmp_path: Path) -> None:
    old = {b"%d" % i for i in range(3000)}
    new = (old - {b"%d" % i for i in range(600)}) | {b"new %d" % i for i in range(513)}
    assert [(c[0], len(c) - 2) for c in changed(tmp_path, old, new)] == [
        (b"SADD", 512), (b"SADD", 1), (b"SREM", 512), (b"SREM", 88),
    ]  # fmt: skip
    large = dict.fromkeys((b"%d" % i for i in range(20)), b"v")
    found = changed(tmp_path, large, large | {b"%d" % i: b"w" * 500_000 for i in range(5)})
    assert [(c[0], len(c)) for c in found] == [(b"HSET", 6), (b"HSET", 6), (b"HSET", 4)]


def hashes() -> tuple[rdbkit.Hash, rdbkit.Hash]:
    one, other = rdbkit.Hash(), rdbkit.Hash()
    for value in (one, other):
        value.update({b"%d" % i: b"v" for i in range(20)})
    one.field_expire_ms = {b"1": FAR, b"2": FAR, b"3": FAR, b"4": NOW - 1, b"5": FAR, b"6": NOW - 1}
    other.field_expire_ms = {b"1": FAR, b"2": FAR + 1, b"5": NOW - 1, b"6": NOW - 2, b"7": FAR + 1}
    return one, other


def test_expiries_of_fields(tmp_path: Path) -> None:
    # HSET takes an expiry off; a field that has expired is not there
    assert changed(tmp_path, *hashes()) == [
        [b"HSET", b"k", b"2", b"v", b"3", b"v", b"4", b"v", b"7", b"v"],
        [b"HPEXPIREAT", b"k", b"%d" % (FAR + 1), b"FIELDS", b"2", b"2", b"7"], [b"HDEL", b"k", b"5"],
    ]  # fmt: skip
    one, other = hashes()
    other[b"9"] = b"w"
    for value, name in ((one, b"gone"), (other, b"late")):  # only there, and expired
        value[name] = b"v"
        value.field_expire_ms[name] = NOW - 1
    assert changed(tmp_path, one, other, ignore=["expire"]) == [[b"HSET", b"k", b"9", b"w"]]
    with pytest.raises(rdbkit.LossError):
        changed(tmp_path, *hashes(), target="redis-7.2")
    found = compared(*pair(tmp_path, *hashes()), delta=tmp_path / "lost.resp", target="redis-7.2", on_loss="drop")
    assert found.delta is not None
    assert found.delta.loss_counts == {"field-expiry": 5}
    assert [c[0] for c in commands(tmp_path / "lost.resp")] == [b"SELECT", b"UNLINK", b"HSET"]


@pytest.mark.parametrize("block_size", [None, 100])
def test_where_elements_cannot_be_had(tmp_path: Path, block_size: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    old = {b"member %d" % i for i in range(100)}
    files = pair(tmp_path, old, old | {b"x"})

    def names(*files: str) -> list[bytes]:
        """Of the commands, repeated ones once."""
        return list(dict.fromkeys(each[0] for each in delta(tmp_path, *files, block_size=block_size)))

    by_element, whole = [b"SELECT", b"SADD"], [b"SELECT", b"UNLINK", b"SADD"]
    assert names(*files) == by_element
    for name in files:
        Path(name + ".gz").write_bytes(gzip.compress(Path(name).read_bytes()))
    assert names(files[0] + ".gz", files[1]) == whole
    assert names(files[0], files[1] + ".gz") == (by_element if block_size is None else whole)
    monkeypatch.setattr(module, "MOST_BYTES", 500)
    assert names(*files) == whole


@pytest.mark.parametrize("block_size", [None, 20])
def test_members_that_expire(tmp_path: Path, block_size: int | None) -> None:
    """KeyDB says so behind the value."""
    members = [string(b"member %d" % i) for i in range(20)]
    said = aux(b"keydb-subexpire-key", b"member 1") + aux(b"keydb-subexpire-when", b"%d" % FAR)
    one = write(tmp_path / "a.rdb", key(b"k", 2, b"\x14" + b"".join(members)))
    other = write(tmp_path / "b.rdb", key(b"k", 2, b"\x13" + b"".join(members[1:])), said, key(b"same", 0, string(b"v")), said)
    with pytest.raises(rdbkit.LossError):
        delta(tmp_path, one, other, block_size=block_size)
    found = compared(one, other, delta=tmp_path / "d.resp", on_loss="drop", block_size=block_size)
    assert found.delta is not None
    assert found.delta.loss_counts == {"member-expiry": 2}
    compared(one, other, delta=tmp_path / "d.rdb", block_size=block_size)
    with rdbkit.open(tmp_path / "d.rdb") as snapshot:
        assert [(r.key, r.member_expire_ms) for r in snapshot] == [
            (b"k", {b"member 1": FAR}), (b"same", {b"member 1": FAR}),
        ]  # fmt: skip
    # nothing is said of what does not change
    twice = write(tmp_path / "c.rdb", key(b"k", 2, b"\x14" + b"".join(members)), said, key(b"x", 0, string(b"v")))
    assert delta(tmp_path, one, twice, block_size=block_size) == [[b"SELECT", b"0"], [b"SET", b"x", b"v"]]


def test_templates_of_hashes(tmp_path: Path) -> None:
    """Fields of hashes of RDB 15 precede the keys."""
    template = b"\xf2\x07\x03" + string(b"a") + string(b"b") + string(b"c")
    values = [b"\x07" + string(b"1") + string(last) + string(b"3") for last in (b"2", b"9")]
    files = [
        write(tmp_path / name, template, key(b"h", 32, value), key(b"same", 32, values[0]), magic=b"REDIS0015")
        for name, value in zip(("a.rdb", "b.rdb"), values, strict=True)
    ]
    found = delta(tmp_path, *files)
    assert [c[0] for c in found] == [b"SELECT", b"UNLINK", b"HSET"]
    assert set(zip(found[-1][2::2], found[-1][3::2], strict=True)) == {(b"a", b"1"), (b"b", b"9"), (b"c", b"3")}
    compared(*files, delta=tmp_path / "d.rdb")
    with rdbkit.open(tmp_path / "d.rdb") as snapshot:
        assert [(r.key, r.value) for r in snapshot] == [(b"h", {b"a": b"1", b"b": b"9", b"c": b"3"})]


@settings(max_examples=60)
@given(
    st.dictionaries(st.integers(0, 15), st.tuples(VALUES, st.sampled_from([None, NOW - 1, FAR])), max_size=8),
    st.dictionaries(st.integers(0, 15), st.tuples(VALUES, st.sampled_from([None, NOW - 1, FAR])), max_size=8),
)
def test_a_delta_merged_over_the_first_is_the_second(
    tmp_path_factory: pytest.TempPathFactory, one: dict[int, Any], other: dict[int, Any]
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    other = one | other  # a snapshot cannot say what is not there any more
    for name, data in (("a.rdb", one), ("b.rdb", other)):
        with rdbkit.create(folder / name, version=11) as writer:
            for number in sorted(data, key=lambda n: n % 3):
                writer.put(b"%d" % number, data[number][0], db=number % 3, expire_ms=data[number][1])
    names = [str(folder / name) for name in ("a.rdb", "delta.rdb")]
    found = compared(names[0], folder / "b.rdb", delta=names[1])
    assert found.delta is not None
    assert found.delta.written == found.extra + found.changed + found.expiry
    rdbkit.merge(names, folder / "merged.rdb", on_duplicate="last")
    merged = compared(folder / "merged.rdb", folder / "b.rdb")
    # what has expired is in the delta as little as what has been deleted
    assert (merged.extra, merged.changed, merged.expiry) == (0, 0, 0)
    assert merged.missing == found.delta.deleted


def test_a_delta_for_what_lacks_a_database(tmp_path: Path) -> None:
    def each(*keys: tuple[bytes, bytes]) -> list[bytes]:
        return [key(name, 0, string(value)) for name, value in keys]

    gone, kept = (b"gone", b"1"), (b"kept", b"1")
    one = write(tmp_path / "a.rdb", b"\xfe\x00", *each(gone, kept), b"\xfe\x03", *each(gone, kept))
    other = write(tmp_path / "b.rdb", b"\xfe\x00", *each((b"kept", b"2")), b"\xfe\x03", *each((b"kept", b"2"), (b"new", b"1")))
    found = diff(one, other, delta=tmp_path / "d.resp", target="azure-managed", on_loss="drop")
    assert commands(tmp_path / "d.resp") == [[b"SELECT", b"0"], [b"UNLINK", b"gone"], [b"SET", b"kept", b"2"]]
    assert found.delta is not None
    assert found.delta.loss_counts == {"database": 3}
    assert [(loss.db, loss.key) for loss in found.delta.losses] == [(3, b"gone"), (3, b"kept"), (3, b"new")]
    with pytest.raises(rdbkit.LossError, match="a key in database 3 cannot be given to azure-managed"):
        diff(one, other, delta=tmp_path / "e.resp", target=find_target("azure-managed"))
    assert not (tmp_path / "e.resp").exists()


def test_the_command_with_a_delta(tmp_path: Path) -> None:
    rich = FIXTURES / "rich" / "redis-7.0.15.rdb"
    other = write(tmp_path / "b.rdb", b"\xfe\x00", key(b"new", 0, string(b"v")), key(b"str", 0, string(b"other")))
    out = tmp_path / "d.resp.gz"
    done = run(rich, other, "--delta", out, "--samples", "0")
    assert done.returncode == 1
    assert done.stderr == ""
    assert done.stdout.endswith(f"{out}: commands for 2 keys and 1 function library, and for the deletion of 26 keys\n")
    assert {c[0] for c in commands(out)} == {b"FUNCTION", b"SELECT", b"SET", b"UNLINK"}
    assert run(rich, other, "--delta", out).returncode == 2
    told = json.loads(run(rich, other, "--delta", out, "--force", "--json").stdout)["delta"]
    assert (told["format"], told["written"], told["deleted"], told["functions"]) == ("resp", 2, 26, 1)
    done = run(rich, other, "--delta", tmp_path / "d.rdb.gz")
    said = "d.rdb.gz: 2 keys, but not the deletion of 26 keys and 1 function library, which a snapshot cannot say\n"
    assert done.stdout.endswith(said)
    same = run(other, other, "--delta", tmp_path / "same.resp", "--target", "valkey-9.1")
    assert same.returncode == 0
    assert (tmp_path / "same.resp").read_bytes() == b""
    with rdbkit.open(tmp_path / "d.rdb.gz") as snapshot:
        assert [r.key for r in snapshot] == [b"new", b"str"]

    lost = run(other, rich, "--delta", tmp_path / "lost.resp", "--target", "redis-6.0")
    assert (lost.returncode, lost.stderr.count("\n")) == (1, 1)
    assert "--on-loss drop" in lost.stderr
    lost = run(other, rich, "--delta", tmp_path / "less.resp", "--target", "redis-6.0", "--on-loss", "drop")
    assert lost.returncode == 1
    assert lost.stderr == "rdbkit: lost: function: function library 'l'\nrdbkit: lost in all: function 1\n"
    cut = tmp_path / "cut.rdb"
    cut.write_bytes(rich.read_bytes()[:-1000])
    assert run(other, cut, "--delta", tmp_path / "lost.resp").returncode == 3
    assert run(cut, other, "--delta", tmp_path / "lost.rdb").returncode == 3
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "b.rdb", "cut.rdb", "d.rdb.gz", "d.resp.gz", "less.resp", "same.resp",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        ["--delta", "out.txt"], ["--delta", "-"], ["--delta", "d.resp", "--only", "keys"], ["--target", "redis-6.0"], ["--force"],
        ["--on-loss", "drop"], ["--delta", "d.rdb", "--target", "redis-6.0"], ["--delta", "d.rdb", "--on-loss", "drop"],
        ["--delta", "d.resp", "--target", "azure"], ["--delta", "a.rdb", "--force"], ["--delta", "link.rdb", "--force"],
        ["--delta", "there.resp"], ["--delta", "d.resp", "--target", "rdb-9"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_options_that_do_not_go_together(options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    a = Path(write(tmp_path / "a.rdb", key(b"k", 0, string(b"v"))))
    before = a.read_bytes()
    Path("link.rdb").symlink_to("a.rdb")
    Path("there.resp").write_bytes(b"")
    done = run("a.rdb", DUMP, *options)
    assert done.returncode == 2, done.stdout
    assert a.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.rdb", "link.rdb", "there.resp"]


@pytest.mark.parametrize(
    "options",
    [
        {"ignore": ["order"]}, {"ignore": "expire"}, {"target": "redis-6.0"}, {"on_loss": "drop"}, {"force": True},
        {"delta": "d.txt"}, {"delta": "d.resp", "only_keys": True}, {"delta": "d.rdb", "on_loss": "drop"},
        {"delta": "d.resp", "target": "redis-2.4"}, {"delta": "d.resp", "on_loss": "keep"}, {"delta": str(DUMP), "force": True},
    ],
    ids=str,
)  # fmt: skip
def test_arguments_that_do_not_go_together(options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"\w"):
        diff(str(DUMP), str(DUMP), **options)
    assert not list(tmp_path.iterdir())


def test_what_waits_on_the_disk_is_counted() -> None:
    from rdbkit.passes.hashes import HashPartitions, NameLog

    partitions, log = HashPartitions(), NameLog()
    try:
        partitions.outs[3].write(b"12345678")
        assert partitions.on_disk() == 0
        partitions.spill()
        partitions.outs[4].write(b"1234")
        assert partitions.on_disk() == 8
        assert partitions.partition(3) == b"12345678"
        assert log.on_disk() == 0
        log.add(0, b"name", 1)
        log.partitions.spill()
        assert log.on_disk() == 24
        log.add(0, b"name", 2)
        assert list(log.repeated()) == [[1, 2]]
    finally:
        partitions.close()
        log.close()


ENTRIES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.integers(0, 1)), max_size=12)


@given(ENTRIES, ENTRIES)
def test_entries_that_both_have_are_counted_and_the_others_are_left(
    first: list[tuple[int, int, int]], second: list[tuple[int, int, int]]
) -> None:
    for compared in (1, 3):
        data = [b"".join(struct.pack("<4q", *entry, at) for at, entry in enumerate(each)) for each in (first, second)]
        equal, left, right = without_equals(data[0], data[1], 8 * compared)
        mine, others = ([entry[:compared] for entry in each] for each in (first, second))
        if len(set(mine)) < len(mine) or len(set(others)) < len(others):  # no server loads such a file
            assert (equal, left, right) == (0, *data)
            continue
        assert equal == len(set(mine) & set(others))
        assert left == b"".join(data[0][32 * at :][:32] for at, entry in enumerate(mine) if entry not in others)
        assert right == b"".join(data[1][32 * at :][:32] for at, entry in enumerate(others) if entry not in mine)

"""JSON lines become the snapshot that they were made of, or an error that says what is wrong with which of them."""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rdbkit
from rdbkit.operations import build as operation
from rdbkit.operations.build import Build, build
from rdbkit.targets.target import find_target, target_names

from .. import command_line
from ..encoders import ENCODERS, EXPIRING_MEMBERS, EXPIRING_SECONDS, Encoder
from ..format.test_decode import file_of
from ..rdb import DUMPS, FIXTURES, Dribble, each_dump
from .test_export import exported, names, rows_in

RICH = [path for path in DUMPS if path.parent.name == "rich"]
DUMP = FIXTURES / "rich" / "redis-8.8-dev.rdb"
KEYDB = FIXTURES / "rich" / "keydb-6.3.4-ext.rdb"


def built(lines: bytes | Iterable[bytes], target: str = "rdb-14", **options: Any) -> tuple[bytes, Build]:
    out = io.BytesIO()
    source: Any = io.BytesIO(lines) if isinstance(lines, bytes) else lines
    report = build(source, out, target=target, **options)
    return out.getvalue(), report


def rows_of(data: bytes | Path) -> list[dict[str, Any]]:
    """The lines of a snapshot, without how its server had packed the values."""
    rows = rows_in(exported(data))
    for row in rows:
        del row["encoding"]
    return rows


def line(kind: str = "string", value: Any = "v", **more: Any) -> bytes:
    return json.dumps({"db": 0, "key": "k", "type": kind, "value": value, **more}).encode()


def value_of(data: bytes) -> Any:
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        (record,) = snapshot
    return record.value


# -- there and back


def own_target(path: Path) -> str:
    """A target with the version of a dump. What KeyDB has of its own it keeps in a place that it alone looks at."""
    if path.name.startswith("keydb"):
        return "keydb-6.3"
    with rdbkit.open(path) as snapshot:
        return f"rdb-{snapshot.header.version}"


@pytest.mark.parametrize("path", each_dump())
def test_a_dump_comes_back_from_its_lines(path: Path) -> None:
    data, report = built(exported(path), own_target(path))
    assert not report.ledger.counts
    wanted = rows_of(path)
    if path.name == "redis-7.0-rc1.rdb":  # it wrote streams as Redis 6 did, and what they do not say is made as on loading
        for row in wanted:
            if row["type"] == "stream":
                with_counters(row["value"])
    assert rows_of(data) == wanted
    with rdbkit.open(path) as source, rdbkit.open(io.BytesIO(data)) as snapshot:
        assert snapshot.header == report.header == source.header
        written = sum(1 for _ in snapshot)
        assert report.written == report.keys == written == sum(1 for _ in source)
        assert snapshot.aux == ({} if path != KEYDB else snapshot.aux)
        assert snapshot.checksum is not None
        assert snapshot.checksum.state == ("absent" if report.header.version < 5 else "ok")


def with_counters(value: dict[str, Any]) -> None:
    assert "first_id" not in value
    value["first_id"] = value["entries"][0][0] if value["entries"] else "0-0"
    value["max_deleted_id"] = "0-0"
    value["entries_added"] = len(value["entries"])
    for found in value["groups"]:
        found["entries_read"] = -1


def test_nothing_stands_in_the_file_but_the_keys() -> None:
    with rdbkit.open(io.BytesIO(built(exported(DUMP))[0])) as snapshot:
        kinds = {type(event).__name__ for event in snapshot.events()}
    assert kinds == {"Record", "SelectDb", "ResizeDb"}


ARRAYS = {e.name for e in ENCODERS if e.type_code == 28}


@pytest.mark.one_in(4)
@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: e.name)
@settings(max_examples=20)
@given(data=st.data(), seed=st.integers(0, 1 << 32))
def test_any_value_comes_back_from_its_line(encoder: Encoder, data: st.DataObject, seed: int) -> None:
    before = rows_of(file_of(encoder, data.draw(encoder.values), Random(seed)))
    after, report = built(b"\n".join(map(as_line, before)), f"rdb-{int(encoder.magic[-3:])}", on_loss="drop")
    lost: dict[str, int] = {}
    for row in before:
        if row["type"] == "array":
            row["value"] = [[i, kept_number(item)] for i, item in row["value"]]
        elif encoder.values in (EXPIRING_SECONDS, EXPIRING_MEMBERS):  # Dragonfly's, which no RDB version has
            for name, kind in (("field_expire_ms", "field-expiry"), ("member_expire_ms", "member-expiry")):
                if expiries := row.pop(name, None):
                    lost[kind] = len(expiries)
    assert report.ledger.counts == lost
    assert rows_of(after) == before


def as_line(row: dict[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode()


def kept_number(item: Any) -> Any:
    """A server keeps a fraction as a number only where the last two bits of it are 0; others are text to it."""
    if isinstance(item, float) and struct.pack("<d", item)[0] & 3:
        return repr(item)
    return item


TARGETS = ["redis-2.4", "redis-2.6", "redis-4.0", "redis-6.2", "keydb-6.3", "redis-7.0", "redict-7.3", "redis-8.0", "redis-8.10"]
TARGETS += ["valkey-8.1", "valkey-9.0", "azure-premium", "azure-managed", "rdb-1", "rdb-9", "rdb-12", "rdb-80"]


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("path", each_dump("rich"))
def test_a_target_gets_what_it_loads_and_the_rest_is_told(path: Path, name: str) -> None:
    target = find_target(name)
    lines = exported(path)
    data, report = built(lines, name, on_loss="drop")
    wanted = {(row["db"], str(row["key"])): row for row in rows_of(path)}
    known = target.types_in(report.header)
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        found = list(snapshot)
    for record in found:
        assert record.rdb_type in known
        assert not (target.single_db and record.db)
    rows = {(row["db"], str(row["key"])): row for row in rows_of(data)}
    whole = {"stream", "array", "module", "cron", "gcra", "json", "database"}
    gone = {(loss.db, str(json_form(loss.key))) for loss in report.ledger.losses if loss.kind in whole}
    assert gone == wanted.keys() - rows.keys()
    touched = {(loss.db, str(json_form(loss.key))) for loss in report.ledger.losses}
    for at, row in rows.items():
        if row["type"] == "stream":  # whose counters depend on the version
            assert row["value"]["entries"] == wanted[at]["value"]["entries"]
        elif at not in touched:
            assert [row["type"], row["value"]] == [wanted[at]["type"], wanted[at]["value"]]
            assert row.get("field_expire_ms") == wanted[at].get("field_expire_ms")
    if report.ledger.counts:
        with pytest.raises(rdbkit.LossError) as caught:
            built(lines, name)
        assert str(caught.value).startswith(f"{name} does not support ")
        assert (caught.value.db, caught.value.key) == (report.ledger.losses[0].db, report.ledger.losses[0].key)
    else:
        assert built(lines, name)[0] == data


def json_form(key: bytes | None) -> Any:
    assert key is not None
    try:
        return key.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(key).decode()}


def test_every_target_gets_a_file() -> None:
    for name in target_names():
        data, report = built(line(), name)
        assert data.startswith(str(report.header).encode())
        target = find_target(name)
        assert report.header == (("valkey", target.valkey[-1]) if target.valkey else ("redis", target.rdb))
        assert value_of(data) == b"v"


# -- forms that export does not write, and that mean the same


@pytest.mark.parametrize(
    ("form", "kind", "value"),
    [
        ('{"value":"\\u00e9\\ud83d\\ude00","type":"string","key":"k","db":0}', "string", "é😀".encode()),
        (' { "db" : 0 , "key" : {"base64":"aw=="}, "type":"string", "value":{"base64":"dmFsdWU="}}\r', "string", b"value"),
        ('{"db":0,"key":"k","type":"string","encoding":"int","value":""}', "string", b""),
        ('{"db":0,"key":"k","type":"hash","value":[["a","b"],[{"base64":"Yg=="},"c"]]}', "hash", {b"a": b"b", b"b": b"c"}),
        ('{"db":0,"key":"k","type":"hash","value":{"base64":"dmFsdWU="}}', "hash", {b"base64": b"dmFsdWU="}),
        ('{"db":0,"key":"k","type":"zset","value":[["a",1.0],["b",-0.0],["c",1e3]]}', "zset", {b"a": 1, b"b": 0, b"c": 1000}),
        ('{"db":0,"key":"k","type":"array","value":[[7,1.0],[2,"inf"],[3,1]]}', "array", {2: b"inf", 3: 1, 7: 1.0}),
    ],
)
def test_other_forms_of_the_same(form: str, kind: str, value: Any) -> None:
    data, _ = built(form.encode())
    assert value_of(data) == value
    (row,) = rows_of(data)
    assert (row["key"], row["type"]) == ("k", kind)


@pytest.mark.parametrize(("kind", "value"), [("list", []), ("set", []), ("zset", []), ("hash", {}), ("hash", [])])
def test_a_key_without_elements_is_a_loss(kind: str, value: Any) -> None:
    """No server has such a key; those since 7.0 skip it, and older ones trip over it."""
    lines = line(kind, value) + b"\n" + line(key="other")
    for version in (1, 9, 14):
        with pytest.raises(rdbkit.LossError, match=f"a {kind} without elements"):
            built(lines, f"rdb-{version}")
        data, report = built(lines, f"rdb-{version}", on_loss="drop")
        assert [row["key"] for row in rows_of(data)] == ["other"]
        assert [(loss.kind, loss.key) for loss in report.ledger.losses] == [("empty", b"k")]


def test_a_key_that_comes_twice_is_an_error(tmp_path: Path) -> None:
    lines = [line(key="a"), line(key="b"), line("list", ["x"], key="a"), line(key="b", db=1)]
    with pytest.raises(rdbkit.CorruptError, match="line 3: its key has come before, in line 1"):
        built(b"\n".join(lines))
    with pytest.raises(rdbkit.CorruptError, match="line 3"):
        build(iter(lines), tmp_path / "out.rdb", target="rdb-9")
    assert not any(tmp_path.iterdir())
    data, _ = built(b"\n".join([lines[0], lines[1], lines[3]]))
    assert len(rows_of(data)) == 3
    assert rdbkit.verify(io.BytesIO(data), deep=True).sound


def test_a_number_in_an_array_keeps_its_kind() -> None:
    items = [[0, 1], [1, 1.0], [2, 0.5], [3, 0.1], [4, "inf"], [5, "nan"], [6, -0.0], [7, 1e300], [8, -(1 << 63)], [9, "1.0"]]
    found = value_of(built(line("array", items, insert_index=9))[0])
    assert {i: (type(item), item) for i, item in found.items()} == {
        0: (int, 1), 1: (float, 1.0), 2: (float, 0.5), 3: (bytes, b"0.1"), 4: (bytes, b"inf"), 5: (bytes, b"nan"),
        6: (float, 0.0), 7: (float, 1e300), 8: (int, -(1 << 63)), 9: (bytes, b"1.0"),
    }  # fmt: skip
    assert str(found[6]) == "-0.0"
    assert found.insert_index == 9


def test_what_belongs_to_a_key_is_kept() -> None:
    data, _ = built(line(db=3, expire_ms=-5, idle_s=1 << 40) + b"\n" + line(db=15, key="l", freq=255))
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        assert [(r.db, r.key, r.expire_ms, r.idle_s, r.freq) for r in snapshot] == [
            (3, b"k", -5, 1 << 40, None),
            (15, b"l", None, None, 255),
        ]


def test_members_of_a_set_keep_their_order_and_so_does_the_file() -> None:
    members = [f"m{n}" for n in Random(1).sample(range(1000), 500)]
    text = line("set", members)
    (row,) = rows_of(built(text)[0])
    assert row["value"] == members
    code = "import io, sys\nfrom rdbkit.operations.build import build\nout = io.BytesIO()\n"
    code += "build(sys.stdin.buffer, out, target='rdb-9')\nsys.stdout.buffer.write(out.getvalue())"
    for seed in "123":
        result = subprocess.run(
            [sys.executable, "-c", code], input=text, capture_output=True, check=True, env=os.environ | {"PYTHONHASHSEED": seed}
        )
        assert result.stdout == built(text, "rdb-9")[0]


# -- where lines come from


@pytest.mark.parametrize("block", [1, 7, 100, 1 << 20])
def test_lines_are_the_same_from_everywhere(block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operation, "_BLOCK", block)
    lines = [line(key="a"), b"", b"  \r", line(key="b", value="\n"), line("list", ["x"] * 50, key="c")]
    wanted, report = built(lines)
    assert (report.keys, report.written) == (3, 3)
    text = b"\n".join(lines)
    (tmp_path / "lines").write_bytes(text)
    (tmp_path / "packed").write_bytes(gzip.compress(text[:50]) + gzip.compress(text[50:]))
    for source in (text, text + b"\n", text + b"\n\n", gzip.compress(text), text.replace(b"\n", b"\r\n")):
        assert built(source)[0] == wanted
    for any_source in (tmp_path / "lines", str(tmp_path / "packed"), Dribble(text), Dribble(text, 9), (one for one in lines)):
        assert built(any_source)[0] == wanted  # type: ignore[arg-type]


def test_no_lines_give_a_snapshot_without_keys() -> None:
    for text in (b"", b"\n\n", gzip.compress(b"")):
        data, report = built(text)
        assert rows_of(data) == []
        assert (report.keys, report.written) == (0, 0)


@pytest.mark.parametrize("block", [1, 7, 1 << 20])
def test_a_line_is_as_long_as_it_may_be(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operation, "_BLOCK", block)
    text = b"\n".join([line(), line(key="l"), line(key="m", value="v" * 100), line(key="n")])
    longest = max(map(len, text.split(b"\n")))
    assert built(text, line_bytes=longest)[1].written == 4
    with pytest.raises(rdbkit.LimitError, match=f"line 3: longer than {longest - 1} bytes"):
        built(text, line_bytes=longest - 1)


def test_a_file_without_line_breaks_is_not_read_to_its_end() -> None:
    class Endless:
        reads = 0

        def read(self, n: int) -> bytes:
            self.reads += 1
            return b"x" * n

    endless: Any = Endless()
    with pytest.raises(rdbkit.LimitError, match="line 1: "):
        build(endless, io.BytesIO(), target="rdb-9", line_bytes=10 << 20)
    assert endless.reads < 20


def test_damaged_gzip_is_an_error() -> None:
    packed = gzip.compress(b"\n".join(line(key=str(n), value=os.urandom(50).hex()) for n in range(1000)))
    with pytest.raises(rdbkit.TruncatedError, match=r"line \d+: the gzip data ends too early"):
        built(packed[:-100])
    with pytest.raises(rdbkit.CorruptError, match="the gzip data is damaged"):
        built(packed[:-8] + bytes(4) + packed[-4:])
    with pytest.raises(rdbkit.CorruptError, match=r"line \d+"):  # what it unpacks to is no line, or it does not unpack
        built(packed[:2000] + bytes(200) + packed[2200:])


# -- lines that are none


ENTRY = ["1-1", [["f", "v"]]]
GROUP = {"name": "g", "last_id": "1-1", "pending": [["1-1", "c", 5, 1]], "consumers": [{"name": "c", "seen_ms": 5}]}
STREAM = {"entries": [ENTRY], "length": 1, "last_id": "1-1", "groups": [GROUP]}
DEDUP = {"duration_s": 100, "max_entries": 100, "producers": [{"name": "p", "ids": [["i", "1-1"]]}], "added": 1, "duplicates": 0}
MODULE = {"module": "vectorset", "version": 1, "base64": "AgEA"}
CRON = {"script": "s", "start_ms": 1, "interval_ms": 1, "keys": [], "args": []}


def stream(**more: Any) -> bytes:
    return line("stream", {**STREAM, **more})


def group(**more: Any) -> bytes:
    return stream(groups=[{**GROUP, **more}])


def without(form: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: item for key, item in form.items() if key != name}


def test_the_lines_that_the_bad_ones_are_made_of_are_good() -> None:
    text = [stream(), stream(dedup=DEDUP), line("module", MODULE), line("cron", CRON)]
    for form in text[:3]:
        assert built(form)[1].written == 1
    assert built(text[3], "keydb-6.3")[1].written == 1


HALF = '"\\ud800"'
#: A line, and what is said of it; without a key's name where it is not known.
BAD = [
    (b"nothing", "no JSON: Expecting value (character 1 of the line)", False),
    (line()[:-1], "no JSON", False),
    (line() + b"}", "no JSON: Extra data", False),
    (line().replace(b'"v"', b'"\tv"'), "no JSON: Invalid control character", False),
    (line().replace(b'"v"', b'"\xff"'), "not UTF-8", False),
    (line().decode().encode("utf-16"), "not UTF-8", False),
    (b"\xef\xbb\xbf" + line(), "no JSON", False),
    (b"\0", "no JSON", False),
    (b"[" * 100_000, "inside each other", False),
    (b'{"a":' * 100_000, "inside each other", False),
    (b'{"db":' + b"1" * 5000 + b"}", "too many digits", False),
    (line().replace(b'"v"', b"NaN"), "NaN is no JSON", False),
    (line().replace(b'"v"', b"-Infinity"), "-Infinity is no JSON", False),
    (line()[:-1] + b',"db":0}', "'db' is there twice", False),
    (b"[]", "a line is an array", False),
    (b"null", "a line is null", False),
    (b"true", "a line is true", False),
    (b'"text"', "a line is text", False),
    (b"1.5", "a line is a fraction", False),
    (b"{}", "a line has no 'db'", False),
    (b'{"db":0,"type":"string","value":"v"}', "a line has no 'key'", False),
    (b'{"db":0,"key":"k","value":"v"}', "a line has no 'type'", False),
    (b'{"db":0,"key":"k","type":"string"}', "a line has no 'value'", False),
    (line(db=-1), "a database of -1", False),
    (line(db=1 << 31), "a database of 2147483648", False),
    (line(db="0"), "a database is text", False),
    (line(db=0.0), "a database is a fraction", False),
    (line(db=True), "a database is true", False),
    (line(key=None), "a key is null", False),
    (line(key=["k"]), "a key is an array", False),
    (line(key={"base64": "?"}), "is no base64", False),
    (line(key={"base64": "aw==", "more": 1}), "a key is an object", False),
    (line().replace(b'"k"', HALF.encode()), "half of a surrogate pair", False),
    (line("graph"), "there is no type 'graph'", True),
    (line("String"), "there is no type 'String'", True),
    (line().replace(b'"string"', b"null"), "a type is text, not null", True),
    (line(expiry_ms=1), "a line of type string does not support 'expiry_ms'", True),
    (line(field_expire_ms={}), "a line of type string does not support 'field_expire_ms'", True),
    (line("list", [], insert_index=1), "a line of type list does not support 'insert_index'", True),
    (line(expire_ms=1 << 63), "expire_ms", True),
    (line(expire_ms=-1), "expire_ms", True),
    (line(expire_ms=None), "expire_ms is null", True),
    (line(expire_ms=1.5), "expire_ms is a fraction", True),
    (line(idle_s=-1), "idle_s", True),
    (line(idle_s=1 << 64), "idle_s", True),
    (line(freq=256), "freq", True),
    (line(freq="1"), "freq is text", True),
    (line(member_expire_ms=[["a"]]), "a pair of member_expire_ms", True),
    (line(member_expire_ms={"a": 0}), "an expiry in member_expire_ms of 0", True),
    (line(member_expire_ms={"a": 1 << 63}), "an expiry in member_expire_ms", True),
    (line(member_expire_ms=5), "member_expire_ms is an integer", True),
    (line(value=None), "a string is null", True),
    (line(value=5), "a string is an integer", True),
    (line(value=[]), "a string is an array", True),
    (line(value={"base64": 5}), "a string is an object", True),
    (line(value={"base64": "a"}), "'a' is no base64", True),
    (line(value={"base64": "YQ"}), "'YQ' is no base64", True),
    (line(value={"base64": "YQ==YQ=="}), "is no base64", True),
    (line(value={"base64": "Y\nQ=="}), "is no base64", True),
    (line(value={"base64": "é==="}), "is no base64", True),
    (line().replace(b'"v"', HALF.encode()), "half of a surrogate pair", True),
    (line("list", "a"), "a list is text", True),
    (line("list", {"a": 1}), "a list is an object", True),
    (line("list", ["a", 1]), "an element is an integer", True),
    (line("set", None), "a set is null", True),
    (line("set", ["a", {"base64": "YQ=="}]), "member b'a' is there twice", True),
    (line("zset", {"a": 1}), "a sorted set is an object", True),
    (line("zset", ["a"]), "a member with its score is text", True),
    (line("zset", [["a"]]), "a member with its score", True),
    (line("zset", [["a", 1], ["a", 2]]), "member b'a' is there twice", True),
    (line("zset", [["a", "1"]]), "a score is text", True),
    (line("zset", [["a", "nan"]]), "a score is text", True),
    (line("zset", [["a", "INF"]]), "a score is text", True),
    (line("zset", [["a", None]]), "a score is null", True),
    (line("zset", [["a", True]]), "a score is true", True),
    (line("zset", [["a", {}]]), "a score is an object", True),
    (line("zset", [["a", 10**400]]), "a score is larger", True),
    (line("zset", [["a", 1]]).replace(b"1]]", b"1e999]]"), "a score is larger", True),
    (line("hash", "a"), "a hash is text", True),
    (line("hash", ["a"]), "a pair of a hash is text", True),
    (line("hash", {"a": 1}), "an element is an integer", True),
    (line("hash", [["a", "b"], [{"base64": "YQ=="}, "b"]]), "name b'a' is there twice", True),
    (line("hash", {"a": "b"}).replace(b'"a": "b"', b'"a":"b","a":"c"'), "'a' is there twice in one object", False),
    (line("hash", {"a": "b"}, field_expire_ms={"b": 5}), "field b'b' expires, but is not in the hash", True),
    (line("hash", {"a": "b"}, field_expire_ms={"a": 0}), "an expiry in field_expire_ms of 0", True),
    (line("hash", {"a": "b"}, field_expire_ms={"a": 1 << 48}), "an expiry in field_expire_ms", True),
    (line("hash", {"a": "b"}, field_expire_ms={"a": None}), "an expiry in field_expire_ms is null", True),
    (line("hash", {"a": "b"}, field_expire_ms=[["a", 5], ["a", 6]]), "name b'a' is there twice", True),
    (line("stream", []), "a stream is an array", True),
    (line("stream", without(STREAM, "entries")), "a stream has no 'entries'", True),
    (line("stream", without(STREAM, "last_id")), "a stream has no 'last_id'", True),
    (line("stream", without(STREAM, "groups")), "a stream has no 'groups'", True),
    (stream(more=1), "a stream does not support 'more'", True),
    (stream(length=2), "a length of 2", True),
    (stream(length="1"), "length is text", True),
    (stream(last_id="1-0"), "a last_id of 1-0", True),
    (stream(last_id="1"), "last_id is text, where an id", True),
    (stream(last_id="1-1-1"), "last_id is text, where an id", True),
    (stream(last_id="\u0661-1"), "last_id is text, where an id", True),
    (stream(last_id="18446744073709551616-1"), "last_id of 18446744073709551616-1", True),
    (stream(last_id="1-18446744073709551616"), "last_id of 1-18446744073709551616", True),
    (stream(last_id=5), "last_id is an integer", True),
    (stream(first_id="1-1"), "a stream with any of the three has no 'max_deleted_id'", True),
    (stream(first_id="1-1", max_deleted_id="0-0", entries_added=-1), "entries_added of -1", True),
    (stream(entries=[ENTRY, ENTRY], length=2), "entry 1-1 follows 1-1", True),
    (stream(entries=[["2-1", []], ENTRY], length=2), "entry 1-1 follows 2-1", True),
    (stream(entries=[["1-1"]]), "an entry", True),
    (stream(entries=[["1-1", {"f": "v"}]]), "what entry 1-1 holds is an object", True),
    (stream(entries=[["1-1", [["f"]]]]), "a field with its value", True),
    (stream(entries=[["1-1", [["f", 1]]]]), "an element is an integer", True),
    (stream(groups=[GROUP, GROUP]), "group b'g' is there twice", True),
    (stream(groups=[[]]), "a group is an array", True),
    (stream(groups=[without(GROUP, "pending")]), "a group has no 'pending'", True),
    (group(name=1), "a group's name is an integer", True),
    (group(entries_read=-2), "entries_read of -2", True),
    (group(pending=[["1-1", "c", 5]]), "a pending entry", True),
    (group(pending=[["1-1", "c", 5, -1]]), "a count of deliveries of -1", True),
    (group(pending=[["1-1", "c", 1 << 63, 1]]), "a time of delivery", True),
    (group(pending=[["1-1", 5, 5, 1]]), "a pending entry's consumer is an integer", True),
    (group(pending=[["1-1", "d", 5, 1]]), "entry 1-1 is pending for a consumer that is not in group b'g'", True),
    (group(pending=[["1-1", "c", 5, 1]] * 2), "in group b'g' entry b'1-1' is there twice", True),
    (group(pending=[["1-1", None, 5, 1]]), "nacked and the pending entries without a consumer", True),
    (group(nacked=["1-1"]), "nacked and the pending entries without a consumer", True),
    (group(pending=[["1-1", None, 5, 1]], nacked=["1-1", "1-1"]), "entry b'1-1' is there twice", True),
    (group(consumers=[{"name": "c"}]), "a consumer has no 'seen_ms'", True),
    (group(consumers=[{"name": "c", "seen_ms": 5}] * 2), "consumer b'c' is there twice", True),
    (group(consumers=[{"name": "c", "seen_ms": 5, "active_ms": None}]), "active_ms is null", True),
    (stream(dedup=None), "dedup is null", True),
    (stream(dedup=without(DEDUP, "added")), "dedup has no 'added'", True),
    (stream(dedup={**DEDUP, "duration_s": 0}), "duration_s of 0", True),
    (stream(dedup={**DEDUP, "max_entries": 10001}), "max_entries of 10001", True),
    (stream(dedup={**DEDUP, "producers": DEDUP["producers"] * 2}), "producer b'p' is there twice", True),  # type: ignore[operator]
    (stream(dedup={**DEDUP, "producers": [{"name": "p", "ids": [["i"]]}]}), "an id with its entry", True),
    (line("array", []), "an array has at least one value", True),
    (line("array", {"0": 1}), "an array is an object", True),
    (line("array", [[0, 1], [0, 2]]), "an index is there twice", True),
    (line("array", [[-1, 1]]), "an index of -1", True),
    (line("array", [["0", 1]]), "an index is text", True),
    (line("array", [[(1 << 64) - 1, 1]]), "an index of 18446744073709551615", True),
    (line("array", [[0, 1 << 63]]), "a number of 9223372036854775808", True),
    (line("array", [[0, None]]), "a value is null", True),
    (line("array", [[0, 1]]).replace(b"1]]", b"1e999]]"), "a number is larger", True),
    (line("array", [[0, 1]], insert_index=-1), "insert_index of -1", True),
    (line("module", "x"), "a module's value is text", True),
    (line("module", {**MODULE, "module": "short"}), "nine letters", True),
    (line("module", {**MODULE, "module": "vectorseé"}), "nine letters", True),
    (line("module", {**MODULE, "module": 5}), "nine letters", True),
    (line("module", {**MODULE, "version": 1024}), "a module's version of 1024", True),
    (line("module", {**MODULE, "base64": 5}), "a module's base64 is an integer", True),
    (line("module", {**MODULE, "base64": "AgE="}), "a module value ends too early", True),
    (line("module", {**MODULE, "base64": ""}), "a module value ends too early", True),
    (line("module", {**MODULE, "base64": "BQkA"}), "a module value ends too early", True),
    (line("module", {**MODULE, "base64": "AgEAAA=="}), "a module value goes on behind its end mark", True),
    (line("module", {**MODULE, "base64": "CQA="}), "a module value has opcode 9", True),
    (line("cron", without(CRON, "args")), "a cron job has no 'args'", True),
    (line("cron", {**CRON, "start_ms": 1 << 63}), "start_ms", True),
    (line("cron", {**CRON, "keys": "k"}), "keys is text", True),
    (line("gcra", "5"), "a rate limiter is text", True),
    (line("gcra", 1 << 64), "a rate limiter", True),
    (line("json", {"a": 1}), "a JSON document is an object", True),
]


@pytest.mark.parametrize(("bad", "words", "has_key"), BAD, ids=[words for _, words, _ in BAD])
def test_what_is_no_line_is_an_error_that_says_where_and_why(bad: bytes, words: str, has_key: bool, tmp_path: Path) -> None:
    path, out = tmp_path / "bad.jsonl", tmp_path / "out.rdb"
    path.write_bytes(line(key="good") + b"\n\n" + bad.replace(b"\n", b" ") + b"\n" + line(key="good") + b"\n")
    for target in ("rdb-14", "rdb-1"):
        with pytest.raises(rdbkit.CorruptError) as caught:
            build(path, out, target=target, on_loss="drop")
        error = caught.value
        assert words in error.message
        assert str(error).startswith(f"{path}: line 3: ")
        assert (error.db, error.key) == ((0, b"k") if has_key else (None, None))
        assert names(tmp_path) == ["bad.jsonl"]
        assert len(str(error)) < 400


NAMES = st.sampled_from(["base64", "a", "name"]) | st.text(max_size=2)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["1-1", "YQ==", "inf"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)
KINDS = st.sampled_from(["string", "list", "set", "zset", "hash", "stream", "array", "module", "cron", "gcra", "json"])
MORE = st.dictionaries(
    st.sampled_from(["expire_ms", "idle_s", "freq", "field_expire_ms", "member_expire_ms", "insert_index"]), JSON, max_size=2
)


def assert_a_line_or_an_error(text: bytes, target: str) -> None:
    """What is taken gives a file that reads, and its lines the same file."""
    try:
        data, _ = built([text], target, on_loss="drop")
    except rdbkit.RdbError:
        return
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        for record in snapshot:
            assert record.value is not None
    again = exported(data)
    assert built(again, target)[0] == data or target == "keydb-6.3"


@given(KINDS, JSON, MORE, st.sampled_from(["rdb-14", "rdb-9", "rdb-80", "rdb-2", "keydb-6.3"]))
def test_any_json_is_a_line_or_an_error(kind: str, value: Any, more: dict[str, Any], target: str) -> None:
    assert_a_line_or_an_error(line(kind, value, **more), target)


LINES = [text for path in (DUMP, KEYDB) for text in exported(path).splitlines() if len(text) < 2000]
LINES += [line("gcra", 5), line("json", "{}"), stream(dedup=DEDUP), line("module", MODULE)]


@settings(max_examples=400)
@given(
    st.sampled_from(LINES),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=3)), min_size=1, max_size=3),
    st.sampled_from(["rdb-14", "rdb-9", "rdb-80", "redis-2.4"]),
)
def test_a_line_with_changes_is_a_line_or_an_error(text: bytes, changes: list[tuple[float, bytes]], target: str) -> None:
    for at, new in changes:
        start = int(at * len(text))
        text = text[:start] + new + text[start + len(new or b"x") :]
    assert_a_line_or_an_error(text, target)


@settings(max_examples=400)
@given(st.sampled_from(LINES), st.data(), st.sampled_from(["rdb-14", "rdb-9", "rdb-80"]))
def test_a_line_with_another_part_is_a_line_or_an_error(text: bytes, data: st.DataObject, target: str) -> None:
    row = json.loads(text)
    where: Any = row
    while True:
        places = list(where) if isinstance(where, dict) else range(len(where))
        place = data.draw(st.sampled_from(places))
        inner = where[place]
        if not isinstance(inner, dict | list) or not inner or data.draw(st.booleans()):
            break
        where = inner
    if data.draw(st.booleans()) and isinstance(where, list):
        where.append(inner)
    else:
        where[place] = data.draw(JSON)
    assert_a_line_or_an_error(json.dumps(row).encode(), target)


# -- losses

NACKED = group(pending=[["1-1", "c", 5, 1], ["2-1", None, 5, 1], ["3-1", None, 6, 2]], nacked=["3-1", "2-1"])
LOSSES = [
    (line("stream", STREAM), "redis-4.0", {"stream": 1}, None),
    (line("array", [[0, 1]]), "redis-8.6", {"array": 1}, None),
    (line("array", [[0, 1]]), "valkey-9.0", {"array": 1}, None),
    (line("module", MODULE), "redis-7.4", {"module": 1}, None),
    (line("module", MODULE), "rdb-7", {"module": 1}, None),
    (line("module", {**MODULE, "module": "ReJSON-RL"}), "redis-8.0", {"module": 1}, None),
    (line("cron", CRON), "redis-6.2", {"cron": 1}, None),
    (line("cron", CRON), "rdb-80", {"cron": 1}, None),
    (line("gcra", 5), "redis-8.8", {"gcra": 1}, None),
    (line("json", "{}"), "redis-6.2", {"json": 1}, None),
    (line(db=1), "azure-managed", {"database": 1}, None),
    (line(db=64), "azure-premium", {"database": 1}, None),
    (line("hash", {"a": "b"}, field_expire_ms={"a": 5}), "redis-7.2", {"field-expiry": 1}, {b"a": b"b"}),
    (line("hash", {"a": "", "c": ""}, field_expire_ms={"a": 5, "c": 6}), "redict-7.3", {"field-expiry": 2}, {b"a": b"", b"c": b""}),
    (line("set", ["a"], member_expire_ms={"a": 5}), "rdb-9", {"member-expiry": 1}, {b"a"}),
    (line("string", "a", member_expire_ms={"a": 5, "b": 6}), "rdb-14", {"member-expiry": 2}, b"a"),
    (line(expire_ms=1000 << 31), "redis-2.4", {"expiry": 1}, b"v"),
    (line(expire_ms=1000 << 31, db=0, key="k"), "rdb-2", {"expiry": 1}, b"v"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "target", "counts", "value"), LOSSES)
def test_what_a_target_has_no_place_for_is_refused_or_left_out(text: bytes, target: str, counts: Any, value: Any) -> None:
    with pytest.raises(rdbkit.LossError, match=f"^{target} does not support ") as caught:
        built(text, target)
    data, report = built(text, target, on_loss="drop")
    assert report.ledger.counts == counts
    assert (caught.value.db, caught.value.key) == (report.ledger.losses[0].db, b"k")
    assert (report.keys, report.written) == (1, int(value is not None))
    if value is not None:
        assert value_of(data) == value
        assert "expire_ms" not in rows_of(data)[0]


KEPT = [
    (line("module", {**MODULE, "module": "ReJSON-RL"}), "azure-managed"),
    (line("module", {**MODULE, "module": "any-thing"}), "rdb-8"),
    (line("cron", CRON), "rdb-9"),
    (line("gcra", 5, expire_ms=5), "rdb-14"),
    (line("gcra", (1 << 64) - 1, db=2), "rdb-15"),
    (line("json", "{}", idle_s=5), "rdb-9"),
    (line(db=63), "azure-premium"),
    (line("hash", {"a": "b"}, field_expire_ms={"a": 5}), "valkey-9.0"),
    (line("set", ["a"], member_expire_ms={"a": 5}), "keydb-6.3"),
    (line(expire_ms=(1000 << 31) - 1000), "redis-2.4"),
    (NACKED, "rdb-14"),
]


@pytest.mark.parametrize(("text", "target"), KEPT)
def test_what_a_target_has_a_place_for_is_kept(text: bytes, target: str) -> None:
    (row,) = rows_of(built(text, target)[0])
    wanted = json.loads(text)
    if row["type"] == "stream":
        row["value"] = {name: item for name, item in row["value"].items() if name in STREAM}
        for found in row["value"]["groups"]:
            del found["entries_read"]
            for consumer in found["consumers"]:
                del consumer["active_ms"]
    assert row == wanted


def test_pending_entries_that_belong_to_nobody_are_left_out_alone() -> None:
    data, report = built(NACKED, "redis-8.0", on_loss="drop")
    assert report.ledger.counts == {"nacked": 2}
    (found,) = value_of(data).groups
    assert [(str(p.id), p.consumer) for p in found.pending] == [("1-1", b"c")]
    assert found.nacked == []


def test_of_what_is_sent_twice_the_usual_is_no_loss() -> None:
    for dedup, count in ((DEDUP, 1), ({**DEDUP, "producers": []}, 0), ({**DEDUP, "producers": [], "duration_s": 50}, 1)):
        data, report = built(stream(dedup=dedup), "redis-8.4", on_loss="drop")
        assert report.ledger.counts == ({"dedup": count} if count else {})
        assert value_of(data).dedup is None
        assert value_of(built(stream(dedup=dedup), "redis-8.6")[0]).dedup.duration_s == dedup["duration_s"]


def test_a_key_can_be_too_large() -> None:
    target = replace(find_target("azure-managed"), max_key_bytes=100)
    for size, fits in ((90, True), (100, False)):
        out = io.BytesIO()
        report = build([line(value="v" * size)], out, target=target, on_loss="drop")
        assert report.ledger.counts == ({} if fits else {"oversize": 1})
        assert report.written == int(fits)
    with pytest.raises(rdbkit.LossError, match="azure-managed does not support a key of more than 100 bytes"):
        build([line("list", ["v"] * 200)], io.BytesIO(), target=target)


def test_wrong_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="there is no target"):
        built(line(), "redis-6")
    with pytest.raises(ValueError, match="on_loss"):
        built(line(), on_loss="ignore")


def test_progress_is_told() -> None:
    told: list[int] = []
    text = b"\n".join(line(key=str(n)) for n in range(100))
    built(text, progress=told.append)
    assert told[-1] == len(text)


def test_examples_in_docstrings_hold() -> None:
    import doctest

    result = doctest.testmod(operation)
    assert (result.failed, result.attempted > 2) == (0, True)


# -- the command line


def run(*args: str | Path, stdin: bytes = b"", **options: Any) -> subprocess.CompletedProcess[bytes]:
    return command_line.run("build", *args, data=stdin, **options)


def test_the_command_writes_what_the_library_does(tmp_path: Path) -> None:
    text = exported(DUMP)
    wanted = built(text)[0]
    source, out = tmp_path / "in.jsonl", tmp_path / "out.rdb"
    source.write_bytes(text)
    result = run(source, out, "--target", "rdb-14")
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.decode() == f"{out}: REDIS0014 for RDB 14, 31 keys\n"
    assert out.read_bytes() == wanted
    assert run("-", tmp_path / "out.rdb.gz", "--target", "rdb-14", stdin=gzip.compress(text)).returncode == 0
    assert gzip.decompress((tmp_path / "out.rdb.gz").read_bytes())[:9] == b"REDIS0014"
    result = run("-", "-", "--target", "redis-8.8", stdin=text)
    assert result.returncode == 0
    assert rows_of(result.stdout) == rows_of(wanted)
    assert result.stderr.decode() == "-: REDIS0014 for Redis 8.8, 31 keys\n"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--target", "redis-99"], b"there is no target 'redis-99'"),
        (["--target", "redis-6"], b"redis-6.0"),
        ([], b"--target"),
        (["--target", "rdb-9", "--on-loss", "never"], b"never"),
    ],
)
def test_wrong_usage_is_exit_2(args: list[str], words: bytes, tmp_path: Path) -> None:
    result = run("-", tmp_path / "out.rdb", *args, stdin=line())
    assert (result.returncode, names(tmp_path)) == (2, [])
    assert words in result.stderr


def test_an_existing_file_needs_force_and_the_source_is_never_replaced(tmp_path: Path) -> None:
    source, out, link = tmp_path / "in", tmp_path / "out", tmp_path / "link"
    source.write_bytes(line())
    out.write_bytes(b"old")
    link.symlink_to(source)
    result = run(source, out, "--target", "rdb-9")
    assert (result.returncode, out.read_bytes()) == (2, b"old")
    assert b"--force" in result.stderr
    for same in (source, link):
        result = run(source, same, "--target", "rdb-9", "--force")
        assert (result.returncode, source.read_bytes()) == (2, line())
        assert b"are the same file" in result.stderr
    assert run(source, out, "--target", "rdb-9", "--force").returncode == 0
    assert value_of(out.read_bytes()) == b"v"


def test_losses_end_it_or_are_told(tmp_path: Path) -> None:
    text = exported(DUMP)
    result = run("-", tmp_path / "out", "--target", "redis-6.2", stdin=text)
    assert (result.returncode, names(tmp_path), result.stdout) == (1, [], b"")
    (said,) = result.stderr.decode().splitlines()
    assert said.startswith("rdbkit: redis-6.2 does not support the expiry of fields (in db 0, key 'hx_ht')")
    assert "--on-loss drop" in said
    result = run("-", tmp_path / "out", "--target", "redis-6.2", "--on-loss", "drop", stdin=text)
    assert (result.returncode, names(tmp_path)) == (0, ["out"])
    assert b"rdbkit: lost: array in db 0, key ar: a key of type array\n" in result.stderr
    assert result.stderr.endswith(b"rdbkit: lost in all: field-expiry 3, array 2, dedup 1, nacked 2, module 1\n")
    many = b"\n".join(line("array", [[0, 1]], key=str(n)) for n in range(50))
    result = run("-", tmp_path / "many", "--target", "rdb-9", "--on-loss", "drop", stdin=many)
    assert result.stderr.count(b"\n") == 21


@pytest.mark.parametrize("name", ["out", "out.gz"])
def test_a_bad_line_is_one_line_and_exit_3(name: str, tmp_path: Path) -> None:
    text = line(key="good") + b"\n" + line(key="b\x1bd", value=5)
    result = run("-", tmp_path / name, "--target", "rdb-9", stdin=text)
    assert (result.returncode, names(tmp_path), result.stdout) == (3, [], b"")
    said = 'rdbkit: <stdin>: line 2: a string is an integer, where text or {"base64": "..."} is needed (in db 0, key \'b\\x1bd\')\n'
    assert result.stderr.decode() == said
    result = run(tmp_path / "none", tmp_path / name, "--target", "rdb-9")
    assert result.returncode == 3
    assert b"No such file" in result.stderr


# -- memory

MEMORY = """
import sys, json
from rdbkit.operations.build import build

def lines(count, size):
    for n in range(count):
        yield json.dumps({"db": 0, "key": str(n), "type": "hash", "value": {f"field{i}": "v" * 40 for i in range(size)}}).encode()

with open("/dev/null", "wb") as out:
    print(build(lines(int(sys.argv[1]), int(sys.argv[2])), out, target="rdb-9").written)
# VmHWM begins with this program; ru_maxrss would count the process that started it
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.one_in(2)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize(("count", "size"), [(20_000, 50), (200, 5_000)])
def test_memory_is_bounded_by_the_longest_line(count: int, size: int) -> None:
    result = subprocess.run([sys.executable, "-c", MEMORY, str(count), str(size)], capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    written, peak = map(int, result.stdout.split())
    assert written == count
    print(f"{count} lines of {size} fields: {peak / 1024:.0f} MiB")
    assert peak < 60_000  # KiB


def test_what_only_the_engine_is_known_to_load() -> None:
    src = io.BytesIO(line("hash", {"a": "b"}, field_expire_ms={"a": 4_102_444_800_000}))
    said = (
        "azure-managed does not support the expiry of fields; --undocumented keeps them: Redis 7.4, which runs there, loads RDB 12"
    )
    with pytest.raises(rdbkit.LossError, match=said):
        rdbkit.build(src, io.BytesIO(), target="azure-managed")
    out = io.BytesIO()
    src.seek(0)
    report = rdbkit.build(src, out, target=find_target("azure-managed").with_undocumented())
    assert (report.header.version, report.ledger.counts) == (12, {})

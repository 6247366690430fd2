"""What the callbacks of `rdbkit.compat.rdbtools` write, and what they report of memory."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import struct
import warnings
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from rdbkit.compat.rdbtools import (
    DiffCallback,
    JSONCallback,
    KeysOnlyCallback,
    KeyValsOnlyCallback,
    MemoryCallback,
    MemoryRecord,
    PrintAllKeys,
    PrintJustKeys,
    ProtocolCallback,
    RdbParser,
    StatsAggregator,
)
from rdbkit.compat.rdbtools import parser as our_parser
from rdbkit.compat.rdbtools.encodehelpers import apply_escape_bytes, bytes_to_unicode
from rdbkit.snapshot.reader import open_snapshot

from ..rdb import FIXTURES, each_dump, key, length, rdb, string

SOON = 1_700_000_000_900


def collections() -> bytes:
    """A key of each type in two databases."""
    return rdb(
        b"\xfe\x00",
        key(b"s", 0, string(b"caf\xc3\xa9\xff"), SOON),
        key(b"h", 4, length(2) + string(b"f") + string(b"1") + string(b"g") + b"\xc0\x02", SOON),
        key(b"l", 1, length(2) + string(b"a") + string(b"b")),
        key(b"t", 2, length(2) + string(b"m") + b"\xc0\x07"),
        b"\xfe\x03",
        key(b"z", 5, length(2) + string(b"m") + struct.pack("<d", 2.5) + string(b"n") + struct.pack("<d", 1)),
    )


def written(kind: Any, data: bytes = b"", **options: Any) -> bytes:
    out = io.BytesIO()
    RdbParser(kind(out, **options)).parse(io.BytesIO(data or collections()))
    return out.getvalue()


def test_json() -> None:
    text = written(JSONCallback)
    assert json.loads(text) == [
        {"s": "café\\xFF", "h": {"f": "1", "g": "2"}, "l": ["a", "b"], "t": ["m", "7"]},
        {"z": {"m": "2.5", "n": "1.0"}},
    ]
    assert text.startswith(b'[{\r\n"s":"caf\\u00e9\\\\xFF",\r\n"h":{"f":"1","g":"2"},\r\n"l":["a","b"],')
    assert text.endswith(b']},{\r\n"z":{"m":"2.5","n":"1.0"}}]')
    assert written(JSONCallback, rdb()) == b"[]"


def test_lines_to_compare() -> None:
    assert written(DiffCallback).decode().split("\r\n") == [
        "db=0 s -> caf\\xC3\\xA9\\xFF",
        "db=0 h . f -> 1",
        "db=0 h . g -> 2",
        "db=0 l[0] -> a",
        "db=0 l[1] -> b",
        "db=0 t { m }",
        "db=0 t { 7 }",
        "db=3 z -> {m, score=2.5}",
        "db=3 z -> {n, score=1.0}",
        "",
    ]


def test_keys_and_values() -> None:
    assert written(KeysOnlyCallback) == b"s\nh\nl\nt\nz\n"
    assert written(KeyValsOnlyCallback, string_escape="base64").endswith(
        b"\r\nh f MQ==,g Mg==,\r\nl YQ==,Yg==,\r\nt bQ==,Nw==,\r\nz m Mi41,n MS4w"
    )


def test_commands() -> None:
    text = written(ProtocolCallback)
    assert text.startswith(
        b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n*3\r\n$3\r\nSET\r\n$1\r\ns\r\n$6\r\ncaf\xc3\xa9\xff\r\n*3\r\n$8\r\nEXPIREAT\r\n"
    )
    words = [part for part in text.split(b"\r\n") if part[:1] not in (b"*", b"$")]
    assert b" ".join(words[6:]) == (
        b"s 1700000000 HSET h f 1 HSET h g 2 EXPIREAT h 1700000000 RPUSH l a RPUSH l b SADD t m SADD t 7 SELECT 3 "
        b"ZADD z 2.5 m ZADD z 1.0 n "
    )
    assert b"EXPIREAT" not in written(ProtocolCallback, emit_expire=False)
    assert b"1700000100" in written(ProtocolCallback, amend_expire=100)


def test_fields_that_expire_and_functions_are_commands_too() -> None:
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        RdbParser(ProtocolCallback(out)).parse(FIXTURES / "rich" / "redis-7.4.1.rdb")
    with rdbkit.open(FIXTURES / "rich" / "redis-7.4.1.rdb") as snapshot:
        code = snapshot.functions[0].code
        expiring = [(r.key, field, when) for r in snapshot if r.type == "hash" for field, when in r.value.field_expire_ms.items()]
    assert expiring
    for name, field, when in expiring:
        parts = [b"HPEXPIREAT", name, b"%d" % when, b"FIELDS", b"1", field]
        assert b"*6\r\n" + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts) in out.getvalue()
    assert b"FUNCTION\r\n$4\r\nLOAD\r\n$%d\r\n%b\r\n" % (len(code), code) in out.getvalue()


def test_what_has_no_command_is_said() -> None:
    with pytest.warns(UserWarning, match=r"the stream b'.*' is left out.*rdbkit export"):
        RdbParser(ProtocolCallback(io.BytesIO()), {"types": ["stream"]}).parse(FIXTURES / "rich" / "redis-7.0.15.rdb")


@pytest.mark.parametrize("path", each_dump("rich"))
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", [JSONCallback, DiffCallback, KeyValsOnlyCallback, KeysOnlyCallback, ProtocolCallback])
def test_every_file_is_written(path: Path, kind: Any) -> None:
    out = io.BytesIO()
    RdbParser(kind(out)).parse(path)
    with rdbkit.open(path) as snapshot:
        names = [record.key for record in snapshot]
    if kind is JSONCallback:
        assert sum(map(len, json.loads(out.getvalue()))) == len(names)
    if kind is KeysOnlyCallback:
        assert out.getvalue().split(b"\n")[:-1] == names
    assert out.getvalue()


@pytest.mark.parametrize(
    ("data", "escape", "is_key", "text"),
    [
        (b"plain", "base64", True, "plain"),
        (b"plain", "base64", False, "cGxhaW4="),
        (b"a\x7f\xc3\xa9", "print", True, "a\\x7F\\xC3\\xA9"),
        (b"a\x7f\xc3\xa9", "utf8", True, "a\x7fé"),
        (b"\xc3", "utf8", False, "\\xC3"),
        (b"\xc3", "raw", False, "Ã"),
        (b"back\\slash", "print", False, "back\\slash"),
        (b"", "print", True, ""),
        (-3, "base64", True, "-3"),
        (-3, "base64", False, "LTM="),
        (1.5, "utf8", False, "1.5"),
    ],
)
def test_text(data: Any, escape: str, is_key: bool, text: str) -> None:
    assert bytes_to_unicode(data, escape, skip_printable=is_key) == text
    assert apply_escape_bytes(data, escape, skip_printable=is_key) == text.encode("latin-1" if escape == "raw" else "utf-8")


def test_text_of_what_is_none() -> None:
    with pytest.raises(TypeError):
        bytes_to_unicode("text", "raw")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no way to escape"):
        bytes_to_unicode(b"text", True)  # type: ignore[arg-type]


# -- memory


class Stream:
    """A report of others: it takes records one by one."""

    def __init__(self) -> None:
        self.records: list[MemoryRecord] = []
        self.of_tables: list[MemoryRecord] = []
        self.ends: list[Any] = []
        self.metadata: dict[str, Any] = {}

    def next_record(self, record: MemoryRecord) -> None:
        (self.of_tables if record.key is None else self.records).append(record)

    def end_database(self, number: int) -> None:
        self.ends.append(number)

    def end_rdb(self) -> None:
        self.ends.append("rdb")

    def set_metadata(self, name: str, value: Any) -> None:
        self.metadata[name] = value


def reported(source: Any, version: str = "5.0", kind: Any = MemoryCallback) -> Stream:
    stream = Stream()
    RdbParser(kind(stream, 64, version)).parse(source)
    return stream


@pytest.mark.parametrize("version", ["5.0", "7.2", "valkey-8.1"])
@pytest.mark.parametrize("path", each_dump("rich"))
def test_memory_is_that_of_rdbkit(path: Path, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = reported(path, version).records
    target = version if version.startswith("valkey") else f"redis-{version}"
    rows = list(rdbkit.memory_rows(path, target))
    assert [(r.database, r.key, r.bytes) for r in found if r.key is not None] == [
        (row.db, bytes_to_unicode(row.key, "raw"), row.memory) for row in rows
    ]
    whole = rdbkit.memory(path, target)
    assert sum(record.bytes for record in found) == whole.keys_bytes
    counts: dict[tuple[int, str | None], int | None] = {(row.db, bytes_to_unicode(row.key, "raw")): row.elements for row in rows}
    for record in found:
        assert record.expiry is None or isinstance(record.expiry, datetime)
        if record.type in ("hash", "set", "list", "sortedset"):
            assert record.size == counts[record.database, record.key]
    monkeypatch.setattr(our_parser, "open_snapshot", partial(open_snapshot, block_size=16))
    assert reported(path, version).records == found


def test_records_of_memory() -> None:
    stream = reported(io.BytesIO(collections()))
    assert [record._replace(bytes=0) for record in stream.records] == [
        MemoryRecord(0, "string", "s", 0, "string", 6, 6, datetime(2023, 11, 14, 22, 13, 20, 900000)),
        MemoryRecord(0, "hash", "h", 0, "hashtable", 2, 8, datetime(2023, 11, 14, 22, 13, 20, 900000)),
        MemoryRecord(0, "list", "l", 0, "linkedlist", 2, 1, None),
        MemoryRecord(0, "set", "t", 0, "hashtable", 2, 8, None),
        MemoryRecord(3, "sortedset", "z", 0, "skiplist", 2, 1, None),
    ]
    assert [(record.database, record.type) for record in stream.of_tables] == [(0, "dict"), (0, "dict"), (3, "dict"), (3, "dict")]
    with_expiries, without = stream.of_tables[:2], stream.of_tables[2:]
    assert all(record.bytes > 0 for record in with_expiries)
    assert [record.bytes > 0 for record in without] == [True, False]
    assert stream.ends == [0, 3, "rdb"]
    assert stream.metadata["used_mem"] is None


def test_metadata() -> None:
    metadata = reported(FIXTURES / "rich" / "redis-7.0.15.rdb").metadata
    assert metadata["redis_ver"] == "7.0.15"
    assert metadata["redis_bits"] == 64
    assert metadata["used_mem"] > 1 << 19


def test_a_subclass_that_looks_at_elements_gets_each() -> None:
    class Longest(MemoryCallback):
        fields: list[Any]

        def start_hash(self, key: Any, length: int, expiry: Any, info: Any) -> None:
            self.fields = []
            super().start_hash(key, length, expiry, info)

        def hset(self, key: Any, field: Any, value: Any) -> None:
            self.fields.append(field)
            super().hset(key, field, value)

        def emit_record(self, record_type: str, key: Any, *args: Any, **named: Any) -> None:
            if record_type != "dict":
                super().emit_record(record_type, key, *args, **named)

    path = FIXTURES / "rich" / "redis-7.0.15.rdb"
    plain, derived = reported(path), Stream()
    callback = Longest(derived, "64")
    RdbParser(callback).parse(path)
    assert derived.records == plain.records
    assert derived.of_tables == []
    assert callback.fields


def test_all_keys_as_a_table() -> None:
    path = FIXTURES / "rich" / "redis-7.0.15.rdb"

    def table(**options: Any) -> list[dict[str, str]]:
        out = io.BytesIO()
        RdbParser(MemoryCallback(PrintAllKeys(out, options.get("bytes"), options.get("largest")), 64, string_escape="print")).parse(
            path
        )
        return list(csv.DictReader(io.StringIO(out.getvalue().decode())))

    every = table()
    assert list(every[0]) == [
        "database", "type", "key", "size_in_bytes", "encoding", "num_elements", "len_largest_element", "expiry",
    ]  # fmt: skip
    assert len(every) == 27
    assert next(row["expiry"] for row in every if row["key"] == "ex") == "2100-01-01T00:00:00"
    sizes = sorted((int(row["size_in_bytes"]) for row in every), reverse=True)
    assert [int(row["size_in_bytes"]) for row in table(largest="3")] == sizes[:3]
    assert all(int(row["size_in_bytes"]) >= 1000 for row in table(bytes="1000"))
    assert len(table(bytes=1000)) == sum(size >= 1000 for size in sizes)
    assert table(largest=0) == []


def test_just_keys_and_statistics() -> None:
    out = io.BytesIO()
    RdbParser(MemoryCallback(PrintJustKeys(out), 64)).parse(io.BytesIO(collections()))
    assert out.getvalue() == b"s\nh\nl\nt\nz\n"
    stats = StatsAggregator()
    RdbParser(MemoryCallback(stats, 64)).parse(io.BytesIO(collections()))
    found = json.loads(stats.get_json())
    assert found["aggregates"]["type_count"] == {"string": 1, "hash": 1, "list": 1, "set": 1, "sortedset": 1, "dict": 4}
    assert found["histograms"]["list_length"] == {"2": 1}
    assert found["aggregates"]["database_memory"]["all"] == sum(found["aggregates"]["type_memory"].values())
    assert len(found["scatters"]["hash_memory_by_length"]) == 1


@pytest.mark.parametrize(("architecture", "version"), [(32, "5.0"), ("32", "5.0"), (64, "4711.0"), (64, "new")])
def test_servers_that_are_not_known(architecture: Any, version: str) -> None:
    with pytest.raises(ValueError, match="known"):
        MemoryCallback(Stream(), architecture, version)


def test_the_example_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    page = (FIXTURES.parent / "docs" / "rdbtools.md").read_text("utf-8")
    found = re.search(r"^```python\n(.*?)^```$\n\n```text\n(.*?)^```$", page, re.M | re.S)
    assert found is not None
    shutil.copy(FIXTURES / "rich" / "redis-7.0.15.rdb", tmp_path / "dump.rdb")
    monkeypatch.chdir(tmp_path)
    exec(found[1], {})
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(found[2].splitlines())

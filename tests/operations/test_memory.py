"""`rdbkit memory`: its report, its rows, and what it says about bad input."""

from __future__ import annotations

import base64
import csv
import io
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from rdbkit.operations.keys import keys, write_parquet
from rdbkit.operations.memory import Memory, MemoryRow, distinct_prefixes, memory, memory_rows, write_memory_text
from rdbkit.selection import Selection
from rdbkit.targets.target import find_target

from .. import command_line
from ..rdb import FIXTURES, aux, each_dump, key, length, rdb, string

NOW = 1_800_000_000_000
HOUR = 3_600_000
DUMP = FIXTURES / "rich" / "redis-7.4.1.rdb"


def report_of(data: bytes | Path, target: str = "redis-7.0", **options: Any) -> Memory:
    with rdbkit.open(io.BytesIO(data) if isinstance(data, bytes) else data) as snapshot:
        return memory(snapshot, find_target(target), now_ms=NOW, **options)


def run(*args: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return command_line.run("memory", *args, data=stdin)


def values(*expiries: int | None) -> bytes:
    return rdb(*(key(b"k%d" % i, 0, string(b"x" * 100), expire) for i, expire in enumerate(expiries)))


def test_time_left() -> None:
    data = values(None, NOW - 1, NOW, NOW + 1, NOW + HOUR, NOW + HOUR + 1, NOW + 400 * 24 * HOUR, -(1 << 62), (1 << 62))
    report = report_of(data)
    left = {row.left: row.keys for row in report.expiry if row.keys}
    assert left == {"expired": 3, "1h": 2, "6h": 1, "later": 2, "never": 1}
    assert report.expiring == 8
    assert report.last_expiry_ms == 1 << 62
    assert sum(row.bytes for row in report.expiry) == report.keys_bytes
    assert report_of(values(None)).last_expiry_ms is None


def test_expiries_at_the_ends_of_time() -> None:
    report = report_of(values(-(1 << 63) + 1, (1 << 63) - 1, -5))
    assert {row.left: row.keys for row in report.expiry if row.keys} == {"expired": 2, "later": 1}
    assert report.last_expiry_ms == (1 << 63) - 1
    assert report_of(values(-5)).last_expiry_ms == -5


def test_large_keys_have_their_own_elements() -> None:
    fields = length(5000) + b"".join(string(b"f%05d" % i) + string(b"v") for i in range(5000))
    elements = length(4000) + b"".join(string(b"%05d" % i) for i in range(4000))
    data = rdb(key(b"hash", 4, fields), key(b"text", 0, string(b"v" * 100_000)), key(b"list", 1, elements))
    for block_size in (1000, 1 << 20):
        with rdbkit.open(io.BytesIO(data), block_size=block_size) as snapshot:
            report = memory(snapshot, find_target("redis-7.0"), now_ms=NOW)
        assert {k.key: k.elements for k in report.biggest} == {b"hash": 5000, b"text": 1, b"list": 4000}


def test_large_keys_that_are_not_selected_take_nothing() -> None:
    elements = length(4000) + b"".join(string(b"%05d" % i) for i in range(4000))
    data = rdb(key(b"list", 1, elements), key(b"small", 0, string(b"v")), key(b"zz", 1, elements))
    for block_size in (1000, 1 << 20):
        with rdbkit.open(io.BytesIO(data), block_size=block_size) as snapshot:
            report = memory(snapshot, find_target("redis-6.0"), now_ms=NOW, selection=Selection(keys=[b"small"]))
        assert report.keys == 1
        assert 0 < report.dataset_bytes < 100


def test_databases_have_their_own_tables() -> None:
    parts = [b"\xfe" + length(db) + key(b"k", 0, string(b"v")) for db in (0, 3, 7)]
    report = report_of(rdb(*parts, b"\xfe\x00" + key(b"j", 0, string(b"v"), NOW + 1)))
    assert [(d.db, d.keys, d.expiring) for d in report.databases] == [(0, 2, 1), (3, 1, 0), (7, 1, 0)]
    # MEMORY STATS of Redis 7.0: entry and object of each key, 4 slots a table; database 0 has a table of expiries, too
    assert report.overhead_bytes == 4 * (24 + 16) + 3 * 4 * 8 + 24 + 4 * 8


def test_prefixes() -> None:
    names = [b"user:%d:cart" % i for i in range(10)] + [b"user:%d" % i for i in range(5)] + [b"solo", b"a:b:c:d:e"]
    data = rdb(*(key(n, 0, string(b"v" * 10), NOW + 1 if i % 2 else None) for i, n in enumerate(names)))
    report = report_of(data)
    found = {p.prefix: (p.depth, p.keys) for p in report.prefixes}
    assert found == {
        b"user:": (1, 15), b"user:{id}:": (2, 10), b"user:{id}:cart": (3, 10), b"user:{id}": (2, 5), b"solo": (1, 1),
        b"a:": (1, 1), b"a:b:": (2, 1), b"a:b:c:": (3, 1),
    }  # fmt: skip
    shown = [p.prefix for p in distinct_prefixes(report.prefixes)]
    assert sorted(shown) == [b"a:b:c:", b"solo", b"user:", b"user:{id}", b"user:{id}:cart"]
    assert sum(p.expiring for p in report.prefixes if p.depth == 1) == report.expiring == 8
    assert sum(p.share for p in report.prefixes if p.depth == 1) == pytest.approx(1)
    assert not report.prefixes_closed
    assert {p.prefix for p in report_of(data, depth=1).prefixes} == {b"user:", b"solo", b"a:"}
    assert b"user:{id}:cart" in {p.prefix for p in report_of(data, separators=b"/").prefixes}


def test_selection_counts_what_it_takes() -> None:
    selection = Selection(types=["hash"])
    report = report_of(DUMP, selection=selection)
    assert report.selected
    assert {t.type for t in report.types} == {"hash"}
    with rdbkit.open(DUMP) as snapshot:
        rows = list(memory_rows(snapshot, find_target("redis-7.0"), selection=selection))
    assert sum(row.memory for row in rows) == report.keys_bytes
    assert len(rows) == report.keys


@pytest.mark.parametrize("path", each_dump())
def test_rows_are_those_of_keys_with_their_memory(path: Path) -> None:
    target = find_target("azure-managed")
    with rdbkit.open(path) as snapshot:
        rows = list(memory_rows(snapshot, target))
    with rdbkit.open(path) as snapshot:
        others = list(keys(snapshot))
    assert [{k: v for k, v in row._asdict().items() if k != "memory"} for row in rows] == [
        {k: v for k, v in row._asdict().items() if k != "offset"} for row in others
    ]
    assert sum(row.memory for row in rows) == report_of(path, "azure-managed").keys_bytes

    for as_json in (False, True):
        for block_size in (64, 1 << 20):
            out = io.BytesIO()
            with rdbkit.open(path, block_size=block_size) as snapshot:
                write_memory_text(snapshot, target, out, as_json=as_json)
            assert parsed(out.getvalue(), as_json) == [(r.db, r.key, r.type, r.memory, r.size, r.slot) for r in rows]


def parsed(text: bytes, as_json: bool) -> list[tuple[int, bytes, str, int, int, int]]:
    if as_json:
        found = [json.loads(line) for line in text.splitlines()]
        names = [r["key"].encode() if isinstance(r["key"], str) else base64.b64decode(r["key"]["base64"]) for r in found]
        return [(r["db"], n, r["type"], r["memory"], r["size"], r["slot"]) for r, n in zip(found, names, strict=True)]
    head, *lines = csv.reader(io.StringIO(text.decode(), newline=""), strict=True)
    assert tuple(head) == (*MemoryRow._fields, "key_base64")
    return [(int(r[0]), base64.b64decode(r[11]) if r[11] else r[1].encode(), r[2], int(r[4]), int(r[5]), int(r[10])) for r in lines]


def test_parquet(tmp_path: Path) -> None:
    from pyarrow import parquet

    made = run(DUMP, "--target", "redis-7.0", "-o", tmp_path / "keys.parquet")
    assert made.returncode == 0, made.stderr
    table = parquet.read_table(tmp_path / "keys.parquet")
    assert table.column_names == list(MemoryRow._fields)
    assert sum(table.column("memory").to_pylist()) == report_of(DUMP).keys_bytes
    out = io.BytesIO()
    with rdbkit.open(DUMP) as snapshot:
        write_parquet(memory_rows(snapshot, find_target("redis-7.0")), out, MemoryRow)
    assert out.getvalue() == (tmp_path / "keys.parquet").read_bytes()


def test_the_command_says_what_the_library_says() -> None:
    made = run(DUMP, "--target", "azure-premium", "--json")
    assert made.returncode == 0, made.stderr
    said = json.loads(made.stdout)
    report = report_of(DUMP, "azure-premium")
    for name in ("keys", "keys_bytes", "dataset_bytes", "overhead_bytes", "total_bytes", "quantum"):
        assert said[name] == getattr(report, name)
    assert (said["quantum"], said["pages"]) == (16, False)
    own = json.loads(run(DUMP, "--target", "azure-premium", "--json", "--allocator", "own").stdout)
    assert (own["quantum"], own["pages"]) == (8, False)
    assert own["keys_bytes"] < said["keys_bytes"]
    assert json.loads(run(DUMP, "--target", "azure-premium", "--json", "--allocator", "pages").stdout)["pages"] is True


def test_the_report_for_people() -> None:
    text = run(DUMP, "--target", "azure-premium", "--top", "2").stdout.decode()
    assert "in the memory of Azure Cache for Redis Premium (Redis 6.0)" in text
    assert "measured on redis-6.0.16" in text
    for title in ("By database", "By type and encoding in the file", "By prefix", "Heaviest keys", "Time left"):
        assert f"\n{title}\n" in text
    assert text.count("\n", text.index("Heaviest keys"), text.index("Time left")) == 5
    inferred = run(DUMP, "--target", "redis-8.4").stdout.decode()
    assert "not measured" in inferred


def test_names_cannot_reach_the_terminal() -> None:
    data = rdb(key(b"\x1b[31mred:1", 0, string(b"v" * 1000)), aux(b"used-mem", b"12x"))
    text = run("-", "--target", "redis-7.0", stdin=data).stdout
    assert b"\x1b" not in text
    assert rb"\x1b[31mred:1" in text


def test_modules_are_guessed_and_said_to_be() -> None:
    report = report_of(FIXTURES / "rich" / "redis-7.2.6-mod.rdb")
    assert report.estimated_keys == 1
    assert [t.type for t in report.types if t.encoding == "module"] == ["test__rdb"]
    text = run(FIXTURES / "rich" / "redis-7.2.6-mod.rdb", "--target", "redis-7.2").stdout.decode()
    assert "1 key of modules and the like" in text


def test_nothing_weighs_nothing() -> None:
    report = report_of(rdb())
    assert (report.keys, report.keys_bytes, report.dataset_bytes, report.overhead_bytes) == (0, 0, 0, 0)
    assert report.prefixes == []
    made = run("-", "--target", "azure-managed", stdin=rdb())
    assert made.returncode == 0
    assert b"keys" in made.stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--target", "redis-7.1"], "nearest: redis-7.4, redis-7.2, redis-7.0"),
        ([], "Missing option '--target'"),
        (["--target", "redis-7.0", "--format", "csv", "--json"], "one row a key"),
        (["--target", "redis-7.0", "--format", "parquet"], "parquet is no text"),
        (["--target", "redis-7.0", "--format", "table", "-o", "report.txt"], "the report goes to standard output"),
        (["--target", "redis-7.0", "--depth", "0"], "--depth"),
        (["--target", "redis-7.0", "--prefix-separator", "é"], "separators are ASCII"),
        (["--target", "redis-7.0", "--html", "-"], "it takes the name of a file"),
    ],
)
def test_wrong_usage(args: list[str], words: str) -> None:
    made = run(DUMP, *args)
    assert made.returncode == 2
    assert words in made.stderr.decode()
    assert not made.stdout


def test_bad_files(tmp_path: Path) -> None:
    whole = DUMP.read_bytes()
    for name, data in (("empty", b""), ("text", b"hello"), ("cut", whole[: len(whole) // 2])):
        path = tmp_path / name
        path.write_bytes(data)
        made = run(path, "--target", "redis-7.0", "-o", tmp_path / "out.csv")
        assert made.returncode == 3, name
        assert made.stderr.decode().count("\n") == 1
        assert not (tmp_path / "out.csv").exists()
    assert run(tmp_path / "none", "--target", "redis-7.0").returncode == 3


def test_a_page_does_not_replace_a_file(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text("mine")
    made = run(DUMP, "--target", "redis-7.0", "--html", page)
    assert made.returncode == 2
    assert page.read_text() == "mine"
    assert run(DUMP, "--target", "redis-7.0", "--html", page, "--force").returncode == 0
    assert page.read_text().startswith("<!DOCTYPE html>")


def test_what_runs_on_the_server_is_counted(tmp_path: Path) -> None:
    """Its memory is not, so that the report has to say that it is there."""
    path = tmp_path / "a.rdb"
    lua = b"\xfa" + string(b"lua") + string(b"return 1")
    path.write_bytes(rdb(b"\x6b\x05", key(b"k", 0, string(b"v")), lua, lua, magic=b"REDIS0009"))
    report = rdbkit.memory(str(path), "redis-7.2")
    assert (report.functions, report.scripts, report.redis_enterprise) == (0, 2, True)
    library = rdbkit.memory(str(FIXTURES / "rich" / "redis-7.0.15.rdb"), "redis-7.2").to_dict()
    assert (library["functions"], library["scripts"], library["redis_enterprise"]) == (1, 0, False)

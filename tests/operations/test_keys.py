"""One row a key: the counts a server would give, in every form of output."""

from __future__ import annotations

import base64
import csv
import gzip
import io
import json
import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rdbkit
from rdbkit.format.constants import value_types
from rdbkit.format.counts import PieceCounter, count_rule, element_count
from rdbkit.format.slots import key_slot
from rdbkit.operations.keys import SORTS, KeyRow, keys, write_columns, write_parquet, write_text
from rdbkit.selection import Selection

from .. import command_line
from ..rdb import DUMPS, FIXTURES, each_dump, key, length, rdb, string, truth

RICH = FIXTURES / "rich"
DUMP = RICH / "redis-7.4.1.rdb"


def rows_of(data: bytes | Path, block_size: int = 1 << 20, **options: Any) -> list[KeyRow]:
    source: Any = io.BytesIO(data) if isinstance(data, bytes) else data
    with rdbkit.open(source, block_size=block_size) as snapshot:
        return list(keys(snapshot, **options))


def text_of(data: bytes | Path, block_size: int = 1 << 20, **options: Any) -> bytes:
    source: Any = io.BytesIO(data) if isinstance(data, bytes) else data
    out = io.BytesIO()
    with rdbkit.open(source, block_size=block_size) as snapshot:
        write_text(snapshot, out, **options)
    return out.getvalue()


def number(text: str) -> int | None:
    return int(text) if text else None


def in_text(rows: list[KeyRow]) -> list[KeyRow]:
    """What CSV and JSON lines have of rows: no offsets."""
    return [row._replace(offset=0) for row in rows]


def read_csv(text: bytes) -> list[KeyRow]:
    head, *lines = csv.reader(io.StringIO(text.decode(), newline=""), strict=True)
    assert head == [*KeyRow._fields[:-1], "key_base64"]
    return [
        KeyRow(
            int(db), base64.b64decode(packed) if packed else name.encode(), type_, encoding, int(size), number(elements),
            number(expire_ms), number(idle_s), number(freq), int(slot), 0,
        )
        for db, name, type_, encoding, size, elements, expire_ms, idle_s, freq, slot, packed in lines
    ]  # fmt: skip


def read_json(text: bytes) -> list[KeyRow]:
    rows = []
    for line in text.split(b"\n")[:-1]:
        row = json.loads(line)
        assert list(row) == [name for name in KeyRow._fields if name in row]
        assert None not in row.values()
        name = row.pop("key")
        row["key"] = base64.b64decode(name["base64"]) if isinstance(name, dict) else name.encode()
        rows.append(KeyRow(**{n: row.get(n) for n in KeyRow._fields[:-1]}, offset=0))
    return rows


# -- counts


def true_count(answer: dict[str, Any]) -> int | None:
    """What the server said, as a number of elements; None where it was not asked for the value."""
    value = answer["value"]
    if value is None:
        return None
    if answer["type"] == "string":
        return 1
    if answer["type"] == "stream":
        return len(value["entries"])
    return len(value["pairs"] if isinstance(value, dict) else value)


@pytest.mark.parametrize("path", each_dump())
def test_rows_are_what_the_server_answered(path: Path) -> None:
    rows = {(r.db, r.key.decode("latin-1")): r for r in rows_of(path)}
    compared = 0
    for answer in truth(path) or []:
        row = rows[answer["db"], answer["key"]]
        assert row.type == answer["type"].replace("vectorset", "module")
        # of the others test_fixtures.py knows how they came to differ
        if "2.4" not in path.name and not isinstance(answer["expire_ms"], list):
            assert row.expire_ms == answer["expire_ms"]
        count = true_count(answer)
        if count is not None:
            assert row.elements == count, row
            compared += 1
    assert compared > 10 or truth(path) is None


def in_pieces(row: KeyRow, path: Path) -> KeyRow:
    """A row without what cannot be counted in pieces: zipmaps of 254 fields and more, which 2.4 alone writes."""
    return row._replace(elements=None) if "2.4" in path.name and row.encoding == "zipmap" else row


@pytest.mark.parametrize("path", each_dump())
def test_rows_are_those_of_the_records_in_blocks_of_any_size(path: Path) -> None:
    rows = rows_of(path)
    with rdbkit.open(path) as snapshot:
        records = [
            (r.db, r.key, r.type, r.encoding, r.size, r.expire_ms, r.idle_s, r.freq, key_slot(r.key), r.offset) for r in snapshot
        ]
    assert [(*row[:5], *row[6:]) for row in rows] == records
    for row in rows:
        assert (row.elements is None) == (row.type in ("module", "cron"))
    for block_size in (16, 64, 1000):
        assert [in_pieces(row, path) for row in rows_of(path, block_size)] == [in_pieces(row, path) for row in rows]


def lzf(data: bytes) -> bytes:
    """LZF of a poor compressor: runs of what is there, 32 at most."""
    packed = b"".join(bytes([len(p) - 1]) + p for p in (data[i : i + 32] for i in range(0, len(data), 32)))
    return b"\xc3" + length(len(packed)) + length(len(data)) + packed


def lzf_in_steps(data: bytes) -> bytes:
    """LZF that begins with single bytes, and copies where four are alike."""
    packed, at = b"", 0
    while at < len(data):
        if at and data[at : at + 4] == data[at - 1 : at] * 4:
            packed += b"\x40\x00"
            at += 4
        else:
            packed += b"\x00" + data[at : at + 1]
            at += 1
    return b"\xc3" + length(len(packed)) + length(len(data)) + packed


def listpack(n: int, many: bool = False) -> bytes:
    body = b"\x05\x01" * n + b"\xff"
    return struct.pack("<IH", len(body) + 6, 65535 if many else n) + body


def ziplist(n: int, many: bool = False) -> bytes:
    body = b"".join(bytes([2 if i else 0, 0xF5]) for i in range(n)) + b"\xff"
    return struct.pack("<IIH", len(body) + 10, 10 + max(n - 1, 0) * 2, 65535 if many else n) + body


def intset(n: int) -> bytes:
    return struct.pack("<II", 2, n) + struct.pack(f"<{n}h", *range(n))


def zipmap(n: int) -> bytes:
    return bytes([min(n, 254)]) + b"\x01f\x01\x00v" * n + b"\xff"


FIRST_8 = bytes(8)
NODE = b"\x02"
PLAIN = b"\x01"
PLAIN_5 = PLAIN + b"\xc0\x05"
COUNTS = [
    ("redis", 10, 16, string(listpack(12)), 6),
    ("redis", 10, 17, string(listpack(12)), 6),
    ("redis", 11, 20, string(listpack(12)), 12),
    ("redis", 12, 23, string(listpack(12)), 4),
    ("redis", 12, 25, FIRST_8 + string(listpack(12)), 4),
    ("redis", 9, 10, string(ziplist(12)), 12),
    ("redis", 9, 12, string(ziplist(12)), 6),
    ("redis", 9, 13, string(ziplist(12)), 6),
    ("redis", 9, 11, string(intset(12)), 12),
    ("redis", 9, 9, string(zipmap(3)), 3),
    ("redis", 10, 16, string(listpack(70_000, many=True)), 35_000),
    ("redis", 9, 13, string(ziplist(70_000, many=True)), 35_000),
    ("redis", 9, 9, string(zipmap(254)), 254),
    ("redis", 9, 9, string(zipmap(300)), 300),
    ("redis", 9, 14, length(3) + string(ziplist(5)) + lzf(ziplist(70)) + string(ziplist(0)), 75),
    ("redis", 10, 18, length(4) + NODE + string(listpack(5)) + PLAIN + string(b"x" * 300) + NODE + lzf(listpack(70)) + PLAIN_5, 77),
    ("redis", 9, 1, length(3) + string(b"x") * 3, 3),
    ("redis", 9, 5, length(3) + (string(b"x") + FIRST_8) * 3, 3),
    ("redis", 12, 24, FIRST_8 + length(3) + (length(0) + string(b"f") * 2) * 3, 3),
    ("valkey", 80, 22, length(3) + (string(b"f") * 2 + FIRST_8) * 3, 3),
    ("redis", 9, 15, length(2) + (string(bytes(16)) + string(listpack(70))) * 2 + length(300) + length(1) * 3, 300),
    ("redis", 14, 28, length(70) + b"\0" + b"".join(length(i) + b"\0" + string(b"v") for i in range(70)), 70),
    ("redis", 14, 29, length(5), -1),
    ("redis", 15, 29, b"\x00" + string(listpack(12)) + string(listpack(13)), 12),
    ("redis", 15, 30, string(listpack(13)), 12),
    ("redis", 15, 31, b"\x01" + length(12) + string(b"f") * 12 + string(b"v") * 12, 12),
    ("redis", 15, 32, length(7) + string(b"v") * 12, 12),
    ("redis", 9, 31, length(3) + string(b"f") * 9, 3),
    ("redis", 9, 30, string(b"{}"), -1),
    ("redis", 9, 0, string(b"v"), 1),
]  # fmt: skip


@pytest.mark.parametrize(("flavour", "version", "type_code", "value", "count"), COUNTS, ids=lambda v: str(v)[:12])
def test_counts_stand_in_the_headers(flavour: str, version: int, type_code: int, value: bytes, count: int) -> None:
    value_type = value_types(flavour, version)[type_code]
    rule = count_rule(value_type)
    assert element_count(rule, value, 0, len(value)) == count
    assert element_count(rule, b"before" + value + b"behind", 6, 6 + len(value)) == count
    if value_type.layout in ("s", "ds") and value_type.encoding in ("listpack", "listpackex", "ziplist", "intset", "zipmap"):
        head = len(value_type.layout) * 8 - 8
        blob = value[head:]
        blob = next(blob[at:] for at in (1, 2, 5) if string(blob[at:]) == blob)
        for pack in (lzf, lzf_in_steps):
            packed = value[:head] + pack(blob)
            assert element_count(rule, packed, 0, len(packed)) == count
    for size in (1, 7, 64, 1000, len(value)):
        counter = PieceCounter(rule)
        for at in range(0, len(value), size):
            counter.feed(value[at : at + size])
        # what would have to be walked over is not counted in pieces, nor are the values of a template
        walked = b"\xff\xff" in value[:20] or (type_code == 9 and count >= 254) or (version == 15 and type_code == 32)
        assert counter.finish() == (-1 if walked else count)


DAMAGED = [
    (10, 16, string(listpack(3)), "3 packed entries, where they come 2 by 2"),
    (12, 25, FIRST_8 + string(listpack(4)), "4 packed entries, where they come 3 by 3"),
    (10, 16, string(listpack(4)[:-1]), "says that it has 15 bytes, but it has 14"),
    (10, 16, string(b"x"), "a listpack of 1 bytes"),
    (10, 16, string(struct.pack("<IH", 7, 2) + b"\xff"), "of 7 bytes says that it has 2 entries"),
    (10, 16, b"\xc0\x05", "a number stands where a packed value is due"),
    (10, 16, b"\xc3\x03\x14\x20\x05a", "copies from before its beginning"),
    (10, 16, b"\xc3\x02\x14\x00a", "ends before the value's header does"),
    (10, 16, lzf(listpack(4))[:-3] + b"\xff\xff\xff", None),  # the header is good
    (10, 18, length(1) + NODE + string(listpack(3)[:-1]), "says that it has 13 bytes, but it has 12"),
    (9, 13, string(ziplist(4)[:-1]), "a ziplist says"),
    (9, 13, string(ziplist(3)), "3 packed entries"),
    (9, 13, string(struct.pack("<IIH", 11, 10, 1) + b"\xff"), "of 11 bytes says that it has 1 entries"),
    (9, 13, string(struct.pack("<IIH", 11, 10, 65535) + b"\x05"), "does not end with 0xff"),
    (9, 13, string(b"\x0a"), "a ziplist of 1 bytes"),
    (9, 11, string(intset(3)[:-1]), "of 13 bytes says that it has 3 numbers of 2 bytes"),
    (9, 11, string(b"\2\0\0\0"), "an intset of 4 bytes"),
    (9, 9, string(b"\x05\xff"), "a zipmap of 2 bytes says"),
    (9, 9, string(b"\x05"), "a zipmap of 1 bytes"),
    (15, 30, string(listpack(0)), "without the template's id"),
]


@pytest.mark.parametrize(("version", "type_code", "value", "words"), DAMAGED, ids=lambda v: str(v)[:12])
@pytest.mark.parametrize("block_size", [16, 1 << 20])
def test_a_damaged_header_is_told_with_its_place(
    version: int, type_code: int, value: bytes, words: str | None, block_size: int
) -> None:
    # behind a long name the record is larger than the small block
    data = rdb(b"\xfe\2", key(b"good", 0, b"\x01v"), key(b"bad" * 9, type_code, value), magic=b"REDIS%04d" % version)
    with rdbkit.open(io.BytesIO(data), block_size=block_size) as snapshot:
        found = keys(snapshot)
        assert next(found).key == b"good"
        if words is None:
            assert next(found).elements == 2
            return
        with pytest.raises(rdbkit.CorruptError) as caught:
            next(found)
    e = caught.value
    assert words in e.message
    assert (e.db, e.key) == (2, b"bad" * 9)
    assert e.offset is not None
    assert e.source is not None
    assert e.reading is not None
    for as_json in (False, True):
        out = io.BytesIO()
        with rdbkit.open(io.BytesIO(data), block_size=block_size) as snapshot, pytest.raises(rdbkit.CorruptError):
            write_text(snapshot, out, as_json=as_json)
        assert [row.key for row in (read_json if as_json else read_csv)(out.getvalue())] == [b"good"]


@given(st.sampled_from(sorted(set(value_types("redis", 15)) | set(value_types("redis", 9)))), st.binary(max_size=40), st.booleans())
def test_noise_gives_a_number_or_an_error(type_code: int, noise: bytes, whole: bool) -> None:
    for version in (9, 14, 15):
        value_type = value_types("redis", version).get(type_code)
        if value_type is not None:
            with suppress(rdbkit.RdbError):
                assert element_count(count_rule(value_type), noise, 0, len(noise), whole) >= -1
            counter = PieceCounter(count_rule(value_type))
            with suppress(rdbkit.RdbError):
                counter.feed(noise)
                assert counter.finish() >= -1


def test_damaged_files_end_in_nothing_but_an_error() -> None:
    good = DUMP.read_bytes()
    for seed in range(300):
        rng = random.Random(seed)
        data = bytearray(good)
        for _ in range(3):
            data[rng.randrange(9, len(data))] = rng.randrange(256)
        for block_size in (64, 1 << 20):
            with suppress(rdbkit.RdbError):
                rows_of(bytes(data), block_size)
            with suppress(rdbkit.RdbError):
                text_of(bytes(data), block_size)


# -- order and choice


def test_sorted_rows_are_the_first_of_all() -> None:
    data = RICH / "redis-7.2.6-lru.rdb"
    rows = rows_of(data)
    for sort, rank in SORTS.items():
        expected = sorted(rows, key=rank, reverse=True)
        for limit in (1, 5, 1000):
            assert rows_of(data, sort=sort, limit=limit) == expected[:limit]
            assert read_csv(text_of(data, sort=sort, limit=limit)) == in_text(expected[:limit])
            assert read_json(text_of(data, as_json=True, sort=sort, limit=limit)) == in_text(expected[:limit])
    assert rows_of(data, sort="size", limit=1)[0].size == max(row.size for row in rows)


def test_the_next_to_expire_come_first_and_those_that_never_do_last() -> None:
    parts = [key(b"never", 0, b"\x01v"), key(b"late", 0, b"\x01v", 2000), key(b"soon", 0, b"\x01v", 1000)]
    assert [row.key for row in rows_of(rdb(*parts), sort="ttl", limit=3)] == [b"soon", b"late", b"never"]


def test_an_order_needs_a_limit() -> None:
    with rdbkit.open(DUMP) as snapshot, pytest.raises(ValueError, match="limit"):
        keys(snapshot, sort="size")


@pytest.mark.parametrize("block_size", [64, 1 << 20])
def test_a_limit_ends_reading(block_size: int) -> None:
    rows = rows_of(DUMP)
    for limit in (1, 3):
        assert rows_of(DUMP, block_size, limit=limit) == rows[:limit]
        assert read_csv(text_of(DUMP, block_size, limit=limit)) == in_text(rows[:limit])
    cut = rdb(*(key(b"%d" % i, 0, b"\x01v") for i in range(100)))[:300]
    assert len(rows_of(cut, 64, limit=2)) == 2
    with pytest.raises(rdbkit.TruncatedError):
        rows_of(cut, 64, limit=90)


@pytest.mark.parametrize("block_size", [64, 1 << 20])
def test_a_selection_chooses_rows(block_size: int) -> None:
    rows = rows_of(DUMP)
    for selection in (
        Selection(types="hash"),
        Selection(prefixes=b"s_"),
        Selection(dbs=3),
        Selection(size=(100, None)),
        Selection(expiry="no-ttl"),
        Selection(),
    ):
        expected = [row for row in rows if selection.wants(row.db, row.key, row.type, row.size, row.expire_ms)]
        assert expected
        assert rows_of(DUMP, block_size, selection=selection) == expected
        assert read_csv(text_of(DUMP, block_size, selection=selection)) == in_text(expected)
        assert rows_of(DUMP, block_size, selection=selection, limit=1) == expected[:1]


# -- text


@pytest.mark.parametrize("path", each_dump())
def test_text_holds_the_rows(path: Path) -> None:
    for block_size in (64, 1 << 20):
        rows = rows_of(path, block_size)
        assert read_csv(text_of(path, block_size)) == in_text(rows)
        assert read_json(text_of(path, block_size, as_json=True)) == in_text(rows)


NAMES = [
    b"", b" ", b"plain", b"a,b", b'a"b', b'"', b"a\nb", b"a\r\nb", b"\0", b"\x1b[31m", b"\\", b"\\x00", b"NULL", b"\x7f",
    b"=1+1", b"+x", b"-x", b"@x", "ключ".encode(), "键,".encode(), "é\n".encode(), "\u2028".encode(),
    b"\xff", b"\xff,", b"\xed\xa0\x80", b"\xc3", b"x" * 63, b"x" * 64, b"x" * 16384,
    b"{tag}", b"{tag},x", b"{}x", b"{", b"}{a}", b"{\xff}x", "{é}x".encode(), b"a{b}{c}", b"{a{b}c}",
]  # fmt: skip


def test_names_of_all_kinds_come_back() -> None:
    numbers = [b"-5", b"300", b"-100000"]
    forms = [b"\xc0\xfb", b"\xc1\x2c\x01", b"\xc2" + struct.pack("<i", -100000), lzf(b"packed" * 9), lzf(b"\xffpacked" * 9)]
    expected = [*NAMES, *numbers, b"packed" * 9, b"\xffpacked" * 9]
    records = [key(name, 0, b"\x01v") for name in NAMES] + [b"\x00" + form + b"\x01v" for form in forms]
    data = rdb(b"\xfe\x80\0\1\0\0", *records)
    rows = rows_of(data)
    assert [row.key for row in rows] == expected
    assert [row.slot for row in rows] == [key_slot(name) for name in expected]
    assert {row.db for row in rows} == {65536}
    for block_size in (16, 1 << 20):
        assert read_csv(text_of(data, block_size)) == in_text(rows)
        assert read_json(text_of(data, block_size, as_json=True)) == in_text(rows)
    # the sort is stable, and all are alike
    assert read_csv(text_of(data, sort="elements", limit=1000)) == in_text(rows)


def test_names_stand_in_csv_as_they_are() -> None:
    names = [b"=1", "ключ".encode(), b'a,"', b"\xff", b""]
    slots = [key_slot(name) for name in names]
    data = rdb(*(key(name, 0, b"\x01v") for name in names))
    assert text_of(data).decode().splitlines() == [
        "db,key,type,encoding,size,elements,expire_ms,idle_s,freq,slot,key_base64",
        f"0,=1,string,raw,6,1,,,,{slots[0]},",
        f"0,ключ,string,raw,12,1,,,,{slots[1]},",
        f'0,"a,""",string,raw,7,1,,,,{slots[2]},',
        f"0,,string,raw,5,1,,,,{slots[3]},/w==",
        "0,,string,raw,4,1,,,,0,",
    ]


@pytest.mark.parametrize("expire_ms", [-(1 << 63), -2, 0, 9, 10, 99, 100, 999, 1000, 1001, 10**6, 10**12 + 7, (1 << 63) - 1])
def test_numbers_of_any_size(expire_ms: int) -> None:
    data = rdb(key(b"k", 0, b"\x01v", expire_ms))
    for text, read in ((text_of(data), read_csv), (text_of(data, as_json=True), read_json)):
        assert [row.expire_ms for row in read(text)] == [expire_ms]


@given(st.lists(st.binary(max_size=20), max_size=8), st.integers(0, 1 << 48))
def test_any_names_come_back(names: list[bytes], idle: int) -> None:
    data = rdb(*(b"\xf8" + length(idle) + key(name, 0, b"\x01v") for name in names)) if idle < 1 << 48 else rdb()
    rows = rows_of(data)
    assert read_csv(text_of(data)) == in_text(rows)
    assert read_json(text_of(data, as_json=True)) == in_text(rows)
    assert all(
        row.key == name and row.slot == key_slot(name) and row.idle_s == idle for row, name in zip(rows, names, strict=False)
    )


# -- parquet


def test_parquet_holds_the_rows(tmp_path: Path) -> None:
    from pyarrow import parquet

    for path in DUMPS:
        rows = rows_of(path)
        with (tmp_path / "keys.parquet").open("wb") as out:
            write_parquet(iter(rows), out)
        table = parquet.read_table(tmp_path / "keys.parquet")
        assert table.column_names == list(KeyRow._fields)
        assert [KeyRow(**row) for row in table.to_pylist()] == rows


def test_parquet_has_groups_of_bounded_size(tmp_path: Path) -> None:
    from pyarrow import parquet

    many = [KeyRow(0, b"%d" % i, "string", "raw", 9, 1, None, None, None, 0, i) for i in range(70_000)]
    long = [row._replace(key=b"x" * (1 << 20)) for row in many[:70]]
    for rows, groups in ((many, 3), (long, 2), ([], 0)):
        with (tmp_path / "keys.parquet").open("wb") as out:
            write_parquet(rows, out)
        file = parquet.ParquetFile(tmp_path / "keys.parquet")
        assert file.num_row_groups == groups
        assert file.metadata.num_rows == len(rows)


def parquet_of(data: bytes | Path, write: Callable[..., Any], block_size: int = 1 << 20, **options: Any) -> bytes:
    source: Any = io.BytesIO(data) if isinstance(data, bytes) else data
    out = io.BytesIO()
    with rdbkit.open(source, block_size=block_size) as snapshot, suppress(rdbkit.RdbError):
        if write is write_columns:
            write_columns(snapshot, out, **options)
        else:
            write_parquet(keys(snapshot, **options), out)
    return out.getvalue()


def check_columns(data: bytes | Path, block_size: int = 1 << 20, **options: Any) -> None:
    assert parquet_of(data, write_columns, block_size, **options) == parquet_of(data, write_parquet, block_size, **options)


@pytest.mark.parametrize("path", each_dump())
def test_columns_are_the_rows(path: Path) -> None:
    for block_size in (64, 1 << 20):
        check_columns(path, block_size)
    check_columns(path, limit=3)
    check_columns(path, selection=Selection(types="hash"))
    check_columns(path.read_bytes()[:-100])


@given(
    st.lists(
        st.tuples(
            st.binary(max_size=20),
            st.one_of(st.none(), st.integers(-(1 << 63) + 1, (1 << 63) - 1)),
            st.one_of(st.just(b""), st.integers(0, 1 << 62).map(lambda n: b"\xf8" + length(n)), st.binary(min_size=1, max_size=1)),
        ),
        max_size=20,
    ),
    st.integers(0, (1 << 31) - 1),
)
def test_columns_are_the_rows_of_any_keys(records: list[tuple[bytes, int | None, bytes]], db: int) -> None:
    parts = [b"\xfe\x80" + db.to_bytes(4, "big")]
    for name, expire_ms, access in records:
        parts.append((b"\xf9" + access if len(access) == 1 else access) + key(name, 0, b"\x01v", expire_ms))
    check_columns(rdb(*parts))
    check_columns(rdb(*parts), 16)


def test_columns_are_the_rows_of_many_and_of_long_names() -> None:
    from pyarrow.parquet import ParquetFile

    many = rdb(*(key(b"%d" % i, 0, b"\x01v", 1000 if i % 3 == 0 else None) for i in range(70_001)))
    check_columns(many)
    check_columns(many, limit=32_768)
    copies, more = divmod((1 << 24) - 1, 264)
    packed = b"\0x" + b"\xe0\xff\0" * copies + bytes([0xE0, more - 9, 0])
    name = b"\xc3" + length(len(packed)) + length(1 << 24) + packed
    long = rdb(*(key(b"%d" % i, 0, b"\x01v") + b"\0" + name + b"\x01v" for i in range(5)))
    check_columns(long)
    assert ParquetFile(io.BytesIO(parquet_of(many, write_columns))).num_row_groups == 3
    assert ParquetFile(io.BytesIO(parquet_of(long, write_columns))).num_row_groups == 2


def test_columns_of_a_damaged_file_have_the_rows_before_the_damage() -> None:
    from pyarrow.parquet import read_table

    many = rdb(*(key(b"%d" % i, 0, b"\x01v") for i in range(40_000)))[:-9000]
    out = io.BytesIO()
    with rdbkit.open(io.BytesIO(many)) as snapshot, pytest.raises(rdbkit.TruncatedError):
        write_columns(snapshot, out)
    table = read_table(out)
    assert 32_768 < table.num_rows < 40_000
    assert [KeyRow(**row) for row in table.to_pylist()] == rows_of(many, limit=table.num_rows)
    assert write_columns(io.BytesIO(rdb()), io.BytesIO()) is False


# -- the command


def run(*args: str | Path, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
    return command_line.run("keys", *args, data=stdin, environment=os.environ | env)


def test_the_command_writes_csv_in_a_pipe() -> None:
    result = run(DUMP)
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout == text_of(DUMP)
    assert run("-", stdin=gzip.compress(DUMP.read_bytes())).stdout == result.stdout
    assert run(DUMP, "--format", "jsonl").stdout == text_of(DUMP, as_json=True)
    assert run(DUMP, "--sort", "size", "--limit", "3").stdout == text_of(DUMP, sort="size", limit=3)
    assert run(DUMP, "--type", "hash").stdout == text_of(DUMP, selection=Selection(types="hash"))


def test_a_table_is_for_people(tmp_path: Path) -> None:
    data = tmp_path / "dump.rdb"
    data.write_bytes(rdb(key(b"\x1b[31mred\nline", 0, b"\x01v", 4102444800123), key("ключ".encode(), 1, length(1) + b"\x01v")))
    result = run(data, "--format", "table")
    assert result.returncode == 0
    assert result.stdout.decode().splitlines() == [
        "     size   db  type    encoding     elements  expires (UTC)     key",
        "     26 B    0  string  raw                 1  2100-01-01 00:00  \\x1b[31mred\\nline",
        "     13 B    0  list    linkedlist          1                    ключ",
    ]
    command = [sys.executable, "-m", "rdbkit", "keys", str(data), "--format", "table"]
    result = subprocess.run(command, capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"})
    assert result.stdout.endswith(b"\\u043a\\u043b\\u044e\\u0447\n")


@pytest.mark.skipif(os.name != "posix", reason="a terminal is made as POSIX has them")
def test_a_terminal_gets_a_table_cut_to_its_width(tmp_path: Path) -> None:
    import pty

    data = tmp_path / "dump.rdb"
    data.write_bytes(rdb(key(b"x" * 500, 0, b"\x01v")))
    ours, theirs = pty.openpty()
    env = os.environ | {"COLUMNS": "100"}
    with subprocess.Popen([sys.executable, "-m", "rdbkit", "keys", data], stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        text = b""
        try:
            while piece := os.read(ours, 4096):
                text += piece
        except OSError:  # how Linux says that the other side has gone
            pass
        os.close(ours)
        assert process.wait(10) == 0
    head, line = text.decode().splitlines()
    assert "expires (UTC)" in head
    assert line.endswith("xxx...")
    assert len(line) == 100


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl", "out.csv.gz", "out.jsonl.gz", "out.parquet", "out.txt"])
def test_the_format_follows_the_name(tmp_path: Path, name: str) -> None:
    from pyarrow import parquet

    path = tmp_path / name
    result = run(DUMP, "-o", path)
    assert (result.returncode, result.stdout, result.stderr) == (0, b"", b"")
    assert [p.name for p in tmp_path.iterdir()] == [name]
    if name == "out.parquet":
        assert [KeyRow(**row) for row in parquet.read_table(path).to_pylist()] == rows_of(DUMP)
        return
    text = gzip.decompress(path.read_bytes()) if name.endswith(".gz") else path.read_bytes()
    assert text == text_of(DUMP, as_json="jsonl" in name)


def test_an_existing_file_needs_force(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(b"old")
    result = run(DUMP, "-o", path)
    assert result.returncode == 2
    assert b"exists; --force replaces it" in result.stderr
    assert path.read_bytes() == b"old"
    assert run(DUMP, "-o", path, "--force").returncode == 0
    assert path.read_bytes() == text_of(DUMP)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--sort", "size"], b"--sort needs --limit"),
        (["--sort", "name", "--limit", "1"], b"'name'"),
        (["--limit", "0"], b"--limit"),
        (["--format", "parquet"], b"name a file with -o"),
        (["-o", "{}/x.parquet.gz", "--format", "parquet"], b"leave out the .gz"),
        (["-o", "{}/dump.rdb", "--force"], b"are the same file"),
        (["--key", "[a"], b"--key"),
    ],
)
def test_wrong_usage_is_exit_2(tmp_path: Path, args: list[str], words: bytes) -> None:
    data = tmp_path / "dump.rdb"
    data.write_bytes(DUMP.read_bytes())
    result = run(data, *(arg.format(tmp_path) for arg in args))
    assert result.returncode == 2
    assert words in result.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["dump.rdb"]
    assert data.read_bytes() == DUMP.read_bytes()


def test_parquet_without_pyarrow_says_what_to_install(tmp_path: Path) -> None:
    code = (
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'pyarrow' else find(name, *more)\n"
        f"from rdbkit.cli import main; main(['keys', {str(DUMP)!r}, '-o', {str(tmp_path / 'x.parquet')!r}])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=600)
    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == b"Error: parquet needs pyarrow: pip install 'rdbkit[parquet]'"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["out.csv", "out.jsonl.gz", "out.parquet"])
def test_a_damaged_file_leaves_no_output_file(tmp_path: Path, name: str) -> None:
    data = tmp_path / "cut.rdb"
    data.write_bytes(DUMP.read_bytes()[:-100])
    result = run(data, "-o", tmp_path / name)
    assert result.returncode == 3
    assert result.stderr.startswith(b"rdbkit: ")
    assert result.stderr.count(b"\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["cut.rdb"]
    rows = read_csv(run(data).stdout)
    assert 0 < len(rows) < len(rows_of(DUMP))
    assert rows == in_text(rows_of(DUMP))[: len(rows)]


def test_a_checksum_that_differs_is_exit_3_unless_it_is_not_asked_for(tmp_path: Path) -> None:
    data = tmp_path / "dump.rdb"
    data.write_bytes(DUMP.read_bytes()[:-1] + b"\x55")
    assert run(data).returncode == 3
    result = run(data, "--no-checksum")
    assert (result.returncode, result.stdout) == (0, text_of(DUMP))


def test_a_closed_pipe_is_no_error(tmp_path: Path) -> None:
    data = tmp_path / "dump.rdb"
    data.write_bytes(rdb(*(key(b"key:%d" % i, 0, b"\x01v") for i in range(200_000))))
    for format_ in ("csv", "jsonl", "table"):
        command = [sys.executable, "-m", "rdbkit", "keys", str(data), "--format", format_]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline()
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(30) == 0

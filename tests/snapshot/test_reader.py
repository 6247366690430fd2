"""What an input may look like around its records, and the values of every type in blocks of any size."""

from __future__ import annotations

import gzip
import io
import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest

import rdbkit
from rdbkit.format.constants import value_types
from rdbkit.operations.info import info

from ..rdb import CRC, Dribble, aux, key, length, rdb, string

ONE = rdb(b"\xfe\0", key(b"k", 0, string(b"v")))
F64 = struct.pack("<d", 1.5)
I64 = struct.pack("<q", 4_102_444_800_000)
ID = bytes(16)
LONG = bytes(range(256)) * 3

STREAM1 = length(2) + (string(ID) + string(LONG)) * 2 + length(2) + length(9) + length(0)
GROUP = string(b"g") + length(1) + length(2)
PEL = length(2) + (ID + I64 + length(1)) * 2
EXTRA = b"".join(length(n) for n in (1, 2, 3, 4, 5))
STREAM2 = STREAM1 + EXTRA
UNKNOWN_READ = b"\x81" + b"\xff" * 8


def stream_tail(consumer_times: int, entries_read: bytes, nacked: bytes = b"") -> bytes:
    consumer = string(b"c") + I64 * consumer_times + length(1) + ID
    return length(1) + GROUP + entries_read + PEL + length(1) + consumer + nacked


IDMP = length(60) + length(100) + length(1) + string(b"p") + length(2) + (string(b"i") + length(1) + length(2)) * 2 + b"\1\2"
MODULE = b"\x81" + (0x1234567890ABCDEF).to_bytes(8, "big") + b"\x02\x81" + b"\xff" * 8 + b"\x03" + b"1234" + b"\x04" + F64
MODULE += b"\x05" + string(LONG) + b"\x01\x05\x00"

# (magic, type, value): each layout of facts that a file can hold.
VALUES = [
    ("REDIS0001", 0, string(LONG)),
    ("REDIS0001", 0, b"\xc2\x01\x02\x03\x04"),
    ("REDIS0009", 0, b"\xc3" + length(6) + length(5) + b"\x04abcde"),
    ("REDIS0001", 1, length(3) + string(b"a") + string(LONG) + b"\xc0\x05"),
    ("REDIS0001", 2, length(1) + string(b"a")),
    (
        "REDIS0001",
        3,
        length(4) + string(b"a") + b"\x031.5" + string(b"b") + b"\xfd" + string(b"c") + b"\xfe" + string(b"d") + b"\xff",
    ),
    ("REDIS0001", 4, length(2) + string(b"f") + string(LONG) + string(b"g") + b"\xc1\x01\x02"),
    ("REDIS0008", 5, length(2) + (string(LONG) + F64) * 2),
    ("REDIS0008", 7, MODULE),
    ("REDIS0002", 9, string(LONG)),
    ("REDIS0002", 10, string(LONG)),
    ("REDIS0002", 11, string(LONG)),
    ("REDIS0002", 12, string(LONG)),
    ("REDIS0004", 13, string(LONG)),
    ("REDIS0007", 14, length(2) + string(LONG) * 2),
    ("REDIS0009", 15, STREAM1 + stream_tail(1, b"")),
    ("REDIS0010", 16, string(LONG)),
    ("REDIS0010", 17, string(LONG)),
    ("REDIS0010", 18, length(2) + b"\x01" + string(LONG) + b"\x02" + string(b"x")),
    ("REDIS0010", 19, STREAM2 + stream_tail(1, UNKNOWN_READ)),
    ("REDIS0011", 20, string(LONG)),
    ("REDIS0011", 21, STREAM2 + stream_tail(2, length(7))),
    ("REDIS0012", 22, length(2) + (length(5) + string(b"f") + string(LONG)) * 2),
    ("REDIS0012", 23, string(LONG)),
    ("REDIS0012", 24, I64 + length(2) + (length(5) + string(b"f") + string(LONG)) * 2),
    ("REDIS0012", 25, I64 + string(LONG)),
    ("REDIS0013", 26, STREAM2 + stream_tail(2, length(7)) + IDMP),
    ("REDIS0014", 27, STREAM2 + stream_tail(2, length(7), length(2) + ID * 2) + IDMP),
    (
        "REDIS0014",
        28,
        length(4) + b"\x01\x09" + b"\0\0" + string(LONG) + b"\1\1" + I64 + b"\2\2" + F64 + b"\3\3" + string(b"x"),
    ),
    ("REDIS0014", 28, length(1) + b"\x00" + b"\0\0" + string(b"v")),
    ("REDIS0014", 29, length(1 << 40)),
    ("REDIS0015", 29, b"\x00" + string(b"\x0c\0\0\0\x02\0\x01\x01\x02\x01\xff") + string(LONG)),
    ("REDIS0015", 30, string(LONG)),
    ("REDIS0015", 31, b"\x01" + length(2) + string(b"a") + string(b"b") + string(LONG) * 2),
    ("REDIS0015", 31, b"\x00" + string(b"\x0c\0\0\0\x02\0\x01\x01\x02\x01\xff") + string(LONG) * 2),
    ("REDIS0015", 32, length(7) + string(LONG) * 3),
    ("REDIS0015", 33, length(5)),
    ("VALKEY080", 22, length(2) + (string(b"f") + string(LONG) + I64) * 2),
    ("REDIS0009", 64, string(b"return 1") + I64 * 2 + length(1) + string(b"k") + length(2) + string(b"a") * 2),
    ("REDIS0009", 30, string(b'{"a":1}')),
    ("REDIS0009", 31, length(1) + string(b"f") + string(b"v") + string(b"-1")),
    ("REDIS0009", 32, length(1) + string(b"m") + string(b"1700000000")),
]
TEMPLATE = b"\xf2" + length(7) + length(3) + string(b"a") + string(b"b") + string(b"c")


@pytest.mark.parametrize("block_size", [16, 17, 64, 500, 1 << 20])
@pytest.mark.parametrize(("magic", "type_code", "value"), VALUES, ids=lambda v: str(v)[:12])
def test_every_value_type_ends_where_it_ends(magic: str, type_code: int, value: bytes, block_size: int) -> None:
    parts = [TEMPLATE] if magic == "REDIS0015" else []
    if magic >= "REDIS0003":
        first = key(b"before", type_code, value, 4_102_444_800_123)
    else:
        first = b"\xfd" + struct.pack("<i", 2_000_000_000) + key(b"before", type_code, value)
    data = rdb(*parts, b"\xfe\0", first, key(b"after", 0, string(b"v")), magic=magic.encode(), crc=magic[-4:] > "0004" or None)
    with rdbkit.open(Dribble(data, 5), block_size=block_size) as snapshot:
        found = [(r.key, r.rdb_type, b"".join(r.chunks()), r.expire_ms, r.size) for r in snapshot]
    expiry = 4_102_444_800_123 if magic >= "REDIS0003" else 2_000_000_000_000
    assert found == [(b"before", type_code, value, expiry, len(first)), (b"after", 0, string(b"v"), None, 9)]
    with rdbkit.open(io.BytesIO(data), block_size=block_size) as snapshot:
        assert [r.key for r in snapshot] == [b"before", b"after"]  # passed without being read


def test_the_cases_cover_every_known_type() -> None:
    covered = {(m[:6], type_code) for m, type_code, _ in VALUES}
    for version in range(1, 16):
        for type_code in value_types("redis", version):
            assert any(k == type_code for _, k in covered), type_code


@pytest.mark.parametrize("version", range(1, 16))
def test_each_redis_version_is_read(version: int) -> None:
    data = rdb(b"\xfe\0", key(b"k", 0, string(b"v")), magic=b"REDIS%04d" % version, crc=version >= 5 or None)
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        assert [r.raw for r in snapshot] == [b"\x01v"]
    assert str(snapshot.header) == f"REDIS{version:04d}"
    assert snapshot.checksum is not None
    assert snapshot.checksum.state == ("ok" if version >= 5 else "absent")


@pytest.mark.parametrize("magic", [b"REDIS0016", b"VALKEY081", b"VALKEY011", b"REDIS0080"])
def test_a_future_version_is_refused_by_name_and_tried_when_relaxed(magic: bytes) -> None:
    data = rdb(b"\xfe\0", key(b"k", 0, string(b"v")), magic=magic)
    with pytest.raises(rdbkit.UnsupportedVersionError, match=magic.decode()):
        rdbkit.open(io.BytesIO(data))
    with rdbkit.open(io.BytesIO(data), relaxed=True) as snapshot:
        assert [r.key for r in snapshot] == [b"k"]
    unknown = rdb(b"\xfe\0", key(b"k", 60, string(b"v")), magic=magic)
    with (
        rdbkit.open(io.BytesIO(unknown), relaxed=True) as snapshot,
        pytest.raises(rdbkit.UnsupportedTypeError, match="60"),
    ):
        list(snapshot)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "empty"),
        (b"RED", "header"),
        (b"REDIS00", "header"),
        (b"REDISxxxx", "version number"),
        (b"REDIS0000", "version number"),
        (b"\x7fELF\x02\x01\x01\0\0\0", "no RDB file"),
        (b"*2\r\n$6\r\nSELECT\r\n$1\r\n0\r\n", "append-only"),
        (b"PK\x03\x04aaaaaaaaa", "zip"),
        (b"\x28\xb5\x2f\xfdaaaaaaaa", "zstd"),
        (b"\x1f\x8b", "gzip"),
        (b"\x1f\x8b" + b"x" * 30, "gzip"),
        (gzip.compress(ONE, mtime=0)[:-9], "gzip"),
    ],
)
def test_what_is_no_rdb_is_said_to_be_none(data: bytes, words: str) -> None:
    with pytest.raises(rdbkit.RdbError, match=words), rdbkit.open(io.BytesIO(data)) as snapshot:
        list(snapshot)


def state(data: bytes) -> tuple[str, str, int | None, str | None]:
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        assert [r.key for r in snapshot] == [b"k"]
    assert snapshot.checksum is not None
    assert snapshot.trailer is not None
    return snapshot.checksum.state, snapshot.trailer.kind, snapshot.trailer.size, snapshot.framing


def test_what_surrounds_an_rdb_is_recognised(tmp_path: Path) -> None:
    mark = b"0123456789" * 4
    assert state(ONE) == ("ok", "none", 0, None)
    assert state(rdb(b"\xfe\0", key(b"k", 0, string(b"v")), crc=False)) == ("disabled", "none", 0, None)
    assert state(ONE + bytes(512 - len(ONE))) == ("ok", "padding", 512 - len(ONE), None)
    assert state(ONE + bytes(3 << 20)) == ("ok", "padding", 3 << 20, None)
    assert state(ONE + b"*1\r\n$4\r\nPING\r\n")[:2] == ("ok", "aof")
    assert state(ONE + b"garbage")[:2] == ("ok", "unknown")
    assert state(b"$EOF:" + mark + b"\r\n" + ONE + mark) == ("ok", "mark", 40, "eof-mark")
    path = tmp_path / "mixed.aof"
    path.write_bytes(ONE + b"*1\r\n$4\r\nPING\r\n")
    with rdbkit.open(path) as snapshot:
        report = info(snapshot)
    assert (report.trailer, report.trailer_size, report.rdb_size) == ("aof", 14, len(ONE))
    padded = gzip.compress(ONE) + bytes(100)
    assert state(padded) == ("ok", "none", 0, None)


@pytest.mark.parametrize("tail", [b"", b"0123", b"x" * 40])
def test_a_capture_without_its_end_mark_is_cut(tail: bytes) -> None:
    with pytest.raises(rdbkit.RdbError, match="mark"):
        state(b"$EOF:" + b"0123456789" * 4 + b"\r\n" + ONE + tail)


def test_attributes_of_a_key_may_stand_in_any_order_and_around_aux() -> None:
    expiry = b"\xfc" + I64
    record = expiry + aux(b"mvcc-tstamp", b"5") + b"\xf8\x0a" + b"\xf9\x07" + key(b"k", 0, string(b"v"))
    data = rdb(b"\xfe\x02", record, key(b"l", 0, string(b"w")))
    for block_size in (16, 20, 1 << 20):
        with rdbkit.open(io.BytesIO(data), block_size=block_size) as snapshot:
            events = list(snapshot.events())
        assert [repr(e) for e in events[:2]] == ["SelectDb(2)", "Aux(b'mvcc-tstamp', b'5')"]
        first, second = (e for e in events if isinstance(e, rdbkit.Record))
        assert (first.db, first.expire_ms, first.idle_s, first.freq, first.size) == (
            2,
            4_102_444_800_000,
            10,
            7,
            len(record),
        )
        assert (second.expire_ms, second.idle_s, second.freq) == (None, None, None)


def test_a_large_record_must_be_read_before_the_next() -> None:
    data = rdb(b"\xfe\0", key(b"big", 0, string(bytes(5000))), key(b"k", 0, string(b"v")))
    with rdbkit.open(io.BytesIO(data), block_size=100) as snapshot:
        records = iter(snapshot)
        big = next(records)
        assert (big.key, big.size) == (b"big", None)
        assert big.raw == string(bytes(5000))
        assert big.size == 5008 - 1
        assert next(records).key == b"k"
    with rdbkit.open(io.BytesIO(data), block_size=100) as snapshot:
        records = iter(snapshot)
        big = next(records)
        next(records)
        assert big.size == 5008 - 1
        with pytest.raises(ValueError, match="before the next"):
            list(big.chunks())


def test_names_have_a_limit_that_can_be_raised() -> None:
    data = rdb(b"\xfe\0", key(b"k" * 5000, 0, string(b"v")))
    with (
        rdbkit.open(io.BytesIO(data), block_size=64, limits=rdbkit.Limits(1000)) as snapshot,
        pytest.raises(rdbkit.LimitError),
    ):
        list(snapshot)
    with rdbkit.open(io.BytesIO(data), block_size=64) as snapshot:
        assert [len(r.key) for r in snapshot] == [5000]


def test_a_snapshot_is_read_once() -> None:
    with rdbkit.open(io.BytesIO(ONE)) as snapshot:
        list(snapshot)
        with pytest.raises(ValueError, match="once"):
            list(snapshot)


def test_aux_and_functions_are_there_before_the_first_key() -> None:
    source = b"#!lua name=mylib\nreturn 1"
    data = rdb(aux(b"redis-ver", b"7.2.6"), aux(b"bin", b"\xff"), b"\xf5" + string(source), b"\xfe\0", magic=b"REDIS0011")
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        assert snapshot.aux == {"redis-ver": "7.2.6", "bin": "\udcff"}
        assert [(f.name, f.engine, f.source) for f in snapshot.functions] == [("mylib", "lua", source)]
        assert list(snapshot) == []


def test_checksum_is_over_all_blocks() -> None:
    data = rdb(b"\xfe\0", *(key(b"k%d" % i, 0, string(bytes([i % 256]) * (i % 90))) for i in range(3000)))
    for block_size in (16, 33, 1024, 4096, 1 << 20):
        for src in (Dribble(data, 1000), io.BytesIO(data)):
            with rdbkit.open(src, block_size=block_size) as snapshot:
                assert sum(1 for _ in snapshot) == 3000
            assert snapshot.checksum == rdbkit.Checksum("ok", CRC.calc(data[:-8]), CRC.calc(data[:-8]))


def test_a_damaged_name_is_told_with_its_place() -> None:
    data = rdb(b"\xfe\x05", b"\x00" + b"\xc3" + length(3) + length(9) + b"\x20\x00\x00" + string(b"v"))
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        (record,) = snapshot
    with pytest.raises(rdbkit.CorruptError, match="does not unpack") as caught:
        _ = record.key
    assert (caught.value.offset, caught.value.db) == (11, 5)


def test_what_the_caller_opened_stays_open(tmp_path: Path) -> None:
    file = io.BytesIO(ONE)
    with rdbkit.open(file) as snapshot:
        list(snapshot)
    assert not file.closed


def big_list(name: bytes, n: int) -> bytes:
    return key(name, 1, length(n) + b"".join(string(b"%05d" % i) for i in range(n)))


TWO_BIG = rdb(b"\xfe\0", big_list(b"one", 60), big_list(b"two", 50), key(b"z", 0, string(b"v")))


def test_a_kept_generator_of_a_passed_record_does_no_harm() -> None:
    with rdbkit.open(io.BytesIO(TWO_BIG), block_size=64) as snapshot:
        records = iter(snapshot)
        pieces = next(records).chunks()
        next(pieces)
        second = next(records)
        with pytest.raises(ValueError, match="passed"):
            next(pieces)
        assert second.raw == length(50) + b"".join(string(b"%05d" % i) for i in range(50))
        with pytest.raises(ValueError, match="once"):
            _ = second.raw
        assert [r.key for r in records] == [b"z"]


def test_a_large_record_that_was_kept_says_that_it_has_been_passed() -> None:
    with rdbkit.open(io.BytesIO(TWO_BIG), block_size=64) as snapshot:
        one, _, last = list(snapshot)
        assert last.raw == b"\1v"
        with pytest.raises(ValueError, match="passed"):
            _ = one.raw


@pytest.mark.parametrize("block_size", [16, 64, 1 << 20])
def test_what_is_sound_before_damage_is_told(block_size: int) -> None:
    data = b"REDIS0011" + b"".join(key(b"k%02d" % i, 0, string(b"v")) for i in range(50)) + b"\x08\x01x\x01y"
    seen: list[bytes] = []
    with rdbkit.open(io.BytesIO(data), block_size=block_size) as snapshot, pytest.raises(rdbkit.UnsupportedTypeError) as caught:
        seen.extend(record.key for record in snapshot)
    assert len(seen) == 50
    assert caught.value.offset == data.rindex(b"\x08")


@pytest.mark.parametrize("block_size", [16, 20, 33, 1 << 20])
def test_a_cut_stream_names_the_key_it_ends_in(block_size: int) -> None:
    data = b"REDIS0011\xfe\x00" + key(b"a", 0, string(b"b")) + key(b"real", 2, length(5) + string(b"xxx") + string(b"y\0\5wrong"))
    with rdbkit.open(Dribble(data[:-3], 100), block_size=block_size) as snapshot, pytest.raises(rdbkit.TruncatedError) as caught:
        list(snapshot)
    assert (caught.value.db, caught.value.key, caught.value.reading) == (0, b"real", "a set")


def test_what_is_kept_of_a_file_has_a_bound() -> None:
    many = rdb(*(aux(b"", b"") for _ in range(200_000)))
    with pytest.raises(rdbkit.LimitError, match="AUX fields take more than"):
        rdbkit.open(io.BytesIO(many))
    packed = b"\xc3" + length(3 * 80_000) + length(264 * 80_000 + 1) + b"\x00a" + b"\xe0\xff\x00" * 79_999 + b"\xe0\xff\x00"
    bomb = b"REDIS0009\xfe\0\x00" + packed + string(b"v")
    with rdbkit.open(io.BytesIO(bomb)) as snapshot, pytest.raises(rdbkit.RdbError):
        info(snapshot)
    databases = rdb(*(b"\xfe" + length(n) for n in range(5000)))
    with rdbkit.open(io.BytesIO(databases)) as snapshot:
        assert info(snapshot).databases == []


def test_numbers_of_aux_fields_that_are_none() -> None:
    data = rdb(aux(b"used-mem", b"9" * 400), aux(b"ctime", b"9" * 4299), aux(b"redis-bits", b"-"), aux(b"\xff", b"\xfe"))
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        report = info(snapshot)
    assert (report.used_memory, report.created, report.bits) == (None, None, None)
    assert report.to_dict()["aux"] == [
        ["used-mem", "9" * 400], ["ctime", "9" * 4299], ["redis-bits", "-"], [{"base64": "/w=="}, {"base64": "/g=="}],
    ]  # fmt: skip


def test_aux_fields_that_are_not_utf_8_are_the_same_bytes_in_every_form(tmp_path: Path) -> None:
    path = tmp_path / "a.rdb"
    data = rdb(aux(b"redis-ver", b"7\xff"), aux(b"who", b"caf\xe9 \\xe9"), b"\xfe\0", key(b"k", 0, string(b"v")))
    path.write_bytes(data)
    with rdbkit.open(path) as snapshot:
        assert {k.encode(): v.encode("utf-8", "surrogateescape") for k, v in snapshot.aux.items()} == {
            b"redis-ver": b"7\xff", b"who": b"caf\xe9 \\xe9",
        }  # fmt: skip
    told = json.loads(subprocess.run([sys.executable, "-m", "rdbkit", "info", str(path), "--json"], capture_output=True).stdout)
    assert told["aux"] == {"redis-ver": {"base64": "N/8="}, "who": {"base64": "Y2Fm6SBceGU5"}}
    assert told["writer_version"] == "7\\xff"
    shown = subprocess.run([sys.executable, "-m", "rdbkit", "info", str(path)], capture_output=True, text=True).stdout
    assert "who=caf\\xe9 \\xe9" in shown
    assert "redis 7\\xff" in shown
    out = io.BytesIO()
    rdbkit.convert(path, out, target="rdb-9")
    assert out.getvalue() == data


def test_events_before_the_end_are_told_even_behind_a_stray_attribute() -> None:
    data = rdb(b"\xfe\0", b"\xf8\x05", aux(b"a", b"b"))
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        assert [repr(e) for e in snapshot.events()] == ["SelectDb(0)", "Aux(b'a', b'b')"]

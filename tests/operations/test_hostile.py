"""Whatever the bytes say: one of the library's own errors, on one line, in bounded time and memory."""

from __future__ import annotations

import gzip
import io
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rdbkit
from rdbkit.operations.info import info

from ..rdb import FIXTURES, each_dump, key, length, one_in, rdb, string

ERAS = ["redis-2.4.18", "redis-4.0.14", "redis-6.0.16", "redis-7.2.6", "redis-8.8-dev"]
FLIPPED = ["redis-3.2.13", "redis-8.0.6", "valkey-9.1.2"]


def read(data: bytes, block_size: int = 1 << 20, verify: bool = True) -> int:
    with rdbkit.open(io.BytesIO(data), block_size=block_size, verify_checksum=verify) as snapshot:
        return sum(len(r.key) for r in snapshot)


def one_line(error: rdbkit.RdbError) -> None:
    text = str(error)
    assert text
    assert "\n" not in text
    assert error.source


def assert_cut(data: bytes, end: int, block_size: int = 1 << 20) -> None:
    with pytest.raises(rdbkit.TruncatedError) as caught:
        read(data[:end], block_size)
    one_line(caught.value)


@pytest.mark.one_in(3)
@pytest.mark.parametrize("part", one_in(16, range(16)))
@pytest.mark.parametrize("name", ERAS)
def test_cut_at_every_byte(name: str, part: int) -> None:
    data = (FIXTURES / "rich" / f"{name}.rdb").read_bytes()
    for end in range(part, len(data), 16):
        assert_cut(data, end)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("path", each_dump())
def test_cut_at_300_places(path: Path) -> None:
    data = path.read_bytes()
    for i in range(300):
        assert_cut(data, len(data) * i // 300)


@pytest.mark.parametrize("block_size", [16, 64])
def test_cut_within_large_records(block_size: int) -> None:
    data = (FIXTURES / "rich" / "redis-7.2.6.rdb").read_bytes()
    for end in range(0, len(data), 97):
        assert_cut(data, end, block_size)


@pytest.mark.parametrize("part", one_in(16, range(16)))
@pytest.mark.parametrize("name", FLIPPED)
def test_flip_every_byte(name: str, part: int) -> None:
    """The checksum catches what the framing does not: no changed file is read to a good end."""
    data = (FIXTURES / "rich" / f"{name}.rdb").read_bytes()
    for at in range(part, len(data), 16):
        changed = bytearray(data)
        changed[at] ^= 0xFF
        with pytest.raises(rdbkit.RdbError) as caught:
            read(bytes(changed))
        one_line(caught.value)


def test_a_flipped_key_byte_is_found_by_the_checksum() -> None:
    data = bytearray(rdb(b"\xfe\0", key(b"name", 0, string(b"value"))))
    data[data.index(b"name")] ^= 1
    with pytest.raises(rdbkit.ChecksumError):
        read(bytes(data))
    assert read(bytes(data), verify=False) == 4


@settings(max_examples=600)
@given(st.sampled_from([b"REDIS0003", b"REDIS0009", b"REDIS0012", b"REDIS0015", b"VALKEY080"]), st.binary(max_size=400))
def test_random_bytes_after_a_header(magic: bytes, noise: bytes) -> None:
    for body in (noise, b"\xfe\0" + noise):
        for block_size in (16, 1 << 20):
            try:
                with rdbkit.open(io.BytesIO(magic + body), block_size=block_size) as snapshot:
                    info(snapshot)
            except rdbkit.RdbError as e:
                one_line(e)


@settings(max_examples=300)
@given(st.integers(0, 33), st.binary(max_size=200))
def test_random_bytes_as_a_value(kind: int, noise: bytes) -> None:
    try:
        read(b"REDIS0015\xfe\0" + bytes([kind]) + b"\x01k" + noise)
    except rdbkit.RdbError as e:
        one_line(e)


HUGE = 1 << 63


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(bytes([0]) + b"\x81" + HUGE.to_bytes(8, "big"), id="key of 2**63 bytes"),
        pytest.param(bytes([0]) + string(b"k") + b"\x81" + HUGE.to_bytes(8, "big") + b"x" * 50, id="string of 2**63"),
        pytest.param(bytes([0]) + string(b"k") + b"\x81" + (1 << 62).to_bytes(8, "big"), id="string of 2**62"),
        pytest.param(bytes([0]) + string(b"k") + b"\x81" + (1 << 47).to_bytes(8, "big") + b"x" * 50, id="string of 2**47"),
        pytest.param(bytes([4]) + string(b"k") + b"\x81" + (1 << 62).to_bytes(8, "big"), id="hash of 2**62"),
        pytest.param(bytes([4]) + string(b"k") + b"\x81" + (1 << 46).to_bytes(8, "big") + b"\0" * 500, id="hash of 2**46"),
        pytest.param(bytes([5]) + string(b"k") + b"\x80\xff\xff\xff\xff" + b"\0" * 500, id="zset of 2**32"),
        pytest.param(bytes([15]) + string(b"k") + b"\0\0\0\0\x80\xff\xff\xff\xff", id="stream groups of 2**32"),
        pytest.param(bytes([0]) + b"\xc3\x0a" + b"\x81" + (1 << 46).to_bytes(8, "big") + b"x" * 20, id="LZF key of 2**46"),
        pytest.param(bytes([0]) + b"\xc3\x0a\x80\x00\x0f\xff\xff" + b"x" * 20, id="LZF key of 1 MB from 10 bytes"),
        pytest.param(b"\xfa\x80\xff\xff\xff\xff", id="AUX of 4 GB"),
        pytest.param(b"\xf5\x80\xff\xff\xff\xff", id="function of 4 GB"),
        pytest.param(b"\xfe\x81\x00\x00\xff\xff\xff\xff\xff\xff", id="database 2**48"),
        pytest.param(bytes([6]) + string(b"k") + b"\0", id="module of a release candidate"),
        pytest.param(bytes([8]) + string(b"k") + b"\0", id="type 8"),
        pytest.param(b"\xc8", id="Dragonfly opcode"),
        pytest.param(b"\xf0", id="unknown opcode"),
        pytest.param(bytes([18]) + string(b"k") + b"\x01\x03\x00", id="quicklist container 3"),
        pytest.param(bytes([7]) + string(b"k") + b"\x01\x06\x00", id="module opcode 6"),
        pytest.param(bytes([0]) + string(b"k") + b"\xc4", id="string form 4"),
        pytest.param(bytes([0]) + string(b"k") + b"\x82", id="length form 0x82"),
        pytest.param(bytes([1]) + string(b"k") + b"\xc0\x01", id="count as an integer string"),
        pytest.param(bytes([28]) + string(b"k") + length(1) + b"\x02", id="array flag 2"),
        pytest.param(bytes([28]) + string(b"k") + length(1) + b"\x00\x00\x04", id="array tag 4"),
        pytest.param(bytes([32]) + string(b"k") + b"\x07", id="template that is not there"),
    ],
)
@pytest.mark.parametrize("block_size", [16, 1 << 20])
def test_impossible_numbers_end_at_once(body: bytes, block_size: int) -> None:
    data = b"REDIS0015\xfe\x00" + body
    tracemalloc.start()
    begin = time.process_time()
    with pytest.raises(rdbkit.RdbError) as caught:
        read(data, block_size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert time.process_time() - begin < 30
    assert peak < 4 << 20
    one_line(caught.value)


def test_a_known_size_refuses_a_length_before_reading_on(tmp_path: Path) -> None:
    path = tmp_path / "cut.rdb"
    path.write_bytes(b"REDIS0009\xfe\0" + bytes([0]) + string(b"big") + length(1 << 40) + bytes(5 << 20))
    with rdbkit.open(path) as snapshot, pytest.raises(rdbkit.TruncatedError) as caught:
        list(snapshot)
    assert snapshot.position <= 2 << 20
    assert (caught.value.key, caught.value.db) == (b"big", 0)


def test_errors_name_file_offset_db_key_and_what_was_read() -> None:
    data = rdb(b"\xfe\x03", key(b"fine", 0, string(b"v")), key(b"user:1", 18, b"\x01\x09\x00"))
    with pytest.raises(rdbkit.CorruptError) as caught:
        read(data)
    e = caught.value
    assert (e.db, e.key, e.reading, e.offset) == (3, b"user:1", "a list quicklist", data.index(b"\x01\x09\x00") + 1)
    assert str(e).startswith("<BytesIO>: a quicklist node has container 9")


def test_control_bytes_of_a_key_do_not_reach_the_message() -> None:
    data = rdb(b"\xfe\0", key(b"\x1b[2J\n", 18, b"\x01\x09\x00"))
    with pytest.raises(rdbkit.CorruptError) as caught:
        read(data)
    assert str(caught.value).isprintable()


def test_a_gzip_bomb_is_read_in_bounded_memory() -> None:
    bomb = gzip.compress(rdb(b"\xfe\0", key(b"k", 0, length(200 << 20) + bytes(200 << 20)), crc=False))
    tracemalloc.start()
    assert read(bomb) == 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 << 20


def keys_before_damage(data: bytes) -> tuple[list[bytes], rdbkit.RdbError]:
    keys: list[bytes] = []
    with (
        pytest.raises(rdbkit.RdbError) as caught,
        rdbkit.open(io.BytesIO(data), verify_checksum=False) as snapshot,
    ):
        keys.extend(record.key for record in snapshot)
    one_line(caught.value)
    return keys, caught.value


def test_all_that_comes_before_damage_of_gzip_is_read() -> None:
    names = [b"key:%d" % i for i in range(200)]
    packed = gzip.compress(rdb(b"\xfe\0", *(key(name, 0, string(name * 9)) for name in names)), 1)
    before = 0
    for end in range(200, len(packed)):
        keys, error = keys_before_damage(packed[:end])
        assert isinstance(error, rdbkit.TruncatedError)
        assert keys == names[: len(keys)]
        assert len(keys) >= before, "a byte more tells no less"
        before = len(keys)
    assert before == len(names)
    for place in range(len(packed) - 8, len(packed)):  # gzip's own checksum and size
        damaged = bytearray(packed)
        damaged[place] ^= 1
        keys, error = keys_before_damage(bytes(damaged))
        assert keys == names
        assert "the gzip data is damaged" in str(error)

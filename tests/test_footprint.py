"""What keys take in memory, beside what the servers that wrote the fixtures answered to MEMORY USAGE."""

from __future__ import annotations

import io
import random
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rdbkit
from rdbkit.operations.footprint import Heap, is_long, size_class
from rdbkit.operations.memory import Memory, memory, memory_rows
from rdbkit.targets import find_target, load_targets, target_names
from rdbkit.targets.memory import QUANTUM, QUANTUM_OF_PACKAGES, layout_of, layouts

from .rdb import DUMPS, FIXTURES, key, length, rdb, string, truth

#: Fixtures of servers that use jemalloc, as production servers do; all of them are packages of a distribution.
LINES = {
    "redis-6.0.16": "redis-6.0",
    "redis-7.0.15": "redis-7.0",
    "redis-8.0.6": "redis-8.0",
    "redict-7.3.6": "redict-7.3",
    "valkey-8.1.1": "valkey-8.1",
    "valkey-9.1.2": "valkey-9.1",
}


def answers(release: str) -> list[tuple[str, int, int]]:
    """Type, bytes by the model and bytes by the server, of each key of a release's fixtures."""
    found = []
    for folder in ("rich", "random"):
        path = FIXTURES / folder / f"{release}.rdb"
        said = {(row["db"], row["key"].encode("latin-1")): row for row in truth(path) or ()}
        with rdbkit.open(path) as snapshot:
            for row in memory_rows(snapshot, find_target(LINES[release]), quantum=QUANTUM_OF_PACKAGES):
                answer = said[row.db, row.key]
                if answer["memory"] is not None:
                    found.append((answer["type"], row.memory, answer["memory"]))
    return found


@pytest.mark.parametrize("release", LINES)
def test_the_model_says_what_servers_say(release: str) -> None:
    found = answers(release)
    assert len(found) > 60
    total, wanted = sum(m for _, m, _ in found), sum(w for _, _, w in found)
    assert abs(total / wanted - 1) < 0.05
    near = sum(abs(m - w) <= 0.1 * w for _, m, w in found)
    assert near / len(found) >= 0.9


def report_of(data: bytes | Path, target: str = "redis-7.0", block_size: int = 1 << 20, **options: Any) -> Memory:
    source: Any = io.BytesIO(data) if isinstance(data, bytes) else data
    with rdbkit.open(source, block_size=block_size) as snapshot:
        return memory(snapshot, find_target(target), **options)


@pytest.mark.parametrize("path", DUMPS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_small_blocks_weigh_the_same(path: Path) -> None:
    for target in ("redis-6.0", "redis-7.2", "valkey-9.1"):
        whole = report_of(path, target, now_ms=0)
        pieces = report_of(path, target, block_size=64, now_ms=0)
        assert pieces.keys == whole.keys
        assert pieces.keys_bytes == whole.keys_bytes
        assert pieces.dataset_bytes == whole.dataset_bytes
        assert [p.prefix for p in pieces.prefixes] == [p.prefix for p in whole.prefixes]


@pytest.mark.parametrize("path", DUMPS, ids=lambda p: f"{p.parent.name}/{p.name}")
def test_every_dump_is_weighed_for_every_line(path: Path) -> None:
    with rdbkit.open(path) as snapshot:
        keys = sum(1 for _ in snapshot)
    for target in load_targets():
        report = report_of(path, target.name)
        assert report.keys == keys
        assert report.keys_bytes == sum(t.bytes for t in report.types) == sum(d.bytes for d in report.databases)
        assert keys == sum(t.keys for t in report.types) == sum(d.keys for d in report.databases)
        assert keys == sum(row.keys for row in report.expiry)
        assert report.keys_bytes == sum(row.bytes for row in report.expiry)
        assert keys == sum(p.keys for p in report.prefixes if p.depth == 1)
        assert report.keys_bytes == sum(p.bytes for p in report.prefixes if p.depth == 1)
        assert report.total_bytes > report.dataset_bytes > 0


def test_size_classes_are_those_of_jemalloc() -> None:
    # the table of jemalloc(3), for a quantum of 16 bytes
    classes = [8, 16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384, 448, 512, 640, 768, 896, 1024, 1280, 1536, 1792]
    classes += [2048, 2560, 3072, 3584, 4096, 5120, 6144, 7168, 8192, 10240, 12288, 14336, 16384, 20480]
    for n in range(1, classes[-1] + 1):
        assert size_class(n, QUANTUM_OF_PACKAGES) == next(c for c in classes if c >= n)
    finer = sorted({*classes, 24, 40, 56})
    for n in range(1, classes[-1] + 1):
        assert size_class(n, QUANTUM) == next(c for c in finer if c >= n)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"0", True), (b"-1", True), (b"12345678901", True), (b"9223372036854775807", True), (b"-9223372036854775808", True),
        (b"9223372036854775808", False), (b"-9223372036854775809", False), (b"007", False), (b"-0", False), (b"-", False),
        (b"", False),
        (b"1.5", False), (b"+1", False), (b" 1", False), (b"99999999999999999999", False),
    ],
)  # fmt: skip
def test_numbers_that_servers_keep_as_such(text: bytes, number: bool) -> None:
    assert is_long(text) is number


def test_a_layout_for_every_target() -> None:
    names = {layout.name for layout in layouts()}
    for name in target_names():
        assert layout_of(find_target(name)).name in names
    assert [layout_of(find_target(f"rdb-{n}")).name for n in (1, 9, 10, 11, 12, 14, 80)] == [
        "redis-6.0", "redis-6.0", "redis-7.0", "redis-7.2", "redis-8.0", "redis-8.2", "valkey-9.0",
    ]  # fmt: skip
    assert layout_of(find_target("azure-managed")).name == "redis-8.0"
    for layout in layouts():
        assert bool(layout.measured) != bool(layout.note), layout.name


def test_limits_of_packed_values_are_those_of_the_target() -> None:
    def weight(kind: int, value: bytes, target: str) -> int:
        return report_of(rdb(key(b"k", kind, value), magic=b"REDIS0011"), target).keys_bytes

    def plain_set(n: int, width: int) -> bytes:
        return length(n) + b"".join(string(b"m%0*d" % (width - 1, i)) for i in range(n))

    # sets of text are packed from Redis 7.2 on, up to 128 members of up to 64 bytes
    assert weight(2, plain_set(100, 10), "redis-7.2") < weight(2, plain_set(100, 10), "redis-7.0") / 2
    assert weight(2, plain_set(129, 10), "redis-7.2") > 2 * weight(2, plain_set(128, 10), "redis-7.2")
    assert weight(2, plain_set(2, 65), "redis-7.2") > weight(2, plain_set(2, 64), "redis-7.2")
    # a packed set is a table where the target packs none
    packed = b"".join(bytes([0x80 | 3]) + b"%03d" % i + b"\x04" for i in range(100))
    listpack = struct.pack("<IH", 7 + len(packed), 100) + packed + b"\xff"
    assert weight(20, string(listpack), "redis-7.0") > 3 * weight(20, string(listpack), "redis-7.2")
    # as many fields as a hash has packed, and one more
    fields = [string(b"f%03d" % i) + string(b"v") for i in range(513)]
    small, large = (length(n) + b"".join(fields[:n]) for n in (512, 513))
    assert weight(4, large, "redis-7.0") > 4 * weight(4, small, "redis-7.0")


def test_sets_are_of_numbers_only_where_servers_keep_them_so() -> None:
    def weight(members: list[bytes]) -> int:
        value = length(len(members)) + b"".join(string(m) for m in members)
        return report_of(rdb(key(b"k", 2, value))).keys_bytes

    numbers = weight([b"%d" % (10**12 + i) for i in range(50)])
    assert numbers < 1000
    for others in ([b"%06d" % i for i in range(50)], [b"9%019d" % i for i in range(50)]):
        assert weight(others) > 3 * numbers


def test_numbers_of_strings_take_no_place_of_their_own() -> None:
    long = rdb(key(b"k", 0, string(b"12345678901")))
    assert report_of(long).keys_bytes == report_of(rdb(key(b"k", 0, b"\xc0\x07"))).keys_bytes
    assert report_of(rdb(key(b"k", 0, string(b"01234567890")))).keys_bytes > report_of(long).keys_bytes


def test_skip_lists_have_the_mean_height() -> None:
    heap = Heap(layout_of(find_target("redis-7.0")).sizes, QUANTUM)
    rng = random.Random(1)
    tries = 40_000
    total = 0
    for _ in range(tries):
        level = 1
        while rng.random() < 0.25:
            level += 1
        total += size_class(24 + 16 * level, QUANTUM)
    mean = int(heap.scored_member(10)) / 16 - 24 - int(size_class(12, QUANTUM))
    assert abs(mean - total / tries) < 0.5


def test_buckets_that_overflow_are_counted_as_often_as_chance_has_it() -> None:
    heap = Heap(layout_of(find_target("valkey-8.1")).sizes, QUANTUM)
    rng = random.Random(1)
    for n in (1000, 40_000, 50_000):
        count = 1
        while count * 32 < n * 5:
            count *= 2
        filled = [0] * count
        for _ in range(n):
            filled[rng.randrange(count)] += 1
        more = sum((k - 7 + 5) // 6 for k in filled if k > 7)
        assert abs(heap.slots(n) / 64 - count - more) < 0.02 * count + 3


def test_a_giant_key_is_weighed_in_pieces() -> None:
    members = b"".join(string(b"member:%08d" % i) + struct.pack("<d", i) for i in range(50_000))
    data = rdb(key(b"z", 5, length(50_000) + members))
    report = report_of(data, block_size=4096)
    assert report.keys_bytes == report_of(data, block_size=1 << 24).keys_bytes
    assert report.biggest[0].elements == 50_000
    assert 50_000 * 80 < report.keys_bytes < 50_000 * 140


def test_a_giant_string_is_not_read_for_its_weight() -> None:
    data = rdb(key(b"s", 0, string(bytes(10 << 20))))
    assert report_of(data, block_size=65536).keys_bytes == report_of(data, block_size=1 << 24).keys_bytes > 10 << 20


def test_damage_inside_a_value_has_its_place() -> None:
    listpack = struct.pack("<IH", 3000, 900) + bytes(2994)
    data = rdb(key(b"good", 0, string(b"v")), key(b"bad", 16, string(listpack[:-8])), magic=b"REDIS0010")
    with pytest.raises(rdbkit.CorruptError) as caught:
        report_of(data)
    assert caught.value.key == b"bad"
    assert caught.value.offset == data.index(b"bad") + 3


@given(
    st.lists(st.tuples(st.binary(max_size=80), st.binary(max_size=300)), max_size=40), st.sampled_from(["redis-6.0", "valkey-9.1"])
)
def test_any_hash_weighs_the_same_in_any_pieces(pairs: list[tuple[bytes, bytes]], target: str) -> None:
    value = length(len(pairs)) + b"".join(string(f) + string(v) for f, v in pairs)
    data = rdb(key(b"h", 4, value), key(b"l", 1, length(len(pairs)) + b"".join(string(v) for _, v in pairs)))
    whole = report_of(data, target)
    for block_size in (16, 100):
        assert report_of(data, target, block_size=block_size).keys_bytes == whole.keys_bytes

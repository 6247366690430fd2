"""What keys take in memory, beside what servers that have loaded the same files answer to MEMORY USAGE."""

from __future__ import annotations

import io
import random
import struct
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rdbkit
from fixtures.loaded import LINES, LOADS, OLD, WRITERS, pages, stored
from rdbkit.format.entry_sizes import entry_of, entry_of_number
from rdbkit.operations.memory import Memory, memory, memory_rows
from rdbkit.passes.allocation import AllocationModel, RadixTree, page_class, size_class
from rdbkit.passes.footprint import is_long
from rdbkit.targets.memory import QUANTUM, QUANTUM_OF_PACKAGES, layout_of, layouts
from rdbkit.targets.target import find_target, load_targets, target_names

from ..rdb import FIXTURES, each_dump, key, length, rdb, string

#: What servers that have loaded a file said of its keys, by the name of the file.
LOADED = {name: f"memory/{name}.rdb.gz" for name in WRITERS} | {name.replace("/", "-"): f"{name}.rdb" for name in OLD}
MANY = 20_000
"""Bytes of one type and encoding whose sum chance cannot move by much: skip lists and buckets are as it has it."""


@pytest.mark.parametrize("name", LOADED)
def test_the_model_says_what_servers_say_that_have_loaded_the_file(name: str) -> None:
    lines = 0
    for line, allocator, said in stored(name):
        lines += 1
        sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
        with rdbkit.open(FIXTURES / LOADED[name]) as snapshot:
            for row in memory_rows(snapshot, find_target(line), pages=pages(allocator)):
                answer = said.pop((row.db, row.key), None)
                if answer is None:
                    assert row.expire_ms is not None  # the server dropped it: it had expired
                    continue
                for kind in (("all", ""), (answer.type, answer.encoding), (row.type, f"{row.encoding} in the file")):
                    sums[kind][0] += row.memory
                    sums[kind][1] += answer.memory
        assert not said
        for kind, (weighed, answered) in sums.items():
            if kind == ("all", ""):
                assert abs(weighed / answered - 1) < 0.01, (line, weighed, answered)
            elif answered > MANY:
                assert -0.02 < weighed / answered - 1 < 0.05, (line, kind, weighed, answered)
    assert lines == len(LOADS.get(name, LINES))


def test_the_model_counts_the_larger_where_allocators_differ() -> None:
    for line, _, _ in stored("redis-6.0"):
        sizes = []
        for options in ({}, {"quantum": QUANTUM}, {"quantum": QUANTUM_OF_PACKAGES}, {"pages": True}):
            with rdbkit.open(FIXTURES / LOADED["redis-6.0"]) as snapshot:
                sizes.append(memory(snapshot, find_target(line), **options).total_bytes)
        assert sizes[0] == sizes[2] >= sizes[3] > sizes[1]


def report_of(data: bytes | Path, target: str = "redis-7.0", block_size: int = 1 << 20, **options: Any) -> Memory:
    source: Any = io.BytesIO(data) if isinstance(data, bytes) else data
    with rdbkit.open(source, block_size=block_size) as snapshot:
        return memory(snapshot, find_target(target), **options)


@pytest.mark.parametrize("path", each_dump())
def test_small_blocks_weigh_the_same(path: Path) -> None:
    for target in ("redis-6.0", "redis-7.2", "valkey-9.1"):
        whole = report_of(path, target, now_ms=0)
        pieces = report_of(path, target, block_size=64, now_ms=0)
        assert pieces.keys == whole.keys
        assert pieces.keys_bytes == whole.keys_bytes
        assert pieces.dataset_bytes == whole.dataset_bytes
        assert [p.prefix for p in pieces.prefixes] == [p.prefix for p in whole.prefixes]


@pytest.mark.parametrize("path", each_dump())
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


def test_large_pieces_are_whole_pages_where_there_are_no_large_classes() -> None:
    assert [page_class(n, 16) for n in (100, 20_481, 32_768, 32_769, 69_633)] == [112, 24_576, 32_768, 36_864, 73_728]
    assert size_class(32_769, 16) == 40_960


def nodes_of(keys: set[bytes]) -> int:
    """The nodes of a radix tree of keys of one length: a key's end, a branch, and what is between two of them."""
    places = {b""} | {key[:n] for key in keys for n in range(len(key) + 1)}
    after = Counter(place[:-1] for place in places if place)
    alone = [place for place in places if after[place] == 1]
    begins = [place for place in alone if not place or after[place[:-1]] != 1]
    return len(keys) + sum(n > 1 for n in after.values()) + len(begins)


@given(st.sets(st.binary(min_size=3, max_size=3), min_size=1, max_size=60), st.integers(0, 255))
def test_nodes_of_radix_trees(keys: set[bytes], letter: int) -> None:
    keys = {bytes([letter]) + bytes(byte & 0x83 for byte in key) for key in keys}
    tree = RadixTree(AllocationModel(layout_of(find_target("redis-7.0")).sizes, QUANTUM), 4)
    for key_ in sorted(keys):
        tree.add(key_, 0)
    tree.finish()
    assert int(tree.nodes) == nodes_of(keys)


def test_entries_of_packed_values() -> None:
    # (bytes of a text, its entry in a listpack, its entry in a ziplist)
    for n, listpack, ziplist in (
        (0, 2, 2),
        (63, 65, 65),
        (64, 67, 67),
        (126, 130, 129),
        (5_000, 5_007, 5_003),
        (20_000, 20_008, 20_006),
    ):
        assert (int(entry_of(n, False)), int(entry_of(n, True))) == (listpack, ziplist)
    for value, listpack, ziplist in (
        (5, 2, 2),
        (13, 2, 3),
        (-1, 3, 3),
        (300, 3, 4),
        (5_000, 4, 4),
        (-40_000, 5, 5),
        (1 << 40, 10, 10),
    ):
        assert (int(entry_of_number(value, False)), int(entry_of_number(value, True))) == (listpack, ziplist)


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
    def weight(type_code: int, value: bytes, target: str) -> int:
        return report_of(rdb(key(b"k", type_code, value), magic=b"REDIS0011"), target).keys_bytes

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
    model = AllocationModel(layout_of(find_target("redis-7.0")).sizes, QUANTUM)
    rng = random.Random(1)
    tries = 40_000
    total = 0
    for _ in range(tries):
        level = 1
        while rng.random() < 0.25:
            level += 1
        total += size_class(24 + 16 * level, QUANTUM)
    mean = int(model.scored_member(10)) / 16 - 24 - int(size_class(12, QUANTUM))
    assert abs(mean - total / tries) < 0.5


def test_buckets_that_overflow_are_counted_as_often_as_chance_has_it() -> None:
    model = AllocationModel(layout_of(find_target("valkey-8.1")).sizes, QUANTUM)
    rng = random.Random(1)
    for n in (1000, 40_000, 50_000):
        count = 1
        while count * 32 < n * 5:
            count *= 2
        filled = [0] * count
        for _ in range(n):
            filled[rng.randrange(count)] += 1
        more = sum((k - 7 + 5) // 6 for k in filled if k > 7)
        assert abs(model.slots(n) / 64 - count - more) < 0.02 * count + 3


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


KEY = 16 + 24 + 8
"""Bytes of a key of one letter beside its value: the value's object, an entry of the table, and the letter."""


def weight(type_code: int, value: bytes, target: str, magic: bytes = b"REDIS0011") -> int:
    return report_of(rdb(key(b"k", type_code, value), magic=magic), target).keys_bytes


def ziplist(entries: list[bytes]) -> bytes:
    """Of entries that say by themselves how long they are, each shorter than 254 bytes."""
    content, before, tail = b"", 0, 10
    for entry in entries:
        tail = 10 + len(content)
        content += bytes([before]) + entry
        before = 1 + len(entry)
    return struct.pack("<IIH", 11 + len(content), tail, len(entries)) + content + b"\xff"


def test_a_ziplist_of_a_list_is_no_listpack_afterwards() -> None:
    short = ziplist([b"\x05hello", b"\x05world"])
    # list and one node, and 32 bytes of a listpack
    assert weight(10, string(short), "redis-8.0") == KEY + 40 + 40 + 32
    # as plain elements, the same is a listpack alone
    assert weight(1, length(2) + string(b"hello") + string(b"world"), "redis-8.0") == KEY + 32


def test_lists_are_filled_as_servers_fill_them() -> None:
    elements = length(100) + string(b"x" * 600) * 100
    full = 13 * 604 + 7
    rest = 100 % 13 * 604 + 7
    nodes = 7 * int(size_class(full, 16)) + int(size_class(rest, 16))
    assert weight(1, elements, "redis-7.2") == KEY + 40 + 8 * 40 + nodes
    # an element that is larger than a node is one
    large = length(2) + string(b"x" * 9_000) + string(b"y")
    assert weight(1, large, "redis-7.2") == KEY + 40 + 2 * 40 + 10_240 + 16
    assert weight(1, large, "redis-7.0") == KEY + 40 + 2 * 40 + 10_240 + 16


@pytest.mark.parametrize(("count", "length_of_each"), [(1, 40_000), (2, 10_000), (3, 5_000), (40, 600)])
def test_a_ziplist_of_long_elements_is_taken_apart(count: int, length_of_each: int) -> None:
    entries = b"".join(
        (b"\x00" if i == 0 else b"\xfe" + struct.pack("<I", length_of_each + 10)) + b"\x80" + struct.pack(">I", length_of_each)
        + bytes(length_of_each)
        for i in range(count)
    )  # fmt: skip
    value = struct.pack("<IIH", 11 + len(entries), 10, count) + entries + b"\xff"
    nodes = -(-count // max(1, 8_192 // (length_of_each + 8)))
    taken = weight(10, string(value), "redis-7.2") - KEY - 40 - 40 * nodes
    assert count * length_of_each < taken < count * length_of_each * 1.3


def test_a_ziplist_is_weighed_as_the_listpack_that_it_becomes() -> None:
    numbers = string(ziplist([b"\xfe\x32"] * 100))  # a byte each: in a listpack they share it with the entry's head
    assert weight(13, numbers, "redis-7.0") == KEY + int(size_class(7 + 200, 16))
    assert weight(13, numbers, "redis-6.0") == KEY + 11 + 300


def test_numbers_in_text_are_packed_as_numbers() -> None:
    texts = length(20) + b"".join(string(b"%d" % (10**12 + i)) + string(b"v") for i in range(20))
    assert weight(4, texts, "redis-7.0") == KEY + int(size_class(7 + 20 * (10 + 3), 16))


def test_what_is_packed_beyond_the_limits_of_the_target_is_weighed_entry_by_entry() -> None:
    pairs = [(b"f%05d" % i, b"v" * (i % 60)) for i in range(600)]
    packed = b"".join(bytes([0x80 | len(x)]) + x + bytes([len(x) + 1]) for pair in pairs for x in pair)
    listpack = struct.pack("<IH", 7 + len(packed), 1_200) + packed + b"\xff"
    loose = length(600) + b"".join(string(field) + string(value) for field, value in pairs)
    for target in ("redis-7.0", "redis-8.0", "valkey-9.1"):
        assert weight(16, string(listpack), target) == weight(4, loose, target)


def test_tables_that_grow_while_they_are_loaded_have_both_tables() -> None:
    def fields(n: int) -> bytes:
        return bytes(8) + length(n) + b"".join(b"\x01" + string(b"%06d" % i) + string(b"v" * 70) for i in range(n))

    def of_table(n: int) -> int:
        return weight(24, fields(n), "redis-8.0", b"REDIS0012") - n * (24 + int(size_class(26, 16)) + int(size_class(74, 16)))

    # 1,100 are put into 2,048 slots while those of the 1,024 before are emptied, 1,800 have emptied them
    assert of_table(1_100) - of_table(1_800) == 1_024 * 8
    assert of_table(1_000) < of_table(1_100)


def test_fields_that_expire_are_listed_by_time_in_valkey() -> None:
    def expiring(times: list[int]) -> int:
        fields = [string(b"%06d" % i) + string(b"v") + time.to_bytes(8, "little") for i, time in enumerate(times)]
        return weight(22, length(len(times)) + b"".join(fields), "valkey-9.1", b"VALKEY080")

    begin = 4_102_444_800_000
    together, apart = ([begin + i * gap for i in range(5_000)] for gap in (1, 100_000))
    assert 25 * 5_000 < expiring(apart) - expiring(together) < 60 * 5_000
    one, two = expiring([begin]), expiring([begin] * 2)
    assert expiring([begin] * 100) - 100 * (two - one - 24) > 800

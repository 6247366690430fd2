"""Small files that would need much memory: what is held of a file has a bound, and large packed values go through in batches."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

import rdbkit
from rdbkit.cli import main
from rdbkit.format.compiled import COMPILED
from rdbkit.operations.check import check
from rdbkit.operations.convert import convert
from rdbkit.operations.export import export_jsonl
from rdbkit.operations.info import info
from rdbkit.operations.salvage import salvage
from rdbkit.operations.value_json import value_json
from rdbkit.operations.verify import verify
from rdbkit.policy.rules import Policies
from rdbkit.targets.target import find_target
from tests.rdb import Dribble, aux, key, length, rarely, rdb, string

MB = 1 << 20
#: What a test lets be held of a file.
SMALL = rdbkit.Limits(held_bytes=MB)


def packed_lzf(prefix: bytes, unit: bytes, times: int, suffix: bytes = b"") -> bytes:
    """A compressed string: `prefix`, `unit` as often as that, and `suffix`, in a few bytes for each 264."""
    literals = b"".join(bytes([len(part) - 1]) + part for part in (prefix, unit) if part)
    total = len(unit) * (times - 1)
    copies = bytearray()
    while total > 0:
        n = min(total, 264)
        if n < 9:
            n = total if total >= 3 else 3
            if total < 3:  # the last bytes as they are
                text = (unit * 3)[-total:]
                copies += bytes([total - 1]) + text
                break
            copies += bytes([(n - 2) << 5 | (len(unit) - 1) >> 8, (len(unit) - 1) & 0xFF])
        else:
            copies += bytes([0xE0 | (len(unit) - 1) >> 8, n - 9, (len(unit) - 1) & 0xFF])
        total -= n
    data = literals + bytes(copies) + (bytes([len(suffix) - 1]) + suffix if suffix else b"")
    return b"\xc3" + length(len(data)) + length(len(prefix) + len(unit) * times + len(suffix)) + data


def listpack(unit: bytes, times: int) -> bytes:
    """A listpack of these entries, compressed; its count says that they are many."""
    return packed_lzf((len(unit) * times + 7).to_bytes(4, "little") + b"\xff\xff", unit, times, b"\xff")


def ziplist(times: int) -> bytes:
    """A ziplist of numbers 0, compressed."""
    size = 10 + 2 * (times + 1) + 1
    head = size.to_bytes(4, "little") + (size - 3).to_bytes(4, "little") + b"\xff\xff" + b"\x00\xf1"
    return packed_lzf(head, b"\x02\xf1", times, b"\xff")


def zipmap(times: int) -> bytes:
    return packed_lzf(b"\xfe", b"\x01a\x01\x00b", times, b"\xff")


MUCH = packed_lzf(b"", b"a", 300_000)
MODULE = (0x1234567812345400).to_bytes(8, "big")
STREAM = b"\x00\x00\x00\x00\x01\x01g\x00\x00"  # no entries, and one group


def entry(n: int) -> bytes:
    return (10**12).to_bytes(8, "big") + n.to_bytes(8, "big")


HELD = {
    "hash templates": rdb(*(b"\xf2" + length(n) + b"\x01" + MUCH for n in range(9)), magic=b"REDIS0015"),
    "many small templates": rdb(*(b"\xf2" + length(n) + b"\x01\x01a" for n in range(9000)), magic=b"REDIS0015"),
    "functions of a release candidate": rdb(
        *(b"\xf6" + string(b"l%d" % n) + string(b"LUA") + b"\x00" + MUCH for n in range(9)), magic=b"REDIS0010"
    ),
    "functions": rdb(*(b"\xf5" + packed_lzf(b"#!lua name=l%d\n" % n, b"a", 300_000) for n in range(9)), magic=b"REDIS0010"),
    "functions behind keys": rdb(key(b"k", 0, b"\x01v"), *([b"\xf5" + MUCH] * 9), magic=b"REDIS0010"),
    "functions of a release candidate behind keys": rdb(
        key(b"k", 0, b"\x01v"), *([b"\xf6\x01l\x03LUA\x00" + MUCH] * 9), magic=b"REDIS0010"
    ),
    "AUX fields": rdb(*(aux(b"", b"") for _ in range(9000))),
    "data of modules": rdb(*([b"\xf7\x81" + MODULE + b"\x02\x01\x00"] * 9000)),
    "data of modules behind keys": rdb(key(b"k", 0, b"\x01v"), *([b"\xf7\x81" + MODULE + b"\x02\x02\x00"] * 9000)),
    "metadata of a key": rdb(b"\xf3\x00" * 9000, key(b"k", 0, b"\x01v"), magic=b"REDIS0013"),
    "ranges of slots": rdb(b"\xf3" + string(b"a" * 40) + length(9000) + bytes(18_000), key(b"k", 0, b"\x01v"), magic=b"VALKEY080"),
    "databases": rdb(*(b"\xfe" + length(n) + key(b"k", 0, b"\x01v") for n in range(900))),
}


@pytest.mark.parametrize("name", HELD)
@pytest.mark.parametrize("dribble", [False, True])
def test_what_a_file_says_besides_keys_has_one_bound(name: str, dribble: bool) -> None:
    def read(limits: rdbkit.Limits | None) -> None:
        source = Dribble(HELD[name], 70_000) if dribble else io.BytesIO(HELD[name])
        with rdbkit.open(source, limits=limits) as snapshot:
            for _ in snapshot.events():
                pass

    with pytest.raises(rdbkit.LimitError, match=r"--max-memory or rdbkit\.Limits allows more"):
        read(SMALL)
    read(None)


def test_what_servers_write_is_far_from_the_bound() -> None:
    slots = b"".join(b"\xf4" + length(n) + b"\x01\x00" + key(b"%d" % n, 0, b"\x01v") for n in range(16_384))
    databases = b"".join(b"\xfe" + length(n) + key(b"%d" % n, 0, b"\x01v") for n in range(16_384))
    for data in (rdb(slots, magic=b"REDIS0012"), rdb(databases)):
        with rdbkit.open(io.BytesIO(data)) as snapshot:
            assert info(snapshot).keys == 16_384


VERBS: dict[str, Callable[[Path, Path], object]] = {
    "convert": lambda path, out: convert(
        path, out, target="redis-6.0", limits=SMALL, policies=Policies(loss="drop", function="drop", module="drop")
    ),
    "salvage": lambda path, out: salvage(str(path), str(out), limits=SMALL),
    "check": lambda path, out: look(path),
}


def look(path: Path) -> None:
    with rdbkit.open(path, limits=SMALL) as snapshot:
        check(snapshot, find_target("redis-7.0"))


@pytest.mark.parametrize("name", ["hash templates", "functions behind keys", "databases"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_limit_is_no_damage_and_no_loss(name: str, verb: str, tmp_path: Path) -> None:
    path = tmp_path / "in.rdb"
    path.write_bytes(HELD[name])
    with pytest.raises(rdbkit.LimitError):
        VERBS[verb](path, tmp_path / "out.rdb")
    assert [file.name for file in tmp_path.iterdir()] == ["in.rdb"]


def group(pending: int = 0, consumers: int = 0, named: bool = False) -> bytes:
    ids = b"".join(map(entry, range(pending)))
    body = STREAM + length(pending) + b"".join(entry(n) + bytes(8) + b"\x01" for n in range(pending))
    if named:
        return body + length(1) + string(b"c") + bytes(8) + length(pending) + ids
    return body + length(consumers) + b"".join(string(b"%d" % n) + bytes(8) + b"\x00" for n in range(consumers))


@pytest.mark.parametrize(
    ("what", "value"),
    [
        ("pending entries", group(5000, named=True)),
        ("consumers", group(consumers=5000)),
        (
            "groups of a stream",
            b"\x00\x00\x00\x00" + length(14_000) + b"".join(string(b"%d" % n) + bytes(4) for n in range(14_000)),
        ),
        ("entries of a node", b"\x01\x10" + entry(0) + listpack(b"\x01\x01", 60_000) + b"\x00\x00\x00\x00"),
    ],
)
def test_what_is_held_of_a_stream_has_a_bound(what: str, value: bytes) -> None:
    data = rdb(key(b"s", 15, value), magic=b"REDIS0010")
    report = verify(io.BytesIO(data), deep=True, limits=SMALL)
    assert [v.rule.name for v in report.violations] == ["limit"]
    assert what in report.violations[0].samples[0].message
    usual = verify(io.BytesIO(data), deep=True)
    assert "limit" not in [v.rule.name for v in usual.violations]


def test_names_that_come_twice_and_damaged_values_have_a_bound() -> None:
    twice = rdb(*(key(b"%d" % (n // 2), 0, b"\x01v") for n in range(12_000)))
    assert verify(io.BytesIO(twice), deep=True).violations
    with pytest.raises(rdbkit.LimitError, match="names that are there twice"):
        verify(io.BytesIO(twice), deep=True, limits=rdbkit.Limits(held_bytes=100_000))
    damaged = rdb(*(key(b"%d" % n, 16, string(b"\x09\0\0\0\1\0\x81")) for n in range(3000)), magic=b"REDIS0010")
    with rdbkit.open(io.BytesIO(damaged), limits=SMALL) as snapshot, pytest.raises(rdbkit.LimitError, match="errors"):
        export_jsonl(snapshot, io.BytesIO(), on_error="skip")
    with rdbkit.open(io.BytesIO(damaged)) as snapshot:
        assert len(export_jsonl(snapshot, io.BytesIO(), on_error="skip").skipped) == 3000


def test_errors_that_are_kept_keep_no_block() -> None:
    damaged = rdb(*(key(b"%d" % n, 16, string(b"\x09\0\0\0\1\0\x81")) for n in range(3)), magic=b"REDIS0010")
    with rdbkit.open(io.BytesIO(damaged)) as snapshot:
        for e in export_jsonl(snapshot, io.BytesIO(), on_error="skip").skipped:
            assert e.__traceback__ is None
            assert e.__context__ is None


# -- packed values

N = 200_000
PACKED = {
    "list": (key(b"k", 18, b"\x01\x02" + listpack(b"\x01\x01", N)), b"REDIS0010"),
    "list of ziplists": (key(b"k", 14, b"\x01" + ziplist(N - 1)), b"REDIS0007"),
    "hash": (key(b"k", 16, listpack(b"\x01\x01", N)), b"REDIS0010"),
    "hash that is no text": (key(b"k", 16, listpack(b"\x81\xff\x02", N)), b"REDIS0010"),
    "hash in a zipmap": (key(b"k", 9, zipmap(N // 2)), b"REDIS0002"),
    "set": (key(b"k", 20, listpack(b"\x01\x01", N)), b"REDIS0011"),
    "sorted set": (key(b"k", 17, listpack(b"\x01\x01", N)), b"REDIS0010"),
    "nodes": (key(b"k", 18, length(40) + 40 * (b"\x02" + listpack(b"\x01\x01", N // 40))), b"REDIS0010"),
    "compressed elements": (key(b"k", 1, length(40) + 40 * packed_lzf(b"", b"\xff", N // 20)), b"REDIS0010"),
    "text": (key(b"k", 0, packed_lzf(b"", "äb".encode(), N)), b"REDIS0010"),
    "bytes": (key(b"k", 0, packed_lzf(b"ab", b"\xff", 8 * N)), b"REDIS0010"),
}


def first(data: bytes, limits: rdbkit.Limits | None = None) -> rdbkit.Record:
    return next(iter(rdbkit.open(io.BytesIO(data), limits=limits)))


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", PACKED)
def test_large_packed_values_come_in_batches(name: str) -> None:
    record, magic = PACKED[name]
    data = rdb(record, magic=magic)
    batches = list(first(data).elements())
    flat = [element for batch in batches for element in batch]
    if first(data).type != "string":
        assert len(batches) > 1
        assert len(flat) == {"hash": N // 2, "zset": N // 2}.get(first(data).type, 40 if "elements" in name else N)
    lines = io.BytesIO()
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        assert export_jsonl(snapshot, lines).written == 1
    written = json.loads(lines.getvalue())["value"]
    assert written == json.loads(b"".join(value_json(first(data))))
    # the same value in a record larger than a block, which goes another way
    lines = io.BytesIO()
    with rdbkit.open(io.BytesIO(data), block_size=100) as snapshot:
        export_jsonl(snapshot, lines)
    assert written == json.loads(lines.getvalue())["value"]


@pytest.mark.parametrize("name", ["list", "hash", *rarely("set", "sorted set", "list of ziplists", "nodes")])
def test_a_large_packed_value_takes_a_few_times_its_size(name: str) -> None:
    record, magic = PACKED[name]
    data = rdb(record, magic=magic)
    tracemalloc.start()
    try:
        for _ in value_json(first(data)):
            pass
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # all elements together would take 17 MB, and the block, its copies and the node take 2
    assert COMPILED or peak < 8 * MB


def test_damage_behind_the_first_batch_writes_nothing() -> None:
    good = key(b"a", 0, b"\x01v")
    unit = b"\x01\x01"
    bad = packed_lzf((2 * N + 8).to_bytes(4, "little") + b"\xff\xff", unit, N, b"\x05\xff")
    data = rdb(good, key(b"k", 18, b"\x01\x02" + bad), key(b"z", 0, b"\x01v"), magic=b"REDIS0010")
    lines = io.BytesIO()
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        report = export_jsonl(snapshot, lines, on_error="skip")
    assert [json.loads(line)["key"] for line in lines.getvalue().splitlines()] == ["a", "z"]
    assert [e.key for e in report.skipped] == [b"k"]
    with pytest.raises(rdbkit.CorruptError):
        list(first(rdb(key(b"k", 18, b"\x01\x02" + bad), magic=b"REDIS0010")).elements())


def test_a_packed_value_that_is_too_large_to_be_held_is_refused() -> None:
    data = rdb(key(b"k", 18, b"\x01\x02" + listpack(b"\x01\x01", 400_000)), magic=b"REDIS0010")
    with pytest.raises(rdbkit.LimitError, match="a packed collection of 800007 bytes, where at most 524288 can be held whole"):
        list(first(data, SMALL).elements())
    with pytest.raises(rdbkit.LimitError, match=r"a value of more than 1000000 bytes in memory.*elements\(\)"):
        first(data, rdbkit.Limits(string_bytes=1_000_000)).value  # noqa: B018
    assert len(first(data).value) == 400_000


# -- the command line


def test_max_memory_raises_what_is_held(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "many.rdb"
    path.write_bytes(HELD["databases"])

    def info(*options: str) -> int | str | None:
        with pytest.raises(SystemExit) as ended:
            main(["info", str(path), *options])
        return ended.value.code

    assert info("--max-memory", "1MB") == 3
    assert "--max-memory or rdbkit.Limits allows more" in capsys.readouterr().err
    assert not info()
    assert not info("--max-memory", "1GB")
    capsys.readouterr()
    assert info("--max-memory", "much") == 2
    assert "--max-memory" in capsys.readouterr().err
    # the limit is that of one run
    with rdbkit.open(path) as snapshot:
        assert snapshot.limits == rdbkit.Limits()


@pytest.mark.exhaustive  # a quarter of a minute
def test_more_may_be_held_of_a_large_file_than_of_a_small_one() -> None:
    """A group of many pending entries takes eleven times what it takes in the file; compressed, that file is a small one."""
    count = 300_000
    ids = [struct.pack(">QQ", 5, n) for n in range(count)]
    pending = length(count) + b"".join(entry_id + bytes(8) + b"\1" for entry_id in ids)
    owned = length(1) + string(b"c") + bytes(16) + length(count) + b"".join(ids)
    group = string(b"g") + bytes([5, 1, 1]) + pending + owned
    data = rdb(key(b"s", 21, b"\0" + bytes([0, 5, 1, 0, 0, 0, 0, 1]) + length(1) + group), magic=b"REDIS0011")
    assert verify(io.BytesIO(data), deep=True).sound
    report = verify(io.BytesIO(gzip.compress(data)), deep=True)
    assert [v.rule.name for v in report.violations] == ["limit"]

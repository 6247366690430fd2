"""Every dump of a real server holds what that server said, however it is read."""

from __future__ import annotations

import gzip
import io
import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from rdbkit.operations.info import info

from ..rdb import DUMPS, Dribble, each_dump, truth

NOW_MS = 1_800_000_000_000

WAYS: dict[str, Any] = {
    "path": lambda p: rdbkit.open(p),
    "gzip": lambda p: rdbkit.open(io.BytesIO(gzip.compress(p.read_bytes()))),
    "two gzip members": lambda p: rdbkit.open(
        io.BytesIO(gzip.compress(p.read_bytes()[:100]) + gzip.compress(p.read_bytes()[100:]))
    ),
    "one byte at a time": lambda p: rdbkit.open(Dribble(p.read_bytes())),
    "blocks of 64": lambda p: rdbkit.open(p, block_size=64),
    "blocks of 16, dribbled": lambda p: rdbkit.open(Dribble(p.read_bytes(), 7), block_size=16),
    "blocks of 1000": lambda p: rdbkit.open(p, block_size=1000),
}


def expected(path: Path) -> list[dict[str, Any]]:
    rows = truth(path)
    if rows is None:
        pytest.fail(f"no truth for {path.name}")
    return rows


def test_there_are_dumps() -> None:
    assert len(DUMPS) >= 61


def kind_of(record: rdbkit.Record) -> str:
    return "vectorset" if record.type == "module" else record.type


@pytest.mark.parametrize("path", each_dump(answered=True))
def test_keys_types_and_expiries_are_those_the_server_answered(path: Path) -> None:
    rows = expected(path)
    with rdbkit.open(path) as snapshot:
        records = {(r.db, r.key.decode("latin-1")): r for r in snapshot}
    answered = {(t["db"], t["key"]) for t in rows}
    # 2.4 writes 32 bits of seconds: an expiry past 2038 ends in the past, and rich/ was asked after a reload that dropped it
    wraps = path.name == "redis-2.4.18.rdb"
    alive = {k: r for k, r in records.items() if not wraps or k in answered}
    assert {k: kind_of(r) for k, r in alive.items()} == {(t["db"], t["key"]): t["type"] for t in rows}
    for row in rows:
        found = alive[row["db"], row["key"]].expire_ms
        if isinstance(row["expire_ms"], list):
            assert found is not None
            apart = abs(found - row["expire_ms"][1])
            assert (apart % (1000 << 32) if wraps else apart) < 120_000
        else:
            assert found == row["expire_ms"] or (wraps and (found - row["expire_ms"]) % (1000 << 32) == 0)
    assert snapshot.checksum is not None
    assert snapshot.checksum.state == ("ok" if snapshot.header.version >= 5 else "absent")


@pytest.mark.parametrize("path", each_dump(answered=True))
def test_values_of_plain_strings_are_those_the_server_answered(path: Path) -> None:
    rows = {(t["db"], t["key"]): t["value"] for t in expected(path) if t["type"] == "string"}
    seen = 0
    with rdbkit.open(path) as snapshot:
        for record in snapshot:
            if record.encoding == "raw" and (record.db, record.key.decode("latin-1")) in rows:
                raw, value = record.raw, rows[record.db, record.key.decode("latin-1")].encode("latin-1")
                head = len(raw) - len(value)
                assert head in (1, 2, 5)
                assert raw[head:] == value
                seen += 1
    assert seen


@pytest.mark.parametrize("path", each_dump(answered=True))
@pytest.mark.parametrize("way", [w for w in WAYS if w != "path"])
def test_info_counts_are_the_same_however_a_dump_is_read(path: Path, way: str) -> None:
    counts: Counter[tuple[int, str]] = Counter((t["db"], t["type"]) for t in expected(path))
    with WAYS[way](path) as snapshot:
        report = info(snapshot, now_ms=NOW_MS)
    found = {(d.db, name): n for d in report.databases for name, n in d.types.items()}
    if path.name == "redis-2.4.18.rdb":
        assert report.keys - counts.total() <= report.expired  # see above
        assert all(found[key] >= n for key, n in counts.items())
    else:
        assert report.expired == 0
        assert found == counts


@pytest.mark.parametrize("path", each_dump())
def test_records_are_the_same_in_blocks_of_any_size(path: Path) -> None:
    def read(snapshot: rdbkit.Snapshot) -> list[Any]:
        with snapshot:
            return [
                (r.db, r.key, r.type, r.encoding, r.expire_ms, r.idle_s, r.freq, r.offset, b"".join(r.chunks()), r.size)
                for r in snapshot
            ]

    whole = read(rdbkit.open(path))
    data = path.read_bytes()
    for *_, offset, raw, size in whole:
        assert data[offset : offset + size].endswith(raw)
    for way, reader in WAYS.items():
        assert read(reader(path)) == whole, way


@pytest.mark.parametrize("path", each_dump())
def test_records_and_events_cover_every_byte(path: Path) -> None:
    """Nothing of the file lies between records but what the events say."""
    with rdbkit.open(path) as snapshot:
        records = list(snapshot)
    for one, other in itertools.pairwise(records):
        assert one.size is not None
        assert one.offset + one.size <= other.offset
    assert snapshot.rdb_size == path.stat().st_size


def test_idle_time_and_frequency_come_from_the_opcodes() -> None:
    rich = DUMPS[0].parent.parent / "rich"
    with rdbkit.open(rich / "redis-7.2.6-lru.rdb") as snapshot:
        records = list(snapshot)
    assert all(r.idle_s is not None and r.freq is None for r in records)
    with rdbkit.open(rich / "valkey-9.1.2-lfu.rdb") as snapshot:
        records = list(snapshot)
    assert all(r.freq is not None and r.idle_s is None for r in records)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("redis-7.4.1-cluster.rdb", {"SlotInfo"}),
        ("valkey-9.1.2-cluster.rdb", {"Aux"}),
        ("redis-8.8-dev-cluster.rdb", {"SlotInfo"}),
        ("redis-8.8-dev-keymeta.rdb", {"KeyMetadata", "FunctionLibrary"}),
        ("redis-6.0.20-mod.rdb", {"ModuleAux"}),
        ("redis-7.2.6-mod.rdb", {"ModuleAux", "FunctionLibrary"}),
        ("redis-7.0-rc1.rdb", {"FunctionLibrary"}),
        ("keydb-6.3.4-ext.rdb", {"Aux"}),
    ],
)
@pytest.mark.parametrize("block_size", [16, 1 << 20])
def test_events_tell_what_the_variants_hold(name: str, wanted: set[str], block_size: int) -> None:
    path = DUMPS[0].parent.parent / "rich" / name
    with rdbkit.open(path, block_size=block_size) as snapshot:
        small = [repr(e) for e in snapshot.events() if not isinstance(e, rdbkit.Record)]
    with rdbkit.open(path) as snapshot:
        events = list(snapshot.events())
    assert [repr(e) for e in events if not isinstance(e, rdbkit.Record)] == small
    assert wanted <= {type(e).__name__ for e in events}


def test_functions_are_named() -> None:
    with rdbkit.open(DUMPS[0].parent.parent / "rich" / "redis-7.0.15.rdb") as snapshot:
        (library,) = snapshot.functions
    assert (library.name, library.engine) == ("l", "lua")
    assert library.source.startswith(b"#!lua name=l\n")

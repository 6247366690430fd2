"""Export in several processes gives what one process gives, byte for byte."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from rdbkit.operations.export import Export, export_jsonl
from rdbkit.parallel import pool

from ..rdb import FIXTURES, aux, key, length, rdb, string

BLOCK = 100


@pytest.fixture(autouse=True)
def pieces(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bytes]]:
    """The texts that other processes made, of which there must be some, or the comparison would be with itself."""
    made: list[bytes] = []
    original = pool.in_order

    def watched(*args: Any, **options: Any) -> Iterator[Any]:
        for item in original(*args, **options):
            if not isinstance(item, rdbkit.Record):
                made.append(item.result.text)
            yield item

    monkeypatch.setattr(pool, "in_order", watched)
    yield made
    assert len([text for text in made if text]) > 1


def export(data: bytes, jobs: int, on_error: str = "stop", selection: rdbkit.Selection | None = None) -> tuple[bytes, Export | str]:
    """What is written, and the report or the error."""
    out = io.BytesIO()
    with rdbkit.open(io.BytesIO(data), block_size=BLOCK) as snapshot:
        try:
            result: Export | str = export_jsonl(snapshot, out, jobs=jobs, on_error=on_error, selection=selection)
        except rdbkit.RdbError as e:
            result = str(e)
    return out.getvalue(), result


@pytest.mark.parametrize("name", ["redis-2.4.18", "redis-7.2.6-lru", "redis-8.8-dev", "keydb-6.3.4-ext", "valkey-9.1.2-cluster"])
def test_a_dump_is_exported_the_same_by_two_processes(name: str) -> None:
    data = Path(FIXTURES, "rich", f"{name}.rdb").read_bytes()
    lines, report = export(data, 1)
    assert isinstance(report, Export)
    assert lines.count(b"\n") == report.written > 10
    assert export(data, 2) == (lines, report)


def test_databases_and_selections_hold_across_pieces() -> None:
    records = [key(b"k%d" % i, 0, string(b"v" * 40)) for i in range(60)]
    data = rdb(b"\xfe\0", *records, b"\xfe\5", *records)
    lines, report = export(data, 1, selection=rdbkit.Selection(dbs=5, keys=b"k?"))
    assert lines.count(b'{"db":5,') == 10 == getattr(report, "written", None)
    assert export(data, 2, selection=rdbkit.Selection(dbs=5, keys=b"k?")) == (lines, report)


def test_member_expiries_reach_a_record_of_the_piece_before() -> None:
    """KeyDB writes them behind the record; with blocks of a few hundred bytes they often begin the next piece."""
    parts = []
    for i in range(40):
        parts.append(key(b"s%d" % i, 2, length(2) + string(b"a" * (40 + i)) + string(b"b")))
        parts += [aux(b"keydb-subexpire-key", b"b"), aux(b"keydb-subexpire-when", b"%d" % (1_900_000_000_000 + i))]
    data = rdb(b"\xfe\0", *parts)
    lines, _ = export(data, 1)
    assert lines.count(b'"member_expire_ms":{"b":') == 40
    assert export(data, 2)[0] == lines


@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_damage_is_told_the_same_by_two_processes(on_error: str) -> None:
    broken = key(b"bad", 16, string(b"\x09\0\0\0\x01\0\x81a\xff"))
    good = [key(b"k%d" % i, 0, string(b"v" * 40)) for i in range(30)]
    data = rdb(b"\xfe\0", *good, broken, *good)
    lines, report = export(data, 1, on_error)
    again, report_again = export(data, 2, on_error)
    assert again == lines
    if on_error == "skip":
        assert isinstance(report, Export)
        assert isinstance(report_again, Export)
        assert [str(e) for e in report_again.skipped] == [str(e) for e in report.skipped]
        assert [e.key for e in report.skipped] == [b"bad"]
        assert lines.count(b"\n") == 60
    else:
        assert report_again == report
        assert "key 'bad'" in str(report)
        assert lines.count(b"\n") == 30

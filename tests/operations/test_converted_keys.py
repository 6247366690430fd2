"""The keys of what a conversion would write."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

import rdbkit
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.operations.converted_keys import scan_converted_keys
from rdbkit.targets.target import find_target

MANAGED = find_target("azure-managed")


def a_file(path: Path, keys: int = 10) -> Path:
    with rdbkit.create(path, version=12) as writer:
        for number in range(keys):
            writer.put(b"k%d" % number, b"v" * 100, db=number % 2, expire_ms=1000 if number == 4 else None)
    return path


def test_keys_are_those_that_would_be_written(tmp_path: Path) -> None:
    path = a_file(tmp_path / "a.rdb")
    edits = rdbkit.Edits(collapse_dbs=True, rename_prefix=[("k1", "one")], drop_expired=True)
    conversion = ConversionOptions(edits=edits, selection=rdbkit.Selection(not_keys="k7")).at(2000)
    seen: list[tuple[int, bytes]] = []
    scan_converted_keys(str(path), MANAGED, conversion, lambda db, key, offset, expire_ms: seen.append((db, key)))
    made = tmp_path / "made.rdb"
    rdbkit.convert(path, made, target=MANAGED, **conversion.arguments())
    with rdbkit.open(made) as snapshot:
        assert seen == [(record.db, record.key) for record in snapshot]
    assert len(seen) == 8
    assert (0, b"one") in seen


def test_what_is_wrong_with_the_file_is_raised(tmp_path: Path) -> None:
    path = a_file(tmp_path / "a.rdb")
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(rdbkit.TruncatedError) as caught:
        scan_converted_keys(str(path), MANAGED, ConversionOptions(), lambda *met: None)
    assert caught.value.source == str(path)
    keys_of_databases = ConversionOptions()
    with pytest.raises(rdbkit.LossError):
        scan_converted_keys(str(a_file(tmp_path / "b.rdb")), MANAGED, keys_of_databases, lambda *met: None)


def test_whoever_has_seen_enough_leaves_nothing_running(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def stop(*met: object) -> None:
        raise Enough

    path = a_file(tmp_path / "a.rdb", 200_000)
    before = set(threading.enumerate())
    with pytest.raises(Enough):
        scan_converted_keys(str(path), find_target("redis-7.2"), ConversionOptions(), stop)
    assert set(threading.enumerate()) <= before

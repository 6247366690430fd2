"""Files that one operation reads more than once: another file under the same name is an error, never a mixture of both."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import rdbkit
import rdbkit.operations.diff_delta as delta_module
import rdbkit.snapshot.reader as reader
from rdbkit.azure.migrate import Migration
from rdbkit.cli import cli
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.operations.merge import merge
from rdbkit.storage.location import Identity
from rdbkit.storage.source import Input, Rereading, Source, open_source
from rdbkit.targets.target import find_target

from ..rdb import FIXTURES

KEYS = 300
TARGET = find_target("azure-managed")


def snapshot_of(path: Path, names: range, value: bytes, db: int = 0) -> None:
    with rdbkit.create(path, version=11, force=True) as writer:
        for n in names:
            writer.put(b"k%04d" % n, value, db=db)
            writer.put(b"h%04d" % n, {b"field": value, b"other": b"x"}, db=db)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two snapshots with keys in common, one with keys of its own, and one that replaces the second, of the same size."""
    snapshot_of(tmp_path / "a.rdb", range(KEYS), b"A")
    snapshot_of(tmp_path / "b.rdb", range(100, KEYS + 100), b"B", db=0)
    snapshot_of(tmp_path / "c.rdb", range(1000, KEYS + 1000), b"C")
    snapshot_of(tmp_path / "new.rdb", range(90, KEYS + 90), b"N")
    return tmp_path


def _merge(policy: str) -> Callable[[Path], object]:
    return lambda folder: merge(
        [str(folder / "a.rdb"), str(folder / "b.rdb")],
        folder / "out.rdb",
        on_duplicate=policy,  # type: ignore[arg-type]
    )


def _merge_fails(folder: Path) -> None:
    with pytest.raises(rdbkit.DuplicateError):
        _merge("fail")(folder)


def _split(folder: Path, first: str) -> None:
    rdbkit.split([str(folder / first), str(folder / "b.rdb")], str(folder / "out"), rdbkit.Division(parts=2))


def _split_fails(folder: Path) -> None:
    with pytest.raises(rdbkit.DuplicateError):
        _split(folder, "a.rdb")


def _check_duplicates(folder: Path) -> None:
    CliRunner().invoke(
        cli,
        ["check", str(folder / "a.rdb"), str(folder / "b.rdb"), "--target", "redis-7.2", "--duplicates"],
        catch_exceptions=False,
    )


def _verify(folder: Path) -> None:
    # a name that is there twice, so that the file is read again
    twice = folder / "twice.rdb"
    if not twice.exists():
        with rdbkit.create(twice, version=11) as writer:
            for _ in range(2):
                writer.put(b"k", b"v")
        shutil.copy(twice, folder / "b.rdb")
    rdbkit.verify(folder / "b.rdb", deep=True)


def _check_clashes(folder: Path) -> None:
    # one name in two databases, of which the target has one
    if not (folder / "clash.rdb").exists():
        with rdbkit.create(folder / "clash.rdb", version=11) as writer:
            for db in (0, 1):
                writer.put(b"k", b"v", db=db)
        shutil.copy(folder / "clash.rdb", folder / "b.rdb")
    with rdbkit.open(folder / "b.rdb") as snapshot:
        rdbkit.check(snapshot, TARGET)


def _migrate(folder: Path) -> None:
    migration = object.__new__(Migration)
    migration.rereading = Rereading()
    migration.target = TARGET
    migration.conversion = ConversionOptions()
    migration.conversions = {}
    migration.refused = []
    migration.warnings = []
    migration.leaves_state = False
    migration.allow_base = False
    migration.checks = []
    migration.files = []
    from rdbkit.azure.file_progress import FileProgress

    for name in ("a.rdb", "b.rdb"):
        found = os.stat(folder / name)
        migration.files.append(FileProgress(str(folder / name), found.st_size, found.st_mtime_ns))
    with pytest.raises(rdbkit.DuplicateError):
        migration.rehearse()


VERBS: dict[str, Callable[[Path], object]] = {
    "merge fail": _merge_fails,
    "merge first": _merge("first"),
    "merge latest-expiry": _merge("latest-expiry"),
    "split": lambda folder: _split(folder, "c.rdb"),
    "split fails": _split_fails,
    "plan": lambda folder: rdbkit.plan([str(folder / "a.rdb"), str(folder / "b.rdb")], TARGET),
    "diff": lambda folder: rdbkit.diff(str(folder / "a.rdb"), str(folder / "b.rdb")),
    "diff --delta .resp": lambda folder: rdbkit.diff(
        str(folder / "a.rdb"), str(folder / "b.rdb"), delta=str(folder / "out.resp")
    ),
    "diff --delta .rdb": lambda folder: rdbkit.diff(str(folder / "a.rdb"), str(folder / "b.rdb"), delta=str(folder / "out.rdb")),
    "convert --collapse-dbs": lambda folder: rdbkit.convert(
        folder / "b.rdb", folder / "out.rdb", target="redis-7.2", edits=rdbkit.Edits(collapse_dbs=True)
    ),
    "convert --rename": lambda folder: rdbkit.convert(
        folder / "b.rdb", folder / "out.rdb", target="redis-7.2",
        edits=rdbkit.Edits(collapse_dbs=True, on_conflict="rename"),
    ),
    "verify --deep": _verify,
    "check --duplicates": _check_duplicates,
    "check": _check_clashes,
    "migrate": _migrate,
}  # fmt: skip


def readings(monkeypatch: pytest.MonkeyPatch, path: Path, before: Callable[[int], object]) -> Callable[[], int]:
    """Call `before` with the number of each reading of a file, just before it begins; returns how many there were."""
    count = 0

    def opened(src: Input) -> Source:
        nonlocal count
        if src == str(path) or src == path:
            count += 1
            before(count)
        return open_source(src)

    class Places(delta_module._Places):
        def __init__(self, snapshot: rdbkit.Snapshot) -> None:
            nonlocal count
            if snapshot.name == str(path):
                count += 1
                before(count)
            super().__init__(snapshot)

    monkeypatch.setattr(reader, "open_source", opened)
    monkeypatch.setattr(delta_module, "_Places", Places)
    return lambda: count


def by_rename(path: Path, other: Path) -> None:
    copy = other.with_suffix(".copy")
    shutil.copy(other, copy)
    os.replace(copy, path)


def in_place(path: Path, other: Path) -> None:
    was = os.stat(path)
    path.write_bytes(other.read_bytes())
    os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns + 1))  # clocks of file systems are coarse


@pytest.mark.parametrize("swap", [by_rename, in_place])
@pytest.mark.parametrize("verb", VERBS)
def test_a_source_that_is_another_at_a_later_reading(
    folder: Path, monkeypatch: pytest.MonkeyPatch, verb: str, swap: Callable[[Path, Path], None]
) -> None:
    path = folder / "b.rdb"
    counted = readings(monkeypatch, path, lambda number: None)
    VERBS[verb](folder)
    total = counted()
    assert total > 1
    original = path.read_bytes()
    for at in range(2, total + 1):
        _clear(folder)
        path.write_bytes(original)

        def before(number: int, at: int = at) -> None:
            if number == at:
                swap(path, folder / "new.rdb")

        readings(monkeypatch, path, before)
        with pytest.raises(rdbkit.ChangedError, match="changed or replaced while it was read; run this again"):
            VERBS[verb](folder)
        assert _outputs(folder) == []


def _outputs(folder: Path) -> list[str]:
    return [name for name in os.listdir(folder) if name.startswith(("out", ".rdbkit"))]


def _clear(folder: Path) -> None:
    for name in _outputs(folder):
        path = folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("verb", ["merge first", "split", "convert --collapse-dbs"])
def test_a_source_that_is_written_to_during_its_last_reading(folder: Path, monkeypatch: pytest.MonkeyPatch, verb: str) -> None:
    path = folder / "b.rdb"
    counted = readings(monkeypatch, path, lambda number: None)
    VERBS[verb](folder)
    total = counted()
    _clear(folder)

    def opened(number: int) -> None:
        if number == total:
            monkeypatch.setattr(reader.Snapshot, "_read_end", touching)

    read_end = reader.Snapshot._read_end

    def touching(self: rdbkit.Snapshot) -> None:
        read_end(self)
        if self.name == str(path):
            os.utime(path, ns=(0, 0))

    if verb.startswith("convert"):  # the first that is opened is read last
        monkeypatch.setattr(reader.Snapshot, "_read_end", touching)
    readings(monkeypatch, path, opened)
    with pytest.raises(rdbkit.ChangedError):
        VERBS[verb](folder)
    assert _outputs(folder) == []


def test_damage_in_another_file_is_not_that_of_the_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "b.rdb"
    (folder / "new.rdb").write_bytes(b"REDIS0011\xfe")
    readings(monkeypatch, path, lambda number: in_place(path, folder / "new.rdb") if number == 2 else None)
    with pytest.raises(rdbkit.ChangedError):
        VERBS["merge first"](folder)


def test_a_source_that_is_replaced_while_it_is_salvaged(folder: Path) -> None:
    path = folder / "b.rdb"
    data = path.read_bytes()
    path.write_bytes(data[:900] + b"\xf0\xf0" + data[902:])
    with pytest.raises(rdbkit.ChangedError):
        rdbkit.salvage(path, folder / "out.rdb", progress=lambda done: by_rename(path, folder / "new.rdb"))
    assert _outputs(folder) == []


def test_a_file_that_grows_is_read_once_as_ever() -> None:
    with rdbkit.open(FIXTURES / "rich" / "redis-7.0.15.rdb") as snapshot:
        assert sum(1 for _ in snapshot) == 27


def test_identity(tmp_path: Path) -> None:
    path, other = tmp_path / "a", tmp_path / "b"
    path.write_bytes(b"1")
    other.write_bytes(b"1")
    found = Identity.of(path)
    assert found is not None
    with path.open("rb") as file:
        assert Identity.of(file) == found == Identity.of(str(path))
        os.utime(path, ns=(0, 0))
        assert Identity.of(file) != found
    assert found.is_changed_in(Identity.of(path))
    assert not found.is_changed_in(Identity.of(other))
    assert not found.is_changed_in(None)
    things: list[Any] = [io.BytesIO(), tmp_path, os.devnull, object(), file]
    assert [Identity.of(thing) for thing in things] == [None] * 5


def test_a_file_that_is_gone_at_the_second_reading(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "b.rdb"
    readings(monkeypatch, path, lambda number: path.unlink() if number == 2 else None)
    with pytest.raises(FileNotFoundError, match=r"b\.rdb"):
        VERBS["merge first"](folder)

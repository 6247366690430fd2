"""What several processes write into one file is what one process writes, byte for byte; or there is no file."""

from __future__ import annotations

import gzip
import io
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from rdbkit.operations.export import Export, export, export_jsonl
from rdbkit.operations.verify import verify
from rdbkit.parallel import pool
from rdbkit.snapshot import reader

from ..processes import GUARD
from ..rdb import FIXTURES, aux, each_dump, key, length, rdb, string

BLOCK = 100
#: Those of each kind; a dump takes some dozen processes here.
SOME = [dump for dump in each_dump("rich") if not dump.marks]
POLICIES = rdbkit.Policies(loss="drop")


@pytest.fixture(autouse=True)
def placed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The places that other processes wrote to."""
    places: list[int] = []
    original = pool.in_order

    def watched(*args: Any, **options: Any) -> Iterator[Any]:
        for item in original(*args, **options):
            yield item
            if isinstance(item, pool.Answer):
                places.extend(item.places)

    monkeypatch.setattr(pool, "in_order", watched)
    return places


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = dict(reader.open_snapshot.__kwdefaults__ or {}, block_size=BLOCK)
    monkeypatch.setattr(reader.open_snapshot, "__kwdefaults__", defaults)


def as_one(src: Path, tmp_path: Path, **options: Any) -> rdbkit.Conversion:
    """Convert with one process and with three, which makes no difference; returns the report."""
    made = [tmp_path / "one.rdb", tmp_path / "three.rdb"]
    reports = [rdbkit.convert(src, dst, jobs=jobs, force=True, now_ms=0, **options) for dst, jobs in zip(made, (1, 3), strict=True)]
    assert made[0].read_bytes() == made[1].read_bytes()
    same = {"ledger": None, "checksum": None, "skipped": None}
    assert vars(reports[0]) | same == vars(reports[1]) | same
    assert str(reports[0].checksum) == str(reports[1].checksum)
    assert [str(e) for e in reports[0].skipped] == [str(e) for e in reports[1].skipped]
    assert reports[0].ledger.counts == reports[1].ledger.counts
    return reports[0]


def redacted(src: Path, tmp_path: Path, **options: Any) -> rdbkit.Redaction:
    """Redact with one process and with three, which makes no difference; returns the report."""
    made = [tmp_path / "one.rdb", tmp_path / "three.rdb"]
    one, three = (
        rdbkit.redact(src, dst, secret=b"s", jobs=jobs, force=True, **options) for dst, jobs in zip(made, (1, 3), strict=True)
    )
    assert made[0].read_bytes() == made[1].read_bytes()
    assert one == three
    return one


@pytest.mark.parametrize("path", SOME)
def test_a_dump_is_converted_and_exported(path: Path, tmp_path: Path, placed: list[int]) -> None:
    for target in ("azure-premium", "redis-8.8"):
        as_one(path, tmp_path, target=target, policies=POLICIES, on_error="skip")
    assert redacted(path, tmp_path, keep_modules=path.stem.endswith("mod")).keys > 10
    reports: list[Export] = []
    for jobs in (1, 3):
        reports.append(export(path, tmp_path / f"{jobs}.jsonl", jobs=jobs, on_error="skip"))
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "3.jsonl").read_bytes()
    assert reports[0].written == reports[1].written
    assert [place >= 0 for place in placed].count(True) > 1 or path.stem.startswith(("redis-8.8", "redis-8.10", "keydb"))


@pytest.mark.parametrize("path", SOME)
def test_what_is_wrong_with_a_dump_is_found(path: Path, tmp_path: Path) -> None:
    data = bytearray(path.read_bytes())
    rng = random.Random(7)
    found: set[str] = set()
    for number in range(4):
        damaged = tmp_path / "damaged.rdb"
        damaged.write_bytes(data)
        one, three = (verify(damaged, deep=True, samples=2, jobs=jobs) for jobs in (1, 3))
        assert one.to_dict() == three.to_dict()
        found.update(violation.rule.name for violation in one.violations)
        for _ in range(1 + number * 3):
            data[rng.randrange(200, len(data))] ^= 1 << rng.randrange(8)
    assert found


def test_faults_of_many_pieces_are_found_in_their_order(tmp_path: Path) -> None:
    bad = string(b"\x09\0\0\0\x01\0\x81a\xff")
    rows = []
    for i in range(200):
        rows += [key(b"k%d" % i, 0, string(b"v" * 40)), key(b"bad%d" % i, 16, bad)] if i % 3 else [key(b"", 0, string(b"v"))]
        if i % 40 == 0:
            rows.append(key(b"large%d" % i, 16, string(b"\xff\xff\0\0\x01\0" + b"\x81a\xff" * 100)))
            rows.append(aux(b"slot-info", b"1,2,3"))
            rows.append(b"\xfe" + length(i // 40 % 2))
    damaged = tmp_path / "damaged.rdb"
    for data in (rdb(*rows, magic=b"REDIS0011"), rdb(*rows, magic=b"REDIS0011")[:-2000], rdb(*rows)):
        damaged.write_bytes(data)
        reports = [verify(damaged, deep=True, samples=samples, jobs=jobs).to_dict() for samples in (3, 1000) for jobs in (1, 2)]
        assert reports[0] == reports[1]
        assert reports[2] == reports[3]
        assert sum(finding["count"] for finding in reports[0]["findings"]) > 100


def test_damaged_values_are_listed_in_the_order_of_the_file(tmp_path: Path) -> None:
    bad = b"\x09\0\0\0\x01\0\x81a\xff"
    rows = []
    for i in range(30):
        rows += [key(b"k%d" % i, 0, string(b"v" * 40)), key(b"bad%d" % i, 16, string(bad))]
        rows.append(key(b"large%d" % i, 16, string(b"\xff\xff\0\0\x01\0" + b"\x81a\xff" * 100)))
    path = tmp_path / "source.rdb"
    path.write_bytes(rdb(*rows, magic=b"REDIS0011"))
    report = as_one(path, tmp_path, target="azure-premium", on_error="skip")
    assert [e.key for e in report.skipped] == [b"%b%d" % (name, i) for i in range(30) for name in (b"bad", b"large")]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Several databases, to and fro; keys of several kinds, some larger than a block."""
    path = tmp_path / "source.rdb"
    with rdbkit.create(path, version=10) as made:
        for i in range(300):
            made.put(b"k%d" % i, [b"a%d" % i, b"b"], db=i // 100 % 2, expire_ms=1_900_000_000_000 if i % 3 else None)
            made.put(b"h%d" % i, {b"f": b"v" * 30}, db=i // 100 % 2)
            if i % 50 == 0:
                made.put(b"large%d" % i, [b"x" * 90, b"y" * 90, b"z" * 90], db=i // 100 % 2)
    return path


@pytest.mark.parametrize(
    "options",
    [
        {"selection": rdbkit.Selection(keys=b"k*")},
        {"selection": rdbkit.Selection(keys=b"nothing")},
        {"edits": rdbkit.Edits(map_db={1: 3}, drop_expired=True)},
        {"edits": rdbkit.Edits(rename_prefix=((b"k", b"key:"),))},
        {"compress": True},
    ],
    ids=str,
)
def test_counts_of_databases_are_put_right(source: Path, tmp_path: Path, options: dict[str, Any], placed: list[int]) -> None:
    if "selection" in options:
        redacted(source, tmp_path, **options)
    report = as_one(source, tmp_path, target="redis-6.0", **options)
    with rdbkit.open(tmp_path / "three.rdb") as snapshot:
        assert len(list(snapshot)) == report.written
        assert snapshot.checksum is not None
        assert snapshot.checksum.state == "ok"
    assert (max(placed, default=0) > 0) == (report.written > 0)


@pytest.mark.parametrize("name", ["out.jsonl.gz", "-"])
def test_what_cannot_be_written_at_any_place_is_sent(source: Path, tmp_path: Path, name: str, placed: list[int]) -> None:
    dst = "-" if name == "-" else os.fspath(tmp_path / name)
    code = f"import rdbkit.operations.export as e; e.export({os.fspath(source)!r}, {dst!r}, jobs=2)"
    done = subprocess.run(
        [sys.executable, "-c", f"if __name__ == '__main__': {code}"], capture_output=True, timeout=GUARD, check=True
    )
    if name != "-":
        done.stdout = gzip.decompress((tmp_path / name).read_bytes())
    export(source, tmp_path / "one.jsonl")
    assert done.stdout == (tmp_path / "one.jsonl").read_bytes()


def test_a_file_opened_by_the_caller_is_written_in_order(source: Path, tmp_path: Path, placed: list[int]) -> None:
    """It may be open for appending, where nothing else is possible."""
    export(source, tmp_path / "one.jsonl")
    with open(tmp_path / "more.jsonl", "ab") as file, rdbkit.open(source) as snapshot:
        export_jsonl(snapshot, file, jobs=2)
    assert (tmp_path / "more.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    assert not placed


def test_a_loss_that_is_not_allowed_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(rdbkit.LossError) as alone:
        rdbkit.convert(FIXTURES / "rich" / "redis-8.6-dev.rdb", tmp_path / "out.rdb", target="azure-premium")
    with pytest.raises(rdbkit.LossError) as error:
        rdbkit.convert(FIXTURES / "rich" / "redis-8.6-dev.rdb", tmp_path / "out.rdb", target="azure-premium", jobs=2)
    assert str(error.value) == str(alone.value)
    assert not list(tmp_path.iterdir())


LIMITED = """
import resource, sys, rdbkit
from rdbkit.operations.export import export
if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))
    try:
        if sys.argv[3] == "convert":
            rdbkit.convert(sys.argv[1], sys.argv[2], target="redis-6.0", jobs=2, block_size=100)
        else:
            export(sys.argv[1], sys.argv[2], jobs=2)
    except OSError as e:
        print(e.strerror, e.filename)
"""


@pytest.mark.parametrize("verb", ["convert", "export"])
def test_a_full_disk_is_one_error_and_leaves_no_file(source: Path, tmp_path: Path, verb: str) -> None:
    program = tmp_path / "program.py"
    program.write_text(LIMITED)
    out = tmp_path / "folder" / "out"
    out.parent.mkdir()
    done = subprocess.run([sys.executable, program, source, out, verb], capture_output=True, text=True, timeout=GUARD)
    assert (done.stdout, done.stderr) == (f"File too large {out}\n", "")
    assert not list(out.parent.iterdir())


KILLED = """
import multiprocessing, os, signal, sys, rdbkit
from rdbkit.operations.export import export
def kill(position):
    for worker in multiprocessing.active_children()[:1]:
        os.kill(worker.pid, signal.SIGKILL)
        worker.join()
if __name__ == "__main__":
    try:
        if sys.argv[3] == "convert":
            rdbkit.convert(sys.argv[1], sys.argv[2], target="redis-6.0", jobs=2, progress=kill)
        else:
            export(sys.argv[1], sys.argv[2], jobs=2, progress=kill)
    except rdbkit.RdbError as e:
        print(type(e).__name__, str(e).partition(": ")[2])
"""


@pytest.mark.parametrize("verb", ["convert", "export"])
def test_a_killed_process_is_one_error_and_leaves_no_file(tmp_path: Path, verb: str) -> None:
    source = tmp_path / "source.rdb"
    source.write_bytes(rdb(*(key(b"k%d" % i, 0, string(b"v" * 40_000)) for i in range(2_000)), magic=b"REDIS0011"))
    program = tmp_path / "program.py"
    program.write_text(KILLED)
    out = tmp_path / "folder" / "out"
    out.parent.mkdir()
    done = subprocess.run([sys.executable, program, source, out, verb], capture_output=True, text=True, timeout=GUARD)
    assert done.stdout == "RdbError one of the processes ended before its work was done, as where memory is short; ask for fewer\n"
    assert done.stderr == ""
    assert not list(out.parent.iterdir())


def test_a_source_that_changes_meanwhile_leaves_no_file(tmp_path: Path) -> None:
    source = tmp_path / "source.rdb"
    data = rdb(*(key(b"k%d" % i, 0, string(b"v" * 400)) for i in range(2_000)))
    source.write_bytes(data)

    def grow(_: int) -> None:
        with open(source, "ab") as file:
            file.write(b"\0")

    out = tmp_path / "folder" / "out.jsonl"
    out.parent.mkdir()
    for change in (grow, lambda _: os.truncate(source, 3_000)):
        source.write_bytes(data)
        with pytest.raises(rdbkit.RdbError):
            export(source, out, jobs=2, progress=change)
        assert not list(out.parent.iterdir())


def test_nothing_is_lost_in_front_of_damage(source: Path, tmp_path: Path) -> None:
    """A wrong checksum, and a file that is cut, are met when the last records have been scanned and not yet handed out."""
    data = source.read_bytes()
    damaged = tmp_path / "damaged.rdb"
    for made, error in ((data[:-1] + bytes([data[-1] ^ 1]), None), (data[:-40], rdbkit.TruncatedError)):
        damaged.write_bytes(made)
        lines = []
        for jobs in (1, 3):
            with open(tmp_path / "out.jsonl", "wb") as out, rdbkit.open(damaged) as snapshot:
                if error is None:
                    export_jsonl(snapshot, out, jobs=jobs, on_error="skip")
                else:
                    with pytest.raises(error):
                        export_jsonl(snapshot, out, jobs=jobs, on_error="skip")
            lines.append((tmp_path / "out.jsonl").read_bytes())
        assert lines[0] == lines[1]
        assert lines[0].count(b"\n") > 600
    damaged.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert as_one(damaged, tmp_path, target="redis-6.0", on_error="skip").written == 606


@pytest.mark.parametrize("packed", [False, True])
def test_data_of_modules_outside_of_keys_is_told(tmp_path: Path, packed: bool) -> None:
    """Larger than a block, and than a piece."""
    rows = [key(b"k%d" % i, 0, string(b"v" * 40)) for i in range(100)]
    data = b"\xf7\x81" + bytes([1, 2, 3, 4, 5, 6, 7, 1]) + b"\2\2" + b"\5" + string(b"x" * 5000) + b"\0"
    path = tmp_path / "source.rdb"
    content = rdb(b"\xfe\0\xfb" + length(100) + b"\0", *rows[:50], data, *rows[50:], data, magic=b"REDIS0011")
    path.write_bytes(gzip.compress(content) if packed else content)
    for policies in (rdbkit.Policies(module="keep"), rdbkit.Policies(loss="drop")):
        report = as_one(path, tmp_path, target="redis-7.2", policies=policies)
        assert redacted(path, tmp_path).dropped == {"module-aux": 2}
        assert report.written == 100
        assert report.ledger.counts == ({} if policies.module else {"module-aux": 2})
    lines = []
    for jobs in (1, 2):
        out = io.BytesIO()
        with rdbkit.open(path) as snapshot:
            assert export_jsonl(snapshot, out, jobs=jobs).written == 100
        lines.append(out.getvalue())
    assert lines[0] == lines[1]
    assert verify(path, deep=True, jobs=1).to_dict() == verify(path, deep=True, jobs=2).to_dict()

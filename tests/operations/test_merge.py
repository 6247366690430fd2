"""`rdbkit merge`: one valid file that has what its sources have, every key once."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rdbkit
from rdbkit.operations.diff import diff
from rdbkit.operations.duplicates import DuplicateError
from rdbkit.operations.merge import Merge, merge
from rdbkit.operations.split import Division, split
from rdbkit.passes.hashes import NameHashes

from .. import command_line
from ..rdb import CRC, DUMPS, FIXTURES, aux, each_dump, key, length, rdb, string
from .test_split import LAYOUTS, NAMES, content

NOW = 1_800_000_000_000


def merged(files: list[str], tmp_path: Path, **options: Any) -> tuple[Merge, Path]:
    out = tmp_path / "merged.rdb"
    return merge(files, out, now_ms=NOW, force=True, **options), out


def values(path: str | Path) -> list[tuple[Any, ...]]:
    """Every key with its value, whatever its encoding."""
    with rdbkit.open(path) as snapshot:
        return sorted(((r.db, r.key, r.type, r.expire_ms, repr(r.value)) for r in snapshot), key=repr)


def write(path: Path, *parts: bytes, magic: bytes = b"REDIS0009") -> str:
    path.write_bytes(rdb(*parts, magic=magic))
    return str(path)


@pytest.mark.parametrize("layout", LAYOUTS, ids=NAMES)
@pytest.mark.parametrize("path", each_dump())
def test_what_was_split_comes_together(path: Path, layout: Division, tmp_path: Path) -> None:
    done = split([str(path)], str(tmp_path / "parts"), layout)
    files = [str(tmp_path / "parts" / part.file) for part in done.parts]
    with rdbkit.open(path) as source:
        header, fields, libraries = source.header, source.aux, source.functions
    report, out = merged(files, tmp_path)
    assert sorted(map(repr, content(out))) == sorted(map(repr, content(path)))
    assert diff(str(path), str(out)).same
    assert report.keys == done.keys == sum(keys for _, keys in report.sources)
    data = out.read_bytes()
    if header.version >= 5:
        assert data[-8:] == CRC.calc(data[:-8]).to_bytes(8, "little")
    with rdbkit.open(out) as snapshot:
        assert snapshot.header == header
        assert snapshot.aux.keys() >= {k for k in fields if not k.startswith(("repl-", "keydb"))}
        assert [f.source for f in snapshot.functions] == [f.source for f in libraries]
        events = list(snapshot.events())
    selected = [e.db for e in events if isinstance(e, rdbkit.SelectDb)]
    assert len(selected) == len(set(selected)) == len(report.written)
    if header.version >= 7:
        sizes = [e.keys for e in events if isinstance(e, rdbkit.ResizeDb)]
        assert sizes == [report.written[db] for db in selected]


def test_databases_stand_one_after_the_other(tmp_path: Path) -> None:
    def db(number: int, *names: bytes) -> bytes:
        return b"\xfe" + length(number) + b"".join(key(n, 0, string(n * 3), 1 << 45) for n in names)

    files = [
        write(tmp_path / "a.rdb", db(1, b"a", b"b"), db(0, b"c"), db(1, b"x")),
        write(tmp_path / "b.rdb", db(0, b"d"), db(5, b"e"), db(1, b"f")),
    ]
    report, out = merged(files, tmp_path)
    found = [(row[0], row[1]) for row in content(out)]
    assert found == [(1, b"a"), (1, b"b"), (1, b"x"), (1, b"f"), (0, b"c"), (0, b"d"), (5, b"e")]
    assert report.written == {1: 4, 0: 2, 5: 1}


def test_fields_of_the_sources_are_merged(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "a.rdb", aux(b"redis-ver", b"6.0"), aux(b"used-mem", b"100"), aux(b"ctime", b"17"), aux(b"repl-id", b"x")),
        write(tmp_path / "b.rdb", aux(b"redis-ver", b"6.2"), aux(b"used-mem", b"50"), aux(b"ctime", b"9"), aux(b"more", b"y")),
    ]
    _, out = merged(files, tmp_path)
    with rdbkit.open(out) as snapshot:
        assert snapshot.aux == {"redis-ver": "6.0", "used-mem": "150", "ctime": "17", "more": "y"}


def library(name: str, code: str) -> bytes:
    return b"\xf5" + string(f"#!lua name={name}\n{code}".encode())


def test_scripts_are_merged(tmp_path: Path) -> None:
    """Redis 4.0 to 6.2 has a field called lua for each."""
    files = [
        write(tmp_path / "a.rdb", aux(b"redis-ver", b"6.2"), aux(b"lua", b"return 1"), aux(b"lua", b"return 2")),
        write(tmp_path / "b.rdb", aux(b"lua", b"return 3"), aux(b"lua", b"return 1"), key(b"k", 0, string(b"v"))),
    ]
    _, out = merged(files, tmp_path)
    with rdbkit.open(out) as snapshot:
        found = [event.value for event in snapshot.events() if isinstance(event, rdbkit.Aux) and event.key == b"lua"]
    assert found == [b"return 1", b"return 2", b"return 3"]


def test_functions_are_merged(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "a.rdb", library("one", "x"), library("two", "x"), magic=b"REDIS0011"),
        write(tmp_path / "b.rdb", library("two", "x"), library("three", "x"), magic=b"REDIS0010"),
        write(tmp_path / "c.rdb", library("one", "y"), magic=b"REDIS0011"),
    ]
    _, out = merged(files[:2], tmp_path)
    with rdbkit.open(out) as snapshot:
        assert snapshot.header.version == 11
        assert [f.name for f in snapshot.functions] == ["one", "two", "three"]
    with pytest.raises(DuplicateError, match="different function libraries are called 'one'"):
        merged(files, tmp_path)
    for policy, code in (("first", "x"), ("last", "y")):
        _, out = merged(files, tmp_path, on_function=policy)
        with rdbkit.open(out) as snapshot:
            assert sorted(f.name for f in snapshot.functions) == ["one", "three", "two"]
            assert next(f.source for f in snapshot.functions if f.name == "one").endswith(f"\n{code}".encode())


def test_a_library_that_is_left_out_is_told(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "a.rdb", library("one", "x"), library("two", "x"), magic=b"REDIS0011"),
        write(tmp_path / "b.rdb", library("one", "x"), library("two", "x"), magic=b"REDIS0011"),
        write(tmp_path / "c.rdb", library("one", "y"), magic=b"REDIS0011"),
    ]
    out = tmp_path / "out.rdb"
    made = run(*files, "-o", out, "--on-function-conflict", "first", "--ledger", tmp_path / "ledger", "--json")
    assert made.returncode == 0
    line = f"different function libraries are called one: that of {files[0]} is kept, that of {files[2]} left out"
    assert made.stderr == f"rdbkit: {line}\n"
    assert json.loads(made.stdout)["function_conflicts"] == [{"name": "one", "kept": files[0], "left_out": [files[2]]}]
    assert [json.loads(line)["kind"] for line in (tmp_path / "ledger").read_text().splitlines()] == ["duplicate"]
    last = run(*files, "-o", out, "--on-function-conflict", "last", "--force")
    assert last.returncode == 0
    assert f"that of {files[2]} is kept, that of {files[0]}, {files[1]} left out" in last.stderr
    same = run(*files[:2], "-o", out, "--on-function-conflict", "last", "--force")
    assert (same.returncode, same.stderr) == (0, "")
    refused = run(*files, "-o", out, "--force")
    assert refused.returncode == 1
    assert f"are called 'one', in {files[0]} and {files[2]}; nothing was written. --on-function-conflict" in refused.stderr


def test_a_library_is_the_same_however_it_is_stored(tmp_path: Path) -> None:
    """A server compresses its code or not; the file of a release candidate has it in another form."""
    code = b"#!lua name=one\n" + b"a" * 60
    packed = b"\xf5\xc3" + length(20) + length(len(code)) + b"\x0f" + code[:16] + b"\xe0\x32\x00"
    assert rdbkit.open(io.BytesIO(rdb(packed, magic=b"REDIS0010"))).functions[0].code == code
    files = [
        write(tmp_path / "a.rdb", b"\xf5" + string(code), magic=b"REDIS0010"),
        write(tmp_path / "b.rdb", packed, magic=b"REDIS0010"),
    ]
    report, out = merged(files, tmp_path)
    assert report.function_conflicts == []
    with rdbkit.open(out) as snapshot:
        assert [f.code for f in snapshot.functions] == [code]


def test_versions_and_flavours(tmp_path: Path) -> None:
    paths = [FIXTURES / "random" / f"{name}.rdb" for name in ("redis-6.0.16", "redis-7.0.15")]
    prefixed = []
    for number, path in enumerate(paths):
        rdbkit.convert(
            path, tmp_path / f"{number}.rdb", target="rdb-12", edits=rdbkit.Edits(rename_prefix=((b"user", b"%d" % number),))
        )
        prefixed.append(str(path))
    with pytest.raises(ValueError, match="sources of Redis and of Valkey"):
        merged([prefixed[0], str(FIXTURES / "random" / "valkey-9.1.2.rdb")], tmp_path)
    found = [DUMP for DUMP in DUMPS if DUMP.name in ("redis-3.2.13.rdb", "valkey-9.1.2.rdb") and DUMP.parent.name == "rich"]
    report, out = merged(
        [str(p) for p in found], tmp_path, target="redis-7.2", on_duplicate="first", policies=rdbkit.Policies(loss="drop")
    )
    assert str(report.header) == "REDIS0011"
    assert report.duplicates > 0
    names = [(row[0], row[1]) for row in content(out)]
    assert len(names) == len(set(names)) == report.keys


def test_losses_of_all_sources_are_told(tmp_path: Path) -> None:
    files = [
        write(tmp_path / f"{name}.rdb", key(name.encode(), 22 if name == "a" else 24, value), magic=b"REDIS0012")
        for name, value in (
            ("a", b"\x01\x81" + (1 << 45).to_bytes(8, "big") + string(b"f") + string(b"v")),
            ("b", (1 << 45).to_bytes(8, "little") + b"\x01\x01" + string(b"f") + string(b"v")),
        )
    ]
    out = tmp_path / "out.rdb"
    with pytest.raises(rdbkit.LossError) as caught:
        merge(files, out, target="redis-7.0", now_ms=NOW)
    assert {loss.key for loss in caught.value.report.ledger.losses} == {b"a", b"b"}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.rdb", "b.rdb"]
    report = merge(files, out, target="redis-7.0", now_ms=NOW, policies=rdbkit.Policies(field_ttl="drop-ttl"))
    assert report.keys == 2


# -- keys that are there more than once


def twice(tmp_path: Path) -> list[str]:
    return [
        write(tmp_path / "a.rdb", key(b"k", 0, string(b"first"), 1 << 45), key(b"only", 0, string(b"a"))),
        write(tmp_path / "b.rdb", key(b"k", 0, string(b"second"), 1 << 46), b"\xfe\x01", key(b"k", 0, string(b"other db"))),
        write(tmp_path / "c.rdb", key(b"k", 0, string(b"third"), 1 << 44), key(b"j", 0, string(b"c"))),
    ]


@pytest.mark.parametrize(("policy", "kept"), [("first", "first"), ("last", "third"), ("latest-expiry", "second")])
def test_one_of_several_is_kept(tmp_path: Path, policy: Any, kept: str) -> None:
    files = twice(tmp_path)
    report, out = merged(files, tmp_path, on_duplicate=policy)
    assert {(row[0], row[1]): row[4] for row in values(out)} == {
        (0, b"k"): repr(kept.encode()), (0, b"only"): repr(b"a"), (1, b"k"): repr(b"other db"), (0, b"j"): repr(b"c"),
    }  # fmt: skip
    assert (report.duplicates, report.left_out) == (1, 2)
    assert [(d.db, d.key, [os.path.basename(name) for name, _ in d.places]) for d in report.samples] == [
        (0, b"k", ["a.rdb", "b.rdb", "c.rdb"])
    ]
    for name, offset in report.samples[0].places:
        with rdbkit.open(name) as snapshot:
            assert next(r.key for r in snapshot if r.offset == offset) == b"k"


def test_a_key_that_never_expires_outlives_all_others(tmp_path: Path) -> None:
    files = [
        write(tmp_path / "a.rdb", key(b"k", 0, string(b"mortal"), 1 << 60)),
        write(tmp_path / "b.rdb", key(b"k", 0, string(b"not"))),
    ]
    _, out = merged(files, tmp_path, on_duplicate="latest-expiry")
    assert values(out)[0][4] == repr(b"not")


def test_several_of_one_name_are_refused(tmp_path: Path) -> None:
    files = twice(tmp_path)
    out = tmp_path / "out.rdb"
    with pytest.raises(DuplicateError, match=r"more than once, in .*a\.rdb at byte 9 and .*b\.rdb at byte 9") as caught:
        merge(files, out)
    assert caught.value.key == b"k"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.rdb", "b.rdb", "c.rdb"]
    report, out = merged(files, tmp_path, on_duplicate="keep-all-error-list")
    assert report.keys == 6
    assert report.duplicates == 1


def test_names_beyond_memory() -> None:
    """Hashes that went to the disk are compared with those that did not."""
    names = NameHashes()
    for i in range(1000):
        names.add(0, b"name %d" % i)
        if i % 100 == 50:
            names.partitions.spill()
    assert not names.any_twice()
    names.add(1, b"name 7")
    assert not names.any_twice()
    names.add(0, b"name 7")
    assert names.any_twice()
    names.partitions.close()


def test_names_on_the_disk_take_one_file() -> None:
    """Where a process may have few files open, as on macOS."""
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (32, 32))\n"
        "from rdbkit.passes.hashes import NameLog\n"
        "log = NameLog()\n"
        "for number in range(80_000):\n"
        "    log.add(0, b'%d' % (number % 79_999), number)\n"
        "    if number % 20_000 == 19_999: log.partitions.spill()\n"
        "print(list(log.repeated()), log.on_disk() > 1 << 20)"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert made.stdout == "[[0, 79999]] True\n", made.stderr


def test_the_same_file_twice(tmp_path: Path) -> None:
    file = write(tmp_path / "a.rdb", key(b"k", 0, string(b"v")))
    os.link(file, tmp_path / "link.rdb")
    with pytest.raises(ValueError, match="are the same file"):
        merge([file, str(tmp_path / "link.rdb")], tmp_path / "out.rdb")
    with pytest.raises(ValueError, match="is one of the files to be read"):
        merge([file], file, force=True)
    with pytest.raises(ValueError, match="nothing to merge"):
        merge([], tmp_path / "out.rdb")


def test_a_file_of_an_option_is_its_own(tmp_path: Path) -> None:
    """Nothing that is read or written is replaced by a list of losses."""
    a = write(tmp_path / "a", key(b"a", 0, string(b"v")))
    b = write(tmp_path / "b", key(b"b", 0, string(b"v")))
    os.link(a, tmp_path / "hard")
    os.symlink(b, tmp_path / "soft")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    out, new = tmp_path / "out", tmp_path / "new"
    wrong: list[tuple[list[str | Path], str]] = [
        (["--ledger", a], "--ledger and FILE are the same file"),
        (["--ledger", tmp_path / "hard"], "--ledger and FILE are the same file"),
        (["--ledger", tmp_path / "soft"], "--ledger and FILE are the same file"),
        (["--ledger", out], "--ledger and --output are the same file"),
        (["--ledger", tmp_path / "." / "x" / ".." / "out"], "--ledger and --output are the same file"),
        (["--ledger", "-"], "it takes the name of a file"),
        (["--on-function", f"extract={b}"], "--on-function extract and FILE are the same file"),
        (["--on-function", f"extract={out}"], "--on-function extract and --output are the same file"),
        (["--on-function", f"extract={new}", "--ledger", new], "--ledger and --on-function extract are the same file"),
    ]
    for options, words in wrong:
        for force in ([], ["--force"]):
            made = run(a, b, "-o", out, *options, *force)
            assert made.returncode == 2
            assert words in made.stderr or "says rdb, and" in made.stderr
            assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    convert = ["convert", a, str(out), "--target", "redis-7.0", "--ledger", str(tmp_path / "hard"), "--force"]
    made = subprocess.run([sys.executable, "-m", "rdbkit", *convert], capture_output=True, text=True)
    assert made.returncode == 2
    assert "--ledger and FILE are the same file" in made.stderr
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_what_is_no_file_is_told_before_any_work(tmp_path: Path) -> None:
    """A source is read more than once, which a pipe cannot be."""
    a = write(tmp_path / "a.rdb", key(b"a", 0, string(b"v")))
    os.mkfifo(tmp_path / "pipe")
    for name, what in ((tmp_path / "pipe", str(tmp_path / "pipe")), ("-", "standard input")):
        made = run(a, name, "-o", tmp_path / "out.rdb")
        assert made.returncode == 2
        assert f"{what}: it is read several times, and has to be a file" in made.stderr
    made = run(a, tmp_path / "nothing.rdb", "-o", tmp_path / "out.rdb")
    assert (made.returncode, made.stderr) == (3, f"rdbkit: {tmp_path / 'nothing.rdb'}: No such file or directory\n")


def test_a_file_that_exists_is_told_before_keys_are_read(tmp_path: Path) -> None:
    a = tmp_path / "a.rdb"
    a.write_bytes(rdb(key(b"a", 0, string(b"v")))[:-10])  # damaged, which is not found out
    (tmp_path / "out.rdb").write_text("mine")
    with pytest.raises(FileExistsError):
        merge([str(a)], tmp_path / "out.rdb", on_duplicate="first")


def test_nothing_stays_of_a_merge_that_fails(tmp_path: Path) -> None:
    good = write(tmp_path / "a.rdb", *(key(b"k%d" % i, 0, string(b"v" * 99)) for i in range(1000)))
    bad = tmp_path / "b.rdb"
    whole = rdb(*(key(b"j%d" % i, 0, string(b"v" * 99)) for i in range(1000)))
    for data in (whole[:-30], whole[:-1] + b"x", b"", b"text"):
        bad.write_bytes(data)
        with pytest.raises(rdbkit.RdbError):
            merge([good, str(bad)], tmp_path / "out.rdb")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["a.rdb", "b.rdb"]


def test_giant_keys_of_several_databases(tmp_path: Path) -> None:
    giant = string(random.Random(1).randbytes(3 << 20))
    files = [
        write(tmp_path / f"{n}.rdb", key(b"s%d" % n, 0, giant), b"\xfe\x02", key(b"g%d" % n, 0, giant, 1 << 50)) for n in range(2)
    ]
    report, out = merged(files, tmp_path)
    assert report.written == {0: 2, 2: 2}
    with rdbkit.open(out) as snapshot:
        assert [(r.db, r.key, r.expire_ms, r.raw == giant) for r in snapshot] == [
            (0, b"s0", None, True), (0, b"s1", None, True), (2, b"g0", 1 << 50, True), (2, b"g1", 1 << 50, True),
        ]  # fmt: skip


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=3), st.binary(max_size=50), st.integers(0, 2)), max_size=30),
    st.sampled_from(["first", "last"]),
)
def test_any_keys_of_any_files(
    tmp_path_factory: pytest.TempPathFactory, keys: list[tuple[int, bytes, bytes, int]], policy: Any
) -> None:
    folder = tmp_path_factory.mktemp("any")
    files = []
    for number in range(3):
        parts = [b"\xfe" + length(db) + key(name, 0, string(value)) for db, name, value, file in keys if file == number]
        files.append(write(folder / f"{number}.rdb", *parts))
    wanted: dict[tuple[int, bytes], bytes] = {}
    for db, name, value, _ in sorted(keys, key=lambda k: k[3]):
        if policy == "last" or (db, name) not in wanted:
            wanted[db, name] = value
    report = merge(files, folder / "out.rdb", on_duplicate=policy)
    assert {(row[0], row[1]): row[4] for row in values(folder / "out.rdb")} == {k: repr(v) for k, v in wanted.items()}
    assert report.keys == len(wanted)
    out = io.BytesIO()
    if len(wanted) == len(keys):
        assert merge(files, out).keys == len(keys)
    else:
        with pytest.raises(DuplicateError):
            merge(files, out)


def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return command_line.run_text("merge", *args)


def test_the_command(tmp_path: Path) -> None:
    files = twice(tmp_path)
    out = tmp_path / "out.rdb"
    refused = run(*files, "-o", out)
    assert refused.returncode == 1
    assert "rdbkit: more than once: db 0, key k: " in refused.stderr
    assert "--on-duplicate" in refused.stderr
    assert not out.exists()
    made = run(*files, "-o", out, "--on-duplicate", "last")
    assert made.returncode == 0
    assert "4 keys written, 2 keys left out" in made.stdout
    assert "1 name there more than once" in made.stdout
    unnamed = run(*files, "-o", tmp_path / "other.rdb", "--samples", "0")
    assert unnamed.returncode == 1
    assert unnamed.stderr.startswith("rdbkit: a key is there more than once, in ")
    assert len(unnamed.stderr.splitlines()) == 1
    kept = run(*files, "-o", tmp_path / "other.rdb", "--samples", "0", "--on-duplicate", "first")
    assert (kept.returncode, kept.stderr) == (0, "")
    fine = run(files[0], "-o", out, "--json", "--force")
    assert fine.returncode == 0
    said = json.loads(fine.stdout)
    assert said["keys"] == 2
    assert said["databases"] == {"0": 2}
    assert run(files[0], "-o", out).returncode == 2  # it exists
    assert run(files[0], "-o", files[0], "--force").returncode == 2
    assert run(out).returncode == 2
    older = run(FIXTURES / "rich" / "redis-7.0.15.rdb", "-o", tmp_path / "old.rdb", "--target", "azure-premium")
    assert older.returncode == 1
    assert "would be lost: function" in older.stderr
    piped = subprocess.run([sys.executable, "-m", "rdbkit", "merge", files[0], "-o", "-"], capture_output=True)
    assert piped.returncode == 0
    assert piped.stderr.startswith(b"standard output: REDIS0009 of 1 file\n")
    assert [row[1] for row in content(out)] == [r.key for r in rdbkit.open(io.BytesIO(piped.stdout))]


def test_thousands_are_set_apart(tmp_path: Path) -> None:
    files = [
        write(tmp_path / f"{n}.rdb", *(key(b"%d:%d" % (n, i), 0, string(b"v")) for i in range(600)), key(b"k", 0, string(b"v")))
        for n in range(2)
    ]
    assert "1,201 keys written, 1 key left out" in run(*files, "-o", tmp_path / "out.rdb", "--on-duplicate", "first").stdout


def test_the_room_on_the_disk_is_told(tmp_path: Path) -> None:
    """Keys of another database wait there."""
    names = []
    for number in range(2):
        names.append(str(tmp_path / f"{number}.rdb"))
        with rdbkit.create(names[-1], version=11) as writer:
            for db in (0, 5):
                writer.put(b"key:%d" % number, b"x" * 1000, db=db)
    report = merge(names, tmp_path / "out.rdb")
    assert 2000 < report.disk_bytes < 2100
    assert merge(names[:1], tmp_path / "one.rdb").disk_bytes > 1000


def test_no_file_of_libraries_is_left_where_nothing_is_written(tmp_path: Path) -> None:
    first, second, code = tmp_path / "a.rdb", tmp_path / "b.rdb", tmp_path / "code.lua"
    for path in (first, second):
        path.write_bytes(rdb(key(b"k", 0, string(b"v"))))
    made = run(first, second, "-o", tmp_path / "out.rdb", "--on-function", f"extract={code}")
    assert made.returncode == 1
    assert "more than once" in made.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.rdb", "b.rdb"]

"""What `fold` says before a server is started, and where there is none."""

from __future__ import annotations

import gzip
import io
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import rdbkit
from rdbkit.operations import fold_server
from rdbkit.operations.fold import refusals
from rdbkit.operations.fold_server import Log, binaries

from ..rdb import FIXTURES

FOLDER = FIXTURES / "aof" / "appendonlydir"
PREAMBLE = FIXTURES / "aof" / "preamble-tail.aof"
#: Begins an append-only file of its writer; another one stands for VALKEY080.
OF_REDIS_8 = FIXTURES / "rich" / "redis-8.0.6.rdb"
OF_VALKEY_9 = FIXTURES / "rich" / "valkey-9.1.2.rdb"

Server = Callable[[str], Path]


@pytest.fixture
def server(tmp_path: Path) -> Server:
    """Makes a program that says its version and ends."""

    def make(version: str) -> Path:
        path = tmp_path / "bin" / f"{len(list(tmp_path.glob('bin/*')))}-server"
        path.parent.mkdir(exist_ok=True)
        lines = [f'[ "$1" = --version ] && echo "{version} sha=0:0" && exit', 'echo "1:M 30 Nov 2026 10:02:18.787 # no"']
        path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
        path.chmod(0o755)
        return path

    return make


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A PATH without servers, and no packages that have one."""
    path = tmp_path / "path"
    path.mkdir()
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.setattr(fold_server, "_PACKAGES", ())
    return path


def folder_that_begins_with(base: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    (folder / "appendonly.aof.1.base.rdb").write_bytes(base.read_bytes())
    (folder / "appendonly.aof.1.incr.aof").write_bytes(b"")
    (folder / "appendonly.aof.manifest").write_text(
        "file appendonly.aof.1.base.rdb seq 1 type b\nfile appendonly.aof.1.incr.aof seq 1 type i\n"
    )
    return folder


@pytest.mark.usefixtures("nowhere")
def test_without_a_server(tmp_path: Path) -> None:
    with pytest.raises(rdbkit.TargetError) as e:
        rdbkit.fold(FOLDER, tmp_path / "out.rdb")
    assert str(e.value) == (
        f"{FOLDER}: an append-only file is folded by a server, and there is none: install redis-server or valkey-server, name one "
        "with --server PATH, or pip install 'rdbkit[server]'"
    )
    assert list(tmp_path.glob("*.rdb")) == []


@pytest.mark.parametrize(
    ("version", "base", "why"),
    [
        ("Redis server v=6.0.16", None, "servers before 6.2 do not say which commands they have not carried out"),
        ("Redis server v=6.2.14", None, "append-only folders need Redis 7.0 or later, or Valkey"),
        ("Redis server v=7.0.15", OF_REDIS_8, "Redis 8.0.6 wrote it, and a server at least as new has to load it"),
        ("Valkey server v=9.1.2", OF_REDIS_8, "it begins with RDB 12, which needs a newer Redis"),
        ("Redis server v=8.0.6", OF_VALKEY_9, "it begins with VALKEY080, which needs Valkey 9.0 or later"),
        ("Valkey server v=8.1.1", OF_VALKEY_9, "Valkey 9.1.2 wrote it, and a server at least as new has to load it"),
    ],
)
def test_a_server_that_cannot_load_it(version: str, base: Path | None, why: str, server: Server, tmp_path: Path) -> None:
    folder = FOLDER if base is None else folder_that_begins_with(base, tmp_path)
    with pytest.raises(rdbkit.TargetError) as e:
        rdbkit.fold(folder, tmp_path / "out.rdb", server=server(version))
    product, number = version.split(" server v=")
    assert f"{product} {number} (" in str(e.value)
    assert str(e.value).endswith(f"cannot load {folder}: {why}")


def test_a_server_that_ends_at_once(server: Server, tmp_path: Path) -> None:
    with pytest.raises(rdbkit.TargetError) as e:
        rdbkit.fold(FOLDER, tmp_path / "out.rdb", server=server("Redis server v=8.9.0"))
    assert str(e.value) == f"{FOLDER}: Redis 8.9.0 does not load it: no"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bin"]


def test_what_is_no_server(tmp_path: Path) -> None:
    endless = tmp_path / "endless"
    endless.write_text("#!/bin/sh\nyes &\nyes\n")
    endless.chmod(0o755)
    for path, why in (
        (str(endless), "it does not say that it is a Redis or Valkey server"),
        ("/bin/echo", "it does not say that it is a Redis or Valkey server"),
        (str(tmp_path / "no"), "no program that can be run"),
    ):
        with pytest.raises(rdbkit.TargetError) as e:
            rdbkit.fold(FOLDER, tmp_path / "out.rdb", server=path)
        assert str(e.value) == f"{path}: {why}"


def test_a_program_that_never_says_its_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "server"
    path.write_text("#!/bin/sh\nsleep 1000000\n")
    path.chmod(0o755)
    monkeypatch.setattr(fold_server, "_VERSION_S", 0.2)
    with pytest.raises(rdbkit.TargetError, match="it does not say"):
        rdbkit.fold(FOLDER, tmp_path / "out.rdb", server=path)


def test_servers_are_looked_for_in_an_order(nowhere: Path, server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert list(binaries()) == []
    os.symlink(server("Valkey server v=9.1.2"), nowhere / "valkey-server")
    os.symlink(server("Redis server v=7.0.15"), nowhere / "redis-server")
    package = tmp_path / "lib" / "embedded"
    (package / "bin").mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    os.symlink(server("Redict server v=7.3.6"), package / "bin" / "redis-server")
    monkeypatch.syspath_prepend(str(package.parent))
    monkeypatch.setattr(fold_server, "_PACKAGES", (("no_such_package", "bin", "x"), ("embedded", "bin", "redis-server")))
    assert list(map(str, binaries())) == ["Redis 7.0.15", "Valkey 9.1.2", "Redict 7.3.6"]
    (nowhere / "redis-server").unlink()
    (nowhere / "redis-server").write_text("#!/bin/sh\nexit 1\n")
    (nowhere / "redis-server").chmod(0o755)
    assert list(map(str, binaries())) == ["Valkey 9.1.2", "Redict 7.3.6"]


def test_what_is_no_append_only_file(tmp_path: Path) -> None:
    for path, why in (
        (FIXTURES, "no append-only folder: it has no file *.manifest"),
        (OF_REDIS_8, "no append-only file: it is a snapshot, and no commands follow it"),
    ):
        with pytest.raises(rdbkit.CorruptError) as e:
            rdbkit.fold(path, tmp_path / "out.rdb")
        assert str(e.value) == f"{path}: {why}"
    with pytest.raises(FileNotFoundError):
        rdbkit.fold(tmp_path / "nothing", tmp_path / "out.rdb")
    with pytest.raises(ValueError, match="on_error is stop or skip, not 'go on'"):
        rdbkit.fold(FOLDER, tmp_path / "out.rdb", on_error="go on")


@pytest.mark.skipif(sys.platform != "linux", reason="it needs /proc")
def test_a_folder_that_takes_no_files(server: Server) -> None:
    with pytest.raises(FileNotFoundError) as e:
        rdbkit.fold(PREAMBLE, "/proc/out.rdb", server=server("Redis server v=8.0.6"))
    assert e.value.filename == "/proc"


def test_a_compressed_file_that_is_cut(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "cut.aof.gz"
    path.write_bytes(gzip.compress(b"*1\r\n$4\r\nPING\r\n" * 9)[:-9])
    with pytest.raises(rdbkit.TruncatedError) as e:
        rdbkit.fold(path, tmp_path / "out.rdb", server=server("Redis server v=8.0.6"))
    assert e.value.source == str(path)


def test_an_output_that_cannot_be_is_told_before_the_work(tmp_path: Path) -> None:
    there = tmp_path / "there.rdb"
    there.write_bytes(b"x")
    with pytest.raises(FileExistsError):
        rdbkit.fold(PREAMBLE, there, server="/bin/echo")
    with pytest.raises(IsADirectoryError):
        rdbkit.fold(PREAMBLE, tmp_path, server="/bin/echo")
    with pytest.raises(FileNotFoundError) as e:
        rdbkit.fold(PREAMBLE, tmp_path / "no" / "out.rdb", server="/bin/echo")
    assert e.value.filename == str(tmp_path / "no" / "out.rdb")


def test_what_a_log_says() -> None:
    refused = b"== CRITICAL == This server is sending an error to its AOF-loading-client: '-WRONGTYPE Operation' after processing"
    lines = [
        b"21:M 30 Nov 2026 10:02:18.787 * Server initialized",
        b"21:M 30 Nov 2026 10:02:18.793 # " + refused + b" the command 'lpush'",
        b"21:M 30 Nov 2026 10:02:18.793 # Bad file format reading the append only file a.aof: make a backup of your AOF file",
        b"x" * 10_000,
    ]
    log = Log()
    log.read(io.BytesIO(b"\n".join(lines)))
    assert (log.refused, log.refusals) == (1, [("lpush", "WRONGTYPE Operation")])
    assert log.reason() == "Bad file format reading the append only file a.aof"
    log.read(io.BytesIO(b"21:M 30 Nov 2026 10:02:18.793 # Redis 7.0.15 crashed by signal: 11, si_code: 1\n1:M # more"))
    assert log.reason() == "it crashed by signal: 11"
    log = Log()
    log.read(
        io.BytesIO(
            b"1:M 30 Nov 2026 10:02:18.793 # === ASSERTION FAILED ===\n1:M 30 Nov 2026 10:02:18.793 # ==> aof.c:1 '(a)' is not true"
        )
    )
    assert log.reason() == "it crashed: aof.c:1 '(a)' is not true"
    assert Log().reason() == "it says nothing"
    assert all(len(line) <= 4096 for line in log.last)


def test_a_refusal_that_is_too_long_for_a_line() -> None:
    log = Log()
    log.read(
        io.BytesIO(
            b"21:M 30 Nov 2026 10:02:18.793 # == CRITICAL == This server is sending an error to its AOF-client: '-ERR " + b"x" * 900
        )
    )
    assert (log.refused, log.refusals) == (1, [("", "ERR " + "x" * 900)])
    report = rdbkit.Fold("a", ["a"], 1, "Redis 7.0.15", refused=1, refusals=log.refusals)
    assert refusals(report).startswith("Redis 7.0.15 did not carry out 1 command; the first: ERR xxx")
    report.refusals = []  # a server that only counts
    assert refusals(report) == "Redis 7.0.15 did not carry out 1 command"


def test_a_database_that_is_chosen_late_and_is_not_there() -> None:
    said = b"1:M 30 Nov 2026 10:02:18.793 # == CRITICAL == This server is sending an error to its AOF-client: '-%s'"
    said += b" after processing the command '%s'\n"
    log = Log()
    log.read(io.BytesIO(said % (b"WRONGTYPE", b"lpush") * 10))
    assert not log.lost_database
    log.read(io.BytesIO(said % (b"ERR DB index is out of range", b"exec")))
    assert log.lost_database


def test_the_program_need_not_be_on_the_path(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = server("Valkey server v=9.1.2")
    assert path.stat().st_mode & stat.S_IXUSR
    (found,) = binaries(os.path.relpath(path))
    assert found.path == str(path)

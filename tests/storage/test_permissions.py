"""Who may read what is written: nobody who may not read what it was made of. And what a killed run leaves."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import rdbkit
from rdbkit.azure.pending_operation import PendingOperation
from rdbkit.cli import cli
from rdbkit.live.verify_import import _State
from rdbkit.storage import temporary
from rdbkit.storage.output import open_output
from rdbkit.storage.temporary import PRIVATE, Permissions, Temporary, make_folders

from ..processes import GUARD, until
from ..rdb import FIXTURES, key, rdb, string

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="permissions of another kind")

DUMP = FIXTURES / "rich" / "redis-7.0.15.rdb"

#: What writes files: arguments with {s} for the source and {t} for the second one.
COMMANDS = {
    "convert": "convert {s} out.rdb --target redis-7.2",
    "convert .gz": "convert {s} out.rdb.gz --target redis-7.2",
    "convert --ledger": "convert {s} out.rdb --target redis-5.0 --on-loss drop --ledger ledger.jsonl",
    "convert extract": "convert {s} out.rdb --target redis-6.2 --on-loss drop --on-function extract=functions.lua",
    "merge": "merge {t} {s} -o out.rdb --on-duplicate first --ledger ledger.jsonl",
    "split": "split {s} --by db --into parts/of/it",
    "diff .resp": "diff {t} {s} --delta out.resp",
    "diff .rdb": "diff {t} {s} --delta out.rdb",
    "salvage": "salvage {s} out.rdb --losses lost.jsonl",
    "redact": "redact {s} out.rdb",
    "export": "export {s} -o out.jsonl",
    "export resp": "export {s} --format resp -o out.resp.gz",
    "keys": "keys {s} -o out.csv",
    "memory": "memory {s} --target redis-7.2 --html out.html",
    "memory rows": "memory {s} --target redis-7.2 --format csv -o out.csv",
    "plan": "plan {t} {s} --target azure-managed --bicep out.bicep",
    "get": "get {s} str -o out.json",
}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


@contextmanager
def within(folder: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def written_by(command: str, folder: Path, source_mode: int, other_mode: int = 0o644) -> dict[str, int]:
    """The modes of all that a command has written, while it did, too."""
    source, other = folder / "source.rdb", folder / "other.rdb"
    for path, mode, dump in ((source, source_mode, DUMP), (other, other_mode, FIXTURES / "rich" / "redis-5.0.14-lru.rdb")):
        path.write_bytes(dump.read_bytes())
        path.chmod(mode)
    made = folder / "made"
    made.mkdir(exist_ok=True)
    with within(made):
        done = CliRunner().invoke(cli, command.format(s=source, t=other).split())
    assert done.exit_code in (0, 1), done.output
    assert done.exception is None or isinstance(done.exception, SystemExit)
    found = {str(path.relative_to(made)): mode_of(path) for path in sorted(made.rglob("*"))}
    assert found, done.output
    assert not any(".tmp" in name for name in found)
    return found


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("source_mode", [0o600, 0o644, 0o640, 0o604])
def test_nothing_is_more_readable_than_its_source(
    command: str, source_mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[int] = []
    real = os.open

    def opened(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        handle = real(path, flags, mode, **more)
        if flags & os.O_CREAT and str(path).startswith((str(tmp_path), ".rdbkit", "parts")):
            modes.append(stat.S_IMODE(os.fstat(handle).st_mode))
        return handle

    monkeypatch.setattr(os, "open", opened)
    found = written_by(COMMANDS[command], tmp_path, source_mode)
    assert modes
    assert {mode & ~source_mode for mode in modes} == {0}  # from the first byte on
    for name, mode in found.items():
        if (tmp_path / "made" / name).is_dir():
            assert mode == source_mode | 0o700 | (source_mode & 0o044) >> 2
        else:
            assert mode == source_mode


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("command", [name for name in COMMANDS if "{t}" in COMMANDS[name]])
def test_of_several_sources_all_count(command: str, tmp_path: Path) -> None:
    assert set(written_by(COMMANDS[command], tmp_path, 0o644, other_mode=0o600).values()) == {0o600}
    assert set(written_by(COMMANDS[command] + " --force", tmp_path, 0o604, other_mode=0o640).values()) == {0o600}


@pytest.mark.usefixtures("umask")
@pytest.mark.parametrize("existing", [0o644, 0o600, 0o640, 0o400, 0o666])
@pytest.mark.parametrize("source", [0o644, 0o600])
@pytest.mark.parametrize("command", ["convert", "export", "split", "merge"])
def test_a_file_that_is_replaced_is_as_tight_as_it_was(command: str, existing: int, source: int, tmp_path: Path) -> None:
    names = [name for name in written_by(COMMANDS[command], tmp_path, source) if not (tmp_path / "made" / name).is_dir()]
    for name in names:
        (tmp_path / "made" / name).chmod(existing)
    found = written_by(COMMANDS[command] + " --force", tmp_path, source)
    for name in names:
        assert found[name] & 0o077 == existing & source & 0o077
        assert found[name] & ~(existing | 0o200) == 0


@pytest.mark.usefixtures("umask")
def test_what_comes_from_no_file_is_private(tmp_path: Path) -> None:
    data = DUMP.read_bytes()
    rdbkit.convert(io.BytesIO(data), tmp_path / "a.rdb", target="redis-7.2")
    subprocess.run(
        [sys.executable, "-m", "rdbkit", "convert", "-", str(tmp_path / "b.rdb"), "--target", "redis-7.2"], input=data, check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    assert mode_of(tmp_path / "a.rdb") == mode_of(tmp_path / "b.rdb") == 0o600
    (tmp_path / "b.rdb").chmod(0o644)
    with (tmp_path / "b.rdb").open("rb") as file:  # standard input that is a file
        subprocess.run(
            [sys.executable, "-m", "rdbkit", "export", "-", "-o", str(tmp_path / "c.jsonl")], stdin=file, check=True
        )  # fmt: skip
    assert mode_of(tmp_path / "c.jsonl") == 0o644


@pytest.mark.usefixtures("umask")
def test_states(tmp_path: Path) -> None:
    waiting = PendingOperation(str(tmp_path / "import.json"), "import", "/subscriptions/s", [], begun=1.0)
    waiting.save()
    source = tmp_path / "s.rdb"
    source.write_bytes(DUMP.read_bytes())
    source.chmod(0o600)
    state = _State(str(tmp_path / "state.json"), {}, [str(source)])
    state.saved_at = -1e9
    state.save(dict)
    assert mode_of(tmp_path / "import.json") == mode_of(tmp_path / "state.json") == 0o600
    assert json.loads((tmp_path / "import.json").read_bytes())["verb"] == "import"


@pytest.mark.usefixtures("umask")
def test_a_damaged_gzip_is_unpacked_to_a_file_as_tight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s.rdb.gz"
    path.write_bytes(gzip.compress(DUMP.read_bytes()))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen: list[int] = []
    for mode in (0o600, 0o644):
        path.chmod(mode)
        rdbkit.salvage(
            path, tmp_path / "out.rdb", force=True,
            progress=lambda done: seen.extend(mode_of(each) for each in tmp_path.glob(".rdbkit-*")),
        )  # fmt: skip
        assert set(seen) == {mode}
        assert mode_of(tmp_path / "out.rdb") & ~mode == 0
        seen.clear()
        (tmp_path / "out.rdb").unlink()
    assert [each.name for each in tmp_path.iterdir()] == ["s.rdb.gz"]


def test_groups(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.write_bytes(b"")
    group = path.stat().st_gid
    for mode, same, another in ((0o640, 0o640, 0o600), (0o644, 0o644, 0o644), (0o604, 0o604, 0o604), (0o660, 0o660, 0o600)):
        path.chmod(mode)
        assert Permissions([path]).mode(group) == same
        assert Permissions([path]).mode(group + 1) == another
    path.chmod(0o644)
    assert Permissions([path, PRIVATE]).mode(group) == 0o600
    assert Permissions([tmp_path / "missing"]).mode(group) == 0o600
    assert Permissions(None).mode(group) == 0o666
    assert Permissions([]).folder_mode(group) == 0o777 & Permissions(None).folder_mode(group)
    assert Permissions([PRIVATE]).folder_mode(group) == 0o700


def test_an_access_list_does_not_open_a_file_to_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "s"
    path.write_bytes(b"")
    path.chmod(0o660)
    monkeypatch.setattr(os, "listxattr", lambda where: ["system.posix_acl_access"], raising=False)
    assert Permissions([path]).mode(path.stat().st_gid) == 0o600


def test_folders(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError):
        make_folders(str(tmp_path / "file" / "a"), Permissions(None))
    made = make_folders(str(tmp_path / "a" / "b"), Permissions([PRIVATE]))
    assert made == [str(tmp_path / "a" / "b"), str(tmp_path / "a")]
    assert {mode_of(Path(folder)) for folder in made} == {0o700}


# -- what a killed run leaves


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new process."""
    monkeypatch.setattr(temporary, "_cleared", set())


@contextmanager
def a_run(*arguments: str, data: bytes = b"") -> Iterator[subprocess.Popen[bytes]]:
    """A command that waits for more of standard input."""
    with subprocess.Popen(
        [sys.executable, "-m", "rdbkit", *arguments], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        assert process.stdin is not None
        process.stdin.write(data)
        process.stdin.flush()
        try:
            yield process
        finally:
            process.kill()


def temporaries(folder: Path) -> list[Path]:
    return sorted(folder.rglob(".rdbkit-*"))


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path: Path) -> None:
    data = rdb(*(key(b"k%d" % i, 0, string(b"v" * 1000)) for i in range(3000)))
    with a_run("convert", "-", str(tmp_path / "a.rdb"), "--target", "redis-7.2", data=data[:-100]) as killed:
        until(lambda: temporaries(tmp_path))
        killed.kill()
        killed.wait()
    (left,) = temporaries(tmp_path)
    with a_run("convert", "-", str(tmp_path / "b.rdb"), "--target", "redis-7.2", data=data[:-100]) as running:
        until(lambda: temporaries(tmp_path) and temporaries(tmp_path) != [left])
        (its,) = temporaries(tmp_path)  # which has removed what the killed one left
        assert its != left
        done = subprocess.run(
            [sys.executable, "-m", "rdbkit", "convert", str(DUMP), str(tmp_path / "c.rdb"), "--target", "redis-7.2"], check=True,
            capture_output=True,
        )  # fmt: skip
        assert done.stderr == b""
        assert temporaries(tmp_path) == [its]  # not that of a run that goes on
        assert running.stdin is not None
        running.stdin.write(data[-100:])
        running.stdin.close()
        assert running.wait(GUARD) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.rdb", "c.rdb"]


def test_what_a_killed_split_left(tmp_path: Path) -> None:
    """Its parts are open now and then: the lock of one file stands for all."""
    code = (
        "import sys, time, rdbkit\n"
        "def wait(done):\n    print('go', flush=True); time.sleep(600)\n"
        "rdbkit.split([sys.argv[1]], sys.argv[2], rdbkit.Division(parts=3), progress=wait)"
    )
    into = tmp_path / "parts"
    processes = []
    for number in range(2):
        process = subprocess.Popen([sys.executable, "-c", code, str(DUMP), str(into)], stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        if number == 0:
            left = temporaries(into)
            assert left
            process.kill()
            process.wait()
            assert temporaries(into) == left
        process.stdout.close()
    running = temporaries(into)
    assert running
    assert not set(running) & set(left)
    for number in range(2):
        subprocess.run(
            [sys.executable, "-m", "rdbkit", "split", str(DUMP), "--parts", "2", "--into", str(into), *["--force"] * number],
            check=True, capture_output=True,
        )  # fmt: skip
        assert temporaries(into) == running
    processes[1].kill()
    processes[1].wait()


@pytest.mark.usefixtures("fresh")
def test_only_what_is_left_is_removed(tmp_path: Path) -> None:
    names = [".rdbkit-0123456789abcdef.tmp", ".rdbkit-0123456789abcdef-7.tmp", ".rdbkit-fedcba9876543210-1.tmp"]
    others = [".rdbkit-0123.tmp", ".rdbkit-0123456789abcdef.tmp.rdb", "rdbkit-0123456789abcdef.tmp", "dump.rdb"]
    folder = ".rdbkit-1111111111111111.tmp"
    link = ".rdbkit-2222222222222222.tmp"
    for name in [*names, *others]:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / folder).mkdir()
    (tmp_path / link).symlink_to("dump.rdb")
    held = Temporary(str(tmp_path), Permissions(None))
    Path(held.beside(3)).write_bytes(b"")
    assert sorted(os.listdir(tmp_path)) == sorted(
        [*others, folder, link, os.path.basename(held.path), os.path.basename(held.beside(3))]
    )
    held.close()
    with open_output(tmp_path / "out") as out:  # once in a process
        out.write(b"x")
    assert os.path.exists(held.path)
    temporary._cleared.clear()
    with open_output(tmp_path / "out2") as out:
        out.write(b"x")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, folder, link, "out", "out2"])


def test_a_file_that_is_taken_for_left_before_it_is_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = temporary._lock
    calls = []

    def lock(handle: int, path: str) -> bool:
        calls.append(path)
        if len(calls) == 1:
            os.unlink(path)
        return real(handle, path)

    monkeypatch.setattr(temporary, "_lock", lock)
    with open_output(tmp_path / "out") as out:
        out.write(b"x")
    assert len(calls) == 2
    assert (tmp_path / "out").read_bytes() == b"x"
    assert os.listdir(tmp_path) == ["out"]

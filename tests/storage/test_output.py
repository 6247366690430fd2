"""Output files are whole or not there."""

from __future__ import annotations

import errno
import gzip
import os
import signal
import stat
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from rdbkit.cli import main
from rdbkit.passes import hashes
from rdbkit.storage.output import open_output

from ..processes import GUARD, heeding_signals, until
from ..rdb import key, rdb, string


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    with open_output(path) as out:
        out.write(b"a")
        out.flush()
        assert not path.exists()
        assert len(names(tmp_path)) == 1
        assert names(tmp_path)[0].startswith(".rdbkit-")
        out.write(b"b")
    assert path.read_bytes() == b"ab"
    assert names(tmp_path) == ["out.csv"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("name", ["out.csv", "out.csv.gz"])
@pytest.mark.parametrize("before", [None, b"old"])
def test_nothing_stays_after_an_error(tmp_path: Path, error: type[BaseException], name: str, before: bytes | None) -> None:
    path = tmp_path / name
    if before is not None:
        path.write_bytes(before)

    def write() -> None:
        with open_output(path, force=True) as out:
            out.write(b"half")
            raise error

    with pytest.raises(error):
        write()
    assert names(tmp_path) == ([] if before is None else [name])
    if before is not None:
        assert path.read_bytes() == before


def test_an_existing_file_is_replaced_only_when_forced(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_bytes(b"old")
    path.chmod(0o640)
    with pytest.raises(FileExistsError) as caught, open_output(path):
        pass
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"old"
    with open_output(path, force=True) as out:
        out.write(b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert names(tmp_path) == ["out.csv"]


@pytest.mark.parametrize("links", [True, False])
def test_a_file_that_somebody_made_meanwhile_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "out.csv"

    def write() -> None:
        with open_output(path) as out:
            out.write(b"ours")
            path.write_bytes(b"theirs")

    with pytest.raises(FileExistsError):
        write()
    assert path.read_bytes() == b"theirs"
    assert names(tmp_path) == ["out.csv"]
    path.unlink()
    with open_output(path) as out:
        out.write(b"ours")
    assert path.read_bytes() == b"ours"
    assert names(tmp_path) == ["out.csv"]


def test_permissions_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with open_output(tmp_path / "out.csv") as out:
            out.write(b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "out.csv").stat().st_mode) == 0o640


def test_gzip_by_the_name_is_the_same_each_time(tmp_path: Path) -> None:
    for name in ("one.gz", "other.gz"):
        with open_output(tmp_path / name) as out:
            out.write(b"row\n" * 1000)
    assert gzip.decompress((tmp_path / "one.gz").read_bytes()) == b"row\n" * 1000
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "other.gz").read_bytes()


def test_a_link_stays_one(tmp_path: Path) -> None:
    real, link = tmp_path / "real.csv", tmp_path / "link.csv"
    link.symlink_to(real)
    with open_output(link) as out:
        out.write(b"x")
    assert link.is_symlink()
    assert real.read_bytes() == b"x"


def test_devices_and_pipes_are_written_to_as_they_are(tmp_path: Path) -> None:
    with open_output(os.devnull) as out:
        out.write(b"x")
    assert not Path(os.devnull).is_file()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
    reader.start()
    with open_output(pipe) as out:
        out.write(b"through")
    reader.join(10)
    assert read == [b"through"]
    assert names(tmp_path) == ["pipe"]


def test_errors_name_the_file_that_was_asked_for(tmp_path: Path) -> None:
    for path in (tmp_path / "none" / "out.csv", tmp_path):
        with pytest.raises(OSError, match=f"'{path}'"), open_output(path):
            pass
    assert names(tmp_path) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"), open_output(tmp_path / "out.csv") as out:
        out.write(b"x")
    assert names(tmp_path) == []


def test_an_interrupt_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom rdbkit.storage.output import open_output\n"
        "with open_output(sys.argv[1]) as out:\n    out.write(b'x'); out.flush(); print('go', flush=True); time.sleep(600)"
    )
    command = heeding_signals([sys.executable, "-c", code, str(tmp_path / "out.csv")])
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        process.send_signal(signal.SIGINT)
        process.wait(GUARD)
    assert names(tmp_path) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
@pytest.mark.parametrize("ignored", [False, True])
def test_a_signal_leaves_nothing(tmp_path: Path, number: signal.Signals, ignored: bool) -> None:
    """The command waits for more of standard input; nohup has it ignore SIGHUP."""
    data = rdb(*(key(b"k%d" % i, 0, string(b"v" * 1000)) for i in range(3000)))
    command = [sys.executable, "-m", "rdbkit", "convert", "-", str(tmp_path / "out.rdb"), "--target", "redis-7.2"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen(heeding_signals(command, number if ignored else None), **pipes) as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(data[:-100])
        process.stdin.flush()
        until(lambda: names(tmp_path), process)
        assert names(tmp_path)[0].startswith(".rdbkit-")
        process.send_signal(number)
        if ignored:
            process.stdin.write(data[-100:])
        else:
            process.wait(GUARD)
        _, said = process.communicate(timeout=GUARD)
    assert b"Traceback" not in said
    assert process.returncode == (0 if ignored else 128 + number)
    assert names(tmp_path) == (["out.rdb"] if ignored else [])


def test_signals_are_given_back(capfd: pytest.CaptureFixture[str]) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)]
    codes = []

    def call() -> None:
        with pytest.raises(SystemExit) as caught:
            main(["--version"])
        codes.append(caught.value.code)

    call()
    thread = threading.Thread(target=call)  # where no handler can be set
    thread.start()
    thread.join(GUARD)
    assert codes == [0, 0]
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)] == before


FULL = """
import errno, io, sys, tempfile
class Full(io.BytesIO):
    def write(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")
tempfile.TemporaryFile = tempfile.NamedTemporaryFile = lambda **_: Full()
from rdbkit.passes import hashes
hashes.TemporaryFile, hashes._HELD = Full, 1000
from rdbkit.cli import main
main(sys.argv[1:])
"""


if not hashes.__file__.endswith(".so"):  # in the compiled form its numbers cannot be changed

    @pytest.mark.parametrize(
        "command", ["diff a.rdb a.rdb", "salvage a.rdb.gz out.rdb", "merge a.rdb b.rdb -o out.rdb --on-duplicate first"]
    )
    def test_a_full_place_for_temporary_files_is_named(tmp_path: Path, command: str) -> None:
        records = [key(b"k%d" % i, 0, string(b"v")) for i in range(3000)]
        data = rdb(*records)
        (tmp_path / "a.rdb").write_bytes(data)
        (tmp_path / "a.rdb.gz").write_bytes(gzip.compress(data))
        (tmp_path / "b.rdb").write_bytes(rdb(*records[:2]))
        made = subprocess.run(
            [sys.executable, "-c", FULL, *command.split()], cwd=tmp_path, capture_output=True, text=True,
            env={**os.environ, "TMPDIR": str(tmp_path)},
        )  # fmt: skip
        assert made.returncode == 3, made.stderr
        assert made.stderr == (
            f"rdbkit: {tmp_path}: No space left on device; the variable TMPDIR names another place for temporary files\n"
        )
        assert names(tmp_path) == ["a.rdb", "a.rdb.gz", "b.rdb"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="has no /dev/full")
@pytest.mark.parametrize("name", ["/dev/full", "-"])
def test_a_full_disk_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shown = "standard output" if name == "-" else name

    def write() -> None:
        with open_output(name, force=True) as out:
            out.write(b"x" * (1 << 20))
            out.writelines([b"y"])

    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        with pytest.raises(OSError, match="No space") as caught:
            write()
        assert caught.value.filename == shown
        monkeypatch.undo()
        with suppress(OSError):
            full.close()


UNREADABLE = """
import builtins, os, sys
bad, real = sys.argv[1], builtins.open
os.access = lambda name, *_: name != bad
def refuse(name, *rest, **more):
    if name == bad:
        raise PermissionError(13, "Permission denied", bad)
    return real(name, *rest, **more)
builtins.open = refuse
from rdbkit.cli import main
main(sys.argv[2:])
"""


@pytest.mark.parametrize("command", ["verify b a", "verify b", "diff a b", "diff b a", "salvage b out", "redact b out --random"])
def test_a_file_that_may_not_be_read(tmp_path: Path, command: str) -> None:
    for name in "ab":
        (tmp_path / name).write_bytes(rdb(key(b"k", 0, string(b"v"))))
    made = subprocess.run([sys.executable, "-c", UNREADABLE, "b", *command.split()], cwd=tmp_path, capture_output=True, text=True)
    assert made.returncode == 3
    assert made.stderr == "rdbkit: b: Permission denied\n"
    assert ("a is sound" in made.stdout) == (command == "verify b a")
    assert names(tmp_path) == ["a", "b"]


def test_standard_output_stays_open(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with open_output("-") as out:
        out.write(b"row\n")
    assert not out.closed
    assert capfdbinary.readouterr().out == b"row\n"

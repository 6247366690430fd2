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
import time
from pathlib import Path
from typing import Any

import pytest

from rdbkit.snapshot.output import open_output


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
        "import sys, time\nfrom rdbkit.snapshot.output import open_output\n"
        "with open_output(sys.argv[1]) as out:\n    out.write(b'x'); out.flush(); print('go', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "out.csv"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        process.wait(10)
    assert names(tmp_path) == []


def test_standard_output_stays_open(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with open_output("-") as out:
        out.write(b"row\n")
    assert not out.closed
    assert capfdbinary.readouterr().out == b"row\n"

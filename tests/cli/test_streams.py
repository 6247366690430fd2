"""Standard streams that are closed, and readers that have gone: a right exit code, one line at most, never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from rdbkit.storage.output import open_output

from ..rdb import FIXTURES, rarely

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="descriptors are given by number")

DUMP = str(FIXTURES / "rich" / "redis-7.0.15.rdb")
OLD = str(FIXTURES / "rich" / "redis-5.0.14-lru.rdb")

#: What only reports, with the exit code of its report.
REPORTS: dict[str, tuple[list[str], int | None]] = {
    "info": (["info", DUMP], 0),
    "info --json": (["info", DUMP, "--json"], 0),
    "check": (["check", DUMP, "--target", "azure-premium"], 1),
    "check as it is": (["check", OLD, "--target", "redis-7.2"], 0),
    "memory": (["memory", DUMP, "--target", "redis-7.2"], 0),
    "plan": (["plan", OLD, "--target", "azure-managed"], None),
    "targets": (["targets"], 0),
    "diff": (["diff", DUMP, OLD], 1),
    "verify": (["verify", DUMP, "--deep"], 0),
    "split": (["split", DUMP, "--by", "db", "--into", "{out}"], 0),
    "export -o": (["export", DUMP, "-o", "{out}"], 0),
    "help": (["--help"], 0),
    "version": (["--version"], 0),
    "usage": (["export"], 2),
    "no snapshot": (["info", __file__], 3),
}
#: One for each way in which they say something: each takes five processes.
FEW = ["info", "check", "split", "help", "no snapshot"]
#: What sends data to standard output.
DATA = {
    "export": ["export", DUMP],
    "export resp": ["export", DUMP, "--format", "resp"],
    "keys": ["keys", DUMP],
    "get": ["get", DUMP, "str"],
    "convert": ["convert", OLD, "-", "--target", "redis-7.2"],
    "redact": ["redact", OLD, "-"],
}


def run(arguments: list[str], tmp_path: Path, *, gone: tuple[int, ...] = (), closed: tuple[int, ...] = ()) -> Any:
    """Run a command with descriptors that are closed, and others whose reader has gone; standard error goes to a file."""
    reader, writer = os.pipe()
    os.close(reader)
    error = tmp_path / "err"
    out = tmp_path / "out"
    for path in (out, error):
        if path.is_dir():
            for each in path.iterdir():
                each.unlink()
            path.rmdir()
        else:
            path.unlink(missing_ok=True)

    def prepare() -> None:
        for number in gone:
            os.dup2(writer, number)
        for number in closed:
            os.close(number)

    with error.open("wb") as file:
        done = subprocess.run(
            [sys.executable, "-m", "rdbkit", *(each.replace("{out}", str(out)) for each in arguments)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=file, preexec_fn=prepare, check=False, pass_fds=(writer,),
        )  # fmt: skip
    os.close(writer)
    return done.returncode, error.read_text()


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", [*FEW, *rarely(*sorted({*REPORTS} - {*FEW}))])
def test_reports(name: str, tmp_path: Path) -> None:
    arguments, code = REPORTS[name]
    expected = run(arguments, tmp_path)
    code = expected[0] if code is None else code
    assert expected[0] == code, expected[1]
    assert run(arguments, tmp_path, closed=(1,)) == expected
    assert run(arguments, tmp_path, gone=(1,)) == expected
    assert run(arguments, tmp_path, closed=(0, 1, 2))[0] == code
    assert run(arguments, tmp_path, gone=(1, 2))[0] == code


@pytest.mark.parametrize("name", ["export", "convert", *rarely("export resp", "keys", "get", "redact")])
def test_data(name: str, tmp_path: Path) -> None:
    arguments = DATA[name]
    code, text = run(arguments, tmp_path, closed=(1,))
    assert (code, text.splitlines()[-1]) == (3, "rdbkit: standard output is closed")
    code, text = run(arguments, tmp_path, gone=(1,))
    assert code == 0  # whoever read has had enough
    assert "Traceback" not in text
    assert "Exception" not in text
    assert run(arguments, tmp_path, gone=(1, 2))[0] == 0
    assert run(arguments, tmp_path, closed=(1, 2))[0] == 3


@pytest.mark.parametrize("arguments", [["info", "-"], ["convert", "-", "{out}", "--target", "redis-7.2"], ["verify", "-"]])
def test_closed_input(arguments: list[str], tmp_path: Path) -> None:
    code, text = run(arguments, tmp_path, closed=(0,))
    assert code == 3
    assert text.endswith("standard input is closed\n")
    assert text.count("\n") == 1
    assert not (tmp_path / "out").exists()
    assert run(["info", DUMP], tmp_path, closed=(0,))[0] == 0


def test_a_file_never_gets_the_number_of_a_closed_stream(tmp_path: Path) -> None:
    """Or a message would go into it."""
    code, _ = run(["convert", DUMP, "{out}", "--target", "redis-5.0", "--on-loss", "drop"], tmp_path, closed=(0, 1, 2))
    assert code in (0, 1)
    assert rdbkit.verify(tmp_path / "out", deep=True).sound


def test_in_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(OSError, match="standard input is closed"):
        rdbkit.open("-")
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(OSError, match="standard output is closed"), open_output("-"):
        pass


def test_a_full_disk_below_a_report_is_told(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "rdbkit", "info", DUMP], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 3
    assert done.stderr == "rdbkit: No space left on device\n"

"""Sources of function libraries: what `info` prints of them, and what `--on-function extract=FILE` writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rdbkit

from .. import command_line
from ..rdb import FIXTURES, key, rdb, string

ONE = b'#!lua name=one\nredis.register_function("f",function() return 1 end)'
TWO = b'#!lua name=two\nredis.register_function("g",function() return "\x1b[31m\t\xff\x00" end)\n'
KEY = key(b"k", 0, string(b"v"))


def library(source: bytes) -> bytes:
    return b"\xf5" + string(source)


def run(*args: str | Path) -> subprocess.CompletedProcess[bytes]:
    return command_line.run(*args)


@pytest.fixture
def single(tmp_path: Path) -> Path:
    path = tmp_path / "single.rdb"
    path.write_bytes(rdb(library(ONE), KEY, magic=b"REDIS0011"))
    return path


@pytest.fixture
def both(tmp_path: Path) -> Path:
    path = tmp_path / "both.rdb"
    path.write_bytes(rdb(library(ONE), library(TWO), KEY, magic=b"REDIS0011"))
    return path


def test_info_prints_the_sources_byte_for_byte(single: Path, both: Path) -> None:
    made = run("info", single, "--functions")
    assert (made.returncode, made.stdout, made.stderr) == (0, ONE, b"")
    made = run("info", both, "--library", "two")
    assert (made.returncode, made.stdout, made.stderr) == (0, TWO, b"")
    made = run("info", both, "--functions")
    assert (made.returncode, made.stdout) == (0, ONE + b"\n" + TWO)
    assert b"2 function libraries, each beginning with its #! line; FUNCTION LOAD takes one" in made.stderr
    made = run("info", single, both, "--library", "one")
    assert made.stdout == ONE + b"\n" + ONE + b"\n"


def test_a_name_that_there_is_not_and_a_file_without_libraries(single: Path, tmp_path: Path) -> None:
    made = run("info", single, "--library", "none\x1b")
    assert (made.returncode, made.stdout) == (1, b"")
    assert made.stderr == f"rdbkit: {single}: no function library none\\x1b\n".encode()
    plain = tmp_path / "plain.rdb"
    plain.write_bytes(rdb(KEY))
    made = run("info", plain, "--functions")
    assert (made.returncode, made.stdout, made.stderr) == (0, b"", f"rdbkit: {plain}: no function libraries\n".encode())
    made = run("info", single, "--library", "one", "--json")
    assert (made.returncode, b"take --functions" in made.stderr) == (2, True)


def test_json_has_the_sources_where_they_are_asked_for(both: Path) -> None:
    made = json.loads(run("info", both, "--json", "--functions").stdout)
    assert [row["name"] for row in made["functions"]] == ["one", "two"]
    assert made["functions"][0]["source"] == ONE.decode()
    assert set(made["functions"][1]["source"]) == {"base64"}
    assert "source" not in json.loads(run("info", both, "--json").stdout)["functions"][0]


def test_a_release_candidate_of_redis_7_gets_the_line_that_servers_want() -> None:
    path = FIXTURES / "rich" / "redis-7.0-rc1.rdb"
    with rdbkit.open(path) as snapshot:
        (found,) = snapshot.functions
    assert found.pre_release
    made = run("info", path, "--functions")
    assert made.stdout == f"#!{found.engine} name={found.name}\n".encode() + found.source


def test_damage_is_told_and_is_no_success(single: Path) -> None:
    single.write_bytes(single.read_bytes()[:-3])
    made = run("info", single, "--functions")
    assert (made.returncode, made.stdout) == (3, b"")


@pytest.mark.skipif(os.name != "posix", reason="terminals of POSIX")
def test_a_terminal_gets_escapes(both: Path) -> None:
    import pty

    ours, theirs = pty.openpty()
    args = [sys.executable, "-m", "rdbkit", "info", str(both), "--library", "two"]
    made = subprocess.run(args, stdout=theirs, stderr=subprocess.PIPE, check=False)
    os.close(theirs)
    said = b""
    try:
        while piece := os.read(ours, 1 << 16):
            said += piece
    except OSError:  # the end of a terminal, on Linux
        pass
    os.close(ours)
    assert made.returncode == 0
    assert b"\x1b" not in said
    assert b"\x00" not in said
    assert said.splitlines()[0] == b"#!lua name=two"
    assert b"\\x1b[31m" in said


@pytest.mark.parametrize(("target", "stays"), [("redis-7.0", True), ("redis-6.0", False), ("valkey-9.0", True), ("rdb-11", True)])
def test_extract_writes_the_sources_whoever_the_target_is(both: Path, tmp_path: Path, target: str, stays: bool) -> None:
    code, out = tmp_path / "code.lua", tmp_path / "out.rdb"
    made = run("convert", both, "-o", out, "--target", target, "--on-function", f"extract={code}", "--strict")
    assert made.returncode == 0, made.stderr
    assert code.read_bytes() == ONE + b"\n" + TWO
    with rdbkit.open(out) as snapshot:
        assert [each.code for each in snapshot.functions] == ([ONE, TWO] if stays else [])
    assert (b"has 2 function libraries, and so has what was written" in made.stderr) is stays
    assert (b"noted, no loss of data: function-kept 2" if stays else b"noted, no loss of data: function 2") in made.stderr


def test_extract_of_a_merge_has_each_library_once(single: Path, both: Path, tmp_path: Path) -> None:
    code, out = tmp_path / "code.lua", tmp_path / "out.rdb"
    both.write_bytes(rdb(library(ONE), library(TWO), magic=b"REDIS0011"))
    for target in (["--target", "redis-7.2"], [], ["--target", "redis-6.0"]):
        made = run("merge", single, both, "-o", out, *target, "--on-function", f"extract={code}", "--force")
        assert made.returncode == 0, made.stderr
        assert code.read_bytes() == ONE + b"\n" + TWO


def test_extract_by_several_processes_is_the_same(both: Path, tmp_path: Path) -> None:
    code, out = tmp_path / "code.lua", tmp_path / "out.rdb"
    made = run("convert", both, "-o", out, "--target", "redis-7.0", "--on-function", f"extract={code}", "--jobs", "2")
    assert made.returncode == 0, made.stderr
    assert code.read_bytes() == ONE + b"\n" + TWO


def test_a_file_without_libraries_leaves_nothing_old_behind(tmp_path: Path) -> None:
    source, code = tmp_path / "a.rdb", tmp_path / "code.lua"
    source.write_bytes(rdb(KEY))
    code.write_bytes(ONE)
    args: list[str | Path] = [
        "convert",
        source,
        "-o",
        tmp_path / "out.rdb",
        "--target",
        "redis-7.0",
        "--on-function",
        f"extract={code}",
        "--force",
    ]
    made = run(*args)
    assert (made.returncode, code.read_bytes()) == (0, b"")
    assert f"rdbkit: {code} is empty: there are no function libraries\n".encode() in made.stderr

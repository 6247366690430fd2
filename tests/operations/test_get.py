"""One value of a snapshot, and no more of the file read than it takes."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rdbkit

from .. import command_line
from ..rdb import FIXTURES, key, length, rdb, string
from .test_export import BROKEN, DUMP, bytes_of, exported, rows_in

RAW = bytes(range(256)) * 3


def get(*args: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return command_line.run("get", *args, data=stdin)


def test_what_may_follow_a_pipe_is_told() -> None:
    data = (FIXTURES / "aof" / "preamble-tail.aof").read_bytes()
    found = get("-", "a", stdin=data)
    assert (found.returncode, found.stdout) == (0, b"1")  # and 2 after a command that follows
    assert b"commands of an append-only file there may have changed it" in found.stderr
    missing = get("-", "none", stdin=data)
    assert missing.returncode == 1
    assert b"behind the snapshot, and not read: commands" in missing.stderr


def test_a_string_is_its_bytes_and_anything_else_json(tmp_path: Path) -> None:
    data = rdb(b"\xfe\0", key(b"s", 0, string(RAW)), key(b"n", 0, b"\xc0\x07"), b"\xfe\5", key(b"s", 1, length(1) + string(b"x")))
    source = tmp_path / "a.rdb"
    source.write_bytes(data)
    assert get(source, "s").stdout == RAW
    assert get(source, "n").stdout == b"7"
    assert get(source, "s", "--db", "5").stdout == b'["x"]\n'
    assert get("-", "s", "--db", "5", stdin=gzip.compress(data)).stdout == b'["x"]\n'
    result = get(source, "n", "--db", "5")
    assert (result.returncode, result.stdout) == (1, b"")
    assert result.stderr == f"rdbkit: {source}: no key n in db 5\n".encode()
    assert get(source, "none").returncode == 1


def test_values_are_those_of_the_lines() -> None:
    seen = set()
    for row in rows_in(exported(DUMP)):
        if row["type"] == "string" or row["type"] in seen or not isinstance(row["key"], str):
            continue
        seen.add(row["type"])
        result = get(DUMP, row["key"], "--db", str(row["db"]))
        assert (result.returncode, result.stderr) == (0, b"")
        assert json.loads(result.stdout) == row["value"]
    assert seen >= {"list", "set", "zset", "hash", "stream"}


def test_a_name_may_be_any_bytes(tmp_path: Path) -> None:
    source = tmp_path / "a.rdb"
    source.write_bytes(rdb(b"\xfe\0", key(b"\xff\xfe", 0, string(b"v"))))
    command = [sys.executable, "-m", "rdbkit", "get", str(source), os.fsdecode(b"\xff\xfe")]
    assert subprocess.run(command, capture_output=True, timeout=600).stdout == b"v"


@pytest.mark.parametrize("name", ["s", "l"])
def test_reading_stops_where_the_key_was_found(tmp_path: Path, name: str) -> None:
    """What follows it may be damaged, or missing."""
    large = b"x" * (3 << 20)
    records = key(b"s", 0, string(large)) + key(b"l", 1, length(1) + string(large))
    whole = rdb(b"\xfe\0", records, key(b"z", 0, string(b"v")))
    wanted = large if name == "s" else b'["' + large + b'"]\n'
    source = tmp_path / "a.rdb"
    for data in (whole[: whole.index(b"\x01z")], whole[:-3], whole[: whole.index(b"\x01z")] + b"\x0f" * 50):
        source.write_bytes(data)
        result = get(source, name)
        assert (result.returncode, result.stderr) == (0, b"")
        assert result.stdout == wanted


def test_damage_before_the_key_does_not_matter_but_in_it_does(tmp_path: Path) -> None:
    source, out = tmp_path / "a.rdb", tmp_path / "out"
    source.write_bytes(rdb(b"\xfe\0", key(b"bad", 16, BROKEN), key(b"s", 0, string(b"v")), magic=b"REDIS0011"))
    assert get(source, "s").stdout == b"v"
    result = get(source, "bad", "-o", out)
    assert result.returncode == 3
    assert result.stdout == b""
    (line,) = result.stderr.decode().splitlines()
    assert "in db 0, key 'bad', reading a hash listpack" in line
    assert [path.name for path in tmp_path.iterdir()] == ["a.rdb"]


def test_the_value_goes_to_a_file(tmp_path: Path) -> None:
    source, out = tmp_path / "a.rdb", tmp_path / "out"
    source.write_bytes(rdb(b"\xfe\0", key(b"s", 0, string(RAW))))
    assert get(source, "none", "-o", out).returncode == 1
    assert not out.exists()
    assert get(source, "s", "-o", out).returncode == 0
    assert out.read_bytes() == RAW
    assert get(source, "s", "-o", out).returncode == 2
    assert get(source, "s", "-o", out, "--force").returncode == 0
    assert get(source, "s", "-o", source, "--force").returncode == 2


def test_what_keydb_adds_is_found() -> None:
    path = FIXTURES / "rich" / "keydb-6.3.4-ext.rdb"
    with rdbkit.open(path) as snapshot:
        names = [record.key for record in snapshot if record.type == "cron"]
    (row,) = (row for row in rows_in(exported(path)) if bytes_of(row["key"]) in names)
    assert json.loads(get(path, row["key"]).stdout) == row["value"]

"""`rdbkit info` as a user runs it: a process of its own."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .. import command_line
from ..processes import GUARD, heeding_signals
from ..rdb import FIXTURES, aux, each_dump, key, rdb, string

RICH = FIXTURES / "rich"


def run(*args: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return command_line.run(*args, data=stdin)


def test_version_says_compiled_or_pure() -> None:
    result = run("--version")
    assert result.returncode == 0
    form = os.environ.get("RDBKIT_EXPECT")
    assert result.stdout.decode().split()[2].strip("()") in ([form] if form else ["compiled", "pure"])


def test_the_report_of_a_known_dump() -> None:
    result = run("info", RICH / "redis-7.0.15.rdb")
    text = " ".join(result.stdout.decode().split())
    assert result.returncode == 0
    assert result.stderr == b""
    for words in (
        "RDB 10",
        "written by   redis 7.0.15, 64 bit",
        "checksum     ok",
        "functions    l (lua, 65 B)",
        "partly  Azure Managed Redis (Redis 7.4)           only database 0 is imported: 1 key would be dropped silently",
        "yes     Redis 7.0",
        "no      Azure Cache for Redis Premium (Redis 6.0)     RDB 10 is newer than RDB 9",
        "l_big",
    ):
        assert " ".join(words.split()) in text, words


@pytest.mark.parametrize("path", each_dump())
def test_json_has_all_of_it(path: Path) -> None:
    report = json.loads(run("info", "--json", path).stdout)
    assert report["keys"] == sum(d["keys"] for d in report["databases"]) == sum(t["keys"] for t in report["types"])
    assert sum(report["expiry"].values()) == report["keys"]
    assert report["key_bytes"] == sum(t["bytes"] for t in report["types"]) < report["rdb_size"]
    assert report["biggest"] == sorted(report["biggest"], key=lambda k: -k["bytes"])
    magic = path.read_bytes()[:9].decode()
    assert (report["flavour"].upper(), report["rdb_version"]) == (
        magic.rstrip("0123456789"),
        int(magic.lstrip("REDISVALKY")),
    )


def test_standard_input_and_gzip() -> None:
    data = (RICH / "valkey-9.1.2.rdb").read_bytes()
    plain = json.loads(run("info", "--json", "-", stdin=data).stdout)
    packed = json.loads(run("info", "--json", "-", stdin=gzip.compress(data)).stdout)
    assert (plain["compression"], packed["compression"]) == (None, "gzip")
    assert plain["types"] == packed["types"]


def test_several_files_get_a_total_and_one_bad_file_does_not_hide_the_rest(tmp_path: Path) -> None:
    bad = tmp_path / "bad.rdb"
    bad.write_bytes(b"nonsense!")
    one, other = RICH / "redis-6.0.16.rdb", RICH / "redis-7.0.15.rdb"
    result = run("info", one, bad, other, tmp_path / "missing.rdb", tmp_path)
    assert result.returncode == 3
    assert "Total of 2 files" in result.stdout.decode()
    errors = result.stderr.decode().splitlines()
    assert len(errors) == 3
    assert str(bad) in errors[0]
    assert "No such file" in errors[1]
    assert "directory" in errors[2]
    report = json.loads(run("info", "--json", one, other).stdout)
    assert report["total"]["keys"] == sum(f["keys"] for f in report["files"])


@pytest.mark.parametrize(
    "data",
    [b"", b"\x7fELF" + bytes(100), (RICH / "redis-7.0.15.rdb").read_bytes()[:9000], b"REDIS0016\xff" + bytes(8)],
    ids=["empty", "binary", "cut", "future"],
)
def test_bad_input_is_one_line_and_exit_3(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "dump.rdb"
    path.write_bytes(data)
    result = run("info", path)
    assert result.returncode == 3
    assert result.stdout == b""
    assert result.stderr.count(b"\n") == 1
    assert result.stderr.startswith(f"rdbkit: {path}: ".encode())


def test_wrong_usage_is_exit_2() -> None:
    assert run("info").returncode == 2
    assert run("info", "--top", "-3", "x").returncode == 2
    assert run("nonsense").returncode == 2


def test_keys_cannot_inject_control_sequences(tmp_path: Path) -> None:
    path = tmp_path / "evil.rdb"
    path.write_bytes(rdb(b"\xfe\0", key(b"\x1b]0;owned\x07\r\n\xe2\x80\xae", 0, string(b"v"))))
    result = run("info", path)
    assert result.returncode == 0
    assert all(c == "\n" or c.isprintable() for c in result.stdout.decode())
    assert r"\x1b]0;owned\x07" in result.stdout.decode()


def test_a_closed_pipe_is_no_error() -> None:
    command = f"{sys.executable} -m rdbkit info {RICH / 'redis-7.0.15.rdb'} | head -n 1"
    result = subprocess.run(["bash", "-c", command], capture_output=True, timeout=600)
    assert result.stderr == b""


def test_top_bounds_the_list() -> None:
    path = RICH / "redis-7.0.15.rdb"
    whole = json.loads(run("info", "--json", "--top", "1000", path).stdout)["biggest"]
    three = json.loads(run("info", "--json", "--top", "3", path).stdout)["biggest"]
    assert len(whole) == 27
    assert three == whole[:3]
    assert json.loads(run("info", "--json", "--top", "0", path).stdout)["biggest"] == []


def test_expiry_histogram_counts_by_time_left(tmp_path: Path) -> None:
    now = int(time.time() * 1000)
    lefts = [-1000, 60_000, 7_200_000, 2 * 86_400_000, 10 * 86_400_000, 90 * 86_400_000]
    path = tmp_path / "ttl.rdb"
    path.write_bytes(
        rdb(
            b"\xfe\0",
            *(key(b"k%d" % i, 0, string(b"v"), now + left) for i, left in enumerate(lefts)),
            key(b"n", 0, b"\0"),
        )
    )
    report = json.loads(run("info", "--json", path).stdout)
    assert report["expiry"] == {"expired": 1, "1h": 1, "1d": 1, "7d": 1, "30d": 1, "later": 1, "never": 1}
    assert report["databases"][0] | {"types": None} == {"db": 0, "keys": 7, "expiring": 6, "expired": 1, "types": None}


def test_an_interrupt_is_exit_130() -> None:
    command = heeding_signals([sys.executable, "-m", "rdbkit", "info", "-"])
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    process.stdin.write(b"REDIS0009" + aux(b"a", bytes(4 << 20))[:-1])  # more than a pipe holds: it has begun to read
    process.stdin.flush()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=GUARD)
    assert process.returncode == 130
    assert b"Traceback" not in errors

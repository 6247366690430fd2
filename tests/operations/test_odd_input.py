"""Expiries that a version cannot hold, scripts, and arguments of odd kinds: one line each, never a traceback."""

from __future__ import annotations

import io
import os
import subprocess
from pathlib import Path

import pytest

import rdbkit
from tests.rdb import aux, key, rdb, string

from .. import command_line

FAR = 1 << 56
LISTPACK_HASH = string(b"\x0d\0\0\0\x02\0\x81f\x02\x81v\x02\xff")


def run(*args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return command_line.run_text(*args, cwd=cwd)


def only_line(found: subprocess.CompletedProcess[str]) -> str:
    """The message, as the last line; usage errors have a hint before it."""
    assert "Traceback" not in found.stderr, found.stderr
    return found.stderr.strip().splitlines()[-1]


def expiries(data: bytes) -> list[int | None]:
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        return [record.expire_ms for record in snapshot]


# -- RDB 1 and 2 have seconds of 32 bits, and files of them may have what later servers read all the same


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("expire_ms", [FAR, -FAR, 1_500, 4_102_444_800_000, 1_000_000_000_000])
@pytest.mark.parametrize("block_size", [16, 1 << 20])
def test_an_expiry_that_an_old_version_cannot_hold(version: int, expire_ms: int, block_size: int, tmp_path: Path) -> None:
    path = tmp_path / "in.rdb"
    value = string(b"v" * 40)
    plain, odd = key(b"a", 0, value, expire_ms), key(b"b", 0, value, expire_ms)[:9] + aux(b"mvcc-tstamp", b"1")
    data = rdb(b"\xfe\0", plain, odd + key(b"b", 0, value), magic=b"REDIS%04d" % version, crc=None)
    path.write_bytes(data)
    same = io.BytesIO()
    rdbkit.convert(path, same, target=f"rdb-{version}", block_size=block_size)
    assert expiries(same.getvalue()) == [expire_ms, expire_ms]
    out = io.BytesIO()
    rdbkit.salvage(path, out, block_size=block_size)
    assert expiries(out.getvalue()) == [expire_ms, expire_ms]
    out = io.BytesIO()
    rdbkit.redact(path, out, secret=b"0123456789abcdef", block_size=block_size)
    assert expiries(out.getvalue()) == [expire_ms, expire_ms]
    out = io.BytesIO()
    report = rdbkit.convert(
        path, out, target="redis-2.4", policies=rdbkit.Policies(loss="drop"), block_size=block_size
    )  # fmt: skip
    held = None if expire_ms // 1000 >= 1 << 31 else max(expire_ms // 1000 * 1000, -(1 << 31) * 1000)
    assert expiries(out.getvalue()) == [held, held]
    assert b"\xfc" not in out.getvalue()
    lost, noted = report.ledger.counts.get("expiry", 0), report.ledger.notes.get("expiry-precision", 0)
    assert (lost, noted) == (2 if held is None else 0, 2 if expire_ms == 1_500 else 0)


def test_an_expiry_in_seconds_is_copied(tmp_path: Path) -> None:
    path = tmp_path / "in.rdb"
    path.write_bytes(rdb(b"\xfe\0", b"\xfd\x01\x02\x03\x04" + key(b"a", 0, string(b"v")), magic=b"REDIS0002", crc=None))
    out = io.BytesIO()
    assert rdbkit.convert(path, out, target="redis-2.4").identical
    assert out.getvalue() == path.read_bytes()


@pytest.mark.parametrize("edits", [rdbkit.Edits(set_ttl_ms=1 << 47), rdbkit.Edits(shift_ttl_ms=1 << 47)])
@pytest.mark.parametrize("magic", [b"REDIS0002", b"REDIS0009"])
def test_an_edit_beyond_seconds_is_a_loss(edits: rdbkit.Edits, magic: bytes, tmp_path: Path) -> None:
    path = tmp_path / "in.rdb"
    path.write_bytes(rdb(b"\xfe\0", key(b"a", 0, string(b"v"), 1_000), magic=magic, crc=None if magic == b"REDIS0002" else True))
    for target in ("redis-2.4", "rdb-2"):
        out = io.BytesIO()
        report = rdbkit.convert(path, out, target=target, edits=edits, policies=rdbkit.Policies(loss="drop"))
        assert expiries(out.getvalue()) == [None]
        assert report.ledger.counts == {"expiry": 1}


def test_a_script_beyond_seconds_is_a_loss(tmp_path: Path) -> None:
    def script(key: rdbkit.ScriptRecord) -> rdbkit.ScriptRecord:
        key.expire_ms = FAR
        return key

    path = tmp_path / "in.rdb"
    path.write_bytes(rdb(b"\xfe\0", key(b"a", 0, string(b"v"), 1_000)))
    out = io.BytesIO()
    edits, policies = rdbkit.Edits(script=script), rdbkit.Policies(loss="drop")
    report = rdbkit.convert(path, out, target="redis-2.4", edits=edits, policies=policies)
    assert expiries(out.getvalue()) == [None]
    assert report.ledger.counts == {"expiry": 1}


# -- scripts


@pytest.mark.parametrize("record", [key(b"k", 1, b"\0"), key(b"k", 0, string(b"v"), -256), key(b"k", 0, string(b"v"), -1)])
@pytest.mark.parametrize("reads", [True, False])
def test_a_script_that_changes_nothing_is_not_blamed_for_the_file(record: bytes, reads: bool, tmp_path: Path) -> None:
    def script(key: rdbkit.ScriptRecord) -> rdbkit.ScriptRecord:
        if reads:
            _ = key.value
        return key

    path = tmp_path / "in.rdb"
    path.write_bytes(rdb(b"\xfe\0", record, key(b"l", 0, string(b"w")), magic=b"REDIS0011"))
    out = io.BytesIO()
    rdbkit.convert(path, out, target="redis-7.2", edits=rdbkit.Edits(script=script))
    assert out.getvalue() == path.read_bytes()


SCRIPTS = {
    "raise SystemExit('enough')": "SystemExit: enough",
    "raise GeneratorExit": "GeneratorExit",
    "raise BaseException('x')": "BaseException: x",
    "del r.key": "key lacks something",
    "del r.db": "key lacks something",
    "del r.expire_ms": "key lacks something",
    "r.db = 10 ** 5000": "db is the number of a database, not this int",
    "r.expire_ms = 10 ** 5000": "expire_ms is Unix milliseconds or None, not this int",
    "r.value = Odd()": "value cannot be written",
    "r.value.append(Odd())": "value cannot be ",
    "raise Odd.Wrong": "Wrong",
}


@pytest.mark.parametrize("change", SCRIPTS)
def test_what_a_script_does_is_one_line(change: str, tmp_path: Path) -> None:
    odd = """
class Odd(list):
    class Wrong(Exception):
        def __str__(self): raise ValueError
    def __eq__(self, other): raise KeyError
    def __len__(self): raise KeyError
    __hash__ = None
"""
    (tmp_path / "s.py").write_text(f"{odd}\ndef record(r):\n    {change}\n    return r\n")
    (tmp_path / "in.rdb").write_bytes(rdb(b"\xfe\0", key(b"k", 1, b"\x01" + string(b"v"))))
    found = run("convert", "in.rdb", "out.rdb", "--target", "redis-7.2", "--script", "s.py", cwd=tmp_path)
    assert found.returncode in (1, 2)
    assert SCRIPTS[change] in only_line(found)
    assert sorted(os.listdir(tmp_path)) == ["in.rdb", "s.py"]


@pytest.mark.parametrize("line", ["raise SystemExit(0)", "raise GeneratorExit", "import sys; sys.exit('no')"])
def test_a_script_that_ends_before_it_is_asked(line: str, tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text(line)
    (tmp_path / "in.rdb").write_bytes(rdb(b"\xfe\0", key(b"k", 0, string(b"v"))))
    found = run("convert", "in.rdb", "out.rdb", "--target", "redis-7.2", "--script", "s.py", cwd=tmp_path)
    assert found.returncode == 1
    assert "s.py:1: " in only_line(found)


def test_a_damaged_value_that_a_script_reads_is_left_out_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "s.py").write_text("def record(r):\n    r.value\n    return r\n")
    damaged = key(b"k", 16, LISTPACK_HASH.replace(b"\x81f", b"\x91f"))
    (tmp_path / "in.rdb").write_bytes(rdb(b"\xfe\0", damaged, key(b"l", 0, string(b"w")), magic=b"REDIS0011"))
    args = ["convert", "in.rdb", "out.rdb", "--target", "redis-7.2", "--script", "s.py"]
    found = run(*args, cwd=tmp_path)
    assert found.returncode == 3
    assert "'k'" in only_line(found)
    run(*args, "--on-error", "skip", cwd=tmp_path)
    with rdbkit.open(tmp_path / "out.rdb") as snapshot:
        assert [record.key for record in snapshot] == [b"l"]


# -- arguments and files

DIGITS = "9" * 5_000


@pytest.mark.parametrize(
    "args",
    [
        ["convert", "in.rdb", "o.rdb", "--target", "redis-7.2", "--map-db", f"{DIGITS}=1"],
        ["convert", "in.rdb", "o.rdb", "--target", "redis-7.2", "--map-db", f"1={DIGITS}"],
        ["convert", "in.rdb", "o.rdb", "--target", "redis-7.2", "--map-db", "1=2147483648"],
        ["convert", "in.rdb", "o.rdb", "--target", "redis-7.2", "--map-db", "\u0663=1"],
        ["convert", "in.rdb", "o.rdb", "--target", "redis-7.2", "--jobs", "9" * 30],
        ["export", "in.rdb", "--jobs", "1000"],
        ["check", "in.rdb", "--target", f"rdb-{DIGITS}"],
        ["targets", "--targets-file", "deep.toml"],
        ["check", "in.rdb", "--target", "redis-7.2", "--targets-file", "deep.toml"],
        ["targets", "--targets-file", "digits.toml"],
        ["build", "deep.jsonl", "o.rdb", "--target", "redis-7.2"],
        ["build", "digits.jsonl", "o.rdb", "--target", "redis-7.2"],
    ],
)
def test_odd_arguments_are_one_line(args: list[str], tmp_path: Path) -> None:
    (tmp_path / "in.rdb").write_bytes(rdb(b"\xfe\0", key(b"k", 0, string(b"v"))))
    (tmp_path / "deep.toml").write_text("a = " + "[" * 100_000)
    (tmp_path / "digits.toml").write_text(f"a = {DIGITS}")
    (tmp_path / "deep.jsonl").write_text('{"db":0,"key":"k","type":"list","value":' + "[" * 100_000 + "\n")
    (tmp_path / "digits.jsonl").write_text(f'{{"db":{DIGITS},"key":"k","type":"string","value":"v"}}\n')
    found = run(*args, cwd=tmp_path)
    assert found.returncode in (2, 3)
    assert only_line(found)
    assert not (tmp_path / "o.rdb").exists()


def test_a_zero_byte_in_an_argument_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    from rdbkit.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["info", "a\0b"])
    assert ended.value.code == 2
    assert "zero byte" in capsys.readouterr().err

"""`rdbkit check`: its verdicts agree with what `convert` does, and its words help."""

from __future__ import annotations

import gzip
import io
import json
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from rdbkit.operations.check import AS_IT_IS, CANNOT, LOSSLESS, LOSSY, Check, check
from rdbkit.operations.duplicates import find_duplicates
from rdbkit.targets.target import find_target

from .. import command_line
from ..rdb import FIXTURES, aux, dumps_at_once, each_dump, each_target, key, length, rdb, string

NOW = 1_800_000_000_000
RICH = FIXTURES / "rich"


def report(src: bytes | Path, target: str = "redis-6.0", block_size: int | None = None, **options: Any) -> Check:
    more: dict[str, Any] = {} if block_size is None else {"block_size": block_size}
    with rdbkit.open(io.BytesIO(src) if isinstance(src, bytes) else src, **more) as snapshot:
        return check(snapshot, find_target(target), now_ms=NOW, **options)


def codes(found: Check) -> dict[str, int]:
    return {f.code: f.count for f in found.findings}


@pytest.mark.one_in(4)
@pytest.mark.parametrize("dumps", dumps_at_once())
@pytest.mark.parametrize("name", each_target())
def test_check_and_convert_agree(name: str, dumps: list[Path]) -> None:
    for path in dumps:
        for block_size in (None, 64):
            found = report(path, name, block_size, samples=1000)
            more: dict[str, Any] = {} if block_size is None else {"block_size": block_size}
            if "--collapse-dbs" in found.options:
                more["edits"] = rdbkit.Edits(collapse_dbs=True, on_conflict="rename")
            policies = rdbkit.Policies(loss="drop", array="hash")
            made = rdbkit.convert(path, io.BytesIO(), target=name, now_ms=NOW, policies=policies, **more)
            ledger = made.ledger
            if ledger.counts:
                assert found.verdict == LOSSY, (path, found)
                lost = {(loss.db, loss.key) for loss in ledger.losses if loss.key is not None}
                samples = {(s.db, s.key) for f in found.findings if f.severity == "loss" for s in f.samples}
                assert samples == lost
                assert sum(f.count for f in found.findings if f.severity == "loss") == sum(ledger.counts.values())
                if block_size is None:
                    with pytest.raises(rdbkit.LossError):
                        rdbkit.convert(path, io.BytesIO(), target=name, now_ms=NOW, **more)
            else:
                assert found.verdict == (AS_IT_IS if made.identical else LOSSLESS), (path, found)
            notes = {f.title.split(" ", 1)[1] for f in found.findings if f.severity == "note"}
            assert all(f.severity in ("blocker", "loss", "warning", "note") for f in found.findings), notes


@pytest.mark.parametrize("path", each_dump("rich"))
def test_what_the_options_allow_is_all_that_is_lost(path: Path) -> None:
    """The command that check gives works, and loses what check says."""
    for name in ("azure-premium", "azure-managed", "redis-3.2", "valkey-9.1"):
        found = report(path, name)
        if found.verdict != LOSSY:
            continue
        made = command_line.run("convert", path, "-", "--target", name, *shlex.split(" ".join(found.options)))
        assert made.returncode == 0, made.stderr
        assert b"rdbkit: lost in all: " in made.stderr
        with rdbkit.open(io.BytesIO(made.stdout)) as snapshot:
            assert sum(1 for _ in snapshot) > 0


def test_the_five_usual_questions() -> None:
    premium = report(RICH / "redis-7.2.6.rdb", "azure-premium")
    assert premium.verdict == LOSSY
    assert codes(premium)["RDB202"] == 1
    assert {"RDB101", "RDB104", "RDB901"} <= set(codes(premium))
    valkey = report(RICH / "valkey-9.1.2.rdb", "azure-managed")
    assert {"RDB102", "RDB201", "RDB301"} <= set(codes(valkey))
    vectors = report(RICH / "redis-8.0.6.rdb", "azure-managed")
    assert {"RDB201", "RDB203"} <= set(codes(vectors))
    clustered = report(RICH / "redis-6.0.16.rdb", "azure-premium", clustered=True)
    assert codes(clustered) == {"RDB301": 1}
    assert clustered.verdict == LOSSLESS
    assert clustered.options == ["--collapse-dbs"]
    assert report(RICH / "redis-6.0.16.rdb", "azure-premium").verdict == AS_IT_IS


def test_findings_count_keys_and_bytes_and_name_the_first() -> None:
    file = rdb(
        *(key(b"h%d" % i, 16, string(b"\x0d\0\0\0\x02\0\x81f\x02\x81v\x02\xff")) for i in range(9)),
        magic=b"REDIS0010",
    )  # fmt: skip
    found = report(file, samples=4)
    (finding,) = (f for f in found.findings if f.code == "RDB104")
    assert (finding.count, finding.keys, finding.bytes) == (9, 9, 9 * 18)
    assert [(s.db, s.key, s.offset) for s in finding.samples] == [(0, b"h%d" % i, 9 + 18 * i) for i in range(4)]
    assert found.verdict == LOSSLESS
    assert (found.keys, found.bytes) == (9, 162)


def test_damage_is_a_finding_with_its_place() -> None:
    whole = (RICH / "redis-6.0.16.rdb").read_bytes()
    cut = report(whole[:5000], "redis-6.0")
    (finding,) = cut.findings
    assert (cut.verdict, finding.code) == (CANNOT, "RDB401")
    assert finding.samples[0].offset > 0
    wrong = report(whole[:-1] + bytes([whole[-1] ^ 1]), "redis-6.0")
    assert [f.code for f in wrong.findings] == ["RDB402"]
    assert wrong.verdict == CANNOT


def test_what_is_around_the_snapshot() -> None:
    plain = rdb(key(b"k", 0, string(b"v"), NOW - 1))
    assert codes(report(plain)) == {"RDB303": 1}
    assert report(plain).verdict == AS_IT_IS
    assert codes(report(plain + b"\0" * 50)) == {"RDB303": 1, "RDB404": 1}
    assert report(plain + b"\0" * 50).verdict == AS_IT_IS
    assert report(plain + b"*1\r\n$4\r\nPING\r\n").verdict == LOSSY
    assert codes(report(rdb(crc=False))) == {"RDB403": 1}
    packed = gzip.compress(plain)
    assert report(packed).verdict == LOSSLESS
    assert "RDB405" in codes(report(packed, "azure-premium"))
    assert report(packed, "azure-managed").verdict == AS_IT_IS
    framed = b"$EOF:" + b"m" * 40 + b"\r\n" + plain + b"m" * 40
    assert codes(report(framed)) == {"RDB303": 1, "RDB406": 1}


def test_the_size_of_a_service() -> None:
    def room(used: bytes | None, size: str) -> dict[str, str]:
        file = rdb(*([] if used is None else [aux(b"used-mem", used)]), key(b"k", 0, string(b"v")))
        target = find_target("azure-premium")
        found = report(file, "azure-premium", sku=target.sku(size))
        return {f.code: f.fix for f in found.findings}

    assert room(None, "P1").keys() == {"RDB502"}
    assert room(b"1000000", "P1").keys() == {"RDB504"}
    assert room(b"%d" % (5 << 30), "P1")["RDB501"].startswith("a larger size: P2")
    assert room(b"%d" % (5 << 30), "P2").keys() == {"RDB504"}
    assert room(b"%d" % int(10.2 * (1 << 30)), "P2").keys() == {"RDB503"}


def test_databases_of_a_size_and_of_a_configuration() -> None:
    file = rdb(b"\xfe\x14", key(b"k", 0, string(b"v")))
    target = find_target("azure-premium")
    assert codes(report(file, "azure-premium", sku=target.sku("P1"))).get("RDB301") == 1
    assert "RDB301" not in codes(report(file, "azure-premium", sku=target.sku("P2")))
    assert codes(report(file, "redis-6.0", databases=16)) == {"RDB301": 1}
    assert report(file, "redis-6.0", databases=32).verdict == AS_IT_IS


def test_a_large_key_is_judged_as_a_small_one() -> None:
    fields = b"".join(string(b"f%d" % i) + string(b"v" * 50) for i in range(50))
    file = rdb(key(b"h", 24, (NOW + 9).to_bytes(8, "little") + length(50) + b"\x01" + fields[: 3 + 51] + b"".join(
        b"\0" + string(b"f%d" % i) + string(b"v" * 50) for i in range(1, 50))), magic=b"REDIS0012")  # fmt: skip
    small, large = report(file), report(file, block_size=64)
    assert codes(small) == codes(large)
    assert small.verdict == large.verdict == LOSSY
    assert [s.key for f in large.findings for s in f.samples if f.code == "RDB201"] == [b"h"]


def test_keys_in_several_files(tmp_path: Path) -> None:
    one, two = tmp_path / "1.rdb", tmp_path / "2.rdb"
    one.write_bytes(rdb(key(b"a", 0, string(b"1")), key(b"b", 0, string(b"1")), b"\xfe\x01", key(b"c", 0, string(b"1"))))
    two.write_bytes(rdb(key(b"b", 0, string(b"2")), key(b"c", 0, string(b"2"))))
    found = find_duplicates([str(one), str(two)])
    assert found.keys == 1
    (sample,) = found.samples
    assert (sample.db, sample.key) == (0, b"b")
    assert [file for file, _ in sample.places] == [str(one), str(two)]
    assert found.slots == 3
    assert found.fullest[1] == 2


# -- the command


def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return command_line.run_text("check", *args)


def test_the_command_says_what_to_do_and_exits_by_it() -> None:
    good = run(RICH / "redis-6.0.16.rdb", "--target", "azure-premium")
    assert good.returncode == 0, good.stderr
    assert "imports it as it is" in good.stdout
    bad = run(RICH / "redis-7.2.6.rdb", "--target", "azure-premium")
    assert bad.returncode == 1
    assert "rdbkit convert" in bad.stdout
    assert "--on-function drop" in bad.stdout
    assert "RDB101" in bad.stdout
    both = run(RICH / "redis-6.0.16.rdb", RICH / "redis-7.2.6.rdb", "--target", "azure-premium", "--json")
    assert both.returncode == 1
    assert [f["verdict"] for f in json.loads(both.stdout)["files"]] == ["as-it-is", "lossy"]


def test_annotations_are_one_line_each_whatever_the_names_hold(tmp_path: Path) -> None:
    path = tmp_path / "a,b:c.rdb"
    path.write_bytes((RICH / "redis-7.2.6.rdb").read_bytes())
    result = run(path, "--target", "azure-premium", "--format", "github")
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert all(line.startswith(("::error file=", "::warning file=", "::notice file=")) for line in lines)
    assert "a%2Cb%3Ac.rdb" in lines[0]


def test_duplicates_of_the_command(tmp_path: Path) -> None:
    path = RICH / "redis-6.0.16.rdb"
    result = run(path, path, "--target", "redis-6.0", "--duplicates")
    assert result.returncode == 1
    assert "in more than one place" in result.stdout
    assert run(path, "--target", "redis-6.0", "--duplicates").returncode == 0


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--target", "azure-premum"], "azure-premium"),
        (["--target", "azure-premium", "--sku", "P9"], "P"),
        (["--target", "redis-6.0", "--sku", "P1"], "--sku"),
        (["--target", "azure-managed", "--redis-version", "x"], "--redis-version"),
        (["--target", "azure-managed", "--targets-file", "nothing.toml"], "does not exist"),
    ],
)
def test_wrong_usage(args: list[str], said: str) -> None:
    result = run(RICH / "redis-6.0.16.rdb", *args)
    assert result.returncode == 2
    assert said in result.stderr


def test_a_file_that_is_no_snapshot_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "x.rdb"
    for data, code in ((b"", 3), (b"no rdb", 3), ((RICH / "redis-6.0.16.rdb").read_bytes()[:3000], 1)):
        path.write_bytes(data)
        result = run(path, "--target", "redis-6.0")
        assert result.returncode == code, result.stderr
        assert "Traceback" not in result.stderr
    assert "RDB401" in result.stdout


def test_modules_are_named_with_their_encodings() -> None:
    vectors = report(RICH / "redis-8.0.6.rdb", "azure-managed")
    (finding,) = (f for f in vectors.findings if f.code == "RDB203")
    assert finding.title.endswith(": vector sets (vectorset) encoding 0 (1 key)")
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    number = 0
    for letter in "ReJSON-RL":
        number = number << 6 | letters.index(letter)
    value = b"\x81" + (number << 10 | 3).to_bytes(8, "big") + b"\5" + string(b"{}" * 40) + b"\0"
    for block_size in (None, 16):
        found = report(rdb(key(b"j", 7, value)), "azure-managed", block_size)
        assert found.verdict == AS_IT_IS
        assert [(f.code, f.severity, f.count) for f in found.findings] == [("RDB304", "warning", 1)]
        assert "RedisJSON documents (ReJSON-RL) encoding 3" in found.findings[0].title


def test_snapshots_put_together_with_cat() -> None:
    one, other = rdb(key(b"a", 0, string(b"v"))), rdb(key(b"b", 0, string(b"v")))
    found = report(one + other)
    assert codes(found)["RDB217"] == 1
    assert found.verdict == LOSSY
    with pytest.raises(rdbkit.LossError, match="behind 1"):
        rdbkit.convert(io.BytesIO(one + other), io.BytesIO(), target="redis-6.0")

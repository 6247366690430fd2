"""Lua scripts that stand in a snapshot as AUX fields: a loss where the target does not load them."""

from __future__ import annotations

import io
import json
from hashlib import sha1
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from rdbkit.cli import main
from rdbkit.operations.check import check
from rdbkit.targets.target import find_target, load_targets

from .rdb import aux, key, rdb, string

SCRIPTS = (b"return redis.call('GET', KEYS[1])", b"return '\xff'\r\n")
KEY = b"\xfe\0" + key(b"k", 0, string(b"v"))
VERSION = aux(b"redis-ver", b"6.0.16")


def with_scripts(*bodies: bytes, behind: bytes = b"") -> bytes:
    return rdb(VERSION, *(aux(b"lua", body) for body in bodies), KEY, behind)


def digest(body: bytes) -> str:
    return sha1(body).hexdigest()


def converted(data: bytes, target: str, **policies: str) -> tuple[bytes, rdbkit.Conversion]:
    out = io.BytesIO()
    report = rdbkit.convert(io.BytesIO(data), out, target=target, policies=rdbkit.Policies(**policies))
    return out.getvalue(), report


def run(*args: object) -> int:
    with pytest.raises(SystemExit) as done:
        main([str(arg) for arg in args])
    return int(done.value.code or 0)


def test_who_loads_scripts() -> None:
    loading = {name for target in load_targets() for name in (target.name, *target.lines) if target.scripts}
    assert loading == {"redis-4.0", "redis-5.0", "redis-6.0", "redis-6.2", "keydb-6.3", "azure-premium"}
    assert find_target("azure-premium").facts["scripts"].inferred
    assert not find_target("azure-enterprise").with_engine("7.4").scripts
    assert find_target("azure-enterprise").with_engine("6.0").scripts
    assert find_target("rdb-9").keeps_scripts


@pytest.mark.parametrize("target", ["redis-6.2", "redis-4.0", "keydb-6.3", "azure-premium", "rdb-9"])
def test_what_loads_scripts_gets_them(target: str) -> None:
    data = with_scripts(*SCRIPTS)
    out, report = converted(data, target)
    with rdbkit.open(io.BytesIO(out)) as snapshot:
        kept = [event.value for event in snapshot.events() if isinstance(event, rdbkit.Aux) and event.key == b"lua"]
    assert kept == list(SCRIPTS)
    assert (report.ledger.counts, report.ledger.notes, report.scripts) == ({}, {}, [])
    if target != "redis-4.0":
        assert out == data
    _, report = converted(data, target, lua_script="extract")
    assert (report.scripts, report.ledger.notes) == (list(SCRIPTS), {"script-kept": 2})


@pytest.mark.parametrize("target", ["redis-3.2", "redis-2.6", "redis-7.0", "redis-8.0", "valkey-9.1", "azure-managed"])
def test_where_no_scripts_are_loaded_they_are_a_loss(target: str) -> None:
    data = with_scripts(*SCRIPTS)
    out, report = converted(data, target)
    assert b"redis.call" not in out
    assert report.ledger.counts == {"script": 2}
    assert [loss.what for loss in report.ledger.losses] == [f"Lua script {digest(body)}" for body in SCRIPTS]
    assert report.scripts == list(SCRIPTS)
    with pytest.raises(rdbkit.LossError) as refused:
        converted(data, target, lua_script="fail")
    assert refused.value.report is not None
    assert refused.value.report.ledger.forbidden == {"script": 2}
    _, report = converted(data, target, lua_script="extract")
    assert (report.scripts, report.ledger.counts, report.ledger.notes.get("script")) == (list(SCRIPTS), {}, 2)


def test_scripts_among_the_keys_are_scripts_too() -> None:
    data = with_scripts(SCRIPTS[0], behind=aux(b"lua", SCRIPTS[1]) + key(b"z", 0, string(b"v")))
    out, report = converted(data, "redis-7.2")
    assert report.scripts == list(SCRIPTS)
    assert out == rdb(VERSION, b"\xfe\0" + key(b"k", 0, string(b"v")) + key(b"z", 0, string(b"v")))


def test_check_says_what_is_lost_and_the_command_allows_it() -> None:
    data = with_scripts(*SCRIPTS)
    report = check(io.BytesIO(data), "azure-managed")
    assert (report.verdict, report.options) == ("lossy", ["--on-lua-script drop"])
    (finding,) = report.findings
    assert (finding.code, finding.severity, finding.count, finding.title) == ("RDB218", "loss", 2, "2 Lua scripts")
    assert "NOSCRIPT" in finding.why
    assert check(io.BytesIO(data), "azure-premium").verdict == "as-it-is"
    out, _ = converted(data, "azure-managed")
    assert check(io.BytesIO(out), "azure-managed").verdict == "as-it-is"


def test_info_counts_scripts() -> None:
    report = rdbkit.info(io.BytesIO(with_scripts(*SCRIPTS)))
    assert report.scripts == [{"sha1": digest(body), "bytes": len(body)} for body in SCRIPTS]
    rows = {row.target: (row.loads, row.why) for row in report.loads_as_is}
    assert rows["azure-premium"] == ("yes", "")
    assert rows["azure-managed"] == rows["redis-7.0"] == ("partly", "2 Lua scripts would be dropped silently")
    assert "Azure Managed Redis would leave data out: 2 Lua scripts would be dropped silently" in report.next


def test_merge_unites_scripts_and_gives_them_where_they_are_loaded(tmp_path: Path) -> None:
    files = []
    for name, bodies in (("a", SCRIPTS), ("b", (SCRIPTS[1], b"return 3"))):
        files.append(tmp_path / name)
        lines = [aux(b"lua", body) for body in bodies]
        files[-1].write_bytes(rdb(*lines, b"\xfe\0", key(name.encode(), 0, string(b"v"))))
    wanted = [*SCRIPTS, b"return 3"]
    out = tmp_path / "out.rdb"
    rdbkit.merge(files, out, target="redis-6.2")
    with rdbkit.open(out) as snapshot:
        assert [event.value for event in snapshot.events() if isinstance(event, rdbkit.Aux)] == wanted
    report = rdbkit.merge(files, out, target="redis-7.2", force=True)
    assert (report.scripts, report.ledger.counts, report.keys) == (wanted, {"script": 3}, 2)
    assert b"return" not in out.read_bytes()
    with pytest.raises(rdbkit.LossError):
        rdbkit.merge(files, tmp_path / "no.rdb", target="redis-7.2", policies=rdbkit.Policies(lua_script="fail"))
    assert not (tmp_path / "no.rdb").exists()


def commands_of(data: bytes) -> list[list[bytes]]:
    found = []
    rest = io.BytesIO(data)
    while line := rest.readline():
        words = []
        for _ in range(int(line[1:])):
            words.append(rest.read(int(rest.readline()[1:])))
            assert rest.read(2) == b"\r\n"
        found.append(words)
    return found


def test_extracted_scripts_are_commands_that_load_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out, scripts = tmp_path / "a.rdb", tmp_path / "b.rdb", tmp_path / "scripts.resp"
    source.write_bytes(with_scripts(*SCRIPTS))
    assert run("convert", source, out, "--target", "redis-7.2", "--on-lua-script", f"extract={scripts}") == 0
    assert commands_of(scripts.read_bytes()) == [[b"SCRIPT", b"LOAD", body] for body in SCRIPTS]
    assert "noted, no loss of data: script 2" in capsys.readouterr().err
    assert run("convert", source, out, "--target", "redis-7.2", "--force", "--strict", "--json") == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["lost"] == {"script": 2}
    assert f"rdbkit: lost: script: Lua script {digest(SCRIPTS[0])}" in shown.err
    assert run("convert", source, out, "--target", "redis-7.2", "--force", "--on-lua-script", "fail") == 1
    assert "  script: --on-lua-script drop or extract=FILE" in capsys.readouterr().err
    assert run("convert", source, out, "--target", "redis-6.2", "--force", "--on-lua-script", f"extract={scripts}") == 0
    assert f"{scripts} has 2 scripts, and so has what was written" in capsys.readouterr().err


def exported(target: str, **options: Any) -> bytes:
    out = io.BytesIO()
    with rdbkit.open(io.BytesIO(with_scripts(*SCRIPTS))) as snapshot:
        rdbkit.export_resp(snapshot, out, target=target, **options)
    return out.getvalue()


def test_export_as_commands_loads_scripts() -> None:
    assert commands_of(exported("redis-8.0"))[:2] == [[b"SCRIPT", b"LOAD", body] for body in SCRIPTS]
    assert b"SCRIPT" not in exported("redis-8.0", selection=rdbkit.Selection(keys="k"))

"""The base of an append-only folder read alone: whoever judges it says that newer data stands beside it."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest

import rdbkit
from rdbkit.operations.check import AS_IT_IS, LOSS, LOSSY, NOTE, WARNING

from .. import command_line
from ..rdb import FIXTURES

FOLDER = FIXTURES / "aof" / "appendonlydir"
BASE = FOLDER / "appendonly.aof.2.base.rdb"
NEWER = "the base of an append-only folder; newer data stands beside it, in appendonly.aof.2.incr.aof"
UNKNOWN = "the base of an append-only folder; whether newer data stood beside it is not known"


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    return Path(shutil.copy(BASE, tmp_path / "alone.rdb"))


@pytest.fixture
def complete(tmp_path: Path) -> Path:
    """A base whose increment is empty."""
    shutil.copytree(FOLDER, tmp_path / "appendonlydir")
    (tmp_path / "appendonlydir" / "appendonly.aof.2.incr.aof").write_bytes(b"")
    return tmp_path / "appendonlydir" / BASE.name


def test_what_a_snapshot_knows_of_itself(alone: Path, complete: Path) -> None:
    for path, wanted in (
        (BASE, (("appendonly.aof.2.incr.aof",), True)),
        (alone, ((), False)),
        (complete, ((), True)),
        (FIXTURES / "rich" / "redis-7.0.15.rdb", None),  # aof-base=0
        (FIXTURES / "rich" / "redis-6.0.16.rdb", None),
    ):
        with rdbkit.open(path) as snapshot:
            assert snapshot.aof_base == wanted, path
    with rdbkit.open(io.BytesIO(BASE.read_bytes())) as snapshot:
        assert snapshot.aof_base == ((), False)


@pytest.mark.parametrize(("allow", "severity", "verdict"), [(None, LOSS, LOSSY), (False, LOSS, LOSSY), (True, WARNING, AS_IT_IS)])
def test_check_does_not_approve_of_it(allow: bool | None, severity: str, verdict: str) -> None:
    report = rdbkit.check(BASE, "redis-7.2", allow_base=allow)
    (finding,) = report.findings
    assert (finding.code, finding.severity, finding.title) == ("RDB413", severity, NEWER)
    assert report.verdict == verdict
    source = FOLDER if severity == LOSS else BASE
    assert report.command == f"rdbkit convert {source} {source.name.removesuffix('.rdb')}-redis-7.2.rdb --target redis-7.2"


@pytest.mark.parametrize(("allow", "severity"), [(None, NOTE), (True, NOTE), (False, LOSS)])
def test_where_nobody_can_know(allow: bool | None, severity: str, alone: Path) -> None:
    report = rdbkit.check(alone, "redis-7.2", allow_base=allow)
    (finding,) = report.findings
    assert (finding.code, finding.severity, finding.title) == ("RDB413", severity, UNKNOWN)


def test_a_base_that_lacks_nothing(complete: Path) -> None:
    assert rdbkit.check(complete, "redis-7.2", allow_base=False).findings == []
    assert rdbkit.verify(complete).notes == []
    assert command_line.run("export", complete).stderr == b""


def test_the_command_is_of_the_folder_wherever_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FOLDER)
    command = rdbkit.check(BASE.name, "azure-premium").command
    assert command == f"rdbkit convert {FOLDER} appendonlydir-azure-premium.rdb --target azure-premium"


def test_info_and_verify_say_so(alone: Path) -> None:
    assert rdbkit.info(BASE).to_dict()["aof_base"] == {"newer": ["appendonly.aof.2.incr.aof"], "known": True}
    assert rdbkit.info(alone).to_dict()["aof_base"] == {"newer": [], "known": False}
    assert rdbkit.verify(BASE).notes == [NEWER]
    assert rdbkit.verify(BASE).sound
    assert f"warning      {NEWER}" in command_line.run("info", BASE).stdout.decode()
    assert f"note         {UNKNOWN}" in command_line.run("info", alone).stdout.decode()


@pytest.mark.parametrize(
    "words",
    ["export {}", "get {} a", "keys {}", "memory {} --target redis-7.2", "convert {} {out} --target redis-7.2", "verify {}"],
)
def test_every_verb_warns(words: str, tmp_path: Path) -> None:
    arguments = [word.format(BASE, out=tmp_path / "out.rdb") for word in words.split()]
    done = command_line.run(*arguments)
    assert done.returncode == 0
    assert done.stderr.decode() == f"rdbkit: warning: {BASE}: {NEWER}: name the folder\n"
    arguments = [word.format(BASE, out=tmp_path / "out2.rdb") for word in words.split()]
    assert command_line.run(*arguments, "--allow-base").stderr == b""


def test_the_exit_code_of_check() -> None:
    assert command_line.run("check", BASE, "--target", "redis-7.2").returncode == 1
    done = command_line.run("check", BASE, "--target", "redis-7.2", "--allow-base", "--json")
    assert done.returncode == 0
    (report,) = json.loads(done.stdout)["files"]
    assert [finding["severity"] for finding in report["findings"]] == ["warning"]


def test_migrate_and_upload_send_nothing() -> None:
    cache = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Cache/Redis/n"
    container = "https://account.blob.core.windows.net/container/"
    commands: list[list[str | Path]] = [
        ["migrate", BASE, "--target", "azure-premium", "--resource-id", cache, "--container", container, "--yes", "n"],
        ["upload", BASE, container, "--target", "azure-premium"],
    ]
    for words in commands:
        done = command_line.run(*words)
        assert done.returncode == 1
        assert done.stderr.decode().splitlines() == [
            f"rdbkit: warning: {BASE}: {NEWER}: name the folder",
            "rdbkit: nothing was sent, since a FILE lacks newer data; --allow-base sends it without",
        ]


@pytest.mark.parametrize(
    ("path", "what"),
    [
        (FOLDER, "this is an append-only folder"),
        (FOLDER / "appendonly.aof.manifest", "this is the manifest of an append-only folder"),
        (FOLDER / "appendonly.aof.2.incr.aof", "this is an append-only file of commands"),
    ],
)
def test_open_names_what_makes_a_snapshot_of_it(path: Path, what: str) -> None:
    with pytest.raises(rdbkit.CorruptError) as e:
        rdbkit.open(path)
    assert str(e.value) == f"{path}: no RDB file: {what}, of which rdbkit fold makes a snapshot"

"""Commands that are printed can be pasted into a shell, whatever files are called."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

import rdbkit
from rdbkit.cli import cli
from rdbkit.cli.plan import _folded
from rdbkit.operations.check import check
from rdbkit.targets.target import find_target
from rdbkit.text import path_word, shell_word

from .. import command_line
from ..rdb import FIXTURES

SHELLS = [shell for shell in ("sh", "bash", "dash", "zsh") if shutil.which(shell)]
DUMP = FIXTURES / "rich" / "redis-7.0.15.rdb"
#: Names of files that commands are made of.
NAMES = [
    "a b.rdb",
    "it's \"so\" 'far'.rdb",
    "it's --a " + "long " * 20 + "--b c.rdb",
    "line\nand --line.rdb",
    "\n",
    "ends.rdb\n\n",
    "-rf.rdb",
    "--target\n",
    "-",
    "<x.rdb",
    "<stdin>",
    "caf\udce9 \udcff'.rdb",
    "$HOME ${x} $(date) `date`.rdb",
    "back\\slash\\n\\012.rdb",
    "%s%n%%.rdb",
    "%s\n%d\x1b[31m.rdb",
    "\N{RIGHT-TO-LEFT OVERRIDE}bdr.\N{LATIN SMALL LETTER E WITH ACUTE}",
    "~",
    "#hash !bang *.rdb",
    "@x.rdb",
    "tab\there.rdb.gz",
    "=x.rdb",
    "x" * 240 + ".rdb",
]


pytestmark = pytest.mark.skipif(not SHELLS, reason="there is no shell")


def copy_to(name: str, folder: Path) -> str:
    """A snapshot of this name in the current folder; how it is named to a command."""
    try:
        shutil.copy(DUMP, folder / name)
    except OSError:
        pytest.skip("a name that this file system does not take")
    return f"./{name}" if name.startswith("-") else name


@pytest.fixture
def path_with_rdbkit(tmp_path: Path) -> str:
    """A PATH on which `rdbkit` says what it is given."""
    folder = tmp_path / "bin of ours"
    folder.mkdir()
    script = folder / "rdbkit"
    script.write_text("#!/bin/sh\nprintf '%s\\0' \"$@\"\n")
    script.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize("shell", SHELLS)
def test_a_word_is_one_word_in_every_shell(shell: str) -> None:
    words = " ".join(map(shell_word, NAMES))
    made = subprocess.run([shell, "-c", f"printf '%s\\0' {words}"], capture_output=True)
    assert made.stdout.split(b"\0")[:-1] == [os.fsencode(name) for name in NAMES], made.stderr
    assert all(char.isprintable() or char == "\n" for char in words)


def test_zsh_looks_up_no_command() -> None:
    """It has =x for the path of the command x, where = comes first and is not quoted."""
    assert [shell_word(name) for name in ("=x.rdb", "=a b", "a=b")] == ["'=x.rdb'", "'=a b'", "a=b"]


@pytest.mark.parametrize("shell", SHELLS)
def test_lines_end_between_words_alone(shell: str) -> None:
    for name in NAMES:
        command = f"printf '%s\\0' {path_word(name)} --target x {shell_word(name)} --option-of-some-length --another-option y"
        lines = _folded(command)
        assert all(line.endswith(" \\") for line in lines[:-1])
        made = subprocess.run([shell, "-c", "\n".join(lines)], capture_output=True)
        wanted = [path_word(name) and (f"./{name}" if name.startswith("-") else name), "--target", "x", name]
        wanted += ["--option-of-some-length", "--another-option", "y"]
        assert made.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in wanted], made.stderr
    assert len(_folded("rdbkit convert 'it' out.rdb " + " ".join(f"--option-{n} value" for n in range(20)))) > 4


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_check_and_plan_print_commands_for_any_name(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path_with_rdbkit: str
) -> None:
    monkeypatch.chdir(tmp_path)
    given = copy_to(name, tmp_path)
    runner = CliRunner()
    told = runner.invoke(cli, ["check", "--target", "azure-premium", "--json", given]).output
    command = json.loads(told)["files"][0]["command"]
    shown = runner.invoke(cli, ["check", "--target", "azure-premium", given]).output
    assert f"  run first  {command}\n" in shown
    planned = runner.invoke(cli, ["plan", "--target", "azure-premium", given]).output
    if name.isprintable() and not name.startswith("@"):  # plan names the file by what a blob can be called, and Azure CLI takes
        assert "\n".join(f"   {line}" for line in _folded(command)) in planned
    before = set(os.listdir())
    environment = {**os.environ, "PATH": path_with_rdbkit}
    words = subprocess.run(["sh", "-c", command], capture_output=True, env=environment, check=True).stdout.split(b"\0")[:-1]
    made = command_line.run_text(*map(os.fsdecode, words))
    (written,) = set(os.listdir()) - before
    assert "27 keys written" in made.stdout, made.stderr
    with rdbkit.open(f"./{written}") as snapshot:
        assert snapshot.header == ("redis", 9)


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_plan_uploads_what_it_converted(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands, run with an `az` that only says what it is given."""
    monkeypatch.chdir(tmp_path)
    given = copy_to(name, tmp_path)
    asked = tmp_path / "asked"
    az = tmp_path / "az"
    az.write_text(f"#!/bin/sh\nprintf '%s\\0' \"$@\" >> '{asked}'\nprintf '\\0' >> '{asked}'\n")
    az.chmod(0o755)
    shutil.copy(az, tmp_path / "rdbkit")
    told = CliRunner().invoke(cli, ["plan", "--target", "azure-managed", "--json", given]).output
    steps = [step for step in json.loads(told)["steps"] if step["title"].startswith(("Convert", "Upload"))]
    commands = [line for step in steps for command in step["commands"] for line in _folded(command)]
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "STORAGE_ACCOUNT": "a", "CONTAINER": "c"}
    made = subprocess.run(["sh", "-c", "\n".join(commands)], capture_output=True, env=environment)
    assert made.returncode == 0, made.stderr
    calls = [call.split(b"\0") for call in asked.read_bytes().split(b"\0\0")[:-1]]
    convert = next(call for call in calls if call[0] == b"convert")
    upload = next(call for call in calls if b"upload" in call)
    assert os.path.realpath(convert[1]) == os.fsencode(os.path.realpath(name))
    file = upload[upload.index(b"--file") + 1]
    assert os.path.realpath(file) == os.path.realpath(convert[2])
    assert not file.startswith((b"-", b"@"))
    blob = upload[upload.index(b"--name") + 1] if b"--name" in upload else next(a for a in upload if a.startswith(b"--name="))[7:]
    assert blob == os.path.basename(file)


def test_what_has_no_path_comes_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    target = find_target("azure-premium")
    with open(DUMP, "rb") as file, rdbkit.open(file) as snapshot:
        assert check(snapshot, target).command.startswith(f"rdbkit convert {shell_word(str(DUMP))} redis-7.0.15-azure-premium.rdb ")
    told = CliRunner().invoke(cli, ["check", "-", "--target", "azure-premium", "--json"], input=DUMP.read_bytes()).output
    assert json.loads(told)["files"][0]["command"].startswith("rdbkit convert - out.rdb ")

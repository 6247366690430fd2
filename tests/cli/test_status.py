"""Exit codes of verbs that write: a loss that an option allows is no failure, and with --strict it is."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from .. import command_line
from ..format.test_decode import lp
from ..rdb import FIXTURES, key, rdb, string

RICH = FIXTURES / "rich"
BAD_HASH = key(b"bad", 16, string(lp(b"f", b"v")[:-1] + b"\0"))

#: What loses something that is allowed, `{out}` standing for what is written, and a word of what is said of it.
ALLOWED = {
    "convert": ("convert {rich} {out} --target redis-6.0 --on-function drop", "lost in all: function 1"),
    "convert-damage": ("convert {bad} {out} --target redis-6.0 --on-error skip", "left out: "),
    "convert-checksum": ("convert {changed} {out} --target redis-6.0 --on-error skip", "the checksum differs"),
    "convert-conflict": ("convert {dbs} {out} --target redis-6.0 --collapse-dbs --on-conflict first", "lost in all: conflict 1"),
    "convert-form": ("convert {fields} {out} --target redis-7.2 --on-field-ttl key-max", "lost in all: field-expiry 3"),
    "merge": ("merge {rich} -o {out} --target redis-6.0 --on-loss drop", "lost in all: function 1"),
    "merge-duplicate": ("merge {one} {two} -o {out} --on-duplicate last", "more than once"),
    "merge-libraries": ("merge {old_code} {new_code} -o {out} --on-function-conflict last", "is kept"),
    "split": ("split {behind} --into {out} --parts 2 --on-loss drop", "in no part"),
    "export": ("export {fields} -o {out} --format resp --target redis-7.2 --on-loss drop --type hash", "lost in all: field-expiry"),
    "export-damage": ("export {bad} -o {out} --on-error skip", "1 key left out"),
    "build": ("build {lines} {out} --target redis-6.0 --on-loss drop", "lost in all: array 1"),
    "salvage": ("salvage {bad} {out}", "1 damaged key left out"),
    "salvage-checksum": ("salvage {changed} {out}", "the checksum differs"),
    "redact": ("redact {rich} {out} --random", "left out: 1 function library"),
}
#: What nobody has allowed.
REFUSED = {
    "convert": "convert {rich} {out} --target redis-6.0",
    "convert-behind": "convert {behind} {out} --target redis-6.0",
    "merge": "merge {rich} -o {out} --target redis-6.0",
    "merge-duplicate": "merge {one} {two} -o {out}",
    "split": "split {behind} --into {out} --parts 2",
    "export": "export {fields} -o {out} --format resp --target redis-7.2",
    "build": "build {lines} {out} --target redis-6.0",
}


def run(command: str, tmp_path: Path, **more: Path) -> subprocess.CompletedProcess[str]:
    plain = [key(b"a", 0, string(b"v")), key(b"b", 0, string(b"v"))]
    made = {
        "one": rdb(*plain),
        "two": rdb(plain[0]),
        "bad": rdb(plain[0], BAD_HASH, magic=b"REDIS0010"),
        "changed": rdb(*plain).replace(b"\x01b", b"\x01c"),
        "behind": rdb(*plain) + b"*1\r\n$4\r\nPING\r\n",
        "dbs": rdb(b"\xfe\0", plain[0], b"\xfe\1", plain[0]),
        "old_code": rdb(b"\xf5" + string(b"#!lua name=l\nold"), magic=b"REDIS0010"),
        "new_code": rdb(b"\xf5" + string(b"#!lua name=l\nnew"), magic=b"REDIS0010"),
        "lines": b'{"db":0,"key":"k","type":"array","value":[[0,"v"]]}\n{"db":0,"key":"s","type":"string","value":"v"}\n',
    }
    names = {"rich": RICH / "redis-7.0.15.rdb", "fields": RICH / "redis-7.4.1.rdb", **more}
    for name, data in made.items():
        names[name] = tmp_path / f"{name}.in"
        names[name].write_bytes(data)
    words = [word.format(**names) for word in shlex.split(command)]
    return command_line.run_text(*words)


@pytest.mark.parametrize("name", ALLOWED)
def test_what_is_allowed_to_be_lost_is_no_failure(name: str, tmp_path: Path) -> None:
    command, said = ALLOWED[name]
    done = run(command, tmp_path, out=tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert said in done.stdout + done.stderr
    strict = run(f"{command} --strict", tmp_path, out=tmp_path / "strict")
    assert strict.returncode == 1, strict.stderr
    assert said in strict.stdout + strict.stderr
    if (tmp_path / "out").is_file() and not name.startswith("redact"):
        assert (tmp_path / "strict").read_bytes() == (tmp_path / "out").read_bytes(), "only the exit code differs"


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_allowed_is_a_failure(name: str, tmp_path: Path) -> None:
    done = run(REFUSED[name], tmp_path, out=tmp_path / "out")
    assert done.returncode == 1, done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "command",
    [
        "convert {one} {out} --target redis-6.0",
        "convert {stream} {out} --target redis-6.0",  # counters are a note
        "merge {one} -o {out}",
        "split {one} --into {out} --parts 2",
        "export {one} -o {out}",
        "build {text} {out} --target redis-6.0",
        "salvage {one} {out}",
        "redact {one} {out} --random",
    ],
)
def test_nothing_lost_is_nothing_lost_to_strict_ones(command: str, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(b'{"db":0,"key":"s","type":"string","value":"v"}\n')
    stream = RICH / "redis-7.0.15.rdb"
    command = command.replace("{stream}", "{stream} --on-function extract={code}")
    done = run(f"{command} --strict", tmp_path, out=tmp_path / "out", text=text, stream=stream, code=tmp_path / "code")
    assert done.returncode == 0, done.stderr


def test_a_file_that_no_server_loads_is_a_finding_though_it_was_asked_for(tmp_path: Path) -> None:
    done = run("merge {one} {two} -o {out} --on-duplicate keep-all-error-list", tmp_path, out=tmp_path / "out")
    assert done.returncode == 1
    assert (tmp_path / "out").exists()


def test_a_script_goes_on(tmp_path: Path) -> None:
    rdbkit = shlex.join([sys.executable, "-m", "rdbkit"])
    source, out = RICH / "redis-7.0.15.rdb", tmp_path / "out.rdb"
    line = f"{rdbkit} convert {shlex.quote(str(source))} {shlex.quote(str(out))} --target redis-6.0 --on-function drop && echo next"
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False)
    assert done.stdout.endswith("next\n")

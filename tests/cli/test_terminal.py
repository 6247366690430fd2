"""What a terminal is shown: no control character of a file, in whichever verb. Files and pipes get bytes as they are."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rdbkit

from .. import command_line

if sys.platform == "win32":
    pytest.skip("there are no pseudo terminals", allow_module_level=True)

import pty

EVIL = "\x1b]0;pwn\x07\u009b31m\u202e\u2066\u061c\u200f\u2069\r\n\x08\x7f\u0085\xe9\u2042"
E = EVIL.encode()
CONTROLS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")

#: Arguments of every verb that shows something, with {a}, {b} and {bad} for files whose names and keys have control characters.
HUMAN = {
    "info": "info {a}",
    "check": "check {a} --target azure-premium",
    "check --duplicates": "check {a} {b} --target azure-premium --duplicates",
    "check github": "check {a} --target azure-premium --format github",
    "memory": "memory {a} --target redis-7.2",
    "plan": "plan {a} --target azure-managed",
    "diff": "diff {a} {b}",
    "verify": "verify {a} {bad} --deep",
    "salvage": "salvage {bad} {out}",
    "convert": "convert {a} {out} --target redis-5.0",
    "merge": "merge {a} {b} {out}",
    "split": "split {a} --by key --into {out}",
    "redact": "redact {a} {out}",
    "damaged": "export {bad} -o {out}",
    "missing": "info {out}",
    "usage": "info --{evil}",
    "no key": "get {a} none{evil}",
    "no target": "check {a} --target {evil}",
    "no pattern": "keys {a} --key-regex ({evil}",
}
JSON = {
    "info --json": "info {a} --json",
    "check --json": "check {a} --target azure-premium --json",
    "verify --json": "verify {a} --deep --json",
    "diff --json": "diff {a} {b} --json",
    "get": "get {a} h{evil}",
    "export": "export {a}",
    "keys jsonl": "keys {a} --format jsonl",
    "memory jsonl": "memory {a} --target redis-7.2 --format jsonl",
}
DATA = {"get": "get {a} s{evil}", "keys csv": "keys {a} --format csv", "memory csv": "memory {a} --target redis-7.2 --format csv"}
BINARY = {
    "convert": "convert {a} - --target redis-7.2 --on-function drop",
    "merge": "merge {a} {b} -o - --on-duplicate first",
    "redact": "redact {a} -",
    "salvage": "salvage {a} -",
    "export resp": "export {a} --format resp",
}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("evil")
    found = {"evil": EVIL}
    for name in ("a", "b"):
        path = found[name] = str(folder / f"{name}{EVIL}.rdb")
        with rdbkit.create(path, version=11) as writer:
            for field in (b"redis-ver", b"repl-id", E):
                writer.aux(field, E)
            writer.function(b"#!lua name=" + name.encode() + b"\n" + E)
            for db in (0, 3):
                writer.put(b"s" + E, E, db=db)
                writer.put(b"h" + E, {E: E, b"f": name.encode()}, db=db)
                writer.put(b"l" + E, [E, name.encode()], db=db)
    data = Path(found["a"]).read_bytes()
    at = data.index(b"h" + E) + len(E) + 20
    found["bad"] = str(folder / f"bad{EVIL}.rdb")
    Path(found["bad"]).write_bytes(data[:at] + b"\xff" * 40 + data[at + 40 :])
    return found


def arguments(text: str, files: dict[str, str], out: Path) -> list[str]:
    """Split by spaces before names are put in."""
    return [word.format(**files, out=out / EVIL) for word in text.split()]


def on_terminal(arguments: list[str]) -> tuple[int, str]:
    """Exit code, and what a terminal without colours is sent by both streams."""
    ours, theirs = pty.openpty()
    env = dict(os.environ, TERM="dumb", COLUMNS="120")
    command = [sys.executable, "-m", "rdbkit", *arguments]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=theirs, stderr=theirs, env=env)
    os.close(theirs)
    parts = []
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # Linux says so at the end
            break
        if not part:
            break
        parts.append(part)
    os.close(ours)
    return process.wait(), b"".join(parts).replace(b"\r\n", b"\n").decode()


@pytest.mark.one_in(3)
@pytest.mark.parametrize("name", HUMAN)
def test_words_and_tables(name: str, files: dict[str, str], tmp_path: Path) -> None:
    code, shown = on_terminal(arguments(HUMAN[name], files, tmp_path))
    assert "Traceback" not in shown
    assert CONTROLS.findall(shown) == []
    (tmp_path / "pipe").mkdir()
    done = command_line.run_text(*arguments(HUMAN[name], files, tmp_path / "pipe"))
    assert done.returncode == code
    assert CONTROLS.findall(done.stdout + done.stderr) == []  # what is for people may be shown later


def lines(text: str) -> list[Any]:
    """Objects of JSON, without messages."""
    rest = "".join(line + "\n" for line in text.split("\n") if not line.startswith("rdbkit: ")).strip()
    found = []
    while rest:
        each, end = json.JSONDecoder().raw_decode(rest)
        found.append(each)
        rest = rest[end:].strip()
    return found


@pytest.mark.parametrize("name", JSON)
def test_json_means_the_same(name: str, files: dict[str, str], tmp_path: Path) -> None:
    words = arguments(JSON[name], files, tmp_path)
    _, shown = on_terminal(words)
    assert CONTROLS.findall(shown) == []
    done = command_line.run(*words)
    assert lines(shown) == lines(done.stdout.decode())
    if name == "export":
        assert "\u202e".encode() in done.stdout  # as ever
        assert "\u2042" in shown


@pytest.mark.parametrize("name", DATA)
def test_data(name: str, files: dict[str, str], tmp_path: Path) -> None:
    words = arguments(DATA[name], files, tmp_path)
    _, shown = on_terminal(words)
    assert CONTROLS.findall(shown) == []
    assert "\\u001b]0;pwn\\u0007\\u009b31m\\u202e" in shown
    assert E in command_line.run(*words).stdout


@pytest.mark.parametrize("name", BINARY)
def test_binary_data_is_not_for_a_terminal(name: str, files: dict[str, str], tmp_path: Path) -> None:
    words = arguments(BINARY[name], files, tmp_path)
    code, shown = on_terminal(words)
    assert code == 2
    assert "it is binary, and standard output is a terminal" in shown
    assert command_line.run(*words).stdout


def test_characters_that_are_cut_by_a_block(files: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "long.rdb"
    text = "\u202e\u009b\u061c\u2066\u20ac" * 5000
    with rdbkit.create(path, version=11) as writer:
        for n in range(3):
            writer.put(b"k%d" % n, (text + "x" * n).encode())
        writer.put(b"cut", b"\xe2\x80")
    code, shown = on_terminal(["export", str(path)])
    assert code == 0
    assert CONTROLS.findall(shown) == []
    assert [line["value"] for line in lines(shown)][:3] == [text + "x" * n for n in range(3)]

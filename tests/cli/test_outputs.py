"""What verbs write: under which name, in which format, and never over a file that they read."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from rdbkit.cli import cli
from rdbkit.cli.files import InputPath, OutputFolder, OutputPath, Verb
from rdbkit.operations.build import build

from .. import command_line
from ..rdb import FIXTURES, key, rdb, string

DUMP = FIXTURES / "rich" / "redis-7.0.15.rdb"
SMALL = rdb(key(b"a", 0, string(b"v")), key(b"b", 0, string(b"v")))
LINE = b'{"db":0,"key":"k","type":"string","value":"v"}\n'


def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
    done = command_line.run(*args)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode())


def params() -> Iterator[tuple[click.Command, click.Parameter]]:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        for param in command.get_params(context):
            yield command, param


def test_every_file_of_every_verb_is_known_as_read_or_written() -> None:
    for command, param in params():
        assert isinstance(command, Verb), command.name
        if isinstance(param.type, click.Path):
            assert isinstance(param.type, InputPath | OutputPath | OutputFolder), f"{command.name} {param.name}"


def test_every_verb_names_what_it_writes_by_the_same_options() -> None:
    options: dict[str, set[str]] = {}
    for command, param in params():
        options.setdefault(str(command.name), set()).update(param.opts)
    for verb in ("convert", "merge", "split", "build", "salvage", "redact", "export", "keys", "get", "memory"):
        assert {"-o", "--output", "--force"} <= options[verb], verb


#: Verbs with one FILE and one OUT.
ONE_TO_ONE = [
    ["convert", "--target", "redis-6.0"],
    ["build", "--target", "redis-6.0"],
    ["salvage"],
    ["redact", "--random"],
]
TO_STREAM = [["export"], ["export", "--format", "resp"], ["keys"], ["memory", "--target", "redis-6.0"], ["get"]]


def source_of(tmp_path: Path, verb: str) -> Path:
    source = tmp_path / "source"
    source.write_bytes(LINE if verb == "build" else SMALL)
    return source


@pytest.mark.parametrize("words", ONE_TO_ONE, ids=lambda words: words[0])
def test_out_is_an_argument_or_an_option(tmp_path: Path, words: list[str]) -> None:
    source = source_of(tmp_path, words[0])
    for out in (["out.rdb"], ["-o", "out2.rdb"], ["--output", "out3.rdb"]):
        made = run(*words, source, *out[:-1], tmp_path / out[-1])
        assert made.returncode == 0, made.stderr
        assert (tmp_path / out[-1]).exists()
    both = run(*words, source, tmp_path / "x.rdb", "-o", tmp_path / "y.rdb")
    assert (both.returncode, "OUT is given twice" in both.stderr) == (2, True)
    none = run(*words, source)
    assert (none.returncode, "name the file to write: OUT, or -o OUT" in none.stderr) == (2, True)
    again = run(*words, source, "-o", tmp_path / "out.rdb")
    assert (again.returncode, "exists; --force replaces it" in again.stderr) == (2, True)
    assert sorted(os.listdir(tmp_path)) == ["out.rdb", "out2.rdb", "out3.rdb", "source"]


@pytest.mark.parametrize("words", ONE_TO_ONE + TO_STREAM, ids=" ".join)
def test_no_verb_writes_over_what_it_reads(tmp_path: Path, words: list[str]) -> None:
    source = source_of(tmp_path, words[0])
    before = source.read_bytes()
    (tmp_path / "soft").symlink_to(source)
    os.link(source, tmp_path / "hard")
    (tmp_path / "folder").symlink_to(tmp_path)
    for name in ("source", "soft", "hard", "folder/source", "folder/./source"):
        for read, out in ((source, f"{tmp_path}/{name}"), (f"{tmp_path}/{name}", source)):
            made = run(*words, read, *(["a"] if words[0] == "get" else []), "-o", out, "--force")
            assert made.returncode == 2, name
            assert "are the same file" in made.stderr
            assert source.read_bytes() == before
    assert (tmp_path / "soft").is_symlink()


def test_a_merge_whose_output_is_forgotten_destroys_nothing(tmp_path: Path) -> None:
    first, second = tmp_path / "1.rdb", tmp_path / "2.rdb"
    for path in (first, second):
        path.write_bytes(rdb(key(path.name.encode(), 0, string(b"v"))))
    before = second.read_bytes()
    for out in ([], [tmp_path / "new.rdb"]):
        made = run("merge", first, second, *out, "--force")
        assert (made.returncode, made.stdout) == (2, "")
        assert "name the file to write: -o OUT" in made.stderr
    os.link(second, tmp_path / "hard.rdb")
    for same in (second, tmp_path / "hard.rdb"):
        made = run("merge", first, second, "--force", "-o", same)
        assert made.returncode == 2
        assert "--output and FILE are the same file" in made.stderr
    assert second.read_bytes() == before
    made = run("merge", first, second, "-o", tmp_path / "new.rdb")
    assert made.returncode == 0, made.stderr


def test_a_split_writes_over_nothing_that_it_reads(tmp_path: Path) -> None:
    """Neither by its manifest nor by a part."""
    source = tmp_path / "manifest.json"
    source.write_bytes(SMALL)
    other = tmp_path / "other"
    other.mkdir()
    os.link(source, other / "manifest.json")
    os.link(source, other / "0001.rdb")
    for into in (tmp_path, other):
        made = run("split", source, "-o", into, "--parts", "2", "--force")
        assert made.returncode == 2, into
        assert "manifest.json in --output and FILE are the same file" in made.stderr
    (other / "manifest.json").unlink()
    made = run("split", source, "--into", other, "--parts", "2", "--force")
    assert made.returncode == 2
    assert "is one of the files to be read" in made.stderr
    nodes = other / "manifest.json"
    nodes.write_text("07c3 10.0.0.1:6379@16379 myself,master - 0 0 1 connected 0-16383\n")
    made = run("split", source, "--into", other, "--nodes", nodes, "--force")
    assert (made.returncode, "manifest.json in --output and --nodes are the same file" in made.stderr) == (2, True)
    assert source.read_bytes() == SMALL


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("convert {a} {b} --target redis-6.0 --ledger {b}", "--ledger and OUT"),
        ("convert {a} -o {b} --target redis-6.0 --ledger {a}", "--ledger and FILE"),
        ("convert {a} -o {b} --target redis-6.0 --on-function extract={b}", "--on-function extract and --output"),
        ("convert {a} -o {b} --target redis-6.0 --on-function extract={a}", "--on-function extract and FILE"),
        ("convert {a} -o {b} --target redis-6.0 --on-function extract={c} --ledger {c}", "--ledger"),
        ("convert {a} -o {script} --target redis-6.0 --script {script}", "--output and --script"),
        ("convert {a} -o {toml} --target redis-6.0 --targets-file {toml}", "--output and --targets-file"),
        ("salvage {a} {b} --losses {b}", "--losses and OUT"),
        ("salvage {a} - --losses -", "--losses and OUT both go to standard output"),
        ("salvage {a} {b} --losses {a}", "--losses and FILE"),
        ("redact {a} {script} --secret-file {script}", "OUT and --secret-file"),
        ("plan {a} --target azure-managed --bicep {a}", "--bicep and FILE"),
        ("plan {a} --target azure-managed --terraform {a}", "--terraform and FILE"),
        ("diff {a} {a2} --delta {hard}", "--delta and A"),
        ("migrate {a} --target azure-premium --resource-id {id} --container {url} --yes c --report {a}", "--report and FILE"),
        ("migrate {a} --target azure-premium --resource-id {id} --container {url} --yes c --state {a}", "--state and FILE"),
        ("upload {a} {url}b --target redis-6.0 --on-function extract={a}", "--on-function extract and FILE"),
        ("verify-import {a} redis://127.0.0.1:1 --state {a}", "--state and FILE"),
        ("memory {a} --target redis-6.0 --html {a}", "--html and FILE"),
    ],
)
def test_files_of_options_are_their_own(tmp_path: Path, words: str, said: str) -> None:
    cache = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/g/providers/Microsoft.Cache/Redis/c"
    names = {name: tmp_path / name for name in ("a", "a2", "b", "c", "script", "toml")}
    names["a"].write_bytes(SMALL)
    names["a2"].write_bytes(rdb(key(b"c", 0, string(b"v"))))
    names["script"].write_text("def record(r):\n    return r\n")
    names["toml"].write_text("")
    os.link(names["a"], tmp_path / "hard.rdb")
    more = {"id": cache, "url": "https://account.blob.core.windows.net/dumps/", "hard": tmp_path / "hard.rdb"}
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    force = ["--force"] if words.split()[0] in ("convert", "salvage", "redact", "plan", "diff", "memory") else []
    made = run(*(word.format(**names, **more) for word in words.split()), *force)
    assert made.returncode == 2, made.stderr
    assert said in made.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_the_device_that_has_nothing_to_lose_is_no_file(tmp_path: Path) -> None:
    source = source_of(tmp_path, "convert")
    args: list[str | Path] = ["convert", source, "-o", "/dev/null", "--target", "redis-6.0", "--ledger", "/dev/null"]
    assert run(*args).returncode == 0


def test_the_library_refuses_as_well(tmp_path: Path) -> None:
    source = source_of(tmp_path, "build")
    with pytest.raises(ValueError, match="the destination is the source"):
        build(source, source, target="redis-6.0", force=True)
    assert source.read_bytes() == LINE


# -- names and formats


@pytest.mark.parametrize(
    ("words", "name", "begin"),
    [
        ("keys {dump} -o", "x.csv", b"db,key,"),
        ("keys {dump} -o", "x.CSV", b"db,key,"),
        ("keys {dump} -o", "x.csv.gz", b"\x1f\x8b"),
        ("keys {dump} -o", "x.jsonl", b'{"db"'),
        ("keys {dump} -o", "x.ndjson", b'{"db"'),
        ("keys {dump} -o", "x", b"db,key,"),
        ("keys {dump} -o", "x.2026-01-01", b"db,key,"),
        ("keys {dump} --format jsonl -o", "x.txt", b'{"db"'),
        ("memory {dump} --target redis-7.0 -o", "x.jsonl", b'{"db"'),
        ("export {dump} -o", "x.jsonl", b'{"db"'),
        ("export {dump} -o", "x.resp", b"*"),
        ("export {dump} -o", "x.aof", b"*"),
        ("export {dump} -o", "x", b'{"db"'),
        ("get {dump} s_raw -o", "x.xlsx", b""),
    ],
)
def test_the_name_chooses_the_format(tmp_path: Path, words: str, name: str, begin: bytes) -> None:
    made = run(*words.format(dump=DUMP).split(), tmp_path / name)
    if words.startswith("get"):
        assert made.returncode in (0, 1), made.stderr  # a value can be of any format
        return
    assert made.returncode == 0, made.stderr
    assert (tmp_path / name).read_bytes().startswith(begin)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("keys {dump} -o x.xlsx", "x.xlsx says xlsx, which is none of csv, jsonl, parquet"),
        ("keys {dump} -o x.json", "x.json says json, which is none of"),
        ("keys {dump} --format csv -o x.parquet", "x.parquet says parquet, and --format csv"),
        ("keys {dump} --format table -o x.csv.gz", "x.csv.gz says csv, and --format table"),
        ("keys {dump} -o x.csv.zst", "ends in .zst, and .gz is all that rdbkit compresses to"),
        ("export {dump} -o all.parquet", "all.parquet says parquet, which is none of jsonl, resp"),
        ("export {dump} -o all.csv", "all.csv says csv, which is none of jsonl, resp"),
        ("export {dump} --format resp -o all.jsonl", "all.jsonl says jsonl, and --format resp"),
        ("export {dump} -o all.rdb", "all.rdb says rdb"),
        ("memory {dump} --target redis-7.0 -o x.html", "x.html says html, which is none of"),
        ("memory {dump} --target redis-7.0 --html x.pdf", "x.pdf says pdf, and html is written"),
        ("convert {dump} x.jsonl --target redis-7.0", "x.jsonl says jsonl, and rdb is written"),
        ("convert {dump} x.rdb.zst --target redis-7.0", "ends in .zst"),
        ("convert {dump} x.rdb --target redis-7.0 --ledger x.csv", "x.csv says csv, and jsonl is written"),
        ("merge {dump} -o x.parquet", "x.parquet says parquet, and rdb is written"),
        ("build {dump} x.csv --target redis-7.0", "x.csv says csv, and rdb is written"),
        ("salvage {dump} x.rdb --losses x.parquet", "x.parquet says parquet, and jsonl is written"),
        ("redact {dump} x.json --random", "x.json says json, and rdb is written"),
        ("convert {dump} x.rdb --target redis-7.0 --ledger -", "it takes the name of a file"),
        ("convert {dump} x.rdb --target redis-7.0 --ledger=", "it takes the name of a file"),
        ("verify-import {dump} redis://127.0.0.1:1 --state x.json.gz", "leave out the .gz"),
        ("plan {dump} --target azure-managed --bicep x.bicep.gz", "leave out the .gz"),
        ("plan {dump} --target azure-managed --terraform x.tf.gz", "leave out the .gz"),
    ],
)
def test_a_name_that_says_another_format_is_wrong_usage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    made = run(*words.format(dump=DUMP).split())
    assert (made.returncode, made.stdout) == (2, "")
    assert said in made.stderr
    assert os.listdir(tmp_path) == []


# -- a selection that takes nothing

SAID = "rdbkit: no key is chosen: none matches the options that choose keys\n"


@pytest.mark.parametrize(
    "words",
    [
        "info {dump}",
        "info {dump} --json",
        "keys {dump}",
        "keys {dump} --format table",
        "keys {dump} --format jsonl",
        "keys {dump} --sort size --limit 3",
        "export {dump}",
        "export {dump} --format resp",
        "convert {dump} {out} --target redis-7.0",
        "redact {dump} {out} --random",
        "memory {dump} --target redis-7.0",
        "memory {dump} --target redis-7.0 --format csv",
        "memory {dump} --target redis-7.0 --format jsonl",
    ],
)
def test_a_selection_that_takes_no_key_is_said(tmp_path: Path, words: str) -> None:
    made = run(*words.format(dump=DUMP, out=tmp_path / "out.rdb").split(), "--key", "no such name")
    assert made.returncode == 0, made.stderr
    assert made.stderr.count(SAID) == 1
    some = run(*words.format(dump=DUMP, out=tmp_path / "some.rdb").split(), "--type", "string")
    assert some.returncode == 0, some.stderr
    assert SAID not in some.stderr
    empty = tmp_path / "empty.rdb"
    empty.write_bytes(rdb())
    made = run(*words.format(dump=empty, out=tmp_path / "all.rdb").split())
    assert (made.returncode, SAID in made.stderr) == (0, False), "no selection"


def test_a_key_that_is_chosen_and_left_out_for_another_reason_is_chosen(tmp_path: Path) -> None:
    source = tmp_path / "a.rdb"
    source.write_bytes(rdb(key(b"gone", 0, string(b"v"), 1), key(b"k", 0, string(b"v"))))
    made = run("convert", source, "-o", tmp_path / "b.rdb", "--target", "redis-6.0", "--key", "gone", "--drop-expired")
    assert (made.returncode, made.stderr) == (0, "")


def test_parquet_without_rows_is_said(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    made = run("keys", DUMP, "-o", tmp_path / "x.parquet", "--key", "no such name")
    assert (made.returncode, made.stderr) == (0, SAID)
    made = run("memory", DUMP, "--target", "redis-7.0", "-o", tmp_path / "y.parquet", "--key", "no such name")
    assert (made.returncode, made.stderr) == (0, SAID)

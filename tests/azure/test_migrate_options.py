"""`migrate` and `upload` with the options of `convert`: databases, names, expiries, selections, scripts and damage."""

from __future__ import annotations

import io
import json
import re
import time
from pathlib import Path
from typing import Any

import click
import pytest

import rdbkit
from rdbkit.cli import cli
from rdbkit.operations.conversion_options import ConversionOptions

from ..arm import Cache, Cloud
from ..azurite import needs_azurite
from ..rdb import FIXTURES, key, rdb, string
from .shell import Shell, posts
from .test_migrate import a_dump, command, keys_of, kill_at, killed_when_begun, migrate, name_of

DUMP = FIXTURES / "rich/redis-7.2.6.rdb"
BOTH = ["--collapse-dbs", "--on-conflict", "rename={key}:db{db}"]
DAY = 86_400_000


def in_three_databases(path: Path, keys: int = 3) -> Path:
    """A snapshot of Redis 7.2 whose names meet when all of its keys go to one database."""
    with rdbkit.create(path, version=11) as writer:
        for db in range(3):
            for number in range(keys):
                writer.put(b"k%d" % number, b"of %d" % db * 20, db=db, expire_ms=None if number else int(time.time() * 1000) + DAY)
    return path


def names_of(data: bytes) -> list[bytes]:
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        return sorted(record.key for record in snapshot)


# -- which options there are


@pytest.mark.parametrize(
    ("name", "others"),
    [
        # --modules: the cache is asked which it has; --deep: all values are opened anyway; OUT and what names it are of a file;
        # --server and --download make a temporary copy of FILE, which a run that continues could not come back to
        ("migrate", {"--modules", "--deep", "--output", "--server", "--download"}),
        ("upload", {"--deep", "--output", "--server", "--download"}),
    ],
)
def test_every_option_of_convert_is_there(name: str, others: set[str]) -> None:
    def options(verb: str) -> dict[str, click.Option]:
        params = cli.get_command(click.Context(cli), verb).params  # type: ignore[union-attr]
        return {param.opts[-1]: param for param in params if isinstance(param, click.Option)}

    of_convert, here = options("convert"), options(name)
    assert {option for option in of_convert if option not in here} <= others
    for option in of_convert.keys() & here.keys() - {"--target", "--targets-file", "--redis-version"}:
        assert here[option].help == of_convert[option].help
        assert here[option].default == of_convert[option].default


def test_terms_say_all_but_the_time() -> None:
    def script(record: Any) -> Any:
        return record

    class Known:
        digest = "abc"

        def __call__(self, record: Any) -> Any:
            return record

    plain = ConversionOptions()
    assert plain.terms == ConversionOptions(now_ms=5, jobs=4).terms
    changed = [
        ConversionOptions(policies=rdbkit.Policies(loss="drop")),
        ConversionOptions(edits=rdbkit.Edits(collapse_dbs=True)),
        ConversionOptions(edits=rdbkit.Edits(set_ttl_ms=5)),
        ConversionOptions(edits=rdbkit.Edits(script=Known())),
        ConversionOptions(selection=rdbkit.Selection(keys="a*")),
        ConversionOptions(selection=rdbkit.Selection(ttl=(0, 5))),
        ConversionOptions(compress=True),
        ConversionOptions(on_error="skip"),
        ConversionOptions(relaxed=True),
        ConversionOptions(verify_checksum=False),
    ]
    assert len({each.terms for each in [plain, *changed]}) == len(changed) + 1
    known = [ConversionOptions(edits=rdbkit.Edits(script=Known())) for _ in range(2)]
    assert known[0].terms == known[1].terms
    unknown = ConversionOptions(edits=rdbkit.Edits(script=script))
    assert unknown.terms != unknown.terms, "nobody knows whether it is the same"
    early, late = (ConversionOptions(selection=rdbkit.Selection(ttl=(0, 5))).at(now) for now in (10, 1000))
    assert early.selection is not None
    assert late.selection is not None
    assert early.selection.wants(0, b"k", "string", None, 12)
    assert not late.selection.wants(0, b"k", "string", None, 12)
    assert early.terms == late.terms
    own = rdbkit.Selection(ttl=(0, 5), now_ms=10).at(1000)
    assert own.wants(0, b"k", "string", None, 12), "it keeps a time that it was given"


# -- databases


@needs_azurite
def test_conflicts_are_listed_and_nothing_is_sent(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.managed()
    path = in_three_databases(tmp_path / "dbs.rdb")
    code, _, err = migrate(shell, cache, folder, path)
    assert code == 1
    assert "rdbkit: would be lost in all: database 6" in err
    remedy = re.search(r"^  database: (.*) to move them, or --map-db; --db to choose$", err, re.MULTILINE)
    assert remedy is not None
    assert remedy[1] == "--collapse-dbs --on-conflict 'rename={key}:db{db}'"
    code, _, err = migrate(shell, cache, folder, path, "--collapse-dbs")
    assert code == 1
    assert err.count("rdbkit: would be lost: conflict in db ") == 6
    assert "  conflict: --on-conflict first, last or 'rename={key}:db{db}'" in err
    assert (cache.data, posts(azure)) == ([b"what was there"], [])
    assert not [where for method, where in azure.calls if method == "PUT" and "dbs.rdb" in where]
    code, out, err = migrate(shell, cache, folder, path, *BOTH, "--json")
    assert code == 0, err
    (data,) = cache.data
    assert names_of(data) == sorted(b"k%d" % n + tail for n in range(3) for tail in (b"", b":db1", b":db2"))
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        assert {record.db for record in snapshot} == {0}
    made = json.loads(out)
    assert (made["keys"], made["written"], made["left_out"], made["lost"]) == (9, 9, 0, {"conflict": 6})
    told = "rdbkit: will be lost: conflict in db 1, key k0: its name: it is called k0:db1 in database 0, where another key has that"
    assert told in err.partition("Everything in")[0].splitlines()
    assert made["files"][0]["identical"] is False


@needs_azurite
@pytest.mark.parametrize("parts", [[], ["--split-size", "300KB"]])
def test_a_run_that_is_killed_makes_the_same_bytes_later(
    azure: Cloud, shell: Shell, folder: str, tmp_path: Path, parts: list[str]
) -> None:
    cache = azure.managed()
    path = in_three_databases(tmp_path / "dbs.rdb", 3000)
    options = [*BOTH, "--set-ttl", "7d", "--drop-expired", "--not-key", "k7*"]
    args = [*command(cache, folder, path, *options, *parts, "--block-size", "64KiB", "--concurrency", "1"), "--yes", "shop-amr"]
    begin = int(time.time() * 1000)
    kill_at(azure, shell, 5, "comp=block&", *args)
    first = json.loads((tmp_path / "rdbkit-migrate-shop-amr.json").read_text())["files"][0]["now_ms"]
    time.sleep(0.01)
    code, out, err = shell.run(*args, "--json")
    assert code == 0, err
    expected = sum(1 for n in range(3000) if not str(n).startswith("7")) * 3
    assert sum(map(keys_of, cache.data)) == expected == json.loads(out)["written"]
    assert json.loads(out)["left_out"] == 9000 - expected
    for data in cache.data:
        with rdbkit.open(io.BytesIO(data)) as snapshot:
            assert {record.expire_ms for record in snapshot} == {first + 7 * DAY}, "times count from the first run"
    assert begin - 1000 <= first
    if not parts:
        assert json.loads(out)["files"][0]["blobs"][0]["kept"] >= 3


@needs_azurite
@pytest.mark.parametrize("same", [True, False])
def test_an_import_that_was_begun_is_of_its_options_alone(
    azure: Cloud, shell: Shell, folder: str, tmp_path: Path, same: bool
) -> None:
    cache = azure.premium(shardCount=2)
    path = in_three_databases(tmp_path / "dbs.rdb")
    killed_when_begun(azure, shell, cache, command(cache, folder, path, *BOTH, "--drop-expired"), tmp_path)
    code, out, err = migrate(shell, cache, folder, path, *BOTH, *(["--drop-expired"] if same else []), "--json")
    assert code == 0, err
    assert json.loads(out)["import"]["resumed"] is same
    assert len(posts(azure)) == (1 if same else 2)
    assert sum(map(keys_of, cache.data)) == 9


@needs_azurite
def test_blobs_of_other_options_are_made_anew(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.managed()
    path = in_three_databases(tmp_path / "dbs.rdb")
    script = tmp_path / "script.py"
    script.write_text("def record(r):\n    r.key = b'a:' + r.key\n    return r\n")
    args: list[str | Path] = [path, "--collapse-dbs", "--on-conflict", "first", "--script", script]
    assert shell.run(*command(cache, folder, *args, "--skip", "import"))[0] == 0
    code, out, err = shell.run(*command(cache, folder, *args, "--skip", "import"))
    assert code == 0, err
    assert "which is done" in out
    # the same file has another script in it
    script.write_text("def record(r):\n    r.key = b'b:' + r.key\n    return r\n")
    code, out, err = migrate(shell, cache, folder, *args)
    assert code == 0, err
    assert "which is done" not in out
    assert names_of(cache.data[0]) == [b"b:k0", b"b:k1", b"b:k2"]
    # and an import that was begun of other options is not taken for this one
    other = azure.managed("other")
    first: list[str | Path] = [path, "--collapse-dbs", "--on-conflict", "first", "--overwrite"]
    assert shell.run(*command(other, folder, *first, "--skip", "import"))[0] == 0
    code, _, err = migrate(shell, other, folder, path, "--collapse-dbs", "--on-conflict", "last", "--skip", "upload")
    assert (code, other.data) == (4, [b"what was there"])
    assert "an earlier run has made the blob" in err
    code, _, err = migrate(shell, other, folder, path, "--collapse-dbs", "--on-conflict", "last")
    assert code == 0, err
    assert names_of(other.data[0]) == [b"k0", b"k1", b"k2"]


@needs_azurite
def test_the_upload_may_be_left_out_where_the_blob_has_what_the_options_make(
    azure: Cloud, shell: Shell, folder: str, tmp_path: Path
) -> None:
    path = in_three_databases(tmp_path / "dbs.rdb")
    made = tmp_path / "made.rdb"
    rdbkit.convert(path, made, target="azure-managed", edits=rdbkit.Edits(collapse_dbs=True, on_conflict="first"))
    azure.blob(name_of(folder, "dbs.rdb"), made.read_bytes())
    cache = azure.managed()
    code, _, err = migrate(shell, cache, folder, path, *BOTH, "--skip", "upload")
    assert (code, cache.data) == (4, [b"what was there"])
    assert "the blob has 3 keys, and 9 are to come of" in err
    code, _, err = migrate(shell, cache, folder, path, "--collapse-dbs", "--on-conflict", "first", "--skip", "upload")
    assert code == 0, err
    assert cache.data == [made.read_bytes()]


# -- several files whose keys meet when they have moved


def two_files(where: Path) -> tuple[Path, Path]:
    """The names of their keys differ, or their databases."""
    first, second = where / "one.rdb", where / "two.rdb"
    with rdbkit.create(first, version=11) as writer:
        writer.put(b"a", b"first")
        writer.put(b"x:b", b"first")
    with rdbkit.create(second, version=11) as writer:
        writer.put(b"a", b"second", db=1)
        writer.put(b"y:b", b"second")
    return first, second


@needs_azurite
@pytest.mark.parametrize(
    ("options", "met"),
    [
        (["--collapse-dbs"], "a"),
        (["--db", "0", "--rename-prefix", "x:=z:", "--rename-prefix", "y:=z:"], "z:b"),
        (["--db", "0", "--script", "{script}"], "b"),
    ],
)
def test_keys_of_several_files_that_meet_are_found(
    azure: Cloud, shell: Shell, folder: str, tmp_path: Path, options: list[str], met: str
) -> None:
    cache = azure.managed()
    files = two_files(tmp_path)
    script = tmp_path / "script.py"
    script.write_text("def record(r):\n    r.key = r.key.rpartition(b':')[2]\n    return r\n")
    args: list[str | Path] = [*files, *(option.format(script=script) for option in options)]
    for _ in range(2):  # also where all of them have been rehearsed before
        code, _, err = migrate(shell, cache, folder, *args)
        assert (code, cache.data, posts(azure)) == (1, [b"what was there"], []), err
        assert f"rdbkit: more than once: db 0, key {met}: {files[0]}, {files[1]}\n" in err
        assert f"a key is there more than once, in what {files[0]} becomes and what {files[1]} becomes; nothing was sent" in err
        assert "that file can be migrated with the same options, of which --on-conflict says what becomes of such keys" in err
    # a selection that takes one of the two lets them go
    code, _, err = migrate(shell, cache, folder, *args, "--not-key", "a", "--not-key", "y:*")
    assert code == 0, err
    assert sum(map(keys_of, cache.data)) == 1


@needs_azurite
def test_keys_that_are_left_out_do_not_meet(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.managed()
    first, second = tmp_path / "one.rdb", tmp_path / "two.rdb"
    for path, until in ((first, 1000), (second, None)):
        with rdbkit.create(path, version=11) as writer:
            writer.put(b"a", b"value", expire_ms=until)
            writer.put(b"own:" + path.stem.encode(), b"value")
    assert migrate(shell, cache, folder, first, second)[0] == 1
    code, out, err = migrate(shell, cache, folder, first, second, "--drop-expired", "--json")
    assert code == 0, err
    assert json.loads(out)["left_out"] == 1
    assert [names_of(data) for data in cache.data] == [[b"own:one"], [b"a", b"own:two"]]


@needs_azurite
def test_what_would_be_lost_of_every_file_is_told(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.managed()
    files = [in_three_databases(tmp_path / name, 2) for name in ("one.rdb", "two.rdb")]
    ledger = tmp_path / "ledger.jsonl"
    code, _, err = migrate(shell, cache, folder, *files, "--ledger", ledger)
    assert code == 1
    for path in files:
        assert f"rdbkit: of {path}:\n" in err
    assert err.count("rdbkit: would be lost in all: database 4") == 2
    rows = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert [row["file"] for row in rows if row["kind"] == "database"] == [str(path) for path in files for _ in range(4)]


@needs_azurite
def test_what_would_be_lost_is_told_without_the_check_too(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.managed()
    files = [a_dump(tmp_path / "one.rdb", version=12), in_three_databases(tmp_path / "two.rdb")]
    code, _, err = migrate(shell, cache, folder, *files, "--skip", "check")
    assert (code, cache.data, posts(azure)) == (1, [b"what was there"], [])
    assert f"rdbkit: of {files[1]}:\nrdbkit: would be lost: database in db 1" in err
    assert "rdbkit: nothing was sent of it. To write it all the same:\n  database: --map-db or --collapse-dbs" in err


# -- damage, selections, scripts, what is extracted


@needs_azurite
def test_damaged_keys_are_left_out_and_told(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    path = tmp_path / "damaged.rdb"
    # a set in which a member comes twice
    twice = key(b"bad", 2, b"\2" + string(b"m") + string(b"m"))
    path.write_bytes(rdb(b"\xfe\0", key(b"good", 0, string(b"v")), twice, magic=b"REDIS0011"))
    cache = azure.managed()
    code, _, err = migrate(shell, cache, folder, path)
    assert (code, cache.data) == (3, [b"what was there"]), err
    args: list[str | Path] = [path, "--on-error", "skip"]
    code, out, err = migrate(shell, cache, folder, *args, "--strict")
    assert code == 1
    assert re.search(r"rdbkit: left out: .*key 'bad'", err) or "bad" in err
    assert "damaged 1" in out
    assert "2 in the files, 1 sent, 1 left out" in out
    assert names_of(cache.data[0]) == [b"good"]
    code, out, err = migrate(shell, azure.managed("other"), folder, *args, "--json", "--overwrite")
    assert code == 0, err
    made = json.loads(out)
    assert (made["lost"], made["left_out"]) == ({"damaged": 1}, 1)
    assert "bad" in made["files"][0]["damage"][0]
    # on to another, whose checksum is wrong
    data = bytearray(a_dump(tmp_path / "sum.rdb").read_bytes())
    data[-1] ^= 1
    (tmp_path / "sum.rdb").write_bytes(data)
    third = azure.managed("third")
    assert migrate(shell, third, folder, tmp_path / "sum.rdb")[0] == 3
    for option in (["--no-checksum"], ["--on-error", "skip"]):
        code, out, err = migrate(shell, third, folder, tmp_path / "sum.rdb", *option, "--json", "--overwrite")
        assert code == 0, err
        assert keys_of(third.data[0]) == 3, "with a right checksum, or it could not be read"
        assert json.loads(out)["files"][0]["identical"] is False
        assert bool(json.loads(out)["files"][0]["checksum"]) is (option[0] == "--on-error")
        assert json.loads(out)["files"][0]["verdict"] in ("as-it-is", "lossy")
        # and beside another file
        more = [tmp_path / "sum.rdb", a_dump(tmp_path / f"other{option[0]}.rdb")]
        code, out, err = migrate(shell, third, folder, *more, *option, "--overwrite")
        assert code == 0, err


@needs_azurite
def test_options_that_leave_all_keys_out_do_not_empty_the_cache(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.managed()
    code, _, err = migrate(shell, cache, folder, a_dump(tmp_path / "s.rdb"), "--key", "no such key")
    assert (code, cache.data, posts(azure)) == (2, [b"what was there"], [])
    assert "no key would be sent" in err


@needs_azurite
@pytest.mark.parametrize("parts", [[], ["--split-size", "300KB"]])
def test_a_script_that_makes_something_else_each_time(
    azure: Cloud, shell: Shell, folder: str, tmp_path: Path, parts: list[str]
) -> None:
    cache = azure.managed()
    script = tmp_path / "script.py"
    script.write_text("import itertools\nn = itertools.count()\ndef record(r):\n    r.value = b'%d' % next(n)\n    return r\n")
    code, _, err = migrate(shell, cache, folder, a_dump(tmp_path / "s.rdb"), "--script", script, *parts)
    assert (code, cache.data, posts(azure)) == (2, [b"what was there"], [])
    assert "the script made something else of it than when it was checked" in err
    script.write_text("def record(r):\n    r.value = r.value + b'!'\n    return r\n")
    code, _, err = migrate(shell, cache, folder, tmp_path / "s.rdb", "--script", script, *parts)
    assert code == 0, err
    script.write_text("def record(r):\n    r.key = 3\n    return r\n")
    code, _, err = migrate(shell, cache, folder, tmp_path / "s.rdb", "--script", script, *parts, "--overwrite")
    assert (code, err.count("\n")) == (1, 1), err
    assert "the script's key is bytes, not int" in err


@needs_azurite
def test_libraries_are_extracted(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.premium()
    args: list[str | Path] = [DUMP, "--on-function", f"extract={tmp_path / 'functions.lua'}", "--ledger", tmp_path / "all.jsonl"]
    code, _, err = migrate(shell, cache, folder, *args)
    assert code == 0, err
    assert (tmp_path / "functions.lua").read_text().startswith("#!lua")
    assert {json.loads(line)["kind"] for line in (tmp_path / "all.jsonl").read_text().splitlines()} >= {"function"}
    code, _, err = migrate(shell, cache, folder, *args)
    assert code == 2
    assert "exists; --force replaces it" in err
    assert migrate(shell, cache, folder, *args, "--force")[0] == 0


@needs_azurite
def test_several_processes(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.premium()
    code, _, err = shell.end(
        shell.start(*command(cache, folder, DUMP, "--on-loss", "drop", "--jobs", "2"), "--yes", "shop-cache")
    )  # fmt: skip
    assert code == 0, err
    assert keys_of(cache.data[0]) == 27


def cache_and_library(azure: Cloud, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cache:
    monkeypatch.chdir(tmp_path)
    for name, value in azure.environment.items():
        monkeypatch.setenv(name, value)
    return azure.managed()


@needs_azurite
def test_from_python(azure: Cloud, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = cache_and_library(azure, monkeypatch, tmp_path)
    path = in_three_databases(tmp_path / "dbs.rdb")
    with rdbkit.Arm(rdbkit.parse_resource_id(cache.path), endpoint=azure.endpoint) as arm:
        with pytest.raises(rdbkit.LossError):
            rdbkit.migrate(path, arm, target="azure-managed", container=folder, edits=rdbkit.Edits(collapse_dbs=True))
        done = rdbkit.migrate(
            path, arm, target="azure-managed", container=folder, now_ms=1_000_000,
            edits=rdbkit.Edits(collapse_dbs=True, on_conflict="last", set_ttl_ms=DAY * 365_000, script=lambda record: record),
            selection=rdbkit.Selection(not_keys="k2"),
        )  # fmt: skip
    assert done.to_dict()["left_out"] == 7
    assert names_of(cache.data[0]) == [b"k0", b"k1"]
    with rdbkit.open(io.BytesIO(cache.data[0])) as snapshot:
        assert {record.expire_ms for record in snapshot} == {1_000_000 + DAY * 365_000}


# -- an import of nothing, and function libraries


@needs_azurite
@pytest.mark.parametrize(
    ("databases", "options"),
    [([1], ["--on-loss", "drop"]), ([1], ["--on-loss", "drop", "--skip", "check"]), ([0], ["--key", "none", "--skip", "check"])],
)
def test_an_import_of_nothing_is_refused_whatever_has_left_the_keys_out(
    azure: Cloud, shell: Shell, folder: str, tmp_path: Path, databases: list[int], options: list[str]
) -> None:
    path = tmp_path / "dump.rdb"
    with rdbkit.create(path, version=11) as writer:
        for db in databases:
            writer.put(b"a", b"value", db=db)
    cache = azure.managed()
    code, _, err = migrate(shell, cache, folder, path, *options)
    assert (code, cache.data, posts(azure)) == (2, [b"what was there"], []), err
    assert "no key would be sent, for the options leave all of them out (1 key); the import would empty the cache" in err


@needs_azurite
@pytest.mark.parametrize("options", [[], ["--skip", "check"]])
def test_files_without_a_key_are_told(azure: Cloud, shell: Shell, folder: str, tmp_path: Path, options: list[str]) -> None:
    path = tmp_path / "empty.rdb"
    with rdbkit.create(path, version=11):
        pass
    code, out, err = migrate(shell, azure.managed(), folder, path, *options)
    assert code == 0, err
    assert (out + err).count("Warning: there is no key in any file: the import empties the cache") == 1
    code, out, err = shell.imports(azure.managed("other"), f"{folder}empty.rdb", target="azure-managed")
    assert code == 0, err
    assert (out + err).count("Warning: there is no key in any blob: the import empties the cache") == 1


def with_library(path: Path, number: int) -> Path:
    with rdbkit.create(path, version=11) as writer:
        writer.function(b"#!lua name=mylib\nredis.register_function('f', function() return %d end)" % number)
        writer.put(path.stem.encode(), b"value")
    return path


@needs_azurite
def test_function_libraries_of_several_files(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    first, same, other = (with_library(tmp_path / f"{name}.rdb", n) for name, n in (("first", 1), ("same", 1), ("other", 2)))
    cache = azure.managed()
    for _ in range(2):  # also where all of them have been rehearsed before
        code, _, err = migrate(shell, cache, folder, first, same, other)
        assert (code, cache.data, posts(azure)) == (1, [b"what was there"], []), err
        assert f"different function libraries are called 'mylib', in {first} and {other}; nothing was sent" in err
        assert "rdbkit merge makes one file of them, and its --on-function-conflict says which one to keep" in err
    code, out, err = migrate(shell, cache, folder, first, same)
    assert code == 0, err
    assert "Warning: function library 'mylib' is the same in 2 files; no source says" in out
    # a cache that has no functions gets none of them
    code, out, err = migrate(shell, azure.premium(), f"{folder}old/", first, other, "--on-function", "drop")
    assert code == 0, err
    assert "mylib" not in out


@needs_azurite
def test_a_script_that_changes_its_mind_is_found_before_anything_is_sent(
    azure: Cloud, shell: Shell, folder: str, tmp_path: Path
) -> None:
    """The names that are compared are those that were checked: here keys meet in the second reading, and not in the third."""
    script = tmp_path / "script.py"
    script.write_text(
        "import itertools\ncalls = itertools.count()\n"
        "def record(r):\n    n = next(calls)\n    r.key = b'met' if n in (4, 6) else b'%0*d' % (n, n)\n    return r\n"
    )
    files = [a_dump(tmp_path / f"{name}.rdb", keys=2) for name in ("one", "two")]
    cache = azure.managed()
    code, _, err = migrate(shell, cache, folder, *files, "--script", script)
    assert (code, cache.data) == (2, [b"what was there"]), err
    assert f"{files[0]}: the script made something else of it than when it was checked, and nothing was imported" in err
    assert not [where for method, where in azure.calls if method == "PUT" and "one.rdb" in where]


@needs_azurite
def test_a_part_does_not_replace_a_blob_that_is_a_file(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.managed()
    local = a_dump(tmp_path / "big.rdb")
    other = azure.blob(name_of(folder, "big/0001.rdb"), a_dump(tmp_path / "other.rdb").read_bytes())
    args: list[str | Path] = [local, other, "--split-size", "1MiB", "--overwrite"]
    code, _, err = migrate(shell, cache, folder, *args)
    assert (code, cache.data) == (2, [b"what was there"]), err
    assert f"{other} would be replaced by a part of {local}: name another container, or a folder in it" in err
    code, _, err = migrate(shell, cache, f"{folder}new/", *args)
    assert code == 0, err
    assert [names_of(data)[0] for data in cache.data] == [b"big:0", b"other:0"]


@needs_azurite
def test_keys_that_have_expired_are_told(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    """A server drops them while it loads: an old snapshot of short-lived keys leaves less than it seems to have, or nothing."""
    some, none = tmp_path / "some.rdb", tmp_path / "none.rdb"
    with rdbkit.create(some, version=11) as writer:
        writer.put(b"past", b"value", expire_ms=1000)
        writer.put(b"lasting", b"value")
    with rdbkit.create(none, version=11) as writer:
        writer.put(b"gone", b"value", expire_ms=1000)
    cache = azure.managed()
    for _ in range(2):  # also where all of them have been rehearsed before
        code, out, err = migrate(shell, cache, folder, some, none, "--skip", "import")
        assert code == 0, err
        assert "Warning: 2 of 3 keys have expired, and a server drops such keys while it loads\n" in out
    for option in (["--drop-expired"], ["--set-ttl", "1d"]):
        code, out, err = migrate(shell, cache, folder, some, *option, "--skip", "import")
        assert code == 0, err
        assert "expired, and" not in out
    line = "Warning: 1 of 1 key has expired, and a server drops such keys while it loads: the import empties the cache\n"
    code, out, err = migrate(shell, cache, f"{folder}one/", none)
    assert code == 0, err
    assert line in out
    code, out, err = shell.imports(cache, f"{folder}one/none.rdb")
    assert code == 0, err
    assert line in out

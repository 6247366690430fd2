"""The verbs as functions of `rdbkit`: whatever form an argument has, the answer is the same."""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import rdbkit

from .rdb import FIXTURES, key, rdb, string

DUMP = FIXTURES / "rich" / "redis-7.0.15.rdb"
NOW_MS = 1_800_000_000_000

#: What each verb says of a source, for a target.
VERBS: dict[str, Callable[[Any, Any], Any]] = {
    "info": lambda source, target: rdbkit.info(source, now_ms=NOW_MS).biggest,
    "keys": lambda source, target: list(rdbkit.keys(source)),
    "keys sorted": lambda source, target: list(rdbkit.keys(source, sort="size", limit=3)),
    "write_text": lambda source, target: written(rdbkit.write_text, source, as_json=True),
    "write_columns": lambda source, target: written(rdbkit.write_columns, source),
    "write_memory_text": lambda source, target: written(lambda src, out: rdbkit.write_memory_text(src, target, out), source),
    "get": lambda source, target: rdbkit.get(source, "str"),
    "check": lambda source, target: rdbkit.check(source, target, now_ms=NOW_MS).findings,
    "memory": lambda source, target: rdbkit.memory(source, target, now_ms=NOW_MS).keys_bytes,
    "memory_rows": lambda source, target: list(rdbkit.memory_rows(source, target)),
    "export": lambda source, target: exported(source, format="resp", target=target, on_loss="drop"),
    "verify": lambda source, target: proven(rdbkit.verify(source, deep=True)),
    "redact": lambda source, target: written(rdbkit.redact, source, secret=b"not to be told", keep_modules=True),
    "convert": lambda source, target: written(rdbkit.convert, source, target=target, policies=rdbkit.Policies(function="drop")),
}


def exported(source: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    rdbkit.export(source, out, **options)
    return out.getvalue()


def written(verb: Callable[..., Any], source: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    verb(source, out, **options)
    return out.getvalue()


def proven(found: rdbkit.Verification) -> tuple[int, bool, str | None]:
    return found.keys, found.sound, found.checksum


@pytest.mark.parametrize("verb", VERBS)
def test_a_source_is_a_path_a_file_or_open(verb: str) -> None:
    say = VERBS[verb]
    target = rdbkit.find_target("azure-premium")
    with rdbkit.open(DUMP) as snapshot:
        expected = say(snapshot, target)
    assert expected
    with DUMP.open("rb") as file:
        found = say(file, "azure-premium")
    if verb != "check":  # which says of a file of bytes that it cannot be read again
        assert found == expected
    assert say(str(DUMP), "azure-premium") == say(DUMP, target) == expected


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_no_source_is_told_at_once(verb: str) -> None:
    for wrong in (3, None, DUMP.read_bytes()[:20]):
        with pytest.raises(TypeError, match="a snapshot is a path, a file of bytes or an open Snapshot, not"):
            VERBS[verb](wrong, "redis-7.0")


@pytest.mark.parametrize("verb", ["check", "memory", "memory_rows", "write_memory_text", "export"])
def test_what_is_no_target_is_told(verb: str) -> None:
    with pytest.raises(TypeError, match="target is a Target or its name"):
        VERBS[verb](DUMP, 7)
    with pytest.raises(ValueError, match="there is no target 'redis-99'"):
        VERBS[verb](DUMP, "redis-99")


def test_plan_takes_the_name_of_a_service() -> None:
    by_name = rdbkit.plan([str(DUMP)], "azure-managed", now_ms=NOW_MS)
    assert by_name == rdbkit.plan([str(DUMP)], rdbkit.find_target("azure-managed"), now_ms=NOW_MS)
    with pytest.raises(TypeError, match="target is a Target"):
        rdbkit.plan([str(DUMP)], None)  # type: ignore[arg-type]


def test_a_size_is_a_sku_or_its_name() -> None:
    target = rdbkit.find_target("azure-managed")
    size = target.sku("B3")
    for verb in (rdbkit.plan, rdbkit.check):
        asked: Callable[..., Any] = verb
        expected = asked(DUMP, target, sku=size, now_ms=NOW_MS)
        assert expected != asked(DUMP, target, now_ms=NOW_MS)
        assert asked(DUMP, "azure-managed", sku="b3", now_ms=NOW_MS) == expected
        with pytest.raises(ValueError, match="azure-managed has no size 'B2222'"):
            asked(DUMP, target, sku="B2222")
        with pytest.raises(TypeError, match="sku is a Sku or its name, as in 'P2', not int"):
            asked(DUMP, target, sku=2)


def test_separators_are_str_or_bytes(tmp_path: Path) -> None:
    takers: list[Callable[[Any], object]] = [
        lambda given: rdbkit.memory(DUMP, "redis-7.2", separators=given, now_ms=NOW_MS),
        lambda given: rdbkit.Division(by="prefix", separators=given),
        lambda given: written(rdbkit.redact, DUMP, secret="s", keep_prefixes=True, separator=given, keep_modules=True),
    ]
    for take in takers:
        assert take("_") == take(b"_") != take(":")
        with pytest.raises(ValueError, match=r"separators are ASCII|made of punctuation"):
            take("\u00e9")
        with pytest.raises(TypeError, match=r"separators? is str or bytes, not int"):
            take(3)
    with pytest.raises(TypeError, match="secret is str or bytes, not int"):
        rdbkit.redact(DUMP, io.BytesIO(), secret=3)  # type: ignore[arg-type]
    assert written(rdbkit.redact, DUMP, secret="\u00e9", keep_modules=True) == written(
        rdbkit.redact, DUMP, secret=b"\xc3\xa9", keep_modules=True
    )


def test_a_key_is_written_by_its_name_as_text() -> None:
    out = io.BytesIO()
    with rdbkit.create(out, version=9) as writer:
        writer.put("caf\u00e9", b"1")
        with pytest.raises(TypeError, match="key is str or bytes, not int"):
            writer.put(3, b"1")  # type: ignore[arg-type]
    assert [row.key for row in rdbkit.keys(io.BytesIO(out.getvalue()))] == [b"caf\xc3\xa9"]


def test_files_are_paths_of_any_kind(tmp_path: Path) -> None:
    for files in (str(DUMP), DUMP, [DUMP], (str(DUMP),)):
        assert rdbkit.plan(files, "azure-managed", now_ms=NOW_MS).keys == 27
    assert rdbkit.diff(DUMP, str(DUMP)).same
    assert rdbkit.merge([DUMP], tmp_path / "out.rdb").keys == 27
    for wrong in (3, b"dump.rdb", [3]):
        with pytest.raises(TypeError, match=r"path.*, not (int|bytes)"):
            rdbkit.plan(wrong, "azure-managed")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is a path, str or PathLike, or an open Snapshot, not BytesIO"):
        rdbkit.diff(io.BytesIO(), DUMP)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="target is a Target or its name"):
        rdbkit.convert(DUMP, tmp_path / "out2.rdb", target=7)  # type: ignore[arg-type]


REREADING: dict[str, Callable[[Any, Path], object]] = {
    "salvage": lambda source, folder: written(rdbkit.salvage, source),
    "split": lambda source, folder: rdbkit.split(source, folder / "parts", rdbkit.Division(by="db"), force=True).parts,
    "diff": lambda source, folder: rdbkit.diff(DUMP, source).same,
    "merge": lambda source, folder: written(rdbkit.merge, [source, FIXTURES / "rich" / "redis-2.4.18.rdb"], on_duplicate="first"),
    "plan": lambda source, folder: rdbkit.plan([source], "azure-managed", now_ms=NOW_MS),
}


@pytest.mark.parametrize("verb", REREADING)
def test_what_is_read_more_than_once_is_a_path_or_open(verb: str, tmp_path: Path) -> None:
    say = REREADING[verb]
    source = tmp_path / "dump.rdb"
    source.write_bytes(DUMP.read_bytes())
    expected = say(source, tmp_path)
    with rdbkit.open(source) as snapshot:
        assert say(snapshot, tmp_path) == expected
        assert len(list(snapshot)) == 27  # it has its own reading before it
        with pytest.raises(ValueError, match="a snapshot can be read once; open it again"):
            say(snapshot, tmp_path)
    with rdbkit.open(source) as snapshot:
        source.unlink()
        source.write_bytes(DUMP.read_bytes())
        with pytest.raises(rdbkit.ChangedError, match="changed or replaced"):
            say(snapshot, tmp_path)
    with rdbkit.open(io.BytesIO(DUMP.read_bytes())) as snapshot, pytest.raises(ValueError, match="opened by the path of a file"):
        say(snapshot, tmp_path)
    with source.open("rb") as file, rdbkit.open(file) as snapshot, pytest.raises(ValueError, match="opened by the path of a file"):
        say(snapshot, tmp_path)
    with pytest.raises(TypeError, match="is a path, str or PathLike, or an open Snapshot, not int"):
        say([3] if verb == "split" else 3, tmp_path)


def test_split_and_salvage_take_a_path_of_any_kind(tmp_path: Path) -> None:
    sources: list[Any] = [str(DUMP), DUMP, [DUMP]]
    for i, source in enumerate(sources):
        assert rdbkit.split(source, tmp_path / str(i), rdbkit.Division(by="db")).keys == 27
    for source in (str(DUMP), DUMP):
        assert rdbkit.salvage(source, io.BytesIO()).kept == 27


def test_an_open_snapshot_is_read_again_where_that_is_needed(tmp_path: Path) -> None:
    twice = tmp_path / "twice.rdb"
    twice.write_bytes(rdb(b"\xfe\x00", key(b"a", 0, string(b"1")), key(b"a", 0, string(b"2"))))
    with rdbkit.open(twice) as snapshot:
        (violation,) = rdbkit.verify(snapshot, deep=True).violations
    assert (violation.rule.name, violation.samples[0].key) == ("key-twice", b"a")
    edits = rdbkit.Edits(map_db={3: 0}, on_conflict="rename")
    with rdbkit.open(DUMP) as snapshot:
        moved = written(rdbkit.convert, snapshot, target="redis-7.2", edits=edits)
    assert moved == written(rdbkit.convert, DUMP, target="redis-7.2", edits=edits)
    with DUMP.open("rb") as file, rdbkit.open(file) as snapshot, pytest.raises(ValueError, match="it has to be a file"):
        written(rdbkit.convert, snapshot, target="redis-7.2", edits=edits)
    copy = tmp_path / "copy.rdb"
    copy.write_bytes(DUMP.read_bytes())
    with rdbkit.open(copy) as snapshot, pytest.raises(ValueError, match="the destination is the source"):
        rdbkit.convert(snapshot, copy, target="redis-7.2", force=True)


def test_get() -> None:
    assert rdbkit.get(DUMP, "l_big") == rdbkit.get(DUMP, b"l_big", db=0)
    assert len(rdbkit.get(DUMP, "l_big")) == 3000
    for name, db in (("none", None), ("l_big", 1)):
        with pytest.raises(KeyError, match=name):
            rdbkit.get(DUMP, name, db=db)
    with pytest.raises(TypeError, match="key is str or bytes, not int"):
        rdbkit.get(DUMP, 3)  # type: ignore[arg-type]


def test_export_writes_a_file_that_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    assert rdbkit.export(DUMP, path).written == 27
    assert path.read_bytes() == exported(DUMP)
    with pytest.raises(FileExistsError):
        rdbkit.export(DUMP, path)
    rdbkit.export(DUMP, path, selection=rdbkit.Selection(keys=b"str"), force=True)
    assert path.read_bytes().count(b"\n") == 1
    with pytest.raises(rdbkit.LossError):
        rdbkit.export(DUMP, tmp_path / "out.resp", format="resp", target="redis-6.0")
    assert [each.name for each in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"format": "csv"}, "format is 'jsonl' or 'resp', not 'csv'"),
        ({"target": "redis-7.0"}, "are for format='resp'"),
        ({"on_loss": "drop"}, "are for format='resp'"),
        ({"format": "resp", "jobs": 2}, "is for format='jsonl'"),
    ],
)
def test_options_of_the_other_format_are_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        exported(DUMP, **options)


def test_the_rows_close_what_they_opened() -> None:
    rows = rdbkit.keys(DUMP)
    next(rows)
    rows.close()  # type: ignore[attr-defined]
    assert list(rows) == []


def test_the_version() -> None:
    assert rdbkit.__version__ == version("rdbkit")


def test_every_public_name_can_be_had() -> None:
    for name in rdbkit.__all__:
        assert getattr(rdbkit, name) is getattr(rdbkit, name)
    with pytest.raises(AttributeError, match="no_such_verb"):
        _ = rdbkit.no_such_verb

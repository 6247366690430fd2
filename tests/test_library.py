"""The verbs as functions of `rdbkit`: whatever form an argument has, the answer is the same."""

from __future__ import annotations

import io
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import rdbkit

from .rdb import FIXTURES

DUMP = FIXTURES / "rich" / "redis-7.0.15.rdb"
NOW_MS = 1_800_000_000_000

#: What each verb says of a source, for a target.
VERBS: dict[str, Callable[[Any, Any], Any]] = {
    "info": lambda source, target: rdbkit.info(source, now_ms=NOW_MS).biggest,
    "keys": lambda source, target: list(rdbkit.keys(source)),
    "keys sorted": lambda source, target: list(rdbkit.keys(source, sort="size", limit=3)),
    "get": lambda source, target: rdbkit.get(source, "str"),
    "check": lambda source, target: rdbkit.check(source, target, now_ms=NOW_MS).findings,
    "memory": lambda source, target: rdbkit.memory(source, target, now_ms=NOW_MS).keys_bytes,
    "memory_rows": lambda source, target: list(rdbkit.memory_rows(source, target)),
    "export": lambda source, target: exported(source, format="resp", target=target, on_loss="drop"),
}


def exported(source: Any, **options: Any) -> bytes:
    out = io.BytesIO()
    rdbkit.export(source, out, **options)
    return out.getvalue()


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


@pytest.mark.parametrize("verb", ["check", "memory", "memory_rows", "export"])
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


def test_files_are_paths_of_any_kind(tmp_path: Path) -> None:
    for files in (str(DUMP), DUMP, [DUMP], (str(DUMP),)):
        assert rdbkit.plan(files, "azure-managed", now_ms=NOW_MS).keys == 27
    assert rdbkit.diff(DUMP, str(DUMP)).same
    assert rdbkit.merge([DUMP], tmp_path / "out.rdb").keys == 27
    for wrong in (3, b"dump.rdb", [3]):
        with pytest.raises(TypeError, match=r"path.*, not (int|bytes)"):
            rdbkit.plan(wrong, "azure-managed")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="is a path, str or PathLike, not BytesIO"):
        rdbkit.diff(io.BytesIO(), DUMP)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="target is a Target or its name"):
        rdbkit.convert(DUMP, tmp_path / "out2.rdb", target=7)  # type: ignore[arg-type]


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

"""Pages that are made from the code say what the code is today."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from types import ModuleType

import pytest

import rdbkit

DOCS = Path(__file__).resolve().parents[1] / "docs"
PACKAGE = Path(rdbkit.__file__ or "").parent


@pytest.fixture
def make_rooms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """docs/make_rooms.py, with copies of the files that it writes."""
    spec = importlib.util.spec_from_file_location("make_rooms", DOCS / "make_rooms.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "make_rooms", module)
    spec.loader.exec_module(module)
    for name in ("PICTURE", "PAGE"):
        monkeypatch.setattr(module, name, Path(shutil.copy(getattr(module, name), tmp_path)))
    return module


def run(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr("sys.argv", ["make_rooms.py", *args])
    status = module.main()
    assert isinstance(status, int)
    return status


def test_every_module_is_in_the_architecture(make_rooms: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run(make_rooms, monkeypatch, "--check") == 0
    page = make_rooms.PAGE.read_text("utf-8")
    modules = [path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE]
    assert len(modules) > 100
    for module in modules:
        if not module.endswith("__init__.py"):
            assert f"\n| `{module}` | " in page


@pytest.mark.parametrize("name", ["PICTURE", "PAGE"])
def test_a_page_that_is_out_of_date_is_found(
    make_rooms: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    path = getattr(make_rooms, name)
    whole = path.read_text("utf-8")
    path.write_text(whole.replace("| `snapshot/writer.py` |", "").replace(">passes<", "><"), "utf-8")
    assert run(make_rooms, monkeypatch, "--check") == 1
    assert path.name in capsys.readouterr().out
    assert run(make_rooms, monkeypatch) == 0
    assert path.read_text("utf-8") == whole


def test_rooms_import_downwards(make_rooms: ModuleType) -> None:
    found = make_rooms.rooms()
    heights = make_rooms.levels(found)
    assert heights["errors"] == 0
    assert all(heights[each] < heights[name] for name, room in found.items() for each in room.imports)
    assert make_rooms.direct(found, "cli") <= found["cli"].imports

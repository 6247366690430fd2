"""The names of the library that the documents give are public, and their code is Python."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import rdbkit

ROOT = Path(__file__).parent.parent
# architecture.md is about the inside
PAGES = sorted({*ROOT.glob("docs/*.md"), ROOT / "README.md"} - {ROOT / "docs" / "architecture.md"})
NAME = re.compile(r"\brdbkit((?:\.[A-Za-z_]\w*)+)")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
#: What stands in names of files and messages.
_ENDINGS = {"toml", "rdb", "md", "py", "json", "yaml", "svg", "jsonl"}


def names_in(page: Path) -> set[str]:
    found = {match[1][1:] for match in NAME.finditer(page.read_text())}
    return {name for name in found if name.split(".")[0] not in _ENDINGS}


def test_there_are_names() -> None:
    assert len(set().union(*map(names_in, PAGES))) > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_are_public(page: Path) -> None:
    for name in sorted(names_in(page)):
        first, *rest = name.split(".")
        assert first in rdbkit.__all__ or first == "__version__", f"rdbkit.{name}"
        thing = getattr(rdbkit, first)
        for part in rest:
            # attributes of an instance are in the annotations of its class
            assert hasattr(thing, part) or part in getattr(thing, "__annotations__", {}), f"rdbkit.{name}"
            thing = getattr(thing, part, None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_is_python_and_imports_public_names(page: Path) -> None:
    for block in BLOCK.findall(page.read_text()):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("rdbkit."), ast.unparse(node)
                if node.module == "rdbkit":
                    assert {alias.name for alias in node.names} <= set(rdbkit.__all__), ast.unparse(node)
            elif isinstance(node, ast.Import):
                assert not any(alias.name.startswith("rdbkit.") for alias in node.names), ast.unparse(node)

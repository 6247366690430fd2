"""The names of the library that the documents give are public, and their code is Python."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
# architecture.md is about the inside
PAGES = sorted({*ROOT.glob("docs/*.md"), ROOT / "README.md"} - {ROOT / "docs" / "architecture.md"})
NAME = re.compile(r"\brdbkit((?:\.[A-Za-z_]\w*)+)")
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
#: Modules that users import from besides the package itself.
PUBLIC_MODULES = (
    "rdbkit", "rdbkit.compat.rdbtools", "rdbkit.compat.rdbtools.parser", "rdbkit.dual", "rdbkit.dual.asyncio", "rdbkit.dual.demo",
    "rdbkit.dual.service",
)  # fmt: skip
#: What stands in names of files and messages.
_ENDINGS = {"toml", "sock", "rdb", "md", "py", "json", "yaml", "svg", "jsonl"}


def names_in(page: Path) -> set[str]:
    found = {match[1][1:] for match in NAME.finditer(page.read_text())}
    return {name for name in found if name.split(".")[0] not in _ENDINGS}


def test_there_are_names() -> None:
    assert len(set().union(*map(names_in, PAGES))) > 40


def split_name(name: str) -> tuple[ModuleType, str, list[str]]:
    """The public module that a name is of, its first part in there, and the others."""
    parts = ["rdbkit", *name.split(".")]
    at = max(n for n in range(1, len(parts)) if ".".join(parts[:n]) in PUBLIC_MODULES)
    return import_module(".".join(parts[:at])), parts[at], parts[at + 1 :]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_names_are_public(page: Path) -> None:
    for name in sorted(names_in(page)):
        if f"rdbkit.{name}" in PUBLIC_MODULES:
            continue
        module, first, rest = split_name(name)
        assert first in module.__all__ or first == "__version__", f"rdbkit.{name}"
        thing = getattr(module, first)
        for part in rest:
            # attributes of an instance are in the annotations of its class
            assert hasattr(thing, part) or part in getattr(thing, "__annotations__", {}), f"rdbkit.{name}"
            thing = getattr(thing, part, None)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_is_python_and_imports_public_names(page: Path) -> None:
    for block in BLOCK.findall(page.read_text()):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom):
                if node.module in PUBLIC_MODULES:
                    assert {alias.name for alias in node.names} <= set(import_module(node.module).__all__), ast.unparse(node)
                else:
                    assert not (node.module or "").startswith("rdbkit."), ast.unparse(node)
            elif isinstance(node, ast.Import):
                names = {alias.name for alias in node.names if alias.name.startswith("rdbkit.")}
                assert names <= set(PUBLIC_MODULES), ast.unparse(node)

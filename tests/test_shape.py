"""The shape of the package: one direction of imports, documented names, nothing heavy at start-up."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import rdbkit

from .rdb import FIXTURES

ROOM_ORDER = [
    "errors", "model", "products", "clouds", "values", "text", "resp", "format", "storage", "snapshot", "targets", "selection",
    "policy", "passes", "parallel", "operations", "compat", "azure", "live", "dual", "cli",
]  # fmt: skip
PACKAGE = Path(rdbkit.__file__ or "").parent
# format reports events in the model's words; record's reader is the scanner below it
ON_FIXTURES = (
    "format.record",
    "snapshot.large",
    "snapshot.reader",
    "storage.output",
    "operations.arguments",
    "operations.check",
    "operations.commands",
    "operations.export",
    "operations.get",
    "operations.info",
    "passes.jsonl",
    "operations.keys",
    "operations.memory",
    "operations.plan",
    "operations.redact",
    "operations.salvage",
    "passes.json_text",
    "text",
    "operations.value_json",
    "operations.verify",
    "storage.spliced_file",
)
INIT = {"__init__", "__main__"}


def test_imports_go_one_way() -> None:
    seen = 0
    for path in PACKAGE.rglob("*.py"):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if room in INIT:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            for name in names:
                parts = name.split(".")
                if parts[0] == "rdbkit" and len(parts) > 1:
                    seen += 1
                    assert ROOM_ORDER.index(parts[1]) <= ROOM_ORDER.index(room), f"{path} imports {name}"
    assert seen > 30


def test_no_class_that_is_not_compiled_is_made_of_one_that_is() -> None:
    """mypyc refuses that when the class is made, and the plain form does not notice."""
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        if path.relative_to(PACKAGE).parts[0] in ("format", "passes"):
            continue
        compiled = {
            alias.asname or alias.name
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("rdbkit.format", "rdbkit.passes"))
            for alias in node.names
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
                assert not bases & compiled, f"{path}: {node.name}"


def test_only_storage_asks_the_system_about_files() -> None:
    """Whatever is outside of `storage` would not know a file that is in another place than the disk."""
    questions = {
        f"os.{name}" for name in ("access", "fstat", "listdir", "lstat", "scandir", "stat", "walk")
    } | {
        f"os.path.{name}"
        for name in ("exists", "getmtime", "getsize", "isdir", "isfile", "islink", "lexists", "realpath", "samefile", "samestat")
    }  # fmt: skip
    of_paths = {"exists", "is_dir", "is_file", "is_symlink", "iterdir", "lstat", "samefile", "stat"}
    allowed = {
        # whether a standard stream is open
        ("cli/streams.py", "os.fstat"),
    }
    asked = set()
    for path in PACKAGE.rglob("*.py"):
        name = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module in ("os", "os.path", "pathlib"):
                assert name.startswith("storage/") or {a.name for a in node.names} <= {"Path"}, f"{name} imports from {node.module}"
            if isinstance(node, ast.Attribute):
                text = ast.unparse(node)
                if text in questions or (node.attr in of_paths and not text.startswith("os.")):
                    asked.add((name, text))
    assert {each for each in asked if not each[0].startswith("storage/")} == allowed
    assert len(asked) > len(allowed) + 5


def test_public_names_are_there_and_documented() -> None:
    assert sorted(rdbkit.__all__) == rdbkit.__all__
    for name in rdbkit.__all__:
        thing = getattr(rdbkit, name)
        source = PACKAGE / f"{thing.__module__.removeprefix('rdbkit.').replace('.', '/')}.py"
        # from the source, since mypyc leaves the docstring of a class out
        (node,) = (n for n in ast.parse(source.read_text()).body if getattr(n, "name", "") == thing.__name__)
        assert isinstance(node, ast.ClassDef | ast.FunctionDef)
        assert ast.get_docstring(node), name


def test_what_is_wrong_with_an_argument_is_said_without_options() -> None:
    """Who calls a function has no command line; the command says which of its options has the argument."""
    seen = 0
    for path in PACKAGE.rglob("*.py"):
        if path.parent.name == "cli":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) not in ("ValueError", "TypeError"):
                continue
            seen += 1
            assert not re.search(r"(?<![-\w])--[a-z]", ast.unparse(node)), f"{path.name}:{node.lineno}"
    assert seen > 100


def test_nothing_heavy_is_imported_at_start() -> None:
    code = "import sys; from rdbkit.cli import main\ntry: main(['--version'])\nexcept SystemExit: pass\nprint(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for name in ("rich", "azure", "plotly", "pyarrow", "redis", "asyncio", "tomllib"):
        assert f"'{name}'" not in loaded, name


def test_examples_in_docstrings_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    import doctest
    import importlib

    monkeypatch.chdir(FIXTURES.parent)
    failures = tried = 0
    for name in (
        "model",
        "format.lzf",
        "format.skip",
        "format.constants",
        "format.counts",
        "format.decode",
        "format.modules",
        "products",
        "values",
        "cli.dual_options",
        "cli.render",
        "cli.scrubbing",
        "passes.allocation",
        "passes.footprint",
        "operations.diff_delta",
        "operations.diff",
        "operations.merge",
        "operations.split",
        "passes.split",
        "operations.memory_page",
        "passes.patterns",
        "passes.scramble",
        "azure.arguments",
        "storage.blob_url",
        "azure.resources",
        "compat.rdbtools.encodehelpers",
        "compat.rdbtools.parser",
        "dual.states",
        "live.abilities",
        "live.processes",
        "live.server_url",
        "resp",
        "policy.rules",
        "targets.commands",
        "targets.keyspecs",
        "targets.memory",
        "targets.releases",
        "targets.target",
        *ON_FIXTURES,
    ):
        result = doctest.testmod(importlib.import_module(f"rdbkit.{name}"))
        failures += result.failed
        tried += result.attempted
    assert failures == 0
    assert tried >= 12


def test_no_page_has_the_marks_of_a_merge() -> None:
    root = Path(__file__).parent.parent
    pages = [*root.glob("*.md"), *root.glob("docs/*.md")]
    assert pages
    assert not [page.name for page in pages if re.search(r"^(<{7}|>{7}) ", page.read_text("utf-8"), re.MULTILINE)]

"""The examples of docs/library.md do what the page says of them."""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from .rdb import FIXTURES

PAGE = Path(__file__).resolve().parents[1] / "docs" / "library.md"
BLOCK = re.compile(r"^```python\n(?P<code>.*?)^```$(?:\n\n```text\n(?P<text>.*?)^```$)?", re.M | re.S)
#: The first line of a block that a reader has to have more for than a file.
NEEDS = "# needs "


class Example(NamedTuple):
    """A block of code, the line of the page that it is on, and what it prints where the page says so."""

    line: int
    code: str
    text: str | None


def examples() -> Iterator[Example]:
    page = PAGE.read_text("utf-8")
    for match in BLOCK.finditer(page):
        yield Example(page[: match.start("code")].count("\n"), match["code"], match["text"])


def test_examples_print_what_the_page_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the page, since some go on from the one before, in a folder with the files that the page names."""
    (tmp_path / "fixtures").symlink_to(FIXTURES)
    shutil.copy(FIXTURES / "rich" / "redis-7.0.15.rdb", tmp_path / "dump.rdb")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    ran = compared = 0
    for example in examples():
        # so that a traceback names the page and its line
        code = compile("\n" * example.line + example.code, str(PAGE), "exec")
        if example.code.startswith(NEEDS):
            continue
        out = io.StringIO()
        with redirect_stdout(out):
            exec(code, names)
        ran += 1
        if example.text is not None:
            compared += 1
            assert out.getvalue() == example.text, f"{PAGE.name}:{example.line}"
    assert ran > 12
    assert compared > 6


def test_only_services_are_needed_besides_files() -> None:
    needs = [example.code.partition("\n")[0] for example in examples() if NEEDS in example.code]
    assert needs == ["# needs a cache and a storage account in Azure"]

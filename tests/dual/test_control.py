"""The control socket of a proxy."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from rdbkit.dual.control import Control, ask
from rdbkit.errors import TargetError

from ..processes import GUARD

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such sockets")


async def status(request: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"state": "old", "asked": request.get("more")}


async def refuse(request: Mapping[str, Any]) -> Mapping[str, Any]:
    raise TargetError("not yet")


def served(path: Path, then: Callable[[], Any]) -> Any:
    async def run() -> Any:
        control = Control(str(path), {"status": status, "switch": refuse})
        await control.start()
        try:
            return await asyncio.to_thread(then)
        finally:
            await control.close()

    return asyncio.run(asyncio.wait_for(run(), GUARD))


def test_questions_and_answers(tmp_path: Path) -> None:
    path = tmp_path / "s"

    def asked() -> None:
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert ask(str(path), "status", more=1) == {"state": "old", "asked": 1}
        with pytest.raises(TargetError, match="not yet"):
            ask(str(path), "switch")
        with pytest.raises(TargetError, match="can be asked to do: status, switch"):
            ask(str(path), "dance")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            sock.sendall(b'nonsense\n[1]\n{"do": "status"}\n')
            lines = sock.makefile("rb")
            assert b"not valid JSON" in lines.readline()
            assert b"can be asked" in lines.readline()
            assert b"old" in lines.readline()

    served(path, asked)
    assert not path.exists()
    with pytest.raises(TargetError, match="no proxy listens"):
        ask(str(path), "status")


def test_a_socket_that_was_left_is_taken_and_one_in_use_is_not(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with pytest.raises(TargetError, match="no proxy listens"):
        ask(str(path), "status")

    def again() -> None:
        with pytest.raises(TargetError, match="another proxy listens"):
            served(path, lambda: None)
        assert ask(str(path), "status")["state"] == "old"

    served(path, again)


def test_a_proxy_that_ends_before_it_answers(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        with pytest.raises(TargetError, match="does not answer within"):
            ask(str(path), "status", wait_s=0.01)

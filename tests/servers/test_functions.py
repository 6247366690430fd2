"""The sources that `info` prints are what servers take."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.server import running

from ..rdb import FIXTURES

SERVERS = Path(os.environ["RDBKIT_SERVERS"])


@pytest.mark.parametrize("line", ["redis-7.0", "redis-8.0", "valkey-8.1"])
@pytest.mark.parametrize("name", ["redis-7.0.15", "redis-7.0-rc1"])
def test_function_load_takes_what_info_prints(line: str, name: str) -> None:
    source = FIXTURES / "rich" / f"{name}.rdb"
    args = [sys.executable, "-m", "rdbkit", "info", str(source), "--functions"]
    code = subprocess.run(args, capture_output=True, check=True).stdout
    with running(next((SERVERS / line).glob("*-server"))) as (client, _):
        loaded = client.call("FUNCTION", "LOAD", code)
        assert isinstance(loaded, bytes)
        assert f" name={loaded.decode()}\n".encode() in code
        assert code in client.items("FUNCTION", "LIST", "WITHCODE")[0]  # type: ignore[operator]

"""Which servers load the Lua scripts of a snapshot, and that what is extracted gives them to those that do not."""

from __future__ import annotations

import io
import os
from hashlib import sha1
from pathlib import Path

import pytest

import rdbkit
from fixtures.server import running
from rdbkit.operations.commands import load_script
from rdbkit.targets.target import find_target

from ..rdb import aux, key, rdb, string

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
BODIES = (b"return 'one'", b"return '\xff'\r\n")
SNAPSHOT = rdb(*(aux(b"lua", body) for body in BODIES), b"\xfe\0", key(b"k", 0, string(b"v")))


@pytest.mark.parametrize("line", ["redis-6.0", "redis-7.0", "redis-8.0", "valkey-8.1", "valkey-9.1", "redict-7.3"])
def test_scripts_are_loaded_where_the_target_says_so(line: str, tmp_path: Path) -> None:
    file = tmp_path / "dump.rdb"
    file.write_bytes(SNAPSHOT)
    target = find_target(line)
    digests = [sha1(body).hexdigest() for body in BODIES]
    with running(next((SERVERS / line).glob("*-server")), file) as (client, _):
        assert client.call("GET", "k") == b"v"
        assert client.call("SCRIPT", "EXISTS", *digests) == [int(target.scripts)] * 2
    converted = tmp_path / "converted.rdb"
    out = io.BytesIO()
    report = rdbkit.convert(file, out, target=target, policies=rdbkit.Policies(lua_script="extract"))
    assert report.scripts == list(BODIES)
    converted.write_bytes(out.getvalue())
    with running(next((SERVERS / line).glob("*-server")), converted) as (client, _):
        assert client.call("GET", "k") == b"v"
        assert client.call("SCRIPT", "EXISTS", *digests) == [int(target.scripts)] * 2
        for body in report.scripts:
            assert list(load_script(body))
            client.call("SCRIPT", "LOAD", body)
        assert client.call("SCRIPT", "EXISTS", *digests) == [1, 1]
        assert client.call("EVALSHA", digests[0], 0) == b"one"

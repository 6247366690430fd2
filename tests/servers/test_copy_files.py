"""Snapshots into running servers: each key as a server has it that loads the file, and nothing that is there is wiped."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from fixtures.server import RELEASES, Client, running
from rdbkit.errors import LossError
from rdbkit.live.copy import Progress, copy
from rdbkit.policy.rules import Edits, Policies

from ..command_line import run_text
from ..rdb import FIXTURES
from .test_copy import number, url
from .test_transfer import content, pair

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
BINARY = SERVERS / "redis-7.0" / "redis-server"
FAR = 4_102_444_800_000


def restored(client: Client) -> int:
    """How often RESTORE was called."""
    info = client.call("INFO", "commandstats")
    assert isinstance(info, bytes)
    found = [line for line in info.split(b"\r\n") if line.startswith(b"cmdstat_restore:calls=")]
    return int(found[0].split(b"=")[1].split(b",")[0]) if found else 0


def values(client: Client) -> dict[tuple[int, str], Any]:
    """Types and values of all keys; when they expire, Redis 6.0 tells about."""
    return {key: row[:2] for key, row in content(client).items()}


@pytest.mark.parametrize("kind", ["rich", "random"])
@pytest.mark.parametrize("line", ["redis-6.0", "redis-7.0", "redis-8.0", "valkey-9.1"])
def test_a_file_arrives_as_a_server_has_it_that_loads_it(line: str, kind: str) -> None:
    path = FIXTURES / kind / f"{RELEASES[line]}.rdb"
    with pair(line, line, path) as (a, b):
        b.call("SET", "mine", "v")
        found = copy(path, url(b))
        assert found.complete, found.samples
        assert found.counts.written == found.counts.read
        assert b.call("DEL", "mine") == 1
        assert values(a) == values(b)
        assert line == "redis-6.0" or content(a) == content(b)
        again = copy([path], url(b))
        assert (again.counts.written, again.counts.equal) == (0, found.counts.written)
        if line != "redis-6.0":
            assert a.call("FUNCTION", "LIST", "WITHCODE") == b.call("FUNCTION", "LIST", "WITHCODE")


def test_nothing_is_written_where_something_would_be_lost() -> None:
    path = FIXTURES / "rich" / f"{RELEASES['redis-8.0']}.rdb"
    with running(SERVERS / "redis-6.0" / "redis-server") as (b, _):
        with pytest.raises(LossError) as e:
            copy(path, url(b))
        assert e.value.report is not None
        assert number(b, "DBSIZE") == 0
        done = run_text("copy", path, url(b))
        assert done.returncode == 1
        assert "rdbkit: nothing was written" in done.stderr
        assert number(b, "DBSIZE") == 0
        found = copy(path, url(b), policies=Policies(loss="drop"))
        assert found.complete
        assert 20 < number(b, "DBSIZE") <= found.counts.written


def test_several_files_are_told_as_one_and_what_expired_is_not_written(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with rdbkit.create(tmp_path / name, version=9) as writer:
            writer.put(name, b"v", db=3)
            writer.put(f"{name}:late", b"v", expire_ms=1, db=3)
            writer.put("both", name.encode())
    with running(BINARY) as (client, _):
        done = run_text("copy", tmp_path / "a", tmp_path / "b", url(client), "--map-db", "3=0")
        assert done.returncode == 1
        assert "2 files" in done.stdout
        assert "left alone: both (db 0): the target has another value there" in done.stdout
        assert sorted(client.items("KEYS", "*")) == [b"a", b"b", b"both"]  # type: ignore[type-var]


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with values that are larger than a block, among small ones."""
    path = tmp_path_factory.mktemp("large") / "large.rdb"
    chosen = random.Random(1)
    with rdbkit.create(path, version=10) as writer:
        writer.put("before", b"v")
        writer.put("string", chosen.randbytes(3_000_000), expire_ms=FAR)
        writer.put("hash", {b"f%d" % i: b"%d" % chosen.getrandbits(60) for i in range(100_000)})
        writer.put("list", [b"%d" % chosen.getrandbits(60) for i in range(150_000)])
        writer.put("set", {b"m%d" % i for i in range(150_000)})
        writer.put("zset", {b"m%d" % i: float(chosen.random()) for i in range(80_000)})
        writer.put("after", b"v", db=2)
    return path


@pytest.mark.parametrize("big", [0, 1 << 20])
@pytest.mark.parametrize("line", ["redis-6.0", "redis-7.0"])
def test_values_larger_than_a_block_arrive_whole(large: Path, big: int, line: str) -> None:
    with pair("redis-7.0", line, large) as (a, b):
        found = copy(large, url(b), big=big)
        assert (found.complete, found.counts.written) == (True, 7)
        expected, there = values(a), values(b)
        assert there[0, "string"] == expected[0, "string"]
        assert there.keys() == expected.keys()
        b.call("SELECT", "0")
        again = copy(large, url(b), big=big)
        assert (again.counts.equal, again.counts.existing) == (7, 0)
        b.pipeline([("HSET", "hash", "f1", "other"), ("APPEND", "string", "x")])
        again = copy(large, url(b), big=big)
        assert (again.counts.equal, again.counts.existing) == (5, 2)
        assert copy(large, url(b), big=big, on_exists="replace").complete
        assert copy(large, url(b), big=big).counts.equal == 7
        assert not b.items("KEYS", "*rdbkit*")


def test_a_copy_of_a_file_goes_on_where_it_was(tmp_path: Path) -> None:
    path, state = tmp_path / "many.rdb", str(tmp_path / "state")
    with rdbkit.create(path, version=9) as writer:
        for i in range(60_000):
            writer.put(f"key:{i}", b"v" * 100)

    class Enough(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.keys > 30_000:
            raise Enough

    with running(BINARY) as (client, _):
        with pytest.raises(Enough):
            copy(path, url(client), state=state, progress=stop)
        assert 0 < number(client, "DBSIZE") < 60_000
        before = restored(client)
        found = copy(path, url(client), state=state)
        assert found.resumed
        assert found.complete
        assert (number(client, "DBSIZE"), found.counts.existing) == (60_000, 0)
        assert restored(client) - before < 50_000
        assert found.counts.read >= 60_000
        assert not (tmp_path / "state").exists()
        with rdbkit.create(path, version=9, force=True) as writer:
            writer.put("other", b"v")
        options: dict[str, Any] = {"edits": Edits(rename_prefix=[("other", "more")])}
        assert copy(path, url(client), **options).counts.written == 1
        assert client.call("EXISTS", "more") == 1

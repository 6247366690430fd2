"""Whole ways into Azure Managed Redis, each ended at every step: killed, failed by the service, and gone on with to the end."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

import rdbkit

from ..arm import Cache, Cloud
from ..azurite import needs_azurite
from ..processes import until
from ..rdb import FIXTURES, one_in
from .shell import Shell, posts

pytestmark = needs_azurite
Source = tuple[str, list[str], int]


def databases(azure: Cloud, folder: Path) -> Source:
    """A dump of Redis 7.2 with three databases, on the disk."""
    path = folder / "shop.rdb"
    with rdbkit.create(path, version=11) as writer:
        for db in range(3):
            writer.put(b"key-of-%d" % db, b"value" * 100, db=db)
    return str(path), ["--collapse-dbs"], 3


def enterprise(azure: Cloud, folder: Path) -> Source:
    """An export of Redis Enterprise, packed, with the opcodes that it alone has, as a blob."""
    data = (FIXTURES / "enterprise/ram-lru.rdb").read_bytes()
    return azure.blob(f"exports/{folder.name}.rdb.gz", gzip.compress(data, mtime=0)), [], keys_of(data)


def fields(azure: Cloud, folder: Path) -> Source:
    """A dump of Redis 7.4 whose hash fields expire, which the documents do not promise and the engine has."""
    path = folder / "shop.rdb"
    edits = rdbkit.Edits(collapse_dbs=True, on_conflict="rename")
    done = rdbkit.convert(FIXTURES / "rich/redis-7.4.1.rdb", path, target="redis-7.4", edits=edits)
    return str(path), ["--undocumented", "--strict"], done.written


def premium(azure: Cloud, folder: Path) -> Source:
    """An export of Premium, as a page blob, with as many bytes as pages have."""
    data = (FIXTURES / "rich/redis-6.0.16.rdb").read_bytes()
    data += bytes(-len(data) % 512)
    url = azure.blob(f"exports/{folder.name}.rdb", data, kind="PageBlob")
    return url, ["--collapse-dbs", "--on-conflict", "rename={key}:db{db}"], keys_of(data)


def keys_of(data: bytes) -> int:
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        return sum(1 for _ in snapshot)


class Migration:
    """One migration, given as the same command each time."""

    def __init__(self, azure: Cloud, shell: Shell, cache: Cache, source: Source) -> None:
        file, options, self.keys = source
        self.azure, self.shell, self.cache = azure, shell, cache
        self.container = azure.blob(f"dumps/{shell.folder.name}/")
        self.args = ["migrate", file, "--target", "azure-managed", "--resource-id", cache.path, "--container", self.container]
        self.args += [*options, "--yes", cache.path.rpartition("/")[2]]
        self.state = shell.folder / "rdbkit-migrate-shop-amr.json"

    @property
    def operation(self) -> str:
        kept = json.loads(self.state.read_text())["import"] if self.state.exists() else None
        return str(kept["operation"]) if kept else ""

    def killed(self, kill: Callable[[Callable[[], None]], None] | None = None, wait: Callable[[], object] | None = None) -> None:
        """Kill a run, either at what calls back or as soon as something is there."""
        process = self.shell.start(*self.args)
        if kill is not None:
            kill(process.kill)
        if wait is not None:
            until(wait, process)
            process.kill()
        code, _, err = self.shell.end(process)
        assert code == -signal.SIGKILL, err
        self.azure.fault, self.azure.arm_fault, self.cache.on_begin = lambda m, p: "", lambda m, p: "", None


@pytest.mark.one_in(2)
@pytest.mark.parametrize("make", [databases, enterprise, fields, premium])
def test_a_path_that_is_ended_at_every_step(azure: Cloud, shell: Shell, make: Callable[[Cloud, Path], Source]) -> None:
    path = Migration(azure, shell, azure.managed(), make(azure, shell.folder))
    cache = path.cache

    def at(method: str, what: str) -> Callable[[Callable[[], None]], None]:
        def arrange(kill: Callable[[], None]) -> None:
            def look(asked: str, where: str) -> str:
                if asked == method and what in where:
                    kill()
                    return "cut"
                return ""

            azure.fault = azure.arm_fault = look

        return arrange

    path.killed(at("GET", "/databases/default"))  # while the cache is asked
    path.killed(at("PUT", f"/dumps/{shell.folder.name}/"))  # while it is sent
    assert (cache.data, posts(azure)) == ([b"what was there"], [])
    path.killed(lambda kill: setattr(cache, "on_begin", kill))  # while the import is begun
    assert (path.operation, len(posts(azure))) == ("", 1)
    with azure.operations_going_on(cache):  # between two questions
        path.killed(wait=lambda: "t=" in path.operation and "t=0&" not in path.operation)
    assert len(posts(azure)) == 2

    # what was begun fails, and not as its status, but as an error of HTTP
    cache.fail, cache.fail_status = ("Conflict", ": \r\nRequestID=5e1f0001"), 409
    code, _, err = shell.run(*path.args)
    assert (code, len(posts(azure)), path.operation) == (4, 2, "")
    assert err.strip().endswith("and import again; Azure's support finds it by RequestID 5e1f0001")

    cache.fail = None
    code, out, err = shell.run(*path.args, "--json")
    assert code == 0, err
    assert sum(map(keys_of, cache.data)) == json.loads(out)["written"] == path.keys
    assert json.loads(out)["lost"] == {}
    assert (len(posts(azure)), list(shell.folder.glob("rdbkit-*"))) == (3, [])


@pytest.mark.parametrize("make", [databases, enterprise, fields, premium])
@pytest.mark.parametrize("number", one_in(20, range(2, 42)))
def test_a_path_that_is_ended_at_any_request(
    azure: Cloud, shell: Shell, make: Callable[[Cloud, Path], Source], number: int
) -> None:
    path = Migration(azure, shell, azure.managed(), make(azure, shell.folder))
    requests = itertools.count(1)

    def kill(method: str, where: str) -> str:
        if next(requests) != number:
            return ""
        process.kill()
        return "" if posts(azure) else "cut"  # what reads the blobs then is the service

    process = shell.start(*path.args)
    azure.fault = azure.arm_fault = kill
    code, _, err = shell.end(process)
    azure.fault = azure.arm_fault = lambda method, where: ""
    if code == 0:
        assert next(requests) <= number, "it came to its end before"
    else:
        assert code == -signal.SIGKILL, err
        code, _, err = shell.run(*path.args)
    assert code == 0, err
    assert sum(map(keys_of, path.cache.data)) == path.keys
    assert list(shell.folder.glob("rdbkit-*")) == []

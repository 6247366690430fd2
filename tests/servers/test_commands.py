"""What `RespWriter` writes of a dump, piped into an empty server by its own redis-cli, is there again."""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from fixtures.server import Client, running
from fixtures.server import truth as answers
from rdbkit.operations.commands import RespWriter
from rdbkit.targets.commands import features
from rdbkit.targets.target import find_target

from ..rdb import each_dump, truth

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
LINES = ["redis-6.0", "redis-7.0", "redis-8.0", "valkey-8.1", "valkey-9.1", "redict-7.3"]
# what may be lost only where the target lacks a feature; no server here has that of arrays and of entries given back
NEEDS = {
    "function": "functions",
    "field-expiry": "field-expiry",
    "module": "vectorset",
    "array": "arrays",
    "nacked": "nack",
}
# what is lost everywhere, and the only dumps that have it
ALWAYS = {
    "dedup": ("redis-8.6-dev", "redis-8.8-dev", "redis-8.8-dev-keymeta"),
    "key-metadata": ("redis-8.8-dev-keymeta",),
}
WHOLE_KEY = {"module", "array"}
SLACK_MS = 5_000

Server = tuple[str, Client]


@pytest.fixture(scope="module", params=LINES)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with running(SERVERS / request.param / "redis-server") as (client, _):
        yield request.param, client


def load(server: Server, path: Path, block_size: int | None = None) -> RespWriter:
    """Empties the server and pipes the dump into it; nothing of it may be an error."""
    line, client = server
    client.call("FLUSHALL")
    if "functions" in features(find_target(line)):
        client.call("FUNCTION", "FLUSH")
    writer = RespWriter(line, on_loss="drop")
    options: dict[str, Any] = {} if block_size is None else {"block_size": block_size}
    with rdbkit.open(path, **options) as snapshot:
        out = b"".join(piece for item in snapshot.events() for piece in writer.commands(item))
    port = client.items("CONFIG", "GET", "port")[1]
    assert isinstance(port, bytes)
    cli = [str(SERVERS / line / "redis-cli"), "-p", port.decode(), "--pipe"]
    said = subprocess.run(cli, input=out, capture_output=True, check=False).stdout.decode()
    assert re.search(r"errors: 0, replies: [1-9]", said), said
    return writer


def after(path: Path, writer: RespWriter) -> list[dict[str, Any]]:
    """The truth without what the writer says is lost, and without what has expired meanwhile.

    It has expired by the file: Redis 2.4 keeps seconds in 32 bits there, so that a time after 2038 is one before 1970.
    """
    now = time.time_ns() // 1_000_000
    with rdbkit.open(path) as snapshot:
        expired = {(r.db, r.key) for r in snapshot if r.expire_ms is not None and r.expire_ms <= now}
    lost = {(loss.db, loss.key, loss.kind) for loss in writer.losses}
    found = []
    for row in truth(path) or []:
        key = row["db"], row["key"].encode("latin-1")
        if key in expired or any((*key, kind) in lost for kind in WHOLE_KEY):
            continue
        if isinstance(row["value"], dict) and "pairs" in row["value"] and (*key, "field-expiry") in lost:
            row["value"] = row["value"]["pairs"]
        if (*key, "nacked") in lost:
            for group in row["value"]["groups"]:
                group["pel"] = [entry for entry in group["pel"] if entry[1]]
        found.append(row)
    return found


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """An answer without what differs between servers for the same data."""
    row = {name: value for name, value in row.items() if name not in ("memory", "expire_ms")}
    if row["type"] == "zset":
        # Redis 7.0 and later have one zero
        row["value"] = sorted([member, repr(float(score) + 0.0)] for member, score in row["value"])
    return row


def same_expiry(one: Any, other: Any) -> bool:
    if isinstance(one, list) or isinstance(other, list):
        ms = [value[1] if isinstance(value, list) else value for value in (one, other)]
        return None not in ms and abs(ms[0] - ms[1]) < SLACK_MS
    return bool(one == other)


@pytest.mark.parametrize("path", each_dump(answered=True))
def test_a_server_has_the_same_again(path: Path, server: Server) -> None:
    writer = load(server, path)
    line, client = server
    for kind in writer.loss_counts:
        assert path.stem in ALWAYS.get(kind, ()) or NEEDS[kind] not in features(find_target(line)), writer.losses
    wanted = after(path, writer)
    found = [dict(row) for row in answers(client)]
    assert [(row["db"], row["key"]) for row in found] == [(row["db"], row["key"]) for row in wanted]
    for one, other in zip(found, wanted, strict=True):
        assert plain(one) == plain(other)
        assert same_expiry(one["expire_ms"], other["expire_ms"]), (one, other)
    if "functions" in features(find_target(line)):
        with rdbkit.open(path) as snapshot:
            names = [event.name for event in snapshot.events() if isinstance(event, rdbkit.FunctionLibrary)]
        libraries = client.items("FUNCTION", "LIST")
        assert len(libraries) == len(names)
        assert all(name.encode() in library for name, library in zip(names, libraries, strict=True) if isinstance(library, list))


def fill(client: Client, line: str) -> None:
    """Streams of which entries that are pending were deleted: trimmed, from between, from the end, and all of them."""
    for key in ("ahead", "between", "end", "all"):
        for i in range(1, 41):
            client.call("XADD", key, f"{i}-{i % 3}", "field", "v" * i)
        for group, start in (("g", 0), ("h", 5)):
            client.call("XGROUP", "CREATE", key, group, start)
            for consumer in ("a", "b"):
                client.call("XREADGROUP", "GROUP", group, consumer, "COUNT", 9, "STREAMS", key, ">")
    client.call("XTRIM", "ahead", "MAXLEN", 30)
    client.call("XDEL", "between", "6-0", "8-2", "9-0", "25-1")
    client.call("XDEL", "end", "40-1", "39-0")
    client.call("XGROUP", "SETID", "end", "g", "38-2")
    client.call("XREADGROUP", "GROUP", "g", "a", "STREAMS", "end", ">")
    client.call("XTRIM", "all", "MAXLEN", 0)
    client.call("XADD", "untouched", "7-0", "f", "v")
    client.call("XADD", "zero", "MAXLEN", 0, "1-0", "f", "v")
    if "create-consumer" in features(find_target(line)):
        client.call("XGROUP", "CREATECONSUMER", "all", "g", "idle")
    client.call("XCLAIM", "between", "g", "c", 0, "1-1", "TIME", 1_700_000_000_000, "RETRYCOUNT", 7, "JUSTID")


def details(client: Client) -> dict[bytes, Any]:
    """What servers say of streams besides the truth: counters, and how long ago what is pending was delivered."""
    found: dict[bytes, Any] = {}
    for key in client.items("KEYS", "*"):
        assert isinstance(key, bytes)
        info = client.items("XINFO", "STREAM", key)
        pairs = {name: value for name, value in zip(info[::2], info[1::2], strict=True) if isinstance(name, bytes)}
        groups = client.items("XINFO", "GROUPS", key)
        names = sorted(group[1] for group in groups if isinstance(group, list) and isinstance(group[1], bytes))
        pending = [client.items("XPENDING", key, name, "-", "+", 100) for name in names]
        found[key] = {name: value for name, value in pairs.items() if not name.startswith(b"radix")}, groups, pending
    return found


@pytest.mark.parametrize("block_size", [None, 64])
def test_pending_entries_come_back_where_the_entry_is_gone(server: Server, tmp_path: Path, block_size: int | None) -> None:
    line, client = server
    client.call("FLUSHALL")
    fill(client, line)
    wanted, wanted_details = [plain(dict(row)) for row in answers(client)], details(client)
    client.call("SAVE")
    folder = client.items("CONFIG", "GET", "dir")[1]
    assert isinstance(folder, bytes)
    writer = load(server, Path(folder.decode(), "dump.rdb"), block_size)
    assert not writer.losses
    assert [plain(dict(row)) for row in answers(client)] == wanted
    found = details(client)
    for key, (info, groups, pending) in wanted_details.items():
        assert found[key][:2] == (info, groups), key
        for one, other in zip(found[key][2], pending, strict=True):
            assert [(*entry[:2], entry[3]) for entry in one] == [(*entry[:2], entry[3]) for entry in other]
            assert all(abs(a[2] - b[2]) < SLACK_MS for a, b in zip(one, other, strict=True))

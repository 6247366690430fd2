"""The table of commands is what servers say, and which keys a request writes is what they answer to COMMAND GETKEYSANDFLAGS."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fixtures import make_keyspecs
from fixtures.server import Client, ServerError, items, running, text
from rdbkit.targets.keyspecs import TABLE, CommandTable

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
WITH_FLAGS = ("redis-7.0", "redis-8.0", "valkey-9.1", "redict-7.3")

FREE = (
    "SORT a STORE to",
    "SORT a BY x_* LIMIT 0 5 GET # GET y_* ALPHA STORE to",
    "SORT a",
    "SORT_RO a BY x_*",
    "GEORADIUS a 0 0 1 km STORE to",
    "GEORADIUS a 0 0 1 km WITHDIST COUNT 1 STOREDIST to",
    "GEORADIUSBYMEMBER a m 1 km STORE to",
    "XREADGROUP GROUP g c COUNT 5 BLOCK 10 NOACK STREAMS a b > >",
    "XREADGROUP GROUP STREAMS c STREAMS a >",
    "MIGRATE h 1 a 0 5 COPY REPLACE",
    'MIGRATE h 1 "" 0 5 COPY AUTH x KEYS a b c',
    'MIGRATE h 1 "" 0 5 AUTH2 KEYS y KEYS a',
    "EVAL x 2 a b c",
    "EVAL x 0 a b c",
    "FCALL f 1 a b",
    "FCALL_RO f 2 a b c",
    "ZUNIONSTORE to 2 a b WEIGHTS 1 2",
    "ZINTER 2 a b WEIGHTS 1 2",
    "BLMPOP 1 2 a b LEFT COUNT 3",
    "ZMPOP 1 a MIN",
    "BITOP NOT to a",
    "COPY a to REPLACE",
    "SINTERCARD 2 a b LIMIT 5",
    "XGROUP CREATE a g $ MKSTREAM",
    "XAUTOCLAIM a g c 0 0 JUSTID",
    "GEOSEARCHSTORE to a FROMMEMBER m BYRADIUS 1 km ASC",
    "LCS a b LEN",
    "OBJECT ENCODING a",
    "MEMORY USAGE a SAMPLES 5",
    "BLPOP a b c 0",
    "MSET a 1 b 2 c 3",
    "PFMERGE to a b",
    "SET a 1 EX 5 GET",
    "RENAME a b",
    "SMOVE a b m",
    "LMOVE a b LEFT RIGHT",
)
"""Requests whose keys do not stand in the same place each time, and some others."""
LOOSE = ("BITFIELD", "XREADGROUP")
"""Where the server says that keys are only read: true of these arguments, and of a stream's elements but not of its group."""


def answer(client: Client, request: list[bytes]) -> tuple[set[bytes], set[bytes]] | None:
    """The keys that are written and those that are only read; None for a request that the server does not understand."""
    (said,) = client.answers([[b"COMMAND", b"GETKEYSANDFLAGS", *request]])
    if isinstance(said, ServerError):
        return (set(), set()) if "no key arguments" in str(said) else None
    written: set[bytes] = set()
    read: set[bytes] = set()
    for each in items(said):
        key, flags = items(each)
        assert isinstance(key, bytes)
        (read if "RO" in {text(flag) for flag in items(flags)} else written).add(key)
    return written, read


def compare(client: Client, request: list[bytes]) -> bool:
    """That the table says of a request what the server does; whether that has said anything."""
    said = answer(client, request)
    if said is None:
        return False
    ours = TABLE.written(request)
    assert ours.kind != "unknown", request
    written, read = said
    if ours.kind == "read":  # PFCOUNT, and commands of modules that do not tell more
        written, read = set(), written | read
    if request[0].decode() in LOOSE:
        written, read = written | read, set()
    if ours.kind == "publish":  # its channel is called a key that is none
        written = read = set()
    assert set(ours.keys) == written, request
    if ours.kind == "read" and (keys := TABLE.reads(request)):
        assert set(keys) == read, request
    return True


@pytest.fixture(scope="module", params=WITH_FLAGS)
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    with running(SERVERS / request.param / "redis-server") as (client, _):
        yield client


def known(client: Client) -> Iterator[list[Any]]:
    """What the server says of each command and subcommand."""
    for command in items(client.call("COMMAND")):
        parts = items(command)
        within = items(parts[9])
        yield from (items(each) for each in within) if within else iter([parts])


def test_free_requests(client: Client) -> None:
    tried = [compare(client, [b"" if each == '""' else each.encode() for each in request.split()]) for request in FREE]
    assert sum(tried) >= len(FREE) - 2


def test_every_command_that_the_server_has(client: Client) -> None:
    tried = 0
    for parts in known(client):
        name = text(parts[0]).upper().replace("|", " ").split()
        # Enough arguments for any: "2" is a number of keys, and further ones tell which are keys.
        for more in range(8):
            number = abs(int(parts[1])) + more
            if more and int(parts[1]) > 0:
                break
            request = [each.encode() for each in name]
            request += [b"2" if at in (1, 2) and at >= len(name) else b"a%d" % at for at in range(len(request), number)]
            tried += compare(client, request)
    assert tried > 200


def test_the_file_is_what_servers_say() -> None:
    assert make_keyspecs.content(SERVERS) == make_keyspecs.FILE.read_text()


def test_older_servers_agree() -> None:
    """Redis 6.0 does not tell what is written: what is said here to be written is a key there."""
    tried = 0
    with running(SERVERS / "redis-6.0" / "redis-server") as (client, _):
        for request in FREE:
            words = request.split()
            (said,) = client.answers([["COMMAND", "GETKEYS", *words]])
            if isinstance(said, list) and words[0] not in ("SORT", "MIGRATE"):
                assert set(TABLE.written(request.encode().split()).keys) <= set(said), request
                tried += 1
        assert tried > 15


def test_a_table_is_learned_from_a_server(client: Client) -> None:
    """As though each command were new: it is known as well as ours are, or to be unknown."""
    learned = CommandTable({})
    for command in items(client.call("COMMAND")):
        learned.learn(text(items(command)[0]).encode(), command)
    unknown = set()
    for parts in known(client):
        name = text(parts[0]).upper().replace("|", " ")
        request = [*name.encode().split(), b"2", b"2", b"c", b"d", b"e"]
        said, ours = learned.written(request), TABLE.written(request)
        if said.kind == "unknown":
            unknown.add(name)
        elif ours.kind in ("definition", "flush", "publish"):
            assert said.kind in ("write", "other"), name
        elif name not in (*make_keyspecs.RULES, "XREAD"):
            assert said == ours, name
    assert unknown == {"SORT"}  # of MIGRATE keyspecs.py knows by its name

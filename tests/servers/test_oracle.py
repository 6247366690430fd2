"""What `check --deep` approves of and what `convert --deep` writes, real servers load and serve, whatever is wrong in a file."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests.fuzz.agreement import agreements, files, report
from tests.fuzz.directed import around, cases
from tests.fuzz.oracle import BREAKS, CRASHES, EMPTY, HANGS, LINES, LOADS, REFUSES, SKIPS, Server

from ..rdb import FIXTURES, key, length, rarely, string

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
MUTATED = 1220  # 20 of each fixture


@pytest.mark.parametrize("line", ["redis-7.0", *rarely(*(line for line in LINES if line != "redis-7.0"))])
def test_no_file_is_approved_that_a_server_does_not_load(line: str) -> None:
    (found,) = agreements(SERVERS, MUTATED, with_directed=True, lines=[line], processes=1)
    if folder := os.environ.get("RDBKIT_REPORT"):
        Path(folder, f"{line}.txt").write_text(report([found], len(files(MUTATED, True))))
    assert found.dangerous == []
    assert found.approved > 100
    assert found.written > 100


@pytest.mark.parametrize("line", LINES)
def test_a_server_that_runs_loads_as_one_that_starts(line: str) -> None:
    chosen = cases()[::23]
    binary = SERVERS / line / "redis-server"
    with Server(binary) as running, Server(binary) as starting:
        for case in chosen:
            if line == "redis-6.0" and re.search(
                "ziplist|listpack|width|count|over the end|without a value|of 4 GB|size of|head|entry:", case.damage
            ):
                continue  # what that server reads behind the end of a string is there by chance
            told, fresh = running.ask(case.data), starting.fresh(case.data)
            assert (told.state, told.keys, told.elements) == (fresh.state, fresh.keys, fresh.elements), case.name


def test_what_a_server_does_is_told_apart() -> None:
    def value(kind: int, data: bytes) -> bytes:
        return around(b"REDIS0009", key(b"k", kind, data))

    def by_name(name: str) -> bytes:
        return next(case.data for case in cases() if case.name == name)

    plain = value(0, string(b"v"))
    twice = around(b"REDIS0009", key(b"k", 0, string(b"v")) * 2)
    with Server(SERVERS / "redis-6.0" / "redis-server") as old, Server(SERVERS / "redis-8.0" / "redis-server") as new:
        for server in (old, new):
            assert server.ask(plain)[:] == (LOADS, "", 3, 3)
            assert server.ask(twice).state == CRASHES
            assert server.ask(value(16, b"\x07\7\0\0\0\0\0\xff")).state in (REFUSES, SKIPS)
            assert server.ask((FIXTURES / "rich" / "redis-8.8-dev.rdb").read_bytes()).reason == "Can't handle RDB format version 14"
            assert server.ask(plain).state == LOADS
        assert old.ask(value(4, length(0))).state == EMPTY
        assert new.ask(value(4, length(0)))[:] == (SKIPS, "keys without elements are left out", 2, 2)
        assert old.ask(by_name("REDIS0006-9-field without a value")).state in (HANGS, CRASHES, REFUSES)  # it reads on and on
        assert new.ask(by_name("REDIS0010-16-field twice"))[:2] == (BREAKS, "a hash gives an element twice")
        assert new.ask(by_name("REDIS0010-16-listpack entry: size behind it too large")).state == BREAKS
        assert new.ask(by_name("REDIS0006-13-field twice")).state == REFUSES

"""Function libraries from one real server to another: what is there is left alone, and what cannot be taken is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from fixtures.server import Client, running
from rdbkit.live.functions import copy_functions, libraries_of
from rdbkit.live.server import Server, connect

SERVERS = Path(os.environ["RDBKIT_SERVERS"])


@contextmanager
def served(line: str) -> Iterator[tuple[Client, Server]]:
    with running(SERVERS / line / "redis-server") as (client, _):
        port = bytes(client.items("CONFIG", "GET", "port")[1]).decode()  # type: ignore[arg-type]
        with connect(f"redis://127.0.0.1:{port}") as server:
            yield client, server


def library(name: str, answer: int, function: str = "") -> str:
    return f"#!lua name={name}\nredis.register_function('{function or name}_f', function() return {answer} end)"


@pytest.mark.parametrize("line", ["redis-7.0", "redis-8.0", "valkey-9.1"])
def test_libraries_are_loaded_and_those_that_are_there_are_left_alone(line: str) -> None:
    with served("redis-7.0") as (old, source), served(line) as (new, target):
        for name, answer in (("same", 1), ("other", 2), ("clash", 3), ("new", 4)):
            old.call("FUNCTION", "LOAD", library(name, answer))
        new.call("FUNCTION", "LOAD", library("same", 1))
        new.call("FUNCTION", "LOAD", library("other", 20))
        new.call("FUNCTION", "LOAD", library("mine", 30, "clash"))
        found = libraries_of(source)
        assert sorted(found.sources) == ["clash", "new", "other", "same"]
        done = copy_functions(found.sources, target)
        assert (done.written, done.equal, done.different, done.left) == (["new"], ["same"], ["other"], 2)
        assert "clash_f" in done.refused["clash"]
        assert new.call("FCALL", "new_f", "0") == 4
        assert new.call("FCALL", "other_f", "0") == 20
        assert new.call("FCALL", "clash_f", "0") == 30
        again = copy_functions(found.sources, target, replace=True)
        assert (again.written, again.equal, list(again.refused)) == (["other"], ["new", "same"], ["clash"])
        assert new.call("FCALL", "other_f", "0") == 2


def test_servers_without_functions_have_none_and_take_none() -> None:
    with served("redis-7.0") as (old, source), served("redis-6.0") as (_, target):
        old.call("FUNCTION", "LOAD", library("new", 4))
        assert libraries_of(target).sources == {}
        assert libraries_of(target).refusal is None
        done = copy_functions(libraries_of(source).sources, target)
        assert list(done.refused) == ["new"]


def test_a_login_that_may_not_list_them_is_told() -> None:
    with served("redis-7.0") as (old, source):
        old.call("ACL", "SETUSER", "default", "-function")
        found = libraries_of(source)
        assert found.sources == {}
        assert found.refusal is not None
        assert "NOPERM" in found.refusal

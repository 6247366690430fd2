"""Copies from and to what behaves as Azure's services do: refused commands, opaque cursors, tokens that end, access policies."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from fixtures.server import Client, running
from fixtures.shapes import commands
from rdbkit.live import login
from rdbkit.live.copy import copy
from rdbkit.live.server import connect

from ..live.acl import add_users, url_of
from ..live.azure_like import MANAGED, PREMIUM, AzureLike
from ..live.cluster import cluster
from ..live.copying import copied
from ..live.oracle import content, differences, tolerance_ms
from .test_verify_import import port_of

SERVERS = Path(os.environ["RDBKIT_SERVERS"])


@pytest.fixture(scope="module")
def old() -> Iterator[Client]:
    with running(SERVERS / "redis-6.0" / "redis-server") as (client, _):
        client.pipeline(commands(5, 200, most=300))
        yield client


@pytest.fixture
def new() -> Iterator[Client]:
    with running(SERVERS / "redis-8.0" / "redis-server") as (client, _):
        yield client


def url(client: Client) -> str:
    return f"redis://127.0.0.1:{port_of(client)}"


def test_a_premium_cache_into_a_managed_one(old: Client, new: Client) -> None:
    with (
        AzureLike(int(port_of(old)), PREMIUM, opaque_cursors=True, latency=0.0005) as source,
        AzureLike(int(port_of(new)), MANAGED) as target,
    ):
        done = copied(source.url, target.url, batch=20)
        assert done.complete
        assert source.seen["DUMP"] >= 200
        assert "CONFIG" not in source.seen or source.refused["CONFIG"]
    assert differences(content(old), content(new), tolerance_ms("redis-6.0")) == []


def test_databases_that_a_managed_cache_does_not_have_are_told(new: Client) -> None:
    with running(SERVERS / "redis-7.0" / "redis-server") as (client, _):
        client.pipeline([("SET", "a", 1), ("SELECT", 3), ("SET", "b", 1), ("SELECT", 0)])
        with AzureLike(int(port_of(new)), MANAGED) as target:
            done = copied(url(client), target.url)
            assert not done.complete
            assert done.counts.written == 1
            assert done.ledger.forbidden or [each.key for each in done.samples] == [b"b"]
        assert {key for _, key in content(new)} == {b"a"}


def test_the_nodes_of_a_managed_cluster(old: Client) -> None:
    with (
        cluster(SERVERS / "redis-8.0" / "redis-server") as made,
        AzureLike([node.port for node in made.nodes], MANAGED, opaque_cursors=True) as front,
        running(SERVERS / "redis-8.0" / "redis-server") as (back, _),
    ):
        assert copied(url(old), front.url).complete
        found = content(*(node.client for node in made.masters()))
        assert differences(content(old), found, tolerance_ms("redis-6.0")) == []
        assert copied(front.url, url(back), batch=30).complete
        assert differences(found, content(back)) == []


@pytest.mark.parametrize("user", ["owner", "contributor", "reader"])
@pytest.mark.parametrize("line", ["redis-6.0", "redis-7.0", "redis-8.0", "valkey-9.1"])
def test_each_policy_lets_one_read_all_keys(line: str, user: str, new: Client) -> None:
    with running(SERVERS / line / "redis-server") as (client, _):
        client.pipeline(commands(6, 150, most=300))
        add_users(client)
        done = copied(url_of(url(client), user), url(new), batch=20)
        assert done.complete
        assert differences(content(client), content(new), 1000 if user != "owner" else tolerance_ms(line)) == []


def test_a_token_that_ends_during_a_copy_is_no_end_of_it(old: Client, new: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "_LOOK_S", 0.0)  # it asks each time whether there is a new one
    with AzureLike(int(port_of(old)), PREMIUM, tokens=True) as source:
        tokens = [source.issue()]
        ticks = 0

        def tick(_: object) -> None:
            nonlocal ticks
            ticks += 1
            if ticks == 2:
                tokens.append(source.issue())
            elif ticks == 4:  # connections that are in use have logged in again, and the others may be closed
                source.end(tokens[0])

        with connect(source.url, credentials=lambda: ("oid", tokens[-1])) as server:
            assert copy(server, url(new), batch=5, rate=150, progress=tick).complete
        assert ticks > 4
    assert differences(content(old), content(new), tolerance_ms("redis-6.0")) == []

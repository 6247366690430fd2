"""`verify-copy` and `sync` between servers that behave as Azure's do, with the logins that Azure gives."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fixtures.server import Client
from rdbkit.errors import TargetError
from rdbkit.live.server import connect
from rdbkit.live.sync import sync
from rdbkit.live.verify_copy import verify_copy

from ..live.acl import add_users, url_of
from ..live.azure_like import ACTIVE_ACTIVE, MANAGED, PREMIUM, AzureLike
from .test_verify_copy import compared, found, two
from .test_verify_copy_clusters import keys


@contextmanager
def moving() -> Iterator[tuple[Client, Client, str, str]]:
    """A Redis 6.0 with keys, as it is in Azure Cache for Redis, and a Redis 8.0 without."""
    with two("redis-6.0", "redis-8.0") as servers:
        first = servers[0]
        first.pipeline(keys(400))
        first.pipeline([("XADD", "stream", "1-1", "f", "v"), ("XGROUP", "CREATE", "stream", "g", "0")])
        yield servers


def port(url: str) -> int:
    return int(url.rsplit(":", 1)[1])


def test_between_services() -> None:
    with moving() as (_, second, source, target):
        with (
            AzureLike(port(source), PREMIUM, opaque_cursors=True) as old,
            AzureLike(port(target), MANAGED, opaque_cursors=True) as new,
        ):
            assert sync(old.url, new.url, wait_s=0).clean
            proof = compared(old.url, new.url, batch=50, find_extra=True)
            assert proof.same, proof
            assert proof.keys == 801
            second.pipeline([("SET", "s7", "y"), ("SET", "new", 1)])
            assert found(compared(old.url, new.url, find_extra=True)) == {"s7": "value", "new": "extra"}
        with AzureLike(port(target), ACTIVE_ACTIVE) as new:
            done = sync(source, new.url, wait_s=0)
            assert done.clean
            assert done.repaired == {"value": 1}


@pytest.mark.parametrize("user", ["reader", "contributor", "owner"])
def test_logins_of_azure(user: str) -> None:
    with moving() as (first, second, source, target):
        for client in (first, second):
            add_users(client)
        assert sync(source, target, wait_s=0).clean
        second.pipeline([("SET", "s7", "y"), ("DEL", "s8")])
        one, other = url_of(source, user), url_of(target, user)
        assert found(compared(one, other, find_extra=True)) == {"s7": "value", "s8": "missing"}
        if user == "reader":
            with pytest.raises(TargetError, match="cannot write to it"):
                sync(one, other, wait_s=0)
        else:
            assert sync(one, other, wait_s=0).clean
            assert compared(source, target, find_extra=True).same


def test_tokens_that_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdbkit.live.login._LOOK_S", 0.0)
    with moving() as (_, _, source, target), AzureLike(port(source), PREMIUM, tokens=True) as old:
        tokens = [old.issue()]
        closed: list[int] = []
        with connect(old.url, credentials=lambda: ("user", tokens[-1])) as one, connect(target) as other:

            def change(count: int) -> None:
                if count > 200 and len(tokens) == 1:
                    tokens.append(old.issue())
                elif count > 500 and not closed:
                    closed.append(old.end(tokens[0]))

            assert sync(one, other, batch=50, wait_s=0, progress=change).clean
            assert closed[0] <= 1, "connections that are in use have logged in again by then"
            assert verify_copy(one, other, wait_s=0).same

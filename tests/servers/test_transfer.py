"""Keys from server to server: values and expiries arrive as they were, converted where the target needs that."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fixtures.server import RELEASES, Client, running, truth
from rdbkit.live.copy_state import CopyState
from rdbkit.live.databases import databases_of
from rdbkit.live.first_pass import FirstPass, SharedLedger
from rdbkit.live.pace import Pace
from rdbkit.live.server import connect
from rdbkit.live.transfer import Counts, Way
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.passes.pages import Layout
from rdbkit.policy.rules import Policies
from rdbkit.selection import Selection
from rdbkit.targets.target import find_target

from ..processes import until
from ..rdb import FIXTURES
from .test_verify_import import port_of

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
FAR = 4_102_444_800_000


@contextmanager
def pair(source: str, target: str, path: Path | None = None) -> Iterator[tuple[Client, Client]]:
    with running(SERVERS / source / "redis-server", path) as (a, _), running(SERVERS / target / "redis-server") as (b, _):
        yield a, b


def copied(
    a: Client, b: Client, target: str, layout: Layout | None = None, **options: Any
) -> tuple[Counts, SharedLedger, list[Any]]:
    told: list[Any] = []
    ledger = SharedLedger()
    exists = options.pop("on_exists", "fail")
    batch = options.pop("batch", 1000)
    with connect(f"redis://127.0.0.1:{port_of(a)}") as source, connect(f"redis://127.0.0.1:{port_of(b)}") as server:
        layout = layout or Layout(64, "PEXPIRETIME" in source.features)
        way = Way(source, server, find_target(target), ConversionOptions(**options), layout, exists)
        with CopyState(None, {}) as state:
            counts = FirstPass(way, ledger, lambda *each: told.append(each), state, Pace(batch), databases_of(source)).run()
    return counts, ledger, told


def content(client: Client) -> dict[tuple[int, str], Any]:
    found = {}
    for row in truth(client):
        value: dict[str, Any] = dict(row)
        found[value["db"], str(value["key"])] = [value.get(name) for name in ("type", "value", "expire_ms")]
    return found


@pytest.mark.parametrize("layout", ["multi", "alone", "pttl", "pttl-alone"])
def test_the_same_version_has_the_same_bytes(layout: str) -> None:
    how = Layout(0 if "alone" in layout else 7, "pttl" not in layout)
    with pair("redis-7.0", "redis-7.0", FIXTURES / "rich" / f"{RELEASES['redis-7.0']}.rdb") as (a, b):
        counts, ledger, told = copied(a, b, "redis-7.0", how, batch=5)
        assert counts.written == counts.read > 20
        assert not told
        assert not ledger.losses
        if layout != "pttl-alone":  # the clocks of two machines
            assert content(a) == content(b)
        assert [row[:2] for row in content(a).values()] == [row[:2] for row in content(b).values()]


def test_what_the_target_does_not_know_is_converted_and_told() -> None:
    with pair("redis-8.0", "redis-6.0", FIXTURES / "rich" / f"{RELEASES['redis-8.0']}.rdb") as (a, b):
        counts, ledger, told = copied(a, b, "redis-6.0")
        assert ledger.forbidden == {"field-expiry": 3, "module": 1}
        assert (counts.written, counts.lost, counts.left_out) == (counts.read - 3, 3, 0)
        assert not told
        assert {key for _, key in content(a).keys() - content(b).keys()} == {"hx_lp", "hx_ht", "vs"}
        counts, ledger, told = copied(a, b, "redis-6.0", policies=Policies(field_ttl="drop-ttl", loss="drop"))
        assert (counts.written, counts.equal + counts.existing, counts.lost, counts.left_out) == (2, counts.read - 3, 0, 1), told
        expected, found = content(a), content(b)
        # members of a hash, set and sorted set have an order and digits of their own in each version; the matrices compare them
        ordered = {name for name, row in expected.items() if row[0] in ("string", "list", "stream")}
        assert {name: expected[name][:2] for name in ordered} == {name: found[name][:2] for name in ordered}


def test_what_the_target_has_is_left_alone_or_replaced() -> None:
    with pair("redis-7.0", "redis-7.0") as (a, b):
        a.pipeline(
            [("SET", "same", "1"), ("SET", "other", "1"), ("SET", "new", "1"), ("SET", "type", "1"), ("PEXPIREAT", "new", FAR)]
        )
        b.pipeline([("SET", "same", "1"), ("SET", "other", "2"), ("RPUSH", "type", "1")])
        counts, _, told = copied(a, b, "redis-7.0")
        assert (counts.written, counts.equal, counts.existing) == (1, 1, 2)
        assert sorted((key, what) for _, key, what, _ in told) == [(b"other", "exists"), (b"same", "equal"), (b"type", "exists")]
        assert b.text("GET", "other") == "2"
        assert b.integer("PEXPIRETIME", "new") == FAR
        counts, _, told = copied(a, b, "redis-7.0", on_exists="replace")
        assert (counts.written, counts.equal, counts.existing) == (4, 0, 0)
        assert content(a) == content(b)


def test_keys_that_are_not_wanted_are_not_asked_for() -> None:
    with pair("redis-7.0", "redis-7.0") as (a, b):
        a.pipeline([("SET", f"{prefix}:{n}", n) for prefix in ("a", "b") for n in range(500)])
        counts, _, _ = copied(a, b, "redis-7.0", selection=Selection(prefixes="a:"))
        assert (counts.read, counts.written, counts.left_out) == (1000, 500, 500)
        assert "cmdstat_dump:calls=500," in a.text("INFO", "commandstats")
        assert b.integer("DBSIZE") == 500


def test_keys_that_are_read_do_not_look_used() -> None:
    with pair("redis-8.0", "redis-8.0") as (a, b):
        a.call("SET", "k", "v")
        until(lambda: a.integer("OBJECT", "IDLETIME", "k") >= 1)
        before = a.integer("OBJECT", "IDLETIME", "k")
        counts, _, _ = copied(a, b, "redis-8.0")
        assert counts.written == 1
        assert a.integer("OBJECT", "IDLETIME", "k") >= before

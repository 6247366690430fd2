"""Keys of databases that a side does not have: they hold up no others, and are told of where they may have been written."""

from __future__ import annotations

import os
from pathlib import Path

from fixtures.server import running
from rdbkit.dual.engine import Engine
from rdbkit.dual.marks import Marks
from rdbkit.dual.metrics import Metrics
from rdbkit.live.server import connect

from ..processes import GUARD
from .test_verify_import import port_of

BINARY = Path(os.environ["RDBKIT_SERVERS"]) / "redis-7.0" / "redis-server"


def test_a_database_that_a_side_does_not_have_holds_up_nothing() -> None:
    with running(BINARY, conf=["databases 8"]) as (old, _), running(BINARY, conf=["databases 4"]) as (new, _):
        marks, metrics = Marks(), Metrics()
        engine = Engine(
            lambda: connect(f"redis://127.0.0.1:{port_of(old)}"), lambda: connect(f"redis://127.0.0.1:{port_of(new)}"), marks,
            metrics, recheck=0,
        )  # fmt: skip
        old.call("SET", "a", "1")
        old.call("SELECT", "7")
        old.call("SET", "c", "1")
        for db, key in ((99, b"nowhere"), (7, b"c"), (0, b"a")):
            marks.add(db, key)
        engine.start()
        assert engine.drain(GUARD)
        engine.close()
        assert new.text("GET", "a") == "1"
        (sample,) = metrics.report()["samples"]
        assert (sample["db"], sample["key"], sample["detail"][:25]) == (7, "c", "there is no database 7: D")
        assert metrics.total("failed") == 1
        assert metrics.total("outages") == 0
        assert engine.needs_sync

"""A cluster is read whole while its slots move and its nodes fail over, and a source that is restarted is read from its start."""

from __future__ import annotations

import os
import threading
from contextlib import closing
from pathlib import Path

import pytest

from fixtures.server import Process, running
from rdbkit.live.copy import Progress, copy

from ..live.cluster import cluster
from ..live.copying import in_step
from .test_copy import fill, number, url

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
BINARY = SERVERS / "redis-7.0" / "redis-server"
KEYS = 6000


def test_slots_that_move_on_the_source_are_read_where_they_are() -> None:
    with cluster(BINARY) as made, running(BINARY) as (client, _):
        made.write([("SET", f"key:{i}", i) for i in range(KEYS)])
        with made.moving_slots(range(0, 3000)) as moved, in_step(moved):
            found = copy(made.url, url(client), batch=50)
        assert len(moved) >= 4
        assert number(client, "DBSIZE") == KEYS
        assert found.complete
        assert found.counts.existing == 0


def test_a_node_of_the_source_that_fails_is_read_from_its_replica() -> None:
    with cluster(BINARY, 3, 1) as made, running(BINARY) as (client, _):
        made.write([("SET", f"key:{i}", i) for i in range(KEYS)])
        failed = threading.Event()
        thread = threading.Thread(target=lambda: made.fail_over(made.masters()[1]))

        def progress(progress: Progress) -> None:
            if progress.keys > KEYS // 4 and not failed.is_set():
                failed.set()
                thread.start()

        found = copy(made.url, url(client), batch=50, rate=4000, progress=progress)
        thread.join()
        assert failed.is_set()
        assert number(client, "DBSIZE") == KEYS
        assert found.complete


def test_the_cursor_of_another_process_is_not_taken(tmp_path: Path) -> None:
    state = str(tmp_path / "state")

    class Enough(Exception):
        pass

    def stop(progress: Progress) -> None:
        if progress.keys >= 2000:
            raise Enough

    (tmp_path / "source").mkdir()
    source = Process(BINARY, tmp_path / "source")
    source.begin()
    with running(BINARY) as (b, _):
        try:
            with closing(source.client()) as a:
                fill(a, 5000)
                a.call("SAVE")
            place = f"redis://127.0.0.1:{source.port}"
            with pytest.raises(Enough):
                copy(place, url(b), state=state, rate=5000, progress=stop)
            assert 2000 <= number(b, "DBSIZE") < 5000
            source.kill()
            source.begin()
            source.client().close()
            found = copy(place, url(b), state=state)
        finally:
            source.kill()
        assert found.resumed
        assert found.complete
        assert found.counts.equal >= 2000
        assert number(b, "DBSIZE") == 5000

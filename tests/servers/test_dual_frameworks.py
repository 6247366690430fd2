"""Frameworks with `rdbkit.dual.Redis` in place of their client, from one cache to the other: nothing that they keep is lost.

They are no part of the tests' packages: CI names a folder that has them (RDBKIT_FRAMEWORKS), and runs these tests by themselves.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from fixtures.server import Client, running
from rdbkit.dual import Redis, Setting, State

from ..live.oracle import content, differences
from ..processes import until
from .test_dual_service import proxy
from .test_verify_copy import said, two
from .test_verify_import import port_of

if "RDBKIT_FRAMEWORKS" not in os.environ:
    pytest.skip("RDBKIT_FRAMEWORKS names no folder with Celery, django-redis, Flask-Session and rq", allow_module_level=True)

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
pytestmark = pytest.mark.filterwarnings("default")  # theirs are not ours


class Move:
    """Two servers, and the state that all clients of a test are in."""

    def __init__(self, old: Client, new: Client) -> None:
        self.old, self.new = old, new
        self.urls = [f"redis://127.0.0.1:{port_of(each)}/0" for each in (old, new)]
        self.setting = Setting(State.SHADOW)

    def state(self) -> Setting:
        return self.setting

    @property
    def arguments(self) -> dict[str, Any]:
        """What makes a client of the old server one of both."""
        return {"new": self.urls[1], "state": self.state, "look_s": 0.02}

    def switch(self, client: Redis) -> None:
        """From the old server to the new one, which has what was written by then."""
        self.setting = Setting(State.NEW, epoch=1)
        until(lambda: client.dual.setting.state is State.NEW)
        assert not client.dual.needs_sync

    def assert_equal(self, client: Redis) -> None:
        """That both servers have the same, and something."""
        assert client.dual.drain(10)
        found = content(self.old)
        assert found
        assert differences(found, content(self.new)) == []


@pytest.fixture(scope="module")
def servers() -> Iterator[tuple[Client, Client]]:
    server = SERVERS / "redis-8.0" / "redis-server"
    with running(server) as (old, _), running(server) as (new, _):
        yield old, new


@pytest.fixture
def move(servers: tuple[Client, Client]) -> Move:
    for each in servers:
        each.call("FLUSHALL")
    return Move(*servers)


def test_flask_session(move: Move) -> None:
    flask: Any = importlib.import_module("flask")
    sessions: Any = importlib.import_module("flask_session")
    client = Redis.from_url(move.urls[0], **move.arguments)
    app = flask.Flask(__name__)
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=client)
    sessions.Session(app)

    def count() -> str:
        flask.session["seen"] = flask.session.get("seen", 0) + 1
        return str(flask.session["seen"])

    app.add_url_rule("/", view_func=count)
    assert app.session_interface.client is client  # it takes no other client in its place
    browser = app.test_client()
    assert [browser.get("/").text for _ in range(3)] == ["1", "2", "3"]
    move.switch(client)
    assert [browser.get("/").text for _ in range(2)] == ["4", "5"]
    move.assert_equal(client)
    (session,) = move.old.items("KEYS", "*")
    assert isinstance(session, bytes)
    assert 0 < move.old.integer("TTL", session) <= 31 * 86400


def test_django_redis(move: Move) -> None:
    settings: Any = importlib.import_module("django.conf").settings
    if not settings.configured:
        settings.configure(
            CACHES={
                "default": {
                    "BACKEND": "django_redis.cache.RedisCache",
                    "LOCATION": move.urls[0],
                    "OPTIONS": {"REDIS_CLIENT_CLASS": "rdbkit.dual.Redis", "REDIS_CLIENT_KWARGS": move.arguments},
                }
            },
            SESSION_ENGINE="django.contrib.sessions.backends.cache",
        )
    importlib.import_module("django").setup()
    cache: Any = importlib.import_module("django.core.cache").cache
    client = importlib.import_module("django_redis").get_redis_connection()
    assert isinstance(client, Redis)
    cache.set("k", {"a": [1, 2]}, timeout=100)
    cache.set_many({"x": 1, "y": 2})
    assert cache.incr("x") == 2
    assert cache.get_or_set("z", lambda: "made") == "made"
    assert cache.add("k", 1) is False
    cache.delete("y")
    with cache.lock("one"):
        assert "one" in cache
    session = importlib.import_module("django.contrib.sessions.backends.cache").SessionStore()
    session["user"] = 7
    session.save()
    move.switch(client)
    assert cache.get_many(["k", "x", "y", "z"]) == {"k": {"a": [1, 2]}, "x": 2, "z": "made"}
    assert 0 < cache.ttl("k") <= 100
    assert type(session)(session.session_key)["user"] == 7
    cache.set("k", 2)
    assert cache.delete_pattern("x*") == 1
    assert "x" not in cache
    move.assert_equal(client)
    cache.close()


def job(a: int, b: int) -> int:
    return a * b


def test_rq(move: Move) -> None:
    rq: Any = importlib.import_module("rq")
    with redis.Redis.from_url(move.urls[0], socket_timeout=500) as old:
        cache = Redis.bound(old=old, **move.arguments)
        client = cache()
        queue = rq.Queue("jobs", connection=client)
        first, second = queue.enqueue(job, 6, 7), queue.enqueue(job, 2, 3)
        assert rq.SimpleWorker([queue], connection=client).work(burst=True, max_jobs=1)
        assert first.return_value() == 42
        move.switch(client)
        assert rq.job.Job.fetch(first.id, connection=client).return_value() == 42
        # What a worker takes from a client to make another, in the state that the move is in.
        made, pool, settings = rq.connections.parse_connection(client)
        assert settings["socket_timeout"] == 500
        with made(connection_pool=redis.ConnectionPool(connection_class=pool, **settings)) as other:
            assert rq.SimpleWorker([rq.Queue("jobs", connection=other)], connection=other).work(burst=True)
        assert second.return_value() == 6
        move.assert_equal(client)


def test_results_of_celery(move: Move) -> None:
    """Its queue takes messages from a connection by itself, which no client sees: only results are kept by ours."""
    celery: Any = importlib.import_module("celery")
    backend: Any = importlib.import_module("celery.backends.redis").RedisBackend
    start_worker: Any = importlib.import_module("celery.contrib.testing.worker").start_worker
    ours = Redis.bound(**move.arguments)

    class Backend(backend):  # type: ignore[misc]
        def __init__(self, app: Any, url: None) -> None:
            super().__init__(app=app, url=move.urls[0])

        def _get_client(self) -> type[Redis]:
            return ours

    app = celery.Celery(broker="memory://", backend=Backend, set_as_current=False)
    app.conf.update(worker_hijack_root_logger=False, broker_transport_options={"polling_interval": 0.02})
    multiply = app.task(name="multiply")(job)
    threads = set(threading.enumerate())
    with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=10):
        first = multiply.delay(6, 7)
        assert first.get(timeout=10) == 42
        client = app.backend.client
        assert isinstance(client, Redis)
        move.switch(client)
        assert app.AsyncResult(first.id).get(timeout=10) == 42
        assert multiply.delay(2, 3).get(timeout=10) == 6
    move.assert_equal(client)
    assert len(move.old.items("KEYS", "celery-task-meta-*")) == 2
    until(lambda: not [each for each in threading.enumerate() if each not in threads and not each.daemon])


def test_celery_with_its_queue_by_the_proxy(tmp_path: Path) -> None:
    """Each task is done once, and its result is had, while the worker that waits for tasks is switched with all others."""
    celery: Any = importlib.import_module("celery")
    start_worker: Any = importlib.import_module("celery.contrib.testing.worker").start_worker
    control = str(tmp_path / "s")
    done: list[int] = []

    def note(number: int) -> int:
        done.append(number)
        return number * 2

    with (
        two("redis-8.0", "redis-8.0") as (old, new, one, other),
        proxy(one, other, "--control", control, "--pause-limit", "60s") as (_, port),
    ):
        url = f"redis://127.0.0.1:{port}/0"
        app = celery.Celery(broker=url, backend=url, set_as_current=False)
        app.conf.update(worker_hijack_root_logger=False, broker_connection_retry_on_startup=True)
        noted = app.task(name="note")(note)
        with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=10):
            results = [noted.delay(number) for number in range(20)]
            assert said("dual-switch", "new", "--control", control, "--compare", "0")[0] == 0
            results += [noted.delay(number) for number in range(20, 40)]
            assert [each.get(timeout=30) for each in results] == [number * 2 for number in range(40)]
        assert sorted(done) == list(range(40))
        assert new.integer("DBSIZE") >= 40
        app.close()
        until(lambda: differences(content(old), content(new)) == [])


def test_all_of_them_are_there() -> None:
    """This stage of CI tests what it says."""
    folder = os.environ["RDBKIT_FRAMEWORKS"]
    for name in ("celery", "django_redis", "flask_session", "rq"):
        module = importlib.import_module(name)
        assert Path(sys.modules[name].__file__ or "").is_relative_to(folder), module

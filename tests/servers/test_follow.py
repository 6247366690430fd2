"""A target that follows its source has at the end what the source has, whatever was done; nothing of others is touched."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fixtures.server import Client, ServerError, running
from rdbkit.live.copy_state import CopyState
from rdbkit.live.first_pass import SharedLedger
from rdbkit.live.follow import Followed, Follower
from rdbkit.live.foreign_writes import ForeignWrites
from rdbkit.live.mover import Mover
from rdbkit.live.server import connect
from rdbkit.live.transfer import Way
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.passes.pages import Layout
from rdbkit.policy.rules import Policies
from rdbkit.targets.target import find_target

from ..live.oracle import content, differences, taken_by
from ..live.writers import write
from ..processes import until
from .test_verify_import import port_of

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
NOTIFIES = ["notify-keyspace-events AKE"]


class Following:
    """A follower that runs in a thread of its own.

    Attributes:
        follower: what runs.
        told: what was refused.
    """

    def __init__(self, follower: Follower, told: list[Any], until_: Any) -> None:
        self.follower = follower
        self.told = told
        self.error: BaseException | None = None
        self._until = until_
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def found(self) -> Followed:
        return self.follower.found

    def _run(self) -> None:
        try:
            self.follower.run(self._until)
        except BaseException as e:
            self.error = e

    def await_pass(self, number: int = 1) -> None:
        """Wait until so many passes are done."""
        until(lambda: self.error or self.found.passes > number or (self.found.passes == number and not self.found.is_passing))
        self.check()

    def finish(self) -> Followed:
        """Have it copy what waits, and end."""
        if self._thread.is_alive():
            self.follower.stop()
        self._thread.join()
        self.check()
        return self.found

    def check(self) -> None:
        if self.error is not None:
            raise self.error


@contextmanager
def following(
    source: str, target: str, line: str, *, state: CopyState | None = None, watches: bool = True, until_: Any = "stopped",
    on_exists: str = "skip", make: Callable[..., Mover] = Mover, conversion: dict[str, Any] | None = None, **options: Any,
) -> Iterator[Following]:  # fmt: skip
    told: list[Any] = []
    with ExitStack() as stack:
        one, other = stack.enter_context(connect(source)), stack.enter_context(connect(target))
        foreign = ForeignWrites(other) if watches else None
        terms = ConversionOptions(**(conversion or {}))
        layout = Layout(1 if one.slots() else 64, "PEXPIRETIME" in one.features)
        way = Way(one, other, find_target(line), terms, layout, on_exists)
        mover = make(way, SharedLedger(), foreign and foreign.opened, lambda *each: told.append(each))
        stack.callback(mover.close)
        known = state or stack.enter_context(CopyState(None, {}))
        options = {"settle_s": 0.01, "quiet_s": 0.0, **options}
        follower = Follower(one, other, mover, known, edits=terms.edits, foreign=foreign, on_exists=on_exists, **options)
        running_ = Following(follower, told, until_)
        try:
            yield running_
        finally:
            follower.stop()
            follower.stop()
            running_._thread.join()


@contextmanager
def pair(source: str, target: str, conf: list[str] | None = None) -> Iterator[tuple[Client, Client]]:
    with (
        running(SERVERS / source / "redis-server", conf=conf or []) as (a, _),
        running(SERVERS / target / "redis-server") as (b, _),
    ):
        yield a, b


def url(client: Client) -> str:
    return f"redis://127.0.0.1:{port_of(client)}"


def writers(port: int, rounds: int, seed: int = 1, **options: Any) -> list[threading.Thread]:
    """Two that write at the same time."""
    threads = [threading.Thread(target=write, args=(port, seed + i, rounds), kwargs=options) for i in range(2)]
    for thread in threads:
        thread.start()
    return threads


def the_same(a: Client, b: Client, line: str) -> None:
    """Wait until both have the same keys; what is about to expire is left to do so."""
    said: list[str] = []

    def same() -> bool:
        try:
            given, _ = taken_by(line, content(a))
            said[:] = differences(given, content(b), 1000)
        except (TypeError, KeyError, ServerError):  # something has expired between two questions
            return False
        return not said

    try:
        until(same)
    except AssertionError:
        raise AssertionError(f"{len(said)} differences: {said[:5]}") from None


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("redis-7.0", "redis-7.0"), ("redis-6.0", "redis-8.0"), ("redis-8.0", "redis-6.0"), ("valkey-9.1", "valkey-9.1"),
        ("valkey-9.1", "redis-7.0"), ("redis-6.0", "redis-6.0"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    ("changes", "flushes"), [(None, False), ("notifications", False), ("passes", False), (None, True), ("notifications", True)]
)
def test_what_two_writers_did_has_arrived(source: str, target: str, changes: Any, flushes: bool) -> None:
    conversion = {"policies": Policies(field_ttl="drop-ttl", loss="drop")}
    with pair(source, target, NOTIFIES) as (a, b):
        write(int(port_of(a)), 5, 20, databases=(0, 3))
        with following(url(a), url(b), target, changes=changes, conversion=conversion) as running_:
            threads = writers(int(port_of(a)), 40, databases=(0, 3), flushes=flushes)
            running_.await_pass()
            for thread in threads:
                thread.join()
            if flushes or changes == "passes":  # of which there is no end that can be known
                the_same(a, b, target)
            else:
                assert running_.finish().drained
        assert running_.found.changes == changes or changes is None
        assert not running_.told
        assert not running_.found.foreign
        the_same(a, b, target)

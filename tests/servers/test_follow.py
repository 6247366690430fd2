"""A target that follows its source has at the end what the source has, whatever was done; nothing of others is touched."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fixtures.server import Client, Process, ServerError, running
from rdbkit.errors import TargetError
from rdbkit.live.changes import Kind
from rdbkit.live.copy_state import CopyState
from rdbkit.live.first_pass import SharedLedger
from rdbkit.live.follow import Follow, Followed, Follower
from rdbkit.live.foreign_writes import ForeignWrites
from rdbkit.live.mover import Mover
from rdbkit.live.server import connect
from rdbkit.live.transfer import Way
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.passes.pages import Layout
from rdbkit.policy.rules import Edits, Policies
from rdbkit.resp import command
from rdbkit.selection import Selection
from rdbkit.targets.target import find_target

from ..live.acl import add_users, url_of
from ..live.cluster import Cluster, cluster
from ..live.copying import copied
from ..live.cutting_front import CuttingFront
from ..live.oracle import FIELDS_EXPIRE, content, differences, taken_by
from ..live.writers import random_commands, write
from ..processes import until
from ..rdb import exhaustive
from .test_verify_import import port_of

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
NOTIFIES = ["notify-keyspace-events AKE"]
COMMAND = """
import sys
from rdbkit.cli import main
from rdbkit.live.follow import Follow
defaults = Follow.__init__.__defaults__
Follow.__init__.__defaults__ = (*defaults[:3], 0.1, *defaults[4:])
main(sys.argv[1:])
"""
"""The command line, in which nothing has waited for long enough after 0.1 seconds."""


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes, flushes and changes by passes are looked for all the time, not each five seconds."""
    monkeypatch.setattr("rdbkit.live.follow._LOOK_S", 0.1)
    monkeypatch.setattr("rdbkit.live.follow._PASS_PAUSE_S", 0.05)


class Following:
    """A follower that runs in a thread of its own.

    Attributes:
        follower: what runs.
    """

    def __init__(self, follower: Follower, until_: Any) -> None:
        self.follower = follower
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

    def ended(self) -> Followed:
        """Wait until it ends of itself."""
        self._thread.join()
        self.check()
        return self.found

    def join(self) -> None:
        self._thread.join()

    def check(self) -> None:
        if self.error is not None:
            raise self.error


@contextmanager
def follower_of(
    source: str, target: str, line: str, *, state: CopyState | None = None, watches: bool = True, on_exists: str = "skip",
    make: Callable[..., Mover] = Mover, kind: type[Follower] = Follower, conversion: dict[str, Any] | None = None, **options: Any,
) -> Iterator[Follower]:  # fmt: skip
    with ExitStack() as stack:
        one, other = stack.enter_context(connect(source)), stack.enter_context(connect(target))
        foreign = ForeignWrites(other) if watches else None
        terms = ConversionOptions(**(conversion or {}))
        layout = Layout(1 if one.slots() else 64, "PEXPIRETIME" in one.features)
        way = Way(one, other, find_target(line), terms, layout, on_exists)
        mover = make(way, SharedLedger(), foreign and foreign.opened)
        stack.callback(mover.close)
        known = state or stack.enter_context(CopyState(None, {}))
        options = {"settle_s": 0.01, "quiet_s": 0.0, **options}
        follower = kind(one, other, mover, known, edits=terms.edits, foreign=foreign, on_exists=on_exists, **options)
        stack.callback(follower.close)
        yield follower


@contextmanager
def following(*arguments: str, until_: Any = "stopped", **options: Any) -> Iterator[Following]:
    with follower_of(*arguments, **options) as follower:
        running_ = Following(follower, until_)
        try:
            yield running_
        finally:
            follower.stop()
            follower.stop()
            running_.join()


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


def the_same(a: Client, b: Client, line: str, running_: Following | None = None) -> None:
    """Wait until both have the same keys; what is about to expire is left to do so. A follower that fails is not waited for."""
    said: list[str] = []

    def same() -> bool:
        if running_ is not None:
            running_.check()
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


def no_field_expires_soon(client: Client) -> bool:
    """Whether hashes stay as they are, where nobody follows them any more."""
    soon = time.time() * 1000 + 60_000
    try:
        hashes = [row.value for row in content(client).values() if row.type == "hash"]
    except (TypeError, KeyError, ServerError):  # something has expired between two questions
        return False
    return all(at > soon for value in hashes if isinstance(value, dict) for at in value["field_expire_ms"].values())


PAIRS = [
    ("redis-7.0", "redis-7.0"), ("redis-6.0", "redis-8.0"), ("redis-8.0", "redis-6.0"), ("valkey-9.1", "valkey-9.1"),
    ("valkey-9.1", "redis-7.0"), ("redis-6.0", "redis-6.0"),
]  # fmt: skip
WAYS = [(None, False), ("notifications", False), ("passes", False), (None, True), ("notifications", True)]


@pytest.mark.parametrize(
    ("lines", "way"),
    [pytest.param(lines, way, marks=() if lines == PAIRS[0] or way == WAYS[0] else exhaustive) for lines in PAIRS for way in WAYS],
)
def test_what_two_writers_did_has_arrived(lines: tuple[str, str], way: tuple[Kind | None, bool]) -> None:
    (source, target), (changes, flushes) = lines, way
    conversion = {"policies": Policies(field_ttl="drop-ttl", loss="drop")}
    with pair(source, target, NOTIFIES) as (a, b):
        write(int(port_of(a)), 5, 20, databases=(0, 3))
        with following(url(a), url(b), target, changes=changes, conversion=conversion) as running_:
            threads = writers(int(port_of(a)), 40, databases=(0, 3), flushes=flushes)
            running_.await_pass()
            for thread in threads:
                thread.join()
            ends = not flushes and changes != "passes"  # else there is no end that can be known
            loses = source in FIELDS_EXPIRE and target not in FIELDS_EXPIRE
            if loses:
                until(lambda: no_field_expires_soon(a))
            if loses or not ends:
                the_same(a, b, target, running_)
            if ends:
                assert running_.finish().drained
        assert running_.found.changes == changes or changes is None
        assert not running_.found.refused
        assert not running_.found.foreign
        the_same(a, b, target)


def test_what_others_have_written_on_the_target_is_left_alone() -> None:
    with pair("redis-7.0", "redis-7.0") as (a, b):
        a.pipeline([("SET", f"k{i}", "old") for i in range(100)])
        b.pipeline([("SET", "k1", "theirs"), ("SET", "k2", "old"), ("SET", "new", "theirs"), ("SET", "alone", "theirs")])
        with following(url(a), url(b), "redis-7.0") as running_:
            running_.await_pass()
            b.pipeline([("SET", "k3", "theirs"), ("EXPIRE", "k4", 3600), ("RENAME", "k5", "k6"), ("SET", "later", "theirs")])
            a.pipeline([("SET", f"k{i}", "changed") for i in range(100)])
            a.pipeline([("SET", "new", "ours"), ("SET", "later", "ours"), ("DEL", "k3", "k1", "k2"), ("DEL", "k7")])
            found = running_.finish()
            assert found.drained
            assert (found.existing, found.equal, found.foreign) == (4, 1, 3)
        assert b.call("MGET", "k1", "k2", "k3", "new", "alone", "later") == [
            b"theirs", b"old", b"theirs", b"theirs", b"theirs", b"theirs",
        ]  # fmt: skip
        assert (b.call("GET", "k4"), b.call("GET", "k6"), b.call("EXISTS", "k7")) == (b"old", b"old", 0)
        assert b.integer("TTL", "k4") > 0
        assert b.call("GET", "k5") == b"changed", "who had it has given it up"
        assert {b.call("GET", f"k{i}") for i in range(8, 100)} == {b"changed"}


def has(client: Client, key: str, value: bytes) -> bool:
    return client.call("GET", key) == value


@pytest.mark.parametrize("changes", ["tracking", "passes"])
def test_keys_that_were_equal_at_first_are_listed_when_they_change(changes: Kind) -> None:
    """They are not ours to overwrite; that they differ is no secret."""
    with pair("redis-7.0", "redis-7.0") as (a, b), CopyState(None, {}) as state:
        for client in (a, b):
            client.pipeline([("SET", f"k{i}", "old") for i in range(10)])
        with following(url(a), url(b), "redis-7.0", state=state, changes=changes) as running_:
            running_.await_pass()
            assert running_.found.equal == 10
            a.pipeline([("SET", "k1", "new"), ("DEL", "k2"), ("PEXPIRE", "k3", 1), ("SET", "k4", "new"), ("SET", "k4", "old")])
            until(lambda: [(each.key, each.what) for each in state.trouble()] == [(key, "exists") for key in (b"k1", b"k2", b"k3")])
            b.call("DEL", "k5")
            for value in (b"new", b"newer"):  # who had it has given it up: now it is ours
                a.call("SET", "k5", value)
                until(partial(has, b, "k5", value))
            running_.finish()
        assert state.trouble_counts() == {"exists": 3}
        assert b.call("MGET", "k1", "k2", "k3", "k4") == [b"old"] * 4


def test_a_copy_says_what_it_does_with_keys_that_were_equal() -> None:
    with pair("redis-7.0", "redis-7.0") as (a, b):
        for client in (a, b):
            client.pipeline([("SET", f"k{i}", "old") for i in range(10)])
        found = copied(url(a), url(b), follow=Follow("drained", quiet_s=0.0))
        assert found.complete
        assert any("the target already had 10 keys with the same value" in note for note in found.notes)
        found = copied(url(a), url(b), on_exists="replace", follow=Follow("drained", quiet_s=0.0))
        assert (found.complete, found.counts.written) == (True, 10)
        assert not any("already had" in note for note in found.notes)


def test_a_copy_that_expires_and_comes_back_is_followed_all_the_same() -> None:
    with pair("redis-7.0", "redis-7.0") as (a, b), following(url(a), url(b), "redis-7.0") as running_:
        running_.await_pass()
        for value in range(30):
            a.pipeline([("SET", f"k{i}", value, "PX", 1 + i * 3) for i in range(50)])
        a.pipeline([("SET", f"k{i}", "last") for i in range(50)])
        assert running_.finish().drained
        assert not running_.found.foreign
        assert {b.call("GET", f"k{i}") for i in range(50)} == {b"last"}


def test_what_is_flushed_is_gone_on_the_target_too() -> None:
    with pair("redis-7.0", "redis-8.0", NOTIFIES) as (a, b):
        b.pipeline([("SET", "theirs", 1), ("SET", "k1", "theirs")])
        for changes in ("tracking", "notifications"):
            a.pipeline([("SET", f"k{i}", 1) for i in range(500)])
            with following(url(a), url(b), "redis-8.0", changes=changes) as running_:
                running_.await_pass()
                running_.follower.foreign = None
                a.call("FLUSHALL")
                a.call("SET", "k7", 2)
                until(lambda: b.call("DBSIZE") == 3 and not running_.found.is_passing)
                assert running_.finish().drained
            assert set(b.items("KEYS", "*")) == {b"k1", b"k7", b"theirs"}
            b.call("DEL", "k7")


@pytest.mark.parametrize("changes", ["tracking", "notifications"])
def test_what_was_changed_while_connections_were_broken_arrives(changes: Any) -> None:
    with pair("redis-7.0", "redis-7.0", NOTIFIES) as (a, b), CuttingFront(int(port_of(a))) as front:
        a.pipeline([("SET", f"k{i}", 1) for i in range(300)])
        with following(front.url, url(b), "redis-7.0", changes=changes) as running_:
            running_.await_pass()
            for value in range(3):
                passes = running_.found.passes
                front.cut_all()
                a.pipeline([("SET", f"k{i}", f"v{value}") for i in range(100)])
                a.call("DEL", f"k{200 + value}")
                running_.await_pass(passes + 1)
            the_same(a, b, "redis-7.0", running_)
            assert running_.finish().drained
        assert not running_.found.foreign
        assert content(a) == content(b)


def test_another_run_goes_on_with_the_keys_that_are_its_own(tmp_path: Path) -> None:
    with pair("redis-7.0", "redis-7.0") as (a, b):
        a.pipeline([("SET", f"k{i}", 1) for i in range(300)])
        b.call("SET", "k1", "theirs")
        for number in range(3):
            with CopyState(os.fspath(tmp_path / "state"), {"source": "a", "target": "b"}) as state:
                with following(url(a), url(b), "redis-7.0", state=state) as running_:
                    running_.await_pass()
                    assert running_.finish().drained
                assert (running_.found.existing, running_.found.foreign) == (1 if number == 0 else 0, 0)
            assert b.call("GET", "k1") == b"theirs"
            one, other = content(a), content(b)
            assert one.keys() == other.keys()
            assert {key for key in one if one[key] != other[key]} == {(0, b"k1")}
            # while nobody follows
            a.pipeline([("SET", f"k{i}", f"v{number}") for i in range(2, 200)])
            a.pipeline([("DEL", f"k{200 + number}"), ("SET", f"new{number}", 1), ("SET", "k1", number)])


def test_a_copy_that_follows_ends_by_a_signal_and_says_what_it_did(tmp_path: Path) -> None:
    with pair("redis-6.0", "redis-7.0") as (a, b):
        a.pipeline([("SET", f"k{i}", i) for i in range(2000)])
        a.call("RPUSH", "large", *["x" * 1000] * 300)
        b.call("SET", "k1", "theirs")
        options = ["--follow", "--big", "100KB", "--on-exists", "skip", "--state", str(tmp_path / "state")]
        words = [sys.executable, "-c", COMMAND, "copy", url(a), url(b), *options]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if "copied once" in line:
                    break
            a.pipeline([("SET", "k2", "changed"), ("DEL", "k3"), ("RPUSH", "large", "y"), ("SET", "k1", "changed")])
            until(lambda: b.call("GET", "k2") == b"changed", process)
            process.send_signal(signal.SIGINT)
            said = process.stdout.read()
        assert process.returncode == 0, said
        assert "TARGET has all that SOURCE had" in said
        assert (b.call("GET", "k1"), b.call("EXISTS", "k3"), b.call("LLEN", "large")) == (b"theirs", 0, 301)
        again = subprocess.run([*words, "--until", "drained", "--json"], capture_output=True, text=True, check=True)
        report = json.loads(again.stdout)
        assert (report["complete"], report["resumed"], report["followed"]["drained"]) == (True, True, True)
        assert report["followed"]["written"] == 0


def write_to_cluster(made: Cluster, seed: int, rounds: int) -> None:
    """Commands about keys of many slots, each sent to whoever has its slot then."""
    with connect(made.url) as server:
        rng = random.Random(seed)
        for _ in range(rounds):
            commands = [each for each in random_commands(rng, 20, keys=10, tag=f"{{{rng.randrange(200)}}}") if len(each) > 1]
            single = [each for each in commands if each[0] not in ("XREADGROUP", "EVAL")]
            requests = [(str(each[1]).encode(), [encoded(each)]) for each in single if "{" in str(each[1])]
            server.ask(0, requests)


def encoded(each: Any) -> bytes:
    return command(*(str(part).encode() for part in each))


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("redis-7.0", None),
        *(pytest.param(*each, marks=exhaustive) for each in (("valkey-9.1", None), ("redis-6.0", "notifications"))),
    ],
)
def test_clusters_whose_slots_move_and_whose_masters_fail_are_followed(line: str, changes: Any) -> None:
    binary = SERVERS / line / "redis-server"
    with cluster(binary, 3, 1, NOTIFIES) as old, cluster(binary, 3) as new:
        write_to_cluster(old, 1, 100)
        with following(old.url, new.url, line, changes=changes) as running_:
            running_.await_pass()
            with old.moving_slots(range(0, 16384, 700)) as moved, new.moving_slots(range(0, 16384, 900)):
                write_to_cluster(old, 2, 100)
                until(lambda: len(moved) > 5)
            passes = running_.found.passes
            master = old.masters()[0]
            old.fail_over(master)
            write_to_cluster(old, 3, 100)
            running_.await_pass(passes + 1)

            def same() -> bool:
                one = content(*(node.client for node in old.masters()))
                other = content(*(node.client for node in new.masters()))
                return not differences(one, other, 1000)

            def settled() -> bool:
                try:
                    return same()
                except (TypeError, KeyError, ServerError, AssertionError):
                    return False

            until(settled)
            assert running_.finish().drained
        assert not running_.found.refused
        assert not running_.found.foreign


def test_only_keys_that_are_wanted_are_followed_under_their_new_names() -> None:
    conversion = {
        "selection": Selection(keys=["user:*", "list:*"], types=["string"]), "edits": Edits(rename_prefix=[("user:", "app:")]),
    }  # fmt: skip
    with pair("redis-7.0", "redis-7.0") as (a, b):
        a.pipeline([("SET", f"user:{i}", i) for i in range(50)] + [("SET", f"other:{i}", i) for i in range(50)])
        a.pipeline([("RPUSH", "user:list", 1), ("SET", "list:1", 1)])
        b.pipeline([("SET", "app:1", "theirs"), ("SET", "app:list", "theirs"), ("SET", "other:1", "theirs")])
        with following(url(a), url(b), "redis-7.0", conversion=conversion) as running_:
            running_.await_pass()
            assert b.call("DBSIZE") == 53
            b.call("SET", "app:2", "theirs")
            a.pipeline([("SET", f"user:{i}", "new") for i in range(5)] + [("SET", "other:2", 1), ("DEL", "user:6", "other:1")])
            a.pipeline([("DEL", "user:list"), ("SET", "user:list", "new"), ("DEL", "list:1"), ("RPUSH", "list:1", 1)])
            assert running_.finish().drained
            assert (running_.found.existing, running_.found.foreign, running_.found.deleted) == (2, 1, 2)
        assert b.call("MGET", "app:0", "app:1", "app:2", "app:list", "other:1", "app:6", "list:1") == [
            b"new", b"theirs", b"theirs", b"theirs", b"theirs", None, None,
        ]  # fmt: skip
        assert b.call("DBSIZE") == 51


def test_a_login_that_may_not_be_told_of_changes_finds_them_by_passes() -> None:
    with pair("redis-6.0", "redis-7.0") as (a, b):
        add_users(a)
        a.pipeline([("SET", f"k{i}", 1) for i in range(300)])
        with following(url_of(url(a), "contributor"), url(b), "redis-7.0") as running_:
            running_.await_pass()
            a.pipeline([("SET", f"k{i}", "new") for i in range(5)] + [("DEL", "k7"), ("SET", "more", 1)])
            the_same(a, b, "redis-7.0", running_)
            running_.finish()
        assert running_.found.changes == "passes"
        assert set(running_.follower.changes.why) == {"tracking", "notifications"}
        with following(url_of(url(a), "contributor"), url(b), "redis-7.0", until_="drained", on_exists="replace") as running_:
            assert running_.ended().drained
        with (
            following(url_of(url(a), "contributor"), url(b), "redis-7.0", changes="tracking") as running_,
            pytest.raises(TargetError, match="cannot follow its changes by tracking: NOPERM"),
        ):
            running_.ended()


def test_databases_that_are_exchanged_are_compared() -> None:
    with pair("redis-7.0", "redis-7.0") as (a, b):
        a.pipeline([("SET", f"k{i}", 1) for i in range(100)] + [("SELECT", 1), ("SET", "k1", 2), ("SET", "one", 2)])
        with following(url(a), url(b), "redis-7.0") as running_:
            running_.await_pass()
            a.call("SWAPDB", 0, 1)
            the_same(a, b, "redis-7.0", running_)
            running_.finish()
        assert not running_.found.foreign


@pytest.mark.parametrize("how", ["restart", "flush"])
def test_a_target_that_loses_its_keys_gets_them_again(how: str, tmp_path: Path) -> None:
    target = Process(SERVERS / "redis-7.0" / "redis-server", tmp_path)
    with running(SERVERS / "redis-7.0" / "redis-server") as (a, _):
        target.begin()
        try:
            target.client().close()
            a.pipeline([("SET", f"k{i}", 1) for i in range(500)])
            with following(url(a), f"redis://127.0.0.1:{target.port}", "redis-7.0") as running_:
                running_.await_pass()
                if how == "restart":
                    target.kill()
                    target.begin()
                else:
                    with closing(target.client()) as b:
                        b.call("FLUSHALL")
                with closing(target.client()) as b:
                    a.call("SET", "k7", 2)
                    until(lambda: b.call("DBSIZE") == 500)
                    the_same(a, b, "redis-7.0", running_)
        finally:
            target.kill()

"""What goes wrong while a target follows its source: processes that are killed, tokens that end, connections that break."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from fixtures.server import Client, ServerError
from rdbkit.live import changes, follow, login
from rdbkit.live.copy import Copied, copy
from rdbkit.live.copy_state import CopyState
from rdbkit.live.follow import Follow, Follower
from rdbkit.live.mover import Mover
from rdbkit.live.server import connect

from ..live.azure_like import AzureLike
from ..live.cutting_front import CuttingFront
from ..live.oracle import Content, content, differences
from ..live.writers import meanwhile, write
from ..processes import until
from .test_follow import COMMAND, following, pair, url
from .test_verify_import import port_of

THEIRS = {(0, name): "theirs" for name in (b"k1", b"k2", b"alone")}
"""What the target had before."""


def written_to(client: Client, seed: int) -> AbstractContextManager[None]:
    """Somebody who writes all the time."""
    port = int(port_of(client))
    return meanwhile(lambda number: write(port, seed * 1000 + number - 1, 1), pause_s=0.005)


def await_equal(source: Client, target: Client) -> None:
    """Wait until the target has what the source has, and what it had before; what is about to expire is left to do so."""
    said: list[str] = []

    def same() -> bool:
        try:
            found = content(target)
            expected: Content = {**content(source), **{name: found[name] for name in THEIRS}}
            said[:] = differences(expected, found)
        except (TypeError, ServerError):  # something has expired between two questions
            return False
        return not said

    for _ in range(100):
        if same():
            break
        time.sleep(0.02)
    assert not said, f"{len(said)} differences: {said[:5]}"
    assert {name: target.call("GET", name[1]) for name in THEIRS} == dict.fromkeys(THEIRS, b"theirs")


class Killed(BaseException):
    """What a test ends a follower with, in the middle of its work."""


def test_keys_that_were_written_just_before_a_kill_are_known_for_ours(tmp_path: Path) -> None:
    path, places = str(tmp_path / "state"), {"source": "a", "target": "b"}

    class Dies(Mover):
        def move(self, db: int, names: Sequence[bytes], *, replace: bool = False) -> dict[bytes, str]:
            super().move(db, names, replace=replace)
            raise Killed

    with pair("redis-7.0", "redis-7.0") as (a, b):
        a.pipeline([("SET", f"k{i}", i) for i in range(100)])
        b.pipeline([("SET", name, value) for (_, name), value in THEIRS.items()])
        state = CopyState(path, places)
        with following(url(a), url(b), "redis-7.0", state=state, make=Dies) as running_:
            with pytest.raises(Killed):
                running_.ended()
            running_.error = None
        assert b.integer("DBSIZE") == 101
        state._database.close()  # and nothing more of it is written
        a.pipeline([("SET", f"k{i}", "changed") for i in range(50)] + [("DEL", f"k{i}") for i in range(60, 70)])
        with (
            CopyState(path, places) as again,
            following(url(a), url(b), "redis-7.0", state=again) as running_,
        ):
            running_.await_pass()
            assert running_.finish().drained
        assert (running_.found.existing, running_.found.deleted) == (2, 10)
        await_equal(a, b)


def test_what_others_wrote_just_before_a_kill_stays_theirs(tmp_path: Path) -> None:
    path, places = str(tmp_path / "state"), {"source": "a", "target": "b"}
    with pair("redis-7.0", "redis-7.0") as (a, b):
        a.pipeline([("SET", f"k{i}", i) for i in range(10)])
        state = CopyState(path, places)
        with following(url(a), url(b), "redis-7.0", state=state) as running_:
            running_.await_pass()
            b.call("SET", "k5", "theirs")
            a.pipeline([("SET", "k5", "changed"), ("SET", "k6", "changed")])
            until(lambda: b.call("GET", "k6") == b"changed")
            until(lambda: running_.found.foreign)
            state._database.close()
            running_.follower.stop()
            running_.follower.stop()
        with CopyState(path, places) as again, following(url(a), url(b), "redis-7.0", state=again) as running_:
            running_.await_pass()
            assert running_.finish().drained
        assert b.call("MGET", "k5", "k6") == [b"theirs", b"changed"]


@pytest.mark.one_in(8)
@pytest.mark.parametrize("seed", range(25))  # about fifty moments
def test_what_was_killed_while_it_followed_goes_on(seed: int, tmp_path: Path) -> None:
    noise = random.Random(seed)
    state = str(tmp_path / "state")
    with pair("redis-7.0", "redis-7.0") as (a, b):
        a.pipeline([("SET", f"k{i}", i) for i in range(6000)])
        a.pipeline([("RPUSH", "large", *["x" * 1000] * 300), ("HSET", "wide", *[f"f{i}" for i in range(20_000)])])
        b.pipeline([("SET", name, value) for (_, name), value in THEIRS.items()])
        options = ["--follow", "--big", "100KB", "--on-exists", "skip", "--state", state]
        words = [sys.executable, "-c", COMMAND, "copy", url(a), url(b), *options]
        with written_to(a, seed):
            for number in range(noise.randrange(1, 4)):
                # at first it is in the middle of its keys, as often as not
                when = noise.choice(("first", "first", "following", "draining"))
                least = b.integer("DBSIZE") + noise.randrange(6000)
                with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
                    assert process.stdout is not None
                    if when == "first" and number == 0:
                        while process.poll() is None and b.integer("DBSIZE") < least:
                            a.call("SET", f"k{noise.randrange(3, 6000)}", noise.random())
                    elif when == "first":
                        time.sleep(noise.uniform(0.2, 1.0))
                    else:
                        assert any("copied once" in line for line in process.stdout)
                        time.sleep(noise.uniform(0.0, 0.5))
                        if when == "draining":
                            process.send_signal(signal.SIGINT)
                            time.sleep(noise.uniform(0.0, 0.1))
                    process.send_signal(signal.SIGKILL)
                # while nobody follows
                a.pipeline([("SET", f"k{i}", noise.random()) for i in range(3, 6000) if noise.random() < 0.3])
                a.pipeline([("DEL", f"k{noise.randrange(3, 6000)}") for _ in range(300)])
                a.call("RPUSH", "large", number)
        done = subprocess.run([*words, "--until", "drained", "--json"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert (report["resumed"], report["followed"]["drained"], report["followed"]["foreign"]) == (True, True, 0)
        await_equal(a, b)


@pytest.mark.parametrize("side", ["source", "target"])
def test_tokens_that_end_while_it_follows_break_no_connection_that_tells(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "_LOOK_S", 0.0)
    monkeypatch.setattr(changes, "_ALIVE_S", 0.05)
    asked: set[tuple[str, str]] = set()  # by whom, and what it was given
    followers: list[Follower] = []
    done: list[Copied] = []
    with pair("redis-7.0", "redis-7.0") as (a, b), AzureLike(int(port_of(a if side == "source" else b)), tokens=True) as front:
        a.pipeline([("SET", f"k{i}", i) for i in range(100)])
        tokens = [front.issue()]

        def credentials() -> tuple[str, str]:
            asked.add((threading.current_thread().name, tokens[-1]))
            return "oid", tokens[-1]

        following_ = Follow(begun=followers.append)
        with connect(front.url, credentials=credentials) as server:
            places = (server, url(b)) if side == "source" else (url(a), server)
            thread = threading.Thread(target=lambda: done.append(copy(*places, follow=following_)))
            thread.start()
            try:
                until(lambda: followers and followers[0].found.passes == 1 and not followers[0].found.is_passing)
                listener = f"changes of 127.0.0.1:{front.ports[0]}"
                for number in range(3):
                    tokens.append(front.issue())
                    until(lambda: (listener, tokens[-1]) in asked)
                    for value in (f"a{number}", f"b{number}"):  # those that are in use log in again, too
                        a.pipeline([("SET", f"k{i}", value) for i in range(50)])
                        until(lambda value=value: b.call("GET", "k49") == value.encode())  # type: ignore[misc]
                    front.end(tokens[-2])
                    a.call("DEL", f"k{60 + number}")
                    a.call("SET", "k1", number)
                    until(lambda number=number: b.call("GET", "k1") == b"%d" % number)  # type: ignore[misc]
            finally:
                followers[0].stop()
                thread.join()
        assert done[0].complete
        assert done[0].followed is not None
        assert (done[0].followed.passes, done[0].followed.gaps, done[0].followed.foreign) == (1, 0, 0)
        assert differences(content(a), content(b)) == []


@pytest.mark.one_in(10)
@pytest.mark.parametrize("seed", range(30))
def test_connections_to_the_target_may_break_at_any_byte(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "_LOOK_S", 0.05)
    noise = random.Random(seed)
    with pair("redis-7.0", "redis-7.0") as (a, b), CuttingFront(int(port_of(b)), piece=noise.choice((50, 500, 60_000))) as front:
        a.pipeline([("SET", f"k{i}", i) for i in range(300)])
        b.pipeline([("SET", name, value) for (_, name), value in THEIRS.items()])
        with following(url(a), front.url, "redis-7.0") as running_:
            running_.await_pass()
            for number in range(3):
                front.cut_after(**{noise.choice(("sent", "received")): noise.randrange(12_000)})
                left = front.cuts_left

                def write_more(number: int = number) -> None:
                    a.pipeline([("SET", f"k{i}", noise.random()) for i in range(3, 300) if noise.random() < 0.3])
                    a.pipeline([("DEL", f"k{noise.randrange(3, 300)}"), ("RPUSH", f"l{number}", *range(20))])

                def was_cut(left: int = left) -> bool:
                    write_more()
                    running_.check()
                    return front.cuts_left < left

                until(was_cut)
            # after a break all keys are compared
            until(lambda: (running_.found.passes > 1 and not running_.found.is_passing) or running_.error)
            await_equal(a, b)
            running_.finish()
        assert not running_.found.foreign
        assert not running_.found.refused
        await_equal(a, b)

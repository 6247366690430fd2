"""`copy` between real servers: what it says, how it ends, and that it goes on where it was."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import anycrc
import pytest

from fixtures.server import Client, Process, running, text
from rdbkit.errors import TargetError
from rdbkit.live.copy import copy
from rdbkit.live.processes import Skew
from rdbkit.policy.rules import Edits

from ..command_line import run_text
from ..processes import heeding_signals
from ..rdb import FIXTURES
from .test_transfer import SERVERS, pair
from .test_verify_import import port_of


def url(client: Client, db: int | None = None) -> str:
    return f"redis://127.0.0.1:{port_of(client)}{'' if db is None else f'/{db}'}"


def run(a: Client, b: Client, *options: str) -> subprocess.CompletedProcess[str]:
    return run_text("copy", url(a), url(b), *options)


def number(client: Client, *words: str) -> int:
    found = client.call(*words)
    assert isinstance(found, int)
    return found


def dumped(client: Client) -> int:
    """How often DUMP was called."""
    info = client.call("INFO", "commandstats")
    assert isinstance(info, bytes)
    found = re.search(rb"cmdstat_dump:calls=(\d+)", info)
    return int(found[1]) if found else 0


def fill(client: Client, keys: int, value: str = "v") -> None:
    client.pipeline([("SET", f"key:{i}", f"{value}{i}") for i in range(keys)])


def test_it_says_what_it_did_and_lists_what_was_left_alone() -> None:
    with pair("redis-7.0", "redis-6.0") as (a, b):
        fill(a, 2500)
        b.pipeline([("SET", "key:7", "other"), ("SET", "key:8", "v8"), ("SET", "mine", "1")])
        done = run(a, b)
        assert done.returncode == 1
        for line in ("written     2,498", "equal       1  (TARGET", "left alone  1  (TARGET has another value)"):
            assert line in done.stdout
        assert "left alone: key:7 (db 0): the target has another value there" in done.stdout
        assert max(map(len, done.stdout.splitlines())) < 120
        assert b.call("GET", "key:7") == b"other"
        found = json.loads(run(a, b, "--json", "--on-exists", "skip").stdout)
        assert (found["complete"], found["keys"]["equal"], found["keys"]["existing"]) == (True, 2499, 1)
        assert found["samples"][0]["key"] == "key:7"
        done = run(a, b, "--on-exists", "replace")
        assert (done.returncode, b.call("GET", "key:7"), b.call("GET", "mine")) == (0, b"v7", b"1")


def test_what_would_be_lost_is_not_written_unless_it_is_allowed() -> None:
    with pair("redis-8.0", "redis-6.0") as (a, b):
        a.pipeline([("HSET", "h", "f", "v"), ("HEXPIRE", "h", "1000", "FIELDS", "1", "f"), ("SET", "s", "v")])
        a.call("FUNCTION", "LOAD", "#!lua name=lib\nredis.register_function('f', function() return 1 end)")
        done = run(a, b)
        assert done.returncode == 1
        assert "rdbkit: would be lost: field-expiry in db 0, key h" in done.stderr
        assert "rdbkit: would be lost: function: function library 'lib'" in done.stderr
        assert "field-expiry: --on-field-ttl drop-ttl" in done.stderr
        assert b.call("DBSIZE") == 1
        done = run(a, b, "--on-field-ttl", "drop-ttl", "--on-function", "drop")
        assert (done.returncode, b.call("DBSIZE")) == (0, 2)
        assert run(a, b, "--on-field-ttl", "drop-ttl", "--on-function", "drop", "--strict").returncode == 1


def test_databases_go_where_they_are_sent() -> None:
    with pair("redis-7.0", "redis-7.0") as (a, b):
        for db in (0, 3):
            a.pipeline([("SELECT", str(db)), ("SET", f"in:{db}", "v")])
        assert copy(url(a), url(b)).counts.written == 2
        for db in (0, 3):
            b.call("SELECT", str(db))
            assert number(b, "DBSIZE") == 1
        b.call("FLUSHALL")
        assert copy(url(a, 3), url(b, 5)).counts.written == 1
        b.call("SELECT", "5")
        assert b.call("GET", "in:3") == b"v"
        with pytest.raises(ValueError, match="the source has keys in several"):
            copy(url(a), url(b, 5))
        assert copy(url(a), url(b), edits=Edits(map_db={3: 7})).counts.written == 2
        assert run(a, b, "--map-db", "3=99").returncode == 1


@pytest.mark.parametrize("db", [None, 0])
def test_a_server_is_not_copied_into_itself(db: int | None) -> None:
    with pair("redis-7.0", "redis-7.0") as (a, _):
        with pytest.raises(ValueError, match="are the same server, or one is a replica"):
            copy(url(a, db).replace("127.0.0.1", "localhost"), url(a, db))
        fill(a, 3)
        assert copy(url(a, 0), url(a, 1)).counts.written == 3


def test_a_clock_that_is_ahead_can_be_allowed_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdbkit.live.copy.clock_skew", lambda one, other: Skew(5000.2, 0.1))
    with pair("redis-7.0", "redis-7.0") as (a, b):
        a.call("SET", "k", "v", "PX", "1000000")
        found = copy(url(a), url(b), ttl="relative")
        assert "the target's clock is 5.0 s ahead of the source's, and keys expire by the target's clock" in found.notes
        left: Any = b.call("PTTL", "k")
        assert 1_000_000 < left <= 1_005_000


def test_what_goes_wrong_is_a_line(tmp_path: Path) -> None:
    with pair("redis-7.0", "redis-7.0") as (a, b):
        for arguments, said, code in (
            ([url(a), "redis://127.0.0.1:1"], "cannot be reached", 4),
            ([url(a), url(a)], "the same server", 2),
            ([url(a), url(b), "--on-conflict", "first"], "which of two comes first is not known", 2),
            ([url(a), url(b), "--rename-prefix", "a=b", "--on-exists", "replace"], "would replace each other", 2),
            ([url(a), url(b), "--state", str(tmp_path)], "directory", 2),
            ([url(a), url(b), "--jobs", "2"], "need files as SOURCE", 2),
            ([url(a), url(b).replace("//", "//u:s3cret@")], "does not let this user in", 4),
        ):
            done = run_text("copy", *arguments)
            assert (done.returncode, said in done.stderr) == (code, True), done.stderr
            assert "s3cret" not in done.stdout + done.stderr
        b.call("ACL", "SETUSER", "default", "-restore", "-renamenx")
        with pytest.raises(TargetError, match="cannot write to it: NOPERM"):
            copy(url(a), url(b))


def test_a_killed_copy_goes_on_where_it_was(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with pair("redis-7.0", "redis-7.0") as (a, b):
        fill(a, 30_000)
        args = [sys.executable, "-m", "rdbkit", "copy", url(a), url(b), "--state", str(state), "--rate", "10000", "--json"]
        with subprocess.Popen(heeding_signals(args), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            while number(b, "DBSIZE") < 3000:
                assert process.poll() is None
            process.send_signal(signal.SIGINT)
            assert "interrupted: run the same command again to go on" in process.communicate(timeout=60)[1]
            assert process.returncode == 130
        assert state.exists()
        before = dumped(a)
        found = json.loads(run(a, b, "--state", str(state), "--json").stdout)
        assert (found["resumed"], found["complete"]) == (True, True)
        assert found["keys"]["written"] + found["keys"]["equal"] == 30_000
        assert number(b, "DBSIZE") == 30_000
        asked = dumped(a) - before
        assert asked < 30_000
        # speed is told of what this run has read
        assert found["earlier"] > 0
        assert abs(found["keys"]["read"] - found["earlier"] - asked) < 100
        assert not list(tmp_path.iterdir())


def test_everything_of_one_version_arrives() -> None:
    with pair("redis-7.0", "redis-7.0", FIXTURES / "rich" / "redis-7.0.15.rdb") as (a, b):
        found = copy(url(a), url(b))
        assert found.complete
        assert found.functions.written
        assert found.counts.written == found.counts.read


def test_what_an_earlier_run_has_left_alone_is_told_where_keys_get_other_names(tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    with pair("redis-7.0", "redis-7.0") as (a, b):
        a.pipeline([("SET", f"old:{i}", "v") for i in range(2000)])
        b.pipeline([("SET", f"new:{i}", "other") for i in range(0, 2000, 2)])
        edits = Edits(rename_prefix=[(b"old:", b"new:")])

        def end(progress: Any) -> None:
            if progress.keys > 500:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            copy(url(a), url(b), edits=edits, state=state, batch=100, rate=2000, progress=end)
        found = copy(url(a), url(b), edits=edits, state=state)
        assert (found.resumed, found.complete, found.counts.existing) == (True, False, 1000)


@pytest.mark.parametrize("big", [0, 1])
def test_a_value_that_is_damaged_is_not_there_and_told(big: int) -> None:
    with pair("redis-7.0", "redis-6.0") as (a, b):
        a.call("SET", "sound", "v")
        a.call("ZADD", "z", "1.5", "member")
        payload: Any = a.call("DUMP", "z")
        content = payload[:-8].replace(b"1.5", b"xyz")
        a.call("RESTORE", "broken", "0", content + anycrc.Model("CRC64-REDIS").calc(content).to_bytes(8, "little"))
        done = run(a, b, "--big", str(big))
        assert (done.returncode, b.call("DBSIZE")) == (1, 2), done.stderr
        assert "not all keys are on TARGET" in done.stdout
        assert "refused: broken (db 0): " in done.stdout
        assert "a score of b'xyz' is no number" in done.stdout
        assert "left out" not in done.stdout


def test_a_source_that_loses_its_keys_meanwhile_is_told() -> None:
    with pair("redis-7.0", "redis-7.0") as (a, b):
        a.pipeline([("SET", f"key:{i}", "v") for i in range(2000)])

        def empty(progress: Any) -> None:
            if progress.keys > 500:
                a.call("FLUSHALL")

        found = copy(url(a), url(b), batch=100, rate=2000, progress=empty)
        assert found.complete
        (note,) = [note for note in found.notes if "at first" in note]
        assert f"2,000 keys at first and listed {found.counts.read:,}: " in note


@pytest.mark.parametrize("is_file", [False, True])
def test_a_target_that_was_emptied_is_not_taken_for_what_was_written(is_file: bool, tmp_path: Path) -> None:
    state = str(tmp_path / "state")
    with pair("redis-7.0", "redis-7.0") as (a, b):
        fill(a, 20_000, "".join(random.Random(1).choices("abcdefghij", k=400)))
        a.call("CONFIG", "SET", "rdbcompression", "no")
        a.call("SAVE")
        source = str(Path(text(a.items("CONFIG", "GET", "dir")[1])) / "dump.rdb") if is_file else url(a)

        def end(progress: Any) -> None:
            if number(b, "DBSIZE") > 5000:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            copy(source, url(b), state=state, batch=100, rate=20_000, progress=end)
        b.call("FLUSHALL")
        found = copy(source, url(b), state=state)
        assert (found.complete, found.counts.written, number(b, "DBSIZE")) == (True, 20_000, 20_000)
        assert any("all keys were compared again" in note for note in found.notes)


@pytest.mark.parametrize("is_file", [False, True])
def test_a_target_that_is_flushed_meanwhile_gets_all_keys_again(is_file: bool, tmp_path: Path) -> None:
    with pair("redis-7.0", "redis-7.0") as (a, b):
        fill(a, 3000)
        a.call("SAVE")
        source = str(Path(text(a.items("CONFIG", "GET", "dir")[1])) / "dump.rdb") if is_file else url(a)
        flushed: list[int] = []

        def flush(progress: Any) -> None:
            if not flushed and number(b, "DBSIZE") > 500:
                flushed.append(number(b, "DBSIZE"))
                b.call("FLUSHALL")

        found = copy(source, url(b), batch=100, rate=6000, progress=flush)
        assert flushed
        assert (found.complete, number(b, "DBSIZE")) == (True, 3000)
        assert any("was flushed" in note for note in found.notes)
        assert not copy(source, url(b)).notes[1:]


def test_a_target_that_restarts_empty_gets_all_keys_again(tmp_path: Path) -> None:
    with running(SERVERS / "redis-7.0" / "redis-server") as (a, _):
        fill(a, 3000)
        target = Process(SERVERS / "redis-7.0" / "redis-server", tmp_path)
        target.begin()
        target.client().close()
        restarted: list[int] = []

        def restart(progress: Any) -> None:
            if progress.keys > 500 and not restarted:
                restarted.append(progress.keys)
                target.kill()
                target.begin()

        try:
            found = copy(url(a), f"redis://127.0.0.1:{target.port}", batch=100, rate=3000, progress=restart)
            assert restarted
            with closing(target.client()) as b:
                assert (found.complete, number(b, "DBSIZE")) == (True, 3000)
            assert any("all keys were compared again" in note for note in found.notes)
        finally:
            target.kill()

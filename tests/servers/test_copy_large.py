"""Large values on their way with all others: `copy` takes them in parts, and leaves none behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fixtures.server import RELEASES
from rdbkit.live import parts
from rdbkit.live.copy import copy
from rdbkit.policy.rules import Edits, Policies

from ..processes import until
from ..rdb import FIXTURES
from .test_large_values import FAR, MAKE, comparable, servers, url

#: Runs a command line. VmHWM begins with this program; ru_maxrss would count the process that started it.
MEASURED = """
import sys
from rdbkit.cli import main
try:
    main(sys.argv[1:])
except SystemExit as e:
    print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
    sys.exit(e.code)
"""


@pytest.mark.parametrize("big", [1, 2000])
@pytest.mark.parametrize(
    ("source", "target"), [("redis-7.0", "redis-7.0"), ("redis-8.0", "redis-6.0"), ("valkey-9.1", "redis-8.0")]
)
def test_large_values_arrive_with_the_others(source: str, target: str, big: int) -> None:
    with servers(source, target, FIXTURES / "rich" / f"{RELEASES[source]}.rdb") as (a, b):
        for kind, commands in MAKE.items():
            a.pipeline([(command[0], *(kind if each == "k" else each for each in command[1:])) for command in commands])
        a.call("PEXPIREAT", "hash", FAR)
        done = copy(url(a), url(b), big=big, policies=Policies(loss="drop"))
        assert done.counts.written == done.counts.read - done.counts.left_out
        assert done.complete
        found, expected = comparable(b), comparable(a, with_fields=target != "redis-6.0")
        assert found == {key: row for key, row in expected.items() if key in found}
        assert {name for _, name in expected.keys() - found.keys()} <= {"vs"}
        again = copy(url(a), url(b), big=big, policies=Policies(loss="drop"))
        assert (again.counts.written, again.counts.existing) == (0, 0), again.samples
        assert comparable(b) == found


def test_what_the_target_has_stays_or_is_replaced() -> None:
    with servers("redis-7.0", "redis-7.0") as (a, b):
        for kind, commands in MAKE.items():
            a.pipeline([(command[0], *(kind if each == "k" else each for each in command[1:])) for command in commands])
        b.call("SET", "hash", "mine")
        done = copy(url(a), url(b), big=1000)
        assert (done.counts.written, done.counts.existing, done.complete) == (len(MAKE) - 1, 1, False)
        assert [(each.key, each.what) for each in done.samples] == [(b"hash", "exists")]
        assert b.text("GET", "hash") == "mine"
        done = copy(url(a), url(b), big=1000, on_exists="replace")
        assert (done.counts.written, done.complete) == (len(MAKE), True)
        assert comparable(a) == comparable(b)
        done = copy(url(a), url(b), big=1000, edits=Edits(rename_prefix=[("h", "new:h")], set_ttl_ms=1_000_000))
        assert (done.counts.written, done.counts.existing) == (1, len(MAKE) - 1)
        assert b.integer("HLEN", "new:hash") == a.integer("HLEN", "hash")
        assert 0 < b.integer("PTTL", "new:hash") <= 1_000_000


#: By type, a script that adds so many elements of so many bytes, from a number on.
FILL = """
local first, count, text, kind = tonumber(ARGV[1]), tonumber(ARGV[2]), string.rep('v', tonumber(ARGV[3])), ARGV[4]
for i = first, first + count - 1 do
    if kind == 'hash' then redis.call('HSET', kind, i, i .. text)
    elseif kind == 'list' then redis.call('RPUSH', kind, i .. text)
    elseif kind == 'set' then redis.call('SADD', kind, i .. text)
    elseif kind == 'zset' then redis.call('ZADD', kind, i, i .. text)
    elseif kind == 'stream' then redis.call('XADD', kind, (i + 1) .. '-1', 'f', i .. text)
    else redis.call('APPEND', kind, text) end
end
"""
MEGABYTE = 1 << 20


@pytest.mark.parametrize(
    ("kind", "element", "megabytes"),
    [
        ("string", MEGABYTE, 200), ("hash", 1000, 120), ("list", 100_000, 200), ("stream", 100_000, 200),
        *(pytest.param(*row, marks=pytest.mark.exhaustive) for row in (
            ("string", MEGABYTE, 500), ("hash", 100, 200), ("list", 1000, 200), ("set", 1000, 200), ("zset", 1000, 200),
            ("stream", 1000, 200), ("hash", MEGABYTE, 1000),
        )),
    ],
)  # fmt: skip
def test_memory_does_not_depend_on_a_value(kind: str, element: int, megabytes: int) -> None:
    with servers("redis-7.0", "redis-7.0") as (a, b):
        count = megabytes * MEGABYTE // element
        step = max(1, min(count, 4 * MEGABYTE // element))
        for first in range(0, count, step):
            a.call("EVAL", FILL, 0, first, min(step, count - first), element, kind)
        done = subprocess.run([sys.executable, "-c", MEASURED, "copy", url(a), url(b)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert int(done.stdout.splitlines()[-1]) < 150 << 10
        assert b.items("KEYS", "*") == [kind.encode()]
        length = {"string": "STRLEN", "hash": "HLEN", "list": "LLEN", "set": "SCARD", "zset": "ZCARD", "stream": "XLEN"}[kind]
        assert b.integer(length, kind) == a.integer(length, kind)


def test_a_copy_that_is_killed_goes_on_and_leaves_no_part(tmp_path: Path) -> None:
    with servers("redis-7.0", "redis-7.0") as (a, b):
        for name in ("one", "two"):
            a.call("EVAL", f"for i = 1, 200000 do redis.call('RPUSH', '{name}', i .. string.rep('x', 100)) end", 0)
        state = str(tmp_path / "state")
        command = [sys.executable, "-m", "rdbkit", "copy", url(a), url(b), "--big", "1MB", "--state", state]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until(lambda: b.items("KEYS", "*rdbkit:part:*"))
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert os.path.exists(state)
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        assert sorted(map(str, b.items("KEYS", "*"))) == ["b'one'", "b'two'"]
        assert comparable(a) == comparable(b)
        assert not os.path.exists(state)


@pytest.mark.parametrize("kind", ["string", "hash"])
def test_what_is_evicted_while_it_is_written_is_written_again(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A string would begin with zeros then; and fields that expire soon may be fewer than were written, whatever the reason."""
    with servers("redis-8.0", "redis-8.0") as (a, b):
        if kind == "string":
            a.call("EVAL", "redis.call('SET', 'k', string.rep('0123456789', 500000))", 0)
        else:
            a.call("EVAL", "for i = 1, 20000 do redis.call('HSET', 'k', i, string.rep('v', 100)) end", 0)
            a.pipeline([("HEXPIRE", "k", 1800, "FIELDS", 1000, *range(at, at + 1000)) for at in range(1, 20_000, 1000)])
        keep = parts._Begun.keep
        calls = 0
        evicted = 0

        def evicting(self: parts._Begun, is_whole: bool = False) -> None:
            nonlocal calls, evicted
            keep(self, is_whole)
            calls += bool(self._renewed_at)
            if calls == 5:
                evicted += b.integer("DEL", self._part)

        monkeypatch.setattr(parts._Begun, "keep", evicting)
        done = copy(url(a), url(b), big=1000)
        assert (evicted, done.counts.written, done.complete) == (1, 1, True)
        assert comparable(a) == comparable(b)

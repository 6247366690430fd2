"""Processes that count while a move goes forward and back: nothing that was acknowledged is lost, and both servers end equal."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack

import pytest

from fixtures.server import Client
from rdbkit.dual.switch import dual_switch
from rdbkit.live.verify_copy import verify_copy

from ..processes import until
from .test_verify_copy import two

#: Counts and appends to keys of its own, until its input ends; then says what was acknowledged of each.
COUNTS = """
import json, random, sys, threading
from rdbkit.dual import Redis

mine, old, new = sys.argv[1:]
cache = Redis.from_url(old, new=new, name="app", look_s=0.05)
counts = {f"{mine}:{n}": 0 for n in range(20)}
ended = threading.Event()

def work(names, seed):
    chance = random.Random(seed)
    while not ended.is_set():
        name = chance.choice(names)
        found = cache.incr(name)
        assert found == counts[name] + 1, (name, found, counts[name], cache.dual.setting)
        counts[name] = found
        cache.rpush("list:" + name, found)

names = list(counts)
threads = [threading.Thread(target=work, args=(names[n::2], n)) for n in range(2)]
for thread in threads:
    thread.start()
print("begun", flush=True)
sys.stdin.read()
ended.set()
for thread in threads:
    thread.join()
assert cache.dual.drain(60)
print(json.dumps(counts), flush=True)
"""


def test_counts_survive_a_move_there_and_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdbkit.dual.status.AGAIN_S", 0)
    with two("redis-7.0", "redis-8.0") as (first, second, old, new), ExitStack() as stack:
        processes = []
        for mine in ("a", "b"):
            process = subprocess.Popen(
                [sys.executable, "-c", COUNTS, mine, old, new], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "begun\n"

        def go(state: str, percent: float = 0) -> None:
            found = dual_switch(old, new, state, percent=percent, name="app", delay_s=0.2, compare=0, accept_missing=1_000_000)
            assert found.done, found.reasons
            until(lambda: grows(second if state == "new" else first, processes[0]))

        for state, percent in (("shadow", 0), ("dial", 50), ("new", 0), ("dial", 100), ("shadow", 0)):
            go(state, percent)
        for process in processes:
            out, _ = process.communicate("")
            assert process.returncode == 0
            counts = json.loads(out)
            assert sum(counts.values()) > 50
            for name, count in counts.items():
                assert int(first.text("GET", name) if count else 0) == count
                assert first.items("LRANGE", f"list:{name}", 0, -1) == [b"%d" % n for n in range(1, count + 1)]
        proof = verify_copy(old, new, find_extra=True, wait_s=0)
        assert proof.same, proof


def grows(client: Client, process: subprocess.Popen[str]) -> bool:
    """Whether somebody writes there."""
    assert process.poll() is None
    before = total(client)
    return any(total(client) > before for _ in range(20))


def total(client: Client) -> int:
    found = client.items("MGET", *(f"{mine}:{n}" for mine in "ab" for n in range(20)))
    return sum(int(each) for each in found if isinstance(each, bytes))

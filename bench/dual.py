#!/usr/bin/env python3
"""What `rdbkit.dual.Redis` takes of the thread that calls it beside a plain client: `bench/dual.py --servers .servers`.

All send the same commands to the same server, one by one and in turn. The figures are CPU microseconds of the calling thread for
each command, the least of several rounds. With `mirror="follow"` no other thread runs beside it; with marks, one brings the keys to
the other server, and the two wait for each other's turns at the interpreter. What that thread takes itself is told apart.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.append(os.fspath(Path(__file__).resolve().parent.parent))

import redis

from fixtures.server import Client, running
from rdbkit.dual import Redis, State

GOAL = 3.0
"""Microseconds of the caller for a write; a read is to take less than one."""
KEYS = 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=Path, default=Path(".servers"), help="where fixtures/servers.sh unpacked")
    parser.add_argument("--commands", type=int, default=3000, help="commands of a round")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    with (
        running(options.servers / "redis-7.0" / "redis-server") as (first, _),
        running(options.servers / "redis-8.0" / "redis-server") as (second, _),
    ):
        urls = [f"redis://127.0.0.1:{_port_of(each)}" for each in (first, second)]
        plain = redis.Redis.from_url(urls[0])
        dual = Redis.from_urls(*urls, state=State.SHADOW)
        clients = {"plain": plain, "follow": Redis.from_urls(*urls, state=State.SHADOW, mirror="follow"), "marks": dual}
        jobs: dict[str, Callable[[redis.Redis, int], object]] = {
            "SET": lambda client, i: client.set(f"key:{i}", "value", ex=3600),
            "HSET": lambda client, i: client.hset(f"hash:{i}", "field", "value"),
            "DEL of two": lambda client, i: client.delete(f"key:{i}", f"other:{i}"),
            "GET": lambda client, i: client.get(f"key:{i}"),
            "MGET of two": lambda client, i: client.mget(f"key:{i}", f"other:{i}"),
        }
        print(f"redis-py {redis.__version__}, CPU microseconds of the calling thread a command\n")
        print('| command | redis-py | `mirror="follow"` | marks |\n|---|---|---|---|')
        missed = []
        for name, job in jobs.items():
            least = dict.fromkeys(clients, float("inf"))
            for _ in range(options.rounds):
                for which, client in clients.items():
                    least[which] = min(least[which], _round(job, client, options.commands))
                    dual.dual.drain(60)
            more = {which: least[which] - least["plain"] for which in ("follow", "marks")}
            print(f"| {name} | {least['plain']:.1f} | {more['follow']:+.1f} | {more['marks']:+.1f} |")
            if more["follow"] > (1.0 if name.startswith(("GET", "MGET")) else GOAL):
                missed.append(name)
        before = time.process_time(), time.thread_time()
        count = 0
        end = time.monotonic() + 2
        while time.monotonic() < end:
            dual.set(f"key:{count % KEYS}", "value")
            count += 1
        dual.dual.drain(60)
        engine = (time.process_time() - before[0] - time.thread_time() + before[1]) / count * 1e6
        moved = dual.dual.report()["transfers"]
        print(f"\nthe thread that brings keys over: {engine:.1f} us a SET, of {count:,}; {moved:,} transfers in all")
    for name in missed:
        print(f"misses its goal: {name}")
    return bool(missed)


def _round(job: Callable[[redis.Redis, int], object], client: redis.Redis, commands: int) -> float:
    """CPU microseconds of this thread for each of so many commands."""
    begun = time.thread_time()
    for i in range(commands):
        job(client, i % KEYS)
    return (time.thread_time() - begun) / commands * 1e6


def _port_of(client: Client) -> int:
    return int(client.call("CONFIG", "GET", "port")[1])  # type: ignore[index,arg-type]


if __name__ == "__main__":
    sys.exit(main())

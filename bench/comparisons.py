#!/usr/bin/env python3
"""What `verify-copy` takes of client, source and target for each key, as CPU time: `bench/comparisons.py --servers .servers`.

It runs with the rdbkit that this interpreter imports, compiled or plain, and says which.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.append(os.fspath(Path(__file__).resolve().parent.parent))

from fixtures.server import Client, Command, running
from rdbkit.format.compiled import COMPILED
from rdbkit.live.verify_copy import verify_copy

PAIRS = (("redis-7.0", "redis-7.0"), ("redis-7.0", "redis-8.0"), ("redis-8.0", "redis-6.0"), ("valkey-9.1", "redis-7.0"))
GOAL_US = 5.0


def commands(count: int) -> Iterator[Command]:
    """Small keys: half of them strings, a quarter hashes, then lists, sets, sorted sets and streams."""
    noise = random.Random(1)
    for i in range(count):
        kind = noise.random()
        size = noise.randrange(2, 9)
        if kind < 0.5:
            yield "SET", f"user:{i}:name", "v" * noise.randrange(5, 60)
        elif kind < 0.75:
            yield "HSET", f"user:{i}", *(text for j in range(size) for text in (f"f{j}", f"value{noise.randrange(10**6)}"))
        elif kind < 0.83:
            yield "RPUSH", f"list:{i}", *(noise.randrange(10**6) for _ in range(size))
        elif kind < 0.91:
            yield "SADD", f"set:{i}", *(f"m{noise.randrange(10**4)}" for _ in range(size))
        elif kind < 0.98:
            yield "ZADD", f"top:{i}", *(part for j in range(size) for part in (noise.random() * 100, f"m{j}"))
        else:
            yield "XADD", f"events:{i}", f"{i + 1}-1", "f", "v" * 20


def cpu_us(client: Client) -> float:
    """CPU time that a server has taken so far, in microseconds."""
    facts = dict(line.split(":", 1) for line in client.text("INFO").splitlines() if ":" in line)
    return (float(facts["used_cpu_user"]) + float(facts["used_cpu_sys"])) * 1e6


def own_us() -> float:
    """The same of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return (used.ru_utime + used.ru_stime) * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=Path, default=Path(".servers"))
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    print(
        f"{'compiled' if COMPILED else 'plain'}; microseconds of CPU a key, {options.keys:,} small keys, best of {options.runs}\n"
    )
    print("| source | target | client | source's | target's |\n|---|---|---|---|---|")
    worst = 0.0
    for one, other in PAIRS:
        with (
            running(options.servers / one / "redis-server") as (source, _),
            running(options.servers / other / "redis-server") as (target, _),
        ):
            urls = []
            for client in (source, target):
                client.pipeline(commands(options.keys))
                urls.append(f"redis://127.0.0.1:{_port(client)}")
            found = []
            for _ in range(options.runs):
                before = own_us(), cpu_us(source), cpu_us(target)
                proof = verify_copy(*urls, rounds=1)
                assert proof.same
                after = own_us(), cpu_us(source), cpu_us(target)
                found.append([(b - a) / options.keys for a, b in zip(before, after, strict=True)])
            best = min(found)
            worst = max(worst, best[0])
            print(f"| {one} | {other} | {' | '.join(f'{us:.1f}' for us in best)} |")
    print(f"\nmost memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10} MB")
    return int(COMPILED and worst > GOAL_US)


def _port(client: Client) -> str:
    found = client.items("CONFIG", "GET", "port")[1]
    assert isinstance(found, bytes)
    return found.decode()


if __name__ == "__main__":
    sys.exit(main())

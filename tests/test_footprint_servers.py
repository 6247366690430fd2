"""What keys take in memory, beside what real servers say after they have loaded the same file."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from fixtures.server import Client, Command, running
from rdbkit.operations.memory import memory, memory_rows
from rdbkit.targets import find_target
from rdbkit.targets.memory import QUANTUM_OF_PACKAGES

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
LINES = ["redis-6.0", "redis-7.0", "redis-8.0", "redict-7.3", "valkey-8.1", "valkey-9.1"]
FAR = 10**12
"""Milliseconds from now."""


def text(rng: random.Random, n: int) -> str:
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=n))


def commands(rng: random.Random) -> list[Command]:
    """Keys of every type, of sizes on both sides of every limit."""
    found: list[Command] = []
    for n in (*range(0, 70), *range(70, 600, 37), 5_000, 30_000):
        found.append(("SET", f"string:{n}", text(rng, n)))
        found.append(("SET", f"expiring:{n}", text(rng, n), "PX", FAR))
        found.append(("SET", f"number:{'n' * n}:{n}", rng.randrange(10**12)))
        found.append(("SET", text(rng, n + 1) + "_", text(rng, 12)))
    for n in (1, 2, 5, 16, 100, 128, 129, 512, 513, 1_500):
        for width in (3, 20, 70, 150):
            fields = [x for j in range(n) for x in (f"f{j:04d}", text(rng, width + rng.randrange(3)))]
            found.append(("HSET", f"hash:{n}:{width}", *fields))
            found.append(("SADD", f"set:{n}:{width}", *[f"{j:04d}" + text(rng, width) for j in range(n)]))
            scored = [x for j in range(n) for x in (rng.random(), f"{j:04d}" + text(rng, width))]
            found.append(("ZADD", f"zset:{n}:{width}", *scored))
            found.append(("RPUSH", f"list:{n}:{width}", *[text(rng, width) for _ in range(n)]))
            ids = (f"{1_700_000_000_000 + j * 3_000 + rng.randrange(2_000)}-{j}" for j in range(n))
            found += [("XADD", f"stream:{n}:{width}", entry, "f", text(rng, width), "g", j) for j, entry in enumerate(ids)]
        for scale in (1, 1 << 16, 1 << 32):
            found.append(("SADD", f"intset:{n}:{scale}", *[j * scale for j in range(n)]))
        if n >= 16:
            found.append(("XGROUP", "CREATE", f"stream:{n}:20", "group", "0"))
            found.append(("XREADGROUP", "GROUP", "group", "me", "COUNT", n // 2, "STREAMS", f"stream:{n}:20", ">"))
    return found


def usage(client: Client) -> dict[bytes, int]:
    """MEMORY USAGE of every key of database 0."""
    answers: dict[bytes, int] = {}
    for name in client.items("KEYS", "*"):
        assert isinstance(name, bytes)
        answers[name] = client.integer("MEMORY", "USAGE", name, "SAMPLES", 0)
    return answers


def dataset(client: Client) -> int:
    stats = client.items("MEMORY", "STATS")
    found = stats[stats.index(b"dataset.bytes") + 1]
    assert isinstance(found, int)
    return found


@pytest.mark.parametrize("line", LINES)
def test_what_servers_say_after_a_restart(line: str, tmp_path: Path) -> None:
    binary = next(path for path in (SERVERS / line).glob("*-server"))
    dump = tmp_path / "dump.rdb"
    with running(binary) as (client, folder):
        empty = dataset(client)
        client.pipeline(commands(random.Random(5)))
        client.call("SAVE")
        dump.write_bytes((Path(folder) / "dump.rdb").read_bytes())
    with running(binary, dump) as (client, _):
        answers = usage(client)
        taken = dataset(client) - empty

    target = find_target(line)
    with rdbkit.open(dump) as snapshot:
        rows = list(memory_rows(snapshot, target, quantum=QUANTUM_OF_PACKAGES))
    assert {row.key for row in rows} == answers.keys()
    totals: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    near = 0
    for row in rows:
        name = row.key.split(b":")[0].decode() if b":" in row.key else "name"
        totals[name][0] += row.memory
        totals[name][1] += answers[row.key]
        near += abs(row.memory - answers[row.key]) <= 0.1 * answers[row.key]
    for name, (weighed, answered) in totals.items():
        assert abs(weighed / answered - 1) < 0.05, (name, weighed, answered)
    assert near / len(rows) > 0.98
    with rdbkit.open(dump) as snapshot:
        report = memory(snapshot, target, quantum=QUANTUM_OF_PACKAGES)
    assert abs(report.dataset_bytes / taken - 1) < 0.05, (report.dataset_bytes, taken)


def test_the_benchmark_measures_it(tmp_path: Path) -> None:
    command = [sys.executable, "bench/footprint.py", "--servers", str(SERVERS), "--json"]
    made: Any = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent.parent)
    assert made.returncode == 0, made.stderr
    rows = json.loads(made.stdout)["truth"]
    assert [row["line"] for row in rows] == LINES

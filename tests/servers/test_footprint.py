"""What keys take in memory, beside what real servers say after they have loaded the same file."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from fixtures.loaded import FIELDS_EXPIRE, LINES, LOADS, allocator, ask, binary, fill, pages
from fixtures.server import Client, running
from rdbkit.operations.memory import memory, memory_rows
from rdbkit.policy.rules import Policies
from rdbkit.targets.target import find_target

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
SEEDS = {"redis-6.0": 71, "redis-7.0": 72, "redis-8.0": 73, "redict-7.3": 74, "valkey-8.1": 75, "valkey-9.1": 76}
"""Others than those of fixtures/memory; the shapes are other ones, too."""
KEYS = 500
MANY = 50_000
"""Bytes of one type and encoding whose sum chance cannot move by much: skip lists and buckets are as it has it."""


def dataset(client: Client) -> int:
    stats = client.items("MEMORY", "STATS")
    found = stats[stats.index(b"dataset.bytes") + 1]
    assert isinstance(found, int)
    return found


def compare(dump: Path, line: str) -> None:
    """Keys by type and encoding, and the dataset, by the model and by a server that has loaded the dump."""
    with running(binary(SERVERS, line)) as (client, _):
        empty = dataset(client)
    with running(binary(SERVERS, line), dump) as (client, _):
        said = ask(client)
        taken = dataset(client) - empty
        by_pages = pages(allocator(client))
    target = find_target(line)
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    with rdbkit.open(dump) as snapshot:
        for row in memory_rows(snapshot, target, pages=by_pages):
            answer = said.pop((row.db, row.key))
            for kind in (("all", ""), (answer.type, answer.encoding), (row.type, f"{row.encoding} in the file")):
                sums[kind][0] += row.memory
                sums[kind][1] += answer.memory
    assert not said
    for kind, (weighed, answered) in sums.items():
        if kind == ("all", ""):
            assert abs(weighed / answered - 1) < 0.01, (line, weighed, answered)
        elif answered > MANY:
            assert -0.02 < weighed / answered - 1 < 0.05, (line, kind, weighed, answered)
    with rdbkit.open(dump) as snapshot:
        report = memory(snapshot, target, pages=by_pages)
    assert abs(report.dataset_bytes / taken - 1) < 0.02, (line, report.dataset_bytes, taken)


@pytest.mark.parametrize("writer", LINES)
def test_what_servers_say_that_have_loaded_a_file(writer: str, tmp_path: Path) -> None:
    dump = tmp_path / "dump.rdb"
    fill(binary(SERVERS, writer), dump, SEEDS[writer], KEYS, writer in FIELDS_EXPIRE)
    for line in LOADS[writer]:
        compare(dump, line)


@pytest.mark.parametrize("form", ["redis-2.4", "redis-2.6", "redis-3.2"])
def test_what_servers_say_that_have_loaded_an_old_file(form: str, tmp_path: Path) -> None:
    written, dump = tmp_path / "written.rdb", tmp_path / "dump.rdb"
    fill(binary(SERVERS, "redis-6.0"), written, 77, KEYS, False)
    rdbkit.convert(written, dump, target=form, policies=Policies(loss="drop"))
    for line in LINES:
        compare(dump, line)


LIMITS = (
    "hash-max-ziplist-entries 3000", "hash-max-ziplist-value 500", "zset-max-ziplist-entries 3000", "zset-max-ziplist-value 500",
    "set-max-intset-entries 3000",
)  # fmt: skip


def test_what_servers_say_that_have_loaded_a_file_of_a_server_with_other_limits(tmp_path: Path) -> None:
    dump = tmp_path / "dump.rdb"
    for writer, limits in (("redis-6.0", LIMITS), ("redis-8.0", (*LIMITS, "set-max-listpack-entries 3000"))):
        fill(binary(SERVERS, writer), dump, 78, KEYS, writer in FIELDS_EXPIRE, conf=limits)
        for line in LOADS[writer]:
            compare(dump, line)


def test_the_benchmark_measures_it() -> None:
    command = [sys.executable, "bench/footprint.py", "--servers", str(SERVERS), "--json", "--seed", "5", "--keys", "60"]
    made: Any = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2])
    assert made.returncode == 0, made.stderr
    rows = json.loads(made.stdout)["loaded"]
    assert {row["line"] for row in rows} == set(LINES)

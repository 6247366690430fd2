#!/usr/bin/env python3
"""How far `rdbkit memory` is from what servers say, as Markdown tables.

Two comparisons: key by key with what the servers that wrote the fixtures answered to MEMORY USAGE, and in total with what servers
that have loaded the benchmark's dump call their dataset. Runs with the rdbkit that the interpreter finds.
"""

from __future__ import annotations

import argparse
import gzip
import json
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rdbkit
from bench.cases import BenchError, note
from fixtures.server import RELEASES, Client, Refused, running
from rdbkit.operations.memory import memory, memory_rows
from rdbkit.targets import find_target
from rdbkit.targets.memory import QUANTUM_OF_PACKAGES

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"


def against_truth(line: str) -> dict[str, Any]:
    """The keys of a release's fixtures by the model, and by the server that wrote them."""
    pairs = []
    for folder in ("rich", "random"):
        dump = FIXTURES / folder / f"{RELEASES[line]}.rdb"
        with gzip.open(dump.with_name(f"{RELEASES[line]}.truth.jsonl.gz"), "rt") as lines:
            said = {(row["db"], row["key"].encode("latin-1")): row["memory"] for row in map(json.loads, lines)}
        with rdbkit.open(dump) as snapshot:
            for row in memory_rows(snapshot, find_target(line), quantum=QUANTUM_OF_PACKAGES):
                if said[row.db, row.key] is not None:
                    pairs.append((row.memory, said[row.db, row.key]))
    weighed, answered = (sum(column) for column in zip(*pairs, strict=True))
    near = sum(abs(model - server) <= 0.1 * server for model, server in pairs)
    return {
        "line": line, "release": RELEASES[line], "keys": len(pairs), "model": weighed, "server": answered,
        "error": weighed / answered - 1, "near": near / len(pairs),
    }  # fmt: skip


def against_dataset(line: str, servers: Path, data: Path, work: Path) -> dict[str, Any]:
    """The benchmark's dump by the model, and by a server that has loaded it, in a form that it takes."""
    target = find_target(line)
    dump = work / f"{line}.rdb"
    rdbkit.convert(data, dump, target=line, force=True)
    note(f"loading the dataset into {line}")
    binary = next((servers / line).glob("*-server"))
    with running(binary) as (client, _):
        before = _stat(client, "dataset.bytes")
    with running(binary, dump) as (client, _):
        taken = _stat(client, "dataset.bytes") - before
        used = _stat(client, "total.allocated")
    with rdbkit.open(dump) as snapshot:
        report = memory(snapshot, target, quantum=QUANTUM_OF_PACKAGES)
    return {
        "line": line, "model": report.dataset_bytes, "server": taken, "error": report.dataset_bytes / taken - 1,
        "model_total": report.total_bytes, "server_total": used, "error_total": report.total_bytes / used - 1,
    }  # fmt: skip


def _stat(client: Client, name: str) -> int:
    stats = client.items("MEMORY", "STATS")
    found = stats[stats.index(name.encode()) + 1]
    assert isinstance(found, int)
    return found


def truth_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "| server | keys | model, bytes | MEMORY USAGE, bytes | total off by | keys within 10 % |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for r in rows:
        yield f"| {r['release']} | {r['keys']} | {r['model']:,} | {r['server']:,} | {r['error']:+.1%} | {r['near']:.0%} |"


def dataset_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    yield "| server | dataset_bytes | used_memory_dataset | off by | total_bytes | used_memory | off by |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    for r in rows:
        yield (
            f"| {r['line']} | {r['model']:,} | {r['server']:,} | {r['error']:+.2%}"
            f" | {r['model_total']:,} | {r['server_total']:,} | {r['error_total']:+.2%} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--servers", type=Path, required=True, metavar="DIR", help="what fixtures/servers.sh filled")
    parser.add_argument(
        "--dataset", type=Path, metavar="FILE", help="of bench/dataset.py; without it only the fixtures are compared"
    )
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    options = parser.parse_args()
    result: dict[str, Any] = {"truth": [against_truth(line) for line in RELEASES]}
    if options.dataset is not None:
        with tempfile.TemporaryDirectory() as work:
            try:
                result["dataset"] = [against_dataset(line, options.servers, options.dataset, Path(work)) for line in RELEASES]
            except (BenchError, Refused, rdbkit.RdbError, OSError) as error:
                sys.exit(f"footprint.py: {error}")
    if options.json:
        print(json.dumps(result))
        return
    print("\n".join(truth_table(result["truth"])))
    if "dataset" in result:
        print()
        print("\n".join(dataset_table(result["dataset"])))


if __name__ == "__main__":
    main()

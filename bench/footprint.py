#!/usr/bin/env python3
"""How far `rdbkit memory` is from what servers say that have loaded the file, as Markdown tables.

Two comparisons: by type and encoding with MEMORY USAGE of every key of fresh dumps, whose shapes the seeds decide, and in total
with the dataset of servers that have loaded the benchmark's dump. Runs with the rdbkit that the interpreter finds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import rdbkit
from bench.cases import BenchError, note
from fixtures.loaded import FIELDS_EXPIRE, LINES, LOADS, allocator, ask, binary, fill, pages
from fixtures.server import Client, Refused, running
from rdbkit.operations.memory import memory, memory_rows
from rdbkit.targets.target import find_target

SEEDS = (901, 902)
KEYS = 700
"""In each dump."""
ALL = ("all", "")


def against_loaded(servers: Path, seeds: Sequence[int], keys: int, work: Path) -> list[dict[str, Any]]:
    """Keys and bytes by server, type and encoding, of dumps that each of the servers saves and all load that can."""
    sums: dict[tuple[str, str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for writer in LINES:
        for seed in seeds:
            dump = work / f"{writer}-{seed}.rdb"
            note(f"{writer} saves {keys} keys of seed {seed}")
            fill(binary(servers, writer), dump, seed, keys, writer in FIELDS_EXPIRE)
            for line in LOADS[writer]:
                with running(binary(servers, line), dump) as (client, _):
                    said = ask(client)
                    by_pages = pages(allocator(client))
                with rdbkit.open(dump) as snapshot:
                    for row in memory_rows(snapshot, find_target(line), pages=by_pages):
                        answer = said[row.db, row.key]
                        for kind in ((answer.type, answer.encoding), ALL):
                            counts = sums[line, *kind]
                            counts[0] += 1
                            counts[1] += row.memory
                            counts[2] += answer.memory
            dump.unlink()
    return [
        {"line": line, "type": kind, "encoding": encoding, "keys": n, "model": weighed, "server": said, "error": weighed / said - 1}
        for (line, kind, encoding), (n, weighed, said) in sorted(sums.items())
    ]


def against_dataset(line: str, servers: Path, data: Path, work: Path) -> dict[str, Any]:
    """The benchmark's dump by the model, and by a server that has loaded it, in a form that it takes."""
    target = find_target(line)
    dump = work / f"{line}.rdb"
    rdbkit.convert(data, dump, target=line, force=True)
    note(f"loading the dataset into {line}")
    with running(binary(servers, line)) as (client, _):
        before = _stat(client, "dataset.bytes")
    with running(binary(servers, line), dump) as (client, _):
        taken = _stat(client, "dataset.bytes") - before
        used = _stat(client, "total.allocated")
        by_pages = pages(allocator(client))
    with rdbkit.open(dump) as snapshot:
        report = memory(snapshot, target, pages=by_pages)
    return {
        "line": line, "model": report.dataset_bytes, "server": taken, "error": report.dataset_bytes / taken - 1,
        "model_total": report.total_bytes, "server_total": used, "error_total": report.total_bytes / used - 1,
    }  # fmt: skip


def _stat(client: Client, name: str) -> int:
    stats = client.items("MEMORY", "STATS")
    found = stats[stats.index(name.encode()) + 1]
    assert isinstance(found, int)
    return found


def loaded_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """A line for each type and encoding, with how far the model is off for each server."""
    yield f"| type | encoding | keys | {' | '.join(LINES)} |"
    yield f"| --- | --- | ---: | {' | '.join('---:' for _ in LINES)} |"
    found = {(row["line"], row["type"], row["encoding"]): row for row in rows}
    for kind in [*sorted({(row["type"], row["encoding"]) for row in rows} - {ALL}), ALL]:
        of_kind = [found.get((line, *kind)) for line in LINES]
        errors = [f"{row['error']:+.2%}" if row else "" for row in of_kind]
        yield f"| {kind[0]} | {kind[1]} | {sum(row['keys'] for row in of_kind if row):,} | {' | '.join(errors)} |"
    mega = [(found[line, *ALL]["model"], found[line, *ALL]["server"]) for line in LINES]
    yield f"| the model, MB | | | {' | '.join(f'{model / 1e6:.1f}' for model, _ in mega)} |"
    yield f"| MEMORY USAGE, MB | | | {' | '.join(f'{server / 1e6:.1f}' for _, server in mega)} |"


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
    parser.add_argument("--seed", type=int, action="append", metavar="N", help=f"of fresh dumps; several times (default: {SEEDS})")
    parser.add_argument("--keys", type=int, default=KEYS, metavar="N", help=f"of each dump (default: {KEYS})")
    parser.add_argument("--dataset", type=Path, metavar="FILE", help="of bench/dataset.py; else only fresh dumps are compared")
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    options = parser.parse_args()
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as work:
        try:
            result["loaded"] = against_loaded(options.servers, options.seed or SEEDS, options.keys, Path(work))
            if options.dataset is not None:
                result["dataset"] = [against_dataset(line, options.servers, options.dataset, Path(work)) for line in LINES]
        except (BenchError, Refused, rdbkit.RdbError, OSError) as error:
            sys.exit(f"footprint.py: {error}")
    if options.json:
        print(json.dumps(result))
        return
    print("\n".join(loaded_table(result["loaded"])))
    if "dataset" in result:
        print()
        print("\n".join(dataset_table(result["dataset"])))


if __name__ == "__main__":
    main()

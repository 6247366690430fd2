"""Looks for inputs that the library does not stand: `python -m tests.fuzz --help`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

from rdbkit.format.compiled import COMPILED
from tests.fuzz.inputs import input_of
from tests.fuzz.operations import OPERATIONS, chosen
from tests.fuzz.run import Finding, Runner, Task, minimised, run


def tasks(seed: int, first: int, count: int | None, each: int, operations: list[str] | None) -> Iterator[Task]:
    """Tasks from the input of number `first` on, `each` of every input."""
    number = first
    while count is None or number < first + count:
        made = input_of(seed, number)
        rng = Random(f"operations {seed} {number}")
        for place, name in enumerate(operations or chosen(rng, each)):
            yield Task(f"{seed}/{number} ({made.how})", name, f"{seed} {number} {place}", made.data)
        number += 1


def until(end: float, found: Iterator[Task]) -> Iterator[Task]:
    for task in found:
        if time.monotonic() > end:
            return
        yield task


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="how long to look; 60 by default")
    parser.add_argument("--inputs", type=int, help="so many inputs, however long it takes")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other inputs")
    parser.add_argument("--first", type=int, default=0, help="the number of the first input")
    parser.add_argument("--each", type=int, default=4, help="operations on each input; 4 by default, chosen by the seed")
    parser.add_argument("--operation", action="append", choices=sorted(OPERATIONS), help="this one on every input; may be repeated")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write the smallest input of each finding there")
    args = parser.parse_args()
    begin = time.monotonic()
    found: list[Finding] = []

    def report(finding: Finding) -> None:
        found.append(finding)
        print(finding, flush=True)

    each = tasks(args.seed, args.first, args.inputs, args.each, args.operation)
    count = run(each if args.inputs is not None else until(begin + args.seconds, each), report)
    form = "compiled" if COMPILED else "plain"
    print(f"{count} operations ({form}, seed {args.seed}) in {time.monotonic() - begin:.0f} s: {len(found)} kinds of findings")
    if args.keep is not None:
        args.keep.mkdir(parents=True, exist_ok=True)
        with Runner() as runner:
            for number, finding in enumerate(found):
                small = minimised(finding, runner)
                path = args.keep / f"{small.task.operation}-{args.seed}-{number}.rdb"
                path.write_bytes(small.task.data)
                print(f"{path}: {len(small.task.data)} bytes, {small.kind}, seed {small.task.seed!r}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())

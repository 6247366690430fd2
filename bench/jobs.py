#!/usr/bin/env python3
"""Time `--jobs` beside one process, on copies of a dump under other names:

    bench/jobs.py --rdbkit PATH --dataset dataset.rdb --copies 4

The output of several processes has to be the same, byte for byte. It is worth nothing on a machine with other work: wall seconds
are what counts, and they need free cores.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tempfile
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.cases import BenchError, Case, clean_environment, run_cases

NAMES = (
    "board", "catalog", "events", "friends", "key", "log", "page", "ranking", "session", "tags", "token", "user", "visitors",
)  # fmt: skip
"""How keys of `dataset.py` begin."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rdbkit", type=Path, required=True, help="an installed rdbkit")
    parser.add_argument("--dataset", type=Path, required=True, help="the dump")
    parser.add_argument("--copies", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = copies(options.rdbkit, options.dataset, options.copies, Path(folder))
        out = Path(folder, "out")
        secret = Path(folder, "secret")
        secret.write_text("a secret")
        print(f"{data.stat().st_size / 1e6:,.0f} MB")
        print("| command | CPU s | wall s | times as fast | CPU, times |")
        print("| --- | ---: | ---: | ---: | ---: |")
        for command in (
            ("export", data, "-o", out, "--force"),
            ("convert", data, out, "--force", "--target", "azure-premium"),
            ("verify", "--deep", data),
            ("redact", data, out, "--force", "--secret-file", secret),
        ):
            table(options, command, out)
    return 0


def copies(rdbkit: Path, dataset: Path, number: int, folder: Path) -> Path:
    """The keys of a dump several times over, under other names."""
    parts = [dataset]
    for n in range(1, number):
        parts.append(folder / f"{n}.rdb")
        renames = [option for name in NAMES for option in ("--rename-prefix", f"{name}={n}{name}")]
        run(rdbkit, "convert", dataset, parts[-1], "--target", "redis-7.0", *renames)
    run(rdbkit, "merge", *parts, "-o", folder / "all.rdb")
    for part in parts[1:]:
        part.unlink()
    return folder / "all.rdb"


def run(*command: str | Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=clean_environment(), check=False)
    if done.returncode:
        raise BenchError(done.stderr)


def table(options: argparse.Namespace, command: tuple[str | Path, ...], out: Path) -> None:
    """Print the rows of one verb."""
    digests: set[str] = set()

    def look(case: Case) -> None:
        if command[0] == "verify":
            return
        with open(out, "rb") as file:
            digests.add(hashlib.file_digest(file, "md5").hexdigest())
        if len(digests) > 1:
            raise BenchError(f"{case.label}: another output")

    cases = [
        Case(f"{command[0]} --jobs {jobs}", (options.rdbkit, *command, "--jobs", str(jobs))) for jobs in sorted({1, options.jobs})
    ]
    found = run_cases(cases, options.runs, look)
    one = found[cases[0].label]
    for case in cases:
        usage = found[case.label]
        print(
            f"| {case.label} | {usage.cpu:.2f} | {usage.wall:.2f} | {one.wall / usage.wall:.2f} | {usage.cpu / one.cpu:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())

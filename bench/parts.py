"""What the verbs of memory and of many files take beside `redis-check-rdb`, and how fast the project wants them to be."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from bench import dataset
from bench.cases import BenchError, Case, clean_environment, figures, run_cases, server_tool

YARDSTICK = "redis-7.0"
PARTS = 4
SLOTS = "0-4095,4096-8191,8192-12287,12288-16383"


def goal_table(forms: dict[str, Path], servers: Path, data: Path, work: Path, runs: int) -> Iterator[str]:
    """The lines of the table, and below it what misses its goal; raises BenchError for a file that no server takes."""
    check = server_tool(servers, YARDSTICK, "redis-check-rdb")
    yardstick = Case("redis-check-rdb", (check, data))
    parts, out, again = work / "parts", work / "merged.rdb", work / "again.rdb"
    if not again.exists():  # the same data in the order of another hash seed
        dataset.save_again(server_tool(servers, YARDSTICK, "redis-server"), data, again)
    rows: dict[Case, float | None] = {}
    for form, path in forms.items():
        memory = (path, "memory", data, "--target", "azure-premium")
        rows[Case(f"rdbkit memory --target azure-premium, {form}", memory)] = 3.0 if form == "compiled" else 0.5
        plan = (path, "plan", data, "--target", "azure-managed")
        rows[Case(f"rdbkit plan --target azure-managed, {form}", plan)] = None
        for option in (f"--parts={PARTS}", f"--slots={SLOTS}"):
            for digests in (False, True):
                what = f"split {option.split('=')[0]}{'' if digests else ' --no-digests'}"
                command: tuple[str | Path, ...] = (path, "split", data, "--into", parts, "--force", option)
                command = command if digests else (*command, "--no-digests")
                goal = 3.0 if form == "compiled" and not digests else None
                rows[Case(f"rdbkit {what}, {form}", command)] = goal
        files = tuple(parts / f"{number:04}.rdb" for number in range(1, PARTS + 1))
        merge: tuple[str | Path, ...] = (path, "merge", *files, "-o", out, "--force")
        rows[Case(f"rdbkit merge of {PARTS} parts, {form}", merge)] = 3.0 if form == "compiled" else None
        diff = Case(f"rdbkit diff of two orders, {form}", (path, "diff", data, again))
        rows[diff] = 1 / 3 if form == "compiled" else None
        rows[Case(f"rdbkit verify, {form}", (path, "verify", data))] = 4.0 if form == "compiled" else None
        rows[Case(f"rdbkit verify --deep, {form}", (path, "verify", "--deep", data))] = 1.0 if form == "compiled" else None
        rows[Case(f"rdbkit salvage of a sound file, {form}", (path, "salvage", data, out, "--force"))] = None
        rows[Case(f"rdbkit redact, {form}", (path, "redact", data, out, "--force"))] = None
    for case in rows:  # parts by bytes, which the merge reads; those by slots have other names
        if " --parts" in case.label:
            shutil.rmtree(parts, ignore_errors=True)
            subprocess.run(case.command, check=True, capture_output=True, env=clean_environment())
            break

    def look(case: Case) -> None:
        if " merge " in case.label or " salvage " in case.label or " redact" in case.label:
            said = subprocess.run([check, out], capture_output=True, text=True, check=False)
            if "RDB looks OK" not in said.stdout:
                raise BenchError(f"{case.label}: {said.stdout}")

    medians = run_cases([*rows, yardstick], runs, look)
    shutil.rmtree(parts)
    out.unlink()
    reference = medians[yardstick.label]
    yield "| tool | user s | CPU s | wall s | peak RSS MB | times as fast | goal |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    missed = []
    for case, goal in rows.items():
        usage = medians[case.label]
        yield f"| {case.label} | {figures(usage, reference)} | {'' if goal is None else f'{goal:.2f}'} |"
        if goal is not None and usage.user * goal > reference.user:
            missed.append(f"\nMissed: {case.label}: {reference.user / usage.user:.2f} times as fast, and {goal:.2f} is the goal")
    yield f"| {yardstick.label} | {figures(reference, reference)} | |"
    yield from missed

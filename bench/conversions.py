"""The tables of `rdbkit convert`: speed on the dataset, memory on big files; every output is one that a server's checker takes."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import bigfiles
from bench.cases import BenchError, Case, Usage, clean_environment, figures, measure, note, run_cases, server_tool

YARDSTICK = "redis-8.0"
"""Its redis-check-rdb is what conversions are timed beside: that of 7.0 does not know RDB 11."""
CHECKERS = {"azure-premium": "redis-6.0", "redis-7.0": "redis-7.0", "redis-7.2": "valkey-8.1", "redis-8.0": "redis-8.0"}
"""By target, the server whose redis-check-rdb has to take the output: one that knows the RDB version and no later one."""
SAYS_OK = "RDB looks OK"
LOSSES = ("0", "1")
"""Exit statuses of a conversion: 1 says that something was lost, as the options allow."""
MOST_GROWTH = 1.5
"""How many times the source's size an output may take."""
MOST_MEMORY = 150_000_000


@dataclass(frozen=True)
class Conversion:
    """What is timed: a target and options, in which forms, and by form how many times as fast as the checker it should be."""

    target: str
    options: str = ""
    forms: tuple[str, ...] = ("compiled", "pure")
    goals: tuple[tuple[str, float], ...] = ()

    @property
    def arguments(self) -> tuple[str, ...]:
        return ("--target", self.target, *self.options.split())

    @property
    def what(self) -> str:
        """The output, which is the same from every form and for any number of processes."""
        return " ".join(self.arguments).replace(" --jobs 2", "")


QUARTER = (("compiled", 4.0),)
CONVERSIONS = (
    Conversion(
        "azure-premium", forms=("compiled", "pure", "pure+lzf"), goals=(("compiled", 2.0), ("pure", 1 / 3), ("pure+lzf", 1 / 3))
    ),
    Conversion("azure-premium", "--jobs 2"),
    Conversion("azure-premium", "--compress", forms=("compiled",)),
    Conversion("redis-7.2", "--not-key token:*", goals=QUARTER),
    Conversion("redis-7.2", "--type hash,string", goals=QUARTER),
    Conversion("redis-7.2", forms=("compiled",)),
    Conversion("azure-premium", "--deep", forms=("compiled",)),
    Conversion("redis-7.2", "--deep", forms=("compiled",)),
)

BIG_CONVERSIONS = (
    ("strings-2gb.rdb", "azure-premium", ""),
    ("string-1gb.rdb", "azure-premium", ""),
    ("hash-10m.rdb", "azure-premium", ""),
    ("list-plain.rdb", "azure-premium", ""),
    ("hash-ttl-10m.rdb", "redis-7.2", "--on-field-ttl drop-ttl"),
    ("hash-ttl-10m-valkey.rdb", "redis-8.0", ""),
    ("hashes-ttl-1m.rdb", "redis-7.2", "--on-field-ttl drop-ttl"),
    ("stream-3m.rdb", "azure-premium", ""),
    ("stream-3m-group.rdb", "azure-premium", "--on-pending-unowned assign=nobody"),
)
"""Of the table of memory: file, target, options."""


def check_output(servers: Path, target: str, path: Path) -> None:
    """Raise BenchError unless the target's redis-check-rdb finds the file to be in order."""
    checker = server_tool(servers, CHECKERS[target], "redis-check-rdb")
    run = subprocess.run([checker, path], capture_output=True, text=True, errors="replace", env=clean_environment())
    if SAYS_OK not in run.stdout:
        raise BenchError(f"{checker} does not take {path}, which is kept:\n{run.stdout[-1_000:]}{run.stderr[-1_000:]}")


#: What is asked of `rdbkit check`, and its exit status: 1 where the file has to be converted.
CHECKED = {"azure-premium": "1", "redis-7.2": "0"}
#: How many times as fast as the yardstick it is to be, by form.
CHECK_GOALS = {"compiled": 5.0, "pure": 1.0}


def speed_table(forms: dict[str, Path], servers: Path, data: Path, work: Path, runs: int) -> Iterator[str]:
    """The lines of the table of speed, and below it what misses its goal.

    Raises BenchError where the forms write different files, or one that its target does not take.
    """
    out = work / "converted.rdb"
    yardstick = Case(f"redis-check-rdb of {YARDSTICK}", (server_tool(servers, YARDSTICK, "redis-check-rdb"), data))
    rows = {
        f"rdbkit convert {' '.join(conversion.arguments)}, {form}": (conversion, form)
        for conversion in CONVERSIONS
        for form in conversion.forms
    }
    cases = [
        Case(label, (forms[form], "convert", data, out, "--force", *conversion.arguments))
        for label, (conversion, form) in rows.items()
    ]
    sizes: dict[str, int] = {}
    digests: dict[str, str] = {}

    def look(case: Case) -> None:
        """At what the command wrote."""
        if case is yardstick:
            return
        conversion = rows[case.label][0]
        sizes[case.label] = out.stat().st_size
        with out.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if conversion.what not in digests:
            digests[conversion.what] = found
            check_output(servers, conversion.target, out)
        elif digests[conversion.what] != found:
            raise BenchError(f"{case.label} writes another file than the row before; it is kept: {out}")

    medians = run_cases([*cases, yardstick], runs, look)
    out.unlink()
    yield "| tool | user s | CPU s | wall s | peak RSS MB | times as fast | goal | size of the source |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    reference, source = medians[yardstick.label], data.stat().st_size
    missed: list[str] = []
    for label, (conversion, form) in rows.items():
        usage, growth, goal = medians[label], sizes[label] / source, dict(conversion.goals).get(form)
        yield f"| {label} | {figures(usage, reference)} | {'' if goal is None else f'{goal:.2f}'} | {growth:.3f} |"
        missed += _missed(label, usage, reference, growth, goal)
    yield f"| {yardstick.label} | {figures(reference, reference)} | | |"
    yield from missed


def check_table(forms: dict[str, Path], servers: Path, data: Path, runs: int) -> Iterator[str]:
    """The lines of the table of `rdbkit check`, and below it what misses its goal."""
    yardstick = Case(f"redis-check-rdb of {YARDSTICK}", (server_tool(servers, YARDSTICK, "redis-check-rdb"), data))
    rows: dict[Case, float | None] = {}
    for target, status in CHECKED.items():
        for form, times in CHECK_GOALS.items():
            command = (forms[form], "check", data, "--target", target)
            # what would be re-encoded is decoded, so that such a check takes what the conversion takes
            rows[Case(f"rdbkit check --target {target}, {form}", command, status=status)] = None if status == "1" else times
        deep = (forms["compiled"], "check", data, "--target", target, "--deep")
        rows[Case(f"rdbkit check --target {target} --deep, compiled", deep, status=status)] = None
    medians = run_cases([*rows, yardstick], runs)
    reference = medians[yardstick.label]
    yield "| tool | user s | CPU s | wall s | peak RSS MB | times as fast | goal |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: | ---: |"
    missed: list[str] = []
    for case, goal in rows.items():
        yield f"| {case.label} | {figures(medians[case.label], reference)} | {'' if goal is None else f'{goal:.2f}'} |"
        missed += _missed(case.label, medians[case.label], reference, 0, goal)
    yield f"| {yardstick.label} | {figures(reference, reference)} | |"
    yield from missed


def _missed(label: str, usage: Usage, reference: Usage, growth: float, goal: float | None) -> Iterator[str]:
    if goal is not None and usage.user * goal > reference.user:
        yield f"\nMissed: {label}: {reference.user / usage.user:.2f} times as fast, and {goal:.2f} is the goal"
    if growth > MOST_GROWTH:
        yield f"\nMissed: {label}: {growth:.2f} times the source's size, and {MOST_GROWTH} is the goal"


def big_file(work: Path, name: str, file: bigfiles.BigFile) -> Path:
    """The path of a big file, which is made where it is missing."""
    path = work / name
    if not path.exists():
        note(f"making {path}")
        bigfiles.write(path, file)
    return path


def memory_table(compiled: Path, servers: Path, work: Path) -> Iterator[str]:
    """The lines of the table of memory, and below it what misses the goal; raises BenchError for an output that no server takes."""
    out, ledger = work / "converted.rdb", work / "ledger.jsonl"
    yield "| file | target | size MB | output MB | wall s | peak RSS MB | with a ledger |"
    yield "| --- | --- | ---: | ---: | ---: | ---: | ---: |"
    files = bigfiles.FILES | bigfiles.CONVERTED
    missed: list[str] = []
    for name, target, options in BIG_CONVERSIONS:
        path = big_file(work, name, files[name])
        note(f"converting {path}")
        command: tuple[str | Path, ...] = (compiled, "convert", path, out, "--force", "--target", target, *options.split())
        plain = measure(command, LOSSES)
        check_output(servers, target, out)
        told = measure((*command, "--ledger", ledger), LOSSES)
        yield (
            f"| {files[name].what} | {target} | {path.stat().st_size / 1e6:,.0f} | {out.stat().st_size / 1e6:,.0f} | "
            f"{plain.wall:.1f} | {plain.peak / 1e6:.1f} | {told.peak / 1e6:.1f} |"
        )
        worst = max(plain.peak, told.peak)
        if worst > MOST_MEMORY:
            missed.append(f"\nMissed: {name}: {worst / 1e6:.0f} MB, and {MOST_MEMORY / 1e6:.0f} MB is the goal")
        out.unlink()
        ledger.unlink()
    yield from missed

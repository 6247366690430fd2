"""Commands that are run in turns, and what each of them took."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

MEASURE = Path(__file__).resolve().with_name("measure.py")


class BenchError(Exception):
    """The benchmark cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Usage:
    """What one run of a command took: seconds, and bytes of memory at the peak."""

    user: float
    system: float
    wall: float
    peak: int

    @property
    def cpu(self) -> float:
        return self.user + self.system


@dataclass(frozen=True)
class Case:
    """A row of the table: a command, whether it reads so little that only its CPU seconds say something, and its exit status."""

    label: str
    command: tuple[str | Path, ...]
    brief: bool = False
    status: str = "0"


def note(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


def clean_environment() -> dict[str, str]:
    """The environment without what would choose another build, another interpreter or other modules."""
    dropped = ("RDBKIT_PURE", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in dropped}


def measure(command: Sequence[str | Path], statuses: Sequence[str] = ("0",)) -> Usage:
    """Run a command in a fresh process; raises BenchError where its exit status is none of these."""
    run = subprocess.run([sys.executable, "-I", "-S", MEASURE, *command], capture_output=True, text=True, env=clean_environment())
    if run.returncode:
        raise BenchError(f"{command[0]} does not run: {run.stderr.strip()}")
    status, user, system, wall, peak = run.stdout.split()
    if status not in statuses:
        raise BenchError(f"{' '.join(map(str, command))}: exit status {status}: {run.stderr.strip()}")
    return Usage(float(user), float(system), float(wall), int(peak) * 1024)


def server_tool(servers: Path, server: str, tool: str) -> Path:
    """The path of one of a server's programs; raises BenchError where it is not there."""
    path = servers / server / tool
    if not path.exists():
        raise BenchError(f"no {path}: get the servers with: fixtures/servers.sh {servers} {server}")
    return path


def run_cases(cases: Sequence[Case], runs: int, after: Callable[[Case], object] | None = None) -> dict[str, Usage]:
    """Each case's medians, the cases in turns; `after` is called with each case when it has run for the first time."""
    found: dict[str, list[Usage]] = {case.label: [] for case in cases}
    for number in range(runs):
        note(f"run {number + 1} of {runs}")
        for case in cases:
            found[case.label].append(measure(case.command, (case.status,)))
            if number == 0 and after is not None:
                after(case)
    return {label: _median(usages) for label, usages in found.items()}


def _median(usages: Sequence[Usage]) -> Usage:
    """The median of each figure on its own."""
    return Usage(
        median(usage.user for usage in usages),
        median(usage.system for usage in usages),
        median(usage.wall for usage in usages),
        int(median(usage.peak for usage in usages)),
    )


def figures(usage: Usage, yardstick: Usage) -> str:
    """The columns of a usage: seconds, memory, and how many times as fast as the yardstick it is."""
    times = yardstick.user / max(usage.user, 0.001)
    return f"{usage.user:.2f} | {usage.cpu:.2f} | {usage.wall:.2f} | {usage.peak / 1e6:.1f} | {times:.2f}"

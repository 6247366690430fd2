"""Runs operations on inputs in a process of its own, and tells what should not have happened.

Three things are looked at: nothing but `RdbError` comes out of an operation, and with it a text of one line; the work and memory
that it takes are bounded; and what it writes breaks no rule that the input does not break. Work is seconds of the processor and
memory is address space, both with limits that no machine's being busy brings nearer.
"""

from __future__ import annotations

import gc
import math
import multiprocessing
import resource
import shutil
import signal
import tempfile
import traceback
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import rdbkit
from tests.fuzz.inputs import resealed
from tests.fuzz.operations import OPERATIONS, OTHER, VALKEY, Outputs, Work
from tests.rdb import FIXTURES

Operation = Callable[[Work], Outputs]

CPU: Final = 30  # seconds for one operation; a slow one takes a tenth of a second
MEMORY: Final = 1 << 30  # bytes of address space beside what the process has to begin with


class Task(NamedTuple):
    """One operation on one input.

    Attributes:
        name: of the input.
        operation: a key of `OPERATIONS`.
        seed: decides the operation's options.
    """

    name: str
    operation: str
    seed: str
    data: bytes


@dataclass
class Finding:
    """What should not have happened.

    Attributes:
        kind: an exception's name and where in the library it came from, "hang", "crash" or "unsound".
        text: all that is known.
    """

    task: Task
    kind: str
    text: str

    def __str__(self) -> str:
        return f"{self.task.operation} of {self.task.name} (seed {self.task.seed!r}): {self.kind}\n{self.text}"


def broken_rules(data: bytes, folder: Path) -> set[str]:
    """Names of the rules that a file breaks; that it cannot be read at all counts as one."""
    path = folder / "verified.rdb"
    path.write_bytes(data)
    try:
        report = rdbkit.verify(path, deep=True)
    except rdbkit.RdbError as e:
        return {type(e).__name__}
    finally:
        path.unlink()
    return {violation.rule.name for violation in report.violations}


def outcome(task: Task, operation: Operation, folder: Path) -> tuple[str, str] | None:
    """Run an operation; the kind of finding and its text, or None where all is well.

    Args:
        folder: an empty one; it is empty again afterwards.
    """
    path, room = folder / "input.rdb", folder / "room"
    path.write_bytes(task.data)
    room.mkdir()
    rng = Random(task.seed)
    work = Work(path, room, FIXTURES / "rich" / (VALKEY if b"VALKEY" in task.data[:100] else OTHER), rng)
    try:
        outputs = operation(work)
        found = set(outputs) and broken_rules(task.data, folder)
        for name, data in outputs.items():
            more = broken_rules(data, folder) - found
            if more:
                return f"unsound: {', '.join(sorted(more))}", f"{name}, options {work.label}; the input breaks {sorted(found)}"
    except rdbkit.RdbError as e:
        said = str(e)
        if not said or "\n" in said or not said.isprintable():
            return "text", repr(said)
        left = sorted(path.name for path in room.rglob("*"))
        if left:
            return "left behind", f"{left}, options {work.label}, after {said}"
    except Exception as e:
        return _kind(e), f"options {work.label}\n{traceback.format_exc()}"
    finally:
        shutil.rmtree(room)
        path.unlink()
    return None


def _kind(e: BaseException) -> str:
    """The exception and the function of the library that raised it."""
    frames = traceback.extract_tb(e.__traceback__)
    inside = [frame for frame in frames if "rdbkit" in Path(frame.filename).parts]
    where = f"{Path(inside[-1].filename).name} {inside[-1].name}" if inside else "operations"
    return f"{type(e).__name__} in {where}"


def _child(link: Connection, folder: Path, operations: dict[str, Operation], cpu: int) -> None:
    """Take tasks from the parent until it closes its end of the link, and work on them in a folder that the parent removes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MEMORY, resource.RLIM_INFINITY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(EOFError):
        while True:
            task: Task = link.recv()
            used = math.ceil(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
            resource.setrlimit(resource.RLIMIT_CPU, (used + cpu, resource.RLIM_INFINITY))
            link.send(outcome(task, operations[task.operation], folder))
            gc.collect()


class Runner:
    """Runs tasks in a process that may crash or hang; a context manager.

    Args:
        operations: by the names that tasks have for them; functions that a new process can import.
        cpu: seconds of work for one task.
    """

    def __init__(self, operations: dict[str, Operation] | None = None, cpu: int = CPU) -> None:
        self.operations = OPERATIONS if operations is None else operations
        self.cpu = cpu
        self.process: multiprocessing.process.BaseProcess | None = None
        self.link: Connection | None = None
        self.folder: Path | None = None

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def stop(self) -> None:
        if self.link is not None:
            self.link.close()
        if self.process is not None:
            self.process.join()
        self.process = self.link = None
        if self.folder is not None:
            shutil.rmtree(self.folder)
            self.folder = None

    def run(self, task: Task) -> Finding | None:
        """What should not have happened, if anything."""
        if self.process is None:
            context = multiprocessing.get_context("spawn")  # which takes neither threads nor memory along
            self.link, other = context.Pipe()
            self.folder = Path(tempfile.mkdtemp(prefix="rdbkit-fuzz-"))
            self.process = context.Process(target=_child, args=(other, self.folder, self.operations, self.cpu), daemon=True)
            self.process.start()
            other.close()
        assert self.link is not None
        try:
            self.link.send(task)
            found = self.link.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode
            self.stop()
            kind = "hang" if code == -signal.SIGXCPU else "crash"
            return Finding(task, kind, f"the process ended with {code}")
        return None if found is None else Finding(task, *found)


def run(tasks: Iterable[Task], report: Callable[[Finding], object]) -> int:
    """Run tasks, each kind of finding reported once; how many tasks there were."""
    told: set[tuple[str, str]] = set()
    count = 0
    with Runner() as runner:
        for task in tasks:
            count += 1
            found = runner.run(task)
            if found is not None and (found.kind, task.operation) not in told:
                told.add((found.kind, task.operation))
                report(found)
    return count


def minimised(finding: Finding, runner: Runner, most: int = 1500) -> Finding:
    """The same finding from an input as small as can be found in so many tries."""
    best = finding
    tries = 0

    def holds(data: bytes) -> bool:
        nonlocal best, tries
        tries += 1
        found = runner.run(finding.task._replace(data=data))
        if found is None or found.kind != finding.kind:
            return False
        best = found
        return True

    size = max(len(best.task.data) // 2, 1)
    while size and tries < most:
        at = 9
        while at < len(best.task.data) and tries < most:
            data = best.task.data
            shorter = data[:at] + data[at + size :]
            if not (holds(shorter) or (len(shorter) > 17 and holds(resealed(shorter)))):
                at += size
        size //= 2
    return best

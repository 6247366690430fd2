"""A small part of the search that `python -m tests.fuzz` continues, the same in every run, and what it has found so far."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

import rdbkit
from tests.fuzz.inputs import CASES, input_of
from tests.fuzz.mutate import mutant, parts, source, sources
from tests.fuzz.operations import OPERATIONS, Outputs, Work, chosen
from tests.fuzz.run import Runner, Task, minimised

from .rdb import DUMPS, one_in

FINDINGS = Path(__file__).resolve().parent / "fuzz" / "findings"


@pytest.fixture(scope="module")
def runner() -> Iterator[Runner]:
    """One for all tests, since its process takes a while to begin."""
    with Runner() as found:
        yield found


def looked_at(tasks: list[Task], runner: Runner) -> list[str]:
    return [str(found) for task in tasks if (found := runner.run(task)) is not None]


@pytest.mark.parametrize("part", one_in(8, range(8)))
def test_inputs_of_the_first_seed(part: int, runner: Runner) -> None:
    tasks = []
    for number in range(part, 160, 8):
        made = input_of(0, number)
        for place, name in enumerate(OPERATIONS if number % 32 == part else chosen(Random(number), 3)):
            tasks.append(Task(f"0/{number} ({made.how})", name, f"0 {number} {place}", made.data))
    assert looked_at(tasks, runner) == []


@pytest.mark.parametrize("seed", one_in(4, range(4)))
@pytest.mark.parametrize("operation", OPERATIONS)
def test_what_was_found_stays_mended(operation: str, seed: int, runner: Runner) -> None:
    """Each operation on each file that any of them did not stand, with options of several seeds."""
    tasks = []
    for path in sorted(FINDINGS.glob("*")):
        if path.suffix in (".rdb", ".gz"):
            tasks.append(Task(path.name, operation, f"{seed} {path.name}", path.read_bytes()))
    assert looked_at(tasks, runner) == []


@pytest.mark.parametrize("encoding", sorted({case.encoding for case in CASES if case.type not in ("file", "module")}))
def test_the_sound_twins_of_damaged_values_are_sound(encoding: str) -> None:
    for case in CASES:
        if case.encoding == encoding and case.damage.startswith("sound"):
            assert rdbkit.verify(io.BytesIO(case.data), deep=True).sound, case.name


def test_every_fixture_is_cut_into_its_records() -> None:
    assert set(sources()) == set(DUMPS)
    for path in DUMPS:
        origin = source(path)
        for _, _, kind, _, value in origin.records:
            nodes, end = parts(origin.layouts[kind].layout, value)
            assert end == len(value)
            assert b"".join(map(bytes, nodes)) == value


def test_a_number_gives_the_same_file_every_time() -> None:
    path = sources()[7]
    assert mutant(path, 5) == mutant(path, 5)
    assert input_of(3, 8).data == input_of(3, 8).data
    assert len({mutant(path, number).data for number in range(50)}) == 50


def fails(work: Work) -> Outputs:
    raise KeyError("x")


def fails_at_x_and_y(work: Work) -> Outputs:
    if re.search(rb"x.*y", work.path.read_bytes(), re.DOTALL):
        raise KeyError("x")
    return {}


def writes_nonsense(work: Work) -> Outputs:
    return {"out": b"REDIS0011\xfe\0\x01\x01k\0\xff" + bytes(8)}


def leaves_a_file(work: Work) -> Outputs:
    (work.folder / "half").touch()
    raise rdbkit.CorruptError("no more")


def says_two_lines(work: Work) -> Outputs:
    raise rdbkit.CorruptError("one\ntwo")


def hangs(work: Work) -> Outputs:
    while True:
        pass


def takes_all_memory(work: Work) -> Outputs:
    return {"out": bytes(1 << 34)}


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        (fails, "KeyError in operations"),
        (writes_nonsense, "unsound: empty"),
        (leaves_a_file, "left behind"),
        (says_two_lines, "text"),
        (hangs, "hang"),
        (takes_all_memory, "MemoryError in operations"),
    ],
)
def test_what_should_not_happen_is_told(operation: Callable[[Work], Outputs], kind: str) -> None:
    with Runner({"one": operation}, cpu=1) as runner:
        found = runner.run(Task("input", "one", "0", b"REDIS0011\xff" + bytes(8)))
    assert found is not None
    assert found.kind == kind


def test_the_smallest_input_is_found() -> None:
    task = Task("input", "one", "0", b"REDIS0011" + b"a" * 300 + b"x" + b"b" * 200 + b"y" + b"c" * 50)
    with Runner({"one": fails_at_x_and_y}) as runner:
        found = runner.run(task)
        assert found is not None
        assert minimised(found, runner).task.data == b"REDIS0011xy"

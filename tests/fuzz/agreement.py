"""Whether `check` and `convert` agree with real servers about damaged files: `python -m tests.fuzz.agreement --help`.

Two things must never be: that `check --deep` calls a file good as it is and the server does not load and serve it, and that
`convert --deep` writes a file which its server does not. The other way round, a file that is refused here though the server loads
it, is counted by its reason.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import rdbkit
from rdbkit.operations.check import AS_IT_IS
from rdbkit.operations.check import check as run_check
from rdbkit.targets.target import find_target
from tests.fuzz.directed import cases
from tests.fuzz.mutate import mutants
from tests.fuzz.oracle import LINES, Server, Verdict

EVERY = 4  # of the files that are refused here, each fourth is shown to the server


@dataclass
class Agreement:
    """What came of the files for one line of servers.

    Attributes:
        approved, written: how many files `check` approved of, and how many `convert` converted.
        refused: how many files neither would have, of those that were shown to the server all the same.
        loaded: of these, how many the server loads and serves, by the reason of the refusal.
        dangerous: each file on which the server disagrees with an approval, in words.
    """

    line: str
    approved: int = 0
    written: int = 0
    refused: int = 0
    loaded: Counter[str] = field(default_factory=Counter)
    dangerous: list[str] = field(default_factory=list)

    def add(self, other: Agreement) -> None:
        self.approved += other.approved
        self.written += other.written
        self.refused += other.refused
        self.loaded += other.loaded
        self.dangerous += other.dangerous


def checked(data: bytes, line: str) -> str:
    """The reason why `check --deep` does not approve of a file as it is; empty where it does."""
    try:
        with rdbkit.open(io.BytesIO(data)) as snapshot:
            report = run_check(snapshot, find_target(line), deep=True)
    except rdbkit.RdbError as e:
        return e.rule or type(e).__name__
    if report.verdict == AS_IT_IS:
        return ""
    return next((finding.code for finding in report.findings if finding.severity == "blocker"), report.verdict)


def converted(data: bytes, line: str) -> tuple[bytes, int] | None:
    """What `convert --deep` writes with every loss allowed, and how many of its keys a server has then; None where it refuses."""
    out = io.BytesIO()
    try:
        rdbkit.convert(io.BytesIO(data), out, target=line, policies=rdbkit.Policies(loss="drop"), deep=True)
    except rdbkit.RdbError:
        return None
    made = out.getvalue()
    with rdbkit.open(io.BytesIO(made)) as snapshot:
        return made, sum(not _stays_away(record, time.time() * 1000) for record in snapshot)


def _stays_away(record: rdbkit.Record, now_ms: float) -> bool:
    """Whether servers leave a key out: it is past, or all of its fields are, or it has no elements."""
    if record.expire_ms is not None and record.expire_ms <= now_ms:
        return True
    if record.type in ("list", "set", "zset", "hash") and not record.value:
        return True
    times = record.value.field_expire_ms if record.type == "hash" else {}
    return bool(times) and len(times) == len(record.value) and max(times.values()) <= now_ms


def measured(line: str, servers: Path, files: Iterable[tuple[str, bytes]]) -> Agreement:
    """Ask this line's server about each file (name, bytes) and about what is made of it."""
    found = Agreement(line)
    with Server(servers / line / "redis-server") as server:
        for number, (name, data) in enumerate(files):
            reason = checked(data, line)
            made = converted(data, line)
            said: Verdict | None = None
            if not reason or number % EVERY == 0:
                said = server.ask(data)
            if not reason:
                found.approved += 1
                if said is not None and not said.good:
                    found.dangerous.append(f"{line} {said.state} what check approves of: {name} ({said.reason})")
            if made is not None and made[0] != data:
                found.written += 1
                written = server.ask(made[0])
                if not written.good or written.keys < made[1]:
                    how = f"{written.state} with {written.keys} of {made[1]} keys"
                    found.dangerous.append(f"{line} {how} what convert wrote: {name} ({written.reason})")
            if reason and said is not None:
                found.refused += 1
                if said.good:
                    found.loaded[reason] += 1
    return found


def files(mutated: int, with_directed: bool) -> list[tuple[str, bytes]]:
    """Damaged files, with what was done to them; without what only a server can tell, such as of values of modules."""
    found = [(f"{made.name}: {made.damage}", made.data) for made in mutants(mutated) if made.type != "module"]
    if with_directed:
        found += [(case.name, case.data) for case in cases() if not case.damage.startswith("beyond")]
    return found


def _share(line: str, servers: Path, mutated: int, with_directed: bool, part: int, parts: int) -> Agreement:
    return measured(line, servers, files(mutated, with_directed)[part::parts])


def agreements(
    servers: Path, mutated: int, *, with_directed: bool = False, lines: Sequence[str] = LINES, processes: int = 2
) -> list[Agreement]:
    """Of each line, over so many mutated files and at will the directed ones; each file is shown to each line."""
    parts = 4
    found = {line: Agreement(line) for line in lines}
    with ProcessPoolExecutor(processes) as pool:
        waiting = [
            pool.submit(_share, line, servers, mutated, with_directed, part, parts) for line in lines for part in range(parts)
        ]
        for each in waiting:
            done = each.result()
            found[done.line].add(done)
    return list(found.values())


def report(found: Sequence[Agreement], count: int) -> str:
    """The figures, in a table and by reason."""
    lines = [f"{count} damaged files, each shown to {len(found)} servers", ""]
    lines.append(f"{'server':12} {'approved':>9} {'written':>9} {'wrongly':>9} {'refused':>9} {'of them loaded':>15}")
    for each in found:
        loaded = sum(each.loaded.values())
        rate = f"{loaded} ({100 * loaded / max(each.refused, 1):.1f} %)"
        lines.append(f"{each.line:12} {each.approved:9} {each.written:9} {len(each.dangerous):9} {each.refused:9} {rate:>15}")
    for each in found:
        if each.loaded:
            reasons = ", ".join(f"{reason} {n}" for reason, n in each.loaded.most_common())
            lines += ["", f"{each.line} loads, of what is refused for: {reasons}"]
    for each in found:
        lines += ["", *each.dangerous] if each.dangerous else []
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.agreement", description=__doc__)
    parser.add_argument("--servers", type=Path, required=True, help="the folder that fixtures/servers.sh filled")
    parser.add_argument("--inputs", type=int, default=3050, help="mutated files; 3,050 by default, 50 of each fixture")
    parser.add_argument("--directed", action="store_true", help="the files of tests/fuzz/directed.py too")
    parser.add_argument("--line", action="append", choices=LINES, help="of this line; may be repeated")
    args = parser.parse_args()
    found = agreements(args.servers, args.inputs, with_directed=args.directed, lines=args.line or LINES)
    print(report(found, len(files(args.inputs, args.directed))))
    return 1 if any(each.dangerous for each in found) else 0


if __name__ == "__main__":
    sys.exit(main())

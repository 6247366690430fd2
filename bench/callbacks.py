#!/usr/bin/env python3
"""What programs written for rdbtools take with it and with `rdbkit.compat.rdbtools`: `bench/callbacks.py DUMP`, a Markdown table.

DUMP is of RDB 9 or older, which rdbtools reads: `rdbkit convert --target azure-premium` makes one of the benchmark's. `--rdbtools`
names an interpreter with rdbtools 0.1.15 and python-lzf, without which it unpacks in Python; `--rdbkit` one with rdbkit.
"""

from __future__ import annotations

import argparse
import os
import sys
import types
from importlib import import_module
from pathlib import Path
from typing import Any

if __package__ in (None, ""):
    sys.path.append(str(Path(__file__).resolve().parents[1]))

PROGRAMS = {
    "a method for each call, which counts": "count",
    "strings alone": "strings",
    "`JSONCallback`": "json",
    "`ProtocolCallback`": "protocol",
    "`MemoryCallback` with `PrintAllKeys`": "memory",
}
_METHODS = (
    "set", "start_hash", "hset", "end_hash", "start_set", "sadd", "end_set", "start_list", "rpush", "end_list", "start_sorted_set",
    "zadd", "end_sorted_set", "start_stream", "stream_listpack", "end_stream",
)  # fmt: skip


def counting(base: Any, methods: tuple[str, ...]) -> Any:
    """A callback that counts its calls."""

    class Counting(base):  # type: ignore[misc]
        calls = 0

    def method(self: Any, *args: object, **named: object) -> None:
        self.calls += 1

    for name in methods:
        setattr(Counting, name, method)
    return Counting(None)


def run_program(package: str, program: str, dump: str) -> None:
    """Run one of the programs in this process."""
    if package == "rdbtools":
        # gone since Python 3.12; rdbtools imports it
        versions: Any = types.ModuleType("distutils.version")
        versions.StrictVersion = lambda text: tuple(map(int, text.split(".")))
        sys.modules["distutils"] = types.ModuleType("distutils")
        sys.modules["distutils.version"] = versions
    tools = import_module(package)
    with open(os.devnull, "wb") as out:
        if program == "count":
            callback = counting(tools.RdbCallback, _METHODS)
        elif program == "strings":
            callback = counting(tools.RdbCallback, ("set",))
        elif program == "memory":
            callback = tools.MemoryCallback(tools.PrintAllKeys(out, None, None), 64)
        else:
            callback = (tools.JSONCallback if program == "json" else tools.ProtocolCallback)(out)
        tools.RdbParser(callback).parse(dump)
    if program == "count":
        print(f"{callback.calls:,} calls", file=sys.stderr)


def main() -> int:
    if sys.argv[1:2] == ["--one"]:
        run_program(*sys.argv[2:])
        return 0
    from bench.cases import Case, figures, run_cases

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("dump", type=Path)
    parser.add_argument("--rdbtools", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--rdbkit", default=sys.executable, metavar="PYTHON")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--only", choices=sorted(PROGRAMS.values()))
    options = parser.parse_args()
    programs = [(label, name) for label, name in PROGRAMS.items() if options.only in (None, name)]
    tools = (("rdbtools", options.rdbtools, "rdbtools"), ("rdbkit", options.rdbkit, "rdbkit.compat.rdbtools"))
    cases = [
        Case(f"{label}, {tool}", (python, "-W", "ignore", Path(__file__).resolve(), "--one", package, name, options.dump))
        for label, name in programs
        for tool, python, package in tools
    ]
    found = run_cases(cases, options.runs)
    print("| program | user s | CPU s | wall s | peak RSS MB | times as fast as rdbtools |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for label, _ in programs:
        for tool, _, _ in tools:
            print(f"| {label}, {tool} | {figures(found[f'{label}, {tool}'], found[f'{label}, rdbtools'])} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())

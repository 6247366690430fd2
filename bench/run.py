#!/usr/bin/env python3
"""Time verbs of rdbkit beside `redis-check-rdb` on the same dump, and print the figures as Markdown tables.

rdbkit is installed twice from a copy of this checkout, compiled and pure, each in a virtual environment of its own. The
tools take turns, so that whatever else the machine does falls on all of them; every run is a fresh process, and every
figure is the median of its runs.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench import bigfiles, conversions, dataset, parts
from bench.cases import BenchError, Case, clean_environment, figures, measure, note, run_cases, server_tool
from fixtures.server import Refused, ServerError

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
SMALL_FILE = ROOT / "fixtures" / "rich" / "redis-7.0.15.rdb"
SERVER = "redis-7.0"
NEWER_SERVER = "valkey-8.1"
"""Writes the dump that is converted: RDB 11, as Redis 7.2 does."""
PACKAGE = "rdbkit"
VERBS = ("info", "keys --format csv", "memory --target azure-premium", "export --format jsonl")
"""What is timed, each with the dump as its last argument and its output thrown away."""
DECODING = "export --format jsonl"
"""The verb that unpacks LZF; timed with the extra for that, too."""
LZF_FORM = "pure+lzf"
LEFTOVERS = shutil.ignore_patterns("*.so", "__pycache__")
"""What an earlier build left in the source tree, and a clean copy must not have."""


def copy_source(folder: Path) -> None:
    """Copy what the project is built from, the package and the files beside it, into a new folder."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(ROOT / PACKAGE, folder / PACKAGE, ignore=LEFTOVERS)
    for path in ROOT.iterdir():
        if path.is_file() and path.suffix != ".so":
            shutil.copyfile(path, folder / path.name)


def install(work: Path, form: str) -> Path:
    """Install the project in a new environment; returns the path of its rdbkit.

    `form` is compiled, pure, or "pure+lzf" for the pure one with the extra that unpacks LZF in C.
    """
    note(f"installing rdbkit, {form}")
    source, environment = work / f"source-{form}", work / f"venv-{form}"
    copy_source(source)
    venv.create(environment, clear=True, with_pip=True)
    variables = clean_environment() | ({"RDBKIT_PURE": "1"} if form.startswith("pure") else {})
    wanted = f"{source}[lzf]" if form == LZF_FORM else source
    command: list[str | Path] = [environment / "bin" / "python", "-m", "pip", "install", "--quiet", wanted]
    run = subprocess.run(command, capture_output=True, text=True, env=variables)
    if run.returncode:
        raise BenchError(f"pip install of the {form} form failed:\n{run.stdout}{run.stderr}")
    return environment / "bin" / "rdbkit"


def check_form(rdbkit: Path, form: str) -> None:
    """Raise BenchError unless this rdbkit says of itself that it is compiled or pure, as `form` has it."""
    try:
        run = subprocess.run([rdbkit, "--version"], capture_output=True, text=True, env=clean_environment())
    except OSError as error:
        raise BenchError(f"{rdbkit} does not run: {error}") from error
    said = (run.stdout + run.stderr).strip()
    if run.returncode or form not in said:
        raise BenchError(f"{rdbkit} --version does not say {form}: {said!r}")


def prepare_dataset(servers: Path, path: Path) -> None:
    """Make the dump where it is missing, and read it once so that no tool pays for the disk alone."""
    if not path.exists():
        note(f"making the dataset {path}")
        dataset.make(server_tool(servers, SERVER, "redis-server"), path)
    _read(path)


def prepare_newer_dataset(servers: Path, path: Path, older: Path) -> None:
    """The same for the dump that is converted, which holds what the other one does."""
    if not path.exists():
        prepare_dataset(servers, older)
        note(f"making the dataset {path}")
        dataset.save_again(server_tool(servers, NEWER_SERVER, "redis-server"), older, path)
    _read(path)


def _read(path: Path) -> None:
    with path.open("rb") as file:
        while file.read(1 << 20):
            pass


def speed_table(compiled: Path, pure: Path, with_lzf: Path, check: Path, data: Path, runs: int) -> Iterator[str]:
    """The lines of the table of speed."""
    yardstick = Case("redis-check-rdb", (check, data))
    forms = (("compiled", compiled), ("pure", pure))
    cases = [
        *(Case(f"rdbkit {verb}, {form}", (path, *verb.split(), data)) for verb in VERBS for form, path in forms),
        Case(f"rdbkit {DECODING}, {LZF_FORM}", (with_lzf, *DECODING.split(), data)),
        yardstick,
        *(Case(f"rdbkit --version, {form}", (path, "--version"), brief=True) for form, path in forms),
        *(Case(f"rdbkit info of 20 KB, {form}", (path, "info", SMALL_FILE), brief=True) for form, path in forms),
    ]
    medians = run_cases(cases, runs)
    yield "| tool | user s | CPU s | wall s | peak RSS MB | times as fast |"
    yield "| --- | ---: | ---: | ---: | ---: | ---: |"
    for case in cases:
        usage = medians[case.label]
        if case.brief:
            yield f"| {case.label} | | {usage.cpu:.3f} | | | |"
        else:
            yield f"| {case.label} | {figures(usage, medians[yardstick.label])} |"


def memory_table(compiled: Path, check: Path, work: Path) -> Iterator[str]:
    """The lines of the table of memory; redis-check-rdb is there to show that a server takes the files, too."""
    verbs = (*VERBS, "export --format resp")
    yield f"| file | size MB | {' | '.join(f'rdbkit {verb}, peak RSS MB' for verb in verbs)} | redis-check-rdb, peak RSS MB |"
    yield f"| --- | ---: |{' ---: |' * len(verbs)} ---: |"
    for name, file in bigfiles.FILES.items():
        path = conversions.big_file(work, name, file)
        note(f"reading {path}")
        peaks = [measure((compiled, *verb.split(), path)).peak for verb in verbs] + [measure((check, path)).peak]
        yield f"| {file.what} | {path.stat().st_size / 1e6:,.0f} | {' | '.join(f'{peak / 1e6:.1f}' for peak in peaks)} |"


@contextmanager
def work_folder(chosen: Path | None) -> Iterator[Path]:
    """The folder that was chosen, which stays, or one that does not."""
    if chosen is None:
        with tempfile.TemporaryDirectory(prefix="rdbkit-bench-") as folder:
            yield Path(folder).resolve()
    else:
        chosen.mkdir(parents=True, exist_ok=True)
        yield chosen.resolve()


def benchmark(options: argparse.Namespace) -> None:
    """Prepare what is missing, run, and print; raises BenchError."""
    check = server_tool(options.servers, SERVER, "redis-check-rdb")
    reads, converts, divides = (options.only in (None, name) for name in ("read", "convert", "parts"))
    with work_folder(options.work) as work:
        compiled = options.compiled or install(work, "compiled")
        check_form(compiled, "compiled")
        pure = options.pure or install(work, "pure")
        check_form(pure, "pure")
        with_lzf = options.pure_lzf or install(work, LZF_FORM)
        check_form(with_lzf, "pure")
        data = options.dataset or work / "dataset.rdb"
        newer = options.convert_dataset or work / "dataset-rdb11.rdb"
        if reads:
            prepare_dataset(options.servers, data)
            _print(speed_table(compiled, pure, with_lzf, check, data, options.runs))
        if converts:
            prepare_newer_dataset(options.servers, newer, data)
            forms = {"compiled": compiled, "pure": pure, LZF_FORM: with_lzf}
            _print(conversions.speed_table(forms, options.servers, newer, work, options.runs))
            _print(conversions.check_table(forms, options.servers, newer, options.runs))
        if divides:
            prepare_dataset(options.servers, data)
            _print(parts.goal_table({"compiled": compiled, "pure": pure}, options.servers, data, work, options.runs))
        if options.memory and reads:
            _print(memory_table(compiled, check, work))
        if options.memory and converts:
            _print(conversions.memory_table(compiled, options.servers, work))


def _print(lines: Iterator[str]) -> None:
    for line in lines:
        print(line, flush=True)
    print(flush=True)


def _positive(number: str) -> int:
    if int(number) < 1:
        raise ValueError
    return int(number)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time rdbkit, compiled and pure, beside redis-check-rdb.")

    def path_option(name: str, explanation: str, default: Path | None = None) -> None:
        parser.add_argument(name, type=Path, metavar="PATH", default=default, help=explanation)

    path_option("--servers", "where fixtures/servers.sh unpacked (default: .servers)", ROOT / ".servers")
    path_option("--dataset", "the dump to read; made where missing (default: in the work folder)")
    path_option("--convert-dataset", "the dump to convert, RDB 11; made of the other where missing (default: in the work folder)")
    path_option("--work", "folder for environments and data, kept (default: temporary)")
    path_option("--compiled", "a compiled rdbkit instead of installing one")
    path_option("--pure", "a pure rdbkit instead of installing one")
    path_option("--pure-lzf", "a pure rdbkit with the extra lzf instead of installing one")
    parser.add_argument("--runs", type=_positive, default=5, help="runs of each command (default: %(default)s)")
    parser.add_argument("--only", choices=("read", "convert", "parts"), help="only the tables of some verbs")
    parser.add_argument("--memory", action="store_true", help="also measure memory on big files (9 GB in the work folder)")
    options = parser.parse_args()
    try:
        benchmark(options)
    except (BenchError, Refused, ServerError, OSError) as error:
        sys.exit(f"run.py: {error}")


if __name__ == "__main__":
    main()

"""`rdbkit verify`."""

from __future__ import annotations

import json
from typing import Final

import click

from rdbkit.cli.files import READ_ONCE, Verb
from rdbkit.cli.options import MOST_JOBS
from rdbkit.cli.render import Output, key_name, output, printable, progress, size
from rdbkit.errors import RdbError, TargetError
from rdbkit.operations.verify import Fault, Verification
from rdbkit.operations.verify import verify as prove
from rdbkit.storage.location import file_size
from rdbkit.text import count

_CHECKSUMS: Final = {
    "disabled": "none: the server that wrote it was told not to make one",
    "absent": "none: this version has none",
    "mismatch": "differs",
    "unknown": "not reached",
}


@click.command(cls=Verb)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=READ_ONCE)
@click.option("--deep", is_flag=True, help="Look into every value, as the strictest servers do, and further.")
@click.option("--samples", type=click.IntRange(0, 10_000), default=3, show_default=True, metavar="N", help="Name N places a rule.")
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
@click.option(
    "--jobs", type=click.IntRange(1, MOST_JOBS), default=1, show_default=True, metavar="N",
    help="Of --deep: look into values in N processes.",
)  # fmt: skip
@click.option("--relaxed", is_flag=True, help="Try RDB versions that are newer than this release knows.")
def verify(files: tuple[str, ...], deep: bool, samples: int, as_json: bool, jobs: int, relaxed: bool) -> int:
    """Whether snapshots are sound, as far as the file can tell.

    FILE is a path or - for standard input, compressed or not. Exit code 0 if every FILE is sound, 1 if something is wrong with
    one, 3 if one cannot be opened or is no snapshot. What can be saved of a damaged file, rdbkit salvage saves.
    """
    if jobs > 1 and not deep:
        raise click.UsageError("--jobs is for --deep")
    reports = []
    failed = 0
    for name in files:
        try:
            with progress(name, file_size(name)) as update:
                reports.append(prove(name, deep=deep, samples=samples, relaxed=relaxed, jobs=jobs, progress=update))
        except (RdbError, OSError) as e:
            if len(files) == 1:
                raise
            failed = max(failed, 4 if isinstance(e, TargetError) else 3)  # of the other files something can be said
            click.echo(f"rdbkit: {printable(str(e) if isinstance(e, RdbError) else f'{name}: {e.strerror}')}", err=True)
    if as_json:
        click.echo(json.dumps({"files": [report.to_dict() for report in reports]}, ensure_ascii=False))
    else:
        out = output()
        for report in reports:
            _show(report, out)
    return failed or (0 if all(report.sound for report in reports) else 1)


def _show(report: Verification, out: Output) -> None:
    name = printable(report.file)
    broken = len(report.violations)
    out.heading(f"{name} is sound" if report.sound else f"{name}: {count(broken, 'rule')} of the format broken")
    looked = "framing, checksum, and every value" if report.deep else "framing and checksum; --deep looks into values"
    rows = [
        ("format", report.header),
        ("looked at", looked),
        ("keys", f"{report.keys:,}"),
        ("size", size(report.size)),
        ("checksum", _CHECKSUMS.get(report.checksum, report.checksum)),
    ]
    if not report.whole:
        rows.append(("read", f"up to byte {report.size:,} only: what follows could not be told apart"))
    rows += [("note", note) for note in report.notes]
    out.facts(rows)
    if report.sound:
        return
    findings = [(v.rule.code, v.rule.name, f"{v.count:,}", v.rule.text) for v in report.violations]
    out.table("Findings", ("code", "rule", "places", "which says that"), findings)
    for violation in report.violations:
        if violation.samples:
            out.line(f"\n{violation.rule.code} {violation.rule.name}")
            out.facts([*(_place(fault) for fault in violation.samples), ("source", violation.rule.source)])


def _place(fault: Fault) -> tuple[str, str]:
    where = []
    if fault.key is not None:
        where.append(key_name(fault.key))
    if fault.db is not None:
        where.append(f"(db {fault.db})")
    if fault.offset is not None:
        where.append(f"at byte {fault.offset:,}")
    text = " ".join(where)
    return "key" if fault.key is not None else "place", f"{text}: {printable(fault.message, 160)}" if text else fault.message

"""`rdbkit check`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any, Final

import click

import rdbkit
from rdbkit.cli.append_only import allows_base
from rdbkit.cli.files import READ_ONCE, Verb
from rdbkit.cli.options import target_options
from rdbkit.cli.render import RUN_FIRST, Output, output, printable, progress, size
from rdbkit.operations.check import AS_IT_IS, CANNOT, ONE_SHARD, Check, Finding, check_shards
from rdbkit.operations.check import check as check_snapshot
from rdbkit.operations.duplicates import Duplicates, find_duplicates
from rdbkit.operations.shards import in_words
from rdbkit.storage.location import file_size, is_rereadable
from rdbkit.storage.source import Rereading
from rdbkit.targets.target import Sku, Target
from rdbkit.text import count, valid_text

#: GitHub's levels of annotations.
_LEVELS: Final = {"blocker": "error", "loss": "error", "warning": "warning", "note": "notice"}


@click.command(cls=Verb)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=READ_ONCE)
@target_options
@click.option("--clustered", is_flag=True, help="The target is a cluster, which has database 0 alone.")
@click.option("--databases", type=click.IntRange(1), metavar="N", help="The target is configured for N databases.")
@click.option("--deep", is_flag=True, help="Open every value: the only way to be certain that TARGET loads them all.")
@click.option("--duplicates", is_flag=True, help="Look for keys that are in several FILEs, and how they spread over hash slots.")
@click.option("--samples", type=click.IntRange(0, 1000), default=3, show_default=True, metavar="N", help="Name N keys a finding.")
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
@click.option(
    "--format", "format_", type=click.Choice(["text", "github"]), default="text", show_default=True,
    help="github: annotations for a workflow's log.",
)  # fmt: skip
@click.option("--relaxed", is_flag=True, help="Try RDB versions that are newer than this release knows.")
def check(
    files: tuple[str, ...],
    target: Target,
    sku: Sku | None,
    clustered: bool,
    databases: int | None,
    deep: bool,
    duplicates: bool,
    samples: int,
    as_json: bool,
    format_: str,
    relaxed: bool,
) -> int:
    """Whether TARGET imports snapshots, and what would be lost.

    FILE is a path or - for standard input, compressed or not. Name all files of a cluster: a shard that is missing is told.
    Exit code 0 only if every FILE imports as it is; 1 if there is something to do, or FILE is damaged; 3 if FILE cannot be
    opened or is no snapshot.
    """
    if duplicates and not all(map(is_rereadable, files)):
        raise click.UsageError("--duplicates reads each FILE twice: they have to be files")
    reports: list[Check] = []
    rereading = Rereading() if duplicates else None
    for name in files:
        with rdbkit.open(name, relaxed=relaxed, rereading=rereading) as snapshot, progress(name, file_size(name)) as update:
            reports.append(
                check_snapshot(
                    snapshot,
                    target,
                    sku=sku,
                    clustered=clustered,
                    databases=databases,
                    deep=deep,
                    samples=samples,
                    allow_base=allows_base() or None,
                    progress=update,
                )
            )
    together = check_shards(reports) if len(reports) > 1 else []
    if len(reports) > 1:  # what each is alone does not matter then
        for report in reports:
            report.findings = [finding for finding in report.findings if finding.code != ONE_SHARD]
    twice = find_duplicates(files, relaxed=relaxed, samples=samples, rereading=rereading) if duplicates else None
    if as_json:
        _print_json(reports, together, twice)
    elif format_ == "github":
        for report in reports:
            _annotate(report)
        for finding in together:
            _annotate_finding(finding, "")
    else:
        _show_all(reports, together, twice, target, output())
    clean = all(report.verdict == AS_IT_IS for report in reports) and (twice is None or not twice.keys)
    return 0 if clean else 1


def _print_json(reports: list[Check], together: list[Finding], twice: Duplicates | None) -> None:
    everything: dict[str, Any] = {"files": [_as_json(report) for report in reports]}
    if len(reports) > 1:
        everything["findings"] = [asdict(finding) for finding in together]
    if twice is not None:
        everything["duplicates"] = twice.to_dict()
    click.echo(json.dumps(everything, ensure_ascii=False))


def _show_all(reports: list[Check], together: list[Finding], twice: Duplicates | None, target: Target, out: Output) -> None:
    for report in reports:
        _show(report, target, out)
    if together:
        out.heading("\nAll files together")
        out.table("Findings", *_table(together))
        for finding in together:
            _write_finding(finding, out)
    if twice is not None:
        _show_duplicates(twice, out)


def _show(report: Check, target: Target, out: Output) -> None:
    out.heading(f"{printable(report.file)}: {report.summary}")
    facts = [("format", report.header), ("keys", f"{report.keys:,}, {size(report.bytes)} in the file")]
    if report.deep:
        facts.append(("values", "all opened"))
    if report.slots is not None:
        facts.append(("hash slots", in_words(report.slots)))
    if report.verdict not in (AS_IT_IS, CANNOT):
        facts.append((RUN_FIRST, report.command))
    out.facts(facts)
    if not report.findings:
        return
    out.table("Findings", *_table(report.findings))
    for finding in report.findings:
        _write_finding(finding, out)
    deletes = target.facts.get("import_deletes")
    if deletes is not None and deletes.value and report.verdict != CANNOT:
        out.line("\nAn import first deletes what is in the cache.")


def _table(findings: list[Finding]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Head and rows."""
    return ("code", "severity", "what", "what helps"), [(f.code, f.severity, printable(f.title), f.fix) for f in findings]


def _write_finding(finding: Finding, out: Output) -> None:
    if not finding.why and not finding.samples:
        return
    out.line(f"\n{finding.code} {printable(finding.title)}")
    facts = []
    if finding.why:
        facts.append(("why", finding.why))
    if finding.keys:
        facts.append(("keys", f"{finding.keys:,}, {size(finding.bytes)} in the file"))
    facts += [("key" if s.key else "place", _place(s.db, s.key, s.offset)) for s in finding.samples]
    if finding.source:
        facts.append(("source", finding.source))
    out.facts(facts)


def _place(db: int, key: bytes, offset: int) -> str:
    return f"{printable(key, 60)} (db {db}, at byte {offset:,})" if key else f"at byte {offset:,}"


def _annotate(report: Check) -> None:
    """One workflow command a finding, and one for the verdict."""
    name = f"file={_escaped(printable(report.file)).replace(':', '%3A').replace(',', '%2C')},"
    for finding in report.findings:
        _annotate_finding(finding, name)
    level = "notice" if report.verdict == AS_IT_IS else "error"
    click.echo(f"::{level} {name}title=rdbkit check::{_escaped(report.summary)}")


def _annotate_finding(finding: Finding, name: str) -> None:
    fix = f"; {finding.fix}" if finding.fix else ""
    click.echo(f"::{_LEVELS[finding.severity]} {name}title={finding.code}::{_escaped(printable(finding.title + fix))}")


def _escaped(text: str) -> str:
    """One line, with what the format gives a meaning escaped."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _show_duplicates(twice: Duplicates, out: Output) -> None:
    if twice.keys:
        out.heading(f"\n{count(twice.keys, 'key')} in more than one place: a server that loads both stops")
        rows = [
            (printable(d.key, 60), str(d.db), ", ".join(f"{printable(f)} at {o:,}" for f, o in d.places)) for d in twice.samples
        ]
        out.table("For instance", ("key", "db", "where"), rows)
    else:
        out.heading("\nNo key is there twice")
    out.facts([
        ("hash slots", f"{twice.slots:,} of 16,384 have keys"),
        ("fullest", f"slot {twice.fullest[0]} with {twice.fullest[1]:,} keys"),
    ])  # fmt: skip


def _as_json(report: Check) -> dict[str, Any]:
    found = report.to_dict()
    found["file"] = valid_text(report.file)
    found["verdict_text"] = report.summary
    if report.verdict not in (AS_IT_IS, CANNOT):
        found["command"] = report.command
    return found

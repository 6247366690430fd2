"""`rdbkit info`."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import click

import rdbkit
from rdbkit.cli.files import READ_ONCE, Verb, written
from rdbkit.cli.options import selection_options, warn_if_none
from rdbkit.cli.render import Output, complain, libraries, output, printable, progress, size, when
from rdbkit.model import TRAILERS
from rdbkit.operations.info import EXPIRY_BUCKETS, Info
from rdbkit.operations.info import info as read_info
from rdbkit.products import described
from rdbkit.selection import Selection
from rdbkit.text import count

_LATER = {
    "expired": "expired",
    "1h": "within 1 h",
    "1d": "1 day",
    "7d": "7 days",
    "30d": "30 days",
    "later": "later",
    "never": "never",
}


@click.command(cls=Verb)
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=READ_ONCE)
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="One JSON object with everything (several files: an array of them and a total).",
)
@click.option(
    "--top",
    default=10,
    show_default=True,
    type=click.IntRange(0, 100_000),
    metavar="N",
    help="Show the N biggest keys, by bytes in the file.",
)
@click.option(
    "--functions", "functions", is_flag=True,
    help="Print the sources of the function libraries instead, as FUNCTION LOAD takes them; with --json, have them in it.",
)  # fmt: skip
@click.option("--library", metavar="NAME", help="Print the source of this function library alone, byte for byte.")
@click.option("--relaxed", is_flag=True, help="Try RDB versions that are newer than this release knows.")
@click.option("--no-checksum", is_flag=True, help="Do not verify the CRC-64 at the end.")
@selection_options
def info(
    files: tuple[str, ...],
    as_json: bool,
    top: int,
    functions: bool,
    library: str | None,
    relaxed: bool,
    no_checksum: bool,
    selection: Selection,
) -> int:
    """What is in snapshots, and who loads them as they are.

    FILE is a path or - for standard input, compressed or not. Exit code 1 if there is no library NAME, 3 if a file cannot be read
    or is damaged.
    """
    if library is not None and as_json:
        raise click.UsageError("--library prints the source itself: with --json, take --functions")
    sources = functions or library is not None
    out = None if as_json or sources else output()
    reports: list[Info] = []
    errors: list[rdbkit.RdbError | OSError] = []
    for report in _reports(files, errors, relaxed, not no_checksum, top=top, selection=selection, sources=sources):
        reports.append(report)
        if out is not None:
            _show(report, out, len(reports) > 1)
    code = 0 if not errors else 4 if any(isinstance(e, rdbkit.TargetError) for e in errors) else 3
    if as_json:
        _print_json(reports, len(files))
    elif sources:
        code = max(code, _print_sources(reports, library))
    elif out is not None:
        _show_total(reports, len(files), out)
    if reports and not sources:
        warn_if_none(selection, sum(report.keys for report in reports))
    return code


def _reports(
    files: tuple[str, ...], errors: list[rdbkit.RdbError | OSError], relaxed: bool, verify_checksum: bool, **options: Any
) -> Iterator[Info]:
    """The report on each FILE that can be read; of any other it is said why it cannot be, and the error is added to `errors`."""
    for name in files:
        try:
            with (
                rdbkit.open(name, relaxed=relaxed, verify_checksum=verify_checksum) as snapshot,
                progress(name, snapshot.size) as update,
            ):
                report = read_info(snapshot, progress=update, **options)
        except rdbkit.RdbError as e:
            complain(e)
            errors.append(e)
        except OSError as e:
            errors.append(e)
            click.echo(f"rdbkit: {printable(name)}: {e.strerror or e}", err=True)
        else:
            yield report


def _print_sources(reports: list[Info], name: str | None) -> int:
    """The sources of function libraries, or of the one that is named, on standard output; 1 where that one is not there, else 0.

    A terminal gets them with control characters escaped. Anything else gets the bytes: of a single one exactly these, since that is
    what FUNCTION LOAD takes, and of several each beginning on a line of its own.
    """
    wanted = None if name is None else name.encode("utf-8", "surrogateescape")
    rows = [row for report in reports for row in report.functions]
    found = [row["source"] for row in rows if wanted in (None, row["name"].encode("utf-8", "surrogateescape"))]
    if not found and reports:
        which = "function libraries" if name is None else f"function library {printable(name)}"
        click.echo(f"rdbkit: {', '.join(printable(report.file) for report in reports)}: no {which}", err=True)
    _write_sources(found)
    if len(found) > 1:
        one = "FUNCTION LOAD takes one, which --library NAME prints"
        click.echo(f"rdbkit: {libraries(len(found))}, each beginning with its #! line; {one}", err=True)
    return 1 if name is not None and not found else 0


def _write_sources(found: list[bytes]) -> None:
    is_terminal = sys.stdout.isatty()
    with written("-"):
        for source in found:
            if is_terminal:
                lines = source.decode("utf-8", "backslashreplace").split("\n")
                click.echo("\n".join(printable(line.expandtabs()) for line in lines))
                continue
            sys.stdout.buffer.write(source)
            if len(found) > 1 and not source.endswith(b"\n"):
                sys.stdout.buffer.write(b"\n")
        sys.stdout.flush()


def _total(reports: list[Info]) -> dict[str, Any]:
    names = ("keys", "expiring", "expired", "key_bytes", "rdb_size")
    return {"files": len(reports)} | {n: sum(getattr(r, n) for r in reports) for n in names}


def _print_json(reports: list[Info], files: int) -> None:
    result: Any = [r.to_dict() for r in reports]
    if files > 1:
        result = {"files": result, "total": _total(reports)}
    elif result:
        result = result[0]
    else:
        return
    click.echo(json.dumps(result, indent=2))


_CHECKSUMS = {"absent": "none (RDB 4 and older have none)", "disabled": "disabled by the writer (0)"}
_OTHERS = {
    "KeyMetadata": "module metadata of keys",
    "SlotImport": "slot imports going on",
    "HashTemplate": "hash templates",
    "EnterpriseHint": "hints of Redis Enterprise",
}


def _facts(r: Info) -> list[tuple[str, str]]:
    return [*_facts_of_writer(r), *_facts_of_file(r), *_facts_of_content(r)]


def _facts_of_writer(r: Info) -> list[tuple[str, str]]:
    magic = f"VALKEY{r.rdb_version:03d}" if r.flavour == "valkey" else f"RDB {r.rdb_version}"
    rows = [("format", magic)]
    if r.writer:
        bits = f", {r.bits} bit" if r.bits else ""
        rows.append(("written by", printable(f"{r.writer} {r.writer_version}{bits}", 200)))
    if r.created:
        rows.append(("created", f"{when(r.created * 1000)} UTC"))
    if r.used_memory:
        rows.append(("memory used", f"{size(r.used_memory)} in the server that wrote it"))
    return rows


def _facts_of_file(r: Info) -> list[tuple[str, str]]:
    container = [x for x in (r.compression, "replication capture" if r.framing else None) if x]
    rows = [
        ("size", size(r.rdb_size) + (f" ({', '.join(container)})" if container else "")),
        ("checksum", _CHECKSUMS.get(r.checksum, r.checksum)),
    ]
    if r.trailer != "none" and (r.trailer != "mark" or r.framing is None):  # otherwise the mark belongs to the frame
        rows.append(("followed by", TRAILERS[r.trailer] + (f", {size(r.trailer_size)}" if r.trailer_size is not None else "")))
    if r.aof_base is not None and r.aof_base.summary:
        rows.append(("warning" if r.aof_base.newer else "note", printable(r.aof_base.summary, 300)))
    if r.ignored:
        rows.append(("ignored", f"{size(r.ignored)} behind the {r.compression} data"))
    other = {k: v for k, v in r.aux.items() if k not in ("redis-bits", "ctime", "used-mem", "lua", f"{r.writer}-ver")}
    if other:
        rows.append(("aux", printable(", ".join(f"{k}={v}" for k, v in other.items()), 300)))
    return rows


def _facts_of_content(r: Info) -> list[tuple[str, str]]:
    rows = []
    if r.selected:
        rows.append(("keys", "only those that the options choose are counted"))
    if r.slots:
        rows.append(("cluster", f"{r.slots} slots"))
    if r.functions:
        shown = ", ".join(f"{f['name']} ({f['engine']}, {size(f['bytes'])})" for f in r.functions)
        rows.append(("functions", printable(shown, 300)))
    if r.scripts:
        rows.append(("Lua scripts", f"{len(r.scripts):,}, {size(sum(script['bytes'] for script in r.scripts))}"))
    for m in r.modules:
        aux = f", {size(m.aux_bytes)} outside of keys" if m.aux_bytes else ""
        keys = f"{count(m.keys, 'key')}, {size(m.bytes)}{aux}"
        rows.append(("module", f"{printable(described(m.name).removeprefix('module '))} encoding {m.version}: {keys}"))
    return rows + [("also", f"{_OTHERS[k]}: {n}") for k, n in r.other.items()]


def _show_total(reports: list[Info], files: int, out: Output) -> None:
    """The sums of several FILEs."""
    if files > 1 and reports:
        total = _total(reports)
        out.heading(f"\nTotal of {len(reports)} files: {total['keys']} keys, {size(total['key_bytes'])}")


def _show(r: Info, out: Output, follows: bool) -> None:
    """One report; `follows` another."""
    if follows:
        out.line("")
    out.heading(printable(r.file))
    out.facts(_facts(r))
    out.table(
        count(r.keys, "key"),
        ("db", "keys", "expiring", "expired", "types"),
        [
            (
                str(d.db),
                str(d.keys),
                str(d.expiring),
                str(d.expired),
                ", ".join(f"{printable(t)} {n}" for t, n in d.types.items()),
            )
            for d in r.databases
        ],
    )
    if r.types:
        out.table(
            "By type and encoding",
            ("type", "encoding", "id", "keys", "bytes", "share"),
            [(printable(t.type), t.encoding, str(t.rdb_type), str(t.keys), size(t.bytes), f"{t.share:.1%}") for t in r.types],
        )
    if r.biggest:
        out.table(
            "Biggest in the file",
            ("bytes", "db", "type", "key"),
            [(size(k.bytes), str(k.db), f"{k.type} ({k.encoding})", printable(k.key, 60)) for k in r.biggest],
        )
    out.table("Expiry", [_LATER[b] for b in EXPIRY_BUCKETS], [[str(r.expiry[b]) for b in EXPIRY_BUCKETS]])
    lowest = f"RDB {r.lowest_version}" if r.lowest_version is not None else "none"
    marks = {"yes": "yes", "no": "no", "partly": "partly", "undocumented": "maybe"}
    out.table(
        f"Who loads it as it is (its content fits {lowest} and above)",
        ("", "target", "why"),
        [(marks[row.loads], row.title, row.why) for row in r.loads_as_is],
    )
    for note in r.lowest_version_notes:
        out.line(f"Note: {printable(note)}")
    out.line("")
    out.line(r.next)

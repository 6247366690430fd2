"""`rdbkit snapshot`."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from rdbkit.cli.conversion_options import conversion_options, show_damage, warn_if_none_is_chosen
from rdbkit.cli.files import OutputFolder, OutputPath, force_option, refuse_terminal, written
from rdbkit.cli.losses import MOST_SHOWN, extracted_files, extracting_options, ledger_file, ledger_option, report_losses
from rdbkit.cli.options import optional_service_options
from rdbkit.cli.render import Output, output, printable, progress, size, usage_errors
from rdbkit.cli.secrets import SecretsCommand
from rdbkit.cli.server_options import SERVER_URL, Login, byte_size, latency, server_options
from rdbkit.cli.status import status
from rdbkit.errors import LossError
from rdbkit.live.server_url import parse_url
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.operations.convert import Conversion
from rdbkit.operations.duplicates import DuplicateError
from rdbkit.storage.location import file_size
from rdbkit.targets.target import Target
from rdbkit.text import count, json_bytes, valid_text, when

if TYPE_CHECKING:
    from rdbkit.live.snapshot import NodeSnapshot, ServerSnapshot, Via


@click.command(cls=SecretsCommand)
@click.argument("source", metavar="SOURCE", type=SERVER_URL)
@click.argument("out", metavar="[OUT]", required=False, type=OutputPath("rdb", allow_dash=True))
@click.option(
    "--via", type=click.Choice(["auto", "replication", "scan"]), default="auto", show_default=True,
    help="Read as a replica does (replication: data of one moment), or key by key (scan: not of one moment); auto scans only if "
    "replication is refused.",
)  # fmt: skip
@click.option("--per-node", type=OutputFolder(), metavar="DIR", help="Write one file per cluster node to DIR, instead of OUT.")
@click.option(
    "--batch",
    type=click.IntRange(1, 10_000),
    default=1000,
    show_default=True,
    metavar="N",
    help="With scan: read N keys at a time.",
)
@click.option(
    "--big", default="32MB", show_default=True, callback=byte_size, metavar="SIZE",
    help="With scan: read larger values in parts; 0 reads all whole, and saves SOURCE one command per key (MEMORY USAGE).",
)  # fmt: skip
@click.option(
    "--max-latency", default="2ms", show_default=True, callback=latency, metavar="TIME",
    help="With scan: read fewer keys at a time while this delays other clients of SOURCE by more than TIME; 0: no limit.",
)  # fmt: skip
@force_option
@server_options
@optional_service_options("no conversion")
@ledger_option
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
@click.option("--deep", is_flag=True, help="Open every value, not only those that are re-encoded.")
@conversion_options
def snapshot(
    source: str,
    out: str | None,
    via: Via,
    per_node: str | None,
    batch: int,
    big: int,
    max_latency: float | None,
    login: Login,
    target: Target | None,
    conversion: ConversionOptions,
    extracts: dict[str, Any],
    **options: Any,
) -> int:
    """Write the data of a running server or cluster to a snapshot file.

    SOURCE is redis://USER@HOST:PORT, or rediss:// for TLS. OUT is a path, which appears when it is whole, or - for standard output;
    .gz compresses. SOURCE is only read: it sends its data as it does to a replica. All nodes of a cluster go into one file.

    Without --target and options that change keys, OUT has what the server sent, byte for byte. Exit code 0 if OUT was written, 1 if
    nothing was written because data would be lost, or if OUT lacks keys that the server refused, 3 if what comes is damaged, 4 if
    the server cannot be reached, sends nothing, or ends in the middle. With --strict, 1 also for a loss that an option allows.
    """
    from rdbkit.live.snapshot import snapshot_server

    _check(source, out, per_node, options["as_json"], extracts)
    to = out or ""
    dst = per_node or to
    refuse_terminal(to)
    failed: LossError | None = None
    found: ServerSnapshot | None = None
    with ExitStack() as stack:
        stack.enter_context(written(dst))
        server = stack.enter_context(login.connect(source))
        name = str(server.url)
        loss_callback = stack.enter_context(ledger_file(options, [name]))
        write_extracted = stack.enter_context(extracted_files(extracts, [name], options["force"]))
        update = stack.enter_context(progress("snapshot", None))
        try:
            with usage_errors():
                found = snapshot_server(
                    server, dst, target=target, via=via, per_node=per_node is not None, batch=batch, big=big,
                    max_latency_ms=max_latency, deep=options["deep"],
                    force=options["force"], loss_callback=loss_callback,
                    waiting=_waiting(name), progress=update, **conversion.arguments(),
                )  # fmt: skip
        except DuplicateError as e:
            click.echo(f"rdbkit: {name}: {printable(e.message)}; nothing was written", err=True)
            return 1
        except LossError as e:
            if e.report is None:
                raise
            failed = e
        else:
            if found.conversion is not None:
                write_extracted(found.conversion)
    done = [failed.report] if failed is not None else found.conversions if found is not None else []
    if options["as_json"]:
        click.echo(json.dumps(_as_json(found, name, to, done), ensure_ascii=False))
    elif found is not None:
        _show(found, to, per_node, target is not None, output(), err=to == "-")
    for each in done:
        show_damage(each.skipped, each.checksum)
        report_losses(each.ledger, failed, to == "-", target=target)
    if found is not None and found.conversion is not None:
        warn_if_none_is_chosen(conversion, found.conversion)
    if found is not None:
        say_of_scan(found)
    lost = any(each.ledger.counts or each.skipped or each.checksum for each in done)
    return status(lost=lost, strict=options["strict"], found=failed or (found is not None and (found.missing_keys or found.notes)))


def _check(source: str, out: str | None, per_node: str | None, as_json: bool, extracts: dict[str, Any]) -> None:
    """Raise click.UsageError for what excludes each other."""
    if (out is None) == (per_node is None):
        raise click.UsageError("name the file to write: OUT, or a folder with --per-node DIR")
    if out == "-" and as_json:
        raise click.UsageError("--json and OUT would both go to standard output")
    if parse_url(source).db is not None:
        raise click.UsageError(
            "a snapshot has all databases: leave out the number that follows the port of SOURCE; --db chooses one"
        )
    if per_node is not None and (given := extracting_options(extracts)):
        raise click.UsageError(f"{given[0]} extract=FILE writes one file: leave out --per-node")


def say_of_scan(found: ServerSnapshot) -> None:
    """Why keys were read one by one, and which of them could not be, on standard error."""
    name = printable(found.server)
    if found.refusal is not None:
        click.echo(f"rdbkit: {name}: {printable(found.refusal, 300)}; its keys were read one by one instead", err=True)
    for note in found.notes:
        click.echo(f"rdbkit: {name}: {printable(note, 300)}", err=True)
    for each in found.missing[:MOST_SHOWN]:
        click.echo(f"rdbkit: not in the file: db {each.db}, key {printable(each.key, 80)}: {printable(each.why, 200)}", err=True)
    if found.missing_keys:
        click.echo(f"rdbkit: {name}: {count(found.missing_keys, 'key')} not in the file, since they could not be read", err=True)


def _waiting(name: str) -> Callable[[], None] | None:
    """Says once that the server prepares, to who sits at a terminal."""
    if not sys.stderr.isatty():
        return None
    said = False

    def say() -> None:
        nonlocal said
        if not said:
            said = True
            click.echo(
                f"rdbkit: {printable(name)} prepares its snapshot (it waits for repl-diskless-sync-delay first)",
                err=True,
            )

    return say


def _show(found: ServerSnapshot, out: str, per_node: str | None, has_target: bool, report: Output, err: bool) -> None:
    """What was done, on standard output unless the file goes there."""

    def say(text: str) -> None:
        click.echo(text, err=err)

    done = found.conversions
    if done:
        source = max((node.header for node in found.nodes), key=lambda header: header.version)
        what = str(found.header) if source == found.header else f"{source} -> {found.header}"
        what += f" for {done[0].target}" if has_target else ""
    else:
        what = f"{found.header} as {found.version or 'the server'} sent it" if found.via != "scan" else f"{found.header}"
    if per_node is None and len(found.nodes) > 1:
        what += f", {count(len(found.nodes), 'node')} in one file"
    say(f"{printable(per_node or out)}: {what}")
    left = f", {count(found.left_out, 'key')} left out" if found.left_out else ""
    total = _bytes(found, out)
    say(f"{count(found.keys, 'key')} written{left}{f', {size(total)}' if total is not None else ''}, {found.seconds:.1f} s")
    moments = sorted(node.taken_s for node in found.nodes if node.taken_s is not None)
    if moments:
        apart = f" to {when(moments[-1] * 1000, seconds=True)[11:]}" if found.apart_s else ""
        say(f"as it was at {when(moments[0] * 1000, seconds=True)}{apart} UTC, by the server's clock")
    if found.read_ms is not None:
        first, last = (when(ms, seconds=True) for ms in found.read_ms)
        say(f"read key by key from {first} to {last[11:]} UTC, by the server's clock: it is not of one moment")
    if per_node is not None and not err:
        report.table(
            "Nodes", ("node", "file", "keys", "bytes"),
            [(node.node, printable(node.file or ""), f"{_keys(node):,}", size(file_size(node.file) or 0)) for node in found.nodes],
        )  # fmt: skip


def _keys(node: NodeSnapshot) -> int:
    return sum(node.keys.values()) if node.conversion is None else node.conversion.written


def _bytes(found: ServerSnapshot, out: str) -> int | None:
    """Of what was written."""
    files = [node.file for node in found.nodes if node.file is not None] or ([out] if out != "-" else [])
    return sum(file_size(file) or 0 for file in files) if files else None


def _as_json(found: ServerSnapshot | None, name: str, out: str, done: list[Conversion]) -> dict[str, Any]:
    nodes = [] if found is None else found.nodes
    ledgers = [each.ledger for each in done]
    return {
        "source": {
            "server": name,
            "version": None if found is None else found.version,
            "via": None if found is None else found.via,
            "refusal": None if found is None or found.refusal is None else valid_text(found.refusal),
            "read_ms": None if found is None or found.read_ms is None else list(found.read_ms),
            "notes": [] if found is None else [valid_text(note) for note in found.notes],
            "nodes": [
                {
                    "node": node.node,
                    "header": str(node.header),
                    "bytes": node.bytes,
                    "taken_s": node.taken_s,
                    "databases": {str(db): keys for db, keys in sorted(node.keys.items())},
                    "file": None if node.file is None else valid_text(node.file),
                }
                for node in nodes
            ],
            "apart_s": None if found is None else found.apart_s,
        },
        "destination": None
        if found is None
        else {
            "file": valid_text(out) if out else None,
            "header": str(found.header),
            "bytes": _bytes(found, out),
        },
        "target": done[0].target if done else None,
        "written": 0 if found is None else found.keys,
        "left_out": 0 if found is None else found.left_out,
        "missing_keys": 0 if found is None else found.missing_keys,
        "missing": []
        if found is None
        else [{"db": each.db, "key": json_bytes(each.key), "why": valid_text(each.why)} for each in found.missing],
        "lost": _sums([ledger.counts for ledger in ledgers]),
        "notes": _sums([ledger.notes for ledger in ledgers]),
        "forbidden": _sums([ledger.forbidden for ledger in ledgers]),
        "losses": [loss.to_dict() for ledger in ledgers for loss in ledger.losses],
        "damaged": [valid_text(str(error)) for each in done for error in each.skipped],
        "checksum": next((valid_text(str(each.checksum)) for each in done if each.checksum is not None), None),
    }


def _sums(counts: list[dict[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    for each in counts:
        for name, n in each.items():
            found[name] = found.get(name, 0) + n
    return found

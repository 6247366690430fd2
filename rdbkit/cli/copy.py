"""`rdbkit copy`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from rdbkit.cli.conversion_options import conversion_options
from rdbkit.cli.files import OutputPath
from rdbkit.cli.losses import ledger_file, ledger_option, report_losses
from rdbkit.cli.options import optional_service_options, warn_if_none
from rdbkit.cli.render import Output, key_name, output, printable, size
from rdbkit.cli.secrets import FiniteRange, SecretsCommand
from rdbkit.cli.server_options import SERVER_URL, Login, server_pair_options
from rdbkit.cli.status import status
from rdbkit.errors import LossError
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.selection import parse_bytes, parse_duration
from rdbkit.targets.target import Target
from rdbkit.text import count

if TYPE_CHECKING:
    from rdbkit.live.copy import Copied, Preparation, Progress, Side

_WORDS: Final = {
    "exists": "left alone", "refused": "refused", "changed": "changed", "lost": "lost", "large": "too large",
}  # fmt: skip


def _size(ctx: click.Context, param: click.Parameter, value: str) -> int:
    try:
        return 0 if value == "0" else parse_bytes(value)
    except ValueError as e:
        raise click.BadParameter(str(e), ctx=ctx, param=param) from None


def _latency(ctx: click.Context, param: click.Parameter, value: str) -> float | None:
    try:
        return None if value == "0" else float(parse_duration(value))
    except ValueError as e:
        raise click.BadParameter(str(e), ctx=ctx, param=param) from None


@click.command(cls=SecretsCommand)
@click.argument("source", metavar="SOURCE", type=SERVER_URL)
@click.argument("target_url", metavar="TARGET", type=SERVER_URL)
@click.option(
    "--on-exists", type=click.Choice(["fail", "skip", "replace"]), default="fail", show_default=True,
    help="A key that TARGET has with another value: leave it alone and list it, leave it alone, or replace it.",
)  # fmt: skip
@click.option(
    "--relative-ttl",
    is_flag=True,
    help="Keep the time that keys have left, not the time at which they expire: where clocks differ.",
)
@click.option("--no-functions", is_flag=True, help="Do not copy function libraries.")
@click.option("--rate", type=FiniteRange(0.001), metavar="N", help="Copy at most N keys a second.")
@click.option("--cap-mbps", type=FiniteRange(0.001), metavar="N", help="Read at most N megabits of values a second.")
@click.option(
    "--max-latency", default="2ms", show_default=True, callback=_latency, metavar="TIME",
    help="Ask for fewer keys at a time while SOURCE answers others later than this; 0 for no such limit.",
)  # fmt: skip
@click.option(
    "--batch", type=click.IntRange(1, 100_000), default=1000, show_default=True, metavar="N", help="Ask for N keys at a time."
)
@click.option(
    "--big", default="32MB", show_default=True, callback=_size, metavar="SIZE",
    help="Read larger values in parts; 0 looks at no sizes, which saves the source a question a key.",
)  # fmt: skip
@click.option(
    "--as", "write_by", type=click.Choice(["auto", "restore", "commands"]), default="auto", show_default=True,
    help="Write keys by RESTORE, or by commands of each type, which take longer; auto: by RESTORE where the login may.",
)  # fmt: skip
@click.option(
    "--state", type=OutputPath(gzip=False), metavar="FILE",
    help="Keep here how far the work is, and go on from there; removed at the end.",
)  # fmt: skip
@click.option(
    "--samples", type=click.IntRange(0, 10_000), default=10, show_default=True, metavar="N", help="Name N keys that are not there."
)
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
@click.option("--force", is_flag=True, help="Replace the file of --ledger.")
@ledger_option
@server_pair_options
@optional_service_options
@conversion_options
@click.pass_context
def copy(
    ctx: click.Context,
    /,
    source: str,
    target_url: str,
    source_login: Login,
    target_login: Login,
    target: Target | None,
    conversion: ConversionOptions,
    extracts: dict[str, Any],
    **options: Any,
) -> int:
    """Copy the keys of a running server into another, whatever their versions.

    SOURCE and TARGET are redis://USER@HOST:PORT, or rediss:// for TLS; a cluster by any of its nodes. With /N, of SOURCE database
    N is copied, and TARGET gets the keys into N. SOURCE is only read. What TARGET does not know is converted as rdbkit convert
    does it; a key that would lose something is not written and listed, unless options say what to do with it.

    A key that TARGET has already is left alone. Exit code 0 if TARGET has all keys now, 1 if not, 4 if a server fails.
    """
    from rdbkit.live.copy import copy as copy_keys

    if ctx.get_parameter_source("on_error") is not ParameterSource.COMMANDLINE:
        conversion = replace(conversion, on_error="skip")
    as_json = options["as_json"]
    out = output()

    def show(preparation: Preparation) -> None:
        if not as_json:
            _show_before(preparation, out)

    with ExitStack() as stack:
        loss_callback = stack.enter_context(ledger_file(options, []))
        old = stack.enter_context(source_login.connect(source))
        new = stack.enter_context(target_login.connect(target_url))
        update = stack.enter_context(_progress())
        try:
            done = copy_keys(
                old, new, takes=target, policies=conversion.policies, edits=conversion.edits, selection=conversion.selection,
                compress=conversion.compress, on_error=conversion.on_error, on_exists=options["on_exists"],
                ttl="relative" if options["relative_ttl"] else "absolute", functions=not options["no_functions"],
                batch=options["batch"], rate=options["rate"], cap_mbps=options["cap_mbps"], max_latency_ms=options["max_latency"],
                big=options["big"], write_by=options["write_by"],
                state=options["state"], samples=options["samples"], loss_callback=loss_callback,
                prepared=show, progress=update,
            )  # fmt: skip
        except ValueError as e:
            raise click.UsageError(printable(str(e))) from None
    if as_json:
        click.echo(json.dumps(done.to_dict()))
    else:
        _show(done, out)
    forbidden = LossError("") if done.ledger.forbidden else None
    report_losses(done.ledger, forbidden, False, target=done.prepared.takes, undone="these keys were not written")
    if conversion.selection is not None:
        warn_if_none(conversion.selection, done.counts.read - done.counts.left_out)
    return status(lost=done.ledger.counts, strict=options["strict"], found=not done.complete)


def _show_before(preparation: Preparation, out: Output) -> None:
    """What is known before anything is written."""
    out.heading(f"copy {printable(preparation.source.server)} to {printable(preparation.target.server)}")
    out.facts([("source", _side(preparation.source)), ("target", f"{_side(preparation.target)}; takes {preparation.takes.title}")])
    for note in preparation.notes:
        out.line(f"note: {printable(note)}")


def _side(side: Side) -> str:
    facts = [
        printable(side.version or "unknown version"),
        side.kind if side.nodes == 1 else f"{side.kind} of {count(side.nodes, 'node')}",
    ]
    if side.keys is not None:
        facts.append(count(side.keys, "key"))
    if side.memory is not None:
        facts.append(f"{size(side.memory)} of memory")
    return ", ".join(facts)


def _show(done: Copied, out: Output) -> None:
    counts, functions = done.counts, done.functions
    rate = f", {counts.read / done.seconds:,.0f} keys a second" if done.seconds >= 1 else ""
    out.line(f"\n{'all keys are there' if done.complete else 'not all keys are there'}: {done.seconds:.1f} s{rate}")
    rows = [("written", f"{counts.written:,}")]
    others = (
        ("equal", counts.equal, "TARGET had them already"),
        ("left alone", counts.existing, "TARGET has another value"),
        ("not written", counts.lost, "TARGET does not support what they have"),
        ("left out", counts.left_out, "by the options"),
        ("gone", counts.gone, "they expired or were deleted meanwhile"),
        ("refused", counts.refused, "see below"),
        ("changed", counts.changed, "each time that they were read"),
    )
    rows += [(name, f"{n:,}  ({why})") for name, n, why in others if n]
    refused = [f"{name}: {why}" for name, why in functions.refused.items()]
    names = (
        ("functions written", functions.written), ("functions equal", functions.equal),
        ("functions left alone", functions.different), ("functions refused", refused),
    )  # fmt: skip
    rows += [(what, printable(", ".join(each), 160)) for what, each in names if each]
    out.facts(rows)
    for note in done.notes[len(done.prepared.notes) :]:
        out.line(f"note: {printable(note)}")
    for each in done.samples:
        out.line(f"{_WORDS.get(each.what, each.what)}: {key_name(each.key)} (db {each.db}): {printable(each.detail, 160)}")
    more = counts.existing + counts.refused + counts.changed - len(done.samples)
    if more > 0:
        out.line(f"... and {more:,} more")


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None] | None]:
    """A bar of keys on standard error, where that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    begin = time.monotonic()
    bar = Progress(
        "copy", BarColumn(), MofNCompleteColumn(), "keys", TextColumn("{task.fields[rate]}"), TimeRemainingColumn(),
        console=Console(stderr=True), transient=True,
    )  # fmt: skip
    begun = False

    def update(progress: Any) -> None:
        nonlocal begun
        if not begun:
            begun = True
            bar.start()
            bar.add_task("", total=progress.total, rate="")
        rate = progress.keys / max(time.monotonic() - begin, 0.1)
        bar.update(bar.task_ids[0], completed=progress.keys, total=max(progress.total or 0, progress.keys), rate=f"{rate:,.0f}/s")

    try:
        yield update
    finally:
        if begun:
            bar.stop()

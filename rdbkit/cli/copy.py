"""`rdbkit copy`."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import click
from click.core import ParameterSource

from rdbkit.cli.conversion_options import check_rereadable, conversion_options, show_damage
from rdbkit.cli.files import InputPathOrUrl, OutputPath
from rdbkit.cli.losses import extracted_files, ledger_file, ledger_option, report_losses
from rdbkit.cli.options import optional_service_options, warn_if_none
from rdbkit.cli.render import Output, key_name, output, printable, size
from rdbkit.cli.secrets import FiniteRange, SecretsCommand
from rdbkit.cli.server_options import SERVER_URL, Login, byte_size, is_server_url, latency, server_pair_options
from rdbkit.cli.status import status
from rdbkit.errors import LossError
from rdbkit.live.pace import LEAST_RATE
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.policy.ledger import Ledger
from rdbkit.policy.script import ScriptError
from rdbkit.selection import parse_time
from rdbkit.targets.target import Target
from rdbkit.text import count

if TYPE_CHECKING:
    from rdbkit.live.copy import Copied, Preparation, Progress, Side
    from rdbkit.live.copy_sample import Sample
    from rdbkit.live.follow import Follow, Until

_WORDS: Final = {
    "exists": "left alone", "refused": "refused", "changed": "changed", "lost": "lost", "large": "too large",
    "foreign": "not replaced",
}  # fmt: skip

#: How changes are learned of, in words.
_FOLLOWED: Final = {
    "tracking": "by client tracking", "notifications": "by keyspace notifications", "passes": "by repeated passes over all keys",
}  # fmt: skip


class _Source(InputPathOrUrl):
    """A server, or a snapshot that a command comes back to when it is run again."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return SERVER_URL.convert(value, param, ctx) if is_server_url(value) else super().convert(value, param, ctx)


_SOURCE: Final = _Source(exists=True)


def _until(ctx: click.Context, param: click.Parameter, value: str | None) -> Until:
    if value is None or value == "drained":
        return "stopped" if value is None else "drained"
    try:
        return parse_time(value) / 1000
    except ValueError as e:
        raise click.BadParameter(str(e), ctx=ctx, param=param) from None


@dataclass
class _Extracted:
    """What goes to files of its own, as `extracted_files` wants it."""

    functions: list[bytes]
    scripts: list[bytes]
    ledger: Ledger


@click.command(cls=SecretsCommand)
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True, type=_SOURCE)
@click.argument("target_url", metavar="TARGET", type=SERVER_URL)
@click.option(
    "--dry-run", is_flag=True, help="Write nothing: show what the logins may do, and what a sample of the keys would lose."
)
@click.option(
    "--on-exists", type=click.Choice(["fail", "skip", "replace"]), default="fail", show_default=True,
    help="If TARGET has a key with another value: leave it alone and list it, leave it alone, or replace it.",
)  # fmt: skip
@click.option(
    "--state", type=OutputPath(gzip=False), metavar="FILE",
    help="Save progress to FILE, so that the same command goes on from there; removed at the end.",
)  # fmt: skip
@click.option(
    "--follow", is_flag=True,
    help="Then copy keys as they change on SOURCE, until Ctrl-C: once copies what still waits, twice stops at once.",
)  # fmt: skip
@click.option(
    "--until", callback=_until, metavar="drained|TIME",
    help="With --follow: stop when nothing has waited for 5 seconds, or at a time, such as 2026-01-31T12:00:00+01:00.",
)  # fmt: skip
@click.option(
    "--changes", type=click.Choice(["auto", "tracking", "notifications", "passes"]), default="auto", show_default=True,
    help="With --follow: how to learn of changes; auto uses the first of these that SOURCE allows.",
)  # fmt: skip
@click.option(
    "--relative-ttl",
    is_flag=True,
    help="Keep the time that keys have left, not the time at which they expire; for servers whose clocks differ.",
)
@click.option("--no-functions", is_flag=True, help="Do not copy function libraries.")
@click.option(
    "--big", default="32MB", show_default=True, callback=byte_size, metavar="SIZE",
    help="Copy larger values in parts; 0 copies all whole, and saves SOURCE one command per key (MEMORY USAGE).",
)  # fmt: skip
@click.option(
    "--as", "write_by", type=click.Choice(["auto", "restore", "commands"]), default="auto", show_default=True,
    help="Write keys by RESTORE, or by the commands of each type, which is slower; auto uses RESTORE if the login may.",
)  # fmt: skip
@click.option("--rate", type=FiniteRange(LEAST_RATE), metavar="N", help="Copy at most N keys a second.")
@click.option("--cap-mbps", type=FiniteRange(0.001), metavar="N", help="Read at most N megabits of values a second.")
@click.option(
    "--max-latency", default="2ms", show_default=True, callback=latency, metavar="TIME",
    help="Read fewer keys at a time while this delays other clients of SOURCE by more than TIME; 0: no limit.",
)  # fmt: skip
@click.option(
    "--batch", type=click.IntRange(1, 100_000), default=1000, show_default=True, metavar="N", help="Read N keys at a time."
)
@click.option(
    "--samples",
    type=click.IntRange(0, 10_000),
    default=10,
    show_default=True,
    metavar="N",
    help="Name up to N keys that were not copied.",
)
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
@click.option("--force", is_flag=True, help="Replace existing files of --ledger and extract=FILE.")
@ledger_option
@server_pair_options
@optional_service_options("what TARGET runs")
@conversion_options
@click.pass_context
def copy(
    ctx: click.Context,
    /,
    sources: tuple[str, ...],
    target_url: str,
    source_login: Login,
    target_login: Login,
    target: Target | None,
    conversion: ConversionOptions,
    extracts: dict[str, Any],
    **options: Any,
) -> int:
    """Copy keys from a running server, or from snapshots, into a running server, whatever their versions.

    SOURCE is a server (redis://USER@HOST:PORT, or rediss:// for TLS), any node of a cluster, or snapshot files. TARGET is a server.
    A URL that ends in /N is about database N alone. SOURCE is only read. What TARGET does not support is converted, as rdbkit
    convert does it. A key that would lose data is listed and not written, unless an option says what to do.

    A key that TARGET already has is left alone. Exit code 0 if TARGET has all keys now, 1 if not, 3 if a file cannot be read or is
    damaged, 4 if a server fails.
    """
    from rdbkit.live.copy import copy as copy_keys

    is_server = is_server_url(sources[0])
    if is_server and len(sources) > 1:
        raise click.UsageError("SOURCE must be one server, or files")
    if not is_server and source_login.is_given:
        raise click.UsageError("SOURCE is a file: leave out the options of its login")
    if not is_server:
        check_rereadable(conversion, sources)
    elif conversion.jobs > 1 or conversion.relaxed or not conversion.verify_checksum:
        raise click.UsageError("--jobs, --relaxed and --no-checksum need files as SOURCE")
    if not options["follow"] and (options["until"] != "stopped" or options["changes"] != "auto"):
        raise click.UsageError("--until and --changes need --follow")
    files = [] if is_server else list(sources)
    has_on_error = ctx.get_parameter_source("on_error") is ParameterSource.COMMANDLINE
    as_json = options["as_json"]
    out = output()

    keys: int | None = None  # of the source, once that is known

    def show(preparation: Preparation) -> None:
        nonlocal keys
        keys = preparation.source.keys
        if not as_json:
            _show_before(preparation, out)

    with ExitStack() as stack:
        stack.enter_context(_interruptible(options["state"]))
        follow = stack.enter_context(_following(options, out, lambda: keys)) if options["follow"] else None
        write_extracted = stack.enter_context(extracted_files(extracts, files, options["force"]))
        loss_callback = stack.enter_context(ledger_file(options, files))
        old = stack.enter_context(source_login.connect(sources[0])) if is_server else files
        new = stack.enter_context(target_login.connect(target_url))
        update = stack.enter_context(_progress())
        try:
            done = copy_keys(
                old, new, takes=target, policies=conversion.policies, edits=conversion.edits, selection=conversion.selection,
                compress=conversion.compress, jobs=conversion.jobs, on_error=conversion.on_error if has_on_error else None,
                relaxed=conversion.relaxed, verify_checksum=conversion.verify_checksum, on_exists=options["on_exists"],
                ttl="relative" if options["relative_ttl"] else "absolute", functions=not options["no_functions"],
                batch=options["batch"], rate=options["rate"], cap_mbps=options["cap_mbps"], max_latency_ms=options["max_latency"],
                big=options["big"], write_by=options["write_by"],
                state=options["state"], follow=follow, samples=options["samples"], dry_run=options["dry_run"],
                loss_callback=loss_callback,
                prepared=show, progress=update,
            )  # fmt: skip
        except LossError as e:
            if e.report is None:
                raise
            report_losses(e.report.ledger, e, False, target=target)
            return 1
        except ScriptError as e:
            raise click.ClickException(printable(str(e))) from None
        except ValueError as e:
            raise click.UsageError(printable(str(e))) from None
        write_extracted(_Extracted(done.libraries, done.scripts, done.ledger))
    if as_json:
        click.echo(json.dumps(done.to_dict()))
    elif done.sample is not None:
        _show_sample(done, done.sample, out)
    else:
        _show(done, out)
    show_damage(done.damaged, None)
    undone = "nothing was written" if options["dry_run"] else "these keys were not written"
    forbidden = LossError("") if done.ledger.forbidden else None
    report_losses(done.ledger, forbidden, False, target=done.prepared.takes, undone=undone)
    if conversion.selection is not None and not options["dry_run"]:
        warn_if_none(conversion.selection, done.counts.read - done.counts.left_out)
    return status(lost=done.ledger.counts or done.damaged, strict=options["strict"], found=not done.complete)


@contextmanager
def _interruptible(state: str | None) -> Iterator[None]:
    """Says at an interrupt what the same command does then."""
    try:
        yield
    except KeyboardInterrupt:
        if state is not None:
            then = f"run the same command again to go on; {printable(state)} has the progress"
        else:
            then = (
                "what was written stays; the same command begins again and writes only what is missing (--state FILE would go on)"
            )
        click.echo(f"rdbkit: interrupted: {then}", err=True)
        raise


def _show_before(preparation: Preparation, out: Output) -> None:
    """What is known before anything is written."""
    out.heading(f"copy {printable(preparation.source.server)} to {printable(preparation.target.server)}")
    out.facts([("source", _side(preparation.source)), ("target", f"{_side(preparation.target)}; takes {preparation.takes.title}")])
    for note in preparation.notes:
        out.line(f"note: {printable(note)}")


def _side(side: Side) -> str:
    if side.kind == "files":
        return f"{count(side.nodes, 'file')}, {size(side.memory or 0)}"
    facts = [
        printable(side.version or "unknown version"),
        side.kind if side.nodes == 1 else f"{side.kind} of {count(side.nodes, 'node')}",
    ]
    if side.keys is not None:
        facts.append(count(side.keys, "key"))
    if side.memory is not None:
        facts.append(f"{size(side.memory)} of memory")
    return ", ".join(facts)


def _show_sample(done: Copied, found: Sample, out: Output) -> None:
    """What a copy would meet."""
    prepared = done.prepared
    rows = [("SOURCE", row) for row in prepared.source.rows] + [("TARGET", row) for row in prepared.target.rows]
    out.table("What the logins may do", ("on", "needed for", "used"), [(on, row.what, row.used) for on, row in rows])
    for on, row in rows:
        if row.why or row.remedy:
            out.line(f"\n{on}, {row.what}: {printable('; '.join(each for each in (row.why, row.remedy) if each), 400)}")
    total = f" of {prepared.source.keys:,}" if prepared.source.keys is not None else ""
    out.line(f"\nIn a sample of {count(found.keys, 'key')}{total}")
    out.facts([("would lose data", f"{found.lost:,}"), ("already on TARGET", f"{found.existing:,}")])
    for db, key in found.names:
        out.line(f"already on TARGET: {key_name(key)} (db {db})")
    out.line("\nnothing was written; leave out --dry-run to copy")


def _show(done: Copied, out: Output) -> None:
    counts, functions = done.counts, done.functions
    read = counts.read - done.earlier
    rate = f", {read / done.seconds:,.0f} keys a second" if done.seconds >= 1 and done.followed is None else ""
    out.line(f"\n{'all keys are on TARGET' if done.complete else 'not all keys are on TARGET'}: {done.seconds:.1f} s{rate}")
    rows = [("written", f"{counts.written:,}")]
    others = [
        ("equal", counts.equal, "TARGET already had them"),
        ("left alone", counts.existing, "TARGET has another value"),
        ("not written", counts.lost, "TARGET does not support them as they are"),
        ("left out", counts.left_out, "not chosen, or expired"),
        ("gone", counts.gone, "expired or deleted meanwhile"),
        ("refused", counts.refused, "see below"),
        ("changed", counts.changed, "each time they were read"),
        ("evicted", done.evicted, "TARGET's memory is full: copied keys may be gone"),
    ]
    if (followed := done.followed) is not None:
        others.append(("deleted", followed.deleted, "they were deleted on SOURCE"))
        others.append(("not replaced", followed.foreign, "others wrote them on TARGET"))
    rows += [(name, f"{n:,}  ({why})") for name, n, why in others if n]
    if followed is not None:
        if not followed.drained:
            end = f"{followed.waiting:,} changed keys still wait"
        elif done.complete:
            end = "TARGET has all that SOURCE had"
        else:
            end = "no change waits; TARGET lacks only the keys counted here"
        rows += [("followed", f"{followed.events:,} changes {_FOLLOWED[followed.changes]}"), ("at the end", end)]
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
def _following(options: dict[str, Any], out: Output, keys_of_source: Callable[[], int | None]) -> Iterator[Follow]:
    """What a copy that follows is told, and what it tells; Ctrl-C and a signal to end let it copy what waits."""
    from rdbkit.live.follow import Follow, Followed, Follower

    shows = not options["as_json"]
    begun = False
    before: dict[int, Any] = {}

    is_ending = False

    def begin(follower: Follower) -> None:
        def stop(*_: object) -> None:
            nonlocal is_ending
            if follower.is_stopping:
                raise KeyboardInterrupt
            follower.stop()
            is_ending = True

        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, stop)

    def tell(found: Followed) -> None:
        nonlocal begun
        if not begun and found.passes and not found.is_passing:
            begun = True
            if shows:
                if line is not None:
                    line.stop()
                how = _FOLLOWED[found.changes]
                out.line(f"\nall keys are copied once ({found.written:,} written); following changes {how}; Ctrl-C ends")
                if found.equal:
                    out.line(
                        f"{count(found.equal, 'key')} TARGET already had: when SOURCE changes one, it is listed and not replaced "
                        "(--on-exists replace would)"
                    )
        if line is not None:
            line.start()
            what = "ending" if is_ending else "copy" if found.is_passing else "follow"
            total = keys_of_source()
            if found.is_passing and not is_ending and total is not None:
                what += f": {found.read:,} of {max(total, found.read):,} keys"
            what += ", " if ":" in what else ": "
            more = ", Ctrl-C ends at once" if is_ending else ""
            line.update(
                f"{what}{found.written:,} written, {found.deleted:,} deleted, {found.waiting:,} waiting, "
                f"{found.lag_s:.1f} s behind{more}"
            )

    with ExitStack() as stack:
        line: Any = None
        if sys.stderr.isatty():
            from rich.console import Console

            line = Console(stderr=True).status("copy")
            stack.callback(line.stop)
        try:
            yield Follow(options["until"], None if options["changes"] == "auto" else options["changes"], begun=begin, told=tell)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


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
        total = progress.total if progress.share is None else round(progress.keys / max(progress.share, 0.01))
        rate = (progress.keys - progress.earlier) / max(time.monotonic() - begin, 0.1)
        bar.update(bar.task_ids[0], completed=progress.keys, total=max(total or 0, progress.keys), rate=f"{rate:,.0f}/s")

    try:
        yield update
    finally:
        if begun:
            bar.stop()

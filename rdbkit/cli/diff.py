"""`rdbkit diff`."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Final

import click

from rdbkit.cli.files import READ_TWICE, OutputPath, Verb, temporaries, written
from rdbkit.cli.options import commands_target_option
from rdbkit.cli.render import (
    WORTH_SHOWING,
    Output,
    key_name,
    libraries,
    output,
    printable,
    progress,
    show_functions,
    size,
)
from rdbkit.model import TRAILERS
from rdbkit.operations.diff import IGNORED, Diff, Difference
from rdbkit.operations.diff import diff as compare
from rdbkit.operations.diff_delta import Delta, delta_format
from rdbkit.operations.diff_elements import expiries
from rdbkit.products import described
from rdbkit.selection import parse_duration
from rdbkit.storage.location import total_size
from rdbkit.targets.target import Target
from rdbkit.text import count

_WORDS: Final = {
    "missing": "only in the first",
    "extra": "only in the second",
    "type": "another type",
    "value": "another value",
    "expire": "another expiry",
    "changed": "another source",
}
#: Where data of modules stands, by `ModuleDataDifference.when`.
_STANDS: Final = {1: "", 2: ", after the keys"}
_MOST_LOSSES: Final = 20
_WIDTH: Final = 240  # of a line that says what differs


def _tolerance(ctx: click.Context, param: click.Parameter, value: str) -> int:
    try:
        return parse_duration(value)
    except ValueError as e:
        raise click.BadParameter(str(e), ctx=ctx, param=param) from None


@click.command(cls=Verb)
@click.argument("first", metavar="A", type=READ_TWICE)
@click.argument("second", metavar="B", type=READ_TWICE)
@click.option("--only", type=click.Choice(["keys"]), help="Compare names of keys alone.")
@click.option(
    "--ignore", type=click.Choice(IGNORED), multiple=True,
    help="Do not compare when keys and fields expire, function libraries, or data of modules outside of keys; encodings never are. "
    "Can be repeated.",
)  # fmt: skip
@click.option(
    "--ttl-tolerance", default="0ms", callback=_tolerance, metavar="TIME", help="Expiries may be so far apart: 1s, 500ms."
)
@click.option(
    "--samples", type=click.IntRange(0, 10_000), default=10, show_default=True, metavar="N", help="Name up to N differences."
)
@click.option(
    "--delta", type=OutputPath(), metavar="OUT",
    help="Write what differs: OUT.resp gets the commands that turn A into B, OUT.rdb a snapshot of what is new or changed; .gz "
    "compresses.",
)  # fmt: skip
@commands_target_option("OUT.resp")
@click.option(
    "--on-loss", type=click.Choice(["fail", "drop"]), default="fail", show_default=True,
    help="Data that the target of OUT.resp does not support: fail, or leave it out.",
)  # fmt: skip
@click.option("--force", is_flag=True, help="Replace an OUT that exists.")
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
@click.option("--relaxed", is_flag=True, help="Try RDB versions that are newer than this release knows.")
@click.option("--no-checksum", is_flag=True, help="Do not verify the CRC-64 of A and B.")
def diff(
    first: str,
    second: str,
    only: str | None,
    ignore: tuple[str, ...],
    ttl_tolerance: int,
    samples: int,
    delta: str | None,
    target: Target | None,
    on_loss: str,
    force: bool,
    as_json: bool,
    relaxed: bool,
    no_checksum: bool,
) -> int:
    """Whether two snapshots have the same keys, values, expiries and functions.

    The order of keys and of elements does not matter where they have none, nor do versions and encodings. Keys that have expired
    and are in one of them alone are no difference. Exit code 0 if they have the same data, 1 if not, or if something follows
    the end of one, 3 if one cannot be read or is damaged.
    """
    _check(only, delta, target, on_loss, force)
    with ExitStack() as stack:
        stack.enter_context(temporaries() if delta is None else written(delta))
        update = stack.enter_context(progress("diff", total_size((first, second))))
        try:
            found = compare(
                first, second, only_keys=only is not None, ignore=ignore, ttl_tolerance_ms=ttl_tolerance, samples=samples,
                delta=delta, target=target, on_loss=on_loss, force=force, relaxed=relaxed, verify_checksum=not no_checksum,
                progress=update,
            )  # fmt: skip
        except ValueError as e:
            raise click.UsageError(printable(str(e))) from None
    if as_json:
        click.echo(json.dumps(found.to_dict()))
    else:
        _show(found, output())
    if found.delta is not None:
        _show_losses(found.delta)
    return 0 if found.same else 1


def _check(only: str | None, delta: str | None, target: Target | None, on_loss: str, force: bool) -> None:
    """Raise click.UsageError for options that do not go together."""
    if delta is None:
        if target or on_loss != "fail" or force:
            raise click.UsageError("--target, --on-loss and --force are for --delta")
        return
    if only:
        raise click.UsageError("--only keys and --delta exclude each other")
    try:
        form = delta_format(delta)
    except ValueError as e:
        raise click.BadParameter(printable(str(e)), param_hint="--delta") from None
    if form != "resp" and (target or on_loss != "fail"):
        raise click.UsageError("--target and --on-loss are for --delta OUT.resp")


def _show(found: Diff, out: Output) -> None:
    first, second = (printable(name) for name in found.files)
    same = "the same data" if found.same else "the same data, as far as it was compared"
    out.heading(f"{first} and {second} have {'different data' if found.differences else same}")
    rows = [("keys", f"{found.keys[0]:,} and {found.keys[1]:,}"), ("equal", f"{found.equal:,}")]
    counts = (
        ("only in the first", found.missing), ("only in the second", found.extra), ("another value", found.changed),
        ("another expiry", found.expiry), ("expired", found.expired), ("other functions", len(found.functions)),
        ("other data of modules", len(found.module_data)),
    )  # fmt: skip
    rows += [(name, f"{n:,}") for name, n in counts if n]
    for name, kind in zip(("first", "second"), found.behind, strict=True):
        if kind is not None:
            rows.append((f"behind the {name}", f"{TRAILERS[kind]}: not compared"))
    if found.disk_bytes >= WORTH_SHOWING:
        rows.append(("temporary files", f"{size(found.disk_bytes)}, gone"))
    out.facts(rows)
    show_functions(out, found.functions, _WORDS)
    if found.module_data:
        out.line("\ndata of modules outside of keys")
        rows = [(_WORDS[each.what], f"{described(each.module)}{_STANDS[each.when]}") for each in found.module_data]
        out.facts([(word.replace("source", "content"), printable(what)) for word, what in rows])
    for each in found.samples:
        # a name without a letter would not be seen
        out.line(f"\n{_WORDS[each.what]}: {key_name(each.key)} (db {each.db})")
        out.facts([*_facts(each), *(("differs", printable(line, _WIDTH)) for line in each.details)])
    more = found.missing + found.extra + found.changed + found.expiry - len(found.samples)
    if more > 0:
        out.line(f"\n... and {more:,} more")
    if found.delta is not None:
        out.line(f"\n{_written(found, found.delta)}")


def _facts(each: Difference) -> list[tuple[str, str]]:
    rows = [("at byte", " and ".join(f"{offset:,}" for offset in each.offsets if offset is not None))]
    if each.what == "type":
        rows.append(("type", f"{each.types[0]} and {each.types[1]}"))
    if each.expire_ms[0] != each.expire_ms[1] and each.what in ("expire", "value"):
        rows.append(("expires", expiries(each.expire_ms)))
    return rows


def _written(found: Diff, delta: Delta) -> str:
    """What a delta has, in a line."""
    name = printable(delta.file)
    functions = f" and {libraries(delta.functions)}" if delta.functions else ""
    what = f"{count(delta.written, 'key')}{functions}"
    of_modules = "; without the data of modules outside of keys that differs" if found.module_data else ""
    if delta.format == "resp":
        deleted = f", and for the deletion of {count(delta.deleted, 'key')}" if delta.deleted else ""
        return f"{name}: commands for {what}{deleted}{of_modules}"
    missing = sum(each.what == "missing" for each in found.functions)
    absent = [count(delta.deleted, "key")] * (delta.deleted > 0) + [libraries(missing)] * (missing > 0)
    without = f", but not the deletion of {' and '.join(absent)}, which a snapshot cannot say" if absent else ""
    return f"{name}: {what}{without}{of_modules}"


def _show_losses(delta: Delta) -> None:
    """On standard error."""
    for loss in delta.losses[:_MOST_LOSSES]:
        where = f" in db {loss.db}, key {printable(loss.key, 80)}" if loss.key is not None else ""
        click.echo(f"rdbkit: lost: {loss.kind}{where}: {printable(loss.what, 200)}", err=True)
    if delta.loss_counts:
        counts = ", ".join(f"{kind} {n}" for kind, n in delta.loss_counts.items())
        click.echo(f"rdbkit: lost in all: {counts}", err=True)

"""`rdbkit verify-copy`."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

import click

from rdbkit.cli.options import server_selection_options, warn_if_none
from rdbkit.cli.render import Output, key_name, libraries, output, printable, progress, show_functions, usage_errors
from rdbkit.cli.secrets import SecretsCommand
from rdbkit.cli.server_options import SERVER_URL, Login, is_server_url, server_pair_options
from rdbkit.cli.verification_options import big_option, duration_option, functions_option, verification_options
from rdbkit.operations.diff_elements import expiries
from rdbkit.selection import Selection

if TYPE_CHECKING:
    from rdbkit.live.verify_copy import CopyDifference, CopyProof

#: What is said of a key that differs.
WORDS: Final = {
    "missing": "missing on the target",
    "type": "another type",
    "value": "another value",
    "expire": "another expiry",
    "refused": "refused",
    "extra": "not on the source",
    "changing": "changed meanwhile",
    "changed": "another source code",
}


def source_url(ctx: click.Context, param: click.Parameter, value: str) -> str:
    """The callback of SOURCE: the URL of a server; for files there is another command."""
    if not is_server_url(value):
        raise click.BadParameter(
            "not a server: write redis://HOST:PORT; to compare snapshot files with a server, use rdbkit verify-import", ctx=ctx,
            param=param,
        )  # fmt: skip
    return SERVER_URL.convert(value, param, ctx)


@click.command("verify-copy", cls=SecretsCommand)
@click.argument("source", callback=source_url)
@click.argument("target", type=SERVER_URL)
@server_pair_options
@verification_options("target", "Also list TARGET's keys, and name those that SOURCE does not have.", 1000)
@functions_option("Do not compare function libraries.")
@click.option(
    "--rounds", type=click.IntRange(1, 1000), default=3, show_default=True, metavar="N",
    help="Compare what differs N times in all: a key counts only if it still differs in the last round, and did not change on "
    "SOURCE since the round before.",
)  # fmt: skip
@duration_option("--wait", "5s", "Wait before each further round.")
@click.option("--quick", is_flag=True, help="Compare types, lengths and expiries, but no values.")
@big_option
@server_selection_options
def verify_copy(
    source: str,
    target: str,
    source_login: Login,
    target_login: Login,
    map_db: dict[int, int],
    ttl_tolerance: int,
    pick: float | int | None,
    seed: int,
    find_extra: bool,
    ignore: tuple[str, ...],
    rate: float | None,
    batch: int,
    samples: int,
    as_json: bool,
    rounds: int,
    wait: int,
    quick: bool,
    big: int,
    selection: Selection,
) -> int:
    """Compare two servers: whether TARGET has the keys of SOURCE, with their types, values and expiries, and its functions.

    SOURCE and TARGET are redis://USER@HOST:PORT, or rediss:// for TLS; a URL that ends in /N is about database N alone. They may be
    clusters, and of different versions. Both are only read. What differs is compared again some seconds later, so that SOURCE may
    be in use. Exit code 0 if TARGET has what SOURCE has, 1 if not, 4 if a server cannot be reached.
    """
    from rdbkit.live.verify_copy import verify_copy as compare

    with ExitStack() as stack:
        one = stack.enter_context(source_login.connect(source))
        other = stack.enter_context(target_login.connect(target))
        update = stack.enter_context(progress("verify-copy", None, keys=True))
        with usage_errors():
            found = compare(
                one, other, selection=selection, pick=pick, seed=seed, ttl_tolerance_ms=ttl_tolerance, db_map=map_db,
                find_extra=find_extra, ignore_functions="functions" in ignore, rounds=rounds, wait_s=wait / 1000, quick=quick,
                big=big, batch=batch, rate=rate, samples=samples, progress=update,
            )  # fmt: skip
    warn_if_none(selection, found.checked)
    if as_json:
        click.echo(json.dumps(found.to_dict()))
    else:
        out = output()
        one_name, other_name = map(printable, found.servers)
        partly = "" if found.checked == found.keys else " of what was looked for"
        out.heading(f"{other_name} {'has' if found.same else 'does not have'} what {one_name} has{partly}")
        show_proof(found, out)
    return 0 if found.same else 1


def show_proof(found: CopyProof, out: Output) -> None:
    """The counts of a comparison, and the keys that differ."""
    sides = zip(("source", "target"), found.versions, found.kinds, strict=True)
    rows = [(name, f"{printable(version or 'unknown version')}, {kind}") for name, version, kind in sides]
    rows.append(("keys", f"{found.keys:,}"))
    if found.checked != found.keys:
        rows.append(("looked for", f"{found.checked:,}"))
    rows.append(("equal", f"{found.equal:,}"))
    counts = (
        ("expired meanwhile", found.expired), ("deleted meanwhile", found.gone), ("not compared", found.not_compared),
        ("changed meanwhile", found.changing), ("missing", found.missing), ("another type", found.type),
        ("another value", found.value), ("another expiry", found.expire), ("refused", found.refused),
        ("not on the source", found.extra), ("other functions", len(found.functions)),
    )  # fmt: skip
    if found.libraries:
        rows.append(("functions", libraries(found.libraries)))
    out.facts([*rows, *((name, f"{n:,}") for name, n in counts if n), ("rounds", f"{found.rounds}")])
    out.table(
        "Databases",
        ("db", "keys on source", "keys on target"),
        [
            (
                str(row.db) if row.db == row.target_db else f"{row.db} in {row.target_db}",
                *("not told" if n is None else f"{n:,}" for n in (row.source, row.target)),
            )
            for row in found.databases
        ],
    )
    show_functions(out, found.functions, WORDS)
    for note in found.notes:
        out.line(f"\nnote: {printable(note)}")
    for each in found.samples:
        show_difference(each, WORDS[each.what], out)
    more = found.different + found.changing - len(found.samples)
    if more > 0:
        out.line(f"\n... and {more:,} more")


def show_difference(each: CopyDifference, words: str, out: Output) -> None:
    """One key that differs."""
    dbs = f"db {each.dbs[0]}" if each.dbs[0] == each.dbs[1] else f"db {each.dbs[0]}, on the target {each.dbs[1]}"
    out.line(f"\n{words}: {key_name(each.key)} ({dbs})")
    rows = []
    if each.types[0] is not None and each.types[1] is not None and each.types[0] != each.types[1]:
        rows.append(("type", f"{each.types[0]} and {each.types[1]}"))
    elif any(each.types):
        rows.append(("type", str(each.types[0] or each.types[1])))
    if each.what == "expire":
        rows.append(("expires", expiries(each.expire_ms)))
    name = "server says" if each.what == "refused" else "differs"
    out.facts([*rows, *((name, printable(line, 160)) for line in each.details)])

"""`rdbkit sync`."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from rdbkit.cli.options import optional_service_options, server_selection_options, warn_if_none
from rdbkit.cli.render import Output, output, printable, progress, usage_errors
from rdbkit.cli.secrets import SecretsCommand
from rdbkit.cli.server_options import SERVER_URL, Login, server_pair_options
from rdbkit.cli.verification_options import big_option, duration_option, verification_options
from rdbkit.cli.verify_copy import WORDS, show_difference, show_proof, source_url
from rdbkit.selection import Selection
from rdbkit.targets.target import Target

if TYPE_CHECKING:
    from rdbkit.live.sync import Synced


@click.command(cls=SecretsCommand)
@click.argument("source", callback=source_url)
@click.argument("target_url", metavar="TARGET", type=SERVER_URL)
@click.option("--delete", is_flag=True, help="Delete keys of TARGET that SOURCE does not have.")
@click.option("--yes", is_flag=True, help="Do not ask before keys of TARGET are replaced.")
@click.option(
    "--most-rounds", type=click.IntRange(2, 10_000), default=10, show_default=True, metavar="N",
    help="Stop after N rounds; sooner if nothing differs.",
)  # fmt: skip
@duration_option("--wait", "1s", "Wait before each further round.")
@verification_options("target", "Also list TARGET's keys, and name those that SOURCE does not have.", 1000)
@big_option
@server_pair_options
@optional_service_options("what TARGET runs")
@server_selection_options
def sync(
    source: str,
    target_url: str,
    source_login: Login,
    target_login: Login,
    target: Target | None,
    delete: bool,
    yes: bool,
    most_rounds: int,
    wait: int,
    map_db: dict[int, int],
    ttl_tolerance: int,
    pick: float | int | None,
    seed: int,
    find_extra: bool,
    rate: float | None,
    batch: int,
    samples: int,
    as_json: bool,
    big: int,
    selection: Selection,
) -> int:
    """Make TARGET have the keys of SOURCE: compare them, and write those that are missing or differ.

    SOURCE and TARGET are redis://USER@HOST:PORT, or rediss:// for TLS; a URL that ends in /N is about database N alone. SOURCE is
    only read. Keys of TARGET that differ are replaced, after you are asked once. Nothing is deleted without --delete. What was
    written is compared again, until nothing differs. Exit code 0 if nothing differs in the end, 1 if keys do, 4 if a server fails.
    """
    from rdbkit.live.sync import sync as repair

    _check(yes, target_url, delete)
    with ExitStack() as stack:
        one = stack.enter_context(source_login.connect(source))
        other = stack.enter_context(target_login.connect(target_url))
        update = stack.enter_context(progress("sync", None, keys=True))
        with usage_errors():
            done = repair(
                one, other, takes=target, selection=selection, pick=pick, seed=seed, ttl_tolerance_ms=ttl_tolerance, db_map=map_db,
                find_extra=find_extra, delete=delete, most_rounds=most_rounds, wait_s=wait / 1000, big=big, batch=batch, rate=rate,
                samples=samples, progress=update,
            )  # fmt: skip
    warn_if_none(selection, done.proof.checked)
    if as_json:
        click.echo(json.dumps(done.to_dict()))
    else:
        _show(done, output())
    return 0 if done.clean else 1


def _check(yes: bool, url: str, delete: bool) -> None:
    """Ask whether the target may be changed. Raises: click.UsageError where nobody is there to be asked; click.Abort."""
    if yes:
        return
    from rdbkit.live.server_url import parse_url

    if not sys.stdin.isatty():
        raise click.UsageError("sync replaces keys of TARGET that differ: confirm it with --yes")
    deleted = ", and delete those that SOURCE does not have" if delete else ""
    click.confirm(f"Replace keys of {printable(str(parse_url(url)))} that differ{deleted}?", abort=True, err=True)


def _show(done: Synced, out: Output) -> None:
    one, other = map(printable, done.proof.servers)
    out.heading(f"{other} {'has' if done.clean else 'does not have'} what {one} has")
    rows = [(f"written: {WORDS[what]}", f"{n:,}") for what, n in sorted(done.repaired.items())]
    if done.deleted:
        rows.append((f"deleted: {WORDS['extra']}", f"{done.deleted:,}"))
    out.facts(rows or [("written", "0")])
    for each in done.repairs:
        show_difference(each, f"{'deleted' if each.what == 'extra' else 'written'}: {WORDS[each.what]}", out)
    more = sum(done.repaired.values()) + done.deleted - len(done.repairs)
    if more > 0:
        out.line(f"\n... and {more:,} more")
    out.line("\nlast round" if done.proof.rounds > 1 else "\nonly round")
    show_proof(done.proof, out)

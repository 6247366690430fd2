"""`rdbkit dual-switch`."""

from __future__ import annotations

import getpass
import json
import socket
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import click

from rdbkit.cli.dual_options import compare_option, move_options, proof_rows, setting_words, show_differences, status_rows
from rdbkit.cli.files import InputPath
from rdbkit.cli.options import server_selection_options
from rdbkit.cli.render import Output, output, printable, progress, usage_errors
from rdbkit.cli.secrets import SecretsCommand
from rdbkit.cli.server_options import SERVER_URL, Login, cache_pair_options
from rdbkit.cli.verification_options import duration_option
from rdbkit.selection import Selection
from rdbkit.text import count

if TYPE_CHECKING:
    from rdbkit.dual.state_store import StateStore
    from rdbkit.dual.switch import DualSwitch

_STATES: Final = ("old", "shadow", "dial", "new", "done")


def _accepted(ctx: click.Context, param: click.Parameter, value: str) -> float | int:
    text = value.strip()
    try:
        found: float | int = float(text[:-1]) / 100 if text.endswith("%") else int(text)
    except ValueError:
        found = -1
    if not 0 <= found < (1 if text.endswith("%") else 1 << 62):
        raise click.BadParameter(f"{value!r} is neither a number of keys nor a share, as in 1000 or 0.1%", ctx=ctx, param=param)
    return found


@click.command("dual-switch", cls=SecretsCommand)
@click.argument("to", metavar="STATE", type=click.Choice(_STATES))
@click.argument("old", type=SERVER_URL, required=False)
@click.argument("new", type=SERVER_URL, required=False)
@click.option(
    "--percent",
    type=click.FloatRange(0, 100),
    default=0.0,
    metavar="P",
    help="With dial: read P of a hundred keys from NEW first.  [default: 0]",
)
@move_options
@click.option(
    "--accept-missing", default="0", show_default=True, callback=_accepted, metavar="N|N%",
    help="Go to new though so many keys are not there: they are lost to the application.",
)  # fmt: skip
@compare_option("10000", "Compare the values of about N keys on both servers first; 0 for none.")
@duration_option("--in", "6s", "All processes take the step so much later: each must have looked at the state by then.")
@click.option("--dry-run", is_flag=True, help="Tell whether the step is safe, and do not take it.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option(
    "--control", type=InputPath(), metavar="SOCKET", help="Switch the dual-proxy with this control socket, instead of OLD and NEW."
)
@click.option(
    "--synced", is_flag=True, help="With --control: rdbkit sync has written what the proxy said was missing on the other server."
)
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
@cache_pair_options
@server_selection_options
def dual_switch(
    to: str,
    old: str | None,
    new: str | None,
    old_login: Login,
    new_login: Login,
    percent: float,
    name: str,
    state: str | None,
    map_db: dict[int, int],
    accept_missing: float | int,
    compare: int | None,
    dry_run: bool,
    yes: bool,
    control: str | None,
    synced: bool,
    as_json: bool,
    selection: Selection,
    **times: int,
) -> int:
    """Go one step of a move between two caches, forward or back: old, shadow, dial, new, done.

    \b
    old     the application uses OLD alone
    shadow  what is written to OLD is brought to NEW
    dial    the same, and a share of the keys is read from NEW first
    new     the application uses NEW; what is written is brought to OLD
    done    the application uses NEW alone

    OLD and NEW are redis://USER@HOST:PORT, or rediss:// for TLS. All processes take the step at one moment. It is refused while it
    is not safe, with what to do first: for dial, compared keys must be the same on both; for new, all keys must be on NEW as well.
    Exit code 0 if the step is set, or would be; 1 if it is not safe, 4 if a server fails.
    """
    if control is not None:
        if old is not None or dry_run:
            raise click.UsageError("--control is instead of OLD and NEW, and of --dry-run")
        return _switch_proxy(control, to, as_json, accept_missing=accept_missing, compare=compare, synced=synced, by=_me())
    if synced:
        raise click.UsageError("--synced goes with --control")
    if old is None or new is None:
        raise click.UsageError("name both servers, OLD and NEW; or a proxy, by --control")
    if not yes and not dry_run and not sys.stdin.isatty():
        raise click.UsageError("all processes go to another state: --yes says that they may; --dry-run tells whether it is safe")
    from rdbkit.dual.state_store import FileStore
    from rdbkit.dual.switch import dual_switch as switch

    store: StateStore | None = None if state is None else FileStore(state)
    out = output()

    with ExitStack() as stack:
        update = stack.enter_context(progress("dual-switch", None, keys=True))

        def confirmed(found: DualSwitch) -> bool:
            if not yes:
                _show(found, out)
                click.confirm(f"From {found.before} to {found.wanted}. Go on?", abort=True, err=True)
            return True

        with usage_errors():
            found = switch(
                lambda: old_login.connect(old), lambda: new_login.connect(new), to, percent=percent, name=name, store=store,
                accept_missing=accept_missing, compare=compare, selection=selection, db_map=map_db, delay_s=times["in"] / 1000,
                dry_run=dry_run, by=_me(), confirm=confirmed, progress=update,
            )  # fmt: skip
    if as_json:
        click.echo(json.dumps(found.to_dict()))
    elif found.reasons or dry_run or yes:
        _show(found, out)
    if found.done and not as_json:
        out.line(f"\nstate: {setting_words(found.wanted)}")
        if found.warning is not None:
            out.line(printable(found.warning))
    return 1 if found.reasons or (found.done and found.behind) else 0


def _show(found: DualSwitch, out: Output) -> None:
    safe = "is not safe yet" if found.reasons else "is safe"
    out.heading(f"the step from {found.before} to {found.wanted} {safe}")
    rows = [] if found.status is None else status_rows(found.status, found.before)
    proof = found.proof
    if proof is not None:
        rows += proof_rows(proof)
    if found.followers is not None:
        rows.append(("following", count(len(found.followers), "client")))
    out.facts(rows)
    if proof is not None:
        show_differences(proof, out)
    for reason in found.reasons:
        out.line(f"\n{printable(reason)}")
    for note in found.notes:
        out.line(f"\nnote: {printable(note)}")


def _switch_proxy(control: str, to: str, as_json: bool, *, synced: bool, **how: Any) -> int:
    """Have a proxy go to another state."""
    from rdbkit.dual.control import ask

    if synced:
        ask(control, "synced")
    answer = ask(control, "switch", to=to, **how)
    if as_json:
        click.echo(json.dumps(answer))
    else:
        out = output()
        out.heading(f"the proxy is in the state {to}{'' if answer['switched'] else ' already'}")
        if "pause_ms" in answer:
            rows = [
                ("clients waited", f"{answer['pause_ms']:,.0f} ms"),
                ("connections", f"{answer['connections']:,} went on"),
                ("compared", count(answer["compared"], "key")),
            ]
            rows += [("closed", f"{n:,} ({printable(str(why))})") for why, n in answer["closed"].items()]
            out.facts(rows)
    return 0


def _me() -> str:
    """Who asks, for those who look at the state later."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):  # a container may have no name for its user
        user = "somebody"
    return f"{user}@{socket.gethostname()}"

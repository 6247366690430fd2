"""`rdbkit dual-status`."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from rdbkit.cli.dual_options import compare_option, differing, move_options, show_status
from rdbkit.cli.options import server_selection_options, warn_if_none
from rdbkit.cli.render import output, printable, progress, usage_errors
from rdbkit.cli.secrets import FiniteRange, SecretsCommand
from rdbkit.cli.server_options import SERVER_URL, Login, cache_pair_options
from rdbkit.cli.verification_options import duration_option, pick_options
from rdbkit.live.pace import LEAST_RATE
from rdbkit.selection import Selection

if TYPE_CHECKING:
    from rdbkit.dual.state_store import StateStore


@click.command("dual-status", cls=SecretsCommand)
@click.argument("old", type=SERVER_URL)
@click.argument("new", type=SERVER_URL)
@move_options
@duration_option("--watch", "0s", "Watch the missing keys that expire for TIME: how many are written, how many go.")
@compare_option("0", "Compare the values of about N keys that both have, chosen by hash of the name.")
@pick_options
@click.option("--rate", type=FiniteRange(LEAST_RATE), metavar="N", help="Ask for at most N keys a second.")
@click.option(
    "--batch", type=click.IntRange(1, 10_000), default=1000, show_default=True, metavar="N", help="Ask for N keys at a time."
)
@click.option(
    "--samples", type=click.IntRange(0, 10_000), default=10, show_default=True, metavar="N",
    help="Name N keys that are missing on NEW and never expire.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Report as one JSON object.")
@cache_pair_options
@server_selection_options
def dual_status(
    old: str,
    new: str,
    old_login: Login,
    new_login: Login,
    name: str,
    state: str | None,
    map_db: dict[int, int],
    watch: int,
    compare: int | None,
    pick: float | int | None,
    seed: int,
    rate: float | None,
    batch: int,
    samples: int,
    as_json: bool,
    selection: Selection,
) -> int:
    """Which keys of the old cache are on the new one while an application writes to both, and when all of them will be.

    OLD and NEW are redis://USER@HOST:PORT, or rediss:// for TLS; with /N they are database N. A key that is written comes to NEW;
    one that is not goes when it expires. So NEW has all keys when the last of the others has expired; those that never expire have
    to be copied. --compare looks at values, too. Nothing is written. Exit code 0 if NEW has all keys and none that were compared
    differs, 1 if not, 4 if a server fails.
    """
    from rdbkit.dual.state_store import FileStore, ServerStore
    from rdbkit.dual.states import BEGINNING
    from rdbkit.dual.status import dual_status as look
    from rdbkit.dual.switch import WAIT_S
    from rdbkit.live.verify_copy import verify_copy

    with ExitStack() as stack:
        one = stack.enter_context(old_login.connect(old))
        other = stack.enter_context(new_login.connect(new))
        store: StateStore = FileStore(state) if state is not None else ServerStore(name, lambda: old_login.connect(old))
        stack.callback(store.close)
        with usage_errors():
            settings = store.look().settings
            update = stack.enter_context(progress("dual-status", None, keys=True))
            found = look(
                one, other, selection=selection, pick=pick, seed=seed, db_map=map_db, watch_s=watch / 1000, batch=batch, rate=rate,
                samples=samples, progress=update,
            )  # fmt: skip
            proof = None
            if compare != 0:
                proof = verify_copy(
                    one, other, selection=selection, db_map=map_db, pick=compare, seed=seed, batch=batch, rate=rate, wait_s=WAIT_S,
                    ignore_functions=True, progress=update,
                )  # fmt: skip
    setting = settings[-1] if settings else BEGINNING
    warn_if_none(selection, found.checked)
    if as_json:
        click.echo(
            json.dumps(found.to_dict() | {"setting": setting._asdict(), "proof": None if proof is None else proof.to_dict()})
        )
    else:
        out = output()
        out.heading(
            f"{printable(found.servers[1])} {'has' if found.ready else 'does not have'} all keys of {printable(found.servers[0])}"
        )
        show_status(found, setting, out, proof)
    return 0 if found.ready and (proof is None or not differing(proof)) else 1

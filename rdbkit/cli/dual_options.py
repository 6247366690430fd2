"""What the commands about two caches have in common: the options that name a move, and how its state is shown."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from rdbkit.cli.files import OutputPath
from rdbkit.cli.options import database_pairs
from rdbkit.cli.render import Output, key_name, printable
from rdbkit.cli.verify_copy import WORDS, show_difference
from rdbkit.text import count, when

if TYPE_CHECKING:
    from rdbkit.dual.states import Setting
    from rdbkit.dual.status import DualStatus
    from rdbkit.live.verify_copy import CopyProof

C = TypeVar("C", bound=Callable[..., Any])

__all__ = [
    "compare_option", "differing", "move_options", "proof_rows", "setting_words", "show_differences", "show_status", "status_rows",
]  # fmt: skip

#: Of keys that were compared, what is named, and how many of them.
_TOLD: Final = ("type", "value", "expire", "refused")
_MOST_SHOWN: Final = 3


def compare_option(default: str, told: str) -> Callable[[C], C]:
    """`--compare`: about how many keys; the command takes `compare: int | None`, None for all."""
    return click.option("--compare", default=default, show_default=True, callback=_compared, metavar="N|all", help=told)


def _compared(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    if value == "all":
        return None
    if not value.isascii() or not value.isdigit() or len(value) > 18:
        raise click.BadParameter(f"{value!r} is neither a number of keys nor all", ctx=ctx, param=param)
    return int(value)


def move_options(command: C) -> C:
    """Give a click command the options that name a move, which it takes as name, state and map_db."""
    options = (
        click.option("--name", default="default", show_default=True, metavar="NAME", help="The move's, as the application has it."),
        click.option(
            "--state", type=OutputPath(gzip=False), metavar="FILE",
            help="Where the state is kept, if the application keeps it in a file instead of on OLD.",
        ),
        click.option(
            "--map-db", multiple=True, callback=database_pairs, metavar="N=M,...", help="Keys of OLD's database N are in NEW's M."
        ),
    )  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


def setting_words(setting: Setting) -> str:
    """A setting, since when it holds, and who wanted it."""
    since = f", since {when(setting.effective_at_ms, seconds=True)} UTC" if setting.effective_at_ms else ""
    return f"{setting}{since}{f', by {printable(setting.by)}' if setting.by else ''}"


def duration(ms: float) -> str:
    """A time in two units.

    >>> duration(12_000), duration(5_400_000), duration(600_000_000)
    ('12 s', '1 h 30 min', '6 d 22 h')
    """
    seconds = round(ms / 1000)
    for unit, name, part, smaller in ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if seconds >= unit:
            rest = seconds % unit // part
            return f"{seconds // unit} {name} {rest} {smaller}" if rest else f"{seconds // unit} {name}"
    return f"{seconds} s"


def status_rows(found: DualStatus, setting: Setting) -> list[tuple[str, str]]:
    """Which keys are where."""
    rows = [("state", setting_words(setting)), ("keys on old", f"{found.listed:,}")]
    if found.checked != found.listed:
        rows.append(("looked for", f"{found.checked:,}"))
    share = f" ({100 * found.present / found.total:.1f} %{_error(found)})" if found.total else ""
    rows.append(("also on new", f"{found.present:,}{share}"))
    if found.gone:
        rows.append(("gone meanwhile", f"{found.gone:,}"))
    if found.unclear:
        rows.append(("not told", f"{found.unclear:,}"))
    if found.expiring:
        assert found.last_ms is not None
        rows.append(("on old alone", f"{found.expiring:,} that expire, the last on {_moment(found.last_ms, found.now_ms)}"))
    if found.lasting:
        rows.append(("on old alone" if not found.expiring else "", f"{found.lasting:,} that never expire"))
    if found.watched is not None:
        rows.append(("watched", _watched(found)))
    return rows


def differing(proof: CopyProof) -> int:
    """Keys that have another type, value or expiry."""
    return proof.type + proof.value + proof.expire


def proof_rows(proof: CopyProof) -> list[tuple[str, str]]:
    """How many keys were compared, and how many of them differ."""
    rows = [("compared", f"{proof.checked:,}"), ("differ", f"{differing(proof):,}")]
    return rows + ([("changed meanwhile", f"{proof.changing:,}")] if proof.changing else [])


def show_differences(proof: CopyProof, out: Output) -> None:
    """Some of the keys that differ."""
    for each in [each for each in proof.samples if each.what in _TOLD][:_MOST_SHOWN]:
        show_difference(each, WORDS[each.what], out)


def show_status(found: DualStatus, setting: Setting, out: Output, proof: CopyProof | None = None) -> None:
    """Which keys are where, and when all are on the new server."""
    out.facts(status_rows(found, setting) + ([] if proof is None else proof_rows(proof)))
    if proof is not None:
        show_differences(proof, out)
    if found.missing:
        out.line("\nif nothing else is done")
        shares = [(f"{100 * share:g} % on new", at_ms) for share, at_ms in found.reached.items()]
        out.facts([(name, "never" if at_ms is None else _moment(at_ms, found.now_ms)) for name, at_ms in shares])
    out.line(f"\n{_verdict(found)}")
    if proof is not None and differing(proof):
        out.line("\nkeys differ: repair them\n  rdbkit sync OLD NEW")
    for note in found.notes:
        out.line(f"\nnote: {printable(note)}")
    if found.samples:
        out.line("\non old alone, without an expiry")
        for name in found.samples:
            out.line(f"  {key_name(name)}")


def _error(found: DualStatus) -> str:
    return f" of those looked for, give or take {100 * found.error:.1f}" if found.picked else ""


def _moment(ms: int, now_ms: int) -> str:
    return "now" if ms <= now_ms else f"{when(ms)} UTC, in {duration(ms - now_ms)}"


def _watched(found: DualStatus) -> str:
    watched = found.watched
    assert watched is not None
    if not watched.keys:
        return "no key: none is missing that expires"
    share = 100 * watched.arrived / watched.keys
    watched_for = f"{count(watched.keys, 'key')} for {duration(watched.seconds * 1000)}"
    return f"{watched_for}: {share:.0f} % were written and are on new, {watched.gone:,} gone"


def _verdict(found: DualStatus) -> str:
    """Whether the old server may be left, and if not, what to do."""
    if found.ready:
        return "ready: each key that was looked for is on new" if found.picked else "ready: new has all keys of old"
    if found.lasting:
        return "not yet: keys without an expiry have to be copied\n  rdbkit copy OLD NEW --no-ttl --on-exists skip"
    if found.ready_ms is not None:
        return f"not yet: wait until {when(found.ready_ms)} UTC, or copy them\n  rdbkit copy OLD NEW --on-exists skip"
    return "not known: not all keys could be looked for"

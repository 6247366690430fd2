"""Loads losses.toml: every kind of loss, and the policy that decides what happens to it.

What is said of a kind or a policy anywhere is from there: the findings of `rdbkit check`, the options of the command line and what
`rdbkit convert` says of losses that are not allowed.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from rdbkit.targets.releases import release_title

if TYPE_CHECKING:
    from rdbkit.targets.target import Target


@dataclass(frozen=True)
class Policy:
    """What may be said of losses of some kinds.

    Attributes:
        name: the field of `rdbkit.Policies`.
        option: of the command line.
        choices: its words.
        help: what `--help` says of it.
        argument: the word that has an argument behind an equals sign, with that; empty for none.
        default: the word where none is given; empty for what `loss` says.
        drop: what "drop" of `loss` means here.
    """

    name: str
    option: str
    choices: tuple[str, ...]
    help: str
    argument: str = ""
    default: str = ""
    drop: str = "drop"

    @property
    def shown(self) -> tuple[str, ...]:
        """The choices as a user has to write them: with an argument where they have one."""
        word = self.argument.partition("=")[0]
        return tuple(self.argument if choice == word else choice for choice in self.choices)

    @property
    def remedy(self) -> str:
        """The option with what allows the loss."""
        allowing = [choice for choice in self.shown if choice != "fail"]
        return f"{self.option} {' or '.join([', '.join(allowing[:-1]), allowing[-1]] if allowing[1:] else allowing)}"


@dataclass(frozen=True)
class LossKind:
    """A kind of loss or note.

    Attributes:
        name: the `kind` of a `Loss`.
        severity: of the finding of `rdbkit check`: "blocker", "loss", "warning" or "note".
        one, many: words for one of it and for several.
        why: why it matters.
        code: of the finding; empty where `check` cannot meet it.
        policy: what decides it: a field of `rdbkit.Policies`.
        fix: the option of `rdbkit convert` that allows it; empty for notes.
        remedy: all that may be said instead of "fail", where that is not simply what its policy offers.
        since: the first RDB version of Redis that has it; 0 where that is no reason for the loss.
    """

    name: str
    severity: str
    one: str
    many: str
    why: str
    code: str = ""
    policy: str = "loss"
    fix: str = ""
    remedy: str = ""
    since: int = 0

    def counted(self, n: int) -> str:
        """So many of it, in words."""
        return f"{n:,} {self.one if n == 1 else self.many}"


@cache
def _table() -> dict[str, dict[str, Any]]:
    import tomllib  # late: what converts nothing does not need it

    with open(os.path.join(os.path.dirname(__file__), "losses.toml"), "rb") as file:
        return tomllib.load(file)


@cache
def policies() -> dict[str, Policy]:
    """Every policy, by its name.

    >>> policies()["pending_unowned"].remedy
    '--on-pending-unowned drop or assign=NAME'
    """
    return {name: Policy(name, **{**row, "choices": tuple(row["choices"])}) for name, row in _table()["policy"].items()}


@cache
def loss_kinds() -> dict[str, LossKind]:
    """Every kind of loss and note, by its name.

    >>> loss_kinds()["function"].code
    'RDB202'
    """
    return {name: LossKind(name, **row) for name, row in _table()["kind"].items()}


def remedy_of(kind: str, target: Target | None = None) -> str:
    """What to say of a loss that is not allowed: the options of `rdbkit convert` that allow it.

    Args:
        target: where it goes, for what helps there besides.

    >>> remedy_of("field-expiry")
    '--on-field-ttl drop-ttl, drop-field, key-min or key-max'
    """
    found = loss_kinds()[kind]
    kept = "" if target is None else how_to_keep(kind, target)
    return "; or ".join(filter(None, [found.remedy or policies()[found.policy].remedy, kept]))


def how_to_keep(kind: str, target: Target) -> str:
    """What to say of a loss that is none for the engine which runs there, only for what its documents promise; else nothing.

    >>> from rdbkit.targets.target import find_target
    >>> how_to_keep("field-expiry", find_target("azure-managed"))
    '--undocumented keeps them: Redis 7.4, which runs there, loads RDB 12, and the documents stop at RDB 11'
    """
    newest = max(target.undocumented, default=0)
    if not 0 < loss_kinds()[kind].since <= newest:
        return ""
    engine = release_title(target.release_line)
    return f"--undocumented keeps them: {engine}, which runs there, loads RDB {newest}, and the documents stop at RDB {target.rdb}"

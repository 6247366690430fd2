"""A copy from server to server as tests ask for it, and what it told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from rdbkit.live.first_pass import SharedLedger, copy_server
from rdbkit.live.loads import loads
from rdbkit.live.server import connect
from rdbkit.live.transfer import Counts, Way
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.passes.pages import Layout


@dataclass
class Copied:
    """What a copy did: `told` has database, key, what became of it and why, for each key that was not simply written."""

    counts: Counts = field(default_factory=Counts)
    ledger: SharedLedger = field(default_factory=SharedLedger)
    told: list[tuple[int, bytes, str, str]] = field(default_factory=list)

    @property
    def lost(self) -> set[tuple[int | None, bytes | None]]:
        """The keys of the ledger."""
        return {(loss.db, loss.key) for loss in self.ledger.losses if loss.key is not None}


def copied(source: str, target: str, on_exists: str = "fail", batch: int = 1000, **options: Any) -> Copied:
    """Copy between servers, by their URLs; further options are those of a conversion."""
    done = Copied()
    with connect(source) as old, connect(target) as new:
        group = 1 if old.slots() else 64
        way = Way(old, new, loads(new), ConversionOptions(**options), Layout(group, "PEXPIRETIME" in old.features), on_exists)
        done.counts = copy_server(way, done.ledger, lambda *each: done.told.append(each), batch=batch)
    return done

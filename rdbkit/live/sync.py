"""`rdbkit sync`: makes a server what another is, by comparing the two and copying what differs, until a comparison is clean.

The comparison is that of `verify-copy`; what differs is copied as `copy` does it, and looked at again in the next round.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from rdbkit.errors import TargetError
from rdbkit.live.abilities import abilities
from rdbkit.live.compare import Outcome
from rdbkit.live.connection import Address, Lost, Refused
from rdbkit.live.copy import writing
from rdbkit.live.loads import loads
from rdbkit.live.parts import PartNames
from rdbkit.live.server import WAITS, Server, connected
from rdbkit.live.transfer import Transfer, Way
from rdbkit.live.two_servers import Found, Stamp
from rdbkit.live.verify_copy import BIG, SETTLED, CopyDifference, CopyProof, Rounds, Settings
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.passes.pages import Page, page_of
from rdbkit.policy.ledger import Ledger, Loss
from rdbkit.policy.rules import Edits
from rdbkit.resp import command
from rdbkit.selection import Selection
from rdbkit.targets.target import Target, find_target
from rdbkit.text import count, json_bytes

__all__ = ["Synced", "sync"]

#: Keys that could not be written, of which it is remembered why.
_MOST_REMEMBERED: Final = 100_000
#: What the source had of a key that it did not have.
_ABSENT: Final = Stamp(0, -2)


@dataclass
class Synced:
    """What `sync` did.

    Attributes:
        proof: what the comparison found in the end: of keys that were repaired it has those that differ still.
        repaired: how many keys were written, by what was wrong with them: "missing", "type", "value", "expire". A key that
            differed again was written again, and counts again.
        deleted: keys that the source does not have, and that were deleted on the target.
        repairs: the first of the keys that were written or deleted, and why.
        ledger: what the target does not support: keys with such data were not written.
    """

    proof: CopyProof
    repaired: dict[str, int] = field(default_factory=dict)
    deleted: int = 0
    repairs: list[CopyDifference] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)

    @property
    def clean(self) -> bool:
        """Whether the last round found nothing that differs, and no key that changed all the time."""
        return self.proof.same and not self.proof.changing

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; keys that are not UTF-8 as `{"base64": ...}`."""
        rows = [asdict(each) | {"key": json_bytes(each.key)} for each in self.repairs]
        losses = [loss.to_dict() for loss in self.ledger.losses]
        return self.proof.to_dict() | {
            "clean": self.clean, "repaired": self.repaired, "deleted": self.deleted, "repairs": rows, "losses": losses,
        }  # fmt: skip


def sync(
    source: str | Server,
    target: str | Server,
    *,
    takes: Target | str | None = None,
    selection: Selection | None = None,
    pick: float | int | None = None,
    seed: int = 0,
    ttl_tolerance_ms: int = 1000,
    db_map: Mapping[int, int] | None = None,
    find_extra: bool = False,
    delete: bool = False,
    most_rounds: int = 10,
    wait_s: float = 1.0,
    big: int = BIG,
    batch: int = 1000,
    rate: float | None = None,
    samples: int = 10,
    progress: Callable[[int], object] | None = None,
) -> Synced:
    """Make the keys of a running server what they are on another. **It replaces what differs there.**

    Keys are compared as `verify_copy` does it; those that are missing or differ are written with the source's value and expiry.
    Function libraries are left as they are. Nothing is deleted without `delete`.

    Args:
        source, target: as for `verify_copy`.
        takes: what the target loads, or its name; by default it is asked.
        selection, pick, seed, ttl_tolerance_ms, db_map, big, batch, rate, progress: as for `verify_copy`.
        find_extra: list the target's keys, too, and name those that the source does not have.
        delete: delete these keys on the target.
        most_rounds: look so often at what differed before; the last look writes nothing. It ends as soon as nothing does.
        wait_s: seconds before each round but the first.
        samples: how many of the keys that were written, and of those that differ in the end, to name.

    Raises: as `verify_copy`; TargetError also where the login may not write to the target.

    Example:
        done = rdbkit.sync("redis://old:6379", "rediss://new:6380")
        print(done.clean, done.repaired)
    """
    with connected(source) as one, connected(target) as other:
        settings = Settings(
            selection or Selection(), pick, seed, ttl_tolerance_ms, dict(db_map or {}), find_extra or delete, True, most_rounds,
            wait_s, False, big, batch, rate, samples,
        )  # fmt: skip
        settings.check(one, other)
        if most_rounds < 2:
            raise ValueError("there are at least two rounds: what was written in one is looked at in the next")
        by_commands = writing(other, abilities(other), "auto").write.use == "commands"
        found = loads(other) if takes is None else find_target(takes) if isinstance(takes, str) else takes
        with closing(_Repairs(one, other, settings, progress, found, by_commands, delete)) as work:
            work.run()
            return work.synced


class _Repairs(Rounds):
    """Compares two servers in rounds, and after each writes what differs."""

    def __init__(
        self,
        source: Server,
        target: Server,
        settings: Settings,
        progress: Callable[[int], object] | None,
        takes: Target,
        by_commands: bool,
        delete: bool,
    ) -> None:
        super().__init__(source, target, settings, progress)
        self.synced = Synced(self.proof, ledger=Ledger(self._note_loss))
        self.takes = takes
        self.delete = delete
        self.by_commands = by_commands
        self.waiting: dict[bytes, tuple[Found, Outcome, Stamp]] = {}  # of the page at hand, to be written
        self.fates: dict[bytes, str] = {}  # what became of those that were not simply written
        self.unwritten: dict[tuple[int, bytes], str] = {}  # keys that were not taken, and why
        self._transfers: dict[Address, Transfer] = {}
        self._way: Way | None = None

    def close(self) -> None:
        """Close connections and temporary files."""
        self.drop_transfers()
        super().close()

    def look(self, db: int, page: Page, address: Address | None, before: Mapping[bytes, Stamp]) -> None:
        """Compare keys of one database, and write those that differ."""
        super().look(db, page, address, before)
        if self.waiting:
            self.write(db, address)

    def judge(self, db: int, found: Found, before: Stamp | None) -> None:
        """Count a key, or have it written and looked at again."""
        if self.is_last or self.is_unwanted(db, found):
            super().judge(db, found, before)
            return
        why = self.unwritten.get((db, found.name))
        outcome, stamp = self.servers.outcome(db, found, explains=True)
        if outcome.what in SETTLED:
            self.settle(outcome)
        elif why is not None:
            self.report(db, found, Outcome("refused", details=[why]), True)
        elif outcome.what == "refused":
            self.report(db, found, outcome, True)
        elif outcome.what != "extra":
            self.waiting[found.name] = found, outcome, stamp
        elif before == _ABSENT and self.delete:
            self.extras.add(self.database(db), found.name, _ABSENT)
        elif before == _ABSENT:
            self.report(db, found, outcome, True)
        else:
            self.left.add(db, found.name, _ABSENT)

    def write(self, db: int, address: Address | None) -> None:
        """Write the keys that wait."""
        waiting, self.waiting = self.waiting, {}
        self.fates.clear()
        for large in (False, True):
            names = [name for name, (found, _, _) in waiting.items() if (found.unlike is None) == large]
            if names:
                self.move(db, names, address, large)
        for name, (found, outcome, stamp) in waiting.items():
            self.left.add(db, name, stamp)
            if self.fates.get(name, "equal") == "equal" and (db, name) not in self.unwritten:
                self.note_repair(self.difference(db, found, outcome, outcome.what))

    def note_repair(self, repair: CopyDifference) -> None:
        """A key was written or deleted."""
        if repair.what == "extra":
            self.synced.deleted += 1
        else:
            self.synced.repaired[repair.what] = self.synced.repaired.get(repair.what, 0) + 1
        if len(self.synced.repairs) < self.settings.samples:
            self.synced.repairs.append(repair)

    def move(self, db: int, names: list[bytes], address: Address | None, large: bool) -> None:
        """Copy keys; `large` ones are read and written in pieces. Raises: TargetError."""
        self.servers.rate_limiter.take(len(names))
        waits = iter(WAITS)
        left = names
        while left:
            try:
                for node, part in list(self.servers.by_node(page_of(left), address)):
                    some = part.keys()
                    transfer = self.transfer(node)
                    (transfer.move_large if large else transfer.move)(db, some, replace=True)
                    done = set(some)
                    left = [name for name in left if name not in done]
            except (Lost, Refused) as e:
                self.drop_transfers()
                address = None
                wait = next(waits, None)
                if wait is None:
                    raise TargetError(f"connection lost: {e}; run this again", source=str(self.source.url)) from None
                time.sleep(wait)

    def transfer(self, node: Address) -> Transfer:
        """What copies from a node of the source. Raises: Lost, Refused, TargetError."""
        if node not in self._transfers:
            if self._way is None:
                map_db = {row.db: row.target_db for row in self.proof.databases}
                self._way = Way(
                    self.source, self.target, self.takes, ConversionOptions(edits=Edits(map_db=map_db), on_error="skip"),
                    abilities(self.source).layout(self.source), "replace", PartNames(secrets.token_hex(6)),
                    self.by_commands,
                )  # fmt: skip
            self._transfers[node] = Transfer(self._way, self.source.dial(node), self.synced.ledger, self._note_fate)
        return self._transfers[node]

    def drop_transfers(self) -> None:
        """Close the connections to the source, which are not what they were."""
        for transfer in self._transfers.values():
            transfer.close()
        self._transfers.clear()

    def _note_fate(self, db: int, key: bytes, what: str, detail: str) -> None:
        """A key was not simply written."""
        self.fates[key] = what
        if what == "refused":
            self._remember(db, key, f"it was not written: {detail}")

    def _note_loss(self, loss: Loss) -> None:
        """The target does not support something of a key."""
        if loss.key is not None and loss.db is not None and not loss.note:
            self._remember(loss.db, loss.key, f"it was not written, since the target does not support {loss.what}")

    def _remember(self, db: int, key: bytes, why: str) -> None:
        if len(self.unwritten) < _MOST_REMEMBERED:
            self.unwritten[db, key] = why

    def look_at_extras(self) -> None:
        """Keys that the source does not have: delete them, or only name them."""
        if not self.delete:
            super().look_at_extras()
            return
        if not self.proof.keys:
            raise TargetError(
                "it has no keys, and --delete would empty the target: nothing was deleted", source=str(self.source.url)
            )
        for db, names in self.extras.batches(self.settings.batch):
            extra = self.still_extra(db, list(names))
            replies = self.target.ask(db, [(name, [command(b"DEL", name)]) for name in extra])
            for name, (reply,) in zip(extra, replies, strict=True):
                found = CopyDifference("extra", (self.source_databases(db)[0], db), name)
                if isinstance(reply, int):
                    self.note_repair(found)
                    continue
                self.proof.refused += 1
                found.what, found.details = "refused", [f"it was not deleted: {reply}"]
                if len(self.proof.samples) < self.settings.samples:
                    self.proof.samples.append(found)

    def explain(self) -> None:
        """Notes that help to understand the rest."""
        super().explain()
        if self.proof.rounds >= self.most_rounds and (self.proof.different or self.proof.changing):
            self.proof.notes.append(f"keys still differ after {count(self.proof.rounds, 'round')}: run this again, or allow more")

"""What of a snapshot's data could not be taken along: every loss, with its key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from rdbkit.text import json_bytes

#: How many entries are kept one by one, and what names and words they may have together, in bytes; all are counted.
KEPT: Final = 1000
_KEPT_BYTES: Final = 4 << 20


@dataclass(frozen=True, slots=True)
class Loss:
    """Something that the target cannot be given.

    `kind` is one of those in losses.toml, which has words for each: a type of key, as "stream" or "module", of which keys are lost,
    or what else is lost, as "field-expiry" and "function", or noted, as "eviction-hints".

    `what` says it in words, `count` how many of it (fields, pending entries, ...); `db` and `key` are None where it belongs to
    no key. A `note` is no loss of data: the target recomputes it, or has no use for it.
    """

    kind: str
    what: str
    count: int
    db: int | None
    key: bytes | None
    note: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; a key that is not UTF-8 as `{"base64": ...}`."""
        return {
            "db": self.db,
            "key": None if self.key is None else json_bytes(self.key),
            "kind": self.kind,
            "what": self.what,
            "count": self.count,
            "note": self.note,
        }


class Ledger:
    """Losses as they come.

    Args:
        loss_callback: called with each of them, for instance to write it to a file.

    Attributes:
        losses: the first `KEPT` that are no notes, fewer where their names are very long.
        counts, notes: the counts of all of them, and of all notes, summed up by kind.
        keys: by kind, how many keys (or functions and the like) each loss was met in.
        forbidden: by kind, how many of the losses the policies in force do not allow.
    """

    def __init__(self, loss_callback: Callable[[Loss], object] | None = None) -> None:
        self.losses: list[Loss] = []
        self.counts: dict[str, int] = {}
        self.notes: dict[str, int] = {}
        self.keys: dict[str, int] = {}
        self.forbidden: dict[str, int] = {}
        self._loss_callback = loss_callback
        self._kept_bytes = 0

    def add(self, loss: Loss, forbidden: bool = False) -> None:
        """Enter a loss."""
        counts = self.notes if loss.note else self.counts
        counts[loss.kind] = counts.get(loss.kind, 0) + loss.count
        self.keys[loss.kind] = self.keys.get(loss.kind, 0) + 1
        if forbidden:
            self.forbidden[loss.kind] = self.forbidden.get(loss.kind, 0) + loss.count
        if not loss.note and len(self.losses) < KEPT and self._kept_bytes < _KEPT_BYTES:
            self._kept_bytes += len(loss.what) + len(loss.key or b"")
            self.losses.append(loss)
        if self._loss_callback is not None:
            self._loss_callback(loss)

"""A copy from server to server as tests ask for it, and what it told."""

from __future__ import annotations

from typing import Any

from rdbkit.live.copy import Copied, copy

ALL_SAMPLES = 100_000


def copied(source: str, target: str, on_exists: str = "fail", **options: Any) -> Copied:
    """Copy between servers, by their URLs; `samples` has every key that is not on the target as it is on the source."""
    return copy(source, target, on_exists=on_exists, samples=ALL_SAMPLES, **options)


def lost(done: Copied) -> set[tuple[int | None, bytes | None]]:
    """The keys of the ledger."""
    return {(loss.db, loss.key) for loss in done.ledger.losses if loss.key is not None}

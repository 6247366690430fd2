"""A copy from server to server as tests ask for it, and what it told."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from rdbkit.live.copy import Copied, copy
from rdbkit.storage.rate_limiter import RateLimiter

from ..processes import until

ALL_SAMPLES = 100_000


def copied(source: str, target: str, on_exists: str = "fail", **options: Any) -> Copied:
    """Copy between servers, by their URLs; `samples` has every key that is not on the target as it is on the source."""
    return copy(source, target, on_exists=on_exists, samples=ALL_SAMPLES, **options)


def lost(done: Copied) -> set[tuple[int | None, bytes | None]]:
    """The keys of the ledger."""
    return {(loss.db, loss.key) for loss in done.ledger.losses if loss.key is not None}


@contextmanager
def in_step(*moved: list[int], pages: int = 4) -> Iterator[None]:
    """Each of the first pages of a copy waits until one more slot has moved; so many have when it ends, however fast it is."""
    taken = itertools.count(1)

    def wait(_limiter: RateLimiter, _amount: float) -> None:
        page = min(next(taken), pages)
        until(lambda: all(len(each) >= page for each in moved))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RateLimiter, "take", wait)
        yield

"""How fast a copy may be, for its source and for what lies between."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Final

from rdbkit.storage.rate_limiter import RateLimiter

__all__ = ["LEAST_RATE", "Pace", "batch_at", "check_rate"]

#: Keys a second; with fewer, the pauses were longer than a machine can wait.
LEAST_RATE: Final = 0.001


def check_rate(rate: float | None) -> None:
    """Raise ValueError for a number of keys a second that cannot be."""
    if rate is not None and not LEAST_RATE <= rate < math.inf:
        raise ValueError(f"a rate is a number of keys a second, at least {LEAST_RATE}")


def batch_at(rate: float | None, batch: int) -> int:
    """How many keys to ask for at a time: a quarter of those of a second, so that they go evenly, and `batch` at most.

    >>> batch_at(None, 1000), batch_at(100, 1000), batch_at(1, 1000)
    (1000, 25, 1)
    """
    return batch if rate is None else max(1, min(batch, int(rate / 4)))


@dataclass
class Pace:
    """How a source is read.

    Args:
        batch: keys to ask for at a time, about.
        big: bytes above which a value is not read or written whole; 0 to look at none.
        keys: lets so many keys a second pass.
        value_bytes: lets so many bytes of values a second pass.
        max_latency_ms: how much longer than before the source may take to answer others; pages shrink until it does. None for
            whatever it takes.
    """

    batch: int = 1000
    big: int = 0
    keys: RateLimiter = field(default_factory=lambda: RateLimiter(None))
    value_bytes: RateLimiter = field(default_factory=lambda: RateLimiter(None))
    max_latency_ms: float | None = None

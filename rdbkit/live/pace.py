"""How fast a copy may be, for its source and for what lies between."""

from __future__ import annotations

from dataclasses import dataclass, field

from rdbkit.storage.rate_limiter import RateLimiter

__all__ = ["Pace"]


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

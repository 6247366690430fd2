"""How fast something may go: what was asked for is waited for."""

from __future__ import annotations

import threading
import time


class RateLimiter:
    """Lets so many units a second pass: bytes of an upload, keys of a comparison.

    The first go at once; what was not used while something else was waited for is not made up for. Threads may share it.
    """

    def __init__(self, rate: float | None) -> None:
        """`rate` is in units a second; None lets all pass."""
        self._rate = rate
        self._due = 0.0
        self._lock = threading.Lock()

    def take(self, units: int) -> None:
        """Wait until `units` more may go."""
        if self._rate is None:
            return
        with self._lock:
            now = time.monotonic()
            begin = max(now, self._due)
            self._due = begin + units / self._rate
        if begin > now:
            time.sleep(begin - now)

"""How long others wait for a server that is read: pages shrink until a PING beside them is answered soon enough."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Final

from rdbkit.live.connection import Connection, Lost
from rdbkit.resp import command

__all__ = ["LatencyGuard", "PageSize"]

_LEAST: Final = 10
_PING: Final = command(b"PING")
#: Seconds between two PINGs.
_EVERY_S: Final = 0.05
#: PINGs whose fastest answer tells how far away the server is.
_FIRST: Final = 5


class PageSize:
    """How many keys to ask for at a time: fewer by half after each slow answer, a few more after each fast one.

    Args:
        most: keys, where nothing is slow.
        max_latency_ms: how long an answer may take beyond the way there and back.

    >>> size = PageSize(1000, 2.0)
    >>> for ms in (0.3, 0.2, 0.4, 0.3, 0.2):  # before anything is asked for
    ...     size.calibrate(ms)
    >>> size.observe(9.0), size.observe(1.0), size.keys
    (None, None, 550)
    """

    def __init__(self, most: int, max_latency_ms: float) -> None:
        self.most = most
        self.keys = most
        self._limit_ms = max_latency_ms
        self._way_ms: float | None = None

    def calibrate(self, ms: float) -> None:
        """An answer took this long while nothing was asked for."""
        self._way_ms = ms if self._way_ms is None else min(ms, self._way_ms)

    def observe(self, ms: float) -> None:
        """An answer took this long, in milliseconds."""
        if ms - (self._way_ms or 0.0) > self._limit_ms:
            self.keys = max(_LEAST, self.keys // 2)
        else:
            self.keys = min(self.most, self.keys + max(1, self.most // 20))


class LatencyGuard:
    """Asks a node now and then, on a connection of its own, how long it takes to answer. A context manager.

    Args:
        connection: to the node; it is closed at the end.
        size: what the answers decide.
    """

    def __init__(self, connection: Connection, size: PageSize) -> None:
        self.size = size
        self._connection = connection
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> LatencyGuard:
        with suppress(Lost):
            for _ in range(_FIRST):
                self.size.calibrate(self._ping())
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        while not self._ended.wait(_EVERY_S):
            try:
                self._connection.open()
                self.size.observe(self._ping())
            except Lost:
                continue  # who reads the keys meets it, too

    def _ping(self) -> float:
        begun = time.perf_counter()
        self._connection.ask(_PING)
        return (time.perf_counter() - begun) * 1000

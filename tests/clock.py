"""A clock that only waiting moves, for tests of what waits."""

from __future__ import annotations

from types import SimpleNamespace

import pytest


class Clock:
    """Stands in for `time` in rdbkit.storage.rate_limiter; `now` is what has been waited for, in seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("rdbkit.storage.rate_limiter.time", SimpleNamespace(monotonic=lambda: self.now, sleep=self.sleep))

    def sleep(self, seconds: float) -> None:
        self.now += seconds

"""rdbkit.storage.rate_limiter, with a clock of the tests' own."""

from __future__ import annotations

import pytest

from rdbkit.storage.rate_limiter import RateLimiter

from ..clock import Clock


def test_units_wait_for_those_before_them(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    pace = RateLimiter(10)
    pace.take(5)
    assert clock.now == 0
    pace.take(20)
    assert clock.now == pytest.approx(0.5)
    pace.take(1)
    assert clock.now == pytest.approx(2.5)


def test_what_was_not_used_is_not_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    pace = RateLimiter(10)
    pace.take(5)
    clock.now = 100
    pace.take(5)
    pace.take(5)
    assert clock.now == pytest.approx(100.5)


def test_no_rate_lets_all_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    pace = RateLimiter(None)
    for _ in range(10):
        pace.take(1 << 40)
    assert clock.now == 0

"""Pages that shrink where a server answers slowly, and grow again."""

from __future__ import annotations

from rdbkit.live.latency import PageSize


def sized(*answers: float, most: int = 1000, limit: float = 2.0, way: float = 5.0) -> list[int]:
    size = PageSize(most, limit)
    size.calibrate(way + 3)
    size.calibrate(way)
    found = []
    for ms in answers:
        size.observe(ms)
        found.append(size.keys)
    return found


def test_a_slow_answer_halves_a_page_and_fast_ones_let_it_grow() -> None:
    assert sized(6.9, 7.1, 7.1, 6.9, 6.9) == [1000, 500, 250, 300, 350]
    assert sized(*[5.0] * 30, most=100) == [100] * 30


def test_a_page_has_some_keys_however_slow_a_server_is() -> None:
    assert sized(*[100.0] * 10)[-1] == 10
    assert sized(100.0, most=20) == [10]


def test_the_way_to_a_far_server_is_no_slowness() -> None:
    assert sized(151.0, way=150.0) == [1000]

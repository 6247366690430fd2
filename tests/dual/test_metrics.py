"""Counters: by their labels, as JSON and as Prometheus reads them."""

from __future__ import annotations

import pytest

from rdbkit.dual.metrics import Metrics


def test_counts_are_reported_and_written_as_prometheus_reads_them() -> None:
    metrics = Metrics()
    metrics.count("transfers", 3)
    metrics.count("reads", 2, "old")
    metrics.count("reads", 1, "new")
    metrics.count("differs", 1, "GET", 'a "quoted"\nvalue\\')
    metrics.observe("old", 0.25)
    metrics.observe("old", 0.5)
    metrics.gauge("waiting", "Keys that wait.", lambda: 7)
    report = metrics.report()
    assert report["transfers"] == 3
    assert report["failed"] == 0
    assert report["reads"] == {"old": 2, "new": 1}
    assert report["waiting"] == 7
    assert report["latency"] == {"old": {"count": 2, "seconds": 0.75}}
    assert metrics.total("reads") == 3
    lines = metrics.text().splitlines()
    assert "# TYPE rdbkit_dual_transfers_total counter" in lines
    assert "rdbkit_dual_transfers_total 3" in lines
    assert "rdbkit_dual_failed_total 0" in lines
    assert 'rdbkit_dual_reads_total{side="old"} 2' in lines
    assert 'rdbkit_dual_differs_total{command="GET",what="a \\"quoted\\"\\nvalue\\\\"} 1' in lines
    assert "rdbkit_dual_waiting 7" in lines
    assert 'rdbkit_dual_command_seconds_sum{side="old"} 0.750000' in lines


def test_what_is_not_counted_here_is_an_error() -> None:
    metrics = Metrics()
    with pytest.raises(KeyError):
        metrics.count("nothing")
    with pytest.raises(ValueError, match="labels"):
        metrics.count("reads")


def test_labels_are_bounded() -> None:
    metrics = Metrics()
    for number in range(2000):
        metrics.count("unknown", 1, f"CMD{number}")
    found = metrics.report()["unknown"]
    assert len(found) == 1001
    assert sum(found.values()) == metrics.total("unknown") == 2000


@pytest.mark.parametrize("hide", [False, True])
def test_samples_name_keys_unless_these_are_hidden(hide: bool) -> None:
    metrics = Metrics(hide_keys=hide)
    for number in range(150):
        metrics.sample("failed", 0, b"key%d" % number, "why")
    samples = metrics.report()["samples"]
    assert len(samples) == 100
    assert samples[-1] == {"what": "failed", "db": 0, "key": None if hide else "key149", "detail": "why"}

"""What is counted: what is on its way to the other side, what went wrong, what differs; as a dict, and as Prometheus takes it."""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from rdbkit.text import json_bytes

__all__ = ["Metrics", "Sample"]

#: What is counted: its labels, and what it is.
_COUNTERS: Final[dict[str, tuple[tuple[str, ...], str]]] = {
    "marks": ((), "Keys that were marked as written."),
    "transfers": ((), "Keys that were written on the other side."),
    "deleted": ((), "Keys that were deleted on the other side, since they are gone on this one."),
    "failed": ((), "Keys that the other side did not take."),
    "outages": ((), "How often a side could not be reached."),
    "rechecked": ((), "Keys that were compared after they had been written."),
    "recheck_differs": ((), "Keys that were not the same when they were compared, and were written again."),
    "recheck_skipped": ((), "Keys that were not compared, since there were too many."),
    "compared": ((), "Reads that were asked of both sides."),
    "differs": (("command", "what"), "Reads whose answers differed, also a second later."),
    "reads": (("side",), "Reads by the side that answered."),
    "misses": (("side",), "Reads that found nothing."),
    "fallbacks": ((), "Reads that the old side answered, since the new one had nothing."),
    "unknown": (("command",), "Commands of which nobody knows what they write."),
    "needs_sync": (("why",), "What was not brought over and needs a sync."),
}
_MOST_LABELS: Final = 1000
_MOST_SAMPLES: Final = 100
_PREFIX: Final = "rdbkit_dual_"


class Sample(NamedTuple):
    """A key that differs or that was not taken, and why. `key` is None where keys are hidden."""

    what: str
    db: int
    key: bytes | None
    detail: str


_all: Final[weakref.WeakSet[Metrics]] = weakref.WeakSet()


class Metrics:
    """Counts; any thread may add.

    Args:
        hide_keys: samples have no names of keys.

    Example:
        metrics.count("reads", 1, "old")
        print(metrics.text())
    """

    def __init__(self, hide_keys: bool = False) -> None:
        self._hide_keys = hide_keys
        self._gauges: dict[str, tuple[str, Callable[[], float]]] = {}
        self._begin()
        _all.add(self)

    def _begin(self) -> None:
        """As in a process in which nothing was counted yet."""
        self._counts: dict[tuple[str, tuple[str, ...]], int] = {}
        self._latency: dict[str, tuple[int, float]] = {}
        self._samples: deque[Sample] = deque(maxlen=_MOST_SAMPLES)
        self._lock = threading.RLock()  # a signal's handler may count, too

    # -- counting

    def count(self, name: str, number: int = 1, *labels: str) -> None:
        """Count so many more. Raises: KeyError for what is not counted here; ValueError for other labels than it has."""
        names = _COUNTERS[name][0]
        if len(names) != len(labels):
            raise ValueError(f"{name} has the labels {names}, not {labels}")
        with self._lock:
            if (name, labels) not in self._counts and len(self._counts) >= _MOST_LABELS:
                labels = ("other",) * len(labels)
            self._counts[name, labels] = self._counts.get((name, labels), 0) + number

    def observe(self, side: str, seconds: float) -> None:
        """A command of the caller took so long on a side."""
        with self._lock:
            number, total = self._latency.get(side, (0, 0.0))
            self._latency[side] = number + 1, total + seconds

    def gauge(self, name: str, about: str, read: Callable[[], float]) -> None:
        """Something that has a value now: what it is, and what gives it."""
        self._gauges[name] = about, read

    def sample(self, what: str, db: int, key: bytes, detail: str) -> None:
        """Remember a key of which something is to be told; the last hundred are kept."""
        self._samples.append(Sample(what, db, None if self._hide_keys else key, detail))

    # -- telling

    def total(self, name: str) -> int:
        """How many were counted, whatever their labels. Raises: KeyError."""
        _COUNTERS[name]
        with self._lock:
            return sum(number for (counted, _), number in self._counts.items() if counted == name)

    def report(self) -> dict[str, Any]:
        """All of it as plain JSON types: numbers, for those with labels a dict, and `samples`."""
        with self._lock:
            counts, latency, samples = dict(self._counts), dict(self._latency), list(self._samples)
        found: dict[str, Any] = {}
        for name, (labels, _) in _COUNTERS.items():
            if not labels:
                found[name] = counts.get((name, ()), 0)
            else:
                found[name] = {",".join(values): number for (counted, values), number in counts.items() if counted == name}
        found |= {name: read() for name, (_, read) in self._gauges.items()}
        found["latency"] = {side: {"count": number, "seconds": total} for side, (number, total) in latency.items()}
        found["samples"] = [
            {"what": each.what, "db": each.db, "key": None if each.key is None else json_bytes(each.key), "detail": each.detail}
            for each in samples
        ]
        return found

    def text(self) -> str:
        """All of it in the text format of Prometheus."""
        with self._lock:
            counts, latency = dict(self._counts), dict(self._latency)
        lines: list[str] = []
        for name, (labels, about) in _COUNTERS.items():
            rows = {values: number for (counted, values), number in counts.items() if counted == name}
            if not labels:
                rows.setdefault((), 0)
            lines += [f"# HELP {_PREFIX}{name}_total {about}", f"# TYPE {_PREFIX}{name}_total counter"]
            lines += [f"{_PREFIX}{name}_total{_labels(labels, values)} {number}" for values, number in rows.items()]
        for name, (about, read) in self._gauges.items():
            lines += [f"# HELP {_PREFIX}{name} {about}", f"# TYPE {_PREFIX}{name} gauge", f"{_PREFIX}{name} {read():.6g}"]
        name = f"{_PREFIX}command_seconds"
        lines += [f"# HELP {name} How long commands of the caller took, by side.", f"# TYPE {name} summary"]
        for side, (number, total) in latency.items():
            found = _labels(("side",), (side,))
            lines += [f"{name}_count{found} {number}", f"{name}_sum{found} {total:.6f}"]
        return "\n".join(lines) + "\n"


def _labels(names: tuple[str, ...], values: tuple[str, ...]) -> str:
    if not names:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True)) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _begin_all() -> None:
    """In a forked process: it counts for itself, and whoever held the lock is not here."""
    for metrics in _all:
        metrics._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_all)

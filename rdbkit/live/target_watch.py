"""Whether a target still has what it took: one that has restarted, failed over or was emptied may have lost it without a word."""

from __future__ import annotations

from typing import Final

from rdbkit.errors import TargetError
from rdbkit.live.copy_state import CopyState
from rdbkit.live.databases import databases_of, keys_of
from rdbkit.live.processes import run_ids
from rdbkit.live.server import Server

__all__ = ["TargetWatch"]

#: How often a target may restart.
_MOST_RESTARTS: Final = 3


class TargetWatch:
    """Knows which processes a target is, also of an earlier run.

    Attributes:
        restarts: how often it may have lost what it took.
    """

    def __init__(self, target: Server, state: CopyState) -> None:
        self.restarts = 0
        self._target = target
        self._state = state
        self._processes: set[str] = set()

    def begins_anew(self, written: int) -> bool:
        """Whether the target is not what an earlier run has written so many keys into: then the state forgets how far that was.

        Raises: TargetError where it cannot be reached.
        """
        now = self._processes = run_ids(self._target)
        before = self._state.fact("target")
        is_another = before is not None and not now.issuperset(before)
        if before is None or is_another:
            self._state.set_fact("target", sorted(now))
        if not is_another and not (written and self._has_fewer(written)):
            return False
        self._state.forget_lanes()
        self.restarts += 1
        return True

    def has_restarted(self) -> bool:
        """Whether a process of the target is no longer there, and with it what it had taken, perhaps.

        Raises: TargetError where that happens too often, or it cannot be reached.
        """
        now = run_ids(self._target)
        before, self._processes = self._processes, now
        if now.issuperset(before):
            return False
        self.restarts += 1
        if self.restarts > _MOST_RESTARTS:
            raise TargetError("it restarts again and again; keys written to it may be lost", source=str(self._target.url))
        return True

    def _has_fewer(self, keys: int) -> bool:
        """Whether the target tells that it has fewer keys."""
        found = keys_of(self._target, databases_of(self._target))
        return found is not None and found < keys

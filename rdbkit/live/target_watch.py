"""Whether a target still has what it took: one that has restarted, failed over or was emptied may have lost it without a word."""

from __future__ import annotations

import re
from typing import Final

from rdbkit.errors import TargetError
from rdbkit.live.copy_state import CopyState
from rdbkit.live.databases import databases_of, keys_of
from rdbkit.live.processes import run_ids
from rdbkit.live.server import Server
from rdbkit.resp import command

__all__ = ["TargetWatch"]

#: How often a target may lose what it took.
_MOST_LOSSES: Final = 3
_COMMANDS: Final = command(b"INFO", b"commandstats")
_FLUSHES: Final = re.compile(rb"(?m)^cmdstat_flush(?:all|db):calls=(\d+)")


class TargetWatch:
    """Knows which processes a target is, also of an earlier run, and how often it was flushed.

    Attributes:
        losses: how often it may have lost what it took.
    """

    def __init__(self, target: Server, state: CopyState) -> None:
        self.losses = 0
        self._target = target
        self._state = state
        self._processes: set[str] = set()
        self._flushes = 0

    def begins_anew(self, written: int) -> bool:
        """Whether the target is not what an earlier run has written so many keys into: then the state forgets how far that was.

        Raises: TargetError where it cannot be reached.
        """
        now = self._processes = run_ids(self._target)
        self._flushes = _flushes(self._target)
        before = self._state.fact("target")
        is_another = before is not None and not now.issuperset(before)
        if before is None or is_another:
            self._state.set_fact("target", sorted(now))
        if not is_another and not (written and self._has_fewer(written)):
            return False
        self._state.forget_lanes()
        self.losses += 1
        return True

    def has_lost(self) -> bool:
        """Whether the target may have lost what it had taken since this was last asked: a process is gone, or it was flushed.

        Raises: TargetError where that happens too often, or it cannot be reached.
        """
        processes, flushes = run_ids(self._target), _flushes(self._target)
        is_as_before = processes.issuperset(self._processes) and flushes <= self._flushes
        self._processes, self._flushes = processes, flushes
        if is_as_before:
            return False
        self.losses += 1
        if self.losses > _MOST_LOSSES:
            raise TargetError(
                "it restarts or is flushed again and again; keys written to it may be lost", source=str(self._target.url)
            )
        return True

    def _has_fewer(self, keys: int) -> bool:
        """Whether the target tells that it has fewer keys."""
        found = keys_of(self._target, databases_of(self._target))
        return found is not None and found < keys


def _flushes(target: Server) -> int:
    """How often a server was flushed (FLUSHALL, FLUSHDB) since it started; 0 where it does not tell."""
    infos = [reply for (reply,) in target.ask_each_node(0, [_COMMANDS]) if isinstance(reply, bytes)]
    return sum(int(calls) for info in infos for calls in _FLUSHES.findall(info))

"""How far a move between two caches has come: its states, the steps between them, and what each means for a command."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, Literal, NamedTuple, TypeAlias

__all__ = ["BEGINNING", "Setting", "Side", "State", "check_step", "in_force", "is_forward", "mirrored", "primary", "reads_new"]

#: One of the two caches.
Side: TypeAlias = Literal["old", "new"]


class State(StrEnum):
    """How far a move has come.

    OLD: the new cache is not used. SHADOW: what is written to the old one is brought to the new one. DIAL: the same, and a share
    of the keys is read from the new one. NEW: the new one is used, and what is written to it is brought to the old one, so that
    there is a way back. DONE: the old one is not used any more.
    """

    OLD = "old"
    SHADOW = "shadow"
    DIAL = "dial"
    NEW = "new"
    DONE = "done"


class Setting(NamedTuple):
    """What all processes do from a moment on.

    Attributes:
        state: how far the move has come.
        percent: in the state DIAL, how many of a hundred keys are read from the new cache.
        effective_at_ms: the moment, in Unix milliseconds of the clock that the state is kept with.
        epoch: how many settings there were before it; a later one has a higher number.
        by: who wanted it, as user@host.
    """

    state: State
    percent: float = 0.0
    effective_at_ms: int = 0
    epoch: int = 0
    by: str = ""

    def __str__(self) -> str:
        return f"{self.state} {self.percent:g} %" if self.state is State.DIAL else str(self.state)


#: What holds before anything has been set.
BEGINNING: Final = Setting(State.OLD)
_ORDER: Final = tuple(State)
_PRIMARY: Final[dict[State, Side]] = {
    State.OLD: "old", State.SHADOW: "old", State.DIAL: "old", State.NEW: "new", State.DONE: "new",
}  # fmt: skip
_MIRRORED: Final[dict[State, Side | None]] = {
    State.OLD: None, State.SHADOW: "new", State.DIAL: "new", State.NEW: "old", State.DONE: None,
}  # fmt: skip
#: Keys fall into so many groups, the same in every process and every run.
_GROUPS: Final = 10_000


def primary(state: State) -> Side:
    """The cache that commands go to, and whose replies count."""
    return _PRIMARY[state]


def mirrored(state: State) -> Side | None:
    """The cache that what is written to the primary is brought to; None for neither."""
    return _MIRRORED[state]


def reads_new(setting: Setting, key: bytes) -> bool:
    """Whether a key is read from the new cache: for a given percentage the same in every process, and still so for a higher one.

    >>> [reads_new(Setting(State.DIAL, percent), b"user:1") for percent in (0, 50, 100)]
    [False, True, True]
    """
    if setting.state is State.DIAL:
        return zlib.crc32(key) % _GROUPS < setting.percent * (_GROUPS // 100)
    return _PRIMARY[setting.state] == "new"


def in_force(settings: Sequence[Setting], now_ms: float) -> Setting:
    """Which of these settings, the oldest first, holds at a moment."""
    return next((each for each in reversed(settings) if each.effective_at_ms <= now_ms), BEGINNING)


def is_forward(before: Setting, after: Setting) -> bool:
    """Whether one goes on with the move: to a later state, or to more keys that are read from the new cache."""
    return (_ORDER.index(before.state), before.percent) < (_ORDER.index(after.state), after.percent)


def check_step(now: Setting, state: State, percent: float = 0.0) -> None:
    """Whether one may go from a setting to a state: to the one before or behind it, and in DIAL to another percentage.

    Raises: ValueError, which says what the next steps are.

    >>> check_step(Setting(State.OLD), State.NEW)
    Traceback (most recent call last):
    ValueError: from old one cannot go to new at once: the next step is shadow
    """
    if not 0 <= percent <= 100 or math.isnan(percent):
        raise ValueError("a percentage is a number from 0 to 100")
    if percent and state is not State.DIAL:
        raise ValueError(f"a percentage goes with the state dial, not with {state}")
    if state is now.state:
        if state is not State.DIAL or percent == now.percent:
            raise ValueError(f"the state is {now} already")
        return
    at = _ORDER.index(now.state)
    nearest = _ORDER[max(at - 1, 0) : at] + _ORDER[at + 1 : at + 2]
    if state not in nearest:
        raise ValueError(f"from {now.state} one cannot go to {state} at once: the next step is {' or '.join(nearest)}")

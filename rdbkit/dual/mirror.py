"""What a proxy brings to the other side: writes on the side in use, whichever that is at the moment."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

from rdbkit.dual.cutover import NotSwitched
from rdbkit.dual.engine import Engine, ServerOpener
from rdbkit.dual.marks import Marks
from rdbkit.dual.metrics import Metrics
from rdbkit.dual.states import Side, State, mirrored, primary
from rdbkit.operations.conversion_options import ConversionOptions

__all__ = ["Mirror"]

#: Keys that were written last, which are compared before a switch.
_CHECKED: Final = 1000
_END_S: Final = 5.0


class Mirror:
    """Marks, and the engine that brings them over in one direction or the other, or in none.

    Its methods wait, and are for one thread at a time.

    Args:
        sides: what connects to each.
        metrics: where everything is counted.
        most_marks: so many keys may wait.
        conversion: how to convert values that the other side does not support.

    Attributes:
        marks: what was written on the side in use; whoever adds asks `is_on` first.
        is_on: whether anything is brought over.
    """

    def __init__(
        self,
        sides: Mapping[Side, ServerOpener],
        metrics: Metrics,
        most_marks: int = 1_000_000,
        conversion: ConversionOptions | None = None,
    ) -> None:
        self._sides = sides
        self._metrics = metrics
        self._conversion = conversion
        self.marks = Marks(most_marks)
        self.is_on = False
        self._engine: Engine | None = None
        self._synced = 0  # what needed a sync when there was the last one

    @property
    def is_behind_s(self) -> float:
        """For how many seconds the key has waited that has waited longest."""
        return 0.0 if self._engine is None else self._engine.is_behind_s

    @property
    def needs_sync(self) -> bool:
        """Whether the other side lacks something that no mark stands for."""
        engine = self._engine
        told = self._metrics.total("needs_sync") - self._synced
        return bool(told or self.marks.dropped or (engine is not None and engine.unwritten))

    def synced(self) -> None:
        """All that was missing until now is there: `sync` has written it."""
        self._synced = self._metrics.total("needs_sync")
        self.marks.dropped = 0
        if self._engine is not None:
            self._engine.forget_unwritten()

    def turn(self, state: State) -> None:
        """Do what a state asks for, where no switch is needed for it. Raises: NotSwitched where the engine does not end."""
        other = mirrored(state)
        if other is None:
            self.is_on = False
            self.stop(_END_S)
        elif self._engine is None:
            self.start(primary(state))

    # -- as Mirrored

    def drain(self, wait_s: float) -> bool:
        """Whether all that was marked before is on the other side within this time."""
        return self._engine is None or self._engine.drain(wait_s)

    def settle(self, wait_s: float) -> bool:
        """Get ready for a pause that is short: bring over what is marked, and leave other work for later; whether that is done."""
        return self._engine is None or (self._engine.settle(wait_s) and self._engine.drain(wait_s))

    def check(self, wait_s: float) -> int:
        """Compare keys that were written last. Returns: how many. Raises: NotSwitched where one differs."""
        engine = self._engine
        if engine is None:
            return 0
        if self.needs_sync:
            raise NotSwitched("the other side lacks keys that were written here: make it equal with `rdbkit sync`")
        found = engine.compare_now(_CHECKED, wait_s)
        if found is None:
            raise NotSwitched("the keys that were written last were not compared in time")
        checked, differ = found
        if differ:
            raise NotSwitched(f"{differ:,} of the {checked:,} keys that were written last differ on the other side")
        return checked

    def stop(self, wait_s: float) -> None:
        """Nothing is written to the other side from here on. Raises: NotSwitched where that takes longer."""
        engine, self._engine = self._engine, None
        if engine is not None and not engine.close(max(wait_s, 0.0)):
            raise NotSwitched("what brings writes to the other side does not end")

    def start(self, primary: Side) -> None:
        """Bring over what is written on this side."""
        other: Side = "old" if primary == "new" else "new"
        self._engine = Engine(
            self._sides[primary], self._sides[other], self.marks, self._metrics, conversion=self._conversion,
        )  # fmt: skip
        self._engine.start()
        self.is_on = True

    def close(self, wait_s: float = _END_S) -> bool:
        """Bring over what is marked, for up to so many seconds; whether all of it is."""
        end = time.monotonic() + wait_s
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.drain(wait_s)
            engine.close(max(0.1, end - time.monotonic()))
        return not len(self.marks)

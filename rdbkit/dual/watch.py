"""How a process learns the state of a move: it looks now and then, and goes over to a new one at the moment that is set for all."""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from rdbkit.dual.state_store import Look, StateStore
from rdbkit.dual.states import BEGINNING, Setting, in_force
from rdbkit.errors import TargetError

__all__ = ["LATE_S", "LOOK_S", "Watch"]

#: Seconds between two looks.
LOOK_S: Final = 2.0
#: Seconds without a look after which a process may have missed a step.
LATE_S: Final = 10.0
#: A look may take so many seconds: none is begun when a step is to be taken before.
_LONGEST_LOOK_S: Final = 60.0
#: Clocks drift apart by less than this.
_DRIFT_MS_PER_S: Final = 0.1

_watches: weakref.WeakSet[Watch] = weakref.WeakSet()


class Watch:
    """Knows the setting that holds now. Any thread may ask for it; the thread that looks begins with the first question.

    The moment of a step is one of the store's clock, which is compared with this process's own at each look. It is counted in time
    that has passed since, so that it does not matter whether this machine's clock is right, or is set.

    A child process begins to look by itself: with its first question.

    Attributes:
        trouble: why the last look failed, or what is strange about what it found; None where all is well.

    Args:
        store: where the state is.
        look_s: seconds between two looks.

    Example:
        watch = Watch(open_store(None, "sessions", old, new))
        watch.start()
        watch.current.state  # State.SHADOW
    """

    def __init__(self, store: StateStore, look_s: float = LOOK_S) -> None:
        self.trouble: str | None = None
        self._store = store
        self._look_s = look_s
        self._current = BEGINNING
        self._settings: list[Setting] = []
        self._ahead_ms = 0.0  # the store's clock, less our monotonic one
        self._error_ms = 0.0
        self._compared_at: float | None = None
        self._looked_at: float | None = None
        self._callbacks: list[Callable[[Setting, Setting], object]] = []
        self._new_process()
        _watches.add(self)

    def _new_process(self) -> None:
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._jitter = random.Random()  # the application's own sequence is not ours to take from
        self._thread: threading.Thread | None = None

    @property
    def current(self) -> Setting:
        """The setting that holds now. Raises: as `start`, which the first question calls."""
        if self._thread is None:
            self.start()
        return self._current

    @property
    def looked_s(self) -> float | None:
        """Seconds since the last look that succeeded; None before the first."""
        return None if self._looked_at is None else time.monotonic() - self._looked_at

    @property
    def is_late(self) -> bool:
        """Whether a step may have been missed, since there was no look for so long. What held before goes on to hold."""
        looked_s = self.looked_s
        return looked_s is not None and looked_s > max(LATE_S, 3 * self._look_s) and self._next() is None

    @property
    def clock_error_ms(self) -> float:
        """How far this process's idea of the store's clock may be off: so much earlier or later than others it takes a step."""
        since_s = 0.0 if self._compared_at is None else time.monotonic() - self._compared_at
        return self._error_ms + since_s * _DRIFT_MS_PER_S

    def report(self) -> dict[str, Any]:
        """How well the state is known, as plain JSON types; it is None before anybody has asked for it."""
        current = None if self._looked_at is None else str(self._current)
        return {
            "state": current, "state_epoch": self._current.epoch, "state_late": self.is_late, "state_trouble": self.trouble,
            "clock_error_ms": round(self.clock_error_ms, 3),
        }  # fmt: skip

    def start(self) -> None:
        """Look, and go on looking in a thread of our own; nothing where that is so already.

        Raises: TargetError, OSError or ValueError where the state cannot be read: a process that guesses it would write to a cache
        that the others have left.
        """
        with self._lock:
            if self._thread is not None:
                return
            self._take(self._store.look())
            thread = threading.Thread(target=self._run, args=(self._closing,), name="rdbkit dual state", daemon=True)
            with suppress(RuntimeError):  # the interpreter ends: each further question looks by itself
                thread.start()
                self._thread = thread

    def on_change(self, callback: Callable[[Setting, Setting], object]) -> None:
        """Have a function called with the setting before and the one from now on, in the thread that looks. It should not raise."""
        self._callbacks.append(callback)

    def now_ms(self) -> float:
        """The store's clock, as far as it is known, in Unix milliseconds."""
        return time.monotonic() * 1000 + self._ahead_ms

    def close(self) -> None:
        """Look no more; what holds goes on to hold."""
        self._closing.set()
        thread = self._thread
        if thread is None:
            self._store.close()
        elif thread is not threading.current_thread():
            thread.join(1.0)

    # -- the thread

    def _run(self, closing: threading.Event) -> None:
        while True:
            step = self._next()
            wait_s = self._look_s * self._jitter.uniform(0.9, 1.1)
            left_s = None if step is None else (step.effective_at_ms - self.now_ms()) / 1000
            if left_s is not None and left_s < _LONGEST_LOOK_S + wait_s:
                if not closing.wait(max(left_s, 0)):
                    self._settle()
                    continue
            elif not closing.wait(wait_s):
                self._look()
                continue
            self._store.close()
            return

    def _look(self) -> None:
        try:
            self._take(self._store.look())
        except Exception as e:  # a function of the user's may raise anything
            self.trouble = str(e) or type(e).__name__

    def _take(self, look: Look) -> None:
        """Take over what a look has found."""
        self.trouble = None
        at = time.monotonic()
        ahead_ms = look.now_ms - at * 1000
        is_set = abs(ahead_ms - self._ahead_ms) > look.error_ms + self.clock_error_ms + 1  # a clock was set, or this machine slept
        if self._compared_at is None or is_set or look.error_ms <= self.clock_error_ms:
            self._ahead_ms, self._error_ms, self._compared_at = ahead_ms, look.error_ms, at
        seen = self._settings[-1].epoch if self._settings else 0
        found = look.settings[-1].epoch if look.settings else 0
        if found < seen:  # it was flushed, evicted, or is that of a backup: all who follow have the same to put back
            try:
                self._store.restore(self._settings)
                self.trouble = "the state had been lost, and was put back"
            except (TargetError, OSError) as e:
                self.trouble = f"the state is lost, and cannot be put back: {e}"
        else:
            self._settings = look.settings
            self._looked_at = at
        self._settle()

    def _next(self) -> Setting | None:
        """A setting that is known and does not hold yet."""
        last = self._settings[-1] if self._settings else BEGINNING
        return last if last.epoch > self._current.epoch else None

    def _settle(self) -> None:
        """Go over to the setting that holds by now."""
        before, now = self._current, in_force(self._settings, self.now_ms())
        if now.epoch <= before.epoch:
            return
        self._current = now
        if self._thread is not None:  # else it is the first look, and nobody has used another
            for callback in self._callbacks:
                try:
                    callback(before, now)
                except Exception as e:  # the thread goes on: what holds would never change again
                    self.trouble = f"a step was not taken: {e}"


def _after_fork() -> None:
    """In a child process no thread but the one that forked goes on, and all connections are the parent's."""
    for watch in list(_watches):
        watch._store.forget()
        watch._new_process()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

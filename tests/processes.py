"""Processes that tests begin, send signals to and wait for."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

#: Seconds after which a test gives up on a process: it would hang, however busy the machine is.
GUARD = 600

_BEGIN = """
import os, signal, sys
for name in ("SIGINT", "SIGTERM", "SIGHUP"):
    signal.signal(getattr(signal, name), signal.SIG_IGN if name == sys.argv[1] else signal.SIG_DFL)
os.execv(sys.argv[2], sys.argv[2:])
"""


def heeding_signals(command: Sequence[str], ignored: signal.Signals | None = None) -> list[str]:
    """The command as one that is begun by hand heeds signals, whatever pytest itself ignores (nohup, a job in the background).

    It becomes another program in the same process, rather than `preexec_fn`, which must not be used beside threads.
    """
    return [sys.executable, "-I", "-S", "-c", _BEGIN, ignored.name if ignored else "", *command]


def until(there: Callable[[], object], process: subprocess.Popen[Any] | None = None) -> None:
    """Wait until something is there, or fail as soon as the process that makes it has ended."""
    end = time.monotonic() + GUARD
    while not there():
        assert process is None or process.poll() is None or there(), "the process has ended"
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.02)

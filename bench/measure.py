"""Run one command with its output thrown away, and print what it used: exit status, seconds and memory.

    python -I -S measure.py COMMAND [ARGUMENT ...]

prints `STATUS USER SYSTEM WALL PEAK`: seconds, and the peak resident memory in KiB. It is a process of its own, and
imports next to nothing, because the system counts the memory that a process had before it became the command, which is
the starter's: so the least peak that can be reported is this small interpreter's, some 9 MB.
"""

from __future__ import annotations

import os
import sys
import time


def main() -> None:
    sink = os.open(os.devnull, os.O_RDWR)
    redirect = [(os.POSIX_SPAWN_DUP2, sink, 0), (os.POSIX_SPAWN_DUP2, sink, 1)]
    start = time.perf_counter()
    pid = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=redirect)
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - start
    print(os.waitstatus_to_exitcode(status), usage.ru_utime, usage.ru_stime, wall, usage.ru_maxrss)


if __name__ == "__main__":
    main()

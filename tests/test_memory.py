"""Peak memory of a process of its own, on values larger than it may take."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import rdbkit
from rdbkit.operations.info import info

class Endless:
    '''A head, a piece repeated until so many bytes have been handed out, and a tail.'''
    def __init__(self, head, piece, times, tail):
        self.head, self.piece, self.times, self.tail = head, piece, times, tail
    def read(self, n):
        if self.head:
            data, self.head = self.head, b""
        elif self.times:
            many = min(self.times, 1 << 16)
            self.times -= many
            data = self.piece * many
        else:
            data, self.tail = self.tail, b""
        return data

START = b"REDIS0009\\xfe\\x00"
END = b"\\x00\\x01k\\x01v\\xff" + bytes(8)
N = 8_000_000

def string():
    return Endless(START + b"\\x00\\x03big\\x80" + (40 * N).to_bytes(4, "big"), b"x" * 40, N, END)

def fields():
    return Endless(START + b"\\x04\\x03big\\x80" + N.to_bytes(4, "big"), b"\\x05field\\x20" + b"v" * 32, N, END)

for make in (string, fields):
    with rdbkit.open(make()) as snapshot:
        total = [sum(map(len, record.chunks())) for record in snapshot]
    with rdbkit.open(make()) as snapshot:
        report = info(snapshot)
    assert report.keys == 2
    assert report.key_bytes == sum(total) + 5 + 3, (report.key_bytes, total)
    assert total[0] >= 39 * N
# VmHWM begins with this program; ru_maxrss would count the process that started it
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_values_of_300_mb_take_little_memory() -> None:
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 60_000  # KiB

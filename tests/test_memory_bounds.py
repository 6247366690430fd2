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
    result = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 60_000  # KiB


CONVERT = """
import sys
import rdbkit

class Endless:
    def __init__(self, head, piece, times, tail):
        self.head, self.piece, self.times, self.tail, self.done = head, piece, times, tail, 0
    def read(self, n):
        if self.head:
            data, self.head = self.head, b""
        elif self.done < self.times:
            end = min(self.times, self.done + max(1, (1 << 20) // len(self.piece(0))))
            data = b"".join(map(self.piece, range(self.done, end)))
            self.done = end
        else:
            data, self.tail = self.tail, b""
        return data

class Nowhere:
    size = 0
    def write(self, data):
        self.size += len(data)
        return len(data)

END = b"\\x00\\x01k\\x01v\\xff" + bytes(8)
N = 3_000_000

def count(n):
    return b"\\x80" + n.to_bytes(4, "big")

def plain_nodes():
    n = N // 100
    head = b"REDIS0011\\xfe\\x00\\x12\\x04list" + count(n)
    return Endless(head, lambda i: b"\\x01" + b"\\x67\\x10" + b"x" * 10000, n, END), "redis-6.0", {}

def field(i):
    return b"\\x07%07d" % i + b"\\x40\\x50" + b"v" * 80

def fields_to_valkey():
    head = b"REDIS0012\\xfe\\x00\\x18\\x04hash" + (1 << 41).to_bytes(8, "little") + count(N)
    return Endless(head, lambda i: b"\\x41\\x00" + field(i), N, END), "valkey-9.1", {}

def fields_to_nowhere():
    source, _, _ = fields_to_valkey()
    return source, "redis-7.2", {"policies": rdbkit.Policies(field_ttl="key-min")}

def fields_to_redis():
    head = b"VALKEY080\\xfe\\x00\\x16\\x04hash" + count(N)
    when = (1 << 41).to_bytes(8, "little")
    return Endless(head, lambda i: field(i) + when, N, END), "redis-8.0", {}

def stream():
    # nodes of one entry with one field
    master = b"\\x01\\x01\\x00\\x01\\x01\\x01\\x81f\\x02\\x00\\x01"
    entry = master + b"\\x02\\x01\\x00\\x01\\x00\\x01\\xef\\xa0" + b"v" * 4000 + b"\\x1f\\xa2\\x04\\x01"
    pack = (len(entry) + 7).to_bytes(4, "little") + (10).to_bytes(2, "little") + entry + b"\\xff"
    blob = bytes([0x40 | len(pack) >> 8, len(pack) & 255]) + pack
    n = 70_000
    tail = count(n) + count(n) + b"\\x01" + b"\\x00\\x01" + b"\\x00\\x00" + count(n) + b"\\x00"
    head = b"REDIS0011\\xfe\\x00\\x15\\x06stream" + count(n)
    node = lambda i: b"\\x10" + (i + 1).to_bytes(8, "big") + bytes(7) + b"\\x01" + blob
    return Endless(head, node, n, tail + END), "redis-6.0", {}

for make in (plain_nodes, fields_to_valkey, fields_to_nowhere, fields_to_redis, stream):
    source, target, more = make()
    out = Nowhere()
    report = rdbkit.convert(source, out, target=target, **more)
    assert report.written == 2, (make, report)
    assert out.size > 250_000_000, (make, out.size)
    peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(make.__name__, peak)
    assert int(peak) < 150_000, (make, peak)
"""


@pytest.mark.exhaustive  # half a minute
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
def test_converting_values_of_300_mb_takes_little_memory() -> None:
    result = subprocess.run([sys.executable, "-c", CONVERT], capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr

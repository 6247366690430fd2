#!/usr/bin/env python3
"""What `dual-proxy` takes for each request, as CPU time, beside a proxy in C: `bench/proxies.py --servers .servers`.

50 connections get or set one of 10,000 keys with values of 64 bytes, one request at a time or 50 (-P 50). Each proxy is a process
of its own in front of the same server, and what is compared is what that process takes. Ours finds requests, and marks the keys
that are written; bringing them over is no part of it. The other is twemproxy, as Debian has it: `apt-get download nutcracker` and
`dpkg -x nutcracker*.deb DIR`, then --twemproxy DIR/usr/sbin/nutcracker. It runs with the rdbkit that this interpreter imports,
compiled or plain, and says which.
"""

from __future__ import annotations

import argparse
import os
import selectors
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

sys.path.append(os.fspath(Path(__file__).resolve().parent.parent))

from bench.copies import url
from fixtures.server import running
from rdbkit.format.compiled import COMPILED
from rdbkit.resp import command

GOALS = {1: 2.5, 50: 0.3}
"""Times the CPU of twemproxy that ours may take, by requests at a time."""
KEYS = 10_000
VALUE = bytes(64)
CONNECTIONS = 50
PROXY = """
import asyncio, sys
from rdbkit.dual.marks import Marks
from rdbkit.dual.metrics import Metrics
from rdbkit.dual.proxy import Proxy
from rdbkit.live.server import connect
async def main():
    server = connect(sys.argv[1])
    proxy = Proxy(server, server, "old", Marks(), Metrics())
    print(await proxy.listen("127.0.0.1", 0), flush=True)
    await asyncio.Event().wait()
run = asyncio.run
if sys.argv[2] == "uvloop":
    from uvloop import run
run(main())
"""


@contextmanager
def ours(place: str, loop: str) -> Iterator[tuple[int, int]]:
    """Our proxy: its process and port."""
    with subprocess.Popen([sys.executable, "-c", PROXY, place, loop], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.pid, int(process.stdout.readline())
        finally:
            process.kill()


@contextmanager
def twemproxy(place: str, binary: str) -> Iterator[tuple[int, int]]:
    """The proxy in C: its process and port."""
    with socket.create_server(("127.0.0.1", 0)) as free, socket.create_server(("127.0.0.1", 0)) as another:
        port, told = free.getsockname()[1], another.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="rdbkit-twemproxy-")
    conf = Path(folder) / "conf.yml"
    conf.write_text(
        f"p:\n  listen: 127.0.0.1:{port}\n  redis: true\n  hash: fnv1a_64\n  distribution: ketama\n  server_connections: 1\n"
        f"  servers:\n   - {place.removeprefix('redis://')}:1\n"
    )
    words = [binary, "-c", os.fspath(conf), "-s", str(told), "-a", "127.0.0.1", "-o", os.devnull]
    with subprocess.Popen(words) as process:
        try:
            while True:
                with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
                    break
                time.sleep(0.05)
            yield process.pid, port
        finally:
            process.kill()
            shutil.rmtree(folder)


def cpu_us(pid: int) -> float:
    """CPU time that a process has taken so far, in microseconds."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * 1e6 / os.sysconf("SC_CLK_TCK")


def load(port: int, verb: str, depth: int, requests: int) -> None:
    """Send so many requests, over all connections, so many at a time on each."""
    if verb == "GET":
        size = len(b"$%d\r\n%b\r\n" % (len(VALUE), VALUE))
        texts = [command(b"GET", b"key:%d" % (n % KEYS)) for n in range(KEYS + depth)]
    else:
        size = len(b"+OK\r\n")
        texts = [command(b"SET", b"key:%d" % (n % KEYS), VALUE) for n in range(KEYS + depth)]
    batches = [b"".join(texts[n : n + depth]) for n in range(0, KEYS, depth)]
    left = requests // depth
    sent = 0
    with selectors.DefaultSelector() as ready:
        open_ = []
        for _ in range(CONNECTIONS):
            sock = socket.create_connection(("127.0.0.1", port))
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            open_.append(sock)
            ready.register(sock, selectors.EVENT_READ, [size * depth])
            sock.sendall(batches[sent % len(batches)])
            sent += 1
        while left > 0:
            for key, _ in ready.select():
                sock = cast(socket.socket, key.fileobj)
                key.data[0] -= len(sock.recv(1 << 16))
                if key.data[0] == 0:
                    left -= 1
                    key.data[0] = size * depth
                    sock.sendall(batches[sent % len(batches)])
                    sent += 1
        for sock in open_:
            sock.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=Path, default=Path(".servers"))
    parser.add_argument("--twemproxy", default=shutil.which("nutcracker"), help="the program nutcracker")
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    if options.twemproxy is None:
        raise SystemExit("no nutcracker is installed: --twemproxy FILE")
    rows = [(verb, depth) for depth in GOALS for verb in ("GET", "SET")]
    print(f"{'compiled' if COMPILED else 'plain'}; microseconds of the proxy's CPU a request, best of {options.runs}\n")
    print(f"| proxy | {' | '.join(f'{verb} -P {depth}' for verb, depth in rows)} |\n|{'---|' * (len(rows) + 1)}")
    found: dict[str, list[float]] = {}
    with running(options.servers / "redis-7.0" / "redis-server") as (server, _):
        server.pipeline([("SET", f"key:{n}", VALUE) for n in range(KEYS)])
        place = url(server)
        with ours(place, "uvloop") as a, ours(place, "asyncio") as b, twemproxy(place, options.twemproxy) as c:
            proxies = {"ours, uvloop": a, "ours, asyncio": b, "twemproxy": c}
            best = {(name, row): float("inf") for name in proxies for row in rows}
            for _ in range(options.runs):
                for verb, depth in rows:
                    number = options.requests * (1 if depth == 1 else 4)
                    for name, (pid, port) in proxies.items():
                        before = cpu_us(pid)
                        load(port, verb, depth, number)
                        best[name, (verb, depth)] = min(best[name, (verb, depth)], (cpu_us(pid) - before) / number)
            for name in proxies:
                found[name] = [best[name, row] for row in rows]
                print(f"| {name} | {' | '.join(f'{us:.1f}' for us in found[name])} |")
    times = [a / b for a, b in zip(found["ours, uvloop"], found["twemproxy"], strict=True)]
    print(f"| uvloop / twemproxy | {' | '.join(f'{each:.2f}' for each in times)} |")
    missed = [f"{verb} -P {depth}" for each, (verb, depth) in zip(times, rows, strict=True) if each > GOALS[depth]]
    if missed and COMPILED:
        print(f"\nmissed: {', '.join(missed)}")
    return 1 if missed and COMPILED else 0


if __name__ == "__main__":
    sys.exit(main())

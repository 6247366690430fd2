#!/usr/bin/env python3
"""Time `rdbkit upload` beside the SDK's own upload with its defaults, and print the figures as a Markdown table.

    bench/uploads.py --azurite PATH --dataset FILE --python PYTHON

Both send to Azurite on this machine: once directly, where Azurite is the bottleneck, and once through a proxy that lets each
connection have 10 MB/s and delays each answer by 10 ms, as a line to a far service does.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.cases import Usage, measure
from tests.azurite import KEY, running, service

RATE = 10e6
"""Bytes a second of one connection."""
DELAY = 0.01
"""Seconds that an answer takes longer."""
PIECE = 1 << 16

SDK = """
import sys
from azure.storage.blob import BlobClient
with open(sys.argv[1], "rb") as file:
    BlobClient.from_blob_url(sys.argv[2], credential=sys.argv[3]).upload_blob(file, overwrite=True)
"""


class Line:
    """A proxy whose connections are slow."""

    def __init__(self, port: int) -> None:
        self.to = port
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.server.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while True:
            client, _ = self.server.accept()
            upstream = socket.create_connection(("127.0.0.1", self.to))
            threading.Thread(target=self.forward, args=(client, upstream, True), daemon=True).start()
            threading.Thread(target=self.forward, args=(upstream, client, False), daemon=True).start()

    def forward(self, one: socket.socket, other: socket.socket, up: bool) -> None:
        begin = passed = 0.0
        with suppress(OSError):
            while piece := one.recv(PIECE):
                now = time.monotonic()
                if up:
                    if now - begin > passed / RATE + 0.05:  # it was idle
                        begin, passed = now, 0.0
                    passed += len(piece)
                    time.sleep(max(0.0, begin + passed / RATE - now))
                else:
                    time.sleep(DELAY)
                other.sendall(piece)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Time uploads.")
    parser.add_argument("--azurite", required=True, help="path of azurite-blob")
    parser.add_argument("--dataset", required=True, type=Path, help="the file to send")
    parser.add_argument("--python", default=sys.executable, help="an interpreter that finds rdbkit[azure]")
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    os.environ["AZURE_STORAGE_KEY"] = KEY
    from tests import azurite

    azurite.PROGRAM = options.azurite
    print("| line | tool | user s | wall s | peak RSS MB | times as fast |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as account:
        service(account).create_container("bench")
        slow = account.replace(urlsplit(account).netloc, f"127.0.0.1:{Line(urlsplit(account).port or 0).port}")
        for name, url in (("direct", account), ("10 MB/s a connection", slow)):
            sdk = [options.python, "-c", SDK, str(options.dataset), f"{url}/bench/sdk", KEY]
            ours = [options.python, "-m", "rdbkit", "upload", str(options.dataset), f"{url}/bench/ours", "--overwrite"]
            found: dict[str, list[Usage]] = {"SDK, defaults": [], "rdbkit upload": []}
            for _ in range(options.runs):
                found["SDK, defaults"].append(measure(sdk))
                found["rdbkit upload"].append(measure(ours))
            reference = median(usage.wall for usage in found["SDK, defaults"])
            for tool, usages in found.items():
                wall = median(usage.wall for usage in usages)
                user, peak = median(usage.user for usage in usages), median(usage.peak for usage in usages)
                print(f"| {name} | {tool} | {user:.2f} | {wall:.2f} | {peak / 1e6:.1f} | {reference / wall:.2f} |", flush=True)


if __name__ == "__main__":
    main()

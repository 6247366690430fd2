"""Azurite, the emulator of the blob service, and a proxy in front of it that cuts connections."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from fixtures.server import free_port

#: Of the emulator, and no secret: https://github.com/Azure/Azurite has it in its README.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
PROGRAM = os.environ.get("RDBKIT_AZURITE") or shutil.which("azurite-blob")


def by_key_alone(monkeypatch: pytest.MonkeyPatch, key: str = KEY) -> None:
    """Let nothing open an account but its key."""
    for name in ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_STORAGE_KEY", key)


needs_azurite = pytest.mark.skipif(
    PROGRAM is None and not os.environ.get("CI"),
    reason="Azurite is not there: npm install azurite, and RDBKIT_AZURITE=PATH of its azurite-blob",
)


@contextmanager
def running(folder: Path, *options: str, scheme: str = "http") -> Iterator[str]:
    """A blob service of its own; yields the URL of its account."""
    assert PROGRAM is not None, "RDBKIT_AZURITE does not say where azurite-blob is"
    port = free_port()
    log = folder / "azurite.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [
                PROGRAM, "--inMemoryPersistence", "--blobPort", str(port), "--skipApiVersionCheck", "--disableTelemetry",
                "--silent", *options,
            ],
            stdout=out, stderr=out, cwd=folder,
        )  # fmt: skip
        try:
            for _ in range(600):
                with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port), timeout=1)):
                    break
                if process.poll() is not None:
                    break
                time.sleep(0.05)
            else:
                raise AssertionError("Azurite does not answer")
            assert process.poll() is None, log.read_text()
            yield f"{scheme}://127.0.0.1:{port}/{ACCOUNT}"
        finally:
            process.terminate()
            process.wait()


def service(url: str) -> Any:
    """The SDK's client of an account."""
    from azure.storage.blob import BlobServiceClient

    return BlobServiceClient(url, credential=KEY)


#: What becomes of a request: it is passed on; it never arrives; it arrives, and its answer is lost.
PASS, CUT, MUTE = "pass", "cut", "mute"


class Cutter:
    """A proxy on the loopback interface.

    Attributes:
        port: where it listens.
        limit: bytes from the client after which a connection is cut; None for never.
        cuts: how often a connection was cut; after `most` of them it cuts no more.
        decide: asked with the first line of each request what becomes of it; by default it is passed on.
    """

    def __init__(
        self, port: int, limit: int | None = None, most: int = 1 << 30, decide: Callable[[bytes], str] | None = None
    ) -> None:
        self.to = port
        self.limit = limit
        self.most = most
        self.decide = decide or (lambda line: PASS)
        self.cuts = 0
        self.sent = 0
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.server.getsockname()[1]
        self.open = True
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        while self.open:
            try:
                client, _ = self.server.accept()
            except OSError:
                return
            upstream = socket.create_connection(("127.0.0.1", self.to))
            muted = threading.Event()
            threading.Thread(target=self.forward, args=(client, upstream, True, muted), daemon=True).start()
            threading.Thread(target=self.forward, args=(upstream, client, False, muted), daemon=True).start()

    def forward(self, one: socket.socket, other: socket.socket, counts: bool, muted: threading.Event) -> None:
        passed = 0
        with suppress(OSError):
            while piece := one.recv(1 << 16):
                passed += len(piece)
                if counts:
                    self.sent += len(piece)
                    if self.limit is not None and passed > self.limit and self.cuts < self.most:
                        self.cuts += 1
                        break
                    # a client sends no request before the answer to the one before, so that each begins a piece
                    line = piece.partition(b"\r\n")[0]
                    fate = self.decide(line) if line.endswith(b" HTTP/1.1") and self.cuts < self.most else PASS
                    if fate == CUT:
                        self.cuts += 1
                        break
                    if fate == MUTE:
                        muted.set()
                elif muted.is_set():  # the request has arrived, and this is the answer
                    self.cuts += 1
                    break
                other.sendall(piece)
        for end in (one, other):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def close(self) -> None:
        self.open = False
        self.server.close()

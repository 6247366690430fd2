"""moto's server, which answers as S3 does, in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from fixtures.server import free_port

from .processes import GUARD, until

SECRET = "wJalrXUtnFEMI-s3cret"
BUCKET = "dumps"
#: Nobody looks at the signature itself.
_SIGNED = "AWS4-HMAC-SHA256 Credential=AKIATEST/20260101/us-east-1/s3/aws4_request"


class Moto:
    """One bucket of a server.

    Attributes:
        endpoint: URL of the server.
    """

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._ask("PUT", "")

    def put(self, key: str, content: bytes) -> str:
        """Makes an object; returns its URL."""
        self._ask("PUT", key, content)
        return f"s3://{BUCKET}/{key}"

    def get(self, key: str) -> bytes | None:
        """What an object has; None where there is none."""
        try:
            return self._ask("GET", key)
        except urllib.error.HTTPError as e:
            if e.code != 404:
                raise
            return None

    def uploads(self) -> bytes:
        """Uploads that nobody has ended, in XML."""
        return self._ask("GET", "?uploads")

    def _ask(self, method: str, key: str, content: bytes | None = None) -> bytes:
        url = f"{self.endpoint}/{BUCKET}/{key if key.startswith('?') else quote(key)}"
        # without its kind, the server looks for a form in it
        headers = {"Content-Type": "application/octet-stream", "Authorization": _SIGNED, "x-amz-acl": "public-read"}
        request = urllib.request.Request(url, content, headers, method=method)
        with urllib.request.urlopen(request, timeout=GUARD) as answer:
            return bytes(answer.read())


@contextmanager
def running(folder: Path) -> Iterator[Moto]:
    """A server with an empty bucket."""
    port = free_port()
    log = folder / "moto.log"
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-m", "moto.server", "-p", str(port)], stdout=out, stderr=out, cwd=folder)
        try:
            until(lambda: _answers(port), process)
            yield Moto(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()
            process.wait()


def _answers(port: int) -> bool:
    with suppress(OSError), closing(socket.create_connection(("127.0.0.1", port), timeout=1)):
        return True
    return False


def by_environment(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    """Let the environment say where S3 is and who asks."""
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL_S3", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in _ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)


_ENVIRONMENT: dict[str, Any] = {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": "eu-west-1"}

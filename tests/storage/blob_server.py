"""A server that answers as the blob service does, as long as it is well: a test says what else it does."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

#: A key is base64; this one opens nothing.
KEY = "a2V5"


class BlobServer(ThreadingHTTPServer):
    """One blob, whatever its name.

    Attributes:
        content, etag: of the blob.
        ranges: what was asked for, begin and end of each.
        before: called with the number of a request that has a range, and what answers it; True where that has been done.
        silence: for a request that is not answered before it is set.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, content: bytes) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = content
        self.etag = '"0x1"'
        self.ranges: list[tuple[int, int]] = []
        self.before: Callable[[int, _Handler], object] = lambda number, handler: False
        self.lock = threading.Lock()
        self.silence = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/devstoreaccount1/dumps/dump.rdb"

    @property
    def plain(self) -> str:
        """The URL of a file, as any server has it."""
        return f"http://127.0.0.1:{self.server_port}/files/dump.rdb"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that has gone


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: BlobServer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (so it is called)
        pass

    def do_HEAD(self) -> None:
        self.answer(200, b"", length=len(self.server.content))

    def do_GET(self) -> None:
        server = self.server
        if not server.content and self.headers.get("Range") is None:
            self.answer(200, b"")
            return
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("x-ms-range") or self.headers.get("Range") or "")
        assert found is not None, "everything is asked for in pieces"
        begin, end = int(found[1]), int(found[2]) + 1
        with server.lock:
            number = len(server.ranges)
            server.ranges.append((begin, end))
        if server.before(number, self):
            return
        wanted = self.headers.get("If-Match")
        if wanted is not None and wanted != server.etag:
            self.refuse(412, "ConditionNotMet")
        elif begin >= len(server.content):
            self.refuse(416, "InvalidRange")
        else:
            self.answer(206, server.content[begin:end], begin=begin)

    def refuse(self, status: int, code: str) -> bool:
        self.answer(status, f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>No.</Message></Error>'.encode())
        return True

    def answer(self, status: int, body: bytes, *, length: int | None = None, begin: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.send_header("ETag", self.server.etag)
        self.send_header("Last-Modified", "Mon, 30 Nov 2026 12:00:00 GMT")
        if status == 206:
            self.send_header("Content-Range", f"bytes {begin}-{begin + len(body) - 1}/{len(self.server.content)}")
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def serving(content: bytes) -> Iterator[BlobServer]:
    """A server of a blob."""
    with BlobServer(content) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()

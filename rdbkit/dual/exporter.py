"""What is counted, for Prometheus: GET /metrics over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

__all__ = ["Exporter"]

_PATIENCE_S: Final = 10.0
_MOST_HEADERS: Final = 100
_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Exporter:
    """Answers each GET of /metrics with a text.

    Args:
        text: gives it.
    """

    def __init__(self, text: Callable[[], Awaitable[str]]) -> None:
        self._text = text
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen. Returns: the port. Raises: OSError."""
        self._server = await asyncio.start_server(self._serve, host, port)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, ValueError, TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                request = (await reader.readline()).split()
                for _ in range(_MOST_HEADERS):
                    if not (await reader.readline()).strip():
                        break
                path = request[1].partition(b"?")[0] if len(request) == 3 else b""
                if request[:1] not in ([b"GET"], [b"HEAD"]):
                    answer, status = "GET /metrics\n", "405 Method Not Allowed"
                elif path != b"/metrics":
                    answer, status = "GET /metrics\n", "404 Not Found"
                else:
                    answer, status = await self._text(), "200 OK"
                body = answer.encode()
                head = f"HTTP/1.1 {status}\r\nContent-Type: {_TYPE}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                writer.write(head.encode() + (b"" if request[:1] == [b"HEAD"] else body))
                await writer.drain()
        writer.close()

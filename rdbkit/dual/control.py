"""The control socket of a proxy: who may open a file of this machine's may ask how it stands, and have it switch.

A request is a JSON object on a line, as is its answer. Errors are answers, too: {"error": "..."}.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, TypeAlias

from rdbkit.errors import RdbError, TargetError

__all__ = ["Answer", "Control", "ask"]

#: What answers a request.
Answer: TypeAlias = Callable[[Mapping[str, Any]], Awaitable[Mapping[str, Any]]]

_MOST_LINE: Final = 1 << 16
_CONNECT_S: Final = 5.0


class Control:
    """Listens on a socket in the file system, which only this user may open.

    Args:
        path: of the socket.
        answers: by the name of what is asked for ("do"), what answers it.
    """

    def __init__(self, path: str, answers: Mapping[str, Answer]) -> None:
        self.path = path
        self._answers = answers
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Raises: TargetError where another proxy listens there; OSError."""
        try:
            probe = socket.socket(socket.AF_UNIX)
            with probe:
                probe.settimeout(_CONNECT_S)
                probe.connect(self.path)
        except (FileNotFoundError, ConnectionRefusedError):
            pass
        else:
            raise TargetError("another proxy listens on this control socket", source=self.path)
        with suppress(FileNotFoundError):
            os.unlink(self.path)  # of one that has ended
        listening = socket.socket(socket.AF_UNIX)
        try:
            mask = os.umask(0o177)  # nobody else may open it, not even for a moment
            try:
                listening.bind(self.path)
            finally:
                os.umask(mask)
            self._server = await asyncio.start_unix_server(self._serve, sock=listening, limit=_MOST_LINE)
        except BaseException:
            listening.close()
            raise

    async def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()
            self._server = None
            with suppress(OSError):
                os.unlink(self.path)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(await self._answer(line)).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):  # it has gone, or sends a line without an end
            pass
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> Mapping[str, Any]:
        try:
            request = json.loads(line)
        except ValueError:
            return {"error": "not valid JSON"}
        if not isinstance(request, dict) or (answer := self._answers.get(str(request.get("do")))) is None:
            return {"error": f"it can be asked to do: {', '.join(sorted(self._answers))}"}
        try:
            return await answer(request)
        except (OSError, RdbError, ValueError) as e:
            return {"error": str(e)}
        except Exception as e:  # a defect, which whoever asked is to learn of; the clients of the proxy are not to suffer from it
            return {"error": f"a defect of rdbkit: {e!r}"}


def ask(path: str, do: str, wait_s: float | None = None, **arguments: Any) -> dict[str, Any]:
    """Ask the proxy that listens on a control socket.

    Args:
        path: of the socket.
        do: what it is asked to do: "status", "switch".
        wait_s: seconds to wait for the answer; None for as long as it takes.
        arguments: of that.

    Returns: its answer.

    Raises: TargetError where nobody listens there or the answer is an error.

    Example:
        ask("/run/rdbkit/proxy.sock", "switch", to="new")
    """
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(_CONNECT_S)
            sock.connect(path)
            sock.settimeout(wait_s)
            sock.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
            with sock.makefile("rb") as answers:
                line = answers.readline()
    except (FileNotFoundError, ConnectionRefusedError):
        raise TargetError("no proxy listens on this control socket", source=path) from None
    except TimeoutError:
        raise TargetError(f"the proxy does not answer within {wait_s or _CONNECT_S:g} s", source=path) from None
    except OSError as e:
        raise TargetError(f"it cannot be asked: {e.strerror or e}", source=path) from None
    try:
        answer = json.loads(line)
    except ValueError:
        raise TargetError("the proxy has ended before it answered", source=path) from None
    if "error" in answer:
        raise TargetError(str(answer["error"]), source=path)
    return dict(answer)

"""A server that sends whoever asks as a replica does what a test says, and knows hardly anything else."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import BinaryIO

_ANSWERS = {
    b"INFO": b"$20\r\nredis_version:7.0.15\r\n",
    b"CLUSTER": b"-ERR This instance has cluster support disabled\r\n",
    b"REPLCONF": b"+OK\r\n",
    b"CLIENT": b"+OK\r\n",
    b"PING": b"+PONG\r\n",
    b"AUTH": b"+OK\r\n",
}


@contextlib.contextmanager
def master(sends: bytes, answers: Mapping[bytes, bytes] | None = None) -> Iterator[str]:
    """The URL of a server that sends this to a replica, and then ends the connection.

    Args:
        answers: what is answered to other commands, by their first word.
    """
    words = {**_ANSWERS, **(answers or {})}
    listener = socket.create_server(("127.0.0.1", 0))
    ends = threading.Event()

    def serve(peer: socket.socket) -> None:
        with contextlib.suppress(OSError), peer, peer.makefile("rb") as asked:
            while name := _name(asked):
                if name in (b"PSYNC", b"SYNC"):
                    peer.sendall(sends)
                    if not sends.startswith(b"-"):
                        return
                else:
                    peer.sendall(words.get(name, b"-ERR unknown command '%b'\r\n" % name))

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            if ends.is_set():
                peer.close()
                return
            threading.Thread(target=serve, args=(peer,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        ends.set()
        with contextlib.suppress(OSError):
            socket.create_connection(listener.getsockname()).close()
        thread.join()
        listener.close()


def _name(asked: BinaryIO) -> bytes:
    """The first word of the next command; nothing at the end."""
    line = asked.readline()
    if not line.startswith(b"*"):
        return b""
    words = [asked.read(int(asked.readline()[1:]) + 2)[:-2] for _ in range(int(line[1:]))]
    return words[0].upper()

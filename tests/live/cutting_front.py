"""A network between a client and a server that breaks where a test says."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator

_CHUNK = 1 << 16


class CuttingFront:
    """Passes bytes on between those who connect to it and a server, and counts them.

    Attributes:
        port: where it listens.
        sent: bytes that the server was sent, of all connections together.
        received: bytes that clients were sent.
        connections: how many there were.
        on_cut: called after each cut; a test may change the cuts that follow.
    """

    def __init__(
        self, upstream: int, *, cut_sent: Iterable[int] = (), cut_received: Iterable[int] = (), piece: int = _CHUNK,
        latency: float = 0.0, resets: bool = False,
    ) -> None:  # fmt: skip
        """Listen on a free port.

        Args:
            upstream: the server's port on the loopback interface.
            cut_sent: numbers of `sent`; when as many bytes were passed on, the connection that the last of them came by is closed
                on both sides, and what follows in it is lost. In ascending order; 0 closes a connection before its first byte.
            cut_received: the same of `received`.
            piece: the most bytes that are passed on at once.
            latency: seconds that each piece waits.
            resets: a cut says to the client that the connection was reset, rather than that it ended.
        """
        self.sent = self.received = self.connections = 0
        self.on_cut: Callable[[], object] = lambda: None
        self._cuts = {"sent": list(cut_sent), "received": list(cut_received)}
        self._upstream, self._piece, self._latency, self._resets = upstream, piece, latency, resets
        self._lock = threading.Lock()
        self._flows = threading.Event()
        self._flows.set()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    @property
    def cuts_left(self) -> int:
        """How many of the cuts were not made yet."""
        return sum(map(len, self._cuts.values()))

    def cut_after(self, *, sent: int | None = None, received: int | None = None) -> None:
        """Make one cut more, so many bytes from now."""
        with self._lock:
            for name, more in (("sent", sent), ("received", received)):
                if more is not None:
                    self._cuts[name].append(getattr(self, name) + more)

    def cut_all(self) -> None:
        """Cut every connection now."""
        with self._lock:
            pairs = list(self._open)
        for each in pairs:
            self._shut(each)

    def stall(self) -> None:
        """Pass nothing on from now, and keep all connections open."""
        self._flows.clear()

    def go_on(self) -> None:
        """Pass on what has come meanwhile, and what comes."""
        self._flows.set()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._flows.set()
        self.cut_all()

    def __enter__(self) -> CuttingFront:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self._upstream))
            except OSError:  # as a server's port that is closed, as nearly as can be
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                continue
            for each in (client, server):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.connections += 1
                self._open |= {client, server}
            for name, source, sink in (("sent", client, server), ("received", server, client)):
                threading.Thread(target=self._pump, args=(name, source, sink, client), daemon=True).start()

    def _pump(self, name: str, source: socket.socket, sink: socket.socket, client: socket.socket) -> None:
        is_cut = False
        with contextlib.suppress(OSError):
            while not is_cut and (data := source.recv(_CHUNK)):
                is_cut = self._pass_on(name, data, sink)
        if is_cut and self._resets:
            with self._lock:
                self._open.discard(client)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RD)  # the other thread, which reads from it, lets go of it
        for each in (source, sink):
            self._shut(each)
            each.close()
        if is_cut:
            self.on_cut()

    def _pass_on(self, name: str, data: bytes, sink: socket.socket) -> bool:
        """Returns whether the connection is to be cut."""
        for piece, is_last in self._pieces(name, data):
            self._flows.wait()
            if self._latency:
                time.sleep(self._latency)
            sink.sendall(piece)
            if is_last:
                return True
        return False

    def _pieces(self, name: str, data: bytes) -> Iterator[tuple[bytes, bool]]:
        """What is passed on, and whether the connection is cut behind it."""
        at = 0
        while at < len(data):
            with self._lock:
                so_far = getattr(self, name)
                most = min(self._piece, len(data) - at)
                cuts = self._cuts[name]
                is_cut = bool(cuts) and cuts[0] <= so_far + most
                if is_cut:
                    most = max(0, cuts.pop(0) - so_far)
                setattr(self, name, so_far + most)
            yield data[at : at + most], is_cut
            if is_cut:
                return
            at += most

    def _shut(self, each: socket.socket) -> None:
        with self._lock:
            is_open = each in self._open
            self._open.discard(each)
        if is_open:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

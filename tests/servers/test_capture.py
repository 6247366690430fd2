"""What real servers send a client that asks as a replica does is read, whole and cut at every byte of its frame."""

from __future__ import annotations

import io
import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import rdbkit
from fixtures.server import Client, running, text
from rdbkit.cli import main
from rdbkit.operations.check import check
from rdbkit.operations.salvage import salvage
from rdbkit.operations.verify import verify
from rdbkit.resp import command

from ..rdb import FIXTURES

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
DUMPS = {"redis-6.0": "redis-6.0.16", "redis-7.0": "redis-7.0.15", "redis-8.0": "redis-8.0.6", "valkey-9.1": "valkey-9.1.2"}
#: Lines, then newlines while the server saves, then how the snapshot ends.
FRONT = re.compile(rb"((?:\+[^\r\n]*\r\n|\n)*)\$(?:([0-9]+)|EOF:([0-9a-f]{40}))\r\n")
PING = command(b"PING")
SET = command(b"SET", b"later", b"1")


Content = dict[tuple[int, bytes], tuple[Any, int | None]]


class Server(NamedTuple):
    """A running server, which has data."""

    line: str
    client: Client
    port: int
    content: Content  # of what it saves


class Capture(NamedTuple):
    """All that came out of a socket, and where the snapshot stands in it."""

    data: bytes
    begin: int
    end: int
    mark: bytes


def content(source: Any) -> Content:
    """Keys, as the bytes of their values: the order of sets and the like is the server's, which is the same until it ends."""
    with rdbkit.open(source) as snapshot:
        found = {(r.db, r.key): (r.raw, r.expire_ms) for r in snapshot}
    assert snapshot.checksum is not None
    assert snapshot.checksum.state == "ok"
    return found


@pytest.fixture(scope="module", params=DUMPS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    binary = next((SERVERS / request.param).glob("*-server"))
    conf = ["repl-ping-replica-period 1", "repl-diskless-sync-delay 0", "repl-timeout 600"]
    with running(binary, FIXTURES / "rich" / f"{DUMPS[request.param]}.rdb", conf) as (client, folder):
        port = int(text(client.items("CONFIG", "GET", "port")[1]))
        client.call("SAVE")
        if request.param.startswith("valkey"):  # sends RDB 11 to who does not say that it is a Valkey, and nothing that this lacks
            with rdbkit.open(folder / "dump.rdb") as snapshot:
                newer = [(record.db, record.key) for record in snapshot if record.type_code > 21]
            for db, key in newer:
                client.call("SELECT", db)
                client.call("DEL", key)
            client.call("SELECT", 0)
            client.call("SAVE")
        yield Server(request.param, client, port, content(folder / "dump.rdb"))


class Replica:
    """Collects what a server sends; waits for bytes, and not for time."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=120)
        self.data = b""

    def __enter__(self) -> Replica:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def send(self, *words: bytes) -> None:
        self.socket.sendall(command(*words))

    def more(self) -> None:
        piece = self.socket.recv(1 << 16)
        assert piece, "the server closed the connection"
        self.data += piece

    def read_to(self, size: int) -> None:
        while len(self.data) < size:
            self.more()

    def read_snapshot(self) -> Capture:
        while (found := FRONT.match(self.data)) is None:
            assert b"-" not in self.data, self.data
            self.more()
        begin, mark = found.end(), found[3] or b""
        if mark:
            while (end := self.data.find(mark, begin)) < 0:
                self.more()
        else:
            end = begin + int(found[2])
        self.read_to(end + len(mark))
        return Capture(self.data, begin, end, mark)

    def read_through(self, wanted: bytes, begin: int) -> int:
        """Say that the snapshot is loaded, and read on until `wanted` has come, in whichever case; returns where it ends.

        A server hears that only when it knows itself that it has sent all, so it is said again each second, as replicas do.
        """
        self.socket.settimeout(1)
        for _ in range(600):
            self.send(b"REPLCONF", b"ACK", b"0")
            try:
                while (at := self.data.upper().find(wanted.upper(), begin)) < 0:
                    self.more()
            except TimeoutError:
                continue
            return at + len(wanted)
        raise TimeoutError(f"{wanted!r} does not come")


def captured(server: Server, diskless: bool, ask: tuple[bytes, ...], later: bytes) -> Capture:
    """What a replica is sent, up to the first `later`."""
    server.client.call("CONFIG", "SET", "repl-diskless-sync", "yes" if diskless else "no")
    server.client.call("DEL", "later")
    with Replica(server.port) as replica:
        if diskless:
            replica.send(b"REPLCONF", b"capa", b"eof")
            replica.read_to(len(b"+OK\r\n"))  # before that, the server refuses the next one
        replica.send(*ask)
        capture = replica.read_snapshot()
        if later == SET:
            server.client.call("SET", "later", "1")
        behind = capture.end + len(capture.mark)
        end = replica.read_through(later, behind)
        assert bool(capture.mark) == diskless
        return capture._replace(data=replica.data[:end])


@pytest.mark.parametrize("later", [PING, SET], ids=["pings", "replication"])
@pytest.mark.parametrize("ask", [(b"SYNC",), (b"PSYNC", b"?", b"-1")], ids=["SYNC", "PSYNC"])
@pytest.mark.parametrize("diskless", [False, True], ids=["disk", "diskless"])
def test_a_capture(
    server: Server, diskless: bool, ask: tuple[bytes, ...], later: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capture = captured(server, diskless, ask, later)
    server.client.call("DEL", "later")
    wanted = server.content
    path = tmp_path / "capture"
    path.write_bytes(capture.data)
    kind = "pings" if later == PING else "replication"
    behind = capture.end + len(capture.mark)
    assert content(path) == wanted

    def run(*words: object) -> int:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        assert isinstance(ended.value.code, int)
        return ended.value.code

    assert verify(path, deep=True).sound
    assert run("info", path, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["framing"], said["trailer"]) == ("eof-mark" if diskless else "bulk", kind)
    assert (said["rdb_size"], said["trailer_size"]) == (capture.end - capture.begin, len(capture.data) - behind)
    assert run("export", path) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(wanted)
    report = check(path, server.line)
    assert [f.code for f in report.findings if f.severity == "blocker"] == ["RDB406"]
    assert report.verdict == ("lossy" if later == SET else "lossless")
    assert run("convert", path, tmp_path / "out.rdb", "--target", server.line, "--on-loss", "drop") == 0
    assert (tmp_path / "out.rdb").read_bytes() == capture.data[capture.begin : capture.end]
    assert run("convert", path, tmp_path / "no.rdb", "--target", server.line) == (1 if later == SET else 0)
    found = salvage(path, tmp_path / "saved.rdb")
    assert (found.kept, found.lost) == (len(wanted), {"behind": 1} if later == SET else {})
    with running(next((SERVERS / server.line).glob("*-server")), tmp_path / "out.rdb") as (client, _):
        assert sum(client.integer("DBSIZE") for db in range(16) if client.call("SELECT", db)) == len(wanted)


@pytest.mark.parametrize("ask", [(b"SYNC",), (b"PSYNC", b"?", b"-1")], ids=["SYNC", "PSYNC"])
@pytest.mark.parametrize("diskless", [False, True], ids=["disk", "diskless"])
def test_a_capture_cut_at_every_byte_of_its_frame(server: Server, diskless: bool, ask: tuple[bytes, ...]) -> None:
    capture = captured(server, diskless, ask, SET)
    server.client.call("DEL", "later")
    wanted = server.content
    behind = capture.end + len(capture.mark)
    announced = capture.end - capture.begin
    for size in [*range(capture.begin + 9), *range(capture.end - 9, len(capture.data) + 1)]:
        data = io.BytesIO(capture.data[:size])
        if size >= behind:
            assert content(data) == wanted
            continue
        with pytest.raises(rdbkit.TruncatedError) as failed:
            content(data)
        assert failed.value.offset is None if size == 0 else failed.value.offset == size, failed.value
        assert str(failed.value).count("\n") == 0
        if not diskless and size > capture.begin:
            assert f"{capture.end - size:,} of the {announced:,} bytes that the capture announces are missing" in str(failed.value)


@pytest.mark.parametrize("diskless", [False, True], ids=["disk", "diskless"])
def test_redis_cli_leaves_the_end_mark(server: Server, diskless: bool, tmp_path: Path) -> None:
    server.client.call("CONFIG", "SET", "repl-diskless-sync", "yes" if diskless else "no")
    path = tmp_path / "out.rdb"
    cli = next((SERVERS / server.line).glob("*-cli"))
    path.write_bytes(subprocess.run([cli, "-p", str(server.port), "--rdb", "-"], capture_output=True, check=True).stdout)
    wanted = server.content
    assert content(path) == wanted
    with rdbkit.open(path) as snapshot:
        list(snapshot)
    assert snapshot.framing is None
    report = verify(path, deep=True)
    assert report.sound
    assert snapshot.trailer is not None
    if diskless or snapshot.trailer.kind == "mark":  # Valkey never saves to disk first for this
        assert snapshot.trailer == ("mark", 40)
        assert report.notes == ["followed by the end mark of a replication, as redis-cli --rdb - leaves it: 40 bytes"]
        assert "RDB907" in [f.code for f in check(path, server.line).findings]
    else:
        assert snapshot.trailer == ("none", 0)
        assert report.notes == []
    assert check(path, server.line).verdict == "as-it-is"
    with running(next((SERVERS / server.line).glob("*-server")), path) as (client, _):  # and it is: servers read no further
        assert sum(client.integer("DBSIZE") for db in range(16) if client.call("SELECT", db)) == len(wanted)

"""What a server sends a replica, cut at every byte; and what it says instead."""

from __future__ import annotations

import io

import pytest

import rdbkit
from rdbkit.errors import TargetError
from rdbkit.format.replies import Refusal
from rdbkit.live.connection import Lost
from rdbkit.live.replica import Replica, ReplicationRefused
from rdbkit.resp import command

from ..rdb import key, rdb, string

RDB = rdb(b"\xfe\0", key(b"a", 0, string(b"1")), key(b"b", 0, string(b"hello")))
MARK = b"0123456789abcdef0123456789abcdef01234567"
RESYNC = b"+FULLRESYNC " + MARK + b" 1234\r\n"
BULK = RESYNC + b"\n\n$%d\r\n" % len(RDB)
DISKLESS = RESYNC + b"\n$EOF:" + MARK + b"\r\n"
PING = command(b"PING")
PSYNC, SYNC = command(b"PSYNC", b"?", b"-1"), command(b"SYNC")


class Pieces:
    """A connection on which these pieces come, one at a time, and then nothing more."""

    def __init__(self, *pieces: bytes, rdb_only: bool = True) -> None:
        self.pieces = [piece for piece in pieces if piece]
        self.asked: list[bytes] = []
        self.sent: list[bytes] = []
        self.closed = False
        self.rdb_only = rdb_only

    def ask(self, *commands: bytes) -> list[object]:
        self.asked += commands
        return [b"OK", Refusal("ERR", "Unrecognized REPLCONF option: version"), b"OK" if self.rdb_only else Refusal("ERR", "?")]

    def send(self, data: bytes) -> None:
        self.sent.append(data)

    def receive(self, most: int) -> bytes:
        if not self.pieces:
            raise Lost("h:1 closed the connection", "closed")
        piece = self.pieces.pop(0)
        if len(piece) > most:
            self.pieces.insert(0, piece[most:])
        return piece[:most]

    def close(self) -> None:
        self.closed = True


def everything(replica: Replica, n: int = 1 << 20) -> bytes:
    found = b""
    while piece := replica.read(n):
        assert len(piece) <= n
        found += piece
    assert replica.read(n) == b""
    return found


@pytest.mark.parametrize("behind", [None, b"", PING, MARK], ids=["rdb-only", "nothing", "ping", "mark"])
@pytest.mark.parametrize("front", [BULK, DISKLESS], ids=["disk", "diskless"])
def test_a_snapshot_is_read_wherever_it_is_cut(front: bytes, behind: bytes | None) -> None:
    data = front + RDB + (MARK if front is DISKLESS else b"") + (behind or b"")
    rdb_only = behind is None  # a server that knows the word sends nothing behind
    for cut in range(len(data)):
        link = Pieces(data[:cut], data[cut:], rdb_only=rdb_only)
        waited: list[None] = []
        replica = Replica(link, "redis://h:1", lambda waited=waited: waited.append(None))  # type: ignore[misc]
        assert replica.size == (len(RDB) if front is BULK else None)
        assert everything(replica) == RDB
        assert (replica.received, len(waited)) == (len(RDB), 2 if front is BULK else 1)
        assert link.closed
        assert link.sent == [PSYNC]
    for step in (1, 2, 3, 7, 39, 40, 41):
        pieces = [data[at : at + step] for at in range(0, len(data), step)]
        assert everything(Replica(Pieces(*pieces, rdb_only=rdb_only), "h"), 5) == RDB
    with rdbkit.open(Replica(Pieces(data, rdb_only=rdb_only), "redis://h:1")) as snapshot:
        assert {record.key: record.value for record in snapshot} == {b"a": b"1", b"b": b"hello"}
        assert snapshot.name == "redis://h:1"
    assert snapshot.checksum is not None
    assert snapshot.checksum.state == "ok"


@pytest.mark.parametrize("front", [BULK, DISKLESS], ids=["disk", "diskless"])
def test_a_server_that_ends_in_the_middle_is_one_line(front: bytes) -> None:
    data = front + RDB + (MARK if front is DISKLESS else b"")
    for cut in range(len(data)):
        link = Pieces(data[:cut])
        with pytest.raises(TargetError) as failed:
            everything(Replica(link, "redis://h:1"))
        assert link.closed
        text = str(failed.value)
        assert text.startswith("redis://h:1: h:1 closed the connection ")
        assert "\n" not in text
        assert ("before a snapshot was sent" if cut < len(front) else "in the middle of the snapshot, behind") in text


def test_the_mark_inside_of_the_data_is_never_taken_for_its_end_silently() -> None:
    data = rdb(b"\xfe\0", key(b"a", 0, string(MARK)))
    with pytest.raises(rdbkit.RdbError), rdbkit.open(Replica(Pieces(DISKLESS + data + MARK, rdb_only=False), "h")) as snapshot:
        list(snapshot)
    with rdbkit.open(Replica(Pieces(DISKLESS + data + MARK), "h")) as snapshot:  # where only the end counts
        assert [record.value for record in snapshot] == [MARK]
    at = len(DISKLESS) + data.index(MARK) + len(MARK)
    with pytest.raises(rdbkit.RdbError), rdbkit.open(Replica(Pieces((DISKLESS + data)[:at], data), "h")) as snapshot:
        list(snapshot)


def test_what_is_like_the_mark_is_data() -> None:
    data = rdb(b"\xfe\0", key(b"a", 0, string(MARK[:39] + MARK[:20] + MARK[1:])))
    whole = DISKLESS + data + MARK
    for step in (1, 13, 40, len(whole)):
        for rdb_only in (True, False):
            pieces = [whole[at : at + step] for at in range(0, len(whole), step)]
            assert everything(Replica(Pieces(*pieces, rdb_only=rdb_only), "h")) == data


def test_a_server_without_psync_is_asked_with_sync() -> None:
    link = Pieces(b"-ERR unknown command 'PSYNC'\r\n", b"\n$%d\r\n" % len(RDB) + RDB)
    assert everything(Replica(link, "h")) == RDB
    assert link.sent == [PSYNC, SYNC]


@pytest.mark.parametrize(
    ("said", "words", "refused"),
    [
        (b"-ERR unknown command `SYNC`, with args beginning with: ", "does not allow replication (unknown command", True),
        (b"-ERR Command disallowed", "the service does not allow replication (Command disallowed)", True),
        (b"-NOPERM this user has no permissions to run the 'psync' command", "may not replicate: allow it +psync and", True),
        (b"-NOPERM User app has no permissions to run the 'psync' command or its subcommand", "may not replicate", True),
        (b"-LOADING Redis is loading the dataset in memory", "still loading its data: run this again later", False),
        (b"-NOMASTERLINK Can't SYNC while not connected with my master", "no link to its primary", False),
        (b"-MISCONF Redis is configured to save RDB snapshots", "cannot save its data: see its log", False),
        (b"-ERR BGSAVE failed, replication can't continue", "sends no snapshot (BGSAVE failed", False),
        (b"+CONTINUE", "answers a replica with b'+CONTINUE', and no snapshot", False),
    ],
)
def test_a_server_that_sends_no_snapshot(said: bytes, words: str, refused: bool) -> None:
    link = Pieces(*[said + b"\r\n"] * 2)
    with pytest.raises(TargetError) as failed:
        Replica(link, "redis://h:1")
    assert words in str(failed.value)
    assert "\n" not in str(failed.value)
    assert isinstance(failed.value, ReplicationRefused) == refused
    assert link.closed


def test_what_is_no_server_is_told() -> None:
    with pytest.raises(TargetError, match="not a Redis server"):
        Replica(Pieces(b"x" * 10_000), "h")


def test_a_capture_of_what_comes_is_the_same_snapshot() -> None:
    for front in (BULK, DISKLESS):
        data = front + RDB + (MARK if front is DISKLESS else b"")
        with rdbkit.open(io.BytesIO(data)) as snapshot:
            assert [record.key for record in snapshot] == [b"a", b"b"]

"""Captures of what a replica is sent, whole and cut at every byte."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import rdbkit
from rdbkit.cli import main
from rdbkit.operations.check import check
from rdbkit.operations.salvage import salvage
from rdbkit.operations.verify import verify
from rdbkit.resp import command

from ..rdb import FIXTURES, Dribble, key, rdb, string

RDB = rdb(b"\xfe\0", key(b"a", 0, string(b"1")), key(b"b", 0, string(b"hello")))
MARK = b"0123456789abcdef0123456789abcdef01234567"
RESYNC = b"+FULLRESYNC " + MARK + b" 1234\r\n"
BULK = b"$%d\r\n" % len(RDB)
EOF_LINE = b"$EOF:" + MARK + b"\r\n"
PING = command(b"PING")
GETACK = command(b"REPLCONF", b"GETACK", b"*")
SELECT = command(b"SELECT", b"0")
SET = command(b"SET", b"a", b"2")

#: What stands in front, behind and behind that again, and what is then in the frame.
FRAMES = {
    "bulk": (BULK, b""),
    "bulk, pinged": (b"\n\n\n" + BULK, b""),
    "bulk, PSYNC": (RESYNC + b"\n" + BULK, b""),
    "bulk, dialogue": (b"+PONG\r\n+OK\r\n-ERR unknown option\r\n" + RESYNC + BULK, b""),
    "eof": (EOF_LINE, MARK),
    "eof, pinged": (b"\n" + EOF_LINE, MARK),
    "eof, PSYNC": (RESYNC + b"\n\n" + EOF_LINE, MARK),
    "eof, RDB channel": (b"+OK\r\n$ENDOFF:27 " + MARK + b" 0 12\r\n" + EOF_LINE, MARK),
    "redis-cli": (b"", MARK),
}
#: What follows, and what it is.
BEHIND = {
    "": None,
    "\n\n": "pings",
    (PING + PING).decode(): "pings",
    (PING + SELECT + b"\n" + GETACK + command(b"publish", b"channel", b"message" * 10_000)).decode(): "pings",
    (PING + b"\0" * 100).decode(): "pings",
    SET.decode(): "replication",
    (PING + SELECT + SET).decode(): "replication",
    command(b"FLUSHALL").decode(): "replication",
    (PING + b"?").decode(): "replication",
    "?": "unknown",
    RDB[:9].decode(): "snapshot",
    (PING + BULK + b"REDIS0009").decode(): "snapshot",
    ("\n" + EOF_LINE.decode()): "snapshot",
}


class Ran(NamedTuple):
    """What a command said."""

    exit_code: int
    stdout: str
    stderr: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command of rdbkit in this process."""

    def run(*words: object) -> Ran:
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Ran(ended.value.code, said.out, said.err)

    return run


def content(path: Path) -> dict[bytes, Any]:
    with rdbkit.open(path) as snapshot:
        return {record.key: record.value for record in snapshot}


def read(data: bytes, **more: Any) -> tuple[dict[bytes, Any], rdbkit.Snapshot]:
    with rdbkit.open(io.BytesIO(data), **more) as snapshot:
        found = {record.key: record.value for record in snapshot}
    return found, snapshot


@pytest.mark.parametrize("block_size", [16, 64, 1 << 20])
@pytest.mark.parametrize("frame", FRAMES)
@pytest.mark.parametrize("behind", BEHIND)
def test_the_snapshot_in_a_capture_is_read(frame: str, behind: str, block_size: int, tmp_path: Path) -> None:
    front, mark = FRAMES[frame]
    data = front + RDB + mark + behind.encode()
    path = tmp_path / "capture"
    path.write_bytes(data)
    for source in (io.BytesIO(data), path, io.BytesIO(gzip.compress(data))):
        with rdbkit.open(source, block_size=block_size) as snapshot:
            assert {record.key: record.value for record in snapshot} == {b"a": b"1", b"b": b"hello"}
        assert snapshot.checksum is not None
        assert snapshot.trailer is not None
        assert snapshot.checksum.state == "ok"
        assert (snapshot.begin, snapshot.rdb_size) == (len(front), len(RDB))
        assert snapshot.framing == ("bulk" if frame.startswith("bulk") else "eof-mark" if front else None)
        if behind:
            wanted = BEHIND[behind]
            is_read = wanted == "pings" or source is path
            assert snapshot.trailer == (wanted, len(behind) if is_read else None)
        else:
            assert snapshot.trailer == (("mark", 40) if mark else ("none", 0))


def test_many_newlines_take_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "capture"
    path.write_bytes(b"\n" * (40 << 20) + BULK + RDB)
    with rdbkit.open(path, block_size=4096) as snapshot:
        assert snapshot.begin == (40 << 20) + len(BULK)
        assert len(snapshot._buf) < 1 << 16
        records = list(snapshot)
    assert [record.offset for record in records] == [snapshot.begin + RDB.index(b"\0\1a"), snapshot.begin + RDB.index(b"\0\1b")]


@pytest.mark.parametrize("frame", FRAMES)
def test_a_capture_cut_at_any_byte_is_told(frame: str, run: Run, tmp_path: Path) -> None:
    front, mark = FRAMES[frame]
    data = front + RDB + mark
    for size in range(len(data)):
        if not front and size >= len(RDB):  # then it is a snapshot with nothing behind it, or something
            _, snapshot = read(data[:size])
            assert snapshot.trailer is not None
            assert snapshot.trailer.kind == ("none" if size == len(RDB) else "unknown")
            continue
        with pytest.raises(rdbkit.RdbError) as failed:
            read(data[:size])
        message = str(failed.value)
        assert "\n" not in message
        if data[:size].endswith((b"\r\n-", b"unknown option\r\n")):
            continue  # of a server that has refused
        assert isinstance(failed.value, rdbkit.TruncatedError), message
        assert failed.value.offset is None or failed.value.offset <= size
        if 0 < size < len(front):
            assert "replication capture ends" in message
            assert failed.value.offset == size
        elif frame.startswith("bulk") and size > len(front):
            assert f"{len(data) - size} of the {len(RDB)} bytes that the capture announces are missing" in message
        path = tmp_path / "capture"  # and by each verb
        path.write_bytes(data[:size])
        if size % 7 == 0:
            for words in (["info", path], ["export", path], ["convert", path, tmp_path / "out", "--target", "redis-7.0"]):
                result = run(*words)
                assert result.exit_code == 3
                assert result.stderr.count("\n") == 1
                assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("frame", FRAMES)
def test_commands_behind_a_capture_may_be_cut_anywhere(frame: str) -> None:
    front, mark = FRAMES[frame]
    for behind in (PING + SELECT + GETACK, SET):
        for size in range(len(behind)):
            found, snapshot = read(front + RDB + mark + behind[:size])
            assert found == {b"a": b"1", b"b": b"hello"}
            assert snapshot.trailer is not None
            if size:
                assert snapshot.trailer.kind in (("pings", "replication") if behind is not SET else ("replication",))
    # what is cut behind its name changes nothing; of what is cut before it nobody knows
    for whole, name in ((PING, 12), (SELECT, 14), (GETACK, 16)):
        for size in range(1, len(whole)):
            _, snapshot = read(front + RDB + mark + whole[:size])
            assert snapshot.trailer is not None
            assert snapshot.trailer.kind == ("pings" if size >= name else "replication"), whole[:size]


def test_an_announced_length_that_is_not_that_of_the_snapshot_is_damage() -> None:
    for wrong in (len(RDB) - 1, len(RDB) + 1, len(RDB) + len(SET), 1):
        with pytest.raises(rdbkit.CorruptError, match=f"announces a snapshot of {wrong} bytes, and it has {len(RDB)} ") as failed:
            read(b"$%d\r\n" % wrong + RDB + SET)
        assert failed.value.offset == len(b"$%d\r\n" % wrong) + len(RDB)
    with pytest.raises(rdbkit.TruncatedError, match=f": 3 of the {len(RDB) + len(SET) + 3} bytes that the capture announces"):
        read(b"$%d\r\n" % (len(RDB) + len(SET) + 3) + RDB + SET)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"+CONTINUE " + MARK + b"\r\n" + SET, "a replication goes on here"),
        (b"+CONTINUE\r\n", "PSYNC"),
        (b"-NOAUTH Authentication required.\r\n", "said -NOAUTH Authentication required"),
        (b"-NOMASTERLINK Can't SYNC while not connected with my master\r\n", "said -NOMASTERLINK"),
        (b"\n\n" + RDB, "2 bytes (b'\\n\\n') in front of `REDIS0009`; take them out: tail -c +3 FILE > NEW"),
        (RESYNC + RDB, f"in front of `REDIS0009`; take them out: tail -c +{len(RESYNC) + 1} FILE > NEW"),
        ((RESYNC + b"\n\n" + BULK + RDB).replace(b"\n", b"\r\n"), "a transfer in text mode made CR LF of every line feed"),
        ((RESYNC + EOF_LINE + RDB + MARK).replace(b"\n", b"\r\n"), "a transfer in text mode made CR LF of every line feed"),
        (RESYNC + RDB[3:], "of a replication begins with b'IS0009"),
        (b"\n\n\n", "ends before the snapshot"),
        (RESYNC.replace(b"\r", b"") + BULK + RDB, "in front of `REDIS0009`; take them out"),
        (b"-ERR " + b"x" * 300 + b"\r\n", "x..."),
        (b"$EOF:" + MARK + b"!!" + RDB, "first mark of a replication capture is damaged"),
        (b"$55 dollars", "no RDB file"),
        (b"$", "ends inside its frame"),
        (b"-----BEGIN CERTIFICATE-----\n", "no RDB file: it begins with"),
        (b"+1 for this", "no RDB file: it begins with"),
        (BULK + b"x" * 100, "no RDB file: it begins with b'xxxx"),
        (EOF_LINE + RDB + MARK[::-1], "second mark of a replication capture differs"),
    ],
)
def test_what_is_no_capture_of_a_snapshot_says_why(data: bytes, words: str) -> None:
    with pytest.raises(rdbkit.RdbError) as failed:
        read(data)
    assert words in str(failed.value)


@pytest.mark.parametrize("between", [b"", bytes(1), bytes(70_000)], ids=["nothing", "zero", "zeros"])
@pytest.mark.parametrize(
    "front", [RDB, RDB + bytes(4096), BULK + RDB + PING, EOF_LINE + RDB + MARK], ids=["rdb", "padded", "bulk", "mark"]
)
@pytest.mark.parametrize(
    "behind", [RDB, RESYNC + BULK + RDB, EOF_LINE + RDB + MARK, gzip.compress(RDB)], ids=["rdb", "bulk", "mark", "gzip"]
)
def test_another_snapshot_behind_the_first_is_a_loss(behind: bytes, front: bytes, between: bytes) -> None:
    """Files put together with cat, of which one has been padded or compressed: no server reads the second."""
    data = front + between + behind
    with rdbkit.open(Dribble(data, 4093)) as snapshot:
        assert len(list(snapshot)) == 2
        assert snapshot.trailer is not None
        assert snapshot.trailer.kind == "snapshot"
    assert [finding.code for finding in check(io.BytesIO(data), "redis-7.0").findings if finding.severity == "loss"] == ["RDB217"]
    assert not verify(io.BytesIO(data)).sound


def test_verbs_and_captures(run: Run, tmp_path: Path) -> None:
    """A capture with pings is as good as its snapshot; with commands it is told by each verb."""
    capture = FIXTURES / "captures" / "sync-disk.bin"
    data = capture.read_bytes()
    plain = data[data.index(b"REDIS") :][:55]
    changed = tmp_path / "changed"
    changed.write_bytes(data + SET)
    left = tmp_path / "left"
    left.write_bytes(plain + MARK)

    rows = [{"db": 0, "key": "a", "type": "string", "encoding": "raw", "value": "1"},
            {"db": 0, "key": "b", "type": "string", "encoding": "raw", "value": "hello"}]  # fmt: skip
    told = "behind the snapshot, and not read: commands of a replication, which change it"
    for path in (capture, changed, left):
        for verb in ("export", "keys"):
            made = run(verb, path, "--format", "jsonl")
            assert made.exit_code == 0
            assert (told in made.stderr) == (path == changed)
            if verb == "export":
                assert [json.loads(line) for line in made.stdout.splitlines()] == rows
        made = run("memory", path, "--target", "redis-7.0")
        assert made.exit_code == 0
        assert (told in made.stderr) == (path == changed)

    for path, trailer in ((capture, ("pings", 14)), (changed, ("replication", 14 + len(SET))), (left, ("mark", 40))):
        report = verify(path, deep=True)
        assert report.sound
        assert report.notes[-1].startswith("followed by ")
        assert report.notes[-1].endswith(f": {trailer[1]} bytes")
        assert len(report.notes) == (1 if path == left else 2)
        said = json.loads(run("info", path, "--json").stdout)
        assert (said["trailer"], said["trailer_size"], said["rdb_size"]) == (*trailer, 55)
        assert "followed by" in run("verify", path).stdout
        assert "followed by" in run("info", path).stdout

    assert [f.code for f in check(capture, "azure-managed").findings if f.severity != "note"] == ["RDB406"]
    assert check(capture, "azure-managed").verdict == "lossless"
    assert check(changed, "azure-managed").verdict == "lossy"
    assert "RDB215" in [f.code for f in check(changed, "azure-managed").findings]
    assert check(left, "azure-managed").verdict == "as-it-is"
    assert [f.code for f in check(left, "azure-managed").findings] == ["RDB907"]

    for path in (capture, left):
        for words in (["convert", path, tmp_path / "out", "--target", "redis-6.0"], ["merge", path, "-o", tmp_path / "out"]):
            made = run(*words)
            assert made.exit_code == 0
            assert content(tmp_path / "out") == {b"a": b"1", b"b": b"hello"}
            assert words[0] == "merge" or (tmp_path / "out").read_bytes() == plain
            (tmp_path / "out").unlink()
        made = run("split", path, "-o", tmp_path / "parts", "--parts", 1)
        assert made.exit_code == 0
        assert made.stderr == ""
        for part in sorted((tmp_path / "parts").iterdir()):
            part.unlink()
        made = run("diff", path, changed)
        assert made.exit_code == 1
        assert "commands of a replication, which change it: not compared" in made.stdout
        assert run("diff", path, capture).exit_code == 0
    for words in (
        ["convert", changed, tmp_path / "out", "--target", "redis-6.0"],
        ["merge", changed, "-o", tmp_path / "out"],
        ["split", changed, "-o", tmp_path / "other", "--parts", 1],
    ):
        made = run(*words)
        assert made.exit_code == 1
        assert "commands of a replication" in made.stderr
        assert run(*words, "--on-loss", "drop").exit_code == 0
        (tmp_path / "out").unlink(missing_ok=True)
    made = run("redact", changed, tmp_path / "out", "--random")
    assert "commands behind the snapshot" in made.stderr


@pytest.mark.one_in(3)
@pytest.mark.parametrize("frame", FRAMES)
def test_salvage_takes_the_frame_off(frame: str, tmp_path: Path) -> None:
    front, mark = FRAMES[frame]
    path, out = tmp_path / "capture", tmp_path / "out.rdb"
    for behind, what in ((b"", {}), (PING + SELECT, {}), (b"\n", {}), (PING + SET, {"behind": 1}), (RDB, {"behind": 1})):
        path.write_bytes(front + RDB + mark + behind)
        report = salvage(path, out, force=True)
        assert (report.kept, report.lost, report.checksum) == (2, what, "ok")
        assert content(out) == {b"a": b"1", b"b": b"hello"}
        assert out.read_bytes().startswith(b"REDIS")
        if what:
            assert (report.samples[0].offset, report.samples[0].size) == (len(front + RDB + mark), len(behind))
    # with damage inside; the sound keys stay, and no key is made of the commands behind
    many = rdb(b"\xfe\0", *(key(b"key:%03d" % n, 0, string(b"value of %03d" % n)) for n in range(60)))
    front = front.replace(BULK, b"$%d\r\n" % len(many))
    at = many.index(b"key:030") - 2
    damaged = many[:at] + b"\xc8" * 9 + many[at + 9 :]
    for behind in (b"", PING, SET * 30):
        path.write_bytes(front + damaged + mark + behind)
        report = salvage(path, out, force=True)
        assert report.kept >= 58
        assert report.lost == {"gap": 1} | ({"behind": 1} if behind.startswith(SET) else {})
        assert content(out).keys() <= {b"key:%03d" % n for n in range(60)}
    # cut anywhere
    whole = front + many + mark
    for size in [*range(len(front) + 9, len(whole), 31), *range(len(front) + len(many), len(whole))]:
        path.write_bytes(whole[:size])
        report = salvage(path, out, force=True)
        assert report.cut == (size < len(front) + len(many))
        assert content(out).keys() <= {b"key:%03d" % n for n in range(60)}


@pytest.mark.parametrize("block_size", [16, 1 << 20])
@pytest.mark.parametrize("frame", FRAMES)
def test_what_is_unknown_in_a_capture_is_no_damage(frame: str, block_size: int) -> None:
    front, mark = FRAMES[frame]
    for padding in (0, 100, 10_000):
        unknown = rdb(b"\xfe\0", key(b"a", 0, string(b"1")), b"\xc8" + bytes(padding))
        data = front.replace(BULK, b"$%d\r\n" % len(unknown)) + unknown + mark
        for whole, wanted in ((data, True), (data.replace(b"\1a", b"\1x"), False)):
            for behind in (b"", PING) if front else (b"",):
                with rdbkit.open(io.BytesIO(whole + behind), block_size=block_size) as snapshot:
                    with pytest.raises(rdbkit.UnsupportedTypeError):
                        list(snapshot)
                    assert snapshot.fits_checksum() is wanted

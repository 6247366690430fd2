"""Append-only files that servers wrote under random writes, folded: what comes out is what the server that wrote them answers."""

from __future__ import annotations

import gzip
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

import rdbkit
from fixtures.server import Client, Command, running
from rdbkit.cli import cli
from rdbkit.format.payload import Payload, encode_payload
from rdbkit.operations.fold_server import PrivateServer, binaries
from rdbkit.resp import command
from rdbkit.storage.temporary import copy_of

from .. import command_line
from ..processes import GUARD, heeding_signals, until
from ..rdb import FIXTURES

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
LINES = ["redis-7.0", "redis-8.0", "valkey-9.1"]
SEEDS = 20
FOLDER = FIXTURES / "aof" / "appendonlydir"
PREAMBLE = FIXTURES / "aof" / "preamble-tail.aof"
FAR = 4_102_444_800_000
CONF = ("appendonly yes", "enable-debug-command yes", "auto-aof-rewrite-percentage 0", "appendfsync no")
LIBRARY = "#!lua name={0}\nredis.register_function('{0}', function(keys, args) return redis.call('INCR', keys[1]) end)"


def binary(line: str) -> Path:
    return SERVERS / line / "redis-server"


@pytest.fixture(scope="module", params=LINES)
def line(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def writer(line: str) -> Iterator[tuple[Client, Path]]:
    """A server with an append-only folder."""
    with running(binary(line), conf=CONF) as (client, folder):
        yield client, folder


@pytest.fixture(scope="module")
def reader(line: str) -> Iterator[tuple[Client, Path]]:
    """A server that loads what comes out."""
    with running(binary(line), conf=("enable-debug-command yes",)) as found:
        yield found


def one_write(rng: random.Random) -> Iterator[Command]:
    """What a client may send; some of it is answered with an error, and is then no part of the file."""

    def key() -> str:
        return f"{rng.choice('slhzqxu')}{rng.randrange(6)}"

    def word() -> bytes:
        return rng.choice((b"%d" % rng.randrange(-9, 99), rng.randbytes(rng.choice((1, 30, 70, 300)))))

    number = rng.randrange(99)
    far = FAR + rng.randrange(10**9)
    member, other = word(), word()
    kinds: list[list[Command]] = [
        [("SET", f"s{number % 6}", word())],
        [("SET", f"s{number % 6}", word(), "PX", far - time.time_ns() // 1_000_000)],
        [("APPEND", f"s{number % 6}", word())],
        [("INCRBYFLOAT", f"s{number % 6}", 0.5)],
        [("SETRANGE", f"s{number % 6}", number, word())],
        [("SETBIT", f"u{number % 3}", number * 9, 1), ("PFADD", "u4", member, other)],
        [("RPUSH", f"l{number % 6}", *(word() for _ in range(rng.choice((1, 5, 200)))))],
        [("LPOP", f"l{number % 6}", rng.randrange(1, 5)), ("LMOVE", f"l{number % 6}", "l1", "LEFT", "RIGHT")],
        [("LSET", f"l{number % 6}", 0, word()), ("LTRIM", f"l{number % 6}", 0, 150), ("LINSERT", "l1", "BEFORE", member, other)],
        [("SADD", f"q{number % 6}", *(rng.randrange(999) for _ in range(rng.choice((1, 5, 600)))))],
        [("SADD", f"q{number % 6}", member, other), ("SPOP", f"q{number % 6}", 2), ("SUNIONSTORE", "q5", "q1", "q2")],
        [("ZADD", f"z{number % 6}", rng.uniform(-9, 9), member, "inf", other), ("ZINCRBY", f"z{number % 6}", 0.1, member)],
        [("ZADD", "z1", *(part for i in range(150) for part in (i, f"m{i}"))), ("ZREMRANGEBYRANK", "z1", 0, 3)],
        [("ZUNIONSTORE", "z5", 2, "z1", "z2"), ("GEOADD", "z4", 13.361389, 38.115556, member), ("ZPOPMIN", "z3")],
        [("HSET", f"h{number % 6}", member, other, b"f", word()), ("HINCRBYFLOAT", f"h{number % 6}", "n", 1.5)],
        [
            ("HSET", f"h{number % 6}", *(part for i in range(150) for part in (f"f{i}", i))),
            ("HDEL", f"h{number % 6}", "f1", member),
        ],
        [("HPEXPIREAT", f"h{number % 6}", far, "FIELDS", 2, "f", "f2"), ("HPERSIST", f"h{number % 6}", "FIELDS", 1, "f2")],
        [("XADD", f"x{number % 3}", "MAXLEN", "~", 100, "*", member, other) for _ in range(rng.choice((1, 5, 120)))],
        [
            ("XGROUP", "CREATE", f"x{number % 3}", "g", 0),
            ("XREADGROUP", "GROUP", "g", "c", "COUNT", 9, "STREAMS", f"x{number % 3}", ">"),
        ],
        [
            ("XGROUP", "CREATECONSUMER", f"x{number % 3}", "g", "d"),
            ("XAUTOCLAIM", f"x{number % 3}", "g", "d", 0, 0, "COUNT", 2),
            ("XTRIM", f"x{number % 3}", "MAXLEN", 50),
        ],
        [("XGROUP", "DELCONSUMER", f"x{number % 3}", "g", "d"), ("XSETID", f"x{number % 3}", f"{far}-1")],
        [("DEL", key(), key())],
        [("RENAME", key(), key())],
        [("COPY", key(), key(), "REPLACE"), ("MOVE", key(), rng.randrange(4))],
        [("PEXPIREAT", key(), far), ("PERSIST", key()), ("GETEX", key(), "PXAT", far)],
        [("SORT", f"l{number % 6}", "ALPHA", "STORE", "l5")],
        [("MULTI",), ("SET", "s1", word()), ("LPUSH", "s1", 1), ("RPUSH", "l2", word()), ("EXEC",)],
        [("MULTI",), ("SET", "s1", 1), ("DISCARD",)],
        [("EVAL", "for i = 1, 9 do redis.call('INCR', KEYS[1]) redis.pcall('LPUSH', KEYS[1], 1) end", 1, f"s{number % 6}")],
        [("FUNCTION", "LOAD", "REPLACE", LIBRARY.format(f"f{number % 3}")), ("FCALL", f"f{number % 3}", 1, "s2")],
        [("FUNCTION", "DELETE", f"f{number % 3}")],
        [("SET", "s5", 1, "PX", 1)],
        [("SELECT", rng.randrange(4))],
        [("SWAPDB", 0, rng.randrange(4)), ("FLUSHDB",)] if number < 9 else [("SELECT", 15)],
    ]
    yield from rng.choice(kinds)


def write(client: Client, seed: int) -> None:
    """Random writes, with rewrites in the middle."""
    rng = random.Random(seed)
    client.call("FLUSHALL")
    client.call("FUNCTION", "FLUSH")
    for number in range(rng.choice((0, 1, 1, 2, 3)) + 1):
        if number:
            client.call("CONFIG", "SET", "aof-use-rdb-preamble", rng.choice(("yes", "no")))
            client.call("CONFIG", "SET", "aof-timestamp-enabled", rng.choice(("yes", "no")))
            client.call("BGREWRITEAOF")
        client.answers([each for _ in range(150) for each in one_write(rng)])
        until(lambda: {b"aof_rewrite_in_progress:0", b"aof_rewrite_scheduled:0"} <= persistence(client))
    time.sleep(0.01)  # the time of what was set last is over as well
    for db in range(16):
        client.call("SELECT", db)
        until(lambda: client.integer("DBSIZE") == len(client.items("KEYS", "*")))  # what has expired is gone


def persistence(client: Client) -> set[bytes]:
    reply = client.call("INFO", "persistence")
    assert isinstance(reply, bytes)
    return set(reply.split(b"\r\n"))


@pytest.mark.parametrize("seed", range(SEEDS))
def test_what_comes_out_is_what_the_server_answers(
    seed: int, line: str, writer: tuple[Client, Path], reader: tuple[Client, Path], tmp_path: Path
) -> None:
    client, folder = writer
    write(client, seed)
    digest = client.call("DEBUG", "DIGEST")
    client.call("SAVE")
    made = tmp_path / "made.rdb"
    report = rdbkit.fold(folder / "appendonlydir", made, server=binary(line))
    assert report.refused == report.cut == 0
    same = rdbkit.diff(folder / "dump.rdb", made)
    assert same.same, same.to_dict()
    loader, place = reader
    shutil.copyfile(made, place / "dump.rdb")
    loader.call("DEBUG", "RELOAD", "NOSAVE")
    assert loader.call("DEBUG", "DIGEST") == digest
    libraries = [sorted(map(repr, each.items("FUNCTION", "LIST", "WITHCODE"))) for each in (client, loader)]
    assert libraries[0] == libraries[1]


def rows(path: Path) -> list[tuple[int, bytes, object]]:
    with rdbkit.open(path) as snapshot:
        return sorted(((record.db, record.key, record.value) for record in snapshot), key=lambda row: row[:2])


@pytest.mark.parametrize("form", ["folder", "manifest", "preamble"])
def test_the_known_files(form: str, line: str, tmp_path: Path) -> None:
    source = {"folder": FOLDER, "manifest": FOLDER / "appendonly.aof.manifest", "preamble": PREAMBLE}[form]
    before = {path: path.read_bytes() for path in FOLDER.iterdir()}
    made = tmp_path / "made.rdb"
    report = rdbkit.fold(source, made, server=binary(line))
    wanted: list[tuple[int, bytes, object]] = [(0, b"a", b"2"), (0, b"b", b"3")]
    if form == "preamble":
        wanted = [(0, b"a", b"2"), (0, b"l", [b"x", b"y"]), (3, b"tail", b"3")]
    assert rows(made) == wanted
    assert report.keys == len(wanted)
    assert report.server.startswith(line.partition("-")[0].capitalize())
    assert {path: path.read_bytes() for path in FOLDER.iterdir()} == before
    assert list(tmp_path.iterdir()) == [made]


def aof(tmp_path: Path, *commands: bytes) -> Path:
    path = tmp_path / "in.aof"
    path.write_bytes(command(b"SELECT", b"0") + command(b"SET", b"k", b"v") + b"".join(commands))
    return path


def test_keys_that_have_expired_stay(line: str, tmp_path: Path) -> None:
    old = b"%d" % (time.time_ns() // 1_000_000 - 5000)
    path = aof(tmp_path, command(b"SET", b"e", b"v", b"PXAT", old), command(b"SADD", b"s", b"m"), command(b"PEXPIREAT", b"s", old))
    made = tmp_path / "made.rdb"
    rdbkit.fold(path, made, server=binary(line))
    assert [key for _, key, _ in rows(made)] == [b"e", b"k", b"s"]


@pytest.mark.parametrize(
    ("more", "error", "why"),
    [
        ([command(b"LPUSH", b"k", b"v")], rdbkit.TargetError, "did not carry out 1 command; the first, lpush: WRONGTYPE"),
        ([command(b"SELECT", b"99999"), command(b"SET", b"k", b"w")], rdbkit.TargetError, "beyond the 16,384 that the server has"),
        ([command(b"LPUSH", b"k", b"v")] * 20 + [command(b"SELECT", b"99999")], rdbkit.TargetError, "beyond the 16,384"),
        ([command(b"MULTI"), command(b"SELECT", b"99999"), command(b"EXEC")], rdbkit.TargetError, "beyond the 16,384"),
        (
            [command(b"EVAL", b"error(string.rep('x', 3000))", b"0")],
            rdbkit.TargetError,
            "did not carry out 1 command; the first: ERR ",
        ),
        ([command(b"NO.SUCH", b"k")], rdbkit.TargetError, "NO.SUCH"),
        ([command(b"BF.ADD", b"k", b"v")], rdbkit.TargetError, "a newer server may know it, or one with the module that it is of"),
        ([command(b"SHUTDOWN", b"NOSAVE")], rdbkit.TargetError, "SHUTDOWN"),
        ([command(b"REPLICAOF", b"127.0.0.1", b"1")], rdbkit.TargetError, "REPLICAOF"),
        ([command(b"CONFIG", b"SET", b"dir", b"/tmp")], rdbkit.TargetError, "CONFIG"),
        ([command(b"DEBUG", b"SLEEP", b"0")], rdbkit.TargetError, "DEBUG"),
        ([command(b"CLIENT", b"KILL", b"TYPE", b"normal")], rdbkit.TargetError, "CLIENT"),
        ([command(b"SET", b"k2", b"v")[:-3]], rdbkit.CorruptError, "the file ends inside a command; rdbkit fold --truncate-tail"),
        ([bytes(50)], rdbkit.CorruptError, "zeros stand where a command begins"),
        ([command(b"MULTI"), command(b"SET", b"k2", b"v")], rdbkit.CorruptError, "a transaction (MULTI) does not end"),
    ],
)
def test_what_is_not_loaded(more: list[bytes], error: type[rdbkit.RdbError], why: str, line: str, tmp_path: Path) -> None:
    path = aof(tmp_path)
    whole = path.stat().st_size
    path = aof(tmp_path, *more)
    made = tmp_path / "made.rdb"
    with pytest.raises(error) as e:
        rdbkit.fold(path, made, server=binary(line))
    assert why in str(e.value)
    assert e.value.source == str(path)
    assert e.value.offset == (whole if error is rdbkit.CorruptError else None)
    assert "\n" not in str(e.value)
    if error is rdbkit.CorruptError:
        report = rdbkit.fold(path, made, server=binary(line), truncate_tail=True)
        assert (report.cut, report.cut_file, report.cut_at) == (path.stat().st_size - whole, str(path), whole)
        assert rows(made) == [(0, b"k", b"v")]
    elif "carry out" in why:
        report = rdbkit.fold(path, made, server=binary(line), on_error="skip")
        assert report.refused == 1
        assert rows(made) == [(0, b"k", b"v")]
    assert sorted(path.name for path in tmp_path.iterdir()) in (["in.aof"], ["in.aof", "made.rdb"])


def test_damage_in_each_file_of_a_folder(line: str, tmp_path: Path) -> None:
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    files = {"a.base.rdb": (FOLDER / "appendonly.aof.2.base.rdb").read_bytes()}
    for number in (1, 2):
        files[f"{number}.aof"] = command(b"SELECT", b"0") + command(b"RPUSH", b"l", b"%d" % number)
    (folder / "x.manifest").write_text("file a.base.rdb seq 1 type b\nfile 1.aof seq 1 type i\nfile 2.aof seq 2 type i\n")
    made = tmp_path / "made.rdb"

    def fold(changed: dict[str, bytes] | None = None, truncate_tail: bool = False) -> rdbkit.Fold:
        for name, data in files.items():
            (folder / name).write_bytes((changed or {}).get(name[0], data))
        return rdbkit.fold(folder, made, server=binary(line), truncate_tail=truncate_tail, force=True)

    assert fold().keys == 2
    with pytest.raises(rdbkit.CorruptError, match=r"1\.aof: damaged: the file ends inside a command \(at byte 23\)"):
        fold({"1": files["1.aof"][:-1]})
    with pytest.raises(rdbkit.CorruptError, match=r"1\.aof: damaged: .*; only the last file can be cut off \(at byte 23\)"):
        fold({"1": files["1.aof"][:-1]}, True)
    report = fold({"2": files["2.aof"][:-1]}, True)
    assert (report.cut_at, report.cut_file) == (23, str(folder / "2.aof"))
    assert rows(made) == [(0, b"a", b"1"), (0, b"l", [b"1"])]
    with pytest.raises(rdbkit.CorruptError, match=r"a\.base\.rdb: the snapshot that it begins with is damaged"):
        fold({"a": files["a.base.rdb"][:-12]}, True)
    with pytest.raises(rdbkit.CorruptError, match=r"a\.base\.rdb: .*checksum differs: .*; fetch the file again \(at"):
        fold({"a": files["a.base.rdb"][:-1] + b"\0"}, True)
    with pytest.raises(rdbkit.TargetError, match="it begins with RDB 899, which needs a newer Redis"):
        fold({"a": files["a.base.rdb"].replace(b"REDIS0010", b"REDIS0899")})


def test_a_server_that_still_writes(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = aof(tmp_path, command(b"SET", b"k2", b"v")[:-3])

    def copy_and_write(source: str, copy: str) -> int:
        size = copy_of(source, copy)
        with open(source, "ab") as file:
            file.write(b"v\r\n")
        return size

    monkeypatch.setattr("rdbkit.operations.fold.copy_of", copy_and_write)
    with pytest.raises(rdbkit.ChangedError, match="a server writes to it"):
        rdbkit.fold(path, tmp_path / "made.rdb", server=binary(line))


def test_who_may_read_what_comes_out(line: str, tmp_path: Path) -> None:
    path = aof(tmp_path)
    path.chmod(0o600)
    made = tmp_path / "made.rdb"
    rdbkit.fold(path, made, server=binary(line))
    assert made.stat().st_mode & 0o777 == 0o600


def test_a_folder_whose_path_is_longer_than_that_of_a_socket(line: str, tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    report = rdbkit.fold(aof(tmp_path), deep / "made.rdb", server=binary(line))
    assert report.keys == 1
    assert [path.name for path in deep.iterdir()] == ["made.rdb"]


def run(*arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **more}
    return subprocess.run(
        [sys.executable, "-m", "rdbkit", *map(str, arguments)], capture_output=True, text=True, env=environment, check=False
    )


def test_the_command(line: str, tmp_path: Path) -> None:
    made = tmp_path / "made.rdb"
    done = run("fold", FOLDER, made, "--server", binary(line))
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first.startswith(f"{made}: {FOLDER} (2 files, 176 B) folded with ")
    assert second == f"2 keys, {made.stat().st_size} B"
    again = run("fold", FOLDER, made, RDBKIT_SERVER=str(binary(line)))
    assert (again.returncode, again.stderr.splitlines()[-1]) == (2, f"Error: {made} exists; --force replaces it")
    damaged = aof(tmp_path, b"*1\r\n")
    done = run("fold", damaged, made, "--force", "--truncate-tail", "--json", "--strict", RDBKIT_SERVER=str(binary(line)))
    assert done.returncode == 1
    assert done.stderr == f"rdbkit: {damaged}: cut at byte 50; 4 bytes left out\n"
    assert '"cut": 4' in done.stdout
    done = run("fold", damaged, made, "--force", "--server", binary(line))
    assert done.returncode == 3


#: Commands that read a FILE, each with what its output has of the data that only the increment holds, or what follows the snapshot.
VERBS = {
    "check {folder} --target redis-7.2": "imports it as it is",
    "info {folder} {preamble} --json": '"keys": 5',
    "memory {folder} --target redis-7.2 --json": '"keys": 2',
    "plan {folder} --target azure-managed --json": '"keys": 2',
    "convert {folder} {out} --target redis-6.0": "2 keys written",
    "split {folder} --parts 2 --into {out}": "2 keys in 2 parts",
    "merge {folder} {preamble} -o {out} --on-duplicate first": "4 keys written, 1 key left out",
    "diff {folder} {preamble}": "have different data",
    "diff {folder} {manifest}": "have the same data",
    "diff {folder} {preamble} --delta {out}.rdb": "2 keys, but not the deletion of 1 key",
    "verify {folder} --deep": "keys       2",
    "salvage {folder} {out}": "2 keys kept",
    "redact {folder} {out}": "written  2",
    "export {folder}": '"key":"b"',
    "export {packed}": '"key":"k"',
    "get {folder} b": "3",
    "keys {folder} --format csv": "b,string",
}


@pytest.mark.parametrize("words", VERBS)
def test_every_verb_reads_it(words: str, tmp_path: Path) -> None:
    packed = tmp_path / "packed.aof.gz"
    packed.write_bytes(gzip.compress(aof(tmp_path).read_bytes()))
    names = {"folder": FOLDER, "preamble": PREAMBLE, "packed": packed, "out": tmp_path / "out"}
    names["manifest"] = FOLDER / "appendonly.aof.manifest"
    server = binary("redis-7.0")
    done = CliRunner().invoke(cli, [word.format(**names) for word in words.split()], env={"RDBKIT_SERVER": str(server)})
    assert done.exception is None, done.output
    assert VERBS[words] in done.stdout
    told = [line for line in done.stderr.splitlines() if "folded with Redis 7.0.15" in line]
    assert len(told) == words.count("{") - words.count("{out}")
    assert str(tmp_path) not in done.stdout.replace(str(tmp_path / "out"), "")
    assert not list(Path(tempfile.gettempdir()).glob(f".rdbkit-*-1.tmp/{FOLDER.name}"))


def test_the_snapshot_alone(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["export", str(PREAMBLE), "--allow-base"], env={"RDBKIT_SERVER": "/no/server"})
    assert done.exit_code == 0
    assert '"key":"a","type":"string","encoding":"int","value":"1"' in done.stdout
    done = CliRunner().invoke(cli, ["export", str(PREAMBLE), "--server", "/no/server"])
    assert isinstance(done.exception, rdbkit.TargetError)
    assert str(done.exception) == "/no/server: no program that can be run"


CACHE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Cache/Redis/n"
CONTAINER = "https://account.blob.core.windows.net/container/"


def test_of_several_files_one_cannot_be_folded(tmp_path: Path) -> None:
    damaged = aof(tmp_path, b"*1\r\n")
    environment = {**os.environ, "RDBKIT_SERVER": str(binary("redis-7.0"))}
    for verb, code in (("info", 3), ("verify", 3), ("check --target redis-7.2", 3), ("merge -o out.rdb", 3)):
        name, *options = verb.split()
        done = command_line.run_text(name, damaged, PREAMBLE, FOLDER, *options, environment=environment, cwd=tmp_path)
        assert done.returncode == code
        assert f"rdbkit: {damaged}: damaged: the file ends inside a command" in done.stderr
        if verb in ("info", "verify"):
            assert str(PREAMBLE) in done.stdout
            assert str(FOLDER) in done.stdout
            assert str(damaged) not in done.stdout


@pytest.mark.parametrize(
    "verb", [f"upload {{}} {CONTAINER}", f"migrate {{}} --target azure-premium --resource-id {CACHE} --container {CONTAINER}"]
)
def test_what_is_run_again_takes_none(verb: str) -> None:
    done = CliRunner().invoke(cli, verb.format(FOLDER).split())
    assert done.exit_code == 2
    assert "make a snapshot of it first, with rdbkit fold" in done.stderr


@pytest.mark.parametrize("words", ["fold {folder} {link} --force", "convert {folder} {link} --target redis-6.0 --force"])
@pytest.mark.parametrize("name", ["appendonly.aof.2.base.rdb", "appendonly.aof.2.incr.aof", "appendonly.aof.manifest"])
def test_an_output_that_is_a_file_of_the_folder(name: str, words: str, tmp_path: Path) -> None:
    folder = tmp_path / "appendonlydir"
    shutil.copytree(FOLDER, folder)
    link = tmp_path / "link.rdb"
    link.hardlink_to(folder / name)
    arguments = [word.format(folder=folder, link=link) for word in words.split()]
    done = CliRunner().invoke(cli, arguments, env={"RDBKIT_SERVER": str(binary("redis-7.0"))})
    assert done.exit_code == 2
    assert re.search(r"OUT and (FILE|AOF) are the same file", done.stderr)
    with pytest.raises(ValueError, match="the destination is one of the files that are folded"):
        rdbkit.fold(folder, folder / name, server=binary("redis-7.0"), force=True)
    assert (folder / name).read_bytes() == (FOLDER / name).read_bytes()


def test_a_manifest_that_names_a_file_twice(line: str, tmp_path: Path) -> None:
    (tmp_path / "b").write_bytes(aof(tmp_path).read_bytes())
    (tmp_path / "x.manifest").write_text("file b seq 1 type b\nfile b seq 1 type i\n")
    assert rdbkit.fold(tmp_path, tmp_path / "out.rdb", server=binary(line)).files == ["b", "b"]


def servers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The processes that a process has started."""
    task = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in task.read_text().split()] if task.exists() else []


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"


#: What would write elsewhere, connect to somebody, load code, or end or change the server.
HARMFUL = [
    "CONFIG SET dir {place}", "CONFIG SET dbfilename x.rdb", "CONFIG REWRITE", "SAVE", "BGSAVE", "BGREWRITEAOF", "DEBUG SEGFAULT",
    "DEBUG RELOAD", "REPLICAOF 127.0.0.1 {port}", "SLAVEOF 127.0.0.1 {port}", "MIGRATE 127.0.0.1 {port} k 0 1000",
    "FAILOVER TO 127.0.0.1 {port}", "CLUSTER MEET 127.0.0.1 {port}", "MODULE LOAD {place}/x.so", "MODULE LOADEX {place}/x.so",
    "ACL SAVE", "SHUTDOWN SAVE", "SYNC", "PSYNC ? -1", "REPLCONF capa eof", "MONITOR", "CLIENT PAUSE 100000",
]  # fmt: skip


@pytest.mark.parametrize("words", HARMFUL)
def test_no_file_makes_the_server_reach_out(words: str, line: str, tmp_path: Path) -> None:
    place = tmp_path / "elsewhere"
    place.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0)
        arguments = [word.format(place=place, port=listening.getsockname()[1]) for word in words.split()]
        with pytest.raises(rdbkit.TargetError, match=f"(?i)unknown command '{arguments[0]}'"):
            rdbkit.fold(aof(tmp_path, command(*map(str.encode, arguments))), tmp_path / "out.rdb", server=binary(line))
        said = "redis.call('SET', 'said', redis.pcall({}).err)".format(", ".join(f"'{word}'" for word in arguments)).encode()
        rdbkit.fold(aof(tmp_path, command(b"EVAL", said, b"0")), tmp_path / "out.rdb", server=binary(line))
        answer = {key: value for _, key, value in rows(tmp_path / "out.rdb")}[b"said"]
        assert isinstance(answer, bytes)
        assert b"nknown" in answer
        with pytest.raises(BlockingIOError):
            listening.accept()
    assert not list(place.iterdir())
    assert [path.name for path in sorted(tmp_path.iterdir()) if path != place] == ["in.aof", "out.rdb"]


@pytest.mark.parametrize("script", ["while true do end", "local t = {} for i = 1, 1e18 do t[i % 9] = redis.call('TIME') end"])
def test_a_file_that_never_ends(script: str, line: str, tmp_path: Path) -> None:
    (binary_,) = binaries(str(binary(line)))
    folder = tmp_path / "appendonlydir"
    folder.mkdir()
    (folder / "appendonly.aof.1.incr.aof").write_bytes(command(b"EVAL", script.encode(), b"0"))
    (folder / "appendonly.aof.manifest").write_text("file appendonly.aof.1.incr.aof seq 1 type i\n")
    private = PrivateServer(binary_, str(tmp_path), ["--enable-debug-command", "yes"], patience=0.5)
    with pytest.raises(rdbkit.TargetError, match="does not come further"), private as server:
        server.load()


def test_a_payload_that_is_damaged_under_its_checksum(line: str, tmp_path: Path) -> None:
    # a hash in a listpack, whose first entry has a length that goes beyond its end
    damaged = encode_payload(Payload(16, b"\x0d\x0d\0\0\0\x02\0\xbff\x02\x81v\x02\xff", 10))
    with pytest.raises(rdbkit.TargetError, match="Hash listpack integrity check failed"):
        rdbkit.fold(aof(tmp_path, command(b"RESTORE", b"h", b"0", damaged)), tmp_path / "out.rdb", server=binary(line))


@pytest.mark.parametrize("rewrites", [False, True])
def test_what_is_written_after_the_copy_is_told(rewrites: bool, tmp_path: Path) -> None:
    folder = tmp_path / "appendonlydir"
    shutil.copytree(FOLDER, folder)
    runner, out = CliRunner(), str(tmp_path / "out.rdb")
    quiet = runner.invoke(cli, ["fold", str(folder), out, "--server", str(binary("redis-7.0"))])
    assert (quiet.exit_code, quiet.stderr) == (0, "")
    # what starts the server stands for one that writes between the copy and the end
    name, line = (
        ("manifest", "file appendonly.aof.3.incr.aof seq 3 type i\\n") if rewrites else ("2.incr.aof", "*1\\r\\n$4\\r\\nPING\\r\\n")
    )
    script = tmp_path / "server"
    write = f"printf '{line}' >>'{folder}/appendonly.aof.{name}'"
    script.write_text(f'#!/bin/sh\n[ "$1" = --version ] || {write}\nexec \'{binary("redis-7.0")}\' "$@"\n')
    script.chmod(0o755)
    (folder / "appendonly.aof.3.incr.aof").touch()
    later = runner.invoke(cli, ["fold", str(folder), out, "--force", "--server", str(script)])
    assert (later.exit_code, later.stdout.splitlines()[1]) == (0, quiet.stdout.splitlines()[1])
    assert "a server still writes to it; what it wrote after the copy was made is left out" in later.stderr


def test_a_script_that_starts_a_server_and_stays(tmp_path: Path) -> None:
    script = tmp_path / "server"
    script.write_text(f'#!/bin/sh\n"{binary("redis-7.0")}" "$@" --maxclients 50\n')
    script.chmod(0o755)
    assert rdbkit.fold(FOLDER, tmp_path / "out.rdb", server=script).keys == 2  # and does not wait for what the script left


@pytest.mark.skipif(sys.platform != "linux", reason="it looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_server_ends_with_the_command(number: signal.Signals, tmp_path: Path) -> None:
    path = aof(tmp_path, command(b"EVAL", b"while true do end", b"0"))  # which takes as long as it may
    process = subprocess.Popen(
        heeding_signals(
            [sys.executable, "-m", "rdbkit", "fold", str(path), str(tmp_path / "out.rdb"), "--server", str(binary("redis-7.0"))]
        )
    )
    until(lambda: list(tmp_path.glob(".rdbkit-*-1.tmp/s")), process)
    (server,) = servers_of(process)
    process.send_signal(number)
    assert process.wait(GUARD) == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    until(lambda: not is_alive(server))
    left = sorted(path.name for path in tmp_path.iterdir())
    if number == signal.SIGKILL:
        assert len(left) == 3
        assert run("fold", FOLDER, tmp_path / "out.rdb", "--server", binary("redis-7.0")).returncode == 0
        left = sorted(path.name for path in tmp_path.iterdir() if path.name != "out.rdb")
    assert left == ["in.aof"]

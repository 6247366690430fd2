"""`rdbkit snapshot`, and servers as FILEs: what is written, what is said, and that a server that fails leaves nothing."""

from __future__ import annotations

import gzip
import json
import stat
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from rdbkit.errors import ChecksumError, TargetError
from rdbkit.live.server import connect
from rdbkit.live.snapshot import snapshot_server

from ..command_line import run, run_text
from ..rdb import FIXTURES, Dribble, key, rdb, string
from .master import master

RDB = (FIXTURES / "rich" / "redis-7.0.15.rdb").read_bytes()
MARK = b"0123456789abcdef0123456789abcdef01234567"
RESYNC = b"+FULLRESYNC " + MARK + b" 1234\r\n"


def bulk(data: bytes) -> bytes:
    return RESYNC + b"\n$%d\r\n" % len(data) + data


def marked(data: bytes) -> bytes:
    return RESYNC + b"$EOF:" + MARK + b"\r\n" + data + MARK


def content(source: Any) -> dict[tuple[int, bytes], tuple[Any, int | None]]:
    with rdbkit.open(source) as snapshot:
        return {(record.db, record.key): (record.value, record.expire_ms) for record in snapshot}


@pytest.mark.parametrize("framed", [bulk, marked])
def test_the_file_has_what_the_server_sent(framed: Any, tmp_path: Path) -> None:
    with master(framed(RDB)) as url:
        done = run_text("snapshot", url, tmp_path / "out.rdb")
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "out.rdb").read_bytes() == RDB
        assert stat.S_IMODE((tmp_path / "out.rdb").stat().st_mode) == 0o600
        first, second, third = done.stdout.splitlines()
        assert first.endswith("out.rdb: REDIS0010 as redis 7.0.15 sent it")
        assert second.startswith("27 keys written, ")
        assert third.startswith("as it was at 20")
        assert third.endswith(" UTC, by the server's clock")
        assert not done.stderr
        again = run_text("snapshot", url, tmp_path / "out.rdb")
        assert (again.returncode, again.stdout) == (2, "")
        assert "exists; --force replaces it" in again.stderr
        assert run("snapshot", url, tmp_path / "out.rdb", "--force").returncode == 0
        assert run("snapshot", url, "-").stdout == RDB
        assert run("snapshot", url, tmp_path / "out.rdb.gz").returncode == 0
        assert gzip.decompress((tmp_path / "out.rdb.gz").read_bytes()) == RDB


def test_the_report_as_json(tmp_path: Path) -> None:
    with master(marked(RDB)) as url:
        said = json.loads(run("snapshot", url, tmp_path / "out.rdb", "--json").stdout)
        source, destination = said["source"], said["destination"]
        (node,) = source["nodes"]
        assert (source["server"], source["version"], source["via"]) == (url, "redis 7.0.15", "replication")
        assert (node["node"], node["header"], node["bytes"]) == (url[8:], "REDIS0010", len(RDB))
        assert sum(node["databases"].values()) == said["written"] == 27
        assert (destination["header"], destination["bytes"]) == ("REDIS0010", len(RDB))
        said = json.loads(run("snapshot", url, tmp_path / "b.rdb", "--json", "--target", "redis-6.0", "--on-loss", "drop").stdout)
        assert (said["destination"]["header"], said["written"], said["lost"]) == ("REDIS0009", 27, {"function": 1})


def test_it_is_converted_on_the_way(tmp_path: Path) -> None:
    whole = tmp_path / "whole.rdb"
    whole.write_bytes(RDB)
    with master(marked(RDB)) as url:
        for number, options in enumerate(
            (
                ["--target", "redis-6.0", "--on-function", "drop"],
                ["--target", "redis-7.0", "--type", "hash"],
                ["--target", "redis-7.0", "--rename-prefix", "s=t", "--on-conflict", "last"],  # for which it is read twice
                ["--target", "redis-6.0", "--on-function", f"extract={tmp_path / 'lib.lua'}", "--force"],
            )
        ):
            wanted, got = tmp_path / f"wanted{number}.rdb", tmp_path / f"got{number}.rdb"
            assert run("convert", whole, wanted, *options).returncode == 0
            done = run_text("snapshot", url, got, *options)
            assert done.returncode == 0, done.stderr
            assert got.read_bytes() == wanted.read_bytes()
        assert (tmp_path / "lib.lua").read_bytes().startswith(b"#!lua")
        done = run_text("snapshot", url, tmp_path / "hashes.rdb", "--type", "hash")  # without a target: as the server writes it
        assert done.returncode == 0
        assert "hashes.rdb: REDIS0010\n" in done.stdout
        hashes = content(tmp_path / "hashes.rdb")
        assert hashes == {where: found for where, found in content(whole).items() if isinstance(found[0], dict) and where in hashes}
        assert len(hashes) == len(content(tmp_path / "got1.rdb"))
        refused = run_text("snapshot", url, tmp_path / "no.rdb", "--target", "redis-6.0")
        assert refused.returncode == 1
        assert "function: --on-function drop" in refused.stderr
        assert not (tmp_path / "no.rdb").exists()


@pytest.mark.parametrize("framed", [bulk, marked])
@pytest.mark.parametrize("options", [[], ["--target", "redis-6.0", "--on-loss", "drop"]], ids=["as-it-is", "converted"])
def test_a_server_that_ends_in_the_middle_leaves_nothing(framed: Any, options: list[str], tmp_path: Path) -> None:
    data = framed(RDB)
    for size in (*range(0, len(data) - 1, 211), len(data) - 41, len(data) - 9, len(data) - 1):
        with master(data[:size]) as url:
            done = run_text("snapshot", url, tmp_path / "out.rdb", *options)
            assert done.returncode == 4, (size, done.stderr)
            (line,) = done.stderr.splitlines()
            assert line.startswith(f"rdbkit: {url}: {url[8:]} closed the connection ")
            assert not list(tmp_path.iterdir())


def test_damage_on_the_way_leaves_nothing(tmp_path: Path) -> None:
    damaged = bytearray(RDB)
    damaged[-1] ^= 1
    with master(marked(bytes(damaged))) as url:
        done = run_text("snapshot", url, tmp_path / "out.rdb")
        assert (done.returncode, done.stdout) == (3, "")
        assert "the checksum differs" in done.stderr
        assert not list(tmp_path.iterdir())
        with connect(url) as server, pytest.raises(ChecksumError):
            snapshot_server(server, tmp_path / "out.rdb")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (b"-NOPERM this user has no permissions to run the 'psync' command", "this login may not replicate"),
        (b"-ERR Command disallowed", "the service does not allow replication"),
        (b"-LOADING Redis is loading the dataset in memory", "still loading its data"),
    ],
)
def test_a_server_that_sends_nothing_is_one_line(said: bytes, words: str, tmp_path: Path) -> None:
    with master(said + b"\r\n") as url:
        for command in (["snapshot", url, str(tmp_path / "out.rdb")], ["info", url]):
            done = run_text(*command)
            assert (done.returncode, done.stdout) == (4, "")
            (line,) = done.stderr.splitlines()
            assert words in line
    assert not list(tmp_path.iterdir())


def test_each_node_in_a_file_of_its_own(tmp_path: Path) -> None:
    with master(marked(RDB)) as url:
        name = url[8:].replace(":", "-") + ".rdb"
        done = run_text("snapshot", url, "--per-node", tmp_path / "new" / "nodes")
        assert done.returncode == 0, done.stderr
        assert [path.name for path in (tmp_path / "new" / "nodes").iterdir()] == [name]
        assert (tmp_path / "new" / "nodes" / name).read_bytes() == RDB
        assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o700
        assert run("snapshot", url, "--per-node", tmp_path / "new" / "nodes").returncode == 2
        done = run_text("snapshot", url, "--per-node", tmp_path / "new" / "nodes", "--force", "--target", "redis-6.0")
        assert done.returncode == 1
        assert (tmp_path / "new" / "nodes" / name).read_bytes() == RDB
        done = run_text("snapshot", url, "--per-node", tmp_path / "n", "--target", "redis-6.0", "--on-loss", "drop", "--json")
        assert json.loads(done.stdout)["source"]["nodes"][0]["file"] == str(tmp_path / "n" / name)
        assert len(content(tmp_path / "n" / name)) == 27
        assert run("snapshot", url, "--per-node", tmp_path / "no" / "n", "--target", "redis-6.0").returncode == 1
        assert not (tmp_path / "no").exists()


def test_what_excludes_each_other_is_wrong_usage(tmp_path: Path) -> None:
    url = "redis://:s3cret@127.0.0.1:1"
    for arguments in (
        [url],
        [url, str(tmp_path / "a"), "--per-node", str(tmp_path)],
        [url, "-", "--json"],
        [f"{url}/3", str(tmp_path / "a")],
        [url, "--per-node", str(tmp_path / "n"), "--on-function", "extract=a.lua"],
        ["127.0.0.1:1", str(tmp_path / "a")],
        [url, str(tmp_path / "a.csv")],
    ):
        done = run_text("snapshot", *arguments)
        assert done.returncode == 2, arguments
        assert "s3cret" not in done.stderr


def test_a_stream_is_written_where_the_library_is_told(tmp_path: Path) -> None:
    import io

    with master(bulk(RDB)) as url, connect(url) as server:
        out = io.BytesIO()
        came: list[int] = []
        waits: list[None] = []
        report = snapshot_server(server, out, progress=came.append, waiting=lambda: waits.append(None))
        assert out.getvalue() == RDB
        assert (report.keys, report.conversions, report.apart_s, came[-1], len(waits)) == (27, [], 0, len(RDB), 1)
        with pytest.raises(TypeError, match="folder"):
            snapshot_server(server, out, per_node=True)


# -- servers as FILEs


def test_every_verb_reads_a_server(tmp_path: Path) -> None:
    whole = tmp_path / "whole.rdb"
    whole.write_bytes(RDB)
    with master(marked(RDB)) as url:
        for words in (
            ["info", "FILE", "--json"],
            ["check", "FILE", "--target", "redis-6.0", "--json"],
            ["keys", "FILE"],
            ["export", "FILE"],
            ["memory", "FILE", "--target", "redis-7.0", "--json"],
            ["verify", "--deep", "FILE", "--json"],
            ["get", "FILE", "hash:small"],
            ["diff", "FILE", str(whole), "--json"],
            ["plan", "FILE", "--target", "azure-managed", "--json"],
            ["convert", "FILE", "-", "--target", "redis-6.0", "--on-loss", "drop"],
            ["merge", "FILE", "-o", "-"],
            ["convert", "FILE", "-", "--target", "redis-7.0", "--collapse-dbs", "--on-conflict", "last", "--jobs", "2"],
        ):
            of_file = run(*(str(whole) if word == "FILE" else word for word in words))
            of_server = run(*(url if word == "FILE" else word for word in words))
            assert of_server.returncode == of_file.returncode, (words, of_server.stderr)
            if "--json" not in words:
                assert of_server.stdout == of_file.stdout
            elif words[0] == "info":
                one, other = json.loads(of_file.stdout), json.loads(of_server.stdout)
                assert (other.pop("file"), one.pop("file")) == (url, str(whole))
                assert one == other
            assert of_server.stderr.decode().startswith(f"rdbkit: {url}: a snapshot was taken (27 keys, ")
        done = run("split", url, "--by", "db", "--into", tmp_path / "parts")
        assert done.returncode == 0, done.stderr
        assert run("salvage", url, tmp_path / "s.rdb").returncode == 0
        assert run("redact", url, tmp_path / "r.rdb").returncode == 0
        assert content(tmp_path / "s.rdb") == content(whole)


def test_commands_that_are_printed_make_the_file_of_the_server(tmp_path: Path) -> None:
    with master(marked(RDB)) as url:
        name = url[8:].replace(":", "-")
        done = run_text("check", url, "--target", "azure-premium")
        wanted = f"rdbkit snapshot {url} {name}-azure-premium.rdb --target azure-premium --on-function drop"
        assert wanted in done.stdout
        assert run("snapshot", *wanted.split()[2:], cwd=tmp_path).returncode == 0
    with master(marked(rdb(b"\xfe\0", key(b"a", 0, string(b"1"))))) as url:  # as it is: it has to be a file all the same
        name = url[8:].replace(":", "-")
        (file,) = json.loads(run_text("plan", url, "--target", "azure-premium", "--json").stdout)["files"]
        assert (file["convert"], file["upload"]) == (f"rdbkit snapshot {url} {name}.rdb", f"{name}.rdb")


def test_a_password_is_in_no_output(tmp_path: Path) -> None:
    with master(marked(RDB)) as url:
        secret = url.replace("//", "//app:s3cret@")
        for words in (
            ["info", secret, "--json"],
            ["check", secret, "--target", "redis-6.0"],
            ["plan", secret, "--target", "azure-managed"],
        ):
            done = run_text(*words)
            assert "s3cret" not in done.stdout + done.stderr
            assert url.replace("//", "//app@") in done.stdout
    for words in (
        ["info", "redis://:s3cret@127.0.0.1:1"],
        ["info", "redis://:s3cret@127.0.0.1:1/2"],
        ["get", "redis://:s3cret@", "k"],
    ):
        done = run_text(*words)
        assert done.returncode in (2, 4)
        assert "s3cret" not in done.stderr


def test_several_files_of_which_one_server_fails(tmp_path: Path) -> None:
    with master(marked(RDB)) as url, master(b"-ERR Command disallowed\r\n") as other:
        done = run_text("info", url, other)
        assert done.returncode == 4
        assert "27 keys" in done.stdout
        assert f"{other}: the service does not allow replication" in done.stderr


def test_a_server_that_wants_a_password_says_how_a_file_gets_one() -> None:
    with master(b"", {b"HELLO": b"-NOAUTH Authentication required.\r\n"}) as url:
        done = run_text("info", url)
        assert done.returncode == 4
        assert "wants a password: in the URL or in RDBKIT_REDIS_PASSWORD" in done.stderr


def test_commands_that_come_back_to_a_file_take_no_server(tmp_path: Path) -> None:
    done = run_text("upload", "redis://:s3cret@127.0.0.1:1", "https://a.blob.core.windows.net/c/b.rdb")
    assert done.returncode == 2
    assert "it is a server: write its data to a file first, with rdbkit snapshot" in done.stderr
    assert "s3cret" not in done.stderr


def test_a_reader_of_any_kind_has_no_server(tmp_path: Path) -> None:
    assert len(content(Dribble(RDB, 100))) == 27
    with master(b"") as url, connect(url) as server, pytest.raises(TargetError, match="before a snapshot was sent"):
        snapshot_server(server, tmp_path / "a.rdb")

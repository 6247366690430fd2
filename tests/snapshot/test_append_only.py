"""What an append-only file is told by, and up to where its commands are whole."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest

import rdbkit
from rdbkit.resp import command
from rdbkit.snapshot.append_only import Damage, find_append_only, find_damage, what_is_missing

from ..rdb import FIXTURES

AOF = FIXTURES / "aof"
PREAMBLE = AOF / "preamble-tail.aof"
FOLDER = AOF / "appendonlydir"
#: Bytes of its snapshot.
RDB_BYTES = 0x7D
COMMANDS = [
    command(b"SELECT", b"0"),
    command(b"set", b"k", b"v\r\n$1" * 3),
    b"#TS:1700000000\r\n",
    command(b"MULTI") + command(b"RPUSH", b"l", b"", b"x" * 300) + command(b"eXec"),
    command(b"DEL", b"k"),
]


def test_what_is_an_append_only_file(tmp_path: Path) -> None:
    folder = find_append_only(str(FOLDER))
    assert folder is not None
    assert folder.manifest is not None
    assert folder.files == folder.manifest.files
    of_manifest = find_append_only(folder.manifest.path)
    assert of_manifest is not None
    assert of_manifest.files == folder.files
    for name, data in (("plain", COMMANDS[0]), ("timed", COMMANDS[2] + COMMANDS[0]), ("packed.gz", gzip.compress(COMMANDS[0]))):
        path = tmp_path / name
        path.write_bytes(data)
        found = find_append_only(str(path))
        assert found is not None
        assert (found.files, found.manifest) == ([str(path)], None)
    assert find_append_only(str(PREAMBLE)) is not None


def test_what_is_none(tmp_path: Path) -> None:
    alone = tmp_path / "alone.aof"
    alone.write_bytes(PREAMBLE.read_bytes()[:RDB_BYTES])
    damaged = tmp_path / "damaged.aof"
    damaged.write_bytes(PREAMBLE.read_bytes().replace(b"l\x01\x11", b"l\x09\x11"))
    broken = tmp_path / "broken.gz"
    broken.write_bytes(gzip.compress(COMMANDS[0])[:3])
    others = [
        alone,
        damaged,
        broken,
        FIXTURES,
        FIXTURES / "rich" / "redis-7.0.15.rdb",
        tmp_path / "nothing",
        FOLDER / "appendonly.aof.2.base.rdb",
    ]
    assert [find_append_only(str(path)) for path in others] == [None] * len(others)
    assert what_is_missing(str(FIXTURES)) == "no append-only folder: it has no file *.manifest"
    assert what_is_missing(str(AOF)) == f"no append-only folder: it has no file *.manifest, but {FOLDER} has one"
    assert what_is_missing(str(alone)) == "no append-only file: it is a snapshot, and no commands follow it"
    assert what_is_missing("/dev/null") == "it is read several times, and has to be a file or a folder"
    with pytest.raises(rdbkit.RdbError) as e:  # and not that nothing follows it
        what_is_missing(str(damaged))
    assert e.value.source == str(damaged)


def test_a_base_with_the_increments_behind_it(tmp_path: Path) -> None:
    path = tmp_path / "all.aof"
    path.write_bytes((FOLDER / "appendonly.aof.2.base.rdb").read_bytes() + COMMANDS[1])
    found = find_append_only(str(path))
    assert found is not None
    assert found.files == [str(path)]


def test_a_part_of_a_folder_is_not_taken_for_all(tmp_path: Path) -> None:
    with pytest.raises(rdbkit.CorruptError, match=r"it is one file of an append-only folder: name the folder, .*appendonlydir"):
        find_append_only(str(FOLDER / "appendonly.aof.2.incr.aof"))
    copy = tmp_path / "appendonlydir"
    shutil.copytree(FOLDER, copy)
    (copy / "appendonly.aof.2.incr.aof").unlink()
    with pytest.raises(FileNotFoundError, match=r"appendonly.aof.manifest names it, and there is no such file") as e:
        find_append_only(str(copy))
    assert e.value.filename == str(copy / "appendonly.aof.2.incr.aof")
    (copy / "appendonly.aof.2.incr.aof").mkdir()  # which is no file either
    with pytest.raises(FileNotFoundError):
        find_append_only(str(copy))


@pytest.mark.parametrize("head", [b"", PREAMBLE.read_bytes()[:RDB_BYTES]], ids=["commands", "behind a snapshot"])
def test_where_a_file_that_is_cut_at_any_byte_is_whole(head: bytes, tmp_path: Path) -> None:
    path = tmp_path / "t.aof"
    whole = head + b"".join(COMMANDS)
    ends = [len(head)]
    for each in COMMANDS:
        ends.append(ends[-1] + len(each))
    for size in range(len(head), len(whole) + 1):
        path.write_bytes(whole[:size])
        found = find_damage(str(path))
        if size in ends:
            assert found is None, size
        else:
            assert found is not None, size
            assert found.offset == max(end for end in ends if end < size)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"SET k v\r\n", "a command begins with b'SET k v\\r\\n', not with * and a number"),
        (b"*0\r\n", "a command has no arguments"),
        (b"*-1\r\n", "a command begins with"),
        (COMMANDS[0].replace(b"\r\n", b"\n"), "the ends of lines are not those of a server"),
        (COMMANDS[0].replace(b"\r\n", b"\r\r\n"), "the ends of lines are not those of a server"),
        (bytes(50), "zeros stand where a command begins"),
        (bytes(5000), "zeros stand where a command begins"),
        (b"*1\r\n+OK\r\n", "an argument begins with b'+OK"),
        (b"*2\r\n$3\r\nSETX\r\n", "an argument does not end where its length says"),
        (b"*2\r\n$3\r\nSET\r\n$99999999999999999999\r\n", "an argument begins with"),
        (b"*2\r\n$3\r\nSET\r\n$999999999999999999\r\n", "the file ends inside a command"),
        (b"*999999999999\r\n$3\r\nSET\r\n", "the file ends inside a command"),
        (b"#" + b"x" * 5000, "a line that begins with # does not end"),
    ],
)
def test_damage_in_words(data: bytes, what: str, tmp_path: Path) -> None:
    path = tmp_path / "t.aof"
    path.write_bytes(COMMANDS[0] + data)
    found = find_damage(str(path))
    assert found is not None
    assert found.offset == len(COMMANDS[0])
    assert what in found.what
    path.write_bytes(COMMANDS[0] + command(b"MULTI") + data)
    found = find_damage(str(path))
    assert found is not None
    assert found.offset == len(COMMANDS[0])
    assert f"at byte {len(COMMANDS[0]) + 15}, in a transaction that begins here" in found.what


def test_a_transaction_without_its_end(tmp_path: Path) -> None:
    path = tmp_path / "t.aof"
    path.write_bytes(COMMANDS[0] + command(b"MULTI") + COMMANDS[1])
    assert find_damage(str(path)) == Damage(len(COMMANDS[0]), "a transaction (MULTI) does not end")


def test_a_damaged_snapshot_in_front(tmp_path: Path) -> None:
    path = tmp_path / "t.aof"
    path.write_bytes(PREAMBLE.read_bytes().replace(b"l\x01\x11", b"l\x09\x11"))
    with pytest.raises(rdbkit.RdbError):
        find_damage(str(path))

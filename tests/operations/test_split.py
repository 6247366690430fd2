"""`rdbkit split`: every part is whole, and together they have what the source has."""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rdbkit
from rdbkit.format.slots import SLOTS, key_slot
from rdbkit.operations.split import Division, Split, parse_nodes, parse_slot_parts, split

from .. import command_line
from ..rdb import CRC, FIXTURES, aux, each_dump, key, length, rdb, string

THREE = parse_slot_parts("0-5460,5461-10922,10923-16383")
LAYOUTS = [
    Division(size=1 << 16), Division(parts=3), Division(slots=THREE), Division(by="db"), Division(by="type"), Division(by="prefix"),
    Division(by="hash-tag"), Division(by="key"),
]  # fmt: skip
NAMES = ["size", "parts", "slots", "db", "type", "prefix", "hash-tag", "key"]


def content(path: str | Path) -> list[tuple[Any, ...]]:
    """Every record as it stands, with the attributes and key that the file has for it."""
    with rdbkit.open(path) as snapshot:
        return [(r.db, r.key, r.rdb_type, r.expire_ms, r.idle_s, r.freq, r.raw, r.member_expire_ms) for r in snapshot]


def parts_of(done: Split, folder: Path) -> list[list[tuple[Any, ...]]]:
    return [content(folder / part.file) for part in done.parts]


@pytest.mark.parametrize("layout", LAYOUTS, ids=NAMES)
@pytest.mark.parametrize("path", each_dump())
def test_parts_have_what_the_source_has(path: Path, layout: Division, tmp_path: Path) -> None:
    done = split([str(path)], str(tmp_path / "parts"), layout)
    found = parts_of(done, tmp_path / "parts")
    together = [record for part in found for record in part]
    assert sorted(map(repr, together)) == sorted(map(repr, content(path)))
    assert done.keys == len(together)
    with rdbkit.open(path) as source:
        header, fields, libraries = source.header, source.aux, source.functions
    for number, (part, records) in enumerate(zip(done.parts, found, strict=True)):
        file = tmp_path / "parts" / part.file
        data = file.read_bytes()
        assert part.keys == len(records)
        assert part.bytes == len(data)
        assert part.expires == sum(record[3] is not None for record in records)
        assert part.databases == {db: sum(r[0] == db for r in records) for db in {r[0] for r in records}}
        assert part.md5 == hashlib.md5(data).hexdigest()
        assert part.sha256 == hashlib.sha256(data).hexdigest()
        if part.crc64:
            assert part.crc64 == f"{CRC.calc(data[:-8]):016x}" == data[-8:][::-1].hex()
        with rdbkit.open(file) as snapshot:
            assert snapshot.header == header
            assert {k: v for k, v in snapshot.aux.items() if not k.startswith("keydb")} == {
                k: v for k, v in fields.items() if not k.startswith("keydb")
            }
            assert [f.source for f in snapshot.functions] == ([f.source for f in libraries] if number == 0 else [])
            sizes = {e.keys for e in snapshot.events() if isinstance(e, rdbkit.ResizeDb)}
        if header.version >= 7:
            assert sizes == set(part.databases.values())


@pytest.mark.parametrize("layout", LAYOUTS[1:], ids=NAMES[1:])
def test_blocks_of_any_size_give_the_same(layout: Division, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rdbkit.operations import split as module

    path = FIXTURES / "random" / "redis-7.2.6.rdb"
    whole = split([str(path)], str(tmp_path / "whole"), layout)
    real = rdbkit.open
    monkeypatch.setattr(module, "open_snapshot", lambda *args, **more: real(*args, **more, block_size=64))
    pieces = split([str(path)], str(tmp_path / "pieces"), layout)
    together = [record for part in parts_of(pieces, tmp_path / "pieces") for record in part]
    assert sorted(map(repr, together)) == sorted(map(repr, content(path)))
    if layout.parts is None:
        assert [part.sha256 for part in pieces.parts] == [part.sha256 for part in whole.parts]


def test_keys_go_where_they_belong(tmp_path: Path) -> None:
    names = [b"user:%d" % i for i in range(50)] + [b"a:{t%d}:%d" % (i % 7, i) for i in range(50)] + [b"solo"]
    data = rdb(*(key(n, 0, string(b"v")) for n in names), b"\xfe\x02", key(b"list", 1, b"\x01" + string(b"v")))
    path = tmp_path / "dump.rdb"
    path.write_bytes(data)
    found = {}
    for name, layout in zip(NAMES, LAYOUTS, strict=True):
        done = split([str(path)], str(tmp_path / name), layout)
        found[name] = dict(zip([p.label for p in done.parts], parts_of(done, tmp_path / name), strict=True))
    for part, (label, records) in zip(THREE, found["slots"].items(), strict=True):
        assert all(key_slot(record[1]) in part[1][0] for record in records), label
    assert {label: len(records) for label, records in found["prefix"].items()} == {b"user:": 50, b"a:": 50, b"": 2}
    assert {label: {r[0] for r in records} for label, records in found["db"].items()} == {b"0": {0}, b"2": {2}}
    assert {label: {r[2] for r in records} for label, records in found["type"].items()} == {b"string": {0}, b"list": {1}}
    assert sorted(found["hash-tag"]) == sorted([b"", *(b"{t%d}" % i for i in range(7))])
    assert len(list((tmp_path / "key").glob("*.rdb"))) == len(names) + 1


LONG = b"long" * 20


@pytest.mark.parametrize("layout", LAYOUTS, ids=NAMES)
@pytest.mark.parametrize("name", [b"k", LONG, b"\xc0\x07"], ids=["short", "long", "number"])
@pytest.mark.parametrize("apart", [True, False], ids=["two files", "one file"])
def test_a_key_that_comes_twice_is_written_to_no_part(apart: bool, name: bytes, layout: Division, tmp_path: Path) -> None:
    twice = name + string(b"v") if name[0] == 0xC0 else string(name) + string(b"v")
    first, other = b"\0" + twice, key(b"other", 0, string(b"v"))
    files = [tmp_path / "a.rdb", tmp_path / "b.rdb"]
    files[0].write_bytes(rdb(first, other, *([] if apart else [first])))
    files[1].write_bytes(rdb(first if apart else key(b"more", 0, string(b"v"))))
    with pytest.raises(rdbkit.DuplicateError, match="a key is there more than once"):
        split(list(map(str, files)), str(tmp_path / "parts"), layout)
    assert not (tmp_path / "parts").exists()
    # the same name in another database is another key
    files[0].write_bytes(rdb(first, other, b"\xfe\x01", first))
    assert split([str(files[0])], str(tmp_path / "parts"), layout).keys == 3


def test_a_large_key_that_comes_twice(tmp_path: Path) -> None:
    path = tmp_path / "dump.rdb"
    path.write_bytes(rdb(key(b"k", 0, string(b"v")), key(b"k", 0, string(bytes(3 << 20)))))
    ran = subprocess.run(
        [sys.executable, "-m", "rdbkit", "split", str(path), "--parts", "2", "-o", str(tmp_path / "parts")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 1
    assert "at byte 9 and" in ran.stderr
    assert "--on-duplicate first" in ran.stderr
    assert os.listdir(tmp_path) == ["dump.rdb"]


@pytest.mark.parametrize("layout", [Division(size=1 << 17), Division(parts=5)])
def test_parts_of_equal_bytes_keep_tags_together(tmp_path: Path, layout: Division) -> None:
    rng = random.Random(3)
    records = [key(b"k:%d" % i, 0, string(rng.randbytes(rng.randrange(2000)))) for i in range(500)]
    records += [key(b"{tag%d}:%d" % (i % 40, i), 0, string(b"v" * 50)) for i in range(400)]
    rng.shuffle(records)
    path = tmp_path / "dump.rdb"
    path.write_bytes(rdb(*records))
    done = split([str(path)], str(tmp_path / "parts"), layout)
    assert len(done.parts) == 5
    sizes = [part.bytes for part in done.parts]
    assert max(sizes) < 1.1 * sum(sizes) / len(sizes)
    if layout.size is not None:
        assert max(sizes) <= layout.size
    tags: dict[bytes, set[int]] = {}
    for number, part in enumerate(parts_of(done, tmp_path / "parts")):
        for record in part:
            if record[1].startswith(b"{"):
                tags.setdefault(record[1].split(b":")[0], set()).add(number)
    assert len(tags) == 40
    assert all(len(numbers) == 1 for numbers in tags.values())


def test_parts_are_no_larger_than_asked_for(tmp_path: Path) -> None:
    rng = random.Random(4)
    sizes = [rng.choice((100, 3000, 30_000, 45_000)) for _ in range(400)] + [90_000] * 5
    rng.shuffle(sizes)
    path = tmp_path / "dump.rdb"
    path.write_bytes(rdb(*(key(b"k:%d" % i, 0, string(rng.randbytes(n))) for i, n in enumerate(sizes))))
    limit = 100_000
    from rdbkit.operations import split as module

    def small_blocks(*args: Any, **more: Any) -> rdbkit.Snapshot:
        return rdbkit.open(*args, **more, block_size=5000)

    for number in range(2):
        folder = tmp_path / f"parts-{number}"
        with pytest.MonkeyPatch.context() as patch:
            if number:
                patch.setattr(module, "open_snapshot", small_blocks)
            done = split([str(path)], str(folder), Division(size=limit))
        assert max(part.bytes for part in done.parts) <= limit
        assert len(done.parts) < 2 * path.stat().st_size / limit
        together = [record for part in parts_of(done, folder) for record in part]
        assert sorted(map(repr, together)) == sorted(map(repr, content(path)))
    path.write_bytes(rdb(*(key(b"k:%d" % i, 0, string(bytes(1000))) for i in range(200)), key(b"giant", 0, string(bytes(300_000)))))
    made = run(path, "--into", tmp_path / "giant", "--size", "100000")
    assert made.returncode == 1
    assert made.stderr.startswith("rdbkit: larger than 100000, since keys, hash tags and scripts are not divided: 00")
    sizes = sorted(file.stat().st_size for file in (tmp_path / "giant").glob("*.rdb"))
    assert sizes[-2] <= 100_000 < sizes[-1] < 305_000


@pytest.mark.parametrize("seed", range(12))
def test_a_hash_tag_stays_together_when_parts_are_full(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    records = [key(b"{t}a", 0, string(b"x"))]
    tags = [b"{t%d}" % number for number in range(rng.randrange(1, 30))]
    for number in range(226 + seed // 2):
        records.append(key(b"plain:%d" % number, 0, string(rng.randbytes(1000))))
        if seed % 2:
            name = b"%s:%d" % (rng.choice(tags), number)
            records.append(key(name, 0, string(rng.randbytes(rng.choice((10, 500, 4000))))))
    records.append(key(b"{t}b", 0, string(rng.randbytes(40_000))))  # its part may be the one that is being filled, and be full
    path = tmp_path / "dump.rdb"
    path.write_bytes(rdb(*records))
    limit = rng.randrange(1 << 16, 1 << 18) if seed % 2 else 100 << 10
    done = split([str(path)], str(tmp_path / "parts"), Division(size=limit))
    homes: dict[bytes, set[int]] = {}
    sizes: dict[int, int] = {}  # of what could go elsewhere
    for number, part in enumerate(parts_of(done, tmp_path / "parts")):
        for record in part:
            if record[1].startswith(b"{"):
                homes.setdefault(record[1][: record[1].index(b"}") + 1], set()).add(number)
            else:
                sizes[number] = sizes.get(number, 0) + len(record[1]) + len(record[6])
    assert {b"{t}"} <= homes.keys()
    assert all(len(numbers) == 1 for numbers in homes.values()), homes
    assert max(sizes.values()) < limit
    tagged = {number for numbers in homes.values() for number in numbers}
    assert all(part.bytes <= limit for number, part in enumerate(done.parts) if number not in tagged)


def test_databases_have_their_bytes_too(tmp_path: Path) -> None:
    """What precedes the keys of a database is more than those where it has one."""
    path = tmp_path / "dump.rdb"
    path.write_bytes(rdb(*(b"\xfe" + length(db) + key(b"k", 0, string(b"%d" % db)) for db in range(20_000))))
    made = run(path, "--into", tmp_path / "parts", "--size", "64KiB")
    assert (made.returncode, made.stderr) == (0, "")
    sizes = [part["bytes"] for part in json.loads((tmp_path / "parts" / "manifest.json").read_text())["parts"]]
    assert max(sizes) <= 1 << 16


def test_templates_of_hashes_are_in_every_part(tmp_path: Path) -> None:
    def template(number: int) -> bytes:
        return b"\xf2" + length(number) + b"\x02" + string(b"f%d" % number) + string(b"g")

    def by_template(name: bytes, number: int) -> bytes:
        return key(name, 32, length(number) + string(b"a") + string(b"b"))

    path = tmp_path / "dump.rdb"
    keys = [by_template(b"a%d:x" % i, 7) for i in range(20)] + [template(9)] + [by_template(b"b%d:x" % i, 9) for i in range(20)]
    path.write_bytes(rdb(template(7), *keys, magic=b"REDIS0015"))
    for name, layout in zip(NAMES, LAYOUTS, strict=True):
        done = split([str(path)], str(tmp_path / name), layout)
        found: dict[bytes, Any] = {}
        for part in done.parts:
            with rdbkit.open(tmp_path / name / part.file) as snapshot:
                found |= {record.key: record.value for record in snapshot}
        assert found == {b"a%d:x" % i: {b"f7": b"a", b"g": b"b"} for i in range(20)} | {
            b"b%d:x" % i: {b"f9": b"a", b"g": b"b"} for i in range(20)
        }
    other = tmp_path / "other.rdb"
    other.write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="merge the sources first"):
        split([str(path), str(other)], str(tmp_path / "no"), Division(parts=2))


def test_names_are_safe_whatever_the_prefix_holds(tmp_path: Path) -> None:
    prefixes = [
        b"../../etc/passwd",
        b"/abs",
        b"a\x00b",
        b"\xff\xfe",
        b"CON",
        b"..",
        b".",
        b"",
        b"x" * 300,
        "ü".encode(),
        b"a b",
        b"-rf",
    ]
    path = tmp_path / "dump.rdb"
    path.write_bytes(rdb(*(key(p + b":k", 0, string(b"v")) for p in prefixes)))
    folder = tmp_path / "deep" / "parts"
    done = split([str(path)], str(folder), Division(by="prefix"))
    assert len({part.file for part in done.parts}) == len(prefixes)
    assert sorted(p.name for p in folder.iterdir()) == sorted([*(part.file for part in done.parts), "manifest.json"])
    assert all(part.file.isascii() and len(part.file) < 60 and part.file[0].isdigit() for part in done.parts)
    assert sorted(path.parent.iterdir()) == sorted([path, tmp_path / "deep"])
    said = json.loads((folder / "manifest.json").read_text())
    assert [row["file"] for row in said["parts"]] == [part.file for part in done.parts]


def test_slots_that_no_range_has_are_told(tmp_path: Path) -> None:
    path = tmp_path / "dump.rdb"
    path.write_bytes(rdb(*(key(b"k%d" % i, 0, string(b"v")) for i in range(100))))
    done = split([str(path)], str(tmp_path / "parts"), Division(slots=parse_slot_parts("0-8000")))
    assert [part.label for part in done.parts] == [b"0-8000", b"other slots"]
    assert [part.slots for part in done.parts] == [[(0, 8000)], None]
    assert sum(part.keys for part in done.parts) == 100
    full = split([str(path)], str(tmp_path / "full"), Division(slots=((" all", (range(SLOTS),)),)))
    assert len(full.parts) == 1


def test_several_sources(tmp_path: Path) -> None:
    for number, names in enumerate(([b"a", b"b"], [b"c", b"{x}d"])):
        parts = [aux(b"who", b"%d" % number), *(key(n, 0, string(b"v")) for n in names)]
        (tmp_path / f"{number}.rdb").write_bytes(rdb(*parts))
    files = [str(tmp_path / "0.rdb"), str(tmp_path / "1.rdb")]
    done = split(files, str(tmp_path / "parts"), Division(parts=2))
    assert done.keys == 4
    for part in done.parts:
        with rdbkit.open(tmp_path / "parts" / part.file) as snapshot:
            assert snapshot.aux == {"who": "0"}
    (tmp_path / "2.rdb").write_bytes(rdb(magic=b"REDIS0010"))
    with pytest.raises(ValueError, match="convert them to one version"):
        split([*files, str(tmp_path / "2.rdb")], str(tmp_path / "no"), Division(parts=2))
    with pytest.raises(ValueError, match="are the same file"):
        split([files[0], files[0]], str(tmp_path / "no"), Division(parts=2))
    assert not (tmp_path / "no").exists()


def test_nodes_of_a_cluster() -> None:
    text = (
        "aa 10.0.0.1:6379@16379 myself,master - 0 0 1 connected 0-5460\n"
        "bb 10.0.0.2:6379@16379,host slave aa 0 0 1 connected\n"
        "cc 10.0.0.3:6379 master - 0 0 3 connected 5461-16382 16383 [93->-aa]\n"
        "dd 10.0.0.4:6379@16379 master - 0 0 4 connected\n"
        "vars currentEpoch 4 lastVoteEpoch 0\n"
    )
    assert parse_nodes(text) == (
        ("10.0.0.1:6379", (range(5461),)),
        ("10.0.0.3:6379", (range(5461, 16383), range(16383, 16384))),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0-x", "is no range"), ("5", ""), ("0-16384", "slots are 0 to 16383"), ("0-10,10-20", "slot 10 is in 0-10 and in 10-20"),
        ("7-3", "slots are"), ("", "is no range"),
    ],
)  # fmt: skip
def test_ranges_that_cannot_be(text: str, words: str) -> None:
    if not words:
        assert parse_slot_parts(text) == (("5", (range(5, 6),)),)
        return
    with pytest.raises(ValueError, match=words):
        parse_slot_parts(text)


def test_nothing_stays_of_a_split_that_fails(tmp_path: Path) -> None:
    whole = rdb(*(key(b"k%d" % i, 0, string(b"v" * 100)) for i in range(1000)))
    path = tmp_path / "dump.rdb"
    for data in (whole[:-20], whole[:-1] + b"x", whole[: len(whole) // 2]):
        path.write_bytes(data)
        for layout in (Division(parts=3), Division(by="key")):
            with pytest.raises(rdbkit.RdbError):
                split([str(path)], str(tmp_path / "parts"), layout)
            assert [p.name for p in tmp_path.iterdir()] == ["dump.rdb"]
    path.write_bytes(whole)
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "0002.rdb").write_text("mine")
    with pytest.raises(FileExistsError):
        split([str(path)], str(folder), Division(parts=3))
    assert [p.name for p in folder.iterdir()] == ["0002.rdb"]
    assert (folder / "0002.rdb").read_text() == "mine"
    split([str(path)], str(folder), Division(parts=3), force=True)
    assert len(list(folder.iterdir())) == 4


class Reads:
    """Counts bytes that were reported as read."""

    bytes = 0

    def __call__(self, done: int) -> None:
        self.bytes = done


@pytest.mark.parametrize("layout", [LAYOUTS[0], LAYOUTS[1], LAYOUTS[2]], ids=NAMES[:3])
@pytest.mark.parametrize("number", [0, 1, 2, 3])
def test_names_that_are_taken_are_told_before_any_work(tmp_path: Path, layout: Division, number: int) -> None:
    path = tmp_path / "dump.rdb"
    path.write_bytes(rdb(*(key(b"k%d" % i, 0, string(b"v" * 1000)) for i in range(300))))
    split([str(path)], str(tmp_path / "before"), layout)
    folder = tmp_path / "parts"
    folder.mkdir()
    name = sorted(p.name for p in (tmp_path / "before").iterdir())[number]
    reads = Reads()
    (folder / name).write_text("mine")
    with pytest.raises(FileExistsError) as taken:
        split([str(path)], str(folder), layout, progress=reads)
    assert taken.value.filename == str(folder / name)
    (folder / name).unlink()
    (folder / name).mkdir()  # which nothing replaces, with force or without
    for force in (False, True):
        with pytest.raises(IsADirectoryError) as found:
            split([str(path)], str(folder), layout, progress=reads, force=force)
        assert found.value.filename == str(folder / name)
    assert [p.name for p in folder.iterdir()] == [name]
    assert reads.bytes == 0


@pytest.mark.parametrize("name", ["0001.rdb", "0002.rdb", "manifest.json"])
def test_a_source_is_never_replaced(tmp_path: Path, name: str) -> None:
    data = rdb(*(key(b"k%d" % i, 0, string(b"v" * 100)) for i in range(100)))
    (tmp_path / name).write_bytes(data)
    made = run(tmp_path / name, "--into", tmp_path, "--parts", "2", "--force")
    assert made.returncode == 2
    said = "manifest.json in --output and FILE are the same file" if name == "manifest.json" else "is one of the files to be read"
    assert said in made.stderr
    assert str(tmp_path / name) in made.stderr
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == data


def test_parts_go_again_where_one_cannot_appear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "dump.rdb"
    path.write_bytes(rdb(*(key(b"k%d" % i, 0, string(b"v")) for i in range(100))))
    real = os.replace

    def replace(src: str, dst: str) -> None:
        if dst.endswith("manifest.json"):
            raise OSError(5, "Input/output error", src, None, dst)
        real(src, dst)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(OSError, match="Input/output error") as failed:
        split([str(path)], str(tmp_path / "parts"), Division(parts=2))
    assert failed.value.filename == str(tmp_path / "parts" / "manifest.json")
    assert [p.name for p in tmp_path.iterdir()] == ["dump.rdb"]


def test_a_folder_that_cannot_be_written_to_is_told_by_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rdbkit.operations import split as module

    path = tmp_path / "dump.rdb"
    path.write_bytes(rdb(*(key(b"k%d" % i, 0, string(b"v")) for i in range(100))))
    (tmp_path / "parts").mkdir()

    def refuse(folder: str, permissions: object) -> None:
        raise PermissionError(13, "Permission denied", os.path.join(folder, ".rdbkit-0123456789abcdef.tmp"))

    monkeypatch.setattr(module, "Temporary", refuse)
    reads = Reads()
    with pytest.raises(PermissionError) as failed:
        split([str(path)], str(tmp_path / "parts"), Division(by="prefix"), progress=reads)
    assert failed.value.filename == str(tmp_path / "parts")
    assert reads.bytes == 0


def test_a_full_disk_is_told_by_the_folder(tmp_path: Path) -> None:
    path = tmp_path / "dump.rdb"
    path.write_bytes(rdb(*(key(b"k%d" % i, 0, string(b"v" * 100)) for i in range(1000))))
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from rdbkit.cli import main\n"
        f"main(['split', {str(path)!r}, '--into', {str(tmp_path / 'parts')!r}, '--parts', '2'])"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (made.returncode, made.stderr) == (3, f"rdbkit: {tmp_path / 'parts'}: File too large\n")
    assert [p.name for p in tmp_path.iterdir()] == ["dump.rdb"]


@pytest.mark.parametrize(
    ("behind", "what", "is_lost", "words"),
    [
        (b"*1\r\n$4\r\nPING\r\n", "aof", True, "commands behind the snapshot, which change it, are in no part"),
        (rdb(key(b"z", 0, string(b"v"))), "snapshot", True, "another snapshot behind the first is in no part"),
        (b"hello", "unknown", False, "bytes behind the snapshot that are none of it are in no part"),
    ],
)
def test_what_stands_behind_the_end_is_told(tmp_path: Path, behind: bytes, what: str, is_lost: bool, words: str) -> None:
    (tmp_path / "a.rdb").write_bytes(rdb(key(b"a", 0, string(b"v"))) + behind)
    (tmp_path / "b.rdb").write_bytes(rdb(key(b"b", 0, string(b"v"))))
    args: list[str | Path] = [tmp_path / "a.rdb", tmp_path / "b.rdb", "--into", tmp_path / "parts", "--parts", "2"]
    if is_lost:
        refused = run(*args)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert f"rdbkit: {tmp_path / 'a.rdb'}: {words}" in refused.stderr
        assert "nothing was written. To write the parts all the same: --on-loss drop" in refused.stderr
        assert sorted(each.name for each in tmp_path.iterdir()) == ["a.rdb", "b.rdb"]
        assert run(*args, "--on-loss", "drop", "--strict").returncode == 1
        args.append("--force")
    made = run(*args, "--on-loss", "drop")
    assert made.returncode == 0
    assert f"rdbkit: {tmp_path / 'a.rdb'}: {words}" in made.stderr
    assert len(made.stderr.splitlines()) == 1
    said = json.loads((tmp_path / "parts" / "manifest.json").read_text())
    assert said["keys"] == 2
    assert said["notes"] == {what: 1}
    assert said["behind"] == [{"file": str(tmp_path / "a.rdb"), "what": what}]


def fields(path: Path) -> list[tuple[bytes, bytes, bytes]]:
    """Every AUX field between or behind the keys, and the name of the key that follows."""
    found: list[tuple[bytes, bytes, bytes]] = []
    waiting: list[rdbkit.Aux] = []
    with rdbkit.open(path) as snapshot:
        for event in snapshot.events():
            if isinstance(event, rdbkit.Aux):
                waiting.append(event)
            elif isinstance(event, rdbkit.Record):
                found += [(aux.key, aux.value, event.key) for aux in waiting]
                waiting = []
    return found + [(aux.key, aux.value, b"") for aux in waiting]


@pytest.mark.parametrize("block_size", [64, 1 << 20])
@pytest.mark.parametrize("layout", LAYOUTS, ids=NAMES)
def test_fields_between_keys_go_with_them(
    tmp_path: Path, layout: Division, block_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KeyDB says in front of each key when it was written. What is of a slot is left out, and scripts are there once."""
    from rdbkit.operations import split as module

    parts = [aux(b"redis-ver", b"6.3.4"), b"\xfe\x00", aux(b"slot-info", b"1,2,3")]
    for number in range(300):
        if number == 150:
            parts += [b"\xfe\x03", aux(b"slot-info", b"4,5,6")]
        name = b"k%d:{%d}" % (number, number % 7)
        parts += [aux(b"mvcc-tstamp", b"%d" % (number << 20)), key(name, 0, string(b"v" * (3000 if number % 50 == 7 else number)))]
    path = tmp_path / "dump.rdb"
    path.write_bytes(rdb(*parts, aux(b"lua", b"return 1"), aux(b"lua", b"return 2")))
    real = rdbkit.open
    monkeypatch.setattr(module, "open_snapshot", lambda *args, **more: real(*args, **more, block_size=block_size))
    done = split([str(path)], str(tmp_path / "parts"), layout)
    assert done.notes == {"slot-info": 2}
    files = [tmp_path / "parts" / part.file for part in done.parts]
    found = [fields(file)[1:] for file in files]  # of the prelude there is one
    wanted = [row for row in fields(path) if row[0] == b"mvcc-tstamp"]
    assert len(wanted) == 300
    assert sorted(row for rows in found for row in rows if row[0] != b"lua") == sorted(wanted)
    assert [row[1] for row in found[0] if row[0] == b"lua"] == [b"return 1", b"return 2"]
    assert not any(row[0] == b"lua" for rows in found[1:] for row in rows)
    from rdbkit.operations.merge import merge

    merge([str(file) for file in files], tmp_path / "merged.rdb")
    together = sorted(row for row in fields(tmp_path / "merged.rdb") if row[0] == b"mvcc-tstamp")
    assert together == sorted(wanted)


def test_scripts_and_libraries_of_several_files(tmp_path: Path) -> None:
    def library(code: bytes) -> bytes:
        return b"\xf5" + string(b"#!lua name=one\n" + code)

    def write(name: str, *parts: bytes) -> str:
        (tmp_path / name).write_bytes(rdb(*parts, magic=b"REDIS0010"))
        return str(tmp_path / name)

    script = aux(b"lua", b"return 1")
    files = [
        write("a.rdb", aux(b"who", b"a"), library(b"x"), key(b"a", 0, string(b"v")), aux(b"lua", b"return 3")),
        write("b.rdb", aux(b"who", b"b"), script, library(b"x"), key(b"b", 0, string(b"v")), aux(b"lua", b"return 3")),
    ]
    policies: tuple[Any, ...] = ("first", "all")
    for functions in policies:
        done = split(files, str(tmp_path / functions), Division(parts=2), functions=functions)
        for number, part in enumerate(done.parts):
            with rdbkit.open(tmp_path / functions / part.file) as snapshot:
                there = number == 0 or functions == "all"
                assert len(snapshot.functions) == there
                scripts = [e.value for e in snapshot.events() if isinstance(e, rdbkit.Aux) and e.key == b"lua"]
            assert scripts == ([b"return 1", b"return 3"] if there else [])
    with pytest.raises(ValueError, match=r"different function libraries that are called 'one'.*merge them first"):
        split([files[0], write("c.rdb", library(b"y"))], str(tmp_path / "no"), Division(parts=2))
    assert not (tmp_path / "no").exists()


def module_data(payload: bytes) -> bytes:
    """Of a module called test__rdb, behind the keys."""
    number = 0
    for letter in "test__rdb":
        number = number << 6 | "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".index(letter)
    return b"\xf7" + length(number << 10 | 1) + b"\x02\x02" + b"\x05" + string(payload) + b"\x00"


@pytest.mark.parametrize("functions", ["first", "all"])
@pytest.mark.parametrize("size", [10, 3 << 20])
def test_data_of_modules_behind_the_keys(tmp_path: Path, size: int, functions: Any) -> None:
    data = module_data(b"m" * size)
    path = tmp_path / "dump.rdb"
    resize = b"\xfb\x08\x00"
    path.write_bytes(rdb(b"\xfe\x00", resize, *(key(b"k%d" % i, 0, string(b"v")) for i in range(8)), data))
    done = split([str(path)], str(tmp_path / "parts"), Division(parts=2), functions=functions)
    assert len([record for records in parts_of(done, tmp_path / "parts") for record in records]) == 8
    for number, part in enumerate(done.parts):
        content = (tmp_path / "parts" / part.file).read_bytes()
        assert content.count(data) == (functions == "all" or number == 0)
        assert content[:-8].count(b"\xfb") == (part.keys > 0)  # its counts, and no others


def test_scripts_behind_the_keys_are_in_parts_that_are_made_later(tmp_path: Path) -> None:
    script = b"\xfa" + string(b"lua") + string(b"return 1")
    first, second = tmp_path / "1.rdb", tmp_path / "2.rdb"
    first.write_bytes(rdb(key(b"a:1", 0, string(b"v")), key(b"b:1", 0, string(b"v")), script))
    second.write_bytes(rdb(key(b"c:1", 0, string(b"v")), script))
    done = split([str(first), str(second)], str(tmp_path / "parts"), Division(by="prefix"), functions="all")
    assert [(tmp_path / "parts" / part.file).read_bytes().count(script) for part in done.parts] == [1, 1, 1]


def test_a_link_to_nowhere_is_no_folder(tmp_path: Path) -> None:
    path = tmp_path / "dump.rdb"
    path.write_bytes(rdb(key(b"a", 0, string(b"v"))))
    (tmp_path / "link").symlink_to("nowhere")
    made = run(path, "--into", tmp_path / "link", "--parts", "1")
    assert made.returncode == 3
    assert "Not a directory" in made.stderr


def test_more_parts_than_files_may_be_open(tmp_path: Path) -> None:
    path = tmp_path / "dump.rdb"
    path.write_bytes(rdb(*(key(b"p%d:%d" % (i % 300, i), 0, string(b"v")) for i in range(3000)), magic=b"REDIS0010"))
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24))\n"
        "from rdbkit.cli import main\n"
        f"main(['split', {str(path)!r}, '--into', {str(tmp_path / 'parts')!r}, '--by', 'prefix'])"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert "3,000 keys in 300 parts of REDIS0010" in made.stdout
    assert len(list((tmp_path / "parts").iterdir())) == 301


def test_too_many_parts(tmp_path: Path) -> None:
    path = tmp_path / "dump.rdb"
    path.write_bytes(rdb(*(key(b"k%d" % i, 0, string(b"v")) for i in range(10_001))))
    with pytest.raises(ValueError, match="more than 10000 parts"):
        split([str(path)], str(tmp_path / "parts"), Division(by="key"))
    assert not (tmp_path / "parts").exists()


def test_a_giant_key_goes_to_its_part(tmp_path: Path) -> None:
    path = tmp_path / "dump.rdb"
    giant = key(b"{t}giant", 0, string(os.urandom(3 << 20)), 1 << 50)
    path.write_bytes(
        rdb(key(b"{t}a", 0, string(b"v")), giant, key(b"{t}b", 0, string(b"v")), b"\xfe\x03", key(b"c", 0, string(b"v")))
    )
    for name, layout in zip(NAMES, LAYOUTS, strict=True):
        done = split([str(path)], str(tmp_path / name), layout)
        together = [record for part in parts_of(done, tmp_path / name) for record in part]
        assert sorted(map(repr, together)) == sorted(map(repr, content(path)))
        assert sum(part.expires for part in done.parts) == 1


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=8), st.binary(max_size=100)), max_size=40, unique_by=lambda t: t[:2]),
    st.sampled_from(range(len(LAYOUTS))),
)
def test_any_keys_in_any_parts(tmp_path_factory: pytest.TempPathFactory, keys: list[tuple[int, bytes, bytes]], number: int) -> None:
    folder = tmp_path_factory.mktemp("any")
    data = [b"\xfe" + length(db) + key(name, 0, string(value)) for db, name, value in keys]
    (folder / "dump.rdb").write_bytes(rdb(*data))
    done = split([str(folder / "dump.rdb")], str(folder / "parts"), LAYOUTS[number])
    together = [record for part in parts_of(done, folder / "parts") for record in part]
    assert sorted(map(repr, together)) == sorted(map(repr, content(folder / "dump.rdb")))


def run(*args: str | Path) -> subprocess.CompletedProcess[str]:
    return command_line.run_text("split", *args)


def test_the_command(tmp_path: Path) -> None:
    dump = FIXTURES / "rich" / "redis-7.4.1.rdb"
    made = run(dump, "--into", tmp_path / "a", "--by", "db")
    assert made.returncode == 0, made.stderr
    assert "27 keys in 2 parts of REDIS0012" in made.stdout
    said = json.loads(run(dump, "--into", tmp_path / "b", "--slots", "0-8191,8192-16383", "--json").stdout)
    assert said == json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert [part["slots"] for part in said["parts"]] == [[[0, 8191]], [[8192, 16383]]]
    (tmp_path / "nodes.conf").write_text("aa h:1@2 master - 0 0 1 connected 0-16383\n")
    assert run(dump, "--into", tmp_path / "c", "--nodes", tmp_path / "nodes.conf").returncode == 0
    quick = json.loads(run(dump, "--into", tmp_path / "d", "--by", "db", "--no-digests", "--json").stdout)
    assert [(part["md5"], part["sha256"]) for part in quick["parts"]] == [("", "")] * 2
    assert all(part["crc64"] for part in quick["parts"])
    again = run(dump, "--into", tmp_path / "a", "--by", "db")
    assert again.returncode == 2
    assert "exists; --force replaces it" in again.stderr


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "say how to split"),
        (["--parts", "2", "--by", "db"], "exclude each other"),
        (["--size", "10"], "fewer than 64 KiB"),
        (["--size", "much"], "is no size"),
        (["--slots", "9-1"], "slots are 0 to 16383"),
        (["--slots", "\u0661-\u0662"], "is no range of slots"),
        (["--parts", "20000"], "1 to 10000"),
    ],
)
def test_wrong_usage(tmp_path: Path, args: list[str], words: str) -> None:
    made = run(FIXTURES / "rich" / "redis-7.4.1.rdb", "--into", tmp_path / "parts", *args)
    assert made.returncode == 2
    assert words in made.stderr
    assert not (tmp_path / "parts").exists()


def test_what_is_no_file_is_told_before_any_work(tmp_path: Path) -> None:
    """A source is read more than once, which a pipe cannot be."""
    os.mkfifo(tmp_path / "pipe")
    for name, what in ((tmp_path / "pipe", str(tmp_path / "pipe")), ("-", "standard input")):
        made = run(FIXTURES / "rich" / "redis-7.4.1.rdb", name, "--into", tmp_path / "parts", "--parts", "2")
        assert made.returncode == 2
        assert f"{what}: it is read several times, and has to be a file" in made.stderr
    made = run(tmp_path / "nothing.rdb", "--into", tmp_path / "parts", "--parts", "2")
    assert (made.returncode, made.stderr) == (3, f"rdbkit: {tmp_path / 'nothing.rdb'}: No such file or directory\n")
    assert not (tmp_path / "parts").exists()

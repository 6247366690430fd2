"""Opcodes in places where no server writes them: every verb takes them as servers do, and all alike.

A server reads an opcode between a key's expiry and its type as if it preceded the expiry: a SELECTDB there moves the key.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from rdbkit.format.record import Record
from rdbkit.operations.check import check
from rdbkit.operations.diff import diff
from rdbkit.operations.export import export_jsonl
from rdbkit.operations.info import info
from rdbkit.operations.keys import keys
from rdbkit.operations.memory import memory
from rdbkit.operations.split import Division
from rdbkit.parallel import pool as parallel
from rdbkit.snapshot import reader
from rdbkit.snapshot.reader import Block, Span
from rdbkit.storage.source import read_at
from rdbkit.targets.target import find_target
from tests.rdb import aux, one_in, rdb, string

EXPIRY = 4_102_444_800_000
LIBRARY = b"#!lua name=lib\nredis.register_function('f', function() return 1 end)"
Row = tuple[int, bytes, int | None, int | None, int | None]


def opcode_expiry(ms: int) -> bytes:
    return b"\xfc" + ms.to_bytes(8, "little")


#: By name: the header, and the bytes.
OPCODES = {
    "selectdb": (b"REDIS0011", b"\xfe\x03"),
    "selectdb-back": (b"REDIS0011", b"\xfe\0"),
    "resizedb": (b"REDIS0011", b"\xfb\x09\x02"),
    "aux": (b"REDIS0011", aux(b"ctime", b"1")),
    "script": (b"REDIS0011", aux(b"lua", b"return 1")),
    "mvcc": (b"REDIS0009", aux(b"mvcc-tstamp", b"77")),
    "keydb-pair": (b"REDIS0009", aux(b"keydb-subexpire-key", b"m") + aux(b"keydb-subexpire-when", b"%d" % EXPIRY)),
    "function": (b"REDIS0011", b"\xf5" + string(LIBRARY)),
    "pre-release-function": (b"REDIS0010", b"\xf6" + string(b"lib") + string(b"LUA") + b"\0" + string(b"code")),
    "module-data": (b"REDIS0011", b"\xf7\x81" + bytes([1, 2, 3, 4, 5, 6, 7, 1]) + b"\x02\x02" + b"\x05\x03abc\0"),
    "slot-info": (b"REDIS0012", b"\xf4\x07\x01\x00"),
    "slot-import": (b"VALKEY080", b"\xf3" + string(b"0123456789" * 4) + b"\x01\x05\x40\x64"),
    "hash-template": (b"REDIS0015", b"\xf2\x09\x01" + string(b"field")),
    "key-metadata": (b"REDIS0013", b"\xf3\x01" + b"\x01\x02\x03\x04" + b"\x02\x05\0"),
    "expiry": (b"REDIS0011", opcode_expiry(EXPIRY + 5)),
    "expiry-seconds": (b"REDIS0011", b"\xfd" + (2_000_000_000).to_bytes(4, "little")),
    "idle": (b"REDIS0011", b"\xf8\x05"),
    "freq": (b"REDIS0011", b"\xf9\x06"),
    "idle-and-freq": (b"REDIS0011", b"\xf8\x07\xf9\x08"),
    "dragonfly-mask": (b"REDIS0009", b"\xdc\x01\0\0\0"),
    "enterprise-lru": (b"REDIS0012", b"k\x40\x43"),
    "enterprise-slot": (b"REDIS0012", b"y\x80\0\0\x3f\xff"),
    "enterprise-hints": (b"REDIS0011", b"y\x05k\x81" + b"\xff" * 8),
}
#: Where the opcode stands; None in its place.
PLACES: dict[str, list[str | None]] = {
    "before the first SELECTDB": [None, "db1", "a", "b", "db2", "c"],
    "between SELECTDB and key": ["db1", None, "a", "b", "db2", "c"],
    "between two keys": ["db1", "a", None, "b", "db2", "c"],
    "among attributes": ["db1", "b", "expiry", None, "a", "d", "db2", "c"],
    "among attributes of the first key": ["expiry", None, "a", "b", "db2", "c"],
    "twice among attributes": ["db1", "expiry", None, "a", "freq", None, "b", "db2", "c"],
    "behind the last key": ["db1", "a", "b", "db2", "c", None],
    "in front of the end, behind attributes": ["db1", "a", "b", "db2", "c", "expiry", None],
    "with keys of its database to follow": ["db1", "a", None, "b", "db1", "d", "db2", "c"],
}


def listpack(*elements: bytes) -> bytes:
    """Strings of up to 63 bytes."""
    body = b"".join(bytes([0x80 | len(e)]) + e + bytes([len(e) + 1]) for e in elements)
    return (len(body) + 7).to_bytes(4, "little") + len(elements).to_bytes(2, "little") + body + b"\xff"


#: Types and values of keys; a hash as a listpack is what older targets do not know.
VALUES = {
    "small": {
        "a": (0, string(b"A")),
        "b": (16, string(listpack(b"f", b"v"))),
        "c": (0, string(b"C")),
        "d": (2, b"\x01" + string(b"m")),
    },
    "large": {
        "a": (0, string(b"A" * 150)),
        "b": (16, string(listpack(b"f", b"v" * 60, b"g", b"w" * 60, b"h", b"x" * 40))),
        "c": (1, b"\x02" + string(b"C" * 100) + string(b"D" * 70)),
        "d": (2, b"\x01" + string(b"m" * 150)),
    },
}


class Case:
    """A file, and its keys as a server takes them."""

    def __init__(self, opcode: str, place: str, size: str, magic: bytes = b"") -> None:
        least, raw = OPCODES[opcode]
        magic = magic or least
        self.magic = magic
        self.opcode = opcode
        db, expire, idle, freq = 0, None, None, None
        self.rows: list[Row] = []
        parts = []
        for token in PLACES[place]:
            if token is None:
                parts.append(raw)
                if opcode.startswith("selectdb"):
                    db = raw[1]
                elif opcode == "expiry":
                    expire = EXPIRY + 5
                elif opcode == "expiry-seconds":
                    expire = 2_000_000_000_000
                elif "idle" in opcode or "freq" in opcode:
                    idle = 5 if opcode == "idle" else 7 if "idle" in opcode else idle
                    freq = 6 if opcode == "freq" else 8 if "freq" in opcode else freq
            elif token.startswith("db"):
                db = int(token[2:])
                parts.append(b"\xfe" + bytes([db]))
            elif token == "expiry":
                expire = EXPIRY
                parts.append(opcode_expiry(EXPIRY))
            elif token == "freq":
                freq = 3
                parts.append(b"\xf9\x03")
            else:
                name = b"%s:%d" % (token.encode(), len(self.rows))
                self.rows.append((db, name, expire, idle, freq))
                expire = idle = freq = None
                kind, value = VALUES[size][token]
                if magic < b"REDIS0010" and kind == 16:
                    kind, value = 4, b"\x01" + string(b"f") + string(b"v" * (1 if size == "small" else 150))
                parts.append(bytes([kind]) + string(name) + value)
        self.rows.sort()
        self.data = rdb(*parts, magic=magic)


CASES = [(opcode, place) for opcode in OPCODES for place in PLACES]


def value(record: Record) -> Any:
    found = record.value
    return sorted(found) if isinstance(found, set) else found


def read(data: bytes) -> list[tuple[Row, Any, Any]]:
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        found = [((r.db, r.key, r.expire_ms, r.idle_s, r.freq), value(r), r.member_expire_ms) for r in snapshot]
    return sorted(found, key=lambda row: row[0])


def enterprise_hints(data: bytes) -> int:
    """Hints of Redis Enterprise, with which no other server loads a file."""
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        return sum(isinstance(e, rdbkit.EnterpriseHint) for e in snapshot.events())


def libraries(data: bytes) -> int:
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        return sum(isinstance(e, rdbkit.FunctionLibrary) for e in snapshot.events())


@pytest.fixture(params=[("small", 1 << 20), ("small", 16), ("large", 64)], ids=["block", "small-blocks", "large-records"])
def size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How large values are; blocks are so that the large ones do not fit."""
    name, block_size = request.param
    defaults = dict(reader.open_snapshot.__kwdefaults__ or {}, block_size=block_size)
    monkeypatch.setattr(reader.open_snapshot, "__kwdefaults__", defaults)
    return str(name)


def one_process(
    snapshot: Any,
    jobs: int,
    make: Callable[..., Callable[[Any], Any]],
    settings: tuple[Any, ...],
    visitor: Any = None,
    output: int | None = None,
) -> Iterator[Any]:
    """What `in_order` does, without its processes."""
    assert output is None
    work = make(*settings)
    for item in snapshot.blocks(visitor):
        if isinstance(item, Span):
            item = Block(read_at(snapshot.handle, item.offset, item.size), item.offset, item.db)
        yield item if isinstance(item, Record) else parallel.Answer(work(item)[0], [])


@pytest.mark.parametrize(("opcode", "place"), one_in(4, CASES))
def test_every_verb_reads_the_same_keys(
    opcode: str, place: str, size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(opcode, place, size)
    monkeypatch.setattr(parallel, "in_order", one_process)
    path = tmp_path / "in.rdb"
    path.write_bytes(case.data)
    with rdbkit.open(path) as snapshot:
        assert sorted((r.db, r.key, r.expire_ms, r.idle_s, r.freq) for r in snapshot) == case.rows
    short = sorted(row[:3] for row in case.rows)
    for jobs in (1, 2):
        out = io.BytesIO()
        with rdbkit.open(path) as snapshot:
            export_jsonl(snapshot, out, jobs=jobs)
        lines = [json.loads(line) for line in out.getvalue().splitlines()]
        assert sorted((line["db"], line["key"].encode(), line.get("expire_ms")) for line in lines) == short
    redacted = []
    for jobs in (1, 2):
        out = io.BytesIO()
        redacted.append((rdbkit.redact(path, out, secret=b"s", jobs=jobs), out.getvalue()))
    assert redacted[0] == redacted[1]
    with rdbkit.open(path) as snapshot:
        assert sorted((r.db, r.key, r.expire_ms) for r in keys(snapshot)) == short
    by_db = {db: sum(row[0] == db for row in short) for db in {row[0] for row in short}}
    expiring = sum(row[2] is not None for row in short)
    with rdbkit.open(path) as snapshot:
        about = info(snapshot)
    assert ({d.db: d.keys for d in about.databases if d.keys}, about.expiring) == (by_db, expiring)
    with rdbkit.open(path) as snapshot:
        weights = memory(snapshot, find_target("redis-8.0"))
    assert ({d.db: d.keys for d in weights.databases if d.keys}, weights.expiring) == (by_db, expiring)
    report = rdbkit.verify(path, deep=True)
    assert (report.whole, report.keys) == (True, len(short))
    broken = {violation.rule.name for violation in report.violations}
    assert broken == ({"function-twice"} if "function" in opcode and place.startswith("twice") else set())
    with rdbkit.open(path) as snapshot:
        assert check(snapshot, find_target("azure-premium")).keys == len(short)
    for name in (row[1] for row in short):
        with rdbkit.open(path) as snapshot:
            found = [r.db for r in snapshot if r.key == name]
        assert found == [row[0] for row in short if row[1] == name]


def written(case: Case, folder: Path) -> Iterator[tuple[str, bytes]]:
    """What each verb writes of a file, whole: of several parts, what `merge` makes of them."""
    path = folder / "in.rdb"
    path.write_bytes(case.data)
    version = int(case.magic[-4:]) if case.magic.startswith(b"REDIS") else 80
    same = f"rdb-{version}" if case.magic.startswith(b"REDIS") else "valkey-8.1"
    targets = [same, "redis-7.2", "redis-5.0", "redis-2.8"]
    policies = rdbkit.Policies(loss="drop", function="drop", module="drop", key_metadata="drop")
    for target in targets:
        for jobs in (1, 2):
            out = io.BytesIO()
            rdbkit.convert(path, out, target=target, policies=policies, jobs=jobs)
            yield f"convert --target {target} --jobs {jobs}", out.getvalue()
    out = io.BytesIO()
    selection = rdbkit.Selection(types=["hash", "string", "list", "set"])
    rdbkit.convert(path, out, target=same, policies=policies, selection=selection)
    yield "convert --type", out.getvalue()
    out = io.BytesIO()
    rdbkit.convert(path, out, target=same, policies=policies, edits=rdbkit.Edits(script=lambda key: key))
    yield "convert --script", out.getvalue()
    out = io.BytesIO()
    rdbkit.salvage(path, out)
    yield "salvage", out.getvalue()
    empty = folder / "empty.rdb"
    empty.write_bytes(rdb(magic=case.magic))
    for order in ([path, empty], [empty, path]):
        out = io.BytesIO()
        rdbkit.merge([str(name) for name in order], out, policies=policies, on_function="first")
        yield "merge", out.getvalue()
    if version == 15:  # templates of several files cannot be merged
        return
    ways = [Division(parts=2), Division(by="db"), Division(by="type"), Division(by="prefix")]
    for division in ways:
        into = folder / "parts"
        report = rdbkit.split([str(path)], str(into), division)
        parts = [str(into / part.file) for part in report.parts]
        out = io.BytesIO()
        rdbkit.merge(parts, out, policies=policies, on_function="first")
        shutil.rmtree(into)
        yield f"split {division}", out.getvalue()


@pytest.mark.one_in(6)
@pytest.mark.parametrize(("opcode", "place"), one_in(7, CASES))
def test_what_is_written_means_the_same(
    opcode: str, place: str, size: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(opcode, place, size)
    monkeypatch.setattr(parallel, "in_order", one_process)
    source = read(case.data)
    assert [row[0] for row in source] == case.rows
    for verb, data in written(case, tmp_path):
        found = read(data)
        hints = data[:9] >= b"REDIS0009"
        want = [((*row[:3], *(row[3:] if hints else (None, None))), content) for row, content, _ in source]
        assert [row[:2] for row in found] == want, verb
        if opcode == "keydb-pair" and verb == "salvage":  # for other targets it is a loss
            assert [row[2] for row in found] == [row[2] for row in source], verb
        verified = rdbkit.verify(io.BytesIO(data), deep=True)
        assert verified.whole, verb
        assert not enterprise_hints(data), verb
        if not (place.startswith("twice") and "function" in opcode) or verb == "salvage":
            assert not verified.violations, verb
        if opcode == "function" and not place.startswith("twice") and ("convert" not in verb or "rdb" in verb):
            assert libraries(data) == 1, verb
        (tmp_path / "out.rdb").write_bytes(data)
        compared = diff(str(tmp_path / "in.rdb"), str(tmp_path / "out.rdb"))
        assert (compared.missing, compared.extra, compared.changed, compared.expiry) == (0, 0, 0, 0), verb
    out = io.BytesIO()
    rdbkit.redact(tmp_path / "in.rdb", out, secret=b"0123456789abcdef")
    assert not enterprise_hints(out.getvalue())
    redacted = sorted(((row[0][0], row[0][2:]) for row in read(out.getvalue())), key=repr)
    assert redacted == sorted(((row[0], row[2:]) for row in case.rows), key=repr)


@pytest.mark.parametrize("block_size", [16, 1 << 20])
def test_salvage_leaves_out_a_damaged_key_and_keeps_what_stands_among_its_attributes(block_size: int, tmp_path: Path) -> None:
    expiry = opcode_expiry(EXPIRY)
    library = b"\xf5" + string(LIBRARY)
    damaged = b"\x10" + string(b"bad") + string(listpack(b"f", b"v", b"f", b"w"))
    twice = b"\0" + string(b"a") + string(b"B")
    parts = [b"\xfe\0\0", string(b"a"), string(b"A"), expiry, b"\xfe\1", library, damaged, b"\0", string(b"b"), string(b"C")]
    parts += [b"\xf9\5\xfe\0", library, twice, b"\0", string(b"c"), string(b"D")]
    path = tmp_path / "in.rdb"
    path.write_bytes(rdb(*parts, magic=b"REDIS0011"))
    out = io.BytesIO()
    report = rdbkit.salvage(path, out, block_size=block_size)
    assert report.lost == {"key": 2, "library": 1}
    assert [row[:2] for row in read(out.getvalue())] == [
        ((0, b"a", None, None, None), b"A"),
        ((0, b"c", None, None, None), b"D"),
        ((1, b"b", None, None, None), b"C"),
    ]
    assert libraries(out.getvalue()) == 1
    assert not rdbkit.verify(io.BytesIO(out.getvalue()), deep=True).violations


def test_a_difference_in_a_key_with_something_among_its_attributes_is_written(tmp_path: Path) -> None:
    """A delta reads the record of the first file again at its place."""
    names = [b"f%d" % n for n in range(20)]
    for name, value in (("one.rdb", b"v"), ("two.rdb", b"w")):
        fields = b"".join(string(field) + string(value if field == b"f3" else b"same") for field in names)
        record = opcode_expiry(EXPIRY) + b"\xfe\2" + b"\4" + string(b"h") + bytes([len(names)]) + fields
        (tmp_path / name).write_bytes(rdb(b"\xfe\0", record))
    found = diff(str(tmp_path / "one.rdb"), str(tmp_path / "two.rdb"), delta=tmp_path / "delta.resp")
    assert found.changed == 1
    text = (tmp_path / "delta.resp").read_bytes()
    assert b"SELECT\r\n$1\r\n2\r\n" in text
    assert b"f3" in text
    assert b"f4" not in text


def test_a_snapshot_of_what_is_new_has_the_key_whole(tmp_path: Path) -> None:
    (tmp_path / "one.rdb").write_bytes(rdb())
    record = opcode_expiry(EXPIRY) + b"\xfe\2" + b"\0" + string(b"name") + string(b"value")
    (tmp_path / "two.rdb").write_bytes(rdb(b"\xfe\0\0" + string(b"a") + string(b"A"), record))
    out = tmp_path / "delta.rdb"
    diff(str(tmp_path / "one.rdb"), str(tmp_path / "two.rdb"), delta=out)
    assert not rdbkit.verify(out, deep=True).violations
    with rdbkit.open(out) as snapshot:
        found = [(record.db, record.key, record.value, record.expire_ms) for record in snapshot]
    assert found == [(0, b"a", b"A", None), (2, b"name", b"value", EXPIRY)]

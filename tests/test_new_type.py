"""What a new packed value type costs: a row in `constants.py`; where its encoding is new, a reader and the rules that it checks.

The rows are read when the package is imported, and compiled code has them for good: so each case is a copy of the package's sources
with the row in it, which another interpreter imports as plain Python. Where something is missing, that names it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from rdbkit.format.listpack import encode_listpack

from .rdb import key, rdb, string

PACKAGE = Path(rdbkit.__file__).parent
NUMBER = 40
ROW = 'ValueType({number}, "novel hash", "hash", "{packed}", "s", 12, 1, "{shape}", 2, "{packed}"),'
FIELDS = {b"name": b"Ada", b"born": b"1815"}

#: An encoding that nobody has: a byte that says how many strings there are, and each of them behind its length.
READER = """
from rdbkit.errors import CorruptError
from rdbkit.format.packed import Cursor, PackedReader
from rdbkit.format.sink import Sink


class CountedReader(PackedReader):
    def __init__(self):
        super().__init__("counted", 1, 0)

    def begin(self, buf, pos, end):
        if end <= pos:
            raise CorruptError("a counted collection without a count", rule="counted-size")
        return pos + 1

    def step(self, cursor, until, sink):
        while cursor.at < until:
            begin = cursor.at + 1
            cursor.at = begin + cursor.buf[cursor.at]
            if cursor.at > cursor.end:
                raise IndexError
            sink.string(cursor.buf, begin, cursor.at)
            cursor.count += 1

    def finish(self, cursor):
        if cursor.count != cursor.buf[cursor.pos]:
            raise CorruptError(f"{cursor.count} strings, where {cursor.buf[cursor.pos]} are announced", rule="counted-count")

    def header_count(self, buf, pos, size):
        return buf[pos]
"""
RULES = "".join(
    f'\n[counted-{name}]\ncode = "RDB{code}"\ntext = "as announced"\nsource = "nobody"\n'
    for name, code in (
        ("size", 991),
        ("count", 992),
        ("overrun", 993),
    )
)


def package(to: Path, *edits: tuple[str, str, str]) -> Path:
    """The package's sources, each edit made: a file, what stands there once, and what stands there then."""
    shutil.copytree(PACKAGE, to / "rdbkit", ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__"))
    for name, old, new in edits:
        path = to / "rdbkit" / name
        text = path.read_text()
        assert text.count(old) == 1, (name, old)
        path.write_text(text.replace(old, new))
    return to


def row(shape: str, packed: str) -> tuple[str, str, str]:
    return "format/constants.py", "_COMMON = (\n", "_COMMON = (\n" + ROW.format(number=NUMBER, shape=shape, packed=packed)


def run(where: Path, *args: str, status: int = 0) -> str:
    """What `rdbkit` prints."""
    env = {"PYTHONPATH": str(where), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-m", "rdbkit", *args], capture_output=True, cwd=where, env=env, text=True)
    assert done.returncode == status, done.stderr
    return done.stdout or done.stderr.strip()


def listpack() -> bytes:
    return encode_listpack([part for pair in FIELDS.items() for part in pair])


def counted() -> bytes:
    return bytes([2 * len(FIELDS)]) + b"".join(string(part) for pair in FIELDS.items() for part in pair)


def dump(where: Path, name: str, packed: bytes) -> str:
    path = where / name
    path.write_bytes(rdb(key(b"k", NUMBER, string(packed)), key(b"s", 0, string(b"text")), magic=b"REDIS0012"))
    return str(path)


def every_verb(where: Path, packed: bytes, encoding: str) -> None:
    """What each verb makes of the new type, that which re-encodes it excepted."""
    source = dump(where, "novel.rdb", packed)
    expected = {name.decode(): value.decode() for name, value in FIELDS.items()}

    report: dict[str, Any] = json.loads(run(where, "info", "--json", source))
    assert [(line["rdb_type"], line["type"], line["keys"]) for line in report["types"] if line["rdb_type"] == NUMBER] == [
        (NUMBER, "hash", 1)
    ]
    rows = [json.loads(line) for line in run(where, "keys", "--format", "jsonl", source).splitlines()]
    assert [(line["type"], line["encoding"], line["elements"]) for line in rows if line["key"] == "k"] == [("hash", encoding, 2)]
    lines = [json.loads(line) for line in run(where, "export", source).splitlines()]
    assert [line["value"] for line in lines if line["key"] == "k"] == [expected]
    assert json.loads(run(where, "get", source, "k")) == expected
    run(where, "verify", "--deep", source)
    memory = json.loads(run(where, "memory", "--json", "--target", "redis-7.4", source))
    assert {line["type"] for line in memory["types"]} == {"hash", "string"}

    plain = str(where / "plain.rdb")
    run(where, "convert", source, "-o", plain, "--target", "redis-6.2")
    with rdbkit.open(plain) as snapshot:  # by the package as it is: it does not know the new type
        assert {record.key: record.value for record in snapshot} == {b"k": FIELDS, b"s": b"text"}
    run(where, "diff", source, source)
    run(where, "diff", source, plain)
    other = dump(where, "other.rdb", packed.replace(b"Ada", b"Eva"))
    assert [sample["key"] for sample in json.loads(run(where, "diff", "--json", source, other, status=1))["samples"]] == ["k"]


def test_a_row_is_enough_where_its_encoding_has_a_reader(tmp_path: Path) -> None:
    where = package(tmp_path, row("packed", "listpack"))
    every_verb(where, listpack(), "listpack")
    redacted = str(where / "redacted.rdb")
    run(where, "redact", str(where / "novel.rdb"), "-o", redacted)
    (line, _) = [json.loads(line) for line in run(where, "export", redacted).splitlines()]
    assert [len(name) for name in line["value"]] == [4, 4]
    assert "Ada" not in line["value"].values()


def with_reader(to: Path, *edits: tuple[str, str, str]) -> Path:
    """The package with a type in an encoding of its own, and the reader."""
    found = package(
        to,
        row("packed", "counted"),
        ("format/readers.py", "import IntsetReader\n", "import IntsetReader\nfrom rdbkit.format.counted import CountedReader\n"),
        ("format/readers.py", "ZipmapReader()]", "ZipmapReader(), CountedReader()]"),
        *edits,
    )
    (found / "rdbkit/format/counted.py").write_text(READER)
    with (found / "rdbkit/operations/soundness.toml").open("a") as rules:
        rules.write(RULES)
    return found


def test_a_row_and_a_reader_are_enough_for_all_that_does_not_write_the_encoding(tmp_path: Path) -> None:
    where = with_reader(tmp_path)
    every_verb(where, counted(), "counted")
    # values are scrambled where they stand, which takes somebody who knows how
    missing = run(where, "redact", str(where / "novel.rdb"), "-o", str(where / "redacted.rdb"), status=1)
    assert missing.endswith(f"type {NUMBER} (novel hash): it cannot be redacted: nothing scrambles packed encoding 'counted'")


def test_damage_in_a_new_encoding_is_told_by_its_reader(tmp_path: Path) -> None:
    where = with_reader(tmp_path)
    damaged = dump(where, "damaged.rdb", b"\x09" + counted()[1:])
    assert "4 strings, where 9 are announced" in run(where, "verify", "--deep", damaged, status=1)
    overrun = dump(where, "overrun.rdb", counted()[:-1])
    assert "an element goes beyond the end of what holds it" in run(where, "export", overrun, status=3)


@pytest.mark.parametrize(
    ("shape", "packed", "missing"),
    [
        ("packed", "x", f"type {NUMBER} (novel hash): no reader for packed encoding 'x'"),
        ("ring", "listpack", f"type {NUMBER} (novel hash): no decoder for shape 'ring'"),
    ],
)
def test_what_is_missing_for_a_row_is_named(tmp_path: Path, shape: str, packed: str, missing: str) -> None:
    where = package(tmp_path, row(shape, packed))
    assert run(where, "info", dump(where, "novel.rdb", listpack()), status=1).endswith(missing)

"""Values converted alone, without a file: what becomes of each kind for older targets, and that `convert` writes the same."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from librt.strings import BytesWriter

import rdbkit
from rdbkit.format.budget import Budget
from rdbkit.format.decode import FileTypes
from rdbkit.format.scan import NO_EXPIRY, STRING_INT
from rdbkit.model import Header
from rdbkit.passes.value import AS_IT_IS, COPY, JSON, LEFT_OUT, MODULE, ValueConverter
from rdbkit.policy.rules import Rules
from rdbkit.targets.target import find_target, tolerated

from ..rdb import each_dump, length, string

NOW = 1_800_000_000_000
FAR = 4_102_444_800_000
REDIS_12 = Header("redis", 12)
#: Kinds of losses that are not of values.
OF_KEYS = {
    "aux", "database", "eviction-hints", "expiry", "expiry-precision", "function", "function-kept", "key-metadata", "member-expiry",
    "module-aux", "slot-import", "trailer",
}  # fmt: skip


def converter(
    target: str,
    source: Header = REDIS_12,
    *,
    policies: rdbkit.Policies | None = None,
    edits: rdbkit.Edits | None = None,
    deep: bool = False,
    file_types: FileTypes | None = None,
) -> ValueConverter:
    """What converts for a target; nothing may be lost unless the policies say so."""
    found = find_target(target)
    header = found.header_for(source)
    rules = Rules(
        target=found,
        source=source,
        header=header,
        known=found.types_in(header),
        policies=policies or rdbkit.Policies(),
        edits=edits or rdbkit.Edits(),
        selection=None,
        now_ms=NOW,
        compress=False,
        skip=False,
        deep=deep,
        tolerated=tolerated(found),
    )
    return ValueConverter(file_types or FileTypes(*source, 1 << 30, "", Budget()), rules)


def convert(values: ValueConverter, type_code: int, value: bytes, expire_ms: int = NO_EXPIRY) -> tuple[int, bytes]:
    """The new type code, or what stands for it, and the bytes of the value, which stands between others."""
    out = BytesWriter()
    out.write(b"before")
    becomes = int(values.convert(type_code, b"\xff" + value + b"\xff", 1, 1 + len(value), expire_ms, out))
    assert out.getvalue()[:6] == b"before"
    return becomes, out.getvalue()[6:]


def in_pieces(values: ValueConverter, type_code: int, value: bytes, expire_ms: int = NO_EXPIRY) -> tuple[int, bytes]:
    """The same of a value that comes in pieces."""
    action, chunks = values.open_pieces(type_code, iter([value[at : at + 7] for at in range(0, len(value), 7)]))
    if action in (COPY, JSON, MODULE):
        becomes, chunks = values.copy_pieces(type_code, action, chunks)
        written = b"".join(chunks)
        return becomes, b"" if becomes in (AS_IT_IS, LEFT_OUT) else written
    parts: list[bytes] = []
    becomes = values.write_pieces(type_code, action, chunks, expire_ms, parts.append)
    return becomes, b"" if becomes == LEFT_OUT else values.front + b"".join(parts)


def losses(values: ValueConverter) -> list[tuple[str, int, bool, bool]]:
    """What has been lost since this was asked last: kind, count, whether it is only a note, whether it is forbidden."""
    found, values.losses = values.losses, []
    return [(loss.kind, loss.count, loss.note, loss.forbidden) for loss in found]


def listpack(*texts: bytes) -> bytes:
    """A string with a listpack of short texts."""
    body = b"".join(bytes([0x80 | len(text)]) + text + bytes([len(text) + 1]) for text in texts)
    return string((7 + len(body)).to_bytes(4, "little") + len(texts).to_bytes(2, "little") + body + b"\xff")


def fields(*of: tuple[bytes, bytes, int]) -> bytes:
    """A hash of type 24 whose fields expire at FAR or later; 0 for never."""
    body = b"".join(length(at - FAR + 1 if at else 0) + string(name) + string(value) for name, value, at in of)
    return FAR.to_bytes(8, "little") + length(len(of)) + body


# -- each kind


@pytest.mark.parametrize("how", [convert, in_pieces])
def test_what_the_target_knows_stays_as_it_is(how: Any) -> None:
    values = converter("redis-6.0")
    assert how(values, 0, string(b"text")) == (AS_IT_IS, b"")
    assert how(values, STRING_INT, b"\xc0\x07") == (AS_IT_IS, b"")
    assert how(values, 4, b"\x01" + string(b"f") + string(b"v")) == (AS_IT_IS, b"")
    assert losses(values) == []


@pytest.mark.parametrize("how", [convert, in_pieces])
@pytest.mark.parametrize(
    ("type_code", "value", "becomes", "written"),
    [
        (16, listpack(b"f", b"v"), 4, b"\x01" + string(b"f") + string(b"v")),
        (20, listpack(b"a", b"b"), 2, b"\x02" + string(b"a") + string(b"b")),
        (18, b"\x01\x02" + listpack(b"a", b"b"), 1, b"\x02" + string(b"a") + string(b"b")),
        (17, listpack(b"m", b"2"), 5, b"\x01" + string(b"m") + b"\0\0\0\0\0\0\0\x40"),
    ],
)
def test_a_collection_becomes_one_without_packing(how: Any, type_code: int, value: bytes, becomes: int, written: bytes) -> None:
    values = converter("redis-6.0")
    assert how(values, type_code, value) == (becomes, written)
    assert losses(values) == []


@pytest.mark.parametrize("how", [convert, in_pieces])
def test_scores_are_text_for_the_oldest(how: Any) -> None:
    assert how(converter("redis-3.2"), 17, listpack(b"m", b"2")) == (3, b"\x01" + string(b"m") + string(b"2"))


@pytest.mark.parametrize("how", [convert, in_pieces])
@pytest.mark.parametrize(
    ("policy", "kept", "expire_ms"),
    [
        ("fail", [(b"a", b"x"), (b"b", b"y")], NO_EXPIRY),
        ("drop-ttl", [(b"a", b"x"), (b"b", b"y")], NO_EXPIRY),
        ("drop-field", [(b"b", b"y")], NO_EXPIRY),
        ("key-min", [(b"a", b"x"), (b"b", b"y")], FAR + 5),
    ],
)
def test_when_fields_expire_is_a_matter_of_policy(how: Any, policy: str, kept: list[tuple[bytes, bytes]], expire_ms: int) -> None:
    values = converter("redis-7.2", policies=rdbkit.Policies(field_ttl=policy))
    value = fields((b"a", b"x", FAR + 5), (b"b", b"y", 0))
    written = length(len(kept)) + b"".join(string(name) + string(text) for name, text in kept)
    assert how(values, 24, value) == (4, written)
    assert values.expire_ms == expire_ms
    assert losses(values) == [("field-expiry", 1, False, policy == "fail")]


def test_an_earlier_expiry_of_the_key_stays() -> None:
    values = converter("redis-7.2", policies=rdbkit.Policies(field_ttl="key-min"))
    convert(values, 24, fields((b"a", b"x", FAR + 5)), FAR)
    assert values.expire_ms == FAR
    convert(values, 24, fields((b"a", b"x", FAR + 5)), FAR + 9)
    assert values.expire_ms == FAR + 5


@pytest.mark.parametrize("how", [convert, in_pieces])
def test_fields_that_expire_go_from_redis_to_valkey(how: Any) -> None:
    values = converter("valkey-9.1")
    written = b"\x01" + string(b"a") + string(b"x") + (FAR + 5).to_bytes(8, "little")
    assert how(values, 24, fields((b"a", b"x", FAR + 5))) == (22, written)
    assert losses(values) == []


@pytest.mark.parametrize("how", [convert, in_pieces])
def test_values_of_modules(how: Any) -> None:
    document = b"\5" + string(b'{"a":1}' + b" " * 70) + b"\0"
    json = b"\x81" + (0).to_bytes(8, "big")
    number = 0
    for letter in "ReJSON-RL":
        number = number << 6 | "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_".index(letter)
    json = b"\x81" + (number << 10 | 3).to_bytes(8, "big") + document
    assert how(converter("azure-managed"), 7, json) == (AS_IT_IS, b"")
    values = converter("redis-6.0")
    assert how(values, 7, json) == (LEFT_OUT, b"")
    assert losses(values) == [("module", 1, False, True)]
    values = converter("redis-6.0", policies=rdbkit.Policies(module="json-as-string"))
    assert how(values, 7, json) == (0, string(b'{"a":1}' + b" " * 70))
    assert losses(values) == [("module", 1, False, False)]


@pytest.mark.parametrize("how", [convert, in_pieces])
def test_a_collection_without_elements_is_left_out(how: Any) -> None:
    values = converter("redis-6.0")
    assert how(values, 16, listpack()) == (LEFT_OUT, b"")
    assert losses(values) == [("empty", 1, True, False)]


@pytest.mark.parametrize("how", [convert, in_pieces])
def test_damage_is_an_error_without_a_place(how: Any) -> None:
    values = converter("redis-6.0")
    with pytest.raises(rdbkit.CorruptError) as error:
        how(values, 16, listpack(b"f"))
    assert error.value.source is None
    assert how(values, 16, listpack(b"f", b"v"))[0] == 4  # the next one is none the worse


def test_nothing_is_written_of_a_damaged_value() -> None:
    values = converter("redis-6.0")
    out = BytesWriter()
    out.write(b"before")
    value = listpack(b"f", b"v", b"f", b"w")
    with pytest.raises(rdbkit.CorruptError, match="comes twice"):
        values.convert(16, value, 0, len(value), NO_EXPIRY, out)
    assert out.getvalue() == b"before"


@pytest.mark.parametrize("deep", [False, True])
@pytest.mark.parametrize(("which", "kept"), [("first", b"v"), ("last", b"w")])
def test_of_elements_that_come_twice_one_is_kept(deep: bool, which: str, kept: bytes) -> None:
    values = converter("redis-6.0", edits=rdbkit.Edits(on_duplicate=which), deep=deep)
    assert convert(values, 16, listpack(b"f", b"v", b"f", b"w")) == (4, b"\x01" + string(b"f") + string(kept))
    assert losses(values) == [("duplicate", 1, False, False)]
    value = fields((b"f", b"v", FAR + 1), (b"f", b"w", FAR + 2))
    assert convert(values, 24, value) == (4, b"\x01" + string(b"f") + string(kept))
    assert losses(values) == [("duplicate", 1, False, False), ("field-expiry", 1, False, True)]


def test_python_values() -> None:
    values = converter("redis-6.0")
    out = BytesWriter()
    assert values.encode({b"f": b"v"}, NO_EXPIRY, out) == 4
    assert out.getvalue() == b"\x01" + string(b"f") + string(b"v")
    assert losses(values) == []


# -- the same as a whole conversion


def converted(path: Path, target: str) -> tuple[dict[tuple[int, bytes], tuple[int, bytes, int | None]], rdbkit.Conversion]:
    """What `rdbkit.convert` makes of each key: type code, value, expiry."""
    out = io.BytesIO()
    report = rdbkit.convert(path, out, target=target, policies=rdbkit.Policies(loss="drop"), now_ms=NOW)
    with rdbkit.open(io.BytesIO(out.getvalue())) as snapshot:
        return {(r.db, r.key): (r.type_code, r.raw, r.expire_ms) for r in snapshot}, report


def alone(path: Path, values: ValueConverter, how: Any) -> Iterator[tuple[rdbkit.Record, int, bytes]]:
    """What a converter makes of each key of a file."""
    with rdbkit.open(path) as snapshot:
        for record in snapshot:
            expire_ms = NO_EXPIRY if record.expire_ms is None else record.expire_ms
            yield (record, *how(values, record.type_code, record.raw, expire_ms))


@pytest.mark.parametrize("how", [convert, in_pieces])
@pytest.mark.parametrize("target", ["redis-3.2", "redis-6.0", "redis-7.2", "valkey-9.1"])
@pytest.mark.parametrize("path", each_dump("rich"))
def test_each_value_is_what_convert_writes(path: Path, target: str, how: Any) -> None:
    wanted, report = converted(path, target)
    with rdbkit.open(path) as snapshot:
        values = converter(target, snapshot.header, policies=rdbkit.Policies(loss="drop"), file_types=snapshot.file_types)
    seen = 0
    for record, becomes, written in alone(path, values, how):
        where = (record.db, record.key)
        if becomes == LEFT_OUT:
            assert where not in wanted
            continue
        expire_ms = record.expire_ms
        if becomes == AS_IT_IS:
            becomes, written = record.type_code, record.raw
        elif values.expire_ms != NO_EXPIRY:
            expire_ms = int(values.expire_ms)
        assert (becomes, written, expire_ms) == wanted[where]
        seen += 1
    assert seen == len(wanted) == report.written
    lost: Counter[str] = Counter()
    for loss in values.losses:
        lost[loss.kind] += loss.count
    of_file = {**report.ledger.counts, **report.ledger.notes}
    assert {kind: n for kind, n in lost.items() if kind not in OF_KEYS} == {k: n for k, n in of_file.items() if k not in OF_KEYS}

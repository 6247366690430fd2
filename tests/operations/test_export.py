"""JSON lines hold what the file holds, byte by byte the same however they come about; and what becomes of damage.

What a line must be is rendered here once more, from `Record.elements`, without any code of rdbkit's that writes JSON.
"""

from __future__ import annotations

import base64
import gzip
import io
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, product
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import rdbkit
from rdbkit.operations import export as operation
from rdbkit.operations.export import Export, export_jsonl, export_resp
from rdbkit.selection import Selection
from rdbkit.snapshot import large
from rdbkit.values import (
    Array,
    CronJob,
    Hash,
    ModuleValue,
    PendingEntry,
    Set,
    Stream,
    StreamConsumer,
    StreamDedup,
    StreamEntry,
    StreamGroup,
    StreamId,
    StreamTail,
)

from .. import command_line
from ..encoders import (
    ENCODERS,
    EXPIRING_MEMBERS,
    Encoder,
    array,
    comparable,
    hash_expiring,
    hash_valkey,
    listpack,
    module,
    quicklist2,
    set_dragonfly,
    signed,
    stream,
    ziplist,
    zset_binary,
    zset_text,
)
from ..format.test_decode import as_answered, file_of
from ..processes import GUARD, heeding_signals, until
from ..rdb import FIXTURES, aux, each_dump, key, length, one_in, rdb, string, truth
from .test_commands import parsed

RICH = FIXTURES / "rich"
DUMP = RICH / "redis-7.4.1.rdb"
KEYDB = RICH / "keydb-6.3.4-ext.rdb"
WHOLE = 1 << 24


def exported(data: bytes | Path, block_size: int = 1 << 20, form: str = "jsonl", **options: Any) -> bytes:
    source: Any = io.BytesIO(data) if isinstance(data, bytes) else data
    out = io.BytesIO()
    with rdbkit.open(source, block_size=block_size) as snapshot:
        export_jsonl(snapshot, out, **options) if form == "jsonl" else export_resp(snapshot, out, **options)
    return out.getvalue()


@contextmanager
def in_pieces() -> Iterator[None]:
    """Every record larger than a block is written in bounded memory, and by way of real temporary files."""
    before = operation._WHOLE_BYTES, large.HELD_BYTES
    operation._WHOLE_BYTES, large.HELD_BYTES = -1, 16
    try:
        yield
    finally:
        operation._WHOLE_BYTES, large.HELD_BYTES = before


# -- what a line must be, and what it says


def form_of(data: bytes) -> Any:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def score_form(score: float) -> Any:
    if score in (float("inf"), float("-inf")):
        return str(score)
    return int(score) if score.is_integer() and "e" not in repr(score) and str(score) != "-0.0" else score


def mapping(pairs: list[tuple[bytes, Any]], as_object: bool) -> Any:
    return {form_of(name): item for name, item in pairs} if as_object else [[form_of(name), item] for name, item in pairs]


def group_form(group: StreamGroup) -> dict[str, Any]:
    return {
        "name": form_of(group.name),
        "last_id": str(group.last_id),
        **({} if group.entries_read is None else {"entries_read": group.entries_read}),
        "pending": [
            [str(p.id), None if p.consumer is None else form_of(p.consumer), p.delivery_ms, p.delivery_count] for p in group.pending
        ],
        "consumers": [
            {"name": form_of(c.name), "seen_ms": c.seen_ms, **({} if c.active_ms is None else {"active_ms": c.active_ms})}
            for c in group.consumers
        ],
        **({"nacked": [str(i) for i in group.nacked]} if group.nacked else {}),
    }


def stream_form(items: list[Any]) -> dict[str, Any]:
    form: dict[str, Any] = {"entries": []}
    for item in items:
        if isinstance(item, StreamEntry):
            form["entries"].append([str(item.id), [[form_of(f), form_of(v)] for f, v in item.fields]])
        elif isinstance(item, StreamTail):
            form |= {"length": item.length, "last_id": str(item.last_id)}
            if item.first_id is not None:
                form |= {"first_id": str(item.first_id), "max_deleted_id": str(item.max_deleted_id)}
                form["entries_added"] = item.entries_added
            form["groups"] = []
        elif isinstance(item, StreamGroup):
            form["groups"].append(group_form(item))
        else:
            assert isinstance(item, StreamDedup)
            form["dedup"] = {
                "duration_s": item.duration_s,
                "max_entries": item.max_entries,
                "producers": [
                    {"name": form_of(name), "ids": [[form_of(one), str(i)] for one, i in ids]} for name, ids in item.producers
                ],
                "added": item.added,
                "duplicates": item.duplicates,
            }
    return form


def array_item(item: bytes | int | float) -> Any:
    if isinstance(item, bytes):
        return form_of(item)
    return str(item) if item - item != 0 else item


def row_of(record: rdbkit.Record) -> dict[str, Any]:
    """The members of a record's line, in their order; elements in file order, which `Record.value` may not keep."""
    row: dict[str, Any] = {"db": record.db, "key": form_of(record.key), "type": record.type, "encoding": record.encoding}
    for name in ("expire_ms", "idle_s", "freq"):
        if getattr(record, name) is not None:
            row[name] = getattr(record, name)
    items = list(chain.from_iterable(record.elements()))
    expiries: dict[bytes, int] = record.member_expire_ms or {}
    match record.type:
        case "list" | "set":
            row["value"] = [form_of(item) for item in items]
        case "zset":
            row["value"] = [[form_of(member), score_form(score)] for member, score in items]
        case "hash":
            as_object = all(isinstance(form_of(field), str) for field, _, _ in items)
            row["value"] = mapping([(field, form_of(value)) for field, value, _ in items], as_object)
            times = [(field, ms) for field, _, ms in items if ms is not None]
            if times:
                row["field_expire_ms"] = mapping(times, as_object)
        case "stream":
            row["value"] = stream_form(items)
        case "array":
            row["value"] = [[index, array_item(item)] for index, item in items]
            if record.value.insert_index is not None:
                row["insert_index"] = record.value.insert_index
        case "module":
            (value,) = items
            row["value"] = {"module": value.module, "version": value.version, "base64": base64.b64encode(value.raw).decode()}
        case "cron":
            (job,) = items
            row["value"] = {
                "script": form_of(job.script),
                "start_ms": job.start_ms,
                "interval_ms": job.interval_ms,
                "keys": [form_of(name) for name in job.keys],
                "args": [form_of(argument) for argument in job.args],
            }
        case _:
            (row["value"],) = (form_of(item) if isinstance(item, bytes) else item for item in items)
    if isinstance(value := record.value, Set):
        expiries = {member: value.member_expire_ms[member] for member in items if member in value.member_expire_ms} or expiries
    if expiries:
        row["member_expire_ms"] = mapping(list(expiries.items()), all(isinstance(form_of(m), str) for m in expiries))
    return row


def lines_of(data: bytes | Path) -> bytes:
    """What must be written of a file."""
    source: Any = io.BytesIO(data) if isinstance(data, bytes) else data
    with rdbkit.open(source, block_size=WHOLE) as snapshot:
        rows = [json.dumps(row_of(record), ensure_ascii=False, separators=(",", ":"), allow_nan=False) for record in snapshot]
    return "".join(row + "\n" for row in rows).encode()


def bytes_of(form: Any) -> bytes:
    if isinstance(form, str):
        return form.encode()
    (packed,) = form.values()
    assert list(form) == ["base64"]
    return base64.b64decode(packed, validate=True)


def pairs_of(form: Any) -> list[tuple[bytes, Any]]:
    return [(bytes_of(name), item) for name, item in (form.items() if isinstance(form, dict) else form)]


def id_of(text: str) -> StreamId:
    ms, seq = text.split("-")
    return StreamId(int(ms), int(seq))


def stream_of(form: dict[str, Any]) -> Stream:
    value = Stream(
        entries=[StreamEntry(id_of(i), [(bytes_of(f), bytes_of(v)) for f, v in fields]) for i, fields in form["entries"]],
        length=form["length"],
        last_id=id_of(form["last_id"]),
        groups=[
            StreamGroup(
                bytes_of(g["name"]),
                id_of(g["last_id"]),
                g.get("entries_read"),
                [PendingEntry(id_of(i), None if who is None else bytes_of(who), at, n) for i, who, at, n in g["pending"]],
                [StreamConsumer(bytes_of(c["name"]), c["seen_ms"], c.get("active_ms")) for c in g["consumers"]],
                [id_of(i) for i in g.get("nacked", [])],
            )
            for g in form["groups"]
        ],
    )
    if "first_id" in form:
        value.first_id, value.max_deleted_id = id_of(form["first_id"]), id_of(form["max_deleted_id"])
        value.entries_added = form["entries_added"]
    if "dedup" in form:
        found = form["dedup"]
        producers = [(bytes_of(p["name"]), [(bytes_of(name), id_of(i)) for name, i in p["ids"]]) for p in found["producers"]]
        value.dedup = StreamDedup(found["duration_s"], found["max_entries"], producers, found["added"], found["duplicates"])
    return value


def value_in(row: dict[str, Any]) -> Any:
    """The value that a parsed line holds, as `Record.value` would give it."""
    form, expiries = row["value"], row.get("member_expire_ms", {})
    match row["type"]:
        case "list":
            return [bytes_of(item) for item in form]
        case "set":
            found = Set(bytes_of(item) for item in form)
            assert len(found) == len(form)
            found.member_expire_ms = dict(pairs_of(expiries))
            return found
        case "zset":
            return {bytes_of(member): float(score) for member, score in form}
        case "hash":
            fields = Hash()
            fields.update((name, bytes_of(item)) for name, item in pairs_of(form))
            fields.field_expire_ms = dict(pairs_of(row.get("field_expire_ms", {})))
            assert isinstance(form, dict) == all(isinstance(form_of(name), str) for name in fields)
            return fields
        case "stream":
            return stream_of(form)
        case "array":
            items = Array()
            items.update((i, item if isinstance(item, int | float) else bytes_of(item)) for i, item in form)
            items.insert_index = row.get("insert_index")
            return items
        case "module":
            return ModuleValue(form["module"], form["version"], base64.b64decode(form["base64"], validate=True))
        case "cron":
            keys, args = ([bytes_of(item) for item in form[name]] for name in ("keys", "args"))
            return CronJob(bytes_of(form["script"]), form["start_ms"], form["interval_ms"], keys, args)
        case "gcra":
            return form
    return bytes_of(form)


def no_constant(text: str) -> None:
    raise AssertionError(f"{text} is no JSON")


def rows_in(text: bytes) -> list[dict[str, Any]]:
    assert text == b"" or text.endswith(b"\n")
    return [json.loads(line, parse_constant=no_constant) for line in text.split(b"\n")[:-1]]


def assert_the_same_every_way(data: bytes | Path, *block_sizes: int) -> bytes:
    text = exported(data, WHOLE)
    assert_same(text, lines_of(data))
    for block_size in block_sizes:
        assert_same(exported(data, block_size), text)
        with in_pieces():
            assert_same(exported(data, block_size), text)
    return text


def assert_same(found: bytes, wanted: bytes) -> None:
    """Equality that shows where the difference begins, for pytest takes minutes to show all of it."""
    if found != wanted:
        at = next((i for i, pair in enumerate(zip(found, wanted, strict=False)) if pair[0] != pair[1]), len(wanted))
        pytest.fail(f"at {at}: {found[max(at - 60, 0) : at + 60]!r} is not {wanted[max(at - 60, 0) : at + 60]!r}")


# -- dumps of servers


@pytest.mark.parametrize("path", each_dump())
def test_lines_are_the_same_in_blocks_of_any_size(path: Path) -> None:
    text = assert_the_same_every_way(path, 16, 1000)
    assert exported(gzip.compress(path.read_bytes())) == text
    with rdbkit.open(path) as snapshot:
        for record, row in zip(snapshot, rows_in(text), strict=True):
            assert (bytes_of(row["key"]), row["db"]) == (record.key, record.db)
            if record.member_expire_ms:  # of KeyDB, which `Record.value` knows nothing of
                assert dict(pairs_of(row.pop("member_expire_ms"))) == record.member_expire_ms
            assert comparable(value_in(row)) == comparable(record.value)


@pytest.mark.parametrize("path", each_dump(answered=True))
def test_lines_are_what_the_server_answered(path: Path) -> None:
    answers = {(answer["db"], answer["key"].encode("latin-1")): answer for answer in truth(path) or []}
    compared = 0
    for row in rows_in(exported(path)):
        answer = answers.get((row["db"], bytes_of(row["key"])))
        if answer is None and path.name == "redis-2.4.18.rdb":  # it wrapped expiries past 2038, and had dropped those keys
            continue
        assert answer is not None
        assert row["type"] == answer["type"].replace("vectorset", "module")
        assert as_answered(value_in(row)) == answer["value"]
        # of the others test_fixtures.py knows how they came to differ
        if "2.4" not in path.name and not isinstance(answer["expire_ms"], list):
            assert row.get("expire_ms") == answer["expire_ms"]
        compared += 1
    assert compared == len(answers)


# -- any value


@pytest.mark.one_in(4)
@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda e: e.name)
@settings(max_examples=20)
@given(data=st.data(), seed=st.integers(0, 1 << 32), block_size=st.sampled_from([16, 33, 100, 1000]))
def test_a_value_comes_back_from_its_line(encoder: Encoder, data: st.DataObject, seed: int, block_size: int) -> None:
    value = data.draw(encoder.values)
    text = assert_the_same_every_way(file_of(encoder, value, Random(seed)), block_size)
    first, after = rows_in(text)
    wanted = comparable(value)
    found = comparable(value_in(first))
    if encoder.type_code == 28:  # what is a number without being one to JSON is text in a line
        found, wanted = ({i: str(item[1]) for i, item in part[1].items()} for part in (found, wanted))
        wanted = {i: text if text in ("inf", "-inf", "nan") else found[i] for i, text in wanted.items()}
    elif encoder.values is EXPIRING_MEMBERS and not first.get("member_expire_ms"):
        wanted = set(value)
    assert found == wanted
    assert after == {"db": 0, "key": "after", "type": "string", "encoding": "raw", "value": "v"}


AWKWARD = [
    b"", b'"', b"\\", b'\\"', b'a"b\\c', b"\n\r\t\b\f\0", bytes(range(0x20)), b"\x7f", b"/", "\u2028\u2029".encode(), b"\xff",
    "é".encode(), "\U0001f600".encode(), b"\xed\xa0\x80", b"\xed\xb0\x80", b"\xc0\x80", b"\xe2\x80", b"\xf4\x90\x80\x80",
    b"x" * 47, b"x" * 48, b"x" * 49, b"x" * 47 + b'"', b"x" * 48 + b'"', b'"' * 49, b"\\" + b"x" * 60, b"x" * 30 + b'"' + b"y" * 30,
    b"x" * 60 + b"\n", b"x" * 60 + b"\xff", b"x" * 60 + "é".encode(), b'"' + b"x" * 60 + "é".encode(), b"base64",
    b'{"base64":"AA=="}',
    b"-9223372036854775808", b"9223372036854775807", b"-0", b"007", b"1e5", b"nan", b"null",
]  # fmt: skip
#: Texts as servers of every age may have kept scores; the last ones have 17 digits and more.
SCORES = [
    b"0", b"-0", b"-0.0", b"1", b"-1", b"10", b"1e5", b"1E5", b"007", b"+5", b".5", b"-.5", b"5.", b"0.5", b"-0.5", b"1.50", b"1.0",
    b"100000000000000", b"999999999999999", b"1000000000000000", b"9999999999999999", b"12345678901234567", b"-12345678901234567",
    b"123456789012345678901234567890", b"1234567890123456789012345678901", b"0.30000000000000004", b"3.0000000000000004e-1",
    b"1234567.8901234", b"123456789.0123456", b"99999999999.999", b"0.001", b"0.0001", b"1e300", b"5e-324", b"1e-7",
    b"1e16", b"1e22",    b"inf", b"-inf", b"+inf", b"Infinity", b"1e999", b"-1e999",
    b"0.1", b"0.10000000000000001", b"1.005", b"2.675", b"1e-400",
]  # fmt: skip
DOUBLES = [
    0.0, -0.0, 1.0, -1.0, 1e300, 5e-324, float("inf"), float("-inf"), 0.1 + 0.2, 12345678901234567.0, 0.001, 0.0005, 0.0004999,
    1e11, 1e11 - 0.001, 99999999999.999, 1e15, 1e16, 1e17, 123456.789, 123456.7891, 4.35, 1.1, -2.5, 0.999, 0.9999, 1.001, 2**53,
    2**63, 1e-5, 1.7976931348623157e308,
]  # fmt: skip


@pytest.mark.parametrize("together", [True, False], ids=["together", "each"])
def test_awkward_text(together: bool) -> None:
    """All in one value, where one of them sends all the slow way, and each in a value of its own."""
    rng = Random(1)
    runs = [AWKWARD] if together else [[b"a", item, b"b" * (3 + n)] for n, item in enumerate(AWKWARD)]
    records = []
    for n, items in enumerate(runs):
        flat = b"".join(map(string, items))
        name = b"%d" % n
        pairs = b"".join(string(item) + string(other) for item, other in zip(items, reversed(items), strict=True))
        fields = dict(zip(items, reversed(items), strict=True))
        records += [
            key(name + b"list", 1, length(len(items)) + flat),
            key(name + b"set", 20, string(listpack(items, rng))),
            key(name + b"quicklist", 18, quicklist2(items, rng)),
            key(name + b"hash", 4, length(len(items)) + pairs),
            key(name + b"packed hash", 16, string(listpack(list(chain.from_iterable(fields.items())), rng))),
            key(name + b"zset", 5, zset_binary(dict.fromkeys(items, 1.5), rng)),
            *(key(item, 0, string(item)) for item in items),
        ]
    data = rdb(b"\xfe\0", *records, magic=b"REDIS0011")
    text = assert_the_same_every_way(data, 16)
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        assert [(bytes_of(row["key"]), value_in(row)) for row in rows_in(text)] == [(r.key, r.value) for r in snapshot]


def test_scores_of_every_writing() -> None:
    rng = Random(1)
    packed: list[bytes | int] = list(chain.from_iterable((b"m%d" % n, score) for n, score in enumerate(SCORES)))
    numbers: list[bytes | int] = list(chain.from_iterable((b"i%d" % n, n) for n in (0, -1, 127, 4096, -(1 << 63), (1 << 63) - 1)))
    ones = [
        key(b"one%d" % n, 12, string(ziplist([b"m", score], rng)))  # each the only one, so that none sends another the slow way
        for n, score in enumerate(SCORES)
    ]
    data = rdb(
        b"\xfe\0",
        key(b"packed", 17, string(listpack(packed, rng))),
        key(b"integers", 17, string(listpack(numbers, rng))),
        key(b"binary", 5, zset_binary({b"m%d" % n: float(score) for n, score in enumerate(DOUBLES)}, rng)),
        key(b"text", 3, zset_text({b"m%d" % n: float(score) for n, score in enumerate(DOUBLES)}, rng)),
        *ones,
        magic=b"REDIS0011",
    )
    rows = rows_in(assert_the_same_every_way(data, 16))
    found = [struct.pack("<d", float(score)) for _, score in rows[0]["value"]]
    assert found == [struct.pack("<d", float(score)) for score in SCORES]
    assert {struct.pack("<d", float(score)) for _, score in rows[2]["value"]} == {struct.pack("<d", score) for score in DOUBLES}


@settings(max_examples=300)
@given(st.lists(st.floats(allow_nan=False) | st.integers(-(10**15), 10**15).map(lambda n: n / 1000), min_size=1, max_size=20))
def test_any_scores_are_rendered_the_shortest(scores: list[float]) -> None:
    body = length(len(scores)) + b"".join(string(b"m%d" % n) + struct.pack("<d", score) for n, score in enumerate(scores))
    data = rdb(b"\xfe\0", key(b"z", 5, body))
    assert_same(exported(data), lines_of(data))


@settings(max_examples=300)
@given(st.lists(st.from_regex(rb"-?[0-9]{0,20}\.?[0-9]{0,18}", fullmatch=True), min_size=1, max_size=10))
def test_any_decimals_are_rendered_the_shortest(texts: list[bytes]) -> None:
    texts = [text for text in texts if text.strip(b"-.")] or [b"1"]
    items: list[bytes | int] = list(chain.from_iterable((b"m%d" % n, score) for n, score in enumerate(texts)))
    data = rdb(b"\xfe\0", key(b"z", 17, string(listpack(items, Random(1)))), magic=b"REDIS0011")
    assert_same(exported(data), lines_of(data))


@pytest.mark.parametrize("number", [0, 1, 9, 10, 99, 10**17, 10**18 - 1, 10**18, (1 << 63) - 1])
def test_numbers_of_any_size(number: int) -> None:
    idle = min(number, 1 << 46)  # more cannot be
    data = rdb(
        b"\xfe\0",
        b"\xf8" + length(idle) + key(b"a", 0, string(b"v"), number),
        b"\xf9\xff" + key(b"b", 0, string(b"v"), -number - 1 if number else None),
        key(b"c", 0, b"\xc2" + signed(min(number, (1 << 31) - 1), 4)),
    )
    a, b, c = rows_in(assert_the_same_every_way(data, 16))
    assert (a["expire_ms"], a["idle_s"], b["freq"]) == (number, idle, 255)
    assert (c["encoding"], c["value"]) == ("int", str(min(number, (1 << 31) - 1)))


# -- large values

COUNT = 3000
NAMES = [b"name %d" % n for n in range(COUNT)]
LATE = [*NAMES, b"\xff late", b"after it"]
IDS = [StreamId(5, n) for n in range(COUNT)]
LARGE: dict[str, tuple[bytes, int, Callable[[Random], bytes]]] = {
    "hash": (b"REDIS0012", 4, lambda rng: length(COUNT) + b"".join(string(n) + string(n[::-1]) for n in NAMES)),
    "hash with a late name": (b"REDIS0012", 4, lambda rng: length(len(LATE)) + b"".join(string(n) + string(n[::-1]) for n in LATE)),
    "expiring hash": (b"REDIS0012", 24, lambda rng: hash_expiring({n: (n, 4 + i) for i, n in enumerate(NAMES)}, rng)),
    "expiring hash with a late name": (
        b"REDIS0012",
        24,
        lambda rng: hash_expiring({n: (n[::-1], 4 + i if i % 3 else None) for i, n in enumerate(LATE)}, rng),
    ),
    "hash of which only late fields expire": (
        b"REDIS0012",
        24,
        lambda rng: hash_expiring({n: (n, 4 + i if i > COUNT - 3 else None) for i, n in enumerate(LATE)}, rng),
    ),
    "hash of which no field expires": (b"REDIS0012", 24, lambda rng: hash_expiring({n: (n, None) for n in NAMES}, rng)),
    "Valkey hash": (b"VALKEY080", 22, lambda rng: hash_valkey({n: (n, 4 + i if i % 2 else None) for i, n in enumerate(LATE)}, rng)),
    "module": (
        b"REDIS0012",
        7,
        lambda rng: module(
            ModuleValue("ReJSON-RL", 3, b"".join(b"\5" + string(rng.randbytes(n % 70)) for n in range(COUNT)) + b"\0"), rng
        ),
    ),
    "short module": (b"REDIS0012", 7, lambda rng: module(ModuleValue("vectorset", 0, b"\5" + string(b"x" * 40) + b"\0"), rng)),
    "set": (b"REDIS0012", 2, lambda rng: length(len(LATE)) + b"".join(map(string, LATE))),
    "set of Dragonfly": (
        b"REDIS0009",
        32,
        lambda rng: set_dragonfly({n: 4000 if i % 2 else None for i, n in enumerate(NAMES)}, rng),
    ),
    "set of Dragonfly with a late name": (b"REDIS0009", 32, lambda rng: set_dragonfly(dict.fromkeys(LATE, 4000), rng)),
    "set of Dragonfly with a late name that stays": (
        b"REDIS0009",
        32,
        lambda rng: set_dragonfly({n: None if n == LATE[-2] else 4000 for n in LATE}, rng),
    ),
    "set of Dragonfly of which none expires": (b"REDIS0009", 32, lambda rng: set_dragonfly(dict.fromkeys(NAMES), rng)),
    "zset": (b"REDIS0012", 5, lambda rng: zset_binary({n: i / 7 for i, n in enumerate(LATE)}, rng)),
    "old zset": (b"REDIS0012", 3, lambda rng: zset_text({n: i / 4 for i, n in enumerate(LATE)}, rng)),
    "list": (b"REDIS0012", 1, lambda rng: length(len(LATE)) + b"".join(map(string, LATE))),
    "quicklist": (b"REDIS0012", 18, lambda rng: quicklist2(LATE, rng)),
    "empty list": (b"REDIS0012", 18, lambda rng: length(40) + b"\2\7\7\0\0\0\0\0\xff" * 40),
    "array": (b"REDIS0014", 28, lambda rng: array((7, {i: n if i % 2 else i / 4 for i, n in enumerate(LATE)}), rng)),
    "string": (b"REDIS0012", 0, lambda rng: string(b"x" * 9000)),
    "stream": (
        b"REDIS0014",
        27,
        lambda rng: stream(5)(
            Stream(
                [StreamEntry(i, [(n, n[::-1])]) for i, n in zip(IDS, NAMES, strict=True)],
                COUNT,
                IDS[-1],
                IDS[0],
                StreamId(0, 0),
                COUNT,
                [StreamGroup(n, IDS[9], 9, [PendingEntry(IDS[3], None, 9, 1)], [], [IDS[3]]) for n in LATE[-3:]],
                StreamDedup(100, 100, [(b"p", [(b"i", IDS[0])])], 1, 0),
            ),
            rng,
        ),
    ),
}


@pytest.mark.one_in(4)
@pytest.mark.parametrize("name", LARGE)
def test_a_large_value_has_the_same_line_as_in_one_piece(name: str) -> None:
    magic, type_code, encode = LARGE[name]
    record = key(b"large", type_code, encode(Random(3)), 4102444800123)
    data = rdb(b"\xfe\0", key(b"a", 0, string(b"v")), record, key(b"b", 0, string(b"v")), magic=magic)
    text = assert_the_same_every_way(data, 16, 4096)
    _, row, _ = rows_in(text)
    assert row["expire_ms"] == 4102444800123


def test_a_value_of_more_than_a_few_megabytes() -> None:
    """The sizes that are in force, not those of the tests."""
    count = 60_000
    names = [b"field %d" % n for n in range(count - 1)] + [b"\xff"]
    hash_ = length(count) + b"".join(string(name) + string(name * 8) for name in names)
    assert len(hash_) > operation._WHOLE_BYTES
    data = rdb(b"\xfe\0", key(b"h", 4, hash_), key(b"after", 0, string(b"v")))
    text = exported(data)
    assert text == exported(data, WHOLE)
    row, _ = rows_in(text)
    assert row["value"] == [[form_of(name), form_of(name * 8)] for name in names]


def test_selected_by_size() -> None:
    """The size of a large record is known when it has been read."""
    data = rdb(
        b"\xfe\0",
        key(b"a", 0, string(b"v")),
        *(key(b"l%d" % n, 1, length(n) + string(b"element") * n) for n in (10, 100, 1000)),
        key(b"b", 0, string(b"v")),
    )
    lines = exported(data, WHOLE).splitlines(keepends=True)
    for block_size in (16, WHOLE):
        for low, high, wanted in ((0, 100, (0, 1, 4)), (101, 900, (2,)), (901, None, (3,))):
            selection = Selection(size=(low, high))
            chosen = b"".join(lines[n] for n in wanted)
            assert_same(exported(data, block_size, selection=selection), chosen)
            with in_pieces():
                assert_same(exported(data, block_size, selection=selection), chosen)
    assert exported(data, 16, selection=Selection(keys=b"l1?")) == lines[1]


# -- what KeyDB says behind a value


def expiring_member(member: bytes, when: int) -> bytes:
    return aux(b"keydb-subexpire-key", member) + aux(b"keydb-subexpire-when", b"%d" % when)


KEYDB_SET = length(2) + string(b"m") + string(b"\xff")
KEYDB_PARTS = [
    (b"first", KEYDB_SET, expiring_member(b"m", 4)),
    (b"bytes", KEYDB_SET, expiring_member(b"m", 5) + expiring_member(b"\xff", 6)),
    (b"none", KEYDB_SET, b""),
    (b"large", length(90) + b"".join(string(b"m%d" % n) for n in range(90)), expiring_member(b"m1", 7) + expiring_member(b"m2", 8)),
    (b"large, none", length(90) + b"".join(string(b"m%d" % n) for n in range(90)), b""),
    (b"last", KEYDB_SET, expiring_member(b"m", 9)),
]
KEYDB_WANTED = {
    b"first": {b"m": 4},
    b"bytes": {b"m": 5, b"\xff": 6},
    b"large": {b"m1": 7, b"m2": 8},
    b"last": {b"m": 9},
}
KEYDB_BLOCKS = [*range(16, 130), 1 << 20]


def keydb_file(last: int = len(KEYDB_PARTS)) -> bytes:
    return rdb(b"\xfe\0", *chain.from_iterable((key(name, 2, value), more) for name, value, more in KEYDB_PARTS[:last]))


def test_keydb_dump_has_its_expiries_of_members() -> None:
    with rdbkit.open(KEYDB) as snapshot:
        wanted = {(r.db, r.key): r.member_expire_ms for r in snapshot if r.member_expire_ms}
    assert set(wanted) == {(0, b"cj"), (0, b"sub")}
    for block_size in (16, 64, 100, 1000, 4096):
        rows = rows_in(exported(KEYDB, block_size))
        found = {(r["db"], bytes_of(r["key"])): dict(pairs_of(r["member_expire_ms"])) for r in rows if "member_expire_ms" in r}
        assert found == wanted
        with rdbkit.open(KEYDB, block_size=block_size) as snapshot:
            records = list(snapshot)
        assert {(r.db, r.key): r.member_expire_ms for r in records if r.member_expire_ms} == wanted


@pytest.mark.parametrize("last", range(1, len(KEYDB_PARTS) + 1))
def test_keydb_expiries_of_members_come_behind_the_value(last: int) -> None:
    data = keydb_file(last)
    wanted = {name: KEYDB_WANTED[name] for name, _, _ in KEYDB_PARTS[:last] if name in KEYDB_WANTED}
    text = lines_of(data)
    for block_size in KEYDB_BLOCKS:
        with rdbkit.open(io.BytesIO(data), block_size=block_size) as snapshot:
            records = list(snapshot)
        assert {r.key: r.member_expire_ms for r in records if r.member_expire_ms} == wanted, block_size
        with rdbkit.open(io.BytesIO(data), block_size=block_size) as snapshot:
            events = [item for item in snapshot.events() if isinstance(item, rdbkit.Record)]
        assert {r.key: r.member_expire_ms for r in events if r.member_expire_ms} == wanted, block_size
        assert_same(exported(data, block_size), text)
    rows = {bytes_of(row["key"]): row for row in rows_in(text)}
    assert {name: dict(pairs_of(row["member_expire_ms"])) for name, row in rows.items() if "member_expire_ms" in row} == wanted
    if last > 1:
        assert rows[b"first"]["member_expire_ms"] == {"m": 4}
        assert rows[b"bytes"]["member_expire_ms"] == [["m", 5], [{"base64": "/w=="}, 6]]


@pytest.mark.parametrize("name", [name for name, _, _ in KEYDB_PARTS])
def test_what_is_said_behind_a_key_that_is_not_wanted_is_said_of_no_other(name: bytes) -> None:
    data = keydb_file()
    line = next(line for line in lines_of(data).splitlines(keepends=True) if bytes_of(json.loads(line)["key"]) == name)
    for block_size in KEYDB_BLOCKS:
        for selection in (Selection(keys=name), Selection(keys=name) & Selection(size=(1, None))):
            assert_same(exported(data, block_size, selection=selection), line)
            with in_pieces():
                assert_same(exported(data, block_size, selection=selection), line)
    expiring = len(KEYDB_WANTED.get(name, ()))
    for block_size in KEYDB_BLOCKS:
        with rdbkit.open(io.BytesIO(data), block_size=block_size) as snapshot:
            report = export_resp(snapshot, io.BytesIO(), on_loss="drop", selection=Selection(keys=name))
        assert report.loss_counts == ({"member-expiry": expiring} if expiring else {}), block_size
        assert all(loss.key == name for loss in report.losses)


# -- damage

#: A listpack whose header counts one element too many, and what names the rule.
BROKEN = string(struct.pack("<IH", 13, 4) + b"\x81f\x02\x81v\x02\xff")
ONE = b"\2" + string(struct.pack("<IH", 10, 1) + b"\x81e\x02\xff")
LARGE_BROKEN = length(60) + ONE * 59 + b"\2" + BROKEN
SOUND = [key(b"a", 0, string(b"1")), key(b"h", 16, string(struct.pack("<IH", 13, 2) + b"\x81f\x02\x81v\x02\xff"))]
SOUND += [key(b"z", 0, string(b"2"))]


def damaged(database: bytes = b"\xfe\3") -> bytes:
    return rdb(b"\xfe\0", SOUND[0], database, key(b"bad", 16, BROKEN), SOUND[1], key(b"worse", 18, LARGE_BROKEN), SOUND[2],
               magic=b"REDIS0011")  # fmt: skip


def undamaged(database: bytes = b"\xfe\3") -> bytes:
    return rdb(b"\xfe\0", SOUND[0], database, *SOUND[1:], magic=b"REDIS0011")


FORMS = ["jsonl", "resp"]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("block_size", [16, 64, 200, WHOLE])
@pytest.mark.parametrize("database", [b"\xfe\0", b"\xfe\3"])
def test_skipped_keys_leave_no_trace_in_what_is_written(form: str, block_size: int, database: bytes) -> None:
    wanted = exported(undamaged(database), form=form)
    for _ in range(2):
        out = io.BytesIO()
        with rdbkit.open(io.BytesIO(damaged(database)), block_size=block_size) as snapshot:
            report = (export_jsonl if form == "jsonl" else export_resp)(snapshot, out, on_error="skip")
        assert_same(out.getvalue(), wanted)
        assert (report.written, [e.key for e in report.skipped]) == (3, [b"bad", b"worse"])
        for error in report.skipped:
            assert (error.db, error.source) == (database[1], "<BytesIO>")
            assert error.reading
            assert "listpack" in error.message
            assert error.offset is not None
            assert 0 <= error.offset - damaged(database).index(error.key or b"") + 2 < 2000
    with in_pieces():
        assert_same(exported(damaged(database), block_size, form, on_error="skip"), wanted)


@pytest.mark.parametrize("on_error", ["stop", "skip"])
@pytest.mark.parametrize("block_size", [16, WHOLE])
def test_keys_that_are_lost_are_not_counted_as_written(on_error: str, block_size: int) -> None:
    stream = FIXTURES / "rich" / "redis-5.0.14-lru.rdb"
    with rdbkit.open(stream) as snapshot:
        keys = len(list(snapshot))
    with rdbkit.open(stream, block_size=block_size) as snapshot:
        report = export_resp(snapshot, out := io.BytesIO(), target="redis-4.0", on_loss="drop", on_error=on_error)
    streams = report.loss_counts["stream"]
    assert report.written == keys - streams > 0
    assert streams > 0
    assert out.getvalue()
    with rdbkit.open(stream, block_size=block_size) as snapshot:
        wanted = rdbkit.Selection(types="stream", size=(1, None))
        report = export_resp(snapshot, out := io.BytesIO(), target="redis-4.0", on_loss="drop", on_error=on_error, selection=wanted)
    assert (report.written, report.loss_counts, out.getvalue()) == (0, {"stream": streams}, b"")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("block_size", [16, WHOLE])
def test_at_a_damaged_value_what_stands_before_it_has_been_written(form: str, block_size: int) -> None:
    out = io.BytesIO()
    with rdbkit.open(io.BytesIO(damaged()), block_size=block_size) as snapshot, pytest.raises(rdbkit.CorruptError) as caught:
        (export_jsonl if form == "jsonl" else export_resp)(snapshot, out)
    assert (caught.value.db, caught.value.key) == (3, b"bad")
    assert exported(undamaged(), form=form).startswith(out.getvalue())
    assert out.getvalue()


@pytest.mark.one_in(5)
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("type_code", [1, 4, 7, 14, 18, 21, 24])
@pytest.mark.parametrize("part", one_in(4, range(4)))
def test_broken_framing_ends_the_export_even_where_damage_is_skipped(form: str, type_code: int, part: int) -> None:
    """Behind a value whose end cannot be found nothing can be."""
    rng = Random(type_code)
    if type_code == 14:
        magic, value = b"REDIS0012", length(60) + string(ziplist(NAMES[:50], rng)) * 60
    elif type_code == 21:
        entries = [StreamEntry(i, [(n, n)]) for i, n in zip(IDS, NAMES, strict=True)]
        magic, value = b"REDIS0012", stream(3)(Stream(entries, COUNT, IDS[-1], IDS[0], StreamId(0, 0), COUNT), rng)
    else:
        magic, value = next((magic, encode(rng)) for magic, found, encode in LARGE.values() if found == type_code)
    data = rdb(
        b"\xfe\0", key(b"a", 0, string(b"v")), key(b"k", type_code, value), key(b"b", 0, string(b"v")), magic=magic, crc=False
    )
    for end in sorted(rng.sample(range(40, len(data) - 20), 16))[part::4]:
        for broken in (data[:end], data[:end] + bytes([0xC7]) * 12 + data[end + 12 :]):
            for block_size in (16, 512, WHOLE):
                with in_pieces():
                    outcomes = [outcome(broken, block_size, form, on_error) for on_error in ("stop", "skip")]
                # what is wrong with the value may be found before what is wrong with its end
                assert (outcomes[0][0] is None) == (outcomes[1] == (None, []))
                if outcomes[1][0] is None:
                    assert outcomes[1][1] in ([], ["k"])
                if len(broken) < len(data):
                    assert outcomes[1][0] is not None


def outcome(data: bytes, block_size: int, form: str, on_error: str) -> tuple[str | None, list[str]]:
    """The error that ended it, and the keys left out."""
    try:
        with rdbkit.open(io.BytesIO(data), block_size=block_size) as snapshot:
            report: Export = (export_jsonl if form == "jsonl" else export_resp)(snapshot, io.BytesIO(), on_error=on_error)
    except rdbkit.RdbError as e:
        return type(e).__name__, []
    return None, [(e.key or b"").decode() for e in report.skipped]


# -- the command line


def run(*args: str | Path, stdin: bytes = b"", **options: Any) -> subprocess.CompletedProcess[bytes]:
    return command_line.run("export", *args, data=stdin, **options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_command_writes_what_the_library_does(tmp_path: Path) -> None:
    text = exported(DUMP)
    result = run(DUMP)
    assert (result.returncode, result.stdout) == (0, text)
    assert b"function libraries l" in result.stderr
    assert run("-", stdin=gzip.compress(DUMP.read_bytes())).stdout == text
    result = run(DUMP, "-o", tmp_path / "dump.jsonl")
    assert (result.returncode, result.stdout) == (0, b"")
    assert run(DUMP, "-o", tmp_path / "dump.jsonl.gz").returncode == 0
    assert (tmp_path / "dump.jsonl").read_bytes() == text
    assert gzip.decompress((tmp_path / "dump.jsonl.gz").read_bytes()) == text
    commands = exported(DUMP, form="resp")
    assert run(DUMP, "--format", "resp", "-o", tmp_path / "dump.resp").returncode == 0
    assert parsed((tmp_path / "dump.resp").read_bytes()) == parsed(commands)
    assert run(DUMP, "--type", "hash", "--prefix", "h_").stdout == exported(DUMP, selection=Selection(types="hash", prefixes=b"h_"))
    assert names(tmp_path) == ["dump.jsonl", "dump.jsonl.gz", "dump.resp"]


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--target", "redis-6.0"], b"--format resp"),
        (["--on-loss", "drop"], b"--format resp"),
        (["--format", "resp", "--target", "redis-99"], b"redis-99"),
        (["--format", "resp", "--target", "rdb-9"], b"a version of the format, which has no commands"),
        (["--format", "xml"], b"xml"),
        (["--on-error", "never"], b"never"),
        (["-o", str(DUMP), "--force"], b"are the same file"),
        (["--key-regex", "("], b"--key-regex"),
    ],
)
def test_wrong_usage_is_exit_2(args: list[str], words: bytes) -> None:
    result = run(DUMP, *args)
    assert result.returncode == 2
    assert words in result.stderr
    assert result.stdout == b""


def test_an_existing_file_needs_force(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_bytes(b"old")
    result = run(DUMP, "-o", path)
    assert (result.returncode, path.read_bytes()) == (2, b"old")
    assert b"--force" in result.stderr
    assert run(DUMP, "-o", path, "--force").returncode == 0
    assert path.read_bytes() == exported(DUMP)


def test_what_the_target_lacks_ends_the_export_or_is_told(tmp_path: Path) -> None:
    result = run(DUMP, "--format", "resp", "--target", "redis-6.0", "-o", tmp_path / "out.resp")
    assert (result.returncode, names(tmp_path)) == (1, [])
    assert result.stderr.count(b"\n") == 1
    result = run(DUMP, "--format", "resp", "--target", "redis-6.0", "--on-loss", "drop", "-o", tmp_path / "out.resp")
    assert (result.returncode, names(tmp_path)) == (0, ["out.resp"])
    assert b"lost in all: " in result.stderr


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["out", "out.gz"])
def test_the_command_stops_at_damage_and_leaves_no_file(tmp_path: Path, form: str, name: str) -> None:
    source = tmp_path / "bad.rdb"
    source.write_bytes(damaged())
    result = run(source, "--format", form, "-o", tmp_path / name)
    assert result.returncode == 3
    assert result.stdout == b""
    (line,) = result.stderr.decode().splitlines()
    at = damaged().index(b"bad") - 2
    assert line.startswith(f"rdbkit: {source}: ")
    assert f"at byte {at}, in db 3, key 'bad', reading a hash listpack" in line
    assert "listpack" in line.split("(")[0]
    assert names(tmp_path) == ["bad.rdb"]


@pytest.mark.parametrize("form", FORMS)
def test_the_command_leaves_out_damage_and_says_so(tmp_path: Path, form: str) -> None:
    source = tmp_path / "bad.rdb"
    source.write_bytes(damaged())
    result = run(source, "--format", form, "--on-error", "skip", "-o", tmp_path / "out")
    assert result.returncode == 0
    first, second, summary = result.stderr.decode().splitlines()
    assert "left out: " in first
    assert "key 'bad'" in first
    assert "key 'worse'" in second
    assert summary == "rdbkit: 2 keys left out, 3 keys written"
    assert (tmp_path / "out").read_bytes() == exported(undamaged(), form=form)


def test_many_damaged_keys_are_not_all_listed(tmp_path: Path) -> None:
    source = tmp_path / "bad.rdb"
    source.write_bytes(rdb(b"\xfe\0", *(key(b"bad%d" % n, 16, BROKEN) for n in range(50)), magic=b"REDIS0011"))
    result = run(source, "--on-error", "skip")
    assert (result.returncode, result.stdout) == (0, b"")
    assert result.stderr.count(b"\n") == 21
    assert b"50 keys left out (30 more than shown), 0 keys written" in result.stderr


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("on_error", ["stop", "skip"])
def test_a_truncated_file_is_exit_3(tmp_path: Path, form: str, on_error: str) -> None:
    source = tmp_path / "cut.rdb"
    source.write_bytes(undamaged()[:-12])
    result = run(source, "--format", form, "--on-error", on_error, "-o", tmp_path / "out")
    assert (result.returncode, names(tmp_path)) == (3, ["cut.rdb"])
    assert result.stderr.count(b"\n") == 1
    assert b"cut.rdb: the file ends too early" in result.stderr


def test_a_checksum_that_differs_is_exit_3_unless_it_is_not_asked_for(tmp_path: Path) -> None:
    source = tmp_path / "bad.rdb"
    source.write_bytes(undamaged()[:-1] + b"?")
    result = run(source, "-o", tmp_path / "out")
    assert (result.returncode, names(tmp_path)) == (3, ["bad.rdb"])
    assert run(source, "--no-checksum").stdout == exported(undamaged())


BIG = rdb(b"\xfe\0", *(key(b"key%d" % n, 0, string(b"value" * 100)) for n in range(20_000)))
FIELDS = b"".join(string(b"field%d" % n) + string(b"v" * 40) for n in range(200_000))
BIG_HASH = rdb(b"\xfe\0", key(b"h", 4, length(200_000) + FIELDS))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("data", [BIG, BIG_HASH], ids=["many keys", "one hash"])
def test_a_closed_pipe_ends_silently(tmp_path: Path, form: str, data: bytes) -> None:
    source = tmp_path / "big.rdb"
    source.write_bytes(data)
    command = [sys.executable, "-m", "rdbkit", "export", str(source), "--format", form]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(30) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("form", FORMS)
def test_a_full_disk_is_one_line_and_exit_3(tmp_path: Path, form: str) -> None:
    source = tmp_path / "big.rdb"
    source.write_bytes(BIG)
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "rdbkit", "export", str(source), "--format", form]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=600)
    assert result.returncode == 3
    assert result.stderr.endswith(b"No space left on device\n")
    assert result.stderr.count(b"\n") == 1
    result = run(source, "--format", form, "-o", "/dev/full")
    assert result.returncode == 3
    assert result.stderr.count(b"\n") == 1
    assert b"No space left on device" in result.stderr


@pytest.mark.one_in(3)
@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("data", [BIG, BIG_HASH], ids=["many keys", "one hash"])
@pytest.mark.parametrize("name", ["out", "out.gz"])
def test_a_write_that_fails_leaves_no_file(tmp_path: Path, form: str, data: bytes, name: str) -> None:
    """No file may be larger than 20 kB, and it is the operating system that says so."""
    import resource

    source, folder = tmp_path / "big.rdb", tmp_path / "out"
    source.write_bytes(data)
    folder.mkdir()
    small = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))  # noqa: E731
    command = [sys.executable, "-m", "rdbkit", "export", str(source), "--format", form, "-o", str(folder / name)]
    result = subprocess.run(command, capture_output=True, preexec_fn=small)
    assert result.returncode == 3
    assert result.stderr.count(b"\n") == 1
    assert b"File too large" in result.stderr
    assert names(folder) == []


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("data", [BIG, BIG_HASH], ids=["many keys", "one hash"])
def test_an_interrupt_leaves_nothing(tmp_path: Path, form: str, data: bytes) -> None:
    """It comes while the process waits for the rest of its input, of which it has read enough to have begun."""
    out, temporary = tmp_path / "out", tmp_path / "temporary"
    out.mkdir()
    temporary.mkdir()
    command = [sys.executable, "-m", "rdbkit", "export", "-", "--format", form, "-o", str(out / "file")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(heeding_signals(command), **pipes, env=os.environ | {"TMPDIR": str(temporary)}) as process:
        assert process.stdin is not None
        process.stdin.write(data[:-1000])
        process.stdin.flush()
        until(lambda: names(out), process)
        assert names(out) != ["file"]
        process.send_signal(signal.SIGINT)
        process.wait(GUARD)
        assert process.stderr is not None
        assert process.stderr.read().strip() == b""
        assert process.returncode == 130
    assert names(out) == []
    assert names(temporary) == []


# -- memory

MEMORY = """
import sys, rdbkit
from rdbkit.operations.export import export_jsonl, export_resp
sys.path.insert(0, sys.argv[1])
from bench.bigfiles import many_strings, one_hash

class Records:
    '''A file that is made while it is read.'''
    def __init__(self, pieces):
        self.pieces, self.begun = pieces, False
    def read(self, n):
        data = [] if self.begun else [b"REDIS0009\\xfe\\0"]
        self.begun = True
        size = 0
        for piece in self.pieces:
            data.append(piece)
            size += len(piece)
            if size >= n:
                return b"".join(data)
        self.pieces = iter([])
        if self.begun != "ended":
            self.begun = "ended"
            data.append(b"\\xff" + bytes(8))
        return b"".join(data)

pieces = one_hash(int(sys.argv[4])) if sys.argv[3] == "hash" else many_strings(int(sys.argv[4]))
source = Records(pieces)
source.left = b""
read = source.read
def exact(n):
    data = source.left or read(n)
    source.left = data[n:]
    return data[:n]
source.read = exact
with rdbkit.open(source) as snapshot, open("/dev/null", "wb") as out:
    print({"jsonl": export_jsonl, "resp": export_resp}[sys.argv[2]](snapshot, out).written)
# VmHWM begins with this program; ru_maxrss would count the process that started it
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
#: How many fields of a hash, how many bytes of strings; RDBKIT_BIG=1 takes those that the benchmark measures.
SCALE = 10 if os.environ.get("RDBKIT_BIG") else 1
AMOUNTS = {"hash": 1_000_000 * SCALE, "strings": 200_000_000 * SCALE}


@pytest.mark.one_in(2)
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize(("form", "what"), one_in(3, product(FORMS, AMOUNTS)))  # a hash as JSON, strings as commands
def test_memory_is_bounded(form: str, what: str) -> None:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-c", MEMORY, str(root), form, what, str(AMOUNTS[what])]
    result = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    written, peak = map(int, result.stdout.split())
    assert written == (1 if what == "hash" else AMOUNTS[what] // 1_019)
    print(f"{form} of {what}, {AMOUNTS[what]:,}: {peak / 1024:.0f} MiB")
    assert peak < 100_000  # KiB

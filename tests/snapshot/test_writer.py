"""What `rdbkit.create` writes is read back as it was."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rdbkit
from rdbkit.format.encode import integer_form
from rdbkit.format.listpack import encode_listpack, read_listpack
from rdbkit.format.sink import Items

from ..rdb import FIXTURES, each_dump

VERSIONS = [("redis", 2), ("redis", 6), ("redis", 9), ("redis", 10), ("redis", 11), ("redis", 12), ("redis", 14), ("valkey", 80)]


def records(data: bytes | Path) -> list[rdbkit.Record]:
    with rdbkit.open(data if isinstance(data, Path) else io.BytesIO(data)) as snapshot:
        found = list(snapshot)
    assert snapshot.checksum is not None
    assert snapshot.checksum.state in ("ok", "absent", "disabled")
    return found


def about(record: rdbkit.Record) -> tuple[Any, ...]:
    return record.db, record.key, record.type, record.expire_ms, record.idle_s, record.freq


@pytest.mark.parametrize("path", each_dump("rich"))
def test_records_are_copied_as_they_stand(path: Path) -> None:
    out = io.BytesIO()
    before = records(path)
    with rdbkit.open(path) as snapshot:
        flavour, version = snapshot.header
        with rdbkit.create(out, version=version, flavour=flavour) as writer:
            for record in snapshot:
                writer.write(record)
    after = records(out.getvalue())
    assert writer.written == len(after) == len(before)
    assert [(about(r), r.encoding, r.raw) for r in after] == [(about(r), r.encoding, r.raw) for r in before]


@pytest.mark.parametrize(("flavour", "version"), VERSIONS)
@pytest.mark.parametrize("path", each_dump("rich"))
def test_values_are_read_back(path: Path, flavour: str, version: int) -> None:
    out = io.BytesIO()
    put: list[rdbkit.Record] = []
    with rdbkit.create(out, version=version, flavour=flavour) as writer:
        for record in records(path):
            try:
                writer.put(record.key, record.value, db=record.db, expire_ms=record.expire_ms)
            except rdbkit.LossError:
                assert holds_not(record, flavour, version), record
            else:
                put.append(record)
    after = records(out.getvalue())
    assert [(r.db, r.key, r.type) for r in after] == [(r.db, r.key, r.type) for r in put]
    for one, other in zip(after, put, strict=True):
        wanted = other.expire_ms
        if wanted is not None and version < 3:
            wanted = wanted // 1000 * 1000
        assert one.expire_ms == wanted
        assert same(one.value, other.value, version)


def holds_not(record: rdbkit.Record, flavour: str, version: int) -> bool:
    """Whether a version does not support a record."""
    value = record.value
    redis = version if flavour == "redis" else 11  # Valkey left where Redis was then
    if version < 3 and record.expire_ms is not None and record.expire_ms >= 1000 << 31:
        return True
    match record.type:
        case "stream":
            given_back = any(group.nacked for group in value.groups)
            dedup = value.dedup is not None and bool(value.dedup.producers)
            return version < 9 or (given_back and redis < 14) or (dedup and redis < 13)
        case "hash":
            return bool(value.field_expire_ms) and flavour == "redis" and version < 12
        case "module":
            return version < 8
        case "array":
            return redis < 14
        case "cron":
            return flavour == "valkey" or version > 9
        case _:
            return False


def same(one: Any, other: Any, version: int) -> bool:
    if not isinstance(other, rdbkit.Stream):
        return type(one) is type(other) and bool(one == other) and vars_of(one) == vars_of(other)
    # what the version does not support is counted again by those who load it
    return (one.entries, one.last_id, one.length) == (other.entries, other.last_id, other.length) and [
        (g.name, g.last_id, g.pending, [c.name for c in g.consumers], g.nacked) for g in one.groups
    ] == [(g.name, g.last_id, g.pending, [c.name for c in g.consumers], g.nacked) for g in other.groups]


def vars_of(value: Any) -> Any:
    return vars(value) if hasattr(value, "__dict__") else None


TEXT = st.one_of(st.binary(max_size=40), st.integers(-(1 << 64), 1 << 64).map(lambda n: b"%d" % n))
IDS = st.builds(rdbkit.StreamId, st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1))


def stream(ids: list[rdbkit.StreamId], fields: list[list[tuple[bytes, bytes]]]) -> rdbkit.Stream:
    entries = [rdbkit.StreamEntry(i, fields[n % len(fields)]) for n, i in enumerate(sorted(set(ids)))]
    last = entries[-1].id if entries else rdbkit.StreamId(0, 0)
    first = entries[0].id if entries else rdbkit.StreamId(0, 0)
    return rdbkit.Stream(entries, len(entries), last, first, rdbkit.StreamId(0, 0), len(entries))


VALUES = st.one_of(
    TEXT,
    st.lists(TEXT, max_size=50),
    st.sets(TEXT, max_size=50),
    st.dictionaries(TEXT, TEXT, max_size=50),
    st.dictionaries(TEXT, st.floats(allow_nan=False), min_size=1, max_size=50),
    st.builds(
        stream,
        st.lists(IDS, max_size=300),
        st.lists(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=4), min_size=1, max_size=3),
    ),
)


@given(VALUES, TEXT, st.sampled_from([("redis", 9), ("redis", 11), ("redis", 14), ("valkey", 80)]))
def test_any_value_is_read_back(value: Any, key: bytes, header: tuple[str, int]) -> None:
    out = io.BytesIO()
    with rdbkit.create(out, flavour=header[0], version=header[1]) as writer:
        writer.put(key, value)
    (record,) = records(out.getvalue())
    assert record.key == key
    if isinstance(value, rdbkit.Stream):
        assert (record.value.entries, record.value.last_id) == (value.entries, value.last_id)
    else:
        assert record.value == value


@given(st.lists(st.one_of(TEXT, st.binary(min_size=4000, max_size=20000), st.integers(-(1 << 63), (1 << 63) - 1)), max_size=30))
def test_a_listpack_holds_what_went_in(entries: list[bytes | int]) -> None:
    items = Items()
    data = encode_listpack(entries)
    assert read_listpack(data, 0, len(data), items) == len(entries)
    assert items.items == [entry if isinstance(entry, bytes) else b"%d" % entry for entry in entries]


def test_integers_take_the_shortest_form_and_other_text_stays() -> None:
    forms = {0: b"\xc0\0", 127: b"\xc0\x7f", 128: b"\xc1\x80\0", -128: b"\xc0\x80", -129: b"\xc1\x7f\xff"}
    assert {n: integer_form(b"%d" % n) for n in forms} == forms
    assert integer_form(b"%d" % (2**31 - 1)) == b"\xc2\xff\xff\xff\x7f"
    for text in (b"", b"-", b"-0", b"00", b"+1", b" 1", b"1.0", b"2147483648", b"\xb2"):
        assert integer_form(text) is None


def test_databases_have_their_counts() -> None:
    out = io.BytesIO()
    with rdbkit.create(out, version=9) as writer:
        writer.aux("ctime", 1_700_000_000)
        for i in range(70):
            writer.put(b"k%d" % i, b"v", expire_ms=4_102_444_800_000 if i % 7 == 0 else None)
        writer.put(b"other", b"v", db=5)
    with rdbkit.open(io.BytesIO(out.getvalue())) as snapshot:
        sizes = [event for event in snapshot.events() if isinstance(event, rdbkit.ResizeDb)]
    assert [(s.keys, s.expires) for s in sizes] == [(70, 10), (1, 0)]
    assert snapshot.aux == {"ctime": "1700000000"}
    assert snapshot.checksum is not None
    assert snapshot.checksum.state == "ok"


class Pipe:
    """Something that can only be written to."""

    def __init__(self) -> None:
        self.data = b""

    def write(self, data: bytes) -> int:
        self.data += data
        return len(data)


def test_a_pipe_gets_the_same_keys_without_counts() -> None:
    pipe: Any = Pipe()
    with rdbkit.create(pipe, version=9) as writer:
        writer.put(b"k", b"v", db=2)
    assert [(r.db, r.key, r.value) for r in records(pipe.data)] == [(2, b"k", b"v")]
    with rdbkit.open(io.BytesIO(pipe.data)) as snapshot:
        assert not [event for event in snapshot.events() if isinstance(event, rdbkit.ResizeDb)]


@pytest.mark.parametrize("name", ["out.rdb", "out.rdb.gz"])
def test_a_file_appears_when_it_is_whole(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with rdbkit.create(path, version=11) as writer:
        writer.put(b"k", {b"f": b"v"})
        assert os.listdir(tmp_path) != [name]
    assert os.listdir(tmp_path) == [name]
    assert [(r.key, r.value) for r in records(path)] == [(b"k", {b"f": b"v"})]
    with pytest.raises(FileExistsError), rdbkit.create(path, version=11):
        pass
    with pytest.raises(KeyboardInterrupt), rdbkit.create(path, version=11, force=True) as writer:  # noqa: PT012
        writer.put(b"k", b"other")
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == [name]
    assert len(records(path)) == 1


def test_what_a_version_does_not_know_is_refused_and_leaves_the_file_whole() -> None:
    out = io.BytesIO()
    with rdbkit.open(FIXTURES / "rich" / "redis-7.0.15.rdb") as snapshot, rdbkit.create(out, version=9) as writer:
        refused = 0
        for record in snapshot:
            try:
                writer.write(record)
            except rdbkit.LossError as e:
                refused += e.key == record.key
        for library in snapshot.functions:
            with pytest.raises(rdbkit.LossError):
                writer.function(library.source)
    assert refused > 3
    assert len(records(out.getvalue())) == writer.written > 10


def test_a_record_that_breaks_off_breaks_the_file() -> None:
    with rdbkit.open(FIXTURES / "rich" / "redis-7.0.15.rdb", block_size=64) as snapshot:
        record = next(r for r in snapshot if r.size is None)
        next(record.chunks())  # a second time is an error, and by then its head is written
        with pytest.raises(ValueError, match="cannot be ended"), rdbkit.create(io.BytesIO(), version=10) as writer:  # noqa: PT012
            with pytest.raises(ValueError, match="only once"):
                writer.write(record)
            with pytest.raises(ValueError, match="nothing can follow"):
                writer.put(b"k", b"v")


@pytest.mark.parametrize("value", [1, "text", [1], {"a": b"b"}, {b"a": "b"}, None, float("nan"), {b"m": float("nan")}])
def test_what_is_no_value_is_refused(value: Any) -> None:
    with rdbkit.create(io.BytesIO(), version=9) as writer:
        with pytest.raises((TypeError, ValueError)):
            writer.put(b"k", value)
        assert writer.written == 0


def test_versions_that_there_are_not_are_refused() -> None:
    for flavour, version in (("redis", 0), ("redis", 16), ("valkey", 11), ("other", 9)):
        with pytest.raises(ValueError, match="there is no"):
            rdbkit.create(io.BytesIO(), version=version, flavour=flavour)

"""The records that a filter wants: the same as where every record is made and asked about, in sound files and damaged ones."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rdbkit
from rdbkit.format.constants import MEMBER_EXPIRY
from rdbkit.format.lzf import lzf_compress
from rdbkit.format.record import Record
from rdbkit.model import Event
from rdbkit.operations.get import find_key, get

from ..rdb import CRC, aux, dumps_at_once, key, length, rdb, string

WHOLE = 1 << 20
EXPIRY = 4_102_444_800_000
SELECTIONS: list[dict[str, Any]] = [
    {"keys": b"nosuch"}, {"keys": [b"str", b"k", b"", b"plain"]}, {"keys": [b"*a*", b"str"]}, {"not_keys": b"s*"},
    {"regexes": rb"\d"}, {"prefixes": b"h"}, {"types": ["hash", "module"]}, {"types": "string"}, {"dbs": range(1, 1000)},
    {"size": (20, 60)}, {"size": (400, None)}, {"expiry": "no-ttl"}, {"expires": (EXPIRY - 1, EXPIRY + 1)}, {"slots": range(9000)},
    {"sample": (1, 3)}, {"types": "set", "dbs": 0},
]  # fmt: skip


def by_asking(snapshot: rdbkit.Snapshot, selection: rdbkit.Selection) -> Iterator[Event | Record]:
    """The rule: all records are made, and each is asked about; what belongs to one that is left out is left out, too."""
    of_next: list[Event | Record] = []
    left_out = False
    for item in snapshot.events():
        if isinstance(item, rdbkit.KeyMetadata):
            of_next.append(item)
        elif isinstance(item, Record):
            left_out = not selection(item)
            if not left_out:
                yield from of_next
                yield item
            of_next = []
        elif not (left_out and isinstance(item, rdbkit.Aux) and item.key.startswith(MEMBER_EXPIRY)):
            yield from of_next  # it stood in front of the end, and of no key
            of_next = []
            yield item


def by_sifting(snapshot: rdbkit.Snapshot, selection: rdbkit.Selection) -> Iterator[Event | Record]:
    for batch in snapshot.sift(selection.filter_for(snapshot.types, snapshot.limits.item_bytes), events=True):
        yield from batch


def told(snapshot: rdbkit.Snapshot, items: Iterable[Event | Record]) -> tuple[list[Any], str]:
    """What comes, all that can be said of it included, and how it ends."""
    seen: list[Any] = []
    error = ""
    records = []
    try:
        for item in items:
            if isinstance(item, Record):
                facts = item.db, item.key, item.type, item.encoding, item.offset, item.size, item.expire_ms, item.idle_s, item.freq
                seen.append([*facts, b"".join(item.chunks())])
                records.append((item, len(seen) - 1))
            else:
                seen.append(repr(item))
    except rdbkit.RdbError as e:
        error = f"{type(e).__name__} {e} {e.source} {e.db} {e.offset} {e.key!r}"
        while seen and str(seen[-1]).startswith("KeyMetadata"):
            seen.pop()  # of the record that cannot be read
    for record, at in records:
        seen[at].append(record.member_expire_ms)
    return seen, error


def assert_sifted(data: bytes, options: dict[str, Any], block_size: int) -> None:
    selection = rdbkit.Selection(**options)
    found = []
    for items in (by_asking, by_sifting):
        with rdbkit.open(io.BytesIO(data), block_size=block_size) as snapshot:
            found.append(told(snapshot, items(snapshot, selection)))
    assert found[1] == found[0]


@pytest.mark.parametrize("paths", dumps_at_once())
def test_what_is_sifted_is_what_asking_gives(paths: list[Path]) -> None:
    for number, path in enumerate(paths):
        data = path.read_bytes()
        broken = data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 0x55]) + data[len(data) // 2 + 1 :]
        for options in SELECTIONS[number % 3 :: 3]:
            for each in (data, broken, data[: len(data) * 2 // 3]):
                for block_size in (300, WHOLE):
                    assert_sifted(each, options, block_size)


def compressed(name: bytes, broken: bool = False) -> bytes:
    packed = b"\x00a" + b"\xe0\xff\x00" if broken else lzf_compress(name) or b"\0"
    return b"\xc3" + length(len(packed)) + length(len(name)) + packed


NAMES = [
    *map(string, (b"k", b"a", b"", b"str", b"plain", b"ab" * 50, b"n" * 300)), b"\xc0\x07",
    compressed(b"a" * 40), compressed(b"hs" * 90), compressed(b"x" * 30, broken=True),
]  # fmt: skip
VALUES = [
    (0, string(b"v")), (0, b"\xc0\x07"), (0, string(b"v" * 400)), (2, length(1) + string(b"m")),
    (2, length(2) + string(b"m") + string(b"n" * 30)),
]  # fmt: skip
METADATA = b"\xf3\x01" + b"\x01\x02\x03\x04" + b"\x02\x05\0"
BEFORE = [
    b"\xfc" + EXPIRY.to_bytes(8, "little"),
    b"\xf8\x05",
    b"\xf9\x06",
    b"\xfe\1",
    b"\xfe\0",
    aux(b"mvcc-tstamp", b"7"),
    METADATA,
]
PAIR = aux(b"keydb-subexpire-key", b"m") + aux(b"keydb-subexpire-when", b"9")
BEHIND = [b"", b"", b"", PAIR, aux(b"lua", b"return 1"), b"\xfe\1", b"\xfb\1\1"]
RECORDS = st.tuples(
    st.lists(st.sampled_from(BEFORE), max_size=3), st.sampled_from(VALUES), st.sampled_from(NAMES), st.sampled_from(BEHIND)
)


@given(
    records=st.lists(RECORDS, max_size=8),
    version=st.sampled_from([9, 14]),
    options=st.sampled_from(SELECTIONS),
    block_size=st.sampled_from([16, 100, WHOLE]),
)
def test_odd_records_are_sifted_as_well(
    records: list[tuple[list[bytes], tuple[int, bytes], bytes, bytes]], version: int, options: dict[str, Any], block_size: int
) -> None:
    parts = []
    for before, (type_code, value), name, behind in records:
        # of these, KeyDB alone writes pairs, and Redis alone metadata
        before = [each for each in before if each != METADATA or version == 14]
        behind = behind if behind != PAIR or version == 9 else b""
        parts.append(b"".join(before) + bytes([type_code]) + name + value + behind)
    assert_sifted(rdb(b"\xfe\0", *parts, magic=b"REDIS%04d" % version), options, block_size)


# -- one key


def first_of(snapshot: rdbkit.Snapshot, name: bytes, db: int | None) -> Record | None:
    return next((record for record in snapshot if record.key == name and (db is None or record.db == db)), None)


def one_key(data: bytes, name: bytes, db: int | None, block_size: int, by_rule: bool) -> Any:
    try:
        with rdbkit.open(io.BytesIO(data), block_size=block_size) as snapshot:
            record = (first_of if by_rule else find_key)(snapshot, name, db)
            return None if record is None else (record.db, record.offset, record.type, b"".join(record.chunks()), record.size)
    except rdbkit.RdbError as e:
        return f"{type(e).__name__} {e}"


@pytest.mark.parametrize("paths", dumps_at_once())
def test_a_key_is_found_where_all_records_would_show_it(paths: list[Path]) -> None:
    for path in paths:
        data = path.read_bytes()
        with rdbkit.open(path) as snapshot:
            records = [(record.key, record.db) for record in snapshot]
        for name, db in [*records[:: len(records) // 3 + 1], *records[-1:], (b"nosuch", 0)]:
            for each in (data, data[: len(data) // 2]):
                for place, block_size in ((None, WHOLE), (db, 200), (db + 1, WHOLE)):
                    wanted = one_key(each, name, place, block_size, by_rule=True)
                    assert one_key(each, name, place, block_size, by_rule=False) == wanted


def test_of_keys_of_one_name_the_first_is_given() -> None:
    names = [b"k", b"n" * 100, b"n" * 300, b"*", b""]
    parts = [b"".join(key(name, 0, string(b"%d in %d" % (n, db))) for n in range(2) for name in names) for db in (0, 3)]
    data = rdb(b"\xfe\0", parts[0], b"\xfe\3", parts[1])
    for name in names:
        assert get(io.BytesIO(data), name) == b"0 in 0"
        assert get(io.BytesIO(data), name, db=3) == b"0 in 3"
        with pytest.raises(KeyError):
            get(io.BytesIO(data), name, db=1)


def test_a_name_that_cannot_be_unpacked_ends_the_search_where_it_stands() -> None:
    bad = b"\0" + compressed(b"x" * 30, broken=True) + string(b"v")
    data = rdb(b"\xfe\0", key(b"before", 0, string(b"1")), bad, key(b"behind", 0, string(b"2")))
    assert get(io.BytesIO(data), b"before") == b"1"
    for name in (b"behind", b"nosuch"):
        with pytest.raises(rdbkit.CorruptError) as caught:
            get(io.BytesIO(data), name)
        assert (caught.value.reading, caught.value.db, caught.value.offset) == ("a key's name", 0, data.index(bad))


def test_events_between_keys_that_are_left_out_are_not_held() -> None:
    sizes = b"\xfb\1\1"
    body = b"REDIS0009\xfe\0" + (key(b"s", 2, length(1) + string(b"m")) + PAIR + sizes) * 3000 + b"\xff"
    with rdbkit.open(io.BytesIO(body + CRC.calc(body).to_bytes(8, "little")), block_size=500) as snapshot:
        sieve = rdbkit.Selection(keys=b"nosuch").filter_for(snapshot.types, 1000)
        batches = [[repr(item) for item in batch] for batch in snapshot.sift(sieve, events=True)]
    assert {item for batch in batches for item in batch} == {"SelectDb(0)", "ResizeDb(1, 1)"}
    assert max(map(len, batches)) < 50


@pytest.mark.parametrize("block_size", [16, WHOLE])
def test_what_follows_a_long_name_is_said_of_it(block_size: int) -> None:
    names = [b"a", b"n" * 100, b"b", b"n" * 300, b"c"]
    data = rdb(b"\xfe\0", *(key(name, 2, length(1) + string(b"m")) + PAIR for name in names))
    for number in range(len(names)):
        assert_sifted(data, {"keys": names[number]}, block_size)
        assert_sifted(data, {"keys": names[number:]}, block_size)
        assert_sifted(data, {"keys": [names[number], b"x*"]}, block_size)


def test_bytes_that_stand_among_attributes_count_to_a_records_size() -> None:
    expiry = b"\xfc" + EXPIRY.to_bytes(8, "little")
    data = rdb(
        b"\xfe\0", *(expiry + aux(b"ctime", b"1" * n) + key(name, 0, string(b"v")) for n in (1, 5) for name in (b"k", b"n" * 80))
    )
    for size in range(12, 120):
        assert_sifted(data, {"size": (size, size)}, WHOLE)
        assert_sifted(data, {"size": (size, None), "keys": b"k"}, WHOLE)
        assert_sifted(data, {"size": (None, size), "keys": b"n" * 80}, WHOLE)

"""Selection: every condition by itself, their combination, the globs against a naive matcher, the text forms, the options."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import pickle
import re
import time
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from hypothesis import example, given
from hypothesis import strategies as st

import rdbkit
from rdbkit.cli.files import Verb
from rdbkit.cli.options import selection_options
from rdbkit.format.lzf import lzf_compress
from rdbkit.format.slots import key_slot
from rdbkit.operations.export import export_jsonl, export_resp
from rdbkit.operations.info import info
from rdbkit.operations.keys import keys, write_text
from rdbkit.selection import Selection, parse_dbs, parse_expires, parse_sample, parse_size, parse_slots, parse_ttl
from rdbkit.targets.target import find_target

from .rdb import FIXTURES, key, length, rdb, string

NOW = 1_800_000_000_000
HOUR = 3_600_000


def wants(
    selection: Selection,
    name: bytes = b"k",
    *,
    db: int = 0,
    type_name: str = "string",
    size: int | None = 10,
    expire: int | None = None,
) -> bool:
    return selection.wants(db, name, type_name, size, expire)


# -- slots


@pytest.mark.parametrize(
    ("name", "slot"),
    # as CLUSTER KEYSLOT answers
    [
        (b"", 0), (b"foo", 12182), (b"123456789", 12739), (b"somekey", 11058), (b"foo{hash_tag}", 2515), (b"bar{hash_tag}", 2515),
        (b"{user1000}.following", 3443), (b"user1000", 3443),
    ],
)  # fmt: skip
def test_slots_are_those_of_the_server(name: bytes, slot: int) -> None:
    assert key_slot(name) == slot


@pytest.mark.parametrize(
    ("name", "hashed"),
    [
        (b"foo{bar}{zap}", b"bar"), (b"foo{{bar}}zap", b"{bar"), (b"}a{b}c", b"b"), (b"{\x00}", b"\x00"),
        (b"a{b", None), (b"a}b{", None), (b"}{", None), (b"foo{}{bar}", None),
    ],
)  # fmt: skip
def test_hash_tags(name: bytes, hashed: bytes | None) -> None:
    if hashed is not None:
        assert key_slot(name) == key_slot(hashed)
    else:  # without a tag the bytes of the braces count, wherever they stand
        assert key_slot(name) == naive_crc16(name) % 16384


def naive_crc16(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ (0x1021 if crc & 0x8000 else 0)) & 0xFFFF
    return crc


# -- globs


def naive_glob(pattern: bytes, text: bytes) -> bool:
    """stringmatchlen_impl of Redis' src/util.c, for patterns whose classes are closed."""
    if not pattern:
        return not text
    if pattern[0] == ord("*"):
        return any(naive_glob(pattern[1:], text[i:]) for i in range(len(text) + 1))
    if not text:
        return False
    if pattern[0] == ord("?"):
        return naive_glob(pattern[1:], text[1:])
    if pattern[0] == ord("["):
        at, found = 1, False
        negated = pattern[at] == ord("^")
        at += negated
        while True:
            if pattern[at] == ord("\\") and at + 1 < len(pattern):
                at += 1
                found |= pattern[at] == text[0]
            elif pattern[at] == ord("]"):
                break
            elif len(pattern) - at >= 3 and pattern[at + 1] == ord("-"):
                low, high = sorted((pattern[at], pattern[at + 2]))
                found |= low <= text[0] <= high
                at += 2
            else:
                found |= pattern[at] == text[0]
            at += 1
        return found != negated and naive_glob(pattern[at + 1 :], text[1:])
    if pattern[0] == ord("\\") and len(pattern) > 1:
        pattern = pattern[1:]
    return pattern[0] == text[0] and naive_glob(pattern[1:], text[1:])


PATTERN_PARTS = [
    "*",
    "?",
    "a",
    "b",
    "ab",
    "\n",
    ".",
    "[ab]",
    "[^a]",
    "[b-a]",
    "[a-]",
    "[]",
    "[^]",
    "[\\]]",
    "[^^]",
    "[",
    "]",
    "^",
    "-",
    "\\",
]


@given(
    st.lists(st.sampled_from(PATTERN_PARTS), max_size=7).map("".join).map(str.encode),
    st.lists(st.text(alphabet="ab\n.[]^-\\*?c", max_size=7).map(str.encode), min_size=1, max_size=5),
)
@example(b"*a*b", [b"ab", b"aab", b"ba", b"a\nb"])
@example(b"a*a", [b"a", b"aa", b"aba"])
@example(b"[a-]]", [b"]", b"b", b"a]"])
@example(b"a\\", [b"a\\", b"a"])
@example(b"[\\", [b"\\"])
def test_globs_match_as_the_server_does(pattern: bytes, texts: list[bytes]) -> None:
    try:
        selection = Selection(keys=pattern)
    except ValueError:
        # only for want of a bracket: two close any class, since a dash or backslash at the end takes one
        Selection(keys=pattern + b"]]")
        return
    for text in texts:
        assert wants(selection, text) == naive_glob(pattern, text), text
        assert wants(Selection(not_keys=pattern), text) != naive_glob(pattern, text), text


@given(st.binary(max_size=8), st.binary(max_size=8))
def test_a_literal_glob_matches_its_text_alone(text: bytes, other: bytes) -> None:
    escaped = b"".join(b"\\" + bytes([c]) for c in text)
    assert wants(Selection(keys=escaped), text)
    assert wants(Selection(keys=escaped), other) == (text == other)


@pytest.mark.parametrize(
    "pattern", [b"*a" * 40 + b"*b", b"a*" * 2000 + b"b", b"*?" * 60 + b"b", b"*" * 100_000 + b"b", b"*[^b]" * 50 + b"c"]
)
def test_many_stars_take_no_more_time_than_few(pattern: bytes) -> None:
    selection = Selection(keys=[pattern, pattern])
    begin = time.process_time()
    assert not wants(selection, b"a" * 10_000)
    assert time.process_time() - begin < 60  # with time that doubles at each star it would take years


# -- the conditions


@pytest.mark.parametrize(
    ("options", "kept", "left"),
    [
        ({"keys": [b"user:*", b"x"]}, [b"user:1", b"user:", b"x"], [b"auser:1", b"xx", b""]),
        ({"keys": b"x"}, [b"x"], [b"y"]),
        ({"keys": b""}, [b""], [b"y"]),
        ({"not_keys": [b"user:*", b"x"]}, [b"y", b"xx"], [b"user:1", b"x"]),
        ({"regexes": [rb"\d$", rb"^a\nb"]}, [b"user1", b"a\nbc"], [b"1user", b" a\nb"]),
        ({"prefixes": [b"a*", b"b"]}, [b"a*c", b"b"], [b"ac", b"cb", b""]),
        ({"slots": [3443, range(0, 10)]}, [b"{user1000}x", b""], [b"foo"]),
        ({"slots": 12182}, [b"foo"], [b"user1000"]),
    ],
)
def test_conditions_on_the_key(options: dict[str, Any], kept: list[bytes], left: list[bytes]) -> None:
    selection = Selection(**options)
    assert [name for name in kept + left if wants(selection, name)] == kept
    assert selection
    assert not selection.is_everything


def test_conditions_on_type_database_and_size() -> None:
    assert [t for t in ("string", "list", "set", "hash") if wants(Selection(types=["list", "hash"]), type_name=t)] == [
        "list",
        "hash",
    ]
    assert wants(Selection(types="hash"), type_name="hash")
    assert [db for db in range(8) if wants(Selection(dbs=[0, range(3, 6)]), db=db)] == [0, 3, 4, 5]
    assert [db for db in range(3) if wants(Selection(dbs=0), db=db)] == [0]
    assert wants(Selection(dbs=range(0, 1 << 60)), db=1 << 59)  # never counted out
    assert [n for n in range(9) if wants(Selection(size=(3, 5)), size=n)] == [3, 4, 5]
    assert [n for n in range(9) if wants(Selection(size=(7, None)), size=n)] == [7, 8]
    assert [n for n in range(9) if wants(Selection(size=(None, 0)), size=n)] == [0]


def test_a_size_that_is_not_known_yet_is_left_for_later() -> None:
    selection = Selection(size=(3, 5), types="string")
    assert selection.needs_size
    assert wants(selection, size=None)
    assert not wants(selection, size=None, type_name="hash")
    assert [n for n in range(9) if selection.wants_size(n)] == [3, 4, 5]
    assert not Selection(types="string").needs_size


EXPIRIES = {"none": None, "long ago": 1, "just": NOW - 1, "now": NOW, "hour": NOW + HOUR, "later": NOW + HOUR + 1}


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({}, "none, long ago, just, now, hour, later"),
        ({"expiry": "expired"}, "long ago, just"),
        ({"expiry": "not-expired"}, "none, now, hour, later"),
        ({"expiry": "no-ttl"}, "none"),
        ({"ttl": (None, HOUR)}, "now, hour"),
        ({"ttl": (HOUR, None)}, "hour, later"),
        ({"ttl": (HOUR, HOUR)}, "hour"),
        ({"ttl": (None, None)}, "now, hour, later"),
        ({"expires": (None, NOW)}, "long ago, just, now"),
        ({"expires": (NOW, None)}, "now, hour, later"),
        ({"expires": (None, None)}, "long ago, just, now, hour, later"),
        ({"expires": (2, NOW + HOUR), "ttl": (1, None)}, "hour"),
        ({"expires": (2, None), "expiry": "expired"}, "just"),
        ({"expires": (2, None), "expiry": "not-expired"}, "now, hour, later"),
        ({"ttl": (0, None), "expiry": "expired"}, ""),
        ({"ttl": (0, None), "expiry": "no-ttl"}, ""),
    ],
)
def test_conditions_on_expiry(options: dict[str, Any], kept: str) -> None:
    selection = Selection(now_ms=NOW, **options)
    assert ", ".join(name for name, at in EXPIRIES.items() if wants(selection, expire=at)) == kept


def test_the_present_is_the_time_of_construction() -> None:
    now = time.time_ns() // 1_000_000
    assert wants(Selection(expiry="expired"), expire=now - 1)
    assert not wants(Selection(expiry="expired"), expire=now + HOUR)


def test_a_sample_is_repeatable_and_about_as_large_as_asked_for() -> None:
    names = [b"user:%d" % i for i in range(10_000)]
    one, two = ({n for n in names if wants(Selection(sample=s), n)} for s in ((1, 10), (2, 10)))
    assert 900 < len(one) < 1100
    assert 1850 < len(two) < 2150
    assert one < two
    # fixed for good: the same keys on every machine and in every release
    assert sorted(one)[:4] == [b"user:1008", b"user:1019", b"user:1025", b"user:1031"]
    assert all(wants(Selection(sample=(10, 10)), n) for n in names)


def test_without_conditions_everything_is_wanted() -> None:
    for selection in (Selection(), Selection() & Selection(), Selection(size=(None, None))):
        assert not selection
        assert selection.is_everything
        assert not selection.needs_size
        assert wants(selection, b"\xff", type_name="cron", size=None)


CONDITIONS: list[dict[str, Any]] = [
    {}, {"keys": b"a*"}, {"keys": b"*b"}, {"not_keys": b"ab"}, {"regexes": b"b"}, {"prefixes": b"a"}, {"types": ["set", "hash"]},
    {"types": "hash"}, {"dbs": range(0, 2)}, {"size": (3, None)}, {"size": (None, 3)}, {"ttl": (0, HOUR)},
    {"expiry": "not-expired"}, {"slots": range(0, 9000)}, {"sample": (1, 2)},
]  # fmt: skip


@given(
    st.lists(st.sampled_from(CONDITIONS), min_size=2, max_size=4),
    st.tuples(
        st.integers(0, 3), st.sampled_from([b"a", b"ab", b"b", b"cab"]), st.sampled_from(["set", "hash", "list"]),
        st.integers(0, 6), st.sampled_from(list(EXPIRIES.values())),
    ),
)  # fmt: skip
def test_and_wants_what_all_want(conditions: list[dict[str, Any]], facts: tuple[int, bytes, str, int, int | None]) -> None:
    parts = [Selection(**c, now_ms=NOW) for c in conditions]
    left, right = parts[0], parts[-1]
    for part in parts[1:]:
        left = left & part
    for part in reversed(parts[:-1]):
        right = part & right
    expected = all(part.wants(*facts) for part in parts)
    assert left.wants(*facts) is right.wants(*facts) is expected
    assert bool(left) == any(parts)
    assert pickle.loads(pickle.dumps(left)).wants(*facts) is expected
    assert left.size == right.size
    assert left.needs_size == any(part.needs_size for part in parts)
    assert left.wants_size(facts[3]) == all(part.wants_size(facts[3]) for part in parts)


def test_different_arguments_are_combined_with_and_and_nothing_is_changed() -> None:
    a, b = Selection(keys=b"a*", types="hash"), Selection(size=(1, 5))
    both = a & b
    assert not wants(a, b"ab", type_name="set")
    assert not wants(a, b"b", type_name="hash")
    assert wants(both, b"ab", type_name="hash", size=5)
    assert not wants(both, b"ab", type_name="hash", size=6)
    assert wants(a, b"ab", type_name="hash", size=6)
    assert (a.size, b.size, both.size) == ((None, None), (1, 5), (1, 5))
    assert repr(both) == "Selection(keys=(b'a*',), types=('hash',)) & Selection(size=(1, 5))"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"keys": b"a[bc"}, r"glob 'a[bc': the [ at byte 1 is not closed; \[ means the character itself"),
        ({"not_keys": [b"a", b"[\n"]}, r"glob '[\n'"),
        ({"regexes": b"(\n"}, r"regular expression '(\n': missing ), unterminated subpattern at byte 0"),
        ({"regexes": b"a{99999999999}"}, "regular expression"),
        ({"regexes": b"(?u)a"}, "regular expression"),
        ({"types": ["hash", "strng"]}, "no type is called 'strng'; there are array, "),
        ({"dbs": -1}, "databases are numbered from 0 on, not -1"),
        ({"dbs": range(3, 3)}, "an empty range"),
        ({"slots": [range(16380, 16385)]}, "slots are numbered 0 to 16383, not 16380-16384"),
        ({"slots": -1}, "not -1"),
        ({"size": (5, 4)}, "from 5 to 4 ends before it begins"),
        ({"ttl": (5, 4)}, "ends before"),
        ({"expires": (5, 4)}, "ends before"),
        ({"expiry": "never"}, "not 'never'"),
        ({"sample": (0, 4)}, "not 0 of 4"),
        ({"sample": (5, 4)}, "not 5 of 4"),
    ],
)
def test_what_cannot_be_a_condition_is_refused_in_one_line(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        Selection(**options)
    assert "\n" not in str(caught.value)


# -- records


def test_a_selection_filters_the_records_of_a_snapshot() -> None:
    path = FIXTURES / "rich" / "redis-7.0.15.rdb"
    with rdbkit.open(path) as snapshot:
        facts = [(r.db, r.key, r.type, r.size, r.expire_ms) for r in snapshot]
    for selection in (
        Selection(),
        Selection(keys=b"s_*", size=(None, 30)),
        Selection(types="hash") & Selection(not_keys=b"*lp*"),
        Selection(types="string") & Selection(prefixes=b"b"),
        Selection(dbs=3),
        Selection(expires=(None, None)),
    ):
        expected = [f[1] for f in facts if selection.wants(*f)]
        assert expected
        with rdbkit.open(path) as snapshot:
            assert [r.key for r in filter(selection, snapshot)] == expected


def test_a_record_larger_than_a_block_has_its_size_later(tmp_path: Path) -> None:
    path = tmp_path / "large.rdb"
    path.write_bytes(rdb(key(b"big", 0, string(b"x" * 5000)), key(b"small", 0, string(b"x"))))
    selection = Selection(size=(1, 100))
    with rdbkit.open(path, block_size=1000) as snapshot:
        kept = [(r, r.key) for r in filter(selection, snapshot)]
    assert [name for _, name in kept] == [b"big", b"small"]
    assert [name for r, name in kept if selection.wants_size(r.size or 0)] == [b"small"]


# -- every verb tests in the same way

LZF_NAME = b"user:" + b"0" * 40
FAR = (1 << 62) + 5
TARGET = find_target("redis-7.2")
#: With it every name is read before, to find those that would meet.
MOVED = rdbkit.Edits(rename_prefix=((b"", b"new:"),))
#: Database, key, type, size in the file and expiry of each record, as it was put there.
FACTS: list[tuple[int, bytes, str, int, int | None]] = []


def in_every_way() -> bytes:
    """Keys of several databases, in every form that a name can have, of types, sizes and expiries that differ."""
    names = [
        *((name, string(name)) for name in (b"", b"user:1", b"user:2", b"auser:1", b"{user1000}.a", b"{user1000}.b")),
        (b"\xff\x00\n*", string(b"\xff\x00\n*")),
        *((name, string(name)) for name in (b"user:" + b"long" * 30, b"x" * 63, b"y" * 64)),
        (b"123", b"\xc0\x7b"), (b"-30000", b"\xc1\xd0\x8a"), (LZF_NAME, b"\xc3" + string_of_lzf(LZF_NAME)),
    ]  # fmt: skip
    values = [
        ("string", 0, string(b"value")), ("string", 0, b"\xc0\x07"), ("list", 1, b"\x02" + string(b"a") + string(b"b")),
        ("set", 2, b"\x01" + string(b"m")), ("hash", 4, b"\x01" + string(b"f") + string(b"v")),
        ("zset", 3, b"\x01" + string(b"m") + b"\x011"),
        ("hash", 4, b"\x01" + string(b"f") + string(b"v" * 3000)), ("string", 0, string(b"w" * 4000)),
    ]  # fmt: skip
    expiries = [None, 1, NOW - 1, NOW, NOW + HOUR, FAR]
    parts = []
    FACTS.clear()
    for db in (0, 1, 3, 200):
        # the first ones without SELECTDB, which database 0 does not need
        parts.append(b"" if db == 0 else b"\xfe" + length(db))
        for number, (name, stored) in enumerate(names):
            for shift in range(3):
                type_name, type_code, value = values[(number + 3 * shift + db) % len(values)]
                at = expiries[(number + shift + db) % len(expiries)]
                called = name + b":%d" % shift if shift else name
                head = key(b"", type_code, b"", at)[:-1]
                body = head + (string(called) if shift else stored) + value
                FACTS.append((db, called, type_name, len(body), at))
                parts.append(body)
    return rdb(*parts)


def string_of_lzf(data: bytes) -> bytes:
    packed = lzf_compress(data)
    assert packed is not None
    return length(len(packed)) + length(len(data)) + packed


def is_wanted(options: dict[str, Any], fact: tuple[int, bytes, str, int, int | None]) -> bool:
    """Said again in the plainest way, for the options of `CHOICES`."""
    db, name, type_name, size, at = fact
    left = None if at is None else at - NOW
    tests: dict[str, Any] = {
        "keys": lambda given: any(naive_glob(pattern, name) for pattern in given),
        "not_keys": lambda given: not any(naive_glob(pattern, name) for pattern in given),
        "regexes": lambda given: any(re.search(pattern, name) for pattern in given),
        "prefixes": lambda given: any(name.startswith(prefix) for prefix in given),
        "types": lambda given: type_name in given,
        "dbs": lambda given: any(db in numbers for numbers in given),
        "size": lambda given: (given[0] or 0) <= size <= (given[1] or 1 << 70),
        "ttl": lambda given: left is not None and max(given[0] or 0, 0) <= left <= (given[1] or 1 << 70),
        "expires": lambda given: at is not None and (given[0] or -(1 << 70)) <= at <= (given[1] or 1 << 70),
        "expiry": lambda given: given == ("no-ttl" if left is None else "expired" if left < 0 else "") or (
            given == "not-expired" and (left is None or left >= 0)
        ),
        "slots": lambda given: any(key_slot(name) in numbers for numbers in given),
        "sample": lambda given: int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big") % given[1] < given[0],
    }  # fmt: skip
    return all(tests[condition](given) for condition, given in options.items())


CHOICES: list[dict[str, Any]] = [
    {"keys": [b"user:*"]}, {"keys": [b"*1", b"?"]}, {"keys": [b""]}, {"not_keys": [b"user:*"]},
    {"not_keys": [b"*0*", b""]},
    {"regexes": [rb"\d$", rb"^\xff"]}, {"prefixes": [b"user:", b"-"]}, {"prefixes": [b""]},
    {"types": ["hash", "set"]}, {"types": ["zset"]},
    {"dbs": [range(1, 2)]}, {"dbs": [range(0, 1), range(150, 1000)]}, {"size": (None, 30)},
    {"size": (100, None)}, {"size": (3000, 3050)},
    {"ttl": (0, HOUR)}, {"ttl": (None, None)}, {"expires": (None, NOW)}, {"expires": (NOW, FAR)}, {"expires": (None, None)},
    {"expiry": "expired"}, {"expiry": "not-expired"}, {"expiry": "no-ttl"}, {"slots": [range(3443, 3444), range(0, 4000)]},
    {"sample": (1, 3)}, {"sample": (5, 5)},
    {"keys": [b"user*"], "types": ["hash", "string"], "dbs": [range(0, 4)], "expiry": "not-expired", "size": (10, 4010)},
    {"prefixes": [b"user"], "keys": [b"*:1"], "not_keys": [b"user:1*"], "slots": [range(0, 16384)], "regexes": [b"."]},
]  # fmt: skip


@pytest.mark.one_in(5)
@pytest.mark.parametrize("options", CHOICES, ids=repr)
@pytest.mark.parametrize("joined", [False, True], ids=["one", "joined"])
def test_every_verb_chooses_the_same_keys(options: dict[str, Any], joined: bool, tmp_path: Path) -> None:
    path = tmp_path / "dump.rdb"
    path.write_bytes(in_every_way())
    if joined:  # each condition a clause of its own, behind one that holds always
        selection = Selection(dbs=range(0, 1 << 31), types="string") & Selection(now_ms=NOW)
        wanted = [fact for fact in FACTS if fact[2] == "string" and is_wanted(options, fact)]
        for name, given in options.items():
            selection &= Selection(**{name: given}, now_ms=NOW)
    else:
        selection = Selection(**options, now_ms=NOW)
        wanted = [fact for fact in FACTS if is_wanted(options, fact)]
    assert joined or 0 < len(wanted) <= len(FACTS)
    names = sorted((db, name) for db, name, *_ in wanted)
    assert len(set(names)) == len(names)

    def opened(block_size: int) -> rdbkit.Snapshot:
        return rdbkit.open(path, block_size=block_size)

    for block_size in (1000, 1 << 20):  # the longest records are larger than a block, or not
        with opened(block_size) as snapshot:
            report = info(snapshot, top=len(FACTS), selection=selection, now_ms=NOW)
        assert sorted((big.db, big.key) for big in report.biggest) == names
        assert report.keys == len(names)
        with opened(block_size) as snapshot:
            assert sorted((row.db, row.key) for row in keys(snapshot, selection=selection)) == names
        for as_json in (False, True):
            out = io.BytesIO()
            with opened(block_size) as snapshot:
                write_text(snapshot, out, as_json=as_json, selection=selection)
            assert out.getvalue().count(b"\n") == len(names) + (not as_json) + csv_breaks(names, as_json)
        out = io.BytesIO()
        with opened(block_size) as snapshot:
            export_jsonl(snapshot, out, selection=selection)
        lines = [json.loads(line) for line in out.getvalue().splitlines()]
        assert sorted((line["db"], json_key(line["key"])) for line in lines) == names
        with opened(block_size) as snapshot:
            written = export_resp(snapshot, io.BytesIO(), selection=selection).written
        assert written == len(names)
        with opened(block_size) as snapshot:
            assert sorted((r.db, r.key) for r in snapshot if selection(r) and selection.wants_size(len_of(r))) == names
        with opened(block_size) as snapshot:
            assert rdbkit.memory(snapshot, TARGET, selection=selection, now_ms=NOW, top=len(FACTS)).keys == len(names)
        with opened(block_size) as snapshot:
            assert sorted((row.db, row.key) for row in rdbkit.memory_rows(snapshot, TARGET, selection=selection)) == names
        for edits, prefix in ((rdbkit.Edits(), b""), (MOVED, b"new:")):
            copy = tmp_path / "copy.rdb"
            rdbkit.convert(path, copy, target="rdb-9", edits=edits, selection=selection, force=True, block_size=block_size)
            with rdbkit.open(copy) as snapshot:
                assert sorted((r.db, r.key) for r in snapshot) == [(db, prefix + name) for db, name in names]
        rdbkit.redact(path, tmp_path / "secret.rdb", secret=b"s", selection=selection, force=True, block_size=block_size)
        with rdbkit.open(tmp_path / "secret.rdb") as snapshot:
            assert [(r.db, r.type, r.expire_ms) for r in snapshot] == [(f[0], f[2], f[4]) for f in wanted]


def len_of(record: rdbkit.Record) -> int:
    """Its size, which one larger than a block has when it has been read."""
    for _ in record.chunks():
        pass
    assert record.size is not None
    return record.size


def json_key(text: Any) -> bytes:
    return base64.b64decode(text["base64"]) if isinstance(text, dict) else text.encode()


def csv_breaks(names: list[tuple[int, bytes]], as_json: bool) -> int:
    return 0 if as_json else sum(name.count(b"\n") for _, name in names if b"\xff" not in name)


# -- text forms

MB = 1 << 20
DAY = 24 * HOUR


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("1KB~10MB", (1024, 10 * MB)), ("~10mb", (None, 10 * MB)), ("1 kb ~", (1024, None)), ("500", (500, 500)),
        ("2GB", (2 << 30,) * 2), ("1.5KB~1TB", (1536, 1 << 40)), ("0~7b", (0, 7)), (" 1 ~ 2 ", (1, 2)), ("~", (None, None)),
    ],
)  # fmt: skip
def test_sizes(text: str, bounds: tuple[int | None, int | None]) -> None:
    assert parse_size(text) == bounds


@pytest.mark.parametrize("text", ["", "KB", "1XB~", "-1~2", "2~1", "1~2~3", "1KB-2KB", "1,5KB", "1e3", "\u0663", "9" * 5000])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no size|ends before"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("1h~7d", (HOUR, 7 * DAY)), ("~30m", (None, HOUR // 2)), ("2w~", (14 * DAY, None)), ("500ms~1.5S", (500, 1500)),
        ("~", (None, None)),
    ],
)  # fmt: skip
def test_durations(text: str, bounds: tuple[int | None, int | None]) -> None:
    assert parse_ttl(text) == bounds


@pytest.mark.parametrize("text", ["", "1h", "10~", "1h~1m", "1y~", "1h-2h", "~x", "-1h~"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no duration|is no range|ends before"):
        parse_ttl(text)


@pytest.mark.parametrize(
    ("text", "bounds"),
    [
        ("2026-01-01..2026-02-01", (1767225600000, 1769904000000)),
        ("..2026-01-01T00:00:00Z", (None, 1767225600000)),
        ("2026-01-01T01:00:00.5+01:00..", (1767225600500, None)),
        ("2026-01-01 00:00..1767225600001", (1767225600000, 1767225600001)),
        ("20260101..", (1767225600000, None)),
        ("1969-12-31T23:59:59.999..", (-1, None)),
        ("0001-01-01T00:00+14:00..9999-12-31T23:59:59-14:00", (-62135647200000, 253402351199000)),
        ("..", (None, None)),
    ],
)
def test_times(text: str, bounds: tuple[int | None, int | None]) -> None:
    assert parse_expires(text) == bounds


@pytest.mark.parametrize(
    "text",
    ["", "2026-01-01", "2026..", "2026-13-01..", "tomorrow..", "2026-02-01..2026-01-01", "1h..2h", "a\nb..", "9" * 30 + ".."],
)
def test_bad_times(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no time|is no range|ends before") as caught:
        parse_expires(text)
    assert "\n" not in str(caught.value)


def test_databases_slots_and_samples() -> None:
    assert parse_dbs("0,2-4") == (range(0, 1), range(2, 5))
    assert parse_dbs(" 7 - 7 ") == (range(7, 8),)
    assert parse_slots("0-5460") == (range(0, 5461),)
    assert parse_slots("5,16383") == (range(5, 6), range(16383, 16384))
    assert parse_sample("1/100") == (1, 100)
    assert parse_sample(" 3 / 3 ") == (3, 3)


@pytest.mark.parametrize("text", ["", ",", "1,", "a", "-1", "3-1", "1-2-3", "1..2", "9" * 30])
def test_bad_databases_and_slots(text: str) -> None:
    for parse in (parse_dbs, parse_slots):
        with pytest.raises(ValueError, match=r"is no (database|slot)|ends before"):
            parse(text)


def test_a_slot_beyond_the_last() -> None:
    with pytest.raises(ValueError, match="slots are numbered 0 to 16383"):
        parse_slots("0-16384")


@pytest.mark.parametrize("text", ["", "1", "1/0", "0/5", "6/5", "1/2/3", "1%", "-1/2", "a/b"])
def test_bad_samples(text: str) -> None:
    with pytest.raises(ValueError, match="is no sample"):
        parse_sample(text)


# -- the options


@click.command(cls=Verb)
@click.argument("key")
@click.option("--sort", "size", help="A verb's own option, of a name that the selection has too.")
@selection_options
def verb(key: str, size: str | None, selection: Selection) -> None:
    click.echo(f"{key} {size} {selection!r}")


def run(*args: str) -> Result:
    return CliRunner().invoke(verb, ["FILE", *args], terminal_width=80)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], "Selection()"),
        (["--key", "a*", "--key", "\\*é"], "Selection(keys=(b'a*', b'\\\\*\\xc3\\xa9'))"),
        (
            ["--key-regex", "a|b", "--prefix", "x", "--not-key", "y"],
            "Selection(regexes=(b'a|b',), prefixes=(b'x',), not_keys=(b'y',))",
        ),
        (["--type", "set,list", "--type", "hash"], "Selection(types=('set', 'list', 'hash'))"),
        (["--db", "0", "--db", "2-3"], "Selection(dbs=(range(0, 1), range(2, 4)))"),
        (["--size", "1KB~"], "Selection(size=(1024, None))"),
        (["--ttl", "~1s", "--expires", "..2026-01-01"], "Selection(ttl=(None, 1000), expires=(None, 1767225600000))"),
        (["--slot", "0-2,9", "--sample", "1/4"], "Selection(slots=(range(0, 3), range(9, 10)), sample=(1, 4))"),
        (["--expired"], "Selection(expiry='expired')"),
        (["--not-expired"], "Selection(expiry='not-expired')"),
        (["--no-ttl"], "Selection(expiry='no-ttl')"),
        (["--prefix", ""], "Selection(prefixes=(b'',))"),
    ],
)
def test_options_become_one_selection(args: list[str], expected: str) -> None:
    result = run("--sort", "s", *args)
    assert (result.exit_code, result.stdout) == (0, f"FILE s {expected}\n")


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--key", "[a"], "'--key': glob '[a'"),
        (["--key", "fine", "--not-key", "[a"], "'--not-key': glob '[a'"),
        (["--key-regex", "("], "'--key-regex': regular expression '('"),
        (["--type", "strng"], "'--type': no type is called 'strng'"),
        (["--type", "set,"], "'--type': no type is called ''"),
        (["--db", "x"], "'--db': 'x' is no database"),
        (["--size", "9kg"], "'--size': '9kg' is no size"),
        (["--size", ""], "'--size': '' is no size"),
        (["--ttl", "5"], "'--ttl': '5' is no range"),
        (["--expires", "soon.."], "'--expires': 'soon' is no time"),
        (["--slot", "16384"], "'--slot': '16384': slots are numbered"),
        (["--sample", "2/1"], "'--sample': '2/1' is no sample"),
        (["--expired", "--no-ttl"], "--expired and --no-ttl exclude each other"),
        (["--not-expired", "--no-ttl", "--expired"], "--expired and --not-expired and --no-ttl exclude each other"),
    ],
)
def test_a_bad_option_is_a_usage_error_that_names_it(args: list[str], says: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert says in result.stderr
    assert result.stdout == ""


def test_the_help_groups_the_options_in_80_columns() -> None:
    text = run("--help").stdout
    own, of_selection = text.split("Which keys (options combine with and, a repeated option with or):\n")
    assert "--sort" in own
    assert "--help" in own
    assert "--key" not in own
    lines = of_selection.splitlines()
    assert [line.split()[0] for line in lines] == [
        "--key", "--key-regex", "--prefix", "--not-key", "--type", "--db", "--size", "--ttl", "--expires",
        "--expired", "--not-expired", "--no-ttl", "--slot", "--sample",
    ]  # fmt: skip
    assert max(map(len, text.splitlines())) <= 80


def test_examples_in_docstrings_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    import doctest

    import rdbkit.format.slots
    import rdbkit.selection

    monkeypatch.chdir(FIXTURES.parent)
    results = [doctest.testmod(module) for module in (rdbkit.format.slots, rdbkit.selection)]
    assert [r.failed for r in results] == [0, 0]
    assert sum(r.attempted for r in results) >= 8  # compiled, a few are not found


@pytest.mark.parametrize("name", ["keys", "regexes", "prefixes", "not_keys"])
def test_names_are_bytes_or_text(name: str) -> None:
    options: list[dict[str, Any]] = [{name: "käs*"}, {name: ["käs*"]}, {name: "käs*".encode()}, {name: ["käs*".encode()]}]
    assert len({repr(Selection(**each)) for each in options}) == 1
    with rdbkit.open(FIXTURES / "rich/redis-7.0.15.rdb") as snapshot:
        assert sum(map(Selection(prefixes="s_"), snapshot)) == 5
    wrong: dict[str, Any] = {name: [3]}
    with pytest.raises(TypeError, match="is str or bytes, not int"):
        Selection(**wrong)

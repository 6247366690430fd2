"""Files of a cluster's nodes: which shards are missing, and which are there twice."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

import pytest

import rdbkit
from rdbkit.format.slots import SLOTS, key_slot
from rdbkit.operations.check import Check, check
from rdbkit.operations.plan import plan
from rdbkit.operations.shards import are_disjoint

from ..command_line import run_text
from ..rdb import aux, key, length, rdb, string

TARGET = "azure-managed"
THIRDS = (range(5461), range(5461, 10923), range(10923, 16384))
DB_0 = b"\xfe\0"


@cache
def names(n: int = 100_000) -> tuple[bytes, ...]:
    return tuple(b"user:%d" % i for i in range(n))


def of(slots: Iterable[int], n: int = 100_000) -> list[bytes]:
    """Names of keys in these slots."""
    wanted = frozenset(slots)
    return [name for name in names(n) if key_slot(name) in wanted]


def records(found: Iterable[bytes]) -> bytes:
    return b"".join(key(name, 0, string(b"v")) for name in found)


def a_shard(path: Path, slots: Iterable[int], n: int = 100_000) -> Path:
    path.write_bytes(rdb(DB_0, records(of(slots, n))))
    return path


@pytest.fixture(scope="module")
def thirds(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("cluster")
    return [a_shard(folder / f"node{i}.rdb", part) for i, part in enumerate(THIRDS, 1)]


def codes(report: Check) -> list[str]:
    return [finding.code for finding in report.findings]


def together(*files: Path) -> list[tuple[str, str, str]]:
    return [(f.code, f.severity, f.title) for f in rdbkit.check_shards(check(path, TARGET) for path in files)]


def test_a_shard_that_was_forgotten_is_named(thirds: list[Path]) -> None:
    assert together(*thirds) == []
    missing = "no key of slots {} in any file: whole shards may be missing"
    assert together(thirds[0], thirds[2]) == [("RDB308", "warning", missing.format("5461-10922"))]
    assert together(thirds[1], thirds[2]) == [("RDB308", "warning", missing.format("0-5460"))]


def test_one_shard_alone_says_what_it_is(thirds: list[Path]) -> None:
    report = check(thirds[1], TARGET)
    assert report.slots == [(5461, 10922)]
    (finding,) = report.findings
    said = "keys of slots 5461-10922 alone: this is one shard of a cluster; migrate all of them together"
    assert (finding.code, finding.severity, finding.title, finding.count) == ("RDB309", "note", said, 5462)
    assert report.verdict == "as-it-is"
    assert said in repr(report)
    assert together(thirds[1]) == [("RDB308", "warning", said)]


def test_a_whole_instance_and_a_small_file_say_nothing(tmp_path: Path) -> None:
    for n in (0, 1, 50, 1000, 10_000, 100_000):
        report = check(a_shard(tmp_path / "one.rdb", range(16384), n), TARGET)
        assert (report.slots, report.findings, rdbkit.check_shards([report])) == (None, [], [])
    report = check(a_shard(tmp_path / "small.rdb", THIRDS[0], 3000), TARGET)
    assert (report.slots, report.findings) == (None, [])


def test_keys_of_few_hash_tags_say_nothing(tmp_path: Path) -> None:
    for tags in (1, 7, 200, 2000):
        found = [b"{tenant:%d}:cart:%d" % (i % tags, i) for i in range(30_000)]
        (tmp_path / "tags.rdb").write_bytes(rdb(DB_0, records(found)))
        report = check(tmp_path / "tags.rdb", TARGET)
        assert (report.slots, report.findings) == (None, [])


def test_binary_numbers_that_count_up_say_nothing(tmp_path: Path) -> None:
    """A few thousand reach one slot after the other of just one half of them, which is no chance, and no shard."""
    for first, form in ((0, "<I"), (1_700_000_000, "<I"), (0, ">I")):
        for n in (5000, 7500, 8192, 12_000):
            found = [b"8" + struct.pack(form, number) + b"7f5c-2/:c_e4658b" for number in range(first, first + n)]
            (tmp_path / "binary.rdb").write_bytes(rdb(DB_0, records(found)))
            report = check(tmp_path / "binary.rdb", TARGET)
            assert (report.slots, report.findings, rdbkit.check_shards([report])) == (None, [], [])


def test_a_file_in_the_order_of_its_slots(tmp_path: Path) -> None:
    """As a conversion of a newer server's file has it, without a word about slots."""
    path = tmp_path / "sorted.rdb"
    path.write_bytes(rdb(DB_0, records(sorted(names(), key=key_slot))))
    assert check(path, TARGET).findings == []
    path.write_bytes(rdb(DB_0, records(sorted(of(THIRDS[0]), key=key_slot))))
    assert check(path, TARGET).slots == [(0, 5460)]


def slot_info(slot: int, keys: int) -> bytes:
    return b"\xf4" + length(slot) + length(keys) + b"\0"


def valkey_slot_info(slot: int, keys: int) -> bytes:
    return aux(b"slot-info", b"%d,%d,0" % (slot, keys))


@pytest.mark.parametrize(("word", "magic"), [(slot_info, b"REDIS0012"), (valkey_slot_info, b"REDIS0011")])
def test_slots_that_the_file_names_have_keys(word: Callable[[int, int], bytes], magic: bytes, tmp_path: Path) -> None:
    """No key is looked at then: here they are of other slots."""
    path = tmp_path / "named.rdb"
    path.write_bytes(rdb(DB_0, *(word(slot, 1) + key(b"k%d" % slot, 0, string(b"v")) for slot in range(5461)), magic=magic))
    assert check(path, TARGET).slots == [(0, 5460)]
    path.write_bytes(rdb(DB_0, *(word(slot, 1) + key(b"k%d" % slot, 0, string(b"v")) for slot in range(16384)), magic=magic))
    assert check(path, TARGET).slots is None


def test_keys_that_the_file_says_no_slot_of_are_looked_at(tmp_path: Path) -> None:
    """As two files have it that were put together."""
    path = tmp_path / "named.rdb"
    named = [slot_info(slot, 1) + key(b"k%d" % slot, 0, string(b"v")) for slot in THIRDS[0]]
    path.write_bytes(rdb(DB_0, *named, records(of(THIRDS[1])), magic=b"REDIS0012"))
    assert check(path, TARGET).slots == [(0, 10922)]


def test_what_no_server_writes_about_slots_is_passed_over(tmp_path: Path) -> None:
    strange = [
        aux(b"slot-info", value)
        for value in (b"", b"x,1", b"1", b"1,-1", b"1," + b"9" * 5000, b"70000,1", b"5,18446744073709551615")
    ]
    strange.append(slot_info(1 << 40, 1))
    path = tmp_path / "strange.rdb"
    path.write_bytes(rdb(DB_0, *strange, records([b"a"]), magic=b"REDIS0012"))
    assert check(path, TARGET).occupied == 1 << key_slot(b"a")


def test_large_values_and_keys_count(tmp_path: Path) -> None:
    path = tmp_path / "large.rdb"
    path.write_bytes(rdb(DB_0, key(b"big", 0, string(b"v" * 5_000_000)), key(b"n" * 100, 0, string(b"v"))))
    assert check(path, TARGET).occupied == 1 << key_slot(b"big") | 1 << key_slot(b"n" * 100)


def test_what_is_of_no_cluster_or_was_not_read_says_nothing(tmp_path: Path, thirds: list[Path]) -> None:
    path = tmp_path / "databases.rdb"
    path.write_bytes(rdb(DB_0, records(of(THIRDS[0])), b"\xfe\3", records([b"a"])))
    report = check(path, "redis-7.2")
    assert (report.occupied, report.slots) == (0, None)
    assert together(path, thirds[0]) == []
    path.write_bytes(thirds[0].read_bytes()[:-1000])
    report = check(path, TARGET)
    assert (report.verdict, report.slots) == ("cannot", None)
    assert together(path, thirds[2]) == []


def test_a_pipe_is_looked_at_too(thirds: list[Path]) -> None:
    class Pipe(io.RawIOBase):
        file = io.BytesIO(thirds[0].read_bytes())

        def read(self, n: int = -1) -> bytes:
            return self.file.read(n)

    assert check(Pipe(), TARGET).slots == [(0, 5460)]


def test_shards_that_are_there_twice_are_named(tmp_path: Path, thirds: list[Path]) -> None:
    replica = a_shard(tmp_path / "replica.rdb", range(5461))
    (found,) = together(*thirds, replica)
    assert found == ("RDB310", "note", f"slots 0-5460 in both {thirds[0]} and {replica}")
    later = a_shard(tmp_path / "later.rdb", range(5300, 10923))
    (found,) = together(thirds[0], later, thirds[2])
    assert found == ("RDB310", "note", f"slots 5300-5460 in both {thirds[0]} and {later}")
    many = [a_shard(tmp_path / f"{i}.rdb", range(5461), 60_000) for i in range(4)]
    assert together(*many, thirds[1], thirds[2])[0][2].endswith("; and 3 more pairs")


def test_a_file_of_all_slots_is_no_shard_twice(tmp_path: Path, thirds: list[Path]) -> None:
    whole = a_shard(tmp_path / "whole.rdb", range(16384))
    assert together(whole, thirds[0]) == []


def test_beside_a_file_that_may_be_any_shard_nothing_is_missing(tmp_path: Path, thirds: list[Path]) -> None:
    few = a_shard(tmp_path / "few.rdb", THIRDS[1], 100)
    assert together(thirds[0], few, thirds[2]) == []
    tags = tmp_path / "tags.rdb"
    tags.write_bytes(rdb(DB_0, records(b"{%b}%d" % (name, i) for name in of(THIRDS[1], 300) for i in range(300))))
    assert together(thirds[0], tags, thirds[2]) == []
    nothing = tmp_path / "nothing.rdb"
    nothing.write_bytes(rdb())
    assert [code for code, *_ in together(thirds[0], nothing, thirds[2])] == ["RDB308"]


def test_parts_by_slots_say_it_too(tmp_path: Path) -> None:
    whole = a_shard(tmp_path / "whole.rdb", range(16384))
    rdbkit.split([whole], tmp_path / "parts", rdbkit.Division(slots=rdbkit.parse_slot_parts("0-8191,8192-16383")))
    parts = sorted((tmp_path / "parts").glob("*.rdb"))
    assert [check(part, TARGET).slots for part in parts] == [[(0, 8191)], [(8192, 16383)]]
    assert together(*parts) == []


def test_a_plan_says_it_first(thirds: list[Path]) -> None:
    found = plan([thirds[0], thirds[2]], TARGET)
    said = "no key of slots 5461-10922 in any file: whole shards may be missing"
    assert found.shards == found.to_dict()["shards"] == [said]
    assert found.feasible
    assert plan(thirds, TARGET).shards == []
    shown = run_text("plan", thirds[0], thirds[2], "--target", TARGET).stdout
    assert 0 < shown.index("No key of slots 5461-10922") < shown.index("Smallest sizes")
    shown = run_text("plan", thirds[0], "--target", TARGET).stdout
    assert "Keys of slots 0-5460 alone: this is one shard of a cluster; migrate all of them together." in shown


def test_check_of_several_files(thirds: list[Path]) -> None:
    done = run_text("check", thirds[0], thirds[2], "--target", TARGET)
    assert done.returncode == 0, "each of them imports as it is"
    assert "RDB308  warning   no key of slots 5461-10922 in any file" in done.stdout
    assert "hash slots  0-5460" in done.stdout
    assert "RDB309" not in done.stdout
    done = run_text("check", *thirds, "--target", TARGET)
    assert "RDB3" not in done.stdout
    done = run_text("check", thirds[0], "--target", TARGET)
    assert "RDB309  note      keys of slots 0-5460 alone" in done.stdout


def test_check_of_several_files_as_json(thirds: list[Path]) -> None:
    found = json.loads(run_text("check", thirds[0], thirds[2], "--target", TARGET, "--json").stdout)
    assert [file["slots"] for file in found["files"]] == [[[0, 5460]], [[10923, 16383]]]
    assert [file["findings"] for file in found["files"]] == [[], []]
    assert [(f["code"], f["count"]) for f in found["findings"]] == [("RDB308", 5462)]
    found = json.loads(run_text("check", *thirds, "--target", TARGET, "--json").stdout)
    assert found["findings"] == []
    found = json.loads(run_text("check", thirds[0], "--target", TARGET, "--json").stdout)
    assert found.keys() == {"files"}
    assert [f["code"] for f in found["files"][0]["findings"]] == ["RDB309"]


def test_check_of_several_files_as_annotations(thirds: list[Path]) -> None:
    lines = run_text("check", thirds[0], thirds[2], "--target", TARGET, "--format", "github").stdout.splitlines()
    said = "no key of slots 5461-10922 in any file: whole shards may be missing; name the files of all shards"
    assert lines[-1] == f"::warning title=RDB308::{said}"


def test_names_of_files_are_shown_as_they_can_be(tmp_path: Path, thirds: list[Path]) -> None:
    replica = tmp_path / "repl\x1bica.rdb"
    replica.write_bytes(thirds[0].read_bytes())
    done = run_text("check", *thirds, replica, "--target", TARGET)
    assert "\x1b" not in done.stdout
    assert "in both" in done.stdout


def test_shards_that_have_no_slot_in_common_are_disjoint() -> None:
    slots = [sum(1 << slot for slot in range(first, last)) for first, last in ((0, 5461), (5461, 10923), (10923, SLOTS))]
    assert are_disjoint(slots)
    assert not are_disjoint([*slots, 1 << 5]), "a file of few keys is not known to be a shard"
    assert not are_disjoint([*slots[:2], slots[1]])
    assert not are_disjoint([(1 << SLOTS) - 1, 0])

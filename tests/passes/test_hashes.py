"""Which names came more than once, from what is kept of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdbkit.passes.hashes import NameLog
from rdbkit.passes.names import MOST_FILES, LoggedKeys, file_and_offset

MET = st.lists(st.tuples(st.integers(0, 2), st.binary(max_size=2), st.integers(0, 3)), max_size=60)


@given(MET, st.booleans(), st.booleans(), st.integers(1, 20))
def test_the_places_of_names_that_come_more_than_once(
    met: list[tuple[int, bytes, int]], ranked: bool, trusts_hash: bool, spilled: int
) -> None:
    log = NameLog(ranked)
    log.trusts_hash = trusts_hash
    expected: dict[tuple[int, bytes], list[tuple[int, int]]] = {}
    try:
        for place, (db, name, rank) in enumerate(met):
            log.add(db, name, place, rank)
            expected.setdefault((db, name), []).append((-rank if ranked else 0, place))
            if place % spilled == 0:
                log.partitions.spill()
        assert log.on_disk() % (32 if ranked else 24) == 0
        found = sorted(log.repeated())
    finally:
        log.close()
    assert found == sorted([place for _, place in sorted(places)] for places in expected.values() if len(places) > 1)


def test_no_two_logs_know_a_name_by_the_same_bits() -> None:
    """Also where the interpreter's hash has a key that is known: whoever makes a file cannot tell what its names become."""
    for trusts_hash in (True, False):
        kept = []
        for _ in range(2):
            log = NameLog()
            log.trusts_hash = trusts_hash
            log.add(0, b"name", 0)
            kept.append(b"".join(out.getvalue() for out in log.partitions.outs))
            log.close()
        assert kept[0][:16] != kept[1][:16]
        assert kept[0][16:] == kept[1][16:] == bytes(8)


def test_a_place_is_a_file_and_an_offset() -> None:
    log = NameLog(ranked=True)
    offset = (1 << 48) - 1
    first, last = LoggedKeys(100, log, 0), LoggedKeys(100, log, MOST_FILES - 1)
    first.add(b"k", offset, 5)
    last.add(b"k", offset, -1)  # it never expires, and so comes first
    last.add(b"l", 7, -5)
    first.add(b"l", 7, 0)
    assert sorted([file_and_offset(place) for place in places] for places in log.repeated()) == [
        [(0, 7), (MOST_FILES - 1, 7)],
        [(MOST_FILES - 1, offset), (0, offset)],
    ]
    log.close()
    with pytest.raises(ValueError, match="files are compared"):
        LoggedKeys(100, log, MOST_FILES)

"""The state of a copy: what a killed run leaves, what another one goes on from, and what it refuses."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from rdbkit.live.copy_state import CopyState, Lane, Part, Trouble, stable_hash

PLACES = {"source": "old:6379", "target": "new:6379/2"}


def opened(path: Path, **places: str) -> CopyState:
    return CopyState(str(path), {**PLACES, **places}, "options")


def test_a_lane_goes_on_at_its_cursor_for_the_same_process_alone(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as state:
        assert not state.is_resumed
        lane = state.lane("old:6379", 0, "run 1", "0-100")
        assert lane == Lane("old:6379", 0, "run 1", "0", "0-100")
        lane.cursor, lane.keys, lane.size = str((1 << 64) - 1), 1000, 5000
        state.keep(lane)
        lane.cursor = "7"  # what was kept is not changed by it
        state.keep(Lane("old:6379", 3, "run 1", "0", done=True, keys=5))
    with opened(tmp_path / "s") as state:
        assert state.is_resumed
        kept = Lane("old:6379", 0, "run 1", str((1 << 64) - 1), "0-100", False, 1000, 5000)
        assert state.lane("old:6379", 0, "run 1", "0-100") == kept
        assert state.lane("old:6379", 3, "run 1").done
        for process, slots in (("run 2", "0-100"), ("run 1", "0-99"), ("", "0-100")):
            again = state.lane("old:6379", 0, process, slots)
            assert (again.cursor, again.keys, again.done) == ("0", 0, False)
        assert state.lane("other:1", 0, "run 1") == Lane("other:1", 0, "run 1")
        assert len(state.lanes()) == 2


def test_a_process_whose_identity_is_hidden_begins_again(tmp_path: Path) -> None:
    with opened(tmp_path / "s") as state:
        state.keep(Lane("old:6379", 0, "", "99", keys=5))
        assert state.lane("old:6379", 0, "").cursor == "0"


@pytest.mark.parametrize(
    ("places", "options", "said"),
    [
        ({"source": "other:6379"}, "options", "its source is old:6379, not other:6379"),
        ({"target": "new:6379"}, "options", "its target is new:6379/2, not new:6379"),
        ({}, "more options", "other options are given"),
    ],
)
def test_a_state_of_something_else_is_refused(tmp_path: Path, places: dict[str, str], options: str, said: str) -> None:
    opened(tmp_path / "s").close()
    with pytest.raises(ValueError, match=f"cannot be continued: {said}; remove it to begin again"):
        CopyState(str(tmp_path / "s"), {**PLACES, **places}, options)
    opened(tmp_path / "s").close()  # which is as it was


def test_two_runs_do_not_share_a_state(tmp_path: Path) -> None:
    with opened(tmp_path / "s"), pytest.raises(ValueError, match="is in use by another run"):
        opened(tmp_path / "s")
    opened(tmp_path / "s").close()


def test_a_killed_run_leaves_what_was_written_and_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "s"
    code = f"""
import os, signal
from rdbkit.live.copy_state import CopyState, Lane
state = CopyState({str(path)!r}, {PLACES!r}, "options")
state.add_ours([1, 2])
state.keep(Lane("old:6379", 0, "run 1", "55", keys=2))
state.commit()
state.keep(Lane("old:6379", 0, "run 1", "77", keys=4))
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    with opened(path) as state:
        assert state.lane("old:6379", 0, "run 1").cursor == "55"
        assert state.ours([1, 2, 3]) == {1, 2}


def test_it_commits_each_two_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("rdbkit.live.copy_state.time.monotonic", lambda: clock[0])
    state = opened(tmp_path / "s")

    def kept() -> list[str]:
        return [row[0] for row in state._database.execute("SELECT cursor FROM lane")]

    state.keep(Lane("n", cursor="1"))
    clock[0] = 1.9
    state.keep(Lane("n", cursor="2"))
    assert kept() == []
    clock[0] = 2.1
    state.keep(Lane("n", cursor="3"))
    assert kept() == ["3"]
    state.close()


def test_it_is_readable_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.touch(0o644)
    umask = os.umask(0)
    try:
        with opened(path) as state:
            state.set_fact("x", [1])
            state.commit()
            for each in tmp_path.iterdir():
                assert stat.S_IMODE(each.stat().st_mode) == 0o600, each
    finally:
        os.umask(umask)


def test_whose_keys_are_whose_survives(tmp_path: Path) -> None:
    ours = [stable_hash(0, b"key:%d" % i) for i in range(3000)]
    theirs = [stable_hash(1, b"key:%d" % i) for i in range(10)]
    with opened(tmp_path / "s") as state:
        state.add_ours(ours[:1500])
        state.commit()
        state.add_ours(ours[1500:])
        state.add_foreign(theirs)
        assert state.ours(ours + theirs) == set(ours)
    with opened(tmp_path / "s") as state:
        assert state.ours(ours + theirs) == set(ours)
        assert state.foreign(ours + theirs) == set(theirs)
    state = opened(tmp_path / "s")
    state.add_ours(theirs[:1])
    state.remove_ours([*theirs[:1], *ours[:1000]])
    assert state.ours(ours + theirs) == set(ours[1000:])
    state._database.close()  # as a killed run leaves it
    with opened(tmp_path / "s") as state:
        assert state.ours(ours + theirs) == set(ours[1000:])


def test_hashes_are_the_same_in_every_process() -> None:
    code = "from rdbkit.live.copy_state import stable_hash; print(stable_hash(3, b'k'))"
    assert int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) == stable_hash(3, b"k")
    assert len({stable_hash(db, key) for db in range(4) for key in (b"", b"a", b"\0")}) == 12


def test_what_was_wrong_is_there_again(tmp_path: Path) -> None:
    key = bytes(range(256))
    with opened(tmp_path / "s") as state:
        state.add_trouble(Trouble(0, key, "refused", "ERR no"))
        state.add_trouble(Trouble(0, b"a", "exists", ""))
        state.add_trouble(Trouble(1, b"a", "exists", ""))
        state.add_trouble(Trouble(2, b"b", "changed", ""))
        state.settle(2, b"b")
        state.commit()
        state.settle(1, b"a")
        state.add_trouble(Trouble(0, key, "refused", "ERR still no"))
        state.set_fact("counts", {"written": 7})
    with opened(tmp_path / "s") as state:
        assert state.trouble_counts() == {"exists": 1, "refused": 1}
        assert state.trouble() == [Trouble(0, key, "refused", "ERR still no"), Trouble(0, b"a", "exists", "")]
        assert state.trouble(1, "exists") == [Trouble(0, b"a", "exists", "")]
        assert state.fact("counts") == {"written": 7}
        assert state.fact("other") is None


def test_a_part_is_known_before_it_is_made(tmp_path: Path) -> None:
    state = opened(tmp_path / "s")
    state.add_parts([Part(b"{x}part", 3, b"big")])
    state._database.close()  # as a killed run leaves it
    with opened(tmp_path / "s") as again:
        assert again.parts() == [Part(b"{x}part", 3, b"big")]
        again.remove_parts([b"{x}part"])
        assert again.parts() == []


@pytest.mark.parametrize("content", [b"no database at all, of any kind" * 20, b"{}", b"SQLite format 3\0" + bytes(200)])
def test_other_files_are_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "s"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="is no state of rdbkit copy"):
        opened(path)
    assert path.read_bytes() == content


def test_another_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    before = path.read_bytes()
    with pytest.raises(ValueError, match="is no state of rdbkit copy"):
        opened(path)
    assert path.read_bytes() == before


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    for name in (tmp_path / "no" / "s", tmp_path):
        with pytest.raises(OSError, match="directory") as e:
            opened(name)
        assert e.value.filename == str(name)
    for text in ("-", "state.gz"):
        with pytest.raises(ValueError, match="file of its own"):
            CopyState(text, PLACES)


def test_a_full_disk_is_told_in_a_line(tmp_path: Path) -> None:
    state = opened(tmp_path / "s")
    state._database.execute("PRAGMA max_page_count = 12")
    for i in range(1000):
        state.add_trouble(Trouble(0, bytes(1000) + b"%d" % i, "exists", ""))
    with pytest.raises(OSError, match="No space left on device") as e:
        state.commit()
    assert e.value.filename == str(tmp_path / "s")
    with pytest.raises(OSError, match="No space left on device"):
        state.close()


def test_at_the_end_nothing_is_left(tmp_path: Path) -> None:
    state = opened(tmp_path / "s")
    state.set_fact("x", 1)
    state.commit()
    state.remove()
    assert list(tmp_path.iterdir()) == []


def test_without_a_file_it_is_for_one_run() -> None:
    with CopyState(None, PLACES) as state:
        state.add_ours(range(1000))
        state.commit()
        assert state.ours([5, 5000]) == {5}
        state.remove()

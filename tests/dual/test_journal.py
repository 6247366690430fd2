"""The journal: a process that was killed leaves its marks to the next; nobody takes those of a process that lives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from rdbkit.dual import journal as module
from rdbkit.dual.journal import Journal
from rdbkit.dual.marks import Marks

from ..processes import heeding_signals

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no locks")

_KILLED = """
import os, signal, sys
from rdbkit.dual.marks import Marks
marks = Marks(journal=sys.argv[1])
for number in range(3):
    marks.add(number, b"key\\n%d" % number)
marks.add(0, b"")
os.kill(os.getpid(), signal.SIGKILL)
"""


def taken(marks: Marks) -> set[tuple[int, bytes]]:
    return {(db, key) for db, keys in marks.take(10_000) for key in keys}


def end(marks: Marks) -> None:
    """Let go of the files, as the end of a process does."""
    marks.journal = None


def files(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir() if each.stat().st_size)


def test_a_killed_process_leaves_its_marks_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "marks"
    done = subprocess.run(heeding_signals([sys.executable, "-c", _KILLED, str(path)]), check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(files(tmp_path)) == 1
    marks = Marks(journal=path)
    expected = {(0, b"key\n0"), (1, b"key\n1"), (2, b"key\n2"), (0, b"")}
    assert taken(marks) == expected
    assert not marks.is_short
    assert len(files(tmp_path)) == 1, "the other's files are gone, and this process's have what was in them"
    other = Marks(journal=path)
    assert taken(other) == set(), "they are marks of a process that lives"
    end(marks)
    assert taken(Marks(journal=path)) == expected


def test_files_are_gone_once_nothing_waits(tmp_path: Path) -> None:
    marks = Marks(journal=tmp_path / "marks")
    assert {os.stat(each).st_mode & 0o777 for each in tmp_path.iterdir()} == {0o600}
    marks.add(0, b"a")
    marks.close()
    assert len(files(tmp_path)) == 1
    marks.done(0, [key for _, keys in marks.take() for key in keys])
    marks.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", range(1, 16))
def test_a_file_that_is_cut_off_is_read_up_to_there(tmp_path: Path, cut: int) -> None:
    marks = Marks(journal=tmp_path / "marks")
    marks.add(0, b"first")
    marks.add(0, b"key")
    (name,) = files(tmp_path)
    os.truncate(tmp_path / name, os.stat(tmp_path / name).st_size - cut)
    end(marks)
    found = Marks(journal=tmp_path / "marks")
    assert taken(found) == {(0, b"first")}
    assert found.is_short == (cut < 15)


def test_the_file_is_begun_anew_with_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SYNC_S", 0.0)
    marks = Marks(journal=tmp_path / "marks")
    marks.add_many(0, [b"key%d" % number for number in range(10_000)])
    size = sum(each.stat().st_size for each in tmp_path.iterdir())
    for db, keys in marks.take(9_990):
        marks.done(db, keys)
    marks.tidy()
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) == size, "what waits would be written again and again"
    for db, keys in marks.take(9):
        marks.done(db, keys)
    ((db, keys),) = marks.take(1)
    marks.add(1, b"other")
    monkeypatch.setattr(module, "_MOST_BYTES", 1000)
    marks.tidy()
    assert sum(each.stat().st_size for each in tmp_path.iterdir()) < 100
    end(marks)
    assert taken(Marks(journal=tmp_path / "marks")) == {(db, keys[0]), (1, b"other")}


def test_no_mark_is_lost_while_the_file_is_begun_anew(tmp_path: Path) -> None:
    marks = Marks(journal=tmp_path / "marks")
    threads = [threading.Thread(target=_mark, args=(marks, number)) for number in range(3)]
    for thread in threads:
        thread.start()
    assert marks.journal is not None
    while any(thread.is_alive() for thread in threads):
        marks.journal.begin_anew(marks._every)
    end(marks)
    assert len(taken(Marks(journal=tmp_path / "marks"))) == 1500


def _mark(marks: Marks, db: int) -> None:
    for number in range(500):
        marks.add(db, b"key%d" % number)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_forked_process_has_a_journal_of_its_own(tmp_path: Path) -> None:
    marks = Marks(journal=tmp_path / "marks")
    marks.add(0, b"parent")
    child = os.fork()
    if child == 0:
        marks.add(0, b"child")
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(files(tmp_path)) == 2
    assert taken(Marks(journal=tmp_path / "marks")) == {(0, b"child")}
    assert taken(marks) == {(0, b"parent")}


def test_what_cannot_be_written_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / "marks")
    monkeypatch.setattr(os, "write", lambda file, data: 0)
    journal.note(0, b"a")
    assert journal.errors == 1
    with pytest.raises(OSError, match="No such file"):
        Journal(tmp_path / "nowhere" / "marks")

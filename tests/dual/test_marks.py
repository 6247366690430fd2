"""Marks: none is lost, whatever threads do meanwhile; the oldest is taken first; there are never more than may be."""

from __future__ import annotations

import os
import threading

import pytest

from rdbkit.dual.marks import Marks


def test_marks_are_taken_in_their_order_by_database() -> None:
    marks = Marks()
    marks.add(0, b"a")
    marks.add(3, b"a")
    marks.add_many(0, [b"b", b"a", b"c"])
    assert len(marks) == 4
    assert marks.take(3) == [(0, [b"a", b"b"]), (3, [b"a"])]
    assert len(marks) == 4  # what is on its way still counts
    marks.done(0, [b"a", b"b"])
    marks.done(3, [b"a"])
    assert len(marks) == 1
    assert marks.take() == [(0, [b"c"])]
    assert marks.take() == []


def test_a_key_that_is_written_while_it_is_on_its_way_is_taken_again() -> None:
    marks = Marks()
    marks.add(0, b"a")
    assert marks.take() == [(0, [b"a"])]
    marks.add(0, b"a")
    marks.done(0, [b"a"])
    assert (0, b"a") in marks
    assert marks.take() == [(0, [b"a"])]


def test_what_is_given_back_is_taken_first_and_once() -> None:
    marks = Marks()
    marks.add_many(0, [b"a", b"b"])
    marks.take(1)
    marks.again(0, [b"a"])
    assert len(marks) == 2
    marks.add(0, b"a")
    assert marks.take() == [(0, [b"a", b"b"])]
    marks.done(0, [b"a", b"b"])
    assert len(marks) == 0


def test_the_oldest_write_is_known_wherever_its_key_is() -> None:
    marks = Marks()
    assert marks.oldest() is None
    marks.add(0, b"a")
    first = marks.oldest()
    assert first is not None
    marks.add(0, b"b")
    marks.add(0, b"a")
    assert marks.oldest() == first
    marks.take(1)
    assert marks.oldest() == first
    marks.again(0, [b"a"])
    assert marks.oldest() == first
    marks.take(1)
    marks.done(0, [b"a"])
    second = marks.oldest()
    assert second is not None
    assert second >= first
    marks.take()
    marks.done(0, [b"b", b"a"])
    assert marks.oldest() is None


def test_too_many_marks_are_counted_and_dropped() -> None:
    marks = Marks(2)
    marks.add_many(0, [b"a", b"b", b"c", b"a"])
    assert (len(marks), marks.dropped) == (2, 1)
    with pytest.raises(ValueError, match="at least one"):
        Marks(0)


def test_the_first_mark_wakes_whoever_waits_and_its_errors_are_not_the_writers() -> None:
    rung: list[int] = []
    marks = Marks()

    def ring() -> None:
        rung.append(len(marks))
        if len(rung) == 1:
            raise RuntimeError

    marks.begun = ring
    marks.add_many(0, [b"a", b"b", b"c"])
    assert rung == [1, 2], "what has failed is tried again, and what has not is not"
    marks.is_awaited = True
    marks.add(0, b"a")
    assert rung == [1, 2], "it waits already"
    marks.add(0, b"d")
    assert rung == [1, 2, 4]


def test_no_mark_is_lost_between_threads() -> None:
    marks = Marks()
    names = [f"k{i}".encode() for i in range(50)]
    written = dict.fromkeys(names, 0)
    seen = dict.fromkeys(names, 0)
    locks = {name: threading.Lock() for name in names}
    threads = [threading.Thread(target=_write, args=(marks, names, written, locks)) for _ in range(3)]
    for thread in threads:
        thread.start()
    # who writes is looked at first: what the last one has marked is there once it has ended
    while any(thread.is_alive() for thread in threads) or len(marks):
        for db, keys in marks.take(7):
            for key in keys:
                seen[key] = written[key]
            marks.oldest()
            marks.done(db, keys)
    assert seen == written
    assert min(written.values()) > 0


def _write(marks: Marks, names: list[bytes], written: dict[bytes, int], locks: dict[bytes, threading.Lock]) -> None:
    for _ in range(100):
        for name in names:
            with locks[name]:
                written[name] += 1
            marks.add(0, name)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
def test_a_forked_process_has_none_of_its_parents_marks() -> None:
    marks = Marks()
    marks.add(0, b"a")
    child = os.fork()
    if child == 0:
        marks.add(0, b"b")
        os._exit(0 if marks.take() == [(0, [b"b"])] and marks.dropped == 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert marks.take() == [(0, [b"a"])]


def test_a_key_is_pending_until_it_is_on_the_other_side() -> None:
    marks = Marks()
    assert not marks.is_pending(0, b"k")
    marks.add(0, b"k")
    assert marks.is_pending(0, b"k")
    assert not marks.is_pending(1, b"k")
    ((db, keys),) = marks.take()
    assert marks.is_pending(0, b"k")  # what it was read as may not be there yet
    marks.again(db, keys)
    assert marks.is_pending(0, b"k")
    marks.take()
    marks.done(db, keys)
    assert not marks.is_pending(0, b"k")

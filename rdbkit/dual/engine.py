"""The engine: a thread that makes marked keys on one side what they are on the other.

It has connections of its own. That the other side is down, slow or full never reaches whoever writes: marks wait.
"""

from __future__ import annotations

import atexit
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Final, TypeAlias

from rdbkit.dual.marks import Mark, Marks
from rdbkit.dual.metrics import Metrics
from rdbkit.errors import RdbError, TargetError
from rdbkit.format.replies import Refusal
from rdbkit.live.abilities import abilities
from rdbkit.live.connection import Connection, Refused
from rdbkit.live.copy import writing
from rdbkit.live.loads import loads
from rdbkit.live.mover import Mover
from rdbkit.live.parts import PartNames
from rdbkit.live.processes import run_ids, same_data
from rdbkit.live.server import PATIENT_WAITS, Server
from rdbkit.live.transfer import Way
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.policy.ledger import Ledger
from rdbkit.resp import command

__all__ = ["Engine", "ServerOpener"]

#: Opens connections to a side: `rdbkit.live.server.connect` with all that it takes.
ServerOpener: TypeAlias = Callable[[], Server]

_BATCH: Final = 256
#: How long after a key was written it is compared.
_RECHECK_S: Final = 1.0
#: Keys that are compared at once for somebody who waits; and for how long nothing else is compared then.
_AT_ONCE: Final = 16
_PUT_OFF_S: Final = 3.0
#: That a key differs is of no account where it expires anyway within so many milliseconds.
_ENDING_MS: Final = 1000
#: Keys that wait to be compared.
_MOST_RECHECKS: Final = 100_000
#: Bytes above which a value is not read whole.
_BIG: Final = 32 << 20
#: Keys of which it is known that the other side has not what it should.
_MOST_UNWRITTEN: Final = 100_000
_LONGEST_WAIT_S: Final = 3600.0

_all: Final[weakref.WeakSet[Engine]] = weakref.WeakSet()


class _Question:
    """How many of the keys that were written last differ; whoever asks waits for `answered`."""

    def __init__(self, most: int, budget_s: float) -> None:
        self.most = most
        self.budget_s = budget_s
        self.answered = threading.Event()
        self.answer: tuple[int, int] | None = None


class Engine:
    """Makes keys of a target what they are on a source, for as long as keys are marked.

    Several processes may do so for the same caches. One may read a key, be overtaken, and write an older value last: so each key is
    compared a second after it was written, by who has written it, and written again where it differs. That is right in the end,
    since whoever writes last compares later.

    Args:
        source, target: open the sides; called in the engine's thread, again and again until they are there.
        marks: the keys that were written on the source.
        metrics: where everything is counted.
        gather_s: for how many seconds marks are gathered before they are taken.
        recheck: so many keys a second are compared at most; 0 for none.
        conversion: how to convert values that the target does not support.

    Attributes:
        ledger: what the target does not support of the keys that were brought there.

    Example:
        engine = Engine(lambda: connect(old), lambda: connect(new), marks, metrics)
        engine.start()
        marks.add(0, b"key")
        assert engine.drain(5.0)
    """

    def __init__(
        self,
        source: ServerOpener,
        target: ServerOpener,
        marks: Marks,
        metrics: Metrics,
        *,
        gather_s: float = 0.005,
        recheck: int = 2000,
        conversion: ConversionOptions | None = None,
    ) -> None:
        if gather_s < 0:
            raise ValueError(f"marks are gathered for 0 seconds or more, not {gather_s}")
        if recheck < 0:
            raise ValueError(f"so many keys a second are compared: 0 or more, not {recheck}")
        self._source = source
        self._target = target
        self._marks = marks
        self._metrics = metrics
        self._gather_s = gather_s
        self._recheck = recheck
        self._conversion = ConversionOptions(on_error="skip") if conversion is None else conversion
        self.ledger = Ledger()
        self._is_wanted = False
        self._begin()
        metrics.gauge("waiting", "Keys that wait to be brought to the other side.", lambda: len(marks))
        metrics.gauge("behind_seconds", "For how long the key has waited that has waited longest.", lambda: self.is_behind_s)
        metrics.gauge("dropped", "Keys that were not marked, since too many waited.", lambda: marks.dropped)
        if (journal := marks.journal) is not None:
            metrics.gauge("journal_errors", "How often the journal could not be written.", lambda: journal.errors)
        _all.add(self)

    def _begin(self) -> None:
        """As in a process in which nothing has happened yet."""
        self._thread: threading.Thread | None = None
        self._bell = threading.Lock()  # free where there is something to do; unlike an event, it may be rung in a signal's handler
        self._starting = threading.Lock()
        self._working = threading.Lock()  # of the one thread that works; one that was told to end may be about to
        self._is_closing = False
        self._mover: Mover | None = None
        self._servers: list[Server] = []
        self._processes: set[str] = set()  # of the target, as they were last seen
        self._is_reopened = False  # a connection to the target was opened, behind which may be another process
        self._rechecks: dict[Mark, float] = {}  # when each is due, in this order
        self._recheck_at = 0.0
        self._unwritten: set[Mark] = set()
        self._question: _Question | None = None

    # -- what users call; any thread

    def start(self) -> None:
        """Bring over what is marked from now on. A thread is started with the first mark of this process."""
        self._is_wanted = True
        self._is_closing = False
        self._marks.begun = self._ring
        self._marks.is_awaited = True
        atexit.register(self._at_exit)
        if len(self._marks):
            self._ring()

    def drain(self, wait_s: float) -> bool:
        """Wait until all that was marked before is on the other side, up to so many seconds; whether it is."""
        begun = time.monotonic()
        while (oldest := self._marks.oldest()) is not None and oldest <= begun:
            if time.monotonic() - begun >= wait_s:
                return False
            self._ring()
            time.sleep(min(0.002, wait_s))
        return True

    def settle(self, wait_s: float) -> bool:
        """Put off what is compared anyway, and finish what is under way; whether that is done within so many seconds."""
        return self.compare_now(0, wait_s) is not None

    def compare_now(self, most: int, wait_s: float, budget_s: float = 0.1) -> tuple[int, int] | None:
        """Compare the keys that were written within the last second, without waiting for their time.

        Args:
            most: so many of them, the latest.
            wait_s: for how many seconds the answer is waited for.
            budget_s: after so many seconds no more are compared.

        Returns: how many were compared, and how many of them differ, which are written again; None without an answer in time.
        """
        if self._thread is None:
            return 0, 0
        question = _Question(most, budget_s)
        self._question = question
        self._wake()
        question.answered.wait(max(wait_s, 0.0))
        self._question = None
        return question.answer

    def close(self, wait_s: float = 5.0) -> bool:
        """Bring over what is marked, for up to so many seconds, and end; whether it has ended, and writes nothing any more."""
        thread = self._thread
        self._is_wanted = False
        atexit.unregister(self._at_exit)
        if thread is None:
            self._marks.close()
            return True
        self._is_closing = True
        end = time.monotonic() + wait_s
        self._wake()
        self.drain(wait_s)
        self._marks.begun = None
        self._thread = None
        self._wake()
        thread.join(max(0.1, end - time.monotonic()))
        if thread.is_alive():
            return False
        self._marks.close()
        return True

    @property
    def is_behind_s(self) -> float:
        """For how many seconds the key has waited that has waited longest; 0 where none waits."""
        oldest = self._marks.oldest()
        return 0.0 if oldest is None else max(0.0, time.monotonic() - oldest)

    @property
    def needs_sync(self) -> bool:
        """Whether the other side lacks something that no mark stands for, so that only `sync` makes it equal."""
        return bool(self._marks.is_short or self._unwritten or self._metrics.total("needs_sync"))

    @property
    def unwritten(self) -> int:
        """Keys of which it is known that the other side has not what it should."""
        return len(self._unwritten)

    def forget_unwritten(self) -> None:
        """These keys are there by now: something else has written them."""
        self._unwritten = set()

    # -- the thread

    def _at_exit(self) -> None:
        if self._thread is not None:
            self.close()

    def _ring(self) -> None:
        """There is something to do."""
        if self._thread is None and self._is_wanted and self._starting.acquire(blocking=False):
            try:
                if self._thread is None:
                    thread = threading.Thread(target=self._run, name="rdbkit-dual", daemon=True)
                    self._thread = thread
                    try:
                        thread.start()
                    except BaseException:
                        self._thread = None
                        raise
            finally:
                self._starting.release()
        self._wake()

    def _wake(self) -> None:
        with suppress(RuntimeError):  # it was free already
            self._bell.release()

    def _run(self) -> None:
        with self._working:
            try:
                self._work(threading.current_thread())
            finally:
                self._disconnect()

    def _work(self, me: threading.Thread) -> None:
        waits = iter(PATIENT_WAITS)
        while self._thread is me:
            try:
                worked = self.step()
            except Exception as e:  # whatever it is: what is marked stays so, and the next attempt may do
                self._metrics.count("outages")
                self._metrics.sample("outage", 0, b"", f"{e.source}: {e.message}" if isinstance(e, RdbError) else repr(e))
                self._disconnect()
                self._sleep(next(waits, PATIENT_WAITS[-1]), me)
                continue
            waits = iter(PATIENT_WAITS)
            if not worked:
                self._wait()
            if len(self._marks) < _BATCH and not self._is_closing and self._thread is me:
                time.sleep(self._gather_s)

    def _sleep(self, seconds: float, me: threading.Thread) -> None:
        """Wait, but not for longer than anybody wants this thread."""
        end = time.monotonic() + seconds
        while self._thread is me and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))

    def _wait(self) -> None:
        """Wait until there is something to do."""
        self._marks.is_awaited = True
        if not len(self._marks):  # what is marked from here on rings
            self._bell.acquire(timeout=self._pause())

    def _pause(self) -> float:
        """For how long there is nothing to do, unless something is marked."""
        due = next(iter(self._rechecks.values()), None)
        return _LONGEST_WAIT_S if due is None else max(0.0, max(due, self._recheck_at) - time.monotonic())

    # -- what it does

    def step(self) -> bool:
        """Bring over the keys that have waited longest, and compare some; whether there was anything to do.

        Raises: TargetError where a side cannot be reached.
        """
        taken = self._marks.take(_BATCH)
        worked = bool(taken)
        while taken:
            db, keys = taken[-1]
            try:
                later = self._bring(db, keys)
            except BaseException:
                for other, some in taken:
                    self._marks.again(other, some)
                raise
            self._marks.again(db, later)
            self._marks.done(db, keys)
            self._metrics.count("marks", len(keys))
            taken.pop()
        self._marks.tidy()
        question = self._question
        if question is not None and not (question.most and len(self._marks)):
            self._answer(question)
            return True
        return self._compare_due() or worked

    def _bring(self, db: int, keys: list[bytes]) -> list[bytes]:
        """Make these keys on the target what they are on the source; returns those that are to be brought once more.

        Raises: TargetError.
        """
        mover = self._connected()
        try:
            fates = self._move(mover, db, keys, replace=True)
            self._remove(mover, db, fates)
        except Refused as e:  # one of the sides has no such database
            if not self._has(mover.way.source, db):
                return []  # nothing can have been written there
            for key in keys:
                self._note(db, key, "refused", f"there is no database {db}: {e}")
            return []
        self._metrics.count("transfers", len(keys) - len(fates))
        changed = [key for key, fate in fates.items() if fate == "changed"]
        for key in keys:
            self._note(db, key, fates.get(key, ""), mover.details.get(key, ""))
        self._compare_later(db, [key for key in keys if fates.get(key, "") in ("", "gone", "left-out")])
        return changed

    def _has(self, server: Server, db: int) -> bool:
        """Whether a server has a database. Raises: TargetError."""
        (replies,) = server.ask(db, [(b"", [command(b"PING")])])
        return not isinstance(replies[0], Refusal)

    def _move(self, mover: Mover, db: int, keys: list[bytes], *, replace: bool) -> dict[bytes, str]:
        fates = mover.move(db, keys, replace=replace)
        mover.forget()
        mover.streams.clear()
        if self._is_reopened:
            self._look_at_target(mover)
        return fates

    def _look_at_target(self, mover: Mover) -> None:
        """Notice that the target is another process by now, which may not have all that the one before was given."""
        self._is_reopened = False
        processes = run_ids(mover.way.target)
        if not processes >= self._processes:
            self._metrics.count("needs_sync", 1, "restart")
        self._processes = processes or self._processes

    def _note_opened(self, _: Connection) -> None:
        self._is_reopened = True

    def _remove(self, mover: Mover, db: int, fates: dict[bytes, str]) -> None:
        """Delete what the source does not have, or what the target cannot be given."""
        is_all = not self._conversion.selection
        gone = [key for key, fate in fates.items() if fate == "gone" or (fate == "left-out" and is_all)]
        if not gone:
            return
        for key, why in zip(gone, mover.delete(db, gone), strict=True):
            if why is not None:
                fates[key] = "refused"
                mover.details[key] = f"it was not deleted: {why}"
        self._metrics.count("deleted", sum(fates[key] == "gone" for key in gone))

    def _note(self, db: int, key: bytes, fate: str, detail: str) -> None:
        """What became of a key."""
        mark = (db, key)
        if fate != "refused" and (fate != "left-out" or self._conversion.selection):
            self._unwritten.discard(mark)
            return
        self._metrics.count("failed")
        self._metrics.sample("failed", db, key, detail or "the target does not support it")
        if len(self._unwritten) < _MOST_UNWRITTEN:
            self._unwritten.add(mark)

    # -- what was written is compared

    def _compare_later(self, db: int, keys: Iterable[bytes]) -> None:
        if not self._recheck:
            return
        due = time.monotonic() + _RECHECK_S
        for key in keys:
            mark = (db, key)
            self._rechecks.pop(mark, None)  # the last write counts
            if len(self._rechecks) < _MOST_RECHECKS:
                self._rechecks[mark] = due
            else:
                self._metrics.count("recheck_skipped")

    def _compare_due(self) -> bool:
        """Compare keys that were written a while ago; whether there were any. Raises: TargetError."""
        now = time.monotonic()
        if now < self._recheck_at:
            return False
        by_db: dict[int, list[bytes]] = {}
        number = 0
        for mark, due in self._rechecks.items():
            if due > now or number == min(_BATCH, self._recheck):
                break
            number += 1
            by_db.setdefault(mark[0], []).append(mark[1])
        if not number:
            return False
        self._recheck_at = now + number / self._recheck
        for db, keys in by_db.items():
            # a key that is marked will be brought and compared again
            self._compare(db, [key for key in keys if (db, key) not in self._marks])
            for key in keys:
                self._rechecks.pop((db, key), None)
        return True

    def _answer(self, question: _Question) -> None:
        """Compare what was written last, since somebody wants to know. Raises: TargetError."""
        begun = time.monotonic()
        self._recheck_at = begun + _PUT_OFF_S
        left = list(self._rechecks)[-question.most :] if question.most else []
        compared = differ = 0
        while left and (not compared or time.monotonic() - begun < question.budget_s):
            by_db: dict[int, list[bytes]] = {}
            for db, key in left[-_AT_ONCE:]:
                by_db.setdefault(db, []).append(key)
            del left[-_AT_ONCE:]
            differ += sum(self._compare(db, keys) for db, keys in by_db.items())
            compared += sum(map(len, by_db.values()))
        self._question = None
        question.answer = compared, differ
        question.answered.set()

    def _compare(self, db: int, keys: list[bytes]) -> int:
        """Compare these keys, and mark those that differ again; how many that are. Raises: TargetError."""
        if not keys:
            return 0
        mover = self._connected()
        fates = self._move(mover, db, keys, replace=False)
        absent = [key for key, fate in fates.items() if fate in ("gone", "left-out")]
        edits = self._conversion.edits
        called = [edits.key_of(key) for key in absent]
        replies = mover.way.target.ask(edits.db_of(db), [(name, [command(b"EXISTS", name)]) for name in called])
        for key, (there,) in zip(absent, replies, strict=True):
            if there == 1 and (fates[key] == "gone" or not self._conversion.selection):
                fates[key] = "exists"
        differ = [key for key in keys if fates.get(key, "") in ("", "exists")]
        # what has a mark by now has changed meanwhile
        drift = self._lasting(mover, db, [key for key in differ if (db, key) not in self._marks])
        self._metrics.count("rechecked", len(keys))
        self._metrics.count("recheck_differs", len(drift))
        self._marks.again(db, differ)
        return len(drift)

    def _lasting(self, mover: Mover, db: int, keys: list[bytes]) -> list[bytes]:
        """Of keys that differ those that do not go by themselves: on both sides, gone or about to expire. Raises: TargetError."""
        if not keys:
            return keys
        edits = self._conversion.edits
        called = [edits.key_of(key) for key in keys]
        source = mover.way.source.ask(db, [(key, [command(b"PTTL", key)]) for key in keys])
        target = mover.way.target.ask(edits.db_of(db), [(name, [command(b"PTTL", name)]) for name in called])
        return [key for key, *left in zip(keys, source, target, strict=True) if not all(_is_ending(each) for (each,) in left)]

    # -- connections

    def _connected(self) -> Mover:
        """What moves keys, with its connections. Raises: TargetError."""
        if self._mover is not None:
            return self._mover
        try:
            source = self._source()
            self._servers.append(source)
            target = self._target()
            self._servers.append(target)
            if same_data(source, target):
                raise TargetError("the old and the new side are one server", source=str(target.url))
            old, new = abilities(source), abilities(target)
            if old.value.use is None:
                raise TargetError(f"its values cannot be read: {old.value.why}", source=str(source.url))
            new = writing(target, new, "auto")
            way = Way(
                source, target, loads(target), self._conversion, old.layout(source), "replace",
                None if new.rename.use is None else PartNames(secrets.token_hex(6)), by_commands=new.write.use == "commands",
                without_dump=old.value.use == "commands",
            )  # fmt: skip
            self._mover = Mover(way, self.ledger, self._note_opened, _BIG)
        except BaseException:
            self._disconnect()
            raise
        return self._mover

    def _disconnect(self) -> None:
        mover, self._mover = self._mover, None
        servers, self._servers = self._servers, []
        for each in (mover, *servers):
            if each is not None:
                with suppress(Exception):
                    each.close()


def _is_ending(left: object) -> bool:
    """Whether a key has gone, or expires by itself in a moment, by the answer to PTTL."""
    return isinstance(left, int) and (left == -2 or 0 <= left < _ENDING_MS)


def _begin_all() -> None:
    """In a forked process: the thread, and what it has, is the parent's."""
    for engine in _all:
        engine._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_all)

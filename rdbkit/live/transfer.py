"""Making keys of a target what they are on the source: the primitive of all that copies between servers.

Values and expiries of a page of keys are read together, converted where the target needs that, and written by RESTORE. Where the
target takes values as they are, they pass as bytes, and no object is made of a key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from rdbkit.format.replies import Incoming, Refusal
from rdbkit.live.connection import Connection
from rdbkit.live.converter import Converter, Terms, header_of
from rdbkit.live.refusals import Existing
from rdbkit.live.restoring import PASSING, Refused, Restoring
from rdbkit.live.server import Server
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.passes import dumps
from rdbkit.passes.dumps import Answers, Gatherer, Weaver
from rdbkit.passes.pages import Layout, Page, page_of, questions
from rdbkit.policy.ledger import Ledger
from rdbkit.resp import bulk, command
from rdbkit.targets.target import Target

__all__ = ["Counts", "Told", "Transfer"]

#: Bytes of commands that wait before they are sent.
_FLUSH: Final = 4 << 20
#: How often a key is read again whose expiry changes while it is read.
_ATTEMPTS: Final = 5
_PATIENCE_S: Final = 300.0
_WAITS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)


@dataclass
class Counts:
    """What became of keys.

    Attributes:
        read: keys that the source was asked for.
        written: keys that were written.
        gone: keys that were no longer there, or had expired.
        equal: keys that the target had already, with the same value and expiry.
        existing: keys that the target has with another value, and that were left alone.
        lost: keys that would lose what no policy allows, and were left out; the ledger has them.
        left_out: keys that the selection, an edit or a policy left out.
        refused: keys that the source or the target refused.
        changed: keys that changed each time that they were read.
        value_bytes: of the values read, as DUMP has them.
    """

    read: int = 0
    written: int = 0
    gone: int = 0
    equal: int = 0
    existing: int = 0
    lost: int = 0
    left_out: int = 0
    refused: int = 0
    changed: int = 0
    value_bytes: int = 0


class Told(Protocol):
    """Is told of each key that was not simply written."""

    def __call__(self, db: int, key: bytes, what: str, detail: str) -> object:
        """`what` is "exists", "equal", "refused", "changed" or "gone"; `detail` says why, in the server's words."""
        ...


def _tell_nobody(db: int, key: bytes, what: str, detail: str) -> None:
    """Nobody wants to know."""


@dataclass
class Way:
    """How keys of a source come to a target.

    Args:
        source, target: the servers.
        takes: what the target loads.
        conversion: what is asked for besides.
        layout: how the source is asked.
        on_exists: "fail" and "skip" leave keys alone that the target has; "replace" replaces them.
    """

    source: Server
    target: Server
    takes: Target
    conversion: ConversionOptions
    layout: Layout
    on_exists: str = "fail"


class Transfer:
    """Copies pages of keys, for one thread: it has connections of its own.

    Args:
        way: from where to where, and how.
        connection: to the node of the source that has the keys.
        ledger: takes the losses.
        told: is told of keys that were not simply written.
        restoring: the connections to the target; those of its own otherwise.

    Attributes:
        counts: what became of the keys so far.
    """

    def __init__(
        self, way: Way, connection: Connection, ledger: Ledger, told: Told = _tell_nobody, restoring: Restoring | None = None
    ) -> None:
        self.way = way
        self.connection = connection
        self.ledger = ledger
        self.told = told
        self.counts = Counts()
        self.restoring = Restoring(way.target) if restoring is None else restoring
        self.existing = Existing(way.target)
        self.terms = Terms(way.takes, way.conversion, self.restoring.router)
        self.version = 0
        self.converter: Converter | None = None
        self._rest = b""
        self._refused: list[Refused] = []
        self._db = -1

    # -- a page at a time

    def move(self, db: int, names: Sequence[bytes], *, replace: bool = False) -> dict[bytes, str]:
        """Make these keys on the target what they are on the source.

        Args:
            db: of the source.
            names: any number.
            replace: also where the target has them.

        Returns: what became of those that were not written: "gone", "equal", "exists", "refused", "changed". Of those that the
            ledger has, and of those that the selection or an edit left out, nothing is said here.

        Raises: TargetError where a server cannot be reached for long.
        """
        found: dict[bytes, str] = {}
        told = self.told

        def note(db: int, key: bytes, what: str, detail: str) -> None:
            found[key] = what
            told(db, key, what, detail)

        self.told = note
        try:
            page = page_of(names)
            self.ask(db, page)
            self.answer(db, page, replace)
            self.settle()
        finally:
            self.told = told
        return found

    def ask(self, db: int, page: Page, more: bytes = b"") -> None:
        """Ask the source for a page, and for whatever `more` asks behind that. Raises: Lost."""
        if db != self._db or not self.connection.is_open:
            self.connection.open()
            self.connection.select(db)
            self._db = db
            self._rest = b""
        self.connection.renew_login()  # no reply is on its way now
        self.connection.send(questions(page, self.way.layout) + more)

    def answer(self, db: int, page: Page, replace: bool = False) -> None:
        """Read the answers to `ask`, and send them on. Raises: Lost where the connection to the source breaks."""
        replace = replace or self.way.on_exists == "replace"
        answers = self._answers(db, page, replace)
        self.receive(answers, lambda: self._pass_on(db, answers, replace))
        self._finish(db, page, answers, replace)
        self.restoring.flush()

    def receive(self, replies: Incoming, each: Callable[[], None] | None = None) -> None:
        """Read replies of the source to what was asked, as they come. Raises: Lost."""
        while not replies.done:
            data = self._rest or self.connection.receive()
            self._rest = b""
            if replies.feed(data):
                self._rest = replies.rest()
            if each is not None:
                each()

    def leave_out(self, keys: int) -> None:
        """So many keys are not even asked for, since their names say that they are not wanted."""
        self.counts.read += keys
        self.counts.left_out += keys

    def settle(self) -> None:
        """Wait for the target's answers to all that was sent, and note what became of the keys.

        Raises: TargetError where it cannot be reached, or has no memory left, for long.
        """
        self.restoring.flush()
        done = self.restoring.done
        self._refused += self.restoring.collect()
        self.counts.written += self.restoring.done - done
        refused, self._refused = self._refused, []
        self._note(refused)

    def close(self) -> None:
        """Close the connections, and drop temporary files."""
        self.connection.close()
        self.restoring.close()
        if self.converter is not None:
            self.converter.close()

    # -- the source's answers

    def _answers(self, db: int, page: Page, replace: bool, converts: bool = False) -> Answers:
        converter = self.converter
        if converter is None or converts or not converter.takes_as_it_is(db):
            return Gatherer(page, self.way.layout, self.version, self.way.source.now_ms() if not self.way.layout.absolute else 0)
        to = self.way.conversion.edits.db_of(db)
        now_ms = self.way.source.now_ms() if not self.way.layout.absolute else 0
        answers = Weaver(page, self.way.layout, self.version, self.restoring.router(to), replace, now_ms)
        answers.odd = converter.odd
        return answers

    def _pass_on(self, db: int, answers: Answers, replace: bool) -> None:
        """Do something about what was answered, where that has become much."""
        if isinstance(answers, Gatherer) and (answers.done or len(answers.out) > _FLUSH):
            self._convert(db, answers, replace)
        if self.restoring.waiting_bytes > _FLUSH:
            self._refused += self._flushed()

    def _flushed(self) -> list[Refused]:
        self.restoring.flush()
        done = self.restoring.done
        refused = self.restoring.collect()
        self.counts.written += self.restoring.done - done
        return refused

    def _convert(self, db: int, answers: Gatherer, replace: bool) -> None:
        block = answers.out.getvalue()
        answers.out.truncate(0)
        if not block:
            return
        if self.converter is None or answers.version != self.version:
            self._begin_version(int(answers.version))
        assert self.converter is not None
        before = self.converter.left_out, self.converter.lost
        self.converter.restore(block, db, replace)
        self.counts.left_out += self.converter.left_out - before[0]
        self.counts.lost += self.converter.lost - before[1]

    def _begin_version(self, version: int) -> None:
        """From now on the source's payloads have this version."""
        if self.converter is not None:
            self.converter.close()
        self.version = version
        self.converter = Converter(header_of(version), self.terms, self.ledger, str(self.way.source.url))

    def _finish(self, db: int, page: Page, answers: Answers, replace: bool) -> None:
        """Note what became of the keys of a page."""
        counts = self.counts
        counts.read += page.count
        counts.value_bytes += int(answers.value_bytes)
        if answers.found == page.count:
            return
        fates = answers.fates.getvalue()
        odd: list[bytes] = []
        again: list[bytes] = []
        for number, (key, fate) in enumerate(zip(page.keys(), fates, strict=True)):
            if fate == dumps.GONE:
                counts.gone += 1
                self.told(db, key, "gone", "")
            elif fate == dumps.OTHER_WAY:
                odd.append(key)
            elif fate in (dumps.CHANGED, dumps.OTHER_VERSION):
                again.append(key)
            elif fate == dumps.FAILED:
                why = answers.failures[number]
                if why.code in PASSING or why.code == "EXECABORT":
                    again.append(key)
                else:
                    self._refuse(db, key, why)
        for key in odd:
            self._one(db, key, replace)
        for key in again:
            self._one(db, key, replace)

    def _one(self, db: int, key: bytes, replace: bool) -> None:
        """Copy one key, wherever it is now."""
        page = page_of([key])
        layout = Layout(0, self.way.layout.absolute)
        expiry = command(b"PEXPIRETIME" if layout.absolute else b"PTTL", key)
        for attempt in range(_ATTEMPTS):
            before, dump, behind = self.way.source.ask(db, [(key, [expiry, command(b"DUMP", key), expiry])])[0]
            answers = Gatherer(page, layout, 0, self.way.source.now_ms() if not layout.absolute else 0)
            answers.feed(_raw(before) + _raw(dump) + _raw(behind))
            fate = answers.fates.getvalue()[0]
            if fate == dumps.CHANGED:
                time.sleep(0.001 * 4**attempt)
                continue
            if fate == dumps.FAILED:
                self._refuse(db, key, answers.failures[0])
            elif fate == dumps.GONE:
                self.counts.gone += 1
                self.told(db, key, "gone", "")
            else:
                self._convert(db, answers, replace)
            return
        self.counts.changed += 1
        self.told(db, key, "changed", "its expiry changed each time that it was read")

    def _refuse(self, db: int, key: bytes, why: Refusal) -> None:
        self.counts.refused += 1
        self.told(db, key, "refused", str(why))

    # -- the target's answers

    def _note(self, refused: Sequence[Refused]) -> None:
        """Keys that the target did not take."""
        busy = []
        for each in refused:
            if each.why.code == "BUSYKEY":
                busy.append(each)
            else:
                self._refuse(each.db, each.key, each.why)
        for each, difference in zip(busy, self.existing.differences(busy), strict=True):
            if difference:
                self.counts.existing += 1
                self.told(each.db, each.key, "exists", difference)
            elif each.is_repeated:
                self.counts.written += 1  # the answer was lost
            else:
                self.counts.equal += 1
                self.told(each.db, each.key, "equal", "")


def _raw(reply: Any) -> bytes:
    """A reply as it came."""
    if isinstance(reply, Refusal):
        return b"-%b\r\n" % str(reply if reply.code != "ERR" else f"ERR {reply.text}").encode()
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    return b"$-1\r\n" if reply is None else bulk(reply)

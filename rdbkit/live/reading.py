"""Reading keys of a server by their names: values and expiries of a page together, whatever is to become of them.

What is answered is handed on as it comes. Keys about which nothing could be said, since they or their slot changed meanwhile, are
asked for once more, one by one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from rdbkit.format.replies import Incoming, Refusal
from rdbkit.live.connection import Connection
from rdbkit.live.restoring import PASSING
from rdbkit.live.server import Server
from rdbkit.passes import dumps
from rdbkit.passes.dumps import Answers, Gatherer
from rdbkit.passes.pages import Layout, Page, SizeReplies, page_of, questions, size_questions
from rdbkit.resp import bulk, command
from rdbkit.selection import Selection

__all__ = ["Counts", "Reading", "Told", "tell_nobody"]

#: How often a key is read again whose expiry changes while it is read.
_ATTEMPTS: Final = 5


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


def tell_nobody(db: int, key: bytes, what: str, detail: str) -> None:
    """Nobody wants to know."""


class Reading:
    """Reads pages of keys, for one thread: it has a connection of its own.

    Args:
        source: the server.
        layout: how it is asked.
        connection: to the node of it that has the keys.
        selection: which keys are wanted; None for all.
        told: is told of keys of which no value came.

    Attributes:
        counts: what became of the keys so far.
        large: takes keys that are too large to be read whole, with their database; None where all are.
        without_dump: it takes all keys.
    """

    def __init__(
        self,
        source: Server,
        layout: Layout,
        connection: Connection,
        selection: Selection | None = None,
        told: Told = tell_nobody,
    ) -> None:
        self.source = source
        self.layout = layout
        self.connection = connection
        self.selection = selection
        self.told = told
        self.counts = Counts()
        self.large: Callable[[int, list[bytes]], object] | None = None
        self.without_dump = False
        self._rest = b""
        self._db = -1

    # -- what becomes of the values

    def make_answers(self, db: int, page: Page, replace: bool) -> Answers:
        """What takes the answers about a page."""
        return Gatherer(page, self.layout, 0, self._now_ms())

    def pass_on(self, db: int, answers: Answers, replace: bool) -> None:
        """Do something about what was answered, where that has become much."""
        raise NotImplementedError

    def take(self, db: int, answers: Gatherer, replace: bool) -> None:
        """Take the records that were gathered."""
        raise NotImplementedError

    def settle(self) -> None:
        """Wait until all that was read has got where it is to be."""

    # -- a page at a time

    def ask(self, db: int, page: Page, more: bytes = b"") -> None:
        """Ask the source for a page, and for whatever `more` asks behind that. Raises: Lost."""
        if db != self._db or not self.connection.is_open:
            self.connection.open()
            self.connection.select(db)
            self._db = db
            self._rest = b""
        self.connection.renew_login()  # no reply is on its way now
        self.connection.send(questions(page, self.layout) + more)

    def answer(self, db: int, page: Page, replace: bool = False) -> None:
        """Read the answers to `ask`, and hand them on. Raises: Lost."""
        answers = self.make_answers(db, page, replace)
        self.receive(answers, lambda: self.pass_on(db, answers, replace))
        self._finish(db, page, answers, replace)

    def sized(self, db: int, page: Page, most: int) -> tuple[Page, list[bytes]]:
        """The keys of a page that take at most so many bytes on the source, or of which it does not tell; and the others.

        Raises: Lost.
        """
        if not page.count:
            return page, []
        sizes = SizeReplies(page.count, most)
        self.ask(db, Page(b"", 0), size_questions(page))
        self.receive(sizes)
        if not sizes.any_large:
            return page, []
        small = sizes.small.getvalue()
        return page.chosen(small), page.chosen(bytes(1 - flag for flag in small)).keys()

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

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def _now_ms(self) -> int:
        """The source's clock, where times to live are asked for."""
        return 0 if self.layout.absolute else self.source.now_ms()

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
                if why.code in PASSING or why.code == "EXECABORT" or self.layout.group > 1:  # then it may be of another key
                    again.append(key)
                else:
                    self.refuse(db, key, why)
        for key in odd:
            self._one(db, key, replace)
        for key in again:
            self._one(db, key, replace)

    def _one(self, db: int, key: bytes, replace: bool) -> None:
        """Read one key, wherever it is now."""
        page = page_of([key])
        layout = Layout(0, self.layout.absolute)
        expiry = command(b"PEXPIRETIME" if layout.absolute else b"PTTL", key)
        for attempt in range(_ATTEMPTS):
            before, dump, behind = self.source.ask(db, [(key, [expiry, command(b"DUMP", key), expiry])])[0]
            answers = Gatherer(page, layout, 0, self._now_ms())
            answers.feed(_raw(before) + _raw(dump) + _raw(behind))
            fate = answers.fates.getvalue()[0]
            if fate == dumps.CHANGED:
                time.sleep(0.001 * 4**attempt)
                continue
            if fate == dumps.FAILED:
                self.refuse(db, key, answers.failures[0])
            elif fate == dumps.GONE:
                self.counts.gone += 1
                self.told(db, key, "gone", "")
            else:
                self.take(db, answers, replace)
            return
        self.counts.changed += 1
        self.told(db, key, "changed", "its expiry changed each time it was read")

    def refuse(self, db: int, key: bytes, why: Refusal) -> None:
        """A key that a server refuses."""
        self.counts.refused += 1
        self.told(db, key, "refused", str(why))


def _raw(reply: Any) -> bytes:
    """A reply as it came."""
    if isinstance(reply, Refusal):
        return b"-%b\r\n" % str(reply if reply.code != "ERR" else f"ERR {reply.text}").encode()
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    return b"$-1\r\n" if reply is None else bulk(reply)

"""Making keys of a target what they are on the source: the primitive of all that copies between servers.

Values and expiries of a page of keys are read together, converted where the target needs that, and written by RESTORE. Where the
target takes values as they are, they pass as bytes, and no object is made of a key.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rdbkit.errors import RdbError
from rdbkit.format.record import Record
from rdbkit.live.connection import Connection, Lost
from rdbkit.live.converter import Converter, Terms, header_by, header_of, rules_of
from rdbkit.live.large_values import LargeValues
from rdbkit.live.loads import loads
from rdbkit.live.parts import Interrupted, PartNames, PartWriter
from rdbkit.live.reading import Counts, Reading, Told, tell_nobody
from rdbkit.live.refusals import Existing, record_of, replaces, written
from rdbkit.live.restoring import Refused, Restoring
from rdbkit.live.server import Server
from rdbkit.live.value_reader import Changed
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.passes.dumps import Answers, Gatherer, Weaver
from rdbkit.passes.pages import Layout, Page, page_of
from rdbkit.policy.ledger import Ledger
from rdbkit.targets.target import Target

__all__ = ["Counts", "Told", "Transfer"]

#: What of `Counts` an outcome is.
_COUNTED: Final = {
    "written": "written", "gone": "gone", "equal": "equal", "exists": "existing", "lost": "lost", "left-out": "left_out",
    "refused": "refused", "changed": "changed",
}  # fmt: skip
#: The outcomes that are told of.
_TOLD: Final = ("exists", "equal", "refused", "changed", "gone")
#: Keys that are read together where that takes commands of their types.
_TOGETHER: Final = 100
#: How RESTORE says that it does not know a payload.
_NOT_LOADED: Final = re.compile("Bad data format|payload version")
#: Bytes of commands that wait before they are sent.
_FLUSH: Final = 4 << 20


@dataclass
class Way:
    """How keys of a source come to a target.

    Args:
        source, target: the servers.
        takes: what the target loads.
        conversion: what is asked for besides.
        layout: how the source is asked.
        on_exists: "fail" and "skip" leave keys alone that the target has; "replace" replaces them.
        parts: names of the temporary keys in which large values are written; None where all values are read whole.
        by_commands: keys are written by commands of their types, not by RESTORE; takes `parts`.
        without_dump: they are read by commands of their types, too; takes `parts`.
    """

    source: Server
    target: Server
    takes: Target
    conversion: ConversionOptions
    layout: Layout
    on_exists: str = "fail"
    parts: PartNames | None = None
    by_commands: bool = False
    without_dump: bool = False


class Transfer(Reading):
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
        self, way: Way, connection: Connection, ledger: Ledger, told: Told = tell_nobody, restoring: Restoring | None = None
    ) -> None:
        super().__init__(way.source, way.layout, connection, way.conversion.selection, told)
        self.way = way
        self.ledger = ledger
        self.restoring = Restoring(way.target) if restoring is None else restoring
        self.existing = Existing(way.target)
        self.terms = Terms(way.takes, way.conversion, self.restoring.router)
        self.version = 0
        self.converter: Converter | None = None
        self._refused: list[Refused] = []
        self._large: LargeValues | None = None
        self._writer: PartWriter | None = None
        if way.parts is not None:
            self.large = self.move_by_commands if way.without_dump else self.move_large
        self.without_dump = way.without_dump

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
            if self.without_dump:
                self.move_by_commands(db, names, replace=replace)
            else:
                page = page_of(names)
                self.ask(db, page)
                self.answer(db, page, replace)
            self.settle()
        finally:
            self.told = told
        return found

    def move_large(self, db: int, names: Sequence[bytes], *, replace: bool = False) -> None:
        """Make keys on the target what they are on the source that are too large to be read whole.

        Raises: TargetError where a server cannot be reached for long.
        """
        over = replace or self.way.on_exists == "replace"
        large = self._values()
        for name in names:
            outcome = large.copy(db, name, over=over)
            self.counts.read += 1
            if outcome == "unreadable":
                self._one(db, name, over)
                continue
            self.counts.value_bytes += large.value_bytes
            self.note(db, name, outcome, large.trouble)

    def move_by_commands(self, db: int, names: Sequence[bytes], *, replace: bool = False) -> None:
        """Make keys on the target what they are on the source, without DUMP: many at once, and one by one what is large or changes.

        Raises: as `move_large`.
        """
        over = replace or self.way.on_exists == "replace"
        for at in range(0, len(names), _TOGETHER):
            some = names[at : at + _TOGETHER]
            records = []
            others = []
            try:
                found = self._values().read_small(db, some)
            except (Lost, Interrupted):
                found = [Changed()] * len(some)  # to be asked for again
            for name, record in zip(some, found, strict=True):
                if isinstance(record, bytes):
                    records.append(record)
                else:
                    others.append(name)
            self.counts.read += len(records)
            if records:
                self.take_block(db, b"".join(records), over)
                self.settle()
            self.move_large(db, others, replace=replace)

    def _values(self) -> LargeValues:
        if self._large is None:
            assert self.way.parts is not None
            if not self.version:
                self._begin_version(header_by(loads(self.source)).version)
            rules = rules_of(header_of(self.version), self.way.takes, self.way.conversion)
            self._large = LargeValues(self.source, self.way.target, rules, self.ledger, self.way.parts)
        return self._large

    def answer(self, db: int, page: Page, replace: bool = False) -> None:
        """Read the answers to `ask`, and send them on. Raises: Lost where the connection to the source breaks."""
        super().answer(db, page, replace or self.way.on_exists == "replace")
        self.restoring.flush()

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
        super().close()
        self.restoring.close()
        if self.converter is not None:
            self.converter.close()
        for writer in (self._large, self._writer):
            if writer is not None:
                writer.close()

    # -- the source's answers

    def make_answers(self, db: int, page: Page, replace: bool) -> Answers:
        """What takes the answers about a page: woven into commands as they are where the target takes them so."""
        converter = self.converter
        if converter is None or self.way.by_commands or not converter.takes_as_it_is(db):
            return Gatherer(page, self.layout, self.version, self._now_ms())
        to = self.way.conversion.edits.db_of(db)
        answers = Weaver(page, self.layout, self.version, self.restoring.router(to), replace, self._now_ms())
        answers.odd = converter.odd
        return answers

    def pass_on(self, db: int, answers: Answers, replace: bool) -> None:
        """Do something about what was answered, where that has become much."""
        if isinstance(answers, Gatherer) and (answers.done or len(answers.out) > _FLUSH):
            self.take(db, answers, replace)
        if self.restoring.waiting_bytes > _FLUSH:
            self._refused += self._flushed()

    def _flushed(self) -> list[Refused]:
        self.restoring.flush()
        done = self.restoring.done
        refused = self.restoring.collect()
        self.counts.written += self.restoring.done - done
        return refused

    def take(self, db: int, answers: Gatherer, replace: bool) -> None:
        """Convert the records that were gathered."""
        block = answers.out.getvalue()
        answers.out.truncate(0)
        if not block:
            return
        if self.converter is None or answers.version != self.version:
            self._begin_version(int(answers.version))
        self.take_block(db, block, replace)

    def take_block(self, db: int, block: bytes, replace: bool) -> None:
        """Convert records of the source, and send them on."""
        assert self.converter is not None
        before = self.converter.left_out, self.converter.lost
        if self.way.by_commands:
            self._write(self.converter.records(block, db), replace)
        else:
            self.converter.restore(block, db, replace)
        self.counts.left_out += self.converter.left_out - before[0]
        self.counts.lost += self.converter.lost - before[1]
        for error in self.converter.take_damaged():
            self.counts.left_out -= 1  # nobody has asked for that
            self.counts.refused += 1
            self.told(db, error.key or b"", "refused", f"its value is damaged: {error.message}")

    def _write(self, records: list[Record], replace: bool) -> None:
        """Write records by commands."""
        by_db: dict[int, list[Record]] = {}
        for record in records:
            by_db.setdefault(record.db, []).append(record)
        for db, some in by_db.items():
            for record, each in zip(some, self._commands().write_all(db, some, over=replace), strict=True):
                self.note(db, record.key, *each)

    def _commands(self) -> PartWriter:
        """What writes keys by commands."""
        if self._writer is None:
            assert self.converter is not None
            assert self.way.parts is not None
            self._writer = PartWriter(self.way.target, self.converter.rules, self.ledger, self.way.parts)
        return self._writer

    def _write_one(self, each: Refused) -> None:
        """Write a key by commands of which the target does not load the payload: it is older than it was taken for."""
        try:
            record = record_of(each.key, written(each.command))
        except RdbError:
            self.refuse(each.db, each.key, each.why)
            return
        record.db = each.db
        (found,) = self._commands().write_all(each.db, [record], over=replaces(each.command))
        self.note(each.db, each.key, found.outcome, str(each.why) if found.outcome == "refused" else found.detail)

    def _begin_version(self, version: int) -> None:
        """From now on the source's payloads have this version."""
        if self.converter is not None:
            self.converter.close()
        self.version = version
        self.converter = Converter(header_of(version), self.terms, self.ledger, str(self.source.url))

    # -- the target's answers

    def note(self, db: int, key: bytes, outcome: str, detail: str) -> None:
        """What became of a key that was not written by RESTORE, in the words of `PartWriter` and `LargeValues`."""
        name = _COUNTED[outcome]
        setattr(self.counts, name, getattr(self.counts, name) + 1)
        if outcome in _TOLD:
            self.told(db, key, outcome, detail)

    def _note(self, refused: Sequence[Refused]) -> None:
        """Keys that the target did not take."""
        busy = []
        for each in refused:
            if each.why.code == "BUSYKEY":
                busy.append(each)
            elif self.way.parts is not None and _NOT_LOADED.search(each.why.text):
                self._write_one(each)
            else:
                self.refuse(each.db, each.key, each.why)
        for each, difference in zip(busy, self.existing.differences(busy), strict=True):
            if difference:
                self.counts.existing += 1
                self.told(each.db, each.key, "exists", difference)
            elif each.is_repeated:
                self.counts.written += 1  # the answer was lost
            else:
                self.counts.equal += 1
                self.told(each.db, each.key, "equal", "")

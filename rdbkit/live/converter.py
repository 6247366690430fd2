"""Blocks of records as RESTORE commands for a target: what `convert` does for files, for keys on their way to a server."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rdbkit.errors import RdbError
from rdbkit.format import constants as c
from rdbkit.format.budget import Budget
from rdbkit.format.decode import FileTypes
from rdbkit.format.record import Collector, Record
from rdbkit.format.scan import Scanner
from rdbkit.model import Header
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.passes.convert import Rewriter, Segment
from rdbkit.passes.restores import Boundaries, Restorer, Router
from rdbkit.passes.value import COPY, IF_EMPTY, ValueConverter
from rdbkit.policy.ledger import Ledger
from rdbkit.policy.rules import Rules
from rdbkit.snapshot.reader import usual_limits
from rdbkit.targets.target import Target, tolerated

__all__ = ["Converter", "Terms", "header_by", "header_of", "rules_of"]

#: RDB versions from here on are Valkey's own; Redis stays below (src/rdb.h of Valkey).
_FIRST_OF_VALKEY: Final = 80
#: Type codes of module values: whether the target takes one depends on the module.
_MODULES: Final = (6, 7)


def header_of(version: int) -> Header:
    """The header of a file that has what DUMP answers with this version in its footer."""
    return Header(c.VALKEY if version >= _FIRST_OF_VALKEY else c.REDIS, version)


def header_by(server: Target) -> Header:
    """The header of a file that a server writes which loads this."""
    return Header(c.VALKEY, server.valkey[-1]) if server.valkey else Header(c.REDIS, server.rdb)


@dataclass(frozen=True)
class Terms:
    """What is the same for all keys of a copy.

    Args:
        target: what the server that takes them loads.
        conversion: what is asked for besides.
        router: gives the router to the nodes of the target for a database, where commands are put.
    """

    target: Target
    conversion: ConversionOptions
    router: Callable[[int], Router]


def rules_of(header: Header, target: Target, conversion: ConversionOptions) -> Rules:
    """What becomes of records that a source with this header has, on their way to a server that loads what `target` does."""
    to = target.header_for(header)
    return Rules(
        target=target,
        source=header,
        header=to,
        known=target.types_in(to),
        policies=conversion.policies,
        edits=conversion.edits,
        selection=conversion.selection or None,
        now_ms=time.time_ns() // 1_000_000 if conversion.now_ms is None else conversion.now_ms,
        compress=conversion.compress,
        skip=conversion.on_error == "skip",
        tolerated=tolerated(target),
    )


class Converter:
    """Makes RESTORE commands of records that a source with this header has.

    Attributes:
        header: of the source.
        odd: one byte a type code: 1 where a payload of that type is not taken as it stands even if `straight`.
        left_out: keys that the selection, an edit or a policy left out.
        lost: keys that would lose what no policy allows, and were left out; the ledger has them.
    """

    def __init__(self, header: Header, terms: Terms, ledger: Ledger, source: str) -> None:
        self.header = header
        self.terms = terms
        self.ledger = ledger
        self.limits = usual_limits()
        self.rules = rules_of(header, terms.target, terms.conversion)
        self.to = self.rules.header
        self.budget = Budget(self.limits.held_bytes)
        self.file_types = FileTypes(*header, self.limits.string_bytes, source, self.budget)
        self.to_types = FileTypes(*self.to, self.limits.string_bytes, source, self.budget)
        self.rewriter = self._make_rewriter(ledger)
        self.odd = bytes(self._is_odd(number) for number in range(256))
        self.left_out = 0
        self.lost = 0
        self._restorers: dict[tuple[int, bool], Restorer] = {}

    def _make_rewriter(self, ledger: Ledger) -> Rewriter:
        return Rewriter(ValueConverter(self.file_types, self.rules), self.limits.item_bytes, self.rules, ledger)

    def _is_odd(self, number: int) -> int:
        rewriter = self.rewriter
        # no server keeps a collection without elements
        return int(number in _MODULES or rewriter.actions[number] != COPY or bool(rewriter.looks[number] & ~IF_EMPTY))

    def takes_as_it_is(self, db: int) -> bool:
        """Whether payloads of this database go to the target as they stand, but for those of odd types."""
        rewriter = self.rewriter
        rewriter.db = db
        rewriter.database()
        return self.to == self.header and rewriter.filter is None and not rewriter.edited and not rewriter.db_missing

    def take_damaged(self) -> list[RdbError]:
        """What was wrong with values that were left out because they are damaged; each is told once."""
        found = list(self.rewriter.skipped)
        self.rewriter.skipped.clear()
        return found

    def restore(self, block: bytes, db: int, replace: bool = False) -> None:
        """Put the commands for these records of a database where the router says.

        A key that would lose what no policy allows is left out, and the ledger has it.

        Raises: RdbError for a damaged value, unless such keys are left out.
        """
        for segment in self._segments(block, db):
            if segment.keys:
                self._restore(segment, replace)

    def records(self, block: bytes, db: int) -> list[Record]:
        """What is to be written of these records of a database, as records of the target, which loads them.

        A key that would lose what no policy allows is left out, and the ledger has it. Raises: as `restore`.
        """
        found: list[Record] = []
        for segment in self._segments(block, db):
            collector = Collector(self.to_types, False)
            collector.db = segment.db
            Scanner(*self.to, self.limits.item_bytes, self.budget).scan(segment.data, 0, len(segment.data), collector)
            found += [record for record in collector.take() if isinstance(record, Record)]
        return found

    def _segments(self, block: bytes, db: int) -> list[Segment]:
        """What is to be written of records."""
        before = sum(self.ledger.forbidden.values())
        left_out = int(self.rewriter.left_out)
        segments = self._rewrite(self.rewriter, block, db)
        if sum(self.ledger.forbidden.values()) > before:
            return self._one_by_one(block, db)
        self.left_out += int(self.rewriter.left_out) - left_out
        return segments

    def _rewrite(self, rewriter: Rewriter, block: bytes, db: int) -> list[Segment]:
        scanner = Scanner(*self.header, self.limits.item_bytes, self.budget)
        rewriter.db = db
        rewriter.base = 0
        rewriter.out_db = self.rules.edits.db_of(db)
        rewriter.database()
        scanner.scan(block, 0, len(block), rewriter)
        return rewriter.take()

    def _one_by_one(self, block: bytes, db: int) -> list[Segment]:
        """The same without the keys that would lose what no policy allows, of which the ledger knows already."""
        boundaries = Boundaries()
        Scanner(*self.header, self.limits.item_bytes, self.budget).scan(block, 0, len(block), boundaries)
        ledger = Ledger()
        rewriter = self._make_rewriter(ledger)
        found: list[Segment] = []
        for start, end in boundaries.found:
            ledger.forbidden.clear()
            left_out = int(rewriter.left_out)
            segments = self._rewrite(rewriter, block[start:end], db)
            if ledger.forbidden:
                self.lost += 1
            else:
                self.left_out += int(rewriter.left_out) - left_out
                found += segments
        rewriter.converter.close()
        return found

    def _restore(self, segment: Segment, replace: bool) -> None:
        restorer = self._restorers.get((segment.db, replace))
        if restorer is None:
            restorer = Restorer(self.to.version, self.limits.item_bytes, self.terms.router(segment.db), replace)
            self._restorers[segment.db, replace] = restorer
        restorer.db = segment.db
        Scanner(*self.to, self.limits.item_bytes, self.budget).scan(segment.data, 0, len(segment.data), restorer)

    def close(self) -> None:
        """Drop the temporary files."""
        self.rewriter.converter.close()

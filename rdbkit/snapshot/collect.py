"""The visitor that makes `Record` objects."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rdbkit.format.constants import ValueType
from rdbkit.format.scan import NO_EXPIRY, STRING_INT, Visitor
from rdbkit.model import Event
from rdbkit.record import Record

if TYPE_CHECKING:
    from mypy_extensions import i64


class Collector(Visitor):
    """Collects the records (and events, where wanted) of a block."""

    def __init__(self, types: dict[int, ValueType], events: bool) -> None:
        super().__init__()
        self.types: dict[int, ValueType] = types
        self.wants_events: bool = events
        self.found: list[Record | Event] = []

    def record(self, kind: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        self.found.append(
            Record(
                self.db,
                self.base + start,
                end - start,
                None if expire_ms == NO_EXPIRY else expire_ms,
                None if self.idle_s < 0 else self.idle_s,
                None if self.freq < 0 else self.freq,
                self.types[0 if kind >= STRING_INT else kind],
                kind,
                self.buf,
                key_at,
                value_at,
                end,
                None,
            )
        )

    def event(self, event: Event) -> None:
        if self.wants_events:
            self.found.append(event)

    def take(self) -> list[Record | Event]:
        found, self.found = self.found, []
        return found

    def take_records(self) -> list[Record]:
        return [r for r in self.take() if isinstance(r, Record)]

"""What `info` counts for each record; compiled, since it runs once a record."""

from __future__ import annotations

import heapq
from hashlib import sha1
from typing import TYPE_CHECKING

from rdbkit.format.budget import OBJECT
from rdbkit.format.constants import SCRIPT
from rdbkit.format.filter import Filter
from rdbkit.format.primitives import read_int64, read_string, read_uint64
from rdbkit.format.scan import NO_EXPIRY, TYPE_CODES, Visitor
from rdbkit.model import Aux, Event, FunctionLibrary, ModuleAux, SlotInfo, module_name
from rdbkit.products import holds_nothing

if TYPE_CHECKING:
    from mypy_extensions import i64

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

_MODULE = 7
_LISTPACK_EX = 25


class Cell:
    """Keys and bytes of one type in one database; `looks_inside` where the value's first bytes matter too."""

    __slots__ = ("bytes", "keys", "looks_inside")

    def __init__(self, type_code: int) -> None:
        self.looks_inside: bool = type_code in (_MODULE, _LISTPACK_EX)
        self.keys: i64 = 0
        self.bytes: i64 = 0


class Database:
    """What has been seen in one database: keys and bytes by type code."""

    __slots__ = ("expired", "expiring", "totals")

    def __init__(self) -> None:
        self.totals: dict[int, tuple[int, int]] = {}
        self.expiring: i64 = 0
        self.expired: i64 = 0


class InfoTally(Visitor):
    """Counts what `rdbkit info` reports.

    Args:
        now_ms: what counts as already expired.
        top: how many of the biggest keys to keep.
        limit: most bytes of a key's name.
        wanted: which keys to count; None for all.
    """

    def __init__(self, now_ms: int, top: int, limit: int, wanted: Filter | None = None) -> None:
        super().__init__()
        self.filter: Filter | None = wanted
        self.top: i64 = top
        self.limit: i64 = limit
        self.databases: dict[int, Database] = {}
        self.current: Database | None = None
        self.cells: list[Cell] = [Cell(type_code) for type_code in range(TYPE_CODES)]
        # keys by the time they have left: expired, 1 hour, 1 day, 7 days, 30 days, later
        self.now_ms: i64 = now_ms
        self.hour: i64 = now_ms + HOUR_MS
        self.day: i64 = now_ms + DAY_MS
        self.week: i64 = now_ms + 7 * DAY_MS
        self.month: i64 = now_ms + 30 * DAY_MS
        self.buckets: list[int] = [0, 0, 0, 0, 0]
        self.later: i64 = 0
        self.expiring_later: i64 = 0  # of the current database, added to it when it is left
        self.threshold: i64 = -1 if top > 0 else 1 << 62
        self.biggest: list[tuple[int, int, int, bytes, int, int]] = []
        self.modules: dict[tuple[int, str, int], list[int]] = {}
        self.module_data: dict[tuple[str, int], int] = {}
        self.modules_in_use: set[tuple[str, int]] = set()  # of these, the ones that have something there
        self.functions: list[FunctionLibrary] = []
        self.scripts: list[tuple[str, int]] = []  # by SHA-1, with their bytes
        self.without_field_expiry: i64 = 0
        self.slots: i64 = 0
        self.events: dict[str, int] = {}
        self.database()

    def database(self) -> None:
        self.sum_up()
        number = int(self.db)
        if self.filter is not None:
            self.filter.database(number)
        found = self.databases.get(number)
        if found is None:
            found = Database()
            self.databases[number] = found
        self.current = found

    def sum_up(self) -> None:
        """Add what was counted for the current database to it, and start again from zero."""
        current = self.current
        if current is None:
            return
        current.expiring += self.expiring_later
        self.later += self.expiring_later
        self.expiring_later = 0
        for type_code in range(TYPE_CODES):
            cell = self.cells[type_code]
            if cell.keys > 0:
                keys, size = current.totals.get(type_code, (0, 0))
                current.totals[type_code] = (keys + int(cell.keys), size + int(cell.bytes))
                cell.keys = 0
                cell.bytes = 0

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        size: i64 = end - start
        if self.filter is not None and not self.filter.wants(self.buf, key_at, type_code, size, expire_ms):
            return
        # the same as in `large`, since a call for each record would cost the interpreter a tenth of its time
        cell = self.cells[type_code]
        cell.keys += 1
        cell.bytes += size
        if expire_ms != NO_EXPIRY:
            if expire_ms > self.month:
                self.expiring_later += 1
            else:
                self.soon(expire_ms)
        if cell.looks_inside:
            self.look_inside(type_code, self.buf, value_at, size)
        if size > self.threshold:
            key, _ = read_string(self.buf, key_at, self.limit)
            self.big(size, self.base + start, key, type_code, expire_ms)

    def large(self, type_code: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        if self.filter is not None and not self.filter.wants_large(key, type_code, size, expire_ms):
            return
        cell = self.cells[type_code]
        cell.keys += 1
        cell.bytes += size
        if expire_ms != NO_EXPIRY:
            if expire_ms > self.month:
                self.expiring_later += 1
            else:
                self.soon(expire_ms)
        if cell.looks_inside:
            self.look_inside(type_code, head, 0, size)
        if size > self.threshold:
            self.big(size, offset, key, type_code, expire_ms)

    def soon(self, expire_ms: i64) -> None:
        """A key that expires within 30 days, or has expired."""
        i: i64 = 4
        current = self.current
        if current is not None:
            current.expiring += 1
            if expire_ms < self.now_ms:
                current.expired += 1
        if expire_ms < self.now_ms:
            i = 0
        elif expire_ms <= self.hour:
            i = 1
        elif expire_ms <= self.day:
            i = 2
        elif expire_ms <= self.week:
            i = 3
        self.buckets[i] += 1

    def big(self, size: i64, offset: i64, key: bytes, type_code: i64, expire_ms: i64) -> None:
        """Keep one of the biggest keys; of equal ones the first in the file."""
        item = (int(size), -int(offset), int(self.db), key, int(type_code), int(expire_ms))
        self.budget.spend("names of the biggest keys", len(key) + OBJECT)
        if len(self.biggest) < self.top:
            heapq.heappush(self.biggest, item)
        else:
            out = heapq.heapreplace(self.biggest, item)
            self.budget.give_back(len(out[3]) + OBJECT)
        if len(self.biggest) >= self.top:
            self.threshold = self.biggest[0][0]

    def look_inside(self, type_code: i64, buf: bytes, value_at: i64, size: i64) -> None:
        """Note what the beginning of a value says.

        A module value begins with its module's id; a listpack hash with field expiries with the first of them, 0 where all are
        gone.
        """
        if type_code == _LISTPACK_EX:
            if read_int64(buf, value_at) == 0:
                self.without_field_expiry += 1
            return
        number, _ = read_uint64(buf, value_at)
        name = (int(self.db), module_name(number), number & 1023)
        seen = self.modules.get(name)
        if seen is None:
            self.budget.spend("types of modules", 3 * OBJECT)
            self.modules[name] = [1, int(size)]
        else:
            seen[0] += 1
            seen[1] += int(size)

    def event(self, event: Event) -> None:
        name = type(event).__name__
        self.events[name] = self.events.get(name, 0) + 1
        if isinstance(event, ModuleAux):
            module = (event.module, event.version)
            self.module_data[module] = self.module_data.get(module, 0) + event.size
            if not holds_nothing(event.module, event.size):
                self.modules_in_use.add(module)
        elif isinstance(event, FunctionLibrary):
            self.functions.append(event)
        elif isinstance(event, Aux) and event.key == SCRIPT:
            self.budget.spend("Lua scripts", 2 * OBJECT)
            self.scripts.append((sha1(event.value, usedforsecurity=False).hexdigest(), len(event.value)))
        elif isinstance(event, SlotInfo):
            self.slots += 1

"""What `rdbkit memory` counts for each record, and its rows; compiled, since both run once a record."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Final, NamedTuple

from rdbkit.format.budget import OBJECT
from rdbkit.format.constants import SCRIPT, ValueType
from rdbkit.format.counts import element_count
from rdbkit.format.filter import Filter
from rdbkit.format.primitives import read_string, read_uint64
from rdbkit.format.scan import NO_EXPIRY, STRING_INT, STRING_LZF, TYPE_CODES, Visitor
from rdbkit.format.slots import key_slot
from rdbkit.model import Aux, EnterpriseHint, Event, FunctionLibrary, ModuleAux, SlotInfo, module_name
from rdbkit.passes.allocation import AllocationModel
from rdbkit.passes.footprint import ValueSizer, is_long, text_length
from rdbkit.passes.keys import CSV_HEAD, Rows, TextRows
from rdbkit.passes.patterns import Patterns
from rdbkit.products import holds_nothing

if TYPE_CHECKING:
    from mypy_extensions import i64

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
#: Ends of the columns of the histogram of expiries, as time left; what is behind the last is later.
EDGES: Final = (0, HOUR_MS, 6 * HOUR_MS, DAY_MS, 3 * DAY_MS, 7 * DAY_MS, 14 * DAY_MS, 30 * DAY_MS, 90 * DAY_MS, 365 * DAY_MS)

#: Before every expiry.
NEVER: Final = -(1 << 63)

_MODULE: Final = 7
_TABLED: Final = 512
_NUMBER_FROM: Final = 10  # digits of a number that is stored as text: shorter ones are stored as numbers
_NUMBER_TO: Final = 20


class RecordSizer:
    """Weighs records: what a key and its value take in memory.

    Args:
        types: of the snapshot.
        model: of the server.
    """

    def __init__(self, types: dict[int, ValueType], model: AllocationModel) -> None:
        self.model: AllocationModel = model
        self.value_sizer: ValueSizer = ValueSizer(types, model)
        self.simple: bool = not model.embedded
        self.counts_used: bool = model.counts_used
        self.keys: list[int] = [int(model.key(n, False)) for n in range(_TABLED)] if not model.embedded else []
        model.hidden = 0
        self.hidden_before: i64 = 0

    def weigh(self, type_code: i64, buf: bytes, key: i64, value_at: i64, end: i64, expires: bool) -> i64:
        """A record in a block, whose key has `key` bytes. Raises: CorruptError, with `offset` relative to `buf`."""
        model = self.model
        if type_code != 0 and type_code < STRING_INT:
            return model.key(key, expires) + self.value_sizer.whole(type_code, buf, value_at, end)
        n: i64
        at: i64 = value_at
        is_number: bool = False
        if type_code == 0:
            n = buf[at]
            if n < 0x40:
                at += 1
            elif n < 0x80:
                n = (n & 0x3F) << 8 | buf[at + 1]
                at += 2
            else:
                n = text_length(buf, at)
            if _NUMBER_FROM <= n <= _NUMBER_TO and buf[at] < 0x3A:
                is_number = is_long(buf[at:end])
        elif type_code == STRING_LZF:
            n = text_length(buf, at)
        else:
            n = 0
            is_number = True
        if self.simple and key < _TABLED and n < _TABLED:
            if is_number:
                return self.keys[key]
            if self.counts_used and n <= 44:
                model.hidden += model.beyond[n]
            return self.keys[key] + model.values[n]
        return model.string_key(key, n, is_number, expires)

    def weigh_large(self, type_code: i64, key: i64, expires: bool, head: bytes) -> i64:
        """A record larger than a block: its value begins with `head`, and the gauge has seen what `needs_pieces` wants."""
        if type_code == 0 or type_code >= STRING_INT:
            if type_code == STRING_INT:
                return self.model.key(key, expires)
            n: i64 = text_length(head, 0)
            is_number: bool = type_code == 0 and _NUMBER_FROM <= n <= _NUMBER_TO and is_long(head[1 : 1 + n])
            return self.model.string_key(key, n, is_number, expires)
        return self.model.key(key, expires) + self.value_sizer.finish()

    def begin_large(self, type_code: i64) -> None:
        """Make ready for a record larger than a block."""
        self.hidden_before = self.model.hidden
        self.value_sizer.begin(type_code)

    def drop_large(self) -> None:
        """It does not count."""
        self.model.hidden = self.hidden_before

    def needs_pieces(self, type_code: i64) -> bool:
        """Whether a large value of this type has to be read to be weighed."""
        return self.value_sizer.needs_reading(type_code)


class Sum:
    """Keys and bytes of one type; compiled, a few nanoseconds to add to."""

    __slots__ = ("bytes", "keys")

    def __init__(self) -> None:
        self.keys: i64 = 0
        self.bytes: i64 = 0


class DatabaseSums:
    """What has been weighed in one database: keys and bytes by type code, and how many of them expire."""

    __slots__ = ("by_type", "expiring")

    def __init__(self) -> None:
        self.by_type: dict[int, tuple[int, int]] = {}
        self.expiring: i64 = 0


class MemoryTally(Visitor):
    """Weighs every key, and counts by database, type, pattern and time left.

    Args:
        sizer: that of the snapshot's types.
        patterns: the tree to count names in.
        now_ms: what time left is counted from.
        top: how many of the biggest keys to keep.
        limit: most bytes of a key's name.
        wanted: which keys to count; None for all.

    Attributes:
        left: keys and bytes by the time they have left, a row for each of `EDGES` and one for later.
        last_expiry: the latest of all, NEVER for none.
        large_elements: to be set to the count of the record that `large` will receive next.
        modules: keys and bytes of each module type.
        module_data: module types that have data outside of keys.
        slots: of a cluster, that the file names.
        functions, scripts: libraries of functions and Lua scripts, whose memory is not known.
        enterprise_hints: what only Redis Enterprise writes.
        biggest: bytes, negative offset, database, key, type code, expiry and elements of each.
    """

    def __init__(self, sizer: RecordSizer, patterns: Patterns, now_ms: int, top: int, limit: int, wanted: Filter | None) -> None:
        super().__init__()
        self.sizer: RecordSizer = sizer
        self.patterns: Patterns = patterns
        self.now_ms: i64 = now_ms
        self.top: i64 = top
        self.limit: i64 = limit
        self.filter: Filter | None = wanted
        self.sums: list[Sum] = [Sum() for _ in range(TYPE_CODES)]
        self.databases: dict[int, DatabaseSums] = {}
        self.current: DatabaseSums = DatabaseSums()
        self.expiring: i64 = 0  # of the current database
        self.left: list[list[int]] = [[0, 0] for _ in range(len(EDGES) + 1)]
        self.later: i64 = 0
        self.later_bytes: i64 = 0
        self.last_edge: i64 = now_ms + EDGES[-1]
        self.last_expiry: i64 = NEVER
        self.large_elements: i64 = -1
        self.threshold: i64 = -1 if top > 0 else 1 << 62
        self.biggest: list[tuple[int, int, int, bytes, int, int, int]] = []
        self.modules: dict[str, tuple[int, int]] = {}
        self.module_data: set[str] = set()
        self.slots: i64 = 0
        self.functions: i64 = 0
        self.scripts: i64 = 0
        self.enterprise_hints: i64 = 0
        self.database()

    def database(self) -> None:
        self.sum_up()
        number = int(self.db)
        if self.filter is not None:
            self.filter.database(number)
        found = self.databases.get(number)
        if found is None:
            found = DatabaseSums()
            self.databases[number] = found
        self.current = found

    def sum_up(self) -> None:
        """Add what was counted for the current database to it, and start again from zero."""
        current = self.current
        current.expiring += self.expiring
        self.expiring = 0
        later = self.left[len(EDGES)]
        later[0] += int(self.later)
        later[1] += int(self.later_bytes)
        self.later = 0
        self.later_bytes = 0
        for type_code in range(TYPE_CODES):
            counted = self.sums[type_code]
            if counted.keys > 0:
                keys, size = current.by_type.get(type_code, (0, 0))
                current.by_type[type_code] = (keys + int(counted.keys), size + int(counted.bytes))
                counted.keys = 0
                counted.bytes = 0

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        buf = self.buf
        if self.filter is not None and not self.filter.wants(buf, key_at, type_code, end - start, expire_ms):
            return
        if buf[key_at] < 0x40:
            key = buf[key_at + 1 : value_at]
        else:
            key, _ = read_string(buf, key_at, self.limit)
        size: i64 = self.sizer.weigh(type_code, buf, len(key), value_at, end, expire_ms != NO_EXPIRY)
        self.count(type_code, key, size, expire_ms, buf, value_at)
        if size > self.threshold:
            self.big(size, self.base + start, key, type_code, expire_ms, self.elements(type_code, value_at, end))

    def large(self, type_code: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        if self.filter is not None and not self.filter.wants_large(key, type_code, size, expire_ms):
            self.sizer.drop_large()
            return
        size = self.sizer.weigh_large(type_code, len(key), expire_ms != NO_EXPIRY, head)
        self.count(type_code, key, size, expire_ms, head, 0)
        if size > self.threshold:
            self.big(size, offset, key, type_code, expire_ms, self.large_elements)

    def count(self, type_code: i64, key: bytes, size: i64, expire_ms: i64, buf: bytes, value_at: i64) -> None:
        """A key that takes `size` bytes, whose value begins in `buf` at `value_at`."""
        counted = self.sums[type_code]
        counted.keys += 1
        counted.bytes += size
        node = self.patterns.find(key)
        node.keys += 1
        node.bytes += size
        if expire_ms != NO_EXPIRY:
            node.expiring += 1
            node.expiring_bytes += size
            self.expires(expire_ms, size)
        if type_code == _MODULE:
            self.module(buf, value_at, size)

    def module(self, buf: bytes, value_at: i64, size: i64) -> None:
        """A value of `size` bytes that begins with the id of its module's type."""
        number, _ = read_uint64(buf, value_at)
        name = module_name(number)
        if name not in self.modules:
            self.budget.spend("types of modules", 3 * OBJECT)
        keys, total = self.modules.get(name, (0, 0))
        self.modules[name] = (keys + 1, total + int(size))

    def expires(self, expire_ms: i64, size: i64) -> None:
        """A key of `size` bytes expires."""
        self.expiring += 1
        if expire_ms > self.last_expiry:
            self.last_expiry = expire_ms
        if expire_ms > self.last_edge:
            self.later += 1
            self.later_bytes += size
            return
        for at in range(len(EDGES)):
            if expire_ms <= self.now_ms + EDGES[at]:  # the difference could be more than 64 bits hold
                row = self.left[at]
                row[0] += 1
                row[1] += int(size)
                return

    def event(self, event: Event) -> None:
        if isinstance(event, SlotInfo):
            self.slots += 1
        elif isinstance(event, FunctionLibrary):
            self.functions += 1
        elif isinstance(event, Aux):
            if event.key == SCRIPT:
                self.scripts += 1
        elif isinstance(event, EnterpriseHint):
            self.enterprise_hints += 1
        elif isinstance(event, ModuleAux) and event.module not in self.module_data and not holds_nothing(event.module, event.size):
            self.budget.spend("types of modules", OBJECT)
            self.module_data.add(event.module)

    def elements(self, type_code: i64, value_at: i64, end: i64) -> i64:
        """How many elements a value has that has just been weighed."""
        return element_count(self.sizer.value_sizer.rules[type_code], self.buf, value_at, end)

    def big(self, size: i64, offset: i64, key: bytes, type_code: i64, expire_ms: i64, elements: i64) -> None:
        """Keep one of the biggest keys; of equal ones the first in the file."""
        item = (int(size), -int(offset), int(self.db), key, int(type_code), int(expire_ms), int(elements))
        self.budget.spend("names of the biggest keys", len(key) + OBJECT)
        if len(self.biggest) < self.top:
            heapq.heappush(self.biggest, item)
        else:
            out = heapq.heapreplace(self.biggest, item)
            self.budget.give_back(len(out[3]) + OBJECT)
        if len(self.biggest) >= self.top:
            self.threshold = self.biggest[0][0]


class MemoryRow(NamedTuple):
    """What `rdbkit memory` reports of one key.

    `memory`: bytes that it takes in the server's memory, as MEMORY USAGE would answer; the others are those of
    `rdbkit.operations.keys.KeyRow`.
    """

    db: int
    key: bytes
    type: str
    encoding: str
    memory: int
    size: int
    elements: int | None
    expire_ms: int | None
    idle_s: int | None
    freq: int | None
    slot: int


CSV_HEAD_OF_MEMORY: Final = CSV_HEAD.replace(b",size,", b",memory,size,")


class MemoryRows(Rows):
    """Collects the rows of a block."""

    def __init__(self, types: dict[int, ValueType], sizer: RecordSizer, name_limit: int, wanted: Filter | None) -> None:
        super().__init__(types, name_limit, wanted, None)
        self.sizer: RecordSizer = sizer
        self.rows: list[MemoryRow] = []

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        if self.filter is None or self.filter.wants(self.buf, key_at, type_code, end - start, expire_ms):
            key, _ = read_string(self.buf, key_at, self.name_limit)
            self.memory = self.sizer.weigh(type_code, self.buf, len(key), value_at, end, expire_ms != NO_EXPIRY)
            self.add(type_code, key, end - start, element_count(self.rules[type_code], self.buf, value_at, end), expire_ms)

    def large(self, type_code: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        if self.filter is None or self.filter.wants_large(key, type_code, size, expire_ms):
            self.memory = self.sizer.weigh_large(type_code, len(key), expire_ms != NO_EXPIRY, head)
            self.add(type_code, key, size, self.large_elements, expire_ms)

    def add(self, type_code: i64, key: bytes, size: i64, elements: i64, expire_ms: i64) -> None:
        self.rows.append(
            MemoryRow(
                self.db,
                key,
                self.types[type_code],
                self.encodings[type_code],
                self.memory,
                size,
                None if elements < 0 else elements,
                None if expire_ms == NO_EXPIRY else expire_ms,
                None if self.idle_s < 0 else self.idle_s,
                None if self.freq < 0 else self.freq,
                key_slot(key),
            )
        )

    def take(self) -> list[MemoryRow]:
        """The rows since the last call."""
        rows = self.rows
        self.rows = []
        return rows


class MemoryText(TextRows):
    """Writes rows as lines of CSV, or of JSON where `as_json`."""

    def __init__(
        self, types: dict[int, ValueType], sizer: RecordSizer, name_limit: int, wanted: Filter | None, as_json: bool
    ) -> None:
        super().__init__(types, name_limit, wanted, None, as_json, True)
        self.sizer: RecordSizer = sizer

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        n: i64 = text_length(self.buf, key_at)
        self.memory = self.sizer.weigh(type_code, self.buf, n, value_at, end, expire_ms != NO_EXPIRY)
        super().record(type_code, start, key_at, value_at, end, expire_ms)

    def large(self, type_code: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        self.memory = self.sizer.weigh_large(type_code, len(key), expire_ms != NO_EXPIRY, head)
        super().large(type_code, offset, key, size, expire_ms, head)

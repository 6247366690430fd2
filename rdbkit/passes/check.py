"""A conversion that only looks: what it would change and lose, counted; compiled, since it runs once a record.

What `convert` decides is decided here by the same code, so that the two cannot disagree: what it re-encodes is decoded here, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rdbkit.errors import RdbError
from rdbkit.format.budget import OBJECT
from rdbkit.format.decode import FileTypes
from rdbkit.format.primitives import read_string
from rdbkit.format.scan import NO_EXPIRY, TYPE_CODES
from rdbkit.model import Aux, Event, ModuleAux, SlotInfo, module_name
from rdbkit.passes.convert import Rewriter
from rdbkit.passes.slots import KeySlots
from rdbkit.passes.value import COPY, MODULE, ValueConverter
from rdbkit.policy.ledger import Ledger, Loss
from rdbkit.policy.rules import Rules
from rdbkit.products import holds_nothing

if TYPE_CHECKING:
    from mypy_extensions import i64

MOST_DATABASES: Final = 1000
#: What a Valkey that is a node of a cluster writes in front of a slot's keys: slot, keys and more numbers, as text.
_SLOT_INFO: Final = b"slot-info"
_LONGEST_SLOT_INFO: Final = 100


class Tally:
    """How often something was met: how many of it, in how many keys, their bytes in the file, and the first keys.

    `samples` are database, key and offset.
    """

    def __init__(self) -> None:
        self.count: i64 = 0
        self.keys: i64 = 0
        self.bytes: i64 = 0
        self.samples: list[tuple[int, bytes, int]] = []


class CountingConverter(ValueConverter):
    """A `ValueConverter` that counts what it meets of modules.

    Attributes:
        module_keys: keys of each module type, by its name, the version of its encoding, and whether the target has it.
        documents: JSON documents in values of modules that the target does not have.
    """

    def __init__(self, file_types: FileTypes, rules: Rules) -> None:
        self.module_keys: dict[tuple[str, int, bool], int] = {}
        self.documents: i64 = 0
        super().__init__(file_types, rules)

    def has_module(self, number: int) -> bool:
        found = super().has_module(number)
        met = (module_name(number), number & 1023, found)
        if met not in self.module_keys:
            self.file_types.budget.spend("types of modules", 3 * OBJECT)
        self.module_keys[met] = self.module_keys.get(met, 0) + 1
        return found

    def keeps_document(self, kind: str) -> bool:
        if kind == "module":
            self.documents += 1
        return super().keeps_document(kind)


class DryRun(Rewriter):
    """Looks at the blocks of a snapshot as `Rewriter` does, and writes nothing.

    Args:
        samples: how many keys to keep of each tally.

    Attributes:
        tallies: of losses and notes, by kind.
        encodings: of values whose encoding the target does not know, by type byte.
        expired: of keys that have expired.
        damaged: of values that the target would refuse, by the rule that they break, with what is wrong with the first.
        highest_db: the highest number of a database that the file names.
        counted: the converter, which counts what it meets of modules.
        module_data: pieces of data of modules outside of keys, by type, version of the encoding, and whether the target has it.
        moving: of keys in databases that the target does not have. They are looked at as if they were in one that it has, since
            they can be moved there.
        databases_met: those that have keys, up to `MOST_DATABASES` of them.
        slots: the hash slots of the keys.
        records, bytes: all keys, and what they take in the file.
    """

    def __init__(self, converter: CountingConverter, limit: int, rules: Rules, ledger: Ledger, samples: int) -> None:
        self.most: i64 = samples
        self.tallies: dict[str, Tally] = {}
        self.encodings: list[Tally | None] = [None] * TYPE_CODES
        self.expired: Tally = Tally()
        self.damaged: dict[str, tuple[Tally, str]] = {}
        self.module_data: dict[tuple[str, int, bool], int] = {}
        self.highest_db: i64 = 0
        self.moving: Tally = Tally()
        self.databases_met: set[int] = set()
        self.slots: KeySlots = KeySlots()
        self.counts_slots: bool = True  # of the next key
        self.is_away: bool = False  # the keys at hand are in such a database
        self.reports_database: bool = True  # the next key is the first of its database, or is away
        self.records: i64 = 0
        self.bytes: i64 = 0
        self.counted: CountingConverter = converter
        super().__init__(converter, limit, rules, ledger)

    # -- nothing is written

    def copy_to(self, pos: i64) -> None:
        self.copied = pos

    def end_segment(self) -> None:
        self.out.truncate(0)
        self.add_segment(b"")

    def add_segment(self, data: bytes) -> None:
        self.written += self.keys
        self.keys = 0
        self.expires = 0

    # -- everything is counted

    def database(self) -> None:
        super().database()
        if self.db > self.highest_db:
            self.highest_db = self.db
        self.is_away = self.db_missing
        self.db_missing = False
        self.needs_inspection = False
        self.reports_database = True

    def report_database(self, buf: bytes, key_at: i64, key: bytes, offset: i64, size: i64) -> None:
        """Where a key is: in `buf` from `key_at` on, or `key` itself where that is -1."""
        if len(self.databases_met) < MOST_DATABASES:
            self.databases_met.add(int(self.db))
        if not self.is_away:
            self.reports_database = False
        elif key_at < 0:
            self.add(self.moving, 1, key, offset, size)
        else:
            self.met(self.moving, 1, buf, key_at, offset, size)

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        self.records += 1
        self.bytes += end - start
        if self.counts_slots:
            self.counts_slots = self.slots.key_at(self.buf, key_at, value_at, self.limit)
        if self.reports_database:
            self.report_database(self.buf, key_at, b"", self.base + start, end - start)
        if expire_ms != NO_EXPIRY and expire_ms <= self.now_ms:
            self.met(self.expired, 1, self.buf, key_at, self.base + start, end - start)
        action = self.actions[type_code]
        # nothing is special, and a call is saved
        if action == COPY and not self.looks[type_code] and not self.needs_inspection and not self.no_hints:
            self.last_at = key_at
            self.last_kept = True
            if self.hashes is not None:
                first: i64 = self.buf[key_at]
                if first < 0x40:
                    self.hashes.add(self.out_db, self.buf[key_at + 1 : value_at])
                else:
                    self.hash_name(read_string(self.buf, key_at, self.limit)[0], self.base + start)
            elif self.placed is not None:
                self.hash_name(read_string(self.buf, key_at, self.limit)[0], self.base + start)
            return
        if action not in (COPY, MODULE):
            self.met(self.encoding(type_code), 1, self.buf, key_at, self.base + start, end - start)
        super().record(type_code, start, key_at, value_at, end, expire_ms)

    def large(self, type_code: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        self.records += 1
        self.bytes += size
        self.slots.key(key)
        if self.reports_database:
            self.report_database(b"", -1, key, offset, size)
        if expire_ms != NO_EXPIRY and expire_ms <= self.now_ms:
            self.add(self.expired, 1, key, offset, size)
        action = self.actions[type_code]
        if action not in (COPY, MODULE):
            self.add(self.encoding(type_code), 1, key, offset, size)

    def event(self, event: Event) -> None:
        if isinstance(event, SlotInfo):
            self.slots.slot(event.slot, event.keys)
            self.counts_slots = True
        elif isinstance(event, Aux) and event.key == _SLOT_INFO:
            numbers = event.value.split(b",")
            if len(event.value) < _LONGEST_SLOT_INFO and len(numbers) > 1 and numbers[0].isdigit() and numbers[1].isdigit():
                self.slots.slot(int(numbers[0]), int(numbers[1]))
                self.counts_slots = True
        super().event(event)

    def loses_module_data(self, data: ModuleAux) -> bool:
        lost = super().loses_module_data(data)
        if lost and holds_nothing(data.module, data.size):
            return True
        met = (data.module, data.version, not lost)
        if met not in self.module_data:
            self.budget.spend("types of modules", 3 * OBJECT)
        self.module_data[met] = self.module_data.get(met, 0) + 1
        return lost

    def leave_damaged(self, e: RdbError) -> None:
        rule = e.rule or ""
        found = self.damaged.get(rule)
        if found is None:
            found = (Tally(), e.message)
            self.damaged[rule] = found
        self.add(found[0], 1, self.key, self.offset, self.size)

    def encoding(self, type_code: i64) -> Tally:
        tally = self.encodings[type_code]
        if tally is None:
            tally = Tally()
            self.encodings[type_code] = tally
        return tally

    def met(self, tally: Tally, count: i64, buf: bytes, key_at: i64, offset: i64, size: i64) -> None:
        key = b""
        if len(tally.samples) < self.most:
            key, _ = read_string(buf, key_at, self.limit)
        self.add(tally, count, key, offset, size)

    def add(self, tally: Tally, count: i64, key: bytes, offset: i64, size: i64) -> None:
        tally.count += count
        tally.keys += 1
        tally.bytes += size
        if len(tally.samples) < self.most:
            self.budget.spend("names of keys to be reported", len(key) + OBJECT)
            tally.samples.append((int(self.db), key, int(offset)))

    def enter_loss(self, loss: Loss, forbidden: bool) -> None:
        super().enter_loss(loss, forbidden)
        tally = self.tallies.get(loss.kind)
        if tally is None:
            tally = Tally()
            self.tallies[loss.kind] = tally
        if loss.key is None:
            tally.count += loss.count
        else:
            self.add(tally, loss.count, loss.key, self.offset, self.size)

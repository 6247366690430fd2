"""Records and events as a target takes them; compiled, since it runs once a record.

What need not change is not looked at: it is copied with all that stands around it, as one slice of the block from the end of the
last change to the beginning of the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from librt.strings import BytesWriter, write_i64_le

from rdbkit.errors import CorruptError, LossError, RdbError
from rdbkit.format import constants as c
from rdbkit.format.counts import count_rule, element_count
from rdbkit.format.decode import Decoder, FileTypes
from rdbkit.format.encode import encode_value, write_length, write_string
from rdbkit.format.filter import Filter
from rdbkit.format.primitives import read_string, read_uint64, skip_string
from rdbkit.format.record import Record
from rdbkit.format.scan import KINDS, NO_EXPIRY, STRING_INT, STRING_LZF, Visitor
from rdbkit.format.sink import Items
from rdbkit.format.streams import level_of, type_of
from rdbkit.format.transcode import DROP_FIELDS, HASH, HASH_EXPIRING, HASH_VALKEY, KEEP_FIELDS, Recoder
from rdbkit.format.transcode_stream import StreamRecoder
from rdbkit.model import (
    Aux,
    Event,
    FunctionLibrary,
    HashTemplate,
    KeyMetadata,
    ModuleAux,
    ResizeDb,
    SelectDb,
    SlotImport,
    SlotInfo,
    module_name,
)
from rdbkit.passes.hashes import NameHashes, PlacedNames
from rdbkit.passes.json_text import number_text
from rdbkit.passes.value_checker import EMPTY, ORDER, TWICE, ElementNames, ValueChecker
from rdbkit.passes.verify import judge_event
from rdbkit.policy.ledger import Ledger, Loss
from rdbkit.policy.rules import FAIL, Rules
from rdbkit.values import Hash

if TYPE_CHECKING:
    from mypy_extensions import i64

# What becomes of a value, by its type.
COPY: Final = 0
COLLECTION: Final = 1
FIELDS: Final = 2  # a hash whose fields can expire
STREAM: Final = 3
ARRAY: Final = 4
MODULE: Final = 5
JSON: Final = 6  # Dragonfly's documents
LOST: Final = 7

#: Of a record that has been left out.
_DONE: Final = -1
_LENGTH_RULE: Final = "stream-length"
_DEAD_RULE: Final = "stream-node-live"
#: Rules whose breach is corrected when a stream is written.
_MENDED: Final = (_LENGTH_RULE, "stream-no-node", "stream-added", "group-read", _DEAD_RULE)
_REFUSED: Final = (_LENGTH_RULE, "stream-added", "group-read", _DEAD_RULE)
# What to look at of a record before it is copied, by its kind.
OPEN: Final = 1  # its value
_EMPTY: Final = 2  # whether it has elements
IMPOSSIBLE: Final = 4  # the file's version has no such type
#: No collection without elements takes more bytes, if it has one node at most.
_EMPTY_BYTES: Final = 24
_NEVER_EMPTY: Final = ("zipmap", "intset")  # packed encodings that are refused without elements
_EMPTY_SINCE: Final = 10  # servers that load this version skip keys without elements

_STRING: Final = 0
_MODULE: Final = 7
_JSON_MODULE: Final = "ReJSON-RL"
_JSON_VERSIONS: Final = (2, 3)  # of its encodings, those that begin with the document as text
_MODULE_STRING: Final = 5
_SECONDS_ONLY: Final = 3  # RDB versions before this have no milliseconds, and 32 bits for seconds
_LAST_SECOND: Final = 1 << 31
_SECONDS_HEAD: Final = 6  # bytes of such an expiry and a type
#: Bytes that are handed over in the middle of a block.
_HANDED_OVER: Final = 8 << 20
#: No expiry is later.
LAST_MS: Final = (1 << 63) - 1


class Segment(NamedTuple):
    """Bytes to write next: `keys` records of database `db`, `expires` of them with an expiry.

    Without keys, `db` does not matter. `declared_counts` is the source's RESIZEDB; `has_selectdb` whether the source has a
    SELECTDB, which the first database need not have.
    """

    db: int
    data: bytes
    keys: int
    expires: int
    declared_counts: tuple[int, int] | None
    has_selectdb: bool


class Rewriter(Visitor):
    """Makes of the blocks of a snapshot what a target takes.

    Args:
        file_types: of the snapshot.
        limit: most bytes of a key's name.
        rules: what to do.
        ledger: where losses go.

    Attributes:
        written: records so far.
        left_out: records that the selection, an edit or a policy left out.
        skipped: what was wrong with the values left out because they are damaged.
        functions: sources of the libraries that were taken out.
        changed: whether anything of the source is not copied as it stands.
        hashes, placed: take the names of keys, to find those that come twice, with the databases that they come from or go to.
        opened: records whose value was looked into.
        hand_over: called in the middle of a block where what `take` gives has become much; None where it is to wait.
    """

    def __init__(self, file_types: FileTypes, limit: int, rules: Rules, ledger: Ledger) -> None:
        super().__init__()
        self.wants_module_data = True
        self.file_types: FileTypes = file_types
        self.limit: i64 = limit
        self.rules: Rules = rules
        self.ledger: Ledger = ledger
        self.hand_over: Any = None
        self.out: BytesWriter = BytesWriter()
        self.segments: list[Segment] = []
        self.copied: i64 = 0
        self.out_db: int = 0
        self.keys: i64 = 0
        self.expires: i64 = 0
        self.declared_counts: tuple[int, int] | None = None
        self.has_selectdb: bool = False
        self.written: i64 = 0
        self.left_out: i64 = 0
        self.skipped: list[RdbError] = []
        self.functions: list[bytes] = []
        self.libraries: i64 = 0  # that are kept
        self.library_names: set[bytes] = set()
        self.changed: bool = False
        # what the target has
        target, header, policies = rules.target, rules.header, rules.policies
        self.version: i64 = header.version if header.flavour == c.REDIS else c.NEWEST_REDIS
        self.flavour: str = header.flavour
        self.header_version: int = header.version
        self.single_db: bool = target.single_db
        self.databases: int = target.databases or 0
        self.has_functions: bool = target.rdb >= 10
        # a file of the same version stays as it is; of other versions, most servers refuse such functions
        self.keeps_pre_release: bool = target.pre_release_functions or (target.exact and header == rules.source)
        self.has_metadata: bool = header.flavour == c.REDIS and header.version >= 13
        # a version of the format says nothing of what a server has loaded
        keeps_all = policies.chosen("module") == "keep" or (target.exact and policies.module is None)
        self.modules: Any = {*target.modules, *target.optional_modules} if _MODULE in rules.known else set()
        if keeps_all and _MODULE in rules.known:
            self.modules = None
        self.is_keydb: bool = 64 in target.extra_types
        # what is to be done
        self.filter: Filter | None = None if rules.selection is None else rules.selection.filter_for(file_types.types, limit)
        self.edits: Any = rules.edits
        self.edited: bool = rules.edits.drop_expired or rules.edits.set_ttl_ms is not None or rules.edits.shift_ttl_ms != 0
        self.edited = self.edited or bool(rules.edits.rename_prefix) or bool(rules.decisions) or rules.edits.script is not None
        self.edited = self.edited or bool(rules.duplicates)
        self.no_hints: bool = header.flavour == c.REDIS and header.version < 9
        self.seconds_only: bool = header.version < _SECONDS_ONLY
        # a file of the same version keeps what later servers wrote into it
        self.fits_expiry: bool = self.seconds_only and not (target.exact and header == rules.source)
        self.has_decisions: bool = bool(rules.decisions)
        self.duplicates: frozenset[int] = rules.duplicates
        self.now_ms: i64 = rules.now_ms
        self.on: dict[str, str] = {
            name: policies.chosen(name)
            for name in (
                "loss", "field_ttl", "function", "module", "stream_extras", "pending_unowned", "array", "key_metadata", "oversize"
            )
        }  # fmt: skip
        known = rules.known
        field_kind = HASH_EXPIRING if HASH_EXPIRING in known else HASH
        if header.flavour == c.VALKEY and HASH_VALKEY in known:
            field_kind = HASH_VALKEY
        policy = DROP_FIELDS if self.on["field_ttl"] == "drop-field" else KEEP_FIELDS
        self.recoder: Recoder = Recoder(
            file_types, field_kind, policy, rules.now_ms, self.version < 8, rules.compress, ElementNames()
        )
        level = max([level_of(number) for number in known] + [0])
        self.streams: StreamRecoder = StreamRecoder(level, policies.owner, _DEAD_RULE in rules.tolerated)
        self.streams.budget = file_types.budget
        self.ways: list[int] = [LOST] * 258
        self.becomes: list[int] = self.recoder.becomes
        for t in file_types.types.values():
            self.ways[t.id] = self.way_of(t, known, level)
        self.out_db = rules.edits.db_of(0)  # where no database is named, it is 0
        self.changed = self.out_db != 0
        self.ways[256] = COPY
        self.ways[257] = COPY
        self.hashes: NameHashes | None = None
        self.placed: PlacedNames | None = None
        self.opened: i64 = 0
        self.mends: bool = rules.edits.on_duplicate != FAIL  # elements that come twice
        self.keeps_last: bool = rules.edits.on_duplicate == "last"
        mended = {*_MENDED, ORDER}
        if self.mends:
            mended.add(TWICE)
        self.tolerated: frozenset[str] = rules.tolerated
        self.checker: ValueChecker = ValueChecker(file_types, rules.tolerated | mended)
        self.drops_empty: bool = target.rdb < _EMPTY_SINCE
        self.looks: bytes = self.what_to_look_at()
        # of the record at hand
        self.metadata: list[KeyMetadata] = []
        self.drops_attributes: bool = False
        self.db_missing: bool = False  # it is in a database that the target does not have
        self.needs_inspection: bool = False  # it is outside, or has attributes that the target may not know
        self.key: bytes = b""
        self.offset: i64 = 0
        self.size: i64 = 0
        self.new_key: bytes | None = None
        self.expire_ms: i64 = NO_EXPIRY
        self.head_changed: bool = False  # its attributes, key or type change
        self.mend: bool = False  # elements of it come twice, of which one is to be kept
        # of the last record, of which a KeyDB file may say more
        self.last_at: i64 = -1
        self.last_key: bytes = b""
        self.last_kept: bool = False
        # what a script made of it
        self.draft: Any = None
        self.names: Any = None  # a NameLog, where there is a script
        self.to_db: int = -1
        self.moved: bool = False
        self.database()

    def what_to_look_at(self) -> bytes:
        """By kind of record, what has to be seen before it can be copied."""
        looks = bytearray(KINDS)
        opens = self.checker.opens
        source = self.rules.source
        for number in c.newer_types(source.flavour, source.version):
            looks[number] |= IMPOSSIBLE
        for t in self.file_types.types.values():
            # of the streams that are written, nodes are never decoded otherwise
            in_doubt = t.type == "stream" and (self.ways[t.id] == STREAM or any(rule not in self.tolerated for rule in _REFUSED))
            if self.rules.deep or in_doubt:
                looks[t.id] |= OPEN if opens[t.id] else 0
            elif t.type in ("list", "set", "zset", "hash") and (self.drops_empty or t.packed in _NEVER_EMPTY):
                looks[t.id] |= _EMPTY
        if self.rules.deep:
            looks[STRING_LZF] = OPEN
        return bytes(looks)

    def way_of(self, t: c.ValueType, known: dict[int, c.ValueType], level: int) -> int:
        if t.type == "module":
            return COPY if self.modules is None else MODULE
        if known.get(t.id) == t:
            return COPY
        if t.type == "stream":
            return STREAM if level else LOST
        if t.type == "array":
            return ARRAY
        if t.type == "json":
            return JSON
        if self.file_types.arities[t.id] == 3:
            return FIELDS
        return COLLECTION if t.type in ("list", "set", "zset", "hash") else LOST

    # -- the frame of blocks

    def enter(self, pos: i64) -> None:
        self.copied = pos

    def leave(self, pos: i64) -> None:
        self.copy_to(pos)
        if self.last_at >= 0:  # the block goes, and more may be said of its last record
            self.last_key, _ = read_string(self.buf, self.last_at, self.limit)
            self.last_at = -1
        self.end_segment()

    def copy_to(self, pos: i64) -> None:
        """Take over what stands before `pos` and has not been copied or cut out."""
        if pos > self.copied:
            if len(self.out) == 0 and self.copied == 0 and pos == len(self.buf):
                self.add_segment(self.buf)
            else:
                self.out.write(self.buf[self.copied : pos])
            self.copied = pos

    def cut(self, start: i64, end: i64) -> None:
        """Leave `buf[start:end]` out of what is copied."""
        self.copy_to(start)
        self.copied = end
        self.changed = True

    def end_segment(self) -> None:
        if len(self.out) > 0:
            data = self.out.getvalue()
            self.out.truncate(0)
            self.add_segment(data)

    def add_segment(self, data: bytes) -> None:
        self.segments.append(Segment(self.out_db, data, int(self.keys), int(self.expires), self.declared_counts, self.has_selectdb))
        self.written += self.keys
        self.keys = 0
        self.expires = 0

    def take(self) -> list[Segment]:
        """What there is to be written since the last call."""
        segments = self.segments
        self.segments = []
        return segments

    # -- what stands around records

    def database(self) -> None:
        db = int(self.db)
        to: int = self.edits.db_of(db)
        self.db_missing = (self.single_db and to > 0) or 0 < self.databases <= to
        if self.filter is not None:
            self.filter.database(db)
        self.needs_inspection = self.db_missing

    def event(self, event: Event) -> None:
        start: i64 = self.event_at
        end: i64 = self.event_end
        if isinstance(event, KeyMetadata):
            self.metadata.append(event)
            self.needs_inspection = True
            return
        if isinstance(event, Aux) and event.key.startswith(c.MEMBER_EXPIRY):
            self.member_expiry(event, start, end)
            return
        if start < 0:
            if isinstance(event, Aux) and self.version < 7:  # of the record, and copied with it by others
                self.needs_inspection = True
                self.drops_attributes = True
            return
        if isinstance(event, SelectDb):
            # the writer does this where the database has keys
            changed = self.changed or self.db_missing
            self.cut(start, end)
            self.end_segment()
            self.out_db = self.edits.db_of(event.db)
            self.changed = changed or self.out_db != event.db
            self.declared_counts = None
            self.has_selectdb = True
        elif isinstance(event, ResizeDb):
            changed = self.changed
            self.cut(start, end)
            self.changed = changed
            self.end_segment()
            self.declared_counts = (event.keys, event.expires)
        elif isinstance(event, Aux):
            if self.version < 7:
                self.cut(start, end)
                self.note("aux", "a field about the file")
        elif isinstance(event, FunctionLibrary):
            self.function(event, start, end)
        elif isinstance(event, ModuleAux):
            self.module_data(event, start, end)
        elif isinstance(event, SlotInfo):
            if self.flavour != c.REDIS or self.version < 12:
                self.cut(start, end)  # a hint
        elif isinstance(event, SlotImport):
            if self.flavour != c.VALKEY:
                self.cut(start, end)
                self.note("slot-import", "a slot import that was going on")
        elif isinstance(event, HashTemplate) and (self.flavour != c.REDIS or self.version < 15):
            self.cut(start, end)

    def note(self, kind: str, what: str, count: i64 = 1, key: bytes | None = None) -> None:
        """Enter what is no loss of data, at the record at hand where `key` is given."""
        if key is None:
            self.enter_loss(Loss(kind, what, int(count), None, None, True), False)
        else:
            self.enter_loss(Loss(kind, what, int(count), int(self.db), key, True), False)

    def enter_loss(self, loss: Loss, forbidden: bool) -> None:
        self.ledger.add(loss, forbidden)

    def lose(self, kind: str, what: str, count: i64, policy: str) -> None:
        """Enter a loss at the record at hand."""
        self.enter_loss(Loss(kind, what, int(count), int(self.db), self.key), self.on[policy] == FAIL)

    def function(self, library: FunctionLibrary, start: i64, end: i64) -> None:
        source = library.code
        why = self.refusal(library)
        if self.has_functions and not why:
            self.libraries += 1
            self.extract(library)
            if library.pre_release and not self.keeps_pre_release:
                self.cut(start, end)
                self.out.append(c.FUNCTION2)
                write_string(self.out, source)
            return
        self.cut(start, end)
        chosen = self.on["function"]
        what = f"function library {library.name!r}"
        if self.has_functions:
            what += f": {why}"
        loss = Loss("function", what, 1, None, None, chosen == "extract")
        self.enter_loss(loss, chosen == FAIL)
        if library.pre_release:  # of the others the scan has counted what is kept
            self.budget.spend("libraries of functions", len(source))
        self.functions.append(source)

    def extract(self, library: FunctionLibrary) -> None:
        """Give the source of a library that stays, where the policy asks for it."""
        if self.on["function"] == "extract":
            self.functions.append(library.code)
            self.note("function-kept", f"function library {library.name!r}, which is in the file as well")

    def refusal(self, library: FunctionLibrary) -> str:
        """Why no server loads a library of functions, as far as can be told without compiling it; nothing where none is known."""
        if library.pre_release and not self.keeps_pre_release and not library.can_have_head:
            return "its name or engine has other characters than letters, digits and _"
        if not self.has_functions or self.rules.target.exact:
            return ""
        try:
            judge_event(library, self.library_names)
        except CorruptError as e:
            return e.message
        if library.engine.lower() != "lua":
            return f"no server has the engine {library.engine!r}"
        return "" if b"register_function" in library.source else "it registers no function"

    def module_data(self, data: ModuleAux, start: i64, end: i64) -> None:
        """Data of a module outside of keys, in `buf[start:end]`."""
        if self.loses_module_data(data):
            self.cut(start, end)

    def loses_module_data(self, data: ModuleAux) -> bool:
        if self.version >= 9 and (self.modules is None or data.module in self.modules):
            return False
        loss = Loss("module-aux", f"data of module {data.module} outside of keys", 1, None, None)
        self.enter_loss(loss, self.on[self.module_policy()] == FAIL)
        return True

    def member_expiry(self, event: Aux, start: i64, end: i64) -> None:
        """KeyDB says behind a key when its members expire, in pairs of AUX fields."""
        if self.is_keydb and self.last_kept:
            return
        self.cut(start, end)
        if self.last_kept and event.key.endswith(b"-when"):
            if self.last_at >= 0:
                self.last_key, _ = read_string(self.buf, self.last_at, self.limit)
            self.key = self.last_key
            self.lose("member-expiry", "the expiry of a member", 1, "loss")

    # -- records

    def record(self, kind: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        self.last_at = key_at
        self.last_kept = True
        way: i64 = self.ways[kind]
        if self.no_hints and (self.idle_s >= 0 or self.freq >= 0 or (self.fits_expiry and expire_ms != NO_EXPIRY)):
            # an expiry in seconds and nothing else is as it has to be
            is_short = key_at - start == _SECONDS_HEAD and self.buf[start] == c.EXPIRETIME
            self.needs_inspection = self.needs_inspection or not is_short
        if self.filter is not None and not self.filter.wants(self.buf, key_at, kind, end - start, expire_ms):
            self.leave_out(start, end)
            return
        if self.looks[kind]:
            way = self.look(kind, way, start, key_at, value_at, end)
            if way == _DONE:
                return
        if way == COPY and not self.edited and not self.needs_inspection:
            if self.hashes is not None:
                first: i64 = self.buf[key_at]
                if first < 0x40:
                    self.hashes.add(self.db, self.buf[key_at + 1 : value_at])
                else:
                    self.hash_name(read_string(self.buf, key_at, self.limit)[0], self.base + start)
            elif self.placed is not None:
                self.hash_name(read_string(self.buf, key_at, self.limit)[0], self.base + start)
            self.keys += 1
            if expire_ms != NO_EXPIRY:
                self.expires += 1
        elif way == COLLECTION and not self.edited and not self.needs_inspection and not self.mend:
            self.collection(kind, start, key_at, value_at, end, expire_ms)
        else:
            self.change(kind, way, start, key_at, value_at, end, expire_ms)
            self.mend = False
            self.end_record()
        if len(self.out) > _HANDED_OVER and self.hand_over is not None:
            self.end_segment()
            self.hand_over()

    def look(self, kind: i64, way: i64, start: i64, key_at: i64, value_at: i64, end: i64) -> i64:
        """See whether the target loads the value; return what is to become of it, _DONE where the record has been left out.

        Raises: RdbError where it does not, unless such values are left out.
        """
        looks: i64 = self.looks[kind]
        try:
            if looks & IMPOSSIBLE:
                raise self.impossible(kind)
            if looks & OPEN:
                self.opened += 1
                self.checker.check(kind, self.buf, value_at, end)
                if self.checker.doubts:
                    self.key, _ = read_string(self.buf, key_at, self.limit)
                    self.offset = self.base + start
                    self.size = end - start
                    way = self.weigh(kind, way)
            elif end - value_at <= _EMPTY_BYTES and way == COPY and is_empty(self.file_types, kind, self.buf, value_at, end):
                raise CorruptError("it has no elements", rule=EMPTY)
        except RdbError as e:
            if e.rule == EMPTY:
                self.key, _ = read_string(self.buf, key_at, self.limit)
                self.offset = self.base + start
                self.size = end - start
                self.note_empty()
                if not self.drops_empty and way == COPY and self.file_types.types[kind].packed not in _NEVER_EMPTY:
                    return way
                self.leave_out(start, end)
            else:
                self.broken(e, kind, start, key_at, end)
            return _DONE
        return way

    def impossible(self, kind: i64) -> CorruptError:
        """The error for a type that the file's version does not have."""
        t = self.file_types.types[kind]
        return CorruptError(f"type {t.id} ({t.name}) cannot be in RDB {self.rules.source.version}", rule="type-version")

    def mends_streams(self, kind: i64) -> bool:
        """Whether a stream may have to be corrected before the target loads it."""
        return level_of(int(kind)) > 0

    def weigh(self, kind: i64, way: i64) -> i64:
        """What becomes of the value that the checker has faults of, all of which are tolerated or can be mended."""
        for e in self.checker.doubts:
            rule = e.rule or ""
            if rule == TWICE:
                self.mend = True  # which tells of it, too
                way = FIELDS if self.file_types.arities[kind] == 3 else COLLECTION
            elif rule in _MENDED:
                self.note("corrected", e.message, 1, self.key)
                way = STREAM
            elif rule == ORDER:
                self.note("corrected", e.message, 1, self.key)
                way = COLLECTION  # in which order does not matter
            else:
                self.note("fault", f"{e.message}; {self.rules.target.title} loads it all the same", 1, self.key)
        return way

    def broken(self, e: RdbError, kind: i64, start: i64, key_at: i64, end: i64) -> None:
        """The value cannot be written: leave the record out, or raise the error with its place."""
        self.key, _ = read_string(self.buf, key_at, self.limit)
        self.offset = self.base + start
        self.size = end - start
        self.add_location(e, kind)
        if not self.rules.skip:
            raise e
        self.leave_damaged(e)
        self.leave_out(start, end)

    def leave_damaged(self, e: RdbError) -> None:
        """Remember what was wrong with a value that is left out."""
        self.skipped.append(self.budget.keep(e))

    def hash_name(self, name: bytes, offset: i64) -> None:
        """Note the name of a record that is kept, where names are looked at; `offset` is where it begins in the input."""
        if self.hashes is not None:
            self.hashes.add(self.db, name)
        elif self.placed is not None:
            self.placed.add(self.out_db, name, offset)

    def end_record(self) -> None:
        """Nothing of what was special to the last record is so of the next."""
        self.metadata = []
        self.drops_attributes = False
        self.needs_inspection = self.db_missing

    def collection(self, kind: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        """A collection in another encoding, of which nothing else changes: the usual case, in few steps."""
        buf = self.buf
        out = self.out
        self.copy_to(start)
        self.copied = end
        self.changed = True
        mark: i64 = len(out)
        try:
            if key_at - start > 1:
                out.write(buf[start : key_at - 1])  # its attributes
            out.append(self.becomes[kind])
            out.write(buf[key_at:value_at])
            self.recoder.write(kind, buf, value_at, end, out)
            if self.recoder.is_empty:
                out.truncate(mark)
                self.key, _ = read_string(buf, key_at, self.limit)
                self.note_empty()
                self.left_out += 1
                self.last_kept = False
                return
        except RdbError as e:
            out.truncate(mark)
            if e.rule == TWICE and self.mends:
                self.mend = True
                self.change(kind, COLLECTION, start, key_at, value_at, end, expire_ms)
                self.mend = False
                self.end_record()
                return
            self.broken(e, kind, start, key_at, end)
            return
        if self.hashes is not None or self.placed is not None:
            self.hash_name(read_string(buf, key_at, self.limit)[0], self.base + start)
        if self.recoder.sink.expiring > 0:
            self.key, _ = read_string(buf, key_at, self.limit)
            self.offset = self.base + start
            self.size = end - start
            self.lose("member-expiry", "the expiry of members", self.recoder.sink.expiring, "loss")
        self.keys += 1
        if expire_ms != NO_EXPIRY:
            self.expires += 1

    def leave_out(self, start: i64, end: i64) -> None:
        """Nothing of the record in `buf[start:end]` is written."""
        self.cut(start, end)
        self.left_out += 1
        self.last_kept = False
        self.end_record()

    def change(self, kind: i64, way: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        """A record that may have to change."""
        buf = self.buf
        self.key, _ = read_string(buf, key_at, self.limit)
        self.offset = self.base + start
        self.size = end - start
        try:
            if not self.decide(kind, end - start, expire_ms):
                self.leave_out(start, end)
                return
            if self.edits.script is not None:
                record = Record(
                    int(self.db), int(self.offset), int(end - start), None if expire_ms == NO_EXPIRY else int(expire_ms),
                    None if self.idle_s < 0 else int(self.idle_s), None if self.freq < 0 else int(self.freq),
                    self.file_types, int(kind), buf, int(key_at), int(value_at), int(end), self.key,
                )  # fmt: skip
                if not self.scripted(record):
                    self.leave_out(start, end)
                    return
                self.name_it()
            if way == MODULE and self.has_module(read_uint64(buf, value_at)[0]):
                way = COPY
            if way == COPY and not self.head_changed:
                self.hash_name(self.key, self.offset)
                self.keys += 1
                if expire_ms != NO_EXPIRY:
                    self.expires += 1
                return
            self.cut(start, end)
            if self.value(kind, way, buf, key_at, value_at, end):
                self.hash_name(self.key, self.offset)
                self.count()
            else:
                self.left_out += 1
                self.last_kept = False
            self.go_home()
        except RdbError as e:
            self.add_location(e, kind)
            self.go_home()
            if not self.rules.skip or isinstance(e, LossError):
                raise
            self.leave_damaged(e)
            self.leave_out(start, end)

    def add_location(self, e: RdbError, kind: i64) -> None:
        """Give an error its place."""
        if e.source is None:
            e.source = self.file_types.source
            e.offset, e.db, e.key = int(self.offset), int(self.db), self.key
            e.reading = f"a {self.file_types.types[0 if kind >= STRING_INT else kind].name}"

    def count(self) -> None:
        self.keys += 1
        if self.expire_ms != NO_EXPIRY:
            self.expires += 1

    def name_it(self) -> None:
        """A script can give two keys one name, which is found at the end."""
        if self.names is not None:
            db: int = self.to_db if self.to_db >= 0 else self.edits.db_of(int(self.db))
            self.names.add(db, self.key if self.new_key is None else self.new_key, int(self.offset).to_bytes(8, "big"))

    def decide(self, kind: i64, size: i64, expire_ms: i64) -> bool:
        """Whether the record is kept, and what it is called and when it expires then: `new_key`, `expire_ms`, `head_changed`."""
        self.expire_ms = expire_ms
        self.new_key = None
        self.head_changed = self.drops_attributes
        key = self.key
        edits = self.edits
        # of a record larger than a block, whose size is not known yet, and left to those who will know it
        if size < 0 and self.filter is not None and not self.filter.wants_large(key, kind, size, expire_ms):
            return False
        if self.edited:
            if edits.drop_expired and expire_ms != NO_EXPIRY and expire_ms <= self.now_ms:
                return False
            if self.duplicates and int(self.offset) in self.duplicates:
                self.enter_loss(Loss("duplicate", "another record of this key is kept", 1, int(self.db), key), not self.mends)
                return False
            if edits.rename_prefix:
                renamed: bytes = edits.key_of(key)
                if renamed != key:
                    self.new_key = renamed
            if self.has_decisions and not self.decided():
                return False
            if edits.set_ttl_ms is not None:
                ttl: i64 = edits.set_ttl_ms
                self.expire_ms = NO_EXPIRY if ttl < 0 else self.now_ms + ttl
            elif edits.shift_ttl_ms != 0 and expire_ms != NO_EXPIRY:
                shift: i64 = edits.shift_ttl_ms
                self.expire_ms = max(min(expire_ms, LAST_MS - shift) + shift, 0) if shift > 0 else max(expire_ms + shift, 0)
            self.head_changed = self.head_changed or self.new_key is not None or self.expire_ms != expire_ms
        if self.db_missing:
            to = edits.db_of(int(self.db))
            has = "database 0 alone" if self.single_db else f"databases 0 to {self.databases - 1}"
            self.lose("database", f"a key in database {to}, where the target has {has}", 1, "loss")
            return False
        if self.metadata and not self.has_metadata:
            self.lose("key-metadata", "metadata that modules attached to it", 1, "key_metadata")
            self.head_changed = True
        if self.no_hints and (self.idle_s >= 0 or self.freq >= 0):
            self.note("eviction-hints", "its idle time or frequency of access", 1, key)
            self.head_changed = True
        if self.seconds_only and self.expire_ms != NO_EXPIRY and (self.fits_expiry or self.expire_ms != expire_ms):
            self.fit_expiry()
            self.head_changed = self.head_changed or self.needs_inspection or size < 0
        return True

    def fit_expiry(self) -> None:
        """Cut an expiry to what RDB 2 can hold."""
        if not self.seconds_only or self.expire_ms == NO_EXPIRY:
            return
        if self.expire_ms // 1000 >= _LAST_SECOND:
            self.lose("expiry", "an expiry after 2038", 1, "loss")
            self.expire_ms = NO_EXPIRY
        elif self.expire_ms // 1000 < -_LAST_SECOND:
            self.expire_ms = -_LAST_SECOND * 1000  # as past as before
        elif self.expire_ms % 1000:
            self.note("expiry-precision", "milliseconds of its expiry", 1, self.key)
            self.expire_ms -= self.expire_ms % 1000

    def decided(self) -> bool:
        """What was decided of a key whose name another one has, too; False leaves it out."""
        decisions = self.rules.decisions
        here = int(self.offset)
        if here not in decisions:
            return True
        to = self.edits.db_of(int(self.db))
        new = decisions[here]
        if new is None:
            name = self.edits.key_of(self.key)
            self.enter_loss(
                Loss("conflict", f"another key would be called {name!r} in database {to}, too", 1, int(self.db), self.key),
                self.edits.on_conflict in (FAIL, "rename"),
            )
            return False
        what = f"its name: it is called {new!r} in database {to}, where another key has that"
        self.enter_loss(Loss("conflict", what, 1, int(self.db), self.key), False)
        self.new_key = new
        return True

    def scripted(self, record: Record) -> bool:
        """Ask the script, and keep what it says; False where it leaves the key out."""
        from rdbkit.policy.script import ScriptRecord

        home: int = self.edits.db_of(int(self.db))
        at = None if self.expire_ms == NO_EXPIRY else int(self.expire_ms)
        draft = self.edits.script(ScriptRecord(record, home, self.key if self.new_key is None else self.new_key, at))
        if draft is None:
            return False
        if not isinstance(draft, ScriptRecord):
            raise ValueError(f"a script returns its key or None, not {type(draft).__name__}")
        draft.check()
        if (self.single_db and draft.db > 0) or 0 < self.databases <= draft.db:
            raise LossError(f"the script puts it into database {draft.db}, which the target does not have")
        if draft.key != self.key:
            self.new_key = draft.key
            self.head_changed = True
        expire_ms: i64 = NO_EXPIRY if draft.expire_ms is None else draft.expire_ms
        if expire_ms != self.expire_ms:
            self.expire_ms = expire_ms
            self.fit_expiry()
            self.head_changed = True
        if draft.has_new_value():
            self.draft = draft
            self.head_changed = True
        if draft.db != home:
            self.to_db = draft.db
            self.head_changed = True
        return True

    def go_home(self) -> None:
        """Back to the database of the records around one that a script moved."""
        if self.moved:
            self.end_segment()
            self.out_db = self.edits.db_of(int(self.db))
            self.declared_counts = None
            self.moved = False
        self.to_db = -1
        self.draft = None

    # -- values

    def value(self, kind: i64, way: i64, buf: bytes, key_at: i64, value_at: i64, end: i64) -> bool:
        """Write the record whose value is `buf[value_at:end]`; False where it is left out after all."""
        if self.to_db >= 0:
            self.end_segment()
            self.out_db = self.to_db
            self.declared_counts = None
            self.moved = True
        key = buf[key_at:value_at]
        if self.new_key is not None:
            renamed = BytesWriter()
            write_string(renamed, self.new_key)
            key = renamed.getvalue()
        out = self.out
        mark: i64 = len(out)
        try:
            if self.draft is not None:
                return self.new_value(key)
            if way == COPY:
                self.head(_STRING if kind >= STRING_INT else kind, key)
                out.write(buf[value_at:end])
            elif way == COLLECTION:
                self.head(self.becomes[kind], key)
                if self.mend:
                    self.lose_twice(self.recoder.write_once(kind, buf, value_at, end, out, self.keeps_last))
                else:
                    self.recoder.write(kind, buf, value_at, end, out)
                if self.recoder.is_empty:
                    out.truncate(mark)
                    self.note_empty()
                    return False
                if self.recoder.sink.expiring > 0:
                    self.lose("member-expiry", "the expiry of members", self.recoder.sink.expiring, "loss")
            elif way == FIELDS:
                self.lose_twice(self.recoder.read_fields(kind, buf, value_at, end, self.mend, self.keeps_last))
                return self.end_fields(key)
            elif way == STREAM:
                streams = self.streams
                ahead = self.checker.decoder.stream
                assert ahead is not None
                streams.begin(ahead, True)
                self.head(type_of(streams.to), key)
                stop = streams.feed(buf, value_at, out)
                if not streams.done or stop != end:
                    raise CorruptError("its parts do not end where the value ends")
                self.judge_stream()
            elif way == ARRAY:
                return self.array(kind, buf, value_at, end, key)
            elif way == MODULE:
                return self.module(buf, value_at, end, key)
            elif way == JSON:
                if not self.keeps_document("json"):
                    return False
                self.head(_STRING, key)
                out.write(buf[value_at:end])
            else:
                self.lose_whole(kind)
                return False
        except RdbError:
            out.truncate(mark)
            raise
        return True

    def lose_twice(self, count: i64) -> None:
        """Elements were left out since others have their name."""
        if count > 0:
            self.enter_loss(Loss("duplicate", "fields or members that come twice", int(count), int(self.db), self.key), False)

    def head(self, kind: i64, key: bytes) -> None:
        """What stands in front of a record's value."""
        out = self.out
        if self.expire_ms != NO_EXPIRY:
            write_expiry(out, self.expire_ms, self.seconds_only)
        if not self.no_hints:
            if self.idle_s >= 0:
                out.append(c.IDLE)
                write_length(out, self.idle_s)
            if self.freq >= 0:
                out.append(c.FREQ)
                out.append(int(self.freq))
        if self.has_metadata:
            for metadata in self.metadata:
                out.append(c.KEY_META)
                out.write(metadata.raw)
        out.append(int(kind))
        out.write(key)

    def new_value(self, key: bytes) -> bool:
        """Write the value that a script gave; False where the target does not support it."""
        value = self.draft.value
        fields = self.recoder.fields
        if isinstance(value, Hash) and value.field_expire_ms and fields.kind == HASH:
            self.recoder.body.truncate(0)
            fields.out = self.recoder.body
            fields.begin()
            fields.count = 0
            fields.expiring = 0
            for name, content in value.items():
                fields.add(name, content, value.field_expire_ms.get(name, 0))
            return self.end_fields(key)
        body = BytesWriter()
        try:
            kind = encode_value(body, value, self.flavour, self.header_version, self.rules.compress)
            if kind not in self.rules.known:
                raise LossError("the target does not support the value that the script gives it")
        except LossError as e:
            self.lose("value", e.message, 1, "loss")
            return False
        self.head(kind, key)
        self.out.write(body.getvalue())
        return True

    def end_fields(self, key: bytes) -> bool:
        """Write a hash whose fields can expire, which has been read; False where nothing is left of it."""
        fields = self.recoder.fields
        out = self.out
        self.judge_fields()
        if fields.count == 0:
            return False
        becomes = int(fields.form)
        self.head(becomes, key)
        if becomes == HASH_EXPIRING:
            write_i64_le(out, fields.base)
        write_length(out, fields.count // 2)
        out.write(self.recoder.body.getvalue())
        return True

    def note_empty(self) -> None:
        self.note("empty", "a key without elements, which servers since 7.0 skip and older ones trip over", 1, self.key)

    def lose_whole(self, kind: i64) -> None:
        name = self.file_types.types[kind].type
        self.lose(name, f"a key of type {name}", 1, "loss")

    def judge_fields(self) -> None:
        """What became of the fields of a hash that expire: losses, and an expiry of the whole key."""
        fields = self.recoder.fields
        if fields.beyond > 0:
            self.lose("field-expiry", "an expiry of fields that is later than the target can hold", fields.beyond, "field_ttl")
        if fields.kind != HASH:
            return
        if fields.past > 0:
            self.note("expired-field", "fields that have expired", fields.past, self.key)
        lost = fields.expiring - fields.past
        if lost == 0:
            return
        chosen = self.on["field_ttl"]
        what = "the expiry of fields"
        at: i64 = NO_EXPIRY
        if chosen == "drop-field":
            what = "fields that expire"
        elif chosen == "key-min":
            at = fields.earliest
        elif chosen == "key-max" and fields.count // 2 == lost:
            at = fields.latest
        if at != NO_EXPIRY and (self.expire_ms == NO_EXPIRY or at < self.expire_ms):
            self.expire_ms = at
            what += f"; the key now expires at {at} ms"
            self.fit_expiry()
        self.lose("field-expiry", what, lost, "field_ttl")

    def judge_stream(self) -> None:
        """What a stream had that its older form has not."""
        streams = self.streams
        if streams.to == streams.level:
            return  # only corrected
        if streams.counters:
            if self.on["stream_extras"] == FAIL:
                self.lose("stream-counters", "counters, which the target makes anew", 1, "stream_extras")
            else:
                self.note("stream-counters", "counters, which the target makes anew", 1, self.key)
        if streams.dedup_ids > 0:
            self.lose("dedup", "ids by which it knows an entry that is sent twice", streams.dedup_ids, "loss")
        elif streams.configured:
            self.lose("dedup", "for how long it remembers its producers", 1, "loss")
        if streams.unowned > 0 and streams.to < 5:
            chosen = self.on["pending_unowned"]
            what = "pending entries that belong to no consumer"
            if chosen == "assign":
                what += f"; they now belong to {(self.streams.owner or b'').decode('utf-8', 'backslashreplace')}"
            self.lose("nacked", what, streams.unowned, "pending_unowned")

    def array(self, kind: i64, buf: bytes, pos: i64, end: i64, key: bytes) -> bool:
        chosen = self.on["array"]
        if chosen != "hash":
            self.lose("array", "a key of type array", 1, "array")
            return False
        items = Items()
        decoder = self.recoder.decoder
        decoder.begin(kind)
        stop = decoder.feed(buf, pos, items)
        self.recoder.end_at(stop, end)
        self.head(HASH, key)
        write_length(self.out, len(items.items))
        write_elements(self.out, items.items, self.rules.compress)
        self.judge_array(decoder)
        return True

    def judge_array(self, decoder: Decoder) -> None:
        self.lose("array", "an array, which is a hash now", 1, "array")
        if decoder.insert_index is not None:
            self.lose("array-cursor", "where an array is inserted into next", 1, "array")

    def module(self, buf: bytes, pos: i64, end: i64, key: bytes) -> bool:
        """A value of a module that the target does not have."""
        number, start = read_uint64(buf, pos)
        text_at = document_at(number, buf, start)
        if text_at < 0:
            self.lose_module(module_name(number))
        elif self.keeps_document("module"):
            self.head(_STRING, key)
            self.out.write(buf[text_at : skip_string(buf, text_at)])
            return True
        return False

    def lose_module(self, name: str) -> None:
        self.lose("module", f"a value of module {name}", 1, self.module_policy())

    def module_policy(self) -> str:
        """The policy for a module that cannot be kept: to keep all, or to make strings of documents, says nothing of it."""
        return "loss" if self.on["module"] in ("json-as-string", "keep") else "module"

    def has_module(self, number: int) -> bool:
        """Whether the target has the module type of this id."""
        found: bool = self.modules is None or module_name(number) in self.modules
        return found

    def keeps_document(self, kind: str) -> bool:
        """A JSON document, which can become a string; False where it is left out."""
        becomes_string = self.on["module"] == "json-as-string"
        if becomes_string:
            self.lose(kind, "a JSON document, which is a string now", 1, "module")
        else:
            self.lose(kind, "a JSON document", 1, self.module_policy())
        return becomes_string


class Names(Visitor):
    """Tells `found` of the database and name that every key will have, where its record stands, and what they are now."""

    def __init__(self, types: dict[int, c.ValueType], limit: int, rules: Rules, found: Any) -> None:
        super().__init__()
        self.limit: i64 = limit
        self.rules: Any = rules
        self.filter: Filter | None = None if rules.selection is None else rules.selection.filter_for(types, limit)
        self.found: Any = found
        self.database()

    def database(self) -> None:
        if self.filter is not None:
            self.filter.database(int(self.db))

    def record(self, kind: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        key, _ = read_string(self.buf, key_at, self.limit)
        self.large(kind, self.base + start, key, end - start, expire_ms, b"")

    def large(self, kind: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        rules, edits = self.rules, self.rules.edits
        if int(offset) in rules.duplicates:
            return
        if self.filter is not None and not self.filter.wants_large(key, kind, size, expire_ms):
            return
        if edits.drop_expired and expire_ms != NO_EXPIRY and expire_ms <= rules.now_ms:
            return
        db = int(self.db)
        self.found(edits.db_of(db), edits.key_of(key), int(offset), db, key)


class Keys(Visitor):
    """Tells `found` of the database, name, offset and expiry of every key."""

    def __init__(self, limit: int, found: Any) -> None:
        super().__init__()
        self.limit: i64 = limit
        self.found: Any = found

    def record(self, kind: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        key, _ = read_string(self.buf, key_at, self.limit)
        self.found(int(self.db), key, int(self.base + start), int(expire_ms))

    def large(self, kind: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        self.found(int(self.db), key, int(offset), int(expire_ms))


def is_empty(file_types: FileTypes, kind: i64, buf: bytes, pos: i64, end: i64) -> bool:
    """Whether the collection in `buf[pos:end]`, which is short, has no elements, as far as its headers say."""
    rule: i64 = count_rule(file_types.types[kind])
    try:
        return element_count(rule, buf, pos, end) == 0
    except RdbError:
        return False


def document_at(number: int, buf: bytes, start: i64) -> i64:
    """Where the string with a document stands in a module value that begins behind its id at `start`; -1 where it has none.

    Source: rdb_load of RedisJSON, whose encodings 2 and 3 begin with the document's text.
    """
    if module_name(number) == _JSON_MODULE and number & 1023 in _JSON_VERSIONS and buf[start] == _MODULE_STRING:
        return start + 1
    return -1


def write_expiry(out: BytesWriter, expire_ms: i64, in_seconds: bool) -> None:
    """Write an expiry, in seconds where that is wanted and changes nothing."""
    seconds: i64 = expire_ms // 1000
    if in_seconds and expire_ms % 1000 == 0 and -_LAST_SECOND <= seconds < _LAST_SECOND:
        out.append(c.EXPIRETIME)
        out.write(int(seconds).to_bytes(4, "little", signed=True))
    else:
        out.append(c.EXPIRETIME_MS)
        write_i64_le(out, expire_ms)


def write_elements(out: BytesWriter, elements: list[Any], compress: bool) -> None:
    """Elements of an array as fields of a hash."""
    for index, value in elements:
        write_string(out, b"%d" % index)
        write_string(out, value if isinstance(value, bytes) else number_text(value), compress)

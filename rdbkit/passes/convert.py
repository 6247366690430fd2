"""Records and events as a target takes them; compiled, since it runs once a record.

What need not change is not looked at: it is copied with all that stands around it, as one slice of the block from the end of the
last change to the beginning of the next.
"""

from __future__ import annotations

from hashlib import sha1
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from librt.strings import BytesWriter, write_i64_le

from rdbkit.errors import CorruptError, LossError, RdbError
from rdbkit.format import constants as c
from rdbkit.format.decode import FileTypes
from rdbkit.format.encode import write_length, write_string
from rdbkit.format.filter import Filter, renamed
from rdbkit.format.primitives import read_string
from rdbkit.format.record import Record
from rdbkit.format.scan import NO_EXPIRY, STRING_INT, Visitor
from rdbkit.model import (
    Aux,
    EnterpriseHint,
    Event,
    FunctionLibrary,
    HashTemplate,
    KeyMetadata,
    ModuleAux,
    ResizeDb,
    SelectDb,
    SlotImport,
    SlotInfo,
)
from rdbkit.passes.hashes import NameHashes, NameLog
from rdbkit.passes.value import AS_IT_IS, COLLECTION, COPY, EMPTY_BYTES, IF_EMPTY, LEFT_OUT, STRING, ValueConverter
from rdbkit.passes.verify import judge_event
from rdbkit.policy.ledger import Ledger, Loss
from rdbkit.policy.rules import FAIL, Rules
from rdbkit.products import described, holds_nothing, types_of
from rdbkit.text import printable

if TYPE_CHECKING:
    from mypy_extensions import i64

#: Of a record of which nothing is left to be done.
_DONE: Final = -3
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
        converter: of the values, with the same rules.
        limit: most bytes of a key's name.
        rules: what to do.
        ledger: where losses go.

    Attributes:
        written: records so far.
        left_out: records that the selection, an edit or a policy left out.
        skipped: what was wrong with the values left out because they are damaged.
        functions: sources of the libraries that were taken out.
        scripts: Lua scripts that were taken out.
        changed: whether anything of the source is not copied as it stands.
        enterprise_hints: how many of Redis Enterprise's were met since `finish` was called: there may be one for each key.
        hashes, placed: take the names of keys, to find those that come twice, with the databases that they come from or go to.
        hand_over: called in the middle of a block where what `take` gives has become much; None where it is to wait.
    """

    def __init__(self, converter: ValueConverter, limit: int, rules: Rules, ledger: Ledger) -> None:
        super().__init__()
        self.wants_module_data = True
        self.converter: ValueConverter = converter
        self.file_types: FileTypes = converter.file_types
        self.limit: i64 = limit
        self.rules: Rules = rules
        self.ledger: Ledger = ledger
        self.hand_over: Any = None
        self.out: BytesWriter = BytesWriter()
        self.body: BytesWriter = BytesWriter()  # the converted value of the record at hand
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
        self.scripts: list[bytes] = []
        self.libraries: i64 = 0  # that are kept
        self.library_names: set[bytes] = set()
        self.changed: bool = False
        self.enterprise_hints: i64 = 0
        # what the target has
        target, header = rules.target, rules.header
        self.version: i64 = converter.version
        self.flavour: str = header.flavour
        self.single_db: bool = target.single_db
        self.databases: int = target.databases or 0
        self.has_functions: bool = target.rdb >= 10
        # a file of the same version stays as it is; of other versions, most servers refuse such functions
        self.keeps_pre_release: bool = target.pre_release_functions or (target.exact and header == rules.source)
        self.has_metadata: bool = header.flavour == c.REDIS and header.version >= 13
        self.keeps_hints: bool = rules.keeps_hints
        self.is_keydb: bool = 64 in target.extra_types
        # what is to be done
        self.filter: Filter | None = None
        if rules.selection is not None:
            self.filter = rules.selection.filter_for(self.file_types.types, limit)
        self.edits: Any = rules.edits
        self.renames: tuple[tuple[bytes, bytes], ...] = rules.edits.renames
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
        self.on: dict[str, str] = converter.on
        self.modules: Any = converter.modules
        self.built_in: Any = types_of(frozenset(target.modules))
        # of the converter, at hand since they are asked for every record
        self.actions: list[int] = converter.actions
        self.looks: bytes = converter.looks
        self.becomes: list[int] = converter.becomes
        self.out_db = rules.edits.db_of(0)  # where no database is named, it is 0
        self.changed = self.out_db != 0
        self.hashes: NameHashes | None = None
        self.placed: NameLog | None = None
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
        # of the last record, of which a KeyDB file may say more
        self.last_at: i64 = -1
        self.last_key: bytes = b""
        self.last_kept: bool = False
        # what a script made of it
        self.script_record: Any = None
        self.names: NameLog | None = None  # where there is a script
        self.to_db: int = -1
        self.moved: bool = False
        self.database()

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
        elif isinstance(event, FunctionLibrary):
            self.function(event, start, end)
        elif self.loses_event(event):
            self.cut(start, end)

    def loses_event(self, event: Event) -> bool:
        """Whether the target cannot represent something about the file or a database, which is then reported."""
        if isinstance(event, Aux):
            if event.key == c.SCRIPT:
                return self.loses_script(event.value)
            if self.version >= 7:
                return False
            self.note("aux", "a field about the file")
            return True
        if isinstance(event, ModuleAux):
            return self.loses_module_data(event)
        if isinstance(event, SlotImport):
            if self.flavour == c.VALKEY:
                return False
            self.note("slot-import", "a slot import that was going on")
            return True
        if isinstance(event, SlotInfo):  # a hint
            return self.flavour != c.REDIS or self.version < 12
        if isinstance(event, EnterpriseHint):
            self.enterprise_hints += 1
            return not self.keeps_hints
        return isinstance(event, HashTemplate) and (self.flavour != c.REDIS or self.version < 15)

    def finish(self) -> None:
        """Enter what is entered once for all that was met of it."""
        if self.enterprise_hints > 0 and not self.keeps_hints:
            self.note(
                "enterprise-hint", "hints of Redis Enterprise: when keys were last used, and their slots", self.enterprise_hints
            )
            self.enterprise_hints = 0

    def note(self, kind: str, what: str, count: i64 = 1, key: bytes | None = None) -> None:
        """Enter what is no loss of data, at the record at hand where `key` is given."""
        if key is None:
            self.enter_loss(Loss(kind, what, int(count), None, None, True), False)
        else:
            self.enter_loss(Loss(kind, what, int(count), int(self.db), key, True), False)

    def enter_value_losses(self) -> None:
        """Enter what the value of the record at hand loses."""
        converter = self.converter
        losses = converter.losses
        if losses:
            converter.losses = []
            for loss in losses:
                self.enter_loss(loss.of(int(self.db), self.key), loss.forbidden)

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
            self.budget.spend("function libraries", len(source))
        self.functions.append(source)

    def loses_script(self, body: bytes) -> bool:
        """Whether a Lua script is left out, which is reported."""
        kept: bool = self.rules.target.keeps_scripts
        loss, is_asked_for = script_loss(body, self.on["lua_script"], kept)
        if loss is not None:
            self.enter_loss(loss, self.on["lua_script"] == FAIL)
        if is_asked_for:
            self.budget.spend("Lua scripts", len(body))
            self.scripts.append(body)
        return not kept

    def extract(self, library: FunctionLibrary) -> None:
        """Give the source of a library that stays, where the policy asks for it."""
        if self.on["function"] == "extract":
            self.functions.append(library.code)
            self.note("function-kept", f"function library {library.name!r}, which is in the file as well")

    def refusal(self, library: FunctionLibrary) -> str:
        """Why no server loads a function library, as far as that shows without compiling it; nothing where none is known."""
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

    def loses_module_data(self, data: ModuleAux) -> bool:
        is_there: bool = self.version >= 9 and (self.modules is None or data.module in self.modules)
        # of a module that can be chosen, nothing is no reason to
        if is_there and (self.modules is None or data.module in self.built_in or not holds_nothing(data.module, data.size)):
            return False
        if holds_nothing(data.module, data.size):
            self.note("module-empty", f"data of {described(data.module)} outside of keys, with nothing in it")
            return True
        loss = Loss("module-aux", f"data of {described(data.module)} outside of keys", 1, None, None)
        self.enter_loss(loss, self.on[self.converter.module_policy()] == FAIL)
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

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        self.last_at = key_at
        self.last_kept = True
        action: i64 = self.actions[type_code]
        if self.no_hints and (self.idle_s >= 0 or self.freq >= 0 or (self.fits_expiry and expire_ms != NO_EXPIRY)):
            # an expiry in seconds and nothing else is as it has to be
            is_short = key_at - start == _SECONDS_HEAD and self.buf[start] == c.EXPIRETIME
            self.needs_inspection = self.needs_inspection or not is_short
        if self.filter is not None and not self.filter.wants(self.buf, key_at, type_code, end - start, expire_ms):
            self.leave_out(start, end)
            return
        looks: i64 = self.looks[type_code]
        if looks and (looks != IF_EMPTY or end - value_at <= EMPTY_BYTES):
            action = self.look(type_code, start, key_at, value_at, end)
            if action == _DONE:
                return
        if action == COPY and not self.edited and not self.needs_inspection:
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
        elif action == COLLECTION and not self.edited and not self.needs_inspection:
            self.collection(type_code, start, key_at, value_at, end, expire_ms)
        else:
            self.change(type_code, action, start, key_at, value_at, end, expire_ms)
            self.end_record()
        if len(self.out) > _HANDED_OVER and self.hand_over is not None:
            self.end_segment()
            self.hand_over()

    def look(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64) -> i64:
        """See whether the target loads the value; return what is to become of it, _DONE where the record has been left out.

        Raises: RdbError where it does not, unless such values are left out.
        """
        converter = self.converter
        try:
            action: i64 = converter.inspect(type_code, self.buf, value_at, end)
        except RdbError as e:
            self.broken(e, type_code, start, key_at, end)
            return _DONE
        if converter.losses:
            self.at_record(start, key_at, end)
            self.enter_value_losses()
        if action == LEFT_OUT:
            self.leave_out(start, end)
            return _DONE
        return action

    def at_record(self, start: i64, key_at: i64, end: i64) -> None:
        """What is entered next is of the record in `buf[start:end]`."""
        self.key, _ = read_string(self.buf, key_at, self.limit)
        self.offset = self.base + start
        self.size = end - start

    def broken(self, e: RdbError, type_code: i64, start: i64, key_at: i64, end: i64) -> None:
        """The value cannot be written: leave the record out, or raise the error with its place."""
        self.at_record(start, key_at, end)
        self.add_location(e, type_code)
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

    def collection(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        """A collection in another encoding, of which nothing else changes: the usual case, in few steps."""
        buf = self.buf
        out = self.out
        self.copy_to(start)
        self.copied = end
        self.changed = True
        mark: i64 = len(out)
        if key_at - start > 1:
            out.write(buf[start : key_at - 1])  # its attributes
        out.append(self.becomes[type_code])
        out.write(buf[key_at:value_at])
        try:
            becomes: i64 = self.converter.collection(type_code, False, buf, value_at, end, out)
        except RdbError as e:
            out.truncate(mark)
            self.broken(e, type_code, start, key_at, end)
            return
        if self.converter.losses:
            self.at_record(start, key_at, end)
            self.enter_value_losses()
        if becomes == LEFT_OUT:
            out.truncate(mark)
            self.left_out += 1
            self.last_kept = False
            return
        if self.hashes is not None or self.placed is not None:
            self.hash_name(read_string(buf, key_at, self.limit)[0], self.base + start)
        self.keys += 1
        if expire_ms != NO_EXPIRY:
            self.expires += 1

    def leave_out(self, start: i64, end: i64) -> None:
        """Nothing of the record in `buf[start:end]` is written."""
        self.cut(start, end)
        self.left_out += 1
        self.last_kept = False
        self.end_record()

    def change(self, type_code: i64, action: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        """A record that may have to change."""
        buf = self.buf
        self.at_record(start, key_at, end)
        try:
            if not self.decide(type_code, end - start, expire_ms):
                self.leave_out(start, end)
                return
            if self.edits.script is not None:
                record = Record(
                    int(self.db), int(self.offset), int(end - start), None if expire_ms == NO_EXPIRY else int(expire_ms),
                    None if self.idle_s < 0 else int(self.idle_s), None if self.freq < 0 else int(self.freq),
                    self.file_types, int(type_code), buf, int(key_at), int(value_at), int(end), self.key,
                )  # fmt: skip
                if not self.scripted(record):
                    self.leave_out(start, end)
                    return
                self.name_it()
            becomes: i64 = self.convert(type_code, action, buf, value_at, end)
            if becomes == AS_IT_IS and not self.head_changed:
                self.hash_name(self.key, self.offset)
                self.keys += 1
                if expire_ms != NO_EXPIRY:
                    self.expires += 1
                return
            self.cut(start, end)
            if self.write(type_code, becomes, buf[key_at:value_at], buf, value_at, end):
                self.hash_name(self.key, self.offset)
                self.count()
            else:
                self.left_out += 1
                self.last_kept = False
            self.go_home()
        except RdbError as e:
            self.enter_value_losses()
            self.add_location(e, type_code)
            self.go_home()
            if not self.rules.skip or isinstance(e, LossError):
                raise
            self.leave_damaged(e)
            self.leave_out(start, end)

    def add_location(self, e: RdbError, type_code: i64) -> None:
        """Give an error its place."""
        if e.source is None:
            e.source = self.file_types.source
            e.offset, e.db, e.key = int(self.offset), int(self.db), self.key
            e.reading = f"a {self.file_types.types[0 if type_code >= STRING_INT else type_code].name}"

    def count(self) -> None:
        self.keys += 1
        if self.expire_ms != NO_EXPIRY:
            self.expires += 1

    def name_it(self) -> None:
        """A script can give two keys one name, which is found at the end."""
        if self.names is not None:
            db: int = self.to_db if self.to_db >= 0 else self.edits.db_of(int(self.db))
            self.names.add(db, self.key if self.new_key is None else self.new_key, self.offset)

    def decide(self, type_code: i64, size: i64, expire_ms: i64) -> bool:
        """Whether the record is kept, and what it is called and when it expires then: `new_key`, `expire_ms`, `head_changed`."""
        self.expire_ms = expire_ms
        self.new_key = None
        self.head_changed = self.drops_attributes
        key = self.key
        edits = self.edits
        # of a record larger than a block, whose size is not known yet, and left to those who will know it
        if size < 0 and self.filter is not None and not self.filter.wants_large(key, type_code, size, expire_ms):
            return False
        if self.edited and not self.edit(expire_ms):
            return False
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

    def edit(self, expire_ms: i64) -> bool:
        """What the edits make of the record: `new_key`, `expire_ms`, `head_changed`; False where they leave it out."""
        edits = self.edits
        key = self.key
        if edits.drop_expired and expire_ms != NO_EXPIRY and expire_ms <= self.now_ms:
            return False
        if self.duplicates and int(self.offset) in self.duplicates:
            loss = Loss("duplicate", "another record of this key is kept", 1, int(self.db), key)
            self.enter_loss(loss, not self.converter.mends)
            return False
        if self.renames:
            new = renamed(self.renames, key)
            if new != key:
                self.new_key = new
        if self.has_decisions and not self.decided():
            return False
        if edits.set_ttl_ms is not None:
            ttl: i64 = edits.set_ttl_ms
            self.expire_ms = NO_EXPIRY if ttl < 0 else self.now_ms + ttl
        elif edits.shift_ttl_ms != 0 and expire_ms != NO_EXPIRY:
            shift: i64 = edits.shift_ttl_ms
            self.expire_ms = max(min(expire_ms, LAST_MS - shift) + shift, 0) if shift > 0 else max(expire_ms + shift, 0)
        self.head_changed = self.head_changed or self.new_key is not None or self.expire_ms != expire_ms
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
            name = printable(self.edits.key_of(self.key), 80)
            self.enter_loss(
                Loss(
                    "conflict",
                    f"another key would be called {name} in database {to}, too",
                    1,
                    int(self.db),
                    self.key,
                ),
                self.edits.on_conflict in (FAIL, "rename"),
            )
            return False
        what = f"its name: it is called {printable(new, 80)} in database {to}, where another key has that"
        self.enter_loss(Loss("conflict", what, 1, int(self.db), self.key), False)
        self.new_key = new
        return True

    def scripted(self, record: Record) -> bool:
        """Ask the script, and keep what it says; False where it leaves the key out."""
        from rdbkit.policy.script import ScriptRecord

        home: int = self.edits.db_of(int(self.db))
        at = None if self.expire_ms == NO_EXPIRY else int(self.expire_ms)
        script_record = self.edits.script(ScriptRecord(record, home, self.key if self.new_key is None else self.new_key, at))
        if script_record is None:
            return False
        if not isinstance(script_record, ScriptRecord):
            raise ValueError(f"a script returns its key or None, not {type(script_record).__name__}")
        script_record.check()
        if (self.single_db and script_record.db > 0) or 0 < self.databases <= script_record.db:
            raise LossError(f"the script puts it into database {script_record.db}, which the target does not have")
        if script_record.key != self.key:
            self.new_key = script_record.key
            self.head_changed = True
        expire_ms: i64 = NO_EXPIRY if script_record.expire_ms is None else script_record.expire_ms
        if expire_ms != self.expire_ms:
            self.expire_ms = expire_ms
            self.fit_expiry()
            self.head_changed = True
        if script_record.has_new_value():
            self.script_record = script_record
            self.head_changed = True
        if script_record.db != home:
            self.to_db = script_record.db
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
        self.script_record = None

    # -- values

    def convert(self, type_code: i64, action: i64, buf: bytes, value_at: i64, end: i64) -> i64:
        """Have the value `buf[value_at:end]` converted, or what a script made of it, into `body`; returns its new type code.

        AS_IT_IS or LEFT_OUT, as the converter says, instead of a type code.
        """
        converter = self.converter
        self.body.truncate(0)
        becomes: i64
        if self.script_record is not None:
            becomes = converter.encode(self.script_record.value, self.expire_ms, self.body)
        else:
            becomes = converter.write(type_code, action, buf, value_at, end, self.expire_ms, self.body)
        self.take_expiry()
        self.enter_value_losses()
        return becomes

    def take_expiry(self) -> None:
        """What became of a value can have changed when its key expires."""
        if self.converter.expire_ms != self.expire_ms:
            self.expire_ms = self.converter.expire_ms
            self.fit_expiry()

    def write(self, type_code: i64, becomes: i64, key: bytes, buf: bytes, value_at: i64, end: i64) -> bool:
        """Write the record that `convert` was asked about; False where it is left out after all.

        Args:
            key: its encoded name, for where it keeps that.
        """
        if self.to_db >= 0:
            self.end_segment()
            self.out_db = self.to_db
            self.declared_counts = None
            self.moved = True
        if becomes == LEFT_OUT:
            return False
        if self.new_key is not None:
            renamed = BytesWriter()
            write_string(renamed, self.new_key)
            key = renamed.getvalue()
        if becomes == AS_IT_IS:
            self.head(STRING if type_code >= STRING_INT else type_code, key)
            self.out.write(buf[value_at:end])
        else:
            self.head(becomes, key)
            self.out.write(self.body.getvalue())
        return True

    def head(self, type_code: i64, key: bytes) -> None:
        """What precedes a record's value."""
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
        out.append(int(type_code))
        out.write(key)


def script_loss(body: bytes, policy: str, kept: bool) -> tuple[Loss | None, bool]:
    """What to enter of a Lua script, and whether it is to be given with the report.

    Args:
        policy: the word of the policy for scripts.
        kept: the target loads it.
    """
    what = f"Lua script {sha1(body, usedforsecurity=False).hexdigest()}"  # by which EVALSHA calls it
    is_asked_for = policy == "extract"
    if kept:
        note = Loss("script-kept", f"{what}, which is in the file as well", 1, None, None, True)
        return (note if is_asked_for else None), is_asked_for
    return Loss("script", what, 1, None, None, is_asked_for), True


def write_expiry(out: BytesWriter, expire_ms: i64, in_seconds: bool) -> None:
    """Write an expiry, in seconds where that is wanted and changes nothing."""
    seconds: i64 = expire_ms // 1000
    if in_seconds and expire_ms % 1000 == 0 and -_LAST_SECOND <= seconds < _LAST_SECOND:
        out.append(c.EXPIRETIME)
        out.write(int(seconds).to_bytes(4, "little", signed=True))
    else:
        out.append(c.EXPIRETIME_MS)
        write_i64_le(out, expire_ms)

"""The parser of rdbtools: reads a snapshot and calls a callback for each part of it."""

from __future__ import annotations

import re
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from datetime import datetime, timedelta
from itertools import chain
from typing import Any, Final

from rdbkit.compat.rdbtools.base import ADDED, Info, Key, RdbCallback
from rdbkit.compat.rdbtools.errors import as_rdbtools_raises
from rdbkit.compat.rdbtools.memprofiler import MemoryCallback
from rdbkit.errors import CorruptError, RdbError, TruncatedError, UnsupportedVersionError
from rdbkit.format.budget import NAME, OBJECT
from rdbkit.format.counts import HEAD, count_rule, element_count
from rdbkit.format.decode import Decoder, score_of
from rdbkit.format.primitives import read_integer, read_length, read_string, read_uint64, skip_string
from rdbkit.format.record import Feeder, LargeRecord, Record
from rdbkit.format.scan import STRING_INT
from rdbkit.format.sink import NumberedItems
from rdbkit.model import TRAILING_DATA, Aux, Event, FunctionLibrary, ModuleAux, ResizeDb, SelectDb, module_name
from rdbkit.passes.memory import RecordSizer
from rdbkit.snapshot.reader import Snapshot, open_snapshot
from rdbkit.storage.source import Input
from rdbkit.values import StreamGroup, StreamId, StreamTail

__all__ = ["RdbCallback", "RdbParser"]

#: The names of types in filters and records of rdbtools; the others are called as in rdbkit.
_TYPE_NAMES: Final = {"zset": "sortedset"}
_EPOCH: Final = datetime(1970, 1, 1)
#: Seconds of the latest expiry that is told, in the year 9002: later ones are this one.
_LATEST: Final = 221925052800
_EARLIEST: Final = -62135596800
#: Bytes of text that may be a number of 32 bits.
_LONGEST: Final = 11
_MODULE: Final = 7
#: Methods that are called for values of a type; for types that are not here those of modules.
_METHODS: Final = {
    "string": ("set",),
    "hash": ("start_hash", "hset", "end_hash", "expire_member"),
    "set": ("start_set", "sadd", "end_set", "expire_member"),
    "list": ("start_list", "rpush", "end_list"),
    "zset": ("start_sorted_set", "zadd", "end_sorted_set"),
    "stream": ("start_stream", "stream_listpack", "end_stream"),
}
_OF_MODULES: Final = ("start_module", "handle_module_data", "end_module")
#: Encodings whose packed entries reach a sink as text.
_OF_LISTPACKS: Final = {"listpackex", "template"}


def to_datetime(usecs_since_epoch: int) -> datetime:
    """A time in microseconds since 1970 as a `datetime` of UTC without a time zone; what is later than the year 9002 is that.

    >>> to_datetime(1_500_000)
    datetime.datetime(1970, 1, 1, 0, 0, 1, 500000)
    """
    if 0 <= usecs_since_epoch < _LATEST * 1_000_000:
        return _EPOCH + timedelta(microseconds=usecs_since_epoch)
    seconds, microseconds = divmod(usecs_since_epoch, 1_000_000)
    return _EPOCH + timedelta(seconds=max(min(seconds, _LATEST), _EARLIEST), microseconds=microseconds)


def _number_or_text(text: bytes, bits: int = 32) -> bytes | int:
    """An int where servers keep this text as a number of so many bits."""
    if not text or text[-1] > 0x39 or len(text) > 20 or (bits == 32 and len(text) > _LONGEST):
        return text
    try:
        number = int(text)
    except ValueError:
        return text
    return number if str(number).encode() == text and -1 << bits - 1 <= number < 1 << bits - 1 else text


class RdbParser:
    """Reads snapshots, and calls a callback for each part of them.

    Args:
        callback: an `RdbCallback`, or any object with its methods.
        filters: which keys: `{"dbs": [0, 1], "keys": "foo.*", "not_keys": "tmp.*", "types": ["hash", "sortedset"]}`. `keys` and
            `not_keys` are regular expressions that match from a key's beginning; types are `string`, `hash`, `set`, `sortedset`,
            `list`, `stream`, `module` and the further ones of rdbkit. What is left out, empty or None takes all.

    Raises: ValueError for a filter of another kind; re.error for a regular expression that is none.
    """

    def __init__(self, callback: Any, filters: dict[str, Any] | None = None) -> None:
        self._callback = callback
        wanted = filters or {}
        self._dbs = _listed(wanted.get("dbs"), int)
        self._types = _listed(wanted.get("types"), str)
        self._keys = _pattern(wanted.get("keys"))
        self._not_keys = _pattern(wanted.get("not_keys"))

    def parse(self, filename: Input) -> None:
        """Read the snapshot in a file: a path, or whatever else `rdbkit.open` takes.

        Raises: what the callback raises; OSError where the file cannot be opened; RdbError where it is damaged, behind what stands
            before the damage. Where it is no snapshot, `args` of the error is ("verify_magic_string", "Invalid File Format").
        """
        try:
            snapshot = open_snapshot(filename, damaged=True)
        except (CorruptError, TruncatedError, UnsupportedVersionError) as e:
            raise as_rdbtools_raises(e) from None
        with snapshot:
            _Run(self, self._callback, snapshot).go()

    def parse_fd(self, fd: Any) -> None:
        """The same of an object with `read(n)`, which is closed at the end where it is a context manager."""
        context: AbstractContextManager[Any] = fd if hasattr(fd, "__exit__") else nullcontext(fd)
        with context as file:
            self.parse(file)

    def wants_database(self, db: int) -> bool:
        """Whether the filters take keys of this database."""
        return self._dbs is None or db in self._dbs

    @property
    def takes_all(self) -> bool:
        """Whether the filters take every record of the databases that they take."""
        return self._types is None and self._keys is None and self._not_keys is None

    def wants(self, record: Record) -> bool:
        """Whether the filters take a record of a database that they take."""
        if self._types is not None and _TYPE_NAMES.get(record.type, record.type) not in self._types:
            return False
        if self._not_keys is not None and self._not_keys.match(record.key):
            return False
        return self._keys is None or self._keys.match(record.key) is not None


def _listed(given: Any, kind: type) -> frozenset[Any] | None:
    """What a filter lists; None for all."""
    if given is None or given == []:
        return None
    if isinstance(given, bytes):
        given = given.decode()
    if isinstance(given, int | str):
        given = [given]
    if not isinstance(given, list | tuple | set | frozenset):
        raise ValueError(f"a filter that is no list: {given!r}")
    return frozenset(map(kind, given))


def _pattern(given: str | bytes | None) -> re.Pattern[bytes] | None:
    if not given:
        return None
    return re.compile(given.encode() if isinstance(given, str) else given)


class _Run:
    """One snapshot being read."""

    def __init__(self, parser: RdbParser, callback: Any, snapshot: Snapshot) -> None:
        self.parser = parser
        self.callback = callback
        self.snapshot = snapshot
        self.decoder = Decoder(snapshot.file_types)
        self.rules: dict[int, int] = {t.id: count_rule(t) for t in snapshot.types.values()}
        self.memory: MemoryCallback | None = callback if isinstance(callback, MemoryCallback) else None
        self.sizer: RecordSizer | None = self.memory.sizer(snapshot.types) if self.memory is not None else None
        self.key_bytes = 0
        self.set = self.method("set")
        self.hset = self.method("hset")
        self.sadd = self.method("sadd")
        self.rpush = self.method("rpush")
        self.zadd = self.method("zadd")
        self.expire_member = self.method("expire_member")
        told: dict[str, Callable[[Record, Key, datetime | None], None]] = {
            "string": self.tell_string,
            "hash": self.tell_hash,
            "set": self.tell_members,
            "list": self.tell_list,
            "zset": self.tell_sorted_set,
            "stream": self.tell_stream,
        }
        #: What tells of a value, by the byte of its type; None where no method of the callback would be called.
        self.told = {
            t.id: told.get(t.type, self.tell_module) if any(map(self.method, _METHODS.get(t.type, _OF_MODULES))) else None
            for t in snapshot.types.values()
        }

    def method(self, name: str) -> Callable[..., Any] | None:
        """A method of the callback; None where it does nothing."""
        found = getattr(self.callback, name, None)
        if found is None:
            if name in ADDED:
                return None
            # as rdbtools: an error where it is called, and not before
            return lambda *args, **named: getattr(self.callback, name)(*args, **named)
        return None if getattr(found, "__func__", None) is getattr(RdbCallback, name) else found

    def go(self) -> None:
        """Read it to its end, or until `aux_field` ends it."""
        callback = self.callback
        callback.start_rdb()
        db = 0
        begun = False
        wanted = self.parser.wants_database(0)
        all_of_it = self.parser.takes_all
        for found in self.snapshot.events():
            if isinstance(found, Record):
                if wanted and (all_of_it or self.parser.wants(found)):
                    tell = self.told[found.rdb_type]
                    if tell is not None:
                        self.record(found, tell)
            elif isinstance(found, SelectDb):
                if begun:
                    callback.end_database(db)
                begun = True
                db = found.db
                wanted = self.parser.wants_database(db)
                callback.start_database(db)
            elif isinstance(found, Aux):
                if callback.aux_field(found.key, _number_or_text(found.value)):
                    return
            else:
                self.event(found)
        trailer = self.snapshot.trailer
        if trailer is not None and trailer.kind in TRAILING_DATA:
            what = TRAILING_DATA[trailer.kind]
            warnings.warn(f"{self.snapshot.name}: behind the snapshot stand {what}, which are not read", stacklevel=3)
        callback.end_database(db)
        callback.end_rdb()

    def event(self, event: Event) -> None:
        if isinstance(event, ResizeDb):
            self.callback.db_size(event.keys, event.expires)
        elif isinstance(event, ModuleAux):
            self.callback.start_module(None, event.module, None, info={"idle": None, "freq": None})
            self.callback.end_module(None, buffer_size=event.size - 1, buffer=None)  # without its opcode, as rdbtools counts
        elif isinstance(event, FunctionLibrary):
            tell = self.method("function_library")
            if tell is not None:
                tell(event.name, event.code)

    def record(self, record: Record, tell: Callable[[Record, Key, datetime | None], None]) -> None:
        name = record.key
        self.key_bytes = len(name)
        # a name that can be no number is the rule
        key = _number_or_text(name) if name[-1:] <= b"9" else name
        expiry = None if record.expire_ms is None else to_datetime(record.expire_ms * 1000)
        tell(record, key, expiry)

    # -- values

    def tell_string(self, record: Record, key: Key, expiry: datetime | None) -> None:
        if self.set is None:
            return
        raw = b""
        value: bytes | int
        if isinstance(record, LargeRecord):
            if self.sizer is not None:
                self.sizer.begin_large(record.type_code)
            value = record.value
        else:
            raw = record.raw
            try:
                if record.type_code == STRING_INT:
                    value = read_integer(raw, 0)
                elif raw[0] < 0x40:
                    value = raw[1:]
                else:
                    value, _ = read_string(raw, 0, record.file_types.limit)
            except RdbError as e:
                raise record.add_location(e) from None
        if self.sizer is not None and self.memory is not None:
            self.memory.memory = self.weigh(record, raw)
        self.set(key, value, expiry, info={"encoding": "string", "idle": record.idle_s, "freq": record.freq})

    def tell_hash(self, record: Record, key: Key, expiry: datetime | None) -> None:
        value = _Value(self, record)
        self.callback.start_hash(key, value.count(), expiry, info=value.info())
        hset, expire = self.hset, self.expire_member
        if value.arity == 3:
            if hset is not None or expire is not None:
                for items in value.elements():
                    it = iter(items)
                    for field, content, when in zip(it, it, it, strict=True):
                        if hset is not None:
                            hset(key, field, content)
                        if when and expire is not None:
                            expire(key, field, to_datetime(when * 1000))
        elif hset is not None:
            for items in value.elements(self.take(hset)):
                it = iter(items)
                for field, content in zip(it, it, strict=True):
                    hset(key, field, content)
        value.pass_rest()
        self.callback.end_hash(key)

    def tell_members(self, record: Record, key: Key, expiry: datetime | None) -> None:
        value = _Value(self, record)
        self.callback.start_set(key, value.count(), expiry, info=value.info())
        sadd, expire = self.sadd, self.expire_member
        if value.arity == 2:
            if sadd is not None or expire is not None:
                for items in value.elements():
                    it = iter(items)
                    for member, when in zip(it, it, strict=True):
                        if sadd is not None:
                            sadd(key, member)
                        if when and expire is not None:
                            expire(key, member, to_datetime(when * 1000))
        elif sadd is not None:
            for items in value.elements(self.take(sadd)):
                for member in items:
                    sadd(key, member)
        value.pass_rest()
        self.callback.end_set(key)

    def tell_list(self, record: Record, key: Key, expiry: datetime | None) -> None:
        value = _Value(self, record)
        info = value.info()
        self.callback.start_list(key, expiry, info=info)
        rpush = self.rpush
        if rpush is not None:
            for items in value.elements(self.take(rpush)):
                for element in items:
                    rpush(key, element)
        value.pass_rest()
        self.callback.end_list(key, info={name: info[name] for name in ("encoding", "zips") if name in info})

    def tell_sorted_set(self, record: Record, key: Key, expiry: datetime | None) -> None:
        value = _Value(self, record)
        self.callback.start_sorted_set(key, value.count(), expiry, info=value.info())
        zadd = self.zadd
        if zadd is not None:
            for items in value.elements(self.take(zadd, 2)):
                it = iter(items)
                for member, score in zip(it, it, strict=True):
                    if isinstance(score, bytes):
                        try:
                            score = score_of(score)
                        except RdbError as e:
                            raise record.add_location(e) from None
                    zadd(key, score, member)
        value.pass_rest()
        self.callback.end_sorted_set(key)

    def tell_stream(self, record: Record, key: Key, expiry: datetime | None) -> None:
        value = _Value(self, record)
        count, _ = read_length(value.head, 0)
        self.callback.start_stream(key, count, expiry, info=value.info("listpack"))
        tell, end = self.method("stream_listpack"), self.method("end_stream")
        if tell is not None:
            nodes = _Nodes(record, lambda at, data: tell(key, at, data))
            value.also.append(Feeder(nodes, None).push)
        if end is None:
            value.pass_rest()
            return
        items = 0
        last = StreamId(0, 0)
        groups: list[dict[str, Any]] = []
        held = 0
        budget = self.snapshot.budget
        self.decoder.builds = False
        try:
            for parts in value.elements():
                for part in parts:
                    if isinstance(part, StreamTail):
                        items, last = part.length, part.last_id
                    elif isinstance(part, StreamGroup):
                        size = len(part.pending) * 4 * NAME + len(part.consumers) * 2 * OBJECT + OBJECT
                        budget.spend("consumer groups", size)
                        held += size
                        groups.append(_group(part))
        except RdbError as e:
            raise record.add_location(e) from None
        finally:
            budget.give_back(held)
            self.decoder.builds = True
        value.pass_rest()
        end(key, items, str(last), groups)

    def tell_module(self, record: Record, key: Key, expiry: datetime | None) -> None:
        """A module's value; and what has a type that rdbtools has no callback for, in the same way."""
        value = _Value(self, record)
        of_module = record.rdb_type == _MODULE
        name = record.type
        if of_module:
            number, at = read_uint64(value.head, 0)
            name = module_name(number)
            tell = self.method("handle_module_data")
            if tell is not None:
                frames = _Frames(record, at, lambda opcode, data: tell(key, opcode, data))
                value.also.append(Feeder(frames, None).push)
        parts: list[bytes] = []
        if self.callback.start_module(key, name, expiry, info={"idle": record.idle_s, "freq": record.freq}):
            value.also.append(parts.append)
        value.pass_rest()
        self.callback.end_module(
            key, buffer_size=value.size, buffer=b"".join([bytes([record.rdb_type]), *parts]) if parts else None
        )

    # -- memory

    def take(self, method: Callable[..., Any], arity: int = 1) -> Callable[[list[Any]], None] | None:
        """What takes a batch of elements in place of `method`, where this only looks for the longest; the first item of each."""
        memory = self.memory
        if memory is None or not memory.takes_batches(method):
            return None
        return memory.take if arity == 1 else lambda items: memory.take(items[::arity])

    def weigh(self, record: Record, raw: bytes) -> int:
        """What a record takes in memory, whose value is `raw`, or begins so where it is larger than a block and has been read."""
        assert self.sizer is not None
        try:
            if isinstance(record, LargeRecord):
                return self.sizer.weigh_large(record.type_code, self.key_bytes, record.expire_ms is not None, record.head)
            return self.sizer.weigh(record.type_code, raw, self.key_bytes, 0, len(raw), record.expire_ms is not None)
        except RdbError as e:
            e.offset = None
            raise record.add_location(e) from None


class _Value:
    """The value of a record while it is being read, which is done once.

    Attributes:
        head: its first bytes.
        also: called with each piece of it.
        size: bytes of it that have been read.
        arity: how many items an element has.
    """

    def __init__(self, run: _Run, record: Record) -> None:
        self.run = run
        self.record = record
        self.kind = record.value_type
        self.arity = self.kind.arity
        self.also: list[Callable[[bytes], Any]] = []
        self.size = 0
        self.read = False
        if isinstance(record, LargeRecord):
            self.chunks = record.chunks()
            self.head = b""
            while len(self.head) < HEAD and (piece := next(self.chunks, b"")):
                self.head += piece
            if run.sizer is not None:
                run.sizer.begin_large(record.type_code)
                if run.sizer.needs_pieces(record.type_code):
                    self.also.append(run.sizer.value_sizer.piece)
        else:
            self.chunks = iter(())
            self.head = record.raw

    def count(self) -> int:
        """How many elements it has."""
        record = self.record
        rule = self.run.rules[self.kind.id]
        if not isinstance(record, LargeRecord):
            return self.counted(rule, True)
        if self.kind.shape == "template":
            number, _ = read_length(self.head, 0)
            return len(record.file_types.templates.get(number, ()))
        count = self.counted(rule, False)
        if count < 0:  # a packed collection, which has to be held whole anyway
            self.head = b"".join([self.head, *self.chunks])
            self.chunks = iter(())
            count = self.counted(rule, True)
        return count

    def counted(self, rule: int, whole: bool) -> int:
        try:
            return int(element_count(rule, self.head, 0, len(self.head), whole))
        except RdbError as e:
            e.offset = None
            raise self.record.add_location(e) from None

    def info(self, encoding: str | None = None) -> Info:
        """What rdbtools tells of it beside its length."""
        record = self.record
        info: Info = {"encoding": encoding or self.kind.encoding, "idle": record.idle_s, "freq": record.freq}
        try:
            if self.kind.shape == "packed":
                info["sizeof_value"] = _unpacked_size(self.head, self.kind.head)
            elif self.kind.shape in ("nodes", "packed-nodes"):
                info["zips"], _ = read_length(self.head, 0)
        except RdbError as e:
            e.offset = None
            raise record.add_location(e) from None
        return info

    def pieces(self) -> Iterator[bytes]:
        """The encoded value."""
        for piece in chain((self.head,), self.chunks):
            self.size += len(piece)
            try:
                for tell in self.also:
                    tell(piece)
            except RdbError as e:
                raise self.record.add_location(e) from None
            yield piece

    def elements(self, take: Callable[[list[Any]], None] | None = None) -> Iterator[list[Any]]:
        """Its items, batch by batch; where `take` is given, that gets them."""
        self.read = True
        record = self.record
        pieces: Iterator[bytes] | None = None
        if isinstance(record, LargeRecord):
            pieces = self.pieces()
        else:
            for _ in self.pieces():
                pass
        batches = record.decode(self.run.decoder, pieces, NumberedItems())
        if self.kind.packed == "zipmap":
            batches = map(_with_numbers_as_values, batches)
        elif self.kind.encoding in _OF_LISTPACKS:
            batches = map(_with_numbers, batches)
        if take is None:
            yield from batches
        else:
            for items in batches:
                take(items)

    def pass_rest(self) -> None:
        """Read it where that has not been done and somebody looks at its bytes; then tell what it takes in memory."""
        record = self.record
        if not self.read:
            for _ in self.pieces():
                pass
        memory = self.run.memory
        if memory is not None:
            memory.memory = self.run.weigh(record, self.head)


def _with_numbers(items: list[Any]) -> list[Any]:
    """Entries of a listpack, which are decoded as text where fields expire or share their names; numbers as ints."""
    return [_number_or_text(item, 64) if isinstance(item, bytes) else item for item in items]


def _with_numbers_as_values(items: list[Any]) -> list[Any]:
    """Fields and values of a zipmap, which has nothing but text; rdbtools makes numbers of the values."""
    items[1::2] = _with_numbers(items[1::2])
    return items


def _unpacked_size(buf: bytes, at: int) -> int:
    """Bytes of the packed collection in the string at `at`."""
    if buf[at] == 0xC3:
        _, at = read_length(buf, at + 1)
    size, _ = read_length(buf, at)
    return size


class _Nodes:
    """Tells of the nodes of a stream, as its pieces come; fed as a `Decoder` is."""

    def __init__(self, record: Record, tell: Callable[[bytes, bytes], Any]) -> None:
        self.limit = record.file_types.limit
        self.tell = tell
        self.left = -1
        self.need = 0

    def feed(self, buf: bytes, pos: int, sink: object) -> int:
        if self.left == 0:
            return len(buf)
        try:
            if self.left < 0:
                self.left, pos = read_length(buf, pos)
            while self.left:
                self.need = 0
                middle = skip_string(buf, pos)
                end = skip_string(buf, middle) if middle < len(buf) else middle + 1
                if end > len(buf):
                    self.need = end - pos
                    return pos
                at, _ = read_string(buf, pos, self.limit)
                data, pos = read_string(buf, middle, self.limit)
                self.tell(at, data)
                self.left -= 1
            self.need = 0
        except IndexError:
            return pos
        return len(buf)


class _Frames:
    """Tells of what a module wrote, as the pieces of its value come; fed as a `Decoder` is."""

    def __init__(self, record: Record, begin: int, tell: Callable[[int, Any], Any]) -> None:
        self.record = record
        self.skip = begin
        self.tell = tell
        self.ended = False
        self.need = 0

    def feed(self, buf: bytes, pos: int, sink: object) -> int:
        pos += self.skip
        self.skip = 0
        try:
            while not self.ended:
                self.need = 0
                opcode, at = read_length(buf, pos)
                if opcode == 0:
                    self.ended = True
                    break
                if opcode in (1, 2):
                    data: Any
                    data, end = read_uint64(buf, at)
                elif opcode == 5:
                    end = skip_string(buf, at)
                    if end > len(buf):
                        self.need = end - pos
                        return pos
                    data = (
                        read_integer(buf, at) if 0xC0 <= buf[at] < 0xC3 else read_string(buf, at, self.record.file_types.limit)[0]
                    )
                else:
                    end = at + (4 if opcode == 3 else 8)
                    if end > len(buf):
                        return pos
                    (data,) = struct.unpack_from("<f" if opcode == 3 else "<d", buf, at)
                self.tell(opcode, data)
                pos = end
        except IndexError:
            return pos
        return len(buf)


def _id(at: StreamId) -> bytes:
    return at.ms.to_bytes(8, "big") + at.seq.to_bytes(8, "big")


def _group(group: StreamGroup) -> dict[str, Any]:
    """A consumer group as rdbtools tells it."""
    of_consumer: dict[bytes | None, list[dict[str, bytes]]] = {}
    for entry in group.pending:
        of_consumer.setdefault(entry.consumer, []).append({"id": _id(entry.id)})
    return {
        "name": group.name,
        "last_entry_id": str(group.last_id),
        "pending": [
            {"id": _id(e.id), "delivery_time": to_datetime(e.delivery_ms * 1000), "delivery_count": e.delivery_count}
            for e in group.pending
        ],
        "consumers": [
            {"name": c.name, "seen_time": to_datetime(c.seen_ms * 1000), "pending": of_consumer.get(c.name, [])}
            for c in group.consumers
        ],
    }

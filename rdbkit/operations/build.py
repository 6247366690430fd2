"""What `rdbkit build` does: JSON lines become a snapshot, as `rdbkit export --format jsonl` makes them of one.

A line is read, checked and written before the next one. Nothing of it is taken on trust: whatever the bytes say, the file that
comes of them is one that rdbkit reads, and whose values are those of the lines.
"""

from __future__ import annotations

import os
import re
from binascii import a2b_base64
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from json import JSONDecodeError, JSONDecoder
from typing import Any, BinaryIO, Final, NamedTuple, NoReturn, cast

from librt.strings import BytesWriter

from rdbkit.errors import CorruptError, LimitError, LossError, RdbError
from rdbkit.format import constants as c
from rdbkit.format.decode import FileTypes
from rdbkit.format.encode import encode_value, write_length, write_string
from rdbkit.format.modules import read_module
from rdbkit.format.record import Record
from rdbkit.format.scan import NO_EXPIRY
from rdbkit.model import Header
from rdbkit.passes.hashes import NameLog
from rdbkit.policy.ledger import Ledger, Loss
from rdbkit.policy.losses import how_to_keep
from rdbkit.products import described
from rdbkit.snapshot.writer import Writer, create
from rdbkit.storage.location import is_same_file
from rdbkit.storage.source import Input, Source, open_source
from rdbkit.targets.target import Target, as_target
from rdbkit.values import (
    Array,
    CronJob,
    Hash,
    ModuleValue,
    PendingEntry,
    Set,
    Stream,
    StreamConsumer,
    StreamDedup,
    StreamEntry,
    StreamGroup,
    StreamId,
)

#: Most bytes of a line, unless said otherwise.
LINE_BYTES: Final = 1 << 30

_BLOCK: Final = 1 << 20
_INFINITY: Final = float("inf")
_U64: Final = (1 << 64) - 1
_I64: Final = (1 << 63) - 1
#: The highest number of a database, since servers have it in an int.
_LAST_DB: Final = (1 << 31) - 1
#: Before this RDB version expiries are whole seconds in 32 bits.
_MILLISECONDS: Final = 3
_SECONDS: Final = 1 << 31
#: The latest expiry of a field, which Redis keeps in 48 bits.
_LATEST_FIELD: Final = (1 << 48) - 1
# Value types.
_HASH_VALKEY: Final = 22
_HASH_EXPIRING: Final = 24
_STREAM_DEDUP: Final = 26
_STREAM_NACKED: Final = 27
_KEYDB_CRON: Final = 64
_ID: Final = re.compile("([0-9]{1,20})-([0-9]{1,20})")
_MODULE: Final = re.compile("[A-Za-z0-9_-]{9}")
_FOR_ANY_TYPE: Final = ("encoding", "expire_ms", "idle_s", "freq", "member_expire_ms")
#: Types whose keys have elements; a stream may have none.
_FILLED: Final = ("list", "set", "zset", "hash")
#: What a stream has that recognises nothing that is sent twice, as servers make it.
_USUAL_DEDUP: Final = (100, 100)
#: A value takes less than so many times the bytes of its JSON.
_GROWTH: Final = 4


@dataclass
class Build:
    """What a build did.

    Attributes:
        header: flavour and RDB version of the file.
        target: for humans.
        ledger: every loss.
        keys: read.
        written: keys written; those that are not have been lost.
    """

    header: Header
    target: str
    ledger: Ledger = field(default_factory=Ledger)
    keys: int = 0
    written: int = 0


def build(
    src: Input | Iterable[bytes],
    dst: str | os.PathLike[str] | BinaryIO,
    *,
    target: str | Target,
    force: bool = False,
    on_loss: str = "fail",
    line_bytes: int = LINE_BYTES,
    progress: Callable[[int], object] | None = None,
) -> Build:
    """Write a snapshot of JSON lines.

    Values are written in the plain encodings, which every server loads and packs again by its own limits. The same lines give the
    same bytes, whenever and wherever that is.

    Args:
        src: the lines: a path, "-" for standard input, an object with `read(n)`, all of these plain or gzip; or the lines
            themselves, one after the other.
        dst, force: as for `rdbkit.create`.
        target: a release line ("redis-6.2"), a service ("azure-premium") or a version of the format ("rdb-9"). The file gets the
            newest version that it loads.
        on_loss: at what the target does not support, "fail", or "drop" it and go on.
        line_bytes: how long a line may be; memory is bounded by the longest.
        progress: called with bytes of `src` read so far.

    Raises: CorruptError for what is no such line, or for a key that comes twice, LimitError for a line that is too long, and
        LossError, each with the key; ValueError for a target that there is not, or one file as both; OSError.

    >>> import io, rdbkit
    >>> out = io.BytesIO()
    >>> report = build([b'{"db": 0, "key": "k", "type": "zset", "value": [["a", 1], ["b", "inf"]]}'], out, target="redis-6.2")
    >>> print(report.header, report.written)
    REDIS0009 1
    >>> with rdbkit.open(io.BytesIO(out.getvalue())) as snapshot:
    ...     [(record.key, record.value) for record in snapshot]
    [(b'k', {b'a': 1.0, b'b': inf})]
    """
    if on_loss not in ("fail", "drop"):
        raise ValueError(f"on_loss is 'fail' or 'drop', not {on_loss!r}")
    if is_same_file(src, dst):
        raise ValueError("the destination is the source")
    found = as_target(target)
    # what Valkey has of its own, it writes under its own name only
    header = Header(c.VALKEY, found.valkey[-1]) if found.valkey else Header(c.REDIS, found.rdb)
    report = Build(header, found.title)
    writer = create(dst, version=header.version, flavour=header.flavour, force=force, sources=[src])
    builder = _Builder(writer, found, target if isinstance(target, str) else target.name, on_loss == "fail", report)
    if isinstance(src, str | os.PathLike) or hasattr(src, "read"):
        source = open_source(cast(Input, src))
        with closing(source), writer:
            _write_lines(_lines_of(source, line_bytes, progress), source.name, builder)
    else:
        with writer:
            _write_lines(src, None, builder)
    return report


def _write_lines(lines: Iterable[bytes], source: str | None, builder: _Builder) -> None:
    number = 1  # of the line that is waited for, or at hand
    try:
        for line in lines:
            if line and not line.isspace():
                builder.line(line, number)
            number += 1
        for first, number, *_ in builder.names.repeated():  # noqa: B007 (of the error)
            raise CorruptError(f"its key has come before, in line {first}: no server loads a file that has one twice")
    except LossError:
        raise
    except RdbError as e:
        e.source = source
        e.message = f"line {number}: {e.message}"
        raise
    finally:
        builder.names.close()


def _lines_of(source: Source, most: int, progress: Callable[[int], object] | None) -> Iterator[bytes]:
    """The lines of a source without their ends; none of them is kept here when the next one is asked for."""
    begun: list[bytes] = []
    size = 0
    while block := source.read(_BLOCK):
        if progress is not None:
            progress(source.consumed)
        ended = False
        for piece in block.split(b"\n"):
            if ended:
                begun = [b"".join(begun)]
                yield begun.pop()
                size = 0
            size += len(piece)
            if size > most:
                raise LimitError(f"longer than {most} bytes")
            begun.append(piece)
            ended = True
    begun = [b"".join(begun)]
    yield begun.pop()


class _Key(NamedTuple):
    """What a line says; `value` is as `Record.value` has it."""

    db: int
    key: bytes
    type: str
    value: Any
    expire_ms: int | None
    idle_s: int | None
    freq: int | None
    member_expire_ms: dict[bytes, int]


class _OrderedSet(Set):
    """A set that is written in the order of its line, and not in one that differs from run to run."""

    def __init__(self, members: list[bytes]) -> None:
        super().__init__(members)
        self._members = members

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._members)


# -- what a target can represent


class _Builder:
    """Writes the key of each line, as far as the target can represent it."""

    def __init__(self, writer: Writer, target: Target, name: str, fail: bool, report: Build) -> None:
        self._writer = writer
        self._header = writer.header
        self._target = target
        self._name = name
        self._fail = fail
        self._report = report
        known = target.types_in(self._header)
        self._numbers = set(known)
        self._types = {t.type: t.id for t in known.values()}
        self._has_field_expiry = (_HASH_VALKEY if self._header.flavour == c.VALKEY else _HASH_EXPIRING) in known
        self._modules = None if target.exact else target.module_types
        self._databases = 1 if target.single_db else target.databases or _LAST_DB + 1
        self._coding = FileTypes(*self._header, 1 << 30, "")
        self._at: tuple[int | None, bytes | None] = (None, None)
        self.names = NameLog()  # of what is written, with the numbers of the lines

    def line(self, line: bytes, number: int) -> None:
        """Write the key of a line.

        Raises: CorruptError; LossError where nothing may be lost.
        """
        self._at = (None, None)
        try:
            key = self._read(line)
            if self._put(key, len(line)):
                self._report.written += 1
                self.names.add(key.db, key.key, number)
        except UnicodeEncodeError:
            db, name = self._at
            raise CorruptError("text with half of a surrogate pair, which stands for no bytes", db=db, key=name) from None
        except RdbError as e:
            e.db, e.key = self._at
            raise

    def _read(self, line: bytes) -> _Key:
        """What a line says; its JSON is no longer in memory then."""
        row = _object_of(line)
        db, key = _integer(row["db"], "a database", 0, _LAST_DB), _bytes(row["key"], "a key")
        self._at = (db, key)
        self._report.keys += 1
        return _key_of(db, key, row)

    def _put(self, key: _Key, size: int) -> bool:
        """Write a key; False where all of it is lost."""
        lost = self._lost_whole(key)
        if lost is not None:
            return self._lose(*lost)
        value = key.value
        if key.type == "hash" and value.field_expire_ms and not self._has_field_expiry:
            self._lose("field-expiry", "the expiry of fields", len(value.field_expire_ms))
            value.field_expire_ms = {}
        if key.type == "stream":
            self._fit_stream(value)
        limit = self._target.max_key_bytes
        if limit is not None and size > limit // _GROWTH and self._size_of(value) > limit:
            return self._lose("oversize", f"a key of more than {limit} bytes")
        expire_ms = self._fit_expiry(key.expire_ms)
        members = self._fit_members(key.member_expire_ms)
        self._write(key, value, expire_ms)
        for member, ms in members.items():
            self._writer.aux(b"keydb-subexpire-key", member)
            self._writer.aux(b"keydb-subexpire-when", ms)
        return True

    def _lost_whole(self, key: _Key) -> tuple[str, str] | None:
        """The loss, and what it is, where the target cannot represent a key at all."""
        if key.db >= self._databases:
            last = self._databases - 1
            return "database", f"database {key.db}: it has {f'0 to {last}' if last else '0 alone'}"
        if key.type not in self._types:
            return key.type, f"a key of type {key.type}"
        if not key.value and key.type in _FILLED:
            return "empty", f"a {key.type} without elements: servers have no such key, and refuse or skip it"
        if key.type == "module" and self._modules is not None and key.value.module not in self._modules:
            return "module", f"a value of {described(key.value.module)}"
        return None

    def _fit_expiry(self, expire_ms: int | None) -> int | None:
        """The expiry of a key, without one that the version cannot say."""
        if expire_ms is not None and self._header.version < _MILLISECONDS and not -_SECONDS <= expire_ms // 1000 < _SECONDS:
            self._lose("expiry", "an expiry after 2038")
            return None
        return expire_ms

    def _fit_members(self, members: dict[bytes, int]) -> dict[bytes, int]:
        """The expiries of members, which KeyDB has behind a key, where others do not look."""
        if members and _KEYDB_CRON not in self._target.extra_types:
            self._lose("member-expiry", "the expiry of members", len(members))
            return {}
        return members

    def _fit_stream(self, stream: Stream) -> None:
        """Take out of a stream what the version does not support."""
        unowned = sum(1 for group in stream.groups for entry in group.pending if entry.consumer is None)
        if unowned and _STREAM_NACKED not in self._numbers:
            self._lose("nacked", "pending entries that belong to no consumer", unowned)
            stream.groups = [
                group._replace(pending=[entry for entry in group.pending if entry.consumer is not None], nacked=[])
                for group in stream.groups
            ]
        dedup = stream.dedup
        if dedup is not None and _STREAM_DEDUP not in self._numbers:
            ids = sum(len(ids) for _, ids in dedup.producers)
            if ids or (dedup.duration_s, dedup.max_entries) != _USUAL_DEDUP:
                self._lose("dedup", "what recognises entries that are sent twice", max(ids, 1))
            stream.dedup = None

    def _size_of(self, value: Any) -> int:
        body = BytesWriter()
        encode_value(body, value, *self._header)
        return len(body)

    def _write(self, key: _Key, value: Any, expire_ms: int | None) -> None:
        if key.type not in ("gcra", "json"):
            self._writer.put(key.key, value, db=key.db, expire_ms=expire_ms, idle_s=key.idle_s, freq=key.freq)
            return
        # what `put` would take for something else
        body = BytesWriter()
        type_code = self._types[key.type]
        if key.type == "json":
            write_string(body, value)
        else:
            write_length(body, value)
        raw = body.getvalue()
        self._writer.write(
            Record(key.db, 0, None, expire_ms, key.idle_s, key.freq, self._coding, type_code, raw, 0, 0, len(raw), key.key)
        )

    def _lose(self, kind: str, what: str, count: int = 1) -> bool:
        """Enter a loss; always False, for a key that is lost whole.

        Raises: LossError where nothing may be lost.
        """
        if self._fail:
            kept = how_to_keep(kind, self._target)
            raise LossError(f"{self._name} does not support {what}{f'; {kept}' if kept else ''}")
        self._report.ledger.add(Loss(kind, what, count, *self._at))
        return False


# -- what a line says


def _object_of(line: bytes) -> dict[str, Any]:
    """The object that a line is.

    Raises: CorruptError.
    """
    try:
        row = _JSON.decode(line.decode())
    except UnicodeDecodeError as e:
        raise CorruptError(f"not UTF-8 (byte {e.start + 1} of the line)") from None
    except JSONDecodeError as e:
        raise CorruptError(f"no JSON: {e.msg} (character {e.pos + 1} of the line)") from None
    except ValueError:  # of int, which has a limit
        raise CorruptError("a number of too many digits") from None
    except RecursionError:
        raise CorruptError("arrays and objects inside each other, too many of them") from None
    return _members(row, "a line", ("db", "key", "type", "value"), None)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise CorruptError(f"{name[:64]!r} is there twice in one object")
            seen.add(name)
    return found


def _no_constant(text: str) -> NoReturn:
    raise CorruptError(f"{text} is no JSON")


_JSON: Final = JSONDecoder(object_pairs_hook=_unique, parse_constant=_no_constant)


def _key_of(db: int, key: bytes, row: dict[str, Any]) -> _Key:
    """What a line says of a key.

    Raises: CorruptError where any of it cannot be.
    """
    type_name = row["type"]
    if not isinstance(type_name, str):
        raise CorruptError(f"a type is text, not {_form(type_name)}")
    if type_name not in _VALUES:
        raise CorruptError(f"there is no type {type_name[:64]!r}")
    read, more = _VALUES[type_name]
    _members(row, f"a line of type {type_name}", ("db", "key", "type", "value"), (*_FOR_ANY_TYPE, *more))
    expire_ms = _optional(row, "expire_ms", -_I64 - 1, _I64)
    if expire_ms == NO_EXPIRY:
        raise CorruptError(f"an expire_ms of {expire_ms} cannot be")
    return _Key(
        db,
        key,
        type_name,
        read(row["value"], row),
        expire_ms,
        _optional(row, "idle_s", 0, _U64),
        _optional(row, "freq", 0, 255),
        _expiries(row["member_expire_ms"], "member_expire_ms", _I64) if "member_expire_ms" in row else {},
    )


# -- parts


def _form(form: Any) -> str:
    """What JSON calls a thing."""
    if form is None or isinstance(form, bool):
        return {None: "null", True: "true", False: "false"}[form]
    return {dict: "an object", list: "an array", str: "text", int: "an integer", float: "a fraction"}[type(form)]


def _bytes(form: Any, what: str = "an element") -> bytes:
    if type(form) is str:
        return form.encode()
    if type(form) is dict and len(form) == 1 and isinstance(packed := form.get("base64"), str):
        return _unpacked(packed)
    raise CorruptError(f'{what} is {_form(form)}, where text or {{"base64": "..."}} is needed')


def _unpacked(packed: str) -> bytes:
    try:
        return a2b_base64(packed, strict_mode=True)
    except ValueError:
        raise CorruptError(f"{packed[:64]!r} is no base64") from None


def _texts(forms: Iterable[Any]) -> list[bytes]:
    return [form.encode() if type(form) is str else _bytes(form) for form in forms]


def _integer(form: Any, what: str, low: int, high: int) -> int:
    if type(form) is not int:
        raise CorruptError(f"{what} is {_form(form)}, where an integer is needed")
    if not low <= form <= high:
        raise CorruptError(f"{what} of {str(form)[:40]} cannot be")
    return form


def _optional(row: dict[str, Any], name: str, low: int, high: int) -> int | None:
    return _integer(row[name], name, low, high) if name in row else None


def _array(form: Any, what: str) -> list[Any]:
    if type(form) is not list:
        raise CorruptError(f"{what} is {_form(form)}, where an array is needed")
    return form


def _rows(form: Any, what: str, one: str, width: int) -> list[list[Any]]:
    """An array of arrays of `width` elements."""
    rows = _array(form, what)
    for row in rows:
        if type(row) is not list or len(row) != width:
            raise CorruptError(f"{one} is {_form(row)}, where an array of {width} is needed")
    return rows


def _members(form: Any, what: str, needed: tuple[str, ...], more: tuple[str, ...] | None) -> dict[str, Any]:
    """An object with the members that are needed, and maybe `more`; None lets it have any."""
    if type(form) is not dict:
        raise CorruptError(f"{what} is {_form(form)}, where an object is needed")
    for name in needed:
        if name not in form:
            raise CorruptError(f"{what} has no {name!r}")
    if more is not None:
        for name in form:
            if name not in needed and name not in more:
                raise CorruptError(f"{what} does not support {name[:64]!r}")
    return form


def _fill(found: dict[bytes, Any], form: Any, what: str, read: Callable[[Any], Any]) -> None:
    """Put names, each once, and what belongs to them into `found`: of an object, or of pairs where a name is not text."""
    if type(form) is dict:
        for name, item in form.items():
            found[name.encode()] = read(item)
        return
    rows = _rows(form, what, f"a pair of {what}", 2)
    for name, item in rows:
        found[_bytes(name)] = read(item)
    if len(found) != len(rows):
        _once([_bytes(name) for name, _ in rows], "name")


def _once(names: list[bytes], what: str) -> None:
    seen: set[bytes] = set()
    for name in names:
        if name in seen:
            raise CorruptError(f"{what} {name[:64]!r} is there twice")
        seen.add(name)


def _expiries(form: Any, what: str, latest: int) -> dict[bytes, int]:
    found: dict[bytes, int] = {}
    _fill(found, form, what, lambda ms: _integer(ms, f"an expiry in {what}", 1, latest))
    return found


def _stream_id(form: Any, what: str) -> StreamId:
    match = _ID.fullmatch(form) if isinstance(form, str) else None
    if match is None:
        raise CorruptError(f"{what} is {_form(form)}, where an id such as 1700000000000-0 is needed")
    ms, seq = int(match[1]), int(match[2])
    if ms > _U64 or seq > _U64:
        raise CorruptError(f"{what} of {form} cannot be")
    return StreamId(ms, seq)


# -- values


def _list(form: Any, row: dict[str, Any]) -> list[bytes]:
    return _texts(_array(form, "a list"))


def _set(form: Any, row: dict[str, Any]) -> Set:
    found = _OrderedSet(_texts(_array(form, "a set")))
    if len(found) != len(form):
        _once(list(found), "member")
    return found


def _zset(form: Any, row: dict[str, Any]) -> dict[bytes, float]:
    rows = _rows(form, "a sorted set", "a member with its score", 2)
    found = {_bytes(member): _score(score) for member, score in rows}
    if len(found) != len(rows):
        _once([_bytes(member) for member, _ in rows], "member")
    return found


def _score(form: Any) -> float:
    if type(form) is float or type(form) is int:
        try:
            score = float(form)
        except OverflowError:
            score = _INFINITY
        if -_INFINITY < score < _INFINITY:
            return score
        raise CorruptError("a score is larger than any that a server has; infinity is the text inf")
    if form in ("inf", "-inf"):
        return float(form)
    raise CorruptError(f"a score is {_form(form)}, where a number, inf or -inf is needed")


def _hash(form: Any, row: dict[str, Any]) -> Hash:
    found = Hash()
    _fill(found, form, "a hash", _bytes)
    if "field_expire_ms" in row:
        found.field_expire_ms = _expiries(row["field_expire_ms"], "field_expire_ms", _LATEST_FIELD)
        for name in found.field_expire_ms:
            if name not in found:
                raise CorruptError(f"field {name[:64]!r} expires, but is not in the hash")
    return found


def _stream(form: Any, row: dict[str, Any]) -> Stream:
    counters = ("first_id", "max_deleted_id", "entries_added")
    _members(form, "a stream", ("entries", "length", "last_id", "groups"), (*counters, "dedup"))
    entries = []
    last = None
    for entry_form, fields_form in _rows(form["entries"], "entries", "an entry", 2):
        entry_id = _stream_id(entry_form, "an entry")
        if last is not None and entry_id <= last:
            raise CorruptError(f"entry {entry_id} follows {last}, where ids must ascend")
        last = entry_id
        pairs = _rows(fields_form, f"what entry {entry_id} holds", "a field with its value", 2)
        entries.append(StreamEntry(entry_id, [(_bytes(name), _bytes(value)) for name, value in pairs]))
    found = Stream(entries, _integer(form["length"], "length", 0, _U64), _stream_id(form["last_id"], "last_id"))
    if found.length != len(entries):
        raise CorruptError(f"a length of {found.length} cannot be, since there are {len(entries)} entries")
    if last is not None and found.last_id < last:
        raise CorruptError(f"a last_id of {found.last_id} cannot be, since there is entry {last}")
    if any(name in form for name in counters):
        _members(form, "a stream with any of the three", counters, None)
        found.first_id = _stream_id(form["first_id"], "first_id")
        found.max_deleted_id = _stream_id(form["max_deleted_id"], "max_deleted_id")
        found.entries_added = _integer(form["entries_added"], "entries_added", 0, _U64)
    found.groups = [_group(group) for group in _array(form["groups"], "groups")]
    _once([group.name for group in found.groups], "group")
    if "dedup" in form:
        found.dedup = _dedup(form["dedup"])
    return found


def _group(form: Any) -> StreamGroup:
    _members(form, "a group", ("name", "last_id", "pending", "consumers"), ("entries_read", "nacked"))
    name = _bytes(form["name"], "a group's name")
    pending = [
        PendingEntry(
            _stream_id(entry_id, "a pending entry"),
            None if owner is None else _bytes(owner, "a pending entry's consumer"),
            _integer(when, "a time of delivery", -_I64 - 1, _I64),
            _integer(count, "a count of deliveries", 0, _U64),
        )
        for entry_id, owner, when, count in _rows(form["pending"], "pending", "a pending entry", 4)
    ]
    nacked = [_stream_id(entry_id, "nacked") for entry_id in _array(form.get("nacked", []), "nacked")]
    for ids in ([entry.id for entry in pending], nacked):
        _once([b"%d-%d" % entry_id for entry_id in ids], f"in group {name[:64]!r} entry")
    consumers = []
    for consumer in _array(form["consumers"], "consumers"):
        _members(consumer, "a consumer", ("name", "seen_ms"), ("active_ms",))
        consumers.append(
            StreamConsumer(
                _bytes(consumer["name"], "a consumer's name"),
                _integer(consumer["seen_ms"], "seen_ms", -_I64 - 1, _I64),
                _optional(consumer, "active_ms", -_I64 - 1, _I64),
            )
        )
    names = [consumer.name for consumer in consumers]
    _once(names, f"in group {name[:64]!r} consumer")
    known = {None, *names}
    for entry in pending:
        if entry.consumer not in known:
            raise CorruptError(f"entry {entry.id} is pending for a consumer that is not in group {name[:64]!r}")
    if {entry.id for entry in pending if entry.consumer is None} != set(nacked):
        raise CorruptError(f"in group {name[:64]!r} nacked and the pending entries without a consumer are not the same")
    read = _optional(form, "entries_read", -1, _U64 - 1)
    return StreamGroup(name, _stream_id(form["last_id"], "last_id"), read, pending, consumers, nacked)


def _dedup(form: Any) -> StreamDedup:
    _members(form, "dedup", ("duration_s", "max_entries", "producers", "added", "duplicates"), ())
    producers = []
    for producer in _array(form["producers"], "producers"):
        _members(producer, "a producer", ("name", "ids"), ())
        ids = [
            (_bytes(name, "an id by which an entry was sent"), _stream_id(entry_id, "an entry that was sent"))
            for name, entry_id in _rows(producer["ids"], "ids", "an id with its entry", 2)
        ]
        producers.append((_bytes(producer["name"], "a producer's name"), ids))
    _once([name for name, _ in producers], "producer")
    return StreamDedup(
        _integer(form["duration_s"], "duration_s", 1, 86400),
        _integer(form["max_entries"], "max_entries", 1, 10000),
        producers,
        _integer(form["added"], "added", 0, _U64),
        _integer(form["duplicates"], "duplicates", 0, _U64),
    )


def _indexed(form: Any, row: dict[str, Any]) -> Array:
    found = Array()
    rows = _rows(form, "an array", "an index with its value", 2)
    if not rows:
        raise CorruptError("an array has at least one value")
    for index, value in rows:
        found[_integer(index, "an index", 0, _U64 - 1)] = _array_value(value)
    if len(found) != len(rows):
        raise CorruptError("an index is there twice")
    found.insert_index = _optional(row, "insert_index", 0, _U64)
    return found


def _array_value(form: Any) -> bytes | int | float:
    """An element; text is text, inf and nan too."""
    if type(form) is int:
        return _integer(form, "a number", -_I64 - 1, _I64)
    if type(form) is float:
        if form - form != 0:
            raise CorruptError("a number is larger than any that a server has")
        return float(form)
    return _bytes(form, "a value")


def _module(form: Any, row: dict[str, Any]) -> ModuleValue:
    _members(form, "a module's value", ("module", "version", "base64"), ())
    module, packed = form["module"], form["base64"]
    if not isinstance(module, str) or not _MODULE.fullmatch(module):
        raise CorruptError("a module's type is nine letters, digits, - or _")
    if not isinstance(packed, str):
        raise CorruptError(f"a module's base64 is {_form(packed)}, where text is needed")
    raw = _unpacked(packed)
    head = b"\x81" + bytes(8)  # any id: what is read is the framing behind it
    try:
        _, end = read_module(head + raw, 0)
    except IndexError:
        raise CorruptError("a module value ends too early") from None
    if end != len(head) + len(raw):
        raise CorruptError("a module value goes on behind its end mark")
    return ModuleValue(module, _integer(form["version"], "a module's version", 0, 1023), raw)


def _cron(form: Any, row: dict[str, Any]) -> CronJob:
    _members(form, "a cron job", ("script", "start_ms", "interval_ms", "keys", "args"), ())
    return CronJob(
        _bytes(form["script"], "a script"),
        _integer(form["start_ms"], "start_ms", -_I64 - 1, _I64),
        _integer(form["interval_ms"], "interval_ms", -_I64 - 1, _I64),
        _texts(_array(form["keys"], "keys")),
        _texts(_array(form["args"], "args")),
    )


#: How each type is read, and which members its line may have besides those that all have.
_VALUES: Final[dict[str, tuple[Callable[[Any, dict[str, Any]], Any], tuple[str, ...]]]] = {
    "string": (lambda form, row: _bytes(form, "a string"), ()),
    "list": (_list, ()),
    "set": (_set, ()),
    "zset": (_zset, ()),
    "hash": (_hash, ("field_expire_ms",)),
    "stream": (_stream, ()),
    "array": (_indexed, ("insert_index",)),
    "module": (_module, ()),
    "cron": (_cron, ()),
    "gcra": (lambda form, row: _integer(form, "a rate limiter", 0, _U64), ()),
    "json": (lambda form, row: _bytes(form, "a JSON document"), ()),
}

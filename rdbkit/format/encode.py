"""Values to bytes that an RDB of a given version can hold; the mirror image of `decode`.

Collections are written in the plain encodings (types 1, 2, 4 and 5), which every server loads and packs again by its own limits.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Final

from librt.strings import BytesWriter, write_f64_le, write_i64_le

from rdbkit.errors import LossError
from rdbkit.format import constants as c
from rdbkit.format.listpack import encode_listpack
from rdbkit.format.lzf import lzf_compress
from rdbkit.values import Array, CronJob, Hash, ModuleValue, Set, Stream, StreamEntry, StreamId

if TYPE_CHECKING:
    from mypy_extensions import i64

_STRING: Final = 0
_LIST: Final = 1
_SET: Final = 2
_ZSET_TEXT: Final = 3
_HASH: Final = 4
_ZSET: Final = 5
_MODULE: Final = 7
_HASH_VALKEY: Final = 22
_HASH_EXPIRING: Final = 24
_ARRAY: Final = 28
_CRON: Final = 64

#: Stream type by the first RDB version that has it, newest first, and the level of `decode`'s StreamDecoder.
_STREAMS: Final = ((14, 27, 5), (13, 26, 4), (11, 21, 3), (10, 19, 2), (9, 15, 1))
_MASK: Final = (1 << 64) - 1
_NODE_ENTRIES: Final = 100  # as stream-node-max-entries has it by default
_NODE_BYTES: Final = 4096
_COMPRESSIBLE: Final = 20  # longer strings are worth trying, as servers see it
_IDENTIFIERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def write_length(out: BytesWriter, n: int) -> None:
    """A length or count of up to 64 bits, in the shortest form. Source: rdbSaveLen in Redis' src/rdb.c."""
    if n < 0x40:
        out.append(n)
    elif n < 0x4000:
        out.append(0x40 | n >> 8)
        out.append(n & 0xFF)
    elif n < 1 << 32:
        out.append(0x80)
        out.write(n.to_bytes(4, "big"))
    else:
        out.append(0x81)
        out.write(n.to_bytes(8, "big"))


def integer_form(data: bytes) -> bytes | None:
    """The form of a string that is the text of a 32-bit integer, None for any other. Source: rdbTryIntegerEncoding.

    >>> integer_form(b"-5"), integer_form(b"007"), integer_form(b"300")
    (b'\\xc0\\xfb', None, b'\\xc1,\\x01')
    """
    size = len(data)
    if size == 0 or size > 11:
        return None
    digits = data[1:] if data[0] == 0x2D else data
    if not digits.isdigit() or (digits[0] == 0x30 and size > 1):
        return None
    n = int(data)
    if -0x80 <= n < 0x80:
        return b"\xc0" + n.to_bytes(1, "little", signed=True)
    if -0x8000 <= n < 0x8000:
        return b"\xc1" + n.to_bytes(2, "little", signed=True)
    if -0x80000000 <= n < 0x80000000:
        return b"\xc2" + n.to_bytes(4, "little", signed=True)
    return None


def write_string(out: BytesWriter, data: bytes, compress: bool = False) -> None:
    """A string, as an integer where it is the text of one; where `compress` is set and it saves bytes, as LZF."""
    size = len(data)
    if size <= 11:
        short = integer_form(data)
        if short is not None:
            out.write(short)
            return
    elif compress and size > _COMPRESSIBLE:
        packed = lzf_compress(data)
        if packed:
            out.append(0xC3)
            write_length(out, len(packed))
            write_length(out, size)
            out.write(packed)
            return
    write_length(out, size)
    out.write(data)


def write_score(out: BytesWriter, score: float) -> None:
    """A score as the text that RDB 7 and earlier have. Source: rdbSaveDoubleValue in Redis' src/rdb.c."""
    if score - score != 0:
        out.append(0xFE if score > 0 else 0xFF)
    else:
        text = b"%.17g" % score
        out.append(len(text))
        out.write(text)


def encode_value(out: BytesWriter, value: Any, flavour: str, version: int, compress: bool = False) -> int:
    """Write a value of `rdbkit.values`, or a plain bytes, list, set or dict; return its type.

    Strings of ordinary collections are tried with LZF where `compress` is set.

    A dict whose values are all floats or integers is a sorted set, any other a hash; an empty one a hash.

    Raises: LossError where the version cannot hold it; TypeError or ValueError where it is no such value.
    """
    if isinstance(value, bytes):
        write_string(out, value, compress)
        return _STRING
    if isinstance(value, Array):
        return _array(out, value, flavour, version)
    if isinstance(value, (list, set, frozenset)):
        return _elements(out, value, compress)
    if isinstance(value, dict):
        if value and not isinstance(value, Hash) and all(isinstance(v, (int, float)) for v in value.values()):
            return _scores(out, value, version, compress)
        return _hash(out, value, flavour, version, compress)
    if isinstance(value, Stream):
        return _stream(out, value, flavour, version)
    if isinstance(value, ModuleValue):
        return _module(out, value, version)
    if isinstance(value, CronJob):
        if flavour != c.REDIS or version > 9:
            raise LossError("KeyDB's cron jobs are known to KeyDB alone, which writes RDB 9")
        return _cron(out, value)
    raise TypeError(f"a value is bytes, list, set, dict or of rdbkit's types, not {type(value).__name__}")


def _elements(out: BytesWriter, value: Any, compress: bool) -> int:
    """A list or a set."""
    if isinstance(value, Set) and value.member_expire_ms:
        raise LossError("no RDB version has expiries of a set's members")
    write_length(out, len(value))
    for element in value:
        write_string(out, _bytes(element), compress)
    return _LIST if isinstance(value, list) else _SET


def _module(out: BytesWriter, value: ModuleValue, version: int) -> int:
    if version < 8:
        raise LossError(f"RDB {version} has no module values")
    number = 0
    for letter in value.module:
        number = number << 6 | _IDENTIFIERS.index(letter)
    out.append(0x81)
    out.write((number << 10 | value.version).to_bytes(8, "big"))
    out.write(value.raw)
    return _MODULE


def _bytes(element: object) -> bytes:
    if not isinstance(element, bytes):
        raise TypeError(f"an element is bytes, not {type(element).__name__}")
    return element


def _scores(out: BytesWriter, value: dict[bytes, float], version: int, compress: bool) -> int:
    write_length(out, len(value))
    for member, score in value.items():
        number = float(score)
        if number != number:
            raise ValueError("a score must be a number")
        write_string(out, _bytes(member), compress)
        if version >= 8:
            write_f64_le(out, number)
        else:
            write_score(out, number)
    return _ZSET if version >= 8 else _ZSET_TEXT


def _hash(out: BytesWriter, value: dict[bytes, bytes], flavour: str, version: int, compress: bool) -> int:
    expiries = value.field_expire_ms if isinstance(value, Hash) else {}
    if not expiries:
        write_length(out, len(value))
        for name, content in value.items():
            write_string(out, _bytes(name), compress)
            write_string(out, _bytes(content), compress)
        return _HASH
    for name, ms in expiries.items():
        if name not in value or not 0 < ms < 1 << 48:
            raise ValueError(f"an expiry of {ms} ms for field {name[:64]!r} cannot be")
    if flavour == c.VALKEY:
        write_length(out, len(value))
        for name, content in value.items():
            write_string(out, _bytes(name), compress)
            write_string(out, _bytes(content), compress)
            write_i64_le(out, expiries.get(name, -1))
        return _HASH_VALKEY
    if version < 12:
        raise LossError(f"RDB {version} has no expiry of fields")
    first = min(expiries.values())
    write_i64_le(out, first)
    write_length(out, len(value))
    for name, content in value.items():
        ms = expiries.get(name, 0)
        write_length(out, ms - first + 1 if ms else 0)
        write_string(out, _bytes(name), compress)
        write_string(out, _bytes(content), compress)
    return _HASH_EXPIRING


def _is_kept(number: float) -> bool:
    """Whether an array keeps a fraction as a number, which it does where its last two bits are 0.

    Servers use them for something else, and clear them when they load. Source: arTryEncodeFloat and arFromFloatBits in Redis'
    src/sparsearray.c and .h.
    """
    return number - number == 0 and struct.pack("<d", number)[0] & 3 == 0


def _array(out: BytesWriter, value: Array, flavour: str, version: int) -> int:
    if flavour != c.REDIS or version < 14:
        raise LossError(f"{flavour} RDB {version} has no arrays")
    if not value:
        raise ValueError("an array cannot be empty")
    write_length(out, len(value))
    if value.insert_index is None:
        out.append(0)
    else:
        out.append(1)
        write_length(out, value.insert_index)
    for index in sorted(value):
        write_length(out, index)
        element = value[index]
        if isinstance(element, float) and not _is_kept(element):
            element = repr(element).encode()
        if isinstance(element, bytes):
            out.append(0)
            write_length(out, len(element))
            out.write(element)
        elif isinstance(element, float):
            out.append(2)
            write_f64_le(out, element)
        else:
            out.append(1)
            write_i64_le(out, element)
    return _ARRAY


def _cron(out: BytesWriter, value: CronJob) -> int:
    write_string(out, value.script)
    write_i64_le(out, value.start_ms)
    write_i64_le(out, value.interval_ms)
    for texts in (value.keys, value.args):
        write_length(out, len(texts))
        for text in texts:
            write_string(out, text)
    return _CRON


# -- streams


def _stream(out: BytesWriter, value: Stream, flavour: str, version: int) -> int:
    versions = _STREAMS if flavour == c.REDIS else _STREAMS[2:]
    found = next((s for s in versions if s[0] <= version), None)
    if found is None:
        raise LossError(f"RDB {version} has no streams")
    _, type_code, level = found
    nodes = _nodes(value.entries)
    write_length(out, len(nodes))
    for entries in nodes:
        write_stream_node(out, entries)
    write_stream_tail(out, value, len(value.entries), level)
    return type_code


def write_stream_node(out: BytesWriter, entries: list[StreamEntry]) -> None:
    """Some entries of a stream, at least one; the number of nodes precedes the first of them."""
    blob = _node(entries)
    out.append(16)
    _write_raw_id(out, entries[0].id)
    write_length(out, len(blob))
    out.write(blob)


def write_stream_tail(out: BytesWriter, value: Stream, length: int, level: int) -> None:
    """What follows the nodes of a stream, which have `length` entries together.

    Args:
        value: without entries where they are not held.
        level: 1 to 5, as `rdbkit.format.streams.level_of` gives it for the type.
    """
    entries = value.entries
    write_length(out, length)
    _write_id(out, value.last_id)
    if level >= 2:
        _write_id(out, value.first_id or (entries[0].id if entries else StreamId(0, 0)))
        _write_id(out, value.max_deleted_id or StreamId(0, 0))
        write_length(out, length if value.entries_added is None else value.entries_added)
    write_length(out, len(value.groups))
    for group in value.groups:
        _group(out, group, level)
    if level >= 4:
        _dedup(out, value)
    elif value.dedup is not None and value.dedup.producers:
        raise LossError("before RDB 13, nothing keeps what recognises entries that are sent twice")


def _group(out: BytesWriter, group: Any, level: int) -> None:
    write_string(out, group.name)
    _write_id(out, group.last_id)
    if level >= 2:
        write_length(out, _MASK if group.entries_read is None or group.entries_read < 0 else group.entries_read)
    owned = _pending(out, group, level)
    _consumers(out, group, owned, level)
    if level >= 5:
        write_length(out, len(group.nacked))
        for entry_id in group.nacked:
            _write_raw_id(out, entry_id)


def _pending(out: BytesWriter, group: Any, level: int) -> dict[bytes, list[StreamId]]:
    """The pending entries of a group; returns those of each consumer."""
    write_length(out, len(group.pending))
    owned: dict[bytes, list[StreamId]] = {consumer.name: [] for consumer in group.consumers}
    unowned: list[StreamId] = []
    for entry_id, owner, when, count in group.pending:
        _write_raw_id(out, entry_id)
        write_i64_le(out, when)
        write_length(out, count)
        if owner is None:
            unowned.append(entry_id)
        elif owner in owned:
            owned[owner].append(entry_id)
        else:
            raise ValueError(f"consumer {owner[:64]!r} of entry {entry_id} is not in its group")
    if unowned and level < 5:
        raise LossError("pending entries without a consumer need RDB 14")
    if set(unowned) != set(group.nacked):
        raise ValueError("the entries without a consumer are those that were given back")
    return owned


def _consumers(out: BytesWriter, group: Any, owned: dict[bytes, list[StreamId]], level: int) -> None:
    write_length(out, len(group.consumers))
    for consumer in group.consumers:
        write_string(out, consumer.name)
        write_i64_le(out, consumer.seen_ms)
        if level >= 3:
            write_i64_le(out, consumer.seen_ms if consumer.active_ms is None else consumer.active_ms)
        ids = owned[consumer.name]
        write_length(out, len(ids))
        for entry_id in ids:
            _write_raw_id(out, entry_id)


def _dedup(out: BytesWriter, value: Stream) -> None:
    dedup = value.dedup
    # what servers write for a stream that never had any
    write_length(out, 100 if dedup is None else dedup.duration_s)
    write_length(out, 100 if dedup is None else dedup.max_entries)
    producers = [] if dedup is None else dedup.producers
    write_length(out, len(producers))
    for name, ids in producers:
        write_string(out, name)
        write_length(out, len(ids))
        for text, entry_id in ids:
            write_string(out, text)
            _write_id(out, entry_id)
    write_length(out, 0 if dedup is None else dedup.added)
    write_length(out, 0 if dedup is None else dedup.duplicates)


def _nodes(entries: list[StreamEntry]) -> list[list[StreamEntry]]:
    """The entries, so many together as a node has."""
    nodes: list[list[StreamEntry]] = []
    at = 0
    while at < len(entries):
        begin = at
        size = 0
        while at < len(entries) and at - begin < _NODE_ENTRIES and (at == begin or size < _NODE_BYTES):
            size += sum(len(name) + len(content) + 4 for name, content in entries[at].fields)
            at += 1
        nodes.append(entries[begin:at])
    return nodes


def _node(entries: list[StreamEntry]) -> bytes:
    first = entries[0].id
    names = [name for name, _ in entries[0].fields]
    parts: list[bytes | int] = [len(entries), 0, len(names), *names, 0]
    for entry in entries:
        own = [name for name, _ in entry.fields]
        delta: i64 = _signed(entry.id.ms - first.ms)
        sequence: i64 = _signed(entry.id.seq - first.seq)
        if own == names:
            parts += [2, delta, sequence, *[content for _, content in entry.fields], len(own) + 3]
        else:
            parts += [0, delta, sequence, len(own)]
            for name, content in entry.fields:
                parts += [name, content]
            parts.append(2 * len(own) + 4)
    return encode_listpack(parts)


def _signed(n: int) -> int:
    """Differences of ids wrap at 64 bits."""
    n &= _MASK
    return n if n < 1 << 63 else n - (1 << 64)


def _write_id(out: BytesWriter, entry_id: StreamId) -> None:
    write_length(out, entry_id.ms)
    write_length(out, entry_id.seq)


def _write_raw_id(out: BytesWriter, entry_id: StreamId) -> None:
    out.write(entry_id.ms.to_bytes(8, "big"))
    out.write(entry_id.seq.to_bytes(8, "big"))

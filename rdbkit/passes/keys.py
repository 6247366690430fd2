"""One row a key, made while scanning; compiled, since it runs once a record.

`RowList` makes objects. `TextRows` writes CSV or JSON lines straight from the block's bytes, and `ColumnRows` fills columns as
Arrow has them: neither makes an object a row.
"""

from __future__ import annotations

import re
from base64 import b64encode
from typing import TYPE_CHECKING, Final, NamedTuple

from librt.strings import BytesWriter, write_i16_le, write_i32_le, write_i64_le

from rdbkit.errors import LimitError
from rdbkit.format.compiled import COMPILED
from rdbkit.format.constants import ValueType
from rdbkit.format.counts import count_rule, element_count
from rdbkit.format.filter import Filter
from rdbkit.format.packed import UNKNOWN
from rdbkit.format.primitives import read_string
from rdbkit.format.scan import NO_EXPIRY, STRING_INT, STRING_LZF, TYPE_CODES, Visitor
from rdbkit.format.slots import key_slot, slot_of, tag_slot_of
from rdbkit.passes.json_text import json_text, write_number

if TYPE_CHECKING:
    from mypy_extensions import i64


class KeyRow(NamedTuple):
    """What `rdbkit keys` reports of one key.

    `db`: database number. `key`: its name. `type`, `encoding`: as `Record` names them. `size`: bytes in the file, name and
    attributes included. `elements`: how many the value has, a field with its value counting as one; None for modules and the
    like. `expire_ms`: absolute expiry in Unix milliseconds, None for none. `idle_s`, `freq`: seconds since the last access and
    LFU counter (0-255), None where the file does not say. `slot`: cluster slot (0-16383). `offset`: where its record begins in the
    snapshot, in bytes.
    """

    db: int
    key: bytes
    type: str
    encoding: str
    size: int
    elements: int | None
    expire_ms: int | None
    idle_s: int | None
    freq: int | None
    slot: int
    offset: int


#: Columns of CSV; the last is filled for names that are not UTF-8, whose `key` is then empty.
CSV_HEAD: Final = b"db,key,type,encoding,size,elements,expire_ms,idle_s,freq,slot,key_base64\n"

NO_LIMIT: Final = 1 << 62

#: Rows, and bytes of their keys, that are held at a time for Parquet and the like.
GROUP_ROWS: Final = 1 << 15
GROUP_BYTES: Final = 64 << 20
_LONGEST_NAME: Final = (1 << 31) - 1 - GROUP_BYTES - 1  # a column of Arrow holds 2 GiB

# What a byte of a name means for its row.
_QUOTED: Final = 1  # the name is quoted, or escaped, or not UTF-8: a matter for the slow way
_TAG: Final = 2  # its slot may be that of a part
_BRACE: Final = 0x7B


def _classes(quoted: bytes) -> bytes:
    return bytes([_QUOTED if c >= 0x80 or c in quoted else _TAG if c == _BRACE else 0 for c in range(256)])


#: Single bytes come from here: `append` compiles to a store for what was taken out of bytes, and to a call for other numbers.
_QUOTE: Final = b'"'
_BYTES: Final = bytes(range(256))
_CSV_CLASSES: Final = _classes(b'",\r\n')
_JSON_CLASSES: Final = _classes(bytes([*range(0x20), 0x22, 0x5C]))
_CSV_ODD: Final = re.compile(rb'[\x80-\xff",\r\n]').search
_JSON_ODD: Final = re.compile(rb'[\x80-\xff\x00-\x1f"\\]').search
_CSV_QUOTED: Final = re.compile(rb'[",\r\n]').search


class Rows(Visitor):
    """What both kinds of rows share.

    Args:
        types: of the snapshot.
        name_limit: most bytes of a key's name.
        wanted: which keys; None for all.
        limit: how many rows at most; None for all.

    Attributes:
        left: how many rows are still wanted.
        large_elements: to be set to the count of the record that `large` will receive next.
    """

    def __init__(self, types: dict[int, ValueType], name_limit: int, wanted: Filter | None, limit: int | None) -> None:
        super().__init__()
        self.name_limit: i64 = name_limit
        self.filter: Filter | None = wanted
        self.left: i64 = NO_LIMIT if limit is None else limit
        self.large_elements: i64 = UNKNOWN
        self.rules: list[int] = [0] * TYPE_CODES
        self.memory: i64 = -1  # of the record to come, where rows have it
        self.types: list[str] = [""] * TYPE_CODES
        self.encodings: list[str] = [""] * TYPE_CODES
        coded = [*types.items(), (STRING_INT, types[0]._replace(encoding="int")), (STRING_LZF, types[0]._replace(encoding="lzf"))]
        for type_code, value_type in coded:
            self.rules[type_code] = count_rule(value_type)
            self.types[type_code] = value_type.type
            self.encodings[type_code] = value_type.encoding
        if wanted is not None:
            wanted.database(0)

    def database(self) -> None:
        if self.filter is not None:
            self.filter.database(int(self.db))


class RowList(Rows):
    """Collects the rows of a block."""

    def __init__(self, types: dict[int, ValueType], name_limit: int, wanted: Filter | None, limit: int | None) -> None:
        super().__init__(types, name_limit, wanted, limit)
        self.rows: list[KeyRow] = []

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        if self.left > 0 and (self.filter is None or self.filter.wants(self.buf, key_at, type_code, end - start, expire_ms)):
            key, _ = read_string(self.buf, key_at, self.name_limit)
            elements: i64 = element_count(self.rules[type_code], self.buf, value_at, end)
            self.add(type_code, key, end - start, elements, expire_ms, self.base + start)

    def large(self, type_code: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        if self.left > 0 and (self.filter is None or self.filter.wants_large(key, type_code, size, expire_ms)):
            self.add(type_code, key, size, self.large_elements, expire_ms, offset)

    def add(self, type_code: i64, key: bytes, size: i64, elements: i64, expire_ms: i64, offset: i64) -> None:
        self.left -= 1
        self.rows.append(
            KeyRow(
                self.db,
                key,
                self.types[type_code],
                self.encodings[type_code],
                size,
                None if elements < 0 else elements,
                None if expire_ms == NO_EXPIRY else expire_ms,
                None if self.idle_s < 0 else self.idle_s,
                None if self.freq < 0 else self.freq,
                key_slot(key),
                offset,
            )
        )

    def take(self) -> list[KeyRow]:
        """The rows since the last call."""
        rows = self.rows
        self.rows = []
        return rows


class TextRows(Rows):
    """Writes rows as lines of CSV, or of JSON where `as_json`."""

    def __init__(
        self,
        types: dict[int, ValueType],
        name_limit: int,
        wanted: Filter | None,
        limit: int | None,
        as_json: bool,
        has_memory: bool = False,
    ) -> None:
        super().__init__(types, name_limit, wanted, limit)
        self.has_memory: bool = has_memory
        self.out: BytesWriter = BytesWriter()
        self.as_json: bool = as_json
        self.classes: bytes = _JSON_CLASSES if as_json else _CSV_CLASSES
        self.needs_escape = _JSON_ODD if as_json else _CSV_ODD
        # a row is: before, key, after, and each number behind what introduces it; `absent` stands for a number that is not
        # there and what would introduce it
        self.before: bytes = b""
        self.after: list[bytes] = [self.middle(t, e) for t, e in zip(self.types, self.encodings, strict=True)]
        self.to_size: bytes = b',"size":' if as_json else b","
        self.to_elements: bytes = b',"elements":' if as_json else b","
        self.to_expire: bytes = b',"expire_ms":' if as_json else b","
        self.to_idle: bytes = b',"idle_s":' if as_json else b","
        self.to_freq: bytes = b',"freq":' if as_json else b","
        self.to_slot: bytes = b',"slot":' if as_json else b","
        self.absent: bytes = b"" if as_json else b","
        self.end: bytes = b"}\n" if as_json else b",\n"
        self.base64_end: bytes = b""
        self.database()

    def database(self) -> None:
        super().database()
        self.before = (b'{"db":%d,"key":' if self.as_json else b"%d,") % int(self.db)

    def middle(self, type_name: str, encoding: str) -> bytes:
        """What stands between a row's key and its first number."""
        number = "memory" if self.has_memory else "size"
        text = f',"type":"{type_name}","encoding":"{encoding}","{number}":' if self.as_json else f",{type_name},{encoding},"
        return text.encode()

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        buf = self.buf
        if self.left <= 0 or (self.filter is not None and not self.filter.wants(buf, key_at, type_code, end - start, expire_ms)):
            return
        first: i64 = buf[key_at]
        at: i64 = key_at + 1
        stop: i64 = value_at
        if first >= 0x40:
            if first < 0x80:
                at += 1
            else:
                buf, _ = read_string(buf, key_at, self.name_limit)
                at = 0
                stop = len(buf)
        # first, since it may raise, and half a row must not stay
        elements: i64 = 1 if type_code == 0 else element_count(self.rules[type_code], self.buf, value_at, end)
        slot: i64 = self.write_key(buf, at, stop)
        self.write_rest(self.after[type_code], end - start, elements, expire_ms, slot)

    def large(self, type_code: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        if self.left > 0 and (self.filter is None or self.filter.wants_large(key, type_code, size, expire_ms)):
            slot: i64 = self.write_key(key, 0, len(key))
            self.write_rest(self.after[type_code], size, self.large_elements, expire_ms, slot)

    def add(self, row: KeyRow) -> None:
        """A row that has been made before."""
        if row.db != self.db:
            self.db = row.db
            self.database()
        self.idle_s = -1 if row.idle_s is None else row.idle_s
        self.freq = -1 if row.freq is None else row.freq
        slot: i64 = self.write_key(row.key, 0, len(row.key))
        self.write_rest(
            self.middle(row.type, row.encoding),
            row.size,
            -1 if row.elements is None else row.elements,
            NO_EXPIRY if row.expire_ms is None else row.expire_ms,
            slot,
        )

    def write_key(self, buf: bytes, at: i64, stop: i64) -> i64:
        """The row's beginning up to its key; returns the key's slot."""
        out = self.out
        out.write(self.before)
        if not COMPILED:
            key = buf[at:stop]
            if self.needs_escape(key) is not None:
                self.write_odd_key(key)
            else:
                out.write(b'"%b"' % key if self.as_json else key)
            return key_slot(key)
        mark: i64 = len(out)
        seen: i64 = 0
        classes = self.classes
        if self.as_json:
            out.append(_QUOTE[0])
        for i in range(at, stop):
            out.append(buf[i])
            seen |= classes[buf[i]]
        if self.as_json:
            out.append(_QUOTE[0])
        if seen == 0:
            return slot_of(buf, at, stop)
        if seen & _QUOTED:
            out.truncate(mark)
            self.write_odd_key(buf[at:stop])
        return tag_slot_of(buf, at, stop)

    def write_odd_key(self, key: bytes) -> None:
        """A key that cannot stand as it is."""
        if self.as_json:
            self.out.write(json_text(key))
            return
        try:
            key.decode()
        except UnicodeDecodeError:
            self.base64_end = b",%b\n" % b64encode(key)
            return
        if _CSV_QUOTED(key) is not None:
            key = b'"%b"' % key.replace(b'"', b'""')
        self.out.write(key)

    def write_rest(self, after: bytes, size: i64, elements: i64, expire_ms: i64, slot: i64) -> None:
        """The row from behind its key on."""
        self.left -= 1
        out = self.out
        out.write(after)
        if self.has_memory:
            write_number(out, self.memory)
            out.write(self.to_size)
        write_number(out, size)
        if elements < 0:
            out.write(self.absent)
        else:
            out.write(self.to_elements)
            write_number(out, elements)
        if expire_ms == NO_EXPIRY:
            out.write(self.absent)
        else:
            out.write(self.to_expire)
            write_number(out, expire_ms)
        if self.idle_s < 0:
            out.write(self.absent)
        else:
            out.write(self.to_idle)
            write_number(out, self.idle_s)
        if self.freq < 0:
            out.write(self.absent)
        else:
            out.write(self.to_freq)
            write_number(out, self.freq)
        out.write(self.to_slot)
        write_number(out, slot)
        if self.base64_end:
            out.write(self.base64_end)
            self.base64_end = b""
        else:
            out.write(self.end)

    def take(self) -> bytes:
        """The text since the last call."""
        text = self.out.getvalue()
        self.out.truncate(0)
        return text


class KeyColumns(NamedTuple):
    """Columns of rows, each as the bytes that Arrow has for them: numbers little-endian, one behind the other.

    `rows`: how many. `keys` are the names without anything between them, and `key_ends` a zero and where each of them ends.
    `codes` are those by which `Rows.types` and `Rows.encodings` know types and encodings. Of the numbers that may be missing,
    each is a pair: the numbers, and a bit for each that is there.
    """

    rows: int
    dbs: bytes
    key_ends: bytes
    keys: bytes
    codes: bytes
    sizes: bytes
    elements: tuple[bytes, bytes]
    expire_ms: tuple[bytes, bytes]
    idle_s: tuple[bytes, bytes]
    freqs: tuple[bytes, bytes]
    slots: bytes
    offsets: bytes


class OptionalNumbers:
    """A column of numbers of 64 bits that may be missing."""

    def __init__(self) -> None:
        self.numbers: BytesWriter = BytesWriter()
        self.present: BytesWriter = BytesWriter()
        self.bits: i64 = 0
        self.bit: i64 = 1

    def add(self, n: i64, present: bool) -> None:
        """The next number."""
        if present:
            self.bits |= self.bit
            write_i64_le(self.numbers, n)
        else:
            write_i64_le(self.numbers, 0)
        self.bit <<= 1
        if self.bit == 256:
            self.end_byte()

    def end_byte(self) -> None:
        self.present.append(_BYTES[self.bits])
        self.bits = 0
        self.bit = 1

    def take(self) -> tuple[bytes, bytes]:
        """The numbers since the last call, and the bits of those that are there."""
        if self.bit > 1:
            self.end_byte()
        taken = self.numbers.getvalue(), self.present.getvalue()
        self.numbers.truncate(0)
        self.present.truncate(0)
        return taken


class ColumnRows(Rows):
    """Fills columns, in groups of `GROUP_ROWS` rows, and fewer where names are long."""

    def __init__(self, types: dict[int, ValueType], name_limit: int, wanted: Filter | None, limit: int | None) -> None:
        super().__init__(types, name_limit, wanted, limit)
        self.groups: list[KeyColumns] = []
        self.rows: i64 = 0
        self.dbs: BytesWriter = BytesWriter()
        self.keys: BytesWriter = BytesWriter()
        self.key_ends: BytesWriter = BytesWriter()
        self.codes: BytesWriter = BytesWriter()
        self.sizes: BytesWriter = BytesWriter()
        self.elements: OptionalNumbers = OptionalNumbers()
        self.expire_ms: OptionalNumbers = OptionalNumbers()
        self.idle: OptionalNumbers = OptionalNumbers()
        self.freqs: OptionalNumbers = OptionalNumbers()
        self.slots: BytesWriter = BytesWriter()
        self.offsets: BytesWriter = BytesWriter()
        write_i32_le(self.key_ends, 0)

    def record(self, type_code: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        buf = self.buf
        if self.left <= 0 or (self.filter is not None and not self.filter.wants(buf, key_at, type_code, end - start, expire_ms)):
            return
        first: i64 = buf[key_at]
        at: i64 = key_at + 1
        stop: i64 = value_at
        if first >= 0x40:
            if first < 0x80:
                at += 1
            else:
                buf, _ = read_string(buf, key_at, self.name_limit)
                at = 0
                stop = len(buf)
        # first, since it may raise, and half a row must not stay
        elements: i64 = 1 if type_code == 0 else element_count(self.rules[type_code], self.buf, value_at, end)
        self.add(type_code, buf, at, stop, end - start, elements, expire_ms, self.base + start)

    def large(self, type_code: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        if self.left > 0 and (self.filter is None or self.filter.wants_large(key, type_code, size, expire_ms)):
            self.add(type_code, key, 0, len(key), size, self.large_elements, expire_ms, offset)

    def add(self, type_code: i64, buf: bytes, at: i64, stop: i64, size: i64, elements: i64, expire_ms: i64, offset: i64) -> None:
        """A row, whose key is `buf[at:stop]`."""
        if stop - at > _LONGEST_NAME:
            raise LimitError(f"a name of {stop - at:,} bytes is more than a column of Parquet holds")
        self.left -= 1
        self.rows += 1
        write_i32_le(self.dbs, int(self.db))
        write_i16_le(self.slots, int(self.write_key(buf, at, stop)))
        write_i32_le(self.key_ends, len(self.keys))
        write_i16_le(self.codes, int(type_code))
        write_i64_le(self.sizes, size)
        self.elements.add(elements, elements >= 0)
        self.expire_ms.add(expire_ms, expire_ms != NO_EXPIRY)
        self.idle.add(self.idle_s, self.idle_s >= 0)
        self.freqs.add(self.freq, self.freq >= 0)
        write_i64_le(self.offsets, offset)
        if self.rows == GROUP_ROWS or len(self.keys) > GROUP_BYTES:
            self.end_group()

    def write_key(self, buf: bytes, at: i64, stop: i64) -> i64:
        """The key; returns its slot."""
        keys = self.keys
        if not COMPILED:
            key = buf[at:stop]
            keys.write(key)
            return key_slot(key)
        for i in range(at, stop):
            keys.append(buf[i])
        return tag_slot_of(buf, at, stop)

    def end_group(self) -> None:
        """The rows since the last call are a group."""
        group = KeyColumns(
            self.rows,
            self.dbs.getvalue(),
            self.key_ends.getvalue(),
            self.keys.getvalue(),
            self.codes.getvalue(),
            self.sizes.getvalue(),
            self.elements.take(),
            self.expire_ms.take(),
            self.idle.take(),
            self.freqs.take(),
            self.slots.getvalue(),
            self.offsets.getvalue(),
        )
        self.groups.append(group)
        self.rows = 0
        for out in (self.dbs, self.keys, self.codes, self.sizes, self.slots, self.offsets):
            out.truncate(0)
        self.key_ends.truncate(4)

    def take(self) -> list[KeyColumns]:
        """The groups that are full since the last call."""
        groups = self.groups
        self.groups = []
        return groups

    def finish(self) -> list[KeyColumns]:
        """The groups since the last call of `take`, the last of which is the rest."""
        if self.rows > 0:
            self.end_group()
        return self.take()

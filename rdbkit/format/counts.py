"""How many elements a value has, read from its headers: nothing is decoded.

A rule says where a type keeps its count; it is looked up once a type (`count_rule`) and applied to each value
(`element_count`, or `PieceCounter` for a value that does not fit into a block).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rdbkit.errors import CorruptError
from rdbkit.format.constants import ValueType, check_rows
from rdbkit.format.packed import UNKNOWN
from rdbkit.format.primitives import MAX_LENGTH, read_length, read_string, skip_length, skip_string
from rdbkit.format.readers import LISTPACK, READERS, reader_number
from rdbkit.format.sink import Sink
from rdbkit.format.skip import skip_container

if TYPE_CHECKING:
    from mypy_extensions import i64

# Rules: in the lowest bits where the count stands, above them of what is packed the entries an element, what precedes and
# the reader.
_NONE: Final = 0
_ONE: Final = 1
_LENGTH: Final = 2
_STREAM: Final = 3
_NODES: Final = 4
_PACKED_NODES: Final = 5
_FIELDS: Final = 6
_VALUES: Final = 7
_ID_AND_VALUES: Final = 8
_PACKED: Final = 9
_PLACE: Final = 15
_ARITY: Final = 4  # where its two bits begin
_HEAD: Final = 6  # where the four bits of the bytes in front begin
_READER: Final = 10

_RULES: Final = {
    "string": _ONE,
    "strings": _LENGTH,
    "scored": _LENGTH,
    "text-scored": _LENGTH,
    "nodes": _NODES,
    "packed-nodes": _PACKED_NODES,
    "packed": _PACKED,
    "expiry-first": _LENGTH,
    "expiry-last": _LENGTH,
    "expiry-text": _LENGTH,
    "stream": _STREAM,
    "array": _LENGTH,
    "module": _NONE,
    "cron": _NONE,
    "number": _NONE,
    "named-listpack": _FIELDS,
    "named": _FIELDS,
    "template-listpack": _ID_AND_VALUES,
    "template": _VALUES,
}
check_rows("shape", _RULES, "no rule by which to count shape")

#: Bytes of a value, or of a quicklist's node, that hold all that its count takes, in whatever form they stand.
HEAD: Final = 64
_LONGEST_HEADER: Final = max([reader.header for reader in READERS])


def count_rule(value_type: ValueType) -> int:
    """The rule by which values of this type are counted; see `element_count`."""
    rule = _RULES[value_type.shape]
    if rule == _ONE and value_type.type != "string":
        return _NONE
    return rule | value_type.arity << _ARITY | value_type.head << _HEAD | reader_number(value_type) << _READER


def element_count(rule: i64, buf: bytes, pos: i64, end: i64, whole: bool = True) -> i64:
    """How many elements the value in `buf[pos:end]` has; -1 where it has none, or does not say.

    A field with its value, a member with its score and an entry of a stream are one element, and so is a string.

    Args:
        rule: of `count_rule`.
        whole: False where only a value's first `HEAD` bytes are there. A count that takes reading the whole value is then -1.

    Raises: CorruptError, with `offset` relative to `buf`, where a count cannot be.

    >>> from rdbkit.format.constants import value_types
    >>> value = b"\\x0d" + b"\\x0d\\0\\0\\0\\x02\\0" + b"\\x81f\\x02\\x81v\\x02" + b"\\xff"
    >>> element_count(count_rule(value_types("redis", 10)[16]), value, 0, len(value))
    1
    """
    place: i64 = rule & _PLACE
    if place == _ONE:
        return 1
    n: i64
    start: i64 = pos
    try:
        if place == _PACKED:
            n = _packed(rule >> _READER, buf, pos + (rule >> _HEAD & 15), whole)
            arity: i64 = rule >> _ARITY & 3
            if n < 0 or arity == 1:
                return n
            if n % arity != 0:
                raise CorruptError(f"a value of {n} packed entries, where they come {arity} by {arity}")
            return n // arity
        if place == _LENGTH:
            n, pos = read_length(buf, pos + (rule >> _HEAD & 15))
            return n
        if place in (_NODES, _PACKED_NODES):
            return _nodes(rule, buf, pos) if whole else UNKNOWN
        if place == _STREAM:
            if not whole:
                return UNKNOWN
            n, pos = read_length(buf, pos)
            for _ in range(n):
                pos = skip_string(buf, skip_string(buf, pos))
            n, pos = read_length(buf, pos)
            return n
        if place == _FIELDS:
            n, pos = read_length(buf, pos)
            if n == 0:
                return _packed(LISTPACK, buf, pos, whole)
            n, pos = read_length(buf, pos)
            return n
        if place == _ID_AND_VALUES:
            n = _packed(LISTPACK, buf, pos, whole)
            if n == 0:
                raise CorruptError("a hash by template without the template's id")
            return n - 1 if n > 0 else n
        if place == _VALUES and whole:
            pos = skip_length(buf, pos)
            n = 0
            while pos < end:
                pos = skip_string(buf, pos)
                n += 1
            return n
    except CorruptError as e:
        if e.offset is None:
            e.offset = int(start)
        raise
    except IndexError:
        raise CorruptError("the value ends before its count", offset=int(start)) from None
    return UNKNOWN


def _nodes(rule: i64, buf: bytes, pos: i64) -> i64:
    """The elements of all nodes of a quicklist."""
    total: i64 = 0
    n: i64
    reader: i64 = rule >> _READER
    n, pos = read_length(buf, pos)
    for _ in range(n):
        if rule & _PLACE == _NODES:
            plain: bool = buf[pos] == 1
            pos = skip_container(buf, pos)
            total += 1 if plain else _packed(reader, buf, pos, True)
        else:
            total += _packed(reader, buf, pos, True)
        pos = skip_string(buf, pos)
    return total


def _packed(number: i64, buf: bytes, pos: i64, whole: bool) -> i64:
    """The entries of the packed value in the string at `pos`, which this one of `READERS` reads."""
    reader = READERS[number]
    first: i64 = buf[pos]
    size: i64
    start: i64
    count: i64
    if first < 0xC0:
        size, start = read_length(buf, pos)
        count = reader.header_count(buf, start, size)
    elif first == 0xC3:
        packed, start = read_length(buf, pos + 1)
        size, start = read_length(buf, start)
        first = buf[start]
        if _LONGEST_HEADER <= first + 1 <= 32 and packed > _LONGEST_HEADER:
            count = reader.header_count(buf, start + 1, size)  # it begins with so many bytes as they are
        else:
            count = reader.header_count(_lzf_head(buf, start, min(start + packed, len(buf)), size), 0, size)
    else:
        raise CorruptError("a number stands where a packed value is due")
    if count != UNKNOWN or not whole:
        return count
    blob, _ = read_string(buf, pos, MAX_LENGTH)
    return reader.read(blob, 0, len(blob), Sink())


def _lzf_head(data: bytes, pos: i64, end: i64, size: i64) -> bytes:
    """The first bytes that LZF in `data[pos:end]` gives, at least as many as a header has; `lzf.py` describes the format."""
    out = bytearray()
    want: i64 = min(size, _LONGEST_HEADER)
    while len(out) < want:
        if pos + 2 > end:
            raise CorruptError("LZF data ends before the value's header does")
        control: i64 = data[pos]
        pos += 1
        if control < 32:
            out += data[pos : min(pos + control + 1, end)]
            pos += control + 1
        else:
            length: i64 = control >> 5
            if length == 7:
                length += data[pos]
                pos += 1
            start: i64 = len(out) - ((control & 31) << 8 | data[pos]) - 1
            pos += 1
            if start < 0:
                raise CorruptError("LZF data copies from before its beginning")
            for _ in range(min(length + 2, want)):
                out.append(out[start])
                start += 1
    return bytes(out)


class PieceCounter:
    """`element_count` for a value that comes in pieces, in memory for one piece."""

    def __init__(self, rule: int) -> None:
        self.rule: i64 = rule
        self.rest: bytes = b""
        self.skip: i64 = 0
        self.left: i64 = -1  # nodes still to come, of a stream their keys too; -1 where their number is still to come
        self.count: i64 = UNKNOWN
        self.done: bool = False

    def feed(self, piece: bytes) -> None:
        """The next piece of the value's bytes. Raises: CorruptError without a place."""
        if not self.done:
            self.step(piece, False)

    def finish(self) -> int:
        """The count, -1 where there is none, after the last piece. Raises: CorruptError without a place."""
        if not self.done:
            self.step(b"", True)
        return self.count

    def step(self, piece: bytes, last: bool) -> None:
        if self.skip >= len(piece) and not last:
            self.skip -= len(piece)
            return
        if self.skip:
            piece = piece[self.skip :]
            self.skip = 0
        buf = self.rest + piece if self.rest else piece
        try:
            self.rest = buf[self.count_in(buf, last) :]
        except CorruptError as e:
            e.offset = None
            raise
        except IndexError:
            raise CorruptError("the value ends before its count") from None

    def count_in(self, buf: bytes, last: bool) -> i64:
        """Count what stands in `buf`.

        Returns where what is still needed begins, and leaves in `skip` how far beyond `buf` that is.
        """
        pos: i64 = 0
        end: i64 = len(buf)
        rule = self.rule
        place: i64 = rule & _PLACE
        n: i64
        while not self.done:
            if end - pos < HEAD and not last:
                return pos
            if place != _NODES and place != _PACKED_NODES and place != _STREAM:
                self.count = element_count(rule, buf, pos, end, False)
                self.done = True
            elif self.left < 0:
                n, pos = read_length(buf, pos)
                self.left = n * 2 if place == _STREAM else n
                self.count = 0
            elif self.left > 0:
                if place == _NODES:
                    plain: bool = buf[pos] == 1
                    pos = skip_container(buf, pos)
                    self.add(1 if plain else _packed(rule >> _READER, buf, pos, False))
                elif place == _PACKED_NODES:
                    self.add(_packed(rule >> _READER, buf, pos, False))
                pos = skip_string(buf, pos)
                self.left -= 1
                if pos > end:
                    self.skip = pos - end
                    return end
            else:
                if place == _STREAM:
                    self.count, pos = read_length(buf, pos)
                self.done = True
        return end

    def add(self, n: i64) -> None:
        """What one node has; unknown for one makes it unknown for all."""
        if n < 0:
            self.count = UNKNOWN
            self.done = True
        else:
            self.count += n

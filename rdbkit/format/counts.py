"""How many elements a value has, read from its headers: nothing is decoded.

A rule says where a type keeps its count; it is looked up once a type (`count_rule`) and applied to each value
(`element_count`, or `PieceCounter` for a value that does not fit into a block).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rdbkit.errors import CorruptError
from rdbkit.format.constants import ValueType
from rdbkit.format.listpack import walk_listpack
from rdbkit.format.primitives import MAX_LENGTH, check_packed, read_length, read_string, read_uint32, skip_length, skip_string
from rdbkit.format.sink import Sink
from rdbkit.format.skip import skip_container
from rdbkit.format.ziplist import walk_ziplist
from rdbkit.format.zipmap import walk_zipmap

if TYPE_CHECKING:
    from mypy_extensions import i64

UNKNOWN: Final = -1

# Rules. Those of packed values say the rest in bits: the packed form, entries an element, and what stands before.
_NONE: Final = 0
_ONE: Final = 1
_LENGTH: Final = 2
_LENGTH_BEHIND_8: Final = 3
_STREAM: Final = 4
_ZIPLISTS: Final = 5
_NODES: Final = 6
_FIELDS: Final = 7
_VALUES: Final = 8
_ID_AND_VALUES: Final = 9
_PACKED: Final = 16
_PAIRS: Final = 4
_TRIPLES: Final = 8
_BEHIND_8: Final = 32

_LISTPACK: Final = 0
_ZIPLIST: Final = 1
_INTSET: Final = 2
_ZIPMAP: Final = 3
_FORMS: Final = {"listpack": _LISTPACK, "listpackex": _LISTPACK, "ziplist": _ZIPLIST, "intset": _INTSET, "zipmap": _ZIPMAP}

#: Bytes of a value, or of a quicklist's node, that hold all that its count takes, in whatever form they stand.
HEAD: Final = 64
_LONGEST_HEADER: Final = 10  # of the packed forms: that of a ziplist


def count_rule(value_type: ValueType) -> int:
    """The rule by which values of this type are counted; see `element_count`."""
    layout, encoding = value_type.layout, value_type.encoding
    if encoding in _FORMS:
        rule = _PACKED | _FORMS[encoding]
        if encoding == "listpackex":
            rule |= _TRIPLES
        elif value_type.type in ("hash", "zset") and encoding != "zipmap":
            rule |= _PAIRS
        return rule | _BEHIND_8 if layout == "ds" else rule
    if encoding == "quicklist":
        return _NODES if "c" in layout else _ZIPLISTS
    if encoding == "stream":
        return _STREAM
    if encoding == "template":
        return _FIELDS if layout[0] == "x" else _VALUES if layout[0] == "y" else _ID_AND_VALUES
    if layout[0] in "*#":
        return _LENGTH
    if layout.startswith("d*"):
        return _LENGTH_BEHIND_8
    return _ONE if value_type.type == "string" else _NONE


def element_count(rule: i64, buf: bytes, pos: i64, end: i64, whole: bool = True) -> i64:
    """How many elements the value in `buf[pos:end]` has; -1 where it has none, or does not say.

    A field with its value, a member with its score and an entry of a stream are one element, and so is a string.

    Args:
        rule: of `count_rule`.
        whole: False where only a value's first `HEAD` bytes are there. What would have to be walked over is then -1.

    Raises: CorruptError, with `offset` relative to `buf`, where a count cannot be.

    >>> from rdbkit.format.constants import value_types
    >>> value = b"\\x0d" + b"\\x0d\\0\\0\\0\\x02\\0" + b"\\x81f\\x02\\x81v\\x02" + b"\\xff"
    >>> element_count(count_rule(value_types("redis", 10)[16]), value, 0, len(value))
    1
    """
    if rule == _ONE:
        return 1
    n: i64
    start: i64 = pos
    try:
        if rule >= _PACKED:
            if rule & _BEHIND_8:
                pos += 8
            n = _packed(rule & 3, buf, pos, whole)
            group: i64 = (rule >> 2 & 3) + 1
            if n < 0 or group == 1:
                return n
            if n % group != 0:
                raise CorruptError(f"a value of {n} packed entries, where they come {group} by {group}")
            return n // group
        if rule == _LENGTH:
            n, pos = read_length(buf, pos)
            return n
        if rule == _LENGTH_BEHIND_8:
            n, pos = read_length(buf, pos + 8)
            return n
        if rule in (_NODES, _ZIPLISTS):
            return _nodes(rule, buf, pos) if whole else UNKNOWN
        if rule == _STREAM:
            if not whole:
                return UNKNOWN
            n, pos = read_length(buf, pos)
            for _ in range(n):
                pos = skip_string(buf, skip_string(buf, pos))
            n, pos = read_length(buf, pos)
            return n
        if rule == _FIELDS:
            n, pos = read_length(buf, pos)
            if n == 0:
                return _packed(_LISTPACK, buf, pos, whole)
            n, pos = read_length(buf, pos)
            return n
        if rule == _ID_AND_VALUES:
            n = _packed(_LISTPACK, buf, pos, whole)
            if n == 0:
                raise CorruptError("a hash by template without the template's id")
            return n - 1 if n > 0 else n
        if rule == _VALUES and whole:
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
    n, pos = read_length(buf, pos)
    for _ in range(n):
        if rule == _NODES:
            plain: bool = buf[pos] == 1
            pos = skip_container(buf, pos)
            total += 1 if plain else _packed(_LISTPACK, buf, pos, True)
        else:
            total += _packed(_ZIPLIST, buf, pos, True)
        pos = skip_string(buf, pos)
    return total


def _packed(form: i64, buf: bytes, pos: i64, whole: bool) -> i64:
    """The entries (of a zipmap the pairs) of the packed value in the string at `pos`."""
    first: i64 = buf[pos]
    size: i64
    start: i64
    count: i64
    if first < 0xC0:
        size, start = read_length(buf, pos)
        count = _header(form, buf, start, size)
    elif first == 0xC3:
        packed, start = read_length(buf, pos + 1)
        size, start = read_length(buf, start)
        first = buf[start]
        if _LONGEST_HEADER <= first + 1 <= 32 and packed > _LONGEST_HEADER:
            count = _header(form, buf, start + 1, size)  # it begins with so many bytes as they are
        else:
            count = _header(form, _lzf_head(buf, start, min(start + packed, len(buf)), size), 0, size)
    else:
        raise CorruptError("a number stands where a packed value is due")
    if count != UNKNOWN or not whole:
        return count
    blob, _ = read_string(buf, pos, MAX_LENGTH)
    sink = Sink()
    if form == _LISTPACK:
        return walk_listpack(blob, 0, len(blob), sink)
    if form == _ZIPLIST:
        return walk_ziplist(blob, 0, len(blob), sink)
    return walk_zipmap(blob, 0, len(blob), sink) // 2


def _header(form: i64, buf: bytes, pos: i64, size: i64) -> i64:
    """What the header at `pos` of a packed value of `size` bytes says; -1 where its count does not fit there."""
    n: i64
    if form in (_LISTPACK, _ZIPLIST):
        what = "listpack" if form == _LISTPACK else "ziplist"
        count_at: i64 = 4 if form == _LISTPACK else 8
        least: i64 = count_at + 3
        check_packed(what, buf, pos, size, least)
        n = buf[pos + count_at] | buf[pos + count_at + 1] << 8
        if n == 65535:
            return UNKNOWN
        if n * 2 + least > size:
            raise CorruptError(f"a {what} of {size} bytes says that it has {n} entries")
        return n
    if form == _INTSET:
        if size < 8:
            raise CorruptError(f"an intset of {size} bytes, where at least 8 are needed")
        n = read_uint32(buf, pos + 4)
        if n * read_uint32(buf, pos) != size - 8:
            raise CorruptError(f"an intset of {size} bytes says that it has {n} numbers of {read_uint32(buf, pos)} bytes")
        return n
    if size < 2:
        raise CorruptError(f"a zipmap of {size} bytes, where the empty one has 2")
    n = buf[pos]
    if n >= 254:
        return UNKNOWN
    if n * 3 + 2 > size:
        raise CorruptError(f"a zipmap of {size} bytes says that it has {n} fields")
    return n


def _lzf_head(data: bytes, pos: i64, end: i64, size: i64) -> bytes:
    """The first bytes that LZF in `data[pos:end]` gives, at least as many as a header has; `lzf.py` tells of the form."""
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
            self.rest = buf[self.walk(buf, last) :]
        except CorruptError as e:
            e.offset = None
            raise
        except IndexError:
            raise CorruptError("the value ends before its count") from None

    def walk(self, buf: bytes, last: bool) -> i64:
        """Count what stands in `buf`.

        Returns where what is still needed begins, and leaves in `skip` how far beyond `buf` that is.
        """
        pos: i64 = 0
        end: i64 = len(buf)
        rule = self.rule
        n: i64
        while not self.done:
            if end - pos < HEAD and not last:
                return pos
            if rule != _NODES and rule != _ZIPLISTS and rule != _STREAM:
                self.count = element_count(rule, buf, pos, end, False)
                self.done = True
            elif self.left < 0:
                n, pos = read_length(buf, pos)
                self.left = n * 2 if rule == _STREAM else n
                self.count = 0
            elif self.left > 0:
                if rule == _NODES:
                    plain: bool = buf[pos] == 1
                    pos = skip_container(buf, pos)
                    self.add(1 if plain else _packed(_LISTPACK, buf, pos, False))
                elif rule == _ZIPLISTS:
                    self.add(_packed(_ZIPLIST, buf, pos, False))
                pos = skip_string(buf, pos)
                self.left -= 1
                if pos > end:
                    self.skip = pos - end
                    return end
            else:
                if rule == _STREAM:
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

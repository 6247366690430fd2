"""Strings and packed collections scrambled where they stand; compiled, since it runs once an element.

Every string and number becomes one of the same form, so that forms, lengths and links of entries are copied. What has an order by
content, intsets and packed sorted sets, is put in order again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from librt.strings import BytesWriter

from rdbkit.format.constants import ValueType, check_rows
from rdbkit.format.decode import score_of
from rdbkit.format.encode import write_length
from rdbkit.format.intset import HEADER as INTSET_HEADER
from rdbkit.format.listpack import HEADER as LISTPACK_HEADER
from rdbkit.format.listpack import listpack_end, listpack_number, listpack_size, listpack_text, skip_entries
from rdbkit.format.lzf import lzf_compress
from rdbkit.format.primitives import (
    read_int16,
    read_int32,
    read_int64,
    read_integer,
    read_length,
    read_string,
    read_uint32,
    skip_length,
    skip_string,
)
from rdbkit.format.ziplist import HEADER as ZIPLIST_HEADER
from rdbkit.format.ziplist import ziplist_size, ziplist_text
from rdbkit.passes.scramble import Scrambler

if TYPE_CHECKING:
    from mypy_extensions import i64

# How a packed collection is scrambled.
_LISTPACK: Final = 1
_ZIPLIST: Final = 2
_INTSET: Final = 3
_ZIPMAP: Final = 4
_TRIPLES: Final = 5  # a listpack of fields, values and expiries
_BY_ENCODING: Final = {"": 0, "listpack": _LISTPACK, "ziplist": _ZIPLIST, "intset": _INTSET, "zipmap": _ZIPMAP}
check_rows("packed", _BY_ENCODING, "it cannot be redacted: nothing scrambles packed encoding")

_SAME_FIELDS: Final = 2
_LONGEST_NUMBER: Final = 20  # as text
#: With fewer literals that change, two strings that are LZF could become the same by chance.
_FEW: Final = 24


def scrambler_of(value_type: ValueType) -> int:
    """How the packed collections of a type are scrambled, for `Packer`; 0 where it has none."""
    return _TRIPLES if value_type.packed == "listpack" and value_type.arity == 3 else _BY_ENCODING[value_type.packed]


class Packer:
    """Writes strings and packed collections scrambled."""

    def __init__(self, scrambler: Scrambler, limit: int) -> None:
        self.scrambler: Scrambler = scrambler
        self.limit: i64 = limit

    # -- strings

    def string(self, buf: bytes, pos: i64, out: BytesWriter, unique: bool) -> i64:
        """The string at `pos`, which lies whole in `buf`, in the form that it has; returns its end.

        Args:
            unique: two different ones must not become the same.
        """
        first: i64 = buf[pos]
        start: i64
        stop: i64
        n: i64
        if first < 0xC0:
            n, start = read_length(buf, pos)
            stop = start + n
            out.write(buf[pos:start])
            out.write(self.scrambler.text(buf[start:stop]))
            return stop
        if first != 0xC3:
            stop = skip_string(buf, pos)
            out.append(buf[pos])
            write_number(out, self.scrambler.integer(read_integer(buf, pos)), stop - pos - 1)
            return stop
        whole, stop = read_string(buf, pos, self.limit)
        packed_size, start = read_length(buf, pos + 1)
        start = skip_length(buf, start)
        if packed_size > 0 and len(whole) > _LONGEST_NUMBER:
            packed = self.scrambler.lzf(buf[start:stop], whole, _FEW if unique else 0)
            if packed:
                out.write(buf[pos:start])
                out.write(packed)
                return stop
        self.pack(self.scrambler.text(whole), out)
        return stop

    def pack(self, data: bytes, out: BytesWriter) -> None:
        """A string that was compressed, and is so again where that saves bytes."""
        packed = lzf_compress(data)
        if packed:
            out.append(0xC3)
            write_length(out, len(packed))
            write_length(out, len(data))
            out.write(packed)
        else:
            write_length(out, len(data))
            out.write(data)

    def blob(self, scrambler: i64, zset: bool, buf: bytes, pos: i64, out: BytesWriter) -> i64:
        """The string at `pos`, which lies whole in `buf` and holds elements that have been checked; returns its end."""
        body = BytesWriter()
        start: i64 = 0
        stop: i64 = skip_string(buf, pos)
        if buf[pos] >= 0xC0:
            data, _ = read_string(buf, pos, self.limit)
            self.packed(scrambler, zset, data, 0, len(data), body)
            self.pack(body.getvalue(), out)
            return stop
        _, start = read_length(buf, pos)
        self.packed(scrambler, zset, buf, start, stop, body)
        if len(body) == stop - start:
            out.write(buf[pos:start])
        else:
            write_length(out, len(body))
        out.write(body.getvalue())
        return stop

    def packed(self, scrambler: i64, zset: bool, buf: bytes, pos: i64, end: i64, out: BytesWriter) -> None:
        """The packed collection `buf[pos:end]`."""
        if scrambler == _INTSET:
            self.intset(buf, pos, end, out)
        elif scrambler == _ZIPMAP:
            self.zipmap(buf, pos, end, out)
        elif scrambler == _ZIPLIST:
            self.ziplist(zset, buf, pos, end, out)
        elif scrambler == _TRIPLES:
            self.triples(buf, pos, end, out)
        else:
            self.listpack(zset, buf, pos, end, out)

    # -- listpacks

    def listpack(self, zset: bool, buf: bytes, pos: i64, end: i64, out: BytesWriter) -> None:
        at: i64 = pos + LISTPACK_HEADER
        out.write(buf[pos:at])
        last: i64 = end - 1
        if zset:
            pairs: list[Pair] = []
            while at < last:
                member = BytesWriter()
                name = self.entry(buf, at, member)
                at = listpack_end(buf, at)
                stop: i64 = listpack_end(buf, at)
                member.write(buf[at:stop])
                pairs.append(Pair(name, score_of(listpack_text(buf, at)), member.getvalue(), b""))
                at = stop
            put_in_order(pairs)
            for pair in pairs:
                out.write(pair.first)
        else:
            while at < last:
                self.entry(buf, at, out)
                at = listpack_end(buf, at)
        out.append(buf[last])

    def triples(self, buf: bytes, pos: i64, end: i64, out: BytesWriter) -> None:
        """Fields, values and expiries, which stay."""
        at: i64 = pos + LISTPACK_HEADER
        out.write(buf[pos:at])
        last: i64 = end - 1
        stop: i64
        while at < last:
            self.entry(buf, at, out)
            at = listpack_end(buf, at)
            self.entry(buf, at, out)
            at = listpack_end(buf, at)
            stop = listpack_end(buf, at)
            out.write(buf[at:stop])
            at = stop
        out.append(buf[last])

    def entry(self, buf: bytes, at: i64, out: BytesWriter) -> bytes:
        """The entry of a listpack at `at`, with its length behind it; returns what it is now, as text."""
        first: i64 = buf[at]
        stop: i64 = listpack_end(buf, at)
        head: i64
        size: i64
        n: i64
        if first < 0x80:
            n = self.scrambler.integer(first)
            out.append(int(n))
            out.write(buf[at + 1 : stop])
            return b"%d" % n
        if 0xC0 <= first < 0xE0:
            n = self.scrambler.integer(listpack_number(buf, at))
            out.append(int(0xC0 | (n >> 8 & 0x1F)))
            out.append(int(n & 0xFF))
            out.write(buf[at + 2 : stop])
            return b"%d" % n
        if first > 0xF0:
            size = listpack_size(buf, at) - 1
            number = self.scrambler.integer(listpack_number(buf, at))
            out.append(buf[at])
            write_number(out, number, size)
            out.write(buf[at + 1 + size : stop])
            return b"%d" % number
        head = 1 if first < 0xC0 else 2 if first < 0xF0 else 5
        size = listpack_size(buf, at)
        text = self.scrambler.text(buf[at + head : at + size])
        out.write(buf[at : at + head])
        out.write(text)
        out.write(buf[at + size : stop])
        return text

    def node(self, buf: bytes, pos: i64, out: BytesWriter) -> None:
        """A stream's node: the id that its entries count from, and a listpack of entries, whose numbers stay."""
        blob_at: i64 = skip_string(buf, pos)
        out.write(buf[pos:blob_at])
        if buf[blob_at] < 0xC0:
            _, start = read_length(buf, blob_at)
            stop: i64 = skip_string(buf, blob_at)
            out.write(buf[blob_at:start])
            self.entries(buf, start, stop, out)
            return
        data, _ = read_string(buf, blob_at, self.limit)
        body = BytesWriter()
        self.entries(data, 0, len(data), body)
        self.pack(body.getvalue(), out)

    def entries(self, buf: bytes, pos: i64, end: i64, out: BytesWriter) -> None:
        at: i64 = pos + LISTPACK_HEADER
        last: i64 = end - 1
        out.write(buf[pos:at])
        shared: i64 = int(listpack_text(buf, skip_entries(buf, at, 2)))
        at = self.copied(buf, at, 3, out)
        at = self.changed(buf, at, shared, out)
        at = self.copied(buf, at, 1, out)
        while at < last:
            flags: i64 = int(listpack_text(buf, at))
            at = self.copied(buf, at, 3, out)
            if flags & _SAME_FIELDS:
                at = self.changed(buf, at, shared, out)
            else:
                own: i64 = int(listpack_text(buf, at))
                at = self.copied(buf, at, 1, out)
                at = self.changed(buf, at, 2 * own, out)
            at = self.copied(buf, at, 1, out)
        out.append(buf[last])

    def copied(self, buf: bytes, at: i64, count: i64, out: BytesWriter) -> i64:
        stop: i64 = skip_entries(buf, at, count)
        out.write(buf[at:stop])
        return stop

    def changed(self, buf: bytes, at: i64, count: i64, out: BytesWriter) -> i64:
        while count > 0:
            self.entry(buf, at, out)
            at = listpack_end(buf, at)
            count -= 1
        return at

    # -- older packed collections

    def ziplist(self, zset: bool, buf: bytes, pos: i64, end: i64, out: BytesWriter) -> None:
        at: i64 = pos + ZIPLIST_HEADER
        last: i64 = end - 1
        if not zset:
            out.write(buf[pos:at])
            while at < last:
                begin: i64 = at + (5 if buf[at] == 0xFE else 1)
                out.write(buf[at:begin])
                at = begin + ziplist_size(buf, begin)
                self.ziplist_entry(buf, begin, out)
            out.append(buf[last])
            return
        pairs: list[Pair] = []
        while at < last:
            begin = at + (5 if buf[at] == 0xFE else 1)
            stop: i64 = begin + ziplist_size(buf, begin)
            member = BytesWriter()
            name = self.ziplist_entry(buf, begin, member)
            begin = stop + (5 if buf[stop] == 0xFE else 1)
            at = begin + ziplist_size(buf, begin)
            pairs.append(Pair(name, score_of(ziplist_text(buf, begin)), member.getvalue(), buf[begin:at]))
        put_in_order(pairs)
        body = BytesWriter()
        size: i64 = 0  # of the entry before
        tail: i64 = 0
        for pair in pairs:
            for content in (pair.first, pair.second):
                tail = len(body)
                if size < 0xFE:
                    body.append(int(size))
                else:
                    body.append(0xFE)
                    body.write(int(size).to_bytes(4, "little"))
                body.write(content)
                size = len(body) - tail
        out.write(int(len(body) + ZIPLIST_HEADER + 1).to_bytes(4, "little"))
        out.write(int(tail + ZIPLIST_HEADER).to_bytes(4, "little"))
        out.write(buf[pos + 8 : pos + ZIPLIST_HEADER])
        out.write(body.getvalue())
        out.append(buf[last])

    def ziplist_entry(self, buf: bytes, at: i64, out: BytesWriter) -> bytes:
        """The entry of a ziplist whose form stands at `at`; returns what it is now, as text."""
        first: i64 = buf[at]
        size: i64 = ziplist_size(buf, at)
        if first < 0xC0:
            head: i64 = 1 if first < 0x40 else 2 if first < 0x80 else 5
            text = self.scrambler.text(buf[at + head : at + size])
            out.write(buf[at : at + head])
            out.write(text)
            return text
        number = self.scrambler.integer(int(ziplist_text(buf, at)))
        if size == 1:
            out.append(0xF1 + number)
        else:
            out.append(buf[at])
            write_number(out, number, size - 1)
        return b"%d" % number

    def intset(self, buf: bytes, pos: i64, end: i64, out: BytesWriter) -> None:
        width: i64 = read_uint32(buf, pos)
        at: i64 = pos + INTSET_HEADER
        out.write(buf[pos:at])
        numbers: list[int] = []
        while at < end:
            n = read_int16(buf, at) if width == 2 else read_int32(buf, at) if width == 4 else read_int64(buf, at)
            numbers.append(self.scrambler.integer(n))
            at += width
        numbers.sort()
        for number in numbers:
            write_number(out, number, width)

    def zipmap(self, buf: bytes, pos: i64, end: i64, out: BytesWriter) -> None:
        out.append(buf[pos])
        at: i64 = pos + 1
        is_value = False
        begin: i64
        stop: i64
        unused: i64
        while at < end - 1:
            begin = at + 1
            stop = begin + buf[at]
            if buf[at] == 0xFE:
                begin = at + 5
                stop = begin + read_uint32(buf, at + 1)
            unused = 0
            if is_value:
                unused = buf[begin]
                begin += 1
                stop += 1
            out.write(buf[at:begin])
            out.write(self.scrambler.text(buf[begin:stop]))
            out.write(bytes(unused))  # what stood there before may be anything
            at = stop + unused
            is_value = not is_value
        out.append(buf[end - 1])


class Pair:
    """Member and score of a packed sorted set: what decides their order, and how they stand there."""

    def __init__(self, name: bytes, score: float, first: bytes, second: bytes) -> None:
        self.name: bytes = name
        self.score: float = score
        self.first: bytes = first
        self.second: bytes = second


def put_in_order(pairs: list[Pair]) -> None:
    """Sort the members of each score by their bytes; scores stay where they are."""
    at = 0
    while at < len(pairs):
        begin = at
        score = pairs[at].score
        while at < len(pairs) and pairs[at].score == score:
            at += 1
        if at - begin > 1:
            pairs[begin:at] = sorted(pairs[begin:at], key=_name_of)


def _name_of(pair: Pair) -> bytes:
    return pair.name


def write_number(out: BytesWriter, n: int, width: i64) -> None:
    """An integer in so many bytes."""
    out.write(n.to_bytes(int(width), "little", signed=True))

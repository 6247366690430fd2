"""A record's value as JSON in pieces, in memory that does not depend on its size."""

from __future__ import annotations

import base64
import codecs
import json
from collections.abc import Iterator
from contextlib import closing
from json.encoder import encode_basestring
from typing import Any

from rdbkit.format.decode import Decoder
from rdbkit.format.primitives import read_uint64
from rdbkit.format.record import Record
from rdbkit.model import module_name
from rdbkit.passes import jsonl
from rdbkit.passes.json_streams import stream_part
from rdbkit.passes.json_text import json_text, pairs_body
from rdbkit.snapshot.large import Spool
from rdbkit.values import StreamDedup, StreamEntry, StreamGroup, StreamTail


def value_json(record: Record) -> Iterator[bytes]:
    """A record's value in the form that it has in JSON lines, in pieces; without what stands beside it there.

    Raises: RdbError.

    >>> import rdbkit
    >>> with rdbkit.open("fixtures/rich/redis-2.4.18.rdb") as snapshot:
    ...     record = next(r for r in snapshot if r.key == b"s_i16")
    ...     b"".join(value_json(record))
    b'["-3","1","2"]'
    """
    return value_pieces(record, record.chunks(), False)


def value_pieces(record: Record, chunks: Iterator[bytes], more: bool = True) -> Iterator[bytes]:
    """The value of a record as JSON, and what stands beside it where `more` is wanted; in bounded memory."""
    type_name = record.type
    if type_name == "module":
        yield from _module_pieces(chunks)
        return
    if type_name == "string":
        yield from _string_pieces(record, chunks)
        return
    decoder = Decoder(record.file_types)
    batches = record.decode(decoder, chunks)
    if type_name == "hash":
        yield from _hash_pieces(decoder, batches, more)
    elif type_name == "stream":
        yield from _stream_pieces(batches)
    elif type_name in ("list", "set", "zset"):
        yield from _array_pieces(type_name, decoder, batches, more)
    else:
        items = [item for batch in batches for item in batch]
        value, beside = jsonl.value_and_more(type_name, decoder.arity, items, decoder.insert_index)
        yield value
        if more:
            yield beside


def _string_pieces(record: Record, chunks: Iterator[bytes]) -> Iterator[bytes]:
    """A string: text if all of it is UTF-8, which is known at its end, otherwise base64."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    is_text = True
    with Spool() as content:
        for piece in record.content(chunks):
            content.write(piece)
            if is_text:
                is_text = _decodes(decoder, piece)
        is_text = is_text and _decodes(decoder, b"", True)
        if is_text:
            yield b'"'
            decoder.reset()
            for piece in content.pieces():
                yield encode_basestring(decoder.decode(piece))[1:-1].encode()
            yield b'"'
        else:
            yield b'{"base64":"'
            for piece in content.pieces(3 << 18):
                yield base64.b64encode(piece)
            yield b'"}'


def _decodes(decoder: codecs.IncrementalDecoder, piece: bytes, final: bool = False) -> bool:
    try:
        decoder.decode(piece, final)
    except UnicodeDecodeError:
        return False
    return True


def _array_pieces(type_name: str, decoder: Decoder, batches: Iterator[list[Any]], more: bool) -> Iterator[bytes]:
    """A list, set or sorted set, and expiries of members where there are any."""
    with closing(_Members()) as expiries:
        between = b"["
        for items in batches:
            if type_name == "zset":
                body = jsonl.scores_body(items[::2], items[1::2])
            else:
                body = jsonl.list_body(items[:: decoder.arity])
                if decoder.arity == 2:
                    members = [member for member, ms in zip(items[::2], items[1::2], strict=True) if ms]
                    times = [ms for ms in items[1::2] if ms]
                    if not jsonl.are_text(members):
                        expiries.become_pairs()
                    expiries.add(jsonl.expiries_body(members, times, expiries.as_object))
            if body:
                yield between + body
                between = b","
        yield b"]" if between == b"," else b"[]"
        if more and expiries.batches.size:
            yield b',"member_expire_ms":'
            yield from expiries.pieces()


def _hash_pieces(decoder: Decoder, batches: Iterator[list[Any]], more: bool) -> Iterator[bytes]:
    """A hash; whether it is an object or pairs is known when the last field's name has been seen."""
    with closing(_Members()) as fields, closing(_Members()) as expiries:
        for items in batches:
            names, values = items[:: decoder.arity], items[1 :: decoder.arity]
            body = jsonl.object_body(names, values) if fields.as_object else None
            if body is None:
                fields.become_pairs()
                expiries.become_pairs()
                body = pairs_body(names, values)
            fields.add(body)
            if decoder.arity == 3:
                expiries.add(jsonl.expiries_body(names, items[2::3], expiries.as_object))
        yield from fields.pieces()
        if more and expiries.batches.size:
            yield b',"field_expire_ms":'
            yield from expiries.pieces()


class _Members:
    """Members of a JSON object, batch by batch in a temporary file, that may have to become pairs of an array."""

    def __init__(self) -> None:
        self.batches = Spool()
        self.as_object = True

    def close(self) -> None:
        self.batches.close()

    def add(self, body: bytes) -> None:
        if body:
            self.batches.write((b"," if self.batches.size else b"") + body + b"\n")

    def become_pairs(self) -> None:
        """Rewrite what is there; JSON text has no line breaks of its own, so a line is a batch."""
        if not self.as_object:
            return
        self.as_object = False
        before = self.batches
        self.batches = Spool()
        with before:
            for line in before.lines():
                # as lists, since names may repeat
                pairs = json.loads(b"{" + line.lstrip(b",") + b"}", object_pairs_hook=list)
                self.add(b",".join(_dump([name, _bytes_form(value)]) for name, value in pairs))

    def pieces(self) -> Iterator[bytes]:
        yield b"{" if self.as_object else b"["
        for line in self.batches.lines():
            yield line[:-1]
        yield b"}" if self.as_object else b"]"


def _bytes_form(value: Any) -> Any:
    return dict(value) if isinstance(value, list) else value


def _dump(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _stream_pieces(batches: Iterator[list[Any]]) -> Iterator[bytes]:
    """A stream: its entries come first in the file, and therefore in the object."""
    yield b'{"entries":['
    what: type = StreamEntry
    first = True
    for part in (part for batch in batches for part in batch):
        if isinstance(part, StreamTail):
            yield b"]," + stream_part(part) + b',"groups":['
            what, first = StreamGroup, True
        elif isinstance(part, StreamDedup):
            yield b'],"dedup":' + stream_part(part)
            what = StreamDedup
        else:
            yield (b"" if first else b",") + stream_part(part)
            first = False
    yield b"}" if what is StreamDedup else b"]}"


def _module_pieces(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """A module's value: its type, then the rest as base64, three bytes at a time."""
    rest = b""
    begun = False
    for chunk in chunks:
        rest += chunk
        if not begun and len(rest) >= 9:
            number, start = read_uint64(rest, 0)
            name = json_text(module_name(number).encode())
            yield b'{"module":%b,"version":%d,"base64":"' % (name, number & 1023)
            rest = rest[start:]
            begun = True
        if begun:
            whole = len(rest) // 3 * 3
            yield base64.b64encode(rest[:whole])
            rest = rest[whole:]
    yield base64.b64encode(rest) + b'"}'

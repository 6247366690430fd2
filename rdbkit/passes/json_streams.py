"""Streams as JSON text; compiled, since it runs once an entry.

`stream_value` renders a stream whose parts have been collected. `StreamWriter` writes the same bytes as the parts come: entries out
of the bytes of their node, without an object for any.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from librt.strings import BytesWriter

from rdbkit.format.sink import Sink
from rdbkit.passes.json_text import are_plain, json_text, pairs_body, write_number, write_text
from rdbkit.values import StreamDedup, StreamEntry, StreamGroup, StreamTail

if TYPE_CHECKING:
    from mypy_extensions import i64

_QUOTE: Final = 0x22
_COMMA: Final = 0x2C
_DASH: Final = 0x2D
_OPEN: Final = 0x5B
_CLOSE: Final = 0x5D


def stream_part(part: object) -> bytes:
    """One part of a stream: an entry, members of the stream's object, a group, or what recognises entries sent twice."""
    if isinstance(part, StreamEntry):
        entry_id, fields = part
        flat: list[bytes] = []
        for pair in fields:
            flat += pair
        if flat and are_plain(flat):
            body = b'["' + b'"],["'.join([b'","'.join(pair) for pair in fields]) + b'"]'
        else:
            body = pairs_body(flat[::2], flat[1::2])
        return b'["%d-%d",[%b]]' % (entry_id[0], entry_id[1], body)
    if isinstance(part, StreamTail):
        text = f'"length":{part.length},"last_id":"{part.last_id}"'
        if part.first_id is not None:
            text += f',"first_id":"{part.first_id}","max_deleted_id":"{part.max_deleted_id}","entries_added":{part.entries_added}'
        return text.encode()
    if isinstance(part, StreamGroup):
        pending = b",".join(
            b'["%d-%d",%b,%d,%d]' % (p.id.ms, p.id.seq, _name_or_null(p.consumer), p.delivery_ms, p.delivery_count)
            for p in part.pending
        )
        consumers = b",".join(
            b'{"name":%b,"seen_ms":%d%b}' % (json_text(n), seen, b"" if active is None else b',"active_ms":%d' % active)
            for n, seen, active in part.consumers
        )
        read = b"" if part.entries_read is None else b',"entries_read":%d' % part.entries_read
        nacked = b"" if not part.nacked else b',"nacked":[%b]' % b",".join(b'"%d-%d"' % (i.ms, i.seq) for i in part.nacked)
        return b'{"name":%b,"last_id":"%d-%d"%b,"pending":[%b],"consumers":[%b]%b}' % (
            json_text(part.name), part.last_id.ms, part.last_id.seq, read, pending, consumers, nacked,
        )  # fmt: skip
    assert isinstance(part, StreamDedup)
    producers = b",".join(
        b'{"name":%b,"ids":[%b]}' % (json_text(name), b",".join(b'[%b,"%d-%d"]' % (json_text(n), i.ms, i.seq) for n, i in ids))
        for name, ids in part.producers
    )
    return b'{"duration_s":%d,"max_entries":%d,"producers":[%b],"added":%d,"duplicates":%d}' % (
        part.duration_s, part.max_entries, producers, part.added, part.duplicates,
    )  # fmt: skip


def _name_or_null(name: bytes | None) -> bytes:
    return b"null" if name is None else json_text(name)


def stream_value(parts: list[Any]) -> bytes:
    """A whole stream."""
    entries: list[bytes] = []
    groups: list[bytes] = []
    tail = dedup = b""
    for part in parts:
        text = stream_part(part)
        if isinstance(part, StreamEntry):
            entries.append(text)
        elif isinstance(part, StreamGroup):
            groups.append(text)
        elif isinstance(part, StreamTail):
            tail = text
        else:
            dedup = b',"dedup":' + text
    return b'{"entries":[%b],%b,"groups":[%b]%b}' % (b",".join(entries), tail, b",".join(groups), dedup)


class StreamWriter(Sink):
    """Writes a stream to `out` as `stream_value` renders it, part by part as they come."""

    def __init__(self, out: BytesWriter) -> None:
        self.out: BytesWriter = out
        self.parts: i64 = 0  # of the array at hand: entries, or groups
        self.count: i64 = 0  # of an entry, its names and values
        self.has_dedup: bool = False
        # where the node at hand began
        self.mark: i64 = 0
        self.parts_before: i64 = 0

    def begin(self) -> None:
        """Begin a stream."""
        self.parts = 0
        self.has_dedup = False
        self.out.write(b'{"entries":[')

    def finish(self) -> None:
        """End it; its last part has come."""
        self.out.write(b"}" if self.has_dedup else b"]}")

    def begin_node(self) -> bool:
        self.mark = len(self.out)
        self.parts_before = self.parts
        return True

    def void_node(self) -> None:
        self.out.truncate(self.mark)
        self.parts = self.parts_before

    def begin_entry(self, ms: i64, seq: i64) -> None:
        out = self.out
        if self.parts > 0:
            out.append(_COMMA)
        self.parts += 1
        self.count = 0
        out.append(_OPEN)
        out.append(_QUOTE)
        write_number(out, ms)
        out.append(_DASH)
        write_number(out, seq)
        out.append(_QUOTE)
        out.append(_COMMA)
        out.append(_OPEN)

    def end_entry(self) -> None:
        self.out.append(_CLOSE)
        self.out.append(_CLOSE)

    def string(self, buf: bytes, start: i64, end: i64) -> None:
        self.before()
        write_text(self.out, buf, start, end)
        self.after()

    def integer(self, n: i64) -> None:
        out = self.out
        self.before()
        out.append(_QUOTE)
        write_number(out, n)
        out.append(_QUOTE)
        self.after()

    def before(self) -> None:
        """Write what stands before a field's name or value."""
        out = self.out
        if self.count > 0:
            out.append(_COMMA)
        if not self.count & 1:
            out.append(_OPEN)

    def after(self) -> None:
        if self.count & 1:
            self.out.append(_CLOSE)
        self.count += 1

    def part(self, part: object) -> None:
        out = self.out
        if isinstance(part, StreamTail):
            out.write(b"],")
            out.write(stream_part(part))
            out.write(b',"groups":[')
            self.parts = 0
        elif isinstance(part, StreamDedup):
            out.write(b'],"dedup":')
            out.write(stream_part(part))
            self.has_dedup = True
        else:
            if self.parts > 0:
                out.append(_COMMA)
            self.parts += 1
            out.write(stream_part(part))

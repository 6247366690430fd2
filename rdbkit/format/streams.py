"""Streams: nodes of entries, then what the stream knows of itself, its consumer groups, and of entries sent twice.

Source: rdbSaveObject and rdbLoadObject (src/rdb.c), src/t_stream.c of Redis.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from librt.strings import read_i64_be

from rdbkit.errors import CorruptError, LimitError
from rdbkit.format.budget import HELD, HOW_TO_RAISE, NAME, Budget
from rdbkit.format.listpack import begin_listpack, end_listpack, listpack_entries, listpack_number, listpack_size, read_listpack
from rdbkit.format.packed import STRETCH
from rdbkit.format.primitives import read_int64, read_length, read_string, read_uint64, skip_string
from rdbkit.format.sink import Items, Sink
from rdbkit.values import PendingEntry, StreamConsumer, StreamDedup, StreamEntry, StreamGroup, StreamId, StreamTail

if TYPE_CHECKING:
    from mypy_extensions import i64

# What comes next.
_NODE_COUNT: Final = 0
_NODE: Final = 1
_TAIL: Final = 2
_GROUP: Final = 3
_PENDING: Final = 4
_CONSUMER_COUNT: Final = 5
_CONSUMER: Final = 6
_OWNED: Final = 7
_NACKED_COUNT: Final = 8
_NACKED: Final = 9
_DEDUP: Final = 10
_PRODUCER: Final = 11
_PRODUCER_ID: Final = 12
_DEDUP_END: Final = 13

_TYPES: Final = (0, 15, 19, 21, 26, 27)
_LEVELS: Final = {15: 1, 19: 2, 21: 3, 26: 4, 27: 5}
# Bytes that these take when they are held, with the objects that are made of them.
_PENDING_BYTES: Final = 400
_ID: Final = 200
_PART: Final = 100  # of a node's listpack
_DELETED: Final = 1
_SAME_FIELDS: Final = 2
_MASK: Final = (1 << 64) - 1
#: Ids whose halves are below this, and what is added to them, can be added up in 64 bits.
_SMALL: Final = 1 << 62
#: The largest count that servers hold, as a signed number of 64 bits.
_MOST: Final = (1 << 63) - 1
#: Rules whose breach leaves no doubt about any entry: servers up to Redis 8.0 load such streams.
HARMLESS: Final = frozenset(
    [
        "stream-added",
        "stream-last-id",
        "stream-length",
        "stream-no-node",
        "stream-node-live",
        "stream-order",
        "group-read",
        "pending-unowned",
    ]
)
#: How many faults of one stream are reported.
_MOST_DOUBTS: Final = 8
_UNKNOWN: Final = (1 << 64) - 1


def level_of(type_code: int) -> int:
    """1 to 5 for a stream's type byte, 0 for any other.

    >>> level_of(21), level_of(4)
    (3, 0)
    """
    return _LEVELS.get(type_code, 0)


def type_of(level: int) -> int:
    """The type byte of a stream of this level."""
    return _TYPES[level]


class _Parts(Items):
    """Entries of a listpack; numbers stay numbers, since most of a stream's are ids and counts."""

    def integer(self, n: i64) -> None:
        self.items.append(int(n))


def _number(part: object) -> int:
    """An integer entry of a listpack; raises ValueError where servers would not read one."""
    if isinstance(part, int):
        return part
    assert isinstance(part, bytes)
    text: bytes = part
    if (not text.isdigit() and not (text[:1] == b"-" and text[1:].isdigit())) or len(text) > 20:
        raise ValueError(text)
    return int(text)


def _texts(parts: list[object]) -> list[bytes]:
    """Field names or values."""
    texts: list[bytes] = []
    for part in parts:
        texts.append(part if isinstance(part, bytes) else str(part).encode())
    return texts


def _whole_number(buf: bytes, at: i64) -> tuple[i64, i64]:
    """`(number, end)` of an integer entry of a listpack. Raises IndexError where there is none that is followed by its size."""
    first: i64 = buf[at]
    size: i64
    if first < 0x80:
        if buf[at + 1] != 1:
            raise IndexError
        return first, at + 2
    if first < 0xC0 or 0xE0 <= first <= 0xF0 or first > 0xF4:
        raise IndexError
    size = listpack_size(buf, at)
    if buf[at + size] != size:
        raise IndexError
    return listpack_number(buf, at), at + size + 1


class StreamDecoder:
    """Decodes a stream piece by piece; the pending entries of one group are held together.

    Args:
        level: 1 to 5, for types 15, 19, 21, 26 and 27.
        limit: most bytes that one node may unpack to.
        budget: of the file; what is held is compared with it.
        lenient: rules that it may break.
        doubts: gets the first places where it does.

    Attributes:
        builds: entries are made for the sink; otherwise they are only checked.
        entries_seen: how many entries have come that are not deleted.
        dead: numbers of the nodes, from 0, that have no such entry.
        most, paused, spent: as those of `Decoder`.
    """

    def __init__(
        self, level: int, limit: i64, budget: Budget, lenient: frozenset[str] = HARMLESS, doubts: list[CorruptError] | None = None
    ) -> None:
        self.level: int = level
        self.limit: i64 = limit
        self.budget: Budget = budget
        self.most: i64 = 1 << 62
        self.paused: bool = False
        self.spent: i64 = 0
        self.held_ids: i64 = 0  # bytes that the names of groups and what is known of producers take
        self.held_group: i64 = 0  # that the group takes
        self.lenient: frozenset[str] = lenient
        self.doubts: list[CorruptError] = [] if doubts is None else doubts
        self.added: int = 0
        self.builds: bool = True
        self.done: bool = False
        self.need: i64 = 0
        self.next: i64 = _NODE_COUNT
        self.left: i64 = 0
        self.groups: i64 = 0
        self.consumers_left: i64 = 0
        self.entries_seen: int = 0
        self.nodes_seen: int = 0
        self.dead: set[int] = set()
        self.last: StreamId | None = None
        self.last_live: StreamId | None = None
        self.last_node: bytes = b""
        self.group_names: set[bytes] = set()
        self.dedup: list[int] = [0, 0]
        self.producers: list[tuple[bytes, list[tuple[bytes, StreamId]]]] = []
        self.producer_names: set[bytes] = set()
        self.ids_left: i64 = 0
        self.nothing: Sink = Sink()
        self.new_group(b"", StreamId(0, 0), None)

    def new_group(self, name: bytes, last_id: StreamId, entries_read: int | None) -> None:
        self.name: bytes = name
        self.last_id: StreamId = last_id
        self.entries_read: int | None = entries_read
        self.pending: dict[StreamId, tuple[int, int, bytes | None]] = {}  # and whose each is
        self.consumers: list[StreamConsumer] = []
        self.names: set[bytes] = set()
        self.nacked: list[StreamId] = []
        self.given_back: set[StreamId] = set()
        self.held_group = 0

    def hold(self, what: str, size: i64) -> None:
        """Hold `size` bytes more until the group ends."""
        self.held_group += size
        self.budget.check(what, self.held_group + self.held_ids)

    def hold_ids(self, what: str, size: i64) -> None:
        """Hold `size` bytes more until the stream ends."""
        self.held_ids += size
        self.budget.check(what, self.held_group + self.held_ids)

    def doubt(self, message: str, rule: str) -> None:
        """A rule is broken: raise CorruptError, or remember it where that is to be passed over."""
        e = CorruptError(message, rule=rule)
        if rule not in self.lenient:
            raise e
        if len(self.doubts) < _MOST_DOUBTS:
            self.doubts.append(e)

    def feed(self, buf: bytes, pos: i64, sink: Sink) -> i64:
        """As `Decoder.feed`."""
        self.need = 0
        self.spent = 0
        self.paused = False
        try:
            while not self.done:
                pos = self.step(buf, pos, sink)
                if self.spent > self.most:
                    self.paused = True
                    return pos
        except IndexError:
            pass
        return pos

    def step(self, buf: bytes, pos: i64, sink: Sink) -> i64:
        """One piece; raises IndexError, with nothing changed, where `buf` does not hold it."""
        step = self.next
        n: i64
        if step == _NODE_COUNT:
            n, pos = read_length(buf, pos)
            self.left = n
            self.next = _NODE
        elif step == _NODE:
            if self.left == 0:
                self.next = _TAIL
            else:
                pos = self.node(buf, pos, sink)
                self.left -= 1
        elif step == _TAIL:
            pos = self.tail(buf, pos, sink)
            self.next = _GROUP
        elif step == _GROUP:
            if self.groups == 0:
                if self.level >= 4:
                    self.next = _DEDUP
                else:
                    self.done = True
            else:
                pos = self.group_head(buf, pos)
                self.groups -= 1
                self.next = _PENDING
        elif step == _PENDING:
            if self.left == 0:
                self.next = _CONSUMER_COUNT
            else:
                pos = self.pending_entry(buf, pos)
                self.left -= 1
        elif step == _CONSUMER_COUNT:
            n, pos = read_length(buf, pos)
            self.consumers_left = n
            self.next = _CONSUMER
        elif step == _CONSUMER:
            if self.consumers_left == 0:
                if self.level >= 5:
                    self.next = _NACKED_COUNT
                else:
                    self.end_group(sink)
            else:
                pos = self.consumer(buf, pos)
                self.consumers_left -= 1
                self.next = _OWNED
        elif step == _OWNED:
            if self.left == 0:
                self.next = _CONSUMER
            else:
                pos = self.owned(buf, pos)
                self.left -= 1
        elif step == _NACKED_COUNT:
            n, pos = read_length(buf, pos)
            self.left = n
            self.next = _NACKED
        elif step == _NACKED:
            if self.left == 0:
                self.end_group(sink)
            else:
                nacked, pos = self.raw_id(buf, pos)
                known = self.pending.get(nacked)
                if known is None or known[2] is not None or nacked in self.given_back:
                    raise CorruptError(
                        f"entry {nacked} was given back, but is not pending without a consumer, or there twice", rule="nacked"
                    )
                self.hold("entries given back", _ID)
                self.nacked.append(nacked)
                self.given_back.add(nacked)
                self.left -= 1
        else:
            pos = self.dedup_step(buf, pos, sink)
        return pos

    # -- entries

    def node(self, buf: bytes, pos: i64, sink: Sink) -> i64:
        """A node: the id that its entries count from, and a listpack of them."""
        blob_at: i64 = skip_string(buf, pos)
        stop: i64 = skip_string(buf, blob_at)
        if stop - blob_at > self.limit + 18:
            raise LimitError(f"a node of {stop - blob_at} bytes, where at most {self.limit} can be held; {HOW_TO_RAISE}", rule=HELD)
        if stop > len(buf):
            self.need = stop - pos
            raise IndexError
        key, _ = read_string(buf, pos, 1 << 20)
        if len(key) != 16:
            raise CorruptError(f"a node's id has {len(key)} bytes, where 16 are needed", rule="stream-node-key")
        if key <= self.last_node:
            raise CorruptError("a node's id is not behind that of the node before it", rule="stream-node-order")
        self.last_node = key
        blob, _ = read_string(buf, blob_at, self.limit)
        self.spent += len(blob)
        if len(blob) <= STRETCH and self.builds and sink.begin_node():
            if self.tell(key, blob, sink):
                return stop
            sink.void_node()
        items = _Parts()
        try:
            if len(blob) > STRETCH:
                self.budget.check("entries of a node", len(blob) + read_listpack(blob, 0, len(blob), Sink()) * _PART)
            read_listpack(blob, 0, len(blob), items)
        except IndexError:
            raise CorruptError("an entry goes beyond the end of its node", rule="listpack-overrun") from None
        try:
            self.entries(int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big"), items.items, sink)
        except (IndexError, ValueError):
            raise CorruptError("a node's entries are not whole", rule="stream-node") from None
        return stop

    def tell(self, key: bytes, blob: bytes, sink: Sink) -> bool:
        """Tell `sink` of a node's entries, without an object for any; False where anything about the node is unusual or wrong.

        Then nothing has changed but what `sink` has been told, and `entries` finds out what it is. Where this is True, `entries`
        would have told the same, without a doubt.
        """
        ms: i64 = read_i64_be(key, 0)
        seq: i64 = read_i64_be(key, 8)
        last_ms: i64 = -1
        last_seq: i64 = -1
        before = self.last
        if before is not None:
            if before.ms >= _SMALL or before.seq >= _SMALL:
                return False
            last_ms = before.ms
            last_seq = before.seq
        live_ms: i64 = -1
        live_seq: i64 = -1
        seen: i64 = 0
        seen_live: i64 = 0
        count: i64
        flags: i64
        this_ms: i64
        this_seq: i64
        said: i64
        left: i64
        name_at: i64
        nothing = self.nothing
        last: i64 = len(blob) - 1
        try:
            at = begin_listpack(blob, 0, last + 1)
            live, at = _whole_number(blob, at)
            deleted, at = _whole_number(blob, at)
            names, at = _whole_number(blob, at)
            if live < 0 or deleted < 0 or names < 0 or names > last or not (0 <= ms < _SMALL and 0 <= seq < _SMALL):
                return False
            names_at: i64 = at
            left = names
            while left > 0:
                at, _ = listpack_entries(blob, at, at + 1, last, nothing)
                left -= 1
            flags, at = _whole_number(blob, at)
            if flags != 0:
                return False
            total: i64 = names + 4
            while at < last:
                flags, at = _whole_number(blob, at)
                this_ms, at = _whole_number(blob, at)
                this_seq, at = _whole_number(blob, at)
                if not (-_SMALL < this_ms < _SMALL and -_SMALL < this_seq < _SMALL):
                    return False
                this_ms += ms
                this_seq += seq
                if this_ms < 0 or this_seq < 0 or this_ms < last_ms or (this_ms == last_ms and this_seq <= last_seq):
                    return False
                last_ms = this_ms
                last_seq = this_seq
                seen += 1
                if flags & _SAME_FIELDS:
                    left = names
                    count = names + 3
                    total += count + 1
                else:
                    left, at = _whole_number(blob, at)
                    if left < 0 or left > last:
                        return False
                    count = 2 * left + 4
                    total += count + 1
                if flags & _DELETED:
                    left = count - 3 if flags & _SAME_FIELDS else count - 4
                    while left > 0:
                        at, _ = listpack_entries(blob, at, at + 1, last, nothing)
                        left -= 1
                else:
                    seen_live += 1
                    live_ms = this_ms
                    live_seq = this_seq
                    sink.begin_entry(this_ms, this_seq)
                    name_at = names_at
                    while left > 0:
                        if flags & _SAME_FIELDS:
                            name_at, _ = listpack_entries(blob, name_at, name_at + 1, last, sink)
                        else:
                            at, _ = listpack_entries(blob, at, at + 1, last, sink)
                        at, _ = listpack_entries(blob, at, at + 1, last, sink)
                        left -= 1
                    sink.end_entry()
                said, at = _whole_number(blob, at)
                if said != count or at > last:
                    return False
            end_listpack(blob, 0, last + 1, at, total)
        except (IndexError, CorruptError):
            return False
        if seen_live != live or seen - seen_live != deleted or seen_live == 0:
            return False
        self.last = StreamId(int(last_ms), int(last_seq))
        self.last_live = StreamId(int(live_ms), int(live_seq))
        self.entries_seen += int(live)
        self.nodes_seen += 1
        return True

    def entries(self, ms: int, seq: int, parts: list[object], sink: Sink) -> None:
        """The entries of a node's listpack; raises IndexError or ValueError where it is not as it must be."""
        live: int = _number(parts[0])
        deleted: int = _number(parts[1])
        n: int = _number(parts[2])
        if live < 0 or deleted < 0 or n < 0 or n > len(parts):
            raise CorruptError(f"a node's first entry has the counts {live}, {deleted} and {n}", rule="stream-node")
        master = _texts(parts[3 : 3 + n])
        at: int = 3 + n
        if _number(parts[at]) != 0:
            raise CorruptError("a node's first entry does not end with 0", rule="stream-node")
        at += 1
        seen: int = 0
        seen_deleted: int = 0
        count: int
        while at < len(parts):
            flags: int = _number(parts[at])
            entry_id = StreamId(ms + _number(parts[at + 1]) & _MASK, seq + _number(parts[at + 2]) & _MASK)
            at += 3
            fields: list[tuple[bytes, bytes]] = []
            if flags & _SAME_FIELDS:
                if at + n > len(parts):
                    raise CorruptError(f"entry {entry_id} is not whole", rule="stream-entry")
                if self.builds:
                    fields = list(zip(master, _texts(parts[at : at + n]), strict=True))
                at += n
                count = n + 3
            else:
                size: int = _number(parts[at])
                at += 1
                if size < 0 or at + 2 * size >= len(parts):
                    raise CorruptError(f"entry {entry_id} is not whole", rule="stream-entry")
                if self.builds:
                    own = _texts(parts[at : at + 2 * size])
                    fields = list(zip(own[::2], own[1::2], strict=True))
                at += 2 * size
                count = 2 * size + 4
            if _number(parts[at]) != count:
                raise CorruptError(
                    f"entry {entry_id} has {count} parts, but {_number(parts[at])} are said to be there", rule="stream-entry"
                )
            at += 1
            if self.last is not None and entry_id <= self.last:
                self.doubt(f"entry {entry_id} follows {self.last}, where ids must ascend", "stream-order")
            self.last = entry_id
            seen += 1
            if flags & _DELETED:
                seen_deleted += 1
            else:
                self.entries_seen += 1
                self.last_live = entry_id
                if self.builds:
                    sink.part(StreamEntry(entry_id, fields))
        if seen == seen_deleted:
            self.doubt("a node has no entry that is not deleted", "stream-node-live")
            self.dead.add(self.nodes_seen)
        self.nodes_seen += 1
        if seen != live + deleted or seen_deleted != deleted:
            raise CorruptError(
                f"a node has {seen - seen_deleted} entries and {seen_deleted} deleted, not {live} and {deleted}",
                rule="stream-node-count",
            )

    # -- what the stream knows of itself

    def tail(self, buf: bytes, pos: i64, sink: Sink) -> i64:
        said, pos = read_uint64(buf, pos)
        length = self.entries_seen
        last_id, pos = self.length_id(buf, pos)
        first_id: StreamId | None = None
        deleted_id: StreamId | None = None
        added: int | None = None
        if self.level >= 2:
            first_id, pos = self.length_id(buf, pos)
            deleted_id, pos = self.length_id(buf, pos)
            added, pos = read_uint64(buf, pos)
        n, pos = read_length(buf, pos)
        if said != length and self.nodes_seen == 0:
            self.doubt(f"the stream says that it has {said} entries, but it has no node", "stream-no-node")
        elif said != length:
            self.doubt(f"the stream says that it has {said} entries, but it has {length}", "stream-length")
        if self.last_live is not None and last_id < self.last_live:
            self.doubt(f"the stream says that its last id is {last_id}, but it has {self.last_live}", "stream-last-id")
        if added is not None:
            if not length <= added <= _MOST:
                self.doubt(f"the stream says that {added} entries were added, but it has {length}", "stream-added")
            self.added = added
        self.groups = n
        sink.part(StreamTail(length, last_id, first_id, deleted_id, added, int(n)))
        return pos

    def length_id(self, buf: bytes, pos: i64) -> tuple[StreamId, i64]:
        ms, pos = read_uint64(buf, pos)
        seq, pos = read_uint64(buf, pos)
        return StreamId(ms, seq), pos

    def raw_id(self, buf: bytes, pos: i64) -> tuple[StreamId, i64]:
        buf[pos + 15]
        return StreamId(int.from_bytes(buf[pos : pos + 8], "big"), int.from_bytes(buf[pos + 8 : pos + 16], "big")), pos + 16

    # -- groups

    def group_head(self, buf: bytes, pos: i64) -> i64:
        name, pos = self.text(buf, pos)
        last_id, pos = self.length_id(buf, pos)
        entries_read: int | None = None
        if self.level >= 2:
            entries_read, pos = read_uint64(buf, pos)
            if entries_read == _UNKNOWN:
                entries_read = -1
        n, pos = read_length(buf, pos)
        if entries_read is not None and entries_read > min(self.added, _MOST):
            self.doubt(f"group {name[:64]!r} has read {entries_read} entries, but {self.added} were added", "group-read")
        if name in self.group_names:
            raise CorruptError(f"group {name[:64]!r} is there twice", rule="group-twice")
        self.hold_ids("groups of a stream", len(name) + NAME)
        self.group_names.add(name)
        self.new_group(name, last_id, entries_read)
        self.left = n
        return pos

    def text(self, buf: bytes, pos: i64) -> tuple[bytes, i64]:
        stop: i64 = skip_string(buf, pos)
        if stop > len(buf):
            self.need = stop - pos
            raise IndexError
        return read_string(buf, pos, self.limit)

    def pending_entry(self, buf: bytes, pos: i64) -> i64:
        entry_id, pos = self.raw_id(buf, pos)
        buf[pos + 7]
        when: int = read_int64(buf, pos)
        deliveries, pos = read_uint64(buf, pos + 8)
        if entry_id in self.pending:
            raise CorruptError(f"entry {entry_id} is pending twice", rule="pending-twice")
        self.hold("pending entries", _PENDING_BYTES)
        self.pending[entry_id] = (when, deliveries, None)
        return pos

    def consumer(self, buf: bytes, pos: i64) -> i64:
        name, pos = self.text(buf, pos)
        buf[pos + 7]
        seen: int = read_int64(buf, pos)
        pos += 8
        active: int | None = None
        if self.level >= 3:
            buf[pos + 7]
            active = read_int64(buf, pos)
            pos += 8
        n, pos = read_length(buf, pos)
        if name in self.names:
            raise CorruptError(f"consumer {name[:64]!r} is there twice", rule="consumer-twice")
        self.hold("consumers", len(name) + 3 * NAME)
        self.names.add(name)
        self.consumers.append(StreamConsumer(name, seen, active))
        self.left = n
        return pos

    def owned(self, buf: bytes, pos: i64) -> i64:
        entry_id, pos = self.raw_id(buf, pos)
        known = self.pending.get(entry_id)
        if known is None:
            raise CorruptError(f"a consumer has entry {entry_id}, which is not pending in its group", rule="pending-unknown")
        if known[2] is not None:
            raise CorruptError(f"two consumers have entry {entry_id}", rule="pending-two-owners")
        self.pending[entry_id] = (known[0], known[1], self.consumers[-1].name)
        return pos

    def end_group(self, sink: Sink) -> None:
        pending: list[PendingEntry] = []
        for entry_id, (when, deliveries, owner) in self.pending.items():
            if owner is None and entry_id not in self.given_back:
                self.doubt(f"entry {entry_id} is pending without a consumer", "pending-unowned")
            pending.append(PendingEntry(entry_id, owner, when, deliveries))
        sink.part(StreamGroup(self.name, self.last_id, self.entries_read, pending, self.consumers, self.nacked))
        self.new_group(b"", StreamId(0, 0), None)
        self.next = _GROUP

    # -- entries sent twice

    def dedup_step(self, buf: bytes, pos: i64, sink: Sink) -> i64:
        step = self.next
        n: i64
        if step == _DEDUP:
            duration, pos = read_length(buf, pos)
            most, pos = read_length(buf, pos)
            n, pos = read_length(buf, pos)
            if not 1 <= duration <= 86400 or not 1 <= most <= 10000:
                raise CorruptError(
                    f"entries sent twice are known for {duration} s and {most} of them, which cannot be", rule="dedup-range"
                )
            self.dedup = [duration, most]
            self.left = n
            self.next = _PRODUCER
        elif step == _PRODUCER:
            if self.left == 0:
                self.next = _DEDUP_END
            else:
                name, pos = self.text(buf, pos)
                n, pos = read_length(buf, pos)
                if name in self.producer_names:
                    raise CorruptError(f"producer {name[:64]!r} is there twice", rule="producer-twice")
                self.hold_ids("producers", len(name) + 3 * NAME)
                self.producer_names.add(name)
                self.producers.append((name, []))
                self.ids_left = n
                self.left -= 1
                self.next = _PRODUCER_ID
        elif step == _PRODUCER_ID:
            if self.ids_left == 0:
                self.next = _PRODUCER
            else:
                name, pos = self.text(buf, pos)
                entry_id, pos = self.length_id(buf, pos)
                self.hold_ids("ids of producers", len(name) + NAME + _ID)
                self.producers[-1][1].append((name, entry_id))
                self.ids_left -= 1
        else:
            added, pos = read_uint64(buf, pos)
            duplicates, pos = read_uint64(buf, pos)
            sink.part(StreamDedup(self.dedup[0], self.dedup[1], self.producers, added, duplicates))
            self.done = True
        return pos

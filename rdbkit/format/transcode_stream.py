"""Streams to the form that an older RDB version has: nodes are copied unchanged, what is said of them is cut down and corrected.

The nodes are the same in all versions, so that no entry changes; what the versions have more of follows them (`decode`'s levels
1 to 5 are types 15, 19, 21, 26 and 27). A `StreamDecoder` reads each stream ahead, and tells how many entries there are, whatever
the stream says itself: Redis up to 8.0 loads a wrong length, and Valkey 9.1 does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from librt.strings import BytesWriter

from rdbkit.errors import CorruptError
from rdbkit.format.budget import Budget
from rdbkit.format.encode import write_length, write_string
from rdbkit.format.primitives import read_int64, read_length, read_string, read_uint64, skip_length, skip_string
from rdbkit.format.streams import StreamDecoder

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
_NACKED: Final = 8
_DEDUP: Final = 9
_PRODUCER: Final = 10
_PRODUCER_ID: Final = 11
# What is held of a group takes, with the objects that are made of it: as many times the bytes of its pending entries, and so many
# bytes for a consumer and for an entry that was given back.
_SPREAD: Final = 5
_CONSUMER_BYTES: Final = 200
_GIVEN_BACK: Final = 200
_DEDUP_END: Final = 12

_ID: Final = 16
_NAME_LIMIT: Final = 1 << 24
#: What Redis 8.6 writes for a stream that nobody configured.
_DEFAULT_DEDUP: Final = 100
#: The largest count that servers hold, and that of a group which has none.
_MOST: Final = (1 << 63) - 1
_UNKNOWN: Final = (1 << 64) - 1


class StreamTranscoder:
    """Writes one stream after the other.

    Memory is that of a node, and of the pending entries of one group where consumers may have given entries back (level 5).

    Args:
        level: what the streams become, 1 to 5; one of a lower level keeps its own.
        owner: who gets the pending entries that belong to nobody; None leaves them out.
        keeps_dead: nodes whose entries are all deleted are kept.

    Attributes:
        done: the stream is complete.
        need: how many bytes from where `feed` ended are wanted before it can go on, 0 if that is not known.
        counters: it has counters that its new form does not support, and that do not follow from its entries.
        dedup_ids: ids by which it knows an entry that is sent twice, and which its new form does not support.
        configured: for how long it keeps such ids was set.
        unowned: pending entries that belong to no consumer.
        corrected: a number that it said of itself was wrong, or a node without entries was left out.
        nodes: how many nodes were written.
    """

    def __init__(self, level: int, owner: bytes | None, keeps_dead: bool) -> None:
        self.most: i64 = level
        self.to: i64 = level
        self.owner: bytes | None = owner
        self.keeps_dead: bool = keeps_dead
        self.level: i64 = 0
        self.budget: Budget = Budget()
        self.pending: BytesWriter = BytesWriter()
        self.consumers: BytesWriter = BytesWriter()
        self.begin(StreamDecoder(1, 0, self.budget), True)

    def begin(self, ahead: StreamDecoder, whole: bool) -> None:
        """Make ready for a stream.

        Args:
            ahead: reads the same stream, and has always read at least as much.
            whole: it has read all of it. Otherwise the number of nodes is not written: it is known at the end, as `nodes`.
        """
        level: i64 = ahead.level
        self.ahead: StreamDecoder = ahead
        self.whole: bool = whole
        self.node: i64 = 0  # the one that comes next
        self.nodes: i64 = 0
        self.level = level
        self.to = min(level, self.most)
        self.holds: bool = level == 5 and self.to < 5  # what is pending, until it is known what was given back
        self.done: bool = False
        self.corrected: bool = False
        self.added: int = 0
        self.need: i64 = 0
        self.paused: bool = False  # never, which decoders that hold what they read may be
        self.next: i64 = _NODE_COUNT
        self.left: i64 = 0
        self.groups: i64 = 0
        self.producers: i64 = 0
        self.counters: bool = False
        self.configured: bool = False
        self.dedup_ids: i64 = 0
        self.unowned: i64 = 0
        self.begin_group()

    def begin_group(self) -> None:
        self.pending_count: i64 = 0
        self.consumers_left: i64 = 0
        self.names_bytes: i64 = 0  # of consumers
        self.pending.truncate(0)
        self.consumers.truncate(0)
        self.counts_at: list[tuple[bytes, int, int]] = []  # of each consumer: name, where its count stands, the count

    def feed(self, buf: bytes, pos: i64, out: BytesWriter) -> i64:
        """Write what is complete in `buf` from `pos` on; return where the first incomplete part begins.

        Raises: CorruptError without a place.
        """
        self.need = 0
        try:
            while not self.done:
                pos = self.step(buf, pos, out)
        except IndexError:
            self.need = max(self.need - pos, 0)
        return pos

    def step(self, buf: bytes, pos: i64, out: BytesWriter) -> i64:
        """One part; raises IndexError, with nothing written, where `buf` does not hold it."""
        step = self.next
        begin: i64 = pos
        n: i64
        if step == _NODE_COUNT:
            n, pos = read_length(buf, pos)
            if self.whole:
                write_length(out, n - (0 if self.keeps_dead else len(self.ahead.dead)))
            self.left = n
            self.next = _NODE
        elif step == _NODE:
            cut: i64 = begin  # up to where it has been written
            dead = self.ahead.dead
            try:
                while self.left > 0:
                    n = self.string_end(buf, self.string_end(buf, pos))
                    if dead and not self.keeps_dead and self.node in dead:
                        self.corrected = True
                        out.write(buf[cut:pos])
                        cut = n
                    else:
                        self.nodes += 1
                    self.left -= 1
                    self.node += 1
                    pos = n
            except IndexError:
                if pos == begin:
                    raise
            out.write(buf[cut:pos])
            if self.left == 0:
                self.next = _TAIL
        elif step == _TAIL:
            return self.tail(buf, pos, out)
        elif step == _GROUP:
            return self.group(buf, pos, out)
        elif step == _PENDING:
            return self.pending_entries(buf, pos, out)
        elif step == _CONSUMER_COUNT:
            n, pos = read_length(buf, pos)
            if not self.holds:
                out.write(buf[begin:pos])
            self.consumers_left = n
            self.next = _CONSUMER
        elif step == _CONSUMER:
            return self.consumer(buf, pos, out)
        elif step == _OWNED:
            n = min(self.left, (len(buf) - pos) // _ID)
            if n == 0 and self.left > 0:
                raise IndexError
            pos += n * _ID
            if self.holds:
                self.hold(pos - begin)
                self.consumers.write(buf[begin:pos])
            else:
                out.write(buf[begin:pos])
            self.left -= n
            if self.left == 0:
                self.next = _CONSUMER
        elif step == _NACKED:
            return self.nacked(buf, pos, out)
        else:
            pos = self.dedup(buf, pos)
            if self.to >= 4:
                out.write(buf[begin:pos])
        return pos

    def hold(self, more: i64) -> None:
        """Compare what is held of a group with the budget, where `more` bytes come to it.

        Raises: LimitError.
        """
        held: i64 = len(self.pending) * _SPREAD + len(self.consumers) + len(self.counts_at) * _CONSUMER_BYTES
        self.budget.check("pending entries", held + more)

    def string_end(self, buf: bytes, pos: i64) -> i64:
        end = skip_string(buf, pos)
        if end > len(buf):
            self.need = end
            raise IndexError
        return end

    def number_end(self, buf: bytes, pos: i64) -> i64:
        end = skip_length(buf, pos)
        buf[end - 1]
        return end

    def tail(self, buf: bytes, pos: i64, out: BytesWriter) -> i64:
        length, pos = read_uint64(buf, pos)
        begin: i64 = pos
        pos = self.number_end(buf, self.number_end(buf, pos))
        end: i64 = pos
        added: int = length
        if self.level >= 2:
            # the first id follows from the entries
            pos = self.number_end(buf, self.number_end(buf, pos))
            deleted_ms, pos = read_uint64(buf, pos)
            deleted_seq, pos = read_uint64(buf, pos)
            if self.to >= 2:
                end = pos
            added, pos = read_uint64(buf, pos)
            if self.to < 2 and (deleted_ms or deleted_seq or added != length):
                self.counters = True
        n, stop = read_length(buf, pos)
        live: int = self.ahead.entries_seen
        if length != live or added < live or added > _MOST:
            self.corrected = True
        self.added = live if added < live or added > _MOST else added
        write_length(out, live)
        out.write(buf[begin:end])
        if self.to >= 2:
            write_length(out, self.added)
        out.write(buf[pos:stop])
        self.groups = n
        self.next = _GROUP
        return stop

    def group(self, buf: bytes, pos: i64, out: BytesWriter) -> i64:
        if self.groups == 0:
            if self.level >= 4:
                self.next = _DEDUP
            else:
                self.done = True
            return pos
        begin: i64 = pos
        pos = self.string_end(buf, pos)
        pos = self.number_end(buf, self.number_end(buf, pos))
        end: i64 = pos
        read: int = _UNKNOWN
        if self.level >= 2:
            read, pos = read_uint64(buf, pos)
            if self.to < 2:
                self.counters = True
        n, stop = read_length(buf, pos)
        out.write(buf[begin:end])
        if self.to >= 2:
            if read != _UNKNOWN and read > self.added:
                self.corrected = True
                read = self.added
            write_length(out, read)
        self.begin_group()
        if not self.holds:
            out.write(buf[pos:stop])
        self.pending_count = n
        self.left = n
        self.groups -= 1
        self.next = _PENDING
        return stop

    def pending_entries(self, buf: bytes, pos: i64, out: BytesWriter) -> i64:
        """Ids, times and counts of delivery, which are the same in all versions."""
        begin: i64 = pos
        end: i64
        try:
            while self.left > 0:
                end = self.number_end(buf, pos + _ID + 8)
                self.left -= 1
                pos = end
        except IndexError:
            if pos == begin:
                raise
        if self.holds:
            self.hold((pos - begin) * _SPREAD)
            self.pending.write(buf[begin:pos])
        else:
            out.write(buf[begin:pos])
        if self.left == 0:
            self.next = _CONSUMER_COUNT
        return pos

    def consumer(self, buf: bytes, pos: i64, out: BytesWriter) -> i64:
        if self.consumers_left == 0:
            self.next = _NACKED if self.level == 5 else _GROUP
            return pos
        begin: i64 = pos
        name_end: i64 = self.string_end(buf, pos)
        pos = name_end + 8
        end: i64 = pos
        if self.level >= 3:
            pos += 8
            if self.to >= 3:
                end = pos
            else:
                self.counters = True
        n, stop = read_length(buf, pos)
        if self.holds:
            name, _ = read_string(buf, begin, _NAME_LIMIT)
            self.names_bytes += len(name)
            self.hold(self.names_bytes)
            self.consumers.write(buf[begin:end])
            self.counts_at.append((name, len(self.consumers), int(n)))
        else:
            out.write(buf[begin:end])
            out.write(buf[pos:stop])
        self.left = n
        self.consumers_left -= 1
        self.next = _OWNED
        return stop

    # -- entries that consumers gave back

    def nacked(self, buf: bytes, pos: i64, out: BytesWriter) -> i64:
        """The end of a group of level 5, which was held back until here."""
        begin: i64 = pos
        n, pos = read_length(buf, pos)
        self.hold(n * _GIVEN_BACK)
        end: i64 = pos + n * _ID
        if end > len(buf):
            self.need = end
            raise IndexError
        if not self.holds:
            out.write(buf[begin:end])
            self.next = _GROUP
            return end
        given_back: set[bytes] = set()
        while pos < end:
            given_back.add(buf[pos : pos + _ID])
            pos += _ID
        self.unowned += n
        assigned = b""
        seen: i64 = 0
        pending = self.pending.getvalue()
        count = self.pending_count
        if n > 0:
            kept: list[bytes] = []
            found: list[bytes] = []
            at: i64 = 0
            while at < len(pending):
                stop: i64 = skip_length(pending, at + _ID + 8)
                entry_id = pending[at : at + _ID]
                if entry_id in given_back:
                    found.append(entry_id)
                    seen = max(seen, read_int64(pending, at + _ID))
                    if self.owner is not None:
                        kept.append(pending[at:stop])
                else:
                    kept.append(pending[at:stop])
                at = stop
            if len(found) != n:
                raise CorruptError("entries were given back that are not pending, or twice")
            pending = b"".join(kept)
            count = len(kept)
            assigned = b"".join(found)
        write_length(out, count)
        out.write(pending)
        self.write_consumers(out, assigned, seen)
        self.begin_group()
        self.next = _GROUP
        return pos

    def write_consumers(self, out: BytesWriter, assigned: bytes, seen: i64) -> None:
        """The consumers of a group of level 5, of whom the owner gets the ids that are `assigned`."""
        consumers = self.consumers.getvalue()
        owner = self.owner
        more = len(assigned) // _ID if owner is not None else 0
        is_new = more > 0
        for name, _, _ in self.counts_at:
            if name == owner:
                is_new = False
        write_length(out, len(self.counts_at) + (1 if is_new else 0))
        at = 0
        for name, count_at, count in self.counts_at:
            stop = count_at + count * _ID
            out.write(consumers[at:count_at])
            if more and name == owner:
                write_length(out, count + more)
                out.write(consumers[count_at:stop])
                out.write(assigned)
            else:
                write_length(out, count)
                out.write(consumers[count_at:stop])
            at = stop
        if is_new and owner is not None:
            write_string(out, owner)
            times = int(seen).to_bytes(8, "little", signed=True)
            out.write(times)
            if self.to >= 3:
                out.write(times)
            write_length(out, more)
            out.write(assigned)

    # -- what recognises entries that are sent twice

    def dedup(self, buf: bytes, pos: i64) -> i64:
        step = self.next
        n: i64
        if step == _DEDUP:
            duration, pos = read_length(buf, pos)
            most, pos = read_length(buf, pos)
            n, pos = read_length(buf, pos)
            if self.to < 4 and (duration != _DEFAULT_DEDUP or most != _DEFAULT_DEDUP):
                self.configured = True
            self.producers = n
            self.left = 0
            self.next = _PRODUCER
        elif step == _PRODUCER:
            if self.producers == 0:
                self.next = _DEDUP_END
            else:
                pos = self.string_end(buf, pos)
                n, pos = read_length(buf, pos)
                self.left = n
                self.producers -= 1
                self.next = _PRODUCER_ID
        elif step == _PRODUCER_ID:
            if self.left == 0:
                self.next = _PRODUCER
            else:
                pos = self.number_end(buf, self.number_end(buf, self.string_end(buf, pos)))
                if self.to < 4:
                    self.dedup_ids += 1
                self.left -= 1
        else:
            added, pos = read_uint64(buf, pos)
            twice, pos = read_uint64(buf, pos)
            if self.to < 4 and (added or twice):
                self.counters = True
            self.done = True
        return pos

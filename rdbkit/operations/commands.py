"""A snapshot as the commands that make its content again: what `redis-cli --pipe` loads into an empty server.

What commands cannot make again, and what the target has no command for, is a loss: see `Loss`. Not carried over, and no loss
since no data hangs on it: idle times and access frequencies (eviction starts afresh), when a consumer was seen last (that is
now the time of loading), the counters of deduplicated stream entries, the cache of Lua scripts, and for servers before Redis
7.0 the counters of streams, which they do not have.

A key or field whose expiry is past is deleted by the server as soon as that is set, as it is when a server loads the
snapshot itself.
"""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, groupby
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Final

from rdbkit.errors import LossError
from rdbkit.format.constants import MEMBER_EXPIRY_WHEN, SCRIPT
from rdbkit.format.payload import payload_pieces
from rdbkit.format.primitives import read_length, read_uint64
from rdbkit.format.record import Record
from rdbkit.model import Aux, Event, FunctionLibrary, KeyMetadata, ModuleAux, module_name
from rdbkit.policy.ledger import Ledger, Loss
from rdbkit.products import described
from rdbkit.resp import LARGE, bulk, command, number, pieces
from rdbkit.targets.commands import features
from rdbkit.targets.target import Target, as_target
from rdbkit.values import StreamDedup, StreamEntry, StreamGroup, StreamId, StreamTail

#: Bytes of arguments in one command, except for a single element that is larger.
COMMAND_BYTES: Final = 1 << 20

# What of a stream is held in memory until its consumer groups are known.
_SPOOL_BYTES = 8 << 20
_DEFAULT_DEDUP = (100, 100)
# Behind every entry. The highest id of all means to servers that new entries are asked for.
_AFTER_ALL = StreamId((1 << 64) - 1, (1 << 64) - 2)
_NO_ID = StreamId(0, 0)
_FIRST_ID = StreamId(0, 1)
# A number takes no more.
_ID_BYTES = 9
# Of RESTORE's payload. Redis 8.0, the first with a type that is restored, knows RDB 12.
_RESTORE_VERSION = 12
_DRAGONFLY_SET = 32

#: A stream entry as it waits for its turn: its id and the encoded XADD.
_Waiting = tuple[int, int, bytes]


@dataclass
class _Stream:
    """A stream whose entries have been read, and wait in a temporary file.

    Attributes:
        first: the id of the first entry, `live` the number of all of them.
        gone: ids that are pending and have no entry any more, which get a placeholder for a moment.
    """

    tail: StreamTail | None = None
    groups: list[StreamGroup] = field(default_factory=list)
    dedup: StreamDedup | None = None
    first: StreamId | None = None
    live: int = 0
    gone: list[StreamId] = field(default_factory=list)

    def pending(self) -> list[StreamId]:
        """The ids that are pending in any group, in order."""
        return sorted({entry.id for group in self.groups for entry in group.pending})


class RespWriter:
    """Encodes records and events as commands.

    Args:
        target: the server or service that will read them, as a `Target` or its name ("redis-6.0", "azure-premium"); None for the
            newest Redis.
        on_loss: "fail" raises at the first loss; "drop" leaves out what would be lost and goes on.
        batch: most elements in one command.
        now_ms: Unix milliseconds; where the target knows no expiry of fields, those that are past then are left out.

    Attributes:
        losses: the first `ledger.KEPT` losses.
        loss_counts: the counts of all of them, summed up by kind.
        features: what the target can be told, by the names of `targets/commands.toml`.
        db: the database that the last command was for, None before the first.

    Raises: ValueError for a target that is not known, or of which it is not known which commands it has.

    >>> import rdbkit
    >>> writer = RespWriter("redis-6.0", on_loss="drop")
    >>> with rdbkit.open("fixtures/rich/redis-7.0.15.rdb") as snapshot:
    ...     out = b"".join(piece for item in snapshot.events() for piece in writer.commands(item))
    >>> b"RPUSH" in out, writer.loss_counts
    (True, {'function': 1})
    """

    def __init__(
        self, target: Target | str | None = None, on_loss: str = "fail", *, batch: int = 512, now_ms: int | None = None
    ) -> None:
        if on_loss not in ("fail", "drop"):
            raise ValueError(f"on_loss is 'fail' or 'drop', not {on_loss!r}")
        if batch < 1:
            raise ValueError("a command takes at least one element")
        self._ledger = Ledger()
        self.losses = self._ledger.losses
        self.loss_counts = self._ledger.counts
        found = None if target is None else as_target(target)
        self.features = features(found)
        self._target = "the newest Redis" if found is None else found.name
        # what is not known of a server depends on its configuration
        self._databases = None if found is None else 1 if found.single_db else found.databases
        self._fail = on_loss == "fail"
        self._batch = batch
        self._now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms
        self.db: int | None = None
        self._metadata = False
        self._large: Record | None = None
        self._values: dict[str, Callable[[Record], Iterator[bytes]]] = {
            "string": self._string,
            "list": self._list,
            "set": self._set,
            "zset": self._zset,
            "hash": self._hash,
            "stream": self._stream,
            "array": self._array,
            "module": self._module,
        }

    def commands(self, item: Record | Event) -> Iterator[bytes]:
        """The commands of one record or event, encoded, in pieces to be written one after the other.

        To be asked for each item in file order, and used up before the next is read. Where a record is left out, so is the
        `KeyMetadata` in front of it. Memory is bounded by a block, the largest element, and what is pending in a stream's
        groups; the entries of a large stream wait in a temporary file for the groups behind them.

        Raises: LossError with `on_loss="fail"`; RdbError where the value is damaged.
        """
        if isinstance(item, Record):
            yield from self._record(item)
        elif isinstance(item, FunctionLibrary):
            yield from self._function(item)
        elif isinstance(item, Aux) and item.key == SCRIPT:
            yield from load_script(item.value)
        elif isinstance(item, KeyMetadata):
            self._metadata = True
        elif isinstance(item, Aux) and item.key == MEMBER_EXPIRY_WHEN and self._large is not None:
            # behind a value, so that a record larger than a block does not know of it
            self._lose("member-expiry", "the expiry of members", record=self._large)
        elif isinstance(item, ModuleAux):
            self._lose("module-aux", f"data of {described(item.module)} outside of keys")

    def select(self, db: int) -> bytes:
        """What has to be written before commands for the keys of a database; nothing where the last were for them too."""
        if db == self.db:
            return b""
        self.db = db
        return command(b"SELECT", b"%d" % db)

    def lacks_database(self, record: Record) -> bool:
        """Whether the target does not have the database of a record, whose loss is then told.

        Raises: LossError with `on_loss="fail"`.
        """
        if self._databases is None or record.db < self._databases:
            return False
        self._lose("database", f"a key in database {record.db}", record=record)
        return True

    def _record(self, record: Record) -> Iterator[bytes]:
        metadata, self._metadata = self._metadata, False
        self._large = None
        # a server that refuses SELECT would put the keys into the database before
        if self.lacks_database(record):
            return
        if metadata:
            self._lose("key-metadata", "metadata that modules attached to a key", record=record)
        write = self._values.get(record.type)
        if write is None:
            self._lose(record.type, f"a key of type {record.type}", record=record)
            return
        self._large = record if record.size is None else None
        self._member_expiries(record)
        written = False
        for piece in write(record):
            if not written:
                written = True
                if record.db != self.db:
                    yield self.select(record.db)
            yield piece
        if written and record.expire_ms is not None:
            yield command(b"PEXPIREAT", record.key, b"%d" % record.expire_ms)

    def _function(self, library: FunctionLibrary) -> Iterator[bytes]:
        if "functions" not in self.features:
            self._lose("function", f"function library {library.name!r}")
            return
        yield from pieces([b"FUNCTION", b"LOAD", b"REPLACE", library.code])

    def _string(self, record: Record) -> Iterator[bytes]:
        key = record.key
        if record.size is None and record.encoding == "raw":
            yield from self._long_string(record)
            return
        for (value,) in record.elements():
            if len(value) < LARGE:
                # in one step, for most snapshots have mostly these
                yield b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(key), key, len(value), value)
            else:
                yield from pieces([b"SET", key, value])

    def _long_string(self, record: Record) -> Iterator[bytes]:
        """A string larger than a block."""
        size, content = long_string(record)
        yield b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n" % (len(record.key), record.key, size)
        yield from content
        yield b"\r\n"

    def _list(self, record: Record) -> Iterator[bytes]:
        for found in self._parts(record):
            yield from self._split([b"RPUSH", record.key], found, 1)

    def _set(self, record: Record) -> Iterator[bytes]:
        for found in self._parts(record):
            yield from self._split([b"SADD", record.key], found, 1)

    def _zset(self, record: Record) -> Iterator[bytes]:
        for found in self._parts(record):
            arguments = list(chain.from_iterable((number(score), member) for member, score in found))
            yield from self._split([b"ZADD", record.key], arguments, 2)

    def _hash(self, record: Record) -> Iterator[bytes]:
        head = [b"HSET" if "several-fields" in self.features else b"HMSET", record.key]
        for found in self._parts(record):
            expiring = [element for element in found if element[2] is not None]
            if expiring and "field-expiry" not in self.features:
                self._lose("field-expiry", "the expiry of fields", len(expiring), record)
                found = [element for element in found if element[2] is None or element[2] > self._now_ms]
                expiring = []
            yield from self._split(head, list(chain.from_iterable((name, value) for name, value, _ in found)), 2)
            fields: dict[int, list[bytes]] = {}
            for name, _, expire_ms in expiring:
                fields.setdefault(expire_ms, []).append(name)
            for expire_ms, names in fields.items():
                yield from pieces([b"HPEXPIREAT", record.key, b"%d" % expire_ms, b"FIELDS", b"%d" % len(names), *names])

    def _array(self, record: Record) -> Iterator[bytes]:
        if "arrays" not in self.features:
            self._lose("array", "a key of type array", record=record)
            return
        cursor = None
        if record.size is None:
            self._lose("array-cursor", "where a large array is inserted into next", record=record)
        else:
            cursor = record.value.insert_index
        for found in self._parts(record):
            arguments = list(chain.from_iterable((b"%d" % index, number(value)) for index, value in found))
            yield from self._split([b"ARMSET", record.key], arguments, 2)
        if cursor is not None:
            # the file has the index that was inserted last, the command takes the one that is next
            yield command(b"ARSEEK", record.key, b"%d" % (cursor + 1))

    def _module(self, record: Record) -> Iterator[bytes]:
        # RESTORE wants the length first, and a large value can be read only once
        with SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool:
            for piece in payload_pieces(record.rdb_type, record.chunks(), _RESTORE_VERSION):
                spool.write(piece)
            size = spool.tell()
            spool.seek(1)  # behind the type
            module = module_name(read_uint64(spool.read(_ID_BYTES), 0)[0])
            if module not in self.features:
                self._lose("module", f"a value of {described(module)}", record=record)
                return
            spool.seek(0)
            yield b"*4\r\n" + b"".join(map(bulk, (b"RESTORE", record.key, b"0"))) + b"$%d\r\n" % size
            while piece := spool.read(COMMAND_BYTES):
                yield piece
            yield b"\r\n"

    def _parts(self, record: Record) -> Iterator[list[Any]]:
        """The elements, at most as many at a time as go into one command."""
        for found in record.elements():
            if len(found) <= self._batch:
                yield found
            else:
                for at in range(0, len(found), self._batch):
                    yield found[at : at + self._batch]

    def _split(self, head: list[bytes], arguments: list[bytes], width: int) -> Iterator[bytes]:
        """One command of these arguments, or several where they are more than `COMMAND_BYTES`.

        `width`: how many arguments belong together.
        """
        if sum(map(len, arguments)) <= COMMAND_BYTES:
            if arguments:
                yield from pieces(head + arguments)
            return
        start = size = 0
        for at in range(0, len(arguments), width):
            more = sum(map(len, arguments[at : at + width]))
            if size + more > COMMAND_BYTES and at > start:
                yield from pieces(head + arguments[start:at])
                start, size = at, 0
            size += more
        yield from pieces(head + arguments[start:])

    def _stream(self, record: Record) -> Iterator[bytes]:
        if "streams" not in self.features:
            self._lose("stream", "a key of type stream", record=record)
            return
        key = record.key
        with SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spool:
            stream = self._read_stream(record, spool)
            spool.seek(0)
            # XCLAIM leaves out an entry that is not in the stream, so one that was deleted meanwhile is put there for a moment
            pending = stream.pending()
            for batch in _batches(spool):
                yield _merged(key, batch, pending, stream.gone)
        if pending:
            stream.gone += pending
            yield b"".join(_placeholder(key, entry_id) for entry_id in pending)
        tail = stream.tail
        assert tail is not None
        met = stream.live + len(stream.gone)
        if not met:
            # an id must not be zero: XSETID below corrects it
            yield command(b"XADD", key, b"MAXLEN", b"0", b"%d-%d" % max(tail.last_id, _FIRST_ID), b"", b"")
        added = tail.length if tail.entries_added is None else tail.entries_added
        if added >= met:
            yield self._counters(key, tail, added)
        for group in stream.groups:
            yield from self._group(key, group)
        if stream.gone:
            yield from self._without_placeholders(key, stream)
            yield self._counters(key, tail, added)
        if stream.dedup is not None:
            yield from self._dedup(key, stream.dedup, record)

    def _read_stream(self, record: Record, spool: IO[bytes]) -> _Stream:
        """Read the value; its entries go to the file, as `_batches` reads them."""
        key = record.key
        stream = _Stream()
        for found in self._parts(record):
            waiting: list[_Waiting] = []
            for item in found:
                if isinstance(item, StreamEntry):
                    text = b"%d-%d" % item.id
                    waiting.append((*item.id, b"".join(pieces([b"XADD", key, text, *chain.from_iterable(item.fields)]))))
                elif isinstance(item, StreamTail):
                    stream.tail = item
                elif isinstance(item, StreamGroup):
                    stream.groups.append(self._without_nacked(item, record))
                else:
                    stream.dedup = item
            if waiting:
                stream.first = stream.first or StreamId(*waiting[0][:2])
                stream.live += len(waiting)
                pickle.dump(waiting, spool)
        return stream

    def _without_placeholders(self, key: bytes, stream: _Stream) -> Iterator[bytes]:
        """The commands that delete them again.

        Those in front of all entries are trimmed, as they were: XDEL would leave a trace, the highest id deleted.
        """
        first = stream.first
        deleted = [b"%d-%d" % entry_id for entry_id in stream.gone if first is not None and entry_id > first]
        for at in range(0, len(deleted), self._batch):
            yield command(b"XDEL", key, *deleted[at : at + self._batch])
        yield command(b"XTRIM", key, b"MAXLEN", b"%d" % stream.live)

    def _counters(self, key: bytes, tail: StreamTail, added: int) -> bytes:
        arguments = [b"XSETID", key, b"%d-%d" % tail.last_id]
        if "stream-counters" in self.features:
            max_deleted = tail.max_deleted_id or _NO_ID
            arguments += [b"ENTRIESADDED", b"%d" % added, b"MAXDELETEDID", b"%d-%d" % max_deleted]
        return command(*arguments)

    def _without_nacked(self, group: StreamGroup, record: Record) -> StreamGroup:
        """The group without what the target cannot be told."""
        unowned = sum(entry.consumer is None for entry in group.pending)
        if not unowned or "nack" in self.features:
            return group
        self._lose("nacked", f"pending entries of group {_shown(group.name)} that belong to no consumer", unowned, record)
        return group._replace(pending=[entry for entry in group.pending if entry.consumer is not None], nacked=[])

    def _group(self, key: bytes, group: StreamGroup) -> Iterator[bytes]:
        create = [b"XGROUP", b"CREATE", key, group.name, b"%d-%d" % group.last_id]
        if group.entries_read is not None and "stream-counters" in self.features:
            create += [b"ENTRIESREAD", b"%d" % group.entries_read]
        yield command(*create)
        for consumer in group.consumers:
            if "create-consumer" in self.features:
                yield command(b"XGROUP", b"CREATECONSUMER", key, group.name, consumer.name)
            else:
                # to read what is pending behind all entries gives nothing, and makes the consumer
                reader = [b"XREADGROUP", b"GROUP", group.name, consumer.name]
                yield command(*reader, b"COUNT", b"1", b"STREAMS", key, b"%d-%d" % _AFTER_ALL)
        owned: dict[tuple[bytes, int, int], list[bytes]] = {}
        counts: dict[StreamId, int] = {}
        for entry in group.pending:
            if entry.consumer is None:
                counts[entry.id] = entry.delivery_count
            else:
                owner = entry.consumer, entry.delivery_ms, entry.delivery_count
                owned.setdefault(owner, []).append(b"%d-%d" % entry.id)
        for (name, ms, count), ids in owned.items():
            options = [b"TIME", b"%d" % ms, b"RETRYCOUNT", b"%d" % count, b"FORCE", b"JUSTID"]
            for at in range(0, len(ids), self._batch):
                yield command(b"XCLAIM", key, group.name, name, b"0", *ids[at : at + self._batch], *options)
        # the order in which they were given back is that in which they will be delivered
        for count, run in groupby(group.nacked, lambda entry_id: counts[entry_id]):
            ids = [b"%d-%d" % entry_id for entry_id in run]
            for at in range(0, len(ids), self._batch):
                part = ids[at : at + self._batch]
                head = [b"XNACK", key, group.name, b"FAIL", b"IDS", b"%d" % len(part)]
                yield command(*head, *part, b"RETRYCOUNT", b"%d" % count, b"FORCE")

    def _dedup(self, key: bytes, dedup: StreamDedup, record: Record) -> Iterator[bytes]:
        config = dedup.duration_s, dedup.max_entries
        if config != _DEFAULT_DEDUP:
            if "stream-dedup" in self.features:
                yield command(b"XCFGSET", key, b"IDMP-DURATION", b"%d" % config[0], b"IDMP-MAXSIZE", b"%d" % config[1])
            else:
                self._lose("dedup", "for how long a stream remembers its producers", record=record)
        known = sum(len(ids) for _, ids in dedup.producers)
        if known:
            self._lose("dedup", "the ids by which a stream knows an entry that is sent twice", known, record)

    def _member_expiries(self, record: Record) -> None:
        expiring = len(record.member_expire_ms or ())
        if record.rdb_type == _DRAGONFLY_SET and record.type == "set":
            # of a large one it is not known how many
            expiring = 1 if record.size is None else len(record.value.member_expire_ms)
        if expiring:
            self._lose("member-expiry", "the expiry of members", expiring, record)

    def _lose(self, kind: str, what: str, count: int = 1, record: Record | None = None) -> None:
        db, key = (None, None) if record is None else (record.db, record.key)
        if self._fail:
            times = f" ({count} times)" if count > 1 else ""
            raise LossError(f"{what}{times} cannot be given to {self._target} by a command", db=db, key=key)
        self._ledger.add(Loss(kind, what, count, db, key))


def _batches(spool: IO[bytes]) -> Iterator[list[_Waiting]]:
    while True:
        try:
            yield pickle.load(spool)
        except EOFError:
            return


def _merged(key: bytes, batch: list[_Waiting], pending: list[StreamId], gone: list[StreamId]) -> bytes:
    """The commands of a batch of entries, with a placeholder for each pending id that has none.

    `pending` loses from its front what is passed; what had no entry is appended to `gone`.
    """
    if not pending:
        return b"".join([encoded for _, _, encoded in batch])
    out = []
    at = 0
    for ms, seq, encoded in batch:
        while at < len(pending) and pending[at] <= (ms, seq):
            if pending[at] != (ms, seq):
                gone.append(pending[at])
                out.append(_placeholder(key, pending[at]))
            at += 1
        out.append(encoded)
    del pending[:at]
    return b"".join(out)


def _placeholder(key: bytes, entry_id: StreamId) -> bytes:
    return command(b"XADD", key, b"%d-%d" % entry_id, b"", b"")


def _shown(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")


def load_script(body: bytes) -> Iterator[bytes]:
    """The command that loads a Lua script, in pieces."""
    return pieces([b"SCRIPT", b"LOAD", body])


def long_string(record: Record) -> tuple[int, Iterator[bytes]]:
    """The length of a string that is larger than a block, which stands before its content in the file, and the content."""
    chunks = record.chunks()
    begun = b""
    for chunk in chunks:
        begun += chunk
        if len(begun) >= 9:
            break
    return read_length(begun, 0)[0], record.content(chain([begun], chunks))

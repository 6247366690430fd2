"""A key that is read by commands, in pieces of bounded size, as the record that a snapshot would have of it.

So all that a conversion knows of records holds for values that DUMP does not give: those that are too large for it, and those of
servers that refuse it. What is read over time is a value only if nothing has changed meanwhile: of that the first look is compared
with a last one, and how many elements came with how many were counted. Who reads can have the server watch the key besides.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Any, Final

from librt.strings import BytesWriter, write_f64_le, write_i64_le

from rdbkit.errors import CorruptError, LossError
from rdbkit.format import constants as c
from rdbkit.format.encode import write_length, write_score, write_stream_node, write_stream_tail, write_string
from rdbkit.format.replies import Refusal
from rdbkit.format.streams import type_of
from rdbkit.format.transcode import HASH, HASH_EXPIRING, HASH_VALKEY, LIST, SET, ZSET, ZSET_TEXT
from rdbkit.live.connection import Refused
from rdbkit.model import Header
from rdbkit.resp import command
from rdbkit.values import PendingEntry, Stream, StreamConsumer, StreamEntry, StreamGroup, StreamId

__all__ = ["TYPES", "WINDOW_BYTES", "Changed", "FileOfPieces", "Gone", "TooLarge", "Unreadable", "ValueReader", "read_together"]

#: What can be read by commands.
TYPES: Final = ("string", "list", "set", "zset", "hash", "stream")
#: Bytes that one reply is meant to have.
WINDOW_BYTES: Final = 1 << 20
#: Elements of one reply, at first and at most.
_FIRST_WINDOW: Final = 8
_MOST: Final = 1000
_PENDING_WINDOW: Final = 10_000
_NODE_ENTRIES: Final = 100
_NODE_BYTES: Final = 64 << 10
#: So far may a time to live that was asked for twice have gone on, in milliseconds, where nobody else has set it.
_TOLERANCE_MS: Final = 1000
_STRING: Final = 0
_FIELDS_EXPIRE_SINCE: Final = 12
_DEDUP: Final = {"idmp-duration": 100, "idmp-maxsize": 100}
_DIGEST: Final = 1 << 128

#: Asks for the replies to commands, and returns something.
Steps = Generator[list[bytes], list[Any], Any]


class Changed(Exception):
    """The value is no longer what it was when its reading began."""


class Gone(Exception):
    """There is no such key (any more)."""


class Unreadable(Exception):
    """No commands give a value of this type."""


class ValueReader:
    """Reads one key.

    `steps` is a generator: it yields commands and is sent their replies, so that many keys can be asked for together. After each
    step `take` gives what has been read.

    Args:
        key: its name.
        header: of the snapshots that the server writes; the record is one of that version.
        features: names of the commands that the server has, of those that not every server has (`Server.features`).
        digests: make `digest`.
        clock: gives the server's time in Unix milliseconds, where the server may not be asked.
        window_bytes: so many bytes one reply is meant to have.

    Attributes:
        type: as TYPE answers it.
        expire_ms: when it expires, in Unix milliseconds, None for never.
        digest: of the whole value, the same for the same value in whatever order its elements come.
        left_out: what no command tells of it, as a kind of loss and words.
    """

    def __init__(
        self,
        key: bytes,
        header: Header,
        features: frozenset[str],
        *,
        digests: bool = False,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        self.key = key
        self.header = header
        self.type = ""
        self.expire_ms: int | None = None
        self.digest = 0
        self.left_out: list[tuple[str, str]] = []
        self._absolute = "PEXPIRETIME" in features
        self._fields_expire = "HPEXPIRETIME" in features
        self._digests = digests
        self._clock = clock
        self._out = BytesWriter()
        self._window = _FIRST_WINDOW
        self._window_bytes = window_bytes
        self._windows = 0

    @property
    def is_of_one_reply(self) -> bool:
        """Whether one reply gave all of the value, which is then one that it had."""
        return self._windows <= 1 and self.type != "stream" and not (self.type == "hash" and self._fields_expire)

    def take(self) -> bytes:
        """What has been read and not been taken: bytes of the record, from its expiry on."""
        data = self._out.getvalue()
        self._out.truncate(0)
        return data

    def steps(self) -> Steps:
        """Read it.

        Raises: Gone, Changed; Unreadable where its type has no commands; Refused; LossError for what the header's version cannot
            hold. What has been taken is worth nothing then.
        """
        self.type, self.expire_ms = yield from self._look()
        if self.type not in TYPES:
            raise Unreadable(self.type)
        last = yield from self._read()
        kind, expire_ms = yield from self._look()
        if kind != self.type or not self._is_same_time(expire_ms):
            raise Changed
        yield from last

    def pieces(self, ask: Callable[[list[bytes]], list[Any]]) -> Iterator[bytes]:
        """Read it, one request after the other: the bytes of its record, as they come.

        Args:
            ask: gives the replies to commands.

        Raises: as `steps`, and what `ask` does.
        """
        steps = self.steps()
        commands = next(steps, None)
        while commands is not None:
            replies = ask(commands)
            try:
                commands = steps.send(replies)
            except StopIteration:
                commands = None
            if data := self.take():
                yield data

    # -- questions

    def _ask(self, *commands: bytes) -> Steps:
        """The replies. Raises: Refused, and Changed for what only another value explains."""
        replies = yield list(commands)
        return self._checked(replies)

    def _ask_at(self, *commands: bytes) -> Steps:
        """The source's clock in Unix milliseconds, and the replies. Raises: as `_ask`."""
        told, *replies = yield [command(b"TIME"), *commands]
        now_ms = self._clock() if isinstance(told, Refusal) else int(told[0]) * 1000 + int(told[1]) // 1000
        return now_ms, *self._checked(replies)

    def _checked(self, replies: list[Any]) -> list[Any]:
        for reply in replies:
            if isinstance(reply, Refusal):
                if reply.code in ("WRONGTYPE", "NOGROUP") or reply.text == "no such key":
                    raise Changed
                raise Refused(reply)
        return replies

    def _look(self) -> Steps:
        """The type and the expiry."""
        key = self.key
        if self._absolute:
            kind, at = yield from self._ask(command(b"TYPE", key), command(b"PEXPIRETIME", key))
        else:
            now_ms, at, kind = yield from self._ask_at(command(b"PTTL", key), command(b"TYPE", key))
            if at >= 0:
                at += now_ms
        if kind == b"none" or at == -2:
            raise Gone
        return kind.decode("utf-8", "replace"), None if at < 0 else at

    def _is_same_time(self, expire_ms: int | None) -> bool:
        if self._absolute or expire_ms is None or self.expire_ms is None:
            return expire_ms == self.expire_ms
        return abs(expire_ms - self.expire_ms) <= _TOLERANCE_MS

    # -- values

    def _read(self) -> Steps:
        """Read the value; returns the steps of a last look at it."""
        match self.type:
            case "string":
                return (yield from self._string())
            case "list":
                return (yield from self._list())
            case "stream":
                return (yield from self._stream())
            case "set":
                return (yield from self._scanned(b"SCARD", b"SSCAN", 1, SET, self._member))
            case "zset":
                if self.header.version >= 8:
                    return (yield from self._scanned(b"ZCARD", b"ZSCAN", 2, ZSET, self._scored))
                return (yield from self._scanned(b"ZCARD", b"ZSCAN", 2, ZSET_TEXT, self._scored_in_text))
            case _:
                return (yield from self._hash())

    def _begin(self, type_code: int) -> None:
        """What precedes a value."""
        out = self._out
        if self.expire_ms is not None:
            out.append(c.EXPIRETIME_MS)
            write_i64_le(out, self.expire_ms)
        out.append(type_code)
        write_string(out, self.key)

    def _count(self, question: bytes) -> Steps:
        """How many elements there are."""
        (total,) = yield from self._ask(command(question, self.key))
        if total == 0:
            raise Changed
        return total

    def _count_first(self, question: bytes) -> Steps:
        """How many elements there are, and with that how many of them to ask for at once."""
        total, usage = yield [command(question, self.key), command(b"MEMORY", b"USAGE", self.key)]
        if isinstance(total, Refusal):
            yield from self._ask(command(question, self.key))  # which refuses it again, or it has changed
            raise Changed
        if total == 0 and self.type != "stream":
            raise Changed
        if isinstance(usage, int) and usage > 0:
            self._window = max(1, min(self._window_bytes * total // usage, _MOST))
        return total

    def _same_count(self, question: bytes, total: int) -> Steps:
        if (yield from self._count(question)) != total:
            raise Changed

    def _string(self) -> Steps:
        total = yield from self._count_of_string()
        self._begin(_STRING)
        write_length(self._out, total)
        at = 0
        while at < total:
            stop = min(at + self._window_bytes, total)
            self._windows += 1
            (piece,) = yield from self._ask(command(b"GETRANGE", self.key, b"%d" % at, b"%d" % (stop - 1)))
            if len(piece) != stop - at:
                raise Changed
            self._out.write(piece)
            self._follow(piece)
            at = stop
        return self._same_string(total)

    def _count_of_string(self) -> Steps:
        (total,) = yield from self._ask(command(b"STRLEN", self.key))
        return total

    def _same_string(self, total: int) -> Steps:
        if (yield from self._count_of_string()) != total:
            raise Changed

    def _list(self) -> Steps:
        total = yield from self._count_first(b"LLEN")
        self._begin(LIST)
        write_length(self._out, total)
        at = 0
        while at < total:
            self._windows += 1
            (found,) = yield from self._ask(command(b"LRANGE", self.key, b"%d" % at, b"%d" % (at + self._window - 1)))
            if len(found) != min(self._window, total - at):
                raise Changed
            for element in found:
                write_string(self._out, element)
                if self._digests:
                    self._follow(element)
            at += len(found)
            self._adapt(found)
        return self._same_count(b"LLEN", total)

    def _scanned(
        self, question: bytes, scan: bytes, width: int, type_code: int, write: Callable[[list[bytes], int], None]
    ) -> Steps:
        """A set or a sorted set."""
        total = yield from self._count_first(question)
        self._begin(type_code)
        write_length(self._out, total)
        seen = 0
        cursor = b"0"
        while True:
            self._windows += 1
            ((cursor, found),) = yield from self._ask(command(scan, self.key, cursor, b"COUNT", b"%d" % self._window))
            seen += len(found) // width
            if seen > total:
                raise Changed  # or some of it came twice, as it does while a server makes a table smaller
            for i in range(0, len(found), width):
                write(found, i)
            self._adapt(found, width)
            if cursor == b"0":
                break
        if seen != total:
            raise Changed
        return self._same_count(question, total)

    def _member(self, found: list[bytes], i: int) -> None:
        write_string(self._out, found[i])
        if self._digests:
            self._add(found[i])

    def _scored(self, found: list[bytes], i: int) -> None:
        write_string(self._out, found[i])
        write_f64_le(self._out, _score(found[i + 1]))
        if self._digests:
            self._add(found[i], found[i + 1])

    def _scored_in_text(self, found: list[bytes], i: int) -> None:
        write_string(self._out, found[i])
        write_score(self._out, _score(found[i + 1]))
        if self._digests:
            self._add(found[i], found[i + 1])

    def _hash(self) -> Steps:
        """A hash; when its fields expire is asked for with the next of them."""
        valkey = self.header.flavour == c.VALKEY
        expire = self._fields_expire and (valkey or self.header.version >= _FIELDS_EXPIRE_SINCE)
        total = yield from self._count_first(b"HLEN")
        self._begin((HASH_VALKEY if valkey else HASH_EXPIRING) if expire else HASH)
        if expire and not valkey:
            write_i64_le(self._out, 1)  # from which on expiries count
        write_length(self._out, total)
        seen = 0
        cursor = b"0"
        waiting: list[bytes] = []
        while True:
            commands = [command(b"HSCAN", self.key, cursor, b"COUNT", b"%d" % self._window)]
            if waiting:
                commands.append(self._expiries_of(waiting))
            self._windows += 1
            (cursor, found), *times = yield from self._ask(*commands)
            if times:
                self._fields(waiting, times[0], valkey)
            seen += len(found) // 2
            if seen > total:
                raise Changed
            if expire:
                waiting = found
            else:
                self._fields(found, None, valkey)
            self._adapt(found, 2)
            if cursor == b"0":
                break
        if waiting:
            (last,) = yield from self._ask(self._expiries_of(waiting))
            self._fields(waiting, last, valkey)
        if seen != total:
            raise Changed
        return self._same_count(b"HLEN", total)

    def _expiries_of(self, found: list[bytes]) -> bytes:
        return command(b"HPEXPIRETIME", self.key, b"FIELDS", b"%d" % (len(found) // 2), *found[::2])

    def _fields(self, found: list[bytes], times: list[int] | None, valkey: bool) -> None:
        """Write fields, with their expiries where the record has them: -1 for none, -2 where there is no such field."""
        out = self._out
        if times is None:
            for text in found:
                write_string(out, text)
        else:
            for i, at in enumerate(times):
                if at < -1:
                    raise Changed
                if not valkey:
                    write_length(out, at if at > 0 else 0)
                write_string(out, found[2 * i])
                write_string(out, found[2 * i + 1])
                if valkey:
                    write_i64_le(out, at)
        if self._digests:
            for i in range(0, len(found), 2):
                self._add(found[i], found[i + 1], b"" if times is None else b"%d" % times[i // 2])

    def _adapt(self, found: list[bytes], width: int = 1) -> None:
        """Ask for so many elements next as a reply is meant to have."""
        size = sum(map(len, found)) + len(found) * 8
        if found:
            wanted = self._window_bytes * (len(found) // width) // size
            self._window = max(1, min(wanted, 4 * self._window, _MOST))

    # -- streams

    def _stream(self) -> Steps:
        stream: Stream = yield from self._about_stream()
        level = 1 if self.header.version < 10 else 2 if self.header.version < 11 else 3
        if self.header.version < 9:
            raise LossError(f"{self.header} has no streams", key=self.key)
        self._begin(type_of(level))
        total: int = yield from self._count_first(b"XLEN")
        if total != stream.length:
            raise Changed
        entries: list[StreamEntry] = []
        seen = 0
        next_id = b"-"
        per_node = 0
        while seen < total:
            window = min(self._window, total - seen)
            (found,) = yield from self._ask(command(b"XRANGE", self.key, next_id, b"+", b"COUNT", b"%d" % window))
            if len(found) != window:
                raise Changed
            fresh = [StreamEntry(_id(name), list(zip(texts[::2], texts[1::2], strict=True))) for name, texts in found]
            size = sum(len(text) + 8 for _, texts in found for text in texts) + 16 * len(found)
            if not per_node:
                # the number of nodes precedes them, and entries vary: none has more than its share of what one may hold
                per_node = max(1, min(_NODE_ENTRIES, _NODE_BYTES * len(found) // size))
                write_length(self._out, -(-total // per_node))
            entries += fresh
            seen += len(found)
            next_id = _after(fresh[-1].id)
            if self._digests:
                self._follow(repr(found).encode())
            while len(entries) >= per_node or (entries and seen == total):
                write_stream_node(self._out, entries[:per_node])
                del entries[:per_node]
            self._window = max(1, min(self._window_bytes * len(found) // size, 4 * self._window, _MOST))
        if not total:
            write_length(self._out, 0)
        stream.groups = yield from self._groups()
        write_stream_tail(self._out, stream, total, level)
        return self._same_stream(stream)

    def _about_stream(self) -> Steps:
        """The stream without entries and groups."""
        (reply,) = yield from self._ask(command(b"XINFO", b"STREAM", self.key))
        facts = _facts(reply)
        self.left_out = []
        if facts.get("iids-tracked", 0) or any(facts.get(name, usual) != usual for name, usual in _DEDUP.items()):
            self.left_out.append(("dedup", "how a stream knows an entry that is sent twice"))
        first, deleted = facts.get("recorded-first-entry-id"), facts.get("max-deleted-entry-id")
        return Stream(
            [], facts["length"], _id(facts["last-generated-id"]), first and _id(first), deleted and _id(deleted),
            facts.get("entries-added"),
        )  # fmt: skip

    def _groups(self) -> Steps:
        (rows,) = yield from self._ask(command(b"XINFO", b"GROUPS", self.key))
        groups = []
        for row in rows:
            facts = _facts(row)
            name = facts["name"]
            now, consumers = yield from self._ask_at(command(b"XINFO", b"CONSUMERS", self.key, name))
            known = [
                StreamConsumer(each["name"], now - each["idle"], _active(now, each.get("inactive")))
                for each in map(_facts, consumers)
            ]
            pending = yield from self._pending(name)
            if len(pending) != facts["pending"] or {each.consumer for each in pending} - {each.name for each in known}:
                raise Changed
            read = facts.get("entries-read") if "entries-read" in facts else None
            groups.append(StreamGroup(name, _id(facts["last-delivered-id"]), read, pending, known, []))
        return groups

    def _pending(self, group: bytes) -> Steps:
        """The pending entries of a group."""
        pending: list[PendingEntry] = []
        start = b"-"
        while True:
            question = command(b"XPENDING", self.key, group, start, b"+", b"%d" % _PENDING_WINDOW)
            now, rows = yield from self._ask_at(question)
            pending += [PendingEntry(_id(name), consumer, now - idle, count) for name, consumer, idle, count in rows]
            if len(rows) < _PENDING_WINDOW:
                return pending
            start = _after(pending[-1].id)

    def _same_stream(self, stream: Stream) -> Steps:
        """A last look, also at what the server does not count as a change: what was delivered."""
        groups = stream.groups
        again = yield from self._about_stream()
        again.groups = yield from self._groups()
        if _without_times(again.groups) != _without_times(groups):
            raise Changed
        again.groups = groups
        if again != stream:
            raise Changed

    # -- digests

    def _follow(self, data: bytes) -> None:
        """What comes next in the value, of one that has an order."""
        if self._digests:
            self.digest = int.from_bytes(blake2b(self.digest.to_bytes(16, "big") + data, digest_size=16).digest(), "big")

    def _add(self, *parts: bytes) -> None:
        """An element of a value that has no order."""
        whole = b"".join([b"%d:%b" % (len(part), part) for part in parts])
        self.digest = (self.digest + int.from_bytes(blake2b(whole, digest_size=16).digest(), "big")) % _DIGEST


class TooLarge(Exception):
    """The value is more than is read of several at once."""


class FileOfPieces:
    """A file that has these pieces, one behind the other. Raises: so does `read`: what the pieces do."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._rest = memoryview(b"")

    def read(self, n: int) -> bytes:
        """At most so many bytes; none at the end."""
        while not self._rest:
            data = next(self._pieces, None)
            if data is None:
                return b""
            self._rest = memoryview(data)
        data, self._rest = self._rest[:n].tobytes(), self._rest[n:]
        return data


def read_together(
    make: Callable[[bytes], ValueReader], keys: Sequence[bytes], ask: Callable[[list[bytes]], list[Any]]
) -> list[bytes | Exception]:
    """Read many small values at once: of each key its record, or what was raised.

    What took more than one reply is read again, and has changed where it is another then.

    Args:
        make: the reader of a key; it makes digests.
        ask: gives the replies to commands.

    Raises: what `ask` does.
    """
    readers = [make(key) for key in keys]
    found = _run_together(readers, ask)
    again = [i for i, value in enumerate(found) if isinstance(value, bytes) and not readers[i].is_of_one_reply]
    seconds = [make(keys[i]) for i in again]
    for i, second, value in zip(again, seconds, _run_together(seconds, ask), strict=True):
        if isinstance(value, Exception):
            found[i] = value
        elif second.digest != readers[i].digest:
            found[i] = Changed()
    return found


def _run_together(readers: Sequence[ValueReader], ask: Callable[[list[bytes]], list[Any]]) -> list[bytes | Exception]:
    found: list[bytes | Exception] = [b""] * len(readers)
    running = [(i, steps, next(steps)) for i, steps in enumerate(reader.steps() for reader in readers)]
    parts: list[list[bytes]] = [[] for _ in readers]
    sizes = [0] * len(readers)
    while running:
        replies = iter(ask([text for _, _, commands in running for text in commands]))
        going = []
        for i, steps, commands in running:
            try:
                following = steps.send(list(islice(replies, len(commands))))
                parts[i].append(readers[i].take())
                sizes[i] += len(parts[i][-1])
                if sizes[i] > WINDOW_BYTES:
                    raise TooLarge
                going.append((i, steps, following))
            except StopIteration:
                found[i] = b"".join([*parts[i], readers[i].take()])
            except (Gone, Changed, Unreadable, TooLarge, Refused, LossError) as e:
                found[i] = e
        running = going
    return found


def _facts(flat: list[Any]) -> dict[str, Any]:
    """What a server says of a thing as names and values in turn."""
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _id(text: bytes) -> StreamId:
    ms, _, seq = text.partition(b"-")
    return StreamId(int(ms), int(seq))


def _after(entry_id: StreamId) -> bytes:
    """The id that follows."""
    if entry_id.seq == (1 << 64) - 1:
        return b"%d-0" % (entry_id.ms + 1)
    return b"%d-%d" % (entry_id.ms, entry_id.seq + 1)


def _active(now: int, inactive: int | None) -> int | None:
    """When a consumer was last given something: None where that is not told, -1 for never."""
    return None if inactive is None else -1 if inactive < 0 else now - inactive


def _without_times(groups: list[StreamGroup]) -> list[Any]:
    """What of groups changes by what is done alone."""
    return [
        (
            group.name,
            group.last_id,
            group.entries_read,
            [(each.id, each.consumer, each.delivery_count) for each in group.pending],
            sorted(each.name for each in group.consumers),
        )
        for group in groups
    ]


def _score(text: bytes) -> float:
    try:
        return float(text)
    except ValueError:
        raise CorruptError(f"a score of {text[:40]!r} is no number") from None

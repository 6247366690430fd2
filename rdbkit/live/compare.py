"""Keys of a live server compared with records: what differs in type, value and expiry, without changing anything.

Each key is asked for: when it expires, how many elements it has, and each element that the record has. So a value of any size is
compared in pieces, and what the server holds besides shows in its counts. Questions about many keys go out together.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, NamedTuple, TypeAlias

from rdbkit.format.record import Record
from rdbkit.format.replies import Refusal
from rdbkit.live.server import Server
from rdbkit.operations.diff_elements import moment
from rdbkit.passes.hashes import PARTITIONS, NameHashes
from rdbkit.resp import command
from rdbkit.storage.rate_limiter import RateLimiter
from rdbkit.values import StreamEntry, StreamGroup, StreamId, StreamTail

__all__ = ["OUTCOMES", "Comparer", "Outcome", "hashes_not_in", "shown"]

#: What may become of a key; all but the first three are differences.
OUTCOMES: Final = ("equal", "expired", "not-compared", "missing", "type", "value", "expire", "refused")
_SHOWN: Final = 5  # elements of a key
_SHOWN_BYTES: Final = 60
_WINDOW: Final = 1000  # elements of a command
_PENDING_WINDOW: Final = 10_000
_PIECE: Final = 1 << 20  # bytes of a string
_TYPES: Final = ("string", "list", "set", "zset", "hash", "stream")
#: Types of the file in which fields of a hash have expiries of their own.
_EXPIRING_HASHES: Final = (22, 23, 24, 25)


class _OtherType(NamedTuple):
    """The server has a value of another type there; `name` is None where it does not tell which."""

    name: str | None


#: A comparison asks for replies to commands, several times where a value is large, and returns what differs, in words; None where
#: the value cannot be asked for.
Comparison: TypeAlias = "Generator[list[bytes], list[Any], list[str] | _OtherType | None]"


@dataclass
class Outcome:
    """What became of a key.

    Attributes:
        what: one of `OUTCOMES`.
        server_type: the server's, where it is another.
        server_expire_ms: the server's, in Unix milliseconds; None for none.
        details: the first elements that differ, or the server's words.
    """

    what: str
    server_type: str | None = None
    server_expire_ms: int | None = None
    details: list[str] = field(default_factory=list)


class Comparer:
    """Asks a server for keys, several at once, and tells what became of each.

    Args:
        server: as `rdbkit.live.server.connect` gives it.
        tolerance_ms: so much may expiries be apart, of keys and of fields.
        rate: keys a second at most; of a large value, each thousand elements or megabyte counts as one. None for no limit.

    Attributes:
        rate_limiter: of all that is asked; others who ask this server take from it, too.
    """

    def __init__(self, server: Server, tolerance_ms: int, rate: float | None = None) -> None:
        self.server = server
        self.tolerance_ms = tolerance_ms
        self.rate_limiter = RateLimiter(rate)
        self.absolute = "PEXPIRETIME" in server.features
        self.expire_command = b"PEXPIRETIME" if self.absolute else b"PTTL"
        self.before = self.after = 0  # the server's clock around the last replies

    def compare(self, db: int, records: Sequence[Record]) -> list[Outcome]:
        """What became of each of these keys in a database of the server.

        Args:
            db: the server's.
            records: any number of small ones (`size` is known), or one that is larger than a block, before the next one is read.

        Raises: TargetError where the server cannot be reached for some time; RdbError where a large record is damaged.
        """
        outcomes: list[Outcome | None] = [None] * len(records)
        running: list[tuple[int, bytes, Generator[list[bytes], list[Any], Outcome], list[bytes]]] = []
        for i, record in enumerate(records):
            steps = self._steps(record)
            running.append((i, record.key, steps, next(steps)))
        while running:
            self.rate_limiter.take(len(running))
            self.before = self.server.now_ms()
            replies = self.server.ask(db, [(key, commands) for _, key, _, commands in running])
            self.after = self.server.now_ms()
            going = []
            for (i, key, steps, _), found in zip(running, replies, strict=True):
                try:
                    going.append((i, key, steps, steps.send(found)))
                except StopIteration as done:
                    outcomes[i] = done.value
            running = going
        return [outcome for outcome in outcomes if outcome is not None]

    def _steps(self, record: Record) -> Generator[list[bytes], list[Any], Outcome]:
        """Ask for one key: with its expiry goes the first question about its value."""
        comparison = self._comparison(record)
        left, *replies = yield [command(self.expire_command, record.key), *next(comparison)]
        if isinstance(left, Refusal):
            return Outcome("refused", details=[str(left)])
        if left == -2:
            return Outcome("expired" if self.is_past(record.expire_ms) or self._has_no_fields(record) else "missing")
        low = high = None
        if left >= 0:
            low, high = (left, left) if self.absolute else (self.before + left, self.after + left)
        found = yield from _finish(comparison, record.key, replies)
        if isinstance(found, Refusal):
            return Outcome("refused", details=[str(found)])
        if isinstance(found, _OtherType):
            return Outcome("type", found.name, low)
        if found:
            return Outcome("value", None, low, found)
        if not self.is_near(record.expire_ms, low, high):
            return Outcome("expire", None, low)
        return Outcome("not-compared" if found is None else "equal")

    def is_past(self, expire_ms: int | None) -> bool:
        """Whether a time has come, or is so near that nobody can tell."""
        return expire_ms is not None and expire_ms <= self.after + self.tolerance_ms

    def is_near(self, expected: int | None, low: int | None, high: int | None) -> bool:
        """Whether an expiry lies between two times, or near them."""
        if expected is None or low is None or high is None:
            return expected is None and low is None
        return low - self.tolerance_ms <= expected <= high + self.tolerance_ms

    def _has_no_fields(self, record: Record) -> bool:
        """Whether it is a hash whose fields have all expired."""
        return record.type == "hash" and all(self.is_past(expire) for found in record.elements() for _, _, expire in found)

    def _comparison(self, record: Record) -> Comparison:
        match record.type:
            case "string":
                return _string(record)
            case "list":
                return _collection(record, _List(record.key))
            case "set":
                return _collection(record, _Set(record.key, "SMISMEMBER" in self.server.features))
            case "zset":
                return _collection(record, _SortedSet(record.key, "ZMSCORE" in self.server.features))
            case "hash":
                return _hash(record, "HPEXPIRETIME" in self.server.features, self)
            case "stream":
                return _Stream(record).steps()
            case _:
                return _opaque(record)


def hashes_not_in(ours: NameHashes, theirs: NameHashes) -> Iterator[int]:
    """The hashes of `theirs` that are not in `ours`, each once."""
    for number in range(PARTITIONS):
        yield from set(array("q", theirs.partitions.partition(number))) - set(array("q", ours.partitions.partition(number)))


def _finish(
    comparison: Comparison, key: bytes, replies: list[Any]
) -> Generator[list[bytes], list[Any], list[str] | _OtherType | Refusal | None]:
    """Continue a comparison, which gets these replies first, to what it returns, or to an error that ends it."""
    while True:
        refusal = next((reply for reply in replies if isinstance(reply, Refusal) and reply.code != "NOGROUP"), None)
        if refusal is not None and refusal.code == "WRONGTYPE":
            (found_type,) = yield [command(b"TYPE", key)]
            return _OtherType(found_type.decode() if isinstance(found_type, bytes) else None)
        if refusal is not None:
            return refusal
        try:
            commands = comparison.send(replies)
        except StopIteration as done:
            differences: list[str] | _OtherType | None = done.value
            return differences
        replies = yield commands


def _opaque(record: Record) -> Comparison:
    """A value of a module or of a type that no command gives whole: its bytes as DUMP has them, or None for not compared."""
    is_small = record.size is not None
    replies = yield [command(b"TYPE", record.key), *([command(b"DUMP", record.key)] if is_small else [])]
    found_type = replies[0].decode("utf-8", "replace")
    if found_type in _TYPES:
        return _OtherType(found_type)
    # behind the value stand a version of two bytes and a checksum of eight
    if is_small and isinstance(replies[1], bytes) and replies[1][:-10] == bytes([record.rdb_type]) + record.raw:
        return []
    return None


def _string(record: Record) -> Comparison:
    if record.size is not None:
        value = record.value
        # one byte more shows whether there is more
        (found,) = yield [command(b"GETRANGE", record.key, b"0", b"%d" % len(value))]
        if found == value:
            return []
        (length,) = yield [command(b"STRLEN", record.key)]
        return [_bytes_differ(0, value, found, len(value), length)]
    (length,) = yield [command(b"STRLEN", record.key)]
    at = 0
    for whole in record.content():
        for begin in range(0, len(whole), _PIECE):
            piece = whole[begin : begin + _PIECE]
            (found,) = yield [command(b"GETRANGE", record.key, b"%d" % at, b"%d" % (at + len(piece) - 1))]
            if found != piece:
                return [_bytes_differ(at, piece, found, None, length)]
            at += len(piece)
    return [] if at == length else [f"{at:,} and {length:,} bytes"]


def _bytes_differ(at: int, one: bytes, other: bytes, size: int | None, other_size: int) -> str:
    first = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    sizes = f"{other_size:,} on the server" if size is None else f"{size:,} and {other_size:,}"
    return f"byte {at + first:,} of {sizes}: {one[first : first + 20]!r} and {other[first : first + 20]!r}"


class _Elements:
    """How the elements of a type are asked for and compared.

    Attributes:
        count_command: gives the number of elements.
        least, most: so many elements the server must have.
        lines: what differs, in words.
    """

    count_command = b""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.least = 0
        self.most = 0
        self.lines: list[str] = []

    def ask(self, elements: list[Any]) -> list[bytes]:
        """The commands that ask for these elements."""
        raise NotImplementedError

    def compare(self, elements: list[Any], replies: list[Any]) -> None:
        """Add what differs to `lines`."""
        raise NotImplementedError

    def recount(self, total: int) -> Generator[list[bytes], list[Any], int]:
        """How many elements there are, of which the server counts `total`."""
        yield from ()
        return total

    def differ(self, name: str, one: str, other: str) -> None:
        if len(self.lines) < _SHOWN:
            self.lines.append(f"{name}: {one} and {other}")

    def saw(self, elements: Collection[Any]) -> None:
        self.least += len(elements)
        self.most += len(elements)


class _List(_Elements):
    count_command = b"LLEN"

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self.asked = 0

    def ask(self, elements: list[Any]) -> list[bytes]:
        begin = self.asked
        self.asked += len(elements)
        return [command(b"LRANGE", self.key, b"%d" % begin, b"%d" % (self.asked - 1))]

    def compare(self, elements: list[Any], replies: list[Any]) -> None:
        found = replies[0]
        if found != elements:
            for i, one in enumerate(elements):
                other = found[i] if i < len(found) else None
                if one != other:
                    self.differ(f"element {self.most + i:,}", shown(one), shown(other))
        self.saw(elements)


class _Set(_Elements):
    count_command = b"SCARD"

    def __init__(self, key: bytes, several: bool) -> None:
        super().__init__(key)
        self.several = several

    def ask(self, elements: list[Any]) -> list[bytes]:
        if self.several:
            return [command(b"SMISMEMBER", self.key, *elements)]
        return [command(b"SISMEMBER", self.key, member) for member in elements]

    def compare(self, elements: list[Any], replies: list[Any]) -> None:
        found = replies[0] if self.several else replies
        if 0 in found:
            for member, is_there in zip(elements, found, strict=True):
                if not is_there:
                    self.differ("member", shown(member), "none")
        self.saw(elements)


class _SortedSet(_Elements):
    count_command = b"ZCARD"

    def __init__(self, key: bytes, several: bool) -> None:
        super().__init__(key)
        self.several = several

    def ask(self, elements: list[Any]) -> list[bytes]:
        if self.several:
            return [command(b"ZMSCORE", self.key, *[member for member, _ in elements])]
        return [command(b"ZSCORE", self.key, member) for member, _ in elements]

    def compare(self, elements: list[Any], replies: list[Any]) -> None:
        found = replies[0] if self.several else replies
        for (member, score), text in zip(elements, found, strict=True):
            other = None if text is None else float(text)
            if other != score and not (score != score and other != other):  # not a number is never equal to itself
                self.differ(shown(member), repr(score), "none" if other is None else repr(other))
        self.saw(elements)


class _Hash(_Elements):
    """A hash, some of whose fields may have expired; a server counts those until it removes them, which it does in its own time.

    Attributes:
        gone: how many fields of the file are not there since their time has come.
    """

    count_command = b"HLEN"

    def __init__(self, record: Record, expiring: bool, comparer: Comparer) -> None:
        super().__init__(record.key)
        self.expiring = expiring
        self.comparer = comparer
        self.gone = 0
        self.names = NameHashes() if record.rdb_type in _EXPIRING_HASHES else None

    def __enter__(self) -> _Hash:
        return self

    def __exit__(self, *_: object) -> None:
        if self.names is not None:
            self.names.close()

    def ask(self, elements: list[Any]) -> list[bytes]:
        names = [name for name, _, _ in elements]
        commands = [command(b"HMGET", self.key, *names)]
        if self.expiring:
            commands.append(command(b"HPEXPIRETIME", self.key, b"FIELDS", b"%d" % len(names), *names))
        return commands

    def compare(self, elements: list[Any], replies: list[Any]) -> None:
        times = replies[1] if self.expiring else [-1] * len(elements)
        for (name, value, expire), other, at in zip(elements, replies[0], times, strict=True):
            if self.names is not None:
                self.names.add(0, name)
            if other is None and self.comparer.is_past(expire):
                self.gone += 1
                continue
            self.least += 1
            self.most += 1
            if other != value:
                self.differ(shown(name), shown(value), shown(other))
            else:
                self.compare_expiry(name, expire, at)

    def compare_expiry(self, name: bytes, expected: int | None, at: int) -> None:
        """The expiry of a field, of which the server says `at`: -1 for none, -2 where it has no such field."""
        if at == -2 and self.comparer.is_past(expected):
            return  # it has expired between the two answers
        found = at if at >= 0 else None
        if not self.comparer.is_near(expected, found, found):
            one, other = ("never" if not ms else moment(ms) for ms in (expected, found))
            self.differ(f"expiry of {shown(name)}", one, other)

    def recount(self, total: int) -> Generator[list[bytes], list[Any], int]:
        """Where fields that have expired can be among those that are counted, list the names: those are not in the list."""
        if self.names is None or not self.expiring or not self.gone or total <= self.most:
            return total
        theirs = NameHashes()
        try:
            cursor = b"0"
            while True:
                ((cursor, names),) = yield [command(b"HSCAN", self.key, cursor, b"COUNT", b"%d" % _WINDOW, b"NOVALUES")]
                for name in names:
                    theirs.add(0, name)
                if cursor == b"0":
                    break
            return self.most + sum(1 for _ in hashes_not_in(self.names, theirs))
        finally:
            theirs.close()


def _hash(record: Record, expiring: bool, comparer: Comparer) -> Comparison:
    with _Hash(record, expiring, comparer) as elements:
        return (yield from _collection(record, elements))


def _collection(record: Record, elements: _Elements) -> Comparison:
    """Elements, all at once where the record is small, otherwise as they are read."""
    count = command(elements.count_command, record.key)
    windows = (found[at : at + _WINDOW] for found in record.elements() for at in range(0, len(found), _WINDOW))
    if record.size is None:
        (total,) = yield [count]  # nothing of it may be read before it is known to be there
        for window in windows:
            elements.compare(window, (yield elements.ask(window)))
            if elements.lines:
                return elements.lines  # the rest would say the same
    else:
        asked = [(window, elements.ask(window)) for window in windows]
        total, *replies = yield [count, *(text for _, commands in asked for text in commands)]
        following = iter(replies)
        for window, commands in asked:
            elements.compare(window, list(islice(following, len(commands))))
    total = yield from elements.recount(total)
    if not elements.least <= total <= elements.most:
        return [f"{elements.most:,} and {total:,} elements", *elements.lines]
    return elements.lines


class _Stream:
    """How a stream is asked for and compared: its entries, then its last id, groups, consumers and pending entries.

    Attributes:
        lines: what differs, in words.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.key = record.key
        self.lines: list[str] = []
        self.tail: StreamTail | None = None
        self.groups: list[StreamGroup] = []
        self.next_id = b"-"

    def steps(self) -> Comparison:
        if self.record.size is None:
            yield [command(b"XLEN", self.key)]  # nothing of it may be read before it is known to be there
            for window in self.windows():
                (reply,) = yield [self.range_of(window)]
                self.compare_entries(window, reply)
                if self.lines:
                    return self.lines
            windows = []
        else:
            windows = list(self.windows())
        about = [command(b"XINFO", b"STREAM", self.key), command(b"XINFO", b"GROUPS", self.key)]
        ranges = [self.range_of(window) for window in windows]
        replies = yield [*about, *ranges, *(text for group in self.groups for text in self.questions(group))]
        for window, reply in zip(windows, replies[2 : 2 + len(windows)], strict=True):
            self.compare_entries(window, reply)
        self.compare_tail(_facts(replies[0]))
        last_ids = {facts["name"]: facts["last-delivered-id"].decode() for facts in map(_facts, replies[1])}
        for name in last_ids.keys() - {group.name for group in self.groups}:
            self.lines.append(f"group {shown(name)}: extra")
        of_groups = replies[2 + len(windows) :]
        for group, consumers, pending in zip(self.groups, of_groups[::2], of_groups[1::2], strict=True):
            if group.name not in last_ids or isinstance(consumers, Refusal) or isinstance(pending, Refusal):
                self.lines.append(f"group {shown(group.name)}: missing")
            else:
                self.compare_group(group, last_ids[group.name], consumers)
                yield from self.compare_pending(group, pending)
        return self.lines[:_SHOWN]

    def windows(self) -> Iterator[list[StreamEntry]]:
        """The entries, so many as one command asks for; tail and groups are known when all of them have been handed out."""
        for found in self.record.elements():
            entries = []
            for item in found:
                if isinstance(item, StreamEntry):
                    entries.append(item)
                elif isinstance(item, StreamTail):
                    self.tail = item
                elif isinstance(item, StreamGroup):
                    self.groups.append(item)
            for at in range(0, len(entries), _WINDOW):
                yield entries[at : at + _WINDOW]

    def range_of(self, window: list[StreamEntry]) -> bytes:
        """The command that asks for these entries, which follow those that were asked for before."""
        start, self.next_id = self.next_id, _after(window[-1].id)
        return command(b"XRANGE", self.key, start, b"+", b"COUNT", b"%d" % len(window))

    def questions(self, group: StreamGroup) -> list[bytes]:
        """The commands that ask for the consumers of a group, and for the first of its pending entries."""
        first = _pending_of(self.key, group.name, b"-", group.pending[:_PENDING_WINDOW])
        return [command(b"XINFO", b"CONSUMERS", self.key, group.name), first]

    def compare_entries(self, window: list[StreamEntry], found: Any) -> None:
        wanted = [(str(entry.id).encode(), [part for pair in entry.fields for part in pair]) for entry in window]
        there = [(entry_id, parts) for entry_id, parts in found]
        if wanted == there:
            return
        for one, other in zip(wanted, [*there, *[None] * (len(wanted) - len(there))], strict=False):
            if one != other and len(self.lines) < _SHOWN:
                if other is None or one[0] != other[0]:
                    self.lines.append(
                        f"entry {one[0].decode()}: missing"
                        if other is None
                        else f"entry {other[0].decode()} in place of {one[0].decode()}"
                    )
                    return  # all that follow are out of step
                self.lines.append(f"entry {one[0].decode()}: {_shown_parts(one[1])} and {_shown_parts(other[1])}")

    def compare_tail(self, facts: dict[str, Any]) -> None:
        """The number of entries, and the last id."""
        tail = self.tail
        assert tail is not None
        if facts["length"] != tail.length:
            self.lines.insert(0, f"{tail.length:,} and {facts['length']:,} entries")
        last_id = facts["last-generated-id"].decode()
        if last_id != str(tail.last_id):
            self.lines.append(f"last id: {tail.last_id} and {last_id}")

    def compare_group(self, group: StreamGroup, last_id: str, consumers: list[Any]) -> None:
        """The last id of a group, and the names of its consumers."""
        about = f"group {shown(group.name)}"
        if last_id != str(group.last_id):
            self.lines.append(f"{about}, last id: {group.last_id} and {last_id}")
        theirs = {_facts(row)["name"] for row in consumers}
        ours = {consumer.name for consumer in group.consumers}
        self.lines += [f"{about}, consumer {shown(name)}: missing" for name in sorted(ours - theirs)]
        self.lines += [f"{about}, consumer {shown(name)}: extra" for name in sorted(theirs - ours)]

    def compare_pending(self, group: StreamGroup, reply: list[Any]) -> Generator[list[bytes], list[Any], None]:
        """The pending entries of a group; `reply` has the first of the server's."""
        for begin in range(0, max(1, len(group.pending)), _PENDING_WINDOW):
            window = group.pending[begin : begin + _PENDING_WINDOW]
            if begin:
                (reply,) = yield [_pending_of(self.key, group.name, _after(group.pending[begin - 1].id), window)]
            wanted = [(str(p.id), p.consumer or b"", p.delivery_count) for p in window]
            there = [(row[0].decode(), row[1], row[3]) for row in reply]
            is_last = begin + _PENDING_WINDOW >= len(group.pending)
            if wanted != (there if is_last else there[: len(wanted)]):
                self.lines.append(f"group {shown(group.name)}: its pending entries differ{_first_pending(wanted, there)}")
                break


def _facts(flat: list[Any]) -> dict[str, Any]:
    """What a server says of a thing as names and values in turn."""
    return {name.decode(): value for name, value in zip(flat[::2], flat[1::2], strict=True)}


def _pending_of(key: bytes, group: bytes, start: bytes, window: Sequence[Any]) -> bytes:
    """One more shows whether there are more."""
    return command(b"XPENDING", key, group, start, b"+", b"%d" % (len(window) + 1))


def _after(entry_id: StreamId) -> bytes:
    """The id that follows."""
    if entry_id.seq == (1 << 64) - 1:
        return b"%d-0" % (entry_id.ms + 1)
    return b"%d-%d" % (entry_id.ms, entry_id.seq + 1)


def _first_pending(wanted: list[Any], there: list[Any]) -> str:
    only = next((row for row in wanted if row not in there), None)
    return f", such as {only[0]}" if only is not None else f": {there[len(wanted)][0]} is new" if len(there) > len(wanted) else ""


def _shown_parts(parts: list[bytes]) -> str:
    return " ".join(shown(part) for part in parts[:6]) + (" ..." if len(parts) > 6 else "")


def shown(data: bytes | None) -> str:
    """A name or value in words: of a long one its beginning and its length."""
    """A name or value in words: long ones by their beginning and length."""
    if data is None:
        return "none"
    return repr(data) if len(data) <= _SHOWN_BYTES else f"{data[:_SHOWN_BYTES]!r}... ({len(data):,} bytes)"

"""Keys of two servers compared a page at a time: names of the one are listed, both are asked for them, and what differs is told.

The quick way sends one page to both and compares the bytes that come. What it cannot do, because a connection broke or a cluster is
changing, the patient way does: it follows keys to other nodes and tries again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any, BinaryIO, Final, NamedTuple, cast

from rdbkit.errors import CorruptError, LimitError, RdbError, TargetError
from rdbkit.format.constants import EOF, REDIS
from rdbkit.format.record import Record
from rdbkit.format.replies import Incoming, Refusal, refusal
from rdbkit.format.slots import key_slot
from rdbkit.live.compare import Comparer, Outcome, shown
from rdbkit.live.connection import Address, Connection, Lost, Refused
from rdbkit.live.lanes import slot_flags
from rdbkit.live.pace import batch_at
from rdbkit.live.server import WAITS, Server
from rdbkit.live.value_reader import Changed, FileOfPieces, Gone, Unreadable, ValueReader
from rdbkit.model import Header
from rdbkit.operations.diff import value_digest
from rdbkit.passes.compare_dumps import (
    FOOTER,
    OTHER_TYPE,
    SAME,
    UNDECIDED,
    Comparison,
    PlainReplies,
    Sized,
    Unlike,
    questions,
)
from rdbkit.passes.pages import Page, ScanReply, page_of
from rdbkit.resp import bulk, command
from rdbkit.snapshot.reader import Limits, open_snapshot
from rdbkit.storage.rate_limiter import RateLimiter

__all__ = ["READ_HEADER", "Found", "Stamp", "TwoServers"]

_DUMP: Final = b"*2\r\n$4\r\nDUMP\r\n"
_PEXPIRETIME: Final = b"*2\r\n$11\r\nPEXPIRETIME\r\n"
_PTTL: Final = b"*2\r\n$4\r\nPTTL\r\n"
_MEMORY: Final = b"*3\r\n$6\r\nMEMORY\r\n$5\r\nUSAGE\r\n"
#: What gives the length of a value of each type.
_LENGTHS: Final = {
    b"string": b"STRLEN", b"list": b"LLEN", b"set": b"SCARD", b"zset": b"ZCARD", b"hash": b"HLEN", b"stream": b"XLEN",
}  # fmt: skip
#: Of what is read by commands: a version that holds all that they tell.
READ_HEADER: Final = Header(REDIS, 12)
#: Bytes that the values of keys asked for together take on the source.
_PAGE_BYTES: Final = 8 << 20
_ANY: Final = 1 << 62
#: Keys asked for together where the server does not tell how large they are.
_UNSIZED: Final = 100
#: Errors of a server or cluster that is changing: to ask again helps.
_SHOWN: Final = 5  # elements of a key
_PASSING: Final = ("MOVED", "ASK", "TRYAGAIN", "CLUSTERDOWN", "MASTERDOWN", "LOADING")
#: So often the nodes of a cluster that is changing are listed anew.
_MOST_LISTINGS: Final = 20


class Found(NamedTuple):
    """A key that was not simply the same on both servers.

    Attributes:
        name: of the key.
        unlike: what both answered; None where its value is too large to be asked for at once.
        shape: types and lengths, where nothing else was asked for.
    """

    name: bytes
    unlike: Unlike | None
    shape: tuple[Shape, Shape] | None = None


class Shape(NamedTuple):
    """What is compared of a value where its content is not: its type, None for no such key, and its length."""

    type: str | None
    length: int | None


class Stamp(NamedTuple):
    """What the source had of a key at one look: a hash of its value, and when it expires."""

    value: int
    expire_ms: int

    def is_near(self, other: Stamp, tolerance_ms: int) -> bool:
        """Whether nothing has changed since."""
        near = self.expire_ms == other.expire_ms or (
            self.expire_ms >= 0 and other.expire_ms >= 0 and abs(self.expire_ms - other.expire_ms) <= tolerance_ms
        )
        return near and self.value == other.value


class TwoServers:
    """Asks both servers for pages of keys.

    Args:
        source, target: the servers.
        tolerance_ms: so much may expiries be apart.
        big: values that take more bytes are not asked for at once; 0 for all at once.
        batch: keys of a page.
        rate: keys a second at most; None for no limit.
        database: the target's database for one of the source.
        quick: compare types, lengths and expiries, but no values.

    Attributes:
        comparer: asks the target for single keys.
        complete: whether all of a cluster's slots were listed by a node that had them all the time.
    """

    def __init__(
        self,
        source: Server,
        target: Server,
        tolerance_ms: int,
        big: int,
        batch: int,
        rate: float | None,
        database: Callable[[int], int],
        quick: bool = False,
    ) -> None:
        self.source = source
        self.target = target
        self.tolerance_ms = tolerance_ms
        self.big = big
        self.batch = batch_at(rate, batch)
        self.database = database
        self.quick = quick
        self.comparer = Comparer(target, tolerance_ms, rate)
        self.rate_limiter: RateLimiter = self.comparer.rate_limiter
        self.comparison = Comparison(Limits().string_bytes)
        self.complete = True
        self._connections: dict[tuple[int, Address], Connection] = {}
        self._heads = [[_DUMP, _PEXPIRETIME if "PEXPIRETIME" in server.features else _PTTL] for server in (source, target)]

    def close(self) -> None:
        """Close the connections that were opened here."""
        for connection in self._connections.values():
            connection.close()

    # -- names

    def listed(self, db: int) -> Iterator[tuple[Page, Address]]:
        """Pages of the names of the source's keys, and the node that has them.

        Raises: TargetError where SCAN is not allowed, the source cannot be reached for long, or has restarted meanwhile, and its
            cursor means nothing then.
        """
        yield from self.listed_by(self.source, db)

    def listed_by(self, server: Server, db: int) -> Iterator[tuple[Page, Address]]:
        """The same of either server."""
        if not server.slots():
            (address,) = server.masters()
            for page in self._lane(server, address, db):
                yield page, address
            return
        left = {slot for slot, owner in enumerate(server.slots()) if owner is not None}
        for attempt in range(_MOST_LISTINGS):
            owners = server.slots()
            for address in dict.fromkeys(owner for slot in sorted(left) if (owner := owners[slot]) is not None):
                mine = {slot for slot in left if server.slots()[slot] == address}
                flags = slot_flags(mine)
                try:
                    for page in self._lane(server, address, db):
                        if attempt:
                            page = page.in_slots(flags)
                        if page.count:
                            yield page, address
                except _Restarted:
                    mine.clear()
                with suppress(Lost):
                    server.read_slots()
                left -= {slot for slot in mine if server.slots()[slot] == address}
            if not left:
                return
            time.sleep(WAITS[min(attempt, len(WAITS) - 1)])
        self.complete = False

    def _lane(self, server: Server, address: Address, db: int) -> Iterator[Page]:
        """The pages of one node; the next is asked for before the last is used.

        Raises: _Restarted for a node of a cluster that has restarted or cannot be reached; TargetError.
        """
        cursor = b"0"
        process: bytes | None = None
        waits = iter(WAITS)
        connection: Connection | None = None
        asked = False
        try:
            while True:
                try:
                    if connection is None:
                        connection = server.dial(address, db)
                        asked = False
                        known, process = process, _process(connection)
                        if cursor != b"0" and (known is None or known != process):
                            raise _Restarted
                    if not asked:
                        connection.renew_login()
                        connection.send(command(b"SCAN", cursor, b"COUNT", b"%d" % self.batch))
                    asked = False
                    reply = ScanReply()
                    _receive(connection, reply)
                    if isinstance(reply.failure, Refusal) and reply.failure.code in _PASSING:
                        raise Lost(str(reply.failure), "closed")
                    if isinstance(reply.failure, Refusal):
                        raise TargetError(f"its keys cannot be listed: {reply.failure}", source=str(server.url), db=db)
                    cursor, page = reply.cursor, reply.page
                    waits = iter(WAITS)
                    if cursor != b"0":
                        connection.renew_login()
                        connection.send(command(b"SCAN", cursor, b"COUNT", b"%d" % self.batch))
                        asked = True
                except Refused as e:
                    raise TargetError(f"database {db} cannot be read: {e}", source=str(server.url), db=db) from None
                except (Lost, _Restarted, CorruptError) as e:
                    if connection is not None:
                        connection.close()
                        connection = None
                    if isinstance(e, _Restarted) and server.slots():
                        raise
                    if isinstance(e, _Restarted):
                        raise TargetError(
                            "it restarted while its keys were listed; run this again", source=str(server.url)
                        ) from None
                    wait = next(waits, None)
                    if wait is None and server.slots():
                        raise _Restarted from None
                    if wait is None:
                        raise TargetError(f"connection lost: {e}; run this again", source=str(server.url)) from None
                    time.sleep(wait)
                    continue
                if page.count:
                    yield page
                if cursor == b"0":
                    return
        finally:
            if connection is not None:
                connection.close()

    # -- comparing

    def compare(self, db: int, page: Page, address: Address | None = None, everything: bool = False) -> list[Found]:
        """The keys of a page that are not the same on both servers.

        Args:
            db: the source's.
            address: the source's node that has them all; None where that is not known.
            everything: also those that are the same.

        Raises: TargetError where a server cannot be reached for long.
        """
        self.rate_limiter.take(page.count)
        found: list[Found] = []
        if self.quick:
            found = self._shapes(db, page.keys(), everything)
            self.comparer.after = self.target.now_ms()
            return found
        for node, part in self.by_node(page, address):
            pieces, large = self._sized(db, node, part)
            found += [Found(name, None) for name in large]
            for piece in pieces:
                found += self._at_once(db, node, piece, everything)
        self.comparer.after = self.target.now_ms()
        return found

    def by_node(self, page: Page, address: Address | None) -> Iterator[tuple[Address, Page]]:
        """The page by the source's nodes; of each part the names that one node of the target has follow each other."""
        owners, their_owners = self.source.slots(), self.target.slots()
        if (address is not None or not owners) and not their_owners:
            yield address or self.source.masters()[0], page
            return
        parts: dict[Address, list[tuple[Any, bytes]]] = {}
        keys = page.keys()
        for name in keys:
            slot = key_slot(name)
            node = address or (owners[slot] if owners else None) or self.source.masters()[0]
            parts.setdefault(node, []).append((str(their_owners[slot]) if their_owners else "", name))
        for node, names in parts.items():
            names.sort(key=lambda each: each[0])
            yield node, page_of([name for _, name in names])

    def _sized(self, db: int, node: Address, page: Page) -> tuple[list[Page], list[bytes]]:
        """The page in pieces whose values fit into memory together, and the names of those that are too large for one."""
        if not self.big:
            return _pieces(page, self.batch), []
        sized = Sized(page, self.big, _PAGE_BYTES)
        try:
            connection = self._connection(0, node, db)
            connection.send(questions(page, [_MEMORY]))
            _receive(connection, sized)
        except (Lost, Refused, CorruptError):
            self._drop(0, node)
            return _pieces(page, _UNSIZED), []
        if isinstance(sized.refused, Refusal):
            if sized.refused.code not in _PASSING:  # the server does not tell
                self.big = 0
                self.batch = min(self.batch, _UNSIZED)
            return _pieces(page, _UNSIZED), []
        return sized.pieces, sized.large

    def _at_once(self, db: int, node: Address, page: Page, everything: bool) -> list[Found]:
        """Ask both at the same time."""
        slack = self.tolerance_ms
        runs: list[tuple[Address, Page]] = []
        try:
            runs = self._runs(page)
            one = self._connection(0, node, db)
            others = [self._connection(1, address, self.database(db)) for address, _ in runs]
            bases = self._base(self.source, 0), self._base(self.target, 1)
            begun = time.monotonic()
            one.send(questions(page, self._heads[0]))
            for connection, (_, part) in zip(others, runs, strict=True):
                connection.send(questions(part, self._heads[1]))
            most = max(self.big, _PAGE_BYTES) if self.big else _ANY
            first = _answers(one, 2 * page.count, _ANY if page.count == 1 else min(2 * most, _ANY))
            second = b"".join(
                _answers(connection, 2 * part.count, most) for connection, (_, part) in zip(others, runs, strict=True)
            )
            if bases != (0, 0):
                slack += int((time.monotonic() - begun) * 1000) + 1
            unlike = self.comparison.compare(first, second, page.count, bases, slack, everything)
        except (Lost, Refused, CorruptError, LimitError) as e:
            self._drop(0, node)
            for address, _ in runs:
                self._drop(1, address)
            if isinstance(e, LimitError):
                return self._without_large(db, node, page, everything)
            return self._patient(db, page.keys(), everything)
        if not unlike:
            return []
        names = page.keys()
        again = [names[each.at] for each in unlike if any(_is_passing(line) for line in each.refusals)]
        if again:
            for server in (self.source, self.target):
                with suppress(Lost):
                    server.read_slots()
        found = [Found(names[each.at], each) for each in unlike if not any(_is_passing(line) for line in each.refusals)]
        return [*found, *self._patient(db, again, everything)] if again else found

    def _without_large(self, db: int, node: Address, page: Page, everything: bool) -> list[Found]:
        """The same where the target has values that are too large to be asked for at once."""
        names = page.keys()
        asked = [(name, [_MEMORY + bulk(name)]) for name in names]
        sizes = [replies[0] for replies in self.target.ask(self.database(db), asked)]
        large = {
            name
            for name, size in zip(names, sizes, strict=True)
            if isinstance(size, Refusal) or (isinstance(size, int) and size > self.big)
        }
        small = page_of([name for name in names if name not in large])
        found = [Found(name, None) for name in names if name in large or not large]
        return [*found, *self._at_once(db, node, small, everything)] if large and small.count else found

    def _patient(self, db: int, names: Sequence[bytes], everything: bool = False) -> list[Found]:
        """Ask for keys one server after the other, and again where that helps."""
        found: list[Found] = []
        for begin in range(0, len(names), _UNSIZED):
            some = names[begin : begin + _UNSIZED]
            answers = []
            slack = self.tolerance_ms
            bases = self._base(self.source, 0), self._base(self.target, 1)
            started = time.monotonic()
            for number, server in enumerate((self.source, self.target)):
                requests = [(name, [head + bulk(name) for head in self._heads[number]]) for name in some]
                replies = server.ask(db if number == 0 else self.database(db), requests)
                answers.append(b"".join(_encoded(reply) for pair in replies for reply in pair))
            if bases != (0, 0):
                slack += int((time.monotonic() - started) * 1000) + 1
            unlike = self.comparison.compare(answers[0], answers[1], len(some), bases, slack, everything)
            found += [Found(some[each.at], each) for each in unlike]
        return found

    def _shapes(self, db: int, names: list[bytes], everything: bool) -> list[Found]:
        """Ask for types, expiries and lengths."""
        slack = self.tolerance_ms
        started = time.monotonic()
        looks = []
        for number, server in enumerate((self.source, self.target)):
            in_db = db if number == 0 else self.database(db)
            base = self._base(server, number)
            expiry = self._heads[number][1]
            replies = server.ask(in_db, [(name, [command(b"TYPE", name), expiry + bulk(name)]) for name in names])
            kinds = [b"none" if isinstance(kind, Refusal) else kind for kind, _ in replies]
            sized = [(name, [command(_LENGTHS[kind], name)]) for name, kind in zip(names, kinds, strict=True) if kind in _LENGTHS]
            lengths = iter(server.ask(in_db, sized))
            looks.append(
                [
                    (
                        Shape(
                            None if kind == b"none" else kind.decode("utf-8", "replace"),
                            _number(next(lengths)[0]) if kind in _LENGTHS else None,
                        ),
                        at + base if isinstance(at, int) and at >= 0 else at if isinstance(at, int) else -1,
                        next((str(each).encode() for each in answer if isinstance(each, Refusal)), b""),
                    )
                    for kind, answer in zip(kinds, replies, strict=True)
                    for at in answer[1:]
                ]
            )
            if base:
                slack += int((time.monotonic() - started) * 1000) + 1
        found = []
        for i, (one, other) in enumerate(zip(*looks, strict=True)):
            otherwise = one[1] != other[1] and (one[1] < 0 or other[1] < 0 or abs(one[1] - other[1]) > slack)
            if one[0] != other[0] or otherwise or one[2] or other[2] or everything:
                unlike = Unlike(i, (None, None), (one[1], other[1]), (one[2], other[2]), UNDECIDED, otherwise)
                found.append(Found(names[i], unlike, (one[0], other[0])))
        return found

    def _base(self, server: Server, number: int) -> int:
        """What is to be added to the expiries that a server tells."""
        return 0 if self._heads[number][1] is _PEXPIRETIME else server.now_ms()

    def _runs(self, page: Page) -> list[tuple[Address, Page]]:
        """The target's nodes, and the part of the page that each has."""
        owners = self.target.slots()
        if not owners:
            return [(self.target.masters()[0], page)]
        runs: list[tuple[Address, list[bytes]]] = []
        keys = page.keys()
        for name in keys:
            address = owners[key_slot(name)] or self.target.masters()[0]
            if not runs or runs[-1][0] != address:
                runs.append((address, []))
            runs[-1][1].append(name)
        if len({address for address, _ in runs}) < len(runs):
            raise Lost("the target's nodes have changed meanwhile", "closed")
        return [(address, page_of(names)) for address, names in runs]

    def _connection(self, number: int, address: Address, db: int) -> Connection:
        """An open connection to a node of the source (0) or target (1), in this database. Raises: Lost, Refused, TargetError."""
        connection = self._connections.get((number, address))
        if connection is None or not connection.is_open:
            connection = self._connections[number, address] = (self.source, self.target)[number].dial(address, db)
        connection.select(db)
        connection.renew_login()
        return connection

    def _drop(self, number: int, address: Address) -> None:
        """Close a connection with replies still to come."""
        connection = self._connections.pop((number, address), None)
        if connection is not None:
            connection.close()

    # -- single keys

    def outcome(self, db: int, found: Found, explains: bool) -> tuple[Outcome, Stamp]:
        """What became of a key, and what the source had of it.

        Besides those of `rdbkit.live.compare` an outcome is "gone" (on neither server), or "extra" (on the target alone).

        Args:
            db: the source's.
            explains: say which elements differ. Without that, a difference may turn out to be none.

        Raises: TargetError where a server cannot be reached for long.
        """
        unlike = found.unlike
        if unlike is None:
            return self._by_elements(db, found.name)
        if found.shape is not None:
            return self._outcome_of_shapes(unlike, found.shape)
        value, other = unlike.values
        stamp = Stamp(0 if value is None else hash(value[:-FOOTER]), unlike.expires[0])
        if unlike.refusals[0]:
            if value is None and refusal(unlike.refusals[0]).code != "WRONGTYPE":
                return self._by_elements(db, found.name)
            return _refused(unlike.refusals[0], "the source"), stamp
        if unlike.refusals[1]:
            if value is None:
                return _refused(unlike.refusals[1], "the target"), stamp
        elif (absent := self._outcome_of_absent(value is not None, other is not None, unlike)) is not None:
            return absent, stamp
        elif self._has_same_value(found):
            if unlike.expires_otherwise and not all(self.comparer.is_past(ms) for ms in unlike.expires if ms >= 0):
                return Outcome("expire", None, _time(unlike.expires[1])), stamp
            return Outcome("expired" if unlike.expires_otherwise and min(unlike.expires) >= 0 else "equal"), stamp
        elif not explains:
            return Outcome("type" if unlike.verdict == OTHER_TYPE else "value"), stamp
        assert value is not None
        record = self._record(db, found.name, value, unlike.expires[0])
        if record is None:
            return Outcome("not-compared"), stamp
        outcome = self.comparer.compare(self.database(db), [record])[0]
        if outcome.what == "value" and other is not None and len(outcome.details) < _SHOWN:
            outcome.details += self._only_there(record, self._record(db, found.name, other, -1), _SHOWN - len(outcome.details))
        return outcome, stamp

    def _only_there(self, record: Record, other: Record | None, most: int) -> list[str]:
        """The first elements that the target alone has, in words; the comparison with its commands shows only how many."""
        if other is None or other.type != record.type or record.type not in ("set", "zset", "hash"):
            return []
        try:
            known = {_name(element) for batch in record.elements() for element in batch}
            names = (_name(element) for batch in other.elements() for element in batch)
            new = list(islice((name for name in names if name not in known), most))
        except RdbError:
            return []
        return [f"member: none and {shown(name)}" if record.type == "set" else f"{shown(name)}: extra" for name in new]

    def _outcome_of_absent(self, is_here: bool, is_there: bool, unlike: Unlike) -> Outcome | None:
        """The outcome for a key that one of the servers does not have; None where both have it."""
        if is_here and is_there:
            return None
        if is_here or is_there:
            if self.comparer.is_past(_time(unlike.expires[0 if is_here else 1])):
                return Outcome("expired")
            return Outcome("missing" if is_here else "extra", None, _time(unlike.expires[1]))
        return Outcome("gone")

    def _outcome_of_shapes(self, unlike: Unlike, shapes: tuple[Shape, Shape]) -> tuple[Outcome, Stamp]:
        one, other = shapes
        stamp = Stamp(hash(one), unlike.expires[0])
        for line, whose in zip(unlike.refusals, ("the source", "the target"), strict=True):
            if line:
                return _refused(line, whose), stamp
        absent = self._outcome_of_absent(one.type is not None, other.type is not None, unlike)
        if absent is not None:
            return absent, stamp
        if one.type != other.type:
            return Outcome("type", other.type), stamp
        if one.length != other.length:
            what = "bytes" if one.type == "string" else "entries" if one.type == "stream" else "elements"
            return Outcome("value", details=[f"{one.length or 0:,} and {other.length or 0:,} {what}"]), stamp
        return Outcome("expire" if unlike.expires_otherwise else "equal", None, _time(unlike.expires[1])), stamp

    def _by_elements(self, db: int, name: bytes) -> tuple[Outcome, Stamp]:
        """The outcome for a key whose value is read by commands, in pieces."""
        reader = ValueReader(name, READ_HEADER, self.source.features, digests=True)
        outcome = Outcome("gone")
        try:
            file = FileOfPieces(_snapshot_of(self.source, db, reader))
            with open_snapshot(cast(BinaryIO, file), verify_checksum=False) as snapshot:
                for record in snapshot:
                    (outcome,) = self.comparer.compare(self.database(db), [record])
        except Changed:
            outcome = Outcome("changing")
        except Gone:
            reply: object
            ((reply,),) = self.target.ask(self.database(db), [(name, [command(b"EXISTS", name)])])
            return Outcome("extra" if reply == 1 else "gone"), Stamp(0, -2)
        except Unreadable:
            outcome = Outcome("not-compared")
        except Refused as e:
            outcome = Outcome("refused", details=[f"the source: {e}"])
        except RdbError as e:
            if isinstance(e, TargetError):
                raise
            outcome = Outcome("not-compared", details=[e.message])
        return outcome, Stamp(hash(reader.digest), -1 if reader.expire_ms is None else reader.expire_ms)

    def _record(self, db: int, name: bytes, payload: bytes, expire_ms: int) -> Record | None:
        """The record of a payload; None for a type that is not known."""
        file_types = self.comparison.coding(payload).file_types
        if payload[0] not in file_types.types:
            return None
        value = payload[1:-FOOTER]
        return Record(db, 0, len(value), _time(expire_ms), None, None, file_types, payload[0], value, 0, 0, len(value), name)

    def _has_same_value(self, found: Found) -> bool:
        """Whether both servers, which have this key, have the same value."""
        unlike = found.unlike
        assert unlike is not None
        if unlike.verdict != UNDECIDED:
            return unlike.verdict == SAME
        records = [None if value is None else self._record(0, found.name, value, -1) for value in unlike.values]
        one, other = records
        if one is None or other is None or one.type != other.type:
            return False
        now = self.comparer.after
        try:
            return value_digest(one, now, True)[0] == value_digest(other, now, True)[0]
        except RdbError:
            return False

    def types_of(self, found: Found) -> tuple[str | None, str | None]:
        """The types of a key on both servers, as far as they are known; None where it is not there."""
        if found.shape is not None:
            return found.shape[0].type, found.shape[1].type
        if found.unlike is None:
            return None, None
        one, other = (None if value is None else self.comparison.coding(value).names[value[0]] for value in found.unlike.values)
        return one, other


def _snapshot_of(server: Server, db: int, reader: ValueReader) -> Iterator[bytes]:
    """The bytes of a snapshot that has one key of a server. Raises: as `ValueReader.steps`; TargetError."""
    yield str(reader.header).encode()
    yield from reader.pieces(lambda commands: server.ask(db, [(reader.key, commands)])[0])
    yield bytes([EOF]) + bytes(8)  # no checksum


class _Restarted(Exception):
    """The cursor of a node means nothing any more."""


def _process(connection: Connection) -> bytes | None:
    """What tells this process of the node from all others; None where it does not tell."""
    (reply,) = connection.ask(command(b"INFO", b"server"))
    if not isinstance(reply, bytes):
        return None
    return next((line for line in reply.splitlines() if line.startswith(b"run_id:")), None)


def _receive(connection: Connection, replies: Incoming) -> None:
    """Read replies to what was asked. Raises: Lost, CorruptError."""
    while not replies.done:
        replies.feed(connection.receive())


def _answers(connection: Connection, count: int, most: int) -> bytes:
    """So many replies. Raises: Lost, CorruptError; LimitError where one has more bytes than `most`."""
    replies = PlainReplies(count, most)
    _receive(connection, replies)
    return b"".join(replies.taken)


def _pieces(page: Page, most: int) -> list[Page]:
    """The page in pieces of so many names."""
    if page.count <= most:
        return [page]
    names = page.keys()
    return [page_of(names[at : at + most]) for at in range(0, len(names), most)]


def _encoded(reply: Any) -> bytes:
    """A reply as the server sent it."""
    if isinstance(reply, Refusal):
        return b"-%b %b\r\n" % (reply.code.encode(), reply.text.encode())
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    return b"$-1\r\n" if reply is None else bulk(reply)


def _is_passing(line: bytes) -> bool:
    return bool(line) and refusal(line).code in _PASSING


def _refused(line: bytes, whose: str) -> Outcome:
    """The outcome for a key about which a server says this."""
    return Outcome("refused", details=[f"{whose}: {refusal(line)}"])


def _name(element: Any) -> bytes:
    """What tells an element of a set, sorted set or hash from the others."""
    return element if isinstance(element, bytes) else bytes(element[0])


def _time(ms: int) -> int | None:
    """An expiry as outcomes have it."""
    return None if ms < 0 else ms


def _number(reply: Any) -> int | None:
    return reply if isinstance(reply, int) else None

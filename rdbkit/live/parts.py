"""Values that are written by commands: each into a temporary key, which gets its name when it is whole.

So a value appears under its name at once or not at all, and what has that name already is overwritten only where that was asked
for: the server decides it, in RENAMENX. A temporary key has a name of ours, with a hash tag by which it lies in the slot of what it
becomes. What a run that was killed has left of them is deleted by the next one, which finds the names in the state; nothing else is
ever deleted. A large one expires an hour after it was begun besides, until it gets its name.
"""

from __future__ import annotations

import re
import time
from binascii import crc_hqx
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from itertools import count, islice
from typing import Any, Final, NamedTuple

from rdbkit.errors import TargetError
from rdbkit.format.record import Record
from rdbkit.format.replies import NOTHING, Refusal, Replies
from rdbkit.format.slots import SLOTS, key_slot
from rdbkit.live.compare import Comparer
from rdbkit.live.connection import Address, Connection, Lost, Refused
from rdbkit.live.copy_state import CopyState, Part
from rdbkit.live.refusals import difference_of
from rdbkit.live.restoring import Patience, is_passing
from rdbkit.live.server import PATIENT_WAITS, Server
from rdbkit.operations.commands import RespWriter, long_string
from rdbkit.passes.restores import commands_in
from rdbkit.policy.ledger import Ledger
from rdbkit.policy.rules import FAIL, Rules
from rdbkit.resp import command, pieces
from rdbkit.values import StreamEntry

__all__ = ["ATTEMPTS", "Connections", "Interrupted", "PartNames", "PartWriter", "Written", "delete_left", "passes", "slot_tag"]

_PREFIX: Final = "rdbkit:part:"
_OURS: Final = re.compile(rb"\{[0-9A-Za-z]{1,3}\}rdbkit:part:[0-9a-f]{1,32}:[0-9]+")
_LETTERS: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
#: What passes besides: replicas or a disk that are not there for now.
_ALSO_PASSING: Final = ("MISCONF", "NOREPLICAS")
#: A temporary key lives so long at most, in milliseconds.
_LIFE_MS: Final = 3_600_000
#: Seconds after which it is asked again to live so long.
_RENEW_S: Final = 300.0
#: Fields that expire within this time may be gone when the fields are counted.
_NEAR_MS: Final = 3_600_000
_LENGTHS: Final = {
    "string": b"STRLEN", "list": b"LLEN", "set": b"SCARD", "zset": b"ZCARD", "hash": b"HLEN", "stream": b"XLEN",
}  # fmt: skip
_TOLERANCE_MS: Final = 1000
_EVICTED: Final = Refusal("EVICTED", "the parts that were written are gone: the target evicts keys, or another client deletes them")
#: How often a value is tried again that changes while it is read, or goes while it is written.
ATTEMPTS: Final = 3
#: How often a connection may break right after it was opened for a value alone.
_MOST_LOSSES: Final = 5
#: More elements than any value has.
_ANY: Final = 1 << 62


class Interrupted(Exception):
    """A value could not be written for now; to begin again later helps. It never leaves `live`.

    Attributes:
        why: the server's words, or ours.
    """

    def __init__(self, why: Refusal | str) -> None:
        super().__init__(why.text if isinstance(why, Refusal) and why.code == "EVICTED" else str(why))
        self.why = why if isinstance(why, Refusal) else Refusal("LOST", why)


class _Refused(Exception):
    """The target refuses to have this value."""


@cache
def _tags() -> tuple[bytes, ...]:
    """By slot, the first of the shortest tags that lie in it."""
    tags: list[bytes | None] = [None] * SLOTS
    left = SLOTS
    level = [(b"", 0)]
    while left:
        longer = []
        for text, crc in level:
            for letter in _LETTERS:
                tag = text + bytes([letter])
                found = crc_hqx(tag[-1:], crc)
                longer.append((tag, found))
                if tags[found % SLOTS] is None:
                    tags[found % SLOTS] = tag
                    left -= 1
        level = longer
    return tuple(tag for tag in tags if tag is not None)


def slot_tag(slot: int) -> bytes:
    """A short hash tag of a slot.

    >>> from rdbkit.format.slots import key_slot
    >>> key_slot(b"{%b}anything" % slot_tag(12182)) == 12182 == key_slot(b"foo")
    True
    """
    return _tags()[slot]


class PartNames:
    """Names of the temporary keys of one run. Several threads may ask for them.

    Args:
        run: what tells this run from any other, up to 32 hexadecimal digits.
        state: where they are noted before they are made; None for nowhere.
    """

    def __init__(self, run: str, state: CopyState | None = None) -> None:
        self._run = run
        self._state = state
        self._number = count()

    def begin(self, db: int, keys: Sequence[bytes]) -> list[bytes]:
        """A name for each of these keys of the target."""
        names = [b"{%b}%b" % (slot_tag(key_slot(key)), f"{_PREFIX}{self._run}:{next(self._number)}".encode()) for key in keys]
        if self._state is not None:
            self._state.add_parts([Part(name, db, key) for name, key in zip(names, keys, strict=True)])
        return names

    def end(self, names: Sequence[bytes]) -> None:
        """They are gone, or have got the names of their keys."""
        if self._state is not None:
            self._state.remove_parts(names)


def delete_left(target: Server, state: CopyState) -> int:
    """Delete the temporary keys that an earlier run has left; returns how many there were.

    Raises: TargetError where the target cannot be reached for some time.
    """
    parts = [part for part in state.parts() if _OURS.fullmatch(part.name)]
    by_db: dict[int, list[bytes]] = {}
    for part in parts:
        by_db.setdefault(part.db, []).append(part.name)
    found = 0
    for db, names in by_db.items():
        replies = target.ask(db, [(name, [command(b"DEL", name)]) for name in names])
        gone = [name for name, (reply,) in zip(names, replies, strict=True) if isinstance(reply, int)]
        found += sum(reply for (reply,) in replies if isinstance(reply, int))
        state.remove_parts(gone)
    return found


class _CountingWriter(RespWriter):
    """Commands of records, and how many elements each should have then.

    Attributes:
        least, most: of the last record; fields that expire soon may be gone.
    """

    def begin(self) -> None:
        self.least = self.most = 0
        self._near = time.time_ns() // 1_000_000 + _NEAR_MS

    def _parts(self, record: Record) -> Iterator[list[Any]]:
        for found in super()._parts(record):
            kind = record.type
            n = sum(isinstance(item, StreamEntry) for item in found) if kind == "stream" else len(found)
            self.most += n
            self.least += n
            if kind == "hash":
                self.least -= sum(expire_ms is not None and expire_ms < self._near for _, _, expire_ms in found)
            yield found


class Connections:
    """Connections of one's own to the nodes of a server, each opened when it is first wanted, and again where it broke."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._connections: dict[Address, Connection] = {}

    def to(self, key: bytes, db: int) -> Connection:
        """The connection to the node that has a key, in this database. Raises: Lost, Interrupted, Refused."""
        address = self._server.owner(key)
        if address is None:
            raise Interrupted(f"no node has slot {key_slot(key)}")
        connection = self._connections.get(address)
        if connection is None or not connection.is_open:
            connection = self._connections[address] = self._server.dial(address, db)
        connection.select(db)
        return connection

    def close(self) -> None:
        """Close them."""
        for connection in self._connections.values():
            connection.close()
        self._connections.clear()


class PartWriter:
    """Writes records to a target by commands. One a thread: it has connections of its own.

    Args:
        target: where they go.
        rules: of the conversion that has made the records: what its target has no command for is lost by the same policies.
        ledger: where losses go.
        names: of the temporary keys.

    Raises: ValueError where it is not known which commands the target has.

    Attributes:
        ledger: where losses go.
        trouble: why the last record of `write` was "refused" or "lost", in words.
        patience: how long what passes is waited for.
    """

    def __init__(self, target: Server, rules: Rules, ledger: Ledger, names: PartNames) -> None:
        self.target = target
        self.trouble = ""
        self._names = names
        self.ledger = ledger
        self._fails = rules.policies.chosen("loss") == FAIL
        self._make: Callable[[], _CountingWriter] = lambda: _CountingWriter(rules.target, "drop", now_ms=rules.now_ms)
        self._writer = self._make()
        self._connections = Connections(target)
        self._comparer = Comparer(target, _TOLERANCE_MS)
        self.patience = Patience(target)

    def close(self) -> None:
        """Close all connections."""
        self._connections.close()

    # -- many small records

    def write_all(self, db: int, records: Sequence[Record], *, over: bool = False) -> list[Written]:
        """Write records whose values are at hand, many together.

        Args:
            db: of the target, which all of them are in.
            over: what has their names already gives way.

        Returns: what became of each: "written"; "equal", "exists": the target has the same or another key of this name, which was
            left alone; "gone": it has expired; "refused"; "lost".

        Raises: TargetError where the target cannot be reached, or has no memory left, for long.
        """
        items = [_Item(record) for record in records]
        left = items
        begun = time.monotonic()
        waits = iter(PATIENT_WAITS)
        while True:
            existing = self._round(db, left, over)
            outcomes = self._comparer.compare(db, [item.record for item in existing]) if existing else []
            for item, outcome in zip(existing, outcomes, strict=True):
                difference = difference_of(outcome)
                # of one whose answer was lost, the first attempt may have written it
                item.written = Written("exists" if difference else "written" if item.is_repeated else "equal", difference)
            again = [item for item in left if item.written is None]
            if not again:
                return [item.written for item in items if item.written is not None]
            if len(again) < len(left):
                begun, waits = time.monotonic(), iter(PATIENT_WAITS)
            self.patience.wait_for([item.why for item in again], time.monotonic() - begun)
            time.sleep(next(waits, PATIENT_WAITS[-1]))
            with suppress(Lost):  # what is known of the nodes may still hold
                self.target.read_slots()
            left = again

    def _round(self, db: int, items: list[_Item], over: bool) -> list[_Item]:
        """Try to write; returns those that the target has already. What has no outcome then is to be tried again."""
        direct = [item for item in items if item.record.type == "string" and self._is_one_command(item.record)]
        others = [item for item in items if item not in direct] if direct else items
        existing = []
        for item, (reply,) in self._exchange(db, [(item, self._set(item.record, over), 1) for item in direct]):
            if isinstance(reply, Refusal):
                item.refuse(reply)
            elif reply is None:
                existing.append(item)
            else:
                item.written = Written("written", "")
        names = self._names.begin(db, [item.key for item in others])
        for item, name in zip(others, names, strict=True):
            item.part = name
        settled = []
        whole = []
        for item, replies in self._exchange(db, [asked for item in others if (asked := self._commands(item)) is not None]):
            settled.append(item)
            why = next((reply for reply in replies if isinstance(reply, Refusal)), None)
            if why is not None:
                item.refuse(why)
            elif item.counts and not item.least <= replies[-1] <= item.most:
                item.evicted()
            else:
                whole.append(item)
        named = set()
        rename = b"RENAME" if over else b"RENAMENX"
        for item, (reply,) in self._exchange(db, [(item, command(rename, item.part, item.key), 1) for item in whole]):
            if isinstance(reply, Refusal) and reply.text == "no such key":
                if item.may_have_expired(self.target.now_ms()):
                    item.written = Written("gone", "")
                else:
                    item.evicted()
            elif isinstance(reply, Refusal):
                item.refuse(reply)
            elif reply == 0:
                existing.append(item)
            else:
                item.written = Written("written", "")
                named.add(item.part)
        parts = [item for item in settled if item.part not in named]
        deleted = self._exchange(db, [(item, command(b"DEL", item.part), 1) for item in parts], again=False)
        named.update(item.part for item, (reply,) in deleted if not isinstance(reply, Refusal))
        self._names.end(list(named) + [item.part for item in others if item.was_lost])
        return existing

    def _is_one_command(self, record: Record) -> bool:
        return record.expire_ms is None or "set-until" in self._writer.features

    def _set(self, record: Record, over: bool) -> bytes:
        """The command that writes a string under its own name."""
        until = [] if record.expire_ms is None else [b"PXAT", b"%d" % max(record.expire_ms, 1)]
        return command(b"SET", record.key, record.value, *until, *([] if over else [b"NX"]))

    def _commands(self, item: _Item) -> tuple[_Item, bytes, int] | None:
        """The commands that write a record under its temporary name, and how many they are; None where it is lost."""
        writer, record = self._writer, item.record
        writer.begin()
        writer.db = record.db  # which the connection is in
        self.trouble = ""
        record.rename(item.part)
        try:
            text = b"".join(writer.commands(record))
        finally:
            record.rename(item.key)
            self._take_losses(item.key, enters=not item.was_sent)
        if self.trouble or not text:
            item.was_lost = True
            item.written = Written("lost", self.trouble)
            return None
        count = commands_in(text)
        item.was_sent = True
        item.least, item.most = writer.least, writer.most
        # what one command writes is there whole or not at all
        item.counts = count > 1 and record.type in _LENGTHS and record.type != "string"
        if item.counts:
            text += command(_LENGTHS[record.type], item.part)
        return item, text, count + item.counts

    def _exchange(self, db: int, asked: list[tuple[_Item, bytes, int]], again: bool = True) -> list[tuple[_Item, list[Any]]]:
        """The replies to commands about items, each with how many they are; of what has none it is not known what became.

        Raises: TargetError where the target has no such database.
        """
        nodes: dict[int, list[tuple[_Item, bytes, int]]] = {}
        found: list[tuple[_Item, list[Any]]] = []
        for each in asked:
            if (connection := self._connection_for(each[0], db)) is not None:
                nodes.setdefault(id(connection), []).append(each)
        for of_node in nodes.values():
            together = [each for each in of_node if not each[0].is_alone]
            for some in [*([together] if together else []), *([each] for each in of_node if each[0].is_alone)]:
                connection = self._connection_for(some[0][0], db)
                if connection is None:
                    continue
                try:
                    replies = iter(connection.ask_packed(b"".join([text for _, text, _ in some]), sum(n for _, _, n in some)))
                except Lost as e:
                    for item, _, _ in some:
                        item.lost(str(e), again, len(some) == 1)
                    continue
                found += [(item, list(islice(replies, n))) for item, _, n in some]
        return found

    def _connection_for(self, item: _Item, db: int) -> Connection | None:
        """The connection to the node that has the key of an item; None where there is none for now."""
        try:
            return self._connection(item.key, db)
        except (Lost, Interrupted) as e:
            item.why = e.why if isinstance(e, Interrupted) else Refusal("LOST", str(e))
            return None
        except _Refused as e:
            raise TargetError(f"cannot write to it: {e}", source=str(self.target.url), db=db) from None

    # -- one large record

    def write(self, record: Record, is_whole: Callable[[], object], *, over: bool = False) -> str:
        """Write a record of any size, in memory that does not depend on it.

        Args:
            record: its name and database are those of the target.
            is_whole: called when the value has been read to its end and before it gets its name; raises where that must not be.
            over: what has the name already gives way.

        Returns: "written"; "exists": the target has another key or the same of this name; "gone": it has expired; "refused" or
            "lost", of which `trouble` says more; "unknown" where the connection broke before the target said whether it has given
            the name.

        Raises: Interrupted; what `is_whole` raises, and reading the record. Nothing of the value is left on the target then.
        """
        db, key, kind, expire_ms = record.db, record.key, record.type, record.expire_ms
        self.trouble = ""
        (part,) = self._names.begin(db, [key])
        begun = _Begun(self.target, self._names, db, part)
        try:
            connection = self._connection(key, db)
            record.rename(part)
            least, most = self._send(connection, record, key, begun)
            if self.trouble:
                return "lost"
            is_whole()
            begun.keep(is_whole=True)
            (there, length) = self._look(connection, part, kind, expire_ms)
            if not there:
                may_be_gone = kind == "hash" and not least  # all its fields may have expired
                if may_be_gone or (expire_ms is not None and expire_ms <= self.target.now_ms() + _TOLERANCE_MS):
                    return "gone"
                raise Interrupted(_EVICTED)
            if length is None:
                length = most
            if not least <= length <= most:
                raise Interrupted(_EVICTED)
            outcome = self._rename(connection, db, part, key, over)
            begun.has_name = outcome == "written"
            return outcome
        except _Refused as e:
            self.trouble = str(e)
            return "refused"
        except Lost as e:
            self.close()
            raise Interrupted(str(e)) from None
        finally:
            begun.end()

    def _send(self, connection: Connection, record: Record, key: bytes, begun: _Begun) -> tuple[int, int]:
        """Write a record under its temporary name; returns how many elements it should have then, at least and at most."""
        stream = _Stream(connection)
        writer = self._writer
        writer.begin()
        writer.db = record.db  # which the connection is in
        least, most = 0, _ANY
        commands = writer.commands(record)
        if record.type == "string" and record.size is None and record.encoding == "raw":
            most, commands = _string_in_pieces(record)
            least = most
        begun.is_settled = False
        try:
            for piece in commands:
                stream.send(piece)
                begun.keep()
            stream.finish()
            begun.is_settled = True
        except (Interrupted, _Refused, Lost):
            connection.close()  # it has replies to come, and maybe half a command
            raise
        except Exception:  # of reading, which fails between two commands
            with suppress(Interrupted, _Refused, Lost):
                stream.finish()
                begun.is_settled = True
            raise
        finally:
            self._take_losses(key)
        return (least, most) if record.type == "string" else (writer.least, writer.most)

    def _look(self, connection: Connection, part: bytes, kind: str, expire_ms: int | None) -> tuple[int, int | None]:
        """Let a part expire when it should, in place of an hour after it was begun.

        Returns: whether it is there, and how many elements it has; None where its type does not tell.
        """
        expiry = command(b"PERSIST", part) if expire_ms is None else command(b"PEXPIREAT", part, b"%d" % expire_ms)
        commands = [expiry, command(b"EXISTS", part)]
        if kind in _LENGTHS:
            commands.append(command(_LENGTHS[kind], part))
        _, there, *length = self._checked(connection.ask(*commands))
        return there, length[0] if length else None

    def _rename(self, connection: Connection, db: int, part: bytes, key: bytes, over: bool) -> str:
        """Give a part its name."""
        ask = command(b"RENAME" if over else b"RENAMENX", part, key)
        try:
            (reply,) = connection.ask(ask)
        except Lost:
            self.close()
            ((there, reply),) = self.target.ask(db, [(key, [command(b"EXISTS", part), ask])])
            if there == 0:
                return "unknown"
        (reply,) = self._checked([reply])
        return "exists" if reply == 0 and not over else "written"

    def _checked(self, replies: list[Any]) -> list[Any]:
        """Replies without an error. Raises: Interrupted, _Refused."""
        for reply in replies:
            if isinstance(reply, Refusal):
                raise _error(reply)
        return replies

    def _take_losses(self, key: bytes, enters: bool = True) -> None:
        """Enter what the commands lose of a record, under the name of its key."""
        losses = self._writer.losses
        for loss in losses if enters else ():
            self.ledger.add(replace(loss, key=key), self._fails)
        if losses:
            self._writer = self._make()
            if self._fails:
                self.trouble = f"{losses[0].what} cannot be given to {self.target.url} by commands"

    def _connection(self, key: bytes, db: int) -> Connection:
        """The connection to the node that has a key, in this database. Raises: Lost, Interrupted, _Refused."""
        try:
            return self._connections.to(key, db)
        except Refused as e:
            raise _error(e.refusal) from None


class Written(NamedTuple):
    """What became of a record: one of the outcomes that `PartWriter` names, and why, in words."""

    outcome: str
    detail: str


class _Item:
    """A record on its way.

    Attributes:
        key: its name.
        part: the temporary key.
        least, most: how many elements it should have then.
        counts: they are counted.
        written: what became of it; None while it is to be tried again.
        why: why it is.
        was_sent, was_lost: its commands have been made; they would lose what no policy allows.
        is_repeated: it was sent before, and what became of it then is not known.
        is_alone: it is sent alone, since it may be what breaks connections.
    """

    def __init__(self, record: Record) -> None:
        self.record = record
        self.key = record.key
        self.part = b""
        self.least = 0
        self.most = 0
        self.counts = False
        self.written: Written | None = None
        self.why = Refusal("LOST", "")
        self.was_sent = False
        self.was_lost = False
        self.is_repeated = False
        self.is_alone = False
        self._evictions = 0
        self._losses = 0

    def refuse(self, why: Refusal) -> None:
        """The target refuses it, for now or for good."""
        if passes(why):
            self.why = why
        else:
            self.written = Written("refused", str(why))

    def lost(self, why: str, is_write: bool, was_alone: bool) -> None:
        """The connection broke before it was answered."""
        self.why, self.is_repeated, self.is_alone = Refusal("LOST", why), self.is_repeated or is_write, True
        self._losses += was_alone
        if self._losses == _MOST_LOSSES:
            self.written = Written("refused", f"{why} each time it was sent: it may be larger than the target accepts")

    def evicted(self) -> None:
        """What was written of it is gone."""
        self._evictions += 1
        self.why = _EVICTED
        if self._evictions == ATTEMPTS:
            self.written = Written("refused", _EVICTED.text)

    def may_have_expired(self, now_ms: int) -> bool:
        """Whether its time has come, or that of all its fields."""
        expire_ms = self.record.expire_ms
        return (not self.least and self.record.type == "hash") or (expire_ms is not None and expire_ms <= now_ms + _TOLERANCE_MS)


class _Begun:
    """A temporary key that is being written: it lives for an hour at most, and is deleted where it does not get its name.

    Attributes:
        has_name: it is no longer temporary.
        is_settled: no command about it is on its way to the server.
    """

    def __init__(self, target: Server, names: PartNames, db: int, part: bytes) -> None:
        self.has_name = False
        self.is_settled = True
        self._target = target
        self._names = names
        self._db = db
        self._part = part
        self._renewed_at = 0.0

    def keep(self, is_whole: bool = False) -> None:
        """Asked for again and again while it is written: let it live on.

        Raises: Interrupted where it is not what was begun: it was gone, and has begun anew with what was written then.
        """
        now = time.monotonic()
        if self._renewed_at and now - self._renewed_at < _RENEW_S and not is_whole:
            return
        if self._renewed_at and self._ask(command(b"PTTL", self._part)) == -1:
            raise Interrupted(_EVICTED)
        if self._ask(command(b"PEXPIRE", self._part, b"%d" % _LIFE_MS)) == 1:
            self._renewed_at = now

    def end(self) -> None:
        """Delete it, unless it has its name; what may come of it yet stays in the state, for the end of the run."""
        if not self.has_name and isinstance(self._ask(command(b"DEL", self._part)), Refusal):
            return
        if self.is_settled:
            self._names.end([self._part])

    def _ask(self, question: bytes) -> Any:
        ((reply,),) = self._target.ask(self._db, [(self._part, [question])])
        return reply


class _Stream:
    """Commands that are sent one after the other, without waiting for their replies, of which an error ends it soon."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._replies = Replies()

    def send(self, piece: bytes) -> None:
        """Send a piece of commands. Raises: Interrupted, _Refused, Lost."""
        connection = self._connection
        connection.send(piece)
        if connection.ready(0):
            self._replies.feed(connection.receive())
            self._look(b"")

    def finish(self) -> None:
        """Wait for the replies to all of them. Raises: as `send`."""
        last = b"rdbkit:%d" % time.monotonic_ns()
        self._connection.send(command(b"PING", last))
        while not self._look(last):
            self._replies.feed(self._connection.receive())

    def _look(self, last: bytes) -> bool:
        """Look at what has come; whether `last` has."""
        while (reply := self._replies.take()) is not NOTHING:
            if isinstance(reply, Refusal):
                raise _error(reply)
            if reply == last and last:
                return True
        return False


def _error(refusal: Refusal) -> Exception:
    return Interrupted(refusal) if passes(refusal) else _Refused(str(refusal))


def passes(refusal: Refusal) -> bool:
    """Whether a command may be taken later that was refused so."""
    return is_passing(refusal) or refusal.code in _ALSO_PASSING


def _string_in_pieces(record: Record) -> tuple[int, Iterator[bytes]]:
    """The length of a large string, and the commands that write it, of which none takes much memory.

    It is appended to, so that its length tells if what was written before is gone: SETRANGE would put zeros there.
    """
    total, content = long_string(record)
    return total, (each for piece in content for each in pieces([b"APPEND", record.key, piece]))

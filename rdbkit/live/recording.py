"""The keys of a node as the records of a file, listed by SCAN and read by DUMP: for servers that let nobody replicate from them.

It is not of one moment. A key that is there from the beginning to the end is in the file; it may be there twice, of which the later
record is the newer one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Final

from rdbkit.errors import LossError, TargetError
from rdbkit.format import constants as c
from rdbkit.format.replies import Refusal
from rdbkit.live.abilities import Abilities
from rdbkit.live.connection import Address, Connection, Lost, Refused
from rdbkit.live.converter import header_of
from rdbkit.live.databases import databases_of
from rdbkit.live.lanes import Lane
from rdbkit.live.latency import LatencyGuard, PageSize
from rdbkit.live.processes import process_of
from rdbkit.live.reading import Counts, Reading
from rdbkit.live.server import WAITS, Server, info_number
from rdbkit.live.value_reader import Changed, Gone, Unreadable, ValueReader
from rdbkit.model import Header
from rdbkit.passes.dumps import Answers, Gatherer
from rdbkit.passes.pages import Page
from rdbkit.resp import command
from rdbkit.snapshot.large import Spool
from rdbkit.snapshot.writer import Writer, create
from rdbkit.storage.temporary import PRIVATE

__all__ = ["MissingKey", "Recording", "Stopped", "Terms", "record"]

#: Bytes of records that wait before they are written.
_FLUSH: Final = 4 << 20
#: Keys that are not in the file, and are told one by one.
_MOST_TOLD: Final = 1000
#: Of a node that has no keys, whose version nobody needs: the lowest that has everything that is written then.
_OF_NO_KEYS: Final = 9
_OF_FUNCTIONS: Final = 10
#: Bytes behind what DUMP gives: two of the version, and a checksum.
_FOOTER: Final = 10
#: And of values that are read by commands, on a server whose hashes have fields that expire.
_OF_FIELDS: Final = 12
#: How often a key is read again that changes while it is read.
_ATTEMPTS: Final = 3


class Stopped(TargetError):
    """Another node has failed, so that nobody wants what this one has."""


@dataclass(frozen=True)
class MissingKey:
    """A key that is not in the file: its database, its name, and why, in the server's words."""

    db: int
    key: bytes
    why: str


@dataclass
class Terms:
    """What is the same for all nodes of a server.

    Args:
        server: it.
        found: what the login may do there.
        libraries: sources of its functions.
        batch: keys to ask for at a time.
        big: bytes that a key may take there to be read whole; larger ones are read in pieces. 0 to read all whole.
        max_latency_ms: how long others may wait for the node meanwhile, beyond the way there and back; None for any time.
        stopped: whether nobody wants it any more.
    """

    server: Server
    found: Abilities
    libraries: list[bytes]
    batch: int
    big: int
    max_latency_ms: float | None
    stopped: Callable[[], bool]


@dataclass
class Recording:
    """What was read of a node.

    Attributes:
        file: where it is.
        header: of the file.
        keys: in the file, by database.
        counts: what became of keys.
        missing: the first of those that are not in the file although they may be there.
        lacking: what of values could not be read, in words.
        began_ms, ended_ms: when, by the server's clock, in Unix milliseconds.
    """

    file: str
    header: Header
    keys: dict[int, int]
    counts: Counts
    missing: list[MissingKey]
    lacking: list[str]
    began_ms: int
    ended_ms: int


def record(terms: Terms, address: Address, file: str, slots: frozenset[int] | None, progress: Callable[[int], object]) -> Recording:
    """Write the keys of a node to a file.

    Args:
        slots: of these alone; None for all.
        progress: called with the bytes of values so far.

    Raises: TargetError where it cannot be read; Stopped.
    """
    server = terms.server
    began_ms = server.now_ms()
    size = PageSize(terms.batch, terms.max_latency_ms or 0.0)
    with ExitStack() as stack:
        node = stack.enter_context(_Node(terms, address, file, began_ms // 1000, progress))
        if terms.max_latency_ms is not None:
            stack.enter_context(LatencyGuard(_dial(server, address), size))
        for db in databases_of(server):
            _record_database(node, db, lambda: size.keys, slots)
        header = node.end()
    return Recording(file, header, node.keys, node.counts, node.missing, node.lacking, began_ms, server.now_ms())


def _record_database(node: _Node, db: int, batch: Callable[[], int], slots: frozenset[int] | None) -> None:
    """All keys of a database; where the connection is lost, on from there if it is still the same process."""
    big = node.terms.big if node.terms.found.size.use is not None else 0
    lane = Lane(node, db, batch=batch, big=big, slots=slots)
    server = node.source
    waits = iter(WAITS)
    process = _process(node)
    while True:
        before = lane.cursor
        try:
            lane.run()
            return
        except Refused as e:
            raise TargetError(f"its keys cannot be read: {e}", source=str(server.url), db=db) from None
        except Lost as e:
            waits = iter(WAITS) if lane.cursor != before else waits
            wait = next(waits, None)
            if wait is None:
                raise TargetError(f"connection lost: {e}", source=str(server.url)) from None
            time.sleep(wait)
        now = _process(node)
        if not now or now != process:
            process, lane.cursor = now, b"0"


def _process(node: _Node) -> str:
    try:
        node.open()
        return process_of(node.connection, is_cluster=bool(node.source.slots()))
    except Lost:
        return ""


def _dial(server: Server, address: Address) -> Connection:
    try:
        return server.dial(address)
    except Lost as e:
        raise TargetError(f"a node cannot be reached: {e}", source=str(server.url)) from None


class _Node(Reading):
    """Writes what is read of a node to a file, whose version is that of the first value."""

    def __init__(self, terms: Terms, address: Address, file: str, began_s: int, progress: Callable[[int], object]) -> None:
        super().__init__(terms.server, terms.found.layout(terms.server), _dial(terms.server, address), told=self._tell)
        self.missing: list[MissingKey] = []
        self.keys: dict[int, int] = {}
        self.lacking: list[str] = []
        self.terms = terms
        self.large = self._later
        self.without_dump = terms.found.value.use == "commands"
        self._file = file
        self._began_s = began_s
        self._progress = progress
        self._writer: Writer | None = None
        self._stack = ExitStack()
        self._version = 0
        self._large_keys: list[tuple[int, bytes]] = []
        self._taken = 0  # of the values of the page at hand

    def __enter__(self) -> _Node:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
        self._stack.__exit__(kind, error, trace)

    def open(self) -> None:
        """Open the connection where it broke. Raises: Lost."""
        if not self.connection.is_open:
            self.connection.open()
            self._db = -1

    def make_answers(self, db: int, page: Page, replace: bool) -> Answers:
        """See `Reading.make_answers`."""
        if self.terms.stopped():
            raise Stopped("stopped", source=str(self.source.url))
        self._taken = 0
        return Gatherer(page, self.layout, self._version, self._now_ms())

    def pass_on(self, db: int, answers: Answers, replace: bool) -> None:
        """See `Reading.pass_on`."""
        if isinstance(answers, Gatherer) and (answers.done or len(answers.out) > _FLUSH):
            keys = int(answers.found) - self._taken
            self._taken = int(answers.found)
            self._write(db, answers, keys)

    def take(self, db: int, answers: Gatherer, replace: bool) -> None:
        """See `Reading.take`: one key that was read alone."""
        self._write(db, answers, int(answers.found))

    def _write(self, db: int, answers: Gatherer, keys: int) -> None:
        block = answers.out.getvalue()
        answers.out.truncate(0)
        if not block:
            return
        if self._version == 0:
            self._begin(header_of(int(answers.version)))
            self._version = int(answers.version)
        elif answers.version != self._version:
            raise TargetError("it was upgraded while it was read: run this again", source=str(self.source.url))
        assert self._writer is not None
        self.counts.written += keys
        self.keys[db] = self.keys.get(db, 0) + keys
        self._writer.copy(block, db, keys, 0)
        self._progress(self._writer.size)

    def _begin(self, header: Header) -> None:
        """The header, and what stands before keys."""
        opened = create(self._file, version=header.version, flavour=header.flavour, sources=[PRIVATE])
        self._writer = writer = self._stack.enter_context(opened)
        product, _, number = (self.source.version or "").partition(" ")
        if number:
            writer.aux(f"{'valkey' if product == 'valkey' else 'redis'}-ver", number)
        writer.aux("ctime", self._began_s)
        used = info_number([self.source.ask_node(self.connection.address, command(b"INFO", b"memory"))], "used_memory")
        if used:
            writer.aux("used-mem", used)
        writer.aux("rdbkit-via", "scan")
        for source in self.terms.libraries if header.version >= _OF_FUNCTIONS else ():
            writer.function(source)

    def end(self) -> Header:
        """All keys have been read; returns the file's header. The file is whole at the end of the context."""
        for db, key in self._large_keys:
            self._record_large(db, key)
        if self._writer is None:
            self._begin(Header(c.REDIS, _OF_FUNCTIONS if self.terms.libraries else _OF_NO_KEYS))
        assert self._writer is not None
        return self._writer.header

    # -- values that are not read whole

    def _later(self, db: int, keys: list[bytes]) -> None:
        """These keys are read at the end, when the version of the file is known; now where no DUMP is going to tell it."""
        if self.without_dump:
            self.counts.read += len(keys)
            for key in keys:
                self._record_large(db, key)
            return
        self._large_keys += [(db, key) for key in keys]

    def _record_large(self, db: int, key: bytes) -> None:
        """Read a key by commands, in pieces, twice: it was not changed meanwhile if both are the same."""
        if self._version == 0:
            self._version = self._version_of_commands()
            self._begin(header_of(self._version))
        for _ in range(_ATTEMPTS):
            if self.terms.stopped():
                raise Stopped("stopped", source=str(self.source.url))
            with Spool() as spool:
                try:
                    first = self._read_pieces(db, key, spool.write)
                    again = self._read_pieces(db, key, lambda piece: None)
                except Changed:
                    continue
                except Gone:
                    self.counts.gone += 1
                    return
                except Unreadable:
                    self._one(db, key, False)  # no commands read its type
                    return
                except Refused as e:
                    self.refuse(db, key, e.refusal)
                    return
                except LossError as e:
                    self.refuse(db, key, Refusal("ERR", e.message))
                    return
                if (first.digest, first.type, first.expire_ms) == (again.digest, again.type, again.expire_ms):
                    self._write_pieces(db, spool)
                    self.lacking += [f"db {db}, key {key[:80]!r}: {what}" for _, what in first.left_out]
                    return
        self.counts.changed += 1
        self._tell(db, key, "changed", "it changed each time it was read")

    def _version_of_commands(self) -> int:
        """The server's RDB version, as its functions tell it; or one that has all that its commands tell, and that it loads."""
        functions = self.source.ask_node(self.connection.address, command(b"FUNCTION", b"DUMP"))
        if isinstance(functions, bytes):
            return int.from_bytes(functions[-_FOOTER : 2 - _FOOTER], "little")
        features = self.source.features
        if "HPEXPIRETIME" in features:
            return c.VALKEY_VERSIONS[0] if (self.source.version or "").startswith("valkey") else _OF_FIELDS
        return _OF_FUNCTIONS if "PEXPIRETIME" in features else _OF_NO_KEYS

    def _read_pieces(self, db: int, key: bytes, take: Callable[[bytes], object]) -> ValueReader:
        assert self._writer is not None
        reader = ValueReader(key, self._writer.header, self.source.features, digests=True)
        for piece in reader.pieces(lambda commands: self.source.ask(db, [(key, commands)])[0]):
            take(piece)
        return reader

    def _write_pieces(self, db: int, spool: Spool) -> None:
        assert self._writer is not None
        self._writer.copy(b"", db, 1, 0)
        for piece in spool.pieces():
            self._writer.append(piece)
        self.counts.written += 1
        self.keys[db] = self.keys.get(db, 0) + 1
        self._progress(self._writer.size)

    def _tell(self, db: int, key: bytes, what: str, detail: str) -> None:
        if what != "gone" and len(self.missing) < _MOST_TOLD:
            self.missing.append(MissingKey(db, key, detail))

"""Values that are too large for DUMP: read in pieces, converted, and written in pieces, in bounded memory.

A large value goes the way of a snapshot that has this key alone: what `rdbkit.live.value_reader` reads is what a conversion takes,
with selection, edits, policies and ledger, and what that makes of it are records again, which become commands. A thread reads and
converts, so that source and target work at the same time.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, BinaryIO, Final, cast

from librt.strings import BytesWriter

from rdbkit.errors import LossError, RdbError
from rdbkit.format import constants as c
from rdbkit.format.encode import write_length
from rdbkit.format.replies import Refusal
from rdbkit.live.compare import Comparer
from rdbkit.live.connection import Connection, Lost, Refused
from rdbkit.live.parts import ATTEMPTS, Connections, Interrupted, PartNames, PartWriter, passes
from rdbkit.live.refusals import difference_of
from rdbkit.live.restoring import Patience
from rdbkit.live.server import PATIENT_WAITS, Server
from rdbkit.live.value_reader import WINDOW_BYTES, Changed, FileOfPieces, Gone, Unreadable, ValueReader, read_together
from rdbkit.operations.convert import Job
from rdbkit.policy.ledger import Ledger, Loss
from rdbkit.policy.rules import FAIL, Rules
from rdbkit.resp import command
from rdbkit.snapshot.reader import Snapshot, open_snapshot
from rdbkit.snapshot.writer import create
from rdbkit.storage.pipe import Pipe

__all__ = ["LargeValues"]

_TOLERANCE_MS: Final = 1000
_CHECKSUM: Final = bytes(8)  # none
_CHECKSUM_SINCE: Final = 5


class LargeValues:
    """Copies keys of any size from one server to another. One a thread: it has connections of its own.

    Args:
        source, target: the servers.
        rules: of the conversion; `rules.source` is what the source's snapshots are, `rules.header` one that the target takes.
        ledger: where losses go, each once.
        names: of the temporary keys.
        window_bytes: so many bytes one reply of the source is meant to have.

    Raises: ValueError where it is not known which commands the target has.

    Attributes:
        trouble: why the last key was "refused", "lost" or "changed", in words.
        value_bytes: of the last key, so many were read.
        patience: how long what passes is waited for.
    """

    def __init__(
        self,
        source: Server,
        target: Server,
        rules: Rules,
        ledger: Ledger,
        names: PartNames,
        *,
        window_bytes: int = WINDOW_BYTES,
    ) -> None:
        self.trouble = ""
        self.value_bytes = 0
        self._source = source
        self._target = target
        self._rules = rules
        self._ledger = ledger
        self._kept = _Kept()
        self._writer = PartWriter(target, rules, self._kept, names)
        self._connections = Connections(source)
        self.patience = Patience(target)
        self._window_bytes = window_bytes
        self._watches: bool | None = None

    def close(self) -> None:
        """Close all connections."""
        self._connections.close()
        self._writer.close()

    def copy(self, db: int, key: bytes, *, over: bool = False) -> str:
        """Copy a key, whole or not at all.

        Args:
            db, key: on the source.
            over: what the target has by its name gives way.

        Returns: "written"; "gone": it is not on the source, or has expired; "equal", "exists": the target has it, or another value,
            of its name, which was left alone; "lost": a policy left it out; "left-out": the selection or an edit did; "changed":
            it changed each time while it was read; "unreadable": no commands read its type, which takes DUMP; "refused".

        Raises: TargetError where a server cannot be reached, or has no memory left, for long.
        """
        self.trouble = ""
        begun = time.monotonic()
        waits = iter(PATIENT_WAITS)
        attempts = 0
        while True:
            self._kept = self._writer.ledger = _Kept()
            try:
                outcome = self._copy(db, key, over)
                break
            except Changed:
                attempts += 1
                if attempts == ATTEMPTS:
                    self.trouble = f"it changed while it was read, {ATTEMPTS} times"
                    return "changed"
            except (Interrupted, Lost) as e:
                why = e.why if isinstance(e, Interrupted) else Refusal("LOST", str(e))
                attempts += why.code == "EVICTED"
                if attempts == ATTEMPTS:
                    self.trouble = str(e)
                    return "refused"
                self.patience.wait_for([why], time.monotonic() - begun)
                time.sleep(next(waits, PATIENT_WAITS[-1]))
                for server in (self._source, self._target):
                    with suppress(Lost):  # what is known of the nodes may still hold
                        server.read_slots()
            except Gone:
                return "gone"
            except Unreadable:
                return "unreadable"
            except Refused as e:
                self.trouble = str(e)
                return "refused"
            except LossError as e:
                self.trouble = e.message
                outcome = "lost"
                break
            except RdbError as e:
                self.trouble = e.message
                return "refused"
        for loss, forbidden in self._kept.entries if outcome in ("written", "equal", "lost") else ():
            self._ledger.add(loss, forbidden)
        return outcome

    def read_small(self, db: int, keys: Sequence[bytes]) -> list[bytes | Exception]:
        """The records of many keys of one node, as `read_together` gives them.

        Raises: Lost, Interrupted.
        """
        if not keys:
            return []
        connection = self._connections.to(keys[0], db)
        return read_together(lambda key: self._reader(key, True), keys, lambda commands: connection.ask(*commands))

    def _copy(self, db: int, key: bytes, over: bool) -> str:
        """Try once. Raises: what `_converted` does, Interrupted, and Lost."""
        with self._converted(db, key) as snapshot:
            records = iter(snapshot)
            record = next(records, None)
            if record is None:
                return "lost" if any(not loss.note for loss, _ in self._kept.entries) else "left-out"
            if not over and self._is_there(record.db, record.key):
                outcome = "exists"
            else:
                outcome = self._writer.write(record, lambda: next(records, None), over=over)
                self.trouble = self._writer.trouble
        if outcome in ("exists", "unknown"):
            self.trouble = self._difference(db, key)
            return "exists" if self.trouble else "equal" if outcome == "exists" else "written"
        return outcome

    def _is_there(self, db: int, key: bytes) -> bool:
        reply: object
        ((reply,),) = self._target.ask(db, [(key, [command(b"EXISTS", key)])])
        return reply == 1

    def _difference(self, db: int, key: bytes) -> str:
        """What the target has otherwise than the source, in words; empty where nothing differs. Raises: as `_copy`."""
        kept, self._kept = self._kept, _Kept()
        try:
            with self._converted(db, key) as snapshot:
                record = next(iter(snapshot), None)
                if record is None:
                    raise Changed
                (outcome,) = Comparer(self._target, _TOLERANCE_MS).compare(record.db, [record])
                return difference_of(outcome)
        finally:
            self._kept = kept

    # -- reading and converting

    @contextmanager
    def _converted(self, db: int, key: bytes) -> Iterator[Snapshot]:
        """What a conversion makes of a snapshot that has this key alone, read while it is made.

        Raises: so does reading from it: Gone, Changed, Unreadable, Refused; Lost; LossError; RdbError.
        """
        pipe = Pipe()
        found = cast(BinaryIO, FileOfPieces(_interruptible(self.read(db, key))))
        source = open_snapshot(found, verify_checksum=False)
        header = self._rules.header
        writer = create(cast(BinaryIO, pipe), version=header.version, flavour=header.flavour)
        job = Job(source, writer, self._rules, self._kept, pipe.check)

        def work() -> None:
            with source, closing(job), writer:
                job.run(1)

        thread = pipe.fill(work)
        try:
            with open_snapshot(cast(BinaryIO, pipe), verify_checksum=False) as snapshot:
                yield snapshot
        finally:
            pipe.break_off()
            thread.join()

    def read(self, db: int, key: bytes) -> Generator[bytes]:
        """The bytes of a snapshot that has this key alone, as it is on the source.

        Raises: as `_converted`.
        """
        header = self._rules.source
        connection = self._connections.to(key, db)
        watches = self._can_watch(connection, key)
        reader = self._reader(key, not watches)
        if watches:
            _checked(connection.ask(command(b"UNWATCH"), command(b"WATCH", key)))
        yield str(header).encode() + _select(db)
        self.value_bytes = 0

        def ask(commands: list[bytes]) -> list[Any]:
            return connection.ask(*commands)

        for piece in reader.pieces(ask):
            self.value_bytes += len(piece)
            yield piece
        for kind, what in reader.left_out:
            self._kept.add(Loss(kind, what, 1, db, key), self._rules.policies.chosen("loss") == FAIL)
        if watches:
            # the server does this only if nothing has touched the key
            if _checked(connection.ask(command(b"MULTI"), command(b"TYPE", key), command(b"EXEC")))[-1] is None:
                raise Changed
        else:
            again = self._reader(key, True)
            for _ in again.pieces(ask):
                pass
            if (again.digest, again.type) != (reader.digest, reader.type):
                raise Changed
        yield bytes([c.EOF]) + (_CHECKSUM if header.flavour == c.VALKEY or header.version >= _CHECKSUM_SINCE else b"")

    def _reader(self, key: bytes, digests: bool) -> ValueReader:
        source = self._source
        return ValueReader(
            key, self._rules.source, source.features, digests=digests, clock=source.now_ms, window_bytes=self._window_bytes
        )

    def _can_watch(self, connection: Connection, key: bytes) -> bool:
        """Whether the source tells if a key was touched: WATCH and MULTI, which some logins may not use."""
        if self._watches is None:
            replies = connection.ask(command(b"WATCH", key), command(b"UNWATCH"), command(b"MULTI"), command(b"DISCARD"))
            refusals = [reply for reply in replies if isinstance(reply, Refusal)]
            _checked([reply for reply in refusals if passes(reply)])
            self._watches = not refusals
        return self._watches


class _Kept(Ledger):
    """Losses that are entered where they count when the key is done."""

    def __init__(self) -> None:
        super().__init__()
        self.entries: list[tuple[Loss, bool]] = []

    def add(self, loss: Loss, forbidden: bool = False) -> None:
        super().add(loss, forbidden)
        self.entries.append((loss, forbidden))


def _interruptible(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """What is refused for now interrupts. Raises: Interrupted, and what the pieces do."""
    try:
        yield from pieces
    except Refused as e:
        if passes(e.refusal):
            raise Interrupted(e.refusal) from None
        raise


def _checked(replies: list[Any]) -> list[Any]:
    """Replies without an error. Raises: Refused."""
    for reply in replies:
        if isinstance(reply, Refusal):
            raise Refused(reply)
    return replies


def _select(db: int) -> bytes:
    out = BytesWriter()
    out.append(c.SELECTDB)
    write_length(out, db)
    return out.getvalue()

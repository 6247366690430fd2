"""Single keys of a source, whichever node has them, on their way to a target; and what became of each by its name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace as replaced
from typing import Final

from rdbkit.errors import TargetError
from rdbkit.format import constants as c
from rdbkit.format.replies import Refusal
from rdbkit.live.connection import Address, Connection, Lost
from rdbkit.live.first_pass import total
from rdbkit.live.processes import process_of
from rdbkit.live.refusals import Existing
from rdbkit.live.restoring import Patience, Refused, Restoring
from rdbkit.live.server import PATIENT_WAITS
from rdbkit.live.transfer import Counts, Transfer, Way
from rdbkit.passes.pages import Page, ScanReply, page_of
from rdbkit.passes.restores import HEADS, Sent, keys_of
from rdbkit.policy.ledger import Ledger
from rdbkit.resp import command

__all__ = ["Mover"]

_SCAN_COUNT: Final = b"1000"
_END: Final = b"0"
_AT_A_TIME: Final = 1000
#: Bytes of values to be moved at a time, about; and of those that are kept to be asked about.
_MOST_BYTES: Final = 4 << 20
_MOST_KEPT: Final = 16 << 20
_STREAMS: Final = bytes(
    any(code in types and types[code].type == "stream" for types in (c.value_types(c.REDIS, 255), c.value_types(c.VALKEY, 255)))
    for code in range(256)
)


class Mover:
    """Makes keys of the target what they are on the source, for one thread.

    Args:
        way: from where to where, and how.
        ledger: takes the losses.
        opened: called with each connection that we write over, when it was opened.
        big: bytes above which a value is not read whole; 0 to look at none.

    Attributes:
        details: of the keys that the last `move` did not write, why, in the server's words.
        streams: the streams that were met: database and key on the source.
    """

    def __init__(
        self,
        way: Way,
        ledger: Ledger,
        opened: Callable[[Connection], object] | None = None,
        big: int = 0,
    ) -> None:
        # whether a key is replaced is said for each, also where `replace` is the rule: a pass compares
        self.way = replaced(way, on_exists="skip")
        self._ledger = ledger
        self._big = big if way.parts is not None else 0
        self.details: dict[bytes, str] = {}
        self.streams: set[tuple[int, bytes]] = set()
        self._restoring = Restoring(way.target, opened=opened)
        self._restoring.kept = []
        self._existing = Existing(way.target)
        self._patience = Patience(way.source)
        self._transfers: dict[Address, Transfer] = {}
        self._fates: dict[bytes, str] = {}
        self._ended: list[Counts] = []  # of connections that broke
        self._apart: set[tuple[int, bytes]] = set()  # written in parts since `forget`
        self._at_a_time = _AT_A_TIME
        self._called: dict[bytes, bytes] = {}  # by the name on the target, that on the source

    def move(self, db: int, names: Sequence[bytes], *, replace: bool = False) -> dict[bytes, str]:
        """Make these keys on the target what they are on the source.

        Args:
            db: of the source.
            names: any number.
            replace: also where the target has them.

        Returns: what became of those that were not written: "gone" (not on the source), "equal" and "exists" (the target has it,
            with this value or another), "left-out" (by the selection, an edit or a policy), "refused", or "changed" (while it was
            read).

        Raises: TargetError where a server cannot be reached for long.
        """
        edits = self.way.conversion.edits
        self._fates = {}
        self.details = {}
        self._called = {edits.key_of(name): name for name in names}
        for address, some in self._by_node(names).items():
            at = 0
            while at < len(some):
                size = self._at_a_time
                begin = len(self._restoring.kept or ())
                self._move(address, db, some[at : at + size], replace)
                for _, data, count in (self._restoring.kept or ())[begin:]:
                    self.streams.update((db, self._called.get(key, key)) for key in keys_of(data, count, _STREAMS))
                self._make_room()
                at += size
        return self._fates

    def delete(self, db: int, names: Sequence[bytes]) -> list[Refusal | None]:
        """Delete on the target what these keys have become there; the error of each that is refused.

        Raises: TargetError where it cannot be reached for long.
        """
        edits = self.way.conversion.edits
        called = [edits.key_of(name) for name in names]
        router = self._restoring.router(edits.db_of(db))
        for name in called:
            box = router.box_of(name, 0, len(name))
            box.out.write(command(b"UNLINK", name))
            box.count += 1
        self._restoring.flush()
        refused = {each.key: each.why for each in self._restoring.collect()}
        return [refused.get(name) for name in called]

    def as_written(self, db: int, names: Sequence[bytes]) -> set[bytes]:
        """Which of these keys the target has as they were written since `forget` was last called."""
        edits = self.way.conversion.edits
        called = {edits.key_of(name): name for name in names}
        last = {key: data for key, data in self._sent(edits.db_of(db), 0) if key in called}
        asked = [Refused(edits.db_of(db), key, data, Refusal("", ""), False) for key, data in last.items()]
        same = {called[each.key] for each, what in zip(asked, self._existing.differences(asked), strict=True) if not what}
        # what is written in parts goes over other connections, and is told of
        return same | {name for name in names if (db, name) in self._apart}

    def forget(self) -> None:
        """What was written up to now is not asked about any more."""
        self._restoring.kept = []
        self._apart.clear()

    def scan(self, node: Address, db: int) -> Iterator[list[bytes]]:
        """All names of a database of a node of the source; one may come twice.

        Raises: TargetError where the node cannot be reached for long, or does not list its keys.
        """
        cursor = _END
        waits = iter(PATIENT_WAITS)
        process = self._process(node)
        while True:
            reply = ScanReply()
            try:
                transfer = self._transfer(node)
                transfer.ask(db, Page(b"", 0), command(b"SCAN", cursor, b"COUNT", _SCAN_COUNT))
                transfer.receive(reply)
            except Lost as e:
                wait = next(waits, None)
                if wait is None:
                    raise TargetError(f"connection lost: {e}", source=str(self.way.source.url)) from None
                self._drop(node)
                time.sleep(wait)
                # the cursor means nothing to another process
                if not process or self._process(node) != process:
                    cursor, process = _END, self._process(node)
                continue
            if isinstance(reply.failure, Refusal):
                raise TargetError(f"its keys cannot be listed: {reply.failure}", source=str(self.way.source.url), db=db)
            waits = iter(PATIENT_WAITS)
            yield reply.page.keys()
            cursor = reply.cursor
            if cursor == _END:
                return

    @property
    def counts(self) -> Counts:
        """What became of the keys so far, each time that they were moved."""
        return total([*self._ended, *(transfer.counts for transfer in self._transfers.values())])

    def close(self) -> None:
        """Close the connections."""
        for transfer in self._transfers.values():
            transfer.close()
        self._restoring.close()

    # -- nodes

    def _by_node(self, names: Sequence[bytes]) -> dict[Address, list[bytes]]:
        source = self.way.source
        home = source.masters()[0]
        if not source.slots():
            return {home: list(names)}
        found: dict[Address, list[bytes]] = {}
        for name in names:
            found.setdefault(source.owner(name) or home, []).append(name)
        return found

    def _transfer(self, address: Address) -> Transfer:
        transfer = self._transfers.get(address)
        if transfer is None:
            connection = self.way.source.dial(address)
            transfer = Transfer(self.way, connection, self._ledger, self._note, self._restoring)
            self._transfers[address] = transfer
        return transfer

    def _drop(self, address: Address) -> None:
        transfer = self._transfers.pop(address, None)
        if transfer is not None:
            self._ended.append(transfer.counts)
            transfer.connection.close()

    def _process(self, node: Address) -> str:
        """What tells a process of a node from the next one; empty where that cannot be told."""
        try:
            return process_of(self._transfer(node).connection, is_cluster=bool(self.way.source.slots()))
        except Lost:
            self._drop(node)
            return ""

    # -- moving

    def _move(self, address: Address, db: int, names: list[bytes], replace: bool) -> None:
        """Move keys of a node; where its connection breaks, from whichever node has them then."""
        begun = time.monotonic()
        waits = iter(PATIENT_WAITS)
        piles = {address: names}
        ours: set[bytes] = set()  # written by an attempt that broke
        while piles:
            node, some = piles.popitem()
            begin = len(self._restoring.kept or ())
            transfer: Transfer | None = None
            try:
                transfer = self._transfer(node)
                before = transfer.counts.left_out + transfer.counts.lost
                size_before = transfer.counts.value_bytes
                small = some
                large: list[bytes] = []
                if self._big:
                    page, large = transfer.sized(db, page_of(some), self._big)
                    small = page.keys() if large else some
                transfer.move(db, small, replace=replace)
                if large:
                    self._move_large(transfer, db, large, replace)
                size = (transfer.counts.value_bytes - size_before) // len(some)
                self._at_a_time = max(1, min(_AT_A_TIME, _MOST_BYTES // max(1, size)))
                if transfer.counts.left_out + transfer.counts.lost != before:
                    self._note_left_out(db, small, begin)
            except Lost as e:
                if transfer is not None:
                    transfer.settle()  # what the target was sent already
                    self._drop(node)
                    sent = {self._called.get(key, key) for key, _ in self._sent(self.way.conversion.edits.db_of(db), begin)}
                    ours |= sent - self._fates.keys()
                self._patience.wait_for([Refusal("LOST", str(e))], time.monotonic() - begun)
                time.sleep(next(waits, PATIENT_WAITS[-1]))
                self._look()
                left = [name for name in some if name not in self._fates]
                for owner, group in self._by_node(left).items():
                    piles.setdefault(owner, []).extend(group)
        if ours and not replace:
            self._settle_ours(db, ours)

    def _move_large(self, transfer: Transfer, db: int, names: list[bytes], replace: bool) -> None:
        for name in names:
            left_out = transfer.counts.left_out + transfer.counts.lost
            self._apart.add((db, name))
            transfer.move_large(db, [name], replace=replace)
            if transfer.counts.left_out + transfer.counts.lost != left_out:
                self._fates.setdefault(name, "left-out")

    def _settle_ours(self, db: int, ours: set[bytes]) -> None:
        """Keys that an attempt has written that broke: the next one found them there."""
        changed = [name for name in ours if self._fates.get(name) == "exists"]
        for name in ours:
            if self._fates.get(name) in ("equal", "exists"):
                del self._fates[name]
        if changed:
            fates, called = self._fates, self._called
            more = self.move(db, changed, replace=True)
            self._fates, self._called = fates | more, called

    def _make_room(self) -> None:
        """Forget the oldest of what was written, where that is much."""
        kept = self._restoring.kept or []
        size = sum(len(data) for _, data, _ in kept)
        while kept and size > _MOST_KEPT:
            size -= len(kept.pop(0)[1])

    def _look(self) -> None:
        with suppress(Lost):  # what is known of the nodes may still hold
            self.way.source.read_slots()

    def _note_left_out(self, db: int, names: list[bytes], begin: int) -> None:
        """What nothing was said of, and was not sent."""
        sent = {self._called.get(key, key) for key, _ in self._sent(self.way.conversion.edits.db_of(db), begin)}
        for name in names:
            if name not in sent:
                self._fates.setdefault(name, "left-out")

    def _sent(self, db: int, begin: int) -> Iterator[tuple[bytes, bytes]]:
        """Keys of a database of the target, and the commands that wrote them, from an entry of those kept on."""
        for number, data, count in (self._restoring.kept or ())[begin:]:
            if number == db:
                commands = Sent(data, count)
                for each in range(count):
                    key, text = commands.command(each)
                    if text.startswith(HEADS):
                        yield key, text

    def _note(self, db: int, key: bytes, what: str, detail: str) -> None:
        name = self._called.get(key, key)
        self._fates[name] = what
        self.details[name] = detail

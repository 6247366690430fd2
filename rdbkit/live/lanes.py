"""All keys of one node and one database of a source, page by page, on their way to a target.

While the target takes one page, the source is asked for the next.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final

from rdbkit.errors import TargetError
from rdbkit.format.replies import Refusal
from rdbkit.format.slots import SLOTS
from rdbkit.live.reading import Reading
from rdbkit.passes.pages import Page, ScanReply, page_of
from rdbkit.resp import command

__all__ = ["Lane", "slot_flags"]

_END: Final = b"0"


class Lane:
    """Copies all keys of a database of a node.

    Args:
        transfer: reads pages; its connection is to the node.
        db: the database of the source.
        cursor: where to go on; b"0" for the beginning.
        batch: keys to ask for at a time, about; called before each page.
        big: bytes above which `transfer.large` takes a key; 0 to look at none. Without that, all are read whole.
        save: called with the cursor up to which all keys have been answered for, b"0" at the end.
        slots: copy keys of these hash slots alone; None for all.
        pace: called with how many keys are going to be asked for; it may wait, and what it raises ends the lane.
    """

    def __init__(
        self,
        transfer: Reading,
        db: int,
        *,
        cursor: bytes = _END,
        batch: int | Callable[[], int] = 1000,
        big: int = 0,
        save: Callable[[bytes], object] | None = None,
        slots: Collection[int] | None = None,
        pace: Callable[[int], object] | None = None,
    ) -> None:
        self.transfer = transfer
        self.db = db
        self.cursor = cursor
        self.batch = batch if callable(batch) else lambda: batch
        self.big = big
        self.large = transfer.large
        self.save = save
        self.slots = None if slots is None else slot_flags(slots)
        self.pace = pace
        selection = transfer.selection
        self.conditions = selection.filter_for({}, 0) if selection else None

    def run(self) -> None:
        """Copy them.

        Raises: TargetError where a server refuses to list its keys or cannot be reached for long; Lost where the connection to the
            source breaks: `cursor` is where another lane goes on.
        """
        transfer = self.transfer
        transfer.ask(self.db, Page(b"", 0), self._scan(self.cursor))
        page, cursor = self._page()
        while True:
            if self.pace is not None:
                self.pace(page.count)
            sized, large = self._sized(page)
            transfer.ask(self.db, sized, b"" if cursor == _END else self._scan(cursor))
            transfer.settle()
            self._save()
            transfer.answer(self.db, sized)
            if self.large is not None and large:
                transfer.settle()
                self.large(self.db, large)
            self.cursor = cursor
            if cursor == _END:
                break
            page, cursor = self._page()
        transfer.settle()
        self._save()

    def copy(self, names: Sequence[bytes]) -> None:
        """Copy these keys of the node, as `run` does its pages; `cursor` stays. Raises: as `run`."""
        transfer = self.transfer
        page = self._wanted(page_of(names))
        if self.pace is not None:
            self.pace(page.count)
        sized, large = self._sized(page)
        transfer.ask(self.db, sized)
        transfer.answer(self.db, sized)
        transfer.settle()
        if self.large is not None and large:
            self.large(self.db, large)

    def _save(self) -> None:
        """All keys before `cursor` have been answered for."""
        if self.save is not None:
            self.save(self.cursor)

    def _scan(self, cursor: bytes) -> bytes:
        return command(b"SCAN", cursor, b"COUNT", b"%d" % self.batch())

    def _page(self) -> tuple[Page, bytes]:
        """The next page that was asked for, and the cursor behind it."""
        reply = ScanReply()
        self.transfer.receive(reply)
        if isinstance(reply.failure, Refusal):
            raise TargetError(f"its keys cannot be listed: {reply.failure}", source=str(self.transfer.source.url), db=self.db)
        return self._wanted(reply.page if self.slots is None else reply.page.in_slots(self.slots)), reply.cursor

    def _wanted(self, page: Page) -> Page:
        """The names that meet the conditions."""
        if self.conditions is None or not self.conditions.tests_names:
            return page
        wanted = page.wanted_by(self.conditions)
        self.transfer.leave_out(page.count - wanted.count)
        return wanted

    def _sized(self, page: Page) -> tuple[Page, list[bytes]]:
        """The page without the keys that are too large to be read whole, and those."""
        if self.transfer.without_dump:
            return Page(b"", 0), page.keys()
        if not self.big or self.large is None:
            return page, []
        return self.transfer.sized(self.db, page, self.big)


def slot_flags(slots: Collection[int]) -> bytes:
    """Hash slots as `Page.in_slots` takes them: a byte for each, 1 for those that are wanted."""
    flags = bytearray(SLOTS)
    for slot in slots:
        flags[slot] = 1
    return bytes(flags)

"""Keys that would come to have the same name, found before anything is written.

The source is read for that, and the names that its keys will have go to a `NameLog`: memory is bounded but for the conflicts
themselves, and the disk has 24 bytes for each key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rdbkit.errors import ChecksumError
from rdbkit.operations.duplicates import NameLog, digest
from rdbkit.operations.rewrite import Names
from rdbkit.operations.rules import Rules
from rdbkit.snapshot.reader import Snapshot


def find_decisions(reopen: Callable[[], Snapshot], rules: Rules) -> dict[int, bytes | None]:
    """What becomes of keys whose name another one has, too, by the offset of their records: None leaves one out.

    Args:
        reopen: opens the source anew; it is read once, and twice more where keys are to be renamed.

    Raises: RdbError where the source is damaged; OSError.
    """
    on_conflict = rules.edits.on_conflict
    losers: set[int] = set()
    for offsets in _same_names(reopen, rules):
        losers.update(offsets[:-1] if on_conflict == "last" else offsets[1:])
    if on_conflict != "rename" or not losers:
        return dict.fromkeys(losers)
    decisions: dict[int, bytes | None] = {}
    wanted: dict[bytes, int] = {}  # new names, as hashes
    pattern = rules.edits.rename_pattern.encode("utf-8", "surrogateescape")

    def rename(db: int, name: bytes, offset: int, source_db: int, key: bytes) -> None:
        if offset in losers:
            new = pattern.replace(b"{db}", b"%d" % source_db).replace(b"{key}", name)
            first = wanted.setdefault(digest(db, new), offset)
            decisions[offset] = new if first == offset else None

    def check(db: int, name: bytes, offset: int, source_db: int, key: bytes) -> None:
        taken = wanted.get(digest(db, name))
        if taken is not None and offset not in losers:
            decisions[taken] = None

    for visit in (rename, check):
        _scan(reopen, rules, visit)
    return decisions


def _scan(reopen: Callable[[], Snapshot], rules: Rules, found: Callable[[int, bytes, int, int, bytes], None]) -> None:
    with reopen() as snapshot:
        try:
            for _ in snapshot.scan(Names(snapshot.types, snapshot.limits.item_bytes, rules, found)):
                pass
        except ChecksumError:
            if not rules.skip:  # else it is told when the file is read for good
                raise


def _same_names(reopen: Callable[[], Snapshot], rules: Rules) -> Iterator[list[int]]:
    """Offsets of records that would have one name, in file order."""
    log = NameLog()

    def keep(db: int, name: bytes, offset: int, source_db: int, key: bytes) -> None:
        log.add(db, name, offset.to_bytes(8, "big"))

    try:
        _scan(reopen, rules, keep)
        for places in log.repeated(8):
            yield [int.from_bytes(place, "big") for place in places]
    finally:
        log.close()

"""Keys that would come to have the same name, found before anything is written.

The source is read for that: the names that its keys will have go as hashes of 128 bits to 256 files by their first byte, and
each file is sorted on its own. So memory is bounded but for the conflicts themselves, and the disk has 24 bytes for each key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from hashlib import blake2b
from tempfile import SpooledTemporaryFile
from typing import IO, Final

from rdbkit.operations.rewrite import Names
from rdbkit.operations.rules import Rules
from rdbkit.snapshot.reader import Snapshot

_PARTS: Final = 256
_PART_IN_MEMORY: Final = 1 << 17
_DIGEST: Final = 16
_ENTRY: Final = _DIGEST + 8


def _digest(db: int, name: bytes) -> bytes:
    return blake2b(name, digest_size=_DIGEST, salt=db.to_bytes(8, "little")).digest()


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
            first = wanted.setdefault(_digest(db, new), offset)
            decisions[offset] = new if first == offset else None

    def check(db: int, name: bytes, offset: int, source_db: int, key: bytes) -> None:
        taken = wanted.get(_digest(db, name))
        if taken is not None and offset not in losers:
            decisions[taken] = None

    for visit in (rename, check):
        with reopen() as snapshot:
            for _ in snapshot.scan(Names(snapshot.types, snapshot.limits.item_bytes, rules, visit)):
                pass
    return decisions


def _same_names(reopen: Callable[[], Snapshot], rules: Rules) -> Iterator[list[int]]:
    """Offsets of records that would have one name, in file order."""
    parts: list[IO[bytes]] = [SpooledTemporaryFile(_PART_IN_MEMORY) for _ in range(_PARTS)]  # noqa: SIM115 (closed below)

    def keep(db: int, name: bytes, offset: int, source_db: int, key: bytes) -> None:
        digest = _digest(db, name)
        parts[digest[0]].write(digest + offset.to_bytes(8, "big"))

    try:
        with reopen() as snapshot:
            for _ in snapshot.scan(Names(snapshot.types, snapshot.limits.item_bytes, rules, keep)):
                pass
        for part in parts:
            part.seek(0)
            data = part.read()
            part.close()
            entries = sorted(data[at : at + _ENTRY] for at in range(0, len(data), _ENTRY))
            yield from _repeated(entries)
    finally:
        for part in parts:
            part.close()


def _repeated(entries: list[bytes]) -> Iterator[list[int]]:
    at = 0
    while at < len(entries):
        end = at + 1
        while end < len(entries) and entries[end][:_DIGEST] == entries[at][:_DIGEST]:
            end += 1
        if end - at > 1:
            yield [int.from_bytes(entry[_DIGEST:], "big") for entry in entries[at:end]]
        at = end

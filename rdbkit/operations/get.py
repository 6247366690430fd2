"""What `rdbkit get` does: the value of one key."""

from __future__ import annotations

from typing import Any

from rdbkit.format.filter import Clause, Filter
from rdbkit.format.record import Record
from rdbkit.operations.arguments import Source, opened
from rdbkit.snapshot.reader import Snapshot
from rdbkit.text import as_bytes


def get(src: Source, key: str | bytes, *, db: int | None = None) -> Any:
    """The value of one key, as `Record.value` gives it.

    Reading stops there: what follows it, the checksum too, is not looked at.

    Args:
        src: a path, a file of bytes, or a snapshot that was just opened.
        key: its name; a str is taken as UTF-8.
        db: the database to look in; by default the first that has the key.

    Raises: KeyError where there is no such key; RdbError where the file is damaged before it, or its value is; OSError where the
        path cannot be opened; TypeError for what is no source or no key.

    >>> get("fixtures/rich/redis-2.4.18.rdb", "i8")
    b'12'
    """
    name = as_bytes(key, "key")
    with opened(src) as snapshot:
        record = find_key(snapshot, name, db)
        if record is not None:
            return record.value
    raise KeyError(key)


def find_key(snapshot: Snapshot, name: bytes, db: int | None) -> Record | None:
    """The first record of this name, None where there is none; reading stops there.

    Args:
        db: the database to look in; None for any.

    Raises: RdbError where the file is damaged before it; where there is no such key, ChecksumError for a file that differs.
    """
    clause = Clause({}, names=(name,), dbs=() if db is None else (range(db, db + 1),))
    for records in snapshot.sift(Filter([clause], snapshot.types, snapshot.limits.item_bytes)):
        for record in records:
            assert isinstance(record, Record)
            return record
    return None

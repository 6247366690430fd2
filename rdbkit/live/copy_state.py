"""How far a copy is, in an SQLite file: killed at any moment, the same command goes on from there.

What is noted is kept in memory and written together, a transaction each two seconds, so that a cursor never says more than what
else is noted. The file is readable for its owner alone: it has names of keys, and no login.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from rdbkit.text import valid_text

__all__ = ["CopyState", "Lane", "Part", "Trouble", "stable_hash"]

_FORM: Final = 1
#: By which SQLite's header tells a state of rdbkit from any other database: "rdbc".
_APPLICATION: Final = 0x72646263
_COMMIT_S: Final = 2.0
#: Rows that wait in memory; with more, they are written at once.
_MOST_WAITING: Final = 100_000
#: Variables of one question.
_AT_A_TIME: Final = 500
_TABLES: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE lane (
    node TEXT, db INTEGER, process TEXT NOT NULL, cursor TEXT NOT NULL, slots TEXT NOT NULL, done INTEGER NOT NULL,
    keys INTEGER NOT NULL, size INTEGER NOT NULL, PRIMARY KEY (node, db)
) WITHOUT ROWID;
CREATE TABLE ours (hash INTEGER PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE "foreign" (hash INTEGER PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE trouble (db INTEGER, key BLOB, what TEXT NOT NULL, detail TEXT NOT NULL, PRIMARY KEY (db, key)) WITHOUT ROWID;
CREATE TABLE part (name BLOB PRIMARY KEY, db INTEGER NOT NULL, key BLOB NOT NULL) WITHOUT ROWID;
"""


@dataclass
class Lane:
    """How far one node's database has been read, or one file.

    Attributes:
        node: which node, as host:port; or the path of a file.
        db: its database; 0 for a file, which has all of its own.
        process: what the cursor belongs to: a cursor means nothing to another process, even of the same data. Empty where that
            cannot be told.
        cursor: where to go on, as the server gave it; of a file, the number of keys that are done.
        slots: which slots the node had.
        done: all of it has been read.
        keys, size: keys and bytes so far.
    """

    node: str
    db: int = 0
    process: str = ""
    cursor: str = "0"
    slots: str = ""
    done: bool = False
    keys: int = 0
    size: int = 0


class Trouble(NamedTuple):
    """A key that is not on the target as it is on the source.

    Attributes:
        db, key: which, on the source.
        what: the kind: "exists", "refused", "lost", "large", "changed".
        detail: the server's words, or ours.
    """

    db: int
    key: bytes
    what: str
    detail: str


class Part(NamedTuple):
    """A temporary key of the target, in which a large value is being written.

    Attributes:
        name: of the temporary key.
        db, key: what it becomes, on the target.
    """

    name: bytes
    db: int
    key: bytes


def stable_hash(db: int, key: bytes) -> int:
    """64 bits of a name in a database, the same in every process; as SQLite has it, with a sign.

    >>> stable_hash(0, b"user:1")
    7218431546867153217
    """
    return int.from_bytes(blake2b(key, digest_size=8, salt=db.to_bytes(8, "little")).digest(), "little", signed=True)


class CopyState:
    """What a copy knows, for the threads of one run. A context manager, which writes what it has when its block ends.

    Args:
        path: of the file; None for one that is gone at the end, for what a copy has to know for itself alone.
        places: what the copy is between, by what each is called: `{"source": "old:6379", "target": "new:6379/2"}`. They have no
            logins, which may change.
        options: text by which options that matter are known again.

    Raises: ValueError, of one line, where the file is of another copy, is in use by another run, or is no such state; OSError, with
        the name of the file, where it cannot be opened; all methods where it cannot be written.

    Attributes:
        path: as given.
        is_resumed: an earlier run has left something to go on from.
    """

    def __init__(self, path: str | None, places: Mapping[str, str], options: str = "") -> None:
        self.path = path
        self._lock = threading.RLock()
        self._is_open = True
        self._saved_at = time.monotonic()
        self._lanes: dict[tuple[str, int], Lane] = {}
        self._meta: dict[str, str] = {}
        self._hashes: dict[str, set[int]] = {"ours": set(), "foreign": set()}
        self._trouble: dict[tuple[int, bytes], Trouble] = {}
        self._settled: set[tuple[int, bytes]] = set()
        if path is not None:
            _check_name(path)
            # before SQLite makes it, which would let the umask say who may read it
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            os.chmod(path, 0o600)
        # without a name, SQLite keeps it in memory, and in a file that has none when it grows
        with self._errors():
            self._database = sqlite3.connect(path or "", timeout=0, isolation_level=None, check_same_thread=False)
        try:
            with self._errors():
                self.is_resumed = self._begin()
            self._check_identity(places, options)
        except BaseException:
            self._database.close()
            raise

    def __enter__(self) -> CopyState:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- how far it is

    def lanes(self) -> list[Lane]:
        """All lanes."""
        with self._lock:
            self.commit()
            with self._errors():
                rows = self._database.execute("SELECT * FROM lane ORDER BY node, db").fetchall()
        return [
            Lane(node, db, process, cursor, slots, bool(done), keys, size)
            for node, db, process, cursor, slots, done, keys, size in rows
        ]

    def lane(self, node: str, db: int, process: str, slots: str = "") -> Lane:
        """The lane of a node's database, where to go on: at its cursor for the same process with the same slots, else at the start.

        Args:
            process: what the node is now; empty where that cannot be told.
        """
        found = next((lane for lane in self.lanes() if (lane.node, lane.db) == (node, db)), None)
        if found is None or not process or (found.process, found.slots) != (process, slots):
            return Lane(node, db, process, slots=slots)
        return found

    def keep(self, lane: Lane) -> None:
        """Note how far a lane is; all that was noted before this is written with it, or sooner."""
        with self._lock:
            self._lanes[lane.node, lane.db] = Lane(**vars(lane))
            self._commit_if_due()

    def forget_lanes(self) -> None:
        """No lane has got anywhere."""
        with self._transaction() as database:
            self._lanes.clear()
            database.execute("DELETE FROM lane")

    def fact(self, name: str) -> Any:
        """What was noted by this name; None where nothing was."""
        with self._lock:
            text = self._meta.get(name)
            if text is None:
                with self._errors():
                    row = self._database.execute("SELECT value FROM meta WHERE name = ?", (name,)).fetchone()
                text = None if row is None else row[0]
        return None if text is None else json.loads(text)

    def set_fact(self, name: str, value: Any) -> None:
        """Note a fact, as JSON has it."""
        with self._lock:
            self._meta[name] = json.dumps(value)
            self._commit_if_due()

    # -- whose keys are whose, as `stable_hash` names them

    def add_ours(self, hashes: Iterable[int]) -> None:
        """Keys of the target whose first write was this copy's."""
        self._add("ours", hashes)

    def add_foreign(self, hashes: Iterable[int]) -> None:
        """Keys of the target that others have written, which are left alone from now on."""
        self._add("foreign", hashes)

    def remove_ours(self, hashes: Iterable[int]) -> None:
        """Keys that are gone from the target: who writes them next makes them anew. They are written at once."""
        self._remove("ours", hashes)

    def remove_foreign(self, hashes: Iterable[int]) -> None:
        """Keys that others had, and that are gone from the target. They are written at once."""
        self._remove("foreign", hashes)

    def ours(self, hashes: Iterable[int]) -> set[int]:
        """Which of these are ours."""
        return self._known("ours", hashes)

    def foreign(self, hashes: Iterable[int]) -> set[int]:
        """Which of these are others'."""
        return self._known("foreign", hashes)

    # -- keys that are not as they are on the source

    def add_trouble(self, trouble: Trouble) -> None:
        """Note what is wrong with a key, in place of what was noted of it before."""
        with self._lock:
            self._settled.discard((trouble.db, trouble.key))
            self._trouble[trouble.db, trouble.key] = trouble
            self._commit_if_due()

    def settle(self, db: int, key: bytes) -> None:
        """Nothing is wrong with a key any more."""
        with self._lock:
            self._trouble.pop((db, key), None)
            self._settled.add((db, key))
            self._commit_if_due()

    def troubled(self, db: int, keys: Iterable[bytes]) -> set[bytes]:
        """Those of these keys with which something is wrong."""
        with self._lock:
            asked = list(keys)
            found = {key for key in asked if (db, key) in self._trouble}
            for at in range(0, len(asked), _AT_A_TIME):
                some = asked[at : at + _AT_A_TIME]
                with self._errors():
                    rows = self._database.execute(
                        f"SELECT key FROM trouble WHERE db = ? AND key IN ({','.join('?' * len(some))})", [db, *some]
                    ).fetchall()
                found.update(key for (key,) in rows if (db, key) not in self._settled)
        return found

    def trouble_counts(self) -> dict[str, int]:
        """How many keys each kind of trouble has."""
        with self._lock:
            self.commit()
            with self._errors():
                return dict(self._database.execute("SELECT what, count(*) FROM trouble GROUP BY what ORDER BY what").fetchall())

    def trouble(self, most: int = -1, what: str | None = None) -> list[Trouble]:
        """What is wrong, by database and key.

        Args:
            most: so many at most; all where it is negative.
            what: of this kind alone.
        """
        with self._lock:
            self.commit()
            with self._errors():
                rows = self._database.execute(
                    "SELECT db, key, what, detail FROM trouble WHERE ?1 IS NULL OR what = ?1 ORDER BY db, key LIMIT ?2",
                    (what, most),
                )
                return [Trouble(*row) for row in rows]

    # -- values that are written in parts

    def parts(self) -> list[Part]:
        """Temporary keys that may be on the target."""
        with self._lock, self._errors():
            return [Part(*row) for row in self._database.execute("SELECT name, db, key FROM part")]

    def add_parts(self, parts: Iterable[Part]) -> None:
        """Note temporary keys before they are made; they are written at once, so that no run leaves one that nobody knows of."""
        with self._transaction() as database:
            database.executemany("INSERT OR REPLACE INTO part VALUES (?, ?, ?)", parts)

    def remove_parts(self, names: Iterable[bytes]) -> None:
        """Temporary keys are gone, or have got their names."""
        with self._transaction() as database:
            database.executemany("DELETE FROM part WHERE name = ?", ((name,) for name in names))

    # -- the file

    def commit(self) -> None:
        """Write what was noted."""
        with self._transaction():
            pass

    def close(self) -> None:
        """Write what was noted, and close the file, from which another run goes on."""
        with self._lock:
            if not self._is_open:
                return
            try:
                self.commit()
            finally:
                self._is_open = False
                self._database.close()

    def remove(self) -> None:
        """Close the file and remove it: nothing is left to continue."""
        with self._lock:
            self._is_open = False
            self._database.close()
            for ending in ("", "-wal", "-shm", "-journal") if self.path is not None else ():
                with suppress(FileNotFoundError):
                    os.unlink(f"{self.path}{ending}")

    # -- inside

    def _begin(self) -> bool:
        """Take the file for this run alone, and make its tables; whether an earlier run has."""
        database = self._database
        database.execute("PRAGMA locking_mode = EXCLUSIVE")
        application = database.execute("PRAGMA application_id").fetchone()[0]
        form = database.execute("PRAGMA user_version").fetchone()[0]
        is_new = not database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if not is_new and (application, form) != (_APPLICATION, _FORM):
            raise self._other_file()
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        database.execute("BEGIN EXCLUSIVE")
        if is_new:
            for statement in _TABLES.split(";"):
                database.execute(statement)
            database.execute(f"PRAGMA application_id = {_APPLICATION}")
            database.execute(f"PRAGMA user_version = {_FORM}")
        database.execute("COMMIT")
        return not is_new

    def _check_identity(self, places: Mapping[str, str], options: str) -> None:
        """Raise ValueError where the state is of something else; one that is new is of this."""
        digest = blake2b(options.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
        saved = self.fact("identity")
        named = {name: valid_text(place) for name, place in places.items()}
        if saved is None:
            self.set_fact("identity", {"places": named, "options": digest})
            self.commit()
            return
        for name, place in named.items():
            if saved["places"].get(name) != place:
                raise self._not_continued(f"its {name} is {saved['places'].get(name)}, not {place}")
        if saved["options"] != digest:
            raise self._not_continued("other options are given")

    def _not_continued(self, why: str) -> ValueError:
        return ValueError(f"{self.path} cannot be continued: {why}; remove it to begin again")

    def _other_file(self) -> ValueError:
        return ValueError(f"{self.path} is no state of rdbkit copy; name another state file, or delete it")

    def _add(self, table: str, hashes: Iterable[int]) -> None:
        with self._lock:
            self._hashes[table].update(hashes)
            self._commit_if_due()

    def _remove(self, table: str, hashes: Iterable[int]) -> None:
        gone = list(hashes)
        if not gone:
            return
        with self._transaction() as database:
            database.executemany(f'DELETE FROM "{table}" WHERE hash = ?', ((each,) for each in gone))

    def _known(self, table: str, hashes: Iterable[int]) -> set[int]:
        with self._lock:
            asked = list(dict.fromkeys(hashes))
            found = self._hashes[table].intersection(asked)
            for at in range(0, len(asked), _AT_A_TIME):
                some = asked[at : at + _AT_A_TIME]
                with self._errors():
                    rows = self._database.execute(
                        f'SELECT hash FROM "{table}" WHERE hash IN ({",".join("?" * len(some))})', some
                    ).fetchall()
                found.update(row[0] for row in rows)
        return found

    def _commit_if_due(self) -> None:
        waiting = len(self._trouble) + len(self._settled) + sum(map(len, self._hashes.values()))
        if waiting >= _MOST_WAITING or time.monotonic() - self._saved_at >= _COMMIT_S:
            self.commit()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Write all that was noted, and what the block writes."""
        with self._lock:
            with self._errors():
                self._database.execute("BEGIN")
                try:
                    self._write_noted()
                    yield self._database
                    self._database.execute("COMMIT")
                except BaseException:
                    with suppress(sqlite3.Error):
                        self._database.execute("ROLLBACK")
                    raise
            self._lanes, self._meta, self._trouble, self._settled = {}, {}, {}, set()
            for hashes in self._hashes.values():
                hashes.clear()
            self._saved_at = time.monotonic()

    def _write_noted(self) -> None:
        many = self._database.executemany
        for table, hashes in self._hashes.items():
            many(f'INSERT OR IGNORE INTO "{table}" VALUES (?)', ((each,) for each in sorted(hashes)))
        many("DELETE FROM trouble WHERE db = ? AND key = ?", self._settled)
        many("INSERT OR REPLACE INTO trouble VALUES (?, ?, ?, ?)", self._trouble.values())
        many("INSERT OR REPLACE INTO meta VALUES (?, ?)", self._meta.items())
        many(
            "INSERT OR REPLACE INTO lane VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            ((e.node, e.db, e.process, e.cursor, e.slots, e.done, e.keys, e.size) for e in self._lanes.values()),
        )

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """What SQLite says, in the words of files. Raises: ValueError, OSError."""
        try:
            yield
        except sqlite3.Error as e:
            code = getattr(e, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise ValueError(
                    f"{self.path} is in use by another run of rdbkit copy; wait for it, or name another state file"
                ) from None
            if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_FORMAT):
                raise self._other_file() from None
            number = _NUMBERS.get(code)
            if number is None:
                raise OSError(errno.EIO, f"the state cannot be saved: {e}", self.path) from None
            raise OSError(number, os.strerror(number), self.path) from None


_NUMBERS: Final = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_READONLY: errno.EACCES,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
}


def _check_name(path: str) -> None:
    if path == "-" or path.endswith(".gz"):
        raise ValueError(f"a state is kept in a file of its own, which {path} does not name")

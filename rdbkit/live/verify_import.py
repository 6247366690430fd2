"""`rdbkit verify-import`: whether a server has what was in snapshots, key by key, without changing anything in it.

Each key of the files is looked for by `rdbkit.live.compare`; here are the files, the counts, and the state of the work.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from rdbkit.format.record import Record
from rdbkit.format.replies import Refusal
from rdbkit.live.compare import OUTCOMES, Comparer, Outcome, hashes_not_in
from rdbkit.live.databases import keys_of
from rdbkit.live.pace import batch_at, check_rate
from rdbkit.live.server import Server, connected
from rdbkit.live.verification import (
    Picker,
    check_pick,
    compare_libraries,
    libraries_of_nodes,
    note_of_evictions,
)
from rdbkit.model import FunctionLibrary
from rdbkit.operations.arguments import File, paths_of
from rdbkit.operations.diff_delta import FunctionDifference
from rdbkit.passes.hashes import NameHashes, name_hash
from rdbkit.selection import Selection
from rdbkit.snapshot.reader import Snapshot, open_snapshot
from rdbkit.storage.location import fingerprint, total_size
from rdbkit.storage.source import Rereading
from rdbkit.storage.state import StateFile
from rdbkit.text import count, json_bytes, valid_text

__all__ = ["ImportDifference", "ImportProof", "ImportedDatabase", "verify_import"]

_BATCH_BYTES: Final = 4 << 20
_ROUND: Final = 10_000  # keys of a file after which its place is kept, however few of them are looked for
_SAVE_S: Final = 2.0
_FORMAT: Final = 1
#: What a state belongs to, and what is said where that is another.
_IDENTITY: Final = {
    "files": "a file has changed since, or others are given",
    "server": "it is of another server",
    "options": "other options are given",
}


@dataclass
class ImportDifference:
    """A key that the server does not have as it was in the file.

    Attributes:
        what: "missing", "type", "value", "expire", "refused" (the server does not answer) or "extra" (it is in no file).
        db: the server's database.
        types: in the file, and on the server where it is asked for because it is another.
        expire_ms: absolute expiry in the file and on the server, in Unix milliseconds; None for none.
        file, offset: where its record begins, in bytes.
        details: the first elements that differ, or the server's words.
    """

    what: str
    db: int
    key: bytes
    types: tuple[str | None, str | None] = (None, None)
    expire_ms: tuple[int | None, int | None] = (None, None)
    file: str | None = None
    offset: int | None = None
    details: list[str] = field(default_factory=list)


@dataclass
class ImportedDatabase:
    """A database of the server, and what the files have for it.

    Attributes:
        db: its number.
        keys: in the files; `expired` of them had expired when the server was asked for its count, or are hashes whose fields have.
        server: keys that the server counted then (DBSIZE); None where it does not tell.
        missing: keys that were looked for and are not there.
    """

    db: int
    keys: int = 0
    expired: int = 0
    server: int | None = None
    asked_ms: int = 0
    missing: int = 0

    @property
    def fewer(self) -> int:
        """How many keys the server has less than those of the files that live."""
        return 0 if self.server is None else max(0, self.keys - self.expired - self.server)

    @property
    def more(self) -> int:
        """How many keys the server has that are in no file, at least."""
        return 0 if self.server is None else max(0, self.server - self.keys + self.missing)

    @property
    def unclear(self) -> int:
        """How many keys the server counts that have expired, or are in no file."""
        return 0 if self.server is None or self.more else max(0, self.server - self.keys + self.missing + self.expired)


@dataclass
class ImportProof:
    """What `verify_import` found.

    Attributes:
        server, kind, version: its URL without secrets, "standalone" or "cluster", and what it calls itself.
        files: names.
        keys, checked: keys in the files, and how many of them were looked for.
        equal: keys with the same type, value and expiry.
        expired: keys that are gone since their time came: no difference.
        not_compared: keys that are there with the right type and expiry, but whose value cannot be asked for.
        missing, type, value, expire, refused: keys that differ, each counted once; see `ImportDifference`.
        extra: keys of the server that are in no file: exact where they were looked for (`find_extra`), otherwise at least so many.
        databases: one row for each.
        counted: whether the numbers of keys of the databases tell something; not where keys were selected.
        libraries: function libraries in the files, if they were compared.
        functions: those that differ: "missing" on the server or on one of its nodes, "changed", or "extra" (in no file).
        samples: the first of the keys that differ.
        notes: what explains some of it.
    """

    server: str
    kind: str
    version: str | None
    files: list[str]
    keys: int = 0
    checked: int = 0
    equal: int = 0
    expired: int = 0
    not_compared: int = 0
    missing: int = 0
    type: int = 0
    value: int = 0
    expire: int = 0
    refused: int = 0
    extra: int = 0
    databases: list[ImportedDatabase] = field(default_factory=list)
    counted: bool = True
    libraries: int = 0
    functions: list[FunctionDifference] = field(default_factory=list)
    samples: list[ImportDifference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def different(self) -> int:
        """Keys of the files that are not on the server as they were."""
        return self.missing + self.type + self.value + self.expire + self.refused

    @property
    def same(self) -> bool:
        """Whether the server has what was in the files, and nothing else in these databases, and no other functions."""
        return not (self.different or self.extra or self.functions or (self.counted and any(row.fewer for row in self.databases)))

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; keys that are not UTF-8 as `{"base64": ...}`."""
        result = asdict(self)
        for row in result["samples"]:
            row["key"] = json_bytes(row["key"])
            row["file"] = None if row["file"] is None else valid_text(row["file"])
        for row, database in zip(result["databases"], self.databases, strict=True):
            del row["asked_ms"]
            row["fewer"], row["more"] = database.fewer, database.more
        for each in result["functions"]:
            each["name"] = valid_text(each["name"])
        result["files"] = [valid_text(name) for name in self.files]
        result["same"] = self.same
        return result


def verify_import(
    files: File | Iterable[File],
    server: str | Server,
    *,
    selection: Selection | None = None,
    pick: float | int | None = None,
    seed: int = 0,
    ttl_tolerance_ms: int = 1000,
    db_map: Mapping[int, int] | None = None,
    find_extra: bool = False,
    ignore_functions: bool = False,
    batch: int = 256,
    rate: float | None = None,
    state: str | None = None,
    samples: int = 10,
    relaxed: bool = False,
    verify_checksum: bool = True,
    block_size: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> ImportProof:
    """Look for the keys of snapshots in a live server, and compare types, values and expiries, and function libraries.

    Only commands that read are sent. Values are compared by their elements, whatever their encoding; of streams entries, last id,
    groups, consumers and pending entries. Values of modules, arrays and the like are compared where DUMP gives the same bytes.
    Memory does not depend on the number of keys or on the size of values.

    Args:
        files: a path or several; the shards of a cluster together.
        server: its URL, `redis://USER:PASSWORD@HOST:PORT/N`, or rediss:// for TLS; or as `connect` gives it, which takes more.
        selection: which keys to look for; by default all. The databases are those of the files.
        pick: look for a share of them (above 0, below 1), or for about so many (1 or more), chosen by hash of the name.
        seed: another one picks other keys; the same one the same keys in every run.
        ttl_tolerance_ms: so much may expiries be apart, of keys and of fields.
        db_map: the server's database for one of the files; a database that is not in it keeps its number. A server whose URL names
            a database has the keys of all in that one.
        find_extra: list the server's keys, and name those that are in no file.
        ignore_functions: do not compare function libraries. They are not compared either where keys are selected.
        batch: keys to ask for at a time.
        rate: keys a second at most; of a large value, each thousand elements or megabyte counts as one.
        state: a file to keep, every two seconds, what was found so far. Where it is there, the work goes on from it; at the end it
            is removed.
        samples: how many of the keys that differ to name.
        relaxed, verify_checksum, block_size: as for `rdbkit.open`.
        progress: called with the bytes of the files that have been read.

    Raises: ValueError for arguments that do not go together, and for a state of other files or options; TargetError where the
        server cannot be reached or fails, or the connection is lost for long; RdbError where a file is damaged; TypeError for what
        is no path or no server; OSError.

    Example:
        proof = rdbkit.verify_import("dump.rdb", "redis://localhost:6379")
        print(proof.same, proof.missing, proof.value)
    """
    paths = paths_of(files)
    check_pick(pick)
    check_rate(rate)
    options: dict[str, Any] = {"relaxed": relaxed, "verify_checksum": verify_checksum}
    if block_size is not None:
        options["block_size"] = block_size
    with connected(server) as opened:
        if db_map and opened.url.db is not None:
            raise ValueError("a database in the URL is for the keys of all databases; leave it out to map them")
        return _Verification(
            paths, opened, selection or Selection(), pick, seed, ttl_tolerance_ms, dict(db_map or {}), find_extra,
            ignore_functions, batch, rate, state, samples, options, progress,
        ).run()  # fmt: skip


class _Verification:
    def __init__(
        self,
        files: list[str],
        server: Server,
        selection: Selection,
        pick: float | int | None,
        seed: int,
        tolerance_ms: int,
        db_map: dict[int, int],
        find_extra: bool,
        ignore_functions: bool,
        batch: int,
        rate: float | None,
        state: str | None,
        samples: int,
        options: dict[str, Any],
        progress: Callable[[int], object] | None,
    ) -> None:
        self.files = files
        self.server = server
        self.selection = selection
        self.pick = pick
        self.picker = Picker(seed)
        self.db_map = db_map
        self.find_extra = find_extra
        self.batch = batch_at(rate, batch)
        self.state = None if state is None else _State(state, self.identity(tolerance_ms), files)
        self.samples = samples
        self.options = options
        self.rereading = Rereading()
        self.progress = progress
        self.comparer = Comparer(server, tolerance_ms, rate)
        self.proof = ImportProof(str(server.url), server.kind, server.version, files)
        self.proof.counted = selection.is_everything
        self.compares_functions = selection.is_everything and not ignore_functions
        self.rows: dict[int, ImportedDatabase] = {}
        self.position = (0, 0)  # which file is at work, and how many of its records are done
        self.read = 0
        self.unsized: list[tuple[Record, Outcome]] = []

    def identity(self, tolerance_ms: int) -> dict[str, Any]:
        """What a state belongs to."""
        url = self.server.url
        options = [self.pick, self.picker.seed.hex(), tolerance_ms, sorted(self.db_map.items()), repr(self.selection)]
        return {"files": [fingerprint(name) for name in self.files], "server": [url.host, url.port, url.db], "options": options}

    def run(self) -> ImportProof:
        if self.state is not None and (saved := self.state.load()) is not None:
            with self.state.file.reading():
                self.restore(saved)
        if self.pick is not None:
            self.picker.choose(self.pick, 0 if self.pick < 1 else self.count())
        first, done = self.position
        self.read = total_size(self.files[:first])
        for number in range(first, len(self.files)):
            self.check_file(number, done if number == first else 0)
        proof = self.proof
        proof.databases = [self.rows[db] for db in sorted(self.rows)]
        if self.find_extra:
            proof.extra = self.extra_keys()
        elif proof.counted:
            proof.extra = sum(row.more for row in proof.databases)
        if self.compares_functions:
            self.compare_functions()
        self.explain()
        if self.state is not None:
            self.state.file.remove()
        return proof

    # -- files

    def open(self, number: int, again: bool = False) -> Snapshot:
        options = self.options | ({"verify_checksum": False} if again else {})
        return open_snapshot(self.files[number], rereading=self.rereading, **options)

    def database(self, db: int) -> int:
        """The server's database for one of the files."""
        return self.server.url.db if self.server.url.db is not None else self.db_map.get(db, db)

    def count(self) -> int:
        """How many keys there are to pick from."""
        total = 0
        for number in range(len(self.files)):
            with self.open(number, again=True) as snapshot:
                total += sum(1 for record in snapshot if self.selection(record))
        return total

    def check_file(self, number: int, done: int) -> None:
        """Look for the keys of a file from its record `done` on."""
        waiting: list[Record] = []
        held = 0
        at = 0
        with self.open(number) as snapshot:
            for record in snapshot:
                at += 1
                if at <= done:
                    continue
                self.note_unsized(number)
                if record.size is None or (waiting and self.database(record.db) != self.database(waiting[0].db)):
                    self.look(waiting, number)
                    waiting, held = [], 0
                self.seen(record)
                if self.wants(record):
                    waiting.append(record)
                    held += record.size or 0
                if record.size is None or len(waiting) >= self.batch or held >= _BATCH_BYTES or at % _ROUND == 0:
                    # one larger than a block can be read until the next is asked for
                    self.look(waiting, number)
                    waiting, held = [], 0
                    self.advance(number, at)
                    if self.progress is not None:
                        self.progress(self.read + snapshot.position)
            self.look(waiting, number)
            self.note_unsized(number)
            self.read += snapshot.position
        self.advance(number + 1, 0)

    def wants(self, record: Record) -> bool:
        return self.selection(record) and self.picker(record.key)

    def seen(self, record: Record) -> None:
        """Count a key, and ask for the number of keys where it is the first of its database."""
        db = self.database(record.db)
        row = self.rows.get(db)
        if row is None:
            row = self.rows[db] = ImportedDatabase(db, server=keys_of(self.server, [db]), asked_ms=self.server.now_ms())
        row.keys += 1
        self.proof.keys += 1
        if record.expire_ms is not None and record.expire_ms <= row.asked_ms + self.comparer.tolerance_ms:
            row.expired += 1

    def look(self, records: list[Record], number: int) -> None:
        """Ask for keys of one database, and note what became of them."""
        if not records:
            return
        db = self.database(records[0].db)
        for record, outcome in zip(records, self.comparer.compare(db, records), strict=True):
            if self.selection.needs_size and record.size is None:
                self.unsized.append((record, outcome))
            elif not self.selection.needs_size or self.selection.wants_size(record.size or 0):
                self.note(record, db, number, outcome)

    def note_unsized(self, number: int) -> None:
        """Of a record larger than a block the size is known now that it has been passed."""
        for record, outcome in self.unsized:
            if self.selection.wants_size(record.size or 0):
                self.note(record, self.database(record.db), number, outcome)
        self.unsized.clear()

    def note(self, record: Record, db: int, number: int, outcome: Outcome) -> None:
        proof = self.proof
        proof.checked += 1
        name = outcome.what.replace("-", "_")
        setattr(proof, name, getattr(proof, name) + 1)
        if outcome.what == "missing":
            self.rows[db].missing += 1
        elif outcome.what == "expired" and not self.comparer.is_past(record.expire_ms):
            self.rows[db].expired += 1  # a hash whose fields have
        if outcome.what in ("equal", "expired", "not-compared") or len(proof.samples) >= self.samples:
            return
        proof.samples.append(
            ImportDifference(
                outcome.what, db, record.key, (record.type, outcome.server_type), (record.expire_ms, outcome.server_expire_ms),
                self.files[number], record.offset, outcome.details,
            )
        )  # fmt: skip

    def explain(self) -> None:
        """Notes that help to understand the rest."""
        proof = self.proof
        if proof.missing:
            note = note_of_evictions(self.server)
            if note is not None:
                proof.notes.append(note)
        for row in proof.databases if proof.counted else ():
            if row.fewer > row.missing:
                proof.notes.append(
                    f"database {row.db}: the server has {count(row.fewer, 'key')} fewer than those of the files that live"
                )
        if proof.counted and not self.find_extra:
            for row in proof.databases:
                if row.unclear:
                    proof.notes.append(
                        f"database {row.db}: of the keys that the server counts, {row.unclear:,} may have expired, or be in no file"
                    )

    # -- functions

    def compare_functions(self) -> None:
        """By name and source; each node of a cluster has all of them."""
        ours = self.libraries_of_files()
        nodes = libraries_of_nodes(self.server)
        if isinstance(nodes, Refusal):
            if ours:
                self.proof.notes.append(f"function libraries were not compared: {nodes}")
            return
        self.proof.libraries = len(ours)
        self.proof.functions = compare_libraries(ours, nodes)

    def libraries_of_files(self) -> dict[str, set[bytes]]:
        """The sources that function libraries have in the files, by their names."""
        found: dict[str, set[bytes]] = {}
        for number in range(len(self.files)):
            with self.open(number, again=True) as snapshot:
                for event, _ in snapshot.prelude():
                    if isinstance(event, FunctionLibrary):
                        found.setdefault(event.name, set()).add(event.code)
        return found

    # -- keys that are in no file

    def extra_keys(self) -> int:
        """Count and name the server's keys that are in no file, in the databases of the files."""
        with ExitStack() as stack:
            ours, theirs = NameHashes(), NameHashes()
            stack.callback(ours.close)
            stack.callback(theirs.close)
            for number in range(len(self.files)):
                with self.open(number, again=True) as snapshot:
                    for record in snapshot:
                        ours.add(self.database(record.db), record.key)
            for db in self.rows:
                for names in self.server.scan(db):
                    self.comparer.rate_limiter.take(len(names))
                    for name in names:
                        theirs.add(db, name)
            unknown = set(hashes_not_in(ours, theirs))
        shown: set[int] = set()
        for db in self.rows if unknown else ():
            for names in self.server.scan(db):
                for name in names:
                    hashed = name_hash(db, name)
                    if hashed in unknown and hashed not in shown and len(self.proof.samples) < self.samples:
                        shown.add(hashed)
                        self.proof.samples.append(ImportDifference("extra", db, name))
                if len(self.proof.samples) >= self.samples:
                    break
        return len(unknown)

    # -- state

    def advance(self, number: int, done: int) -> None:
        """All up to here has been looked at."""
        self.position = number, done
        if self.state is not None and not self.unsized:
            self.state.save(self.saved)

    def saved(self) -> dict[str, Any]:
        proof = self.proof
        counts = {name: getattr(proof, name) for name in ("keys", "checked", *(n.replace("-", "_") for n in OUTCOMES))}
        shown = [
            asdict(each) | {"key": each.key.hex(), "file": each.file and self.files.index(each.file)} for each in proof.samples
        ]
        return {
            "place": self.position,
            "counts": counts,
            "databases": [asdict(row) for row in self.rows.values()],
            "samples": shown,
        }

    def restore(self, saved: Any) -> None:
        """Take over what was saved. Raises: ValueError, TypeError and the like where it has another form than `saved` gives it."""
        number, done = saved["place"]
        self.position = _number(number, len(self.files)), _number(done)
        for name in ("keys", "checked", *(n.replace("-", "_") for n in OUTCOMES)):
            setattr(self.proof, name, _number(saved["counts"][name]))
        for row in saved["databases"]:
            numbers: dict[str, Any] = {name: _number(n) for name, n in row.items() if name != "server" or n is not None}
            self.rows[row["db"]] = ImportedDatabase(**numbers)
        for each in saved["samples"]:
            self.proof.samples.append(
                ImportDifference(
                    OUTCOMES[OUTCOMES.index(each["what"])], _number(each["db"]), bytes.fromhex(each["key"]),
                    (_text(each["types"][0]), None if each["types"][1] is None else _text(each["types"][1])),
                    (_time(each["expire_ms"][0]), _time(each["expire_ms"][1])),
                    self.files[_number(each["file"])], _number(each["offset"]), [_text(line) for line in each["details"]],
                )
            )  # fmt: skip
        del self.proof.samples[self.samples :]  # the run that saved them may have been asked for more


# -- state


def _number(value: Any, most: int = 1 << 64) -> int:
    """What a state has to have there. Raises: ValueError."""
    if not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError
    return value


def _time(value: Any) -> int | None:
    """An expiry, which is negative in some files."""
    return value if isinstance(value, int) and value < 0 else None if value is None else _number(value)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return value


class _State:
    """What is known so far, in a file that belongs to these files, this server and these options; it has no secrets."""

    def __init__(self, path: str, identity: dict[str, Any], sources: list[str]) -> None:
        self.file = StateFile(path, "rdbkit verify-import", _FORMAT, sources, former="rdbkit-verify-import")
        self.identity = json.loads(json.dumps(identity))
        self.saved_at = time.monotonic()

    def load(self) -> Any:
        """What was saved; None where nothing was. Raises: ValueError where it is of something else."""
        found = self.file.load()
        if found is None:
            return None
        with self.file.reading():
            saved = found["saved"]
            same = {name: found[name] == self.identity[name] for name in _IDENTITY}
        for name, what in _IDENTITY.items():
            if not same[name]:
                raise ValueError(f"{self.file.path} cannot be continued: {what}; remove it to begin again")
        return saved

    def save(self, saved: Callable[[], dict[str, Any]]) -> None:
        """Keep this, if some time has passed since the last."""
        if time.monotonic() - self.saved_at < _SAVE_S:
            return
        self.file.save({**self.identity, "saved": saved()})
        self.saved_at = time.monotonic()

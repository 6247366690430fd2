"""`rdbkit verify-import`: whether a server has what was in snapshots, key by key, without changing anything in it.

Each key of the files is asked for: when it expires, how many elements it has, and each element that the file has. So a value of any
size is compared in pieces, and what the server holds besides shows in its counts. Questions about many keys go out together.
"""

from __future__ import annotations

import json
import math
import os
import time
from array import array
from collections.abc import Callable, Collection, Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any, Final, TypeAlias

from librt.strings import write_i64_le

from rdbkit.format.record import Record
from rdbkit.live.server import Refusal, Server, info_number
from rdbkit.model import FunctionLibrary
from rdbkit.operations.diff_delta import FunctionDifference
from rdbkit.operations.resp import command
from rdbkit.passes.hashes import PARTITIONS, HashPartitions, name_hash
from rdbkit.selection import Selection
from rdbkit.snapshot.reader import Snapshot, open_snapshot
from rdbkit.storage.output import open_output
from rdbkit.storage.rate_limiter import RateLimiter
from rdbkit.storage.source import Rereading
from rdbkit.text import count, json_bytes, valid_text
from rdbkit.values import StreamEntry, StreamGroup, StreamId, StreamTail

__all__ = ["LEAST_RATE", "ImportDifference", "ImportProof", "ImportedDatabase", "verify_import"]

#: A comparison asks for replies to commands, several times where a value is large, and returns what differs, in words.
Comparison: TypeAlias = "Generator[list[bytes], list[Any], list[str] | None]"

#: Keys a second; with fewer, the pauses were longer than a machine can wait.
LEAST_RATE: Final = 0.001
_SHOWN: Final = 5  # elements of a key
_SHOWN_BYTES: Final = 60
_WINDOW: Final = 1000  # elements of a command
_PENDING_WINDOW: Final = 10_000
_PIECE: Final = 1 << 20  # bytes of a string
_BATCH_BYTES: Final = 4 << 20
_ROUND: Final = 10_000  # keys of a file after which its place is kept, however few of them are looked for
_SAVE_S: Final = 2.0
_STATE: Final = 1  # version of its form
_TYPES: Final = ("string", "list", "set", "zset", "hash", "stream")
#: Types of the file in which fields of a hash have expiries of their own.
_EXPIRING_HASHES: Final = (22, 23, 24, 25)
#: What may become of a key; all but the first three are differences.
_OUTCOMES: Final = ("equal", "expired", "not-compared", "missing", "type", "value", "expire", "refused")


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
        libraries: libraries of functions in the files, if they were compared.
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
    files: Sequence[str],
    server: Server,
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
    """Look for the keys of snapshots in a live server, and compare types, values and expiries, and libraries of functions.

    Only commands that read are sent. Values are compared by their elements, whatever their encoding; of streams entries, last id,
    groups, consumers and pending entries. Values of modules, arrays and the like are compared where DUMP gives the same bytes.
    Memory does not depend on the number of keys or on the size of values.

    Args:
        files: paths; the shards of a cluster together.
        server: as `connect` gives it.
        selection: which keys to look for; by default all. The databases are those of the files.
        pick: look for a share of them (above 0, below 1), or for about so many (1 or more), chosen by hash of the name.
        seed: another one picks other keys; the same one the same keys in every run.
        ttl_tolerance_ms: so much may expiries be apart, of keys and of fields.
        db_map: the server's database for one of the files; a database that is not in it keeps its number. A server whose URL names
            a database has the keys of all in that one.
        find_extra: list the server's keys, and name those that are in no file.
        ignore_functions: do not compare libraries of functions. They are not compared either where keys are selected.
        batch: keys to ask for at a time.
        rate: keys a second at most; of a large value, each thousand elements or megabyte counts as one.
        state: a file to keep, every two seconds, what was found so far. Where it is there, the work goes on from it; at the end it
            is removed.
        samples: how many of the keys that differ to name.
        relaxed, verify_checksum, block_size: as for `rdbkit.open`.
        progress: called with the bytes of the files that have been read.

    Raises: ValueError for arguments that do not go together, and for a state of other files or options; TargetError where the
        server fails or the connection is lost for long; RdbError where a file is damaged; OSError.
    """
    if pick is not None and not 0 < pick < math.inf:
        raise ValueError("a share or number of keys is greater than 0")
    if rate is not None and not LEAST_RATE <= rate < math.inf:
        raise ValueError(f"a rate is a number of keys a second, at least {LEAST_RATE}")
    if db_map and server.url.db is not None:
        raise ValueError("a database in the URL is for the keys of all databases; leave it out to map them")
    options: dict[str, Any] = {"relaxed": relaxed, "verify_checksum": verify_checksum}
    if block_size is not None:
        options["block_size"] = block_size
    return _Check(
        list(files), server, selection or Selection(), pick, seed, ttl_tolerance_ms, dict(db_map or {}), find_extra,
        ignore_functions, batch, rate, state, samples, options, progress,
    ).run()  # fmt: skip


@dataclass
class _Outcome:
    """What became of a key."""

    what: str
    server_type: str | None = None
    server_expire_ms: int | None = None
    details: list[str] = field(default_factory=list)


class _Check:
    def __init__(
        self,
        files: list[str],
        server: Server,
        selection: Selection,
        pick: float | int | None,
        seed: int,
        tolerance: int,
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
        self.seed = seed.to_bytes(8, "little", signed=True)
        self.below: float | None = None
        self.db_map = db_map
        self.find_extra = find_extra
        self.batch = batch if rate is None else max(1, min(batch, int(rate / 4)))
        self.state = None if state is None else _State(state, self.identity(tolerance), files)
        self.samples = samples
        self.options = options
        self.rereading = Rereading()
        self.progress = progress
        self.asker = _Asker(server, tolerance, rate)
        self.proof = ImportProof(str(server.url), server.kind, server.version, files)
        self.proof.counted = selection.is_everything
        self.compares_functions = selection.is_everything and not ignore_functions
        self.rows: dict[int, ImportedDatabase] = {}
        self.position = (0, 0)  # which file is at work, and how many of its records are done
        self.read = 0
        self.unsized: list[tuple[Record, _Outcome]] = []

    def identity(self, tolerance: int) -> dict[str, Any]:
        """What a state belongs to."""
        url = self.server.url
        options = [self.pick, self.seed.hex(), tolerance, sorted(self.db_map.items()), repr(self.selection)]
        return {"files": [_identity(name) for name in self.files], "server": [url.host, url.port, url.db], "options": options}

    def run(self) -> ImportProof:
        if self.state is not None and (saved := self.state.load()) is not None:
            try:
                self.restore(saved)
            except (LookupError, TypeError, ValueError, AttributeError):
                raise ValueError(self.state.no_state) from None
        if self.pick is not None:
            self.below = float(self.pick) if self.pick < 1 else min(1.0, self.pick / max(1, self.count()))
        first, done = self.position
        self.read = sum(os.path.getsize(name) for name in self.files[:first])
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
            self.state.remove()
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
        if not self.selection(record):
            return False
        return self.below is None or self.fraction(record.key) < self.below

    def fraction(self, key: bytes) -> float:
        """A number from 0 on, below 1, that a name always has."""
        return int.from_bytes(blake2b(key, key=self.seed, digest_size=8).digest(), "big") / (1 << 64)

    def seen(self, record: Record) -> None:
        """Count a key, and ask for the number of keys where it is the first of its database."""
        db = self.database(record.db)
        row = self.rows.get(db)
        if row is None:
            replies = [found[0] for found in self.server.ask_each_node(db, [command(b"DBSIZE")])]
            total = sum(replies) if all(isinstance(reply, int) for reply in replies) else None
            row = self.rows[db] = ImportedDatabase(db, server=total, asked_ms=self.server.now_ms())
        row.keys += 1
        self.proof.keys += 1
        if record.expire_ms is not None and record.expire_ms <= row.asked_ms + self.asker.tolerance:
            row.expired += 1

    def look(self, records: list[Record], number: int) -> None:
        """Ask for keys of one database, and note what became of them."""
        if not records:
            return
        db = self.database(records[0].db)
        for record, outcome in zip(records, self.asker.ask(db, records), strict=True):
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

    def note(self, record: Record, db: int, number: int, outcome: _Outcome) -> None:
        proof = self.proof
        proof.checked += 1
        name = outcome.what.replace("-", "_")
        setattr(proof, name, getattr(proof, name) + 1)
        if outcome.what == "missing":
            self.rows[db].missing += 1
        elif outcome.what == "expired" and not self.asker.is_past(record.expire_ms):
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
            evicted = info_number(
                [found[0] for found in self.server.ask_each_node(0, [command(b"INFO", b"stats")])], "evicted_keys"
            )
            if evicted:
                proof.notes.append(f"the server has evicted {evicted:,} keys since it started, for want of memory")
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
        ours: dict[str, set[bytes]] = {}
        for number in range(len(self.files)):
            with self.open(number, again=True) as snapshot:
                for event, _ in snapshot.prelude():
                    if isinstance(event, FunctionLibrary):
                        ours.setdefault(event.name, set()).add(event.code)
        replies = [found[0] for found in self.server.ask_each_node(0, [command(b"FUNCTION", b"LIST", b"WITHCODE")])]
        refusal = next((reply for reply in replies if isinstance(reply, Refusal)), None)
        if refusal is None:
            nodes = [_libraries(reply) for reply in replies]
        elif "unknown command" in refusal.text.lower():
            nodes = [{}]  # before Redis 7.0 there are no functions
        else:
            if ours:
                self.proof.notes.append(f"libraries of functions were not compared: {refusal}")
            return
        self.proof.libraries = len(ours)
        for name in sorted(ours.keys() | {name for node in nodes for name in node}):
            if name not in ours:
                self.proof.functions.append(FunctionDifference("extra", name))
            elif not all(name in node for node in nodes):
                self.proof.functions.append(FunctionDifference("missing", name))
            elif not all(node[name] in ours[name] for node in nodes):
                self.proof.functions.append(FunctionDifference("changed", name))

    # -- keys that are in no file

    def extra_keys(self) -> int:
        """Count and name the server's keys that are in no file, in the databases of the files."""
        with ExitStack() as stack:
            ours, theirs = HashPartitions(), HashPartitions()
            stack.callback(ours.close)
            stack.callback(theirs.close)
            for number in range(len(self.files)):
                with self.open(number, again=True) as snapshot:
                    for record in snapshot:
                        _partition(ours, name_hash(self.database(record.db), record.key))
            for db in self.rows:
                for names in self.server.scan(db):
                    self.asker.pace.take(len(names))
                    for name in names:
                        _partition(theirs, name_hash(db, name))
            unknown = set(_unknown(ours, theirs))
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
        counts = {name: getattr(proof, name) for name in ("keys", "checked", *(n.replace("-", "_") for n in _OUTCOMES))}
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
        for name in ("keys", "checked", *(n.replace("-", "_") for n in _OUTCOMES)):
            setattr(self.proof, name, _number(saved["counts"][name]))
        for row in saved["databases"]:
            numbers: dict[str, Any] = {name: _number(n) for name, n in row.items() if name != "server" or n is not None}
            self.rows[row["db"]] = ImportedDatabase(**numbers)
        for each in saved["samples"]:
            self.proof.samples.append(
                ImportDifference(
                    _OUTCOMES[_OUTCOMES.index(each["what"])], _number(each["db"]), bytes.fromhex(each["key"]),
                    (_text(each["types"][0]), None if each["types"][1] is None else _text(each["types"][1])),
                    (_time(each["expire_ms"][0]), _time(each["expire_ms"][1])),
                    self.files[_number(each["file"])], _number(each["offset"]), [_text(line) for line in each["details"]],
                )
            )  # fmt: skip


def _libraries(reply: list[list[Any]]) -> dict[str, bytes]:
    """Names and sources of what FUNCTION LIST WITHCODE tells."""
    found = {}
    for library in reply:
        facts = dict(zip(library[::2], library[1::2], strict=True))
        found[facts[b"library_name"].decode("utf-8", "surrogateescape")] = bytes(facts[b"library_code"])
    return found


def _partition(partitions: HashPartitions, number: int) -> None:
    write_i64_le(partitions.outs[number & (PARTITIONS - 1)], number)
    partitions.grown(8)


def _unknown(ours: HashPartitions, theirs: HashPartitions) -> Iterator[int]:
    """The numbers of `theirs` that are not in `ours`, each once."""
    for number in range(PARTITIONS):
        yield from set(array("q", theirs.partition(number))) - set(array("q", ours.partition(number)))


# -- state


def _identity(name: str) -> list[Any]:
    """What tells a file from another: size, time of change, first and last bytes (header and checksum)."""
    found = os.stat(name)
    with open(name, "rb") as file:
        head = file.read(16)
        file.seek(max(0, found.st_size - 16))
        return [valid_text(os.path.basename(name)), found.st_size, found.st_mtime_ns, head.hex(), file.read(16).hex()]


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
    """A file that appears whole each time; it has no secrets."""

    def __init__(self, path: str, identity: dict[str, Any], sources: list[str]) -> None:
        self.path = path
        self.sources = sources
        self.identity = json.loads(json.dumps(identity))
        self.saved_at = time.monotonic()
        self.no_state = f"{path} is no state of verify-import; delete it, or name another"

    def load(self) -> Any:
        """What was saved; None where nothing was. Raises: ValueError where it is of something else."""
        try:
            with open(self.path, "rb") as file:
                found = json.load(file)
            if not isinstance(found, dict) or found.get("rdbkit-verify-import") != _STATE:
                raise ValueError
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError):
            raise ValueError(self.no_state) from None
        for name, what in (("files", "a file has changed since, or others are given"), ("server", "it is of another server"),
                           ("options", "other options are given")):  # fmt: skip
            if found.get(name) != self.identity[name]:
                raise ValueError(f"{self.path} cannot be gone on with: {what}; remove it to begin again")
        return found.get("saved", {})

    def save(self, saved: Callable[[], dict[str, Any]]) -> None:
        """Keep this, if some time has passed since the last."""
        if time.monotonic() - self.saved_at < _SAVE_S:
            return
        text = json.dumps({"rdbkit-verify-import": _STATE, **self.identity, "saved": saved()})
        with open_output(self.path, True, self.sources) as out:
            out.write(text.encode())
        self.saved_at = time.monotonic()

    def remove(self) -> None:
        """All is done."""
        with suppress(FileNotFoundError):
            os.unlink(self.path)


# -- asking


class _Asker:
    """Asks for keys, several at once, and tells what became of each."""

    def __init__(self, server: Server, tolerance: int, rate: float | None) -> None:
        self.server = server
        self.tolerance = tolerance
        self.pace = RateLimiter(rate)
        self.absolute = "PEXPIRETIME" in server.features
        self.expire_command = b"PEXPIRETIME" if self.absolute else b"PTTL"
        self.before = self.after = 0  # the server's clock around the last replies

    def ask(self, db: int, records: list[Record]) -> list[_Outcome]:
        outcomes: list[_Outcome | None] = [None] * len(records)
        running: list[tuple[int, bytes, Generator[list[bytes], list[Any], _Outcome], list[bytes]]] = []
        for i, record in enumerate(records):
            steps = self.examine(record)
            running.append((i, record.key, steps, next(steps)))
        while running:
            self.pace.take(len(running))
            self.before = self.server.now_ms()
            replies = self.server.ask(db, [(key, commands) for _, key, _, commands in running])
            self.after = self.server.now_ms()
            going = []
            for (i, key, steps, _), found in zip(running, replies, strict=True):
                try:
                    going.append((i, key, steps, steps.send(found)))
                except StopIteration as done:
                    outcomes[i] = done.value
            running = going
        return [outcome for outcome in outcomes if outcome is not None]

    def examine(self, record: Record) -> Generator[list[bytes], list[Any], _Outcome]:
        """Ask for one key."""
        value = self.comparison(record)
        replies = yield [command(self.expire_command, record.key), *next(value)]
        left, found = replies[0], replies[1:]
        if isinstance(left, Refusal):
            return _Outcome("refused", details=[str(left)])
        if left == -2:
            return _Outcome("expired" if self.is_past(record.expire_ms) or self.has_no_fields(record) else "missing")
        low = high = None
        if left >= 0:
            low, high = (left, left) if self.absolute else (self.before + left, self.after + left)
        while True:
            refusal = next((reply for reply in found if isinstance(reply, Refusal) and reply.code != "NOGROUP"), None)
            if refusal is not None and refusal.code == "WRONGTYPE":
                (kind,) = yield [command(b"TYPE", record.key)]
                return _Outcome("type", kind.decode() if isinstance(kind, bytes) else None, low)
            if refusal is not None:
                return _Outcome("refused", details=[str(refusal)])
            try:
                commands = value.send(found)
            except StopIteration as done:
                lines = done.value
                break
            found = yield commands
        if lines and lines[0].startswith(_OTHER_TYPE):
            return _Outcome("type", lines[0].removeprefix(_OTHER_TYPE), low)
        if lines:
            return _Outcome("value", None, low, lines)
        if not self.is_near(record.expire_ms, low, high):
            return _Outcome("expire", None, low)
        return _Outcome("not-compared" if lines is None else "equal")

    def is_past(self, expire_ms: int | None) -> bool:
        """Whether a time has come, or is so near that nobody can tell."""
        return expire_ms is not None and expire_ms <= self.after + self.tolerance

    def is_near(self, expected: int | None, low: int | None, high: int | None) -> bool:
        """Whether an expiry lies between two times, or near them."""
        if expected is None or low is None or high is None:
            return expected is None and low is None
        return low - self.tolerance <= expected <= high + self.tolerance

    def has_no_fields(self, record: Record) -> bool:
        """Whether it is a hash whose fields have all expired."""
        return record.type == "hash" and all(self.is_past(expire) for found in record.elements() for _, _, expire in found)

    def comparison(self, record: Record) -> Comparison:
        match record.type:
            case "string":
                return _string(record)
            case "list":
                return _collection(record, _List(record.key))
            case "set":
                return _collection(record, _Set(record.key, "SMISMEMBER" in self.server.features))
            case "zset":
                return _collection(record, _ScoredSet(record.key, "ZMSCORE" in self.server.features))
            case "hash":
                return _hash(record, "HPEXPIRETIME" in self.server.features, self)
            case "stream":
                return _stream(record)
            case _:
                return _opaque(record)


#: What a line begins with that tells of another type.
_OTHER_TYPE: Final = "\0type "


def _opaque(record: Record) -> Comparison:
    """A value of a module or of a type that no command gives whole: its bytes as DUMP has them, or None for not compared."""
    is_small = record.size is not None
    replies = yield [command(b"TYPE", record.key), *([command(b"DUMP", record.key)] if is_small else [])]
    kind = replies[0].decode("utf-8", "replace")
    if kind in _TYPES:
        return [_OTHER_TYPE + kind]
    # behind the value stand a version of two bytes and a checksum of eight
    if is_small and isinstance(replies[1], bytes) and replies[1][:-10] == bytes([record.rdb_type]) + record.raw:
        return []
    return None


def _string(record: Record) -> Comparison:
    if record.size is not None:
        value = record.value
        # one byte more shows whether there is more
        (found,) = yield [command(b"GETRANGE", record.key, b"0", b"%d" % len(value))]
        if found == value:
            return []
        (length,) = yield [command(b"STRLEN", record.key)]
        return [_bytes_differ(0, value, found, len(value), length)]
    (length,) = yield [command(b"STRLEN", record.key)]
    at = 0
    for whole in record.content():
        for begin in range(0, len(whole), _PIECE):
            piece = whole[begin : begin + _PIECE]
            (found,) = yield [command(b"GETRANGE", record.key, b"%d" % at, b"%d" % (at + len(piece) - 1))]
            if found != piece:
                return [_bytes_differ(at, piece, found, None, length)]
            at += len(piece)
    return [] if at == length else [f"{at:,} and {length:,} bytes"]


def _bytes_differ(at: int, one: bytes, other: bytes, size: int | None, other_size: int) -> str:
    first = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    sizes = f"{other_size:,} on the server" if size is None else f"{size:,} and {other_size:,}"
    return f"byte {at + first:,} of {sizes}: {one[first : first + 20]!r} and {other[first : first + 20]!r}"


class _Kind:
    """How the elements of a type are asked for and compared.

    Attributes:
        count_command: gives the number of elements.
        least, most: so many elements the server must have.
        lines: what differs, in words.
    """

    count_command = b""

    def __init__(self, key: bytes) -> None:
        self.key = key
        self.least = 0
        self.most = 0
        self.lines: list[str] = []

    def ask(self, elements: list[Any]) -> list[bytes]:
        """The commands that ask for these elements."""
        raise NotImplementedError

    def compare(self, elements: list[Any], replies: list[Any]) -> None:
        """Add what differs to `lines`."""
        raise NotImplementedError

    def recount(self, total: int) -> Generator[list[bytes], list[Any], int]:
        """How many elements there are, of which the server counts `total`."""
        yield from ()
        return total

    def differ(self, name: str, one: str, other: str) -> None:
        if len(self.lines) < _SHOWN:
            self.lines.append(f"{name}: {one} and {other}")

    def saw(self, elements: Collection[Any]) -> None:
        self.least += len(elements)
        self.most += len(elements)


class _List(_Kind):
    count_command = b"LLEN"

    def __init__(self, key: bytes) -> None:
        super().__init__(key)
        self.asked = 0

    def ask(self, elements: list[Any]) -> list[bytes]:
        begin = self.asked
        self.asked += len(elements)
        return [command(b"LRANGE", self.key, b"%d" % begin, b"%d" % (self.asked - 1))]

    def compare(self, elements: list[Any], replies: list[Any]) -> None:
        found = replies[0]
        if found != elements:
            for i, one in enumerate(elements):
                other = found[i] if i < len(found) else None
                if one != other:
                    self.differ(f"element {self.most + i:,}", _shown(one), _shown(other))
        self.saw(elements)


class _Set(_Kind):
    count_command = b"SCARD"

    def __init__(self, key: bytes, several: bool) -> None:
        super().__init__(key)
        self.several = several

    def ask(self, elements: list[Any]) -> list[bytes]:
        if self.several:
            return [command(b"SMISMEMBER", self.key, *elements)]
        return [command(b"SISMEMBER", self.key, member) for member in elements]

    def compare(self, elements: list[Any], replies: list[Any]) -> None:
        found = replies[0] if self.several else replies
        if 0 in found:
            for member, is_there in zip(elements, found, strict=True):
                if not is_there:
                    self.differ("member", _shown(member), "none")
        self.saw(elements)


class _ScoredSet(_Kind):
    count_command = b"ZCARD"

    def __init__(self, key: bytes, several: bool) -> None:
        super().__init__(key)
        self.several = several

    def ask(self, elements: list[Any]) -> list[bytes]:
        if self.several:
            return [command(b"ZMSCORE", self.key, *[member for member, _ in elements])]
        return [command(b"ZSCORE", self.key, member) for member, _ in elements]

    def compare(self, elements: list[Any], replies: list[Any]) -> None:
        found = replies[0] if self.several else replies
        for (member, score), text in zip(elements, found, strict=True):
            other = None if text is None else float(text)
            if other != score and not (score != score and other != other):  # not a number is never equal to itself
                self.differ(_shown(member), repr(score), "none" if other is None else repr(other))
        self.saw(elements)


class _Hash(_Kind):
    """A hash, some of whose fields may have expired; a server counts those until it removes them, which it does in its own time.

    Attributes:
        gone: how many fields of the file are not there since their time has come.
    """

    count_command = b"HLEN"

    def __init__(self, record: Record, expiring: bool, asker: _Asker) -> None:
        super().__init__(record.key)
        self.expiring = expiring
        self.asker = asker
        self.gone = 0
        self.names = HashPartitions() if record.rdb_type in _EXPIRING_HASHES else None

    def __enter__(self) -> _Hash:
        return self

    def __exit__(self, *_: object) -> None:
        if self.names is not None:
            self.names.close()

    def ask(self, elements: list[Any]) -> list[bytes]:
        names = [name for name, _, _ in elements]
        commands = [command(b"HMGET", self.key, *names)]
        if self.expiring:
            commands.append(command(b"HPEXPIRETIME", self.key, b"FIELDS", b"%d" % len(names), *names))
        return commands

    def compare(self, elements: list[Any], replies: list[Any]) -> None:
        times = replies[1] if self.expiring else [-1] * len(elements)
        for (name, value, expire), other, at in zip(elements, replies[0], times, strict=True):
            if self.names is not None:
                _partition(self.names, name_hash(0, name))
            if other is None and self.asker.is_past(expire):
                self.gone += 1
                continue
            self.least += 1
            self.most += 1
            if other != value:
                self.differ(_shown(name), _shown(value), _shown(other))
            elif at == -2 and self.asker.is_past(expire):
                continue  # it has expired between the two answers
            elif self.expiring and not self.asker.is_near(expire, *((at, at) if at >= 0 else (None, None))):
                self.differ(f"expiry of {_shown(name)}", str(expire or "never"), "never" if at < 0 else str(at))
            elif not self.expiring and expire is not None:
                self.differ(f"expiry of {_shown(name)}", str(expire), "never")

    def recount(self, total: int) -> Generator[list[bytes], list[Any], int]:
        """Where fields that have expired can be among those that are counted, list the names: those are not in the list."""
        if self.names is None or not self.expiring or not self.gone or total <= self.most:
            return total
        theirs = HashPartitions()
        try:
            cursor = b"0"
            while True:
                ((cursor, names),) = yield [command(b"HSCAN", self.key, cursor, b"COUNT", b"%d" % _WINDOW, b"NOVALUES")]
                for name in names:
                    _partition(theirs, name_hash(0, name))
                if cursor == b"0":
                    break
            return self.most + sum(1 for _ in _unknown(self.names, theirs))
        finally:
            theirs.close()


def _hash(record: Record, expiring: bool, asker: _Asker) -> Comparison:
    with _Hash(record, expiring, asker) as kind:
        return (yield from _collection(record, kind))


def _collection(record: Record, kind: _Kind) -> Comparison:
    """Elements, all at once where the record is small, otherwise as they are read."""
    count = command(kind.count_command, record.key)
    windows = (found[at : at + _WINDOW] for found in record.elements() for at in range(0, len(found), _WINDOW))
    total: int | None = None
    is_large = record.size is None  # which is known when all of it has been read
    if is_large:
        (total,) = yield [count]
    groups: Iterator[list[list[Any]]] = ([window] for window in windows) if is_large else iter([list(windows)])
    for group in groups:
        asked = [kind.ask(window) for window in group]
        replies = yield [*([count] if total is None else []), *(text for commands in asked for text in commands)]
        if total is None:
            total = replies.pop(0)
        at = 0
        for window, commands in zip(group, asked, strict=True):
            kind.compare(window, replies[at : at + len(commands)])
            at += len(commands)
        if kind.lines and is_large:
            return kind.lines  # the rest would say the same
    assert total is not None
    total = yield from kind.recount(total)
    if not kind.least <= total <= kind.most:
        return [f"{kind.most:,} and {total:,} elements", *kind.lines]
    return kind.lines


def _stream(record: Record) -> Comparison:
    key = record.key
    lines: list[str] = []
    next_id = b"-"
    tail: StreamTail | None = None
    groups: list[StreamGroup] = []
    held: list[list[StreamEntry]] = []  # of a small one, to be asked for with the rest
    about = [command(b"XINFO", b"STREAM", key), command(b"XINFO", b"GROUPS", key)]
    is_large = record.size is None
    if is_large:
        yield [command(b"XLEN", key)]  # nothing of it may be read before it is known to be there
    for found in record.elements():
        entries = []
        for item in found:
            if isinstance(item, StreamEntry):
                entries.append(item)
            elif isinstance(item, StreamTail):
                tail = item
            elif isinstance(item, StreamGroup):
                groups.append(item)
        for at in range(0, len(entries), _WINDOW):
            window = entries[at : at + _WINDOW]
            if not is_large:
                held.append(window)
                continue
            (reply,) = yield [_range_of(key, next_id, window)]
            next_id = _after(window[-1].id)
            _compare_entries(window, reply, lines)
            if lines:
                return lines
    assert tail is not None
    ranges = []
    for window in held:
        ranges.append(_range_of(key, next_id, window))
        next_id = _after(window[-1].id)
    asked = []
    for group in groups:
        asked.append(command(b"XINFO", b"CONSUMERS", key, group.name))
        asked.append(_pending_of(key, group.name, b"-", group.pending[:_PENDING_WINDOW]))
    replies = yield [*about, *ranges, *asked]
    stream = {name.decode(): value for name, value in zip(replies[0][::2], replies[0][1::2], strict=True)}
    for window, reply in zip(held, replies[2 : 2 + len(held)], strict=True):
        _compare_entries(window, reply, lines)
    if stream["length"] != tail.length:
        lines.insert(0, f"{tail.length:,} and {stream['length']:,} entries")
    if stream["last-generated-id"].decode() != str(tail.last_id):
        lines.append(f"last id: {tail.last_id} and {stream['last-generated-id'].decode()}")
    theirs = {}
    for row in replies[1]:
        facts = {name.decode(): value for name, value in zip(row[::2], row[1::2], strict=True)}
        theirs[facts["name"]] = facts["last-delivered-id"].decode()
    for name in theirs.keys() - {group.name for group in groups}:
        lines.append(f"group {_shown(name)}: none and there")
    for at, group in enumerate(groups):
        consumers, pending = replies[2 + len(held) + 2 * at : 4 + len(held) + 2 * at]
        shown = f"group {_shown(group.name)}"
        if group.name not in theirs or isinstance(consumers, Refusal) or isinstance(pending, Refusal):
            lines.append(f"{shown}: there and none")
            continue
        if theirs[group.name] != str(group.last_id):
            lines.append(f"{shown}, last id: {group.last_id} and {theirs[group.name]}")
        names = {row[row.index(b"name") + 1] for row in consumers}
        ours = {consumer.name for consumer in group.consumers}
        lines += [f"{shown}, consumer {_shown(name)}: there and none" for name in sorted(ours - names)]
        lines += [f"{shown}, consumer {_shown(name)}: none and there" for name in sorted(names - ours)]
        for begin in range(0, max(1, len(group.pending)), _PENDING_WINDOW):
            window_of_pending = group.pending[begin : begin + _PENDING_WINDOW]
            if begin:
                start = _after(group.pending[begin - 1].id)
                (pending,) = yield [_pending_of(key, group.name, start, window_of_pending)]
            wanted = [(str(p.id), p.consumer or b"", p.delivery_count) for p in window_of_pending]
            there = [(row[0].decode(), row[1], row[3]) for row in pending]
            is_last = begin + _PENDING_WINDOW >= len(group.pending)
            if wanted != (there if is_last else there[: len(wanted)]):
                lines.append(f"{shown}: its pending entries differ{_first_pending(wanted, there)}")
                break
    return lines[:_SHOWN]


def _range_of(key: bytes, start: bytes, window: list[StreamEntry]) -> bytes:
    return command(b"XRANGE", key, start, b"+", b"COUNT", b"%d" % len(window))


def _pending_of(key: bytes, group: bytes, start: bytes, window: Sequence[Any]) -> bytes:
    """One more shows whether there are more."""
    return command(b"XPENDING", key, group, start, b"+", b"%d" % (len(window) + 1))


def _after(entry_id: StreamId) -> bytes:
    """The id that follows."""
    if entry_id.seq == (1 << 64) - 1:
        return b"%d-0" % (entry_id.ms + 1)
    return b"%d-%d" % (entry_id.ms, entry_id.seq + 1)


def _compare_entries(window: list[StreamEntry], found: Any, lines: list[str]) -> None:
    wanted = [(str(entry.id).encode(), [part for pair in entry.fields for part in pair]) for entry in window]
    there = [(entry_id, parts) for entry_id, parts in found]
    if wanted == there:
        return
    for one, other in zip(wanted, [*there, *[None] * (len(wanted) - len(there))], strict=False):
        if one != other and len(lines) < _SHOWN:
            if other is None or one[0] != other[0]:
                lines.append(f"entry {one[0].decode()}: there and {'none' if other is None else 'not next'}")
                return  # all that follow are out of step
            lines.append(f"entry {one[0].decode()}: {_shown_parts(one[1])} and {_shown_parts(other[1])}")


def _first_pending(wanted: list[Any], there: list[Any]) -> str:
    only = next((row for row in wanted if row not in there), None)
    return f", such as {only[0]}" if only is not None else f": {there[len(wanted)][0]} is new" if len(there) > len(wanted) else ""


def _shown_parts(parts: list[bytes]) -> str:
    return " ".join(_shown(part) for part in parts[:6]) + (" ..." if len(parts) > 6 else "")


def _shown(data: bytes | None) -> str:
    if data is None:
        return "none"
    return repr(data) if len(data) <= _SHOWN_BYTES else f"{data[:_SHOWN_BYTES]!r}... ({len(data):,} bytes)"

"""`rdbkit verify-copy`: whether two servers have the same keys, values and expiries, without changing anything in either.

All keys are compared in a first round. What differs is looked at again in further rounds, some time later: while a source is
written to, a copy that is up to date differs at any one moment. What still differs in the last round, and did not change on the
source since the round before, is a difference.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from tempfile import SpooledTemporaryFile
from typing import IO, Any, Final

from rdbkit.format.filter import Filter
from rdbkit.format.replies import Refusal
from rdbkit.live.compare import Outcome, hashes_not_in
from rdbkit.live.databases import databases_of, keys_of
from rdbkit.live.pace import check_rate
from rdbkit.live.server import Server, connected
from rdbkit.live.two_servers import Found, Stamp, TwoServers
from rdbkit.live.verification import (
    Picker,
    check_pick,
    compare_libraries,
    libraries_of_nodes,
    note_of_evictions,
)
from rdbkit.operations.diff_delta import FunctionDifference
from rdbkit.passes.hashes import NameHashes, name_hash
from rdbkit.passes.pages import Page, page_of
from rdbkit.resp import command
from rdbkit.selection import Selection
from rdbkit.text import count, json_bytes, valid_text

__all__ = ["BIG", "ComparedDatabase", "CopyDifference", "CopyProof", "verify_copy"]

#: Values above this are compared in pieces.
BIG: Final = 32 << 20
#: Of keys that are left for the next round, so many bytes are held in memory.
_HELD: Final = 16 << 20
_MOST_SKEW_MS: Final = 1000
#: Outcomes that are no difference.
SETTLED: Final = ("equal", "expired", "gone", "not-compared")


@dataclass
class CopyDifference:
    """A key that is not the same on both servers.

    Attributes:
        what: "missing" (on the target), "extra" (the source does not have it), "type", "value", "expire", "refused" (a server does
            not answer), or "changing" (the source's changed between the last two looks, so that nothing can be said).
        dbs: the databases of source and target.
        types: of both, where they are known; None where it is not there.
        expire_ms: absolute expiries in Unix milliseconds; None for none.
        details: the first elements that differ, or a server's words.
    """

    what: str
    dbs: tuple[int, int]
    key: bytes
    types: tuple[str | None, str | None] = (None, None)
    expire_ms: tuple[int | None, int | None] = (None, None)
    details: list[str] = field(default_factory=list)


@dataclass
class ComparedDatabase:
    """A database of the source, and that of the target which has its keys.

    Attributes:
        source, target: keys that each counts (DBSIZE), those among them that have expired and were not removed yet; None where it
            does not tell.
    """

    db: int
    target_db: int
    source: int | None = None
    target: int | None = None


@dataclass
class CopyProof:
    """What `verify_copy` found.

    Attributes:
        servers: URLs of source and target without secrets.
        kinds, versions: "standalone" or "cluster", and what each calls itself.
        keys, checked: names that the source listed, and how many of those keys were compared.
        equal: keys with the same type, value and expiry.
        expired: keys whose time had come on one of the servers: no difference.
        gone: keys that were deleted meanwhile, on both: no difference.
        not_compared: keys with the same type and expiry whose values cannot be compared, such as those of some modules.
        missing, type, value, expire, refused: keys that differ, each counted once; see `CopyDifference`.
        extra: keys of the target that the source does not have; all of them with `find_extra` alone.
        changing: keys that differed, but changed on the source between the last two looks.
        rounds: so many there were.
        databases: one row for each.
        libraries: function libraries of the source, if they were compared; `functions` are those that differ.
        samples: the first of the keys that differ.
        notes: what explains some of it.
        complete: False where slots of a cluster moved so often that not all of its keys were listed.
    """

    servers: tuple[str, str]
    kinds: tuple[str, str]
    versions: tuple[str | None, str | None]
    keys: int = 0
    checked: int = 0
    equal: int = 0
    expired: int = 0
    gone: int = 0
    not_compared: int = 0
    missing: int = 0
    type: int = 0
    value: int = 0
    expire: int = 0
    refused: int = 0
    extra: int = 0
    changing: int = 0
    rounds: int = 0
    databases: list[ComparedDatabase] = field(default_factory=list)
    libraries: int = 0
    functions: list[FunctionDifference] = field(default_factory=list)
    samples: list[CopyDifference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    complete: bool = True

    @property
    def different(self) -> int:
        """Keys that differ; those that changed all the time are not among them."""
        return self.missing + self.type + self.value + self.expire + self.refused + self.extra

    @property
    def same(self) -> bool:
        """Whether all keys were compared, and no key and no function library differs."""
        return self.complete and not self.different and not self.functions

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; keys that are not UTF-8 as `{"base64": ...}`."""
        result = asdict(self)
        for row in result["samples"]:
            row["key"] = json_bytes(row["key"])
        for each in result["functions"]:
            each["name"] = valid_text(each["name"])
        result["same"] = self.same
        return result


@dataclass(frozen=True)
class Settings:
    """How two servers are compared; the arguments of `verify_copy`."""

    selection: Selection = field(default_factory=Selection)
    pick: float | int | None = None
    seed: int = 0
    ttl_tolerance_ms: int = 1000
    db_map: Mapping[int, int] = field(default_factory=dict)
    find_extra: bool = False
    ignore_functions: bool = False
    rounds: int = 3
    wait_s: float = 5.0
    quick: bool = False
    big: int = BIG
    batch: int = 1000
    rate: float | None = None
    samples: int = 10

    def check(self, source: Server, target: Server) -> None:
        """Raise ValueError for what does not go together."""
        check_pick(self.pick)
        check_rate(self.rate)
        if self.rounds < 1:
            raise ValueError("there is at least one round")
        if self.selection.needs_size:
            raise ValueError("keys of a server cannot be chosen by size; choose them by something else")
        if self.db_map and target.url.db is not None:
            raise ValueError("the target's URL names a database: leave it out to map databases")
        places = [(url.host, url.port, url.db) for url in (source.url, target.url)]
        if places[0] == places[1] and not self.db_map:
            raise ValueError("both URLs name the same server and database")


def verify_copy(
    source: str | Server,
    target: str | Server,
    *,
    selection: Selection | None = None,
    pick: float | int | None = None,
    seed: int = 0,
    ttl_tolerance_ms: int = 1000,
    db_map: Mapping[int, int] | None = None,
    find_extra: bool = False,
    ignore_functions: bool = False,
    rounds: int = 3,
    wait_s: float = 5.0,
    quick: bool = False,
    big: int = BIG,
    batch: int = 1000,
    rate: float | None = None,
    samples: int = 10,
    progress: Callable[[int], object] | None = None,
) -> CopyProof:
    """Compare the keys of two running servers: types, values and expiries, and function libraries.

    Only commands that read are sent. Versions and flavours of the servers may differ: values are compared, not how they are stored.
    Of streams these are entries, last id, groups, consumers and pending entries. Memory does not depend on the number of keys.

    Args:
        source, target: URLs, `redis://USER:PASSWORD@HOST:PORT/N`, or rediss:// for TLS; or as `connect` gives them.
        selection: which keys to compare; by default all. Conditions on the size of records are for snapshots.
        pick: compare a share of them (above 0, below 1), or about so many (1 or more), chosen by hash of the name.
        seed: another one picks other keys; the same one the same keys in every run.
        ttl_tolerance_ms: so much may expiries be apart, of keys and of fields.
        db_map: the target's database for one of the source; one that is not in it keeps its number. A target whose URL names a
            database has the keys of all in that one.
        find_extra: list the target's keys, too, and name those that the source does not have.
        ignore_functions: do not compare function libraries. They are not compared either where keys are selected.
        rounds, wait_s: look at what differs so often, and wait so many seconds before each round but the first.
        quick: compare types, lengths and expiries, but no values.
        big: values that take more bytes of memory on the source are read in pieces; 0 asks for none of them in pieces, and not for
            how much they take.
        batch: keys to ask for at a time.
        rate: keys a second at most.
        samples: how many of the keys that differ to name.
        progress: called with the number of keys that have been compared.

    Raises: ValueError for arguments that do not go together; TargetError where a server cannot be reached, does not let one in or
        does not list its keys; TypeError for what is no server.

    Example:
        proof = rdbkit.verify_copy("redis://old:6379", "rediss://new:6380")
        print(proof.same, proof.missing, proof.value)
    """
    with connected(source) as one, connected(target) as other:
        settings = Settings(
            selection or Selection(), pick, seed, ttl_tolerance_ms, dict(db_map or {}), find_extra, ignore_functions, rounds,
            wait_s, quick, big, batch, rate, samples,
        )  # fmt: skip
        settings.check(one, other)
        with closing(Rounds(one, other, settings, progress)) as work:
            return work.run()


class Left:
    """Keys for the next round, in a temporary file where they are many."""

    _HEAD: Final = struct.Struct("<qqII")

    def __init__(self) -> None:
        self.count = 0
        self._file: IO[bytes] = SpooledTemporaryFile(_HELD)  # noqa: SIM115 (closed by close)

    def add(self, db: int, name: bytes, stamp: Stamp) -> None:
        """Leave a key of the source's database."""
        self._file.write(self._HEAD.pack(stamp.value, stamp.expire_ms, db, len(name)) + name)
        self.count += 1

    def batches(self, most: int) -> Iterator[tuple[int, dict[bytes, Stamp]]]:
        """The keys, at most so many of one database at a time."""
        self._file.seek(0)
        db = 0
        found: dict[bytes, Stamp] = {}
        while head := self._file.read(self._HEAD.size):
            value, expire_ms, of_db, size = self._HEAD.unpack(head)
            if found and (of_db != db or len(found) >= most):
                yield db, found
                found = {}
            db = of_db
            found[self._file.read(size)] = Stamp(value, expire_ms)
        if found:
            yield db, found

    def close(self) -> None:
        """Remove the file."""
        self._file.close()


class Rounds:
    """Compares two servers in rounds; `sync` repairs what they find.

    Attributes:
        proof: what was found.
        left: keys for the next round.
    """

    def __init__(self, source: Server, target: Server, settings: Settings, progress: Callable[[int], object] | None) -> None:
        self.source = source
        self.target = target
        self.settings = settings
        self.progress = progress
        self.servers = TwoServers(
            source, target, settings.ttl_tolerance_ms, settings.big, settings.batch, settings.rate, self.database, settings.quick
        )
        self.picker = Picker(settings.seed)
        self.names: Filter | None = settings.selection.filter_for({}, 0) if settings.selection else None
        self.proof = CopyProof((str(source.url), str(target.url)), (source.kind, target.kind), (source.version, target.version))
        self.left = Left()
        self.most_rounds = settings.rounds
        self.extras = Left()

    def database(self, db: int) -> int:
        """The target's database for one of the source."""
        return self.target.url.db if self.target.url.db is not None else self.settings.db_map.get(db, db)

    def close(self) -> None:
        """Close connections and temporary files."""
        self.servers.close()
        self.left.close()
        self.extras.close()

    def run(self) -> CopyProof:
        """All rounds, and what is said of the whole."""
        proof = self.proof
        databases = [db for db in databases_of(self.source) if self.names is None or self.names.wants_database(db)]
        skew = self.source.now_ms() - self.target.now_ms()
        if abs(skew) > _MOST_SKEW_MS:
            proof.notes.append(f"the clocks of the servers are {abs(skew) / 1000:.1f} s apart")
        proof.databases = [ComparedDatabase(db, self.database(db), keys_of(self.source, [db])) for db in databases]
        if self.settings.pick is not None:
            self.picker.choose(self.settings.pick, sum(row.source or 0 for row in proof.databases))
        self.first_round(databases)
        while proof.rounds < self.most_rounds and (self.left.count or (self.extras.count and proof.rounds == 1)):
            self.next_round()
        self.look_at_extras()
        for row in proof.databases:
            row.target = keys_of(self.target, [row.target_db])
        proof.complete = self.servers.complete
        self.compare_functions()
        self.explain()
        return proof

    @property
    def is_last(self) -> bool:
        """Whether the round at hand is the last one."""
        return self.proof.rounds >= self.most_rounds

    # -- rounds

    def first_round(self, databases: list[int]) -> None:
        """Compare all keys; and list the target's, where extra ones are wanted."""
        proof = self.proof
        proof.rounds = 1
        ours = NameHashes() if self.settings.find_extra else None
        with ExitStack() as stack:
            if ours is not None:
                stack.callback(ours.close)
            for db in databases:
                for page, address in self.servers.listed(db):
                    if ours is not None:
                        for name in page.keys():  # noqa: SIM118 (a page is no dict)
                            ours.add(self.database(db), name)
                    proof.keys += page.count
                    chosen = self.chosen(page)
                    if chosen.count:
                        proof.checked += chosen.count
                        self.look(db, chosen, address, {})
                    if self.progress is not None:
                        self.progress(proof.keys)
            if ours is not None:
                self.list_target(ours, databases)

    def next_round(self) -> None:
        """Look at what is left once more."""
        time.sleep(self.settings.wait_s)
        self.proof.rounds += 1
        before, self.left = self.left, Left()
        with closing(before):
            for db, names in before.batches(self.settings.batch):
                self.look(db, page_of(names), None, names)

    def chosen(self, page: Page) -> Page:
        """Those names of a page that are to be compared."""
        if self.picker.below is None and self.names is None:
            return page
        names = page.keys()
        if self.names is not None:
            test = self.names
            names = [name for name in names if test.wants_name(name, 0, len(name))]
        return page_of([name for name in names if self.picker(name)])

    def look(self, db: int, page: Page, address: tuple[str, int] | None, before: Mapping[bytes, Stamp]) -> None:
        """Compare keys of one database; `before` has what was seen of them in the round before."""
        found = self.servers.compare(db, page, address, everything=self.names is not None)
        self.proof.equal += page.count - len(found)
        for each in found:
            self.judge(db, each, before.get(each.name))

    def judge(self, db: int, found: Found, before: Stamp | None) -> None:
        """Count a key, or leave it for the next round."""
        proof = self.proof
        outcome, stamp = self.servers.outcome(db, found, self.is_last)
        if self.is_unwanted(db, found):
            proof.checked -= 1
        elif outcome.what in SETTLED:
            self.settle(outcome)
        elif self.is_last:
            self.report(db, found, outcome, before is None or stamp.is_near(before, self.settings.ttl_tolerance_ms))
        else:
            self.left.add(db, found.name, stamp)

    def settle(self, outcome: Outcome) -> None:
        """Count a key that is no difference."""
        name = outcome.what.replace("-", "_")
        setattr(self.proof, name, getattr(self.proof, name) + 1)

    def is_unwanted(self, db: int, found: Found) -> bool:
        """Whether the selection, of which the names are known to be wanted, does not want a key for what it is."""
        if self.names is None:
            return False
        if found.unlike is None:
            facts = self._facts(self.source, db, found.name) or self._facts(self.target, self.database(db), found.name)
            return facts is not None and not self.settings.selection.wants(db, found.name, facts[0], None, facts[1])
        one, other = self.servers.types_of(found)
        kind = one or other
        expire_ms = found.unlike.expires[0]
        return kind is not None and not self.settings.selection.wants(
            db, found.name, kind, None, None if expire_ms < 0 else expire_ms
        )

    def _facts(self, server: Server, db: int, name: bytes) -> tuple[str, int | None] | None:
        """The type of a key and when it expires; None where it is not there, or this cannot be told."""
        ((kind, left),) = server.ask(db, [(name, [command(b"TYPE", name), command(b"PTTL", name)])])
        if not isinstance(kind, bytes) or kind == b"none" or not isinstance(left, int):
            return None
        return kind.decode("latin-1"), server.now_ms() + left if left >= 0 else None

    def report(self, db: int, found: Found, outcome: Outcome, stands: bool) -> None:
        """Count a key that differs in the last round."""
        proof = self.proof
        what = outcome.what if stands else "changing"
        setattr(proof, what, getattr(proof, what) + 1)
        if len(proof.samples) < self.settings.samples:
            proof.samples.append(self.difference(db, found, outcome, what))

    def difference(self, db: int, found: Found, outcome: Outcome, what: str) -> CopyDifference:
        """What is said of a key."""
        dbs = db, self.database(db)
        if found.unlike is None:
            return CopyDifference(what, dbs, found.name, details=outcome.details)
        times = [None if ms < 0 else ms for ms in found.unlike.expires]
        types = self.servers.types_of(found)
        return CopyDifference(
            what, dbs, found.name, (types[0], types[1] or outcome.server_type), (times[0], times[1]), outcome.details
        )

    # -- keys that the source does not have

    def list_target(self, ours: NameHashes, databases: list[int]) -> None:
        """Keep the names of the target that the source did not list."""
        theirs = NameHashes()
        with closing(theirs):
            wanted = self.target_databases(databases)
            for db in wanted:
                for page, _ in self.servers.listed_by(self.target, db):
                    self.servers.rate_limiter.take(page.count)
                    names = page.keys()
                    for name in names:
                        theirs.add(db, name)
            unknown = set(hashes_not_in(ours, theirs))
        for db in wanted if unknown else ():
            for page, _ in self.servers.listed_by(self.target, db):
                for name in self.chosen(page).keys():  # noqa: SIM118
                    hashed = name_hash(db, name)
                    if hashed in unknown:
                        unknown.remove(hashed)
                        self.extras.add(db, name, Stamp(0, 0))

    def target_databases(self, databases: list[int]) -> list[int]:
        """The target's databases that could have keys of the source, and no others."""
        found = {self.database(db) for db in databases}
        if self.source.url.db is None and self.target.url.db is None and self.names is None:
            found.update(databases_of(self.target))
        return sorted(found)

    def source_databases(self, db: int) -> list[int]:
        """The source's databases whose keys one of the target has."""
        if self.source.url.db is not None:
            return [self.source.url.db]
        found = {row.db for row in self.proof.databases if row.target_db == db}
        if self.source.kind != "cluster" and self.database(db) == db:
            found.add(db)
        return sorted(found) or [0]

    def look_at_extras(self) -> None:
        """Of the keys that were not listed by the source: those that it does not have now either are extra."""
        for db, names in self.extras.batches(self.settings.batch):
            for name in self.still_extra(db, list(names)):
                self.note_extra(db, name)

    def still_extra(self, db: int, names: list[bytes]) -> list[bytes]:
        """Those that the target has, that the selection wants for what they are there, and that the source does not have."""
        asked = [(name, [command(b"EXISTS", name)]) for name in names]
        there = [replies[0] == 1 for replies in self.target.ask(db, asked)]
        known = [False] * len(names)
        homes = self.source_databases(db)
        for source_db in homes:
            for i, replies in enumerate(self.source.ask(source_db, asked)):
                known[i] = known[i] or not _has_none(replies[0])  # what is refused may be there
        found = [name for name, is_there, is_known in zip(names, there, known, strict=True) if is_there and not is_known]
        return found if self.names is None else [name for name in found if self._wants_extra(db, homes[0], name)]

    def _wants_extra(self, db: int, home: int, name: bytes) -> bool:
        """Whether the selection wants a key that the target alone has; one of which that cannot be told is left alone."""
        facts = self._facts(self.target, db, name)
        return facts is not None and self.settings.selection.wants(home, name, facts[0], None, facts[1])

    def note_extra(self, db: int, name: bytes) -> None:
        """A key that only the target has."""
        self.proof.extra += 1
        if len(self.proof.samples) < self.settings.samples:
            self.proof.samples.append(CopyDifference("extra", (self.source_databases(db)[0], db), name))

    # -- the whole

    def compare_functions(self) -> None:
        """By name and source; each node of a cluster has all of them."""
        if self.settings.ignore_functions or self.settings.selection or self.settings.quick:
            return
        ours, theirs = libraries_of_nodes(self.source), libraries_of_nodes(self.target)
        if isinstance(ours, Refusal) or isinstance(theirs, Refusal):
            self.proof.notes.append(f"function libraries were not compared: {ours if isinstance(ours, Refusal) else theirs}")
            return
        known: dict[str, set[bytes]] = {}
        for node in ours:
            for name, code in node.items():
                known.setdefault(name, set()).add(code)
        self.proof.libraries = len(known)
        self.proof.functions = compare_libraries(known, theirs)

    def explain(self) -> None:
        """Notes that help to understand the rest."""
        proof = self.proof
        if proof.missing and (note := note_of_evictions(self.target)) is not None:
            proof.notes.append(note.replace("the server", "the target", 1))
        if proof.changing:
            proof.notes.append(
                f"{count(proof.changing, 'key')} differed, and changed on the source between the last two rounds: compare them "
                "again when nobody writes to them"
            )
        if not proof.complete:
            proof.notes.append("slots of a cluster moved all the time: not all of its keys were listed; run this again")


def _has_none(reply: Any) -> bool:
    """Whether a server has none, by its answer to EXISTS: where it has no such database, it has no key of it."""
    return reply == 0 if not isinstance(reply, Refusal) else "out of range" in reply.text

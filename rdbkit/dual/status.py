"""`rdbkit dual-status`: which keys of the old cache are on the new one, and when they all will be if nothing else is done.

While an application writes to both caches, a key that is written comes to the new one. One that is not written goes when its time
to live ends. So all keys are on the new cache when the last of the others has expired; those that never expire have to be copied.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from typing import Any, Final, NamedTuple

from rdbkit.dual.state_store import KEY_PREFIX
from rdbkit.errors import CorruptError
from rdbkit.live.connection import Address, Connection, Lost, Refused
from rdbkit.live.databases import databases_of, keys_of
from rdbkit.live.pace import check_rate
from rdbkit.live.processes import same_data
from rdbkit.live.server import Server, connected
from rdbkit.live.two_servers import Stamp, TwoServers
from rdbkit.live.verification import Picker, check_pick, evicted_keys
from rdbkit.live.verify_copy import Left
from rdbkit.passes.compare_dumps import PlainReplies, questions
from rdbkit.passes.pages import Page, page_of
from rdbkit.resp import bulk
from rdbkit.selection import Selection
from rdbkit.text import count, json_bytes

__all__ = ["DualStatus", "Watched", "dual_status", "refuse_the_same"]

#: Seconds after which keys that are not on the new server are looked at again: what is written is on its way for a moment.
AGAIN_S: Final = 1.0
#: Shares of keys of which it is told when they are reached.
_SHARES: Final = (0.9, 0.99, 0.999)
#: Times to live are kept to one percent.
_STEP: Final = math.log(1.01)
#: So many keys are watched.
_MOST_WATCHED: Final = 10_000
_EXISTS: Final = b"*2\r\n" + bulk(b"EXISTS")
_PEXPIRETIME: Final = b"*2\r\n" + bulk(b"PEXPIRETIME")
_PTTL: Final = b"*2\r\n" + bulk(b"PTTL")
_TYPE: Final = b"*2\r\n" + bulk(b"TYPE")
_NEVER: Final = -1
_GONE: Final = -2


@dataclass
class Watched:
    """What became of keys that were not on the new server, within some time.

    Attributes:
        seconds: that they were watched for.
        keys: how many.
        arrived: those that are on the new server now.
        gone: those that the old server no longer has.
    """

    seconds: float
    keys: int
    arrived: int = 0
    gone: int = 0


@dataclass
class DualStatus:
    """What `dual_status` found.

    Attributes:
        servers: URLs of the old and the new server without secrets.
        versions: what each calls itself; None where it does not say.
        now_ms: the old server's clock at the end, in Unix milliseconds.
        listed, checked: names that the old server listed, and how many of those keys were looked for.
        picked: whether those stand for the others.
        present: of these, those that are on the new server.
        gone: those that were deleted or expired meanwhile.
        expiring, lasting: those that are not on the new server: with a time to live, and without.
        unclear: those about which a server gave no answer.
        last_ms: when the last of the expiring ones does, in Unix milliseconds; None where there are none.
        reached: by share of the keys, from when on so many are on the new server: Unix milliseconds, None for never.
        samples: names of keys that are not on the new server and never expire.
        watched: what became of some of the expiring ones; None where that was not asked for.
        complete: False where slots of a cluster moved so often that not all keys were listed.
        notes: what explains some of it.
    """

    servers: tuple[str, str]
    versions: tuple[str | None, str | None]
    now_ms: int = 0
    listed: int = 0
    checked: int = 0
    picked: bool = False
    present: int = 0
    gone: int = 0
    expiring: int = 0
    lasting: int = 0
    unclear: int = 0
    last_ms: int | None = None
    reached: dict[float, int | None] = field(default_factory=dict)
    samples: list[bytes] = field(default_factory=list)
    watched: Watched | None = None
    complete: bool = True
    notes: list[str] = field(default_factory=list)

    @property
    def missing(self) -> int:
        """Keys that are not on the new server."""
        return self.expiring + self.lasting

    @property
    def total(self) -> int:
        """Keys that are there: on both servers, or on the old one alone."""
        return self.present + self.missing + self.unclear

    @property
    def ready(self) -> bool:
        """Whether each key that was looked for is on the new server."""
        return self.complete and not self.missing and not self.unclear

    @property
    def ready_ms(self) -> int | None:
        """From when on each key is on the new server if nothing else is done; None where that is never, or not known."""
        if not self.complete or self.lasting or self.unclear:
            return None
        return self.now_ms if self.last_ms is None else self.last_ms

    @property
    def error(self) -> float:
        """How far the share of missing keys may be off where not all were looked for: 95 times of 100 by no more than this."""
        there = self.total
        if not there or not self.picked:
            return 0.0
        share = self.missing / there
        return 3 / there if share in (0, 1) else 1.96 * math.sqrt(share * (1 - share) / there)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; keys that are not UTF-8 as `{"base64": ...}`."""
        return asdict(self) | {
            "samples": [json_bytes(each) for each in self.samples], "reached": {f"{s:g}": ms for s, ms in self.reached.items()},
            "missing": self.missing, "ready": self.ready, "ready_ms": self.ready_ms, "error": self.error,
        }  # fmt: skip


def dual_status(
    old: str | Server,
    new: str | Server,
    *,
    selection: Selection | None = None,
    pick: float | int | None = None,
    seed: int = 0,
    db_map: Mapping[int, int] | None = None,
    watch_s: float = 0.0,
    batch: int = 1000,
    rate: float | None = None,
    samples: int = 10,
    progress: Callable[[int], object] | None = None,
) -> DualStatus:
    """Which keys of an old server are on a new one while an application writes to both, and when all of them will be.

    Only names and expiries are looked at: `verify_copy` compares values. Nothing is written.

    Args:
        old, new: their URLs, or what `rdbkit.live.server.connect` gives.
        selection: which keys belong to the move; by default all.
        pick: look for about so many keys, or for this share (below 1), chosen by hash of the name.
        seed: another number picks other keys.
        db_map: the new server's database for one of the old, where that is another.
        watch_s: seconds to watch some of the missing keys that expire: how many are written, and how many go.
        batch: keys to ask for at a time.
        rate: keys a second at most.
        samples: how many of the keys to name that never expire and are missing.
        progress: called with the number of names that were listed.

    Raises: ValueError for arguments that do not go together, and where both are one server; TargetError where a server cannot be
        reached, does not let one in or does not list its keys; TypeError for what is no server.

    Example:
        status = dual_status("redis://old:6379", "rediss://new:6380")
        print(status.ready, status.lasting, status.ready_ms)
    """
    check_pick(pick)
    check_rate(rate)
    if selection is not None and selection.needs_size:
        raise ValueError("how many bytes a key takes is known of snapshots alone; choose keys by something else")
    with connected(old) as one, connected(new) as other:
        refuse_the_same(one, other, db_map)
        with closing(_Looks(one, other, selection or Selection(), dict(db_map or {}), batch, rate, samples, seed)) as work:
            return work.run(pick, watch_s, progress)


def refuse_the_same(old: Server, new: Server, db_map: Mapping[int, int] | None) -> None:
    """Raise ValueError where both are one server, by whatever name, or replicas: each key would be found to be there.

    Raises: TargetError where one cannot be reached.
    """
    databases = old.url.db, new.url.db
    is_other = None not in databases and databases[0] != databases[1]
    if not is_other and not db_map and same_data(old, new):
        raise ValueError("both URLs name the same server and database, or one is a replica of the other")


class _Key(NamedTuple):
    """A key that the new server does not have: its database, its name, and when it expires (Unix milliseconds; -1 for never)."""

    db: int
    name: bytes
    expire_ms: int


class _Looks:
    """Looks for the old server's keys on the new one; for those that are not there, twice."""

    def __init__(
        self,
        old: Server,
        new: Server,
        selection: Selection,
        db_map: dict[int, int],
        batch: int,
        rate: float | None,
        samples: int,
        seed: int,
    ) -> None:
        self.old = _Side(old)
        self.new = _Side(new)
        self.names = selection.filter_for({}, 0) if selection else None
        self.selection = selection
        self.db_map = db_map
        self.batch = batch
        self.samples = samples
        self.picker = Picker(seed)
        self.chance = random.Random(seed)
        self.lists = TwoServers(old, new, 0, 0, batch, rate, self.database)
        self.left = Left()
        self.status = DualStatus((str(old.url), str(new.url)), (old.version, new.version))
        self.lives: dict[int, int] = {}  # how many of the missing keys have a time to live of this size
        self.watched: list[_Key] = []
        self.refusal = ""

    def close(self) -> None:
        self.left.close()
        self.lists.close()
        self.old.close()
        self.new.close()

    def database(self, db: int) -> int:
        """The new server's database for one of the old."""
        url = self.new.server.url
        return url.db if url.db is not None else self.db_map.get(db, db)

    def run(self, pick: float | int | None, watch_s: float, progress: Callable[[int], object] | None) -> DualStatus:
        status = self.status
        old, new = self.old.server, self.new.server
        databases = [db for db in databases_of(old) if self.names is None or self.names.wants_database(db)]
        evicted = evicted_keys(new)
        if pick is not None:
            status.picked = True
            self.picker.choose(pick, keys_of(old, databases) or 0)
        for db in databases:
            for page, address in self.lists.listed(db):
                status.listed += page.count
                chosen = self.chosen(page)
                if chosen.count:
                    self.lists.rate_limiter.take(chosen.count)
                    self.look(db, chosen, address)
                if progress is not None:
                    progress(status.listed)
        status.complete = self.lists.complete
        if self.left.count:
            time.sleep(AGAIN_S)
            for db, names in self.left.batches(self.batch):
                self.look_again(db, page_of(names))
        status.now_ms = old.now_ms()
        self.tell_when()
        if watch_s > 0:
            self.watch(watch_s)
        self.explain(evicted_keys(new) - evicted)
        return status

    def chosen(self, page: Page) -> Page:
        """Those names of a page that are to be looked for; the state of a move is none of the application's keys."""
        if self.names is not None:
            page = page.wanted_by(self.names)
        if self.picker.below is None and KEY_PREFIX not in page.names:
            return page
        names = page.keys()
        found = [name for name in names if not name.startswith(KEY_PREFIX)]
        self.status.listed -= len(names) - len(found)
        return page_of([name for name in found if self.picker(name)])

    def look(self, db: int, page: Page, address: Address) -> None:
        """Look for keys, and leave those that the new server does not have for another look."""
        self.status.checked += page.count
        for key, there in self.answers(db, page, address):
            if key is None:
                self.status.unclear += 1
            elif there:
                self.status.present += 1
            elif key.expire_ms == _GONE:
                self.status.gone += 1
            else:
                self.left.add(db, key.name, Stamp(0, key.expire_ms))

    def look_again(self, db: int, page: Page) -> None:
        """Count keys that were missing before."""
        status = self.status
        for key, there in self.answers(db, page, None):
            if key is None:
                status.unclear += 1
            elif there:
                status.present += 1
            elif key.expire_ms == _GONE:
                status.gone += 1
            elif key.expire_ms == _NEVER:
                status.lasting += 1
                if len(status.samples) < self.samples:
                    status.samples.append(key.name)
            else:
                status.expiring += 1
                status.last_ms = max(status.last_ms or 0, key.expire_ms)
                size = int(math.log(max(key.expire_ms - self.old.server.now_ms(), 1)) / _STEP)
                self.lives[size] = self.lives.get(size, 0) + 1
                at = len(self.watched) if len(self.watched) < _MOST_WATCHED else self.chance.randrange(status.expiring)
                self.watched[at : at + 1] = [key] if at < _MOST_WATCHED else []

    def answers(self, db: int, page: Page, address: Address | None) -> Iterator[tuple[_Key | None, bool]]:
        """Of each key what the old server has, and whether the new one has it; None where one of them gave no answer."""
        heads = [_PEXPIRETIME if self.old.tells_times else _PTTL, *([_TYPE] if self.names is not None else [])]
        # The new server is asked last: what is there by then was not missing.
        expiries = self.old.ask(db, page, heads, address)
        now_ms = self.old.server.now_ms()
        there = self.new.ask(self.database(db), page, [_EXISTS], None)
        for i, name in enumerate(page.keys()):
            expiry, *kind = expiries[i * len(heads) : (i + 1) * len(heads)]
            found = there[i]
            refusal = next((line for line in (expiry, found) if not line.startswith(b":")), None)
            if refusal is not None:
                self.refusal = self.refusal or refusal[1:].decode("utf-8", "replace")
                yield None, False
                continue
            expire_ms = int(expiry[1:])
            if expire_ms >= 0 and not self.old.tells_times:
                expire_ms += now_ms
            if kind and expire_ms != _GONE and not self.wants(db, name, kind[0], expire_ms):
                self.status.checked -= 1
                continue
            yield _Key(db, name, expire_ms), found != b":0"

    def wants(self, db: int, name: bytes, kind: bytes, expire_ms: int) -> bool:
        """Whether a key whose name is wanted is so for all else."""
        return self.selection.wants(db, name, kind[1:].decode("latin-1"), None, None if expire_ms < 0 else expire_ms)

    # -- what is said of the whole

    def tell_when(self) -> None:
        """When the shares are reached, if each key that is missing stays so until it expires."""
        status = self.status
        sizes = sorted(self.lives, reverse=True)
        for share in _SHARES:
            most = status.present * (1 - share) / share  # so many may be missing then
            left = status.lasting + status.unclear
            at_ms: int | None = None if left > most else status.now_ms
            for size in sizes if at_ms is not None else ():
                left += self.lives[size]
                if left > most:
                    at_ms = min(status.now_ms + math.ceil(math.exp((size + 1) * _STEP)), status.last_ms or 0)
                    break
            status.reached[share] = at_ms

    def watch(self, watch_s: float) -> None:
        """Watch keys that are missing now."""
        time.sleep(watch_s)
        found = self.status.watched = Watched(watch_s, len(self.watched))
        for db in sorted({key.db for key in self.watched}):
            names = [key.name for key in self.watched if key.db == db]
            for at in range(0, len(names), self.batch):
                for key, there in self.answers(db, page_of(names[at : at + self.batch]), None):
                    found.arrived += there
                    found.gone += not there and key is not None and key.expire_ms == _GONE

    def explain(self, evicted: int) -> None:
        status = self.status
        if evicted:
            status.notes.append(
                f"the new server has evicted {count(evicted, 'key')} meanwhile, for want of memory: keys that were on it may not be"
            )
        if status.unclear:
            status.notes.append(f"about {count(status.unclear, 'key')} a server gave no answer: {self.refusal}")
        if not status.complete:
            status.notes.append("slots of a cluster moved all the time: not all of its keys were listed; run this again")


class _Side:
    """Asks a server about pages of names: at once where it is known which node has them, and key by key where that fails."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.tells_times = "PEXPIRETIME" in server.features
        self._connections: dict[tuple[Address, int], Connection] = {}

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()

    def ask(self, db: int, page: Page, heads: Sequence[bytes], address: Address | None) -> list[bytes]:
        """The answers to the questions about each name, as lines; what is no answer begins with a minus.

        Raises: TargetError where the server cannot be reached for some time.
        """
        if address is None and not self.server.slots():
            (address,) = self.server.masters()
        if address is not None:
            try:
                found = self._ask_node(address, db, page, list(heads))
                if not any(line.startswith(b"-") for line in found):
                    return found
            except (Lost, Refused, CorruptError):
                if (broken := self._connections.pop((address, db), None)) is not None:
                    broken.close()
        names = page.keys()
        asked = [(name, [head + bulk(name) for head in heads]) for name in names]
        return [_line(reply) for replies in self.server.ask(db, asked) for reply in replies]

    def _ask_node(self, address: Address, db: int, page: Page, heads: list[bytes]) -> list[bytes]:
        """Raises: Lost, Refused, CorruptError."""
        connection = self._connections.get((address, db))
        if connection is None:
            connection = self._connections[address, db] = self.server.dial(address, db)
        connection.renew_login()
        connection.send(questions(page, heads))
        replies = PlainReplies(page.count * len(heads))
        while not replies.done:
            replies.feed(connection.receive())
        return b"".join(replies.taken).split(b"\r\n")[:-1]


def _line(reply: Any) -> bytes:
    """A reply that is no array, as the server sent it."""
    if isinstance(reply, int):
        return b":%d" % reply
    return b"+" + reply if isinstance(reply, bytes) else b"-" + str(reply).encode()

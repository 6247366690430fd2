"""What a login may do on a server, found out with commands that change nothing, and what is used instead of what it may not.

Servers refuse in their own ways: an ACL says NOPERM, Azure "Command disallowed", an old release "unknown command". So nothing is
concluded from the name or release of a server: each command is tried as it will be used, on each node.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple

from rdbkit.clouds import cloud_of_host
from rdbkit.errors import TargetError
from rdbkit.format.replies import Refusal
from rdbkit.format.slots import key_slot
from rdbkit.live.connection import Address, Lost
from rdbkit.live.processes import run_id
from rdbkit.live.server import WAITS, Server
from rdbkit.passes.pages import Layout
from rdbkit.resp import command
from rdbkit.text import first_line

__all__ = ["Abilities", "Ability", "Row", "abilities", "is_missing"]

Side = Literal["source", "target"]

#: Errors that have nothing to do with what the login may.
_PASSING: Final = ("LOADING", "BUSY", "MASTERDOWN", "TRYAGAIN", "CLUSTERDOWN")
#: What says that a command is not there, or not for this login, in the words of Redis and of services.
_MISSING: Final = re.compile(
    r"unknown (?:sub)?command|disallowed|not (?:allowed|supported|available|permitted|enabled)|forbidden|disabled|blocked"
    r"|syntax error|wrong number of arguments",
    re.IGNORECASE,
)
#: Keyspace notifications that tell every change of a key: an event by its name, of all classes but those of reading.
_EVENT: Final = "E"
_CLASSES: Final = frozenset("g$lshztxe")
_ALL_CLASSES: Final = "A"
#: Keys in one MULTI: the server answers nobody else meanwhile.
_GROUP: Final = 64
#: Reads of each type, as values are read where DUMP is refused, and writes, as they are written where RESTORE is.
_READS: Final = (
    ("TYPE",), ("GETRANGE", "0", "0"), ("HSCAN", "0"), ("SSCAN", "0"), ("ZSCAN", "0"), ("LRANGE", "0", "0"), ("XRANGE", "-", "+"),
)  # fmt: skip
_WRITES: Final = (
    ("SET", "v"), ("APPEND", "v"), ("HSET", "f", "v"), ("SADD", "m"), ("ZADD", "1", "m"), ("RPUSH", "v"),
    ("XADD", "*", "f", "v"), ("PEXPIREAT", "1"), ("PEXPIRE", "1"), ("PERSIST",), ("DEL",),
)  # fmt: skip


class Row(NamedTuple):
    """One line of the table of abilities.

    Attributes:
        what: what is needed, such as "expiry".
        used: what is used for it; "nothing" where there is no way.
        why: why that is not the first choice, in the server's words; empty where it is.
        remedy: what would do better, if anything.
    """

    what: str
    used: str
    why: str
    remedy: str


@dataclass(frozen=True)
class Ability:
    """What is used for something that is needed.

    Attributes:
        use: the name of the way; None where there is none.
        why: why it is not the first choice, in the server's words; None where it is.
        command: what was refused.
    """

    use: str | None
    why: str | None = None
    command: str | None = None


@dataclass(frozen=True)
class Abilities:
    """What a login may do on a server, or on all nodes of a cluster; made by `abilities`. The first choice of each is named first.

    Attributes:
        value: how values are read: "dump", "commands" (of each type), or None.
        expiry: how expiries are read: "pexpiretime", "multi" (PTTL and TIME in one MULTI), "time" (PTTL, and this machine's clock
            corrected by TIME), or "clock" (PTTL, and this machine's clock).
        moment: how a value and its expiry are had of one moment: "multi", "twice" (PEXPIRETIME before and behind the value), or
            None.
        databases: how the databases are known that have keys: "info", "select" (tried one after the other), or "one" (there is
            none but database 0, or no way to another).
        changes: how changes are learned of: "tracking", "notifications", or "passes".
        process: by what a process is told from another: "run_id", or "scan" (the order in which it lists keys).
        touch: how reading leaves idle times as they are: "no-touch"; None where it does not.
        size: how sizes are known before a value is read: "memory", or None.
        functions: how function libraries are read, "dump", or None; "none" where the server has none.
        write: how keys are written: "restore" (with ABSTTL), "commands" (of each type, under another name), or None.
        rename: how a key appears whole under its name where it is written in pieces: "renamenx", or None.
        load_functions: how function libraries are written: "restore", or None; "none" where the server has none.
        events: what CONFIG says of keyspace notifications, as "AKE"; None where it does not tell.
    """

    value: Ability
    expiry: Ability
    moment: Ability
    databases: Ability
    changes: Ability
    process: Ability
    touch: Ability
    size: Ability
    functions: Ability
    write: Ability
    rename: Ability
    load_functions: Ability
    events: str | None = None

    def layout(self, server: Server) -> Layout:
        """How `passes.pages` asks for values and expiries on this source: nodes of a cluster take one key in a MULTI."""
        absolute = self.expiry.use == "pexpiretime"
        together = self.moment.use == "multi" and self.expiry.use in ("pexpiretime", "multi")
        return Layout((1 if server.slots() else _GROUP) if together else 0, absolute)

    def rows(self, server: Server, side: Side) -> list[Row]:
        """The table of a source or target: what is used for each thing that is needed there, and what would do better."""
        return [
            Row(what, ways[ability.use], _why(ability), _remedy(server, name, ability))
            for name, (what, of, ways) in _WORDS.items()
            if of == side
            for ability in (getattr(self, name),)
        ]


#: Of each ability: its name for humans, whose it is, and what its ways are called.
_WORDS: Final[dict[str, tuple[str, Side, dict[str | None, str]]]] = {
    "value": ("values", "source", {"dump": "DUMP", "commands": "commands of each type", None: "nothing"}),
    "expiry": ("expiries", "source", {
        "pexpiretime": "PEXPIRETIME", "multi": "PTTL and TIME in one MULTI", "time": "PTTL, and this machine's clock set by TIME",
        "clock": "PTTL and this machine's clock",
    }),
    "moment": ("value and expiry together", "source", {
        "multi": "MULTI", "twice": "PEXPIRETIME before and after the value", None: "nothing: one after the other",
    }),
    "databases": ("databases", "source", {"info": "INFO keyspace", "select": "SELECT of each", "one": "database 0 alone"}),
    "changes": ("changes", "source", {
        "tracking": "CLIENT TRACKING", "notifications": "keyspace notifications", "passes": "repeated passes",
    }),
    "process": ("noticing restarts", "source", {"run_id": "INFO server (run_id)", "scan": "the order of SCAN"}),
    "touch": ("reads that do not count as use", "source", {"no-touch": "CLIENT NO-TOUCH", None: "nothing: they count"}),
    "size": ("finding large values", "source", {"memory": "MEMORY USAGE", None: "nothing: all are read whole"}),
    "functions": ("functions", "source", {"dump": "FUNCTION DUMP", "none": "the server has none", None: "nothing"}),
    "write": ("writing", "target", {"restore": "RESTORE", "commands": "commands of each type", None: "nothing"}),
    "rename": ("large values in parts", "target", {"renamenx": "RENAMENX", None: "nothing"}),
    "load_functions": ("functions", "target", {"restore": "FUNCTION RESTORE", "none": "the server has none", None: "nothing"}),
}  # fmt: skip


def abilities(server: Server) -> Abilities:
    """What the login of a server may do, on all of its nodes that have keys.

    Nothing is changed: keys that are asked for have a random name that nobody uses, and what is switched on is so on a connection
    of its own, which is closed then.

    Raises: TargetError where a node cannot be reached, or is loading its data for long.
    """
    found = None
    owners: dict[Address, int] = {}
    for slot, owner in enumerate(server.slots()):
        if owner is not None:
            owners.setdefault(owner, slot)
    for address in server.masters():
        node = _of_node(server, address, owners.get(address))
        found = node if found is None else _worse(found, node, address)
    assert found is not None
    return found


def is_missing(reply: Any) -> str | None:
    """Why a command is not there for this login, in the server's words; None where it is.

    >>> is_missing(Refusal("NOPERM", "this user has no permissions to run the 'restore' command or its subcommand"))
    "NOPERM this user has no permissions to run the 'restore' command or its subcommand"
    >>> is_missing(Refusal("NOPERM", "No permissions to access a key")), is_missing(Refusal("ERR", "no such key"))
    (None, None)
    """
    if not isinstance(reply, Refusal):
        return None
    if reply.code == "NOPERM":
        return None if "access" in reply.text else str(reply)  # "to access a key": it is this one alone
    if reply.code == "READONLY" or (reply.code in ("ERR", "EXECABORT") and _MISSING.search(reply.text)):
        return str(reply)
    return None


# -- asking


def _of_node(server: Server, address: Address, slot: int | None) -> Abilities:
    for wait in (*WAITS, None):
        try:
            return _Probe(server, address, slot).run()
        except Lost as e:
            trouble = first_line(e)
        if wait is None:
            raise TargetError(f"what the login may do cannot be checked: {trouble}", source=str(server.url))
        time.sleep(wait)
    raise AssertionError


class _Probe:
    """The questions to one node."""

    def __init__(self, server: Server, address: Address, slot: int | None) -> None:
        self.server = server
        self.address = address
        self.key = _unused_name(slot)
        self.connection = server.dial(address)

    def run(self) -> Abilities:
        try:
            return self._run()
        finally:
            self.connection.close()

    def ask(self, *words: str | bytes) -> Any:
        """The reply to one command. Raises: Lost, also where the node is not ready to answer."""
        return self.ask_all([words])[0]

    def ask_all(self, commands: Iterable[Sequence[str | bytes]]) -> list[Any]:
        packed = [command(*(word.encode() if isinstance(word, str) else word for word in words)) for words in commands]
        replies = self.connection.ask(*packed)
        for reply in replies:
            if isinstance(reply, Refusal) and reply.code in _PASSING:
                raise Lost(f"{self.connection}: {reply}", "late")
        return replies

    def first(self, use: str, name: str, reply: Any, *others: tuple[str | None, bool]) -> Ability:
        """The first choice where it is there, else the first of the others that is."""
        why = is_missing(reply)
        if why is None:
            return Ability(use)
        return Ability(next((other for other, is_there in others if is_there), None), why, name)

    def _run(self) -> Abilities:
        key = self.key
        multi, _, _, transaction = self.ask_all([("MULTI",), ("PTTL", key), ("TIME",), ("EXEC",)])
        if isinstance(transaction, Refusal):
            multi = transaction if not isinstance(multi, Refusal) else multi
        dump, absolute, clock, usage = self.ask_all(
            [("DUMP", key), ("PEXPIRETIME", key), ("TIME",), ("MEMORY", "USAGE", key, "SAMPLES", "0")]
        )
        has_multi, has_clock = is_missing(multi) is None, is_missing(clock) is None
        reads = [is_missing(reply) for reply in self.ask_all(_about(key, _READS))]
        has_absolute = is_missing(absolute) is None
        functions, load_functions = self.functions()
        write, rename = self.writing(has_multi)
        changes, events = self.changes()
        return Abilities(
            value=self.first("dump", "DUMP", dump, ("commands", not any(reads))),
            expiry=self.first(
                "pexpiretime", "PEXPIRETIME", absolute, ("multi", has_multi and has_clock), ("time", has_clock), ("clock", True)
            ),
            moment=self.first("multi", "MULTI", multi, ("twice", has_absolute)),
            databases=self.databases(),
            changes=changes,
            process=self.process(),
            touch=Ability("no-touch") if self.server.touch is None else Ability(None, self.server.touch, "CLIENT NO-TOUCH"),
            size=self.first("memory", "MEMORY USAGE", usage),
            functions=functions,
            write=write,
            rename=rename,
            load_functions=load_functions,
            events=events,
        )

    def functions(self) -> tuple[Ability, Ability]:
        """How libraries are read and written; FUNCTION RESTORE answers that one byte is no payload."""
        dump, load = self.ask_all([("FUNCTION", "DUMP"), ("FUNCTION", "RESTORE", "x")])
        if isinstance(dump, Refusal) and "unknown command" in dump.text.lower():
            return Ability("none"), Ability("none")
        return self.first("dump", "FUNCTION DUMP", dump), self.first("restore", "FUNCTION RESTORE", load)

    def writing(self, has_multi: bool) -> tuple[Ability, Ability]:
        """How keys are written: RESTORE answers that one byte is no payload; other writes are queued, and discarded."""
        key = self.key
        restore, rename = self.ask_all([("RESTORE", key, "0", "x", "ABSTTL"), ("RENAMENX", key, key)])
        refused: list[str] = []
        if has_multi:
            queued = self.ask_all([("MULTI",), *_about(key, _WRITES), ("DISCARD",)])
            refused = [why for reply in queued[1:-1] if (why := is_missing(reply)) is not None]
        whole = self.first("renamenx", "RENAMENX", rename)
        return self.first("restore", "RESTORE", restore, ("commands", not refused and whole.use is not None)), whole

    def databases(self) -> Ability:
        chosen, other, _ = self.ask_all([("SELECT", "0"), ("SELECT", "1"), ("SELECT", "0")])
        if self.server.kind == "cluster" and isinstance(other, Refusal):
            return Ability("one")  # as in all clusters but those of Valkey 9 that have more
        return self.first("info", "INFO", self.ask("INFO", "keyspace"), ("select", is_missing(chosen) is None), ("one", True))

    def process(self) -> Ability:
        reply = self.ask("INFO", "server")
        if isinstance(reply, bytes) and run_id(reply) is None:
            return Ability("scan", "INFO server tells no run_id", "INFO")
        return self.first("run_id", "INFO", reply, ("scan", True))

    def changes(self) -> tuple[Ability, str | None]:
        """How changes are told, on a connection of its own that speaks RESP3; and which keyspace notifications are switched on."""
        config = self.ask("CONFIG", "GET", "notify-keyspace-events")
        events = config[1].decode("latin-1") if isinstance(config, list) and len(config) == 2 else None
        tracked = (command(b"HELLO", b"3"), command(b"CLIENT", b"TRACKING", b"ON", b"BCAST", b"NOLOOP"))
        refusal = self.refused(*tracked)
        if refusal is None:
            return Ability("tracking"), events
        may_listen = self.refused(command(b"PSUBSCRIBE", b"__keyevent@*__:*")) is None
        told = may_listen and events is not None and _tells_all(events)
        return Ability("notifications" if told else "passes", str(refusal), "CLIENT TRACKING"), events

    def refused(self, *commands: bytes) -> Refusal | None:
        """The first refusal of commands on a connection of their own."""
        listener = self.server.dial(self.address)
        try:
            return next((reply for reply in listener.ask(*commands) if isinstance(reply, Refusal)), None)
        finally:
            listener.close()


def _about(key: bytes, commands: Iterable[tuple[str, ...]]) -> list[tuple[str | bytes, ...]]:
    """These commands, their first argument a key."""
    return [(name, key, *rest) for name, *rest in commands]


def _tells_all(events: str) -> bool:
    """Whether these keyspace notifications tell each change of a key.

    >>> _tells_all("AKE"), _tells_all("Kg$"), _tells_all("")
    (True, False, False)
    """
    return _EVENT in events and (_ALL_CLASSES in events or set(events) >= _CLASSES)


def _unused_name(slot: int | None) -> bytes:
    """A name that no key has, in a slot."""
    stem = b"rdbkit:%b:" % secrets.token_hex(16).encode()
    if slot is None:
        return stem
    n = 0
    while key_slot(name := b"%b{%d}" % (stem, n)) != slot:
        n += 1
    return name


# -- together, and in words


def _worse(one: Abilities, other: Abilities, address: Address) -> Abilities:
    """What both nodes allow; a reason that only the second has is told with its name."""
    changed: dict[str, Any] = {}
    for name, (_, _, ways) in _WORDS.items():
        first, second = getattr(one, name), getattr(other, name)
        if _rank(ways, second) > _rank(ways, first):
            changed[name] = second if second.why is None else replace(second, why=f"{address[0]}:{address[1]}: {second.why}")
    if one.events != other.events:
        changed["events"] = None
    return replace(one, **changed)


def _rank(ways: Iterable[str | None], ability: Ability) -> int:
    return list(ways).index(ability.use)


#: What a better login would give, by ability.
_GAINS: Final = {
    "value": "each value takes one command",
    "expiry": "expiries are exact",
    "moment": "a key that changes meanwhile gets a value and an expiry of one moment",
    "databases": "empty databases are skipped",
    "changes": "changes are seen at once, without reading all keys again",
    "process": "a resumed copy knows for sure whether the server restarted",
    "touch": "reading does not count as use (LRU, LFU)",
    "size": "large values are found before they are read",
    "functions": "functions are copied",
    "write": "writing takes about a fifth of the work",
    "rename": "large values can be written in pieces",
    "load_functions": "functions are copied",
}


def _why(ability: Ability) -> str:
    if ability.why is None:
        return ""
    words = re.sub(r",? with args beginning with.*", "", ability.why, flags=re.DOTALL)
    return f"{ability.command}: {first_line(Exception(words))}"


def _remedy(server: Server, name: str, ability: Ability) -> str:
    """What would do better: for what the user may not, another one; for what the server has not, nothing does."""
    if ability.why is None or ability.command is None:
        return ""
    is_azure = cloud_of_host(server.url.host) is not None
    ways = []
    if "NOPERM" in ability.why:
        right = f"+{'|'.join(ability.command.lower().split(' ', 1))}"
        if is_azure:
            ways.append(f"with the access policy Data Owner, {_GAINS[name]}")
        else:
            ways.append(f"with a user that may run {ability.command} (ACL SETUSER NAME {right}), {_GAINS[name]}")
    if "READONLY" in ability.why:
        ways.append("this is a replica: name its primary")
    if name == "changes" and ability.use == "passes":
        where = "in the cache's advanced settings" if is_azure else "by CONFIG SET"
        ways.append(f"keyspace notifications do as well: set notify-keyspace-events to AKE {where}")
    return "; ".join(ways)

"""What a user holds, besides records: the header and the events of a snapshot."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

#: What the name of a function library is, and its engine: functionsVerifyName in src/functions.c.
_WORD: Final = re.compile("[A-Za-z0-9_]+")
_NO_WORD: Final = re.compile("[^A-Za-z0-9_]")
_MODULE_ALPHABET: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


#: Bytes of a library's source that its first line is looked for in.
_LONGEST_HEAD: Final = 1 << 14
#: Every number of so many digits is one of 64 bits.
_LONGEST_NUMBER: Final = 18


class Header(NamedTuple):
    """The first nine bytes: `flavour` is "redis" or "valkey", `version` the RDB version.

    >>> print(Header("redis", 11))
    REDIS0011
    """

    flavour: str
    version: int

    def __str__(self) -> str:
        return f"VALKEY{self.version:03d}" if self.flavour == "valkey" else f"REDIS{self.version:04d}"


def aux_number(value: str | bytes | None) -> int | None:
    """The number in an AUX field, such as `used-mem`; None where there is none, or none of 64 bits.

    >>> aux_number("1048576"), aux_number(b"12"), aux_number("1.5"), aux_number(None)
    (1048576, 12, None, None)
    """
    if value is None or len(value) > _LONGEST_NUMBER or not value.isascii() or not value.isdigit():
        return None
    return int(value)


class Checksum(NamedTuple):
    """The CRC-64 at the file's end.

    `state`: "ok"; "disabled" (stored as 0 by `rdbchecksum no`); "absent" (RDB 4 and older have none); "unchecked" (not asked
    for). `stored` and `computed` are the numbers, None where there is none.
    """

    state: str
    stored: int | None = None
    computed: int | None = None


class Trailer(NamedTuple):
    """What follows the RDB in the same input.

    `kind`: "none", "padding" (zero bytes, as of a page blob), "aof" (commands of a mixed append-only file), "snapshot" (another
    one) or "unknown"; and of captures of what a replica is sent: "mark" (the end mark alone, as `redis-cli --rdb -` leaves it,
    too), "pings" (newlines, and commands that change no key, such as PING and SELECT) or "replication" (commands that do). `size`
    in bytes, None where it was not read to its end.
    """

    kind: str
    size: int | None


#: What follows a snapshot, in words, by `Trailer.kind`.
TRAILERS: Final = {
    "padding": "zeros, as of a page blob",
    "mark": "the end mark of a replication, as redis-cli --rdb - leaves it",
    "pings": "pings of a replication, which change no key",
    "aof": "commands of an append-only file, which change it",
    "replication": "commands of a replication, which change it",
    "snapshot": "another snapshot, which no server reads",
    "unknown": "bytes that are none of it",
}
#: What follows an RDB and is data, by `Trailer.kind`: who reads the RDB alone misses it.
TRAILING_DATA: Final = {
    "aof": "commands",
    "replication": "commands of a replication",
    "snapshot": "another snapshot",
    "unknown": "bytes that are none of it",
}


class AofBase(NamedTuple):
    """That a snapshot is the base of an append-only folder, and what was written after it.

    `newer`: names of the files beside it that have newer data. `known`: whether such a folder is there at all; otherwise nobody can
    tell, as of a pipe.
    """

    newer: tuple[str, ...]
    known: bool

    @property
    def summary(self) -> str:
        """What is to be known of it; empty where it lacks nothing.

        >>> AofBase(("appendonly.aof.2.incr.aof",), True).summary
        'the base of an append-only folder; newer data stands beside it, in appendonly.aof.2.incr.aof'
        """
        if not self.known:
            return "the base of an append-only folder; whether newer data stood beside it is not known"
        if not self.newer:
            return ""
        where = self.newer[0] if len(self.newer) == 1 else f"{self.newer[0]} and {len(self.newer) - 1:,} more"
        return f"the base of an append-only folder; newer data stands beside it, in {where}"


class Event:
    """Root of what a file says besides its records, in file order from `Snapshot.events()`."""

    __slots__ = ()


class Aux(Event):
    """A field about the file or its writer, such as `redis-ver` (opcode 250)."""

    __slots__ = ("key", "value")

    def __init__(self, key: bytes, value: bytes) -> None:
        self.key = key
        self.value = value

    def __repr__(self) -> str:
        return f"Aux({self.key!r}, {self.value!r})"


class SelectDb(Event):
    """The records that follow belong to database `db` (opcode 254)."""

    __slots__ = ("db",)

    def __init__(self, db: int) -> None:
        self.db = db

    def __repr__(self) -> str:
        return f"SelectDb({self.db})"


class ResizeDb(Event):
    """How many keys, and keys with an expiry, the writer counted in this database (opcode 251); a hint."""

    __slots__ = ("expires", "keys")

    def __init__(self, keys: int, expires: int) -> None:
        self.keys = keys
        self.expires = expires

    def __repr__(self) -> str:
        return f"ResizeDb({self.keys}, {self.expires})"


class SlotInfo(Event):
    """Keys and expiries of the cluster slot that follows (opcode 244); a hint."""

    __slots__ = ("expires", "keys", "slot")

    def __init__(self, slot: int, keys: int, expires: int) -> None:
        self.slot = slot
        self.keys = keys
        self.expires = expires

    def __repr__(self) -> str:
        return f"SlotInfo({self.slot}, {self.keys}, {self.expires})"


class EnterpriseHint(Event):
    """A number that Redis Enterprise keeps beside a key: when it was last used (opcode 107) or its slot (121); a hint."""

    __slots__ = ("number", "opcode")

    def __init__(self, opcode: int, number: int) -> None:
        self.opcode = opcode
        self.number = number

    def __repr__(self) -> str:
        return f"EnterpriseHint({self.opcode}, {self.number})"


class FunctionLibrary(Event):
    """A function library: `name`, `engine` and `source` code (opcode 245; 246 where `pre_release`)."""

    __slots__ = ("engine", "name", "pre_release", "source")

    def __init__(self, name: str, engine: str, source: bytes, pre_release: bool = False) -> None:
        self.name = name
        self.engine = engine
        self.source = source
        self.pre_release = pre_release

    @property
    def can_have_head(self) -> bool:
        """Whether name and engine can stand in a first line: servers since 7.0 take names of letters, digits and `_` alone."""
        return _WORD.fullmatch(self.name) is not None and _WORD.fullmatch(self.engine) is not None

    @property
    def code(self) -> bytes:
        """The source as FUNCTION LOAD takes it: release candidates of 7.0 kept name and engine beside it.

        Where `can_have_head` is false, no server takes it: what of name and engine cannot stand there is replaced by `_`.
        """
        if not self.pre_release:
            return self.source
        name, engine = (_NO_WORD.sub("_", text) or "_" for text in (self.name, self.engine))
        return f"#!{engine} name={name}\n".encode() + self.source

    def __repr__(self) -> str:
        return f"FunctionLibrary({self.name!r}, {self.engine!r}, {len(self.source)} bytes)"


class ModuleAux(Event):
    """Data of a module outside of keys (opcode 247).

    Its type's name and encoding version, `when` 1 before or 2 after the keys, `size` in bytes.
    """

    __slots__ = ("module", "size", "version", "when")

    def __init__(self, module: str, version: int, when: int, size: int) -> None:
        self.module = module
        self.version = version
        self.when = when
        self.size = size

    def __repr__(self) -> str:
        return f"ModuleAux({self.module!r}, {self.version}, {self.when}, {self.size})"


class KeyMetadata(Event):
    """Metadata that modules attached to the key that follows (opcode 243 of Redis 8.6), as its bytes."""

    __slots__ = ("raw",)

    def __init__(self, raw: bytes) -> None:
        self.raw = raw

    def __repr__(self) -> str:
        return f"KeyMetadata({len(self.raw)} bytes)"


class SlotImport(Event):
    """A slot import that was going on (opcode 243 of Valkey 9): its job's name and the slot ranges."""

    __slots__ = ("job", "ranges")

    def __init__(self, job: bytes, ranges: tuple[tuple[int, int], ...]) -> None:
        self.job = job
        self.ranges = ranges

    def __repr__(self) -> str:
        return f"SlotImport({self.job!r}, {self.ranges!r})"


class HashTemplate(Event):
    """Field names that hashes refer to by number (opcode 242 of RDB 15)."""

    __slots__ = ("fields", "number")

    def __init__(self, number: int, fields: tuple[bytes, ...]) -> None:
        self.number = number
        self.fields = fields

    def __repr__(self) -> str:
        return f"HashTemplate({self.number}, {self.fields!r})"


def module_name(number: int) -> str:
    """The nine letters of a module type's id. Source: moduleTypeNameByID in Redis' src/module.c.

    >>> module_name(13683956169735844864)
    'vectorset'
    """
    return "".join(_MODULE_ALPHABET[number >> shift & 63] for shift in range(58, 9, -6))


def function_library(source: bytes) -> FunctionLibrary:
    """The library in `source`, whose first line names engine and library: `#!lua name=mylib`."""
    first = source[:_LONGEST_HEAD].split(b"\n", 1)[0].decode("utf-8", "surrogateescape")
    words = first[2:].split() if first.startswith("#!") else []
    name = next((w[5:] for w in words if w.startswith("name=")), "")
    return FunctionLibrary(name, words[0] if words else "", source)

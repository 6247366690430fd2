"""The rules of a conversion: its target, the policies for data that the target does not support, and the edits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

from rdbkit.format import constants as c
from rdbkit.format.filter import renamed
from rdbkit.model import Header
from rdbkit.policy.losses import policies
from rdbkit.selection import Selection
from rdbkit.targets.target import Target
from rdbkit.text import as_bytes

if TYPE_CHECKING:
    from rdbkit.policy.script import ScriptRecord

_LAST_DB: Final = (1 << 31) - 1
_LONGEST_MS: Final = 10_000 * 366 * 86_400_000
#: Policies that leave out no key.
_OF_NO_KEY: Final = ("stream_extras", "lua_script")
FAIL: Final = "fail"
DROP: Final = "drop"


@dataclass(frozen=True)
class Policies:
    """What becomes of data that the target does not support. "fail" lists it, and nothing is written.

    Args:
        loss: "fail", or "drop" to leave out whatever no other policy speaks of, and what those do that are not given.
        field_ttl: when fields of a hash expire. "drop-ttl" keeps the fields, which then never expire; "drop-field" leaves them
            out; "key-min" lets the whole key expire with the first of its fields, "key-max" with the last (never, where one of
            them never does).
        function: function libraries: "drop", or "extract" to get their sources with the report; a target that has functions
            gets them as well.
        lua_script: Lua scripts that the target does not load: "drop", "extract" to get them with the report, or "fail".
        module: values of modules: "drop", "json-as-string" to make strings of RedisJSON's documents, "keep" where the target
            has the modules loaded.
        stream_extras: counters of streams that the target recomputes: "drop", or "fail".
        pending_unowned: pending entries of a stream that belong to no consumer: "drop", or "assign" to `owner`.
        owner: name of the consumer who gets them; bytes, or a str, which is kept in UTF-8.
        array: "hash" makes a hash of an array, with its indexes for fields; "drop".
        key_metadata: what modules attached to keys: "drop".
        oversize: keys that are larger than the target takes: "drop".

    Raises: ValueError for a word that a policy does not know; TypeError for an owner that is no name.

    >>> policies = Policies(loss="drop", pending_unowned="assign", owner="nobody")
    >>> policies.chosen("function"), policies.owner
    ('drop', b'nobody')
    """

    loss: str = FAIL
    field_ttl: str | None = None
    function: str | None = None
    lua_script: str | None = None
    module: str | None = None
    stream_extras: str | None = None
    pending_unowned: str | None = None
    owner: str | bytes | None = None
    array: str | None = None
    key_metadata: str | None = None
    oversize: str | None = None

    def __post_init__(self) -> None:
        for name, policy in policies().items():
            chosen, choices = getattr(self, name), policy.choices
            if chosen is not None and chosen not in choices:
                raise ValueError(f"{name} is {', '.join(choices[:-1])} or {choices[-1]}, not {chosen!r}")
        if (self.pending_unowned == "assign") != (self.owner is not None):
            raise ValueError("pending_unowned='assign' and owner go together")
        if self.owner is not None:
            object.__setattr__(self, "owner", as_bytes(self.owner, "owner"))

    def chosen(self, name: str) -> str:
        """The word of a policy, or the one that stands for it where it was not given."""
        given: str | None = getattr(self, name)
        if given is not None:
            return given
        policy = policies()[name]
        return policy.default or (FAIL if self.loss == FAIL else policy.drop)


@dataclass(frozen=True)
class Edits:
    """What is to be changed besides.

    Args:
        map_db: database by database, where its keys go; those of the others stay.
        collapse_dbs: all keys go to database 0.
        on_duplicate: of keys that come twice in one database of the source, and of fields and members that come twice in one value:
            "fail" lists them, "first" and "last" keep that one in file order.
        on_conflict: of keys that would have one name in one database: "fail" lists them, "first" and "last" keep that one in
            file order, "rename" gives the later ones another name.
        rename_pattern: that name, with `{key}` and `{db}` (the database they come from); a str, which is UTF-8, or bytes, and kept
            as those.
        drop_expired: leave out keys that are past.
        set_ttl_ms: every key expires so many milliseconds from now; -1 for never.
        shift_ttl_ms: expiries are moved by so many milliseconds, later, or earlier where it is negative.
        rename_prefix: pairs of an old prefix of keys and what it becomes, each bytes, or a str, which is kept in UTF-8; the first
            that fits counts.
        script: called with a `ScriptRecord` of every key; returns it, changed or not, or None to leave the key out.

    Raises: ValueError for arguments that exclude each other, a word that is not known, and numbers out of range; TypeError for
        prefixes that are no pairs of names, numbers that are none, and a script that is no function.

    >>> edits = Edits(map_db={3: 0}, rename_prefix=[("user:", "app1:user:")])
    >>> edits.db_of(3), edits.key_of(b"user:17")
    (0, b'app1:user:17')
    """

    map_db: Mapping[int, int] = field(default_factory=dict)
    collapse_dbs: bool = False
    on_duplicate: str = FAIL
    on_conflict: str = FAIL
    rename_pattern: str | bytes = "{key}:db{db}"
    drop_expired: bool = False
    set_ttl_ms: int | None = None
    shift_ttl_ms: int = 0
    rename_prefix: Iterable[tuple[str | bytes, str | bytes]] = ()
    script: Callable[[ScriptRecord], ScriptRecord | None] | None = None

    def __post_init__(self) -> None:
        if self.on_duplicate not in (FAIL, "first", "last"):
            raise ValueError(f"on_duplicate is fail, first or last, not {self.on_duplicate!r}")
        if self.on_conflict not in (FAIL, "first", "last", "rename"):
            raise ValueError(f"on_conflict is fail, first, last or rename, not {self.on_conflict!r}")
        if self.collapse_dbs and self.map_db:
            raise ValueError("map_db and collapse_dbs exclude each other")
        if self.set_ttl_ms is not None and self.shift_ttl_ms:
            raise ValueError("set_ttl_ms and shift_ttl_ms exclude each other")
        object.__setattr__(self, "rename_pattern", as_bytes(self.rename_pattern, "rename_pattern"))
        object.__setattr__(self, "rename_prefix", tuple(_prefixes(self.rename_prefix)))
        if self.on_conflict == "rename" and b"{key}" not in cast("bytes", self.rename_pattern):
            raise ValueError("a pattern for new names needs {key}")
        if not isinstance(self.map_db, Mapping):
            raise TypeError(f"map_db is a dict of databases by database, not {type(self.map_db).__name__}")
        numbers = [("map_db", db) for pair in self.map_db.items() for db in pair]
        for name, number in (*numbers, ("shift_ttl_ms", self.shift_ttl_ms), ("set_ttl_ms", self.set_ttl_ms or 0)):
            if not isinstance(number, int):
                raise TypeError(f"{name} has whole numbers, not {number!r}")
        if self.script is not None and not callable(self.script):
            raise TypeError(f"script is a function, not {type(self.script).__name__}")
        if any(not 0 <= db <= _LAST_DB for _, db in numbers):
            raise ValueError(f"databases are numbered from 0 to {_LAST_DB}")
        if max(abs(self.shift_ttl_ms), abs(self.set_ttl_ms or 0)) > _LONGEST_MS:
            raise ValueError("a time of more than ten thousand years")

    @property
    def moves_keys(self) -> bool:
        """Whether two keys could come to have the same name."""
        return bool(self.collapse_dbs or self.map_db or self.rename_prefix)

    @property
    def renames(self) -> tuple[tuple[bytes, bytes], ...]:
        """`rename_prefix`, of which __post_init__ has made pairs of bytes."""
        return cast("tuple[tuple[bytes, bytes], ...]", self.rename_prefix)

    def db_of(self, db: int) -> int:
        """Where the keys of a database go."""
        return 0 if self.collapse_dbs else self.map_db.get(db, db)

    def key_of(self, key: bytes) -> bytes:
        """What a key will be called."""
        return renamed(self.renames, key)


def _prefixes(pairs: object) -> Iterator[tuple[bytes, bytes]]:
    """The pairs of `Edits.rename_prefix`, in bytes."""
    if isinstance(pairs, str | bytes | Mapping) or not isinstance(pairs, Iterable):
        raise TypeError(f"rename_prefix is pairs of an old and a new prefix, not {type(pairs).__name__}")
    for pair in pairs:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise TypeError(f"rename_prefix is pairs of an old and a new prefix; one of them is {pair!r}")
        old, new = pair
        yield as_bytes(old, "a prefix"), as_bytes(new, "a prefix")


@dataclass(frozen=True)
class Rules:
    """All that decides what becomes of a record; goes to other processes as it is.

    `deep` looks into every value. `tolerated` are rules that values may break, and the target loads them all the same. `source`
    and `header` are those of the file that is read and the one that is written, `known` the types that the target loads from that.
    `decisions` says of records, by their offset, that another one has their name: None leaves a record out, a name renames it.
    `duplicates` are the offsets of records that are left out since another record of the same key is kept. `keeps_hints`: what
    Redis Enterprise keeps beside keys stays, for the target wrote it itself.
    """

    target: Target
    source: Header
    header: Header
    known: dict[int, c.ValueType]
    policies: Policies
    edits: Edits
    selection: Selection | None
    now_ms: int
    compress: bool
    skip: bool
    deep: bool = False
    tolerated: frozenset[str] = frozenset()
    decisions: dict[int, bytes | None] = field(default_factory=dict)
    duplicates: frozenset[int] = frozenset()
    keeps_hints: bool = False

    @property
    def may_drop(self) -> bool:
        """Whether fewer keys may be written than there are, or in other databases."""
        drops = any(self.policies.chosen(name) not in (FAIL, "keep") for name in policies() if name not in _OF_NO_KEY)
        return drops or self.skip or self.selection is not None or self.edits != Edits()

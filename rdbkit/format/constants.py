"""Numbers of the format, and which server or version gives a number its meaning. Data only.

Sources: `src/rdb.h` and `src/rdb.c` of each Redis and Valkey release; what only public documents describe (RDB 15) is
marked `documented`. A number means something only together with the flavour and the version of the file:
`value_types` and `opcode_names` resolve it.
"""

from __future__ import annotations

from collections.abc import Container
from typing import Final, NamedTuple

REDIS: Final = "redis"
VALKEY: Final = "valkey"

#: Newest versions that are read without `relaxed`.
NEWEST_REDIS: Final = 15
VALKEY_VERSIONS: Final = (80,)

HASH_TEMPLATE: Final = 242
KEY_META: Final = 243
SLOT_IMPORT: Final = 243
SLOT_INFO: Final = 244
FUNCTION2: Final = 245
FUNCTION_PRE_GA: Final = 246
MODULE_AUX: Final = 247
IDLE: Final = 248
FREQ: Final = 249
AUX: Final = 250
RESIZEDB: Final = 251
EXPIRETIME_MS: Final = 252
EXPIRETIME: Final = 253
SELECTDB: Final = 254
EOF: Final = 255
DRAGONFLY_MASK: Final = 220
#: What Redis Enterprise writes in front of keys: one length each. Source: src/lib/defines.h and parser.c of redis/librdb.
RAM_LRU: Final = 107
SLOT_NUMBER: Final = 121

#: What Dragonfly can do instead of writing what only it can read. Source: dragonflydb.io/docs, SAVE.
_DRAGONFLY_REMEDY: Final = "let Dragonfly write an RDB file: SAVE RDB, or start it with --df_snapshot_format=false"
_OF_DRAGONFLY: Final = {
    200: "the end of a full synchronisation",
    201: "a zstd-compressed block",
    202: "an LZ4-compressed block",
    203: "the end of a compressed block",
    210: "a journal",
    211: "a place in the journal",
    222: "a vector index",
    223: "a document index",
    224: "something",
}
#: Opcodes that are known by name alone, and what to do about them where that is known: what follows them is documented nowhere, so
#: a file with one is refused by name. Source of 101 and 102: src/lib/defines.h of redis/librdb, which does not read them either.
NAMED_OPCODES: Final = {
    101: ("a CAS number of Redis Enterprise (opcode 101)", ""),
    102: ("flags of Redis Enterprise (opcode 102)", ""),
    **{opcode: (f"{name} of Dragonfly (opcode {opcode})", _DRAGONFLY_REMEDY) for opcode, name in _OF_DRAGONFLY.items()},
}


#: How the values of a type are read, by the name that a row of the tables below gives it.
SHAPES: Final = {
    "string": "one string",
    "strings": "a count, and `arity` strings for each",
    "scored": "a count, and a string and a double for each",
    "text-scored": "a count, and a string and a double as text for each",
    "nodes": "a count, and for each a container and a string, which is a packed collection or one plain element",
    "packed-nodes": "a count, and a packed collection for each",
    "packed": "one string, which is a packed collection",
    "expiry-first": "a count, and expiry, field and value for each",
    "expiry-last": "a count, and field, value and expiry for each",
    "expiry-text": "a count, and `arity` strings for each, of which the last is an expiry in seconds (Dragonfly)",
    "stream": "nodes, what the stream says of itself, and its groups",
    "array": "a count, whether there is an index, and an index and a tagged element for each",
    "module": "what a module writes, framed",
    "cron": "a script, two numbers and two lists of strings",
    "number": "one number stored as a length",
    "named-listpack": "field names, and values as a listpack",
    "named": "field names, and values",
    "template-listpack": "a listpack of the number of a template and values",
    "template": "the number of a template, and values",
}


class ValueType(NamedTuple):
    """What a type byte means, and how values of that type are handled: every table of how is derived from these rows.

    Attributes:
        id: the type byte.
        name: in words.
        type, encoding: what `TYPE` and `OBJECT ENCODING` would say of the stored form.
        layout: the grammar of the bytes after the key; see `skip.py`.
        since: the first RDB version of its flavour that has it.
        universal: the lowest RDB version that can hold the same data in another encoding; None where no other encoding holds it.
        shape: how it is read; one of `SHAPES`.
        arity: how many calls of a sink make an element of it: 2 for a field and its value or a member and its score, and one more
            where elements can expire.
        packed: the packed encoding of what its strings hold; one of `readers.py`, or nothing.
        head: bytes in front of its count or string, which say when the first of its fields expires.
        documented: known from public documents alone.
    """

    id: int
    name: str
    type: str
    encoding: str
    layout: str
    since: int
    universal: int | None
    shape: str
    arity: int = 1
    packed: str = ""
    head: int = 0
    documented: bool = False

    @property
    def expires(self) -> bool:
        """Whether its elements can expire, each for itself.

        >>> value_types("redis", 12)[25].expires, value_types("redis", 12)[16].expires
        (True, False)
        """
        return self.arity > (2 if self.type in ("hash", "zset") else 1)


_COMMON = (
    ValueType(0, "string", "string", "raw", "s", 1, 1, "string"),
    ValueType(1, "list", "list", "linkedlist", "*(s)", 1, 1, "strings"),
    ValueType(2, "set", "set", "hashtable", "*(s)", 1, 1, "strings"),
    ValueType(3, "sorted set with text scores", "zset", "skiplist", "*(st)", 1, 1, "text-scored", 2),
    ValueType(4, "hash", "hash", "hashtable", "*(ss)", 1, 1, "strings", 2),
    ValueType(5, "sorted set", "zset", "skiplist", "*(sd)", 8, 1, "scored", 2),
    ValueType(7, "module value", "module", "module", "lm", 8, None, "module"),
    ValueType(9, "hash zipmap", "hash", "zipmap", "s", 2, 1, "packed", 2, "zipmap"),
    ValueType(10, "list ziplist", "list", "ziplist", "s", 2, 1, "packed", 1, "ziplist"),
    ValueType(11, "set intset", "set", "intset", "s", 2, 1, "packed", 1, "intset"),
    ValueType(12, "sorted set ziplist", "zset", "ziplist", "s", 2, 1, "packed", 2, "ziplist"),
    ValueType(13, "hash ziplist", "hash", "ziplist", "s", 4, 1, "packed", 2, "ziplist"),
    ValueType(14, "list quicklist of ziplists", "list", "quicklist", "*(s)", 7, 1, "packed-nodes", 1, "ziplist"),
    ValueType(15, "stream", "stream", "stream", "*(ss)lll*(sll*(idl)*(sd*(i)))", 9, 9, "stream"),
    ValueType(16, "hash listpack", "hash", "listpack", "s", 10, 1, "packed", 2, "listpack"),
    ValueType(17, "sorted set listpack", "zset", "listpack", "s", 10, 1, "packed", 2, "listpack"),
    ValueType(18, "list quicklist", "list", "quicklist", "*(cs)", 10, 1, "nodes", 1, "listpack"),
    ValueType(19, "stream v2", "stream", "stream", "*(ss)llllllll*(slll*(idl)*(sd*(i)))", 10, 9, "stream"),
    ValueType(20, "set listpack", "set", "listpack", "s", 11, 1, "packed", 1, "listpack"),
    ValueType(21, "stream v3", "stream", "stream", "*(ss)llllllll*(slll*(idl)*(sdd*(i)))", 11, 9, "stream"),
)
_REDIS_ONLY = (
    ValueType(22, "hash with field expiry (7.4 RC)", "hash", "hashtable", "*(lss)", 12, None, "expiry-first", 3),
    ValueType(23, "hash listpack with field expiry (7.4 RC)", "hash", "listpackex", "s", 12, None, "packed", 3, "listpack"),
    ValueType(24, "hash with field expiry", "hash", "hashtable", "d*(lss)", 12, None, "expiry-first", 3, head=8),
    ValueType(25, "hash listpack with field expiry", "hash", "listpackex", "ds", 12, None, "packed", 3, "listpack", 8),
    ValueType(26, "stream v4", "stream", "stream", "*(ss)llllllll*(slll*(idl)*(sdd*(i)))ll*(s*(sll))ll", 13, 9, "stream"),
    ValueType(27, "stream v5", "stream", "stream", "*(ss)llllllll*(slll*(idl)*(sdd*(i))*(i))ll*(s*(sll))ll", 14, 9, "stream"),
    ValueType(28, "array", "array", "array", "#o@(lu)", 14, None, "array"),
)
_REDIS_14 = (ValueType(29, "rate limiter (GCRA)", "gcra", "gcra", "l", 14, None, "number"),)
_REDIS_15 = (
    ValueType(29, "hash with field names, listpack", "hash", "template", "xs", 15, 1, "named-listpack", 2, documented=True),
    ValueType(30, "hash by template, listpack", "hash", "template", "s", 15, 1, "template-listpack", 2, documented=True),
    ValueType(31, "hash with field names", "hash", "template", "x@(s)", 15, 1, "named", 2, documented=True),
    ValueType(32, "hash by template", "hash", "template", "y@(s)", 15, 1, "template", 2, documented=True),
    ValueType(33, "rate limiter (GCRA)", "gcra", "gcra", "l", 15, None, "number", documented=True),
)
_VALKEY_ONLY = (ValueType(22, "hash with field expiry (Valkey)", "hash", "hashtable", "*(ssd)", 80, None, "expiry-last", 3),)
_KEYDB = (ValueType(64, "KeyDB cron job", "cron", "cron", "sdd*(s)*(s)", 9, None, "cron"),)
_DRAGONFLY = (
    ValueType(30, "Dragonfly JSON document", "json", "json", "s", 9, None, "string"),
    ValueType(31, "Dragonfly hash with field expiry", "hash", "hashtable", "*(sss)", 9, None, "expiry-text", 3),
    ValueType(32, "Dragonfly set with member expiry", "set", "hashtable", "*(ss)", 9, None, "expiry-text", 2),
)
#: Types that only forks write and read, whatever version their files claim.
FOREIGN: Final = _KEYDB + _DRAGONFLY
_ROWS: Final = (*_COMMON, *_REDIS_ONLY, *_REDIS_14, *_REDIS_15, *_VALKEY_ONLY, *FOREIGN)
#: Known by name alone, and therefore refused by name.
NAMED_TYPES: Final = {
    6: "a module value of a release candidate of Redis 4.0, which no released server reads (type 6)",
    33: "a Bloom filter of Dragonfly (type 33)",
    34: "a Bloom filter of Dragonfly (type 34)",
    35: "a count-min sketch of Dragonfly (type 35)",
    36: "a top-k list of Dragonfly (type 36)",
    37: "a cuckoo filter of Dragonfly (type 37)",
}


def value_types(flavour: str, version: int) -> dict[int, ValueType]:
    """The meaning of each type byte in a file of this flavour and RDB version.

    Types newer than the header's version are read too, where their number has one meaning only: Dragonfly, for one,
    writes listpacks under version 9.

    >>> value_types("redis", 12)[22].name
    'hash with field expiry (7.4 RC)'
    >>> value_types("valkey", 80)[22].name
    'hash with field expiry (Valkey)'
    """
    types = list(_COMMON)
    if flavour == VALKEY:
        types += _VALKEY_ONLY
    else:
        types += _REDIS_ONLY
        if version >= 15:
            types += _REDIS_15
        elif version >= 14:
            types += _REDIS_14
        elif version <= 9:
            types += _DRAGONFLY + _KEYDB
    return {t.id: t for t in types}


def newer_types(flavour: str, version: int) -> dict[int, ValueType]:
    """The types that `value_types` knows although no server writes them into files of this version.

    Dragonfly writes, under version 9, what servers write under versions up to 11.

    >>> sorted(newer_types("redis", 11))
    [22, 23, 24, 25, 26, 27, 28]
    >>> 16 in newer_types("redis", 9), 16 in newer_types("redis", 8)
    (False, True)
    """
    newest = 11 if flavour == REDIS and version == 9 else version
    return {t.id: t for t in value_types(flavour, version).values() if t.since > newest and t not in FOREIGN}


def check_rows(column: str, known: Container[str], missing: str) -> None:
    """See to it that something is known of all that a column of the rows has; called where a table is made of the rows.

    Args:
        column: "shape" or "packed".
        known: what it may have.
        missing: what is missing where it has something else, in words.

    Raises: NotImplementedError, naming the type and what is missing for it.

    >>> check_rows("packed", {"", "listpack", "ziplist", "zipmap"}, "no reader for packed encoding")
    Traceback (most recent call last):
    NotImplementedError: type 11 (set intset): no reader for packed encoding 'intset'
    """
    for t in _ROWS:
        found = getattr(t, column)
        if found not in known:
            raise NotImplementedError(f"type {t.id} ({t.name}): {missing} {found!r}")


#: AUX fields in which KeyDB says behind a key when its members expire: a member, and then its expiry in Unix milliseconds. What
#: begins like them is not about the file but about the key before it.
MEMBER_EXPIRY: Final = b"keydb-subexpire"
MEMBER_EXPIRY_KEY: Final = MEMBER_EXPIRY + b"-key"
MEMBER_EXPIRY_WHEN: Final = MEMBER_EXPIRY + b"-when"

#: The AUX field of a Lua script, with its source: Redis 4.0 to 6.2 write one for each that was loaded, and load them again.
SCRIPT: Final = b"lua"

#: Stands for the type of module data outside of keys, where something needs one.
MODULE_DATA: Final = ValueType(247, "module data", "module-data", "module", "m", 9, None, "module")

#: What the words of an error call an opcode.
OPCODE_NAMES: Final = {
    RAM_LRU: "when Redis Enterprise last used a key",
    SLOT_NUMBER: "a slot number of Redis Enterprise",
    HASH_TEMPLATE: "a hash template",
    243: "key metadata or a slot import",
    SLOT_INFO: "slot information",
    FUNCTION2: "a function library",
    FUNCTION_PRE_GA: "a function library (7.0 RC)",
    MODULE_AUX: "module data",
    IDLE: "a key's idle time",
    FREQ: "a key's access frequency",
    AUX: "an AUX field",
    RESIZEDB: "a database's size",
    EXPIRETIME_MS: "a key's expiry",
    EXPIRETIME: "a key's expiry",
    SELECTDB: "a database number",
    EOF: "the end mark",
}

"""Numbers of the format, and which server or version gives a number its meaning. Data only.

Sources: `src/rdb.h` and `src/rdb.c` of each Redis and Valkey release; what only public documents describe (RDB 15) is
marked `documented`. A number means something only together with the flavour and the version of the file:
`value_types` and `opcode_names` resolve it.
"""

from __future__ import annotations

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

#: Opcodes that are known by name alone: their payload is documented nowhere, so a file with one is refused by name.
NAMED_OPCODES: Final = {
    101: "Redis Enterprise opcode 101 (CAS)",
    102: "Redis Enterprise opcode 102 (flags)",
    107: "Redis Enterprise opcode 107 (RAM LRU)",
    121: "Redis Enterprise opcode 121 (slot number)",
    200: "Dragonfly opcode 200 (end of full sync)",
    201: "Dragonfly opcode 201 (zstd-compressed block)",
    202: "Dragonfly opcode 202 (LZ4-compressed block)",
    203: "Dragonfly opcode 203 (end of compressed block)",
    210: "Dragonfly opcode 210 (journal)",
    211: "Dragonfly opcode 211 (journal offset)",
    222: "Dragonfly opcode 222 (vector index)",
    223: "Dragonfly opcode 223 (document index)",
    224: "Dragonfly opcode 224",
}


class ValueType(NamedTuple):
    """What a type byte means.

    `encoding` is what `OBJECT ENCODING` would say of the stored form; `layout` is the grammar of the bytes after the key
    (see `skip.py`); `since` the first RDB version of its flavour that has it; `universal` the lowest RDB version that can
    hold the same data in another encoding (None: no other encoding holds it).
    """

    id: int
    name: str
    type: str
    encoding: str
    layout: str
    since: int
    universal: int | None
    documented: bool = False


_COMMON = (
    ValueType(0, "string", "string", "raw", "s", 1, 1),
    ValueType(1, "list", "list", "linkedlist", "*(s)", 1, 1),
    ValueType(2, "set", "set", "hashtable", "*(s)", 1, 1),
    ValueType(3, "sorted set with text scores", "zset", "skiplist", "*(st)", 1, 1),
    ValueType(4, "hash", "hash", "hashtable", "*(ss)", 1, 1),
    ValueType(5, "sorted set", "zset", "skiplist", "*(sd)", 8, 1),
    ValueType(7, "module value", "module", "module", "lm", 8, None),
    ValueType(9, "hash zipmap", "hash", "zipmap", "s", 2, 1),
    ValueType(10, "list ziplist", "list", "ziplist", "s", 2, 1),
    ValueType(11, "set intset", "set", "intset", "s", 2, 1),
    ValueType(12, "sorted set ziplist", "zset", "ziplist", "s", 2, 1),
    ValueType(13, "hash ziplist", "hash", "ziplist", "s", 4, 1),
    ValueType(14, "list quicklist of ziplists", "list", "quicklist", "*(s)", 7, 1),
    ValueType(15, "stream", "stream", "stream", "*(ss)lll*(sll*(idl)*(sd*(i)))", 9, 9),
    ValueType(16, "hash listpack", "hash", "listpack", "s", 10, 1),
    ValueType(17, "sorted set listpack", "zset", "listpack", "s", 10, 1),
    ValueType(18, "list quicklist", "list", "quicklist", "*(cs)", 10, 1),
    ValueType(19, "stream v2", "stream", "stream", "*(ss)llllllll*(slll*(idl)*(sd*(i)))", 10, 9),
    ValueType(20, "set listpack", "set", "listpack", "s", 11, 1),
    ValueType(21, "stream v3", "stream", "stream", "*(ss)llllllll*(slll*(idl)*(sdd*(i)))", 11, 9),
)
_REDIS_ONLY = (
    ValueType(22, "hash with field expiry (7.4 RC)", "hash", "hashtable", "*(lss)", 12, None),
    ValueType(23, "hash listpack with field expiry (7.4 RC)", "hash", "listpackex", "s", 12, None),
    ValueType(24, "hash with field expiry", "hash", "hashtable", "d*(lss)", 12, None),
    ValueType(25, "hash listpack with field expiry", "hash", "listpackex", "ds", 12, None),
    ValueType(26, "stream v4", "stream", "stream", "*(ss)llllllll*(slll*(idl)*(sdd*(i)))ll*(s*(sll))ll", 13, 9),
    ValueType(27, "stream v5", "stream", "stream", "*(ss)llllllll*(slll*(idl)*(sdd*(i))*(i))ll*(s*(sll))ll", 14, 9),
    ValueType(28, "array", "array", "array", "#o@(lu)", 14, None),
)
_REDIS_14 = (ValueType(29, "rate limiter (GCRA)", "gcra", "gcra", "l", 14, None),)
_REDIS_15 = (
    ValueType(29, "hash with field names, listpack", "hash", "template", "xs", 15, 1, True),
    ValueType(30, "hash by template, listpack", "hash", "template", "s", 15, 1, True),
    ValueType(31, "hash with field names", "hash", "template", "x@(s)", 15, 1, True),
    ValueType(32, "hash by template", "hash", "template", "y@(s)", 15, 1, True),
    ValueType(33, "rate limiter (GCRA)", "gcra", "gcra", "l", 15, None, True),
)
_VALKEY_ONLY = (ValueType(22, "hash with field expiry (Valkey)", "hash", "hashtable", "*(ssd)", 80, None),)
_KEYDB = (ValueType(64, "KeyDB cron job", "cron", "cron", "sdd*(s)*(s)", 9, None),)
_DRAGONFLY = (
    ValueType(30, "Dragonfly JSON document", "json", "json", "s", 9, None),
    ValueType(31, "Dragonfly hash with field expiry", "hash", "hashtable", "*(sss)", 9, None),
    ValueType(32, "Dragonfly set with member expiry", "set", "hashtable", "*(ss)", 9, None),
)
#: Types that only forks write and read, whatever version their files claim.
FOREIGN: Final = _KEYDB + _DRAGONFLY
#: Known by name alone, and therefore refused by name.
NAMED_TYPES: Final = {
    6: "type 6 (module value of a 4.0 release candidate, which no released server reads)",
    33: "type 33 (Dragonfly Bloom filter)",
    34: "type 34 (Dragonfly Bloom filter)",
    35: "type 35 (Dragonfly count-min sketch)",
    36: "type 36 (Dragonfly top-k)",
    37: "type 37 (Dragonfly cuckoo filter)",
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


#: AUX fields in which KeyDB says behind a key when its members expire: a member, and then its expiry in Unix milliseconds. What
#: begins like them is not about the file but about the key before it.
MEMBER_EXPIRY: Final = b"keydb-subexpire"
MEMBER_EXPIRY_KEY: Final = MEMBER_EXPIRY + b"-key"
MEMBER_EXPIRY_WHEN: Final = MEMBER_EXPIRY + b"-when"

#: Stands for the type of module data outside of keys, where something needs one.
MODULE_DATA: Final = ValueType(247, "module data", "module-data", "module", "m", 9, None)

#: What the words of an error call an opcode.
OPCODE_NAMES: Final = {
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

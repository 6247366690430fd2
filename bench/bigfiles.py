#!/usr/bin/env python3
"""Write RDB files that show how much memory a reader needs: a big file, and big values of every make.

The files are written record by record, without a server and in little memory, each in the version of the format that has
what is in it. Their checksum is 0, which means that it was switched off, so a reader spends its time on the records.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SEED = 11
MIB = 1 << 20

# opcodes and value types, from rdb.h of the releases that write them
EOF = 0xFF
SELECTDB = 0xFE
RESIZEDB = 0xFB
AUX = 0xFA
STRING = 0
HASH = 4
QUICKLIST = 18
STREAM_3 = 21
HASH_VALKEY = 22
HASH_EXPIRING = 24
STREAM_5 = 27
PLAIN = 1
"""The container of a quicklist node that is one element."""

FILE_BYTES = 2_000_000_000
STRING_BYTES = 1 << 30
HASH_FIELDS = 10_000_000
LIST_NODES = 200_000
LIST_ELEMENT = 10_000
STREAM_ENTRIES = 3_000_000
NODE_ENTRIES = 100
"""Entries in a node of a stream, as many as servers put there."""
PENDING = 100_000
GIVEN_BACK = 10_000
"""How many of the pending entries belong to no consumer."""
SMALL_HASHES = 1_000_000

FAR = 4_102_444_800_000
"""2100-01-01 in ms: nothing expires while the files are read."""
STREAM_START = 1_700_000_000_000


def length(n: int) -> bytes:
    """A length: 6, 14, 32 or 64 bits, the shortest form that holds it."""
    if n < 1 << 6:
        return bytes((n,))
    if n < 1 << 14:
        return struct.pack(">H", 0x4000 | n)
    if n < 1 << 32:
        return struct.pack(">BI", 0x80, n)
    return struct.pack(">BQ", 0x81, n)


def string(data: bytes) -> bytes:
    """A string as its length and its bytes; no integer form and no compression."""
    return length(len(data)) + data


def _value(pool: bytes, number: int, size: int) -> bytes:
    """`size` bytes out of the pool, elsewhere for each number."""
    start = number * 7_919 % (len(pool) - size)
    return pool[start : start + size]


def many_strings(total: int = FILE_BYTES) -> Iterator[bytes]:
    """Keys with strings of 1,000 bytes, about `total` bytes in all."""
    pool = random.Random(SEED).randbytes(MIB)
    keys = total // 1_019
    yield bytes((RESIZEDB,)) + length(keys) + length(0)
    for i in range(keys):
        yield bytes((STRING,)) + string(b"key:%010d" % i) + string(_value(pool, i, 1_000))


def one_string(size: int = STRING_BYTES) -> Iterator[bytes]:
    """One key with a string of `size` bytes, a whole number of MiB."""
    pool = random.Random(SEED).randbytes(MIB)
    yield bytes((RESIZEDB,)) + length(1) + length(0)
    yield bytes((STRING,)) + string(b"big:string") + length(size)
    for _ in range(size // MIB):
        yield pool


def one_hash(fields: int = HASH_FIELDS) -> Iterator[bytes]:
    """One hash, of the plain type that is one field and one value after the other."""
    pool = random.Random(SEED).randbytes(MIB)
    yield bytes((RESIZEDB,)) + length(1) + length(0)
    yield bytes((HASH,)) + string(b"big:hash") + length(fields)
    for i in range(fields):
        yield string(b"field:%08d" % i) + string(_value(pool, i, 20))


def plain_list(nodes: int = LIST_NODES, size: int = LIST_ELEMENT) -> Iterator[bytes]:
    """One list of nodes that are one element each, which is how servers keep large elements."""
    pool = random.Random(SEED).randbytes(MIB)
    yield bytes((RESIZEDB,)) + length(1) + length(0)
    yield bytes((QUICKLIST,)) + string(b"big:list") + length(nodes)
    for i in range(nodes):
        yield length(PLAIN) + string(_value(pool, i, size))


def expiring_hash(fields: int = HASH_FIELDS) -> Iterator[bytes]:
    """One hash whose even fields expire, as Redis 7.4 keeps it: an expiry is 1 + what it is past the first one, 0 is none."""
    pool = random.Random(SEED).randbytes(MIB)
    yield bytes((RESIZEDB,)) + length(1) + length(0)
    yield bytes((HASH_EXPIRING,)) + string(b"big:hash") + struct.pack("<q", FAR) + length(fields)
    for i in range(fields):
        yield length(0 if i % 2 else 1 + i) + string(b"field:%08d" % i) + string(_value(pool, i, 20))


def expiring_hash_of_valkey(fields: int = HASH_FIELDS) -> Iterator[bytes]:
    """The same hash as Valkey 9 keeps it: an expiry is a time, -1 is none."""
    pool = random.Random(SEED).randbytes(MIB)
    yield bytes((RESIZEDB,)) + length(1) + length(0)
    yield bytes((HASH_VALKEY,)) + string(b"big:hash") + length(fields)
    for i in range(fields):
        yield string(b"field:%08d" % i) + string(_value(pool, i, 20)) + struct.pack("<q", -1 if i % 2 else FAR + i)


def small_expiring_hashes(keys: int = SMALL_HASHES) -> Iterator[bytes]:
    """Many hashes of one field, which expires: each of them is a loss where expiries of fields have no place."""
    yield bytes((RESIZEDB,)) + length(keys) + length(0)
    for i in range(keys):
        yield bytes((HASH_EXPIRING,)) + string(b"hash:%010d" % i) + struct.pack("<q", FAR + i) + length(1)
        yield length(1) + string(b"field") + string(b"value:%010d" % i)


def stream(entries: int = STREAM_ENTRIES) -> Iterator[bytes]:
    """One stream without groups, as Redis 7.2 keeps it."""
    yield bytes((RESIZEDB,)) + length(1) + length(0)
    yield bytes((STREAM_3,)) + string(b"big:stream")
    yield from _nodes(entries)
    yield _state(entries) + length(0)


def stream_with_group(entries: int = STREAM_ENTRIES, pending: int = PENDING, given_back: int = GIVEN_BACK) -> Iterator[bytes]:
    """The same stream as Redis 8.8 keeps it, with a group: of its first entries, which are pending, two consumers have half each,
    but for the last ones, which were given back.
    """
    yield bytes((RESIZEDB,)) + length(1) + length(0)
    yield bytes((STREAM_5,)) + string(b"big:stream")
    yield from _nodes(entries)
    ids = [struct.pack(">QQ", STREAM_START + i, 0) for i in range(pending)]
    yield _state(entries) + length(1)
    yield string(b"group") + length(STREAM_START + pending - 1) + length(0) + length(pending)
    yield length(pending)
    for i, raw in enumerate(ids):
        yield raw + struct.pack("<q", STREAM_START + i) + length(1 + i % 3)
    owned = ids[: pending - given_back]
    middle = len(owned) // 2
    yield length(2)
    for name, part in ((b"alice", owned[:middle]), (b"bob", owned[middle:])):
        yield string(name) + struct.pack("<qq", STREAM_START + pending, STREAM_START + pending) + length(len(part))
        yield b"".join(part)
    yield length(given_back) + b"".join(ids[pending - given_back :])
    # of producers: for how many seconds and how many ids it knows them, no producer, ids that were added and met twice
    yield length(100) + length(100) + length(0) + length(0) + length(0)


def _nodes(entries: int) -> Iterator[bytes]:
    """The entries of a stream, one a millisecond with one field of 20 bytes, in nodes that are listpacks."""
    pool = random.Random(SEED).randbytes(MIB)
    yield length(-(-entries // NODE_ENTRIES))
    for first in range(0, entries, NODE_ENTRIES):
        count = min(NODE_ENTRIES, entries - first)
        # of the node: entries, deleted ones, the names of the fields with their number, an end
        parts = [_small(count), _small(0), _small(1), _packed(b"text"), _small(0)]
        for i in range(count):
            # of an entry: "has the node's fields", the distance of its id from the node's, the value, parts of this entry
            parts += (_small(2), _small(i), _small(0), _packed(_value(pool, first + i, 20)), _small(4))
        packed = b"".join(parts)
        listpack = struct.pack("<IH", len(packed) + 7, len(parts)) + packed + b"\xff"
        yield string(struct.pack(">QQ", STREAM_START + first, 0)) + string(listpack)


def _small(number: int) -> bytes:
    """A number below 128 as an entry of a listpack, which ends with its size."""
    return bytes((number, 1))


def _packed(data: bytes) -> bytes:
    """Up to 63 bytes as an entry of a listpack."""
    return bytes((0x80 | len(data),)) + data + bytes((1 + len(data),))


def _state(entries: int) -> bytes:
    """What follows a stream's entries: their number, the last id, the first one, the highest deleted one, how many came."""
    ids = ((STREAM_START + entries - 1, 0), (STREAM_START, 0), (0, 0))
    return length(entries) + b"".join(length(part) for pair in ids for part in pair) + length(entries)


@dataclass(frozen=True)
class BigFile:
    """A file: what it is, its records, and the header and the server's version that go with them."""

    what: str
    records: Callable[[], Iterator[bytes]]
    header: bytes = b"REDIS0009"
    server: bytes = b"5.0.14"


FILES: dict[str, BigFile] = {
    "strings-2gb.rdb": BigFile("2 GB of strings of 1,000 bytes", many_strings),
    "string-1gb.rdb": BigFile("one string of 1 GiB", one_string),
    "hash-10m.rdb": BigFile("one hash of 10 million fields", one_hash),
}
"""What every verb reads, by file name."""
CONVERTED: dict[str, BigFile] = {
    "list-plain.rdb": BigFile("a list of 200,000 elements of 10 KB, a node each", plain_list, b"REDIS0011", b"7.2.0"),
    "hash-ttl-10m.rdb": BigFile("a hash of 10 million fields, half of which expire", expiring_hash, b"REDIS0012", b"8.0.0"),
    "hash-ttl-10m-valkey.rdb": BigFile("the same hash of Valkey 9", expiring_hash_of_valkey, b"VALKEY080", b"9.0.0"),
    "hashes-ttl-1m.rdb": BigFile("a million hashes with a field that expires", small_expiring_hashes, b"REDIS0012", b"8.0.0"),
    "stream-3m.rdb": BigFile("a stream of 3 million entries", stream, b"REDIS0011", b"7.2.0"),
    "stream-3m-group.rdb": BigFile(
        "the same with a group and 100,000 pending entries, of Redis 8.8", stream_with_group, b"REDIS0014", b"8.8.0"
    ),
}
"""What is converted besides, by file name."""


def write(path: Path, file: BigFile) -> None:
    """Write a file, its records in database 0; it gets its name only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    by = b"valkey-ver" if file.header.startswith(b"VALKEY") else b"redis-ver"
    with partial.open("wb", buffering=MIB) as out:
        out.write(file.header + bytes((AUX,)) + string(by) + string(file.server) + bytes((SELECTDB, 0)))
        out.writelines(file.records())
        out.write(bytes((EOF,)) + bytes(8))
    partial.replace(path)


def main() -> None:
    files = FILES | CONVERTED
    parser = argparse.ArgumentParser(description="Write the big RDB files of the memory benchmark.")
    parser.add_argument("out", type=Path, metavar="DIR", help="folder to write them into (7 GB in all)")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which (default: all): {', '.join(files)}")
    options = parser.parse_args()
    unknown = set(options.names) - set(files)
    if unknown:
        parser.error(f"no file is called {', '.join(sorted(unknown))}")
    for name in options.names or files:
        start = time.perf_counter()
        try:
            write(options.out / name, files[name])
        except OSError as error:
            sys.exit(f"bigfiles.py: {error}")
        size = (options.out / name).stat().st_size
        print(f"{options.out / name}: {size:,} bytes in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Write RDB files that show how much memory a reader needs: a big file, a big string, a big hash.

The files are written record by record, without a server and in little memory, in the format's version 9. Their checksum
is 0, which means that it was switched off, so a reader spends its time on the records.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SEED = 11
MIB = 1 << 20

# opcodes and value types, from rdb.h of Redis 5.0, which writes version 9
EOF = 0xFF
SELECTDB = 0xFE
RESIZEDB = 0xFB
AUX = 0xFA
STRING = 0
HASH = 4

FILE_BYTES = 2_000_000_000
STRING_BYTES = 1 << 30
HASH_FIELDS = 10_000_000


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


FILES: dict[str, tuple[str, Callable[[], Iterator[bytes]]]] = {
    "strings-2gb.rdb": ("2 GB of strings of 1,000 bytes", many_strings),
    "string-1gb.rdb": ("one string of 1 GiB", one_string),
    "hash-10m.rdb": ("one hash of 10 million fields", one_hash),
}
"""File name: (what it is, its records)."""


def write(path: Path, records: Iterator[bytes]) -> None:
    """Write a file of these records in database 0; it gets its name only when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb", buffering=MIB) as out:
        out.write(b"REDIS0009" + bytes((AUX,)) + string(b"redis-ver") + string(b"5.0.14") + bytes((SELECTDB, 0)))
        out.writelines(records)
        out.write(bytes((EOF,)) + bytes(8))
    partial.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the big RDB files of the memory benchmark.")
    parser.add_argument("out", type=Path, metavar="DIR", help="folder to write them into (3.5 GB)")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which (default: all): {', '.join(FILES)}")
    options = parser.parse_args()
    unknown = set(options.names) - set(FILES)
    if unknown:
        parser.error(f"no file is called {', '.join(sorted(unknown))}")
    for name in options.names or FILES:
        start = time.perf_counter()
        try:
            write(options.out / name, FILES[name][1]())
        except OSError as error:
            sys.exit(f"bigfiles.py: {error}")
        size = (options.out / name).stat().st_size
        print(f"{options.out / name}: {size:,} bytes in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Time every verb on files that are runs of one thing, 10, 100 and 1,000 KB long, and print the seconds as a Markdown table.

    bench/hostile.py [--verbs salvage,info] [--runs aux,zeros] [--sizes 10,100,1000] [--all] [--seconds 60]

The form that is timed is the one that this Python imports. Each figure is the CPU time of one run in a process of its own, which is
ended after so many seconds. A verb that takes more than in proportion to the size is marked with `!`; the others are one line each,
the slowest run.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import shutil
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests import encoders
from tests.rdb import aux, key, length, rdb, string

FAR = (4_102_444_800_000).to_bytes(8, "little")
BROKEN = b"\x00\x83\xff\xff"
"""A string whose name has no length that can be."""
ROW = [key(b"before %d" % i, 0, string(b"%d" % i)) for i in range(9)]
ROW_BEHIND = [key(b"behind %d" % i, 0, string(b"%d" % i)) for i in range(9)]


def listpack(items: list[bytes]) -> bytes:
    return encoders.listpack(items, random.Random(1))


def ziplist(items: list[bytes]) -> bytes:
    return encoders.ziplist(items, random.Random(1))


def repeated(unit: bytes) -> Callable[[int], bytes]:
    return lambda size: unit * (size // len(unit))


def numbered(unit: Callable[[int], bytes]) -> Callable[[int], bytes]:
    def made(size: int) -> bytes:
        out, n = [], 0
        while size > 0:
            out.append(unit(n))
            size -= len(out[-1])
            n += 1
        return b"".join(out)

    return made


def collection(kind: int, element: Callable[[int], bytes], name: bytes = b"k") -> Callable[[int], bytes]:
    """One key with so many bytes of elements."""

    def made(size: int) -> bytes:
        parts, n = [], 0
        while size > 0:
            parts.append(element(n))
            size -= len(parts[-1])
            n += 1
        return key(name, kind, length(n) + b"".join(parts))

    return made


def packed(kind: int, make: Callable[[list[bytes]], bytes]) -> Callable[[int], bytes]:
    """One key with a packed collection of short entries."""
    return lambda size: key(b"k", kind, string(make([b"%d" % (i % 10) if kind == 10 else b"%x" % i for i in range(size // 6 * 2)])))


def squeezed(size: int) -> bytes:
    """A string of `size` bytes that unpacks to 130 times as much."""
    steps = (size - 2) // 3
    data = b"\x00x" + b"\xe0\xff\x00" * steps
    return b"\xc3" + length(len(data)) + length(1 + steps * 264) + data


def stream(groups: int, consumers: int, pending: int) -> bytes:
    """A stream without entries, whose groups have so many consumers each, and pending entries of the first of them."""
    ids = [struct.pack(">QQ", 1, i) for i in range(pending)]
    head = length(0) + length(0) + length(1) + length(0) + length(0) * 2 + length(0) * 2 + length(0)
    out = [head, length(groups)]
    for number in range(groups):
        out += [string(b"g%d" % number), length(1), length(0), length(0), length(pending)]
        out += [each + FAR + length(1) for each in ids]
        out.append(length(consumers))
        for consumer in range(consumers):
            own = ids if consumer == 0 else []
            out += [string(b"c%d" % consumer), FAR, FAR, length(len(own)), *own]
    return key(b"k", 21, b"".join(out))


def keydb(n: int) -> bytes:
    return aux(b"keydb-subexpire-key", b"m%06d" % n) + aux(b"keydb-subexpire-when", b"1900000000000")


def row(n: int) -> bytes:
    return b"".join(key(b"%d.%d" % (n, i), 0, b"\x01x") for i in range(8))


def module(name: int) -> bytes:
    return b"\x81" + struct.pack(">Q", name << 10 | 1)


Made = Callable[[int], bytes]
#: Under a name: the header, and what makes so many bytes of a run.
RUNS: dict[str, tuple[bytes, Made]] = {
    # opcodes
    "databases selected": (b"REDIS0011", repeated(b"\xfe\x00")),
    "databases with a key each": (b"REDIS0011", numbered(lambda n: b"\xfe" + length(n % 16384) + key(b"%d" % n, 0, b"\x01x"))),
    "two databases by turns": (b"REDIS0011", numbered(lambda n: b"\xfe" + length(n % 2) + key(b"%d" % n, 0, b"\x01x"))),
    "sizes of databases": (b"REDIS0011", repeated(b"\xfb\x00\x00")),
    "AUX fields": (b"REDIS0011", numbered(lambda n: aux(b"a%d" % n, b"b"))),
    "AUX fields of one name": (b"REDIS0011", repeated(aux(b"a", b"b"))),
    "expiries of KeyDB's members": (b"REDIS0009", numbered(keydb)),
    "functions": (b"REDIS0011", numbered(lambda n: b"\xf5" + string(b"#!lua name=l%d\n1" % n))),
    "functions of one name": (b"REDIS0011", repeated(b"\xf5" + string(b"#!lua name=l\n1"))),
    "functions of 7.0 RC": (b"REDIS0010", numbered(lambda n: b"\xf6" + string(b"l%d" % n) + string(b"lua") + b"\0" + string(b"1"))),
    "module data": (b"REDIS0011", repeated(b"\xf7" + module(77) + b"\x02\x01\x00")),
    "slots": (b"REDIS0012", numbered(lambda n: b"\xf4" + length(n % 16384) + b"\x00\x00")),
    "slot imports": (b"VALKEY080", repeated(b"\xf3" + string(b"job") + b"\x01\x00\x01")),
    "slot ranges": (b"VALKEY080", lambda size: b"\xf3" + string(b"job") + length(size // 2) + b"\x00\x01" * (size // 2)),
    "hash templates": (b"REDIS0015", numbered(lambda n: b"\xf2" + length(n) + b"\x01\x01a")),
    "names of a hash template": (b"REDIS0015", lambda size: b"\xf2\x00" + length(size // 7) + b"".join(
        string(b"%06d" % i) for i in range(size // 7))),
    "hash templates with a key each": (
        b"REDIS0015", numbered(lambda n: b"\xf2" + length(n) + b"\x01\x01a" + key(b"%d" % n, 32, length(n) + b"\x01x"))),
    "end marks": (b"REDIS0011", repeated(b"\xff")),
    "end marks behind keys": (b"REDIS0011", repeated(b"\x00\x01a\x01b\xff")),
    # attributes of a key
    "expiries": (b"REDIS0011", repeated(b"\xfc" + FAR)),
    "expiries in seconds": (b"REDIS0011", repeated(b"\xfd\x00\x00\x00\x70")),
    "idle times": (b"REDIS0011", repeated(b"\xf8\x01")),
    "frequencies": (b"REDIS0011", repeated(b"\xf9\x01")),
    "frequencies that look alike": (b"REDIS0011", repeated(b"\xf9")),
    "masks of Dragonfly": (b"REDIS0009", repeated(b"\xdc\x01\x00\x00\x00")),
    "metadata": (b"REDIS0014", repeated(b"\xf3\x00")),
    "keys with all attributes": (b"REDIS0011", numbered(lambda n: b"\xf9\x01\xfc" + FAR + key(b"%d" % n, 0, b"\x01x"))),
    "databases among attributes": (b"REDIS0011", numbered(lambda n: b"\xf9\x01\xfe\x00" * 50 + key(b"%d" % n, 0, b"\x01x"))),
    # records
    "keys": (b"REDIS0011", numbered(lambda n: key(b"%d" % n, 0, b"\x01x"))),
    "keys of one name": (b"REDIS0011", repeated(key(b"a", 0, b"\x01x"))),
    "keys of seven names": (b"REDIS0011", numbered(lambda n: key(b"%d" % (n % 7), 0, b"\x01x"))),
    "empty strings": (b"REDIS0011", repeated(b"\x00\x00\x00")),
    "empty lists": (b"REDIS0011", numbered(lambda n: key(b"%d" % n, 1, b"\x00"))),
    "keys with a hash tag": (b"REDIS0011", numbered(lambda n: key(b"{a}%d" % n, 0, b"\x01x"))),
    "zeros": (b"REDIS0011", repeated(b"\x00")),
    "0xC3": (b"REDIS0011", repeated(b"\xc3")),
    "0x01": (b"REDIS0011", repeated(b"\x01")),
    "0x80": (b"REDIS0011", repeated(b"\x80")),
    # beginnings that lead nowhere
    "lists that announce too much": (b"REDIS0011", repeated(b"\x01\x01a\x80\x00\x00\x40\x00")),
    "hashes that announce too much": (b"REDIS0011", repeated(b"\x04\x01a\x50\x00")),
    "long strings": (b"REDIS0011", repeated(b"\x00\x01a\x7f\xff")),
    "long names": (b"REDIS0011", repeated(b"\x00\x7f\xff\x01a")),
    "long AUX fields": (b"REDIS0011", repeated(b"\xfa\x80\x00\x01\x00\x00")),
    "long functions": (b"REDIS0011", repeated(b"\xf5\x80\x00\x01\x00\x00")),
    "modules in modules": (b"REDIS0011", repeated(b"\x07\x01a" + module(77) + b"\x05\x0c")),
    "compressed strings": (b"REDIS0011", repeated(b"\x00\x01a\xc3\x44\x00\x7f\xff\x00x\x20\x00")),
    "compressed lists in lists": (b"REDIS0011", repeated(b"\x0a\x01a\xc3\x40\x40\x50\x00\x08")),
    "streams in streams": (b"REDIS0011", repeated(b"\x0f\x01a\x50\x00\x10")),
    "fields that expire": (b"REDIS0012", repeated(b"\x16\x01a\x50\x00\x00\x01")),
    "templates that announce too much": (b"REDIS0015", repeated(b"\xf2\x00\x44\x00")),
    "gaps": (b"REDIS0011", numbered(lambda n: row(n) + b"\xc8")),
    "gaps with a database each": (b"REDIS0011", numbered(lambda n: b"\xfe" + length(n % 9) + row(n) + b"\xc8")),
    "gaps behind templates": (b"REDIS0015", lambda size: b"".join(
        [*(b"\xf2" + length(i) + b"\x01\x01a" for i in range(size // 12)), *(row(i) + b"\xc8" for i in range(size // 120))])),
    "lengths that swallow keys": (b"REDIS0011", numbered(lambda n: row(n) + b"\x00\x02zz\x40\x70")),
    # values
    "a list": (b"REDIS0011", collection(1, lambda n: b"\x01x")),
    "a set": (b"REDIS0011", collection(2, lambda n: string(b"%d" % n))),
    "a hash": (b"REDIS0011", collection(4, lambda n: string(b"%d" % n) + b"\x01x")),
    "a sorted set": (b"REDIS0011", collection(5, lambda n: string(b"%d" % n) + struct.pack("<d", n))),
    "a hash of fields that expire": (b"REDIS0012", lambda size: key(b"k", 24, FAR + length(size // 8) + b"".join(
        b"\x01" + string(b"%05d" % i) + b"\x01x" for i in range(size // 8)))),
    "a quicklist of small nodes": (b"REDIS0011", collection(18, lambda n: b"\x02" + string(listpack([b"x"])))),
    "a quicklist of plain nodes": (b"REDIS0011", collection(18, lambda n: b"\x01\x01x")),
    "a quicklist of ziplists": (b"REDIS0009", collection(14, lambda n: string(ziplist([b"x"])))),
    "a ziplist of short entries": (b"REDIS0009", packed(10, ziplist)),
    "a hash ziplist": (b"REDIS0009", packed(13, ziplist)),
    "a set listpack": (b"REDIS0011", packed(20, listpack)),
    "a hash listpack": (b"REDIS0011", packed(16, listpack)),
    "a compressed string": (b"REDIS0011", lambda size: key(b"k", 0, squeezed(size))),
    "a list of compressed strings": (b"REDIS0011", collection(1, lambda n: squeezed(100))),
    "keys with compressed strings": (b"REDIS0011", numbered(lambda n: key(b"%d" % n, 0, squeezed(30)))),
    "a stream of groups": (b"REDIS0011", lambda size: stream(size // 10, 0, 0)),
    "a stream of consumers": (b"REDIS0011", lambda size: stream(1, size // 24, 0)),
    "a stream of pending entries": (b"REDIS0011", lambda size: stream(1, 1, size // 41)),
    "a module value": (b"REDIS0011", lambda size: key(b"k", 7, module(77) + b"\x02\x01" * (size // 2) + b"\x00")),
    "an array": (b"REDIS0014", lambda size: key(b"k", 28, length(size // 4) + b"\x00" + b"".join(
        length(i) + b"\x00\x01x" for i in range(size // 4)))),
}  # fmt: skip
RUNS |= {
    "a damaged hash that expires, and strings": (
        b"REDIS0012", lambda size: key(b"k", 24, FAR + length(60000))[:-1] + b"".join(
            b"\x00" + string(b"%06d" % i) + b"\x01x" for i in range(size // 10)) + b"\xc8"),
    "keys in names": (b"REDIS0011", lambda size: key(b"k", 0, string(b"".join(ROW) * (size // 108)))),
    "databases in a string": (b"REDIS0011", lambda size: key(b"k", 0, string(b"\xfe\x00" * (size // 2)))),
}  # fmt: skip

VERBS: dict[str, Callable[[str, str], list[str]]] = {
    "info": lambda file, out: ["info", file],
    "keys": lambda file, out: ["keys", file],
    "export": lambda file, out: ["export", file],
    "export as commands": lambda file, out: ["export", "--format", "resp", file],
    "get": lambda file, out: ["get", file, "k"],
    "check": lambda file, out: ["check", "--target", "azure-premium", file],
    "convert": lambda file, out: ["convert", "--target", "azure-premium", file, out],
    "verify": lambda file, out: ["verify", file],
    "verify --deep": lambda file, out: ["verify", "--deep", file],
    "salvage": lambda file, out: ["salvage", file, out],
    "split": lambda file, out: ["split", file, "--parts", "3", "--into", out],
    "diff": lambda file, out: ["diff", file, file],
    "redact": lambda file, out: ["redact", file, out],
    "memory": lambda file, out: ["memory", "--target", "redis-8.0", file],
    "plan": lambda file, out: ["plan", "--target", "azure-premium", file],
}


def whole(magic: bytes, run: bytes) -> bytes:
    """The run as a file, between keys."""
    return rdb(*ROW, run, *ROW_BEHIND, magic=magic, crc=False)


def damaged(magic: bytes, run: bytes) -> bytes:
    """The run behind a place where the framing breaks."""
    return rdb(*ROW, BROKEN, run, *ROW_BEHIND, magic=magic, crc=False)


def merged(file: str, out: str) -> None:
    from rdbkit.operations.merge import merge

    merge([file, str(Path(out).with_name("other.rdb"))], out)


def seconds(work: Callable[[], object], most: int) -> float:
    """CPU seconds that `work` takes in a process of its own, at most so many."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        try:
            resource.setrlimit(resource.RLIMIT_CPU, (most, most))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            null = os.open(os.devnull, os.O_RDWR)
            for number in range(3):
                os.dup2(null, number)
            work()
        except BaseException:
            os._exit(1)
        os._exit(0)
    _, _, usage = os.wait4(pid, 0)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--verbs", default=",".join([*VERBS, "merge"]))
    parser.add_argument("--runs", default="", help="names, or parts of names, of runs; all if none")
    parser.add_argument("--sizes", default="10,100,1000", help="KB")
    parser.add_argument("--all", action="store_true", help="a line for every run and verb")
    parser.add_argument("--seconds", type=int, default=60)
    options = parser.parse_args()
    import rdbkit
    import rdbkit.cli
    from rdbkit.format.compiled import COMPILED

    for name in (
        "check",
        "convert",
        "diff",
        "export",
        "info",
        "keys",
        "memory",
        "merge",
        "plan",
        "redact",
        "salvage",
        "split",
        "verify",
    ):
        __import__(f"rdbkit.cli.{name}")
    sizes = [int(size) * 1000 for size in options.sizes.split(",")]
    wanted = options.runs.split(",") if options.runs else [""]
    print(f"{'compiled' if COMPILED else 'pure'}: CPU seconds\n")
    print("| verb | run | " + " | ".join(f"{size // 1000:,} KB" for size in sizes) + " | |")
    print("| --- | --- |" + " ---: |" * len(sizes) + " --- |")
    with tempfile.TemporaryDirectory(prefix="rdbkit-hostile-") as folder:
        file, out = f"{folder}/run.rdb", f"{folder}/out"
        Path(folder, "other.rdb").write_bytes(rdb(key(b"other", 0, b"\x01x"), magic=b"REDIS0009"))

        def work(verb: str) -> Callable[[], object]:
            if verb == "merge":
                return lambda: merged(file, out)
            return lambda: rdbkit.cli.main(VERBS[verb](file, out))

        for verb in options.verbs.split(","):
            Path(file).write_bytes(whole(b"REDIS0009", b""))
            idle = min(seconds(work(verb), options.seconds) for _ in range(3))
            slowest: tuple[float, str] = (-1.0, "")
            for name, (magic, make) in RUNS.items():
                if not any(part in name for part in wanted):
                    continue
                for place in (whole, damaged) if verb == "salvage" else (whole,):
                    taken = []
                    for size in sizes:
                        Path(file).write_bytes(place(magic, make(size)))
                        taken.append(seconds(work(verb), options.seconds))
                        if os.path.isdir(out):
                            shutil.rmtree(out)
                        else:
                            Path(out).unlink(missing_ok=True)
                        if taken[-1] > options.seconds * 0.9:
                            break
                    said = name if place is whole else f"behind damage: {name}"
                    own = [max(each - idle, 0.02) for each in taken]
                    steep = any(own[i + 1] > 2 * own[i] * sizes[i + 1] / sizes[i] and own[i + 1] > 0.3 for i in range(len(own) - 1))
                    cells = [f"{each:.2f}" for each in taken] + [""] * (len(sizes) - len(taken))
                    line = f"| {verb} | {said} | " + " | ".join(cells) + f" | {'!' if steep or len(taken) < len(sizes) else ''} |"
                    if options.all or steep or len(taken) < len(sizes):
                        print(line, flush=True)
                    elif taken[-1] > slowest[0]:
                        slowest = taken[-1], line
            if slowest[1] and not options.all:
                print(slowest[1], flush=True)


if __name__ == "__main__":
    main()

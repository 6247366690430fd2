#!/usr/bin/env python3
"""What `copy` takes of client, source and target for each key, as CPU time: `bench/copies.py --servers .servers`.

Beside it stand what a copy that follows takes for each change, what the same costs in a plain loop of redis-py, what a source
needs for SCAN, DUMP and PTTL alone, a snapshot by replication beside reading the same file, and how much memory a copy takes of
many keys and of one that is large. Each run is a process of its own. It runs with the rdbkit that this interpreter imports,
compiled or plain, and says which.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.append(os.fspath(Path(__file__).resolve().parent.parent))

from bench.comparisons import commands, cpu_us
from fixtures.server import Client, Command, running
from rdbkit.format.compiled import COMPILED

GOALS = {"same": 2.0, "downgrade": 7.0}
"""Microseconds of the client a key, compiled."""
PLAIN_GOAL = 6.0
FOLLOW_GOAL = 50_000
"""Changes a second of a core that a copy follows, compiled."""

_MEASURED = """
import json, resource
def told():
    used = resource.getrusage(resource.RUSAGE_SELF)
    # VmHWM begins with this program; ru_maxrss would count the process that started it
    peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    print(json.dumps([(used.ru_utime + used.ru_stime) * 1e6, int(peak)]))
import sys
"""
COPY = f"""{_MEASURED}
from rdbkit.live.copy import copy
done = copy(sys.argv[1], sys.argv[2], big=int(sys.argv[3]))
assert done.complete, done.to_dict()
told()
"""
LOOP = f"""{_MEASURED}
import redis
source, target = (redis.Redis.from_url(url) for url in sys.argv[1:3])
cursor = None
while cursor != 0:
    cursor, names = source.scan(cursor or 0, count=1000)
    asked = source.pipeline(transaction=False)
    for name in names:
        asked.dump(name)
        asked.pttl(name)
    found = asked.execute()
    writing = target.pipeline(transaction=False)
    for name, value, left in zip(names, found[::2], found[1::2]):
        writing.restore(name, max(left, 0), value)
    writing.execute()
told()
"""
BARE = f"""{_MEASURED}
import socket
host, port = sys.argv[1].removeprefix("redis://").split(":")
connection = socket.create_connection((host, int(port)))
replies = connection.makefile("rb")
def read():
    line = replies.readline()
    if line[:1] == b"$":
        return replies.read(int(line[1:]) + 2)[:-2] if line != b"$-1\\r\\n" else None
    return [read() for _ in range(int(line[1:]))] if line[:1] == b"*" else line
cursor = b""
while cursor != b"0":
    at = cursor or b"0"
    connection.sendall(b"*4\\r\\n$4\\r\\nSCAN\\r\\n$%d\\r\\n%b\\r\\n$5\\r\\nCOUNT\\r\\n$4\\r\\n1000\\r\\n" % (len(at), at))
    cursor, names = read()
    connection.sendall(b"".join(
        b"*2\\r\\n$4\\r\\n%b\\r\\n$%d\\r\\n%b\\r\\n" % (verb, len(name), name) for name in names for verb in (b"DUMP", b"PTTL")
    ))
    for _ in range(2 * len(names)):
        read()
told()
"""
FOLLOW = f"""{_MEASURED}
from rdbkit.live.copy import copy
from rdbkit.live.follow import Follow
followers = []
def tell(found):
    if found.passes and not found.is_passing and len(marks) == 0:
        marks.append(used())
        print("begun", flush=True)
    if marks and found.events >= int(sys.argv[3]) and not found.waiting:
        followers[0].stop()
def used():
    now = resource.getrusage(resource.RUSAGE_SELF)
    return (now.ru_utime + now.ru_stime) * 1e6
marks = []
done = copy(sys.argv[1], sys.argv[2], follow=Follow(begun=followers.append, told=tell))
assert done.complete, done.to_dict()
print(json.dumps([used() - marks[0], done.followed.written]))
"""
COMMAND = f"""{_MEASURED}
from rdbkit.cli import main
try:
    main(sys.argv[1:])
except SystemExit as e:
    assert not e.code, e.code
told()
"""
IMPORTS = {
    COPY: f"{_MEASURED}\nimport redis\nfrom rdbkit.live.copy import copy\ntold()",
    LOOP: f"{_MEASURED}\nimport redis\ntold()",
    BARE: f"{_MEASURED}\nimport socket\ntold()",
}
"""What each of these takes before it begins, which is taken off."""


def run(code: str, *arguments: str) -> tuple[float, int]:
    """Microseconds of CPU, and the most memory in KiB, of a process."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSTARTUP"}
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise SystemExit(done.stderr)
    cpu, peak = json.loads(done.stdout.splitlines()[-1])
    return cpu, peak


def url(client: Client) -> str:
    port = client.items("CONFIG", "GET", "port")[1]
    assert isinstance(port, bytes)
    return f"redis://127.0.0.1:{port.decode()}"


def best(runs: int, work: Callable[[], list[float]]) -> list[float]:
    """Of several runs the one in which the client took least."""
    return min(work() for _ in range(runs))


def copies(servers: Path, keys: int, runs: int) -> bool:
    """The table of copies; returns whether a goal is missed."""
    begin = {code: min(run(imports)[0] for _ in range(runs)) for code, imports in IMPORTS.items()}
    missed = False
    print("| source | target | how | client | source's | target's |\n|---|---|---|---|---|---|")
    for one, other in (("redis-7.0", "redis-7.0"), ("redis-8.0", "redis-6.0"), ("valkey-9.1", "redis-6.0")):
        with (
            running(servers / one / "redis-server") as (source, _),
            running(servers / other / "redis-server") as (target, _),
        ):
            source.pipeline(commands(keys))
            places = url(source), url(target)

            def took(code: str, *more: str, a: Client = source, b: Client = target, at: tuple[str, str] = places) -> list[float]:
                b.call("FLUSHALL")
                before = cpu_us(a), cpu_us(b)
                own, _ = run(code, *at, *more)
                return [(own - begin[code]) / keys, (cpu_us(a) - before[0]) / keys, (cpu_us(b) - before[1]) / keys]

            rows: list[tuple[str, str, tuple[str, ...]]] = [
                ("rdbkit, --big 0", COPY, ("0",)), ("rdbkit", COPY, (str(32 << 20),)), ("SCAN, DUMP and PTTL alone", BARE, ()),
            ]  # fmt: skip
            if one == other:
                rows.append(("redis-py, pipelines of 1,000", LOOP, ()))
            for label, code, more in rows:
                found = best(runs, lambda code=code, more=more: took(code, *more))  # type: ignore[misc]
                print(f"| {one} | {other} | {label} | {' | '.join(f'{us:.1f}' for us in found)} |", flush=True)
                if code is COPY and more == ("0",):
                    goal = (GOALS["same"] if COMPILED else PLAIN_GOAL) if one == other else GOALS["downgrade"]
                    missed |= found[0] > goal and (COMPILED or one == other)
    return missed


def follows(servers: Path, keys: int, runs: int) -> bool:
    """A copy that follows, of keys that are each written once more in any order; returns whether its goal is missed."""
    print("\n| source | target | written | client | changes a second a core | source's | target's |\n|---|---|---|---|---|---|---|")
    binary = servers / "redis-7.0" / "redis-server"
    worst_us = 0.0
    for label, names in (("each key once", keys), ("1,000 keys, again and again", 1000)):
        found = min(_followed(binary, keys, names) for _ in range(runs))
        own = found[0]
        worst_us = max(worst_us, own)
        rest = " | ".join(f"{us:.1f}" for us in found[1:])
        print(f"| redis-7.0 | redis-7.0 | {label} | {own:.1f} | {1e6 / own:,.0f} | {rest} |", flush=True)
    return COMPILED and 1e6 / worst_us < FOLLOW_GOAL


def _followed(binary: Path, changes: int, names: int) -> list[float]:
    """Microseconds of CPU for each change: of the client, of the source beside what the writes take alone, and of the target."""
    writes = [("SET", f"key:{i * 7919 % names}", f"value {i}") for i in range(changes)]
    with running(binary) as (source, _), running(binary) as (target, _):
        source.pipeline(writes)
        before = cpu_us(source)
        source.pipeline(writes)
        alone = cpu_us(source) - before
        words = [sys.executable, "-c", FOLLOW, url(source), url(target), str(changes)]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            if process.stdout.readline() != "begun\n":
                raise SystemExit("it does not follow")
            before, target_before = cpu_us(source), cpu_us(target)
            source.pipeline(writes)
            own, _ = json.loads(process.stdout.read())
        return [each / changes for each in (own, cpu_us(source) - before - alone, cpu_us(target) - target_before)]


def snapshots(servers: Path, keys: int, runs: int) -> None:
    """A snapshot by replication, beside reading the file that the server saves."""
    print("\n| server | `info` of its file | `info` of the server | `snapshot` to a file |\n|---|---|---|---|")
    for line in ("redis-7.0", "valkey-9.1"):
        with (
            running(servers / line / "redis-server", conf=["repl-diskless-sync-delay 0"]) as (source, folder),
            tempfile.TemporaryDirectory() as made,
        ):
            source.pipeline(commands(keys))
            source.call("SAVE")
            shutil.copyfile(folder / "dump.rdb", Path(made) / "a.rdb")
            rows = (
                ("info", f"{made}/a.rdb"), ("info", url(source)), ("snapshot", url(source), f"{made}/b.rdb", "--force"),
            )  # fmt: skip
            found = [min(run(COMMAND, *row)[0] for _ in range(runs)) / keys for row in rows]
            print(f"| {line} | {' | '.join(f'{us:.2f}' for us in found)} |", flush=True)


def memory(servers: Path, keys: int, large: int) -> None:
    """The most memory of a copy: of many keys, and of one that is large."""
    print("\n| what | most memory, MB |\n|---|---|")
    print(f"| nothing but the imports | {run(IMPORTS[COPY])[1] >> 10} |")
    binary = servers / "redis-7.0" / "redis-server"
    small = (("SET", f"k{i}", i) for i in range(keys))
    pieces = ((part for j in range(100) for part in (f"{i}:{j}", "x" * 10_000)) for i in range(large // 1_000_000))
    whole = (("HSET", "h", *piece) for piece in pieces)
    cases: list[tuple[str, Iterable[Command], int]] = [
        (f"{keys:,} small keys", small, 1000), (f"a hash of {large >> 20:,} MB", whole, 5),
    ]  # fmt: skip
    for label, filling, batch in cases:
        with running(binary) as (source, _), running(binary) as (target, _):
            source.pipeline(filling, batch)
            _, peak = run(COPY, url(source), url(target), str(32 << 20))
            print(f"| {label} | {peak >> 10} |", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=Path, default=Path(".servers"))
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--large", type=int, default=1 << 30, help="bytes of the large key")
    parser.add_argument("--many", type=int, default=2_000_000, help="keys of which the memory is measured")
    options = parser.parse_args()
    form = "compiled" if COMPILED else "plain"
    print(f"{form}; microseconds of CPU a key, {options.keys:,} small keys, best of {options.runs}\n")
    missed = copies(options.servers, options.keys, options.runs)
    missed |= follows(options.servers, options.keys, options.runs)
    snapshots(options.servers, options.keys, options.runs)
    memory(options.servers, options.many, options.large)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())

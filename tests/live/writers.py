"""Writers that change a small set of keys in every way that a server has."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fixtures.server import Client

_MOVES = "redis.call('SET', KEYS[1], ARGV[1]); redis.call('RPUSH', KEYS[2], ARGV[1])"


def random_commands(rng: random.Random, count: int, *, keys: int = 60, databases: Sequence[int] = (0,), tag: str = "") -> list[Any]:
    """Commands about a few keys; some of them are refused, as they are about a value of another type.

    Args:
        tag: in front of all names, as a hash tag for clusters.
    """
    return [each for _ in range(count) for each in _some(rng, keys, databases, tag)]


def _some(rng: random.Random, keys: int, databases: Sequence[int], tag: str) -> list[tuple[Any, ...]]:
    def name(of: str = "") -> str:
        return f"{tag}{of or rng.choice('srhlzx')}{rng.randrange(keys)}"

    n, m = rng.randrange(10), rng.randrange(1000)
    key = name()
    choices: list[list[tuple[Any, ...]]] = [
        [("SET", key, m)],
        [("SET", key, m, "PX", rng.choice((1, 30, 500, 3_600_000)))],
        [("SETRANGE", name("s"), n, "x" * n)],
        [("INCR", name("s"))],
        [("GETSET", name("s"), m)],
        [("DEL", key)],
        [("UNLINK", key, name())],
        [("RPUSH", name("l"), *range(n + 1))],
        [("LPOP", name("l"))],
        [("RPOPLPUSH", name("l"), name("l"))],
        [("LTRIM", name("l"), 1, -2)],
        [("SADD", name("r"), *range(n + 1))],
        [("SADD", name("r"), "text", m)],
        [("SPOP", name("r"))],
        [("SMOVE", name("r"), name("r"), n)],
        [("SINTERSTORE", name("r"), name("r"), name("r"))],
        [("HSET", name("h"), n, m, "f", "x" * (n * 20))],
        [("HDEL", name("h"), n, n + 1)],
        [("HEXPIRE", name("h"), rng.choice((1, 3600)), "FIELDS", 1, n)],
        [("ZADD", name("z"), m / 8, n)],
        [("ZINCRBY", name("z"), "0.1", n)],
        [("ZPOPMIN", name("z"))],
        [("ZUNIONSTORE", name("z"), 2, name("z"), name("r"))],
        [("XADD", name("x"), "*", "f", m)],
        [("XGROUP", "CREATE", name("x"), "g", "0", "MKSTREAM")],
        [("XREADGROUP", "GROUP", "g", f"c{n}", "COUNT", 2, "STREAMS", name("x"), ">")],
        [("XTRIM", name("x"), "MAXLEN", 3)],
        [("RENAME", key, name())],
        [("RENAME", key, f"{tag}cycle"), ("RENAME", name(), key), ("RENAME", f"{tag}cycle", name())],
        [("PEXPIRE", key, rng.choice((1, 100, 3_600_000)))],
        [("PERSIST", key)],
        [("EVAL", _MOVES, 2, name("s"), name("l"), m)],
        [("MULTI",), ("SET", name("s"), m), ("DEL", name()), ("RPUSH", name("l"), m), ("EXEC",)],
        [("SORT", name("l"), "ALPHA", "STORE", name("l"))],
        [("COPY", key, name(), "REPLACE")],
        [("PFADD", name("s"), m)],
    ]  # fmt: skip
    if len(databases) > 1:
        choices += [[("SELECT", rng.choice(databases))]] * 2 + [[("MOVE", key, rng.choice(databases))]]
    return rng.choice(choices)


def write(port: int, seed: int, rounds: int, *, flushes: bool = False, **options: Any) -> None:
    """Send some fifty commands in each round, over a connection of one's own."""
    rng = random.Random(seed)
    client = Client(port)
    try:
        for _ in range(rounds):
            commands = random_commands(rng, 50, **options)
            if flushes and rng.randrange(20) == 0:
                commands.insert(rng.randrange(len(commands)), ("FLUSHDB",))
            client.answers(commands)
    finally:
        client.close()


@contextmanager
def meanwhile(work: Callable[[int], object], pause_s: float = 0.0) -> Iterator[None]:
    """Do something over and over, in a thread, until the block ends.

    Args:
        work: is called with 1, 2 and so on.
        pause_s: seconds before each time.
    """
    ends = threading.Event()

    def run() -> None:
        numbers = itertools.count(1)
        while not ends.wait(pause_s):
            work(next(numbers))

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        ends.set()
        thread.join()

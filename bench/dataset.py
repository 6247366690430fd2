#!/usr/bin/env python3
"""Make the dump that the benchmark reads: about 190 MB of what caches, session stores and queues hold.

A real server is filled over its protocol and saves the file, so that the file is of production's make. The data is the
same on every run, and with it the file's size to some KB; the order of the keys is not, for the server draws a new hash
seed at each start.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import shutil
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fixtures.server import Client, Command, Refused, running

SEED = 7
FAR = 4_102_444_800_000
"""2100-01-01 in ms: nothing expires while the dump is made or read."""

STRINGS = 600_000
HASHES = 100_000
COLLECTIONS = 20_000
"""How many each of sorted sets, lists, sets of integers and sets of text."""
BIG = 20
"""How many each of big hashes, big sorted sets, big sets and streams."""
BIG_ELEMENTS = 40_000
STREAM_ENTRIES = 3_000
CHUNK = 1_000
"""Elements of a big key that one command adds."""

# fmt: off
WORDS = (
    "amber", "anchor", "apple", "april", "arrow", "autumn", "bamboo", "basket", "beacon", "birch", "blue", "border",
    "branch", "bridge", "bronze", "brook", "butter", "cabin", "candle", "canyon", "carbon", "castle", "cedar", "cherry",
    "circle", "city", "clover", "cobalt", "copper", "coral", "corner", "cotton", "crystal", "dawn", "delta", "desert",
    "dragon", "eagle", "east", "ember", "emerald", "falcon", "farm", "field", "flame", "forest", "fox", "frost",
    "garden", "gate", "ginger", "glacier", "gold", "granite", "grape", "green", "harbor", "hazel", "heron", "hill",
    "honey", "indigo", "iris", "iron", "island", "ivory", "jade", "juniper", "kite", "lake", "lantern", "laurel",
    "lemon", "lily", "linen", "lotus", "lunar", "maple", "marble", "meadow", "mint", "moon", "moss", "north", "oak",
    "ocean", "olive", "onyx", "opal", "orange", "orchid", "otter", "palm", "paper", "pearl", "pebble", "pine", "plum",
    "prairie", "quartz", "quiet", "rain", "raven", "red", "reef", "ridge", "river", "robin", "rose", "saffron", "sage",
    "salt", "sand", "sapphire", "shadow", "silver", "sky", "slate", "snow", "south", "spruce", "star", "stone", "storm",
    "summer", "sun", "swan", "thunder", "tiger", "topaz", "tulip", "valley", "velvet", "violet", "walnut", "water",
    "west", "wheat", "willow", "wind", "winter", "wolf", "wood", "yellow",
)
# fmt: on
COUNTRIES = ("de", "fr", "gb", "in", "jp", "us")


def _phrase(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def _integer(rng: random.Random) -> int:
    """Counters and ids: small ones are frequent, and some are past each width of the integer encodings."""
    return rng.getrandbits(rng.choice((6, 10, 15, 20, 31, 40, 62))) * rng.choice((1, 1, 1, -1))


def _session(rng: random.Random, number: int) -> str:
    """A session as JSON, 30 to 200 bytes."""
    document: dict[str, object] = {"uid": number, "name": _phrase(rng, 2), "theme": rng.choice(("dark", "light"))}
    if rng.random() < 0.8:
        document |= {"seen": 1_700_000_000 + rng.randrange(10_000_000), "country": rng.choice(COUNTRIES)}
    if rng.random() < 0.5:
        document["csrf"] = rng.randbytes(16).hex()
    if rng.random() < 0.6:
        document["roles"] = rng.choices(WORDS, k=rng.randrange(1, 3))
    if rng.random() < 0.4:
        document["cart"] = [rng.randrange(100_000) for _ in range(rng.randrange(1, 5))]
    return json.dumps(document, separators=(",", ":"))


def _token(rng: random.Random) -> str:
    """Hexadecimal digits, which LZF shrinks a little, or base64 text, which it does not; 30 to 200 bytes."""
    if rng.random() < 0.5:
        return rng.randbytes(rng.randrange(15, 101)).hex()
    return base64.b64encode(rng.randbytes(rng.randrange(23, 151))).decode()


def _strings(rng: random.Random) -> Iterator[Command]:
    """A third integers, a third sessions, a third tokens; half of each expire."""
    for i in range(STRINGS):
        key: str
        value: str | int
        match i % 3:
            case 0:
                key, value = f"page:{i}:views", _integer(rng)
            case 1:
                key, value = f"session:{rng.getrandbits(64):016x}", _session(rng, i)
            case _:
                key, value = f"token:{rng.getrandbits(64):016x}", _token(rng)
        if i // 3 % 2:
            yield ("SET", key, value, "PXAT", FAR + rng.randrange(10**10))
        else:
            yield ("SET", key, value)


def _hashes(rng: random.Random) -> Iterator[Command]:
    for i in range(HASHES):
        first, last = rng.choices(WORDS, k=2)
        fields: dict[str, str | int] = {
            "name": f"{first} {last}",
            "email": f"{first}.{last}{rng.randrange(100)}@example.com",
            "country": rng.choice(COUNTRIES),
            "created": 1_600_000_000 + rng.randrange(100_000_000),
            "visits": rng.getrandbits(rng.choice((6, 10, 15))),
            "about": _phrase(rng, rng.randrange(2, 8)),
        }
        yield ("HSET", f"user:{i}", *(part for pair in fields.items() for part in pair))


def _log_line(rng: random.Random) -> str:
    return f"{1_700_000_000 + rng.randrange(10**7)} id={rng.randbytes(6).hex()} {_phrase(rng, 5)}"


def _collections(rng: random.Random) -> Iterator[Command]:
    for i in range(COLLECTIONS):
        players = rng.sample(range(10_000_000), 20)
        scores: Iterator[float] = (rng.randrange(100_000) if i % 2 else round(rng.uniform(0, 1_000), 3) for _ in players)
        yield ("ZADD", f"board:{i}", *(part for pair in zip(scores, players, strict=True) for part in pair))
        yield ("RPUSH", f"log:{i}", *(_log_line(rng) for _ in range(20)))
        yield ("SADD", f"friends:{i}", *rng.sample(range(1_000_000), 15))
        yield ("SADD", f"tags:{i}", *(f"{word}-{rng.randrange(100)}" for word in rng.sample(WORDS, 12)))


def _chunks(elements: Iterator[Command]) -> Iterator[Command]:
    """The elements of a big key, as the arguments of as few commands as is good for the server."""
    while chunk := [part for element in islice(elements, CHUNK) for part in element]:
        yield chunk


def _big(rng: random.Random) -> Iterator[Command]:
    members = range(BIG_ELEMENTS)
    for i in range(BIG):
        fields: Iterator[Command] = ((f"item:{j:06}", f"{rng.randbytes(8).hex()} {_phrase(rng, 3)}") for j in members)
        for chunk in _chunks(fields):
            yield ("HSET", f"catalog:{i}", *chunk)
        scored: Iterator[Command] = ((round(rng.uniform(0, 1e6), 2), f"player:{j:06}") for j in members)
        for chunk in _chunks(scored):
            yield ("ZADD", f"ranking:{i}", *chunk)
        visitors: Iterator[Command] = ((f"{j:05}-{rng.randbytes(8).hex()}",) for j in members)
        for chunk in _chunks(visitors):
            yield ("SADD", f"visitors:{i}", *chunk)


def _streams(rng: random.Random) -> Iterator[Command]:
    for i in range(BIG):
        ms = 1_700_000_000_000
        for _ in range(STREAM_ENTRIES):
            ms += rng.randrange(1, 2_000)
            reading = (
                "sensor",
                rng.randrange(50),
                "temperature",
                round(rng.uniform(-20, 40), 1),
                "note",
                _phrase(rng, 4),
            )
            yield ("XADD", f"events:{i}", f"{ms}-0", *reading)


def make(binary: Path, out: Path) -> None:
    """Fill a server (6.2 or later) and copy the file it saves to `out`; raises Refused where it does not start."""
    rng = random.Random(SEED)
    out.parent.mkdir(parents=True, exist_ok=True)
    with running(binary) as (client, folder):
        for part in (_strings, _hashes, _collections, _big, _streams):
            client.pipeline(part(rng))
        _save(client, folder, out)


def save_again(binary: Path, dump: Path, out: Path) -> None:
    """Let another server load a dump and copy the file it saves to `out`; raises Refused where it does not load it."""
    with running(binary, dump) as (client, folder):
        _save(client, folder, out)


def _save(client: Client, folder: Path, out: Path) -> None:
    client.call("SAVE")
    # under its own name only when it is whole, so that an interrupted run leaves no half a dataset
    partial = out.with_name(out.name + ".partial")
    shutil.copyfile(folder / "dump.rdb", partial)
    partial.replace(out)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the benchmark's dump, about 190 MB, with a real server.")
    parser.add_argument("server", type=Path, metavar="SERVER_BINARY", help="redis-server of Redis 7.0")
    parser.add_argument("out", type=Path, metavar="OUT.rdb", help="the file to write")
    options = parser.parse_args()
    start = time.perf_counter()
    try:
        make(options.server, options.out)
    except (Refused, OSError) as error:
        sys.exit(f"dataset.py: {error}")
    print(f"{options.out}: {options.out.stat().st_size:,} bytes in {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()

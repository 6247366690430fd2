"""Inputs by number: damaged snapshots of every kind, always the same for the same seed and number."""

from __future__ import annotations

import gzip
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.encoders import signed
from tests.fuzz import directed
from tests.fuzz.mutate import LATER, assembled, flipped, mutant, source, sources
from tests.rdb import CRC, DUMPS, aux, length

CASES = directed.cases()
#: Names of AUX fields that some reader takes a meaning from.
FIELDS = (b"redis-ver", b"lua", b"x", b"keydb-subexpire-key", b"keydb-subexpire-when", b"mvcc-tstamp")


class Input(NamedTuple):
    """A file, and how it came about."""

    how: str
    data: bytes


def resealed(data: bytes) -> bytes:
    """With a checksum that fits, where the file has one."""
    return data[:-8] + CRC.calc(data[:-8]).to_bytes(8, "little") if len(data) > 17 else data


def bytes_changed(data: bytes, rng: Random) -> bytes:
    """Bytes flipped, replaced, repeated, taken out or put in, anywhere behind the header; or the end cut off."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        at = rng.randrange(9, max(len(out) - 8, 10))
        size = rng.choice([1, 1, 2, 8, 40])
        match rng.randrange(7):
            case 0:
                out[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                out[at : at + 1] = flipped(bytes(out[at : at + 1]) or b"\0", rng)
            case 2:
                del out[at : at + size]
            case 3:
                out[at:at] = out[at : at + size]
            case 4:
                out[at:at] = rng.randbytes(size)
            case 5:
                out[at : at + size] = rng.choice([b"\0", b"\xff", b"\x80"]) * size
            case _:
                out[at : at + 1] = rng.choice(
                    [b"\x81" + b"\xff" * 8, b"\x80\xff\xff\xff\xff", b"\x7f\xff", b"\xc3", b"\xfe", b"\xfa", b"\xfc"]
                )
    return bytes(out)


def odd_order(rng: Random) -> bytes:
    """What can stand between keys, in any order, between the parts of a key as well."""
    origin = source(rng.choice(sources()))
    parts: list[bytes] = []
    for _ in range(rng.randrange(1, 12)):
        _, front, type_code, key, value = rng.choice(origin.records)
        parts.append(
            rng.choice(
                [
                    front + bytes([type_code]) + key + value,
                    front + bytes([type_code]) + key + value,
                    b"\xfe" + length(rng.choice([0, 1, 15, 16, 1 << 31])),
                    b"\xfb" + length(rng.randrange(9)) + length(rng.randrange(9)),
                    b"\xfc" + signed(rng.choice([LATER, 1, -1, 1 << 62, -(1 << 63)]), 8),
                    b"\xfd" + signed(rng.choice([1, -1, 2_000_000_000]), 4),
                    b"\xf8" + length(rng.choice([0, 1, 1 << 40])),
                    b"\xf9" + bytes([rng.randrange(256)]),
                    aux(
                        rng.choice([b"redis-ver", b"lua", b"x", b"keydb-subexpire-key", b"keydb-subexpire-when", b"mvcc-tstamp"]),
                        b"1",
                    ),
                    rng.choice([b"k", b"y"]) + length(rng.choice([0, 70, 1 << 40])),
                    b"\xf4" + length(rng.randrange(20_000)) + length(1) + length(0),
                    origin.prelude,
                    directed.function(directed.LIBRARY % (b"l%d" % rng.randrange(3), b"f")),
                    b"\xf3" + length(0),
                    b"\xf2" + length(rng.randrange(3)) + directed.counted([b"a", b"bb"]),
                    b"\xf7" + length(1 << 20) + length(2) + length(rng.randrange(4)) + length(0),
                    bytes([rng.randrange(256)]),
                    b"",
                ]
            )
        )
    return resealed(origin.magic + b"".join(parts) + b"\xff" + bytes(8))


def input_of(seed: int, number: int) -> Input:
    """The input of this number."""
    rng = Random(f"{seed} {number}")
    chance = rng.random()
    if chance < 0.45:
        made = mutant(rng.choice(sources()), number + 1_000_000 * seed)
        found = Input(f"{made.name}: {made.damage}", made.data)
    elif chance < 0.75:
        path = _small(rng)
        data = bytes_changed(_cut(path, rng), rng)
        found = Input(f"bytes of {path.name}", resealed(data) if rng.random() < 0.7 else data)
    elif chance < 0.85:
        case = rng.choice(CASES)
        found = Input(case.name, case.data)
    elif chance < 0.95:
        found = Input("odd order", odd_order(rng))
    else:
        magic = rng.choice([b"REDIS0003", b"REDIS0009", b"REDIS0012", b"REDIS0014", b"REDIS0015", b"VALKEY080"])
        found = Input("noise", magic + b"\xfe\0" + rng.randbytes(rng.randrange(200)))
    if rng.random() < 0.05:
        return Input(f"{found.how}, gzip", gzip.compress(found.data, 1, mtime=0))
    return Input(f"{found.how}, captured", captured(found.data, rng)) if rng.random() < 0.05 else found


def captured(data: bytes, rng: Random) -> bytes:
    """As a replica is sent it, with a byte of the frame changed, or none."""
    mark = b"%040x" % rng.getrandbits(160) if rng.random() < 0.5 else b""
    front = b"$EOF:%b\r\n" % mark if mark else b"$%d\r\n" % len(data)
    front = rng.choice([b"", b"\n\n", b"+OK\r\n+FULLRESYNC %040x 7\r\n\n" % rng.getrandbits(160)]) + front
    behind = mark + rng.choice([b"", b"*1\r\n$4\r\nping\r\n", b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n"])
    if rng.random() < 0.3:
        front = bytes_changed(bytes(9) + front, rng)[9:]
    if rng.random() < 0.3:
        behind = bytes_changed(bytes(9) + behind, rng)[9:]
    return front + data + behind


def _small(rng: Random) -> Path:
    return rng.choice([path for path in DUMPS if path.parent.name == "rich"] if rng.random() < 0.8 else DUMPS)


def _cut(path: Path, rng: Random) -> bytes:
    """A fixture, whole or with a few of its records."""
    if rng.random() < 0.3:
        return path.read_bytes()
    origin = source(path)
    return assembled(origin.magic, origin.prelude, rng.sample(origin.records, min(4, len(origin.records))))

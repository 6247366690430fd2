"""RDB bytes made by hand, without any code of rdbkit, and the fixtures with what their servers said."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import anycrc

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
DUMPS = sorted([*FIXTURES.glob("rich/*.rdb"), *FIXTURES.glob("random/*.rdb")])
CRC = anycrc.Model("CRC64-REDIS")


def length(n: int) -> bytes:
    if n < 64:
        return bytes([n])
    if n < 1 << 14:
        return bytes([0x40 | n >> 8, n & 255])
    if n < 1 << 32:
        return b"\x80" + n.to_bytes(4, "big")
    return b"\x81" + n.to_bytes(8, "big")


def string(data: bytes) -> bytes:
    return length(len(data)) + data


def aux(key: bytes, value: bytes) -> bytes:
    return b"\xfa" + string(key) + string(value)


def key(name: bytes, kind: int, value: bytes, expire_ms: int | None = None) -> bytes:
    prefix = b"" if expire_ms is None else b"\xfc" + expire_ms.to_bytes(8, "little", signed=True)
    return prefix + bytes([kind]) + string(name) + value


def rdb(*parts: bytes, magic: bytes = b"REDIS0009", crc: bool | None = True) -> bytes:
    """A whole file; crc False stores 0, None leaves it out."""
    body = magic + b"".join(parts) + b"\xff"
    if crc is None:
        return body
    return body + (CRC.calc(body) if crc else 0).to_bytes(8, "little")


def truth(path: Path) -> list[dict[str, Any]] | None:
    """What the server that wrote the dump answered for each key; None where it was not asked."""
    answers = path.with_suffix("").with_suffix("") if path.suffix != ".rdb" else path
    file = answers.parent / (path.name[: -len(".rdb")] + ".truth.jsonl.gz")
    if not file.exists():
        return None
    with gzip.open(file, "rt") as lines:
        return [json.loads(line) for line in lines]


class Dribble:
    """A reader that returns at most `step` bytes at a time."""

    def __init__(self, data: bytes, step: int = 1) -> None:
        self.file = io.BytesIO(data)
        self.step = step

    def read(self, n: int) -> bytes:
        assert n > 0, "rdbkit must say how much it wants"
        return self.file.read(min(n, self.step))

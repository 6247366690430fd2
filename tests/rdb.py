"""RDB bytes made by hand, without any code of rdbkit; the fixtures with what their servers said, and targets, as parameters."""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import anycrc
import pytest

from rdbkit.targets.target import target_names

FIXTURES = Path(__file__).resolve().parent.parent / "fixtures"
DUMPS = sorted([*FIXTURES.glob("rich/*.rdb"), *FIXTURES.glob("random/*.rdb")])
#: Those of DUMPS that every test of a dump takes, so that each format, and each of its forks, is there; the others are exhaustive.
REPRESENTATIVE = {
    "rich/keydb-6.3.4-ext", "rich/redis-2.4.18", "rich/redis-2.8.24", "rich/redis-3.2.13", "rich/redis-4.0.14", "rich/redis-6.2.16",
    "rich/redis-7.0.15", "rich/redis-7.2.6-mod", "rich/redis-7.2.6", "rich/redis-7.4.1", "rich/redis-8.6-dev",
    "rich/redis-8.8-dev-keymeta", "rich/valkey-9.1.2-cluster", "random/redis-3.2.13", "random/valkey-9.1.2",
}  # fmt: skip
#: The same of targets: each set of types, and each service.
REPRESENTATIVE_TARGETS = {
    "rdb-2", "redis-2.8", "redis-3.2", "redis-4.0", "redis-6.2", "redis-7.0", "redis-7.2", "redis-8.4", "redis-8.6", "redis-8.8",
    "redis-8.10", "valkey-8.1", "valkey-9.1", "redict-7.3", "azure-premium", "azure-managed",
}  # fmt: skip
exhaustive = pytest.mark.exhaustive
CRC = anycrc.Model("CRC64-REDIS")


def each_dump(folder: str = "", answered: bool = False) -> list[Any]:
    """The dumps as parameters of a test: those of one folder, or whose server was asked. Most are exhaustive."""
    return [
        pytest.param(path, id=name, marks=() if name in REPRESENTATIVE else exhaustive)
        for path in DUMPS
        if (name := f"{path.parent.name}/{path.stem}").startswith(folder) and (not answered or _answers(path).exists())
    ]


def dumps_at_once() -> list[Any]:
    """The same as two parameters, each a list: for tests that would be too many with one for each dump."""
    some = [path for path in DUMPS if f"{path.parent.name}/{path.stem}" in REPRESENTATIVE]
    return [pytest.param(some, id="some"), pytest.param(sorted({*DUMPS} - {*some}), id="the others", marks=exhaustive)]


def each_target(*others: str) -> list[Any]:
    """Names of all targets as parameters, and of others. Those that are like another are exhaustive."""
    return [
        pytest.param(name, marks=() if name in REPRESENTATIVE_TARGETS or name in others else exhaustive)
        for name in [*target_names(), *others]
    ]


def rarely(*values: Any) -> list[Any]:
    """Values of a parameter that only an exhaustive run takes."""
    return [pytest.param(value, marks=exhaustive) for value in values]


def one_in(n: int, cases: Iterable[Any]) -> list[Any]:
    """Cases as parameters, each a value or a tuple of them; all but one in n are exhaustive."""
    each = [case if isinstance(case, tuple) else (case,) for case in cases]
    return [pytest.param(*case, marks=exhaustive if number % n else ()) for number, case in enumerate(each)]


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


def key(name: bytes, type_code: int, value: bytes, expire_ms: int | None = None) -> bytes:
    prefix = b"" if expire_ms is None else b"\xfc" + expire_ms.to_bytes(8, "little", signed=True)
    return prefix + bytes([type_code]) + string(name) + value


def rdb(*parts: bytes, magic: bytes = b"REDIS0009", crc: bool | None = True) -> bytes:
    """A whole file; crc False stores 0, None leaves it out."""
    body = magic + b"".join(parts) + b"\xff"
    if crc is None:
        return body
    return body + (CRC.calc(body) if crc else 0).to_bytes(8, "little")


def _answers(path: Path) -> Path:
    return path.with_suffix(".truth.jsonl.gz")


def truth(path: Path) -> list[dict[str, Any]] | None:
    """What the server that wrote the dump answered for each key; None where it was not asked."""
    if not _answers(path).exists():
        return None
    with gzip.open(_answers(path), "rt") as lines:
        return [json.loads(line) for line in lines]


class Dribble:
    """A reader that returns at most `step` bytes at a time."""

    def __init__(self, data: bytes, step: int = 1) -> None:
        self.file = io.BytesIO(data)
        self.step = step

    def read(self, n: int) -> bytes:
        assert n > 0, "rdbkit must say how much it wants"
        return self.file.read(min(n, self.step))

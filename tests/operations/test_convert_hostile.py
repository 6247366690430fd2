"""`rdbkit.convert` on damaged files: the library's own errors alone, and what is written all the same is sound."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import pytest

import rdbkit

from ..rdb import FIXTURES, key, length, rdb, string

NOW = 1_800_000_000_000
FAR = 4_102_444_800_000
TARGETS = ["redis-2.8", "redis-4.0", "redis-6.0", "redis-7.2", "redis-8.4", "valkey-9.1", "azure-managed"]
SOURCES = ["redis-3.2.13", "redis-7.2.6", "redis-8.8-dev-keymeta", "valkey-9.1.2-cluster", "keydb-6.3.4-ext"]


def damaged(data: bytes, rng: Random) -> bytes:
    """With some bytes flipped, replaced or left out behind its header, or cut."""
    changed = bytearray(data)
    at = rng.randrange(9, len(data) - 8)
    how = rng.randrange(4)
    if how == 0:
        return data[:at]
    if how == 1:
        changed[at : at + rng.randrange(1, 9)] = rng.randbytes(rng.randrange(9))
        return bytes(changed)
    for _ in range(how):
        changed[rng.randrange(9, len(data) - 8)] ^= rng.choice([1, 0x80, 0xFF])
    return bytes(changed)


def outcome(data: bytes, target: str, **options: Any) -> bytes | rdbkit.RdbError:
    """The file, or the error; only the library's own errors pass."""
    out = io.BytesIO()
    try:
        report = rdbkit.convert(io.BytesIO(data), out, target=target, now_ms=NOW, **options)
    except rdbkit.RdbError as e:
        return e
    with rdbkit.open(io.BytesIO(out.getvalue())) as snapshot:
        assert sum(1 for _ in snapshot) == report.written
    assert report.keys == report.written + report.left_out
    return out.getvalue()


@pytest.mark.one_in(5)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES)
def test_damage_gives_an_error_of_the_library_or_a_sound_file(source: str, target: str) -> None:
    whole = (FIXTURES / "rich" / f"{source}.rdb").read_bytes()
    rng = Random(f"{source} {target}")
    for _ in range(60):
        data = damaged(whole, rng)
        options: dict[str, Any] = {
            "policies": rng.choice([
                rdbkit.Policies(loss="drop"),
                rdbkit.Policies(loss="drop", array="hash", field_ttl="key-min", pending_unowned="assign", owner=b"me"),
                rdbkit.Policies(),
            ]),
            "on_error": rng.choice(["stop", "skip"]),
            "verify_checksum": False,
            "block_size": rng.choice([16, 64, 700, 1 << 20]),
        }  # fmt: skip
        made = outcome(data, target, **options)
        if isinstance(made, rdbkit.RdbError):
            assert str(made)
            assert "\n" not in str(made)
        else:  # what a target takes, it takes again as it is
            out = io.BytesIO()
            rdbkit.convert(io.BytesIO(made), out, target=target, now_ms=NOW)
            assert out.getvalue() == made


class Key(NamedTuple):
    db: int
    name: bytes
    value: bytes
    expire_ms: int | None

    @property
    def record(self) -> bytes:
        return key(self.name, 0, string(self.value), self.expire_ms)


def keys_and_file(rng: Random) -> tuple[list[Key], bytes]:
    """Keys in databases that come in any order, again, or empty, with counts that may be wrong."""
    parts: list[bytes] = []
    keys: list[Key] = []
    for _ in range(rng.randrange(1, 6)):
        db = rng.randrange(4)
        parts.append(b"\xfe" + length(db))
        if rng.random() < 0.6:
            parts.append(b"\xfb" + length(rng.randrange(9)) + length(rng.randrange(9)))
        for _ in range(rng.randrange(4)):
            value = b"%d-" % len(keys) * rng.choice([1, 60])
            made = Key(db, b"k%d" % rng.randrange(4), value, rng.choice([None, NOW - 5, FAR]))
            if (made.db, made.name) not in {(k.db, k.name) for k in keys}:
                keys.append(made)
                parts.append(made.record)
    return keys, rdb(*parts)


MOVES: dict[str, dict[str, Any]] = {
    "collapse": {"collapse_dbs": True},
    "swap": {"map_db": {0: 1, 1: 0, 2: 0}},
    "prefix": {"rename_prefix": ((b"k1", b"k0"), (b"k2", b""))},
}


def moved(k: Key, how: str) -> tuple[int, bytes]:
    if how == "collapse":
        return 0, k.name
    if how == "swap":
        return {0: 1, 1: 0, 2: 0}.get(k.db, k.db), k.name
    return k.db, {b"k1": b"k0", b"k2": b""}.get(k.name, k.name)


@pytest.mark.parametrize("on_conflict", ["first", "last", "rename"])
@pytest.mark.parametrize("how", list(MOVES))
def test_keys_move_as_a_model_says_in_any_framing(how: str, on_conflict: str, tmp_path: Path) -> None:
    source = tmp_path / "source.rdb"
    rng = Random(f"{how} {on_conflict}")
    mark = b"m" * 40
    for _ in range(60):
        keys, file = keys_and_file(rng)
        source.write_bytes(rng.choice([file, gzip.compress(file), b"$EOF:" + mark + b"\r\n" + file + mark]))
        drop = rng.random() < 0.4
        least, most = rng.choice([(0, None), (0, 100), (100, None)])
        wanted: dict[tuple[int, bytes], bytes] = {}
        for k in keys:
            size = len(k.record)
            if (drop and k.expire_ms == NOW - 5) or size < least or (most is not None and size > most):
                continue
            place = moved(k, how)
            if place not in wanted or on_conflict == "last":
                wanted[place] = k.value
            elif on_conflict == "rename":
                wanted[place[0], b"%d<%b>" % (k.db, place[1])] = k.value
        out = io.BytesIO()
        edits = rdbkit.Edits(on_conflict=on_conflict, rename_pattern="{db}<{key}>", drop_expired=drop, **MOVES[how])
        rdbkit.convert(
            source, out, target="redis-6.0", edits=edits, selection=rdbkit.Selection(size=(least, most)), now_ms=NOW,
            block_size=rng.choice([16, 64, 700, 1 << 20]),
        )  # fmt: skip
        with rdbkit.open(io.BytesIO(out.getvalue())) as snapshot:
            found = [(r.db, r.key, r.value) for r in snapshot]
        assert len(found) == len(wanted)
        assert {(db, name): value for db, name, value in found} == wanted
        with rdbkit.open(io.BytesIO(out.getvalue())) as snapshot:
            assert_counts(list(snapshot.events()))


def assert_counts(events: list[Any]) -> None:
    """What the file says of how many keys a database has is true."""
    said: list[tuple[int, int] | None] = []
    true: list[list[int]] = []
    for event in events:
        if isinstance(event, rdbkit.SelectDb):
            said.append(None)
            true.append([0, 0])
        elif isinstance(event, rdbkit.ResizeDb):
            said[-1] = event.keys, event.expires
        elif isinstance(event, rdbkit.Record):
            true[-1][0] += 1
            true[-1][1] += event.expire_ms is not None
    for one, other in zip(said, true, strict=True):
        assert one is None or one == tuple(other)

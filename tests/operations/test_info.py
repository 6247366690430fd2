"""What `info` advises, where a wrong word would cost somebody a cache."""

from __future__ import annotations

import io

import pytest

import rdbkit
from rdbkit.operations.info import Info, info

from ..rdb import FIXTURES, key, length, rdb, string

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def module_id(name: str, version: int) -> bytes:
    number = 0
    for letter in name:
        number = number << 6 | LETTERS.index(letter)
    return b"\x81" + (number << 10 | version).to_bytes(8, "big")


JSON = module_id("ReJSON-RL", 3)


def report(data: bytes) -> Info:
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        return info(snapshot)


def loads(r: Info) -> dict[str, str]:
    return {row.target: row.loads for row in r.loads_as_is}


def one(kind: int, value: bytes, magic: bytes, db: int = 0) -> Info:
    return report(rdb(b"\xfe" + length(db), key(b"k", kind, value), magic=magic))


def test_plain_content_of_redis_6_goes_everywhere() -> None:
    r = one(0, string(b"v"), b"REDIS0009")
    assert {loads(r)[t] for t in ("redis-5.0", "redis-8.10", "valkey-9.0", "azure-premium", "azure-managed")} == {"yes"}
    assert "Azure Managed Redis imports it as it is; Azure Cache for Redis Premium imports it as it is" in r.next
    assert "deletes what is in the cache" in r.next


def test_newer_content_is_advised_to_be_rewritten() -> None:
    r = one(16, string(b"lp"), b"REDIS0012")
    assert (loads(r)["azure-premium"], loads(r)["azure-managed"], r.lowest_version) == ("no", "undocumented", 1)
    assert "rewritten as RDB 9 Azure Cache for Redis Premium takes it" in r.next


def test_a_module_that_a_service_lacks_is_never_called_importable() -> None:
    with rdbkit.open(FIXTURES / "rich" / "redis-6.0.20-mod.rdb") as snapshot:
        r = info(snapshot)
    assert loads(r)["azure-premium"] == loads(r)["azure-managed"] == "no"
    assert "takes it" not in r.next
    assert "imports it" not in r.next
    r = one(7, JSON + b"\x05" + string(b"{}") + b"\0", b"REDIS0009")
    assert (loads(r)["azure-premium"], loads(r)["azure-managed"]) == ("no", "yes")
    assert "Azure Cache for Redis Premium does not take it: it does not offer RedisJSON" in r.next


def test_databases_beyond_the_first_are_said_to_be_left_out() -> None:
    r = one(0, string(b"v"), b"REDIS0009", db=3)
    assert (loads(r)["azure-premium"], loads(r)["azure-managed"]) == ("yes", "partly")
    assert "only database 0 is imported: 1 key" in r.next
    assert loads(one(0, string(b"v"), b"REDIS0009", db=64))["azure-premium"] == "partly"


@pytest.mark.parametrize(("kind", "magic"), [(21, b"REDIS0011"), (19, b"REDIS0010")])
def test_streams_are_never_said_to_lose_nothing(kind: int, magic: bytes) -> None:
    r = one(kind, bytes(10), magic)
    assert "losses of streams" in r.next
    assert "counters" in r.lowest_version_notes[0]


def test_field_expiry_keeps_the_version_up() -> None:
    r = one(24, bytes(8) + b"\1\1" + string(b"f") + string(b"v"), b"REDIS0012")
    assert r.lowest_version == 12
    assert (
        "Azure Managed Redis promises RDB 11, and its content needs RDB 12 (see the notes): Redis 7.4, which runs there" in r.next
    )
    assert "--undocumented relies on that" in r.next
    assert "Azure Cache for Redis Premium does not take it" in r.next
    assert one(25, bytes(8) + string(b"lp"), b"REDIS0012").lowest_version == 1


def test_what_no_released_server_loads() -> None:
    r = one(29, b"\x05", b"REDIS0014")
    assert set(loads(r).values()) == {"no"}
    r = one(30, string(b"{}"), b"REDIS0009")
    assert set(loads(r).values()) == {"no"}
    assert r.lowest_version is None


def test_a_selection_counts_its_keys_alone() -> None:
    path = FIXTURES / "rich" / "redis-7.0.15.rdb"
    with rdbkit.open(path) as snapshot:
        wanted = [r for r in snapshot if r.type == "hash" and (r.size or 0) < 1000]
    for block_size in (1 << 20, 64):  # records larger than a block are reported in another way
        with rdbkit.open(path, block_size=block_size) as snapshot:
            report = info(snapshot, selection=rdbkit.Selection(types="hash", size=(None, 999)))
        assert report.selected
        assert report.keys == len(wanted) > 1
        assert report.key_bytes == sum(r.size or 0 for r in wanted)
        assert {big.key for big in report.biggest} == {r.key for r in wanted}

"""The commands that `RespWriter` encodes, taken apart by a parser of their own."""

from __future__ import annotations

import io
import math
import tracemalloc
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest

import rdbkit
from rdbkit.operations.commands import COMMAND_BYTES, RespWriter
from rdbkit.policy.ledger import KEPT, Loss
from rdbkit.targets.commands import features
from rdbkit.targets.facts import Fact
from rdbkit.targets.target import Target, find_target
from rdbkit.values import CronJob, PendingEntry, Stream, StreamConsumer, StreamDedup, StreamEntry, StreamGroup, StreamId

from ..encoders import array, cron, hash_expiring, set_dragonfly, signed, stream, zset_binary
from ..rdb import CRC, FIXTURES, aux, key, length, rdb, string

NOW_MS = 1_800_000_000_000
FUTURE_MS = 4_102_444_800_000


def parsed(data: bytes) -> list[list[bytes]]:
    """Arrays of bulk strings, and nothing else."""
    file = io.BytesIO(data)
    found = []
    while line := file.readline():
        assert line[:1] == b"*"
        command = []
        for _ in range(int(line[1:])):
            head = file.readline()
            assert head[:1] == b"$"
            command.append(file.read(int(head[1:])))
            assert file.read(2) == b"\r\n"
        found.append(command)
    return found


def written(data: bytes | Path, writer: RespWriter, block_size: int = 1 << 20) -> list[list[bytes]]:
    source: Any = io.BytesIO(data) if isinstance(data, bytes) else data
    with rdbkit.open(source, block_size=block_size) as snapshot:
        return parsed(b"".join(piece for item in snapshot.events() for piece in writer.commands(item)))


def commands(*parts: bytes, target: str | None = None, **options: Any) -> list[list[bytes]]:
    """What is written of these keys, behind SELECT."""
    writer = RespWriter(target, now_ms=NOW_MS, **options)
    first, *rest = written(rdb(*parts, magic=b"REDIS0014"), writer)
    assert first == [b"SELECT", b"0"]
    return rest


def words(*lines: str) -> list[list[bytes]]:
    return [line.encode().split() for line in lines]


def hash_of(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    pairs = list(fields)
    return length(len(pairs)) + b"".join(string(field) + string(value) for field, value in pairs)


def expiring(fields: dict[bytes, int | None]) -> bytes:
    return key(b"h", 24, hash_expiring({field: (b"v", ms) for field, ms in fields.items()}, Random(0)))


def lost(data: bytes, target: str | None = None) -> list[Loss]:
    """What is lost of a file, which is what an error names where nothing may be."""
    writer = RespWriter(target, on_loss="drop", now_ms=NOW_MS)
    written(data, writer)
    (first, *_) = writer.losses
    with pytest.raises(rdbkit.LossError) as caught:
        written(data, RespWriter(target, now_ms=NOW_MS))
    assert (caught.value.db, caught.value.key) == (first.db, first.key)
    assert first.what in caught.value.message
    return writer.losses


def test_a_database_is_selected_where_it_changes() -> None:
    file = rdb(b"\xfe\x00", key(b"a", 0, string(b"1")), key(b"b", 0, string(b"2")), b"\xfe\x07", key(b"c", 0, string(b"3")))
    assert written(file, RespWriter()) == words("SELECT 0", "SET a 1", "SET b 2", "SELECT 7", "SET c 3")


def test_collections_are_written_in_batches() -> None:
    members = [b"m%d" % i for i in range(5)]
    body = length(5) + b"".join(map(string, members))
    assert commands(key(b"l", 1, body), batch=2) == words("RPUSH l m0 m1", "RPUSH l m2 m3", "RPUSH l m4")
    assert commands(key(b"s", 2, body), batch=4) == words("SADD s m0 m1 m2 m3", "SADD s m4")
    assert commands(key(b"h", 4, hash_of(zip(members, members, strict=True))), batch=3) == words(
        "HSET h m0 m0 m1 m1 m2 m2", "HSET h m3 m3 m4 m4"
    )


def test_scores_are_the_shortest_text_of_the_number() -> None:
    scores = {b"a": 1.0, b"b": 0.1, b"c": math.inf, b"d": -math.inf, b"e": -0.0, b"f": 1e300, b"g": 5e-324}
    (zadd,) = commands(key(b"z", 5, zset_binary(scores, Random(0))))
    assert zadd[:2] == [b"ZADD", b"z"]
    found = dict(zip(zadd[3::2], zadd[2::2], strict=True))
    assert found[b"a"] == b"1"
    assert {member: float(score) for member, score in found.items()} == scores


def test_expiries_come_last_and_fields_by_their_time() -> None:
    fields = {b"a": FUTURE_MS, b"b": None, b"c": FUTURE_MS + 1, b"d": FUTURE_MS}
    hset, *rest = commands(b"\xfc" + signed(FUTURE_MS, 8) + expiring(fields))
    assert hset[:2] == [b"HSET", b"h"]
    assert sorted(hset[2::2]) == [b"a", b"b", b"c", b"d"]
    *fields_expire, key_expires = rest
    assert key_expires == [b"PEXPIREAT", b"h", b"%d" % FUTURE_MS]
    assert {(command[2], frozenset(command[5:])) for command in fields_expire} == {
        (b"%d" % FUTURE_MS, frozenset([b"a", b"d"])),
        (b"%d" % (FUTURE_MS + 1), frozenset([b"c"])),
    }
    for command in fields_expire:
        assert command[:2] == [b"HPEXPIREAT", b"h"]
        assert command[3:5] == [b"FIELDS", b"%d" % len(command[5:])]


def test_a_command_has_at_most_a_megabyte_but_for_a_larger_element() -> None:
    values = [b"x" * n for n in (400_000, 400_000, 400_000, 3_000_000, 10, 10)]
    found = commands(key(b"l", 1, length(len(values)) + b"".join(map(string, values))))
    assert [value for command in found for value in command[2:]] == values
    assert [3_000_000] in [[len(value) for value in command[2:]] for command in found]
    assert all(len(command) == 3 or sum(map(len, command)) <= COMMAND_BYTES + 100 for command in found)
    found = commands(key(b"h", 4, hash_of([(b"f", b"x" * COMMAND_BYTES), (b"g", b"v")])))
    assert [command[2::2] for command in found] == [[b"f"], [b"g"]]


def memory_for_fields(count: int) -> tuple[int, int, int]:
    """Fields, commands, and the most memory that writing them has taken, in bytes."""
    file = io.BytesIO(rdb(key(b"h", 4, hash_of((b"field%d" % i, b"value%d" % i) for i in range(count)))))
    writer = RespWriter()
    fields = made = 0
    tracemalloc.start()
    try:
        with rdbkit.open(file, block_size=4096) as snapshot:
            for item in snapshot.events():
                for piece in writer.commands(item):
                    for command in parsed(piece):
                        fields += len(command[2:]) // 2
                        made += 1
        return fields, made, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_value_larger_than_a_block_is_written_in_bounded_memory() -> None:
    count = 20_000
    memory_for_fields(count)  # what is made once is not counted
    fields, made, peak = memory_for_fields(count)
    assert fields == count
    assert 50 < made < count / 10
    assert peak < 400_000


def test_functions_are_loaded_where_the_target_has_them() -> None:
    source = b"#!lua name=l\nreturn 1"
    file = rdb(b"\xf5" + string(source), magic=b"REDIS0010")
    assert written(file, RespWriter()) == [[b"FUNCTION", b"LOAD", b"REPLACE", source]]
    assert [(loss.kind, loss.db, loss.key) for loss in lost(file, "redis-6.2")] == [("function", None, None)]
    (function,) = (c for c in written(FIXTURES / "rich/redis-7.0-rc1.rdb", RespWriter("valkey-7.2")) if c[0] == b"FUNCTION")
    assert function[3].startswith(b"#!LUA name=mylib\n")


def test_expiries_of_fields_are_lost_where_the_target_has_none() -> None:
    file = rdb(expiring({b"a": FUTURE_MS, b"past": NOW_MS - 1, b"b": None}), magic=b"REDIS0012")
    for target in ("redis-7.2", "valkey-8.1", "redict-7.3"):
        assert [(loss.kind, loss.count, loss.key) for loss in lost(file, target)] == [("field-expiry", 2, b"h")]
    _, hset = written(file, RespWriter("redis-7.2", on_loss="drop", now_ms=NOW_MS))
    assert sorted(hset[2::2]) == [b"a", b"b"]
    assert b"HPEXPIREAT" in {command[0] for command in written(file, RespWriter("valkey-9.0"))}


def test_a_type_that_no_command_makes_is_lost_whole() -> None:
    file = rdb(key(b"j", 64, cron(CronJob(b"return 1", 1, 2, [b"k"], []), Random(0))), key(b"k", 0, string(b"v")))
    assert lost(file) == [Loss("cron", "a key of type cron", 1, 0, b"j")]
    assert written(file, RespWriter(on_loss="drop")) == words("SELECT 0", "SET k v")


def test_streams_are_lost_before_there_were_any() -> None:
    file = rdb(key(b"s", 15, stream(1)(Stream(last_id=StreamId(5, 0)), Random(0))))
    assert [loss.kind for loss in lost(file, "redis-4.0")] == ["stream"]


def test_expiries_of_members_are_lost() -> None:
    keydb = [aux(b"keydb-subexpire-key", b"a"), aux(b"keydb-subexpire-when", b"%d" % FUTURE_MS)]
    large = key(b"s", 2, length(100) + b"".join(string(b"member %d" % i) for i in range(100)))
    for members in (key(b"s", 2, length(1) + string(b"a")), large):
        file = rdb(members, *keydb, key(b"k", 0, string(b"v")))
        writer = RespWriter(on_loss="drop")
        written(file, writer, block_size=64)
        assert [(loss.kind, loss.count, loss.key) for loss in writer.losses] == [("member-expiry", 1, b"s")]
    dragonfly = rdb(key(b"s", 32, set_dragonfly({b"a": FUTURE_MS, b"b": FUTURE_MS, b"c": None}, Random(0))))
    assert [(loss.kind, loss.count) for loss in lost(dragonfly)] == [("member-expiry", 2)]


def test_what_modules_keep_is_lost_but_for_vector_sets() -> None:
    path = FIXTURES / "rich/redis-7.2.6-mod.rdb"
    writer = RespWriter(on_loss="drop")
    written(path, writer)
    assert writer.loss_counts == {"module-aux": 1, "module": 1}
    assert {(loss.kind, loss.key) for loss in writer.losses} == {("module-aux", None), ("module", b"mk")}
    vectors = FIXTURES / "rich/redis-8.0.6.rdb"
    (restore,) = (c for c in written(vectors, RespWriter("redis-8.0"), block_size=16) if c[0] == b"RESTORE")
    with rdbkit.open(vectors) as snapshot:
        raw = next(record.raw for record in snapshot if record.key == b"vs")
    body = b"\x07" + raw + b"\x0c\x00"
    assert restore == [b"RESTORE", b"vs", b"0", body + CRC.calc(body).to_bytes(8, "little")]
    for target in ("redis-7.4", "valkey-9.1"):
        writer = RespWriter(target, on_loss="drop")
        written(vectors, writer)
        assert writer.loss_counts["module"] == 1


def test_metadata_of_a_key_is_lost_with_the_keys_name() -> None:
    writer = RespWriter("redis-8.8", on_loss="drop")
    written(FIXTURES / "rich/redis-8.8-dev-keymeta.rdb", writer)
    (loss,) = (loss for loss in writer.losses if loss.kind == "key-metadata")
    assert loss.key is not None


def test_an_array_with_its_cursor() -> None:
    values: dict[int, bytes | int | float] = {3: b"text", 10: -7, 1 << 40: 1.5}
    file = key(b"a", 28, array((10, values), Random(0)))
    assert commands(file) == words(f"ARMSET a 3 text 10 -7 {1 << 40} 1.5", "ARSEEK a 11")
    assert commands(key(b"a", 28, array((None, values), Random(0))), batch=2) == words(
        "ARMSET a 3 text 10 -7", f"ARMSET a {1 << 40} 1.5"
    )
    whole = rdb(file, magic=b"REDIS0014")
    assert lost(whole, "valkey-9.0") == [Loss("array", "a key of type array", 1, 0, b"a")]
    writer = RespWriter(on_loss="drop")
    assert written(whole, writer, block_size=16)[1][:2] == [b"ARMSET", b"a"]
    assert writer.loss_counts == {"array-cursor": 1}


def entry(ms: int) -> StreamEntry:
    return StreamEntry(StreamId(ms, 0), [(b"f", b"v")])


def a_stream(pending: list[PendingEntry], nacked: list[StreamId], dedup: StreamDedup | None = None) -> Stream:
    owners = {p.consumer for p in pending if p.consumer is not None}
    consumers = [StreamConsumer(name, NOW_MS, NOW_MS) for name in sorted(owners | {b"idle"})]
    return Stream(
        entries=[entry(10), entry(20), entry(30)],
        length=3,
        last_id=StreamId(40, 0),
        first_id=StreamId(10, 0),
        max_deleted_id=StreamId(25, 0),
        entries_added=9,
        groups=[StreamGroup(b"g", StreamId(35, 0), 8, pending, consumers, nacked)],
        dedup=dedup or StreamDedup(100, 100, [], 0, 0),
    )


def pend(ms: int, consumer: bytes | None = b"c", when: int = NOW_MS, count: int = 1) -> PendingEntry:
    return PendingEntry(StreamId(ms, 0), consumer, when, count)


def test_a_stream_with_its_groups() -> None:
    value = a_stream([pend(10), pend(20), pend(30, count=2)], [])
    body = stream(3)(value, Random(0))
    assert commands(key(b"s", 21, body), target="redis-7.0") == words(
        "XADD s 10-0 f v",
        "XADD s 20-0 f v",
        "XADD s 30-0 f v",
        "XSETID s 40-0 ENTRIESADDED 9 MAXDELETEDID 25-0",
        "XGROUP CREATE s g 35-0 ENTRIESREAD 8",
        "XGROUP CREATECONSUMER s g c",
        "XGROUP CREATECONSUMER s g idle",
        f"XCLAIM s g c 0 10-0 20-0 TIME {NOW_MS} RETRYCOUNT 1 FORCE JUSTID",
        f"XCLAIM s g c 0 30-0 TIME {NOW_MS} RETRYCOUNT 2 FORCE JUSTID",
    )
    behind = f"{(1 << 64) - 1}-{(1 << 64) - 2}"
    assert commands(key(b"s", 21, body), target="redis-6.0")[3:7] == words(
        "XSETID s 40-0",
        "XGROUP CREATE s g 35-0",
        f"XREADGROUP GROUP g c COUNT 1 STREAMS s {behind}",
        f"XREADGROUP GROUP g idle COUNT 1 STREAMS s {behind}",
    )


@pytest.mark.parametrize("block_size", [16, 1 << 20])
def test_an_entry_that_is_gone_is_there_while_it_is_claimed(block_size: int) -> None:
    value = a_stream([pend(5), pend(20), pend(25), pend(33)], [])
    file = rdb(key(b"s", 21, stream(3)(value, Random(0))), magic=b"REDIS0011")
    _, *found = written(file, RespWriter("redis-7.2"), block_size)
    ids = [command[2] for command in found if command[0] == b"XADD"]
    assert ids == [b"5-0", b"10-0", b"20-0", b"25-0", b"30-0", b"33-0"]
    assert found[-4:] == words(
        f"XCLAIM s g c 0 5-0 20-0 25-0 33-0 TIME {NOW_MS} RETRYCOUNT 1 FORCE JUSTID",
        "XDEL s 25-0 33-0",
        "XTRIM s MAXLEN 3",
        "XSETID s 40-0 ENTRIESADDED 9 MAXDELETEDID 25-0",
    )


def test_an_empty_stream_is_made() -> None:
    for last_id, first in ((StreamId(0, 0), "0-1"), (StreamId(7, 2), "7-2")):
        made, *rest = commands(key(b"s", 15, stream(1)(Stream(last_id=last_id), Random(0))))
        assert made == [b"XADD", b"s", b"MAXLEN", b"0", first.encode(), b"", b""]
        assert rest == words(f"XSETID s {last_id} ENTRIESADDED 0 MAXDELETEDID 0-0")


def test_what_a_consumer_gave_back() -> None:
    nacked = [StreamId(30, 0), StreamId(10, 0), StreamId(5, 0)]
    value = a_stream([pend(5, None, 0, 2), pend(10, None, 0), pend(20), pend(30, None, 0)], nacked)
    body = key(b"s", 27, stream(5)(value, Random(0)))
    assert [command for command in commands(body, target="redis-8.8") if command[0] == b"XNACK"] == words(
        "XNACK s g FAIL IDS 2 30-0 10-0 RETRYCOUNT 1 FORCE", "XNACK s g FAIL IDS 1 5-0 RETRYCOUNT 2 FORCE"
    )
    (loss,) = lost(rdb(body, magic=b"REDIS0014"), "redis-8.6")
    assert (loss.kind, loss.count) == ("nacked", 3)
    kept = commands(body, target="redis-8.6", on_loss="drop")
    assert [command[5] for command in kept if command[0] == b"XCLAIM"] == [b"20-0"]
    assert b"5-0" not in {command[2] for command in kept}


def test_what_a_stream_remembers_of_its_producers() -> None:
    dedup = StreamDedup(60, 200, [(b"p", [(b"i", StreamId(10, 0)), (b"j", StreamId(20, 0))])], 2, 0)
    body = key(b"s", 26, stream(4)(a_stream([], [], dedup), Random(0)))
    assert [loss.count for loss in lost(rdb(body, magic=b"REDIS0013"))] == [2]
    assert [loss.count for loss in lost(rdb(body, magic=b"REDIS0013"), "redis-8.4")] == [1, 2]
    assert commands(body, on_loss="drop")[-1] == words("XCFGSET s IDMP-DURATION 60 IDMP-MAXSIZE 200")[0]


def test_all_losses_are_counted_and_some_kept() -> None:
    writer = RespWriter(on_loss="drop")
    job = cron(CronJob(b"", 1, 2, [], []), Random(0))
    written(rdb(*[key(b"j%d" % i, 64, job) for i in range(KEPT + 5)]), writer)
    assert writer.loss_counts == {"cron": KEPT + 5}
    assert len(writer.losses) == KEPT


def test_targets() -> None:
    assert "functions" in features(find_target("valkey-7.2"))
    assert "functions" not in features(find_target("keydb-6.3"))
    assert "field-expiry" in features(find_target("valkey-9.1"))
    assert "field-expiry" not in features(find_target("valkey-8.1"))
    assert "create-consumer" in features(find_target("keydb-6.3"))
    assert features(find_target("redis-8.10")) == features(None)
    assert commands(key(b"h", 4, hash_of([(b"f", b"v")])), target="redis-3.2") == words("HMSET h f v")
    for name in ("redis", "redis-six", "memcached-1.6", "redis-7.0.1"):
        with pytest.raises(ValueError, match="no target"):
            RespWriter(name)
    with pytest.raises(ValueError, match=r"Redis 2\.6"):
        RespWriter("redis-2.4")
    with pytest.raises(ValueError, match="on_loss"):
        RespWriter(on_loss="keep")
    with pytest.raises(ValueError, match="at least one"):
        RespWriter(batch=0)


def test_a_service_has_the_commands_of_its_engine() -> None:
    for service, line in (("azure-premium", "redis-6.0"), ("azure-enterprise", "redis-7.2"), ("azure-managed", "redis-7.4")):
        assert features(find_target(service)) == features(find_target(line))
        assert RespWriter(service).features == RespWriter(find_target(service)).features
    managed = find_target("azure-managed")
    assert "functions" not in features(find_target("azure-managed").with_engine("6.0"))
    (loss,) = lost(rdb(expiring({b"f": FUTURE_MS})), "azure-premium")
    assert loss.kind == "field-expiry"
    without = replace(managed, facts={**managed.facts, "functions": Fact(False, "a test", "")})
    assert features(managed) - features(without) == {"functions"}


def test_of_what_it_is_not_known_which_commands_it_has() -> None:
    with pytest.raises(ValueError, match="rdb-9 is a version of the format, which has no commands"):
        RespWriter("rdb-9")
    with pytest.raises(ValueError, match="which commands ours has is not known"):
        RespWriter(Target("ours", "Our server", 9))
    with pytest.raises(TypeError, match="target is a Target or its name"):
        RespWriter(6)  # type: ignore[arg-type]


def test_a_key_in_a_database_that_the_target_lacks_is_lost() -> None:
    # a server refuses SELECT, and what follows goes to the database before
    file = rdb(
        b"\xfe\x00", key(b"a", 0, string(b"1")), b"\xfe\x07", key(b"b", 0, string(b"2")), b"\xfe\x00", key(b"c", 0, string(b"3"))
    )
    (loss,) = lost(file, "azure-managed")
    assert (loss.kind, loss.db, loss.key) == ("database", 7, b"b")
    assert written(file, RespWriter("azure-managed", on_loss="drop")) == words("SELECT 0", "SET a 1", "SET c 3")
    far = rdb(b"\xfe\x3f", key(b"a", 0, string(b"1")), b"\xfe" + length(64), key(b"b", 0, string(b"2")))
    assert [loss.db for loss in lost(far, "azure-premium")] == [64]
    assert written(far, RespWriter("redis-6.0")) == words("SELECT 63", "SET a 1", "SELECT 64", "SET b 2")

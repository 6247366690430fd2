"""`verify-import` against real servers: what is the same is called so, and what was changed is found and explained."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from fixtures.server import RELEASES, Client, free_port, running
from rdbkit.errors import TargetError
from rdbkit.live.server import connect
from rdbkit.live.verify_import import ImportProof, verify_import
from rdbkit.operations.diff_elements import moment
from rdbkit.operations.split import Division, parse_slot_parts, split
from rdbkit.selection import Selection

from ..clock import Clock
from ..processes import until
from ..rdb import FIXTURES, key, rdb, string
from ..storage.blob_server import serving

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
FIELDS_EXPIRE = ("redis-8.0", "valkey-9.1")
FAR = 4_102_444_800_000


def port_of(client: Client) -> str:
    return bytes(client.items("CONFIG", "GET", "port")[1]).decode()  # type: ignore[arg-type]


@contextmanager
def served(line: str, path: Path | str | None = None, conf: list[str] | None = None) -> Iterator[tuple[Client, str]]:
    """A server that has loaded a file, and its URL."""
    with running(SERVERS / line / "redis-server", path, conf or []) as (client, _):
        yield client, f"redis://127.0.0.1:{port_of(client)}"


def checked(files: str | Path | list[str], url: str, **options: Any) -> ImportProof:
    names = [os.fspath(files)] if isinstance(files, str | Path) else files
    with connect(url) as server:
        return verify_import(names, server, **options)


def saved(line: str, commands: list[tuple[Any, ...]], path: Path, conf: list[str] | None = None) -> Path:
    """The file that a server writes after these commands."""
    with running(SERVERS / line / "redis-server", conf=conf or []) as (client, folder):
        client.pipeline(commands)
        client.call("SAVE")
        shutil.copyfile(folder / "dump.rdb", path)
    return path


def found(proof: ImportProof) -> dict[bytes, str]:
    return {each.key: each.what for each in proof.samples}


def details(proof: ImportProof, name: bytes) -> list[str]:
    return next(each.details for each in proof.samples if each.key == name)


def run(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "rdbkit", "verify-import", *arguments], capture_output=True, text=True, **options)


@pytest.mark.parametrize("kind", ["rich", "random"])
@pytest.mark.parametrize("line", RELEASES)
def test_what_a_server_has_loaded_is_the_same(line: str, kind: str) -> None:
    path = FIXTURES / kind / f"{RELEASES[line]}.rdb"
    with served(line, path) as (_, url):
        for options in ({}, {"block_size": 64}, {"batch": 3, "find_extra": True}):
            proof = checked(path, url, ttl_tolerance_ms=0 if line != "redis-6.0" else 1000, **options)
            assert proof.same, proof
            assert proof.checked == proof.keys == proof.equal + proof.not_compared
            assert [row.server for row in proof.databases] == [row.keys for row in proof.databases]
            assert proof.version is not None
            assert line.split("-")[0] in proof.version


BEFORE: list[tuple[Any, ...]] = [
    ("SET", "same", "1"), ("SET", "gone", "1"), ("SET", "other-type", "1"), ("SET", "string", "hello world"),
    ("SET", "longer", "12"),
    ("SET", "shorter", "123"), ("SET", "sooner", "1"), ("PEXPIREAT", "sooner", FAR), ("SET", "persistent", "1"),
    ("PEXPIREAT", "persistent", FAR), ("SET", "expiring", "1"), ("SET", "near", "1"), ("PEXPIREAT", "near", FAR),
    ("RPUSH", "list", *range(3000)), ("RPUSH", "list-longer", 1, 2), ("RPUSH", "list-shorter", 1, 2, 3),
    ("SADD", "set", *(f"m{i}" for i in range(1500))), ("SADD", "set-more", "a"), ("SADD", "set-int", 1, 2, 3),
    ("ZADD", "zset", 1, "a", 2.5, "b", "inf", "c"), ("ZADD", "zset-less", 1, "a", 2, "b"),
    ("HSET", "hash", "f", "v", "g", "w"), ("HSET", "hash-more", "f", "v"), ("HSET", "hash-less", "f", "v", "g", "w"),
    ("XADD", "stream", "1-1", "f", "v"), ("XADD", "stream", "2-1", "f", "v", "f", "w"), ("XADD", "stream", "3-1", "f", "v"),
    ("XGROUP", "CREATE", "stream", "group", "0"), ("XREADGROUP", "GROUP", "group", "c", "COUNT", 2, "STREAMS", "stream", ">"),
    ("XADD", "entries", "1-1", "f", "v"), ("XADD", "entries", "2-1", "f", "v"), ("XADD", "entry", "1-1", "f", "v"),
    ("XADD", "last", "1-1", "f", "v"), ("XADD", "group-gone", "1-1", "f", "v"), ("XGROUP", "CREATE", "group-gone", "g", "0"),
    ("XADD", "group-new", "1-1", "f", "v"), ("XADD", "consumer", "1-1", "f", "v"), ("XGROUP", "CREATE", "consumer", "g", "0"),
    ("XADD", "group-id", "1-1", "f", "v"), ("XGROUP", "CREATE", "group-id", "g", "0"),
    ("SELECT", 5), ("SET", "fifth", "1"), ("SELECT", 0),
]  # fmt: skip
AFTER: list[tuple[Any, ...]] = [
    ("DEL", "gone"), ("DEL", "other-type"), ("RPUSH", "other-type", 1), ("SETRANGE", "string", 6, "W"), ("APPEND", "longer", "3"),
    ("SET", "shorter", "12"), ("PEXPIREAT", "sooner", FAR - 5000), ("PERSIST", "persistent"), ("PEXPIREAT", "expiring", FAR),
    ("PEXPIREAT", "near", FAR - 900), ("LSET", "list", 2345, "x"), ("RPUSH", "list-longer", 3), ("RPOP", "list-shorter"),
    ("SREM", "set", "m7"), ("SADD", "set", "new"), ("SADD", "set-more", "b"), ("SREM", "set-int", 3), ("ZADD", "zset", 2.25, "b"),
    ("ZREM", "zset-less", "b"), ("HSET", "hash", "g", "x" * 200), ("HSET", "hash-more", "g", "w"), ("HDEL", "hash-less", "g"),
    ("XACK", "stream", "group", "1-1"), ("XDEL", "entries", "1-1"), ("XDEL", "entry", "1-1"), ("XADD", "entry", "2-1", "f", "v"),
    ("XDEL", "entry", "2-1"), ("XADD", "entry", "5-1", "f", "v"), ("XADD", "last", "9-9", "f", "v"), ("XDEL", "last", "9-9"),
    ("XGROUP", "DESTROY", "group-gone", "g"), ("XGROUP", "CREATE", "group-new", "g", "0"),
    ("XREADGROUP", "GROUP", "g", "c", "STREAMS", "consumer", ">"), ("XGROUP", "SETID", "group-id", "g", "1-1"),
    ("SET", "new", "1"), ("SET", "newer", "1"), ("SELECT", 5), ("FLUSHDB",), ("SELECT", 0),
]  # fmt: skip


@pytest.fixture(scope="module", params=["redis-6.0", "redis-7.0", "redis-8.0", "valkey-9.1"])
def changed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path, str]]:
    """A server whose data was changed after its file was written."""
    line: str = request.param
    before, after = list(BEFORE), list(AFTER)
    if line in FIELDS_EXPIRE:
        for name in ("field-expiry", "field-persistent", "field-near", "field-expiring"):
            before.append(("HSET", name, "f", "v", "g", "w"))
        for name in ("field-expiry", "field-persistent", "field-near"):
            before.append(("HPEXPIREAT", name, FAR, "FIELDS", 1, "f"))
        after += [
            ("HPEXPIREAT", "field-expiry", FAR - 5000, "FIELDS", 1, "f"), ("HPERSIST", "field-persistent", "FIELDS", 1, "f"),
            ("HPEXPIREAT", "field-near", FAR - 900, "FIELDS", 1, "f"), ("HPEXPIREAT", "field-expiring", FAR, "FIELDS", 1, "g"),
        ]  # fmt: skip
    path = saved(line, before, tmp_path_factory.mktemp("changed") / "dump.rdb")
    with served(line, path) as (client, url):
        assert checked(path, url, find_extra=True).same
        client.pipeline(after)
        yield line, path, url


EXPECTED = {
    b"gone": "missing", b"fifth": "missing", b"other-type": "type", b"sooner": "expire", b"persistent": "expire",
    b"expiring": "expire", b"new": "extra", b"newer": "extra",
    **dict.fromkeys((
        b"string", b"longer", b"shorter", b"list", b"list-longer", b"list-shorter", b"set", b"set-more", b"set-int", b"zset",
        b"zset-less", b"hash", b"hash-more", b"hash-less", b"stream", b"entries", b"entry", b"last", b"group-gone", b"group-new",
        b"consumer", b"group-id",
    ), "value"),
}  # fmt: skip


@pytest.mark.parametrize("block_size", [None, 64])
def test_every_change_is_found_and_explained(changed: tuple[str, Path, str], block_size: int | None) -> None:
    line, path, url = changed
    proof = checked(path, url, samples=100, find_extra=True, block_size=block_size)
    fields = dict.fromkeys((b"field-expiry", b"field-persistent", b"field-expiring") if line in FIELDS_EXPIRE else (), "value")
    assert found(proof) == EXPECTED | fields
    assert not proof.same
    assert (proof.missing, proof.type, proof.expire, proof.extra, proof.refused) == (2, 1, 3, 2, 0)
    assert proof.equal == (3 if line in FIELDS_EXPIRE else 2)  # same, near, and field-near
    assert proof.value == len(EXPECTED) - 8 + len(fields)
    assert proof.checked == proof.keys
    assert [(row.db, row.missing) for row in proof.databases] == [(0, 1), (5, 1)]
    by_name = {each.key: each for each in proof.samples}
    assert by_name[b"other-type"].types == ("string", "list")
    assert by_name[b"persistent"].expire_ms == (FAR, None)
    assert by_name[b"expiring"].expire_ms[0] is None
    assert abs((by_name[b"sooner"].expire_ms[1] or 0) - FAR + 5000) < 1000
    assert by_name[b"fifth"].db == 5
    assert by_name[b"gone"].file == str(path)
    assert details(proof, b"string")[0].endswith("b'world' and b'World'") or block_size
    assert "byte 6 of" in details(proof, b"string")[0]
    assert details(proof, b"list") == ["element 2,345: b'2345' and b'x'"]
    assert details(proof, b"list-longer") == ["2 and 3 elements"]
    assert details(proof, b"list-shorter")[-1] == "element 2: b'3' and none"
    assert details(proof, b"set") == ["member: b'm7' and none"]
    assert details(proof, b"set-more") == ["1 and 2 elements"]
    assert details(proof, b"zset") == ["b'b': 2.5 and 2.25"]
    assert details(proof, b"hash") == [f"b'g': b'w' and b'{'x' * 60}'... (200 bytes)"]
    assert "b'g': b'w' and none" in details(proof, b"hash-less")
    assert details(proof, b"stream") == ["group b'group': its pending entries differ, such as 1-1"]
    assert any("in place of 1-1" in text for text in details(proof, b"entry"))
    assert details(proof, b"last") == ["last id: 1-1 and 9-9"]
    assert details(proof, b"group-gone") == ["group b'g': missing"]
    assert details(proof, b"group-new") == ["group b'g': extra"]
    assert "group b'g', consumer b'c': extra" in details(proof, b"consumer")
    assert details(proof, b"group-id") == ["group b'g', last id: 0-0 and 1-1"]
    if fields:
        assert details(proof, b"field-expiry") == [f"expiry of b'f': {moment(FAR)} and {moment(FAR - 5000)}"]
        assert details(proof, b"field-persistent") == [f"expiry of b'f': {moment(FAR)} and never"]


def test_a_number_of_keys_that_is_too_large_is_a_difference(tmp_path: Path) -> None:
    path = saved("redis-7.0", [("SET", f"k{i}", i) for i in range(50)], tmp_path / "a.rdb")
    with served("redis-7.0", path) as (client, url):
        client.call("SET", "new", 1)
        proof = checked(path, url)
        assert (proof.extra, proof.same, proof.different) == (1, False, 0)
        assert checked(path, url, selection=Selection(prefixes=b"k1")).same  # numbers tell nothing then
        client.call("DEL", "k1", "k2", "k3")
        proof = checked(path, url, find_extra=True)
        assert (proof.extra, proof.missing) == (1, 3)
        proof = checked(path, url)
        assert (proof.extra, proof.missing) == (1, 3)
        # a sample that does not meet one of them, and yet the number of keys tells
        proof = next(p for seed in range(100) if not (p := checked(path, url, pick=2, seed=seed)).missing)
        assert (proof.databases[0].fewer, proof.same) == (2, False)
        assert proof.notes == ["database 0: the server has 2 keys fewer than those of the files that live"]


def test_what_has_expired_is_no_difference(tmp_path: Path) -> None:
    now = time.time_ns() // 1_000_000
    past = [key(b"past%d" % i, 0, string(b"v"), now - 1000) for i in range(3)]
    soon = [key(b"soon%d" % i, 0, string(b"v"), now + 700) for i in range(4)]
    path = tmp_path / "a.rdb"
    path.write_bytes(rdb(b"\xfe\0", *past, *soon, key(b"stays", 0, string(b"v")), key(b"later", 0, string(b"v"), FAR)))
    with served("redis-7.0", path) as (client, url):
        while time.time_ns() // 1_000_000 < now + 900:
            time.sleep(0.05)
        proof = checked(path, url, ttl_tolerance_ms=0)
        assert proof.same, proof
        assert (proof.expired, proof.equal, proof.databases[0].expired) == (7, 2, 7)
        client.call("SET", "past1", "v")  # one that is back is none that has expired
        proof = checked(path, url, ttl_tolerance_ms=0)
        assert found(proof) == {b"past1": "expire"}
        client.call("DEL", "later")
        proof = checked(path, url, ttl_tolerance_ms=0)
        assert found(proof)[b"later"] == "missing"


def test_fields_that_have_expired_are_no_difference(tmp_path: Path) -> None:
    soon = time.time_ns() // 1_000_000 + 1500
    commands: list[tuple[Any, ...]] = [("HSET", name, "f", 1, "g", 2) for name in ("one", "all")]
    commands += [("HPEXPIREAT", "one", soon, "FIELDS", 1, "f"), ("HPEXPIREAT", "all", soon, "FIELDS", 2, "f", "g")]
    for line in FIELDS_EXPIRE:
        path = saved(line, commands, tmp_path / f"{line}.rdb")
        with served(line, path) as (client, url):
            for block_size in (None, 16):
                assert checked(path, url, block_size=block_size, ttl_tolerance_ms=100).same
            while time.time_ns() // 1_000_000 < soon + 200:
                time.sleep(0.05)
            for block_size in (None, 16):
                proof = checked(path, url, block_size=block_size, ttl_tolerance_ms=100)
                assert proof.same, proof
                assert (proof.equal, proof.expired) == (1, 1)
            client.call("HSET", "one", "f", 3)
            assert found(checked(path, url, ttl_tolerance_ms=100)) == {b"one": "value"}
        soon += 3000
        commands[2:] = [("HPEXPIREAT", "one", soon, "FIELDS", 1, "f"), ("HPEXPIREAT", "all", soon, "FIELDS", 2, "f", "g")]


@pytest.mark.parametrize("block_size", [None, 64])
@pytest.mark.parametrize("removes", [True, False], ids=["removed", "kept"])
@pytest.mark.parametrize("line", FIELDS_EXPIRE)
def test_a_field_in_no_file_is_found_among_those_that_have_expired(
    line: str, removes: bool, block_size: int | None, tmp_path: Path
) -> None:
    soon = time.time_ns() // 1_000_000 + 2500
    many = [part for i in range(2500) for part in (f"f{i}", "v")]
    commands: list[tuple[Any, ...]] = [("HSET", name, "a", 1, "b", 2) for name in ("one", "more", "back", "all")]
    commands += [("HSET", name, *many) for name in ("large", "larger")]
    commands += [("HPEXPIREAT", name, soon, "FIELDS", 1, "a") for name in ("one", "more", "back")]
    commands.append(("HPEXPIREAT", "all", soon, "FIELDS", 2, "a", "b"))
    commands += [("HPEXPIREAT", name, soon, "FIELDS", 3, "f1", "f2000", "f2499") for name in ("large", "larger")]
    path = saved(line, commands, tmp_path / "a.rdb")
    with served(line, path, ["enable-debug-command yes"]) as (client, url):
        if not removes:
            client.call("DEBUG", "SET-ACTIVE-EXPIRE", 0)
        assert checked(path, url, block_size=block_size, ttl_tolerance_ms=100).same
        while time.time_ns() // 1_000_000 < soon + 300:
            time.sleep(0.05)
        proof = checked(path, url, block_size=block_size, ttl_tolerance_ms=100)
        assert proof.same, proof
        client.pipeline([("HSET", "more", "c", "new"), ("HSET", "back", "a", 1), ("HSET", "larger", "new", 1)])
        # also within the tolerance, where nobody can tell whether a field should be there
        for tolerance in (100, 3_600_000):
            proof = checked(path, url, block_size=block_size, ttl_tolerance_ms=tolerance)
            assert found(proof) == dict.fromkeys((b"more", b"back", b"larger"), "value")
            assert details(proof, b"more") == ["1 and 2 elements"]
            assert details(proof, b"back") == [f"expiry of b'a': {moment(soon)} and never"]
            assert details(proof, b"larger") == ["2,497 and 2,498 elements"]


def test_vector_sets_are_compared_where_the_bytes_are_the_same(tmp_path: Path) -> None:
    commands: list[tuple[Any, ...]] = [("VADD", f"v{i}", "VALUES", 2, i, 2.5, "e") for i in range(3)]
    path = saved("redis-8.0", commands, tmp_path / "a.rdb")
    with served("redis-8.0", path) as (client, url):
        proof = checked(path, url)
        assert proof.same
        assert proof.equal + proof.not_compared == 3
        client.call("VADD", "v1", "VALUES", 2, 7, 7, "other")
        client.call("DEL", "v2")
        client.call("SET", "v2", 1)
        proof = checked(path, url)
        assert proof.not_compared >= 1
        assert found(proof) == {b"v2": "type"}


def test_large_values_take_little_memory(tmp_path: Path) -> None:
    noise = random.Random(1)
    commands: list[tuple[Any, ...]] = [("SET", "string", noise.randbytes(64 << 20))]
    for at in range(0, 100_000, 2000):
        commands.append(("RPUSH", "list", *(noise.randbytes(100) for _ in range(2000))))
        commands.append(("HSET", "hash", *(noise.randbytes(50) for _ in range(4000))))
        commands.append(("SADD", "set", *(noise.randbytes(50) for _ in range(2000))))
        commands.append(("ZADD", "zset", *(part for i in range(2000) for part in (at + i, noise.randbytes(50)))))
    commands += [("XADD", "stream", f"{i}-1", "f", noise.randbytes(200)) for i in range(1, 30_001)]
    commands += [
        ("XGROUP", "CREATE", "stream", "g", 0),
        ("XREADGROUP", "GROUP", "g", "c", "COUNT", 25_000, "STREAMS", "stream", ">"),
    ]
    path = saved("redis-8.0", commands, tmp_path / "a.rdb", ["rdbcompression no"])
    assert path.stat().st_size > 100 << 20
    with served("redis-8.0", path) as (client, url):
        done = run(str(path), url, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        assert json.loads(done.stdout)["equal"] == 6
        code = "import runpy\ntry: runpy.run_module('rdbkit', run_name='__main__')\nexcept SystemExit: pass\n"
        code += "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
        done = subprocess.run([sys.executable, "-c", code, "verify-import", str(path), url], capture_output=True, text=True)
        assert int(done.stdout.split()[-1]) < 80 << 10, done.stdout
        field = client.text("HRANDFIELD", "hash").encode("latin-1")
        client.pipeline([
            ("SETRANGE", "string", 50 << 20, "changed"), ("LSET", "list", 77_777, "x"), ("ZINCRBY", "zset", 1, "new"),
            ("HDEL", "hash", field), ("SADD", "set", "new"), ("XDEL", "stream", "29999-1"),
        ])  # fmt: skip
        proof = checked(path, url)
        assert found(proof) == dict.fromkeys((b"string", b"list", b"zset", b"hash", b"set", b"stream"), "value")
        assert f"byte {50 << 20:,} of {64 << 20:,} on the server" in details(proof, b"string")[0]
        assert details(proof, b"list")[0].startswith("element 77,777")
        assert details(proof, b"stream")[0].startswith("entry 30000-1 in place of 29999-1")


# -- clusters


@contextmanager
def cluster(files: list[Path], ranges: list[tuple[int, int]], tmp_path: Path, conf: tuple[str, ...] = ()) -> Iterator[list[Client]]:
    """Nodes that know each other, each with its slots and the file of them."""
    with ExitStack() as stack:
        nodes = []
        for i, (file, (first, last)) in enumerate(zip(files, ranges, strict=True), 1):
            config = tmp_path / f"nodes{i}.conf"
            text = f"{f'{i}a' * 20} :0@0 myself,master - 0 0 {i} connected {first}-{last}\nvars currentEpoch {i} lastVoteEpoch 0\n"
            config.write_text(text)
            lines = ["cluster-enabled yes", f"cluster-config-file {config}", "cluster-require-full-coverage no", *conf]
            nodes.append(stack.enter_context(running(SERVERS / "redis-7.0" / "redis-server", file, lines))[0])
        for node in nodes[1:]:
            nodes[0].call("CLUSTER", "MEET", "127.0.0.1", port_of(node))
        for node in nodes:
            for _ in range(300):
                if "cluster_state:ok" in node.text("CLUSTER", "INFO") and len(node.items("CLUSTER", "SLOTS")) == len(nodes):
                    break
                time.sleep(0.05)
        yield nodes


def owns(node: Client, slot: int) -> bool:
    rows: list[Any] = node.items("CLUSTER", "SLOTS")
    return any(first <= slot <= last and owner[1] == int(port_of(node)) for first, last, owner, *_ in rows)


def test_the_shards_of_a_cluster_are_looked_for_in_all_its_nodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = saved("redis-7.0", [("SET", f"k{i}", i) for i in range(3000)], tmp_path / "source.rdb")
    done = split([str(source)], str(tmp_path / "parts"), Division(slots=parse_slot_parts("0-5460,5461-10922,10923-16383")))
    files = [tmp_path / "parts" / part.file for part in done.parts]
    with cluster(files, [(0, 5460), (5461, 10922), (10923, 16383)], tmp_path) as nodes:
        url = f"redis://127.0.0.1:{port_of(nodes[1])}"
        names = [str(file) for file in files]
        proof = checked(names, url, find_extra=True)
        assert proof.kind == "cluster"
        assert proof.same, proof
        assert (proof.equal, proof.databases[0].keys, proof.databases[0].server) == (3000, 3000, 3000)
        assert checked(source, url).same
        # one node alone does not have the others' keys, and says so
        with connect(url, cluster="no") as server:
            proof = verify_import(names, server)
            assert 0 < proof.equal < 3000
            assert proof.refused == 3000 - proof.equal
            assert proof.samples[0].details[0].startswith("MOVED")

        # a slot on its way from one node to the next: half of its keys are here, half there
        slot = nodes[0].integer("CLUSTER", "KEYSLOT", "k1")
        nodes.sort(key=lambda node: not owns(node, slot))
        ids = [node.text("CLUSTER", "MYID") for node in nodes]
        nodes[1].call("CLUSTER", "SETSLOT", slot, "IMPORTING", ids[0])
        nodes[0].call("CLUSTER", "SETSLOT", slot, "MIGRATING", ids[1])
        nodes[0].call("MIGRATE", "127.0.0.1", port_of(nodes[1]), "k1", 0, 5000)
        assert checked(names, url).same
        with connect(url) as server:
            # the slot arrives after it was asked where it is
            for node in (nodes[1], nodes[0], nodes[2]):
                node.call("CLUSTER", "SETSLOT", slot, "NODE", ids[1])
            assert verify_import(names, server).same

        # all keys of a database in the file are in the only one of the cluster
        other = saved("redis-7.0", [("SELECT", 2), ("SET", "k5", 5)], tmp_path / "other.rdb")
        proof = checked(other, url)
        assert proof.refused == 1
        assert "database" in proof.samples[0].details[0].lower() or "cluster" in proof.samples[0].details[0].lower()
        assert checked(other, url, db_map={2: 0}, selection=Selection(prefixes=b"k")).same
        assert checked(other, f"{url}/0", selection=Selection(prefixes=b"k")).same

        slot = next(slot for i in range(3000) if owns(nodes[2], slot := nodes[2].integer("CLUSTER", "KEYSLOT", f"k{i}")))
        nodes[2].call("CLUSTER", "DELSLOTS", slot)
        with connect(f"redis://127.0.0.1:{port_of(nodes[2])}") as server:
            proof = verify_import(names, server)
            assert 0 < proof.refused < 20
            assert proof.samples[0].details == [f"CLUSTERDOWN no node has slot {slot}"]


def test_a_database_is_looked_for_where_it_was_moved(tmp_path: Path) -> None:
    commands: list[tuple[Any, ...]] = [("SET", "a", 1), ("SELECT", 3), ("SET", "b", 2)]
    path = saved("redis-7.0", commands, tmp_path / "a.rdb")
    with served("redis-7.0") as (client, url):
        client.pipeline([("SET", "a", 1), ("SET", "b", 2)])
        assert checked(path, url).missing == 1
        proof = checked(path, url, db_map={3: 0})
        assert proof.same
        assert [(row.db, row.keys, row.server) for row in proof.databases] == [(0, 2, 2)]
        assert checked(path, f"{url}/0", find_extra=True).same
        assert verify_import(path, f"{url}/0").same, "a path and a URL will do"
        with connect(f"{url}/0") as server, pytest.raises(ValueError, match="leave it out"):
            verify_import([str(path)], server, db_map={3: 0})
        proof = checked(path, url, db_map={3: 99})
        assert (proof.refused, proof.equal) == (1, 1)
        assert "out of range" in proof.samples[0].details[0]


def test_functions_are_compared(tmp_path: Path) -> None:
    def library(name: str, reply: int) -> tuple[str, ...]:
        return "FUNCTION", "LOAD", "REPLACE", f"#!lua name={name}\nredis.register_function('{name}', function() return {reply} end)"

    path = saved("redis-7.0", [("SET", "a", 1), library("one", 1), library("two", 2)], tmp_path / "a.rdb")
    with served("redis-7.0", path) as (client, url):
        proof = checked(path, url)
        assert proof.same
        assert (proof.libraries, proof.functions) == (2, [])
        client.pipeline([library("one", 3), ("FUNCTION", "DELETE", "two"), library("three", 3)])
        proof = checked(path, url)
        assert not proof.same
        assert [(each.what, each.name) for each in proof.functions] == [("changed", "one"), ("extra", "three"), ("missing", "two")]
        assert proof.equal == proof.keys == 1
        assert checked(path, url, ignore_functions=True).same
        assert checked(path, url, selection=Selection(types=["string"])).same
        told = subprocess.run([sys.executable, "-m", "rdbkit", "verify-import", path, url], capture_output=True, text=True)
        assert told.returncode == 1
        lines = ["another source  one", "in no file      three", "missing         two"]
        assert [line.strip() for line in told.stdout.splitlines()[-3:]] == lines
        quiet = subprocess.run([*told.args, "--ignore", "functions"], capture_output=True, text=True)
        assert quiet.returncode == 0
    with served("redis-6.0") as (client, url):
        client.call("SET", "a", 1)
        assert [each.what for each in checked(path, url).functions] == ["missing", "missing"]


# -- who may ask, and how


def test_only_commands_that_read_are_sent(tmp_path: Path) -> None:
    path = FIXTURES / "rich" / "redis-8.0.6.rdb"
    with served("redis-8.0", path) as (client, url):
        client.call("ACL", "SETUSER", "reader", "on", ">s3cret", "~*", "+@read", "+@connection")
        place = url.replace("redis://", "redis://reader:s3cret@")
        client.call("CONFIG", "RESETSTAT")
        proof = checked(path, place, find_extra=True)
        assert proof.same, proof
        (note,) = proof.notes
        assert note.startswith("function libraries were not compared: NOPERM")
        client.call("ACL", "SETUSER", "reader", "+function|list")
        proof = checked(path, place)
        assert proof.same, proof
        assert (proof.libraries, proof.notes) == (1, [])
        stats = client.text("INFO", "commandstats")
        writes = {bytes(name).decode() for name in client.items("ACL", "CAT", "write")}  # type: ignore[arg-type]
        used = {line.split(":")[0].removeprefix("cmdstat_") for line in stats.splitlines() if ",failed_calls=0" in line}
        assert {"hmget", "getrange", "dbsize", "scan", "xrange"} <= used
        assert not used & writes
        # what it may not see is said to be refused, not to be missing
        client.call("ACL", "SETUSER", "reader", "resetkeys", "~s*", "-hget", "-smismember")
        proof = checked(path, place, samples=100)
        assert proof.missing == 0
        assert proof.refused
        assert proof.refused + proof.equal + proof.not_compared == proof.checked
        assert any("s3cret" not in str(each.details) and "permission" in str(each.details).lower() for each in proof.samples)


def test_passwords_come_by_every_way_and_are_never_told(tmp_path: Path) -> None:
    path = saved("redis-7.0", [("SET", "a", 1)], tmp_path / "a.rdb")
    (tmp_path / "password").write_text("s3cret\nmore\n")
    (tmp_path / "wrong").write_text("wr0ng\n")
    with served("redis-7.0", path) as (client, url):
        port = url.rpartition(":")[2]
        client.call("CONFIG", "SET", "requirepass", "s3cret")
        client.call("AUTH", "s3cret")
        for code, arguments, variable in (
            (0, [f"redis://:s3cret@127.0.0.1:{port}"], ""),
            (0, [url, "--password-file", str(tmp_path / "password")], ""),
            (0, [url], "s3cret"),
            (4, [url], ""),
            (4, [url], "wr0ng"),
            (4, [url, "--password-file", str(tmp_path / "wrong")], "s3cret"),
            (4, [f"redis://nobody:wr0ng@127.0.0.1:{port}"], "s3cret"),
        ):
            environment = {k: v for k, v in os.environ.items() if k != "RDBKIT_REDIS_PASSWORD"}
            if variable:
                environment["RDBKIT_REDIS_PASSWORD"] = variable
            done = run(str(path), *arguments, "--state", str(tmp_path / "state"), env=environment)
            assert done.returncode == code, (arguments, done.stdout, done.stderr)
            assert "s3cret" not in done.stdout + done.stderr
            assert "wr0ng" not in done.stdout + done.stderr
            assert len(done.stderr.splitlines()) == (1 if code else 0)


def test_without_a_password_the_ways_to_give_one_are_told(tmp_path: Path) -> None:
    with served("redis-7.0") as (client, url):
        client.call("CONFIG", "SET", "requirepass", "s3cret")
        with pytest.raises(TargetError, match=r"wants a password: --password-file or RDBKIT_REDIS_PASSWORD, or --entra$"):
            connect(url)
        with pytest.raises(TargetError, match=r"\*\*\*@127.*this user in without a password: --password-file or RDBKIT_REDIS") as e:
            connect(url.replace("//", "//maybe-a-password@"))
        assert "maybe-a-password" not in str(e.value)
        with pytest.raises(TargetError, match="invalid username-password pair or user is disabled; check user and password"):
            connect(url, password="wrong")


def test_who_may_not_connect_is_told_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

        def answer() -> None:
            with listener.accept()[0] as peer:
                peer.sendall(b"-DENIED Redis is running in protected mode\r\n")
                peer.recv(100)

        with ThreadPoolExecutor(1) as pool:
            pool.submit(answer)
            with pytest.raises(TargetError, match="refuses connections from here: Redis is running in protected mode"):
                connect(f"redis://127.0.0.1:{port}")


def test_a_token_is_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved("redis-7.0", [("SET", f"k{i}", i) for i in range(1000)], tmp_path / "a.rdb")
    with served("redis-7.0", path) as (client, url):
        given: list[str] = []

        def credentials() -> tuple[str | None, str]:
            given.append(f"token{len(given)}")
            client.call("ACL", "SETUSER", "oid", "on", "resetpass", f">{given[-1]}", "~*", "+@all")
            return "oid", given[-1]

        monkeypatch.setattr("rdbkit.live.login._LOOK_S", 0.0)
        with connect(url, credentials=credentials) as server:
            assert verify_import([str(path)], server, batch=100).equal == 1000
        assert len(given) > 10


def certificate(folder: Path, names: str) -> tuple[Path, Path]:
    cert, private = folder / "cert.pem", folder / "key.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    command += ["-subj", "/CN=throw-away", "-addext", f"subjectAltName={names}", "-keyout", str(private), "-out", str(cert)]
    subprocess.run(command, check=True, capture_output=True)
    return cert, private


def test_tls_is_verified_against_the_name_that_was_given(tmp_path: Path) -> None:
    path = saved("redis-7.0", [("SET", f"k{i}", i) for i in range(100)], tmp_path / "a.rdb")
    cert, private = certificate(tmp_path, "DNS:localhost")
    port = free_port()
    tls = [
        f"tls-port {port}",
        f"tls-cert-file {cert}",
        f"tls-key-file {private}",
        "tls-auth-clients no",
        f"tls-ca-cert-file {cert}",
    ]
    # as Azure's nodes do, it goes by its IP address, for which it has no certificate
    nodes = tmp_path / "nodes.conf"
    nodes.write_text(f"{'ab' * 20} :0@0 myself,master - 0 0 1 connected 0-16383\nvars currentEpoch 1 lastVoteEpoch 0\n")
    azure = ["cluster-enabled yes", f"cluster-config-file {nodes}", "tls-cluster yes", "cluster-announce-ip 127.0.0.1"]
    for conf, kind in (([], "standalone"), (azure, "cluster")):
        with served("redis-7.0", path, [*tls, *conf]) as (client, _):
            for _ in range(300):
                if kind == "standalone" or "cluster_state:ok" in client.text("CLUSTER", "INFO"):
                    break
                time.sleep(0.05)
            with connect(f"rediss://localhost:{port}", ca_cert=str(cert)) as server:
                proof = verify_import([str(path)], server)
                assert proof.same, proof
                assert proof.kind == kind
                if kind == "cluster":
                    assert [node[0] for node in server.masters()] == ["127.0.0.1"]
            for url, options in (
                (f"rediss://127.0.0.1:{port}", {"ca_cert": str(cert)}),
                (f"rediss://localhost:{port}", {}),
            ):
                with pytest.raises(TargetError, match="certificate is not trusted"):
                    connect(url, **options)  # type: ignore[arg-type]
            done = run(str(path), f"rediss://127.0.0.1:{port}", "--no-verify-tls")
            assert done.returncode == 0
            assert "not verified" in done.stderr
            for place in (f"redis://127.0.0.1:{port}", f"redis://me:s3cret@127.0.0.1:{port}"):
                with pytest.raises(
                    TargetError, match="the server closed the connection at once; the port may want TLS: write rediss://"
                ):
                    connect(place)


def test_tls_is_asked_for_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdbkit.live.connection._HANDSHAKE_S", 0.5)
    said = r"no TLS from 127\.0\.0\.1:\d+.*; for a port without TLS, write redis://"
    # it waits for the rest of a command, or answers with an error
    with served("redis-7.0") as (_, url), pytest.raises(TargetError, match=said):
        connect(url.replace("redis://", "rediss://"))
    with socket.create_server(("127.0.0.1", 0)) as listener:  # nobody answers
        port = listener.getsockname()[1]
        with pytest.raises(TargetError, match=f"no TLS from 127.0.0.1:{port}; for a port without TLS, write redis://"):
            connect(f"rediss://127.0.0.1:{port}")
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: listener.accept()[0].close())
            with pytest.raises(TargetError, match=r"no TLS from .*; for a port without TLS"):
                connect(f"rediss://127.0.0.1:{port}")


def test_what_answers_is_no_server_of_redis() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with listener.accept()[0] as peer:
                peer.recv(100)
                peer.sendall(b"\x15\x03\x01\0\x02\x02\x16\r\n")  # the alert of TLS

        with ThreadPoolExecutor(1) as pool:
            pool.submit(answer)
            with pytest.raises(TargetError, match="not a Redis server; the port may want TLS: write rediss://"):
                connect(f"redis://127.0.0.1:{listener.getsockname()[1]}")


# -- what breaks


def test_a_broken_connection_is_opened_again(tmp_path: Path) -> None:
    path = saved("redis-7.0", [("SET", f"k{i}", i) for i in range(1000)], tmp_path / "a.rdb")
    with served("redis-7.0", path) as (client, url):
        proof = checked(path, url, batch=100, progress=lambda _: client.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"))
        assert proof.same
        assert proof.equal == 1000


def test_a_server_that_is_lost_is_told_and_the_work_goes_on_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdbkit.live.server.WAITS", (0.01, 0.01))
    monkeypatch.setattr("rdbkit.live.verify_import._SAVE_S", 0.0)
    path = saved("redis-7.0", [("SET", f"k{i}", i) for i in range(1000)], tmp_path / "a.rdb")
    state = str(tmp_path / "state.json")
    calls = 0

    def stop(_: int) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            with pytest.raises(ConnectionError):
                client.call("SHUTDOWN", "NOSAVE")

    with served("redis-7.0", path) as (client, url), pytest.raises(TargetError, match="with --state it goes on"):
        checked(path, url, batch=100, state=state, progress=stop)
    assert json.loads(Path(state).read_text())["saved"]["counts"]["equal"] == 300


def test_what_was_interrupted_goes_on_with_the_same_totals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdbkit.live.verify_import._SAVE_S", 0.0)
    commands: list[tuple[Any, ...]] = [("SET", f"k{i}", i) for i in range(1000)]
    one = saved("redis-7.0", commands, tmp_path / "one.rdb")
    two = saved("redis-7.0", [("SELECT", 1), *commands], tmp_path / "two.rdb")
    files = [str(one), str(two)]
    state = tmp_path / "state.json"
    with served("redis-7.0", one) as (client, url):
        client.pipeline([("SELECT", 1), *commands[:900], ("DEL", "k5"), ("SELECT", 0), ("DEL", "k3"), ("SET", "k4", "x")])
        wanted = checked(files, url, samples=5).to_dict()
        assert (wanted["missing"], wanted["value"], wanted["equal"]) == (102, 1, 1897)
        for stop_at in (1, 4, 11):
            calls = 0

            def interrupt(_: int, stop_at: int = stop_at) -> None:
                nonlocal calls
                calls += 1
                if calls == stop_at:
                    raise KeyboardInterrupt

            with pytest.raises(KeyboardInterrupt):
                checked(files, url, batch=100, state=str(state), samples=5, progress=interrupt)
            assert state.exists()
        with pytest.raises(ValueError, match="other options"):
            checked(files, url, state=str(state), ttl_tolerance_ms=5)
        with pytest.raises(ValueError, match="others are given"):
            checked(files[:1], url, state=str(state))
        whole = json.loads(state.read_text())
        changes: dict[str, Any]
        for changes in (
            {"saved": 5}, {"saved": {}}, {"saved": whole["saved"] | {"place": "x"}}, {"saved": whole["saved"] | {"place": [0, -1]}},
            {"saved": whole["saved"] | {"place": [9, 0]}}, {"saved": whole["saved"] | {"counts": {"keys": "many"}}},
            {"saved": whole["saved"] | {"databases": [{"db": "x"}]}}, {"saved": whole["saved"] | {"samples": [{"what": "odd"}]}},
        ):  # fmt: skip
            state.write_text(json.dumps(whole | changes))
            result = run(*files, url, "--state", str(state), "--samples", "5")
            assert result.returncode == 2
            assert f"{state} is no state of rdbkit verify-import; name another state file, or delete it" in result.stderr
        assert len(whole["saved"]["samples"]) > 1
        state.write_text(json.dumps(whole))
        fewer = checked(files, url, state=str(state), samples=1)
        assert fewer.to_dict() == wanted | {"samples": wanted["samples"][:1]}
        state.write_text(json.dumps(whole))
        done = checked(files, url, state=str(state), samples=5)
        assert done.to_dict() == wanted
        assert not state.exists()


def test_what_was_killed_goes_on(tmp_path: Path) -> None:
    path = saved("redis-7.0", [("SET", f"k{i}", i) for i in range(2000)], tmp_path / "a.rdb")
    state = tmp_path / "state.json"
    with served("redis-7.0", path) as (client, url):
        place = url.replace("//", "//default:s3cret@")
        client.call("CONFIG", "SET", "requirepass", "s3cret")
        command = [sys.executable, "-m", "rdbkit", "verify-import", str(path), place, "--state", str(state)]
        begun = time.monotonic()
        process = subprocess.Popen([*command, "--rate", "300"], stdout=subprocess.DEVNULL)
        until(state.exists, process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        so_far = json.loads(state.read_text())["saved"]["counts"]["equal"]
        assert 0 < so_far <= 300 * (time.monotonic() - begun) + 300  # no faster than was asked for
        assert "s3cret" not in state.read_text()
        done = subprocess.run([*command, "--json"], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["equal"] == 2000
        assert "s3cret" not in done.stdout + done.stderr
        assert not state.exists()


def test_a_rate_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved("redis-7.0", [("SET", f"k{i}", i) for i in range(200)], tmp_path / "a.rdb")
    with served("redis-7.0", path) as (_, url):
        clock = Clock(monkeypatch)
        assert checked(path, url, rate=200).same
        assert clock.now == pytest.approx(0.75), "all but the last of four batches were waited for"


def test_what_was_evicted_is_missing_and_explained(tmp_path: Path) -> None:
    path = saved("redis-7.0", [("SET", f"k{i}", "x" * 1000) for i in range(200)], tmp_path / "a.rdb")
    with served("redis-7.0", path) as (client, url):
        used = int(client.text("INFO", "memory").partition("used_memory:")[2].split()[0])
        client.call("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
        client.call("CONFIG", "SET", "maxmemory", used - 50_000)
        client.call("SET", "k0", "x" * 1000)
        proof = checked(path, url)
        assert proof.missing
        assert any("evicted" in note for note in proof.notes)


def test_keys_are_selected_by_size_although_that_of_a_large_one_is_known_late(tmp_path: Path) -> None:
    commands: list[tuple[Any, ...]] = [("SET", f"k{n}", "x" * n) for n in (10, 100, 1000, 3000)]
    path = saved("redis-7.0", commands, tmp_path / "a.rdb", ["rdbcompression no"])
    with served("redis-7.0") as (_, url):
        for block_size in (None, 64):
            proof = checked(path, url, block_size=block_size, selection=Selection(size=(50, 2000)))
            assert set(found(proof)) == {b"k100", b"k1000"}
            assert proof.checked == proof.missing == 2


def test_what_kind_of_server_it_is_can_be_said(tmp_path: Path) -> None:
    path = saved("redis-7.0", [("SET", "a", 1)], tmp_path / "a.rdb")
    with served("redis-7.0", path) as (client, url):
        client.call("ACL", "SETUSER", "nobody", "on", "nopass", "~*", "+@all")
        with connect(url.replace("//", "//nobody@"), cluster="no") as server:
            assert verify_import([str(path)], server).same
        with pytest.raises(TargetError, match="cluster support disabled"):
            connect(url, cluster="yes")
    nodes = tmp_path / "nodes.conf"
    nodes.write_text(f"{'ab' * 20} :0@0 myself,master - 0 0 1 connected 0-16383\nvars currentEpoch 1 lastVoteEpoch 0\n")
    with served("redis-7.0", None, ["cluster-enabled yes", f"cluster-config-file {nodes}"]) as (client, url):
        client.call("ACL", "SETUSER", "reader", "on", "nopass", "~*", "+@read", "+@connection")
        with pytest.raises(TargetError, match="CLUSTER SLOTS"):
            connect(url.replace("//", "//reader@"))


def test_the_same_keys_are_picked_in_every_run(tmp_path: Path) -> None:
    path = saved("redis-7.0", [("SET", f"k{i}", i) for i in range(2000)], tmp_path / "a.rdb")
    with served("redis-7.0") as (_, url):

        def picked(**options: Any) -> set[bytes]:
            proof = checked(path, url, samples=5000, **options)
            assert proof.checked == proof.missing == len(proof.samples)
            return {each.key for each in proof.samples}

        some = picked(pick=0.1)
        assert 120 < len(some) < 280
        assert some == picked(pick=0.1, batch=7)
        assert some != picked(pick=0.1, seed=1)
        assert some < picked(pick=0.3)
        assert 120 < len(picked(pick=200)) < 280
        assert len(picked(pick=5000)) == 2000
        assert 120 < len(picked(selection=Selection(sample=(1, 10)))) < 280


def test_the_command_line(tmp_path: Path) -> None:
    path = saved(
        "redis-7.0", [("SET", "a", 1), ("HSET", "h", "f", "v"), ("SET", "b", 1), ("PEXPIREAT", "b", FAR)], tmp_path / "a.rdb"
    )
    with served("redis-7.0", path) as (client, url):
        done = run(str(path), url)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0] == f"{url} has {path}"
        client.pipeline([("DEL", "a"), ("HSET", "h", "f", "w"), ("PERSIST", "b"), ("SET", "x", 1)])
        done = run(str(path), url, "--find-extra", "--samples", "3")
        assert done.returncode == 1
        for text in (f"does not have {path}", "missing: a (db 0)", "differs  b'f': b'v' and b'w'", "2100-01-01 00:00:00 and never",
                     "in no file", "... and 1 more"):  # fmt: skip
            assert text in done.stdout, done.stdout
        done = run(str(path), url, "--type", "hash", "--json")
        assert json.loads(done.stdout)["checked"] == 1
        assert "what was looked for of" in run(str(path), url, "--type", "hash").stdout
        broken = tmp_path / "broken.rdb"
        broken.write_bytes(path.read_bytes()[:-12])
        assert run(str(broken), url).returncode == 3


def test_a_blob_as_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is what the same file on a disk is."""
    for variable in ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_KEY"):
        monkeypatch.delenv(variable, raising=False)
    dump = FIXTURES / "rich/redis-6.0.16.rdb"
    state = tmp_path / "state.json"
    with serving(dump.read_bytes()) as blob, served("redis-7.0", dump) as (_, url):
        signed = f"{blob.url}?sv=2024-01-01&sp=r&sig=c2VjcmV0"
        local = json.loads(run(str(dump), url, "--json").stdout)
        done = run(signed, url, "--json")
        assert (done.returncode, done.stderr) == (0, "")
        remote = json.loads(done.stdout)
        assert {name: remote[name] for name in ("same", "keys", "equal")} == {
            name: local[name] for name in ("same", "keys", "equal")
        }
        assert run(signed, url, "--download", env={**os.environ, "TMPDIR": str(tmp_path)}).returncode == 0
        assert list(tmp_path.iterdir()) == []
        blob.before = lambda number, handler: handler.refuse(403, "AuthenticationFailed")
        refused = run(signed, url, "--state", str(state))
        assert (refused.returncode, refused.stdout, len(refused.stderr.splitlines())) == (4, "", 1)
        assert blob.url in refused.stderr
        assert all("c2VjcmV0" not in text for text in (done.stdout, refused.stderr))

"""Values that are read and written in pieces: each arrives whole or not at all, as it was at one moment; no part is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fixtures.server import RELEASES, Client, running
from rdbkit.errors import TargetError
from rdbkit.live import large_values
from rdbkit.live.connection import Connection
from rdbkit.live.converter import rules_of
from rdbkit.live.copy_state import CopyState, Part
from rdbkit.live.large_values import LargeValues
from rdbkit.live.parts import PartNames, PartWriter, delete_left
from rdbkit.live.server import Server, connect
from rdbkit.model import Header
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.policy.ledger import Ledger
from rdbkit.policy.rules import Edits, Policies
from rdbkit.policy.script import ScriptRecord
from rdbkit.selection import Selection
from rdbkit.targets.target import find_target

from ..live.acl import add_user, url_of
from ..live.cluster import cluster
from ..processes import until
from ..rdb import FIXTURES
from .test_transfer import content
from .test_verify_import import port_of

SERVERS = Path(os.environ["RDBKIT_SERVERS"])
HEADERS = {
    "redis-6.0": Header("redis", 9), "redis-7.0": Header("redis", 10), "redis-8.0": Header("redis", 12),
    "valkey-8.1": Header("redis", 11), "valkey-9.1": Header("valkey", 80),
}  # fmt: skip
FAR = 4_102_444_800_000
N = 3000
#: By type, the commands that make a value of many pieces.
MAKE: dict[str, list[tuple[Any, ...]]] = {
    "string": [("SET", "k", "x" * 50_000)],
    "list": [("RPUSH", "k", *(f"e{i}" for i in range(N)))],
    "set": [("SADD", "k", *(f"m{i}" for i in range(N)))],
    "zset": [("ZADD", "k", *(each for i in range(N) for each in (i / 7, f"m{i}")))],
    "hash": [("HSET", "k", *(each for i in range(N) for each in (f"f{i}", f"v{i}")))],
    "stream": [
        *(("XADD", "k", f"{i}-1", "f", f"v{i}") for i in range(1, 500)), ("XGROUP", "CREATE", "k", "g", "0"),
        ("XREADGROUP", "GROUP", "g", "c", "COUNT", 50, "STREAMS", "k", ">"), ("XDEL", "k", "7-1", "499-1"),
    ],
}  # fmt: skip
#: By type, changes that keep the number of elements, and others.
CHANGES: dict[str, list[list[tuple[Any, ...]]]] = {
    "string": [[("SETRANGE", "k", 40_000, "y")], [("APPEND", "k", "y")], [("SET", "k", "short")]],
    "list": [[("LSET", "k", N - 1, "y")], [("RPUSH", "k", "y")], [("LPOP", "k"), ("RPUSH", "k", "y")], [("LTRIM", "k", 0, 5)]],
    "set": [[("SREM", "k", "m1"), ("SADD", "k", "y")], [("SADD", "k", "y")]],
    "zset": [[("ZADD", "k", 99, "m1")], [("ZADD", "k", 1, "y")], [("ZREM", "k", "m1")]],
    "hash": [[("HSET", "k", "f1", "y")], [("HSET", "k", "y", "y")], [("HDEL", "k", "f1")]],
    "stream": [
        [("XADD", "k", "900-1", "f", "y")], [("XACK", "k", "g", "3-1")], [("XDEL", "k", "450-1")],
        [("XGROUP", "CREATE", "k", "h", "0")], [("XREADGROUP", "GROUP", "g", "c", "COUNT", 1, "STREAMS", "k", ">")],
    ],
}  # fmt: skip


@contextmanager
def servers(source: str, target: str, path: Path | None = None) -> Iterator[tuple[Client, Client]]:
    with running(SERVERS / source / "redis-server", path) as (a, _), running(SERVERS / target / "redis-server") as (b, _):
        yield a, b


@contextmanager
def large(
    a: str, b: str, source: str, target: str, state: CopyState | None = None, ledger: Ledger | None = None, **options: Any
) -> Iterator[LargeValues]:
    """What copies large values between the servers of two URLs, in pieces of few bytes."""
    with connect(a) as one, connect(b) as other:
        rules = rules_of(HEADERS[source], find_target(target), ConversionOptions(**options))
        values = LargeValues(one, other, rules, ledger or Ledger(), PartNames("ab12", state), window_bytes=200)
        try:
            yield values
        finally:
            values.close()


def url(client: Client) -> str:
    return f"redis://127.0.0.1:{port_of(client)}"


def comparable(client: Client, with_fields: bool = True) -> dict[tuple[int, str], Any]:
    """What is in a server; scores have other digits in other versions, and the oracle takes those of Python."""
    found = content(client)
    client.call("SELECT", 0)  # where it was
    for row in found.values():
        if isinstance(row[2], list):
            row[2] = round(float(row[2][1]), -4)
        elif row[2] is not None:
            row[2] = round(float(row[2]), -4)
        if not with_fields and isinstance(row[1], dict) and "pairs" in row[1]:
            row[1] = row[1]["pairs"]
    return found


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("redis-7.0", "redis-7.0"), ("redis-8.0", "redis-6.0"), ("valkey-9.1", "redis-6.0"), ("redis-6.0", "redis-8.0"),
        ("redis-8.0", "valkey-9.1"), ("valkey-9.1", "redis-8.0"), ("valkey-8.1", "redis-7.0"),
    ],
)  # fmt: skip
def test_every_type_arrives(source: str, target: str) -> None:
    path = FIXTURES / "rich" / f"{RELEASES[source]}.rdb"
    ledger = Ledger()
    with servers(source, target, path) as (a, b), large(url(a), url(b), source, target, ledger=ledger) as values:
        fields = target in ("redis-8.0", "valkey-9.1")
        keys = list(comparable(a))
        lost = (
            set()
            if fields
            else {name for (_, name), row in comparable(a).items() if isinstance(row[1], dict) and "pairs" in row[1]}
        )
        outcomes = {}
        for db, name in keys:
            outcome = values.copy(db, name.encode("latin-1"))
            outcomes[name] = outcome
            assert outcome == ("unreadable" if name == "vs" else "lost" if name in lost else "written"), (name, values.trouble)
            if outcome == "written":
                assert values.copy(db, name.encode("latin-1")) == "equal"
        assert ledger.forbidden.get("field-expiry", 0) == (3 if lost else 0)
        expected = {key: row for key, row in comparable(a).items() if outcomes[key[1]] == "written"}
        assert comparable(b) == expected
    with servers(source, target, path) as (a, b):
        with large(url(a), url(b), source, target, policies=Policies(loss="drop")) as values:
            for name in lost:
                assert values.copy(0, name.encode()) == "written"
        found = comparable(b)
        assert found == {key: row for key, row in comparable(a, with_fields=False).items() if key in found}
        assert len(found) == len(lost)


class Meddling:
    """A server whose key is changed by somebody else while it is read.

    Args:
        at: before which of the questions about the value, of those that one reading asks.
        times: how many readings are disturbed.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, server: Server, change: Callable[[], object], at: int, times: int) -> None:
        self.questions = 0
        self.left = times
        dial = server.dial

        def dialled(*arguments: Any) -> Connection:
            connection = dial(*arguments)
            ask = connection.ask

            def meddle(*commands: bytes) -> list[Any]:
                if commands[0].startswith(b"*2\r\n$4\r\nTYPE"):
                    self.questions = 0
                self.questions += 1
                if self.questions == at and self.left:
                    self.left -= 1
                    change()
                return ask(*commands)

            monkeypatch.setattr(connection, "ask", meddle)
            return connection

        monkeypatch.setattr(server, "dial", dialled)


EACH_CHANGE = [(kind, number) for kind, changes in CHANGES.items() for number in range(len(changes))]


@pytest.mark.parametrize("login", ["all", "no-watch"])
@pytest.mark.parametrize(("kind", "number"), EACH_CHANGE)
def test_what_changes_while_it_is_read_is_read_again(
    kind: str, number: int, login: str, monkeypatch: pytest.MonkeyPatch, pair_of_servers: tuple[Client, Client]
) -> None:
    a, b = pair_of_servers
    add_user(a, "u", "+@all -watch -multi" if login == "no-watch" else "+@all")
    a.pipeline(MAKE[kind])
    with large(url_of(url(a), "u"), url(b), "redis-7.0", "redis-7.0") as values:
        meddling = Meddling(monkeypatch, values._source, lambda: a.pipeline(CHANGES[kind][number]), at=6, times=1)
        assert values.copy(0, b"k") == "written", values.trouble
        assert not meddling.left
        assert comparable(a) == comparable(b)
        b.call("DEL", "k")


@pytest.fixture(scope="module")
def kept_servers() -> Iterator[tuple[Client, Client]]:
    with servers("redis-7.0", "redis-7.0") as found:
        yield found


@pytest.fixture
def pair_of_servers(kept_servers: tuple[Client, Client]) -> tuple[Client, Client]:
    """Two servers without keys."""
    for client in kept_servers:
        client.call("FLUSHALL")
    return kept_servers


@pytest.mark.parametrize("kind", ["hash", "list", "string"])
def test_what_always_changes_is_told_and_nothing_of_it_is_written(
    kind: str, monkeypatch: pytest.MonkeyPatch, pair_of_servers: tuple[Client, Client]
) -> None:
    a, b = pair_of_servers
    a.pipeline(MAKE[kind])
    with CopyState(None, {}) as state, large(url(a), url(b), "redis-7.0", "redis-7.0", state) as values:
        meddling = Meddling(monkeypatch, values._source, lambda: a.pipeline(CHANGES[kind][0]), at=9, times=100)
        assert values.copy(0, b"k") == "changed"
        assert "changed while it was read" in values.trouble
        assert meddling.left == 97
        assert b.items("KEYS", "*") == []
        assert state.parts() == []
        meddling.left = 0
        assert values.copy(0, b"k") == "written"
    assert comparable(a) == comparable(b)


@pytest.mark.parametrize("at", [2, 5, 9])
@pytest.mark.parametrize(
    ("commands", "outcome"),
    [
        ([("DEL", "k")], "gone"),
        ([("RENAME", "k", "other")], "gone"),
        ([("DEL", "k"), ("RPUSH", "k", "a", "b")], "written"),
        ([("DEL", "k"), ("SET", "k", "a")], "written"),
        ([("PEXPIREAT", "k", FAR)], "written"),
        ([("FLUSHALL",)], "gone"),
    ],
)
def test_a_key_may_go_or_become_another_while_it_is_read(
    commands: list[tuple[Any, ...]],
    outcome: str,
    at: int,
    monkeypatch: pytest.MonkeyPatch,
    pair_of_servers: tuple[Client, Client],
) -> None:
    a, b = pair_of_servers
    a.pipeline(MAKE["set"])
    with large(url(a), url(b), "redis-7.0", "redis-7.0") as values:
        Meddling(monkeypatch, values._source, lambda: a.pipeline(commands), at=at, times=1)
        assert values.copy(0, b"k") == outcome
    found = comparable(b)
    assert found == ({} if outcome == "gone" else comparable(a))


def test_what_the_target_has_is_left_alone_or_replaced(pair_of_servers: tuple[Client, Client]) -> None:
    a, b = pair_of_servers
    a.pipeline(MAKE["hash"])
    b.call("SET", "k", "mine")
    with large(url(a), url(b), "redis-7.0", "redis-7.0") as values:
        assert values.copy(0, b"k") == "exists"
        assert b.text("GET", "k") == "mine"
        assert b.items("KEYS", "*") == [b"k"]
        assert values.copy(0, b"k", over=True) == "written"
        assert comparable(a) == comparable(b)
        assert values.copy(0, b"k") == "equal"
        b.call("HSET", "k", "f1", "mine")
        assert values.copy(0, b"k") == "exists"
        assert values.copy(0, b"none") == "gone"


def test_a_name_that_is_taken_meanwhile_is_left_alone(
    monkeypatch: pytest.MonkeyPatch, pair_of_servers: tuple[Client, Client]
) -> None:
    a, b = pair_of_servers
    a.pipeline(MAKE["list"])
    with large(url(a), url(b), "redis-7.0", "redis-7.0") as values:
        Meddling(monkeypatch, values._source, lambda: b.call("SET", "k", "mine"), at=9, times=1)
        assert values.copy(0, b"k") == "exists"
    assert b.text("GET", "k") == "mine"
    assert b.items("KEYS", "*") == [b"k"]


def test_selection_edits_and_scripts_hold(pair_of_servers: tuple[Client, Client]) -> None:
    a, b = pair_of_servers
    for command in MAKE["set"]:
        a.call(*command)
    a.call("PEXPIREAT", "k", FAR)

    def script(record: ScriptRecord) -> ScriptRecord | None:
        record.key = b"scripted"
        record.value = {b"only"}
        return record

    def copied(**options: Any) -> str:
        with large(url(a), url(b), "redis-7.0", "redis-7.0", **options) as values:
            return values.copy(0, b"k")

    assert copied(edits=Edits(rename_prefix=[("k", "new:k")], map_db={0: 3})) == "written"
    assert copied(edits=Edits(set_ttl_ms=-1)) == "written"
    assert copied(edits=Edits(script=script)) == "written"
    assert copied(selection=Selection(types=["hash"])) == "left-out"
    assert copied(edits=Edits(drop_expired=True, rename_prefix=[("k", "late")]), now_ms=FAR + 1) == "left-out"
    found = comparable(b)
    whole = comparable(a)[0, "k"]
    assert found == {(3, "new:k"): whole, (0, "k"): [*whole[:2], None], (0, "scripted"): ["set", ["only"], whole[2]]}


def test_what_has_expired_when_it_arrives_is_gone(pair_of_servers: tuple[Client, Client]) -> None:
    a, b = pair_of_servers
    a.pipeline(MAKE["list"])
    with large(url(a), url(b), "redis-7.0", "redis-7.0", edits=Edits(set_ttl_ms=1), now_ms=1_000_000) as values:
        assert values.copy(0, b"k") == "gone"
    assert b.items("KEYS", "*") == []


def test_a_target_without_memory_keeps_nothing(monkeypatch: pytest.MonkeyPatch, pair_of_servers: tuple[Client, Client]) -> None:
    a, b = pair_of_servers
    a.pipeline(MAKE["hash"])
    now = [0.0]
    monkeypatch.setattr(large_values.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))  # type: ignore[attr-defined]
    monkeypatch.setattr(large_values.time, "monotonic", lambda: now[0])  # type: ignore[attr-defined]
    b.call("CONFIG", "SET", "maxmemory", 1)
    try:
        with CopyState(None, {}) as state, large(url(a), url(b), "redis-7.0", "redis-7.0", state) as values:
            with pytest.raises(TargetError, match="no memory left"):
                values.copy(0, b"k")
            assert b.items("KEYS", "*") == []
            assert delete_left(values._target, state) == 0
            assert state.parts() == []
    finally:
        b.call("CONFIG", "SET", "maxmemory", 0)


def test_a_target_that_evicts_what_is_written_is_told_and_keeps_no_half(
    monkeypatch: pytest.MonkeyPatch, pair_of_servers: tuple[Client, Client]
) -> None:
    a, b = pair_of_servers
    a.pipeline(MAKE["list"])
    monkeypatch.setattr(large_values.time, "sleep", lambda _: None)  # type: ignore[attr-defined]

    def evict() -> None:
        for name in b.items("KEYS", "*rdbkit:part:*"):
            b.call("DEL", name)  # type: ignore[arg-type]

    with large(url(a), url(b), "redis-7.0", "redis-7.0") as values:
        send = PartWriter._look

        def look(self: Any, *arguments: Any) -> Any:
            evict()
            return send(self, *arguments)

        monkeypatch.setattr(PartWriter, "_look", look)
        assert values.copy(0, b"k") == "refused"
        assert "the parts that were written are gone" in values.trouble
    assert b.items("KEYS", "*") == []


def test_after_a_crash_nothing_is_left_and_only_ours_is_deleted(tmp_path: Path, pair_of_servers: tuple[Client, Client]) -> None:
    a, b = pair_of_servers
    a.call("EVAL", "for i = 1, 200000 do redis.call('RPUSH', 'k', i .. string.rep('x', 100)) end", 0)
    state = tmp_path / "state"
    code = (
        "import sys; from tests.servers.test_large_values import *\n"
        f"arguments = {url(a)!r}, {url(b)!r}, 'redis-7.0', 'redis-7.0'\n"
        f"with CopyState({str(state)!r}, {{}}) as state, large(*arguments, state) as values:\n"
        "    print(values.copy(0, b'k'))"
    )
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        until(lambda: b.items("KEYS", "*rdbkit:part:*"))
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    (part,) = b.items("KEYS", "*")
    assert isinstance(part, bytes)
    b.call("SET", "mine", 1)
    with CopyState(str(state), {}) as again, connect(url(b)) as target:
        assert [each.name for each in again.parts()] == [part]
        again.add_parts([Part(b"mine", 0, b"k"), Part(b"{0}rdbkit:part:ab12:7x", 0, b"k")])
        until(lambda: delete_left(target, again) or not b.items("KEYS", "*rdbkit:part:*"))
        assert b.items("KEYS", "*") == [b"mine"]
        assert {each.name for each in again.parts()} == {b"mine", b"{0}rdbkit:part:ab12:7x"}


def test_what_is_being_written_expires_by_itself(monkeypatch: pytest.MonkeyPatch, pair_of_servers: tuple[Client, Client]) -> None:
    a, b = pair_of_servers
    a.pipeline(MAKE["hash"])
    seen: list[int] = []
    with large(url(a), url(b), "redis-7.0", "redis-7.0") as values:
        look = PartWriter._look

        def looking(self: Any, *arguments: Any) -> Any:
            (part,) = b.items("KEYS", "*rdbkit:part:*")
            seen.append(b.integer("PTTL", part))  # type: ignore[arg-type]
            return look(self, *arguments)

        monkeypatch.setattr(PartWriter, "_look", looking)
        assert values.copy(0, b"k") == "written"
    assert 3_000_000 < seen[0] <= 3_600_000
    assert b.integer("PTTL", "k") == -1


@pytest.mark.parametrize("line", ["redis-6.0", "redis-8.0"])
def test_clusters(line: str) -> None:
    with cluster(SERVERS / line / "redis-server") as one, cluster(SERVERS / line / "redis-server") as other:
        names = [*(f"k{i}" for i in range(20)), "{tag}a", "{}b", "x{tag}"]
        one.write([(command[0], name, *command[2:]) for name in names for command in MAKE["set"]])
        with large(one.url, other.url, line, line) as values:
            assert {values.copy(0, name.encode()) for name in names} == {"written"}
            assert {values.copy(0, name.encode()) for name in names} == {"equal"}
        found = [comparable(node.client) for node in other.masters()]
        assert {key for each in found for _, key in each} == set(names)
        assert len({str(row) for each in found for row in each.values()}) == 1

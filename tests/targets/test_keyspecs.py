"""What commands do and which keys they write: the table, and what it learns of servers."""

from __future__ import annotations

import pytest

from rdbkit.targets.keyspecs import TABLE, CommandTable, Written


@pytest.mark.parametrize(
    ("request_", "keys", "kind"),
    [
        ("SET k v", "k", "write"),
        ("sEt k v", "k", "write"),
        ("DEL a b c", "a b c", "write"),
        ("MSET a 1 b 2", "a b", "write"),
        ("MSETEX 2 a 1 b 2 EX 5", "a b", "write"),
        ("GET k", "", "read"),
        ("BLPOP a b 0", "a b", "blocking-write"),
        ("BLMPOP 0 2 a b LEFT", "a b", "blocking-write"),
        ("BITOP AND to a b", "to", "write"),
        ("SMOVE a b m", "a b", "write"),
        ("RENAME a b", "a b", "write"),
        ("ZUNIONSTORE to 2 a b", "to", "write"),
        ("XGROUP CREATE s g $ MKSTREAM", "s", "write"),
        ("XGROUP HELP", "", "other"),
        ("XGROUP NEW s", "", "unknown"),
        ("XREADGROUP GROUP STREAMS c COUNT 1 STREAMS a b > >", "a b", "blocking-write"),
        ("XREAD BLOCK 0 STREAMS a $", "", "other"),
        ("SORT a BY w_* DESC", "", "read"),
        ("SORT a BY store store to GET #", "store to", "write"),
        ("GEORADIUS a 0 0 1 km", "", "read"),
        ("GEORADIUS a 0 0 1 km STORE b STOREDIST c", "b c", "write"),
        ("EVAL x 2 a b c", "a b", "script"),
        ("EVALSHA x 0 c", "", "script"),
        ("FCALL f 1 a", "a", "script"),
        ("EVAL_RO x 1 a", "", "read"),
        ("EVAL x -1 a", "", "script"),
        ("EVAL x 99999999999999999999 a", "", "script"),
        ("SCRIPT LOAD x", "", "definition"),
        ("FUNCTION LOAD x", "", "definition"),
        ("SCRIPT EXISTS x", "", "other"),
        ("PUBLISH c m", "", "publish"),
        ("FLUSHALL", "", "flush"),
        ("SWAPDB 0 1", "", "flush"),
        ("MULTI", "", "other"),
        ("COPY a b REPLACE", "b", "write"),
        ("MIGRATE h 1 k 0 5", "k", "write"),
        ("SET", "", "write"),
        ("COPY a", "", "write"),
        ("MOVE a", "a", "write"),
        ("GEORADIUS", "", "read"),
        ("COMMAND", "", "other"),
        ("JSON.MSET a $ 1 b $ 2", "a b", "write"),
        ("TS.CREATERULE a b AGGREGATION avg 10", "a b", "write"),
        ("FT.CREATE i SCHEMA t TEXT", "", "definition"),
        ("FT.DROPINDEX i", "", "definition"),
        ("FT.DROPINDEX i dd", "", "flush"),
        ("FT.ADD i d 1 FIELDS t x", "d", "write"),
        ("NOSUCH a b", "", "unknown"),
        ("", "", "unknown"),
    ],
)
def test_written(request_: str, keys: str, kind: str) -> None:
    said = TABLE.written(request_.encode().split())
    assert said == Written(tuple(keys.encode().split()), kind)


def test_a_name_and_its_subcommand_may_be_one_word() -> None:
    assert TABLE.written([b"XGROUP CREATE", b"s", b"g", b"$"]).keys == (b"s",)
    assert TABLE.reads([b"object encoding", b"k"]) == (b"k",)


def test_keys_of_another_database() -> None:
    assert TABLE.written([b"COPY", b"a", b"b", b"replace", b"db", b"3"]) == Written((), "write", ((3, b"b"),))
    assert TABLE.written([b"MOVE", b"a", b"2"]) == Written((b"a",), "write", ((2, b"a"),))


def test_migrate_of_several() -> None:
    assert TABLE.written([b"MIGRATE", b"h", b"1", b"", b"0", b"5", b"AUTH", b"KEYS", b"KEYS", b"a", b"b"]).keys == (b"a", b"b")


@pytest.mark.parametrize(
    ("request_", "keys"),
    [
        ("GET k", "k"),
        ("MGET a b", "a b"),
        ("JSON.MGET a b $", "a b"),
        ("MEMORY USAGE k", "k"),
        ("ZUNION 2 a b WEIGHTS 1 2", "a b"),
        ("FCALL_RO f 1 a b", "a"),
        ("SET k v", ""),
        ("SCAN 0", ""),
        ("HSCAN k 0", ""),
        ("SORT_RO k BY w_*", ""),
        ("KEYS *", ""),
        ("GET", ""),
    ],
)
def test_reads(request_: str, keys: str) -> None:
    assert TABLE.reads(request_.encode().split()) == tuple(keys.encode().split())


AT = [b"begin_search", [b"type", b"index", b"spec", [b"index", 1]]]
PAIRS = [b"find_keys", [b"type", b"range", b"spec", [b"lastkey", -1, b"keystep", 2, b"limit", 0]]]
SET_7 = [b"new.set", -3, [b"write", b"denyoom"], 1, 1, 1, [b"@write"], [], [[b"flags", [b"RW", b"access"], *AT, *PAIRS]], []]


def test_learns_what_a_server_says() -> None:
    table = CommandTable({"SET": {"kind": "write", "writes": [[1]]}})
    assert table.written([b"NEW.SET", b"a", b"1", b"b", b"2"]).kind == "unknown"
    table.learn(b"New.Set", SET_7)
    assert table.written([b"NEW.SET", b"a", b"1", b"b", b"2"]) == Written((b"a", b"b"), "write")


def test_learns_what_an_older_server_says() -> None:
    table = CommandTable({})
    table.learn(b"OLD.SET", [b"old.set", -3, [b"write", b"denyoom"], 1, -1, 2])
    table.learn(b"OLD.GET", ["old.get", 2, {"readonly", "fast"}, 1, 1, 1, ["@read"]])
    assert table.written([b"old.set", b"a", b"1", b"b", b"2"]) == Written((b"a", b"b"), "write")
    assert table.reads([b"old.get", b"a"]) == (b"a",)


def test_learns_another_name_of_a_known_command() -> None:
    table = CommandTable({"EVAL": {"kind": "script", "writes": [{"count": 2, "first": 3}]}})
    table.learn(b"MINE", [b"eval", -3, [b"noscript", b"movablekeys"], 0, 0, 0])
    assert table.written([b"mine", b"x", b"1", b"a"]) == Written((b"a",), "script")


@pytest.mark.parametrize(
    "info", [None, [], 3, [b"x"], [b"x", 1, 2, 3], [None] * 10, [b"x", 2, [b"write"], 1, 1, 1, [], [], [7], []]]
)
def test_learns_nothing_of_what_it_does_not_understand(info: object) -> None:
    table = CommandTable({})
    table.learn(b"X", info)
    assert table.written([b"X", b"a"]).kind == "unknown"


def test_what_is_known_stays() -> None:
    table = CommandTable({"SET": {"kind": "write", "writes": [[1]]}})
    table.learn(b"set", [b"set", 2, [b"readonly"], 0, 0, 0])
    assert table.written([b"SET", b"k", b"v"]) == Written((b"k",), "write")

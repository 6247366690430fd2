"""Arguments of calls as a server gets them, what is known of a command by its name, and which replies are misses."""

from __future__ import annotations

from typing import Any

import pytest
import redis

from rdbkit.dual.calls import Encoder, is_miss, plain_of
from rdbkit.targets.keyspecs import TABLE


@pytest.mark.parametrize("encoding", ["utf-8", "latin-1", "utf-16"])
def test_arguments_are_those_that_a_connection_sends(encoding: str) -> None:
    client: Any = redis.Redis(encoding=encoding)
    encode = Encoder(client)
    given: list[Any] = ["é", b"\xff\0", 17, 1.5, memoryview(b"seen"), ""]
    expected = [client.get_encoder().encode(each) for each in given]
    assert list(map(encode, given)) == expected
    assert encode.arguments(["SET", *given])[1:] == expected
    with pytest.raises(redis.DataError):
        encode(None)


@pytest.mark.parametrize("name", ["XGROUP CREATE", b"XGROUP CREATE"])
def test_a_name_of_two_words_is_two_arguments(name: Any) -> None:
    arguments = Encoder(redis.Redis()).arguments([name, "stream", "group"])
    assert arguments == [b"XGROUP", b"CREATE", b"stream", b"group"]
    assert TABLE.written(arguments).keys == (b"stream",)


def test_what_a_name_tells() -> None:
    for name, expected in {
        "GET": ("read", 0), b"set": ("write", 1), "HSET": ("write", 1), "XINFO STREAM": ("read", 0), "DEL": ("write", -1),
        "SORT": ("", 0), "EVAL": ("", 0), "BLPOP": ("", 0), "PUBLISH": ("", 0),
        "FLUSHALL": ("", 0), "XGROUP CREATE": ("", 0), "NOT.THERE": ("", 0),
        "GEORADIUS": ("", 0), "CLIENT": ("", 0),
    }.items():  # fmt: skip
        assert plain_of(name) == expected, name
        assert plain_of(name) == expected, name


def test_what_a_name_tells_is_so_whatever_the_arguments() -> None:
    for name in list(TABLE._named):
        kind, at = plain_of(name)
        for args in ([b"a", b"b", b"c"], [b"a", b"STORE", b"b"], [b"1", b"KEYS", b"STREAMS", b"a", b"0"]):
            written = TABLE.written([name, *args])
            if kind:
                assert (written.kind, written.keys, written.elsewhere) == (
                    kind,
                    tuple(args) if at < 0 else (args[at - 1],) if at else (),
                    (),
                ), name


@pytest.mark.parametrize("reply", [None, 0, "", b"", [], {}, set(), -2, "none", b"none", [b"a", None]])
def test_misses(reply: Any) -> None:
    assert is_miss(reply)


@pytest.mark.parametrize("reply", [1, -1, "0", b"v", [b"a"], {b"a": None}, {b"a"}, True, "string"])
def test_no_misses(reply: Any) -> None:
    assert not is_miss(reply)

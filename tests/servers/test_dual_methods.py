"""All public methods of redis-py through `rdbkit.dual.Redis`: each answers as by a plain client, and both sides are the same."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Any, Final

import pytest
import redis

from fixtures.server import running
from rdbkit.dual import Redis, State

from .test_verify_import import port_of

SERVERS = Path(os.environ["RDBKIT_SERVERS"])

#: They end or stop the server or the connection, wait for ever, empty the server, need another one, or send no command.
LEFT_OUT: Final = (
    "acl_", "auth", "bgrewriteaof", "bgsave", "client_kill", "client_no_", "client_pause", "client_reply", "client_tracking",
    "client_unblock", "cluster", "config_", "debug_", "failover", "flush", "migrate", "module_", "monitor", "psync", "quit",
    "command", "readonly", "readwrite", "replicaof", "reset", "save", "select", "sentinel", "shutdown", "slaveof", "swapdb", "sync",
    "wait",
    "bf", "bound", "cf", "client", "close", "cms", "execute_command", "from_", "ft", "get_cache", "get_connection_kwargs",
    "get_encoder", "get_retry", "himport", "json", "keyspace_notifications", "load_external_module", "lock", "parse_response",
    "pipeline", "pubsub", "register_script", "set_response_callback", "set_retry", "tdigest", "topk", "transaction", "ts", "vset",
)  # fmt: skip
#: What they answer is another thing each time, or on each server.
BY_CHANCE: Final = (
    "client_", "command", "digest", "dump", "expiretime", "hexpiretime", "hotkeys", "hpexpiretime", "hpttl", "hrandfield", "hscan",
    "httl", "info", "keys", "lastsave", "latency_", "lolwut", "memory_", "object", "pexpiretime", "pttl", "random", "role", "scan",
    "sdiff", "sinter", "slowlog", "smembers", "spop", "srandmember", "sscan", "sunion", "time", "xadd", "xinfo_", "zrandmember",
    "zscan",
)  # fmt: skip
#: A key of each type, and how it is made.
KEYS: Final[dict[str, list[tuple[Any, ...]]]] = {
    "string": [("SET", "string", "1")],
    "list": [("RPUSH", "list", "1", "2", "3")],
    "hash": [("HSET", "hash", "f", "1", "g", "2")],
    "set": [("SADD", "set", "1", "2")],
    "zset": [("ZADD", "zset", "1", "a", "2", "b")],
    "stream": [("XADD", "stream", "1-1", "f", "1"), ("XGROUP", "CREATE", "stream", "1", "0")],
    "geo": [("GEOADD", "geo", "13.4", "52.5", "1", "2.3", "48.8", "a")],
}
#: What is given to parameters, by their names: a key where that is None; to all others "1".
GIVEN: Final[dict[str, Any]] = {
    "mapping": {"f": 1}, "pairs": {"f": 1}, "fields": {"f": 1}, "streams": {"stream": "0"}, "min": "-inf", "max": "+inf",
    "dest": "other", "destination": "other", "dst": "other", "timeout": 0.01, "script": "return 1", "sha": "0" * 40,
    "operation": "AND", "when": 4102444800, "unit": "km", "keyname": "f", "field": "f", "longitude": 1.0, "latitude": 1.0,
    "start": 0, "end": -1, "stop": -1, "num": 1, "numkeys": 0, "count": 1, "amount": 1, "time": 100, "seconds": 100,
    "milliseconds": 100_000, "where": "BEFORE", "refvalue": "1", "groupname": "1", "consumername": "c", "min_idle_time": 0,
    "message_ids": ["1-1"], "id": "1-1", "cursor": 0, "index": 0, "offset": 0, "first_list": "list", "second_list": "other",
    **dict.fromkeys(("src", "name", "key", "keys", "names", "args", "sources", "source", "key1", "key2")),
}  # fmt: skip


def methods() -> list[str]:
    found = inspect.getmembers(redis.Redis, inspect.isfunction)
    return [name for name, _ in found if not name.startswith(("_", *LEFT_OUT))]


def call(client: Any, name: str, key: str, suffix: str) -> Any:
    """What a method answers when it is given what it must be given; an error as its type and words."""
    method = getattr(client, name)
    positional: list[Any] = []
    named: dict[str, Any] = {}
    for each in inspect.signature(method).parameters.values():
        if each.default is not each.empty or each.kind is each.VAR_KEYWORD:
            continue
        given = GIVEN.get(each.name, "1") or (key if each.name in GIVEN else "1")
        given = GIVEN[each.name] if GIVEN.get(each.name) == 0 else given
        if isinstance(given, dict):
            given = {own(field, suffix): value for field, value in given.items()}
        given = own(given, suffix)
        if each.kind is each.KEYWORD_ONLY:
            named[each.name] = given
        else:
            positional.append([given] if each.name in ("keys", "sources") and each.kind is not each.VAR_POSITIONAL else given)
    try:
        return method(*positional, **named)
    except (redis.RedisError, AttributeError, TypeError, ValueError, NotImplementedError) as e:
        return type(e), str(e)[:40]


def own(given: Any, suffix: str) -> Any:
    """The name of a key, for one method alone."""
    return f"{given}:{suffix}" if isinstance(given, str) and given in (*KEYS, "other") else given


def content(server: redis.Redis) -> dict[Any, Any]:
    keys = sorted(server.keys())
    with server.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.dump(key)
        return dict(zip(keys, pipe.execute(), strict=True))


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # methods that are new, or old
def test_each_public_method() -> None:
    with (
        running(SERVERS / "redis-8.0" / "redis-server") as (first, _),
        running(SERVERS / "redis-8.0" / "redis-server") as (second, _),
        running(SERVERS / "redis-8.0" / "redis-server") as (third, _),
    ):
        urls = [f"redis://127.0.0.1:{port_of(each)}" for each in (first, second, third)]
        alone, old, new = map(redis.Redis.from_url, urls)
        with Redis.from_urls(*urls[1:], state=State.SHADOW) as client:
            made = [
                tuple(own(each, f"{name}:{key}") for each in command)
                for name in methods()
                for key, commands in KEYS.items()
                for command in commands
            ]
            for one in (alone, client):
                pipe: Any = one.pipeline(transaction=False)
                for command in made:
                    pipe.execute_command(*command)
                pipe.execute()
            tried = answered = 0
            for name in methods():
                for key in KEYS:
                    suffix = f"{name}:{key}"
                    plain, dual = call(alone, name, key, suffix), call(client, name, key, suffix)
                    is_error = isinstance(plain, tuple) and bool(plain) and isinstance(plain[0], type)
                    is_object = type(plain).__module__.startswith("redis") or inspect.isgenerator(plain)
                    if name.startswith(BY_CHANCE) or is_object:
                        assert type(plain) is type(dual), name
                    else:
                        assert plain == dual, (name, key, plain, dual)
                    if not is_error:
                        answered += 1
                        break
                tried += 1
            assert client.dual.drain(10)
            assert content(old) == content(new)
            assert tried > 200
            assert answered > 150

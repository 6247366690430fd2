"""Agreement with rdbtools, an older parser by other hands, on every dump of a format that it knows (RDB 9 and older)."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
import warnings
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from rdbkit.values import ModuleValue, Stream

from ..encoders import comparable, exact, raw_id
from ..rdb import DUMPS


@pytest.fixture(scope="module")
def parser() -> Any:
    """rdbtools.parser without its package's `__init__`, which imports `distutils`: gone since Python 3.12."""
    if "rdbtools" not in sys.modules:  # tests of another file may have come before, in the same process
        spec = importlib.util.find_spec("rdbtools")
        assert spec is not None, "rdbtools is not installed: it belongs to the extra `test`"
        assert spec.submodule_search_locations is not None
        package = types.ModuleType("rdbtools")
        package.__path__ = list(spec.submodule_search_locations)
        sys.modules["rdbtools"] = package
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in its strings
        return importlib.import_module("rdbtools.parser")


def data(item: bytes | int) -> bytes:
    """rdbtools gives what is stored as a number as an int."""
    return item if isinstance(item, bytes) else b"%d" % item


def milliseconds(time: datetime) -> int:
    return (time - datetime(1970, 1, 1)) // timedelta(milliseconds=1)


class Collector:
    """The callback that rdbtools calls; what it says of each key goes to `found`."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, bytes], tuple[str, Any, int | None]] = {}
        self.db = 0
        self.value: Any = None
        self.expiry: int | None = None

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None  # the calls that say nothing of a key

    def start_database(self, number: int) -> None:
        self.db = number

    def begin(self, value: Any, expiry: datetime | None) -> None:
        self.value = value
        self.expiry = None if expiry is None else milliseconds(expiry)

    def end(self, key: bytes | int, kind: str) -> None:
        self.found[self.db, data(key)] = (kind, self.value, self.expiry)

    def set(self, key: Any, value: Any, expiry: Any, info: Any) -> None:
        self.begin(data(value), expiry)
        self.end(key, "string")

    def start_hash(self, key: Any, length: int, expiry: Any, info: Any) -> None:
        self.begin({}, expiry)

    def hset(self, key: Any, field: Any, value: Any) -> None:
        self.value[data(field)] = (data(value), None)

    def end_hash(self, key: Any) -> None:
        self.end(key, "hash")

    def start_set(self, key: Any, length: int, expiry: Any, info: Any) -> None:
        self.begin(set(), expiry)

    def sadd(self, key: Any, member: Any) -> None:
        self.value.add(data(member))

    def end_set(self, key: Any) -> None:
        self.end(key, "set")

    def start_list(self, key: Any, expiry: Any, info: Any) -> None:
        self.begin([], expiry)

    def rpush(self, key: Any, value: Any) -> None:
        self.value.append(data(value))

    def end_list(self, key: Any, info: Any) -> None:
        self.end(key, "list")

    def start_sorted_set(self, key: Any, length: int, expiry: Any, info: Any) -> None:
        self.begin({}, expiry)

    def zadd(self, key: Any, score: Any, member: Any) -> None:
        # a score is bytes where the file has it as text, and an int where a ziplist has it as a number
        self.value[data(member)] = exact(float(score))

    def end_sorted_set(self, key: Any) -> None:
        self.end(key, "zset")

    def start_stream(self, key: Any, listpacks: int, expiry: Any, info: Any) -> None:
        self.begin(None, expiry)

    def end_stream(self, key: Any, items: int, last_entry_id: str, cgroups: Any) -> None:
        self.value = (items, last_entry_id, [group_of(g) for g in cgroups])
        self.end(key, "stream")

    def start_module(self, key: Any, name: str, expiry: Any, info: Any) -> bool:
        self.begin(name, expiry)
        return False

    def end_module(self, key: Any, buffer_size: int, buffer: Any = None) -> None:
        if key is not None:  # None: data of a module outside of keys
            self.end(key, "module")


def group_of(group: dict[str, Any]) -> tuple[Any, ...]:
    pending = [(p["id"], milliseconds(p["delivery_time"]), p["delivery_count"]) for p in group["pending"]]
    consumers = [(data(c["name"]), milliseconds(c["seen_time"]), sorted(p["id"] for p in c["pending"])) for c in group["consumers"]]
    return data(group["name"]), group["last_entry_id"], pending, consumers


def as_rdbtools_tells(record: rdbkit.Record) -> Any:
    """Our value with no more than rdbtools gives, and with its known defects."""
    value = record.value
    if isinstance(value, Stream):
        groups = []
        for g in value.groups:
            owned = [(c.name, c.seen_ms, sorted(raw_id(p.id) for p in g.pending if p.consumer == c.name)) for c in g.consumers]
            pending = [(raw_id(p.id), p.delivery_ms, p.delivery_count) for p in g.pending]
            groups.append((g.name, str(g.last_id), pending, owned))
        return value.length, str(value.last_id), groups  # its callback gets entries as the listpacks of the file
    if isinstance(value, ModuleValue):
        return value.module
    if record.encoding == "zipmap":
        # defect: it turns each text that int() takes into a number, so that b"007" becomes b"7"
        return {field: (as_number(text), None) for field, text in value.items()}
    return comparable(value)


def as_number(text: bytes) -> bytes:
    try:
        return b"%d" % int(text)
    except ValueError:
        return text


def expiry_as_rdbtools_tells(expire_ms: int | None) -> int | None:
    """Defect: seconds (opcode 253) are read without their sign, so that a time before 1970 is one after 2106."""
    return expire_ms if expire_ms is None or expire_ms >= 0 else expire_ms + (1000 << 32)


def known_dumps() -> list[Any]:
    """All but what has a type of KeyDB's own, which rdbtools never knew."""
    old = [p for p in DUMPS if p.read_bytes()[:9] <= b"REDIS0009" and p.name != "keydb-6.3.4-ext.rdb"]
    return [pytest.param(p, id=f"{p.parent.name}/{p.name}") for p in old]


@pytest.mark.parametrize("path", known_dumps())
def test_rdbtools_says_the_same(path: Path, parser: Any) -> None:
    collector = Collector()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # utcfromtimestamp, since Python 3.12
        parser.RdbParser(collector).parse(str(path))
    with rdbkit.open(path) as snapshot:
        ours = {(r.db, r.key): (r.type, as_rdbtools_tells(r), expiry_as_rdbtools_tells(r.expire_ms)) for r in snapshot}
    assert collector.found == ours
    assert len(ours) >= 15

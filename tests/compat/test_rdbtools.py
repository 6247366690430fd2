"""`rdbkit.compat.rdbtools` tells callbacks what rdbtools tells them where it reads a file, and what is in it elsewhere."""

from __future__ import annotations

import importlib
import io
import pickle
import random
import struct
import warnings
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from rdbkit.compat.rdbtools import MemoryCallback, RdbCallback, RdbParser, callbacks, encodehelpers
from rdbkit.compat.rdbtools import parser as our_parser
from rdbkit.snapshot.reader import open_snapshot

from ..format.test_decode import DAMAGED, ONLY_AS_A_WHOLE, PASSED_OVER, SOUND, Damage
from ..operations.test_rdbtools import known_dumps
from ..operations.test_rdbtools import parser as their_parser  # noqa: F401 (a fixture)
from ..rdb import FIXTURES, aux, each_dump, key, length, rdb, string

METHODS = [name for name in vars(RdbCallback) if not name.startswith(("_", "encode"))]
Calls = list[tuple[Any, ...]]


class Recorder(RdbCallback):
    """Keeps all calls, and asks for the bytes of modules."""

    def __init__(self) -> None:  # as many callbacks: without the one above
        self.calls: Calls = []


def _record(name: str) -> Callable[..., Any]:
    def method(self: Recorder, *args: Any, **named: Any) -> Any:
        assert list(named) in ([], ["info"], ["buffer_size", "buffer"])
        self.calls.append((name, *args, *(dict(v) if isinstance(v, dict) else v for v in named.values())))
        return name == "start_module"

    return method


for _name in METHODS:
    setattr(Recorder, _name, _record(_name))


def calls_of(source: Any, filters: dict[str, Any] | None = None) -> Calls:
    recorder = Recorder()
    RdbParser(recorder, filters).parse(io.BytesIO(source) if isinstance(source, bytes) else source)
    return recorder.calls


def named(calls: Calls, name: str) -> Calls:
    return [call[1:] for call in calls if call[0] == name]


@pytest.fixture
def in_small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that nearly every value is larger than a block."""
    monkeypatch.setattr(our_parser, "open_snapshot", partial(open_snapshot, block_size=16))


# -- against rdbtools itself


def without_what_differs(calls: Calls) -> Calls:
    """What the page of the docs lists."""
    cleaned: Calls = []
    for name, *args in calls:
        if name in ("start_module", "handle_module_data", "end_module") and args[0] is None:
            if name != "handle_module_data":
                cleaned.append((name, *(None if isinstance(arg, bytes) else arg for arg in args)))
            continue
        if name == "end_list":
            args[1].pop("sizeof_value", None)
        if name == "zadd" and isinstance(args[1], bytes):
            args[1] = float(args[1])
        if name == "hset" and isinstance(args[2], bytes):
            with suppress(ValueError):
                args[2] = int(args[2])  # values of a zipmap, such as " 1"
        if name == "start_hash" and args[3]["encoding"] == "zipmap" and args[1] >= 254:
            args[1] = 254  # which stands for more than can be said
        # unsigned there
        cleaned.append((name, *("late" if isinstance(a, datetime) and not 1970 < a.year < 2100 else a for a in args)))
    return cleaned


@pytest.mark.parametrize("path", known_dumps())
def test_the_calls_are_those_of_rdbtools(path: Path, their_parser: Any) -> None:  # noqa: F811
    theirs = Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        their_parser.RdbParser(theirs).parse(str(path))
    assert without_what_differs(calls_of(path)) == without_what_differs(theirs.calls)
    assert len(theirs.calls) > 1000


@pytest.mark.parametrize("escape", [None, *encodehelpers.ESCAPE_CHOICES])
@pytest.mark.parametrize("name", ["JSONCallback", "DiffCallback", "KeyValsOnlyCallback", "ProtocolCallback"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_the_output_is_that_of_rdbtools(name: str, escape: str | None, their_parser: Any) -> None:  # noqa: F811
    path = str(FIXTURES / "rich" / "redis-5.0.14-lru.rdb")
    theirs, ours = io.BytesIO(), io.BytesIO()
    their_callbacks = importlib.import_module("rdbtools.callbacks")
    their_parser.RdbParser(getattr(their_callbacks, name)(theirs, string_escape=escape)).parse(path)
    RdbParser(getattr(callbacks, name)(ours, string_escape=escape)).parse(path)
    assert ours.getvalue() == theirs.getvalue()
    assert len(ours.getvalue()) > 10_000


# -- against rdbkit


def text(item: Any) -> Any:
    return b"%d" % item if isinstance(item, int) else item


def told(calls: Calls) -> dict[tuple[int, bytes], tuple[Any, ...]]:
    """Type, value and expiry of each key as a user makes them of the calls."""
    found: dict[tuple[int, bytes], tuple[Any, ...]] = {}
    db = 0
    value: Any = None
    begun: tuple[Any, ...] = ()
    for name, *args in calls:
        if name == "start_database":
            db = args[0]
        elif name == "set":
            found[db, text(args[0])] = "string", text(args[1]), args[2]
        elif name.startswith("start_") and name not in ("start_rdb", "start_module"):
            value = []
            begun = tuple(args)
        elif name in ("sadd", "rpush"):
            value.append(text(args[1]))
        elif name == "hset":
            value.append((text(args[1]), text(args[2])))
        elif name == "zadd":
            value.append((text(args[2]), float(args[1])))
        elif name in ("end_hash", "end_set", "end_sorted_set"):
            assert begun[1] == len(value), "the length that was told"
            found[db, text(args[0])] = name[4:], value, begun[2]
        elif name == "end_list":
            found[db, text(args[0])] = "list", value, begun[1]
        elif name == "stream_listpack":
            value.append(args[1])
        elif name == "end_stream":
            assert begun[1] == len(value)
            found[db, text(args[0])] = "stream", tuple(args[1:3]), begun[2]
    return found


def expected(path: Path) -> dict[tuple[int, bytes], tuple[Any, ...]]:
    found: dict[tuple[int, bytes], tuple[Any, ...]] = {}
    with rdbkit.open(path) as snapshot:
        for record in snapshot:
            value: Any = record.value
            if record.type in ("hash", "zset"):
                value = [(k, v) for k, v in value.items()]
            elif record.type == "set":
                value = [member for batch in record.elements() for member in batch]
            elif record.type == "stream":
                value = value.length, str(value.last_id)
            elif record.type not in ("string", "list"):
                continue
            expiry = None if record.expire_ms is None else our_parser.to_datetime(record.expire_ms * 1000)
            found[record.db, record.key] = "sorted_set" if record.type == "zset" else record.type, value, expiry
    return found


@pytest.mark.parametrize("path", each_dump())
def test_every_value_is_told_whole(path: Path) -> None:
    assert told(calls_of(path)) == expected(path)


@pytest.mark.parametrize("path", each_dump("rich"))
@pytest.mark.usefixtures("in_small_blocks")
def test_values_larger_than_a_block_are_told_in_the_same_way(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small = calls_of(path)
    monkeypatch.undo()
    assert in_small == calls_of(path)


@pytest.mark.parametrize("made", SOUND, ids=lambda made: made.rule)
@pytest.mark.parametrize("size", [16, 1 << 20])
def test_every_encoding(made: Damage, size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hashes that share the names of their fields (RDB 15) among them."""
    path = tmp_path / "dump.rdb"
    path.write_bytes(rdb(made.preamble, b"\xfe\x03", key(b"k", made.type_code, made.value), magic=made.magic))
    monkeypatch.setattr(our_parser, "open_snapshot", partial(open_snapshot, block_size=size))
    assert told(calls_of(path)) == expected(path)


@pytest.mark.parametrize("size", [16, 1 << 20])
def test_every_breach_of_a_rule_is_an_error_with_its_place(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(our_parser, "open_snapshot", partial(open_snapshot, block_size=size))
    seen = 0
    for made in DAMAGED:
        if made.rule in PASSED_OVER or made.rule in ONLY_AS_A_WHOLE or made.type_code in (7, 28, 64):
            continue
        data = rdb(made.preamble, b"\xfe\x03", key(b"k", made.type_code, made.value), magic=made.magic)
        with pytest.raises(rdbkit.RdbError) as caught:
            calls_of(data)
        assert (caught.value.db, caught.value.key) == (3, b"k"), made.rule
        assert caught.value.offset is not None, made.rule
        seen += 1
    assert seen > 60


def test_numbers_are_ints_where_servers_keep_them_so() -> None:
    data = rdb(
        key(b"\xc0", 0, b"\xc0\x07")[:1] + b"\xc0\x0c" + b"\xc0\x07",  # the name 12, the value 7
        key(b"012", 0, string(b"0012")),
        key(b"-2147483648", 0, string(b"x")),
        key(b"2147483648", 0, string(b"x")),
        key(b"list", 1, b"\x02\xc1\x2c\x01" + string(b"300")),
    )
    calls = calls_of(data)
    assert [call[:2] for call in named(calls, "set")] == [
        (12, 7), (b"012", b"0012"), (-(1 << 31), b"x"), (b"2147483648", b"x"),
    ]  # fmt: skip
    assert named(calls, "rpush") == [(b"list", 300), (b"list", b"300")]


def test_times() -> None:
    later = key(b"later", 0, string(b"v"), 1 << 62)
    ago = key(b"ago", 0, string(b"v"), -(1 << 62))
    soon = key(b"soon", 0, string(b"v"), 1_700_000_000_123)
    assert [call[2] for call in named(calls_of(rdb(soon, later, ago)), "set")] == [
        datetime(2023, 11, 14, 22, 13, 20, 123000),
        our_parser.to_datetime(1 << 90).replace(microsecond=904000),
        datetime(1, 1, 1, 0, 0, 0, 96000),
    ]  # fmt: skip


def test_databases_and_what_the_file_says_of_itself() -> None:
    data = rdb(
        aux(b"redis-ver", b"7.0.15"), b"\xfa" + string(b"redis-bits") + b"\xc0\x40", aux(b"ctime", b"1700000000"),
        b"\xfe\x00\xfb\x01\x00", key(b"a", 0, string(b"v")), b"\xfe\x03", key(b"b", 0, string(b"w")),
    )  # fmt: skip
    info = {"encoding": "string", "idle": None, "freq": None}
    assert calls_of(data) == [
        ("start_rdb",),
        ("aux_field", b"redis-ver", b"7.0.15"), ("aux_field", b"redis-bits", 64), ("aux_field", b"ctime", 1700000000),
        ("start_database", 0), ("db_size", 1, 0), ("set", b"a", b"v", None, info), ("end_database", 0),
        ("start_database", 3), ("set", b"b", b"w", None, info), ("end_database", 3), ("end_rdb",),
    ]  # fmt: skip


def test_a_field_about_the_file_ends_reading() -> None:
    class Version(RdbCallback):
        version: Any = None

        def aux_field(self, key: bytes, value: Any) -> bool:
            self.version = value
            return key == b"redis-ver"

        def set(self, *args: Any, **named: Any) -> None:
            raise AssertionError

        def end_rdb(self) -> None:
            raise AssertionError

    callback = Version()
    RdbParser(callback).parse(io.BytesIO(rdb(aux(b"redis-ver", b"7.2.4"), key(b"k", 0, string(b"v")))))
    assert callback.version == b"7.2.4"


def test_what_rdbtools_never_knew() -> None:
    """Fields that expire, function libraries, and types that have no callback."""
    calls = calls_of(FIXTURES / "rich" / "redis-8.8-dev.rdb")
    with rdbkit.open(FIXTURES / "rich" / "redis-8.8-dev.rdb") as snapshot:
        records = list(snapshot)
        libraries = [(library.name, library.code) for library in snapshot.functions]
    fields = [
        (record.key, field, our_parser.to_datetime(when * 1000))
        for record in records
        if record.type == "hash"
        for field, when in record.value.field_expire_ms.items()
    ]
    assert fields
    assert [(key, text(field), when) for key, field, when in named(calls, "expire_member")] == fields
    assert libraries
    assert named(calls, "function_library") == libraries
    others = [r for r in records if r.type in ("array", "gcra")]
    assert others
    begun = named(calls, "start_module")
    ended = named(calls, "end_module")
    for record in others:
        assert (record.key, record.type, None, {"idle": record.idle_s, "freq": record.freq}) in begun
        assert (record.key, len(record.raw), bytes([record.rdb_type]) + record.raw) in ended


def test_values_of_modules() -> None:
    name = int("1" * 9, 2) << 10 | 3
    value = b"\x81" + name.to_bytes(8, "big") + b"\x02\x05" + b"\x05" + string(b"text") + b"\x05\xc0\x08"
    value += b"\x04" + struct.pack("<d", 1.5) + b"\x03" + struct.pack("<f", 0.5) + b"\x00"
    calls = calls_of(rdb(key(b"m", 7, value)))
    assert named(calls, "handle_module_data") == [
        (b"m", 2, 5), (b"m", 5, b"text"), (b"m", 5, 8), (b"m", 4, 1.5), (b"m", 3, 0.5),
    ]  # fmt: skip
    assert named(calls, "end_module") == [(b"m", len(value), b"\x07" + value)]


def test_a_packed_value_with_more_entries_than_its_header_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    count = 70_000
    entries = b"\x81a\x02" * count
    pack = (6 + len(entries) + 1).to_bytes(4, "little") + b"\xff\xff" + entries + b"\xff"
    data = rdb(b"\xfe\x00", key(b"h", 16, string(pack)), magic=b"REDIS0011")
    for size in (1 << 20, 16):
        monkeypatch.setattr(our_parser, "open_snapshot", partial(open_snapshot, block_size=size))
        calls = calls_of(data)
        assert named(calls, "start_hash")[0][1] == count // 2
        assert len(named(calls, "hset")) == count // 2


def test_groups_of_streams() -> None:
    path = FIXTURES / "rich" / "redis-7.0.15.rdb"
    ended = {call[0]: call[1:] for call in named(calls_of(path), "end_stream")}
    with rdbkit.open(path) as snapshot:
        streams = {record.key: record.value for record in snapshot if record.type == "stream"}
    assert sum(len(group.pending) for stream in streams.values() for group in stream.groups) > 0
    for name, stream in streams.items():
        _, last, groups = ended[name]
        assert last == str(stream.last_id)
        assert [g["name"] for g in groups] == [g.name for g in stream.groups]
        for said, group in zip(groups, stream.groups, strict=True):
            assert [e["id"] for e in said["pending"]] == [struct.pack(">QQ", *e.id) for e in group.pending]
            assert [e["delivery_count"] for e in said["pending"]] == [e.delivery_count for e in group.pending]
            of_consumers = sorted(e["id"] for consumer in said["consumers"] for e in consumer["pending"])
            assert of_consumers == sorted(struct.pack(">QQ", *e.id) for e in group.pending)


# -- filters


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (None, ["user:1", "user:2", "tag", "12", "n"]),
        ({}, ["user:1", "user:2", "tag", "12", "n"]),
        ({"dbs": None, "types": [], "keys": "", "not_keys": None}, ["user:1", "user:2", "tag", "12", "n"]),
        ({"keys": "user:"}, ["user:1", "user:2"]),
        ({"keys": "ser"}, []),
        ({"keys": ".*2"}, ["user:2", "12"]),
        ({"not_keys": "user"}, ["tag", "12", "n"]),
        ({"types": ["sortedset"]}, ["n"]),
        ({"types": ["string", "list"]}, ["user:1", "user:2", "12"]),
        ({"types": b"set"}, ["tag"]),
        ({"dbs": [1]}, ["12", "n"]),
        ({"dbs": 0, "keys": ".*", "not_keys": ".*1"}, ["user:2", "tag"]),
    ],
)
def test_filters(filters: dict[str, Any] | None, names: list[str]) -> None:
    data = rdb(
        b"\xfe\x00", key(b"user:1", 0, string(b"v")), key(b"user:2", 1, length(1) + string(b"e")),
        key(b"tag", 2, length(1) + string(b"m")), b"\xfe\x01", key(b"12", 0, string(b"v")),
        key(b"n", 5, length(1) + string(b"m") + struct.pack("<d", 1.0)),
    )  # fmt: skip
    calls = calls_of(data, filters)
    begun = [call[1] for call in calls if call[0] in ("set", "start_list", "start_set", "start_sorted_set")]
    assert [text(name).decode() for name in begun] == names
    assert named(calls, "start_database") == [(0,), (1,)], "databases are told of in any case"


def test_a_filter_of_another_kind() -> None:
    with pytest.raises(ValueError, match="no list"):
        RdbParser(RdbCallback(None), {"dbs": 1.5})


# -- errors


class Names(RdbCallback):
    """A loader: it catches what rdbtools raises."""

    def __init__(self) -> None:
        super().__init__(string_escape=None)
        self.names: list[Any] = []
        self.ended = False

    def set(self, key: Any, value: Any, expiry: Any, info: Any) -> None:
        self.names.append(key)

    def end_rdb(self) -> None:
        self.ended = True


@pytest.mark.parametrize("data", [b"", b"RED", b"hello world, this is a text", b"\0" * 100, b"REDIX0009"])
def test_what_is_no_snapshot(data: bytes) -> None:
    with pytest.raises(rdbkit.RdbError) as caught:
        RdbParser(Names()).parse_fd(io.BytesIO(data))
    assert caught.value.args == ("verify_magic_string", "Invalid File Format")
    assert isinstance(caught.value, Exception)
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.args, str(again)) == (caught.value.args, str(caught.value))


def test_a_version_that_is_not_known() -> None:
    with pytest.raises(rdbkit.UnsupportedVersionError) as caught:
        RdbParser(Names()).parse(io.BytesIO(rdb(magic=b"REDIS0099")))
    assert caught.value.args[0] == "verify_version"
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize(
    ("break_it", "error"),
    [
        (lambda data: data[:-12], rdbkit.TruncatedError),
        (lambda data: data[:-1] + b"x", rdbkit.ChecksumError),
        (lambda data: data[:-9] + b"\x50" + data[-8:], rdbkit.RdbError),
    ],
)
def test_what_stands_before_the_damage_is_told(break_it: Callable[[bytes], bytes], error: type[Exception]) -> None:
    callback = Names()
    data = break_it(rdb(*(key(b"k%d" % n, 0, string(b"v")) for n in range(1000))))
    with pytest.raises(error):
        RdbParser(callback).parse(io.BytesIO(data))
    assert len(callback.names) >= 999
    assert not callback.ended


def test_damage_in_a_value_names_the_key() -> None:
    data = rdb(key(b"good", 0, string(b"v")), key(b"bad", 13, string(b"\x05\0\0\0\0")), crc=False)
    with pytest.raises(rdbkit.CorruptError) as caught:
        calls_of(data)
    assert caught.value.key == b"bad"


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("faults/*.rdb")), ids=lambda path: path.stem)
@pytest.mark.parametrize("size", [16, 1 << 20])
def test_only_errors_of_rdbkit_come_out_of_damaged_files(path: Path, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(our_parser, "open_snapshot", partial(open_snapshot, block_size=size, verify_checksum=False))
    data = path.read_bytes()
    dice = random.Random(path.name)
    for callback in (Recorder, lambda: MemoryCallback(Seen(), 64)):
        for _ in range(15):
            broken = bytearray(data)
            for _ in range(dice.randrange(1, 4)):
                broken[dice.randrange(9, len(broken))] = dice.randrange(256)
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    RdbParser(callback()).parse(io.BytesIO(bytes(broken)))
            except rdbkit.RdbError:
                pass


def test_an_error_of_the_callback_passes() -> None:
    class Fails(RdbCallback):
        def set(self, *args: Any, **named: Any) -> None:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        RdbParser(Fails()).parse(io.BytesIO(rdb(key(b"k", 0, string(b"v")))))


def test_what_follows_the_snapshot_is_said() -> None:
    data = rdb(key(b"k", 0, string(b"v"))) + b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n"
    with pytest.warns(UserWarning, match="behind the snapshot stand commands"):
        RdbParser(Names()).parse(io.BytesIO(data))


# -- bounds


class Counted(io.BytesIO):
    def read(self, n: int | None = -1) -> bytes:
        self.most = self.tell() + (n or 0)
        return super().read(n)


@pytest.mark.parametrize(
    ("type_code", "method"), [(1, "rpush"), (2, "sadd"), (4, "hset"), (5, "zadd")], ids=["list", "set", "hash", "zset"]
)
def test_elements_come_while_the_value_is_read(type_code: int, method: str) -> None:
    """A collection of any size takes the memory of a block: the first element is told long before the last is read."""
    count = 400_000
    element = string(b"m" * 20)
    body = {1: element, 2: element, 4: element * 2, 5: element + struct.pack("<d", 0.5)}[type_code] * count
    file = Counted(rdb(key(b"k", type_code, length(count) + body)))

    class Enough(Exception):
        pass

    class First(RdbCallback):
        pass

    def first(self: RdbCallback, *args: Any) -> None:
        raise Enough

    setattr(First, method, first)
    with pytest.raises(Enough):
        RdbParser(First()).parse(file)
    assert file.most < 4 << 20 < len(body)


# -- programs as people have written them


def test_a_store_that_takes_strings_and_sorted_sets() -> None:
    """It opens the file itself, and knows neither hashes nor lists."""

    class Store(RdbCallback):
        def __init__(self) -> None:
            super().__init__(string_escape=None)
            self.strings: dict[bytes, bytes] = {}
            self.sets: dict[bytes, list[bytes]] = {}
            self.busy: bytes | None = None

        def set(self, key: bytes, value: bytes, expiry: Any, info: Any) -> None:
            self.strings[self.encode_key(key)] = self.encode_value(value)

        def start_sorted_set(self, key: bytes, length: int, expiry: Any, info: Any) -> None:
            self.busy = key
            self.sets[key] = []

        def zadd(self, key: bytes, score: float, member: bytes) -> None:
            assert key == self.busy
            self.sets[key].append(member)

        def end_sorted_set(self, key: bytes) -> None:
            self.busy = None

    store = Store()
    file = (FIXTURES / "rich" / "redis-8.0.6.rdb").open("rb")
    RdbParser(store).parse_fd(file)
    assert file.closed
    assert store.strings[b"str"] == b"hello"
    assert store.strings[b"i8"] == b"12"
    assert sorted(store.sets[b"z_lp"]) == [b"a", b"b", b"c", b"d", b"e"]
    assert store.busy is None


def test_a_reader_that_only_reads() -> None:
    class Reader:
        def __init__(self, data: bytes) -> None:
            self.read = io.BytesIO(data).read

    callback = Names()
    RdbParser(callback).parse_fd(Reader(rdb(key(b"k", 0, string(b"v")))))
    assert callback.names == [b"k"]


def test_a_table_of_rows_whose_class_never_calls_the_one_above() -> None:
    class Rows(RdbCallback):
        def __init__(self, write: Callable[[str], Any]) -> None:
            self.write = write

        def _row(self, *cells: Any) -> None:
            self.write(",".join(self.encode_value(cell).decode() for cell in cells) + "\n")

        def set(self, key: Any, value: Any, expiry: Any, info: Any) -> None:
            self._row(key, value)

        def hset(self, key: Any, field: Any, value: Any) -> None:
            self._row(key, field, value)

    out = io.StringIO()
    RdbParser(Rows(out.write), filters={"keys": "str|h_lp"}).parse(FIXTURES / "rich" / "redis-7.0.15.rdb")
    assert sorted(out.getvalue().splitlines()) == ["h_lp,f,v", "h_lp,n,123", "str,hello"]


def test_a_loader_into_a_client() -> None:
    """The calls of the callback are commands of a client."""

    class Client:
        def __init__(self) -> None:
            self.sent: list[tuple[Any, ...]] = []

        def __getattr__(self, name: str) -> Any:
            return lambda *args, **named: self.sent.append((name, *args, *named.values()))

    class Loader(RdbCallback):
        def __init__(self, client: Client) -> None:
            self.client = client
            self.expiry: datetime | None = None

        def set(self, key: Any, value: Any, expiry: Any, info: Any) -> None:
            self.client.set(key, value, expiry)

        def start_hash(self, key: Any, length: int, expiry: Any, info: Any) -> None:
            self.expiry = expiry

        def hset(self, key: Any, field: Any, value: Any) -> None:
            self.client.hset(key, field, value)

        def end_hash(self, key: Any) -> None:
            if self.expiry is not None:
                self.client.expireat(key, self.expiry)

        def sadd(self, key: Any, member: Any) -> None:
            self.client.sadd(key, member)

        def rpush(self, key: Any, value: Any) -> None:
            self.client.rpush(key, value)

        def zadd(self, key: Any, score: Any, member: Any) -> None:
            self.client.zadd(key, {member: score})

    client = Client()
    data = rdb(
        key(b"s", 0, string(b"v"), 1_700_000_000_000), key(b"h", 4, length(1) + string(b"f") + string(b"w"), 1_700_000_000_000),
        key(b"l", 1, length(2) + string(b"a") + string(b"b")), key(b"z", 5, length(1) + string(b"m") + struct.pack("<d", 2.5)),
    )  # fmt: skip
    RdbParser(Loader(client)).parse(io.BytesIO(data))
    when = datetime(2023, 11, 14, 22, 13, 20)
    assert client.sent == [
        ("set", b"s", b"v", when), ("hset", b"h", b"f", b"w"), ("expireat", b"h", when),
        ("rpush", b"l", b"a"), ("rpush", b"l", b"b"), ("zadd", b"z", {b"m": 2.5}),
    ]  # fmt: skip


def test_a_redis_of_dictionaries_that_is_no_callback_by_class() -> None:
    """Tests of others have a class with just the methods that their files need."""

    class Mock:
        def __init__(self) -> None:
            self.databases: dict[int, dict[Any, Any]] = {}

        def start_rdb(self) -> None: ...
        def aux_field(self, key: Any, value: Any) -> None: ...
        def db_size(self, size: int, expires: int) -> None: ...
        def end_rdb(self) -> None: ...
        def end_database(self, number: int) -> None: ...

        def start_database(self, number: int) -> None:
            self.db = self.databases.setdefault(number, {})

        def set(self, key: Any, value: Any, expiry: Any, info: Any) -> None:
            self.db[key] = value

    mock = Mock()
    parser = RdbParser(mock)
    parser.parse(io.BytesIO(rdb(b"\xfe\x00", key(b"125", 0, string(b"v")), b"\xfe\x02", key(b"k", 0, b"\xc0\x07"))))
    assert mock.databases == {0: {125: b"v"}, 2: {b"k": 7}}
    with pytest.raises(AttributeError, match="start_hash"):
        parser.parse(io.BytesIO(rdb(b"\xfe\x00", key(b"h", 4, length(1) + string(b"f") + string(b"w")))))


class Seen:
    """Takes records of memory."""

    def __init__(self) -> None:
        self.records: list[Any] = []

    def next_record(self, record: Any) -> None:
        self.records.append(record)

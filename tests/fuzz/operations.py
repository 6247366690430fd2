"""Everything that the library does with a file, as a table of operations that take one input each.

An operation gives back what it has written, by name. What it may raise is `RdbError` alone.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import rdbkit
from rdbkit.operations.check import check as run_check
from rdbkit.operations.export import export_jsonl, export_resp
from rdbkit.operations.info import info as run_info
from rdbkit.operations.keys import keys as run_keys
from rdbkit.operations.keys import write_columns, write_text
from rdbkit.operations.memory import memory as run_memory
from rdbkit.operations.memory import memory_rows, write_memory_text
from rdbkit.operations.value_json import value_json
from rdbkit.targets.target import find_target

NOW: Final = 1_800_000_000_000
TARGETS: Final = (
    "redis-2.8",
    "redis-4.0",
    "redis-6.0",
    "redis-7.0",
    "redis-7.2",
    "redis-8.0",
    "redis-8.8",
    "valkey-8.1",
    "valkey-9.1",
)
SERVICES: Final = ("azure-managed", "azure-premium")
BLOCKS: Final = (16, 64, 700, 1 << 20)
OTHER: Final = "redis-7.2.6.rdb"  # a sound file beside the input, of which `diff` and `merge` need one
VALKEY: Final = "valkey-9.1.2.rdb"  # the same for inputs of Valkey


@dataclass
class Work:
    """One input, and where to work on it.

    Attributes:
        path: the input, in a folder of its own in which `folder` is empty.
        other: a sound file of the same flavour.
        rng: decides options.
        label: which options were chosen, for the finding.
    """

    path: Path
    folder: Path
    other: Path
    rng: Random
    label: list[str] = field(default_factory=list)

    def pick(self, *choices: Any) -> Any:
        chosen = self.rng.choice(choices)
        self.label.append(str(chosen)[:60])
        return chosen

    def open(self, **more: Any) -> rdbkit.Snapshot:
        block_size = self.pick(*BLOCKS)
        return rdbkit.open(self.path, block_size=block_size, verify_checksum=self.pick(True, False), **more)


Outputs = dict[str, bytes]


def info(work: Work) -> Outputs:
    with work.open() as snapshot:
        run_info(snapshot)
    return {}


def keys(work: Work) -> Outputs:
    how = work.pick("objects", "csv", "json", "sorted", "parquet")
    with work.open() as snapshot:
        if how == "objects":
            for row in run_keys(snapshot):
                assert row.size > 0
        elif how == "parquet":
            write_columns(snapshot, io.BytesIO())
        else:
            sort = work.pick("size", "elements", "ttl") if how == "sorted" else None
            write_text(snapshot, io.BytesIO(), as_json=how == "json", sort=sort, limit=5 if sort else None)
    return {}


def export(work: Work) -> Outputs:
    with work.open() as snapshot:
        export_jsonl(snapshot, io.BytesIO(), on_error=work.pick("stop", "skip"))
    return {}


def commands(work: Work) -> Outputs:
    with work.open() as snapshot:
        target = work.pick("redis-4.0", "redis-6.0", "redis-8.0", "valkey-9.1")
        export_resp(snapshot, io.BytesIO(), target=target, on_loss=work.pick("fail", "drop"), on_error=work.pick("stop", "skip"))
    return {}


def get(work: Work) -> Outputs:
    with work.open() as snapshot:
        wanted = work.rng.randrange(8)
        for number, record in enumerate(snapshot):
            if number >= wanted:
                for _ in value_json(record):
                    pass
                break
    return {}


def check(work: Work) -> Outputs:
    with work.open() as snapshot:
        run_check(snapshot, find_target(work.pick(*TARGETS, *SERVICES)), now_ms=NOW)
    return {}


def check_deep(work: Work) -> Outputs:
    with work.open() as snapshot:
        run_check(snapshot, find_target(work.pick(*TARGETS, *SERVICES)), now_ms=NOW, deep=True)
    return {}


def policies(work: Work) -> rdbkit.Policies:
    match work.pick("fail", "drop", "more"):
        case "fail":
            return rdbkit.Policies()
        case "drop":
            return rdbkit.Policies(loss="drop")
        case _:
            return rdbkit.Policies(loss="drop", array="hash", field_ttl="key-min", pending_unowned="assign", owner=b"me")


def touched(key: rdbkit.ScriptRecord) -> rdbkit.ScriptRecord:
    assert key.value is not None
    return key


def edits(work: Work) -> rdbkit.Edits | None:
    match work.pick("none", "none", "none", "collapse", "map", "prefix", "ttl", "script"):
        case "collapse":
            return rdbkit.Edits(collapse_dbs=True, on_conflict=work.pick("first", "last", "rename"))
        case "map":
            return rdbkit.Edits(map_db={0: 1, 1: 0, 3: 0}, on_conflict=work.pick("fail", "first", "last"))
        case "prefix":
            return rdbkit.Edits(rename_prefix=((b"s", b"h"), (b"l", b"")), on_conflict=work.pick("first", "last"))
        case "ttl":
            return rdbkit.Edits(shift_ttl_ms=work.pick(-(10**9), 10**12), drop_expired=work.pick(True, False))
        case "script":
            return rdbkit.Edits(script=touched)
    return None


def selection(work: Work) -> rdbkit.Selection | None:
    match work.pick("none", "none", "type", "size", "key"):
        case "type":
            return rdbkit.Selection(types=work.pick("string", "hash", "stream", "zset"))
        case "size":
            return rdbkit.Selection(size=(work.pick(10, 100), None))
        case "key":
            return rdbkit.Selection(keys=work.pick(b"s*", b"*1*", b"h_lp"))
    return None


def run_convert(work: Work, **more: Any) -> Outputs:
    target = work.pick(*TARGETS, *SERVICES)
    out = io.BytesIO()
    rdbkit.convert(
        work.path, out, target=target, policies=policies(work), edits=edits(work), selection=selection(work),
        on_error=work.pick("stop", "skip"), compress=work.pick(True, False), verify_checksum=work.pick(True, False),
        block_size=work.pick(*BLOCKS), now_ms=NOW, **more,
    )  # fmt: skip
    return {f"converted to {target}": out.getvalue()}


def convert(work: Work) -> Outputs:
    return run_convert(work)


def convert_deep(work: Work) -> Outputs:
    return run_convert(work, deep=True)


def split(work: Work) -> Outputs:
    layouts = [rdbkit.Division(by=by) for by in ("db", "type", "prefix", "hash-tag")]
    if not work.path.read_bytes().startswith(b"\x1f\x8b"):  # how many bytes are in such a file is not known beforehand
        layouts += [rdbkit.Division(parts=2), rdbkit.Division(size=1 << 16)]
    layout = work.pick(*layouts)
    rdbkit.split(
        [str(work.path)], str(work.folder / "parts"), layout, functions=work.pick("first", "all"), digests=work.pick(True, False)
    )
    return {path.name: path.read_bytes() for path in sorted((work.folder / "parts").glob("*.rdb"))}


def merge(work: Work) -> Outputs:
    files = [str(work.path), str(work.other)]
    work.rng.shuffle(files)
    out = io.BytesIO()
    of_redis = work.other.name == OTHER and work.path.read_bytes().startswith(b"REDIS")
    target = work.pick(None, "redis-6.0", "redis-8.8") if of_redis else "redis-8.8"
    on_duplicate, on_function = work.pick("fail", "first", "last", "latest-expiry"), work.pick("fail", "first", "last")
    rdbkit.merge(
        files, out, on_duplicate=on_duplicate, on_function=on_function, policies=policies(work), target=target, now_ms=NOW,
        verify_checksum=work.pick(True, False),
    )  # fmt: skip
    return {"merged": out.getvalue()}


def diff(work: Work) -> Outputs:
    files = [str(work.path), str(work.other)]
    work.rng.shuffle(files)
    rdbkit.diff(files[0], files[1], verify_checksum=work.pick(True, False), block_size=work.pick(*BLOCKS), now_ms=NOW)
    return {}


def delta(work: Work) -> Outputs:
    files = [str(work.path), str(work.other)]
    work.rng.shuffle(files)
    out = work.folder / work.pick("delta.rdb", "delta.resp")
    more = {} if out.suffix == ".rdb" else {"target": work.pick("redis-6.0", "redis-8.0"), "on_loss": work.pick("fail", "drop")}
    rdbkit.diff(files[0], files[1], delta=out, verify_checksum=work.pick(True, False), now_ms=NOW, **more)
    return {out.name: out.read_bytes()} if out.suffix == ".rdb" else {}


def verify(work: Work) -> Outputs:
    rdbkit.verify(work.path, block_size=work.pick(*BLOCKS))
    return {}


def verify_deep(work: Work) -> Outputs:
    rdbkit.verify(work.path, deep=True, block_size=work.pick(*BLOCKS))
    return {}


def salvage(work: Work) -> Outputs:
    out = io.BytesIO()
    rdbkit.salvage(work.path, out, block_size=work.pick(*BLOCKS))
    return {"salvaged": out.getvalue()}


def redact(work: Work) -> Outputs:
    out = io.BytesIO()
    rdbkit.redact(
        work.path, out, secret=b"s", keep_prefixes=work.pick(True, False), keep_modules=work.pick(True, False),
        selection=selection(work), verify_checksum=work.pick(True, False), block_size=work.pick(*BLOCKS),
    )  # fmt: skip
    return {"redacted": out.getvalue()}


def memory(work: Work) -> Outputs:
    target = find_target(work.pick("redis-6.0", "redis-7.0", "redis-8.0", "valkey-9.1", *SERVICES))
    with work.open() as snapshot:
        match work.pick("report", "rows", "text"):
            case "report":
                run_memory(snapshot, target, now_ms=NOW)
            case "rows":
                for row in memory_rows(snapshot, target):
                    assert row.memory > 0
            case _:
                write_memory_text(snapshot, target, io.BytesIO(), as_json=work.pick(True, False))
    return {}


def plan(work: Work) -> Outputs:
    rdbkit.plan([str(work.path)], find_target(work.pick(*SERVICES)), now_ms=NOW)
    return {}


def records(work: Work) -> Outputs:
    """Values of records, one by one; behind a damaged one it goes on."""
    damaged: rdbkit.RdbError | None = None
    how = work.pick("value", "elements", "content", "raw")
    with work.open() as snapshot:
        for record in snapshot:
            try:
                if how == "value":
                    assert record.value is not None
                elif how == "elements":
                    for batch in record.elements():
                        assert batch
                elif how == "content" and record.type == "string":
                    for _ in record.content():
                        pass
                else:
                    assert record.raw
            except rdbkit.RdbError as e:
                damaged = e
    if damaged is not None:
        raise damaged
    return {}


def modules(work: Work) -> Outputs:
    """What modules wrote, and all that stands between keys."""
    with work.open() as snapshot:
        for item in snapshot.events():
            assert repr(item)
            if isinstance(item, rdbkit.Record) and item.type == "module":
                for _ in rdbkit.module_values(item.value.raw):
                    pass
    return {}


def build(work: Work) -> Outputs:
    """Lines of the input, damaged themselves, as a snapshot."""
    lines = io.BytesIO()
    with rdbkit.open(work.path, verify_checksum=False) as snapshot:
        export_jsonl(snapshot, lines, on_error="skip")
    text = [spoiled(line, work.rng) if work.rng.random() < 0.3 else line for line in lines.getvalue().splitlines()]
    out = io.BytesIO()
    rdbkit.build(text, out, target=work.pick(*TARGETS, *SERVICES), on_loss=work.pick("fail", "drop"))
    return {"built": out.getvalue()}


_PIECES: Final = (
    b'""', b"[]", b"{}", b"null", b"-1", b"0", b"1e400", b"NaN", b'"nan"', b"18446744073709551616", b"true", b'{"base64":"AA=="}',
    b"[[]]", b'{"base64":"%"}', b'"0-0"', b'"a"', b"[1,2]", b"1.5", b'"\\ud800"', b'"x":', b",", b'"hash"', b'"stream"', b'"list"',
    b"[" * 2000,
)  # fmt: skip


def spoiled(line: bytes, rng: Random) -> bytes:
    """A line of JSON with one of its parts replaced, repeated or taken out."""
    for _ in range(rng.choice([1, 1, 2])):
        marks = [i for i, byte in enumerate(line) if byte in b'[]{},:"'] or [0]
        begin = rng.choice(marks)
        end = min((mark for mark in marks if mark > begin), default=begin)
        if rng.random() < 0.5:
            later = [mark for mark in marks if mark > begin][:12]
            end = rng.choice(later or [begin])
        part = line[begin:end]
        match rng.randrange(4):
            case 0:
                line = line[:begin] + rng.choice(_PIECES) + line[end:]
            case 1:
                line = line[:begin] + part * 2 + line[end:]
            case 2:
                line = line[:begin] + line[end:]
            case _:
                at = rng.choice(marks)
                line = line[:at] + part + line[at:]
    return line.replace(b"\n", b" ")


OPERATIONS: Final[dict[str, Callable[[Work], Outputs]]] = {
    function.__name__: function
    for function in (
        info, keys, export, commands, get, check, check_deep, convert, convert_deep, split, merge, diff, delta, verify, verify_deep,
        salvage, redact, memory, plan, records, modules, build,
    )
}  # fmt: skip
#: How often each is chosen, beside 2 for others: what writes a file has more to get wrong.
WEIGHTS: Final = {
    "convert": 6,
    "convert_deep": 4,
    "salvage": 5,
    "redact": 4,
    "merge": 3,
    "split": 3,
    "delta": 3,
    "build": 4,
    "plan": 1,
}


def chosen(rng: Random, count: int) -> Iterator[str]:
    """Names of operations, some of them more often than others."""
    names = list(OPERATIONS)
    yield from rng.choices(names, [WEIGHTS.get(name, 2) for name in names], k=count)

"""What verbs write is sound, whatever they read: they refuse it, or what they write keeps every rule that its source keeps."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import rdbkit
from rdbkit.operations.build import build
from rdbkit.operations.convert import convert
from rdbkit.operations.merge import merge
from rdbkit.operations.redact import redact
from rdbkit.operations.salvage import salvage
from rdbkit.operations.split import Division, split
from rdbkit.operations.verify import verify
from rdbkit.policy.rules import Policies

from ..rdb import each_dump, key, rdb, string
from .test_verify import library

EACH = 6
HERE = [b"\xfe\x03", b"\xfb\x07\x02", library(b"#!lua name=l\n1"), library(b"no head"), b"\xf8\x05", b"\xf9\x05", b"\xfa\x01a\x01b"]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed, taken out, repeated or put in, with the checksum off."""
    out = bytearray(data[:-8]) if data[5:9] > b"0004" else bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(9, len(out))
        what = rng.randrange(5)
        size = rng.choice((1, 1, 2, 9, 40))
        if what == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif what == 1:
            out[at] = rng.randrange(256)
        elif what == 2:
            del out[at : at + size]
        elif what == 3:
            out[at:at] = out[at : at + size]
        else:
            out[at:at] = rng.choice(HERE)
    return bytes(out) + bytes(8)


def broken(data: bytes) -> set[str]:
    return {violation.rule.name for violation in verify(io.BytesIO(data), deep=True).violations}


def verbs(path: Path, data: bytes) -> dict[str, Callable[[], list[bytes]]]:
    """Under each name, what writes files of the one at `path`."""
    allow = Policies(loss="drop")

    def converted(target: str) -> Callable[[], list[bytes]]:
        def run() -> list[bytes]:
            out = io.BytesIO()
            convert(path, out, target=target, policies=allow)
            return [out.getvalue()]

        return run

    def merged() -> list[bytes]:
        other = path.with_name("other.rdb")
        other.write_bytes(rdb(key(b"another", 0, string(b"v")), magic=data[:9]))
        merge([str(path), str(other)], path.with_name("merged.rdb"), force=True)
        return [path.with_name("merged.rdb").read_bytes()]

    def parts() -> list[bytes]:
        into = path.with_name("parts")
        split([str(path)], str(into), Division(parts=2), force=True)
        return [part.read_bytes() for part in into.glob("*.rdb")]

    def redacted() -> list[bytes]:
        out = io.BytesIO()
        redact(path, out, secret=b"secret")
        return [out.getvalue()]

    return {
        "convert rdb-6": converted("rdb-6"),
        "convert redis-6.2": converted("redis-6.2"),
        "convert redis-7.2": converted("redis-7.2"),
        "merge": merged,
        "split": parts,
        "redact": redacted,
    }


@pytest.mark.one_in(4)
@pytest.mark.parametrize("dump", each_dump("rich"))
def test_what_is_written_of_damaged_files_is_no_worse(dump: Path, tmp_path: Path) -> None:
    whole = dump.read_bytes()
    path = tmp_path / "damaged.rdb"
    for number in range(EACH):
        data = mutated(whole, random.Random(f"{dump.stem} {number}"))
        path.write_bytes(data)
        before = broken(data)
        for name, write in verbs(path, data).items():
            try:
                files = write()
            except (rdbkit.RdbError, ValueError):
                continue
            for written in files:
                assert broken(written) <= before, (name, number)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("dump", each_dump("rich"))
def test_what_salvage_and_build_write_is_sound(dump: Path, tmp_path: Path) -> None:
    whole = dump.read_bytes()
    path = tmp_path / "damaged.rdb"
    for number in range(EACH):
        path.write_bytes(mutated(whole, random.Random(f"{dump.stem} {number} salvage")))
        out = io.BytesIO()
        salvage(path, out)
        assert not broken(out.getvalue()), number
        lines = [line for line in exported(path) if keeps(line)]
        for target in ("rdb-6", "redis-6.2", "redis-8.0", "valkey-9.1"):
            out = io.BytesIO()
            try:
                build(iter(lines), out, target=target, on_loss="drop")
            except rdbkit.RdbError:
                continue
            assert not broken(out.getvalue()), (number, target)


def exported(path: Path) -> list[bytes]:
    """The lines of a file up to where it is damaged."""
    from rdbkit.operations.export import export_jsonl

    out = io.BytesIO()
    try:
        with rdbkit.open(path) as snapshot:
            export_jsonl(snapshot, out, on_error="skip")
    except rdbkit.RdbError:
        pass
    return out.getvalue().splitlines()


def keeps(line: bytes) -> bool:
    """A line of a value that JSON lines can have."""
    return "value" in json.loads(line)


def test_the_name_of_a_library_stays_in_its_line() -> None:
    name = b"x\nredis.call('FLUSHALL')"
    early = b"\xf6" + string(name) + string(b"lua") + b"\0" + string(b"code")
    data = rdb(early, key(b"a", 0, string(b"b")), magic=b"REDIS0010")
    with pytest.raises(rdbkit.LossError) as caught:
        convert(io.BytesIO(data), io.BytesIO(), target="redis-7.2")
    assert "function" in str(caught.value)
    out = io.BytesIO()
    report = convert(io.BytesIO(data), out, target="redis-7.2", policies=Policies(function="drop"))
    assert [loss.kind for loss in report.ledger.losses] == ["function"]
    assert b"FLUSHALL" not in out.getvalue()
    assert not broken(out.getvalue())
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        (found,) = snapshot.functions
    assert not found.can_have_head
    assert found.code.split(b"\n")[0] == b"#!lua name=x_redis_call__FLUSHALL__"

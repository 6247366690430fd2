"""Zeros to the end of a file: no key and no value ever comes out of them, and what stands before them does."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

import rdbkit
from rdbkit.operations.check import CANNOT, check
from rdbkit.storage.source import FileSource, Source
from rdbkit.targets.target import find_target

from ..rdb import FIXTURES, Dribble, key, rdb, string

ZERO_TAIL = FIXTURES / "transfers" / "zero-tail.rdb"
RECORDS = [key(b"k%d" % i, 0, string(b"value %d" % i)) for i in range(20)]
BODY = b"REDIS0009\xfe\0\xfb\x14\0" + b"".join(RECORDS)


def names(source: Any, **options: Any) -> tuple[list[bytes], rdbkit.RdbError | None]:
    found: list[bytes] = []
    try:
        with rdbkit.open(source, **options) as snapshot:
            found.extend(record.key for record in snapshot)
    except rdbkit.RdbError as e:
        return found, e
    return found, None


def sources(data: bytes, tmp_path: Path) -> list[Any]:
    path = tmp_path / "dump.rdb"
    path.write_bytes(data)
    return [path, io.BytesIO(data), Dribble(data, 3), io.BytesIO(gzip.compress(data))]


@pytest.mark.parametrize("block_size", [16, 100, 1 << 20])
@pytest.mark.parametrize("zeros", [*range(1, 20), 200, 70_000])
def test_no_key_comes_out_of_zeros(zeros: int, block_size: int, tmp_path: Path) -> None:
    whole = [b"k%d" % i for i in range(20)]
    last = len(BODY) - len(RECORDS[-1])
    for cut in range(last, len(BODY) + 1):
        if zeros > 1000 and (cut - last) % 5:
            continue
        data = BODY[:cut] + bytes(zeros)
        tail = len(data) - len(data.rstrip(b"\0"))
        for source in sources(data, tmp_path):
            found, e = names(source, block_size=block_size)
            assert isinstance(e, rdbkit.TruncatedError)
            if tail >= 16:
                assert found == whole[: 20 if cut == len(BODY) else 19]
                assert f"zeros to the end of the file ({tail:,} bytes)" in str(e)
                assert e.offset == len(data) - tail
            else:  # they may be the value of a key whose name is there: the length of it, or the end of it
                named = cut - last - 5
                assert found == whole[: 20 if named == 0 or (named > 0 and cut + zeros >= len(BODY)) else 19]
                assert "the file ends" in str(e)


@pytest.mark.parametrize("block_size", [16, 100, 1 << 20])
def test_padding_and_checksums_of_zeros_are_as_ever(block_size: int, tmp_path: Path) -> None:
    for crc in (True, False):
        for zeros in (0, 1, 8, 503, 100_000):
            whole = rdb(b"\xfe\0", *RECORDS, crc=crc)
            for source in sources(whole + bytes(zeros), tmp_path):
                with rdbkit.open(source, block_size=block_size) as snapshot:
                    assert len(list(snapshot)) == 20
                assert snapshot.checksum is not None
                assert snapshot.checksum.state == ("ok" if crc else "disabled")
                assert snapshot.trailer == (("padding", zeros) if zeros else ("none", 0))
                assert snapshot.rdb_size == len(whole)
    for zeros in (0, 7, 600):  # RDB 4 and older have no checksum
        data = rdb(b"\xfe\0", *RECORDS, magic=b"REDIS0004", crc=None)
        found, e = names(io.BytesIO(data + bytes(zeros)), block_size=block_size)
        assert (len(found), e) == (20, None)


@pytest.mark.parametrize("block_size", [16, 5000, 1 << 20])
def test_values_of_zeros_are_read(block_size: int, tmp_path: Path) -> None:
    """Also the empty name, once, and values of zeros that are larger than a block, and what is looked at ahead."""
    large = bytes(200_000)
    data = rdb(b"\xfe\0", key(b"", 0, string(b"")), key(b"a", 0, string(large)), key(b"b", 0, string(large)), RECORDS[0])
    for source in sources(data, tmp_path):
        with rdbkit.open(source, block_size=block_size) as snapshot:
            assert [(r.key, b"".join(r.content())) for r in snapshot] == [
                (b"", b""),
                (b"a", large),
                (b"b", large),
                (b"k0", b"value 0"),
            ]
        assert snapshot.checksum is not None
        assert snapshot.checksum.state == "ok"


def test_zeros_in_the_midst_are_looked_at_once(tmp_path: Path) -> None:
    path = tmp_path / "zeros"
    path.write_bytes(b"a" + bytes(5 << 20) + b"b" + bytes(100))

    class Counting(io.FileIO):
        total = 0

        def read(self, n: int | None = -1) -> bytes:
            piece = super().read(-1 if n is None else n) or b""
            Counting.total += len(piece)
            return piece

    for source in (
        FileSource(cast(BinaryIO, Counting(path)), str(path), path.stat().st_size),
        Source(Counting(path), "", owned=True),
    ):
        Counting.total = 0
        pieces: list[bytes] = []
        while piece := source.refill(b"", 0, 1 << 14):
            pieces.append(piece)
            if piece.endswith(b"\0"):
                ahead = source.zeros_ahead()
                assert (ahead is None) == (sum(map(len, pieces)) <= 5 << 20)
        assert b"".join(pieces) == path.read_bytes()
        source.close()
        assert Counting.total < 2.5 * path.stat().st_size


def test_a_file_of_nothing_but_zeros() -> None:
    for size in (16, 5000):
        with pytest.raises(rdbkit.TruncatedError, match=rf"zeros to the end of the file \({size:,} bytes\)"):
            rdbkit.open(io.BytesIO(bytes(size)))


def test_what_the_verbs_say(tmp_path: Path) -> None:
    report = rdbkit.verify(ZERO_TAIL, deep=True)
    told = {violation.rule.code: violation.samples[0] for violation in report.violations}
    assert list(told) == ["RDB502"]
    assert (report.keys, told["RDB502"].offset, told["RDB502"].key) == (25, 400, b"post5")
    with rdbkit.open(ZERO_TAIL) as snapshot:
        found = check(snapshot, find_target("azure-premium"))
    assert (found.verdict, [f.title for f in found.findings if f.code == "RDB401"]) == (
        CANNOT, ["damaged: zeros to the end of the file (1,000 bytes), as a full disk leaves them"],
    )  # fmt: skip
    out = tmp_path / "out.rdb"
    assert rdbkit.salvage(ZERO_TAIL, out).kept == 25
    assert names(out)[0][-1] == b"post4"


def test_few_zeros_may_end_a_record_of_any_size() -> None:
    script = b"-2" + bytes(16)
    # A cron job of KeyDB: a script, two numbers of eight bytes, and two lists, which are empty here.
    data = b"REDIS0009\xfe\0" + key(b"k", 64, string(script) + bytes(2) + b"\5after\1v\xff" + bytes(8))
    for block_size in (16, 32, 1 << 20):
        with rdbkit.open(io.BytesIO(data), block_size=block_size) as snapshot:
            job = next(iter(snapshot)).value
            assert isinstance(job, rdbkit.CronJob)
            assert (job.script, job.keys, job.args) == (script, [], [])

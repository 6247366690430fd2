"""Compressed inputs: every format by its content, whole, cut, damaged, nested, with something behind, and as a bomb."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import random
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

import rdbkit
from rdbkit.operations.check import check
from rdbkit.operations.info import info
from rdbkit.operations.salvage import salvage
from rdbkit.operations.verify import verify
from rdbkit.storage.source import open_source
from rdbkit.targets.target import find_target

from ..rdb import FIXTURES, Dribble, key, rdb, string

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "zstd": lambda data: zstd.compress(data, options={zstd.CompressionParameter.checksum_flag: 1}),  # as the tool does
    "xz": lambda data: lzma.compress(data, preset=0),
    "bzip2": lambda data: bz2.compress(data, 1),
}
SOME = random.Random(1).randbytes(3000) + bytes(200_000)
SMALL = rdb(b"\xfe\0", *(key(b"k%d" % i, 0, string(b"value %d" % i)) for i in range(300)))
TRAILING = FIXTURES / "transfers" / "gzip-trailing.rdb.gz"
each_form = pytest.mark.parametrize("form", PACK)


def unpacked(data: bytes, step: int = 1 << 20, n: int = 1 << 20) -> tuple[str | None, bytes, int]:
    source = open_source(Dribble(data, step))
    pieces = []
    while piece := source.read(n):
        assert len(piece) <= n
        pieces.append(piece)
    assert source.read(n) == b""
    return source.compression, b"".join(pieces), source.ignored


@each_form
@pytest.mark.parametrize(("step", "n"), [(1, 1 << 20), (7, 5), (1 << 20, 1 << 20)])
def test_each_form_is_known_by_its_content_and_unpacked(form: str, step: int, n: int, tmp_path: Path) -> None:
    some = SOME[:5000] if n == 5 else SOME
    packed = PACK[form](some)
    assert unpacked(packed, step, n) == (form, some, 0)
    path = tmp_path / "without-a-suffix"
    path.write_bytes(packed)
    source = open_source(path)
    assert source.refill(b"", 0, 1 << 20) == some
    assert (source.size, source.consumed) == (len(packed), len(packed))
    source.close()


@each_form
def test_members_follow_each_other_with_and_without_zeros(form: str) -> None:
    pack = PACK[form]
    empty = pack(b"")
    assert unpacked(pack(b"one") + pack(b"two") + empty) == (form, b"onetwo", 0)
    assert unpacked(pack(b"one") + bytes(70_000) + pack(b"two") + bytes(5)) == (form, b"onetwo", 0)
    assert unpacked(empty) == (form, b"", 0)


def test_a_frame_that_is_to_be_skipped_stands_in_front() -> None:
    skipped = b"\x50\x2a\x4d\x18\x04\0\0\0size"
    assert unpacked(skipped + zstd.compress(b"one") + skipped) == ("zstd", b"one", 0)


@each_form
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_what_stands_behind_is_counted_and_not_read(form: str, step: int) -> None:
    packed = PACK[form](SMALL)
    assert unpacked(packed + b"garbage", step) == (form, SMALL, 7)
    assert unpacked(packed + bytes(3) + b"garbage" + bytes(100_000), step) == (form, SMALL, 100_010)
    with rdbkit.open(Dribble(packed + b"garbage", step)) as snapshot:
        report = info(snapshot)
    assert (report.types[0].keys, report.ignored, report.trailer) == (300, 7, "none")
    begun = PACK["gzip" if form == "xz" else "xz"](SMALL)
    assert unpacked(packed + begun, step)[2] == len(begun)


@each_form
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_a_snapshot_behind_the_compressed_data_is_a_loss(form: str, step: int) -> None:
    packed = PACK[form](SMALL)
    for behind in (SMALL, bytes(9) + SMALL, PACK["gzip" if form == "xz" else "xz"](SMALL)):
        with rdbkit.open(Dribble(packed + behind, step)) as snapshot:
            report = info(snapshot)
        assert (report.types[0].keys, report.trailer) == (300, "snapshot")
    with rdbkit.open(io.BytesIO(gzip.compress(packed) + SMALL)) as snapshot:
        report = info(snapshot)
    assert (report.ignored, report.trailer) == (len(SMALL), "snapshot")


def test_salvage_and_info_tell_of_a_snapshot_behind_the_compressed_data(tmp_path: Path) -> None:
    path = tmp_path / "two.rdb.gz"
    path.write_bytes(gzip.compress(SMALL) + SMALL)
    out = io.BytesIO()
    report = salvage(path, out)
    assert (report.kept, report.lost, report.lost_bytes, report.whole) == (300, {"behind": 1}, len(SMALL), False)
    assert verify(io.BytesIO(out.getvalue())).sound
    with rdbkit.open(path) as snapshot:
        rows = {row.target: (row.loads, row.why) for row in info(snapshot).loads_as_is}
    assert rows["azure-managed"] == ("partly", "what follows the snapshot (another snapshot) would be dropped silently")


def test_the_advice_for_a_file_that_is_compressed_is_for_what_is_in_it() -> None:
    with pytest.raises(rdbkit.CorruptError, match="FILE > NEW, where FILE is unpacked first"):
        rdbkit.open(io.BytesIO(gzip.compress(b" " + SMALL)))


@each_form
def test_a_form_may_be_packed_three_times_over(form: str) -> None:
    pack = PACK[form]
    assert unpacked(pack(pack(b"one"))) == (f"{form} in {form}", b"one", 0)
    assert unpacked(lzma.compress(pack(gzip.compress(SMALL)))) == (f"gzip in {form} in xz", SMALL, 0)
    with pytest.raises(rdbkit.LimitError, match="compressed more than 3 times over"):
        open_source(io.BytesIO(pack(pack(pack(pack(b"one"))))))


@each_form
def test_what_is_cut_is_truncated_wherever_it_is_cut(form: str) -> None:
    packed = PACK[form](SMALL)
    for size in range(6, len(packed), 1 + len(packed) // 150):
        for step in (1 << 20, 50):
            with pytest.raises(rdbkit.TruncatedError, match=f"the {form} data ends too early") as caught:
                unpacked(packed[:size], step)
            with pytest.raises(rdbkit.TruncatedError), rdbkit.open(Dribble(packed[:size], step)) as snapshot:
                list(snapshot)
        assert "\n" not in str(caught.value)
    # within what would be another member
    with pytest.raises(rdbkit.TruncatedError):
        unpacked(packed + packed[:2])


@each_form
def test_what_comes_before_a_cut_or_damage_is_read(form: str) -> None:
    values = random.Random(5)
    data = rdb(b"\xfe\0", *(key(b"k%d" % i, 0, string(values.randbytes(1000))) for i in range(600)))
    packed = PACK[form](data)
    half = len(packed) // 2
    for damaged in (packed[:half], packed[:half] + b"\xaa" * 5000 + packed[half + 5000 :]):
        source = open_source(io.BytesIO(damaged))
        parts: list[bytes] = []
        with pytest.raises(rdbkit.RdbError, match=f"the {form} data") as caught:
            parts.extend(iter(lambda: source.refill(b"", 0, 1 << 16), b""))  # noqa: B023
        read = b"".join(parts)
        assert len(read) > len(data) // 4
        assert read[: len(data) // 4] == data[: len(data) // 4]
        with pytest.raises(type(caught.value), match=f"the {form} data"):
            source.read(1)  # again and again, whoever reads on


@each_form
def test_damage_is_one_clear_line(form: str) -> None:
    packed = bytearray(PACK[form](SMALL))
    rng = random.Random(3)
    met = 0
    for _ in range(150):
        damaged = bytearray(packed)
        for _ in range(3):
            damaged[rng.randrange(6, len(packed))] ^= 1 << rng.randrange(8)
        with suppress(rdbkit.RdbError), rdbkit.open(io.BytesIO(damaged)) as snapshot:
            found = [record.key for record in snapshot]
            assert found == [b"k%d" % i for i in range(300)]  # what is changed is none of the data
            continue
        met += 1
    assert met > 100


def test_a_dictionary_larger_than_the_limit_is_refused() -> None:
    wide = {"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 28}
    packed = [lzma.compress(SMALL, filters=[wide])]
    compressor = zstd.ZstdCompressor(
        options={zstd.CompressionParameter.window_log: 28, zstd.CompressionParameter.enable_long_distance_matching: 1}
    )
    packed.append(compressor.compress(SMALL) + compressor.flush())
    for data in packed:
        with pytest.raises(rdbkit.LimitError, match="more than 128 MiB of memory"), rdbkit.open(io.BytesIO(data)) as snapshot:
            list(snapshot)


BOMB = """
import sys
from rdbkit.storage.source import open_source

class Zeros:  # 512 MiB of them, packed as they come
    def __init__(self, compressor):
        self.compressor, self.left = compressor, 512
    def read(self, n):
        while self.left:
            self.left -= 1
            data = self.compressor.compress(bytes(1 << 20))
            if data:
                return data
        data, self.compressor = self.compressor and self.compressor.flush(), None
        return data or b""

name = sys.argv[1]
if name == "zstd":
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    compressor = zstd.ZstdCompressor(1)
else:
    import bz2, lzma, zlib
    make = {"gzip": lambda: zlib.compressobj(1, wbits=31), "xz": lambda: lzma.LZMACompressor(preset=0), "bzip2": bz2.BZ2Compressor}
    compressor = make[name]()
source = open_source(Zeros(compressor))
total = 0
while piece := source.read(1 << 24):
    total += len(piece)
assert total == 1 << 29, total
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak is read from /proc")
@pytest.mark.parametrize("form", [form if form == "zstd" else pytest.param(form, marks=pytest.mark.exhaustive) for form in PACK])
def test_a_bomb_is_unpacked_in_bounded_memory(form: str) -> None:
    result = subprocess.run([sys.executable, "-c", BOMB, form], capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) < 100_000  # KiB


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delattr(sys.modules[missing.split(".")[0]], "zstd", raising=False)
    path = tmp_path / "dump.rdb.zst"
    path.write_bytes(zstd.compress(SMALL))
    for open_it in (lambda: rdbkit.open(path), lambda: rdbkit.salvage(path, io.BytesIO()), lambda: rdbkit.verify(path)):
        with pytest.raises(rdbkit.RdbError, match=r"pip install 'rdbkit\[zstd\]'") as caught:
            open_it()
        assert caught.value.source == str(path)


@each_form
def test_check_and_info_say_who_takes_it(form: str) -> None:
    packed = PACK[form](SMALL)
    for target in ("redis-7.0", "azure-premium", "azure-managed"):
        with rdbkit.open(io.BytesIO(packed + b"garbage")) as snapshot:
            report = check(snapshot, find_target(target))
        found = {finding.code: finding for finding in report.findings}
        assert report.verdict != "cannot"
        takes = (form, target) == ("gzip", "azure-managed")
        assert ("RDB405" in found) == (not takes)
        if not takes:
            assert found["RDB405"].title == f"compressed with {form}"
        assert found["RDB412"].title == f"7 bytes behind the {form} data, which are ignored"
        assert found["RDB412"].severity == "note"
        with rdbkit.open(io.BytesIO(packed)) as snapshot:
            loads = next(row for row in info(snapshot).loads_as_is if row.target == target)
        assert (loads.loads, form in loads.why) == (("yes", False) if takes else ("no", True))


@each_form
def test_salvage_keeps_what_can_be_unpacked(form: str, tmp_path: Path) -> None:
    values = random.Random(5)
    data = rdb(b"\xfe\0", *(key(b"k%d" % i, 0, string(values.randbytes(1000))) for i in range(600)))
    path = tmp_path / "dump"
    packed = PACK[form](data)
    path.write_bytes(packed[: len(packed) // 2])
    report = rdbkit.salvage(path, io.BytesIO())
    assert report.cut
    assert 150 < report.kept <= 300
    # of a file without a checksum that of the compressed data tells that something is changed
    data = rdb(b"\xfe\0", *(key(b"k%d" % i, 0, string(values.randbytes(40))) for i in range(200)), crc=False)
    changed = bytearray(PACK[form](data))
    changed[{"gzip": -8, "zstd": -1, "xz": -33, "bzip2": -4}[form]] ^= 0x20
    path.write_bytes(changed)
    report = rdbkit.salvage(path, io.BytesIO())
    assert (report.kept, report.checksum) == (200, "mismatch" if form != "xz" else "unknown")  # xz holds back the end mark


def test_bytes_behind_gzip_are_told_of() -> None:
    report = rdbkit.verify(TRAILING)
    assert (report.sound, report.keys, report.notes) == (True, 2, ["7 bytes behind the gzip data, which are ignored"])
    with rdbkit.open(TRAILING) as snapshot:
        assert [(record.key, record.value) for record in snapshot] == [(b"a", b"1"), (b"b", b"hello")]
        assert snapshot.ignored == 7

"""Uploads to a real emulator of the blob service: whole, resumed, refused, cut."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pytest

import rdbkit
from rdbkit.azure.credentials import Credentials
from rdbkit.azure.errors import meaning, translating_errors
from rdbkit.azure.upload import Upload, upload, upload_converted
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.storage.blob_url import BlobUrl, parse_place

from .. import command_line
from ..azurite import ACCOUNT, CUT, KEY, MUTE, PASS, Cutter, by_key_alone, needs_azurite, service
from ..clock import Clock
from ..processes import GUARD, until
from ..rdb import FIXTURES

pytestmark = needs_azurite
BLOCK = 1 << 16
RDBKIT = [sys.executable, "-m", "rdbkit"]
DUMP = FIXTURES / "rich/redis-7.0.15.rdb"
Proxy = Callable[..., tuple[Cutter, Callable[[BlobUrl], BlobUrl]]]


@pytest.fixture
def account(blobs: str) -> str:
    return blobs


@pytest.fixture
def place(account: str, request: pytest.FixtureRequest) -> BlobUrl:
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    return parse_place(f"{account}/dumps/{name}.rdb")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    by_key_alone(monkeypatch)


def blob_of(place: BlobUrl) -> Any:
    return service(place.account).get_blob_client(place.container, place.blob)


def content(place: BlobUrl) -> bytes:
    data: bytes = blob_of(place).download_blob().readall()
    return data


def a_file(tmp_path: Path, size: int, name: str = "dump.rdb") -> Path:
    path = tmp_path / name
    path.write_bytes(Random(size).randbytes(size))
    return path


@pytest.fixture
def proxy(account: str) -> Iterator[Proxy]:
    """Makes a `Cutter` before the service, and what makes a place be reached through it."""
    made: list[Cutter] = []

    def make(**settings: Any) -> tuple[Cutter, Callable[[BlobUrl], BlobUrl]]:
        netloc = urlsplit(account).netloc
        cutter = Cutter(urlsplit(account).port or 0, **settings)
        made.append(cutter)
        return cutter, lambda place: parse_place(place.url.replace(netloc, f"127.0.0.1:{cutter.port}"))

    yield make
    for each in made:
        each.close()


def is_commit(line: bytes) -> bool:
    """Whether the first line of a request is that of one that makes a blob of its blocks."""
    return line.startswith(b"PUT ") and b"comp=blocklist" in line


def run(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return command_line.run("upload", *arguments, environment=os.environ | environment)


def run_process(*arguments: str | Path, data: bytes | None = None, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*RDBKIT, "upload", *map(str, arguments)], input=data, capture_output=True, env=os.environ | environment, check=False
    )


# -- whole


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 20 * BLOCK + 7])
def test_a_file_arrives_as_it_is(place: BlobUrl, tmp_path: Path, size: int) -> None:
    path = a_file(tmp_path, size)
    seen: list[int] = []
    done = upload(path, place, block_bytes=BLOCK, progress=seen.append)
    assert content(place) == path.read_bytes()
    assert (done.bytes, done.sent_bytes, done.blocks, done.kept) == (size, size, -(-size // BLOCK), 0)
    assert done.md5 == hashlib.md5(path.read_bytes()).hexdigest()
    found = blob_of(place).get_blob_properties()
    assert bytes(found.content_settings.content_md5).hex() == done.md5
    assert str(found.etag) == done.etag
    assert not seen or seen[-1] == size


@pytest.mark.parametrize("size", [0, 1, 511, 512, 513, 5 * BLOCK + 100])
def test_a_page_blob_is_filled_up(place: BlobUrl, tmp_path: Path, size: int) -> None:
    path = a_file(tmp_path, size)
    done = upload(path, place, block_bytes=BLOCK, page_blob=True)
    whole = path.read_bytes() + bytes(-size % 512)
    assert content(place) == whole
    assert done.bytes == len(whole)
    found = blob_of(place).get_blob_properties()
    assert found.blob_type == "PageBlob"
    assert bytes(found.content_settings.content_md5).hex() == hashlib.md5(whole).hexdigest() == done.md5


def test_pages_of_zeros_are_not_sent(place: BlobUrl, tmp_path: Path) -> None:
    path = tmp_path / "holes.rdb"
    path.write_bytes(b"a" * BLOCK + bytes(4 * BLOCK) + b"b" * BLOCK)
    done = upload(path, place, block_bytes=BLOCK, page_blob=True)
    assert done.sent_bytes == 2 * BLOCK
    assert content(place) == path.read_bytes()


def test_a_stream_arrives_as_it_is(place: BlobUrl) -> None:
    data = Random(1).randbytes(5 * BLOCK + 9)
    done = upload(io.BytesIO(data), place, block_bytes=BLOCK)
    assert content(place) == data
    assert done.blocks == 6


def test_a_snapshot_is_converted_on_its_way(place: BlobUrl) -> None:
    policies = rdbkit.Policies(function="drop")
    conversion = ConversionOptions(policies=policies)
    report, done = upload_converted(str(DUMP), place, target="azure-premium", conversion=conversion, block_bytes=BLOCK)
    out = io.BytesIO()
    rdbkit.convert(str(DUMP), out, target="azure-premium", policies=policies)
    assert report.written == 27
    with rdbkit.open(io.BytesIO(content(place))) as snapshot:
        assert str(snapshot.header) == "REDIS0009"
        assert sum(1 for _ in snapshot) == 27
    assert done.bytes == len(content(place))


def test_where_a_conversion_loses_data_there_is_no_blob(place: BlobUrl) -> None:
    with pytest.raises(rdbkit.LossError) as caught:
        upload_converted(str(DUMP), place, target="azure-premium")
    assert caught.value.report is not None
    assert not blob_of(place).exists()


def test_a_damaged_snapshot_gives_no_blob(place: BlobUrl, tmp_path: Path) -> None:
    path = tmp_path / "cut.rdb"
    path.write_bytes(DUMP.read_bytes()[:-100])
    with pytest.raises(rdbkit.RdbError):
        upload_converted(str(path), place, target="redis-7.0")
    assert not blob_of(place).exists()


# -- refused


def test_a_blob_that_exists_is_refused_before_anything_is_sent(place: BlobUrl, tmp_path: Path) -> None:
    first, second = a_file(tmp_path, BLOCK), a_file(tmp_path, 3 * BLOCK, "other.rdb")
    upload(first, place)
    with pytest.raises(rdbkit.TargetError, match="--overwrite"):
        upload(second, place)
    assert content(place) == first.read_bytes()
    _, waiting = blob_of(place).get_block_list("all")
    assert waiting == []
    upload(second, place, overwrite=True)
    assert content(place) == second.read_bytes()


def test_a_blob_that_somebody_makes_meanwhile_stays(place: BlobUrl, tmp_path: Path) -> None:
    class Meddling(io.BytesIO):
        def read(self, n: int | None = -1) -> bytes:
            piece = super().read(n)
            if not piece:
                blob_of(place).upload_blob(b"theirs", overwrite=True)
            return piece

    # the end is read before the blob is made of its blocks
    with pytest.raises(rdbkit.TargetError):
        upload(Meddling(b"ours" * BLOCK), place, block_bytes=BLOCK)
    assert content(place) == b"theirs"


@pytest.mark.parametrize("overwrite", [False, True])
def test_no_container(account: str, tmp_path: Path, overwrite: bool) -> None:
    with pytest.raises(rdbkit.TargetError, match="no such container"):
        upload(a_file(tmp_path, 9), parse_place(f"{account}/nothing-here/x.rdb"), overwrite=overwrite)


def test_a_wrong_key_and_a_wrong_sas_are_refused_and_not_shown(place: BlobUrl, tmp_path: Path) -> None:
    for credentials in (Credentials(key="c2VjcmV0"), Credentials(sas="sv=2024-01-01&sp=rw&sig=c2VjcmV0")):
        with pytest.raises(rdbkit.TargetError) as caught:
            upload(a_file(tmp_path, 9), place, credentials=credentials)
        assert "403" in str(caught.value)
        assert "c2VjcmV0" not in str(caught.value) + repr(credentials)


def test_a_file_that_grows_is_no_blob(place: BlobUrl, tmp_path: Path) -> None:
    path = a_file(tmp_path, 10 * BLOCK)

    def grow(done: int) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    with pytest.raises(rdbkit.ChangedError, match="changed"):
        upload(path, place, block_bytes=BLOCK, concurrency=1, progress=grow)
    assert not blob_of(place).exists()


@pytest.mark.parametrize("page_blob", [False, True])
def test_a_file_that_is_changed_in_place_is_no_blob(place: BlobUrl, tmp_path: Path, page_blob: bool) -> None:
    path = a_file(tmp_path, 10 * BLOCK)
    os.utime(path, ns=(0, 0))  # clocks of file systems are coarse

    def change(done: int) -> None:
        with path.open("r+b") as file:
            file.write(b"changed")

    with pytest.raises(rdbkit.ChangedError, match="changed or replaced while it was read; run this again"):
        upload(path, place, block_bytes=BLOCK, concurrency=1, progress=change, page_blob=page_blob)
    assert page_blob or not blob_of(place).exists()


def test_a_file_that_gives_its_name_to_another_is_sent_as_it_was(place: BlobUrl, tmp_path: Path) -> None:
    path, other = a_file(tmp_path, 4 * BLOCK), a_file(tmp_path, BLOCK, "other.rdb")
    was = path.read_bytes()

    def replace(done: int) -> None:
        if other.exists():
            other.replace(path)

    upload(path, place, block_bytes=BLOCK, concurrency=1, progress=replace)
    assert content(place) == was


def test_a_source_that_is_changed_while_it_is_converted_gives_no_blob(place: BlobUrl, tmp_path: Path) -> None:
    path = tmp_path / "dump.rdb"
    path.write_bytes(DUMP.read_bytes())
    with pytest.raises(rdbkit.ChangedError, match="changed"):
        upload_converted(str(path), place, target="redis-7.0", progress=lambda done: os.utime(path, ns=(0, 0)))
    assert not blob_of(place).exists()


def test_a_stream_of_nothing_is_no_blob(place: BlobUrl) -> None:
    with pytest.raises(rdbkit.RdbError, match="nothing was read"):
        upload(io.BytesIO(), place)
    assert not blob_of(place).exists()
    done = run_process("-", place.url, data=b"")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (3, b"", 1)
    assert b"<stdin>: nothing was read" in done.stderr
    assert not blob_of(place).exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_named_pipe_is_a_stream(place: BlobUrl, tmp_path: Path) -> None:
    path, data = tmp_path / "pipe", Random(5).randbytes(3 * BLOCK)
    os.mkfifo(path)
    writer = threading.Thread(target=path.write_bytes, args=(data,))
    writer.start()
    done = upload(path, place, block_bytes=BLOCK)
    writer.join()
    assert content(place) == data
    assert done.blocks == 3


def test_blocks_of_another_tool_are_told(place: BlobUrl, tmp_path: Path) -> None:
    path, blob = a_file(tmp_path, 3 * BLOCK), blob_of(place)
    for name in ("short", "b" * 48):
        blob.stage_block(name, b"theirs")
        with pytest.raises(rdbkit.TargetError, match="another tool has left blocks there"):
            upload(path, place, block_bytes=BLOCK)
        # what the message says helps
        blob.upload_blob(b"", overwrite=True)
        blob.delete_blob()
    upload(path, place, block_bytes=BLOCK)
    assert content(place) == path.read_bytes()


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdbkit.azure.upload._RETRIES", 0)
    with pytest.raises(rdbkit.TargetError, match="cannot be reached"):
        upload(a_file(tmp_path, 9), parse_place(f"http://127.0.0.1:1/{ACCOUNT}/dumps/x.rdb"))


def test_a_block_that_is_changed_on_the_way_is_refused(place: BlobUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from azure.storage.blob import BlobClient

    stage = BlobClient.stage_block

    def changed(client: Any, block_id: str, data: bytes, *arguments: Any, **more: Any) -> Any:
        return stage(client, block_id, bytes([data[0] ^ 1]) + data[1:], *arguments, **more)

    monkeypatch.setattr(BlobClient, "stage_block", changed)
    with pytest.raises(rdbkit.TargetError, match=r"(?i)md5"):
        upload(a_file(tmp_path, BLOCK), place)
    assert not blob_of(place).exists()


# -- resumed


class Spy:
    """Counts the blocks that a service is sent, as a proxy sees them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from azure.storage.blob import BlobClient

        self.names: list[str] = []
        stage = BlobClient.stage_block

        def spying(client: Any, block_id: str, *arguments: Any, **more: Any) -> Any:
            answer = stage(client, block_id, *arguments, **more)
            self.names.append(block_id)
            return answer

        monkeypatch.setattr(BlobClient, "stage_block", spying)


def test_an_upload_that_broke_goes_on_with_what_is_there(place: BlobUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = a_file(tmp_path, 20 * BLOCK + 5)
    spy = Spy(monkeypatch)

    class Enough(Exception):
        pass

    def stop(done: int) -> None:
        if done >= 8 * BLOCK:
            raise Enough

    with pytest.raises(Enough):
        upload(path, place, block_bytes=BLOCK, concurrency=2, progress=stop)
    sent = list(spy.names)
    assert len(sent) >= 7
    done = upload(path, place, block_bytes=BLOCK)
    assert done.kept == len(sent)
    assert len(set(spy.names)) == len(spy.names) == 21, "no block is sent twice"
    assert content(place) == path.read_bytes()


def test_a_file_that_has_changed_since_is_sent_as_it_is_now(place: BlobUrl, tmp_path: Path) -> None:
    path = a_file(tmp_path, 10 * BLOCK)
    blob = blob_of(place)
    for number in range(10):
        data = path.read_bytes()[number * BLOCK :][:BLOCK]
        blob.stage_block(f"{number:05}{hashlib.md5(data).hexdigest()}", data)
    changed = bytearray(path.read_bytes())
    changed[3 * BLOCK] ^= 1
    path.write_bytes(changed)
    done = upload(path, place, block_bytes=BLOCK)
    assert (done.kept, done.sent_bytes) == (9, BLOCK)
    assert content(place) == changed


# -- there already


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(("page_blob", "size"), [(False, 0), (False, 3 * BLOCK + 5), (True, 1024), (True, 3 * BLOCK + 5)])
def test_a_blob_that_is_the_file_is_not_sent(
    place: BlobUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page_blob: bool, size: int, overwrite: bool
) -> None:
    path = a_file(tmp_path, size)
    first = upload(path, place, block_bytes=BLOCK, page_blob=page_blob)
    spy = Spy(monkeypatch)
    again = upload(path, place, block_bytes=BLOCK, page_blob=page_blob, overwrite=overwrite)
    assert (again.present, again.sent_bytes, again.kept, spy.names) == (True, 0, 0, [])
    assert (again.bytes, again.md5, again.etag) == (first.bytes, first.md5, first.etag)
    assert not first.present


def test_a_blob_that_is_another_is_refused_or_replaced(place: BlobUrl, tmp_path: Path) -> None:
    path, other = a_file(tmp_path, 3 * BLOCK), tmp_path / "other.rdb"
    upload(path, place, block_bytes=BLOCK)
    read: list[int] = []
    for data, is_read in ((path.read_bytes()[1:], False), (b"\0" + path.read_bytes()[1:], True)):
        other.write_bytes(data)
        read.clear()
        with pytest.raises(rdbkit.TargetError, match="the blob exists; --overwrite replaces it"):
            upload(other, place, block_bytes=BLOCK, progress=read.append)
        assert bool(read) == is_read, "a file of another length is not read"
    with pytest.raises(rdbkit.TargetError, match="exists"):
        upload(path, place, page_blob=True)
    with pytest.raises(rdbkit.TargetError, match="exists"):
        upload(io.BytesIO(path.read_bytes()), place)
    done = upload(other, place, block_bytes=BLOCK, overwrite=True)
    assert (done.present, done.bytes) == (False, 3 * BLOCK)
    assert content(place) == other.read_bytes()
    blob_of(place).upload_blob(other.read_bytes(), overwrite=True)  # which has no MD5 by which it could be known
    properties = blob_of(place).get_blob_properties().content_settings
    properties.content_md5 = None
    blob_of(place).set_http_headers(properties)
    with pytest.raises(rdbkit.TargetError, match="exists"):
        upload(other, place, block_bytes=BLOCK)


def test_a_blob_that_is_what_a_conversion_gives_is_not_sent(
    place: BlobUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop = rdbkit.Policies(function="drop")
    first, sent = upload_converted(str(DUMP), place, target="azure-premium", conversion=ConversionOptions(policies=drop))
    spy = Spy(monkeypatch)
    again, done = upload_converted(str(DUMP), place, target="azure-premium", conversion=ConversionOptions(policies=drop))
    assert (done.present, done.sent_bytes, done.md5, done.etag, spy.names) == (True, 0, sent.md5, sent.etag, [])
    assert (again.written, again.ledger.counts) == (first.written, first.ledger.counts)
    for target in ("redis-7.0", "redis-4.0"):
        policies = rdbkit.Policies(loss="drop")
        with pytest.raises(rdbkit.TargetError, match="the blob exists"):
            upload_converted(str(DUMP), place, target=target, conversion=ConversionOptions(policies=policies))
    assert spy.names == []


def test_a_process_that_is_killed_behind_the_commit(place: BlobUrl, tmp_path: Path, proxy: Proxy) -> None:
    path = a_file(tmp_path, 3 * BLOCK)
    started, committed = threading.Event(), threading.Event()

    def decide(line: bytes) -> str:
        if is_commit(line):
            committed.set()
        elif line.startswith(b"HEAD ") and committed.is_set():
            started.wait()
            process.kill()
            return CUT
        return PASS

    _, through = proxy(decide=decide)
    process = subprocess.Popen([*RDBKIT, "upload", str(path), through(place).url], stderr=subprocess.DEVNULL)
    started.set()
    assert process.wait() == -signal.SIGKILL
    assert content(place) == path.read_bytes()
    done = run(path, place.url)
    assert done.returncode == 0, done.stderr
    assert b"nothing: the blob was there" in done.stdout
    (report,) = json.loads(run(path, place.url, "--json").stdout)["blobs"]
    assert (report["present"], report["sent_bytes"]) == (True, 0)


@pytest.mark.parametrize("times", [1, 100])
@pytest.mark.parametrize("overwrite", [False, True])
def test_the_answer_to_the_commit_is_lost(
    place: BlobUrl, tmp_path: Path, pauses: list[float], proxy: Proxy, overwrite: bool, times: int
) -> None:
    """Once, so that another try is refused, and with every try."""
    if overwrite:
        blob_of(place).upload_blob(b"old")
    path = a_file(tmp_path, 3 * BLOCK)
    cutter, through = proxy(decide=lambda line: MUTE if is_commit(line) else PASS, most=times)
    done = upload(path, through(place), block_bytes=BLOCK, overwrite=overwrite)
    assert cutter.cuts >= 1
    assert not done.present
    assert content(place) == path.read_bytes()
    assert str(blob_of(place).get_blob_properties().etag) == done.etag


def test_a_commit_that_does_not_arrive_is_none(place: BlobUrl, tmp_path: Path, pauses: list[float], proxy: Proxy) -> None:
    path = a_file(tmp_path, 3 * BLOCK)
    _, through = proxy(decide=lambda line: CUT if is_commit(line) else PASS)
    with pytest.raises(rdbkit.TargetError, match=r"connection broke: .*; run this again to go on"):
        upload(path, through(place), block_bytes=BLOCK)
    assert not blob_of(place).exists()
    assert upload(path, place, block_bytes=BLOCK).kept == 3


@pytest.mark.parametrize("cuts", [5, 6])
def test_how_often_a_request_is_tried_again(place: BlobUrl, tmp_path: Path, pauses: list[float], proxy: Proxy, cuts: int) -> None:
    """Five times, with pauses of about a minute together."""
    path = a_file(tmp_path, 99)
    _, through = proxy(decide=lambda line: CUT if b"comp=block&" in line else PASS, most=cuts)
    if cuts == 5:
        upload(path, through(place))
        assert content(place) == path.read_bytes()
    else:
        with pytest.raises(rdbkit.TargetError, match="the connection broke"):
            upload(path, through(place))
    assert len(pauses) == 5
    assert sum((3, 5, 9, 17, 33)) == pytest.approx(sum(pauses), abs=5 * 3)


def test_where_nobody_is_at_first_it_is_not_tried_as_often(tmp_path: Path, pauses: list[float]) -> None:
    with pytest.raises(rdbkit.TargetError, match=r"cannot be reached: .*refused"):
        upload(a_file(tmp_path, 9), parse_place(f"http://127.0.0.1:1/{ACCOUNT}/dumps/x.rdb"))
    assert len(pauses) == 2


# -- nothing is waited for


class Silent:
    """A source that has given something and then says nothing, till the test lets it; the watchdog is for tests that fail."""

    name = "silent"

    def __init__(self, data: bytes) -> None:
        self.data = io.BytesIO(data)
        self.let = threading.Event()
        self.watchdog = threading.Timer(GUARD, self.let.set)
        self.watchdog.start()

    def read(self, n: int) -> bytes:
        piece = self.data.read(n)
        if not piece:
            self.let.wait()
        return piece

    def end(self) -> None:
        self.watchdog.cancel()
        self.let.set()


def test_a_refusal_does_not_wait_for_the_source(place: BlobUrl) -> None:
    blob_of(place).upload_blob(b"theirs")
    source = Silent(DUMP.read_bytes()[:9])
    with pytest.raises(rdbkit.TargetError, match="exists"):
        upload_converted(source, place, target="redis-7.0")
    assert not source.let.is_set()
    source.end()
    process = subprocess.Popen(
        [*RDBKIT, "upload", "-", place.url, "--target", "redis-7.0"], stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        assert process.wait(GUARD) == 4
        assert b"exists" in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


def test_a_failure_does_not_wait_for_the_source(place: BlobUrl, pauses: list[float], proxy: Proxy) -> None:
    whole = io.BytesIO()
    with rdbkit.create(whole, version=10) as writer:
        for number in range(16):
            writer.put(b"key%d" % number, Random(number).randbytes(1 << 20))
    _, through = proxy(decide=lambda line: CUT if b"comp=block&" in line else PASS)
    source = Silent(whole.getvalue()[:-1])
    with pytest.raises(rdbkit.TargetError, match="the connection broke"):
        upload_converted(source, through(place), target="redis-7.0", block_bytes=4 << 20)
    assert not source.let.is_set()
    source.end()


# -- cut


def test_a_connection_that_is_cut_is_tried_again(place: BlobUrl, tmp_path: Path, pauses: list[float], proxy: Proxy) -> None:
    path = a_file(tmp_path, 12 * BLOCK)
    cutter, through = proxy(limit=3 * BLOCK + 100, most=3)
    done = upload(path, through(place), block_bytes=BLOCK, concurrency=1)
    assert cutter.cuts == 3
    assert done.bytes == 12 * BLOCK
    assert content(place) == path.read_bytes()


class Gate:
    """Lets a number of blocks pass, and none any more when it is shut."""

    def __init__(self, blocks: int) -> None:
        self.left = threading.Semaphore(blocks)
        self.is_shut = False

    def decide(self, line: bytes) -> str:
        if b"comp=block&" in line:
            self.left.acquire()
        return CUT if self.is_shut else PASS

    def shut(self) -> None:
        self.is_shut = True
        self.left.release(1000)


def test_a_process_that_is_killed_three_times(place: BlobUrl, tmp_path: Path, proxy: Proxy) -> None:
    """And no block is sent again after the service has acknowledged it."""
    size = 200 * BLOCK
    path = a_file(tmp_path, size)
    blob = blob_of(place)
    for round_ in range(3):
        gate = Gate(20)
        _, through = proxy(decide=gate.decide)
        process = subprocess.Popen(
            [*RDBKIT, "upload", str(path), through(place).url, "--block-size", "64KiB", "--concurrency", "4"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        until(partial(lambda enough: len(waiting(blob)) >= enough, 20 * (round_ + 1)), process)
        process.send_signal(signal.SIGKILL)
        process.wait()
        gate.shut()
    acknowledged = len(waiting(blob))
    assert acknowledged == 60
    counter, through = proxy()
    ended = run(path, through(place).url, "--block-size", "64KiB", "--json")
    assert ended.returncode == 0, ended.stderr
    (report,) = json.loads(ended.stdout)["blobs"]
    assert report["kept"] == acknowledged
    assert report["sent_bytes"] == size - acknowledged * BLOCK
    assert counter.sent < report["sent_bytes"] + 4 * BLOCK, "the wire has seen no more than that"
    assert content(place) == path.read_bytes()
    assert hashlib.md5(path.read_bytes()).hexdigest() == report["md5"]


def waiting(blob: Any) -> list[Any]:
    from azure.core.exceptions import ResourceNotFoundError

    try:
        found: list[Any] = blob.get_block_list("uncommitted")[1]
    except ResourceNotFoundError:
        return []
    return found


def test_the_rate_is_kept(place: BlobUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    upload(a_file(tmp_path, 32 * BLOCK), place, block_bytes=BLOCK, concurrency=1, cap_mbps=16)  # 2 MiB at 2 MB/s
    assert clock.now == pytest.approx(31 * BLOCK / 2e6), "each block but the first has waited for those before it"


# -- credentials


def test_every_kind_of_credential(place: BlobUrl, account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from datetime import UTC, datetime, timedelta

    from azure.storage.blob import ContainerSasPermissions, generate_container_sas

    path = a_file(tmp_path, 99)
    connection = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={account};"
    sas = generate_container_sas(
        ACCOUNT, "dumps", account_key=KEY, expiry=datetime.now(UTC) + timedelta(hours=1),
        permission=ContainerSasPermissions(read=True, write=True, create=True),
    )  # fmt: skip
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    for credentials in (
        Credentials(connection_string=connection),
        Credentials(sas=sas),
        Credentials(sas=f"?{sas}"),
        Credentials(key=KEY),
    ):
        upload(path, place, credentials=credentials, overwrite=True)
    upload(path, parse_place(f"{place.url}?{sas}"), overwrite=True)
    for name, value in (("CONNECTION_STRING", connection), ("SAS_TOKEN", sas), ("KEY", KEY)):
        monkeypatch.setenv(f"AZURE_STORAGE_{name}", value)
        upload(path, place, overwrite=True)
        monkeypatch.delenv(f"AZURE_STORAGE_{name}")
    with pytest.raises(ValueError, match="https"):
        upload(path, place, overwrite=True)
    with pytest.raises(ValueError, match="a key takes a URL that has the account's name"):
        upload(path, parse_place("https://mystore/dumps/x"), credentials=Credentials(key=KEY))
    with pytest.raises(ValueError, match="another account"):
        upload(path, parse_place("https://a.blob.core.windows.net/dumps/b"), credentials=Credentials(connection_string=connection))


# -- the command line


def test_files_go_to_a_folder_under_their_names(account: str, tmp_path: Path) -> None:
    one, other = a_file(tmp_path, 100, "a.rdb"), a_file(tmp_path, 200, "b c.rdb")
    done = run(one, other, f"{account}/dumps/some folder/", "--json")
    assert done.returncode == 0, done.stderr
    urls = [blob["url"] for blob in json.loads(done.stdout)["blobs"]]
    assert [url.rsplit("/", 2)[1:] for url in urls] == [["some%20folder", "a.rdb"], ["some%20folder", "b%20c.rdb"]]
    assert content(parse_place(urls[1])) == other.read_bytes()


def test_several_files_go_on_with_those_that_are_there(account: str, tmp_path: Path) -> None:
    one, other = a_file(tmp_path, 100, "a.rdb"), a_file(tmp_path, 200, "b.rdb")
    assert run(one, f"{account}/dumps/several/").returncode == 0
    done = run(one, other, f"{account}/dumps/several/", "--json")
    assert done.returncode == 0, done.stderr
    assert [blob["present"] for blob in json.loads(done.stdout)["blobs"]] == [True, False]


@pytest.mark.parametrize("why", ["lost", "refused", "damaged"])
def test_of_several_files_those_are_told_that_were_sent(account: str, tmp_path: Path, why: str) -> None:
    one, other = tmp_path / "a.rdb", tmp_path / "b.rdb"
    rdbkit.convert(str(DUMP), one, target="redis-6.2", policies=rdbkit.Policies(function="drop"))
    other.write_bytes(DUMP.read_bytes()[: -100 if why == "damaged" else None])
    folder = f"{account}/dumps/told-{why}/"
    if why == "refused":
        blob_of(parse_place(f"{folder}b.rdb")).upload_blob(b"theirs")
    policy = [] if why == "lost" else ["--on-function", "drop"]
    done = run(one, other, folder, "--json", "--target", "azure-premium", *policy)
    assert done.returncode == {"lost": 1, "refused": 4, "damaged": 3}[why]
    (sent,) = json.loads(done.stdout)["blobs"]
    assert sent["url"] == f"{folder}a.rdb"
    assert content(parse_place(sent["url"]))[:5] == b"REDIS"
    if why == "lost":
        said = f"rdbkit: nothing of {other} was sent; of 1 FILE before it, all was. To write it all the same:\n".encode()
        assert said in done.stderr
    alone = run(one, other, folder, "--target", "azure-premium", *policy)
    assert alone.returncode == done.returncode
    assert b"nothing: the blob was there" in alone.stdout


def test_what_helps_against_losses_is_what_there_is(place: BlobUrl, tmp_path: Path) -> None:
    lost = run(DUMP, place.url, "--target", "azure-managed")
    assert lost.returncode == 1, lost.stderr
    assert b"  database: --map-db or --collapse-dbs to move them, --db to choose\n" in lost.stderr
    assert f"nothing of {DUMP} was sent. ".encode() in lost.stderr
    many = tmp_path / "many.rdb"
    with rdbkit.create(many, version=10) as writer:
        for number in range(30):
            writer.put(b"key%d" % number, b"value", db=1)
    lost = run(many, place.url, "--target", "azure-managed")
    assert b"and 10 more; --ledger FILE has all" in lost.stderr
    ledger = tmp_path / "ledger.jsonl"
    for number in range(2):  # the second time the blob is there, and the file is converted before it is sent
        done = run(many, place.url, "--target", "azure-managed", "--on-loss", "drop", "--ledger", str(ledger))
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in ledger.read_text().splitlines()]
        assert [(row["file"], row["kind"], row["key"]) for row in rows] == [
            (str(many), "database", f"key{n}") for n in range(30)
        ]  # fmt: skip
        assert b"nothing: the blob was there" in done.stdout or number == 0
        ledger.unlink()
    assert run(many, place.url, "--target", "azure-managed", "--collapse-dbs", "--overwrite").returncode == 0
    with rdbkit.open(io.BytesIO(content(place))) as snapshot:
        assert {record.db for record in snapshot} == {0}
    chosen = run(many, place.url, "--target", "azure-managed", "--db", "1", "--map-db", "1=0", "--key", "key7", "--overwrite")
    assert chosen.returncode == 0, chosen.stderr
    with rdbkit.open(io.BytesIO(content(place))) as snapshot:
        assert [record.key for record in snapshot] == [b"key7"]


def test_options_of_a_conversion_take_one(place: BlobUrl, tmp_path: Path) -> None:
    path, targets = a_file(tmp_path, 9), tmp_path / "targets.toml"
    targets.write_text("")
    for option, value in (
        ("--on-function", "drop"), ("--on-loss", "fail"), ("--targets-file", str(targets)), ("--map-db", "1=0"), ("--key", "a*"),
        ("--jobs", "2"), ("--ledger", str(tmp_path / "l.jsonl")),
    ):  # fmt: skip
        done = run(path, place.url, option, value)
        assert done.returncode == 2
        assert f"{option} is for a conversion, which takes --target".encode() in done.stderr
    assert not blob_of(place).exists()


def test_a_url_where_a_file_is_wanted_is_not_shown_with_its_secret(account: str, tmp_path: Path) -> None:
    path, url, query = a_file(tmp_path, 9), f"{account}/dumps/x", "?sv=1&sig=c2VjcmV0"
    for arguments in (
        (f"{url}{query}", path),
        (f"{url}{query}", url),
        (f"a.blob.core.windows.net/dumps/x{query}", url),
        (path, url, "--sas", f"@{url}{query}"),
        (path, url, "--block-size", f"{url}{query}"),
        (path, url, "--targets-file", f"{url}{query}"),
        (path, url, "--on-function", f"{url}{query}"),
        (path, f"http://127.0.0.1:99999/{query}"),
        (path, f"{account}/Dumps/x{query}"),
    ):
        done = run(*arguments)
        assert done.returncode in (2, 3, 4), done.stderr
        assert b"c2VjcmV0" not in done.stderr + done.stdout
        assert done.stderr.count(b"\n") <= 4


@pytest.mark.skipif(sys.platform in ("win32", "darwin"), reason="names of files are text there")
def test_a_name_that_is_no_text(place: BlobUrl, account: str, tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.rdb"))
    path.write_bytes(b"data")
    done = run(path, f"{account}/dumps/")
    assert done.returncode == 2
    assert b"Error: bad\\xff.rdb: a blob's name is UTF-8, and this file's is not; let the URL name the blob\n" in done.stderr
    assert run(path, place.url).returncode == 0
    assert content(place) == b"data"
    for name in ("\udcff", "%ff"):
        with pytest.raises(ValueError, match="not UTF-8"):
            parse_place(f"{account}/dumps/{name}")


def test_standard_input_and_conversion(place: BlobUrl, account: str) -> None:
    done = run_process("-", place.url, data=DUMP.read_bytes())
    assert done.returncode == 0, done.stderr
    assert content(place) == DUMP.read_bytes()
    assert b"MD5" in done.stdout
    lost = run(DUMP, place.url, "--overwrite", "--target", "azure-premium")
    assert (lost.returncode, lost.stdout) == (1, b"")
    assert b"--on-function" in lost.stderr
    assert content(place) == DUMP.read_bytes()
    dropped = run(DUMP, place.url, "--overwrite", "--target", "azure-premium", "--on-function", "drop")
    assert dropped.returncode == 0
    assert content(place)[:9] == b"REDIS0009"
    assert run(DUMP, place.url, "--overwrite", "--target", "azure-premium", "--on-function", "drop", "--strict").returncode == 1
    alone = run(DUMP, place.url, "--overwrite", "--strict")
    assert (alone.returncode, b"--strict is for a conversion, which takes --target" in alone.stderr) == (2, True)


def test_functions_are_extracted_where_they_are_not_sent(place: BlobUrl, tmp_path: Path) -> None:
    out = tmp_path / "functions.lua"
    done = run(DUMP, place.url, "--target", "azure-premium", "--on-function", f"extract={out}")
    assert done.returncode == 0, done.stderr
    assert out.read_bytes().startswith(b"#!lua name=l\n")
    again = run(DUMP, place.url, "--overwrite", "--target", "azure-premium", "--on-function", f"extract={out}")
    assert again.returncode == 2
    assert b"exists" in again.stderr
    out.unlink()
    kept = run(DUMP, place.url, "--overwrite", "--target", "redis-7.0", "--on-function", f"extract={out}", "--strict")
    assert (kept.returncode, b"#!lua name=l" in content(place)) == (0, True)
    assert out.read_bytes().startswith(b"#!lua name=l\n")


def test_what_is_wrong_is_said_in_one_line(place: BlobUrl, account: str, tmp_path: Path) -> None:
    path, other = a_file(tmp_path, 9), a_file(tmp_path, 10, "other.rdb")
    assert run(path, place.url).returncode == 0
    for arguments, code, said in (
        ((other, place.url), 4, b"--overwrite"),
        ((tmp_path / "none.rdb", place.url), 3, b"No such file"),
        ((path, f"{account}/nothing-here/x"), 4, b"no such container"),
        ((path, f"{place.url}?sv=2024-01-01&sig=c2VjcmV0"), 4, b"403"),
        ((path, place.url, "--overwrite", "--sas", "@nothing"), 2, b"nothing"),
        ((path,), 2, b"URL"),
        ((path, "dumps/x"), 2, b"https://"),
        ((path, path, place.url), 2, b"slash"),
        ((path, path, f"{account}/dumps/"), 2, b"one blob"),
        (("-", f"{account}/dumps/"), 2, b"no name"),
        (("-", place.url, "--overwrite", "--page-blob"), 2, b"length"),
        ((DUMP, place.url, "--page-blob", "--target", "redis-7.0"), 2, b"convert the file first"),
    ):
        done = run(*arguments)
        assert done.returncode == code, (arguments, done.stderr)
        assert said in done.stderr
        assert code == 2 or done.stderr.count(b"\n") == 1, done.stderr
        assert b"c2VjcmV0" not in done.stderr + done.stdout


def test_without_the_packages_it_says_what_to_install(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    (blocked / "azure" / "storage").mkdir(parents=True)
    (blocked / "azure" / "storage" / "__init__.py").write_text("raise ImportError('no', name='azure.storage.blob')")
    (blocked / "azure" / "__init__.py").write_text("")
    done = run_process(a_file(tmp_path, 9), "https://a.blob.core.windows.net/dumps/b", PYTHONPATH=str(blocked))
    assert done.returncode == 4
    assert b"pip install 'rdbkit[azure]'" in done.stderr


# -- words


def test_addresses() -> None:
    place = parse_place("https://acc.blob.core.windows.net/dumps/folder/a%20b.rdb?sv=1&sig=c2VjcmV0")
    assert (place.account, place.container, place.blob) == ("https://acc.blob.core.windows.net", "dumps", "folder/a b.rdb")
    assert "c2VjcmV0" not in repr(place) + place.url
    assert parse_place("https://acc.blob.core.windows.net/$root/b").container == "$root"
    for port in ("99999", "0", "x"):
        with pytest.raises(ValueError, match="port is not valid"):
            parse_place(f"https://user:c2VjcmV0@127.0.0.1:{port}/{ACCOUNT}/dumps/x")
    for container in ("Dumps", "m8", "a--b", "-ab", "ab-", "d" * 64, "a_b"):
        with pytest.raises(ValueError, match="3 to 63 small letters, digits and single hyphens"):
            parse_place(f"https://acc.blob.core.windows.net/{container}/b")
    for wrong in ("acc/c/b", "ftp://a/c", "https://acc.blob.core.windows.net", "https://acc.blob.core.windows.net/"):
        with pytest.raises(ValueError, match="https://"):
            parse_place(wrong)


def test_a_key_that_is_none(place: BlobUrl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = a_file(tmp_path, 9)
    done = run(path, place.url, AZURE_STORAGE_KEY="c2VjcmV0x")
    assert done.returncode == 2
    assert b"AZURE_STORAGE_KEY is no account key, which is base64" in done.stderr
    connection = f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey=c2VjcmV0x;BlobEndpoint={place.account};"
    with pytest.raises(ValueError, match="AccountKey in the connection string is no account key") as caught:
        upload(path, place, credentials=Credentials(connection_string=connection))
    assert "c2VjcmV0" not in str(caught.value)


def test_no_identity(tmp_path: Path) -> None:
    done = run_process(
        a_file(tmp_path, 9), "https://a.blob.core.windows.net/dumps/b", AZURE_STORAGE_KEY="",
        AZURE_TOKEN_CREDENTIALS="EnvironmentCredential", AZURE_CLIENT_ID="",
    )  # fmt: skip
    assert done.returncode == 4
    assert b"no identity is found: sign in (az login), or give a SAS or a connection string\n" in done.stderr


def test_a_host_that_is_not_found(tmp_path: Path, pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(rdbkit.TargetError) as caught:
        upload(a_file(tmp_path, 9), parse_place("https://mystore.blob.core.invalid/dumps/b"))
    assert "the host mystore.blob.core.invalid cannot be found; check the account's name" in caught.value.message


def test_a_certificate_that_is_not_accepted() -> None:
    import ssl

    from azure.core.exceptions import ServiceRequestError

    refused = ssl.SSLCertVerificationError(1, "certificate verify failed")
    refused.verify_message = "self-signed certificate"
    with pytest.raises(rdbkit.TargetError, match="not accepted: self-signed certificate"), translating_errors("https://a/b"):
        raise ServiceRequestError("x", error=OSError(refused))


def test_words_of_the_service_are_not_found_in_others() -> None:
    large = "take a larger size"
    for message in ("OOM command not allowed", "System.OutOfMemoryException", "the engine is out of memory"):
        assert large in (meaning("OperationFailed", message) or "")
    for code, message in (("TooManyRequests", "TooManyRequests: slow down"), ("X", "the room is full"), ("X", "a zoom level")):
        assert large not in (meaning(code, message) or "")


def test_the_same_words_mean_something_else_to_another_service() -> None:
    from azure.core.exceptions import HttpResponseError

    for headers, said in (
        ({"x-ms-version": "2024-01-01"}, "the request is not allowed"),
        ({}, "the storage account refuses the cache"),
    ):
        response = SimpleNamespace(status_code=403, reason="Forbidden", headers=headers)
        with pytest.raises(rdbkit.TargetError, match=said), translating_errors("x"):
            raise HttpResponseError("This is not authorized to perform this operation.", response=response)


def test_the_report_is_plain() -> None:
    assert json.dumps(Upload("u").to_dict())

"""Uploads to a real emulator of the blob service: whole, resumed, refused, cut."""

from __future__ import annotations

import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest

import rdbkit
from rdbkit.azure.failures import scrub
from rdbkit.azure.places import Credentials, Place, parse_place
from rdbkit.azure.upload import Upload, upload, upload_converted

from .azurite import ACCOUNT, KEY, Cutter, needs_azurite, running, service
from .clock import Clock
from .rdb import FIXTURES

pytestmark = needs_azurite
BLOCK = 1 << 16
RDBKIT = [sys.executable, "-m", "rdbkit"]
DUMP = FIXTURES / "rich/redis-7.0.15.rdb"


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("azurite")) as url:
        service(url).create_container("dumps")
        yield url


@pytest.fixture
def place(account: str, request: pytest.FixtureRequest) -> Place:
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    return parse_place(f"{account}/dumps/{name}.rdb")


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_SAS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_STORAGE_KEY", KEY)


def blob_of(place: Place) -> Any:
    return service(place.account).get_blob_client(place.container, place.blob)


def content(place: Place) -> bytes:
    data: bytes = blob_of(place).download_blob().readall()
    return data


def a_file(tmp_path: Path, size: int, name: str = "dump.rdb") -> Path:
    path = tmp_path / name
    path.write_bytes(Random(size).randbytes(size))
    return path


def run(*arguments: str | Path, data: bytes | None = None, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*RDBKIT, "upload", *map(str, arguments)], input=data, capture_output=True, env=os.environ | environment, check=False
    )


# -- whole


@pytest.mark.parametrize("size", [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, 20 * BLOCK + 7])
def test_a_file_arrives_as_it_is(place: Place, tmp_path: Path, size: int) -> None:
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
def test_a_page_blob_is_filled_up(place: Place, tmp_path: Path, size: int) -> None:
    path = a_file(tmp_path, size)
    done = upload(path, place, block_bytes=BLOCK, page_blob=True)
    whole = path.read_bytes() + bytes(-size % 512)
    assert content(place) == whole
    assert done.bytes == len(whole)
    found = blob_of(place).get_blob_properties()
    assert found.blob_type == "PageBlob"
    assert bytes(found.content_settings.content_md5).hex() == hashlib.md5(whole).hexdigest() == done.md5


def test_pages_of_zeros_are_not_sent(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "holes.rdb"
    path.write_bytes(b"a" * BLOCK + bytes(4 * BLOCK) + b"b" * BLOCK)
    done = upload(path, place, block_bytes=BLOCK, page_blob=True)
    assert done.sent_bytes == 2 * BLOCK
    assert content(place) == path.read_bytes()


def test_a_stream_arrives_as_it_is(place: Place) -> None:
    data = Random(1).randbytes(5 * BLOCK + 9)
    done = upload(io.BytesIO(data), place, block_bytes=BLOCK)
    assert content(place) == data
    assert done.blocks == 6


def test_a_snapshot_is_converted_on_its_way(place: Place) -> None:
    policies = rdbkit.Policies(function="drop")
    report, done = upload_converted(str(DUMP), place, target="azure-premium", policies=policies, block_bytes=BLOCK)
    out = io.BytesIO()
    rdbkit.convert(str(DUMP), out, target="azure-premium", policies=policies)
    assert report.written == 27
    with rdbkit.open(io.BytesIO(content(place))) as snapshot:
        assert str(snapshot.header) == "REDIS0009"
        assert sum(1 for _ in snapshot) == 27
    assert done.bytes == len(content(place))


def test_where_a_conversion_loses_data_there_is_no_blob(place: Place) -> None:
    with pytest.raises(rdbkit.LossError) as caught:
        upload_converted(str(DUMP), place, target="azure-premium")
    assert caught.value.report is not None
    assert not blob_of(place).exists()


def test_a_damaged_snapshot_gives_no_blob(place: Place, tmp_path: Path) -> None:
    path = tmp_path / "cut.rdb"
    path.write_bytes(DUMP.read_bytes()[:-100])
    with pytest.raises(rdbkit.RdbError):
        upload_converted(str(path), place, target="redis-7.0")
    assert not blob_of(place).exists()


# -- refused


def test_a_blob_that_exists_is_refused_before_anything_is_sent(place: Place, tmp_path: Path) -> None:
    first, second = a_file(tmp_path, BLOCK), a_file(tmp_path, 3 * BLOCK, "other.rdb")
    upload(first, place)
    with pytest.raises(rdbkit.TargetError, match="--overwrite"):
        upload(second, place)
    assert content(place) == first.read_bytes()
    _, waiting = blob_of(place).get_block_list("all")
    assert waiting == []
    upload(second, place, overwrite=True)
    assert content(place) == second.read_bytes()


def test_a_blob_that_somebody_makes_meanwhile_stays(place: Place, tmp_path: Path) -> None:
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


def test_a_wrong_key_and_a_wrong_sas_are_refused_and_not_shown(place: Place, tmp_path: Path) -> None:
    for credentials in (Credentials(key="c2VjcmV0"), Credentials(sas="sv=2024-01-01&sp=rw&sig=c2VjcmV0")):
        with pytest.raises(rdbkit.TargetError) as caught:
            upload(a_file(tmp_path, 9), place, credentials=credentials)
        assert "403" in str(caught.value)
        assert "c2VjcmV0" not in str(caught.value) + repr(credentials)


def test_a_file_that_grows_is_no_blob(place: Place, tmp_path: Path) -> None:
    path = a_file(tmp_path, 10 * BLOCK)

    def grow(done: int) -> None:
        with path.open("ab") as file:
            file.write(b"more")

    with pytest.raises(rdbkit.TargetError, match="changed"):
        upload(path, place, block_bytes=BLOCK, concurrency=1, progress=grow)
    assert not blob_of(place).exists()


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdbkit.azure.upload._RETRIES", 0)
    with pytest.raises(rdbkit.TargetError, match="cannot be reached"):
        upload(a_file(tmp_path, 9), parse_place(f"http://127.0.0.1:1/{ACCOUNT}/dumps/x.rdb"))


def test_a_block_that_is_changed_on_the_way_is_refused(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_an_upload_that_broke_goes_on_with_what_is_there(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_file_that_has_changed_since_is_sent_as_it_is_now(place: Place, tmp_path: Path) -> None:
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


def test_a_connection_that_is_cut_is_tried_again(place: Place, account: str, tmp_path: Path) -> None:
    path = a_file(tmp_path, 12 * BLOCK)
    cutter = Cutter(urlsplit(account).port or 0, limit=3 * BLOCK + 100, most=3)
    try:
        through = parse_place(place.url.replace(urlsplit(account).netloc, f"127.0.0.1:{cutter.port}"))
        done = upload(path, through, block_bytes=BLOCK, concurrency=1)
    finally:
        cutter.close()
    assert cutter.cuts == 3
    assert done.bytes == 12 * BLOCK
    assert content(place) == path.read_bytes()


def test_a_process_that_is_killed_three_times(place: Place, account: str, tmp_path: Path) -> None:
    """And no block is sent again after the service has acknowledged it."""
    size = 200 << 20
    path = tmp_path / "large.rdb"
    with path.open("wb") as file:
        for number in range(size >> 20):
            file.write(Random(number).randbytes(1 << 20))
    blob = blob_of(place)
    counter = Cutter(urlsplit(account).port or 0)
    through = place.url.replace(urlsplit(account).netloc, f"127.0.0.1:{counter.port}")
    acknowledged = 0
    try:
        for _ in range(3):
            process = subprocess.Popen(
                [*RDBKIT, "upload", str(path), through, "--block-size", "1MiB", "--concurrency", "4", "--cap-mbps", "600"],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            deadline = time.monotonic() + 60
            while len(waiting(blob)) < acknowledged + 20 and time.monotonic() < deadline:
                assert process.poll() is None
                time.sleep(0.02)
            process.send_signal(signal.SIGKILL)
            process.wait()
            time.sleep(0.5)  # what is on its way arrives, or does not
            assert len(waiting(blob)) >= acknowledged + 20
            acknowledged = len(waiting(blob))
        before = counter.sent
        ended = run(path, through, "--block-size", "1MiB", "--json")
    finally:
        counter.close()
    assert ended.returncode == 0, ended.stderr
    (report,) = json.loads(ended.stdout)["blobs"]
    assert report["kept"] == acknowledged
    assert report["sent_bytes"] == size - acknowledged * (1 << 20)
    assert counter.sent - before < size - acknowledged * (1 << 20) + (2 << 20), "the wire has seen no more than that"
    digest = hashlib.md5()
    for piece in blob.download_blob().chunks():
        digest.update(piece)
    assert digest.hexdigest() == hashlib.md5(path.read_bytes()).hexdigest() == report["md5"]


def waiting(blob: Any) -> list[Any]:
    from azure.core.exceptions import ResourceNotFoundError

    try:
        found: list[Any] = blob.get_block_list("uncommitted")[1]
    except ResourceNotFoundError:
        return []
    return found


def test_the_rate_is_kept(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    upload(a_file(tmp_path, 32 * BLOCK), place, block_bytes=BLOCK, concurrency=1, cap_mbps=16)  # 2 MiB at 2 MB/s
    assert clock.now == pytest.approx(31 * BLOCK / 2e6), "each block but the first has waited for those before it"


# -- credentials


def test_every_kind_of_credential(place: Place, account: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    with pytest.raises(ValueError, match="another account"):
        upload(path, parse_place("https://a.blob.core.windows.net/c/b"), credentials=Credentials(connection_string=connection))


# -- the command line


def test_files_go_to_a_folder_under_their_names(account: str, tmp_path: Path) -> None:
    one, other = a_file(tmp_path, 100, "a.rdb"), a_file(tmp_path, 200, "b c.rdb")
    done = run(one, other, f"{account}/dumps/some folder/", "--json")
    assert done.returncode == 0, done.stderr
    urls = [blob["url"] for blob in json.loads(done.stdout)["blobs"]]
    assert [url.rsplit("/", 2)[1:] for url in urls] == [["some%20folder", "a.rdb"], ["some%20folder", "b%20c.rdb"]]
    assert content(parse_place(urls[1])) == other.read_bytes()


def test_standard_input_and_conversion(place: Place, account: str) -> None:
    done = run("-", place.url, data=DUMP.read_bytes())
    assert done.returncode == 0, done.stderr
    assert content(place) == DUMP.read_bytes()
    assert b"MD5" in done.stdout
    lost = run(DUMP, place.url, "--overwrite", "--target", "azure-premium")
    assert (lost.returncode, lost.stdout) == (1, b"")
    assert b"--on-function" in lost.stderr
    assert content(place) == DUMP.read_bytes()
    dropped = run(DUMP, place.url, "--overwrite", "--target", "azure-premium", "--on-function", "drop")
    assert dropped.returncode == 1
    assert content(place)[:9] == b"REDIS0009"


def test_functions_are_extracted_where_they_are_not_sent(place: Place, tmp_path: Path) -> None:
    out = tmp_path / "functions.lua"
    done = run(DUMP, place.url, "--target", "azure-premium", "--on-function", f"extract={out}")
    assert done.returncode == 0, done.stderr
    assert out.read_bytes().startswith(b"#!lua name=l\n")
    again = run(DUMP, place.url, "--overwrite", "--target", "azure-premium", "--on-function", f"extract={out}")
    assert again.returncode == 2
    assert b"exists" in again.stderr


def test_what_is_wrong_is_said_in_one_line(place: Place, account: str, tmp_path: Path) -> None:
    path = a_file(tmp_path, 9)
    assert run(path, place.url).returncode == 0
    for arguments, code, said in (
        ((path, place.url), 4, b"--overwrite"),
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
    done = run(a_file(tmp_path, 9), "https://a.blob.core.windows.net/c/b", PYTHONPATH=str(blocked))
    assert done.returncode == 4
    assert b"pip install 'rdbkit[azure]'" in done.stderr


# -- words


def test_addresses() -> None:
    place = parse_place("https://acc.blob.core.windows.net/c/folder/a%20b.rdb?sv=1&sig=c2VjcmV0")
    assert (place.account, place.container, place.blob) == ("https://acc.blob.core.windows.net", "c", "folder/a b.rdb")
    assert "c2VjcmV0" not in repr(place) + place.url
    for wrong in ("acc/c/b", "ftp://a/c", "https://acc.blob.core.windows.net", "https://acc.blob.core.windows.net/"):
        with pytest.raises(ValueError, match="https://"):
            parse_place(wrong)


def test_secrets_are_taken_out() -> None:
    text = "x AccountKey=abc==;B sig=d%3D&e SharedAccessSignature=sv=1&sig=f; Authorization: Bearer ghi"
    for secret in ("abc", "d%3D", "sig=f", "ghi"):
        assert secret not in scrub(text)


def test_the_report_is_plain() -> None:
    assert json.dumps(Upload("u").to_dict())

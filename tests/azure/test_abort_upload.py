"""`upload --abort`: blocks that were left are dropped, so that other tools can upload there, and no blob is changed."""

from __future__ import annotations

import io
import json
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import urlsplit

import pytest

import rdbkit
from rdbkit.storage.blob_url import BlobUrl, parse_place

from .. import command_line
from ..azurite import ACCOUNT, CUT, KEY, PASS, Cutter, by_key_alone, needs_azurite, service

pytestmark = needs_azurite
BLOCK = 1 << 16
CONTENT = Random(5).randbytes(5 * BLOCK)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    by_key_alone(monkeypatch)


@pytest.fixture
def place(blobs: str, request: pytest.FixtureRequest) -> BlobUrl:
    return parse_place(f"{blobs}/dumps/{request.node.name.replace('[', '-').replace(']', '')}.rdb")


def blob_of(place: BlobUrl) -> Any:
    return service(place.account).get_blob_client(place.container, place.blob)


def by_the_sdk(place: BlobUrl, data: bytes = CONTENT) -> None:
    """An upload in blocks, as any program with the SDK does it."""
    from azure.storage.blob import BlobClient

    with BlobClient(
        place.account, place.container, place.blob, credential=KEY, max_single_put_size=BLOCK, max_block_size=BLOCK
    ) as client:
        client.upload_blob(data, overwrite=True)


def broken_off(place: BlobUrl, **settings: Any) -> None:
    """An upload of rdbkit that was ended after a block."""

    class Ended(Exception):
        pass

    def stop(done: int) -> None:
        raise Ended

    with pytest.raises(Ended):
        rdbkit.upload(_Endless(), place, block_bytes=BLOCK, concurrency=1, progress=stop, **settings)


class _Endless:
    def read(self, n: int = -1) -> bytes:
        return bytes(n)


def left(place: BlobUrl) -> int:
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return len(blob_of(place).get_block_list("all")[1])
    except ResourceNotFoundError:
        return 0


def test_an_upload_that_broke_off_is_in_the_way_of_others_until_it_is_aborted(place: BlobUrl) -> None:
    from azure.core.exceptions import HttpResponseError

    broken_off(place)
    blocks = left(place)
    assert blocks > 0
    with pytest.raises(HttpResponseError, match=r"InvalidBlobOrBlock|block"):
        by_the_sdk(place)
    done = rdbkit.abort_upload(place)
    assert (done.blocks, done.bytes, done.kept) == (blocks, blocks * BLOCK, False)
    assert not blob_of(place).exists()
    assert left(place) == 0
    by_the_sdk(place)
    assert blob_of(place).download_blob().readall() == CONTENT


def test_a_run_that_is_ended_in_between_is_followed_by_one_that_goes_on(place: BlobUrl, monkeypatch: pytest.MonkeyPatch) -> None:
    from azure.storage.blob import BlobClient

    def killed(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    broken_off(place)
    with monkeypatch.context() as patch:
        patch.setattr(BlobClient, "delete_blob", killed)
        with pytest.raises(KeyboardInterrupt):
            rdbkit.abort_upload(place)
    assert blob_of(place).exists()
    assert not rdbkit.abort_upload(place).kept
    assert not blob_of(place).exists()
    # an empty blob of somebody else stays
    blob_of(place).upload_blob(b"")
    assert rdbkit.abort_upload(place).kept
    assert blob_of(place).exists()


def test_a_blob_that_is_there_stays_what_it_is(place: BlobUrl) -> None:
    from azure.storage.blob import ContentSettings

    by_the_sdk(place)
    blob = blob_of(place)
    blob.set_http_headers(ContentSettings(content_type="application/x-rdb", cache_control="no-store", content_md5=bytearray(16)))
    blob.set_blob_metadata({"of": "shop"})
    blob.set_blob_tags({"keep": "yes"})
    blob.set_standard_blob_tier("Cool")
    before = blob.get_blob_properties()
    blob.stage_block("0" * len(blob.get_block_list("committed")[0][0].id), b"not this")
    done = rdbkit.abort_upload(place)
    assert (done.blocks, done.bytes, done.kept) == (1, 8, True)
    after = blob.get_blob_properties()
    assert blob.download_blob().readall() == CONTENT
    for name in ("size", "metadata", "blob_type", "blob_tier", "tag_count"):
        assert after[name] == before[name], name
    assert dict(after.content_settings) == dict(before.content_settings)
    assert blob.get_blob_tags() == {"keep": "yes"}
    assert left(place) == 0


def test_a_blob_of_ours_whose_replacement_broke_off_stays(place: BlobUrl) -> None:
    rdbkit.upload(io.BytesIO(bytes(2 * BLOCK)), place, block_bytes=BLOCK)
    before = blob_of(place).get_blob_properties()
    broken_off(place, overwrite=True)  # its first block is that of the blob
    assert rdbkit.abort_upload(place).kept
    after = blob_of(place).get_blob_properties()
    assert blob_of(place).download_blob().readall() == bytes(2 * BLOCK)
    assert after.content_settings.content_md5 == before.content_settings.content_md5
    assert left(place) == 0


def test_a_block_with_an_id_of_the_blob_is_not_taken_for_it(place: BlobUrl) -> None:
    by_the_sdk(place)
    blob = blob_of(place)
    blob.stage_block(blob.get_block_list("committed")[0][0].id, b"not this")
    with pytest.raises(rdbkit.TargetError, match="has a block with the id of one that is left"):
        rdbkit.abort_upload(place)
    assert blob.download_blob().readall() == CONTENT


def test_a_blob_that_was_sent_in_one_request_is_not_touched(place: BlobUrl) -> None:
    blob = blob_of(place)
    blob.upload_blob(b"whole")
    blob.stage_block("x", b"left")
    etag = blob.get_blob_properties().etag
    with pytest.raises(rdbkit.TargetError, match="was sent in one request"):
        rdbkit.abort_upload(place)
    assert (blob.download_blob().readall(), blob.get_blob_properties().etag, left(place)) == (b"whole", etag, 1)


@pytest.mark.parametrize("header", ["x-ms-legal-hold: true", "x-ms-immutability-policy-until-date: Fri, 01 Jan 2100 00:00:00 GMT"])
def test_a_blob_that_nobody_may_change_keeps_what_says_so(place: BlobUrl, monkeypatch: pytest.MonkeyPatch, header: str) -> None:
    from azure.core.pipeline.transport import RequestsTransport

    by_the_sdk(place)
    blob = blob_of(place)
    blob.stage_block("0" * len(blob.get_block_list("committed")[0][0].id), b"left")
    etag = blob.get_blob_properties().etag
    send = RequestsTransport.send

    def with_header(self: Any, request: Any, **settings: Any) -> Any:
        answer = send(self, request, **settings)
        name, _, value = header.partition(": ")
        if request.method == "HEAD":  # Azurite knows neither
            answer.headers[name] = value
        return answer

    with monkeypatch.context() as patch:
        patch.setattr(RequestsTransport, "send", with_header)
        with pytest.raises(rdbkit.TargetError, match="a legal hold or an immutability policy"):
            rdbkit.abort_upload(place)
    assert (blob.get_blob_properties().etag, left(place)) == (etag, 1)


def test_an_append_blob_is_not_taken_for_what_an_abort_has_left(place: BlobUrl) -> None:
    blob_of(place).create_append_blob(metadata={"rdbkit_aborted_upload": "true"})
    assert rdbkit.abort_upload(place).kept
    assert blob_of(place).exists()


def test_where_nothing_is_left_nothing_is_done(place: BlobUrl) -> None:
    assert rdbkit.abort_upload(place).to_dict() == {"url": place.url, "blocks": 0, "bytes": 0, "kept": False}
    blob = blob_of(place)
    blob.create_page_blob(512)
    etag = blob.get_blob_properties().etag
    assert rdbkit.abort_upload(place).to_dict() == {"url": place.url, "blocks": 0, "bytes": 0, "kept": True}
    assert blob.get_blob_properties().etag == etag
    with pytest.raises(ValueError, match="names no blob"):
        rdbkit.abort_upload(f"{place.account}/dumps/")


def test_a_sas_that_may_not_delete_changes_nothing(place: BlobUrl) -> None:
    import datetime

    from azure.storage.blob import generate_blob_sas

    broken_off(place)
    before = left(place)
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=2)
    for rights in ("rcw", "rcwd"):
        sas = generate_blob_sas(ACCOUNT, place.container, place.blob, account_key=KEY, permission=rights, expiry=end)
        if rights == "rcw":
            with pytest.raises(rdbkit.TargetError, match="the SAS allows rcw, and d is missing") as caught:
                rdbkit.abort_upload(f"{place.url}?{sas}")
            assert "sig=" not in str(caught.value)
            assert left(place) == before
        else:
            assert rdbkit.abort_upload(f"{place.url}?{sas}").blocks == before
    assert not blob_of(place).exists()


def test_the_command(place: BlobUrl, tmp_path: Path) -> None:
    broken_off(place)
    blocks = left(place)
    done = command_line.run_text("upload", "--abort", place.url)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"{blocks} block" in done.stdout
    done = command_line.run_text("upload", "--abort", place.url)
    assert "nothing was left" in done.stdout
    # with FILEs and a folder, as it was begun
    broken_off(place)
    folder, _, name = place.url.rpartition("/")
    (tmp_path / name).write_bytes(CONTENT)
    done = command_line.run_text("upload", "--abort", tmp_path / name, f"{folder}/", "--json")
    assert json.loads(done.stdout) == {"blobs": [{"url": place.url, "blocks": blocks, "bytes": blocks * BLOCK, "kept": False}]}
    for option in (["--target", "azure-premium"], ["--overwrite"], ["--sas-out", "x"], ["--cap-mbps", "3"], ["--page-blob"]):
        done = command_line.run_text("upload", "--abort", place.url, *option)
        assert done.returncode == 2
        assert f"--abort sends nothing, so that {option[0]} has nothing to say" in done.stderr
    assert command_line.run_text("upload", "--abort", f"{folder}/").returncode == 2


def test_an_upload_that_breaks_off_says_what_it_has_left(place: BlobUrl, tmp_path: Path) -> None:
    file = tmp_path / "dump.rdb"
    file.write_bytes(CONTENT)
    arrived = 0

    def decide(line: bytes) -> str:
        nonlocal arrived
        arrived += b"comp=block&" in line
        return CUT if arrived > 2 and b"comp=block&" in line else PASS

    cutter = Cutter(urlsplit(place.account).port or 0, decide=decide)
    proxied = BlobUrl(place.account.replace(f":{cutter.to}/", f":{cutter.port}/"), place.container, place.blob)
    try:
        with pytest.raises(rdbkit.TargetError, match=r"run this again to go on; what has arrived stays for a week, .*--abort URL"):
            rdbkit.upload(file, proxied, block_bytes=BLOCK, concurrency=1)
    finally:
        cutter.close()
    assert left(place) > 0
    rdbkit.upload(file, place, block_bytes=BLOCK)
    assert left(place) == 0
    with pytest.raises(rdbkit.TargetError) as caught:
        rdbkit.upload(file, place.url.replace("/dumps/", "/no-such/"))
    assert "stays for a week" not in str(caught.value)


def test_an_interrupt_says_it_too(place: BlobUrl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "dump.rdb"
    file.write_bytes(CONTENT)
    from azure.storage.blob import BlobClient

    whole = BlobClient.stage_block

    def stage(client: Any, name: str, data: bytes, **settings: Any) -> Any:
        if name.startswith("00002"):
            raise KeyboardInterrupt
        return whole(client, name, data, **settings)

    monkeypatch.setattr(BlobClient, "stage_block", stage)
    done = command_line.run_text("upload", file, place.url, "--block-size", str(BLOCK), "--concurrency", "1")
    assert done.returncode == 130
    assert "rdbkit: what has arrived stays for a week, and the same upload goes on with it" in done.stderr
    assert "rdbkit upload --abort URL drops it" in done.stderr

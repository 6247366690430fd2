"""Objects of S3 and files of any server of HTTP as FILEs: right bytes, or one clear line."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from rdbkit.storage import store_client
from rdbkit.storage.location import check_distinct, file_id, file_size
from rdbkit.storage.object_url import parse_object
from rdbkit.storage.remote import RemoteReader, base_name, is_blob, name_of
from rdbkit.storage.store_settings import StoreSettings, store_settings

from ..command_line import run_text
from ..moto import SECRET, Moto, by_environment, running
from ..rdb import FIXTURES
from .blob_server import BlobServer, serving
from .test_remote import breaking, busy, closing

DUMP = FIXTURES / "rich" / "redis-7.0.15.rdb"
CONTENT = random.Random(21).randbytes(20 << 20)
#: A presigned URL of S3, and one of Azure that has gone through a front of its own.
QUERY = "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIA%2Fs3&X-Amz-Signature=c2VjcmV0"


@pytest.fixture(autouse=True)
def nothing_of_azure(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CONNECTION_STRING", "KEY", "SAS_TOKEN", "ACCOUNT", "ACCOUNT_NAME"):
        monkeypatch.delenv(f"AZURE_STORAGE_{name}", raising=False)


@pytest.fixture(autouse=True)
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not patient tries once."""
    monkeypatch.setattr(store_client, "_SECONDS", 0)


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    with running(tmp_path_factory.mktemp("moto")) as found:
        yield found


@pytest.fixture
def moto(s3: Moto, monkeypatch: pytest.MonkeyPatch) -> Moto:
    by_environment(monkeypatch, s3.endpoint)
    return s3


@pytest.fixture
def server() -> Iterator[BlobServer]:
    with serving(CONTENT) as found:
        yield found


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("s3://dumps/2026/a b?c#d%20é.rdb", "s3://dumps/2026/a b?c#d%20é.rdb"),
        ("S3://dumps/a.rdb", "s3://dumps/a.rdb"),
        ("gs://dumps/a.rdb", "gs://dumps/a.rdb"),
        ("az://dumps/a%20b.rdb", "https://shop.blob.core.windows.net/dumps/a%20b.rdb"),
        ("abfs://dumps@shop.dfs.core.windows.net/x/a.rdb", "https://shop.blob.core.windows.net/dumps/x/a.rdb"),
        ("ABFSS://dumps@Shop.dfs.core.chinacloudapi.cn/a.rdb", "https://shop.blob.core.chinacloudapi.cn/dumps/a.rdb"),
        ("https://Example.com:443/a/b%20c.rdb?token=x", "https://example.com/a/b%20c.rdb"),
        ("http://[::1]:9000/a.rdb", "http://[::1]:9000/a.rdb"),
        ("http://127.0.0.1:9000/dumps/a.rdb", "http://127.0.0.1:9000/dumps/a.rdb"),
        ("https://a.blob.core.windows.net.example.com/dumps/b.rdb", "https://a.blob.core.windows.net.example.com/dumps/b.rdb"),
    ],
)
def test_what_a_url_names(url: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "shop")
    assert parse_object(url, StoreSettings()).url == name


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://dumps", "a bucket or folder"),
        ("s3://dumps/", "a bucket or folder"),
        ("gs://dumps/2026/", "a bucket or folder"),
        ("s3:///a.rdb", "names no bucket"),
        ("s3://du:mps/a.rdb", "names no bucket"),
        ("az://dumps/a.rdb", "AZURE_STORAGE_ACCOUNT_NAME"),
        ("https://example.com/", "names no file"),
        ("https://example.com/dumps/", "names no file"),
        ("https://me:s3cret@example.com/a.rdb", "a login in a URL is not sent"),
        ("https://example.com/a#b.rdb", "write %23"),
        ("https://example.com:port/a.rdb", "host or port"),
        ("http://example.com/a.rdb", "use https://, or allow"),
        ("http://10.0.0.5/a.rdb", "use https://, or allow"),
    ],
)
def test_what_names_no_object(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as caught:
        rdbkit.open(url)
    assert "s3cret" not in str(caught.value)


def test_http_to_other_hosts_is_for_who_says_so() -> None:
    settings = StoreSettings(allow_http=True)
    assert parse_object("http://10.0.0.5/a.rdb", settings).url == "http://10.0.0.5/a.rdb"
    done = run_text("info", "http://10.0.0.5/a.rdb")
    assert (done.returncode, done.stdout) == (2, "")
    done = run_text("info", "s3://dumps/a.rdb", "--endpoint", "http://10.0.0.5:9000")
    assert (done.returncode, done.stdout) == (4, "")
    assert "http:// shows everybody" in done.stderr
    for endpoint in ("10.0.0.5:9000", "s3://x", "https://me@host", "https://host?sig=c2VjcmV0"):
        done = run_text("info", "s3://dumps/a.rdb", "--endpoint", endpoint)
        assert (done.returncode, done.stdout) == (2, "")
        assert "an endpoint is the URL of a service" in done.stderr
        assert "c2VjcmV0" not in done.stderr


KEYS = ["dump.rdb", "2026/01/a b.rdb", "a%20b.rdb", "é+(1)&=.rdb", "a?b#c.rdb", "*.rdb", "a~b!'$,;:@.rdb"]


@pytest.mark.parametrize("key", KEYS)
def test_an_object_of_s3(key: str, moto: Moto) -> None:
    url = moto.put(key, DUMP.read_bytes())
    moto.put(f"{key}.other", b"other")
    with rdbkit.open(url) as snapshot:
        assert (snapshot.name, snapshot.path, snapshot.size) == (url, url, DUMP.stat().st_size)
        assert sum(1 for _ in snapshot) == 27
        with snapshot.reopen() as again:
            assert sum(1 for _ in again) == 27
    assert (base_name(url), file_size(url), file_id(url)) == (key.rpartition("/")[2], DUMP.stat().st_size, url)


def test_a_large_object_of_s3(moto: Moto) -> None:
    url = moto.put("large", CONTENT)
    with RemoteReader(url) as reader:
        assert (reader.size, reader.read()) == (len(CONTENT), CONTENT)
        assert reader.seek(7 << 20) == 7 << 20
        assert reader.read(1000) == CONTENT[7 << 20 : (7 << 20) + 1000]
    with RemoteReader(url) as reader:
        assert reader.read(1000) == CONTENT[:1000]
        moto.put("large", CONTENT[::-1])
        with pytest.raises(rdbkit.ChangedError, match=r"the object was changed or replaced while it was read; run this again"):
            reader.read()
    with RemoteReader(moto.put("empty", b"")) as reader:
        assert (reader.size, reader.read()) == (0, b"")


@pytest.mark.parametrize("verb", [["info"], ["keys"], ["verify"], ["memory"], ["check", "--target", "redis-6.2"], ["export"]])
def test_what_is_said_of_an_object_is_what_is_said_of_the_file(verb: list[str], moto: Moto) -> None:
    url = moto.put(DUMP.name, DUMP.read_bytes())
    far, near = run_text(*verb, url), run_text(*verb, DUMP)
    assert far.returncode == near.returncode
    assert far.stdout.replace(url, "FILE") == near.stdout.replace(str(DUMP), "FILE")
    assert far.stderr.replace(url, "FILE") == near.stderr.replace(str(DUMP), "FILE")


def test_options_say_where_a_store_is(s3: Moto, monkeypatch: pytest.MonkeyPatch) -> None:
    by_environment(monkeypatch, "http://127.0.0.1:1")
    url = s3.put("options.rdb", DUMP.read_bytes())
    assert "connection refused" in run_text("info", url).stderr
    options = ["--endpoint", s3.endpoint, "--region", "us-east-2", "--storage-option", f"secret_access_key={SECRET}x"]
    done = run_text("info", url, *options)
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    assert run_text("info", url, "--anonymous", "--endpoint", s3.endpoint).returncode == 0
    done = run_text("info", url, "--endpoint", s3.endpoint, "--storage-option", "nonsense=s3cret")
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr == f"rdbkit: {url}: the store has no option 'nonsense'\n"
    done = run_text("info", url, "--storage-option", "s3cret")
    assert (done.returncode, "KEY=VALUE" in done.stderr, "s3cret" in done.stderr) == (2, True, False)


def test_what_s3_refuses(moto: Moto) -> None:
    for url, said in (
        ("s3://dumps/none.rdb", "there is no such object; check the URL (404 NoSuchKey)"),
        ("s3://nowhere/none.rdb", "there is no such bucket; check the URL (404 NoSuchBucket)"),
        ("s3://dumps/a//b.rdb", "begins with a slash, or has an empty part"),
    ):
        done = run_text("info", url)
        assert (done.returncode, done.stdout) == (4, "")
        assert done.stderr.startswith(f"rdbkit: {url}: ")
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1


def test_a_plan_brings_an_object_to_where_the_service_reads_it(moto: Moto) -> None:
    """Azure reads its own blobs alone, and its command line no URL."""
    url = moto.put("plan/shop.rdb", (FIXTURES / "rich" / "redis-6.0.16.rdb").read_bytes())
    done = run_text("plan", url, "--target", "azure-premium")
    assert done.returncode == 0, done.stderr
    assert f"rdbkit convert {url} shop.rdb --target azure-premium" in done.stdout
    assert "--file shop.rdb" in done.stdout
    assert is_blob("https://a.blob.core.windows.net/dumps/b.rdb")
    for other in (url, "https://a.blob.core.windows.net/dumps/b.rdb?versionid=2&sig=x", "https://example.com/b.rdb", "b.rdb"):
        assert not is_blob(other)


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (403, "AccessDenied", "the credentials may not do this"),
        (403, "Strange", "the request is not allowed"),
        (400, "ExpiredToken", "the credentials have expired"),
        (301, "PermanentRedirect", "the bucket is in another region"),
        (404, "Strange", "there is no such object"),
        (400, "Strange", "the service refuses it (400 Strange)"),
    ],
)
def test_what_a_service_says(status: int, code: str, said: str, server: BlobServer, monkeypatch: pytest.MonkeyPatch) -> None:
    by_environment(monkeypatch, f"http://127.0.0.1:{server.server_port}")
    server.before = lambda number, handler: handler.refuse(status, code)
    with store_settings(StoreSettings(region=code)), pytest.raises(rdbkit.TargetError) as caught:  # a store of its own
        rdbkit.open("s3://dumps/refused.rdb")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)


def test_a_file_of_any_server(server: BlobServer) -> None:
    with RemoteReader(f"{server.plain}?{QUERY}") as reader:
        assert (reader.name, reader.size) == (server.plain, len(CONTENT))
        assert reader.read() == CONTENT
    server.content = b""
    with RemoteReader(server.plain) as reader:
        assert (reader.size, reader.read()) == (0, b"")


@pytest.mark.parametrize("what", [breaking, busy, closing])
def test_what_breaks_is_asked_for_again(what: Any, server: BlobServer) -> None:
    server.before = lambda number, handler: number in (1, 3) and what(handler)
    with RemoteReader(server.plain) as reader:
        assert reader.read() == CONTENT


def test_a_file_that_is_replaced_is_never_a_mixture(server: BlobServer) -> None:
    for tag in ('"1"', 'W/"1"'):  # a weak one is equal to none under a condition
        server.etag = tag
        if tag.startswith("W/"):
            server.before = lambda number, handler: handler.headers["If-Match"] and handler.refuse(412, "No")
        with RemoteReader(server.plain) as reader:
            assert reader.read() == CONTENT
        with RemoteReader(server.plain) as reader:
            assert reader.read(1 << 16) == CONTENT[: 1 << 16]
            server.etag = tag.replace("1", "2")
            with pytest.raises(rdbkit.ChangedError, match=r"the object was changed or replaced while it was read"):
                reader.read()


def test_servers_that_cannot_be_read_from(server: BlobServer) -> None:
    def whole(number: int, handler: Any) -> bool:
        handler.answer(200, CONTENT)
        return True

    url = f"{server.plain}?{QUERY}"
    server.before = whole
    with pytest.raises(rdbkit.TargetError, match="does not send parts of a file") as caught:
        rdbkit.open(url)
    server.before = lambda number, handler: handler.refuse(403, "Expired")
    with pytest.raises(rdbkit.TargetError, match="the request is not allowed") as caught:
        rdbkit.open(url)
    assert "c2VjcmV0" not in str(caught.value)
    server.before = lambda number, handler: handler.refuse(418, "")
    with pytest.raises(rdbkit.TargetError) as caught:
        rdbkit.open(url)
    assert "c2VjcmV0" not in str(caught.value)
    server.before = lambda number, handler: False
    server.etag = ""
    with pytest.raises(rdbkit.TargetError, match="no ETag"):
        rdbkit.open(url)


def test_nobody_there() -> None:
    with serving(b"") as server:
        url = f"{server.plain}?{QUERY}"
    with pytest.raises(rdbkit.TargetError, match="the service cannot be reached: connection refused") as caught:
        rdbkit.open(url)
    assert "c2VjcmV0" not in str(caught.value)


def test_two_files_of_one_address_are_two() -> None:
    """Their query says which is meant; a signature does not."""

    def before(number: int, handler: Any) -> bool:
        handler.server.content = b"one" if "id=1" in handler.path else b"another"
        return False

    with serving(b"") as server:
        server.before = before
        urls = [f"{server.plain}?id={number}&{QUERY}" for number in (1, 2)]
        names = [name_of(url) for url in urls]
        check_distinct(urls)
        assert names == [server.plain, f"{server.plain}?2"]
        assert [RemoteReader(name).read() for name in names] == [b"one", b"another"]
        assert name_of(urls[0] + "0") == server.plain  # signed anew
        assert [base_name(name) for name in names] == ["dump.rdb", "dump.rdb"]
        assert "c2VjcmV0" not in repr([parse_object(url, StoreSettings()) for url in urls])


def test_no_output_has_a_signature(server: BlobServer, tmp_path: Path) -> None:
    server.content = DUMP.read_bytes()
    url = f"{server.plain}?{QUERY}"
    for verb in (["info", "--format", "json"], ["check", "--target", "redis-6.2", "--format", "json"], ["verify"], ["keys"]):
        done = run_text(*verb, url)
        assert "c2VjcmV0" not in done.stdout + done.stderr
    assert run_text("convert", url, tmp_path / "out.rdb", "--target", "redis-7.2").returncode == 0
    assert (tmp_path / "out.rdb").read_bytes()[:5] == b"REDIS"

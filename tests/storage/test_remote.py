"""Objects that are read by their URLs, from a server that does not always do what it should."""

from __future__ import annotations

import gzip
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from rdbkit.storage import remote, store_client
from rdbkit.storage.location import (
    Identity,
    check_distinct,
    file_id,
    file_size,
    fingerprint,
    is_file,
    is_local,
    is_same_file,
    revision,
)
from rdbkit.storage.remote import RemoteReader, base_name, is_remote, name_of
from rdbkit.storage.source import open_source

from ..azurite import by_key_alone
from ..processes import GUARD, heeding_signals, until
from ..rdb import FIXTURES
from .blob_server import KEY, BlobServer, serving

DUMP = FIXTURES / "rich" / "redis-7.0.15.rdb"
SAS = "sv=2024-01-01&sp=r&sig=c2VjcmV0"
#: Larger than what is read ahead of the first read that waits.
CONTENT = random.Random(18).randbytes(60 << 20)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    by_key_alone(monkeypatch, KEY)


@pytest.fixture
def server() -> Iterator[BlobServer]:
    with serving(CONTENT) as found:
        yield found


@pytest.mark.parametrize("n", [1 << 20, 77_777, 20 << 20])
def test_what_is_read_is_what_is_there(server: BlobServer, n: int) -> None:
    with RemoteReader(server.url) as reader:
        assert reader.size == len(CONTENT)
        parts = []
        while piece := reader.read(n):
            parts.append(piece)
        assert b"".join(parts) == CONTENT
        assert {len(part) for part in parts[:-1]} == {n}  # as of a file
    covered = sorted(server.ranges)
    assert covered[0] == (0, 1 << 16)
    assert all(one[1] == other[0] for one, other in pairwise(covered))  # nothing is asked for twice
    assert max(end - begin for begin, end in covered) == 8 << 20


def test_no_more_than_some_pieces_are_in_memory(server: BlobServer) -> None:
    with RemoteReader(server.url) as reader:
        at = 0
        while piece := reader.read(1 << 20):
            at += len(piece)
            with server.lock:
                assert max(end for _, end in server.ranges) <= at + (7 << 23)


def test_who_looks_at_the_beginning_pays_for_little(server: BlobServer) -> None:
    with RemoteReader(server.url) as reader:
        assert reader.read(4096) == CONTENT[:4096]
    assert server.ranges == [(0, 1 << 16)]


def test_any_place(server: BlobServer) -> None:
    chance = random.Random(7)
    with RemoteReader(server.url) as reader:
        for _ in range(40):
            at, n = chance.randrange(len(CONTENT)), chance.choice([1, 4096, 1 << 20])
            assert reader.seek(at) == at == reader.tell()
            assert reader.read(n) == CONTENT[at : at + n]
        assert reader.seek(-5, os.SEEK_END) == len(CONTENT) - 5
        assert reader.read() == CONTENT[-5:]
        assert reader.seek(-2, os.SEEK_CUR) == len(CONTENT) - 2
        assert (reader.read(9), reader.read(9)) == (CONTENT[-2:], b"")
    with pytest.raises(ValueError, match="closed"):
        reader.read(1)


def test_an_empty_blob() -> None:
    with serving(b"") as server, RemoteReader(server.url) as reader:
        assert (reader.size, reader.read(9), reader.read()) == (0, b"", b"")


def breaking(handler: Any) -> bool:
    """Half of a piece, and then nothing."""
    begin, end = handler.server.ranges[-1]
    handler.send_response(206)
    handler.send_header("Content-Length", str(end - begin))
    handler.send_header("ETag", handler.server.etag)
    handler.send_header("Last-Modified", "Mon, 30 Nov 2026 12:00:00 GMT")
    handler.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(handler.server.content)}")
    handler.end_headers()
    handler.wfile.write(handler.server.content[begin : (begin + end) // 2])
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)
    return True


def busy(handler: Any) -> bool:
    return bool(handler.refuse(503, "ServerBusy"))


def closing(handler: Any) -> bool:
    handler.connection.shutdown(socket.SHUT_RDWR)
    return True


@pytest.mark.parametrize("what", [breaking, busy, closing])
def test_what_breaks_is_asked_for_again(server: BlobServer, what: Any) -> None:
    server.before = lambda number, handler: number in (3, 5, 6) and what(handler)
    with RemoteReader(server.url) as reader:
        assert reader.read() == CONTENT


def test_a_blob_that_is_replaced_is_never_a_mixture(server: BlobServer) -> None:
    with RemoteReader(server.url) as reader:
        assert reader.read(1 << 16) == CONTENT[: 1 << 16]
        server.etag = '"0x2"'
        with pytest.raises(rdbkit.ChangedError, match="changed or replaced while it was read"):
            reader.read()


@pytest.mark.parametrize("what", ["etag", "content"])
def test_a_server_that_sees_no_condition_is_not_believed(server: BlobServer, what: str) -> None:
    """As a cache in front of the service may not."""

    def before(number: int, handler: Any) -> bool:
        del handler.headers["If-Match"]
        return False

    server.before = before
    with RemoteReader(server.url) as reader:
        assert reader.read(1 << 16) == CONTENT[: 1 << 16]
        setattr(server, what, {"etag": '"0x2"', "content": CONTENT + b"more"}[what])
        with pytest.raises(rdbkit.ChangedError, match="changed or replaced while it was read"):
            reader.read()


def test_a_server_that_ignores_what_is_asked_for(server: BlobServer) -> None:
    def whole(number: int, handler: Any) -> bool:
        handler.answer(200, CONTENT[: 1 << 20])
        return True

    server.before = whole
    with pytest.raises(rdbkit.TargetError):
        RemoteReader(server.url)


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [
        (404, "BlobNotFound", "there is no such blob; check the URL (404 BlobNotFound)"),
        (404, "ContainerNotFound", "there is no such container; check the URL (404 ContainerNotFound)"),
        (403, "AuthenticationFailed", "a SAS may have expired"),
        (403, "AuthorizationPermissionMismatch", "Storage Blob Data Reader"),
        (403, "Other", "the request is not allowed: a firewall, a missing role, or an expired SAS (403 Other)"),
        (401, "NoAuthenticationInformation", "the request has no credentials"),
        (409, "BlobArchived", "archive tier"),
        (400, "Strange", "the service refuses it (400 Strange)"),
    ],
)
def test_what_a_service_says(server: BlobServer, status: int, code: str, said: str) -> None:
    server.before = lambda number, handler: handler.refuse(status, code)
    url = f"{server.url}?{SAS}"
    with pytest.raises(rdbkit.TargetError) as caught:
        rdbkit.open(url)
    assert said in caught.value.message
    assert caught.value.source == server.url
    assert "\n" not in str(caught.value)
    assert "c2VjcmV0" not in str(caught.value)
    assert len(server.ranges) == 1  # what will not change is not asked again


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not patient tries once."""
    monkeypatch.setattr(store_client, "_SECONDS", 0)


def test_nobody_there(hurried: None) -> None:
    with serving(b"") as server:
        url = server.url
    with pytest.raises(rdbkit.TargetError, match=r"the service cannot be reached: connection refused") as caught:
        rdbkit.open(url)
    assert caught.value.source == url


def test_a_host_that_is_not_found(hurried: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(rdbkit.TargetError) as caught:
        rdbkit.open("https://mystore.blob.core.invalid/dumps/dump.rdb?sig=c2VjcmV0")
    assert "the host mystore.blob.core.invalid cannot be found; check the account's name" in caught.value.message
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://a.blob.core.windows.net/dumps", "a container or folder"),
        ("https://a.blob.core.windows.net/dumps/2026/", "a container or folder"),
        ("https://a.blob.core.windows.net/dumps/a#b.rdb", "write %23"),
        ("http://a.blob.core.windows.net/dumps/b.rdb", "use https://, or allow"),
        ("abfss://dumps@a.dfs.example.com/b.rdb", "one of another host takes a SAS"),
        ("abfss://dumps@a.dfs.core.windows.net.example.com/b.rdb", "one of another host takes a SAS"),
        ("abfss://dumps@a.dfs.core.windows.net/", "a container or folder"),
        ("abfss://a.dfs.core.windows.net/dumps/b.rdb", "has the container's name, then @ and the account's host"),
        ("abfss://dumps@a.blob.core.windows.net/b.rdb", "has the container's name, then @ and the account's host"),
    ],
)
def test_what_is_no_blob(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        rdbkit.open(url)


@pytest.mark.parametrize("name", ["/dump.rdb", "%2Fdump.rdb", "a//dump.rdb", "a/../dump.rdb", "./dump.rdb", "a%0Adump.rdb", "a%7F"])
def test_a_name_that_would_be_taken_for_another_is_refused(name: str) -> None:
    with serving(DUMP.read_bytes()) as server:
        with pytest.raises(rdbkit.TargetError, match="begins with a slash, or has an empty part"):
            rdbkit.open(server.url.replace("dump.rdb", name))
        assert server.ranges == []


def test_one_blob_has_one_name() -> None:
    names = {
        name_of(url)
        for url in (
            "https://a.blob.core.windows.net/dumps/b%20c.rdb",
            "HTTPS://A.Blob.core.windows.net:443/dumps/b%20%63.rdb?sig=x",
            "https://a.blob.core.windows.net/dumps/b c.rdb",
        )
    }
    assert names == {"https://a.blob.core.windows.net/dumps/b%20c.rdb"}


@pytest.mark.parametrize(
    "url",
    [
        "az://dumps/b%20c.rdb?sig=x",
        "AZ://dumps/b c.rdb",
        "abfs://dumps@shop.dfs.core.windows.net/b%20c.rdb",
        "abfss://dumps@Shop.dfs.core.windows.net/b%20c.rdb?sig=x",
    ],
)
def test_what_other_tools_call_a_blob_is_the_same_blob(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "shop")
    assert is_remote(url)
    assert name_of(url) == "https://shop.blob.core.windows.net/dumps/b%20c.rdb"
    assert base_name(url) == "b c.rdb"


@pytest.mark.parametrize("account", [None, "", "shop.example.com/", "evil.example#"])
def test_a_container_alone_takes_an_account(account: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    if account is not None:
        monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", account)
    with pytest.raises(ValueError, match=r"takes the account's name.* in AZURE_STORAGE_ACCOUNT_NAME") as caught:
        rdbkit.open("az://dumps/b.rdb?sig=c2VjcmV0")
    assert "c2VjcmV0" not in str(caught.value)


def test_names_have_no_query() -> None:
    with serving(DUMP.read_bytes()) as server:
        url = f"{server.url}?{SAS}"
        assert name_of(url) == server.url == name_of(server.url)
        with rdbkit.open(url) as snapshot:
            assert (snapshot.name, snapshot.path, snapshot.size) == (server.url, server.url, DUMP.stat().st_size)
            assert sum(1 for _ in snapshot) == 27
            with snapshot.reopen() as again:
                assert sum(1 for _ in again) == 27
        assert is_file(url)
        assert not is_local(url)
        assert is_remote(url)
        assert base_name(url) == "dump.rdb"
        assert (file_size(url), file_id(url), revision(url)) == (DUMP.stat().st_size, server.url, (DUMP.stat().st_size, '"0x1"'))
        assert fingerprint(url)[:3] == ["dump.rdb", DUMP.stat().st_size, '"0x1"']
        assert is_same_file(url, server.url)
        assert not is_same_file(url, DUMP)
        with pytest.raises(ValueError, match="are the same file"):
            check_distinct([server.url, url])
        before = Identity.of(url)
        assert before is not None
        assert not before.is_changed_in(Identity.of(server.url))
        server.etag = '"0x2"'
        assert before.is_changed_in(Identity.of(url))
        with pytest.raises(rdbkit.ChangedError):
            snapshot.reopen()
        server.before = lambda number, handler: handler.refuse(404, "BlobNotFound")
        assert file_size(url) is None
    assert "c2VjcmV0" not in repr(remote._KNOWN[server.url].place)


def test_a_version_of_a_blob_is_another_blob(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two of them are not mixed up, and none is taken for what the blob has now."""
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    contents = {"versionid=1": b"one", "snapshot=2024-01-01T00%3A00%3A00.0000000Z": b"another", "": b"now"}

    def before(number: int, handler: Any) -> bool:
        (found,) = {pair for pair in contents if pair and pair in handler.path} or {""}
        handler.server.content = contents[found]
        return False

    with serving(b"") as server:
        server.before = before
        urls = {pair: f"{server.url}?{pair and f'{pair}&'}{SAS}" for pair in contents}
        names = {pair: name_of(url) for pair, url in urls.items()}
        assert names == {pair: f"{server.url}?{pair}".rstrip("?") for pair in contents}
        for pair, content in contents.items():
            with RemoteReader(names[pair]) as reader:
                assert (reader.name, reader.read()) == (names[pair], content)
            assert base_name(names[pair]) == "dump.rdb"
        check_distinct(list(urls.values()))
        monkeypatch.setenv("AZURE_STORAGE_KEY", KEY)
        with pytest.raises(rdbkit.TargetError, match="a snapshot or version of a blob takes a SAS"):
            RemoteReader(f"{server.url}?versionid=2")


def test_zeros_and_the_end_are_where_they_are_in_a_file(tmp_path: Path) -> None:
    content = bytes(100_000) + b"x"
    (tmp_path / "zeros").write_bytes(content)
    with serving(content) as server:
        for source in (open_source(str(tmp_path / "zeros")), open_source(server.url)):
            assert (source.total, source.size) == (100_001, 100_001)
            assert source.peek(3) == bytes(3)
            assert source.zeros_ahead() is None
            assert source.refill(b"", 0, 200_000) == content
            source.close()


@pytest.mark.parametrize("variable", ["AZURE_STORAGE_KEY", "NOTHING"])
def test_a_missing_package(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_STORAGE_KEY")
    monkeypatch.setenv(variable, KEY)
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(rdbkit.TargetError, match=r"pip install 'rdbkit\[remote\]'"):
        rdbkit.open("https://a.blob.core.windows.net/missing/package.rdb")


def test_nothing_is_imported_before_it_is_wanted() -> None:
    code = (
        "import sys, rdbkit.cli, rdbkit.cli.info, rdbkit.storage.source\n"
        "print([name for name in ('obstore', 'azure', 'rdbkit.storage.blob_store') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_process_ends_whatever_is_on_its_way() -> None:
    with serving(CONTENT) as server:
        server.before = lambda number, handler: number == 6 and handler.server.silence.wait()
        code = (
            "import rdbkit.storage.remote as remote, sys\n"
            f"reader = remote.RemoteReader({server.url!r})\n"
            "reader.read(20 << 20)\n"
            "raise SystemExit(7)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
        server.silence.set()
    assert (done.returncode, done.stderr) == (7, "")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("silent_from", [0, 8])
def test_an_interrupt_is_heard_while_the_service_is_silent(silent_from: int) -> None:
    with serving(CONTENT) as server:
        server.before = lambda number, handler: number >= silent_from and handler.server.silence.wait()
        code = f"import rdbkit.storage.remote as remote\nremote.RemoteReader({server.url!r}).read()\n"
        process = subprocess.Popen(heeding_signals([sys.executable, "-c", code]), stderr=subprocess.PIPE)
        until(lambda: len(server.ranges) > silent_from, process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=GUARD)
        server.silence.set()
    assert err.strip().endswith(b"KeyboardInterrupt")
    assert process.returncode in (1, 130, -signal.SIGINT)


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("status", "code", "error"), [(403, "AuthenticationFailed", rdbkit.TargetError), (412, "ConditionNotMet", rdbkit.ChangedError)]
)
@pytest.mark.parametrize("verb", ["verify", "verify --deep", "check", "check --deep", "salvage", "export", "convert"])
def test_what_cannot_be_read_any_more_is_not_called_damaged(
    verb: str, status: int, code: str, error: type[Exception], packed: bool, tmp_path: Path
) -> None:
    """As where a SAS expires while it is read: that says nothing of the file, and nothing is made of its first half."""
    with rdbkit.create(tmp_path / "made.rdb", version=11) as writer:
        for number in range(64):
            writer.put(b"key:%d" % number, CONTENT[number << 16 : (number + 1) << 16])
    content = (tmp_path / "made.rdb").read_bytes()
    with serving(gzip.compress(content, 1) if packed else content) as server:

        def before(number: int, handler: Any) -> object:
            return 1 << 19 <= server.ranges[-1][0] < 3 << 20 and handler.refuse(status, code)

        server.before = before
        calls: dict[str, Callable[[], object]] = {
            "verify": lambda: rdbkit.verify(server.url),
            "verify --deep": lambda: rdbkit.verify(server.url, deep=True),
            "check": lambda: rdbkit.check(server.url, "redis-7.2"),
            "check --deep": lambda: rdbkit.check(server.url, "redis-7.2", deep=True),
            "salvage": lambda: rdbkit.salvage(server.url, tmp_path / "out.rdb"),
            "export": lambda: rdbkit.export(server.url, tmp_path / "out.jsonl", on_error="skip"),
            "convert": lambda: rdbkit.convert(server.url, tmp_path / "out.rdb", target="redis-7.0", on_error="skip"),
        }
        with pytest.raises(error):
            calls[verb]()
    assert [path.name for path in tmp_path.iterdir()] == ["made.rdb"]


@pytest.mark.parametrize("verb", ["info", "verify"])
def test_the_exit_code_of_several_files_says_that_a_service_failed(verb: str) -> None:
    with serving(DUMP.read_bytes()) as server:
        code = "from rdbkit.cli import main; main()"
        server.before = lambda number, handler: "gone" in handler.path and handler.refuse(404, "BlobNotFound")
        arguments = [verb, server.url, server.url.replace("dump.rdb", "gone.rdb")]
        done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (4, 1)
    assert server.url in done.stdout


@pytest.mark.parametrize("begin", [" https://", "htps://", "ftp://"])
@pytest.mark.parametrize("verb", ["info", "verify", "check --target redis-7.0", f"diff {DUMP}", "build"])
def test_a_url_that_is_misspelt_is_not_shown_with_its_signature(verb: str, begin: str) -> None:
    code = "from rdbkit.cli import main; main()"
    arguments = [*verb.split(), f"{begin}a.blob.core.windows.net/dumps/b.rdb?{SAS}"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "c2VjcmV0" not in done.stderr
    assert "not a URL that is read (https://, s3://, gs://, az://, abfs://, redis://, rediss://)" in done.stderr

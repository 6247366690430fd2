"""Caches and blobs through the functions of `rdbkit`, with arguments that are plain text."""

from __future__ import annotations

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rdbkit

from ..arm import Cloud
from ..azurite import needs_azurite
from ..rdb import FIXTURES, key, rdb, string

NEW = FIXTURES / "rich/redis-7.2.6.rdb"
OLD = FIXTURES / "rich/redis-6.0.16.rdb"
SMALL = rdb(b"\xfe\x00", key(b"greeting", 0, string(b"hello")))
OTHER = rdb(b"\xfe\x00", key(b"greeting", 0, string(b"goodbye")))


@pytest.fixture
def azure(azure: Cloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cloud:
    monkeypatch.chdir(tmp_path)  # where states are noted
    for name, value in azure.environment.items():
        monkeypatch.setenv(name, value)
    # the public cloud's address is the default; this is another cloud
    monkeypatch.setattr(rdbkit.Arm.__init__, "__kwdefaults__", {"cloud": "public", "endpoint": azure.endpoint, "credential": None})
    return azure


@needs_azurite
def test_import(azure: Cloud, tmp_path: Path) -> None:
    cache = azure.premium()
    url = azure.blob("dumps/library.rdb", OLD.read_bytes())
    seen: list[Any] = []
    done = rdbkit.import_(
        url, cache.path, target="azure-premium", progress=lambda status, _: seen.append(status.word),
        check_progress=lambda name, n: seen.append((name, n)),
    )  # fmt: skip
    assert cache.data == [OLD.read_bytes()]
    assert (done.cache, done.bytes, done.resumed) == ("shop-cache", OLD.stat().st_size, False)
    assert [blob["url"] for blob in done.blobs] == [url]
    assert (url, done.bytes) in seen
    assert seen[-1] == "Succeeded"
    assert list(tmp_path.iterdir()) == []


@needs_azurite
def test_import_of_several_into_a_cache_that_is_open(azure: Cloud) -> None:
    cache = azure.managed()
    urls = [azure.blob("dumps/several-1.rdb", SMALL), azure.blob("dumps/several-2.rdb.gz", gzip.compress(SMALL, mtime=0))]
    with rdbkit.Arm(rdbkit.parse_resource_id(cache.path), endpoint=azure.endpoint) as arm:
        places: list[str | rdbkit.BlobUrl] = [urls[0], rdbkit.parse_place(urls[1])]
        done = rdbkit.import_(places, arm, target=rdbkit.find_target("azure-managed"), examine=False)
        assert arm.read().name == "shop-amr", "whoever opened it closes it"
    assert cache.data == [SMALL, gzip.compress(SMALL, mtime=0)]
    assert done.bytes == sum(map(len, cache.data))


@needs_azurite
def test_a_blob_that_does_not_go_in_as_it_is_changes_nothing(azure: Cloud, tmp_path: Path) -> None:
    cache = azure.premium()
    url = azure.blob("dumps/new.rdb", NEW.read_bytes())
    with pytest.raises(rdbkit.TargetError, match=r"imports it after conversion.*: RDB\d+ ") as caught:
        rdbkit.import_(url, cache.path, target="azure-premium")
    assert caught.value.source == url
    assert cache.data == [b"what was there"]
    assert list(tmp_path.iterdir()) == []


@needs_azurite
def test_a_warning_comes_before_anything_is_changed(azure: Cloud) -> None:
    class NoThanks(Exception):
        pass

    def stop(warning: str) -> None:
        raise NoThanks(warning)

    cache = azure.managed(redisVersion="99.1")
    url = azure.blob("dumps/warned.rdb", SMALL)
    with pytest.raises(NoThanks, match=r"documents no RDB version for Redis 99\.1"):
        rdbkit.import_(url, cache.path, target="azure-managed", warning_callback=stop)
    assert cache.data == [b"what was there"]


@needs_azurite
def test_an_import_that_was_begun_is_waited_for(azure: Cloud, tmp_path: Path) -> None:
    class Ended(Exception):
        pass

    def end(*_: object) -> None:
        raise Ended

    cache = azure.premium()
    url = azure.blob("dumps/begun.rdb", SMALL)
    with pytest.raises(Ended):
        rdbkit.import_(url, cache.path, target="azure-premium", progress=end)
    assert [path.name for path in tmp_path.iterdir()] == ["rdbkit-import-shop-cache.json"]
    with pytest.raises(ValueError, match="an import of other blobs was begun"):
        rdbkit.import_(url + "x", cache.path, target="azure-premium")
    azure.blob("dumps/begun.rdb", OTHER)
    warnings: list[str] = []
    with pytest.raises(rdbkit.TargetError, match="the blob as it is asked for now was not imported"):
        rdbkit.import_(url, cache.path, target="azure-premium", warning_callback=warnings.append)
    assert warnings == [f"{url}: that import is of the blob as it was then, not as it is asked for now"]
    assert len(cache.bodies) == 1
    assert list(tmp_path.iterdir()) == []


@needs_azurite
def test_export_cache(azure: Cloud, tmp_path: Path) -> None:
    cache = azure.premium()
    cache.data = [SMALL]
    container = azure.blob("exported/")
    done = rdbkit.export_cache(cache.path, container, target="azure-premium", prefix="shop", state=tmp_path / "state.json")
    assert [blob["url"] for blob in done.blobs] == [f"{container.rstrip('/')}/shop.rdb"]
    assert (done.verb, done.bytes, done.resumed) == ("export", len(SMALL), False)
    assert list(tmp_path.iterdir()) == []


@needs_azurite
def test_an_export_that_was_begun_is_waited_for(azure: Cloud, tmp_path: Path) -> None:
    class Ended(Exception):
        pass

    def end(*_: object) -> None:
        raise Ended

    cache = azure.managed()
    container = azure.blob("exported-2/")
    with pytest.raises(Ended):
        rdbkit.export_cache(cache.path, container, target="azure-managed", progress=end)
    with pytest.raises(ValueError, match=r"an export to .*exported-2 was begun"):
        rdbkit.export_cache(cache.path, azure.blob("exported-3/"), target="azure-managed")
    assert rdbkit.export_cache(cache.path, container, target="azure-managed").resumed
    assert len(cache.bodies) == 1
    assert list(tmp_path.iterdir()) == []


@needs_azurite
def test_migrate(azure: Cloud, tmp_path: Path) -> None:
    cache = azure.premium()
    container = azure.blob("dumps/migrated/")
    with pytest.raises(rdbkit.LossError):
        rdbkit.migrate(NEW, cache.path, target="azure-premium", container=container)
    assert cache.data == [b"what was there"]
    seen: list[Any] = []
    done = rdbkit.migrate(
        NEW, cache.path, target="azure-premium", container=container, policies=rdbkit.Policies(function="drop"),
        file_progress=lambda name, n: seen.append(name), progress=lambda status, _: seen.append(status.word),
    )  # fmt: skip
    with rdbkit.open(io.BytesIO(cache.data[0])) as snapshot:
        assert sum(1 for _ in snapshot) == done.to_dict()["written"]
    assert done.to_dict()["lost"] == {"function": 1}
    assert done.result is not None
    assert done.result.bytes == len(cache.data[0])
    assert {str(NEW), "Succeeded"} <= set(seen)
    assert list(tmp_path.iterdir()) == []


@needs_azurite
def test_migrate_sends_no_base_beside_newer_data(azure: Cloud) -> None:
    cache = azure.premium()
    base = FIXTURES / "aof" / "appendonlydir" / "appendonly.aof.2.base.rdb"
    container = azure.blob("dumps/base/")
    with pytest.raises(rdbkit.TargetError, match="newer data stands beside it"):
        rdbkit.migrate(base, cache.path, target="azure-premium", container=container)
    assert cache.data == [b"what was there"]
    done = rdbkit.migrate(base, cache.path, target="azure-premium", container=container, allow_base=True)
    assert done.to_dict()["written"] == 1


@needs_azurite
def test_migrate_goes_on(azure: Cloud, tmp_path: Path) -> None:
    cache = azure.premium()
    container = rdbkit.parse_place(azure.blob("dumps/in-steps/"))
    done = rdbkit.migrate([OLD], cache.path, target="azure-premium", container=container, skip=["import"])
    assert (done.result, cache.data) == (None, [b"what was there"])
    assert [path.name for path in tmp_path.iterdir()] == ["rdbkit-migrate-shop-cache.json"]
    sent = len([path for method, path in azure.calls if method == "PUT" and "in-steps" in path])
    done = rdbkit.migrate(OLD, cache.path, target="azure-premium", container=container)
    assert len([path for method, path in azure.calls if method == "PUT" and "in-steps" in path]) == sent
    assert done.result is not None
    assert cache.data == [OLD.read_bytes()]


@needs_azurite
def test_upload_takes_a_url(azure: Cloud) -> None:
    url = azure.blob("dumps/")
    done = rdbkit.upload(OLD, url + "uploaded.rdb")
    assert (done.url, done.bytes) == (url + "uploaded.rdb", OLD.stat().st_size)
    with pytest.raises(ValueError, match="names no blob"):
        rdbkit.upload(OLD, url)


CACHE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Cache/redis/c"
BLOB = "https://a.blob.core.windows.net/dumps/a.rdb?sig=secret"


def test_what_an_argument_cannot_be_is_told() -> None:
    verbs: dict[str, Callable[[Any, Any, Any], object]] = {
        "import": lambda blob, cache, target: rdbkit.import_(blob, cache, target=target),
        "export": lambda blob, cache, target: rdbkit.export_cache(cache, blob, target=target),
        "migrate": lambda blob, cache, target: rdbkit.migrate(OLD, cache, target=target, container=blob),
    }
    for verb in verbs.values():
        with pytest.raises(TypeError, match="a blob or container is a URL or a BlobUrl, not int"):
            verb(3, CACHE, "azure-premium")
        with pytest.raises(TypeError, match="a cache is its resource id, as text, or an Arm, not int"):
            verb(BLOB, 3, "azure-premium")
        with pytest.raises(TypeError, match="target is a Target or its name"):
            verb(BLOB, CACHE, 3)
        with pytest.raises(ValueError, match="a cache's resource id is"):
            verb(BLOB, "c", "azure-premium")
        with pytest.raises(ValueError, match="begins with https://"):
            verb("dumps/a.rdb", CACHE, "azure-premium")
    for skip in ("import", ["imports"]):
        with pytest.raises(ValueError, match="a collection of check, upload, import"):
            rdbkit.migrate(OLD, CACHE, target="azure-premium", container=BLOB, skip=skip)
    with pytest.raises(TypeError, match="a blob or container is a URL or a BlobUrl, not bytes"):
        rdbkit.upload(OLD, b"https://a")  # type: ignore[arg-type]

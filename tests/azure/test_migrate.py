"""Snapshots all the way into caches of the tests' own cloud: converted, uploaded, imported; ended and continued."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from rdbkit.format.slots import key_slot

from ..arm import Cache, Cloud
from ..azurite import needs_azurite
from ..operations.test_enterprise import exported
from ..processes import until
from ..rdb import FIXTURES
from .shell import Shell, posts

pytestmark = needs_azurite
DUMP = FIXTURES / "rich/redis-7.2.6.rdb"
OLD = FIXTURES / "rich/redis-6.0.16.rdb"


def command(cache: Cache, folder: str, *args: str | Path) -> list[str]:
    kind = "azure-premium" if "/redis/" in cache.path else "azure-managed"
    return ["migrate", "--target", kind, "--resource-id", cache.path, "--container", folder, *map(str, args)]


def migrate(shell: Shell, cache: Cache, folder: str, *args: str | Path) -> tuple[int, str, str]:
    return shell.run(*command(cache, folder, *args), "--yes", cache.path.rpartition("/")[2])


def a_dump(path: Path, keys: int = 3, version: int = 11, size: int = 10) -> Path:
    """A snapshot that Premium takes after a conversion without loss."""
    with rdbkit.create(path, version=version) as writer:
        for number in range(keys):
            writer.put(b"%b:%d" % (path.stem.encode(), number), b"%d" % number * size)
    return path


def keys_of(data: bytes) -> int:
    with rdbkit.open(io.BytesIO(data)) as snapshot:
        return sum(1 for _ in snapshot)


def test_a_dump_of_a_newer_server_goes_to_premium(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.premium()
    path = a_dump(tmp_path / "shop.rdb")
    report = tmp_path / "report.json"
    code, out, err = shell.end(shell.start(*command(cache, folder, path, "--report", report), "--yes", "shop-cache"))
    assert code == 0, err
    (data,) = cache.data
    assert data[:9] == b"REDIS0009"
    assert keys_of(data) == 3
    assert "REDIS0011 -> REDIS0009" in out
    assert "shop-cache has imported" in out
    assert f"  run next  rdbkit verify-import {folder}shop.rdb rediss://shop-cache.redis.cache.windows.net:6380\n" in out
    made = json.loads(report.read_text())
    assert (made["keys"], made["written"], made["lost"]) == (3, 3, {})
    assert made["files"][0]["blobs"][0]["bytes"] == len(data) == made["bytes"]
    assert made["import"]["resumed"] is False
    assert shell.states == [report], "nothing is left to continue"


def test_several_files_and_one_as_it_is(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.managed()
    first, second = a_dump(tmp_path / "a.rdb"), a_dump(tmp_path / "b.rdb", version=12)
    code, out, err = migrate(shell, cache, folder, first, second, "--json")
    assert code == 0, err
    assert cache.data[0] == first.read_bytes()
    assert cache.data[1][:9] == b"REDIS0011"
    files = json.loads(out)["files"]
    assert [(file["verdict"], file["identical"]) for file in files] == [("as-it-is", True), ("lossless", False)]


def test_expiries_of_fields_are_kept_where_the_user_relies_on_the_engine(
    azure: Cloud, shell: Shell, folder: str, tmp_path: Path
) -> None:
    dump = FIXTURES / "rich/redis-7.4.1.rdb"
    path = tmp_path / "fields.rdb"
    rdbkit.convert(dump, path, target="redis-7.4", edits=rdbkit.Edits(collapse_dbs=True, on_conflict="rename"))
    cache = azure.managed()
    code, _, err = migrate(shell, cache, folder, path)
    assert (code, cache.data) == (1, [b"what was there"])
    assert "or --undocumented keeps them: Redis 7.4, which runs there, loads RDB 12, and the documents stop at RDB 11" in err
    code, out, err = migrate(shell, cache, folder, path, "--undocumented", "--strict")
    assert code == 0, err
    assert "REDIS0012, as it is" in out
    assert cache.data == [path.read_bytes()]
    # of Redis 8.0 nothing is documented, and what it has is no loss
    cache = azure.managed(redisVersion="8.0.2")
    code, out, err = migrate(shell, cache, folder, path, "--strict", "--overwrite")
    assert code == 0, err
    assert "documents no RDB version for Redis 8.0, which itself loads RDB 12" in out
    assert cache.data == [path.read_bytes()]


def test_an_export_of_the_service_goes_in_with_all_that_it_has(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    path, packed = tmp_path / "a.rdb", tmp_path / "b.rdb.gz"
    path.write_bytes(exported())
    packed.write_bytes(gzip.compress(exported(b"7.2.4", b"REDIS0011").replace(b"\x01a", b"\x01z")[:-8] + bytes(8)))
    cache = azure.managed()
    code, out, err = migrate(shell, cache, folder, path, packed, "--json", "--strict")
    assert code == 0, err
    assert cache.data == [path.read_bytes(), gzip.decompress(packed.read_bytes())]
    assert [file["verdict"] for file in json.loads(out)["files"]] == ["as-it-is", "as-it-is"]
    # its parts are no exports any more
    code, out, err = migrate(shell, cache, folder, path, "--split-size", "1MiB")
    assert (code, "field-expiry" in err) == (1, True)
    assert migrate(shell, cache, folder, path, "--split-size", "1MiB", "--undocumented", "--strict", "--overwrite")[0] == 0
    assert cache.data[0][:9] == b"REDIS0012"
    assert migrate(shell, cache, folder, path, "--split-size", "1MiB", "--on-loss", "drop", "--overwrite")[0] == 0
    assert cache.data[0][:9] == b"REDIS0011"


def test_a_key_that_several_files_have_is_told(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.premium()
    first = a_dump(tmp_path / "a.rdb")
    second = tmp_path / "b.rdb"
    with rdbkit.create(second, version=9) as writer:
        for name in (b"a:1", b"a:2", b"b:1"):
            writer.put(name, b"other")
    code, _, err = migrate(shell, cache, folder, first, second)
    assert (code, cache.data, posts(azure)) == (1, [b"what was there"], [])
    assert "a key is there more than once" in err
    assert "and 1 more; nothing was sent. rdbkit merge" in err
    assert not [path for method, path in azure.calls if method == "PUT" and "comp=block" in path]
    assert migrate(shell, cache, folder, first, second, "--skip", "check")[0] == 0


@pytest.mark.one_in(2)
@pytest.mark.parametrize("version", [9, 11])
def test_a_file_in_parts(azure: Cloud, shell: Shell, folder: str, tmp_path: Path, version: int) -> None:
    cache = azure.premium()
    path = a_dump(tmp_path / "p.rdb", keys=3000, version=version, size=100)
    args: list[str | Path] = [path, "--split-size", "300KB"]
    assert shell.run(*command(cache, folder, *args, "--skip", "import"))[0] == 0
    (state,) = shell.states
    parts = sorted((tmp_path / f"{state.name}.parts" / "p").glob("*.rdb"))
    assert len(parts) > 2
    parts[0].unlink()  # what has been sent is needed no more
    code, out, err = migrate(shell, cache, folder, *args, "--json")
    assert code == 0, err
    assert len(cache.data) == len(parts)
    assert sum(map(keys_of, cache.data)) == 3000
    assert all(data[:9] == b"REDIS0009" for data in cache.data)
    (file,) = json.loads(out)["files"]
    assert [blob["name"] for blob in file["blobs"]] == [f"p/{part.name}" for part in parts]
    assert list(tmp_path.glob("rdbkit-*")) == [], "parts and state are gone"
    code, _, err = migrate(shell, azure.premium("other"), folder, *args, "--skip", "upload")
    assert code == 4
    assert "not all parts of it have been sent" in err
    code, out, _ = migrate(shell, azure.premium("third"), folder, *args, "--dry-run", "--json")
    assert code == 0
    assert json.loads(out)["calls"][0]["body"]["files"] == [], "which blobs there will be is not known"


def test_nothing_is_sent_that_would_lose_data(azure: Cloud, shell: Shell, folder: str) -> None:
    cache = azure.premium()
    code, _, err = migrate(shell, cache, folder, DUMP)
    assert (code, cache.data, posts(azure)) == (1, [b"what was there"], [])
    assert "--on-function drop" in err
    code, out, err = migrate(shell, cache, folder, DUMP, "--on-function", "drop")
    assert code == 0, err
    assert keys_of(cache.data[0]) == 27
    assert "function 1" in out
    code, _, err = migrate(shell, cache, folder, DUMP, "--on-function", "drop", "--overwrite", "--strict")
    assert code == 1, err


def test_a_damaged_file_is_refused(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    path = tmp_path / "cut.rdb"
    path.write_bytes(OLD.read_bytes()[:-50])
    cache = azure.premium()
    code, _, err = migrate(shell, cache, folder, path)
    assert (code, cache.data, posts(azure)) == (3, [b"what was there"], [])
    assert err.count("\n") == 1
    assert "the file ends" in err
    assert "--on-loss" not in err


def test_a_dry_run_changes_nothing(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.premium()
    code, out, err = shell.run(*command(cache, folder, a_dump(tmp_path / "d.rdb")), "--dry-run")
    assert (code, err, cache.data, posts(azure)) == (0, "", [b"what was there"], [])
    assert "delete everything in shop-cache" in out
    assert not [path for method, path in azure.calls if method == "PUT"]


def test_steps_can_be_left_out(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.premium()
    path = a_dump(tmp_path / "steps.rdb")
    code, _, err = shell.run(*command(cache, folder, path, "--skip", "import"))
    assert (code, cache.data) == (0, [b"what was there"]), err
    assert len(shell.states) == 1
    # what has been sent is not sent again
    code, out, err = migrate(shell, cache, folder, path)
    assert code == 0, err
    assert keys_of(cache.data[0]) == 3
    assert "which is done" in out
    cache = azure.premium("second")
    code, _, err = migrate(shell, cache, folder, path, "--skip", "check", "--skip", "upload")
    assert code == 0, err
    assert keys_of(cache.data[0]) == 3
    cache = azure.premium("third")
    code, _, err = migrate(shell, cache, f"{folder}other/", path, "--skip", "check")
    assert code == 0, err
    assert cache.data[0][:9] == b"REDIS0009"


def test_a_blob_that_is_there_is_not_replaced_without_a_word(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    path = a_dump(tmp_path / "there.rdb")
    cache = azure.premium()
    azure.blob(f"{folder.partition('/devstoreaccount1/')[2]}there.rdb", b"theirs")
    code, _, err = migrate(shell, cache, folder, path)
    assert (code, cache.data) == (4, [b"what was there"])
    assert "--overwrite" in err
    code, _, err = migrate(shell, cache, folder, path, "--overwrite")
    assert code == 0, err
    assert keys_of(cache.data[0]) == 3


def test_a_file_that_changes_between_two_runs_goes_again(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.premium()
    path = a_dump(tmp_path / "c.rdb")
    assert shell.run(*command(cache, folder, path, "--skip", "import"))[0] == 0
    path.unlink()
    a_dump(path, keys=5)
    # the blob is what an earlier run has made of this file, and nobody else has written it since
    code, _, err = migrate(shell, cache, folder, path)
    assert code == 0, err
    assert keys_of(cache.data[0]) == 5


def test_a_blob_that_somebody_else_writes_is_not_imported(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.premium()
    path = a_dump(tmp_path / "e.rdb")
    assert shell.run(*command(cache, folder, path, "--skip", "import"))[0] == 0
    azure.blob(f"{folder.partition('/devstoreaccount1/')[2]}e.rdb", OLD.read_bytes())
    code, _, err = migrate(shell, cache, folder, path)
    assert (code, cache.data) == (4, [b"what was there"])
    assert "the blob exists; --overwrite replaces it" in err
    code, _, err = migrate(shell, cache, folder, path, "--overwrite")
    assert code == 0, err
    assert keys_of(cache.data[0]) == 3


def test_a_blob_that_is_gone_is_sent_again(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.premium()
    path = a_dump(tmp_path / "g.rdb")
    assert shell.run(*command(cache, folder, path, "--skip", "import"))[0] == 0
    name = folder.partition("/devstoreaccount1")[2]
    assert azure.back("DELETE", f"/devstoreaccount1{name}g.rdb", b"", {})[0] == 202
    code, _, err = migrate(shell, cache, folder, path)
    assert code == 0, err
    assert keys_of(cache.data[0]) == 3


@pytest.mark.one_in(2)
@pytest.mark.parametrize("name", ["upload", "import"])
def test_a_run_that_is_killed_is_gone_on_with(azure: Cloud, shell: Shell, folder: str, tmp_path: Path, name: str) -> None:
    cache = azure.premium()
    path = a_dump(tmp_path / "k.rdb", keys=1000, size=1000)
    args = [*command(cache, folder, path, "--block-size", "64KiB", "--concurrency", "2"), "--yes", "shop-cache"]
    if name == "upload":
        kill_at(azure, shell, 8, "comp=block&", *args)
    else:
        killed_when_begun(azure, shell, cache, args[:-2], tmp_path)
    assert (cache.data == [b"what was there"]) == (name == "upload")
    code, out, err = shell.run(*args, "--json")
    assert code == 0, err
    assert len(posts(azure)) == 1
    assert keys_of(cache.data[0]) == 1000
    made: dict[str, Any] = json.loads(out)
    assert made["import"]["resumed"] is (name == "import")
    if name == "upload":
        assert made["files"][0]["blobs"][0]["kept"] >= 4


def test_what_does_not_fit_is_said_beforehand(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.premium()
    path = a_dump(tmp_path / "f.rdb")
    other = tmp_path / "sub"
    other.mkdir()
    same = a_dump(other / "f.rdb")
    packed = tmp_path / "f.rdb.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    state = tmp_path / "state.json"
    state.write_text("{}")
    for args, said in (
        ([path, same], "one blob"),
        ([path, packed], "one blob"),
        ([path, path], "same file"),
        ([path, "--state", state], "no state"),
        ([path, a_dump(tmp_path / "g.rdb"), "--on-function", "extract=x.lua"], "one FILE"),
        ([path, "--skip", "check", "--on-function", "extract=x.lua"], "--on-function extract=FILE is written by the check"),
        ([path, "--skip", "check", "--ledger", "x.jsonl"], "--ledger is written by the check"),
    ):
        code, _, err = migrate(shell, cache, folder, *args)
        assert code == 2, err
        assert said in err
    code, _, err = shell.run(*command(cache, folder, path))
    assert code == 2
    assert "--yes shop-cache" in err
    code, _, err = shell.run(*command(cache, folder, path), "--yes", "other")
    assert code == 2
    assert (cache.data, posts(azure)) == ([b"what was there"], [])
    assert shell.run(*command(cache, folder, path, "--skip", "import"))[0] == 0
    code, _, err = migrate(shell, azure.premium("other"), folder, path, "--state", tmp_path / "rdbkit-migrate-shop-cache.json")
    assert code == 2
    assert "another cache" in err


@pytest.mark.one_in(2)
@pytest.mark.parametrize("version", [9, 11])
def test_a_blob_that_was_sent_and_not_noted_is_known_again(
    azure: Cloud, shell: Shell, folder: str, tmp_path: Path, version: int
) -> None:
    cache = azure.premium()
    path = a_dump(tmp_path / "n.rdb", version=version)
    assert shell.run(*command(cache, folder, path, "--skip", "import"))[0] == 0
    shell.states[0].unlink()
    code, out, err = migrate(shell, cache, folder, path, "--json")
    assert code == 0, err
    (blob,) = json.loads(out)["files"][0]["blobs"]
    assert (blob["present"], blob["sent_bytes"]) == (True, 0)
    assert keys_of(cache.data[0]) == 3


# -- what the cache does not support


def in_databases(path: Path, databases: int) -> Path:
    with rdbkit.create(path, version=9) as writer:
        for db in range(databases):
            writer.put(b"k%d" % db, b"v", db=db)
    return path


@pytest.mark.one_in(4)
@pytest.mark.parametrize("changes", [{"shardCount": 3}, {"redisConfiguration": {"databases": "4"}}])
@pytest.mark.parametrize("parts", [[], ["--split-size", "1MB"]])
def test_databases_that_the_cache_does_not_have(
    azure: Cloud, shell: Shell, folder: str, tmp_path: Path, changes: dict[str, Any], parts: list[str]
) -> None:
    cache = azure.premium(**changes)
    path = in_databases(tmp_path / "dbs.rdb", 16)
    code, _, err = migrate(shell, cache, folder, path, *parts)
    assert (code, cache.data, posts(azure)) == (1, [b"what was there"], [])
    assert "would be lost: database" in err
    assert "  database: --collapse-dbs to move them, or --map-db; --db to choose\n" in err
    assert not [path for method, path in azure.calls if method == "PUT" and "dbs" in path]
    code, out, err = migrate(shell, cache, folder, path, *parts, "--on-loss", "drop", "--json")
    assert code == 0, err
    left = 1 if "shardCount" in changes else 4
    assert sum(map(keys_of, cache.data)) == json.loads(out)["written"] == left
    assert json.loads(out)["lost"] == {"database": 16 - left}


def test_obstacles_are_found_before_anything_is_sent(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    path = a_dump(tmp_path / "o.rdb")
    for cache, container, more, said in (
        (azure.premium(linked=["north"]), folder, [], "geo-replicated"),
        (azure.premium("second"), folder, ["--auth", "managed-identity"], "no managed identity"),
        (azure.premium("third"), folder.replace("/dumps/", "/nowhere/"), [], "container"),
    ):
        for dry in ([], ["--dry-run"]):
            code, _, err = migrate(shell, cache, container, path, *more, *dry)
            assert (code, cache.data, posts(azure)) == (4, [b"what was there"], []), err
            assert said in err
    assert not [path for method, path in azure.calls if method == "PUT"]


def test_a_dry_run_prints_the_request_and_leaves_nothing(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.premium()
    path = a_dump(tmp_path / "d.rdb")
    code, out, err = shell.run(*command(cache, folder, path), "--dry-run")
    assert code == 0, err
    assert "Not sent, for --dry-run:\nPOST " in out
    assert "d.rdb?" in out
    assert "sig=***" in out
    code, out, err = shell.run(*command(cache, folder, path), "--dry-run", "--json")
    assert json.loads(out)["calls"][0]["method"] == "POST"
    assert shell.states == []


# -- reports


def test_a_report_replaces_nothing_but_a_report(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.premium()
    path = a_dump(tmp_path / "r.rdb")
    data = path.read_bytes()
    other = tmp_path / "other.json"
    other.write_text("{}")
    for taken in (path, other):
        for dry in ([], ["--dry-run"]):
            code, _, err = migrate(shell, cache, folder, path, "--report", taken, *dry)
            assert code == 2
            assert "is no report" in err or "says rdb, and json is written" in err
    code, _, err = migrate(shell, cache, folder, path, "--report", tmp_path / "nowhere" / "report.json")
    assert code == 3
    assert (path.read_bytes(), other.read_text(), cache.data, posts(azure)) == (data, "{}", [b"what was there"], [])
    report = tmp_path / "report.json"
    assert migrate(shell, cache, folder, path, "--report", report, "--dry-run")[0] == 0
    assert json.loads(report.read_text())["dry_run"] is True
    assert migrate(shell, cache, folder, path, "--report", report)[0] == 0
    assert json.loads(report.read_text())["dry_run"] is False


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no device that is always full")
def test_a_report_that_cannot_be_written_does_not_hide_that_the_import_has_ended(
    azure: Cloud, shell: Shell, folder: str, tmp_path: Path
) -> None:
    cache = azure.premium()
    code, _, err = migrate(shell, cache, folder, a_dump(tmp_path / "a.rdb"), "--report", "/dev/full")
    assert (code, len(cache.data), shell.states) == (3, 1, [])
    assert err.endswith(
        "rdbkit: the import into shop-cache has ended well, and is not to be begun again\n"
        "rdbkit: /dev/full: No space left on device\n"
    )


@pytest.mark.parametrize("other", ["begins", "ends"])
@pytest.mark.parametrize("at", ["upload", "question"])
def test_two_runs_at_a_time_begin_one_import(azure: Cloud, shell: Shell, folder: str, tmp_path: Path, other: str, at: str) -> None:
    cache = azure.premium()
    state = tmp_path / "rdbkit-migrate-shop-cache.json"
    begun = {
        "verb": "import", "resource_id": cache.path, "blobs": [], "operation": f"{azure.endpoint}/op9", "begun": 1.0, "place": "",
    }  # fmt: skip

    def come_between(method: str, path: str) -> str:
        """What another run does, when this one sends, or when it looks at what it has sent."""
        if method == ("PUT" if at == "upload" else "GET") and "a.rdb" in path and state.exists():
            if other == "ends":
                state.unlink()
            else:
                state.write_text(json.dumps(json.loads(state.read_text()) | {"import": begun}))
        return ""

    azure.fault = come_between
    code, _, err = migrate(shell, cache, folder, a_dump(tmp_path / "a.rdb"))
    assert (code, cache.data, posts(azure)) == (4, [b"what was there"], []), err
    assert "rdbkit: shop-cache: another run has " in err
    assert "since this one looked, and this one begins none: look at the cache, or run this again" in err
    assert state.exists() is (other == "begins")
    assert other == "ends" or json.loads(state.read_text())["import"] == begun


def test_a_blob_that_an_import_may_be_reading_is_not_replaced_without_a_word(
    azure: Cloud, shell: Shell, folder: str, tmp_path: Path
) -> None:
    cache = azure.premium()
    path = a_dump(tmp_path / "a.rdb")
    cache.said_first = (500, b"", {})
    code, _, err = migrate(shell, cache, folder, path)
    assert code == 4
    assert "whether the import has begun is not known" in err
    cache.said_first = None
    code, out, err = migrate(shell, cache, folder, path, "--set-ttl", "1d", "--skip", "import")
    assert code == 4
    assert "whether that has begun is not known: look at the cache first" in out
    assert "the blob exists; --overwrite replaces it" in err
    assert migrate(shell, cache, folder, path, "--set-ttl", "1d", "--overwrite")[0] == 0


# -- other files, other options


def killed_while_it_waits(azure: Cloud, shell: Shell, cache: Cache, folder: str, path: Path) -> None:
    killed_when_begun(azure, shell, cache, command(cache, folder, path), path.parent)


def has_begun(folder: Path) -> bool:
    """Whether the state that a run keeps says which operation it has begun."""
    state = folder / "rdbkit-migrate-shop-cache.json"
    begun = json.loads(state.read_text())["import"] if state.exists() else None
    return bool(begun and begun["operation"])


def kill_at(azure: Cloud, shell: Shell, number: int, request: str, *args: str) -> None:
    """A run that is killed when it has sent this many requests to store something, by what is in their URLs."""
    seen: list[str] = []

    def kill(method: str, path: str) -> str:
        if method == "PUT" and request in path:
            seen.append(path)
            if len(seen) >= number:
                process.kill()
                return "cut"
        return ""

    process = shell.start(*args)
    azure.fault = kill
    assert shell.end(process)[0] == -signal.SIGKILL
    azure.fault = lambda method, path: ""


def killed_when_begun(azure: Cloud, shell: Shell, cache: Cache, args: list[str], folder: Path) -> None:
    """A run that is killed as soon as it knows the operation that it has begun, which ends later."""
    with azure.operations_going_on(cache):
        process = shell.start(*args, "--yes", "shop-cache")
        until(lambda: has_begun(folder), process)
        process.kill()
        shell.end(process)


@pytest.mark.one_in(2)
@pytest.mark.parametrize("what", ["other", "changed"])
def test_an_import_of_other_files_is_not_taken_for_theirs(
    azure: Cloud, shell: Shell, folder: str, tmp_path: Path, what: str
) -> None:
    cache = azure.premium()
    path = a_dump(tmp_path / "one.rdb")
    killed_while_it_waits(azure, shell, cache, folder, path)
    if what == "changed":
        path.unlink()
        other = a_dump(path, keys=5)
    else:
        other = a_dump(tmp_path / "two.rdb", keys=5)
    code, out, err = migrate(shell, cache, folder, other, "--json")
    assert code == 0, err
    assert "an import of other files" in err
    assert len(posts(azure)) == 2
    assert keys_of(cache.data[0]) == 5
    made = json.loads(out)
    assert made["written"] == 5
    assert made["import"]["resumed"] is False


def test_what_may_have_begun_is_said(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.premium()
    path = a_dump(tmp_path / "k.rdb")
    process = shell.start(*command(cache, folder, path), "--yes", "shop-cache")
    cache.on_begin = process.kill
    shell.end(process)
    cache.on_begin = None
    code, out, err = migrate(shell, cache, folder, path)
    assert code == 0, err
    assert "whether that has begun is not known" in out


def test_other_options_and_containers_go_on_with_what_holds(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.premium()
    first = a_dump(tmp_path / "a.rdb")
    assert migrate(shell, cache, folder, first, DUMP)[0] == 1
    code, _, err = migrate(shell, cache, folder, first, DUMP, "--on-function", "drop", "--skip", "import")
    assert code == 0, err
    assert "--on-function" not in err
    code, _, err = migrate(shell, cache, f"{folder}elsewhere/", first, DUMP, "--on-function", "drop")
    assert code == 0, err
    assert [keys_of(data) for data in cache.data] == [3, 27]


def test_parts_that_are_gone_are_made_again(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.premium()
    path = a_dump(tmp_path / "p.rdb", keys=3000, version=11, size=100)
    args = [*command(cache, folder, path, "--split-size", "300KB", "--concurrency", "1"), "--yes", "shop-cache"]
    kill_at(azure, shell, 3, "comp=blocklist", *args)
    shutil.rmtree(tmp_path / "rdbkit-migrate-shop-cache.json.parts")
    code, _, err = shell.run(*args)
    assert code == 0, err
    assert sum(map(keys_of, cache.data)) == 3000
    assert list(tmp_path.glob("rdbkit-*")) == []


def test_a_blob_of_another_file_is_not_taken_for_this(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.premium()
    path = a_dump(tmp_path / "q.rdb", version=9)
    big = a_dump(tmp_path / "big.rdb", keys=50, version=9)
    azure.blob(f"{folder.partition('/devstoreaccount1/')[2]}q.rdb", big.read_bytes())
    code, _, err = migrate(shell, cache, folder, path, "--skip", "upload")
    assert (code, cache.data, posts(azure)) == (4, [b"what was there"], [])
    assert "the blob has 50 keys, and 3 are to come of" in err
    other = azure.premium("other")
    code, out, err = migrate(shell, other, folder, path, "--skip", "upload", "--skip", "check", "--json")
    assert code == 0, err
    assert json.loads(out)["written"] == 50, "what is said is what is in the blob"


def name_of(folder: str, name: str) -> str:
    """Of a blob, as Cloud.blob takes it."""
    return f"{folder.partition('/devstoreaccount1/')[2]}{name}"


def test_one_file_that_was_sent_and_one_that_was_not(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.premium()
    first, second = a_dump(tmp_path / "a.rdb", version=9), a_dump(tmp_path / "b.rdb", version=9, keys=4)
    azure.blob(name_of(folder, "b.rdb"), b"theirs")
    assert migrate(shell, cache, folder, first, second)[0] == 4
    azure.blob(name_of(folder, "a.rdb"), a_dump(tmp_path / "x.rdb", version=9, keys=50).read_bytes())
    azure.blob(name_of(folder, "b.rdb"), second.read_bytes())
    code, _, err = migrate(shell, cache, folder, first, second, "--skip", "upload")
    assert (code, cache.data, posts(azure)) == (4, [b"what was there"], [])
    assert "somebody has written it since" in err


def test_parts_that_were_not_sent_are_not_taken_from_elsewhere(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.premium()
    path = a_dump(tmp_path / "p.rdb", keys=3000, version=9, size=100)
    azure.blob(name_of(folder, "p/0002.rdb"), a_dump(tmp_path / "x.rdb", version=9).read_bytes())
    args: list[str | Path] = [path, "--split-size", "300KB"]
    assert migrate(shell, cache, folder, *args)[0] == 4, "the second part is there and another"
    code, _, err = migrate(shell, cache, folder, *args, "--skip", "upload")
    assert (code, cache.data, posts(azure)) == (4, [b"what was there"], [])
    assert "not all parts of it have been sent" in err


def test_an_import_of_a_blob_that_was_replaced_is_not_taken_for_the_new_ones(
    azure: Cloud, shell: Shell, folder: str, tmp_path: Path
) -> None:
    cache = azure.premium()
    path = a_dump(tmp_path / "one.rdb", version=9)
    azure.blob(name_of(folder, "one.rdb"), path.read_bytes())
    args = command(cache, folder, path, "--skip", "upload")
    killed_when_begun(azure, shell, cache, args, tmp_path)
    args += ["--yes", "shop-cache"]
    assert shell.run(*command(cache, folder, path, "--skip", "import"))[0] == 4, "the blobs may still be read"
    path.unlink()
    azure.blob(name_of(folder, "one.rdb"), a_dump(path, keys=7, version=9).read_bytes())
    code, out, err = shell.run(*args, "--json")
    assert code == 0, err
    assert json.loads(out)["written"] == 7
    assert keys_of(cache.data[0]) == 7


def test_what_was_checked_for_another_cache_of_this_name_is_checked_again(
    azure: Cloud, shell: Shell, folder: str, tmp_path: Path
) -> None:
    path = in_databases(tmp_path / "m.rdb", 4)
    assert shell.run(*command(azure.premium(), folder, path, "--skip", "import"))[0] == 0
    cache = azure.premium(shardCount=2)
    code, _, err = migrate(shell, cache, folder, path)
    assert (code, cache.data) == (1, [b"what was there"])
    assert "would be lost: database" in err


@pytest.mark.parametrize("name", ["...rdb", "..rdb", ".rdb", ".rdb.gz"])
def test_names_that_leave_nothing_for_a_blob(azure: Cloud, shell: Shell, folder: str, tmp_path: Path, name: str) -> None:
    cache = azure.premium()
    folder_ = tmp_path / "in"
    folder_.mkdir()
    path = a_dump(folder_ / name)
    for _ in range(2):
        code, _, err = migrate(shell, cache, folder, path, "--split-size", "1MB")
        assert code == 2
        assert "dots alone" in err
    assert path.exists()


def test_a_file_that_gets_a_successor_while_it_is_sent(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.premium()
    path, successor = a_dump(tmp_path / "dump.rdb"), a_dump(tmp_path / "next.rdb", keys=9)

    def replace(method: str, where: str) -> str:
        if method == "PUT" and "comp=blocklist" in where and successor.exists():
            successor.rename(path)
        return ""

    azure.fault = replace
    code, _, err = migrate(shell, cache, folder, path)
    assert code == 3
    assert "the file was changed or replaced" in err
    code, _, err = migrate(shell, cache, folder, path)
    assert code == 0, err
    assert keys_of(cache.data[0]) == 9


def test_states_of_another_shape(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.premium()
    path = a_dump(tmp_path / "s.rdb")
    assert shell.run(*command(cache, folder, path, "--skip", "import"))[0] == 0
    (state,) = shell.states
    good = json.loads(state.read_text())
    texts = ["[" * 100_000]
    for change in ({"blobs": 3}, {"blobs": [{"name": 1}]}, {"losses": {"a": "b"}}, {"earlier": [1]}, {"size": "x"}):
        texts.append(json.dumps(good | {"files": [good["files"][0] | change]}))
    texts.append(json.dumps(good | {"format": 1}))
    for text in texts:
        state.write_text(text)
        code, _, err = migrate(shell, cache, folder, path)
        assert code == 2, err
        assert "is no state of rdbkit migrate" in err
    assert posts(azure) == []


def test_the_report_may_go_to_what_is_no_file(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    path = a_dump(tmp_path / "s.rdb")
    args = [*command(azure.premium(), folder, path), "--dry-run", "--report"]
    code, out, err = shell.end(shell.start(*args, "/dev/stdout", "--json"))
    assert code == 0, err
    assert out.count('"dry_run"') == 2
    assert shell.run(*args, "/dev/null")[0] == 0


def test_only_premium_has_an_identity_to_read_with(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    code, _, err = migrate(shell, azure.managed(), folder, a_dump(tmp_path / "s.rdb"), "--auth", "managed-identity")
    assert code == 2
    assert "only Premium reads blobs with a managed identity" in err


def test_a_base_beside_newer_data(azure: Cloud, shell: Shell, folder: str) -> None:
    cache = azure.premium()
    base = FIXTURES / "aof" / "appendonlydir" / "appendonly.aof.2.base.rdb"
    code, _, err = migrate(shell, cache, folder, base)
    assert code == 1
    assert "nothing was sent, since a FILE lacks newer data" in err
    assert posts(azure) == []
    code, _, err = migrate(shell, cache, folder, base, "--allow-base")
    assert code == 0, err
    assert [keys_of(data) for data in cache.data] == [1]


def shards(folder: Path) -> list[Path]:
    """Two of the three shards of a cluster."""
    paths = []
    for name, slots in (("node1", range(5461)), ("node3", range(10923, 16384))):
        path = folder / f"{name}.rdb"
        with rdbkit.create(path, version=9) as writer:
            for number in range(60_000):
                key = b"user:%d" % number
                if key_slot(key) in slots:
                    writer.put(key, b"v")
        paths.append(path)
    return paths


def test_a_shard_that_is_missing_is_told_before_anything_is_sent(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.premium()
    files = shards(tmp_path)
    said = "no key of slots 5461-10922 in any file: whole shards may be missing"
    code, out, err = shell.run(*command(cache, folder, *files, "--skip", "import"))
    assert code == 0, err
    assert said in out
    assert not err.count(said)
    code, out, err = migrate(shell, cache, folder, *files, "--json")  # which goes on behind the check
    assert code == 0, err
    assert f"Warning: {said}" in err
    assert "slots" not in json.loads(out)["files"][0]
    assert len(cache.data) == 2
    other = azure.premium("other")
    code, out, err = migrate(shell, other, folder, *files, "--skip", "check", "--skip", "upload")  # looks at the blobs
    assert (code, err.count(said)) == (0, 1), err
    code, out, _ = shell.run(*command(azure.premium("third"), folder, files[0], "--dry-run"))
    assert code == 0
    assert "keys of slots 0-5460 alone: this is one shard of a cluster; migrate all of them together" in out


def test_a_state_with_slots_that_are_none_is_refused(azure: Cloud, shell: Shell, folder: str, tmp_path: Path) -> None:
    cache = azure.premium()
    path = a_dump(tmp_path / "a.rdb")
    assert shell.run(*command(cache, folder, path, "--skip", "import"))[0] == 0
    (state,) = shell.states
    kept = json.loads(state.read_text())
    assert int(kept["files"][0]["slots"], 16).bit_count() == 3
    for slots in ("x", "-1", 5, "f" * 5000):
        kept["files"][0]["slots"] = slots
        state.write_text(json.dumps(kept))
        code, _, err = migrate(shell, cache, folder, path)
        assert (code, cache.data) == (2, [b"what was there"]), err

"""Blobs as FILE: every verb that reads a snapshot takes its URL, and says and does what it does with the same file on a disk."""

from __future__ import annotations

import gzip
import json
import re
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from azure.storage.blob import BlobSasPermissions, generate_blob_sas

import rdbkit
from rdbkit.storage.location import revision

from .. import azurite, command_line
from ..arm import Cloud
from ..azurite import ACCOUNT, KEY, needs_azurite, service
from ..operations.test_enterprise import exported
from ..rdb import FIXTURES
from .shell import Shell, posts

pytestmark = needs_azurite
DUMP = FIXTURES / "rich/redis-7.0.15.rdb"
OTHER = FIXTURES / "rich/redis-6.0.16.rdb"


def put(blobs: str, name: str, data: bytes) -> str:
    """A blob; its URL."""
    azurite.service(blobs).get_blob_client("dumps", name).upload_blob(data, overwrite=True)
    return f"{blobs}/dumps/{name}"


def sas_of(name: str, **settings: Any) -> str:
    """A signature that reads a blob for an hour."""
    given: dict[str, Any] = {"permission": BlobSasPermissions(read=True), "expiry": datetime.now(UTC) + timedelta(hours=1)}
    given |= settings
    return generate_blob_sas(ACCOUNT, "dumps", name, account_key=KEY, **given)


def run(*arguments: str | Path, **environment: str) -> CompletedProcess[str]:
    """A command, whose output has no signature."""
    done = command_line.run_text(*arguments, environment={"PATH": "/usr/bin:/bin", **environment})
    for text in (done.stdout, done.stderr):
        assert "sig=" not in text
        assert KEY[:20] not in text
        assert "Traceback" not in text
    return done


@pytest.fixture
def url(blobs: str) -> str:
    return put(blobs, "verbs/redis-7.0.15.rdb", DUMP.read_bytes())


@pytest.fixture
def signed(url: str) -> str:
    return f"{url}?{sas_of('verbs/redis-7.0.15.rdb')}"


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["info"], 0),
        (["info", "--json"], 0),
        (["check", "--target", "azure-premium"], 1),
        (["check", "--target", "azure-premium", "--json", "--deep"], 1),
        (["keys"], 0),
        (["keys", "--format", "jsonl"], 0),
        (["export"], 0),
        (["memory", "--target", "redis-7.0"], 0),
        (["memory", "--target", "azure-managed", "--json"], 0),
        (["plan", "--target", "azure-managed", "--json"], 0),
        (["verify", "--deep", "--json"], 0),
        (["get", "no such key"], 1),
        (["get", "s_ht"], 0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_is_said_of_a_blob_is_what_is_said_of_the_file(
    command: list[str], code: int, url: str, signed: str, tmp_path: Path
) -> None:
    path = tmp_path / "redis-7.0.15.rdb"
    path.write_bytes(DUMP.read_bytes())
    verb, *options = command
    local, remote = (run(verb, file, *options) for file in (path, signed))

    def plain(text: str) -> str:
        text = text.replace(url, "FILE").replace(str(path), "FILE")
        return re.sub(r"\s+|─+|-{3,}", " ", re.sub(r'"(seconds|days|now_ms)": [0-9.]+', "", text))

    assert (local.returncode, plain(local.stdout), plain(local.stderr)) == (
        remote.returncode, plain(remote.stdout), plain(remote.stderr),
    )  # fmt: skip
    assert remote.returncode == code


@pytest.mark.parametrize(
    "command",
    [
        ["convert", "FILE", "OUT", "--target", "redis-6.2", "--on-function", "drop"],
        ["convert", "FILE", "OUT", "--target", "redis-7.0", "--collapse-dbs", "--on-conflict", "first", "--rename-prefix", "a=b"],
        ["convert", "FILE", "OUT", "--target", "redis-7.0", "--jobs", "2"],
        ["redact", "FILE", "OUT", "--secret-file", "SECRET"],
        ["merge", "FILE", "OTHER", "-o", "OUT", "--on-duplicate", "first", "--on-function-conflict", "first"],
        ["salvage", "FILE", "OUT"],
        ["export", "FILE", "-o", "OUT"],
        ["export", "FILE", "-o", "OUT", "--format", "resp"],
    ],
    ids=lambda command: " ".join(command[:1]),
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_made_of_a_blob_is_what_is_made_of_the_file(command: list[str], packed: bool, blobs: str, tmp_path: Path) -> None:
    made = []
    (tmp_path / "secret").write_text("0123456789abcdef" * 2)
    for place in ("local", "remote"):
        files = {"OUT": str(tmp_path / f"{place}.out"), "SECRET": str(tmp_path / "secret")}
        for word, dump in (("FILE", DUMP), ("OTHER", OTHER)):
            data = gzip.compress(dump.read_bytes(), mtime=0) if packed else dump.read_bytes()
            name = f"made/{dump.name}{'.gz' if packed else ''}"
            if place == "remote":
                files[word] = f"{put(blobs, name, data)}?{sas_of(name)}"
            else:
                path = tmp_path / name
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(data)
                files[word] = str(path)
        done = run(*[files.get(word, word) for word in command])
        assert done.returncode == 0, done.stderr
        made.append(Path(files["OUT"]).read_bytes())
    assert made[0] == made[1]


def test_split_and_diff(url: str, signed: str, tmp_path: Path) -> None:
    done = run("split", signed, "-o", tmp_path / "parts", "--parts", "2")
    assert done.returncode == 0, done.stderr
    assert run("diff", DUMP, signed).returncode == 0
    differs = run("diff", OTHER, signed, "--json")
    assert differs.returncode == 1
    assert url in differs.stdout
    done = run("diff", OTHER, signed, "--delta", tmp_path / "delta.resp")
    assert done.returncode in (0, 1), done.stderr
    local = run("diff", OTHER, DUMP, "--delta", tmp_path / "local.resp")
    assert (local.returncode, (tmp_path / "local.resp").read_bytes()) == (done.returncode, (tmp_path / "delta.resp").read_bytes())


def test_a_copy_on_this_machine_on_request(url: str, signed: str, tmp_path: Path) -> None:
    done = run("info", signed, "--download", TMPDIR=str(tmp_path))
    assert (done.returncode, list(tmp_path.iterdir())) == (0, [])
    assert url in done.stdout
    assert run("check", signed, f"{url}x", "--download", "--target", "redis-7.0", TMPDIR=str(tmp_path)).returncode == 4


@pytest.mark.parametrize("variable", ["KEY", "SAS_TOKEN", "CONNECTION_STRING"])
def test_credentials_of_the_environment(variable: str, blobs: str) -> None:
    url = put(blobs, f"environment/{variable}.rdb", DUMP.read_bytes())
    value = {
        "KEY": KEY,
        "SAS_TOKEN": sas_of(f"environment/{variable}.rdb"),
        "CONNECTION_STRING": f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};BlobEndpoint={blobs};",
    }[variable]
    done = run("check", url, "--target", "redis-7.0", **{f"AZURE_STORAGE_{variable}": value})
    assert done.returncode == 0, done.stderr


def test_what_is_printed_can_be_run_with_the_credentials_of_the_environment(url: str, signed: str, tmp_path: Path) -> None:
    said = run("check", signed, "--target", "azure-premium", "--json")
    (found,) = json.loads(said.stdout)["files"]
    assert found["file"] == url
    words = shlex.split(found["command"])
    assert words[:3] == ["rdbkit", "convert", url]
    out = tmp_path / words[3]
    done = run(*words[1:3], out, *words[4:], AZURE_STORAGE_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert run("check", out, "--target", "azure-premium").returncode == 0


def test_no_report_or_file_has_a_signature(signed: str, tmp_path: Path) -> None:
    for command in (
        ["keys", signed, "--format", "parquet", "-o", "keys.parquet"],
        ["memory", signed, "--target", "redis-7.0", "--html", "memory.html"],
        ["convert", signed, "out.rdb", "--target", "azure-premium", "--on-function", "drop", "--ledger", "ledger.jsonl"],
        ["plan", signed, "--target", "azure-managed", "--bicep", "plan.bicep"],
        ["merge", signed, str(DUMP), "-o", "merged.rdb"],
    ):
        done = run(*[str(tmp_path / word) if re.fullmatch(r"\w+\.\w+", word) else word for word in command])
        assert done.returncode in (0, 1), (command, done.stderr)
    written = sorted(tmp_path.iterdir())
    assert len(written) >= 4
    for path in written:
        assert b"sig=" not in path.read_bytes(), path


@pytest.mark.parametrize(
    ("address", "code", "said"),
    [
        ("{blobs}/dumps/", 2, "names a container or folder"),
        ("{blobs}/dumps", 2, "names a container or folder"),
        ("{blobs}/dumps/none.rdb", 4, "none.rdb: there is no such blob; check the URL (404 BlobNotFound)"),
        ("{blobs}/nowhere/a.rdb", 4, "a.rdb: there is no such container; check the URL (404 ContainerNotFound)"),
        ("https://example.com/dumps/", 2, "the URL names no file"),
        ("http://a.blob.core.windows.net/dumps/a.rdb", 2, "use https://"),
    ],
)
@pytest.mark.parametrize("verb", [["info"], ["plan", "--target", "azure-managed"], ["verify"]], ids=lambda verb: verb[0])
def test_what_cannot_be_read(verb: list[str], address: str, code: int, said: str, blobs: str) -> None:
    done = run(verb[0], address.format(blobs=blobs), *verb[1:], AZURE_STORAGE_KEY=KEY)
    assert (done.returncode, done.stdout) == (code, "")
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) <= (1 if code == 4 else 4)


def test_an_empty_blob_is_an_empty_file(blobs: str) -> None:
    service(blobs).get_blob_client("dumps", "empty.rdb").upload_blob(b"", overwrite=True)
    for command in (["info"], ["check", "--target", "azure-managed"], ["verify"]):
        done = run(command[0], f"{blobs}/dumps/empty.rdb", *command[1:], AZURE_STORAGE_KEY=KEY)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr == f"rdbkit: {blobs}/dumps/empty.rdb: the file is empty; fetch the file again, whole\n"


def test_a_signature_that_is_not_accepted(url: str) -> None:
    for wrong in (
        sas_of("verbs/redis-7.0.15.rdb", expiry=datetime.now(UTC) - timedelta(hours=1)),
        sas_of("verbs/redis-7.0.15.rdb", permission=BlobSasPermissions(write=True)),
        "sv=2024-01-01&sig=bm9uZQ%3D%3D",
    ):
        done = run("info", f"{url}?{wrong}")
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (4, "", 1)
        assert done.stderr.startswith(f"rdbkit: {url}: ")


def test_an_append_only_file_is_folded_from_a_copy(blobs: str) -> None:
    commands = b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb\r\n"
    url = put(blobs, "aof/appendonly.aof", commands)
    done = run("info", url, AZURE_STORAGE_KEY=KEY)
    assert (done.returncode, done.stderr) == (
        3, f"rdbkit: {url}: it is an append-only file, which a server folds on this machine: add --download\n",
    )  # fmt: skip


def test_upload_of_a_blob(url: str, signed: str, blobs: str) -> None:
    for more in ([], ["--target", "azure-premium", "--on-function", "drop"]):
        name = f"copies/{len(more)}.rdb"
        done = run("upload", signed, f"{blobs}/dumps/{name}", *more, AZURE_STORAGE_KEY=KEY)
        assert done.returncode == 0, done.stderr
        copy = azurite.service(blobs).get_blob_client("dumps", name).download_blob().readall()
        assert copy == DUMP.read_bytes() if not more else copy[:9] == b"REDIS0009"
    done = run("upload", signed, f"{blobs}/dumps/copies/", AZURE_STORAGE_KEY=KEY)
    assert done.returncode == 0, done.stderr
    assert f"{blobs}/dumps/copies/redis-7.0.15.rdb" in done.stdout
    done = run("upload", signed, url, "--overwrite", AZURE_STORAGE_KEY=KEY)
    assert done.returncode == 2
    assert "would be replaced by what is made of it: name another blob" in done.stderr


def test_the_library_takes_a_url(url: str, signed: str, tmp_path: Path) -> None:
    with rdbkit.open(signed) as snapshot:
        assert snapshot.path == url
    report = rdbkit.check(signed, "azure-premium")
    assert (report.file, report.path) == (url, url)
    merged = rdbkit.merge([signed, DUMP], tmp_path / "merged.rdb", on_duplicate="first")
    assert "sig=" not in repr(merged)
    assert revision(signed)[0] == DUMP.stat().st_size


# -- into a cache


def test_an_export_of_one_cache_goes_into_another(azure: Cloud, shell: Shell) -> None:
    packed = gzip.compress(exported(), mtime=0)
    source = azure.blob("exports/of another/shop.rdb.gz", packed)
    cache = azure.managed()
    arguments = ["migrate", source, "--target", "azure-managed", "--resource-id", cache.path]
    arguments += ["--container", azure.blob("dumps/in/")]
    code, out, err = shell.run(*arguments, "--dry-run")
    assert code == 0, err
    code, out, err = shell.run(*arguments, "--yes", "shop-amr", "--json")
    assert code == 0, err
    (file,) = json.loads(out)["files"]
    assert file["file"] == source
    assert file["blobs"][0]["url"].endswith("/dumps/in/shop.rdb")
    assert len(cache.data) == 1
    assert shell.states == []


def test_a_blob_that_goes_in_as_it_is_is_imported_where_it_is(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    source = azure.blob("dumps/in-place/rich.rdb", OTHER.read_bytes())
    before = [method for method, path in azure.calls if method == "PUT"]
    arguments = ["migrate", source, "--target", "azure-premium", "--resource-id", cache.path]
    code, _, err = shell.run(*arguments, "--container", azure.blob("dumps/in-place/"), "--yes", "shop-cache")
    assert code == 0, err
    assert cache.data == [OTHER.read_bytes()]
    assert [method for method, path in azure.calls if method == "PUT"] == before


def test_a_blob_is_not_replaced_by_what_is_made_of_it(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    source = azure.blob("dumps/made-of/rich.rdb", DUMP.read_bytes())
    arguments = ["migrate", source, "--target", "azure-premium", "--resource-id", cache.path, "--on-function", "drop"]
    for more in ([], ["--skip", "check", "--overwrite"]):
        code, _, err = shell.run(*arguments, "--container", azure.blob("dumps/made-of/"), *more, "--yes", "shop-cache")
        assert code == 2, err
        assert "would be replaced by what is made of it: name another container, or a folder in it" in err
    assert (posts(azure), cache.data) == ([], [b"what was there"])


def test_a_blob_that_was_replaced_meanwhile(azure: Cloud, shell: Shell) -> None:
    """What was noted of it does not hold any more, and it is sent again."""
    cache = azure.premium()
    source = azure.blob("exports/replaced.rdb", OTHER.read_bytes())
    arguments = ["migrate", source, "--target", "azure-premium", "--resource-id", cache.path]
    arguments += ["--container", azure.blob("dumps/re/")]
    code, _, err = shell.run(*arguments, "--skip", "import")
    assert code == 0, err
    state = json.loads(shell.states[0].read_text())
    assert [file["file"] for file in state["files"]] == [source]
    assert "sig=" not in shell.states[0].read_text()
    with rdbkit.create(shell.folder / "new.rdb", version=9) as writer:
        writer.put(b"k", b"v")
    new = (shell.folder / "new.rdb").read_bytes()
    azure.blob("exports/replaced.rdb", new)
    code, _, err = shell.run(*arguments, "--yes", "shop-cache")
    assert code == 0, err
    assert cache.data == [new]


def test_the_command_for_a_blob_that_does_not_fit_can_be_run(azure: Cloud, shell: Shell) -> None:
    cache = azure.managed()
    urls = [azure.blob("dumps/fit/old.rdb", OTHER.read_bytes()), azure.blob("dumps/fit/it's.rdb", a_dump(shell.folder))]
    code, out, err = shell.imports(cache, *urls)
    assert code == 1, err
    (line,) = re.findall(r"run instead\s+(rdbkit .*)", out)
    code, out, err = shell.imports(cache, *urls, "--json")
    assert json.loads(out)["command"] == line
    assert (posts(azure), cache.data) == ([], [b"what was there"])
    words = shlex.split(line)
    assert words[:4] == ["rdbkit", "migrate", *urls]
    assert "--collapse-dbs" in words
    code, out, err = shell.run(*words[1:], "--yes", "shop-amr")
    assert code == 0, err
    assert len(cache.data) == 2
    assert json.loads(shell.imports(cache, urls[1], "--json", "--dry-run")[1])["command"] == ""


def a_dump(folder: Path) -> bytes:
    with rdbkit.create(folder / "one.rdb", version=9) as writer:
        writer.put(b"another", b"1")
    return (folder / "one.rdb").read_bytes()


@pytest.mark.parametrize(
    "command",
    [
        ["fold", "URL", "-o", "out.rdb"],
        ["info", "URL", "--targets-file", "URL"],
        ["convert", "URL", "URL", "--target", "redis-7.0"],
        ["keys", "URL", "-o", "URL"],
        ["split", "URL", "--parts", "2", "-o", "URL"],
        ["get", "URL", "key", "URL"],
        ["info", "--no-such-option=URL"],
        ["memory", "URL", "--target", "URL"],
        ["check", "URL", "--target", "redis-7.0", "--samples", "URL"],
    ],
    ids=lambda command: " ".join(command),
)
def test_a_url_where_something_else_belongs_is_not_shown_with_its_signature(
    command: list[str], signed: str, tmp_path: Path
) -> None:
    done = command_line.run_text(*[signed if word == "URL" else word.replace("URL", signed) for word in command], cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert "sig=" not in done.stdout + done.stderr
    assert list(tmp_path.iterdir()) == []


def test_json_lines_of_a_blob(blobs: str, tmp_path: Path) -> None:
    lines = run("export", DUMP).stdout
    url = put(blobs, "lines/rows.jsonl", lines.encode())
    (tmp_path / "rows.jsonl").write_text(lines)
    for source, out in ((url, "remote.rdb"), (tmp_path / "rows.jsonl", "local.rdb")):
        done = run("build", source, tmp_path / out, "--target", "redis-7.0", AZURE_STORAGE_KEY=KEY)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "remote.rdb").read_bytes() == (tmp_path / "local.rdb").read_bytes()


def test_certificates(azure: Cloud) -> None:
    url = azure.blob("dumps/certificate.rdb", OTHER.read_bytes())
    signed = f"{url}?{sas_of('certificate.rdb')}"
    with_certificate = {"SSL_CERT_FILE": azure.environment["REQUESTS_CA_BUNDLE"]}
    assert run("check", signed, "--target", "azure-premium", **with_certificate).returncode == 0
    done = run("check", signed, "--target", "azure-premium")
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (4, "", 1)
    assert "the certificate of the service is not accepted: its issuer is not known; REQUESTS_CA_BUNDLE names a file" in done.stderr

"""Imports into caches of the tests' own cloud, whose blobs are in Azurite: whole, refused, failed, cut and killed at every step."""

from __future__ import annotations

import datetime
import gzip
import io
import json
import lzma
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from click.testing import CliRunner

import rdbkit
from rdbkit.azure.cache_import import look_at_target
from rdbkit.azure.pending_operation import PendingOperation
from rdbkit.azure.resources import PREMIUM, REDIS_ENTERPRISE, Arm, parse_resource_id
from rdbkit.azure.sas import Signer, check_window
from rdbkit.cli import cli
from rdbkit.errors import TargetError
from rdbkit.format.slots import key_slot
from rdbkit.operations.check import check
from rdbkit.storage.blob_url import BlobUrl
from rdbkit.targets.target import Target, find_target

from ..arm import BUSY_TEXT, SAS_TEXT, Cache, Cloud
from ..azurite import ACCOUNT, KEY, needs_azurite
from ..operations.test_enterprise import exported
from ..processes import until
from ..rdb import FIXTURES, key, length, rdb, string
from .shell import Shell, posts

pytestmark = needs_azurite
RICH = FIXTURES / "rich/redis-6.0.16.rdb"
FAR = 4_102_444_800_000  # a time in 2100
SMALL = rdb(b"\xfe\x00", key(b"greeting", 0, string(b"hello")))


def last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


# -- what goes well


@pytest.mark.one_in(2)
def test_premium_by_user_delegation(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    url = azure.blob("dumps/a dump.rdb", RICH.read_bytes())
    code, out, err = shell.run(*shell.command(cache, url), "--dry-run")
    assert (code, err, posts(azure), cache.data, shell.states) == (0, "", [], [b"what was there"], [])
    assert "imports it as it is" in out
    assert "SAS (user delegation)" in out
    method, where = re.findall(r"^(POST) (.*)$", out, re.MULTILINE)[0]
    printed = json.loads(out[out.index("{\n") :])

    code, out, err = shell.end(shell.start(*shell.command(cache, url), "--yes", "shop-cache"))
    assert code == 0, err
    assert cache.data == [RICH.read_bytes()]
    assert (method, where) == ("POST", cache.url_of_begin)
    assert where.endswith("/redis/shop-cache/import?api-version=2024-11-01")
    (body,) = cache.bodies
    assert body.keys() == printed.keys() == {"files", "format", "preferred-data-archive-auth-method"}
    sent, shown = (parse_qs(urlsplit(each["files"][0]).query) for each in (body, printed))
    assert shown["sig"] == ["***"]
    assert sent.keys() == shown.keys()
    assert (sent["sp"], sent["sr"], sent["spr"]) == (["r"], ["b"], ["https"])
    start, end = (datetime.datetime.fromisoformat(sent[name][0]) for name in ("st", "se"))
    now = datetime.datetime.now(datetime.UTC)
    assert abs((now - start).total_seconds() - 20 * 60) < 60
    assert abs((end - now).total_seconds() - 4 * 3600) < 60
    assert "shop-cache has imported 20.2 KB" in out
    assert "Everything in shop-cache will be deleted (shop-cache.redis.cache.windows.net:6380, resource group shop)" in err
    assert shell.states == []


def test_managed_takes_several_blobs_and_gzip(azure: Cloud, shell: Shell) -> None:
    cache = azure.managed()
    other = rdb(b"\xfe\x00", key(b"farewell", 0, string(b"bye")))
    urls = [azure.blob("dumps/1.rdb", SMALL), azure.blob("dumps/2.rdb.gz", gzip.compress(other, mtime=0))]
    code, out, err = shell.imports(cache, *urls, "--json")
    assert code == 0, err
    report = json.loads(out)
    assert cache.data == [SMALL, gzip.compress(other, mtime=0)]
    assert cache.bodies[0].keys() == {"sasUris"}
    assert cache.url_of_begin.endswith("/redisEnterprise/shop-amr/databases/default/import?api-version=2025-07-01")
    assert [blob["url"] for blob in report["import"]["blobs"]] == urls
    assert [check["verdict"] for check in report["checks"]] == ["as-it-is", "as-it-is"]
    assert report["cache"]["redis_version"] == "7.4"
    assert (report["import"]["resumed"], report["dry_run"]) == (False, False)


def test_what_only_the_engine_is_known_to_load(azure: Cloud, shell: Shell) -> None:
    """A field that expires, in RDB 12: Redis 7.4 has it, and the documents of the service stop at RDB 11."""
    dump = rdb(key(b"h", 24, FAR.to_bytes(8, "little") + length(1) + length(1) + string(b"f") + string(b"v")), magic=b"REDIS0012")
    cache = azure.managed()
    url = azure.blob("dumps/fields.rdb", dump)
    code, out, err = shell.imports(cache, url)
    assert (code, cache.data) == (1, [b"what was there"])
    assert "which --undocumented keeps" in out
    code, out, err = shell.imports(cache, url, "--undocumented")
    assert code == 0, err
    assert "RDB 12, where the documents promise RDB 11 and below" in out
    assert cache.data == [dump]
    # an engine of which the documents say nothing has what it loads itself
    cache = azure.managed(redisVersion="8.0.1")
    code, out, err = shell.imports(cache, url)
    assert code == 0, err
    assert "Warning: Azure Managed Redis documents no RDB version for Redis 8.0, which itself loads RDB 12" in out
    assert cache.data == [dump]
    # and what is stated wins over what the cache says
    cache = azure.managed(redisVersion="7.4.3")
    code, out, err = shell.imports(cache, url, "--redis-version", "8.0", "--json")
    assert (code, json.loads(out)["checks"][0]["verdict"]) == (0, "as-it-is")
    assert "the cache says Redis 7.4.3; Redis 8.0 is what was stated" in json.loads(out)["warnings"][0]
    assert shell.imports(cache, url, "--redis-version", "x")[0] == 2


@pytest.mark.parametrize("writer", [b"7.4.2", b"7.2.4"])
def test_an_export_of_the_service_is_imported_as_it_is(azure: Cloud, shell: Shell, writer: bytes) -> None:
    """It has RDB 12 of Redis 7.4, fields that expire, and hints of Redis Enterprise."""
    dump = gzip.compress(exported(writer, b"REDIS0012" if writer > b"7.4" else b"REDIS0011"), mtime=0)
    cache = azure.managed()
    code, out, err = shell.imports(cache, azure.blob("dumps/export.rdb.gz", dump), "--json")
    assert code == 0, err
    assert cache.data == [dump]
    (report,) = json.loads(out)["checks"]
    assert (report["verdict"], [f["code"] for f in report["findings"]]) == ("as-it-is", ["RDB105"])
    # not into an older Redis
    cache = azure.managed(redisVersion="7.2.4")
    code, out, err = shell.imports(cache, azure.blob("dumps/export.rdb.gz", dump))
    assert code == (1 if writer > b"7.4" else 0)


def test_enterprise(azure: Cloud, shell: Shell) -> None:
    cache = azure.managed(sku="Enterprise_E5", redisVersion="7.2")
    url = azure.blob("dumps/e.rdb", SMALL)
    code, _, err = shell.imports(cache, url, target="azure-enterprise")
    assert code == 0, err
    code, _, err = shell.imports(cache, url)
    assert code == 4
    assert "name azure-enterprise as the target" in err


def test_an_operation_that_has_a_location_alone(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    cache.by_location = True
    assert shell.imports(cache, azure.blob("dumps/l.rdb", SMALL))[0] == 0
    assert cache.data == [SMALL]


def test_a_managed_identity_of_premium(azure: Cloud, shell: Shell) -> None:
    url = azure.blob("dumps/mi.rdb", SMALL)
    cache = azure.premium(identity={"type": "SystemAssigned", "principalId": "p", "tenantId": "t"})
    code, _, err = shell.imports(cache, url, "--auth", "managed-identity", "--storage-subscription", "other")
    assert code == 0, err
    assert cache.bodies == [
        {
            "files": [url],
            "format": "RDB",
            "preferred-data-archive-auth-method": "ManagedIdentity",
            "storage-subscription-id": "other",
        }
    ]
    assert cache.data == [SMALL]
    cache = azure.premium()
    code, _, err = shell.imports(cache, url, "--auth", "managed-identity")
    assert (code, posts(azure)[1:]) == (4, [])
    assert "no managed identity" in err
    code, _, err = shell.imports(azure.managed(), url, "--auth", "managed-identity")
    assert code == 2
    assert "only Premium" in err


def given_sas(path: str, permission: str = "r", start: float | None = -0.5, hours: float = 3) -> str:
    from azure.storage.blob import generate_blob_sas

    now = datetime.datetime.now(datetime.UTC)
    begin = None if start is None else now + datetime.timedelta(hours=start)
    container, _, name = path.partition("/")
    end = now + datetime.timedelta(hours=hours)
    return generate_blob_sas(ACCOUNT, container, name, account_key=KEY, permission=permission, start=begin, expiry=end)


@pytest.mark.parametrize("start", [-0.5, None])
def test_a_given_sas_is_used_as_it_is(azure: Cloud, shell: Shell, start: float | None) -> None:
    cache = azure.premium()
    sas = given_sas("dumps/given.rdb", start=start)
    url = azure.blob("dumps/given.rdb", SMALL)
    code, out, err = shell.imports(cache, f"{url}?{sas}")
    assert code == 0, err
    assert cache.bodies[0]["files"] == [f"{url}?{sas}"]
    assert "SAS (given)" in out
    # and as an option, from a file
    (shell.folder / "sas.txt").write_text(f"?{sas}\n")
    assert shell.imports(cache, url, "--sas", "@sas.txt")[0] == 0
    assert cache.bodies[1]["files"] == [f"{url}?{sas}"]


def test_an_accounts_key_signs(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    shell.environment["AZURE_STORAGE_KEY"] = KEY
    code, out, err = shell.imports(cache, azure.blob("dumps/k.rdb", SMALL), "--sas-hours", "6")
    assert code == 0, err
    assert "SAS (account key)" in out
    query = parse_qs(urlsplit(cache.bodies[0]["files"][0]).query)
    assert "skoid" not in query
    end = datetime.datetime.fromisoformat(query["se"][0])
    assert (end - datetime.datetime.now(datetime.UTC)).total_seconds() > 5.9 * 3600


# -- what stands against it; nothing is wiped


def refusals() -> list[Any]:
    def case(name: str, text: str, make: Callable[[Cloud], tuple[Cache, list[str]]], code: int = 4) -> Any:
        return pytest.param(make, code, text, id=name)

    def small(azure: Cloud) -> list[str]:
        return [azure.blob("dumps/small.rdb", SMALL)]

    def several(azure: Cloud) -> list[str]:
        return [azure.blob("dumps/rich.rdb", RICH.read_bytes())]

    scaling: Any = {"resourceState": "Scaling"}
    basic: Any = {"sku": {"name": "Basic", "family": "C", "capacity": 1}}
    own = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Cache/redisEnterprise/shop-amr/databases/default"
    linked = {"linkedDatabases": [{"id": own}, {"id": own.replace("shop-amr", "other")}]}
    return [
        case("scaling", "not running but Scaling; run this again", lambda a: (a.premium(provisioningState="Scaling"), small(a))),
        case("failed", "Failed; a change of it has failed", lambda a: (a.premium(provisioningState="Failed"), small(a))),
        case("update", "UpdateFailed; a change of", lambda a: (a.managed(resourceState="UpdateFailed"), small(a))),
        case("database", "not running but Scaling; run this again", lambda a: (a.managed(**scaling), small(a))),
        case("cluster", "not running but Scaling; run this again", lambda a: (a.managed(cluster=scaling), small(a))),
        case("linked", "geo-replicated with north, and no source", lambda a: (a.premium(linked=["north"]), small(a))),
        case("group", "geo-replicated with other, and no source", lambda a: (a.managed(geoReplication=linked), small(a))),
        case("basic", "the tier Basic, which neither imports nor exports", lambda a: (a.premium(**basic), small(a))),
        case("no blob", "there is no such blob; check the URL", lambda a: (a.premium(), [a.blob("dumps/none.rdb")])),
        case("no container", "there is no such container", lambda a: (a.premium(), [f"{a.account}/nowhere/x.rdb"])),
        case("no rdb", "the blob is no RDB file", lambda a: (a.premium(), [a.blob("dumps/text", b"hello, world")]), 3),
        case("empty", "the blob is no RDB file", lambda a: (a.premium(), [a.blob("dumps/empty", b"")]), 3),
        case("odd", "known: no service loads it", lambda a: (a.premium(), [a.blob("dumps/odd", rdb(magic=b"REDIS0099"))]), 3),
        case("page", "a page of HTML or XML", lambda a: (a.premium(), [a.blob("dumps/page", b"<!DOCTYPE html><html></html>")]), 3),
        case("gzip", "compressed with gzip", lambda a: (a.premium(), [a.blob("dumps/a.rdb.gz", gzip.compress(SMALL, mtime=0))])),
        case("xz", "compressed with xz", lambda a: (a.premium(), [a.blob("dumps/a.rdb.xz", lzma.compress(SMALL))])),
        case("append", "append blob", lambda a: (a.premium(), [a.blob("dumps/append", b"", kind="AppendBlob")])),
        case("etag", "somebody has written it since", lambda a: (a.premium(), [*small(a), "--etag", '"0x1"'])),
        case("etags", "as many etags as blobs", lambda a: (a.premium(), [*small(a), "--etag", "1", "--etag", "2"]), 2),
        case("twice", "a blob is named twice", lambda a: (a.premium(), small(a) * 2), 2),
        case("folder", "names a container or folder", lambda a: (a.premium(), [f"{a.account}/dumps/"]), 2),
        case("url", "begins with https://", lambda a: (a.premium(), ["dump.rdb"]), 2),
        case("shards", "run instead", lambda a: (a.premium(shardCount=2), several(a)), 1),
        case("one database", "run instead", lambda a: (a.managed(), several(a)), 1),
        case("damaged", "RDB401", lambda a: (a.premium(), [a.blob("dumps/cut.rdb", SMALL[:-12])]), 3),
        case("changed", "RDB402", lambda a: (a.premium(), [a.blob("dumps/crc.rdb", SMALL[:-1] + b"x")]), 3),
        case("base", "RDB413", lambda a: (a.premium(), [a.blob("dumps/base.rdb", a_base())]), 1),
        case("version", "RDB101", lambda a: (a.premium(), [a.blob("dumps/new.rdb", rdb(magic=b"REDIS0011"))]), 1),
    ]  # fmt: skip


@pytest.mark.one_in(3)
@pytest.mark.parametrize(("make", "code", "text"), refusals())
def test_refusals(azure: Cloud, shell: Shell, make: Callable[[Cloud], tuple[Cache, list[str]]], code: int, text: str) -> None:
    cache, args = make(azure)
    found, out, err = shell.imports(cache, *args)
    assert found == code, out + err
    assert text in (out if text.startswith("RDB4") or code == 1 else err)
    if code in (3, 4) and not text.startswith("RDB4"):
        assert len(err.strip().splitlines()) == 1
    assert (posts(azure), cache.data, shell.states) == ([], [b"what was there"], [])


def a_base() -> bytes:
    """Of an append-only folder, which Premium would take as it is."""
    return rdb(b"\xfa\x08aof-base\xc0\x01", key(b"k", 0, string(b"v")))


def test_a_base_on_request(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    code, out, err = shell.imports(cache, azure.blob("dumps/base.rdb", a_base()), "--allow-base")
    assert code == 0, out + err
    assert cache.data == [a_base()]


def test_without_the_check(azure: Cloud, shell: Shell) -> None:
    cache = azure.managed()
    url = azure.blob("dumps/rich.rdb", RICH.read_bytes())
    code, out, _ = shell.imports(cache, url)
    assert code == 1
    assert f"run instead  rdbkit migrate {url} --target azure-managed --resource-id {cache.path} " in out
    code, out, _ = shell.imports(cache, url, "--json")
    report = json.loads(out)
    assert (code, report["importable"], report["import"]) == (1, False, None)
    code, out, _ = shell.imports(cache, url, "--no-check")
    assert (code, cache.data) == (0, [RICH.read_bytes()])
    assert "left out" in out


def test_the_right_etag(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    url = azure.blob("dumps/tagged.rdb", SMALL)
    code, out, _ = shell.run(*shell.command(cache, url), "--dry-run", "--json")
    etag = json.loads(out)["blobs"][0]["etag"]
    assert code == 0
    assert shell.imports(cache, url, "--etag", etag.strip('"'))[0] == 0


def test_no_such_cache(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    cache.path = cache.path.replace("shop-cache", "other")
    code, _, err = shell.imports(cache, azure.blob("dumps/small.rdb", SMALL))
    assert code == 4
    assert err.startswith("rdbkit: other: there is no such cache; check subscription")
    azure.arm_fault = lambda method, path: "AuthorizationFailed"
    code, _, err = shell.imports(cache, azure.blob("dumps/small.rdb", SMALL))
    assert code == 4
    assert "the role Contributor on the cache" in err


@pytest.mark.parametrize(
    ("sas", "text"),
    [
        (lambda: given_sas("dumps/small.rdb", hours=-0.1), "the SAS has expired on "),
        (lambda: given_sas("dumps/small.rdb", hours=0.5), "the SAS ends in "),
        (lambda: given_sas("dumps/small.rdb", start=-0.1), "wants 15 minutes ago at least"),
        (lambda: given_sas("dumps/small.rdb", permission="w"), "r is missing"),
        (lambda: "sv=2025-01-01&se=2099-01-01", "is no SAS"),
        (lambda: given_sas("dumps/other.rdb"), "Auth"),
    ],
)
def test_a_sas_that_the_service_would_not_take(azure: Cloud, shell: Shell, sas: Callable[[], str], text: str) -> None:
    cache = azure.premium()
    code, _, err = shell.imports(cache, f"{azure.blob('dumps/small.rdb', SMALL)}?{sas()}")
    assert code == 4, err
    assert text in err
    assert len(err.strip().splitlines()) == 1
    assert (posts(azure), cache.data) == ([], [b"what was there"])


def test_a_sas_in_a_connection_string_cannot_sign(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    url = azure.blob("dumps/small.rdb", SMALL)
    sas = given_sas("dumps/small.rdb")
    shell.environment["AZURE_STORAGE_CONNECTION_STRING"] = f"BlobEndpoint={azure.account};SharedAccessSignature={sas}"
    code, _, err = shell.imports(cache, url)
    assert (code, posts(azure)) == (4, [])
    assert len(err.strip().splitlines()) == 1
    assert "give a SAS, apart or behind the URL, a connection string with the account's key, or none" in err
    assert shell.imports(cache, url, "--sas", sas)[0] == 0


def test_a_key_that_is_none_is_told_by_its_variable(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    shell.environment["AZURE_STORAGE_KEY"] = "not-base64!"
    code, _, err = shell.imports(cache, azure.blob("dumps/small.rdb", SMALL))
    assert (code, posts(azure)) == (2, [])
    assert "AZURE_STORAGE_KEY is no account key, which is base64" in last_line(err)
    assert "not-base64!" not in err


def test_a_firewall(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    url = azure.blob("dumps/small.rdb", SMALL)
    azure.fault = lambda method, path: "AuthorizationFailure" if method in ("GET", "HEAD") else ""
    code, _, err = shell.imports(cache, url)
    assert (code, posts(azure)) == (4, [])
    assert "firewall" in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.exhaustive
def test_no_identity(azure: Cloud, shell: Shell) -> None:
    """Asked of a process, whose standard error has all that the packages of Azure say too."""
    shell.environment["IDENTITY_ENDPOINT"] = "http://localhost:9/token"
    args = shell.command(azure.premium(), azure.blob("dumps/small.rdb", SMALL))
    code, _, err = shell.end(shell.start(*args, "--yes", "shop-cache"))
    assert code == 4
    assert len(err.strip().splitlines()) == 1
    assert "no identity is found" in err or "cannot be reached" in err


SECRET_URL = "https://a.blob.core.windows.net/dumps/b?sv=1&sig=s3cret&se=2"


@pytest.mark.parametrize("option", ["--target", "--yes", "--auth", "--sas-hours", "--targets-file", "--resource-id", "--state"])
@pytest.mark.parametrize("url", [SECRET_URL, SECRET_URL.removeprefix("https://"), SECRET_URL.replace("&se", " &'\"se")])
def test_a_url_in_the_place_of_an_option_is_told_without_its_query(option: str, url: str, tmp_path: Path) -> None:
    identity = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Cache/redis/c"
    given = {"--target": "azure-premium", "--resource-id": identity, "--yes": "c", "--state": "s.json", option: url}
    for verb in ("import", "export-cache"):
        if verb == "export-cache" and given.pop("--yes", "c") == url:
            continue
        arguments = [verb, *(part for pair in given.items() for part in pair), "https://a.blob.core.windows.net/dumps/b"]
        for args in (arguments, [*arguments[:-1], url.replace("https:", "https"), "--no-such", url], [verb, f"{option}={url}"]):
            result = CliRunner(env={"AZURE_TOKEN_CREDENTIALS": "EnvironmentCredential"}).invoke(cli, args)
            assert result.exit_code == 2 or (option == "--state" and isinstance(result.exception, TargetError))
            said = result.output + str(result.exception)
            assert not re.search("s3cret|se=2|sv=1", said), said


def test_no_number_of_hours(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    for hours in ("nan", "inf", "1e400"):
        code, _, err = shell.imports(cache, azure.blob("dumps/small.rdb", SMALL), "--sas-hours", hours)
        assert (code, azure.calls) == (2, [])
        assert "Invalid value for '--sas-hours'" in err
    with pytest.raises(ValueError, match="lasts 4 to 167 hours"):
        Signer(hours=float("nan"))


def test_the_target_is_a_service(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    for target in ("redis-7.0", "rdb-9", "nonsense"):
        code, _, err = shell.imports(cache, azure.blob("dumps/small.rdb", SMALL), target=target)
        assert (code, azure.calls) == (2, [])
        assert last_line(err).endswith("it is none of azure-premium, azure-enterprise, azure-managed")
    code, out, _ = shell.run("import", "--help")
    assert (code, "redis-6.2" in out) == (0, False)
    assert "azure-managed,azure-premiumorazure-enterprise" in "".join(out.split())


# -- the question


def test_the_name_has_to_be_given(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    command = shell.command(cache, azure.blob("dumps/small.rdb", SMALL))
    code, _, err = shell.run(*command)
    assert (code, azure.calls) == (2, [])
    assert "--yes shop-cache says that it may be emptied" in err
    code, _, err = shell.run(*command, "--yes", "shop-amr")
    assert (code, azure.calls) == (2, [])
    assert "shop-amr is not the cache's name, which is shop-cache: nothing was done" in err


@pytest.mark.one_in(2)
@pytest.mark.parametrize(("typed", "code"), [("shop-cache", 0), ("yes", 2)])
def test_the_name_is_typed_on_a_terminal(azure: Cloud, shell: Shell, typed: str, code: int) -> None:
    import pty

    cache = azure.premium()
    ours, theirs = pty.openpty()
    command = shell.command(cache, azure.blob("dumps/small.rdb", SMALL))
    process = shell.start(*command, stdin=theirs)
    os.close(theirs)
    os.write(ours, f"{typed}\n".encode())
    found, _, err = shell.end(process)
    os.close(ours)
    assert found == code, err
    assert "Type the cache's name to go on" in err
    assert cache.data == ([SMALL] if code == 0 else [b"what was there"])


# -- what the service refuses, and how an operation fails


@pytest.mark.one_in(3)
@pytest.mark.parametrize(
    ("refusal", "text"),
    [
        ((409, "Conflict", BUSY_TEXT.format("x")), "the cache is busy with another operation or with maintenance; run this again"),
        ((400, "BadRequest", SAS_TEXT), "does not accept the times of the SAS"),
        ((403, "AuthorizationFailed", "The client 'x' does not have authorization to perform action 'y'"), "the role Contributor"),
        ((409, "Conflict", ": RequestID=1"), "another operation or maintenance is going on"),
        ((418, "Teapot", "short and stout sv=1&sig=abc"), "short and stout sv=1&sig=***"),
    ],
)
def test_the_service_refuses_to_begin(azure: Cloud, shell: Shell, refusal: tuple[int, str, str], text: str) -> None:
    cache = azure.premium()
    cache.refuse = [refusal]
    url = azure.blob("dumps/small.rdb", SMALL)
    code, _, err = shell.imports(cache, url)
    assert code == 4
    assert text in last_line(err)
    assert last_line(err).endswith("; nothing has begun")
    assert (cache.data, shell.states, len(posts(azure))) == ([b"what was there"], [], 1)
    assert shell.imports(cache, url)[0] == 0  # the next run does it


def test_too_many_requests_are_waited_out(azure: Cloud, shell: Shell, waits: list[float]) -> None:
    cache = azure.managed()
    cache.refuse = [(429, "TooManyRequests", "slow down")] * 2
    azure.retry_after, cache.polls = 17, 3
    assert shell.imports(cache, azure.blob("dumps/small.rdb", SMALL))[0] == 0
    assert len(posts(azure)) == 3
    assert waits == [17] * 5, "twice until it begins, three times until it has ended"


@pytest.mark.one_in(4)
@pytest.mark.parametrize(
    ("failure", "text"),
    [
        (("OperationFailed", "The operation failed."), "it cannot reach the storage account"),
        (("Conflict", ""), "the service gives no reason; known ones: it cannot reach the storage account"),
        (("Conflict", "what a conflict"), "another operation or maintenance"),
        (("InternalError", "OOM command not allowed\nat x?sig=abc"), "the data does not fit"),
        (("Odd", "something else"), "the import failed: Odd: something else"),
    ],
)
def test_the_operation_fails(azure: Cloud, shell: Shell, failure: tuple[str, str], text: str) -> None:
    cache = azure.managed()
    cache.fail = failure
    code, out, err = shell.imports(cache, azure.blob("dumps/small.rdb", SMALL))
    assert code == 4
    assert text in last_line(err)
    assert "what the cache holds now is unknown" in last_line(err)
    assert "imported" not in out
    assert shell.states == []


# -- broken connections, killed processes


def test_a_download_that_breaks_is_gone_on_with(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    url = azure.blob("dumps/rich.rdb", RICH.read_bytes())
    gets: list[str] = []

    def once(method: str, path: str) -> str:
        gets.extend([path] * (method == "GET"))
        return "half" if method == "GET" and len(gets) == 2 else ""  # the first is of the file's beginning

    azure.fault = once
    code, _, err = shell.imports(cache, url)
    assert code == 0, err
    azure.fault = lambda method, path: "half" if method == "GET" else ""
    cache = azure.premium("second")
    code, _, err = shell.imports(cache, url)
    assert (code, cache.data, shell.states) == (4, [b"what was there"], [])
    assert "the connection broke" in err
    assert len(err.strip().splitlines()) == 1


def test_a_blob_that_changes_meanwhile(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    url = azure.blob("dumps/changes.rdb", SMALL)
    heads: list[int] = []

    def change(method: str, path: str) -> str:
        if method == "HEAD":
            heads.append(1)
            if len(heads) == 2:  # the look before the request
                azure.blob("dumps/changes.rdb", SMALL)
        return ""

    azure.fault = change
    code, _, err = shell.imports(cache, url)
    assert (code, posts(azure), cache.data, shell.states) == (4, [], [b"what was there"], [])
    assert "somebody has written it since" in err


def test_killed_while_it_waits(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    url = azure.blob("dumps/small.rdb", SMALL)
    killed_while_it_waits(azure, shell, cache, url)
    (state,) = shell.states
    assert (state.name, state.stat().st_mode & 0o777) == ("rdbkit-import-shop-cache.json", 0o600)
    code, _, err = shell.run(*shell.command(cache, azure.blob("dumps/other.rdb", SMALL)))
    assert code == 2
    assert "an import of other blobs was begun on" in err
    code, out, _ = shell.run(*shell.command(cache, url), "--dry-run")
    assert (code, len(shell.states)) == (0, 1)
    assert "Warning: an import that was begun on " in out
    # nothing is asked again, and nothing begun again
    code, out, err = shell.run(*shell.command(cache, url), "--json")
    assert code == 0, err
    assert "Warning" not in err
    assert (json.loads(out)["import"]["resumed"], json.loads(out)["replaced"]) == (True, [])
    assert (len(posts(azure)), cache.data, shell.states) == (1, [SMALL], [])


def waits(shell: Shell) -> bool:
    """Whether the state of an import that has begun is there."""
    return bool(shell.states and json.loads(shell.states[0].read_text())["operation"])


def killed_while_it_waits(azure: Cloud, shell: Shell, cache: Cache, url: str) -> str:
    """The etag of the blob whose import was begun."""
    with azure.operations_going_on(cache):
        process = shell.start(*shell.command(cache, url), "--yes", "shop-cache")
        until(lambda: waits(shell), process)
        process.kill()
        shell.end(process)
    return str(json.loads(shell.states[0].read_text())["blobs"][0]["etag"])


NEWER = rdb(b"\xfe\x00", key(b"greeting", 0, string(b"good morning")))


@pytest.mark.one_in(2)
@pytest.mark.parametrize("tells_etag", [True, False])
def test_a_blob_that_is_replaced_while_its_import_is_waited_for(azure: Cloud, shell: Shell, tells_etag: bool) -> None:
    cache = azure.premium()
    url = azure.blob("dumps/replaced.rdb", SMALL)
    killed_while_it_waits(azure, shell, cache, url)
    azure.blob("dumps/replaced.rdb", NEWER)
    (row,) = json.loads(shell.run(*shell.command(cache, url), "--dry-run", "--json")[1])["blobs"]
    options = ["--etag", row["etag"].strip('"')] if tells_etag else []
    code, out, err = shell.run(*shell.command(cache, url), "--json", *options)
    assert code == 4
    assert f"Warning: {url}: that import is of the blob as it was then, not as it is asked for now" in err
    assert last_line(err).startswith(f"rdbkit: {url}: the blob as it is asked for now was not imported: what was, is what it was")
    assert json.loads(out)["replaced"] == [url]
    assert (len(posts(azure)), shell.states) == (1, [])
    code, _, err = shell.imports(cache, url, *options)
    assert (code, len(posts(azure)), cache.data) == (0, 2, [NEWER]), err


def test_a_blob_that_cannot_be_asked_for_is_waited_for_all_the_same(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    url = azure.blob("dumps/asked.rdb", SMALL)
    etag = killed_while_it_waits(azure, shell, cache, url)
    code, _, err = shell.run(*shell.command(cache, url), "--etag", "1", "--etag", "2")
    assert (code, len(shell.states)) == (2, 1)
    assert "as many etags as blobs" in err
    azure.fault = lambda method, path: "AuthorizationFailure" if method == "HEAD" else ""
    code, _, err = shell.run(*shell.command(cache, url))
    assert code == 0, err
    assert "Warning: whether the blobs are still those that it is of is not known" in err
    azure.fault = lambda method, path: ""
    cache = azure.premium()
    killed_while_it_waits(azure, shell, cache, azure.blob("dumps/asked.rdb", SMALL))
    azure.blob("dumps/asked.rdb", NEWER)
    etag = json.loads(shell.states[0].read_text())["blobs"][0]["etag"]
    code, _, err = shell.run(*shell.command(cache, url), "--etag", etag)  # what was asked for is what was imported
    assert (code, "Warning" in err) == (0, False), err


def test_interrupted_while_it_waits(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    with azure.operations_going_on(cache):
        process = shell.start(*shell.command(cache, azure.blob("dumps/small.rdb", SMALL)), "--yes", "shop-cache")
        until(lambda: any("asyncoperations" in path.lower() for _, path in azure.calls), process)
        process.send_signal(signal.SIGINT)
        code, _, err = shell.end(process)
    assert code == 130
    assert "the import continues without this: run the same command again to wait for it" in err
    assert len(shell.states) == 1


def test_killed_while_it_begins(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    url = azure.blob("dumps/small.rdb", SMALL)
    process = shell.start(*shell.command(cache, url), "--yes", "shop-cache")
    cache.on_begin = process.kill
    shell.end(process)
    (state,) = shell.states
    assert json.loads(state.read_text())["operation"] == ""
    cache.on_begin = None
    code, out, err = shell.imports(cache, url)
    assert code == 0, err
    assert "an earlier run asked the service to begin, on " in out
    assert (cache.data, shell.states) == ([SMALL], [])


def test_killed_before_it_begins(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    url = azure.blob("dumps/small.rdb", SMALL)
    process = shell.start(*shell.command(cache, url), "--yes", "shop-cache")

    def kill(method: str, path: str) -> str:
        if method == "GET":
            process.kill()
        return ""

    azure.fault = kill
    shell.end(process)
    azure.fault = lambda method, path: ""
    assert (cache.data, shell.states, posts(azure)) == ([b"what was there"], [], [])
    assert shell.imports(cache, url)[0] == 0


def test_a_connection_that_breaks_while_it_begins(azure: Cloud, shell: Shell) -> None:
    cache = azure.managed()
    url = azure.blob("dumps/small.rdb", SMALL)
    azure.arm_fault = lambda method, path: "cut" if method == "POST" else ""
    code, _, err = shell.imports(cache, url)
    assert code == 4
    assert "run this again to go on; whether the import has begun is not known" in last_line(err)
    assert (len(shell.states), len(posts(azure))) == (1, 1)
    azure.arm_fault = lambda method, path: ""
    code, out, _ = shell.imports(cache, url)
    assert (code, shell.states) == (0, [])
    assert "whether that has begun is not known" in out


def test_a_connection_that_breaks_while_it_waits(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    url = azure.blob("dumps/small.rdb", SMALL)
    azure.arm_fault = lambda method, path: "cut" if "asyncOperations" in path else ""
    code, _, err = shell.imports(cache, url)
    assert code == 4
    assert "run this again to go on" in last_line(err)
    azure.arm_fault = lambda method, path: ""
    code, _, err = shell.imports(cache, url)
    assert code == 0
    assert "going on to wait for the import that was begun on" in err
    assert len(posts(azure)) == 1


def test_an_operation_that_is_forgotten(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    url = azure.blob("dumps/small.rdb", SMALL)
    with azure.operations_going_on(cache):
        process = shell.start(*shell.command(cache, url), "--yes", "shop-cache")
        until(lambda: waits(shell), process)
        azure.operations.clear()
        code, _, err = shell.end(process)
    assert (code, shell.states) == (4, [])
    assert "no longer knows the import that was begun on" in last_line(err)


def test_states_of_others(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    url = azure.blob("dumps/small.rdb", SMALL)
    state = shell.folder / "mine.json"
    state.write_text("{}")
    code, _, err = shell.imports(cache, url, "--state", "mine.json")
    assert code == 2
    assert "mine.json is no state of rdbkit" in err
    blob = {"url": url, "etag": "", "bytes": 1}
    PendingOperation(str(state), "import", cache.path, [blob], f"{azure.endpoint}/subscriptions/x", 1.0).save()
    whole = json.loads(state.read_text())
    for changes in (
        {"resource_id": 5}, {"begun": "x"}, {"begun": 1e300}, {"begun": float("nan")}, {"begun": 10**400}, {"verb": None},
        {"operation": 5}, {"place": 5}, {"blobs": 5}, {"blobs": [5]}, {"blobs": [{"url": url}]},
        {"blobs": [blob | {"bytes": "x"}]}, {"blobs": [blob | {"etag": 5}]}, {"path": "x"},
    ):  # fmt: skip
        state.write_text(json.dumps(whole | changes))
        code, _, err = shell.imports(cache, url, "--state", "mine.json")
        assert code == 2
        assert "mine.json is no state of rdbkit; name another state file, or delete it" in last_line(err)
    state.write_text("[" * 100_000)
    assert shell.imports(cache, url, "--state", "mine.json")[0] == 2
    calls = len(azure.calls)
    for operation in ("https://[x", "https://localhost:1\ud800/", "https://localhost/ x"):
        state.write_text(json.dumps(whole | {"operation": operation}))
        code, _, err = shell.imports(cache, url, "--state", "mine.json")
        assert code == 4
        assert "is not one of https://localhost" in err
    assert not any(method == "GET" for method, _ in azure.calls[calls:])
    azure.calls.clear()
    PendingOperation(str(state), "export", cache.path, [], "https://x").save()
    code, _, err = shell.imports(cache, url, "--state", "mine.json")
    assert code == 2
    assert "of another cache or verb" in err
    # the bearer token goes to nobody but the resource manager
    PendingOperation(str(state), "import", cache.path, [blob], f"https://127.0.0.1:{azure.port}/subscriptions/x").save()
    code, _, err = shell.imports(cache, url, "--state", "mine.json")
    assert (code, azure.calls[1:]) == (4, [call for call in azure.calls[1:] if call[0] != "GET"])
    assert "is not one of https://localhost" in err


def test_a_folder_that_cannot_be_written(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    code, _, err = shell.imports(cache, azure.blob("dumps/small.rdb", SMALL), "--state", "no/such/folder.json")
    assert (code, posts(azure), cache.data) == (3, [], [b"what was there"])
    assert last_line(err) == "rdbkit: no/such/folder.json: No such file or directory"


# -- the export


def test_export_of_premium(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    azure.blob("out/before.rdb", b"x")
    args = ["export-cache", "--target", "azure-premium", "--resource-id", cache.path, f"{azure.account}/out", "--prefix", "nightly"]
    code, out, err = shell.run(*args, "--dry-run")
    assert (code, err, posts(azure)) == (0, "", [])
    assert '"prefix": "nightly"' in out
    code, out, err = shell.end(shell.start(*args, "--json"))
    assert code == 0, err
    report = json.loads(out)
    assert [blob["url"] for blob in report["export"]["blobs"]] == [f"{azure.account}/out/nightly.rdb"]
    assert cache.data == [b"what was there"]
    (body,) = cache.bodies
    assert body.keys() == {"prefix", "container", "format", "preferred-data-archive-auth-method"}
    assert parse_qs(urlsplit(body["container"]).query)["sr"] == ["c"]
    assert shell.states == []


def test_export_of_managed(azure: Cloud, shell: Shell) -> None:
    cache = azure.managed()
    azure.blob("more/before.rdb", b"x")
    code, out, err = shell.exports(cache, f"{azure.account}/more")
    assert code == 0, err
    assert "shop-amr has exported" in out
    assert f"{azure.account}/more/default.rdb.gz" in out
    (body,) = cache.bodies
    assert body.keys() == {"sasUri"}
    assert parse_qs(urlsplit(body["sasUri"]).query)["sp"] == ["racwdltm"]
    code, _, err = shell.exports(cache, f"{azure.account}/more", "--prefix", "x")
    assert code == 2
    assert "only Premium" in err


def test_export_refused_failed_and_resumed(azure: Cloud, shell: Shell) -> None:
    cache = azure.premium()
    azure.blob("away/before.rdb", b"x")
    url = f"{azure.account}/away"
    code, _, err = shell.exports(cache, f"{azure.account}/nowhere")
    assert (code, posts(azure)) == (4, [])
    assert "there is no such container" in err
    cache.refuse = [(409, "Conflict", BUSY_TEXT.format("x"))]
    code, _, err = shell.exports(cache, url)
    assert (code, shell.states) == (4, [])
    assert "the cache is busy" in err
    cache.fail = ("AuthorizationFailure", "this request is not authorized to perform this operation")
    code, _, err = shell.exports(cache, url)
    assert (code, shell.states) == (4, [])
    assert "the export failed: the storage account refuses the cache" in err
    cache.fail = None
    azure.arm_fault = lambda method, path: "cut" if "asyncOperations" in path else ""
    assert shell.exports(cache, url)[0] == 4
    azure.arm_fault = lambda method, path: ""
    before = len(posts(azure))
    code, out, err = shell.exports(cache, url)
    assert (code, len(posts(azure))) == (0, before), err
    assert "shop-cache.rdb" in out


def test_export_with_a_sas_that_cannot_list(azure: Cloud, shell: Shell) -> None:
    from azure.storage.blob import generate_container_sas

    cache = azure.premium()
    azure.blob("writeonly/before.rdb", b"x")
    end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=3)
    sas = generate_container_sas(ACCOUNT, "writeonly", account_key=KEY, permission="cw", expiry=end)
    code, out, err = shell.exports(cache, f"{azure.account}/writeonly?{sas}")
    assert code == 0, err
    assert "cannot be listed with this SAS" in out
    sas = given_sas("writeonly/before.rdb", permission="w")
    code, _, err = shell.exports(cache, f"{azure.account}/writeonly?{sas}")
    assert code == 4
    assert "not of a container" in err


# -- the parts


def test_resource_ids() -> None:
    premium = parse_resource_id("/subscriptions/S/resourcegroups/G/providers/microsoft.cache/Redis/c")
    assert (premium.provider, premium.subscription, premium.resource_group, premium.name) == (PREMIUM, "S", "G", "c")
    managed = parse_resource_id("/subscriptions/S/resourceGroups/G/providers/Microsoft.Cache/redisEnterprise/c/databases/d")
    assert (managed.provider, managed.name, managed.database) == (REDIS_ENTERPRISE, "c", "d")
    for wrong in ("", "c", "/subscriptions/S/resourceGroups/G/providers/Microsoft.Storage/storageAccounts/c"):
        with pytest.raises(ValueError, match="a cache's resource id is /subscriptions/"):
            parse_resource_id(wrong)
    for endpoint in ("http://management.azure.com", "https://me:s3cret@management.azure.com", "https://"):
        with pytest.raises(ValueError, match="begins with https"):
            Arm(premium, endpoint=endpoint)
    for endpoint in ("https://[x", "https://h:port"):
        with pytest.raises(ValueError, match="cannot be read"):
            Arm(premium, endpoint=endpoint)


def test_the_modules_and_the_version_that_are_there(azure: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in azure.environment.items():
        monkeypatch.setenv(name, value)
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    number = 0
    for letter in "ReJSON-RL":
        number = number << 6 | letters.index(letter)
    document = length(number << 10 | 3) + length(5) + string(b'{"a":1}') + length(0)
    dump = rdb(b"\xfe\x00", key(b"doc", 7, document), magic=b"REDIS0011")
    found = {}
    for modules in ([], [{"name": "RedisJSON"}]):
        cache = azure.managed(modules=modules, redisVersion="7.2.4")
        with Arm(parse_resource_id(cache.path), endpoint=azure.endpoint) as arm:
            state = arm.read()
        target, warnings = look_at_target(find_target("azure-managed"), state)
        assert (target.engine, warnings) == ("7.2", [])
        stated = find_target("azure-managed").with_modules(["RediSearch"])
        assert look_at_target(stated, state) == (target, []), "the cache itself has the last word"
        with rdbkit.open(io.BytesIO(dump)) as snapshot:
            report = check(snapshot, target)
        found[len(modules)] = (report.verdict, [finding.code for finding in report.findings])
    assert found == {0: ("lossy", ["RDB203"]), 1: ("as-it-is", [])}
    cache = azure.premium(redisConfiguration={"databases": "32"}, subnetId="/subscriptions/s/x")
    with Arm(parse_resource_id(cache.path), endpoint=azure.endpoint) as arm:
        state = arm.read()
    assert (state.databases, state.access) == (32, "a virtual network")
    cache = azure.managed(redisVersion="99.1")
    with Arm(parse_resource_id(cache.path), endpoint=azure.endpoint) as arm:
        target, warnings = look_at_target(find_target("azure-managed"), arm.read())
    assert (target.engine, target.release_line, target.rdb) == ("99.1", "redis-8.10", 15)
    assert warnings == [
        "Azure Managed Redis documents no RDB version for Redis 99.1, which rdbkit does not know; Redis 8.10, the newest before "
        "it, loads RDB 15"
    ]


def test_the_engine_is_what_was_stated_or_what_the_cache_says(azure: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in azure.environment.items():
        monkeypatch.setenv(name, value)
    managed = find_target("azure-managed")

    def seen(target: Target, says: str) -> tuple[str | None, int, list[str]]:
        with Arm(parse_resource_id(azure.managed(redisVersion=says).path), endpoint=azure.endpoint) as arm:
            found, warnings = look_at_target(target, arm.read())
        return found.engine, found.rdb, warnings

    nothing = "Azure Managed Redis documents no RDB version for Redis 8.0, which itself loads RDB 12"
    assert seen(managed, "7.4.3") == ("7.4", 11, [])
    assert seen(managed, "8.0.2") == ("8.0", 12, [nothing])
    assert seen(managed.with_undocumented(), "7.4") == ("7.4", 12, [])
    assert seen(managed.with_engine("7.4"), "7.4.3") == ("7.4", 11, [])
    assert seen(managed.with_engine("8.0"), "new") == ("8.0", 12, [nothing])
    assert seen(managed.with_engine("8.0"), "7.4") == (
        "8.0", 12, ["the cache says Redis 7.4; Redis 8.0 is what was stated, and what counts here", nothing],
    )  # fmt: skip
    assert seen(managed, "new") == (
        "7.4", 11,
        ["the cache says Redis new, which is not known here; Redis 7.4 is assumed, and --redis-version says what it is"],
    )  # fmt: skip


def test_windows() -> None:
    place = BlobUrl("https://a.blob.core.windows.net", "dumps", "x")
    assert check_window("si=policy&sig=x", place, "r") is None
    assert check_window("se=2099-01-01&sp=rl&sig=x", place, "r") == datetime.datetime(2099, 1, 1, tzinfo=datetime.UTC)
    for unreadable in ("tomorrow", "9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00%2B12:00"):
        with pytest.raises(TargetError, match="the times in the SAS cannot be read"):
            check_window(f"se={unreadable}&sp=r&sig=x", place, "r")
    # it is shown as UTC
    end = check_window("se=2098-12-31T23:30:00-02:00&sp=r&sig=x", place, "r")
    assert f"{end:%Y-%m-%d %H:%M}" == "2099-01-01 01:30"


def test_nothing_secret_in_a_repr() -> None:
    from rdbkit.azure.resources import Call
    from rdbkit.azure.sas import Signed

    place = BlobUrl("https://a.blob.core.windows.net", "dumps", "x")
    shown = [repr(Signed(place, "sig=abc")), repr(Call("import", "https://x", {"sasUris": ["https://x?sig=abc"]}))]
    assert not any("abc" in text for text in shown)


def test_a_shard_that_is_missing_among_the_blobs_is_told_first(azure: Cloud, shell: Shell) -> None:
    urls = []
    for name, slots in (("node1", range(5461)), ("node3", range(10923, 16384))):
        file = io.BytesIO()
        with rdbkit.create(file, version=9) as writer:
            for number in range(60_000):
                name_of_key = b"user:%d" % number
                if key_slot(name_of_key) in slots:
                    writer.put(name_of_key, b"v")
        urls.append(azure.blob(f"dumps/shards/{name}.rdb", file.getvalue()))
    code, out, _ = shell.run(*shell.command(azure.premium(), *urls), "--dry-run")
    assert code == 0
    assert "no key of slots 5461-10922 in any file: whole shards may be missing" in out
    code, out, _ = shell.run(*shell.command(azure.premium(), urls[0]), "--dry-run")
    assert "keys of slots 0-5460 alone: this is one shard of a cluster" in out


def test_keys_and_libraries_that_several_blobs_have(azure: Cloud, shell: Shell, tmp_path: Path) -> None:
    def blob(name: str, key: bytes, number: int | None = None) -> str:
        out = io.BytesIO()
        with rdbkit.create(out, version=11) as writer:
            if number is not None:
                writer.function(b"#!lua name=mylib\nredis.register_function('f', function() return %d end)" % number)
            writer.put(key, b"value")
        return azure.blob(f"dumps/shared-{name}.rdb", out.getvalue())

    cache = azure.managed()
    first, same = blob("first", b"a", 1), blob("same", b"a")
    code, _, err = shell.imports(cache, first, same)
    assert (code, cache.data, posts(azure)) == (1, [b"what was there"], []), err
    assert f"rdbkit: more than once: db 0, key a: {first}, {same}\n" in err
    assert "nothing was imported. rdbkit merge makes one file of them, and its --on-duplicate says which one to keep" in err
    assert "--no-check leaves this to the cache" in err
    code, _, err = shell.imports(cache, first, blob("other", b"b", 2))
    assert (code, cache.data) == (1, [b"what was there"]), err
    assert "different function libraries are called 'mylib', in " in err
    code, out, err = shell.imports(cache, first, blob("like", b"b", 1))
    assert code == 0, err
    assert "Warning: function library 'mylib' is the same in 2 files" in out
    cache = azure.managed("other")
    assert shell.imports(cache, first, same, "--no-check", target="azure-managed")[0] == 0
    assert len(cache.data) == 2


def test_two_runs_at_a_time_begin_one_import(azure: Cloud, shell: Shell, tmp_path: Path) -> None:
    cache = azure.premium()
    url = azure.blob("dumps/both.rdb", SMALL)
    state = tmp_path / "rdbkit-import-shop-cache.json"
    begun = PendingOperation(str(state), "import", cache.path, [], f"{azure.endpoint}/op9", 1.0)

    def come_between(method: str, path: str) -> str:
        if "both.rdb" in path and not state.exists():
            begun.save()
        return ""

    azure.fault = come_between
    code, _, err = shell.imports(cache, url)
    assert (code, cache.data, posts(azure)) == (4, [b"what was there"], []), err
    assert last_line(err) == (
        "rdbkit: shop-cache: another run has begun an import since this one looked, and this one begins none: run this again to "
        "wait for it"
    )
    assert PendingOperation.read(str(state)) == begun

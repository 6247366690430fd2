"""`rdbkit plan --bicep` and `--terraform`: files that the languages' parsers read, of what the services' resources take."""

from __future__ import annotations

import itertools
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rdbkit.operations.plan import Plan, Size, plan
from rdbkit.operations.plan_bicep import bicep
from rdbkit.operations.plan_terraform import terraform
from rdbkit.operations.resource_names import Names
from rdbkit.targets.target import find_target

from .. import command_line
from ..rdb import FIXTURES
from ..templates import Code, argument, check_bicep, check_terraform, parse_bicep, parse_terraform

DUMP = str(FIXTURES / "random" / "redis-6.2.16.rdb")
NAMES = Names("my-cache", "mygroup", "westeurope", "mystorage", "snapshots")
#: None begins with //, which tree-sitter-bicep takes for a comment inside of a literal, as Bicep does not.
HOSTILE = (
    "it's", 'a "name"', "${x}", "$${x}", "$$${x}", "%{ if true }", "%%{x}", "a\nb\r\tc", "\\", "\\'", '\\"', "\\n", "\\u0041",
    "é ü 雪 😀", "\x00\x1b\x7f\u2028", "'''", "${environment()}", "a // b", "a /* b */", "# x",
    "<<EOT\nEOT", "$", "%", "{", "}", "$$", "%%",
)  # fmt: skip


def planned(target: str, sku: str | None = None, **changes: Any) -> Plan:
    return replace(plan([DUMP], target, sku=sku, names=NAMES), **changes)


def chosen(found: Plan) -> Size:
    assert found.chosen is not None
    return found.chosen


FOUND = planned("azure-managed")


@pytest.mark.parametrize("private_endpoint", [False, True])
def test_files_for_managed_redis_are_of_what_its_resources_take(private_endpoint: bool) -> None:
    for modules, policy, ha, keys in itertools.product(
        ([], ["RedisJSON"], ["RediSearch", "RedisJSON"]),
        ("NoCluster", "OSSCluster", "EnterpriseCluster"),
        (True, False),
        (True, False),
    ):
        found = replace(FOUND, modules=modules, clustering=policy, high_availability=ha, access_keys=keys)
        in_bicep = check_bicep(bicep(found, private_endpoint=private_endpoint))
        in_terraform = check_terraform(terraform(found, private_endpoint=private_endpoint))
        assert ("endpoint" in in_bicep) == (("azurerm_private_endpoint", "endpoint") in in_terraform) == private_endpoint
        # one way in
        assert ("access" in in_bicep) == (not keys)
        assert (("azurerm_managed_redis_access_policy_assignment", "access") in in_terraform) == (not keys)
        cache, there = in_bicep["cache"][1], in_terraform["azurerm_managed_redis", "cache"]
        public = "Disabled" if private_endpoint else "Enabled"
        assert there["public_network_access"] == cache["properties"]["publicNetworkAccess"] == public
        assert there["sku_name"] == cache["sku"]["name"] == "Balanced_B0"
        assert there["high_availability_enabled"] is (cache["properties"]["highAvailability"] == "Enabled") is ha
        properties, (database,) = in_bicep["database"][1]["properties"], there["default_database"]
        assert database["clustering_policy"] == properties["clusteringPolicy"] == policy
        eviction = "NoEviction" if "RediSearch" in modules else "VolatileLRU"
        assert database["eviction_policy"] == properties["evictionPolicy"] == eviction
        assert database["access_keys_authentication_enabled"] is (properties["accessKeysAuthentication"] == "Enabled") is keys
        for asked in (database.get("module", []), properties.get("modules", [])):
            assert [module["name"] for module in asked] == modules


@pytest.mark.parametrize("private_endpoint", [False, True])
def test_files_for_premium_are_of_what_its_resources_take(private_endpoint: bool) -> None:
    for size, shards in itertools.product(("P1", "P5"), (1, 3)):
        found = planned("azure-premium", size, clustering="cluster" if shards > 1 else "none")
        found = replace(found, chosen=replace(chosen(found), shards=shards))
        in_bicep = check_bicep(bicep(found, private_endpoint=private_endpoint))
        in_terraform = check_terraform(terraform(found, private_endpoint=private_endpoint))
        assert ("endpoint" in in_bicep) == (("azurerm_private_endpoint", "endpoint") in in_terraform) == private_endpoint
        properties, there = in_bicep["cache"][1]["properties"], in_terraform["azurerm_redis_cache", "cache"]
        assert there["public_network_access_enabled"] is (properties["publicNetworkAccess"] == "Enabled") is not private_endpoint
        assert there["sku_name"] == properties["sku"]["name"] == "Premium"
        assert f"{there['family']}{there['capacity']}" == f"{properties['sku']['family']}{properties['sku']['capacity']}" == size
        assert there.get("shard_count") == properties.get("shardCount") == (shards if shards > 1 else None)
        # Entra ID, beside the access keys that such a cache has
        assert "access" in in_bicep
        assert ("azurerm_redis_cache_access_policy_assignment", "access") in in_terraform
        assert there["redis_configuration"] == [{"active_directory_authentication_enabled": True}]
        assert properties["redisConfiguration"] == {"aad-enabled": "true"}
        assert there["non_ssl_port_enabled"] is properties["enableNonSslPort"] is False
        # and it reads the files by its own identity
        assert in_bicep["cacheReads"][1]["properties"]["principalId"] == "cache.identity.principalId"
        assert in_bicep["cache"][1]["identity"]["type"] == there["identity"][0]["type"] == "SystemAssigned"
        assert ("azurerm_role_assignment", "cache_reads") in in_terraform


@pytest.mark.parametrize("sku", [sku.name for sku in find_target("azure-managed").skus])
def test_every_size_is_one_that_can_be_asked_for(sku: str) -> None:
    name = check_bicep(bicep(planned("azure-managed", sku)))["cache"][1]["sku"]["name"]
    assert name.endswith(f"_{sku}")
    assert name in argument("azurerm_managed_redis", "sku_name")["values"]


@pytest.mark.parametrize("target", ["azure-managed", "azure-premium"])
def test_the_service_can_read_the_storage_account_and_nobody_has_its_keys(target: str) -> None:
    """An import of Managed Redis reaches it by the public network alone, even into a cache that only a private one reaches."""
    _, storage = check_bicep(bicep(planned(target), private_endpoint=True))["storage"]
    assert storage["location"] == "location"
    assert storage["properties"] == {
        "allowBlobPublicAccess": False, "allowSharedKeyAccess": False, "minimumTlsVersion": "TLS1_2",
        "publicNetworkAccess": "Enabled", "supportsHttpsTrafficOnly": True,
    }  # fmt: skip
    resources = check_terraform(terraform(planned(target), private_endpoint=True))
    there = resources["azurerm_storage_account", "storage"]
    assert there["shared_access_key_enabled"] is False
    assert there["public_network_access"] == "Enabled"
    assert (
        there["location"]
        == resources["azurerm_redis_cache" if target == "azure-premium" else "azurerm_managed_redis", "cache"]["location"]
    )


@pytest.mark.parametrize("target", ["azure-managed", "azure-premium"])
def test_an_endpoint_waits_for_what_changes_the_cache(target: str) -> None:
    """One change meets the other with a conflict otherwise."""
    for keys in (False, True):
        found = planned(target, access_keys=keys)
        endpoint = parse_bicep(bicep(found, private_endpoint=True))["resource"]["endpoint"][1]
        resources = check_terraform(terraform(found, private_endpoint=True))
        there = resources["azurerm_private_endpoint", "endpoint"].get("depends_on")
        if keys and target == "azure-managed":
            assert endpoint["dependsOn"] == ["database"]
            assert there is None
        else:
            assert endpoint["dependsOn"] == ["access"]
            assert there == [next(f"{kind}.{name}" for kind, name in resources if name == "access")]


@pytest.mark.parametrize("target", ["azure-managed", "azure-premium"])
def test_the_private_zone_is_that_of_the_cloud(target: str) -> None:
    """Of another service or cloud, an endpoint is made as well, and nothing finds it."""
    zones = parse_bicep(bicep(planned(target), private_endpoint=True))["param"]["privateDnsZone"]
    text = terraform(planned(target), private_endpoint=True)
    (there,) = (block["private_dns_zones"] for block in parse_terraform(text)["locals"] if "private_dns_zones" in block)
    if target == "azure-managed":
        assert there == {"public": "privatelink.redis.azure.net"}
    else:
        assert {cloud: zone.removeprefix("privatelink.redis.cache.") for cloud, zone in there.items()} == {
            "public": "windows.net", "usgovernment": "usgovcloudapi.net", "china": "chinacloudapi.cn",
        }  # fmt: skip
    assert (
        "".join(zones.split())
        == "{"
        + "".join(
            f"{cloud}:'{zone}'"
            for cloud, zone in zip(("AzureCloud", "AzureUSGovernment", "AzureChinaCloud"), there.values(), strict=False)
        )
        + "}[environment().name]"
    )


def test_what_the_page_shows_is_written() -> None:
    page = (FIXTURES.parent / "docs" / "plan.md").read_text("utf-8")
    _, _, section = page.partition("## Bicep and Terraform\n")
    shown = [part.partition("```")[0] for part in section.partition("\n## ")[0].split("```text\n")[1:]]
    found = planned("azure-managed", "B1")
    assert len(shown) == 2
    assert shown[0] in bicep(found)
    assert shown[1] in terraform(found)


@pytest.mark.parametrize("write", [bicep, terraform])
def test_a_name_that_is_not_given_is_a_parameter_without_default(write: Any) -> None:
    text = write(planned("azure-managed", names=Names()))
    if write is bicep:
        given = parse_bicep(text)["param"]
        assert [name for name, default in given.items() if default is None] == ["name", "storageAccountName", "containerName"]
        assert given["location"] == "resourceGroup().location"
        assert isinstance(given["location"], Code)
    else:
        blocks = {name: block for each in parse_terraform(text)["variable"] for name, block in each.items()}
        asked = [name for name, block in blocks.items() if "default" not in block]
        assert asked == ["name", "resource_group_name", "storage_account_name", "container_name"]


def defaults(found: Plan) -> list[tuple[str, ...]]:
    """The names of a plan, as each file has them."""
    # resources, which are behind the parameters, take long to parse
    in_bicep = parse_bicep(bicep(found).partition("\nresource ")[0])["param"]
    in_terraform = parse_terraform(terraform(found).partition("\ndata ")[0])["variable"]
    variables = {name: block.get("default") for each in in_terraform for name, block in each.items()}
    in_both = [
        [in_bicep[name] for name in ("name", "location", "storageAccountName", "containerName")],
        [variables[name] for name in ("name", "location", "storage_account_name", "container_name")],
    ]
    assert not any(isinstance(name, Code) for names in in_both for name in names)
    return [tuple(names) for names in in_both]


@pytest.mark.parametrize("target", ["azure-managed", "azure-premium"])
def test_names_are_literals_whatever_is_in_them(target: str) -> None:
    found = planned(target)
    for name in HOSTILE:
        names = Names(name, name, f"{name}1", f"2{name}", name * 2)
        expected = (name, f"{name}1", f"2{name}", name * 2)
        assert defaults(replace(found, names=names)) == [expected, expected], name


SPECIAL = st.sampled_from("${}%\\'\"nru0 \n\r\t*#é\x00\u2028😀")


@settings(max_examples=40)
@given(st.text(SPECIAL | st.characters(codec="utf-8", exclude_characters="/"), min_size=1))
def test_any_text_is_a_name(name: str) -> None:
    expected = (name,) * 4
    assert defaults(replace(FOUND, names=Names(name, name, name, name, name))) == [expected, expected]


@pytest.mark.parametrize("write", [bicep, terraform])
def test_a_name_of_bytes_that_are_no_text_is_refused(write: Any) -> None:
    with pytest.raises(ValueError, match=r'"caf\\udce9" has bytes that are no text'):
        write(replace(FOUND, names=Names(container="caf\udce9")))


def test_a_title_stays_one_line() -> None:
    found = replace(FOUND, title="A\nresource x 'y' = {\r}")
    check_bicep(bicep(found))
    check_terraform(terraform(found))


@pytest.mark.parametrize("write", [bicep, terraform])
def test_what_cannot_be_created_is_refused(write: Any) -> None:
    with pytest.raises(ValueError, match=r"Enterprise .* takes no new caches, so there is nothing to describe"):
        write(planned("azure-enterprise"))
    with pytest.raises(ValueError, match="no size to describe"):
        write(replace(FOUND, chosen=None))


def test_more_databases_than_a_cache_has_by_default() -> None:
    found = planned("azure-premium", "P3")
    within, beyond = replace(found, databases=[0, 15]), replace(found, databases=[0, 16])
    _, cache = check_bicep(bicep(within))["cache"]
    assert "databases" not in cache["properties"]["redisConfiguration"]
    check_terraform(terraform(within))
    _, cache = check_bicep(bicep(beyond))["cache"]
    assert cache["properties"]["redisConfiguration"]["databases"] == "48"
    with pytest.raises(
        ValueError, match="keys are in database 16, and Terraform's azurerm_redis_cache cannot ask for more than 16"
    ):
        terraform(beyond)
    # a P1 cannot have more: the conversion moves the keys
    small = planned("azure-premium", "P1", databases=[0, 16])
    assert "databases" not in check_bicep(bicep(small))["cache"][1]["properties"]["redisConfiguration"]
    check_terraform(terraform(small))
    # a cluster has database 0 alone
    cluster = replace(beyond, clustering="cluster", chosen=replace(chosen(found), shards=2))
    assert "databases" not in check_bicep(bicep(cluster))["cache"][1]["properties"]["redisConfiguration"]
    assert check_terraform(terraform(cluster))["azurerm_redis_cache", "cache"]["shard_count"] == 2


def run(*args: str | Path) -> Any:
    return command_line.run_text("plan", DUMP, *map(str, args))


def test_the_command_writes_both(tmp_path: Path) -> None:
    here, there = tmp_path / "a.bicep", tmp_path / "main.tf"
    both = ("--bicep", here, "--terraform", there)
    made = run("--target", "azure-premium", *both, "--private-endpoint", "--name", "c1")
    assert made.returncode == 0, made.stderr
    assert "endpoint" in check_bicep(here.read_text())
    assert ("azurerm_private_endpoint", "endpoint") in check_terraform(there.read_text())
    assert parse_bicep(here.read_text())["param"]["name"] == "c1"
    here.unlink()
    again = run("--target", "azure-premium", *both)
    assert again.returncode == 2
    assert "main.tf exists; --force replaces it" in again.stderr
    assert not here.exists()
    assert run("--target", "azure-managed", *both, "--force").returncode == 0
    assert ("azurerm_managed_redis", "cache") in check_terraform(there.read_text())


def test_the_command_says_how_its_files_are_deployed(tmp_path: Path) -> None:
    folder = tmp_path / "for $HOME"
    folder.mkdir()
    made = run("--target", "azure-managed", "--bicep", folder / "a.bicep", "--terraform", folder / "a.tf", "--private-endpoint")
    lines = made.stdout.replace("\\\n", "").splitlines()
    commands = [shlex.split(line) for line in lines if line.startswith(("   az deployment", "   terraform"))]
    assert commands == [
        ["az", "deployment", "group", "create", "--resource-group", "$RESOURCE_GROUP", "--template-file", str(folder / "a.bicep")],
        ["terraform", f"-chdir={folder}", "init"],
        ["terraform", f"-chdir={folder}", "apply"],
    ]
    assert "run verify-import there" in made.stdout
    assert "az deployment" not in run("--target", "azure-managed").stdout


def test_the_command_writes_neither_where_one_cannot_be(tmp_path: Path) -> None:
    made = run("--target", "azure-enterprise", "--terraform", tmp_path / "a.tf", "--bicep", tmp_path / "a.bicep")
    assert made.returncode == 2
    assert "--bicep: Azure Cache for Redis Enterprise" in made.stderr
    assert not [*tmp_path.iterdir()]
    alone = run("--target", "azure-managed", "--private-endpoint")
    assert alone.returncode == 2
    assert "--private-endpoint is for --bicep and --terraform" in alone.stderr
    other = run("--target", "azure-managed", "--terraform", tmp_path / "a.bicep")
    assert "says bicep, and terraform is written" in other.stderr

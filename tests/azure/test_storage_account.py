"""The storage account is looked at before anything is deleted: what keeps a cache from its blobs is refused or warned of."""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from rdbkit.azure import storage_account
from rdbkit.azure.storage_account import StorageAccount, find_account
from rdbkit.storage.blob_url import parse_place

from ..arm import GROUP, SUBSCRIPTION, Cache, Cloud
from ..azurite import ACCOUNT, needs_azurite
from ..rdb import key, rdb, string
from .shell import Shell, posts

SMALL = rdb(b"\xfe\x00", key(b"greeting", 0, string(b"hello")))
OTHER = "6b6a8b6e-0000-4000-8000-00000000000f"
DENY: dict[str, Any] = {"networkAcls": {"bypass": "None", "defaultAction": "Deny", "ipRules": [{"value": "1.2.3.4"}]}}
IDENTITY = {"type": "SystemAssigned", "principalId": "p", "tenantId": "t"}
UPDATE = f"az storage account update --name {ACCOUNT} --resource-group {GROUP} --subscription {SUBSCRIPTION}"

#: What Azure CLI takes, and what the module has it print.
ARGUMENTS = Path(__file__).parent.parent / "operations/az_arguments.toml"
OPTIONS = re.compile(r"account\.update\('(--[^']*)'\)")

pytestmark = needs_azurite


def told(text: str) -> str:
    """What was said, however it was folded, without the engine's version."""
    return re.sub(r" \(Redis [\d.]+\)", "", " ".join(text.split()))


def managed(azure: Cloud) -> Cache:
    return azure.managed()


def premium(azure: Cloud) -> Cache:
    return azure.premium()


def with_identity(azure: Cloud) -> Cache:
    return azure.premium(identity=IDENTITY)


BY_IDENTITY = ["--auth", "managed-identity"]
REFUSED = {
    "firewall": (managed, DENY, [], "has a firewall, which Azure Managed Redis does not support", "--default-action Allow"),
    "no public network": (
        managed, {"publicNetworkAccess": "Disabled"}, [], "lets no public network in (Disabled), which Azure Managed Redis",
        "--public-network-access Enabled",
    ),
    "firewall and SAS": (premium, DENY, [], "has a firewall, through which", "--auth managed-identity"),
    "no trusted services": (with_identity, DENY, BY_IDENTITY, "trusted services do not get through it", "--bypass AzureServices"),
    "another region": (premium, {"location": "eastus"}, [], "is in eastus, and the cache in westeurope", "in westeurope"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "account", "options", "words", "remedy"), REFUSED.values(), ids=list(REFUSED))
def test_what_the_service_does_not_support_is_refused_before_anything_is_deleted(
    azure: Cloud, shell: Shell, make: Callable[[Cloud], Cache], account: dict[str, Any], options: list[str], words: str, remedy: str
) -> None:
    cache = make(azure)
    url = azure.blob("dumps/account.rdb", SMALL)
    azure.accounts[SUBSCRIPTION] = [azure.storage_account("other"), azure.storage_account(**account)]
    code, _, err = shell.imports(cache, url, *options)
    assert (code, posts(azure), cache.data) == (4, [], [b"what was there"])
    assert words in told(err)
    assert remedy in told(err)
    assert told(err).endswith("--no-storage-check goes on all the same")
    code, _, err = shell.imports(cache, url, *options, "--no-storage-check")
    assert code == 0, err
    assert cache.data == [SMALL]


WARNED = {
    "a region that documents wanted once": (managed, {"location": "eastus"}, [], "is in eastus, and the cache in westeurope"),
    "a hierarchical namespace": (premium, {"isHnsEnabled": True}, [], "no source says whether Azure Cache for Redis Premium"),
    "a blob storage account": (managed, {"kind": "BlobStorage"}, [], "is of the kind BlobStorage, and no source says"),
    "trusted services without public networks": (
        with_identity, {"publicNetworkAccess": "Disabled"}, BY_IDENTITY, "no source says whether trusted services get in then",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("make", "account", "options", "words"), WARNED.values(), ids=list(WARNED))
def test_what_may_be_in_the_way_is_a_warning(
    azure: Cloud, shell: Shell, make: Callable[[Cloud], Cache], account: dict[str, Any], options: list[str], words: str
) -> None:
    cache = make(azure)
    azure.accounts[SUBSCRIPTION] = [azure.storage_account(**account)]
    code, out, err = shell.imports(cache, azure.blob("dumps/account.rdb", SMALL), *options)
    assert code == 0, err
    assert f"Warning: the storage account {ACCOUNT}" in told(out)
    assert words in told(out)


def test_trusted_services_get_through_a_firewall_and_a_rule_may_name_the_cache(azure: Cloud, shell: Shell) -> None:
    cache = with_identity(azure)
    url = azure.blob("dumps/account.rdb", SMALL)
    rules = [{"tenantId": "t", "resourceId": cache.path.upper()}]
    for acls in ({"bypass": "Logging, AzureServices"}, {"bypass": "None", "resourceAccessRules": rules}):
        azure.accounts[SUBSCRIPTION] = [azure.storage_account(networkAcls={"defaultAction": "Deny"} | acls)]
        code, out, err = shell.imports(cache, url, *BY_IDENTITY)
        assert (code, "Warning" in out) == (0, False), out + err


def test_an_account_without_shared_keys_takes_what_an_identity_has_signed_alone(azure: Cloud, shell: Shell) -> None:
    cache = azure.managed()
    url = azure.blob("dumps/account.rdb", SMALL)
    azure.accounts[SUBSCRIPTION] = [azure.storage_account(allowSharedKeyAccess=False)]
    # a SAS that was given, whose signature is of a key
    by_key = f"{url}?sv=2025-11-05&sr=b&sp=r&se=2999-01-01T00:00:00Z&sig=c2VjcmV0"
    code, _, err = shell.imports(cache, by_key)
    assert (code, posts(azure)) == (4, [])
    assert f"so that an identity signs (az login), or run {UPDATE} --allow-shared-key-access true" in told(err)
    code, _, err = shell.imports(cache, url)  # signed by user delegation
    assert code == 0, err
    shell.environment["AZURE_STORAGE_KEY"] = "a2V5"
    code, _, err = shell.imports(cache, url)
    assert code in (2, 4)
    assert posts(azure)[1:] == []


@pytest.mark.parametrize("changes", [{"isHnsEnabled": True}, {"kind": "BlobStorage"}])
def test_what_is_no_place_for_an_export(azure: Cloud, shell: Shell, changes: dict[str, Any]) -> None:
    azure.accounts[SUBSCRIPTION] = [azure.storage_account(**changes)]
    place = azure.blob("dumps")
    code, _, err = shell.exports(azure.premium(), place)
    assert (code, posts(azure)) == (4, [])
    assert "to which Azure Cache for Redis Premium does not export (Azure docs" in told(err)
    code, out, err = shell.exports(azure.managed(), place)
    assert code == 0, err
    assert "no source says whether Azure Managed Redis" in told(out)


def test_an_account_of_another_subscription(azure: Cloud, shell: Shell) -> None:
    url = azure.blob("dumps/account.rdb", SMALL)
    azure.accounts = {OTHER: [azure.storage_account(subscription=OTHER)], SUBSCRIPTION: []}
    code, _, err = shell.imports(azure.premium(), url, "--storage-subscription", OTHER)
    assert (code, posts(azure)) == (4, [])
    assert "is in another subscription than the cache; they have to be of one subscription: --auth managed-identity, or" in told(
        err
    )
    cache = azure.premium(identity=IDENTITY)
    assert shell.imports(cache, url, *BY_IDENTITY, "--storage-subscription", OTHER)[0] == 0
    cache = azure.managed()
    code, out, err = shell.imports(cache, url, "--storage-subscription", OTHER)
    assert (code, "Warning" in out) == (0, False), out + err
    assert cache.bodies[0].keys() == {"sasUris"}


def test_whoever_may_not_read_accounts_is_told_and_goes_on(azure: Cloud, shell: Shell) -> None:
    url = azure.blob("dumps/account.rdb", SMALL)
    azure.accounts = {}
    code, out, err = shell.imports(azure.managed(), url)
    assert code == 0, err
    assert f"the settings of the storage account {azure.account} are not known" in told(out)
    assert f"those of subscription {SUBSCRIPTION} cannot be listed (this identity may not)" in told(out)
    assert "the role Reader on it allows that, and --storage-subscription its subscription if that is another" in told(out)
    azure.accounts = {SUBSCRIPTION: [azure.storage_account("other")]}
    code, out, err = shell.imports(azure.managed(), url, "--storage-subscription", OTHER)
    assert code == 0, err
    assert f"it is not among those of subscription {SUBSCRIPTION} that this identity may read" in told(out)


def test_a_resource_manager_that_fails_stops_everything(azure: Cloud, shell: Shell) -> None:
    url = azure.blob("dumps/account.rdb", SMALL)
    azure.arm_fault = lambda method, path: "cut" if "storageAccounts" in path else ""
    code, _, err = shell.imports(azure.managed(), url)
    assert (code, posts(azure)) == (4, [])
    assert "the storage accounts of subscription" in told(err)
    assert told(err).endswith("; --no-storage-check goes on all the same")


def test_a_list_that_goes_on_elsewhere_or_is_none_stops_everything_unless_told(azure: Cloud, shell: Shell) -> None:
    url = azure.blob("dumps/account.rdb", SMALL)
    asked = len(azure.calls)
    pages: list[tuple[dict[str, Any], str]] = [
        ({"value": [], "nextLink": f"https://127.0.0.1:{azure.port}/subscriptions/x"}, "goes on at another host than"),
        ({"value": "x"}, "is none of ARM"),
    ]
    for page, words in pages:
        azure.accounts_page = page
        code, _, err = shell.imports(azure.managed(), url)
        assert (code, posts(azure)) == (4, [])
        assert words in told(err)
        assert told(err).endswith("; --no-storage-check goes on all the same")
    assert [path for _, path in azure.calls[asked:] if path == "/subscriptions/x"] == []
    assert shell.imports(azure.managed(), url, "--no-storage-check")[0] == 0


def test_a_subscription_that_is_none_is_told_as_one(azure: Cloud, shell: Shell) -> None:
    url = azure.blob("dumps/account.rdb", SMALL)
    azure.accounts = {}
    for other in ("My subscription", "é", "a?b#c", "../x"):
        code, out, err = shell.imports(azure.managed(), url, "--storage-subscription", other)
        assert code == 0, err
        assert f"those of subscription {other} cannot be listed" in told(out)


ODD: list[Any] = [None, 5, 1.5, True, "", "x", [], [None], [5], {}, {"a": 1}]


@pytest.mark.parametrize("odd", ODD, ids=repr)
def test_an_account_of_another_form_is_no_account_and_refuses_nothing_for_what_is_not_known(
    azure: Cloud, monkeypatch: pytest.MonkeyPatch, odd: Any
) -> None:
    for name, value in azure.environment.items():
        monkeypatch.setenv(name, value)
    place = parse_place(f"{azure.account}/dumps/a.rdb")
    whole = azure.storage_account()
    rows = [odd]
    rows += [whole | {name: odd} for name in ("id", "location", "kind", "properties")]
    properties = ("networkAcls", "primaryEndpoints", "secondaryEndpoints", "customDomain", "publicNetworkAccess", "isHnsEnabled")
    rows += [whole | {"properties": whole["properties"] | {name: odd}} for name in properties]
    rules = whole["properties"]["networkAcls"]
    for name in ("bypass", "resourceAccessRules"):
        rows.append(whole | {"properties": whole["properties"] | {"networkAcls": rules | {name: odd}}})
    with rdbkit.Arm(rdbkit.parse_resource_id(azure.premium().path), endpoint=azure.endpoint) as arm:
        for row in rows:
            azure.accounts_page = {"value": [row, whole]}
            account, _ = find_account(arm, place, [SUBSCRIPTION])
            assert account is not None
            assert account.name == ACCOUNT


def test_a_region_and_a_subscription_that_are_not_known_are_no_others(azure: Cloud, shell: Shell) -> None:
    url = azure.blob("dumps/account.rdb", SMALL)
    for name in ("location", "id"):
        azure.accounts[SUBSCRIPTION] = [azure.storage_account() | {name: None}]
        code, out, err = shell.imports(azure.premium(), url)
        assert (code, "Warning" in out) == (0, False), out + err


def test_migrate_looks_before_it_sends(azure: Cloud, shell: Shell) -> None:
    azure.accounts[SUBSCRIPTION] = [azure.storage_account(**DENY)]
    file = shell.folder / "shop.rdb"
    file.write_bytes(SMALL)
    cache = azure.managed()
    command = [
        "migrate", str(file), "--target", "azure-managed", "--resource-id", cache.path, "--container", azure.blob("early"),
        "--yes", "shop-amr",
    ]  # fmt: skip
    code, _, err = shell.run(*command)
    assert (code, posts(azure)) == (4, [])
    assert "has a firewall, which Azure Managed Redis does not support" in told(err)
    assert not [path for method, path in azure.calls if method == "PUT"]
    azure.accounts[SUBSCRIPTION] = [azure.storage_account(location="eastus")]
    code, out, err = shell.run(*command)
    assert code == 0, err
    assert (out + err).count("is in eastus") == 1


def test_what_is_known_of_the_account_is_in_the_report(azure: Cloud, shell: Shell) -> None:
    azure.accounts[SUBSCRIPTION] = [azure.storage_account(isHnsEnabled=True)]
    code, out, err = shell.imports(azure.managed(), azure.blob("dumps/account.rdb", SMALL), "--dry-run", "--json")
    assert code == 0, err
    (account,) = json.loads(out)["storage_accounts"]
    assert {name: account[name] for name in ("name", "resource_group", "location", "kind", "hierarchical", "default_action")} == {
        "name": ACCOUNT, "resource_group": GROUP, "location": "westeurope", "kind": "StorageV2", "hierarchical": True,
        "default_action": "Allow",
    }  # fmt: skip


def test_the_library_refuses_too(azure: Cloud, monkeypatch: pytest.MonkeyPatch, shell: Shell) -> None:
    for name, value in azure.environment.items():
        monkeypatch.setenv(name, value)
    azure.accounts[SUBSCRIPTION] = [azure.storage_account(**DENY)]
    cache = azure.managed()
    url = azure.blob("dumps/account.rdb", SMALL)
    with rdbkit.Arm(rdbkit.parse_resource_id(cache.path), endpoint=azure.endpoint) as arm:
        state = shell.folder / "state.json"
        with pytest.raises(rdbkit.TargetError, match="has a firewall") as caught:
            rdbkit.import_(url, arm, target="azure-managed", state=state)
        assert caught.value.source == azure.account
        assert rdbkit.import_(url, arm, target="azure-managed", state=state, storage_check=False).bytes == len(SMALL)


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("https://shopdumps.blob.core.windows.net/dumps", True),
        ("https://SHOPDUMPS.privatelink.blob.core.windows.net/dumps", True),
        ("https://shopdumps-secondary.blob.core.windows.net/dumps", True),
        ("https://blobs.example.com/dumps", True),
        ("https://shopdumps.example.com/dumps", False),
        ("https://shopdump.blob.core.windows.net/dumps", False),
    ],
)
def test_which_account_a_blob_is_in(azure: Cloud, monkeypatch: pytest.MonkeyPatch, url: str, found: bool) -> None:
    for name, value in azure.environment.items():
        monkeypatch.setenv(name, value)
    row = azure.storage_account("shopdumps", customDomain={"name": "blobs.example.com"})
    row["properties"]["secondaryEndpoints"] = {"blob": "https://shopdumps-secondary.blob.core.windows.net/"}
    azure.accounts[SUBSCRIPTION] = [azure.storage_account("other"), row]
    with rdbkit.Arm(rdbkit.parse_resource_id(azure.premium().path), endpoint=azure.endpoint) as arm:
        account, why = find_account(arm, parse_place(url), [SUBSCRIPTION])
    assert (account is not None, bool(why)) == (found, not found)


def test_azure_cli_takes_the_commands_whatever_things_are_called() -> None:
    table = tomllib.loads(ARGUMENTS.read_text())
    known = table["storage account update"]
    account = StorageAccount("id", "shop", "s", "shop (eu); x", "westeurope", "StorageV2", "Enabled", "Deny", ["Logging"])
    printed = OPTIONS.findall(Path(storage_account.__file__).read_text())
    assert len(printed) >= 2
    for options in [*printed, "--bypass Logging AzureServices"]:
        words = shlex.split(account.update(options))
        assert words[:4] == ["az", "storage", "account", "update"]
        assert words[words.index("--resource-group") + 1] == "shop (eu); x"
        option = ""
        for word in words[4:]:
            option = word if word.startswith("--") else option
            assert option in [*known["options"], *known["several"], *table["global"]], option
            assert word == option or word in known["values"].get(option, [word]), word

"""The steps of a plan: what is to be done until the data is in the service, as commands of a POSIX shell in their order."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rdbkit.targets.target import Creation, Target
from rdbkit.text import path_word, shell_word, size

if TYPE_CHECKING:
    from rdbkit.operations.plan import Plan

__all__ = ["PORT", "SEARCH", "Names", "Step", "steps_of", "takes_new_caches"]

# How commands and options are called. Source: the reference of `az redisenterprise` and `az redis` (Azure CLI 2.75).

#: The port of a database of Azure Managed Redis.
PORT: Final = 10000
#: What wants one policy of clustering and no eviction.
SEARCH: Final = "RediSearch"


@dataclass(frozen=True)
class Names:
    """What things are called in the commands; what is not said stays a variable of the shell."""

    cache: str = ""
    resource_group: str = ""
    location: str = ""
    storage_account: str = ""
    container: str = ""


@dataclass
class Step:
    """What to do, and the commands for it in their order."""

    title: str
    commands: list[str]
    note: str = ""


def steps_of(found: Plan, target: Target, now_ms: int) -> list[Step]:
    """What to do for a plan whose size is chosen, in its order; nothing where no size holds the data, or there is none."""
    if found.chosen is None or not found.keys:
        return []
    names = found.names
    steps = [Step("Say what things are called", _variables(names))] if _variables(names) else []
    steps.append(_create(found, target, now_ms))
    conversions = [f.convert for f in found.files if f.convert]
    if conversions:
        steps.append(Step("Convert", conversions))
    steps.append(_upload(found, target))
    steps.append(_import(found, target))
    return steps


def _variables(names: Names) -> list[str]:
    """Shell variables for what has not been said."""
    asked = {
        "CACHE": names.cache, "RESOURCE_GROUP": names.resource_group, "LOCATION": names.location,
        "STORAGE_ACCOUNT": names.storage_account, "CONTAINER": names.container,
    }  # fmt: skip
    return [f"{variable}=..." for variable, value in asked.items() if not value]


def _word(value: str, variable: str) -> str:
    """A name in a command, or the variable that stands for it."""
    return shell_word(value) if value else f'"${variable}"'


def takes_new_caches(target: Target, now_ms: int) -> bool:
    """Whether a cache can be created in a service at a time in Unix milliseconds, or somebody reports that it can."""
    return target.creation(_day(now_ms)) is not Creation.CLOSED


def _day(now_ms: int) -> datetime.date:
    return datetime.datetime.fromtimestamp(now_ms / 1000, datetime.UTC).date()


def _create(found: Plan, target: Target, now_ms: int) -> Step:
    assert found.chosen is not None
    names = found.names
    cache, group = _word(names.cache, "CACHE"), _word(names.resource_group, "RESOURCE_GROUP")
    location = _word(names.location, "LOCATION")
    if not takes_new_caches(target, now_ms):
        kind = "redis" if target.name == "azure-premium" else "redisenterprise"
        shards = f" with {found.chosen.shards} shards" if found.chosen.shards > 1 else ""
        return Step(
            f"Look at the cache that you have: {found.chosen.name}{shards} or larger is needed",
            [f"az {kind} show --name {cache} --resource-group {group} --query sku"],
            "a new one cannot be created any more",
        )
    if target.name == "azure-premium":
        shards = f" --shard-count {found.chosen.shards}" if found.chosen.shards > 1 else ""
        vm = found.chosen.sku.lower()
        return Step(
            "Create the cache",
            [f"az redis create --name {cache} --resource-group {group} --location {location} --sku Premium --vm-size {vm}{shards}"],
            _doubt(target, now_ms),
        )
    available = "Enabled" if found.high_availability else "Disabled"
    eviction = "NoEviction" if SEARCH in found.modules else "VolatileLRU"
    modules = "".join(f" --modules name={name}" for name in found.modules)
    return Step(
        "Create the cache",
        [
            f"az redisenterprise create --name {cache} --resource-group {group} --location {location}"
            f" --sku {found.chosen.name} --high-availability {available} --public-network-access Enabled"
            " --minimum-tls-version 1.2 --no-database",
            f"az redisenterprise database create --cluster-name {cache} --resource-group {group} --client-protocol Encrypted"
            f" --port {PORT} --clustering-policy {found.clustering} --eviction-policy {eviction}" + modules,
        ],
    )


def _doubt(target: Target, now_ms: int) -> str:
    """What to know before the cache is created, where only a report says that it can be."""
    if target.creation(_day(now_ms)) is not Creation.REPORTED:
        return ""
    return "that this is possible is reported second-hand; where the service refuses it, take a cache that you have"


def _upload(found: Plan, target: Target) -> Step:
    account, container = _word(found.names.storage_account, "STORAGE_ACCOUNT"), _word(found.names.container, "CONTAINER")
    where = f"--account-name {account} --container-name {container} --auth-mode login"
    commands = [f"az storage container create --account-name {account} --name {container} --auth-mode login"]
    for number, file in enumerate(found.files, 1):
        # an equals sign, so that no name is taken for an option
        name = f"--name{'=' if file.blob.startswith('-') else ' '}{shell_word(file.blob)}"
        upload = f"./{file.upload}" if file.upload.startswith("@") else file.upload
        commands.append(f"az storage blob upload {where} {name} --file {path_word(upload)}")
        commands.append(
            f"URL{number}=$(az storage blob generate-sas {where} --as-user {name} --permissions r"
            " --expiry $(date -u -d '+1 day' +%Y-%m-%dT%H:%MZ) --full-uri --output tsv)"
        )
    total = sum(file.upload_bytes for file in found.files)
    about = "" if all(file.exact for file in found.files) else "about "
    account_has = []
    firewall, region = target.facts.get("storage_firewall"), target.facts.get("same_region")
    if region is not None and region.value:
        account_has.append("in the region of the cache")
    if firewall is not None and firewall.value is False:
        account_has.append("with public network access")
    needs = ["the role Storage Blob Data Contributor"]
    if account_has:
        needs.append(f"a storage account {' and '.join(account_has)}")
    title = f"Upload {about}{size(total)}, and make an address that the service may read"
    return Step(title, commands, f"needs {' and '.join(needs)}")


def _import(found: Plan, target: Target) -> Step:
    cache, group = _word(found.names.cache, "CACHE"), _word(found.names.resource_group, "RESOURCE_GROUP")
    urls = " ".join(f'"$URL{number}"' for number in range(1, len(found.files) + 1))
    if target.name == "azure-premium":
        command = f"az redis import --name {cache} --resource-group {group} --file-format RDB --files {urls}"
    else:
        command = f"az redisenterprise database import --cluster-name {cache} --resource-group {group} --sas-uris {urls}"
    return Step("Import", [command], "this first deletes everything that is in the cache")

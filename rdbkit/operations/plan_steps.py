"""The steps of a plan: what is to be done until the data is in the service, as commands of a POSIX shell in their order."""

from __future__ import annotations

import datetime
import json
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

from rdbkit.clouds import Cloud, find_cloud
from rdbkit.operations.resource_names import Names
from rdbkit.storage.blob_url import parse_place
from rdbkit.storage.remote import is_server_url
from rdbkit.targets.target import Creation, Target
from rdbkit.text import path_word, shell_word, size

if TYPE_CHECKING:
    from rdbkit.operations.plan import Plan, PlannedFile

__all__ = ["PORT", "SEARCH", "Step", "databases_to_ask_for", "good_until", "steps_of", "takes_new_caches"]

# How commands and options are called. Sources: `az redis` and `az storage` of Azure CLI 2.75 and 2.91; `az redisenterprise` of its
# extension 1.3.0 to 1.5.0b1 (Azure/azure-cli-extensions, src/redisenterprise). tests/operations/az_arguments.toml has each option.

#: The port of a database of Azure Managed Redis, and that of Premium for TLS.
PORT: Final = 10000
_PREMIUM_PORT: Final = 6380
#: How many databases a cache of Premium has unless it is created with more. Source: the fact `default_databases`.
_DATABASES: Final = 16
#: What wants one policy of clustering and no eviction.
SEARCH: Final = "RediSearch"
#: How long the addresses are good that the service reads from. Azure gives none of this kind for more than 7 days.
_DAYS: Final = 2
#: For so long an address has to be good when an import begins. Source: the fact `sas_hours_ahead` of azure.toml.
_HOURS_AHEAD: Final = 1
#: From 2.90.0 on `az redis import` asks, and refuses where there is no terminal to ask. It has --yes only from there on, so this is
#: said in the way that every version understands.
_DO_NOT_ASK: Final = "AZURE_CORE_DISABLE_CONFIRM_PROMPT=yes"
_EXTENSION: Final = "az extension add --upgrade --name redisenterprise"
_PREMIUM: Final = "azure-premium"
_MANAGED: Final = "azure-managed"


@dataclass
class Step:
    """What to do, and the commands for it in their order; `note` is one or more sentences, the last without its period."""

    title: str
    commands: list[str]
    note: str = ""


class _Words:
    """Names as words of commands: what is not given is a variable of the shell, which has to be set first."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.used: set[str] = set()

    def __call__(self, option: str, field: str) -> str:
        """An option of a command with the name that `names` has for `field`."""
        value = str(getattr(self.names, field))
        if value:
            return _option(option, value)
        self.used.add(field)
        return f'{option} "${field.upper()}"'

    def to_set(self) -> list[str]:
        """The variables that commands have been made with."""
        return [f"{each.name.upper()}=..." for each in fields(Names) if each.name in self.used]


def _option(option: str, value: str) -> str:
    """An option and its value, which Azure CLI takes neither for an option nor for the name of a file that has the value."""
    # behind the first equals sign an @ means a file
    return f"{option}{'=' if value.startswith('-') or '=@' in value else ' '}{shell_word(value)}"


def steps_of(found: Plan, target: Target, now_ms: int) -> list[Step]:
    """What to do for a plan whose size is chosen, in its order; nothing where no size holds the data, or there is none."""
    if found.chosen is None or not found.keys:
        return []
    words = _Words(found.names)
    steps = [] if found.cloud == "public" else [_sign_in(find_cloud(found.cloud))]
    if target.name != _PREMIUM:
        why = "needs Azure CLI 2.75.0 or later"
        if target.name == _MANAGED:
            why += ". --public-network-access is new in redisenterprise 1.3.0"
        steps.append(Step("Get the extension of Azure CLI for this service", [_EXTENSION], why))
    steps.append(_create(found, target, words, now_ms))
    if _by_entra(found, target):
        steps.append(_let_in(words))
    conversions = [f.convert for f in found.files if f.convert]
    if conversions:
        makes = any(is_server_url(file.file) for file in found.files)
        steps.append(Step("Make the file" if makes else "Convert", conversions))
    steps.append(_upload(found, target, words))
    steps.append(_import(found, target, words))
    steps.append(_verify(found, target, words))
    uploads = [file for file in found.files if not file.is_stored]
    if uploads:  # and nothing else is deleted: the blobs that were there are their owner's
        steps.append(_delete(uploads, words))
    if target.name == _MANAGED:
        steps.append(_switch(found, words))
    if not words.used:
        return steps
    there = "resource group and storage account have" if uploads else "resource group has"
    return [Step("Set the names", words.to_set(), f"sign in with az login first. The {there} to exist"), *steps]


def _sign_in(cloud: Cloud) -> Step:
    """To another cloud than the public one: Azure CLI is in one at a time."""
    return Step(f"Let Azure CLI use {cloud.title}", [f"az cloud set --name {cloud.name}", "az login"], "it stays there")


def _by_entra(found: Plan, target: Target) -> bool:
    """Whether the new cache lets in whom Entra ID knows, and no access key."""
    return target.name == _MANAGED and not found.access_keys


def takes_new_caches(target: Target, now_ms: int) -> bool:
    """Whether a cache can be created in a service at a time in Unix milliseconds, or somebody reports that it can."""
    return target.creation(_day(now_ms)) is not Creation.CLOSED


def _day(now_ms: int) -> datetime.date:
    return datetime.datetime.fromtimestamp(now_ms / 1000, datetime.UTC).date()


def databases_to_ask_for(found: Plan) -> int | None:
    """How many databases a cache of Premium has to be created with, None where those do that it has unless asked."""
    clustered = found.clustering == "cluster"  # which has one
    if found.target != _PREMIUM or found.chosen is None or clustered or max(found.databases, default=0) < _DATABASES:
        return None
    most = found.chosen.databases
    return most if most is not None and most > _DATABASES else None


def good_until(now_ms: int) -> datetime.datetime:
    """Until when the addresses in the steps of a plan of that time, in Unix milliseconds, let the service read: a whole minute."""
    return datetime.datetime.fromtimestamp(now_ms // 60_000 * 60, datetime.UTC) + datetime.timedelta(days=_DAYS)


def _create(found: Plan, target: Target, words: _Words, now_ms: int) -> Step:
    assert found.chosen is not None
    cache, group = words("--name", "cache"), words("--resource-group", "resource_group")
    if not takes_new_caches(target, now_ms):
        kind = "redis" if target.name == _PREMIUM else "redisenterprise"
        shards = f" with {found.chosen.shards} shards" if found.chosen.shards > 1 else ""
        return Step(
            f"Look at the cache that you have: {found.chosen.name}{shards} or larger is needed",
            [f"az {kind} show {cache} {group} --query sku"],
            "a new one cannot be created any more",
        )
    location = words("--location", "location")
    if target.name == _PREMIUM:
        shards = f" --shard-count {found.chosen.shards}" if found.chosen.shards > 1 else ""
        vm = found.chosen.sku.lower()
        databases = databases_to_ask_for(found)
        more = "" if databases is None else " --redis-configuration " + shell_word(json.dumps({"databases": str(databases)}))
        return Step(
            "Create the cache",
            [f"az redis create {cache} {group} {location} --sku Premium --vm-size {vm}{shards}{more}"],
            _doubt(target, now_ms),
        )
    available = "Enabled" if found.high_availability else "Disabled"
    eviction = "NoEviction" if SEARCH in found.modules else "VolatileLRU"
    policy = "" if found.clustering == "none" else f" --clustering-policy {found.clustering}"
    keys = "Disabled" if _by_entra(found, target) else "Enabled"
    modules = "".join(f" --modules name={name}" for name in found.modules)
    return Step(
        "Create the cache",
        [
            f"az redisenterprise create {cache} {group} {location} --sku {found.chosen.name} --high-availability {available}"
            " --public-network-access Enabled --minimum-tls-version 1.2 --no-database",
            f"az redisenterprise database create {words('--cluster-name', 'cache')} {group} --client-protocol Encrypted"
            f" --port {PORT}{policy} --eviction-policy {eviction} --access-keys-auth {keys}" + modules,
        ],
    )


def _doubt(target: Target, now_ms: int) -> str:
    """What to know before the cache is created, where only a report says that it can be."""
    if target.creation(_day(now_ms)) is not Creation.REPORTED:
        return ""
    return "that this is possible is reported second-hand. Where the service refuses it, take a cache that you have"


def _let_in(words: _Words) -> Step:
    """The way into a cache whose access keys are off, as they are unless asked for."""
    cluster, group = words("--cluster-name", "cache"), words("--resource-group", "resource_group")
    return Step(
        "Let yourself in by Entra ID",
        [
            "USER_ID=$(az ad signed-in-user show --query id --output tsv)",
            f"az redisenterprise database access-policy-assignment create {cluster} {group} --database-name default"
            ' --access-policy-assignment-name rdbkit --access-policy-name default --object-id "$USER_ID"',
        ],
        "access keys are off, unless you plan with --access-keys. Your application needs an assignment of its own",
    )


def _upload(found: Plan, target: Target, words: _Words) -> Step:
    expiry = good_until(found.now_ms)
    uploads = [file for file in found.files if not file.is_stored]
    commands = []
    if uploads:
        account, container = words("--account-name", "storage_account"), words("--name", "container")
        commands.append(f"az storage container create {account} {container} --auth-mode login")
    for number, file in enumerate(found.files, 1):
        blob = _blob(file, words)
        if not file.is_stored:
            # at its beginning an @ means a file that has the argument
            path = f"./{file.upload}" if file.upload.startswith(("@", "-")) else file.upload
            commands.append(f"az storage blob upload {blob} {_option('--file', path)}")
        commands.append(
            f"URL{number}=$(az storage blob generate-sas {blob} --as-user --permissions r"
            f" --expiry {expiry:%Y-%m-%dT%H:%MZ} --full-uri --output tsv)"
        )
    account_has = []
    firewall, region = target.facts.get("storage_firewall"), target.facts.get("same_region")
    if region is not None and region.value:
        account_has.append("in the region of the cache")
    if firewall is not None and firewall.value is False:
        account_has.append("with public network access")
    needs = [f"the role Storage Blob Data {'Contributor' if uploads else 'Reader'}"]
    if account_has:
        needs.append(f"a storage account {' and '.join(account_has)}")
    title = "Make an address that the service may read"
    if uploads:
        about = "" if all(file.exact for file in uploads) else "about "
        total = size(sum(file.upload_bytes for file in uploads))
        title = f"Upload {about}{total}, and make an address that the service may read"
    begin = f"{expiry - datetime.timedelta(hours=_HOURS_AHEAD):%Y-%m-%d %H:%M} UTC"
    return Step(title, commands, f"needs {' and '.join(needs)}. The import has to begin before {begin}, or plan again")


def _blob(file: PlannedFile, words: _Words) -> str:
    """Options that name the blob which the service will read."""
    if not file.is_stored:
        where = f"{words('--account-name', 'storage_account')} {words('--container-name', 'container')}"
        return f"{where} --auth-mode login {_option('--name', file.blob)}"
    place = parse_place(file.upload)
    named = place.account_name
    account = _option("--account-name", named) if named else words("--account-name", "storage_account")
    return f"{account} {_option('--container-name', place.container)} --auth-mode login {_option('--name', place.blob)}"


def _import(found: Plan, target: Target, words: _Words) -> Step:
    group = words("--resource-group", "resource_group")
    urls = " ".join(f'"$URL{number}"' for number in range(1, len(found.files) + 1))
    if target.name == _PREMIUM:
        command = f"{_DO_NOT_ASK} az redis import {words('--name', 'cache')} {group} --file-format RDB --files {urls}"
    else:
        command = f"az redisenterprise database import {words('--cluster-name', 'cache')} {group} --sas-uris {urls}"
    return Step("Import", [command], "this first deletes everything that is in the cache, and asks nothing")


def _verify(found: Plan, target: Target, words: _Words) -> Step:
    """The proof that everything has arrived."""
    group = words("--resource-group", "resource_group")
    cache, cluster = words("--name", "cache"), words("--cluster-name", "cache")
    kind, port = ("redis", _PREMIUM_PORT) if target.name == _PREMIUM else ("redisenterprise", PORT)
    keys = f"redis list-keys {cache}" if target.name == _PREMIUM else f"redisenterprise database list-keys {cluster}"
    commands = [f"HOST=$(az {kind} show {cache} {group} --query hostName --output tsv)"]
    files = " ".join(path_word(file.upload) for file in found.files)
    if _by_entra(found, target):
        commands.append(f'rdbkit verify-import {files} "rediss://$HOST:{port}" --entra')
    else:
        commands.append(f"KEY=$(az {keys} {group} --query primaryKey --output tsv)")
        commands.append(f'RDBKIT_REDIS_PASSWORD="$KEY" rdbkit verify-import {files} "rediss://$HOST:{port}"')
    return Step(
        "Prove that everything has arrived", commands, "before anything else writes to the cache. It takes the package rdbkit[live]"
    )


def _delete(uploads: Sequence[PlannedFile], words: _Words) -> Step:
    commands = [f"az storage blob delete {_blob(file, words)}" for file in uploads]
    return Step("Delete what was uploaded", commands, "it is a copy of all data")


def _switch(found: Plan, words: _Words) -> Step:
    """The last step: clients find the new cache."""
    login = "an access key" if found.access_keys else "Entra ID"
    title = "Let your application use the new cache"
    anew = f"it needs the new host name, port {PORT}, TLS and a login by {login}"
    source = found.names.source_cache
    if not source:
        return Step(
            title,
            [],
            f"{anew}. From a Basic, Standard or Premium cache it can keep the host name: plan with --source-cache ID",
        )
    cluster, group = words("--cluster-name", "cache"), words("--resource-group", "resource_group")
    return Step(
        title,
        [
            f"{_EXTENSION} --allow-preview true",
            f"az redisenterprise migration start {cluster} {group} {_option('--source-resource-id', source)}"
            " --skip-data-migration true --switch-dns true",
        ],
        "a preview, from redisenterprise 1.5.0b1 on. It leads the old host name to the new cache, and moves no data. Both have to"
        " be in one region and subscription, the old one without private endpoint, virtual network and geo-replication. When it"
        " happens cannot be chosen, and az redisenterprise migration undo goes back for a limited time",
    )

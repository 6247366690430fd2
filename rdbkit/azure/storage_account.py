"""The storage account of the blobs, as Azure Resource Manager shows it: which of its settings keep a cache from its blobs.

A service says no more than "OperationFailed" where it cannot reach an account, and an import has deleted what was in the cache by
then. So the account is looked at before. What the service documents that it does not support is refused; what may be in the way
is a warning. Whoever may not read the account goes on without, and is told so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final
from urllib.parse import quote, urlsplit

from rdbkit.azure.errors import translating_errors
from rdbkit.azure.resources import Arm, CacheState
from rdbkit.azure.sas import Signer
from rdbkit.errors import TargetError
from rdbkit.storage.blob_url import BlobUrl
from rdbkit.targets.facts import Fact
from rdbkit.targets.target import Target
from rdbkit.text import first_line, shell_word

__all__ = ["StorageAccount", "find_account", "look_at_accounts"]

#: A stable version that all clouds have. Source: Azure/azure-rest-api-specs, specification/storage, stable/2023-05-01.
_API: Final = "2023-05-01"
#: The service that Azure lets through an account's firewall, as "Azure services on the trusted services list".
_TRUSTED: Final = "AzureServices"
_INSIST: Final = "; --no-storage-check goes on all the same"


@dataclass(frozen=True)
class StorageAccount:
    """What Azure Resource Manager says of a storage account.

    Attributes:
        kind: "StorageV2", "BlobStorage", "BlockBlobStorage", ...
        public_network_access: "Enabled", "Disabled" or "SecuredByPerimeter".
        default_action: of its firewall, for requests that match no rule: "Allow" or "Deny".
        bypass: who gets through the firewall, such as "AzureServices".
        resource_rules: ids of resources that get through it.
        shared_keys: whether requests may be signed with its keys.
        hierarchical: whether it has a hierarchical namespace (ADLS Gen2).
    """

    id: str
    name: str
    subscription: str
    resource_group: str
    location: str
    kind: str
    public_network_access: str
    default_action: str
    bypass: list[str] = field(default_factory=list)
    resource_rules: list[str] = field(default_factory=list)
    shared_keys: bool = True
    hierarchical: bool = False

    @property
    def is_open(self) -> bool:
        """Whether requests of any network get in."""
        return self.public_network_access == "Enabled" and self.default_action == "Allow"

    def update(self, options: str) -> str:
        """The command that changes it so."""
        return (
            f"az storage account update --name {shell_word(self.name)} --resource-group {shell_word(self.resource_group)} "
            f"--subscription {shell_word(self.subscription)} {options}"
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class _Finding:
    """Something about an account, with its remedy; `refuses` where the service's documents leave no doubt."""

    text: str
    refuses: bool


def find_account(arm: Arm, place: BlobUrl, subscriptions: Iterable[str]) -> tuple[StorageAccount | None, str]:
    """The storage account of a blob or container.

    Args:
        arm: through which it is asked for.
        subscriptions: in which it may be.

    Returns: the account; None where it is not found, and why that may be.
    Raises: TargetError where Azure Resource Manager cannot be asked.
    """
    from azure.core.exceptions import HttpResponseError

    why = []
    for subscription in subscriptions:
        path = f"/subscriptions/{quote(subscription, safe='')}/providers/Microsoft.Storage/storageAccounts?api-version={_API}"
        with translating_errors(f"the storage accounts of subscription {subscription}", arm.cloud):
            try:
                rows = arm.list_all(path)
            except HttpResponseError as e:
                if e.status_code is None or not 400 <= e.status_code < 500:
                    raise
                known = {403: "this identity may not", 404: "there is no such subscription"}
                why.append(f"those of subscription {subscription} cannot be listed ({known.get(e.status_code) or first_line(e)})")
                continue
        for row in rows:
            if _is_of(row, place):
                return _account(row), ""
        why.append(f"it is not among those of subscription {subscription} that this identity may read")
    return None, "; ".join(why)


def _is_of(row: dict[str, Any], place: BlobUrl) -> bool:
    """Whether an account has this blob, by the addresses of its blob service."""
    properties = _object(row.get("properties"))
    addresses = [_object(properties.get(name)).get("blob") for name in ("primaryEndpoints", "secondaryEndpoints")]
    if place.account.rstrip("/").lower() in [str(address).rstrip("/").lower() for address in addresses if address]:
        return True
    host = (urlsplit(place.account).hostname or "").lower()
    if host == str(_object(properties.get("customDomain")).get("name") or "").lower() != "":
        return True
    # by a private link's name
    return ".blob." in host and host.partition(".")[0] == str(row.get("name") or "").lower()


def _account(row: dict[str, Any]) -> StorageAccount:
    properties = _object(row.get("properties"))
    rules = _object(properties.get("networkAcls"))
    resources = rules.get("resourceAccessRules")
    parts = str(row.get("id") or "").split("/")
    names = dict(zip((part.lower() for part in parts[1::2]), parts[2::2], strict=False))
    return StorageAccount(
        id=str(row.get("id") or ""),
        name=str(row.get("name") or ""),
        subscription=names.get("subscriptions", ""),
        resource_group=names.get("resourcegroups", ""),
        location=str(row.get("location") or ""),
        kind=str(row.get("kind") or ""),
        public_network_access=str(properties.get("publicNetworkAccess") or "Enabled"),
        default_action=str(rules.get("defaultAction") or "Allow"),
        bypass=[each.strip() for each in str(rules.get("bypass") or "").split(",") if each.strip() not in ("", "None")],
        resource_rules=[str(_object(each).get("resourceId") or "") for each in resources] if isinstance(resources, list) else [],
        shared_keys=properties.get("allowSharedKeyAccess") is not False,
        hierarchical=properties.get("isHnsEnabled") is True,
    )


def _object(value: Any) -> dict[str, Any]:
    """What JSON has there, {} for anything else than an object."""
    return value if isinstance(value, dict) else {}


# -- what is in the way


def look_at_accounts(
    arm: Arm,
    cache: CacheState,
    target: Target,
    places: Sequence[BlobUrl],
    signer: Signer,
    *,
    verb: str,
    by_identity: bool,
    storage_subscription: str = "",
) -> tuple[list[StorageAccount], list[str]]:
    """The storage accounts of blobs, and warnings about them.

    Args:
        arm, cache, target: the cache, as it was read, and the service as this cache is one.
        places: of the blobs, or the container.
        signer: of the SAS that the service gets.
        verb: "import" or "export".
        by_identity: the cache uses its managed identity instead of a SAS.
        storage_subscription: where the accounts may be, besides the subscription of the cache.

    Raises: TargetError where the service documents that it cannot work so; ValueError as of `Credentials.service`.
    """
    accounts: list[StorageAccount] = []
    warnings: list[str] = []
    subscriptions = list(dict.fromkeys(each for each in (storage_subscription, arm.cache.subscription) if each))
    for place in {place.account: place for place in places}.values():
        try:
            account, why = find_account(arm, place, subscriptions)
        except TargetError as e:
            e.message += _INSIST
            raise
        if account is None:
            warnings.append(_unknown(place, why, storage_subscription))
            continue
        accounts.append(account)
        has_key = not by_identity and not account.shared_keys and signer.signs_with_key(place)
        for finding in _findings(account, arm, cache, target, verb, by_identity, has_key):
            if finding.refuses:
                raise TargetError(finding.text, source=place.account)
            warnings.append(finding.text)
    return accounts, warnings


def _unknown(place: BlobUrl, why: str, storage_subscription: str) -> str:
    hint = "" if storage_subscription else ", and --storage-subscription its subscription if that is another"
    return (
        f"the settings of the storage account {place.account} are not known: {why}. Whether its firewall, keys and region let the "
        f"cache in was not looked at; the role Reader on it allows that{hint}"
    )


def _findings(
    account: StorageAccount, arm: Arm, cache: CacheState, target: Target, verb: str, by_identity: bool, has_key: bool
) -> Iterator[_Finding]:
    yield from _of_network(account, cache, target, verb, by_identity)
    if has_key:
        yield _Finding(
            f"the storage account {account.name} takes no requests that are signed with its keys, and this SAS is: give neither a "
            f"key nor a SAS, so that an identity signs (az login), or run {account.update('--allow-shared-key-access true')}",
            True,
        )
    yield from _of_kind(account, target, verb)
    yield from _of_place(account, arm, cache, target, by_identity)


def _of_network(account: StorageAccount, cache: CacheState, target: Target, verb: str, by_identity: bool) -> Iterator[_Finding]:
    """Whether the cache gets at the account. Sources: the facts `storage_firewall`; see docs/import.md."""
    if account.is_open:
        return
    closed = (
        f"lets no public network in ({account.public_network_access})"
        if account.public_network_access != "Enabled"
        else "has a firewall"
    )
    what = f"the storage account {account.name} {closed}"
    opening = f"open it until the {verb} is done: {account.update('--public-network-access Enabled --default-action Allow')}"
    firewall = target.facts.get("storage_firewall")
    if firewall is None or firewall.value is None:
        yield _Finding(f"{what}, and no source says whether {target.title} gets through it; {opening}", False)
    elif not firewall.value:
        yield _Finding(f"{what}, which {target.title} does not support ({_said(firewall)}); {opening}{_INSIST}", True)
    elif not by_identity:
        yield _Finding(
            f"{what}, through which {target.title} gets with its managed identity alone ({_said(firewall)}): "
            f"--auth managed-identity; or {opening}{_INSIST}",
            True,
        )
    elif _TRUSTED not in account.bypass and cache.id.lower() not in [each.lower() for each in account.resource_rules]:
        letting = account.update(f"--bypass {' '.join(dict.fromkeys([*account.bypass, _TRUSTED]))}")
        yield _Finding(f"{what}, and trusted services do not get through it ({_said(firewall)}): run {letting}{_INSIST}", True)
    elif account.public_network_access != "Enabled":
        yield _Finding(f"{what}, and no source says whether trusted services get in then; if it fails, {opening}", False)


def _of_kind(account: StorageAccount, target: Target, verb: str) -> Iterator[_Finding]:
    """Whether the account is of a kind that is supported."""
    for is_so, kind, name in (
        (account.hierarchical, "has a hierarchical namespace (ADLS Gen2)", "exports_to_hierarchical_namespace"),
        (account.kind == "BlobStorage", "is of the kind BlobStorage", "exports_to_blob_storage"),
    ):
        if not is_so:
            continue
        what = f"the storage account {account.name} {kind}"
        fact = target.facts.get(name)
        if verb == "export" and fact is not None and fact.value is False:
            yield _Finding(
                f"{what}, to which {target.title} does not export ({_said(fact)}): take one of the kind StorageV2 without a "
                f"hierarchical namespace (az storage account create --kind StorageV2){_INSIST}",
                True,
            )
        else:
            way = "exports to" if verb == "export" else "imports from"
            yield _Finding(
                f"{what}, and no source says whether {target.title} {way} such: StorageV2 without ADLS Gen2 is safe", False
            )


def _of_place(account: StorageAccount, arm: Arm, cache: CacheState, target: Target, by_identity: bool) -> Iterator[_Finding]:
    """Whether region and subscription are those of the cache, where they have to be."""
    region = target.facts.get("same_region")
    there, here = _region(account.location), _region(cache.location)
    if region is not None and region.value is not False and there and here and there != here:
        yield _wanted(
            f"the storage account {account.name} is in {there}, and the cache in {here}", region,
            f"of one region: put the blobs into an account in {here}",
        )  # fmt: skip
    subscription = target.facts.get("same_subscription")
    if (
        subscription is not None and subscription.value is not False and not by_identity
        and account.subscription and account.subscription.lower() != arm.cache.subscription.lower()
    ):  # fmt: skip
        other = "--auth managed-identity, or " if "managed identity" in subscription.note else ""
        yield _wanted(
            f"the storage account {account.name} is in another subscription than the cache", subscription,
            f"of one subscription: {other}put the blobs into an account in that of the cache",
        )  # fmt: skip


def _wanted(what: str, fact: Fact, remedy: str) -> _Finding:
    """That the documents want something else; a refusal where they say it of this very service."""
    if fact.value is None:
        return _Finding(f"{what}; the documents wanted them to be {remedy} ({fact.note})", False)
    if fact.inferred:
        return _Finding(f"{what}; they may have to be {remedy} ({fact.note}, {_said(fact)})", False)
    return _Finding(f"{what}; they have to be {remedy} ({_said(fact)}){_INSIST}", True)


def _said(fact: Fact) -> str:
    return f"{fact.source}, {fact.date}" if fact.date else fact.source


def _region(location: str) -> str:
    """A region as commands have it: "westeurope" for "West Europe"."""
    return location.replace(" ", "").lower()

"""The cache of a plan, the storage account for its files, and who may use them, as a Bicep file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rdbkit.clouds import find_cloud
from rdbkit.operations.plan import Plan
from rdbkit.operations.plan_steps import PORT
from rdbkit.operations.plan_template import DESCRIPTIONS, Code, Resources, quoted, resources

__all__ = ["bicep"]

# Types of resources with the version of their API. Source: Azure/bicep-types-az; fixtures/templates/arm.toml has what they take.
_CLUSTER: Final = "Microsoft.Cache/redisEnterprise@2025-07-01"
_DATABASE: Final = "Microsoft.Cache/redisEnterprise/databases@2025-07-01"
_CLUSTER_ACCESS: Final = "Microsoft.Cache/redisEnterprise/databases/accessPolicyAssignments@2025-07-01"
_REDIS: Final = "Microsoft.Cache/redis@2024-11-01"
_REDIS_ACCESS: Final = "Microsoft.Cache/redis/accessPolicyAssignments@2024-11-01"
_STORAGE: Final = "Microsoft.Storage/storageAccounts@2024-01-01"
_BLOBS: Final = "Microsoft.Storage/storageAccounts/blobServices@2024-01-01"
_CONTAINER: Final = "Microsoft.Storage/storageAccounts/blobServices/containers@2024-01-01"
_ROLE: Final = "Microsoft.Authorization/roleAssignments@2022-04-01"
_ENDPOINT: Final = "Microsoft.Network/privateEndpoints@2024-05-01"
_ENDPOINT_ZONES: Final = "Microsoft.Network/privateEndpoints/privateDnsZoneGroups@2024-05-01"
_ZONE: Final = "Microsoft.Network/privateDnsZones@2024-06-01"
_ZONE_LINK: Final = "Microsoft.Network/privateDnsZones/virtualNetworkLinks@2024-06-01"
#: The id of the role Storage Blob Data Contributor, which is the same in every tenant.
_BLOB_ROLE_ID: Final = "ba92f5b4-2d11-453d-a403-e96b0029c9fe"
_ON: Final = {True: "Enabled", False: "Disabled"}

_Value = str | int | Mapping[str, "_Value"] | Sequence["_Value"]


def bicep(plan: Plan, *, private_endpoint: bool = False) -> str:
    """A Bicep file that creates the cache of a plan and the storage account, and lets one person, group or application in.

    Args:
        plan: of a service that takes new caches, with a size that holds the data.
        private_endpoint: reach the cache by a private endpoint in a subnet alone; the service still reads the storage account's
            files over its public address.

    Raises: ValueError where no size holds the data, no new cache can be created, or a name has bytes that are no text.

    >>> plan = rdbkit.plan(["fixtures/random/redis-6.2.16.rdb"], "azure-managed")
    >>> [line.split("'")[1] for line in bicep(plan).splitlines() if line.startswith("resource cache")]
    ['Microsoft.Cache/redisEnterprise@2025-07-01']
    """
    described, names = resources(plan), plan.names
    parameters = [
        _parameter("name", "name", names.cache),
        _parameter("location", "location", names.location or Code("resourceGroup().location")),
        _parameter("storageAccountName", "storage account", names.storage_account),
        _parameter("containerName", "container", names.container),
        _parameter("principalId", described.principal, Code("deployer().objectId")),
        "@allowed([\n  'User'\n  'Group'\n  'ServicePrincipal'\n])\n" + _parameter("principalType", "principal type", "User"),
    ]
    if private_endpoint:
        parameters += [_parameter("subnetId", "subnet", ""), _parameter("privateDnsZone", "zone", _zone(described))]
    parts = [
        f"// {described.title}\n// az deployment group create --resource-group GROUP --template-file FILE",
        *parameters,
        *(_premium(described, private_endpoint) if described.premium else _managed(plan, described, private_endpoint)),
        *_storage(described),
        *(_private_endpoint(described) if private_endpoint else ()),
        *_outputs(described),
    ]
    return "\n\n".join(parts) + "\n"


def _managed(plan: Plan, described: Resources, private_endpoint: bool) -> list[str]:
    """The cluster of an Azure Managed Redis, its database, and who may log in."""
    database: dict[str, _Value] = {
        "clientProtocol": "Encrypted",
        "port": PORT,
        "clusteringPolicy": plan.clustering,
        "evictionPolicy": described.eviction,
        "accessKeysAuthentication": _ON[plan.access_keys],
    }
    if plan.modules:
        database["modules"] = [{"name": name} for name in plan.modules]
    parts = [
        _resource("cache", _CLUSTER, {
            "name": Code("name"),
            "location": Code("location"),
            "sku": {"name": described.sku},
            "properties": {
                "highAvailability": _ON[plan.high_availability],
                "minimumTlsVersion": "1.2",
                "publicNetworkAccess": _ON[not private_endpoint],
            },
        }),
        _resource("database", _DATABASE, {"parent": Code("cache"), "name": "default", "properties": database}),
    ]  # fmt: skip
    if described.policy:
        access: _Value = {"accessPolicyName": described.policy, "user": {"objectId": Code("principalId")}}
        name = Code("replace(principalId, '-', '')")
        parts.append(_resource("access", _CLUSTER_ACCESS, {"parent": Code("database"), "name": name, "properties": access}))
    return parts


def _premium(described: Resources, private_endpoint: bool) -> list[str]:
    """An Azure Cache for Redis, and who may log in."""
    configuration: dict[str, _Value] = {"aad-enabled": "true"}
    if described.databases is not None:
        configuration["databases"] = str(described.databases)
    properties: dict[str, _Value] = {
        "sku": {"name": "Premium", "family": described.sku[0], "capacity": int(described.sku[1:])},
        "redisConfiguration": configuration,
        "enableNonSslPort": False,
        "minimumTlsVersion": "1.2",
        "publicNetworkAccess": _ON[not private_endpoint],
    }
    if described.shards is not None:
        properties["shardCount"] = described.shards
    return [
        _resource("cache", _REDIS, {
            "name": Code("name"),
            "location": Code("location"),
            "identity": {"type": "SystemAssigned"},
            "properties": properties,
        }),
        _resource("access", _REDIS_ACCESS, {
            "parent": Code("cache"),
            "name": Code("principalId"),
            "properties": {
                "accessPolicyName": described.policy,
                "objectId": Code("principalId"),
                "objectIdAlias": Code("principalId"),
            },
        }),
    ]  # fmt: skip


def _storage(described: Resources) -> list[str]:
    """The storage account with its container, and who may write there; a cache of Premium may read there by its own identity."""
    parts = [
        _resource("storage", _STORAGE, {
            "name": Code("storageAccountName"),
            "location": Code("location"),
            "kind": "StorageV2",
            "sku": {"name": "Standard_LRS"},
            "properties": {
                "allowBlobPublicAccess": False,
                "allowSharedKeyAccess": False,
                "minimumTlsVersion": "TLS1_2",
                "publicNetworkAccess": "Enabled",
                "supportsHttpsTrafficOnly": True,
            },
        }),
        _resource("blobs", _BLOBS, {"parent": Code("storage"), "name": "default"}),
        _resource("container", _CONTAINER, {"parent": Code("blobs"), "name": Code("containerName")}),
        f"var blobRole = subscriptionResourceId('Microsoft.Authorization/roleDefinitions', '{_BLOB_ROLE_ID}')",
        _role("uploads", "principalId", "principalId", Code("principalType")),
    ]  # fmt: skip
    if described.premium:
        parts.append(_role("cacheReads", "cache.id", "cache.identity.principalId", "ServicePrincipal"))
    return parts


def _role(symbol: str, unique: str, principal: str, kind: str) -> str:
    return _resource(symbol, _ROLE, {
        "scope": Code("storage"),
        "name": Code(f"guid(storage.id, {unique}, blobRole)"),
        "properties": {"roleDefinitionId": Code("blobRole"), "principalId": Code(principal), "principalType": kind},
    })  # fmt: skip


def _private_endpoint(described: Resources) -> list[str]:
    """The endpoint in the subnet, and the zone by which its network finds it."""
    connection = {"privateLinkServiceId": Code("cache.id"), "groupIds": [described.group]}
    zone: _Value = {"name": "cache", "properties": {"privateDnsZoneId": Code("zone.id")}}
    endpoint: dict[str, _Value] = {
        "name": Code("name"),
        "location": Code("location"),
        "properties": {
            "subnet": {"id": Code("subnetId")},
            "privateLinkServiceConnections": [{"name": "cache", "properties": connection}],
        },
    }
    # a cache takes one change at a time
    endpoint["dependsOn"] = [Code("access" if described.policy else "database")]
    return [
        _resource("endpoint", _ENDPOINT, endpoint),
        _resource("zone", _ZONE, {"name": Code("privateDnsZone"), "location": "global"}),
        _resource("zoneLink", _ZONE_LINK, {
            "parent": Code("zone"),
            "name": Code("name"),
            "location": "global",
            "properties": {
                "registrationEnabled": False,
                "virtualNetwork": {"id": Code("join(take(split(subnetId, '/'), 9), '/')")},
            },
        }),
        _resource("endpointZones", _ENDPOINT_ZONES, {
            "parent": Code("endpoint"),
            "name": "default",
            "properties": {"privateDnsZoneConfigs": [zone]},
        }),
    ]  # fmt: skip


def _zone(described: Resources) -> str:
    """The name of the private DNS zone in the cloud of the deployment; of a cloud whose name is not known it has to be said."""
    zones = {find_cloud(cloud).name: zone for cloud, zone in described.zones.items()}
    return Code(f"{_text(zones)}[environment().name]")


def _outputs(described: Resources) -> list[str]:
    port = "int = cache.properties.sslPort" if described.premium else "int = database.properties.port"
    return [
        f"output hostName string = cache.properties.hostName\noutput port {port}\n"
        "output blobEndpoint string = storage.properties.primaryEndpoints.blob"
    ]


# -- the language


def _parameter(name: str, what: str, value: str) -> str:
    """A parameter, whose default is `value` unless that is empty."""
    default = f" = {_text(value)}" if value else ""
    return f"@description({_text(DESCRIPTIONS[what])})\nparam {name} string{default}"


def _resource(symbol: str, kind: str, body: dict[str, _Value]) -> str:
    return f"resource {symbol} '{kind}' = {_text(body)}"


def _text(value: _Value, depth: int = 0) -> str:
    """A value in Bicep, `depth` levels in."""
    indent = "  " * (depth + 1)
    match value:
        case Code():
            return str(value)
        case str():
            return quoted(value, "'", {"${": "\\${"}, "\\u{{{:x}}}")
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case Mapping():
            lines = [f"{_key(key)}: {_text(each, depth + 1)}" for key, each in value.items()]
            begin, end = "{", "}"
        case _:
            lines = [_text(each, depth + 1) for each in value]
            begin, end = "[", "]"
    return "\n".join([begin, *(f"{indent}{line}" for line in lines), f"{indent[2:]}{end}"])


def _key(name: str) -> str:
    return name if name.isidentifier() else _text(name)

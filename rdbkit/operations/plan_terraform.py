"""The cache of a plan, the storage account for its files, and who may use them, as a Terraform file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from rdbkit.operations.plan import Plan
from rdbkit.operations.plan_template import BLOB_ROLE, DESCRIPTIONS, Code, Resources, quoted, resources

__all__ = ["terraform"]

#: The releases of the provider azurerm that take this file. fixtures/templates/azurerm.toml has the arguments of the first one.
_VERSION: Final = "~> 5.10"
_ON: Final = {True: "Enabled", False: "Disabled"}

_Value = str | int | None | Mapping[str, "_Value"] | Sequence["_Value"]


@dataclass
class _Block:
    """A block: its head, arguments, and the blocks in it."""

    head: str
    arguments: dict[str, _Value] = field(default_factory=dict)
    blocks: list[_Block] = field(default_factory=list)


def terraform(plan: Plan, *, private_endpoint: bool = False) -> str:
    """A Terraform file that creates the cache of a plan and the storage account, and lets one person, group or application in.

    Args:
        plan: of a service that takes new caches, with a size that holds the data.
        private_endpoint: reach the cache by a private endpoint in a subnet alone; the service still reads the storage account's
            files over its public address.

    Raises: ValueError where no size holds the data, no new cache can be created, the provider cannot ask for what the data needs,
        or a name has bytes that are no text.

    >>> plan = rdbkit.plan(["fixtures/random/redis-6.2.16.rdb"], "azure-managed")
    >>> [line for line in terraform(plan).splitlines() if "sku_name" in line]
    ['  sku_name                  = "Balanced_B0"']
    """
    described, names = resources(plan), plan.names
    if described.databases is not None:
        raise ValueError(
            f"keys are in database {max(plan.databases)}, and Terraform's azurerm_redis_cache cannot ask for more than 16"
            " databases, as a Bicep file can"
        )
    variables = [
        _variable("name", "name", names.cache),
        _variable("resource_group_name", "resource group", names.resource_group),
        _variable("location", "location", names.location or None, "by default that of the resource group"),
        _variable("storage_account_name", "storage account", names.storage_account),
        _variable("container_name", "container", names.container),
        _variable("principal_id", described.principal, None, "by default of who runs Terraform"),
        _variable("principal_type", "principal type", "User"),
        _variable("subscription_id", "subscription", None, "by default that of ARM_SUBSCRIPTION_ID"),
        _variable("environment", "environment", plan.cloud),
    ]
    if private_endpoint:
        variables += [
            _variable("subnet_id", "subnet", ""),
            _variable("private_dns_zone", "zone", None, "by default that of the cloud, where it is known"),
        ]
    blocks = [
        _settings(),
        _provider(private_endpoint),
        *variables,
        _Block('data "azurerm_client_config" "current"'),
        _Block('data "azurerm_resource_group" "group"', {"name": Code("var.resource_group_name")}),
        _LOCALS,
        *(_premium(described, private_endpoint) if described.premium else _managed(plan, described, private_endpoint)),
        *_storage(described),
        *(_private_endpoint(described) if private_endpoint else ()),
        *_outputs(described),
    ]
    return "\n\n".join([f"# {described.title}\n# terraform init && terraform apply", *map(_text_of_block, blocks)]) + "\n"


def _settings() -> _Block:
    provider: _Value = {"source": "hashicorp/azurerm", "version": _VERSION}
    return _Block("terraform", blocks=[_Block("required_providers", {"azurerm": provider})])


def _provider(private_endpoint: bool) -> _Block:
    used = ["Microsoft.Cache", "Microsoft.Storage"] + ["Microsoft.Network"] * private_endpoint
    return _Block(
        'provider "azurerm"',
        {
            "subscription_id": Code("var.subscription_id"),
            "environment": Code("var.environment"),
            "storage_use_azuread": True,  # for shared keys are off
            "resource_providers_to_register": used,  # the provider registers none by itself
        },
        [_Block("features")],
    )


_LOCALS: Final = _Block(
    "locals",
    {
        "location": Code("coalesce(var.location, data.azurerm_resource_group.group.location)"),
        "principal_id": Code("coalesce(var.principal_id, data.azurerm_client_config.current.object_id)"),
    },
)
#: Where every resource that is not part of another one is.
_PLACE: Final[dict[str, _Value]] = {
    "resource_group_name": Code("data.azurerm_resource_group.group.name"),
    "location": Code("local.location"),
}


def _managed(plan: Plan, described: Resources, private_endpoint: bool) -> list[_Block]:
    """An Azure Managed Redis with its database, and who may log in."""
    database = _Block(
        "default_database",
        {
            "client_protocol": "Encrypted",
            "clustering_policy": plan.clustering,
            "eviction_policy": described.eviction,
            "access_keys_authentication_enabled": plan.access_keys,
        },
        [_Block("module", {"name": name}) for name in plan.modules],
    )
    cache = _Block(
        'resource "azurerm_managed_redis" "cache"',
        {
            "name": Code("var.name"),
            **_PLACE,
            "sku_name": described.sku,
            "high_availability_enabled": plan.high_availability,
            "public_network_access": _ON[not private_endpoint],
        },
        [database],
    )
    access = _Block(
        f'resource "{_access(described)}" "access"',
        {"managed_redis_id": Code("azurerm_managed_redis.cache.id"), "object_id": Code("local.principal_id")},
    )
    return [cache, access] if described.policy else [cache]


def _premium(described: Resources, private_endpoint: bool) -> list[_Block]:
    """An Azure Cache for Redis, and who may log in."""
    arguments: dict[str, _Value] = {
        "name": Code("var.name"),
        **_PLACE,
        "sku_name": "Premium",
        "family": described.sku[0],
        "capacity": int(described.sku[1:]),
        "non_ssl_port_enabled": False,
        "minimum_tls_version": "1.2",
        "public_network_access_enabled": not private_endpoint,
    }
    if described.shards is not None:
        arguments["shard_count"] = described.shards
    identity = _Block("identity", {"type": "SystemAssigned"})
    configuration = _Block("redis_configuration", {"active_directory_authentication_enabled": True})
    access = _Block(
        f'resource "{_access(described)}" "access"',
        {
            "name": Code("local.principal_id"),
            "redis_cache_id": Code("azurerm_redis_cache.cache.id"),
            "access_policy_name": described.policy,
            "object_id": Code("local.principal_id"),
            "object_id_alias": Code("local.principal_id"),
        },
    )
    return [_Block('resource "azurerm_redis_cache" "cache"', arguments, [identity, configuration]), access]


def _storage(described: Resources) -> list[_Block]:
    """The storage account with its container, and who may write there; a cache of Premium may read there by its own identity."""
    blocks = [
        _Block(
            'resource "azurerm_storage_account" "storage"',
            {
                "name": Code("var.storage_account_name"),
                **_PLACE,
                "account_tier": "Standard",
                "account_replication_type": "LRS",
                "min_tls_version": "TLS1_2",
                "public_network_access": "Enabled",
                "shared_access_key_enabled": False,
            },
        ),
        _Block(
            'resource "azurerm_storage_container" "container"',
            {"name": Code("var.container_name"), "storage_account_id": Code("azurerm_storage_account.storage.id")},
        ),
        _role("uploads", "local.principal_id", Code("var.principal_type")),
    ]
    if described.premium:
        blocks.append(_role("cache_reads", "azurerm_redis_cache.cache.identity[0].principal_id", "ServicePrincipal"))
    return blocks


def _role(name: str, principal: str, kind: str) -> _Block:
    return _Block(
        f'resource "azurerm_role_assignment" "{name}"',
        {
            "scope": Code("azurerm_storage_account.storage.id"),
            "role_definition_name": BLOB_ROLE,
            "principal_id": Code(principal),
            "principal_type": kind,
        },
    )


def _private_endpoint(described: Resources) -> list[_Block]:
    """The endpoint in the subnet, and the zone by which its network finds it."""
    connection = _Block(
        "private_service_connection",
        {
            "name": "cache",
            "private_connection_resource_id": Code(f"{_cache(described)}.id"),
            "subresource_names": [described.group],
            "is_manual_connection": False,
        },
    )
    zone = Code("azurerm_private_dns_zone.zone.id")
    zones = _Block("private_dns_zone_group", {"name": "default", "private_dns_zone_ids": [zone]})
    endpoint: dict[str, _Value] = {"name": Code("var.name"), **_PLACE, "subnet_id": Code("var.subnet_id")}
    if described.policy:
        endpoint["depends_on"] = [Code(f"{_access(described)}.access")]  # a cache takes one change at a time
    name = Code("coalesce(var.private_dns_zone, lookup(local.private_dns_zones, var.environment, null))")
    return [
        _Block("locals", {"private_dns_zones": described.zones}),
        _Block('resource "azurerm_private_endpoint" "endpoint"', endpoint, [connection, zones]),
        _Block(
            'resource "azurerm_private_dns_zone" "zone"',
            {"name": name, "resource_group_name": _PLACE["resource_group_name"]},
        ),
        _Block(
            'resource "azurerm_private_dns_zone_virtual_network_link" "network"',
            {
                "name": Code("var.name"),
                "private_dns_zone_id": zone,
                "virtual_network_id": Code('join("/", slice(split("/", var.subnet_id), 0, 9))'),
            },
        ),
    ]


def _outputs(described: Resources) -> Iterable[_Block]:
    port = "ssl_port" if described.premium else "default_database[0].port"
    yield _Block('output "hostname"', {"value": Code(f"{_cache(described)}.hostname")})
    yield _Block('output "port"', {"value": Code(f"{_cache(described)}.{port}")})
    yield _Block('output "blob_endpoint"', {"value": Code("azurerm_storage_account.storage.primary_blob_endpoint")})


def _cache(described: Resources) -> str:
    return "azurerm_redis_cache.cache" if described.premium else "azurerm_managed_redis.cache"


def _access(described: Resources) -> str:
    return f"azurerm_{'redis_cache' if described.premium else 'managed_redis'}_access_policy_assignment"


# -- the language


def _variable(name: str, what: str, value: str | None, by_default: str = "") -> _Block:
    """A variable, whose default is `value` unless that is empty."""
    description = "; ".join(filter(None, (DESCRIPTIONS[what], by_default)))
    arguments: dict[str, _Value] = {"type": Code("string"), "description": description}
    if value != "":
        arguments["default"] = value
    return _Block(f'variable "{name}"', arguments)


def _text_of_block(block: _Block, depth: int = 0) -> str:
    """A block as `terraform fmt` writes it, `depth` levels in."""
    indent = "  " * (depth + 1)
    parts = [_arguments(block.arguments, depth + 1)] if block.arguments else []
    parts += [f"{indent}{_text_of_block(each, depth + 1)}" for each in block.blocks]
    body = "\n\n".join(parts)
    return f"{block.head} {{\n{body}\n{indent[2:]}}}" if parts else f"{block.head} {{}}"


def _arguments(values: Mapping[str, _Value], depth: int) -> str:
    """Arguments, a line each, with their equals signs below each other."""
    indent, width = "  " * depth, max(map(len, values))
    return "\n".join(f"{indent}{name:{width}} = {_text(value, depth)}" for name, value in values.items())


def _text(value: _Value, depth: int) -> str:
    """A value in Terraform's language, `depth` levels in."""
    match value:
        case Code():
            return str(value)
        case str():
            # not $${, before which another dollar sign would still begin an expression
            return quoted(value, '"', {"${": "\\u0024{", "%{": "\\u0025{"}, "\\u{:04x}")
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int():
            return str(value)
        case Mapping():
            return f"{{\n{_arguments(value, depth + 1)}\n{'  ' * depth}}}"
        case _:
            return f"[{', '.join(_text(each, depth) for each in value)}]"

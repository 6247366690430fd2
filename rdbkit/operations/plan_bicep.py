"""The cache of a plan as a Bicep file."""

from __future__ import annotations

from typing import Final

from rdbkit.operations.plan import Plan
from rdbkit.operations.plan_steps import PORT, SEARCH
from rdbkit.text import size

__all__ = ["bicep"]

#: Source: Azure/azure-rest-api-specs, redisenterprise 2025-07-01.
_API: Final = "2025-07-01"


def bicep(found: Plan) -> str:
    """The cache of a plan as a Bicep file.

    Raises: ValueError where no size holds the data, or no new cache can be created.
    """
    if found.chosen is None:
        raise ValueError("there is no size to describe")
    if not any(step.title == "Create the cache" for step in found.steps) or found.target == "azure-premium":
        raise ValueError(f"{found.title} takes no new caches, so there is nothing to describe")
    eviction = "NoEviction" if SEARCH in found.modules else "VolatileLRU"
    available = "Enabled" if found.high_availability else "Disabled"
    modules = "".join(f"\n      {{\n        name: '{name}'\n      }}" for name in found.modules)
    name = f" = {_literal(found.names.cache)}" if found.names.cache else ""
    location = _literal(found.names.location) if found.names.location else "resourceGroup().location"
    return f"""// {found.title} for {found.keys:,} keys: {size(found.needed_bytes)} with {found.growth:.0%} to grow
@description('Name of the cache')
param name string{name}

@description('Where it stands')
param location string = {location}

resource cache 'Microsoft.Cache/redisEnterprise@{_API}' = {{
  name: name
  location: location
  sku: {{
    name: '{found.chosen.name}'
  }}
  properties: {{
    highAvailability: '{available}'
    minimumTlsVersion: '1.2'
    publicNetworkAccess: 'Enabled'
  }}
}}

resource database 'Microsoft.Cache/redisEnterprise/databases@{_API}' = {{
  parent: cache
  name: 'default'
  properties: {{
    clientProtocol: 'Encrypted'
    port: {PORT}
    clusteringPolicy: '{found.clustering}'
    evictionPolicy: '{eviction}'{f"{chr(10)}    modules: [{modules}{chr(10)}    ]" if modules else ""}
  }}
}}

output hostName string = cache.properties.hostName
output port int = {PORT}
"""


def _literal(text: str) -> str:
    """A string of Bicep."""
    for special, escaped in (("\\", "\\\\"), ("'", "\\'"), ("${", "\\${"), ("\n", "\\n"), ("\r", "\\r")):
        text = text.replace(special, escaped)
    return f"'{text}'"

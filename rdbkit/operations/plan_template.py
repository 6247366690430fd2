"""What the Bicep file and the Terraform file of a plan have in common: which resources, what they are set to, who may use them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Final

from rdbkit.operations.plan import Plan
from rdbkit.operations.plan_steps import SEARCH, databases_to_ask_for
from rdbkit.text import size

__all__ = ["BLOB_ROLE", "DESCRIPTIONS", "Code", "Resources", "quoted", "resources"]

#: The role that whoever uploads a file needs on the storage account.
BLOB_ROLE: Final = "Storage Blob Data Contributor"
#: What is said of the parameters of a template.
DESCRIPTIONS: Final = {
    "name": "Name of the cache",
    "location": "Region of the cache and of the storage account",
    "storage account": "Name of the storage account for the files, a new one: what one of this name is set to would be replaced",
    "container": "Name of the container in it",
    "uploader": "Object id, in Microsoft Entra ID, of who uploads the files",
    "principal": "Object id, in Microsoft Entra ID, of who uploads the files and logs in to the cache",
    "principal type": "What that is: User, Group or ServicePrincipal",
    "subnet": "Id of the subnet for the private endpoint, in the same region",
    "zone": "Private DNS zone of the cache",
    "resource group": "Resource group, which is there already",
    "subscription": "Id of the subscription",
    "environment": "Azure's cloud: public, usgovernment or china",
}
#: Private DNS zones of the services by cloud, as azurerm calls it: of Managed Redis only the one of the public cloud is documented.
#: Source: Azure docs, private-link/private-endpoint-dns.
_ZONES: Final = {
    "azure-managed": {"public": "privatelink.redis.azure.net"},
    "azure-premium": {
        "public": "privatelink.redis.cache.windows.net",
        "usgovernment": "privatelink.redis.cache.usgovcloudapi.net",
        "china": "privatelink.redis.cache.chinacloudapi.cn",
    },
}


class Code(str):
    """An expression in the language of a template; every other text stands there as a literal."""


@dataclass(frozen=True)
class Resources:
    """What a template creates, and what its resources are set to.

    Attributes:
        premium: an Azure Cache for Redis of the tier Premium, else an Azure Managed Redis.
        title: one line for the top of the file.
        sku: the size as the service's interfaces call it.
        principal: which of `DESCRIPTIONS` says who is let in.
        policy: what that one may do in the cache, by the service's own name for it; empty where clients log in with access keys.
        group: what a private endpoint connects to.
        zones: its private DNS zones, by the names that azurerm has for clouds.
        shards: how many, None where that is not chosen.
        databases: how many to ask for, None for as many as there are unless one asks.
        eviction: the eviction policy of a database that is created.
    """

    premium: bool
    title: str
    sku: str
    principal: str
    policy: str
    group: str
    zones: dict[str, str]
    shards: int | None
    databases: int | None
    eviction: str


def resources(found: Plan) -> Resources:
    """What a template for a plan creates.

    Raises: ValueError where no size holds the data, or no new cache can be created.
    """
    if found.chosen is None:
        raise ValueError("there is no size to describe")
    if found.target not in _ZONES:
        raise ValueError(f"{found.title} takes no new caches, so there is nothing to describe")
    title = " ".join(found.title.split())  # of a targets file, it could be anything
    premium = found.target == "azure-premium"
    entra = premium or not found.access_keys  # a cache of Premium has both ways in
    clustered = found.clustering == "cluster"
    return Resources(
        premium=premium,
        title=f"{title} for {found.keys:,} keys: {size(found.needed_bytes)} with {found.growth:.0%} to grow",
        sku=found.chosen.name,
        principal="principal" if entra else "uploader",
        policy="Data Owner" if premium else "default" if entra else "",
        group="redisCache" if premium else "redisEnterprise",
        zones=_ZONES[found.target],
        shards=found.chosen.shards if clustered else None,
        databases=databases_to_ask_for(found),
        eviction="NoEviction" if SEARCH in found.modules else "VolatileLRU",
    )


def quoted(text: str, quote: str, escapes: dict[str, str], unicode: str) -> str:
    """A literal: `quote`, backslashes and control characters escaped, the sequences of `escapes` as told there.

    `unicode` is the form of an escaped code point. Raises: ValueError for text that has bytes which are no characters.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{json.dumps(text)} has bytes that are no text") from None
    special = {"\\": "\\\\", quote: f"\\{quote}", "\n": "\\n", "\r": "\\r", "\t": "\\t"} | escapes
    pattern = "|".join(map(re.escape, special)) + r"|[\x00-\x1f\x7f-\x9f\u2028\u2029]"
    return quote + re.sub(pattern, lambda m: special.get(m[0]) or unicode.format(ord(m[0])), text) + quote

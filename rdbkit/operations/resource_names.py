"""How Azure's resources may be called: the rules of their names, so that no command is printed that the service refuses."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from rdbkit.storage.blob_url import CONTAINER
from rdbkit.targets.target import Target
from rdbkit.text import printable

__all__ = ["Names", "check_names"]

# Sources: of caches the pattern of `clusterName` in Azure/azure-rest-api-specs, redisenterprise 2025-07-01; of the others Azure's
# docs, azure-resource-manager/management/resource-name-rules, read 2026-11-30.
_CACHE: Final = re.compile(r"[A-Za-z0-9]+(-[A-Za-z0-9]+)*")
#: The longest names of caches, by target; the others are of the API redisEnterprise.
_LONGEST_CACHE: Final = {"azure-premium": 63}
_LONGEST: Final = 60
_GROUP: Final = re.compile(r"[-\w.()]{0,89}[-\w()]")
_REGION: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9 ]*")
_ACCOUNT: Final = re.compile(r"[a-z0-9]{3,24}")
_SOURCE: Final = re.compile(
    r"(?i)/subscriptions/[0-9a-f-]{36}/resourceGroups/[-\w.()]{1,90}/providers/Microsoft\.Cache/redis/[a-z0-9-]{1,63}"
)


@dataclass(frozen=True)
class Names:
    """What things are called in the commands; what is not said stays a variable of the shell.

    Attributes:
        source_cache: resource id of the Basic, Standard or Premium cache that the files are of, whose host name is to lead to the
            new cache in the end.
    """

    cache: str = ""
    resource_group: str = ""
    location: str = ""
    storage_account: str = ""
    container: str = ""
    source_cache: str = ""


def check_names(names: Names, target: Target) -> None:
    """See to it that Azure takes the names that are given.

    Raises: ValueError for the first that it refuses.
    """
    longest = _LONGEST_CACHE.get(target.name, _LONGEST)
    rules = (
        (
            "cache", names.cache, len(names.cache) <= longest and _CACHE.fullmatch(names.cache),
            f"1 to {longest} letters (a to z) and digits, with single hyphens between them",
        ),
        (
            "resource group", names.resource_group, _GROUP.fullmatch(names.resource_group),
            "1 to 90 letters, digits, hyphens, underscores, parentheses and periods, the last of which is no period",
        ),
        ("region", names.location, _REGION.fullmatch(names.location), "letters, digits and spaces"),
        ("storage account", names.storage_account, _ACCOUNT.fullmatch(names.storage_account), "3 to 24 small letters and digits"),
        (
            # that of the logs is made by the service alone
            "container", names.container, names.container != "$logs" and CONTAINER.fullmatch(names.container),
            "3 to 63 small letters and digits, with single hyphens between them",
        ),
    )  # fmt: skip
    for what, name, allowed, rule in rules:
        if name and not allowed:
            raise ValueError(f"{printable(name, 80)} cannot be the name of a {what}: {rule}")
    if names.source_cache:
        if target.name != "azure-managed":
            raise ValueError(f"{target.title} takes over no host name of another cache")
        if not _SOURCE.fullmatch(names.source_cache):
            raise ValueError(
                f"{printable(names.source_cache, 80)} is not the resource id of a Basic, Standard or Premium cache:"
                " /subscriptions/ID/resourceGroups/GROUP/providers/Microsoft.Cache/redis/NAME"
            )

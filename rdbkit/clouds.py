"""The clouds of Azure, each with hosts and identities of its own: data in clouds.toml beside this loader."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

__all__ = ["Cloud", "cloud_of_host", "clouds", "find_cloud"]


@dataclass(frozen=True, slots=True)
class Cloud:
    """One cloud of Azure.

    Attributes:
        word: "public", "usgovernment" or "china".
        title: for humans.
        name: as `az cloud list` has it.
        resource_manager: the endpoint of Azure Resource Manager, a URL without a path.
        resource_manager_scope: of the tokens for it.
        authority: the URL of Entra ID, which gives out tokens.
        storage: what the hosts of its storage accounts end with, after ".blob.".
        storage_scope, redis_scope: of the tokens for storage accounts and caches.
        premium, managed, enterprise: what the hosts of its caches end with; empty where no source says.
    """

    word: str
    title: str
    name: str
    resource_manager: str
    resource_manager_scope: str
    authority: str
    storage: str
    storage_scope: str
    redis_scope: str
    premium: str
    managed: str
    enterprise: str = ""

    @property
    def token_authority(self) -> str:
        """Who gives out tokens: what the environment says (AZURE_AUTHORITY_HOST), or the cloud's own."""
        return os.environ.get("AZURE_AUTHORITY_HOST") or self.authority

    @property
    def sign_in(self) -> str:
        """The commands of Azure CLI by which somebody signs in there: it is in one cloud at a time.

        >>> find_cloud("public").sign_in, find_cloud("china").sign_in
        ('az login', 'az cloud set --name AzureChinaCloud && az login')
        """
        return "az login" if self is clouds()[0] else f"az cloud set --name {self.name} && az login"

    def has_host(self, host: str) -> bool:
        """Whether a host is one of a storage account or cache of this cloud."""
        return any(host.lower().rstrip(".").endswith(f".{each}") for each in self._suffixes)

    @property
    def _suffixes(self) -> Iterable[str]:
        return filter(None, (f"blob.{self.storage}", self.premium, self.managed, self.enterprise))


@cache
def clouds() -> tuple[Cloud, ...]:
    """All that are known, the public one first."""
    import tomllib

    with open(os.path.join(os.path.dirname(__file__), "clouds.toml"), "rb") as file:
        found = tomllib.load(file)["clouds"]
    return tuple(
        Cloud(word, **{key: fact["value"] if isinstance(fact, dict) else fact for key, fact in facts.items()})
        for word, facts in found.items()
    )


def find_cloud(word: str) -> Cloud:
    """The cloud of this word or name, in any letter case.

    Raises: ValueError, naming those that are known.

    >>> find_cloud("AzureUSGovernment").word, find_cloud("china").resource_manager
    ('usgovernment', 'https://management.chinacloudapi.cn')
    """
    for each in clouds():
        if word.lower() in (each.word, each.name.lower()):
            return each
    known = ", ".join(f"{each.word} ({each.name})" for each in clouds())
    raise ValueError(f"{word!r} is no cloud that is known here; known: {known}")


def cloud_of_host(host: str) -> Cloud | None:
    """The cloud whose storage account or cache a host is; None for another host, as one of an own domain.

    >>> cloud_of_host("shop.blob.core.usgovcloudapi.net").word, cloud_of_host("localhost")
    ('usgovernment', None)
    """
    return next((each for each in clouds() if each.has_host(host)), None)

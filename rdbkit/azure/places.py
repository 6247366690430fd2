"""Where a blob is, and with which credentials it is reached."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from rdbkit.azure.failures import missing_package

_SCOPE: Final = "https://storage.azure.com/.default"
_NAMES: Final = ("localhost", "127.0.0.1", "host.docker.internal")


@dataclass(frozen=True)
class Place:
    """A blob, or a container or folder where `blob` is empty or ends with a slash.

    Attributes:
        account: URL of the account's blob service.
        container, blob: their names.
        sas: the query of the URL, without its question mark; never to be shown.
    """

    account: str
    container: str
    blob: str
    sas: str = ""

    def __repr__(self) -> str:
        return f"Place({self.url!r})"

    @property
    def url(self) -> str:
        """The address without any secret."""
        return "/".join(part for part in (self.account.rstrip("/"), self.container, quote(self.blob)) if part)

    @property
    def is_folder(self) -> bool:
        """Whether it names no blob."""
        return not self.blob or self.blob.endswith("/")

    def file(self, name: str) -> Place:
        """The blob of this name in it."""
        return Place(self.account, self.container, self.blob + name, self.sas)


def parse_place(url: str) -> Place:
    """The place that a URL names.

    Args:
        url: `https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB`, with a SAS behind a question mark or without; the account's
            name stands in the path for an emulator.

    Raises: ValueError.

    >>> parse_place("https://a.blob.core.windows.net/dumps/a/b.rdb?sv=1&sig=x")
    Place('https://a.blob.core.windows.net/dumps/a/b.rdb')
    >>> parse_place("http://127.0.0.1:10000/devstoreaccount1/dumps/").is_folder
    True
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a blob's URL begins with https:// and the account's name")
    names = parts.path.lstrip("/").split("/")
    account = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    if parts.hostname in _NAMES or parts.hostname.replace(".", "").isdigit():
        account += f"/{names.pop(0)}"
    container = names.pop(0) if names else ""
    if not container:
        raise ValueError("the URL names no container: https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB")
    return Place(account, container, unquote("/".join(names)), parts.query)


@dataclass(frozen=True)
class Credentials:
    """What opens an account; by default, what the environment and the machine have.

    Attributes:
        connection_string: of the account; by default AZURE_STORAGE_CONNECTION_STRING.
        sas: a shared access signature; by default that of the URL, and AZURE_STORAGE_SAS_TOKEN.
        key: the account's key; by default AZURE_STORAGE_KEY.
        token: of the class that azure-identity has; by default DefaultAzureCredential, where nothing else is given.
    """

    connection_string: str | None = None
    sas: str | None = None
    key: str | None = None
    token: Any = None

    def __repr__(self) -> str:
        return "Credentials(...)"

    def service(self, place: Place, **settings: Any) -> Any:
        """A `BlobServiceClient` of the account of `place`.

        Raises: TargetError where the packages are missing; ValueError for a connection string of another account.
        """
        try:
            from azure.storage.blob import BlobServiceClient
        except ImportError as e:
            raise missing_package(e) from None
        text = self.connection_string or os.environ.get("AZURE_STORAGE_CONNECTION_STRING")
        sas = self.sas or place.sas or os.environ.get("AZURE_STORAGE_SAS_TOKEN")
        key = self.key or os.environ.get("AZURE_STORAGE_KEY")
        if text and (self.connection_string or not (place.sas or self.sas or self.key or self.token)):
            try:
                service = BlobServiceClient.from_connection_string(text, **settings)
            except ValueError as e:
                raise ValueError(f"the connection string cannot be read: {e}") from None
            if service.url.split("?")[0].rstrip("/") != place.account.rstrip("/"):
                raise ValueError(f"the connection string is of another account than {place.url}")
            return service
        if self.token is not None:
            return BlobServiceClient(place.account, credential=self.token, **settings)
        if self.sas or place.sas:
            return BlobServiceClient(place.account, credential=sas.lstrip("?") if sas else None, **settings)
        if key:
            return BlobServiceClient(place.account, credential=key, **settings)
        if sas:
            return BlobServiceClient(place.account, credential=sas.lstrip("?"), **settings)
        try:
            from azure.identity import DefaultAzureCredential
        except ImportError as e:
            raise missing_package(e) from None
        if place.account.startswith("http:"):
            raise ValueError("an identity works over https alone: give a connection string, a SAS or a key")
        token = DefaultAzureCredential()
        token.get_token(_SCOPE)  # or there is nothing to try
        return BlobServiceClient(place.account, credential=token, **settings)

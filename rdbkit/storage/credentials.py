"""What opens a storage account: which of a signature, a key, a connection string and an identity is taken."""

from __future__ import annotations

import base64
import os
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from rdbkit.clouds import Cloud, clouds, find_cloud
from rdbkit.errors import TargetError
from rdbkit.storage.blob_url import BlobUrl
from rdbkit.storage.identity import default_credential, without_identity


@dataclass(frozen=True)
class Access:
    """What was chosen to open an account: one of a signature, a key and an identity.

    Attributes:
        sas: without its question mark; never to be shown.
        key: of the account; never to be shown.
        account: the account's name, which a key signs with; empty where the URL does not have it.
        token: of the class that azure-identity has.
        scope: what its tokens are for.
    """

    sas: str = ""
    key: str = ""
    account: str = ""
    token: Any = None
    scope: str = ""

    def __repr__(self) -> str:
        return "Access(...)"


@dataclass(frozen=True)
class Credentials:
    """What opens an account; by default, what the environment and the machine have.

    Attributes:
        connection_string: of the account; by default AZURE_STORAGE_CONNECTION_STRING.
        sas: a shared access signature; by default that of the URL, and AZURE_STORAGE_SAS_TOKEN.
        key: the account's key; by default AZURE_STORAGE_KEY.
        token: of the class that azure-identity has; by default DefaultAzureCredential, where nothing else is given.
        cloud: whose identities DefaultAzureCredential is of, where the blob's host does not say it; by default the public one.
    """

    connection_string: str | None = None
    sas: str | None = None
    key: str | None = None
    token: Any = None
    cloud: str | Cloud | None = None

    def __repr__(self) -> str:
        return "Credentials(...)"

    def access(self, place: BlobUrl) -> Access:
        """What opens the account of `place`.

        Raises: TargetError where a package is missing, or no identity is found; ValueError for a connection string of another
            account, for a key that is none, and where something would be sent to a host that only looks like one of Azure.
        """
        text = self._connection_string(place)
        if text:
            return _of_connection_string(text, place)
        if self.token is not None or self.sas or not place.sas:  # the URL's own SAS is for whom it names
            _check_host(place)
        if self.token is not None:
            return Access(account=place.account_name, token=self.token, scope=(place.cloud or find_cloud("public")).storage_scope)
        given_sas = self.sas or place.sas
        key = self.key or os.environ.get("AZURE_STORAGE_KEY")
        if key and not given_sas:
            _check_key(key, "the key" if self.key else "AZURE_STORAGE_KEY")
            if not place.account_name:
                raise ValueError(
                    "a key takes a URL that has the account's name: https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB"
                )
            return Access(key=key, account=place.account_name)
        sas = given_sas or os.environ.get("AZURE_STORAGE_SAS_TOKEN")
        if sas:
            return Access(sas=sas.lstrip("?"), account=place.account_name)
        return _identity(place, self.cloud)

    def _connection_string(self, place: BlobUrl) -> str | None:
        """The one that was given; where nothing was, that of the environment."""
        if self.connection_string or place.sas or self.sas or self.key or self.token:
            return self.connection_string
        return os.environ.get("AZURE_STORAGE_CONNECTION_STRING")


def _of_connection_string(text: str, place: BlobUrl) -> Access:
    pairs = [part.strip().partition("=") for part in text.split(";") if part.strip()]
    found = {name.strip().lower(): value for name, sign, value in pairs if sign}
    name, key, sas = (found.get(each, "") for each in ("accountname", "accountkey", "sharedaccesssignature"))
    if len(found) < len(pairs) or not (key or sas) or not (name or found.get("blobendpoint")):
        raise ValueError(
            "the connection string cannot be read: it takes AccountName or BlobEndpoint, and AccountKey or SharedAccessSignature"
        )
    suffix = found.get("endpointsuffix", "core.windows.net")
    endpoint = found.get("blobendpoint") or f"{found.get('defaultendpointsprotocol', 'https')}://{name}.blob.{suffix}"
    if endpoint.partition("?")[0].rstrip("/").lower() != place.account.rstrip("/").lower():
        raise ValueError(f"the connection string is of another account than {place.url}")
    if key:
        _check_key(key, "AccountKey in the connection string")
        return Access(key=key, account=name or place.account_name)
    return Access(sas=sas.lstrip("?"), account=name or place.account_name)


def _identity(place: BlobUrl, given: str | Cloud | None) -> Access:
    """What azure-identity finds.

    Raises: TargetError where its package is missing, or it finds nothing; ValueError for a URL that it is not sent to.
    """
    cloud = place.cloud or given or "public"
    if isinstance(cloud, str):
        cloud = find_cloud(cloud)
    token = default_credential(cloud)
    if place.account.startswith("http:"):
        raise ValueError("an identity works over https alone: give a connection string, a SAS or a key")
    from azure.core.exceptions import AzureError

    try:
        token.get_token(cloud.storage_scope)  # or there is nothing to try
    except AzureError as e:
        raise TargetError(without_identity(e, cloud, is_storage=True), source=place.url) from None
    return Access(account=place.account_name, token=token, scope=cloud.storage_scope)


def _check_host(place: BlobUrl) -> None:
    """Raise ValueError for a host that only looks like one of Azure: whoever has it would get what opens accounts."""
    host = (urlsplit(place.account).hostname or "").lower()
    if place.cloud is None and any(f".blob.{each.storage}." in host for each in clouds()):
        raise ValueError(f"{host} is no host of Azure, and no credentials are sent to it: compare the URL, or put a SAS into it")


def _check_key(key: str, what: str) -> None:
    """Raise ValueError for a text that cannot be an account's key."""
    try:
        base64.b64decode(key.strip(), validate=True)
    except ValueError:
        raise ValueError(f"{what} is no account key, which is base64") from None

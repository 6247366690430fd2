"""Where a blob is, and with which credentials it is reached."""

from __future__ import annotations

import base64
import ipaddress
import os
import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

from rdbkit.azure.errors import missing_package, translating_errors
from rdbkit.azure.identity import default_credential
from rdbkit.operations.resource_names import CONTAINER
from rdbkit.targets.clouds import Cloud, cloud_of_host, find_cloud
from rdbkit.text import valid_text

_NAMES: Final = ("localhost", "127.0.0.1", "host.docker.internal")
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
_KEY_IN_STRING: Final = re.compile(r"(?i)(?:^|;)\s*AccountKey=([^;]*)")


@dataclass(frozen=True)
class BlobUrl:
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
        return f"BlobUrl({self.url!r})"

    @property
    def url(self) -> str:
        """The address without any secret."""
        return "/".join(part for part in (self.account.rstrip("/"), self.container, quote(self.blob)) if part)

    @property
    def cloud(self) -> Cloud | None:
        """The cloud that it is in, by its host; None where that does not say."""
        return cloud_of_host(urlsplit(self.account).hostname or "")

    @property
    def is_folder(self) -> bool:
        """Whether it names no blob."""
        return not self.blob or self.blob.endswith("/")

    def file(self, name: str) -> BlobUrl:
        """The blob of this name in it.

        Raises: ValueError for a name whose bytes are not UTF-8.
        """
        if valid_text(name) != name:
            raise ValueError(f"{valid_text(name)}: a blob's name is UTF-8, and this file's is not; let the URL name the blob")
        return BlobUrl(self.account, self.container, self.blob + name, self.sas)


def parse_place(url: str, allow_http: bool = False) -> BlobUrl:
    """The place that a URL names.

    Args:
        url: `https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB`, with a SAS behind a question mark or without; the account's
            name stands in the path for an emulator.
        allow_http: take http:// for any host. Without, only for this machine: signatures and the snapshot itself are readable on
            their way.

    Raises: ValueError.

    >>> parse_place("https://a.blob.core.windows.net/dumps/a/b.rdb?sv=1&sig=x")
    BlobUrl('https://a.blob.core.windows.net/dumps/a/b.rdb')
    >>> parse_place("http://127.0.0.1:10000/devstoreaccount1/dumps/").is_folder
    True
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # whose words can have what precedes the host
        raise ValueError("the URL's host or port is not valid") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("a blob's URL begins with https:// and the account's name")
    if port == 0 or not _HOST.fullmatch(parts.hostname):
        raise ValueError("the URL's host or port is not valid")
    if parts.scheme == "http" and not allow_http and not _is_loopback(parts.hostname):
        raise ValueError(
            "http:// shows everybody on the way the snapshot and what opens the account: use https://, or allow http:// where the "
            "network is trusted"
        )
    names = parts.path.lstrip("/").split("/")
    account = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
    if parts.hostname in _NAMES or parts.hostname.replace(".", "").isdigit():
        account += f"/{names.pop(0)}"
    container = unquote(names.pop(0)) if names else ""
    if not container:
        raise ValueError("the URL names no container: https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB")
    if not CONTAINER.fullmatch(container):
        raise ValueError(
            f"{valid_text(container)} is no container's name, which has 3 to 63 small letters, digits and single hyphens: "
            "https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB"
        )
    try:
        blob = unquote("/".join(names), errors="strict")
        blob.encode()
    except UnicodeError:
        raise ValueError("the blob's name in the URL is not UTF-8") from None
    return BlobUrl(account, container, blob, parts.query)


def _is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


@dataclass(frozen=True)
class Credentials:
    """What opens an account; by default, what the environment and the machine have.

    Attributes:
        connection_string: of the account; by default AZURE_STORAGE_CONNECTION_STRING.
        sas: a shared access signature; by default that of the URL, and AZURE_STORAGE_SAS_TOKEN.
        key: the account's key; by default AZURE_STORAGE_KEY.
        token: of the class that azure-identity has; by default DefaultAzureCredential, where nothing else is given.
        cloud: whose identities DefaultAzureCredential is of; by default that of the blob, and the public one where its host does
            not say.
    """

    connection_string: str | None = None
    sas: str | None = None
    key: str | None = None
    token: Any = None
    cloud: str | Cloud | None = None

    def __repr__(self) -> str:
        return "Credentials(...)"

    def service(self, place: BlobUrl, **settings: Any) -> Any:
        """A `BlobServiceClient` of the account of `place`.

        Raises: TargetError where the packages are missing, or no identity is found; ValueError for a connection string of another
            account, and for a key that is none.
        """
        client_class = _client_class()
        text = self._connection_string(place)
        if text:
            return _by_connection_string(client_class, text, place, settings)
        given_sas = self.sas or place.sas
        sas = given_sas or os.environ.get("AZURE_STORAGE_SAS_TOKEN")
        key = self.key or os.environ.get("AZURE_STORAGE_KEY")
        if self.token is not None:
            credential = self.token
        elif key and not given_sas:
            _check_key(key, "the key" if self.key else "AZURE_STORAGE_KEY")
            return _by_key(client_class, key, place, settings)
        else:
            credential = sas.lstrip("?") if sas else _identity(place, self.cloud)
        return client_class(place.account, credential=credential, **settings)

    def _connection_string(self, place: BlobUrl) -> str | None:
        """The one that was given; where nothing was, that of the environment."""
        if self.connection_string or place.sas or self.sas or self.key or self.token:
            return self.connection_string
        return os.environ.get("AZURE_STORAGE_CONNECTION_STRING")


def _client_class() -> Any:
    """`BlobServiceClient`. Raises: TargetError where the packages are missing."""
    try:
        from azure.storage.blob import BlobServiceClient
    except ImportError as e:
        raise missing_package(e) from None
    return BlobServiceClient


def _by_connection_string(client_class: Any, text: str, place: BlobUrl, settings: dict[str, Any]) -> Any:
    found = _KEY_IN_STRING.search(text)
    if found is not None:
        _check_key(found[1], "AccountKey in the connection string")
    try:
        service = client_class.from_connection_string(text, **settings)
    except ValueError as e:
        raise ValueError(f"the connection string cannot be read: {e}") from None
    if service.url.split("?")[0].rstrip("/") != place.account.rstrip("/"):
        raise ValueError(f"the connection string is of another account than {place.url}")
    return service


def _by_key(client_class: Any, key: str, place: BlobUrl, settings: dict[str, Any]) -> Any:
    try:
        return client_class(place.account, credential=key, **settings)
    except ValueError:
        raise ValueError(
            "a key takes a URL that has the account's name: https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB"
        ) from None


def _identity(place: BlobUrl, given: str | Cloud | None) -> Any:
    """What azure-identity finds.

    Raises: TargetError where its package is missing, or it finds nothing; ValueError for a URL that it is not sent to.
    """
    cloud = given or place.cloud or "public"
    if isinstance(cloud, str):
        cloud = find_cloud(cloud)
    token = default_credential(cloud)
    if place.account.startswith("http:"):
        raise ValueError("an identity works over https alone: give a connection string, a SAS or a key")
    with translating_errors(place.url):
        token.get_token(cloud.storage_scope)  # or there is nothing to try
    return token


def _check_key(key: str, what: str) -> None:
    """Raise ValueError for a text that cannot be an account's key."""
    try:
        base64.b64decode(key.strip(), validate=True)
    except ValueError:
        raise ValueError(f"{what} is no account key, which is base64") from None

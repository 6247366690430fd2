"""The blob service as a store that objects are read from: what opens it, and what its errors mean."""

from __future__ import annotations

import datetime
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

from rdbkit.clouds import cloud_of_host
from rdbkit.errors import RdbError, TargetError
from rdbkit.storage.blob_errors import MEANINGS
from rdbkit.storage.blob_url import EMULATORS, BlobUrl, is_loopback, parse_place
from rdbkit.storage.credentials import Access, Credentials
from rdbkit.storage.store_client import check_key, check_package, client_options, code_of, retry_config, translated
from rdbkit.storage.store_settings import StoreSettings

if TYPE_CHECKING:
    from obstore.store import AzureCredential, AzureStore

#: What other hosts of the service end with than those of its clouds: accounts in DNS zones, and emulators.
_OTHERS: Final = (".blob.storage.azure.net", ".blob.localhost")
_SHAPE: Final = "https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB"
#: What other tools call a blob; the rest of it is as in the service's own URL.
_AZ: Final = re.compile(r"az://([^/?#]*)(.*)", re.IGNORECASE | re.DOTALL)
_ABFS: Final = re.compile(r"abfss?://([^/?#@]+)@([a-z0-9-]+)\.dfs\.([^/?#@]+)(.*)", re.IGNORECASE | re.DOTALL)
_ACCOUNT: Final = "AZURE_STORAGE_ACCOUNT_NAME"
_ACCOUNT_NAME: Final = re.compile(r"[a-z0-9]{3,24}")
#: What of a query names a state of a blob, other than what it has now.
_REVISIONS: Final = ("snapshot", "versionid")
#: What reading wants, where writing wants something else.
_READING: Final = {
    "ContainerNotFound": "there is no such container; check the URL",
    "BlobNotFound": "there is no such blob; check the URL",
    "ResourceNotFound": "there is no such blob; check the URL",
    "AuthorizationPermissionMismatch": (
        "the identity or the SAS may not read it; it takes the role Storage Blob Data Reader, or a SAS with read"
    ),
    "InsufficientAccountPermissions": "the identity may not read it; it takes the role Storage Blob Data Reader",
    "ConditionNotMet": "the blob was changed or replaced while it was read; run this again",
}
_REFUSED: Final = {"403": "the request is not allowed: a firewall, a missing role, or an expired SAS"}
#: The account that the emulator has by itself.
_EMULATED: Final = "devstoreaccount1"
#: Variables with what opens an account; where they are set, a server on this machine is an emulator.
_OPENERS: Final = ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN")


def is_blob(url: str) -> bool:
    """Whether an address over HTTP is one of the blob service: by its host, or by its signature.

    >>> is_blob("https://a.blob.core.windows.net/dumps/b.rdb"), is_blob("https://example.com/b.rdb")
    (True, False)
    """
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    if host in EMULATORS or is_loopback(host):
        return parts.path.startswith(f"/{_EMULATED}/") or any(os.environ.get(name) for name in _OPENERS) or _has_signature(url)
    return cloud_of_host(host) is not None or host.endswith(_OTHERS) or _has_signature(url)


def parse_blob(url: str, allow_http: bool = False) -> BlobUrl:
    """The blob that a URL names, which may be sent what opens the account. A snapshot or version of one is a blob of its own.

    Args:
        allow_http: as for `parse_place`.

    Raises: ValueError for a URL that names no blob, and for one of a host that is not known for the service's, without a SAS.

    >>> parse_blob("https://a.blob.core.windows.net/dumps/b.rdb?sig=x")
    BlobUrl('https://a.blob.core.windows.net/dumps/b.rdb')
    >>> parse_blob("abfss://dumps@a.dfs.core.windows.net/b.rdb")
    BlobUrl('https://a.blob.core.windows.net/dumps/b.rdb')
    """
    url = _service_url(url)
    host = (urlsplit(url).hostname or "").lower()
    is_known = cloud_of_host(host) is not None or host.endswith(_OTHERS) or host in EMULATORS or is_loopback(host)
    if not is_known and not _has_signature(url):  # nobody else is sent the token of an identity
        raise ValueError(f"a FILE with a URL is a blob: {_SHAPE}; one of another host takes a SAS in its URL")
    place = parse_place(url, allow_http)
    if place.is_folder:
        raise ValueError(f"the URL names a container or folder: name one blob, {_SHAPE}")
    pairs = place.sas.split("&") if place.sas else []
    revision = "&".join(pair for pair in pairs if pair.partition("=")[0].lower() in _REVISIONS)
    return replace(place, sas="&".join(pair for pair in pairs if pair not in revision.split("&")), revision=revision)


def _service_url(url: str) -> str:
    """The service's own URL of a blob that may be named as other tools name it. Raises: ValueError."""
    found = _AZ.fullmatch(url)
    if found:
        account = os.environ.get(_ACCOUNT, "")
        if not _ACCOUNT_NAME.fullmatch(account):
            raise ValueError(f"az://CONTAINER/BLOB takes the account's name, 3 to 24 small letters and digits, in {_ACCOUNT}")
        return f"https://{account}.blob.core.windows.net/{found[1]}{found[2]}"
    if not url.lower().startswith("abfs"):
        return url
    found = _ABFS.fullmatch(url)
    if not found:
        raise ValueError(
            "an abfss:// URL has the container's name, then @ and the account's host (ACCOUNT.dfs.core.windows.net), then the blob"
        )
    return f"https://{found[2]}.blob.{found[3]}/{found[1]}{found[4]}"


def _has_signature(url: str) -> bool:
    return any(name == "sig" for name, _ in parse_qsl(urlsplit(url).query))


class Blob:
    """A blob, and what opens it.

    Attributes:
        place: where it is.
        name: by which it is known.
        key: its name in the container.
        base_name: the last part of that.
        settings: how its store is reached.
    """

    noun: Final = "blob"

    def __init__(self, place: BlobUrl, credentials: Credentials, settings: StoreSettings) -> None:
        self.place = place
        self.name = place.url
        self.key = place.blob
        self.base_name = place.blob.rpartition("/")[2]
        self._credentials = credentials
        self.settings = settings
        self._access: Access | None = None

    def open(self, *, patient: bool) -> AzureStore:
        """A store that has it; nothing is asked yet. Raises: TargetError where nothing opens it."""
        check_key(self.key, self.place.url)
        check_package(self.place.url)
        if self._access is None:
            try:
                self._access = Access() if self.settings.anonymous else self._credentials.access(self.place)
            except ValueError as e:
                raise TargetError(str(e), source=self.place.url) from None
        return open_store(self.place, self._access, self.settings, patient=patient)

    def forget(self) -> None:
        """Choose again what opens it, when it is opened next: what was chosen did not."""
        self._access = None

    def reached(self, settings: StoreSettings) -> Blob:
        """The same blob, whose store is reached in another way."""
        return Blob(self.place, self._credentials, settings)

    def is_empty(self, e: Exception) -> bool:
        """Whether an error says that a range is behind the end, as every range of an empty blob is.

        Azurite answers with the range from 0 to -1 instead, which the store cannot read.
        """
        return code_of(e) == "InvalidRange" or "bytes 0--1/0" in str(e)

    def meta(self, store: AzureStore) -> Any:
        """What the service knows of the blob. Raises: as the store."""
        import obstore

        return obstore.head(store, self.key)

    def translated(self, e: Exception) -> RdbError:
        """An error of the store, in words."""
        return translated(e, self.name, {**MEANINGS, **_READING}, _REFUSED)


def open_store(place: BlobUrl, access: Access, settings: StoreSettings, *, patient: bool) -> AzureStore:
    """A store that reads the container of `place`; nothing is asked yet.

    Args:
        access: of `Credentials.access`; not looked at where nothing is to be sent.
        patient: wait up to ten minutes for a service that does not answer; otherwise some seconds, as a name may be wrong.

    Raises: ImportError where `check_package` was not asked; TargetError for a snapshot or version of a blob without a SAS.
    """
    from obstore.store import AzureStore

    if place.revision and not access.sas:  # the library has no other way to ask for it
        raise TargetError("a snapshot or version of a blob takes a SAS, in the URL or AZURE_STORAGE_SAS_TOKEN", source=place.url)
    # All that the library takes from the environment by itself is said here; or a key of another account would win over a SAS.
    config: dict[str, Any] = {
        "account_name": access.account or "account",  # which a signature does not need
        "endpoint": place.account,
        "use_emulator": False,
        "use_fabric_endpoint": False,
        "skip_signature": settings.anonymous,
        **settings.options,
    }
    return AzureStore(
        place.container,
        config=config,  # type: ignore[arg-type]  # the names are a user's
        client_options=client_options(allow_http=place.account.startswith("http:")),
        retry_config=retry_config(patient=patient),
        credential_provider=None if settings.anonymous else lambda: _credential(access, place.revision),
    )


def _credential(access: Access, revision: str) -> AzureCredential:
    if access.key:
        return {"access_key": access.key, "expires_at": None}
    if access.sas:
        return {"sas_token": f"{access.sas}&{revision}" if revision else access.sas, "expires_at": None}
    token: Any = access.token.get_token(access.scope)
    return {"token": token.token, "expires_at": datetime.datetime.fromtimestamp(token.expires_on, datetime.UTC)}

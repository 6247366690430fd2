"""The blob service as a store that objects are read from: what opens it, how long is waited for it, and what its errors mean."""

from __future__ import annotations

import datetime
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, urlsplit

from rdbkit.clouds import cloud_of_host
from rdbkit.errors import ChangedError, RdbError, TargetError
from rdbkit.storage.blob_errors import MEANINGS
from rdbkit.storage.blob_url import EMULATORS, BlobUrl, is_loopback, parse_place
from rdbkit.storage.credentials import Access
from rdbkit.text import first_line

if TYPE_CHECKING:
    from obstore.store import AzureCredential, AzureStore, ClientConfig, RetryConfig

_INSTALL: Final = "pip install 'rdbkit[remote]'"
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
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_CODE: Final = re.compile(r"<Code>(\w+)</Code>")
_STATUS: Final = re.compile(r"status code: (\d+)")
_UNKNOWN_HOST: Final = re.compile(r"dns error|failed to lookup address|Name or service not known|No such host", re.IGNORECASE)
_CERTIFICATE: Final = re.compile(r"InvalidCertificate\(\s*(\w+)")
#: What is the matter with a certificate, by how the reason begins.
_REASONS: Final = {
    "Expired": "it has expired",
    "NotValidYet": "it is not valid yet; is the clock right",
    "NotValidForName": "it is of another host",
    "UnknownIssuer": "its issuer is not known; REQUESTS_CA_BUNDLE names a file of authorities to trust",
}
_TIMED_OUT: Final = re.compile(r"TimedOut|timed out|deadline has elapsed", re.IGNORECASE)
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
_CHANGED: Final = "ConditionNotMet"
#: A request, with its answer, is given up after this and sent again.
_TIMEOUT: Final = "120s"
_CONNECT_TIMEOUT: Final = "10s"
#: Variables that name a file of certificates to trust; the packages of Azure obey them, too.
_AUTHORITIES: Final = ("REQUESTS_CA_BUNDLE", "SSL_CERT_FILE")
#: Seconds after which no request is sent again, once an object is open and before.
_PATIENCE: Final = 600
_SECONDS: Final = 15


def parse_blob(url: str) -> BlobUrl:
    """The blob that a URL names, which may be sent what opens the account. A snapshot or version of one is a blob of its own.

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
    if url.lower().startswith("http:") and not is_loopback(host):
        raise ValueError("http:// shows everybody on the way the snapshot and what opens the account: use https://")
    place = parse_place(url)
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


def check_name(place: BlobUrl) -> None:
    """Raise TargetError for a name that the library does not take, or takes for another one, as it does with a slash in front."""
    if any(part in ("", ".", "..") for part in place.blob.split("/")) or _CONTROL.search(place.blob):
        raise TargetError(
            "a blob whose name begins with a slash, or has an empty part (//), one of dots alone, or control characters, "
            "cannot be read",
            source=place.url,
        )


def check_package(url: str) -> None:
    """Raise TargetError where the package is missing."""
    try:
        import obstore.store  # noqa: F401 (it may fail)
    except ImportError:
        raise TargetError(f"to read a blob takes a package: {_INSTALL}", source=url) from None


def open_store(place: BlobUrl, access: Access, *, patient: bool) -> AzureStore:
    """A store that reads the container of `place`; nothing is asked yet.

    Args:
        access: of `Credentials.access`.
        patient: wait up to ten minutes for a service that does not answer; otherwise some seconds, as a name may be wrong.

    Raises: ImportError where `check_package` was not asked; TargetError for a snapshot or version of a blob without a SAS.
    """
    from obstore.store import AzureStore

    if place.revision and not access.sas:  # the library has no other way to ask for it
        raise TargetError("a snapshot or version of a blob takes a SAS, in the URL or AZURE_STORAGE_SAS_TOKEN", source=place.url)
    retry: RetryConfig = {
        "max_retries": 60 if patient else 3,
        "retry_timeout": datetime.timedelta(seconds=_PATIENCE if patient else _SECONDS),
        "backoff": {
            "init_backoff": datetime.timedelta(milliseconds=500),
            "max_backoff": datetime.timedelta(seconds=5),
            "base": 2,
        },
    }
    # All that the library takes from the environment by itself is said here; or a key of another account would win over a SAS.
    return AzureStore(
        place.container,
        config={
            "account_name": access.account or "account",  # which a signature does not need
            "endpoint": place.account,
            "use_emulator": False,
            "use_fabric_endpoint": False,
            "skip_signature": False,
        },
        client_options=_client_options(place),
        retry_config=retry,
        credential_provider=lambda: _credential(access, place.revision),
    )


def _client_options(place: BlobUrl) -> ClientConfig:
    options: ClientConfig = {
        "allow_http": place.account.startswith("http:"),
        "timeout": _TIMEOUT,
        "connect_timeout": _CONNECT_TIMEOUT,
    }
    for name in _AUTHORITIES:
        path = os.environ.get(name)
        if path and os.path.isfile(path):
            with open(path, "rb") as file:
                options["root_certificate"] = file.read()
            break
    return options


def _credential(access: Access, revision: str) -> AzureCredential:
    if access.key:
        return {"access_key": access.key, "expires_at": None}
    if access.sas:
        return {"sas_token": f"{access.sas}&{revision}" if revision else access.sas, "expires_at": None}
    token: Any = access.token.get_token(access.scope)
    return {"token": token.token, "expires_at": datetime.datetime.fromtimestamp(token.expires_on, datetime.UTC)}


def is_empty(e: Exception) -> bool:
    """Whether an error says that a range is behind the end, as every range of an empty blob is.

    Azurite answers with the range from 0 to -1 instead, which the store cannot read.
    """
    return _code(e) == "InvalidRange" or "bytes 0--1/0" in str(e)


def translated(e: Exception, url: str) -> RdbError:
    """An error of the store, in words.

    Args:
        url: of the blob, without a secret.
    """
    said = str(e)
    code, status = _code(e), _STATUS.search(said)
    if code or status:
        known = _READING.get(code) or MEANINGS.get(code)
        shown = " ".join(part for part in (status[1] if status else "", code) if part)
        if known is None and shown.startswith("403"):
            known = "the request is not allowed: a firewall, a missing role, or an expired SAS"
        kind = ChangedError if code == _CHANGED else TargetError
        return kind(f"{known} ({shown})" if known else f"the service refuses it ({shown})", source=url)
    return TargetError(_unreached(said, url), source=url)


def _code(e: Exception) -> str:
    found = _CODE.search(str(e))
    return found[1] if found else ""


def _unreached(said: str, url: str) -> str:
    """Why there is no answer."""
    if _UNKNOWN_HOST.search(said):
        host = urlsplit(url).hostname
        return f"the host {host} cannot be found; check the account's name, and whether this machine finds others"
    found = _CERTIFICATE.search(said)
    if found:
        why = next((text for name, text in _REASONS.items() if found[1].startswith(name)), found[1])
        return f"the certificate of the service is not accepted: {why}"
    if _TIMED_OUT.search(said):
        return "the service cannot be reached: it took too long"
    if "onnection refused" in said:
        return "the service cannot be reached: connection refused"
    if "External Azure credential provider: " in said:
        return f"there is no token for it: {first_line(Exception(said.partition('provider: ')[2]))}"
    if "Interrupted" in said or "UnexpectedEof" in said:
        return "the service cannot be reached: the connection broke"
    return f"the service cannot be reached: {first_line(Exception(said))}"

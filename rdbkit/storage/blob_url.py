"""Where a blob is: URLs of the blob service."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from rdbkit.clouds import Cloud, cloud_of_host
from rdbkit.text import valid_text

#: Hosts that an emulator has.
EMULATORS: Final = ("localhost", "127.0.0.1", "host.docker.internal")
_PORTS: Final = {"https": 443, "http": 80}
_HOST: Final = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+")
#: Of the service, and the containers that it makes itself.
CONTAINER: Final = re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]|\$root|\$web|\$logs")


@dataclass(frozen=True)
class BlobUrl:
    """A blob, or a container or folder where `blob` is empty or ends with a slash.

    Attributes:
        account: URL of the account's blob service.
        container, blob: their names.
        sas: the query of the URL, without its question mark; never to be shown.
        revision: which state of the blob is meant, as `snapshot=TIME` or `versionid=TIME`; empty for what it has now.
    """

    account: str
    container: str
    blob: str
    sas: str = ""
    revision: str = ""

    def __repr__(self) -> str:
        return f"BlobUrl({self.url!r})"

    @property
    def url(self) -> str:
        """The address without any secret."""
        address = "/".join(part for part in (self.account.rstrip("/"), self.container, quote(self.blob)) if part)
        return f"{address}?{self.revision}" if self.revision else address

    @property
    def account_name(self) -> str:
        """The account's name, where the URL has it; otherwise empty.

        >>> parse_place("https://a.blob.core.windows.net/dumps").account_name
        'a'
        """
        parts = urlsplit(self.account)
        if is_emulator(parts.hostname or ""):
            return parts.path.strip("/")
        name, sign, _ = (parts.hostname or "").partition(".")
        return name.removesuffix("-secondary") if sign and ".blob." in (parts.hostname or "") else ""

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
    if parts.scheme == "http" and not allow_http and not is_loopback(parts.hostname):
        raise ValueError(
            "http:// shows everybody on the way the snapshot and what opens the account: use https://, or allow http:// where the "
            "network is trusted"
        )
    if parts.fragment:
        raise ValueError("the URL has a #, which ends what names the blob: write %23")
    names = parts.path.lstrip("/").split("/")
    host = parts.netloc.rpartition("@")[2].lower().removesuffix(f":{_PORTS[parts.scheme]}")
    account = f"{parts.scheme}://{host}"  # of all that is written for it, one
    if is_emulator(parts.hostname):
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


def is_emulator(host: str) -> bool:
    """Whether a host is one whose URLs have the account's name in their paths: that of an emulator, or an address."""
    return host in EMULATORS or host.replace(".", "").isdigit()


def is_loopback(host: str) -> bool:
    """Whether a host is this machine, by its name."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")

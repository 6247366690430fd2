"""Where an object is: URLs of buckets, of containers, and of whatever a server of HTTP has."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from rdbkit.storage.blob_store import is_blob, parse_blob
from rdbkit.storage.blob_url import BlobUrl
from rdbkit.storage.store_settings import StoreSettings, check_encrypted
from rdbkit.text import valid_text

_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")
_BUCKETS: Final = {"s3": "s3://BUCKET/KEY", "gs": "gs://BUCKET/KEY"}
#: Parts of the query of a presigned URL.
_SIGNED: Final = re.compile(r"x-(amz|goog)-.*|awsaccesskeyid|googleaccessid|key-pair-id|policy|signature|expires", re.IGNORECASE)
_PORTS: Final = {"https": 443, "http": 80}


@dataclass(frozen=True)
class ObjectUrl:
    """An object of S3, of Google Cloud Storage, or of a server of HTTP.

    Attributes:
        scheme: "s3", "gs", "https" or "http".
        bucket: its name; of HTTP, scheme, host and port.
        key: the object's name in it, as it is; of HTTP, the path as it is written, without the slash in front.
        query: what stands behind the question mark, of HTTP alone; never to be shown.
    """

    scheme: str
    bucket: str
    key: str
    query: str = ""

    def __repr__(self) -> str:
        return f"ObjectUrl({self.url!r})"

    @property
    def url(self) -> str:
        """The address without any secret."""
        return f"{self.bucket}/{self.key}" if self.is_http else f"{self.scheme}://{self.bucket}/{self.key}"

    @property
    def is_http(self) -> bool:
        """Whether it is of a server of HTTP, about which nothing else is known."""
        return self.scheme.startswith("http")

    @property
    def unsigned_query(self) -> str:
        """What of the query is no part of a signature."""
        pairs = self.query.split("&") if self.query else []
        return "&".join(pair for pair in pairs if not _SIGNED.fullmatch(pair.partition("=")[0]))

    @property
    def base_name(self) -> str:
        """The last part of its name."""
        name = self.key.rpartition("/")[2]
        return unquote(name) if self.is_http else name


def parse_object(url: str, settings: StoreSettings) -> BlobUrl | ObjectUrl:
    """The object that a URL names.

    Raises: ValueError for a URL that names none, or whose host would be sent it unencrypted.

    >>> parse_object("s3://dumps/2026/a.rdb", StoreSettings())
    ObjectUrl('s3://dumps/2026/a.rdb')
    >>> parse_object("abfss://dumps@shop.dfs.core.windows.net/a.rdb", StoreSettings())
    BlobUrl('https://shop.blob.core.windows.net/dumps/a.rdb')
    >>> parse_object("https://example.com/a.rdb?token=x", StoreSettings())
    ObjectUrl('https://example.com/a.rdb')
    """
    scheme, _, rest = url.partition("://")
    scheme = scheme.lower()
    if scheme in _BUCKETS:
        return _in_bucket(scheme, rest)
    if scheme == "az" and settings.endpoint:
        url = f"{settings.endpoint.rstrip('/')}/{rest}"
    elif scheme.startswith("http") and not is_blob(url):
        return _over_http(url, settings)
    return parse_blob(url, settings.allow_http)


def _in_bucket(scheme: str, rest: str) -> ObjectUrl:
    bucket, _, key = rest.partition("/")
    shape = _BUCKETS[scheme]
    if not _BUCKET.fullmatch(bucket):
        raise ValueError(f"the URL names no bucket, which has letters, digits, hyphens and dots: {shape}")
    if not key or key.endswith("/"):
        raise ValueError(f"the URL names a bucket or folder: name one object, {shape}")
    if valid_text(key) != key:
        raise ValueError("the object's name in the URL is not UTF-8")
    return ObjectUrl(scheme, bucket, key)


def _over_http(url: str, settings: StoreSettings) -> ObjectUrl:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:  # whose words can have what precedes the host
        raise ValueError("the URL's host or port is not valid") from None
    if not parts.hostname:
        raise ValueError("the URL has no host")
    if "@" in parts.netloc:
        raise ValueError("a login in a URL is not sent: leave out what precedes the @")
    if parts.fragment:
        raise ValueError("the URL has a #, which ends what names the file: write %23")
    check_encrypted(url, settings.allow_http)
    if not parts.path.strip("/") or parts.path.endswith("/"):
        raise ValueError("the URL names no file: https://HOST/PATH")
    host = parts.hostname if ":" not in parts.hostname else f"[{parts.hostname}]"
    shown = "" if port in (None, _PORTS[parts.scheme]) else f":{port}"
    return ObjectUrl(parts.scheme, f"{parts.scheme}://{host}{shown}", parts.path.lstrip("/"), parts.query)

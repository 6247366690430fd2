"""How stores are reached, beyond what URLs and the environment say: an endpoint, a region, options of one's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from rdbkit.storage.blob_url import is_loopback


@dataclass(frozen=True)
class StoreSettings:
    """How stores of objects are reached.

    Attributes:
        endpoint: URL of the service, where it is another than the provider's own: of MinIO, Ceph, an emulator.
        region: of the bucket; by default what AWS_REGION says.
        anonymous: send no credentials, for what everybody may read.
        allow_http: take http:// for hosts other than this machine.
        options: more options of a store, by the names that obstore gives them; never to be shown.
    """

    endpoint: str = ""
    region: str = ""
    anonymous: bool = False
    allow_http: bool = False
    options: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "StoreSettings(...)"


_IN_FORCE = StoreSettings()


def current_settings() -> StoreSettings:
    """The settings for what is named from now on."""
    return _IN_FORCE


@contextmanager
def store_settings(settings: StoreSettings) -> Iterator[None]:
    """Inside, stores of what is named are reached so.

    >>> with store_settings(StoreSettings(region="eu-west-1")):
    ...     current_settings().region
    'eu-west-1'
    """
    global _IN_FORCE
    before, _IN_FORCE = _IN_FORCE, settings
    try:
        yield
    finally:
        _IN_FORCE = before


def check_endpoint(url: str, allow_http: bool) -> None:
    """Raise ValueError for what is no endpoint, and for http:// to another machine where that is not allowed."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("http", "https") or "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError("an endpoint is the URL of a service, as https://minio.example:9000")
    check_encrypted(url, allow_http)


def check_encrypted(url: str, allow_http: bool) -> None:
    """Raise ValueError for http:// to another machine, where that is not allowed."""
    parts = urlsplit(url)
    if parts.scheme == "http" and not allow_http and not is_loopback(parts.hostname or ""):
        raise ValueError(
            "http:// shows everybody on the way the snapshot and what opens the account: use https://, or allow http:// where the "
            "network is trusted"
        )

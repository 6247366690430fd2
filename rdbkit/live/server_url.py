"""The URL of a server or cluster: where it is, and who asks. Its text has no secrets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from rdbkit.storage.remote import is_server_url

__all__ = ["ServerUrl", "parse_url"]

_SENTINEL: Final = "+sentinel"
_SENTINEL_PORT: Final = 26379
_DEFAULT_PORT: Final = 6379
_MOST_DATABASE_DIGITS: Final = 9


@dataclass(frozen=True)
class ServerUrl:
    """What a URL says: where a server is, and who asks. Its text has no password, and no user without one, which may be one.

    Attributes:
        host, port: of the server, or of a Sentinel that knows it.
        tls, user, password, db: of the server; None for what is not said.
        service: what Sentinel calls the server; None where the server itself is named.
    """

    host: str
    port: int
    tls: bool
    user: str | None
    password: str | None
    db: int | None
    service: str | None = None

    @property
    def place(self) -> str:
        """The URL as a command takes it that has the password from elsewhere."""
        return str(self).replace(":***@", "@").replace("//@", "//").replace("***@", "")

    def __str__(self) -> str:
        user = f"{self.user or ''}:***@" if self.password else "***@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        scheme = f"{'rediss' if self.tls else 'redis'}{_SENTINEL if self.service is not None else ''}"
        path = "".join(f"/{each}" for each in (self.service and quote(self.service, ""), self.db) if each is not None)
        return f"{scheme}://{user}{host}:{self.port}{path}"

    __repr__ = __str__


def parse_url(url: str) -> ServerUrl:
    """Take a URL apart: `redis://` or, with TLS, `rediss://`, then `user:password@host:port/db`, of which the host alone must be.

    `redis+sentinel://user:password@host:port/service/db` and `rediss+sentinel://` name a Sentinel, and the server by its service.

    Raises: ValueError, whose text has nothing of the URL: where it is malformed, nobody knows which part is the password.

    >>> parse_url("rediss://app:s3cret@cache.example:10000")
    rediss://app:***@cache.example:10000
    >>> parse_url("redis://localhost/3").db
    3
    >>> parse_url("redis+sentinel://localhost/mymaster").service
    'mymaster'
    """
    if not is_server_url(url):
        raise ValueError("a server's URL begins with redis:// or, for TLS, with rediss://: write redis://host:port")
    scheme, _, rest = url.partition("://")
    login, at, address = rest.rpartition("@")  # a password may have signs in it that mean something in a URL
    service = None
    if scheme.endswith(_SENTINEL):
        host_and_port, _, path = address.partition("/")
        name, slash, db_text = path.partition("/")
        if not name:
            raise ValueError("the URL of a Sentinel names the service, too: write redis+sentinel://host:port/service")
        service, address = unquote(name), f"{host_and_port}{slash}{db_text}"
    host, port, db = _parse_address(address, _DEFAULT_PORT if service is None else _SENTINEL_PORT)
    user, colon, password = login.partition(":")
    return ServerUrl(
        host, port, scheme.startswith("rediss"), unquote(user) or None if at else None, unquote(password) if colon else None, db,
        service,
    )  # fmt: skip


def _parse_address(text: str, default_port: int) -> tuple[str, int, int | None]:
    """Host, port and database of `host:port/db`. Raises: ValueError, as `parse_url`."""
    try:
        parts = urlsplit(f"redis://{text}")
        host, port = parts.hostname, parts.port
        (host or "").encode("idna")
    except ValueError:
        raise ValueError("the URL's host or port cannot be read: write redis://host:port") from None
    if not host:
        raise ValueError("the URL names no host: write redis://host:port")
    if parts.query or parts.fragment:
        raise ValueError("a server's URL ends with its port or database; options say the rest")
    db = parts.path.strip("/")
    if db and not (db.isascii() and db.isdecimal() and len(db) <= _MOST_DATABASE_DIGITS):
        raise ValueError("after host and port the URL may only have a database number: write redis://host:port/0")
    return host, port or default_port, int(db) if db else None

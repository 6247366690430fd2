"""The URL of a server or cluster: where it is, and who asks. Its text has no secrets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote, urlsplit

from rdbkit.storage.remote import is_server_url

__all__ = ["ServerUrl", "parse_url"]

_DEFAULT_PORT: Final = 6379
_MOST_DATABASE_DIGITS: Final = 9


@dataclass(frozen=True)
class ServerUrl:
    """What a URL says: where a server is, and who asks. Its text has no password, and no user without one, which may be one."""

    host: str
    port: int
    tls: bool
    user: str | None
    password: str | None
    db: int | None

    @property
    def place(self) -> str:
        """The URL as a command takes it that has the password from elsewhere."""
        return str(self).replace(":***@", "@").replace("//@", "//").replace("***@", "")

    def __str__(self) -> str:
        user = f"{self.user or ''}:***@" if self.password else "***@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{user}{host}:{self.port}{'' if self.db is None else f'/{self.db}'}"

    __repr__ = __str__


def parse_url(url: str) -> ServerUrl:
    """Take a URL apart: `redis://` or, with TLS, `rediss://`, then `user:password@host:port/db`, of which the host alone must be.

    Raises: ValueError, whose text has nothing of the URL: where it is malformed, nobody knows which part is the password.

    >>> parse_url("rediss://app:s3cret@cache.example:10000")
    rediss://app:***@cache.example:10000
    >>> parse_url("redis://localhost/3").db
    3
    """
    if not is_server_url(url):
        raise ValueError("a server's URL begins with redis:// or, for TLS, with rediss://: write redis://host:port")
    scheme, _, rest = url.partition("://")
    login, at, address = rest.rpartition("@")  # a password may have signs in it that mean something in a URL
    host, port, db = _parse_address(address)
    user, colon, password = login.partition(":")
    return ServerUrl(
        host, port, scheme == "rediss", unquote(user) or None if at else None, unquote(password) if colon else None, db
    )  # fmt: skip


def _parse_address(text: str) -> tuple[str, int, int | None]:
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
        raise ValueError("a server's URL ends with its port or database; the rest is said by options")
    db = parts.path.strip("/")
    if db and not (db.isascii() and db.isdecimal() and len(db) <= _MOST_DATABASE_DIGITS):
        raise ValueError("what follows the URL's host and port is no database: write redis://host:port/0")
    return host, port or _DEFAULT_PORT, int(db) if db else None

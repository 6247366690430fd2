"""Who asks: passwords, and tokens of Entra ID, which end and have a new one in time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, TypeAlias

from rdbkit.clouds import Cloud, find_cloud
from rdbkit.errors import TargetError
from rdbkit.text import first_line

__all__ = ["Credentials", "CurrentLogin", "entra_credentials", "missing_package"]

#: What gives a user's name (or none) and a password each time it is called: a token has a new one now and then.
Credentials: TypeAlias = Callable[[], tuple[str | None, str]]

_INSTALL: Final = "pip install 'rdbkit[live]'"
#: How often credentials are asked whether there is a new token. Those of Azure give one minutes before the old one ends.
_LOOK_S: Final = 60.0
#: Packages that log what is in the error as well, on many lines.
_LOUD: Final = ("azure", "msal", "redis.auth")


class CurrentLogin:
    """A user and a password for all connections to a server. Several threads may ask for it.

    Attributes:
        ways: how a password can be given, for the error of a server that wants one.
    """

    def __init__(self, credentials: Credentials | None, ways: str) -> None:
        self.ways = ways
        self._credentials = credentials
        self._lock = threading.Lock()
        self._current: tuple[str | None, str] | None = None
        self._looked_at: float | None = None

    @property
    def current(self) -> tuple[str | None, str] | None:
        """User and password; None where nobody logs in. Raises: TargetError where no token can be had."""
        if self._credentials is None:
            return None
        with self._lock:
            now = time.monotonic()
            if self._looked_at is None or now - self._looked_at >= _LOOK_S:
                self._looked_at = now
                self._current = self._credentials()
            return self._current

    def refused(self, reason: str, source: str) -> TargetError:
        """The error for a server that does not let this user in, with its own words."""
        if self._credentials is None:
            text = f"the server wants a password: {self.ways}"
        elif self._current is not None and not self._current[1]:
            text = f"the server does not let this user in without a password: {self.ways}"
        else:
            text = f"the server does not let this user in: {reason.rstrip('.')}; check user and password"
        return TargetError(text, source=source)


def entra_credentials(cloud: str | Cloud = "public") -> Credentials:
    """Credentials of the Entra ID identity that is at hand: of the environment, a managed identity, or the Azure CLI.

    Args:
        cloud: where the server is: "public", "usgovernment", "china", or the name that `az cloud list` has.

    Raises: TargetError where the package is missing; ValueError for an unknown cloud; the credentials raise TargetError where
        there is no identity.
    """
    found = find_cloud(cloud) if isinstance(cloud, str) else cloud
    try:
        from redis_entraid.cred_provider import create_from_default_azure_credential
    except ImportError as e:
        raise missing_package(e) from None
    for name in _LOUD:  # whoever has handlers of his own gets all of it
        logging.getLogger(name).addHandler(logging.NullHandler())
    provider = create_from_default_azure_credential((found.redis_scope,), authority=found.token_authority)

    def token() -> tuple[str | None, str]:
        try:
            user, password = provider.get_credentials()
        except Exception as e:  # the identity libraries have many; all say that there is no token
            raise TargetError(
                f"no Entra ID token: {first_line(e).rstrip('.')}; sign in ({found.sign_in}), or give a password instead of --entra"
            ) from None
        return user, password

    return token


def missing_package(e: ImportError) -> TargetError:
    """The error for a package of the extra `live` that is not installed."""
    return TargetError(f"this needs the packages of live servers ({e.name} is missing): {_INSTALL}")

"""How a thread of our own reaches the servers that an application's clients of the package redis reach."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from rdbkit.live.login import Credentials
from rdbkit.live.server import Server, connect

__all__ = ["Place", "ServerOpener", "opener_of", "place_of", "settings_of", "shared_settings"]

#: Opens a server; see `rdbkit.live.server.connect` for what it raises.
ServerOpener: TypeAlias = Callable[[], Server]
#: Where a server is, as a key: scheme, host, port, and what Sentinel calls it.
Place: TypeAlias = tuple[str, str, int, str | None]

_HOW: Final = "give open_old or open_new, which open a connection by rdbkit.live.server.connect"


#: What connections to both sides have in common, unless the URL of the new side says otherwise.
SHARED: Final = (
    "db", "encoding", "encoding_errors", "decode_responses", "socket_timeout", "socket_connect_timeout", "socket_keepalive",
    "socket_keepalive_options", "socket_read_size", "retry", "retry_on_error", "retry_on_timeout", "health_check_interval",
    "client_name", "protocol", "legacy_responses",
)  # fmt: skip


def settings_of(client: Any) -> Mapping[str, Any]:
    """What the connections of a client of the package redis, of any kind, are given: timeouts, login, certificates."""
    nodes = getattr(client, "nodes_manager", None)
    if nodes is None:
        found: Mapping[str, Any] = client.connection_pool.connection_kwargs
    else:
        found = nodes.connection_kwargs
    return found


def shared_settings(client: Any) -> dict[str, Any]:
    """What another client is to be given for its connections to be alike."""
    settings = settings_of(client)
    shared = {name: settings[name] for name in SHARED if name in settings}
    if "retry" in shared:
        shared["retry"] = copy.deepcopy(shared["retry"])
    most = getattr(getattr(client, "connection_pool", None), "max_connections", None)
    return shared if most is None else shared | {"max_connections": most}


def shared_by_clusters(client: Any) -> dict[str, Any]:
    """As `shared_settings`, for a client of a cluster: it has but one database, and what is tried again is not a node's to say."""
    without = ("db", "retry") if hasattr(client, "nodes_manager") else ("db",)
    return {name: value for name, value in shared_settings(client).items() if name not in without}


def place_of(client: Any) -> Place:
    """Where the connections of a client of the package redis, of any kind, go. Raises: ValueError for a socket of Unix."""
    settings = settings_of(client)
    nodes = getattr(client, "nodes_manager", None)
    pool: Any = None if nodes is not None else client.connection_pool
    made = settings.get("connection_class") if pool is None else pool.connection_class
    names = {base.__name__ for base in getattr(made, "__mro__", ())}
    if "UnixDomainSocketConnection" in names:
        raise ValueError(f"a server that is reached by a Unix socket has no URL: {_HOW}")
    tls = "s" if "SSLConnection" in names or "SentinelManagedSSLConnection" in names or settings.get("ssl") else ""
    if nodes is not None:
        node = next(iter(nodes.startup_nodes.values()))
        return f"redis{tls}", node.host, int(node.port), None
    service = getattr(pool, "service_name", None)
    if service is not None:
        first = pool.sentinel_manager.sentinels[0].connection_pool.connection_kwargs
        return f"redis{tls}+sentinel", first["host"], int(first["port"]), str(service)
    return f"redis{tls}", str(settings.get("host", "localhost")), int(settings.get("port", 6379)), None


def opener_of(client: Any) -> ServerOpener:
    """What opens the server of a client, with the login and the certificates of its connections.

    Raises: ValueError where it cannot be told from the client.
    """
    settings = settings_of(client)
    scheme, host, port, service = place_of(client)
    certificate, key = settings.get("ssl_certfile"), settings.get("ssl_keyfile")
    if key is not None and key != certificate:
        raise ValueError(f"ssl_certfile and ssl_keyfile are two files: put both into one and name it by ssl_certfile, or {_HOW}")
    user, password = settings.get("username"), settings.get("password")
    login = "" if user is None else f"{quote(str(user), '')}@"
    name = "" if service is None else f"/{quote(service, '')}"
    return partial(
        connect,
        f"{scheme}://{login}{f'[{host}]' if ':' in host else host}:{port}{name}",
        password=None if password is None else str(password),
        credentials=_credentials(settings.get("credential_provider")),
        ca_cert=settings.get("ssl_ca_certs"),
        client_cert=certificate,
        verify_tls=str(settings.get("ssl_cert_reqs", "required")).lower() not in ("none", "verifymode.cert_none", "0"),
    )


def _credentials(provider: Any) -> Credentials | None:
    """What a credential provider of the package redis tells, as we ask for it."""
    if provider is None:
        return None

    def credentials() -> tuple[str | None, str]:
        found = tuple(provider.get_credentials())
        return (None, str(found[0])) if len(found) == 1 else (str(found[0]), str(found[1]))

    return credentials

"""Users who may do what the built-in access policies of Azure Cache for Redis allow.

The policies are those that the service exports: "Data Owner", "Data Contributor" and "Data Reader".
"""

from __future__ import annotations

import contextlib
from urllib.parse import quote

from fixtures.server import Client, ServerError

_CLUSTER = "+cluster|info +cluster|nodes +cluster|slots"
POLICIES = {
    "owner": "+@all",
    "contributor": f"+@all -@dangerous {_CLUSTER}",
    "reader": f"+@read +@connection {_CLUSTER}",
}
"""By the name of the user that `add_users` makes, what the policy allows. Each user may do it with all keys."""

PASSWORD = "p@ss/w:rd"
"""What lets these users in. A URL has to quote it."""


def add_user(client: Client, name: str, rules: str) -> None:
    """Add a user who may do what the rules say, with all keys and, where a server asks for it, all channels."""
    command = ("ACL", "SETUSER", name, "reset", "on", f">{PASSWORD}", "~*", *rules.split())
    client.call(*command)
    with contextlib.suppress(ServerError):  # before 6.2 all channels are everybody's
        client.call("ACL", "SETUSER", name, "&*")


def add_users(client: Client) -> None:
    """Add the users of the three policies to a server, a node of a cluster each time."""
    for name, rules in POLICIES.items():
        add_user(client, name, rules)


def url_of(url: str, user: str) -> str:
    """The URL of a server with a user's name and password in it."""
    return url.replace("://", f"://{user}:{quote(PASSWORD, safe='')}@", 1)

"""What clients of clusters have in common, for threads and for asyncio: one of their sides may be a single server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Final, NamedTuple, NoReturn

from rdbkit.live.login import missing_package

try:
    from redis.exceptions import RedisClusterException
except ImportError as e:
    raise missing_package(e) from None

__all__ = ["NODE", "SUBSCRIPTIONS", "Single", "Slot", "as_side", "check_nodes", "with_nodes", "without_pipelines"]

#: Arguments of `pubsub` that name a node of a cluster, which is one of one side.
NODE: Final = ("node", "host", "port")
#: What there are subscriptions to, and how to subscribe to it.
SUBSCRIPTIONS: Final = {"channels": "subscribe", "patterns": "psubscribe", "shard_channels": "ssubscribe"}


class Slot(NamedTuple):
    """In place of the node that a command is for: which it is is known when the command is sent."""

    number: int


class Single:
    """A client of a single server, of either kind, that is used like one of a cluster.

    Args:
        client: a `redis.Redis` or a `redis.asyncio.Redis`.
    """

    #: What commands of clusters ask of their client.
    read_from_replicas = False
    _initialize = False

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_client" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._client, name)

    @property
    def encoder(self) -> Any:
        """Makes bytes of arguments."""
        return self._client.get_encoder()

    @property
    def nodes_manager(self) -> Any:
        """What commands of modules ask of it: how connections are made."""
        return SimpleNamespace(connection_kwargs=self._client.connection_pool.connection_kwargs)

    def execute_command(self, *args: Any, target_nodes: Any = None, **options: Any) -> Any:
        """As the client has it; there is one node to choose from."""
        return self._client.execute_command(*args, **options)

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> Any:
        """As the client has it; clusters' are no transactions unless that is asked for."""
        return self._client.pipeline(bool(transaction), shard_hint)

    def pubsub(self, node: Any = None, host: Any = None, port: Any = None, **kwargs: Any) -> Any:
        """As the client has it; there is one node to choose from."""
        return self._client.pubsub(**kwargs)


def as_side(client: Any) -> Any:
    """A client of the package redis, of any kind, as a side of one of clusters."""
    return client if hasattr(client, "nodes_manager") else Single(client)


def check_nodes(client: Any, nodes: Any) -> None:
    """Whether a command that names its nodes may go to a client. Raises: RedisClusterException where they are the other side's."""
    if nodes is None or isinstance(nodes, str | Slot) or isinstance(client, Single):
        return
    named = list(nodes.values()) if isinstance(nodes, dict) else list(nodes) if isinstance(nodes, list | tuple) else [nodes]
    known = {node.name for node in client.get_nodes()}
    if not all(getattr(node, "name", None) in known for node in named):
        raise RedisClusterException("target_nodes has a node that is not of the side that is used now")


def with_nodes(client: Any, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a command for a pipeline of a client. Raises: as `check_nodes`."""
    nodes = options.get("target_nodes")
    if not isinstance(nodes, Slot):
        check_nodes(client, nodes)
        return options
    if isinstance(client, Single):
        return {name: value for name, value in options.items() if name != "target_nodes"}
    return {**options, "target_nodes": [client.nodes_manager.get_node_from_slot(nodes.number, False)]}


def without_pipelines(commands: Any) -> Any:
    """Commands of a module that make no pipelines of their own, which would be those of one side alone."""

    def pipeline(*_: Any, **__: Any) -> NoReturn:
        raise NotImplementedError("make the pipeline first, and ask it for these commands, as in client.pipeline().json()")

    commands.pipeline = pipeline
    return commands

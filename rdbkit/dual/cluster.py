"""`rdbkit.dual.RedisCluster`: a client of clusters that uses two of them at once, or a cluster and a single server."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final, Self

from rdbkit.dual.calls import Encoder
from rdbkit.dual.client import LISTEN_S, Clients, Pipelined, TwoSided
from rdbkit.dual.openers import SHARED, shared_by_clusters
from rdbkit.dual.pair import given_sides, pair_of, split_arguments
from rdbkit.dual.single import NODE, SUBSCRIPTIONS, Slot, as_side, check_nodes, with_nodes, without_pipelines
from rdbkit.dual.states import Side
from rdbkit.live.login import missing_package

try:
    import redis
    from redis.client import PubSubWorkerThread
    from redis.cluster import ClusterPipeline as PlainPipeline
    from redis.exceptions import RedisError
except ImportError as e:
    raise missing_package(e) from None

__all__ = ["ClusterPipeline", "RedisCluster", "Subscriber"]

#: What a cluster's client is given that says where it is and how it is asked; our own connections need no more.
_CONNECTION: Final = (*SHARED, "credential_provider", "max_connections", "password", "username")


class RedisCluster(TwoSided, redis.RedisCluster):
    """A `redis.RedisCluster` for two clusters, or for a cluster and a single server, whose client is then given.

    A side is connected to when it is used first, so that one that is down hurts nobody who does not need it.

    Args:
        args, kwargs: as for `redis.RedisCluster`, for the old cluster, and those of `rdbkit.dual.Redis`.

    Raises: as `rdbkit.dual.Redis`.

    Example:
        cache = RedisCluster.from_urls("redis://old.example", "rediss://:secret@new.example:10000", name="sessions")
        moving = RedisCluster(old=redis.Redis(host="single.example"), new="rediss://:secret@new.example:10000")
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        ours, theirs = split_arguments({**self._bound, **kwargs})
        old, new = ours.pop("old", None), ours.pop("new", None)
        if new is None:
            raise ValueError("name the new server: new=URL, or a client of it")
        self._clients = Clients()
        self._given = given_sides(old, new)
        if old is None:
            self._clients.make["old"] = partial(redis.RedisCluster, *args, **theirs)
            old = _unconnected(*args, **theirs)
        else:
            self._clients["old"] = as_side(old)
        if isinstance(new, str):
            settings = shared_by_clusters(old)
            self._clients.make["new"] = partial(redis.RedisCluster.from_url, new, **settings)
            new = _unconnected(url=new, **settings)
        else:
            self._clients["new"] = as_side(new)
        self._encode = Encoder(old)
        self.dual = pair_of(old, new, **ours)

    @classmethod
    def from_url(cls, url: str, **kwargs: Any) -> Self:
        """As `redis.RedisCluster.from_url`, for the old cluster; the new one is an argument of its own."""
        return cls(url=url, **kwargs)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """As redis.RedisCluster has it, on the side that is used."""
        if "target_nodes" in options:
            check_nodes(self._primary, options["target_nodes"])
        return super().execute_command(*args, **options)

    def _execute_pipeline_by_slot(self, command: str, slots_to_args: Mapping[int, Any]) -> list[Any]:
        with self.pipeline() as pipe:
            for number, args in slots_to_args.items():
                pipe.execute_command(command, *args, target_nodes=Slot(number))
            replies: list[Any] = pipe.execute()
            return replies

    def scan_iter(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """As redis.RedisCluster has it, of the side that is used."""
        found: Iterator[Any] = self._primary.scan_iter(*args, **kwargs)
        return found

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> ClusterPipeline:
        """As redis.RedisCluster has it; all of its commands go to the side that is used when it is executed."""
        return ClusterPipeline(self, transaction, shard_hint)

    def pubsub(self, *args: Any, **kwargs: Any) -> Subscriber:
        """As redis.RedisCluster has it, on the side that is used; goes over to the other one when that is used."""
        return Subscriber(self, args, kwargs)

    def json(self, *args: Any, **kwargs: Any) -> Any:
        """As redis.RedisCluster has it."""
        return without_pipelines(super().json(*args, **kwargs))

    def ft(self, *args: Any, **kwargs: Any) -> Any:
        """As redis.RedisCluster has it."""
        return without_pipelines(super().ft(*args, **kwargs))

    def ts(self) -> Any:
        """As redis.RedisCluster has it."""
        return without_pipelines(super().ts())


def _unconnected(host: Any = None, port: Any = 6379, startup_nodes: Any = None, *_: Any, **kwargs: Any) -> redis.Redis:
    """A client of one node of a cluster: what would be connected to how, and nothing is."""
    settings = {name: value for name, value in kwargs.items() if name in _CONNECTION or name.startswith("ssl_")}
    if kwargs.get("url") is not None:
        return redis.Redis(connection_pool=redis.ConnectionPool.from_url(kwargs["url"], **settings))
    if host is None:
        host, port = startup_nodes[0].host, startup_nodes[0].port
    kind = redis.SSLConnection if kwargs.get("ssl") else redis.Connection
    return redis.Redis(connection_pool=redis.ConnectionPool(kind, host=host, port=int(port), **settings))


class ClusterPipeline(Pipelined, PlainPipeline):  # type: ignore[misc]
    """A `redis.cluster.ClusterPipeline` for two servers."""

    def __init__(self, owner: RedisCluster, transaction: Any, shard_hint: Any) -> None:
        self.begin(owner)
        self.transaction, self.shard_hint = transaction, shard_hint
        self._watching = False
        self.reset()

    def __len__(self) -> int:
        return len(self.command_stack)

    @property
    def watching(self) -> bool:
        """Whether keys are watched."""
        return self._watching

    @watching.setter
    def watching(self, watching: bool) -> None:
        self._watching = watching

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_owner" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._owner, name)

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Keep a command, or send it at once while keys are watched."""
        if self.watching and not self.explicit_transaction:
            return self.immediate_execute_command(*args, **options)
        return self.pipeline_execute_command(*args, **options)

    def pipeline_execute_command(self, *args: Any, **options: Any) -> Self:
        """Keep a command."""
        self.command_stack.append((args, options))
        return self

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        return with_nodes(self._owner._clients[self._side], options)

    def multi(self) -> None:
        """As redis.cluster has it."""
        if self.explicit_transaction:
            raise RedisError("Cannot issue nested calls to MULTI")
        if self.command_stack:
            raise RedisError("Commands without an initial WATCH have already been issued")
        self.explicit_transaction = True

    def watch(self, *names: Any) -> Any:
        """As redis.cluster has it, on the side that is used."""
        if self.explicit_transaction:
            raise RedisError("Cannot issue a WATCH after a MULTI")
        inner, _ = self._enter()
        try:
            reply = inner.watch(*names)
        finally:
            self._owner.dual.leave()
        self.watching = True
        return reply

    def unwatch(self) -> Any:
        """As redis.cluster has it."""
        if not self.watching:
            return True
        self.watching = False
        return self._inner.unwatch()

    def discard(self) -> None:
        """Forget the commands that were kept."""
        self.reset()

    def delete(self, *names: Any) -> Any:
        """As redis.cluster has it, of keys of one slot."""
        return self.execute_command("DEL", *names)

    def unlink(self, *names: Any) -> Any:
        """As redis.cluster has it, of keys of one slot."""
        return self.execute_command("UNLINK", *names)

    def exists(self, *names: Any) -> Any:
        """As redis.cluster has it, of keys of one slot."""
        return self.execute_command("EXISTS", *names)

    def reset(self) -> None:  # type: ignore[override]
        """Forget what was queued and watched."""
        self.watching = False
        super().reset()


class Subscriber:
    """What `pubsub` of the side that is used gives; on a switch it subscribes on the other one."""

    def __init__(self, owner: RedisCluster, args: Any, kwargs: Any) -> None:
        self._owner = owner
        self._kwargs = kwargs
        self._side: Side = owner.dual.route.primary
        self._inner: Any = owner._clients[self._side].pubsub(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_inner" not in self.__dict__:
            raise AttributeError(name)
        self._follow()
        return getattr(self._inner, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._inner.close()

    def get_message(self, ignore_subscribe_messages: bool = False, timeout: float | None = 0.0) -> Any:
        """As redis.client.PubSub has it."""
        return self._get("get_message", ignore_subscribe_messages, timeout)

    def get_sharded_message(self, ignore_subscribe_messages: bool = False, timeout: float | None = 0.0, **kwargs: Any) -> Any:
        """As redis.cluster.ClusterPubSub has it."""
        return self._get("get_sharded_message", ignore_subscribe_messages, timeout, **kwargs)

    def listen(self) -> Iterator[Any]:
        """As redis.client.PubSub has it."""
        while self.subscribed:
            message = self.get_message(timeout=None)
            if message is not None:
                yield message

    def run_in_thread(
        self, sleep_time: float = 0.0, daemon: bool = False, exception_handler: Any = None, **kwargs: Any
    ) -> PubSubWorkerThread:
        """As redis.client.PubSub has it."""
        thread = PubSubWorkerThread(self, sleep_time, daemon=daemon, exception_handler=exception_handler, **kwargs)
        thread.start()
        return thread

    def _get(self, name: str, ignore: bool, timeout: float | None, **kwargs: Any) -> Any:
        while True:
            if self._owner.dual.route.primary != self._side:
                message = self._left(ignore)
                if message is not None:
                    return message
                self._follow()
            message = getattr(self._inner, name)(ignore, timeout=LISTEN_S if timeout is None else timeout, **kwargs)
            if message is not None or timeout is not None:
                return message

    def _left(self, ignore: bool) -> Any:
        """A message that came before the switch."""
        with suppress(RedisError, OSError):  # the side that was used may be gone
            while self._inner.subscribed and (reply := self._inner.parse_response(block=False, timeout=0)) is not None:
                message = self._inner.handle_message(reply, ignore)
                if message is not None:
                    return message
        return None

    def _follow(self) -> None:
        """Subscribe on the other side, where that is used by now."""
        side = self._owner.dual.route.primary
        if side == self._side:
            return
        client = self._owner._clients[side]
        before, inner = self._inner, client.pubsub(**{name: each for name, each in self._kwargs.items() if name not in NODE})
        for kind, name in SUBSCRIPTIONS.items():
            names = dict(getattr(before, kind, ()))
            if names:
                getattr(inner, name)(*names)
                getattr(inner, kind).update(names)  # with their handlers
        self._inner, self._side = inner, side
        before.close()

"""`rdbkit.dual.asyncio`: the clients of `rdbkit.dual` for asyncio.

Where a command goes and what is done when it was answered is decided by the same `Pair` as for threads, and the same thread brings
keys over: an event loop waits for nothing but the reply of the side that is used, and at a switch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Self

from rdbkit.dual.calls import MAY_BE_DONE, Encoder, is_miss
from rdbkit.dual.client import LISTEN_S
from rdbkit.dual.openers import shared_by_clusters, shared_settings
from rdbkit.dual.pair import Pair, Route, given_sides, pair_of, split_arguments
from rdbkit.dual.single import NODE, SUBSCRIPTIONS, Slot, as_side, check_nodes, with_nodes, without_pipelines
from rdbkit.dual.states import Side
from rdbkit.dual.two_sided import BothSides
from rdbkit.format.slots import key_slot
from rdbkit.live.login import missing_package
from rdbkit.targets.keyspecs import TABLE, Written

try:
    import redis.asyncio as redis
    from redis.asyncio.client import Pipeline as PlainPipeline
    from redis.asyncio.client import PubSub as PlainPubSub
    from redis.asyncio.cluster import ClusterPipeline as PlainClusterPipeline
    from redis.exceptions import DataError, ExecAbortError, RedisError, ResponseError, WatchError
except ImportError as e:
    raise missing_package(e) from None

__all__ = ["ClusterPipeline", "Pipeline", "PubSub", "Redis", "RedisCluster", "Subscriber"]

_SWITCHED: Final = "the cache was switched while keys were watched"


class TwoSided(BothSides):
    """What makes a client of the package redis one for two servers: commands go to the side that is used, by a plain client."""

    def _begin(self, plain: type[Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Be a client; `plain` is what the sides' clients are where the user gives none."""
        ours, theirs = split_arguments({**self._bound, **kwargs})
        old, new = ours.pop("old", None), ours.pop("new", None)
        if new is None:
            raise ValueError("name the new server: new=URL, or a client of it")
        self._given = given_sides(old, new)
        if old is None:
            old = plain(*args, **theirs)
        is_cluster = plain is redis.RedisCluster
        if isinstance(new, str):
            new = plain.from_url(new, **(shared_by_clusters if is_cluster else shared_settings)(old))
        clients: dict[Side, Any] = {"old": old, "new": new}
        if is_cluster:
            clients = {side: as_side(client) for side, client in clients.items()}
        self._share(clients, Encoder(old), pair_of(old, new, **ours))

    def _share(self, clients: Mapping[Side, Any], encode: Encoder, pair: Pair) -> None:
        self._clients = clients
        self._encode = encode
        self._users = 0
        self.dual = pair

    # -- the side that is used

    async def _route(self) -> Route:
        """Where reads go now."""
        pair = self.dual
        route = pair.known_route
        return await asyncio.to_thread(pair.find_route) if route is None else route

    async def _enter(self) -> Route:
        """Where a command that may write goes. A switch waits for it, until `dual.leave`, which must follow."""
        pair = self.dual
        while (route := pair.try_enter()) is None:
            await asyncio.to_thread(pair.find_route)
        return route

    @property
    def _side(self) -> Side:
        """The side that is used; the old one while that is not known."""
        route = self.dual.known_route
        return "old" if route is None else route.primary

    @property
    def _primary(self) -> Any:
        """The client of that side."""
        return self._clients[self._side]

    def __del__(self) -> None:
        """There is nothing of our own to close."""

    async def initialize(self, *args: Any, **kwargs: Any) -> Self:
        """As the package redis has it, for the side that is used."""
        route = await self._route()
        await self._clients[route.primary].initialize(*args, **kwargs)
        return self

    async def __aenter__(self) -> Self:
        self._users += 1
        try:
            return await self.initialize()
        except BaseException:
            self._users -= 1
            raise

    async def __aexit__(self, *_: object) -> None:
        self._users -= 1
        if not self._users:
            await asyncio.shield(self.aclose())

    async def aclose(self, *args: Any, **kwargs: Any) -> None:
        """Close the clients of both sides, but for those that were given.

        What was written goes on to be brought to the other side; `drain` waits for it.
        """
        for side, client in self._clients.items():
            if side not in self._given:
                await client.aclose(*args, **kwargs)

    async def close(self, *args: Any, **kwargs: Any) -> None:
        """As `aclose`."""
        await self.aclose(*args, **kwargs)

    def json(self, *args: Any, **kwargs: Any) -> Any:
        """As the package redis has it."""
        return without_pipelines(super().json(*args, **kwargs))  # type: ignore[misc]

    def ft(self, *args: Any, **kwargs: Any) -> Any:
        """As the package redis has it."""
        return without_pipelines(super().ft(*args, **kwargs))  # type: ignore[misc]

    def ts(self) -> Any:
        """As the package redis has it."""
        return without_pipelines(super().ts())  # type: ignore[misc]

    async def drain(self, wait_s: float = 5.0) -> bool:
        """As `dual.drain`, which waits until what was written is on the other side, without holding up the event loop."""
        return await asyncio.to_thread(self.dual.drain, wait_s)

    # -- commands

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command to the side that is used, and see to it that what it has written comes to the other side."""
        pair = self.dual
        route = await self._route()
        if route.is_alone:
            return await self._clients[route.primary].execute_command(*args, **options)
        arguments = self._encode.arguments(args)
        written = TABLE.written(arguments)
        kind = written.kind
        if kind == "read":
            if not route.is_plain and (keys := TABLE.reads(arguments)):
                if route.compares:
                    pair.compare(route, keys, arguments)
                if route.second is not None:
                    return await self._read(route, keys, args, options)
            return await self._clients[route.primary].execute_command(*args, **options)
        if kind == "blocking-write":
            return await self._wait(written, args, options)
        route = await self._enter()
        try:
            reply = await self._clients[route.primary].execute_command(*args, **options)
        except BaseException as e:
            if kind in MAY_BE_DONE or not isinstance(e, ResponseError):  # it may have been done; or the task is cancelled
                pair.wrote(route, written, arguments)
            raise
        else:
            pair.wrote(route, written, arguments)
            return reply
        finally:
            pair.leave()

    async def _wait(self, written: Written, args: Any, options: Any) -> Any:
        """The reply to a command that may wait for long, so that no switch waits for it."""
        route = await self._route()
        try:
            reply = await self._clients[route.primary].execute_command(*args, **options)
        except ResponseError:
            raise
        except BaseException:
            self.dual.wrote(route, written)
            raise
        if reply is not None:
            self.dual.wrote(route, written)
        return reply

    async def _read(self, route: Route, keys: Sequence[bytes], args: Any, options: Any) -> Any:
        """The reply to a read of which both sides may be asked."""
        pair = self.dual
        if route.primary == "new":
            reply = await self._clients["new"].execute_command(*args, **options)
            if not is_miss(reply) or not pair.may_fall_back(route, keys):
                return reply
            pair.metrics.count("fallbacks")
            return await self._ask_beside("old", args, options, reply)
        if pair.is_dialled(route, keys):
            reply = await self._ask_beside("new", args, options, None)
            if not is_miss(reply):
                return reply
            pair.metrics.count("fallbacks")
        return await self._clients["old"].execute_command(*args, **options)

    async def _ask_beside(self, side: Side, args: Any, options: Any, otherwise: Any) -> Any:
        """The reply of a side that may be down; `otherwise` where there is none."""
        pair = self.dual
        if not pair.is_up(side):
            return otherwise
        try:
            reply = await self._clients[side].execute_command(*args, **options)
        except RedisError as e:
            pair.failed(side, e)
            return otherwise
        pair.metrics.count("misses" if is_miss(reply) else "reads", 1, side)
        return reply


class Redis(TwoSided, redis.Redis):  # type: ignore[misc]
    """A `redis.asyncio.Redis` for two servers: what `rdbkit.dual.Redis` is for threads, with the same arguments.

    Args:
        args, kwargs: as for `redis.asyncio.Redis`, for the old server, and those of `rdbkit.dual.Redis`.

    Raises: as `rdbkit.dual.Redis`.

    Example:
        cache = Redis(host="old.example", new="rediss://:secret@new.example:10000", name="sessions", decode_responses=True)
        await cache.set("k", "v", ex=3600)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._begin(redis.Redis, args, kwargs)

    @classmethod
    def from_url(cls, url: str, **kwargs: Any) -> Self:  # type: ignore[override]
        """As `redis.asyncio.Redis.from_url`, for the old server; the new one is an argument of its own."""
        ours, theirs = split_arguments({**cls._bound, **kwargs})
        made = cls(old=redis.Redis.from_url(url, **theirs), **ours)
        made._given -= {"old"}
        return made

    @classmethod
    def from_pool(cls, connection_pool: Any, **kwargs: Any) -> Self:
        """As `redis.asyncio.Redis.from_pool`, for the old server; the new one is an argument of its own."""
        made = cls(old=redis.Redis.from_pool(connection_pool), **kwargs)
        made._given -= {"old"}
        return made

    @property
    def connection_pool(self) -> Any:  # type: ignore[override]
        """The pool of the side that is used now."""
        return self._primary.connection_pool

    def client(self) -> Any:
        """A client with one connection, as redis.asyncio.Redis has it."""
        single = type(self).__new__(type(self))
        single._share({side: each.client() for side, each in self._clients.items()}, self._encode, self.dual)
        return single

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """As redis.asyncio.Redis has it; all of its commands go to the side that is used when it is executed."""
        return Pipeline(self, transaction, shard_hint)

    def pubsub(self, **kwargs: Any) -> PubSub:
        """As redis.asyncio.Redis has it, on the side that is used; goes over to the other one when that is used."""
        return PubSub(self, **kwargs)


class RedisCluster(TwoSided, redis.RedisCluster):  # type: ignore[misc]
    """A `redis.asyncio.RedisCluster` for two clusters, or for a cluster and a single server, whose client is then given.

    Args:
        args, kwargs: as for `redis.asyncio.RedisCluster`, for the old cluster, and those of `rdbkit.dual.Redis`.

    Raises: as `rdbkit.dual.Redis`.

    Example:
        cache = RedisCluster.from_urls("redis://old.example", "rediss://:secret@new.example:10000", name="sessions")
        moving = RedisCluster(old=redis.asyncio.Redis(host="single.example"), new="rediss://:secret@new.example:10000")
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._begin(redis.RedisCluster, args, kwargs)

    @classmethod
    def from_url(cls, url: str, **kwargs: Any) -> Self:
        """As `redis.asyncio.RedisCluster.from_url`, for the old cluster; the new one is an argument of its own."""
        ours, theirs = split_arguments({**cls._bound, **kwargs})
        made = cls(old=redis.RedisCluster.from_url(url, **theirs), **ours)
        made._given -= {"old"}
        return made

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """As redis.asyncio.RedisCluster has it, on the side that is used."""
        if "target_nodes" in options:
            check_nodes(self._primary, options["target_nodes"])
        return await super().execute_command(*args, **options)

    async def _execute_pipeline_by_slot(  # type: ignore[override]
        self, command: str, slots_to_args: Mapping[int, Any]
    ) -> list[Any]:
        async with self.pipeline() as pipe:
            for number, args in slots_to_args.items():
                pipe.execute_command(command, *args, target_nodes=Slot(number))
            return await pipe.execute()

    def scan_iter(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:  # type: ignore[override]
        """As redis.asyncio.RedisCluster has it, of the side that is used."""
        found: AsyncIterator[Any] = self._primary.scan_iter(*args, **kwargs)
        return found

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> ClusterPipeline:
        """As redis.asyncio.RedisCluster has it; all of its commands go to the side that is used when it is executed."""
        return ClusterPipeline(self, transaction, shard_hint)  # type: ignore[abstract]

    def pubsub(self, *args: Any, **kwargs: Any) -> Subscriber:  # type: ignore[override]
        """As redis.asyncio.RedisCluster has it, on the side that is used; goes over to the other one when that is used."""
        return Subscriber(self, args, kwargs)


class _Pipelined:
    """What makes a pipeline of the package redis one for two servers: commands are kept here, and sent by a plain pipeline."""

    def _keep(self, owner: TwoSided, transaction: Any, shard_hint: Any) -> None:
        self._owner = owner
        self._asked = transaction, shard_hint
        self._inner: Any = None
        self._side: Side = "old"
        self.watching = False
        self._forget()

    def _forget(self) -> None:
        self.command_stack: list[tuple[Any, Any]] = []
        self.scripts: set[Any] = set()
        self.explicit_transaction = False

    def __len__(self) -> int:
        return len(self.command_stack)

    def __bool__(self) -> bool:
        return True

    def __del__(self) -> None:
        """The plain pipeline closes what it has."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_owner" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._owner, name)

    def __await__(self) -> Any:
        return self.initialize().__await__()

    async def initialize(self) -> Self:
        """As the package redis has it."""
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.reset()

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Keep a command, or send it at once while keys are watched."""
        if (self.watching or args[0] == "WATCH") and not self.explicit_transaction:
            return self.immediate_execute_command(*args, **options)
        return self.pipeline_execute_command(*args, **options)

    def pipeline_execute_command(self, *args: Any, **options: Any) -> Self:
        """Keep a command."""
        self.command_stack.append((args, options))
        return self

    def multi(self) -> None:
        """As the package redis has it."""
        if self.explicit_transaction:
            raise RedisError("Cannot issue nested calls to MULTI")
        if self.command_stack:
            raise RedisError("Commands without an initial WATCH have already been issued")
        self.explicit_transaction = True

    async def watch(self, *names: Any) -> Any:
        """As the package redis has it, on the side that is used."""
        if self.explicit_transaction:
            raise RedisError("Cannot issue a WATCH after a MULTI")
        return await self.immediate_execute_command("WATCH", *names)

    async def unwatch(self) -> Any:
        """As the package redis has it."""
        return await self.immediate_execute_command("UNWATCH") if self.watching else True

    async def discard(self) -> None:
        """Forget the commands that were kept."""
        await self.reset()

    async def _enter(self) -> tuple[Any, Route]:
        """The plain pipeline, of the side that is used since keys are watched, and where it goes; `Pair.leave` must follow."""
        route = await self._owner._enter()
        if self._inner is None:
            try:
                self._side = route.primary
                self._inner = self._owner._clients[route.primary].pipeline(*self._asked)
            except BaseException:
                self._owner.dual.leave()
                raise
        elif self._side != route.primary:
            self._owner.dual.leave()
            await self.reset()
            raise WatchError(_SWITCHED)
        return self._inner, route

    async def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command at once, on the connection that watches."""
        inner, route = await self._enter()
        try:
            if args[0] == "WATCH":
                reply = await inner.watch(*args[1:])
                self.watching = True
            elif args[0] == "UNWATCH":
                reply = await inner.unwatch()
                self.watching = False
            else:
                reply = await inner.execute_command(*args, **options)
            return reply
        finally:
            self._wrote(route, [(args, options)])
            self._owner.dual.leave()

    async def execute(self, raise_on_error: bool = True, allow_redirections: bool = True) -> list[Any]:
        """As a plain pipeline, on the side that is used."""
        if not self.command_stack and not self.watching:
            return []
        try:
            return await self._execute(raise_on_error, allow_redirections)
        finally:
            await self.reset()

    async def _execute(self, raise_on_error: bool, allow_redirections: bool) -> list[Any]:
        stack = self.command_stack
        inner, route = await self._enter()
        try:
            if self.explicit_transaction and self.watching:
                inner.multi()
            for args, options in stack:
                inner.execute_command(*args, **await self._options(options))
            if self.scripts:
                inner.scripts = self.scripts
            more = (allow_redirections,) if isinstance(inner, PlainClusterPipeline) else ()
            try:
                replies: list[Any] = await inner.execute(raise_on_error, *more)
            except (WatchError, ExecAbortError):
                raise  # nothing was done
            except BaseException:
                self._wrote(route, stack)
                raise
            self._wrote(route, stack)
            return replies
        finally:
            self._owner.dual.leave()

    async def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options of a command, for the plain pipeline."""
        return options

    def _wrote(self, route: Route, stack: Sequence[tuple[Any, Any]]) -> None:
        """These commands were sent."""
        if route.marks is not None:
            for args, _ in stack:
                with suppress(DataError):  # which was not sent
                    arguments = self._owner._encode.arguments(args)
                    self._owner.dual.wrote(route, TABLE.written(arguments), arguments)

    async def reset(self) -> None:
        """Forget what was kept and watched."""
        self._forget()
        self.watching = False
        inner, self._inner = self._inner, None
        if inner is not None:
            reset = getattr(inner, "reset", None)  # pipelines of clusters have none before redis-py 6
            if reset is not None:
                await reset()


class Pipeline(_Pipelined, PlainPipeline):  # type: ignore[misc]
    """A `redis.asyncio.client.Pipeline` for two servers."""

    def __init__(self, owner: Redis, transaction: bool, shard_hint: Any) -> None:
        self._keep(owner, transaction, shard_hint)

    @property
    def connection_pool(self) -> Any:  # type: ignore[override]
        """The pool of the side that is used."""
        return self._owner.connection_pool

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """As `reset`."""
        await self.reset()


class ClusterPipeline(_Pipelined, PlainClusterPipeline):  # type: ignore[misc]
    """A `redis.asyncio.cluster.ClusterPipeline` for two servers."""

    def __init__(self, owner: RedisCluster, transaction: Any, shard_hint: Any) -> None:
        self._keep(owner, transaction, shard_hint)

    async def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        if "target_nodes" not in options:
            return options
        client = self._owner._clients[self._side]
        await client.initialize()  # which knows the nodes then
        return with_nodes(client, options)

    def unlink(self, *names: Any) -> Any:
        """As redis.asyncio.RedisCluster has it: a command for the keys of each slot."""
        return self._split("UNLINK", names)

    def mset_nonatomic(self, mapping: Mapping[Any, Any]) -> Any:
        """As redis.asyncio.RedisCluster has it: a command for the keys of each slot."""
        slots: dict[int, list[Any]] = {}
        for key, value in mapping.items():
            slots.setdefault(key_slot(self._owner._encode(key)), []).extend((key, value))
        for pairs in slots.values():
            self.execute_command("MSET", *pairs)
        return self

    def _split_command_across_slots(self, command: str, *keys: Any) -> Any:
        return self._split(command, keys)

    def _split(self, command: str, keys: Sequence[Any]) -> Any:
        slots: dict[int, list[Any]] = {}
        for key in keys:
            slots.setdefault(key_slot(self._owner._encode(key)), []).append(key)
        for some in slots.values():
            self.execute_command(command, *some)
        return self


class PubSub(PlainPubSub):
    """A `redis.asyncio.client.PubSub` on the side that is used; on a switch it subscribes on the other one."""

    connection: Any

    def __init__(self, owner: Redis, **kwargs: Any) -> None:
        self._owner = owner
        self._side = owner._side
        super().__init__(owner._clients[self._side].connection_pool, **kwargs)

    async def execute_command(self, *args: Any) -> None:
        """As redis.asyncio has it."""
        await self._follow()
        await super().execute_command(*args)

    async def parse_response(self, block: bool = True, timeout: float = 0) -> Any:
        """As redis.asyncio has it; looks now and then which side is used."""
        while True:
            if self.connection is not None and await self._other_side() is not None:
                with suppress(RedisError, OSError):  # the old side may be gone
                    reply = await super().parse_response(block=False, timeout=0)
                    if reply is not None:
                        return reply  # which came before the switch
            await self._follow()
            reply = await super().parse_response(block=False, timeout=LISTEN_S if block else timeout)
            if reply is not None or not block:
                return reply

    async def _other_side(self) -> Side | None:
        """The side that is used by now, where that is not the one of this connection."""
        side = (await self._owner._route()).primary
        return None if side == self._side else side

    async def _follow(self) -> None:
        """Subscribe on the other side, where that is used by now."""
        side = await self._other_side()
        if side is None:
            return
        kinds = [kind for kind in SUBSCRIPTIONS if hasattr(self, kind)]
        subscribed = {kind: getattr(self, kind) for kind in kinds}
        await self.aclose()  # type: ignore[no-untyped-call]
        self._side = side
        self.connection_pool = self._owner._clients[side].connection_pool
        for kind, names in subscribed.items():
            setattr(self, kind, names)
        await self.on_connect(None)  # type: ignore[arg-type]  # which subscribes to what there was before


class Subscriber:
    """What `pubsub` of the side that is used gives; on a switch it subscribes on the other one."""

    def __init__(self, owner: RedisCluster, args: Any, kwargs: Any) -> None:
        self._owner = owner
        self._kwargs = kwargs
        self._side = owner._side
        self._inner: Any = owner._clients[self._side].pubsub(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_inner" not in self.__dict__:
            raise AttributeError(name)
        found = getattr(self._inner, name)
        if not name.endswith("subscribe"):
            return found

        async def subscribe(*args: Any, **kwargs: Any) -> Any:
            await self._follow()
            return await getattr(self._inner, name)(*args, **kwargs)

        return subscribe

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._inner.aclose()

    async def get_message(self, ignore_subscribe_messages: bool = False, timeout: float | None = 0.0) -> Any:
        """As redis.asyncio.client.PubSub has it."""
        return await self._get("get_message", ignore_subscribe_messages, timeout)

    async def get_sharded_message(self, ignore_subscribe_messages: bool = False, timeout: float | None = 0.0, **kwargs: Any) -> Any:
        """As redis.asyncio.cluster.ClusterPubSub has it."""
        return await self._get("get_sharded_message", ignore_subscribe_messages, timeout, **kwargs)

    async def listen(self) -> AsyncIterator[Any]:
        """As redis.asyncio.client.PubSub has it."""
        while self._inner.subscribed:
            message = await self.get_message(timeout=None)
            if message is not None:
                yield message

    async def _get(self, name: str, ignore: bool, timeout: float | None, **kwargs: Any) -> Any:
        while True:
            if (await self._owner._route()).primary != self._side:
                message = await self._left(ignore)
                if message is not None:
                    return message
                await self._follow()
            message = await getattr(self._inner, name)(ignore, timeout=LISTEN_S if timeout is None else timeout, **kwargs)
            if message is not None or timeout is not None:
                return message

    async def _left(self, ignore: bool) -> Any:
        """A message that came before the switch."""
        with suppress(RedisError, OSError):  # the side that was used may be gone
            while self._inner.subscribed and (reply := await self._inner.parse_response(block=False, timeout=0)) is not None:
                message = await self._inner.handle_message(reply, ignore)
                if message is not None:
                    return message
        return None

    async def _follow(self) -> None:
        """Subscribe on the other side, where that is used by now."""
        side = (await self._owner._route()).primary
        if side == self._side:
            return
        client = self._owner._clients[side]
        await client.initialize()  # which knows the nodes then
        before, inner = self._inner, client.pubsub(**{name: each for name, each in self._kwargs.items() if name not in NODE})
        for kind, name in SUBSCRIPTIONS.items():
            names = dict(getattr(before, kind, ()))
            if names:
                await getattr(inner, name)(*names)
                getattr(inner, kind).update(names)  # with their handlers
        self._inner, self._side = inner, side
        await before.aclose()

"""`rdbkit.dual.Redis`: a client of the package redis that uses two servers at once.

It is a `redis.Redis`, with all its commands. Each command goes to the side that is used, by a plain client of that side; the keys
that it has written are then brought to the other side by a thread.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Self

from rdbkit.dual.calls import MAY_BE_DONE, Encoder, is_miss, plain_of
from rdbkit.dual.openers import shared_settings
from rdbkit.dual.pair import Route, given_sides, pair_of, split_arguments
from rdbkit.dual.states import Side
from rdbkit.dual.two_sided import BothSides
from rdbkit.live.login import missing_package
from rdbkit.targets.keyspecs import TABLE, Written

try:
    import redis
    from redis.client import Pipeline as PlainPipeline
    from redis.client import PubSub as PlainPubSub
    from redis.exceptions import DataError, ExecAbortError, RedisError, ResponseError, WatchError
except ImportError as e:
    raise missing_package(e) from None

__all__ = ["LISTEN_S", "Clients", "Pipeline", "Pipelined", "PubSub", "Redis", "TwoSided"]

#: How long a subscriber waits for a message before it looks whether the other side is used by now.
LISTEN_S: Final = 1.0


class Clients(dict[Side, Any]):
    """Plain clients of the two sides; one that connects when it is made is made when it is needed, since its side may be down."""

    def __init__(self, made: Mapping[Side, Any] | None = None, make: Mapping[Side, Callable[[], Any]] | None = None) -> None:
        super().__init__(made or {})
        self.make: dict[Side, Callable[[], Any]] = dict(make or {})

    def __missing__(self, side: Side) -> Any:
        found = self[side] = self.make[side]()
        return found


class TwoSided(BothSides):
    """What makes a client of the package redis one for two servers: commands go to the side that is used, by a plain client."""

    _clients: Clients

    # -- the side that is used

    @property
    def _primary(self) -> Any:
        return self._clients[self.dual.route.primary]

    def __enter__(self) -> Self:
        return self

    def close(self) -> None:
        """Close the clients of both sides, but for those that were given.

        What was written goes on to be brought to the other side; `dual.drain` waits for it.
        """
        for side, client in self.__dict__.get("_clients", {}).items():
            if side not in self._given:
                client.close()

    # -- commands

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command to the side that is used, and see to it that what it has written comes to the other side."""
        pair = self.dual
        route = pair.route
        kind, at = plain_of(args[0])
        if route.is_alone or (kind == "read" and route.is_plain):
            return self._clients[route.primary].execute_command(*args, **options)
        if at:
            keys = args[1:] if at < 0 else args[at : at + 1]
            route = pair.enter()
            try:
                reply = self._clients[route.primary].execute_command(*args, **options)
            except BaseException as e:
                if at < 0 or not isinstance(e, ResponseError):  # it may have been done, or a part of it by a node of a cluster
                    pair.wrote_keys(route, map(self._encode, keys))
                raise
            else:
                pair.wrote_keys(route, map(self._encode, keys))
                return reply
            finally:
                pair.leave()
        return self._execute(args, options)

    def _execute(self, args: Any, options: Any) -> Any:
        """The reply to a command of which more is to be known than its name."""
        pair = self.dual
        arguments = self._encode.arguments(args)
        written = TABLE.written(arguments)
        if written.kind == "read":
            return self._read(pair.route, TABLE.reads(arguments), arguments, args, options)
        if written.kind == "blocking-write":
            return self._wait(written, args, options)
        route = pair.enter()
        try:
            reply = self._clients[route.primary].execute_command(*args, **options)
        except BaseException as e:
            if written.kind in MAY_BE_DONE or not isinstance(e, ResponseError):  # it may have been done, or a part of it
                pair.wrote(route, written, arguments)
            raise
        else:
            pair.wrote(route, written, arguments)
            return reply
        finally:
            pair.leave()

    def _wait(self, written: Written, args: Any, options: Any) -> Any:
        """The reply to a command that may wait for long, so that no switch waits for it."""
        route = self.dual.route
        try:
            reply = self._clients[route.primary].execute_command(*args, **options)
        except ResponseError:
            raise
        except BaseException:
            self.dual.wrote(route, written)
            raise
        if reply is not None:
            self.dual.wrote(route, written)
        return reply

    def _read(self, route: Route, keys: Sequence[bytes], arguments: Sequence[bytes], args: Any, options: Any) -> Any:
        """The reply to a read of which both sides may be asked."""
        pair = self.dual
        client = self._clients[route.primary]
        if not keys:
            return client.execute_command(*args, **options)
        if route.compares:
            pair.compare(route, keys, arguments)
        if route.second is None:
            return client.execute_command(*args, **options)
        if route.primary == "new":
            reply = client.execute_command(*args, **options)
            if not is_miss(reply) or not pair.may_fall_back(route, keys):
                return reply
            pair.metrics.count("fallbacks")
            return self._ask_beside("old", args, options, reply)
        if pair.is_dialled(route, keys):
            reply = self._ask_beside("new", args, options, None)
            if not is_miss(reply):
                return reply
            pair.metrics.count("fallbacks")
        return client.execute_command(*args, **options)

    def _ask_beside(self, side: Side, args: Any, options: Any, otherwise: Any) -> Any:
        """The reply of a side that may be down; `otherwise` where there is none."""
        pair = self.dual
        if not pair.is_up(side):
            return otherwise
        try:
            reply = self._clients[side].execute_command(*args, **options)
        except RedisError as e:
            pair.failed(side, e)
            return otherwise
        pair.metrics.count("misses" if is_miss(reply) else "reads", 1, side)
        return reply


class Redis(TwoSided, redis.Redis):
    """A `redis.Redis` for two servers: it takes what that takes, for the old one, and what is said of the new one.

    All clients that a process has of the same two servers share what is in `dual`: the state, the marks, the metrics.

    Args:
        args, kwargs: as for `redis.Redis`, for the old server.
        new: the URL of the new server, or a client of it. What connections have in common, as timeouts and `decode_responses`, is
            taken from the old server's client where it is a URL.
        old: a client of the old server, instead of the arguments of one.
        name: of the move: processes that are given the same name are in the same state.
        state: where the state is kept; see `rdbkit.dual.state_store.open_store`.
        look_s: seconds between two looks at it.
        open_old, open_new: open the servers for our own threads, by `rdbkit.live.server.connect`; needed only where that cannot be
            told from the clients.
        mirror, fallback, compare, publish, ...: see `rdbkit.dual.pair.Options`.

    Raises: ValueError where the two do not go together; with the first command TargetError where the state cannot be read.

    Example:
        cache = Redis(host="old.example", new="rediss://:secret@new.example:10000", name="sessions", decode_responses=True)
        cache.set("k", "v", ex=3600)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        ours, theirs = split_arguments({**self._bound, **kwargs})
        old, new = ours.pop("old", None), ours.pop("new", None)
        if new is None:
            raise ValueError("name the new server: new=URL, or a client of it")
        self._given = given_sides(old, new)
        self._begin(redis.Redis(*args, **theirs) if old is None else old, new, ours)

    def _begin(self, old: Any, new: Any, ours: dict[str, Any]) -> None:
        if isinstance(new, str):
            new = redis.Redis.from_url(new, **shared_settings(old))
        self._clients = Clients({"old": old, "new": new})
        self._encode = Encoder(old)
        self.dual = pair_of(old, new, **ours)

    @classmethod
    def from_url(cls, url: str, **kwargs: Any) -> Self:
        """As `redis.Redis.from_url`, for the old server; the new one is an argument of its own."""
        ours, theirs = split_arguments({**cls._bound, **kwargs})
        made = cls(old=redis.Redis.from_url(url, **theirs), **ours)
        made._given -= {"old"}
        return made

    @classmethod
    def from_pool(cls, connection_pool: Any, **kwargs: Any) -> Self:
        """As `redis.Redis.from_pool`, for the old server; the new one is an argument of its own."""
        old = redis.Redis(connection_pool=connection_pool)
        old.auto_close_connection_pool = True  # as from_pool does, which redis-py 5.0.0 has not
        made = cls(old=old, **kwargs)
        made._given -= {"old"}
        return made

    @property
    def connection_pool(self) -> Any:  # type: ignore[override]
        """The pool of the side that is used now."""
        client: Any = self._primary
        if isinstance(client, redis.RedisCluster):
            client = client.get_redis_connection(client.get_default_node())  # type: ignore[no-untyped-call]
        return client.connection_pool

    def client(self) -> Any:
        """A client with one connection, as redis.Redis has it."""
        single = type(self).__new__(type(self))
        single._clients = Clients(make={side: each.client for side, each in self._clients.items()})
        single._encode, single.dual = self._encode, self.dual
        return single

    # -- several commands

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """As redis.Redis has it; all of its commands go to the side that is used when it is executed."""
        return Pipeline(self, transaction, shard_hint)

    def pubsub(self, **kwargs: Any) -> PubSub:
        """As redis.Redis has it, on the side that is used; goes over to the other one when that is used."""
        return PubSub(self, **kwargs)

    def json(self, *args: Any, **kwargs: Any) -> Any:
        """As redis.Redis has it."""
        return self._with_pipeline(super().json(*args, **kwargs))

    def ft(self, *args: Any, **kwargs: Any) -> Any:
        """As redis.Redis has it."""
        return self._with_pipeline(super().ft(*args, **kwargs))

    def ts(self) -> Any:
        """As redis.Redis has it."""
        return self._with_pipeline(super().ts())

    def _with_pipeline(self, commands: Any) -> Any:
        """Commands of a module, whose pipelines are ours."""
        plain = commands.pipeline

        def pipeline(transaction: bool = True, shard_hint: Any = None) -> Any:
            made = plain(transaction, shard_hint)
            kind = type(made)
            made.__class__ = type(kind.__name__, (Pipelined, kind), {})
            made.begin(self, made.response_callbacks)
            return made

        commands.pipeline = pipeline
        return commands


class Pipelined:
    """What makes a pipeline of the package redis one for two servers: commands are kept here, and sent by a plain pipeline."""

    command_stack: list[Any]
    scripts: Any
    explicit_transaction: bool
    transaction: bool
    shard_hint: Any

    def begin(self, owner: TwoSided, callbacks: Any = None) -> None:
        """Be a pipeline of a client.

        Args:
            owner: the client.
            callbacks: what makes Python objects of replies; None for those of the side that is used.
        """
        self._owner = owner
        self._callbacks = callbacks
        self._inner: Any = None
        self._side: Side = "old"

    @property
    def connection_pool(self) -> Any:
        """The pool of the side that is used."""
        return self._owner.connection_pool

    @connection_pool.setter
    def connection_pool(self, pool: Any) -> None:
        """A plain pipeline is given one."""

    @property
    def watching(self) -> bool:
        """Whether keys are watched."""
        return self._inner is not None and bool(self._inner.watching)

    @watching.setter
    def watching(self, watching: bool) -> None:
        """The plain pipeline knows it."""

    def _enter(self) -> tuple[Any, Route]:
        """The plain pipeline, of the side that is used since keys are watched, and where it goes; `Pair.leave` must follow."""
        route = self._owner.dual.enter()
        if self._inner is None:
            self._side = route.primary
            try:
                self._inner = self._owner._clients[route.primary].pipeline(self.transaction, self.shard_hint)
            except BaseException:
                self._owner.dual.leave()
                raise
            if self._callbacks is not None:
                self._inner.response_callbacks = self._callbacks
        elif self._side != route.primary:
            self._owner.dual.leave()
            self.reset()
            raise WatchError("the other cache is used since keys are watched")
        return self._inner, route

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Send a command at once, on the connection that watches."""
        inner, route = self._enter()
        try:
            return inner.execute_command(*args, **options)
        finally:
            self._wrote(route, [(args, options)])
            self._owner.dual.leave()

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """As a plain pipeline, on the side that is used."""
        stack = self.command_stack
        if not stack and not self.watching:
            return []
        inner, route = self._enter()
        try:
            if self.explicit_transaction:
                inner.multi()
            for args, options in stack:
                inner.execute_command(*args, **self._options(options))
            inner.scripts = self.scripts
            try:
                replies: list[Any] = inner.execute(raise_on_error)
            except (WatchError, ExecAbortError):
                raise  # nothing was done
            except BaseException:
                self._wrote(route, stack)
                raise
            self._wrote(route, stack)
            return replies
        finally:
            self._owner.dual.leave()
            self.reset()

    def _options(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options of a command, for the plain pipeline."""
        return options

    def _wrote(self, route: Route, stack: Sequence[tuple[Any, Any]]) -> None:
        """Mark what these commands may have written: one that has failed does no harm by it."""
        if route.marks is not None:
            for args, _ in stack:
                with suppress(DataError):  # which was not sent
                    arguments = self._owner._encode.arguments(args)
                    self._owner.dual.wrote(route, TABLE.written(arguments), arguments)

    def reset(self) -> None:
        """Forget what was queued and watched."""
        self.command_stack = []
        self.scripts = set()
        self.explicit_transaction = False
        inner, self._inner = self.__dict__.get("_inner"), None
        if inner is not None:
            inner.reset()


class Pipeline(Pipelined, PlainPipeline):  # type: ignore[misc]
    """A `redis.client.Pipeline` for two servers."""

    def __init__(self, owner: Redis, transaction: bool, shard_hint: Any) -> None:
        self.begin(owner)
        super().__init__(owner.connection_pool, owner.response_callbacks, transaction, shard_hint)


class PubSub(PlainPubSub):
    """A `redis.client.PubSub` on the side that is used; on a switch it subscribes on the other one."""

    connection: Any

    def __init__(self, owner: Redis, **kwargs: Any) -> None:
        self._owner = owner
        self._side = owner.dual.route.primary
        super().__init__(owner.connection_pool, **kwargs)

    def execute_command(self, *args: Any) -> None:
        """As redis.PubSub has it."""
        self._follow()
        super().execute_command(*args)  # type: ignore[no-untyped-call]

    def parse_response(self, block: bool = True, timeout: float = 0) -> Any:
        """As redis.PubSub has it; looks now and then which side is used."""
        while True:
            if self.connection is not None and self._other_side() is not None:
                with suppress(RedisError, OSError):  # the old side may be gone
                    reply = super().parse_response(block=False, timeout=0)  # type: ignore[no-untyped-call]
                    if reply is not None:
                        return reply  # which came before the switch
            self._follow()
            reply = super().parse_response(  # type: ignore[no-untyped-call]
                block=False, timeout=LISTEN_S if block else timeout
            )
            if reply is not None or not block:
                return reply

    def _other_side(self) -> Side | None:
        """The side that is used by now, where that is not the one of this connection."""
        side = self._owner.dual.route.primary
        return None if side == self._side else side

    def _follow(self) -> None:
        """Subscribe on the other side, where that is used by now."""
        side = self._other_side()
        if side is None:
            return
        subscribed = self.channels, self.patterns, self.shard_channels
        self.reset()
        self._side = side
        self.connection_pool = self._owner.connection_pool
        self.channels, self.patterns, self.shard_channels = subscribed
        self.on_connect(None)  # which subscribes to what there was before

"""What clients of two caches have in common, whether they serve threads or asyncio, one server or a cluster."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

from rdbkit.dual.calls import Encoder
from rdbkit.dual.pair import Pair
from rdbkit.dual.states import Side

__all__ = ["BothSides"]


class BothSides:
    """A plain client of each side, and what is asked of or said to both."""

    #: What all clients of a class are given; see `bound`.
    _bound: ClassVar[Mapping[str, Any]] = {}
    #: Sides whose clients are the user's, who closes them.
    _given: frozenset[Side] = frozenset()
    _clients: Mapping[Side, Any]
    _encode: Encoder
    dual: Pair

    @classmethod
    def bound(cls, **kwargs: Any) -> type[Self]:
        """A class whose clients are given these arguments, for frameworks that take a class, and give it the old server alone.

        Example:
            Cache = Redis.bound(new="rediss://new.example:10000", name="sessions")
            Cache.from_url("redis://old.example")
        """
        return type(cls.__name__, (cls,), {"_bound": {**cls._bound, **kwargs}, "__module__": cls.__module__})

    @classmethod
    def from_urls(cls, old: str, new: str, **kwargs: Any) -> Self:
        """A client of the servers at two URLs; the other arguments are those of `from_url`."""
        return cls.from_url(old, new=new, **kwargs)

    @classmethod
    def from_url(cls, url: str, **kwargs: Any) -> Self:
        """As the package redis has it, for the old server; the new one is an argument of its own."""
        raise NotImplementedError

    @property
    def _primary(self) -> Any:
        """The client of the side that is used."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "_clients" not in self.__dict__ or "dual" not in self.__dict__:
            raise AttributeError(name)
        return getattr(self._primary, name)

    def __repr__(self) -> str:
        clients = self.__dict__.get("_clients", {})
        return f"<{type(self).__module__}.{type(self).__name__}(old={clients.get('old')!r}, new={clients.get('new')!r})>"

    def set_response_callback(self, command: str, callback: Callable[..., Any]) -> None:
        """As the package redis has it, for both sides."""
        for client in self._clients.values():
            client.set_response_callback(command, callback)

    def set_retry(self, retry: Any) -> None:
        """As the package redis has it, for both sides."""
        for client in self._clients.values():
            client.set_retry(copy.deepcopy(retry))

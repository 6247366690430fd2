"""Two caches at once: what an application writes to one is brought to the other, until it has moved, and back if need be."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rdbkit.dual.client import Redis
    from rdbkit.dual.states import Setting, State

__all__ = ["Redis", "Setting", "State"]

# what each is in: the package redis is imported when a client is asked for
_MODULES: Final = {"Redis": "client", "Setting": "states", "State": "states"}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'rdbkit.dual' has no attribute {name!r}")
    return getattr(import_module(f"rdbkit.dual.{_MODULES[name]}"), name)

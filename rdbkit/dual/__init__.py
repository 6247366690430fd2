"""Two caches at once: what an application writes to one is brought to the other, until it has moved, and back if need be."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from rdbkit.dual.client import Redis
    from rdbkit.dual.cluster import RedisCluster
    from rdbkit.dual.states import Setting, State
    from rdbkit.dual.status import DualStatus, dual_status
    from rdbkit.dual.switch import DualSwitch, dual_switch

__all__ = ["DualStatus", "DualSwitch", "Redis", "RedisCluster", "Setting", "State", "dual_status", "dual_switch"]

# what each is in: the package redis is imported when a client is asked for
_MODULES: Final = {
    "DualStatus": "status", "DualSwitch": "switch", "Redis": "client", "RedisCluster": "cluster",
    "Setting": "states", "State": "states", "dual_status": "status", "dual_switch": "switch",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'rdbkit.dual' has no attribute {name!r}")
    return getattr(import_module(f"rdbkit.dual.{_MODULES[name]}"), name)

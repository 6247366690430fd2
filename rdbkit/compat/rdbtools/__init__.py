"""The callbacks and the parser of rdbtools 0.1.15, on every RDB version that rdbkit reads: import this in its place.

    from rdbkit.compat.rdbtools import RdbCallback, RdbParser

The modules have the names that they have there. The page "From rdbtools to rdbkit" tells what differs.
"""

from __future__ import annotations

from rdbkit.compat.rdbtools.callbacks import DiffCallback, JSONCallback, KeysOnlyCallback, KeyValsOnlyCallback, ProtocolCallback
from rdbkit.compat.rdbtools.memprofiler import MemoryCallback, MemoryRecord, PrintAllKeys, PrintJustKeys, StatsAggregator
from rdbkit.compat.rdbtools.parser import RdbCallback, RdbParser

__all__ = [
    "DiffCallback",
    "JSONCallback",
    "KeyValsOnlyCallback",
    "KeysOnlyCallback",
    "MemoryCallback",
    "MemoryRecord",
    "PrintAllKeys",
    "PrintJustKeys",
    "ProtocolCallback",
    "RdbCallback",
    "RdbParser",
    "StatsAggregator",
]

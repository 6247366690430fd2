"""rdbkit reads Redis and Valkey snapshot files (RDB) as a stream.

import rdbkit

with rdbkit.open("dump.rdb") as snapshot:
    for record in snapshot:
        print(record.db, record.key, record.type)
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from rdbkit import loading  # noqa: F401 (it chooses the form of what follows, and so comes first)
from rdbkit.errors import (
    ChangedError,
    ChecksumError,
    CorruptError,
    LimitError,
    LossError,
    RdbError,
    TargetError,
    TruncatedError,
    UnsupportedTypeError,
    UnsupportedVersionError,
)
from rdbkit.format.modules import module_values
from rdbkit.format.record import Record
from rdbkit.model import (
    Aux,
    Checksum,
    Event,
    FunctionLibrary,
    HashTemplate,
    Header,
    KeyMetadata,
    ModuleAux,
    ResizeDb,
    SelectDb,
    SlotImport,
    SlotInfo,
    Trailer,
)
from rdbkit.selection import Selection
from rdbkit.snapshot.reader import Limits, Snapshot
from rdbkit.snapshot.reader import open_snapshot as open  # noqa: A004 (the name that users of gzip and tarfile expect)
from rdbkit.snapshot.writer import Writer, create
from rdbkit.values import (
    Array,
    CronJob,
    Hash,
    ModuleValue,
    PendingEntry,
    Set,
    Stream,
    StreamConsumer,
    StreamDedup,
    StreamEntry,
    StreamGroup,
    StreamId,
    StreamTail,
)

if TYPE_CHECKING:
    from rdbkit.operations.build import build
    from rdbkit.operations.check import Check, Finding, check
    from rdbkit.operations.convert import Conversion, convert
    from rdbkit.operations.diff import Diff, Difference, diff
    from rdbkit.operations.diff_delta import Delta, FunctionDifference
    from rdbkit.operations.duplicates import DuplicateError
    from rdbkit.operations.memory import Memory, MemoryRow, memory, memory_rows
    from rdbkit.operations.merge import Merge, merge
    from rdbkit.operations.plan import Plan, plan
    from rdbkit.operations.redact import Redaction, redact
    from rdbkit.operations.salvage import Salvage, salvage
    from rdbkit.operations.split import Division, Split, split
    from rdbkit.operations.verify import Verification, Violation, verify
    from rdbkit.policy.ledger import Ledger, Loss
    from rdbkit.policy.rules import Edits, Policies
    from rdbkit.policy.script import ScriptRecord

__all__ = [
    "Array",
    "Aux",
    "ChangedError",
    "Check",
    "Checksum",
    "ChecksumError",
    "Conversion",
    "CorruptError",
    "CronJob",
    "Delta",
    "Diff",
    "Difference",
    "Division",
    "DuplicateError",
    "Edits",
    "Event",
    "Finding",
    "FunctionDifference",
    "FunctionLibrary",
    "Hash",
    "HashTemplate",
    "Header",
    "KeyMetadata",
    "Ledger",
    "LimitError",
    "Limits",
    "Loss",
    "LossError",
    "Memory",
    "MemoryRow",
    "Merge",
    "ModuleAux",
    "ModuleValue",
    "PendingEntry",
    "Plan",
    "Policies",
    "RdbError",
    "Record",
    "Redaction",
    "ResizeDb",
    "Salvage",
    "ScriptRecord",
    "SelectDb",
    "Selection",
    "Set",
    "SlotImport",
    "SlotInfo",
    "Snapshot",
    "Split",
    "Stream",
    "StreamConsumer",
    "StreamDedup",
    "StreamEntry",
    "StreamGroup",
    "StreamId",
    "StreamTail",
    "TargetError",
    "Trailer",
    "TruncatedError",
    "UnsupportedTypeError",
    "UnsupportedVersionError",
    "Verification",
    "Violation",
    "Writer",
    "build",
    "check",
    "convert",
    "create",
    "diff",
    "memory",
    "memory_rows",
    "merge",
    "module_values",
    "open",
    "plan",
    "redact",
    "salvage",
    "split",
    "verify",
]

#: The module of each name that is imported when it is asked for: reading a snapshot takes none of them.
_MODULES = {
    "Check": "operations.check",
    "Conversion": "operations.convert",
    "Delta": "operations.diff_delta",
    "Diff": "operations.diff",
    "Difference": "operations.diff",
    "Division": "operations.split",
    "ScriptRecord": "policy.script",
    "DuplicateError": "operations.duplicates",
    "Edits": "policy.rules",
    "Finding": "operations.check",
    "FunctionDifference": "operations.diff_delta",
    "Ledger": "policy.ledger",
    "Loss": "policy.ledger",
    "Memory": "operations.memory",
    "MemoryRow": "operations.memory",
    "Merge": "operations.merge",
    "Plan": "operations.plan",
    "Policies": "policy.rules",
    "Redaction": "operations.redact",
    "Salvage": "operations.salvage",
    "Split": "operations.split",
    "Verification": "operations.verify",
    "Violation": "operations.verify",
    "build": "operations.build",
    "check": "operations.check",
    "convert": "operations.convert",
    "diff": "operations.diff",
    "memory": "operations.memory",
    "memory_rows": "operations.memory",
    "merge": "operations.merge",
    "plan": "operations.plan",
    "redact": "operations.redact",
    "salvage": "operations.salvage",
    "split": "operations.split",
    "verify": "operations.verify",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'rdbkit' has no attribute {name!r}")
    return getattr(import_module(f"rdbkit.{_MODULES[name]}"), name)

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
from rdbkit.record import Record
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
    from rdbkit.operations.delta import Delta, FunctionDifference
    from rdbkit.operations.diff import Diff, Difference, diff
    from rdbkit.operations.duplicates import DuplicateError
    from rdbkit.operations.ledger import Ledger, Loss
    from rdbkit.operations.memory import Memory, MemoryRow, memory, memory_rows
    from rdbkit.operations.merge import Merge, merge
    from rdbkit.operations.plan import Plan, plan
    from rdbkit.operations.redact import Redaction, redact
    from rdbkit.operations.rules import Edits, Policies
    from rdbkit.operations.salvage import Salvage, salvage
    from rdbkit.operations.script import Draft
    from rdbkit.operations.split import Division, Split, split
    from rdbkit.operations.verify import Verification, Violation, verify

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
    "Draft",
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

#: Where the names of operations are, which are imported when they are asked for: to read a snapshot takes none of them.
_OPERATIONS = {
    "Check": "check",
    "Conversion": "convert",
    "Delta": "delta",
    "Diff": "diff",
    "Difference": "diff",
    "Division": "split",
    "Draft": "script",
    "DuplicateError": "duplicates",
    "Edits": "rules",
    "Finding": "check",
    "FunctionDifference": "delta",
    "Ledger": "ledger",
    "Loss": "ledger",
    "Memory": "memory",
    "MemoryRow": "memory",
    "Merge": "merge",
    "Plan": "plan",
    "Policies": "rules",
    "Redaction": "redact",
    "Salvage": "salvage",
    "Split": "split",
    "Verification": "verify",
    "Violation": "verify",
    "build": "build",
    "check": "check",
    "convert": "convert",
    "diff": "diff",
    "memory": "memory",
    "memory_rows": "memory",
    "merge": "merge",
    "plan": "plan",
    "redact": "redact",
    "salvage": "salvage",
    "split": "split",
    "verify": "verify",
}


def __getattr__(name: str) -> Any:
    if name not in _OPERATIONS:
        raise AttributeError(f"module 'rdbkit' has no attribute {name!r}")
    return getattr(import_module(f"rdbkit.operations.{_OPERATIONS[name]}"), name)

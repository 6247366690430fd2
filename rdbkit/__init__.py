"""rdbkit reads Redis and Valkey snapshot files (RDB) as a stream.

import rdbkit

with rdbkit.open("dump.rdb") as snapshot:
    for record in snapshot:
        print(record.db, record.key, record.type)
"""

from rdbkit.errors import (
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

__all__ = [
    "Array",
    "Aux",
    "Checksum",
    "ChecksumError",
    "CorruptError",
    "CronJob",
    "Event",
    "FunctionLibrary",
    "Hash",
    "HashTemplate",
    "Header",
    "KeyMetadata",
    "LimitError",
    "Limits",
    "LossError",
    "ModuleAux",
    "ModuleValue",
    "PendingEntry",
    "RdbError",
    "Record",
    "ResizeDb",
    "SelectDb",
    "Selection",
    "Set",
    "SlotImport",
    "SlotInfo",
    "Snapshot",
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
    "Writer",
    "create",
    "module_values",
    "open",
]

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
from rdbkit.snapshot.reader import Limits, Snapshot
from rdbkit.snapshot.reader import open_snapshot as open  # noqa: A004 (the name that users of gzip and tarfile expect)

__all__ = [
    "Aux",
    "Checksum",
    "ChecksumError",
    "CorruptError",
    "Event",
    "FunctionLibrary",
    "HashTemplate",
    "Header",
    "KeyMetadata",
    "LimitError",
    "Limits",
    "LossError",
    "ModuleAux",
    "RdbError",
    "Record",
    "ResizeDb",
    "SelectDb",
    "SlotImport",
    "SlotInfo",
    "Snapshot",
    "TargetError",
    "Trailer",
    "TruncatedError",
    "UnsupportedTypeError",
    "UnsupportedVersionError",
    "open",
]

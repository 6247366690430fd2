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
    AofBase,
    Aux,
    Checksum,
    EnterpriseHint,
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
    from rdbkit.azure.abort_upload import AbortedUpload, abort_upload
    from rdbkit.azure.cache_export import begin_export, export_cache, prepare_export, wait_for_export
    from rdbkit.azure.cache_import import ImportPlan, begin_import, import_, prepare_import, wait_for
    from rdbkit.azure.credentials import Credentials
    from rdbkit.azure.migrate import Migration, migrate
    from rdbkit.azure.pending_operation import PendingOperation
    from rdbkit.azure.resources import Arm, parse_resource_id
    from rdbkit.azure.upload import Upload, upload
    from rdbkit.live.copy import Copied, copy
    from rdbkit.live.follow import Follow, Followed, Follower
    from rdbkit.live.login import entra_credentials
    from rdbkit.live.server import connect
    from rdbkit.live.snapshot import NodeSnapshot, ServerSnapshot, snapshot_server
    from rdbkit.live.sync import Synced, sync
    from rdbkit.live.verify_copy import ComparedDatabase, CopyDifference, CopyProof, verify_copy
    from rdbkit.live.verify_import import ImportDifference, ImportedDatabase, ImportProof, verify_import
    from rdbkit.operations.build import Build, build
    from rdbkit.operations.check import Check, Finding, check, check_shards
    from rdbkit.operations.commands import RespWriter
    from rdbkit.operations.convert import Conversion, convert
    from rdbkit.operations.diff import Diff, Difference, ModuleDataDifference, diff
    from rdbkit.operations.diff_delta import Delta, FunctionDifference
    from rdbkit.operations.duplicates import DuplicateError
    from rdbkit.operations.export import Export, export, export_jsonl, export_resp
    from rdbkit.operations.fold import Fold, fold
    from rdbkit.operations.get import get
    from rdbkit.operations.info import Info, info
    from rdbkit.operations.keys import keys, write_columns, write_parquet, write_text
    from rdbkit.operations.memory import Memory, MemoryRow, distinct_prefixes, memory, memory_rows, write_memory_text
    from rdbkit.operations.memory_page import write_page
    from rdbkit.operations.merge import Merge, merge
    from rdbkit.operations.plan import Plan, plan
    from rdbkit.operations.plan_bicep import bicep
    from rdbkit.operations.plan_terraform import terraform
    from rdbkit.operations.redact import Redaction, redact
    from rdbkit.operations.resource_names import Names
    from rdbkit.operations.salvage import Salvage, salvage
    from rdbkit.operations.split import Division, Split, parse_slot_parts, split
    from rdbkit.operations.value_json import value_json
    from rdbkit.operations.verify import Rule, Verification, Violation, rules, verify
    from rdbkit.passes.keys import KeyRow
    from rdbkit.policy.ledger import Ledger, Loss
    from rdbkit.policy.rules import Edits, Policies
    from rdbkit.policy.script import ScriptRecord
    from rdbkit.selection import parse_dbs, parse_expires, parse_sample, parse_size, parse_slots, parse_ttl
    from rdbkit.storage.blob_url import BlobUrl, parse_place
    from rdbkit.storage.output import open_output
    from rdbkit.storage.store_settings import StoreSettings, store_settings
    from rdbkit.targets.facts import Fact
    from rdbkit.targets.target import Creation, Sku, Target, find_target, load_targets, target_names

    __version__: str

__all__ = [
    "AbortedUpload",
    "AofBase",
    "Arm",
    "Array",
    "Aux",
    "BlobUrl",
    "Build",
    "ChangedError",
    "Check",
    "Checksum",
    "ChecksumError",
    "ComparedDatabase",
    "Conversion",
    "Copied",
    "CopyDifference",
    "CopyProof",
    "CorruptError",
    "Creation",
    "Credentials",
    "CronJob",
    "Delta",
    "Diff",
    "Difference",
    "Division",
    "DuplicateError",
    "Edits",
    "EnterpriseHint",
    "Event",
    "Export",
    "Fact",
    "Finding",
    "Fold",
    "Follow",
    "Followed",
    "Follower",
    "FunctionDifference",
    "FunctionLibrary",
    "Hash",
    "HashTemplate",
    "Header",
    "ImportDifference",
    "ImportPlan",
    "ImportProof",
    "ImportedDatabase",
    "Info",
    "KeyMetadata",
    "KeyRow",
    "Ledger",
    "LimitError",
    "Limits",
    "Loss",
    "LossError",
    "Memory",
    "MemoryRow",
    "Merge",
    "Migration",
    "ModuleAux",
    "ModuleDataDifference",
    "ModuleValue",
    "Names",
    "NodeSnapshot",
    "PendingEntry",
    "PendingOperation",
    "Plan",
    "Policies",
    "RdbError",
    "Record",
    "Redaction",
    "ResizeDb",
    "RespWriter",
    "Rule",
    "Salvage",
    "ScriptRecord",
    "SelectDb",
    "Selection",
    "ServerSnapshot",
    "Set",
    "Sku",
    "SlotImport",
    "SlotInfo",
    "Snapshot",
    "Split",
    "StoreSettings",
    "Stream",
    "StreamConsumer",
    "StreamDedup",
    "StreamEntry",
    "StreamGroup",
    "StreamId",
    "StreamTail",
    "Synced",
    "Target",
    "TargetError",
    "Trailer",
    "TruncatedError",
    "UnsupportedTypeError",
    "UnsupportedVersionError",
    "Upload",
    "Verification",
    "Violation",
    "Writer",
    "abort_upload",
    "begin_export",
    "begin_import",
    "bicep",
    "build",
    "check",
    "check_shards",
    "connect",
    "convert",
    "copy",
    "create",
    "diff",
    "distinct_prefixes",
    "entra_credentials",
    "export",
    "export_cache",
    "export_jsonl",
    "export_resp",
    "find_target",
    "fold",
    "get",
    "import_",
    "info",
    "keys",
    "load_targets",
    "memory",
    "memory_rows",
    "merge",
    "migrate",
    "module_values",
    "open",
    "open_output",
    "parse_dbs",
    "parse_expires",
    "parse_place",
    "parse_resource_id",
    "parse_sample",
    "parse_size",
    "parse_slot_parts",
    "parse_slots",
    "parse_ttl",
    "plan",
    "prepare_export",
    "prepare_import",
    "redact",
    "rules",
    "salvage",
    "snapshot_server",
    "split",
    "store_settings",
    "sync",
    "target_names",
    "terraform",
    "upload",
    "value_json",
    "verify",
    "verify_copy",
    "verify_import",
    "wait_for",
    "wait_for_export",
    "write_columns",
    "write_memory_text",
    "write_page",
    "write_parquet",
    "write_text",
]

#: The module of each name that is imported when it is asked for: reading a snapshot takes none of them.
_MODULES = {
    "AbortedUpload": "azure.abort_upload",
    "Arm": "azure.resources",
    "BlobUrl": "storage.blob_url",
    "Build": "operations.build",
    "Check": "operations.check",
    "Conversion": "operations.convert",
    "Copied": "live.copy",
    "Follow": "live.follow",
    "Followed": "live.follow",
    "Follower": "live.follow",
    "Creation": "targets.target",
    "Credentials": "azure.credentials",
    "Delta": "operations.diff_delta",
    "Diff": "operations.diff",
    "Difference": "operations.diff",
    "Division": "operations.split",
    "DuplicateError": "operations.duplicates",
    "Edits": "policy.rules",
    "Export": "operations.export",
    "Fact": "targets.facts",
    "Finding": "operations.check",
    "Fold": "operations.fold",
    "FunctionDifference": "operations.diff_delta",
    "ComparedDatabase": "live.verify_copy",
    "CopyDifference": "live.verify_copy",
    "CopyProof": "live.verify_copy",
    "Synced": "live.sync",
    "ImportDifference": "live.verify_import",
    "ImportPlan": "azure.cache_import",
    "ImportProof": "live.verify_import",
    "ImportedDatabase": "live.verify_import",
    "Info": "operations.info",
    "KeyRow": "passes.keys",
    "Ledger": "policy.ledger",
    "Loss": "policy.ledger",
    "Memory": "operations.memory",
    "MemoryRow": "operations.memory",
    "Merge": "operations.merge",
    "Migration": "azure.migrate",
    "ModuleDataDifference": "operations.diff",
    "Names": "operations.resource_names",
    "NodeSnapshot": "live.snapshot",
    "PendingOperation": "azure.pending_operation",
    "Plan": "operations.plan",
    "Policies": "policy.rules",
    "Redaction": "operations.redact",
    "RespWriter": "operations.commands",
    "Rule": "operations.verify",
    "Salvage": "operations.salvage",
    "ScriptRecord": "policy.script",
    "ServerSnapshot": "live.snapshot",
    "Sku": "targets.target",
    "Split": "operations.split",
    "Target": "targets.target",
    "Upload": "azure.upload",
    "Verification": "operations.verify",
    "Violation": "operations.verify",
    "abort_upload": "azure.abort_upload",
    "begin_export": "azure.cache_export",
    "begin_import": "azure.cache_import",
    "bicep": "operations.plan_bicep",
    "build": "operations.build",
    "check": "operations.check",
    "check_shards": "operations.check",
    "connect": "live.server",
    "convert": "operations.convert",
    "copy": "live.copy",
    "diff": "operations.diff",
    "entra_credentials": "live.login",
    "export": "operations.export",
    "export_cache": "azure.cache_export",
    "export_jsonl": "operations.export",
    "export_resp": "operations.export",
    "find_target": "targets.target",
    "fold": "operations.fold",
    "get": "operations.get",
    "import_": "azure.cache_import",
    "info": "operations.info",
    "keys": "operations.keys",
    "load_targets": "targets.target",
    "memory": "operations.memory",
    "memory_rows": "operations.memory",
    "merge": "operations.merge",
    "migrate": "azure.migrate",
    "open_output": "storage.output",
    "parse_dbs": "selection",
    "parse_expires": "selection",
    "parse_place": "storage.blob_url",
    "parse_resource_id": "azure.resources",
    "parse_sample": "selection",
    "parse_size": "selection",
    "parse_slot_parts": "operations.split",
    "parse_slots": "selection",
    "parse_ttl": "selection",
    "plan": "operations.plan",
    "prepare_export": "azure.cache_export",
    "prepare_import": "azure.cache_import",
    "redact": "operations.redact",
    "rules": "operations.verify",
    "salvage": "operations.salvage",
    "snapshot_server": "live.snapshot",
    "split": "operations.split",
    "StoreSettings": "storage.store_settings",
    "store_settings": "storage.store_settings",
    "target_names": "targets.target",
    "terraform": "operations.plan_terraform",
    "distinct_prefixes": "operations.memory",
    "upload": "azure.upload",
    "value_json": "operations.value_json",
    "verify": "operations.verify",
    "sync": "live.sync",
    "verify_copy": "live.verify_copy",
    "verify_import": "live.verify_import",
    "wait_for": "azure.cache_import",
    "wait_for_export": "azure.cache_export",
    "write_memory_text": "operations.memory",
    "write_page": "operations.memory_page",
    "write_columns": "operations.keys",
    "write_parquet": "operations.keys",
    "write_text": "operations.keys",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("rdbkit")
    if name not in _MODULES:
        raise AttributeError(f"module 'rdbkit' has no attribute {name!r}")
    return getattr(import_module(f"rdbkit.{_MODULES[name]}"), name)

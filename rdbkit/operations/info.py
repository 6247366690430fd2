"""`rdbkit info`: what is in a snapshot, and who loads it as it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from rdbkit.format import constants as c
from rdbkit.format.scan import STRING_INT, STRING_LZF
from rdbkit.model import TRAILING_DATA, AofBase, Header, aux_number
from rdbkit.operations.arguments import Source, opened
from rdbkit.passes.info import InfoTally
from rdbkit.products import joined, module_product, types_of
from rdbkit.selection import Selection
from rdbkit.snapshot.reader import Snapshot
from rdbkit.targets.releases import release_title
from rdbkit.targets.target import Target, load_targets
from rdbkit.text import count, json_bytes, json_object, valid_text

#: Names of the histogram's columns; a key counts in the first that fits.
EXPIRY_BUCKETS = ("expired", "1h", "1d", "7d", "30d", "later", "never")
#: Value types.
_MODULE: Final = 7
_LISTPACK_EX: Final = 25
#: The first RDB version that has each.
_EXPIRY_SINCE: Final = 3
_MODULES_SINCE: Final = 8
#: What follows a snapshot and would be missing.
_DATA_BEHIND: Final = ("aof", "replication", "snapshot")
_FUNCTIONS_SINCE: Final = 10
_FIELD_EXPIRY_SINCE: Final = 12
_KEY_METADATA_SINCE: Final = 13
#: What is left out of a stream, by its type, in files below the version that has the type.
_COUNTERS: Final = "below RDB {} some counters are left out, which servers then estimate"
_DEDUP: Final = "RDB versions below {} cannot represent idempotent producers and unowned pending entries"
_LEFT_OUT: Final = {19: _COUNTERS, 21: _COUNTERS, 26: _DEDUP, 27: _DEDUP}


@dataclass
class DatabaseInfo:
    """Keys of one database; `types` counts them by what TYPE would answer."""

    db: int
    keys: int
    expiring: int
    expired: int
    types: dict[str, int]


@dataclass
class TypeInfo:
    """Keys and bytes in the file of one type and stored form; `share` of all keys' bytes, 0 to 1."""

    type: str
    encoding: str
    rdb_type: int
    keys: int
    bytes: int
    share: float


@dataclass
class BigKey:
    """One of the keys that take the most bytes in the file."""

    db: int
    key: bytes
    type: str
    encoding: str
    bytes: int
    offset: int
    expire_ms: int | None


@dataclass
class ModuleInfo:
    """A module type: encoding version, keys, their bytes, bytes of data outside of keys, and what well-known product it is of.

    `is_empty`: there are no keys, and nothing is in the data outside of keys: the module was loaded, and not used.
    """

    name: str
    version: int
    keys: int
    bytes: int
    aux_bytes: int
    product: str | None = None
    is_empty: bool = False


@dataclass
class Loads:
    """Whether a target loads the file as it is: "yes", "undocumented", "partly" (some data is dropped) or "no", and why."""

    target: str
    title: str
    loads: str
    why: str


@dataclass
class Info:
    """All that `info` knows of one snapshot. Sizes in bytes, `created` in Unix seconds.

    Where `selected`, keys, types, expiries and what can hold or load them are those of the selected keys alone.
    """

    file: str
    flavour: str
    rdb_version: int
    compression: str | None
    ignored: int
    framing: str | None
    rdb_size: int
    writer: str | None
    writer_version: str | None
    created: int | None
    bits: int | None
    used_memory: int | None
    checksum: str
    trailer: str
    trailer_size: int | None
    aux: dict[str, str]
    keys: int
    expiring: int
    expired: int
    key_bytes: int
    databases: list[DatabaseInfo]
    types: list[TypeInfo]
    biggest: list[BigKey]
    expiry: dict[str, int]
    functions: list[dict[str, Any]]
    scripts: list[dict[str, Any]]
    modules: list[ModuleInfo]
    slots: int
    other: dict[str, int]
    needs_version: int
    lowest_version: int | None
    lowest_version_notes: list[str] = field(default_factory=list)
    loads_as_is: list[Loads] = field(default_factory=list)
    next: str = ""
    aof_base: AofBase | None = None
    selected: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON types; keys that are not UTF-8 as `{"base64": ...}`."""
        result = asdict(self)
        for row in result["biggest"]:
            row["key"] = json_bytes(row["key"])
        result["aux"] = json_object(self.aux.items())
        for name in ("writer", "writer_version"):
            result[name] = None if result[name] is None else valid_text(result[name])
        for library in result["functions"]:
            library["name"], library["engine"] = valid_text(library["name"]), valid_text(library["engine"])
            if "source" in library:
                library["source"] = json_bytes(library["source"])
        result["file"] = valid_text(self.file)
        result["aof_base"] = None
        if self.aof_base is not None:
            result["aof_base"] = {"newer": [valid_text(name) for name in self.aof_base.newer], "known": self.aof_base.known}
        return result


def info(
    snapshot: Source,
    *,
    top: int = 10,
    now_ms: int | None = None,
    selection: Selection | None = None,
    sources: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Info:
    """Read a snapshot to its end and report what is in it.

    Args:
        snapshot: a path, a file of bytes, or a snapshot that was just opened.
        top: how many of the biggest keys to report, by bytes in the file.
        now_ms: what counts as already expired, in Unix ms; by default the clock.
        selection: which keys to count; None for all.
        sources: have `source` of each library in `functions`, as FUNCTION LOAD takes it.
        progress: called after each block with the bytes of the underlying file read so far.

    Raises: RdbError where the file is damaged; OSError where the path cannot be opened; TypeError for what is no source.

    >>> report = info("fixtures/rich/redis-7.0.15.rdb")
    >>> report.writer_version, report.keys, report.lowest_version
    ('7.0.15', 27, 10)
    """
    with opened(snapshot) as source:
        return _info(source, top, now_ms, selection, sources, progress)


def _info(
    snapshot: Snapshot,
    top: int,
    now_ms: int | None,
    selection: Selection | None,
    sources: bool,
    progress: Callable[[int], object] | None,
) -> Info:
    # the largest key is wanted in any case: some targets refuse keys above a size
    now = int(time.time() * 1000) if now_ms is None else now_ms
    limit = snapshot.limits.item_bytes
    tally = InfoTally(now, max(top, 1), limit, selection.filter_for(snapshot.types, limit) if selection else None)
    is_of_enterprise = snapshot.is_of_redis_enterprise
    for _ in snapshot.scan(tally):
        if progress is not None:
            progress(snapshot.position)
    tally.sum_up()
    report = _report(snapshot, tally)
    _judge(report, snapshot, tally, is_of_enterprise)
    del report.biggest[top:]
    if sources:
        for row, library in zip(report.functions, tally.functions, strict=True):
            row["source"] = library.code
    report.selected = bool(selection)
    return report


def _writer(aux: dict[str, str]) -> tuple[str | None, str | None]:
    for key in aux:
        if key.endswith("-ver"):
            return key[:-4], aux[key]
    return None, None


def _names(type_code: int, snapshot: Snapshot) -> tuple[str, str]:
    if type_code in (STRING_INT, STRING_LZF):
        return "string", "int" if type_code == STRING_INT else "lzf"
    value_type = snapshot.types[type_code]
    return value_type.type, value_type.encoding


def _databases(snapshot: Snapshot, tally: InfoTally) -> list[DatabaseInfo]:
    """The databases that have keys, by number."""
    found = []
    for number in sorted(tally.databases):
        database = tally.databases[number]
        by_type: dict[str, int] = {}
        for type_code, (keys, _) in sorted(database.totals.items()):
            for name, n in _modules_in(tally, number) if type_code == _MODULE else [(_names(type_code, snapshot)[0], keys)]:
                by_type[name] = by_type.get(name, 0) + n
        if by_type:
            found.append(DatabaseInfo(number, sum(by_type.values()), database.expiring, database.expired, by_type))
    return found


def _modules_in(tally: InfoTally, number: int) -> list[tuple[str, int]]:
    """Module types in a database, with keys of each."""
    return [(name, keys) for (db, name, _), (keys, _) in tally.modules.items() if db == number]


def _modules(tally: InfoTally) -> list[ModuleInfo]:
    """Module types by their encoding: those that keys have, and behind them those that have data outside of keys alone."""
    found: dict[tuple[str, int], ModuleInfo] = {}

    def entry(name: str, encver: int) -> ModuleInfo:
        return found.setdefault((name, encver), ModuleInfo(name, encver, 0, 0, 0, module_product(name)))

    for (_, name, encver), (keys, size) in tally.modules.items():
        module = entry(name, encver)
        module.keys += keys
        module.bytes += size
    for (name, encver), size in tally.module_data.items():
        entry(name, encver).aux_bytes += size
    for module in found.values():
        module.is_empty = not module.keys and (module.name, module.version) not in tally.modules_in_use
    return list(found.values())


def _types(snapshot: Snapshot, tally: InfoTally, modules: list[ModuleInfo]) -> list[TypeInfo]:
    """Types and stored forms, what takes the most bytes first."""
    totals: dict[int, tuple[int, int]] = {}
    for _, database in sorted(tally.databases.items()):
        for type_code, (in_db, db_bytes) in sorted(database.totals.items()):
            keys, size = totals.get(type_code, (0, 0))
            totals[type_code] = (keys + in_db, size + db_bytes)
    key_bytes = sum(size for _, size in totals.values())
    types = [TypeInfo(m.name, "module", _MODULE, m.keys, m.bytes, m.bytes / key_bytes) for m in modules if m.keys]
    for type_code, (keys, size) in totals.items():
        if type_code != _MODULE:
            rdb_type = 0 if type_code >= STRING_INT else type_code
            types.append(TypeInfo(*_names(type_code, snapshot), rdb_type, keys, size, size / key_bytes))
    return sorted(types, key=lambda t: -t.bytes)


def _biggest(snapshot: Snapshot, tally: InfoTally) -> list[BigKey]:
    return [
        BigKey(db, key, *_names(type_code, snapshot), size, -offset, None if expire == -1 else expire)
        for size, offset, db, key, type_code, expire in sorted(tally.biggest, reverse=True)
    ]


def _report(snapshot: Snapshot, tally: InfoTally) -> Info:
    databases = _databases(snapshot, tally)
    modules = _modules(tally)
    types = _types(snapshot, tally, modules)
    keys = sum(d.keys for d in databases)
    expiring = sum(d.expiring for d in databases)
    counts = [*tally.buckets, int(tally.later), keys - expiring]
    writer, writer_version = _writer(snapshot.aux)
    checksum, trailer = snapshot.checksum, snapshot.trailer
    assert checksum is not None
    assert trailer is not None
    return Info(
        file=snapshot.name,
        flavour=snapshot.header.flavour,
        rdb_version=snapshot.header.version,
        compression=snapshot.compression,
        ignored=snapshot.ignored,
        framing=snapshot.framing,
        rdb_size=snapshot.rdb_size,
        writer=writer,
        writer_version=writer_version,
        created=aux_number(snapshot.aux.get("ctime")),
        bits=aux_number(snapshot.aux.get("redis-bits")),
        used_memory=aux_number(snapshot.aux.get("used-mem")),
        checksum=checksum.state,
        trailer=trailer.kind,
        trailer_size=trailer.size,
        aux=snapshot.aux,
        aof_base=snapshot.aof_base,
        keys=keys,
        expiring=expiring,
        expired=sum(d.expired for d in databases),
        key_bytes=sum(t.bytes for t in types),
        databases=databases,
        types=types,
        biggest=_biggest(snapshot, tally),
        expiry=dict(zip(EXPIRY_BUCKETS, counts, strict=True)),
        functions=[
            {"name": f.name, "engine": f.engine, "bytes": len(f.source), "pre_release": f.pre_release} for f in tally.functions
        ],
        scripts=[{"sha1": digest, "bytes": size} for digest, size in tally.scripts],
        modules=modules,
        slots=int(tally.slots),
        other={k: n for k, n in tally.events.items() if k in ("KeyMetadata", "SlotImport", "HashTemplate", "EnterpriseHint")},
        needs_version=0,
        lowest_version=None,
    )


def _judge(report: Info, snapshot: Snapshot, tally: InfoTally, is_of_enterprise: bool) -> None:
    """Fill in which RDB version the content needs, who loads the file, and what to do next."""
    used = {t.rdb_type: snapshot.types[t.rdb_type] for t in report.types}
    report.needs_version = max([1, *(t.since for t in used.values()), *([_FUNCTIONS_SINCE] if report.functions else [])])
    expiring_fields = _hashes_with_field_expiry(report, used, tally.without_field_expiry)
    report.lowest_version, report.lowest_version_notes = _lowest_version(report, used, expiring_fields)
    report.loads_as_is = [_loading(report, target, used, is_of_enterprise).answer() for target in load_targets()]
    report.next = _next(report)


def _hashes_with_field_expiry(report: Info, used: dict[int, c.ValueType], without: int) -> int:
    """Hashes that no encoding without field expiry holds; where all of type 25 are `without` one, a plain hash holds them."""
    rows = [row for row in report.types if _can_have_field_expiry(used[row.rdb_type])]
    return sum(row.keys for row in rows if row.rdb_type != _LISTPACK_EX or row.keys != without)


def _lowest_version(report: Info, used: dict[int, c.ValueType], expiring_fields: int) -> tuple[int | None, list[str]]:
    """The lowest RDB version that holds the content in some form, None where none does, and what is to be known of that.

    Args:
        used: value types of the file.
        expiring_fields: how many hashes have field expiry.
    """
    needs: list[int | None] = [1]
    notes = []
    if report.functions:
        needs.append(_FUNCTIONS_SINCE)
        notes.append("functions: only RDB 10 and above")
    if report.expiring:
        needs.append(_EXPIRY_SINCE)
    for t in used.values():
        if not _can_have_field_expiry(t):
            lowest, note = _lowest_of(t)
            needs.append(lowest)
            notes += [f"{t.name}: {note}"] if note else []
    if expiring_fields:
        needs.append(_FIELD_EXPIRY_SINCE)
        notes.append(f"{count(expiring_fields, 'hash')} with field expiry: only RDB 12 and above, or VALKEY080")
    if report.other.get("KeyMetadata"):
        needs.append(_KEY_METADATA_SINCE)
        notes.append("key metadata of modules: only RDB 13 and above")
    known = [version for version in needs if version is not None]
    return max(known) if len(known) == len(needs) else None, notes


def _can_have_field_expiry(t: c.ValueType) -> bool:
    """Whether it is a type of hashes whose fields can expire."""
    return t.type == "hash" and t.universal is None


def _lowest_of(t: c.ValueType) -> tuple[int | None, str]:
    """The lowest RDB version that holds a value type in some form, None where none does, and what is to be known of that."""
    if t.universal is not None:
        return t.universal, _LEFT_OUT[t.id].format(t.since) if t.id in _LEFT_OUT else ""
    if t.type == "module":
        return _MODULES_SINCE, ""
    if t in c.FOREIGN:
        return None, "no Redis or Valkey release reads it"
    return t.since, f"only RDB {t.since} and above"


def _loading(report: Info, target: Target, used: dict[int, c.ValueType], is_of_enterprise: bool) -> _Loading:
    own = None
    if target.redis_enterprise and is_of_enterprise:
        own = target.reading_export(Header(report.flavour, report.rdb_version), report.writer_version or "")
    return _Loading(report, own or target, used, own is not None)


@dataclass(frozen=True)
class _Loading:
    """The file of a report, as it is, before a target; `used` are its value types. `is_own`: the target wrote it itself."""

    report: Info
    target: Target
    used: dict[int, c.ValueType]
    is_own: bool = False

    def answer(self) -> Loads:
        """Whether the target loads the file: the first reason against it counts."""
        why_not = (
            self.refused_header()
            or self.refused_type()
            or self.refused_hints()
            or self.refused_functions()
            or self.refused_modules()
            or self.refused_size()
            or self.refused_compression()
            or self.refused_frame()
        )
        if why_not:
            return self.loads("no", why_not)
        dropped = self.dropped_databases() or self.dropped_trailer() or self.dropped_scripts()
        if dropped:
            return self.loads("partly", dropped)
        unsaid = self.is_undocumented or (self.has_hints and not self.is_own)
        return self.loads("undocumented" if unsaid else "yes", "; ".join(self.conditions()))

    def loads(self, word: str, why: str) -> Loads:
        return Loads(self.target.name, self.target.title, word, why)

    @property
    def is_redis(self) -> bool:
        return self.report.flavour == c.REDIS

    @property
    def is_undocumented(self) -> bool:
        """The engine knows the version, and the service does not promise it."""
        return self.is_redis and self.report.rdb_version in self.target.undocumented

    @property
    def missing_modules(self) -> list[str]:
        there = types_of(frozenset(self.target.modules))
        return [m.name for m in self.report.modules if m.name not in there]

    @property
    def highest_db(self) -> int:
        return max((d.db for d in self.report.databases), default=0)

    def refused_frame(self) -> str:
        return "a replication capture: rdbkit convert takes the snapshot out of it" if self.report.framing else ""

    def refused_header(self) -> str:
        version, target = self.report.rdb_version, self.target
        if not self.is_redis:
            return "" if version in target.valkey else f"VALKEY{version:03d} is Valkey's own version"
        return "" if version <= target.rdb or self.is_undocumented else f"RDB {version} is newer than RDB {target.rdb}"

    def refused_type(self) -> str:
        for type_code, t in self.used.items():
            if t.type == "module" or type_code in self.target.extra_types:
                continue
            if t.type == "gcra":
                return "rate limiters (GCRA) are in no released server"
            if self.is_unknown(type_code, t):
                return f"{t.name} (type {type_code}) is unknown to it"
        return ""

    def is_unknown(self, type_code: int, t: c.ValueType) -> bool:
        version, target = self.report.rdb_version, self.target
        if t in c.FOREIGN:
            return True
        if target.types is not None and type_code > target.types:
            return True
        return self.is_redis and t.since > (version if self.is_undocumented else target.rdb)

    @property
    def has_hints(self) -> bool:
        """Redis Enterprise wrote numbers of its own beside keys."""
        return "EnterpriseHint" in self.report.other

    def refused_hints(self) -> str:
        return "hints of Redis Enterprise are unknown to it" if self.has_hints and not self.target.redis_enterprise else ""

    def refused_functions(self) -> str:
        functions = self.report.functions
        if functions and self.target.rdb < _FUNCTIONS_SINCE:
            return "functions are unknown to it"
        if any(f["pre_release"] for f in functions) and not self.target.pre_release_functions:
            return "functions of a 7.0 release candidate, which it refuses"
        return ""

    def refused_modules(self) -> str:
        target, missing = self.target, self.missing_modules
        if missing and target.rdb < _MODULES_SINCE:
            return f"modules are unknown to it: {joined(missing)}"
        absent = [name for name in missing if name not in target.module_types]
        if not absent:
            return ""
        return f"does not offer {joined(absent)}" if target.is_service else f"needs {joined(absent)} loaded"

    def refused_size(self) -> str:
        most = self.target.max_key_bytes
        return "a key is larger than 2 GB" if most and any(k.bytes > most for k in self.report.biggest) else ""

    def refused_compression(self) -> str:
        packed = self.report.compression
        return "" if packed is None or self.target.takes_compressed(packed) else f"unpacked only: it is compressed with {packed}"

    def dropped_databases(self) -> str:
        target, highest = self.target, self.highest_db
        if target.single_db and highest > 0:
            return f"only database 0 is imported: {count(_beyond_first_db(self.report), 'key')} would be dropped silently"
        if target.databases is not None and highest >= target.databases:
            return f"database {highest} is beyond its {target.databases}: dropped silently"
        return ""

    def dropped_trailer(self) -> str:
        kind = self.report.trailer
        return f"what follows the snapshot ({TRAILING_DATA[kind]}) would be dropped silently" if kind in _DATA_BEHIND else ""

    def dropped_scripts(self) -> str:
        scripts = len(self.report.scripts)
        return f"{count(scripts, 'Lua script')} would be dropped silently" if scripts and not self.target.keeps_scripts else ""

    def conditions(self) -> list[str]:
        """What has to be so for the target to load it."""
        report, target, why = self.report, self.target, []
        if self.is_undocumented:
            why.append(f"the documents promise RDB {target.rdb} and below; the engine knows {report.rdb_version}")
        if self.has_hints and not self.is_own:
            why.append("no document says which hints of Redis Enterprise it takes")
        if self.missing_modules:
            why.append(f"if created with {joined(self.missing_modules)}")
        if report.other.get("KeyMetadata"):
            why.append("if the modules that own the key metadata are loaded")
        if self.highest_db >= 16 and not target.databases and not target.single_db:
            why.append(f"if configured for {self.highest_db + 1} databases")
        return why


def _beyond_first_db(report: Info) -> int:
    """Keys in databases other than 0."""
    return sum(d.keys for d in report.databases if d.db)


def _next(report: Info) -> str:
    targets = {t.name: t for t in load_targets()}
    rows = {row.target: row for row in report.loads_as_is}
    names = {"azure-managed": "Azure Managed Redis", "azure-premium": "Azure Cache for Redis Premium"}
    said = [_advice(report, targets[t], rows[t], name) for t, name in names.items()]
    wipe = " An import first deletes what is in the cache." if any(rows[t].loads == "yes" for t in names) else ""
    more = f" `rdbkit check --target {next(iter(names))}` tells more." if any(rows[t].loads != "yes" for t in names) else ""
    return f"Next: {'; '.join(said)}.{wipe}{more}"


def _advice(report: Info, target: Target, row: Loads, name: str) -> str:
    """What to do for one service."""
    if row.loads == "yes":
        return f"{name} imports it as it is" + (f" ({row.why})" if row.why else "")
    if row.loads == "partly":
        return f"{name} would leave data out: {row.why}"
    lowest = report.lowest_version
    absent = [m.name for m in report.modules if m.name not in target.module_types and not m.is_empty]
    if absent:
        return f"{name} does not take it: it does not offer {joined(absent)}"
    if lowest is not None and target.rdb < lowest <= max(target.undocumented, default=0):
        engine = release_title(target.release_line)
        return (
            f"{name} promises RDB {target.rdb}, and its content needs RDB {lowest} (see the notes): {engine}, which runs there, "
            "loads it, and --undocumented relies on that"
        )
    if lowest is None or lowest > target.rdb:
        needs = f"its content needs RDB {lowest} (see the notes)" if lowest is not None else row.why
        return f"{name} does not take it, and in an older form only with losses: {needs}"
    return _rewritten(report, target, name) + (f" ({row.why})" if row.loads == "undocumented" else "")


def _rewritten(report: Info, target: Target, name: str) -> str:
    """What `rdbkit convert` makes of the file for a service that does not take it as it is."""
    what = f"rewritten as RDB {target.rdb} {name} takes it"
    if any(row.type == "stream" and row.rdb_type != 15 for row in report.types):
        what += ", with the losses of streams noted above"
    outside = _beyond_first_db(report)
    if target.single_db and outside:
        what += f", but only database 0: {count(outside, 'key')} must be moved or dropped"
    return what

"""`rdbkit info`: what is in a snapshot, and who loads it as it is."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from rdbkit.format import constants as c
from rdbkit.format.scan import STRING_INT, STRING_LZF
from rdbkit.model import module_product
from rdbkit.passes.info import InfoTally
from rdbkit.selection import Selection
from rdbkit.snapshot.reader import Snapshot
from rdbkit.targets.target import Target, load_targets
from rdbkit.text import count, json_bytes, valid_text

#: Names of the histogram's columns; a key counts in the first that fits.
EXPIRY_BUCKETS = ("expired", "1h", "1d", "7d", "30d", "later", "never")


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
    """A module type: encoding version, keys, their bytes, bytes of data outside of keys, and what well-known product it is of."""

    name: str
    version: int
    keys: int
    bytes: int
    aux_bytes: int
    product: str | None = None


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
    modules: list[ModuleInfo]
    slots: int
    other: dict[str, int]
    needs_version: int
    lowest_version: int | None
    lowest_version_notes: list[str] = field(default_factory=list)
    loads_as_is: list[Loads] = field(default_factory=list)
    next: str = ""
    selected: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON types; keys that are not UTF-8 as `{"base64": ...}`."""
        result = asdict(self)
        for row in result["biggest"]:
            row["key"] = json_bytes(row["key"])
        result["aux"] = {valid_text(k): valid_text(v) for k, v in self.aux.items()}
        for library in result["functions"]:
            library["name"], library["engine"] = valid_text(library["name"]), valid_text(library["engine"])
            if "source" in library:
                library["source"] = json_bytes(library["source"])
        result["file"] = valid_text(self.file)
        return result


def info(
    snapshot: Snapshot,
    *,
    top: int = 10,
    now_ms: int | None = None,
    selection: Selection | None = None,
    sources: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Info:
    """Read a snapshot to its end and report what is in it.

    Args:
        snapshot: just opened.
        top: how many of the biggest keys to report, by bytes in the file.
        now_ms: what counts as already expired, in Unix ms; by default the clock.
        selection: which keys to count; None for all.
        sources: have `source` of each library in `functions`, as FUNCTION LOAD takes it.
        progress: called after each block with the bytes of the underlying file read so far.

    Raises: RdbError where the file is damaged.

    >>> import rdbkit
    >>> from rdbkit.operations.info import info
    >>> with rdbkit.open("fixtures/rich/redis-7.0.15.rdb") as snapshot:
    ...     report = info(snapshot)
    >>> report.writer_version, report.keys, report.lowest_version
    ('7.0.15', 27, 10)
    """
    # the largest key is wanted in any case: some targets refuse keys above a size
    now = int(time.time() * 1000) if now_ms is None else now_ms
    tally = InfoTally(now, max(top, 1), snapshot.limits.item_bytes, selection or None, snapshot.types)
    for _ in snapshot.scan(tally):
        if progress is not None:
            progress(snapshot.position)
    tally.sum_up()
    report = _report(snapshot, tally)
    _judge(report, snapshot, tally)
    del report.biggest[top:]
    if sources:
        for row, library in zip(report.functions, tally.functions, strict=True):
            row["source"] = library.code
    report.selected = bool(selection)
    return report


def _number(text: str | None) -> int | None:
    """A number of an AUX field; None where it is none of 64 bits."""
    if text is None or not text.isascii() or not text.isdigit() or len(text) > 18:
        return None
    return int(text)


def _writer(aux: dict[str, str]) -> tuple[str | None, str | None]:
    for key in aux:
        if key.endswith("-ver"):
            return key[:-4], aux[key]
    return None, None


def _names(kind: int, snapshot: Snapshot) -> tuple[str, str]:
    if kind in (STRING_INT, STRING_LZF):
        return "string", "int" if kind == STRING_INT else "lzf"
    value_type = snapshot.types[kind]
    return value_type.type, value_type.encoding


def _report(snapshot: Snapshot, tally: InfoTally) -> Info:
    totals: dict[int, tuple[int, int]] = {}
    databases = []
    for number in sorted(tally.databases):
        database = tally.databases[number]
        by_type: dict[str, int] = {}
        for kind, (in_db, db_bytes) in sorted(database.totals.items()):
            keys, size = totals.get(kind, (0, 0))
            totals[kind] = (keys + in_db, size + db_bytes)
            if kind == 7:
                for (db, name, _), (count, _size) in tally.modules.items():
                    if db == number:
                        by_type[name] = by_type.get(name, 0) + count
            else:
                name = _names(kind, snapshot)[0]
                by_type[name] = by_type.get(name, 0) + in_db
        if by_type:
            databases.append(DatabaseInfo(number, sum(by_type.values()), database.expiring, database.expired, by_type))
    key_bytes = sum(size for _, size in totals.values())
    types = []
    modules: dict[tuple[str, int], ModuleInfo] = {}
    for (_, name, encver), (keys, size) in tally.modules.items():
        entry = modules.setdefault((name, encver), ModuleInfo(name, encver, 0, 0, 0, module_product(name)))
        entry.keys += keys
        entry.bytes += size
    types += [TypeInfo(m.name, "module", 7, m.keys, m.bytes, m.bytes / key_bytes) for m in modules.values()]
    for kind, (keys, size) in totals.items():
        if kind == 7:
            continue
        name, encoding = _names(kind, snapshot)
        rdb_type = 0 if kind >= STRING_INT else kind
        types.append(TypeInfo(name, encoding, rdb_type, keys, size, size / key_bytes))
    types.sort(key=lambda t: -t.bytes)
    biggest = [
        BigKey(db, key, *_names(kind, snapshot), size, -offset, None if expire == -1 else expire)
        for size, offset, db, key, kind, expire in sorted(tally.biggest, reverse=True)
    ]
    for (name, encver), size in tally.module_data.items():
        modules.setdefault((name, encver), ModuleInfo(name, encver, 0, 0, 0, module_product(name))).aux_bytes += size
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
        framing=snapshot.framing,
        rdb_size=snapshot.rdb_size,
        writer=writer,
        writer_version=writer_version,
        created=_number(snapshot.aux.get("ctime")),
        bits=_number(snapshot.aux.get("redis-bits")),
        used_memory=_number(snapshot.aux.get("used-mem")),
        checksum=checksum.state,
        trailer=trailer.kind,
        trailer_size=trailer.size,
        aux=snapshot.aux,
        keys=keys,
        expiring=expiring,
        expired=sum(d.expired for d in databases),
        key_bytes=key_bytes,
        databases=databases,
        types=types,
        biggest=biggest,
        expiry=dict(zip(EXPIRY_BUCKETS, counts, strict=True)),
        functions=[
            {"name": f.name, "engine": f.engine, "bytes": len(f.source), "pre_release": f.pre_release} for f in tally.functions
        ],
        modules=list(modules.values()),
        slots=int(tally.slots),
        other={k: n for k, n in tally.events.items() if k in ("KeyMetadata", "SlotImport", "HashTemplate")},
        needs_version=0,
        lowest_version=None,
    )


def _judge(report: Info, snapshot: Snapshot, tally: InfoTally) -> None:
    """Fill in which RDB version the content needs, who loads the file, and what to do next."""
    redis = report.flavour == c.REDIS
    used = {t.rdb_type: snapshot.types[t.rdb_type] for t in report.types}
    has_functions = bool(report.functions)
    report.needs_version = max([t.since for t in used.values()] + ([10] if has_functions else []) + [1])
    lowest: int | None = 10 if has_functions else 1
    notes = report.lowest_version_notes
    field_expiry = 0
    if has_functions:
        notes.append("functions: only RDB 10 and above")
    if report.expiring:
        lowest = max(lowest or 1, 3)
    for kind, t in used.items():
        if t.universal is not None:
            lowest = max(lowest, t.universal) if lowest is not None else None
            if kind in (19, 21):
                notes.append(f"{t.name}: below RDB {t.since} some counters are left out, which servers then estimate")
            if kind in (26, 27):
                notes.append(
                    f"{t.name}: below RDB {t.since} there is no place for idempotent producers and unowned pending entries"
                )
            continue
        keys = sum(row.keys for row in report.types if row.rdb_type == kind)
        if kind == 25 and keys == tally.without_field_expiry:
            continue  # every field expiry is gone: a plain hash holds it
        if t.type == "hash":
            lowest = max(lowest, 12) if lowest is not None else None
            field_expiry += keys
        elif t.type == "module":
            lowest = max(lowest, 8) if lowest is not None else None
        elif t.type in ("cron", "json") or t.id in (31, 32):
            lowest = None
            notes.append(f"{t.name}: no Redis or Valkey release reads it")
        else:
            lowest = max(lowest, t.since) if lowest is not None else None
            notes.append(f"{t.name}: only RDB {t.since} and above")
    if field_expiry:
        notes.append(f"{count(field_expiry, 'hash')} with field expiry: only RDB 12 and above, or VALKEY080")
    if report.other.get("KeyMetadata"):
        lowest = max(lowest, 13) if lowest is not None else None
        notes.append("key metadata of modules: only RDB 13 and above")
    report.lowest_version = lowest
    report.loads_as_is = [_loads(report, t, used, redis) for t in load_targets()]
    report.next = _next(report)


def _loads(report: Info, target: Target, used: dict[int, c.ValueType], redis: bool) -> Loads:
    def verdict(word: str, why: str) -> Loads:
        return Loads(target.name, target.title, word, why)

    version = report.rdb_version
    header = f"RDB {version}" if redis else f"VALKEY{version:03d}"
    undocumented = redis and version in target.undocumented
    if (version > target.rdb and not undocumented) if redis else version not in target.valkey:
        return verdict("no", f"{header} is newer than RDB {target.rdb}" if redis else f"{header} is Valkey's own version")
    for kind, t in used.items():
        if t.type == "module" or kind in target.extra_types:
            continue
        newest = target.rdb if not undocumented else version
        unknown = t.since > newest if redis else False
        if target.types is not None and kind > target.types:
            unknown = True
        if t.type == "gcra":
            return verdict("no", "rate limiters (GCRA) are in no released server")
        if unknown or kind == 64 or (redis and version <= 9 and 30 <= kind <= 32):
            return verdict("no", f"{t.name} (type {kind}) is unknown to it")
    if report.functions and target.rdb < 10:
        return verdict("no", "functions are unknown to it")
    if any(f["pre_release"] for f in report.functions) and not target.pre_release_functions:
        return verdict("no", "functions of a 7.0 release candidate, which it refuses")
    missing = [m.name for m in report.modules if m.name not in target.modules]
    if missing:
        if target.rdb < 8:
            return verdict("no", f"modules are unknown to it: {', '.join(missing)}")
        absent = [name for name in missing if name not in target.optional_modules]
        if absent:
            service = target.name.startswith("azure-")
            return verdict("no", f"{'has no module for' if service else 'needs a module loaded:'} {', '.join(absent)}")
    if target.max_key_bytes and any(k.bytes > target.max_key_bytes for k in report.biggest):
        return verdict("no", "a key is larger than 2 GB")
    highest = max((d.db for d in report.databases), default=0)
    if target.single_db and highest > 0:
        outside = sum(d.keys for d in report.databases if d.db)
        return verdict("partly", f"only database 0 is imported: {count(outside, 'key')} would be dropped silently")
    if target.databases is not None and highest >= target.databases:
        return verdict("partly", f"database {highest} is beyond its {target.databases}: dropped silently")
    why = []
    if undocumented:
        why.append(f"the documents promise RDB {target.rdb} and below; the engine knows {version}")
    if missing:
        why.append(f"if created with the module for {', '.join(missing)}")
    if report.other.get("KeyMetadata"):
        why.append("if the modules that own the key metadata are loaded")
    if highest >= 16 and not target.databases and not target.single_db:
        why.append(f"if configured for {highest + 1} databases")
    return verdict("undocumented" if undocumented else "yes", "; ".join(why))


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
    absent = [m.name for m in report.modules if m.name not in target.optional_modules]
    if absent:
        return f"{name} does not take it: it has no module for {', '.join(absent)}"
    if lowest is None or lowest > target.rdb:
        needs = f"its content needs RDB {lowest} (see the notes)" if lowest is not None else row.why
        return f"{name} does not take it, and in an older form only with losses: {needs}"
    rewritten = f"rewritten as RDB {target.rdb} {name} takes it"
    if any(row.type == "stream" and row.rdb_type != 15 for row in report.types):
        rewritten += ", with the losses of streams noted above"
    outside = sum(d.keys for d in report.databases if d.db)
    if target.single_db and outside:
        rewritten += f", but only database 0: {count(outside, 'key')} must be moved or dropped"
    return rewritten + (f" ({row.why})" if row.loads == "undocumented" else "")

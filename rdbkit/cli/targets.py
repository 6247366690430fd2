"""`rdbkit targets`."""

from __future__ import annotations

import datetime
import json
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

import click

from rdbkit.cli.files import EXISTING, Verb
from rdbkit.cli.render import Output, Plain, output, printable
from rdbkit.targets.facts import KEYS
from rdbkit.targets.target import Fact, Sku, Target, find_target, load_targets

#: Facts by what people call them, where that is not their name in the files.
_LABELS: Final = {
    "lines": "the same as",
    "rdb": "loads RDB",
    "undocumented": "undocumented RDB",
    "documented": "promised for",
    "known_to_load": "known to be loaded by",
    "valkey": "loads VALKEY",
    "types": "highest value type",
    "extra_types": "value types of its own",
    "redis_enterprise": "is Redis Enterprise",
    "modules": "modules built in",
    "optional_modules": "modules to choose",
    "pre_release_functions": "loads functions of 7.0 RCs",
    "scripts": "loads Lua scripts",
    "default_databases": "databases by default",
    "single_db": "database 0 only",
    "clustered_databases": "databases clustered",
    "databases_beyond": "databases beyond",
    "max_shards": "shards at most",
    "max_key_bytes": "largest key, bytes",
    "flash_ram_share": "RAM of flash sizes",
    "skus_without_size": "sizes, how large unsaid",
    "skus_without_import": "sizes without import, GB",
    "takes_gzip": "takes gzip",
    "takes_own_exports": "takes its own exports",
    "no_cluster": "the policy NoCluster",
    "access_keys_by_default": "access keys by default",
    "storage_firewall": "storage with firewall",
    "exports_to_hierarchical_namespace": "exports to ADLS Gen2",
    "exports_to_blob_storage": "exports to BlobStorage",
    "import_tiers": "tiers that import",
    "sas_permissions": "SAS permissions",
    "sas_hours_ahead": "SAS ends, hours ahead",
    "sas_minutes_back": "SAS begins, minutes ago",
    "import_deletes": "import deletes all before",
    "import_blocks_clients": "import shuts clients out",
    "closed_to_new_customers": "closed to new customers",
    "closed": "closed to all",
    "reported_open_until": "reported open until",
    "tooling_moves_data": "Azure's tool moves data",
}
#: Shown elsewhere: in the heading and in a table of their own.
_ELSEWHERE: Final = ("title", "skus", "sku_databases")
_WIDTH: Final = 60


@click.command(cls=Verb)
@click.argument("name", metavar="[NAME]", required=False)
@click.option(
    "--targets-file",
    type=EXISTING,
    metavar="FILE",
    help="TOML with targets of your own, or with other facts of ours.",
)
@click.option("--json", "as_json", is_flag=True, help="As JSON: an array of all, or the object of NAME.")
def targets(name: str | None, targets_file: str | None, as_json: bool) -> None:
    """What servers and services load, and who says so.

    Without NAME all of them, with it every fact of that one with its source and date. NAME is a release line (redis-6.2,
    valkey-8.1), a service (azure-premium, azure-managed) or rdb-N.
    """
    try:
        found = load_targets(targets_file)
    except ValueError as e:
        raise click.BadParameter(str(e), param_hint="--targets-file") from None
    if name is not None:
        try:
            found = (find_target(name, targets_file),)
        except ValueError as e:
            raise click.BadParameter(str(e), param_hint="NAME") from None
    if as_json:
        objects = [_as_json(target) for target in found]
        click.echo(json.dumps(objects if name is None else objects[0], indent=2, ensure_ascii=False))
    elif name is None:
        _show_all(found, output())
    else:
        _show(found[0], output())


# -- all of them


def _show_all(found: Sequence[Target], out: Output) -> None:
    rows = [(target.name, printable(target.title), _versions(target), _databases(target), _notes(target)) for target in found]
    out.table("Targets", ("name", "title", "RDB", "dbs", "notes"), rows)
    out.line("")
    out.line("RDB: the newest version that it loads, of a service, that it promises to load.")
    out.line("dbs: how many databases there can be; any: as configured.")
    out.line("rdbkit targets NAME tells every fact, with its source and date.")


def _versions(target: Target) -> str:
    return ", ".join(map(str, [target.rdb, *target.valkey]))


def _databases(target: Target) -> str:
    if target.single_db:
        return "1"
    return "any" if target.databases is None else str(target.databases)


def _notes(target: Target) -> str:
    notes = []
    if target.undocumented:
        notes.append(f"RDB {', '.join(map(str, target.undocumented))} undocumented")
    if target.types is not None:
        notes.append(f"no value types above {target.types}")
    notes += target.modules
    if target.closed is not None:
        in_doubt = " in doubt" if "reported_open_until" in target.facts else ""
        notes.append(f"closed {target.closed}{in_doubt}")
    if target.retires is not None:
        notes.append(f"ends {target.retires}")
    return printable(", ".join(notes))


# -- one


def _show(target: Target, out: Output) -> None:
    out.heading(f"{target.name}: {printable(target.title)}")
    if target.exact:
        out.line(f"A version of the format: a file for it is {target.title}, whoever loads it.")
        return
    sources: list[tuple[str, str]] = []

    def number(source: str, date: str) -> str:
        if (source, date) not in sources:
            sources.append((source, date))
        return str(sources.index((source, date)) + 1)

    rows = [(_label(key), _value(key, fact), number(fact.source, fact.date)) for key, fact in _shown(target)]
    out.table("Facts", ("fact", "value", "source"), list(_wrapped(rows)) if isinstance(out, Plain) else rows)
    if target.skus:
        table = [(*_size(sku), number(sku.source, sku.date)) for sku in target.skus]
        head = ["size", "tier", "GB", "usable", "databases", "notes", "source"]
        out.table("Sizes", *_without_empty(head, table))
    dates = [(str(i + 1), printable(source), date) for i, (source, date) in enumerate(sources)]
    out.table("Sources", ("", "where", "date"), dates)


def _shown(target: Target) -> Iterator[tuple[str, Fact]]:
    order = list(KEYS)
    facts = [(key, fact) for key, fact in target.facts.items() if key.partition(".")[0] not in _ELSEWHERE]
    yield from sorted(facts, key=lambda row: order.index(row[0].partition(".")[0]))


def _label(key: str) -> str:
    name, _, row = key.partition(".")
    label = _LABELS.get(name, name.replace("_", " "))
    return printable(f"{label} {row}" if row else label)


def _value(key: str, fact: Fact) -> str:
    value = fact.value
    match value:
        case None:
            text = ""
        case bool():
            text = "yes" if value else "no"
        case list():
            text = ", ".join(map(str, value)) or "none"
        case dict():
            text = ", ".join(f"{name} {each}" for name, each in value.items())
        case int() if key == "max_key_bytes":
            text = f"{value:,}"
        case _:
            text = str(value)
    if key == "rdb" or key.startswith(("documented.", "known_to_load.")):
        text += " and below"
    notes = [*([fact.note] if fact.note else []), *(["inferred"] if fact.inferred else [])]
    if notes:
        text = f"{text} ({'; '.join(notes)})" if text else "; ".join(notes)
    return printable(text)


def _size(sku: Sku) -> tuple[str, ...]:
    notes = [*(["preview"] if sku.preview else []), *([sku.note] if sku.note else [])]
    databases = "" if sku.databases is None else str(sku.databases)
    return (
        printable(sku.name),
        printable(sku.tier),
        f"{sku.memory_gb:g}",
        f"{sku.usable_gb:g}",
        databases,
        printable("; ".join(notes)),
    )


def _without_empty(head: Sequence[str], rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    kept = [i for i in range(len(head)) if any(row[i] for row in rows)]
    return [head[i] for i in kept], [[row[i] for i in kept] for row in rows]


def _wrapped(rows: Sequence[tuple[str, str, str]]) -> Iterator[tuple[str, str, str]]:
    for label, value, source in rows:
        first, *more = textwrap.wrap(value, _WIDTH, break_on_hyphens=False) or [""]
        yield label, first, source
        for line in more:
            yield "", line, ""


# -- for programs


def _as_json(target: Target) -> dict[str, Any]:
    names = (
        "name", "title", "lines", "is_service", "exact", "engine", "rdb", "undocumented", "valkey", "documented", "databases",
        "clustered_databases", "single_db", "modules", "optional_modules", "max_key_bytes", "takes_gzip", "closed", "retires",
    )  # fmt: skip
    found: dict[str, Any] = {name: _plain(getattr(target, name)) for name in names}
    found["skus"] = [asdict(sku) for sku in target.skus]
    # the sizes have source and date themselves
    facts = {key: fact for key, fact in target.facts.items() if key.partition(".")[0] not in ("title", "skus")}
    found["facts"] = {key: {**asdict(fact), "value": _plain(fact.value)} for key, fact in facts.items()}
    return found


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime.date) else value

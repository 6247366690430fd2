"""Loads facts about targets from TOML files, each with its source and date: rdbkit's own and a user's.

A file has this shape, which docs/targets.md describes:

    source = "KEY"                                      # of what does not name one
    [sources]
    KEY = { title = "where it is said", date = 2026-04-24 }
    [defaults]                                          # what every target new in this file has
    [targets."NAME"]
    rdb = 11                                            # a value, or a fact of its own:
    max_key_bytes = { value = 2147483648, source = "KEY", note = "...", inferred = true }

Every mistake in a file is a ValueError of one line that names file, line and key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

from rdbkit.targets.releases import release_line


@dataclass(frozen=True, slots=True)
class Fact:
    """Something that is said of a target.

    Attributes:
        value: None where no source states it, or it depends on configuration; `note` then says which.
        source: where it is said, as text for humans.
        date: when it was said, as YYYY-MM-DD or as much of it as is known; empty in a user's file that gives none.
        note: what has to be known besides.
        inferred: a conclusion that no source states.
    """

    value: Any
    source: str
    date: str
    note: str = ""
    inferred: bool = False


#: Facts of one target by name. `documented`, `known_to_load` and `skus` have one for each of their rows: "skus.P1".
Facts = dict[str, Fact]

#: Which facts there are, in the order in which they are shown, and what they are made of.
KEYS: Final = {
    # what a server loads
    "title": "text",
    "rdb": "number",
    "engine": "text",
    "redis_enterprise": "switch",
    "engine_upgrades": "text",
    "documented": "rows",
    "known_to_load": "rows",
    "undocumented": "numbers",
    "valkey": "numbers",
    "lines": "texts",
    "types": "number",
    "extra_types": "numbers",
    "modules": "texts",
    "bundled_modules": "texts",
    "optional_modules": "texts",
    "flash_modules": "texts",
    "functions": "switch",
    "pre_release_functions": "switch",
    "scripts": "switch",
    # what it has room for
    "databases": "number",
    "default_databases": "number",
    "single_db": "switch",
    "clustered_databases": "number",
    "databases_beyond": "text",
    "cluster_policies": "texts",
    "no_cluster": "text",
    "access_keys_by_default": "switch",
    "max_shards": "number",
    "max_key_bytes": "number",
    "eviction_policy": "text",
    "usable_share": "decimal",
    "flash_ram_share": "decimal",
    "skus": "rows",
    "sku_databases": "numbers by name",
    "skus_without_size": "texts",
    "skus_without_import": "decimals by name",
    # how a file gets in
    "import_tiers": "text",
    "takes_gzip": "switch",
    "several_files": "switch",
    "blob_types": "texts",
    "page_blob_multiple": "number",
    "takes_own_exports": "switch",
    "export_form": "text",
    "storage_firewall": "switch",
    "storage_access": "texts",
    "exports_to_hierarchical_namespace": "switch",
    "exports_to_blob_storage": "switch",
    "sas_hours_ahead": "number",
    "sas_minutes_back": "number",
    "sas_permissions": "text",
    "same_region": "switch",
    "same_subscription": "switch",
    "import_deletes": "switch",
    "import_blocks_clients": "switch",
    # how long there will be such a thing
    "closed_to_new_customers": "date",
    "closed": "date",
    "reported_open_until": "date",
    "retires": "date",
    "disabled": "date",
    "successor": "text",
    "tooling_moves_data": "switch",
}
#: What a row of `skus` has. The sizes are GB as advertised and as usable.
SKU_KEYS: Final = {
    "tier": "text",
    "memory_gb": "decimal",
    "usable_gb": "decimal",
    "databases": "number",
    "preview": "switch",
    "note": "text",
    "inferred": "switch",
    "source": "text",
}
_FACT_KEYS: Final = {"value", "source", "note", "inferred"}
_NEEDED: Final = {"title", "rdb", "engine"}
_TOP: Final = {"source", "sources", "defaults", "targets"}
_SOURCE_KEYS: Final = {"title", "date"}
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_DATE: Final = re.compile(r"\d{4}(-\d\d(-\d\d)?)?")
_SYNTAX: Final = re.compile(r"(.*) \(at line (\d+), column \d+\)", re.S)
_WANTED: Final = {
    "text": "a text",
    "texts": "a list of texts",
    "number": "a whole number above 0",
    "numbers": "a list of whole numbers above 0",
    "decimal": "a number above 0",
    "switch": "true or false",
    "date": "a date, as in 2026-10-01",
    "numbers by name": "a table of whole numbers above 0",
    "decimals by name": "a table of numbers above 0",
}


def read(path: str | os.PathLike[str], known: Mapping[str, Facts], lines: Collection[str]) -> dict[str, Facts]:
    """The facts of a file about each target that it names, together with those that are known of it.

    Args:
        known: facts of targets that there are already.
        lines: the release lines of servers, which an engine is one of.

    Raises: ValueError for a mistake in it, OSError where it cannot be read.
    """
    return _File(os.fspath(path), lines).targets(known)


class _File:
    """One TOML file, while it is read."""

    def __init__(self, path: str, releases: Collection[str]) -> None:
        import tomllib

        self.name = path
        self.releases = releases
        self.lines: list[str] = []
        with open(path, "rb") as file:
            data = file.read()
        try:
            text = data.decode()
        except UnicodeDecodeError as e:
            self.stop(f"is not UTF-8: byte {data[e.start]:#04x}", line=data.count(b"\n", 0, e.start) + 1)
        self.lines = text.splitlines()
        try:
            self.data: dict[str, Any] = tomllib.loads(text)
        except tomllib.TOMLDecodeError as e:
            match = _SYNTAX.fullmatch(str(e))
            self.stop(match[1] if match else str(e), line=int(match[2]) if match else len(self.lines))
        except RecursionError:
            self.stop("has arrays or tables inside each other, too many of them", line=len(self.lines))
        except ValueError:  # of int, which has a limit
            self.stop("has a number of too many digits", line=len(self.lines))
        self.sources: dict[str, tuple[str, str]] = {}

    def targets(self, known: Mapping[str, Facts]) -> dict[str, Facts]:
        self.known((), self.data, _TOP)
        for key in ("sources", "defaults", "targets"):
            self.table((key,), self.data.get(key, {}))
        for key, source in self.data.get("sources", {}).items():
            self.sources[key] = self.source(("sources", key), source)
        general = self.cited(("source",), self.data["source"]) if "source" in self.data else (os.path.basename(self.name), "")
        defaults = self.facts(("defaults",), self.data.get("defaults", {}), general)
        found = {}
        for name, given in self.data.get("targets", {}).items():
            where = ("targets", name)
            if not _NAME.fullmatch(name) or re.fullmatch(r"rdb-\d+", name):
                self.stop("is no name for a target: letters, digits, '.', '_' and '-', and not rdb-N", where)
            self.table(where, given)
            for key in given:
                if key.isdigit():  # TOML took the point of the name for one of its own
                    self.stop(f'is in need of quotes: [targets."{name}.{key}"]', (*where, key))
            found[name] = {**known.get(name, defaults), **self.facts(where, given, general)}
            for key in ("title", "rdb"):
                # a service has the version of its engine
                if key not in found[name] and not (key == "rdb" and "engine" in found[name]):
                    self.stop(f"is new, and needs {key}", where)
        return found

    # -- the parts

    def source(self, where: tuple[str, ...], given: Any) -> tuple[str, str]:
        self.table(where, given)
        self.known(where, given, _SOURCE_KEYS)
        title, date = given.get("title"), given.get("date", "")
        if not isinstance(title, str) or not title:
            self.stop("needs a title, a text", where)
        if not (_is(date, "date") or date == "" or (isinstance(date, str) and _DATE.fullmatch(date))):
            self.stop("is to be a date, as in 2026-04-24, or as much of one as is known, as in '2026-04'", (*where, "date"))
        return title, str(date)

    def cited(self, where: tuple[str, ...], key: Any) -> tuple[str, str]:
        if not isinstance(key, str) or key not in self.sources:
            self.stop(f"{key!r} is not among [sources]{_nearest(str(key), self.sources)}", where)
        return self.sources[key]

    def facts(self, where: tuple[str, ...], given: dict[str, Any], general: tuple[str, str]) -> Facts:
        self.known(where, given, KEYS.keys() | {"source"})
        if "source" in given:
            general = self.cited((*where, "source"), given["source"])
        found: Facts = {}
        for key, value in given.items():
            place = (*where, key)
            if key == "source":
                continue
            if KEYS[key] != "rows":
                found[key] = self.fact(place, value, KEYS[key], general)
                if found[key].value is None and key in _NEEDED:
                    self.stop("needs a value", place)
                if key == "engine":
                    self.engine(place, found[key].value)
                continue
            self.table(place, value)
            source = self.cited((*place, "source"), value["source"]) if "source" in value else general
            for row, content in value.items():
                if row != "source":
                    read_row = self.sku if key == "skus" else self.promise
                    found[f"{key}.{row}"] = read_row((*place, row), content, source)
        return found

    def engine(self, where: tuple[str, ...], name: str) -> None:
        line = release_line(name)
        if line not in self.releases:
            self.stop(f"is to be a release line of a server{_nearest(line, self.releases)}", where)

    def promise(self, where: tuple[str, ...], given: Any, general: tuple[str, str]) -> Fact:
        self.engine(where, where[-1])
        fact = self.fact(where, given, "number", general)
        if fact.value is None:
            self.stop("needs a value, an RDB version", where)
        return fact

    def fact(self, where: tuple[str, ...], given: Any, kind: str, general: tuple[str, str]) -> Fact:
        if not isinstance(given, dict) or not given.keys() & {"value", "note"}:
            return Fact(self.value(where, given, kind), *general)
        self.known(where, given, _FACT_KEYS)
        source = self.cited((*where, "source"), given["source"]) if "source" in given else general
        note = self.value((*where, "note"), given.get("note", ""), "text")
        inferred = self.value((*where, "inferred"), given.get("inferred", False), "switch")
        if "value" not in given and not note:
            self.stop("needs a value, or a note that says why there is none", where)
        value = self.value(where, given["value"], kind) if "value" in given else None
        return Fact(value, *source, note, inferred)

    def sku(self, where: tuple[str, ...], given: Any, general: tuple[str, str]) -> Fact:
        self.table(where, given)
        self.known(where, given, SKU_KEYS.keys())
        if "source" in given:
            general = self.cited((*where, "source"), given["source"])
        if "memory_gb" not in given:
            self.stop("needs memory_gb, the size as advertised", where)
        values = {key: self.value((*where, key), value, SKU_KEYS[key]) for key, value in given.items() if key != "source"}
        return Fact(values, *general, values.get("note", ""), values.pop("inferred", False))

    def value(self, where: tuple[str, ...], value: Any, kind: str) -> Any:
        if not _is(value, kind):
            self.stop(f"is to be {_WANTED[kind]}", where)
        return value

    def table(self, where: tuple[str, ...], given: Any) -> None:
        if not isinstance(given, dict):
            self.stop("is to be a table", where)

    def known(self, where: tuple[str, ...], given: dict[str, Any], keys: Iterable[str]) -> None:
        for key in given:
            if key not in keys:
                self.stop(f"is unknown{_nearest(key, keys)}", (*where, key))

    # -- mistakes

    def stop(self, what: str, where: tuple[str, ...] = (), line: int | None = None) -> NoReturn:
        if line is None:
            line = self.line_of(where)
        place = f"{self.name}, line {line}" if line else self.name
        raise ValueError(f"{place}: {' '.join([*filter(None, ['.'.join(where)]), what])}")

    def line_of(self, where: tuple[str, ...]) -> int | None:
        """The line where a key stands: its last part, after those before it."""
        found, start = None, 0
        for part in where:
            name = re.escape(part)
            pattern = re.compile(rf"(?<![\w-])[\"']?{name}[\"']?\s*(=|\.|\])")
            for number in range(start, len(self.lines)):
                if pattern.search(self.lines[number].split("#")[0]):
                    found, start = number + 1, number
                    break
        return found


def _is(value: Any, kind: str) -> bool:
    match kind:
        case "text":
            return isinstance(value, str)
        case "number":
            return type(value) is int and value > 0
        case "decimal":
            return type(value) in (int, float) and 0 < value < float("inf")
        case "switch":
            return isinstance(value, bool)
        case "date":
            # no datetime, which has isoformat too
            return type(value).__name__ == "date"
        case "texts" | "numbers":
            return isinstance(value, list) and all(_is(each, kind[:-1]) for each in value)
        case "numbers by name" | "decimals by name":
            return isinstance(value, dict) and all(_is(each, kind.split("s ")[0]) for each in value.values())
    raise AssertionError(kind)


def _nearest(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, sorted(known), 1, 0.5)
    return f"; nearest: {near[0]}" if near else ""


def iter_rows(facts: Facts, key: str) -> Iterator[tuple[str, Fact]]:
    """The rows of `documented`, `known_to_load` or `skus`, by their own names."""
    prefix = f"{key}."
    for name, fact in facts.items():
        if name.startswith(prefix):
            yield name.removeprefix(prefix), fact

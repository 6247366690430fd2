"""What each server and Azure service loads: data in TOML files beside this loader, with source and date of each fact.

What is documented and what is known are kept apart: `Target.rdb` is the newest version that the documents of a service promise,
`Target.undocumented` those beyond it that the engine which runs there is known to load. Of an engine of which the documents say
nothing, `rdb` is what the engine loads, and `promised` says that nobody promises it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from rdbkit.format import constants as c
from rdbkit.model import Header
from rdbkit.products import types_of
from rdbkit.targets.facts import Fact, Facts, iter_rows, read
from rdbkit.targets.releases import release, release_line, release_title

if TYPE_CHECKING:
    import datetime

__all__ = ["Fact", "Sku", "Target", "as_target", "find_target", "load_targets", "target_names", "tolerated"]

#: What released servers load; others are known to forks, or to builds that nobody released.
_LOADED: Final = {"string", "list", "set", "zset", "hash", "stream", "array", "module"}
_VERSION: Final = re.compile(r"rdb-([1-9][0-9]{0,8})")
#: Facts that are attributes of a target under their own name.
_ATTRIBUTES: Final = (
    "rdb", "lines", "valkey", "types", "extra_types", "modules", "optional_modules", "databases", "single_db",
    "clustered_databases", "pre_release_functions", "scripts", "undocumented", "max_key_bytes", "takes_gzip", "engine", "closed",
    "retires", "redis_enterprise",
)  # fmt: skip
#: Since this RDB version, which came with Redis 4.0, there are values of modules.
_MODULES_SINCE: Final = 8
_MODULES_OPTION: Final = "--modules"
#: What it says for none.
NO_MODULES: Final = "none"
#: What another engine is another reason for, and what is taken from the engine where the documents say nothing.
_VERSIONS: Final = ("rdb", "undocumented")
_VERSION_OPTION: Final = "--redis-version"
_UNDOCUMENTED_OPTION: Final = "--undocumented"
#: KeyDB and Dragonfly write this RDB version at most.
_NEWEST_OF_FORKS: Final = 9
_OF_ENGINE: Final = (*_VERSIONS, "valkey", "types", "extra_types", "modules", "pre_release_functions", "scripts")


class Creation(Enum):
    """Whether a new cache can be created in a service."""

    OPEN = "open"
    #: The documents say that it cannot, and somebody else that it can.
    REPORTED = "reported"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class Sku:
    """A size in which a service is sold.

    Attributes:
        name: as the service calls it, such as "P2" or "B10".
        tier: what it belongs to, such as "balanced"; empty where there is one tier only.
        memory_gb: the size as advertised, in GB.
        usable_gb: what of it is there for data, in GB.
        databases: the most that it can have, None where that does not depend on the size.
        preview: it is offered, but not yet generally available.
        note: what has to be known besides.
        inferred: something of it is a conclusion; the note says what.
        source, date: where the size is said, and when.
    """

    name: str
    tier: str
    memory_gb: float
    usable_gb: float
    databases: int | None = None
    preview: bool = False
    note: str = ""
    inferred: bool = False
    source: str = ""
    date: str = ""


@dataclass(frozen=True, slots=True)
class Target:
    """A server line or service.

    Attributes:
        name: stable identifier, e.g. "redis-7.0" or "azure-premium".
        title: name for humans.
        lines: other names of it, such as "redis-6.0" for what loads the same files as "redis-5.0".
        rdb: newest RDB version with the REDIS magic; of a service, the newest that its documents promise, or where they say
            nothing of its engine, that the engine loads.
        valkey: RDB versions with the VALKEY magic.
        types: highest value type it knows, None for all of its RDB version.
        extra_types: value types that only this server has.
        modules: products of products.toml (or single module types) that it has.
        optional_modules: those that can be chosen when the service is created.
        databases: most databases, None where configurable.
        clustered_databases: the same of a cluster, None where configurable or not known.
        single_db: only database 0 is imported.
        pre_release_functions: loads the function libraries of 7.0 release candidates.
        scripts: loads Lua scripts, which are AUX fields called `lua`.
        undocumented: RDB versions that the engine knows and the service does not promise.
        max_key_bytes: keys larger than this make an import fail.
        takes_gzip: whether a file may be compressed with gzip, None where no source says.
        exact: it is no server but a version of the format, and a file for it has just that version.
        engine: the release that runs there, such as "7.4" of Redis or "valkey-8.0"; None for what is a server itself.
        engine_is_stated: somebody has said so (`with_engine`).
        takes_undocumented: of what its engine loads, also that is taken which no document promises (`with_undocumented`).
        redis_enterprise: what runs there is Redis Enterprise, which writes hints into its files that no other server knows.
        documented: of a service, the newest RDB version that is promised for each engine.
        skus: the sizes in which a service is sold.
        closed: since when no new ones can be created.
        retires: when it ends.
        facts: everything that is said of it, by the names above and those of `rdbkit.targets.facts.KEYS`, with source and date.
        source, date: where `rdb` is from.
        options: of the command line, and their values, that make this of the target with this name: "--targets-file",
            "--redis-version", "--undocumented" (which has no value), "--modules".
    """

    name: str
    title: str
    rdb: int
    lines: list[str] = field(default_factory=list)
    valkey: list[int] = field(default_factory=list)
    types: int | None = None
    extra_types: list[int] = field(default_factory=list)
    modules: list[str] = field(default_factory=list)
    optional_modules: list[str] = field(default_factory=list)
    databases: int | None = None
    clustered_databases: int | None = None
    single_db: bool = False
    pre_release_functions: bool = False
    scripts: bool = False
    undocumented: list[int] = field(default_factory=list)
    max_key_bytes: int | None = None
    takes_gzip: bool | None = None
    exact: bool = False
    engine: str | None = None
    engine_is_stated: bool = False
    takes_undocumented: bool = False
    redis_enterprise: bool = False
    documented: dict[str, int] = field(default_factory=dict)
    skus: tuple[Sku, ...] = ()
    closed: datetime.date | None = None
    retires: datetime.date | None = None
    facts: dict[str, Fact] = field(default_factory=dict)
    source: str = ""
    date: str = ""
    options: tuple[tuple[str, ...], ...] = ()

    @property
    def is_service(self) -> bool:
        """Whether it is a service that runs an engine, rather than a server or a version of the format."""
        return self.engine is not None

    def creation(self, day: datetime.date) -> Creation:
        """Whether a new cache can be created on a day, as far as the facts say.

        >>> import datetime
        >>> find_target("azure-premium").creation(datetime.date(2026, 12, 1))
        <Creation.REPORTED: 'reported'>
        """
        if self.closed is None or day < self.closed:
            return Creation.OPEN
        reported = self.facts.get("reported_open_until")
        return Creation.REPORTED if reported is not None and reported.value and day <= reported.value else Creation.CLOSED

    def takes_compressed(self, compression: str) -> bool:
        """Whether a source says that it takes a file compressed so, as `Snapshot.compression` has it."""
        return compression == "gzip" and bool(self.takes_gzip)

    @property
    def release_line(self) -> str:
        """The server that it is, or whose engine runs there: of a service a release line that is known here, else its own name.

        >>> find_target("azure-premium").release_line, find_target("valkey-8.1").release_line
        ('redis-6.0', 'valkey-8.1')
        >>> find_target("azure-managed").with_engine("8.20").release_line
        'redis-8.10'
        """
        if self.engine is None:
            return self.name
        line = release_line(self.engine)
        return _known_line(line) or line

    @property
    def knows_engine(self) -> bool:
        """Whether it is known what the release loads that runs there; otherwise the newest before it is taken instead."""
        return self.engine is None or release_line(self.engine) == self.release_line

    @property
    def promised(self) -> int | None:
        """The newest RDB version that a service's documents promise for its engine; None where they say nothing of that.

        >>> managed = find_target("azure-managed")
        >>> managed.promised, managed.with_undocumented().promised, managed.with_engine("8.0").promised
        (11, 11, None)
        """
        if self.engine is None:
            return None
        line = release_line(self.engine)
        return next((rdb for engine, rdb in self.documented.items() if release_line(engine) == line), None)

    @property
    def is_beyond_documents(self) -> bool:
        """Whether a service has documents, of which none says anything of its engine, so that what the engine loads is taken."""
        return bool(self.documented) and self.promised is None and self.facts["rdb"].inferred

    def header_for(self, source: Header) -> Header:
        """The header that a file with this one gets for the target: its own, where the target's documents promise to load it."""
        if self.exact:
            return Header(c.VALKEY, self.valkey[0]) if self.valkey else Header(c.REDIS, self.rdb)
        if source.version <= self.rdb if source.flavour == c.REDIS else source.version in self.valkey:
            return source
        # what Valkey has of its own, it writes under its own name only
        return Header(c.VALKEY, self.valkey[-1]) if self.valkey else Header(c.REDIS, self.rdb)

    def types_in(self, header: Header) -> dict[int, c.ValueType]:
        """The value types that it loads from a file with this header, by their numbers."""
        newest = self.rdb if header.flavour == c.REDIS else header.version
        return {
            t.id: t
            for t in c.value_types(header.flavour, newest).values()
            if t.id in self.extra_types
            or (self.exact and t.since <= newest)
            or (t.since <= newest and (self.types is None or t.id <= self.types) and t.type in _LOADED and t not in c.FOREIGN)
        }

    def with_engine(self, version: str) -> Target:
        """The same service with this engine, of which somebody knows that it runs there.

        `rdb` becomes what is documented for it, and where nothing is, what this engine itself loads; `undocumented` what it loads
        beyond. Of a release that is not known here, the newest before it is taken for it (`knows_engine`).

        Args:
            version: "7.4", "7.4.3", or with the name of the engine, "valkey-8.0".

        Raises: ValueError for what is no release, naming those that are, and for a target that is a server itself.

        >>> managed = find_target("azure-managed").with_engine("7.2.4")
        >>> managed.title, managed.rdb, managed.undocumented
        ('Azure Managed Redis (Redis 7.2)', 11, [])
        >>> find_target("azure-managed").with_engine("8.6").rdb
        13
        """
        if self.exact:
            raise ValueError(f"{self.name} is a version of the format, whatever runs there")
        line = release_line(version)
        known = _known_line(line)
        if known is None:
            raise ValueError(f"{version!r} is no release of an engine; known: {', '.join(self._engines())}")
        if self.name in _lines():
            raise ValueError(f"{self.name} is a release of a server itself: let the target be {known}")
        engine = line.removeprefix("redis-")
        facts = {key: fact for key, fact in self.facts.items() if key not in _OF_ENGINE or not (fact.inferred or key in _VERSIONS)}
        facts["engine"] = Fact(engine, "what was said to run there", "")
        made = replace(_made(self.name, facts), options=self.options, engine_is_stated=True)
        if self.takes_undocumented:
            made = made.with_undocumented()
        if self.optional_modules != made.optional_modules:  # which were chosen
            made = made.with_modules(self.modules)
        # what is known beyond the documents changes nothing of what is written; the engine itself says which exports are its own
        same = all(getattr(made, name) == getattr(self, name) for name in _OF_ENGINE if name != "undocumented")
        if same and (line == release_line(self.engine or "") or "takes_own_exports" not in self.facts):
            return made
        return made._with_option(_VERSION_OPTION, version)

    def with_undocumented(self) -> Target:
        """The same target, which also takes what its engine is known to load and no document promises.

        >>> managed = find_target("azure-managed").with_undocumented()
        >>> managed.rdb, managed.undocumented, managed.options
        (12, [], (('--undocumented',),))
        """
        if not self.undocumented:
            return replace(self, takes_undocumented=True)
        fact = self.facts["undocumented"]
        newest = max(self.undocumented)
        facts = {key: each for key, each in self.facts.items() if key != "undocumented"} | {"rdb": replace(fact, value=newest)}
        made = replace(self, rdb=newest, undocumented=[], takes_undocumented=True, facts=facts, source=fact.source, date=fact.date)
        return made._with_option(_UNDOCUMENTED_OPTION)

    def reading_export(self, header: Header, writer: str) -> Target | None:
        """The same service as it reads its own exports, whatever their version; None for what is none.

        Args:
            header: of a file that Redis Enterprise wrote.
            writer: the release of Redis that did, as "7.4.2".

        >>> managed = find_target("azure-managed")
        >>> managed.reading_export(Header("redis", 12), "7.4.2").rdb
        12
        >>> managed.reading_export(Header("redis", 12), "8.0.1") is None
        True
        """
        fact = self.facts.get("takes_own_exports")
        own, theirs = release(self.engine or ""), release(writer)
        if fact is None or not fact.value or own is None or theirs is None or theirs.family != own.family or theirs > own:
            return None
        if header.flavour != c.REDIS or header.version > max([self.rdb, *self.undocumented]):
            return None
        rdb = max(self.rdb, header.version)
        documented = {engine: each for engine, each in self.documented.items() if release(engine) != own} | {str(self.engine): rdb}
        beyond = [version for version in self.undocumented if version > rdb]
        return replace(
            self, rdb=rdb, undocumented=beyond, documented=documented, facts=self.facts | {"rdb": replace(fact, value=rdb)}
        )

    def without_own_exports(self) -> Target:
        """The same service where its exports go in as other than it wrote them, and are as the files of others."""
        return replace(self, facts={key: fact for key, fact in self.facts.items() if key != "takes_own_exports"})

    def _with_option(self, *option: str) -> Target:
        """The same, with an option of the command line in place of what it was given before."""
        return replace(self, options=(*(each for each in self.options if each[0] != option[0]), option))

    @property
    def module_types(self) -> frozenset[str]:
        """Names of the types of module values that it has, or can be created with.

        >>> "vectorset" in find_target("redis-8.0").module_types, "trietype0" in find_target("azure-managed").module_types
        (True, True)
        """
        return types_of(frozenset(self.modules)) | types_of(frozenset(self.optional_modules))

    @property
    def takes_modules(self) -> bool:
        """Whether it can have modules that are not built in: a service offers some, a server loads any since Redis 4.0."""
        return bool(self.optional_modules) if self.is_service else not self.exact and self.rdb >= _MODULES_SINCE

    @property
    def keeps_scripts(self) -> bool:
        """Whether Lua scripts stay in a file for it: it loads them, or is a version of the format, of which nobody knows who does.

        >>> find_target("azure-premium").keeps_scripts, find_target("redis-7.0").keeps_scripts
        (True, False)
        """
        return self.scripts or self.exact

    def with_modules(self, products: Sequence[str]) -> Target:
        """The same service, created with these of the modules that it offers and no others; a server that has these loaded.

        Args:
            products: such as "RedisJSON"; what a service does not offer is passed over.

        >>> managed = find_target("azure-managed").with_modules(["RedisJSON"])
        >>> managed.modules, managed.optional_modules, managed.with_modules([]).modules
        (['RedisJSON'], [], [])
        """
        if not self.is_service:
            there = [name for name in dict.fromkeys(products) if name not in self.modules]
            target = replace(self, modules=[*self.modules, *there], optional_modules=[])
            return target._with_modules_option(there) if there else target
        offered, built_in = self._names("optional_modules"), self._names("modules")
        there = [name for name in offered if name in products]
        options = tuple(option for option in self.options if option[0] != _MODULES_OPTION)
        target = replace(self, modules=[*built_in, *there], optional_modules=[], options=options)
        return target if there == offered else target._with_modules_option(there)

    def _with_modules_option(self, products: list[str]) -> Target:
        return self._with_option(_MODULES_OPTION, ",".join(sorted(products)) or NO_MODULES)

    def _names(self, fact: str) -> list[str]:
        """The names that a fact has; none where there is no such fact, or no source for it."""
        return (self.facts[fact].value or []) if fact in self.facts else []

    def sku(self, name: str) -> Sku:
        """The size of this name, in capitals or not.

        Raises: ValueError where there is none, naming the nearest, or where it has no known size or no import.
        """
        for sku in self.skus:
            if sku.name.lower() == name.lower():
                return sku
        for other, why in self._skus_beside().items():
            if other.lower() == name.lower():
                raise ValueError(f"{other} {why}")
        if not self.skus:
            raise ValueError(f"{self.name} has no sizes")
        names = [sku.name for sku in self.skus]
        # a letter more or less says little of a name of two letters
        near = _near(name.upper(), names, 0.4)
        raise ValueError(f"{self.name} has no size {name!r}; {near}")

    def _skus_beside(self) -> dict[str, str]:
        found = {}
        if "skus_without_size" in self.facts:
            why = f"of {self.name} is a size of which no source says how large it is: a file of targets can"
            found = dict.fromkeys(self.facts["skus_without_size"].value, why)
        if "skus_without_import" in self.facts:
            found |= dict.fromkeys(self.facts["skus_without_import"].value, "is of a tier that has no import")
        return found

    def _engines(self) -> list[str]:
        others = [line.removeprefix("redis-") for line in _lines() if line not in map(release_line, self.documented)]
        return [*self.documented, *others]


def load_targets(extra: str | os.PathLike[str] | None = None) -> tuple[Target, ...]:
    """All targets, servers before services, in the order of the files.

    Args:
        extra: a TOML file with further targets, or other facts of those that there are.

    Raises: ValueError for a mistake in that file, naming file, line and key; OSError where it cannot be read.
    """
    if extra is None:
        return _load_ours()
    known = {name: facts for name, facts in _facts().items() if "lines" not in facts} | _lines()
    option = ("--targets-file", os.fsdecode(extra))
    theirs = {name: replace(_made(name, facts), options=(option,)) for name, facts in read(extra, known, _lines()).items()}
    found = []
    for target in _load_ours():
        names = [target.name, *target.lines]
        rest = [name for name in names if name not in theirs]
        if len(rest) == len(names):
            found.append(target)
        elif rest:  # a line that has facts of its own now leaves its row
            title = ", ".join([release_title(rest[0]), *(release_title(line).split()[-1] for line in rest[1:])])
            found.append(replace(target, name=rest[0], lines=rest[1:], title=title))
        found += [theirs.pop(name) for name in names if name in theirs]
    return (*found, *theirs.values())


def find_target(name: str, extra: str | os.PathLike[str] | None = None) -> Target:
    """The target of this name: a release line ("redis-6.2"), a service ("azure-premium") or a version of the format ("rdb-9").

    Args:
        extra: a TOML file as of `load_targets`.

    Raises: ValueError, which names the nearest ones, where there is none, and for a mistake in the file.

    >>> find_target("redis-6.2").title, find_target("rdb-9").exact
    ('Redis 6.2', True)
    """
    for target in load_targets(extra):
        if name == target.name or name in target.lines:
            return _alone(target, name) if target.lines else target
    match = _VERSION.fullmatch(name)
    if match:
        version = int(match[1])
        if version in c.VALKEY_VERSIONS:
            return Target(name, f"VALKEY{version:03d}", 11, valkey=[version], exact=True)
        if version <= c.NEWEST_REDIS:
            return Target(name, f"RDB {version}", version, exact=True)
    raise ValueError(f"there is no target {name!r}; {_near(name, target_names(extra), 0.5)}")


def target_of(header: Header) -> Target:
    """The version of the format that a file has, as a target: what it loads is what such a file can hold.

    >>> target_of(Header("redis", 11)).name
    'rdb-11'
    """
    found = find_target(f"rdb-{header.version}")
    if header.flavour == c.VALKEY or header.version > _NEWEST_OF_FORKS:
        return found
    return replace(found, extra_types=[t.id for t in c.FOREIGN])


def as_target(target: Target | str) -> Target:
    """A target that is given as it is, or by its name.

    Raises: ValueError where there is none of this name; TypeError for anything else.
    """
    if isinstance(target, Target):
        return target
    if isinstance(target, str):
        return find_target(target)
    raise TypeError(f"target is a Target or its name, as in 'redis-6.2', not {type(target).__name__}")


def as_sku(sku: Sku | str | None, target: Target) -> Sku | None:
    """A size of a service that is given as it is, or by its name.

    Raises: ValueError where the target has none of this name; TypeError for anything else.
    """
    if sku is None or isinstance(sku, Sku):
        return sku
    if isinstance(sku, str):
        return target.sku(sku)
    raise TypeError(f"sku is a Sku or its name, as in 'P2', not {type(sku).__name__}")


def _alone(row: Target, name: str) -> Target:
    """One release line of those that share a row."""
    others = [other for other in (row.name, *row.lines) if other != name]
    facts = {key: replace(row.facts[key], value=value) for key, value in (("title", release_title(name)), ("lines", others))}
    return replace(row, name=name, title=release_title(name), lines=others, facts=row.facts | facts)


def target_names(extra: str | os.PathLike[str] | None = None) -> list[str]:
    """Every name that `find_target` takes, versions of the format last."""
    names = [name for target in load_targets(extra) for name in (target.name, *target.lines)]
    return names + [f"rdb-{version}" for version in (*range(1, c.NEWEST_REDIS + 1), *c.VALKEY_VERSIONS)]


def tolerated(target: Target) -> frozenset[str]:
    """The faults of values that a target loads and serves all the same: names of rules as `rdbkit.verify` has them.

    A version of the format tolerates none.

    >>> "stream-length" in tolerated(find_target("redis-7.0")), "stream-length" in tolerated(find_target("valkey-9.1"))
    (True, False)
    """
    return frozenset(rule for rule, row in _tolerated().items() if target.release_line in row["lines"])


@cache
def _tolerated() -> dict[str, dict[str, list[str]]]:
    import tomllib

    with open(os.path.join(os.path.dirname(__file__), "tolerated.toml"), "rb") as file:
        return tomllib.load(file)


# -- from facts to targets


@cache
def _load_ours() -> tuple[Target, ...]:
    return tuple(_made(name, facts) for name, facts in _facts().items())


@cache
def _facts() -> dict[str, Facts]:
    # not importlib.resources: importing that costs more than reading a snapshot of ten megabytes
    here = os.path.dirname(__file__)
    servers = read(os.path.join(here, "servers.toml"), {}, ())
    return servers | read(os.path.join(here, "azure.toml"), servers, _by_line(servers))


@cache
def _lines() -> dict[str, Facts]:
    """The facts of each release line of a server."""
    return _by_line({name: facts for name, facts in _facts().items() if "engine" not in facts})


def _known_line(line: str) -> str | None:
    """A release line, or where it is not known here, the newest of its family before it; None where there is none."""
    if line in _lines():
        return line
    own = release(line)
    before = [(each, known) for known in _lines() if (each := release(known)) and own and each.family == own.family and each < own]
    return max(before)[1] if before else None


def _by_line(rows: Mapping[str, Facts]) -> dict[str, Facts]:
    found = {}
    for name, facts in rows.items():
        alone = {key: fact for key, fact in facts.items() if key != "lines"}
        for line in (name, *(facts["lines"].value if "lines" in facts else ())):
            title = replace(facts["title"], value=release_title(line)) if "lines" in facts else facts["title"]
            found[line] = {**alone, "title": title}
    return found


def _made(name: str, facts: Facts) -> Target:
    """The target of whom these facts are; what they imply is added to them."""
    documented = dict(iter_rows(facts, "documented"))
    known_to_load = dict(iter_rows(facts, "known_to_load"))
    skus = dict(iter_rows(facts, "skus"))
    title = facts["title"].value
    if "engine" in facts:
        line = release_line(facts["engine"].value)
        title += f" ({release_title(line)})"
        by_line = [{release_line(engine): fact for engine, fact in rows.items()} for rows in (documented, known_to_load)]
        facts = facts | {key: fact for key, fact in _implied(line, *by_line).items() if key not in facts}
    facts = _beyond_documents(facts)
    known = {key: fact.value for key, fact in facts.items() if fact.value is not None}
    attributes: dict[str, Any] = {key: known[key] for key in _ATTRIBUTES if key in known}
    target = Target(
        name,
        title,
        **attributes,
        documented={engine: fact.value for engine, fact in documented.items()},
        skus=tuple(_sku(each, fact, known.get("usable_share", 1), known.get("sku_databases", {})) for each, fact in skus.items()),
        source=facts["rdb"].source,
        date=facts["rdb"].date,
    )
    target.facts.update(_told(facts, skus))
    return target


def _beyond_documents(facts: Facts) -> Facts:
    """These facts, of which `undocumented` keeps what is newer than what the documents promise."""
    if "undocumented" not in facts:
        return facts
    undocumented = facts["undocumented"]
    beyond = [version for version in undocumented.value or () if version > facts["rdb"].value]
    if beyond:
        return facts | {"undocumented": replace(undocumented, value=beyond)}
    return {key: fact for key, fact in facts.items() if key != "undocumented"}


def _told(facts: Facts, skus: Mapping[str, Fact]) -> Facts:
    """These facts, with one that stands for all sizes."""
    if not skus:
        return facts
    sources = dict.fromkeys(fact.source for fact in skus.values())
    return facts | {"skus": Fact(list(skus), "; ".join(sources), next(iter(skus.values())).date)}


def _implied(line: str, documented: Mapping[str, Fact], known_to_load: Mapping[str, Fact]) -> Facts:
    """What a service loads that runs this engine: what is documented for it, and what the engine is known to load beyond.

    Args:
        documented, known_to_load: by release line. Of lines of which nothing is known, it is what the release of the server loads.
    """
    nearest = _known_line(line) or line
    known = known_to_load.get(line) or _lines()[nearest]["rdb"]
    note = f"as {release_title(nearest)} has it"
    if nearest != line:
        note += f", the newest line before {release_title(line)} that rdbkit knows"
    found = {key: replace(fact, note=note, inferred=True) for key, fact in _lines()[nearest].items() if key in _OF_ENGINE}
    promised = documented.get(line)
    if promised is None:
        found["rdb"] = replace(known, note=f"{note}; the service's documents say nothing of it", inferred=True)
        return found
    found.pop("valkey", None)
    found["rdb"] = promised
    if line not in known_to_load:
        known = replace(known, note=f"{release_title(line)} does; that the service does, too, is said nowhere", inferred=True)
    found["undocumented"] = replace(known, value=list(range(promised.value + 1, known.value + 1)))
    return found


def _sku(name: str, fact: Fact, share: float, databases: Mapping[str, int]) -> Sku:
    row = fact.value
    return Sku(
        name,
        row.get("tier", ""),
        row["memory_gb"],
        row.get("usable_gb", round(row["memory_gb"] * share, 4)),
        row.get("databases", databases.get(name)),
        row.get("preview", False),
        fact.note,
        fact.inferred,
        fact.source,
        fact.date,
    )


def _near(name: str, known: Iterable[str], cutoff: float) -> str:
    from difflib import get_close_matches

    known = list(known)
    near = get_close_matches(name, known, 3, cutoff)
    return f"nearest: {', '.join(near)}" if near else f"known: {', '.join(known)}"

"""`rdbkit plan`: the size to buy for snapshots, and what has to be done to them."""

from __future__ import annotations

import datetime
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import Any, Final, TypeVar

import rdbkit
from rdbkit.clouds import Cloud, find_cloud
from rdbkit.format.slots import SLOTS
from rdbkit.operations.arguments import File, paths_of
from rdbkit.operations.check import AS_IT_IS, CANNOT, LOSSY, Check, beyond_documents, check, check_shards
from rdbkit.operations.memory import LEFT, Memory, Prefix, memory
from rdbkit.operations.plan_steps import SEARCH, Step, good_until, steps_of
from rdbkit.operations.resource_names import Names, check_names
from rdbkit.passes.memory import EDGES
from rdbkit.products import product_of, types_of
from rdbkit.snapshot.reader import Snapshot
from rdbkit.storage.location import check_distinct, file_size
from rdbkit.storage.remote import base_name, is_blob, is_remote, is_server_url
from rdbkit.storage.source import Rereading
from rdbkit.targets.target import Creation, Sku, Target, as_sku, as_target
from rdbkit.text import count, json_bytes, path_word, size, valid_text

__all__ = ["Plan", "PlannedFile", "Size", "plan"]

T = TypeVar("T")

GB: Final = 1 << 30
#: What of a shard is left over on average, for slots do not spread evenly.
_UNEVEN: Final = 1.1
#: Largest size, in GB, that can do without shards. Source: the fact `cluster_policies` of azure-managed.
_NO_CLUSTER_GB: Final = 24
#: Slots in a row without a key: with keys in all slots there are never so many, and a shard has far more of them.
_GAP: Final = 64
_DAY_MS: Final = 86_400_000
_PREFIXES: Final = 10

#: What is to be known of each policy of clustering. Source: the page redis/architecture of Azure's docs.
_POLICIES: Final = {
    "NoCluster": "commands may name any keys together; it is slower than the others, ends at 24 GB, and has to be given up before"
    " the cache is scaled up",
    "EnterpriseCluster": "one endpoint for every client; transactions and scripts with keys of several slots fail, and where your"
    " application has such, --clustering NoCluster plans for it, up to 24 GB",
    "OSSCluster": "for clients that know Redis Cluster; other clients fail, and --clustering EnterpriseCluster plans for them",
}


@dataclass
class PlannedFile:
    """One snapshot: the answer of `rdbkit check`, what it takes in memory, and what is to be uploaded.

    `convert` is the command to run first, empty where the file imports as it is; of a live server it makes the file. `upload` is
    the file's name then, of about `upload_bytes` (`exact` says whether that is its size), and `blob` what it is called in the
    container.
    """

    file: str
    keys: int
    memory_bytes: int
    used_memory: int | None
    verdict: str
    summary: str
    findings: list[str]
    convert: str
    upload: str
    blob: str
    upload_bytes: int
    exact: bool

    @property
    def is_stored(self) -> bool:
        """Whether the service can read it where it is: it is a blob that goes in as it is, and is not uploaded."""
        return is_blob(self.upload)


@dataclass
class Size:
    """A size that holds the data, the smallest of its tier.

    Attributes:
        shards: how many of it are needed; more than 1 only where a service has its shards chosen.
        usable_bytes: of all shards together.
        headroom: the share of it that stays free when the data has grown as was asked for, 0 to 1.
        name: as the service's own interfaces call it.
        databases: the most that it can have, None where that does not depend on the size.
    """

    sku: str
    tier: str
    shards: int
    memory_gb: float
    usable_bytes: int
    headroom: float
    preview: bool
    note: str
    name: str
    databases: int | None


@dataclass
class DualWriting:
    """What the data says of the other ways to move: an application that writes to both caches until the old one can go.

    Attributes:
        expiring: keys that expire.
        last_expiry: the day on which the last of them does, None where none expires.
        gone: share of the expiring keys, 0 to 1, that will have been renewed or have died after so many days.
        lasting, lasting_bytes: keys without expiry and their memory: dual writing alone never brings them.
        prefixes: the largest prefixes of such keys.
    """

    expiring: int
    last_expiry: str | None
    days: float | None
    gone: dict[str, float]
    lasting: int
    lasting_bytes: int
    prefixes: list[Prefix]


@dataclass
class Plan:
    """All that `plan` says.

    Attributes:
        data_bytes: what the data needs in memory, without keys that have expired.
        needed_bytes: the same after it has grown by `growth`.
        used_memory: what the servers that wrote the files had in use, None where one does not say.
        said: what has to be known about the service itself: that it is closed, that it ends.
        shards: which shards of a cluster are missing among the files, or there twice.
        chosen: the size that the steps are for, None where none holds the data.
        clustering: the policy of clustering, or for a service without policies "cluster" or "none".
        clustering_reason: why that policy; empty for a service without.
        access_keys: clients are to log in with access keys, where a service has them off unless asked for.
        cloud: of Azure, by its word: "public", "usgovernment" or "china".
        now_ms: when it was made, in Unix milliseconds.
        good_until: until when its commands work, as "2026-12-02T13:35Z": then the addresses end that the service reads from.
    """

    target: str
    title: str
    files: list[PlannedFile]
    keys: int
    databases: list[int]
    data_bytes: int
    growth: float
    needed_bytes: int
    used_memory: int | None
    high_availability: bool
    said: list[str]
    shards: list[str]
    notes: list[str]
    sizes: list[Size]
    chosen: Size | None
    clustering: str
    modules: list[str]
    steps: list[Step]
    dual_writing: DualWriting
    names: Names = field(default_factory=Names)
    clustering_reason: str = ""
    access_keys: bool = False
    cloud: str = "public"
    now_ms: int = 0
    good_until: str = ""

    @property
    def feasible(self) -> bool:
        """Whether all data gets there: every file imports, after a conversion or without, and a size holds them."""
        return self.chosen is not None and all(f.verdict not in (LOSSY, CANNOT) for f in self.files)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; bytes that are not UTF-8 as `{"base64": ...}`."""
        result = asdict(self)
        for row in result["dual_writing"]["prefixes"]:
            row["prefix"] = json_bytes(row["prefix"])
        for row in result["files"]:
            row["file"] = valid_text(row["file"])
        result["feasible"] = self.feasible
        return result


def plan(
    files: File | Iterable[File],
    target: Target | str,
    *,
    sku: Sku | str | None = None,
    growth: float = 0.2,
    high_availability: bool = True,
    names: Names | None = None,
    clustering: str | None = None,
    access_keys: bool = False,
    cloud: str | Cloud = "public",
    now_ms: int | None = None,
    relaxed: bool = False,
    progress: Callable[[int], object] | None = None,
) -> Plan:
    """Tell what it takes to bring snapshots into a service. Every file is read twice.

    Args:
        files: paths of the shards of one source, or the path of one whole one; or snapshots that were just opened by theirs.
        target: a service, of `rdbkit.find_target`, or its name.
        sku: the size to plan for, of `Target.skus`, or its name; by default the smallest that holds the data.
        growth: by what share the data is to have room to grow; 0.2 for a fifth.
        high_availability: whether the cache is to have a replica.
        names: what cache, group and storage are called in the commands.
        clustering: the policy of clustering, of a service that has several; by default what fits the data and its source.
        access_keys: let clients log in with access keys, instead of by Entra ID, where a service has them off unless asked for.
        cloud: where the service is: "public", "usgovernment", "china", or the name that `az cloud list` has.
        now_ms: what counts as now, in Unix milliseconds; by default the clock.
        relaxed: try RDB versions that are newer than this release knows.
        progress: called with the bytes read so far, of all files together.

    Raises: ValueError for a target that is no service, a size or a policy that it does not have, a name that it refuses, an unknown
        cloud, and for a file that is given twice; TypeError for what is no path, target or size; ChangedError where a file is
        another at its second reading; RdbError where one is damaged; OSError where one cannot be opened.

    >>> found = plan(["fixtures/random/redis-6.2.16.rdb"], "azure-managed")
    >>> found.chosen.name, found.files[0].verdict
    ('Balanced_B0', 'lossless')
    """
    files, target = paths_of(files), as_target(target)
    if not target.skus:
        raise ValueError(f"{target.name} is no service that is sold in sizes")
    wanted = as_sku(sku, target)
    names = names or Names()
    check_names(names, target)
    policy = _as_policy(clustering, target)
    where = find_cloud(cloud) if isinstance(cloud, str) else cloud
    check_distinct(files)
    now = time.time_ns() // 1_000_000 if now_ms is None else now_ms
    reading = _Reading(files, relaxed, progress)
    memories = reading.of_each(lambda snapshot: memory(snapshot, target, top=1, now_ms=now, progress=reading.update))
    data = sum(_data(weighed) for weighed in memories)
    needed = math.ceil(data * (1 + growth))
    sizes = _sizes(target, needed, wanted)
    chosen = _chosen(sizes)
    used = [weighed.used_memory for weighed in memories]
    modules = _modules(memories, target)
    if policy is not None:
        _check_policy(policy, chosen, modules)
    # how many databases there will be is known now
    of_size = _databases_of(chosen, target)
    clustered = "cluster_policies" not in target.facts and chosen is not None and chosen.shards > 1
    checks = reading.of_each(
        lambda snapshot: check(snapshot, target, clustered=clustered, databases=of_size, now_ms=now, progress=reading.update)
    )
    clustering, reason = "cluster" if clustered else "none", ""
    if "cluster_policies" in target.facts:
        small = chosen is None or chosen.memory_gb <= _NO_CLUSTER_GB
        clustering, reason = (policy, "it was asked for") if policy is not None else _policy(modules, memories, checks, small)
    taken: set[str] = set()
    planned = [_file(report, weighed, taken) for report, weighed in zip(checks, memories, strict=True)]
    databases = sorted({d.db for weighed in memories for d in weighed.databases})
    found = Plan(
        target=target.name,
        title=target.title,
        files=planned,
        keys=sum(weighed.keys for weighed in memories),
        databases=databases,
        data_bytes=data,
        growth=growth,
        needed_bytes=needed,
        used_memory=None if None in used else sum(n for n in used if n is not None),
        high_availability=high_availability,
        said=_said(target, now),
        shards=[finding.title for finding in check_shards(checks)],
        notes=[],
        sizes=sizes,
        chosen=chosen,
        clustering=clustering,
        modules=modules,
        steps=[],
        dual_writing=_dual_writing(memories, now),
        names=names,
        clustering_reason=reason,
        access_keys=access_keys,
        cloud=where.word,
        now_ms=now,
        good_until=f"{good_until(now):%Y-%m-%dT%H:%MZ}",
    )
    found.notes = _notes(found, target, wanted, memories)
    found.steps = steps_of(found, target, now)
    return found


class _Reading:
    """Reads the files, as often as is asked for, and counts the bytes of all that has been read."""

    def __init__(self, files: Sequence[str], relaxed: bool, progress: Callable[[int], object] | None) -> None:
        self.files = files
        self.relaxed = relaxed
        self.progress = progress
        self.rereading = Rereading()
        self.read = 0  # of the files before the one at hand

    def of_each(self, read: Callable[[Snapshot], T]) -> list[T]:
        """What `read` makes of each file."""
        found = []
        for file in self.files:
            with rdbkit.open(file, relaxed=self.relaxed, rereading=self.rereading) as snapshot:
                found.append(read(snapshot))
            self.read += file_size(file) or 0
        return found

    def update(self, done: int) -> None:
        """So many bytes of the file at hand have been read."""
        if self.progress is not None:
            self.progress(self.read + done)


# -- how much, and which sizes


def _data(weighed: Memory) -> int:
    """What a file's data needs, without what has expired: a server drops that while it loads."""
    share = weighed.expiry[0].bytes / weighed.keys_bytes if weighed.keys_bytes else 0.0
    return math.ceil((weighed.dataset_bytes + weighed.overhead_bytes) * (1 - share))


def _file(report: Check, weighed: Memory, taken: set[str]) -> PlannedFile:
    as_it_is = report.verdict == AS_IT_IS
    usable = as_it_is or report.verdict == CANNOT
    name = wanted = _blob_name(base_name(report.file) if usable else report.converted)
    number = 1
    while name in taken:  # shards often have one name, in folders of their own
        number += 1
        name = f"{number}-{wanted}"
    taken.add(name)
    convert = "" if usable else report.command_to(name)
    if as_it_is and is_remote(report.file) and not is_blob(report.file):  # which the Azure CLI does not read
        convert = report.command_to(name)
    if usable and is_server_url(report.file):
        convert = f"rdbkit snapshot {path_word(report.file)} {path_word(name)}"
    return PlannedFile(
        file=report.file,
        keys=weighed.keys,
        memory_bytes=_data(weighed),
        used_memory=weighed.used_memory,
        verdict=report.verdict,
        summary=report.summary,
        findings=[f"{f.code} {f.title}" for f in report.findings if f.severity != "note"],
        convert=convert,
        upload=name if convert else report.file,
        blob=name,
        upload_bytes=file_size(report.file) or 0 if usable else weighed.file_bytes,
        exact=not convert,
    )


def _blob_name(file: str) -> str:
    """A name for a blob, from that of a file: UTF-8 that can be printed."""
    # for Azure CLI an @ in front means a file that has the argument
    return "".join(ch if ch.isprintable() else "_" for ch in file).lstrip("@") or "dump.rdb"


def _sizes(target: Target, needed: int, sku: Sku | None) -> list[Size]:
    """The smallest size of each tier that holds so much; where shards are chosen, each size with as many as that takes."""
    most = target.facts["max_shards"].value if "max_shards" in target.facts else 1
    found: dict[str, Size] = {}
    for each in sorted(target.skus, key=lambda s: s.memory_gb):
        if sku is not None and each.name != sku.name:
            continue
        usable = int(each.usable_gb * GB)
        shards = 1
        if needed > usable:
            shards = math.ceil(needed * _UNEVEN / usable)
            if shards > most:
                continue
        tier = each.tier or each.name
        if tier not in found:
            room = usable * shards
            prefix = "".join(word.capitalize() for word in each.tier.split())
            found[tier] = Size(
                each.name, each.tier, shards, each.memory_gb * shards, room, 1 - needed / room, each.preview, each.note,
                f"{prefix}_{each.name}" if prefix else each.name, each.databases,
            )  # fmt: skip
    return sorted(found.values(), key=lambda each: (each.memory_gb, each.shards))


def _chosen(sizes: list[Size]) -> Size | None:
    """The size to plan for: balanced where there are tiers, one shard where that is enough."""
    ready = [each for each in sizes if not each.preview] or sizes
    alone = [each for each in ready if each.shards == 1] or ready
    return next((each for each in alone if each.tier == "balanced"), alone[0] if alone else None)


def _databases_of(chosen: Size | None, target: Target) -> int | None:
    """How many databases a size can have, None where that does not depend on it."""
    return next((sku.databases for sku in target.skus if chosen is not None and sku.name == chosen.sku), None)


def _modules(memories: list[Memory], target: Target) -> list[str]:
    """What has to be chosen when the service is created, for there are values of it, by the names that services have for it."""
    types = {row.type for weighed in memories for row in weighed.types if row.encoding == "module"}
    types |= {name for weighed in memories for name in weighed.module_data}
    offered = types_of(frozenset(target.optional_modules))
    return sorted({product_of(name) for name in types if name in offered})


def _as_policy(name: str | None, target: Target) -> str | None:
    """A policy of clustering as the service writes it.

    Raises: ValueError for one that it does not have.
    """
    if name is None:
        return None
    policies = [str(each) for each in target.facts["cluster_policies"].value] if "cluster_policies" in target.facts else []
    if not policies:
        raise ValueError(f"{target.title} has no policies of clustering to choose from")
    for each in policies:
        if each.lower() == name.lower():
            return each
    raise ValueError(f"{name!r} is no policy of clustering of {target.title}, which has {', '.join(policies)}")


def _check_policy(policy: str, chosen: Size | None, modules: list[str]) -> None:
    """See to it that a policy of clustering can have the data. Raises: ValueError where it cannot."""
    if SEARCH in modules and policy != "EnterpriseCluster":
        raise ValueError(f"the data needs {SEARCH}, which wants the policy EnterpriseCluster and not {policy}")
    if policy == "NoCluster" and chosen is not None and chosen.memory_gb > _NO_CLUSTER_GB:
        raise ValueError(f"NoCluster is for sizes up to {_NO_CLUSTER_GB} GB, and {chosen.name} has {chosen.memory_gb:g}")


def _policy(modules: list[str], memories: list[Memory], checks: list[Check], small: bool) -> tuple[str, str]:
    """The policy of clustering that fits the data and its source, and why. `small`: the size can do without shards."""
    if SEARCH in modules:
        return "EnterpriseCluster", f"{SEARCH} wants it, and no eviction"
    if any(weighed.cluster for weighed in memories):
        return "OSSCluster", "the source is a cluster"
    if not any(weighed.redis_enterprise for weighed in memories):  # whose shards hide behind one endpoint
        if any(report.slots is not None for report in checks):
            return "OSSCluster", "by the slots of the keys the source is a cluster"
        if len(checks) > 1 and not any(map(_is_no_shard, checks)):
            return "OSSCluster", "several files are the shards of a cluster"
    code = _server_code(memories)
    if code and small:
        return "NoCluster", f"the source has {code}, which may name keys of several slots"
    if code:
        return "EnterpriseCluster", f"there is no NoCluster above {_NO_CLUSTER_GB} GB, though the source has {code}"
    return "EnterpriseCluster", "the data shows neither a cluster nor functions nor scripts"


def _is_no_shard(report: Check) -> bool:
    """Whether a file has keys in nearly all slots, or in several databases: no shard of a cluster has."""
    if report.occupied == 0:  # which is not looked at where there are several databases
        return report.keys > 0
    return "0" * _GAP not in f"{report.occupied:0{SLOTS}b}"


def _server_code(memories: list[Memory]) -> str:
    """What runs on the server by the files, in words; empty for nothing."""
    functions, scripts = sum(weighed.functions for weighed in memories), sum(weighed.scripts for weighed in memories)
    libraries = f"{functions:,} function {'library' if functions == 1 else 'libraries'}"
    return " and ".join(text for text, n in ((libraries, functions), (count(scripts, "Lua script"), scripts)) if n)


# -- what has to be said


def _date(fact: Any) -> datetime.date | None:
    return fact if isinstance(fact, datetime.date) else None


def _said(target: Target, now_ms: int) -> list[str]:
    """That a service is closed, or ends, and that its documents say nothing of its engine."""
    today = datetime.datetime.fromtimestamp(now_ms / 1000, datetime.UTC).date()
    values = {name: _date(fact.value) for name, fact in target.facts.items() if fact.value is not None}
    said = []
    retires, to_new = values.get("retires"), values.get("closed_to_new_customers")
    closed = target.facts.get("closed")
    if closed is not None and target.creation(today) is Creation.CLOSED:
        said.append(f"no new caches can be created since {closed.value}: only one that you have can take the data")
    elif closed is not None and target.creation(today) is Creation.REPORTED:
        reported = target.facts["reported_open_until"]
        said.append(
            f"whether a new cache can be created is in doubt. {closed.source} ({closed.date}): not since {closed.value}. "
            f"{reported.source} ({reported.date}): until {reported.value}, {reported.note}"
        )
    elif to_new is not None and to_new <= today:
        until = f", and from {closed.value} on for nobody" if closed is not None else ""
        said.append(f"no new caches can be created by new customers since {to_new}{until}")
    if retires is not None:
        left = (retires - today).days
        successor = target.facts.get("successor")
        instead = f"; {successor.value} is what Microsoft puts in its place" if successor is not None else ""
        said.append(f"it retires on {retires}, in {left:,} days{instead}" if left > 0 else f"it retired on {retires}{instead}")
    told = beyond_documents(target)
    return [*said, told] if told else said


def _notes(found: Plan, target: Target, sku: Sku | None, memories: list[Memory]) -> list[str]:
    """What follows from the data for the target."""
    notes = []
    if found.keys == 0:
        notes.append("there are no keys: an import would only empty the cache")
    notes += _notes_on_databases(found, target)
    notes += _notes_on_largest_key(found, target, memories)
    notes += _notes_on_size(found, target, sku)
    if len(found.files) > 1 and found.keys:
        notes.append("keys that are in several files count once for each: rdbkit check --duplicates finds them")
    if found.chosen is not None and not found.high_availability and "cluster_policies" in target.facts:
        notes.append("without high availability there is no replica: a node that fails takes its data with it")
    if any(weighed.estimated_keys for weighed in memories):
        notes.append("values of modules count with their bytes in the file: what they take in memory is not known")
    if found.chosen is not None and found.clustering in _POLICIES:
        notes.append(f"clustering policy {found.clustering}, since {found.clustering_reason}: {_POLICIES[found.clustering]}")
    return notes


def _notes_on_databases(found: Plan, target: Target) -> list[str]:
    beyond = [db for db in found.databases if db > 0]
    if not beyond:
        return []
    if target.single_db or found.clustering == "cluster":
        numbers = ", ".join(map(str, beyond[:5])) + (", ..." if len(beyond) > 5 else "")
        return [f"keys in databases beyond 0 ({numbers}), where the target has 0 alone: the conversion moves them"]
    if target.databases is None or found.chosen is None:
        return []
    most = _databases_of(found.chosen, target) or target.databases
    if beyond[-1] >= most:
        return [f"database {beyond[-1]} is beyond the {most} of {found.chosen.sku}: the conversion moves its keys"]
    if beyond[-1] >= 16:
        return [f"database {beyond[-1]}: more than 16 databases have to be asked for when the cache is created"]
    return []


def _notes_on_largest_key(found: Plan, target: Target, memories: list[Memory]) -> list[str]:
    notes = []
    heaviest = max((key.bytes for weighed in memories for key in weighed.biggest), default=0)
    if target.max_key_bytes is not None and heaviest > target.max_key_bytes:
        notes.append(f"the largest key takes {size(heaviest)}: an import fails with keys larger than {size(target.max_key_bytes)}")
    if found.chosen is not None and found.chosen.shards > 1:
        if heaviest > found.chosen.usable_bytes // found.chosen.shards:
            notes.append("the largest key does not fit into one shard: a key is never spread over several")
        notes.append(f"shards fill unevenly: {_UNEVEN - 1:.0%} is added for that")
    return notes


def _notes_on_size(found: Plan, target: Target, sku: Sku | None) -> list[str]:
    chosen, used = found.chosen, found.used_memory
    if chosen is not None:
        if used is None or used * (1 + found.growth) <= chosen.usable_bytes:
            return []
        return [
            f"the source had {size(used)} in use, with growth more than {chosen.sku} has: buffers,"
            " fragmentation and another allocator count there, but look at its INFO memory before you decide"
        ]
    if sku is None:
        largest = max(target.skus, key=lambda s: s.memory_gb)
        return [f"no size holds it: the largest, {largest.name}, has {largest.usable_gb:g} GB for data"]
    enough = ", ".join(_times(each) for each in _sizes(target, found.needed_bytes, None)[:3])
    room = f"{sku.name} has {sku.usable_gb:g} GB for data, and {size(found.needed_bytes)} are needed"
    return [f"{room}; large enough: {enough}" if enough else room]


def _times(each: Size) -> str:
    return each.sku if each.shards == 1 else f"{each.shards} shards of {each.sku}"


def _dual_writing(memories: list[Memory], now: int) -> DualWriting:
    last = max((w.last_expiry_ms for w in memories if w.last_expiry_ms is not None), default=None)
    never = [w.expiry[-1] for w in memories]
    lasting_bytes = sum(row.bytes for row in never)
    return DualWriting(
        expiring=sum(w.expiring for w in memories),
        last_expiry=None if last is None else _day(last),
        days=None if last is None else max(0.0, (last - now) / _DAY_MS),
        gone=_gone(memories),
        lasting=sum(row.keys for row in never),
        lasting_bytes=lasting_bytes,
        prefixes=_lasting_prefixes(memories, lasting_bytes),
    )


def _gone(memories: list[Memory]) -> dict[str, float]:
    """What share of the expiring keys will have been renewed or have died, by the names of `LEFT`; empty where none expires."""
    expiring = sum(w.expiring for w in memories)
    if not expiring:
        return {}
    in_each = (sum(w.expiry[at].keys for w in memories) for at in range(len(EDGES)))
    return {left: so_far / expiring for left, so_far in zip(LEFT, accumulate(in_each), strict=False)}


def _lasting_prefixes(memories: list[Memory], total: int) -> list[Prefix]:
    """The largest prefixes of keys that do not expire, with their share of `total` bytes."""
    sums: dict[bytes, tuple[int, int]] = {}
    for p in (p for weighed in memories for p in weighed.prefixes if p.depth == 1 and p.keys > p.expiring):
        keys, taken = sums.get(p.prefix, (0, 0))
        sums[p.prefix] = keys + p.keys - p.expiring, taken + p.bytes - p.expiring_bytes
    largest = sorted(sums.items(), key=lambda item: (-item[1][1], item[0]))[:_PREFIXES]
    return [Prefix(prefix, 1, keys, taken, taken / total, 0, 0) for prefix, (keys, taken) in largest]


def _day(ms: int) -> str:
    """The day of a time, or the time itself where it is beyond every calendar."""
    try:
        return time.strftime("%Y-%m-%d", time.gmtime(ms / 1000))
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"

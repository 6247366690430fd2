"""What servers and services load: the facts, files of users, and `rdbkit targets`."""

from __future__ import annotations

import datetime
import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from rdbkit.model import Header
from rdbkit.targets.commands import features
from rdbkit.targets.facts import KEYS, Fact
from rdbkit.targets.target import Creation, Target, find_target, load_targets, target_names, tolerated

from .. import command_line

DATED = re.compile(r"20\d\d(-\d\d(-\d\d)?)?")
#: Derived from the others, or no facts.
NO_FACTS = {"name", "exact", "documented", "facts", "source", "date"}

# by hand, from the sources that azure.toml names
AZURE = [
    ("azure-premium", "engine", "6.0", "2025-04-29"),
    ("azure-premium", "documented.4.0", 8, "2025-04-29"),
    ("azure-premium", "documented.6.0", 9, "2025-04-29"),
    ("azure-premium", "rdb", 9, "2025-04-29"),
    ("azure-premium", "sku_databases", {"P1": 16, "P2": 32, "P3": 48, "P4": 64, "P5": 64}, "2026-11-23"),
    ("azure-premium", "databases", 64, "2026-11-23"),
    ("azure-premium", "default_databases", 16, "2026-11-23"),
    ("azure-premium", "clustered_databases", 1, "2026-11-23"),
    ("azure-premium", "optional_modules", [], "2026-03"),
    ("azure-premium", "functions", None, "2026-11-23"),
    ("azure-premium", "takes_gzip", None, "2026-11-23"),
    ("azure-premium", "max_key_bytes", None, "2026-11-23"),
    ("azure-premium", "blob_types", ["page", "block"], "2025-04-29"),
    ("azure-premium", "page_blob_multiple", 512, "2026"),
    ("azure-premium", "storage_firewall", True, "2026-11-23"),
    ("azure-premium", "same_region", True, "2025-04-29"),
    ("azure-premium", "sas_hours_ahead", 1, "2025-04-29"),
    ("azure-premium", "sas_minutes_back", 15, "2025-04-29"),
    ("azure-premium", "import_deletes", True, "2025-04-29"),
    ("azure-premium", "import_blocks_clients", True, "2025-04-29"),
    ("azure-premium", "closed_to_new_customers", datetime.date(2026, 4, 1), "2026-05"),
    ("azure-premium", "closed", datetime.date(2026, 10, 1), "2026-05"),
    ("azure-premium", "reported_open_until", datetime.date(2028, 9, 30), "2026-09-17"),
    ("azure-premium", "tooling_moves_data", False, "2026-03"),
    ("azure-premium", "retires", datetime.date(2028, 9, 30), "2026-05"),
    ("azure-enterprise", "engine", "7.2", "2026-03-16"),
    ("azure-enterprise", "documented.7.2", 11, "2025-05-18"),
    ("azure-enterprise", "closed", datetime.date(2026, 4, 1), "2026-05"),
    ("azure-enterprise", "retires", datetime.date(2027, 3, 31), "2026-05"),
    ("azure-enterprise", "tooling_moves_data", False, "2026-04"),
    ("azure-enterprise", "takes_own_exports", True, "2026-04-24"),
    ("azure-enterprise", "storage_firewall", False, "2025-04-29"),
    ("azure-managed", "engine", "7.4", "2025-05-18"),
    ("azure-managed", "documented.7.2", 11, "2025-05-18"),
    ("azure-managed", "documented.7.4", 11, "2026-04-24"),
    ("azure-managed", "rdb", 11, "2026-04-24"),
    ("azure-managed", "known_to_load.7.4", 12, "2026-11-30"),
    ("azure-managed", "undocumented", [12], "2026-11-30"),
    ("azure-managed", "takes_own_exports", True, "2026-04-24"),
    ("azure-managed", "access_keys_by_default", False, "2026-08"),
    ("azure-managed", "no_cluster", "slower; for an application that can use neither of the other policies", "2025-05-18"),
    ("azure-managed", "single_db", True, "2026-03"),
    ("azure-managed", "max_key_bytes", 2**31, "2026-04-24"),
    ("azure-managed", "takes_gzip", True, "2026-04-24"),
    ("azure-managed", "storage_firewall", False, "2026-04-24"),
    ("azure-managed", "same_region", None, "2026-04-24"),
    ("azure-managed", "same_subscription", False, "2026-04-24"),
    ("azure-managed", "usable_share", 0.8, "2025-05-18"),
    ("azure-managed", "flash_modules", ["RedisJSON"], "2025-05-18"),
]
PREMIUM = {"P1": (6, 4.8), "P2": (13, 10.4), "P3": (26, 20.8), "P4": (53, 42.4), "P5": (120, 96)}
#: Advertised, usable, and which of memory optimized, balanced, compute optimized there are; those in preview with a star.
MANAGED = """
    0.5 0.4 B0      | 1 0.8 B1              | 3 2.4 B3 X3             | 6 4.8 B5 X5
    12 9.6 M10 B10 X10                      | 24 19.2 M20 B20 X20     | 60 48 M50 B50 X50
    120 96 M100 B100 X100                   | 175 140 M150 B150 X150  | 235 188 M250 B250 X250
    350 280 M350 B350 X350                  | 480 384 M500* B500* X500*
    720 576 M700* B700* X700*               | 960 768 M1000* B1000*
    1440 1152 M1500*                        | 1920 1536 M2000*
    250 200 A250* | 500 400 A500* | 750 600 A700* | 1000 800 A1000* | 1500 1200 A1500* | 2000 1600 A2000* | 4500 3600 A4500*
"""
TIERS = {"M": "memory optimized", "B": "balanced", "X": "compute optimized", "A": "flash optimized"}
#: Release lines and the newest version of each that they load, from src/rdb.h.
SERVERS = {
    "redis-2.4": 2, "redis-2.8": 6, "redis-3.2": 7, "redis-4.0": 8, "redis-6.0": 9, "redis-7.0": 10, "redis-7.2": 11,
    "redis-7.4": 12, "redis-8.4": 12, "redis-8.6": 13, "redis-8.8": 14, "redis-8.10": 15, "valkey-8.1": 11, "valkey-9.1": 11,
    "redict-7.3": 12, "keydb-6.3": 9,
}  # fmt: skip


def run(*args: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    return command_line.run_text("targets", *args, **more)


@pytest.fixture
def mine(tmp_path: Path) -> Any:
    def write(text: str) -> Path:
        path = tmp_path / "mine.toml"
        path.write_text(text, "utf-8")
        return path

    return write


# -- the facts


@pytest.mark.parametrize("target", load_targets(), ids=lambda target: target.name)
def test_every_fact_has_a_source_and_a_date(target: Target) -> None:
    for name, fact in target.facts.items():
        assert name.partition(".")[0] in KEYS, name
        assert fact.source, name
        assert DATED.fullmatch(fact.date), name
        assert fact.value is not None or fact.note, name
    for sku in target.skus:
        assert sku.source, sku
        assert DATED.fullmatch(sku.date), sku
    assert (target.source, target.date) == (target.facts["rdb"].source, target.facts["rdb"].date)


@pytest.mark.parametrize("target", load_targets(), ids=lambda target: target.name)
def test_every_attribute_is_a_fact(target: Target) -> None:
    empty = Target("", "", 0)
    for field in fields(Target):
        value = getattr(target, field.name)
        if field.name in NO_FACTS or value == getattr(empty, field.name):
            continue
        fact = target.facts[field.name]
        if field.name == "skus":
            assert fact.value == [sku.name for sku in target.skus]
        elif field.name == "title":
            assert target.title.startswith(fact.value)
        else:
            assert fact.value == value, field.name


@pytest.mark.parametrize(("name", "key", "value", "date"), AZURE)
def test_azure(name: str, key: str, value: Any, date: str) -> None:
    fact = find_target(name).facts[key]
    assert (fact.value, fact.date) == (value, date)
    if "." not in key and hasattr(Target, key) and value is not None:
        assert getattr(find_target(name), key) == value


def test_sizes() -> None:
    premium = find_target("azure-premium")
    assert {sku.name: (sku.memory_gb, sku.usable_gb) for sku in premium.skus} == PREMIUM
    assert {sku.name: sku.databases for sku in premium.skus} == premium.facts["sku_databases"].value
    expected = {}
    for row in MANAGED.replace("\n", "|").split("|"):
        gb, usable, *names = row.split() or ("", "")
        for name in names:
            expected[name.rstrip("*")] = TIERS[name[0]], float(gb), float(usable), name.endswith("*")
    assert {s.name: (s.tier, s.memory_gb, s.usable_gb, s.preview) for s in find_target("azure-managed").skus} == expected
    assert len(expected) == 44
    (only,) = find_target("azure-enterprise").skus
    assert (only.name, only.memory_gb) == ("E5", 8)


def test_where_sources_differ_the_fact_says_so() -> None:
    managed, enterprise, premium = (find_target(f"azure-{name}") for name in ("managed", "enterprise", "premium"))
    assert "one of two stored versions" in managed.facts["max_key_bytes"].note
    assert (
        "another one, of 2026-04-14, and Microsoft's migration skill say that it does"
        in enterprise.facts["tooling_moves_data"].note
    )
    assert "reported as withdrawn" in premium.facts["closed"].note
    assert "second-hand" in premium.facts["reported_open_until"].source
    assert "before 2026-04-01" in premium.facts["reported_open_until"].note
    assert "before the cache is scaled up" in managed.facts["no_cluster"].note
    for sku in managed.skus:
        if sku.memory_gb in (175, 235, 350):
            older = {175: 180, 235: 240, 350: 360}[int(sku.memory_gb)]
            assert (sku.source, sku.date) == ("Azure docs, redis/whats-new", "2026-03-27")
            assert sku.note == f"{older} in the migration skill"


def test_whether_a_cache_can_be_created() -> None:
    premium, enterprise, managed = (find_target(f"azure-{name}") for name in ("premium", "enterprise", "managed"))
    day = datetime.date(2026, 11, 30)
    assert [each.creation(day) for each in (managed, premium, enterprise)] == [Creation.OPEN, Creation.REPORTED, Creation.CLOSED]
    assert premium.creation(datetime.date(2026, 9, 30)) is Creation.OPEN
    assert premium.creation(datetime.date(2028, 9, 30)) is Creation.REPORTED
    assert premium.creation(datetime.date(2028, 10, 1)) is Creation.CLOSED


def test_what_no_source_states_is_marked() -> None:
    managed, enterprise = find_target("azure-managed"), find_target("azure-enterprise")
    assert managed.facts["undocumented"].inferred
    assert not managed.facts["rdb"].inferred
    assert enterprise.facts["rdb"].inferred
    assert {sku.name[0] for sku in managed.skus if sku.inferred} == {"A"}


@pytest.mark.parametrize(("name", "rdb"), SERVERS.items())
def test_servers(name: str, rdb: int) -> None:
    target = find_target(name)
    assert (target.rdb, target.undocumented, target.is_service, target.takes_gzip) == (rdb, [], False, False)
    assert target.valkey == ([80] if name == "valkey-9.1" else [])


def test_names() -> None:
    names = target_names()
    assert len(set(names)) == len(names)
    assert set(SERVERS) < set(names)
    for name in names:
        target = find_target(name)
        assert target.name == name
        assert target.exact == name.startswith("rdb-")
        assert name not in target.lines
    assert find_target("redis-6.0").lines == ["redis-5.0", "redis-6.2"]
    with pytest.raises(ValueError, match="nearest: azure-managed"):
        find_target("azure-manged")


# -- another engine


@pytest.mark.parametrize(
    ("name", "version", "rdb", "undocumented", "title"),
    [
        ("azure-managed", "7.4.3", 11, [12], "Azure Managed Redis (Redis 7.4)"),
        ("azure-managed", "7.2", 11, [], "Azure Managed Redis (Redis 7.2)"),
        ("azure-managed", "8.0", 12, [], "Azure Managed Redis (Redis 8.0)"),
        ("azure-managed", "8.6", 13, [], "Azure Managed Redis (Redis 8.6)"),
        ("azure-managed", "8.10", 15, [], "Azure Managed Redis (Redis 8.10)"),
        ("azure-managed", "6.2", 9, [], "Azure Managed Redis (Redis 6.2)"),
        ("azure-premium", "4.0.14", 8, [], "Azure Cache for Redis Premium (Redis 4.0)"),
        ("azure-premium", "redis-5.0", 9, [], "Azure Cache for Redis Premium (Redis 5.0)"),
        ("azure-enterprise", "6.0", 9, [], "Azure Cache for Redis Enterprise (Redis 6.0)"),
    ],
)
def test_with_engine(name: str, version: str, rdb: int, undocumented: list[int], title: str) -> None:
    before = find_target(name)
    target = before.with_engine(version)
    assert (target.rdb, target.undocumented, target.title) == (rdb, undocumented, title)
    assert (target.skus, target.databases, target.optional_modules) == (before.skus, before.databases, before.optional_modules)
    documented = before.documented.get(".".join(version.split(".")[:2]))
    assert target.facts["rdb"].inferred == (documented is None or before.facts[f"documented.{target.engine}"].inferred)
    back = target.with_engine(before.engine or "")
    assert (back.rdb, back.undocumented, back.title) == (before.rdb, before.undocumented, before.title)


def test_an_engine_of_which_nothing_is_documented_loads_what_the_server_does() -> None:
    before = find_target("azure-managed")
    valkey = before.with_engine("valkey-9.0")
    assert (valkey.rdb, valkey.valkey, valkey.engine) == (11, [80], "valkey-9.0")
    assert valkey.with_engine("7.4").valkey == []
    redict = before.with_engine("redict-7.3")
    assert (redict.rdb, redict.types, redict.facts["types"].inferred) == (12, 21, True)


@pytest.mark.parametrize(
    ("name", "version", "words"),
    [
        ("azure-managed", "2.2", "'2.2' is no release of an engine; known: 7.2, 7.4, "),
        ("azure-managed", "dragonfly-1.0", "'dragonfly-1.0' is no release of an engine; known: 7.2, 7.4, "),
        ("azure-managed", "7", "known: 7.2, 7.4, "),
        ("azure-premium", "", "known: 4.0, 6.0, "),
        ("redis-7.2", "7.4", "let the target be redis-7.4"),
        ("redis-6.2", "7.4", "let the target be redis-7.4"),
        ("rdb-9", "7.4", "version of the format"),
    ],
)
def test_an_engine_that_cannot_be(name: str, version: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        find_target(name).with_engine(version)


def test_another_engine_has_the_modules_that_the_service_was_created_with() -> None:
    managed = find_target("azure-managed")
    for products in ([], ["RedisJSON"], managed.optional_modules):
        target = managed.with_modules(products).with_engine("8.0")
        assert (target.modules, target.optional_modules) == (["vector sets", *products], [])
        assert sorted(target.options) == sorted(managed.with_engine("8.0").with_modules(products).options)


def test_which_modules_a_service_has_is_said_by_the_last_word() -> None:
    managed = find_target("azure-managed").with_engine("8.0")
    target = managed.with_modules(["RedisJSON"])
    assert target.with_modules(["RedisJSON"]) == target
    assert target.with_modules([]) == managed.with_modules([])
    assert target.with_modules(managed.optional_modules) == managed.with_modules(managed.optional_modules)
    assert "--modules" not in [name for name, *_ in target.with_modules(managed.optional_modules).options]
    server = find_target("redis-7.4").with_modules(["RedisJSON"])
    assert server.with_modules(["RedisJSON"]) == server


def test_an_engine_of_which_the_documents_say_nothing_has_what_it_loads_itself() -> None:
    managed = find_target("azure-managed")
    target = managed.with_engine("8.0")
    assert (target.promised, target.is_beyond_documents, target.knows_engine) == (None, True, True)
    assert target.options == (("--redis-version", "8.0"),)
    fact = target.facts["rdb"]
    assert (fact.inferred, fact.note) == (True, "as Redis 8.0 has it; the service's documents say nothing of it")
    assert "vectorset" in target.module_types
    assert target.optional_modules == managed.optional_modules
    assert target.redis_enterprise
    assert {22, 23, 24, 25} <= target.types_in(Header("redis", 12)).keys()
    assert 28 in managed.with_engine("8.8").types_in(Header("redis", 14))
    assert not managed.is_beyond_documents
    assert not find_target("redis-8.0").is_beyond_documents


@pytest.mark.parametrize(
    ("version", "line", "rdb", "title"),
    [
        ("8.20", "redis-8.10", 15, "Redis 8.20"),
        ("9.0.1", "redis-8.10", 15, "Redis 9.0"),
        ("8.1", "redis-8.0", 12, "Redis 8.1"),
        ("7.6", "redis-7.4", 12, "Redis 7.6"),
        ("valkey-9.7", "valkey-9.1", 11, "Valkey 9.7"),
    ],
)
def test_a_release_that_is_not_known_is_taken_for_the_newest_before_it(version: str, line: str, rdb: int, title: str) -> None:
    target = find_target("azure-managed").with_engine(version)
    assert (target.release_line, target.rdb, target.knows_engine) == (line, rdb, False)
    assert target.title == f"Azure Managed Redis ({title})"
    assert target.options == (("--redis-version", version),)
    assert f"the newest line before {title} that rdbkit knows" in target.facts["rdb"].note
    assert features(target) == features(find_target(line))
    assert tolerated(target) == tolerated(find_target(line))


def test_undocumented() -> None:
    managed = find_target("azure-managed")
    target = managed.with_undocumented()
    assert (target.rdb, target.undocumented, target.promised, target.title) == (12, [], 11, managed.title)
    assert target.options == (("--undocumented",),)
    fact = managed.facts["undocumented"]
    assert target.facts["rdb"] == Fact(12, fact.source, fact.date, fact.note, True)
    assert (target.source, target.date) == (fact.source, fact.date)
    # whatever runs there, and however often it is said
    for again in (target.with_undocumented(), target.with_engine("7.4.3"), target.with_modules(["RedisJSON"]).with_engine("7.4")):
        assert again.rdb == 12
        assert again.options.count(("--undocumented",)) == 1
    older = target.with_engine("7.2")
    assert (older.rdb, older.options) == (11, (("--undocumented",), ("--redis-version", "7.2")))
    assert (older.with_engine("7.4").rdb, older.with_engine("7.4").options[-1]) == (12, ("--redis-version", "7.4"))
    assert managed.with_engine("7.2").with_undocumented().with_engine("7.4").rdb == 12
    # where nothing is kept apart, nothing changes
    for name in ("redis-7.2", "azure-premium", "rdb-9"):
        same = find_target(name).with_undocumented()
        assert (same.rdb, same.options) == (find_target(name).rdb, ())


# -- sizes by name


def test_sku() -> None:
    assert find_target("azure-premium").sku("p2").usable_gb == 10.4
    assert find_target("azure-managed").sku("B10").memory_gb == 12


@pytest.mark.parametrize(
    ("name", "sku", "words"),
    [
        ("azure-premium", "P6", "has no size 'P6'; nearest: P"),
        ("azure-managed", "B11", "nearest: B1"),
        ("azure-managed", "M15", "M150"),
        ("azure-managed", "zz", "known: M10, "),
        ("azure-premium", "c3", "C3 is of a tier that has no import"),
        ("azure-enterprise", "E20", "E20 of azure-enterprise is a size of which no source says how large it is"),
        ("redis-7.2", "P1", "redis-7.2 has no sizes"),
    ],
)
def test_a_size_that_is_none(name: str, sku: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        find_target(name).sku(sku)


# -- files of users

MINE = """
source = "OPS"

[sources]
OPS = { title = "our runbook", date = 2026-11-20 }
TRIED = { title = "tried", date = "2026-11" }

[targets.azure-managed]
max_key_bytes = { value = 1000, source = "TRIED", note = "one node" }
[targets.azure-managed.skus]
B7 = { tier = "balanced", memory_gb = 9 }
B10 = { tier = "balanced", memory_gb = 12, usable_gb = 11, databases = 2 }

[targets."redis-6.0"]
databases = 32

[targets.our-cache]
title = "Our cache"
engine = "7.0"
[targets.our-cache.documented]
"6.2" = 9
"""


def test_single_facts_are_overridden(mine: Any) -> None:
    path = mine(MINE)
    ours, target = find_target("azure-managed"), find_target("azure-managed", path)
    assert target.max_key_bytes == 1000
    assert target.facts["max_key_bytes"] == Fact(1000, "tried", "2026-11", "one node")
    assert target.sku("B7").usable_gb == 7.2
    assert (target.sku("B7").source, target.sku("B7").date) == ("our runbook", "2026-11-20")
    assert (target.sku("B10").usable_gb, target.sku("B10").databases) == (11, 2)
    assert len(target.skus) == len(ours.skus) + 1
    others = {key: fact for key, fact in target.facts.items() if key not in ("max_key_bytes", "skus", "skus.B7", "skus.B10")}
    assert others == {key: fact for key, fact in ours.facts.items() if key in others}
    assert find_target("azure-managed").max_key_bytes == 2**31  # without the file


def test_targets_are_added(mine: Any) -> None:
    path = mine(MINE)
    target = find_target("our-cache", path)
    assert (target.title, target.rdb, target.undocumented) == ("Our cache (Redis 7.0)", 10, [])
    assert target.is_beyond_documents
    assert load_targets(path)[-1].name == "our-cache"
    assert "our-cache" in target_names(path)
    assert "our-cache" not in target_names()
    with pytest.raises(ValueError, match="nearest: our-cache"):
        find_target("our-cach", path)


@pytest.mark.parametrize("name", ["redis-5.0", "redis-6.0", "redis-6.2"])
def test_a_release_line_that_gets_facts_of_its_own_leaves_its_row(name: str, mine: Any) -> None:
    path = mine(f'targets."{name}".databases = 32')
    for line in ("redis-5.0", "redis-6.0", "redis-6.2"):
        target = find_target(line, path)
        assert target.databases == (32 if line == name else None)
        assert (target.rdb, target.title) == (9, line.replace("-", " ").capitalize())
        assert len(target.lines) == (0 if line == name else 1)
    assert sorted(target_names(path)) == sorted(target_names())
    assert find_target(name, path).facts["databases"] == Fact(32, "mine.toml", "")


def test_a_version_in_a_file_is_taken_and_a_version_that_runs_wins_over_it(mine: Any) -> None:
    target = find_target("azure-managed", mine("targets.azure-managed.rdb = 12"))
    assert (target.rdb, target.undocumented) == (12, [])
    assert "undocumented" not in target.facts
    again = target.with_engine("7.4")
    assert (again.rdb, again.undocumented) == (11, [12])
    target = find_target("azure-managed", mine('targets.azure-managed.engine = "8.6"'))
    assert (target.rdb, target.undocumented) == (13, [])
    target = find_target("azure-managed", mine('targets.azure-managed.documented."7.4" = 12'))
    assert (target.rdb, target.undocumented) == (12, [])


def test_a_new_target_without_an_engine_can_get_one(mine: Any) -> None:
    target = find_target("x", mine('[targets.x]\ntitle = "X"\nrdb = 9'))
    assert not target.is_service
    target = target.with_engine("7.2")
    assert (target.is_service, target.title, target.rdb) == (True, "X (Redis 7.2)", 11)


def test_defaults_are_for_what_is_new(mine: Any) -> None:
    path = mine('defaults.takes_gzip = true\n[targets.x]\ntitle = "X"\nrdb = 9\n[targets.azure-premium]\ndatabases = 3')
    assert find_target("x", path).takes_gzip is True
    assert find_target("azure-premium", path).takes_gzip is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[targets.x]\ntitle = "X\nrdb = 9\n', "2: Illegal character '\\n'"),
        ("[targets.x]\n[targets.x]\n", "2: Cannot declare"),
        ("[targets.x", "1: "),
        ("", ""),
        ("targts = 3", "1: targts is unknown; nearest: targets"),
        ("\ntargets = 3", "2: targets is to be a table"),
        ("\n\n[targets.azure-premium]\ndatabasis = 3", "4: @.databasis is unknown; nearest: databases"),
        ('[targets.azure-premium]\n# databases\ndatabases = "3"', "3: @.databases is to be a whole number above 0"),
        ("[targets.azure-premium]\ndatabases = 0", "2: @.databases is to be a whole number above 0"),
        ("[targets.azure-premium]\ndatabases = true", "2: @.databases is to be a whole number above 0"),
        ("[targets.azure-premium]\nsingle_db = 1", "2: @.single_db is to be true or false"),
        ("[targets.azure-premium]\nmodules = [1]", "2: @.modules is to be a list of texts"),
        ('[targets.azure-premium]\nundocumented = ["a"]', "2: @.undocumented is to be a list of whole numbers"),
        ('[targets.azure-premium]\nretires = "2028"', "2: @.retires is to be a date, as in 2026-10-01"),
        ("[targets.azure-premium]\nusable_share = inf", "2: @.usable_share is to be a number above 0"),
        ("[targets.azure-premium]\nrdb = { value = 9, sorce = 'x' }", "2: @.rdb.sorce is unknown; nearest: source"),
        ("[targets.azure-premium]\nrdb = { note = 'x' }", "2: @.rdb needs a value"),
        ("[targets.azure-premium]\ntakes_gzip = { value = 3 }", "2: @.takes_gzip is to be true or false"),
        ("[targets.azure-premium]\ntakes_gzip = { source = 'x' }", "2: @.takes_gzip is to be true or false"),
        ("[targets.azure-premium]\nskus = 3", "2: @.skus is to be a table"),
        ("[targets.azure-premium.skus]\nP9 = 3", "2: @.skus.P9 is to be a table"),
        ("[targets.azure-premium.skus]\nP9 = { }", "2: @.skus.P9 needs memory_gb"),
        ("[targets.azure-premium.skus]\nP9 = { memory_gb = 1, gb = 3 }", "2: @.skus.P9.gb is unknown"),
        ("[targets.azure-premium]\nsource = 'WHO'", "2: @.source 'WHO' is not among [sources]"),
        ("source = 'WHO'\n[sources]\nWHOM = { title = 'w' }", "1: source 'WHO' is not among [sources]; nearest: WHOM"),
        ("[sources]\nA = { date = 2026-01-01 }", "2: sources.A needs a title"),
        ("[sources]\nA = { title = 'a', date = 'May' }", "2: sources.A.date is to be a date, as in 2026-04-24"),
        ("[targets.azure-premium]\nengine = '9.9'", "2: @.engine is to be a release line of a server"),
        ("[targets.azure-premium.documented]\n'9.9' = 9", "2: @.documented.9.9 is to be a release line"),
        ("\n[targets.new]\nrdb = 9", "2: targets.new is new, and needs title"),
        ("\n[targets.new]\ntitle = 'N'", "2: targets.new is new, and needs rdb"),
        ("\n[targets.rdb-9]\ntitle = 'N'", "2: targets.rdb-9 is no name for a target"),
        ("[targets.'a b']\ntitle = 'N'", "1: targets.a b is no name for a target"),
        ("\n[targets.redis-6.2]\nrdb = 9", '2: targets.redis-6.2 is in need of quotes: [targets."redis-6.2"]'),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_file_line_and_key(text: str, message: str, mine: Any) -> None:
    path = mine(text)
    if not message:
        assert load_targets(path) == load_targets()
        return
    with pytest.raises(ValueError, match="line") as caught:
        load_targets(path)
    assert str(caught.value).startswith(f"{path}, line {message.replace('@', 'targets.azure-premium')}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["usable_share", "sku_databases"])
def test_what_no_source_says_of_sizes_is_as_if_it_were_not_there(name: str, mine: Any) -> None:
    theirs = mine(
        f"[targets.new]\ntitle = 'N'\nrdb = 9\n{name} = {{ note = 'nobody knows' }}\n[targets.new.skus]\nS = {{ memory_gb = 4 }}"
    )
    sku = find_target("new", theirs).sku("S")
    assert (sku.usable_gb, sku.databases) == (4, None)


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"\n\n# \xff")
    with pytest.raises(ValueError, match=r"mine\.toml, line 3: is not UTF-8: byte 0xff"):
        load_targets(tmp_path / "mine.toml")
    with pytest.raises(OSError, match=r"none\.toml"):
        load_targets(tmp_path / "none.toml")


# -- the command


def test_all_of_them() -> None:
    result = run()
    assert (result.returncode, result.stderr) == (0, "")
    rows = {line.split()[0]: line for line in result.stdout.splitlines()[3:] if line.startswith("  ")}
    assert list(rows) == [target.name for target in load_targets()]
    assert " ".join(rows["azure-managed"].split()) == "azure-managed Azure Managed Redis (Redis 7.4) 11 1 RDB 12 undocumented"
    assert "closed 2026-10-01 in doubt, ends 2028-09-30" in rows["azure-premium"]


@pytest.mark.parametrize("name", ["azure-premium", "azure-managed", "azure-enterprise", "redis-6.2", "valkey-9.1"])
def test_one_of_them_has_every_fact(name: str) -> None:
    result = run(name)
    target = find_target(name)
    assert (result.returncode, result.stderr) == (0, "")
    # a long value takes several lines, with the number of its source in the first
    text = " ".join(re.sub(r"\s+\d+$", "", result.stdout, flags=re.M).split())
    dates = result.stdout[result.stdout.index("Sources") :]
    for key, fact in target.facts.items():
        if key != "skus":  # the sizes say it one by one
            assert fact.source in text
        assert fact.date in dates
        if isinstance(fact.value, str):
            assert fact.value in text, key
        if not key.startswith("skus"):
            assert fact.note in text, key
    lines = [line.split() for line in result.stdout.splitlines()]
    for sku in target.skus:
        (row,) = (line for line in lines if line[:1] == [sku.name])
        assert f"{sku.memory_gb:g}" in row
    assert max(map(len, result.stdout.splitlines())) < 100


def test_a_version_of_the_format() -> None:
    assert "version of the format" in run("rdb-9").stdout


def test_json(mine: Any) -> None:
    everything = json.loads(run("--json").stdout)
    assert [each["name"] for each in everything] == [target.name for target in load_targets()]
    one = json.loads(run("azure-premium", "--json").stdout)
    assert one == next(each for each in everything if each["name"] == "azure-premium")
    assert (one["rdb"], one["documented"], one["retires"]) == (9, {"4.0": 8, "6.0": 9}, "2028-09-30")
    assert one["facts"]["retires"]["value"] == "2028-09-30"
    assert one["facts"]["databases"]["date"] == "2026-11-23"
    assert one["skus"][1]["usable_gb"] == 10.4
    theirs = json.loads(run("our-cache", "--json", "--targets-file", mine(MINE)).stdout)
    assert theirs["facts"]["documented.6.2"]["source"] == "our runbook"


def test_wrong_usage(mine: Any) -> None:
    for args, words in (
        (["azure-manged"], "nearest: azure-managed"),
        (["--targets-file", mine("x = 3")], "mine.toml, line 1: x is unknown"),
        (["--targets-file", "none.toml"], "does not exist"),
    ):
        result = run(*args)
        assert result.returncode == 2
        assert words in " ".join(result.stderr.split())
        assert result.stdout == ""


def test_names_of_a_file_cannot_inject_control_sequences(mine: Any) -> None:
    text = r"[targets.x]" + "\n" + r'title = "\u001b[31mX"' + "\n" + r'rdb = { value = 9, note = "\u001b[2J" }'
    for args in ([], ["x"]):
        result = run(*args, "--targets-file", mine(text))
        assert result.returncode == 0
        assert "\x1b" not in result.stdout


@pytest.mark.parametrize("name", [None, *(target.name for target in load_targets() if target.is_service)])
def test_it_fits_a_terminal_of_80_columns(name: str | None) -> None:
    main, sub = pty.openpty()
    env = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "TERM": "xterm"}
    args = [sys.executable, "-m", "rdbkit", "targets", *([name] if name else [])]
    with subprocess.Popen(args, stdout=sub, env=env) as process:
        os.close(sub)
        data = b""
        while True:
            try:
                piece = os.read(main, 65536)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            data += piece
    os.close(main)
    assert process.returncode == 0
    lines = re.sub(r"\x1b\[[0-9;]*m", "", data.decode()).splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80
    words = {word for line in lines for word in line.split()}
    # nothing is cut: names stand whole
    expected = [target.name for target in load_targets()] if name is None else [s.name for s in find_target(name).skus]
    assert words.issuperset(expected)


def test_nothing_is_read_before_it_is_asked_for() -> None:
    code = "import sys, rdbkit.targets.target\nprint('tomllib' in sys.modules, 'difflib' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["False", "False"]

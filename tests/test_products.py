"""Types of module values by product: the table, and what every verb makes of it."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

import rdbkit
from rdbkit.cli import main
from rdbkit.format.primitives import read_uint64
from rdbkit.model import module_name
from rdbkit.operations.check import Check, check
from rdbkit.operations.plan import plan
from rdbkit.products import described, joined, module_product, module_type, module_types, product_names, types_of
from rdbkit.targets.facts import KEYS
from rdbkit.targets.target import find_target, load_targets

from .rdb import FIXTURES, key, rdb, string

SUGGESTIONS = FIXTURES / "modules" / "redisearch-suggestions.rdb"
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def module_id(name: str, version: int) -> bytes:
    number = 0
    for letter in name:
        number = number << 6 | ALPHABET.index(letter)
    return b"\x81" + (number << 10 | version).to_bytes(8, "big")


def value(name: str, version: int) -> bytes:
    return module_id(name, version) + b"\5" + string(b"what it holds") + b"\0"


def outside(name: str, version: int, when: int, frames: bytes) -> bytes:
    return b"\xf7" + module_id(name, version) + b"\2" + bytes([when]) + frames + b"\0"


def of_search(*, indexes: bool) -> bytes:
    """What Redis 6.2 with RediSearch writes: its data outside of keys is there whether it is used or not."""
    frames = b"\2\1\5" + string(b"idx\0") + b"\2\3" if indexes else b"\2\0"
    return rdb(
        outside("ft_index0", 21, 1, frames),
        outside("scdtype00", 1, 1, b""),
        b"\xfe\0",
        key(b"k", 0, string(b"v")),
        outside("scdtype00", 1, 2, b"\2\0"),
    )


def checked(data: bytes | Path, target: str, modules: list[str] | None = None) -> Check:
    found = find_target(target)
    if modules is not None:
        found = found.with_modules(modules)
    return check(io.BytesIO(data if isinstance(data, bytes) else data.read_bytes()), found)


def converted(data: bytes, target: str) -> tuple[bytes, rdbkit.Conversion]:
    out = io.BytesIO()
    report = rdbkit.convert(io.BytesIO(data), out, target=target)
    return out.getvalue(), report


def codes(report: Check) -> list[str]:
    return [finding.code for finding in report.findings]


# -- the table


def test_every_type_has_a_name_that_servers_take_and_a_source() -> None:
    types = module_types()
    assert len(types) > 20
    assert len({(each.product, each.name) for each in types}) == len(types)
    for each in types:
        assert re.fullmatch("[A-Za-z0-9_-]{9}", each.name)
        number, _ = read_uint64(module_id(each.name, 0), 0)
        assert module_name(number) == each.name
        assert re.match(r"[\w-]+/[\w-]+, [\w./-]+", each.source), each.name
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", each.date)


def test_products_of_the_issue_are_known() -> None:
    for name, product in {
        "ft_index0": "RediSearch", "trietype0": "RediSearch", "scdtype00": "RediSearch", "ft_invidx": "RediSearch",
        "numericdx": "RediSearch", "ft_tagidx": "RediSearch", "ReJSON-RL": "RedisJSON", "TSDB-TYPE": "RedisTimeSeries",
        "MBbloom--": "RedisBloom", "MBbloomCF": "RedisBloom", "CMSk-TYPE": "RedisBloom", "TopK-TYPE": "RedisBloom",
        "TDIS-TYPE": "RedisBloom", "vectorset": "vector sets", "bloomfltr": "valkey-bloom", "Vk-Search": "valkey-search",
    }.items():  # fmt: skip
        assert module_product(name) == product
    assert module_type("test__rdb") is None
    assert "ReJSON-RL" in types_of(frozenset({"valkey-json"}))  # which has the name of RedisJSON's
    assert joined(["trietype0", "ft_index0"]) == "RediSearch"
    assert described("MBbloomCF") == "RedisBloom cuckoo filters (MBbloomCF)"


def test_targets_name_products_and_nothing_else() -> None:
    names = [key for key in KEYS if key.endswith("modules")]
    assert len(names) == 4
    seen = 0
    for target in load_targets():
        for name in names:
            for product in (target.facts[name].value or ()) if name in target.facts else ():
                assert product in product_names(), f"{target.name}: {name}"
                seen += 1
    assert seen > 20


def test_a_file_of_ones_own_may_name_a_single_type(tmp_path: Path) -> None:
    file = tmp_path / "ours.toml"
    file.write_text('[targets.ours]\ntitle = "Ours"\nengine = "7.4"\noptional_modules = ["RedisJSON", "our__type"]\n')
    ours = find_target("ours", file)
    assert ours.module_types == {"ReJSON-RL", "our__type"}
    assert ours.with_modules(["our__type"]).module_types == {"our__type"}
    report = check(io.BytesIO(rdb(key(b"k", 7, value("our__type", 1)))), ours)
    (finding,) = [each for each in report.findings if each.code == "RDB304"]
    assert finding.title == "our__type has to be chosen: module our__type encoding 1 (1 key)"


# -- values of keys


@pytest.mark.parametrize("name", sorted(types_of(frozenset({"RediSearch", "RedisJSON", "RedisBloom", "RedisTimeSeries"}))))
def test_a_cache_with_the_module_loses_nothing(name: str) -> None:
    data = rdb(key(b"k", 7, value(name, 1)))
    for target in ("azure-managed", "azure-enterprise"):
        report = checked(data, target)
        assert (report.verdict, codes(report)[:1]) == ("as-it-is", ["RDB304"])
        product = module_product(name)
        assert product is not None
        assert report.findings[0].title == f"{product} has to be chosen: {described(name)} encoding 1 (1 key)"
        assert report.findings[0].fix == f"create it with {product}"
        assert converted(data, target)[0] == data
    chosen = checked(data, "azure-managed", [module_product(name) or ""])
    assert (chosen.verdict, "RDB304" in codes(chosen)) == ("as-it-is", False)


def test_suggestions_of_redisearch_stay() -> None:
    report = checked(SUGGESTIONS, "azure-managed")
    assert report.verdict == "as-it-is"
    (finding,) = report.findings
    assert (finding.code, finding.severity) == ("RDB304", "warning")
    assert finding.title == "RediSearch has to be chosen: RediSearch suggestions (trietype0) encoding 1 (1 key)"
    assert "drop" not in finding.fix
    data, conversion = converted(SUGGESTIONS.read_bytes(), "azure-managed")
    assert data == SUGGESTIONS.read_bytes()
    assert not conversion.ledger.counts
    found = rdbkit.info(SUGGESTIONS)
    assert found.next.startswith("Next: Azure Managed Redis imports it as it is (if created with RediSearch);")
    assert [module.product for module in found.modules] == ["RediSearch"]
    planned = plan([str(SUGGESTIONS)], "azure-managed")
    assert (planned.modules, planned.clustering) == (["RediSearch"], "EnterpriseCluster")


def test_a_cache_without_the_module_does_not_get_them_and_says_which_does() -> None:
    report = checked(SUGGESTIONS, "azure-managed", [])
    assert report.verdict == "lossy"
    (finding,) = report.findings
    assert finding.code == "RDB203"
    assert finding.title.endswith(": RediSearch suggestions (trietype0) encoding 1 (1 key)")
    assert finding.why.endswith("; one that is created with RediSearch takes it")


def test_a_server_has_the_modules_that_are_said_to_be_loaded() -> None:
    data = rdb(key(b"s", 7, value("trietype0", 1)), key(b"j", 7, value("ReJSON-RL", 3)), magic=b"REDIS0011")
    report = checked(data, "redis-8.0")
    assert report.verdict == "lossy"
    assert "where yours has RediSearch, RedisJSON loaded, --modules RediSearch,RedisJSON says so" in report.findings[0].why
    assert checked(data, "redis-8.0", ["RediSearch", "RedisJSON"]).verdict == "as-it-is"
    half = checked(data, "redis-8.0", ["RedisJSON"])
    assert half.options == ["--modules RedisJSON", "--on-module drop"]
    assert half.findings[0].keys == 1
    # valkey-json reads what RedisJSON writes under the name that both have
    assert checked(rdb(key(b"j", 7, value("ReJSON-RL", 3))), "valkey-8.1", ["valkey-json"]).verdict == "as-it-is"


def test_an_encoding_that_is_newer_than_any_known_is_a_warning() -> None:
    newest = module_type("TSDB-TYPE")
    assert newest is not None
    assert newest.newest is not None
    assert "RDB307" not in codes(checked(rdb(key(b"k", 7, value("TSDB-TYPE", newest.newest))), "azure-managed"))
    report = checked(rdb(key(b"k", 7, value("TSDB-TYPE", newest.newest + 1))), "azure-managed")
    assert codes(report) == ["RDB304", "RDB307"]
    assert f"in encoding {newest.newest + 1}, where {newest.newest} is the newest" in report.findings[1].title


# -- data outside of keys


def test_indexes_outside_of_keys_go_with_their_module() -> None:
    data = of_search(indexes=True)
    report = checked(data, "azure-managed")
    # the dictionaries, of which there are none, are left out
    assert (report.verdict, codes(report)) == ("lossless", ["RDB304", "RDB911"])
    title = report.findings[0].title
    assert title == "RediSearch has to be chosen: RediSearch indexes (ft_index0) encoding 21 (outside of keys)"
    without = checked(data, "azure-premium")
    assert (without.verdict, codes(without)) == ("lossy", ["RDB204", "RDB911"])
    assert without.findings[0].title.endswith("outside of keys: RediSearch indexes (ft_index0) encoding 21 (outside of keys)")


def test_plan_asks_for_the_module_of_what_stands_outside_of_keys(tmp_path: Path) -> None:
    for indexes, modules in ((True, ["RediSearch"]), (False, [])):
        file = tmp_path / "dump.rdb"
        file.write_bytes(of_search(indexes=indexes))
        assert plan([str(file)], "azure-managed").modules == modules


@pytest.mark.parametrize("target", ["azure-premium", "azure-managed", "redis-7.0", "valkey-8.1"])
def test_a_module_that_was_loaded_and_not_used_is_nothing_to_lose(target: str) -> None:
    data = of_search(indexes=False)
    report = checked(data, target)
    assert (report.verdict, codes(report)) == ("lossless", ["RDB911"])
    assert report.findings[0].count == 3
    out, conversion = converted(data, target)
    assert out == rdb(b"\xfe\0", key(b"k", 0, string(b"v")))
    assert (conversion.ledger.counts, conversion.ledger.notes) == ({}, {"module-empty": 3})


def test_info_advises_what_holds_where_a_module_was_not_used() -> None:
    found = rdbkit.info(io.BytesIO(of_search(indexes=False)))
    assert [(module.name, module.is_empty) for module in found.modules] == [("ft_index0", True), ("scdtype00", True)]
    assert "rewritten as RDB 9 Azure Cache for Redis Premium takes it" in found.next
    used = rdbkit.info(io.BytesIO(of_search(indexes=True)))
    assert [module.is_empty for module in used.modules] == [False, True]
    assert "Azure Cache for Redis Premium does not take it: it does not offer RediSearch" in used.next


def test_what_has_the_module_keeps_its_data_even_where_there_is_none() -> None:
    data = of_search(indexes=False)
    assert checked(data, "azure-managed", ["RediSearch"]).verdict == "as-it-is"
    assert checked(data, "redis-6.2", ["RediSearch"]).verdict == "as-it-is"
    assert converted(data, "rdb-9")[0] == data


# -- the command line


def test_modules_option(capsys: pytest.CaptureFixture[str]) -> None:
    def run(*args: str) -> int:
        with pytest.raises(SystemExit) as done:
            main(["check", str(SUGGESTIONS), *args])
        return int(done.value.code or 0)

    assert run("--target", "redis-8.0", "--modules", "RediSearch") == 0
    assert run("--target", "azure-managed", "--modules", "RediSearch") == 0
    assert run("--target", "redis-8.0") == 1
    capsys.readouterr()
    assert run("--target", "redis-8.0", "--modules", "trietype0") == 2
    assert "'trietype0' is no module of redis-8.0; known: RediSearch, " in capsys.readouterr().err
    assert run("--target", "redis-3.2", "--modules", "RediSearch") == 2
    assert "redis-3.2 has none to choose" in capsys.readouterr().err
    assert run("--target", "azure-premium", "--modules", "RediSearch") == 2
    assert "azure-premium has none to choose" in capsys.readouterr().err


# -- diff


def written(path: Path, *parts: bytes) -> Path:
    path.write_bytes(rdb(*parts))
    return path


def test_diff_compares_data_outside_of_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def frames(text: bytes) -> bytes:
        return b"\2\1\5" + string(text)

    k = key(b"k", 0, string(b"v"))
    one = written(
        tmp_path / "a.rdb", outside("ft_index0", 21, 1, frames(b"idx")), outside("GEARS_DT0", 3, 1, frames(b"r")), b"\xfe\0", k
    )
    other = written(
        tmp_path / "b.rdb", outside("scdtype00", 1, 1, b""), outside("ft_index0", 21, 1, frames(b"idy")), b"\xfe\0", k,
        outside("scdtype00", 1, 2, frames(b"d")),
    )  # fmt: skip
    found = rdbkit.diff(one, other)
    assert [(each.what, each.module, each.when) for each in found.module_data] == [
        ("missing", "GEARS_DT0", 1), ("changed", "ft_index0", 1), ("extra", "scdtype00", 2),
    ]  # fmt: skip
    assert (found.same, found.differences, found.equal) == (False, 3, 1)
    assert found.to_dict()["module_data"][2] == {"what": "extra", "module": "scdtype00", "when": 2}
    assert rdbkit.diff(one, other, ignore=["module-data"]).same
    assert rdbkit.diff(one, other, only_keys=True).same
    for file in (one, other):
        assert rdbkit.diff(file, file).same
    # another version of the encoding is other data, and what has nothing in it is none
    newer = written(tmp_path / "c.rdb", outside("ft_index0", 22, 1, frames(b"idx")), b"\xfe\0", k)
    assert [each.what for each in rdbkit.diff(newer, one).module_data] == ["extra", "changed"]
    empty = written(tmp_path / "d.rdb", outside("ft_index0", 21, 1, b"\2\0"), b"\xfe\0", k)
    assert rdbkit.diff(empty, written(tmp_path / "e.rdb", b"\xfe\0", k)).same

    with pytest.raises(SystemExit) as done:
        main(["diff", str(one), str(other), "--delta", str(tmp_path / "delta.resp")])
    assert done.value.code == 1
    shown = capsys.readouterr().out
    assert "other data of modules  3" in shown
    assert "another content     RediSearch indexes (ft_index0)" in shown
    assert "only in the second  RediSearch dictionaries (scdtype00), after the keys" in shown
    assert shown.rstrip().endswith("commands for 0 keys; without the data of modules outside of keys that differs")


def test_diff_compares_data_outside_of_keys_that_is_larger_than_a_block(tmp_path: Path) -> None:
    large = b"\5" + string(b"x" * (1 << 20)) + b"\5" + string(b"y" * 3000)
    one = written(tmp_path / "a.rdb", outside("ft_index0", 21, 1, large), b"\xfe\0", key(b"k", 0, string(b"v")))
    # in another place of a block
    moved = written(
        tmp_path / "b.rdb",
        b"\xfa\1a" + string(b"z" * 5000),
        outside("ft_index0", 21, 1, large),
        b"\xfe\0",
        key(b"k", 0, string(b"v")),
    )
    other = written(tmp_path / "c.rdb", outside("ft_index0", 21, 1, large[:-1] + b"z"), b"\xfe\0", key(b"k", 0, string(b"v")))
    for block_size in (None, 4096, 3 << 20):
        assert rdbkit.diff(one, moved, block_size=block_size).same
        assert [each.what for each in rdbkit.diff(one, other, block_size=block_size).module_data] == ["changed"]
    assert rdbkit.diff(one, moved, block_size=4096).same

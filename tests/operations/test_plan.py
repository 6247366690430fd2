"""`rdbkit plan`: sizes, steps and words follow from the data and from the facts of the targets."""

from __future__ import annotations

import datetime
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from rdbkit.operations.memory import memory
from rdbkit.operations.plan import GB, Plan, plan
from rdbkit.operations.resource_names import Names
from rdbkit.targets.target import find_target

from .. import command_line
from ..rdb import FIXTURES, aux, key, length, rdb, string

NOW = int(datetime.datetime(2026, 11, 25, tzinfo=datetime.UTC).timestamp() * 1000)
LATER = int(datetime.datetime(2028, 10, 2, tzinfo=datetime.UTC).timestamp() * 1000)
EARLIER = int(datetime.datetime(2026, 8, 1, tzinfo=datetime.UTC).timestamp() * 1000)
DAY = 86_400_000
NAMES = Names("mycache", "mygroup", "westeurope", "mystorage", "snapshots")


def write(path: Path, *parts: bytes, magic: bytes = b"REDIS0009") -> str:
    path.write_bytes(rdb(*parts, magic=magic))
    return str(path)


def small(path: Path, *more: bytes, magic: bytes = b"REDIS0009") -> str:
    return write(path, key(b"k:1", 0, string(b"v")), key(b"k:2", 0, string(b"v"), NOW + 3 * DAY), *more, magic=magic)


def planned(files: list[str], target: str = "azure-managed", **options: Any) -> Plan:
    given: dict[str, Any] = {"now_ms": NOW, "names": NAMES} | options
    return plan(files, find_target(target), **given)


def run(*args: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return command_line.run_text("plan", *args, cwd=cwd)


def commands(found: Plan) -> str:
    return "\n".join(command for step in found.steps for command in step.commands)


@pytest.mark.parametrize("target", ["azure-managed", "azure-premium", "azure-enterprise"])
def test_the_smallest_size_of_each_tier_that_holds_it(tmp_path: Path, target: str) -> None:
    file = small(tmp_path / "a.rdb")
    skus = find_target(target).skus
    for needed_gb in (0.0, 0.3, 4.7, 9.7, 20.0, 45.0, 80.0):
        growth = needed_gb * GB / planned([file], target, growth=0.0).data_bytes
        found = planned([file], target, growth=growth)
        assert found.needed_bytes == pytest.approx(needed_gb * GB, abs=1 << 20)
        for size in found.sizes:
            sku = next(s for s in skus if s.name == size.sku)
            assert size.usable_bytes == int(sku.usable_gb * GB) * size.shards
            assert size.usable_bytes >= found.needed_bytes
            assert size.headroom == pytest.approx(1 - found.needed_bytes / size.usable_bytes)
            smaller = [s for s in skus if s.tier == sku.tier != "" and s.memory_gb < sku.memory_gb]
            assert all(s.usable_gb * GB < found.needed_bytes for s in smaller)
        assert found.chosen is None or found.chosen.usable_bytes >= found.needed_bytes


def test_more_than_a_size_takes_shards(tmp_path: Path) -> None:
    file = small(tmp_path / "a.rdb")
    data = planned([file], growth=0.0).data_bytes
    found = planned([file], "azure-premium", growth=200 * GB / data)
    assert found.chosen is not None
    assert [(size.sku, size.shards) for size in found.sizes] == [("P4", 6), ("P5", 3)]
    assert found.chosen == found.sizes[0]
    assert found.chosen.usable_bytes >= 1.1 * 200 * GB
    assert found.clustering == "cluster"
    assert any("unevenly" in note for note in found.notes)
    far = planned([file], "azure-premium", growth=2000 * GB / data)
    assert far.chosen is None
    assert not far.feasible
    assert any("no size holds it" in note for note in far.notes)
    assert far.steps == []


def test_a_size_that_is_asked_for(tmp_path: Path) -> None:
    file = small(tmp_path / "a.rdb")
    target = find_target("azure-managed")
    data = planned([file], growth=0.0).data_bytes
    found = planned([file], sku=target.sku("m20"))
    assert found.chosen is not None
    assert found.chosen.name == "MemoryOptimized_M20"
    assert "--sku MemoryOptimized_M20 " in commands(found)
    tight = planned([file], sku=target.sku("B0"), growth=2 * GB / data)
    assert tight.chosen is None
    assert any("B0 has 0.4 GB for data" in note and "B3" in note for note in tight.notes)


def test_the_model_is_what_is_planned_with(tmp_path: Path) -> None:
    file = str(FIXTURES / "rich" / "redis-7.0.15.rdb")
    with rdbkit.open(file) as snapshot:
        weighed = memory(snapshot, find_target("azure-managed"), now_ms=NOW)
    twin = tmp_path / "twin.rdb"
    twin.write_bytes(Path(file).read_bytes())
    found = planned([file, str(twin)], growth=0.5)
    assert found.data_bytes == 2 * (weighed.dataset_bytes + weighed.overhead_bytes)
    assert found.needed_bytes == pytest.approx(1.5 * found.data_bytes, abs=1)
    assert found.keys == 2 * weighed.keys
    assert found.used_memory is not None
    assert weighed.used_memory is not None
    assert found.used_memory == 2 * weighed.used_memory


def test_what_has_expired_takes_no_room(tmp_path: Path) -> None:
    gone = key(b"gone", 0, string(b"x" * 10_000), NOW - 1)
    with_it, without = small(tmp_path / "a.rdb", gone), small(tmp_path / "b.rdb")
    assert planned([with_it]).data_bytes - planned([without]).data_bytes < 200


def test_a_source_that_used_more_is_told_of(tmp_path: Path) -> None:
    file = write(tmp_path / "a.rdb", aux(b"used-mem", b"%d" % (3 * GB)), key(b"k", 0, string(b"v")))
    found = planned([file])
    assert any("3.0 GB in use" in note for note in found.notes)
    assert not any("in use" in note for note in planned([file], sku=find_target("azure-managed").sku("B5")).notes)


def test_services_that_are_closed_say_so(tmp_path: Path) -> None:
    file = small(tmp_path / "a.rdb")
    found = planned([file], "azure-enterprise")
    assert any("since 2026-04-01: only one that you have" in said for said in found.said)
    assert any("retires on 2027-03-31" in said and "Azure Managed Redis" in said for said in found.said)
    assert "az redisenterprise create" not in commands(found)
    assert "az redisenterprise show" in commands(found)
    assert planned([file]).said == []


def test_where_sources_differ_both_are_named_and_the_commands_are_shown(tmp_path: Path) -> None:
    """Microsoft's FAQ closes Premium on 2026-10-01; that this was withdrawn is known second-hand."""
    file = small(tmp_path / "a.rdb")
    found = planned([file], "azure-premium")
    (doubt,) = (said for said in found.said if "in doubt" in said)
    for words in (
        "retirement-faq.md (2026-05): not since 2026-10-01.", "second-hand (2026-09-17): until 2028-09-30,",
        "tenants that had a cache before 2026-04-01",
    ):  # fmt: skip
        assert words in doubt
    assert any("retires on 2028-09-30, in 675 days" in said and "Azure Managed Redis" in said for said in found.said)
    (create,) = (step for step in found.steps if step.title == "Create the cache")
    assert "reported second-hand" in create.note
    assert "--sku Premium --vm-size p1" in commands(found)
    after = planned([file], "azure-premium", now_ms=LATER)
    assert "az redis create" not in commands(after)
    assert "az redis show" in commands(after)
    before = planned([file], "azure-premium", now_ms=EARLIER)
    assert any("new customers since 2026-04-01, and from 2026-10-01 on for nobody" in said for said in before.said)
    (create,) = (step for step in before.steps if step.title == "Create the cache")
    assert create.note == ""


def test_steps_in_their_order(tmp_path: Path) -> None:
    found = planned([small(tmp_path / "it's here.rdb", magic=b"REDIS0012"), small(tmp_path / "b.rdb")])
    assert [step.title.split(",")[0].split(" ")[0] for step in found.steps] == [
        "Get", "Create", "Let", "Convert", "Upload", "Import", "Prove", "Delete", "Let",
    ]  # fmt: skip
    (convert,) = found.steps[3].commands
    words = shlex.split(convert)
    assert words[:2] == ["rdbkit", "convert"]
    assert words[2] == str(tmp_path / "it's here.rdb")
    assert subprocess.run([sys.executable, "-m", *words], cwd=tmp_path, capture_output=True).returncode == 0
    assert (tmp_path / found.files[0].upload).exists()
    upload = shlex.split(found.steps[4].commands[1])
    assert upload[:4] == ["az", "storage", "blob", "upload"]
    assert upload[upload.index("--file") + 1] == found.files[0].upload == words[3]
    assert shlex.split(found.steps[5].commands[0])[-3:] == ["--sas-uris", "$URL1", "$URL2"]
    assert set(re.findall(r"\$\(?\w+", commands(found))) == {"$URL1", "$URL2", "$HOST", "$USER_ID", "$(az"}


def test_shards_of_one_name_do_not_meet(tmp_path: Path) -> None:
    files = []
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        files.append(small(tmp_path / folder / "dump.rdb", magic=b"REDIS0009" if folder == "c" else b"REDIS0012"))
    found = planned(files)
    assert [f.upload for f in found.files] == ["dump-azure-managed.rdb", "2-dump-azure-managed.rdb", files[2]]
    assert [f.blob for f in found.files] == ["dump-azure-managed.rdb", "2-dump-azure-managed.rdb", "dump.rdb"]
    assert [shlex.split(c)[3] for c in found.steps[3].commands] == [f.upload for f in found.files[:2]]
    with pytest.raises(ValueError, match="are the same file"):
        planned([files[0], files[0]])


@pytest.mark.parametrize(
    "name", ["-dash.rdb", "new\nline.rdb", "esc\x1b[31m.rdb", "q'uote $(x) `y`.rdb", "ü.rdb", "\u202eevil.rdb"]
)
def test_commands_are_safe_to_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    small(Path(name), magic=b"REDIS0012")
    found = planned([name])
    for command in (command for step in found.steps for command in step.commands):
        assert command.isprintable()
    script = found.files[0].convert.replace("rdbkit", f"{sys.executable} -m rdbkit", 1)
    made = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    assert Path(found.files[0].upload).exists()
    words = found.steps[4].commands[1].replace("az storage blob upload", "printf '%s\\0'", 1)
    said = subprocess.run(["bash", "-c", words], capture_output=True).stdout.split(b"\0")
    file = said[said.index(b"--file") + 1]
    assert file.removeprefix(b"./") == found.files[0].upload.encode()
    assert not file.startswith(b"-")


def test_what_has_expired_never_takes_less_than_nothing(tmp_path: Path) -> None:
    stream = b"\x00" + b"\x00" * 3 + b"\x00"
    file = write(tmp_path / "a.rdb", *(key(b"s%d" % i, 15, stream, NOW - 1) for i in range(1000)))
    found = planned([file])
    assert found.data_bytes == found.needed_bytes == 0


def test_names_that_were_not_said_are_variables(tmp_path: Path) -> None:
    found = planned([small(tmp_path / "a.rdb")], names=Names())
    asked = {command.removesuffix("=...") for command in found.steps[0].commands}
    used = set(re.findall(r'"\$([A-Z_]+)"', "\n".join(c for step in found.steps[1:] for c in step.commands)))
    assert asked == used - {"USER_ID"} == {"CACHE", "RESOURCE_GROUP", "LOCATION", "STORAGE_ACCOUNT", "CONTAINER"}


def test_databases_beyond_the_first(tmp_path: Path) -> None:
    file = small(tmp_path / "a.rdb", b"\xfe\x05" + key(b"other", 0, string(b"v")))
    found = planned([file])
    assert found.databases == [0, 5]
    assert found.feasible
    assert any("databases beyond 0 (5)" in note for note in found.notes)
    assert "--collapse-dbs" in found.files[0].convert
    premium = planned([file], "azure-premium")
    assert premium.feasible
    far = small(tmp_path / "b.rdb", b"\xfe\x14" + key(b"other", 0, string(b"v")))
    assert any("beyond the 16 of P1" in note for note in planned([far], "azure-premium").notes)
    p2 = find_target("azure-premium").sku("P2")
    assert any("more than 16 databases" in note for note in planned([far], "azure-premium", sku=p2).notes)


def test_clustering_follows_source_and_size(tmp_path: Path) -> None:
    file = small(tmp_path / "a.rdb")
    assert planned([file]).clustering == "EnterpriseCluster"
    assert planned([str(FIXTURES / "rich" / "redis-7.4.1-cluster.rdb")]).clustering == "OSSCluster"
    assert "--clustering-policy EnterpriseCluster" in commands(planned([file]))


def module(name: bytes, number: int) -> bytes:
    return key(name, 7, b"\x81" + number.to_bytes(8, "big") + b"\x05" + string(b"data") + b"\x00")


def test_modules_are_asked_for(tmp_path: Path) -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

    def number(name: str) -> int:
        value = 0
        for letter in name:
            value = value << 6 | alphabet.index(letter)
        return value << 10 | 3

    file = small(tmp_path / "a.rdb", module(b"j", number("ReJSON-RL")), module(b"f", number("ft_index0")))
    found = planned([file])
    assert found.modules == ["RediSearch", "RedisJSON"]
    assert "--modules name=RediSearch --modules name=RedisJSON" in commands(found)
    assert found.clustering == "EnterpriseCluster"
    assert "--eviction-policy NoEviction" in commands(found)


@pytest.mark.exhaustive  # 100 MB are read five times
def test_a_key_that_no_import_takes(tmp_path: Path) -> None:
    """10 GB, of which LZF says that they are there: the file itself is small."""
    limit = find_target("azure-managed").max_key_bytes
    assert limit is not None
    size = 10 * GB
    value = b"\xc3" + length(size // 100) + b"\x81" + size.to_bytes(8, "big")
    path = tmp_path / "a.rdb"
    with path.open("wb") as file:
        file.write(b"REDIS0009" + b"\x00" + string(b"big") + value)
        file.seek(size // 100, 1)
        file.write(b"\xff" + bytes(8))
    with rdbkit.open(path) as snapshot:
        weighed = memory(snapshot, find_target("azure-premium"), now_ms=NOW)
    assert weighed.keys_bytes > size
    assert planned([str(path)], "azure-premium").chosen is not None
    assert any("the largest key takes 12.0 GB: an import fails" in note for note in planned([str(path)]).notes)


def test_nothing_to_import(tmp_path: Path) -> None:
    found = planned([write(tmp_path / "a.rdb")])
    assert found.steps == []
    assert any("there are no keys" in note for note in found.notes)
    made = run(tmp_path / "a.rdb", "--target", "azure-managed")
    assert made.returncode == 0
    assert "There are no keys" in made.stdout


def test_dual_writing(tmp_path: Path) -> None:
    parts = [key(b"s:%d" % i, 0, string(b"v"), NOW + DAY * (i + 1)) for i in range(10)]
    parts += [key(b"user:%d" % i, 0, string(b"v" * 50)) for i in range(3)] + [key(b"s:x", 0, string(b"v"))]
    dual = planned([write(tmp_path / "a.rdb", *parts)]).dual_writing
    assert (dual.expiring, dual.lasting) == (10, 4)
    assert dual.last_expiry == "2026-12-05"
    assert dual.days == pytest.approx(10)
    assert {name: round(share, 3) for name, share in dual.gone.items() if name in ("1d", "3d", "7d", "14d")} == {
        "1d": 0.1, "3d": 0.3, "7d": 0.7, "14d": 1.0,
    }  # fmt: skip
    assert [(p.prefix, p.keys) for p in dual.prefixes] == [(b"user:", 3), (b"s:", 1)]
    assert sum(p.bytes for p in dual.prefixes) == dual.lasting_bytes
    none = planned([write(tmp_path / "b.rdb", key(b"k", 0, string(b"v"), 1 << 62))]).dual_writing
    assert none.lasting == 0
    assert none.last_expiry == "146140482-04-24"


def test_the_command(tmp_path: Path) -> None:
    file = small(tmp_path / "dump.rdb", magic=b"REDIS0012")
    made = run("dump.rdb", "--target", "azure-managed", "--growth", "50", "--no-ha", cwd=tmp_path)
    assert made.returncode == 0, made.stderr
    for words in (
        "room to grow by 50%",
        "Balanced_B0, without a replica",
        "Smallest sizes that hold it",
        "RDB103",
        "6. Upload about",
    ):
        assert words in made.stdout
    assert all(len(line) < 100 for line in made.stdout.splitlines() if line.startswith("   az"))
    # what is printed is what the shell runs
    block = "\n".join(line[3:] for line in made.stdout.splitlines() if line.startswith("   "))
    assert subprocess.run(["bash", "-n"], input=block, text=True, capture_output=True).returncode == 0
    told = json.loads(run(file, "--target", "azure-managed", "--json").stdout)
    assert told["feasible"] is True
    assert told["chosen"]["sku"] == "B0"
    assert told["growth"] == 0.2
    for name, code in ((b"other", 0), (b"k:1", 1)):  # moves, or meets another
        file = small(tmp_path / f"{code}.rdb", b"\xfe\x05" + key(name, 0, string(b"v")))
        assert run(file, "--target", "azure-managed").returncode == code


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--target", "azure-manged"], 2, "nearest: azure-managed"),
        (["--target", "azure-managed", "--sku", "B11"], 2, "has no size 'B11'; nearest: B1"),
        (["--target", "azure-premium", "--sku", "C3"], 2, "is of a tier that has no import"),
        (["--target", "redis-7.2"], 2, "is not sold in sizes"),
        (["--target", "azure-managed", "--growth", "much"], 2, "is no share, as in 20%"),
        (["--target", "azure-managed", "--growth=-5%"], 2, "is no share"),
    ],
)
def test_wrong_usage(tmp_path: Path, args: list[str], code: int, words: str) -> None:
    made = run(small(tmp_path / "a.rdb"), *args)
    assert made.returncode == code
    assert words in made.stderr


def test_bad_files(tmp_path: Path) -> None:
    path = tmp_path / "a.rdb"
    for data in (b"", b"no snapshot", Path(small(tmp_path / "b.rdb")).read_bytes()[:-12]):
        path.write_bytes(data)
        made = run(path, "--target", "azure-managed")
        assert made.returncode == 3
        assert made.stderr.count("\n") == 1
    assert run(tmp_path / "none.rdb", "--target", "azure-managed").returncode == 2
    with pytest.raises(ValueError, match="no service"):
        plan([], find_target("redis-7.0"))


def test_files_are_not_streams() -> None:
    with pytest.raises(OSError, match="-"):
        planned(["-"])


def test_an_engine_of_which_the_documents_say_nothing_is_told_of(tmp_path: Path) -> None:
    told = "Azure Managed Redis documents no RDB version for Redis 8.0, which itself loads RDB 12"
    file = small(tmp_path / "a.rdb", magic=b"REDIS0012")
    found = plan([file], find_target("azure-managed").with_engine("8.0"), now_ms=NOW)
    assert told in found.said
    assert (found.files[0].verdict, found.files[0].findings) == ("as-it-is", [f"RDB106 {told}"])
    relied_on = plan([file], find_target("azure-managed").with_undocumented(), now_ms=NOW)
    assert (relied_on.files[0].verdict, relied_on.said) == ("as-it-is", [])
    moved = small(tmp_path / "b.rdb", b"\xfe\3", key(b"k", 0, string(b"v")), magic=b"REDIS0012")
    (planned_file,) = plan([moved], find_target("azure-managed").with_undocumented(), now_ms=NOW).files
    assert "--target azure-managed --undocumented --collapse-dbs" in planned_file.convert

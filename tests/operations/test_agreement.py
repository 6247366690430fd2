"""What check, plan and convert say of a file is one thing: the command that is printed gives the verdict that was promised."""

from __future__ import annotations

import gzip
import io
import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any, Final

import click
import pytest
from click.testing import CliRunner

import rdbkit
from rdbkit.cli import cli
from rdbkit.operations.check import AS_IT_IS, CANNOT, LOSSLESS, LOSSY
from rdbkit.targets.target import find_target, load_targets

from ..rdb import FIXTURES, dumps_at_once, key, length, rdb, string

RICH = FIXTURES / "rich"
TARGETS: Final = [*(target.name for target in load_targets()), "rdb-2", "rdb-9", "rdb-12", "rdb-80"]
#: Where the records of made files are from.
BASES: Final = [
    "redis-2.8.24", "redis-6.0.20-mod", "redis-7.0.15", "redis-7.4.1", "redis-8.8-dev", "valkey-9.1.2", "keydb-6.3.4-ext",
]  # fmt: skip
LATER: Final = 4_102_444_800_123  # a time in 2100
#: Options of check that convert has, too.
_PARTS: Final = ("--undocumented", "--redis-version")
PENDING: Final = b"*1\r\n$4\r\nPING\r\n"


def run(*args: str, stdin: bytes | None = None) -> tuple[int, str]:
    """Exit status and standard output of the command line, in this process."""
    result = CliRunner().invoke(cli, list(args), input=stdin, standalone_mode=False)
    if isinstance(result.exception, rdbkit.RdbError | click.ClickException):
        return (2 if isinstance(result.exception, click.UsageError) else 3), result.stdout
    if result.exception is not None:
        raise result.exception
    return int(result.return_value), result.stdout


def checked(path: str, *args: str) -> dict[str, Any]:
    code, out = run("check", "--json", path, *args)
    (report,) = json.loads(out)["files"]
    assert (code == 0) == (report["verdict"] == AS_IT_IS)
    return dict(report)


def keeps_promise(path: str, *args: str) -> str:
    """Check a file, run the command that is printed, and compare; returns the verdict."""
    report = checked(path, *args)
    verdict: str = report["verdict"]
    what = (path, args, report)
    target = args[args.index("--target") + 1]
    if verdict == CANNOT:
        assert "command" not in report
        if "RDB501" not in {finding["code"] for finding in report["findings"]}:
            code, _ = run("convert", path, "made.rdb", "--target", target)
            assert code in (1, 3), what
            assert not os.path.exists("made.rdb")
        return verdict
    if verdict == AS_IT_IS:
        assert "command" not in report
        # of a service, what is relied on and what runs there is a part of it
        more = [word for n, word in enumerate(args) if word in _PARTS or (n and args[n - 1] in _PARTS[1:])]
        command = shlex.join(["rdbkit", "convert", path, "made.rdb", "--target", target, *more])
    else:
        command = report["command"]
    words = shlex.split(command)
    made = words[3]
    try:
        code, out = run(*words[1:], "--json")
        assert code == 0, (what, out)
        done = json.loads(out)
        losses = {finding["code"]: finding["count"] for finding in report["findings"] if finding["severity"] == "loss"}
        assert sum(done["lost"].values()) == sum(losses.values()), (what, done)
        assert bool(losses) == (verdict == LOSSY), what
        assert not done["forbidden"]
        assert done["destination"]["bytes"] == os.path.getsize(made)
        if verdict != LOSSY:
            assert done["left_out"] == done["notes"].get("empty", 0), (what, done)
            assert done["written"] + done["left_out"] == report["keys"]
        again = checked(made, *args)
        assert again["verdict"] == AS_IT_IS, (what, again)
        assert again["keys"] == done["written"]
    finally:
        if os.path.exists(made):
            os.unlink(made)
    return verdict


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.one_in(4)
@pytest.mark.parametrize("dumps", dumps_at_once())
@pytest.mark.parametrize("target", TARGETS)
def test_of_every_fixture(target: str, dumps: list[Path]) -> None:
    verdicts = {keeps_promise(str(path), "--target", target) for path in dumps if path.parent == RICH}
    assert LOSSLESS in verdicts or LOSSY in verdicts


# -- made files


def parts_of(base: str) -> tuple[bytes, list[bytes], list[tuple[int, bytes]]]:
    """The magic, the function libraries, and types and values of the records of a fixture."""
    with rdbkit.open(RICH / f"{base}.rdb") as snapshot:
        libraries = [b"\xf5" + string(library.code) for library in snapshot.functions]
        magic = b"VALKEY%03d" if snapshot.header.flavour == "valkey" else b"REDIS%04d"
        return magic % snapshot.header.version, libraries, [(record.type_code, record.raw) for record in snapshot]


def document() -> bytes:
    """A value of RedisJSON."""
    letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    number = 0
    for letter in "ReJSON-RL":
        number = number << 6 | letters.index(letter)
    return b"\x81" + (number << 10 | 3).to_bytes(8, "big") + b"\5" + string(b'{"a":1}') + b"\0"


def made_file(base: str, rng: Random) -> bytes:
    """Records of a fixture in several databases, with all that can be around them."""
    magic, libraries, values = parts_of(base)
    values = [(kind, value) for kind, value in values if kind < 0xF0]
    version = int(magic[-3:])
    dbs = rng.choice([[0], [0, 1], [1, 5], [0, 3, 20], [70], [0, *range(10, 30)]])
    names = [b"n%d" % n for n in range(rng.choice([3, 40]))] + [b"n1:db1", b"db1:n1"]
    clashing = rng.random() < 0.5
    body = [b"" if rng.random() < 0.5 else library for library in libraries]
    used: set[bytes] = set()
    for db in dbs:
        body.append(b"\xfe" + length(db))
        here: set[bytes] = set()
        for _ in range(rng.randrange(1, 8)):
            name = rng.choice(names)
            if name in (here if clashing else used):
                continue
            here.add(name)
            used.add(name)
            kind, value = rng.choice(values)
            if version >= 8 and rng.random() < 0.1:
                kind, value = 7, document()
            expire = rng.choice([None, None, LATER, 1_000])
            body.append(key(name, kind, value, expire))
            if base.startswith("keydb") and rng.random() < 0.3:
                body.append(b"\xfa" + string(b"keydb-subexpire-key") + string(b"m"))
                body.append(b"\xfa" + string(b"keydb-subexpire-when") + string(b"%d" % LATER))
    data = rdb(*body, magic=magic, crc=not (rng.random() < 0.2 and version >= 5))
    if version < 5:
        data = data[:-8]
    around = rng.random()
    if around < 0.1:
        data += PENDING
    elif around < 0.2:
        data += bytes(512)
    elif around < 0.3:
        data += data
    return gzip.compress(data) if rng.random() < 0.15 else data


@pytest.mark.one_in(3)
@pytest.mark.parametrize("base", BASES)
def test_of_made_files(base: str) -> None:
    rng = Random(base)
    seen = set()
    for number in range(12):
        path = Path(f"{number}.rdb")
        path.write_bytes(made_file(base, rng))
        targets = {"azure-managed", "azure-premium", *rng.sample(TARGETS, 4)}
        for target in sorted(targets):
            more: list[str] = rng.choice([[], [], ["--clustered"], ["--databases", "16"]])
            if target == "azure-premium":
                more = rng.choice([[], ["--sku", "P1"], ["--clustered"], ["--redis-version", "4.0"]])
            elif target == "azure-managed":
                more = rng.choice([[], ["--modules", "none"], ["--modules", "RedisBloom"], ["--redis-version", "7.2"]])
            seen.add(keeps_promise(str(path), "--target", target, *more))
    assert LOSSY in seen


def in_databases(*dbs: int, names: str = "ab", more: bytes = b"") -> bytes:
    """The same names in several databases."""
    return rdb(*(b"\xfe" + length(db) + b"".join(key(name.encode(), 0, string(b"%d" % db)) for name in names) for db in dbs), more)


def test_names_that_clash_are_found_counted_and_renamed() -> None:
    Path("a.rdb").write_bytes(in_databases(0, 3, 5))
    report = checked("a.rdb", "--target", "azure-managed")
    assert report["verdict"] == LOSSY
    found = {finding["code"]: finding for finding in report["findings"]}
    assert (found["RDB301"]["severity"], found["RDB301"]["count"], found["RDB301"]["fix"]) == ("blocker", 4, "--collapse-dbs")
    assert (found["RDB306"]["count"], found["RDB306"]["fix"]) == (4, "--on-conflict 'rename={key}:db{db}'")
    assert [(sample["db"], sample["key"]) for sample in found["RDB306"]["samples"]] == [(3, "a"), (3, "b"), (5, "a")]
    code, out = run(*shlex.split(report["command"])[1:], "--json")
    assert (code, json.loads(out)["lost"]) == (0, {"conflict": 4})
    with rdbkit.open("a-azure-managed.rdb") as snapshot:
        values = {record.key: record.value for record in snapshot}
    assert values == {b"a": b"0", b"b": b"0", b"a:db3": b"3", b"b:db3": b"3", b"a:db5": b"5", b"b:db5": b"5"}


def test_names_that_are_taken_are_not_given() -> None:
    patterns = ["a:db1", "db1:a", "a:from-db1", "from-db1:a"]
    for taken in range(len(patterns) + 1):
        more = b"\xfe\0" + b"".join(key(name.encode(), 0, string(b"v")) for name in patterns[:taken])
        Path("a.rdb").write_bytes(in_databases(0, 1, names="a", more=more))
        assert keeps_promise("a.rdb", "--target", "azure-managed") == LOSSY
        option = "rename" if taken < len(patterns) else "--on-conflict first"
        assert option in checked("a.rdb", "--target", "azure-managed")["command"]


def test_databases_without_clashes_move_without_loss() -> None:
    Path("a.rdb").write_bytes(rdb(key(b"a", 0, string(b"0")), b"\xfe\7", key(b"b", 0, string(b"7"))))
    for args in (["azure-managed"], ["azure-premium", "--clustered"], ["redis-6.0", "--databases", "1"]):
        assert keeps_promise("a.rdb", "--target", *args) == LOSSLESS
        assert checked("a.rdb", "--target", *args)["options"] == ["--collapse-dbs"]


def test_a_database_goes_to_a_free_one_where_there_is_one() -> None:
    Path("a.rdb").write_bytes(in_databases(0, 2, 20, 21))
    report = checked("a.rdb", "--target", "azure-premium", "--sku", "P1")
    assert (report["verdict"], report["options"]) == (LOSSLESS, ["--map-db 20=1,21=3"])
    assert keeps_promise("a.rdb", "--target", "azure-premium", "--sku", "P1") == LOSSLESS
    assert checked("a.rdb", "--target", "redis-6.0", "--databases", "3")["options"][0] == "--collapse-dbs"
    assert keeps_promise("a.rdb", "--target", "redis-6.0", "--databases", "3") == LOSSY


def test_what_keys_in_other_databases_lose_is_found(tmp_path: Path) -> None:
    _, _, values = parts_of("redis-7.4.1")
    hidden = next(key(b"h", kind, value) for kind, value in values if kind == 24)
    Path("a.rdb").write_bytes(rdb(b"\xfe\4", hidden, key(b"j", 7, document()), magic=b"REDIS0012"))
    report = checked("a.rdb", "--target", "azure-managed", "--modules", "none")
    assert {"RDB201", "RDB203", "RDB301"} <= {finding["code"] for finding in report["findings"]}
    assert keeps_promise("a.rdb", "--target", "azure-managed", "--modules", "none") == LOSSY


def test_documents_become_strings_beside_other_modules() -> None:
    _, _, values = parts_of("redis-8.8-dev")
    other = next(key(b"v", kind, value) for kind, value in values if kind == 7)
    Path("a.rdb").write_bytes(rdb(key(b"j", 7, document()), other, magic=b"REDIS0012"))
    report = checked("a.rdb", "--target", "redis-7.0")
    assert report["options"] == ["--on-module json-as-string", "--on-loss drop"]
    assert keeps_promise("a.rdb", "--target", "redis-7.0") == LOSSY
    Path("a.rdb").write_bytes(rdb(key(b"j", 7, document()), magic=b"REDIS0012"))
    assert checked("a.rdb", "--target", "redis-7.0")["options"] == ["--on-module json-as-string"]
    # what a service has not chosen, convert does not keep
    assert checked("a.rdb", "--target", "azure-managed", "--modules", "none")["options"] == [
        "--modules none",
        "--on-module json-as-string",
    ]
    assert keeps_promise("a.rdb", "--target", "azure-managed", "--modules", "none") == LOSSY
    assert keeps_promise("a.rdb", "--target", "azure-managed", "--modules", "RedisJSON") == LOSSLESS


def test_expiries_of_fields_for_a_service_whose_engine_knows_more() -> None:
    path = str(RICH / "redis-7.4.1.rdb")
    report = checked(path, "--target", "azure-managed")
    findings = {finding["code"]: finding for finding in report["findings"] if finding["severity"] != "note"}
    assert findings.keys() == {"RDB201", "RDB301"}
    assert findings["RDB201"]["fix"] == "--on-field-ttl drop-ttl"
    assert findings["RDB201"]["title"].endswith("which --undocumented keeps")
    assert "Redis 7.4, which runs there, loads RDB 12, and the documents stop at RDB 11" in findings["RDB201"]["why"]
    assert keeps_promise(path, "--target", "redis-7.4") == AS_IT_IS
    assert keeps_promise(path, "--target", "azure-managed", "--undocumented") == LOSSLESS
    report = checked(path, "--target", "azure-managed", "--undocumented")
    assert report["options"] == ["--undocumented", "--collapse-dbs"]
    assert {f["code"] for f in report["findings"] if f["severity"] != "note"} == {"RDB103", "RDB301"}
    Path("a.rdb").write_bytes(rdb(key(b"a", 0, string(b"v")), magic=b"REDIS0012"))
    assert [f["code"] for f in checked("a.rdb", "--target", "azure-managed")["findings"]] == ["RDB103"]


def test_what_the_engine_has_is_kept_where_the_user_relies_on_it() -> None:
    _, _, values = parts_of("redis-7.4.1")
    expiring = next(key(b"h", kind, value) for kind, value in values if kind == 24)
    Path("a.rdb").write_bytes(rdb(expiring, magic=b"REDIS0012"))
    assert keeps_promise("a.rdb", "--target", "azure-managed") == LOSSY
    assert keeps_promise("a.rdb", "--target", "azure-managed", "--undocumented") == AS_IT_IS
    Path("b.rdb").write_bytes(rdb(key(b"a", 0, string(b"v")), magic=b"REDIS0011"))
    assert checked("b.rdb", "--target", "azure-managed", "--undocumented")["findings"] == []
    assert run("convert", "a.rdb", "made.rdb", "--target", "azure-managed")[0] == 1
    # what Valkey has of the kind is kept, too
    valkey = str(RICH / "valkey-9.1.2.rdb")
    assert keeps_promise(valkey, "--target", "azure-managed") == LOSSY
    assert "RDB201" not in {f["code"] for f in checked(valkey, "--target", "azure-managed", "--undocumented")["findings"]}


def test_a_loss_that_is_none_for_the_engine_is_said_to_be_none(tmp_path: Path) -> None:
    _, _, values = parts_of("redis-7.4.1")
    Path("a.rdb").write_bytes(rdb(next(key(b"h", kind, value) for kind, value in values if kind == 24), magic=b"REDIS0012"))
    for command in (
        ["convert", "a.rdb", "made.rdb", "--target", "azure-managed"],
        ["merge", "a.rdb", "-o", "made.rdb", "--target", "azure-managed"],
    ):
        result = CliRunner().invoke(cli, command, standalone_mode=False)
        assert result.return_value == 1
        said = "or --undocumented keeps them: Redis 7.4, which runs there, loads RDB 12, and the documents stop at RDB 11"
        assert said in result.stderr
        kept = CliRunner().invoke(cli, [*command, "--undocumented", "--strict"], standalone_mode=False)
        assert kept.return_value == 0
        with rdbkit.open("made.rdb") as snapshot:
            assert snapshot.header.version == 12
        Path("made.rdb").unlink()


@pytest.mark.parametrize(
    ("version", "says"),
    [
        ("8.0", "Azure Managed Redis documents no RDB version for Redis 8.0, which itself loads RDB 12"),
        ("8.8", "Azure Managed Redis documents no RDB version for Redis 8.8, which itself loads RDB 14"),
        (
            "8.20",
            "Azure Managed Redis documents no RDB version for Redis 8.20, which rdbkit does not know; Redis 8.10, the newest "
            "before it, loads RDB 15",
        ),
    ],
)
def test_an_engine_of_which_the_documents_say_nothing_loses_what_it_does_not_have(version: str, says: str) -> None:
    options = ["--target", "azure-managed", "--redis-version", version]
    for base in BASES:
        assert keeps_promise(str(RICH / f"{base}.rdb"), *options) in (AS_IT_IS, LOSSLESS, LOSSY)
    for name, newer in (("redis-8.8-dev", True), ("redis-7.4.1", True), ("redis-7.0.15", False)):
        report = checked(str(RICH / f"{name}.rdb"), *options)
        found = {finding["code"]: finding for finding in report["findings"]}
        assert (found["RDB106"]["title"], found["RDB106"]["severity"]) == (says, "warning" if newer else "note")
        assert "RDB201" not in found
        if report["verdict"] != AS_IT_IS:
            assert f"--redis-version {version}" in report["command"]
    _, _, values = parts_of("redis-8.0.6")
    modules = [key(b"v%d" % n, kind, value) for n, (kind, value) in enumerate(values) if kind in (7, 24, 25)]
    assert modules
    Path("a.rdb").write_bytes(rdb(*modules, magic=b"REDIS0012"))
    assert keeps_promise("a.rdb", *options) == AS_IT_IS
    _, _, values = parts_of("redis-8.8-dev")
    Path("a.rdb").write_bytes(
        rdb(*(key(b"a%d" % n, kind, v) for n, (kind, v) in enumerate(values) if kind == 28), magic=b"REDIS0014")
    )
    assert ("RDB206" in {f["code"] for f in checked("a.rdb", *options)["findings"]}) == (version == "8.0")


def test_what_a_pipe_does_not_tell_is_said(tmp_path: Path) -> None:
    for data, code in ((in_databases(3), 0), (in_databases(0, 3), 1)):
        exit_code, out = run("check", "--json", "-", "--target", "azure-managed", stdin=data)
        (report,) = json.loads(out)["files"]
        assert (exit_code, report["verdict"]) == (1, LOSSLESS)
        (what,) = report["not_looked_at"]
        assert what == "whether keys of several databases have the same name, since the input cannot be read twice"
        assert report["verdict_text"].endswith(f"after conversion, without loss; not looked at: {what}")
        assert report["command"] == "rdbkit convert - out.rdb --target azure-managed --collapse-dbs"
        assert run(*shlex.split(report["command"])[1:], stdin=data)[0] == code
        assert os.path.exists("out.rdb") == (code == 0)
        Path("out.rdb").unlink(missing_ok=True)
    (report,) = json.loads(run("check", "--json", "-", "--target", "azure-managed", stdin=in_databases(0))[1])["files"]
    assert report["not_looked_at"] == []


def test_a_command_names_all_that_the_target_is() -> None:
    path = str(RICH / "redis-7.0.15.rdb")
    Path("my targets.toml").write_text('[targets.my-server]\ntitle = "Mine"\nrdb = 8\n')
    assert keeps_promise(path, "--target", "my-server", "--targets-file", "my targets.toml") == LOSSY
    older = checked(path, "--target", "azure-premium", "--redis-version", "4.0")
    assert "--redis-version 4.0" in older["command"]
    assert keeps_promise(path, "--target", "azure-premium", "--redis-version", "4.0") == LOSSY
    assert "--redis-version" not in checked(path, "--target", "azure-premium", "--redis-version", "6.0.20")["command"]
    Path("newer.rdb").write_bytes(rdb(key(b"a", 0, string(b"v")), magic=b"REDIS0999"))
    assert keeps_promise("newer.rdb", "--target", "redis-6.0", "--relaxed") == LOSSLESS


@pytest.mark.parametrize("target", ["azure-managed", "azure-premium", "azure-enterprise"])
def test_plan_says_what_check_says(target: str) -> None:
    rng = Random(target)
    service = find_target(target)
    for number in range(8):
        path = Path(f"{number}.rdb")
        path.write_bytes(made_file(rng.choice(BASES), rng))
        found = rdbkit.plan([str(path)], service)
        with rdbkit.open(path) as snapshot:
            sku = service.sku(found.chosen.sku) if found.chosen is not None else None
            report = rdbkit.check(snapshot, service, databases=None if sku is None else sku.databases)
        (file,) = found.files
        assert (file.verdict, file.summary) == (report.verdict, report.summary)
        if report.verdict in (LOSSY, LOSSLESS):
            assert file.convert.lstrip() == report.command


def test_a_plan_moves_what_its_size_does_not_have() -> None:
    Path("a.rdb").write_bytes(in_databases(0, 20))
    service = find_target("azure-premium")
    for sku, option in (("P1", "--map-db 20=1"), ("P2", "")):
        found = rdbkit.plan(["a.rdb"], service, sku=service.sku(sku))
        assert found.feasible
        assert option in found.files[0].convert
        assert bool(found.files[0].convert) == bool(option)


@pytest.mark.skipif(not shutil.which("sh"), reason="there is no shell")
def test_pasted_into_a_shell(tmp_path: Path) -> None:
    """As it is shown to people, for each verdict."""
    script = tmp_path / "rdbkit"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rdbkit "$@"\n')
    script.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    Path("clash.rdb").write_bytes(in_databases(0, 3))
    Path("apart.rdb").write_bytes(in_databases(3))
    shutil.copy(RICH / "redis-8.8-dev.rdb", "<it's new>.rdb")
    for path, lost in (("clash.rdb", "conflict 2"), ("apart.rdb", ""), ("<it's new>.rdb", "function 1, field-expiry 3")):
        code, out = run("check", path, "--target", "azure-managed" if lost != "function 1, field-expiry 3" else "redis-6.0")
        assert code == 1
        (command,) = (line.removeprefix("  run first  ") for line in out.splitlines() if line.startswith("  run first  "))
        made = subprocess.run(["sh", "-c", command], capture_output=True, text=True, env=environment)
        assert made.returncode == 0, made.stderr
        assert f"lost in all: {lost}" in made.stderr if lost else "lost" not in made.stderr


def test_damage_is_refused_by_both() -> None:
    whole = (RICH / "redis-6.0.16.rdb").read_bytes()
    for data in (whole[:5000], whole[:-1] + bytes([whole[-1] ^ 1])):
        Path("a.rdb").write_bytes(data)
        assert keeps_promise("a.rdb", "--target", "redis-6.0") == CANNOT
    with rdbkit.open(io.BytesIO(whole)) as snapshot:
        assert sum(1 for _ in snapshot)

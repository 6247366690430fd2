"""The commands of a plan, as a shell runs them: what is printed, with an `az` and an `rdbkit` that note what they are given."""

from __future__ import annotations

import datetime
import json
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

import rdbkit
from rdbkit.format.slots import key_slot
from rdbkit.operations.plan import plan
from rdbkit.operations.resource_names import Names

from .. import command_line
from ..rdb import FIXTURES, key, rdb, string
from ..storage.blob_server import KEY, serving

ARGUMENTS = tomllib.loads(Path(__file__).with_name("az_arguments.toml").read_text())
SHELLS = [shell for shell in ("sh", "bash", "dash", "zsh") if shutil.which(shell)]
SOURCE = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/old/providers/Microsoft.Cache/redis/old-cache"
NAMED = ["--name", "my-cache", "--resource-group", "(my)_group", "--location", "West Europe"]
NAMED += ["--storage-account", "mystorage", "--container", "my-dumps"]
VARIABLES = {
    "CACHE": "my-cache", "RESOURCE_GROUP": "my group's $HOME", "LOCATION": "West Europe", "STORAGE_ACCOUNT": "mystorage",
    "CONTAINER": "my-dumps",
}  # fmt: skip
#: Answers of `az`, with what a shell would take apart.
ANSWERS = {
    "ad signed-in-user show": "6497c918-11ad-41e7-1b0f-7c518a87d0b0",
    "redis show": "my-cache.redis.cache.windows.net",
    "redisenterprise show": "my-cache.westeurope.redis.azure.net",
    "redis list-keys": "a key= with $HOME and 'quotes'",
    "redisenterprise database list-keys": "a key= with $HOME and 'quotes'",
    "storage blob generate-sas": "https://mystorage.blob.core.windows.net/my-dumps/d.rdb?sp=r&sig=a%2Fb* c&se=2026",
}
BEFORE_THE_END = int(datetime.datetime(2026, 3, 1, tzinfo=datetime.UTC).timestamp() * 1000)
Call = dict[str, Any]


#: What a call may set for itself alone.
SETS = ("AZURE_CORE_DISABLE_CONFIRM_PROMPT", "RDBKIT_REDIS_PASSWORD")


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A folder with programs that note each call in `calls`, and answer as the service does."""
    folder = tmp_path / "bin of ours"
    folder.mkdir()
    answers = "\n".join(f"'{command} '*) echo {shlex.quote(said)} ;;" for command, said in ANSWERS.items())
    variables = " ".join(f'"${{{name}-}}"' for name in SETS)
    program = f"""#!/bin/sh
printf '%s\\0' "${{0##*/}}" "$#" {variables} "$@" >> {shlex.quote(str(folder / "calls"))}
case "$*" in
{answers}
esac
"""
    for name in ("az", "rdbkit"):
        (folder / name).write_text(program)
        (folder / name).chmod(0o755)
    return folder


def noted(recorded: Path) -> list[Call]:
    """The calls, in their order."""
    words = [os.fsdecode(word) for word in (recorded / "calls").read_bytes().split(b"\0")[:-1]]
    calls = []
    while words:
        name, n, *values = words[: 2 + len(SETS)]
        end = 2 + len(SETS) + int(n)
        environment = {variable: value for variable, value in zip(SETS, values, strict=True) if value}
        calls.append({"name": name, "args": words[2 + len(SETS) : end], "environment": environment})
        del words[:end]
    return calls


def pasted(printed: str) -> list[str]:
    """The lines below the titles of the steps, as they are copied from a terminal."""
    lines, inside = [], False
    for line in printed.splitlines():
        if re.match(r"[0-9]+\. ", line):
            inside = True
        elif not line:
            inside = False
        elif inside:
            assert line.startswith("   ")
            lines.append(line[3:])
    return lines


def _with_value(line: str) -> str:
    """The line, with a value where it asks for one."""
    return f"{line[:-3]}{shlex.quote(VARIABLES[line[:-4]])}" if line.endswith("=...") else line


def run_pasted(recorded: Path, lines: list[str], cwd: Path, shell: str = "sh") -> list[Call]:
    """What the programs are called with when a shell runs the lines."""
    lines = [_with_value(line) for line in lines]
    environment = {"PATH": f"{recorded}{os.pathsep}{os.environ['PATH']}", "HOME": "/home"}
    made = subprocess.run([shell, "-eu"], input="\n".join(lines).encode(), cwd=cwd, env=environment, capture_output=True)
    assert made.returncode == 0, made.stderr
    assert made.stderr == b""
    return noted(recorded)


def taken_apart(args: list[str]) -> tuple[str, dict[str, list[str]]]:
    """The command and its options as Azure CLI reads them; what it would not take is an assertion that fails."""
    command = next(
        " ".join(args[:n]) for n in range(len(args), 0, -1) if isinstance(ARGUMENTS.get(" ".join(args[:n])), dict)
    )  # fmt: skip
    has = ARGUMENTS[command]
    known = dict.fromkeys([*has["options"], *ARGUMENTS["global"]], 1)
    known |= dict.fromkeys(has.get("flags", []), 0) | dict.fromkeys(has.get("several", []), 9)
    given: dict[str, list[str]] = {}
    current = ""
    for word in args[len(command.split()) :]:
        if word.startswith("-"):
            current, equals, value = word.partition("=")
            assert current in known, f"{command} has no {current}"
            given.setdefault(current, [])
            if equals:
                given[current].append(value)
        else:
            assert current, f"{command}: {word} is of no option"
            given[current].append(word)
        assert not (word.split("=", 1)[-1]).startswith("@"), "a file that has the argument, or its value"
    for option, values in given.items():
        assert bool(values) == bool(known[option]), f"{command} {option}"
        # options for several values may be there again
        assert known[option] == 9 or len(values) <= 1, f"{command} {option} {values}"
        allowed = has.get("values", {}).get(option)
        assert allowed is None or set(values) <= set(allowed), f"{command} {option} {values}"
    assert set(has.get("required", [])) <= set(given), command
    return command, given


def check_calls(calls: list[Call]) -> list[tuple[str, dict[str, list[str]]]]:
    return [taken_apart(call["args"]) for call in calls if call["name"] == "az"]


def small(path: Path, magic: bytes = b"REDIS0012") -> Path:
    path.write_bytes(rdb(key(b"k:1", 0, string(b"v")), magic=magic))
    return path


def planned(*args: str | Path, cwd: Path) -> str:
    made = command_line.run_text("plan", *args, cwd=cwd)
    assert made.returncode == 0, made.stderr
    return made.stdout


@pytest.mark.parametrize("shell", SHELLS)
def test_managed_redis_from_nothing_to_a_proof(tmp_path: Path, recorded: Path, shell: str) -> None:
    small(tmp_path / "dump.rdb")
    printed = planned("dump.rdb", "--target", "azure-managed", "--source-cache", SOURCE, cwd=tmp_path)
    calls = run_pasted(recorded, pasted(printed), tmp_path, shell)
    made = check_calls(calls)
    assert [command for command, _ in made] == [
        "extension add",
        "redisenterprise create",
        "redisenterprise database create",
        "ad signed-in-user show",
        "redisenterprise database access-policy-assignment create",
        "storage container create",
        "storage blob upload",
        "storage blob generate-sas",
        "redisenterprise database import",
        "redisenterprise show",
        "storage blob delete",
        "extension add",
        "redisenterprise migration start",
    ]
    of = dict(made)
    for options in of.values():
        assert options.get("--resource-group", [VARIABLES["RESOURCE_GROUP"]]) == [VARIABLES["RESOURCE_GROUP"]]
    assert of["redisenterprise create"]["--location"] == ["West Europe"]
    assert of["redisenterprise database create"]["--access-keys-auth"] == ["Disabled"]
    assert of["redisenterprise database access-policy-assignment create"]["--object-id"] == [ANSWERS["ad signed-in-user show"]]
    assert of["redisenterprise database import"]["--sas-uris"] == [ANSWERS["storage blob generate-sas"]]
    assert of["redisenterprise migration start"]["--source-resource-id"] == [SOURCE]
    assert made[-2][1]["--allow-preview"] == ["true"]
    convert, verify = (call for call in calls if call["name"] == "rdbkit")
    assert convert["args"][0] == "convert"
    assert verify["args"] == ["verify-import", convert["args"][2], "rediss://my-cache.westeurope.redis.azure.net:10000", "--entra"]
    assert of["storage blob upload"]["--file"] == [convert["args"][2]]
    assert of["storage blob upload"]["--name"] == of["storage blob delete"]["--name"]


def test_access_keys_where_they_are_asked_for(tmp_path: Path, recorded: Path) -> None:
    small(tmp_path / "dump.rdb")
    printed = planned("dump.rdb", "--target", "azure-managed", "--access-keys", *NAMED, cwd=tmp_path)
    assert "=..." not in printed
    calls = run_pasted(recorded, pasted(printed), tmp_path)
    of = dict(check_calls(calls))
    assert of["redisenterprise database create"]["--access-keys-auth"] == ["Enabled"]
    assert "ad signed-in-user show" not in of
    verify = calls[-2]
    assert verify["args"][-1] == "rediss://my-cache.westeurope.redis.azure.net:10000"
    assert verify["environment"] == {"RDBKIT_REDIS_PASSWORD": ANSWERS["redisenterprise database list-keys"]}
    assert all("RDBKIT_REDIS_PASSWORD" not in call["environment"] for call in calls if call is not verify)


def test_premium_asks_nobody(tmp_path: Path, recorded: Path) -> None:
    """`az redis import` asks from Azure CLI 2.90.0 on, and only from there on it has --yes."""
    small(tmp_path / "dump.rdb")
    printed = planned("dump.rdb", "--target", "azure-premium", cwd=tmp_path)
    calls = run_pasted(recorded, pasted(printed), tmp_path)
    of = dict(check_calls(calls))
    (start,) = (call for call in calls if call["args"][:2] == ["redis", "import"])
    assert start["environment"] == {"AZURE_CORE_DISABLE_CONFIRM_PROMPT": "yes"}
    assert "--yes" not in of["redis import"]
    verify = calls[-2]
    assert verify["args"][0] == "verify-import"
    assert verify["args"][-1] == "rediss://my-cache.redis.cache.windows.net:6380"
    assert verify["environment"] == {"RDBKIT_REDIS_PASSWORD": ANSWERS["redis list-keys"]}
    assert "storage blob delete" in of


@pytest.mark.parametrize(("cloud", "name"), [("usgovernment", "AzureUSGovernment"), ("AzureChinaCloud", "AzureChinaCloud")])
def test_another_cloud_is_signed_in_to_first(tmp_path: Path, recorded: Path, cloud: str, name: str) -> None:
    small(tmp_path / "dump.rdb")
    template = tmp_path / "shop.tf"
    printed = planned("dump.rdb", "--target", "azure-managed", "--cloud", cloud, "--terraform", str(template), cwd=tmp_path)
    made = check_calls(run_pasted(recorded, pasted(printed), tmp_path))
    assert [command for command, _ in made][:3] == ["cloud set", "login", "extension add"]
    assert made[0][1]["--name"] == [name]
    (environment,) = re.findall(r'variable "environment" {.*?default\s*= "(\w+)"', template.read_text(), re.DOTALL)
    assert environment == {"usgovernment": "usgovernment", "AzureChinaCloud": "china"}[cloud]
    assert "cloud set" not in planned("dump.rdb", "--target", "azure-managed", "--cloud", "public", cwd=tmp_path)


def test_only_what_is_used_is_asked_for(tmp_path: Path) -> None:
    small(tmp_path / "dump.rdb")
    printed = planned("dump.rdb", "--target", "azure-enterprise", "--container", "dumps", cwd=tmp_path)
    assert "Look at the cache that you have" in printed
    assert re.findall("   ([A-Z_]+)=[.]{3}", printed) == ["CACHE", "RESOURCE_GROUP", "STORAGE_ACCOUNT"]


def test_premium_is_created_with_enough_databases(tmp_path: Path, recorded: Path) -> None:
    (tmp_path / "dump.rdb").write_bytes(rdb(b"\xfe\x14", key(b"k", 0, string(b"v")), magic=b"REDIS0009"))
    for sku, databases in (("P1", None), ("P2", ['{"databases": "32"}'])):
        printed = planned("dump.rdb", "--target", "azure-premium", "--sku", sku, *NAMED, cwd=tmp_path)
        made = check_calls(run_pasted(recorded, pasted(printed), tmp_path))
        create = [options for command, options in made if command == "redis create"][-1]
        assert create.get("--redis-configuration") == databases


@pytest.mark.parametrize("target", ["azure-managed", "azure-premium"])
def test_a_blob_stays_where_it_is(tmp_path: Path, recorded: Path, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    """It is not uploaded, and never deleted; where it has to be converted, what comes of it is both."""
    monkeypatch.setenv("AZURE_STORAGE_KEY", KEY)
    small(tmp_path / "local.rdb", b"REDIS0009")
    content = rdb(key(b"k:2", 0, string(b"v")), magic=b"REDIS0011")
    with serving(content) as server:
        given = f"{server.url.replace('dump.rdb', 'a%20b.rdb')}?sv=2024-01-01&sp=r&sig=c2VjcmV0"
        printed = planned(given, "local.rdb", "--target", target, "--storage-account", "mine", cwd=tmp_path)
    assert "c2VjcmV0" not in printed
    calls = run_pasted(recorded, pasted(printed), tmp_path)
    made = check_calls(calls)
    read = [options for command, options in made if command == "storage blob generate-sas"]
    sent = [options["--name"] for command, options in made if command == "storage blob upload"]
    gone = [options["--name"] for command, options in made if command == "storage blob delete"]
    verified = next(call["args"] for call in calls if call["args"][0] == "verify-import")
    assert sent == gone
    if target == "azure-managed":
        assert sent == [["local.rdb"]]
        assert [read[0][name] for name in ("--account-name", "--container-name", "--name")] == [
            ["devstoreaccount1"],
            ["dumps"],
            ["a b.rdb"],
        ]
        assert read[1]["--account-name"] == ["mine"]
        assert verified[1:3] == [given.partition("?")[0], "local.rdb"]
    else:
        (convert,) = (call["args"] for call in calls if call["args"][0] == "convert")
        assert convert[1:3] == [given.partition("?")[0], verified[1]]
        assert sent == [[verified[1]], ["local.rdb"]]


@pytest.mark.parametrize("target", ["azure-managed", "azure-premium", "azure-enterprise"])
@pytest.mark.parametrize("access_keys", [True, False])
def test_whatever_is_planned_azure_cli_takes_it(tmp_path: Path, recorded: Path, target: str, access_keys: bool) -> None:
    """Also of a time when each service took new caches."""
    file = FIXTURES / "rich" / ("redis-7.0.15.rdb" if access_keys else "redis-7.4.1-cluster.rdb")
    for now in (BEFORE_THE_END, None):
        found = plan([str(file)], target, names=Names(), access_keys=access_keys, now_ms=now, high_availability=access_keys)
        calls = run_pasted(recorded, [command for step in found.steps for command in step.commands], tmp_path)
        commands = dict(check_calls(calls))
        if now is not None:
            kind = "redis" if target == "azure-premium" else "redisenterprise"
            assert f"{kind} create" in commands


#: Names of files, of which commands are made.
ODD = [
    "a b.rdb", "it's \"so\".rdb", "line\nand --line.rdb", "-rf.rdb", "--name", "$HOME $(date) `date`.rdb", "back\\slash.rdb",
    "@x.rdb", "a=@b.rdb",
    "%s\x1b[31m.rdb", "caf\udce9 \udcff.rdb", "=x.rdb", "~", "#hash !bang *.rdb", "\N{RIGHT-TO-LEFT OVERRIDE}bdr.\u00e9",
]  # fmt: skip


@pytest.mark.parametrize("as_it_is", [True, False])
def test_every_name_comes_through(tmp_path: Path, recorded: Path, monkeypatch: pytest.MonkeyPatch, as_it_is: bool) -> None:
    """All of these files in one plan: each is converted, uploaded, read, verified and deleted under its own name."""
    monkeypatch.chdir(tmp_path)
    names = []
    for name in ODD:
        try:
            small(Path(name), b"REDIS0009" if as_it_is else b"REDIS0080")
            names.append(name)
        except OSError:  # a name that this file system does not take
            pass
    if not as_it_is:
        for name in names:
            Path(name).write_bytes(rdb(b"\xfe\x03", key(b"k", 0, string(b"v")), magic=b"REDIS0009"))
    given = [f"./{name}" if name.startswith("-") else name for name in names]
    calls = run_pasted(recorded, pasted(planned(*given, "--target", "azure-managed", *NAMED, cwd=tmp_path)), tmp_path)
    made = check_calls(calls)
    uploads = [options for command, options in made if command == "storage blob upload"]
    converted = [call["args"] for call in calls if call["name"] == "rdbkit" and call["args"][0] == "convert"]
    verified = next(call["args"] for call in calls if call["args"][0] == "verify-import")
    assert len(uploads) == len(names)
    blobs = [options["--name"][0] for options in uploads]
    assert len(set(blobs)) == len(blobs)
    assert all(blob.isprintable() and blob.encode() for blob in blobs)
    files = [options["--file"][0] for options in uploads]
    if as_it_is:
        assert converted == []
        assert [os.path.realpath(file) for file in files] == [os.path.realpath(name) for name in names]
    else:
        assert [os.path.realpath(args[1]) for args in converted] == [os.path.realpath(name) for name in names]
        assert [os.path.realpath(args[2]) for args in converted] == [os.path.realpath(file) for file in files]
    assert [os.path.realpath(file) for file in verified[1 : 1 + len(names)]] == [os.path.realpath(file) for file in files]
    assert [options["--name"][0] for command, options in made if command == "storage blob delete"] == blobs
    assert [options["--name"][0] for command, options in made if command == "storage blob generate-sas"] == blobs
    (imported,) = (options for command, options in made if command == "redisenterprise database import")
    assert len(imported["--sas-uris"]) == len(names)


def test_the_address_lasts_as_long_as_it_says(tmp_path: Path) -> None:
    now = datetime.datetime(2026, 11, 30, 13, 34, 59, tzinfo=datetime.UTC)
    found = plan([str(small(tmp_path / "a.rdb"))], "azure-managed", now_ms=int(now.timestamp() * 1000))
    (upload,) = (step for step in found.steps if step.title.startswith("Upload"))
    assert found.good_until == "2026-12-02T13:34Z"
    assert "--expiry 2026-12-02T13:34Z " in upload.commands[-1]
    assert "has to begin before 2026-12-02 12:34 UTC" in upload.note
    assert datetime.timedelta(hours=1) < datetime.datetime.fromisoformat(found.good_until) - now < datetime.timedelta(days=7)
    assert "$(date" not in json.dumps(found.to_dict())


def test_notes_are_no_commands(tmp_path: Path) -> None:
    """Whoever pastes a step with its note runs nothing of it, not even where # begins no comment."""
    small(tmp_path / "dump.rdb")
    for target in ("azure-managed", "azure-premium"):
        notes = [line for line in pasted(planned("dump.rdb", "--target", target, cwd=tmp_path)) if line.startswith("#")]
        assert len(notes) > 3
        assert all(re.fullmatch(r"# [\w ,.:\[\]-]+", line) for line in notes), notes


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--name", "my_cache"], "my_cache cannot be the name of a cache: 1 to 60 letters"),
        (["--name", "my--cache"], "cannot be the name of a cache"),
        (["--name", "a" * 61], "cannot be the name of a cache"),
        (["--name=-x"], "cannot be the name of a cache"),
        (
            ["--storage-account", "My-Storage"],
            "My-Storage cannot be the name of a storage account: 3 to 24 small letters",
        ),
        (["--container", "a"], "a cannot be the name of a container: 3 to 63"),
        (["--container", "$logs"], "$logs cannot be the name of a container"),
        (["--resource-group", "mine."], "mine. cannot be the name of a resource group"),
        (["--location", "@file"], "@file cannot be the name of a region"),
        (["--source-cache", "old"], "old is not the resource id of a Basic, Standard or Premium cache: /subscriptions/"),
        (["--clustering", "None"], "'None' is no policy of clustering of Azure Managed Redis"),
        (["--clustering", "NoCluster", "--sku", "B50"], "NoCluster is for sizes up to 24 GB, and Balanced_B50 has 60"),
        (["--target", "azure-premium", "--clustering", "NoCluster"], "has no policies of clustering to choose from"),
        (["--target", "azure-premium", "--source-cache", SOURCE], "takes over no host name"),
        (["--target", "azure-premium", "--name", "a" * 64], "cannot be the name of a cache: 1 to 63 letters"),
    ],
)
def test_what_the_service_refuses_is_refused_at_once(tmp_path: Path, args: list[str], words: str) -> None:
    small(tmp_path / "dump.rdb")
    made = command_line.run_text("plan", "dump.rdb", "--target", "azure-managed", *args, cwd=tmp_path)
    assert made.returncode == 2
    assert words in made.stderr.splitlines()[-1]


def test_names_that_are_allowed(tmp_path: Path) -> None:
    file = str(small(tmp_path / "a.rdb"))
    for name in ("a", "A-1-b", "a" * 60):
        assert plan([file], "azure-managed", names=Names(cache=name)).names.cache == name
    assert plan([file], "azure-premium", names=Names(cache="a" * 63)).steps
    assert plan([file], "azure-managed", names=Names(container="$web", resource_group="\u00e9_(1).x-")).steps


def shard(path: Path, *parts: bytes, magic: bytes = b"REDIS0009") -> str:
    path.write_bytes(rdb(key(path.name.encode(), 0, string(b"v")), *parts, magic=magic))
    return str(path)


def _halves(folder: Path) -> tuple[str, str, str]:
    """Two shards of a cluster, by the slots of their keys, and the server that has all of them."""
    names = [b"%x" % (n * 0x9E3779B97F4A7C15 % (1 << 64)) for n in range(40_000)]
    halves: list[list[bytes]] = [[], []]
    for name in names:
        halves[key_slot(name) // 8192].append(key(name, 0, string(b"v")))
    low, high, both = (folder / f"{stem}.rdb" for stem in ("low", "high", "all"))
    low.write_bytes(rdb(*halves[0], magic=b"REDIS0009"))
    high.write_bytes(rdb(*halves[1], magic=b"REDIS0009"))
    both.write_bytes(rdb(*halves[0], *halves[1], magic=b"REDIS0009"))
    return str(low), str(high), str(both)


def test_the_policy_of_clustering_follows_the_data(tmp_path: Path) -> None:
    plain = shard(tmp_path / "a.rdb")
    script = shard(tmp_path / "s.rdb", b"\xfa" + string(b"lua") + string(b"return redis.call('MGET', KEYS[1], KEYS[2])"))
    second = shard(tmp_path / "b.rdb")
    enterprise = shard(tmp_path / "e.rdb", b"\x6b\x05" + key(b"k", 0, string(b"v")))
    library = str(FIXTURES / "rich" / "redis-7.0.15.rdb")
    half, other_half, spread = _halves(tmp_path)
    cluster = str(FIXTURES / "rich" / "redis-7.4.1-cluster.rdb")
    for files, options, policy, reason in (
        ([plain], {}, "EnterpriseCluster", "the data shows neither a cluster nor functions nor scripts"),
        ([script], {}, "NoCluster", "the source has 1 Lua script"),
        ([library], {}, "NoCluster", "the source has 1 function library"),
        ([library], {"sku": "B50"}, "EnterpriseCluster", "there is no NoCluster above 24 GB"),
        ([cluster], {}, "OSSCluster", "the source is a cluster"),
        ([plain, second], {}, "OSSCluster", "several files are the shards of a cluster"),
        ([plain, enterprise], {}, "EnterpriseCluster", "neither a cluster nor functions"),
        ([half], {}, "OSSCluster", "by the slots of the keys the source is a cluster"),
        ([half, other_half], {}, "OSSCluster", "by the slots of the keys the source is a cluster"),
        ([plain, spread], {}, "EnterpriseCluster", "neither a cluster nor functions"),
        ([spread], {}, "EnterpriseCluster", "neither a cluster nor functions"),
        ([plain, script], {"sku": "B50"}, "OSSCluster", "several files are the shards of a cluster"),
        ([cluster], {"clustering": "nocluster"}, "NoCluster", "it was asked for"),
        ([script], {"clustering": "OSSCluster"}, "OSSCluster", "it was asked for"),
    ):
        found = plan(files, "azure-managed", **options)  # type: ignore[arg-type]
        assert (found.clustering, reason in found.clustering_reason) == (policy, True), (files, found.clustering_reason)
        assert any(f"--clustering-policy {policy} " in command for step in found.steps for command in step.commands)
        assert sum(f"clustering policy {policy}, " in note and reason in note for note in found.notes) == 1
    assert any("slower than the others" in note for note in plan([script], "azure-managed").notes)
    with rdbkit.open(script) as snapshot:
        assert rdbkit.memory(snapshot, "azure-managed").scripts == 1

"""From a dump of Redis 7.2 to data in a real Redis 6.0, by every step of a migration, and the proof that it is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fixtures.server import running
from fixtures.server import truth as answers

from .. import azurite
from ..arm import Cloud, cloud
from ..azure.shell import Shell
from ..azurite import needs_azurite
from ..rdb import FIXTURES, truth

pytestmark = needs_azurite
SERVERS = Path(os.environ["RDBKIT_SERVERS"])
DUMP = FIXTURES / "rich/redis-7.2.6.rdb"


@pytest.fixture
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with azurite.running(tmp_path_factory.mktemp("azurite")) as blobs, cloud(tmp_path_factory.mktemp("cloud"), blobs) as found:
        yield found


def test_from_a_dump_to_a_filled_cache(azure: Cloud, tmp_path: Path) -> None:
    shell = Shell(azure, tmp_path)
    cache = azure.premium()
    with ExitStack() as stack:
        ports: list[int] = []

        def load(files: list[bytes]) -> None:
            """What the service does with the blob that the SAS has let it fetch."""
            (tmp_path / "in.rdb").write_bytes(files[0])
            _, folder = stack.enter_context(running(next((SERVERS / "redis-6.0").glob("*-server")), tmp_path / "in.rdb"))
            ports.append(int((folder / "server.conf").read_text().split()[1]))

        cache.load = load
        code, _, err = shell.run(
            "migrate", str(DUMP), "--target", "azure-premium", "--resource-id", cache.path, "--container",
            azure.blob("dumps/all/"), "--on-function", "drop", "--yes", "shop-cache",
        )  # fmt: skip
        assert code == 0, err  # that the functions are lost is allowed
        url = f"redis://127.0.0.1:{ports[0]}"
        command = [sys.executable, "-m", "rdbkit", "verify-import", str(DUMP), url, "--json"]
        proof = subprocess.run(command, capture_output=True, text=True, check=False)
        assert proof.returncode == 1, proof.stderr
        report = json.loads(proof.stdout)
        assert report["functions"] == [{"what": "missing", "name": "l"}], "it says what was lost"
        assert report["equal"] == report["keys"]
        proof = subprocess.run([*command, "--ignore", "functions"], capture_output=True, text=True, check=False)
        assert proof.returncode == 0, proof.stdout + proof.stderr
        assert json.loads(proof.stdout)["same"] is True


def test_what_is_imported_is_in_the_server(azure: Cloud, tmp_path: Path) -> None:
    shell = Shell(azure, tmp_path)
    cache = azure.premium()
    dump = FIXTURES / "rich/redis-6.0.16.rdb"
    seen: list[Any] = []

    def load(files: list[bytes]) -> None:
        (tmp_path / "in.rdb").write_bytes(files[0])
        with running(next((SERVERS / "redis-6.0").glob("*-server")), tmp_path / "in.rdb") as (client, _):
            seen.extend((row["db"], row["key"], row["type"], row["value"]) for row in answers(client))

    cache.load = load
    code, _, err = shell.imports(cache, azure.blob("dumps/server.rdb", dump.read_bytes()))
    assert code == 0, err
    assert seen == [(row["db"], row["key"], row["type"], row["value"]) for row in truth(dump) or ()]
    assert len(seen) > 20


def test_several_databases_of_several_files_become_one(azure: Cloud, tmp_path: Path) -> None:
    shell = Shell(azure, tmp_path)
    cache = azure.managed()
    files = []
    for number in range(2):
        with running(next((SERVERS / "redis-7.0").glob("*-server"))) as (client, folder):
            for db in range(3):
                client.call("SELECT", str(db))
                client.call("SET", f"only:{number}:{db}", "v")
                client.call("RPUSH", f"list:{number}", *map(str, range(db + 1)))
                client.call("SET", f"gone:{number}:{db}", "v")
            client.call("SAVE")
            files.append(tmp_path / f"shard-{number}.rdb")
            files[-1].write_bytes((folder / "dump.rdb").read_bytes())
    options = ["--collapse-dbs", "--on-conflict", "rename={key}:db{db}", "--not-key", "gone:*", "--rename-prefix", "only:=kept:"]
    options += ["--set-ttl", "7d"]
    seen: dict[str, Any] = {}
    expiring: list[Any] = []

    def load(blobs: list[bytes]) -> None:
        for number, data in enumerate(blobs):
            (tmp_path / f"in-{number}.rdb").write_bytes(data)
            with running(next((SERVERS / "redis-8.0").glob("*-server")), tmp_path / f"in-{number}.rdb") as (client, _):
                known = set(seen)
                seen.update({row["key"]: (row["db"], row["value"]) for row in answers(client)})
                expiring.extend(client.call("EXPIRETIME", name) for name in seen.keys() - known)

    cache.load = load
    code, out, err = shell.run(
        "migrate", *map(str, files), "--target", "azure-managed", "--resource-id", cache.path, "--container",
        azure.blob("dumps/several/"), *options, "--yes", "shop-amr", "--json",
    )  # fmt: skip
    assert code == 0, err
    lists = {f"list:{number}{end}": db for number in range(2) for db, end in enumerate(("", ":db1", ":db2"))}
    names = {f"kept:{number}:{db}" for number in range(2) for db in range(3)}
    assert set(seen) == names | lists.keys()
    assert {db for db, _ in seen.values()} == {0}
    assert {len(seen[key][1]) - 1 for key in lists} == {0, 1, 2}
    assert len(set(expiring)) == 1, "every key at the same time"
    assert len(expiring) == len(seen) == json.loads(out)["written"]
    assert json.loads(out)["left_out"] == 6

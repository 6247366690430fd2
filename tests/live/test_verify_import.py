"""What `verify-import` does before a server is asked: URLs, passwords, options, a missing package, and the file of its state."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from rdbkit.cli import cli
from rdbkit.errors import TargetError
from rdbkit.live import connection
from rdbkit.live.connection import Refusal, connect, parse_url, scrub
from rdbkit.live.verify_import import ImportDifference, ImportedDatabase, ImportProof, _identity, _State

from ..rdb import FIXTURES

FILE = str(FIXTURES / "rich" / "redis-7.0.15.rdb")


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "user", "password", "db"),
    [
        ("redis://h", "h", 6379, False, None, None, None),
        ("redis://h:1/", "h", 1, False, None, None, None),
        ("rediss://cache.redis.azure.net:10000", "cache.redis.azure.net", 10000, True, None, None, None),
        ("redis://:pw@h:1/3", "h", 1, False, None, "pw", 3),
        ("redis://me@h", "h", 6379, False, "me", None, None),
        ("redis://me:a%40b%2Fc@h", "h", 6379, False, "me", "a@b/c", None),
        ("redis://me:a@b/c#d?e@h:2", "h", 2, False, "me", "a@b/c#d?e", None),
        ("redis://[::1]:7/0", "::1", 7, False, None, None, 0),
    ],
)
def test_urls(url: str, host: str, port: int, tls: bool, user: str | None, password: str | None, db: int | None) -> None:
    place = parse_url(url)
    found = (place.host, place.port, place.tls, place.user, place.password, place.db)
    assert found == (host, port, tls, user, password, db)
    assert password is None or password not in str(place) + repr(place)
    assert parse_url(str(place)).host == host


@pytest.mark.parametrize(
    "url",
    [
        "http://u:s3cret@h", "h:6379", "redis://", "redis://u:s3cret@", "redis://u:s3cret@h:port", "redis://u:s3cret@h:99999",
        "redis://u:s3cret@h/db", "redis://u:s3cret@h?ssl=1", "redis://u:s3cret@[::1", "redis://u:s3cret@h/-1", "redis://h/²",
        "u:s3cret@h:6379", "//u:s3cret@h", "redis:u:s3cret@h", "rdis://u:my s3cret@h", "redis://u:my /?s3cret@h:99999",
        "redis://s3cret@h/x", "redis://:s3cret", "redis://u:s3cret@a..b", f"redis://u:s3cret@h/{'9' * 5000}",
    ],
)  # fmt: skip
def test_malformed_urls_are_told_without_their_password(url: str) -> None:
    with pytest.raises(ValueError, match=r"redis://|its port or database") as e:
        parse_url(url)
    assert "s3cret" not in str(e.value)
    for arguments in (
        [FILE, url],
        [url, FILE],
        [FILE, "redis://h", "--state", url, "--cluster", url],
        [FILE, "redis://h", f"--{url}"],
    ):
        result = CliRunner().invoke(cli, ["verify-import", *arguments])
        assert result.exit_code in (2, 4)
        assert "s3cret" not in result.output


@pytest.mark.parametrize("url", ["redis://u:my s3cret@h:1", "redis://u:s3cret@h", "redis://s3cret@h", "u:s3cret@h"])
def test_a_url_in_the_place_of_a_file_is_told_without_its_password(url: str, tmp_path: Path) -> None:
    for option in ([url, "redis://h"], [FILE, "redis://h", "--ca-cert", url], [FILE, "redis://h", "--rate", url]):
        result = CliRunner().invoke(cli, ["verify-import", *option])
        assert result.exit_code == 2
        assert "s3cret" not in result.output
    result = CliRunner().invoke(cli, ["verify-import", FILE, "redis://h", "--password-file", "s3cret"])
    assert result.exit_code == 2
    assert "the file cannot be read: No such file or directory" in result.output
    assert "s3cret" not in result.output


def test_scrub_finds_every_password() -> None:
    assert scrub("redis://u:p@ss@h and more") == "redis://u:***@h and more"
    assert scrub("REDISS://:p/w@h:1") == "REDISS://:***@h:1"
    assert scrub("redis://u:my p@ss/w?@h") == "redis://u:***@h"
    assert scrub("redis://u@h") == "redis://***@h"  # who knows what it is
    assert scrub("redis://h:1 and redis://h/0") == "redis://h:1 and redis://h/0"


def test_a_server_that_is_not_there_fails_at_once() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(TargetError, match="cannot be reached") as e:
        connect(f"redis://me:s3cret@127.0.0.1:{port}")
    assert "s3cret" not in str(e.value)


def test_without_the_package_the_error_names_the_extra() -> None:
    code = f"""
import sys
sys.modules["redis"] = None
from rdbkit.errors import TargetError
from rdbkit.live.connection import connect
from rdbkit.cli import main
try:
    connect("redis://h")
except TargetError as e:
    print(e)
main(["verify-import", {FILE!r}, "redis://h"])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "pip install 'rdbkit[live]'" in done.stdout
    assert "pip install 'rdbkit[live]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 4


def test_without_the_package_of_entra_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis_entraid.cred_provider", None)
    with pytest.raises(TargetError, match=r"rdbkit\[live\]"):
        connection.entra_credentials()


def test_an_identity_without_a_token_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = pytest.importorskip("redis_entraid.cred_provider")

    class Nobody:
        def get_credentials(self) -> None:
            raise RuntimeError("DefaultAzureCredential failed to retrieve a token\nand much more")

    scopes = []

    def create(scope: tuple[str]) -> Nobody:
        scopes.append(scope)
        return Nobody()

    monkeypatch.setattr(provider, "create_from_default_azure_credential", create)
    credentials = connection.entra_credentials()
    with pytest.raises(TargetError, match=r"DefaultAzureCredential failed to retrieve a token; sign in \(az login\), or leave"):
        credentials()
    assert scopes == [("https://redis.azure.com/.default",)]


@pytest.mark.parametrize("is_known", [True, False])
def test_packages_that_look_for_an_identity_say_nothing_themselves(is_known: bool, tmp_path: Path) -> None:
    for name in ("redis_entraid", "azure.storage.blob", "cryptography"):
        pytest.importorskip(name)
    from ..arm import cloud

    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AZURE", "IDENTITY", "MSI"))}
    with cloud(tmp_path, "") as found, socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        environment = found.environment
        if not is_known:
            del environment["AZURE_TOKEN_CREDENTIALS"]
            environment["IDENTITY_HEADER"] = "another"
        done = subprocess.run(
            [sys.executable, "-m", "rdbkit", "verify-import", FILE, f"rediss://localhost:{probe.getsockname()[1]}", "--entra"],
            env=kept | environment, capture_output=True, text=True,
        )  # fmt: skip
    assert done.returncode == 4
    (line,) = done.stderr.splitlines()
    assert ("the server cannot be reached" if is_known else "no Entra ID token can be had") in line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--ca-cert", FILE, "redis://h"], "are for rediss://"),
        (["--no-verify-tls", "redis://h"], "are for rediss://"),
        (["--entra", "redis://h"], "write rediss://"),
        (["--entra", "rediss://u:p@h"], "exclude each other"),
        (["--pick", "0", "redis://h"], "neither a number of keys nor a share"),
        (["--pick", "100%", "redis://h"], "neither a number of keys nor a share"),
        (["--map-db", "1", "redis://h"], "no pair of databases"),
        (["--map-db", "1=0,1=2", "redis://h"], "there twice"),
        (["--ttl-tolerance", "soon", "redis://h"], "no duration"),
        (["--rate", "0", "redis://h"], "not in the range"),
        (["--rate", "1e-300", "redis://h"], "not in the range"),
        (["--rate", "inf", "redis://h"], "no number that can be worked with"),
        (["--rate", "nan", "redis://h"], "no number that can be worked with"),
        (["--pick", "nan%", "redis://h"], "neither a number of keys nor a share"),
        (["--pick", "9" * 400, "redis://h"], "neither a number of keys nor a share"),
    ],
)
def test_wrong_usage(options: list[str], said: str) -> None:
    result = CliRunner().invoke(cli, ["verify-import", FILE, *options])
    assert result.exit_code == 2
    assert said in " ".join(result.output.split())


def test_an_empty_password_file_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("\n")
    result = CliRunner().invoke(cli, ["verify-import", FILE, "redis://h", "--password-file", str(tmp_path / "password")])
    assert result.exit_code == 2
    assert "no password" in result.output


def test_an_error_reply_has_its_code_whichever_release_of_the_package_reads_it() -> None:
    class NoPermissionError(Exception):
        pass

    class MovedError(Exception):
        pass

    plain = Exception
    for error, refusal in (
        (NoPermissionError("this user has no permissions"), Refusal("NOPERM", "this user has no permissions")),
        (MovedError("12182 127.0.0.1:7000"), Refusal("MOVED", "12182 127.0.0.1:7000")),
        (plain("MOVED 12182 127.0.0.1:7000"), Refusal("MOVED", "12182 127.0.0.1:7000")),
        (plain("WRONGTYPE Operation against a key"), Refusal("WRONGTYPE", "Operation against a key")),
        (plain("unknown command 'X'"), Refusal("ERR", "unknown command 'X'")),
        (plain("ERR no such key"), Refusal("ERR", "no such key")),
        (plain("DB index is out of range"), Refusal("DB", "index is out of range")),
    ):
        found = connection._refusal(error)
        assert found == refusal
    assert str(Refusal("DB", "index is out of range")) == "DB index is out of range"


def test_a_state_is_kept_whole_and_belongs_to_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rdbkit.live.verify_import._SAVE_S", 0)
    data = tmp_path / "a.rdb"
    data.write_bytes(Path(FILE).read_bytes())
    path = str(tmp_path / "state.json")

    def state(**other: Any) -> _State:
        return _State(path, {"files": [_identity(str(data))], "server": ["h", 1, None], "options": []} | other, [])

    assert state().load() is None
    state().save(lambda: {"place": [0, 3]})
    assert state().load() == {"place": [0, 3]}
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".rdbkit")] == []
    with pytest.raises(ValueError, match="another server"):
        state(server=["other", 1, None]).load()
    with pytest.raises(ValueError, match="other options"):
        state(options=[1]).load()
    with data.open("ab") as file:
        file.write(b"\0")
    with pytest.raises(ValueError, match="has changed"):
        state().load()
    for text in ("nonsense", "[]", "{}", "[" * 100_000):
        Path(path).write_text(text)
        with pytest.raises(ValueError, match="no state of verify-import"):
            state().load()
    state().remove()
    state().remove()
    assert not Path(path).exists()


def is_same(proof: ImportProof) -> bool:
    return proof.same


def test_what_is_the_same() -> None:
    proof = ImportProof("redis://h:1", "standalone", None, ["a.rdb"])
    proof.databases = [ImportedDatabase(0, keys=10, expired=2, server=8)]
    assert is_same(proof)
    proof.databases[0].server = 7
    assert proof.databases[0].fewer == 1
    assert not is_same(proof)
    proof.counted = False
    assert is_same(proof)
    for name in ("missing", "type", "value", "expire", "refused", "extra"):
        setattr(proof, name, 1)
        assert not is_same(proof)
        setattr(proof, name, 0)
    row = ImportedDatabase(0, keys=10, expired=2, server=13, missing=1)
    assert (row.more, row.unclear, row.fewer) == (4, 0, 0)
    assert ImportedDatabase(0, keys=10, expired=2, server=9).unclear == 1
    proof.samples = [ImportDifference("extra", 0, b"\xff"), ImportDifference("missing", 0, b"k", file="a\udcff.rdb", offset=3)]
    shown = json.loads(json.dumps(proof.to_dict()))
    assert [row["key"] for row in shown["samples"]] == [{"base64": "/w=="}, "k"]
    assert shown["databases"][0]["fewer"] == 1
    assert shown["same"] is True

"""What a connection to a server does without one: errors in words, logins, missing packages."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from rdbkit.errors import TargetError
from rdbkit.live.login import entra_credentials
from rdbkit.live.server import connect

from ..rdb import FIXTURES

FILE = str(FIXTURES / "rich" / "redis-7.0.15.rdb")


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
from rdbkit.live.server import connect
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
        entra_credentials()


def test_an_identity_without_a_token_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    provider = pytest.importorskip("redis_entraid.cred_provider")

    class Nobody:
        def get_credentials(self) -> None:
            raise RuntimeError("DefaultAzureCredential failed to retrieve a token\nand much more")

    asked = []

    def create(scope: tuple[str], authority: str) -> Nobody:
        asked.append((*scope, authority))
        return Nobody()

    monkeypatch.delenv("AZURE_AUTHORITY_HOST", raising=False)
    monkeypatch.setattr(provider, "create_from_default_azure_credential", create)
    credentials = entra_credentials()
    with pytest.raises(TargetError, match=r"DefaultAzureCredential failed to retrieve a token; sign in \(az login\), or give"):
        credentials()
    entra_credentials("AzureUSGovernment")
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://login.example.com")
    entra_credentials("china")
    scope = "https://redis.azure.com/.default"
    hosts = ("login.microsoftonline.com", "login.microsoftonline.us", "login.example.com")
    assert asked == [(scope, f"https://{host}") for host in hosts]


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
    assert ("the server cannot be reached" if is_known else "no Entra ID token") in line

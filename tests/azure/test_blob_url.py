"""URLs of blobs: where what opens an account may be sent unencrypted."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from rdbkit.cli import cli
from rdbkit.storage.blob_url import parse_place

from ..rdb import FIXTURES

DUMP = str(FIXTURES / "rich" / "redis-7.0.15.rdb")
CACHE = "/subscriptions/00000000-0000-0000-0000-000000000000/resourceGroups/g/providers/Microsoft.Cache/Redis/c"
FAR = [
    "http://mystore.blob.core.windows.net/dumps/dump.rdb?sv=1&sig=s3cret",
    "http://10.0.0.5:10000/devstoreaccount1/dumps/dump.rdb?sv=1&sig=s3cret",
    "http://host.docker.internal:10000/devstoreaccount1/dumps/dump.rdb",
    "http://localhost.example.com/dumps/dump.rdb",
    "http://127.0.0.1.example.com/dumps/dump.rdb",
    "http://me@mystore.example.com/dumps/dump.rdb",
    "HTTP://mystore.example.com/dumps/dump.rdb",
]
NEAR = [
    "http://127.0.0.1:10000/devstoreaccount1/dumps/dump.rdb",
    "http://127.1.2.3:10000/devstoreaccount1/dumps/dump.rdb",
    "http://localhost:10000/devstoreaccount1/dumps/dump.rdb",
    "http://[::1]:10000/dumps/dump.rdb",
    "http://devstoreaccount1.blob.localhost:10000/dumps/dump.rdb",
    "https://mystore.blob.core.windows.net/dumps/dump.rdb",
]
#: Up to the URL, which stands at the end.
COMMANDS = {
    "upload": ["upload", DUMP],
    "import": ["import", "--target", "azure-premium", "--resource-id", CACHE, "--dry-run"],
    "export-cache": ["export-cache", "--target", "azure-premium", "--resource-id", CACHE, "--dry-run"],
    "migrate": ["migrate", DUMP, "--target", "azure-premium", "--resource-id", CACHE, "--dry-run", "--container"],
}


@pytest.mark.parametrize("url", FAR)
def test_http_is_for_this_machine(url: str) -> None:
    with pytest.raises(ValueError, match=r"http:// shows everybody .* or allow http://") as caught:
        parse_place(url)
    assert "s3cret" not in str(caught.value)
    assert parse_place(url, allow_http=True).account.startswith("http://")


@pytest.mark.parametrize("url", NEAR)
def test_this_machine_and_https(url: str) -> None:
    assert parse_place(url).container == "dumps"


@pytest.mark.parametrize("name", COMMANDS)
def test_commands(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Reached(Exception):
        pass

    def reached(*_: object, **__: object) -> None:
        raise Reached

    monkeypatch.setattr("rdbkit.azure.upload._opened", reached)
    monkeypatch.setattr("rdbkit.azure.resources.Arm.__init__", reached)
    done = CliRunner().invoke(cli, [*COMMANDS[name], FAR[0]])
    assert done.exit_code == 2
    assert "http:// shows everybody on the way" in done.output
    assert "s3cret" not in done.output
    for more in (["--allow-http", *COMMANDS[name][1:]], COMMANDS[name][1:]):  # in whatever order
        arguments = [name, *more, FAR[0], *([] if "--allow-http" in more else ["--allow-http"])]
        assert isinstance(CliRunner().invoke(cli, arguments).exception, Reached)

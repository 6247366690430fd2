"""`--cloud`: which Azure is asked, by the option, the hosts of URLs, and the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rdbkit.azure.credentials import Credentials
from rdbkit.azure.resources import Arm, parse_resource_id
from rdbkit.clouds import find_cloud
from rdbkit.errors import TargetError
from rdbkit.storage.blob_url import BlobUrl, parse_place

from .. import command_line
from ..arm import Cloud
from ..azurite import needs_azurite
from .shell import Shell

ID = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Cache/redis/shop-cache"


class Token:
    """A credential that notes what it is asked for, and says no."""

    def __init__(self) -> None:
        self.scopes: list[str] = []

    def get_token(self, *scopes: str, **_: Any) -> None:
        from azure.core.exceptions import ClientAuthenticationError

        self.scopes += scopes
        raise ClientAuthenticationError("nobody is there")


@pytest.mark.parametrize(
    ("cloud", "endpoint", "scope"),
    [
        ("public", "https://management.azure.com", "https://management.azure.com/.default"),
        ("AzureUSGovernment", "https://management.usgovcloudapi.net", "https://management.core.usgovcloudapi.net/.default"),
        ("china", "https://management.chinacloudapi.cn", "https://management.chinacloudapi.cn/.default"),
    ],
)
def test_the_resource_manager_of_a_cloud(cloud: str, endpoint: str, scope: str) -> None:
    token = Token()
    with Arm(parse_resource_id(ID), cloud=cloud, credential=token) as arm:
        assert arm.endpoint == endpoint
        with pytest.raises(TargetError, match="no identity is found") as caught:
            arm.read()
    assert set(token.scopes) == {scope}
    assert f"sign in ({arm.cloud.sign_in})" in str(caught.value)


def test_an_endpoint_comes_before_that_of_the_cloud() -> None:
    token = Token()
    with Arm(parse_resource_id(ID), cloud="china", endpoint="https://arm.example.com/", credential=token) as arm:
        assert arm.endpoint == "https://arm.example.com"
        with pytest.raises(TargetError):
            arm.read()
    assert set(token.scopes) == {"https://arm.example.com/.default"}
    with pytest.raises(ValueError, match="begins with https"):
        Arm(parse_resource_id(ID), endpoint="")


@pytest.mark.parametrize(
    ("host", "credentials", "environment", "wanted"),
    [
        ("a.blob.core.windows.net", Credentials(), "", "https://login.microsoftonline.com"),
        ("a.blob.core.usgovcloudapi.net", Credentials(), "", "https://login.microsoftonline.us"),
        ("a.blob.core.chinacloudapi.cn", Credentials(), "", "https://login.chinacloudapi.cn"),
        ("blobs.example.com", Credentials(cloud="china"), "", "https://login.chinacloudapi.cn"),
        ("a.blob.core.usgovcloudapi.net", Credentials(cloud="china"), "", "https://login.microsoftonline.us"),
        ("a.blob.core.usgovcloudapi.net", Credentials(), "https://login.example.com", "https://login.example.com"),
    ],
)
def test_who_gives_out_tokens(
    host: str, credentials: Credentials, environment: str, wanted: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    class Identity(Token):
        def __init__(self, authority: str) -> None:
            super().__init__()
            asked.append(authority)

    identity = pytest.importorskip("azure.identity")
    monkeypatch.setattr(identity, "DefaultAzureCredential", Identity)
    for name in ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", environment)
    with pytest.raises(TargetError, match="no identity is found"):
        credentials.service(BlobUrl(f"https://{host}", "dumps", "a.rdb"))
    assert asked == [wanted]


@pytest.mark.parametrize("host", ["a.blob.core.windows.net.example.com", "A.blob.core.chinacloudapi.cn.example.com:443"])
@pytest.mark.parametrize("variable", ["", "AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN"])
def test_no_credentials_go_to_a_host_that_looks_like_one_of_azure(
    monkeypatch: pytest.MonkeyPatch, host: str, variable: str
) -> None:
    for name in ("AZURE_STORAGE_KEY", "AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_CONNECTION_STRING"):
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setenv(variable, "c2ln")
    token = Token()
    place, signed = (parse_place(f"https://{host}/dumps/a.rdb{query}") for query in ("", "?sig=own"))
    for credentials in (Credentials(token=token), Credentials(sas="sig=x"), Credentials(key="c2ln"), Credentials()):
        with pytest.raises(ValueError, match="is no host of Azure, and no credentials are sent to it"):
            credentials.service(place)
    for credentials in (Credentials(token=token), Credentials(sas="sig=x")):
        with pytest.raises(ValueError, match="is no host of Azure"):
            credentials.service(signed)
    assert Credentials().access(signed).sas == "sig=own"
    assert not token.scopes
    assert parse_place("https://a.blob.core.windows.net./dumps/a.rdb").cloud is find_cloud("public")


@needs_azurite
def test_a_command_asks_for_tokens_of_the_cloud_that_its_url_is_in(azure: Cloud, shell: Shell) -> None:
    environment = shell.environment | {"HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": "localhost"}
    url = "https://shopdumps.blob.core.usgovcloudapi.net/dumps/a.rdb"
    command = ["import", url, "--target", "azure-premium", "--resource-id", ID, "--yes", "shop-cache"]
    done = command_line.run(*command, cwd=shell.folder, environment=environment)
    assert done.returncode == 4
    assert b"cannot be reached" in done.stderr
    assert azure.audiences == ["https://management.core.usgovcloudapi.net"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cloud", "germany"], "is no cloud that is known here; known: public (AzureCloud), usgovernment (AzureUSGovernment)"),
        (["--cloud", "china"], "a URL is of Azure (AzureCloud), and --cloud china says otherwise"),
        (["https://a.blob.core.chinacloudapi.cn/dumps/b.rdb"], "and another URL (Azure) says otherwise"),
    ],
)
def test_what_contradicts_itself_is_told(arguments: list[str], words: str, tmp_path: Path) -> None:
    done = command_line.run(
        "import", "https://a.blob.core.windows.net/dumps/a.rdb", *arguments, "--target", "azure-premium", "--resource-id", ID,
        "--yes", "shop-cache", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert words in " ".join(done.stderr.decode().split())


def test_a_workload_identity_is_found_by_its_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("azure.identity")
    from rdbkit.clouds import find_cloud
    from rdbkit.storage.identity import default_credential

    def kinds() -> list[str]:
        with default_credential(find_cloud("public")) as credential:
            return [type(each).__name__ for each in credential.credentials]

    for name in ("AZURE_TOKEN_CREDENTIALS", "AZURE_CLIENT_ID", "AZURE_TENANT_ID", "AZURE_FEDERATED_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert "WorkloadIdentityCredential" not in kinds()
    (tmp_path / "token").write_text("of the cluster")
    monkeypatch.setenv("AZURE_CLIENT_ID", "client")
    monkeypatch.setenv("AZURE_TENANT_ID", "tenant")
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AZURE_AUTHORITY_HOST", "https://login.microsoftonline.com/")
    assert "WorkloadIdentityCredential" in kinds()

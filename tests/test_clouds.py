"""The clouds of Azure: what is known of each, and by which hosts it is told."""

from __future__ import annotations

import datetime
import tomllib
from pathlib import Path

import pytest

import rdbkit.clouds as module
from rdbkit.clouds import cloud_of_host, clouds, find_cloud


def test_every_fact_has_a_source_and_each_source_a_date() -> None:
    data = tomllib.loads(Path(module.__file__).with_suffix(".toml").read_text())
    assert all(isinstance(each["date"], datetime.date) and each["title"] for each in data["sources"].values())
    facts = [fact for cloud in data["clouds"].values() for key, fact in cloud.items() if key != "title"]
    assert {fact["source"] for fact in facts} == set(data["sources"])


def test_what_the_packages_of_azure_say_is_what_is_known_here() -> None:
    core = pytest.importorskip("azure.core")
    from azure.core import AzureClouds
    from azure.identity import AzureAuthorityHosts
    from azure.mgmt.core.tools import get_arm_endpoints

    assert core
    hosts = (AzureAuthorityHosts.AZURE_PUBLIC_CLOUD, AzureAuthorityHosts.AZURE_GOVERNMENT, AzureAuthorityHosts.AZURE_CHINA)
    settings = (AzureClouds.AZURE_PUBLIC_CLOUD, AzureClouds.AZURE_US_GOVERNMENT, AzureClouds.AZURE_CHINA_CLOUD)
    for cloud, host, setting in zip(clouds(), hosts, settings, strict=True):
        endpoints = get_arm_endpoints(setting)
        assert cloud.resource_manager == endpoints["resource_manager"].rstrip("/")
        assert [cloud.resource_manager_scope] == endpoints["credential_scopes"]
        assert cloud.authority == f"https://{host}"


@pytest.mark.parametrize(
    ("host", "word"),
    [
        ("shop.blob.core.windows.net", "public"),
        ("shop.redis.cache.windows.net", "public"),
        ("shop.westeurope.redis.azure.net", "public"),
        ("shop.westeurope.redisenterprise.cache.azure.net", "public"),
        ("SHOP.blob.core.usgovcloudapi.net.", "usgovernment"),
        ("shop.redis.cache.usgovcloudapi.net", "usgovernment"),
        ("shop.usgovvirginia.redis.usgovcloudapi.net", "usgovernment"),
        ("shop.blob.core.chinacloudapi.cn", "china"),
        ("shop.chinanorth3.redis.chinacloudapi.cn", "china"),
        ("localhost", None),
        ("blobs.example.com", None),
        ("xblob.core.windows.net", None),
    ],
)
def test_a_host_says_whose_it_is(host: str, word: str | None) -> None:
    found = cloud_of_host(host)
    assert (found and found.word) == word


def test_names_and_words() -> None:
    for each in clouds():
        assert find_cloud(each.word) is find_cloud(each.name.upper()) is each
    with pytest.raises(ValueError, match=r"'germany' is no cloud that is known here; known: public \(AzureCloud\), usgov"):
        find_cloud("germany")

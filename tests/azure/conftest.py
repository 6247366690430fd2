"""One Azurite for all tests, a cloud in front of it for each, and no waiting for either."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from .. import azurite
from ..arm import Cloud, cloud
from .shell import Shell


@pytest.fixture(scope="session")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The account's URL; it has a container "dumps"."""
    with azurite.running(tmp_path_factory.mktemp("azurite")) as url:
        azurite.service(url).create_container("dumps")
        yield url


@pytest.fixture
def azure(blobs: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    with cloud(tmp_path_factory.mktemp("cloud"), blobs) as found:
        yield found
        assert found.refused == [], "whoever waits asks where the last answer said"


@pytest.fixture
def shell(azure: Cloud, tmp_path: Path) -> Shell:
    return Shell(azure, tmp_path)


@pytest.fixture
def folder(azure: Cloud, request: pytest.FixtureRequest) -> str:
    """A folder of its own in a container that is there."""
    name = "".join(letter if letter.isalnum() else "-" for letter in request.node.name)
    return azure.blob(f"dumps/{name}/")


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long is waited until an operation is asked for again, in seconds; in this process nobody waits."""
    found: list[float] = []
    clock = SimpleNamespace(**vars(time) | {"sleep": found.append})
    monkeypatch.setattr("rdbkit.azure.resources.time", clock)
    monkeypatch.setattr("rdbkit.azure.cache_import.time", clock)
    return found


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses before the packages of Azure try requests again, in seconds; in this process nobody waits."""
    from azure.core.pipeline.transport import HttpTransport

    found: list[float] = []
    monkeypatch.setattr(HttpTransport, "sleep", lambda transport, seconds: found.append(seconds))
    return found

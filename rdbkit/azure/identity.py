"""The identity that is at hand: of the environment, a workload, a machine, or whoever has signed in with a tool of Azure."""

from __future__ import annotations

from typing import Any

from rdbkit.azure.errors import missing_package
from rdbkit.targets.clouds import Cloud


def default_credential(cloud: Cloud) -> Any:
    """The `DefaultAzureCredential` of azure-identity for a cloud.

    Raises: TargetError where its package is missing.
    """
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError as e:
        raise missing_package(e) from None
    return DefaultAzureCredential(authority=cloud.token_authority)

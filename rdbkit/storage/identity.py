"""The identity that is at hand: of the environment, a workload, a machine, or whoever has signed in with a tool of Azure."""

from __future__ import annotations

from typing import Any, Final

from rdbkit.clouds import Cloud
from rdbkit.errors import TargetError
from rdbkit.text import scrub

_INSTALL: Final = "pip install 'rdbkit[azure]'"


def missing_package(e: ImportError) -> TargetError:
    """The error for an installation without the extra."""
    return TargetError(f"this needs the packages of Azure ({e.name} is missing): {_INSTALL}")


def default_credential(cloud: Cloud) -> Any:
    """The `DefaultAzureCredential` of azure-identity for a cloud.

    Raises: TargetError where its package is missing.
    """
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError as e:
        raise missing_package(e) from None
    return DefaultAzureCredential(authority=cloud.token_authority)


def without_identity(e: Exception, cloud: Cloud | None, *, is_storage: bool) -> str:
    """Why there is no identity, in words, where azure-identity has found none; of a storage account, what else opens it."""
    sign_in = "az login" if cloud is None else cloud.sign_in
    # what the directory says of the credentials that are there is worth more than the list of those that are not
    said = next((line.strip() for line in scrub(str(e)).splitlines() if "AADSTS" in line), "")
    others = ", or give a SAS or a connection string" if is_storage else ""
    return f"no identity is found{f' ({said[:300]})' if said else ''}: sign in ({sign_in}){others}"

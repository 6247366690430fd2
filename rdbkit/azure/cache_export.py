"""`rdbkit export-cache`: what a cache has, as blobs in a container, by the service's own export."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rdbkit.azure.arguments import blob_url_of, opened_cache
from rdbkit.azure.cache_import import MANAGED_IDENTITY, SAS, Import, begin, look_at_target, report_each, wait_for
from rdbkit.azure.credentials import Credentials
from rdbkit.azure.errors import translating_errors
from rdbkit.azure.pending_operation import PendingOperation, when
from rdbkit.azure.resources import PREMIUM, Arm, CacheState, Call, ResourceId, Status
from rdbkit.azure.sas import EXPORT_PERMISSIONS, LEAST_HOURS, Signed, Signer, patience
from rdbkit.azure.storage_account import StorageAccount, look_at_accounts
from rdbkit.errors import TargetError
from rdbkit.storage.blob_url import BlobUrl
from rdbkit.targets.target import Target, as_target

__all__ = ["Export", "begin_export", "check_goes_to", "export_cache", "prepare_export", "wait_for_export"]


@dataclass
class Export:
    """All that is known before an export, and the request that begins it.

    Attributes:
        container: its URL, without a signature.
        before: the blobs that are there, with their etags; None where they cannot be listed.
        prefix: what the names of the blobs are to begin with, of Premium alone.
        accounts: the storage account of the container; none where that was not wanted, or it may not be read.
    """

    cache: CacheState
    container: str
    prefix: str
    warnings: list[str]
    call: Call
    before: dict[str, str] | None = field(repr=False, default=None)
    accounts: list[StorageAccount] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, without secrets."""
        return {
            "cache": self.cache.to_dict(),
            "storage_accounts": [account.to_dict() for account in self.accounts],
            "container": self.container,
            "prefix": self.prefix,
            "warnings": self.warnings,
            "calls": [self.call.to_dict()],
        }


def prepare_export(
    arm: Arm,
    target: Target,
    place: BlobUrl,
    *,
    prefix: str = "",
    credentials: Credentials | None = None,
    auth: str = SAS,
    storage_subscription: str = "",
    hours: float = LEAST_HOURS,
    storage_check: bool = True,
) -> Export:
    """Ask everything that can be asked before an export; nothing is changed.

    Args:
        arm: the cache.
        target: the service, of `rdbkit.find_target`.
        place: the container, of `rdbkit.parse_place`.
        prefix: of the blobs' names; by default the cache's name. Of Premium alone.
        credentials, auth, storage_subscription, hours, storage_check: as of `rdbkit.azure.cache_import.prepare_import`.

    Raises: TargetError where something stands against the export, or a service cannot be asked; ValueError for options that do
        not fit.
    """
    if place.blob:
        raise ValueError("the URL has to end with the name of a container; how the names of the blobs begin is said by the prefix")
    if not target.is_service:
        raise ValueError(f"{target.name} is no service of Azure: azure-premium, azure-managed and azure-enterprise are")
    if arm.cache.provider != PREMIUM and (auth == MANAGED_IDENTITY or prefix):
        raise ValueError("only Premium has a choice of names and a managed identity for an export")
    cache = arm.read()
    target, warnings = look_at_target(target, cache, imports=False)
    if auth == MANAGED_IDENTITY and not cache.identities:
        raise TargetError(
            "the cache has no managed identity: give it one with the role Storage Blob Data Contributor, or use a SAS",
            source=cache.name,
        )
    prefix = prefix or (cache.name if cache.provider == PREMIUM else "")
    signer = Signer(credentials or Credentials(), hours)
    accounts: list[StorageAccount] = []
    if storage_check:
        accounts, found = look_at_accounts(
            arm, cache, target, [place], signer, verb="export", by_identity=auth == MANAGED_IDENTITY,
            storage_subscription=storage_subscription,
        )  # fmt: skip
        warnings += found
    signed = None
    if auth == SAS:
        # of a SAS that is given, no more is asked than that it can write
        given = signer.given(place)
        signed = signer.sign(place, "w" if given else EXPORT_PERMISSIONS[cache.provider])
    before = _listed(place, signed, signer)
    if before is None:
        warnings.append("the container cannot be listed with this SAS, so what the export leaves cannot be told")
    call = arm.export_call(
        signed.secret_url if signed is not None else place.url, prefix, auth=auth, storage_subscription=storage_subscription
    )
    return Export(cache, place.url, prefix, warnings, call, before, accounts)


def begin_export(arm: Arm, prepared: Export, path: str) -> PendingOperation:
    """Begin an export; the cache stays as it is, and can be used.

    Args:
        prepared: of `prepare_export`.
        path: of the file that another process needs to go on.

    Raises: TargetError; OSError.
    """
    noted = [{"url": name, "etag": etag, "bytes": 0} for name, etag in (prepared.before or {}).items()]
    return begin(
        arm, prepared.call, PendingOperation(path, "export", str(arm.cache), noted, begun=time.time(), place=prepared.container)
    )  # fmt: skip


def wait_for_export(
    arm: Arm,
    pending: PendingOperation,
    place: BlobUrl,
    *,
    credentials: Credentials | None = None,
    resumed: bool = False,
    progress: Callable[[Status, float], object] | None = None,
) -> Import:
    """Wait for an export, and tell what blobs are new then.

    Args:
        place: the container, with its SAS where there is one.
        credentials, resumed, progress: as of `rdbkit.azure.cache_import.wait_for`.

    Raises: TargetError.
    """
    before = {blob["url"]: blob["etag"] for blob in pending.blobs}
    report = wait_for(arm, pending, resumed=resumed, progress=progress)
    signer = Signer(credentials or Credentials())
    given = signer.given(place)
    found = _blobs(place, Signed(place, given) if given else None, signer) or []
    report.blobs = [blob for blob in found if before.get(blob["url"]) != blob["etag"]]
    report.bytes = sum(blob["bytes"] for blob in report.blobs)
    return report


def _listed(place: BlobUrl, signed: Signed | None, signer: Signer) -> dict[str, str] | None:
    """The blobs of a container with their etags; None where they cannot be listed.

    Raises: TargetError where there is no such container, or it cannot be reached.
    """
    found = _blobs(place, signed, signer)
    return None if found is None else {blob["url"]: blob["etag"] for blob in found}


def _blobs(place: BlobUrl, signed: Signed | None, signer: Signer) -> list[dict[str, Any]] | None:
    settings = patience()
    from azure.core.exceptions import HttpResponseError
    from azure.storage.blob import ContainerClient

    if signed is None:
        client = signer.credentials.service(place, **settings).get_container_client(place.container)
    else:
        client = ContainerClient.from_container_url(signed.secret_url, **settings)
    with client, translating_errors(place.url):
        try:
            return [
                {"url": place.file(blob.name).url, "etag": str(blob.etag), "bytes": int(blob.size)} for blob in client.list_blobs()
            ]
        except HttpResponseError as e:
            code = getattr(getattr(e, "error_code", None), "value", getattr(e, "error_code", ""))
            if signed is not None and code == "AuthorizationPermissionMismatch":
                return None
            raise


# -- all of it


def export_cache(
    cache: str | ResourceId | Arm,
    container: str | BlobUrl,
    *,
    target: str | Target,
    prefix: str = "",
    state: str | os.PathLike[str] | None = None,
    credentials: Credentials | None = None,
    auth: str = SAS,
    storage_subscription: str = "",
    hours: float = LEAST_HOURS,
    storage_check: bool = True,
    warning_callback: Callable[[str], object] | None = None,
    progress: Callable[[Status, float], object] | None = None,
) -> Import:
    """Export what a cache in Azure has into a container, and wait until that has ended. The cache stays as it is.

    A process that is ended while it waits does not end the export; the same call then goes on waiting for it.

    Args:
        cache: its resource id, `/subscriptions/.../NAME`; or an `Arm`, for other credentials.
        container: `https://ACCOUNT.blob.core.windows.net/CONTAINER`, with a SAS or without; or a `BlobUrl`.
        target: what the cache is: "azure-premium", "azure-managed" or "azure-enterprise"; or a `Target`.
        prefix: of the blobs' names; by default the cache's name. Of Premium alone.
        state: the file where it is noted what there is to wait for; by default `rdbkit-export-NAME.json`, as the command has it.
        credentials, auth, storage_subscription, hours, storage_check, warning_callback, progress: as of `rdbkit.import_`.

    Returns: what the export has left, as `blobs`; `resumed` where an earlier run had begun it.

    Raises: TargetError where something stands against the export, or a service refuses or fails; ValueError for arguments that do
        not fit; TypeError for what is no cache, container or target; OSError.

    Example:
        cache = "/subscriptions/.../resourceGroups/shop/providers/Microsoft.Cache/redis/shop-cache"
        done = rdbkit.export_cache(cache, "https://shop.blob.core.windows.net/dumps", target="azure-premium")
        for blob in done.blobs:
            print(blob["url"], blob["bytes"])
    """
    target = as_target(target)
    place = blob_url_of(container)
    with opened_cache(cache, [place]) as arm:
        path = os.fspath(state or f"rdbkit-export-{arm.cache.name}.json")
        left = PendingOperation.read_of(path, "export", arm.cache)
        if left is not None and left.operation:
            check_goes_to(left, place)
            return wait_for_export(arm, left, place, credentials=credentials, resumed=True, progress=progress)
        plan = prepare_export(
            arm, target, place, prefix=prefix, credentials=credentials, auth=auth, storage_subscription=storage_subscription,
            hours=hours, storage_check=storage_check,
        )  # fmt: skip
        report_each([*plan.warnings, *([left.doubt] if left is not None else [])], warning_callback)
        return wait_for_export(arm, begin_export(arm, plan, path), place, credentials=credentials, progress=progress)


def check_goes_to(left: PendingOperation, place: BlobUrl) -> None:
    """Raise ValueError where an export that was begun is to another container."""
    if left.place != place.url:
        raise ValueError(
            f"an export to {left.place} was begun on {when(left.begun)}: run that command again to wait for it, or delete "
            f"{left.path}"
        )

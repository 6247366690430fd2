"""`rdbkit import`: blobs into a cache, by the service's own import.

Everything that can be asked is asked before: what the cache is, whether the blobs are there and can be read with the signatures
that the service gets, and whether what is in them is something that this cache loads. The import is one request then. It is noted
in a file before it is sent, and with the operation's URL behind it, so that a process that was ended anywhere is followed by one
that knows what there is to wait for. The service renews that URL with each answer, and so does the file. No secret is in it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import rdbkit
from rdbkit.azure.arguments import blob_urls_of, opened_cache
from rdbkit.azure.credentials import Credentials
from rdbkit.azure.errors import meaning_of_failure, translating_errors
from rdbkit.azure.pending_operation import PendingOperation, when
from rdbkit.azure.resources import PREMIUM, Arm, CacheState, Call, ResourceId, Status
from rdbkit.azure.sas import LEAST_HOURS, Signed, Signer, patience
from rdbkit.azure.storage_account import StorageAccount, look_at_accounts
from rdbkit.errors import CorruptError, TargetError, UnsupportedVersionError
from rdbkit.model import aux_number
from rdbkit.operations.check import (
    AS_IT_IS,
    CANNOT,
    WARNING,
    Check,
    beyond_documents,
    check,
    check_shards,
    expired_in,
    that_expired,
)
from rdbkit.operations.duplicates import duplicate_error, find_duplicates, find_shared_libraries, library_error
from rdbkit.operations.shards import are_disjoint
from rdbkit.snapshot.other_formats import HEAD_BYTES, describe
from rdbkit.storage.blob_url import BlobUrl
from rdbkit.storage.compression import compression_of
from rdbkit.storage.location import Identity
from rdbkit.storage.remote import remember
from rdbkit.storage.source import Rereading
from rdbkit.targets.target import Target, as_target
from rdbkit.text import shell_word, size

__all__ = [
    "MANAGED_IDENTITY", "SAS", "Blob", "Import", "ImportPlan", "begin", "begin_import", "begin_noted_import",
    "import_", "look_at_target", "others_than", "prepare_import", "replaced", "replacement_error", "report_each", "wait_for",
    "when",
]  # fmt: skip

#: How the service gets at the blobs, in the words of its interface.
SAS: Final = "SAS"
MANAGED_IDENTITY: Final = "ManagedIdentity"
_GB: Final = 1 << 30
#: What data takes in memory, where the file does not say it, for each byte of the file. Source: 1.8 was measured once
#: (facts of Azure, a lab's report of 2026); `rdbkit memory` says it exactly.
_IN_MEMORY: Final = 2
#: Of a request that took too long; somebody on the way can answer so, when it has been passed on.
_TIMEOUT: Final = 408
_CANCELED: Final = ("canceled", "cancelled")
_MAGIC: Final = (b"REDIS", b"VALKEY")
#: The folder beside a blob where what it is converted to goes.
_CONVERTED: Final = "converted"


@dataclass(frozen=True)
class Blob:
    """A blob that is to be imported, as it was when it was looked at.

    Attributes:
        url: without a signature.
        kind: "BlockBlob" or "PageBlob".
        compression: what it is compressed with, None for nothing.
        signed: with its signature; None where the cache reads it with its own identity.
    """

    url: str
    bytes: int
    etag: str
    kind: str
    modified: str
    compression: str | None = None
    signed: Signed | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, without secrets."""
        found = {name: getattr(self, name) for name in ("url", "bytes", "etag", "kind", "modified")}
        found["gzip"] = self.compression == "gzip"
        signed = self.signed
        found["access"] = signed.kind if signed is not None else MANAGED_IDENTITY
        found["expires"] = signed.expires.isoformat() if signed is not None and signed.expires is not None else None
        return found


@dataclass
class ImportPlan:
    """All that is known before an import, and the request that begins it.

    Attributes:
        target: as the cache proved to be.
        checks: of `rdbkit.check`, one for each blob; none where that was not wanted.
        warnings: what should be known, and stops nothing.
        call: as it would be sent now; signatures are made again when it is.
        accounts: the storage accounts of the blobs; none where that was not wanted, or they may not be read.
    """

    cache: CacheState
    target: Target
    blobs: list[Blob]
    checks: list[Check]
    warnings: list[str]
    call: Call
    places: list[BlobUrl] = field(repr=False)
    signer: Signer = field(repr=False)
    auth: str = SAS
    storage_subscription: str = ""
    accounts: list[StorageAccount] = field(default_factory=list)

    @property
    def importable(self) -> bool:
        """Whether every blob that was checked is imported as it is."""
        return all(report.verdict == AS_IT_IS for report in self.checks)

    @property
    def command(self) -> str:
        """What to run instead, in a POSIX shell, where blobs go in after a conversion; otherwise empty.

        It names the blobs without their signatures: what opens them comes from the environment.
        """
        if self.importable or any(report.verdict == CANNOT for report in self.checks):
            return ""
        place = self.places[0]
        folder = replace(place, blob=f"{place.blob[: place.blob.rfind('/') + 1]}{_CONVERTED}/")
        words = ["rdbkit", "migrate", *(shell_word(each.url) for each in self.places), "--target", shell_word(self.target.name)]
        words += ["--resource-id", shell_word(self.cache.id), "--container", shell_word(folder.url)]
        if self.auth == MANAGED_IDENTITY:
            words += ["--auth", "managed-identity"]
        if self.storage_subscription:
            words += ["--storage-subscription", shell_word(self.storage_subscription)]
        options = [option for report in self.checks for option in report.options]
        # of a cache it is known which modules it has, and a migration looks into every value
        wanted = [each for each in dict.fromkeys(options) if not each.startswith("--modules ") and each != "--deep"]
        return " ".join([*words, *wanted])

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, without secrets."""
        return {
            "target": self.target.name,
            "cache": self.cache.to_dict(),
            "storage_accounts": [account.to_dict() for account in self.accounts],
            "blobs": [blob.to_dict() for blob in self.blobs],
            "checks": [report.to_dict() for report in self.checks],
            "importable": self.importable,
            "command": self.command,
            "warnings": self.warnings,
            "calls": [self.call.to_dict()],
        }


@dataclass
class Import:
    """What came of an import or an export.

    Attributes:
        seconds: from its begin, as far as it is known, to its end.
        resumed: an earlier run had begun it.
        blobs: what was imported, or what an export has left.
    """

    verb: str
    cache: str
    resource_id: str
    blobs: list[dict[str, Any]]
    bytes: int
    seconds: float
    resumed: bool

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


# -- before


def look_at_target(target: Target, cache: CacheState, *, imports: bool = True) -> tuple[Target, list[str]]:
    """The target as this cache is one, and warnings.

    Args:
        imports: an import follows, for which it matters what the documents say of the engine.

    Raises: TargetError where the cache is none of that kind, has no import or cannot begin one now.
    """
    kind = _kind(cache)
    if target.name.startswith("azure-") and target.name != kind:
        raise TargetError(
            f"the cache is {cache.sku}, which is {kind}, not {target.name}: name {kind} as the target", source=cache.name
        )
    if cache.provider == PREMIUM and cache.tier != "Premium":
        raise TargetError(
            f"the cache is of the tier {cache.tier}, which neither imports nor exports; Premium and Azure Managed Redis do",
            source=cache.name,
        )
    if not cache.is_ready:
        helps = "run this again when it is done"
        if cache.state.endswith("Failed"):  # which passes by nothing that this waits for
            helps = (
                "a change of it has failed: look at its activity log in the portal, and repeat the change, or ask Azure's support"
            )
        raise TargetError(f"the cache is not running but {cache.state}; {helps}", source=cache.name)
    target, warnings = _with_engine(target, cache)
    told = beyond_documents(target)
    if imports and told:
        warnings.append(told)
    if target.is_service:
        target = target.with_modules(cache.modules)
    return target, warnings


def _with_engine(target: Target, cache: CacheState) -> tuple[Target, list[str]]:
    """The target with the engine that runs there: what somebody has stated, or else what the cache says; and warnings."""
    said = f"the cache says Redis {cache.redis_version or '(nothing)'}"
    warnings = []
    try:
        there = target.with_engine(cache.redis_version)
    except ValueError:
        if not target.engine_is_stated:
            known = f"Redis {target.engine}" if target.engine else target.title
            warnings.append(f"{said}, which is not known here; {known} is assumed, and --redis-version says what it is")
    else:
        if not target.engine_is_stated:
            target = there
        elif there.engine != target.engine:
            warnings.append(f"{said}; Redis {target.engine} is what was stated, and what counts here")
    return target, warnings


def _kind(cache: CacheState) -> str:
    if cache.provider == PREMIUM:
        return "azure-premium"
    return "azure-enterprise" if cache.tier.startswith("Enterprise") else "azure-managed"


def prepare_import(
    arm: Arm,
    target: Target,
    places: Sequence[BlobUrl],
    *,
    credentials: Credentials | None = None,
    auth: str = SAS,
    storage_subscription: str = "",
    hours: float = LEAST_HOURS,
    etags: Sequence[str] = (),
    examine: bool = True,
    compare: bool = True,
    samples: int = 3,
    allow_base: bool = False,
    storage_check: bool = True,
    progress: Callable[[str, int], object] | None = None,
) -> ImportPlan:
    """Ask everything that can be asked before an import; nothing is changed.

    Args:
        arm: the cache.
        target: the service, of `rdbkit.find_target`.
        places: of the blobs, of `rdbkit.parse_place`.
        credentials: of the storage account; by default what the environment and the machine have.
        auth: `SAS`, or `MANAGED_IDENTITY` for the cache's own identity, of Premium alone.
        storage_subscription: where the storage account is, if not where the cache is.
        hours: that a signature lasts, at least 4.
        etags: of the blobs as they were uploaded, in their order.
        examine: read every blob and `rdbkit.check` it.
        compare: look, where they are examined, for keys that several blobs have.
        samples: keys to name for each finding.
        allow_base: also blobs that are the base of an append-only folder, whose newer data is in other files.
        storage_check: look at the settings of the storage account: whether its firewall lets the cache in, and the like.
        progress: called with a blob's URL and the bytes of it read so far.

    Raises: TargetError where something stands against the import, or a service cannot be asked; DuplicateError where several
        blobs have a key, or different function libraries of one name; RdbError where a blob is no snapshot, or of a version that
        nobody knows; ValueError for options that do not fit.
    """
    _check_arguments(target, places, etags)
    cache = arm.read()
    target, warnings = look_at_target(target, cache)
    refuse(cache, auth)
    signer = Signer(credentials or Credentials(), hours)
    accounts: list[StorageAccount] = []
    if storage_check:
        accounts, found = look_at_accounts(
            arm, cache, target, places, signer, verb="import", by_identity=auth == MANAGED_IDENTITY,
            storage_subscription=storage_subscription,
        )  # fmt: skip
        warnings += found
    blobs = _look(places, signer, auth, [*etags] or [""] * len(places))
    for blob in blobs:
        if blob.compression is not None and not target.takes_compressed(blob.compression):
            raise TargetError(
                f"the blob is compressed with {blob.compression}, of which nobody says that {target.title} takes it; "
                "rdbkit migrate reads it, and sends it uncompressed",
                source=blob.url,
            )
    checks, used, rereading = [], [], Rereading()
    for blob, place in zip(blobs, places, strict=True):
        if examine:
            report, memory = _examine(blob, place, signer, target, cache, samples, allow_base, rereading, progress)
            checks.append(report)
            used.append(memory)
        else:
            used.append(blob.bytes * _IN_MEMORY)
    if checks and not any(report.keys for report in checks):
        warnings.append("there is no key in any blob: the import empties the cache")
    warnings += that_expired(sum(map(expired_in, checks)), sum(report.keys for report in checks))
    warnings += [found.title for found in check_shards(checks) if found.severity == WARNING]
    if compare and len(checks) > 1 and all(report.verdict == AS_IT_IS for report in checks):
        warnings += _compare([blob.url for blob in blobs], checks, samples, rereading)
    warnings += _room(target, cache, sum(used))
    call = _call(arm, blobs, auth, storage_subscription)
    return ImportPlan(cache, target, blobs, checks, warnings, call, list(places), signer, auth, storage_subscription, accounts)


def _check_arguments(target: Target, places: Sequence[BlobUrl], etags: Sequence[str]) -> None:
    """Raise ValueError for what nobody has to be asked about."""
    if not places:
        raise ValueError("there is no blob to import")
    if etags and len(etags) != len(places):
        raise ValueError("there are as many etags as blobs, or none")
    if not target.is_service:
        raise ValueError(f"{target.name} is no service of Azure: azure-premium, azure-managed and azure-enterprise are")
    if len({place.url for place in places}) < len(places):
        raise ValueError("a blob is named twice")
    if any(place.is_folder for place in places):
        raise ValueError("a URL names a container or folder, where a blob is wanted")


def refuse(cache: CacheState, auth: str) -> None:
    """Raise for what the service itself may not refuse before it deletes."""
    if auth == MANAGED_IDENTITY and cache.provider != PREMIUM:
        raise ValueError("only Premium reads blobs with a managed identity; the others take a SAS")
    if cache.geo_replication:
        raise TargetError(
            f"the cache is geo-replicated with {', '.join(cache.geo_replication)}, and no source says what an import does then; "
            "take it out of the group first",
            source=cache.name,
        )
    if auth == MANAGED_IDENTITY and not cache.identities:
        raise TargetError(
            "the cache has no managed identity: give it one with the role Storage Blob Data Contributor, or use a SAS",
            source=cache.name,
        )


def _client(place: BlobUrl, signed: Signed | None, signer: Signer) -> Any:
    """A client of one blob, which reads it as the service will; with our own credentials where that uses its identity."""
    if signed is None:
        return signer.credentials.service(place, **patience()).get_blob_client(place.container, place.blob)
    settings = patience()
    from azure.storage.blob import BlobClient

    return BlobClient.from_blob_url(signed.secret_url, **settings)


def _look(places: Sequence[BlobUrl], signer: Signer, auth: str, etags: Sequence[str]) -> list[Blob]:
    """The blobs, each asked for with the signature that the service gets.

    Args:
        etags: that they are to have; empty for any.

    Raises: TargetError; CorruptError where one is no snapshot.
    """
    found = []
    for place, etag in zip(places, etags, strict=True):
        signed = signer.sign(place) if auth == SAS else None
        with _client(place, signed, signer) as client, translating_errors(place.url):
            seen = client.get_blob_properties()
            now = str(seen.etag)
            if etag and not _is_same(etag, now):
                raise TargetError(
                    "the blob is not the one that it was: somebody has written it since; check it again",
                    source=place.url,
                )
            kind = str(getattr(seen.blob_type, "value", seen.blob_type))
            if kind == "AppendBlob":
                raise TargetError("it is an append blob, and block and page blobs are imported (rdbkit upload)", source=place.url)
            if str(seen.blob_tier).lower() == "archive":
                raise TargetError(
                    "the blob is in the archive tier, where nobody can read it; set its tier to Hot first", source=place.url
                )
            head = bytes(client.download_blob(0, HEAD_BYTES).readall()) if seen.size else b""
        form = compression_of(head)
        if form is None and not head.startswith(_MAGIC):
            what = describe(head)
            raise CorruptError(what or "the blob is no RDB file; give the URL of one that is", source=place.url)
        modified = seen.last_modified.isoformat() if seen.last_modified is not None else ""
        found.append(Blob(place.url, seen.size, now, kind, modified, form and form.name, signed))
    return found


def _is_same(etag: str, other: str) -> bool:
    return etag.strip('"') == other.strip('"')


def _examine(
    blob: Blob,
    place: BlobUrl,
    signer: Signer,
    target: Target,
    cache: CacheState,
    samples: int,
    allow_base: bool,
    rereading: Rereading,
    progress: Callable[[str, int], object] | None,
) -> tuple[Check, int]:
    """The check of one blob, and the bytes of memory that its data took."""

    def update(done: int) -> None:
        if progress is not None:
            progress(blob.url, done)

    # as the service will read it; with our own credentials where that uses its identity
    name = remember(replace(place, sas=blob.signed.query), Credentials()) if blob.signed else remember(place, signer.credentials)
    rereading.remember(name, Identity(name, blob.bytes, blob.etag))
    try:
        snapshot = rdbkit.open(name, rereading=rereading)
    except UnsupportedVersionError as e:
        e.message = f"{e.message.partition(',')[0]}: no service loads it"  # whatever options of other verbs help
        raise
    with snapshot:
        report = check(
            snapshot, target, clustered=cache.shards > 0, databases=cache.databases, deep=True, samples=samples,
            allow_base=allow_base, progress=update,
        )  # fmt: skip
        used = aux_number(snapshot.aux.get("used-mem"))
    return report, blob.bytes * _IN_MEMORY if used is None else used


def _compare(names: list[str], checks: Sequence[Check], samples: int, rereading: Rereading) -> list[str]:
    """Warnings of function libraries that several blobs have.

    Raises: DuplicateError where these differ, or several blobs have a key: which one a cache keeps is documented nowhere.
    """
    shared = find_shared_libraries(names, rereading=rereading)
    for library in shared:
        if not library.is_same:
            raise library_error(library)
    if not are_disjoint(report.occupied for report in checks):
        found = find_duplicates(names, samples=max(samples, 1), rereading=rereading)
        if found.keys:
            raise duplicate_error(found.keys, found.samples)
    return [library.summary for library in shared]


def _room(target: Target, cache: CacheState, used: int) -> list[str]:
    """A warning where the data may be more than the size has room for."""
    try:
        sku = target.sku(cache.sku.rpartition("_")[2])
    except ValueError:
        return [f"how much memory {cache.sku} has is not known here"]
    usable = int(sku.usable_gb * _GB) * max(1, cache.shards)
    if used <= usable:
        return []
    return [
        f"the data may take {size(used)}, and {size(usable)} are usable in {cache.sku}; what an import does then is documented "
        "nowhere (rdbkit plan)"
    ]


def _call(arm: Arm, blobs: Sequence[Blob], auth: str, storage_subscription: str) -> Call:
    urls = [blob.signed.secret_url if blob.signed is not None else blob.url for blob in blobs]
    return arm.import_call(urls, auth=auth, storage_subscription=storage_subscription)


# -- the import


def begin_import(arm: Arm, prepared: ImportPlan, path: str) -> PendingOperation:
    """Begin the import: from here on the cache loses what it has.

    Cache and blobs are looked at once more, since a check and a question take their time, and signatures are made again.

    Args:
        prepared: of `prepare_import`, which `importable` says that nothing stands against.
        path: of the file that another process needs to go on.

    Raises: TargetError; where the service has refused, nothing is deleted and no file is left. OSError.
    """
    return begin_noted_import(arm, prepared, PendingOperation(path, "import", str(arm.cache), []))


def begin_noted_import(arm: Arm, prepared: ImportPlan, pending: PendingOperation) -> PendingOperation:
    """The same, noted as `pending` is; of which blobs, and when, is told here. Raises: as `begin_import`."""
    cache = arm.read()
    look_at_target(prepared.target, cache)
    refuse(cache, prepared.auth)
    blobs = _look(prepared.places, prepared.signer, prepared.auth, [blob.etag for blob in prepared.blobs])
    call = _call(arm, blobs, prepared.auth, prepared.storage_subscription)
    pending.blobs = [{"url": blob.url, "etag": blob.etag, "bytes": blob.bytes} for blob in blobs]
    pending.begun = time.time()
    return begin(arm, call, pending)


def begin(arm: Arm, call: Call, pending: PendingOperation) -> PendingOperation:
    """Send a request that begins something, with `pending` on disk before and after.

    Raises: TargetError; OSError where it cannot be noted, and then nothing has been sent.
    """
    from azure.core.exceptions import HttpResponseError

    pending.check_alone()
    pending.save()
    is_refusal = False
    try:
        with translating_errors(arm.cache.name, arm.cloud):
            try:
                operation = arm.begin(call)
            except HttpResponseError as e:
                is_refusal = e.status_code is not None and 300 <= e.status_code < 500 and e.status_code != _TIMEOUT
                raise
    except TargetError as e:
        if is_refusal:
            pending.forget()
        e.message += "; nothing has begun" if is_refusal else f"; whether the {pending.verb} has begun is not known"
        raise
    if operation is None:
        raise TargetError(
            f"the service has taken the request, and does not say where to ask for the {pending.verb}: look at the cache",
            source=arm.cache.name,
        )
    pending.operation = operation
    if operation:
        _save_begun(pending, arm.cache.name)
    else:  # there is nothing to wait for
        pending.forget()
    return pending


def _save_begun(pending: PendingOperation, cache: str) -> None:
    """Raise TargetError where it cannot be noted, for it goes on all the same."""
    try:
        pending.save()
    except OSError as e:
        raise TargetError(
            f"the {pending.verb} has begun, and where to ask for it cannot be noted in {e.filename or pending.path} "
            f"({e.strerror}): look at the cache",
            source=cache,
        ) from None


def wait_for(
    arm: Arm, pending: PendingOperation, *, resumed: bool = False, progress: Callable[[Status, float], object] | None = None
) -> Import:
    """Wait until an operation has ended.

    Args:
        resumed: it was begun by an earlier run.
        progress: called with the status and the seconds since it was begun, each time that it was asked for.

    Raises: TargetError where it failed, in words, and then nothing is left to wait for; and where it cannot be asked, and then the
        next run goes on waiting.
    """
    for status in _statuses(arm, pending):
        if progress is not None:
            progress(status, time.time() - pending.begun)
        if status.has_ended and not status.has_succeeded:
            pending.forget()
            raise TargetError(_failed(pending.verb, status), source=arm.cache.name)
    pending.forget()
    return Import(
        pending.verb, arm.cache.name, pending.resource_id, pending.blobs, sum(blob["bytes"] for blob in pending.blobs),
        time.time() - pending.begun, resumed,
    )  # fmt: skip


def replaced(
    pending: PendingOperation, places: Sequence[BlobUrl], *, etags: Sequence[str] = (), credentials: Credentials | None = None
) -> list[str]:
    """The URLs of blobs that are asked for, and are others than those of an import that was begun: they were written since.

    Args:
        pending: of the import.
        places: of the same blobs, in their order.
        etags: as of `prepare_import`; without them, the blobs are asked for theirs.
        credentials: of the storage account.

    Raises: TargetError where they cannot be asked; ValueError for options that do not fit.
    """
    if etags and len(etags) != len(places):
        raise ValueError("there are as many etags as blobs, or none")
    found = []
    for i, (place, blob) in enumerate(zip(places, pending.blobs, strict=True)):
        if etags:
            now = etags[i]
        else:
            service = (credentials or Credentials()).service(place, **patience())
            with service, translating_errors(place.url):
                now = str(service.get_blob_client(place.container, place.blob).get_blob_properties().etag)
        if blob["etag"] and not _is_same(now, blob["etag"]):
            found.append(place.url)
    return found


def replacement_error(urls: Sequence[str]) -> TargetError:
    """What to raise for blobs, at least one, that are others than those of the import that was waited for."""
    more = f" (and {len(urls) - 1} more)" if len(urls) > 1 else ""
    return TargetError(
        f"the blob as it is asked for now was not imported{more}: what was, is what it was when that import was begun; run "
        "this again",
        source=urls[0],
    )


def _statuses(arm: Arm, pending: PendingOperation) -> Iterator[Status]:
    while pending.operation:
        if not arm.is_ours(pending.operation):
            raise TargetError(
                f"the operation is not one of {arm.endpoint}, and the token is for nobody else: name the endpoint by which the "
                f"{pending.verb} was begun, or delete {pending.path} if it has ended",
                source=arm.cache.name,
            )
        try:
            status = arm.status(pending.operation)
        except TargetError as e:
            e.message += f"; the {pending.verb} may still be going on: the same command waits for it"
            raise
        if status is None:
            pending.forget()
            raise TargetError(
                f"the service no longer knows the {pending.verb} that was begun on {when(pending.begun)}; look at the cache, and "
                f"if it has not come to its end, {pending.verb} again",
                source=arm.cache.name,
            )
        if not status.has_ended and status.url not in ("", pending.operation):
            # before it is used: the service may know no earlier one from then on
            pending.operation = status.url
            _save_begun(pending, arm.cache.name)
        yield status
        if status.has_ended:
            return
        time.sleep(status.wait)


def _failed(verb: str, status: Status) -> str:
    """What is to be known of an operation that has ended otherwise than it should, and what helps."""
    said = " ".join(f"{status.code}: {status.message}".strip(": ").split())[:500]
    is_canceled = status.word.lower() in _CANCELED
    known = None if is_canceled and not said else meaning_of_failure(status.code, status.message)
    text = f"the {verb} was canceled" if is_canceled else f"the {verb} failed"
    if known or said:
        text += f": {f'{known} ({said})' if known and said else known or said}"
    if verb == "import":
        text += (
            "; what the cache holds now is unknown, for an import deletes first: look at the cache, check the file (rdbkit check), "
            "and import again"
        )
    else:
        text += f"; look at the storage account, and {verb} again"
    return f"{text}; Azure's support finds it by RequestID {status.request_id}" if status.request_id else text


# -- all of it


def import_(
    blobs: str | BlobUrl | Iterable[str | BlobUrl],
    cache: str | ResourceId | Arm,
    *,
    target: str | Target,
    state: str | os.PathLike[str] | None = None,
    credentials: Credentials | None = None,
    auth: str = SAS,
    storage_subscription: str = "",
    hours: float = LEAST_HOURS,
    etags: Sequence[str] = (),
    examine: bool = True,
    allow_base: bool = False,
    storage_check: bool = True,
    warning_callback: Callable[[str], object] | None = None,
    check_progress: Callable[[str, int], object] | None = None,
    progress: Callable[[Status, float], object] | None = None,
) -> Import:
    """Import blobs into a cache in Azure, and wait until that has ended. What is in the cache is deleted.

    All that can be asked is asked before, and each blob is read and checked. There is no confirmation: `prepare_import` looks
    alone. A process that is ended while it waits does not end the import; the same call then goes on waiting for it.

    Args:
        blobs: one URL or several, `https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB`, with a SAS or without; or `BlobUrl`.
        cache: its resource id, `/subscriptions/.../NAME`; or an `Arm`, for other credentials.
        target: what the cache is: "azure-premium", "azure-managed" or "azure-enterprise"; or a `Target`.
        state: the file where it is noted what there is to wait for; by default `rdbkit-import-NAME.json`, as the command has it.
        credentials: of the storage account; by default what the environment and the machine have.
        auth: "SAS", or "ManagedIdentity" for the cache's own identity, of Premium alone.
        storage_subscription: where the storage account is, if not where the cache is.
        hours: that a SAS lasts which is made, at least 4.
        etags: of the blobs as they were uploaded, in their order (`Upload.etag`).
        examine: read every blob and `rdbkit.check` it; False where that has been done.
        allow_base: also blobs that are the base of an append-only folder, whose newer data is in other files.
        storage_check: look at the settings of the storage account: whether its firewall lets the cache in, and the like.
        warning_callback: called with each thing that should be known before, when nothing has been changed yet; what it raises
            ends this.
        check_progress: called with a blob's URL and the bytes of it read so far.
        progress: called with the service's status and the seconds since the import was begun, each time that it was asked for.

    Returns: what was imported; `resumed` where an earlier run had begun it.

    Raises: TargetError where something stands against the import, a blob is not imported as it is among it, a service refuses or
        fails, or what an earlier run had begun was of a blob that has been replaced; DuplicateError where several blobs have a key,
        or different function libraries of one name; RdbError where a blob is no snapshot, or of a
        version that nobody knows; ValueError for arguments that do not fit; TypeError for what is no blob, cache or target;
        OSError.

    Example:
        cache = "/subscriptions/.../resourceGroups/shop/providers/Microsoft.Cache/redis/shop-cache"
        done = rdbkit.import_("https://shop.blob.core.windows.net/dumps/a.rdb", cache, target="azure-premium")
        print(done.bytes, done.seconds)
    """
    target = as_target(target)
    places = blob_urls_of(blobs)
    with opened_cache(cache, places) as arm:
        path = os.fspath(state or f"rdbkit-import-{arm.cache.name}.json")
        left = PendingOperation.read_of(path, "import", arm.cache)
        if left is not None and left.operation:
            left.check_is_of(places)
            others, warnings = others_than(left, places, etags, credentials)
            report_each(warnings, warning_callback)
            done = wait_for(arm, left, resumed=True, progress=progress)
            if others:
                raise replacement_error(others)
            return done
        plan = prepare_import(
            arm, target, places, credentials=credentials, auth=auth, storage_subscription=storage_subscription, hours=hours,
            etags=etags, examine=examine, allow_base=allow_base, storage_check=storage_check, progress=check_progress,
        )  # fmt: skip
        report_each([*plan.warnings, *([left.doubt] if left is not None else [])], warning_callback)
        for blob, report in zip(plan.blobs, plan.checks, strict=False):  # there may be no checks
            if report.verdict != AS_IT_IS:
                found = "; ".join(f"{finding.code} {finding.title}" for finding in report.findings if finding.severity != "note")
                raise TargetError(f"{report.summary}: {found}", source=blob.url)
        return wait_for(arm, begin_import(arm, plan, path), progress=progress)


def others_than(
    left: PendingOperation, places: Sequence[BlobUrl], etags: Sequence[str], credentials: Credentials | None
) -> tuple[list[str], list[str]]:
    """URLs of blobs that are others by now than those of an import that was begun, and warnings."""
    try:
        found = replaced(left, places, etags=etags, credentials=credentials)
    except TargetError as e:  # the import is what matters
        return [], [f"whether the blobs are still those that it is of is not known: {e}"]
    return found, [f"{url}: that import is of the blob as it was then, not as it is asked for now" for url in found]


def report_each(warnings: Sequence[str], callback: Callable[[str], object] | None) -> None:
    """Call what may be there with each warning."""
    if callback is not None:
        for warning in warnings:
            callback(warning)

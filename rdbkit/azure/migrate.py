"""`rdbkit migrate`: snapshots on a disk to data in a cache, one step after the other.

Every step leaves in a file what the next one needs, so that the same command continues a run which was ended: a file
that has been rehearsed or sent, and has not changed since, is passed over, blocks that have arrived are not sent again, and an
import that has begun is waited for: what there is to wait for is in it, too. No secret is in that file.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from hashlib import md5
from typing import Any, BinaryIO, Final, cast

from rdbkit.azure.arguments import blob_url_of, opened_cache
from rdbkit.azure.cache_import import (
    SAS,
    Import,
    ImportPlan,
    begin_noted_import,
    look_at_target,
    prepare_import,
    refuse,
    report_each,
    wait_for,
)
from rdbkit.azure.credentials import Credentials
from rdbkit.azure.errors import translating_errors
from rdbkit.azure.file_progress import FileProgress
from rdbkit.azure.pending_operation import PendingOperation, when
from rdbkit.azure.resources import Arm, CacheState, Call, ResourceId, Status
from rdbkit.azure.sas import LEAST_HOURS, Signer, patience
from rdbkit.azure.storage_account import look_at_accounts
from rdbkit.azure.upload import BLOCK_BYTES, CONCURRENCY, properties_of, upload, upload_converted
from rdbkit.errors import LossError, TargetError
from rdbkit.operations.arguments import File, paths_of
from rdbkit.operations.check import AS_IT_IS, CANNOT, LOSSY, WARNING, Check, check, configured, expired_in, of_shards, that_expired
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.operations.convert import Conversion, convert
from rdbkit.operations.converted_keys import scan_converted_keys
from rdbkit.operations.duplicates import Met, duplicate_error, find_duplicates, find_shared_libraries, library_error
from rdbkit.operations.shards import are_disjoint
from rdbkit.operations.split import Division, split
from rdbkit.policy.ledger import Loss
from rdbkit.policy.rules import Edits, Policies
from rdbkit.selection import Selection
from rdbkit.snapshot.reader import open_snapshot
from rdbkit.storage.blob_url import BlobUrl
from rdbkit.storage.compression import without_suffix
from rdbkit.storage.location import absolute_path, check_distinct, exists, revision
from rdbkit.storage.output import Nowhere, open_output
from rdbkit.storage.remote import base_name, is_remote
from rdbkit.storage.source import Rereading, changed
from rdbkit.storage.state import StateFile
from rdbkit.storage.temporary import PRIVATE, Permissions, make_folders
from rdbkit.targets.target import Target, as_target
from rdbkit.text import count, valid_text

__all__ = ["STEPS", "Migration", "migrate"]

#: What a migration does, in this order; each can be left out.
STEPS: Final = ("check", "upload", "import")
_FORMAT: Final = 3
#: Had the time of a file's change as `mtime_ns`, and no import in it, which was in a file of its own.
_FORMER: Final = 2
#: How many keys that several files have are named.
_MOST_DUPLICATES: Final = 20
#: The RDB version from which on files have function libraries.
_FUNCTIONS: Final = 10


class Migration:
    """Files on their way into a cache.

    Args:
        arm: the cache.
        target: the service, of `rdbkit.find_target`.
        files: paths.
        container: a container, or a folder in one, where blobs are to be.
        path: of the file by which another run continues.
        conversion: which keys to send, how to change them, and which losses to allow; by default none. The time,
            where it has none, is that of the first run.
        part_bytes: send each file in parts of so many bytes, which are written beside `path` first; None to send it as one.
        credentials: of the storage account; by default what the environment and the machine have.
        auth, hours, storage_subscription: as of `prepare_import`.
        leaves_state: False for a run that only looks.
        allow_base: also the base of an append-only folder, although newer data stands beside it.
        storage_check: look at the settings of the storage account, as of `prepare_import`.

    Attributes:
        cache: as it was read.
        target: the service as this cache is one: with its modules, and with as many databases as it has.
        warnings: what should be known before the import.
        files: how far each has come.
        checks: of the files that were looked at in this run.
        conversions: by FILE, what became of it in the check.
        refused: why some of them are not sent: each says what would be lost of one.
        result: of the import, when it has ended.

    Raises: ValueError where files or options do not fit; TargetError where the cache does not; OSError.
    """

    def __init__(
        self,
        arm: Arm,
        target: Target,
        files: Sequence[str],
        container: BlobUrl,
        path: str,
        *,
        conversion: ConversionOptions | None = None,
        part_bytes: int | None = None,
        credentials: Credentials | None = None,
        auth: str = SAS,
        hours: float = LEAST_HOURS,
        storage_subscription: str = "",
        leaves_state: bool = True,
        allow_base: bool = False,
        storage_check: bool = True,
    ) -> None:
        check_distinct(files)
        if not container.is_folder:
            container = replace(container, blob=f"{container.blob}/")
        if any(_stem(name) in ("", ".", "..") for name in files):
            raise ValueError("a FILE's name, without .rdb and .gz, is what its blob is called, and must not be empty or dots alone")
        if len({_stem(name) for name in files}) < len(files):
            raise ValueError("several FILEs would become one blob: their names, without .rdb and .gz, have to differ")
        self.arm = arm
        self.container = container
        self.path = os.path.abspath(path)
        self.conversion = conversion or ConversionOptions()
        self._terms = self.conversion.terms
        self.part_bytes = part_bytes
        self.credentials = credentials or Credentials()
        self.auth = auth
        self.hours = hours
        self.storage_subscription = storage_subscription
        self.leaves_state = leaves_state
        self.allow_base = allow_base
        self.storage_check = storage_check
        self.begin = time.time()
        self.result: Import | None = None
        self.checks: list[Check] = []
        self.conversions: dict[str, Conversion] = {}
        self.refused: list[LossError] = []
        self.service = target
        self.cache: CacheState = arm.read()
        # whether it is running is asked in `look`: an import that has begun may be waited for first
        target, self.warnings = look_at_target(target, replace(self.cache, state="Running"))
        if part_bytes is not None:
            target = target.without_own_exports()
        self.target = configured(target, None, self.cache.shards > 0, self.cache.databases)
        self._client: Any = None
        self.rereading = Rereading()
        self.files = [self._progress_of(name) for name in files]
        self._pending: PendingOperation | None = None
        self._has_former = False
        self._state = StateFile(
            self.path, "rdbkit migrate", _FORMAT, [*(file.file for file in self.files), PRIVATE], older=[_FORMER]
        )
        self._remember()

    # -- what is left to another run

    def _progress_of(self, name: str) -> FileProgress:
        size, version = revision(name)
        target = self.target
        cache = f"{target.name} {target.engine} {target.rdb} {sorted(target.modules)} {target.databases} {target.single_db}"
        terms = f"{cache} {self.container.url} {self._terms} {self.conversion.now_ms} {self.part_bytes}"
        now_ms = int(self.begin * 1000) if self.conversion.now_ms is None else self.conversion.now_ms
        return FileProgress(absolute_path(name), size, version, now_ms=now_ms, terms=terms)

    def _conversion_of(self, file: FileProgress) -> ConversionOptions:
        """What is asked of a file's conversion, at the same time in every run."""
        return self.conversion.at(file.now_ms)

    def _mark(self) -> dict[str, Any]:
        """What has to be the same for a run to continue another."""
        return {"cache": str(self.arm.cache).lower()}

    def _remember(self) -> None:
        """Take over what an earlier run has noted: its import, and what has become of files that have not changed."""
        left = self._state.load()
        self._has_state = left is not None
        if left is not None:
            with self._state.reading():
                rows = left.pop("files")
                for row in rows:
                    if "mtime_ns" in row:
                        row["version"] = row.pop("mtime_ns")
                noted = {row["file"]: FileProgress(**row) for row in rows}
                for file in noted.values():
                    file.check_types()
                begun = left.pop("import", None)
                self._pending = None if begun is None else PendingOperation.of(self.path, begun, self._keep)
                if self._pending is not None and self._pending.resource_id.lower() != left.get("cache"):
                    raise ValueError
        if self._pending is None:
            self._pending = self._former_import()
            self._has_former = self._pending is not None
        if left is None:
            return
        if left != self._mark():
            raise ValueError(f"{self.path} is of another cache; name another state file, or delete it")
        for i, file in enumerate(self.files):
            before = noted.get(file.file)
            if before is None:
                continue
            if (before.size, before.version, before.terms) == (file.size, file.version, file.terms):
                self.files[i] = before
            else:
                sent = {blob["url"]: blob["etag"] for blob in before.blobs if "etag" in blob}
                file.earlier = before.earlier | sent

    def _note(self) -> None:
        """Note how far this has come. Raises: TargetError where another run has come in between; OSError."""
        if self.leaves_state:
            self._check_alone()
            self._save()

    def _save(self) -> None:
        begun = None if self._pending is None else self._pending.to_dict()
        self._state.save(self._mark() | {"files": [asdict(file) for file in self.files], "import": begun})
        self._has_state = True

    def _check_alone(self) -> None:
        """Raise TargetError where another run has begun an import since this one looked, or has ended one."""
        if self._pending is not None and self._pending.operation:
            return  # what there is to wait for is known
        left = self._state.load()
        begun = (left or {}).get("import") or {}
        if begun.get("operation") or (left is None and self._has_state):
            done = "begun an import" if left is not None else f"removed {self.path}, as one that has imported does"
            raise TargetError(
                f"another run has {done} since this one looked, and this one begins none: look at the cache, or run this again",
                source=self.cache.name,
            )

    def _keep(self, begun: dict[str, Any] | None) -> None:
        """Note what import there is to wait for."""
        if begun is not None and not begun["operation"]:
            self._check_alone()
        self._pending = None if begun is None else PendingOperation.of(self.path, begun, self._keep)
        if self.leaves_state:
            self._save()

    # -- what can be asked beforehand

    def look(self, *, sends: bool = True, imports: bool = True) -> Call | None:
        """Ask what can be asked before anything is read or sent: whether the container is there, and whether an import could begin.

        Args:
            sends, imports: whether these steps follow.

        Returns: the request that would begin the import, with no blob where the parts are not known yet.
        Raises: TargetError; ValueError for a way in that this service does not have.
        """
        if not self.cache.is_ready:
            self.cache = self.arm.read()  # an import that was waited for has ended
            look_at_target(self.service, self.cache)
        if imports:
            refuse(self.cache, self.auth)
            self._look_at_account()
        for file in self.files:
            if sends:
                self._look_before_sending(file)
            else:
                self._look_for_blobs(file)
        return self._import_call() if imports else None

    def _look_at_account(self) -> None:
        """Warn of what of the storage account is in the way. Raises: TargetError where an import cannot work with it."""
        if self.storage_check:
            _, found = look_at_accounts(
                self.arm, self.cache, self.target, [self.container], Signer(self.credentials, self.hours), verb="import",
                by_identity=self.auth != SAS, storage_subscription=self.storage_subscription,
            )  # fmt: skip
            self.warnings += found

    def _look_before_sending(self, file: FileProgress) -> None:
        """Raise TargetError where there is no container; forget what is no longer there."""
        for place in self._planned(file):
            self._etag(place)
        self._is_there(file)

    def _look_for_blobs(self, file: FileProgress) -> None:
        """Raise TargetError where a file that is not to be sent is not there."""
        if self.part_bytes is not None and not file.is_sent:
            raise TargetError("not all parts of it have been sent: the upload cannot be skipped", source=file.file)
        for place in self._planned(file):
            etag = self._etag(place)
            if etag is None:
                raise TargetError("there is no such blob, and the upload is left out", source=place.url)
            if etag == file.earlier.get(place.url):
                raise TargetError(
                    f"an earlier run has made the blob of {file.file} with other options, or as it was before: the upload cannot "
                    "be skipped",
                    source=place.url,
                )

    def _import_call(self) -> Call:
        """The request that would begin the import; with no blob where the parts are not known yet."""
        if self.part_bytes is not None and not all(file.blobs for file in self.files):
            return self.arm.import_call([], auth=self.auth, storage_subscription=self.storage_subscription)
        places = [place for file in self.files for place in self.places(file)]
        signer = Signer(self.credentials, self.hours)
        urls = [signer.sign(place).secret_url if self.auth == SAS else place.url for place in places]
        return self.arm.import_call(urls, auth=self.auth, storage_subscription=self.storage_subscription)

    def _planned(self, file: FileProgress) -> list[BlobUrl]:
        """Where a file will go; of one that is not divided yet, the first part."""
        if self.part_bytes is not None and not file.blobs:
            return [self.container.file(f"{_stem(file.file)}/0001.rdb")]
        return self.places(file)

    def _etag(self, place: BlobUrl) -> str | None:
        """The etag of a blob, None where it is not there. Raises: TargetError, also where there is no container."""
        with translating_errors(place.url):
            if self._client is None:
                self._client = self.credentials.service(place, **patience())
            found = properties_of(self._client.get_blob_client(place.container, place.blob))
            return None if found is None else str(found.etag)

    # -- the steps

    def rehearse(
        self,
        progress: Callable[[str, int], object] | None = None,
        *,
        anew: bool = False,
        loss_callback: Callable[[str, Loss], object] | None = None,
    ) -> None:
        """Check every file, and convert it without writing anything, so that all losses are known before anything is sent.

        Args:
            anew: also those that an earlier run has rehearsed.
            loss_callback: called with a file and each loss of it as it is found.

        Raises: LossError where a policy does not allow one, of the first of `refused`; DuplicateError where files have the same
            key, or different function libraries of one name; RdbError where a file is damaged; TargetError where the cache cannot
            import what it becomes; ValueError where the options leave all keys out.
        """
        self.refused.clear()
        for file in self.files:
            if anew or not file.verdict:
                self._rehearse(file, progress, loss_callback)
        if self.refused:
            raise self.refused[0]
        self.warnings += self._look_for_keys()
        if self.conversion.keeps_expiries:
            self.warnings += that_expired(sum(file.expired for file in self.files), sum(file.keys for file in self.files))
        self._look_for_shards()
        if len(self.files) > 1:
            self._look_for_libraries()
            self._look_for_duplicates()

    def _rehearse(
        self, file: FileProgress, progress: Callable[[str, int], object] | None, loss_callback: Callable[[str, Loss], object] | None
    ) -> None:
        options = self._conversion_of(file)
        with open_snapshot(
            file.file, relaxed=options.relaxed, verify_checksum=options.verify_checksum, rereading=self.rereading
        ) as snapshot:
            report = check(snapshot, self.target, deep=True, now_ms=file.now_ms, allow_base=self.allow_base or None)
            base = snapshot.aof_base
            file.header = str(snapshot.header)
            plain = snapshot.compression is None and snapshot.framing is None and snapshot.trailer == ("none", 0)
        if base is not None and base.newer and not self.allow_base:
            raise TargetError(f"{base.summary}; allow_base sends it without", source=file.file)
        self.checks.append(report)
        out = _Hashing() if options.edits.script is not None else Nowhere()
        # what is damaged is reported by the conversion
        try:
            done = convert(
                file.file, cast(BinaryIO, out), target=self.target, deep=True, progress=_of(progress, file.file),
                loss_callback=None if loss_callback is None else partial(loss_callback, file.file), **options.arguments(),
            )  # fmt: skip
        except LossError as e:
            if e.report is None:
                raise
            self.refused.append(e)  # what would be lost of the others is to be known, too
            return
        self._look_at(file)
        if report.verdict == CANNOT and not options.passes_over_damage:
            raise TargetError(f"{self.target.title} cannot import it: {_why(report)}", source=file.file)
        file.take(done)
        self.conversions[file.file] = done
        is_whole = report.verdict == AS_IT_IS and plain and options.verify_checksum
        file.identical = is_whole and not options.changes_keys
        file.digest = out.digest if isinstance(out, _Hashing) else ""
        self._is_in_place(file)
        file.verdict = LOSSY if report.verdict == CANNOT else report.verdict
        file.slots = f"{report.occupied:x}" if report.occupied else ""
        file.expired = expired_in(report)
        self._note()

    def _look_for_keys(self) -> list[str]:
        """A warning where the files have no key. Raises: ValueError where they have some, and none of them is sent."""
        keys = sum(file.keys for file in self.files)
        if any(file.written for file in self.files):
            return []
        if keys:
            raise ValueError(
                f"no key would be sent, for the options leave all of them out ({count(keys, 'key')}); the import would empty the "
                "cache"
            )
        return ["there is no key in any file: the import empties the cache"]

    def _look_for_shards(self) -> None:
        """Warn where the files are some shards of a cluster, and others are missing."""
        for finding in of_shards([(file.file, file.occupied) for file in self.files if file.keys]):
            if finding.severity == WARNING and finding.title not in self.warnings:
                self.warnings.append(finding.title)

    def _look_for_libraries(self) -> None:
        """Warn of function libraries that several files have. Raises: DuplicateError where these differ in one."""
        if self.target.rdb < _FUNCTIONS:
            return  # none is sent
        names = [file.file for file in self.files]
        for shared in find_shared_libraries(names, relaxed=self.conversion.relaxed, rereading=self.rereading):
            if not shared.is_same:
                raise library_error(shared)
            self.warnings.append(shared.summary)

    def _look_for_duplicates(self) -> None:
        """Raise DuplicateError where several files have a key when they are sent: which one a cache keeps is documented nowhere."""
        names, most = [file.file for file in self.files], _MOST_DUPLICATES
        if not self.conversion.may_name:
            if are_disjoint(file.occupied for file in self.files):
                return
            found = find_duplicates(
                names, relaxed=self.conversion.relaxed, verify_checksum=not self.conversion.passes_over_damage, samples=most,
                rereading=self.rereading,
            )  # fmt: skip
            if not found.keys:
                return  # nor have what they become, which may have fewer keys, and no others
            if all(file.identical for file in self.files):
                raise duplicate_error(found.keys, found.samples)
        files = {file.file: file for file in self.files}

        def scan(name: str, met: Met) -> None:
            file = files[name]
            out = _Hashing() if file.digest else None
            scan_converted_keys(
                name, self.target, self._conversion_of(file), met, write_callback=None if out is None else out.write
            )
            self._look_at(file)
            _check_digest(file, "" if out is None else out.digest)

        found = find_duplicates(names, samples=most, scan=scan)
        if found.keys:
            raise duplicate_error(found.keys, found.samples, converted=True)

    def places(self, file: FileProgress) -> list[BlobUrl]:
        """Where a file goes.

        Raises: ValueError where it has not been divided into the parts that it goes in.
        """
        if self.part_bytes is not None and not file.blobs:
            raise ValueError(f"{file.file} has not been divided")
        names = [blob["name"] for blob in file.blobs] or [f"{_stem(file.file)}.rdb"]
        return [self.container.file(name) for name in names]

    @property
    def _folder(self) -> str:
        """Where parts are."""
        return f"{self.path}.parts"

    def divide(self, file: FileProgress, progress: Callable[[int], object] | None = None) -> None:
        """Write the parts of a file, converted, to the disk.

        Raises: as `convert` and `split`; OSError.
        """
        stem = _stem(file.file)
        into = os.path.join(self._folder, stem)
        shutil.rmtree(into, ignore_errors=True)
        make_folders(into, Permissions([file.file]))
        try:
            self._divide(file, stem, into, progress)
        except BaseException:
            shutil.rmtree(into, ignore_errors=True)
            with suppress(OSError):
                os.rmdir(self._folder)  # if it has no parts of other files
            raise
        self._note()

    def _divide(self, file: FileProgress, stem: str, into: str, progress: Callable[[int], object] | None) -> None:
        whole = file.file
        if not file.identical:
            whole = os.path.join(into, "whole.rdb")
            done = self._convert_to(file, whole, progress)
            file.take(done)
        made = split(
            [whole], into, Division(size=self.part_bytes), digests=False, relaxed=self.conversion.relaxed,
            verify_checksum=whole == file.file,
        )  # fmt: skip
        if whole != file.file:
            os.unlink(whole)
        file.earlier |= {blob["url"]: blob["etag"] for blob in file.blobs if "etag" in blob}
        file.blobs = [{"name": f"{stem}/{part.file}", "part": os.path.join(into, part.file)} for part in made.parts]

    def _convert_to(self, file: FileProgress, path: str, progress: Callable[[int], object] | None) -> Conversion:
        settings: dict[str, Any] = {"target": self.target, "deep": True, "progress": progress}
        settings |= self._conversion_of(file).arguments()
        if not file.digest:
            return convert(file.file, path, **settings)
        with open_output(path, False, [file.file]) as out:
            hashing = _Hashing(out)
            done = convert(file.file, cast(BinaryIO, hashing), **settings)
        _check_digest(file, hashing.digest)
        return done

    def send(
        self, *, overwrite: bool = False, block_bytes: int = BLOCK_BYTES, concurrency: int = CONCURRENCY,
        cap_mbps: float | None = None, progress: Callable[[str, int], object] | None = None,
    ) -> None:  # fmt: skip
        """Bring every file into the container, converted on its way.

        Args:
            overwrite: replace blobs that are there and are not of this migration.
            block_bytes, concurrency, cap_mbps: as for `upload`.

        Raises: as `upload_converted`.
        """
        settings: dict[str, Any] = {
            "credentials": self.credentials, "block_bytes": block_bytes, "concurrency": concurrency, "cap_mbps": cap_mbps,
        }  # fmt: skip
        for file in self.files:
            self._look_at(file)
            if self._is_there(file):
                continue
            settings["progress"] = _of(progress, file.file)
            if self.part_bytes is not None:
                if not all("etag" in blob or exists(blob["part"]) for blob in file.blobs or [{"part": ""}]):
                    self.divide(file, _of(progress, file.file))
                self._look_at(file)
                self._check_replaces_none(file)
                for blob, place in zip(file.blobs, self.places(file), strict=True):
                    if "etag" not in blob:
                        settings["overwrite"] = overwrite or self._is_ours(file, place)
                        blob |= upload(blob["part"], place, **settings).to_dict()
                        self._note()
                continue
            (place,) = self.places(file)
            if self._is_in_place(file):
                file.blobs = [{"name": f"{_stem(file.file)}.rdb"} | _unsent(file)]
                self._note()
                continue
            settings["overwrite"] = overwrite or self._is_ours(file, place)
            if file.identical:
                sent = upload(file.file, place, **settings)
            else:
                options = self._conversion_of(file)
                done, sent = upload_converted(file.file, place, target=self.target, conversion=options, **settings)
                file.take(done)
                if file.digest not in ("", sent.md5):
                    file.earlier[sent.url] = sent.etag
                    self._note()
                _check_digest(file, sent.md5)
            file.blobs = [{"name": f"{_stem(file.file)}.rdb"} | sent.to_dict()]
            self._note()
            self._look_at(file)  # once it is noted, or the next run would not know the blob for its own

    def _is_in_place(self, file: FileProgress) -> bool:
        """Whether a file is the very blob that it would become, and goes in as it is.

        Raises: ValueError where it is that blob, and what is made of it is something else.
        """
        if not is_remote(file.file) or file.file not in [place.url for place in self._planned(file)]:
            return False
        if not file.identical:
            raise ValueError(f"{file.file} would be replaced by what is made of it: name another container, or a folder in it")
        return True

    def _check_replaces_none(self, file: FileProgress) -> None:
        """Raise ValueError where a part of a file would replace another FILE, which is a blob."""
        sources = {each.file for each in self.files}
        for place in self.places(file):
            if place.url in sources:
                raise ValueError(
                    f"{place.url} would be replaced by a part of {file.file}: name another container, or a folder in it"
                )

    def _is_there(self, file: FileProgress) -> bool:
        """Whether all that a file was sent as is still there; forgets what is not."""
        for blob, place in zip(file.blobs, self.places(file) if file.blobs else (), strict=True):
            if "etag" in blob and self._etag(place) != blob["etag"]:
                for name in blob.keys() - {"name", "part"}:
                    del blob[name]
        return file.is_sent

    def _is_ours(self, file: FileProgress, place: BlobUrl) -> bool:
        """Whether the blob that is there is what an earlier run has made of this file, and no import can be reading it."""
        if self._pending is not None and place.url in [blob["url"] for blob in self._pending.blobs]:
            return False  # whether that import has begun is not known
        earlier = file.earlier.get(place.url)
        return earlier is not None and earlier == self._etag(place)

    def _look_at(self, file: FileProgress) -> None:
        """Raise ChangedError where a file is not the one that was rehearsed, in this run or an earlier one."""
        self.rereading.check(file.file)
        if revision(file.file) != (file.size, file.version):
            raise changed(file.file)

    def prepare(self) -> ImportPlan:
        """Ask all that can be asked before the import.

        The blobs have to be those that were sent, or, where the upload is skipped, have as many keys as the files become.

        Raises: as `prepare_import`; TargetError for other blobs, and where one does not go in as it is; ValueError where the
            options have left all keys out.
        """
        places = [place for file in self.files for place in self.places(file)]
        etags = [str(blob.get("etag", "")) for file in self.files for blob in file.blobs or [{}]]
        known = all(etags)
        prepared = prepare_import(
            self.arm, self.service, places, credentials=self.credentials, etags=etags, examine=not known, compare=False,
            allow_base=True,
            auth=self.auth, hours=self.hours, storage_subscription=self.storage_subscription, storage_check=self.storage_check,
        )  # fmt: skip
        if not prepared.importable:
            raise TargetError("a blob does not go in as it is; rdbkit import says why", source=self.cache.name)
        if not known:
            self._take_over(prepared)
        prepared.warnings += self._look_for_keys()
        return prepared

    def _take_over(self, prepared: ImportPlan) -> None:
        """Note what the blobs are that were there, of files that were not sent."""
        found = zip(prepared.places, prepared.blobs, prepared.checks, strict=True)
        for file in self.files:
            rows = [next(found) for _ in self.places(file)]
            if file.is_sent:
                continue
            ((place, blob, report),) = rows  # for parts have all to be sent
            if file.verdict and file.written != report.keys:
                raise TargetError(
                    f"the blob has {report.keys:,} keys, and {file.written:,} are to come of {file.file}: it is another, "
                    "and the upload cannot be skipped",
                    source=place.url,
                )
            if not file.verdict:
                file.keys = report.keys
            file.written = report.keys
            file.blobs = [
                {"name": f"{_stem(file.file)}.rdb", "url": blob.url, "bytes": blob.bytes, "etag": blob.etag, "sent_bytes": 0}
            ]

    def left_import(self) -> PendingOperation | None:
        """An import that an earlier run has begun, or was about to.

        Raises: OSError where one that a run of an earlier release has left cannot be noted in the state.
        """
        if self.leaves_state and self._has_former:
            self._note()
            os.unlink(self._former_path)
            self._has_former = False
        return self._pending

    def _former_import(self) -> PendingOperation | None:
        """What a run of an earlier release has left in a file of its own. Raises: ValueError where it is of another cache."""
        left = PendingOperation.read(self._former_path)
        if left is None:
            return None
        if left.resource_id.lower() != str(self.arm.cache).lower():
            raise ValueError(
                f"{self._former_path}, which an earlier release has left, is of an import into another cache; name another state "
                "file, or delete it if that import has ended"
            )
        return PendingOperation.of(self.path, left.to_dict(), self._keep)

    @property
    def _former_path(self) -> str:
        return f"{self.path}.import"

    def is_of_these(self, left: PendingOperation) -> bool:
        """Whether an import is of these files as they are, on these terms."""
        sent = {blob["url"]: blob["etag"] for file in self.files for blob in file.blobs if "etag" in blob}
        return sent == {blob["url"]: blob["etag"] for blob in left.blobs} and all(file.is_sent for file in self.files)

    def settle(
        self, left: PendingOperation, *, imports: bool = True, message_callback: Callable[[str], object] | None = None,
        progress: Callable[[Status, float], object] | None = None,
    ) -> bool:  # fmt: skip
        """See to an import that an earlier run has left: wait for what has begun, and warn of what may have.

        Args:
            left: of `left_import`.
            imports: whether that step follows.
            message_callback: called with a line that says what is waited for.
            progress: as of `wait_for`.

        Returns: whether there is anything to do after it; not where that was the import of these files.
        Raises: as `wait_for`; TargetError where it may read the blobs that this run is to replace.
        """
        if not left.operation:
            self.warnings.append(f"{left.doubt}: look at the cache first")
            return True
        if not imports:
            raise TargetError(
                f"an import that was begun on {when(left.begun)} may still read the blobs; wait for it, by this without "
                "skipping the import",
                source=self.cache.name,
            )
        if self.is_of_these(left):
            report_each(["going on to wait for the import that was begun"], message_callback)
            self.wait(left, True, progress)
            return False
        report_each(
            [f"waiting for the end of an import of other files, or other states of these, of {when(left.begun)}"], message_callback
        )
        wait_for(self.arm, left, resumed=True, progress=progress)
        return True

    def begin_import(self, prepared: ImportPlan) -> PendingOperation:
        """Begin the import of what was sent. Raises: as `rdbkit.azure.cache_import.begin_import`."""
        return begin_noted_import(
            self.arm, prepared, PendingOperation(self.path, "import", str(self.arm.cache), [], keep=self._keep)
        )

    def wait(self, pending: PendingOperation, resumed: bool, progress: Callable[[Status, float], object] | None = None) -> Import:
        """Wait for the import of what was sent; `resumed`: an earlier run has begun it. Raises: as `wait_for`."""
        self.result = wait_for(self.arm, pending, resumed=resumed, progress=progress)
        return self.result

    def finish(self) -> None:
        """Forget what was noted: nothing is left to continue."""
        self._state.remove()  # first, for another run would begin another import
        shutil.rmtree(self._folder, ignore_errors=True)

    def to_dict(self) -> dict[str, Any]:
        """The report, as plain JSON types: keys in and out, losses, bytes and times."""
        files = []
        for file in self.files:
            row = asdict(file)
            row["file"] = valid_text(file.file)
            for name in ("version", "terms", "earlier", "digest", "now_ms", "slots"):
                del row[name]
            row["left_out"] = file.keys - file.written
            row["blobs"] = [{name: value for name, value in blob.items() if name != "part"} for blob in file.blobs]
            files.append(row)
        lost: dict[str, int] = {}
        for file in self.files:
            for kind, n in file.losses.items():
                lost[kind] = lost.get(kind, 0) + n
        return {
            "cache": self.cache.to_dict(),
            "target": self.service.name,
            "files": files,
            "keys": sum(file.keys for file in self.files),
            "written": sum(file.written for file in self.files),
            "left_out": sum(file.keys - file.written for file in self.files),
            "lost": lost,
            "bytes": sum(blob.get("bytes", 0) for file in self.files for blob in file.blobs),
            "import": None if self.result is None else self.result.to_dict(),
            "seconds": time.time() - self.begin,
        }


def _stem(name: str) -> str:
    """What the blobs of a file are called."""
    return without_suffix(base_name(name)).removesuffix(".rdb")


def _unsent(file: FileProgress) -> dict[str, Any]:
    """What is noted of a blob that is imported where it is."""
    return {"url": file.file, "etag": file.version, "bytes": file.size, "sent_bytes": 0}


class _Hashing:
    """Takes bytes and keeps their MD5; hands them on to a file, where there is one. It cannot seek, as a blob cannot."""

    def __init__(self, out: BinaryIO | None = None) -> None:
        self._out = out
        self._md5 = md5(usedforsecurity=False)

    def write(self, data: bytes) -> int:
        self._md5.update(data)
        return len(data) if self._out is None else self._out.write(data)

    @property
    def digest(self) -> str:
        """In hexadecimal."""
        return self._md5.hexdigest()


def _check_digest(file: FileProgress, digest: str) -> None:
    """Raise ValueError where a script has made something else of a file than when it was rehearsed."""
    if file.digest not in ("", digest):
        raise ValueError(
            f"{file.file}: the script made something else of it than when it was checked, and nothing was imported: what it "
            "makes of a key must not depend on anything else"
        )


def _of(progress: Callable[[str, int], object] | None, name: str) -> Callable[[int], object] | None:
    """Progress of one file."""
    if progress is None:
        return None
    return lambda n: progress(name, n)


def _why(report: Check) -> str:
    return "; ".join(f"{found.code} {found.title}" for found in report.findings if found.severity == "blocker")


# -- all of it


def migrate(
    files: File | Iterable[File],
    cache: str | ResourceId | Arm,
    *,
    target: str | Target,
    container: str | BlobUrl,
    policies: Policies | None = None,
    edits: Edits | None = None,
    selection: Selection | None = None,
    compress: bool = False,
    jobs: int = 1,
    on_error: str = "stop",
    relaxed: bool = False,
    verify_checksum: bool = True,
    now_ms: int | None = None,
    part_bytes: int | None = None,
    skip: Collection[str] = (),
    overwrite: bool = False,
    block_bytes: int = BLOCK_BYTES,
    concurrency: int = CONCURRENCY,
    cap_mbps: float | None = None,
    state: str | os.PathLike[str] | None = None,
    credentials: Credentials | None = None,
    auth: str = SAS,
    storage_subscription: str = "",
    hours: float = LEAST_HOURS,
    allow_base: bool = False,
    storage_check: bool = True,
    warning_callback: Callable[[str], object] | None = None,
    file_progress: Callable[[str, int], object] | None = None,
    progress: Callable[[Status, float], object] | None = None,
) -> Migration:
    """Bring snapshots into a cache in Azure: check, convert, upload, import. What is in the cache is deleted.

    Every file is checked and converted without being written first, so that nothing is sent where something would be lost that the
    policies do not allow. There is no confirmation. After an interruption, the same call continues.

    Args:
        files: a path or several, or snapshots that were just opened by theirs.
        cache: its resource id, `/subscriptions/.../NAME`; or an `Arm`, for other credentials.
        target: what the cache is: "azure-premium", "azure-managed" or "azure-enterprise"; or a `Target`.
        container: where the blobs are to be, `https://ACCOUNT.blob.core.windows.net/CONTAINER` or a folder in it; or a `BlobUrl`.
        policies: what to do with data that the target does not support; by default, nothing is sent if there is any.
        edits, selection, compress, jobs, on_error, relaxed, verify_checksum: as of `rdbkit.convert`. A script that has an attribute
            `digest`, a str, is known by that to the call that continues; with any other, files are converted and sent again.
        now_ms: what counts as expired, and what times to live begin at, in Unix milliseconds; by default the time of the first
            call, for those that continue it as well.
        part_bytes: send each file in parts of so many bytes; None to send it as one.
        skip: steps to leave out: "check", "upload", "import".
        overwrite: replace blobs that are there and are not of this migration.
        block_bytes, concurrency, cap_mbps: as of `rdbkit.upload`.
        state: the file by which another run continues; by default `rdbkit-migrate-NAME.json`, as the command has it.
        credentials, auth, storage_subscription, hours, storage_check: as of `rdbkit.import_`.
        allow_base: also the base of an append-only folder, although newer data stands beside it.
        warning_callback: called with each thing that should be known, before anything is sent, and before the import begins; what
            it raises ends this.
        file_progress: called with a file and the bytes of it that have been read, or sent.
        progress: called with the service's status and the seconds since the import was begun, each time that it was asked for.

    Returns: the `Migration`: `result` of the import, `files`, how far each has come, and `to_dict()`, the report.

    Raises: LossError where a policy does not allow a loss; DuplicateError where several files have a key; TargetError where the
        cache cannot import what the files become, or a service refuses or fails; ChangedError where a file changes meanwhile;
        RdbError where one is damaged; ValueError for arguments that do not fit; TypeError for what is no path, cache, container or
        target; OSError.

    Example:
        cache = "/subscriptions/.../resourceGroups/shop/providers/Microsoft.Cache/redis/shop-cache"
        done = rdbkit.migrate(
            "dump.rdb", cache, target="azure-premium", container="https://shop.blob.core.windows.net/dumps",
            policies=rdbkit.Policies(field_ttl="key-min"),
        )
        print(done.to_dict()["lost"])
    """
    target = as_target(target)
    paths = paths_of(files)
    place = blob_url_of(container)
    if isinstance(skip, str) or not set(skip) <= set(STEPS):
        raise ValueError(f"what can be skipped is a collection of {', '.join(STEPS)}")
    conversion = ConversionOptions(
        policies or Policies(), edits or Edits(), selection, compress, jobs, on_error, relaxed, verify_checksum, now_ms
    )
    with opened_cache(cache, [place]) as arm:
        job = Migration(
            arm, target, paths, place, os.fspath(state or f"rdbkit-migrate-{arm.cache.name}.json"), conversion=conversion,
            part_bytes=part_bytes, credentials=credentials, auth=auth, hours=hours, storage_subscription=storage_subscription,
            allow_base=allow_base, storage_check=storage_check,
        )  # fmt: skip
        sends, imports = "upload" not in skip, "import" not in skip
        left = job.left_import()
        if left is None or job.settle(left, imports=imports, progress=progress):
            job.look(sends=sends, imports=imports)
            if "check" not in skip:
                job.rehearse(file_progress)
            report_each(job.warnings, warning_callback)
            if sends:
                job.send(
                    overwrite=overwrite, block_bytes=block_bytes, concurrency=concurrency, cap_mbps=cap_mbps, progress=file_progress
                )
            if imports:
                plan = job.prepare()
                report_each([warning for warning in plan.warnings if warning not in job.warnings], warning_callback)
                job.wait(job.begin_import(plan), False, progress)
        if job.result is not None:
            job.finish()
        return job

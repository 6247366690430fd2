"""`rdbkit migrate`: snapshots on a disk to data in a cache, one step after the other.

Every step leaves in a file what the next one needs, so that a run which was ended is gone on with by the same command: a file
that has been rehearsed or sent, and has not changed since, is passed over, blocks that have arrived are not sent again, and an
import that has begun is waited for. No secret is in that file.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, BinaryIO, Final, cast

from rdbkit.azure.importing import SAS, Import, Preparation, Waiting, begin_import, look_at_target, prepare_import, wait_for
from rdbkit.azure.places import Credentials, Place
from rdbkit.azure.resources import Arm, CacheState, Status
from rdbkit.azure.upload import BLOCK_BYTES, CONCURRENCY, upload, upload_converted
from rdbkit.errors import LossError, TargetError
from rdbkit.operations.check import AS_IT_IS, CANNOT, Check, check
from rdbkit.operations.convert import convert
from rdbkit.operations.rules import Policies
from rdbkit.operations.split import Division, split
from rdbkit.operations.text import valid_text
from rdbkit.snapshot.output import open_output
from rdbkit.snapshot.reader import open_snapshot
from rdbkit.snapshot.source import check_distinct
from rdbkit.targets import Target

__all__ = ["STEPS", "Course", "Migration"]

#: What a migration does, in this order; each can be left out.
STEPS: Final = ("check", "upload", "import")
_FORMAT: Final = 1


@dataclass
class Course:
    """How far one file has come.

    Attributes:
        file, size, mtime_ns: by which it is known that it has not changed.
        header: its version, and that of what is sent.
        verdict: of `rdbkit.check`; empty where that was left out.
        keys, written: that it has, and that are sent.
        losses: what is lost on the way, counted by kind, as policies allow.
        identical: what is sent is the file as it is.
        blobs: what it is sent as: `name` in the container and, of a part, the `part` on this disk; and behind its upload `url`,
            `etag`, `bytes`, `md5`, `sent_bytes` and `seconds`.
    """

    file: str
    size: int
    mtime_ns: int
    header: str = ""
    sent_header: str = ""
    verdict: str = ""
    keys: int = 0
    written: int = 0
    losses: dict[str, int] = field(default_factory=dict)
    identical: bool = False
    blobs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_sent(self) -> bool:
        """Whether all of it has been uploaded."""
        return bool(self.blobs) and all("etag" in blob for blob in self.blobs)


class _Nowhere(io.RawIOBase):
    """Takes bytes, and counts them."""

    def __init__(self) -> None:
        self.bytes = 0

    def write(self, data: Any) -> int:
        self.bytes += len(data)
        return len(data)


class Migration:
    """Files on their way into a cache.

    Args:
        arm: the cache.
        target: the service, of `rdbkit.targets.find_target`.
        files: paths.
        container: a container, or a folder in one, where blobs are to be.
        path: of the file that another run goes on with.
        policies: what becomes of data that the target has no place for; by default, nothing is sent if there is any.
        part_bytes: send each file in parts of so many bytes, which are written beside `path` first; None to send it as one.
        credentials: of the storage account; by default what the environment and the machine have.
        settings: of `prepare_import`, such as `auth`.

    Attributes:
        cache: as it was read.
        courses: of the files.
        checks: of the files that were looked at in this run.
        result: of the import, when it has ended.

    Raises: ValueError where files or options do not fit; TargetError where the cache does not; OSError.
    """

    def __init__(
        self,
        arm: Arm,
        target: Target,
        files: Sequence[str],
        container: Place,
        path: str,
        *,
        policies: Policies | None = None,
        part_bytes: int | None = None,
        credentials: Credentials | None = None,
        **settings: Any,
    ) -> None:
        check_distinct(files)
        if not container.is_folder:
            container = replace(container, blob=f"{container.blob}/")
        if len({os.path.basename(name) for name in files}) < len(files):
            raise ValueError("several FILEs would become one blob: their names have to differ")
        self.arm = arm
        self.container = container
        self.path = path
        self.policies = policies or Policies()
        self.part_bytes = part_bytes
        self.credentials = credentials or Credentials()
        self.settings = settings
        self.begin = time.time()
        self.result: Import | None = None
        self.checks: list[Check] = []
        self.service = target
        self.cache: CacheState = arm.read()
        self.target, self.warnings = look_at_target(target, self.cache)
        self.courses = [self._course(name) for name in files]
        self._remember()

    # -- what is left to another run

    def _course(self, name: str) -> Course:
        found = os.stat(name)
        return Course(os.path.abspath(name), found.st_size, found.st_mtime_ns)

    def _mark(self) -> dict[str, Any]:
        """What has to be the same for a run to go on with what another has left."""
        return {
            "format": _FORMAT, "cache": str(self.arm.cache).lower(), "target": self.service.name, "container": self.container.url,
            "policies": repr(self.policies), "part_bytes": self.part_bytes,
        }  # fmt: skip

    def _remember(self) -> None:
        """Take over what an earlier run has noted of files that have not changed."""
        try:
            with open(self.path, encoding="utf-8") as file:
                left = json.load(file)
            courses = {course["file"]: Course(**course) for course in left.pop("files")}
        except FileNotFoundError:
            return
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ValueError(f"{self.path} is no state of rdbkit migrate; name another file with --state, or delete it") from None
        if left != self._mark():
            raise ValueError(f"{self.path} is of another migration; name another file with --state, or delete it")
        for i, course in enumerate(self.courses):
            before = courses.get(course.file)
            if before is not None and (before.size, before.mtime_ns) == (course.size, course.mtime_ns):
                self.courses[i] = before

    def _note(self) -> None:
        with open_output(self.path, force=True) as out:
            state = self._mark() | {"files": [asdict(course) for course in self.courses]}
            out.write(json.dumps(state, indent=1).encode())

    # -- the steps

    def rehearse(self, progress: Callable[[str, int], object] | None = None) -> None:
        """Check every file, and convert it without writing anything, so that all losses are known before anything is sent.

        Raises: LossError where a policy does not allow one, or no conversion helps; RdbError where a file is damaged.
        """
        for course in self.courses:
            if course.verdict:
                continue
            with open_snapshot(course.file) as snapshot:
                report = check(snapshot, self.target)
                course.header = str(snapshot.header)
                plain = snapshot.compression is None and snapshot.framing is None and snapshot.trailer == ("none", 0)
            self.checks.append(report)
            if report.verdict == CANNOT:
                error = LossError(f"{self.target.title} cannot import it, however it is converted: {_why(report)}")
                error.source = course.file
                raise error
            nowhere = _Nowhere()
            done = convert(
                course.file, cast(BinaryIO, nowhere), target=self.target, policies=self.policies,
                progress=_of(progress, course.file),
            )  # fmt: skip
            course.sent_header = str(done.header)
            course.keys, course.written, course.losses = done.keys, done.written, dict(done.ledger.counts)
            course.identical = report.verdict == AS_IT_IS and plain
            course.verdict = report.verdict
            self._note()

    def _stem(self, course: Course) -> str:
        return os.path.basename(course.file).removesuffix(".gz").removesuffix(".rdb")

    def places(self, course: Course) -> list[Place]:
        """Where a file goes.

        Raises: ValueError where it has not been divided into the parts that it goes in.
        """
        if self.part_bytes is not None and not course.blobs:
            raise ValueError(f"{course.file} has not been divided: the upload cannot be left out")
        names = [blob["name"] for blob in course.blobs] or [f"{self._stem(course)}.rdb"]
        return [self.container.file(name) for name in names]

    @property
    def _folder(self) -> str:
        """Where parts are."""
        return f"{self.path}.parts"

    def divide(self, course: Course, progress: Callable[[int], object] | None = None) -> None:
        """Write the parts of a file, converted, to the disk.

        Raises: as `convert` and `split`; OSError.
        """
        stem = self._stem(course)
        into = os.path.join(self._folder, stem)
        shutil.rmtree(into, ignore_errors=True)
        os.makedirs(into)
        whole = course.file
        if not course.identical:
            whole = os.path.join(into, "whole.rdb")
            done = convert(course.file, whole, target=self.target, policies=self.policies, progress=progress)
            course.header, course.sent_header = str(done.source), str(done.header)
            course.keys, course.written, course.losses = done.keys, done.written, dict(done.ledger.counts)
        made = split([whole], into, Division(size=self.part_bytes), digests=False, verify_checksum=whole == course.file)
        if whole != course.file:
            os.unlink(whole)
        course.blobs = [{"name": f"{stem}/{part.file}", "part": os.path.join(into, part.file)} for part in made.parts]
        self._note()

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
        for course in self.courses:
            if course.is_sent:
                continue
            self._look_at(course)
            settings: dict[str, Any] = {
                "credentials": self.credentials, "overwrite": overwrite, "block_bytes": block_bytes, "concurrency": concurrency,
                "cap_mbps": cap_mbps, "progress": _of(progress, course.file),
            }  # fmt: skip
            if self.part_bytes is not None:
                if not course.blobs:
                    self.divide(course, _of(progress, course.file))
                self._look_at(course)
                for blob, place in zip(course.blobs, self.places(course), strict=True):
                    if "etag" not in blob:
                        blob |= upload(blob["part"], place, **settings).to_dict()
                        self._note()
                continue
            (place,) = self.places(course)
            if course.identical:
                sent = upload(course.file, place, **settings)
            else:
                done, sent = upload_converted(course.file, place, target=self.target, policies=self.policies, **settings)
                course.header, course.sent_header = str(done.source), str(done.header)
                course.keys, course.written, course.losses = done.keys, done.written, dict(done.ledger.counts)
            self._look_at(course)
            course.blobs = [{"name": f"{self._stem(course)}.rdb"} | sent.to_dict()]
            self._note()

    def _look_at(self, course: Course) -> None:
        """Raise TargetError where a file is not the one that was rehearsed."""
        found = os.stat(course.file)
        if (found.st_size, found.st_mtime_ns) != (course.size, course.mtime_ns):
            raise TargetError("the file has changed meanwhile; run this again", source=course.file)

    def prepare(self) -> Preparation:
        """Ask all that can be asked before the import; the blobs have to be those that were sent.

        Raises: as `prepare_import`.
        """
        places = [place for course in self.courses for place in self.places(course)]
        etags = [str(blob["etag"]) for course in self.courses for blob in course.blobs if "etag" in blob]
        known = len(etags) == len(places)
        return prepare_import(
            self.arm, self.service, places, credentials=self.credentials, etags=etags if known else (), examine=not known,
            **({"auth": SAS} | self.settings),
        )  # fmt: skip

    def left_import(self) -> Waiting | None:
        """An import that an earlier run has begun, or was about to."""
        left = Waiting.read(self._import_path)
        if left is not None and left.resource_id.lower() != str(self.arm.cache).lower():
            raise ValueError(f"{self._import_path} is of another cache; delete it, or name another file with --state")
        return left

    @property
    def _import_path(self) -> str:
        return f"{self.path}.import"

    def import_it(
        self,
        prepared: Preparation | None,
        waiting: Waiting | None = None,
        progress: Callable[[Status, float], object] | None = None,
    ) -> Import:
        """Import what was sent, or wait for an import that has begun.

        Raises: as `begin_import` and `wait_for`.
        """
        resumed = waiting is not None
        if waiting is None:
            assert prepared is not None
            waiting = begin_import(self.arm, prepared, self._import_path)
        self.result = wait_for(self.arm, waiting, resumed=resumed, progress=progress)
        return self.result

    def finish(self) -> None:
        """Forget what was noted: nothing is left to go on with."""
        shutil.rmtree(self._folder, ignore_errors=True)
        if os.path.exists(self.path):
            os.unlink(self.path)

    def to_dict(self) -> dict[str, Any]:
        """The report, as plain JSON types: keys in and out, losses, bytes and times."""
        files = []
        for course in self.courses:
            row = asdict(course)
            row["file"] = valid_text(course.file)
            del row["mtime_ns"]
            row["blobs"] = [{name: value for name, value in blob.items() if name != "part"} for blob in course.blobs]
            files.append(row)
        lost: dict[str, int] = {}
        for course in self.courses:
            for kind, n in course.losses.items():
                lost[kind] = lost.get(kind, 0) + n
        return {
            "cache": self.cache.to_dict(),
            "target": self.service.name,
            "files": files,
            "keys": sum(course.keys for course in self.courses),
            "written": sum(course.written for course in self.courses),
            "lost": lost,
            "bytes": sum(blob.get("bytes", 0) for course in self.courses for blob in course.blobs),
            "import": None if self.result is None else self.result.to_dict(),
            "seconds": time.time() - self.begin,
        }


def _of(progress: Callable[[str, int], object] | None, name: str) -> Callable[[int], object] | None:
    """Progress of one file."""
    if progress is None:
        return None
    return lambda n: progress(name, n)


def _why(report: Check) -> str:
    return "; ".join(f"{found.code} {found.title}" for found in report.findings if found.severity == "blocker")

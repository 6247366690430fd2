"""`rdbkit upload`: a file into a storage account, block by block.

A block's id is its number and the MD5 of its content. So what a broken upload has left at the service says by itself which blocks
are there: the next run, on whichever machine, reads the file, and sends those that are not. A file that has changed meanwhile gives
other ids. A blob that is whole says by its length and MD5 whether it is the file, so that one that is needs no sending.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Final, cast

from rdbkit.azure.arguments import blob_url_of
from rdbkit.azure.credentials import Credentials
from rdbkit.azure.errors import missing_package, translating_errors
from rdbkit.errors import RdbError, TargetError
from rdbkit.operations.conversion_options import ConversionOptions
from rdbkit.operations.convert import Conversion, convert
from rdbkit.policy.ledger import Loss
from rdbkit.storage.blob_errors import FOREIGN_BLOCKS
from rdbkit.storage.blob_url import BlobUrl
from rdbkit.storage.location import Identity, is_rereadable, open_file
from rdbkit.storage.pipe import Pipe, PipeBroken
from rdbkit.storage.rate_limiter import RateLimiter
from rdbkit.storage.remote import name_of
from rdbkit.storage.source import Input, Reader, changed
from rdbkit.targets.target import Target

__all__ = ["BLOCK_BYTES", "CONCURRENCY", "Upload", "upload", "upload_converted"]

BLOCK_BYTES: Final = 8 << 20
CONCURRENCY: Final = 8
#: Of the service: blocks of a blob, and bytes of a page.
_MOST_BLOCKS: Final = 50_000
_PAGE: Final = 512
#: Of an upload whose length is not known, blocks grow after so many, so that any length fits.
_GROWS_AFTER: Final = 10_000
#: Pages are written in pieces of at most so many bytes.
_MOST_PAGES: Final = 4 << 20
#: What is to be known where an upload breaks off.
LEFT_BLOCKS: Final = (
    "what has arrived stays for a week, and the same upload goes on with it; other tools cannot upload under that name as long, "
    "unless rdbkit upload --abort URL drops it"
)
#: Letters of a block's id: its number, and an MD5.
_ID_LETTERS: Final = 5 + 32
#: How often a request is tried again: with pauses of 3, 5, 9, 17 and 33 seconds, give or take 3, which is about a minute.
_RETRIES: Final = 5
#: The same where it has been tried for long already, and of the very first, where nobody answers: that is more often a wrong name
#: than a bad line.
_FIRST_RETRIES: Final = 2
_HASHED_BYTES: Final = 1 << 20


@dataclass
class Upload:
    """What `upload` did.

    Attributes:
        url: of the blob, without secrets.
        bytes: of the blob.
        md5: of its content, in hexadecimal; the blob has it too.
        blocks: of the file.
        kept: blocks that the service had from an upload that broke, and that were not sent again.
        sent_bytes: what was sent.
        present: the blob was there before, and has just this content; nothing was sent.
        seconds: from begin to end.
        etag: by which a later step can tell that the blob is still this one.
    """

    url: str
    bytes: int = 0
    md5: str = ""
    blocks: int = 0
    kept: int = 0
    sent_bytes: int = 0
    present: bool = False
    seconds: float = 0.0
    etag: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


def upload(
    src: str | os.PathLike[str] | Reader,
    place: str | BlobUrl,
    *,
    credentials: Credentials | None = None,
    page_blob: bool = False,
    block_bytes: int = BLOCK_BYTES,
    concurrency: int = CONCURRENCY,
    overwrite: bool = False,
    cap_mbps: float | None = None,
    progress: Callable[[int], object] | None = None,
) -> Upload:
    """Bring a file into a blob, which appears when all of it is there.

    Where the blob is there, and by kind, length and MD5 is this file, nothing is sent.

    Args:
        src: a path, the URL of another blob, or an object with `read(n)`, whose end is the file's.
        place: the blob, `https://ACCOUNT.blob.core.windows.net/CONTAINER/BLOB`, with a SAS or without; or a `BlobUrl`.
        credentials: by default what the environment and the machine have.
        page_blob: make a page blob, filled up with zeros to a multiple of 512 bytes; for a file alone, and not resumed.
        block_bytes: bytes of a block; `concurrency` + 2 of them are in memory.
        concurrency: blocks that are sent at a time.
        overwrite: replace a blob that exists.
        cap_mbps: send at most so many megabits a second, on average.
        progress: called with bytes that have arrived, or have been compared with a blob that is there.

    Raises: TargetError where the service refuses or fails; ChangedError where `src` changes meanwhile; RdbError for a stream of no
        bytes; ValueError for options that do not fit; TypeError for what is no place; what `src.read` raises; OSError. Blocks that
        have arrived stay there for a week, and the next upload continues with them.

    Example:
        sent = rdbkit.upload("dump.rdb", "https://shop.blob.core.windows.net/dumps/dump.rdb")
        print(sent.url, sent.etag, sent.sent_bytes)
    """
    place = blob_url_of(place)
    _check_other(src, place)
    settings = _Settings(place, credentials, page_blob, block_bytes, concurrency, overwrite, cap_mbps, progress)
    is_path = isinstance(src, (str, os.PathLike))
    if page_blob and not is_path:
        raise ValueError(_LENGTHLESS)
    with _opened(src) as file, settings.job() as job, translating_errors(place.url):
        identity = Identity.of(file) if is_path else None
        if page_blob and identity is None:
            raise ValueError(_LENGTHLESS)
        found = job.look()
        if found is None or identity is None or not job.is_present(found, identity.size, lambda: job.digest(file, identity)):
            job.take_place_of(found)
            job.bring(file, identity)
    return job.report


def upload_converted(
    src: Input,
    place: str | BlobUrl,
    *,
    target: str | Target,
    conversion: ConversionOptions | None = None,
    loss_callback: Callable[[Loss], object] | None = None,
    progress: Callable[[int], object] | None = None,
    **settings: Any,
) -> tuple[Conversion, Upload]:
    """Convert a snapshot for a target while it is sent: there is no copy on this machine.

    Where the blob is there, and is not to be replaced, a file is first converted without being sent: if that gives the blob, there
    is nothing to do. Another upload continues this one if the conversion gives the same bytes: where times to live count from now,
    that takes a `ConversionOptions.now_ms`.

    Args:
        src: as for `rdbkit.open`.
        target, loss_callback: as for `rdbkit.convert`.
        conversion: all else that is asked of it; by default, there is no blob if something would be lost.
        progress: called with bytes of the source read so far.
        settings: as for `upload`.

    Raises: as `rdbkit.convert` and `upload`; there is a blob only if both end well. Where the upload fails, `src` is not awaited.
    """
    place = blob_url_of(place)
    _check_other(src, place)
    sending = _Settings(place, **settings)
    if sending.page_blob:
        raise ValueError("a page blob has to know its length beforehand, and a conversion does not: convert the file first")
    identity = Identity.of(src) if is_rereadable(src) else None
    conversion = conversion or ConversionOptions()
    if conversion.now_ms is None:
        conversion = conversion.at(time.time_ns() // 1_000_000)
    arguments = conversion.arguments()
    losses = _Losses(loss_callback)
    pipe = Pipe()
    reports: list[Conversion] = []

    def write(out: Any) -> None:
        def report_progress(done: int) -> None:
            if progress is not None and not pipe.is_broken:
                progress(done)

        losses.begin()
        reports.append(
            convert(
                src, cast(BinaryIO, out), target=target, deep=True, loss_callback=losses.add, progress=report_progress, **arguments
            )
        )  # fmt: skip

    def work() -> None:
        write(pipe)
        with suppress(FileNotFoundError):  # as good as renamed
            if identity is not None and identity.is_changed_in(Identity.of(src)):
                raise changed(os.fspath(cast(str, src)))

    with sending.job() as job, translating_errors(place.url):
        found = job.look()
        if found is not None and identity is not None and not job.overwrite and job.may_be_present(found):
            digest = _Digest(found.size)
            with suppress(_Longer):
                write(digest)
                if job.is_present(found, digest.bytes, digest.md5.digest):
                    return reports[0], job.report
        job.take_place_of(found)
        job.on_failure = pipe.break_off
        # Not waited for where the upload fails: whoever writes to standard input may have nothing to write for hours.
        pipe.fill(work)
        try:
            job.bring(pipe, None)
        except PipeBroken:
            job.wait()  # raises what the thread has met that could not send
            raise
        finally:
            pipe.break_off()
    return reports[0], job.report


def _check_other(src: object, place: BlobUrl) -> None:
    """Raise ValueError where what is to be sent is the blob that it would become."""
    if isinstance(src, str | os.PathLike) and name_of(src) == place.url:
        raise ValueError(f"{place.url} would be replaced by what is made of it: name another blob")


def properties_of(blob: Any, **patience: int) -> Any:
    """What there is to be known of a blob, by its client; None where it is not there.

    Raises: errors of the SDK, also where there is no container.
    """
    from azure.core.exceptions import ResourceNotFoundError

    try:
        return blob.get_blob_properties(**patience)
    except ResourceNotFoundError as e:
        code = getattr(e, "error_code", None)
        if getattr(code, "value", code) == "ContainerNotFound":
            raise
        return None


def is_own_id(name: str) -> bool:
    """Whether a block's id is one of ours, which says what the block has.

    >>> is_own_id("00007" + "0" * 32), is_own_id("an id of another program, with 37 let")
    (True, False)
    """
    return len(name) == _ID_LETTERS and name[:5].isdecimal() and set(name[5:]) <= set("0123456789abcdef")


_LENGTHLESS: Final = "a page blob has to know its length beforehand: give it a file"


@dataclass
class _Settings:
    """The arguments of `upload`."""

    place: BlobUrl
    credentials: Credentials | None = None
    page_blob: bool = False
    block_bytes: int = BLOCK_BYTES
    concurrency: int = CONCURRENCY
    overwrite: bool = False
    cap_mbps: float | None = None
    progress: Callable[[int], object] | None = None

    def __post_init__(self) -> None:
        if self.place.is_folder:
            raise ValueError(f"{self.place.url} names no blob")
        if self.block_bytes < 1 << 16 or self.block_bytes > 1 << 30 or self.concurrency < 1:
            raise ValueError("a block has 64 KiB to 1 GiB, and at least one is sent at a time")

    @contextmanager
    def job(self) -> Iterator[_Job]:
        """A job with a service.

        Raises: as `Credentials.service`.
        """
        try:
            from azure.storage.blob import ExponentialRetry
        except ImportError as e:
            raise missing_package(e) from None
        retry = ExponentialRetry(
            initial_backoff=1, increment_base=2, retry_total=_RETRIES, retry_connect=_RETRIES, retry_read=_RETRIES,
            retry_status=_RETRIES,
        )  # fmt: skip
        with translating_errors(self.place.url):
            service = (self.credentials or Credentials()).service(self.place, retry_policy=retry, **_transport(self.concurrency))
        with service:
            job = _Job(service, self)
            try:
                yield job
            except BaseException as e:
                if job.leaves_blocks:
                    _add_remark(e, LEFT_BLOCKS)
                raise
            finally:
                job.close()


def _add_remark(e: BaseException, text: str) -> None:
    """Let an error say more: in its message, or as a note where it has none of ours."""
    if isinstance(e, RdbError):
        e.message += f"; {text}"
    else:
        e.add_note(text)


class _Losses:
    """Tells of each loss once, although a conversion may be done twice, of which each meets the same in the same order."""

    def __init__(self, loss_callback: Callable[[Loss], object] | None) -> None:
        self._loss_callback = loss_callback
        self._told = 0
        self._met = 0

    def begin(self) -> None:
        self._met = 0

    def add(self, loss: Loss) -> None:
        self._met += 1
        if self._met > self._told:
            self._told += 1
            if self._loss_callback is not None:
                self._loss_callback(loss)


class _Longer(Exception):
    """More bytes than were expected."""


class _Digest:
    """Takes bytes and keeps their MD5; ends what writes more than `most`."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes = 0
        self.md5 = hashlib.md5(usedforsecurity=False)

    def write(self, data: bytes) -> int:
        self.bytes += len(data)
        if self.bytes > self.most:
            raise _Longer
        self.md5.update(data)
        return len(data)


def _transport(concurrency: int) -> dict[str, Any]:
    """Connections for all that is sent at a time, kept open."""
    import requests
    from azure.core.pipeline.transport import RequestsTransport
    from requests.adapters import HTTPAdapter

    session = requests.Session()
    adapter = HTTPAdapter(pool_connections=1, pool_maxsize=concurrency + 1)
    session.mount("https://", adapter)
    session.mount("http://", adapter)
    return {"transport": RequestsTransport(session=session, connection_timeout=20, read_timeout=120)}


@contextmanager
def _opened(src: Any) -> Iterator[Any]:
    if isinstance(src, (str, os.PathLike)):
        with open_file(src) as file:
            yield file
    else:
        yield src


def _read(file: Any, n: int) -> bytes:
    """`n` bytes, fewer only at the end."""
    parts = []
    while n > 0:
        piece = file.read(n)
        if not piece:
            break
        parts.append(piece)
        n -= len(piece)
    return b"".join(parts) if len(parts) != 1 else bytes(parts[0])


class _Job:
    """One upload, while it is done."""

    def __init__(self, service: Any, settings: _Settings) -> None:
        place = settings.place
        self.blob = service.get_blob_client(place.container, place.blob)
        self.place = place
        self.page_blob = settings.page_blob
        self.block_bytes = settings.block_bytes
        self.concurrency = settings.concurrency
        self.overwrite = settings.overwrite
        self.rate_limiter = RateLimiter(None if settings.cap_mbps is None else settings.cap_mbps * 1e6 / 8)
        self.progress = settings.progress
        self.begin = time.monotonic()
        self.report = Upload(place.url)
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.arrived = 0
        self.lock = threading.Lock()
        self.before: str | None = None
        self.is_committed = False
        #: called when a block could not be sent, by the thread that tried
        self.on_failure: Callable[[], object] = lambda: None

    @property
    def leaves_blocks(self) -> bool:
        """Whether blocks have arrived that belong to no blob."""
        return not self.page_blob and not self.is_committed and bool(self.report.kept or self.report.sent_bytes)

    # -- what is there

    def look(self) -> Any:
        """The properties of the blob that is there, None for none."""
        return properties_of(self.blob, retry_connect=_FIRST_RETRIES)

    def may_be_present(self, found: Any) -> bool:
        """Whether it can be known if the blob that was found is what would be sent."""
        return bool(found.content_settings.content_md5) and found.blob_type == ("PageBlob" if self.page_blob else "BlockBlob")

    def is_present(self, found: Any, size: int, digest: Callable[[], bytes]) -> bool:
        """Whether the blob that was found is what would be sent; `digest`, which may take long, is asked only if it could be.

        Args:
            size: of the file.
        """
        whole = -(-size // _PAGE) * _PAGE if self.page_blob else size
        if not self.may_be_present(found) or found.size != whole:
            return False
        stored = bytes(found.content_settings.content_md5)
        if digest() != stored:
            return False
        report = self.report
        report.present = True
        report.bytes, report.md5, report.etag = whole, stored.hex(), str(found.etag)
        report.seconds = time.monotonic() - self.begin
        return True

    def digest(self, file: BinaryIO, identity: Identity) -> bytes:
        """The MD5 that the blob of a file would have; the file is at its beginning afterwards."""
        md5 = hashlib.md5(usedforsecurity=False)
        size = 0
        while data := file.read(_HASHED_BYTES):
            md5.update(data)
            size += len(data)
            if self.progress is not None:
                self.progress(size)
        if size != identity.size or Identity.of(file) != identity:
            raise changed(file.name)
        if self.page_blob:
            md5.update(bytes(-size % _PAGE))
        file.seek(0)
        return md5.digest()

    def take_place_of(self, found: Any) -> None:
        """Note what is to be replaced; raises TargetError where it must not be."""
        if found is not None and not self.overwrite:
            raise TargetError("the blob exists; --overwrite replaces it", source=self.place.url)
        self.before = None if found is None else str(found.etag)

    @property
    def condition(self) -> dict[str, Any]:
        """That nobody has changed the blob since it was looked at."""
        from azure.core import MatchConditions

        if self.before is None:
            return {"match_condition": MatchConditions.IfMissing}
        return {"etag": self.before, "match_condition": MatchConditions.IfNotModified}

    def bring(self, file: BinaryIO | Reader, identity: Identity | None) -> None:
        """Make the blob of a file, or of a stream, which has no state."""
        if self.page_blob:
            assert identity is not None
            self.pages(cast(BinaryIO, file), identity)
        else:
            self.blocks(file, identity)
        self.finish()

    # -- block blobs

    def blocks(self, file: BinaryIO | Reader, identity: Identity | None) -> None:
        """Send the blocks that are not there, and make the blob of all."""
        while identity is not None and (identity.size + self.block_bytes - 1) // self.block_bytes > _MOST_BLOCKS:
            self.block_bytes *= 2
        self.there = self.uncommitted()
        self.ids: list[str] = []
        for data in self.cut(file, identity is not None):
            self.ids.append("")
            self.send(self.stage, len(self.ids) - 1, data)
        self.wait()
        if identity is not None:
            self.compare(file, identity)
        elif not self.report.bytes:
            name = str(getattr(file, "name", f"<{type(file).__name__}>"))
            raise RdbError("nothing was read, and no blob is made of that; look at what should have written it", source=name)
        self.report.blocks = len(self.ids)
        self.commit()

    def commit(self) -> None:
        """Make the blob of its blocks."""
        from azure.core.exceptions import AzureError
        from azure.storage.blob import BlobBlock, ContentSettings

        settings = ContentSettings(content_type="application/octet-stream", content_md5=bytearray(self.md5.digest()))
        try:
            self.blob.commit_block_list([BlobBlock(name) for name in self.ids], content_settings=settings, **self.condition)
        except AzureError:
            # The service may have done it, and its answer been lost: another try is then refused, since there is a blob.
            try:
                size, stored = self.stored(retry_total=_FIRST_RETRIES)
            except AzureError:
                size, stored = 0, b""
            if (size, stored) != (self.report.bytes, self.md5.digest()):
                raise
        self.is_committed = True

    def uncommitted(self) -> dict[str, int]:
        """Blocks that an upload has left, and their bytes."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            _, waiting = self.blob.get_block_list("uncommitted")
        except ResourceNotFoundError:
            return {}
        if any(len(block.id) != _ID_LETTERS for block in waiting):
            raise TargetError(FOREIGN_BLOCKS, source=self.place.url)
        return {block.id: block.size for block in waiting}

    def cut(self, file: Any, is_file: bool) -> Iterator[bytes]:
        """The blocks in their order; an empty file has none."""
        number = 0
        while True:
            if number >= _MOST_BLOCKS:
                raise TargetError(f"more than {_MOST_BLOCKS} blocks: make them larger", source=self.place.url)
            step = self.block_bytes if is_file else self.block_bytes << number // _GROWS_AFTER
            data = _read(file, step)
            if not data:
                return
            self.md5.update(data)
            self.report.bytes += len(data)
            number += 1
            yield data
            if len(data) < step:
                return

    def stage(self, number: int, data: bytes) -> bool:
        """Send a block that is not there, which the service compares with its MD5; `validate_content` would compute that again."""
        digest = hashlib.md5(data, usedforsecurity=False)
        name = self.ids[number] = f"{number:05}{digest.hexdigest()}"
        if self.there.get(name) == len(data):
            with self.lock:
                self.report.kept += 1
            return False
        self.rate_limiter.take(len(data))
        self.blob.stage_block(name, data, length=len(data), headers={"Content-MD5": b64encode(digest.digest()).decode()})
        return True

    # -- page blobs

    def pages(self, file: BinaryIO, identity: Identity) -> None:
        """Write a page blob of a file, filled up."""
        from azure.storage.blob import ContentSettings

        size = identity.size
        whole = -(-size // _PAGE) * _PAGE
        self.blob.create_page_blob(whole, content_settings=ContentSettings("application/octet-stream"), **self.condition)
        self.block_bytes = min(self.block_bytes // _PAGE * _PAGE, _MOST_PAGES)
        at = 0
        padding = bytes(whole - size)
        for data in self.cut(file, True):
            if len(data) % _PAGE:
                data += padding
            self.send(self.page, at, data)
            at += len(data)
            self.report.blocks += 1
        self.wait()
        self.compare(file, identity)
        self.md5.update(padding)
        self.report.bytes = whole
        settings = ContentSettings(content_type="application/octet-stream", content_md5=bytearray(self.md5.digest()))
        self.blob.set_http_headers(settings)

    def page(self, at: int, data: bytes) -> bool:
        if not data.strip(b"\0"):  # it is zeros from the beginning
            return False
        self.rate_limiter.take(len(data))
        self.blob.upload_page(data, offset=at, length=len(data), validate_content=True)
        return True

    # -- several at a time

    _pool: ThreadPoolExecutor | None = None

    def send(self, how: Callable[[int, bytes], bool], where: int, data: bytes) -> None:
        """Send a block by one of the threads; waits while as many as may be are on their way."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self.concurrency)
            self.waiting: set[Future[None]] = set()
        while len(self.waiting) >= self.concurrency:
            self.reap()
        self.waiting.add(self._pool.submit(self.sent, how, where, data))

    def sent(self, how: Callable[[int, bytes], bool], where: int, data: bytes) -> None:
        try:
            is_new = how(where, data)
        except BaseException:
            self.on_failure()
            raise
        if is_new:
            with self.lock:
                self.report.sent_bytes += len(data)
        self.report_progress(len(data))

    def reap(self) -> None:
        """Wait for one of those that are on their way; raises what went wrong with it, after the others have ended."""
        done, self.waiting = wait(self.waiting, return_when=FIRST_COMPLETED)
        for future in done:
            error = future.exception()
            if error is not None:
                self.close()
                raise error

    def wait(self) -> None:
        """Wait for all that is on its way."""
        while self._pool is not None and self.waiting:
            self.reap()
        self.close()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def report_progress(self, size: int) -> None:
        with self.lock:
            self.arrived += size
            if self.progress is not None:
                self.progress(self.arrived)

    # -- the end

    def compare(self, file: Any, identity: Identity) -> None:
        """Raise ChangedError where a file has been changed while it was read."""
        if self.report.bytes != identity.size or Identity.of(file) != identity:
            raise changed(file.name)

    def stored(self, **patience: int) -> tuple[int, bytes]:
        """Length and MD5 of the blob that is there; its etag goes to the report."""
        found = self.blob.get_blob_properties(**patience)
        self.report.etag = str(found.etag)
        return int(found.size), bytes(found.content_settings.content_md5 or b"")

    def finish(self) -> None:
        """Compare what the service has with what was read."""
        report = self.report
        report.md5 = self.md5.hexdigest()
        size, stored = self.stored()
        if size != report.bytes or stored.hex() != report.md5:
            raise TargetError(
                f"the blob has {size} bytes and MD5 {stored.hex() or 'none'}, but {report.bytes} with {report.md5} were sent",
                source=self.place.url,
            )
        report.seconds = time.monotonic() - self.begin

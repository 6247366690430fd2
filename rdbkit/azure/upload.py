"""`rdbkit upload`: a file into a storage account, block by block.

A block's id is its number and the MD5 of its content. So what a broken upload has left at the service says by itself which blocks
are there: the next run, on whichever machine, reads the file, and sends those that are not. A file that has changed meanwhile gives
other ids.
"""

from __future__ import annotations

import hashlib
import os
import queue
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Final, cast

from rdbkit.azure.failures import explained, missing_package
from rdbkit.azure.places import Credentials, Place
from rdbkit.errors import TargetError
from rdbkit.operations.convert import Conversion, convert
from rdbkit.operations.rules import Policies
from rdbkit.pace import Pace
from rdbkit.snapshot.source import Input, Reader
from rdbkit.targets import Target

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
_RETRIES: Final = 8


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
        seconds: from begin to end.
        etag: by which a later step can tell that the blob is still this one.
    """

    url: str
    bytes: int = 0
    md5: str = ""
    blocks: int = 0
    kept: int = 0
    sent_bytes: int = 0
    seconds: float = 0.0
    etag: str = ""

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


def upload(
    src: str | os.PathLike[str] | Reader,
    place: Place,
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

    Args:
        src: a path, or an object with `read(n)`, whose end is the file's.
        place: of `rdbkit.azure.places.parse_place`, with the blob's name.
        credentials: by default what the environment and the machine have.
        page_blob: make a page blob, filled up with zeros to a multiple of 512 bytes; for a path alone, and not resumed.
        block_bytes: bytes of a block; `concurrency` + 2 of them are in memory.
        concurrency: blocks that are sent at a time.
        overwrite: replace a blob that exists.
        cap_mbps: send at most so many megabits a second, on average.
        progress: called with bytes that have arrived.

    Raises: TargetError where the service refuses or fails, or `src` changes meanwhile; ValueError for options that do not fit;
        what `src.read` raises; OSError. Blocks that have arrived stay there for a week, and the next upload goes on with them.
    """
    if place.is_folder:
        raise ValueError(f"{place.url} names no blob")
    if block_bytes < 1 << 16 or block_bytes > 1 << 30 or concurrency < 1:
        raise ValueError("a block has 64 KiB to 1 GiB, and at least one is sent at a time")
    is_path = isinstance(src, (str, os.PathLike))
    if page_blob and not is_path:
        raise ValueError("a page blob has to know its length beforehand: give it a file")
    size: int | None = None
    try:
        from azure.storage.blob import ExponentialRetry
    except ImportError as e:
        raise missing_package(e) from None
    retry = ExponentialRetry(initial_backoff=1, increment_base=2, retry_total=_RETRIES)
    with explained(place.url):
        service = (credentials or Credentials()).service(place, retry_policy=retry, **_transport(concurrency))
    with service, _opened(src) as file:
        if is_path:
            size = os.fstat(file.fileno()).st_size
            while (size + block_bytes - 1) // block_bytes > _MOST_BLOCKS:
                block_bytes *= 2
        job = _Job(service, place, block_bytes, concurrency, overwrite, cap_mbps, progress)
        try:
            with explained(place.url):
                if page_blob:
                    job.pages(file, size or 0)
                else:
                    job.blocks(file, size)
                job.finish()
        finally:
            job.close()
    return job.report


def upload_converted(
    src: Input,
    place: Place,
    *,
    target: str | Target,
    policies: Policies | None = None,
    progress: Callable[[int], object] | None = None,
    **settings: Any,
) -> tuple[Conversion, Upload]:
    """Convert a snapshot for a target while it is sent: there is no copy on this machine.

    Args:
        src: as for `rdbkit.open`.
        target, policies: as for `rdbkit.convert`.
        progress: called with bytes of the source read so far.
        settings: as for `upload`.

    Raises: as `rdbkit.convert` and `upload`; there is a blob only if both end well.
    """
    pipe = _Pipe()
    reports: list[Conversion] = []

    def work() -> None:
        try:
            reports.append(convert(src, cast(BinaryIO, pipe), target=target, policies=policies, progress=progress))
        except BaseException as e:
            pipe.end(e)
        else:
            pipe.end(None)

    converter = threading.Thread(target=work, daemon=True)
    converter.start()
    try:
        done = upload(pipe, place, **settings)
    finally:
        pipe.break_off()
        converter.join()
    return reports[0], done


class _Broken(Exception):
    """The reader of a pipe has gone."""


class _Pipe:
    """Bytes from one thread to another, a few pieces at a time."""

    def __init__(self) -> None:
        self.pieces: queue.Queue[bytes | BaseException | None] = queue.Queue(16)
        self.rest: memoryview = memoryview(b"")
        self.broken = False
        self.ended = False

    def write(self, data: bytes) -> int:
        self.put(bytes(data))
        return len(data)

    def end(self, error: BaseException | None) -> None:
        """Nothing more will come, or only this error."""
        if not isinstance(error, _Broken):
            with suppress(_Broken):
                self.put(error)

    def put(self, piece: bytes | BaseException | None) -> None:
        while not self.broken:
            try:
                self.pieces.put(piece, timeout=0.1)
                return
            except queue.Full:
                continue
        raise _Broken

    def read(self, n: int) -> bytes:
        """Up to `n` bytes, b"" at the end; raises what the writer raised."""
        while not self.rest and not self.ended:
            piece = self.pieces.get()
            if isinstance(piece, BaseException):
                raise piece
            if piece is None:
                self.ended = True
            else:
                self.rest = memoryview(piece)
        data, self.rest = self.rest[:n], self.rest[n:]
        return bytes(data)

    def break_off(self) -> None:
        """Let the writer end."""
        self.broken = True


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
        with open(src, "rb", buffering=0) as file:
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
    def __init__(
        self,
        service: Any,
        place: Place,
        block_bytes: int,
        concurrency: int,
        overwrite: bool,
        cap_mbps: float | None,
        progress: Callable[[int], object] | None,
    ) -> None:
        self.blob = service.get_blob_client(place.container, place.blob)
        self.place = place
        self.block_bytes = block_bytes
        self.concurrency = concurrency
        self.overwrite = overwrite
        self.pace = Pace(None if cap_mbps is None else cap_mbps * 1e6 / 8)
        self.progress = progress
        self.begin = time.monotonic()
        self.report = Upload(place.url)
        self.md5 = hashlib.md5(usedforsecurity=False)
        self.arrived = 0
        self.lock = threading.Lock()
        self.before = self.look()

    def look(self) -> str | None:
        """The etag of the blob that is there, None for none; raises TargetError where it must not be replaced."""
        from azure.core.exceptions import ResourceNotFoundError

        with explained(self.place.url):
            try:
                found = self.blob.get_blob_properties()
            except ResourceNotFoundError as e:
                code = getattr(e, "error_code", None)
                if getattr(code, "value", code) == "ContainerNotFound":
                    raise
                return None
        if not self.overwrite:
            raise TargetError("the blob exists; --overwrite replaces it", source=self.place.url)
        return str(found.etag)

    @property
    def condition(self) -> dict[str, Any]:
        """That nobody has changed the blob since it was looked at."""
        from azure.core import MatchConditions

        if self.before is None:
            return {"match_condition": MatchConditions.IfMissing}
        return {"etag": self.before, "match_condition": MatchConditions.IfNotModified}

    # -- block blobs

    def blocks(self, file: BinaryIO | Reader, size: int | None) -> None:
        """Send the blocks that are not there, and make the blob of all."""
        from azure.storage.blob import BlobBlock, ContentSettings

        self.there = self.uncommitted()
        self.ids: list[str] = []
        for data in self.cut(file, size):
            self.ids.append("")
            self.send(self.stage, len(self.ids) - 1, data)
        self.wait()
        self.look_at_length(file, size)
        self.report.blocks = len(self.ids)
        settings = ContentSettings(content_type="application/octet-stream", content_md5=bytearray(self.md5.digest()))
        self.blob.commit_block_list([BlobBlock(name) for name in self.ids], content_settings=settings, **self.condition)

    def uncommitted(self) -> dict[str, int]:
        """Blocks that an upload has left, and their bytes."""
        from azure.core.exceptions import ResourceNotFoundError

        try:
            _, waiting = self.blob.get_block_list("uncommitted")
        except ResourceNotFoundError:
            return {}
        return {block.id: block.size for block in waiting}

    def cut(self, file: Any, size: int | None) -> Iterator[bytes]:
        """The blocks in their order; an empty file has none."""
        number = 0
        while True:
            if number >= _MOST_BLOCKS:
                raise TargetError(f"more than {_MOST_BLOCKS} blocks; --block-size makes them larger", source=self.place.url)
            step = self.block_bytes if size is not None else self.block_bytes << number // _GROWS_AFTER
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
        """Send a block that is not there, which the service compares with its MD5; `validate_content` would compute that anew."""
        digest = hashlib.md5(data, usedforsecurity=False)
        name = self.ids[number] = f"{number:05}{digest.hexdigest()}"
        if self.there.get(name) == len(data):
            with self.lock:
                self.report.kept += 1
            return False
        self.pace.take(len(data))
        self.blob.stage_block(name, data, length=len(data), headers={"Content-MD5": b64encode(digest.digest()).decode()})
        return True

    # -- page blobs

    def pages(self, file: BinaryIO, size: int) -> None:
        """Write a page blob of `size` bytes, filled up."""
        from azure.storage.blob import ContentSettings

        whole = -(-size // _PAGE) * _PAGE
        self.blob.create_page_blob(whole, content_settings=ContentSettings("application/octet-stream"), **self.condition)
        self.block_bytes = min(self.block_bytes // _PAGE * _PAGE, _MOST_PAGES)
        at = 0
        padding = bytes(whole - size)
        for data in self.cut(file, size):
            if len(data) % _PAGE:
                data += padding
            self.send(self.page, at, data)
            at += len(data)
            self.report.blocks += 1
        self.wait()
        self.look_at_length(file, size)
        self.md5.update(padding)
        self.report.bytes = whole
        settings = ContentSettings(content_type="application/octet-stream", content_md5=bytearray(self.md5.digest()))
        self.blob.set_http_headers(settings)

    def page(self, at: int, data: bytes) -> bool:
        if not data.strip(b"\0"):  # it is zeros from the beginning
            return False
        self.pace.take(len(data))
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
        if how(where, data):
            with self.lock:
                self.report.sent_bytes += len(data)
        self.tell(len(data))

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

    def tell(self, size: int) -> None:
        with self.lock:
            self.arrived += size
            if self.progress is not None:
                self.progress(self.arrived)

    # -- the end

    def look_at_length(self, file: Any, size: int | None) -> None:
        """Whether a file has grown or shrunk while it was read."""
        if size is not None and not self.report.bytes == size == os.fstat(file.fileno()).st_size:
            raise TargetError("the file has changed while it was sent; run this again", source=self.place.url)

    def finish(self) -> None:
        """Compare what the service has with what was read."""
        report = self.report
        report.md5 = self.md5.hexdigest()
        found = self.blob.get_blob_properties()
        stored = bytes(found.content_settings.content_md5 or b"").hex()
        if found.size != report.bytes or stored != report.md5:
            raise TargetError(
                f"the blob has {found.size} bytes and MD5 {stored or 'none'}, but {report.bytes} with {report.md5} were sent",
                source=self.place.url,
            )
        report.etag = str(found.etag)
        report.seconds = time.monotonic() - self.begin

"""Files that are not on this machine: objects of a store, named by their URLs and read in pieces, several of them ahead.

A URL can have a signature in its query. Only this module keeps that: everybody else has the name of the file, which is the URL
without a query (`name_of`), so that no message, report or state can show it.

Every piece is asked for under the condition that the object is the one that was opened: one that is replaced meanwhile is an error,
never a mixture of both.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rdbkit.errors import ChangedError, RdbError, TargetError

if TYPE_CHECKING:  # which are imported where a file is a URL
    from rdbkit.storage.blob_store import Blob
    from rdbkit.storage.blob_url import BlobUrl
    from rdbkit.storage.credentials import Credentials
    from rdbkit.storage.object_store import StoredObject
    from rdbkit.storage.object_url import ObjectUrl

_SCHEMES: Final = ("https://", "http://", "s3://", "gs://", "az://", "abfs://", "abfss://")
_SERVERS: Final = ("redis://", "rediss://", "redis+sentinel://", "rediss+sentinel://")
#: Bytes of the first piece, and of the largest: who reads on gets larger ones, and who looks at a few bytes does not pay for more.
_FIRST: Final = 1 << 16
_LARGEST: Final = 8 << 20
_GROWTH: Final = 8
_PART: Final = 1 << 20
#: Pieces that are asked for before they are wanted: one more each time that a read has to wait, up to the last.
_AHEAD: Final = 4
_MOST_AHEAD: Final = 6
#: Seconds that the end of reading waits for pieces that are on their way, so that none comes when the process has ended.
_LAST_WAIT: Final = 1.0


class Version(NamedTuple):
    """Which object it is that was opened, and in which state.

    Attributes:
        name: its URL, without a query.
        size: in bytes.
        etag: changes whenever it is written.
    """

    name: str
    size: int
    etag: str


class _Object:
    """An object that was named, with its connections."""

    def __init__(self, opener: Blob | StoredObject) -> None:
        self.opener = opener
        self._stores: dict[bool, Any] = {}

    @property
    def place(self) -> BlobUrl | ObjectUrl:
        """Where it is."""
        return self.opener.place

    def store(self, *, patient: bool) -> Any:
        """A store that reads it, with its connections. Raises: TargetError where nothing opens it."""
        if patient not in self._stores:
            self._stores[patient] = self.opener.open(patient=patient)
        return self._stores[patient]

    def forget(self) -> None:
        """Choose again what opens it, when it is opened next: what was chosen did not."""
        self.opener.forget()
        self._stores.clear()


#: By their names.
_KNOWN: Final[dict[str, _Object]] = {}


def is_remote(path: object) -> bool:
    """Whether an input is a URL.

    >>> is_remote("https://a.blob.core.windows.net/dumps/b.rdb"), is_remote("s3://dumps/b.rdb"), is_remote("b.rdb")
    (True, True, False)
    """
    return isinstance(path, str) and path[:8].lower().startswith(_SCHEMES)


def is_server_url(text: object) -> bool:
    """Whether this is meant to be the URL of a server, which is no file: a snapshot of it can stand in for one.

    >>> is_server_url("rediss://cache.example:10000"), is_server_url("dump.rdb")
    (True, False)
    """
    return isinstance(text, str) and text.startswith(_SERVERS)


def name_of(path: str | os.PathLike[str]) -> str:
    """The name of a file: a path as it is, and a URL without its query, which is kept here.

    Raises: ValueError for a URL that names no object.

    >>> name_of("https://a.blob.core.windows.net/dumps/b.rdb?sig=x"), name_of("b.rdb")
    ('https://a.blob.core.windows.net/dumps/b.rdb', 'b.rdb')
    """
    text = os.fspath(path)
    if not is_remote(text):
        return text
    from rdbkit.storage.blob_url import BlobUrl
    from rdbkit.storage.credentials import Credentials
    from rdbkit.storage.object_url import parse_object
    from rdbkit.storage.store_settings import StoreSettings, current_settings

    settings = current_settings()
    known = _KNOWN.get(text)
    if known is not None:
        if settings not in (known.opener.settings, StoreSettings()):
            _KNOWN[text] = _Object(known.opener.reached(settings))
        return text
    place = parse_object(text, settings)
    if isinstance(place, BlobUrl):
        return remember(place, Credentials()) if place.sas or place.url not in _KNOWN else place.url
    return _remember_object(place)


def remember(place: BlobUrl, credentials: Credentials) -> str:
    """The name of a blob, and from now on what opens it."""
    from rdbkit.storage.blob_store import Blob
    from rdbkit.storage.store_settings import current_settings

    _KNOWN[place.url] = _Object(Blob(place, credentials, current_settings()))
    return place.url


def _remember_object(place: ObjectUrl) -> str:
    """The name of any other object. Of addresses that differ in their queries alone, all but the first have a number there."""
    from rdbkit.storage.object_store import StoredObject
    from rdbkit.storage.store_settings import current_settings

    name, number = place.url, 1
    while name in _KNOWN and not _is_same(_KNOWN[name].place, place):
        number += 1
        name = f"{place.url}?{number}"
    _KNOWN[name] = _Object(StoredObject(place, current_settings(), name))
    return name


def _is_same(one: BlobUrl | ObjectUrl, other: ObjectUrl) -> bool:
    """Whether two URLs of one address name the same file: a query may be a signature alone, or say which file is meant."""
    from rdbkit.storage.object_url import ObjectUrl

    return isinstance(one, ObjectUrl) and one.unsigned_query == other.unsigned_query


def base_name(path: str) -> str:
    """The last part of a path, or of what a URL names; of a server, what a file of it may be called.

    >>> base_name("dumps/b.rdb"), base_name("https://a.blob.core.windows.net/dumps/a%20b.rdb"), base_name("redis://app@cache:6379")
    ('b.rdb', 'a b.rdb', 'cache-6379.rdb')
    """
    if is_server_url(path):
        return f"{os.path.basename(path).rpartition('@')[2].replace(':', '-')}.rdb"
    return _object(path).opener.base_name if is_remote(path) else os.path.basename(path)


def version_of(path: str) -> Version:
    """What an object is now. Raises: TargetError where it is not there or cannot be asked; ValueError as `name_of`."""
    found: Version = _Opening(_object(path), 1).wait()[0]
    return found


def is_blob(path: str) -> bool:
    """Whether a file is a blob of Azure, as it is now: which its services read where it is.

    Raises: ValueError as `name_of`.
    """
    if not is_remote(path):
        return False
    from rdbkit.storage.blob_url import BlobUrl

    place = _object(path).place
    return isinstance(place, BlobUrl) and not place.revision


def _object(path: str) -> _Object:
    return _KNOWN[name_of(path)]


class _Task:
    """Something that a thread of its own does, which may be waited for.

    The thread does not hold up the end of the process: a service that is silent may take minutes.
    """

    def __init__(self, work: Callable[[], Any]) -> None:
        self._work = work
        self._result: Any = None
        self._error: BaseException | None = None
        self.done = threading.Event()
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as e:
            self._error = e
        finally:
            self.done.set()

    def wait(self) -> Any:
        """What came of it. Raises: as the work."""
        self.done.wait()
        if self._error is not None:
            raise self._error
        return self._result


class _Opening(_Task):
    """The first bytes of an object, and what it is."""

    def __init__(self, object_: _Object, size: int) -> None:
        store = object_.store(patient=False)

        def ask() -> tuple[Version, bytes]:
            try:
                return _first(store, object_.opener, size)
            except RdbError:
                raise
            except Exception as e:
                object_.forget()
                raise object_.opener.translated(e) from None

        super().__init__(ask)


def _first(store: Any, opener: Blob | StoredObject, size: int) -> tuple[Version, bytes]:
    import obstore

    try:
        found = obstore.get(store, opener.key, options={"range": (0, size)})
    except Exception as e:
        if not opener.is_empty(e):
            raise
        return _version(opener, opener.meta(store)), b""
    return _version(opener, found.meta), bytes(found.bytes())


def _version(opener: Blob | StoredObject, meta: Any) -> Version:
    if not meta["e_tag"]:
        raise TargetError("the service says nothing by which a change would be seen (no ETag)", source=opener.name)
    return Version(opener.name, int(meta["size"]), str(meta["e_tag"]))


class _Piece(_Task):
    """Some bytes of an object, on their way into a buffer."""

    def __init__(self, store: Any, opener: Blob | StoredObject, version: Version, begin: int, end: int, buffer: bytearray) -> None:
        self.begin = begin
        self.end = end
        self.buffer = buffer

        def ask() -> memoryview:
            import obstore

            options: Any = {"range": (begin, end)}
            if not version.etag.startswith("W/"):  # which is equal to none, itself included
                options["if_match"] = version.etag
            content = memoryview(buffer)[: end - begin]
            at = 0
            try:
                found = obstore.get(store, opener.key, options=options)
                if (found.meta["size"], found.meta["e_tag"]) != (
                    version.size,
                    version.etag,
                ):  # a cache on the way sees no condition
                    raise ChangedError(
                        f"the {opener.noun} was changed or replaced while it was read; run this again", source=version.name
                    )
                for part in found.stream(min_chunk_size=_PART):  # as one, it would be in memory twice
                    if at + len(part) <= len(content):
                        content[at : at + len(part)] = part
                    at += len(part)
            except RdbError:
                raise
            except Exception as e:
                raise opener.translated(e) from None
            if at != len(content):
                raise TargetError(f"the service has sent {at:,} bytes for {len(content):,}; run this again", source=version.name)
            return content

        super().__init__(ask)


class RemoteReader:
    """Reads an object, from its beginning on or from anywhere: up to `_MOST_AHEAD` + 1 pieces are in memory.

    Args:
        path: its URL.

    Attributes:
        name: the URL without its query.
        version: what was opened, and what all of it is read of.

    Raises: TargetError where it cannot be opened or read; ChangedError where it is replaced while it is read; ValueError as
        `name_of`.
    """

    def __init__(self, path: str) -> None:
        object_ = _object(path)
        self._opener = object_.opener
        self.name = object_.opener.name
        opened: tuple[Version, bytes] = _Opening(object_, _FIRST).wait()
        self.version, self._head = opened
        self._store = object_.store(patient=True)
        self._at = 0
        self._pieces: deque[_Piece] = deque()  # one behind the other, without gaps
        self._asked = len(self._head)  # up to where
        self._buffers: list[bytearray] = []  # of pieces that have been read
        self._size = _FIRST  # of the last piece that was asked for
        self._ahead = _AHEAD
        self._closed = False

    @property
    def size(self) -> int:
        """Bytes of the whole."""
        return self.version.size

    def read(self, n: int = -1, /) -> bytes:
        """The next `n` bytes, all that are left where that is less, or `n` is negative."""
        if self._closed:
            raise ValueError("the file is closed")
        left = max(self.size - self._at, 0)
        n = left if n < 0 else min(n, left)
        if not n:
            return b""
        found = self._some(n)
        if len(found) == n:
            return found
        parts = [found]
        while n := n - len(parts[-1]):
            parts.append(self._some(n))
        return b"".join(parts)

    def _some(self, n: int) -> bytes:
        """Up to `n` bytes, at least one."""
        if self._at < len(self._head):
            found = self._head[self._at : self._at + n]
        else:
            piece = self._piece()
            at = self._at - piece.begin
            found = bytes(piece.wait()[at : at + n])
        self._at += len(found)
        return found

    def _piece(self) -> _Piece:
        """The piece in which the next byte is; those behind it are asked for as well."""
        while self._pieces and self._pieces[0].end <= self._at:
            piece = self._pieces.popleft()
            if piece.done.is_set() and len(piece.buffer) == _LARGEST:
                self._buffers.append(piece.buffer)
        if self._pieces and self._at < self._pieces[0].begin:
            self._pieces.clear()
        if not self._pieces and self._at != self._asked:  # it is not read in its order: who knows where it goes on
            self._asked = self._at
            self._size = _FIRST // _GROWTH
        self._ask_ahead()
        piece = self._pieces[0]
        if not piece.done.is_set() and self._size == _LARGEST and self._ahead < _MOST_AHEAD:
            self._ahead += 1
            self._ask_ahead()
        return piece

    def _ask_ahead(self) -> None:
        while self._asked < self.size and len(self._pieces) <= (self._ahead if self._size == _LARGEST else 0):
            self._size = min(self._size * _GROWTH, _LARGEST)
            end = min(self._asked + self._size, self.size)
            # used again, and made by this thread: what each thread takes from the system, it would keep
            buffer = self._buffers.pop() if self._buffers and self._size == _LARGEST else bytearray(self._size)
            self._pieces.append(_Piece(self._store, self._opener, self.version, self._asked, end, buffer))
            self._asked = end

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place, as in a file."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self.size}[whence]
        self._at = max(base + offset, 0)
        return self._at

    def tell(self) -> int:
        """Where the next byte is read."""
        return self._at

    def close(self) -> None:
        """Let go of what is on its way."""
        self._closed = True
        pieces, self._pieces = self._pieces, deque()
        self._buffers.clear()
        wait = _LAST_WAIT
        for piece in pieces:
            if not piece.done.wait(wait):
                wait = 0

    def __enter__(self) -> RemoteReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

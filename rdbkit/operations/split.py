"""`rdbkit split`: divides the keys of snapshots among several files, each a complete snapshot, in one pass."""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import asdict, dataclass, field
from hashlib import md5, sha256
from typing import Any, BinaryIO, Final, Literal, cast

from rdbkit.errors import LossError
from rdbkit.format import constants as c
from rdbkit.format.record import Record
from rdbkit.format.scan import NO_EXPIRY
from rdbkit.format.slots import SLOTS
from rdbkit.model import TRAILING_DATA, Aux, FunctionLibrary, Header
from rdbkit.operations.arguments import File, paths_of, separators_of
from rdbkit.operations.duplicates import duplicate_error, find_duplicates
from rdbkit.passes.split import BYTES, DATABASE, KEY, PREFIX, SLOT, TAG, TYPE, PartBuffer, Splitter
from rdbkit.snapshot.large import Spool
from rdbkit.snapshot.reader import Snapshot, open_snapshot
from rdbkit.snapshot.writer import UNKNOWN, Writer
from rdbkit.storage.location import (
    check_distinct,
    exists,
    file_size,
    is_folder,
    is_link,
    is_rereadable,
    is_same_file,
    is_taken,
    total_size,
)
from rdbkit.storage.source import Rereading
from rdbkit.storage.temporary import Permissions, Temporary, give_name, group_of_new, make_folders
from rdbkit.text import json_bytes, valid_text

__all__ = ["Division", "Part", "Split", "parse_nodes", "parse_slot_parts", "split"]

By = Literal["db", "prefix", "type", "hash-tag", "key"]
_SPLIT_BY: Final[dict[str, int]] = {"db": DATABASE, "prefix": PREFIX, "type": TYPE, "hash-tag": TAG, "key": KEY}

MANIFEST: Final = "manifest.json"
MOST_PARTS: Final = 10_000
_OPEN_FILES: Final = 64
_BUFFERED: Final = 16 << 20  # bytes that wait for their files, of all parts together
_STRETCH: Final = 1 << 20
_PIECE: Final = 1 << 20
_ROOM: Final = 4096  # bytes of a part beside records and what stands before them
_SLOTS: Final = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]+")
_LABEL: Final = 40


@dataclass(frozen=True)
class Division:
    """How keys are divided; exactly one of these.

    Args:
        size: parts of at most so many bytes, and most of about the same; larger is only what one key, or the keys of one hash tag,
            make so.
        parts: so many parts of about the same bytes.
        slots: the cluster slots of each part, with a name for it.
        by: one part for each database, prefix, type, hash tag, or key.
        separators: for "prefix", ASCII characters or bytes, each of which ends it.

    Raises: ValueError for none of them, for several, and for what cannot be; TypeError for separators that are no text.
    """

    size: int | None = None
    parts: int | None = None
    slots: tuple[tuple[str, tuple[range, ...]], ...] | None = None
    by: By | None = None
    separators: str | bytes = b":"

    def __post_init__(self) -> None:
        given = [name for name in ("size", "parts", "slots", "by") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError("a split is by size, parts, slots, or one of db, prefix, type, hash-tag, key")
        if self.parts is not None and not 1 <= self.parts <= MOST_PARTS:
            raise ValueError(f"{self.parts} parts, where 1 to {MOST_PARTS} can be")
        if self.size is not None and self.size < 1 << 16:
            raise ValueError("parts of fewer than 64 KiB have little in them but their own frame")
        if self.by is not None and self.by not in _SPLIT_BY:
            raise ValueError(f"{self.by!r} is none of {', '.join(_SPLIT_BY)}")
        object.__setattr__(self, "separators", separators_of(self.separators))


@dataclass
class Part:
    """One of the files.

    Attributes:
        file: its name in the folder.
        label: what its keys have in common, empty for parts of equal size.
        keys, expires: how many, and how many of them expire; `databases` has them by database.
        bytes: of the file.
        slots: first and last of each range of cluster slots, where the keys were divided by these.
        crc64: the checksum that the file itself ends with, in hexadecimal; empty where its version has none.
        md5, sha256: of the whole file, in hexadecimal; empty where they were not asked for.
    """

    file: str
    label: bytes
    keys: int
    expires: int
    databases: dict[int, int]
    bytes: int
    slots: list[tuple[int, int]] | None
    crc64: str
    md5: str = ""
    sha256: str = ""


@dataclass
class Split:
    """What `split` did; what `manifest.json` says, too.

    Attributes:
        sources: the files that were read.
        header: of all parts, such as "REDIS0011".
        notes: what was left out since it was of the whole: by its name, how often.
        behind: files behind whose end mark something stands that is in no part, by `Trailer.kind`: "aof", commands of an
            append-only file, or those of a "replication", which change the snapshot; another "snapshot"; or "unknown" bytes.
    """

    sources: list[str]
    header: str
    keys: int
    parts: list[Part]
    notes: dict[str, int] = field(default_factory=dict)
    behind: list[tuple[str, str]] = field(default_factory=list)

    @property
    def whole(self) -> bool:
        """Whether all keys that the files have are in the parts."""
        return all(what == "unknown" for _, what in self.behind)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; bytes that are not UTF-8 as `{"base64": ...}`."""
        result = asdict(self)
        for row in result["parts"]:
            row["label"] = json_bytes(row["label"])
        result["sources"] = [valid_text(source) for source in self.sources]
        result["behind"] = [{"file": valid_text(file), "what": what} for file, what in self.behind]
        return result


def parse_slot_parts(text: str) -> tuple[tuple[str, tuple[range, ...]], ...]:
    """Ranges of slots, a part each.

    Raises: ValueError for what is no range, and for a slot that is in two.

    >>> parse_slot_parts("0-5460,5461-10922,10923-16383")[1]
    ('5461-10922', (range(5461, 10923),))
    """
    parts = []
    for word in text.split(","):
        found = _slot_range(word.strip())
        if found is None:
            raise ValueError(f"{word.strip()!r} is no range of slots, as in 0-5460")
        parts.append((word.strip(), (found,)))
    _check_slots(parts)
    return tuple(parts)


def parse_nodes(text: str) -> tuple[tuple[str, tuple[range, ...]], ...]:
    """The slots of each master of a cluster, from its `nodes.conf` or the answer of CLUSTER NODES.

    Raises: ValueError where there is no master with slots, or a slot has two.

    >>> parse_nodes("07c3 10.0.0.1:6379@16379 myself,master - 0 0 1 connected 0-2 4 [93-<-77]\\n")
    (('10.0.0.1:6379', (range(0, 3), range(4, 5))),)
    """
    parts = []
    for line in text.splitlines():
        words = line.split()
        if len(words) < 9 or "master" not in words[2].split(","):
            continue
        ranges = []
        for word in words[8:]:
            if word.startswith("["):  # a slot on its way from or to another node, which is listed besides where it is
                continue
            found = _slot_range(word)
            if found is None:
                raise ValueError(f"{word!r} is no range of slots")
            ranges.append(found)
        if ranges:
            parts.append((words[1].partition("@")[0], tuple(ranges)))
    if not parts:
        raise ValueError("no master with slots is in there")
    _check_slots(parts)
    return tuple(parts)


def _slot_range(text: str) -> range | None:
    """The slots of "5" or "0-5460"; None for anything else."""
    match = _SLOTS.fullmatch(text)
    return None if match is None else range(int(match[1]), int(match[2] or match[1]) + 1)


def _check_slots(parts: Sequence[tuple[str, tuple[range, ...]]]) -> None:
    taken: dict[int, str] = {}
    for name, ranges in parts:
        for each in ranges:
            if not len(each) or each.start < 0 or each.stop > SLOTS:
                raise ValueError(f"{name}: slots are 0 to {SLOTS - 1}")
            for slot in each:
                if slot in taken:
                    raise ValueError(f"slot {slot} is in {taken[slot]} and in {name}")
                taken[slot] = name


def split(
    files: File | Iterable[File],
    into: str | os.PathLike[str],
    layout: Division,
    *,
    functions: Literal["first", "all"] = "first",
    digests: bool = True,
    on_loss: Literal["fail", "drop"] = "fail",
    force: bool = False,
    relaxed: bool = False,
    verify_checksum: bool = True,
    progress: Callable[[int], object] | None = None,
) -> Split:
    """Divide the keys of snapshots into several files.

    Each part is a complete snapshot of the sources' version, with their AUX fields and right counts. Where keys are divided by
    size, slot or hash tag, those with the same hash tag come to the same part. The parts appear in the folder when all of them are
    whole, and `manifest.json` after them.

    Args:
        files: path of the snapshot, or of several, all of one version, or snapshots that were just opened by it; files, since they
            are read several times. Of the AUX fields those of the first count.
        into: the folder, made where there is none.
        layout: how to divide.
        functions: function libraries, Lua scripts and modules' own data go to the "first" part, or to "all".
        digests: have MD5 and SHA-256 of each part, which take longer than the split itself.
        on_loss: at commands or another snapshot behind the end of a source, "fail", or "drop" them, which are in no part.
        force: replace files that exist.
        relaxed, verify_checksum: as for `rdbkit.open`.
        progress: called with the bytes read so far.

    Raises: ValueError where a source is no file, where the sources have several versions or different libraries of one name,
        where a size is asked for and their bytes are not known, and for more than 10,000 parts; LossError, with `Split.behind` as
        its `report`; DuplicateError where a key is there more than once, which no server loads; ChangedError where a source is
        another at a later reading; RdbError where one is damaged; FileExistsError, and other OSError.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = split(["fixtures/rich/redis-7.0.15.rdb"], folder, Division(by="db"))
    ...     [(part.file, part.keys) for part in done.parts]
    [('0001-0.rdb', 26), ('0002-3.rdb', 1)]
    """
    files, into = paths_of(files), os.fspath(into)
    if not files:
        raise ValueError("there is nothing to split")
    check_distinct(files)
    for name in files:
        if not is_rereadable(name):
            what = "standard input" if name == "-" else name
            raise ValueError(f"{what}: it is read several times, and has to be a file")
    job = _Job(files, into, layout, functions, digests, on_loss, force, relaxed, verify_checksum, progress)
    job.check_name(MANIFEST)
    if is_taken(into) and not is_folder(into):
        raise NotADirectoryError(20, "Not a directory", into)
    made = make_folders(into, job.permissions)
    try:
        return job.run()
    except BaseException:
        job.undo()
        for folder in made:
            with suppress(OSError):
                os.rmdir(folder)
        raise
    finally:
        job.close()


class _Files:
    """Temporary files of which so many are open at a time.

    Args:
        mode: of new ones, which is asked for when the first is made.
    """

    def __init__(self, mode: Callable[[], int]) -> None:
        self._mode = mode
        self._open: OrderedDict[str, BinaryIO] = OrderedDict()

    def get(self, path: str, position: int) -> BinaryIO:
        file = self._open.get(path)
        if file is None:
            while len(self._open) >= _OPEN_FILES:
                self._open.popitem(last=False)[1].close()
            file = self._opened(path)
            file.seek(position)
            self._open[path] = file
        else:
            self._open.move_to_end(path)
        return file

    def _opened(self, path: str) -> BinaryIO:
        """The file; where the system lets no more be open, one less is from here on."""
        while True:
            try:
                if exists(path):
                    return open(path, "r+b", buffering=0)
                return open(path, "xb", buffering=0, opener=lambda name, flags: os.open(name, flags, self._mode()))
            except OSError as e:
                if e.errno not in (errno.EMFILE, errno.ENFILE) or not self._open:
                    e.filename = os.path.dirname(path) or os.curdir
                    raise
                self._open.popitem(last=False)[1].close()

    def close(self) -> None:
        while self._open:
            self._open.popitem()[1].close()


class _File:
    """A temporary file that is open now and then; what a `Writer` needs of one."""

    can_seek = True

    def __init__(self, files: _Files, path: str) -> None:
        self._files = files
        self.path = path
        self.folder = os.path.dirname(path) or os.curdir  # what users know; nobody has given the file its name
        self._position = 0

    def write(self, data: bytes) -> int:
        view = memoryview(data)
        while view:
            try:
                written = self._files.get(self.path, self._position).write(view) or 0
            except OSError as e:
                e.filename = e.filename or self.folder  # a full disk names no file
                raise
            self._position += written
            view = view[written:]
        return len(data)

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> int:
        self._position = self._files.get(self.path, position).seek(position)
        return position


@dataclass
class _Open:
    """A part that is being written."""

    label: bytes
    file: _File
    writer: Writer
    expires: int = 0
    databases: dict[int, int] = field(default_factory=dict)


class _Libraries:
    """The function libraries of all sources: the code of each, and the file that has it."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[bytes, str]] = {}

    def has_from_other(self, library: FunctionLibrary, file: str) -> bool:
        """Whether an earlier file has this library, too; otherwise `file` is the one that has it.

        Raises: ValueError where an earlier file has another of that name.
        """
        code, where = self._found.setdefault(library.name, (library.code, file))
        if where == file:
            return False
        if code != library.code:
            raise ValueError(
                f"{where} and {file} have different function libraries that are called {library.name!r}, and a "
                "server takes one: merge them first, which keeps one of the two"
            )
        return True


class _Job:
    """One split."""

    def __init__(
        self,
        files: Sequence[str],
        into: str,
        layout: Division,
        functions: str,
        digests: bool,
        on_loss: str,
        force: bool,
        relaxed: bool,
        verify_checksum: bool,
        progress: Callable[[int], object] | None,
    ) -> None:
        self.sources = files
        self.into = into
        self.layout = layout
        self.functions = functions
        self.digests = digests
        self.on_loss = on_loss
        self.force = force
        self.relaxed = relaxed
        self.verify_checksum = verify_checksum
        self.progress = progress
        self.read = 0
        self.rereading = Rereading()
        self.permissions = Permissions(files)
        self.open_files = _Files(lambda: self.permissions.mode(group_of_new(into)))
        self.temporary: Temporary | None = None
        self.parts: list[_Open] = []
        self.manifest = _File(self.open_files, "")
        self.header = Header(c.REDIS, 0)
        self.before_keys: list[tuple[bool, bytes]] = []  # whether it goes to all parts, and its bytes
        self.db = 0
        self.splitter: Splitter | None = None
        self.behind: list[tuple[str, str]] = []

    def run(self) -> Split:
        try:  # where nothing can be written to the folder, that is to be known first
            self.temporary = Temporary(self.into, self.permissions)
        except OSError as e:
            e.filename = self.into
            raise
        self.manifest.path = self.temporary.path
        with self._open_source(self.sources[0]) as first:
            self.header = first.header
        self._read_prelude()
        labels = self._labels()
        for name in self.sources:
            self.open_files.close()  # the source needs one
            with self._open_source(name) as snapshot:
                if self.splitter is None:
                    self._begin(snapshot, labels)
                self._split(snapshot)
                self.read += snapshot.position
                if snapshot.trailer is not None and snapshot.trailer.kind in TRAILING_DATA:
                    self.behind.append((name, snapshot.trailer.kind))
        lost = [each for each in self.behind if each[1] != "unknown"]
        if lost and self.on_loss == "fail":
            file, kind = lost[0]
            message = f"{TRAILING_DATA[kind]} behind the snapshot would be in no part, and nothing was written"
            error = LossError(message, source=file)
            error.report = lost
            raise error
        if self.splitter is not None and self.splitter.hashes.any_twice():
            found = find_duplicates(self.sources, relaxed=self.relaxed, rereading=self.rereading)
            if found.keys:
                raise duplicate_error(found.keys, found.samples)
        return self._finish()

    def undo(self) -> None:
        """Nothing half-written stays."""
        self.open_files.close()
        for file in [*(part.file for part in self.parts), self.manifest]:
            with suppress(OSError):
                os.unlink(file.path)

    def close(self) -> None:
        """Give up the lock of the temporary files, which have their names now, or are gone."""
        if self.temporary is not None:
            self.temporary.close()
        if self.splitter is not None:
            self.splitter.hashes.partitions.close()

    def check_name(self, name: str) -> None:
        """Raise where a file cannot be called so: now, rather than when all is written."""
        path = os.path.join(self.into, name)
        if is_folder(path) and not is_link(path):
            raise IsADirectoryError(21, "Is a directory", path)
        if any(is_same_file(path, name) for name in self.sources):
            raise ValueError(f"{path} is one of the files to be read")
        if not self.force and is_taken(path):
            raise FileExistsError(17, "File exists", path)

    def _open_source(self, name: str) -> Snapshot:
        return open_snapshot(name, relaxed=self.relaxed, verify_checksum=self.verify_checksum, rereading=self.rereading)

    # -- before the keys

    def _read_prelude(self) -> None:
        """What stands before the keys of each source; versions are compared before anything is written."""
        seen: set[bytes] = set()
        libraries = _Libraries()
        for number, name in enumerate(self.sources):
            with self._open_source(name) as snapshot:
                if snapshot.header != self.header:
                    raise ValueError(
                        f"{name} is {snapshot.header}, and {self.sources[0]} {self.header}: convert them to one version"
                    )
                prelude = snapshot.prelude()
            if number and self.header == Header(c.REDIS, 15):
                raise ValueError("hash templates of RDB 15 are of one file: merge the sources first")
            for event, raw in prelude:
                # Lua scripts are fields too, one each, but no more of the file as a whole than libraries are
                everywhere = isinstance(event, Aux) and event.key != c.SCRIPT
                if everywhere and number:
                    continue
                if isinstance(event, FunctionLibrary) and libraries.has_from_other(event, name):
                    continue
                if raw not in seen or everywhere:
                    seen.add(raw)
                    self.before_keys.append((everywhere or self.functions == "all", raw))

    def _labels(self) -> list[bytes] | None:
        """Names of the parts, where these are known before the keys are."""
        layout = self.layout
        if layout.slots is not None:
            rest = sum(len(r) for _, ranges in layout.slots for r in ranges) < SLOTS
            return [name.encode() for name, _ in layout.slots] + ([b"other slots"] if rest else [])
        if layout.by is not None:
            return None
        count = layout.parts
        if count is None:
            assert layout.size is not None
            total = total_size(self.sources)
            room = self._capacity() - self._stretch()
            if room <= 0:
                raise ValueError(f"what stands before the keys leaves no room in {layout.size} bytes")
            count = max(1, math.ceil(total / room))
            if count > MOST_PARTS:
                raise ValueError(f"{count} parts of {layout.size} bytes, where {MOST_PARTS} can be")
        return [b""] * count

    def _capacity(self) -> int:
        """Bytes of records that a part has room for, where its size is limited."""
        if self.layout.size is None:
            return 0
        return max(1, self.layout.size - sum(len(raw) for _, raw in self.before_keys) - _ROOM)

    def _stretch(self) -> int:
        """How many bytes go to a part at a time: little of what each of them gets."""
        size = self.layout.size
        if size is None and self.layout.parts is not None:
            size = total_size(self.sources) // self.layout.parts
        return _STRETCH if size is None else max(1, min(_STRETCH, size // 64))

    def _begin(self, snapshot: Snapshot, labels: list[bytes] | None) -> None:
        layout = self.layout
        if layout.size is not None and snapshot.compression is not None:
            raise ValueError(
                "how large a compressed file is inside is not known before it has been read: split it by a number of parts"
            )
        split_by = SLOT if layout.slots is not None else BYTES if layout.by is None else _SPLIT_BY[layout.by]
        of_slot = [len(layout.slots) if layout.slots is not None else 0] * SLOTS
        for number, (_, ranges) in enumerate(layout.slots or ()):
            for each in ranges:
                for slot in each:
                    of_slot[slot] = number
        limit = snapshot.limits.item_bytes
        self.splitter = Splitter(
            split_by, 0, snapshot.types, limit, of_slot, cast("bytes", layout.separators), self._stretch(), self._capacity(),
            self.functions == "all", self._make, self._leave_database,
        )  # fmt: skip
        for number, label in enumerate(labels or ()):
            self.check_name(_file_name(number, label, len(labels or ())))
        for label in labels or ():
            self._make(label)
        self.splitter.first_parts = len(self.parts)

    def _make(self, label: bytes) -> int:
        """A new part; returns its number."""
        assert self.splitter is not None
        number = len(self.parts)
        if number >= MOST_PARTS:
            raise ValueError(f"more than {MOST_PARTS} parts")
        self.check_name(_file_name(number, label, number + 1))
        assert self.temporary is not None
        file = _File(self.open_files, self.temporary.beside(number))
        writer = Writer(nullcontext(cast(BinaryIO, file)), self.header, True, False)
        self.parts.append(_Open(label, file, writer))
        writer.__enter__()
        for everywhere, raw in self.before_keys:
            if everywhere or number == 0:
                writer.append(raw)
        for raw in self.splitter.templates:
            writer.append(raw)
        buffer = PartBuffer()
        for raw in self.splitter.passed:
            writer.append(raw)
            buffer.bytes += len(raw)
        self.splitter.buffers.append(buffer)
        return number

    # -- the keys

    def _split(self, snapshot: Snapshot) -> None:
        splitter = self.splitter
        assert splitter is not None
        splitter.db = 0
        self.db = 0
        snapshot.keep_prelude(lambda event, raw: False)  # it stands in the parts already
        for large in snapshot.scan(splitter):
            if large is not None:
                self._large(snapshot, large, splitter)
            self._hand_over()
            if self.progress is not None:
                self.progress(self.read + snapshot.position)
        splitter.leave_front()
        self._leave_database()

    def _hand_over(self, everything: bool = False) -> None:
        """Give the writers what has piled up for them, where it is much."""
        assert self.splitter is not None
        buffers = self.splitter.buffers
        if not everything and sum(len(buffer.out) for buffer in buffers) < _BUFFERED:
            return
        for part, buffer in zip(self.parts, buffers, strict=True):
            data = buffer.out.getvalue()
            if data:
                buffer.out.truncate(0)
                self._copy(part, data, int(buffer.keys), int(buffer.expires))
                buffer.keys = 0
                buffer.expires = 0
                part.writer.flush()

    def _copy(self, part: _Open, data: bytes, keys: int, expires: int) -> None:
        part.writer.copy(data, self.db, keys, expires, UNKNOWN)
        if keys:
            part.expires += expires
            part.databases[self.db] = part.databases.get(self.db, 0) + keys

    def _leave_database(self) -> None:
        assert self.splitter is not None
        self._hand_over(everything=True)
        self.db = int(self.splitter.db)

    def _large(self, snapshot: Snapshot, record: Record, splitter: Splitter) -> None:
        """A record larger than a block goes straight to its part."""
        if record.is_module_data:
            splitter.leave_front()
            splitter.event_at = -1  # it will report this when it has passed it, and nothing of it is in its block
            if not self.parts:
                splitter.part_named(b"")
            numbers = range(len(self.parts)) if self.functions == "all" else range(1)
            keys = 0
        else:
            keys = 1
        self._hand_over(everything=True)
        head = splitter.take_front() + snapshot.large_head
        with ExitStack() as stack:
            chunks = record.chunks()
            if keys:
                splitter.hashes.add(splitter.db, record.key)
                number = int(splitter.part_of(record.type_code, record.key))
                if number < 0 and splitter.capacity:
                    # how much room it needs is known at its end
                    spool = stack.enter_context(Spool(chunks))
                    splitter.make_room(len(head) + spool.size)
                    chunks = spool.pieces()
                if number < 0:
                    number = int(splitter.filling)
                numbers = range(number, number + 1)
                splitter.current = number
            parts = [self.parts[number] for number in numbers]
            expires = keys if record.expire_ms not in (None, NO_EXPIRY) else 0
            for part in parts:
                self._copy(part, head, keys, expires)
            for chunk in chunks:
                for part in parts:
                    part.writer.append(chunk)
        for number in numbers:
            splitter.grow(number, (record.size or 0) + len(head) - len(snapshot.large_head))

    # -- the end

    def _finish(self) -> Split:
        splitter = self.splitter
        assert splitter is not None
        if not self.parts:
            self._make(b"")
        for part in self.parts:
            part.writer.__exit__(None, None, None)
        self.open_files.close()
        found = [self._report(number, part) for number, part in enumerate(self.parts)]
        self._drop_empty_rest(found)
        if self.digests:
            with ThreadPoolExecutor(2) as pool:
                for each, (one, other) in zip(found, pool.map(_digests, [p.file.path for p in self.parts]), strict=True):
                    each.md5, each.sha256 = one, other
        notes = dict(splitter.notes)
        for _, what in self.behind:
            notes[what] = notes.get(what, 0) + 1
        result = Split(list(self.sources), str(self.header), sum(each.keys for each in found), found, notes, self.behind)
        self._appear(result)
        return result

    def _report(self, number: int, part: _Open) -> Part:
        """What there is to say of a part that is written, its digests aside."""
        slots = self.layout.slots
        ranges = None
        if slots is not None and number < len(slots):
            ranges = [(each.start, each.stop - 1) for each in slots[number][1]]
        return Part(
            _file_name(number, part.label, len(self.parts)), part.label, part.writer.written, part.expires, part.databases,
            file_size(part.file.path) or 0, ranges, part.writer.crc64,
        )  # fmt: skip

    def _drop_empty_rest(self, found: list[Part]) -> None:
        """Drop the part of what is outside of the ranges of slots, where that is nothing."""
        slots = self.layout.slots
        if slots is not None and len(found) > len(slots) and not found[-1].keys:
            os.unlink(self.parts.pop().file.path)
            found.pop()

    def _appear(self, result: Split) -> None:
        """Give the files their names; the manifest comes last."""
        self.manifest.write(json.dumps(result.to_dict(), indent=2).encode() + b"\n")
        self.open_files.close()
        names = [*(part.file for part in result.parts), MANIFEST]
        files = [*(part.file for part in self.parts), self.manifest]
        for file in files:
            try:
                with open(file.path, "r+b") as opened:
                    os.fsync(opened)
            except OSError as e:
                e.filename = file.folder
                raise
        for name in names:
            self.check_name(name)
        for file, name in zip(files, names, strict=True):
            final = os.path.join(self.into, name)
            try:
                give_name(file.path, final, self.permissions)
            except OSError as e:
                e.filename = final
                raise
            file.path = final  # to be undone, should one of the others fail


def _file_name(number: int, label: bytes, of: int) -> str:
    """What a part is called, of so many."""
    width = max(4, len(str(of)))
    text = _UNSAFE.sub("-", label.decode("utf-8", "replace").strip(":")).strip("-.")[:_LABEL]
    return f"{number + 1:0{width}}" + (f"-{text}" if text else "") + ".rdb"


def _digests(path: str) -> tuple[str, str]:
    one, other = md5(usedforsecurity=False), sha256()
    for piece in _pieces(path):
        one.update(piece)
        other.update(piece)
    return one.hexdigest(), other.hexdigest()


def _pieces(path: str) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            yield piece

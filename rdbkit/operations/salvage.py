"""`rdbkit salvage`: what is sound of a damaged snapshot, as a snapshot that loads.

A file is read as `verify` reads it. A record that breaks a rule is left out; where the framing breaks, what follows is searched for
the next row of records that can be believed. What is left is then copied by `convert`, which sees a file without damage.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO, Final, NamedTuple

from librt.strings import BytesWriter

from rdbkit.errors import NOT_READ, ChecksumError, CorruptError, RdbError, TruncatedError
from rdbkit.format import constants as c
from rdbkit.format.budget import HELD, OBJECT, Budget
from rdbkit.format.encode import write_length
from rdbkit.format.primitives import read_length, skip_string
from rdbkit.format.scan import attributes_end
from rdbkit.model import TRAILING_DATA, Header
from rdbkit.operations.arguments import File, path_of
from rdbkit.operations.convert import convert
from rdbkit.operations.verify import check_functions, rule_of
from rdbkit.passes.hashes import NameHashes
from rdbkit.passes.salvage import ROW, Search, Surveyor, Templates
from rdbkit.passes.verify import Repeats
from rdbkit.snapshot.capture import MARK_BYTES, Frame, begins_snapshot, frame_end, read_trailer, skip_mark, window_of
from rdbkit.snapshot.reader import BLOCK_SIZE, Limits, Snapshot, open_snapshot, usual_limits
from rdbkit.storage.location import Identity, is_same_file, open_file
from rdbkit.storage.source import UNKNOWN, Source, open_source
from rdbkit.storage.spliced_file import SplicedFile
from rdbkit.storage.temporary import Permissions, temporary_file
from rdbkit.targets.target import target_of
from rdbkit.text import json_bytes, valid_text

__all__ = ["Lost", "Salvage", "salvage"]

#: The end of what is read in the second pass. The checksum is none; zero would say that the file is to have none.
_END: Final = b"\xff" + b"none" * 2
#: The end of the layout of hashes whose fields are an expiry, a name and a value each.
_EXPIRY_FIRST: Final = "*(lss)"
#: So many fields a hash has at most in the eyes of a search; and one of which nothing says how many.
_FIELDS: Final = 1 << 16
_SOME_FIELDS: Final = 1 << 12
#: Records between two gaps that are not enough to tell keys from fields.
_SHORT: Final = 64
#: A database's number, and how many keys it has; not for numbers over 16383, or more than 32 bits of keys.
_DATABASE: Final = re.compile(
    rb"\xfe([\x00-\x3f]|[\x40-\x7f].)\xfb(?:[\x00-\x3f]|[\x40-\x7f].|\x80.{4}){2}(?=[\x00-\x20ky\xf3-\xfd])", re.DOTALL
)
#: Bytes that a stretch to be left out takes, and what stands around it.
_STRETCH_BYTES: Final = 600
_PIECE: Final = 4 << 20
#: Bytes that precede a record's type at most, nearly always, and what is read to see how a record begins.
_ATTRIBUTE_BYTES: Final = 64
_HEAD_BYTES: Final = 1 << 12
#: How far back a length may have swallowed records that are looked for; and how often a file may be gone over for them.
_BACK: Final = 1 << 26
_BACKWARDS: Final = 8


@dataclass(frozen=True)
class Lost:
    """Something of the file that is not in the new one.

    Attributes:
        what: "key" (a record that breaks a rule), "gap" (bytes that could not be parsed), "library" (of functions) or "behind"
            (what follows the end mark, which was not searched).
        rule: the name of the rule that is broken, as `rdbkit.operations.verify.rules` has it.
        message: what is wrong.
        db, key: where they are known.
        offset, size: where it stands in the (decompressed) file, and how much of it, in bytes.
    """

    what: str
    rule: str
    message: str
    db: int | None
    key: bytes | None
    offset: int
    size: int

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {**asdict(self), "key": None if self.key is None else json_bytes(self.key)}


@dataclass
class Salvage:
    """What `salvage` did.

    Attributes:
        file, header: name of the file, and flavour and version, which are those of the new one too.
        kept: keys written.
        announced: how many keys the file itself says that it has, as far as that could be read; None for nothing.
        lost: counts of what was left out, by `Lost.what`.
        lost_bytes: what all of it takes in the file.
        samples: the first of what was left out.
        doubtful: keys that are kept but stand beside a gap: the one before may have been cut short or run on by a damaged length,
            the one behind may have lost its expiry, or its database. The first of them, as database, name and offset.
        checksum: as of `Verification`.
        cut: the file ends before its end mark.
    """

    file: str
    header: str
    kept: int = 0
    announced: int | None = None
    lost: dict[str, int] = field(default_factory=dict)
    lost_bytes: int = 0
    samples: list[Lost] = field(default_factory=list)
    doubtful: list[tuple[int, bytes, int]] = field(default_factory=list)
    checksum: str = "unknown"
    cut: bool = False

    @property
    def whole(self) -> bool:
        """Whether the new file has everything, as far as is known."""
        return not self.lost and not self.cut and self.checksum != "mismatch" and self.kept >= (self.announced or 0)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; keys that are not UTF-8 as `{"base64": ...}`."""
        result = asdict(self)
        result["file"] = valid_text(self.file)
        result["samples"] = [lost.to_dict() for lost in self.samples]
        result["doubtful"] = [{"db": db, "key": json_bytes(key), "offset": offset} for db, key, offset in self.doubtful]
        result["whole"] = self.whole
        return result


def salvage(
    src: File,
    dst: str | os.PathLike[str] | BinaryIO,
    *,
    samples: int = 20,
    force: bool = False,
    limits: Limits | None = None,
    block_size: int | None = None,
    loss_callback: Callable[[Lost], object] | None = None,
    progress: Callable[[int], object] | None = None,
) -> Salvage:
    """Write a snapshot of what is sound in a damaged one.

    The new file has the version of the old one, and what `verify` finds nothing wrong with. A string that was changed without
    changing its length looks as sound as any other: only a checksum tells that there is one, and not where.

    Args:
        src: a path, or a snapshot that was just opened by it; what is compressed is unpacked to a temporary file. The header must
            be whole.
        dst, force: as for `rdbkit.create`.
        samples: how much to keep of what was left out, and of what is doubtful.
        limits, block_size: as for `rdbkit.open`.
        loss_callback: called with each `Lost`, in no certain order.
        progress: called with bytes of the file read so far, in the first of two runs.

    Raises: RdbError where the header is damaged or names a version that is not known; ValueError where `dst` is `src`;
        ChangedError where `src` is another file in the second run; TypeError for what is neither path nor snapshot,
        and ValueError for a snapshot of no file, since it is read twice; OSError.

    >>> import io, tempfile
    >>> from pathlib import Path
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     damaged = Path(folder, "damaged.rdb")
    ...     _ = damaged.write_bytes(Path("fixtures/rich/redis-7.0.15.rdb").read_bytes().replace(b"hello", b"hel"))
    ...     report = salvage(damaged, io.BytesIO())
    >>> report.kept, report.lost
    (26, {'gap': 1})
    """
    name = path_of(src)
    if is_same_file(name, dst):
        raise ValueError("the destination is the source")
    with _plain(name) as plain, plain.translating_errors():
        job = _Job(name, plain, samples, limits, block_size, loss_callback, progress)
        try:
            job.survey()
            job.drop_repeated()
            if plain.behind:
                message = "another snapshot behind the compressed data, not searched"
                job.report_lost(Lost("behind", "behind", message, None, None, plain.size, plain.behind))
        finally:
            job.close()
        with job.left() as pieces:
            done = convert(
                pieces, dst, target=target_of(job.header), force=force, verify_checksum=False, limits=limits, **job.sizes
            )
        job.report.kept = done.written
        if isinstance(plain.damage, CorruptError) and job.report.checksum in ("disabled", "absent"):
            job.report.checksum = "mismatch"  # that of the compressed data tells as much
    return job.report


class _Plain(NamedTuple):
    """A file that is not compressed.

    Attributes:
        name: of the file that was asked for.
        path, size, identity: of the file to be read, which must not change meanwhile.
        damage: why nothing more could be unpacked, where that is so.
        behind: bytes of another snapshot that stands behind the compressed data.
    """

    name: str
    path: str
    size: int
    identity: Identity | None
    damage: RdbError | None = None
    behind: int = 0

    @contextmanager
    def translating_errors(self) -> Iterator[None]:
        """Let errors name the file that was asked for; where its beginning cannot be unpacked, tell that."""
        try:
            yield
        except RdbError as e:
            if self.damage is not None and isinstance(e, TruncatedError):
                e = self.damage
            e.source = self.name
            raise e from None


@contextmanager
def _plain(name: str) -> Iterator[_Plain]:
    """The file itself, or what could be unpacked of it."""
    source = open_source(name)
    try:
        if source.compression is None:
            if source.total == UNKNOWN:
                raise OSError(22, "it is read several times, and has to be a file", name)
            yield _Plain(name, name, source.total, source.identity())
            return
        damage = None
        with temporary_file(tempfile.gettempdir(), Permissions([name])) as (path, file):
            try:
                while piece := source.read(_PIECE):
                    file.write(piece)
            except NOT_READ:
                raise
            except RdbError as e:  # what has come out is what there is
                damage = e
            file.flush()
            behind = source.ignored if begins_snapshot(source.behind) else 0
            yield _Plain(name, path, file.tell(), None, damage, behind)
    finally:
        source.close()


def select(db: int) -> bytes:
    """What says that the keys of a database follow."""
    out = BytesWriter()
    out.append(c.SELECTDB)
    write_length(out, db)
    return out.getvalue()


class _Hesitant(Source):
    """Reads little at first, and more each time."""

    step = _HEAD_BYTES

    def refill(self, buf: bytes, pos: int, n: int) -> bytes:
        n = min(n, self.step)
        self.step *= 2
        return super().refill(buf, pos, n)


@dataclass
class _Break:
    """A place where the framing breaks, and what has been read in front of it, as offsets in the file.

    Attributes:
        at: where the last thing ends that could be parsed.
        segment: where reading began.
        spans: begin and end of the last records.
        events: where the events behind the last record begin.
    """

    at: int
    segment: int
    spans: list[tuple[int, int]]
    events: list[int]

    def gap_begin(self, found: int, to: int) -> int:
        """Where a gap up to `to` begins: at the break, or what in front of it has swallowed the records that are `found`."""
        begin = next((begin for begin, end in self.spans if found >= 0 and end > found), self.at)
        if to >= begin:
            return begin
        # it is an event that has swallowed them
        ends = [end for _, end in self.spans if end <= to] or [self.segment]
        return max(ends[-1], *(event for event in self.events if event <= to), 0)

    def last_before(self, at: int) -> list[int]:
        """Where the last record in front of `at` begins, if there is one."""
        return [begin for begin, end in self.spans if end <= at][-1:]


def _expiring_layouts(snapshot: Snapshot) -> dict[int, str]:
    """The layouts of hashes whose fields are an expiry, a name and a value each, by their types, in files of this version."""
    newer = c.newer_types(*snapshot.header)
    return {t.id: t.layout for t in snapshot.types.values() if t.layout.endswith(_EXPIRY_FIRST) and t.id not in newer}


def _looks_like_fields(surveyor: Surveyor) -> bool:
    """Whether what was believed to be strings may be fields that do not expire."""
    return bool(surveyor.records < _SHORT and surveyor.plain * 2 >= surveyor.records)


def _speak_against(spans: list[tuple[int, int]], found: int, ends: list[int]) -> bool:
    """Whether the records that have been read behind `found` are more than those that end at `ends`, in the same bytes."""
    behind = [end for start, end in spans if start > found]
    return bool(behind) and sum(end <= behind[-1] for end in ends) < len(behind)


class _Job:
    def __init__(
        self,
        name: str,
        plain: _Plain,
        samples: int,
        limits: Limits | None,
        block_size: int | None,
        loss_callback: Callable[[Lost], object] | None,
        progress: Callable[[int], object] | None,
    ) -> None:
        self.name = name
        self.path = plain.path
        self.size = plain.size
        self.identity = plain.identity
        self.samples = samples
        self.limits = limits
        self.budget = Budget((limits or usual_limits()).held_bytes)
        self.sizes: dict[str, Any] = {} if block_size is None else {"block_size": block_size}
        self.loss_callback = loss_callback
        self.progress = progress
        self.file: BinaryIO = open_file(self.path)
        self.padding = self.padding_from()
        self.search: Search | None = None
        self.templates = Templates()
        self.backwards = _BACKWARDS * self.size  # bytes that may be read once more, since a length has swallowed what is in them
        self.begin = 0  # of the snapshot's header in the file
        self.frame = Frame()
        self.frame_end = -1  # where the frame says that the snapshot ends
        self.limit = plain.size  # of what is searched
        self.end = plain.size  # of what may be snapshot
        self.cuts: list[tuple[int, int]] = []
        self.selects: list[tuple[int, int]] = []  # where reading goes on behind a gap, and the database there
        self.fields = 0  # of hashes beside the last gap that can expire
        self.names = NameHashes()
        self.libraries: set[bytes] = set()
        self.header = Header(c.REDIS, 1)
        self.report = Salvage(name, "")

    def close(self) -> None:
        """Close the file, and remove the temporary ones."""
        self.file.close()
        self.names.partitions.close()

    # -- first run: what is damaged

    def survey(self) -> None:
        """Find the stretches of the file that are to be left out."""
        at, head = 0, b""
        while at >= 0:
            with SplicedFile(self.path, [(at, self.limit)], head) as pieces:
                at, head = self.survey_from(pieces, at, head)

    def survey_from(self, pieces: SplicedFile, at: int, head: bytes) -> tuple[int, bytes]:
        """Read on from `at`; returns where to go on behind damage, and what must precede it, or -1."""
        shift = at - len(head)
        with self.open(pieces, at == 0) as snapshot:
            if at == 0:
                self.look_at_head(snapshot)

            sound_to = len(head) if head else self.begin + 9 + sum(len(raw) for _, raw in snapshot.prelude())
            surveyor = self.surveyor(snapshot, shift, sound_to)
            try:
                if at == 0:
                    check_functions(snapshot, self.libraries, surveyor.report_error)
                self.read_on(snapshot, surveyor, shift)
            except ChecksumError:
                self.report.checksum = "mismatch"
            except NOT_READ:
                raise
            except RdbError as e:
                if e.rule == HELD:  # which is no damage
                    raise
                if not snapshot.checksum:
                    return self.bridge(snapshot, surveyor, e, at, shift)
            finally:
                surveyor.checker.close()
                self.announce(int(surveyor.announced))
            if snapshot.checksum is not None and at == 0:
                self.report.checksum = snapshot.checksum.state
            end = shift + self.end_of(snapshot)
            if self.report.checksum != "ok" and not self.may_end(end):
                early = CorruptError("an end mark, behind which the file goes on")
                found, head = self.bridge(snapshot, surveyor, early, at, shift, certain=False)
                if found >= 0:
                    return found, head
            self.end = min(self.end, end)
            self.look_behind(end)
        return -1, b""

    def read_on(self, snapshot: Snapshot, surveyor: Surveyor, shift: int) -> None:
        """Read to the end of a snapshot."""
        for large in snapshot.scan(surveyor):
            if large is not None:
                surveyor.judge_large(large)
            if self.progress is not None:
                self.progress(min(shift + snapshot.position, self.size))

    def announce(self, keys: int) -> None:
        """The file says of so many keys that its databases have them; -1 where nothing was said."""
        if keys >= 0:
            self.report.announced = (self.report.announced or 0) + keys

    def surveyor(self, snapshot: Snapshot, shift: int, sound_to: int) -> Surveyor:
        """What reads records, and leaves out those that break a rule.

        Args:
            shift: from an offset in what is read to one in the file.
            sound_to: where what stands before the records ends.
        """

        def broken(e: RdbError | None, db: int | None, offset: int, size: int) -> None:
            surveyor.bad = True
            if e is not None and e.rule == HELD:
                raise e
            what = "library" if db is None else "key"
            if e is None:
                self.cut(offset + shift, size)
            else:
                strays = [] if db is None else [(begin + shift, end + shift) for begin, end in surveyor.strays]
                self.lose(Lost(what, rule_of(e), e.message, db, e.key, offset + shift, size), strays)

        surveyor = Surveyor(snapshot.file_types, snapshot.limits.item_bytes, broken)
        surveyor.names = self.names
        surveyor.libraries = self.libraries
        surveyor.templates = self.templates
        surveyor.shift = shift
        surveyor.sound_to = sound_to
        return surveyor

    def open(self, pieces: SplicedFile, whole: bool) -> Snapshot:
        """The file, or a part of it, of which little may be wanted; what hashes have in common is of the whole file."""
        size = self.sizes.get("block_size", BLOCK_SIZE)
        limits = self.limits or Limits()
        if whole:
            snapshot = open_snapshot(pieces, limits=limits, damaged=True, block_size=size)
        else:
            source = _Hesitant(pieces, pieces.name)
            snapshot = Snapshot(source, relaxed=False, verify_checksum=False, limits=limits, damaged=True, block_size=size)
        snapshot.share_templates(self.templates.fields, self.templates.counts)
        return snapshot

    def look_at_head(self, snapshot: Snapshot) -> None:
        self.header = snapshot.header
        self.report.header = str(snapshot.header)
        self.begin, self.frame = snapshot.begin, snapshot.frame
        self.frame_end = frame_end(self.file, self.begin, self.frame, self.padding)
        if self.frame_end >= 0:
            self.end = self.limit = self.frame_end

    def end_of(self, snapshot: Snapshot) -> int:
        """Where the snapshot's end mark stands, counted as `SplicedFile` does."""
        return snapshot.begin + snapshot.rdb_size - len(self.mark)

    def bridge(
        self, snapshot: Snapshot, surveyor: Surveyor, e: RdbError, segment: int, shift: int, certain: bool = True
    ) -> tuple[int, bytes]:
        """Go on behind a place where the framing breaks; `segment` is where it began to be read.

        Args:
            certain: it does break; otherwise that is so only where something is found with which to continue.
        """
        place = _Break(
            at=int(surveyor.sound_to) + shift,
            segment=segment,
            spans=[(begin + shift, end + shift) for begin, end in surveyor.last()],
            events=[begin + shift for begin in surveyor.events],
        )
        # a length that is too large swallows records: they are looked for in the last ones as well
        back = [begin for begin, end in place.spans if place.at - begin <= min(_BACK, self.backwards)]
        layouts = _expiring_layouts(snapshot)
        misled = bool(shift) and bool(layouts) and _looks_like_fields(surveyor)
        if misled:  # in front of a field that expires
            self.fields = self.fields or _SOME_FIELDS
            place.spans = []
        else:
            self.fields = self.expiring_fields(place.at, back, surveyor.type_codes, layouts)
        found = self.find(min(back, default=place.at) + 1, snapshot, self.fields, place.spans)
        if found < 0 and not certain:
            return found, b""
        to = found if found >= 0 else self.end
        swallowing = segment if misled else place.gap_begin(found, to)
        self.shorten_cuts(to)
        self.backwards -= max(place.at - to, 0)
        self.templates.forget(swallowing, to)
        self.lose(Lost("gap", rule_of(e), e.message, e.db, e.key, swallowing, to - swallowing))
        self.doubt(place.last_before(swallowing), self.head(int(surveyor.db)))
        if found < 0:
            self.report.cut = True
            return found, b""
        db = self.database(swallowing, to, int(surveyor.db))
        self.selects.append((found, db))
        head = self.head(db)
        self.doubt([found], head)
        return found, head

    def expiring_fields(self, at: int, back: list[int], type_codes: list[int], layouts: dict[int, str]) -> int:
        """How many fields of hashes that can expire there may be behind a break at `at`, and a row more; 0 where none can.

        Args:
            back: where the last records begin that may have swallowed some.
            type_codes: types of the last records.
            layouts: as of `_expiring_layouts`.
        """
        heads = [(at, self.type_at(at)), *zip(back, type_codes[-len(back) :] if back else [], strict=True)]
        fields = [self.fields_at(begin, layouts[type_code]) for begin, type_code in heads if type_code in layouts]
        return sum(fields) + ROW if fields else 0

    def shorten_cuts(self, to: int) -> None:
        """Let nothing be left out from `to` on: a damaged record had swallowed the beginning of another."""
        while self.cuts and self.cuts[-1][1] > to:
            begin, _ = self.cuts.pop()
            if begin < to:
                self.cuts.append((begin, to))

    def type_at(self, at: int) -> int:
        """The type of the record at `at`, or an opcode."""
        self.file.seek(at)
        head = self.file.read(_ATTRIBUTE_BYTES)
        try:
            return head[attributes_end(head)]
        except (IndexError, RdbError):
            return -1

    def fields_at(self, at: int, layout: str) -> int:
        """How many fields the hash at `at` says that it has."""
        self.file.seek(at)
        head = self.file.read(_HEAD_BYTES)
        try:
            pos = int(skip_string(head, attributes_end(head) + 1)) + (8 if layout.startswith("d") else 0)
            return min(int(read_length(head, pos)[0]), _FIELDS)
        except (IndexError, RdbError):
            return _SOME_FIELDS

    def database(self, begin: int, end: int, db: int) -> int:
        """The database behind a gap: the last one that is announced in it, with how many keys it has, or the one before it."""
        at = max(begin, end - _BACK)
        self.file.seek(at)
        found = None
        for found in _DATABASE.finditer(self.file.read(end - at)):  # noqa: B007 (the last one is wanted)
            pass
        if found is None:
            return db
        first = found[1]
        return first[0] if len(first) == 1 else (first[0] & 0x3F) << 8 | first[1]

    def head(self, db: int) -> bytes:
        """What has to precede records of this database that are read alone."""
        return str(self.header).encode() + select(db)

    def doubt(self, places: list[int], head: bytes) -> None:
        """The records at these places are kept, but not certain."""
        for at in places:
            if len(self.report.doubtful) >= self.samples:
                return
            with SplicedFile(self.path, [(at, self.limit)], head) as pieces:
                try:
                    with self.open(pieces, False) as snapshot:
                        record = next(iter(snapshot), None)
                except NOT_READ:
                    raise
                except RdbError:
                    continue
            if record is not None:
                self.report.doubtful.append((record.db, record.key, at))

    # -- the search

    def searcher(self, snapshot: Snapshot) -> Search:
        """What looks for rows in this file."""
        if self.search is None:
            limits = self.limits or Limits()
            self.search = Search(self.file, self.limit, snapshot.header, (limits.item_bytes, limits.string_bytes), self.is_end)
        self.search.learn(self.templates)
        return self.search

    def find(self, begin: int, snapshot: Snapshot, expiring: int, spans: list[tuple[int, int]]) -> int:
        """Where records go on, at `begin` or behind it; where the end mark stands if none do, and -1 without one.

        Args:
            expiring: there may be so many fields of a hash, which look like strings where they do not expire: of what looks so,
                as many are not believed.
            spans: of the records in front of the damage.
        """
        search = self.searcher(snapshot)
        row = search.row
        told = at = begin
        while (found := int(search.candidate(at, self.limit))) >= 0:
            search.come(found + 1 - at)
            at = found + 1
            if self.progress is not None and found - told >= _PIECE:
                told = found
                self.progress(told)
            if not search.is_row(found):
                continue
            if _speak_against(spans, found, row.ends):
                continue
            if expiring <= 0 or not row.plain:
                return self.deepest(found, search, expiring > 0)
            end = row.ends[0]
            deepest = self.deepest(found, search, False)
            if deepest > found:
                at = deepest
                continue
            expiring -= 1
            search.come(end - at)
            at = end
        if self.progress is not None:
            self.progress(self.size)
        return next((end for end in self.ends() if end >= (spans[-1][1] if spans else begin) and self.is_end(end)), -1)

    def deepest(self, at: int, search: Search, expiring: bool) -> int:
        """Where the row at `at` begins in truth: the first of its records may be none, but a length that swallows some of them.

        That is so where a row begins inside of it that has more records in the same bytes.
        """
        row = search.row
        ends = row.ends
        places = {place for place, _ in row.places}
        begin = at + 1
        while (here := int(search.candidate(begin, ends[0]))) >= 0:
            begin = here + 1
            if here in places or not search.is_row(here) or (expiring and row.plain):
                continue  # from one of the row's own places on, the same records follow
            last = next((end for end in row.ends if end in ends), row.ends[-1])
            if sum(end <= last for end in row.ends) > sum(end <= last for end in ends):
                at, ends = here, row.ends
                places = {place for place, _ in row.places}
        return at

    def ends(self) -> list[int]:
        """Where the end mark may stand if what follows it is as it should be."""
        if self.frame_end >= 0:
            return [self.frame_end - len(self.mark)]
        behind = self.size - len(self.frame.mark)
        self.file.seek(max(behind - _PIECE, 0))
        zeros = behind - max(behind - _PIECE, 0) - len(self.file.read(min(behind, _PIECE)).rstrip(b"\0"))
        return [*range(max(behind - zeros - 9, 0), behind - zeros), behind - len(self.mark)]

    def is_end(self, at: int) -> bool:
        """Whether `at` has the end mark, and nothing but a checksum, what belongs to a capture, or zeros behind it."""
        self.file.seek(at)
        if self.file.read(1) != b"\xff" or at + len(self.mark) > self.size:
            return False
        at += len(self.mark)
        return at == self.frame_end or bool(self.frame.mark and self.size - at == MARK_BYTES) or at >= self.padding

    def padding_from(self) -> int:
        """Where the zeros begin that the file ends with."""
        at = self.size
        while at > 0:
            begin = max(at - _PIECE, 0)
            self.file.seek(begin)
            piece = self.file.read(at - begin).rstrip(b"\0")
            if piece:
                return begin + len(piece)
            at = begin
        return 0

    def may_end(self, at: int) -> bool:
        """Whether what follows the end mark at `at` is what may stand there."""
        return self.is_end(at) or self.trailer(at)[0] != "unknown"

    def trailer(self, at: int) -> tuple[str, int]:
        """What follows the end mark at `at`, by `rdbkit.Trailer.kind`, and where it begins."""
        self.file.seek(at + len(self.mark))
        window = window_of(self.file)
        try:
            is_capture = skip_mark(window, self.frame) or self.frame.kind is not None
        except TruncatedError:  # some of the mark is there
            return "none", self.size
        except CorruptError:
            return "unknown", self.file.tell()
        begin = self.file.tell()
        return read_trailer(window, is_capture)[0], begin

    def look_behind(self, at: int) -> None:
        """Report what follows the end mark at `at`, and is more than what belongs there."""
        kind, begin = self.trailer(at)
        if kind in TRAILING_DATA and begin < self.padding:
            message = f"{TRAILING_DATA[kind]} behind the end of the snapshot, not searched"
            self.lose(Lost("behind", "behind", message, None, None, begin, self.size - begin))

    # -- what goes

    def lose(self, lost: Lost, strays: Sequence[tuple[int, int]] = ()) -> None:
        """Leave something out, but not the stretches `strays` of it: what stands among attributes, and is not of that record."""
        at = lost.offset
        for begin, end in [*strays, (lost.offset + lost.size, 0)]:
            if begin > at:
                self.cut(at, begin - at)
            at = end
        self.report_lost(lost)

    def report_lost(self, lost: Lost) -> None:
        """Report what the new file does not have."""
        report = self.report
        report.lost[lost.what] = report.lost.get(lost.what, 0) + 1
        report.lost_bytes += lost.size
        if len(report.samples) < self.samples:
            report.samples.append(lost)
        if self.loss_callback is not None:
            self.loss_callback(lost)

    def cut(self, offset: int, size: int) -> None:
        """Leave a stretch out; those that touch or overlap become one."""
        begin, end = offset, offset + size
        while self.cuts and self.cuts[-1][1] >= begin:
            last = self.cuts.pop()
            begin, end = min(begin, last[0]), max(end, last[1])
        self.cuts.append((begin, end))
        self.budget.check("stretches to be left out", len(self.cuts) * _STRETCH_BYTES)

    def left(self) -> SplicedFile:
        """What is left of the file, as a snapshot without damage."""
        spans: list[tuple[int, int] | bytes] = []
        at, number = self.begin, 0
        for begin, end in self.cuts:
            spans.append((at, min(begin, self.end)))
            at = max(at, end)
            while number < len(self.selects) and self.selects[number][0] <= end:
                if begin < self.selects[number][0]:
                    spans.append(select(self.selects[number][1]))
                number += 1
        spans.append((at, self.end))
        return SplicedFile(self.path, spans, tail=self.mark, identity=self.identity)

    @property
    def mark(self) -> bytes:
        """The end of a file, with what stands in place of its checksum where its version has one."""
        return _END if self.header.flavour == c.VALKEY or self.header.version >= 5 else _END[:1]

    # -- names that are there twice

    def drop_repeated(self) -> None:
        """Leave out records whose name has come before, since no server loads a file that has one twice."""
        hashes = self.names.twice(self.budget)
        if not hashes:
            return
        found: list[tuple[Lost, list[tuple[int, int]]]] = []

        def met(db: int, name: bytes, first: int, offset: int, size: int) -> None:
            self.budget.spend("keys that are there twice", 2 * OBJECT + len(name))
            message = f"the key is there before, at byte {pieces.origin(first)}"
            strays = [(pieces.origin(begin), pieces.origin(begin) + end - begin) for begin, end in repeats.strays]
            begin = pieces.origin(offset)
            size = pieces.origin(offset + size - 1) + 1 - begin
            found.append((Lost("key", "key-twice", message, db, name, begin, size), strays))

        repeats = Repeats((self.limits or Limits()).item_bytes, hashes, met)

        with (
            self.left() as pieces,
            open_snapshot(pieces, verify_checksum=False, limits=self.limits, **self.sizes) as snapshot,
        ):
            for _ in snapshot.scan(repeats):
                pass
        cuts, self.cuts = self.cuts, []
        for lost, strays in found:
            self.lose(lost, strays)
        cuts += self.cuts
        self.cuts = []
        for begin, end in sorted(cuts):
            self.cut(begin, end - begin)

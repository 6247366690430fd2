"""`rdbkit diff`: whether two snapshots have the same data, whatever the order of their keys and the encoding of their values."""

from __future__ import annotations

import os
import struct
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any, Final, Literal, NamedTuple, TypeVar

from rdbkit.format.record import Record
from rdbkit.format.scan import NO_EXPIRY
from rdbkit.model import TRAILING_DATA
from rdbkit.operations.arguments import File, path_of
from rdbkit.operations.diff_delta import (
    BY_ELEMENT,
    ELEMENTS,
    EXPIRY,
    MOST_BYTES,
    NEW,
    REPLACE,
    SOON_MS,
    Change,
    Changes,
    Delta,
    FunctionDifference,
    delta_writer,
    records_at,
)
from rdbkit.operations.diff_elements import Inside, elements, form, has_expired, has_pieces, pieces
from rdbkit.passes.diff import ALIKE, ENTRY, NAMED_ALIKE, Fingerprints, digest_of, without_equals
from rdbkit.passes.hashes import PARTITIONS
from rdbkit.snapshot.large import feed
from rdbkit.snapshot.reader import Snapshot, open_snapshot
from rdbkit.storage.source import Rereading
from rdbkit.targets.target import Target
from rdbkit.text import json_bytes, valid_text

__all__ = ["Diff", "Difference", "diff"]

#: Names that can be put in order: of libraries, and of data of modules.
K = TypeVar("K", str, tuple[str, int])
_UNPACK: Final = struct.Struct("<4q").iter_unpack
_MASK: Final = (1 << 128) - 1

What = Literal["missing", "extra", "type", "value", "expire"]
#: What may be left out of the comparison; encodings always are.
Ignored = Literal["encoding", "expire", "functions", "module-data"]
IGNORED: Final[tuple[Ignored, ...]] = ("encoding", "expire", "functions", "module-data")

# What is known of a pair of keys besides their values.
_EXPIRES_OTHERWISE: Final = 1
_GONE: Final = 2  # both have expired
_SOON: Final = 4  # the first file's will expire soon, or has


@dataclass
class Difference:
    """A key that differs.

    Attributes:
        what: "missing" (the second file does not have it), "extra" (the first does not), "type", "value" or "expire".
        types: in both files, None where it is not there.
        expire_ms: the same of its absolute expiry in Unix milliseconds.
        offsets: the same of its record's offset in the file, in bytes.
        details: the first elements that differ, in words.
    """

    what: str
    db: int
    key: bytes
    types: tuple[str | None, str | None]
    expire_ms: tuple[int | None, int | None]
    offsets: tuple[int | None, int | None]
    details: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class ModuleDataDifference:
    """Data of a module outside of keys that differs, such as the indexes of RediSearch.

    Attributes:
        what: "missing" (the second file does not have it), "extra" (the first does not) or "changed".
        module: the name of its type.
        when: 1 before the keys, 2 after them.
    """

    what: str
    module: str
    when: int


@dataclass
class Diff:
    """What `diff` found.

    Attributes:
        files, keys: names of the two files, and how many keys each has.
        equal: keys that are the same in both.
        missing, extra: keys that only the first has, or only the second.
        changed: keys with another type or value; `expiry` counts those that differ in their expiry alone.
        expired: keys that have expired, and that the other file does not have in the same form: no difference.
        disk_bytes: of temporary files, which are gone.
        functions: function libraries that differ.
        module_data: data of modules outside of keys that differs.
        behind: what follows the end of each snapshot and was not compared: "aof" (commands of an append-only file),
            "replication" (those that a replica is sent), "snapshot", "unknown", or None for nothing.
        samples: the first of the keys that differ.
        delta: what was written of the differences, where that was asked for.
    """

    files: tuple[str, str]
    keys: tuple[int, int]
    equal: int = 0
    missing: int = 0
    extra: int = 0
    changed: int = 0
    expiry: int = 0
    expired: int = 0
    functions: list[FunctionDifference] = field(default_factory=list)
    module_data: list[ModuleDataDifference] = field(default_factory=list)
    behind: tuple[str | None, str | None] = (None, None)
    disk_bytes: int = 0
    samples: list[Difference] = field(default_factory=list)
    delta: Delta | None = None

    @property
    def same(self) -> bool:
        """Whether both have the same data, and nothing that was not compared."""
        return self.differences == 0 and self.behind == (None, None)

    @property
    def differences(self) -> int:
        """Keys, function libraries and data of modules that differ."""
        return self.missing + self.extra + self.changed + self.expiry + len(self.functions) + len(self.module_data)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; keys that are not UTF-8 as `{"base64": ...}`."""
        result = asdict(self)
        for row in result["samples"]:
            row["key"] = json_bytes(row["key"])
        for row in result["functions"]:
            row["name"] = valid_text(row["name"])
        result["files"] = [valid_text(name) for name in self.files]
        result["delta"] = None if self.delta is None else self.delta.to_dict()
        result["same"] = self.same
        return result


def diff(
    first: File,
    second: File,
    *,
    only_keys: bool = False,
    ignore: Collection[str] = (),
    ttl_tolerance_ms: int = 0,
    samples: int = 10,
    delta: str | os.PathLike[str] | None = None,
    target: Target | str | None = None,
    on_loss: str = "fail",
    force: bool = False,
    now_ms: int | None = None,
    relaxed: bool = False,
    verify_checksum: bool = True,
    block_size: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Diff:
    """Compare two snapshots: names of keys, types, values and expiries, function libraries, and data of modules outside of keys.

    The order of keys, of members of sets and of fields does not matter, nor do versions and encodings. What a stream counts beside
    its entries, groups and pending entries, and when its consumers were last seen, older versions do not have: it is not compared.
    A key or field that has expired is as good as none, unless both have it. What follows the end of a snapshot is not
    compared, but told.
    Both files are read once; what is not stored in the same bytes is read a second time, and the keys that are named a third, large
    ones a fourth. What goes into a delta is read once more.

    Args:
        first, second: paths, or snapshots that were just opened by theirs.
        only_keys: compare names alone.
        ignore: what not to compare: "expire", when keys and fields expire; "functions", function libraries; "module-data", data of
            modules outside of keys; "encoding", which changes nothing, since encodings are never compared.
        ttl_tolerance_ms: so much may the expiries of a key be apart.
        samples: how many of the keys that differ to name.
        delta: a file to write the differences to, which appears when it is whole. Where its name ends in `.resp`, it gets the
            commands that turn the data of the first into that of the second, for a server that has the first; where it ends in
            `.rdb`, a snapshot of the keys that are new or changed. With `.gz` behind that it is compressed.
        target, on_loss: of commands, as for `export_resp`.
        force: replace a delta that exists.
        now_ms: what counts as expired, in Unix milliseconds; by default the clock.
        relaxed, verify_checksum: as for `rdbkit.open`.
        progress: called with the bytes of both files that have been read for the first time.

    Raises: ValueError for unknown names in `ignore`, for another ending of `delta`, an unknown target, and for what does not go
        together; LossError where the target has no command for something; ChangedError where a file is another at a later reading;
        RdbError where one is damaged; OSError.

    >>> found = diff("fixtures/rich/redis-7.0.15.rdb", "fixtures/rich/redis-6.0.16.rdb")
    >>> found.same, found.equal, found.changed, found.functions
    (False, 26, 1, [FunctionDifference(what='missing', name='l')])
    """
    for name in ignore:
        if name not in IGNORED:
            raise ValueError(f"what to ignore is {' or '.join(IGNORED)}, not {name!r}")
    if delta is None and (target is not None or on_loss != "fail" or force):
        raise ValueError("target, on_loss and force are for a delta")
    if delta is not None and only_keys:
        raise ValueError("names alone make no delta")
    comparison = _Comparison(
        (path_of(first), path_of(second)), only_keys, frozenset(ignore), ttl_tolerance_ms, samples,
        time.time_ns() // 1_000_000 if now_ms is None else now_ms, relaxed, verify_checksum, block_size, progress,
    )  # fmt: skip
    if delta is None:
        return comparison.run()
    with delta_writer(
        os.fspath(delta), comparison.files, lambda name: comparison.open(name, again=True), target=target, on_loss=on_loss,
        force=force, now_ms=comparison.now, compares_expiry=comparison.compares_expiry,
    ) as writer:  # fmt: skip
        comparison.changes = Changes()
        result = comparison.run()
        writer.write(comparison.changes, result.functions)
        result.delta = writer.report
    return result


@dataclass
class _Found:
    """A key that differs, by its records' offsets (-1: there is none)."""

    what: str
    offsets: tuple[int, int]


class _Unsure(NamedTuple):
    """Two hashes that may be the same but for fields that have expired; arguments of `differ`."""

    offsets: tuple[int, int]
    flags: int
    sizes: tuple[int, int] | None


class _Known(NamedTuple):
    """A record of a key that is named."""

    db: int
    key: bytes
    type: str
    expire_ms: int | None
    offset: int


class _Digest(NamedTuple):
    """What is compared of a value first.

    Attributes:
        value: `value_digest` of it, which begins with its type.
        size: of its record, in bytes.
        has_expired: some of its fields have expired, where that matters.
    """

    value: bytes
    size: int
    has_expired: bool


class _Digests:
    """The digests of records of one file, by their offsets; in arrays, since there can be many."""

    def __init__(self, offsets: array[int]) -> None:
        self.offsets = array("q", sorted(offsets))
        self._values = [b""] * len(offsets)
        self._sizes = array("q", bytes(8 * len(offsets)))
        self._expired = bytearray(len(offsets))

    def put(self, offset: int, value: bytes, size: int, has_expired: bool) -> None:
        at = bisect_left(self.offsets, offset)
        self._values[at], self._sizes[at], self._expired[at] = value, size, has_expired

    def get(self, offset: int) -> _Digest:
        at = bisect_left(self.offsets, offset)
        return _Digest(self._values[at], self._sizes[at], bool(self._expired[at]))


class _Comparison:
    def __init__(
        self,
        files: tuple[str, str],
        only_keys: bool,
        ignore: frozenset[str],
        tolerance: int,
        samples: int,
        now: int,
        relaxed: bool,
        verify_checksum: bool,
        block_size: int | None,
        progress: Callable[[int], object] | None,
    ) -> None:
        self.files = files
        self.only_keys = only_keys
        self.compares_expiry = not only_keys and "expire" not in ignore
        self.compares_functions = not only_keys and "functions" not in ignore
        self.compares_module_data = not only_keys and "module-data" not in ignore
        self.tolerance = tolerance
        self.samples = samples
        self.now = now
        self.relaxed = relaxed
        self.verify_checksum = verify_checksum
        self.block_size = block_size
        self.progress = progress
        self.read = 0
        self.rereading = Rereading()
        self.result = Diff(files, (0, 0))
        self.found: list[_Found] = []
        self.behind: list[str | None] = []
        self.changes: Changes | None = None  # all of them, where a delta is to be written
        # keys whose stored form differs: offsets in both files, and what else is known
        self.suspects: tuple[array[int], array[int]] = (array("q"), array("q"))
        self.flags = bytearray()

    def run(self) -> Diff:
        self.first_look()
        self.look_inside()
        self.keep_first()
        if self.found:
            self.result.samples = self.explain()
        return self.result

    def open(self, name: str, again: bool = False) -> Snapshot:
        more: dict[str, Any] = {} if self.block_size is None else {"block_size": self.block_size}
        return open_snapshot(
            name, relaxed=self.relaxed, verify_checksum=self.verify_checksum and not again, rereading=self.rereading, **more
        )

    # -- first look: the stored form

    def first_look(self) -> None:
        result = self.result
        with ExitStack() as stack:
            prints = []
            for name in self.files:
                prints.append(self.fingerprints(name))
                stack.callback(prints[-1].partitions.close)
            result.keys = int(prints[0].count), int(prints[1].count)
            result.behind = self.behind[0], self.behind[1]
            result.disk_bytes = sum(found.partitions.on_disk() for found in prints)
            for number in range(PARTITIONS):
                self.match(prints[0].partitions.partition(number), prints[1].partitions.partition(number))
        if self.compares_functions:
            first, second = ({f.name: f.code for f in found.functions} for found in prints)
            result.functions = _compare_libraries(first, second)
        if self.compares_module_data:
            result.module_data = [
                ModuleDataDifference(what, *each) for what, each in _unlike(prints[0].module_data, prints[1].module_data)
            ]

    def fingerprints(self, name: str) -> Fingerprints:
        with self.open(name) as snapshot:
            prints = Fingerprints(snapshot.types, snapshot.limits.item_bytes)
            try:
                for large in snapshot.scan(prints):
                    if large is not None and large.is_module_data:
                        prints.large_digest = digest_of(large.chunks())
                    elif large is not None:
                        prints.large_hash = _hash_large(large, prints)
                    if self.progress is not None:
                        self.progress(self.read + snapshot.position)
            except BaseException:
                prints.partitions.close()
                raise
            self.read += snapshot.position
            kind = None if snapshot.trailer is None else snapshot.trailer.kind
            self.behind.append(kind if kind in TRAILING_DATA else None)
        return prints

    def match(self, first: bytes, second: bytes) -> None:
        """Compare the entries of two partitions."""
        result = self.result
        equal, first, second = without_equals(first, second, NAMED_ALIKE if self.only_keys else ALIKE)
        result.equal += equal
        others: dict[int, list[tuple[int, int, int]]] = {}
        for name, value, expire, offset in _UNPACK(second):
            others.setdefault(name, []).append((value, expire, offset))
        assert len(second) % ENTRY == 0
        for name, value, expire, offset in _UNPACK(first):
            candidates = others.get(name)
            if not candidates:
                self.alone("missing", expire, (offset, -1))
                continue
            other_value, other_expire, other_offset = candidates.pop()
            if expire == other_expire and (value == other_value or self.only_keys):
                result.equal += 1
            else:
                self.match_unlike((offset, other_offset), (expire, other_expire), value == other_value or self.only_keys)
        for left in others.values():
            for _, expire, offset in left:
                self.alone("extra", expire, (-1, offset))

    def match_unlike(self, offsets: tuple[int, int], expiries: tuple[int, int], same_value: bool) -> None:
        """Compare a key of both files that is not stored in the same bytes there, or expires at another time."""
        flags = self.flags_of(*expiries)
        if flags & _EXPIRES_OTHERWISE and not flags & _GONE and any(map(self.is_past, expiries)):
            # only one of the two is still there
            self.alone("missing", expiries[0], (offsets[0], -1))
            self.alone("extra", expiries[1], (-1, offsets[1]), REPLACE)
        elif not same_value:
            self.suspects[0].append(offsets[0])
            self.suspects[1].append(offsets[1])
            self.flags.append(flags)
        elif flags & _EXPIRES_OTHERWISE:
            self.differ("expire", offsets, flags)
        else:
            self.result.equal += 1

    def is_past(self, expire: int) -> bool:
        return expire != NO_EXPIRY and expire <= self.now

    def flags_of(self, expire: int, other: int) -> int:
        """What the expiries of a pair say."""
        flags = 0
        if self.compares_expiry and expire != other:
            near = NO_EXPIRY not in (expire, other) and abs(expire - other) <= self.tolerance
            flags = 0 if near else _EXPIRES_OTHERWISE
        if self.compares_expiry and self.is_past(expire) and self.is_past(other):
            flags |= _GONE
        if expire != NO_EXPIRY and expire <= self.now + SOON_MS:
            flags |= _SOON
        return flags

    def alone(self, what: What, expire: int, offsets: tuple[int, int], how: int = NEW) -> None:
        """A key that one of the files does not have; `how` it is to be written."""
        if self.is_past(expire):
            self.result.expired += 1
            return
        self.count(what, offsets)
        if self.changes is not None:
            if what == "missing":
                self.changes.deleted.append(offsets[0])
            else:
                self.changes.add(Change(how, offsets[1]))

    def differ(self, what: What, offsets: tuple[int, int], flags: int, sizes: tuple[int, int] | None = None) -> None:
        """A key that both files have.

        `sizes`: of both records in bytes, where the value can be changed element by element.
        """
        if flags & _GONE:
            self.result.expired += 1
            return
        self.count(what, offsets)
        if self.changes is not None:
            change = Change(EXPIRY if what == "expire" else REPLACE, offsets[1])
            if flags & _SOON:
                change = Change(REPLACE, offsets[1])
            elif sizes is not None:
                change = Change(ELEMENTS, offsets[1], sizes[1], offsets[0], sizes[0])
            self.changes.add(change)

    def count(self, what: What, offsets: tuple[int, int]) -> None:
        result = self.result
        if what == "missing":
            result.missing += 1
        elif what == "extra":
            result.extra += 1
        elif what == "expire":
            result.expiry += 1
        else:
            result.changed += 1
        self.found.append(_Found(what, offsets))
        if len(self.found) > 2 * self.samples + 100:
            self.keep_first()

    def keep_first(self) -> None:
        """Of the keys to be named, keep those that come first in the files: hashes have another order in each run."""
        self.found.sort(key=lambda found: (found.offsets[0] < 0, found.offsets))
        del self.found[self.samples :]

    # -- second look: what the values are

    def look_inside(self) -> None:
        """Compare the values that are not stored in the same bytes."""
        if not self.suspects[0]:
            return
        digests = [self.digests(name, offsets) for name, offsets in zip(self.files, self.suspects, strict=True)]
        unsure: list[_Unsure] = []
        for one, other, flags in zip(*self.suspects, self.flags, strict=True):
            first, second = digests[0].get(one), digests[1].get(other)
            if first.value[:1] != second.value[:1]:
                self.differ("type", (one, other), flags)
            elif first.value != second.value:
                sizes = _sizes_by_element(first, second)
                if first.has_expired or second.has_expired:
                    unsure.append(_Unsure((one, other), flags, sizes))
                else:
                    self.differ("value", (one, other), flags, sizes)
            elif flags & _EXPIRES_OTHERWISE:
                self.differ("expire", (one, other), flags)
            else:
                self.result.equal += 1
        if unsure:
            self.look_at_expired(unsure)

    def digests(self, name: str, offsets: array[int]) -> _Digests:
        """What the values are of the records of a file that stand at these offsets."""
        found = _Digests(offsets)
        for record in self.records(name, found.offsets):
            value, has_expired = value_digest(record, self.now, self.compares_expiry)
            found.put(record.offset, value, record.size or 0, has_expired)
        return found

    def look_at_expired(self, unsure: list[_Unsure]) -> None:
        """Compare hashes with fields that have expired, where expiries are not compared: such a field may be in one file alone."""
        with closing(Inside(self.now, self.compares_expiry)) as inside:
            for side, name in enumerate(self.files):
                numbers = {each.offsets[side]: number for number, each in enumerate(unsure)}
                for record in self.records(name, array("q", sorted(numbers))):
                    inside.add(side, numbers[record.offset], record)
            different = inside.different()
            self.result.disk_bytes += inside.on_disk()
        for number, each in enumerate(unsure):
            if number in different:
                self.differ("value", each.offsets, each.flags, each.sizes)
            else:
                self.result.equal += 1

    def records(self, name: str, offsets: array[int]) -> Iterator[Record]:
        """The records that stand at these offsets, which are sorted."""
        if offsets:
            with self.open(name, again=True) as snapshot:
                yield from records_at(snapshot, offsets)

    # -- third look: the keys that are named

    def explain(self) -> list[Difference]:
        """Look at the keys that are named again; of large values, also at the elements that are shown."""
        with closing(Inside(self.now, self.compares_expiry)) as inside:
            known = self.known(0, inside), self.known(1, inside)
            places = inside.places()
            for side, name in enumerate(self.files):
                wanted = inside.wanted(side, places)
                numbers = {self.found[number].offsets[side]: number for number in wanted}
                for record in self.records(name, array("q", sorted(numbers))):
                    number = numbers[record.offset]
                    inside.show(side, number, record, wanted[number])
            self.result.disk_bytes += inside.on_disk()
            return [
                _difference(
                    found.what, known[0].get(number), known[1].get(number),
                    inside.lines(number, places[number]) if number in places else [],
                )
                for number, found in enumerate(self.found)
            ]  # fmt: skip

    def known(self, side: int, inside: Inside) -> dict[int, _Known]:
        """The records of the keys that are named in one of the files, by number; values that differ are looked into."""
        known = {}
        numbers = {found.offsets[side]: number for number, found in enumerate(self.found) if found.offsets[side] >= 0}
        for record in self.records(self.files[side], array("q", sorted(numbers))):
            number = numbers[record.offset]
            known[number] = _Known(record.db, record.key, record.type, record.expire_ms, record.offset)
            if self.found[number].what == "value":
                inside.add(side, number, record)
        return known


def _difference(what: str, one: _Known | None, other: _Known | None, details: list[str]) -> Difference:
    """The difference of a key, by its records in both files, of which one may be none."""
    either = one if one is not None else other
    assert either is not None
    return Difference(
        what, either.db, either.key,
        (None if one is None else one.type, None if other is None else other.type),
        (None if one is None else one.expire_ms, None if other is None else other.expire_ms),
        (None if one is None else one.offset, None if other is None else other.offset),
        details,
    )  # fmt: skip


def _compare_libraries(first: dict[str, bytes], second: dict[str, bytes]) -> list[FunctionDifference]:
    """By name and source."""
    return [FunctionDifference(what, name) for what, name in _unlike(first, second)]


def _unlike(first: Mapping[K, object], second: Mapping[K, object]) -> Iterator[tuple[str, K]]:
    """What is not the same in both, in the order of its names: "missing" (in the second), "extra" or "changed"."""
    for name in sorted(first.keys() | second.keys()):
        if first.get(name) != second.get(name):
            yield "missing" if name not in second else "changed" if name in first else "extra", name


def _hash_large(record: Record, prints: Fingerprints) -> int:
    """The hash of a value that does not fit into a block."""
    if not prints.is_unordered(record.type_code):
        whole = blake2b(digest_size=8)
        for chunk in record.chunks():
            whole.update(chunk)
        return int.from_bytes(whole.digest(), "little", signed=True)
    prints.begin_large(record.type_code)
    for _ in feed(record, prints.elements):
        pass
    return int(prints.elements.sum)


# -- values without their encoding

#: First byte of a digest: the type.
_TYPES: Final = {
    name: bytes([n]) for n, name in enumerate(("string", "list", "set", "zset", "hash", "stream", "array", "module"), 1)
}
_ORDERED: Final = ("list", "stream")
#: Types whose values can be changed element by element.
_BY_ELEMENT: Final = frozenset(_TYPES[name][0] for name in BY_ELEMENT)


def _sizes_by_element(first: _Digest, second: _Digest) -> tuple[int, int] | None:
    """The sizes of two values of one type where a delta changes the one into the other element by element, else None."""
    if first.value[0] in _BY_ELEMENT and max(first.size, second.size) <= MOST_BYTES:
        return first.size, second.size
    return None


def value_digest(record: Record, now: int, compares_expiry: bool) -> tuple[bytes, bool]:
    """17 bytes of a value, the same for the same value however it is stored.

    Fields that have expired by `now` are as good as none; where expiries are not compared, they count, and it is noted that there
    are some.
    """
    name = record.type
    count = 0
    total = 0
    expired = False
    whole = blake2b(digest_size=16)
    if has_pieces(record):
        for piece in pieces(record):
            whole.update(piece)
    else:
        for element in elements(record, now if compares_expiry else None):
            data = form(name, element, compares_expiry)
            count += 1
            if name in _ORDERED:
                whole.update(len(data).to_bytes(8, "little") + data)
            else:
                total += int.from_bytes(blake2b(data, digest_size=16).digest(), "little")
            if name == "hash" and not compares_expiry and has_expired(element, now):
                expired = True
    whole.update((total & _MASK).to_bytes(16, "little") + count.to_bytes(8, "little"))
    return _TYPES.get(name, b"\0") + whole.digest(), expired

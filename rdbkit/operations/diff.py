"""`rdbkit diff`: whether two snapshots have the same data, whatever the order of their keys and the encoding of their values."""

from __future__ import annotations

import os
import struct
import time
from array import array
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from typing import Any, Final, Literal

from rdbkit.errors import CorruptError, RdbError
from rdbkit.format.scan import NO_EXPIRY
from rdbkit.operations.delta import (
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
from rdbkit.operations.fingerprints import ENTRY, Fingerprints
from rdbkit.operations.hashes import PILES
from rdbkit.operations.text import json_bytes, valid_text
from rdbkit.record import Record
from rdbkit.snapshot.reader import Snapshot, open_snapshot
from rdbkit.values import Stream, StreamDedup, StreamEntry, StreamGroup, StreamTail

__all__ = ["Diff", "Difference", "diff"]

_UNPACK: Final = struct.Struct("<4q").iter_unpack
_MASK: Final = (1 << 128) - 1
_SHOWN: Final = 5  # elements of a key

What = Literal["missing", "extra", "type", "value", "expire"]
#: What may be left out of the comparison.
Ignored = Literal["expire", "functions"]
IGNORED: Final[tuple[Ignored, ...]] = ("expire", "functions")

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
        functions: libraries of functions that differ.
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
    disk_bytes: int = 0
    samples: list[Difference] = field(default_factory=list)
    delta: Delta | None = None

    @property
    def same(self) -> bool:
        """Whether both have the same data."""
        return not (self.missing or self.extra or self.changed or self.expiry or self.functions)

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
    first: str,
    second: str,
    *,
    only_keys: bool = False,
    ignore: Collection[str] = (),
    ttl_tolerance_ms: int = 0,
    samples: int = 10,
    delta: str | os.PathLike[str] | None = None,
    target: str | None = None,
    on_loss: str = "fail",
    force: bool = False,
    now_ms: int | None = None,
    relaxed: bool = False,
    verify_checksum: bool = True,
    block_size: int | None = None,
    progress: Callable[[int], object] | None = None,
) -> Diff:
    """Compare two snapshots: names of keys, types, values and expiries, and libraries of functions.

    The order of keys, of members of sets and of fields does not matter, nor do versions and encodings. What a stream counts beside
    its entries, groups and pending entries, and when its consumers were last seen, older versions do not have: it is not compared.
    A key or field that has expired is as good as none, unless both have it.
    Both files are read once; what is not stored in the same bytes is read a second time, and the keys that are named a third. What
    goes into a delta is read once more.

    Args:
        first, second: paths.
        only_keys: compare names alone.
        ignore: what not to compare: "expire", when keys and fields expire; "functions", libraries of functions.
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
        together; LossError where the target has no command for something; RdbError where a file is damaged; OSError.

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
        (first, second), only_keys, frozenset(ignore), ttl_tolerance_ms, samples,
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
        self.tolerance = tolerance
        self.samples = samples
        self.now = now
        self.relaxed = relaxed
        self.verify_checksum = verify_checksum
        self.block_size = block_size
        self.progress = progress
        self.read = 0
        self.result = Diff(files, (0, 0))
        self.found: list[_Found] = []
        self.changes: Changes | None = None  # all of them, where a delta is to be written
        # keys whose stored form differs: offsets in both files, and what else is known
        self.suspects: tuple[array[int], array[int]] = (array("q"), array("q"))
        self.flags = bytearray()

    def run(self) -> Diff:
        result = self.result
        with ExitStack() as stack:
            prints = []
            for name in self.files:
                prints.append(self.fingerprints(name))
                stack.callback(prints[-1].piles.close)
            result.keys = int(prints[0].count), int(prints[1].count)
            result.disk_bytes = sum(found.piles.on_disk() for found in prints)
            for number in range(PILES):
                self.match(prints[0].piles.pile(number), prints[1].piles.pile(number))
        if self.compares_functions:
            first, second = ({f.name: f.code for f in found.functions} for found in prints)
            result.functions = _compare_libraries(first, second)
        self.look_inside()
        result.samples = self.explain()
        return result

    def open(self, name: str, again: bool = False) -> Snapshot:
        more: dict[str, Any] = {} if self.block_size is None else {"block_size": self.block_size}
        return open_snapshot(name, relaxed=self.relaxed, verify_checksum=self.verify_checksum and not again, **more)

    # -- first look: the stored form

    def fingerprints(self, name: str) -> Fingerprints:
        with self.open(name) as snapshot:
            prints = Fingerprints(snapshot.types, snapshot.limits.item_bytes)
            try:
                for large in snapshot.scan(prints):
                    if large is not None:
                        prints.large_hash = _hash_large(large, prints)
                    if self.progress is not None:
                        self.progress(self.read + snapshot.position)
            except BaseException:
                prints.piles.close()
                raise
            self.read += snapshot.position
        return prints

    def match(self, first: bytes, second: bytes) -> None:
        """Compare the entries of two piles."""
        result = self.result
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
                continue
            flags = self.flags_of(expire, other_expire)
            if flags & _EXPIRES_OTHERWISE and not flags & _GONE and (self.is_past(expire) or self.is_past(other_expire)):
                # only one of the two is still there
                self.alone("missing", expire, (offset, -1))
                self.alone("extra", other_expire, (-1, other_offset), REPLACE)
            elif value == other_value or self.only_keys:
                if flags & _EXPIRES_OTHERWISE:
                    self.differ("expire", (offset, other_offset), flags)
                else:
                    result.equal += 1
            else:
                self.suspects[0].append(offset)
                self.suspects[1].append(other_offset)
                self.flags.append(flags)
        for left in others.values():
            for _, expire, offset in left:
                self.alone("extra", expire, (-1, offset))

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
        digests = []
        now = self.now if self.compares_expiry else None
        for name, offsets in zip(self.files, self.suspects, strict=True):
            order = array("q", sorted(offsets))
            found = [b""] * len(order)
            sizes = array("q", bytes(8 * len(order)))
            for record in self.records(name, order):
                at = bisect_left(order, record.offset)
                found[at] = _digest(record, now)
                sizes[at] = record.size or 0
            digests.append((order, found, sizes))
        by_element = [_TYPES[name][0] for name in BY_ELEMENT]
        for one, other, flags in zip(*self.suspects, self.flags, strict=True):
            places = [bisect_left(digest[0], at) for digest, at in zip(digests, (one, other), strict=True)]
            (first, size), (second, other_size) = ((d[1][at], d[2][at]) for d, at in zip(digests, places, strict=True))
            if first[:1] != second[:1]:
                self.differ("type", (one, other), flags)
            elif first != second:
                by_elements = first[0] in by_element and max(size, other_size) <= MOST_BYTES
                self.differ("value", (one, other), flags, (size, other_size) if by_elements else None)
            elif flags & _EXPIRES_OTHERWISE:
                self.differ("expire", (one, other), flags)
            else:
                self.result.equal += 1

    def records(self, name: str, offsets: array[int]) -> Iterator[Record]:
        """The records that stand at these offsets, which are sorted."""
        with self.open(name, again=True) as snapshot:
            yield from records_at(snapshot, offsets)

    # -- third look: the keys that are named

    def explain(self) -> list[Difference]:
        self.keep_first()
        shown: list[dict[int, tuple[Record, Any]]] = []
        for side, name in enumerate(self.files):
            wanted = array("q", sorted(found.offsets[side] for found in self.found if found.offsets[side] >= 0))
            shown.append({})
            for record in self.records(name, wanted):
                shown[-1][record.offset] = (record, _value(record))
        differences = []
        for found in self.found:
            pair = [shown[side].get(found.offsets[side]) for side in (0, 1)]
            records = [None if one is None else one[0] for one in pair]
            known = next(record for record in records if record is not None)
            differences.append(
                Difference(
                    found.what,
                    known.db,
                    known.key,
                    (_type(records[0]), _type(records[1])),
                    (None if records[0] is None else records[0].expire_ms, None if records[1] is None else records[1].expire_ms),
                    (None if records[0] is None else records[0].offset, None if records[1] is None else records[1].offset),
                    _details(pair[0][1], pair[1][1]) if found.what == "value" and pair[0] and pair[1] else [],
                )
            )
        return differences


def _compare_libraries(first: dict[str, bytes], second: dict[str, bytes]) -> list[FunctionDifference]:
    """By name and source."""
    found = []
    for name in sorted(first.keys() | second.keys()):
        if first.get(name) != second.get(name):
            found.append(FunctionDifference("missing" if name not in second else "changed" if name in first else "extra", name))
    return found


def _type(record: Record | None) -> str | None:
    return None if record is None else record.type


def _hash_large(record: Record, prints: Fingerprints) -> int:
    """The hash of a value that does not fit into a block."""
    if not prints.is_unordered(record._kind):
        whole = blake2b(digest_size=8)
        for chunk in record.chunks():
            whole.update(chunk)
        return int.from_bytes(whole.digest(), "little", signed=True)
    prints.begin_large(record._kind)
    rest = b""
    for chunk in record.chunks():
        rest = rest + chunk if rest else chunk
        rest = rest[prints.elements.feed(rest, 0) :]
    if rest or not prints.elements.done:
        raise record._explain(CorruptError("its parts do not end where the value ends"))
    return int(prints.elements.sum)


# -- values without their encoding

#: First byte of a digest: the type.
_TYPES: Final = {
    name: bytes([n]) for n, name in enumerate(("string", "list", "set", "zset", "hash", "stream", "array", "module"), 1)
}
_ORDERED: Final = ("string", "list", "stream", "module")


def _digest(record: Record, now: int | None) -> bytes:
    """17 bytes of a value, the same for the same value however it is stored.

    `now`: fields that have expired by then are as good as none; None where expiries are not compared.
    """
    name = record.type
    count = 0
    total = 0
    whole = blake2b(digest_size=16)
    if name == "string":
        for piece in record.content():
            whole.update(piece)
    else:
        for batch in record.elements():
            for element in batch:
                if isinstance(element, StreamDedup) and not any(ids for _, ids in element.producers):
                    continue  # it remembers nothing; older versions have no place for that
                if name == "hash" and now is not None and element[2] is not None and element[2] <= now:
                    continue
                form = _form(name, element, now is not None)
                count += 1
                if name in _ORDERED:
                    whole.update(len(form).to_bytes(8, "little") + form)
                else:
                    total += int.from_bytes(blake2b(form, digest_size=16).digest(), "little")
    whole.update((total & _MASK).to_bytes(16, "little") + count.to_bytes(8, "little"))
    return _TYPES.get(name, b"\0") + whole.digest()


def _form(name: str, element: Any, expiries: bool) -> bytes:
    """An element as bytes that no other one has."""
    if isinstance(element, bytes):
        return element
    if name == "zset":
        member, score = element
        return b"%d:%b%b" % (len(member), member, repr(float(score) + 0.0).encode())
    if name == "hash":
        field_name, value, expire = element
        until = b"" if expire is None or not expiries else b"%d" % expire
        return b"%d:%b%d:%b%b" % (len(field_name), field_name, len(value), value, until)
    if isinstance(element, StreamEntry):
        return repr((element.id, element.fields)).encode()
    if isinstance(element, StreamTail):
        return repr((element.length, element.last_id)).encode()
    if isinstance(element, StreamGroup):
        pending = sorted((tuple(p.id), p.consumer, p.delivery_count) for p in element.pending)
        return repr((element.name, element.last_id, pending, sorted(c.name for c in element.consumers))).encode()
    if isinstance(element, StreamDedup):
        return repr(sorted(element.producers)).encode()
    return repr(element).encode()


def _value(record: Record) -> Any:
    """A value to be looked at; one that is damaged, or cannot be had whole, as None."""
    try:
        return record.value
    except RdbError:
        return None


def _details(one: Any, other: Any) -> list[str]:
    """The first elements that differ."""
    if isinstance(one, bytes) and isinstance(other, bytes):
        at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
        return [f"byte {at} of {len(one)} and {len(other)}: {one[at : at + 20]!r} and {other[at : at + 20]!r}"]
    if isinstance(one, list) and isinstance(other, list):
        found = [f"element {i}: {a!r} and {b!r}" for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b][:_SHOWN]
        return found if len(one) == len(other) else [f"{len(one)} and {len(other)} elements", *found]
    if isinstance(one, dict) and isinstance(other, dict):
        lines = [
            f"{k!r}: {one.get(k)!r} and {other.get(k)!r}"
            for k in [*one, *(k for k in other if k not in one)]
            if one.get(k) != other.get(k)
        ]
        return lines[:_SHOWN]
    if isinstance(one, set) and isinstance(other, set):
        lines = [f"only in the first: {m!r}" for m in sorted(one - other)[:_SHOWN]]
        return lines + [f"only in the second: {m!r}" for m in sorted(other - one)[:_SHOWN]]
    if isinstance(one, Stream) and isinstance(other, Stream):
        names = ("length", "last_id", "entries", "groups")
        return [f"its {name} differ" for name in names if getattr(one, name) != getattr(other, name)]
    return []

"""What differs inside of values, in memory that does not depend on their size.

Of each element, a hash of its name and one of all of it go to partitions, which wait on disk where there are many. The first
that differ are then read again, to be shown.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from rdbkit.format.record import Record
from rdbkit.passes.hashes import PARTITIONS, HashPartitions
from rdbkit.values import StreamDedup, StreamEntry, StreamGroup, StreamTail

#: Hash of the name, hash of the element, number of the pair, position and whether it has expired.
_ENTRY: Final = struct.Struct("<4q")
_SHOWN: Final = 5  # elements of a key
_SHOWN_BYTES: Final = 80  # of a name or value
_NEAR: Final = 20  # bytes shown of where two strings differ
#: Strings are compared in pieces of so many bytes, and of other values no more is kept to be shown.
_PIECE: Final = 1024
#: A value of which all elements take no more is kept rather than read again, up to so many of them in one file.
_KEPT_BYTES: Final = 1 << 16
_KEPT_IN_ALL: Final = 8 << 20
_ELEMENT_BYTES: Final = 200  # of memory beside its content
_MOST: Final = 50  # places of a pair until all but the first are dropped

Place = tuple[int, int]  #: Of an element: its position in both values, -1 where it is not.


def moment(ms: int) -> str:
    """A time in Unix milliseconds as date and time (UTC), with milliseconds where there are any.

    >>> moment(4_102_444_800_000), moment(4_102_444_800_999)
    ('2100-01-01 00:00:00', '2100-01-01 00:00:00.999')
    """
    try:
        text = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(ms // 1000))
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"
    return f"{text}.{ms % 1000:03}" if ms % 1000 else text


def expiries(times: tuple[int | None, int | None]) -> str:
    """The expiries of both files, in words."""
    return " and ".join("never" if ms is None else moment(ms) for ms in times)


def has_pieces(record: Record) -> bool:
    """Whether a value is bytes and has no elements: a string, or what a module keeps."""
    return record.type in ("string", "module")


def pieces(record: Record) -> Iterator[bytes]:
    """The bytes of such a value."""
    return record.content() if record.type == "string" else record.chunks()


def elements(record: Record, now: int | None) -> Iterator[Any]:
    """The elements that count; a field that has expired by `now` does not."""
    is_hash = record.type == "hash" and now is not None
    for batch in record.elements():
        for element in batch:
            if isinstance(element, StreamDedup) and not any(ids for _, ids in element.producers):
                continue  # it remembers nothing; older versions do not support that
            if is_hash and has_expired(element, now):
                continue
            yield element


def has_expired(element: Any, now: int | None) -> bool:
    """Whether a field of a hash has expired by `now`."""
    return now is not None and element[2] is not None and element[2] <= now


def form(name: str, element: Any, expiries: bool) -> bytes:
    """An element of a type as bytes that no other one has."""
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
        return repr((element.name, *_group(element))).encode()
    if isinstance(element, StreamDedup):
        return repr(sorted(element.producers)).encode()
    return repr(element).encode()


def _group(group: StreamGroup) -> tuple[Any, ...]:
    """What is compared of a group."""
    pending = sorted((tuple(p.id), p.consumer, p.delivery_count) for p in group.pending)
    return group.last_id, pending, sorted(c.name for c in group.consumers)


class _Part(NamedTuple):
    """An element to be shown.

    Attributes:
        name: in words.
        value: the beginning of it, `size` how many bytes it has, `number` the hash of all.
        is_text: it is a number or the like, not a string of the file.
        expire_ms: of a field, where expiries are compared.
    """

    name: str
    value: bytes
    size: int
    number: int
    is_text: bool
    expire_ms: int | None = None


class Inside:
    """Compares the elements of values of both files, two at a time.

    Args:
        now: what counts as expired, in Unix milliseconds.
        compares_expiry: whether the expiries of fields are among what may differ. If not, a field that has expired is there where
            the other value has it, too.
    """

    def __init__(self, now: int, compares_expiry: bool) -> None:
        self._now = now
        self._compares_expiry = compares_expiry
        self._partitions = (HashPartitions(), HashPartitions())
        self._type_names: dict[int, str] = {}
        self._sizes: tuple[dict[int, int], dict[int, int]] = ({}, {})  # elements, or bytes of a string
        self._kept: tuple[dict[int, list[Any]], dict[int, list[Any]]] = ({}, {})
        self._room = [_KEPT_IN_ALL, _KEPT_IN_ALL]
        self._parts: tuple[dict[Place, _Part], dict[Place, _Part]] = ({}, {})  # by pair and position

    def add(self, side: int, number: int, record: Record) -> None:
        """The value that the file `side` (0 or 1) has of pair `number`."""
        type_name = self._type_names[number] = record.type
        partitions = self._partitions[side]
        bytes_ = held = at = 0
        kept: list[Any] | None = []
        for at, (name, element) in enumerate(self._named(record), 1):
            data = form(type_name, element, self._compares_expiry)
            bytes_ += len(data)
            expired = type_name == "hash" and not self._compares_expiry and has_expired(element, self._now)
            called = hash(name)
            partitions.outs[(called ^ number) & (PARTITIONS - 1)].write(
                _ENTRY.pack(called, hash(data), number, (at - 1) << 1 | expired)
            )
            partitions.grown(_ENTRY.size)
            held += len(data) + _ELEMENT_BYTES
            if kept is not None:
                kept.append((name, element))
                if held > min(_KEPT_BYTES, self._room[side]):
                    kept = None
        self._sizes[side][number] = bytes_ if has_pieces(record) else at
        if kept is not None:
            self._room[side] -= held
            self._kept[side][number] = kept

    def places(self) -> dict[int, list[Place]]:
        """Of each pair that differs, the first elements that do, by the order of the first value; then the second's own."""
        found: dict[int, tuple[list[Place], list[Place]]] = {}
        for number, place in self._differences():
            alone = place[0] < 0
            places = found.setdefault(number, ([], []))[alone]
            places.append(place)
            if len(places) > _MOST:
                places.sort()
                del places[_SHOWN:]
        return {number: [*sorted(both)[:_SHOWN], *sorted(alone)[:_SHOWN]] for number, (both, alone) in found.items()}

    def different(self) -> set[int]:
        """The pairs that differ."""
        return {number for number, _ in self._differences()}

    def _differences(self) -> Iterator[tuple[int, Place]]:
        for partition in range(PARTITIONS):
            others = {}
            for called, hashed, number, at in _ENTRY.iter_unpack(self._partitions[1].partition(partition)):
                others[number, called] = (hashed, at)
            for called, hashed, number, at in _ENTRY.iter_unpack(self._partitions[0].partition(partition)):
                other = others.pop((number, called), None)
                if other is not None:
                    if hashed != other[0]:
                        yield number, (at >> 1, other[1] >> 1)
                elif not at & 1:
                    yield number, (at >> 1, -1)
            for (number, _), (_, at) in others.items():
                if not at & 1:
                    yield number, (-1, at >> 1)

    def wanted(self, side: int, places: dict[int, list[Place]]) -> dict[int, list[int]]:
        """Which elements of which pairs are to be read again, to be given to `show`."""
        wanted = {}
        for number, found in places.items():
            positions = sorted(place[side] for place in found if place[side] >= 0)
            kept = self._kept[side].get(number)
            if kept is not None:
                for at in positions:
                    self._parts[side][number, at] = self._part(self._type_names[number], *kept[at])
            elif positions:
                wanted[number] = positions
        return wanted

    def show(self, side: int, number: int, record: Record, positions: list[int]) -> None:
        """Keep the beginning of the elements at these positions."""
        left = set(positions)
        for at, (name, element) in enumerate(self._named(record)):
            if at in left:
                self._parts[side][number, at] = self._part(record.type, name, element)
                left.remove(at)
                if not left:
                    return

    def lines(self, number: int, places: list[Place]) -> list[str]:
        """The first elements of a pair that differ, in words."""
        type_name = self._type_names[number]
        sizes = self._sizes[0][number], self._sizes[1][number]
        pairs = [(self._parts[0].get((number, place[0])), self._parts[1].get((number, place[1]))) for place in places]
        if type_name in ("string", "module"):
            first, second = pairs[0]
            begin = max(places[0]) * _PIECE
            return [_difference(b"" if first is None else first.value, b"" if second is None else second.value, sizes, begin)]
        if type_name == "set":
            return [f"only in the {'first' if other is None else 'second'}: {(one or other).name}" for one, other in pairs]  # type: ignore[union-attr]
        if type_name == "list":
            lines = [_line(one, other) for one, other in pairs if one is not None and other is not None]
            return lines if sizes[0] == sizes[1] else [f"{sizes[0]} and {sizes[1]} elements", *lines]
        return [_line(one, other) for one, other in pairs[:_SHOWN]]

    def on_disk(self) -> int:
        """Bytes of temporary files."""
        return sum(partitions.on_disk() for partitions in self._partitions)

    def close(self) -> None:
        """Remove the temporary files."""
        for partitions in self._partitions:
            partitions.close()

    def _named(self, record: Record) -> Iterator[tuple[Any, Any]]:
        """Each element, and what tells it from the others of its value."""
        if has_pieces(record):
            yield from enumerate(_even(pieces(record)))
            return
        type_name = record.type
        for at, element in enumerate(elements(record, self._now if self._compares_expiry else None)):
            if type_name == "set":
                yield element, element
            elif type_name in ("hash", "zset", "array") or isinstance(element, StreamEntry | StreamGroup):
                yield element[0], element
            else:
                yield type(element) if isinstance(element, StreamTail | StreamDedup) else at, element

    def _part(self, type_name: str, name: Any, element: Any) -> _Part:
        expire = None
        is_text = False
        match type_name, element:
            case "hash", _:
                shown, value = _cut(name), element[1]
                expire = element[2] if self._compares_expiry else None
            case "array" | "zset", _:
                shown, value = f"element {name}" if type_name == "array" else _cut(name), element[1]
            case "set", _:
                shown, value = _cut(name), b""
            case "list", _:
                shown, value = f"element {name}", element
            case _, StreamEntry():
                shown, value = f"entry {element.id}", element.fields
            case _, StreamGroup():
                shown, value = f"group {_cut(name)}", _group(element)
            case _, StreamTail():
                shown, value = "length and last id", (element.length, str(element.last_id))
            case _, StreamDedup():
                shown, value = "ids of producers", sorted(element.producers)
            case _:
                shown, value = "", element
        if not isinstance(value, bytes):
            value, is_text = repr(value).encode(), True
        return _Part(shown, value[:_PIECE], len(value), hash(value), is_text, expire)


def _even(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of one size, but for the last."""
    rest = b""
    for chunk in chunks:
        data = rest + chunk if rest else chunk
        whole = len(data) - len(data) % _PIECE
        for at in range(0, whole, _PIECE):
            yield data[at : at + _PIECE]
        rest = data[whole:]
    if rest:
        yield rest


def _cut(data: bytes, size: int | None = None) -> str:
    """Bytes in words, of which `data` may be the beginning; where they are many, the first, and how many there are."""
    size = len(data) if size is None else size
    return f"{data[:_SHOWN_BYTES]!r}... ({size:,} bytes)" if size > _SHOWN_BYTES else repr(data)


def _line(one: _Part | None, other: _Part | None) -> str:
    """How an element differs."""
    known = one if one is not None else other
    assert known is not None
    said = []
    if one is None or other is None:
        said.append(f"{_value(one)} and {_value(other)}")
        if known.expire_ms is not None:
            said.append(f"expires {moment(known.expire_ms)}")
    else:
        if one.number != other.number:
            short = max(one.size, other.size) <= _SHOWN_BYTES
            same = one.value == other.value  # as far as it was kept
            if short or (same and one.size != other.size):
                said.append(f"{_value(one)} and {_value(other)}")
            elif same:
                said.append(f"{one.size:,} bytes each, of which the first {_PIECE:,} are the same")
            else:
                said.append(_difference(one.value, other.value, (one.size, other.size), 0))
        if one.expire_ms != other.expire_ms:
            said.append(f"expires {expiries((one.expire_ms, other.expire_ms))}")
    return f"{known.name}: {', '.join(said)}" if known.name else ", ".join(said)


def _value(part: _Part | None) -> str:
    if part is None:
        return "None"
    if not part.is_text:
        return _cut(part.value, part.size)
    text = part.value[:_SHOWN_BYTES].decode("utf-8", "replace")
    return f"{text}... ({part.size:,} letters)" if part.size > _SHOWN_BYTES else text


def _difference(one: bytes, other: bytes, sizes: tuple[int, int], begin: int) -> str:
    """Where two strings differ, of which these are the pieces from byte `begin` on."""
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    shown = f"{one[at : at + _NEAR]!r} and {other[at : at + _NEAR]!r}"
    return f"byte {begin + at} of {sizes[0]} and {sizes[1]}: {shown}"

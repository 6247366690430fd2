"""Whether records keep the rules of the format; compiled, since it runs once a record and element.

What decoding checks is checked by decoding. What is left to a `Probe` needs more than one element to be seen: whether one is there
twice, and whether scores stand in order.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from librt.strings import write_i64_le

from rdbkit.errors import CorruptError, RdbError
from rdbkit.format.decode import Coding, Decoder, check_field_names, score_of
from rdbkit.format.lzf_check import LzfChecker
from rdbkit.format.primitives import read_string
from rdbkit.format.scan import KINDS, STRING_LZF, Visitor
from rdbkit.format.sink import Sink
from rdbkit.model import Event, FunctionLibrary, HashTemplate
from rdbkit.operations.hashes import PILES, NameHashes, Piles, name_hash
from rdbkit.record import Record, feed_pieces

if TYPE_CHECKING:
    from mypy_extensions import i64

#: Of the names of a value's elements, what is held in memory; of others, the disk has 16 bytes.
_HELD: Final = 1 << 17
_HELD_BYTES: Final = 8 << 20
_PAIR: Final = 16

# What is to be seen of a value, by its type.
_DECODED: Final = 1
_NAMED: Final = 2  # no two elements begin with the same
_SCORED: Final = 4
_ORDERED: Final = 8  # by their scores
_FILLED: Final = 16  # it has elements

#: The first line of a library of functions, without the quotes that servers take too.
_LIBRARY_HEAD: Final = re.compile(rb"#!\S+\s+name=(\w+)\s*\n", re.IGNORECASE)


class Probe(Sink):
    """Looks at the elements of one value."""

    def __init__(self) -> None:
        self.arity: i64 = 1
        self.at: i64 = 0  # of an element's parts, the one that comes next
        self.count: i64 = 0
        self.named: bool = False
        self.scored: bool = False
        self.ordered: bool = False
        self.names: set[bytes] = set()
        self.bytes: i64 = 0
        self.piles: Piles | None = None
        self.member: bytes = b""
        self.last_member: bytes = b""
        self.last_score: float = 0.0

    def begin(self, arity: i64, traits: i64) -> None:
        """Make ready for a value whose elements come in `arity` parts."""
        self.close()
        self.arity = arity
        self.at = 0
        self.count = 0
        self.named = traits & _NAMED != 0
        self.scored = traits & _SCORED != 0
        self.ordered = traits & _ORDERED != 0
        self.names.clear()
        self.bytes = 0

    def string(self, buf: bytes, start: i64, end: i64) -> None:
        at: i64 = self.at
        if at == 0:
            self.count += 1
            if self.named:
                self.name(buf[start:end])
        elif self.scored:
            self.score(score_of(buf[start:end]))
        at += 1
        self.at = at if at < self.arity else 0

    def integer(self, n: i64) -> None:
        at: i64 = self.at
        if at == 0:
            self.count += 1
            if self.named:
                self.name(str(n).encode())
        elif self.scored:
            self.score(float(n))
        at += 1
        self.at = at if at < self.arity else 0

    def double(self, x: float) -> None:
        self.at = 0  # it ends an element, as a number does

    def number(self, n: i64) -> None:
        self.at = 0

    def thing(self, thing: object) -> None:
        self.count += 1
        if self.named and isinstance(thing, tuple):  # an index of an array, and what stands there
            self.name(b"%d" % thing[0])

    def name(self, name: bytes) -> None:
        """What no other element may begin with."""
        self.member = name
        if self.piles is not None:
            self.pile(name)
            return
        before: i64 = len(self.names)
        self.names.add(name)
        if len(self.names) == before:
            raise CorruptError(f"{name[:64]!r} is there twice", rule="element-twice")
        self.bytes += len(name)
        if self.bytes > _HELD_BYTES or before >= _HELD:
            self.piles = Piles()
            for held in self.names:
                self.pile(held)
            self.names.clear()

    def pile(self, name: bytes) -> None:
        """Two hashes, which are keyed anew in each process: two names that share both are the same."""
        piles = self.piles
        assert piles is not None
        number: i64 = hash(name)
        out = piles.outs[number & (PILES - 1)]
        write_i64_le(out, number)
        number = hash(b"\1" + name)
        write_i64_le(out, number)
        piles.grown(_PAIR)

    def score(self, score: float) -> None:
        """The score of the member that has come."""
        if not self.ordered:
            return
        member = self.member
        if self.count > 1 and (score < self.last_score or (score == self.last_score and member < self.last_member)):
            last = f"{self.last_member[:64]!r} with score {self.last_score!r}"
            raise CorruptError(f"{member[:64]!r} with score {score!r} stands behind {last}", rule="score-order")
        self.last_score = score
        self.last_member = member

    def finish(self) -> None:
        """The value has ended.

        Raises: CorruptError where an element is there twice.
        """
        piles = self.piles
        if piles is not None:
            for number in range(PILES):
                data = piles.pile(number)
                pairs = {data[at : at + _PAIR] for at in range(0, len(data), _PAIR)}
                if len(pairs) * _PAIR < len(data):
                    twice = len(data) // _PAIR - len(pairs)
                    raise CorruptError(f"{twice} of its {self.count} elements are there before", rule="element-twice")

    def close(self) -> None:
        """Remove the temporary file."""
        if self.piles is not None:
            self.piles.close()
            self.piles = None


class Verifier(Visitor):
    """Looks at every record of a snapshot.

    Args:
        coding: of the snapshot.
        limit: most bytes of a key's name.
        deep: look inside of values; otherwise records are but counted.
        tell: called with each error that a record gives, its database, the offset of the record and its bytes. The key is in the
            error.

    Attributes:
        records: so far.
        names: hashes of the names of keys.
        libraries: names of the libraries of functions.
        nameless: keys with an empty name behind another of their database, as a stretch of zeros has them by the thousand.
        nameless_at: where the first of them begins, in bytes from the beginning.
    """

    def __init__(self, coding: Coding, limit: int, deep: bool, tell: Any) -> None:
        super().__init__()
        self.coding: Coding = coding
        self.limit: i64 = limit
        self.deep: bool = deep
        self.tell: Any = tell
        self.records: i64 = 0
        self.names: NameHashes = NameHashes()
        self.libraries: set[bytes] = set()
        self.decoder: Decoder = Decoder(coding)
        self.lzf: LzfChecker = LzfChecker()
        self.probe: Probe = Probe()
        self.nameless: i64 = 0
        self.nameless_at: i64 = 0
        self.nameless_db: i64 = -1  # the last that has a key with an empty name
        self.large_error: Any = None  # of the record larger than a block that is being passed
        traits = bytearray(KINDS)
        for t in coding.types.values():
            traits[t.id] = _traits(t.type, t.encoding)
        self.traits: bytes = bytes(traits)

    def record(self, kind: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        self.records += 1
        if self.buf[key_at] == 0:
            self.met_nameless(start)
        if not self.deep:
            return
        key: bytes | None = None
        try:
            if self.buf[key_at] < 0x40:
                name = self.buf[key_at + 1 : value_at]
            else:
                name, _ = read_string(self.buf, key_at, self.limit)
            key = name
            self.names.add(self.db, name)
            if kind == STRING_LZF or self.traits[kind]:
                self.value(kind, value_at, end)
        except RdbError as e:
            e.key = key
            self.tell(e, int(self.db), int(self.base + start), int(end - start) + self.stray_bytes())

    def met_nameless(self, start: i64) -> None:
        """A key with an empty name."""
        if self.db != self.nameless_db:
            self.nameless_db = self.db
            return
        if self.nameless == 0:
            self.nameless_at = self.base + start
        self.nameless += 1

    def value(self, kind: i64, pos: i64, end: i64) -> None:
        """Look at the value in `buf[pos:end]`.

        Raises: RdbError without a place.
        """
        buf = self.buf
        stop: i64
        if kind == STRING_LZF:
            self.lzf.begin()
            stop = self.lzf.feed(buf, pos, None)
            if not self.lzf.done or stop != end:
                raise CorruptError("its compressed bytes do not end where the value ends", rule="string-lzf")
            return
        self.begin(kind)
        decoder = self.decoder
        stop = decoder.feed(buf, pos, self.probe)
        if not decoder.done or stop != end:
            raise CorruptError("its parts do not end where the value ends", rule="value-end")
        self.finish(kind)

    def begin(self, kind: i64) -> None:
        decoder = self.decoder
        decoder.begin(kind)
        self.probe.begin(decoder.arity, self.traits[kind])

    def finish(self, kind: i64) -> None:
        probe = self.probe
        if probe.count == 0 and self.traits[kind] & _FILLED:
            raise CorruptError("it has no elements", rule="empty")
        probe.finish()

    def judge_large(self, record: Record) -> None:
        """Look at a record larger than a block, before the scan goes on.

        Raises: RdbError with a source where the framing breaks.
        """
        kind: i64 = record._kind
        if not self.deep:
            return
        self.names.add(record.db, record.key)
        if kind != STRING_LZF and not self.traits[kind]:
            return
        try:
            if kind == STRING_LZF:
                self.lzf.begin()
                for _ in feed_pieces(self.lzf, None, record.chunks()):
                    pass
            else:
                self.begin(kind)
                for _ in feed_pieces(self.decoder, self.probe, record.chunks()):
                    pass
                self.finish(kind)
        except RdbError as e:
            if e.source is not None:
                raise
            e.key = record.key
            self.large_error = e

    def large(self, kind: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        self.records += 1
        if self.large_error is not None:
            self.tell(self.large_error, int(self.db), int(offset), int(size))
            self.large_error = None

    def event(self, event: Event) -> None:
        if not self.deep:
            return
        try:
            judge_event(event, self.libraries)
        except RdbError as e:
            self.tell(e, None, int(self.base + self.event_at), int(self.event_end - self.event_at))

    def close(self) -> None:
        """Remove the temporary files."""
        self.probe.close()
        self.names.piles.close()


class Repeats(Visitor):
    """Finds records whose name has come before, among those whose name has one of these hashes.

    Args:
        limit: most bytes of a key's name.
        hashes: of names, as `NameHashes.twice` gives them.
        tell: called with database, name, offset of the first record, offset of this one and its bytes.
    """

    def __init__(self, limit: int, hashes: set[int], tell: Any) -> None:
        super().__init__()
        self.limit: i64 = limit
        self.hashes: set[int] = hashes
        self.tell: Any = tell
        self.first: dict[tuple[int, bytes], int] = {}

    def record(self, kind: i64, start: i64, key_at: i64, value_at: i64, end: i64, expire_ms: i64) -> None:
        if self.buf[key_at] < 0x40:
            name = self.buf[key_at + 1 : value_at]
        else:
            try:
                name, _ = read_string(self.buf, key_at, self.limit)
            except RdbError:  # a damaged name, which is none that could come twice
                return
        self.met(name, self.base + start, end - start + self.stray_bytes())

    def large(self, kind: i64, offset: i64, key: bytes, size: i64, expire_ms: i64, head: bytes) -> None:
        self.met(key, offset, size)

    def met(self, name: bytes, offset: i64, size: i64) -> None:
        if int(name_hash(self.db, name)) not in self.hashes:
            return
        known = (int(self.db), name)
        first = self.first.get(known)
        if first is None:
            self.first[known] = int(offset)
        else:
            self.tell(known[0], name, first, int(offset), int(size))


def _traits(name: str, encoding: str) -> int:
    """What is to be seen of a value of this type."""
    if name in ("string", "json", "gcra", "cron", "module"):  # the framing is all there is to check
        return 0
    if name == "zset":
        in_order = encoding in ("ziplist", "listpack")
        return _DECODED | _NAMED | _SCORED | _FILLED | (_ORDERED if in_order else 0)
    if name == "set" and encoding == "intset":  # its numbers ascend, so that none is there twice
        return _DECODED | _FILLED
    if name in ("set", "hash", "array"):
        return _DECODED | _NAMED | _FILLED
    return _DECODED | (_FILLED if name == "list" else 0)


def judge_event(event: Event, libraries: set[bytes]) -> None:
    """Raise CorruptError where what stands between keys breaks a rule; `libraries` takes the names of those of functions."""
    if isinstance(event, HashTemplate):
        check_field_names(event.fields)
    elif isinstance(event, FunctionLibrary):
        name = event.name.encode("utf-8", "surrogateescape")
        if not event.pre_release:
            first = event.source[: event.source.find(b"\n") + 1]
            head = _LIBRARY_HEAD.fullmatch(first.replace(b'"', b"").replace(b"'", b""))
            if head is None:
                raise CorruptError(f"a library of functions begins with {event.source[:64]!r}", rule="function-head")
            name = head[1]
        if name in libraries:
            raise CorruptError(f"library {name[:64]!r} is there before", rule="function-twice")
        libraries.add(name)

"""Whether values keep the rules of the format, those a target tolerates excepted; compiled, since it runs once an element.

What decoding checks is checked by decoding. What is left to an `ElementChecker` needs more than one element to be seen: whether one
comes twice, and whether scores are in order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from librt.strings import write_i64_le

from rdbkit.errors import CorruptError
from rdbkit.format.decode import Decoder, FileTypes, score_in
from rdbkit.format.lzf_check import LzfChecker
from rdbkit.format.scan import STRING_LZF, TYPE_CODES
from rdbkit.format.sink import Names, Sink
from rdbkit.passes.hashes import PARTITIONS, HashPartitions

if TYPE_CHECKING:
    from mypy_extensions import i64

#: Of the names of a value's elements, what is held in memory; of others, the disk has 16 bytes.
_HELD: Final = 1 << 17
_HELD_BYTES: Final = 8 << 20
_PAIR: Final = 16
_REUSED: Final = 1 << 10
_DIGITS: Final = 18
_MOST_NUMBER: Final = 10**18
#: What `number_in` gives for a text that is no such number.
NO_NUMBER: Final = -(1 << 62)
_LONGEST_SCORE: Final = 127  # of the text that zzlGetScore has room for
#: How many tolerated faults of one value are reported.
_MOST_DOUBTS: Final = 8

# What is to be seen of a value, by its type.
_DECODED: Final = 1
_NAMED: Final = 2  # no two elements begin with the same
_SCORED: Final = 4
_ORDERED: Final = 8  # by their scores
_FILLED: Final = 16  # it has elements

#: The rules that are not the decoder's, and that a target can tolerate.
TWICE: Final = "element-twice"
ORDER: Final = "score-order"
EMPTY: Final = "empty"


class ElementNames(Names):
    """Finds names that come twice among those of one value, in bounded memory.

    A name that is the text of a number is kept as the number, as which packed collections have it: no text is made of it.
    """

    def __init__(self) -> None:
        self.names: set[object] = set()
        self.bytes: i64 = 0
        self.partitions: HashPartitions | None = None

    def begin(self) -> None:
        self.close()
        if len(self.names) > _REUSED:
            self.names = set()
        else:
            self.names.clear()
        self.bytes = 0

    def add(self, name: bytes) -> None:
        number: i64 = number_in(name)
        if number != NO_NUMBER:
            self.keep(int(number), 8)
        else:
            self.keep(name, len(name))

    def add_number(self, number: i64) -> None:
        if -_MOST_NUMBER < number < _MOST_NUMBER:
            self.keep(int(number), 8)
        else:
            self.keep(b"%d" % number, 20)

    def keep(self, name: object, size: i64) -> None:
        """A name in the one form that it has here."""
        if self.partitions is not None:
            self.partition(text_of(name))
            return
        before: i64 = len(self.names)
        self.names.add(name)
        if len(self.names) == before:
            raise CorruptError(f"{text_of(name)[:64]!r} comes twice", rule=TWICE)
        self.bytes += size
        if self.bytes > _HELD_BYTES or before >= _HELD:
            self.partitions = HashPartitions()
            for held in self.names:
                self.partition(text_of(held))
            self.names = set()

    def partition(self, name: bytes) -> None:
        """Two hashes, which are keyed afresh in each process: two names that share both are the same."""
        partitions = self.partitions
        assert partitions is not None
        number: i64 = hash(name)
        out = partitions.outs[number & (PARTITIONS - 1)]
        write_i64_le(out, number)
        number = hash(b"\1" + name)
        write_i64_le(out, number)
        partitions.grown(_PAIR)

    def finish(self) -> None:
        partitions = self.partitions
        if partitions is not None:
            for number in range(PARTITIONS):
                data = partitions.partition(number)
                pairs = {data[at : at + _PAIR] for at in range(0, len(data), _PAIR)}
                if len(pairs) * _PAIR < len(data):
                    raise CorruptError(f"{len(data) // _PAIR - len(pairs)} or more of its elements come twice", rule=TWICE)

    def close(self) -> None:
        """Remove the temporary file."""
        if self.partitions is not None:
            self.partitions.close()
            self.partitions = None


def number_in(text: bytes) -> i64:
    """The number of at most 18 digits whose text this is, just as servers write it; NO_NUMBER for any other text.

    >>> number_in(b"-12"), number_in(b"012") == NO_NUMBER, number_in(b"-0") == NO_NUMBER, number_in(b"0")
    (-12, True, True, 0)
    """
    size: i64 = len(text)
    if size == 0 or size > _DIGITS + 1:
        return NO_NUMBER
    at: i64 = 1 if text[0] == 0x2D else 0
    first: i64 = text[at] if size > at else 0
    if first < 0x30 or first > 0x39 or size - at > _DIGITS or (first == 0x30 and size > 1):
        return NO_NUMBER
    number: i64 = 0
    begin: i64 = at
    while at < size:
        digit: i64 = text[at]
        if digit < 0x30 or digit > 0x39:
            return NO_NUMBER
        number = number * 10 + (digit - 0x30)
        at += 1
    return -number if begin else number


def text_of(name: object) -> bytes:
    """The text of a name as `ElementNames` keeps it."""
    if isinstance(name, int):
        return b"%d" % name
    assert isinstance(name, bytes)
    return name


class ElementChecker(Sink):
    """Looks at the elements of one value.

    Attributes:
        count: elements so far.
        twice: the first name that comes twice where that is tolerated, None where none does.
        disorder: the first pair of members that are not in order where that is tolerated.
    """

    def __init__(self) -> None:
        self.arity: i64 = 1
        self.at: i64 = 0  # of an element's parts, the one that comes next
        self.count: i64 = 0
        self.named: bool = False
        self.scored: bool = False
        self.ordered: bool = False
        self.tolerates_twice: bool = False
        self.tolerates_disorder: bool = False
        self.twice: str | None = None
        self.disorder: str | None = None
        self.names: ElementNames = ElementNames()
        self.member: bytes = b""
        self.last_member: bytes = b""
        self.is_number: bool = False  # the member: `member_number` has it then
        self.member_number: i64 = 0
        self.was_number: bool = False
        self.last_number: i64 = 0
        self.last_score: float = 0.0

    def begin(self, arity: i64, traits: i64) -> None:
        """Make ready for a value whose elements come in `arity` parts."""
        self.arity = arity
        self.at = 0
        self.count = 0
        self.named = traits & _NAMED != 0
        self.scored = traits & _SCORED != 0
        self.ordered = traits & _ORDERED != 0
        self.twice = None
        self.disorder = None
        self.names.begin()

    def string(self, buf: bytes, start: i64, end: i64) -> None:
        at: i64 = self.at
        if at == 0:
            self.count += 1
            if self.named:
                self.name(buf[start:end])
        elif self.scored:
            if end - start > _LONGEST_SCORE:
                raise CorruptError(f"a score of {end - start} bytes of text", rule="score")
            self.score(score_in(buf, start, end))
        at += 1
        self.at = at if at < self.arity else 0

    def integer(self, n: i64) -> None:
        at: i64 = self.at
        if at == 0:
            self.count += 1
            if self.named:
                self.number_name(n)
        elif self.scored:
            self.score(float(n))
        at += 1
        self.at = at if at < self.arity else 0

    def double(self, x: float) -> None:
        self.at = 0  # it ends an element, as a number does

    def attribute(self, n: i64) -> None:
        self.at = 0

    def part(self, part: object) -> None:
        self.count += 1
        if self.named and isinstance(part, tuple):  # an index of an array, and what stands there
            self.name(b"%d" % part[0])

    def name(self, name: bytes) -> None:
        """What no other element may begin with."""
        self.member = name
        self.is_number = False
        if not self.tolerates_twice:
            self.names.add(name)
            return
        try:
            self.names.add(name)
        except CorruptError as e:
            if self.twice is None:
                self.twice = e.message

    def number_name(self, n: i64) -> None:
        """The same of a name that is the text of a number."""
        self.is_number = True
        self.member_number = n
        if not self.tolerates_twice:
            self.names.add_number(n)
            return
        try:
            self.names.add_number(n)
        except CorruptError as e:
            if self.twice is None:
                self.twice = e.message

    def score(self, score: float) -> None:
        """The score of the member that has come."""
        if not self.ordered:
            return
        if self.count > 1 and (score < self.last_score or (score == self.last_score and self.text() < self.last_text())):
            last = f"{self.last_text()[:64]!r} with score {self.last_score!r}"
            message = f"{self.text()[:64]!r} with score {score!r} follows {last}"
            if not self.tolerates_disorder:
                raise CorruptError(message, rule=ORDER)
            if self.disorder is None:
                self.disorder = message
        self.last_score = score
        self.last_member = self.member
        self.was_number = self.is_number
        self.last_number = self.member_number

    def text(self) -> bytes:
        """The text of the member at hand; one that is a number has had none so far."""
        return b"%d" % self.member_number if self.is_number else self.member

    def last_text(self) -> bytes:
        """The text of the member before."""
        return b"%d" % self.last_number if self.was_number else self.last_member

    def finish(self) -> None:
        """The value has ended.

        Raises: CorruptError where an element comes twice.
        """
        try:
            self.names.finish()
        except CorruptError as e:
            if not self.tolerates_twice:
                raise
            self.twice = e.message

    def close(self) -> None:
        """Remove the temporary file."""
        self.names.close()


class ValueChecker:
    """Checks one value after the other, at once or piece by piece; it can be fed as a `Decoder` can.

    Args:
        file_types: of the file.
        tolerated: rules that are allowed to be broken.

    Attributes:
        opens: by `type_code`, not 0 where a value of it has anything to check.
        doubts: the first tolerated faults of the value that was checked last.
        done, need: as of `Decoder`.
    """

    def __init__(self, file_types: FileTypes, tolerated: frozenset[str]) -> None:
        self.decoder: Decoder = Decoder(file_types, tolerated, False)
        self.lzf: LzfChecker = LzfChecker()
        self.elements: ElementChecker = ElementChecker()
        self.done: bool = False
        self.need: i64 = 0
        self.paused: bool = False  # never, which decoders that hold what they read may be
        self.type_code: i64 = 0
        self.doubts: list[CorruptError] = []
        traits = bytearray(TYPE_CODES)
        for t in file_types.types.values():
            traits[t.id] = _traits(t.type, t.packed)
        traits[STRING_LZF] = _DECODED
        self.opens: bytes = bytes(traits)
        self.elements.tolerates_twice = TWICE in tolerated
        self.elements.tolerates_disorder = ORDER in tolerated

    def check(self, type_code: i64, buf: bytes, pos: i64, end: i64) -> None:
        """Check the value in `buf[pos:end]`.

        Raises: RdbError without a place.
        """
        self.begin(type_code)
        stop: i64 = self.feed(buf, pos, None)
        if not self.done or stop != end:
            if type_code == STRING_LZF:
                raise CorruptError("its compressed bytes do not end where the value ends", rule="string-lzf")
            raise CorruptError("its parts do not end where the value ends", rule="value-end")
        self.finish()

    def begin(self, type_code: i64) -> None:
        """Make ready for a value of this type, as `Visitor.record` tells it."""
        self.type_code = type_code
        self.done = False
        self.need = 0
        if self.doubts:
            self.doubts = []
        if type_code == STRING_LZF:
            self.lzf.begin()
            return
        self.decoder.begin(type_code)
        self.elements.begin(self.decoder.arity, self.opens[type_code])

    def feed(self, buf: bytes, pos: i64, sink: object) -> i64:
        """Check what is complete in `buf` from `pos` on; return where the first incomplete part begins.

        Raises: RdbError without a place.
        """
        if self.type_code == STRING_LZF:
            pos = self.lzf.feed(buf, pos, None)
            self.done = self.lzf.done
            return pos
        decoder = self.decoder
        pos = decoder.feed(buf, pos, self.elements)
        self.done = decoder.done
        self.need = decoder.need
        return pos

    def finish(self) -> None:
        """The value has ended.

        Raises: CorruptError where it has no elements, or one of them twice.
        """
        if self.type_code == STRING_LZF:
            return
        elements = self.elements
        if elements.count == 0 and self.opens[self.type_code] & _FILLED:
            raise CorruptError("it has no elements", rule=EMPTY)
        elements.finish()
        if elements.twice is not None:
            self.doubts.append(CorruptError(elements.twice, rule=TWICE))
        if elements.disorder is not None:
            self.doubts.append(CorruptError(elements.disorder, rule=ORDER))
        if self.decoder.doubts:
            self.doubts += self.decoder.doubts[:_MOST_DOUBTS]

    def close(self) -> None:
        """Remove the temporary file."""
        self.elements.close()


def _traits(name: str, packed: str) -> int:
    """What is to be seen of a value of this type."""
    if name in ("string", "json", "gcra", "cron", "module"):  # the framing is all there is to check
        return 0
    if name == "zset":
        return _DECODED | _NAMED | _SCORED | _FILLED | (_ORDERED if packed else 0)
    if name == "set" and packed == "intset":  # its numbers ascend, so that none comes twice
        return _DECODED | _FILLED
    if name in ("set", "hash", "array"):
        return _DECODED | _NAMED | _FILLED
    return _DECODED | (_FILLED if name == "list" else 0)

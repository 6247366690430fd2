"""What two servers answer to DUMP and to when a key expires, compared a page of keys at a time; compiled, since it runs once a key.

Most keys of a copy have the same bytes on both sides: for those no object is made. Of the others values are compared without their
encoding, so that versions and flavours of the servers do not matter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from librt.strings import BytesWriter, write_f64_le, write_i64_le

from rdbkit.errors import CorruptError, LimitError, RdbError
from rdbkit.format.constants import REDIS, VALKEY, VALKEY_VERSIONS
from rdbkit.format.decode import Decoder, FileTypes
from rdbkit.format.replies import Incoming, line_end, read_number, refusal
from rdbkit.format.sink import Sink
from rdbkit.passes.pages import Page

if TYPE_CHECKING:
    from mypy_extensions import i64

#: Behind the value of a payload stand a version of two bytes and a checksum of eight.
FOOTER: Final = 10
#: Types from here on have another meaning in some versions.
_FIRST_AMBIGUOUS: Final = 22
_MASK: Final = (1 << 62) - 1  # sums stay within 64 bits, interpreted as well

# How the elements of a value make its form.
_ORDERED: Final = 0
_MEMBERS: Final = 1
_PAIRS: Final = 2
_SCORED: Final = 3

# What comparing two values has shown.
SAME: Final = 0
OTHER_TYPE: Final = 1
OTHER_VALUE: Final = 2
UNDECIDED: Final = 3  # streams, fields that expire, values of modules: their elements have to be looked at


class PlainReplies(Incoming):
    """A number of replies none of which is an array: their bytes, without an object of any.

    Args:
        count: how many there are to come.
        most: so many bytes one of them may have.

    Attributes:
        taken: the bytes of those that have come.
    """

    def __init__(self, count: int, most: int = 1 << 62) -> None:
        super().__init__()
        self.left: i64 = count
        self.most: i64 = most
        self.taken: list[bytes] = []
        self.done = count == 0

    def read(self) -> i64:
        pos: i64 = 0
        end: i64
        while self.left > 0:
            end = self.reply_end(pos)
            if end < 0:
                if self.need - pos > self.most:
                    raise LimitError(f"a reply of {self.need - pos} bytes")
                break
            pos = end
            self.left -= 1
        self.taken.append(self.buf[:pos])
        self.done = self.left == 0
        return pos


def questions(page: Page, heads: list[bytes]) -> bytes:
    """Commands about each name of a page.

    Args:
        heads: of each command what stands in front of the name.
    """
    out = BytesWriter()
    names = page.names
    pos: i64 = 0
    size: i64 = len(names)
    while pos < size:
        end = name_end(names, pos)
        name = names[pos:end]
        for head in heads:
            out.write(head)
            out.write(name)
        pos = end
    return out.getvalue()


def name_end(names: bytes, pos: i64) -> i64:
    """Where the name of a page that begins at `pos` ends."""
    start = line_end(names, pos)
    return start + read_number(names, pos + 1, start - 2) + 2


class Sized(Incoming):
    """The replies to MEMORY USAGE of each name of a page, which is cut by them.

    Args:
        page: the names.
        big: keys that take more bytes are `large`.
        most: bytes that the keys of a piece take together, unless it has only one.

    Attributes:
        pieces: pages of keys that are asked for together.
        large: names of keys above the limit.
        refused: the first error reply; None where there is none.
    """

    def __init__(self, page: Page, big: int, most: int) -> None:
        super().__init__()
        self.page: Page = page
        self.big: i64 = big
        self.most: i64 = most
        self.pieces: list[Page] = []
        self.large: list[bytes] = []
        self.refused: Any = None
        self.at: i64 = 0  # the next name
        self.begin: i64 = 0  # of the piece at hand
        self.count: i64 = 0
        self.total: i64 = 0
        self.done = page.count == 0

    def read(self) -> i64:
        buf = self.buf
        names = self.page.names
        size: i64 = len(names)
        pos: i64 = 0
        while self.at < size:
            end: i64 = line_end(buf, pos)
            if end < 0:
                return pos
            n: i64 = 0
            if buf[pos] == 0x3A:
                n = read_number(buf, pos + 1, end - 2)
            elif buf[pos] == 0x2D:
                if self.refused is None:
                    self.refused = refusal(buf[pos + 1 : end - 2])
            elif buf[pos] != 0x24 and buf[pos] != 0x5F:
                raise CorruptError("not a Redis server: invalid reply")
            pos = end
            self.take(n)
        self.cut()
        self.done = True
        return pos

    def take(self, n: i64) -> None:
        """The next key takes `n` bytes."""
        if n > self.big or self.total + n > self.most:
            self.cut()
        names = self.page.names
        start = line_end(names, self.at)
        end = start + read_number(names, self.at + 1, start - 2) + 2
        if n > self.big:
            self.large.append(names[start : end - 2])
            self.begin = end
        else:
            self.count += 1
            self.total += n
        self.at = end

    def cut(self) -> None:
        """End the piece at hand in front of the next name."""
        if self.count > 0:
            self.pieces.append(Page(self.page.names[self.begin : self.at], int(self.count)))
        self.begin = self.at
        self.count = 0
        self.total = 0


class Unlike:
    """A key whose answers are not the same on both sides.

    Attributes:
        at: its place in the page, from 0.
        values: its payloads; None where there is no such key.
        expires: Unix milliseconds, -1 for never, -2 where there is no such key.
        refusals: errors that came instead, as their lines; empty for none.
        verdict: what comparing the values has shown, if both are there.
        expires_otherwise: expiries are not near each other.
    """

    def __init__(
        self,
        at: int,
        values: tuple[bytes | None, bytes | None],
        expires: tuple[int, int],
        refusals: tuple[bytes, bytes],
        verdict: int,
        expires_otherwise: bool,
    ) -> None:
        self.at: int = at
        self.values: tuple[bytes | None, bytes | None] = values
        self.expires: tuple[int, int] = expires
        self.refusals: tuple[bytes, bytes] = refusals
        self.verdict: int = verdict
        self.expires_otherwise: bool = expires_otherwise


class _Side:
    """Where reading the answers of one server is."""

    def __init__(self, buf: bytes, base: i64) -> None:
        self.buf: bytes = buf
        self.base: i64 = base
        self.pos: i64 = 0
        self.start: i64 = 0  # of the payload
        self.stop: i64 = 0  # -1: there is none
        self.expire: i64 = 0
        self.refusal: bytes = b""

    def next(self) -> None:
        """Read the two answers about the next key."""
        buf = self.buf
        pos: i64 = self.pos
        end: i64
        self.refusal = b""
        for which in range(2):
            end = line_end(buf, pos) - 1
            if end < 0:
                raise CorruptError("not a Redis server: invalid reply (fewer replies than commands)")
            kind: i64 = buf[pos]
            if kind == 0x2D:
                if not self.refusal:
                    self.refusal = buf[pos + 1 : end - 1]
                if which == 0:
                    self.stop = -1
                else:
                    self.expire = -1
                pos = end + 1
            elif which == 0:
                n: i64 = -1 if kind == 0x5F else read_number(buf, pos + 1, end - 1)
                pos = end + 1
                self.start = pos
                self.stop = -1
                if n >= 0:
                    self.stop = pos + n
                    pos += n + 2
            else:
                n = read_number(buf, pos + 1, end - 1)
                self.expire = n + self.base if n >= 0 else n
                pos = end + 1
        self.pos = pos

    def value(self) -> bytes | None:
        """The payload of the key."""
        return None if self.stop < 0 else self.buf[self.start : self.stop]


class Form(Sink):
    """A number of a value that does not depend on how it is stored: hashes of its elements, in their order where it has one.

    The interpreter's hash is keyed afresh in each process: nobody can make two values of one number.

    Attributes:
        sum, count: of the elements.
        undecided: the value has what this number does not cover.
    """

    def __init__(self) -> None:
        self.sum: i64 = 0
        self.count: i64 = 0
        self.method: i64 = 0
        self.undecided: bool = False
        self.out: BytesWriter = BytesWriter()
        self.name: bytes = b""
        self.has_name: bool = False

    def begin(self, method: i64) -> None:
        """Make ready for the next value."""
        self.sum = 0
        self.count = 0
        self.method = method
        self.undecided = False
        self.has_name = False

    def string(self, buf: bytes, start: i64, end: i64) -> None:
        self.add(buf[start:end])

    def integer(self, n: i64) -> None:
        self.add(b"%d" % n)

    def double(self, x: float) -> None:
        if self.method != _SCORED:
            self.undecided = True
            return
        self.has_name = False
        out = self.out
        out.truncate(0)
        out.write(self.name)
        write_f64_le(out, x + 0.0)  # zero has no sign
        self.sum_up(hash(out.getvalue()))

    def attribute(self, n: i64) -> None:
        self.undecided = True

    def part(self, part: object) -> None:
        self.undecided = True

    def add(self, element: bytes) -> None:
        """The next string or number."""
        method: i64 = self.method
        if method == _MEMBERS:
            self.sum_up(hash(element))
        elif method == _ORDERED:
            self.sum_up(hash(self.together(self.sum, element)))
        elif not self.has_name:
            self.name = element
            self.has_name = True
        elif method == _PAIRS:
            self.has_name = False
            self.sum_up(hash(self.together(len(self.name), self.name, element)))
        else:
            try:
                self.double(float(element))
            except ValueError:
                self.undecided = True

    def together(self, number: i64, one: bytes, other: bytes = b"") -> bytes:
        """Bytes that nothing else gives: the sum of what is hashed apart would be the same where values are exchanged."""
        out = self.out
        out.truncate(0)
        write_i64_le(out, number)
        out.write(one)
        out.write(other)
        return out.getvalue()

    def sum_up(self, number: i64) -> None:
        """The hash of the next element."""
        self.sum = (self.sum + (number & _MASK)) & _MASK
        self.count += 1


class Coding:
    """How the payloads of one RDB version are read."""

    def __init__(self, file_types: FileTypes) -> None:
        self.file_types: FileTypes = file_types
        self.decoder: Decoder = Decoder(file_types)
        self.names: list[str] = [""] * 256
        self.methods: list[int] = [-1] * 256
        for t in file_types.types.values():
            self.names[t.id] = t.type
            if t.arity == 3 or t.type not in ("string", "list", "set", "zset", "hash"):
                continue
            self.methods[t.id] = {"set": _MEMBERS, "hash": _PAIRS, "zset": _SCORED}.get(t.type, _ORDERED)


class Comparison:
    """Compares what two servers answer.

    Args:
        limit: bytes that one string may unpack to.

    Attributes:
        same_bytes: keys so far whose values had the same bytes on both sides.
    """

    def __init__(self, limit: int) -> None:
        self.limit: int = limit
        self.codings: dict[int, Coding] = {}
        self.forms: tuple[Form, Form] = (Form(), Form())
        self.same_bytes: i64 = 0

    def compare(
        self, first: bytes, second: bytes, count: i64, bases: tuple[int, int], slack: i64, everything: bool
    ) -> list[Unlike]:
        """The keys of a page that are not the same.

        Args:
            first, second: of each server the replies to DUMP and to when the key expires, for each key.
            count: how many keys these are.
            bases: what is to be added to the expiries of each server: 0 where they are Unix milliseconds.
            slack: so many milliseconds may expiries be apart.
            everything: return all keys, also those that are the same.

        Raises: CorruptError where these are no such replies.
        """
        found: list[Unlike] = []
        if first == second and bases[0] == bases[1] and not everything and is_plain(first):
            self.same_bytes += count
            return found
        a = _Side(first, bases[0])
        b = _Side(second, bases[1])
        for at in range(count):
            a.next()
            b.next()
            otherwise = a.expire != b.expire and (a.expire < 0 or b.expire < 0 or not -slack <= a.expire - b.expire <= slack)
            verdict: i64 = UNDECIDED
            if a.stop >= 0 and b.stop >= 0:
                if a.stop - a.start == b.stop - b.start and self.same_value(first, a.start, a.stop, second, b.start):
                    verdict = SAME
                    self.same_bytes += 1
                else:
                    verdict = self.compare_values(first[a.start : a.stop], second[b.start : b.stop])
            elif a.stop < 0 and b.stop < 0 and not a.refusal and not b.refusal:
                verdict = SAME
                otherwise = True
            if verdict != SAME or otherwise or everything or a.refusal or b.refusal:
                found.append(
                    Unlike(
                        int(at),
                        (a.value(), b.value()),
                        (int(a.expire), int(b.expire)),
                        (a.refusal, b.refusal),
                        int(verdict),
                        otherwise,
                    )
                )
        return found

    def same_value(self, one: bytes, start: i64, stop: i64, other: bytes, other_start: i64) -> bool:
        """Whether two payloads of one length have the same bytes in front of what their servers' versions add."""
        end = stop - FOOTER
        if end <= start:
            return False
        other_end = other_start + end - start
        if one[start:end] != other[other_start:other_end]:
            return False
        # the numbers of later types have more than one meaning
        return one[start] < _FIRST_AMBIGUOUS or one[end : end + 2] == other[other_end : other_end + 2]

    def compare_values(self, one: bytes, other: bytes) -> i64:
        """Compare two payloads without regard to how the value is stored; returns SAME, OTHER_TYPE, OTHER_VALUE or UNDECIDED."""
        if len(one) <= FOOTER or len(other) <= FOOTER:
            return UNDECIDED
        a = self.coding(one)
        b = self.coding(other)
        code: i64 = one[0]
        other_code: i64 = other[0]
        name = a.names[code]
        if not name or not b.names[other_code]:
            return UNDECIDED
        if name != b.names[other_code]:
            return OTHER_TYPE
        method: i64 = a.methods[code]
        if method < 0 or b.methods[other_code] < 0:
            return UNDECIDED
        form = self.forms[0]
        other_form = self.forms[1]
        try:
            read_form(a.decoder, code, one, form, method)
            read_form(b.decoder, other_code, other, other_form, method)
        except RdbError:
            return UNDECIDED
        if form.undecided or other_form.undecided:
            return UNDECIDED
        return SAME if form.sum == other_form.sum and form.count == other_form.count else OTHER_VALUE

    def coding(self, payload: bytes) -> Coding:
        """How this payload is read."""
        end: i64 = len(payload) - FOOTER
        version = payload[end] | payload[end + 1] << 8
        found = self.codings.get(version)
        if found is None:
            flavour = VALKEY if version >= VALKEY_VERSIONS[0] else REDIS
            found = self.codings[version] = Coding(FileTypes(flavour, version, self.limit, ""))
        return found


def is_plain(answers: bytes) -> bool:
    """Whether no answer is nothing or an error, as far as one look tells: bytes of a value may look like one."""
    return answers[:1] != b"-" and b"\n$-1\r" not in answers and b"\n-" not in answers and answers[:3] != b"$-1"


def read_form(decoder: Decoder, code: i64, payload: bytes, form: Form, method: i64) -> None:
    """Read a payload into `form`. Raises: RdbError where it is damaged."""
    form.begin(method)
    decoder.begin(code)
    value = payload[1:-FOOTER]
    pos = decoder.feed(value, 0, form)
    if not decoder.done or pos != len(value):
        raise CorruptError("its parts do not end where the value ends")
